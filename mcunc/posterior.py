r"""Roads to `samples`: what each is an estimate of, on models small enough to know the answer.

A network with a normal prior on its weights and noise of known size has a posterior.
`sample_hmc` draws from it; `fit_maps` (bootstrap refits, anchored ensembles), `train_networks`
(deep ensembles, dropout) and `fit_laplace` stand in for it; where the model is linear it is
normal and known (`exact_linear`).
Introduced in chapter 4.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.func import functional_call, jacrev, vmap

from mcunc._internal.checks import (
    as_array,
    check_choice,
    check_count,
    check_fraction,
    check_positive,
)
from mcunc.networks import ParallelMLP


class RegressionModel:
    r"""A multilayer perceptron with a prior, and normal noise of known size on one output.

    .. math:: y = f_\theta(x) + \sigma \varepsilon, \qquad \theta = s \odot z, \quad z \sim N(0, I)

    Everything works on the standardised parameters z, so that the prior is the same for all of
    them.  Weights have prior standard deviation `weight_scale` divided by the root of the fan-in,
    biases `bias_scale`.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, inputs first; the last is 1.  ``(k, 1)`` is linear regression.
    noise : float, σ, in units of y
    activation : {"tanh", "relu", "none"}
    weight_scale, bias_scale : float

    Raises
    ------
    ValueError
        For sizes that do not end in 1, scales that are not positive, or as in `ParallelMLP`.
    """

    def __init__(self, sizes, noise, activation="tanh", weight_scale=1.0, bias_scale=1.0):
        self.network = ParallelMLP(1, sizes, activation).double().requires_grad_(False)
        self.sizes, self.activation = tuple(sizes), activation
        if self.sizes[-1] != 1:
            raise ValueError(f"sizes: must end in 1 output, got {self.sizes}")
        self.noise = check_positive("noise", noise)
        weight_scale = check_positive("weight_scale", weight_scale)
        bias_scale = check_positive("bias_scale", bias_scale)
        self.shapes, scales = {}, []
        for i, (inputs, outputs) in enumerate(pairwise(self.sizes)):
            for kind, rows, scale in (
                ("weights", inputs, weight_scale / inputs**0.5), ("biases", 1, bias_scale),
            ):  # fmt: skip
                self.shapes[f"{kind}.{i}"] = (rows, outputs)
                scales += [scale] * (rows * outputs)
        self.scale = torch.tensor(scales, dtype=torch.float64)

    def __len__(self):
        """Number of parameters, P."""
        return len(self.scale)

    def draw_prior(self, draws, seed=0):
        """(draws, P) standardised parameters."""
        generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
        draws = check_count("draws", draws)
        return torch.randn(draws, len(self), generator=generator, dtype=torch.float64)

    def outputs(self, z, x):
        """Values of f, (R, n), for parameters (R, P) and inputs (n, k) or (R, n, k)."""
        x = torch.as_tensor(x).double()
        theta, state, start = z * self.scale, {}, 0
        for name, (rows, columns) in self.shapes.items():
            state[name] = theta[:, start : start + rows * columns].reshape(-1, rows, columns)
            start += rows * columns
        return functional_call(self.network, state, (x,))[..., 0]

    def slopes(self, z, x):
        """Derivatives of f by the parameters: (R, n, P), at inputs (n, k) or (R, n, k)."""
        x = torch.as_tensor(x).double()
        of = jacrev(lambda one, at: self.outputs(one[None], at)[0])
        return vmap(of, in_dims=(0, 0 if x.ndim == 3 else None))(z, x)

    def log_joint(self, z, x, y):
        """Log density of data and parameters, up to a constant: (R,); y is (n,) or (R, n)."""
        squares = ((torch.as_tensor(y).double() - self.outputs(z, x)) / self.noise) ** 2
        return -(squares.sum(dim=-1) + (z**2).sum(dim=-1)) / 2


def exact_linear(model, x, y):
    r"""Posterior of the standardised parameters where the model is linear: normal.

    .. math:: \Sigma = (I + \tilde X^\top \tilde X / \sigma^2)^{-1}, \quad
              \mu = \Sigma \tilde X^\top y / \sigma^2, \qquad \tilde X = (x, 1)\,\mathrm{diag}(s)

    Source: Bishop (2006), *Pattern Recognition and Machine Learning*, equations 3.53 and 3.54.

    Parameters
    ----------
    model : RegressionModel of sizes (k, 1)
    x : (n, k) array
    y : (n,) array

    Returns
    -------
    Normal of the parameters, (P,) and (P, P)

    Raises
    ------
    ValueError
        For a model with hidden layers, or arrays that do not fit.
    """
    if len(model.sizes) != 2:
        raise ValueError(f"model: needs sizes (k, 1) to be linear, got {model.sizes}")
    x, y = _data(model, x, y, several=False)
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1) * model.scale
    precision = torch.eye(len(model), dtype=x.dtype) + design.T @ design / model.noise**2
    covariance = torch.linalg.inv(precision)
    return Normal(covariance @ design.T @ y / model.noise**2, covariance)


@dataclass(frozen=True, eq=False)
class Normal:
    """A normal distribution.

    Attributes
    ----------
    mean : (P,) tensor
    covariance : (P, P) tensor
    """

    mean: torch.Tensor
    covariance: torch.Tensor

    def draw(self, draws, seed=0):
        """(draws, P) tensor."""
        generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
        shape = check_count("draws", draws), len(self.mean)
        noise = torch.randn(shape, generator=generator, dtype=self.mean.dtype)
        values, vectors = torch.linalg.eigh(self.covariance)
        return self.mean + noise @ (vectors * values.clamp(min=0).sqrt()).T


def fit_laplace(model, x, z, last_layer=False):
    r"""Normal around a mode, as if the network were linear in its parameters there.

    .. math:: z \sim N\bigl(\hat z,\; (I + J^\top J / \sigma^2)^{-1}\bigr), \qquad
              J_{ij} = \partial f_{\hat z}(x_i) / \partial z_j

    Draws of the function are then :math:`f_{\hat z} + J (z - \hat z)`; to put z into the network
    itself, outside the range in which it is nearly linear, is a poor thing to do.
    Source: MacKay (1992), with the curvature of the linear model in place of all of it; Immer,
    Korzepa & Bauer (2021); Daxberger et al. (2021).

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, inputs that were learned from; the outcomes are in the mode
    z : (P,) tensor, a mode, as `fit_maps` finds it
    last_layer : bool
        Only the last weights and bias vary: linear regression on the features of the last layer.

    Returns
    -------
    Laplace

    Raises
    ------
    ValueError
        For arrays that do not fit.
    """
    x, z = _inputs(model, x), _parameters("z", model, z, members=0)
    free = torch.arange(len(model) - model.sizes[-2] - 1 if last_layer else 0, len(model))
    design = model.slopes(z[None], x)[0][:, free]
    precision = torch.eye(len(free), dtype=z.dtype) + design.T @ design / model.noise**2
    return Laplace(model, z, free, Normal(z[free], torch.linalg.inv(precision)))


@dataclass(frozen=True, eq=False)
class Laplace:
    """A network linearised at a mode, and the normal distribution of its free parameters.

    Attributes
    ----------
    model : RegressionModel
    z : (P,) tensor, the mode
    free : tensor of indices, the parameters that vary
    posterior : Normal of those
    """

    model: RegressionModel
    z: torch.Tensor
    free: torch.Tensor
    posterior: Normal

    def sample(self, x, draws=50, seed=0):
        """(T, N) array of draws of the function at (N, k) inputs."""
        x = _inputs(self.model, x)
        steps = self.posterior.draw(draws, seed) - self.posterior.mean
        slopes = self.model.slopes(self.z[None], x)[0][:, self.free]
        return (self.model.outputs(self.z[None], x) + steps @ slopes.T).numpy()

    def moments(self, x):
        """Mean (N,) and covariance (N, N) of the function at (N, k) inputs, as arrays."""
        x = _inputs(self.model, x)
        slopes = self.model.slopes(self.z[None], x)[0][:, self.free]
        mean = self.model.outputs(self.z[None], x)[0]
        return mean.numpy(), (slopes @ self.posterior.covariance @ slopes.T).numpy()


def fit_maps(model, x, y, start, *, weights=None, anchors=None, iterations=200):
    r"""Modes of the posterior, of R networks at once, by Levenberg and Marquardt's method.

    Each minimises :math:`\sum_i w_i (y_i - f_z(x_i))^2 / 2\sigma^2 + |z - a|^2 / 2`.  With
    `weights` that say how often each case was drawn they are bootstrap refits (Efron 1979); with
    `anchors` drawn from the prior an anchored ensemble (Pearce, Leibfried & Brintrup 2020), and if
    noise is added to `y` as well, different for each, its members are exact draws from the
    posterior where the model is linear (Matthews, Hron, Turner & Ghahramani 2017).

    A step solves the problem with f made linear, damped more after one that made things worse
    (Nocedal & Wright 2006, section 10.3).  It needs the slope of every case by itself: as many
    case gradients as one gradient of the loss, and more work with them.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k)
    y : (n,) or (R, n) array
    start : (R, P) tensor, as `RegressionModel.draw_prior` gives it
    weights : (R, n) array, optional
    anchors : (R, P) tensor, optional; zero without it
    iterations : int

    Returns
    -------
    (R, P) tensor

    Raises
    ------
    ValueError
        For arrays that do not fit.
    """
    x, y = _data(model, x, y)
    z = _parameters("start", model, start)
    _check_members(len(z), x=(x, 3), y=(y, 2))
    if anchors is None:
        anchors = torch.zeros_like(z)
    anchors = _parameters("anchors", model, anchors, len(z))
    root = _counts(weights, len(z), y.shape[-1]).sqrt() / model.noise
    damping, loss = torch.full((len(z), 1), 0.01, dtype=z.dtype), None
    for _ in range(check_count("iterations", iterations)):
        if loss is None:
            loss = _loss(model, z, x, y, root, anchors)
        design = model.slopes(z, x) * root[..., None]
        residual = root * (y - model.outputs(z, x))
        slope = (design.mT @ residual[..., None])[..., 0] + anchors - z
        curve = design.mT @ design + torch.diag_embed((1 + damping).expand_as(z))
        there = z + torch.linalg.solve(curve, slope)
        found = _loss(model, there, x, y, root, anchors)
        better = (found < loss)[:, None]  # False where it is NaN
        z, loss = torch.where(better, there, z), torch.where(better[:, 0], found, loss)
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-6, 1e9)
    return z


def _counts(weights, members, cases):
    """(R, n) tensor of how often each case counts; ones where nothing is given."""
    if weights is None:
        return torch.ones(1, 1, dtype=torch.float64)
    weights = as_array("weights", weights, ndim=2)
    if weights.shape != (members, cases) or (weights < 0).any():
        raise ValueError(
            f"weights: expected ({members}, {cases}) numbers of 0 or more, got {weights.shape}"
        )
    return torch.from_numpy(weights)


def _loss(model, z, x, y, root, anchors):
    residual = root * (y - model.outputs(z, x))
    return ((residual**2).sum(dim=1) + ((z - anchors) ** 2).sum(dim=1)) / 2


def train_networks(
    model, x, y, start, *, drop=0.0, prior=1.0, steps=1000, learning_rate=0.02, seed=0
):  # fmt: skip
    r"""Train R networks as one trains networks, by Adam, for so many steps; with dropout or not.

    With `prior` = 0 the penalty is left out, and where they end depends on where they began and
    on how long they went.  With `drop` there are new masks at every step, one for all cases.
    Parameters times masks are used as they are, so that the penalty is in the mean that of Gal &
    Ghahramani (2016), :math:`(1 - p) |M|^2 / 2` with :math:`M = z / (1 - p)` in the rows that are
    dropped.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k)
    y : (n,) or (R, n) array
    start : (R, P) tensor
    drop : float in [0, 1), probability to drop, as in `draw_masks`
    prior : float, factor of :math:`|z|^2 / 2`
    steps : int, the rate falling to 0 as a cosine
    learning_rate : float, at the first step
    seed : int, of the masks

    Returns
    -------
    (R, P) tensor; with dropout, times `draw_masks` it is a draw of parameters

    Raises
    ------
    ValueError
        For arrays that do not fit, or numbers outside their range.
    """
    x, y = _data(model, x, y)
    z = _parameters("start", model, start).clone().requires_grad_()
    _check_members(len(z), x=(x, 3), y=(y, 2))
    drop = 0.0 if _is_zero(drop) else check_fraction("drop", drop)
    prior = 0.0 if _is_zero(prior) else check_positive("prior", prior)
    steps = check_count("steps", steps)
    optimiser = torch.optim.Adam([z], lr=check_positive("learning_rate", learning_rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
    for _ in range(steps):
        used = z * draw_masks(model, z.shape[:1], drop, generator) if drop else z
        optimiser.zero_grad()
        # log_joint has all of the prior in it.
        loss = -model.log_joint(used, x, y) - (1 - prior) * (used**2).sum(dim=1) / 2
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return z.detach()


def _is_zero(value):
    return isinstance(value, (int, float)) and value == 0


def draw_masks(model, shape, p, generator):
    r"""Dropout as a law of the parameters: factors of z, 0 or 1 / (1 - p).

    A unit that is dropped takes its row of the next layer's weights with it, so that
    :math:`z = m \odot \text{mask}` has the law that Gal & Ghahramani (2016) write
    :math:`M \cdot \mathrm{diag}(z)`.  Biases are never dropped, and inputs only where
    the model is linear and there is nothing else.

    Parameters
    ----------
    model : RegressionModel
    shape : tuple of int, ``(R,)`` or ``(T, R)``
    p : float in (0, 1), probability to drop
    generator : torch.Generator

    Returns
    -------
    (*shape, P) tensor

    Raises
    ------
    ValueError
        For a probability outside (0, 1).
    """
    p = check_fraction("p", p)
    parts, first = [], 0 if len(model.sizes) == 2 else 1
    for name, (rows, columns) in model.shapes.items():
        masks = torch.ones(*shape, rows, 1, dtype=torch.float64)
        kind, layer = name.split(".")
        if kind == "weights" and int(layer) >= first:
            masks = (torch.rand(*shape, rows, 1, generator=generator) >= p) / (1 - p)
        parts.append(masks.expand(*shape, rows, columns).flatten(-2))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws by Hamiltonian Monte Carlo.

    Attributes
    ----------
    z : (T, R, P) tensor, draws of R chains
    accepted : (R,) tensor, share of proposals that were accepted
    step_size : (R,) tensor
    gradients : int, evaluations of the gradient by each chain, warm-up included
    """

    z: torch.Tensor
    accepted: torch.Tensor
    step_size: torch.Tensor
    gradients: int


