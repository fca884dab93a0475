"""Masks in EfficientNet-Lite0 as it comes, trained without dropout: chapter 6b.

It shows what dropout added afterwards does to a network's predictions; four minutes on two cores.
"""

import numpy as np

from mcunc import data, training
from mcunc.dropout import sample_logits
from mcunc.pretrained import SETTINGS, photograph_network
from mcunc.runs.common import recorded_run

SETTING = SETTINGS["efficientnet_lite0"]
PASSES = 5
VARIANTS = ("everywhere", "last", "head")
DROPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@recorded_run("birds-pretrained")
def run_pretrained(seed, path):
    """Masks in EfficientNet-Lite0 as it comes, trained without dropout (chapter 6b).

    One pass predicts ImageNet's 1,000 classes for a photograph of each of 200 species, beside the
    network without masks: dropout everywhere, in the last blocks and the head, at the head alone.

    Parameters
    ----------
    seed : int, of the photographs and the masks
    """
    pictures = data.cub200(2010, SETTING.size)
    order = np.random.default_rng(seed).permutation(len(pictures.labels))
    _, first = np.unique(pictures.labels[order], return_index=True)
    cases = order[first]
    images = pictures.images[cases]
    predicted = np.zeros((len(VARIANTS), len(DROPS), PASSES, len(cases)), int)
    for i, variant in enumerate(VARIANTS):
        for j, p in enumerate(DROPS):
            network = photograph_network(SETTING, variant, p, classes=1000).eval()
            samples = sample_logits(network, images, PASSES, seed=seed, batch_size=50)
            predicted[i, j] = samples.argmax(axis=2)
    plain = photograph_network(SETTING, "standard", classes=1000)
    off = training.predict_logits(plain, images, batch_size=50).argmax(axis=1)
    about = {"data": pictures.source, "kind": pictures.kind, "where": VARIANTS, "drops": DROPS}
    return {"predicted": predicted, "off": off, "cases": cases}, about
