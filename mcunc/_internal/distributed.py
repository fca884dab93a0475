"""Where a network is trained: the device, and torchrun's processes, which share each batch."""

import os
from contextlib import contextmanager

import torch
from torch import distributed


def check_device(name):
    """The torch.device of a name, or a ValueError where there is none."""
    kind = str(name).partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device: must be 'cpu' or 'cuda', got {str(name)!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: torch finds no GPU here; use 'cpu'")
    return torch.device(name)


@contextmanager
def joined(device="cpu"):
    """Join the processes that ``torchrun`` started; do nothing if it did not start this one.

    Yields
    ------
    str, the device of this process; on "cuda" each process has its own GPU
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
    """Slice of `count` cases that belong to this process; the parts differ by at most one."""
    rank, processes = rank_and_world_size()
    return slice(rank * count // processes, (rank + 1) * count // processes)


def sum_over_processes(tensors):
    """Replace each tensor by its sum over all processes."""
    for tensor in tensors if rank_and_world_size()[1] > 1 else ():
        distributed.all_reduce(tensor)


def barrier():
    """Wait for every process."""
    if rank_and_world_size()[1] > 1:
        distributed.barrier()
