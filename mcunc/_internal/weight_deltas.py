"""Weights of a fine-tuned network, stored as their differences from the pretrained ones."""

import numpy as np
import torch

LEVELS = 31  # steps from 0 to the largest change of a tensor


def changes(network, before):
    """Differences between two networks, rounded to steps of a size for each tensor.

    Parameters
    ----------
    network : torch.nn.Module
    before : torch.nn.Module with parts of the same names
        A weight that it lacks, or has in another shape or as zeros only, counts as new.

    Returns
    -------
    dict
        By name, the change of each parameter in whole steps (int8), or in float16 where it is new,
        and BatchNorm's statistics as they are; under "scales" the sizes of the steps.
    """
    old = dict(before.named_parameters())
    arrays, scales = {}, []
    for name, value in network.named_parameters():
        known = name in old and old[name].shape == value.shape and bool(old[name].any())
        change = (value - old[name]).detach() if known else value.detach()
        scale = float(change.abs().max()) / LEVELS or 1.0
        steps = (change / scale).round().to(torch.int8) if known else (change / scale).half()
        arrays[name] = steps.cpu().numpy()
        scales.append(scale)
    statistics = {name: value.cpu().numpy() for name, value in _statistics(network).items()}
    return arrays | statistics | {"scales": np.array(scales, np.float32)}


def restore(network, arrays):
    """Add changes to the weights of a network, in place; new weights must be 0 before.

    Raises
    ------
    ValueError
        For changes of another network; this one is left as it was.
    """
    parameters, statistics = dict(network.named_parameters()), _statistics(network)
    expected = {name: tuple(value.shape) for name, value in (parameters | statistics).items()}
    if expected | {"scales": (len(parameters),)} != {k: a.shape for k, a in arrays.items()}:
        raise ValueError("arrays: are changes of another network")
    with torch.no_grad():
        for (name, value), scale in zip(parameters.items(), arrays["scales"], strict=True):
            value += torch.from_numpy(arrays[name].astype(np.float32)) * float(scale)
        for name, value in statistics.items():
            value.copy_(torch.from_numpy(arrays[name]))


def _statistics(network):
    return {n: value for n, value in network.named_buffers() if n.endswith(("_mean", "_var"))}
