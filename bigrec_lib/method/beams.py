"""Beam search without a model: what may be written, hypotheses, and one step from logits.

Hypotheses run, finish and win exactly as in Hugging Face `generate` with `num_beams`,
`length_penalty`, `max_new_tokens`, one end-of-sequence token and `early_stopping=False`.

In shapes, R is the number of prompts, B of beams, T of new tokens at most, V of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bigrec_lib.files import StudyError
from bigrec_lib.method import prompts

if TYPE_CHECKING:
    from torch import Tensor

Scored = tuple[list[int], float]  # tokens without the end of sequence, and score

NONE = -1e9  # score of a hypothesis that does not exist


class GenerationError(StudyError):
    """Titles cannot be generated as asked."""


@dataclass(frozen=True)
class Search:
    """Settings of beam search. `beams` is `num_beams` of `generate`, `max_new_tokens` and
    `length_penalty` are called as there; `batch_size` prompts go together."""

    max_new_tokens: int
    beams: int
    batch_size: int
    length_penalty: float = 1.0


@dataclass(frozen=True)
class Rules:
    """What decides about hypotheses.

    eos: the token that ends an answer. trie: the answers that may be written; None for any text.
    """

    search: Search
    eos: int
    trie: Trie | None = None


# ------------------------------------------------------------------------------ what to search


def answer_tokens(tokenizer, titles: Sequence[str]) -> list[list[int]]:
    """The tokens of every title as the tuned LLM writes it, end of sequence included."""
    return prompts.encode_answers(tokenizer, [prompts.answer(title) for title in titles])


def room_for(answers: Sequence[Sequence[int]], share: float = 0.999) -> int:
    """The number of tokens within which this share of the answers fits.

    A few outliers would make every search longer: the longest title of Amazon games takes 175
    tokens, while 70 are enough for 99.9 %.

    >>> room_for([[5, 1], [6, 7, 1], [8] * 50], share=0.5)
    3
    """
    return int(np.quantile([len(answer) for answer in answers], share, method="higher"))


class Trie:
    """The answers that constrained decoding may write.

    A node is a range of rows in the sorted table of all answers: those that begin with what has
    been written so far. Its children are the distinct tokens in the column that follows.

    >>> trie = Trie([[7, 8, 1], [7, 9, 1], [6, 1]])
    >>> trie.children(trie.root, depth=0).tolist()
    [6, 7]
    >>> trie.children(trie.child(trie.root, 0, 7), depth=1).tolist()
    [8, 9]

    Raises GenerationError if there is no answer.
    """

    def __init__(self, answers: Sequence[Sequence[int]]):
        if not answers:
            raise GenerationError("constrained decoding needs at least one title")
        self.depth = max(map(len, answers))
        table = np.full((len(answers), self.depth), -1)  # (N, depth) int64, -1 after the end
        for row, answer in zip(table, answers, strict=True):
            row[: len(answer)] = answer
        self.table = np.unique(table, axis=0)
        self.root = (0, len(self.table))

    def children(self, node: tuple[int, int], depth: int) -> np.ndarray:
        """The tokens that may follow a node at this depth, sorted."""
        tokens = np.unique(self.column(node, depth))
        return tokens[tokens >= 0]

    def child(self, node: tuple[int, int], depth: int, token: int) -> tuple[int, int]:
        """The node after one more token; an empty range if no answer goes on like that."""
        low, column = node[0], self.column(node, depth)
        return (
            low + int(column.searchsorted(token)),
            low + int(column.searchsorted(token, "right")),
        )

    def column(self, node: tuple[int, int], depth: int) -> np.ndarray:
        """The tokens of a node's answers at this depth, sorted; none beyond the longest answer."""
        return self.table[slice(*node), depth] if depth < self.depth else self.table[:0, 0]


# ---------------------------------------------------------------------------------- hypotheses


