"""Maps take the logit apart; their samples follow the closed form; Grad-CAM agrees."""

import copy

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy import stats
from strategies import GARBAGE, SAMPLING, finite_or_named
from torch import nn

from mcunc.cam import (
    class_activation_maps,
    enlarge,
    map_moments,
    normalise,
    pointing_hits,
    sample_maps,
)
from mcunc.dropout import sample_logits, with_dropout
from mcunc.networks import ImageClassifier, cifar_resnet


def pictures(count=5, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def average():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small(head=None, pooling=None, features=None):
    torch.manual_seed(0)
    features = features or nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU()
    )  # fmt: skip
    return ImageClassifier(features, pooling or average(), head or nn.Linear(6, 4)).eval()


NETWORK = small()
X = pictures()


@pytest.mark.parametrize("network", [NETWORK, cifar_resnet(8).eval()], ids=["small", "resnet"])
def test_mean_of_the_map_plus_bias_is_the_logit(network):
    x = pictures(size=32)
    expected = network(x).detach().numpy()
    maps, logits = class_activation_maps(network, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    predicted = logits.argmax(axis=1)
    bias = network.head.bias.detach().numpy()
    np.testing.assert_allclose(maps.mean((1, 2)) + bias[predicted], logits.max(1), atol=1e-5)
    for c in range(3):
        maps, _ = class_activation_maps(network, x, classes=c)
        np.testing.assert_allclose(maps.mean((1, 2)) + bias[c], logits[:, c], atol=1e-5)


def test_the_published_formula():
    """Zhou et al. (2016), equation 2, as four loops; a class for each picture; in batches."""
    classes = np.array([0, 3, 1, 1, 2])
    maps, _ = class_activation_maps(NETWORK, X, classes)
    features = NETWORK.features((X - 0.5) / 0.5).detach().numpy()
    weight = NETWORK.head.weight.detach().numpy()
    for n, c in enumerate(classes):
        for row in range(4):
            for column in range(4):
                total = sum(weight[c, k] * features[n, k, row, column] for k in range(6))
                assert maps[n, row, column] == pytest.approx(total, abs=1e-5)
    in_parts, _ = class_activation_maps(NETWORK, X, classes, batch_size=2)
    np.testing.assert_allclose(in_parts, maps, atol=1e-5)


def test_bytes_are_pictures():
    images = (X * 255).to(torch.uint8)
    expected = class_activation_maps(NETWORK, images.float() / 255)[0]
    np.testing.assert_allclose(
        class_activation_maps(NETWORK, images.numpy())[0], expected, atol=1e-6
    )


def test_the_network_is_left_as_it_was():
    network = with_dropout(small(), 0.3)
    network.train()
    network.head.weight.grad = torch.ones(4, 6)
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    class_activation_maps(network, X)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(network.head.weight.grad, torch.ones(4, 6))
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


# Under dropout --------------------------------------------------------------------------------

HEADS = {
    "in a sequence": small(nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 4))),
    "added": with_dropout(small(), 0.3, ["head"]),
    "twice": small(nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.4), nn.Linear(6, 4))),
}

EVERYWHERE = with_dropout(small(), 0.3)


