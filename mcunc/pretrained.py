"""Networks whose trained weights ship with the book, and how they are built."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mcunc import networks, recorded, training
from mcunc._internal.weight_deltas import restore
from mcunc.dropout import with_dropout

# No dropout, each network with birds of its own; all with the birds of the first; dropout
# everywhere; everywhere but on the picture.
ARMS = ("standard", "shared", "everywhere", "spared")
WITHOUT_DROPOUT = ARMS[:2]
DROP = 0.05
BEHIND_THE_PICTURE = ["features.2", "features.3", "features.4", "head"]
CLASSES = 200


def drawn_network(arm, seed=0):
    """The small Inception network, with dropout before every weight layer, or all but the first."""
    network = networks.small_inception(classes=8, seed=seed)
    if arm in WITHOUT_DROPOUT:
        return network
    return with_dropout(network, DROP, None if arm == "everywhere" else BEHIND_THE_PICTURE)


def load_network(run, arm, member=0):
    """A network of a recorded run, trained on 4,000 birds, with its weights; none is "shared"."""
    network = drawn_network(arm)
    prefix = f"weights_{arm}_{member}/"
    state = {
        name.removeprefix(prefix): torch.from_numpy(run.arrays[name])
        for name in run.arrays if name.startswith(prefix)
    }  # fmt: skip
    network.load_state_dict(state)
    return network.eval()


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes
    ----------
    size : int, pixels of a side
    recipe : training.Recipe
    build : callable (classes, seed) -> ImageClassifier
    last : tuple of str, parts that arm "last" has dropout in, beside the head
    ramp : float, part of the steps in which the probability to drop rises from 0
    probe : bool, whether the head is first learned alone
    """

    size: int
    recipe: training.Recipe
    build: object
    last: tuple
    ramp: float = 0.0
    probe: bool = False


# BatchNorm learns its statistics anew.  Kept as they came, learning rates of 0.0003 to 0.003 made
# the network worse than its probe within an epoch (inner split, 160 pixels).  On a GPU
# torchvision's GoogLeNet with ImageNet weights takes minutes.
_FINE_TUNED = training.Recipe(
    epochs=10, batch_size=32, learning_rate=0.01, lr_milestones=(0.6, 0.85), weight_decay=1e-4
)  # fmt: skip
_FROM_SCRATCH = training.Recipe(
    epochs=60, batch_size=64, learning_rate=0.05, lr_milestones=(0.7, 0.9), weight_decay=5e-4,
    half_resolution_fraction=0.5,
)  # fmt: skip
_googlenet = partial(networks.torchvision_classifier, "googlenet")
SETTINGS = {
    "efficientnet_lite0": Setting(
        224, _FINE_TUNED, networks.efficientnet_lite0,
        (*(f"features.network._blocks.{i}" for i in (12, 13, 14, 15)),
         "features.network._conv_head"),
        ramp=0.5, probe=True,
    ),
    "googlenet": Setting(
        128, _FROM_SCRATCH, _googlenet, ("features.inception5a", "features.inception5b")
    ),
    "googlenet_imagenet": Setting(
        224, _FINE_TUNED, partial(_googlenet, pretrained=True),
        ("features.inception5a", "features.inception5b"), ramp=0.5, probe=True,
    ),
}  # fmt: skip


def photograph_network(setting, arm, drop, classes=CLASSES, seed=0):
    """The network of an arm: no dropout; at the head; there and in the last blocks; everywhere."""
    network = setting.build(classes=classes, seed=seed)
    # Some come with dropout before the last layer; here the arm alone says where it is.
    network.head = next(m for m in network.head.modules() if isinstance(m, nn.Linear))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # Lite0's 0.01 is for longer training
    if arm == "standard":
        return network
    layers = {"head": ["head"], "last": [*setting.last, "head"], "everywhere": None}[arm]
    return with_dropout(network, drop, layers)


def zero_head(network):
    with torch.no_grad():
        for value in network.head.parameters():
            value.zero_()
    return network


def fine_tuned(run, settings=SETTINGS, classes=CLASSES):
    """The network of a recorded run, from the weights that lie beside it.

    They are rounded to save space (`_changes`): of the 603 photographs that judge, the two networks
    of the book name 589 and 597 as the trained ones did, and their log loss is the same to 0.005.

    Parameters
    ----------
    run : str, name of the run without "-weights"
    settings : dict of name -> Setting
    classes : int

    Returns
    -------
    ImageClassifier in evaluation mode; with dropout where the run had it

    Raises
    ------
    ValueError
        Where there is no such run.
    ImportError
        Without the packages of EfficientNet-Lite0.
    """
    weights = recorded.load(f"{run}-weights")
    made = weights.record
    setting = settings[made["network"]]
    network = photograph_network(setting, made["arm"], made["drop"], classes, made["seed"])
    restore(zero_head(network), weights.arrays)
    return network.eval()
