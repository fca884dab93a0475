"""Read picture files as arrays: photographs in folders, and CIFAR."""

import io
import pickle
import re
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from mcunc.data.download import read_files

__all__ = ["read_cifar", "read_folders", "read_picture", "to_square"]

_LARGEST_PICTURE = 120_000_000  # pixels decoded; a small file can claim to hold far more
_BATCHES = {*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "train", "test"}


def to_square(image, size):
    """Crop the largest central square of an image and scale it.

    Parameters
    ----------
    image : Pillow image of 8 or 16 bits per channel; transparent pixels become white
    size : int, height and width of the result in pixels

    Returns
    -------
    (size, size, 3) uint8 array

    Raises
    ------
    ValueError
        For more than 120 million pixels, or pixel values of unknown range.

    Examples
    --------
    >>> from PIL import Image
    >>> from mcunc.data.images import to_square
    >>> to_square(Image.new("RGB", (640, 480), "white"), 224).shape
    (224, 224, 3)
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Decoding a JPEG at an eighth, a quarter or half of its size saves most of the time.  Twice the
    # requested size is enough to scale well.
    image.draft("RGB", (2 * size * width // side, 2 * size * height // side))
    if image.width * image.height > _LARGEST_PICTURE:
        raise ValueError(f"{width} × {height} pixels are more than {_LARGEST_PICTURE:,}; shrink it")
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + side) * x, (top + side) * y)
    return np.asarray(_in_colour(image).resize((size, size), Image.Resampling.BICUBIC, box))


def _in_colour(image):
    """A Pillow image in RGB; transparent pixels, and 65535 in 16-bit images, become white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep = np.asarray(image)
        deep = np.where(deep == image.info.get("transparency", -1), 65535, deep)  # which is white
        image = Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    elif image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode}: which number is white? Convert it to 8 bits, mode L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_picture(name, content, size):
    """Decode a JPEG or PNG file and scale its central square.

    Parameters
    ----------
    name : str, for messages
    content : bytes
    size : int, height and width of the result in pixels

    Returns
    -------
    picture : (size, size, 3) uint8 array
    file_size : (width, height) of the original in pixels

    Raises
    ------
    ValueError
        If the content is not a JPEG or PNG picture.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from mcunc.data.images import read_picture
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40)).save(file, format="png")
    >>> read_picture("black.png", file.getvalue(), 20)[1]
    (60, 40)
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            file_size = image.size
            return to_square(image, size), file_size
    except Exception as error:  # damage makes Pillow stumble in many ways
        raise ValueError(f"{name} cannot be read as a photograph ({error})") from error


def read_folders(path, pattern, size, cases=None, total=None):
    r"""Read JPEG photographs that are stored in one folder per class.

    Parameters
    ----------
    path : Path of a folder, or of a tar or zip archive
    pattern : str, regular expression for the full names of class folders
    size : int, height and width of the result in pixels
    cases : sequence of int, optional
        Numbers of the photographs to read, from 0 in the order of folder and file name.
    total : int, optional, number of photographs, for the progress bar

    Returns
    -------
    list of (folder, file name, (size, size, 3) uint8 array, (width, height) of the original)
        In the order of `cases`, by default in the order of folder and file name.

    Raises
    ------
    Exception
        Various exceptions for a damaged archive.

    Examples
    --------
    >>> from mcunc.data.images import read_folders
    >>> photos = read_folders(path, r"\d{3}\.\w+", size=224)  # doctest: +SKIP
    """

    def photographs():
        for name, read in read_files(path):
            folder, file = PurePosixPath(name).parent.name, PurePosixPath(name).name
            if re.fullmatch(pattern, folder) and file.lower().endswith((".jpg", ".jpeg")):
                yield (folder, file), read

    if cases is not None:
        names = sorted(key for key, _ in photographs())
        cases = [names[case] for case in cases]
    pictures = {}
    for key, read in tqdm(photographs(), path.name, total, disable=None):
        if cases is None or key in cases:
            pictures[key] = read_picture(key[1], read(), size)
    return [(*key, *pictures[key]) for key in (sorted(pictures) if cases is None else cases)]


def read_cifar(path):
    """Read CIFAR from pictures in train/<class> and test/<class>, or from the authors' pickles.

    Parameters
    ----------
    path : Path of a folder, or of a tar or zip archive

    Returns
    -------
    dict of "train" and "test" -> list of (class, name, (32, 32, 3) uint8 array)
        Sorting by name gives the authors' order for CIFAR-10 and the file names for CIFAR-100, from
        either source.

    Raises
    ------
    Exception
        Various exceptions for damaged or other files.

    Examples
    --------
    >>> from mcunc.data.images import read_cifar
    >>> parts = read_cifar(path)  # doctest: +SKIP
    """
    parts, files = {"train": [], "test": []}, {}
    for name, read in read_files(path):
        folders, file = PurePosixPath(name).parts[:-1], PurePosixPath(name).name
        # The outermost, since CIFAR-100 has a class of trains, test/train/…
        part = next((folder for folder in folders if folder in parts), None)
        if part and file.lower().endswith((".jpg", ".jpeg", ".png")):
            picture, file_size = read_picture(name, read(), 32)
            if file_size != (32, 32):
                raise ValueError(f"{name} is not 32 × 32")
            parts[part].append((folders[-1], file, picture))
        elif file in _BATCHES or file in ("batches.meta", "meta"):
            files[file] = _PlainUnpickler(io.BytesIO(read()), encoding="latin1").load()
    if not (parts["train"] or parts["test"]):
        for name in sorted(_BATCHES & set(files)):
            parts["test" if "test" in name else "train"] += _batch(name, files)
    return parts


def _batch(name, files):
    """Classes, names and pictures of one of the authors' pickled dicts."""
    fine = "fine_" if "meta" in files else ""  # CIFAR-100 has coarse classes too
    meta, batch = files["meta" if fine else "batches.meta"], files[name]
    classes = dict(enumerate(meta[f"{fine}label_names"]))  # unlike a list it has no class -1
    labels = [classes[label] for label in batch[f"{fine}labels"]]
    names = batch["filenames"] if fine else [f"{name}{i:05}" for i in range(len(labels))]
    pictures = batch["data"].values.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return zip(labels, names, pictures, strict=True)


class _Array:
    """Placeholder for an array, and for its dtype, while a pickle is read."""

    def __init__(self, *_):
        self.values = None

    def __setstate__(self, state):
        if len(state) == 5:  # of an array: version, shape, dtype, order and bytes
            _, shape, _, fortran, raw = state
            values = np.frombuffer(raw.encode("latin1"), np.uint8)
            self.values = values.reshape(shape, order="CF"[bool(fortran)])


class _PlainUnpickler(pickle.Unpickler):
    """Read plain values and arrays of bytes pickled by Python 2, without executing code.

    NumPy is not involved: only the shape and the bytes of an array are read.
    """

    def find_class(self, module, name):
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which is not read")
