"""What runs on a GPU says there what it says on a CPU; skipped where there is none."""

import copy

import numpy as np
import pytest
import torch
from small_birds import SMALL
from small_runs import killed_at
from torch import nn

from mcunc import cam, networks, recorded, training
from mcunc._internal import distributed
from mcunc.dropout import keyed_masks, pass_masks, sample_logits, with_dropout
from mcunc.runs import birds as birds_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Convolutions and products of floats in full precision, as on the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def pictures(count=24, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def pair(p=0.3, **how):
    """The same network on both devices."""
    network = networks.small_inception(classes=5, seed=1)
    network = with_dropout(network, p, **how).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.3)
    return network, copy.deepcopy(network).cuda()


@pytest.mark.parametrize("mask_type", ["channel", "element"])
@pytest.mark.parametrize("scope", ["network", "case"])
def test_passes_and_their_masks_are_those_of_the_cpu(scope, mask_type):
    here, there = pair(mask_type=mask_type)
    x = pictures()
    for mine, theirs in zip(
        pass_masks(here, x, 3, scope, 7), pass_masks(there, x, 3, scope, 7), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    mine, theirs = (sample_logits(net, x, 5, scope, 7, batch_size=10) for net in (here, there))
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * np.abs(mine).max())
    assert mine.std(axis=0).min() > 0


def test_maps_are_those_of_the_cpu():
    here, there = pair()
    x = pictures(6)
    for mine, theirs in zip(
        cam.class_activation_maps(here, x, 2), cam.class_activation_maps(there, x, 2), strict=True
    ):
        scale = np.abs(mine).max()
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_augmentations_are_those_of_the_cpu():
    images = torch.from_numpy(pictures())
    for augment, tolerance in ((training.crop_and_flip, 0), (training.random_resized_crop, 1)):
        mine, theirs = (
            augment(images.to(device), torch.Generator().manual_seed(3))
            for device in ("cpu", "cuda")
        )
        assert theirs.is_cuda
        assert theirs.dtype == torch.uint8
        assert (mine.int() - theirs.cpu().int()).abs().max() <= tolerance


def train(device, checkpoint=None, epochs=4):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 20)
    images = rng.integers(0, 200, (5, 3, 1, 1))[labels] + rng.integers(0, 56, (100, 3, 32, 32))
    network = with_dropout(networks.small_inception(classes=5, seed=1), 0.05)
    history = training.fit_minibatches(
        network, images.astype(np.uint8), labels, training.Recipe(epochs, 20, 0.05),
        training.random_resized_crop, checkpoint=checkpoint, seed=2, device=device,
        masks=keyed_masks(2),
    )  # fmt: skip
    return network, history


@pytest.mark.parametrize("half", [False, True])
def test_training_takes_the_course_of_the_cpu(half, monkeypatch):
    """In single precision closely; in half, which the GPU chooses for itself, nearly."""
    assert training._has_bfloat16(torch.device("cuda")) == (
        torch.cuda.get_device_capability()[0] >= 8
    )
    monkeypatch.setattr(training, "_has_bfloat16", lambda device: half and device.type == "cuda")
    (_, here), (network, there) = (train(device, epochs=2) for device in ("cpu", "cuda"))
    assert all(
        value.dtype in (torch.float32, torch.int64) for value in network.state_dict().values()
    )
    first = [run[0]["train_loss"] for run in (here, there)]
    assert first[1] == pytest.approx(first[0], rel=0.1 if half else 0.02)
    _, learned = train("cuda", epochs=8)
    assert learned[-1]["train_loss"] < 0.6 * learned[0]["train_loss"]


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_has_bfloat16", lambda device: False)
    _, whole = train("cuda", tmp_path / "whole.pt")
    killed_at(3, monkeypatch, training, "_one_epoch")
    with pytest.raises(KeyboardInterrupt):
        train("cuda", tmp_path / "parts.pt")
    _, parts = train("cuda", tmp_path / "parts.pt")
    assert [row["epoch"] for row in parts] == [1, 2, 3, 4]
    for mine, theirs in zip(whole, parts, strict=True):  # a GPU's sums differ in the last digits
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=0.02)


def test_a_run_of_birds_names_the_gpu(tmp_path, monkeypatch):
    for module, values in SMALL:
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    given_ = {"network": "tiny", "variant": "last", "folder": tmp_path, "device": "cuda"}
    run = recorded.load(birds_run.run_birds(**given_))
    assert run.record["gpu"] == torch.cuda.get_device_name()
    assert run.record["command"].endswith("--device cuda")
    assert np.isfinite(run["log_probs"]).all()
    again = recorded.load(birds_run.run_birds(**given_))
    np.testing.assert_allclose(again["off_log_probs"], run["off_log_probs"], atol=0.05)


def test_alone_there_is_one_process():
    with distributed.joined("cuda") as device:
        assert device == "cuda"
        assert distributed.rank_and_world_size() == (0, 1)
