"""Step 1: beam search over titles, several times faster than Hugging Face `generate`, resumable.

Tree attention. `generate` copies the prompt's keys and values to every beam and reorders them at
every step. Here a prompt is one batch row whatever the number of beams B. A step feeds the last
tokens of its B beams as B query positions of that row, appends their keys and values to the row's
cache, and lets the attention mask say which entries each beam may see: the prompt and the beam's
own ancestors. Nothing is reordered; only the mask follows the beams.

    cache of one row   shared prefix | rest of the prompt | step 1: a b c d | step 2: e f g h | …
    beam g = c→g sees  ■■■■■■■■■■■■■   ■■■■■■■■■■■■■■■■■■           ■               ■

Position ids are explicit, so that several entries may hold the same position. The tokens that all
prompts share (the instruction) go through the model once per run. When prompts are done, the next
ones take their rows. Then, and when room runs out, entries that no beam sees any more are left out.

Few shapes. A CPU's matrix products are compiled for every shape they meet, and kept: memory would
grow with the number of prompts. So rows come and go in groups, an eighth of the batch, prompts are
read by powers of two, and lengths are rounded up, with masks over what that adds.

Which hypotheses run, finish and win is exactly what `generate` does for `num_beams`,
`length_penalty`, `max_new_tokens`, one end-of-sequence token and `early_stopping=False`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from tqdm import tqdm
from transformers import AttentionInterface, Cache
from transformers.cache_utils import DynamicLayer

from bigrec_lib.files import StudyError, remove, write_json, write_parquet, write_text
from bigrec_lib.method import prompts

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import PreTrainedModel

    from bigrec_lib.method.llm import LLM

NONE = -1e9  # score of a hypothesis that does not exist
ROOM = 64  # cache entries allocated ahead
ENTRIES = 32  # attention goes over a multiple of so many cache entries
PREFILL = 1536  # prompt tokens read at once, about
WIDTH = 8  # prompts are read at a multiple of so many tokens
PORTION = 4  # batches that are searched, stored and resumed as a whole


class GenerationError(StudyError):
    """Titles cannot be generated as asked."""


@dataclass(frozen=True)
class Search:
    """Settings of beam search, named as in `generate`, and how many prompts go together."""

    max_new_tokens: int
    beams: int = 4
    length_penalty: float = 1.0
    batch_size: int = 32


@dataclass(frozen=True)
class Beam:
    """One generation: its text as decoded, and sum of log-probabilities / length**penalty."""

    text: str
    score: float


# ------------------------------------------------------------------------------ what to search


def answer_tokens(tokenizer, titles: Sequence[str]) -> list[list[int]]:
    """The tokens of every title as the tuned LLM writes it, end of sequence included.

    Tokenised after the line that ends a prompt: some tokenizers begin a text differently.
    """
    lead = prompts.alpaca("").splitlines(keepends=True)[-1]
    texts = [lead + prompts.answer(title) for title in titles]
    found = tokenizer(texts, return_offsets_mapping=True)
    return [
        [
            token
            for token, (start, end) in zip(ids, offsets, strict=True)
            if start >= len(lead) and end > start
        ]
        + [tokenizer.eos_token_id]
        for ids, offsets in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]


def room_for(answers: Sequence[Sequence[int]], share: float = 0.999) -> int:
    """The number of tokens within which this share of the answers fits.

    Catalogues hold a few freaks: the longest title of Amazon games takes 175 tokens, while 70 are
    enough for 99.9 %.
    """
    return int(np.quantile([len(answer) for answer in answers], share, method="higher"))


class Trie:
    """The answers that constrained decoding may write.

    A node is a range of rows in the sorted table of all answers: those that share what has been
    written so far. Its children are the distinct tokens in the column that follows.
    """

    def __init__(self, answers: Sequence[Sequence[int]]):
        if not answers:
            raise GenerationError("constrained decoding needs at least one title")
        self.depth = max(map(len, answers))
        self.table = np.full((len(answers), self.depth), -1)  # (N, depth), -1 after the end
        for row, answer in zip(self.table, answers, strict=True):
            row[: len(answer)] = answer
        self.table = np.unique(self.table, axis=0)
        self.root = (0, len(self.table))

    def children(self, node: tuple[int, int], depth: int) -> np.ndarray:
        """The tokens that may follow a node at this depth."""
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


# ---------------------------------------------------------------------------------- the search


@dataclass
class Hypotheses:
    """The beams of R prompts: what is running and what has finished. T = most new tokens."""

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
        cls, numbers: list[int], running: int, search: Search, eos: int, trie: Trie | None, device
    ) -> Hypotheses:
        """Each prompt has so many running beams, which are empty, and none that has finished."""
        rows, prompt = len(numbers), torch.tensor(numbers, device=device)
        finished = torch.full((rows, search.beams, search.max_new_tokens), eos, device=device)
        root = torch.tensor(trie.root if trie else (0, 0), device=device)
        return cls(
            prompt=prompt,
            length=torch.zeros_like(prompt),
            tokens=torch.full((rows, running, search.max_new_tokens), eos, device=device),
            scores=torch.zeros((rows, running), device=device),
            nodes=root.repeat(rows, running, 1),
            finished=finished,
            finished_scores=torch.full(finished.shape[:2], NONE, device=device),
            open=torch.ones(rows, dtype=torch.bool, device=device),
        )

    def last(self) -> Tensor:
        """The last token of each running beam, (R, B)."""
        rows = torch.arange(len(self.length), device=self.length.device)
        return self.tokens[rows, :, self.length - 1]

    def rows(self, index: Tensor) -> Hypotheses:
        """Only some prompts."""
        return Hypotheses(**{name: value[index] for name, value in vars(self).items()})

    def put(self, index: Tensor, other: Hypotheses) -> None:
        """Other prompts in these rows."""
        for name, value in vars(self).items():
            value[index] = getattr(other, name)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values (R, N, ...) at index (R, K) -> (R, K, ...)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def advance(
    beams: Hypotheses, logits: Tensor, search: Search, eos: int, trie: Trie | None
) -> tuple[Hypotheses, Tensor]:
    """One step of beam search. logits: (R, B, V), of the token that follows each running beam.

    Of all continuations the 2B likeliest are kept: at most B of them end, so B can run on. One
    that ends counts only if it is among the B likeliest. Returns the new hypotheses and, for each
    running beam, the index of the beam it continues, (R, B).
    """
    width = 2 * search.beams
    length = beams.length + beams.open  # (R,); what is done no longer grows
    penalty = (length.float() ** search.length_penalty)[:, None]
    best, tokens = likeliest(logits, width, beams, trie)  # (R, B, 2B)
    scores, index = (beams.scores[:, :, None] + best).flatten(1).topk(width)  # (R, 2B)
    parents = index // width
    tokens = tokens.flatten(1).gather(1, index)
    paths = pick(beams.tokens, parents)  # (R, 2B, T)
    paths[torch.arange(len(paths), device=paths.device), :, length - 1] = tokens

    ends = (tokens == eos) | (length == search.max_new_tokens)[:, None]
    counts = ends & beams.open[:, None]
    counts[:, search.beams :] = False
    ended = (scores / penalty).masked_fill(~counts, NONE)
    finished_scores, order = torch.cat((beams.finished_scores, ended), 1).topk(search.beams)
    finished = pick(torch.cat((beams.finished, paths), 1), order)

    running, order = scores.masked_fill(ends, -torch.inf).topk(search.beams)  # (R, B)
    parents, tokens = parents.gather(1, order), tokens.gather(1, order)
    nodes = pick(beams.nodes, parents)
    improves = running[:, 0] / penalty[:, 0] > finished_scores[:, -1]
    return Hypotheses(
        prompt=beams.prompt,
        length=length,
        tokens=pick(paths, order),
        scores=running,
        nodes=nodes if trie is None else descend(nodes, beams.length, tokens, trie),
        finished=finished,
        finished_scores=finished_scores,
        open=beams.open & improves,
    ), parents


def likeliest(
    logits: Tensor, count: int, beams: Hypotheses, trie: Trie | None
) -> tuple[Tensor, Tensor]:
    """The `count` likeliest next tokens of each beam, log-probabilities and ids, (R, B, count).

    Log-probabilities are over all tokens, as `generate` has them, also where a trie forbids some.
    """
    found = []
    at_once = 1 if logits.device.type == "cpu" else len(logits)  # one row stays in the cache
    places = zip(beams.nodes.split(at_once), beams.length.split(at_once), strict=True)
    for part, (nodes, depths) in zip(logits.split(at_once), places, strict=True):
        part = part.float()
        total = part.logsumexp(-1, keepdim=True)
        if trie is not None:
            part = part + forbidden(nodes, depths, trie, part)
        best, tokens = part.topk(count)
        found.append((best - total, tokens))
    best, tokens = zip(*found, strict=True)
    return torch.cat(best), torch.cat(tokens)


def forbidden(nodes: Tensor, depths: Tensor, trie: Trie, logits: Tensor) -> Tensor:
    """-inf for the tokens that may not follow, 0 for those that may; shape of logits (R, B, V)."""
    mask = torch.full_like(logits, -torch.inf)
    for row, (beams, depth) in enumerate(zip(nodes.tolist(), depths.tolist(), strict=True)):
        for beam, node in enumerate(beams):
            mask[row, beam, trie.children(node, depth)] = 0
    return mask


def descend(nodes: Tensor, depths: Tensor, tokens: Tensor, trie: Trie) -> Tensor:
    """The trie nodes after one more token. nodes: (R, B, 2), depths: (R,), tokens: (R, B)."""
    after = [
        [trie.child(node, depth, token) for node, token in zip(beams, chosen, strict=True)]
        for beams, depth, chosen in zip(
            nodes.tolist(), depths.tolist(), tokens.tolist(), strict=True
        )
    ]
    return torch.tensor(after, device=nodes.device)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean attention mask (R, Q, S) as one to add to attention scores, (R, 1, Q, S'), for as
    many entries S' as a RoomyLayer gives."""
    entries = visible.shape[2]
    visible = pad(visible, (0, rounded_up(entries, ENTRIES) - entries))
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def shared_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens all prompts begin with, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)
    longest = min(map(len, prompts)) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return list(first[:same])


