"""Conventional recommenders under BIGRec's protocol: same samples, catalogue, examples and ties.

Each learns from the windows of its samples and gives every candidate (title) a score, `Scorer`.

Statistics     recent popularity, item-kNN, Markov chain: nothing is trained.
Networks       GRU4Rec, Caser, SASRec: a window becomes one vector, whose products with the item
               embeddings are the scores. Each with cross-entropy over the whole catalogue (-ce) and
               with binary cross-entropy over one sampled negative (-bce); DROS is SASRec with -bce
               and a distributionally robust term.
P5-style       BIGRec's LLM tuned to write identifiers of items in place of their titles.

A sample's window holds several steps "these items, then that one", and every network may learn from
each of them, as BIGRec's LLM may read them all (`steps`).
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic
from bigrec_lib.method import grounding, metrics, prompts
from bigrec_lib.method.tuning import Dropout

BLOCK = 1024  # windows scored at once
HEADS, BLOCKS = 2, 2  # of SASRec
FILTERS = {"horizontal": 16, "vertical": 4}  # of Caser, per height
ALPHA, BETA, POWER = 0.1, 1.0, 0.05  # of DROS, as in the authors' code

Scorer = Callable[[np.ndarray], np.ndarray]
"""histories (n, L) of `Windows` -> scores (n, I) float32, higher is better."""


class BaselineError(StudyError):
    """A baseline cannot be trained."""


class Diverged(BaselineError):
    """The loss of a training run is not finite."""


# ------------------------------------------------------------------------------------ windows


@dataclass(frozen=True)
class Windows:
    """Samples in numbers of candidates, in the order of their time.

    A history shorter than the window is filled up on the left with the number I, which is no
    candidate.
    """

    users: np.ndarray  # (n,) int32
    histories: np.ndarray  # (n, L) int64, newest last
    targets: np.ndarray  # (n,) int64
    n_items: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def rows(self) -> np.ndarray:
        """Histories with their targets, (n, L + 1)."""
        return np.column_stack((self.histories, self.targets))

    def take(self, chosen) -> Windows:
        return Windows(
            self.users[chosen], self.histories[chosen], self.targets[chosen], self.n_items
        )


def windows(table: pa.Table, of_item: np.ndarray, length: int) -> Windows:
    """Examples (columns user, history, target) with the newest `length` items of their histories.

    of_item: (items,) the candidate of each item, from `grounding.candidates`.
    Raises BaselineError for an empty history.
    """
    sizes = pc.list_value_length(table["history"]).to_numpy()
    if not sizes.all():
        raise BaselineError(f"example {table['example'][int(sizes.argmin())]} has no history")
    values = of_item[pc.list_flatten(table["history"]).to_numpy()]
    pad = int(of_item.max()) + 1
    place = np.cumsum(sizes)[:, None] - length + np.arange(length)  # (n, L)
    real = np.arange(length) >= length - sizes[:, None]
    return Windows(
        users=table["user"].to_numpy(),
        histories=np.where(real, values[np.maximum(place, 0)], pad),
        targets=of_item[table["target"].to_numpy()],
        n_items=pad,
    )


def steps(given: Windows) -> Windows:
    """Every step "these items, then that one" inside the windows, each once a user.

    Windows of one user overlap: of equal steps the one with the longest history is kept.
    """
    rows, length = given.rows, given.histories.shape[1]
    row, at = np.nonzero(rows[:, :-1] != given.n_items)
    size = at - (rows == given.n_items).sum(1)[row]
    key = np.column_stack((given.users[row], rows[row, at], rows[row, at + 1]))
    order = np.lexsort((-size, *key.T))
    new = np.r_[True, (np.diff(key[order], axis=0) != 0).any(axis=1)]
    kept = np.sort(order[new])
    row, at = row[kept], at[kept]
    padded = np.pad(rows, ((0, 0), (length - 1, 0)), constant_values=given.n_items)
    return Windows(
        users=given.users[row],
        histories=padded[row[:, None], at[:, None] + np.arange(length)],
        targets=rows[row, at + 1],
        n_items=given.n_items,
    )


# ----------------------------------------------------------------------------------- statistics


def consumed(given: Windows) -> sparse.csr_array:
    """Who has which candidate in a window, (users, I), ones and zeros."""
    _, user = np.unique(given.users, return_inverse=True)
    row, column = np.nonzero(given.rows != given.n_items)
    found = sparse.coo_array(
        (np.ones(len(row), np.float32), (user[row], given.rows[row, column])),
        shape=(user.max() + 1, given.n_items),
    ).tocsr()  # which adds up what occurs twice
    found.data[:] = 1
    return found


def popularity(given: Windows) -> np.ndarray:
    """Users that have each candidate in a window, (I,) float64."""
    return consumed(given).sum(axis=0, dtype=np.float64)


def most_popular(given: Windows) -> Scorer:
    """The same for everybody: what most users have."""
    return always(popularity(given))


def recently_popular(given: Windows, share: float) -> Scorer:
    """What most users have in the latest share of the samples; between equals, in all of them."""
    recent = popularity(given.take(slice(-math.ceil(share * len(given)), None)))
    overall = popularity(given)
    return always(recent + overall / (overall.sum() + 1))


def always(scores: np.ndarray) -> Scorer:
    return lambda histories: np.tile(scores.astype(np.float32), (len(histories), 1))


def item_knn(given: Windows, decay: float) -> Scorer:
    """Cosine similarity, over users, to the items of the history.

    An item counts `decay` times as much as the one after it; not for itself.
    """
    found = consumed(given)
    norms = np.sqrt(found.sum(axis=0))
    unit = found.multiply(1 / np.maximum(norms, 1)).tocsr()  # (users, I)

    def score(histories: np.ndarray) -> np.ndarray:
        n, length = histories.shape
        row, at = np.nonzero(histories != given.n_items)
        weights = (decay ** (length - 1 - at)).astype(np.float32)
        own = sparse.csr_array((weights, (row, histories[row, at])), shape=(n, given.n_items))
        alike = (own @ unit.T) @ unit - own.multiply(norms > 0)
        return alike.toarray().astype(np.float32)

    return score


def markov(given: Windows, smoothing: float) -> Scorer:
    """The chance of each next item after the newest one, smoothed by popularity (Dirichlet)."""
    seen = steps(given)
    size = (given.n_items, given.n_items)
    pairs = (seen.histories[:, -1], seen.targets)
    follows = sparse.csr_array((np.ones(len(seen)), pairs), shape=size)
    prior = popularity(given) / popularity(given).sum()

    def score(histories: np.ndarray) -> np.ndarray:
        counts = follows[histories[:, -1]].toarray()
        total = counts.sum(axis=1, keepdims=True) + smoothing
        return ((counts + smoothing * prior) / total).astype(np.float32)

    return score


STATISTICS: dict[str, tuple[Callable[[Windows, float], Scorer], tuple[float, ...]]] = {
    "recent-popularity": (recently_popular, (0.01, 0.03, 0.1, 0.3)),
    "item-knn": (item_knn, (0.3, 0.6, 0.8, 1.0)),
    "markov": (markov, (1.0, 100.0, 1000.0, 10000.0)),
}
"""Method -> what makes its scorer, and the values of its one setting that are tried."""


# ------------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class Settings:
    """Of one training run of a network."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    dropout: float = 0.2
    width: int = 64  # d, of embeddings and hidden states
    epochs: int = 50  # at most
    patience: int = 5  # epochs without a better validation NDCG@20 before it stops
    batch_size: int = 256
    seed: int = 0


