"""Rows for many small networks trained at once."""

import torch
from measure import minimums, row

from mcunc.networks import ParallelMLP
from mcunc.training import fit_full_batch

MEMBERS, STEPS = 50, 50
KINDS = ((30, 1, (50, 50)), (331, 10, (30,)), (331, 10, (50, 50)))  # cases, inputs, hidden units


def train(network, loss):
    """Adam as a user writes it, in torch alone."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(network).backward()
        optimiser.step()


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
        trained = {}

        def together(sizes=(inputs, *hidden, 1), loss=loss, trained=trained):
            trained["many"] = ParallelMLP(MEMBERS, sizes, "tanh", 0)
            fit_full_batch(trained["many"], loss, STEPS)

        def loop(sizes=(inputs, *hidden, 1), loss=loss, trained=trained):
            start = ParallelMLP(MEMBERS, sizes, "tanh", 0)
            trained["loop"] = [start.member(r) for r in range(MEMBERS)]
            for network in trained["loop"]:
                train(network, loss)

        together(), loop()
        with torch.no_grad():
            alone = torch.stack([network(x) for network in trained["loop"]])
            assert (trained["many"](x) - alone).abs().max() < 1e-3
        ours, theirs = minimums(together, loop, at_most=25.0)
        sizes = "-".join(map(str, (inputs, *hidden, 1)))
        what = f"{MEMBERS} networks {sizes}, {cases} cases, {STEPS} steps of Adam"
        rows.append(row(what, ours, "a loop over them", theirs, times=5))
    return rows
