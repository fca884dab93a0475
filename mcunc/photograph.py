"""Read your own photograph as the input of a network."""

import os
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mcunc._internal.checks import check_count
from mcunc.data.images import to_square

__all__ = ["read_photograph"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # none that runs a program
ORIENTATION = 0x0112  # of EXIF


def read_photograph(source, size=224):
    """Read a photograph as network input: the central square, upright, in three colours.

    Transparent pixels become white, and so does the value 65535 in 16-bit images.  For a file with
    several pictures, such as an animation, the first is read.

    Parameters
    ----------
    source : path of a picture file, an open file, a Pillow image, or a uint8 array
        Arrays are (H, W, 3), grey (H, W), or (H, W, 4) with transparency.  Pictures have at most
        120 million pixels, JPEG files 178 million.
    size : int, height and width of the result in pixels, at most 1024

    Returns
    -------
    (3, size, size) uint8 array

    Raises
    ------
    ValueError
        For a source that is not a picture; the message names the file.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import photograph
    >>> photograph.read_photograph(np.zeros((300, 400, 3), np.uint8), size=224).shape
    (3, 224, 224)
    """
    size = check_count("size", size, maximum=1024)
    name = source if isinstance(source, (str, os.PathLike)) else f"this {type(source).__name__}"
    try:
        with warnings.catch_warnings():  # of sizes that to_square judges
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _opened(source) as image:
                square = Image.fromarray(to_square(image, size))
                # Cameras write which way up a picture is.
                square.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        return np.asarray(ImageOps.exif_transpose(square)).transpose(2, 0, 1)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"source: {name} cannot be read as a photograph; it holds no {', '.join(FORMATS)}, "
            "whatever its name says (perhaps HEIC); open it in an image editor and save it as JPEG"
        ) from error
    except Exception as error:  # damage makes Pillow stumble in many ways
        raise ValueError(f"source: {name} cannot be read as a photograph ({error})") from error


def _opened(source):
    """A separate Pillow image, because reading a part of a JPEG changes it in place."""
    if isinstance(source, Image.Image):
        return source.copy()
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        return Image.open(source, formats=FORMATS)
    pixels = np.asarray(source)
    channels = pixels.shape[2:] if pixels.ndim > 1 and pixels.size else None
    if pixels.dtype != np.uint8 or channels not in ((), (3,), (4,)):
        kind = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(f"pass (H, W, 3) uint8, channels last and 0 to 255, not {kind}")
    return Image.fromarray(pixels)
