"""Sampling by dropout equals a plain loop, does once what it can, and leaves no trace."""

import copy
import gc
import pickle
import random
import re
import weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats
from strategies import GARBAGE, SAMPLING, finite_or_named
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torchvision import models, ops

from mcunc import dropout
from mcunc.dropout import pass_masks, sample_logits, sample_outputs, with_dropout

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# Architectures: what comes before the first dropout, and how ----------------------------------


class Residual(nn.Module):
    """Before the dropout: a residual sum and a rectifier, both in place, and a functional step."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.dropout, self.head = nn.Dropout2d(0.4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.relu(self.norm(self.first(x / 2)))
        out = self.second(h)
        out += h
        h = self.relu(out)
        return self.head(self.dropout(h).mean(dim=(2, 3)))


class Shortcut(Residual):
    """The shortcut goes round the dropout, and is changed in place by what comes from it."""

    def forward(self, x):
        h = self.norm(self.first(x))
        g = self.dropout(h)
        h += self.second(g)
        return self.head(self.relu(h).mean(dim=(2, 3)))


class Alias(Residual):
    """Counts on changes in place: the results of the rectifier and of the sum are not taken."""

    def forward(self, x):
        h = self.norm(self.first(x))
        self.relu(h)
        h.add_(1)
        shortcut = h
        h = self.second(h)
        h[:, 0] = 0
        h.relu_()
        h = self.dropout(h + shortcut) + shortcut
        return self.head(h.mean(dim=(2, 3)))


class Views(Residual):
    """Changes a view of a tensor that is used again."""

    def forward(self, x):
        h = self.first(x)
        h.view(len(x), -1)[:, :5].zero_()
        h.flatten(1).mul_(2)
        return self.head(self.dropout(self.norm(h)).mean(dim=(2, 3)))


class Branches(Residual):
    """Two branches, one of them random, joined by a concatenation; a list of tensors in between."""

    def forward(self, x):
        h = self.norm(self.first(x))
        parts = [self.second(h), self.dropout(h)]
        both = torch.cat([parts[0], parts[1]], dim=1).mean(dim=(2, 3))
        return self.head(both[:, :4] + both[:, 4:])


class Functional(Residual):
    """Dropout by function, always on."""

    def forward(self, x):
        h = self.relu(self.norm(self.first(x)))
        h = F.dropout(h, 0.3, training=True)
        return self.head(self.second(h).mean(dim=(2, 3)))


class Scalars(Residual):
    """A number read from a random tensor comes back into a step that has fixed tensors only."""

    def forward(self, x):
        h = self.norm(self.first(x))
        scale = self.dropout(h).abs().mean().item()
        return self.head((self.second(h) * scale).mean(dim=(2, 3)))


class Crossroads(Residual):
    """Which layers act depends on what was drawn."""

    def forward(self, x):
        h = self.dropout(self.norm(self.first(x)))
        h = self.second(h) if h.mean() > 0 else h
        if h[0, 0, 0, 0] > 0:
            h = h * 2 + torch.ones(1)
        return self.head(h.mean(dim=(2, 3)))


class InPlaceDropout(Residual):
    def forward(self, x):
        h = self.first(x)
        F.dropout(h, 0.3, training=True, inplace=True)
        h = self.second(h)
        F.dropout2d(h, 0.3, training=True, inplace=True)
        return self.head(h.mean(dim=(2, 3)))


class Caches(Residual):
    """Reads sizes and values on the way, and makes new tensors."""

    def forward(self, x):
        h = self.norm(self.first(x))
        if h.shape[0] > 0 and bool((h > -1e9).all()):
            h = h + torch.zeros(h.shape[1], 1, 1) + torch.arange(4.0)[:, None, None]
        top, where = h.flatten(2).max(dim=2)
        return self.head(self.dropout(h).mean(dim=(2, 3)) + top + where)


class Routed(Residual):
    """Which of two kept results goes on is decided by a random one."""

    def forward(self, x):
        h = self.norm(self.first(x))
        experts = [self.second(h), h]
        gate = self.dropout(h).mean(dim=(2, 3))
        chosen = experts[int(1e4 * gate.sum().abs()) % 2]
        return self.head(self.relu(chosen).mean(dim=(2, 3)) * (1 + gate.abs().sum()))


class Strange(Residual):
    """A view by a number of numpy's, changed in place; and a change that names no tensor."""

    def forward(self, x):
        h = x.reshape(-1, np.prod(x.shape[1:])).view(x.shape)
        h.sub_(0.5)
        h = self.first(h)
        torch._foreach_add_([h], 1.0)
        return self.head(self.dropout(h).mean(dim=(2, 3)))


class Lists(Residual):
    """Parts hand results on through a list that they are given."""

    def __init__(self):
        super().__init__()
        self.push = _Push()

    def forward(self, x):
        skips = []
        h = self.push(self.first(x), skips)
        return self.head((self.dropout(self.second(h)) + skips.pop()).mean(dim=(2, 3)))


class _Push(nn.Module):
    def forward(self, x, skips):
        skips.append(x)
        return x + 1


class Twice(Residual):
    """In-place dropout on a view of what a mask has met before."""

    def forward(self, x):
        h = self.first(x)
        r = self.dropout(h)
        F.dropout(h.view(len(x), -1), 0.3, training=True, inplace=True)
        return self.head((h + 0.1 * r).mean(dim=(2, 3)))


class Borrowed(Residual):
    """Memory of numpy's before the dropout, and changed behind torch's back."""

    def __init__(self):
        super().__init__()
        self.second = _Doubled()

    def forward(self, x):
        h = self.second(self.norm(self.first(x)))
        h.numpy()[:, 0] *= 3
        return self.head(self.dropout(h).mean(dim=(2, 3)))


class _Doubled(nn.Module):
    def forward(self, x):
        return torch.from_numpy(2 * x.numpy())


ZOO = [Residual, Shortcut, Alias, Views, Branches, Functional, Scalars, Crossroads]
ZOO += [InPlaceDropout, Caches, Routed, Strange, Lists, Twice, Borrowed]


def built(kind):
    network = kind().eval()
    network.norm.running_mean.copy_(normal(4))
    network.norm.running_var.copy_(normal(4).exp())
    return network


def plain_passes(network, x, draws, scope="network", seed=0):
    """A loop that runs the whole network in every pass, with the same masks."""
    network, outputs = copy.deepcopy(network), []
    for module in network.modules():
        module.training = isinstance(module, nn.modules.dropout._DropoutNd)
    for draw in range(draws):
        masks = dropout.Masks(seed, scope, 0, len(x), draw)
        with torch.no_grad(), dropout.MaskedDropout(masks):
            outputs.append(network(x.clone()))
    return torch.stack(outputs).numpy()


