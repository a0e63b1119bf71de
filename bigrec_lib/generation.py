"""Step 1: beam search over titles, several times faster than Hugging Face `generate`, resumable.

Tree attention. `generate` copies the prompt's keys and values to every beam and reorders them at
every step. Here a prompt is one batch row whatever the number of beams B. A step feeds the last
tokens of its B beams as B query positions of that row, appends their keys and values to the row's
cache, and lets the attention mask say which entries each beam may see: the prompt and the beam's
own ancestors. Nothing is ever copied or reordered; only the mask follows the beams.

    cache of one row   shared prefix | rest of the prompt | step 1: a b c d | step 2: e f g h | …
    beam g = c→g sees  ■■■■■■■■■■■■■   ■■■■■■■■■■■■■■■■■■           ■               ■

Position ids are explicit, so that several entries may hold the same position. The tokens that all
prompts share (the instruction) go through the model once per run.

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
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import AttentionInterface, Cache
from transformers.cache_utils import DynamicLayer

from bigrec_lib import prompts
from bigrec_lib.files import StudyError, remove, write_json, write_parquet, write_text

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import PreTrainedModel

    from bigrec_lib.llm import LLM

NONE = -1e9  # score of a hypothesis that does not exist
ROOM = 64  # cache entries allocated ahead
PREFILL = 1024  # prompt tokens read at once, about


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
        tokens = np.unique(self.table[slice(*node), depth]) if depth < self.depth else np.empty(0)
        return tokens[tokens >= 0]

    def child(self, node: tuple[int, int], depth: int, token: int) -> tuple[int, int]:
        """The node after one more token; an empty range if no answer goes on like that."""
        low, high = node
        column = self.table[low:high, depth]
        return (
            low + int(column.searchsorted(token)),
            low + int(column.searchsorted(token, "right")),
        )


# ---------------------------------------------------------------------------------- the search


@dataclass
class Hypotheses:
    """The beams of R prompts: what is running and what has finished. T = most new tokens."""

    tokens: Tensor  # (R, B, T) int64, running
    scores: Tensor  # (R, B) float32, sums of log-probabilities
    finished: Tensor  # (R, B, T) int64, best first, filled up with the end of sequence
    finished_scores: Tensor  # (R, B) float32, with length penalty; NONE where there is none
    nodes: Tensor  # (R, B, 2) int64, where in the trie a running beam is
    open: Tensor  # (R,) bool, whether a running beam can still get among the finished

    @classmethod
    def start(cls, rows: int, search: Search, eos: int, trie: Trie | None, device) -> Hypotheses:
        """Each prompt has one running beam, which is empty, and none that has finished."""
        shape = (rows, search.beams, search.max_new_tokens)
        root = torch.tensor(trie.root if trie else (0, 0), device=device)
        return cls(
            tokens=torch.full((rows, 1, search.max_new_tokens), eos, device=device),
            scores=torch.zeros((rows, 1), device=device),
            finished=torch.full(shape, eos, device=device),
            finished_scores=torch.full(shape[:2], NONE, device=device),
            nodes=root.expand(rows, 1, 2),
            open=torch.ones(rows, dtype=torch.bool, device=device),
        )

    def rows(self, keep: Tensor) -> Hypotheses:
        """Only some prompts."""
        return Hypotheses(**{name: value[keep] for name, value in vars(self).items()})


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values (R, N, ...) at index (R, K) -> (R, K, ...)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def advance(
    beams: Hypotheses, logits: Tensor, step: int, search: Search, eos: int, trie: Trie | None
) -> tuple[Hypotheses, Tensor]:
    """One step of beam search. logits: (R, B, V), of the token that follows each running beam.

    Of all continuations the 2B likeliest are kept: at most B of them end, so B can run on. One
    that ends counts only if it is among the B likeliest. Returns the new hypotheses and, for each
    running beam, the index of the beam it continues, (R, B).
    """
    width, length = 2 * search.beams, step + 1
    best, tokens = likeliest(logits, width, beams.nodes, step, trie)  # (R, B, 2B)
    scores, index = (beams.scores[:, :, None] + best).flatten(1).topk(width)  # (R, 2B)
    parents = index // width
    tokens = tokens.flatten(1).gather(1, index)
    paths = pick(beams.tokens, parents)  # (R, 2B, T)
    paths[:, :, step] = tokens

    ends = (tokens == eos) | (length == search.max_new_tokens)
    counts = ends & beams.open[:, None]
    counts[:, search.beams :] = False
    ended = (scores / length**search.length_penalty).masked_fill(~counts, NONE)
    finished_scores, order = torch.cat((beams.finished_scores, ended), 1).topk(search.beams)
    finished = pick(torch.cat((beams.finished, paths), 1), order)

    running, order = scores.masked_fill(ends, -torch.inf).topk(search.beams)  # (R, B)
    parents, tokens = parents.gather(1, order), tokens.gather(1, order)
    nodes = pick(beams.nodes, parents)
    improves = running[:, 0] / length**search.length_penalty > finished_scores[:, -1]
    return Hypotheses(
        tokens=pick(paths, order),
        scores=running,
        finished=finished,
        finished_scores=finished_scores,
        nodes=nodes if trie is None else descend(nodes, step, tokens, trie),
        open=beams.open & improves,
    ), parents


def likeliest(
    logits: Tensor, count: int, nodes: Tensor, depth: int, trie: Trie | None
) -> tuple[Tensor, Tensor]:
    """The `count` likeliest next tokens of each beam, log-probabilities and ids, (R, B, count).

    Log-probabilities are over all tokens, as `generate` has them, also where a trie forbids some.
    """
    found = []
    at_once = 1 if logits.device.type == "cpu" else len(logits)  # one row stays in the cache
    for part, places in zip(logits.split(at_once), nodes.split(at_once), strict=True):
        part = part.float()
        total = part.logsumexp(-1, keepdim=True)
        if trie is not None:
            part = part + forbidden(places, depth, trie, part)
        best, tokens = part.topk(count)
        found.append((best - total, tokens))
    best, tokens = zip(*found, strict=True)
    return torch.cat(best), torch.cat(tokens)


def forbidden(nodes: Tensor, depth: int, trie: Trie, logits: Tensor) -> Tensor:
    """-inf for the tokens that may not follow, 0 for those that may; shape of logits (R, B, V)."""
    mask = torch.full_like(logits, -torch.inf)
    for row, beams in enumerate(nodes.tolist()):
        for beam, node in enumerate(beams):
            mask[row, beam, trie.children(node, depth)] = 0
    return mask


def descend(nodes: Tensor, depth: int, tokens: Tensor, trie: Trie) -> Tensor:
    """The trie nodes (R, B, 2) of beams at `nodes` that go on with `tokens` (R, B)."""
    pairs = zip(nodes.flatten(0, 1).tolist(), tokens.flatten().tolist(), strict=True)
    after = [trie.child(node, depth, token) for node, token in pairs]
    return torch.tensor(after, device=nodes.device).view_as(nodes)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean attention mask (R, Q, S) as one to add to attention scores, (R, 1, Q, S)."""
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
    """A cache layer with room at its end, so that a step need not copy what is there already."""

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [key_states[:, :, :0], value_states[:, :, :0]]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            self.buffers = [roomy(buffer[:, :, :start], end + ROOM) for buffer in self.buffers]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.buffers = [self.keys, self.values]