@dataclass
class Hypotheses:
    """What is running and what has finished, for R prompts."""

    prompt: Tensor  # (R,) int64, number of the prompt
    length: Tensor  # (R,) int64, tokens in each of its running beams
    tokens: Tensor  # (R, B, T) int64, running
    scores: Tensor  # (R, B) float32, sums of log-probabilities
    nodes: Tensor  # (R, B, 2) int64, where in the trie a running beam is
    finished: Tensor  # (R, B, T) int64, best first, filled up with the end of sequence
    finished_scores: Tensor  # (R, B) float32, with length penalty; NONE where there is none
    open: Tensor  # (R,) bool, whether a running beam can still get among the finished

    @classmethod
    def start(
        cls, numbers: list[int], count: int, rules: Rules, device: torch.device
    ) -> Hypotheses:
        """For the prompts with these numbers: `count` empty beams each, and none finished."""
        rows, search = len(numbers), rules.search
        prompt = torch.tensor(numbers, device=device)
        finished = torch.full((rows, search.beams, search.max_new_tokens), rules.eos, device=device)
        root = torch.tensor(rules.trie.root if rules.trie else (0, 0), device=device)
        return cls(
            prompt=prompt,
            length=torch.zeros_like(prompt),
            tokens=torch.full((rows, count, search.max_new_tokens), rules.eos, device=device),
            scores=torch.zeros((rows, count), device=device),
            nodes=root.repeat(rows, count, 1),
            finished=finished,
            finished_scores=torch.full(finished.shape[:2], NONE, device=device),
            open=torch.ones(rows, dtype=torch.bool, device=device),
        )

    def last(self) -> Tensor:
        """The last token of each running beam, (R, B) int64."""
        rows = torch.arange(len(self.length), device=self.length.device)
        return self.tokens[rows, :, self.length - 1]

    def rows(self, index: Tensor) -> Hypotheses:
        """Those of the prompts in these rows, (R',) int64."""
        return Hypotheses(**{name: value[index] for name, value in vars(self).items()})

    def put(self, index: Tensor, other: Hypotheses) -> None:
        """Replace the prompts in these rows."""
        for name, value in vars(self).items():
            value[index] = getattr(other, name)


def ended(tokens: Tensor, scores: Tensor, eos: int) -> list[list[Scored]]:
    """The generations of each prompt, from tokens (R, B, T) and scores (R, B).

    Tokens are cut off before the end of sequence. There are fewer than B if a trie has no more.
    """
    return [
        [
            (ids[: ids.index(eos)] if eos in ids else ids, score)
            for ids, score in zip(*row, strict=True)
            if score > NONE
        ]
        for row in zip(tokens.tolist(), scores.tolist(), strict=True)
    ]


# ------------------------------------------------------------------------------------ one step


@dataclass
class Continuations:
    """The 2B likeliest ways to go on for each prompt, best first, one token longer than before."""

    length: Tensor  # (R,) int64, tokens in each of them
    parents: Tensor  # (R, 2B) int64, the running beams they continue
    last: Tensor  # (R, 2B) int64, the new tokens
    tokens: Tensor  # (R, 2B, T) int64
    scores: Tensor  # (R, 2B) float32, sums of log-probabilities
    ends: Tensor  # (R, 2B) bool, whether nothing can follow
    penalty: Tensor  # (R, 1) float32, by which a finished one's score is divided


def advance(hypotheses: Hypotheses, logits: Tensor, rules: Rules) -> tuple[Hypotheses, Tensor]:
    """One step of beam search. logits: (R, B, V), of the token that follows each running beam.

    Returns the new hypotheses and, for each running beam, the index of the beam it continues,
    (R, B) int64. A prompt that is done keeps what it has finished.
    """
    ways = continuations(hypotheses, logits, rules)
    finished, finished_scores = best_finished(hypotheses, ways)
    scores, order = ways.scores.masked_fill(ways.ends, -torch.inf).topk(rules.search.beams)
    parents, last = ways.parents.gather(1, order), ways.last.gather(1, order)
    nodes = pick(hypotheses.nodes, parents)
    improves = scores[:, 0] / ways.penalty[:, 0] > finished_scores[:, -1]
    return Hypotheses(
        prompt=hypotheses.prompt,
        length=ways.length,
        tokens=pick(ways.tokens, order),
        scores=scores,
        nodes=descend(nodes, hypotheses.length, last, rules.trie) if rules.trie else nodes,
        finished=finished,
        finished_scores=finished_scores,
        open=hypotheses.open & improves,
    ), parents