@pytest.mark.parametrize("scope", ["network", "case"])
@pytest.mark.parametrize("kind", ZOO)
def test_kept_results_change_nothing(kind, scope):
    """Equal to making every call in every pass, whatever the network does to its tensors."""
    network, x = built(kind), normal(5, 3, 8, 8)
    before = x.clone()
    expected = plain_passes(network, x, 6, scope)
    np.testing.assert_allclose(sample_logits(network, x, 6, scope), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)
    assert expected.std(axis=0).max() > 0.01


@contextmanager
def counted(network, cases):
    """Count how often the code of every module runs on so many cases."""
    calls, originals = Counter(), {}

    def run(name, forward, *args, **kwargs):
        first = args[0][0] if isinstance(args[0], list) else args[0]
        calls.update([name] if len(first) == cases else [])
        return forward(*args, **kwargs)

    for name, module in network.named_modules():
        originals[module] = module.forward
        module.forward = partial(run, name, module.forward)
    yield calls
    for module in originals:
        del module.forward


@pytest.mark.parametrize(
    ("kind", "once"),
    [
        (Residual, ["first", "norm", "second"]),
        (Shortcut, ["first", "norm"]),
        (Alias, ["first", "norm", "second"]),
        (Branches, ["first", "norm", "second"]),
        (Functional, ["first", "norm"]),
        (Scalars, ["first", "norm"]),
        (Crossroads, ["first", "norm"]),
        (InPlaceDropout, ["first"]),
        (Caches, ["first", "norm"]),
        (Routed, ["first", "norm", "second"]),
        (Strange, ["first"]),
        (Lists, ["first", "second"]),
        (Borrowed, ["first", "norm", "second"]),
    ],
)
def test_what_comes_before_the_first_dropout_runs_once(kind, once):
    network = built(kind)
    with counted(network, 5) as calls:
        sample_logits(network, normal(5, 3, 8, 8), 7)
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert calls["head"] == 7


@pytest.mark.parametrize("name", ["googlenet", "densenet121", "mobilenet_v2", "efficientnet_b0"])
def test_dropout_before_the_head_of_published_networks(name):
    """Every module but those behind the dropout runs once for 5 draws; DenseNet's is added."""
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    extra |= {"stochastic_depth_prob": 0.0} if name == "efficientnet_b0" else {}
    network = models.get_model(name, weights=None, num_classes=7, **extra).eval()
    if name == "densenet121":
        network = with_dropout(network, 0.2, layers=["classifier"])
    x = normal(4, 3, 48, 48)
    with counted(network, 4) as calls:
        samples = sample_logits(network, x, 5)
    again = {part for part, count in calls.items() if count == 5}
    assert again <= {"", "classifier", "classifier.0", "classifier.1", "dropout", "fc"} | {
        "classifier.dropout"
    }
    assert {count for part, count in calls.items() if part not in again} == {1}
    np.testing.assert_allclose(samples, plain_passes(network, x, 5), rtol=1e-3, atol=1e-4)
    assert not np.array_equal(samples[0], samples[1])


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_dropout_everywhere_in_published_networks(name):
    """Shared block inputs and residual sums: kept results against a loop that calls everything."""
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, num_classes=7, **extra).eval()
    x = normal(4, 3, 48, 48)
    inner = {"resnet18": ["layer2", "fc"], "googlenet": ["inception4b", "inception5a"]}[name]
    for layers in (None, inner):
        treated = with_dropout(network, 0.2, layers)
        expected = plain_passes(treated, x, 2, "case")
        found = sample_logits(treated, x, 2, "case")
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# Masks for training ---------------------------------------------------------------------------


def test_keyed_masks_depend_on_nothing_but_their_keys():
    network, x = (
        nn.Sequential(nn.Dropout(0.4), nn.Identity(), nn.Dropout1d(0.3)),
        torch.ones(6, 4, 5),
    )
    keyed, state = dropout.keyed_masks(seed=2), torch.get_rng_state()

    def masked(step, first, last):
        with keyed(step, first, last - first):
            return network(x[first:last])

    whole = masked(9, 0, 6)
    assert torch.equal(torch.cat([masked(9, 0, 1), masked(9, 1, 4), masked(9, 4, 6)]), whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(masked(8, 0, 6), whole)
    assert not torch.equal(whole[0], whole[1])
    with dropout.keyed_masks(seed=3)(9, 0, 6):
        assert not torch.equal(network(x), whole)
        assert torch.equal(network.eval()(x), x)
    torch.manual_seed(0)
    network.train()
    assert not torch.equal(network(x), whole)  # torch's own again


def test_keyed_masks_drop_as_often_as_they_say_and_let_gradients_through():
    x = torch.ones(500, 40, requires_grad=True)
    for inplace in (False, True):
        x.grad = None
        with dropout.keyed_masks()(0, 0, 500):
            y = nn.Dropout(0.25, inplace)(x * 1)
        y.sum().backward()
        assert abs((y == 0).double().mean().item() - 0.25) < 5.5 * (0.25 * 0.75 / 20_000) ** 0.5
        torch.testing.assert_close(y, (y != 0) / 0.75)
        torch.testing.assert_close(x.grad, y)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_in_half_precision_what_is_kept_is_rounded_once(kind):
    """1 / 0.98 rounded to bfloat16 would be off by 0.3 %, in every layer the same way."""
    torch.manual_seed(0)
    x = (1 + torch.rand(2000, 20, 1)).to(kind)
    layer, masks = nn.Dropout1d(0.02), dropout.keyed_masks()
    for step in (0, 1):
        with masks(step, 0, 2000):
            y = layer(x)
        assert y.dtype == kind
        kept = (y != 0).squeeze(-1)
        assert torch.equal(y[kept], (x[kept].float() / 0.98).to(kind))
        mean = (y[kept].double() / x[kept].double()).mean().item()
        assert mean == pytest.approx(1 / 0.98, abs=1e-3)


def test_keyed_masks_refuse_a_bad_seed():
    with pytest.raises(ValueError, match=r"^seed: "):
        dropout.keyed_masks(-1)


# The samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["network", "case"])
def test_moments_of_the_closed_form(scope):
    """Dropout before a linear layer: mean w·a + b, variance p/(1-p) Σ w² a².

    4,000 draws; six standard errors, a false alarm below 1e-6.
    """
    p, draws = 0.3, 4000
    network = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 2)).eval()
    x = normal(6, 3)
    x[1] = 1.2 * x[0]
    a = torch.relu(network[0](x)).detach().numpy()
    w = network[3].weight.detach().numpy()
    variance = p / (1 - p) * a**2 @ (w**2).T
    samples = sample_logits(network, x, draws, scope)
    mean_error = (variance / draws) ** 0.5
    assert (np.abs(samples.mean(axis=0) - network(x).detach().numpy()) < 6 * mean_error).all()
    kurtosis = stats.kurtosis(samples, axis=0)
    variance_error = variance * ((kurtosis + 2) / draws) ** 0.5
    assert (np.abs(samples.var(axis=0) - variance) < 6 * variance_error).all()
    # Two cases: with one mask for both, their logits vary together by p/(1-p) Σ w² a a'.
    joint = p / (1 - p) * (a[0] * a[1]) @ (w[0] ** 2)
    found = np.cov(samples[:, 0, 0], samples[:, 1, 0])[0, 1]
    spread = (variance[0, 0] * variance[1, 0] / draws) ** 0.5
    assert abs(found - (joint if scope == "network" else 0)) < 6 * spread
    assert joint > 12 * spread