def roomy(states: Tensor, room: int) -> Tensor:
    """A copy of states (R, H, S, d) at the start of (R, H, room, d)."""
    rows, heads, length, size = states.shape
    buffer = states.new_empty(rows, heads, room, size)
    buffer[:, :, :length] = states
    return buffer


def copied(cache: Cache, rows: int) -> Cache:
    """A new cache with the one row of `cache` in each of its rows."""
    copy = Cache(layer_class_to_replicate=RoomyLayer)
    for index, layer in enumerate(cache.layers):
        shape = (rows, -1, -1, -1)
        copy.update(layer.keys.expand(shape), layer.values.expand(shape), index)
    return copy


def joined(caches: list[Cache], length: int) -> Cache:
    """The rows of all caches in one, filled up in front to `length` entries.

    The caches give up theirs layer by layer: no more memory.
    """

    def rows(layers: list[RoomyLayer], kind: str) -> Tensor:
        states = [getattr(layer, kind) for layer in layers]
        return torch.cat([pad(each, (0, 0, length - each.shape[2], 0)) for each in states])

    cache = Cache(layer_class_to_replicate=RoomyLayer)
    for index in range(len(caches[0])):
        layers = [each.layers[index] for each in caches]
        cache.update(rows(layers, "keys"), rows(layers, "values"), index)
        for each in caches:
            each.layers[index] = None
    return cache


