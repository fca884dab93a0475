"""The training loop finds minima known in closed form, and leaves no wreck when it cannot."""

import math
import sys
import tracemalloc
from dataclasses import asdict, replace
from functools import partial, wraps
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from strategies import GARBAGE, arguments, finite_or_named
from torch import nn

from mcunc import training
from mcunc.dropout import sample_logits
from mcunc.linear import fit_least_squares
from mcunc.networks import cifar_resnet, lenet5
from mcunc.training import (
    Recipe,
    crop_and_flip,
    fit_full_batch,
    fit_minibatches,
    predict_logits,
    random_resized_crop,
)

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
    nn.init.zeros_(network.weight)  # now and then Adam is still restless from a random start
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
        network, square, 3, 0.25, "sgd", evaluate=lambda net: net.at[0]
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
    assert network.at.isfinite().all()


def test_a_frozen_parameter_stays():
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    before = network.bias.clone()
    fit_full_batch(network, lambda net: net(torch.ones(3, 2)).square().mean(), 5, 0.1)
    assert torch.equal(network.bias, before)


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="network: has no parameters"):
        fit_full_batch(nn.Tanh(), square)
    with pytest.raises(ValueError, match=r"network: expected a torch\.nn\.Module"):
        fit_full_batch("network", square)


# Minibatches ----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (37, 3, 8, 8), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 37)
RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05)


class Killed(BaseException):
    """What stands in for the signal that ends a run."""


def normed(seed=0):
    return cifar_resnet(8, classes=4, seed=seed)


