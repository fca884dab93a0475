r"""Samples from the posterior of small networks, and approximations of it.

The networks have a normal prior on their weights and normal noise of known size. `sample_hmc` draws
from the posterior. `find_map_estimates` (bootstrap refits, anchored ensembles, randomised MAP
sampling), `train_networks` (deep ensembles, dropout), `fit_laplace` and `fit_mean_field`
(variational inference) approximate it. `exact_linear` gives the exact normal posterior of a linear
model.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.func import jacrev, vmap

from mcunc._internal import checks
from mcunc._internal.deprecation import moved, renamed_attribute
from mcunc.networks import _ACTIVATIONS, _check_sizes

__all__ = ["Chains", "Laplace", "Normal", "RegressionModel", "draw_masks"]
__all__ += ["effective_sample_size", "exact_linear", "find_map_estimates", "fit_laplace"]
__all__ += ["fit_mean_field", "r_hat", "sample_hmc", "train_networks"]
__getattr__ = moved(__name__, {"fit_maps": "posterior.find_map_estimates"})


class RegressionModel:
    r"""A multilayer perceptron with one output, a normal prior and normal noise of known size.

    .. math:: y = f_\theta(x) + \sigma \varepsilon, \qquad \theta = s \odot z, \quad z \sim N(0, I)

    All functions use the standardised parameters z, which have standard normal priors. The scales s
    are `weight_scale` divided by the root of the fan-in for weights, and `bias_scale` for biases.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, inputs first; the last is 1. ``(k, 1)`` is linear regression.
    noise : float, σ, in units of y
    activation : {"tanh", "relu", "none"}
    weight_scale, bias_scale : float

    Raises
    ------
    ValueError
        For sizes that do not end in 1, noise that is not positive, or as in `ParallelMLP`.

    Examples
    --------
    >>> import torch
    >>> from mcunc.posterior import RegressionModel
    >>> model = RegressionModel((1, 20, 1), noise=0.1)
    >>> z = model.draw_prior(draws=5)  # standardised parameters of five networks
    >>> x = torch.linspace(-1, 1, 30)[:, None]
    >>> tuple(z.shape), tuple(model.outputs(z, x).shape), tuple(model.jacobian(z, x).shape)
    ((5, 61), (5, 30), (5, 30, 61))
    """

    def __init__(self, sizes, noise, activation="tanh", weight_scale=1.0, bias_scale=1.0):
        self.sizes = _check_sizes(sizes)
        self.activation = checks.check_choice("activation", activation, tuple(_ACTIVATIONS))
        if self.sizes[-1] != 1:
            raise ValueError(f"sizes: must end in 1 output, got {self.sizes}")
        self.noise = checks.check_positive("noise", noise)
        scales, self.lengths = [], []  # of the weights and the biases of each layer in turn
        for inputs, outputs in pairwise(self.sizes):
            scales += [weight_scale / inputs**0.5, bias_scale]
            self.lengths += [inputs * outputs, outputs]
        self.scale = torch.from_numpy(np.repeat(scales, self.lengths))

    def __len__(self):
        """Number of parameters, P."""
        return len(self.scale)

    def draw_prior(self, draws, seed=0):
        """(draws, P) standardised parameters."""
        return torch.randn(draws, len(self), generator=_generator(seed), dtype=torch.float64)

    def outputs(self, z, x):
        """Values of f, (R, n), for parameters (R, P) and inputs (n, k) or (R, n, k)."""
        x, parts = torch.as_tensor(x).double(), (z * self.scale).split(self.lengths, dim=-1)
        for i, (inputs, outputs) in enumerate(pairwise(self.sizes)):
            x = _ACTIVATIONS[self.activation]()(x) if i else x
            x = x @ parts[2 * i].reshape(-1, inputs, outputs) + parts[2 * i + 1][:, None]
        return x[..., 0]

    def jacobian(self, z, x):
        """Derivatives of f with respect to z, (R, n, P), at inputs (n, k) or (R, n, k)."""
        x = torch.as_tensor(x).double()
        one = jacrev(lambda z, x: self.outputs(z[None], x)[0])
        return vmap(one, in_dims=(0, 0 if x.ndim == 3 else None))(z, x)

    slopes = renamed_attribute("slopes", "jacobian")

    def log_joint(self, z, x, y, weights=1.0, anchors=0.0):
        """(R,) log density of data y, (n,) or (R, n), and parameters z, up to a constant.

        `weights` (R, n) weights the cases, and `anchors` (R, P) is the mean of the prior.
        """
        squares = weights * ((torch.as_tensor(y).double() - self.outputs(z, x)) / self.noise) ** 2
        return -(squares.sum(dim=-1) + ((z - anchors) ** 2).sum(dim=-1)) / 2


def _generator(seed):
    return torch.Generator().manual_seed(checks.check_count("seed", seed, 0))


def exact_linear(model, x, y):
    r"""Exact posterior of the standardised parameters of a linear model, a normal distribution.

    .. math:: \Sigma = (I + \tilde X^\top \tilde X / \sigma^2)^{-1}, \quad
              \mu = \Sigma \tilde X^\top y / \sigma^2, \qquad \tilde X = (x, 1)\,\mathrm{diag}(s)

    Parameters
    ----------
    model : RegressionModel of sizes (k, 1)
    x : (n, k) array
    y : (n,) array

    Returns
    -------
    Normal with mean (P,) and covariance (P, P)

    Raises
    ------
    ValueError
        For a model with hidden layers, or arrays that do not fit.

    Notes
    -----
    Source: Bishop (2006), *Pattern Recognition and Machine Learning*, equations 3.53 and 3.54.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc.posterior import RegressionModel, exact_linear
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> exact = exact_linear(RegressionModel((1, 1), noise=0.1), x, 0.5 * x[:, 0] - 0.2)
    >>> exact.mean.numpy().round(2)  # slope and intercept
    array([ 0.5, -0.2])
    """
    if len(model.sizes) != 2:
        raise ValueError(f"model: needs sizes (k, 1) to be linear, got {model.sizes}")
    x = _inputs(model, x)
    y = torch.from_numpy(checks.as_outcomes("y", y, len(x)))
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1) * model.scale
    covariance = _covariance(design, model)
    return Normal(covariance @ design.T @ y / model.noise**2, covariance)


def _covariance(design, model):
    """Posterior covariance of a linear model with standard normal parameters."""
    return torch.linalg.inv(torch.eye(design.shape[1]) + design.T @ design / model.noise**2)


@dataclass(frozen=True, eq=False)
class Normal:
    """A normal distribution.

    Attributes
    ----------
    mean : (P,) tensor
    covariance : (P, P) tensor

    Examples
    --------
    >>> import torch
    >>> from mcunc.posterior import Normal
    >>> normal = Normal(torch.zeros(2), torch.eye(2))
    >>> tuple(normal.sample(draws=1000, seed=1).shape)
    (1000, 2)
    """

    mean: torch.Tensor
    covariance: torch.Tensor

    def sample(self, draws, seed=0):
        """(draws, P) tensor."""
        shape, dtype = (draws, len(self.mean)), self.mean.dtype
        noise = torch.randn(shape, generator=_generator(seed), dtype=torch.float64).to(dtype)
        values, vectors = torch.linalg.eigh(self.covariance)
        return self.mean + noise @ (vectors * values.clamp(min=0).sqrt()).T

    draw = renamed_attribute("draw", "sample")


def fit_laplace(model, x, z, last_layer=False):
    r"""Laplace approximation: the posterior of the network linearised at a mode.

    .. math:: z \sim N\bigl(\hat z,\; (I + J^\top J / \sigma^2)^{-1}\bigr), \qquad
              J_{ij} = \partial f_{\hat z}(x_i) / \partial z_j

    Draws of the function are :math:`f_{\hat z} + J (z - \hat z)`. Do not evaluate the network
    itself at draws of z, because it is not linear over such a wide range.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, the training inputs; the outcomes enter through the mode only
    z : (P,) tensor, a mode, such as a row of `find_map_estimates`
    last_layer : bool
        Vary only the weights and the bias of the last layer, as in a linear regression on its
        inputs.

    Returns
    -------
    Laplace

    Raises
    ------
    ValueError
        For arrays that do not fit.

    Notes
    -----
    Source: MacKay (1992), with the Gauss-Newton approximation in place of the full Hessian;
    Immer, Korzepa & Bauer (2021); Daxberger et al. (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = posterior.RegressionModel((1, 5, 1), noise=0.1)
    >>> mode = posterior.find_map_estimates(model, x, np.sin(2 * x[:, 0]), model.draw_prior(1))[0]
    >>> laplace = posterior.fit_laplace(model, x, mode)
    >>> mean, covariance = laplace.moments([[0.0], [3.0]])
    >>> bool(covariance[1, 1] > 1.5 * covariance[0, 0])  # less certain far from the data
    True
    """
    x, z = _inputs(model, x), z.double()
    free = torch.arange(len(model) - model.sizes[-2] - 1 if last_layer else 0, len(model))
    covariance = _covariance(model.jacobian(z[None], x)[0][:, free], model)
    return Laplace(model, z, free, Normal(z[free], covariance))


@dataclass(frozen=True, eq=False)
class Laplace:
    """A network linearised at a mode, and the normal distribution of its free parameters.

    Made by `fit_laplace`.

    Attributes
    ----------
    model : RegressionModel
    z : (P,) tensor, the mode
    free : tensor, indices of the parameters that vary
    posterior : Normal, the distribution of these parameters

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> model = posterior.RegressionModel((1, 5, 1), noise=0.1)
    >>> laplace = posterior.fit_laplace(model, np.zeros((20, 1)), model.draw_prior(1)[0])
    >>> laplace.sample(np.linspace(-1, 1, 30)[:, None], draws=100, seed=1).shape
    (100, 30)
    """

    model: RegressionModel
    z: torch.Tensor
    free: torch.Tensor
    posterior: Normal

    def sample(self, x, draws=50, seed=0):
        """(draws, N) array, draws of the linearised function at (N, k) inputs."""
        mean, jacobian = self._linear(x)
        steps = self.posterior.sample(draws, seed) - self.posterior.mean
        return (mean + steps @ jacobian.T).numpy()

    def moments(self, x):
        """Mean (N,) and covariance (N, N) of the function at (N, k) inputs, as arrays."""
        mean, jacobian = self._linear(x)
        return mean.numpy(), (jacobian @ self.posterior.covariance @ jacobian.T).numpy()

    def _linear(self, x):
        x = _inputs(self.model, x)
        jacobian = self.model.jacobian(self.z[None], x)[0][:, self.free]
        return self.model.outputs(self.z[None], x)[0], jacobian


def find_map_estimates(model, x, y, start, *, weights=1.0, anchors=0.0, iterations=200):
    r"""MAP estimates (modes of the posterior) of R networks by the Levenberg-Marquardt algorithm.

    Each network minimises :math:`\sum_i w_i (y_i - f_z(x_i))^2 / 2\sigma^2 + |z - a|^2 / 2`. With
    counts of resampled cases as `weights`, the networks are bootstrap refits (Efron 1979). With
    `anchors` drawn from the prior, they are an anchored ensemble (Pearce, Leibfried & Brintrup
    2020). If the `y` of each network also gets its own noise, this is randomised MAP sampling,
    whose members are exact draws from the posterior of a linear model (Matthews, Hron, Turner &
    Ghahramani 2017).

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k)
    y : (n,) or (R, n) array
    start : (R, P) tensor, initial values, such as `RegressionModel.draw_prior`
    weights : (R, n) array, not negative, or one number for all
    anchors : (R, P) tensor, a in the formula, or one number for all
    iterations : int

    Returns
    -------
    (R, P) tensor

    Raises
    ------
    ValueError
        For arrays that do not fit.

    Notes
    -----
    Each step solves the damped problem for linearised f. The damping rises after a step that does
    not lower the loss, and that step is undone. Source: Nocedal & Wright (2006), section 10.3.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = posterior.RegressionModel((1, 5, 1), noise=0.1)
    >>> z = posterior.find_map_estimates(model, x, np.sin(2 * x[:, 0]), model.draw_prior(3))
    >>> bool((abs(model.outputs(z, x).numpy() - np.sin(2 * x[:, 0])) < 0.1).all())
    True
    """
    z, x, y = _problem(model, x, y, start, iterations=iterations)
    weights = torch.as_tensor(weights).double().expand(len(z), y.shape[-1])
    root, damping = weights.sqrt() / model.noise, torch.full((len(z), 1), 0.01, dtype=z.dtype)
    loss = -model.log_joint(z, x, y, weights, anchors)
    for _ in range(iterations):
        design = model.jacobian(z, x) * root[..., None]
        residual = root * (y - model.outputs(z, x))
        slope = (design.mT @ residual[..., None])[..., 0] + anchors - z
        curve = design.mT @ design + torch.diag_embed((1 + damping).expand_as(z))
        new_z = z + torch.linalg.solve(curve, slope)
        new_loss = -model.log_joint(new_z, x, y, weights, anchors)
        better = new_loss < loss  # False where it is NaN
        z, loss = torch.where(better[:, None], new_z, z), torch.where(better, new_loss, loss)
        damping = torch.where(better[:, None], damping / 5, damping * 5).clamp(1e-6, 1e9)
    return z


def train_networks(
    model, x, y, start, *, drop=0.0, prior=1.0, steps=1000, learning_rate=0.02, seed=0
):  # fmt: skip
    r"""Train R networks by Adam for a fixed number of steps, with or without dropout.

    With `prior` = 0 there is no penalty, and the result depends on the initialisation and the
    number of steps. With `drop` > 0 every step draws new masks, which all cases of a network share.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k)
    y : (n,) or (R, n) array
    start : (R, P) tensor, initial values
    drop : float in [0, 1), dropout probability, as in `draw_masks`
    prior : float, factor of the penalty :math:`|z|^2 / 2`
    steps : int
    learning_rate : float, at the first step; it falls to 0 along a cosine
    seed : int, seed of the masks

    Returns
    -------
    (R, P) tensor; with dropout, multiply it by `draw_masks` to get a draw of the parameters

    Raises
    ------
    ValueError
        For arrays that do not fit.

    Notes
    -----
    The penalty applies to parameters times masks. On average it equals the penalty of Gal &
    Ghahramani (2016), :math:`(1 - p) |M|^2 / 2` with :math:`M = z / (1 - p)` in rows with dropout.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = posterior.RegressionModel((1, 5, 1), noise=0.1)
    >>> start = model.draw_prior(10)  # a deep ensemble
    >>> z = posterior.train_networks(model, x, x[:, 0], start, prior=0.0, steps=100)
    >>> bool(abs(model.outputs(z, x).numpy() - x[:, 0]).mean() < 0.2)
    True
    """
    z, x, y = _problem(model, x, y, start, steps=steps)
    z = z.clone().requires_grad_()
    optimiser, generator = torch.optim.Adam([z], lr=learning_rate), _generator(seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        masked = z * draw_masks(model, z.shape[:1], drop, generator) if drop else z
        optimiser.zero_grad()
        # log_joint has all of the prior in it.
        loss = -model.log_joint(masked, x, y) - (1 - prior) * (masked**2).sum(dim=1) / 2
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return z.detach()


def fit_mean_field(
    model, x, y, start, *, draws=10, steps=3000, learning_rate=0.02, initial_sd=0.05, seed=0
):
    r"""Mean-field variational inference: the closest independent normals to the posterior.

    With :math:`q(z) = \prod_j N(z_j; m_j, s_j^2)` it maximises the evidence lower bound

    .. math:: -\frac{1}{2\sigma^2}\,\mathrm{E}_q \sum_i (y_i - f_z(x_i))^2
              - \frac12 \sum_j \left(m_j^2 + s_j^2 - 1 - \log s_j^2\right)

    by Adam, with the first expectation estimated from pairs of draws :math:`m \pm s \odot
    \varepsilon`.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k)
    y : (n,) or (R, n) array
    start : (R, P) tensor, initial means; good ones are `find_map_estimates`
    draws : int, pairs of draws at each step
    steps : int
    learning_rate : float, at the first step; it falls to 0 along a cosine
    initial_sd : float, of all parameters
    seed : int, seed of the draws

    Returns
    -------
    torch.distributions.Normal
        Its `mean` and `stddev` are (R, P) tensors, and ``sample((T,))`` gives (T, R, P) parameters.

    Raises
    ------
    ValueError
        For arrays that do not fit.

    Notes
    -----
    For a linear model the optimum has the posterior's mean, and the diagonal of the posterior's
    precision matrix as precisions (Bishop 2006, section 10.1.2).

    Source: Hinton & van Camp (1993); Blundell et al. (2015), *Weight uncertainty in neural
    networks*.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = posterior.RegressionModel((1, 1), noise=0.1)
    >>> found = posterior.fit_mean_field(model, x, 0.5 * x[:, 0], model.draw_prior(1))
    >>> found.mean.numpy().round(1) + 0, bool((found.stddev < 0.05).all())
    (array([[0.5, 0. ]]), True)
    """
    z, x, y = _problem(model, x, y, start, draws=draws, steps=steps)
    mean = z.clone().requires_grad_()
    log_sd = torch.full_like(z, np.log(initial_sd)).requires_grad_()
    x, y = (v.repeat(2 * draws, *[1] * (v.ndim - 1)) if v.ndim == n else v
            for v, n in ((x, 3), (y, 2)))  # fmt: skip
    optimiser, generator = torch.optim.Adam([mean, log_sd], lr=learning_rate), _generator(seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        half = torch.randn((draws, *z.shape), generator=generator, dtype=z.dtype)
        drawn = mean + log_sd.exp() * torch.cat([half, -half])
        squares = ((y - model.outputs(drawn.flatten(0, 1), x)) / model.noise).square().sum()
        divergence = (mean**2 + (2 * log_sd).exp() - 2 * log_sd).sum() / 2
        optimiser.zero_grad()
        (squares / (4 * draws) + divergence).backward()
        optimiser.step()
        schedule.step()
    return torch.distributions.Normal(mean.detach(), log_sd.detach().exp())


def draw_masks(model, shape, p, generator):
    r"""Draw dropout masks as factors of the parameters z: 0 or 1 / (1 - p).

    A dropped unit sets its row of the next layer's weights to 0. Biases are never dropped (factor
    1), and inputs only in a linear model, which has no hidden units.

    Parameters
    ----------
    model : RegressionModel
    shape : tuple of int, such as ``(R,)`` or ``(T, R)``
    p : float in (0, 1), dropout probability
    generator : torch.Generator

    Returns
    -------
    (…, P) tensor; the first axes are `shape`

    Raises
    ------
    ValueError
        For a probability outside (0, 1).

    Notes
    -----
    Source: Gal & Ghahramani (2016), who write :math:`M \cdot \mathrm{diag}(z)`.

    Examples
    --------
    >>> import torch
    >>> from mcunc.posterior import RegressionModel, draw_masks
    >>> model = RegressionModel((1, 5, 1), noise=0.1)
    >>> masks = draw_masks(model, (100,), 0.5, torch.Generator().manual_seed(0))
    >>> tuple(masks.shape), masks.unique().tolist()
    ((100, 16), [0.0, 1.0, 2.0])
    """
    p, parts = checks.check_fraction("p", p), []
    for i, (inputs, outputs) in enumerate(pairwise(model.sizes)):
        masks = torch.ones(*shape, inputs, 1, dtype=torch.float64)
        if i or len(model.sizes) == 2:
            masks = (torch.rand(*shape, inputs, 1, generator=generator) >= p) / (1 - p)
        parts += [masks.expand(*shape, inputs, outputs).flatten(-2), torch.ones(*shape, outputs)]
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws by Hamiltonian Monte Carlo, made by `sample_hmc`.

    Attributes
    ----------
    z : (T, R, P) tensor, T draws of each of R chains
    accepted : (R,) tensor, fraction of proposals accepted after the warm-up
    step_size : (R,) tensor
    gradients : int, number of gradient evaluations per chain, including the warm-up

    Examples
    --------
    >>> import torch
    >>> from mcunc.posterior import Chains
    >>> chains = Chains(torch.randn(100, 4, 3), torch.ones(4), torch.ones(4), 1000)
    >>> tuple(chains.sample(draws=20, seed=1).shape)
    (20, 3)
    """

    z: torch.Tensor
    accepted: torch.Tensor
    step_size: torch.Tensor
    gradients: int

    def sample(self, draws, seed=0):
        """(draws, P) tensor, drawn at random with replacement from all chains."""
        pool = self.z.flatten(0, 1)
        return pool[torch.randint(len(pool), (draws,), generator=_generator(seed))]