def continuations(hypotheses: Hypotheses, logits: Tensor, rules: Rules) -> Continuations:
    """The 2B likeliest continuations: at most B of them end, so that B can run on."""
    search = rules.search
    width = 2 * search.beams
    length = hypotheses.length + hypotheses.open  # what is done no longer grows
    log_probs, next_tokens = likeliest(logits, width, hypotheses, rules.trie)  # (R, B, 2B)
    scores, index = (hypotheses.scores[:, :, None] + log_probs).flatten(1).topk(width)  # (R, 2B)
    parents = index // width
    last = next_tokens.flatten(1).gather(1, index)
    tokens = pick(hypotheses.tokens, parents)
    tokens[torch.arange(len(tokens), device=tokens.device), :, length - 1] = last
    return Continuations(
        length=length,
        parents=parents,
        last=last,
        tokens=tokens,
        scores=scores,
        ends=(last == rules.eos) | (length == search.max_new_tokens)[:, None],
        penalty=(length.float() ** search.length_penalty)[:, None],
    )


def best_finished(hypotheses: Hypotheses, ways: Continuations) -> tuple[Tensor, Tensor]:
    """The best B of what was finished and what ends now: tokens (R, B, T), scores (R, B).

    What ends now counts only if it is among the B likeliest continuations.
    """
    beams = hypotheses.finished.shape[1]
    mask = ways.ends & hypotheses.open[:, None]
    mask[:, beams:] = False
    new_scores = (ways.scores / ways.penalty).masked_fill(~mask, NONE)
    scores, order = torch.cat((hypotheses.finished_scores, new_scores), 1).topk(beams)
    return pick(torch.cat((hypotheses.finished, ways.tokens), 1), order), scores


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values (R, N, ...) at index (R, K) -> (R, K, ...)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def likeliest(
    logits: Tensor, count: int, hypotheses: Hypotheses, trie: Trie | None
) -> tuple[Tensor, Tensor]:
    """The `count` likeliest next tokens of each beam: log-probabilities and ids, (R, B, count).

    Log-probabilities are over all tokens, as in `generate`, also where a trie forbids some.
    """
    log_probs, tokens = [], []
    step = 1 if logits.device.type == "cpu" else len(logits)  # one prompt's logits fit a CPU cache
    inputs = (logits, hypotheses.nodes, hypotheses.length)
    for block, nodes, depths in zip(*(tensor.split(step) for tensor in inputs), strict=True):
        block = block.float()
        total = block.logsumexp(-1, keepdim=True)
        if trie:
            block = block + forbidden(nodes, depths, trie, block)
        values, ids = block.topk(count)
        log_probs.append(values - total)
        tokens.append(ids)
    return torch.cat(log_probs), torch.cat(tokens)


def forbidden(nodes: Tensor, depths: Tensor, trie: Trie, logits: Tensor) -> Tensor:
    """-inf for the tokens that may not follow, 0 for those that may; shape of logits (R, B, V).

    nodes: (R, B, 2) int64. depths: (R,) int64.
    """
    mask = torch.full_like(logits, -torch.inf)
    children = [
        trie.children(node, depth)
        for prompt_nodes, depth in zip(nodes.tolist(), depths.tolist(), strict=True)
        for node in prompt_nodes
    ]
    beam = np.repeat(np.arange(len(children)), [len(tokens) for tokens in children])
    token = np.concatenate(children)
    mask.flatten(0, 1)[tuple(torch.from_numpy(axis).to(mask.device) for axis in (beam, token))] = 0
    return mask


def descend(nodes: Tensor, depths: Tensor, tokens: Tensor, trie: Trie) -> Tensor:
    """The trie nodes (R, B, 2) after one more token (R, B), from nodes (R, B, 2) at depths (R,)."""
    rows = zip(nodes.tolist(), depths.tolist(), tokens.tolist(), strict=True)
    children = [
        [trie.child(node, depth, token) for node, token in zip(prompt_nodes, ids, strict=True)]
        for prompt_nodes, depth, ids in rows
    ]
    return torch.tensor(children, device=nodes.device)
