"""LeNet-5 and a residual network on CIFAR-10 or CIFAR-100: chapter 1.

It shows which of the two is calibrated; two to three hours on two cores.
"""

from dataclasses import asdict
from itertools import product

import numpy as np

from mcunc import data, networks, training
from mcunc._internal.rounding import compact_logits
from mcunc.data.corruption import STRENGTHS, corrupt
from mcunc.runs import common
from mcunc.runs.common import DEVICE, channels, fit, option, progress, recorded_run

# That of He et al. (2016) shortened in proportion: stochastic gradient descent, the rate divided by
# ten after half and three quarters of the epochs, pictures shifted and mirrored.  Without batch
# normalisation LeNet-5 bears half the learning rate.  The residual network's weight decay is five
# times the paper's: 60 epochs with it gave 88.0 % validation accuracy, 30 with the paper's 84.9 %.
RECIPES = {
    "lenet5": training.Recipe(epochs=60, learning_rate=0.05),
    "resnet20": training.Recipe(epochs=60, learning_rate=0.1, weight_decay=5e-4),
}
DATA = option("--data", dest="dataset", choices=["cifar10", "cifar100"], help="(default: cifar10)")
BUILD = {"lenet5": networks.lenet5, "resnet20": networks.cifar_resnet}
VALIDATION, CORRUPTED = 5_000, 2_000  # pictures, the latter of those to test on


@recorded_run("calibration", DATA, DEVICE)
def run_calibration(seed, path, dataset="cifar10", device="cpu"):
    """Train LeNet-5 and a residual network on CIFAR (chapter 1).

    45,000 pictures to train on, 5,000 to validate (the same for every seed), 10,000 to test.
    Killed and called again, it goes on from the last checkpoint in the folder.

    Parameters
    ----------
    seed : int, decides initial weights, order and augmentation
    dataset : {"cifar10", "cifar100"}
    path, device : as `recorded_run` gives them
    """
    train, test = data.cifar(int(dataset.removeprefix("cifar")))
    parts = fitted, held = data.stratified_split(train.labels, VALIDATION)
    # A spread of the test set's classes, in the same places for every run.
    _, shown = data.stratified_split(test.labels, CORRUPTED)
    arrays = {
        "val_labels": train.labels[held], "test_labels": test.labels, "corrupted_cases": shown,
    }  # fmt: skip
    details, standardise = {}, channels(train.images[fitted])
    for network, recipe in RECIPES.items():
        name = f"calibration-{dataset}-seed{seed}-{network}"
        progress(name)
        model = BUILD[network](classes=len(train.names), seed=seed, **standardise)
        history = fit(model, recipe, train, parts, path.with_name(f"{name}.pt"), seed, device)
        outputs = _outputs(model, train.images[held], test, shown)
        stored = compact_logits(outputs)
        arrays |= {f"{network}_{key}": value for key, value in stored.items()}
        scores = common.test_scores(outputs["test_logits"], test.labels)
        details[network] = {"recipe": asdict(recipe), "test": scores}
        details[network] |= common.training_record(history)
    seconds = 3600 * sum(each["hours"] for each in details.values())
    about = {"data": train.source, "corruptions": list(STRENGTHS), "networks": details}
    return arrays, about | {"seconds": seconds}


def _outputs(network, held, test, corrupted):
    """Logits of the validation and test pictures, and of some test pictures corrupted."""
    chosen = test.images[corrupted]
    rows = [
        training.predict_logits(network, corrupt(chosen, kind, severity, seed=severity))
        for kind, severity in product(STRENGTHS, range(1, 6))
    ]
    return {
        "val_logits": training.predict_logits(network, held),
        "test_logits": training.predict_logits(network, test.images),
        "corrupted_logits": np.reshape(rows, (len(STRENGTHS), 5, len(chosen), -1)),
    }