def sample_hmc(model, x, y, start, *, draws=1000, warm_up=1000, leapfrog=50, seed=0):
    """Sample from the posterior by Hamiltonian Monte Carlo, with R chains at once.

    During warm-up, dual averaging adapts the step size of each chain to an acceptance rate of 80 %.
    The number of leapfrog steps of each trajectory is uniform from 1 to twice `leapfrog`, so that
    few trajectories return to their starting point.

    Parameters
    ----------
    model : RegressionModel
    x : (n, k) array, or (R, n, k) with a data set for each chain
    y : (n,) or (R, n) array
    start : (R, P) tensor, initial values
    draws, warm_up : int
    leapfrog : int
        The mean number of leapfrog steps is `leapfrog` + 1/2.
    seed : int

    Returns
    -------
    Chains

    Raises
    ------
    ValueError
        For arrays that do not fit.

    Notes
    -----
    Source: Neal (2011), *MCMC using Hamiltonian dynamics*; Hoffman & Gelman (2014), section 3.2,
    except for the first step size, which is 0.01.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = posterior.RegressionModel((1, 1), noise=0.5)
    >>> start = model.draw_prior(4)
    >>> chains = posterior.sample_hmc(model, x, x[:, 0], start, draws=50, warm_up=50, leapfrog=3)
    >>> tuple(chains.z.shape)
    (50, 4, 2)
    """
    z, x, y = _problem(model, x, y, start, draws=draws, warm_up=warm_up, leapfrog=leapfrog)
    generator, adapted = _generator(seed), _StepSize(len(z))
    kept = torch.zeros(draws, *z.shape, dtype=z.dtype)
    accepted, gradients = torch.zeros(len(z)), 1

    def density(z):
        """Value (R,) and gradient (R, P), from the sum over chains because they are independent."""
        z = z.detach().requires_grad_()
        value = model.log_joint(z, x, y)
        return value.detach(), *torch.autograd.grad(value.sum(), z)

    value, slope = density(z)
    for t in range(warm_up + draws):
        steps = int(torch.randint(1, 2 * leapfrog + 1, (), generator=generator))
        momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        size = adapted.size(warm=t < warm_up)[:, None]
        *proposal, end = _trajectory(density, z, value, slope, momentum, size, steps)
        gradients += steps
        change = proposal[1] - value - ((end**2).sum(dim=1) - (momentum**2).sum(dim=1)) / 2
        chance = change.exp().nan_to_num(0).clamp(max=1)
        moved = torch.rand(len(z), generator=generator, dtype=z.dtype) < chance
        rows = moved[:, None], moved, moved[:, None]
        z, value, slope = map(torch.where, rows, proposal, (z, value, slope))
        if t < warm_up:
            adapted.update(chance)
        else:
            kept[t - warm_up] = z
            accepted += moved / draws
    return Chains(kept, accepted, adapted.size(warm=False), gradients)


