"""What surrounds the code agrees with it: citation, changelog, packages, CI, containers."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]


def read(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_names_this_version_and_the_paper():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["message"]
    assert citation["authors"] == [{"name": "The BIGRec study authors"}]
    assert citation["version"] == VERSION
    assert citation["license"] == PROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert {"type": "other", "value": "arXiv:2308.08434"} in paper["identifiers"]
    assert paper["title"] and paper["authors"][0]["family-names"] == "Bao"


def test_the_changelog_ends_with_the_released_versions():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[:2] == ["Unreleased", VERSION]
    kinds = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_wheel_holds_every_package_and_its_data():
    package = ROOT / "bigrec_lib"
    tool = PROJECT["tool"]["setuptools"]
    rooms = {path.parent for path in package.rglob("*.py")}
    assert {".".join(room.relative_to(ROOT).parts) for room in rooms} == set(tool["packages"])
    files = [path for path in package.rglob("*.*") if "__pycache__" not in path.parts]
    data = {path for path in files if path.suffix != ".py"}
    listed = {
        path
        for name, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*name.split(".")).glob(pattern)
    }
    assert data and data == listed


def test_ci_runs_its_script_on_every_python():
    job = read(".github/workflows/tests.yml")["jobs"]["tests"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert job["steps"][-1] == {"run": ".ci/run"} and (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_containers_install_the_locked_versions():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    target = container["postCreateCommand"].removeprefix("make ")
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    (lock,) = re.findall(r"^-r (.+)$", (ROOT / "binder/requirements.txt").read_text(), re.MULTILINE)
    assert (ROOT / "binder" / lock).resolve() == ROOT / "requirements.lock"
    python = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert container["image"].endswith(f":{python}")
    assert f"python={python}" in read("environment.yml")["dependencies"]
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o100


def test_issues_ask_for_what_is_needed():
    forms = {name: read(f".github/ISSUE_TEMPLATE/{name}.yml") for name in ("bug", "feature")}
    for form in forms.values():
        assert form["name"] and form["description"]
        assert any(part.get("validations", {}).get("required") for part in form["body"])
    (manifest,) = (part for part in forms["bug"]["body"] if part["id"] == "manifest")
    assert "manifests.json" in manifest["attributes"]["description"]
    assert manifest["validations"]["required"]


@pytest.mark.slow
def test_the_library_can_be_installed_and_used_outside_the_checkout(tmp_path):
    pytest.importorskip("setuptools", "77", reason="builds a wheel without a network")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "bigrec_lib", source / "bigrec_lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = "--quiet --no-deps --no-index --no-build-isolation --target".split()
    subprocess.run([sys.executable, "-m", "pip", "install", *options, site, source], check=True)
    code = (
        "from bigrec_lib.method import metrics\n"
        "from bigrec_lib.findings import evidence, site\n"
        "from bigrec_lib.study import explorer\n"
        "assert len(evidence.published_numbers())\n"
        "print(metrics.ndcg([0], 20), site.__file__)"
    )
    run = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[0] == "[1.]", done.stderr
    assert done.stdout.split()[1].startswith(str(site))
