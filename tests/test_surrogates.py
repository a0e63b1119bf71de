"""Scores of a small network, against its loss written plainly and its Hessian written out."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from toy_windows import markov_corpus, settings_with

from bigrec_lib.method import networks, surrogates
from bigrec_lib.method.selection import SelectionError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def samples():
    return markov_corpus(24, n_items=7, length=3)


@pytest.fixture(scope="module")
def network(samples):
    settings = settings_with(width=4, epochs=3, patience=3, dropout=0.5, seed=1)
    return networks.train(surrogates.METHOD, samples, samples, settings)[0]


def loss_of(network, samples, row):
    scores = network.eval()(torch.from_numpy(samples.histories[row : row + 1]))[0]
    return scores.logsumexp(0) - scores[samples.targets[row]]


def test_loss_and_el2n_are_those_of_each_sample_alone(network, samples):
    losses = [loss_of(network, samples, row).item() for row in range(24)]
    np.testing.assert_allclose(surrogates.loss(network, samples), losses, rtol=1e-5)
    other = networks.NETWORKS[surrogates.METHOD][0](7, 3, settings_with(width=4))
    found = surrogates.el2n([network, other], samples)
    for row in range(24):
        lengths = []
        for each in (network, other):
            scores = each.eval()(torch.from_numpy(samples.histories[row : row + 1]))[0]
            wanted = functional.one_hot(torch.tensor(samples.targets[row]), 7)
            lengths.append((scores.softmax(0) - wanted).norm().item())
        assert found[row] == pytest.approx(np.mean(lengths), rel=1e-5)


def test_grand_is_the_length_of_all_gradients_by_finite_differences(network, samples):
    """Moving all weights a little along the gradient raises the loss by its squared length."""
    found = surrogates.grand([network], samples.take(np.arange(3)))
    weights = list(network.parameters())
    for row in range(3):
        slopes = torch.autograd.grad(loss_of(network, samples, row), weights)
        step = 1e-3 / found[row]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, slope in zip(weights, slopes, strict=True):
                    weight += sign * step * slope
                ends.append(loss_of(network, samples, row).item())
                for weight, slope in zip(weights, slopes, strict=True):
                    weight -= sign * step * slope
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(found[row] ** 2, rel=2e-2)


def test_the_mean_gradient_is_that_of_the_samples(network, samples):
    each = [slope for (slope,) in surrogates.gradients(
        network, samples, [surrogates.matrix(network)])]  # fmt: skip
    found = surrogates.mean_gradient(network, samples)
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)


def hessian(network, samples, row):
    """The Hessian of one sample's loss by the matrix, (16, 16), one second derivative at a time."""
    weight = surrogates.matrix(network)
    loss = loss_of(network, samples, row)
    (slope,) = torch.autograd.grad(loss, [weight], create_graph=True)
    lines = [
        torch.autograd.grad(each, [weight], retain_graph=True)[0].ravel() for each in slope.ravel()
    ]
    return torch.stack(lines).double()


def test_lissa_goes_step_by_step_with_the_hessian_written_out(network, samples):
    order = np.random.default_rng(0).integers(24, size=30)
    goal = surrogates.mean_gradient(network, samples).double().ravel()
    expected = goal
    for row in order:
        expected = goal + 0.99 * expected - hessian(network, samples, row) @ expected / 25
    found = surrogates.lissa(network, samples, order).double().ravel()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.norm().item())


def test_lissa_ends_at_the_inverse_of_the_damped_hessian(network, samples):
    one = samples.take(np.array([5]))
    goal = surrogates.mean_gradient(network, one).double().ravel()
    damped = 0.01 * torch.eye(16).double() + hessian(network, one, 0) / 25
    expected = torch.linalg.solve(damped, goal)
    found = surrogates.lissa(network, one, [0] * 3000).double().ravel()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.norm().item())


def test_influence_is_what_a_step_along_the_direction_does_to_the_loss(network, samples):
    few = samples.take(np.arange(5))
    direction = surrogates.lissa(network, samples, np.arange(20))
    found = surrogates.influence(network, few, direction)
    weight = surrogates.matrix(network)
    before, after = [], []
    step = 1e-2 / direction.norm()
    for ends, sign in ((before, -1), (after, 1)):
        with torch.no_grad():
            weight += sign * step * direction
            ends += [loss_of(network, few, row).item() for row in range(5)]
            weight -= sign * step * direction
    slopes = (np.array(after) - before) / (2 * step.item())
    np.testing.assert_allclose(found, slopes, rtol=2e-2, atol=2e-3 * np.abs(slopes).max())


def test_an_influence_beyond_all_bounds_is_refused(network, samples):
    broken = networks.NETWORKS[surrogates.METHOD][0](7, 3, settings_with(width=4))
    with torch.no_grad():
        surrogates.matrix(broken).fill_(float("nan"))
    with pytest.raises(SelectionError, match="influence of samples is not finite"):
        surrogates.lissa(broken, samples, [0])