def _trajectory(density, z, value, slope, momentum, size, steps):
    """Parameters, log density, gradient and momentum after some leapfrog steps."""
    for _ in range(steps):
        momentum = momentum + size / 2 * slope
        z = z + size * momentum
        value, slope = density(z)
        momentum = momentum + size / 2 * slope
    return z, value, slope, momentum


class _StepSize:
    """Dual averaging of the log step size, from 0.01, towards an acceptance rate of 0.8.

    Source: Hoffman & Gelman (2014), equation 6, with their constants.
    """

    def __init__(self, chains):
        self.steps, self.excess = 0, torch.zeros(chains, dtype=torch.float64)
        self.log = torch.full((chains,), np.log(0.01), dtype=torch.float64)
        self.averaged = self.log.clone()

    def size(self, warm):
        return (self.log if warm else self.averaged).exp()

    def update(self, chance):
        self.steps += 1
        share = 1 / (self.steps + 10)
        self.excess = (1 - share) * self.excess + share * (0.8 - chance)
        self.log = np.log(0.1) - self.steps**0.5 / 0.05 * self.excess
        weight = self.steps**-0.75
        self.averaged = weight * self.log + (1 - weight) * self.averaged


def _inputs(model, x, ndim=2):
    x = torch.from_numpy(checks.as_array("x", x, ndim))
    if x.shape[-1] != model.sizes[0]:
        raise ValueError(f"x: has {x.shape[-1]} columns, the model takes {model.sizes[0]}")
    return x


