"""A photograph of one's own is read upright, and what is said of it agrees with the parts."""

import copy
import io

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from scipy.special import softmax
from scipy.stats import entropy

from mcunc import dropout, networks, training
from mcunc.photograph import look, read_photograph


@pytest.fixture(scope="module")
def network():
    return dropout.with_dropout(networks.small_inception(classes=5, seed=3), 0.2).eval()


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(20, 256, (3, 64, 64), dtype=np.uint8)


# Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_brought_upright(orientation, tmp_path):
    """The eight orientations of the EXIF standard, each undone by one of Pillow's steps."""
    undo = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]  # Image.Transpose, by the standard
    stored = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    expected = image if undo is None else image.transpose(undo)
    got = read_photograph(tmp_path / "a.png", 20)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), np.asarray(expected))


def test_path_image_and_array_are_one_picture(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    first = read_photograph(tmp_path / "a.png", 16)
    assert first.shape == (3, 16, 16)
    for source in (str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(read_photograph(source, 16), first)


def test_what_is_no_picture_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((99, 99, 3), np.uint8)).save(buffer, "JPEG")
    for content in (b"", b"text", buffer.getvalue()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^source: .*a\.jpg cannot be read as a photograph"):
            read_photograph(path)
    arrays = (np.zeros((4, 4, 3)), np.zeros((2, 2, 2, 2), np.uint8), np.zeros((0, 5, 3), np.uint8))
    deep = Image.fromarray(np.full((9, 9), 2**15, np.uint16))
    for wrong in (None, *arrays, np.zeros((4, 4)), deep):
        with pytest.raises(ValueError, match=r"^source: "):
            read_photograph(wrong)
    with pytest.raises(FileNotFoundError):
        read_photograph(tmp_path / "none.jpg")


def test_a_picture_that_was_opened_is_left_as_it_is(tmp_path):
    """A JPEG can be decoded at a part of its size, and Pillow does so in place."""
    Image.fromarray(np.full((400, 400, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        read_photograph(image, 20)
        assert image.size == (400, 400)


# Looking --------------------------------------------------------------------------------------


def test_a_look_says_what_its_parts_say(network, picture):
    got = look(network, picture, draws=7, seed=4)
    probs = softmax(dropout.sample_logits(network, picture[None], 7, seed=4)[:, 0], axis=1)
    assert_allclose(got.probs, probs.mean(axis=0), rtol=1e-5)
    assert_allclose(got.deviation, probs.std(axis=0, ddof=1), rtol=1e-3)
    assert got.predictive_entropy == pytest.approx(entropy(probs.mean(axis=0)), rel=1e-5)
    assert got.expected_entropy == pytest.approx(entropy(probs, axis=1).mean(), rel=1e-5)
    parts = got.expected_entropy + got.mutual_information
    assert parts == pytest.approx(got.predictive_entropy)
    assert got.cls == probs.mean(axis=0).argmax()
    bias = network.head.bias[got.cls].item()
    off = training.predict_logits(network, picture[None])[0, got.cls]
    assert got.map.mean() + bias == pytest.approx(off, abs=1e-4)
    logits = dropout.sample_logits(network, picture[None], 7, seed=4)[:, 0, got.cls]
    assert_allclose(got.maps.mean(axis=(1, 2)) + bias, logits, atol=1e-4)
    assert got.on_bars == 0


def test_what_a_map_says_on_black_bars_is_reported(network, picture):
    picture[:, :, :16] = 0
    network = copy.deepcopy(network)
    network.head.weight.data.abs_()  # with activations of 0 and above, all speaks for the class
    got = look(network, picture, draws=2)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(got.map)[None, None], size=(64, 64), mode="bilinear"
    )[0, 0].clamp(min=0)
    assert got.on_bars == pytest.approx(float(large[:, :16].sum() / large.sum()), rel=1e-4)
    assert look(network, np.zeros_like(picture), draws=2).on_bars in (0, pytest.approx(1))


def test_a_look_is_printed_with_names(network, picture):
    got = look(network, picture, "abcde", draws=3)
    lines = str(got).splitlines()
    assert lines[0].startswith("abcde"[got.cls] + " ")
    assert len(lines) == 4
    assert f"of {np.log(5):.2f} at most" in lines[-1]


@pytest.mark.parametrize("wrong", [None, np.zeros((64, 64, 3), np.uint8), np.zeros((3, 64, 64))])
def test_another_form_of_picture_is_refused(wrong, network):
    with pytest.raises(ValueError, match=r"^picture: "):
        look(network, wrong)


def test_names_of_another_number_are_refused(network, picture):
    with pytest.raises(ValueError, match=r"^names: expected 5, got 2"):
        look(network, picture, ["a", "b"], draws=2)
