"""Readers, one per source format, that turn raw files into a checked Corpus.

A reader only parses. What all corpora share (clean titles, sorted ids, time order, the count of
everything dropped) happens once, in `assemble`.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib import assets
from bigrec_lib.files import StudyError


class DataError(StudyError):
    """A data set cannot be read, or is not what its format says."""


@dataclass(frozen=True)
class Corpus:
    """A catalogue and who consumed what, in time order.

    items: one row an item, in the order of `item_id` as a string; the row number is the item.
        Columns item_id (str), title (str, clean), raw_title (str), title_group (int32: the
        smallest item with the same title, so namesakes share it).
    interactions: columns user (int32), item (int32), time (int64), sorted by user, then time;
        equal times keep the order of the source. A corpus that comes with a split has a column
        split (train, valid or test); its time is then an order within the user only.
    drops: what was left out, and how many of it.
    """

    name: str
    domain: str
    items: pd.DataFrame
    interactions: pd.DataFrame
    drops: dict[str, int]


def clean_title(raw: object) -> str:
    """A title as prompts show it: entities resolved, white space folded, double quotes single.

    '' for a missing title; some Amazon rows say 'None'.
    """
    if not isinstance(raw, str):
        return ""
    text = " ".join(html.unescape(raw).replace('"', "'").split())
    return "" if text == "None" else text


def load(reader: str, path: str = "") -> Corpus:
    """Read a data set: `reader` is a name in READERS, `path` its folder (else it is fetched).

    Raises DataError for an unknown reader, a missing file or column, or unreadable content.
    """
    if reader not in READERS:
        raise DataError(f"unknown data set {reader!r}: choose one of {', '.join(READERS)}")
    if not path and reader not in assets.DATA:
        raise DataError(f"{reader} cannot be fetched: set data_path to its folder")
    folder = Path(path) if path else assets.fetch(reader)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: set data_path to the folder of {reader}")
    return READERS[reader](folder)


def read_ml_100k(folder: Path) -> Corpus:
    """MovieLens-100K, as GroupLens packs it (u.data, u.item) or as RecBole does (.inter, .item)."""
    if (folder / "u.data").exists():
        ratings = table(folder / "u.data", ["user", "item", "rating", "time"], sep="\t")
        films = table(folder / "u.item", ["item", "title"], sep="|", encoding="latin-1")
    else:
        ratings = table(folder / "ml-100k.inter", ["user", "item", "rating", "time"], header=0)
        films = table(folder / "ml-100k.item", ["item", "name", "year"], header=0)
        year = films.year.where(films.year.isna(), " (" + films.year + ")").fillna("")
        films["title"] = films.name + year
    return assemble("ml-100k", "movies", films, ratings)


def read_amazon_games_split(folder: Path) -> Corpus:
    """Amazon Video Games 2018 (5-core) with a given split: interactions and titles, gzipped TSV.

    As derived from the data of DEALRec (SIGIR 2024): ratings of 4 and 5, an order per user, no
    times, and a cut at global times that the labels hold.
    """
    columns = ["user", "item", "time", "split"]
    reviews = table(folder / "interactions.tsv.gz", columns, header=0)
    unknown = set(reviews.split) - {"train", "valid", "test"}
    if unknown:
        raise DataError(f"{folder}/interactions.tsv.gz: unknown split {unknown.pop()!r}")
    titles = table(folder / "titles.tsv.gz", ["item", "title"], header=0)
    return assemble("amazon-games-2018-split", "games", titles, reviews)


READERS: dict[str, Callable[[Path], Corpus]] = {
    "ml-100k": read_ml_100k,
    "amazon-games-2018-split": read_amazon_games_split,
}


def table(path: Path, names: list[str], sep: str = "\t", header=None, encoding="utf-8"):
    """The first len(names) columns of a delimited text file, as strings."""
    if not path.exists():
        raise DataError(f"no file {path}: is this the right folder?")
    try:
        frame = pd.read_csv(
            path,
            sep=sep,
            header=header,
            names=names,
            usecols=range(len(names)),
            dtype=str,
            encoding=encoding,
            quoting=3,
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a table of {', '.join(names)} separated by {sep!r}: {error}"
        ) from None
    if frame.empty:
        raise DataError(f"{path} holds no rows")
    return frame


def assemble(name: str, domain: str, titles: pd.DataFrame, events: pd.DataFrame) -> Corpus:
    """A Corpus from raw string columns: titles (item, title), events (user, item, time).

    Raises DataError for a time that is no number, or if nothing is left.
    """
    drops = {}
    titles = titles.drop_duplicates("item")
    titles = titles.assign(clean=titles.title.map(clean_title))
    drops["items without a title"] = int((titles.clean == "").sum())
    titles = titles[titles.clean != ""].sort_values("item", kind="stable")
    titles = titles.reset_index(drop=True)

    time = pd.to_numeric(events.time, errors="coerce")
    if time.isna().any():
        row = int(np.flatnonzero(time.isna())[0])
        raise DataError(f"{name}: row {row + 1} has time {events.time.iloc[row]!r}, not a number")
    events = events.assign(time=time.astype(np.int64))
    known = events["item"].isin(titles["item"])
    drops["interactions on items without a title"] = int((~known).sum())
    events = events[known]
    again = events.duplicated(["user", "item", "time"])
    drops["repeated interactions"] = int(again.sum())
    events = events[~again]
    if events.empty:
        raise DataError(f"{name}: no interaction is left ({drops})")

    item_of = pd.Series(np.arange(len(titles), dtype=np.int32), index=titles["item"])
    users = pd.Index(sorted(events.user.unique()))
    interactions = pd.DataFrame(
        {
            "user": users.get_indexer(events.user).astype(np.int32),
            "item": item_of[events["item"]].to_numpy(),
            "time": events.time.to_numpy(),
            **({"split": events.split.to_numpy()} if "split" in events else {}),
        }
    ).sort_values(["user", "time"], kind="stable", ignore_index=True)
    numbers = pd.Series(np.arange(len(titles), dtype=np.int32))
    items = pd.DataFrame(
        {
            "item_id": titles["item"],
            "title": titles.clean,
            "raw_title": titles.title,
            "title_group": numbers.groupby(titles.clean).transform("min").astype(np.int32),
        }
    )
    return Corpus(name, domain, items, interactions, drops)