def dropping(seed=0):
    """Batch normalisation and both kinds of dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 4),
        )  # fmt: skip


def linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def fit(network, checkpoint=None, recipe=RECIPE, augment=crop_and_flip, **options):
    return fit_minibatches(
        network, IMAGES, LABELS, recipe, augment, checkpoint=checkpoint, **options
    )


def accuracy(network):
    assert not network.training
    return {"val_accuracy": (predict_logits(network, IMAGES).argmax(1) == LABELS).mean()}


def untimed(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same(left, right):
    """Nested containers equal to the last bit."""
    assert type(left) is type(right)
    if torch.is_tensor(left):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def after(calls, action):
    """A function that does `action` at the call of that number, counted from 1."""
    count = 0

    def count_down(*_):
        nonlocal count
        count += 1
        if count == calls:
            action()

    return count_down


def kill():
    raise Killed


@pytest.mark.parametrize("build", [normed, dropping])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
@pytest.mark.parametrize("when", ["within", "before saving", "after saving"])
def test_a_killed_run_resumes_to_the_same_bits(build, epoch, when, tmp_path, monkeypatch):
    """Weights, running statistics, momenta and history; the fresh network starts elsewhere."""
    whole = build()
    history = fit(whole, tmp_path / "whole.pt", evaluate=accuracy)

    tick = after({"within": 3 * epoch - 1}.get(when, epoch), kill)

    @wraps(crop_and_flip)  # its name too
    def augment(images, generator):
        if when == "within":
            tick()
        return crop_and_flip(images, generator)

    def evaluate(network):
        if when == "before saving":
            tick()
        return accuracy(network)

    save = training.checkpoints.save

    def saving(*run):
        save(*run)
        if when == "after saving":
            tick()

    monkeypatch.setattr(training.checkpoints, "save", saving)
    with pytest.raises(Killed):
        fit(build(), tmp_path / "killed.pt", augment=augment, evaluate=evaluate)
    torch.rand(3)  # what the global generator did meanwhile makes no difference
    network = build(seed=99)
    done = epoch if when == "after saving" else epoch - 1
    if not done:
        network.load_state_dict(build().state_dict())  # nothing was saved: begin as before
    resumed = fit(network, tmp_path / "killed.pt", evaluate=accuracy)
    assert untimed(resumed) == untimed(history)
    assert_same(network.state_dict(), whole.state_dict())
    one, other = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert_same(one["optimiser"], other["optimiser"])
    assert one["optimiser"]["state"]
    assert_same(one["network"], other["network"])
    assert not network.training


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    first, second = normed(), normed(seed=1)
    history = fit(first, tmp_path / "run.pt")
    content = (tmp_path / "run.pt").read_bytes()
    assert fit(second, tmp_path / "run.pt") == history
    assert_same(first.state_dict(), second.state_dict())
    assert (tmp_path / "run.pt").read_bytes() == content


def test_the_meaning_of_a_checkpoint_is_pinned(tmp_path):
    """Written out a second time, as a run made long ago did it, and equal to the last bit.

    Epoch e of seed s draws order and augmentation from one generator, and torch's own numbers
    from another, seeded by the two words of numpy's SeedSequence((s, e)).
    """
    network = dropping(seed=3)
    fit(network, tmp_path / "run.pt", seed=5, recipe=replace(RECIPE, epochs=2))

    other = dropping(seed=3).to(memory_format=torch.channels_last).train()
    sgd = torch.optim.SGD(
        other.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    state = torch.get_rng_state()
    for epoch in range(2):
        order, noise = np.random.SeedSequence((5, epoch)).generate_state(2)
        generator = torch.Generator().manual_seed(int(order))
        torch.manual_seed(int(noise))
        sgd.param_groups[0]["lr"] = 0.05 if epoch == 0 else 0.05 * 0.1
        for chosen in torch.randperm(37, generator=generator).split(16):
            batch = torch.from_numpy(IMAGES)[chosen]
            top, left = torch.randint(0, 9, (2, len(chosen), 1), generator=generator)
            mirrored = torch.rand(len(chosen), 1, generator=generator) < 0.5
            padded = nn.functional.pad(batch, (4, 4, 4, 4))
            batch = torch.stack(
                [
                    picture[:, t : t + 8, x : x + 8].flip(2)
                    if m
                    else picture[:, t : t + 8, x : x + 8]
                    for picture, t, x, m in zip(padded, top, left, mirrored, strict=True)
                ]
            )
            x = batch.contiguous(memory_format=torch.channels_last).float() / 255
            loss = nn.functional.cross_entropy(other(x), torch.from_numpy(LABELS)[chosen])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    torch.set_rng_state(state)

    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert list(saved) == ["run", "history", "network", "optimiser"]
    assert saved["run"] == {
        "recipe": {
            "epochs": 2, "batch_size": 16, "learning_rate": 0.05, "lr_milestones": (0.5, 0.75),
            "momentum": 0.9, "weight_decay": 0.0001, "freeze_batchnorm": False,
            "half_resolution_fraction": 0.0,
        },
        "seed": 5,
        "data": sha256(IMAGES.tobytes() + LABELS.astype(np.int64).tobytes()).hexdigest(),
        "augment": "mcunc.training.crop_and_flip",
        "masks": False,
        "setting": None,
    }  # fmt: skip
    assert [list(row) for row in saved["history"]] == 2 * [
        ["epoch", "train_loss", "train_accuracy", "seconds"]
    ]
    assert_same(dict(saved["network"]), dict(other.state_dict()))
    assert_same(saved["optimiser"]["state"], sgd.state_dict()["state"])


def test_history_says_what_happened():
    """Rate 1e-30 moves nothing, so that the network before and after says the same of a batch."""
    network = linear()
    before = predict_logits(network, IMAGES).astype(np.float64)
    loss = -before[np.arange(37), LABELS] + np.log(np.exp(before).sum(axis=1))
    still = Recipe(epochs=2, batch_size=16, learning_rate=1e-30)
    history = fit(
        network, recipe=still, augment=None, evaluate=lambda _: {"a": np.float32(0.5), "b": True}
    )
    assert [list(row) for row in history] == 2 * [
        ["epoch", "train_loss", "train_accuracy", "a", "b", "seconds"]
    ]
    assert [row["epoch"] for row in history] == [1, 2]
    for row in history:
        assert_allclose(row["train_loss"], loss.mean(), rtol=1e-6)
        assert row["train_accuracy"] == (before.argmax(axis=1) == LABELS).mean()
        assert (row["a"], row["b"]) == (0.5, 1.0)
        assert all(type(value) in (int, float) for value in row.values())
        assert row["seconds"] > 0


def test_numpy_s_numbers_do_not_spoil_a_checkpoint(tmp_path):
    """weights_only reads no numpy scalars: recipe, seed and what evaluate says are converted."""
    recipe = Recipe(
        np.int64(2), np.int32(16), np.float64(0.05), [np.float64(0.5)], np.float32(0.5), np.int8(0)
    )
    assert asdict(recipe) == {
        "epochs": 2, "batch_size": 16, "learning_rate": 0.05, "lr_milestones": (0.5,),
        "momentum": 0.5, "weight_decay": 0.0, "freeze_batchnorm": False,
        "half_resolution_fraction": 0.0,
    }  # fmt: skip
    options = {"recipe": recipe, "seed": np.int64(3), "evaluate": lambda _: {"x": np.float64(1.5)}}
    history = fit(linear(), tmp_path / "run.pt", **options)
    assert fit(linear(), tmp_path / "run.pt", **options) == history


# Checkpoints that do not fit ------------------------------------------------------------------


def other_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": replace(RECIPE, epochs=9)}, "recipe"),
        ({"recipe": replace(RECIPE, weight_decay=0.0)}, "recipe"),
        ({"recipe": replace(RECIPE, lr_milestones=())}, "recipe"),
        ({"seed": 1}, "seed"),
        ({"setting": {"p": 0.1}}, "setting"),
        ({"images": IMAGES[::-1]}, "data"),
        ({"images": 255 - IMAGES}, "data"),
        ({"labels": LABELS[::-1]}, "data"),
        ({"network": other_network()}, "network"),
        ({"network": nn.Sequential(nn.Flatten(), nn.Linear(192, 5))}, "network"),
        ({"network": linear().double()}, "network"),
        ({"network": nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(192, 4))}, "network"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays(change, named, tmp_path):
    path = tmp_path / "run.pt"
    fit(linear(), path)
    content = path.read_bytes()
    given_ = {"network": linear(7), "images": IMAGES, "labels": LABELS, "recipe": RECIPE} | change
    before = {key: value.clone() for key, value in given_["network"].state_dict().items()}
    with pytest.raises(ValueError, match=rf"^checkpoint: .*run\.pt is of another {named}.*delete"):
        fit_minibatches(**given_, augment=crop_and_flip, checkpoint=path)
    assert path.read_bytes() == content
    assert_same(before, dict(given_["network"].state_dict()))


@pytest.mark.parametrize("name", ["run.pt", "run", "run-0.5", "run.part"])
def test_a_kill_while_writing_leaves_the_old_checkpoint_whole(name, tmp_path, monkeypatch):
    """Half a file is written in epoch 3, then the process dies; the run goes on from epoch 2."""
    path = tmp_path / "folder" / name
    whole = dropping()
    history = fit(whole)
    write, tick = Path.write_bytes, after(3, kill)

    def torn(file, content):
        try:
            tick()
        except Killed:
            write(file, content[: len(content) // 2])
            raise
        write(file, content)

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(Killed):
        fit(dropping(), path)
    assert len(torch.load(path, weights_only=True)["history"]) == 2
    network = dropping(9)
    assert untimed(fit(network, path)) == untimed(history)
    assert_same(network.state_dict(), whole.state_dict())
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_runs_beside_one_another_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    """Names that differ after a dot only."""
    seen = set()

    write = Path.write_bytes

    def writing(file, content):
        write(file, content)
        seen.update(file.name for file in tmp_path.iterdir())

    monkeypatch.setattr(Path, "write_bytes", writing)
    for name in ("rate-0.5", "rate-0.25"):
        fit(linear(), tmp_path / name)
    parts = {name.rpartition(".")[0].rpartition(".")[0] for name in seen if name.endswith(".part")}
    assert parts == {"rate-0.5", "rate-0.25"}


# The steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.5, 0.01)]
)
def test_three_steps_by_hand(momentum, weight_decay):
    """Sutskever et al. (2013) in torch's form: v = m·v + g, θ -= r·(g + m·v), g with decay.

    A linear softmax classifier, whose gradient is (p - y) xᵀ / N, with all pictures in a batch.
    """
    rate = 0.05
    network = linear()
    x = IMAGES.reshape(37, -1) / 255
    weights = np.hstack([network[1].weight.detach().numpy(), network[1].bias.detach()[:, None]])
    weights, velocity = weights.astype(np.float64), 0.0
    inputs = np.hstack([x, np.ones((37, 1))])
    for _ in range(3):
        scores = np.exp(inputs @ weights.T)
        probs = scores / scores.sum(axis=1, keepdims=True)
        gradient = (probs - np.eye(4)[LABELS]).T @ inputs / 37 + weight_decay * weights
        velocity = momentum * velocity + gradient
        weights = weights - rate * (gradient + momentum * velocity)
    recipe = Recipe(3, 64, rate, (), momentum, weight_decay)
    fit(network, recipe=recipe, augment=None)
    assert_allclose(network[1].weight.detach(), weights[:, :-1], rtol=1e-4, atol=1e-6)
    assert_allclose(network[1].bias.detach(), weights[:, -1], rtol=1e-4, atol=1e-6)


def test_the_last_batch_may_be_smaller_and_every_picture_comes_once_an_epoch():
    seen = []

    def augment(images, generator):
        seen.append(images.clone())
        return images

    fit(linear(), recipe=replace(RECIPE, epochs=2), augment=augment)
    assert [len(batch) for batch in seen] == 2 * [16, 16, 5]
    orders = []
    for epoch in (torch.cat(seen[:3]).numpy(), torch.cat(seen[3:]).numpy()):
        order = [int(np.flatnonzero((x == IMAGES).all(axis=(1, 2, 3)))[0]) for x in epoch]
        assert sorted(order) == list(range(37))
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("epochs", "lr_milestones", "rates"),
    [
        (4, (0.5, 0.75), [1, 1, 0.1, 0.01]),
        (30, (0.5, 0.75), 15 * [1] + 7 * [0.1] + 8 * [0.01]),  # .75 · 30 = 22.5 goes to 22
        (10, (), 10 * [1]),
        (10, (0.75, 0.5), 5 * [1] + 3 * [0.1] + 2 * [0.01]),  # 7.5 goes to 8
        (1, (0.5, 0.75), [0.1]),  # .5 goes to 0, .75 to 1, which is past the end
    ],
)
def test_the_rate_drops_after_the_stated_fractions(epochs, lr_milestones, rates, monkeypatch):
    recipe = Recipe(epochs, learning_rate=0.2, lr_milestones=lr_milestones)
    assert_allclose([recipe.rate(epoch) for epoch in range(epochs)], np.multiply(rates, 0.2))
    used = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *rest: (used.append(self.param_groups[0]["lr"]), step(self, *rest))[1],
    )
    fit(linear(), recipe=replace(recipe, batch_size=64), augment=None)
    assert_allclose(used, np.multiply(rates, 0.2))


def test_the_rates_of_he_et_al_come_from_the_same_fractions():
    """Section 4.2: .1, divided by 10 after 32,000 and 48,000 of 64,000 steps."""
    recipe = Recipe(epochs=64)
    assert_allclose(
        [recipe.rate(e) for e in (0, 31, 32, 47, 48, 63)], [0.1, 0.1] + [0.01] * 2 + [0.001] * 2
    )


def test_the_global_generators_are_left_alone():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(dropping())
    with pytest.raises(Killed):
        fit(dropping(), evaluate=lambda _: kill())
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_the_seed_decides_order_augmentation_and_dropout():
    def weights(seed, noise):
        torch.manual_seed(noise)
        network = dropping()
        fit(network, seed=seed)
        return network[-1].weight

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_a_loss_that_is_not_finite_leaves_the_last_step_and_the_last_epoch(tmp_path):
    """The batch before the bad one has been learnt from; the checkpoint is that of epoch 1."""
    weights = []

    class Breaking(nn.Module):
        """A linear classifier that gives NaN in its fifth training batch."""

        def __init__(self):
            super().__init__()
            self.layers, self.calls = linear(), 0

        def forward(self, x):
            self.calls += self.training
            if self.training:
                weights.append(self.layers[1].weight.detach().clone())
            return self.layers(x) * (math.nan if self.calls == 5 else 1.0)

    network = Breaking()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="recipe: the loss is not finite; lower learning_rate"):
        fit(network, tmp_path / "run.pt")
    assert torch.equal(network.layers[1].weight, weights[4])  # the step before it, no other
    assert not torch.equal(weights[4], weights[3])
    assert not network.training
    assert torch.equal(torch.get_rng_state(), state)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert len(saved["history"]) == 1
    assert torch.equal(saved["network"]["layers.1.weight"], weights[3])


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss before the only step is finite; the step overflows."""
    recipe = Recipe(1, 64, 3e38, (), 0.9, 3e38)
    with pytest.raises(ValueError, match="recipe: the weights are not finite any more; lower"):
        fit(linear(), tmp_path / "run.pt", recipe)
    assert not (tmp_path / "run.pt").exists()


