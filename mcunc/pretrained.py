"""Build the networks of the book, and load those whose trained weights ship with the package."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mcunc import networks, recorded, training
from mcunc._internal.deprecation import renamed_arguments
from mcunc._internal.weight_deltas import restore
from mcunc.dropout import with_dropout

__all__ = ["SETTINGS", "VARIANTS", "Setting", "drawn_network", "fine_tuned", "load_network"]
__all__ += ["photograph_network", "zero_head"]

# No dropout, with different training birds for each network; no dropout, with the same birds for
# all; dropout before every weight layer; before every weight layer except the first.
VARIANTS = ("standard", "shared", "everywhere", "spared")
WITHOUT_DROPOUT = VARIANTS[:2]
DROP = 0.05
BEHIND_THE_PICTURE = ["features.2", "features.3", "features.4", "head"]
CLASSES = 200


def drawn_network(variant, seed=0):
    """Build the small Inception network for drawn birds, untrained.

    Parameters
    ----------
    variant : str, one of `VARIANTS`
        "everywhere" has dropout before every weight layer, "spared" before all but the first; the
        others have none.
    seed : int, seed of the initial weights

    Returns
    -------
    networks.ImageClassifier

    Examples
    --------
    >>> from mcunc import pretrained
    >>> network = pretrained.drawn_network("spared")
    >>> sum(type(module).__name__.startswith("Dropout") for module in network.modules())
    19
    """
    network = networks.small_inception(classes=8, seed=seed)
    if variant in WITHOUT_DROPOUT:
        return network
    return with_dropout(network, DROP, None if variant == "everywhere" else BEHIND_THE_PICTURE)


@renamed_arguments(arm="variant")
def load_network(run, variant, member=0):
    """Load one of the networks of the run "birdwatch-dropout", trained on 4,000 drawn birds.

    Parameters
    ----------
    run : recorded.Recorded
    variant : {"standard", "everywhere", "spared"}
    member : int, from 0 to 4

    Returns
    -------
    networks.ImageClassifier, in evaluation mode

    Examples
    --------
    >>> from mcunc import birdwatch, pretrained, recorded, training
    >>> network = pretrained.load_network(recorded.load("birdwatch-dropout"), "standard")
    >>> birds = birdwatch.draw_birds(20, seed=1, eight_bit=True)
    >>> logits = training.predict_logits(network, birdwatch.as_bytes(birds))
    >>> bool((logits.argmax(axis=1) // 2 == birds.labels // 2).all())  # the pairs of sisters
    True
    """
    network = drawn_network(variant)
    prefix = f"weights_{variant}_{member}/"
    network.load_state_dict({
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in run.arrays.items() if name.startswith(prefix)
    })  # fmt: skip
    return network.eval()


@dataclass(frozen=True)
class Setting:
    """How a network is built and trained on photographs.

    Attributes
    ----------
    size : int, height and width of the photographs in pixels
    recipe : training.Recipe
    build : callable (classes, seed) -> networks.ImageClassifier
    last : tuple of str, parts that get dropout in variant "last", in addition to the head
    ramp : float, fraction of the steps during which the dropout probability rises from 0
    probe : bool, whether the head is first trained alone

    Examples
    --------
    >>> from mcunc import pretrained
    >>> pretrained.SETTINGS["efficientnet_lite0"].size
    224
    """

    size: int
    recipe: training.Recipe
    build: object
    last: tuple
    ramp: float = 0.0
    probe: bool = False


# BatchNorm adapts its statistics.  With frozen statistics, learning rates of 0.0003 to 0.003 made
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


def photograph_network(setting, variant, drop=None, classes=CLASSES, seed=0):
    """Build a network for photographs, with dropout at the positions of the variant.

    Parameters
    ----------
    setting : Setting
    variant : {"standard", "head", "last", "everywhere"}
        Dropout nowhere, before the head, before the head and in the last blocks, or before every
        weight layer.
    drop : float in (0, 1), dropout probability; ignored for "standard"
    classes : int
    seed : int, seed of the newly initialised weights

    Returns
    -------
    networks.ImageClassifier

    Examples
    --------
    >>> from functools import partial
    >>> from mcunc import networks, pretrained, training
    >>> build = partial(networks.cifar_resnet, 8)
    >>> setting = pretrained.Setting(32, training.Recipe(epochs=1), build, last=("features.5",))
    >>> pretrained.photograph_network(setting, "head", 0.2, classes=5).head.dropout.p
    0.2
    """
    network = setting.build(classes=classes, seed=seed)
    # Some come with dropout before the last layer; here only the variant determines it.
    network.head = next(m for m in network.head.modules() if isinstance(m, nn.Linear))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # Lite0's 0.01 is for longer training
    if variant == "standard":
        return network
    layers = {"head": ["head"], "last": [*setting.last, "head"], "everywhere": None}[variant]
    return with_dropout(network, drop, layers)


def zero_head(network):
    """Set the weights and biases of a network's head to 0, in place.

    Parameters
    ----------
    network : networks.ImageClassifier

    Returns
    -------
    networks.ImageClassifier, the argument itself

    Examples
    --------
    >>> from mcunc import pretrained
    >>> network = pretrained.zero_head(pretrained.drawn_network("standard"))
    >>> bool(network.head.weight.any())
    False
    """
    for value in network.head.parameters():
        nn.init.zeros_(value)
    return network


def fine_tuned(run, settings=SETTINGS, classes=CLASSES):
    """Load a network that was fine-tuned on photographs of birds.

    Parameters
    ----------
    run : str, name of a recorded run whose weights ship with the package, or its path
    settings : dict of name -> Setting
    classes : int

    Returns
    -------
    networks.ImageClassifier in evaluation mode, with the dropout layers of the run

    Raises
    ------
    ValueError
        If there is no such run.
    ImportError
        Without the packages of EfficientNet-Lite0.

    Notes
    -----
    The weights are rounded to save space.  On the 603 test photographs, the book's two networks
    agree with their unrounded versions in 589 and 597 predictions, and their log losses differ by
    at most 0.005.

    Examples
    --------
    >>> from mcunc import pretrained
    >>> network = pretrained.fine_tuned("birds-efficientnet_lite0-standard-224-10-0.01-seed0")
    >>> network.head.out_features
    200
    """
    weights = recorded.load(f"{run}-weights")
    record = weights.record
    network = photograph_network(
        settings[record["network"]], record["arm"], record["drop"], classes, record["seed"]
    )
    restore(zero_head(network), weights.arrays)
    return network.eval()
