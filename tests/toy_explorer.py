"""A published study whose examples can be explored, with titles that would like to be markup."""

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import write_parquet, write_text
from bigrec_lib.method import contenders, grounding, metrics, prompts, reweighting
from bigrec_lib.study.row_keys import KEYS

HOSTILE = [
    '<img src=x onerror="window.hacked = 1">',
    "</script><script>window.hacked = 2</script>",
    '"><svg onload=window.hacked=3>',
    "javascript:window.hacked=4",
    "${window.hacked = 5}",
    "__proto__",
    "&lt;b&gt; &amp; <b>bold</b>",
    "line\u2028separator\u2029here",
    "שלום עולם (1999)",
    "مرحبا بالعالم! (2001)",
    "\u202eright to left\u202c",
    "🎮 Pokémon 👩‍👩‍👧 ポケモン",
    "-->",
    "A title that goes on and on, without" + "anyspace" * 30,
]
ITEMS, N, K = 150, 24, 20
GAMMAS = reweighting.GAMMAS
WEIGHTS = ("popularity", "popularity-all", "collaborative")
UNITED = "bigrec-union"
LABELS = {"bigrec": "BIGRec", "markov": "Markov <b>chain</b>", "random": "Random, one draw"}
LABELS[UNITED] = "BIGRec, all domains' titles"


class World:
    """One data set with embeddings that tie, and what 04 and 05 work out from them."""

    def __init__(self, name: str, number: int):
        rng = np.random.default_rng(number)
        plain = [f"Title {i} of {name} ({1950 + i % 70})" for i in range(ITEMS - len(HOSTILE) - 1)]
        self.name, titles = name, [*HOSTILE, *plain]
        self.titles = [*titles, titles[40]]  # the last item is a namesake
        self.group = np.r_[np.arange(ITEMS - 1), 40].astype(np.int32)
        self.counts = rng.integers(0, 40, ITEMS) * (rng.random(ITEMS) < 0.7)
        self.of_titles = np.bincount(self.group, weights=self.counts)  # (149,)
        self.vectors = rng.integers(-2, 3, (ITEMS - 1, 6)).astype(np.float32)
        self.vectors[60:80] = self.vectors[20:40]  # other titles with the same embeddings
        self.queries = rng.standard_normal((N, 6)).astype(np.float32)
        self.queries[:8] = self.vectors[rng.integers(0, ITEMS - 1, 8)]  # exact matches
        self.targets = np.r_[np.arange(14), rng.integers(0, ITEMS - 1, N - 14)]
        self.history = rng.integers(0, ITEMS, (N, 5))
        self.numbers = 1000 + 3 * np.arange(N)
        liked = rng.integers(0, 30, (N, ITEMS - 1)).astype(np.float32)
        self.weights = {
            "popularity": reweighting.popularity_weights(np.round(self.of_titles / 10)),
            "popularity-all": reweighting.popularity_weights(self.of_titles),
            "collaborative": reweighting.collaborative_weights(liked),
        }
        self.swept = {
            name: reweighting.ranks(self.queries, self.vectors, self.targets, pull, GAMMAS)
            for name, pull in self.weights.items()
        }
        self.chosen = {"popularity": 0.25, "popularity-all": 3.0, "collaborative": 22.0}
        self.texts = [["Title, the (1990)", "<b>x</b>", "", "שלום"] for _ in range(N)]
        for text, title in zip(self.texts[10:], self.titles, strict=False):
            text[0] = f'"{title}"'

    def list_at(self, weights: str, gamma: float) -> np.ndarray:
        pull = self.weights[weights]
        return reweighting.nearest(self.queries, self.vectors, pull, gamma, K)

    def places(self, weights: str, gamma: float) -> pd.DataFrame:
        return reweighting.at(self.swept[weights], GAMMAS, gamma)

    def prompt(self, row: int) -> str:
        words = prompts.DOMAINS["movies"]
        return prompts.prompt([self.titles[item] for item in self.history[row]], words)

    def methods(self) -> dict[str, tuple[pd.DataFrame, np.ndarray]]:
        """Method -> ranks and lists."""
        rng = np.random.default_rng(9)
        made = {
            "bigrec": (
                grounding.ranks(self.queries, self.vectors, self.targets),
                grounding.nearest(self.queries, self.vectors, K)[0],
            )
        }
        for name, gamma in self.chosen.items():
            made[f"bigrec+{name}"] = self.places(name, gamma), self.list_at(name, gamma)
        for name in ("markov", "random"):
            scores = rng.integers(0, 30, (N, ITEMS - 1)).astype(np.float64)
            made[name] = grounding.counted(scores, self.targets), grounding.first(scores, K)
        return made


