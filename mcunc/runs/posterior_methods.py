r"""Methods that stand in for a posterior, each compared with it: chapter 4.

It shows whose spread is right; 25 minutes on two cores.  Curves are drawn from the prior of the
very model that is then fitted to them, so that the posterior covers them as often as it should.
A method is judged by mean, spread and coverage, point by point and along the whole curve.
"""

from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256

import numpy as np
import torch

from mcunc import posterior, recorded
from mcunc._internal.seeds import derive_seed
from mcunc.runs.common import cached, command, provenance, save

NOISE = 0.1
INNER, OUTER = 0.7, 2.0  # inputs lie between these, on either side of 0
CASES = 30
GRID = np.linspace(-3, 3, 61)
DROP = 0.05
LEVEL = 0.95
CHAINS = ("chains", "draws", "warm_up", "leapfrog", "thin")  # sizes that only "hmc" depends on


@dataclass(frozen=True)
class Sizes:
    """How large the run is; the defaults are the chapter's.

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
    model : posterior.RegressionModel, its inputs are `features` of x
    features : callable (..., 1) array -> (..., k) array
    """

    model: posterior.RegressionModel
    features: object

    def draw(self, sets, seed=0):
        """Features of what is seen (D, n, k), outcomes (D, n), and curves on the grid (D, G)."""
        rng = np.random.default_rng(derive_seed(seed, "data"))
        x = rng.uniform(INNER, OUTER, (sets, CASES)) * np.where(np.arange(CASES) % 2, 1, -1)
        z = self.model.draw_prior(sets, derive_seed(seed, "truth"))
        x, at = self.features(x[..., None]), self.features(GRID[:, None])
        truth, seen = (
            self.model.outputs(z, torch.from_numpy(points)).numpy() for points in (at, x)
        )
        return x, seen + NOISE * rng.normal(size=seen.shape), truth


_network = posterior.RegressionModel((1, 20, 1), NOISE, weight_scale=2.0, bias_scale=2.0)


def _hidden(x):
    """The hidden units of one network that the prior gave."""
    weights, biases = np.random.default_rng(0).normal(0, 2, (2, 10))
    return np.tanh(x * weights + biases)


PROBLEMS = {
    "network": Problem(_network, lambda x: x),
    "features": Problem(
        posterior.RegressionModel((10, 1), NOISE, "none", weight_scale=2.0, bias_scale=2.0), _hidden
    ),
}


@command("posterior")
def run_posterior(seed=0, folder="runs", sizes=None):
    """Draw curves, fit them by ten methods, compare each with the posterior (chapter 4).

    Killed and called again, it goes on after the last method that was finished.

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
    constants = {
        "noise": NOISE, "inner": INNER, "outer": OUTER, "cases": CASES, "drop": DROP,
        "level": LEVEL,
    }  # fmt: skip
    settings = constants | asdict(sizes)
    common = {key: value for key, value in settings.items() if key not in CHAINS}
    arrays, seconds = {}, 0.0
    for name, problem in PROBLEMS.items():
        x, y, truth = curves = problem.draw(sizes.sets, seed)
        arrays |= {f"{name}_x": x, f"{name}_y": y, f"{name}_truth": truth}
        digest = sha256(b"".join(values.tobytes() for values in curves)).hexdigest()
        for method, fit in METHODS.items():
            outputs = cached(
                path.with_name(f"{path.stem}-{name}-{method}.npz"),
                (settings if method == "hmc" else common) | {"curves": digest},
                partial(fit, Task(problem, x, y, seed, sizes)),
            )
            seconds += float(outputs["seconds"])
            arrays |= {f"{name}_{method}_{key}": value for key, value in outputs.items()}
    record = provenance(f"posterior --seed {seed}", seed, seconds=seconds) | settings
    more = {"data": "drawn by mcunc.runs.posterior_methods", "ways": list(METHODS)}
    return save(path, arrays, record | more)


def judged(samples, passes, members):
    """Mean and spread of (T, D, G) draws, and how wide a band holds whole curves.

    The band is the mean plus or minus so many standard deviations that the fraction `LEVEL` of the
    draws stays within it everywhere.  With few draws it holds fewer of the curves to come than of
    those it was made from, so that all methods are given the same number, `members`.

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


