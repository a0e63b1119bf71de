"""Titles by the words they share with a text: the retrieval of GPT4Rec (docs/method.md, section 4).

It stands beside the grounding by distance, for the same generations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import bm25s

UNSPACED = (  # Chinese and Japanese; Thai and Lao; Burmese; Khmer
    r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
OTHER_WIDTH = re.compile(r"[\uff00-\uffef]+")  # ＦＩＦＡ for FIFA, ﾏﾘｵ for マリオ
SIGNS = "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "M")
"""What stands on or beside a letter: accents, and the vowels of some scripts."""
WORD = re.compile(rf"[{UNSPACED}]|(?:[^\W{UNSPACED}][{SIGNS}]*)+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; where writing has no spaces, each character is one.

    >>> words("FIFA 7: 日本語版 (It's)")
    ['fifa', '7', '日', '本', '語', '版', 'it', 's']
    >>> words("Ame\u0301lie, दिल") == ["am\u00e9lie", "दिल"]
    True
    >>> words("ＦＩＦＡ, ﾏﾘｵ")
    ['fifa', 'マ', 'リ', 'オ']
    """
    usual_width = OTHER_WIDTH.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return WORD.findall(unicodedata.normalize("NFC", usual_width.lower()))


def index_of(titles: Sequence[str]) -> bm25s.BM25 | None:
    """An index of the words of titles; None if they have none."""
    import bm25s

    word_lists = [words(title) for title in titles]
    if not any(word_lists):
        return None
    index = bm25s.BM25()
    index.index(word_lists, show_progress=False)
    return index


def scores_of(text: str, index: bm25s.BM25 | None, n_titles: int) -> np.ndarray:
    """The score of every title of an index, (I,) float32; 0 for one that shares no word."""
    query = words(text)
    if index is None or not query:
        return np.zeros(n_titles, dtype=np.float32)
    return index.get_scores(query)


def scores(texts: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    """BM25 scores of titles for generated `texts`, (n, I) float32.

    A text that shares no word with any title scores 0 everywhere: all titles tie.
    """
    index = index_of(titles)
    rows = [scores_of(text, index, len(titles)) for text in texts]
    return np.array(rows, dtype=np.float32).reshape(len(texts), len(titles))