def sample_hmc(
    model, x, y, start, *, draws=1000, warm_up=1000, leapfrog=50, target=0.8, seed=0
):  # fmt: skip
    """Hamiltonian Monte Carlo on the posterior, R chains at once.

    Each chain has a step size of its own, adapted in the warm-up by dual averaging until the
    share of accepted proposals is `target`; the number of leapfrog steps of a trajectory is drawn
    anew each time, from 1 to twice `leapfrog`, so that few come back to where they began.
    Source: Neal (2011), *MCMC using Hamiltonian dynamics*; Hoffman & Gelman (2014), section 3.2,
    but for the first step size, which is 0.01.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k): chains may be of different data sets
    y : (n,) or (R, n) array
    start : (R, P) tensor
    draws, warm_up : int
    leapfrog : int, mean number of steps of a trajectory, less one half
    target : float in (0, 1)
    seed : int

    Returns
    -------
    Chains

    Raises
    ------
    ValueError
        For arrays that do not fit, or numbers outside their range.
    """
    x, y = _data(model, x, y)
    z = _parameters("start", model, start).clone()
    _check_members(len(z), x=(x, 3), y=(y, 2))
    draws, warm_up = check_count("draws", draws), check_count("warm_up", warm_up)
    leapfrog, target = check_count("leapfrog", leapfrog), check_fraction("target", target)
    generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
    adapted = _StepSize(len(z), target)
    kept = torch.zeros(draws, *z.shape, dtype=z.dtype)
    accepted, gradients = torch.zeros(len(z)), 1
    value, slope = _log_density(model, z, x, y)
    for t in range(warm_up + draws):
        steps = int(torch.randint(1, 2 * leapfrog + 1, (), generator=generator))
        momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        energy = value - (momentum**2).sum(dim=1) / 2
        place, there, force, p = z, value, slope, momentum
        size = adapted.size(warm=t < warm_up)[:, None]
        for _ in range(steps):
            p = p + size / 2 * force
            place = place + size * p
            there, force = _log_density(model, place, x, y)
            p = p + size / 2 * force
        gradients += steps
        chance = (there - (p**2).sum(dim=1) / 2 - energy).exp().nan_to_num(0).clamp(max=1)
        moved = torch.rand(len(z), generator=generator, dtype=z.dtype) < chance
        z = torch.where(moved[:, None], place, z)
        value, slope = torch.where(moved, there, value), torch.where(moved[:, None], force, slope)
        if t < warm_up:
            adapted.update(chance)
        else:
            kept[t - warm_up] = z
            accepted += moved / draws
    return Chains(kept, accepted, adapted.size(warm=False), gradients)


