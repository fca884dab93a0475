r"""Methods that stand in for a posterior, each compared with it: chapter 4.

It shows whose spread is right; 25 minutes on two cores.  Curves are drawn from the prior of the
very model that is then fitted to them, so that the posterior covers them as often as it should.
A method is judged by mean, spread and coverage, point by point and along the whole curve.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch

from mcunc import posterior
from mcunc._internal.seeds import derive_seed
from mcunc.runs.common import cached, recorded_run

NOISE = 0.1
INNER, OUTER, CASES = 0.7, 2.0, 30  # inputs lie between the first two, on either side of 0
GRID = np.linspace(-3, 3, 61)
DROP = 0.05
LEVEL = 0.95
# Curves; members of an ensemble, and passes of dropout; iterations of a mode; steps of a member and
# of dropout; and those of `posterior.sample_hmc`, of whose draws one in `thin` is kept.
SIZES = SimpleNamespace(
    sets=40, members=50, iterations=200, steps=2000, chains=4, draws=4000, warm_up=500, leapfrog=50,
    thin=2,
)  # fmt: skip
PRIOR = {"weight_scale": 2.0, "bias_scale": 2.0}


def hidden(x):
    """The hidden units of one network that the prior gave."""
    weights, biases = np.random.default_rng(0).normal(0, 2, (2, 10))
    return np.tanh(x * weights + biases)


# Models that are right for their curves; the inputs of each are a function of x, (..., 1).
PROBLEMS = {
    "network": (posterior.RegressionModel((1, 20, 1), NOISE, **PRIOR), lambda x: x),
    "features": (posterior.RegressionModel((10, 1), NOISE, "none", **PRIOR), hidden),
}


class Task:
    """Curves drawn from the prior of a model, for a method to fit.

    Attributes
    ----------
    model : posterior.RegressionModel
    seed : int
    x, y : (D, n, k) and (D, n) arrays, features of what is seen, and outcomes
    grid : (G, k) array, features of `GRID`
    truth : (D, G) array, the curves there
    """

    def __init__(self, model, features, seed):
        self.model, self.seed = model, seed
        rng = np.random.default_rng(derive_seed(seed, "data"))
        x = rng.uniform(INNER, OUTER, (SIZES.sets, CASES)) * np.where(np.arange(CASES) % 2, 1, -1)
        self.x, self.grid = features(x[..., None]), features(GRID[:, None])
        z = model.draw_prior(SIZES.sets, derive_seed(seed, "truth"))
        self.truth, seen = (
            model.outputs(z, torch.from_numpy(points)).numpy() for points in (self.grid, self.x)
        )
        self.y = seen + NOISE * rng.normal(size=seen.shape)

    def repeated(self, n):
        """Features, outcomes and starting parameters of n networks for each curve."""
        x, y = (np.repeat(values, n, axis=0) for values in (self.x, self.y))
        return x, y, self.model.draw_prior(len(x), derive_seed(self.seed, "start"))

    def curves(self, z):
        """(T, D, G) values of the function for parameters (T, D, P)."""
        values = self.model.outputs(z.reshape(-1, z.shape[-1]), torch.from_numpy(self.grid))
        return values.reshape(*z.shape[:2], -1).numpy()

    def members(self, z, passes):
        """`judged` of the parameters of an ensemble's members, curve after curve."""
        z = z.reshape(SIZES.sets, SIZES.members, -1).transpose(0, 1)
        return judged(self.curves(z), passes * SIZES.members, SIZES.members)

    def one_by_one(self, draw, passes):
        """`judged` of the draws (members, G) that ``draw(i)`` makes for curve i."""
        samples = np.stack([draw(i) for i in range(SIZES.sets)], axis=1)
        return judged(samples, passes, SIZES.members)


@recorded_run("posterior")
def run_posterior(seed, path):
    """Draw curves, fit them by many methods, compare each with the posterior (chapter 4).

    Killed and called again, it goes on after the last method that was finished.
    """
    settings = {"noise": NOISE, "inner": INNER, "outer": OUTER, "cases": CASES, "drop": DROP}
    settings |= {"level": LEVEL} | vars(SIZES)
    arrays, seconds = {}, 0.0
    for name, problem in PROBLEMS.items():
        task = Task(*problem, seed)
        arrays |= {f"{name}_x": task.x, f"{name}_y": task.y, f"{name}_truth": task.truth}
        for method, fit in METHODS.items():
            outputs = cached(path, f"{name}-{method}", settings, partial(fit, task))
            seconds += float(outputs["seconds"])
            arrays |= {f"{name}_{method}_{key}": value for key, value in outputs.items()}
    more = {"data": "drawn by mcunc.runs.posterior_methods", "ways": list(METHODS)}
    return arrays, settings | more | {"seconds": seconds}


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


