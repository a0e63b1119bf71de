"""Which code a study was made with, as its results tell."""

import json

from bs4 import BeautifulSoup
from toy_site import publish

from bigrec_lib.findings import making, site


def test_commits_and_accepted_changes_are_told(tmp_path):
    a, b, c = ("1234567890abcdef", "fedcba0987654321", "a" * 40)
    entry = {"why": "faster", "commit": c, "was": {"b.py": "1", "a.py": "2"}}
    jobs = {
        "x": {"commit": a, "accepted": [entry, entry | {"why": "a <check>"}]},
        "y": {"commit": a, "accepted": [entry]},
        "z": {"commit": b},
        "w": {"commit": ""},
    }
    jobs = {name: job | {"keys": {"dataset": "films"}} for name, job in jobs.items()}
    jobs["07"] = {"commit": b, "keys": {"dataset": ""}}
    (tmp_path / "manifests.json").write_text(json.dumps({"jobs": jobs, "files": {}}))
    rules = [("C1", a), ("C1", a), ("C2", a), ("Q1", "uncommitted"), ("Q2", "")]
    lines = ["claim,rule_commit", *(f"{claim},{commit}" for claim, commit in rules)]
    (tmp_path / "claims.csv").write_text("\n".join(lines) + "\n")
    assert making.code_of(tmp_path) == {
        "rules": [(a[:10], "C1, C2"), ("uncommitted", "Q1"), ("no commit", "Q2")],
        "jobs": [(a[:10], "2 jobs"), (b[:10], "1 job"), ("no commit", "1 job")],
        "accepted": [
            ("a.py, b.py", "a <check>", c[:10], "1 job"),
            ("a.py, b.py", "faster", c[:10], "2 jobs"),
        ],
    }


def test_nothing_is_told_of_results_without_jobs_and_claims(tmp_path):
    assert making.code_of(tmp_path) == {"rules": [], "jobs": [], "accepted": []}


def test_the_page_of_evidence_tells_what_was_accepted(tmp_path):
    folder = tmp_path / "results" / "toy"
    publish(folder)
    told = json.loads((folder / "manifests.json").read_text())
    name, job = next(iter(told["jobs"].items()))
    job["accepted"] = [{"why": "<b>faster</b>", "commit": "c" * 40, "was": {"llm.py": "1"}}]
    (folder / "manifests.json").write_text(json.dumps(told))
    shown = sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb"))
    site.write(folder, shown)
    page = BeautifulSoup((folder / "site" / "evidence.html").read_text(), "html.parser")
    (row,) = page.find("section", {"aria-labelledby": "code"}).find("tbody").find_all("tr")
    cells = [cell.get_text() for cell in row.find_all(["th", "td"])]
    assert cells == ["llm.py", "<b>faster</b>", "1 job", "c" * 10], name
