"""How the LLM itself would rank the catalogue: the likelihood of every title after a prompt.

Beam search finds a few likely titles. Here every title gets its exact log-likelihood, the end of
sequence included, so that the model's own ranking of the whole catalogue is known. Titles that
begin alike share what they begin with: together they are a tree whose nodes are the beginnings of
titles, and the logits of a node give the log-probability of whatever comes next. All tokens are
known beforehand, so a block of the tree is one forward pass, with a mask that lets a node see the
prompt and its own beginnings (`tree_cache`). The prompt is read once, and whole titles need no node
of their own.

In shapes, N is the number of titles, A of those in a block, Q of its nodes, P of the steps of its
titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from bigrec_lib.files import atomic
from bigrec_lib.method.attention import GROUPED, attending
from bigrec_lib.method.beams import GenerationError
from bigrec_lib.method.generation import check_lengths, plain
from bigrec_lib.method.tree_cache import additive, cut, prefill, read, tree_problem

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from bigrec_lib.method.llm import LLM

NODES = 256  # in a block at most, unless one title has more
ROWS = 16  # nodes whose logits are summed up together: they fit a CPU's cache


@dataclass(frozen=True)
class Block:
    """Some titles that stand next to each other in sorted order, as a tree.

    titles: (A,) numbers of the titles. tokens, depths: (Q,) last token of each node and how many
    tokens stand before it in its title. visible: (Q, Q) bool, whether one node begins with another.
    after, following: (P,) every step of these titles: the node that a token follows (0 is the
    prompt, 1 the first node, and so on), and the token; row: (P,) whose step it is, 0 ... A - 1.
    """

    titles: np.ndarray
    tokens: np.ndarray
    depths: np.ndarray
    visible: np.ndarray
    after: np.ndarray
    following: np.ndarray
    row: np.ndarray


def blocks(answers: Sequence[Sequence[int]], max_nodes: int = NODES) -> list[Block]:
    """The tree of all answers in blocks of at most `max_nodes` nodes, or of one longer answer.

    answers: token ids of each title, end of sequence included (`beams.answer_tokens`).
    """
    order = sorted(range(len(answers)), key=lambda number: list(answers[number]))
    parts: list[list[int]] = []
    nodes = 0
    for place, number in enumerate(order):
        length = len(answers[number]) - 1
        new_nodes = length - shared(answers[order[place - 1]], answers[number]) if parts else length
        if not parts or nodes + new_nodes > max_nodes:
            parts.append([])
            nodes, new_nodes = 0, length
        parts[-1].append(number)
        nodes += new_nodes
    return [tree([answers[number] for number in part], part) for part in parts]


def shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many nodes two answers share: their common first tokens, without the last of either.

    >>> shared([7, 8, 1], [7, 9, 1]), shared([7, 8, 1], [7, 8, 1])
    (1, 2)
    """
    count = 0
    while count < min(len(left), len(right)) - 1 and left[count] == right[count]:
        count += 1
    return count


def tree(answers: Sequence[Sequence[int]], numbers: Sequence[int]) -> Block:
    """The block of these sorted answers, which are the titles with these numbers."""
    tokens: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    steps: list[tuple[int, int, int]] = []
    path: list[int] = []  # nodes of the previous answer
    previous: Sequence[int] = ()
    for row, answer in enumerate(answers):
        path = path[: shared(previous, answer)]
        for depth in range(len(path), len(answer) - 1):
            parents.append(path[-1] if path else 0)
            tokens.append(answer[depth])
            depths.append(depth)
            path.append(len(tokens))
        steps += [(node, token, row) for node, token in zip([0, *path], answer, strict=True)]
        previous = answer
    visible = np.eye(len(tokens), dtype=bool)
    for node, parent in enumerate(parents):
        if parent:
            visible[node] |= visible[parent - 1]
    after, following, rows = np.array(steps).T
    return Block(
        np.array(numbers), np.array(tokens), np.array(depths), visible, after, following, rows
    )


