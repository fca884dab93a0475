"""The training loop finds minima known in closed form, and leaves no wreck when it cannot."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import arguments, finite_or_named
from torch import nn

from mcunc.linear import fit_least_squares
from mcunc.training import fit_full_batch

OPTIMISERS = ["adam", "sgd", "lbfgs"]


class Point(nn.Module):
    """A network that is one vector."""

    def __init__(self, *values):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def square(network):
    return network.at.square().sum()


@pytest.mark.parametrize(("optimiser", "rate"), [("adam", 0.05), ("sgd", 0.1), ("lbfgs", 1.0)])
def test_least_squares_is_found(optimiser, rate):
    rng = np.random.default_rng(0)
    X, y = np.column_stack([np.ones(40), rng.normal(size=(40, 2))]), rng.normal(size=40)
    network = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    inputs, targets = torch.tensor(X), torch.tensor(y)[:, None]
    history = fit_full_batch(
        network, lambda net: nn.functional.mse_loss(net(inputs), targets), 1500, rate, optimiser
    )
    fit = fit_least_squares(X, y)
    assert len(history) == 1500
    assert_allclose(network.weight.detach()[0], fit.coefficients, rtol=1e-6)
    assert_allclose(history[-1], np.square(fit.residuals).mean(), rtol=1e-9)


def test_sgd_is_plain_gradient_descent():
    """On |θ|² a step multiplies θ by 1 - 2 · rate, and the loss before it is recorded."""
    network = Point(3.0, -1.0)
    history = fit_full_batch(network, square, steps=4, learning_rate=0.1, optimiser="sgd")
    assert_allclose(history, 10 * 0.64 ** np.arange(4))
    assert_allclose(network.at.detach(), np.array([3.0, -1.0]) * 0.8**4)


def test_adam_s_first_step_is_the_learning_rate():
    """Kingma & Ba (2015), section 2.1: the first step is the rate times the gradient's sign."""
    network = Point(3.0, -1.0)
    fit_full_batch(network, square, steps=1, learning_rate=0.01, optimiser="adam")
    assert_allclose(network.at.detach(), [2.99, -0.99], atol=1e-9)


def test_watch_sees_the_network_after_each_step():
    network = Point(1.0)
    seen = fit_full_batch(
        network, square, 3, 0.25, "sgd", watch=lambda net: net.at[0]
    )  # a tensor with a gradient, on purpose
    assert_allclose(seen, [0.5, 0.25, 0.125])
    assert all(type(value) is float for value in seen)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_loss_that_is_not_finite_leaves_the_last_good_parameters(optimiser):
    """|θ| finite for |θ| ≥ 1 only: the parameters are those of a step whose loss was finite."""

    def loss(network):
        inside = network.at.detach().abs().min() < 1
        return network.at.square().sum() * (math.nan if inside else 1.0)

    network = Point(3.0, -2.0)
    with pytest.raises(ValueError, match="loss: is not finite"):
        fit_full_batch(network, loss, 1000, 0.3, optimiser)
    if optimiser == "lbfgs":  # whose first line search went too far: nothing has moved
        assert network.at.tolist() == [3.0, -2.0]
    assert network.at.isfinite().all()


def test_a_frozen_parameter_stays():
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    before = network.bias.clone()
    fit_full_batch(network, lambda net: net(torch.ones(3, 2)).square().mean(), 5, 0.1)
    assert torch.equal(network.bias, before)


@given(
    arguments(
        network=st.sampled_from([(1.0, 2.0), (1e150,), (1e300,), (math.nan,)]).map(
            lambda values: Point(*values)
        ),
        loss=st.sampled_from(
            [
                square,
                lambda net: net.at,
                lambda net: net.at.sum() * math.nan,
                lambda net: 1.0,
                lambda net: torch.tensor(1.0),
                lambda net: None,
            ]
        ),
        steps=st.integers(-1, 4),
        learning_rate=st.one_of(st.floats(), st.just(0.01)),
        optimiser=st.sampled_from([*OPTIMISERS, "rmsprop"]),
        watch=st.sampled_from([None, lambda net: 2.0]),
    )
)
def test_fit_full_batch_on_anything(given_):
    history = finite_or_named(lambda: fit_full_batch(**given_), list(given_))
    if history is not None:
        assert len(history) == given_["steps"]
        assert np.isfinite(history).all()


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="network: has no parameters"):
        fit_full_batch(nn.Tanh(), square)
    with pytest.raises(ValueError, match=r"network: expected a torch\.nn\.Module"):
        fit_full_batch("network", square)
