"""The long runs of the book: ``python -m mcunc run NAME`` makes them again."""

from pathlib import Path

import numpy as np
from scipy.special import softmax

from mcunc import networks, training

# One recipe for each network, that of He et al. (2016) shortened in proportion: stochastic
# gradient descent, the rate divided by ten after half and three quarters of the epochs, pictures
# shifted and mirrored.  Without batch normalisation LeNet-5 bears half the learning rate.
RECIPES = {
    "lenet5": training.Recipe(epochs=30, learning_rate=0.05),
    "resnet20": training.Recipe(epochs=30, learning_rate=0.1),
}
_BUILD = {"lenet5": networks.lenet5, "resnet20": networks.cifar_resnet}
VALIDATION = 5_000


def _trained(name, recipe, pictures, parts, seed, device, folder, run):
    """The network after training, and the history with what the validation pictures say."""
    train, held = parts
    x = pictures.images[train]
    channels = {key: getattr(x, key)(axis=(0, 2, 3)) / 255 for key in ("mean", "std")}
    network = _BUILD[name](classes=len(pictures.names), seed=seed, **channels)

    def watch(network):
        logits = training.predict_logits(network, pictures.images[held])
        probs = softmax(logits, axis=1)
        hit = probs.argmax(axis=1) == pictures.labels[held]
        return {
            "val_loss": float(-np.log(probs[np.arange(len(held)), pictures.labels[held]]).mean()),
            "val_accuracy": float(hit.mean()),
            "val_confidence": float(probs.max(axis=1).mean()),
        }

    history = training.fit_minibatches(
        network, x, pictures.labels[train], recipe, training.crop_and_flip, watch,
        Path(folder) / f"{run}-{name}.pt", seed, device,
    )  # fmt: skip
    return network, history
