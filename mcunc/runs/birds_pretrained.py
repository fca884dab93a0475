"""Masks in EfficientNet-Lite0 as it comes, trained without dropout: chapter 6b.

It shows what dropout added afterwards does to a network's predictions; four minutes on two cores.
"""

from time import perf_counter

import numpy as np

from mcunc import data, recorded, training
from mcunc.dropout import sample_logits
from mcunc.pretrained import SETTINGS, photograph_network
from mcunc.runs.common import command, provenance, save

PASSES = 5
VARIANTS = ("everywhere", "last", "head")


@command("birds-pretrained")
def run_pretrained(
    seed=0, folder="runs", *, drops=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    setting=SETTINGS["efficientnet_lite0"], pictures=None,
):  # fmt: skip
    """Masks in EfficientNet-Lite0 as it comes, trained without dropout (chapter 6b).

    One pass predicts ImageNet's 1,000 classes for a photograph of each of 200 species, beside the
    network without masks: dropout everywhere, in the last blocks and the head, at the head alone.

    Parameters
    ----------
    seed : int, of the photographs and the masks
    folder : path, takes ``birds-pretrained.npz`` and .json
    drops : tuple of float, probabilities to drop
    setting : Setting
    pictures : data.Pictures, instead of CUB-200, 2010

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0 or a folder that is no path.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    """
    seed, path = recorded.destination("birds-pretrained", seed, folder)
    pictures, begin = pictures or data.cub200(2010, setting.size), perf_counter()
    order = np.random.default_rng(seed).permutation(len(pictures.labels))
    _, first = np.unique(pictures.labels[order], return_index=True)
    cases = order[first]
    images = pictures.images[cases]
    plain = photograph_network(setting, "standard", None, classes=1000).eval()
    predicted = np.zeros((len(VARIANTS), len(drops), PASSES, len(cases)), int)
    for i, variant in enumerate(VARIANTS):
        for j, p in enumerate(drops):
            network = photograph_network(setting, variant, p, classes=1000).eval()
            samples = sample_logits(network, images, PASSES, seed=seed, batch_size=50)
            predicted[i, j] = samples.argmax(axis=2)
    off = training.predict_logits(plain, images, batch_size=50).argmax(axis=1)
    record = provenance(f"birds-pretrained --seed {seed}", seed, seconds=perf_counter() - begin) | {
        "data": pictures.source,
        "kind": pictures.kind,
        "where": VARIANTS,
        "drops": drops,
    }
    return save(path, {"predicted": predicted, "off": off, "cases": cases}, record)