def in_training(network, x, draws):
    """Passes with everything in training mode; as masks of cases are independent, all at once."""
    network = copy.deepcopy(network).train()
    with torch.no_grad():
        return network(x.repeat(draws, *(1,) * (x.ndim - 1))).unflatten(0, (draws, -1)).numpy()


def by_case(network, x, draws):
    """Samples in case scope, a hundred at once."""
    samples = sample_logits(network, x.repeat(100, *(1,) * (x.ndim - 1)), draws // 100, "case")
    return samples.reshape(draws, len(x), -1)


@pytest.mark.parametrize("mask_type", ["channel", "element"])
def test_same_distribution_as_passes_in_torch(mask_type):
    """Case scope against torch's own dropout: means and spreads of 3,000 passes each.

    Six standard errors and p > 1e-8: a false alarm in less than one of 1e6 seeds.
    """
    network = with_dropout(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten()), 0.4,
        mask_type=mask_type,
    ).eval()  # fmt: skip
    x = normal(4, 3, 5, 5)
    ours = by_case(network, x, 3000)
    theirs = in_training(network, x, 3000)
    error = (ours.var(axis=0) / 3000 + theirs.var(axis=0) / 3000) ** 0.5
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 6 * error).all()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.12)
    for i in range(4):
        assert stats.ks_2samp(ours[:, i, 0], theirs[:, i, 0]).pvalue > 1e-8


CONVOLUTIONAL = nn.Sequential(
    nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 5, 3), nn.Flatten(), nn.Linear(180, 4)
)  # fmt: skip


@pytest.mark.parametrize("mask_type", ["channel", "element"])
@pytest.mark.parametrize("scope", ["network", "case"])
def test_batches_and_parts_of_the_draws_change_nothing(scope, mask_type):
    network = with_dropout(CONVOLUTIONAL, 0.3, mask_type=mask_type).eval()
    x = normal(23, 3, 8, 8)
    whole = sample_logits(network, x, 6, scope, seed=4)
    for size in (1, 7, 22):
        part = sample_logits(network, x, 6, scope, seed=4, batch_size=size)
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-5)
    rest = sample_logits(network, x, 2, scope, seed=4, first=4)
    np.testing.assert_array_equal(rest, whole[4:])
    plain = sample_logits(network, x.to(memory_format=torch.channels_last), 6, scope, seed=4)
    np.testing.assert_allclose(plain, whole, rtol=1e-4, atol=1e-5)


def test_seeds_decide():
    network, x = with_dropout(CONVOLUTIONAL, 0.3).eval(), normal(2, 3, 8, 8)
    one, same, other = (sample_logits(network, x, 5, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not (one == other).all(axis=(1, 2)).any()


def test_a_global_seed_does_not():
    network, x = with_dropout(CONVOLUTIONAL, 0.3).eval(), normal(2, 3, 8, 8)
    torch.manual_seed(1)
    one, state = sample_logits(network, x, 5), torch.get_rng_state()
    torch.manual_seed(2)
    np.testing.assert_array_equal(sample_logits(network, x, 5), one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mask_type", ["channel", "element"])
def test_one_mask_for_all_cases_or_one_for_each(mask_type):
    """The same picture four times: one function of x, or four."""
    network = with_dropout(CONVOLUTIONAL, 0.3, mask_type=mask_type).eval()
    x = normal(1, 3, 8, 8).expand(4, 3, 8, 8)
    together = sample_logits(network, x, 5, "network")
    np.testing.assert_allclose(
        together, np.repeat(together[:, :1], 4, axis=1), rtol=1e-4, atol=1e-6
    )
    apart = sample_logits(network, x, 5, "case")
    assert np.abs(apart[:, 0] - apart[:, 1]).min() > 1e-6
    # Case 0 has the mask that all have in network scope: for one case there is no difference.
    np.testing.assert_allclose(apart[:, 0], together[:, 0], rtol=1e-4, atol=1e-6)


def masks_of(layer, shape, draws=3, scope="case"):
    """What a dropout layer does to ones."""
    return sample_outputs(nn.Sequential(layer, nn.Identity()), torch.ones(shape), draws, scope)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout1d(0.5), (6, 30, 4)),
        (nn.Dropout2d(0.5), (6, 30, 4, 3)),
        (nn.Dropout3d(0.5), (6, 30, 4, 3, 2)),
        (nn.Dropout(0.5), (6, 30, 4, 3)),
        (nn.Dropout(0.5), (6, 30)),
        (nn.Dropout(0.5), (6, 5, 30)),
    ],
)
def test_shapes_of_masks(layer, shape):
    """Whole channels or elements; 0 or 1/(1-p); alike for all cases in network scope only."""
    for scope in ("case", "network"):
        masks = masks_of(layer, shape, scope=scope)
        assert masks.shape == (3, *shape)
        assert set(np.unique(masks)) == {0, 2}
        assert (masks == masks[:, :1]).all() == (scope == "network")
        if isinstance(layer, nn.Dropout) and len(shape) > 2:
            inside = masks.reshape(3, *shape[:2], -1)
            assert (inside.min(axis=3) < inside.max(axis=3)).any(axis=2).all()
        elif len(shape) > 2:
            assert (masks == masks[(...,) + (slice(0, 1),) * (len(shape) - 2)]).all()


