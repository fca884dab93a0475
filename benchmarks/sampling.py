"""Rows for dropout and maps, most with pictures of 224 × 224."""

import copy
import importlib.util
import subprocess
import sys
from importlib.metadata import files
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import megabytes, minimums, row
from torch import nn
from torchvision import models

from mcunc.cam import class_activation_maps, normalise, sample_maps
from mcunc.dropout import sample_logits, with_dropout
from mcunc.networks import ImageClassifier

BATCH, DRAWS, PASSES = 8, 50, 5  # peers that make whole passes make PASSES, scaled up to DRAWS
AT_MOST = 25.0  # seconds for one row
PROCESSES = 5  # of which the one with the least memory counts
DROPOUTS = nn.modules.dropout._DropoutNd
SCALED = f"({PASSES} passes × {DRAWS // PASSES})"
EIGHT = f"{BATCH} × 224²"  # pictures


# Networks and pictures ------------------------------------------------------------------------


def published(name):
    """A network of torchvision for 200 classes; random weights that keep the signal's size."""
    torch.manual_seed(0)
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, num_classes=200, **extra)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


def taken_apart(googlenet):
    """The same network as features, pooling and head; pictures go in as they are."""
    *features, pooling, dropout, linear = googlenet.children()
    pooling, head = nn.Sequential(pooling, nn.Flatten()), nn.Sequential(dropout, linear)
    return ImageClassifier(nn.Sequential(*features), pooling, head, (0, 0, 0), (1, 1, 1)).eval()


def pictures(count=BATCH):
    """Random pictures, channels last in memory: half the time of a convolution on a CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 3, 224, 224, generator=generator)
    return x.to(memory_format=torch.channels_last)


def acting(network):
    """A copy in evaluation mode, but for its dropout."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        module.training = isinstance(module, DROPOUTS)
    return network


def forward(network, x):
    """One pass, (N, K)."""
    with torch.no_grad():
        return network(x).numpy()


def loop(network, x, passes=PASSES):
    """What is commonly written: (T, N, K) logits by one pass after the other."""
    return np.stack([forward(network, x) for _ in range(passes)])


