"""Networks evaluated together equal networks evaluated one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import GARBAGE, arguments, finite_or_named
from torch import nn

from mcunc.networks import ParallelMLP


def member(network, r):
    """Member r rebuilt from torch's own layers."""
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU, "none": nn.Identity}[network.activation]
    layers = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[2])
        layer.weight.data, layer.bias.data = weight[r].T, bias[r, 0]
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ["tanh", "relu", "none"])
@pytest.mark.parametrize("sizes", [(3, 1), (3, 5, 2), (3, 8, 8, 1)])
def test_equals_a_loop_over_members(sizes, activation):
    network = ParallelMLP(4, sizes, activation, seed=2)
    for bias in network.biases:
        bias.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    own = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(2))
    shared, apart = network(x), network(own)
    assert shared.shape == apart.shape == (4, 7, sizes[-1])
    for r in range(4):
        torch.testing.assert_close(shared[r], member(network, r)(x))
        torch.testing.assert_close(apart[r], member(network, r)(own[r]))


def test_members_do_not_touch_one_another():
    network = ParallelMLP(3, (2, 4, 1))
    network(torch.ones(5, 2))[1].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad[1].any()
        assert not parameter.grad[[0, 2]].any()


def test_initial_weights_have_the_stated_distribution():
    """N(0, 1/fan-in) by the Kolmogorov distance of 40,000 weights; biases 0."""
    from scipy import stats

    network = ParallelMLP(50, (20, 40, 1))
    first = network.weights[0].detach().numpy().ravel()
    assert stats.kstest(first, "norm", args=(0, 20**-0.5)).pvalue > 1e-4
    assert stats.kstest(network.weights[1].detach().ravel(), "norm", args=(0, 40**-0.5))[1] > 1e-4
    assert not any(bias.any() for bias in network.biases)


def test_seed_decides_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    one, same, other = (ParallelMLP(2, (3, 1), seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.weights[0], same.weights[0])
    assert not torch.equal(one.weights[0], other.weights[0])


def test_double_precision_on_request():
    network = ParallelMLP(2, (3, 1)).double()
    assert network(torch.ones(4, 3, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ValueError, match=r"x: is torch.float32, the weights are torch.float64"):
        network(torch.ones(4, 3))


INPUTS = st.one_of(
    GARBAGE,
    st.lists(st.integers(0, 4), max_size=4).map(torch.ones),
    st.sampled_from([torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.complex64)]),
)


@given(INPUTS)
def test_forward_on_anything(x):
    network = ParallelMLP(2, (3, 1))
    outputs = finite_or_named(lambda: network(x), ["x"])
    if outputs is not None:
        assert outputs.shape == (2, x.shape[-2], 1)
        assert outputs.isfinite().all()


def test_one_member_does_not_pass_for_many():
    with pytest.raises(ValueError, match="x: expected"):
        ParallelMLP(1, (3, 1))(torch.ones(5, 2, 3))
    with pytest.raises(ValueError, match="x: expected"):
        ParallelMLP(5, (3, 1))(torch.ones(1, 2, 3))


@given(
    arguments(
        members=st.integers(0, 3),
        sizes=st.lists(st.integers(0, 4), max_size=4),
        activation=st.sampled_from(["tanh", "relu", "none", "gelu"]),
        seed=st.integers(-1, 2**63 - 1),
    )
)
def test_construction_on_anything(given_):
    network = finite_or_named(lambda: ParallelMLP(**given_), list(given_))
    if network is not None:
        sizes = list(given_["sizes"])
        outputs = network(torch.ones(2, sizes[0]))
        assert outputs.shape == (given_["members"], 2, sizes[-1])
        assert np.isfinite(outputs.detach().numpy()).all()
