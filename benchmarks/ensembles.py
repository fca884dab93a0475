"""Rows for many small networks trained at once."""

import torch
from measure import minimums, row
from torch import nn

from mcunc.networks import ParallelMLP
from mcunc.training import fit_full_batch

MEMBERS, STEPS = 50, 50
KINDS = ((30, 1, (50, 50)), (331, 10, (30,)), (331, 10, (50, 50)))  # cases, inputs, hidden units


def one_of(many, member):
    """The same network by itself, made of torch's own layers."""
    layers = []
    for weight, bias in zip(many.weights, many.biases, strict=True):
        layer = nn.Linear(*weight.shape[1:])
        layer.weight.data = weight[member].T.detach().clone()
        layer.bias.data = bias[member, 0].detach().clone()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def squared_error(x, y):
    """Loss of one network or the sum over many."""
    return lambda network: ((network(x)[..., 0] - y) ** 2).sum()


def many_networks():
    """Fifty networks trained by one matrix product a layer, beside a loop over them."""
    rows = []
    for cases, inputs, hidden in KINDS:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(cases, inputs, generator=generator)
        loss = squared_error(x, torch.sin(x[:, 0]))
        found = {}

        def together(sizes=(inputs, *hidden, 1), loss=loss, found=found):
            many = ParallelMLP(MEMBERS, sizes, "tanh", 0)
            fit_full_batch(many, loss, STEPS)
            found["many"] = many

        def loop(sizes=(inputs, *hidden, 1), loss=loss, found=found):
            start = ParallelMLP(MEMBERS, sizes, "tanh", 0)
            found["loop"] = [one_of(start, member) for member in range(MEMBERS)]
            for network in found["loop"]:
                fit_full_batch(network, loss, STEPS)

        together(), loop()
        with torch.no_grad():
            alone = torch.stack([network(x) for network in found["loop"]])
            assert (found["many"](x) - alone).abs().max() < 1e-3
        ours, theirs = minimums(together, loop, at_most=25.0)
        sizes = "-".join(map(str, (inputs, *hidden, 1)))
        what = f"{MEMBERS} networks {sizes}, {cases} cases, {STEPS} steps of Adam"
        rows.append(row(what, ours, "a loop over them", theirs, times=5))
    return rows
