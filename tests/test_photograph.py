"""A photograph of one's own is read upright, whatever its kind of file, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mcunc.photograph import read_photograph

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
    file = io.BytesIO((tmp_path / "a.png").read_bytes())
    for source in (str(tmp_path / "a.png"), file, Image.fromarray(pixels), pixels):
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
    deep = [Image.new(mode, (9, 9)) for mode in ("I", "F")]  # what is white?
    for wrong in (None, *arrays, np.zeros((4, 4)), *deep):
        with pytest.raises(ValueError, match=r"^source: "):
            read_photograph(wrong)
    with pytest.raises(FileNotFoundError):
        read_photograph(tmp_path / "none.jpg")


def test_other_kinds_of_files_are_told_apart(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "avif.jpg", "AVIF")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "drawing.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name in ("avif.jpg", "phone.jpg", "drawing.png"):
        with pytest.raises(ValueError, match=rf"{name} .* holds no JPEG, .* save it as JPEG$"):
            read_photograph(tmp_path / name)


@pytest.mark.parametrize(
    "source", [b"\xff\xd8", torch.zeros(3, 9, 9), np.zeros((9, 9, 3)), np.zeros((9, 9)), None]
)
def test_what_makes_an_array_a_photograph(source):
    with pytest.raises(ValueError, match=r"^source: this \w+ .*pass \(H, W, 3\) uint8"):
        read_photograph(source)


def test_arrays_may_be_grey_or_transparent():
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    grey = read_photograph(pixels[..., 0], 16)
    np.testing.assert_array_equal(read_photograph(pixels[..., [0, 0, 0]], 16), grey)
    hidden = np.dstack([pixels, np.zeros((30, 40), np.uint8)])
    assert (read_photograph(hidden, 16) == 255).all()


@pytest.mark.parametrize(("dtype", "kind"), [("<u2", "png"), ("<u2", "tiff"), (">u2", "tiff")])
def test_sixteen_bits_are_scaled(dtype, kind, tmp_path):
    """65535 is white, as 255 is: 257 steps are one."""
    for value, expected in ((0, 0), (257 * 77, 77), (257 * 77 + 128, 77), (65535, 255)):
        Image.fromarray(np.full((9, 9), value, dtype)).save(tmp_path / f"a.{kind}")
        assert colour(tmp_path / f"a.{kind}") == [expected] * 3


def colour(source):
    """The one colour of a picture."""
    pixels = read_photograph(source, 4)
    assert pixels.shape == (3, 4, 4)
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "hidden", "options"),
    [
        ("RGBA", (255, 0, 0, 0), {}),
        ("LA", (9, 0), {}),
        ("PA", (9, 0), {}),
        ("RGB", (255, 0, 0), {"transparency": (255, 0, 0)}),
        ("L", 9, {"transparency": 9}),
        ("P", 0, {"transparency": 0}),
        ("P", 0, {"transparency": b"\0"}),
        ("1", 0, {"transparency": 0}),
    ],
)
def test_what_is_transparent_becomes_white(mode, hidden, options, tmp_path):
    image = Image.new(mode, (8, 8), hidden)
    image.info |= options
    assert colour(image) == [255, 255, 255]
    if mode != "PA":  # which PNG does not have
        image.save(tmp_path / "a.png", **options)
        assert colour(tmp_path / "a.png") == [255, 255, 255]


def test_half_transparent_is_half_white():
    """Porter & Duff (1984), over white: 0.4 · 200 + 0.6 · 255 = 233, and 153 for black."""
    assert colour(Image.new("RGBA", (8, 8), (200, 0, 255, 102))) == [233, 153, 255]


def test_other_modes_become_colours():
    assert colour(Image.new("CMYK", (8, 8), (0, 255, 255, 0))) == [255, 0, 0]
    assert colour(Image.new("1", (8, 8), 1)) == [255, 255, 255]
    assert colour(Image.new("L", (8, 8), 70)) == [70, 70, 70]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert colour(palette) == [10, 20, 30]
    with pytest.raises(ValueError, match=r"^source: .*channels last.* not \(3, 8, 8\) uint8"):
        read_photograph(np.zeros((3, 8, 8), np.uint8))


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_of_several_pictures_the_first_is_taken(kind, tmp_path):
    first, second = (Image.new("RGB", (8, 8), name) for name in ("white", "black"))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second])
    assert colour(tmp_path / f"a.{kind}") == [255, 255, 255]


def test_a_large_photograph_is_decoded_at_a_part_of_its_size(tmp_path):
    """110 million pixels, as phones write them; whole they would fill a third of a gigabyte."""
    Image.new("RGB", (11_000, 10_000), (200, 100, 50)).save(tmp_path / "a.jpg", quality=30)
    peak = []
    resize = Image.Image.resize

    def noted(image, *given, **more):
        peak.append(image.width * image.height)
        return resize(image, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", noted)
        assert np.abs(np.subtract(colour(tmp_path / "a.jpg"), [200, 100, 50])).max() <= 2
    assert max(peak) == 11_000 // 8 * 10_000 // 8


def test_a_file_that_claims_far_more_pixels_is_refused(tmp_path):
    chunks = b"IHDR" + struct.pack(">IIBBBBB", 13_000, 10_000, 8, 2, 0, 0, 0), b"IDAT"
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in chunks
        )
    )
    with pytest.raises(ValueError, match=r"13000 × 10000 pixels are more than 120,000,000"):
        read_photograph(path)


def test_a_picture_that_was_opened_is_left_as_it_is(tmp_path):
    """A JPEG can be decoded at a part of its size, and Pillow does so in place."""
    Image.fromarray(np.full((400, 400, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        read_photograph(image, 20)
        assert image.size == (400, 400)