# ------------------------------------------------------------------------------- the likelihoods


def log_likelihoods(
    llm: LLM, prompts: Sequence[str], parts: Sequence[Block], paths: Sequence[Path]
) -> np.ndarray:
    """log p(title | prompt) of every title, (len(prompts), N) float32.

    parts: `blocks` of all N titles. paths: a file (.npy) for each prompt, in which its row is kept
    and from which it is read if it exists.
    Raises GenerationError for a prompt that leaves no room, and for a model whose beams cannot
    share a cache.
    """
    ids = llm.tokenizer(list(prompts))["input_ids"] if len(prompts) else []
    max_length = max(int(block.depths.max()) for block in parts) + 2
    check_lengths(llm, ids, max_length)
    missing = [prompt for prompt, path in zip(ids, paths, strict=True) if not path.exists()]
    rows = []
    with plain(llm.model.eval()) as model:
        if missing:
            check_tree(llm.name, model, max(missing, key=len), max_length)
        for prompt, path in zip(tqdm(ids, desc="likelihood", unit="prompt"), paths, strict=True):
            if not path.exists():
                with atomic(path) as partial, partial.open("wb") as file:
                    np.save(file, of_prompt(model, prompt, parts), allow_pickle=False)
            rows.append(np.load(path, allow_pickle=False))
    titles = sum(len(block.titles) for block in parts)
    return np.stack(rows) if rows else np.empty((0, titles), np.float32)


def check_tree(name: str, model: PreTrainedModel, prompt: list[int], max_length: int) -> None:
    """Raise GenerationError for a model in which titles cannot share a prompt's cache."""
    if problem := tree_problem(model, prompt, len(prompt) + max_length):
        raise GenerationError(
            f"{name} cannot rank the catalogue by likelihood ({problem}): set ranked to 0"
        )


@torch.inference_mode()
def of_prompt(model: PreTrainedModel, prompt: Sequence[int], parts: Sequence[Block]) -> np.ndarray:
    """log p(title | prompt) of every title, (N,) float32. prompt: token ids, one at least."""
    likelihoods = np.empty(sum(len(block.titles) for block in parts), dtype=np.float32)
    prefix = prefill(model, [])
    with attending(model, GROUPED):
        cache, _, prompt_logits = read(model, prefix, [list(prompt)], prompt[-1])
        for block in tqdm(parts, desc="titles", unit="block", leave=False):
            logits = torch.cat((prompt_logits[0], feed(model, cache, block)))  # (1 + Q, V)
            steps = log_probabilities(logits, block)
            likelihoods[block.titles] = np.bincount(block.row, weights=steps)
            cut(cache, len(prompt))
    return likelihoods


def feed(model: PreTrainedModel, cache: Cache, block: Block) -> Tensor:
    """Have the model read all nodes of a block after what the cache holds; logits (Q, V)."""
    length, device = cache.get_seq_length(), model.device
    lineage = torch.from_numpy(block.visible).to(device)
    visible = torch.cat((lineage.new_ones(len(lineage), length), lineage), 1)
    return model(
        input_ids=torch.from_numpy(block.tokens).to(device)[None],
        attention_mask=additive(visible[None], model.dtype),
        position_ids=torch.from_numpy(block.depths + length).to(device)[None],
        past_key_values=cache,
        use_cache=True,
    ).logits[0]


def log_probabilities(logits: Tensor, block: Block) -> np.ndarray:
    """The log-probability of each step of a block, (P,) float64. logits: (1 + Q, V)."""
    total = torch.cat([part.float().logsumexp(1) for part in logits.split(ROWS)])
    after = torch.from_numpy(block.after).to(logits.device)
    following = torch.from_numpy(block.following).to(logits.device)
    return (logits[after, following].float() - total[after]).cpu().double().numpy()
