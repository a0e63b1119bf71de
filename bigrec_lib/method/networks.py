"""Networks that learn from windows: a history becomes a vector, whose products with the item
embeddings are the scores.

GRU4Rec, Caser and SASRec, each with cross-entropy over the whole catalogue (-ce) and with binary
cross-entropy over one sampled negative (-bce); DROS is SASRec with -bce and a distributionally
robust term.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from bigrec_lib.files import atomic
from bigrec_lib.method.llm import Dropout
from bigrec_lib.method.windows import BaselineError, Scorer, Windows, valid_ndcg

HEADS, BLOCKS = 2, 2  # of SASRec
STD = 0.05  # of embeddings before training
FILTERS = {"horizontal": 16, "vertical": 4}  # of Caser, per height
BEGUN = "sasrec-llm"  # starts from the LLM's vectors of the titles, its one use of an LLM
ALPHA, BETA, POWER = 0.1, 1.0, 0.05  # of DROS, as in the authors' code


class Diverged(BaselineError):
    """The loss of a training run is not finite."""


@dataclass(frozen=True)
class Settings:
    """Of one training run; the defaults are those of `study.parameters.TrainBaselines`."""

    learning_rate: float
    weight_decay: float
    dropout: float
    width: int  # d, of embeddings and hidden states
    epochs: int  # at most
    patience: int  # epochs without a better validation NDCG@20 before it stops
    batch_size: int
    seed: int


class Network(nn.Module):
    """A window -> a vector -> its products with the item embeddings, plus a bias per item."""

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__()
        self.n_items, self.length = n_items, length
        self.items = nn.Embedding(n_items + 1, settings.width, padding_idx=n_items)
        nn.init.normal_(self.items.weight[:-1].detach(), std=STD)
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

    def scores_of(self, encoded: Tensor, candidates: Tensor) -> Tensor:
        """The score of one candidate for each history, (B,)."""
        return (encoded * self.items(candidates)).sum(1) + self.bias[candidates]


class GRU4Rec(Network):
    """Hidasi et al., "Session-based recommendations with recurrent neural networks", ICLR 2016."""

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__(n_items, length, settings)
        self.gru = nn.GRU(settings.width, settings.width, batch_first=True)
        self.out = nn.Linear(settings.width, settings.width)

    def states(self, histories: Tensor) -> Tensor:
        """The state after each item, oldest first, (B, L, d); beyond the newest, meaningless."""
        width = histories.shape[1]
        padding = (histories == self.n_items).sum(1, keepdim=True)
        order = (torch.arange(width, device=histories.device) + padding) % width
        ids = histories.gather(1, order)  # padding on the right, where no state sees it
        return self.gru(self.dropout(self.items(ids)))[0]

    def encode(self, histories: Tensor) -> Tensor:
        newest = (histories != self.n_items).sum(1) - 1
        return self.out(self.states(histories)[torch.arange(len(newest)), newest])


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
        padding = self.length - histories.shape[1]
        window = self.items(functional.pad(histories, (padding, 0), value=self.n_items)).mT
        patterns = [conv(window).relu().amax(2) for conv in self.horizontal]  # (B, filters) each
        features = torch.cat([*patterns, self.vertical(window).flatten(1)], dim=1)
        return self.join(self.dropout(features)).relu()


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
        normed, n = self.norms[0](x), visible.shape[2]
        q = self.query(normed[:, -n:]).unflatten(2, (HEADS, -1)).transpose(1, 2)
        k, v = self.key_value(normed).unflatten(2, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        sums = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, H, Q, d/H)
        x = x[:, -n:] + self.dropout(self.out(sums.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(self.norms[1](x)))


class SASRec(Network):
    """Kang & McAuley, "Self-attentive sequential recommendation", ICDM 2018.

    Places are counted from the newest item backwards.
    """

    def __init__(self, n_items: int, length: int, settings: Settings):
        super().__init__(n_items, length, settings)
        self.places = nn.Embedding(length, settings.width)
        nn.init.normal_(self.places.weight.detach(), std=STD)
        self.blocks = nn.ModuleList(Block(settings.width, settings.dropout) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(settings.width)

    def states(self, histories: Tensor, n: int) -> Tensor:
        """The state after each of the last n items, (B, n, d)."""
        width = histories.shape[1]
        place = torch.arange(width - 1, -1, -1, device=histories.device)
        diagonal = torch.eye(width, dtype=torch.bool, device=histories.device)
        causal = diagonal.new_ones(width, width).tril()
        visible = causal & (histories != self.n_items)[:, None] | diagonal  # (B, L, L)
        x = self.dropout(self.items(histories) + self.places(place))
        *lower, top = self.blocks
        for block in lower:
            x = block(x, visible[:, None])
        return self.norm(top(x, visible[:, None, -n:]))

    def encode(self, histories: Tensor) -> Tensor:
        return self.states(histories, 1)[:, 0]


# --------------------------------------------------------------------------------------- losses


def ce(model: Network, encoded: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """Cross-entropy over the whole catalogue."""
    return functional.cross_entropy(model.scores(encoded), targets)


def bce(model: Network, encoded: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """Binary cross-entropy of the target and of one other candidate, drawn uniformly."""
    negatives = torch.randint(model.n_items - 1, targets.shape, device=targets.device)
    negatives += negatives >= targets
    positive, negative = model.scores_of(encoded, targets), model.scores_of(encoded, negatives)
    return -(functional.logsigmoid(positive) + functional.logsigmoid(-negative)).mean() / 2


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
    y = functional.one_hot(targets, scores.shape[1])
    return (prior * (y - scores).square() / beta).logsumexp(1).mean()


def nominal(samples: Windows) -> np.ndarray:
    """p of DROS, (I,) float32: each candidate's share of the targets, one added, flattened."""
    counts = np.bincount(samples.targets, minlength=samples.n_items) + 1
    return ((counts / counts.sum()) ** POWER).astype(np.float32)


