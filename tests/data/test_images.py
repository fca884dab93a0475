"""Photographs become squares; black bars are found and nothing else is taken for one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mcunc.data.images import black_bars, to_square


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


@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)
)
def test_bars_are_as_wide_as_they_are(left, right, top, bottom, seed):
    """Pixels inside are above the limit in the first and the last row and column."""
    height, width = top + 5 + bottom, left + 6 + right
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 13, (3, height, width), dtype=np.uint8)
    image[:, top : height - bottom, left : width - right] = rng.integers(0, 256, (3, 5, 6))
    image[1, [top, height - bottom - 1], left + 2] = 99
    image[2, top + 3, [left, width - right - 1]] = 13
    expected = np.ones((height, width), bool)
    expected[top : height - bottom, left : width - right] = False
    np.testing.assert_array_equal(black_bars(image[None])[0], expected)


def test_darkness_inside_is_no_bar():
    image = np.full((1, 3, 8, 8), 100, np.uint8)
    image[:, :, 3:5] = 0  # a black band that touches both sides, between bright rows
    assert not black_bars(image).any()
    assert black_bars(np.zeros((1, 3, 4, 4), np.uint8)).all()