def _hmc(task):
    """Chains of all data sets side by side."""
    chains = posterior.sample_hmc(
        task.model, *task.repeated(SIZES.chains), draws=SIZES.draws, warm_up=SIZES.warm_up,
        leapfrog=SIZES.leapfrog, seed=derive_seed(task.seed, "push"),
    )  # fmt: skip
    values = task.curves(chains.z[:: SIZES.thin])
    values = values.reshape(len(values), SIZES.sets, SIZES.chains, -1).swapaxes(1, 2)
    samples = values.reshape(-1, SIZES.sets, len(GRID))
    size = posterior.effective_sample_size
    return judged(samples, chains.gradients * SIZES.chains, SIZES.members) | {
        "all_mean": samples.mean(axis=0), "all_spread": samples.std(axis=0, ddof=1),
        "r_hat": posterior.r_hat(values), "size": size(values), "size_sd": size(values, "sd"),
        "size_tail": size(values, "tail"), "accepted": chains.accepted.numpy(),
    }  # fmt: skip


def _refits(task, *, resampled=False, restarted=True, anchored=False, noisy=False):
    """Modes of several networks for each set of data."""
    rng = np.random.default_rng(derive_seed(task.seed, "refits"))
    x, y, start = task.repeated(SIZES.members)
    weights = 1.0
    if not restarted:  # the first of each set
        start = start[:: SIZES.members].repeat_interleave(SIZES.members, dim=0)
    if resampled:
        weights = rng.multinomial(CASES, np.full(CASES, 1 / CASES), len(x))
    y = y + noisy * NOISE * rng.normal(size=y.shape)
    anchors = start if anchored else 0.0
    z = posterior.find_map_estimates(
        task.model, x, y, start, weights=weights, anchors=anchors, iterations=SIZES.iterations
    )
    return task.members(z, SIZES.iterations)


def _ensemble(task, scale=1.0):
    """Networks trained as is common, without a penalty, from draws of the prior times `scale`."""
    x, y, start = task.repeated(SIZES.members)
    z = posterior.train_networks(task.model, x, y, scale * start, prior=0.0, steps=SIZES.steps)
    return task.members(z, SIZES.steps)


def _mean_field(task):
    """From a mode, so that it has not to find one."""
    seed, draws = derive_seed(task.seed, "mean field"), (SIZES.members,)
    x, y, modes = task.x, task.y, _modes(task)
    normal = posterior.fit_mean_field(task.model, x, y, modes, steps=SIZES.steps, seed=seed)
    torch.manual_seed(seed)
    passes = SIZES.iterations + 20 * SIZES.steps
    return judged(task.curves(normal.sample(draws)), passes, SIZES.members)


def _modes(task):
    return posterior.find_map_estimates(task.model, *task.repeated(1), iterations=SIZES.iterations)


def _laplace(task, last_layer=False):
    modes = _modes(task)

    def draw(i):
        fit = posterior.fit_laplace(task.model, task.x[i], modes[i], last_layer)
        return fit.sample(task.grid, SIZES.members, derive_seed(task.seed, "laplace", i))

    return task.one_by_one(draw, SIZES.iterations + 1)


def _dropout(task):
    z = posterior.train_networks(
        task.model, *task.repeated(1), drop=DROP, steps=SIZES.steps,
        seed=derive_seed(task.seed, "masks"),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(derive_seed(task.seed, "passes"))
    masks = posterior.draw_masks(task.model, (SIZES.members, SIZES.sets), DROP, generator)
    return judged(task.curves(z * masks), SIZES.steps, SIZES.members)


def _exact(task):
    """Of a linear model; nothing, where there are hidden layers."""
    if len(task.model.sizes) > 2:
        return {}

    def draw(i):
        exact = posterior.exact_linear(task.model, task.x[i], task.y[i])
        z = exact.sample(SIZES.members, derive_seed(task.seed, "exact", i))
        return task.model.outputs(z, torch.from_numpy(task.grid)).numpy()

    return task.one_by_one(draw, 0)


METHODS = {
    "exact": _exact,
    "hmc": _hmc,
    "laplace": _laplace,
    "last_layer": partial(_laplace, last_layer=True),
    "randomised_map": partial(_refits, anchored=True, noisy=True),
    "anchored": partial(_refits, anchored=True),
    "mean_field": _mean_field,
    "ensemble": _ensemble,
    # Torch's own initial weights are about 0.29 times the prior's.
    **{f"ensemble_{scale:g}": partial(_ensemble, scale=scale) for scale in (2, 0.5, 0.29)},
    "modes": _refits,
    "bootstrap": partial(_refits, resampled=True, restarted=False),
    "both": partial(_refits, resampled=True),
    "dropout": _dropout,
}
