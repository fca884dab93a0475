"""Weights of a fine-tuned network, kept as what fine-tuning changed."""

import numpy as np
import torch

LEVELS = 31  # steps from 0 to the largest change of a tensor


def changes(network, before):
    """What training changed, each tensor of weights in steps of its own size.

    Parameters
    ----------
    network : torch.nn.Module
    before : torch.nn.Module with parts of the same names; a weight it lacks, or has in another
        shape, or all of whose values are 0, counts as new

    Returns
    -------
    dict: for each parameter, under its name, its change in steps, in whole ones (int8) unless it
    is new (float16); under "scales" the sizes of the steps; and BatchNorm's statistics as they
    are, under their names
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
    """Add changes to the weights of a network, in place.

    Weights of layers that were drawn anew must be 0 before.

    Raises
    ------
    ValueError
        For changes of another network; it is left as it was.
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
