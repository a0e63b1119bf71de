"""Who consumed what, and the catalogue: what a reader found, cleaned, filtered and numbered.

What all data sets share happens here, once: clean titles, sorted ids, time order, filters, and the
count of everything left out (docs/method.md, section 3).
"""

from __future__ import annotations

import html
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

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
    selection = Selection(titles, user, item, time, rating, drops)
    selection.apply(filters)
    if not selection.kept.any():
        raise DataError(f"{name}: no interaction is left ({drops})")

    order = np.flatnonzero(selection.kept)
    order = order[np.lexsort((time[order], user[order]))]
    columns = {
        "user": renumbered(np.bincount(user[order]) > 0)[user[order]],
        "item": renumbered(selection.listed)[item[order]],
        "time": time[order],
    }
    if "split" in events:
        columns["split"] = labels(events.split, name)[order]
    items = catalogue(titles[selection.listed])
    return Corpus(name, raw.domain, items, pd.DataFrame(columns), drops)


def clean_title(raw: object) -> str:
    """A title as prompts show it: entities resolved, white space folded, double quotes single.

    '' for a missing title; some Amazon rows say 'None'.

    >>> clean_title('  Tom &amp; "Jerry" ')
    "Tom & 'Jerry'"
    """
    if not isinstance(raw, str):
        return ""
    text = " ".join(html.unescape(raw).replace('"', "'").split())
    return "" if text == "None" else text


def cleaned(titles: pd.DataFrame, name: str) -> pd.DataFrame:
    """Each item once, in the order of the ids as strings, with its title as prompts show it."""
    numbered(titles["item"], "item", name)
    titles = titles.drop_duplicates("item").sort_values("item", ignore_index=True)
    return titles.assign(clean=titles.title.map(clean_title))


@dataclass
class Selection:
    """Which titles and which interactions stay, while filters are applied one after another.

    titles: of `cleaned`. user, item, time, rating: (interactions,); item is a row of `titles`, or
    -1; rating is None where no filter asks for it. listed: (titles,) and kept: (interactions,)
    bool, what stays. drops: what was left out, and how many of it.
    """

    titles: pd.DataFrame
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    drops: dict[str, int]
    listed: np.ndarray = field(init=False)
    kept: np.ndarray = field(init=False)

    def __post_init__(self):
        self.listed = np.ones(len(self.titles), dtype=bool)
        self.kept = np.ones(len(self.item), dtype=bool)

    def apply(self, filters: Filters) -> None:
        """Leave out what the filters say, in the order in which `drops` lists it."""
        bare = (self.titles.clean == "").to_numpy(dtype=bool)
        self.drops["items without a title"] = int(bare.sum())
        self.leave_out(self.item < 0, "interactions on unknown items")
        self.unlist(bare, "interactions on items without a title")
        if filters.min_title > 1:
            short = (self.titles.clean.str.len() < filters.min_title).to_numpy(dtype=bool)
            what = f"items with a title below {filters.min_title} characters"
            self.drops[what] = int((short & ~bare).sum())
            self.unlist(short & ~bare, f"interactions on {what}")
        events = pd.DataFrame({"user": self.user, "item": self.item, "time": self.time})
        self.leave_out(events.duplicated().to_numpy(), "repeated interactions")
        if self.rating is not None:
            self.leave_out(self.rating <= filters.positive_only, "interactions rated too low")
        if filters.k_core > 1:
            self.keep_core(filters.k_core)

    def leave_out(self, gone: np.ndarray, what: str) -> None:
        """Interactions (n,) bool that go, and what they are called among the drops."""
        self.drops[what] = int((self.kept & gone).sum())
        self.kept[gone] = False

    def unlist(self, gone: np.ndarray, what: str) -> None:
        """Titles (m,) bool that go, with the interactions on them."""
        self.listed[gone] = False
        self.leave_out(gone[self.item] & (self.item >= 0), what)

    def keep_core(self, k: int) -> None:
        """Only users and titles with k interactions or more among themselves."""
        outside = f"outside the {k}-core"
        users = len(np.unique(self.user[self.kept]))
        inside = core(self.user, self.item, self.kept, k)
        self.leave_out(~inside, f"interactions {outside}")
        self.drops[f"users {outside}"] = users - len(np.unique(self.user[self.kept]))
        used = np.bincount(self.item[self.kept], minlength=len(self.titles)) > 0
        self.drops[f"items {outside}"] = int((self.listed & ~used).sum())
        self.listed &= used


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
            typed = array.cast(kind)
            values = typed.cast(pa.int64()) if kind == pa.timestamp("s") else typed
            values = values.to_numpy(zero_copy_only=False)
            if not typed.null_count and (np.abs(values) < 2.0**62).all():
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