def _log_density(model, z, x, y):
    """Value (R,) and gradient (R, P); chains do not meet, so that one sum serves all."""
    z = z.detach().requires_grad_()
    value = model.log_joint(z, x, y)
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


class _StepSize:
    """Dual averaging of the logarithm: Hoffman & Gelman (2014), equation 6 and their constants."""

    def __init__(self, chains, target, first=0.01):
        self.target, self.steps = target, 0
        self.centre = np.log(10 * first)
        self.excess = torch.zeros(chains, dtype=torch.float64)
        self.log = torch.full((chains,), np.log(first), dtype=torch.float64)
        self.averaged = self.log.clone()

    def size(self, warm):
        return (self.log if warm else self.averaged).exp()

    def update(self, chance):
        self.steps += 1
        share = 1 / (self.steps + 10)
        self.excess = (1 - share) * self.excess + share * (self.target - chance)
        self.log = self.centre - self.steps**0.5 / 0.05 * self.excess
        weight = self.steps**-0.75
        self.averaged = weight * self.log + (1 - weight) * self.averaged


def _inputs(model, x, several=False):
    """(N, k), or (R, N, k) where `several`, tensor in double precision."""
    x = torch.from_numpy(as_array("x", x, ndim=(2, 3) if several else 2))
    if x.shape[-1] != model.sizes[0]:
        raise ValueError(f"x: has {x.shape[-1]} columns, the model takes {model.sizes[0]}")
    return x