@pytest.mark.parametrize("scope", ["network", "case"])
def test_a_pass_by_hand(scope):
    """Masks times inputs of each layer, by matrix products; in network scope also W = M diag(z)."""
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    network, x = with_dropout(network, 0.4).eval(), normal(5, 3).numpy()
    for draw in (0, 3):
        first, second = pass_masks(network, x, draw, scope, seed=7)
        assert first.shape == ((1, 3) if scope == "network" else (5, 3))
        (m1, b1, m2, b2) = (value.detach().numpy() for value in network.parameters())
        by_hand = np.maximum((x * first) @ m1.T + b1, 0) * second @ m2.T + b2
        sampled = sample_logits(network, x, 1, scope, seed=7, first=draw)[0]
        np.testing.assert_allclose(by_hand, sampled, rtol=1e-5, atol=1e-6)
        if scope == "network":
            w1, w2 = m1 @ np.diag(first[0]), m2 @ np.diag(second[0])
            by_weights = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
            np.testing.assert_allclose(by_weights, sampled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [0.5, 0.1, 0.3, 0.003, 1 / 3, 0.9, 0.999])
def test_probability_is_exact(p):
    """Frequency in 4 million draws within 6 standard errors (a false alarm below 1e-8); a byte
    alone would miss 0.003."""
    network = nn.Sequential(nn.Dropout(p), nn.Identity())
    dropped = sample_outputs(network, torch.ones(40, 10_000), 10, "case", seed=5) == 0
    error = (p * (1 - p) / dropped.size) ** 0.5
    assert abs(dropped.mean() - p) < 6 * error
    by_case = dropped.mean(axis=(0, 2))
    assert stats.chisquare(dropped.sum(axis=(0, 2))).pvalue > 1e-8, by_case


def test_masks_of_draws_sites_and_cases_are_independent():
    """Correlations of 20 masks of 20,000 elements each, from two sites, five draws, two cases.

    Six standard errors of 190 correlations: a false alarm below 1e-6.
    """
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return torch.stack([self.drop(x), self.drop(x)], dim=1)

    masks = sample_outputs(Both(), torch.ones(2, 20_000), 5, "case").reshape(20, -1)
    assert len(network) == 2
    correlation = np.corrcoef(masks)[np.triu_indices(20, 1)]
    assert np.abs(correlation).max() < 6 / 20_000**0.5
    assert stats.kstest(correlation * 20_000**0.5, "norm").pvalue > 1e-8


def test_noise_that_is_not_dropout_is_drawn_anew_and_repeats():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 4)

        def forward(self, x):
            h = self.body(x)
            return h + torch.randn_like(h)

    network = Noisy()
    with counted(network, 5) as calls:
        one = sample_logits(network, normal(5, 3), 400)
    assert calls["body"] == 1
    np.testing.assert_array_equal(sample_logits(network, normal(5, 3), 400), one)
    np.testing.assert_allclose(one.std(axis=0), 1, atol=0.2)
    assert one.std(axis=0).mean() == pytest.approx(1, abs=0.045)  # 5.7 standard errors


def test_randomness_of_python_and_numpy_is_drawn_anew():
    class Coin(nn.Module):
        def __init__(self, toss):
            super().__init__()
            self.toss, self.body = toss, nn.Linear(3, 3)

        def forward(self, x):
            return self.body(x) if self.toss() < 0.5 else x

    for toss in (random.random, np.random.random):
        network = nn.Sequential(Coin(toss), nn.Dropout(0.001), nn.Linear(3, 1))
        samples = sample_logits(network, torch.ones(1, 3), 60)[:, 0, 0]
        assert len(np.unique(samples.round(5))) > 1


def test_numbers_come_in_the_type_of_the_weights():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    x = normal(5, 3)
    expected = sample_logits(network, x, 4)
    np.testing.assert_array_equal(sample_logits(network, x.double().numpy(), 4), expected)
    assert sample_logits(network.double(), x, 4).dtype == np.float32


def test_inference_mode_spares_the_stem_too():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).eval()
    with torch.inference_mode(), counted(network, 5) as calls:
        samples = sample_logits(network, normal(5, 3), 7)
    assert calls["0"] == 1
    np.testing.assert_array_equal(samples, sample_logits(network, normal(5, 3), 7))


def test_loose_tensors_do_not_make_the_stem_run_again():
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.body = torch.ones(3), nn.Linear(3, 3)

        def forward(self, x):
            return self.body(x - self.mean)

    network = nn.Sequential(Stem(), nn.Dropout(0.5))
    with counted(network, 4) as calls:
        sample_logits(network, normal(4, 3), 7)
    assert calls["0.body"] == 1


def test_bytes_are_pictures():
    network = with_dropout(CONVOLUTIONAL, 0.3).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    expected = sample_logits(network, images.astype(np.float32) / 255, 4)
    np.testing.assert_allclose(sample_logits(network, images, 4), expected, rtol=1e-5, atol=1e-6)


# No trace -------------------------------------------------------------------------------------


def state(network):
    return copy.deepcopy(
        (
            network.state_dict(),
            [(type(module), module.training, len(vars(module))) for module in network.modules()],
        )
    )


def same(one, other):
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.mark.parametrize("kind", ZOO)
def test_the_network_is_left_as_it_was(kind):
    network = built(kind)
    network.relu.train()  # a mode that is the caller's own
    before = state(network)
    sample_logits(network, normal(5, 3, 8, 8), 4)
    same(state(network), before)


def test_flags_come_back_after_an_exception():
    network = built(Residual)
    before, random = state(network), torch.get_rng_state()
    message = r"^x: the network does not take \(5, 7, 8, 8\) float32 \(.*to have 3 channels"
    with pytest.raises(ValueError, match=message):
        sample_logits(network, normal(5, 7, 8, 8))
    same(state(network), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert type(network.first) is nn.Conv2d


def test_batchnorm_in_training_mode_is_refused_and_undisturbed():
    network = built(Residual).train()
    before = state(network)
    message = "^network: BatchNorm2d 'norm' uses the statistics of the batch; call network.eval"
    with pytest.raises(ValueError, match=message):
        sample_logits(network, normal(5, 3, 8, 8))
    same(state(network), before)


def test_batchnorm_that_mixes_the_cases_is_refused():
    network = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Dropout(0.5)).eval()
    with pytest.raises(ValueError, match=r"BatchNorm1d '0' uses .* track running statistics"):
        sample_logits(network, normal(5, 3))


def test_other_buffers_that_change_are_put_back():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return x

    network = nn.Sequential(Counts(), nn.Dropout(0.5))
    sample_logits(network, normal(5, 3))
    assert network[0].calls.item() == 0


