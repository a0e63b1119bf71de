"""One cache for all beams of a prompt: tree attention.

`generate` copies the prompt's keys and values to every beam and reorders them at every step. Here
a prompt is one batch row whatever the number of beams B. A step feeds the last tokens of its B
beams as B query positions of that row, appends their keys and values to the row's cache, and lets
the attention mask say which entries each beam may see: the prompt and the beam's own ancestors.
Nothing is reordered; only the mask follows the beams.

    cache of one row   shared prefix | rest of the prompt | step 1: a b c d | step 2: e f g h | …
    beam g = c→g sees  ■■■■■■■■■■■■■   ■■■■■■■■■■■■■■■■■■           ■               ■

Position ids are explicit, so several entries may hold the same position. When room runs out,
entries that no beam sees any more are left out.

In shapes, R is the number of prompts, B of beams, S of cache entries, H of heads, d of a head's
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from bigrec_lib.method.attention import GROUPED, attending
from bigrec_lib.method.beams import pick
from bigrec_lib.method.llm import cache_problem, without_notices

with without_notices():
    from transformers import Cache
    from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Prompts = Sequence[list[int]]  # token ids

ROOM = 64  # cache entries allocated ahead
ENTRIES = 32  # attention goes over a multiple of so many cache entries
WIDTH = 8  # prompts are read at a multiple of so many tokens
TRIAL = 16  # prompt tokens on which a model is tried
TRIALS = 5  # such pieces of a prompt at most


# ------------------------------------------------------------------------------------- the cache


def rounded_up(length: int, multiple: int) -> int:
    """The next multiple that is no smaller.

    >>> rounded_up(33, 32), rounded_up(32, 32)
    (64, 32)
    """
    return -(-length // multiple) * multiple


class RoomyLayer(DynamicLayer):
    """A cache layer with room at its end, so that a step need not copy what is there already.

    `keys` and `values` are the beginning of larger arrays, the buffers. Attention gets the buffers
    up to a multiple of ENTRIES; their entries beyond the keys are finite, and masked.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> list[Tensor]:
        """Append states (R, H, n, d) and return what attention goes over, (R, H, S', d) each."""
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

    def put(self, rows: Tensor, source: DynamicLayer) -> None:
        """Replace the last entries of these rows by all those of another layer."""
        length = source.get_seq_length()
        self.keys[rows, :, -length:] = source.keys
        self.values[rows, :, -length:] = source.values

    def keep(self, rows: Tensor, entries: Tensor, room: int) -> None:
        """Keep only these rows (R',) and these entries of each (R', S'), with `room` for more."""
        count = entries.shape[1]
        entries = pad(entries, (0, rounded_up(count + room, ENTRIES) - count))
        heads, length = self.buffers[0].shape[1:3]
        starts = (rows[:, None] * heads + torch.arange(heads, device=rows.device)) * length
        index = starts[:, :, None] + entries[:, None]  # (R', H, S' + room)
        self.buffers = [
            buffer.flatten(0, 2).index_select(0, index.flatten()).unflatten(0, index.shape)
            for buffer in self.buffers
        ]
        self.keys, self.values = (buffer[:, :, :count] for buffer in self.buffers)


def roomy(states: Tensor, room: int) -> Tensor:
    """A copy of states (R, H, S, d) at the start of (R, H, room, d), zeros after them."""
    rows, heads, length, size = states.shape
    buffer = states.new_zeros(rows, heads, room, size)
    buffer[:, :, :length] = states
    return buffer


def cut(cache: Cache, length: int) -> None:
    """Keep only the first `length` entries of every layer."""
    for layer in cache.layers:
        layer.keys, layer.values = (states[:, :, :length] for states in (layer.keys, layer.values))


def copied(cache: Cache, rows: int) -> Cache:
    """A new cache with the one row of `cache` in each of its rows."""
    copy = Cache(layer_class_to_replicate=RoomyLayer)
    for index, layer in enumerate(cache.layers):
        shape = (rows, -1, -1, -1)
        copy.update(layer.keys.expand(shape), layer.values.expand(shape), index)
    return copy


