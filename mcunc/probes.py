r"""Linear probes: logistic regressions on the frozen features of a network, with uncertainty.

Many probes are trained together.  Their uncertainty comes from dropout of the features, bootstrap
samples, or a Laplace approximation with a Kronecker-factored precision.
"""

import numpy as np
import torch
from scipy.special import softmax

__all__ = ["KroneckerLaplace", "Standardiser", "fit_probes", "probe_passes"]


class Standardiser:
    """Standardise features to mean 0 and standard deviation 1, and append a 1 for the bias.

    Parameters
    ----------
    x : (N, D) array, the features that determine mean and standard deviation

    Attributes
    ----------
    mean, std : (D,) arrays; `std` is 1 for constant features

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import probes
    >>> standardise = probes.Standardiser(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardise(np.array([[2.0, 6.0]])).tolist()
    [[0.0, 1.0, 1.0]]
    """

    def __init__(self, x):
        self.mean, self.std = x.mean(axis=0), x.std(axis=0)
        self.std[self.std == 0] = 1

    def __call__(self, x):
        """(N, D + 1) float32 array of standardised features and a column of ones."""
        return np.c_[(x - self.mean) / self.std, np.ones(len(x))].astype(np.float32)

    def to_linear(self, weight):
        """Weights (K, D) and biases (K,) of the same probe for raw features."""
        raw = weight[:-1] / self.std[:, None]
        return raw.T, weight[-1] - self.mean @ raw


