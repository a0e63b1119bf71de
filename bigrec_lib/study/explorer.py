"""The explorer: a page on which a reader looks at single examples, and moves γ.

`explorer.html` holds its style and script; `explorer-data.js` assigns the data, because a page that
is opened from a disk may not fetch any. Both are made from what is published, and hold no time and
no random id. Numbers go into the data as they are, arrays of them as base64 of their bytes, so what
the page computes from them is what Python computes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import StudyError, write_text
from bigrec_lib.method import census, prompts, sequences

PARTS = Path(__file__).parent / "explorer_page"
LIMIT = 5_000_000  # bytes of explorer-data.js
SHOWN = (200, 150, 100, 75, 50, 25, 10)  # examples of a data set: the most that stay below LIMIT
K = 20
VARIANTS = {
    "bigrec-constrained": "{run}-constrained",
    "bigrec-untuned": "n0-s0",
    "bigrec-shuffled": "{run}-as-shuffled",
}
"""Methods that are the BIGRec of other runs -> those runs, of a main run."""


def write(folder: Path) -> list[Path]:
    """Write the explorer of a published study; the files written, none if it cannot be explored."""
    if not (folder / "explorer.parquet").exists():
        return []
    data = folder / "explorer-data.js"
    write_text(f"const STUDY = {fitting(folder)};\n", data)
    page = folder / "explorer.html"
    write_text(page_of(folder.name), page)
    return [page, data]


def page_of(name: str) -> str:
    """The page, with nothing of the data in it but the study's name."""
    template, style, script = (
        (PARTS / part).read_text(encoding="utf-8")
        for part in ("page.html", "style.css", "explorer.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"NAME": html.escape(name), "STYLE": style, "SCRIPT": script, "DIGEST": digest}
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template)


def fitting(folder: Path) -> str:
    """The data as JSON, with as many examples as fit. Raises StudyError if not even few do."""
    tables = read_tables(folder)
    for n in SHOWN:
        text = json.dumps(
            study(folder.name, tables, n), ensure_ascii=False, allow_nan=False,
            separators=(",", ":"), sort_keys=True,
        )  # fmt: skip
        if len(text.encode()) < LIMIT:
            return text
    raise StudyError(
        f"{folder}: the explorer takes more than {LIMIT / 1e6:g} MB even with {SHOWN[-1]} examples "
        "a data set: study fewer data sets or seeds"
    )


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The published rows that are shown, by name of their table, and the names of methods.

    Of all other test examples, just the texts that were written first.
    """
    explored = pd.read_parquet(folder / "explorer.parquet")
    test, some = ("split", "=", "test"), ("example", "in", explored.example.unique().tolist())
    wanted = {
        "examples": [test],
        "generations": [[test, some], [test, ("beam", "=", 0)]],
        "items": None,
        "lists": [some],
        "ranks": [test, some],
    }
    tables = {
        name: pd.read_parquet(folder / f"{name}.parquet", filters=filters)
        for name, filters in wanted.items()
    }
    path = folder / "tables" / "methods.csv"
    names = tables["ranks"].method.unique()
    plain = pd.DataFrame({"method": names, "label": names, "kind": ""})
    methods = pd.read_csv(path, keep_default_na=False) if path.exists() else plain
    return tables | {"explorer": explored, "methods": methods}


def study(name: str, tables: dict[str, pd.DataFrame], n: int) -> dict:
    """What the page knows of a study, with at most n examples of each data set."""
    explored = tables["explorer"]
    return {
        "study": name,
        "k": K,
        "gammas": explored.gammas.iloc[0].tolist(),
        "datasets": [
            of_dataset(str(dataset), rows, tables, n)
            for dataset, rows in explored.groupby("dataset")
        ],
    }


def of_dataset(name: str, rows: pd.DataFrame, tables: dict[str, pd.DataFrame], n: int) -> dict:
    """One data set: its examples, what every method says of them, and what γ does to BIGRec.

    rows: those of explorer.parquet.
    """
    of = {key: table[table.dataset == name] for key, table in tables.items() if "dataset" in table}
    test = of["examples"].set_index("example")
    drawn = test.loc[rows.example.unique()].sort_values("draw").index[:n].sort_values()
    rows = rows[rows.example.isin(drawn)]
    catalogue = Catalogue(of["items"].set_index("item"))
    seeds = []
    for run, seed in seeds_of(of["ranks"], str(rows.run.iloc[0])):
        of_run = {key: rows_of(run, table) for key, table in of.items() if "run" in table}
        seeds.append(of_seed(run, int(seed), drawn, of_run, catalogue, tables["methods"]))
    told = rows.drop_duplicates("example").set_index("example").prompt.loc[drawn]
    head, tail = ends_of(told.iloc[0])
    return {
        "name": name,
        "words": words_of(head),
        "n_test": len(test),
        "candidates": len(catalogue.counts),
        "prompt": [head, tail],
        "examples": examples_of(test.loc[drawn], told.str.slice(len(head), -len(tail)), catalogue),
        "seeds": seeds,
        "again": again_of(rows, catalogue),
        "titles": [catalogue.titles[item] for item in catalogue.shown],
        "counts": packed([catalogue.counts[item] for item in catalogue.shown]),
        "groups": packed([catalogue.groups[item] for item in catalogue.shown]),
        "methods": shown_methods(tables["methods"], seeds),
    }


def rows_of(run: str, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a main run, and those of its VARIANTS as methods of their own."""
    parts = [table[table.run == run]]
    if "method" in table:
        bigrec = table[table.method == "bigrec"]
        parts += [
            bigrec[bigrec.run == other.format(run=run)].assign(method=name)
            for name, other in VARIANTS.items()
        ]
    return pd.concat(parts)


def examples_of(test: pd.DataFrame, told: pd.Series, catalogue: Catalogue) -> list[dict]:
    """What is known of each example whatever the method; told: the titles in its prompt."""
    return [
        {
            "number": int(row.Index),
            "user": int(row.user),
            "history": catalogue.numbers(row.history),
            "target": catalogue.number(row.target),
            "prompt": told[row.Index],
            "continuity": continuity(catalogue.titles, row.history, row.target),
        }
        for row in test.itertuples()
    ]


def again_of(rows: pd.DataFrame, catalogue: Catalogue) -> dict:
    """What ranks the examples again; rows: of explorer.parquet, of the examples shown."""
    shared = shared_pulls(rows, catalogue)
    numbers = range(len(catalogue.shown))
    return {
        "seed": int(rows.seed.iloc[0]),
        "gammas": rows.drop_duplicates("weights").set_index("weights").gamma.to_dict(),
        "examples": [of_example(some, catalogue, shared) for _, some in rows.groupby("example")],
        "pulls": {
            name: packed(of_title.reindex(numbers, fill_value=0.0))
            for name, of_title in shared.items()
        },
    }


class Catalogue:
    """The titles that are shown, numbered as they come, and what is known of each."""

    def __init__(self, items: pd.DataFrame):
        self.titles = items.title
        self.first = items.title_group  # item -> the first item that bears its title
        self.counts = items.groupby("title_group").train_count.sum()
        groups = sequences.popularity_groups(self.counts.to_numpy())
        self.groups = pd.Series(groups, index=self.counts.index)
        self.shown: dict[int, int] = {}

    def number(self, item: int) -> int:
        """The number of an item's title among those shown."""
        return self.shown.setdefault(int(self.first[item]), len(self.shown))

    def numbers(self, some: np.ndarray) -> list[int]:
        return [self.number(item) for item in some]


def seeds_of(ranks: pd.DataFrame, run: str) -> list[tuple[str, int]]:
    """The runs that differ from `run`, such as n1024-s0, in nothing but the seed; with the seed."""
    like = re.compile(re.escape(run.rpartition("-s")[0]) + r"-s\d+")
    found = ranks[["run", "seed"]].drop_duplicates().itertuples(index=False)
    return sorted(
        (each for each in map(tuple, found) if like.fullmatch(each[0])), key=lambda r: r[1]
    )


def of_seed(
    run: str,
    seed: int,
    drawn: pd.Index,
    of: dict[str, pd.DataFrame],
    catalogue: Catalogue,
    methods: pd.DataFrame,
) -> dict:
    """What the methods of one run say of the drawn examples; of: its rows of every table."""
    said = of["generations"].assign(title=of["generations"].text.map(prompts.title_of))
    first = said[said.beam == 0]
    often = first.title.map(first.title.value_counts()).set_axis(first.example)
    beams = said[said.example.isin(drawn)].sort_values(["example", "beam"])
    ranks = of["ranks"][of["ranks"].example.isin(drawn)].sort_values("example", kind="stable")
    lists = of["lists"][of["lists"].example.isin(drawn)].sort_values("example", kind="stable")
    unlisted = methods.method[methods.kind.isin(("random", "united"))]  # of all data sets' titles
    lists = lists[~lists.method.isin(unlisted)]
    whole = {"ranks": ranks, "lists": lists}
    by_method = {what: dict(list(t.groupby("method", sort=False))) for what, t in whole.items()}
    return {
        "run": run,
        "seed": seed,
        "beams": [
            [[row.text, row.score] for row in rows.itertuples()]
            for _, rows in beams.groupby("example")
        ],
        "often": packed(often.loc[drawn]),
        "ranks": {
            method: [packed(rows["rank"]), packed(rows.ties)]
            for method, rows in by_method["ranks"].items()
            if len(rows) == len(drawn)
        },
        "lists": {
            method: packed([catalogue.numbers(shown[:K]) for shown in rows["items"]])
            for method, rows in by_method["lists"].items()
            if len(rows) == len(drawn)
        },
    }


def shared_pulls(rows: pd.DataFrame, catalogue: Catalogue) -> dict[str, pd.Series]:
    """Weights that are the same for every example, such as popularity -> log(1 + W) by title."""
    found = {}
    for name, some in rows.groupby("weights"):
        titles = np.array(catalogue.numbers(np.concatenate(some["items"].to_numpy())))
        pulls = pd.Series(np.concatenate(some.pulls.to_numpy()), index=titles).groupby(level=0)
        if (pulls.nunique() == 1).all():
            found[str(name)] = pulls.first()
    return found


def of_example(rows: pd.DataFrame, catalogue: Catalogue, shared: dict[str, pd.Series]) -> dict:
    """What ranks one example again; rows: one for each kind of weights."""
    one = rows.iloc[0]
    order = np.argsort(one["items"], kind="stable")  # of equal keys the lower item comes first
    return {
        "low": one.low,
        "high": one.high,
        "titles": packed(catalogue.numbers(one["items"][order])),
        "logs": packed(one.logs[order]),
        "weights": {
            row.weights: {"rank": steps(row.rank), "ties": steps(row.ties)}
            | ({} if row.weights in shared else {"pulls": packed(row.pulls[order])})
            for row in rows.itertuples()
        },
    }


def steps(values: np.ndarray) -> str:
    """What changes with γ: a number for each γ, or the one that it always is."""
    return packed(values[:1] if (values == values[0]).all() else values)


def continuity(titles: pd.Series, history: np.ndarray, target: int) -> float:
    """Share of the target's words that are in the titles of the history."""
    wanted = census.words(titles[target])
    read = set().union(*(census.words(titles[item]) for item in history))
    return len(wanted & read) / max(len(wanted), 1)


def ends_of(prompt: str) -> tuple[str, str]:
    """What every prompt of a data set has before its first title, and after its last."""
    return prompt[: prompt.index('"')], prompt[prompt.rindex('"') + 1 :]


def words_of(head: str) -> str:
    """What users do with items, as the prompt says it: watched, played."""
    found = re.search(r"The user has (.+?) the following", head)
    return found[1] if found else "chosen"


def shown_methods(methods: pd.DataFrame, seeds: list[dict]) -> list[list[str]]:
    """Name, label and kind of the methods that are there, in the order of the registry."""
    there = {method for seed in seeds for method in seed["ranks"]}
    known = methods.set_index("method")
    rest = sorted(there - set(known.index))
    names = [name for name in known.index if name in there]
    rows = [[name, str(known.label[name]), str(known.kind[name])] for name in names]
    return rows + [[name, name, ""] for name in rest]


def packed(values) -> str:
    """Numbers as a letter for their type, and the base64 of their little-endian bytes.

    Whole numbers take as few bytes as the largest needs (B, H, I); others are float64 (d).
    """
    array = np.asarray(values).ravel()
    if array.dtype.kind == "f":
        letter = "d"
    else:
        top = int(array.max(initial=0))
        letter = "B" if top < 1 << 8 else "H" if top < 1 << 16 else "I"
    raw = array.astype(np.dtype(letter).newbyteorder("<")).tobytes()
    return letter + base64.b64encode(raw).decode()
