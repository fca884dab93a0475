"""Networks that never saw a truck, and what they say of trucks: the run of chapter 7."""

import sys
from dataclasses import asdict, dataclass

import numpy as np
from torch import nn

from mcunc import calibration, data, networks, predictive, recorded, training
from mcunc._internal import distributed
from mcunc.data.corruption import corrupt
from mcunc.dropout import keyed_masks, sample_logits, with_dropout
from mcunc.ood import Mahalanobis
from mcunc.runs.common import DEVICE, channels, command, fit, half, provenance, told

HELD_OUT = "truck"
DROP = 0.1  # not chosen by trials
# Chapter 1's, for half the epochs.  Its weight decay was chosen on validation pictures of all ten
# classes, the one way by which trucks have had a say.
RECIPE = training.Recipe(
    epochs=30, learning_rate=0.1, weight_decay=5e-4, half_resolution_fraction=0.4
)


@dataclass(frozen=True)
class Settings:
    """How networks are trained and what they are asked; as it stands, as in the chapter.

    Attributes
    ----------
    recipe : training.Recipe
    depth : int, layers
    validation : int, pictures, with the trucks among them, which go
    members : int, networks of an ensemble; the first is the standard one
    draws : int, passes
    masked : tuple of str, with dropout: the last stage
    corrupted : int, known test pictures that are shown corrupted too, as all trucks are
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


def network_of(arm, seed, how=BOOK, **standardise):
    """Twenty layers and nine classes; with dropout in the last stage in arm "dropout"."""
    network = networks.cifar_resnet(how.depth, classes=9, seed=seed, **standardise)
    return with_dropout(network, DROP, how.masked) if arm == "dropout" else network


def trained(arm, seed, train, parts, checkpoint, device, how=BOOK):
    """A trained network, and the history of its training."""
    network = network_of(arm, seed, how, **channels(train.images[parts[0]]))
    masks, setting = None, {"arm": arm}
    if arm == "dropout":
        masks, setting = keyed_masks(seed), setting | {"p": DROP, "layers": list(how.masked)}
    history = fit(network, how.recipe, train, parts, checkpoint, seed, device, masks, setting)
    return network, history


def shown(test, how=BOOK):
    """What the networks are asked: pictures by name, and the classes of the known ones.

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


def sampled(network, pictures, seed, draws):
    """What passes with masks say: logarithm of the mean, expected entropy, mutual information.

    The entropy of the mean is the sum of the latter two, more exactly than from the logarithms.
    """
    found = {}
    for name, of in pictures.items():
        summary = predictive.summarise_classes(logits=sample_logits(network, of, draws, seed=seed))
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


@command("trucks", DEVICE)
def run_trucks(seed=0, folder="runs", device="cpu", how=BOOK, pictures=None):
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
    parts = [apart(train, of)[0] for of in data.stratified_split(train.labels, how.validation)]
    asking, labels, some = shown(test, how)
    asking["val"] = train.images[parts[1]]
    arrays = {
        "test_labels": labels.astype(np.uint8), "corrupted_cases": some.astype(np.uint16),
        "val_labels": train.labels[parts[1]].astype(np.uint8),
    }  # fmt: skip
    record = provenance(f"trucks --seed {seed}", seed, device) | {
        "data": train.source, "held_out": HELD_OUT, "recipe": asdict(how.recipe), "p": DROP,
        "layers": how.masked, "draws": how.draws, "members": how.members,
        "corruptions": how.corruptions, "networks": {},
    }  # fmt: skip
    first = how.members * seed
    arms = {f"standard{i}": ("standard", first + i) for i in range(how.members)}
    for name, (arm, own) in (arms | {"dropout": ("dropout", first)}).items():
        print(f"trucks: {name}", file=sys.stderr, flush=True)
        checkpoint = path.with_name(f"trucks-{arm}-{own}.pt")
        network, history = trained(arm, own, train, parts, checkpoint, device, how)
        if arm == "dropout":
            found = asked(network, {key: asking[key] for key in ("test", "truck", "val")})
            found = {f"off_{key}": value for key, value in found.items()}
            found |= sampled(network, asking, seed, how.draws)
        else:
            found = asked(network, asking, top=name == "standard0")
        if name == "standard0":
            found |= distances(network, train, parts[0], asking)
        arrays |= {f"{name}_{key}": value for key, value in found.items()}
        record["networks"][name] = _scores(found, labels, history)
    recorded.save(path, arrays, record)
    return path


def _scores(found, labels, history):
    """What the record says of one network."""
    logits = found["test_logits"].astype(float)
    return {
        "accuracy": float((found["test_predicted"] == labels).mean()),
        "log_loss": calibration.log_loss_from_logits(logits, labels),
    } | told(history)
