r"""Spread of dropout networks against data, width and probability: a run of chapter 5.

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
from mcunc.runs.common import command

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

    Two hidden layers of rectifiers; first-layer weights and biases N(0, 1), behind it weights
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
    """Train networks of three widths on five amounts of data with five probabilities to drop.

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
    begin = time()
    shape = (len(cases), len(widths), len(probabilities), repeats)
    arrays = {
        "mean": np.zeros((*shape, len(GRID)), np.float16),  # of the passes, at GRID
        "spread": np.zeros((*shape, len(GRID)), np.float16),  # their standard deviation
        "log_density": np.zeros(shape),  # of 2,000 new points, by the true noise
        "exact_spread": np.zeros((len(cases), repeats, len(GRID)), np.float16),
    }
    new_x, new_y = draw_curve(2000, seed, 0, 0)
    at = torch.tensor(np.r_[GRID, new_x], dtype=torch.float32)[:, None]
    all_p = np.tile(probabilities, repeats)
    for i, n in enumerate(cases):
        curves = [draw_curve(n, seed, n, repeat) for repeat in range(repeats)]
        for repeat, curve in enumerate(curves):
            arrays["exact_spread"][i, repeat] = gaussian_process(*curve, GRID)[1]
        sets = np.repeat(np.array(curves, dtype=np.float32), len(probabilities), axis=0)
        x, y = torch.from_numpy(sets[:, 0]), torch.from_numpy(sets[:, 1])
        for j, width in enumerate(widths):
            print(f"dropout-spread: {n} cases, width {width}", file=sys.stderr, flush=True)
            networks = DropoutMLP(all_p, (1, width, width, 1), seed)
            for weight in networks.weights[:-1]:  # He et al. (2015), for rectifiers
                weight.data.mul_(2**0.5)
            train(networks, x, y, steps, seed)
            for r in range(len(all_p)):
                repeat, k = divmod(r, len(probabilities))
                passes = _passes(networks.member(r), at, draws)
                arrays["mean"][i, j, k, repeat] = passes[:, : len(GRID)].mean(axis=0)
                arrays["spread"][i, j, k, repeat] = passes[:, : len(GRID)].std(axis=0)
                arrays["log_density"][i, j, k, repeat] = log_predictive_density(
                    passes[:, len(GRID) :], new_y, NOISE**-2
                ).mean()
    command = f"python -m mcunc run dropout-spread --seed {seed}"
    record = recorded.provenance(command, seed) | {
        "data": "drawn by mcunc.runs.dropout_spread.draw_curve",
        "hours": round((time() - begin) / 3600, 3),
        "cases": cases, "widths": widths, "probabilities": probabilities, "repeats": repeats,
        "noise": NOISE, "length_scale": LENGTH_SCALE, "steps": steps, "batch": BATCH,
        "learning_rate": RATE, "draws": draws,
    }  # fmt: skip
    recorded.save(path, arrays, record)
    return path


def _passes(network, at, draws):
    """(T, N) outputs; one row where nothing is dropped."""
    if not any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network):
        with torch.no_grad():
            return network(at).numpy().T
    return sample_logits(network, at, draws)[:, :, 0]
