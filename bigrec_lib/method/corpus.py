"""Who consumed what, and the catalogue: what a reader found, cleaned, filtered and numbered.

What all data sets share happens here, once: clean titles, sorted ids, time order, filters, and the
count of everything left out (docs/method.md, section 3).
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bigrec_lib.method.values import DataError as DataError
from bigrec_lib.method.values import now, numbers, times


@dataclass(frozen=True)
class Corpus:
    """A catalogue and who consumed what, in time order.

    items: one row per item, in the order of `item_id` as a string; the row number is the item.
        Columns item_id (str), title (str, clean), raw_title (str), title_group (int32: the
        smallest item with the same title, so namesakes share it).
    interactions: columns user (int32), item (int32), time (int64), sorted by user, then time;
        equal times keep the order of the source. A corpus that comes with a split has a column
        split (train, valid or test); its time may then be an order within the user only.
    drops: what was left out, or kept though it looks wrong, and how many of it.
    unit: of the times since 1970: the coarsest of s, ms, us, ns in which all are whole; 'order'
        if they are places in a list.
    """

    name: str
    domain: str
    items: pd.DataFrame
    interactions: pd.DataFrame
    drops: dict[str, int]
    unit: str = "s"


@dataclass(frozen=True)
class Filters:
    """What is kept of a data set; the defaults keep all.

    positive_only: ratings above this (0: every rating). k_core: users and items with at least so
    many interactions among themselves (0: all). min_title, max_title: titles of at least and at
    most so many characters (0: all).
    """

    positive_only: float = 0
    k_core: int = 0
    min_title: int = 1
    max_title: int = 0


@dataclass(frozen=True)
class Raw:
    """What a reader finds: titles (item, title), events (user, item, time; rating, split).

    titles_file, events_file: where they were found, for messages.
    """

    domain: str
    titles: pd.DataFrame
    events: pd.DataFrame
    titles_file: str
    events_file: str
    drops: dict[str, int] = field(default_factory=dict)


def assemble(name: str, raw: Raw, filters: Filters) -> Corpus:
    """A Corpus from what a reader found, after the filters; everything left out is counted.

    Raises DataError for a missing user, item, time or rating, a time or rating that cannot be
    read, an unknown split, or if nothing is left, nothing can be ordered, or all titles are alike.
    """
    events, file = raw.events, raw.events_file
    titles = cleaned(raw.titles, raw.titles_file)
    user, _ = numbered(events.user, "user", file)
    item, ids = numbered(events["item"], "item", file)
    item = pd.Index(titles["item"]).get_indexer(ids)[item]  # row of titles; -1: none
    time, unit = times(events.time, file)
    rating = ratings(events, file) if filters.positive_only > 0 else None
    split = {"split": labels(events.split, file)} if "split" in events else {}

    drops = raw.drops | {"items listed twice": len(raw.titles) - len(titles)}
    selection = Selection(titles, user, item, time, rating, drops)
    selection.apply(filters)
    if not selection.kept.any():
        raise DataError(f"{name}: no interaction is left ({drops})")

    order = np.flatnonzero(selection.kept)
    order = order[np.lexsort((time[order], user[order]))]
    check_order(user[order], time[order], file)
    drops |= future(time[order], unit) | dubious(titles.clean[selection.listed], raw.titles_file)
    columns = {
        "user": renumbered(np.bincount(user[order]) > 0)[user[order]],
        "item": renumbered(selection.listed)[item[order]],
        "time": time[order],
        **{name: values[order] for name, values in split.items()},
    }
    items = catalogue(titles[selection.listed])
    return Corpus(name, raw.domain, items, pd.DataFrame(columns), drops, unit)


def check_order(user: np.ndarray, time: np.ndarray, file: str) -> None:
    """Raise DataError unless some user, of (n,) sorted by user and time, has two times."""
    if not ((np.diff(user) == 0) & (np.diff(time) > 0)).any():
        raise DataError(
            f"{file}: no user has two interactions at different times ({len(user)} interactions, "
            f"{len(np.unique(time))} times in all), so nothing can be ordered. Is `time` the right "
            "column? If the file is in order, its row numbers will do"
        )


def future(time: np.ndarray, unit: str) -> dict[str, int]:
    """An entry of drops for times in the future; none if there are none."""
    count = int((time > now(unit)).sum())
    return {"interactions dated in the future, kept": count} if count else {}


def dubious(titles: pd.Series, file: str) -> dict[str, int]:
    """Entries of drops if half or more of the titles are the same, or mere numbers.

    Raises DataError if several items all have one title.
    """
    drops = {}
    counts = titles.value_counts()
    title, repeats = counts.index[0], int(counts.iloc[0])
    if repeats == len(titles) > 1:
        raise DataError(
            f"{file}: all {repeats} items are called {title!r:.60}, so there is nothing to choose "
            "between. Is `title` the right column?"
        )
    if 2 * repeats >= len(titles) > 2:
        drops[f"items all called {title!r:.60}, kept"] = repeats
    numerals = int(titles.str.fullmatch(r"[\d.,]+").sum())
    if 2 * numerals >= len(titles):
        drops["items whose title is a mere number, kept"] = numerals
    return drops


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
        untitled = (self.titles.clean == "").to_numpy(dtype=bool)
        self.drops["items without a title"] = int(untitled.sum())
        self.leave_out(self.item < 0, "interactions on unknown items")
        self.unlist(untitled, "interactions on items without a title")
        length = self.titles.clean.str.len().to_numpy(dtype=np.int64)
        if filters.min_title > 1:
            short = ~untitled & (length < filters.min_title)
            self.unlist_titled(short, f"below {filters.min_title}")
        if filters.max_title and (length > filters.max_title).any():
            self.unlist_titled(length > filters.max_title, f"above {filters.max_title}")
        events = pd.DataFrame({"user": self.user, "item": self.item, "time": self.time})
        self.leave_out(events.duplicated().to_numpy(), "repeated interactions")
        if self.rating is not None:
            self.leave_out(self.rating <= filters.positive_only, "interactions rated too low")
        if filters.k_core > 1:
            self.keep_core(filters.k_core)

    def leave_out(self, mask: np.ndarray, label: str) -> None:
        """Leave out the interactions of a mask (n,) bool; label: their name among the drops."""
        self.drops[label] = int((self.kept & mask).sum())
        self.kept[mask] = False

    def unlist(self, mask: np.ndarray, label: str) -> None:
        """Leave out the titles of a mask (m,) bool, with the interactions on them."""
        self.listed[mask] = False
        self.leave_out(mask[self.item] & (self.item >= 0), label)

    def unlist_titled(self, mask: np.ndarray, limit: str) -> None:
        """Leave out the titles of a mask (m,) bool, whose length is beyond a limit: 'above 90'."""
        label = f"items with a title {limit} characters"
        self.drops[label] = int(mask.sum())
        self.unlist(mask, f"interactions on {label}")

    def keep_core(self, k: int) -> None:
        """Keep only users and titles with k interactions or more among themselves."""
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


def numbered(ids: pd.Series, column: str, name: str) -> tuple[np.ndarray, pd.Index]:
    """A number for each row, by the order of the ids as strings, and the ids in that order."""
    codes, unique = pd.factorize(ids, sort=True)
    if not len(codes):
        raise DataError(f"{name}: there is no {column} at all")
    gaps = codes < (1 if len(unique) and unique[0] == "" else 0)
    if gaps.any():
        raise DataError(f"{name}: row {int(np.argmax(gaps)) + 1} has no {column}")
    return codes, unique


def renumbered(used: np.ndarray) -> np.ndarray:
    """The place of each number among those that are used, int32."""
    return (np.cumsum(used) - 1).astype(np.int32)


def ratings(events: pd.DataFrame, name: str) -> np.ndarray:
    if "rating" not in events:
        raise DataError(f"{name} has no ratings that positive_only could look at")
    return numbers(events.rating, "rating", name)


def labels(split: pd.Series, name: str) -> np.ndarray:
    unknown = split[~split.isin(["train", "valid", "test"])]
    if len(unknown):
        raise DataError(f"{name}: unknown split {unknown.iloc[0]!r}: take train, valid, test")
    return split.to_numpy()


def core(user: np.ndarray, item: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Of the rows of a mask, the largest part in which all users and items have k rows or more."""
    mask = mask.copy()
    while True:
        rare = np.zeros(len(mask), dtype=bool)
        for ids in (user, item):
            rare[mask] |= (np.bincount(ids[mask]) < k)[ids[mask]]
        if not rare.any():
            return mask
        mask &= ~rare