def test_a_network_learns_what_can_be_learnt():
    """The class is the brightest channel: all right after a few epochs."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    images = rng.integers(0, 128, (200, 3, 8, 8), dtype=np.uint8)
    images[np.arange(200), labels] += 100
    network = cifar_resnet(8, classes=3)
    fit_minibatches(network, images, labels, Recipe(4, 32, 0.1), crop_and_flip)
    assert (predict_logits(network, images).argmax(axis=1) == labels).mean() > 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + 1}, "labels: run from 1 to 4; classes are 0 to 3"),
        ({"labels": LABELS - 100}, "labels: run from -100 to -97"),  # torch would ignore -100
        ({"labels": LABELS + 0.5}, "labels: must be whole numbers"),
        ({"labels": LABELS[:-1]}, "labels: has 36 values for 37 cases"),
        ({"labels": np.full((37, 4), 0.25)}, r"labels: .*\(soft labels"),
        ({"images": IMAGES.astype(int)}, "images: expected .*uint8 or floats .*, got .* int64"),
        ({"images": np.full(IMAGES.shape, math.inf)}, "images: contains NaN or infinity"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images: expected"),
        ({"images": IMAGES[:, 0]}, r"images: .* grey pictures .* images\[:, None\]"),
        (
            {"images": IMAGES.transpose(0, 2, 3, 1)},
            r"images: .* np.transpose\(images, \(0, 3, 1, 2\)\)",
        ),
        ({"images": IMAGES[:, :1]}, r"images: the network does not take \(1, 1, 8, 8\)"),
        ({"network": nn.Flatten()}, "network: has no parameters"),
        ({"network": nn.Conv2d(3, 4, 1)}, r"network: must return logits \(B, K\)"),
        (
            {"network": nn.Sequential(nn.Flatten(), nn.Linear(192, 1))},
            "labels: run from 0 to 3; classes are 0 to 0, one per column",
        ),
        ({"device": "meta"}, "device: must be 'cpu' or 'cuda'"),
        ({"device": "gpu"}, "device: "),
        ({"seed": -1}, "seed: must lie between"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    given_ = {"network": linear(), "images": IMAGES, "labels": LABELS, "recipe": RECIPE} | change
    with pytest.raises(ValueError, match="^" + message):
        fit_minibatches(**given_)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device: torch finds no GPU here; use 'cpu'"):
        fit(linear(), device="cuda")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_is_for_terminals_only(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    fit(linear())
    captured = capsys.readouterr()
    assert bool(captured.err) == terminal
    assert captured.out == ""
    if terminal:
        assert "12/12" in captured.err  # 4 epochs of 3 batches


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"lr_milestones": (0.5, 1.0)}, "lr_milestones"),
        ({"lr_milestones": (0.0,)}, "lr_milestones"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"momentum": True}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"weight_decay": math.inf}, "weight_decay"),
    ],
)
def test_a_recipe_is_checked(change, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Recipe(**({"epochs": 2} | change))


RATES = st.one_of(st.floats(), st.just(0.1))


# Prediction -----------------------------------------------------------------------------------


def as_input(images):
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 255


@pytest.mark.parametrize("batch_size", [1, 7, 37, 500])
def test_batches_give_what_all_pictures_at_once_give(batch_size):
    network = dropping()
    fit(network)
    with torch.no_grad():
        whole = network.eval()(as_input(IMAGES))
    logits = predict_logits(network.train(), IMAGES, batch_size)
    assert logits.shape == (37, 4)
    assert logits.dtype == np.float32
    assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_s_mode_is_restored(fails):
    """Also where some were in evaluation mode already, such as a frozen batch norm."""

    class Failing(nn.Module):
        def forward(self, x):
            assert not network[1].training
            if fails:
                raise Killed
            return x

    network = dropping().append(Failing()).train()
    network[1].eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    if fails:
        with pytest.raises(Killed):
            predict_logits(network, IMAGES)
    else:
        predict_logits(network, IMAGES)
    assert network.training
    assert [module.training for module in network] == [True, False] + [True] * 7
    assert_same(state, dict(network.state_dict()))


def test_views_and_locked_arrays_will_do():
    """Reversed pictures and arrays that may not be written to: neither fails nor warns."""
    network = linear()
    expected = predict_logits(network, IMAGES)
    locked = IMAGES.copy()
    locked.flags.writeable = False
    assert_allclose(predict_logits(network, locked), expected)
    assert_allclose(predict_logits(network, IMAGES[::-1]), expected[::-1], rtol=1e-5, atol=1e-6)
    assert_allclose(predict_logits(network, torch.from_numpy(IMAGES)), expected)


@given(
    arguments(
        network=st.sampled_from(
            [linear(), dropping(), nn.Flatten(), nn.Identity(), nn.Conv2d(3, 1, 1)]
        ),
        images=st.one_of(GARBAGE, st.sampled_from([IMAGES, IMAGES[:0], IMAGES[0], IMAGES / 255])),
        batch_size=st.integers(-1, 40),
    )
)
def test_predict_logits_on_anything(given_):
    network = given_["network"]
    images = given_["images"]
    fits = getattr(images, "shape", ())[-2:] == (8, 8)
    if isinstance(network, nn.Sequential) and getattr(images, "dtype", 0) == np.uint8 and not fits:
        given_["network"] = network = nn.Flatten()  # the picture's size is for the network to say
    logits = finite_or_named(lambda: predict_logits(**given_), list(given_))
    if logits is not None:
        assert len(logits) == len(images)
        assert (logits < np.inf).all()  # none is NaN


class Viewing(nn.Module):
    """A network that calls `view`, which fails on the strides of channels last."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(channels, 5, 3, padding=1), nn.Linear(5 * 64, 4)

    def forward(self, x):
        return self.linear(self.conv(x).view(len(x), -1))


