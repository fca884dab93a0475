r"""Spread of dropout networks against data, width and probability to drop: chapter 5.

It shows what the spread depends on; half an hour on two cores.

Curves :math:`y = \sin 2x + x/2 + \varepsilon`, x uniform on [-2, 2], noise of known size.
"""

from functools import partial

import numpy as np
import torch

from mcunc.networks import DropoutMLP
from mcunc.predictive import log_predictive_density
from mcunc.runs.common import cached, penalised_step, recorded_run

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


def train(networks, x, y, seed=0):
    """Minimise squared error plus penalty on R data sets (R, n), in minibatches.

    The penalty on weights is p l² / (2 N τ), p to keep, beside an error that is not halved, as in
    the code that Gal & Ghahramani (2016) published; with l = 0.01 it is next to nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(networks.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    cases = x.shape[1]
    penalty = (1 - networks.p) * LENGTH_SCALE**2 * NOISE**2 / (2 * cases)
    for _ in range(STEPS):
        rows = torch.randint(cases, (min(cases, BATCH),), generator=generator)
        penalised_step(networks, optimiser, x[:, rows, None], y[:, rows], penalty, generator)
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


@recorded_run("dropout-spread")
def run_spread(seed, path):
    """Train dropout networks of three widths on five amounts of data (chapter 5).

    Killed and called again, it goes on with the networks it was at.

    Returns
    -------
    arrays
        ``mean`` and ``spread`` of the passes at `GRID`, and ``log_density`` of new points, for
        every number of cases, width, probability and repeat; ``exact_spread`` of the
        `gaussian_process`, for every number of cases and repeat.
    details
    """
    test, arrays = draw_curve(2000, seed, 0, 0), {"exact_spread": []}
    about = {"cases": CASES, "widths": WIDTHS, "probabilities": PROBABILITIES, "repeats": REPEATS}
    about |= {"noise": NOISE, "length_scale": LENGTH_SCALE, "steps": STEPS, "batch": BATCH}
    about |= {"draws": DRAWS, "data": "drawn by mcunc.runs.dropout_spread.draw_curve"}
    about["learning_rate"] = RATE
    for n in CASES:
        curves = np.array([draw_curve(n, seed, n, repeat) for repeat in range(REPEATS)])
        arrays["exact_spread"].append([gaussian_process(*curve, GRID)[1] for curve in curves])
        for width in WIDTHS:
            make = partial(_evaluated, curves, width, *test, seed)
            for name, values in cached(path, f"{n}-{width}", about, make).items():
                arrays.setdefault(name, []).append(values)
    shape = len(CASES), len(WIDTHS), REPEATS, len(PROBABILITIES)
    for name in ("mean", "spread", "log_density"):
        values = np.array(arrays[name])
        arrays[name] = values.reshape(shape + values.shape[2:]).swapaxes(2, 3)
    return arrays, about | {"seconds": float(sum(arrays.pop("seconds")))}


def _trained(curves, width, seed):
    """Networks for each curve and probability, in that order."""
    networks = DropoutMLP(np.tile(PROBABILITIES, len(curves)), (1, width, width, 1), seed)
    for weight in networks.weights[:-1]:  # He et al. (2015), for ReLUs
        weight.data.mul_(2**0.5)
    sets = torch.from_numpy(np.repeat(curves.astype(np.float32), len(PROBABILITIES), axis=0))
    train(networks, sets[:, 0], sets[:, 1], seed)
    return networks


@torch.no_grad()
def _evaluated(curves, width, x, y, seed):
    """Of each network: mean and spread of its passes at `GRID`, mean log density of new points."""
    with torch.enable_grad():
        networks = _trained(curves, width, seed)
    at, generator = torch.tensor(np.r_[GRID, x]).float(), torch.Generator().manual_seed(seed)
    inputs = at.expand(len(networks.p), -1)[..., None]
    passes = np.stack([networks(inputs, generator)[..., 0].numpy() for _ in range(DRAWS)])
    curves, new = np.split(passes.astype(float), [len(GRID)], axis=2)
    density = [log_predictive_density(new[:, r], y, NOISE**-2).mean() for r in range(len(inputs))]
    return {"mean": curves.mean(axis=0), "spread": curves.std(axis=0), "log_density": density}