def _data(model, x, y, several=True):
    """Inputs and outcomes in double precision; with an axis of networks where `several`."""
    x = _inputs(model, x, several)
    y = torch.from_numpy(as_array("y", y, ndim=(1, 2) if several else 1))
    if y.shape[-1] != x.shape[-2]:
        raise ValueError(f"y: has {y.shape[-1]} values for {x.shape[-2]} rows of x")
    return x, y


def _parameters(name, model, z, members=None):
    """(R, P) parameters in double precision, or (P,) where `members` is 0."""
    ndim = 1 if members == 0 else 2
    if not torch.is_tensor(z) or z.ndim != ndim or z.shape[-1] != len(model):
        shape = f"({len(model)},)" if members == 0 else f"(R, {len(model)})"
        raise ValueError(f"{name}: expected a tensor of shape {shape}, got {np.shape(z)}")
    if members and len(z) != members:
        raise ValueError(f"{name}: has {len(z)} rows for {members} networks")
    if not torch.isfinite(z).all():
        raise ValueError(f"{name}: contains NaN or infinity")
    return z.detach().double()


def _check_members(members, **arrays):
    """Arrays with an axis of networks have as many of them as there are."""
    for name, (value, ndim) in arrays.items():
        if value.ndim == ndim and len(value) != members:
            raise ValueError(f"{name}: is of {len(value)} networks, start of {members}")