class Wrapped(nn.Module):
    """A network whose output is made into something else."""

    def __init__(self, network, wrap):
        super().__init__()
        self.network, self.wrap = network, wrap

    def forward(self, x):
        return self.wrap(self.network(x))


def test_a_network_that_calls_view_is_run_and_trained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Viewing()
    with torch.no_grad():
        assert_allclose(predict_logits(network, IMAGES), network(as_input(IMAGES)), atol=1e-5)
    history = fit(network)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    with torch.no_grad():  # the weights are such that the network still bears its pictures
        assert_allclose(predict_logits(network, IMAGES), network(as_input(IMAGES)), atol=1e-5)
    assert cifar_resnet(8).features[0].weight.is_contiguous()
    fit(trained := normed(), recipe=replace(RECIPE, epochs=1))
    assert trained.features[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_grey_pictures_are_run_and_trained():
    """The class is the brightness, which a linear layer learns; LeNet takes the same pictures."""
    labels = np.arange(60) % 2
    images = (100 * labels + 50)[:, None, None, None] + RNG.integers(0, 50, (60, 1, 32, 32))
    images = images.astype(np.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
    fit_minibatches(network, images, labels, Recipe(12, 20, 0.02), crop_and_flip)
    assert (predict_logits(network, images).argmax(axis=1) == labels).all()
    lenet = lenet5(2, mean=(0.5,), std=(0.5,))
    fit_minibatches(lenet, images, labels, Recipe(1, 20, 0.02))
    with torch.no_grad():
        assert_allclose(predict_logits(lenet, images), lenet(as_input(images)), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
def test_pictures_of_any_type_meet_weights_of_any_type(dtype):
    """Bytes are divided by 255, floats are not: both come to the weights in the weights' type."""
    network = linear().to(dtype)
    with torch.no_grad():
        expected = network(as_input(IMAGES).to(dtype)).float()
    for images in (IMAGES, IMAGES / 255, as_input(IMAGES), torch.from_numpy(IMAGES)):
        logits = predict_logits(network, images)
        assert logits.dtype == np.float32
        assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
    assert_allclose(  # rounded to the 8 bits of bfloat16, which numpy does not have
        predict_logits(network, as_input(IMAGES).bfloat16()), expected, atol=0.1
    )
    assert_allclose(predict_logits(network, IMAGES), sample_free(network), rtol=1e-5, atol=1e-5)


def sample_free(network):
    """What the function for dropout makes of the same pictures, from dropout that does nothing."""
    return sample_logits(nn.Sequential(nn.Dropout(1e-12), *network), IMAGES, 1)[0]


def test_training_on_floats_is_training_on_bytes():
    fit(of_bytes := linear())
    fit_minibatches(of_floats := linear(), as_input(IMAGES), LABELS, RECIPE, crop_and_flip)
    for name, value in of_bytes.state_dict().items():
        assert_allclose(of_floats.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "convert",
    [
        lambda labels: labels[:, None],
        lambda labels: np.eye(4)[labels],
        lambda labels: np.eye(4, dtype=bool)[labels],
        lambda labels: labels.astype(float),
        lambda labels: labels.tolist(),
        lambda labels: torch.tensor(labels).bfloat16(),
        lambda labels: torch.nn.functional.one_hot(torch.tensor(labels)),
    ],
)
def test_labels_come_in_any_form_that_says_one_class_each(convert, tmp_path):
    """The checkpoint tells that they are the same data."""
    path = tmp_path / "run.pt"
    history = fit_minibatches(linear(), IMAGES, LABELS, RECIPE, checkpoint=path)
    assert fit_minibatches(linear(), IMAGES, convert(LABELS), RECIPE, checkpoint=path) == history


class Output:
    """As transformers and torchvision have them."""

    def __init__(self, logits):
        self.loss, self.logits = logits.mean(), logits


@pytest.mark.parametrize(
    "wrap",
    [
        Output,
        lambda z: {"logits": z, "features": z + 1},
        lambda z: z[:, :, None, None],
        lambda z: z.squeeze(),  # a picture alone loses its axis
    ],
)
def test_logits_are_found_in_what_a_network_returns(wrap):
    network = Wrapped(linear(), wrap)
    expected = predict_logits(network.network, IMAGES)
    for batch_size in (500, 12):  # 37 is 3 · 12 + 1
        assert_allclose(predict_logits(network, IMAGES, batch_size), expected, rtol=1e-5, atol=1e-6)
    fit(network, recipe=replace(RECIPE, batch_size=12))
    fit(network.network.train(), recipe=RECIPE)


def test_one_logit_may_come_without_its_axis():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    expected = predict_logits(network, IMAGES)
    assert expected.shape == (37, 1)
    found = predict_logits(Wrapped(network, lambda z: z[:, 0]), IMAGES, 12)
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_masked_classes_may_be_minus_infinity():
    mask = torch.tensor([0, 0, -math.inf, 0])
    found = predict_logits(Wrapped(linear(), lambda z: z + mask), IMAGES)
    assert np.isneginf(found[:, 2]).all()
    assert np.isfinite(found[:, [0, 1, 3]]).all()


def broken():
    network = linear()
    network[1].weight.data[0, 0] = math.nan
    return network


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        (broken(), IMAGES, r"network: returns NaN or infinity; so does its 1\.weight"),
        (Wrapped(linear(), lambda z: z * math.nan), IMAGES, "network: .* from finite weights"),
        (linear(), np.full(IMAGES.shape, math.nan), "images: contains NaN or infinity"),
        (linear(), IMAGES.astype(int), "images: the network does not take .* int64 .*convert it"),
        (linear(), IMAGES[:, :2], r"images: the network does not take \(37, 2, 8, 8\)"),
        (normed(), IMAGES[:, :1], r"images: .*x: expected \(N, 3, H, W\), .*got \(37, 1, 8, 8\)"),
    ],
)
def test_the_cause_is_named_and_not_what_torch_says_alone(network, images, message):
    with pytest.raises(ValueError, match="^" + message):
        predict_logits(network, images)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_and_exported_networks_are_run():
    network = linear().eval()
    expected = predict_logits(network, IMAGES)
    x, scripted = as_input(IMAGES), torch.jit.script(network)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(network, (x,), dynamic_shapes=(batch,))
    made = [scripted, torch.jit.trace(network, x), torch.jit.freeze(scripted), exported.module()]
    for one in made:
        assert_allclose(predict_logits(one, IMAGES), expected, rtol=1e-5, atol=1e-6)
    fit(scripted)
    with pytest.raises(ValueError, match=r"^network: .* ExportedProgram; pass its module\(\)"):
        predict_logits(exported, IMAGES)


def test_integers_go_to_networks_that_count_words():
    network = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 2))
    words = np.arange(8).reshape(2, 4)
    with torch.no_grad():
        assert_allclose(predict_logits(network, words), network(torch.tensor(words)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"^images: the network does not take .* out of range"):
        predict_logits(network, words + 5)


@pytest.mark.parametrize("kind", ["detached", "overwritten"])
def test_networks_without_a_gradient_are_named(kind):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = linear()

        def forward(self, x):
            z = self.network(x)
            return z.detach() if kind == "detached" else z.sigmoid().relu_()

    with pytest.raises(ValueError, match=r"^network: cannot be differentiated \("):
        fit(Broken())


def test_a_batch_of_one_that_batchnorm_does_not_take_is_named():
    network = nn.Sequential(linear(), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match=r"^network: .*a batch_size that leaves no single case"):
        fit_minibatches(network, IMAGES[:9], LABELS[:9], Recipe(1, batch_size=8))


def test_running_out_of_memory_stays_what_it_is():
    """So that a caller can go on with smaller batches."""

    def full(z):
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        predict_logits(Wrapped(linear(), full), IMAGES)


# Augmentation ---------------------------------------------------------------------------------


def windows(picture, padding):
    """Every window of a padded picture and its mirror image: (offset, mirrored) -> array."""
    _, height, width = picture.shape
    padded = np.zeros((len(picture), height + 2 * padding, width + 2 * padding), picture.dtype)
    padded[:, padding : padding + height, padding : padding + width] = picture
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            window = padded[:, top : top + height, left : left + width]
            yield (top, left, False), window
            yield (top, left, True), window[:, :, ::-1]


@pytest.mark.parametrize(("padding", "shape"), [(4, (3, 8, 8)), (1, (3, 5, 7)), (0, (1, 4, 4))])
def test_each_picture_becomes_one_of_its_windows(padding, shape):
    """Compared with a slow loop; the ground is black and the input stays as it was."""
    images = np.random.default_rng(2).integers(1, 256, (30, *shape), dtype=np.uint8)
    tensor = torch.from_numpy(images.copy())
    generator = torch.Generator().manual_seed(0)
    augmented = crop_and_flip(tensor, generator, padding)
    assert augmented.dtype == torch.uint8
    assert augmented.shape == tensor.shape
    assert np.array_equal(tensor, images)
    kinds = set()
    for picture, result in zip(images, augmented.numpy(), strict=True):
        found = [key for key, window in windows(picture, padding) if (window == result).all()]
        assert len(found) == 1
        kinds.add(found[0])
    assert len({mirrored for *_, mirrored in kinds}) == 2  # of 30 fair coins: 2e-9
    assert len(kinds) > 10 or padding == 0


def test_offsets_are_uniform_and_half_are_mirrored():
    """16,200 copies of a picture over 162 windows: chi-square with p > 1e-8."""
    picture = np.random.default_rng(3).integers(1, 256, (3, 8, 8), dtype=np.uint8)
    images = torch.from_numpy(np.broadcast_to(picture, (16_200, 3, 8, 8)).copy())
    results = crop_and_flip(images, torch.Generator().manual_seed(1)).numpy()
    index = {window.tobytes(): 0 for _, window in windows(picture, 4)}
    assert len(index) == 162
    for result in results:
        index[result.tobytes()] += 1
    assert stats.chisquare(list(index.values())).pvalue > 1e-8


def test_the_generator_decides_the_augmentation():
    images = torch.from_numpy(IMAGES)
    state = torch.get_rng_state()
    one, same, other = (
        crop_and_flip(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_statistics_stay_and_scale_and_shift_are_trained():
    network = cifar_resnet(8)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(m.running_mean.clone(), m.running_var.clone(), m.weight.clone()) for m in norms]
    recipe = Recipe(1, 32, 0.1, freeze_batchnorm=True)
    fit_minibatches(network, IMAGES, LABELS, recipe)
    for module, (mean, variance, weight) in zip(norms, before, strict=True):
        assert torch.equal(module.running_mean, mean)
        assert torch.equal(module.running_var, variance)
        assert not torch.equal(module.weight, weight)
    fit_minibatches(network, IMAGES, LABELS, Recipe(1, 32, 0.1))
    assert not torch.equal(norms[0].running_mean, before[0][0])


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True)]
)
def test_frozen_statistics_are_not_unfrozen_in_silence(layer):
    """In a network in training mode; one that is as a whole in evaluation mode is trained."""
    network = nn.Sequential(layer, *linear()).train()
    layer.eval()
    before = layer.running_mean.clone()
    with pytest.raises(ValueError, match=r"^network: 0 is in evaluation.*freeze_batchnorm=True"):
        fit(network)
    assert torch.equal(layer.running_mean, before)
    fit(network, recipe=replace(RECIPE, freeze_batchnorm=True))
    assert torch.equal(layer.running_mean, before)
    fit(network.eval())
    assert not torch.equal(layer.running_mean, before)


