"""What the runs share: commands, training, scores, and how results are kept."""

import json
import sys
from functools import wraps
from inspect import signature
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import entr, softmax

from mcunc import calibration, recorded, training
from mcunc._internal import distributed
from mcunc._internal.checks import check_choice
from mcunc._internal.files import atomic_write
from mcunc._internal.rounding import compact
from mcunc.predictive import summarise_classes

HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


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


def recorded_run(name, *options):
    """Declare the decorated function as a run that is kept in one file.

    It gets the seed, the path of the file, the device where it has one, and the options, by which
    the file is named; it returns the arrays, and what its record says beside `provenance`.  Its
    "seconds" there are those of all its trainings, where some were made before a kill.
    """

    def declare(function):
        @command(name, *options)
        @wraps(function)
        def run(*, seed=0, folder="runs", **chosen):
            device, flags = distributed.check_device(chosen.get("device", "cpu")), {}
            for (flag, *_), settings in options:
                key = settings.get("dest", flag[2:])
                value = chosen.setdefault(key, signature(function).parameters[key].default)
                if key != "device":
                    flags[flag] = check_choice(key, value, tuple(settings["choices"]))
            seed, path = recorded.destination("-".join([name, *flags.values()]), seed, folder)
            begin = perf_counter()
            arrays, details = function(seed, path, **chosen)
            seconds = details.pop("seconds", perf_counter() - begin)
            line = " ".join([name, *(f"{flag} {value}" for flag, value in flags.items())])
            record = provenance(f"{line} --seed {seed}", seed, device, seconds) | details
            return save(path, arrays, record)

        return run

    return declare


def option(*flags, **settings):
    """An option of a run, with the arguments of `argparse`."""
    return flags, settings


DEVICE = option("--device", choices=["cpu", "cuda"], help="where to train (default: cpu)")


def progress(text):
    """Tell what is made now."""
    print(text, file=sys.stderr, flush=True)


# Training -------------------------------------------------------------------------------------


def channels(images):
    """Means and standard deviations of the channels of (N, 3, H, W) bytes, in [0, 1]."""
    return {key: getattr(images, key)(axis=(0, 2, 3)) / 255 for key in ("mean", "std")}


def evaluator(images, labels, batch_size=500):
    """What a training evaluates after each epoch: `validation_scores` on these pictures."""
    return lambda network: validation_scores(
        training.predict_logits(network, images, batch_size), labels
    )


def validation_scores(logits, labels):
    """Log loss, accuracy and mean confidence, as a history calls them."""
    return {
        "val_loss": calibration.log_loss_from_logits(logits, labels),
        "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "val_confidence": float(softmax(logits, axis=1).max(axis=1).mean()),
    }


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
    return training.fit_minibatches(
        network, pictures.images[train], pictures.labels[train], recipe, augment,
        evaluator(pictures.images[held], pictures.labels[held], batch_size),
        checkpoint, seed, device, masks, setting,
    )  # fmt: skip


def history_array(history):
    """(epochs, 4) array of the columns `HISTORY`."""
    return np.array([[row[key] for key in HISTORY] for row in history])


def seconds_of(history):
    """Seconds that a training took."""
    return sum(row["seconds"] for row in history)


def penalised_step(networks, optimiser, x, y, penalty, generator):
    """One step of R networks on outcomes (R, n): squared errors, penalties on squared weights."""
    residual = networks(x, generator)[..., 0] - y
    decay = sum((penalty * weight**2).sum() for weight in networks.weights)
    optimiser.zero_grad()
    (residual.square().mean(dim=1).sum() + decay).backward()
    optimiser.step()


# Scores ---------------------------------------------------------------------------------------


def case_scores(log_probs, labels):
    """Scores (N,) of each case: log loss, Brier score, confidence, entropy."""
    probs, cases = np.exp(log_probs), np.arange(len(labels))
    return {
        "loss": -log_probs[cases, labels],
        "brier": np.square(probs - np.eye(probs.shape[1])[labels]).sum(axis=1),
        "confidence": probs.max(axis=1),
        "entropy": entr(probs).sum(axis=1),
    }


def pass_scores(samples):
    """Of passes, logits (T, N, K): log of the mean (N, K), expected entropy, mutual information."""
    summary = summarise_classes(logits=samples)
    return {
        "log_probs": np.log(summary.mean.clip(1e-300)),
        "expected_entropy": summary.expected_entropy,
        "mutual_information": summary.mutual_information,
    }


def loss_by_draws(label_probs):
    """(T,) log loss of the mean of the first 1 … T draws (T, N) of the labels' probabilities."""
    running = np.cumsum(label_probs, axis=0) / np.arange(1, len(label_probs) + 1)[:, None]
    return -np.log(running.clip(1e-300)).mean(axis=1)


def test_scores(logits, labels):
    """What a record says of a network's predictions on test cases."""
    probs = softmax(logits.astype(float), axis=1)
    return {
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "log_loss": calibration.log_loss_from_logits(logits, labels),
        "brier": calibration.brier_score(probs, labels),
        "ece_15_bins": calibration.expected_calibration_error(probs, labels, bins=15),
    }


def training_record(history):
    """What a record says of a training: its history with five digits, and hours."""
    rows = [{key: value if key == "epoch" else round(value, 5) for key, value in row.items()}
            for row in history]  # fmt: skip
    return {"history": rows, "hours": round(seconds_of(history) / 3600, 3)}


# Files ----------------------------------------------------------------------------------------


def save(path, arrays, record):
    """Write a run, its arrays rounded by `rounding.compact`, and return its path."""
    recorded.save(path, compact(arrays), record)
    return path


def cached(path, name, settings, make):
    """Arrays of a part of a run, made now, or before under the same settings.

    Parameters
    ----------
    path : path of the run; the part is beside it, "<run>-<name>.npz"
    name : str, of the part
    settings : what JSON can hold, all that decides the arrays
    make : callable () -> dict of arrays

    Returns
    -------
    dict of arrays, and "seconds" that they took

    Raises
    ------
    ValueError
        Where the file is damaged.
    """
    path, settings = path.with_name(f"{path.stem}-{name}.npz"), json.dumps(settings)
    if path.exists():
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                arrays = dict(file)
            same = str(arrays.pop("settings")) == settings
        except Exception:  # whose text would be about pickles, or about the insides of archives
            raise ValueError(
                f"folder: {path} is damaged, no finished part of this run; "
                "remove it, and the run makes it again"
            ) from None
        if same:
            return arrays
    progress(path.stem)
    begin = perf_counter()
    arrays = make()
    arrays["seconds"] = np.float64(perf_counter() - begin)
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, **arrays, settings=settings)
    return arrays


def provenance(run, seed, device="cpu", seconds=0.0):
    """`recorded.provenance` of a run, with its hours, and the name of its GPU where it has one.

    Several processes are named in the command: BatchNorm that learns sees in each its own part of
    a batch, and what they reach together is not what one reaches alone.
    """
    device, processes = torch.device(device), distributed.rank_and_world_size()[1]
    start = "python" if processes == 1 else f"torchrun --nproc-per-node {processes}"
    command = f"{start} -m mcunc run {run}"
    if device.type != "cpu":
        command += f" --device {device.type}"  # "cuda:1" is that of one process
    record = recorded.provenance(command, seed) | {"hours": round(seconds / 3600, 4)}
    if device.type == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
    return record
