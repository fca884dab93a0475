"""Photographs from archives: checked, brought to one square size, their black bars found."""

import io
import re
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from mcunc.data.archives import opened

_LARGEST_FILE = 20_000_000  # bytes of a photograph; those of CUB-200 stay below a million
_LARGEST_OTHER = 1_000_000_000  # bytes of anything else; CUB-200-2011 has a list of 100 million
_LARGEST_PICTURE = 120_000_000  # pixels decoded; a small file can claim to hold far more
_SPECIES = re.compile(r"\d{3}\.\w+")


def to_square(image, size):
    """Central square of a Pillow image, as large as it can be, scaled: (size, size, 3) uint8.

    What a full photograph loses at its ends, a square one has lost already.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # A JPEG can be decoded at an eighth, a quarter or half of its size, which saves most of the
    # time; twice the size that is asked for leaves enough to scale well.
    full = image.size
    image.draft("RGB", (2 * size * width // side, 2 * size * height // side))
    if image.width * image.height > _LARGEST_PICTURE:
        raise ValueError(f"{width} × {height} pixels are more than {_LARGEST_PICTURE:,}; shrink it")
    shrink = image.size[0] / full[0], image.size[1] / full[1]
    box = (
        left * shrink[0], top * shrink[1], (left + side) * shrink[0], (top + side) * shrink[1],
    )  # fmt: skip
    return np.asarray(_in_colour(image).resize((size, size), Image.Resampling.BICUBIC, box))


def _in_colour(image):
    """A Pillow image of any mode in RGB: on white where it is transparent, 16 bits as 8."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep = np.asarray(image)
        deep = np.where(deep == image.info.get("transparency", -1), 65535, deep)  # which is white
        image = Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    elif image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode}: which number is white? Pass uint8, 0 to 255")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_species(path, size, count, species):
    """Photographs of a folder or an archive with folders like 001.Black_footed_Albatross.

    Nothing is written to disk, whatever path a member claims, and links are passed over.

    Parameters
    ----------
    path : Path of a folder, or of a tar or zip archive
    size : int, pixels of a side
    count, species : int, numbers of pictures and of folders that there must be

    Returns
    -------
    list of (folder, file name, picture (size, size, 3) uint8), sorted; and whether every
    photograph was square already

    Raises
    ------
    Exception
        Of many kinds, for an archive that is damaged, or whose pictures are others.
    """
    found, square = {}, True
    with opened(path) as files, tqdm(total=count, desc=path.name, disable=None) as bar:
        for folder, name, read in _photographs(files):
            if (folder, name) in found or len(found) == count:
                raise ValueError(f"{name} is there twice, or there are more than {count}")
            picture, is_square = _read(read(), name, size)
            found[folder, name] = picture
            square = square and is_square
            bar.update()
    folders = {folder for folder, _ in found}
    if len(found) != count or len(folders) != species:
        raise ValueError(
            f"has {len(found):,} photographs of {len(folders)} species where there must be "
            f"{count:,} of {species}"
        )
    return [(*key, found[key]) for key in sorted(found)], square


def read_some(path, cases, size):
    """The photographs `cases` of those that `read_species` finds, in its order.

    Returns
    -------
    list of (size, size, 3) uint8 arrays

    Raises
    ------
    IndexError
        For a case beyond them; else as `read_species`.
    """
    with opened(path) as files:
        found = sorted(_photographs(files), key=lambda file: file[:2])
        return [_read(read(), name, size)[0] for _, name, read in (found[case] for case in cases)]


def _photographs(files):
    """Yield folder, file name and reading function of each photograph."""
    for path, size, read in files:
        *_, folder, name = "", *PurePosixPath(path).parts
        wanted = _SPECIES.fullmatch(folder) and name.lower().endswith((".jpg", ".jpeg"))
        if size > (_LARGEST_FILE if wanted else _LARGEST_OTHER):
            raise ValueError(f"{path} has {size:,} bytes")
        if wanted:
            yield folder, name, read


def _read(content, name, size):
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            width, height = image.size
            return to_square(image, size), width == height
    except Exception as error:
        raise ValueError(f"{name} cannot be read as a photograph ({error})") from error


def black_bars(images, darkest=12):
    """Where a picture has a black bar along a side, as crops have that reach beyond a photograph.

    A bar is a run of rows or columns from a side inwards in which no channel of any pixel is above
    `darkest`; the traces that JPEG leaves at its inner edge are below it.

    Parameters
    ----------
    images : (N, 3, H, W) uint8 array
    darkest : int

    Returns
    -------
    (N, H, W) bool array
    """
    dark = (np.asarray(images) <= darkest).all(axis=1)
    bars = np.zeros(dark.shape, bool)
    for axis in (1, 2):  # 1: columns, which are dark along the rows; 2: rows
        lines = dark.all(axis=axis)
        ahead = np.logical_and.accumulate(lines, axis=1)
        behind = np.logical_and.accumulate(lines[:, ::-1], axis=1)[:, ::-1]
        bars |= np.expand_dims(ahead | behind, axis)
    return bars