GRID = ("learning_rate", "weight_decay", "dropout", "width")  # what is chosen on validation


class Network(nn.Module):
    """A window -> a vector -> its products with the item embeddings, plus a bias an item."""

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__()
        self.n_items, self.length = n_items, length
        self.items = nn.Embedding(n_items + 1, settings.width, padding_idx=n_items)
        nn.init.normal_(self.items.weight[:-1].detach(), std=0.05)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.dropout = Dropout(settings.dropout)

    def encode(self, histories: Tensor) -> Tensor:
        """histories (B, L) -> (B, d)."""
        raise NotImplementedError

    def forward(self, histories: Tensor) -> Tensor:
        """Scores (B, I)."""
        return self.scores(self.encode(histories))

    def scores(self, encoded: Tensor) -> Tensor:
        return torch.addmm(self.bias, encoded, self.items.weight[:-1].T)

    def scores_of(self, encoded: Tensor, chosen: Tensor) -> Tensor:
        """The scores of one candidate each, (B,)."""
        return (encoded * self.items(chosen)).sum(1) + self.bias[chosen]


class GRU4Rec(Network):
    """Hidasi et al., "Session-based recommendations with recurrent neural networks", ICLR 2016."""

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__(n_items, length, settings)
        self.gru = nn.GRU(settings.width, settings.width, batch_first=True)

    def states(self, histories: Tensor) -> Tensor:
        """After each item, the oldest first, (B, L, d); those beyond the newest mean nothing."""
        width = histories.shape[1]
        padding = (histories == self.n_items).sum(1, keepdim=True)
        order = (torch.arange(width, device=histories.device) + padding) % width
        flushed = histories.gather(1, order)  # padding on the right, where no state sees it
        return self.gru(self.dropout(self.items(flushed)))[0]

    def encode(self, histories: Tensor) -> Tensor:
        newest = (histories != self.n_items).sum(1) - 1
        return self.dropout(self.states(histories)[torch.arange(len(newest)), newest])