def left_padded(prompts: Sequence[Sequence[int]], fill: int, device) -> tuple[Tensor, Tensor]:
    """Token ids (R, W) that end at the right edge, and which of them are real, (R, W) bool."""
    width = max(map(len, prompts))
    ids = torch.tensor([[fill] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    return ids.to(device), real.to(device)


class RoomyLayer(DynamicLayer):
    """A cache layer with room at its end, so that a step need not copy what is there already.

    What it gives to attention is rounded up to a multiple of ENTRIES. What comes after its `keys`
    and `values` is finite, and never seen.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [key_states[:, :, :0], value_states[:, :, :0]]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            room = rounded_up(end + ROOM, ENTRIES)
            self.buffers = [roomy(buffer[:, :, :start], room) for buffer in self.buffers]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return [buffer[:, :, : rounded_up(end, ENTRIES)] for buffer in self.buffers]

    def room(self) -> int:
        """How many entries can be added before anything is copied."""
        return self.buffers[0].shape[2] - self.keys.shape[2]

    def put(self, rows: Tensor, other: RoomyLayer) -> None:
        """The entries of another layer in these rows, at the end."""
        length = other.get_seq_length()
        self.keys[rows, :, -length:] = other.keys
        self.values[rows, :, -length:] = other.values

    def keep(self, rows: Tensor, entries: Tensor, room: int) -> None:
        """Only these entries (R', S') of these rows (R',), with room for so many after them."""
        kept = entries.shape[1]
        entries = pad(entries, (0, rounded_up(kept + room, ENTRIES) - kept))
        heads, length = self.buffers[0].shape[1:3]
        first = (rows[:, None] * heads + torch.arange(heads, device=rows.device)) * length
        index = first[:, :, None] + entries[:, None]  # (R', H, S' + room)
        self.buffers = [
            buffer.flatten(0, 2).index_select(0, index.flatten()).unflatten(0, index.shape)
            for buffer in self.buffers
        ]
        self.keys, self.values = (buffer[:, :, :kept] for buffer in self.buffers)


def rounded_up(length: int, multiple: int) -> int:
    """The next multiple that is no smaller."""
    return -(-length // multiple) * multiple


def roomy(states: Tensor, room: int) -> Tensor:
    """A copy of states (R, H, S, d) at the start of (R, H, room, d), zeros after them."""
    rows, heads, length, size = states.shape
    buffer = states.new_zeros(rows, heads, room, size)
    buffer[:, :, :length] = states
    return buffer


def cut(cache: Cache, length: int) -> None:
    """Only the first entries of every layer."""
    for layer in cache.layers:
        layer.keys, layer.values = (states[:, :, :length] for states in (layer.keys, layer.values))


def copied(cache: Cache, rows: int) -> Cache:
    """A new cache with the one row of `cache` in each of its rows."""
    copy = Cache(layer_class_to_replicate=RoomyLayer)
    for index, layer in enumerate(cache.layers):
        shape = (rows, -1, -1, -1)
        copy.update(layer.keys.expand(shape), layer.values.expand(shape), index)
    return copy


@torch.inference_mode()
def prefill(model: PreTrainedModel, tokens: Sequence[int]) -> Cache:
    """A cache of one row that holds these tokens, of which there may be none."""
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    ids = torch.tensor([tokens or [0]], device=model.device)  # one at least, for the layers' shapes
    model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    cut(cache, len(tokens))
    return cache


def grouped_attention(module, query, key, value, attention_mask, scaling, **more):
    """Attention that takes query heads with a common key head as so many more queries of it.

    query (R, H, Q, d), key and value (R, K, S, d), H a multiple of K: no key is ever repeated.
    Returns (R, Q, H, d). On a CPU by plain products, in half the time of the fused kernel.
    Raises NotImplementedError for a model whose attention has more to it.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if more.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    rows, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    query = query.reshape(rows, key.shape[1], groups * queries, size)
    if query.device.type == "cpu":
        out = plain_attention(query, key, value, attention_mask, scaling)
    else:
        mask = attention_mask.repeat(1, 1, groups, 1)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


def plain_attention(query, key, value, mask, scaling):
    """query (R, K, G Q, d), key and value (R, K, S, d), mask (R, 1, Q, S) -> (R, K, G Q, d).

    A transposed right factor that is part of a larger array gets copied. In a step that would be
    the keys of the whole cache, so they come first; among many queries it does not matter.
    """
    rows, heads, queries, _ = query.shape
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))
    if 4 * queries < key.shape[1]:
        scores = torch.bmm(key, query.transpose(1, 2)).transpose(1, 2)
    else:
        scores = torch.bmm(query, key.transpose(1, 2))
    scores = scores.reshape(rows, -1, *mask.shape[2:]).float().mul_(scaling).add_(mask)
    weights = scores.softmax(-1).to(value.dtype).view(rows * heads, queries, -1)
    return torch.bmm(weights, value).unflatten(0, (rows, heads))


AttentionInterface.register("grouped", grouped_attention)


@contextmanager
def attention(model: PreTrainedModel, kind: str) -> Iterator[None]:
    """Use another implementation of attention for a while."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(kind)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def read(
    model: PreTrainedModel, prefix: Cache, prompts: Sequence[Sequence[int]], fill: int
) -> tuple[Cache, Tensor, Tensor]:
    """Prefill: a cache of prefix and prompts, which of its entries each prompt sees (R, S) bool,
    and the logits (R, 1, V) that follow each prompt."""
    ids, real = left_padded(prompts, fill, model.device)  # (R, W)
    known, (rows, width) = prefix.get_seq_length(), ids.shape
    more = rounded_up(width, WIDTH) - width  # padding on the right, which is cut off again
    ids, real = (pad(each, (0, more)) for each in (ids, real))
    seen = torch.cat((real.new_ones(rows, known), real), 1)
    causal = real.new_ones(width + more, known + width + more).tril(known)
    itself = causal.triu(known)  # so that padding, too, has something to see
    cache = copied(prefix, rows)
    out = model(
        input_ids=ids,
        attention_mask=additive(causal & seen[:, None] | itself, model.dtype),
        position_ids=known + (real.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        # as an int, V x d would be copied for each row
        logits_to_keep=torch.tensor([width - 1], device=model.device),
    )
    cut(cache, known + width)
    return cache, seen[:, : known + width], out.logits


def neighbours(lengths: Sequence[int]) -> list[slice]:
    """Which prompts to read together: as many as PREFILL has room for, rounded down to a power of
    two. lengths: longest first, so that neighbours need little padding."""
    parts, start = [], 0
    while start < len(lengths):
        most = min(max(1, PREFILL // lengths[start]), len(lengths) - start)
        end = start + 2 ** (most.bit_length() - 1)
        parts.append(slice(start, end))
        start = end
    return parts


@dataclass
class Batch:
    """R prompts that are searched together. S = entries in a row of the cache."""

    beams: Hypotheses
    cache: Cache
    lineage: Tensor  # (R, B, S) bool, which entries each running beam sees

    @classmethod
    def vacant(cls, beams: Hypotheses, prefix: Cache, length: int) -> Batch:
        """Rows for these beams with a cache of `length` zeros, which nobody sees."""
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        for index, layer in enumerate(prefix.layers):
            states = (layer.keys, layer.values)  # (1, H, S', d)
            shapes = [(len(beams.open), x.shape[1], length, x.shape[3]) for x in states]
            cache.update(*(x.new_zeros(n) for x, n in zip(states, shapes, strict=True)), index)
        return cls(beams, cache, beams.open.new_zeros(*beams.scores.shape, length))

    def put(self, rows: Tensor, beams: Hypotheses, cache: Cache, seen: Tensor) -> None:
        """Other prompts in these rows, with a cache of which each sees `seen` (r, S')."""
        self.beams.put(rows, beams)
        self.lineage[rows, :, -seen.shape[1] :] = seen[:, None]
        for layer, other in zip(self.cache.layers, cache.layers, strict=True):
            layer.put(rows, other)

    def keep(self, rows: Tensor, least: int = 1) -> None:
        """Only these rows, with as few entries as the one that sees most needs, but `least`."""
        lineage = self.lineage[rows]
        seen = lineage.any(1)  # (R', S)
        size = max([least, *seen.sum(1).tolist()])
        entries = seen.int().argsort(dim=1, stable=True)[:, -size:]  # (R', size), seen ones last
        self.beams = self.beams.rows(rows)
        self.lineage = lineage.gather(2, entries[:, None].expand(-1, lineage.shape[1], -1))
        for layer in self.cache.layers:
            layer.keep(rows, entries, max(ROOM, lineage.shape[1]))


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prefix: Cache,
    prompts: Sequence[Sequence[int]],
    search: Search,
    eos: int,
    trie: Trie | None = None,
) -> list[list[tuple[list[int], float]]]:
    """The finished beams of every prompt, best first: tokens without the end, and score.

    prefix: cache of the tokens before all prompts. prompts: the rest of each, at least one token,
    longest first. `search.batch_size` of them go together. When an eighth of those are done, the
    next ones take their places; when no more are waiting, the batch gets smaller.
    """
    known, waiting = prefix.get_seq_length(), list(range(len(prompts)))
    vacant = [-1] * min(search.batch_size, len(prompts))
    beams = Hypotheses.start(vacant, search.beams, search, eos, trie, model.device)
    beams.open[:] = False  # as if done, so that they are filled at once
    batch = Batch.vacant(beams, prefix, known + len(prompts[0]))
    group = rounded_up(len(vacant), 8) // 8
    results = {}
    while len(batch.beams.open):
        done = (~batch.beams.open).nonzero().flatten()
        if len(done) < min(group, len(batch.beams.open)):
            step(model, batch, search, eos, trie)
            continue
        if len(done) < len(batch.beams.open):
            done = done[: len(done) // group * group]
        left = batch.beams.rows(done)
        found = written(left.finished, left.finished_scores, eos)
        results |= zip(left.prompt.tolist(), found, strict=True)
        batch.lineage[done] = False
        coming, waiting = waiting[: len(done)], waiting[len(done) :]
        kept = torch.ones_like(batch.beams.open)
        kept[done[len(coming) :]] = False
        # rows that go on began with a prompt no shorter than those that come: there is room
        lengths = [len(prompts[number]) for number in coming]
        batch.keep(kept.nonzero().flatten(), least=known + max(lengths, default=0))
        free = (~batch.lineage.any(2).any(1)).nonzero().flatten()
        for part in neighbours(lengths):
            cache, seen, logits = read(model, prefix, [prompts[n] for n in coming[part]], eos)
            new = Hypotheses.start(coming[part], 1, search, eos, trie, model.device)
            batch.put(free[part], advance(new, logits, search, eos, trie)[0], cache, seen)
    return [results[number] for number in range(len(prompts))]


def step(model: PreTrainedModel, batch: Batch, search: Search, eos: int, trie: Trie | None) -> None:
    """One more token for every running beam: the model reads its last one.

    Beams of a prompt that is done go along, but see nothing new: their positions do not grow.
    """
    if batch.cache.layers[0].room() < search.beams:
        batch.keep(torch.arange(len(batch.lineage), device=model.device))
    own = torch.eye(search.beams, dtype=torch.bool, device=model.device)
    batch.lineage = torch.cat((batch.lineage, own & batch.beams.open[:, None, None]), 2)
    logits = model(
        input_ids=batch.beams.last(),
        attention_mask=additive(batch.lineage, model.dtype),
        position_ids=batch.lineage.sum(2) - 1,
        past_key_values=batch.cache,
        use_cache=True,
    ).logits
    batch.beams, parents = advance(batch.beams, logits, search, eos, trie)
    batch.lineage = pick(batch.lineage, parents)


def written(tokens: Tensor, scores: Tensor, eos: int) -> list[list[tuple[list[int], float]]]:
    """For each prompt its generations, tokens (R, B, T) without the end and what follows it, and
    scores (R, B); fewer than B if the trie has no more."""
    return [
        [
            (ids[: ids.index(eos)] if eos in ids else ids, score)
            for ids, score in zip(*row, strict=True)
            if score > NONE
        ]
        for row in zip(tokens.tolist(), scores.tolist(), strict=True)
    ]


def hugging_face(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    search: Search,
    eos: int,
    trie: Trie | None = None,
) -> list[list[tuple[list[int], float]]]:
    """What `beam_search` returns, by `generate`: for models whose cache is no plain attention.

    Raises GenerationError for one beam, of which `generate` gives no score.
    """
    if search.beams == 1:
        raise GenerationError("this model is left to `generate`, which needs 2 beams or more")
    size = search.batch_size
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return [beams for part in parts for beams in one_batch(model, part, search, eos, trie)]


def one_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    search: Search,
    eos: int,
    trie: Trie | None,
) -> list[list[tuple[list[int], float]]]:
    """The beams of a few prompts by `generate`."""
    ids, real = left_padded(prompts, eos, model.device)
    width = ids.shape[1]

    def allowed(_, written: Tensor) -> list[int]:
        node = trie.root
        for depth, token in enumerate(written[width:].tolist()):
            node = trie.child(node, depth, token)
        return trie.children(node, len(written) - width).tolist() or [eos]

    out = model.generate(
        input_ids=ids,
        attention_mask=real.long(),
        max_new_tokens=search.max_new_tokens,
        num_beams=search.beams,
        num_return_sequences=search.beams,
        length_penalty=search.length_penalty,
        early_stopping=False,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=eos,
        prefix_allowed_tokens_fn=allowed if trie else None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = out.sequences[:, width:].unflatten(0, (len(prompts), search.beams))
    scores = out.sequences_scores.view(len(prompts), search.beams)
    return [distinct(beams) for beams in written(tokens, scores, eos)]


def distinct(beams: list[tuple[list[int], float]]) -> list[tuple[list[int], float]]:
    """Without repetitions: `generate` fills up with some where a trie has fewer than B answers."""
    scores: dict[tuple[int, ...], float] = {}
    for tokens, score in beams:
        scores.setdefault(tuple(tokens), score)
    return [(list(tokens), score) for tokens, score in scores.items()]


# ---------------------------------------------------------------------------- model and adapter


@contextmanager
def plain(model) -> Iterator[PreTrainedModel]:
    """The model without PEFT around it, a LoRA adapter added into its weights while in use.

    The sum is rounded to the weights' dtype, which adds as much again, at most, to what bfloat16
    rounds off anyway (benchmarks/generation.py measures both). Quantised layers keep their adapter
    separate. On leaving, every layer is the very object it was.
    """
    from peft import PeftModel
    from peft.tuners.lora import Linear

    if not isinstance(model, PeftModel):
        yield model
        return
    base, replaced = model.get_base_model(), {}
    for name, layer in list(base.named_modules()):
        if isinstance(layer, Linear) and type(layer.base_layer) is torch.nn.Linear:
            merged = deepcopy(layer.base_layer)
            for adapter in layer.active_adapters:
                merged.weight.data += layer.get_delta_weight(adapter)
            replaced[name] = layer
            base.set_submodule(name, merged)
    try:
        yield base
    finally:
        for name, layer in replaced.items():
            base.set_submodule(name, layer)


def tree_problem(model: PreTrainedModel, prompt: list[int], length: int) -> str:
    """Why beams cannot share a cache of `length` entries in this model; '' if they can.

    Tried on the last tokens of a prompt and two beams, which repeat the first and the last of
    them: do they get the logits they get on their own? Rounding changes those by up to 4 % in
    bfloat16, seeing each other by 20 % at least (SmolLM2); the bound is the square root of the
    dtype's precision, 9 %.
    """
    prompt = prompt[-16:]
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    window = getattr(model.config, "sliding_window", None) or length
    if not kinds <= {"full_attention", "sliding_attention"} or window < length:
        return f"attention of kind {', '.join(sorted(kinds))}, window {window}"
    beams = torch.tensor([prompt[:2], prompt[-2:]], device=model.device)
    own = torch.eye(2, dtype=torch.bool, device=model.device)[None]
    lineage = own.new_ones(1, 2, len(prompt))
    try:
        with torch.inference_mode():
            ids = torch.cat((torch.tensor(prompt, device=model.device).expand(2, -1), beams), 1)
            last = torch.tensor([ids.shape[1] - 1], device=model.device)  # as in `read`
            alone = model(input_ids=ids, logits_to_keep=last).logits[:, 0].float()
            cache = copied(prefill(model, prompt), 1)
            with attention(model, "grouped"):
                for step in range(beams.shape[1]):
                    lineage = torch.cat((lineage, own), 2)
                    together = model(
                        input_ids=beams[None, :, step],
                        attention_mask=additive(lineage, model.dtype),
                        position_ids=torch.full_like(beams[:1], len(prompt) + step),
                        past_key_values=cache,
                        use_cache=True,
                    ).logits[0]
    except Exception as error:  # whatever a model of another make does not support
        return f"{type(error).__name__}: {error}"
    error = (together.float() - alone).norm() / (alone - alone.mean()).norm()
    bound = torch.finfo(model.dtype).eps ** 0.5
    return "" if error < bound else f"its logits differ by {error:.0%}"


# ------------------------------------------------------------------------------ many prompts


@dataclass(frozen=True)
class Work:
    """All prompts of a run, cut into portions of like length.

    A portion is searched and stored as a whole: which prompts go together follows from the
    portion alone, not from the shard or from where a run was interrupted.
    """

    tokens: list[list[int]]
    portions: list[list[int]]  # positions in `tokens`, the longest first

    @classmethod
    def plan(cls, llm: LLM, texts: Sequence[str], search: Search) -> Work:
        """Tokenise, check and cut. Raises GenerationError for a prompt that is too long."""
        if llm.tokenizer.eos_token_id is None:
            raise GenerationError(
                f"the tokenizer of {llm.name} has no end-of-sequence token: set one before tuning"
            )
        tokens = llm.tokenizer(list(texts))["input_ids"] if len(texts) else []
        room = llm.model.config.max_position_embeddings - search.max_new_tokens
        for number, prompt in enumerate(tokens):
            if not 0 < len(prompt) <= room:
                raise GenerationError(
                    f"prompt {number} has {len(prompt)} tokens, and {llm.name} has room for {room} "
                    f"before {search.max_new_tokens} new ones: lower max_tokens of the prompts"
                )
        order = sorted(range(len(tokens)), key=lambda number: (-len(tokens[number]), number))
        size = search.batch_size * PORTION
        return cls(tokens, [order[start : start + size] for start in range(0, len(order), size)])


def run(
    llm: LLM, work: Work, todo: Sequence[int], search: Search, trie: Trie | None = None
) -> Iterator[tuple[int, list[list[Beam]]]]:
    """For each portion number of `todo`: the number, and the beams of each of its prompts."""
    if trie is not None and trie.depth > search.max_new_tokens:
        raise GenerationError(
            f"max_new_tokens is {search.max_new_tokens}, but the longest title needs {trie.depth}"
        )
    if not todo:
        return
    eos = llm.tokenizer.eos_token_id
    with plain(llm.model.eval()) as model:
        longest = max(map(len, work.tokens))
        problem = tree_problem(model, work.tokens[0], longest + search.max_new_tokens)
        if problem:
            warnings.warn(f"{llm.name} is left to the slower `generate`: {problem}", stacklevel=3)
        start = shared_prefix(work.tokens)
        prefix = None if problem else prefill(model, start)
        for number in todo:
            rows = [work.tokens[position] for position in work.portions[number]]
            if problem:
                found = hugging_face(model, rows, search, eos, trie)
            else:
                with attention(model, "grouped"):
                    own = [row[len(start) :] for row in rows]
                    found = beam_search(model, prefix, own, search, eos, trie)
            yield number, [[beam(llm, *each) for each in beams] for beams in found]


def beam(llm: LLM, tokens: list[int], score: float) -> Beam:
    return Beam(llm.tokenizer.decode(tokens, skip_special_tokens=True), score)


def generate(
    llm: LLM, texts: Sequence[str], search: Search, trie: Trie | None = None
) -> list[list[Beam]]:
    """The beams of every prompt, best first, in the order of `texts`.

    With a `trie`, only its answers come out, and fewer than B where it has no more.
    Raises GenerationError for a prompt that leaves no room for `max_new_tokens` in the context.
    """
    work = Work.plan(llm, texts, search)
    results: list[list[Beam]] = [[] for _ in texts]
    for number, found in run(llm, work, range(len(work.portions)), search, trie):
        for position, beams in zip(work.portions[number], found, strict=True):
            results[position] = beams
    return results


# ------------------------------------------------------------------------------- to a file


def generate_file(
    llm: LLM,
    examples: Sequence[int],
    texts: Sequence[str],
    path: Path,
    search: Search,
    trie: Trie | None = None,
    folder: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Generate for every example and write `path`: example int64, beam int8, text, score float32.

    Finished portions go to `folder` (by default `path` with the suffix .parts) at once, so a run
    that was killed goes on where it was, and the file is the same to the byte. `shard` (i, n) does
    every n-th portion only and writes nothing but to `folder`; a run of the whole (1, 1) afterwards
    collects what all shards have done, does what is missing, and writes `path`. A `folder` that
    was given is left, for a caller that may be killed before it is done with `path`.
    Raises GenerationError if `folder` holds work done with other parameters.
    """
    folder = folder or path.with_suffix(".parts")
    index, count = shard
    if not 1 <= index <= count:
        raise GenerationError(f"shard {index}/{count}: give (i, n) with i from 1 to n")
    if len(set(examples)) != len(texts):
        raise GenerationError(f"{len(set(examples))} distinct examples for {len(texts)} prompts")
    work = Work.plan(llm, texts, search)
    claim(folder, settings(llm, examples, texts, search, trie))
    own = folder / f"{index}-of-{count}.jsonl"
    for part in sorted(folder.glob("*.jsonl")) if count == 1 else [own]:
        mend(part)  # not what another shard may be writing
    done = read_parts(folder)
    todo = [n for n in range(index - 1, len(work.portions), count) if n not in done]
    bar = tqdm(total=sum(len(work.portions[n]) for n in todo), unit="example", desc=path.stem)
    with open(own, "a", encoding="utf-8") as part, bar:
        for number, found in run(llm, work, todo, search, trie):
            rows = [[(beam.text, beam.score) for beam in beams] for beams in found]
            part.write(sealed(json.dumps([number, rows])))
            part.flush()
            bar.update(len(found))
    if count == 1:
        write_parquet(table(read_parts(folder), work, examples), path)
        remove(path.with_suffix(".parts"))


def table(parts: dict[int, list], work: Work, examples: Sequence[int]):
    """All parts as one pyarrow Table, sorted by example and beam."""
    import pyarrow as pa

    rows = sorted(
        (int(examples[position]), rank, text, score)
        for number, found in parts.items()
        for position, beams in zip(work.portions[number], found, strict=True)
        for rank, (text, score) in enumerate(beams)
    )
    schema = {"example": pa.int64(), "beam": pa.int8(), "text": pa.string(), "score": pa.float32()}
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    return pa.table(
        {name: pa.array(column, schema[name]) for name, column in zip(schema, columns, strict=True)}
    )


def settings(
    llm: LLM, examples: Sequence[int], texts: Sequence[str], search: Search, trie: Trie | None
) -> dict[str, object]:
    """All that the generations follow from, hashed where it is long."""
    return {
        "model": llm.name,
        "dtype": str(llm.model.dtype),
        "weights": fingerprint(llm.model),
        "examples": digest(json.dumps([int(example) for example in examples])),
        "prompts": digest(json.dumps(list(texts))),
        "titles": digest(trie.table.tobytes()) if trie else "any",
        "portion": PORTION,
        **asdict(search),
    }


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def fingerprint(model: PreTrainedModel) -> str:
    """A hash over a sample of each parameter's values: tells tuned adapters apart, in no time."""
    state = hashlib.sha256()
    for name, value in model.named_parameters():
        flat = value.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        state.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + sample.tobytes())
    return state.hexdigest()[:16]


def claim(folder: Path, wanted: dict[str, object]) -> None:
    """Make `folder` for this work, or refuse one that was made for other work."""
    path = folder / "settings.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in wanted if found.get(name) != wanted[name]]
        if other:
            told = "; ".join(f"{name} {found.get(name)!r}, now {wanted[name]!r}" for name in other)
            raise GenerationError(
                f"{folder} holds unfinished work with other parameters ({told}): "
                "finish it with those, or delete the folder"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(wanted, path)


def sealed(text: str) -> str:
    """A line of a part: a checksum, then JSON."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def lines(part: Path) -> list[str]:
    """The lines of a part, whole or damaged."""
    return part.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def whole(line: str) -> bool:
    return line == sealed(line[9:].removesuffix("\n"))


def mend(part: Path) -> None:
    """Drop damaged lines, with a warning: their portions will be done again."""
    found = lines(part) if part.exists() else []
    good = [line for line in found if whole(line)]
    if len(good) < len(found):
        write_text("".join(good), part)
        warnings.warn(
            f"{part}: dropped {len(found) - len(good)} damaged of {len(found)} portions, "
            "which will be done again",
            stacklevel=2,
        )


def read_parts(folder: Path) -> dict[int, list]:
    """The finished portions of all shards: number -> beams of each prompt, as [text, score]."""
    parts = sorted(folder.glob("*.jsonl"))
    return dict(json.loads(line[9:]) for part in parts for line in lines(part) if whole(line))


# --------------------------------------------------------------------------- what came out


def judged(
    generations: pd.DataFrame, examples: pd.DataFrame, titles: Sequence[str]
) -> pd.DataFrame:
    """Generations with what they are: `title` (the text without quotes), `real` (in the catalogue)
    and `repeats` (in the history of its example).

    generations: columns example, beam, text, score. examples: columns example, history (items).
    titles: of every item, (I,).
    """
    histories = {
        example: {titles[item] for item in history}
        for example, history in zip(examples.example, examples.history, strict=True)
    }
    title = generations.text.map(prompts.title_of)
    pairs = zip(generations.example, title, strict=True)
    return generations.assign(
        title=title,
        real=title.isin(set(titles)),
        repeats=[name in histories[example] for example, name in pairs],
    )


def validity(judged: pd.DataFrame) -> dict[str, float]:
    """Shares and counts over generations from `judged`: real titles, distinct titles, the share of
    the most frequent one, and the share that repeats the history."""
    return {
        "generations": len(judged),
        "real": judged.real.mean(),
        "distinct": judged.title.nunique(),
        "most frequent": judged.title.value_counts(normalize=True).max(),
        "repeats": judged.repeats.mean(),
    }
