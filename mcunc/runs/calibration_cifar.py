"""LeNet-5 and a residual network on CIFAR-10 or CIFAR-100: chapter 1.

It shows which of the two is calibrated; two to three hours on two cores.
"""

import sys
from dataclasses import asdict

import numpy as np

from mcunc import data, networks, recorded, training
from mcunc._internal import distributed
from mcunc._internal.checks import check_choice
from mcunc.data.corruption import STRENGTHS, corrupt
from mcunc.runs import common
from mcunc.runs.common import DEVICE, channels, command, fit, option, provenance, save

# That of He et al. (2016) shortened in proportion: stochastic gradient descent, the rate divided by
# ten after half and three quarters of the epochs, pictures shifted and mirrored.  Without batch
# normalisation LeNet-5 bears half the learning rate.  The residual network's weight decay is five
# times the paper's: 60 epochs with it gave 88.0 % validation accuracy, 30 with the paper's 84.9 %.
RECIPES = {
    "lenet5": training.Recipe(epochs=60, learning_rate=0.05),
    "resnet20": training.Recipe(epochs=60, learning_rate=0.1, weight_decay=5e-4),
}
_BUILD = {"lenet5": networks.lenet5, "resnet20": networks.cifar_resnet}


@command(
    "calibration",
    option("--data", dest="dataset", choices=["cifar10", "cifar100"], help="(default: cifar10)"),
    DEVICE,
)
def run_calibration(
    dataset="cifar10", seed=0, folder="runs", device="cpu", *, recipes=RECIPES, build=_BUILD,
    validation=5_000, corrupted=2_000, pictures=None,
):  # fmt: skip
    """Train LeNet-5 and a residual network on CIFAR (chapter 1).

    45,000 pictures to train on, 5,000 to validate (the same for every seed), 10,000 to test.
    Killed and called again, it goes on from the last checkpoint in `folder`.

    Parameters
    ----------
    dataset : {"cifar10", "cifar100"}
    seed : int
        Decides initial weights, order and augmentation.
    folder : path
        Takes the checkpoints and the result: ``calibration-<dataset>.npz`` and .json for seed 0,
        ``calibration-<dataset>-seed<seed>`` for others.
    device : str, a torch device
    recipes, build : dicts of network -> training.Recipe, and function that builds it
    validation, corrupted : int, pictures, the latter of those to test on
    pictures : pair of data.Pictures, to train and to test on instead of the data set

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For another data set, a seed below 0, no such device, or a checkpoint in `folder` that is
        damaged or of other settings.
    FileNotFoundError
        Where the data are neither here nor to be downloaded.
    """
    check_choice("dataset", dataset, ("cifar10", "cifar100"))
    seed, path = recorded.destination(f"calibration-{dataset}", seed, folder)
    distributed.check_device(device)
    train, test = pictures or data.cifar(int(dataset.removeprefix("cifar")))
    name = f"calibration-{dataset}-seed{seed}"
    parts = fitted, held = data.stratified_split(train.labels, validation)
    # A spread of the test set's classes, in the same places for every run.
    _, shown = data.stratified_split(test.labels, corrupted)
    arrays = {
        "val_labels": train.labels[held], "test_labels": test.labels, "corrupted_cases": shown,
    }  # fmt: skip
    record = provenance(f"calibration --data {dataset} --seed {seed}", seed, device)
    record |= {"data": train.source, "corruptions": list(STRENGTHS), "networks": {}}
    standardise = channels(train.images[fitted])
    for network, recipe in recipes.items():
        print(f"{name}: {network}", file=sys.stderr, flush=True)
        model = build[network](classes=len(train.names), seed=seed, **standardise)
        checkpoint = path.with_name(f"{name}-{network}.pt")
        history = fit(model, recipe, train, parts, checkpoint, seed, device)
        outputs = _outputs(model, train.images[held], test, shown)
        arrays |= {
            f"{network}_{key}": value for key, value in common.compact_logits(outputs).items()
        }
        scores = common.test_scores(outputs["test_logits"], test.labels)
        record["networks"][network] = {"recipe": asdict(recipe), "test": scores}
        record["networks"][network] |= common.training_record(history)
    return save(path, arrays, record)


def _outputs(network, held, test, corrupted):
    """Logits of the validation and test pictures, and of some test pictures corrupted."""
    chosen = test.images[corrupted]
    return {
        "val_logits": training.predict_logits(network, held),
        "test_logits": training.predict_logits(network, test.images),
        "corrupted_logits": np.stack(
            [
                training.predict_logits(network, corrupt(chosen, kind, severity, seed=severity))
                for kind in STRENGTHS
                for severity in range(1, 6)
            ]
        ).reshape(len(STRENGTHS), 5, len(chosen), -1),
    }
