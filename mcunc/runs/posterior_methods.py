r"""Ways to spread, each against the posterior: the run of chapter 4.

Curves are drawn from the prior of the very model that is then fitted to them, so that the
posterior covers them as often as it says.  What stands in for it is judged by mean, spread and
coverage, point by point and all along the curve.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from time import perf_counter

import numpy as np
import torch

from mcunc import recorded
from mcunc._internal.files import atomic_write
from mcunc._internal.seeds import derive_seed
from mcunc.posterior import (
    RegressionModel,
    draw_masks,
    effective_sample_size,
    exact_linear,
    find_map_estimates,
    fit_laplace,
    r_hat,
    sample_hmc,
    train_networks,
)
from mcunc.runs.common import command

NOISE = 0.1
INNER, OUTER = 0.7, 2.0  # inputs lie between these, on either side of 0
CASES = 30
GRID = np.linspace(-3, 3, 61)
DROP = 0.05
LEVEL = 0.95


@dataclass(frozen=True)
class Sizes:
    """How large the run is; as it stands, that of the chapter.

    Attributes
    ----------
    sets : int, curves
    members : int, of an ensemble, and passes of dropout
    iterations : int, of a mode
    steps : int, of an ensemble's member, and of dropout
    chains, draws, warm_up, leapfrog : int, of `sample_hmc`
    thin : int, of the draws of a chain one in so many is kept
    """

    sets: int = 40
    members: int = 50
    iterations: int = 200
    steps: int = 2000
    chains: int = 4
    draws: int = 4000
    warm_up: int = 500
    leapfrog: int = 50
    thin: int = 2


@dataclass(frozen=True, eq=False)
class Problem:
    """Curves, and a model that is right for them.

    Attributes
    ----------
    model : RegressionModel, its inputs are `features` of x
    features : callable (..., 1) array -> (..., k) array
    """

    model: RegressionModel
    features: object

    def draw(self, sets, seed=0):
        """Features of what is seen (D, n, k), outcomes (D, n), and curves on the grid (D, G)."""
        rng = np.random.default_rng(derive_seed(seed, "data"))
        x = rng.uniform(INNER, OUTER, (sets, CASES)) * np.where(np.arange(CASES) % 2, 1, -1)
        z = self.model.draw_prior(sets, derive_seed(seed, "truth"))
        x, at = self.features(x[..., None]), self.features(GRID[:, None])
        truth, seen = (self.model.outputs(z, torch.from_numpy(of)).numpy() for of in (at, x))
        return x, seen + NOISE * rng.normal(size=seen.shape), truth


_network = RegressionModel((1, 20, 1), NOISE, weight_scale=2.0, bias_scale=2.0)


def _hidden(x):
    """The hidden units of one network that the prior gave."""
    weights, biases = np.random.default_rng(0).normal(0, 2, (2, 10))
    return np.tanh(x * weights + biases)


PROBLEMS = {
    "network": Problem(_network, lambda x: x),
    "features": Problem(
        RegressionModel((10, 1), NOISE, "none", weight_scale=2.0, bias_scale=2.0), _hidden
    ),
}


@command("posterior")
def run_posterior(seed=0, folder="runs", sizes=None):
    """Draw curves, fit them in ten ways, and compare each way's spread with the posterior.

    Killed and called again, it goes on after the last way that was finished.

    Parameters
    ----------
    seed : int
    folder : path, takes ``posterior.npz`` and .json, and what was finished before these
    sizes : Sizes, optional

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0, a folder that is no path, or a finished part that is damaged.
    """
    sizes = sizes or Sizes()
    seed, path = recorded.destination("posterior", seed, folder)
    settings = {
        "noise": NOISE, "inner": INNER, "outer": OUTER, "cases": CASES, "sets": sizes.sets,
        "members": sizes.members, "iterations": sizes.iterations, "steps": sizes.steps,
        "drop": DROP, "level": LEVEL,
    }  # fmt: skip
    chains = {  # which no other way depends on
        name: getattr(sizes, name) for name in ("chains", "draws", "warm_up", "leapfrog", "thin")
    }
    arrays, seconds = {}, 0.0
    for name, problem in PROBLEMS.items():
        x, y, truth = problem.draw(sizes.sets, seed)
        arrays |= {f"{name}_x": x, f"{name}_y": y, f"{name}_truth": truth}
        for way, method in WAYS.items():
            part = path.with_name(f"{path.stem}-{name}-{way}.npz")
            what = sha256(b"".join(of.tobytes() for of in (x, y, truth))).hexdigest()
            own = settings | (chains if way == "hmc" else {})
            made = _made(part, own | {"curves": what}, partial(method, problem, x, y, seed, sizes))
            seconds += float(made["seconds"])
            arrays |= {f"{name}_{way}_{key}": value for key, value in made.items()}
    half = ("_mean", "_spread", "_truth")  # most of the bytes, none the worse for three digits
    arrays = {
        key: value.astype(np.float16 if key.endswith(half) else np.float32)
        for key, value in arrays.items()
    }
    command = f"python -m mcunc run posterior --seed {seed}"
    record = recorded.provenance(command, seed) | settings | chains | {
        "data": "drawn by mcunc.runs.posterior_methods", "hours": round(seconds / 3600, 2),
        "ways": list(WAYS),
    }  # fmt: skip
    recorded.save(path, arrays, record)
    return path


def _made(path, settings, method):
    """What a way found, now or before under the same settings."""
    settings = json.dumps(settings)
    if path.exists():
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                made = dict(file)
            same = str(made.pop("settings")) == settings
        except Exception:  # whose text would be about pickles, or about the insides of archives
            raise ValueError(
                f"folder: {path} is damaged, no finished part of this run; "
                "remove it, and the run makes it again"
            ) from None
        if same:
            return made
    print(f"making {path.stem}", file=sys.stderr, flush=True)
    begin = perf_counter()
    made = method()
    made["seconds"] = np.float64(perf_counter() - begin)
    with atomic_write(path) as under, under.open("wb") as file:
        np.savez(file, **made, settings=settings)
    return made


def judged(samples, passes, members):
    """Mean and spread of (T, D, G) draws, and how wide a band holds whole curves.

    The band is the mean plus or minus so many standard deviations that the share `LEVEL` of the
    draws stays within it everywhere.  With few draws it holds fewer of the curves to come than of
    those it was made from, so that all ways are given the same number, `members`.

    Parameters
    ----------
    samples : (T, D, G) array, of which `members` are used, evenly spaced
    passes : number of gradients of the loss over all data, of one data set
    members : int
    """
    samples = samples[np.linspace(0, len(samples) - 1, members).astype(int)]
    mean, spread = samples.mean(axis=0), samples.std(axis=0, ddof=1)
    # Where nothing is spread, all draws are within any band.
    away = np.divide(abs(samples - mean), spread, out=np.zeros_like(samples), where=spread > 1e-9)
    band = np.quantile(away.max(axis=2), LEVEL, axis=0)
    return {"mean": mean, "spread": spread, "band": band, "passes": np.float64(passes)}


def _at_grid(problem, z):
    """(T, D, G) values of the function for parameters (T, D, P)."""
    at = torch.from_numpy(problem.features(GRID[:, None]))
    values = problem.model.outputs(z.reshape(-1, z.shape[-1]), at)
    return values.reshape(*z.shape[:2], -1).numpy()


def _hmc(problem, x, y, seed, sizes):
    """Chains of all data sets side by side."""
    x, y = np.repeat(x, sizes.chains, axis=0), np.repeat(y, sizes.chains, axis=0)
    start = problem.model.draw_prior(len(x), derive_seed(seed, "start"))
    chains = sample_hmc(
        problem.model, x, y, start, draws=sizes.draws, warm_up=sizes.warm_up,
        leapfrog=sizes.leapfrog, seed=derive_seed(seed, "push"),
    )  # fmt: skip
    kept = chains.z[:: sizes.thin]
    values = _at_grid(problem, kept).reshape(len(kept), sizes.sets, sizes.chains, -1)
    values = values.swapaxes(1, 2)
    samples = values.reshape(-1, sizes.sets, len(GRID))
    return judged(samples, chains.gradients * sizes.chains, sizes.members) | {
        "all_mean": samples.mean(axis=0), "all_spread": samples.std(axis=0, ddof=1),
        "r_hat": r_hat(values), "size": effective_sample_size(values),
        "size_sd": effective_sample_size(values, "sd"),
        "size_tail": effective_sample_size(values, "tail"),
        "accepted": chains.accepted.numpy(),
    }  # fmt: skip


def _refits(problem, x, y, seed, sizes, *, resampled=False, restarted=True, anchored=False):
    """Modes of several networks for each set of data."""
    rng, members = np.random.default_rng(derive_seed(seed, "refits")), sizes.members
    x, y = np.repeat(x, members, axis=0), np.repeat(y, members, axis=0)
    model, weights, anchors = problem.model, None, None
    start = model.draw_prior(len(x), derive_seed(seed, "start"))
    if not restarted:  # the first of each set
        start = start[::members].repeat_interleave(members, dim=0)
    if resampled:
        weights = rng.multinomial(CASES, np.full(CASES, 1 / CASES), len(x))
    if anchored:
        y, anchors = y + NOISE * rng.normal(size=y.shape), start
    iterations = sizes.iterations
    z = find_map_estimates(
        model, x, y, start, weights=weights, anchors=anchors, iterations=iterations
    )
    z = z.reshape(sizes.sets, members, -1).transpose(0, 1)
    return judged(_at_grid(problem, z), iterations * members, members)


def _ensemble(problem, x, y, seed, sizes):
    """Networks trained as one trains networks, from different starts, without a penalty."""
    x, y = np.repeat(x, sizes.members, axis=0), np.repeat(y, sizes.members, axis=0)
    start = problem.model.draw_prior(len(x), derive_seed(seed, "start"))
    z = train_networks(problem.model, x, y, start, prior=0.0, steps=sizes.steps)
    z = z.reshape(sizes.sets, sizes.members, -1).transpose(0, 1)
    return judged(_at_grid(problem, z), sizes.steps * sizes.members, sizes.members)


def _laplace(problem, x, y, seed, sizes, last_layer=False):
    at, found = problem.features(GRID[:, None]), []
    start = problem.model.draw_prior(sizes.sets, derive_seed(seed, "start"))
    modes = find_map_estimates(problem.model, x, y, start, iterations=sizes.iterations)
    for i, z in enumerate(modes):
        fit = fit_laplace(problem.model, x[i], z, last_layer)
        found.append(fit.sample(at, sizes.members, derive_seed(seed, "laplace", i)))
    return judged(np.stack(found, axis=1), sizes.iterations + 1, sizes.members)


def _dropout(problem, x, y, seed, sizes):
    start = problem.model.draw_prior(sizes.sets, derive_seed(seed, "start"))
    z = train_networks(
        problem.model, x, y, start, drop=DROP, steps=sizes.steps, seed=derive_seed(seed, "masks")
    )
    generator = torch.Generator().manual_seed(derive_seed(seed, "passes"))
    masks = draw_masks(problem.model, (sizes.members, sizes.sets), DROP, generator)
    return judged(_at_grid(problem, z * masks), sizes.steps, sizes.members)


def _exact(problem, x, y, seed, sizes):
    """Of a linear model; nothing, where there are hidden layers."""
    if len(problem.model.sizes) > 2:
        return {}
    at, model = torch.from_numpy(problem.features(GRID[:, None])), problem.model
    draws = [
        exact_linear(model, x[i], y[i]).sample(sizes.members, derive_seed(seed, "exact", i))
        for i in range(sizes.sets)
    ]
    samples = [model.outputs(z, at).numpy() for z in draws]
    return judged(np.stack(samples, axis=1), 0, sizes.members)


WAYS = {
    "exact": _exact,
    "hmc": _hmc,
    "laplace": _laplace,
    "last_layer": partial(_laplace, last_layer=True),
    "anchored": partial(_refits, anchored=True),
    "ensemble": _ensemble,
    "modes": _refits,
    "bootstrap": partial(_refits, resampled=True, restarted=False),
    "both": partial(_refits, resampled=True),
    "dropout": _dropout,
}