def test_buffers_that_are_replaced_are_put_back():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0)
            return x - self.mean

    network = nn.Sequential(Mean(), nn.Dropout(0.5))
    before = network[0].mean
    sample_logits(network, normal(5, 3))
    assert network[0].mean is before
    assert not before.any()


def test_nothing_is_kept_alive():
    """With the collector of cycles off, the tensors of a call are gone when it is over."""
    network, alive = built(Residual), []

    class Spy(nn.Module):
        def forward(self, x):
            alive.append(weakref.ref(x))
            return x + 0

    network = nn.Sequential(Spy(), network)
    gc.collect()
    gc.disable()
    try:
        sample_logits(network, normal(5, 3, 8, 8), 3)
        assert all(reference() is None for reference in alive)
    finally:
        gc.enable()


# Refusals -------------------------------------------------------------------------------------


class Silent(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=self.training)


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (nn.Linear(3, 2), r"nothing random acts in it.* it has no dropout, .*; with_dropout"),
        (nn.Sequential(nn.Dropout(0.0), nn.Linear(3, 2)), "nothing random acts.* only with p = 0"),
        (Silent().eval(), "Silent 'itself' draws at random in training.* its `training` to True"),
        (nn.Sequential(nn.Dropout(0.5), Silent()).eval(), "Silent '1' draws at random in training"),
    ],
)
@pytest.mark.parametrize("draws", [1, 5])
def test_a_network_in_which_nothing_random_acts(network, cause, draws):
    with pytest.raises(ValueError, match=f"^network: {cause}"):
        sample_logits(network, normal(4, 3), draws)


def test_equal_draws_by_chance_are_not_refused():
    """One unit and p = 0.001: fifty draws agree with probability .95."""
    network = nn.Sequential(nn.Dropout(0.001), nn.Linear(1, 2)).eval()
    samples = sample_logits(network, torch.ones(3, 1), 50, seed=1)
    assert (samples == samples[0]).all()
    assert sample_logits(network, torch.ones(3, 1), 1).shape == (1, 3, 2)


def test_a_first_batch_on_which_nothing_acts():
    """Zeros carry no mask; the other cases do."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).eval()
    x = torch.cat([torch.zeros(1, 3), torch.ones(1, 3)])
    samples = sample_logits(network, x, 20, batch_size=1)
    assert (samples[:, 0] == samples[0, 0]).all()
    assert samples[:, 1].std(axis=0).min() > 0


def test_outputs_that_are_not_finite():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    network[1].weight.data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"returns NaN or infinity; so does its 1\.weight"):
        sample_logits(network, torch.ones(4, 3))


def test_logits_of_classes_that_are_masked_out():
    """As `training.predict_logits` takes them."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    network[1].bias.data[0] = -torch.inf
    samples = sample_logits(network, torch.ones(4, 3))
    assert (samples[:, :, 0] == -np.inf).all()
    assert np.isfinite(samples[:, :, 1]).all()


@pytest.mark.parametrize("kind", [AssertionError, IndexError, RuntimeError, TypeError, ValueError])
def test_whatever_a_network_raises_on_pictures_names_them(kind):
    class Particular(nn.Dropout):
        def forward(self, x):
            raise kind("wants one channel")

    with pytest.raises(ValueError, match=r"x: the network does not take .* \(wants one channel\)"):
        sample_logits(Particular(), torch.ones(2, 3, 4, 4))


NETWORK = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)).eval()
nn.init.constant_(NETWORK[0].bias, 3)  # whatever the weights, no unit is dead


@given(SAMPLING)
def test_sampling_with_any_argument(given_):
    samples = finite_or_named(lambda: sample_logits(NETWORK, torch.ones(4, 3), **given_), [*given_])
    if samples is not None:
        assert samples.shape == (given_["draws"], 4, 2)
        assert np.isfinite(samples).all()


@given(GARBAGE)
def test_sampling_at_anything(x):
    class Any(nn.Module):
        def forward(self, x):
            return F.dropout(x.flatten(1).float(), 0.5, training=True)

    samples = finite_or_named(lambda: sample_logits(Any(), x, 3), ["x", "network"])
    assert samples is None or samples.shape[:2] == (3, len(x))


@pytest.mark.parametrize("network", [None, 3, np.sin, "resnet18"])
def test_networks_must_be_modules(network):
    for call in (lambda: with_dropout(network, 0.1), lambda: sample_logits(network, normal(2, 3))):
        with pytest.raises(ValueError, match=r"network: expected a torch.nn.Module"):
            call()


# Randomness that is not an nn.Dropout ---------------------------------------------------------


class Sequence(nn.Module):
    """(N, L, 4) -> (N, 2), through a layer that takes cases or positions first."""

    def __init__(self, layer, cases_first=True):
        super().__init__()
        self.layer, self.cases_first, self.head = layer, cases_first, nn.Linear(4, 2)

    def forward(self, x):
        h = self.layer(x if self.cases_first else x.transpose(0, 1))
        h = h[0] if isinstance(h, tuple) else h
        return self.head(h.mean(dim=1 if self.cases_first else 0))


class Attention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)


def transformer(**options):
    return nn.TransformerEncoderLayer(4, 2, 8, 0.2, **options)


