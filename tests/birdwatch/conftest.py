"""Birds that the tests share."""

import numpy as np
import pytest

from mcunc import birdwatch as bw
from mcunc.birdwatch import scene


@pytest.fixture(scope="session")
def birds():
    return bw.draw_birds(300, seed=11)


@pytest.fixture(scope="session")
def extremes():
    """Birds at the corners of the range of every nuisance that moves the breast or the leaf."""
    latents = bw.draw_latents(256, seed=2)
    corners = np.indices((2,) * 8).reshape(8, -1)
    moving = ("x", "y", "scale", "tilt", "leaf_x", "leaf_y", "leaf_angle")
    for corner, name in zip(corners, moving, strict=False):
        latents[name] = np.array(scene._NUISANCES[name])[corner]
    latents["covered"], latents["leaf"] = corners[-1] == 1, 1.0
    return latents
