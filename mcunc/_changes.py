"""Weights of a fine-tuned network, kept as what fine-tuning changed."""

import numpy as np
import torch

LEVELS = 127


def changes(network, before):
    """What training changed, each tensor in 255 steps of its own size.

    Parameters
    ----------
    network : torch.nn.Module
    before : torch.nn.Module with parts of the same names; a weight it lacks, or has in another
        shape, counts as 0

    Returns
    -------
    dict: for each parameter an int8 array under its name, and under "scales" one float32 each
    """
    old = dict(before.named_parameters())
    steps, scales = {}, []
    for name, value in network.named_parameters():
        start = old[name] if name in old and old[name].shape == value.shape else 0
        change = (value - start).detach()
        scale = float(change.abs().max()) / LEVELS
        steps[name] = (change / (scale or 1)).round().to(torch.int8).cpu().numpy()
        scales.append(scale)
    return steps | {"scales": np.array(scales, np.float32)}


def restore(network, arrays):
    """Add changes to the weights of a network, in place.

    Weights of layers that were drawn anew must be 0 before.

    Raises
    ------
    ValueError
        For changes of another network.
    """
    parameters = dict(network.named_parameters())
    if {name: p.shape for name, p in parameters.items()} != {
        name: a.shape for name, a in arrays.items() if name != "scales"
    }:
        raise ValueError("arrays: are changes of another network")
    if arrays.get("scales", np.empty(0)).shape != (len(parameters),):
        raise ValueError("arrays: need a scale for each parameter")
    with torch.no_grad():
        for (name, value), scale in zip(parameters.items(), arrays["scales"], strict=True):
            value += torch.from_numpy(arrays[name].astype(np.float32)) * float(scale)