@torch.inference_mode()
def prefill(model: PreTrainedModel, tokens: Sequence[int]) -> Cache:
    """A cache of one row that holds these tokens."""
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    if tokens:
        ids = torch.tensor([tokens], device=model.device)
        model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def grouped_attention(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention that takes query heads with a common key head as so many more queries of it.

    query (R, H, Q, d), key and value (R, K, S, d), H a multiple of K: no key is ever repeated.
    Returns (R, Q, H, d).
    """
    rows, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, key.shape[1], groups * queries, size),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, groups, 1),
        scale=scaling,
    )
    return out.view(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


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
    and the logits (R, 1, V) that follow each prompt.

    A few prompts at a time, since neighbours are of like length: little of it is padding. On a
    CPU with plain attention, which is twice as fast there as the fused kernel for many queries.
    """
    plain_attention = "eager" if model.device.type == "cpu" else "grouped"
    known = prefix.get_seq_length()
    size = max(1, PREFILL // max(map(len, prompts)))
    caches, seen, logits = [], [], []
    for start in range(0, len(prompts), size):
        ids, real = left_padded(prompts[start : start + size], fill, model.device)  # (r, w)
        rows, width = ids.shape
        causal = real.new_ones(width, known + width).tril(known)
        itself = causal.triu(known)  # so that padding, too, has something to see
        caches.append(copied(prefix, rows))
        seen.append(torch.cat((real.new_ones(rows, known), real), 1))
        with attention(model, plain_attention):
            out = model(
                input_ids=ids,
                attention_mask=additive(causal & seen[-1][:, None] | itself, model.dtype),
                position_ids=known + (real.cumsum(1) - 1).clamp(min=0),
                past_key_values=caches[-1],
                use_cache=True,
                # as an int, V x d would be copied for each row
                logits_to_keep=torch.tensor([width - 1], device=model.device),
            )
        logits.append(out.logits)
    length = max(each.shape[1] for each in seen)
    shown = [pad(each, (length - each.shape[1], 0)) for each in seen]
    return joined(caches, length), torch.cat(shown), torch.cat(logits)


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

    prefix: cache of the tokens before all prompts. prompts: the rest of each, at least one token.
    """
    rows, device = len(prompts), model.device
    cache, seen, logits = read(model, prefix, prompts, eos)
    positions = seen.sum(1, keepdim=True) - 1  # (R, 1), of the last token read
    lineage = seen[:, None]  # (R, B, S): what each running beam sees; S grows by B a step
    own = torch.eye(search.beams, dtype=torch.bool, device=device)
    beams = Hypotheses.start(rows, search, eos, trie, device)
    where = torch.arange(rows, device=device)  # which prompt a row is
    results = {}

    for step in range(search.max_new_tokens):
        beams, parents = advance(beams, logits, step, search, eos, trie)
        running = int(beams.open.sum())
        if not running or step + 1 == search.max_new_tokens:
            break
        if 4 * running <= 3 * len(where):  # leave behind what is done
            results |= finished(beams.rows(~beams.open), where[~beams.open], eos)
            cache.batch_select_indices(beams.open.nonzero().flatten())
            parents, lineage, positions, where = (
                value[beams.open] for value in (parents, lineage, positions, where)
            )
            beams = beams.rows(beams.open)
        lineage = torch.cat((pick(lineage, parents), own.expand(len(where), -1, -1)), 2)
        positions = positions + 1
        logits = model(
            input_ids=beams.tokens[:, :, step],
            attention_mask=additive(lineage, model.dtype),
            position_ids=positions.expand(-1, search.beams),
            past_key_values=cache,
            use_cache=True,
        ).logits
    results |= finished(beams, where, eos)
    return [results[row] for row in range(rows)]


def finished(
    beams: Hypotheses, where: Tensor, eos: int
) -> dict[int, list[tuple[list[int], float]]]:
    """The finished beams of each prompt in `where` (R,); fewer than B if the trie has no more."""
    rows = zip(beams.finished.tolist(), beams.finished_scores.tolist(), strict=True)
    return {
        prompt: [
            (tokens[: tokens.index(eos)] if eos in tokens else tokens, score)
            for tokens, score in zip(*row, strict=True)
            if score > NONE
        ]
        for prompt, row in zip(where.tolist(), rows, strict=True)
    }


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
    beams = Hypotheses(None, None, tokens, scores, None, None)
    return list(finished(beams, torch.arange(len(prompts)), eos).values())


# ---------------------------------------------------------------------------- model and adapter


@contextmanager
def plain(model) -> Iterator[PreTrainedModel]:
    """The model without PEFT around it, a LoRA adapter added into its weights while in use.

    The sum is rounded to the weights' dtype, an error of the size of the rounding of each layer's
    output. Quantised layers keep their adapter separate. On leaving, every layer is the very
    object it was.
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
            alone = model(input_ids=ids, logits_to_keep=1).logits[:, -1].float()
            cache = prefill(model, prompt)
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
    return "" if error < torch.finfo(model.dtype).eps ** 0.5 else f"its logits differ by {error:.0%}"


# ------------------------------------------------------------------------------ many prompts


@dataclass(frozen=True)
class Work:
    """All prompts of a run, cut into batches of similar length; batches depend on nothing else."""

    tokens: list[list[int]]
    batches: list[list[int]]  # positions in `tokens`

    @classmethod
    def plan(cls, llm: LLM, texts: Sequence[str], search: Search) -> Work:
        """Tokenise, check and batch. Raises GenerationError for a prompt that is too long."""
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
        size = search.batch_size
        return cls(tokens, [order[start : start + size] for start in range(0, len(order), size)])


def run(
    llm: LLM, work: Work, todo: Sequence[int], search: Search, trie: Trie | None = None
) -> Iterator[tuple[int, list[list[Beam]]]]:
    """For each batch number of `todo`: the number, and the beams of each of its prompts."""
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
        start = [] if problem else shared_prefix(work.tokens)
        prefix = prefill(model, start)
        for number in todo:
            rows = [work.tokens[position][len(start) :] for position in work.batches[number]]
            if problem:
                found = hugging_face(model, rows, search, eos, trie)
            else:
                with attention(model, "grouped"):
                    found = beam_search(model, prefix, rows, search, eos, trie)
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
    for number, found in run(llm, work, range(len(work.batches)), search, trie):
        for position, beams in zip(work.batches[number], found, strict=True):
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

    Finished batches go to `folder` (by default `path` with the suffix .parts) at once, so a run
    that was killed goes on where it was, and the file is the same to the byte. `shard` (i, n) does
    every n-th batch only and writes nothing but to `folder`; a run of the whole (1, 1) afterwards
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
    todo = [n for n in range(index - 1, len(work.batches), count) if n not in done]
    bar = tqdm(total=sum(len(work.batches[n]) for n in todo), unit="example", desc=path.stem)
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
        for position, beams in zip(work.batches[number], found, strict=True)
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
    """Drop damaged lines, with a warning: their batches will be done again."""
    found = lines(part) if part.exists() else []
    good = [line for line in found if whole(line)]
    if len(good) < len(found):
        write_text("".join(good), part)
        warnings.warn(
            f"{part}: dropped {len(found) - len(good)} damaged of {len(found)} batches, "
            "which will be done again",
            stacklevel=2,
        )


def read_parts(folder: Path) -> dict[int, list]:
    """The finished batches of all shards: number -> beams of each prompt, as [text, score]."""
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