NETWORKS: dict[str, tuple[type[Network], Callable[..., Tensor]]] = {
    "gru4rec-ce": (GRU4Rec, ce),
    "gru4rec-bce": (GRU4Rec, bce),
    "caser-ce": (Caser, ce),
    "caser-bce": (Caser, bce),
    "sasrec-ce": (SASRec, ce),
    "sasrec-bce": (SASRec, bce),
    "dros": (SASRec, dros),
    BEGUN: (SASRec, ce),
}
"""Method -> its network and its loss."""


# ------------------------------------------------------------------------------------- training


def begin(model: Network, vectors: np.ndarray) -> None:
    """Let the item embeddings start as vectors (I, D) of the candidates.

    The coordinates along the directions in which they vary most, as many as the network is wide,
    at the scale that random embeddings start from.
    """
    centred = torch.from_numpy(vectors - vectors.mean(0)).double()
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    weight = model.items.weight.detach()  # (I + 1, d)
    start = (centred @ axes[: weight.shape[1]].T).float()  # (I, min(I, D, d))
    weight[:-1] = 0
    weight[:-1, : start.shape[1]] = start * (STD / start.square().mean().sqrt().clamp(min=1e-12))


def train(
    method: str,
    training: Windows,
    valid: Windows,
    settings: Settings,
    device: str = "cpu",
    vectors: np.ndarray | None = None,
) -> tuple[Network, pd.DataFrame]:
    """Train a network; return it as it was at its best, and its curve.

    training: what it learns from, `windows.steps` of the samples, or, for the form LAST, the
    samples themselves. vectors: (I, D), what the embeddings of candidates start as; None: at
    random. The curve has the columns epoch, train_loss, valid_ndcg (NDCG@20). Same arguments, same
    network; PyTorch's own random state is left as it was. Raises Diverged if a loss or a score is
    not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = NETWORKS[method][0](training.n_items, training.histories.shape[1], settings)
        if vectors is not None:
            begin(model, vectors)
        model.to(device)
        optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        curve: list[dict] = []
        best, best_epoch, state = -1.0, 0, model.state_dict()
        bar = tqdm(range(1, settings.epochs + 1), desc=method, unit="epoch", leave=False)
        for epoch in bar:
            loss = one_epoch(method, model, optimiser, training, settings.batch_size)
            if not math.isfinite(loss):
                raise Diverged(f"{method}: the loss is {loss} in epoch {epoch}")
            ndcg = valid_ndcg(scorer(model), valid)
            curve.append({"epoch": epoch, "train_loss": loss, "valid_ndcg": ndcg})
            bar.set_postfix(loss=f"{loss:.3f}", ndcg=f"{ndcg:.4f}")
            if ndcg > best:
                best, state, best_epoch = ndcg, copy.deepcopy(model.state_dict()), epoch
            if epoch - best_epoch >= settings.patience:
                break
        bar.close()
    model.load_state_dict(state)
    return model, pd.DataFrame(curve)


def one_epoch(
    method: str,
    model: Network,
    optimiser: torch.optim.Optimizer,
    training: Windows,
    batch_size: int,
) -> float:
    """One pass over the windows in random batches; the mean loss."""
    loss_of, device = NETWORKS[method][1], model.bias.device
    histories, targets, prior = (
        torch.from_numpy(array).to(device)
        for array in (training.histories, training.targets, nominal(training))
    )
    total = torch.zeros((), device=device)
    model.train()
    for rows in torch.randperm(len(training)).to(device).split(batch_size):
        loss = loss_of(model, model.encode(histories[rows]), targets[rows], prior)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(rows)
    return total.item() / len(training)


def scorer(model: Network) -> Scorer:
    """A trained network as a scorer. Raises Diverged if a score is not finite."""

    def score(histories: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(histories).to(model.bias.device)
            scores = model.eval()(batch).cpu().numpy()
        if not np.isfinite(scores).all():
            raise Diverged("a score is not finite")
        return scores

    return score


def save(model: Network, path: Path) -> None:
    """Write a network's weights as safetensors, for `load`."""
    from safetensors.torch import save_file

    weights = {name: w.cpu().contiguous() for name, w in model.state_dict().items()}
    with atomic(path) as partial:
        save_file(weights, partial)


def load(method: str, path: Path, windows: Windows, settings: Settings, device: str) -> Network:
    """A network whose weights `save` wrote. windows: of the items and length that it learnt."""
    from safetensors.torch import load_file

    model = NETWORKS[method][0](windows.n_items, windows.histories.shape[1], settings)
    model.load_state_dict(load_file(path))
    return model.to(device)


def item_vectors(folder: Path) -> np.ndarray:
    """The item embeddings (I, d) float32 of the one network that `baselines.search` has kept."""
    from safetensors.numpy import load_file

    (path,) = folder.glob("*.safetensors")
    return load_file(path)["items.weight"][:-1]