@pytest.mark.parametrize("network", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("scope", ["network", "case"])
def test_samples_of_maps_follow_the_closed_form(network, scope):
    """Mean, variance p/(1-p) Σ w² A², for the pixels and, with averages, for the logit."""
    draws, classes = 1200, np.array([0, 3, 1, 1, 2])
    found = sample_maps(network, X, classes, draws, scope)
    exact = map_moments(network, X, classes)
    np.testing.assert_array_equal(exact.classes, classes)
    plain = class_activation_maps(network, X, classes)[0]
    np.testing.assert_allclose(exact.mean, plain, atol=1e-6)
    assert (np.abs(found.mean(axis=0) - exact.mean) <= 5 * exact.std / draws**0.5 + 1e-6).all()
    error = exact.std**2 * ((stats.kurtosis(found, axis=0) + 2) / draws) ** 0.5
    silent = exact.std < 1e-6  # where rectifiers leave nothing, kurtosis is undefined
    assert (np.abs(found.var(axis=0) - exact.std**2) <= 5 * error + 1e-7)[~silent].all()
    assert found.std(axis=0)[silent].max(initial=0) < 1e-6
    logits = sample_logits(network, X, draws, scope)[:, np.arange(5), classes]
    assert (np.abs(logits.mean(0) - exact.logit_mean) < 5 * exact.logit_std / draws**0.5).all()
    error = exact.logit_std**2 * ((stats.kurtosis(logits, axis=0) + 2) / draws) ** 0.5
    assert (np.abs(logits.var(axis=0) - exact.logit_std**2) < 5 * error).all()


def test_closed_form_by_hand():
    """One channel, p = 1/4: map w A, standard deviation |w| A sqrt(1/3)."""
    network = small(nn.Sequential(nn.Dropout(0.25), nn.Linear(1, 2)), features=nn.Conv2d(3, 1, 1))
    network.features.weight.data.fill_(1)
    network.features.bias.data.fill_(0)
    network.head[1].weight.data = torch.tensor([[2.0], [-3.0]])
    network.mean.fill_(0)
    network.std.fill_(1)
    x = torch.full((1, 3, 2, 2), 1 / 3)
    x[0, :, 0, 0] = 1
    moments = map_moments(network, x, 1)
    np.testing.assert_allclose(moments.mean, [[[-9, -3], [-3, -3]]], rtol=1e-5)
    np.testing.assert_allclose(moments.std, [[[9, 3], [3, 3]]] / np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(moments.logit_std, [4.5 / np.sqrt(3)], rtol=1e-5)


@pytest.mark.parametrize("masks", ["channel", "element"])
@pytest.mark.parametrize("scope", ["network", "case"])
@pytest.mark.parametrize("where", [None, ["head"]])
def test_masks_are_those_of_the_logits(where, scope, masks):
    """In every pass the mean of the map plus the bias is the logit of that pass."""
    network = with_dropout(small(), 0.3, where, masks)
    predicted = network(X).argmax(dim=1).numpy()
    maps = sample_maps(network, X, draws=7, scope=scope, seed=3, batch_size=2, first=2)
    logits = sample_logits(network, X, 7, scope, seed=3, first=2)[:, np.arange(5), predicted]
    bias = network.head.bias.detach().numpy()[predicted]
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)
    assert maps.std(axis=0).max() > 0.01
    again = sample_maps(network, X, predicted, draws=7, scope=scope, seed=3, first=2)
    np.testing.assert_allclose(again, maps, rtol=1e-4, atol=1e-5)


@given(SAMPLING)
def test_sampling_with_any_argument(given_):
    for network in (HEADS["added"], EVERYWHERE):
        maps = finite_or_named(lambda n=network: sample_maps(n, X, **given_), [*given_])
        assert maps is None or maps.shape == (given_["draws"], 5, 4, 4)


def test_sampling_needs_dropout():
    with pytest.raises(ValueError, match="network: has no dropout before its head"):
        sample_maps(NETWORK, X)


def test_features_run_once_when_only_the_head_is_random():
    network = with_dropout(small(), 0.3, ["head"])
    calls = []
    network.features.register_forward_hook(lambda *_: calls.append(1))
    sample_maps(network, X, draws=9)
    assert len(calls) == 1


# Beside pytorch-grad-cam -----------------------------------------------------------------------


def test_grad_cam_of_the_library_is_the_positive_part_up_to_scale():
    """The library scales to [0, 1], enlarges and scales again; so do we, with its own resize."""
    maps, logits = class_activation_maps(NETWORK, X)
    positive = normalise(np.maximum(maps, 0)).astype(np.float32)
    enlarged = np.stack([cv2.resize(one, (16, 16)) for one in positive])
    targets = [ClassifierOutputTarget(int(cls)) for cls in logits.argmax(axis=1)]
    network = copy.deepcopy(NETWORK).requires_grad_(True)  # the library changes what it works on
    with GradCAM(network, [network.features]) as library:
        np.testing.assert_allclose(library(X, targets), normalise(enlarged), atol=1e-4)


def test_maps_of_all_classes_are_those_of_each():
    for network in (HEADS["added"], EVERYWHERE):
        every = sample_maps(network, X, "all", draws=3, seed=1)
        assert every.shape == (3, 5, 4, 4, 4)
        for cls in range(4):
            one = sample_maps(network, X, cls, draws=3, seed=1)
            np.testing.assert_allclose(every[:, :, cls], one, rtol=1e-4, atol=1e-6)


class Flat(nn.Module):
    """An average by `view`, which fails where the channels come last."""

    def forward(self, x):
        return x.view(len(x), -1).unflatten(1, x.shape[1:]).mean(dim=(2, 3))


def test_networks_that_call_view_have_maps():
    network = small(pooling=Flat())
    for found, expected in zip(
        class_activation_maps(network, X), class_activation_maps(NETWORK, X), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    dropping = with_dropout(small(pooling=Flat()), 0.3)
    np.testing.assert_allclose(
        sample_maps(dropping, X, draws=3), sample_maps(EVERYWHERE, X, draws=3)
    )


def test_grey_pictures_and_other_types_have_maps():
    grey = ImageClassifier(nn.Conv2d(1, 6, 3), average(), nn.Linear(6, 4), (0.5,), (0.5,)).eval()
    x = torch.rand(3, 1, 9, 9)
    maps, logits = class_activation_maps(grey, x)
    np.testing.assert_allclose(logits, grey(x).detach(), rtol=1e-5, atol=1e-6)
    double, _ = class_activation_maps(copy.deepcopy(grey).double(), x)
    np.testing.assert_allclose(double, maps, rtol=1e-4, atol=1e-5)
    half = copy.deepcopy(grey).bfloat16()
    np.testing.assert_allclose(
        class_activation_maps(half, x, 1)[0], class_activation_maps(grey, x, 1)[0], atol=0.05
    )
    with pytest.raises(ValueError, match=r"^x: .* uint8 or floats .* int64"):
        class_activation_maps(grey, (255 * x).long())
    for function in (class_activation_maps,):
        with pytest.raises(ValueError, match=r"^x: .*an axis for their channel, x\[:, None\]"):
            function(grey, x[:, 0])
        with pytest.raises(ValueError, match=r"^x: .*np.transpose\(x, \(0, 3, 1, 2\)\)"):
            function(grey, x.permute(0, 2, 3, 1))
        with pytest.raises(ValueError, match=r"^x: .*expected \(N, 3, H, W\)"):
            function(NETWORK, x)  # which would go through, all three channels being the same


# Maps as pictures -----------------------------------------------------------------------------

MAPS = hnp.arrays(np.float64, (3, 4, 5), elements=st.floats(-1e6, 1e6))


@given(MAPS)
def test_normalised_maps(maps):
    own, shared = normalise(maps), normalise(maps, shared=True)
    for one, scaled in zip(maps, own, strict=True):
        assert (scaled.min(), scaled.max()) == ((0, 1) if np.ptp(one) > 0 else (0, 0))
    order = np.argsort(maps, axis=None)
    assert (np.diff(shared.ravel()[order]) >= 0).all()
    assert ((shared >= 0) & (shared <= 1)).all()


def test_enlarged_maps():
    """Centres of cells keep their value; constants stay; a ramp of cells becomes a ramp."""
    ramp = np.broadcast_to(np.arange(4.0), (2, 4, 4))
    large = enlarge(ramp, 12)
    np.testing.assert_allclose(large[0, 5, 1::3], np.arange(4), atol=1e-12)
    np.testing.assert_allclose(np.diff(large[0, 0, 1:11]), 1 / 3, atol=1e-12)
    assert enlarge(np.ones((3, 3)), (5, 7)).shape == (5, 7)
    with pytest.raises(ValueError, match="size: expected height and width"):
        enlarge(ramp, (1, 2, 3))


def test_the_pointing_game():
    """A peak on the part, one beside it; chance is the area of the part."""
    maps = np.zeros((2, 4, 4))
    maps[0, 1, 2] = maps[1, 3, 0] = 1
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:8, 8:12] = True
    np.testing.assert_array_equal(pointing_hits(maps, masks), [True, False])
    rng = np.random.default_rng(0)
    hits = pointing_hits(rng.random((4000, 16, 16)), np.repeat(masks[:1], 4000, axis=0))
    assert abs(hits.mean() - masks[0].mean()) < 4.5 * (1 / 16 * 15 / 16 / 4000) ** 0.5


@given(GARBAGE)
def test_pictures_of_anything(maps):
    finite_or_named(lambda: normalise(maps), ["maps"])
    finite_or_named(lambda: enlarge(maps, 6), ["maps"])
    finite_or_named(lambda: pointing_hits(maps, np.ones((3, 4, 4), bool)), ["maps", "masks"])


@given(GARBAGE)
def test_maps_of_anything(value):
    network = HEADS["added"]
    for call in (class_activation_maps, map_moments):
        with torch.random.fork_rng():
            finite_or_named(lambda call=call: _arrays(call(network, value)), ["x"])
            finite_or_named(lambda call=call: _arrays(call(network, X, value)), ["classes"])
    finite_or_named(lambda: sample_maps(network, value, draws=2), ["x", "network"])
    finite_or_named(lambda: sample_maps(network, X, value, draws=2), ["classes"])


def _arrays(found):
    return (
        found
        if isinstance(found, np.ndarray)
        else np.concatenate(
            [
                np.ravel(part)
                for part in (found if isinstance(found, tuple) else vars(found).values())
            ]
        )
    )


# Refusals -------------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_named():
    broken = small()
    broken.features[0].weight.data[0] = np.nan
    with pytest.raises(ValueError, match=r"^network: returns NaN .* its features\.0\.weight"):
        class_activation_maps(broken, X)
    with pytest.raises(ValueError, match=r"^x: contains NaN or infinity"):
        class_activation_maps(NETWORK, X * np.nan)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(3, 2), "network: expected features, pooling, head, mean, std, as in"),
        (nn.ModuleDict({"features": nn.Identity()}), "network: expected features, pooling, head"),
        (None, "network: expected features, pooling, head, mean, std"),
        (small(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))), "has more than dropout"),
        (small(nn.Sequential(nn.Linear(6, 4), nn.ReLU())), "must end in one linear layer"),
        (small(pooling=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())), "no average over"),
        (small(pooling=nn.Sequential(*average(), nn.Dropout(0.5))), "dropout in its pooling"),
        (small(nn.Linear(96, 4), nn.Flatten()), "must be maps"),
    ],
)
def test_networks_of_another_form(network, message):
    with pytest.raises(ValueError, match=message):
        class_activation_maps(network, X)


def test_the_closed_form_needs_dropout_before_the_head_and_nowhere_else():
    with pytest.raises(ValueError, match="network: has dropout in its features"):
        map_moments(with_dropout(small(), 0.3), X)
    with pytest.raises(ValueError, match="network: has no dropout before its head"):
        map_moments(small(), X)


@pytest.mark.parametrize("classes", [4, -1, [0, 1], [0.5] * 5, "a", [0, 1, 2, 3, 4]])
def test_classes_that_are_not_there(classes):
    with pytest.raises(ValueError, match="classes: "):
        class_activation_maps(NETWORK, X, classes)
