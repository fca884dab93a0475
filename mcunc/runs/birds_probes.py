r"""Linear heads on frozen features of photographs of birds: a run of chapter 6.

EfficientNet-Lite0 with ImageNet weights makes 1,280 features of each photograph; what is learned is
the layer from there to 200 species, over and over for many splits.  Four ways to be uncertain
about it:

* one head, its weight decay chosen on an inner split;
* a head trained with dropout on the features instead, its probability chosen among as many,
  asked in passes, and once with dropout off;
* the Laplace approximation about the one head: a Gaussian whose precision is a Kronecker product,
  of second moments of inputs and curvature in the logits (Ritter, Botev & Barber 2018), plus
  that of a prior, which is chosen freely and is not the weight decay;
* an ensemble of heads on bootstrap samples, with the one head's weight decay.  (The loss is
  convex, and with a weight decay strictly so: other initial weights lead to the same head.)
"""

import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from scipy.special import entr, log_softmax
from torch import nn

from mcunc import data, networks, recorded, training
from mcunc._internal.files import atomic_write
from mcunc.recalibration import TemperatureScaling
from mcunc.runs.common import command

METHODS = ("one head", "dropout, passes", "dropout, off", "Laplace", "ensemble")


@dataclass(frozen=True)
class Settings:
    """How heads are trained and asked; as it stands, as in the chapter.

    Attributes
    ----------
    splits : int
    decays : tuple of float, of the one head, beside the mean loss
    drops : tuple of float, probabilities to drop a feature; no decay
    epochs : int
    priors : tuple of float, precisions, for Laplace
    members, draws, batch : int
    rate : float, Adam's
    """

    splits: int = 20
    decays: tuple = (0.0, 1e-4, 3e-4, 6e-4, 1e-3, 2e-3, 4e-3, 8e-3)
    drops: tuple = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    epochs: int = 60
    priors: tuple = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 1e5)
    members: int = 10
    draws: int = 100
    batch: int = 256
    rate: float = 2e-3


BOOK = Settings()


def features(pictures, folder):
    """(N, 1280) float32 features before the last layer, kept in `folder` once computed."""
    path = Path(folder) / "birds-heads-features.npz"
    if path.exists():
        kept = _kept(path)
        if str(kept["source"]) == pictures.source:
            return kept["features"]
    network = networks.efficientnet_lite0()
    network.head = nn.Identity()
    found = training.predict_logits(network, pictures.images, batch_size=50)
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, features=found, source=pictures.source)
    return found