class Caser(Network):
    """Tang & Wang, "Personalized top-n sequential recommendation via CNNs", WSDM 2018.

    Without its user vector: users of the test period may have no training sample.
    """

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__(n_items, length, settings)
        horizontal, vertical = FILTERS["horizontal"], FILTERS["vertical"]
        self.horizontal = nn.ModuleList(
            nn.Conv1d(settings.width, horizontal, height) for height in range(1, length + 1)
        )
        self.vertical = nn.Linear(length, vertical, bias=False)
        self.join = nn.Linear(length * horizontal + vertical * settings.width, settings.width)

    def encode(self, histories: Tensor) -> Tensor:
        missing = self.length - histories.shape[1]
        window = self.items(functional.pad(histories, (missing, 0), value=self.n_items)).mT
        patterns = [conv(window).relu().amax(2) for conv in self.horizontal]  # (B, filters) each
        together = torch.cat([*patterns, self.vertical(window).flatten(1)], dim=1)
        return self.join(self.dropout(together)).relu()


class Block(nn.Module):
    """A layer of a Transformer, normalised before attention and before the feed-forward part."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """x: (B, L, d), visible: (B, 1, Q, L) bool -> the last Q places, (B, Q, d)."""
        normed, last = self.norms[0](x), visible.shape[2]
        q = self.query(normed[:, -last:]).unflatten(2, (HEADS, -1)).transpose(1, 2)
        k, v = self.key_value(normed).unflatten(2, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, H, Q, d/H)
        x = x[:, -last:] + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(self.norms[1](x)))


class SASRec(Network):
    """Kang & McAuley, "Self-attentive sequential recommendation", ICDM 2018.

    Places are counted from the newest item backwards.
    """

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__(n_items, length, settings)
        self.places = nn.Embedding(length, settings.width)
        nn.init.normal_(self.places.weight.detach(), std=0.05)
        self.blocks = nn.ModuleList(Block(settings.width, settings.dropout) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(settings.width)

    def states(self, histories: Tensor, last: int) -> Tensor:
        """What each of the last items knows of those up to it, (B, last, d)."""
        width = histories.shape[1]
        place = torch.arange(width - 1, -1, -1, device=histories.device)
        same = torch.eye(width, dtype=torch.bool, device=histories.device)
        earlier = same.new_ones(width, width).tril()
        visible = earlier & (histories != self.n_items)[:, None] | same  # (B, L, L)
        x = self.dropout(self.items(histories) + self.places(place))
        *lower, top = self.blocks
        for block in lower:
            x = block(x, visible[:, None])
        return self.norm(top(x, visible[:, None, -last:]))

    def encode(self, histories: Tensor) -> Tensor:
        return self.states(histories, 1)[:, 0]


# --------------------------------------------------------------------------------------- losses


def ce(model: Network, encoded: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """Cross-entropy over the whole catalogue."""
    return functional.cross_entropy(model.scores(encoded), targets)


def bce(model: Network, encoded: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """Binary cross-entropy of the target and of one other candidate, drawn uniformly."""
    other = torch.randint(model.n_items - 1, targets.shape, device=targets.device)
    other += other >= targets
    yes, no = model.scores_of(encoded, targets), model.scores_of(encoded, other)
    return -(functional.logsigmoid(yes) + functional.logsigmoid(-no)).mean() / 2


def dros(model: Network, encoded: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """`bce` plus ALPHA times the robust term."""
    robust = robust_term(model.scores(encoded), targets, prior, BETA)
    return bce(model, encoded, targets, prior) + ALPHA * robust


def robust_term(scores: Tensor, targets: Tensor, prior: Tensor, beta: float) -> Tensor:
    """The robust term of DROS, mean over a batch: log Σ_j exp(p_j ℓ_j / β).

    scores: (B, I); ℓ_j = (y_j - s_j)² with y = 1 for the target and 0 for all others; p: (I,), of
    `nominal`. Yang et al., "A generic learning framework for sequential recommendation with
    distribution shifts", SIGIR 2023: the worst loss Σ_j q_j p_j ℓ_j that a distribution q over
    items within some KL divergence can bring is, by duality, β log Σ_j exp(p_j ℓ_j / β) but for a
    constant. Like the authors' code, without the factor β, which ALPHA takes up.
    """
    wanted = functional.one_hot(targets, scores.shape[1])
    return (prior * (wanted - scores).square() / beta).logsumexp(1).mean()


def nominal(given: Windows) -> np.ndarray:
    """p of DROS, (I,) float32: the share of each candidate in the targets, one added, flattened."""
    counts = np.bincount(given.targets, minlength=given.n_items) + 1
    return ((counts / counts.sum()) ** POWER).astype(np.float32)


NETWORKS: dict[str, tuple[type[Network], Callable[..., Tensor]]] = {
    "gru4rec-ce": (GRU4Rec, ce),
    "gru4rec-bce": (GRU4Rec, bce),
    "caser-ce": (Caser, ce),
    "caser-bce": (Caser, bce),
    "sasrec-ce": (SASRec, ce),
    "sasrec-bce": (SASRec, bce),
    "dros": (SASRec, dros),
}
"""Method -> its network and its loss."""


# ------------------------------------------------------------------------------------- training


def train(
    method: str, learnt: Windows, valid: Windows, settings: Settings, device: str = "cpu"
) -> tuple[Scorer, pd.DataFrame]:
    """Train a network; return it as it was at its best, and its curve.

    learnt: what it learns from, `steps` of the samples. The curve has the columns epoch,
    train_loss, valid_ndcg (NDCG@20). Same arguments, same network; PyTorch's own random state is
    left as it was. Raises Diverged if a loss or a score is not finite.
    """
    make, loss_of = NETWORKS[method]
    histories = torch.from_numpy(learnt.histories).to(device)
    targets = torch.from_numpy(learnt.targets).to(device)
    prior = torch.from_numpy(nominal(learnt)).to(device)
    curve, best, state = [], -1.0, None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = make(learnt.n_items, histories.shape[1], settings).to(device)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        bar = tqdm(range(settings.epochs), desc=method, unit="epoch", leave=False)
        for epoch in bar:
            total = torch.zeros((), device=device)
            model.train()
            for rows in torch.randperm(len(learnt)).to(device).split(settings.batch_size):
                encoded = model.encode(histories[rows])
                loss = loss_of(model, encoded, targets[rows], prior)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
            train_loss = total.item() / len(learnt)
            if not math.isfinite(train_loss):
                raise Diverged(f"{method}: the loss is {train_loss} in epoch {epoch + 1}")
            ndcg = valid_ndcg(scorer(model), valid)
            curve.append({"epoch": epoch + 1, "train_loss": train_loss, "valid_ndcg": ndcg})
            bar.set_postfix(loss=f"{train_loss:.3f}", ndcg=f"{ndcg:.4f}")
            if ndcg > best:
                best, state = ndcg, copy.deepcopy(model.state_dict())
            best_epoch = 1 + int(np.argmax([row["valid_ndcg"] for row in curve]))
            if epoch + 1 - best_epoch >= settings.patience:
                break
        bar.close()
    model.load_state_dict(state)
    return scorer(model), pd.DataFrame(curve)


def scorer(model: Network) -> Scorer:
    """A trained network as a scorer. Raises Diverged if a score is not finite."""

    def score(histories: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = model.eval()(torch.from_numpy(histories).to(model.bias.device)).cpu().numpy()
        if not np.isfinite(found).all():
            raise Diverged("a score is not finite")
        return found

    return score


def scores(score: Scorer, given: Windows) -> np.ndarray:
    """Scores of all windows, (n, I) float32."""
    blocks = range(0, len(given), BLOCK)
    return np.concatenate([score(given.histories[at : at + BLOCK]) for at in blocks])


def ranks(score: Scorer, given: Windows) -> pd.DataFrame:
    """Each target's place among all candidates: columns rank and ties, int32."""
    parts = []
    for at in range(0, len(given), BLOCK):
        block = given.take(slice(at, at + BLOCK))
        parts.append(grounding.counted(-score(block.histories), block.targets))
    return pd.concat(parts, ignore_index=True)


