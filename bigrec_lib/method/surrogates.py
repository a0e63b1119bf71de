"""How a small network rates training samples: scores by which to choose some of them.

    loss       cross-entropy of the target, of the trained network
    EL2N       length of the error, softmax minus the target, early in training (Paul et al. 2021)
    GraNd      length of the loss's gradient by all weights, early in training (the same)
    influence  what a sample's gradient does to the mean loss, through the inverse of the Hessian
               (Koh & Liang 2017), as DEALRec has it: by one weight matrix, with LiSSA
               (docs/method.md, section 8)

The network is SASRec with cross-entropy over the catalogue. No dropout while anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from bigrec_lib.method.networks import Network, SASRec
from bigrec_lib.method.selection import SelectionError
from bigrec_lib.method.windows import BLOCK, Windows

METHOD = "sasrec-ce"
DAMPING, SCALE = 0.01, 25.0  # of LiSSA, as in DEALRec's code


def tensors(samples: Windows, network: Network) -> tuple[Tensor, Tensor]:
    """Histories (n, L) and targets (n,) on the network's device."""
    device = network.bias.device
    return torch.from_numpy(samples.histories).to(device), torch.from_numpy(samples.targets).to(
        device
    )


def blocks(samples: Windows, network: Network) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores (B, I) and targets (B,) of BLOCK windows at a time."""
    histories, targets = tensors(samples, network)
    network.eval()
    for rows in torch.arange(len(samples), device=histories.device).split(BLOCK):
        yield network(histories[rows]), targets[rows]


@torch.inference_mode()
def loss(network: Network, samples: Windows) -> np.ndarray:
    """Cross-entropy of each target over the catalogue, (n,) float32."""
    parts = [
        functional.cross_entropy(scores, targets, reduction="none")
        for scores, targets in blocks(samples, network)
    ]
    return torch.cat(parts).cpu().numpy()


@torch.inference_mode()
def el2n(networks: Sequence[Network], samples: Windows) -> np.ndarray:
    """‖softmax − target‖ of each sample, mean of networks, (n,) float32."""
    norms = []
    for network in networks:
        parts = []
        for scores, targets in blocks(samples, network):
            error = scores.softmax(1)
            error[torch.arange(len(targets)), targets] -= 1
            parts.append(error.norm(dim=1))
        norms.append(torch.cat(parts).cpu().numpy())
    return np.mean(norms, axis=0)


def gradients(network: Network, samples: Windows, weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradient of each sample's loss by `weights`, one sample at a time."""
    histories, targets = tensors(samples, network)
    network.eval()
    for row in tqdm(range(len(samples)), desc="gradients", leave=False):
        sample_loss = functional.cross_entropy(network(histories[row, None]), targets[row, None])
        yield list(torch.autograd.grad(sample_loss, weights))


def grand(networks: Sequence[Network], samples: Windows) -> np.ndarray:
    """‖∇ loss‖ of each sample by all weights, mean of networks, (n,) float64."""
    norms = [
        [
            sum(float(part.square().sum()) for part in parts) ** 0.5
            for parts in gradients(network, samples, list(network.parameters()))
        ]
        for network in networks
    ]
    return np.mean(norms, axis=0)


def matrix(network: Network) -> Tensor:
    """The weights that influence goes by: what the last block's attention is multiplied with."""
    assert isinstance(network, SASRec)
    return network.blocks[-1].out.weight


def mean_gradient(network: Network, samples: Windows) -> Tensor:
    """The gradient of the mean loss of all samples by `matrix`, (d, d)."""
    weight = matrix(network)
    total = torch.zeros_like(weight)
    for scores, targets in blocks(samples, network):
        block_loss = functional.cross_entropy(scores, targets, reduction="sum")
        total += torch.autograd.grad(block_loss, [weight])[0]
    return total / len(samples)


def lissa(network: Network, samples: Windows, order: Sequence[int] | np.ndarray) -> Tensor:
    """The mean gradient v times an approximate inverse of the Hessian by `matrix`, (d, d).

    h ← v + (1 − DAMPING) h − H h / SCALE, with the Hessian of one sample a step, in this order:
    about (DAMPING + H / SCALE)⁻¹ v. Raises SelectionError if it grows beyond all bounds.
    """
    weight = matrix(network)
    v = mean_gradient(network, samples)
    histories, targets = tensors(samples, network)
    h = v
    for row in tqdm(order, desc="influence", leave=False):
        sample_loss = functional.cross_entropy(network(histories[row, None]), targets[row, None])
        (gradient,) = torch.autograd.grad(sample_loss, [weight], create_graph=True)
        (product,) = torch.autograd.grad((gradient * h).sum(), [weight])
        h = v + (1 - DAMPING) * h - product / SCALE
    if not torch.isfinite(h).all():
        raise SelectionError(
            "the influence of samples is not finite: leave out the arms that need it, or lower the "
            "learning rate of the surrogate"
        )
    return h


def influence(network: Network, samples: Windows, direction: Tensor) -> np.ndarray:
    """direction · ∇ loss of each sample by `matrix`, (n,) float64. direction: from `lissa`."""
    weights = [matrix(network)]
    return np.array(
        [float((direction * slope).sum()) for (slope,) in gradients(network, samples, weights)]
    )
