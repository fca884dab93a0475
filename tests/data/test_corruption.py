"""Corruptions have the strengths of CIFAR-10-C and do what their names say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from strategies import GARBAGE, arguments, finite_or_named

from mcunc.data.corruption import STRENGTHS, corrupt

KINDS = list(STRENGTHS)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 12, 10), dtype=np.uint8)


def grey(value=128, count=40):
    return np.full((count, 3, 32, 32), value, dtype=np.uint8)


def test_strengths_are_those_of_cifar_10_c():
    """Hendrycks & Dietterich's make_cifar_c.py: the list c of each function."""
    assert STRENGTHS == {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_bytes_in_bytes_out_and_the_input_stays(kind, severity):
    before = IMAGES.copy()
    result = corrupt(IMAGES, kind, severity)
    assert result.dtype == np.uint8
    assert result.shape == IMAGES.shape
    assert not np.shares_memory(result, IMAGES)
    assert np.array_equal(IMAGES, before)
    assert (result != IMAGES).mean() > 0.3


@pytest.mark.parametrize("severity", range(1, 6))
def test_noise_on_grey_has_the_stated_deviation(severity):
    """Not clipped at 128: floor(128 + 255·s·z) has mean 127.5 and variance (255·s)² + 1/12.

    122,880 values: both within 6 standard errors, false alarms 2e-8 in all.
    """
    sd = 255 * (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    noise = corrupt(grey(), "gaussian_noise", severity).astype(float)
    n = noise.size
    assert abs(noise.mean() - 127.5) < 6 * sd / n**0.5
    assert abs(noise.std() / np.sqrt(sd**2 + 1 / 12) - 1) < 6 / (2 * n) ** 0.5


def test_noise_is_independent_from_pixel_to_pixel_channel_to_channel_and_picture_to_picture():
    """Correlations of neighbours along every axis within 6 standard errors of 0 (8e-9)."""
    noise = corrupt(grey(), "gaussian_noise", 5).astype(float)
    noise -= noise.mean()
    for axis in range(4):
        one, other = np.delete(noise, 0, axis), np.delete(noise, -1, axis)
        correlation = (one * other).mean() / noise.var()
        assert abs(correlation) < 6 / one.size**0.5


def test_noise_is_clipped_at_black_and_white():
    """Half of the draws fall outside; floor(255 · 1) = 255 stays.

    The least bound is 7 standard errors of a share of 122,880; 7 deviations end it (2e-7).
    """
    black, white = (corrupt(grey(value), "gaussian_noise", 5) for value in (0, 255))
    assert abs((white == 255).mean() - 0.5) < 0.01
    assert abs((black == 0).mean() - 0.5) < 0.03  # and those below one step of 1/25 deviations
    assert black.max() < 255 * 0.1 * 7


def test_the_seed_decides_the_noise():
    one, same, other = (corrupt(IMAGES, "gaussian_noise", 2, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).mean() > 0.5
    for kind in ("gaussian_blur", "contrast"):  # which draw nothing
        assert (corrupt(IMAGES, kind, 2, seed=1) == corrupt(IMAGES, kind, 2, seed=2)).all()


def blurred_slowly(channel, sigma):
    """Two passes with a normal kernel cut off at four deviations; edges repeat outside."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(channel, radius, mode="edge")
        if axis == 0:
            padded = padded[:, radius : radius + channel.shape[1]]
        else:
            padded = padded[radius : radius + channel.shape[0]]
        channel = sum(
            weight * np.take(padded, range(i, i + channel.shape[axis]), axis=axis)
            for i, weight in enumerate(kernel)
        )
    return channel


@pytest.mark.parametrize("severity", range(1, 6))
def test_blur_is_that_of_scikit_image(severity):
    """skimage.filters.gaussian's defaults: mode "nearest", truncate 4; each channel by itself."""
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    result = corrupt(IMAGES, "gaussian_blur", severity)
    for picture, blurred in zip(IMAGES, result, strict=True):
        for channel, found in zip(picture, blurred, strict=True):
            expected = 255 * blurred_slowly(channel / 255, sigma)
            assert (
                (found == np.floor(expected - 1e-9)) | (found == np.floor(expected + 1e-9))
            ).all()


@pytest.mark.parametrize("kind", ["gaussian_blur", "contrast"])
def test_channels_and_pictures_do_not_mix(kind):
    """One lit channel of one picture: the rest stays black; alone it looks the same."""
    images = np.zeros((3, 3, 9, 9), dtype=np.uint8)
    images[1, 2, 4, 4] = 200
    result = corrupt(images, kind, 5)
    assert result[1, 2].any()
    result[1, 2] = 0
    assert not result.any()
    together = corrupt(IMAGES, kind, 4)
    apart = np.concatenate([corrupt(IMAGES[i : i + 1], kind, 4) for i in range(len(IMAGES))])
    assert (together == apart).all()


@pytest.mark.parametrize("kind", ["gaussian_blur", "contrast"])
@pytest.mark.parametrize("severity", [1, 5])
def test_the_mean_colour_is_kept(kind, severity):
    """But for rounding down, half a step on average; the blurred ground is of one colour."""
    images = np.full((5, 3, 16, 16), 90, dtype=np.uint8)
    images[:, :, 5:11, 5:11] = np.random.default_rng(1).integers(60, 120, (5, 3, 6, 6))
    before = images.mean(axis=(2, 3))
    after = corrupt(images, kind, severity).mean(axis=(2, 3))
    assert (after <= before + 1e-9).all()
    assert (after >= before - 1).all()


@pytest.mark.parametrize("kind", STRENGTHS)
def test_grey_pictures_are_one_channel_of_others(kind):
    grey = IMAGES[:, :1]
    first = corrupt(grey, kind, 3)
    assert first.shape == grey.shape
    if kind != "gaussian_noise":  # which draws for all channels in their order
        np.testing.assert_array_equal(first, corrupt(IMAGES, kind, 3)[:, :1])


def test_contrast_by_hand():
    """Severity 2 halves the distances from each channel's mean: 0 and 200 become 50 and 150.

    Severity 5 leaves .15 of them: 100 ± 15.  Odd sums are rounded down: 10, 13 → 10.75, 12.25.
    """
    images = np.array([[[[0, 200]], [[10, 13]], [[7, 7]]]], dtype=np.uint8)
    assert corrupt(images, "contrast", 2)[0, 0].tolist() in ([[50, 150]], [[49, 150]], [[50, 149]])
    assert corrupt(images, "contrast", 2)[0, 1].tolist() == [[10, 12]]
    assert_allclose(corrupt(images, "contrast", 5)[0, 0], [[85, 115]], atol=1)
    assert_allclose(corrupt(images, "contrast", 5)[0, 2], [[7, 7]], atol=1)


def test_contrast_is_that_of_make_cifar_c():
    """np.clip((x - means) * c + means, 0, 1) * 255 with the means over height and width."""
    for severity, c in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        for picture, found in zip(IMAGES, corrupt(IMAGES, "contrast", severity), strict=True):
            x = picture.transpose(1, 2, 0) / 255
            means = np.mean(x, axis=(0, 1), keepdims=True)
            expected = (np.clip((x - means) * c + means, 0, 1) * 255).transpose(2, 0, 1)
            near = np.abs(expected - np.round(expected)) < 1e-9  # may round either way
            assert (found == np.floor(expected))[~near].all()


@pytest.mark.parametrize("kind", KINDS)
def test_more_severe_is_further_away(kind):
    """Mean squared distance from the picture rises with the severity."""
    images = np.kron(IMAGES[:, :, :8, :8], np.ones((3, 3), dtype=np.uint8))
    distance = [
        np.square(corrupt(images, kind, severity).astype(float) - images).mean()
        for severity in range(1, 6)
    ]
    assert (np.diff(distance) > 0).all()


@given(
    arguments(
        images=st.one_of(
            GARBAGE,
            st.sampled_from(
                [IMAGES, IMAGES / 255, IMAGES[0], IMAGES[:0], IMAGES[:, :1], IMAGES[..., :0]]
            ),
        ),
        kind=st.sampled_from([*KINDS, "fog"]),
        severity=st.integers(-1, 7),
        seed=st.integers(-1, 2**63 - 1),
    )
)
def test_corrupt_on_anything(given_):
    result = finite_or_named(lambda: corrupt(**given_), list(given_))
    if result is not None:
        assert result.shape == given_["images"].shape
        assert result.dtype == np.uint8
