"""Readers, one per source format, that turn raw files into a checked Corpus.

A reader only parses; `corpus.assemble` does what all data sets share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigrec_lib.method import assets
from bigrec_lib.method.corpus import Corpus, DataError, Filters, Raw, assemble, numbers
from bigrec_lib.method.sources import (
    DAMAGE,
    PICKLED,
    Source,
    any_table,
    json_lines,
    pickled_frame,
    table,
)


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


@dataclass(frozen=True)
class Layout:
    """One way MovieLens comes: two tables, their separators, and where the columns are."""

    ratings: str
    ratings_sep: str
    ratings_columns: Mapping[str, str | int]
    titles: str
    titles_sep: str
    titles_columns: Mapping[str, str | int]
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


def read_movielens(source: Source, encoding: str = "") -> Raw:
    """MovieLens as GroupLens packs it (u.data, ratings.dat or ratings.csv), or as a wheel does.

    encoding: of the titles, where it is not the layout's: 1M is in Latin-1, 10M in UTF-8.
    """
    if PICKLED in source:
        ratings = pickled_frame(source)
        films = ratings[["item", "title", "year"]].drop_duplicates("item")
        films = films.assign(year=films.year.map("{:.0f}".format).where(films.year.notna()))
    else:
        layouts = [layout for layout in LAYOUTS if layout.ratings in source]
        if not layouts:
            wanted = ", ".join(layout.ratings for layout in LAYOUTS)
            raise DataError(f"no file of ratings in {source.path}: one of {wanted} should be")
        layout = layouts[0]
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
    metas = {
        name: match[1]
        for name in source.files
        if (match := re.fullmatch(rf"meta_(.+?){ending}", name))
    }
    if len(metas) != 1:
        there = ", ".join(sorted(metas)) or "none"
        raise DataError(f"one file meta_<Category>.json.gz should be in {source.path}, not {there}")
    ((meta, category),) = metas.items()
    wanted = re.compile(rf"(reviews_)?{re.escape(category)}(_5)?{ending}")
    names = [name for name in source.files if wanted.fullmatch(name)]
    if not names:
        raise DataError(f"no file {category}_5.json.gz in {source.path}: the reviews are missing")
    reviews = max(names, key=lambda name: "_5.json" in name)
    reviewed, listed = AMAZON[release]
    events = json_lines(source, reviews, reviewed, release == "amazon-2014")
    titles = json_lines(source, meta, listed, release == "amazon-2014")
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
