"""Step 1: beam search over titles (docs/method.md, section 4).

It is several times faster than Hugging Face `generate` and gives the same beams. All beams of a
prompt share a row of the cache (`tree_cache`), and the tokens that all prompts share (the
instruction) go through the model once per run. When prompts are done, the next ones take their
rows. A model whose attention does not allow this is left to `generate`.

Shapes are few. A CPU compiles its matrix products for every shape and keeps them, so memory would
grow with the number of prompts. So rows come and go in groups of an eighth of the batch, prompts
are read in powers of two, and lengths are rounded up, with masks over the padding.

In shapes, R is the number of prompts, B of beams.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from bigrec_lib.method.attention import GROUPED, attending
from bigrec_lib.method.beams import (
    GenerationError,
    Hypotheses,
    Rules,
    Scored,
    Search,
    Trie,
    advance,
    ended,
)
from bigrec_lib.method.llm import plain_generate, positions
from bigrec_lib.method.prompts import decode, title_of
from bigrec_lib.method.tree_cache import (
    Prompts,
    Tree,
    left_padded,
    prefill,
    read,
    rounded_up,
    tree_problem,
    vacant,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from bigrec_lib.method.llm import LLM

PREFILL = 1536  # about how many prompt tokens a CPU reads at once; a GPU reads 16 times as many
PORTION = 4  # batches that are searched, stored and resumed as a whole


@dataclass(frozen=True)
class Beam:
    """One generation: its text as decoded, and sum of log-probabilities / length**penalty."""

    text: str
    score: float


# ---------------------------------------------------------------------------------- many prompts


def generate(
    llm: LLM, texts: Sequence[str], search: Search, trie: Trie | None = None
) -> list[list[Beam]]:
    """The beams of every prompt, best first, in the order of `texts`.

    With a `trie`, only its answers come out, and fewer than B where it has no more.
    Raises GenerationError for a prompt that is empty or leaves no room for `max_new_tokens` in the
    context, more beams than half of the vocabulary, a tokenizer without an end of sequence, a trie
    with an answer of more than `max_new_tokens`, and one beam where `generate` has to search.
    """
    work = Work.plan(llm, texts, search, trie)
    results: list[list[Beam]] = [[] for _ in texts]
    for number, generations in run(llm, work, range(len(work.portions))):
        for position, beams in zip(work.portions[number], generations, strict=True):
            results[position] = beams
    return results


@dataclass(frozen=True)
class Work:
    """All prompts of a run, cut into portions of similar length.

    A portion is searched and stored as a whole: which prompts go together follows from the
    portion alone, not from the shard or from where a run was interrupted.
    """

    rules: Rules
    tokens: list[list[int]]
    portions: list[list[int]]  # positions in `tokens`, the longest first

    @classmethod
    def plan(cls, llm: LLM, texts: Sequence[str], search: Search, trie: Trie | None) -> Work:
        """Tokenise, check and cut. Raises GenerationError as `generate` does."""
        eos = llm.tokenizer.eos_token_id
        if eos is None:
            raise GenerationError(
                f"the tokenizer of {llm.name} has no end-of-sequence token: set one before tuning"
            )
        if trie and trie.depth > search.max_new_tokens:
            raise GenerationError(
                f"max_new_tokens is {search.max_new_tokens}, but the longest title needs "
                f"{trie.depth}"
            )
        size = llm.model.config.get_text_config().vocab_size
        if 2 * search.beams > size:
            raise GenerationError(
                f"beams is {search.beams}: {size // 2} at most, half of the {size} tokens"
            )
        tokens = llm.tokenizer(list(texts))["input_ids"] if len(texts) else []
        check_lengths(llm, tokens, search.max_new_tokens)
        order = sorted(range(len(tokens)), key=lambda number: (-len(tokens[number]), number))
        size = search.batch_size * PORTION
        portions = [order[start : start + size] for start in range(0, len(order), size)]
        return cls(Rules(search, eos, trie), tokens, portions)

    def rows(self, portion: int) -> list[list[int]]:
        """The prompts of a portion."""
        return [self.tokens[position] for position in self.portions[portion]]


def check_lengths(llm: LLM, tokens: Prompts, new_tokens: int) -> None:
    """Raise GenerationError for a prompt that is empty or leaves no room for `new_tokens` more."""
    room = positions(llm.model) - new_tokens
    for number, prompt in enumerate(tokens):
        if not 0 < len(prompt) <= room:
            raise GenerationError(
                f"prompt {number} has {len(prompt)} tokens, and {llm.name} has room for {room} "
                f"before {new_tokens} new ones: lower max_tokens of the prompts"
            )


def run(llm: LLM, work: Work, numbers: Sequence[int]) -> Iterator[tuple[int, list[list[Beam]]]]:
    """For each portion with one of these numbers: the number, and the beams of its prompts."""
    if not numbers:
        return
    with plain(llm.model.eval()) as model:
        search_portion = searcher(llm.name, model, work)
        for number in numbers:
            generations = search_portion(work.rows(number))
            yield number, [[decoded(llm, *beam) for beam in beams] for beams in generations]


def searcher(
    name: str, model: PreTrainedModel, work: Work
) -> Callable[[Prompts], list[list[Scored]]]:
    """The function that searches a portion: by `beam_search`, or else by `hugging_face`."""
    length = max(map(len, work.tokens)) + work.rules.search.max_new_tokens
    problem = tree_problem(model, work.tokens[0], length)
    if problem:
        warnings.warn(f"{name} is left to the slower `generate`: {problem}", stacklevel=4)
        return partial(hugging_face, model, rules=work.rules)
    prefix_tokens = shared_prefix(work.tokens)
    prefix = prefill(model, prefix_tokens)

    def search_portion(prompts: Prompts) -> list[list[Scored]]:
        rest = [prompt[len(prefix_tokens) :] for prompt in prompts]
        with attending(model, GROUPED):
            return beam_search(model, prefix, rest, work.rules)

    return search_portion


def decoded(llm: LLM, tokens: list[int], score: float) -> Beam:
    return Beam(decode(llm.tokenizer, tokens), score)


@contextmanager
def plain(model) -> Iterator[PreTrainedModel]:
    """The model without its PEFT wrapper; while in use, a LoRA adapter is added into its weights.

    The sum is rounded to the weights' dtype. This at most doubles what bfloat16 rounds off anyway
    (benchmarks/generation.py measures both). Quantised layers keep their adapter separate.
    On leaving, every layer is the very object it was.
    """
    from peft import PeftModel
    from peft.tuners.lora import Linear

    if not isinstance(model, PeftModel):
        yield model
        return
    base, originals = model.get_base_model(), {}
    for name, layer in list(base.named_modules()):
        if not isinstance(layer, Linear) or type(layer.base_layer) is not torch.nn.Linear:
            continue
        if layer.lora_variant or any(layer.lora_bias.values()):  # DoRA and the like: more than B·A
            continue
        originals[name] = layer
        base.set_submodule(name, merged(layer))
    try:
        yield base
    finally:
        for name, layer in originals.items():
            base.set_submodule(name, layer)


def merged(layer) -> torch.nn.Linear:
    """A copy of a LoRA layer's base with its active adapters added into the weight."""
    linear = deepcopy(layer.base_layer)
    for adapter in layer.active_adapters:
        linear.weight.data += layer.get_delta_weight(adapter)
    return linear


