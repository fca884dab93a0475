"""Two processes that torchrun starts train the network that one trains."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mcunc import _parallel
from mcunc.dropout import keyed_masks, with_dropout
from mcunc.training import Recipe, fit_minibatches

WORK = """
import sys
sys.path.insert(0, {here!r})
import torch
from test_parallel import train
from mcunc import _parallel
torch.set_num_threads(1)
with _parallel.joined() as device:
    network, history = train({folder!r} + "/run.pt", {epochs}, device)
    rank, count = _parallel.place()
    torch.save([network.state_dict(), history, count], {folder!r} + f"/{name}-{{rank}}.pt")
"""


def train(checkpoint=None, epochs=3, device="cpu", masks=True, count=45):
    """A small network with BatchNorm as it is, and dropout; 45 pictures in batches of 11."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    network = with_dropout(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 3),
        ), 0.3,
    )  # fmt: skip
    network[1].running_mean.uniform_(-1, 1)
    history = fit_minibatches(
        network, images, rng.integers(0, 3, count), Recipe(epochs, 11, 0.05, keep_statistics=True),
        checkpoint=checkpoint, seed=3, device=device, masks=keyed_masks(5) if masks else None,
    )  # fmt: skip
    return network, history


def launch(folder, name, processes, epochs=3):
    script = folder / f"{name}.py"
    here = __file__.rpartition("/")[0]
    script.write_text(WORK.format(here=here, folder=str(folder), name=name, epochs=epochs))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), str(script)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{name}-{rank}.pt") for rank in range(processes)]


def assert_same(found, network, history):
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5)
    for row, expected in zip(found[1], history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["train_accuracy"] == expected["train_accuracy"]


def test_two_processes_reach_the_result_of_one(tmp_path):
    found = launch(tmp_path, "two", 2)
    expected = train()
    for each in found:
        assert each[2] == 2
        assert_same(each, *expected)
    plain = train(masks=False)[0].state_dict()
    away = [(plain[k] - v).abs().max() for k, v in expected[0].state_dict().items() if v.ndim]
    assert max(away) > 1e-3  # so that other masks would have been noticed


def test_three_processes_and_a_batch_of_one(tmp_path):
    """45 = 4 × 11 + 1: two of three have nothing to do in the last step."""
    assert_same(launch(tmp_path, "three", 3, epochs=1)[2], *train(epochs=1))


def test_what_one_process_began_two_may_finish(tmp_path):
    train(tmp_path / "run.pt", epochs=3)
    half = torch.load(tmp_path / "run.pt")
    assert len(half["history"]) == 3
    (found, _) = launch(tmp_path, "again", 2)
    assert_same(found, *train())


def test_parts_are_a_partition(monkeypatch):
    for processes in (1, 2, 3, 7):
        for count in (0, 1, 5, 14):
            cases = []
            for rank in range(processes):
                monkeypatch.setattr(_parallel, "place", lambda rank=rank, n=processes: (rank, n))
                part = list(range(count))[_parallel.part(count)]
                assert count // processes <= len(part) <= -(-count // processes)
                cases += part
            assert cases == list(range(count))


def test_alone_nothing_is_joined_and_nothing_waits(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with _parallel.joined("cpu") as device:
        assert device == "cpu"
        assert _parallel.place() == (0, 1)
        tensor = torch.ones(2)
        _parallel.add_up([tensor])
        _parallel.wait()
        assert tensor.tolist() == [1, 1]


def test_a_record_names_device_and_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    plain = _parallel.provenance("trucks --seed 2", 2, "cpu")
    assert plain["command"] == "python -m mcunc run trucks --seed 2"
    assert plain["seed"] == 2
    assert "gpu" not in plain
    there = _parallel.provenance("trucks --seed 2", 2, "cuda:3")
    assert there["command"] == "python -m mcunc run trucks --seed 2 --device cuda"
    assert there["gpu"] == "GPU 3"
