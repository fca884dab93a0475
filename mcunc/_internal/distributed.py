"""Several processes that train one network, each on its part of every batch: torchrun's."""

import os
from contextlib import contextmanager

import torch
from torch import distributed


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


def rank_and_world_size():
    """Number of this process, from 0, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def shard(count):
    """Slice of `count` cases that belong to this process; the parts differ by one at most."""
    rank, processes = rank_and_world_size()
    return slice(rank * count // processes, (rank + 1) * count // processes)


def sum_over_processes(tensors):
    """Replace each tensor by its sum over all processes, by one message."""
    if rank_and_world_size()[1] == 1:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(together)
    for tensor, total in zip(tensors, together.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def barrier():
    """Until every process is here."""
    if rank_and_world_size()[1] > 1:
        distributed.barrier()
