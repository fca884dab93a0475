"""Several processes that train one network, each on its part of every batch: torchrun's."""

import os
from contextlib import contextmanager

import torch
from torch import distributed

from mcunc import recorded


@contextmanager
def joined(device="cpu"):
    """Join the processes that ``torchrun`` started; alone, where it did not start this one.

    Yields
    ------
    str, the device of this process: on "cuda" each has a GPU of its own
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def place():
    """Number of this process, from 0, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def provenance(run, seed, device):
    """`recorded.provenance` of a run on a device, with the name of its GPU where it has one.

    Several processes are named in the command: BatchNorm that learns sees in each its own part of
    a batch, and what they reach together is not what one reaches alone.
    """
    device, processes = torch.device(device), place()[1]
    start = "python" if processes == 1 else f"torchrun --nproc-per-node {processes}"
    command = f"{start} -m mcunc run {run}"
    if device.type == "cpu":
        return recorded.provenance(command, seed)
    command += f" --device {device.type}"  # "cuda:1" is that of one process
    about = recorded.provenance(command, seed)
    return about | {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else about


def part(count):
    """Slice of `count` cases that belong to this process; the parts differ by one at most."""
    rank, processes = place()
    return slice(rank * count // processes, (rank + 1) * count // processes)


def add_up(tensors):
    """Replace each tensor by its sum over all processes, by one message."""
    if place()[1] == 1:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(together)
    for tensor, total in zip(tensors, together.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def wait():
    """Until every process is here."""
    if place()[1] > 1:
        distributed.barrier()
