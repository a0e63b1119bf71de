"""A data set in numbers: its size, and what BIGRec and its rivals depend on.

An LLM can go by words that target and history share; a model of item numbers cannot recommend what
it has never seen; a target at the very time of the last history item comes after it by the order
of the file alone.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bigrec_lib.method.corpus import Corpus
from bigrec_lib.method.values import ORDER

ACCENTS = ("\u0300", "\u036f")  # first and last of Unicode's signs for any letter


def words(title: str) -> set[str]:
    """The words of a title, without case and punctuation.

    >>> sorted(words("Killers, The (1946)")), sorted(words("हिन्दी किताब"))
    (['1946', 'killers', 'the'], ['किताब', 'हिन्दी'])
    """
    spaced = (letter if in_words(letter) else " " for letter in title.casefold())
    return set("".join(spaced).split())


def in_words(character: str) -> bool:
    """Whether it is a letter, a number, or a sign that belongs to a letter, such as a vowel's."""
    return character == "_" or unicodedata.category(character)[0] in "LNM"


def normalised(title: str) -> str:
    """A title without case, accents, punctuation and spaces, to find near duplicates by.

    Signs that other scripts write vowels with are no accents.

    >>> normalised("Pokémon: Red") == normalised("POKEMON RED")
    True
    >>> normalised("バス") == normalised("パス")
    False
    """
    plain = unicodedata.normalize("NFKD", title.casefold())
    kept = (
        character
        for character in plain
        if in_words(character) and character != "_" and not ACCENTS[0] <= character <= ACCENTS[1]
    )
    return unicodedata.normalize("NFC", "".join(kept))


def script(title: str) -> str:
    """The script of most letters of a title, as Unicode names it; '' without letters.

    >>> script("Wii ポケモン"), script("1941"), script("Amélie")
    ('KATAKANA', '', 'LATIN')
    """
    scripts = Counter(
        unicodedata.name(letter, "?").split()[0] for letter in title if letter.isalpha()
    )
    return scripts.most_common(1)[0][0] if scripts else ""


def effective(sizes: np.ndarray) -> float:
    """How many equally large groups would weigh as much as groups of these sizes (Kish)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def continuity(
    histories: Sequence[Sequence[int]], targets: Sequence[int], titles: Sequence[str]
) -> np.ndarray:
    """Share of each target title's words that occur in the titles of its history, (n,) float64.

    histories, targets: numbers of items in `titles`.
    """
    cache = {}

    def words_of(item: int) -> set[str]:
        if item not in cache:
            cache[item] = words(titles[item])
        return cache[item]

    shares = [
        len(words_of(target) & set().union(*map(words_of, history))) / max(len(words_of(target)), 1)
        for target, history in zip(targets, histories, strict=True)
    ]
    return np.array(shares)


def repeats(examples: pa.Table, candidate: np.ndarray) -> float:
    """Share of examples whose history holds the title of their target.

    candidate: (items,) what an item is ranked as; items with the same title are one.
    """
    sizes = pc.list_value_length(examples["history"]).to_numpy()
    target = np.repeat(candidate[examples["target"].to_numpy()], sizes)
    row = np.repeat(np.arange(len(examples)), sizes)
    rows = row[candidate[pc.list_flatten(examples["history"]).to_numpy()] == target]
    return len(np.unique(rows)) / len(examples)


def census(
    corpus: Corpus, splits: dict[str, pa.Table], drawn: dict[str, pa.Table], counts: np.ndarray
) -> pd.DataFrame:
    """A data set in numbers: columns what, value.

    splits: all examples by split; drawn: those that are used. counts: training interactions of
    each item. Shares are of the drawn test examples, unless stated otherwise.
    """
    lengths = np.bincount(corpus.interactions.user)
    titles = corpus.items.title
    characters = titles.str.len()
    distinct = titles.drop_duplicates()
    candidate = corpus.items.title_group.to_numpy()
    title_counts = np.bincount(candidate, weights=counts)
    test = drawn["test"]
    sizes = np.unique(test["user"].to_numpy(), return_counts=True)[1]
    numbers = {
        "users": len(lengths),
        "items": len(titles),
        "interactions": len(corpus.interactions),
        "samples (sequences)": sum(map(len, splits.values())),
        "density": len(corpus.interactions) / len(lengths) / len(titles),
        "interactions per user (median)": float(np.median(lengths)),
        "distinct titles": len(distinct),
        "items that share a title": int(titles.duplicated(keep=False).sum()),
        "titles that are another one but for spelling": int(
            distinct.map(normalised).duplicated(keep=False).sum()
        ),
        "title length (mean characters)": characters.mean(),
        "title length (longest)": int(characters.max()),
        "titles with letters beyond ASCII": float((~distinct.map(str.isascii)).mean()),
        "titles in another script than Latin": float(
            (~distinct.map(script).isin(["LATIN", ""])).mean()
        ),
        "training samples": len(splits["train"]),
        "validation examples drawn": len(drawn["valid"]),
        "test examples drawn": len(test),
        "users of the test examples": len(sizes),
        "users of the test examples, effective": effective(sizes),
        "most test examples of one user": int(sizes.max()),
        "targets unseen in training": float(
            (title_counts[candidate[test["target"].to_numpy()]] == 0).mean()
        ),
        "targets that are in their history": repeats(test, candidate),
        "words of the target that are in the history": continuity(
            test["history"].to_pylist(), test["target"].to_pylist(), titles.tolist()
        ).mean(),
    }
    if corpus.unit != ORDER and "split" not in corpus.interactions:
        times = corpus.interactions.time.to_numpy().astype(f"M8[{corpus.unit}]")
        cuts = {
            split: splits[split]["time"].to_numpy().min().astype(f"M8[{corpus.unit}]")
            for split in ("valid", "test")
        }
        numbers |= {
            "days from first to last interaction": (times.max() - times.min())
            / np.timedelta64(1, "D"),
            "first day of validation": str(cuts["valid"].astype("M8[D]")),
            "first day of test": str(cuts["test"].astype("M8[D]")),
            "targets at the time of the last history item": pc.mean(test["tied"]).as_py(),
        }
    return pd.DataFrame({"what": list(numbers), "value": list(numbers.values())}, dtype=object)
