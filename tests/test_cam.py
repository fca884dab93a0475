"""Maps take the logit apart; their samples follow the closed form; Grad-CAM agrees."""

import copy
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

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
from torch.nn import functional as F
from torchvision import models

from mcunc.cam import (
    class_activation_maps,
    enlarge,
    grad_cam,
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
    grad_cam(network, X)
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


# Grad-CAM -------------------------------------------------------------------------------------


def test_grad_cam_is_the_positive_part_up_to_scale():
    """The package scales to [0, 1], enlarges and scales again; so do we, with its own resize."""
    maps, logits = class_activation_maps(NETWORK, X)
    positive = normalise(np.maximum(maps, 0)).astype(np.float32)
    enlarged = np.stack([cv2.resize(one, (16, 16)) for one in positive])
    np.testing.assert_allclose(grad_cam(NETWORK, X), normalise(enlarged), atol=1e-4)
    chosen = grad_cam(NETWORK, X, logits.argmax(axis=1), batch_size=2)
    np.testing.assert_allclose(chosen, grad_cam(NETWORK, X), atol=1e-5)


def test_grad_cam_for_other_networks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    maps = grad_cam(network, X, classes=2, layer="1")
    assert maps.shape == (5, 16, 16)
    assert maps.min() >= 0
    assert maps.max() <= 1
    with pytest.raises(ValueError, match="layer: the network has no part 'features'"):
        grad_cam(network, X)


def by_the_package(network, x, layer, reshape=None, classes=1):
    """pytorch_grad_cam's own maps, of a copy, since it changes what it works on."""
    network = copy.deepcopy(network).eval().requires_grad_(True)
    part = dict(network.named_modules())[layer]
    with GradCAM(network, [part], reshape_transform=reshape) as cam:
        return cam(x, [ClassifierOutputTarget(classes)] * len(x))


def vit():
    torch.manual_seed(1)
    network = models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=4)
    nn.init.normal_(network.heads.head.weight)  # torchvision begins with zeros
    return network.eval()


def swin(size=4):
    torch.manual_seed(1)
    return models.SwinTransformer([4, 4], 8, [2, 2], [1, 2], [size, size], num_classes=4).eval()


def patches(a):
    return a[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)


def to_front(a):
    return a.permute(0, 3, 1, 2)


BLOCK = "encoder.layers.encoder_layer_1"


@pytest.mark.parametrize(
    ("network", "layer", "reshape"),
    [
        (NETWORK, "features", None),
        (NETWORK, "features.3", None),  # whose ReLU may work in place
        (NETWORK, "features.0", None),  # 8 channels of 8 x 8
        (swin(), "features", to_front),
        (swin(), "features.1", to_front),
        (swin(), "permute", None),
        (vit(), f"{BLOCK}", patches),
        (vit(), f"{BLOCK}.ln_1", patches),
        (vit(), "conv_proj", None),
    ],
)
def test_grad_cam_is_that_of_the_package(network, layer, reshape):
    x = pictures(size=32)
    expected = by_the_package(network, x, layer, reshape)
    np.testing.assert_allclose(grad_cam(network, x, 1, layer, 2, reshape), expected, atol=2e-3)


def test_grad_cam_by_its_formula():
    """Two channels of three pixels, before a ReLU that works in place, and one logit."""
    network = nn.Sequential(
        nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6, 1)
    )
    network[0].weight.data = torch.eye(2).reshape(2, 2, 1, 1)
    network[3].weight.data = torch.tensor([[1.0, 3, 2, -1, -1, 5]])
    x = torch.tensor([[[[1.0, 2, 4]], [[3, -1, -2]]]])
    # Derivatives 1, 3, 2 and, where it is rectified, 0: -1, 0, 0.  Their means are 2 and -1/3.
    expected = np.array([2 * 1 - 3 / 3, 2 * 2 + 1 / 3, 2 * 4 + 2 / 3])
    found = grad_cam(network, x, layer="0")[0, 0]
    np.testing.assert_allclose(found, (expected - 1) / (expected[2] - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "layer", "shape"),
    [
        (swin(), "features", r"\(2, 4, 4, 16\), which looks like \(B, h, w, C\)"),
        (swin(), "features.1", r"\(2, 8, 8, 8\), which looks like"),
        (swin(), "norm", r"\(2, 4, 4, 16\), which looks like"),
        (vit(), BLOCK, r"\(2, 17, 16\), not \(B, C, h, w\); pass reshape"),
        (NETWORK, "pooling", r"\(2, 6\), not \(B, C, h, w\); pass reshape"),
    ],
)
def test_layers_of_another_layout_are_refused(network, layer, shape):
    with pytest.raises(ValueError, match=f"^layer: {layer!r} returns {shape}"):
        grad_cam(network, pictures(2, 32), layer=layer)


