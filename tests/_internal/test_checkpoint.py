"""Checkpoints: what was saved comes back, and nothing else is taken for it."""

import io
import pickle

import pytest
import torch
from torch import nn

from mcunc._internal import checkpoint

RUN = {"seed": 3}


def parts(seed=0):
    """A small network and its optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Linear(3, 2)
    return network, torch.optim.SGD(network.parameters(), 0.1)


def test_what_was_saved_is_resumed(tmp_path):
    path, (network, optimiser), other = tmp_path / "run.pt", parts(), parts(1)
    assert checkpoint.resume(path, RUN, *other) == []
    checkpoint.save(path, RUN, network, optimiser, [{"epoch": 1}])
    assert checkpoint.resume(path, RUN, *other) == [{"epoch": 1}]
    assert torch.equal(other[0].weight, network.weight)
    with pytest.raises(ValueError, match=r"^checkpoint: .*run\.pt is of another seed \(3, not 4\)"):
        checkpoint.resume(path, {"seed": 4}, *other)


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def damaged(content, path):
    yield from (content[: len(content) * k // 5] for k in range(5))  # truncated
    yield content[: len(content) // 2] + content[len(content) // 2 + 8 :]
    yield b"not a checkpoint"
    yield pickle.dumps(Malicious(path / "trace"))
    for wrong in ({"run": Malicious(path / "trace")}, {"network": {}}, [1, 2], torch.ones(3)):
        buffer = io.BytesIO()
        torch.save(wrong, buffer)
        yield buffer.getvalue()


def test_a_damaged_checkpoint_is_named_and_nothing_in_it_runs(tmp_path):
    """Truncated, cut, foreign or malicious: one message, with the remedy, and the file stays."""
    path, (network, optimiser) = tmp_path / "run.pt", parts()
    checkpoint.save(path, RUN, network, optimiser, [])
    before = network.weight.detach().clone()
    for content in damaged(path.read_bytes(), tmp_path):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"checkpoint: .*run\.pt is damaged.*delete it"
        ) as info:
            checkpoint.resume(path, RUN, network, optimiser)
        assert "weights_only" not in str(info.value)  # torch advises to switch the protection off
        assert path.read_bytes() == content
        assert not (tmp_path / "trace").exists()
        assert torch.equal(network.weight, before)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint: .* is damaged or no checkpoint"):
        checkpoint.resume(tmp_path, RUN, *parts())
