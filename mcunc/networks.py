"""Networks of the book."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from mcunc._checks import check_choice, check_count

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "none": lambda x: x}


class ParallelMLP(nn.Module):
    r"""R independent multilayer perceptrons of one shape, evaluated together.

    Batched matrix products take the place of a loop over networks.  Weights start as
    :math:`N(0, 1/\text{fan-in})`, biases at 0.  Introduced in chapter 3.

    Parameters
    ----------
    members : int, R
    sizes : sequence of int
        Units of each layer, inputs first, outputs last: ``(20, 32, 1)`` has one hidden layer.
    activation : {"tanh", "relu", "none"}
        After every layer but the last; "none" leaves a linear map.
    seed : int

    Raises
    ------
    ValueError
        For counts below 1, fewer than two sizes, or an activation that is not listed.
    """

    def __init__(self, members, sizes, activation="tanh", seed=0):
        super().__init__()
        members = check_count("members", members)
        sizes = [check_count("sizes", size) for size in (sizes if np.iterable(sizes) else [sizes])]
        if len(sizes) < 2:
            raise ValueError(f"sizes: needs inputs and outputs at least, got {sizes}")
        check_choice("activation", activation, tuple(_ACTIVATIONS))
        self.activation = activation
        generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs, generator=generator) / inputs**0.5
            for inputs, outputs in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in sizes[1:])

    def forward(self, x):
        """Outputs (R, n, sizes[-1]) for inputs (R, n, sizes[0]), or (n, sizes[0]) shared by all.

        NaN and infinity pass through, as in any torch module; other shapes are a ValueError.
        """
        members, inputs, _ = self.weights[0].shape
        if not (torch.is_tensor(x) and x.is_floating_point()):
            raise ValueError("x: expected a floating-point tensor; use torch.as_tensor(x).float()")
        if x.ndim not in (2, 3) or x.shape[-1] != inputs or (x.ndim == 3 and len(x) != members):
            raise ValueError(
                f"x: expected ({members}, n, {inputs}), or (n, {inputs}) shared by all members, "
                f"got {tuple(x.shape)}"
            )
        if x.dtype != self.weights[0].dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"x: is {x.dtype}, the weights are {self.weights[0].dtype}; convert one"
            )
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < last:
                x = _ACTIVATIONS[self.activation](x)
        return x