def test_a_checkpoint_of_kept_statistics_is_of_another_recipe(tmp_path):
    network, path = cifar_resnet(8), tmp_path / "run.pt"
    fit_minibatches(network, IMAGES, LABELS, Recipe(1, 32, 0.1), checkpoint=path)
    with pytest.raises(ValueError, match="of another recipe"):
        fit_minibatches(
            network, IMAGES, LABELS, Recipe(1, 32, 0.1, freeze_batchnorm=True), checkpoint=path
        )


def test_pictures_come_at_half_their_side_for_part_of_the_epochs():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            if self.training:
                seen.append(x.detach().clone())
            return self.head(x.mean(dim=(2, 3)))

    images = np.zeros((2, 3, 4, 4), np.uint8)
    images[:, :, ::2, 1::2] = 100  # one pixel of each four
    training.fit_minibatches(
        Watching(), images, np.array([0, 1]), Recipe(4, half_resolution_fraction=0.5)
    )
    assert [x.shape[-1] for x in seen] == [2, 2, 4, 4]
    assert_allclose(seen[0], 25 / 255)
    with pytest.raises(ValueError, match=r"^half_resolution_fraction: "):
        Recipe(2, half_resolution_fraction=1)


def ramps(count, size=64):
    """Pictures whose channels rise by 3 a column, by 2 a row, and not at all."""
    y, x = np.mgrid[:size, :size]
    picture = np.stack([3 * x, 2 * y, np.full_like(x, 7)]).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(picture, (count, *picture.shape)).copy())