def fit_probes(
    x, y, classes, drops, decays, seed=0, counts=None, *, epochs=60, batch=256, learning_rate=2e-3
):
    """Train R linear probes together by Adam on minibatches.

    Parameters
    ----------
    x : (N, D + 1) float32 array, the last column 1
    y : (N,) int array
    classes : int, K
    drops : sequence of R floats, dropout probabilities of the features
    decays : sequence of R floats
        The penalty added to the mean loss is half the decay times the sum of squared weights.
    seed : int
    counts : (R, N) array, optional
        Weight of each case for each probe, as in a bootstrap sample; by default 1.
    epochs, batch : int
    learning_rate : float, at the start; it falls to 0 along a cosine

    Returns
    -------
    (R, D + 1, K) float32 array of weights; the last row of each probe holds the biases

    Notes
    -----
    All probes use the same batches and the same random numbers for their masks.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import probes
    >>> rng = np.random.default_rng(0)
    >>> features, labels = rng.normal(size=(200, 4)), np.arange(200) % 2
    >>> features[:, 0] += 3 * labels
    >>> x = probes.Standardiser(features)(features)
    >>> weights = probes.fit_probes(x, labels, 2, [0, 0.5], [0.01, 0], epochs=9, learning_rate=0.1)
    >>> weights.shape
    (2, 5, 2)
    >>> bool(((x @ weights[0]).argmax(axis=1) == labels).mean() > 0.9)
    True
    """
    x, y = torch.from_numpy(x), torch.from_numpy(np.asarray(y, np.int64))
    keep = 1 - torch.tensor(drops, dtype=torch.float32).reshape(-1, 1, 1)
    scale = (1 / keep).repeat(1, 1, x.shape[1])
    scale[:, :, -1] = 1  # of the bias
    decay = torch.tensor(decays, dtype=torch.float32).reshape(-1, 1, 1)
    counts = torch.ones(len(keep), len(x)) if counts is None else torch.from_numpy(counts).float()
    weight = torch.zeros(len(keep), x.shape[1], classes)
    optimiser = torch.optim.Adam([weight], lr=learning_rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = learning_rate * (1 + np.cos(np.pi * epoch / epochs)) / 2
        for chosen in torch.randperm(len(x), generator=generator).split(batch):
            inputs = x[chosen]
            if (keep < 1).any():
                drawn = torch.rand(inputs.shape, generator=generator)
                drawn[:, -1] = -1
                inputs = torch.where(drawn < keep, inputs * scale, 0.0)  # (R, B, D + 1)
            residuals = torch.softmax(inputs @ weight, dim=2)  # probabilities minus labels
            residuals[:, torch.arange(len(chosen)), y[chosen]] -= 1
            residuals *= counts[:, chosen, None] / len(chosen)
            weight.grad = inputs.mT @ residuals
            weight.grad[:, :-1] += decay * weight[:, :-1]
            optimiser.step()
    return weight.numpy()


def probe_passes(x, weight, drop, draws, seed=0):
    """Logits of one probe with dropout of its features; all cases of a pass share a mask.

    Parameters
    ----------
    x : (N, D + 1) float32 array, the last column 1
    weight : (D + 1, K) array
    drop : float in [0, 1)
    draws : int, T
    seed : int

    Returns
    -------
    (T, N, K) float32 array

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import probes
    >>> x, weight = np.ones((3, 5), np.float32), np.ones((5, 2), np.float32)
    >>> samples = probes.probe_passes(x, weight, drop=0.5, draws=100)
    >>> samples.shape
    (100, 3, 2)
    >>> bool(abs(samples.mean() - 5) < 1)
    True
    """
    rng = np.random.default_rng(seed)
    kept = rng.random((draws, x.shape[1])) >= drop
    scale = np.where(kept, 1 / (1 - drop), 0).astype(np.float32)
    scale[:, -1] = 1
    return np.stack([x @ (s[:, None] * weight) for s in scale])


class KroneckerLaplace:
    r"""Laplace approximation around a linear probe: a Gaussian with precision N A ⊗ G + δ I.

    Parameters
    ----------
    x : (N, D + 1) float32 array, the training cases of the probe
    weight : (D + 1, K) array, W

    Notes
    -----
    .. math:: A = \frac1N \sum_n x_n x_n^\top, \qquad
        G = \frac1N \sum_n \mathrm{diag}(p_n) - p_n p_n^\top

    The logits of x are Gaussian with mean :math:`W^\top x` and covariance
    :math:`\sum_{ij} (u_i^\top x)^2 / (N a_i g_j + δ)\; v_j v_j^\top`, with eigenvalues a, g and
    eigenvectors u, v of A and G.  You choose the precision δ of the prior, `prior` of the methods.

    Source: Ritter, Botev & Barber (2018), *A scalable Laplace approximation for neural networks*.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import probes
    >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    >>> laplace = probes.KroneckerLaplace(x, np.eye(3, 2, dtype=np.float32))
    >>> laplace.sample(x[:4], prior=1.0, draws=10).shape
    (10, 4, 2)
    >>> near, far = laplace.standard_deviations(np.array([x[0], 5 * x[0]]), prior=1.0)
    >>> bool((far > near).all())
    True
    """

    def __init__(self, x, weight):
        probs = softmax((x @ weight).astype(float), axis=1)
        curvature = np.diag(probs.mean(axis=0)) - probs.T @ probs / len(x)
        self.weight, self.cases = weight, len(x)
        self._input_values, self._input_vectors = np.linalg.eigh(x.T.astype(float) @ x / len(x))
        self._logit_values, self.logit_vectors = np.linalg.eigh(curvature)

    def standard_deviations(self, x, prior):
        """(N, K) standard deviations of the logits along the eigenvectors of G."""
        along = (x @ self._input_vectors) ** 2  # (N, D + 1)
        products = np.outer(self._input_values.clip(0), self._logit_values.clip(0))
        return np.sqrt(along @ (1 / (self.cases * products + prior)))

    def sample(self, x, prior, draws, seed=0):
        """(T, N, K) float32 draws of the logits, independent between cases."""
        spread = self.standard_deviations(x, prior).astype(np.float32)
        mean = (x @ self.weight).astype(np.float32)
        noise = np.random.default_rng(seed).standard_normal((draws, *mean.shape), dtype=np.float32)
        return mean + (noise * spread) @ self.logit_vectors.T.astype(np.float32)