def tables(world: World) -> dict[str, list[pd.DataFrame]]:
    """The rows of one data set, of two seeds; the second is the first one's, turned round."""
    found: dict[str, list[pd.DataFrame]] = {}

    def add(name: str, frame: pd.DataFrame, keys: dict) -> None:
        found.setdefault(name, []).append(pd.DataFrame(keys | dict(frame.items())))

    of_data = {"dataset": world.name}
    drawn = np.random.default_rng(3).permutation(N)
    examples = {"split": "test", "example": world.numbers, "user": 7 + np.arange(N) // 2}
    examples |= {"history": list(world.history), "target": world.targets, "draw": drawn}
    add("examples", pd.DataFrame(examples), of_data)
    items = {"item": np.arange(ITEMS), "title": world.titles, "title_group": world.group}
    add("items", pd.DataFrame(items | {"train_count": world.counts}), of_data)
    first_items = np.unique(world.group)
    for seed in (0, 1):
        keys = KEYS | {"dataset": world.name, "run": f"n64-s{seed}", "n_train": 64, "seed": seed}
        turn = slice(None, None, -1 if seed else 1)
        for method, (ranks, lists) in world.methods().items():
            ranks, lists = ranks.iloc[turn].reset_index(drop=True), lists[turn]
            add("ranks", ranks.assign(split="test", method=method, example=world.numbers), keys)
            listed = {"method": method, "example": world.numbers}
            add("lists", pd.DataFrame(listed | {"items": list(first_items[lists])}), keys)
        united = {"method": UNITED, "example": world.numbers}  # titles of other data sets are -1
        add("lists", pd.DataFrame(united | {"items": list(np.full((N, K), -1))}), keys)
        if seed == 0:  # constrained decoding, with the places of the Markov chain
            ranks, lists = world.methods()["markov"]
            keys_of = keys | {"run": "n64-s0-constrained", "constrained": True}
            of = {"method": "bigrec", "example": world.numbers}
            add("ranks", ranks.assign(split="test", **of), keys_of)
            listed = of | {"items": list(first_items[lists])}
            add("lists", pd.DataFrame(listed), keys_of)
        beams = [
            (number, beam, text, -0.5 - 0.123456 * beam)
            for number, texts in zip(world.numbers, world.texts[turn], strict=True)
            for beam, text in enumerate(texts)
        ]
        said = pd.DataFrame(beams, columns=["example", "beam", "text", "score"])
        add("generations", said.assign(split="test"), keys)
    again = contenders.table(
        world.queries, world.vectors, np.arange(N), world.weights, world.swept, GAMMAS, K
    )
    explorer = again.drop(columns=["row", "candidates"]).assign(
        example=world.numbers[again.row],
        gamma=again.weights.map(world.chosen),
        prompt=[world.prompt(row) for row in again.row],
        items=[first_items[few].astype(np.int32) for few in again.candidates],
        gammas=[GAMMAS] * len(again),
    )
    add("explorer", explorer, KEYS | {"dataset": world.name, "run": "n64-s0", "n_train": 64})
    return found


def publish(folder: Path) -> dict[str, World]:
    """Write what a published study has of two such data sets; the worlds, by name."""
    worlds = {name: World(name, number) for number, name in enumerate(("films", "<i>games</i>"))}
    parts = [tables(world) for world in worlds.values()]
    for name in parts[0]:
        frame = pd.concat([rows for part in parts for rows in part[name]], ignore_index=True)
        write_parquet(frame, folder / f"{name}.parquet")
    known = pd.DataFrame({"method": list(LABELS), "label": list(LABELS.values())})
    kinds = {"random": "random", UNITED: "united"}
    known["kind"] = [kinds.get(name, "") for name in known.method]
    write_text(known.to_csv(index=False), folder / "tables" / "methods.csv")
    return worlds


def value(places: pd.DataFrame, metric: str) -> float:
    """A metric at 20, as the study has it."""
    return metrics.summary(places, ks=[20]).set_index("metric").value[metric]