def test_oblong_pictures_tell_the_layout_too():
    x = torch.rand(2, 3, 64, 32)
    with pytest.raises(
        ValueError, match=r"returns \(2, 8, 4, 16\), which looks like \(B, h, w, C\)"
    ):
        grad_cam(swin(), x, layer="features")
    x = torch.rand(2, 3, 35, 47)  # of which 6 × 8 is more nearly the proportion than 8 × 11
    conv = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), *average(), nn.Linear(6, 4)).eval()
    np.testing.assert_allclose(grad_cam(conv, x, 1, "0"), by_the_package(conv, x, "0"), atol=1e-4)


@pytest.mark.parametrize(
    "reshape", [3, lambda a: a, lambda a: a.sum(), lambda a: None, lambda a: a.reshape(2, 14, 14)]
)
def test_a_reshape_that_makes_no_maps_is_refused(reshape):
    with pytest.raises(ValueError, match=r"^reshape: "):
        grad_cam(vit(), pictures(2, 32), layer=BLOCK, reshape=reshape)


def test_layers_on_which_nothing_depends_are_refused():
    with pytest.raises(ValueError, match=r"^layer: the logits do not depend on the maps of"):
        # The head sees the class token of the last block alone.
        grad_cam(vit(), pictures(2, 32), layer="encoder.layers.encoder_layer_2", reshape=patches)
    network = small()
    network.unused = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^layer: nothing leads from the output of 'unused'"):
        grad_cam(network, X, layer="unused")


class Wrapped(nn.Module):
    def __init__(self, wrap, layer=None):
        super().__init__()
        self.network, self.wrap = copy.deepcopy(NETWORK), wrap

    def forward(self, x):
        return self.wrap(self.network(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: {"logits": z, "loss": z.mean()},
        lambda z: SimpleNamespace(logits=z, hidden_states=None),
        lambda z: (z, z[:, :, None, None] * torch.ones(3)),
        lambda z: z.squeeze(),
    ],
)
def test_logits_are_found_for_grad_cam(wrap):
    expected = grad_cam(NETWORK, X)
    np.testing.assert_allclose(grad_cam(Wrapped(wrap), X, layer="network.features"), expected)
    one_by_one = grad_cam(Wrapped(wrap), X, layer="network.features", batch_size=1)
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)


def test_a_single_logit_has_a_map():
    network = Wrapped(lambda z: z[:, 2])
    found = grad_cam(network, X, layer="network.features")
    np.testing.assert_allclose(found, grad_cam(NETWORK, X, 2), atol=1e-6)
    with pytest.raises(ValueError, match="classes: go up to 1"):
        grad_cam(network, X, 1, layer="network.features")


class Tuple(nn.Module):
    """A layer that returns attention beside its maps, as those of transformers do."""

    def forward(self, x):
        return x * 1, None


def test_a_layer_may_return_its_maps_first_of_several():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.layer = NETWORK, Tuple()

        def forward(self, x):
            features, _ = self.layer(self.network.features((x - 0.5) / 0.5))
            return self.network.head(self.network.pooling(features))

    np.testing.assert_allclose(grad_cam(Net(), X, layer="layer"), grad_cam(NETWORK, X), atol=1e-6)


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
    np.testing.assert_allclose(grad_cam(network, X), grad_cam(NETWORK, X), atol=1e-5)
    dropping = with_dropout(small(pooling=Flat()), 0.3)
    np.testing.assert_allclose(
        sample_maps(dropping, X, draws=3), sample_maps(EVERYWHERE, X, draws=3)
    )


