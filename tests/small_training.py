"""A small training that test_parallel does in one process, and this script in several.

It starts them as torchrun does, but for one thing: they are forked from here, where torch is
imported once, which would otherwise take most of the time.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which an optimiser would import in every process
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mcunc._internal import distributed
from mcunc.dropout import keyed_masks, with_dropout
from mcunc.runs import common
from mcunc.training import Recipe, fit_minibatches


def train(checkpoint=None, evaluate=None, device="cpu", masks=True):
    """A network with BatchNorm as it is, and dropout; 3 epochs of 45 pictures in batches of 11."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (45, 3, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    network = with_dropout(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 3),
        ), 0.3,
    )  # fmt: skip
    network[1].running_mean.uniform_(-1, 1)
    history = fit_minibatches(
        network, images, rng.integers(0, 3, 45), Recipe(3, 11, 0.05, freeze_batchnorm=True),
        evaluate=evaluate, checkpoint=checkpoint, seed=3, device=device,
        masks=keyed_masks(5) if masks else None,
    )  # fmt: skip
    return network, history


def train_and_resume(folder):
    """What each of torchrun's processes does; it leaves its results in the folder."""
    torch.set_num_threads(1)
    with distributed.joined() as device:
        rank, count = distributed.rank_and_world_size()
        found = {"count": count, "command": common.provenance("birds", 0, device)["command"]}
        for name, checkpoint in (("begun", None), ("resumed", folder / "run.pt")):
            network, history = train(checkpoint, device=device)
            found[name] = network.state_dict(), history
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    launch = elastic_launch(
        LaunchConfig(
            1, 1, int(sys.argv[2]), rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="test",
            start_method="fork",
        ), train_and_resume,
    )  # fmt: skip
    launch(Path(sys.argv[1]))
