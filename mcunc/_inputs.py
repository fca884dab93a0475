"""What functions that run a network do with its inputs and its mode."""

from contextlib import contextmanager

import numpy as np
import torch

from mcunc._checks import check_count

_NUMBERS = {"cpu": 2**21, "cuda": 2**24}  # in a batch, where the caller names no size


def as_network(network):
    """Return `network` if it is a torch module."""
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"network: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def as_cases(x):
    """Return `x` as a tensor (N, ...) with at least one case."""
    try:
        if not torch.is_tensor(x):
            x = torch.from_numpy(np.require(x, requirements=["C", "W"]))  # copied where it is not
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"x: expected a tensor or an array of numbers ({error})") from None
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x: expected at least one case (N, ...), got shape {tuple(x.shape)}")
    return x.detach()


def batches(x, batch_size, network):
    """Yield the number of the first case and the input of each batch, on the network's device.

    Bytes of pictures come as numbers in [0, 1], floating-point numbers in the type of the weights.
    By default a batch holds about two million, and eight times as many on a GPU.
    """
    device = device_of(network)
    if batch_size is None:
        batch_size = max(1, _NUMBERS.get(device.type, 2**21) * len(x) // x.numel())
    batch_size = check_count("batch_size", batch_size)
    dtype = next((w.dtype for w in network.parameters() if w.is_floating_point()), None)
    for start in range(0, len(x), batch_size):
        batch = x[start : start + batch_size].to(device)
        if batch.ndim == 4 and batch.dtype == torch.uint8:
            batch = batch.float() / 255
        yield start, batch.to(dtype) if batch.is_floating_point() and dtype else batch


def device_of(network):
    """The device of a network's weights; the CPU if it has none."""
    weight = next(network.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def evaluating(network):
    """Evaluation mode without gradients, and afterwards every module in the mode it was in."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def seed_noise(seed, device):
    """Seed what dropout and the like draw from, and no generator of another device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
