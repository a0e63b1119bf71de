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
    """Data as JSON, with as many examples as fit. Raises StudyError if not even the fewest do."""
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

    Of all other test examples, only the texts of the first beam.
    """
    explorer = pd.read_parquet(folder / "explorer.parquet")
    split, subset = ("split", "=", "test"), ("example", "in", explorer.example.unique().tolist())
    filters_of = {
        "examples": [split],
        "generations": [[split, subset], [split, ("beam", "=", 0)]],
        "items": None,
        "lists": [subset],
        "ranks": [split, subset],
    }
    tables = {
        name: pd.read_parquet(folder / f"{name}.parquet", filters=filters)
        for name, filters in filters_of.items()
    }
    path = folder / "tables" / "methods.csv"
    names = tables["ranks"].method.unique()
    fallback = pd.DataFrame({"method": names, "label": names, "kind": ""})
    methods = pd.read_csv(path, keep_default_na=False) if path.exists() else fallback
    return tables | {"explorer": explorer, "methods": methods}


def study(name: str, tables: dict[str, pd.DataFrame], n: int) -> dict:
    """What the page knows of a study, with at most n examples of each data set."""
    explorer = tables["explorer"]
    return {
        "study": name,
        "k": K,
        "gammas": explorer.gammas.iloc[0].tolist(),
        "datasets": [
            of_dataset(str(dataset), rows, tables, n)
            for dataset, rows in explorer.groupby("dataset")
        ],
    }


def of_dataset(name: str, rows: pd.DataFrame, tables: dict[str, pd.DataFrame], n: int) -> dict:
    """One data set: its examples, what every method says of them, and what γ does to BIGRec.

    rows: those of explorer.parquet.
    """
    frames = {
        key: table[table.dataset == name] for key, table in tables.items() if "dataset" in table
    }
    test = frames["examples"].set_index("example")
    examples = test.loc[rows.example.unique()].sort_values("draw").index[:n].sort_values()
    rows = rows[rows.example.isin(examples)]
    catalogue = Catalogue(frames["items"].set_index("item"))
    seeds = []
    for run, seed in seeds_of(frames["ranks"], str(rows.run.iloc[0])):
        run_frames = {key: rows_of(run, table) for key, table in frames.items() if "run" in table}
        seeds.append(of_seed(run, int(seed), examples, run_frames, catalogue, tables["methods"]))
    texts = rows.drop_duplicates("example").set_index("example").prompt.loc[examples]
    head, tail = ends_of(texts.iloc[0])
    return {
        "name": name,
        "words": words_of(head),
        "n_test": len(test),
        "candidates": len(catalogue.counts),
        "prompt": [head, tail],
        "examples": examples_of(
            test.loc[examples], texts.str.slice(len(head), -len(tail)), catalogue
        ),
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
            bigrec[bigrec.run == template.format(run=run)].assign(method=name)
            for name, template in VARIANTS.items()
        ]
    return pd.concat(parts)


def examples_of(test: pd.DataFrame, texts: pd.Series, catalogue: Catalogue) -> list[dict]:
    """What is known of each example whatever the method; texts: the titles in its prompt."""
    shares = census.continuity(test.history, test.target, catalogue.titles)
    return [
        {
            "number": int(row.Index),
            "user": int(row.user),
            "history": catalogue.numbers(row.history),
            "target": catalogue.number(row.target),
            "prompt": texts[row.Index],
            "continuity": share,
        }
        for row, share in zip(test.itertuples(), shares.tolist(), strict=True)
    ]


def again_of(rows: pd.DataFrame, catalogue: Catalogue) -> dict:
    """What it takes to rank the examples shown again; rows: theirs in explorer.parquet."""
    shared = shared_pulls(rows, catalogue)
    numbers = range(len(catalogue.shown))
    return {
        "seed": int(rows.seed.iloc[0]),
        "gammas": rows.drop_duplicates("weights").set_index("weights").gamma.to_dict(),
        "examples": [of_example(group, catalogue, shared) for _, group in rows.groupby("example")],
        "pulls": {
            name: packed(pulls.reindex(numbers, fill_value=0.0)) for name, pulls in shared.items()
        },
    }


class Catalogue:
    """The titles that are shown, numbered in order of appearance, and what is known of each."""

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

    def numbers(self, items: np.ndarray) -> list[int]:
        return [self.number(item) for item in items]


def seeds_of(ranks: pd.DataFrame, run: str) -> list[tuple[str, int]]:
    """The runs that differ from `run`, such as n1024-s0, at most in the seed; with their seeds."""
    but_for_seed = run.rpartition("-s")[0]
    runs = ranks[["run", "seed"]].drop_duplicates().itertuples(index=False, name=None)
    alike = [(name, seed) for name, seed in runs if name == f"{but_for_seed}-s{seed}"]
    return sorted(alike, key=lambda pair: pair[1])


def of_seed(
    run: str,
    seed: int,
    examples: pd.Index,
    tables: dict[str, pd.DataFrame],
    catalogue: Catalogue,
    methods: pd.DataFrame,
) -> dict:
    """What the methods of one run say of these examples; tables: its rows of every table."""
    generations = tables["generations"].assign(
        title=tables["generations"].text.map(prompts.title_of)
    )
    first = generations[generations.beam == 0]
    frequencies = first.title.map(first.title.value_counts()).set_axis(first.example)
    beams = generations[generations.example.isin(examples)].sort_values(["example", "beam"])
    ranks = tables["ranks"][tables["ranks"].example.isin(examples)].sort_values(
        "example", kind="stable"
    )
    lists = tables["lists"][tables["lists"].example.isin(examples)].sort_values(
        "example", kind="stable"
    )
    unlisted = methods.method[methods.kind.isin(("random", "united"))]  # of all data sets' titles
    lists = lists[~lists.method.isin(unlisted)]
    frames = {"ranks": ranks, "lists": lists}
    by_method = {
        name: dict(list(frame.groupby("method", sort=False))) for name, frame in frames.items()
    }
    return {
        "run": run,
        "seed": seed,
        "beams": [
            [[row.text, row.score] for row in rows.itertuples()]
            for _, rows in beams.groupby("example")
        ],
        "often": packed(frequencies.loc[examples]),
        "ranks": {
            method: [packed(rows["rank"]), packed(rows.ties)]
            for method, rows in by_method["ranks"].items()
            if len(rows) == len(examples)
        },
        "lists": {
            method: packed([catalogue.numbers(items[:K]) for items in rows["items"]])
            for method, rows in by_method["lists"].items()
            if len(rows) == len(examples)
        },
    }


def shared_pulls(rows: pd.DataFrame, catalogue: Catalogue) -> dict[str, pd.Series]:
    """Weights that are the same for every example, such as popularity -> log(1 + W) by title."""
    shared = {}
    for name, group in rows.groupby("weights"):
        titles = np.array(catalogue.numbers(np.concatenate(group["items"].to_numpy())))
        pulls = pd.Series(np.concatenate(group.pulls.to_numpy()), index=titles).groupby(level=0)
        if (pulls.nunique() == 1).all():
            shared[str(name)] = pulls.first()
    return shared


def of_example(rows: pd.DataFrame, catalogue: Catalogue, shared: dict[str, pd.Series]) -> dict:
    """What it takes to rank one example again; rows: one for each kind of weights."""
    first = rows.iloc[0]
    order = np.argsort(first["items"], kind="stable")  # of equal keys the lower item comes first
    return {
        "low": first.low,
        "high": first.high,
        "titles": packed(catalogue.numbers(first["items"][order])),
        "logs": packed(first.logs[order]),
        "weights": {
            row.weights: {"rank": steps(row.rank), "ties": steps(row.ties)}
            | ({} if row.weights in shared else {"pulls": packed(row.pulls[order])})
            for row in rows.itertuples()
        },
    }


def steps(values: np.ndarray) -> str:
    """Values over γ: one for each γ, or a single one where all are equal."""
    return packed(values[:1] if (values == values[0]).all() else values)


def ends_of(prompt: str) -> tuple[str, str]:
    """What every prompt of a data set has before its first title, and after its last."""
    return prompt[: prompt.index('"')], prompt[prompt.rindex('"') + 1 :]


def words_of(head: str) -> str:
    """What users do with items, as the prompt says it: watched, played."""
    match = re.search(r"The user has (.+?) the following", head)
    return match[1] if match else "chosen"


def shown_methods(methods: pd.DataFrame, seeds: list[dict]) -> list[list[str]]:
    """Name, label and kind of the methods that are there, in the order of the registry."""
    ranked_methods = {method for seed in seeds for method in seed["ranks"]}
    registry = methods.set_index("method")
    rest = sorted(ranked_methods - set(registry.index))
    names = [name for name in registry.index if name in ranked_methods]
    rows = [[name, str(registry.label[name]), str(registry.kind[name])] for name in names]
    return rows + [[name, name, ""] for name in rest]


def packed(values) -> str:
    """Numbers as a letter for their type, and the base64 of their little-endian bytes.

    Whole numbers take as few bytes as the largest needs (B, H, I); others are float64 (d).
    """
    array = np.asarray(values).ravel()
    if array.dtype.kind == "f":
        letter = "d"
    else:
        largest = int(array.max(initial=0))
        letter = "B" if largest < 1 << 8 else "H" if largest < 1 << 16 else "I"
    raw = array.astype(np.dtype(letter).newbyteorder("<")).tobytes()
    return letter + base64.b64encode(raw).decode()
