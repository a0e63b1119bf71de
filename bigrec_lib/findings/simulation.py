"""Simulated models, whose answers are as good as one asks for.

A simulated model answers example i of user u under seed s well where a latent value is low,

    z[s, i] = of the example + of its user + of seed and user + rest        variances: VARIANCES
    hit     = z[s, i] < Φ⁻¹(rate · g[s])        g: gamma with mean 1, the effect of the seed

so the mean hit rate is `rate`. Of a hit, the place r among the first K is uniform, the same for
seeds whose latent values are the same: NDCG@K has a mean of rate · mean(1 / log2(r + 2)). Seeds
share example and user; so do *related* models, such as BIGRec at two sizes, but not *unrelated*
ones, such as BIGRec and a network.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from bigrec_lib.method import metrics

K = 20
WORTH = metrics.ndcg(np.arange(K), K)  # of a target in each place
VARIANCES = {"example": 0.6, "user": 0.1, "seed and user": 0.05, "rest": 0.25}
POPULARITY = 1 / np.arange(10, 510)  # of the candidates of a simulated catalogue
POPULARITY /= POPULARITY.sum()


def users_of(n: int, n_users: int) -> np.ndarray:
    """The user of each of n examples (n,), spread evenly: nobody has two before all have one."""
    return np.sort(np.arange(n) % n_users)


def normal(rng: np.random.Generator, part: str, *shape: int) -> np.ndarray:
    """One part of the latent value, float32."""
    scale = np.float32(VARIANCES[part] ** 0.5)
    return scale * rng.standard_normal(shape, dtype=np.float32)


def difficulty(rng: np.random.Generator, users: np.ndarray) -> np.ndarray:
    """The part of the latent value that all seeds of a model share, (n,) float32."""
    return normal(rng, "example", len(users)) + normal(rng, "user", users.max() + 1)[users]


def latent(
    rng: np.random.Generator, shared: np.ndarray, users: np.ndarray, seeds: int
) -> np.ndarray:
    """Standard normal values (S, n) float32 of a model with a `difficulty` (n,) for all seeds."""
    with_user = normal(rng, "seed and user", seeds, users.max() + 1)[:, users]
    return shared + with_user + normal(rng, "rest", seeds, len(users))


def seed_effects(rng: np.random.Generator, seeds: int, variation: float) -> np.ndarray:
    """Factors (S,) of the hit rate: gamma with mean 1 and standard deviation `variation`."""
    if not variation:
        return np.ones(seeds)
    return rng.gamma(1 / variation**2, variation**2, seeds)


def ndcg(z: np.ndarray, rate: float, effects: np.ndarray) -> np.ndarray:
    """NDCG@K (S, n) float64 of latent values z at a mean hit rate, with seed effects (S,)."""
    chance = np.minimum(rate * effects, 1)
    seed, example = np.nonzero(z < special.ndtri(chance)[:, None])
    place = K * special.ndtr(z[seed, example].astype(np.float64)) / chance[seed]
    values = np.zeros(z.shape)
    values[seed, example] = WORTH[np.minimum(place.astype(np.int64), K - 1)]
    return values


class Model:
    """One simulated model: its answers at any hit rate, from the same latent values and seeds."""

    def __init__(self, rng, shared: np.ndarray, users: np.ndarray, seeds: int, variation: float):
        self.z = latent(rng, shared, users, seeds)
        self.effects = seed_effects(rng, seeds, variation)

    def at(self, rate: float) -> np.ndarray:
        """NDCG@K (S, n) at a mean hit rate."""
        return ndcg(self.z, rate, self.effects)


def pair(rng, users: np.ndarray, seeds: int, variation: float, models: str) -> list[Model]:
    """Two models, 'related' or 'unrelated'."""
    first = difficulty(rng, users)
    second = first if models == "related" else difficulty(rng, users)
    return [Model(rng, shared, users, seeds, variation) for shared in (first, second)]


def stock_of(rng: np.random.Generator, size: int = 1000) -> np.ndarray:
    """Lists (size, K), drawn from the catalogue by POPULARITY, without repetition."""
    keys = rng.standard_exponential((size, len(POPULARITY)), dtype=np.float32) / POPULARITY
    return np.argsort(keys, axis=1)[:, :K]


def impersonal(
    rng: np.random.Generator, stock: np.ndarray, targets: np.ndarray, seeds: int, kind: str
) -> np.ndarray:
    """Lists (S, n, K) that know nothing of their user.

    'random': from the stock. 'shuffled': one in thirty held the target of its own example, before
    all were dealt to examples anew.
    """
    lists = stock[rng.integers(0, len(stock), (seeds, len(targets)))]
    if kind == "random":
        return lists
    seed, example = np.nonzero(rng.random(lists.shape[:2]) < 1 / 30)
    lists[seed, example, rng.integers(0, K, len(seed))] = targets[example]
    return np.stack([rng.permutation(seed_lists) for seed_lists in lists])