@dataclass(frozen=True, eq=False)
class Task:
    """Curves for a method to fit: features (D, n, k) and outcomes (D, n) of a problem."""

    problem: Problem
    x: np.ndarray
    y: np.ndarray
    seed: int
    sizes: Sizes

    @property
    def model(self):
        return self.problem.model

    @property
    def grid(self):
        """Features of the grid."""
        return self.problem.features(GRID[:, None])

    def derive_seed(self, purpose, *numbers):
        return derive_seed(self.seed, purpose, *numbers)

    def repeated(self, n):
        """Features, outcomes and starting parameters of n networks for each curve."""
        x, y = (np.repeat(values, n, axis=0) for values in (self.x, self.y))
        return x, y, self.model.draw_prior(len(x), self.derive_seed("start"))

    def curves(self, z):
        """(T, D, G) values of the function for parameters (T, D, P)."""
        values = self.model.outputs(z.reshape(-1, z.shape[-1]), torch.from_numpy(self.grid))
        return values.reshape(*z.shape[:2], -1).numpy()

    def members(self, z, passes):
        """`judged` of the parameters of an ensemble's members, curve after curve."""
        z = z.reshape(self.sizes.sets, self.sizes.members, -1).transpose(0, 1)
        return judged(self.curves(z), passes * self.sizes.members, self.sizes.members)

    def one_by_one(self, draw, passes):
        """`judged` of the draws (members, G) that ``draw(i)`` makes for curve i."""
        samples = np.stack([draw(i) for i in range(self.sizes.sets)], axis=1)
        return judged(samples, passes, self.sizes.members)


def _hmc(task):
    """Chains of all data sets side by side."""
    sizes = task.sizes
    chains = posterior.sample_hmc(
        task.model, *task.repeated(sizes.chains), draws=sizes.draws, warm_up=sizes.warm_up,
        leapfrog=sizes.leapfrog, seed=task.derive_seed("push"),
    )  # fmt: skip
    values = task.curves(chains.z[:: sizes.thin])
    values = values.reshape(len(values), sizes.sets, sizes.chains, -1).swapaxes(1, 2)
    samples = values.reshape(-1, sizes.sets, len(GRID))
    size = posterior.effective_sample_size
    return judged(samples, chains.gradients * sizes.chains, sizes.members) | {
        "all_mean": samples.mean(axis=0), "all_spread": samples.std(axis=0, ddof=1),
        "r_hat": posterior.r_hat(values), "size": size(values), "size_sd": size(values, "sd"),
        "size_tail": size(values, "tail"), "accepted": chains.accepted.numpy(),
    }  # fmt: skip


def _refits(task, *, resampled=False, restarted=True, anchored=False):
    """Modes of several networks for each set of data."""
    rng, sizes = np.random.default_rng(task.derive_seed("refits")), task.sizes
    x, y, start = task.repeated(sizes.members)
    weights, anchors = 1.0, 0.0
    if not restarted:  # the first of each set
        start = start[:: sizes.members].repeat_interleave(sizes.members, dim=0)
    if resampled:
        weights = rng.multinomial(CASES, np.full(CASES, 1 / CASES), len(x))
    if anchored:
        y, anchors = y + NOISE * rng.normal(size=y.shape), start
    z = posterior.find_map_estimates(
        task.model, x, y, start, weights=weights, anchors=anchors, iterations=sizes.iterations
    )
    return task.members(z, sizes.iterations)


def _ensemble(task):
    """Networks trained as is common, from different initialisations, without a penalty."""
    x, y, start = task.repeated(task.sizes.members)
    z = posterior.train_networks(task.model, x, y, start, prior=0.0, steps=task.sizes.steps)
    return task.members(z, task.sizes.steps)


def _laplace(task, last_layer=False):
    members, iterations = task.sizes.members, task.sizes.iterations
    modes = posterior.find_map_estimates(task.model, *task.repeated(1), iterations=iterations)

    def draw(i):
        fit = posterior.fit_laplace(task.model, task.x[i], modes[i], last_layer)
        return fit.sample(task.grid, members, task.derive_seed("laplace", i))

    return task.one_by_one(draw, iterations + 1)


def _dropout(task):
    sizes = task.sizes
    z = posterior.train_networks(
        task.model, *task.repeated(1), drop=DROP, steps=sizes.steps,
        seed=task.derive_seed("masks"),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(task.derive_seed("passes"))
    masks = posterior.draw_masks(task.model, (sizes.members, sizes.sets), DROP, generator)
    return judged(task.curves(z * masks), sizes.steps, sizes.members)


def _exact(task):
    """Of a linear model; nothing, where there are hidden layers."""
    if len(task.model.sizes) > 2:
        return {}
    members = task.sizes.members

    def draw(i):
        exact = posterior.exact_linear(task.model, task.x[i], task.y[i])
        z = exact.sample(members, task.derive_seed("exact", i))
        return task.model.outputs(z, torch.from_numpy(task.grid)).numpy()

    return task.one_by_one(draw, 0)


METHODS = {
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
