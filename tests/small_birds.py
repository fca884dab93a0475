"""A few made-up pictures in the place of CUB-200, and a small network for them."""

import numpy as np

from mcunc import data, networks, training
from mcunc.pretrained import Setting
from mcunc.runs import birds

RECIPE = training.Recipe(2, 16, 0.05, freeze_batchnorm=True)


def five_colours():
    """Twenty pictures of each of five colours."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(5), 20)
    colours = rng.integers(0, 200, (5, 3, 1, 1))
    images = (colours[labels] + rng.integers(0, 56, (100, 3, 32, 32))).astype(np.uint8)
    return data.Pictures(images, labels, list("abcde"), "birds.tgz sha256:0", "full")


FEW = five_colours()
TINY = Setting(32, RECIPE, networks.small_inception, ("features.4",))
SETTINGS = {"tiny": TINY}
SMALL = (  # for `shrunk`
    (birds, {"SETTINGS": SETTINGS, "DRAWS": 6}),
    (data, {"cub200": lambda year, size=32: FEW}),
)
