"""Networks evaluated together equal those evaluated one by one; LeNet and ResNets as published."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import GARBAGE, arguments, finite_or_named
from torch import nn

from mcunc.networks import (
    ImageClassifier,
    ParallelMLP,
    ResidualBlock,
    cifar_resnet,
    lenet5,
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


# Networks for pictures ------------------------------------------------------------------------

BUILDERS = {"lenet5": lenet5, "resnet8": lambda **options: cifar_resnet(8, **options)}


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


def test_the_initial_convolutions_have_he_s_distribution():
    """He et al. (2015), equation 10: N(0, 2 / fan-in); deviations within 4.5 standard errors."""
    from scipy import stats

    for layer in cifar_resnet(20).modules():
        if isinstance(layer, nn.Conv2d):
            sd, n = (2 / (9 * layer.in_channels)) ** 0.5, layer.weight.numel()
            assert abs(layer.weight.std().item() / sd - 1) < 4.5 / (2 * n) ** 0.5
            weights = layer.weight.detach().numpy().ravel()
            assert stats.kstest(weights, "norm", args=(0, sd)).pvalue > 1e-4


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
        ({"std": (0.5, 0.0, 0.5)}, "std: .* cannot standardise"),
        ({"std": (0.5, -1.0, 0.5)}, "std: .* cannot standardise"),
        ({"mean": (0.5, 1e300, 0.5)}, "mean: .* cannot standardise"),
        ({"mean": 0.5}, "mean: expected 1 axes"),
        ({"std": (0.5, 0.5)}, "std: expected 3 numbers"),
        ({"mean": (0.5, np.nan, 0.5)}, "mean: contains NaN"),
    ],
)
def test_means_and_deviations_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lenet5(**options)


THREE = st.lists(st.floats(), min_size=3, max_size=3)
PARTS = st.sampled_from([nn.Identity(), nn.Flatten()])


@given(arguments(features=PARTS, pooling=PARTS, head=PARTS, mean=THREE, std=THREE))
def test_a_classifier_from_anything(given_):
    network = finite_or_named(lambda: ImageClassifier(**given_), list(given_))
    if network is not None:
        assert network.mean.shape == network.std.shape == (1, 3, 1, 1)
        assert network.mean.isfinite().all()
        assert (network.std > 0).all()


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


@given(
    arguments(
        channels_in=st.integers(-1, 3), channels_out=st.integers(-1, 4), stride=st.integers(-1, 3)
    )
)
def test_blocks_from_anything(given_):
    block = finite_or_named(lambda: ResidualBlock(**given_), list(given_))
    if block is not None:
        size = -(-5 // given_["stride"])
        x = torch.ones(2, given_["channels_in"], 5, 5)
        assert block(x).shape == (2, given_["channels_out"], size, size)


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
