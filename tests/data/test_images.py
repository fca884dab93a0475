"""Photographs become squares in three colours."""

import numpy as np
from PIL import Image

from mcunc.data.images import to_square


def test_a_square_of_the_right_size_stays_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_square(Image.fromarray(pixels), 30), pixels)


def test_the_square_is_in_the_middle():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    assert (to_square(Image.fromarray(pixels), 10) == 200).all()


def test_grey_and_palette_and_alpha_become_three_channels():
    grey = Image.fromarray(np.full((6, 6), 70, np.uint8))
    for image in (grey, grey.convert("P"), grey.convert("RGBA"), grey.convert("CMYK")):
        assert to_square(image, 6).shape == (6, 6, 3)