def valid_ndcg(score: Scorer, valid: Windows) -> float:
    """NDCG@20 by which everything is chosen."""
    return float(metrics.ndcg(metrics.effective_rank(ranks(score, valid)), 20).mean())


def lists(score: Scorer, given: Windows, k: int = 20) -> np.ndarray:
    """The first candidates of each window, (n, k) int64, best first."""
    blocks = range(0, len(given), BLOCK)
    return np.concatenate([first(-score(given.histories[at : at + BLOCK]), k) for at in blocks])


def first(keys: np.ndarray, k: int = 20) -> np.ndarray:
    """The k candidates with the smallest keys, (n, k), smallest first; of equals the lower."""
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def save_scores(score: Scorer, given: Windows, path: Path) -> None:
    """Write the scores of all windows, (n, I) float32, for `load_scores`."""
    with atomic(path) as partial, open(partial, "wb") as stream:
        np.save(stream, scores(score, given), allow_pickle=False)


def load_scores(folder: Path, split: str) -> np.ndarray:
    """The scores that 06 kept of the model `folder` is named after, (n, I) float32, memory-mapped.

    Raises BaselineError if it kept none.
    """
    path = folder / f"{split}.npy"
    if not path.exists():
        raise BaselineError(
            f"no scores of {folder.name} in {folder.parent}: name it in `models` and in "
            "`collaborative` of 06_train_baselines"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean share of candidates that two lists (n, k) of the same examples have in common."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)]
    return float(np.mean(shared)) / one.shape[1]


# --------------------------------------------------------------------------------- the small grid


@dataclass(frozen=True)
class Found:
    """A method with what was chosen for it."""

    score: Scorer
    grid: pd.DataFrame  # a row for every point: its settings, epochs, valid_ndcg, seconds, chosen
    curve: pd.DataFrame  # of the chosen point: epoch, train_loss, valid_ndcg


def grid(
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    dropouts: Sequence[float],
    widths: Sequence[int],
    **fixed: int,
) -> list[Settings]:
    """Every combination, the same for all networks. Raises BaselineError if there is none."""
    lists = (learning_rates, weight_decays, dropouts, widths)
    empty = [f"{name}s" for name, values in zip(GRID, lists, strict=True) if not values]
    if empty:
        raise BaselineError(f"the grid is empty: give at least one value for {', '.join(empty)}")
    odd = [width for width in widths if width % HEADS]
    if odd:
        raise BaselineError(f"width {odd[0]} does not divide into the {HEADS} heads of SASRec")
    points = itertools.product(*lists)
    return [Settings(**dict(zip(GRID, point, strict=True)), **fixed) for point in points]


def search(
    method: str, points: Sequence[Settings], samples: Windows, valid: Windows, device: str = "cpu"
) -> Found:
    """Try a method's settings and keep what has the best validation NDCG@20.

    points: the settings of a network; a statistic has its own. A run that diverges stays in the
    table, without a value. Raises BaselineError if all do, or for a method or grid that is none.
    """
    if method in STATISTICS:
        values = STATISTICS[method][1]
        tries = [({"setting": v}, partial(statistic, method, samples, valid, v)) for v in values]
    elif method in NETWORKS:
        learnt = steps(samples)
        tries = [
            (searched(each), partial(train, method, learnt, valid, each, device)) for each in points
        ]
    else:
        known = ", ".join([*STATISTICS, *NETWORKS])
        raise BaselineError(f"unknown method {method!r}: choose from {known}")
    if not tries:
        raise BaselineError(f"{method}: the grid is empty")
    rows, best = [], (-1.0,)
    for settings, attempt in tries:
        began = time.perf_counter()
        row = {"method": method, **settings, "epochs": 0, "valid_ndcg": math.nan}
        try:
            score, curve = attempt()
        except Diverged as error:
            print(f"left out: {error}, with {settings}")
        else:
            row |= {"epochs": len(curve), "valid_ndcg": curve.valid_ndcg.max()}
            best = max(best, (row["valid_ndcg"], -len(rows), score, curve), key=lambda b: b[:2])
        rows.append(row | {"seconds": round(time.perf_counter() - began, 2)})
    if len(best) == 1:
        raise BaselineError(f"{method}: every point of the grid diverged: lower the learning rates")
    _, place, score, curve = best
    table = pd.DataFrame(rows)
    return Found(score, table.assign(chosen=table.index == -place), curve.assign(method=method))


def searched(settings: Settings) -> dict[str, float]:
    """The settings that the grid is over."""
    return {name: getattr(settings, name) for name in GRID}


def statistic(
    method: str, samples: Windows, valid: Windows, value: float
) -> tuple[Scorer, pd.DataFrame]:
    """A statistic with one value of its setting, and its validation NDCG@20 as a curve."""
    score = STATISTICS[method][0](samples, value)
    row = {"epoch": 0, "train_loss": math.nan, "valid_ndcg": valid_ndcg(score, valid)}
    return score, pd.DataFrame([row])


# --------------------------------------------------------------------------------------- P5-style


def identifiers(samples: Windows) -> list[str]:
    """A number for each candidate, (I,): sequential indexing, from training order only.

    User by user, in the order of their samples, each candidate not met before takes the next
    number, so that those consumed together share leading digits; candidates that are in no sample
    follow in the order of the catalogue. All numbers have as many digits. Hua et al., "How to index
    item IDs for recommendation foundation models", SIGIR-AP 2023.
    """
    by_user = samples.rows[np.argsort(samples.users, kind="stable")].ravel()
    met, where = np.unique(by_user[by_user != samples.n_items], return_index=True)
    order = met[np.argsort(where)]
    order = np.r_[order, np.setdiff1d(np.arange(samples.n_items), order)]
    start = 10 ** max(3, len(str(samples.n_items)))
    names = np.empty(samples.n_items, dtype=np.int64)
    names[order] = start + np.arange(samples.n_items)
    return names.astype(str).tolist()


def beam_keys(
    generations: pd.DataFrame, examples: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """Keys (n, I) float32, smaller is better, from the identifiers written for each example.

    generations: columns example, beam, text, score. What is in no beam comes last, all tied.
    Raises BaselineError for text that is no identifier.
    """
    number = pd.Series(range(len(names)), index=names)
    row = pd.Series(range(len(examples)), index=examples)
    written = generations.text.map(prompts.title_of)
    unknown = ~written.isin(number.index)
    if unknown.any():
        raise BaselineError(
            f"{written[unknown].iloc[0]!r} is no identifier: decode with a trie of all identifiers"
        )
    keys = np.full((len(examples), len(names)), np.inf, dtype=np.float32)
    keys[row[generations.example], number[written]] = -generations.score
    return keys