# ----------------------------------------------------------------------------------- one portion


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel, prefix: Cache, prompts: Prompts, rules: Rules
) -> list[list[Scored]]:
    """The finished beams of every prompt, best first.

    prefix: cache of the tokens before all prompts. prompts: the rest of each, at least one token,
    longest first. `batch_size` of them go together. When an eighth of those are done, the next
    ones take their places; when no more are waiting, the batch gets smaller.
    """
    batch = Batch(model, prefix, prompts, rules)
    while len(batch.hypotheses.open):
        rows = batch.done()
        if len(rows):
            batch.collect(rows)
            batch.refill(rows)
        else:
            batch.step()
    return [batch.results[number] for number in range(len(prompts))]


class Batch:
    """R prompts searched together, those still waiting, and the results of those that are done."""

    def __init__(self, model: PreTrainedModel, prefix: Cache, prompts: Prompts, rules: Rules):
        self.model, self.prefix, self.prompts, self.rules = model, prefix, prompts, rules
        self.results: dict[int, list[Scored]] = {}
        self.waiting = list(range(len(prompts)))
        rows, beams = min(rules.search.batch_size, len(prompts)), rules.search.beams
        self.group = rounded_up(rows, 8) // 8
        self.hypotheses = Hypotheses.start([-1] * rows, beams, rules, model.device)
        self.hypotheses.open[:] = False  # as if done, so that all rows are filled at once
        length = prefix.get_seq_length() + len(prompts[0])
        lineage = self.hypotheses.open.new_zeros(rows, beams, length)
        self.tree = Tree(vacant(prefix, rows, length), lineage)

    def done(self) -> Tensor:
        """The rows that are done, (r,) int64: whole groups of them, or all rows at the end."""
        rows = (~self.hypotheses.open).nonzero().flatten()
        if len(rows) == len(self.hypotheses.open):
            return rows
        return rows[: len(rows) // self.group * self.group]

    def collect(self, rows: Tensor) -> None:
        """Note the results of these rows."""
        hypotheses = self.hypotheses.rows(rows)
        beams = ended(hypotheses.finished, hypotheses.finished_scores, self.rules.eos)
        self.results |= zip(hypotheses.prompt.tolist(), beams, strict=True)

    def refill(self, rows: Tensor) -> None:
        """Give these rows to waiting prompts, and drop the rows for which no prompt is left."""
        numbers, self.waiting = self.waiting[: len(rows)], self.waiting[len(rows) :]
        lengths = [len(self.prompts[number]) for number in numbers]
        self.tree.lineage[rows] = False
        mask = torch.ones_like(self.hypotheses.open)
        mask[rows[len(numbers) :]] = False
        # the other rows began with prompts at least as long as the new ones, so these have room
        min_entries = self.prefix.get_seq_length() + max(lengths, default=0)
        self.keep(mask.nonzero().flatten(), min_entries)
        free_rows = (~self.tree.lineage.any(2).any(1)).nonzero().flatten()
        room = PREFILL if self.model.device.type == "cpu" else 16 * PREFILL
        for part in neighbours(lengths, room):
            self.enter(free_rows[part], numbers[part])

    def keep(self, rows: Tensor, min_entries: int) -> None:
        """Keep only these rows, each with at least this many cache entries."""
        self.hypotheses = self.hypotheses.rows(rows)
        self.tree.keep(rows, min_entries)

    def enter(self, rows: Tensor, numbers: list[int]) -> None:
        """Read the prompts with these numbers into these rows, and take their first step."""
        prompts = [self.prompts[number] for number in numbers]
        cache, mask, logits = read(self.model, self.prefix, prompts, self.rules.eos)
        hypotheses = Hypotheses.start(numbers, 1, self.rules, self.model.device)
        self.hypotheses.put(rows, advance(hypotheses, logits, self.rules)[0])
        self.tree.put(rows, cache, mask)

    def step(self) -> None:
        """One more token for every running beam: the model reads its last one.

        The beams of a prompt that is done come along, without effect on its results.
        """
        logits = self.tree.feed(self.model, self.hypotheses.last(), self.hypotheses.open)
        self.hypotheses, parents = advance(self.hypotheses, logits, self.rules)
        self.tree.follow(parents)


def neighbours(lengths: Sequence[int], room: int) -> list[slice]:
    """Which prompts to read together, from their lengths, longest first, so that they need little
    padding: as many as fit into `room` tokens, rounded down to a power of two.

    >>> neighbours([500, 500, 500, 400, 90], 1536)  # three have room
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    parts, start = [], 0
    while start < len(lengths):
        count = min(max(1, room // lengths[start]), len(lengths) - start)
        end = start + 2 ** (count.bit_length() - 1)
        parts.append(slice(start, end))
        start = end
    return parts


def shared_prefix(prompts: Prompts) -> list[int]:
    """The tokens all prompts begin with, leaving each at least one of its own.

    >>> shared_prefix([[1, 2, 3], [1, 2, 4, 5]]), shared_prefix([[1, 2], [1, 2, 4]])
    ([1, 2], [1])
    """
    first, last = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return list(first[:length])


# ----------------------------------------------------------------------------------- by `generate`


def hugging_face(model: PreTrainedModel, prompts: Prompts, rules: Rules) -> list[list[Scored]]:
    """What `beam_search` returns, by `generate`: for models whose beams cannot share a cache.

    Raises GenerationError for a single beam, for which `generate` gives no score.
    """
    if rules.search.beams == 1:
        raise GenerationError("this model is left to `generate`, which needs 2 beams or more")
    size = rules.search.batch_size
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    with plain_generate(model):
        return [beams for part in parts for beams in one_batch(model, part, rules)]


def one_batch(model: PreTrainedModel, prompts: Prompts, rules: Rules) -> list[list[Scored]]:
    """The beams of a few prompts by `generate`."""
    search, eos = rules.search, rules.eos
    ids, mask = left_padded(prompts, eos, model.device)
    width = ids.shape[1]
    output = model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        max_new_tokens=search.max_new_tokens,
        num_beams=search.beams,
        num_return_sequences=search.beams,
        length_penalty=search.length_penalty,
        early_stopping=False,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=eos,
        prefix_allowed_tokens_fn=allowed(rules.trie, width, eos) if rules.trie else None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = output.sequences[:, width:].unflatten(0, (len(prompts), search.beams))
    scores = output.sequences_scores.view(len(prompts), search.beams)
    return [distinct(beams) for beams in ended(tokens, scores, eos)]


def allowed(trie: Trie, width: int, eos: int) -> Callable[[int, Tensor], list[int]]:
    """A trie as `generate` wants it: the tokens that may follow a row with a prompt of `width`."""

    def following(_: int, row: Tensor) -> list[int]:
        node = trie.root
        for depth, token in enumerate(row[width:].tolist()):
            node = trie.child(node, depth, token)
        return trie.children(node, len(row) - width).tolist() or [eos]

    return following


def distinct(beams: list[Scored]) -> list[Scored]:
    """Without repetitions: `generate` adds some where a trie has fewer than B answers.

    >>> distinct([([5, 6], -0.1), ([7], -0.2), ([5, 6], -1e9)])
    [([5, 6], -0.1), ([7], -0.2)]
    """
    scores: dict[tuple[int, ...], float] = {}
    for tokens, score in beams:
        scores.setdefault(tuple(tokens), score)
    return [(list(tokens), score) for tokens, score in scores.items()]


# ------------------------------------------------------------------------------- what came out


def judged(
    generations: pd.DataFrame, examples: pd.DataFrame, titles: Sequence[str]
) -> pd.DataFrame:
    """Generations with three more columns: `title` (the text without quotes), `real` (in the
    catalogue) and `repeats` (in the history of its example).

    generations: columns example, beam, text, score. examples: columns example, history (items).
    titles: of every item, (items,).
    """
    histories = {
        example: {titles[item] for item in history}
        for example, history in zip(examples.example, examples.history, strict=True)
    }
    title = generations.text.map(title_of)
    pairs = zip(generations.example, title, strict=True)
    return generations.assign(
        title=title,
        real=title.isin(set(titles)),
        repeats=[name in histories[example] for example, name in pairs],
    )


def validity(generations: pd.DataFrame) -> dict[str, float]:
    """Shares and counts over generations from `judged`: real titles, distinct titles, the share of
    the most frequent one, and the share that repeats the history."""
    return {
        "generations": len(generations),
        "real": generations.real.mean(),
        "distinct": generations.title.nunique(),
        "most frequent": generations.title.value_counts(normalize=True).max(),
        "repeats": generations.repeats.mean(),
    }