def vacant(cache: Cache, rows: int, length: int) -> Cache:
    """A new cache with layers as in `cache`, of `rows` rows with `length` entries that are zero."""
    empty = Cache(layer_class_to_replicate=RoomyLayer)
    for index, layer in enumerate(cache.layers):
        states = (layer.keys, layer.values)  # (1, H, S, d)
        shapes = [(rows, value.shape[1], length, value.shape[3]) for value in states]
        zeros = [value.new_zeros(shape) for value, shape in zip(states, shapes, strict=True)]
        empty.update(*zeros, index)
    return empty


# -------------------------------------------------------------------------------------- the tree


@dataclass
class Tree:
    """A cache with a row for each of R prompts, and what each of their B beams sees of it."""

    cache: Cache
    lineage: Tensor  # (R, B, S) bool

    def feed(self, model: PreTrainedModel, tokens: Tensor, growing: Tensor) -> Tensor:
        """Have the model read one more token per beam. Returns the logits that follow, (R, B, V).

        tokens: (R, B) int64. growing: (R,) bool; the beams of other rows do not see the token that
        they are fed, so that their positions stay what they are.
        """
        beams = tokens.shape[1]
        if self.cache.layers[0].room() < beams:
            self.keep(torch.arange(len(tokens), device=tokens.device))
        diagonal = torch.eye(beams, dtype=torch.bool, device=tokens.device)
        self.lineage = torch.cat((self.lineage, diagonal & growing[:, None, None]), 2)
        return model(
            input_ids=tokens,
            attention_mask=additive(self.lineage, model.dtype),
            position_ids=self.lineage.sum(2) - 1,
            past_key_values=self.cache,
            use_cache=True,
        ).logits

    def follow(self, parents: Tensor) -> None:
        """Let each beam see what the beam it continues has seen. parents: (R, B) int64."""
        self.lineage = pick(self.lineage, parents)

    def put(self, rows: Tensor, cache: Cache, seen: Tensor) -> None:
        """Put other prompts at the end of these rows: a cache, and which of its entries are seen.

        seen: (r, S') bool. The other entries of these rows stay seen or unseen as they were.
        """
        self.lineage[rows, :, -seen.shape[1] :] = seen[:, None]
        for layer, source in zip(self.cache.layers, cache.layers, strict=True):
            layer.put(rows, source)

    def keep(self, rows: Tensor, min_entries: int = 1) -> None:
        """Keep only these rows (R',), and drop entries that no beam sees.

        All rows keep as many entries as are seen in the row with the most of them, and at least
        `min_entries`.
        """
        lineage = self.lineage[rows]
        seen = lineage.any(1)  # (R', S)
        size = max([min_entries, *seen.sum(1).tolist()])
        entries = seen.int().argsort(dim=1, stable=True)[:, -size:]  # (R', size), seen ones last
        self.lineage = lineage.gather(2, entries[:, None].expand(-1, lineage.shape[1], -1))
        for layer in self.cache.layers:
            layer.keep(rows, entries, max(ROOM, lineage.shape[1]))


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to attention scores, (R, 1, Q, S'), from which entries are visible, (R, Q, S).

    S' is S rounded up to a multiple of ENTRIES, as in what a RoomyLayer returns.
    """
    entries = visible.shape[2]
    visible = pad(visible, (0, rounded_up(entries, ENTRIES) - entries))
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


# ----------------------------------------------------------------------------------- the prompts


@torch.inference_mode()
def prefill(model: PreTrainedModel, tokens: Sequence[int]) -> Cache:
    """A cache of one row that holds these tokens, of which there may be none."""
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    ids = torch.tensor([tokens or [0]], device=model.device)  # at least one, for the layers' shapes
    model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    cut(cache, len(tokens))
    return cache


def read(
    model: PreTrainedModel, prefix: Cache, prompts: Prompts, fill: int
) -> tuple[Cache, Tensor, Tensor]:
    """Prefill: a cache of prefix and prompts, which of its entries each prompt sees (R, S) bool,
    and the logits (R, 1, V) that follow each prompt. fill: the token to pad with."""
    ids, real = left_padded(prompts, fill, model.device)  # (R, W)
    offset, (rows, width) = prefix.get_seq_length(), ids.shape
    padding = rounded_up(width, WIDTH) - width  # padding on the right, which is cut off again
    ids, real = pad(ids, (0, padding)), pad(real, (0, padding))
    seen = torch.cat((real.new_ones(rows, offset), real), 1)
    causal = real.new_ones(width + padding, offset + width + padding).tril(offset)
    diagonal = causal.triu(offset)  # so that padding, too, has something to see
    cache = copied(prefix, rows)
    out = model(
        input_ids=ids,
        attention_mask=additive(causal & seen[:, None] | diagonal, model.dtype),
        position_ids=offset + (real.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        # an int would copy V x d values for each row
        logits_to_keep=torch.tensor([width - 1], device=model.device),
    )
    cut(cache, offset + width)
    return cache, seen[:, : offset + width], out.logits


def left_padded(prompts: Prompts, fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (R, W) int64 that end at the right edge, and which of them are real, (R, W)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[fill] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    return ids.to(device), real.to(device)


# --------------------------------------------------------------------- whether a model can use it


def tree_problem(model: PreTrainedModel, prompt: Sequence[int], length: int) -> str:
    """Why beams of texts of up to `length` tokens cannot share a cache in this model; '' if they
    can.

    prompt: the tokens of any one, to try the model on.
    """
    return cache_problem(model, length) or logits_problem(model, list(prompt))


def logits_problem(model: PreTrainedModel, prompt: list[int]) -> str:
    """Why two beams do not get the logits that they get on their own; '' if they do.

    The logits are compared after each of the last pieces of the prompt; the two beams repeat the
    first and the last tokens of a piece. In bfloat16, rounding alone changes the logits, on single
    pieces as much as beams that see each other do; the median of the pieces tells the two apart. On
    tuned SmolLM2 the median of three was 1 to 8 % by rounding, and 15 % or more where beams saw
    each other. The bound is the square root of the dtype's precision, 9 %.
    """
    ends = range(len(prompt), 0, -TRIAL)[:TRIALS]
    pieces = [prompt[max(0, end - TRIAL) : end] for end in ends]
    try:
        difference = median(logits_difference(model, piece) for piece in pieces)
    except Exception as error:  # whatever a model of another make does not support
        return f"{type(error).__name__}: {error}"
    bound = torch.finfo(model.dtype).eps ** 0.5
    return "" if difference < bound else f"its logits differ by {difference:.0%}"


def logits_difference(model: PreTrainedModel, piece: list[int]) -> float:
    """By how much sharing a cache changes the logits of two beams after a piece of a prompt."""
    beams = torch.tensor([piece[:2], piece[-2:]], device=model.device)
    reference, logits = logits_alone(model, piece, beams), logits_in_tree(model, piece, beams)
    return float((logits - reference).norm() / (reference - reference.mean()).norm())


@torch.inference_mode()
def logits_alone(model: PreTrainedModel, prompt: list[int], beams: Tensor) -> Tensor:
    """The logits after a prompt and each beam (B, T), read as B texts: (B, V) float32."""
    start = torch.tensor(prompt, device=model.device).expand(len(beams), -1)
    ids = torch.cat((start, beams), 1)
    last = torch.tensor([ids.shape[1] - 1], device=model.device)
    return model(input_ids=ids, logits_to_keep=last).logits[:, 0].float()


@torch.inference_mode()
def logits_in_tree(model: PreTrainedModel, prompt: list[int], beams: Tensor) -> Tensor:
    """The same, with all beams in one row of a cache."""
    lineage = torch.ones(1, len(beams), len(prompt), dtype=torch.bool, device=model.device)
    tree = Tree(copied(prefill(model, prompt), 1), lineage)
    growing = lineage.new_ones(1)
    with attending(model, GROUPED):
        for tokens in beams.T:
            logits = tree.feed(model, tokens[None], growing)
    return logits[0].float()