def torch_uncertainty(network, on_batch):
    """The wrapper of torch-uncertainty, which acts in evaluation mode.

    It is loaded by the path of its file, which needs torch and einops; `import torch_uncertainty`
    would need lightning and timm too.
    """
    path = next(file for file in files("torch_uncertainty") if file.match("methods/mc_dropout.py"))
    spec = importlib.util.spec_from_file_location("mc_dropout", path.locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mc_dropout(copy.deepcopy(network), PASSES, on_batch=on_batch).eval()


# The same answer ------------------------------------------------------------------------------


def assert_follows(samples, mean, variance):
    """Means within six standard errors of the closed form, the mean variance within a tenth."""
    error = (variance / len(samples)) ** 0.5
    assert (np.abs(samples.mean(axis=0) - mean) < 6 * error).all()
    np.testing.assert_allclose(samples.var(axis=0, ddof=1).mean(), variance.mean(), rtol=0.1)


def assert_alike(samples, others):
    """Means as near to each other as the spread says, and the mean variance within a half."""
    assert samples.shape[1:] == others.shape[1:]
    variances = [draws.var(axis=0, ddof=1).mean() for draws in (samples, others)]
    np.testing.assert_allclose(*variances, rtol=0.5)
    away = np.square(samples.mean(axis=0) - others.mean(axis=0)).mean()
    assert away < 4 * (variances[0] / len(samples) + variances[1] / len(others))


# Rows -----------------------------------------------------------------------------------------


def head_dropout():
    """T = 50 with dropout before the head alone: what comes before it is computed once."""
    network, x = published("googlenet"), pictures()
    alone = acting(network)
    wrapped = {on_batch: torch_uncertainty(network, on_batch) for on_batch in (False, True)}

    def split(on_batch):
        return forward(wrapped[on_batch], x).reshape(PASSES, BATCH, -1)

    peers = {
        f"plain loop {SCALED}": lambda: loop(alone, x),
        f"torch-uncertainty, a loop {SCALED}": lambda: split(False),
        f"torch-uncertainty, one large batch {SCALED}": lambda: split(True),
    }
    p, weight = network.dropout.p, network.fc.weight.detach().numpy()
    apart = taken_apart(network)
    pooled = forward(nn.Sequential(apart.features, apart.pooling), x)
    variance = p / (1 - p) * pooled**2 @ (weight**2).T
    for candidate in (lambda: sample_logits(network, x, DRAWS), *peers.values()):
        assert_follows(candidate(), forward(network, x), variance)
    ours, once, *others = minimums(
        lambda: sample_logits(network, x, DRAWS),
        lambda: forward(network, x),
        *peers.values(),
        at_most=AT_MOST,
    )
    what = f"GoogLeNet, {EIGHT}, dropout before the head, T = {DRAWS}"
    scaled = [seconds * DRAWS / PASSES for seconds in others]
    return [
        row(what, ours, "one pass without dropout", once, most=1.3),
        *(row(what, ours, peer, seconds) for peer, seconds in zip(peers, scaled, strict=True)),
    ]


def dropout_everywhere():
    """Dropout before every weight layer: the cost of a stochastic pass, in runs of 5 draws."""
    rows = []
    for name, masks in product(("GoogLeNet", "ResNet18"), ("channel", "element")):
        network, x = published(name.lower()), pictures()
        treated = with_dropout(network, 0.1, masks=masks)
        alone, scopes = acting(treated), ("network", "case")

        def ours(scope, treated=treated, x=x):
            return sample_logits(treated, x, PASSES, scope)

        for scope in scopes:
            assert_alike(ours(scope), loop(alone, x))
        seconds = minimums(  # runs of one length, so that noise does to all of them the same
            *(lambda scope=scope, ours=ours: ours(scope) for scope in scopes),
            lambda network=network, x=x: loop(network, x),
            lambda alone=alone, x=x: loop(alone, x),
            at_most=AT_MOST,
        )
        shared, own, once, plain = (each / PASSES for each in seconds)
        what = f"{name}, {EIGHT}, dropout everywhere, {masks} masks, each pass, scope"
        peer, most = "a pass without dropout", 1.1 if masks == "channel" else 1.4
        rows += [
            row(f"{what} network", shared, peer, once, most=1.1),
            row(f"{what} case", own, peer, once, most=most),
            row(f"{what} case", own, "plain loop, each pass", plain),
        ]
    return rows


def maps_of_many():
    """What maps add to the passes that give the logits."""
    count, size = 100, 20
    network, x = taken_apart(published("googlenet")), pictures(count)

    def ours():
        return class_activation_maps(network, x, batch_size=size)

    def passes():
        return np.concatenate([forward(network, batch) for batch in x.split(size)])

    maps, logits = ours()
    np.testing.assert_allclose(logits, passes(), rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    bias = network.head[-1].bias.detach().numpy()[logits.argmax(axis=1)]
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, logits.max(axis=1), rtol=1e-4)
    best, alone = minimums(ours, passes, at_most=AT_MOST)
    what = f"GoogLeNet, {count} × 224² in batches of {size}: class activation maps and logits"
    return [row(what, best, "logits alone", alone, most=1.05)]


def maps_of_samples():
    """50 maps of each picture under dropout before the head, and Grad-CAM."""
    from pytorch_grad_cam import GradCAM  # slow to import
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, x = taken_apart(published("googlenet")), pictures()
    maps, logits = class_activation_maps(network, x)
    classes = logits.argmax(axis=1)
    bias = network.head[-1].bias.detach().numpy()[classes]
    drawn = sample_logits(network, x, DRAWS)[:, np.arange(BATCH), classes]
    samples = sample_maps(network, x, draws=DRAWS)
    np.testing.assert_allclose(samples.mean(axis=(2, 3)) + bias, drawn, rtol=1e-4, atol=1e-4)

    copied = copy.deepcopy(network)
    cam = GradCAM(copied, [copied.features])
    targets = [ClassifierOutputTarget(c) for c in classes]
    # It scales to [0, 1], enlarges and scales again.
    positive = normalise(np.maximum(maps, 0)).astype(np.float32)
    enlarged = np.stack([cv2.resize(one, (224, 224)) for one in positive])
    np.testing.assert_allclose(cam(x, targets), normalise(enlarged), atol=1e-4)
    sampled, one_each, once, gradients = minimums(
        lambda: sample_maps(network, x, draws=DRAWS),
        lambda: class_activation_maps(network, x),
        lambda: forward(network, x),
        lambda: cam(x, targets),
        at_most=AT_MOST,
    )
    what = f"GoogLeNet, {EIGHT}, dropout before the head: {DRAWS} sampled maps of each"
    peer = "pytorch-grad-cam, one map of each, its positive part"
    return [
        row(what, sampled, "one pass without dropout or maps", once, most=1.05),
        row(what, sampled, peer, gradients),
        row(f"GoogLeNet, {EIGHT}: one map of each", one_each, peer, gradients),
    ]


def peak_memory(everywhere, draws):
    """MB that a call takes at its peak beside what is there before; for a fresh process.

    Not by resource.getrusage: its maximum is inherited from the process that starts this one.
    """
    network, x = published("googlenet"), pictures()
    network = with_dropout(network, 0.1) if everywhere else network

    def kilobytes(key):
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(key))

    before = kilobytes("VmRSS")
    sample_logits(network, x, draws) if draws else forward(network, x)
    return (kilobytes("VmHWM") - before) * 1024 / 1e6


def memory():
    """Peak memory of sampling, beside that of one pass; the least of some fresh processes."""

    def measured(*arguments):
        code = f"import sampling; print(sampling.peak_memory{arguments})"
        command, here = [sys.executable, "-c", code], Path(__file__).parent
        found = [
            float(subprocess.run(command, check=True, capture_output=True, cwd=here).stdout)
            for _ in range(PROCESSES)
        ]
        return min(found)

    rows = []
    for everywhere, where in ((False, "before the head"), (True, "everywhere, channel masks")):
        ours, once = measured(everywhere, DRAWS), measured(everywhere, 0)
        what = f"peak memory: GoogLeNet, {EIGHT}, dropout {where}, T = {DRAWS}"
        rows.append(row(what, ours, "one pass without dropout", once, show=megabytes))
    return rows


def small_network():
    """A network so small that what is done around it counts."""
    torch.manual_seed(0)
    cases, draws = 1_000, 1_000
    layers = nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 1)
    network, x = with_dropout(nn.Sequential(*layers), 0.1).eval(), torch.randn(cases, 10)
    alone, scopes = acting(network), ("network", "case")
    for scope in scopes:
        assert_alike(sample_logits(network, x, draws, scope), loop(alone, x, draws))
    *ours, plain = minimums(
        *(lambda scope=scope: sample_logits(network, x, draws, scope) for scope in scopes),
        lambda: loop(alone, x, draws),
        at_most=AT_MOST,
    )
    what = f"MLP 10-50-50-1, {cases:,} cases, dropout everywhere, T = {draws:,}, scope"
    pairs = zip(scopes, ours, strict=True)
    return [row(f"{what} {scope}", seconds, "plain loop", plain) for scope, seconds in pairs]


PASSES_AND_MAPS = [head_dropout, dropout_everywhere, maps_of_many, maps_of_samples]
BENCHMARKS = [*PASSES_AND_MAPS, memory, small_network]
