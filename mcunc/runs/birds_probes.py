r"""Linear probes on frozen features of photographs of birds, over twenty splits: chapter 6b.

It shows what dropout, the Laplace approximation and an ensemble add to one linear layer; it takes
an hour and a half on two cores.

EfficientNet-Lite0 with ImageNet weights makes 1,280 features of each photograph; what is trained
is the layer from there to 200 species.  Four methods:

* one probe, its weight decay chosen on an inner split;
* a probe trained with dropout of the features instead, its probability chosen among as many,
  averaged over passes, and once with dropout off;
* the Laplace approximation about the one probe (`probes.KroneckerLaplace`); the precision of its
  prior is chosen freely and is not the weight decay;
* an ensemble of probes on bootstrap samples, with the one probe's weight decay.  (The loss is
  convex, and with a weight decay strictly so: other initial weights lead to the same probe.)
"""

from functools import partial

import numpy as np
from scipy.special import softmax
from torch import nn

from mcunc import data, networks, training
from mcunc.calibration import log_loss
from mcunc.predictive import summarise_classes
from mcunc.probes import KroneckerLaplace, Standardiser, fit_probes, probe_passes
from mcunc.recalibration import TemperatureScaling
from mcunc.runs.common import cached, case_scores, loss_by_draws, recorded_run

METHODS = ("one head", "dropout, passes", "dropout, off", "Laplace", "ensemble")
SPLITS = 20
DECAYS = (0.0, 1e-4, 3e-4, 6e-4, 1e-3, 2e-3, 4e-3, 8e-3)  # of the one probe, beside the mean loss
DROPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # probabilities to drop a feature; no decay
PRIORS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 1e5)  # precisions, for Laplace
MEMBERS, DRAWS = 10, 100
EPOCHS, BATCH, RATE = 60, 256, 2e-3  # of Adam


def features(pictures):
    """(N, 1280) float32 features before the last layer."""
    network = networks.efficientnet_lite0()
    network.head = nn.Identity()
    return training.predict_logits(network, pictures.images, batch_size=50)


class Split:
    """Probes trained on some cases and evaluated on others, all with the same settings."""

    def __init__(self, x, y, train, test, seed):
        standardise = Standardiser(x[train])
        self.inside, self.outside = standardise(x[train]), standardise(x[test])
        self.y_train, self.y_test = y[train], y[test]
        self.classes, self.seed = int(y.max()) + 1, seed

    def fit(self, drops, decays, counts=None):
        """(R, D + 1, K) weights of R probes."""
        return fit_probes(
            self.inside, self.y_train, self.classes, drops, decays, self.seed, counts,
            epochs=EPOCHS, batch=BATCH, learning_rate=RATE,
        )  # fmt: skip

    def passes(self, weight, drop):
        """(T, n, K) logits of the test cases under dropout."""
        return probe_passes(self.outside, weight, drop, DRAWS, self.seed)

    def draw(self, laplace, prior):
        """(T, n, K) logits of the test cases under a Laplace approximation."""
        return laplace.sample(self.outside, prior, DRAWS, self.seed)

    def losses(self, samples):
        """Log loss of the mean of each of several samples (T, n, K) of logits."""
        means = (summarise_classes(logits=each).mean for each in samples)
        return np.array([log_loss(mean, self.y_test) for mean in means])

    def choose(self):
        """Settings of the least log loss: decay, drop, prior; and the losses that were compared."""
        one = self.fit([0] * len(DECAYS), DECAYS)
        plain = self.losses((self.outside @ weight)[None] for weight in one)
        masked = self.fit(DROPS, [0] * len(DROPS))
        dropped = self.losses(map(self.passes, masked, DROPS))
        laplace = KroneckerLaplace(self.inside, one[plain.argmin()])
        priors = self.losses(self.draw(laplace, prior) for prior in PRIORS)
        return {
            "decay": DECAYS[plain.argmin()], "drop": DROPS[dropped.argmin()],
            "prior": PRIORS[priors.argmin()],
            "losses_plain": plain, "losses_dropped": dropped, "losses_laplace": priors,
        }  # fmt: skip

    def samples(self, choice):
        """Samples (T, n, K) of the test cases' logits by every method."""
        n, cases, rng = MEMBERS, len(self.y_train), np.random.default_rng(self.seed)
        (one,), (dropped,) = self.fit([0], [choice["decay"]]), self.fit([choice["drop"]], [0])
        counts = rng.multinomial(cases, np.full(cases, 1 / cases), n)
        return {
            "one head": (self.outside @ one)[None],
            "dropout, passes": self.passes(dropped, choice["drop"]),
            "dropout, off": (self.outside @ dropped)[None],
            "Laplace": self.draw(KroneckerLaplace(self.inside, one), choice["prior"]),
            "ensemble": self.outside @ self.fit([0] * n, [choice["decay"]] * n, counts),
        }


def run_split(x, y, seed):
    """Choose on an inner split, fit again on all nine tenths, evaluate on the tenth.

    Returns
    -------
    dict of arrays: those of `measured`, methods first; the choice; `cases`, rows of the tenth
    """
    train, test = data.cub200_split(y, seed)
    fitted, held = (train[part] for part in data.cub200_split(y[train], seed))
    inner, outer = Split(x, y, fitted, held, seed), Split(x, y, train, test, seed)
    choice = inner.choose()
    before, after = inner.samples(choice), outer.samples(choice)
    rows = [measured(after[name], y[test], before[name], y[held]) for name in METHODS]
    probs = softmax(after["dropout, passes"].astype(float), axis=2)
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    arrays["loss_of_draws"] = loss_by_draws(probs[:, np.arange(len(test)), y[test]])
    return arrays | choice | {"cases": test}


def measured(samples, labels, held_samples, held_labels):
    """Scores (n,) of samples of logits (T, n, K), also with a temperature fitted on held cases."""
    summary = summarise_classes(logits=samples)
    held = summarise_classes(logits=held_samples).mean
    scaling = TemperatureScaling().fit(np.log(held), held_labels)
    log_probs = np.log(summary.mean)
    tempered = case_scores(np.log(scaling.predict_proba(log_probs)), labels)
    return case_scores(log_probs, labels) | {
        "predicted": log_probs.argmax(axis=1),
        "mutual_information": summary.mutual_information,
        "tempered_loss": tempered["loss"],
        "tempered_confidence": tempered["confidence"],
        "temperature": scaling.temperature_,
    }


@recorded_run("birds-heads")
def run_probes(seed, path):
    """Linear probes on frozen features of CUB-200, over many splits (chapter 6b).

    Killed and called again, it goes on with the split it was at.

    Parameters
    ----------
    seed : int, of the first split; the others follow
    """
    pictures = data.cub200(2010)
    about = {"decays": DECAYS, "drops": DROPS, "epochs": EPOCHS, "priors": PRIORS}
    about |= {"members": MEMBERS, "draws": DRAWS}
    source, parts = pictures.source, []
    path = path.with_name("birds-heads.npz")  # runs of other seeds share the parts
    x = cached(path, "features", source, lambda: {"features": features(pictures)})["features"]
    for number in range(seed, seed + SPLITS):
        make = partial(run_split, x, pictures.labels, number)
        parts.append(cached(path, f"split{number}", [source, about, BATCH, RATE], make))
    arrays = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
    seconds = arrays.pop("seconds").sum()
    return arrays | {"labels": pictures.labels}, about | {
        "seconds": seconds, "data": source, "kind": pictures.kind,
        "names": pictures.names, "methods": METHODS, "splits": SPLITS,
    }  # fmt: skip
