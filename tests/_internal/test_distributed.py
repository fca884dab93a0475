"""Three processes, started as torchrun starts them, train the network that one trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import train

from mcunc._internal import distributed

PROCESSES = 3


class Killed(BaseException):
    """What stands in for the signal that ends a run."""


def killer(epoch):
    """Watches, and ends the run before the checkpoint of an epoch."""
    epochs = iter(range(1, epoch))

    def evaluate(network):
        if next(epochs, None) is None:
            raise Killed
        return {}

    return evaluate


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What each process of one launch found: the time goes into starting them."""
    folder = tmp_path_factory.mktemp("launched")
    with pytest.raises(Killed):
        train(folder / "run.pt", evaluate=killer(epoch=3))
    assert len(torch.load(folder / "run.pt")["history"]) == 2
    script = Path(__file__).parents[1] / "small_training.py"
    command = [sys.executable, str(script), str(folder), str(PROCESSES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def assert_same(found, network, history):
    weights, rows = found
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)
    for row, expected in zip(rows, history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["train_accuracy"] == expected["train_accuracy"]


def test_several_processes_reach_the_result_of_one(launched):
    """45 = 4 · 11 + 1: two of three have nothing to do in the last step of an epoch."""
    expected = train()
    for each in launched:
        assert each["count"] == PROCESSES
        assert each["command"].startswith("torchrun --nproc-per-node 3 -m mcunc run birds")
        assert_same(each["begun"], *expected)
    plain = train(masks=False)[0].state_dict()
    away = [(plain[k] - v).abs().max() for k, v in expected[0].state_dict().items() if v.ndim]
    assert max(away) > 1e-3  # so that other masks would have been noticed


def test_what_one_process_began_several_may_finish(launched):
    for each in launched:
        assert_same(each["resumed"], *train())


def test_parts_are_a_partition(monkeypatch):
    for processes in (1, 2, 3, 7):
        for count in (0, 1, 5, 14):
            cases = []
            for rank in range(processes):
                here = rank, processes
                monkeypatch.setattr(distributed, "rank_and_world_size", lambda here=here: here)
                part = list(range(count))[distributed.shard(count)]
                assert count // processes <= len(part) <= -(-count // processes)
                cases += part
            assert cases == list(range(count))


def test_alone_nothing_is_joined_and_nothing_waits(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.joined("cpu") as device:
        assert device == "cpu"
        assert distributed.rank_and_world_size() == (0, 1)
        tensor = torch.ones(2)
        distributed.sum_over_processes([tensor])
        distributed.barrier()
        assert tensor.tolist() == [1, 1]