# Have the chains met? ---------------------------------------------------------------------------


def r_hat(samples):
    r"""Rank-normalised split R-hat of a quantity: 1 where the chains have met.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), sections 3.1 and 4.1, as
    `arviz-stats` computes it.

    Parameters
    ----------
    samples : (T, R, ...) array, T draws of R chains, of each of many quantities

    Returns
    -------
    (...) array; NaN for what never changes

    Raises
    ------
    ValueError
        For fewer than four draws, a single chain, or values that are not finite.
    """
    return _diagnostic("rhat", samples, chains=2)


def effective_sample_size(samples, kind="mean"):
    r"""How many independent draws would tell a summary of the quantity as well.

    The number differs between summaries of the same chains: the squares of a quantity may be
    correlated for longer than the quantity itself, or for less long.
    Source: Vehtari et al. (2021), sections 3.2 and 4.3, as `arviz-stats` computes it.

    Parameters
    ----------
    samples : (T, R, ...) array, T draws of R chains
    kind : {"mean", "sd", "tail"}
        The mean, the standard deviation, or the worse one of the 5 % and 95 % quantiles.

    Returns
    -------
    (...) array; NaN for what never changes

    Raises
    ------
    ValueError
        For fewer than four draws, values that are not finite, or another kind.
    """
    check_choice("kind", kind, ("mean", "sd", "tail"))
    options = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    return _diagnostic("ess", samples, method=kind, **options)


def _diagnostic(name, samples, chains=1, **options):
    """What arviz-stats finds for (T, R, ...) samples.

    It takes a range below 1e-15 for none, so quantities come to it in units of about their range:
    powers of two, which round nothing.
    """
    from arviz_stats.base import array_stats  # not at the top: it takes a second

    shape = np.shape(samples)
    if len(shape) < 2 or shape[0] < 4 or shape[1] < chains:
        raise ValueError(
            f"samples: expected (T, R, …), T of 4 or more and R of {chains} or more, got {shape}"
        )
    samples = as_array("samples", samples, ndim=len(shape))
    width = np.ptp(samples, axis=(0, 1))
    samples = np.where(width > 0, np.ldexp(samples, -np.frexp(width)[1]), np.nan)
    return getattr(array_stats, name)(samples, chain_axis=1, draw_axis=0, **options)
