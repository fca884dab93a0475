"""Training on pictures, and what is kept of it: shared by several runs."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from mcunc import calibration, recorded, training
from mcunc._internal import distributed


class Command(NamedTuple):
    """A run on the command line: its function, options, and whether processes may share it."""

    function: object
    options: tuple
    together: bool


COMMANDS = {}  # by name; filled by the modules of the runs


def command(name, *options, together=False):
    """Declare the decorated function as the run `name` of ``python -m mcunc run``."""

    def declare(function):
        COMMANDS[name] = Command(function, options, together)
        return function

    return declare


def option(*flags, **settings):
    """An option of a run: what `argparse` is told of it."""
    return flags, settings


DEVICE = option("--device", choices=["cpu", "cuda"], help="where to train (default: cpu)")


def channels(images):
    """Means and standard deviations of the channels of (N, 3, H, W) bytes, in [0, 1]."""
    return {key: getattr(images, key)(axis=(0, 2, 3)) / 255 for key in ("mean", "std")}


def fit(
    network, recipe, pictures, parts, checkpoint, seed, device, masks=None, setting=None,
    augment=training.crop_and_flip, batch_size=500,
):  # fmt: skip
    """Train a network on the first of two parts, and evaluate it on the second.

    Parameters
    ----------
    network : ImageClassifier, trained in place
    recipe : training.Recipe
    pictures : data.Pictures
    parts : pair of index arrays, to train on and held out
    checkpoint, seed, device, masks, setting, augment : as `training.fit_minibatches`
    batch_size : int, pictures that are evaluated at once

    Returns
    -------
    list of dict, the history
    """
    train, held = parts

    def evaluate(network):
        logits = training.predict_logits(network, pictures.images[held], batch_size)
        probs = softmax(logits, axis=1)
        return scores(logits, pictures.labels[held]) | {
            "val_confidence": float(probs.max(axis=1).mean())
        }

    return training.fit_minibatches(
        network, pictures.images[train], pictures.labels[train], recipe, augment, evaluate,
        checkpoint, seed, device, masks, setting,
    )  # fmt: skip


def scores(logits, labels):
    """Log loss and accuracy, as a history calls them."""
    return {
        "val_loss": calibration.log_loss_from_logits(logits, labels),
        "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def as_half(values):
    """Half the bytes; what is below the smallest number of half precision is set to it."""
    return values.clip(float(np.finfo(np.float16).min)).astype(np.float16)


def half(outputs):
    """Logits in half precision, each row shifted so that its largest is 0 (softmax is the same).

    The predicted class is kept apart, since rounding can tie.
    """
    stored = {}
    for name, logits in outputs.items():
        stored[name] = as_half(logits - logits.max(axis=-1, keepdims=True))
        stored[name.replace("logits", "predicted")] = logits.argmax(axis=-1).astype(np.uint8)
    return stored


def told(history):
    """What a record says of a training: its history with five digits, and hours."""
    rows = [{key: value if key == "epoch" else round(value, 5) for key, value in row.items()}
            for row in history]  # fmt: skip
    return {"history": rows, "hours": round(sum(row["seconds"] for row in history) / 3600, 3)}


def provenance(run, seed, device):
    """`recorded.provenance` of a run on a device, with the name of its GPU where it has one.

    Several processes are named in the command: BatchNorm that learns sees in each its own part of
    a batch, and what they reach together is not what one reaches alone.
    """
    device, processes = torch.device(device), distributed.rank_and_world_size()[1]
    start = "python" if processes == 1 else f"torchrun --nproc-per-node {processes}"
    command = f"{start} -m mcunc run {run}"
    if device.type == "cpu":
        return recorded.provenance(command, seed)
    command += f" --device {device.type}"  # "cuda:1" is that of one process
    about = recorded.provenance(command, seed)
    return about | {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else about