def _kept(path):
    """Arrays of a file that an earlier call left."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # damage shows in many ways
        raise ValueError(f"folder: {path} is damaged ({error}); delete it") from error


class Standardiser:
    """Features less their mean, divided by their standard deviation, with a 1 for the bias."""

    def __init__(self, x):
        self.mean, self.std = x.mean(axis=0), x.std(axis=0)
        self.std[self.std == 0] = 1

    def __call__(self, x):
        return np.c_[(x - self.mean) / self.std, np.ones(len(x))].astype(np.float32)


def fit_heads(x, y, classes, drops, decays, seed, counts=None, how=BOOK):
    """Train R linear heads at once, by Adam on minibatches, the rate falling to 0 like a cosine.

    Parameters
    ----------
    x : (N, D + 1) float32 array, the last column 1
    y : (N,) int array
    classes : int, K
    drops, decays : sequences of R floats: probability to drop, weight of half the squared weights
    seed : int
    counts : (R, N) array, optional, how often each head has each case; else once
    how : Settings

    Returns
    -------
    (R, D + 1, K) float32 array of weights
    """
    x, y = torch.from_numpy(x), torch.from_numpy(np.asarray(y, np.int64))
    keep = 1 - torch.tensor(drops, dtype=torch.float32).reshape(-1, 1, 1)
    scale = (1 / keep).repeat(1, 1, x.shape[1])
    scale[:, :, -1] = 1  # of the bias
    decay = torch.tensor(decays, dtype=torch.float32).reshape(-1, 1, 1)
    counts = torch.ones(len(keep), len(x)) if counts is None else torch.from_numpy(counts).float()
    weight = torch.zeros(len(keep), x.shape[1], classes)
    optimiser = torch.optim.Adam([weight], lr=how.rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(how.epochs):
        optimiser.param_groups[0]["lr"] = how.rate * (1 + np.cos(np.pi * epoch / how.epochs)) / 2
        for chosen in torch.randperm(len(x), generator=generator).split(how.batch):
            inputs = x[chosen]
            if (keep < 1).any():  # one draw for all heads: what differs is where they cut
                drawn = torch.rand(inputs.shape, generator=generator)
                drawn[:, -1] = -1
                inputs = torch.where(drawn < keep, inputs * scale, 0.0)  # (R, B, D + 1)
            residuals = torch.softmax(inputs @ weight, dim=2)  # probabilities less labels
            residuals[:, torch.arange(len(chosen)), y[chosen]] -= 1
            residuals *= counts[:, chosen, None] / len(chosen)
            weight.grad = inputs.mT @ residuals
            weight.grad[:, :-1] += decay * weight[:, :-1]
            optimiser.step()
    return weight.numpy()


def head_passes(x, weight, drop, draws, seed):
    """(T, N, K) logits of one head under dropout of features, one mask for all cases of a pass."""
    rng = np.random.default_rng(seed)
    kept = rng.random((draws, x.shape[1])) >= drop
    scale = np.where(kept, 1 / (1 - drop), 0).astype(np.float32)
    scale[:, -1] = 1
    return np.stack([x @ (s[:, None] * weight) for s in scale])


class KroneckerLaplace:
    r"""Gaussian about the weights W (D + 1, K) of a linear head, precision N A ⊗ G + δ I.

    .. math:: A = \frac1N \sum_n x_n x_n^\top, \qquad
        G = \frac1N \sum_n \mathrm{diag}(p_n) - p_n p_n^\top

    The logits of x are Gaussian with mean W' x and covariance
    :math:`\sum_{ij} (u_i^\top x)^2 / (N a_i g_j + δ)\; v_j v_j^\top`, with eigenvalues a, g and
    eigenvectors u, v of A and G.
    """

    def __init__(self, x, weight):
        probs = np.exp(log_softmax(x @ weight, axis=1)).astype(np.float64)
        curvature = np.diag(probs.mean(axis=0)) - probs.T @ probs / len(x)
        self.weight, self.cases = weight, len(x)
        self.of_inputs, self.inputs = np.linalg.eigh(x.T.astype(np.float64) @ x / len(x))
        self.of_logits, self.logits = np.linalg.eigh(curvature)

    def standard_deviations(self, x, prior):
        """(N, K): of the logits along the eigenvectors of G."""
        along = (x @ self.inputs) ** 2  # (N, D + 1)
        products = np.outer(self.of_inputs.clip(0), self.of_logits.clip(0))
        return np.sqrt(along @ (1 / (self.cases * products + prior)))

    def sample(self, x, prior, draws, seed):
        """(T, N, K) logits, each case by itself."""
        spread, mean = self.standard_deviations(x, prior), x @ self.weight
        noise = np.random.default_rng(seed).standard_normal((draws, *mean.shape), dtype=np.float32)
        return (
            mean + (noise * spread.astype(np.float32)) @ self.logits.T.astype(np.float32)
        ).astype(np.float32)


# One split ------------------------------------------------------------------------------------


def choose(x, y, fitted, held, classes, seed, how):
    """Settings of the least log loss on the cases `held`, for heads trained on those `fitted`.

    Returns
    -------
    dict: decay, drop, prior; and the losses that were compared
    """
    standardise = Standardiser(x[fitted])
    inside, outside = standardise(x[fitted]), standardise(x[held])

    def fit(drops, decays):
        return fit_heads(inside, y[fitted], classes, drops, decays, seed, how=how)

    def losses(weights, drops, draws):
        passes = (
            head_passes(outside, weight, drop, draws, seed)
            for weight, drop in zip(weights, drops, strict=True)
        )
        return np.array([log_loss(log_mean(logits), y[held]) for logits in passes])

    one = fit([0] * len(how.decays), how.decays)
    plain = losses(one, [0] * len(one), 1)
    dropped = losses(fit(how.drops, [0] * len(how.drops)), how.drops, how.draws)
    laplace = KroneckerLaplace(inside, one[plain.argmin()])
    priors = [
        log_loss(log_mean(laplace.sample(outside, prior, how.draws, seed)), y[held])
        for prior in how.priors
    ]
    return {
        "decay": how.decays[plain.argmin()], "drop": how.drops[dropped.argmin()],
        "prior": how.priors[int(np.argmin(priors))],
        "losses_plain": plain, "losses_dropped": dropped, "losses_laplace": np.array(priors),
    }  # fmt: skip


def answers(x, y, train, test, classes, seed, choice, how):
    """Samples of logits (T, n, K) of the cases `test` by every method, trained on those `train`."""
    standardise = Standardiser(x[train])
    inside, outside = standardise(x[train]), standardise(x[test])

    def fit(drops, decays, counts=None):
        return fit_heads(inside, y[train], classes, drops, decays, seed, counts, how)

    (one,) = fit([0], [choice["decay"]])
    (dropped,) = fit([choice["drop"]], [0])
    rng, even, n = np.random.default_rng(seed), np.full(len(train), 1 / len(train)), how.members
    members = fit([0] * n, [choice["decay"]] * n, rng.multinomial(len(train), even, n))
    laplace = KroneckerLaplace(inside, one)
    return {
        "one head": (outside @ one)[None],
        "dropout, passes": head_passes(outside, dropped, choice["drop"], how.draws, seed),
        "dropout, off": (outside @ dropped)[None],
        "Laplace": laplace.sample(outside, choice["prior"], how.draws, seed),
        "ensemble": outside @ members,
    }


def run_split(x, y, classes, seed, how=BOOK):
    """Choose on an inner split, fit again on all nine tenths, ask the tenth.

    Returns
    -------
    dict of arrays: those of `measured`, methods first; the choice; `cases`, rows of the tenth
    """
    train, test = data.cub200_split(y, seed)
    fitted, held = (train[part] for part in data.cub200_split(y[train], seed))
    choice = choose(x, y, fitted, held, classes, seed, how)
    inner = answers(x, y, fitted, held, classes, seed, choice, how)
    outer = answers(x, y, train, test, classes, seed, choice, how)
    rows = []
    for method in METHODS:
        scaling = TemperatureScaling().fit(log_mean(inner[method]), y[held])
        rows.append(measured(outer[method], y[test], scaling))
    found = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    passes = outer["dropout, passes"]
    found["loss_of_draws"] = np.array(
        [log_loss(log_mean(passes[:count]), y[test]) for count in range(1, how.draws + 1)]
    )
    return found | choice | {"cases": test}


def measured(samples, labels, scaling):
    """What is kept of samples of logits (T, n, K): (n,) arrays, and the temperature."""
    log_probs = log_mean(samples)
    tempered = np.log(scaling.predict_proba(log_probs))
    n = np.arange(len(labels))
    total = entr(np.exp(log_probs)).sum(axis=1)
    expected = _entropies(samples).mean(axis=0)
    return {
        "predicted": log_probs.argmax(axis=1).astype(np.uint8),
        "loss": -log_probs[n, labels],
        "brier": ((np.exp(log_probs) - np.eye(log_probs.shape[1])[labels]) ** 2).sum(axis=1),
        "confidence": np.exp(log_probs.max(axis=1)),
        "entropy": total,
        "mutual_information": total - expected,
        "tempered_loss": -tempered[n, labels],
        "tempered_confidence": np.exp(tempered.max(axis=1)),
        "temperature": np.array(scaling.temperature_),
    }


def _entropies(samples):
    """(T, n) entropies of the classes in each sample."""
    return np.stack(
        [entr(np.exp(log_softmax(s.astype(float), axis=1))).sum(axis=1) for s in samples]
    )


def log_mean(samples):
    """(n, K) log of the mean probabilities of samples of logits (T, n, K)."""
    total = sum(np.exp(log_softmax(s.astype(float), axis=1)) for s in samples)
    return np.log(total / len(samples))


def log_loss(log_probs, labels):
    """Mean negative log probability of the labels."""
    return float(-log_probs[np.arange(len(labels)), labels].mean())


# The run --------------------------------------------------------------------------------------


@command("birds-heads")
def run_heads(seed=0, folder="runs", how=BOOK, pictures=None):
    """Heads on frozen features of CUB-200, 2010, over many splits: chapter 6.

    Killed and called again, it goes on with the split it was at.

    Parameters
    ----------
    seed : int, of the first split; the others follow
    folder : path, takes the splits and ``birds-heads.npz`` and .json
    how : Settings
    pictures : data.Pictures, instead of CUB-200, 2010

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0, a folder that is no path, or an archive that is damaged.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    """
    seed, path = recorded.destination("birds-heads", seed, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = pictures or data.cub200(2010)
    x, parts, seconds = features(pictures, folder), [], 0.0
    made = pictures.source, repr(astuple(how)[1:])  # all that decides a split, in one line
    for number in range(seed, seed + how.splits):
        part = path.with_name(f"birds-heads-split{number}.npz")
        if not part.exists():
            print(part.stem, file=sys.stderr, flush=True)
            begin = perf_counter()
            found = run_split(x, pictures.labels, len(pictures.names), number, how)
            found["seconds"] = perf_counter() - begin
            with atomic_write(part) as unfinished, unfinished.open("wb") as file:
                np.savez(file, source=made[0], settings=made[1], **found)
        kept = _kept(part)
        if (str(kept.pop("source")), str(kept.pop("settings", ""))) != made:
            raise ValueError(f"folder: {part} is of other pictures or settings; delete it")
        seconds += float(kept.pop("seconds"))
        parts.append(kept)
    arrays = {key: _compact(np.stack([part[key] for part in parts])) for key in parts[0]}
    arrays["labels"] = pictures.labels.astype(np.uint8)
    record = recorded.provenance(f"python -m mcunc run birds-heads --seed {seed}", seed) | {
        "hours": round(seconds / 3600, 2), "data": pictures.source, "kind": pictures.kind,
        "names": pictures.names, "methods": METHODS, "splits": how.splits, "draws": how.draws,
        "members": how.members, "decays": how.decays, "drops": how.drops, "epochs": how.epochs,
        "priors": how.priors,
    }  # fmt: skip
    recorded.save(path, arrays, record)
    return path


def _compact(values):
    """Half the bytes of what there is much of, with a loss of digits; whole numbers as uint16."""
    if values.dtype.kind != "f":
        return values.astype(np.uint16)
    return values.astype(np.float16 if values.size > 10_000 else np.float32)