def _problem(model, x, y, start, **counts):
    """Parameters of R networks, inputs and outcomes, in double precision."""
    for name, value in counts.items():
        checks.check_count(name, value)
    x, y = _inputs(model, x, (2, 3)), torch.from_numpy(checks.as_array("y", y, ndim=(1, 2)))
    if y.shape[-1] != x.shape[-2]:
        raise ValueError(f"y: has {y.shape[-1]} values for {x.shape[-2]} rows of x")
    if start.ndim != 2 or start.shape[1] != len(model):
        raise ValueError(f"start: expected (R, {len(model)}) numbers, got {tuple(start.shape)}")
    return start.detach().double(), x, y


# Have the chains converged? ----------------------------------------------------------------------


def r_hat(samples):
    """Rank-normalised split R-hat of each quantity: near 1 if the chains have converged.

    Parameters
    ----------
    samples : (T, R, ...) array, T draws of R chains, for any number of quantities

    Returns
    -------
    (...) array; NaN for constant quantities, fewer than four draws or a single chain

    Raises
    ------
    ValueError
        For another shape, or values that are not finite.

    Notes
    -----
    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), sections 3.1 and 4.1, as
    arviz-stats computes it.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> samples = np.random.default_rng(0).normal(size=(1000, 4))
    >>> bool(posterior.r_hat(samples) < 1.01), bool(posterior.r_hat(samples + np.arange(4)) > 1.1)
    (True, True)
    """
    return _diagnostic("rhat", samples)