def test_grey_pictures_and_other_types_have_maps():
    grey = ImageClassifier(nn.Conv2d(1, 6, 3), average(), nn.Linear(6, 4), (0.5,), (0.5,)).eval()
    x = torch.rand(3, 1, 9, 9)
    maps, logits = class_activation_maps(grey, x)
    np.testing.assert_allclose(logits, grey(x).detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad_cam(grey, x, 1), by_the_package(grey, x, "features"), atol=1e-4)
    double, _ = class_activation_maps(copy.deepcopy(grey).double(), x)
    np.testing.assert_allclose(double, maps, rtol=1e-4, atol=1e-5)
    half = copy.deepcopy(grey).bfloat16()
    np.testing.assert_allclose(
        class_activation_maps(half, x, 1)[0], class_activation_maps(grey, x, 1)[0], atol=0.05
    )
    assert grad_cam(half, x).dtype == np.float32
    with pytest.raises(ValueError, match=r"^x: .* uint8 or floats .* int64"):
        grad_cam(grey, (255 * x).long())
    for function in (class_activation_maps, grad_cam):
        with pytest.raises(ValueError, match=r"^x: .*an axis for their channel, x\[:, None\]"):
            function(grey, x[:, 0])
        with pytest.raises(ValueError, match=r"^x: .*np.transpose\(x, \(0, 3, 1, 2\)\)"):
            function(grey, x.permute(0, 2, 3, 1))
        with pytest.raises(ValueError, match=r"^x: .*for grey pictures x.repeat"):
            function(NETWORK, x)  # which would go through, all three channels being the same


def test_gradients_are_taken_where_they_are_off():
    expected = grad_cam(NETWORK, X)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            np.testing.assert_array_equal(grad_cam(NETWORK, X.clone()), expected)
    with pytest.raises(ValueError, match=r"^layer: the network has no part 'of type Sequential'"):
        grad_cam(NETWORK, X, layer=NETWORK.features)


def test_layers_of_one_pixel_show_no_place():
    for layer, x in (("pooling.0", X), ("features", X[..., :4, :4])):
        with pytest.raises(ValueError, match=r"^layer: the maps of .* are of one pixel"):
            grad_cam(NETWORK, x, layer=layer)


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
    for call in (class_activation_maps, map_moments, grad_cam):
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


@pytest.mark.filterwarnings("ignore")  # both ways are deprecated
def test_scripted_networks_are_named():
    scripted = torch.jit.script(nn.Sequential(small().features, *average(), nn.Linear(6, 4)))
    for call in (class_activation_maps, lambda *given: grad_cam(*given, layer="0")):
        with pytest.raises(ValueError, match=r"^network: is scripted"):
            call(scripted, X)
    with pytest.raises(ValueError, match=r"^network: is scripted|^layer: .* traced"):
        grad_cam(torch.jit.trace(small(), X), X)


class Interrupted(nn.Module):
    """Maps, while another thread draws random numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x):
        with ThreadPoolExecutor(1) as other:
            other.submit(torch.rand, 3).result()
        return self.conv(x)


def test_what_other_threads_draw_does_not_matter():
    network = small(features=Interrupted())
    maps, logits = class_activation_maps(network, X, 1)
    bias = network.head.bias[1].item()
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, logits[:, 1], atol=1e-5)


class Attention(nn.Module):
    """Maps by attention over places, whose kernel could drop and here does not."""

    def forward(self, x):
        x = x[:, :, ::4, ::4]
        places = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(places, places, places).transpose(1, 2).view_as(x)


def test_attention_does_not_draw():
    assert class_activation_maps(small(nn.Linear(3, 2), features=Attention()), X)[0].shape[0] == 5


class Noisy(nn.Module):
    """Draws from a generator of its own."""

    def forward(self, x):
        generator = torch.Generator().manual_seed(0)
        return x[:, :, ::4, ::4] + torch.randn(4, 4, generator=generator)


def test_values_that_are_not_finite_are_named():
    broken = small()
    broken.features[0].weight.data[0] = np.nan
    for call in (class_activation_maps, grad_cam):
        with pytest.raises(ValueError, match=r"^network: returns NaN .* its features\.0\.weight"):
            call(broken, X)
        with pytest.raises(ValueError, match=r"^x: contains NaN or infinity"):
            call(NETWORK, X * np.nan)


class Silent(nn.Module):
    def forward(self, x):
        return F.dropout(x[:, :, ::4, ::4], 0.5, training=True)


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
        (small(nn.Linear(3, 2), features=Silent()), "draws at random in evaluation mode"),
        (small(nn.Linear(3, 2), features=Noisy()), "draws at random in evaluation mode"),
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
