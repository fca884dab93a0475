r"""Spread of dropout networks against data, width and probability to drop: chapter 5.

It shows what the spread depends on; half an hour on two cores.

Curves :math:`y = \sin 2x + x/2 + \varepsilon`, x uniform on [-2, 2], noise of known size.
"""

import sys
from time import time

import numpy as np
import torch
from torch import nn

from mcunc import recorded
from mcunc.dropout import sample_logits
from mcunc.networks import DropoutMLP
from mcunc.predictive import log_predictive_density
from mcunc.runs.common import command, provenance, save

CASES = (25, 100, 400, 1600, 6400)
WIDTHS = (25, 100, 400)
PROBABILITIES = (0.0, 0.002, 0.01, 0.05, 0.2)  # to drop
REPEATS = 6  # data and initial weights drawn anew
NOISE = 0.2  # standard deviation
LENGTH_SCALE = 0.01  # of the prior, as in the published protocol
STEPS, BATCH, RATE, DRAWS = 2000, 100, 0.01, 200
GRID = np.linspace(-2, 2, 81)


def truth(x):
    """The curve without noise."""
    return np.sin(2 * x) + x / 2


def draw_curve(n, *seed):
    """n points of the curve with noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, n)
    return x, truth(x) + NOISE * rng.normal(size=n)


def train(network, x, y, steps=STEPS, seed=0):
    """Minimise squared error plus penalty on R data sets (R, n), in minibatches.

    The penalty on weights is p l² / (2 N τ), p to keep, beside an error that is not halved, as in
    the code that Gal & Ghahramani (2016) published; with l = 0.01 it is next to nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    penalty = (1 - network.p) * LENGTH_SCALE**2 * NOISE**2 / (2 * x.shape[1])
    for _ in range(steps):
        rows = torch.randint(x.shape[1], (min(x.shape[1], BATCH),), generator=generator)
        residual = network(x[:, rows, None], generator)[:, :, 0] - y[:, rows]
        decay = sum((penalty * weight**2).sum() for weight in network.weights)
        loss = residual.square().mean(dim=1).sum() + decay
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def gaussian_process(x, y, at):
    """Posterior mean and standard deviation of the function: the network of infinite width.

    Two hidden layers of ReLUs; first-layer weights and biases N(0, 1), behind it weights
    N(0, 2/fan-in) and no biases (Cho & Saul 2009, equation 6; Lee et al. 2018, equation 5).
    """
    both = np.concatenate([x, at])
    kernel = 1 + np.outer(both, both)
    for _ in range(2):
        size = np.sqrt(np.diag(kernel))
        angle = np.arccos((kernel / np.outer(size, size)).clip(-1, 1))
        kernel = np.outer(size, size) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    n = len(x)
    cross = kernel[n:, :n]
    solved = np.linalg.solve(kernel[:n, :n] + NOISE**2 * np.eye(n), np.c_[y, cross.T])
    variance = np.diag(kernel)[n:] - np.einsum("ij,ji->i", cross, solved[:, 1:])
    return cross @ solved[:, 0], np.sqrt(variance)


@command("dropout-spread")
def run_spread(
    seed=0, folder="runs", *, cases=CASES, widths=WIDTHS, probabilities=PROBABILITIES,
    repeats=REPEATS, steps=STEPS, draws=DRAWS,
):  # fmt: skip
    """Train dropout networks of three widths on five amounts of data (chapter 5).

    Parameters
    ----------
    seed : int
    folder : path, takes ``dropout-spread.npz`` and .json
    cases, widths, probabilities : tuples of numbers, all combinations are made
    repeats, steps, draws : int; the chapter's run has the values at the top of this file

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0 or a folder that is no path.
    """
    seed, path = recorded.destination("dropout-spread", seed, folder)
    begin, test = time(), draw_curve(2000, seed, 0, 0)
    parts = {"mean": [], "spread": [], "log_density": []}
    exact = []
    for n in cases:
        curves = np.array([draw_curve(n, seed, n, repeat) for repeat in range(repeats)])
        exact.append([gaussian_process(*curve, GRID)[1] for curve in curves])
        for width in widths:
            print(f"dropout-spread: {n} cases, width {width}", file=sys.stderr, flush=True)
            networks = _trained(curves, width, probabilities, steps, seed)
            for name, values in _evaluated(networks, *test, draws).items():
                parts[name].append(values)
    shape = len(cases), len(widths), repeats, len(probabilities)
    arrays = {"exact_spread": np.array(exact)}
    for name, values in parts.items():
        values = np.array(values)
        arrays[name] = values.reshape(shape + values.shape[2:]).swapaxes(2, 3)
    seconds = time() - begin
    record = provenance(f"dropout-spread --seed {seed}", seed, seconds=seconds) | {
        "data": "drawn by mcunc.runs.dropout_spread.draw_curve",
        "cases": cases, "widths": widths, "probabilities": probabilities, "repeats": repeats,
        "noise": NOISE, "length_scale": LENGTH_SCALE, "steps": steps, "batch": BATCH,
        "learning_rate": RATE, "draws": draws,
    }  # fmt: skip
    return save(path, arrays, record)


def _trained(curves, width, probabilities, steps, seed):
    """Networks for each curve and probability, in that order."""
    networks = DropoutMLP(np.tile(probabilities, len(curves)), (1, width, width, 1), seed)
    for weight in networks.weights[:-1]:  # He et al. (2015), for ReLUs
        weight.data.mul_(2**0.5)
    sets = np.repeat(curves.astype(np.float32), len(probabilities), axis=0)
    train(networks, torch.from_numpy(sets[:, 0]), torch.from_numpy(sets[:, 1]), steps, seed)
    return networks


def _evaluated(networks, x, y, draws):
    """Of each network: mean and spread of its passes at `GRID`, mean log density of new points."""
    at, n = torch.tensor(np.r_[GRID, x], dtype=torch.float32)[:, None], len(GRID)
    passes = [_passes(networks.member(r), at, draws) for r in range(len(networks.p))]
    return {
        "mean": [each[:, :n].mean(axis=0) for each in passes],
        "spread": [each[:, :n].std(axis=0) for each in passes],
        "log_density": [
            log_predictive_density(each[:, n:], y, NOISE**-2).mean() for each in passes
        ],
    }


def _passes(network, at, draws):
    """(T, N) outputs; one row where nothing is dropped."""
    if not any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network):
        with torch.no_grad():
            return network(at).numpy().T
    return sample_logits(network, at, draws)[:, :, 0]