def test_a_cut_is_a_square_of_the_picture_scaled_up():
    """Each channel stays a ramp, of the slope and the start that one square gives to both.

    Whole levels, half of one off at most, tell a slope over these 48 columns to 0.010, rows 0.016.
    """
    images = ramps(300)
    cuts = random_resized_crop(images, torch.Generator().manual_seed(0), least=0.25)
    assert cuts.dtype == torch.uint8
    assert torch.equal(images, ramps(300))
    assert (cuts[:, 2] == 7).all()
    middle = np.arange(8, 56)
    for cut in cuts.numpy().astype(float):
        across, left = np.polyfit(middle + 0.5, cut[0][:, middle].mean(axis=0) / 3 + 0.5, 1)
        down, top = np.polyfit(middle + 0.5, cut[1][middle].mean(axis=1) / 2 + 0.5, 1)
        assert abs(abs(across) - down) < 0.026
        assert 0.48 < down < 1.02
        ends = sorted([left, left + 64 * across])
        assert -0.5 < ends[0] < ends[1] < 64.5
        assert -0.5 < top < top + 64 * down < 64.5
        line = np.clip(left + across * (np.arange(64) + 0.5), 0.5, 63.5) - 0.5
        assert_allclose(cut[0], np.broadcast_to(3 * line, (64, 64)), atol=1.5)