class Depth(nn.Module):
    """Stochastic depth as people write it."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x):
        return x * self.noise(x) if self.training else x


OWN = torch.Generator()
HIDDEN = {
    "attention": (lambda: Sequence(Attention(4, 2, 0.3, batch_first=True)), "Attention 'layer'"),
    "transformer": (
        lambda: Sequence(transformer(batch_first=True)),
        "MultiheadAttention 'layer.self_attn'",
    ),
    "lstm": (lambda: Sequence(nn.LSTM(4, 4, 2, dropout=0.3, batch_first=True)), "LSTM 'layer'"),
    "gru": (lambda: Sequence(nn.GRU(4, 4, 2, dropout=0.3)), "GRU 'layer'"),
    "rnn": (lambda: Sequence(nn.RNN(4, 4, 2, dropout=0.3)), "RNN 'layer'"),
    "alpha": (lambda: Sequence(nn.AlphaDropout(0.3)), "AlphaDropout 'layer'"),
    "features": (lambda: Sequence(nn.FeatureAlphaDropout(0.3)), "FeatureAlphaDropout 'layer'"),
    "rrelu": (lambda: Sequence(nn.RReLU()), "RReLU 'layer'"),
    "depth": (lambda: Sequence(ops.StochasticDepth(0.3, "row")), "StochasticDepth 'layer'"),
    "block": (
        lambda: nn.Sequential(ops.DropBlock2d(0.3, 3), nn.Flatten(), nn.Linear(20, 2)),
        "DropBlock2d '0'",
    ),
    "rand": (lambda: Sequence(Depth(lambda x: torch.rand(len(x), 1, 1) < 0.7)), "Depth 'layer'"),
    "own": (lambda: Sequence(Depth(lambda x: torch.rand(1, generator=OWN))), "Depth 'layer'"),
    "bernoulli": (
        lambda: Sequence(Depth(lambda x: x.new_empty(len(x), 1, 1).bernoulli_(0.7))),
        "Depth 'layer'",
    ),
    "torch": (
        lambda: Sequence(Depth(lambda x: torch.dropout(torch.ones_like(x), 0.5, True))),
        "Depth 'layer'",
    ),
    "function": (lambda: Sequence(Depth(lambda x: F.dropout(x, 0.5))), "Depth 'layer'"),
    "python": (lambda: Sequence(Depth(lambda x: random.random() < 0.7)), "Depth 'layer'"),
    "numpy": (lambda: Sequence(Depth(lambda x: np.random.random() < 0.7)), "Depth 'layer'"),  # noqa: NPY002
}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_training_alone_draws_is_refused_by_name(kind, alone):
    """By itself and beside a dropout layer, without a trace; what is switched on is drawn.

    60 draws: all alike with probability .7^60 = 5e-10 at most.
    """
    built, name = HIDDEN[kind]
    network = built() if alone else nn.Sequential(built(), nn.Dropout(0.5), nn.Linear(2, 2))
    name = name if alone else re.sub("'(.*)'", r"'0.\1'", name)
    x = normal(6, 1, 5, 4) if kind == "block" else normal(6, 5, 4)
    before = state(network.eval())
    with pytest.raises(ValueError, match=rf"^network: {name} draws at random in training mode"):
        sample_logits(network, x)
    same(state(network), before)
    network.get_submodule(name.split("'")[1]).training = True
    assert sample_logits(network, x, 60, "case").std(axis=0).min() > 0


def test_several_parts_are_named():
    network = nn.Sequential(nn.TransformerEncoder(transformer(batch_first=True), 2), nn.Flatten())
    names = "MultiheadAttention '0.layers.0.self_attn', MultiheadAttention '0.layers.1.self_attn'"
    with pytest.raises(ValueError, match=f"^network: {names} draws at random"):
        sample_logits(network.eval(), normal(6, 5, 4))


def test_recurrent_layers_without_dropout_are_sampled():
    network = nn.Sequential(Sequence(nn.LSTM(4, 4, batch_first=True)), nn.Dropout(0.5)).eval()
    assert sample_logits(network, normal(6, 5, 4), 60).std(axis=0).min() > 0


def test_noise_of_an_own_generator_before_the_dropout_is_drawn_anew():
    class Noise(nn.Module):
        def forward(self, x):
            return x * torch.rand(1, generator=OWN)

    samples = sample_outputs(nn.Sequential(Noise(), nn.Dropout(1e-9)), torch.ones(3, 2), 10)
    assert len(np.unique(samples)) == 10


def test_what_is_switched_on_by_hand_is_sampled():
    """Stochastic depth of half the rows before a linear layer: variance (w·x)²; with p = 0, none.

    2,000 draws of values 0 or 2 w·x: six standard errors of their frequency, 2e-8 for eight.
    """
    network = nn.Sequential(ops.StochasticDepth(0.5, "row"), nn.Linear(3, 2, bias=False)).eval()
    x, draws = normal(4, 3), 2000
    network[0].training = True
    samples, full = sample_logits(network, x, draws), 2 * network[1](x).detach().numpy()
    on = np.isclose(samples, full, atol=1e-5)
    assert (on | (samples == 0)).all()
    assert (np.abs(on.mean(axis=0) - 0.5) < 6 * 0.5 / draws**0.5).all()
    network[0].training, network[0].p = False, 0.0
    with pytest.raises(ValueError, match="it has no dropout"):
        sample_logits(network, x)


def test_attention_without_dropout_of_its_own_is_sampled():
    """A layer of a transformer has four dropouts; three are layers.  Against a plain loop.

    1,500 draws of each: six standard errors of means and of log spreads.
    """
    network, x, draws = Sequence(transformer(batch_first=True)).eval(), normal(3, 5, 4), 1500
    network.layer.self_attn.dropout = 0.0
    ours, theirs = by_case(network, x, draws), in_training(network, x, draws)
    error = ((ours.var(axis=0) + theirs.var(axis=0)) / draws) ** 0.5
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 6 * error).all()
    kurtosis = np.maximum(stats.kurtosis(ours, axis=0), stats.kurtosis(theirs, axis=0))
    error = ((kurtosis + 2) / draws / 2) ** 0.5
    assert (np.abs(np.log(ours.std(axis=0) / theirs.std(axis=0))) < 6 * error).all()


@pytest.mark.parametrize("cases", [1, 2, 3, 10])
def test_positions_before_cases_are_refused(cases):
    network = Sequence(nn.Dropout(0.2), cases_first=False).eval()
    message = rf"network: dropout acts on \(5, {cases}, 4\), whose first axis should be the {cases}"
    with pytest.raises(ValueError, match=message):
        sample_logits(network, normal(cases, 5, 4))


@pytest.mark.parametrize("cases", [5, 7])
def test_inputs_with_positions_first_are_refused(cases):
    class Turned(Sequence):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    network = nn.Sequential(Turned(nn.LSTM(4, 4), cases_first=False), nn.Dropout(0.5)).eval()
    with pytest.raises(ValueError, match="put them first everywhere"):
        sample_logits(network, normal(5, cases, 4))  # of five positions


@pytest.mark.parametrize("cases", [1, 2, 3, 5, 10])
def test_positions_first_are_no_matter_where_no_dropout_acts(cases):
    """An LSTM with positions first, dropout behind it: mean w·h, variance p/(1-p) Σ w² h²."""
    network = nn.Sequential(Sequence(nn.LSTM(4, 4), False), nn.Dropout(0.5), nn.Linear(2, 1)).eval()
    x, draws = normal(cases, 5, 4), 1000
    samples = sample_logits(network, x, draws, "case")[..., 0]
    h, w = network[0](x).detach().numpy(), network[2].weight.detach().numpy()[0]
    kept = network[2].bias.item() + np.stack([0 * h[:, 0], 2 * w[0] * h[:, 0], 2 * w[1] * h[:, 1]])
    values = np.concatenate([kept, kept[1:2] + kept[2:] - kept[:1]])  # one for each of four masks
    distance = np.abs(samples[:, None] - values).min(axis=1)
    assert distance.max() < 1e-5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: {"logits": z, "hidden": z[:, None]},
        lambda z: SimpleNamespace(logits=z, hidden_states=None),
        lambda z: z[:, :, None, None],
    ],
)
def test_logits_are_found_as_by_predict_logits(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = NETWORK

        def forward(self, x):
            return wrap(self.network(x))

    x = normal(4, 3)
    expected = sample_logits(NETWORK, x, 3)
    np.testing.assert_array_equal(sample_logits(Wrapped().eval(), x, 3), expected)
    with pytest.raises(ValueError, match="must return logits"):
        sample_logits(nn.Sequential(NETWORK, Classes()).eval(), x)


class Classes(nn.Module):
    def forward(self, x):
        return x.argmax(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("x", "message"), [(torch.ones(4, 5), r"x: the network does not take \(4, 5\) float32")]
)
def test_inputs_that_networks_do_not_take(x, message):
    with pytest.raises(ValueError, match=message):
        sample_logits(NETWORK, x)


class Squeezed(nn.Module):
    """Loses the axis of the cases where there is one case."""

    def __init__(self):
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.drop(x[..., None].squeeze()))


@pytest.mark.parametrize("cases", [2, 3, 4])
def test_networks_that_cannot_take_one_case(cases):
    assert sample_logits(Squeezed().eval(), normal(cases, 3), 5).shape == (5, cases, 2)


# Compiled, scripted and exported networks; types of numbers -----------------------------------


@pytest.mark.parametrize("how", ["compiled", "compiled in place", "compiled part", "symbolic"])
def test_compiled_networks_are_sampled_as_what_they_were_made_from(how):
    network, x = copy.deepcopy(NETWORK), normal(6, 3)  # slow: torch.compile takes long to import
    expected = sample_logits(network, x, 5)
    if how == "compiled":
        network = torch.compile(network)
    elif how == "compiled in place":
        network.compile()
    elif how == "compiled part":
        network[2] = torch.compile(network[2])
    else:
        network = torch.fx.symbolic_trace(network)
    np.testing.assert_array_equal(sample_logits(network, x, 5), expected)
    if how != "compiled part":
        treated = with_dropout(network, 0.3)
        treated.load_state_dict(network.state_dict())
        expected = sample_logits(with_dropout(NETWORK, 0.3), x, 5)
        np.testing.assert_array_equal(sample_logits(treated, x, 5), expected)


@pytest.mark.filterwarnings("ignore")
def test_scripted_traced_and_exported_networks_are_refused():
    x = normal(4, 3)
    for fixed in (torch.jit.script(NETWORK), torch.jit.trace(NETWORK, x)):
        for network, name in ((fixed, "itself"), (nn.Sequential(fixed, nn.Dropout(0.5)), "0")):
            with pytest.raises(ValueError, match=f"^network: .* '{name}' is scripted or traced"):
                sample_logits(network, x)
    with pytest.raises(ValueError, match=r"network: .* from before it was traced or exported"):
        sample_logits(torch.export.export(NETWORK, (x,)).module(), x)
    with pytest.raises(ValueError, match=r"network: .* inside RecursiveScriptModule .* scripted"):
        with_dropout(torch.jit.script(NETWORK), 0.1)


@pytest.mark.filterwarnings("ignore")
def test_exported_networks_without_dropout_may_be_a_part():
    x = normal(4, 3)
    stem = nn.Sequential(nn.Linear(3, 5), nn.ReLU()).eval()
    exported = torch.export.export(stem, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 2))
    expected = sample_logits(nn.Sequential(stem, head), x, 4)
    found = sample_logits(nn.Sequential(exported.module(), head), x, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_whole_numbers_where_the_network_takes_others(kind):
    for network in (NETWORK, nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))):
        message = rf"^x: the network does not take \(4, 3\) {str(kind)[6:]} .* convert it to floats"
        with pytest.raises(ValueError, match=message):
            sample_logits(network, torch.ones(4, 3).to(kind))


def test_whole_numbers_are_what_embeddings_take():
    network = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 2))
    tokens = torch.tensor([[0, 1], [2, 3], [4, 0]])
    expected = sample_logits(network[2:], network[:2](tokens), 4)
    np.testing.assert_array_equal(sample_logits(network, tokens, 4), expected)


NORMS = {
    "weight": nn.utils.weight_norm,
    "weight, parametrised": nn.utils.parametrizations.weight_norm,
    "spectral": nn.utils.spectral_norm,
    "spectral, parametrised": nn.utils.parametrizations.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NORMS)
def test_layers_whose_weight_is_computed(kind):
    """After a step of training, by masks of the inputs of what the weights have become."""
    network, x = (
        nn.Sequential(NORMS[kind](nn.Linear(3, 8)), nn.ReLU(), nn.Linear(8, 2)),
        normal(5, 3),
    )
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    network(x).square().sum().backward()
    optimiser.step()
    before = network(x).detach()
    network.eval()
    treated = with_dropout(network, 0.4)
    treated.load_state_dict(network.state_dict())
    plain = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    network(x)
    for mine, theirs in zip(plain[::2], network[::2], strict=True):
        mine.weight.data, mine.bias.data = theirs.weight.data.clone(), theirs.bias.data.clone()
    expected = sample_logits(with_dropout(plain, 0.4), x, 6)
    np.testing.assert_allclose(sample_logits(treated, x, 6), expected, rtol=1e-5, atol=1e-6)
    assert before.shape == (5, 2)
    treated.train()(x).sum().backward()
    assert all(weight.grad is not None for weight in treated.parameters())


# with_dropout ---------------------------------------------------------------------------------


def treated_layers(network):
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    modules = network.named_modules()
    return [name for name, m in modules if isinstance(m, kinds) and hasattr(m, "dropout")]


def masking(network):
    """The dropout layers that `with_dropout` put before the others, in their order."""
    return [network.get_submodule(name).dropout for name in treated_layers(network)]


def test_masks_go_before_every_weight_layer():
    """GoogLeNet: 57 convolutions (Szegedy et al. 2015: 57 with those of 1x1) and a linear layer
    behind its own dropout, which is not doubled."""
    network = models.googlenet(weights=None, aux_logits=False, init_weights=False)
    before = state(network)
    treated = with_dropout(network, 0.1)
    same(state(network), before)
    convolutions = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    assert treated_layers(treated) == convolutions
    assert len(convolutions) == 57
    assert treated.dropout.p == 0.2
    assert list(treated.state_dict()) == list(network.state_dict())
    assert {type(m) for m in masking(treated)} == {nn.Dropout2d}


def test_its_own_arithmetic():
    """The input of the layer is what is masked: a linear layer of ones counts what was kept."""
    layer = nn.Linear(8, 1, bias=False)
    layer.weight.data.fill_(1)
    counts = sample_logits(with_dropout(layer, 0.5), torch.ones(1, 8), 2000)[:, 0, 0] / 2
    observed = np.bincount(counts.round().astype(int), minlength=9)
    assert stats.chisquare(observed, 2000 * stats.binom.pmf(range(9), 8, 0.5)).pvalue > 1e-8


def test_chosen_layers_and_kinds_of_mask():
    network = nn.Sequential(CONVOLUTIONAL, nn.ReLU(), nn.Linear(4, 2))
    assert treated_layers(with_dropout(network, 0.1)) == ["0.0", "0.2", "0.4", "2"]
    assert treated_layers(with_dropout(network, 0.1, ["0"])) == ["0.0", "0.2", "0.4"]
    assert treated_layers(with_dropout(network, 0.1, ["2", "0.2"])) == ["0.2", "2"]
    kinds = [type(m) for m in masking(with_dropout(network, 0.1))]
    assert kinds == [nn.Dropout2d, nn.Dropout2d, nn.Dropout, nn.Dropout]
    by_element = masking(with_dropout(network, 0.1, mask_type="element"))
    assert {type(m) for m in by_element} == {nn.Dropout}
    volume = with_dropout(nn.Sequential(nn.Conv1d(1, 1, 1), nn.ConvTranspose3d(1, 1, 1)), 0.1)
    assert [type(m.dropout) for m in volume] == [nn.Dropout1d, nn.Dropout3d]


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 2)),
        nn.Sequential(nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(4, 2)),
    ],
)
def test_dropout_that_is_there_is_not_doubled(head):
    treated = with_dropout(nn.Sequential(nn.Linear(3, 4), head), 0.1)
    assert treated_layers(treated) == ["0"]
    assert next(m.p for m in treated.modules() if isinstance(m, nn.Dropout)) == 0.1


def test_kinds_of_convolution_keep_their_kind_of_mask():
    class Own(nn.Conv2d):
        pass

    treated = with_dropout(nn.Sequential(Own(3, 4, 1)), 0.1)
    assert type(treated[0].dropout) is nn.Dropout2d


def test_dropout_that_drops_nothing_or_acts_elsewhere_is_no_dropout_before():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0), nn.Linear(4, 2))
    assert treated_layers(with_dropout(network, 0.1)) == ["0", "2"]

    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = Residual()
            self.b = nn.Linear(3, 4)

    assert "b" in treated_layers(with_dropout(Parallel(), 0.1))


def test_dropout_after_other_layers_is_no_dropout_before():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.ReLU(), nn.Linear(4, 2))
    assert treated_layers(with_dropout(network, 0.1)) == ["0", "3"]


def test_twice_is_once():
    once = with_dropout(CONVOLUTIONAL, 0.1)
    assert treated_layers(with_dropout(once, 0.4)) == ["0", "2", "4"]
    twice = with_dropout(once, 0.4)
    assert [m.p for m in masking(twice)] == [0.1, 0.1, 0.1]


def test_copies_train_save_and_load():
    network = with_dropout(CONVOLUTIONAL, 0.3)
    assert network.training
    assert not with_dropout(copy.deepcopy(CONVOLUTIONAL).eval(), 0.3)[0].dropout.training
    x = normal(2, 3, 8, 8)
    assert not torch.equal(network(x), network(x))
    network.eval()
    torch.testing.assert_close(network(x), CONVOLUTIONAL(x))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(sample_logits(copied, x, 3), sample_logits(network, x, 3))
    plain = copy.deepcopy(CONVOLUTIONAL)
    plain.load_state_dict(network.state_dict())


@pytest.mark.parametrize("p", [-0.1, 1.0, 1, 1.5, np.nan, "0.5", None, True, 1j, [0.5]])
def test_probabilities_out_of_range(p):
    with pytest.raises(ValueError, match="p: must be a number from 0 to below 1"):
        with_dropout(CONVOLUTIONAL, p)


@pytest.mark.parametrize(
    ("network", "layers", "message"),
    [
        (CONVOLUTIONAL, ["9"], "layers: the network has no part '9'"),
        (CONVOLUTIONAL, ["1"], "layers: there is no convolution and no linear layer"),
        (CONVOLUTIONAL, "head", "layers: the network has no part 'h'; expected a list of names"),
        (nn.ReLU(), None, "layers: there is no convolution and no linear layer"),
        (nn.MultiheadAttention(4, 2), None, "network: the inputs of the weights inside Multihead"),
        (nn.LSTM(4, 2), None, "network: the inputs of the weights inside LSTM"),
    ],
)
def test_layers_that_cannot_be_treated(network, layers, message):
    with pytest.raises(ValueError, match=message):
        with_dropout(network, 0.1, layers)


def test_masks_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="mask_type: must be one of"):
        with_dropout(CONVOLUTIONAL, 0.1, mask_type="row")


def test_inputs_given_by_name_are_masked():
    layer = with_dropout(nn.Linear(3, 2), 0.9).train()
    assert not torch.equal(layer(input=torch.ones(9, 3)), layer(input=torch.ones(9, 3)))


def test_the_old_name_of_mask_type_works_and_warns():
    with pytest.warns(DeprecationWarning, match="masks= is now mask_type="):
        treated = with_dropout(CONVOLUTIONAL, 0.1, masks="element")
    assert type(treated[0].dropout) is nn.Dropout


@pytest.mark.parametrize("scope", ["network", "case"])
def test_threads_change_no_mask(scope, monkeypatch):
    """Large masks are drawn by several threads, each block from its own place of the stream."""
    network, x = nn.Sequential(nn.Dropout(0.3), nn.Identity()), torch.ones(5, 40, 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = sample_outputs(network, x, 2, scope)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(dropout, "_LARGE", 0)
    np.testing.assert_array_equal(sample_outputs(network, x, 2, scope), alone)


class PositionsFirst(nn.Module):
    """(N, S, E) -> (N, E), with S positions before the N cases where dropout acts."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x.transpose(0, 1)).transpose(0, 1).sum(dim=1)


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 7])
def test_positions_are_not_taken_for_cases(positions):
    for cases in (2, 3, positions):
        x = torch.ones(cases, positions, 5)
        with pytest.raises(ValueError, match="put them first"):
            sample_logits(PositionsFirst(), x, draws=3)
