"""Titles by the words they share with a text: the retrieval of GPT4Rec (docs/method.md, section 4).

It stands beside the grounding by distance, for the same generations.
"""

import re
from collections.abc import Sequence

import numpy as np

UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; Chinese and Japanese have no spaces, so each character is
    one.

    >>> words("FIFA 7: 日本語版 (It's)")
    ['fifa', '7', '日', '本', '語', '版', 'it', 's']
    """
    return WORD.findall(text.lower())


def scores(generated: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    """BM25 scores of titles for generated texts, (n, I) float32.

    A text that shares no word with any title scores 0 everywhere: all titles tie.
    """
    import bm25s

    found = np.zeros((len(generated), len(titles)), dtype=np.float32)
    listed = [words(title) for title in titles]
    if not any(listed):
        return found
    index = bm25s.BM25()
    index.index(listed, show_progress=False)
    for row, text in zip(found, generated, strict=True):
        if query := words(text):
            row[:] = index.get_scores(query)
    return found