def test_areas_are_uniform_and_half_are_mirrored_by_the_zoom():
    cuts = random_resized_crop(ramps(4000), torch.Generator().manual_seed(1), least=0.25).numpy()
    slope = (cuts[:, 0, 30, 56].astype(float) - cuts[:, 0, 30, 8]) / 3 / 48
    # Six standard errors, 2e-9; a distance of 0.05 has a chance of 2 exp(-2 · 4000 · 0.05²) = 4e-9.
    assert abs((slope < 0).mean() - 0.5) < 6 * (0.25 / 4000) ** 0.5
    area = (slope**2 - 0.25) / 0.75
    assert stats.kstest(area.clip(0, 1), "uniform").statistic < 0.05


def test_a_zoom_of_everything_mirrors_at_most():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 9, 9), np.uint8))
    cuts = random_resized_crop(images, torch.Generator().manual_seed(0), least=1)
    same = (cuts == images).flatten(1).all(dim=1)
    mirrored = (cuts == images.flip(3)).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert 2 < same.sum() < 38  # of 40 fair coins: chance 2e-9


def test_the_generator_decides_the_zoom():
    one, same, other = (
        random_resized_crop(ramps(5), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_mixed_precision_where_the_gpu_has_it(capability, expected, monkeypatch):
    """7.5 is a T4's, which Colab lends, 8.0 an A100's."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert training._has_bfloat16(torch.device("cuda")) is expected
    assert not training._has_bfloat16(torch.device("cpu"))


class Shifted:
    """An augmentation with a state, and without a name of its own."""

    def __init__(self, by):
        self.by = by

    def __call__(self, images, generator):
        return images.roll(self.by, 3)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (crop_and_flip, None, False),
        (None, crop_and_flip, False),
        (crop_and_flip, random_resized_crop, False),
        (partial(random_resized_crop, least=0.5), partial(random_resized_crop, least=0.6), False),
        (partial(random_resized_crop, least=0.5), partial(random_resized_crop, least=0.5), True),
        (Shifted(1), Shifted(1), True),  # at other addresses
    ],
)
def test_a_checkpoint_knows_its_augmentation(first, second, same, tmp_path):
    path = tmp_path / "run.pt"
    history = fit(linear(), path, augment=first)
    if same:
        assert fit(linear(), path, augment=second) == history
    else:
        with pytest.raises(ValueError, match=r"^checkpoint: .* is of another augment \("):
            fit(linear(), path, augment=second)


OLD_NAMES = {"lr_milestones": "drops", "freeze_batchnorm": "keep_statistics",
             "half_resolution_fraction": "halved"}  # fmt: skip


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, half_resolution_fraction=0.5)])
def test_a_checkpoint_with_the_names_of_version_0_3_is_continued(recipe, tmp_path):
    """As that version wrote it: no setting unless given, no new option unless used."""
    path, whole = tmp_path / "run.pt", normed()
    expected = fit(whole, recipe=recipe, augment=random_resized_crop)

    class Old(Exception):
        pass

    def interrupt(network):
        interrupt.calls += 1
        if interrupt.calls == 3:
            raise Old
        return {}

    interrupt.calls = 0
    with pytest.raises(Old):
        fit(normed(), path, recipe, random_resized_crop, evaluate=interrupt)
    saved = torch.load(path, weights_only=True)
    run = saved["run"]
    assert run.pop("setting") is None
    assert run["augment"] == "mcunc.training.random_resized_crop"
    run["augment"] = "mcunc.training.zoom_and_flip"
    run["recipe"] = {OLD_NAMES.get(key, key): value for key, value in run["recipe"].items()}
    for later in ("keep_statistics", "halved"):
        if not run["recipe"][later]:
            del run["recipe"][later]
    torch.save(saved, path)
    with pytest.raises(ValueError, match="of another recipe"):
        fit(normed(), path, replace(recipe, freeze_batchnorm=True), random_resized_crop)
    with pytest.raises(ValueError, match="of another augment"):
        fit(normed(), path, recipe)
    network = normed(seed=9)
    history = fit(network, path, recipe, random_resized_crop)
    assert history[:2] == saved["history"]
    assert untimed(history) == untimed(expected)
    assert_same(network.state_dict(), whole.state_dict())


OLD_NAMES_BACK = {old: new for new, old in OLD_NAMES.items()}


def test_a_recipe_takes_and_gives_its_old_names():
    values = {"drops": (0.25,), "keep_statistics": True, "halved": 0.5}
    for old, value in values.items():
        with pytest.warns(DeprecationWarning, match=rf"{old}= is now {OLD_NAMES_BACK[old]}="):
            recipe = Recipe(2, **{old: value})
        assert getattr(recipe, OLD_NAMES_BACK[old]) == value
        with pytest.warns(DeprecationWarning, match=f"is now {OLD_NAMES_BACK[old]}"):
            assert getattr(recipe, old) == value


def test_watch_and_other_old_names_still_work():
    with pytest.warns(DeprecationWarning, match="watch= is now evaluate="):
        assert fit_full_batch(Point(1.0), square, 1, watch=lambda _: 2.0) == [2.0]
    with pytest.warns(DeprecationWarning, match="watch= is now evaluate="):
        history = fit(linear(), recipe=replace(RECIPE, epochs=1), watch=lambda _: {"a": 3})
    assert history[0]["a"] == 3
    with pytest.warns(DeprecationWarning, match=r"training\.random_resized_crop"):
        assert training.zoom_and_flip is random_resized_crop


def test_the_fingerprint_of_the_data_needs_no_copy_of_them():
    images, labels = torch.zeros(10, 3, 512, 512, dtype=torch.uint8), torch.zeros(10).long()
    tracemalloc.start()
    found = training._fingerprint(images, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == sha256(bytes(10 * 3 * 512 * 512 + 80)).hexdigest()
    assert peak < 1e5


def test_a_checkpoint_of_a_setting_is_not_continued_without(tmp_path):
    given_ = {"images": IMAGES, "labels": LABELS, "recipe": RECIPE, "checkpoint": tmp_path / "a.pt"}
    setting = {"p": 0.1, "layers": ["features.0"]}
    first = fit_minibatches(linear(), **given_, setting=setting)
    assert fit_minibatches(linear(), **given_, setting=setting) == first
    for other in (None, setting | {"p": 0.2}):
        with pytest.raises(ValueError, match="is of another setting"):
            fit_minibatches(linear(), **given_, setting=other)
