"""Networks that never saw a truck, and what they say of trucks: the run of chapter 7."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from mcunc import _parallel, calibration, data, networks, predictive, recorded, training
from mcunc._checks import check_count, check_folder
from mcunc._cifar_run import channels, fit, half, rounded
from mcunc.corruption import corrupt
from mcunc.dropout import keyed_masks, sample_logits, with_dropout
from mcunc.ood import Mahalanobis

HELD_OUT = "truck"
VALIDATION = 5_000  # with the trucks among them, which go
MEMBERS = 4  # networks of an ensemble; the first is the standard one
DROP, DRAWS = 0.1, 50  # not chosen by trials
MASKED = ["features.9", "features.10", "features.11", "head"]  # the last stage
# Chapter 1's, for half the epochs.  Its weight decay was chosen on validation pictures of all ten
# classes, the one way by which trucks have had a say.
RECIPE = training.Recipe(epochs=30, learning_rate=0.1, weight_decay=5e-4, halved=0.4)
# What is shown corrupted: so many of the known test pictures, and all trucks.
CORRUPTED = 900
CORRUPTIONS = (
    *(("contrast", severity) for severity in (1, 3, 5)),
    ("gaussian_noise", 5),
    ("gaussian_blur", 5),
)


def apart(pictures, cases):
    """Those of the cases that are no trucks, and those that are."""
    trucks = pictures.labels[cases] == pictures.names.index(HELD_OUT)
    return cases[~trucks], cases[trucks]


def network_of(arm, seed, **standardise):
    """Twenty layers and nine classes; with dropout in the last stage in arm "dropout"."""
    network = networks.cifar_resnet(20, classes=9, seed=seed, **standardise)
    return with_dropout(network, DROP, MASKED) if arm == "dropout" else network


def trained(arm, seed, train, parts, checkpoint, device):
    """A trained network, and the history of its training."""
    network = network_of(arm, seed, **channels(train.images[parts[0]]))
    masks, setting = None, {"arm": arm}
    if arm == "dropout":
        masks, setting = keyed_masks(seed), {"arm": arm, "p": DROP, "layers": MASKED}
    history = fit(network, RECIPE, train, parts, checkpoint, seed, device, masks, setting)
    return network, history


def shown(test):
    """What the networks are asked: pictures by name, and the classes of the known ones.

    Returns
    -------
    pictures : dict of name -> (N, 3, 32, 32) uint8 array: "test", "truck", and both corrupted,
        "contrast-1-test" and so on
    labels : (N,) int array, of "test"
    some : int array, which of "test" are corrupted
    """
    known, trucks = apart(test, np.arange(len(test.labels)))
    _, some = data.stratified_split(test.labels[known], CORRUPTED)
    pictures = {"test": test.images[known], "truck": test.images[trucks]}
    for kind, severity in CORRUPTIONS:
        for name, of in (("test", known[some]), ("truck", trucks)):
            pictures[f"{kind}-{severity}-{name}"] = corrupt(
                test.images[of], kind, severity, seed=severity
            )
    return pictures, test.labels[known], some


def asked(network, pictures, top=False):
    """Logits of every set of pictures in half precision, and the largest of each row before."""
    logits = {name: training.predict_logits(network, of) for name, of in pictures.items()}
    found = half({f"{name}_logits": of for name, of in logits.items()})
    return found | {f"{name}_top": of.max(axis=1) for name, of in logits.items() if top}


def sampled(network, pictures, seed):
    """What passes with masks say: logarithm of the mean, expected entropy, mutual information.

    The entropy of the mean is the sum of the latter two, more exactly than from the logarithms.
    """
    found = {}
    for name, of in pictures.items():
        summary = predictive.summarise_classes(logits=sample_logits(network, of, DRAWS, seed=seed))
        logarithm = np.log(summary.mean.clip(1e-300))
        found |= half({f"{name}_logits": logarithm})
        found[f"{name}_expected_entropy"] = summary.expected_entropy.astype(np.float32)
        found[f"{name}_mutual_information"] = summary.mutual_information.astype(np.float32)
    return found


def distances(network, train, fitted, pictures):
    """How far the features of each picture are from those of the nearest class."""
    mean, std = (of.flatten().tolist() for of in (network.mean, network.std))
    body = networks.ImageClassifier(network.features, network.pooling, nn.Identity(), mean, std)
    body.to(next(network.parameters()).device)
    learned = training.predict_logits(body, train.images[fitted])
    score = Mahalanobis().fit(learned, train.labels[fitted]).score
    return {
        f"{name}_distance": score(training.predict_logits(body, of)).astype(np.float32)
        for name, of in pictures.items()
    }


def run_trucks(seed=0, folder="runs", device="cpu"):
    """Train networks on CIFAR-10 without its trucks, and ask them about trucks.

    Four residual networks without dropout, of which the first is "standard" and all together are
    an ensemble, and one with dropout in its last stage.  They are asked about the nine classes'
    test pictures and about the trucks among them, as they are, with less contrast, with noise and
    blurred.  Killed and called again, it goes on from the last checkpoint.

    Parameters
    ----------
    seed : int, decides initial weights, order, augmentation and masks: that of member i is four
        times it and i, so that no two runs share a network
    folder : path, takes checkpoints and ``trucks.npz`` and .json
    device : str, a torch device

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0, no such device, or a checkpoint in `folder` that is damaged or of other
        settings.
    FileNotFoundError
        Where the data are neither here nor to be downloaded.
    """
    seed = check_count("seed", seed, minimum=0)
    check_folder(folder)
    training.check_device(device)
    train, test = data.cifar(10)
    parts = [apart(train, of)[0] for of in data.stratified_split(train.labels, VALIDATION)]
    pictures, labels, some = shown(test)
    pictures["val"] = train.images[parts[1]]
    arrays = {
        "test_labels": labels.astype(np.uint8), "corrupted_cases": some.astype(np.uint16),
        "val_labels": train.labels[parts[1]].astype(np.uint8),
    }  # fmt: skip
    record = _parallel.provenance(f"trucks --seed {seed}", seed, device) | {
        "data": train.source, "held_out": HELD_OUT, "recipe": asdict(RECIPE), "p": DROP,
        "layers": MASKED, "draws": DRAWS, "members": MEMBERS,
        "corruptions": [list(of) for of in CORRUPTIONS], "networks": {},
    }  # fmt: skip
    arms = {f"standard{i}": ("standard", MEMBERS * seed + i) for i in range(MEMBERS)}
    for name, (arm, own) in (arms | {"dropout": ("dropout", MEMBERS * seed)}).items():
        print(f"trucks: {name}", file=sys.stderr, flush=True)
        path = Path(folder) / f"trucks-{arm}-{own}.pt"
        network, history = trained(arm, own, train, parts, path, device)
        if arm == "dropout":
            found = asked(network, {key: pictures[key] for key in ("test", "truck", "val")})
            found = {f"off_{key}": value for key, value in found.items()}
            found |= sampled(network, pictures, seed)
        else:
            found = asked(network, pictures, top=name == "standard0")
        if name == "standard0":
            found |= distances(network, train, parts[0], pictures)
        arrays |= {f"{name}_{key}": value for key, value in found.items()}
        record["networks"][name] = _scores(found, labels, history)
    path = Path(folder) / recorded.file_name("trucks", seed)
    recorded.save(path, arrays, record)
    return path


def _scores(found, labels, history):
    """What the record says of one network."""
    logits = found["test_logits"].astype(float)
    return {
        "accuracy": float((found["test_predicted"] == labels).mean()),
        "log_loss": calibration.log_loss_from_logits(logits, labels),
        "history": rounded(history),
        "hours": round(sum(row["seconds"] for row in history) / 3600, 3),
    }
