"""Networks that never saw a truck, and what they predict for trucks: chapter 7.

It shows which uncertainty scores detect a class that is new; 25 minutes on a GPU.
"""

from dataclasses import asdict

import numpy as np
from torch import nn

from mcunc import data, networks, training
from mcunc._internal.rounding import compact_logits
from mcunc.data.corruption import corrupt
from mcunc.dropout import keyed_masks, sample_logits, with_dropout
from mcunc.ood import Mahalanobis
from mcunc.runs import common
from mcunc.runs.common import DEVICE, channels, fit, progress, recorded_run

HELD_OUT = "truck"
DROP = 0.1  # not chosen by trials
# Chapter 1's, for half the epochs.  Its weight decay was chosen on validation pictures of all ten
# classes, the only way trucks influenced training.
RECIPE = training.Recipe(
    epochs=30, learning_rate=0.1, weight_decay=5e-4, half_resolution_fraction=0.4
)
VALIDATION = 5_000  # pictures, with the trucks among them, which go
MEMBERS = 4  # networks of an ensemble; the first is the standard one
DRAWS = 50  # passes
MASKED = ("features.9", "features.10", "features.11", "head")  # with dropout: the last stage
CORRUPTED = 900  # known test pictures that are corrupted too, as all trucks are
CORRUPTIONS = (  # kind and severity
    ("contrast", 1), ("contrast", 3), ("contrast", 5), ("gaussian_noise", 5), ("gaussian_blur", 5),
)  # fmt: skip


def apart(pictures, cases):
    """Those of the cases that are no trucks, and those that are."""
    trucks = pictures.labels[cases] == pictures.names.index(HELD_OUT)
    return cases[~trucks], cases[trucks]


def network_of(variant, seed, **standardise):
    """Twenty layers and nine classes; with dropout in the last stage in variant "dropout"."""
    network = networks.cifar_resnet(classes=9, seed=seed, **standardise)
    return with_dropout(network, DROP, MASKED) if variant == "dropout" else network


def trained(variant, seed, train, parts, checkpoint, device):
    """A trained network, and the history of its training."""
    network = network_of(variant, seed, **channels(train.images[parts[0]]))
    masks, setting = None, {"arm": variant}
    if variant == "dropout":
        masks, setting = keyed_masks(seed), setting | {"p": DROP, "layers": list(MASKED)}
    return network, fit(network, RECIPE, train, parts, checkpoint, seed, device, masks, setting)


def shown(test):
    """What the networks are evaluated on: pictures by name, and the classes of the known ones.

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
        for name, cases in (("test", known[some]), ("truck", trucks)):
            images = corrupt(test.images[cases], kind, severity, seed=severity)
            pictures[f"{kind}-{severity}-{name}"] = images
    return pictures, test.labels[known], some


def deterministic(network, pictures, top=False):
    """Logits of every set of pictures in half precision, and the largest of each row before."""
    logits = {
        f"{name}_logits": training.predict_logits(network, images)
        for name, images in pictures.items()
    }
    largest = {key.replace("logits", "top"): rows.max(axis=1) for key, rows in logits.items()}
    return compact_logits(logits) | (largest if top else {})


def sampled(network, pictures, seed):
    """Of passes with masks: logarithm of the mean, expected entropy, mutual information.

    The entropy of the mean is the sum of the latter two, more exactly than from the logarithms.
    """
    arrays = {}
    for name, images in pictures.items():
        scores = common.pass_scores(sample_logits(network, images, DRAWS, seed=seed))
        arrays |= compact_logits({f"{name}_logits": scores.pop("log_probs")})
        arrays |= {f"{name}_{key}": values for key, values in scores.items()}
    return arrays


def distances(network, train, fitted, pictures):
    """How far the features of each picture are from those of the nearest class."""
    mean, std = (value.flatten().tolist() for value in (network.mean, network.std))
    body = networks.ImageClassifier(network.features, network.pooling, nn.Identity(), mean, std)
    body.to(next(network.parameters()).device)
    learned = training.predict_logits(body, train.images[fitted])
    score = Mahalanobis().fit(learned, train.labels[fitted]).score
    return {
        f"{name}_distance": score(training.predict_logits(body, images))
        for name, images in pictures.items()
    }


@recorded_run("trucks", DEVICE)
def run_trucks(seed, path, device="cpu"):
    """Train networks on CIFAR-10 without its trucks, and evaluate them on trucks (chapter 7).

    Four residual networks without dropout, of which the first is "standard" and all together are
    an ensemble, and one with dropout in its last stage.  They are evaluated on the nine
    classes' test pictures and on the trucks among them, as they are, with less contrast, with noise
    and blurred.  Killed and called again, it goes on from the last checkpoint.

    Parameters
    ----------
    seed : int, decides initial weights, order, augmentation and masks: that of member i is four
        times it and i, so that no two runs share a network
    path, device : as `recorded_run` gives them
    """
    train, test = data.cifar(10)
    parts = [apart(train, cases)[0] for cases in data.stratified_split(train.labels, VALIDATION)]
    sets, labels, some = shown(test)
    sets["val"] = train.images[parts[1]]
    arrays = {"test_labels": labels, "val_labels": train.labels[parts[1]], "corrupted_cases": some}
    seeds, details = range(MEMBERS * seed, MEMBERS * (seed + 1)), {}
    variants = {f"standard{i}": ("standard", own) for i, own in enumerate(seeds)}
    for name, (variant, own) in (variants | {"dropout": ("dropout", seeds[0])}).items():
        progress(f"trucks: {name}")
        checkpoint = path.with_name(f"trucks-{variant}-{own}.pt")
        network, history = trained(variant, own, train, parts, checkpoint, device)
        if variant == "dropout":
            few = deterministic(network, {key: sets[key] for key in ("test", "truck", "val")})
            outputs = {f"off_{key}": value for key, value in few.items()}
            outputs |= sampled(network, sets, seed)
        else:
            outputs = deterministic(network, sets, top=name == "standard0")
        outputs |= distances(network, train, parts[0], sets) if name == "standard0" else {}
        arrays |= {f"{name}_{key}": value for key, value in outputs.items()}
        scores = common.test_scores(outputs["test_logits"], labels)
        details[name] = scores | common.training_record(history)
    return arrays, {
        "seconds": 3600 * sum(each["hours"] for each in details.values()),
        "data": train.source, "held_out": HELD_OUT, "recipe": asdict(RECIPE), "p": DROP,
        "layers": MASKED, "draws": DRAWS, "members": MEMBERS, "corruptions": CORRUPTIONS,
        "networks": details,
    }  # fmt: skip
