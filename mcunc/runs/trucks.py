"""Networks that never saw a truck, and what they predict for trucks: chapter 7.

It shows which uncertainty scores detect a class that is new; 25 minutes on a GPU.
"""

import sys
from dataclasses import asdict, dataclass

import numpy as np
from torch import nn

from mcunc import data, networks, predictive, recorded, training
from mcunc._internal import distributed
from mcunc.data.corruption import corrupt
from mcunc.dropout import keyed_masks, sample_logits, with_dropout
from mcunc.ood import Mahalanobis
from mcunc.runs import common
from mcunc.runs.common import DEVICE, channels, command, compact_logits, fit, provenance, save

HELD_OUT = "truck"
DROP = 0.1  # not chosen by trials
# Chapter 1's, for half the epochs.  Its weight decay was chosen on validation pictures of all ten
# classes, the only way trucks influenced training.
RECIPE = training.Recipe(
    epochs=30, learning_rate=0.1, weight_decay=5e-4, half_resolution_fraction=0.4
)


@dataclass(frozen=True)
class Settings:
    """How networks are trained and evaluated; the defaults are the chapter's.

    Attributes
    ----------
    recipe : training.Recipe
    depth : int, layers
    validation : int, pictures, with the trucks among them, which go
    members : int, networks of an ensemble; the first is the standard one
    draws : int, passes
    masked : tuple of str, with dropout: the last stage
    corrupted : int, known test pictures that are corrupted too, as all trucks are
    corruptions : tuple of (kind, severity)
    """

    recipe: training.Recipe = RECIPE
    depth: int = 20
    validation: int = 5_000
    members: int = 4
    draws: int = 50
    masked: tuple = ("features.9", "features.10", "features.11", "head")
    corrupted: int = 900
    corruptions: tuple = (
        *(("contrast", severity) for severity in (1, 3, 5)),
        ("gaussian_noise", 5),
        ("gaussian_blur", 5),
    )


BOOK = Settings()


def apart(pictures, cases):
    """Those of the cases that are no trucks, and those that are."""
    trucks = pictures.labels[cases] == pictures.names.index(HELD_OUT)
    return cases[~trucks], cases[trucks]


def network_of(variant, seed, how=BOOK, **standardise):
    """Twenty layers and nine classes; with dropout in the last stage in variant "dropout"."""
    network = networks.cifar_resnet(how.depth, classes=9, seed=seed, **standardise)
    return with_dropout(network, DROP, how.masked) if variant == "dropout" else network


def trained(variant, seed, train, parts, checkpoint, device, how=BOOK):
    """A trained network, and the history of its training."""
    network = network_of(variant, seed, how, **channels(train.images[parts[0]]))
    masks, setting = None, {"arm": variant}
    if variant == "dropout":
        masks, setting = keyed_masks(seed), setting | {"p": DROP, "layers": list(how.masked)}
    history = fit(network, how.recipe, train, parts, checkpoint, seed, device, masks, setting)
    return network, history


def shown(test, how=BOOK):
    """What the networks are evaluated on: pictures by name, and the classes of the known ones.

    Returns
    -------
    pictures : dict of name -> (N, 3, 32, 32) uint8 array: "test", "truck", and both corrupted,
        "contrast-1-test" and so on
    labels : (N,) int array, of "test"
    some : int array, which of "test" are corrupted
    """
    known, trucks = apart(test, np.arange(len(test.labels)))
    _, some = data.stratified_split(test.labels[known], how.corrupted)
    pictures = {"test": test.images[known], "truck": test.images[trucks]}
    for kind, severity in how.corruptions:
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


def sampled(network, pictures, seed, draws):
    """Of passes with masks: logarithm of the mean, expected entropy, mutual information.

    The entropy of the mean is the sum of the latter two, more exactly than from the logarithms.
    """
    arrays = {}
    for name, images in pictures.items():
        samples = sample_logits(network, images, draws, seed=seed)
        summary = predictive.summarise_classes(logits=samples)
        arrays |= compact_logits({f"{name}_logits": np.log(summary.mean.clip(1e-300))})
        arrays[f"{name}_expected_entropy"] = summary.expected_entropy
        arrays[f"{name}_mutual_information"] = summary.mutual_information
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


@command("trucks", DEVICE)
def run_trucks(seed=0, folder="runs", device="cpu", how=BOOK, pictures=None):
    """Train networks on CIFAR-10 without its trucks, and evaluate them on trucks (chapter 7).

    Four residual networks without dropout, of which the first is "standard" and all together are
    an ensemble, and one with dropout in its last stage.  They are evaluated on the nine
    classes' test pictures and on the trucks among them, as they are, with less contrast, with noise
    and blurred.  Killed and called again, it goes on from the last checkpoint.

    Parameters
    ----------
    seed : int, decides initial weights, order, augmentation and masks: that of member i is four
        times it and i, so that no two runs share a network
    folder : path, takes checkpoints and ``trucks.npz`` and .json
    device : str, a torch device
    how : Settings
    pictures : pair of data.Pictures, to train and to test on instead of CIFAR-10

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
    seed, path = recorded.destination("trucks", seed, folder)
    distributed.check_device(device)
    train, test = pictures or data.cifar(10)
    parts = [
        apart(train, cases)[0] for cases in data.stratified_split(train.labels, how.validation)
    ]
    sets, labels, some = shown(test, how)
    sets["val"] = train.images[parts[1]]
    arrays = {
        "test_labels": labels, "corrupted_cases": some, "val_labels": train.labels[parts[1]],
    }  # fmt: skip
    record = provenance(f"trucks --seed {seed}", seed, device) | {
        "data": train.source, "held_out": HELD_OUT, "recipe": asdict(how.recipe), "p": DROP,
        "layers": how.masked, "draws": how.draws, "members": how.members,
        "corruptions": how.corruptions, "networks": {},
    }  # fmt: skip
    seeds = range(how.members * seed, how.members * (seed + 1))
    variants = {f"standard{i}": ("standard", own) for i, own in enumerate(seeds)}
    for name, (variant, own) in (variants | {"dropout": ("dropout", seeds[0])}).items():
        print(f"trucks: {name}", file=sys.stderr, flush=True)
        checkpoint = path.with_name(f"trucks-{variant}-{own}.pt")
        network, history = trained(variant, own, train, parts, checkpoint, device, how)
        if variant == "dropout":
            few = deterministic(network, {key: sets[key] for key in ("test", "truck", "val")})
            outputs = {f"off_{key}": value for key, value in few.items()}
            outputs |= sampled(network, sets, seed, how.draws)
        else:
            outputs = deterministic(network, sets, top=name == "standard0")
        outputs |= distances(network, train, parts[0], sets) if name == "standard0" else {}
        arrays |= {f"{name}_{key}": value for key, value in outputs.items()}
        scores = common.test_scores(outputs["test_logits"], labels)
        record["networks"][name] = scores | common.training_record(history)
    return save(path, arrays, record)
