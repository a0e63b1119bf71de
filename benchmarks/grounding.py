"""Grounding and the γ sweep, next to the bare matrix product and to the authors' way.

Synthetic vectors of real shape: 5,000 queries, 17,408 titles, 4,096 dimensions (LLaMA-7B on Amazon
games), and SmolLM2's 576. The authors' way is `torch.cdist` on the whole matrix, min-max, and
`argsort().argsort()` for every γ; one γ is timed and counted 199 times. The floor is the product of
the same two matrices.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import torch
from common import arguments, finish, interleaved
from tqdm import tqdm

from bigrec_lib.method import grounding, reweighting
from bigrec_lib.study.provenance import peak_memory_gb

GAMMAS = reweighting.GAMMAS


def world(n: int, n_items: int, d: int):
    """Queries (n, d), titles (I, d), targets (n,), popularity weights (I,).

    One dimension far from 0, as in LLaMA; a third of the queries are exactly a title.
    """
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(n_items, d, generator=generator)
    vectors[:, d // 3] += 400
    targets = torch.randint(n_items, (n,), generator=generator)
    queries = vectors[targets] + 1.2 * torch.randn(n, d, generator=generator)
    queries[::3] = vectors[torch.randint(n_items, (len(queries[::3]),), generator=generator)]
    counts = np.random.default_rng(0).permutation(100_000 // np.arange(3, n_items + 3))
    return queries, vectors, targets.numpy(), reweighting.popularity_weights(counts)


def product(queries, vectors, targets, weights):
    return queries @ vectors.T


def ours(queries, vectors, targets, weights):
    return grounding.ranks(queries, vectors, targets)


def our_sweep(queries, vectors, targets, weights):
    return reweighting.ranks(queries, vectors, targets, weights, GAMMAS)


def authors_distances(queries, vectors, targets, weights):
    found = torch.cdist(queries, vectors)
    low, high = found.min(1, keepdim=True).values, found.max(1, keepdim=True).values
    return (found - low) / (high - low)


def authors_gamma(scaled, targets, weights, gamma: float):
    order = (scaled * (1 + torch.from_numpy(weights)) ** -gamma).argsort(-1).argsort(-1)
    return order.gather(1, torch.from_numpy(targets)[:, None])[:, 0]


def authors(queries, vectors, targets, weights):
    return authors_gamma(authors_distances(queries, vectors, targets, weights), targets, weights, 1)


def peak(case, n: int, n_items: int, d: int) -> float:
    """Peak memory of a case in a process of its own, less that of its input, in GB."""
    given = world(n, n_items, d)
    before = peak_memory_gb()
    case(*given)
    return peak_memory_gb() - before


def scale(n: int, n_items: int, d: int = 576) -> dict[str, float]:
    """Seconds of ranks and of the sweep over a catalogue held in bf16, and memory in all."""
    vectors = torch.empty(n_items, d, dtype=torch.bfloat16)
    for first in range(0, n_items, 10_000):
        vectors[first : first + 10_000].normal_(generator=torch.Generator().manual_seed(first))
    targets = np.arange(n) % n_items
    queries = vectors[targets].float() + 1
    weights = np.linspace(0, 1, n_items, dtype=np.float32)
    reweighting.ranks(queries[:1], vectors[:2], targets[:1], weights[:2], GAMMAS)  # compiles
    start = time.perf_counter()
    grounding.ranks(queries, vectors, targets)
    middle = time.perf_counter()
    reweighting.ranks(queries, vectors, targets, weights, GAMMAS)
    return {
        "items": n_items,
        "ranks_seconds": middle - start,
        "sweep_seconds": time.perf_counter() - middle,
        "peak_gb": peak_memory_gb(),
    }


def alone(function, *given):
    """The function's result in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def same_as_brute_force(queries, vectors, targets, weights) -> bool:
    """Whether ranks and ties are those of fp64 by definition, at every γ."""
    found = torch.cdist(
        queries.double(), vectors.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).numpy()
    own = np.take_along_axis(found, targets[:, None], 1)
    ranks = grounding.ranks(queries, vectors, targets)
    same = np.array_equal(ranks["rank"], (found < own).sum(1))
    same &= np.array_equal(ranks["ties"], (found == own).sum(1) - 1)
    scaled = reweighting.minmax(found)
    swept, _ = reweighting.ranks(queries, vectors, targets, weights, GAMMAS)
    for gamma, rank in zip(GAMMAS, swept.T, strict=True):
        keys = scaled * (1 + weights.astype(np.float64)) ** -gamma
        own = np.take_along_axis(keys, targets[:, None], 1)
        same &= np.array_equal(rank, (keys < own).sum(1))
    return bool(same)


def measure(n: int, n_items: int, d: int, rounds: int) -> dict[str, float | bool]:
    """All cases at one shape."""
    given = world(n, n_items, d)
    scaled = authors_distances(*given)
    seconds = interleaved(
        {
            "product": lambda: product(*given),
            "ranks": lambda: ours(*given),
            "ranks and sweep": lambda: our_sweep(*given),
            "authors' distances": lambda: authors_distances(*given),
            "authors' γ": lambda: authors_gamma(scaled, given[2], given[3], 1.0),
        },
        rounds,
    )
    best = {name: min(each) for name, each in seconds.items()}
    whole = best["authors' distances"] + len(GAMMAS) * best["authors' γ"]
    few = max(1, n // 50)
    exact = ours(*given)["rank"].to_numpy()
    rough = authors_gamma(authors_distances(*given), given[2], given[3], 0.0).numpy()
    return {
        "queries": n,
        "items": n_items,
        "dimensions": d,
        "matmul_seconds": best["product"],
        "ranks_seconds": best["ranks"],
        "sweep_seconds": best["ranks and sweep"],
        "reference_seconds_scaled_from_one_gamma": whole,
        "ranks_over_matmul": best["ranks"] / best["product"],
        "sweep_speedup_vs_reference": whole / best["ranks and sweep"],
        "identical_ranks": same_as_brute_force(given[0][:few], given[1], given[2][:few], given[3]),
        "reference_ranks_that_differ": float((exact != rough).mean()),
        "ranks_peak_gb": alone(peak, ours, n, n_items, d),
        "sweep_peak_gb": alone(peak, our_sweep, n, n_items, d),
        "reference_peak_gb": alone(peak, authors, n, n_items, d),
    }


def main() -> None:
    args = arguments(__doc__)
    n, rounds = (1000, 1) if args.quick else (5000, 3)
    measured = [measure(n, 17_408, d, rounds) for d in tqdm((4096, 576), desc="shapes")]
    sizes = [10**3, 10**4, 10**5] if args.quick else [10**3, 10**4, 10**5, 10**6]
    scaling = [alone(scale, 100, size) for size in tqdm(sizes, desc="catalogue")]
    print(pd.DataFrame(measured).T.to_string(float_format=lambda value: f"{value:.3f}"))
    print(pd.DataFrame(scaling).to_string(float_format=lambda value: f"{value:.3f}"))
    wide = measured[0]
    finish(
        {
            "ranks_over_matmul": wide["ranks_over_matmul"],
            "sweep_speedup_vs_reference": wide["sweep_speedup_vs_reference"],
            "identical_ranks": all(each["identical_ranks"] for each in measured),
            "largest_catalogue": scaling[-1]["items"],
            "scaling_peak_gb": max(each["peak_gb"] for each in scaling),
            "shapes": measured,
            "scaling": scaling,
        },
        args,
    )


if __name__ == "__main__":
    main()