def effective_sample_size(samples, kind="mean"):
    """Number of independent draws that would estimate a summary equally precisely.

    It depends on the summary: the mean, the standard deviation or the tails.

    Parameters
    ----------
    samples : (T, R, ...) array, T draws of R chains
    kind : {"mean", "sd", "tail"}
        The mean, the standard deviation, or the smaller size for the 5 % and 95 % quantiles.

    Returns
    -------
    (...) array; NaN for constant quantities or fewer than four draws

    Raises
    ------
    ValueError
        For another shape or kind, or values that are not finite.

    Notes
    -----
    Source: Vehtari et al. (2021), sections 3.2 and 4.3, as arviz-stats computes it.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import posterior
    >>> samples = np.random.default_rng(0).normal(size=(1000, 4))
    >>> bool(3000 < posterior.effective_sample_size(samples) < 5000)
    True
    """
    checks.check_choice("kind", kind, ("mean", "sd", "tail"))
    options = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    return _diagnostic("ess", samples, method=kind, **options)


def _diagnostic(name, samples, **options):
    """A diagnostic of arviz-stats for (T, R, ...) samples.

    It treats quantities with a range below 1e-15 as constant, so they are scaled to a range of
    about 1, by powers of two to avoid rounding.
    """
    from arviz_stats.base import array_stats  # not at the top: it takes a second

    samples = checks.as_array("samples", samples, ndim=range(2, 9))
    width = np.ptp(samples, axis=(0, 1))
    samples = np.where(width > 0, np.ldexp(samples, -np.frexp(width)[1]), np.nan)
    return getattr(array_stats, name)(samples, chain_axis=1, draw_axis=0, **options)
