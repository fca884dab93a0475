"""CIFAR in its layouts: pictures in folders, the authors' binary files, and their pickles."""

import io
import pickle
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from mcunc.data.archives import opened

_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "train", "test")
_BINARY = {f"{name}.bin" for name in _BATCHES} | {"batches.meta.txt", "fine_label_names.txt"}
_WANTED = {*_BINARY, *_BATCHES, "batches.meta", "meta"}
_LARGEST = 200_000_000  # bytes of a file; CIFAR-100's pictures to train on have 155 million


def read_cifar(path):
    """Pictures of a folder or an archive in any of the layouts.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of "train" and "test": lists of (class, name, (32, 32, 3) uint8 array).  The names sort as
    the files of single pictures do: CIFAR-10 in the authors' order, CIFAR-100 by their file names,
    except in their binary files, which have none.

    Raises
    ------
    Exception
        Of many kinds, for files that are damaged or others.
    """
    parts, files = {"train": [], "test": []}, {}
    with opened(path) as members:
        for name, size, read in members:
            *above, file = PurePosixPath(name).parts
            # The outermost, since CIFAR-100 has a class of trains, test/train/…
            part = next((folder for folder in above if folder in parts), None)
            is_picture = part and file.lower().endswith((".jpg", ".jpeg", ".png"))
            if size > _LARGEST and (is_picture or file in _WANTED):
                raise ValueError(f"{name} has {size:,} bytes")
            if is_picture:
                parts[part].append((above[-1], file, _picture(name, read())))
            elif file in _WANTED:
                files[file] = read()
    if not (parts["train"] or parts["test"]):
        for file, *batch in _records(files) if _BINARY & set(files) else _pickles(files):
            parts["test" if "test" in file else "train"] += zip(*batch, strict=True)
    return parts


def _picture(name, content):
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:  # no programs
        if image.size != (32, 32):
            raise ValueError(f"{name} is not 32 × 32")
        return np.asarray(image.convert("RGB"))


def _records(files):
    """Yield file, classes, names and pictures; a record is the label, for 100 after the coarse."""
    coarse = "fine_label_names.txt" in files
    text, ahead = ("fine_label_names.txt", 2) if coarse else ("batches.meta.txt", 1)
    classes = _read(files, text).decode().split()
    for file in sorted(name for name in files if name.endswith(".bin")):
        records = np.frombuffer(files[file], np.uint8).reshape(-1, ahead + 3072)
        yield _batch(file, classes, records[:, ahead - 1].tolist(), records[:, ahead:])


def _pickles(files):
    """Yield file, classes, names and pictures of pickled dicts."""
    meta = unpickled(_read(files, "meta" if "meta" in files else "batches.meta"))
    kind = "fine_" if "fine_label_names" in meta else ""
    classes = [_text(name) for name in meta[f"{kind}label_names"]]
    for file in sorted(set(files) & set(_BATCHES)):
        batch = unpickled(files[file])
        names = [_text(name) for name in batch["filenames"]] if kind else None
        yield _batch(file, classes, batch[f"{kind}labels"], batch["data"].values, names)


def _batch(file, classes, labels, pixels, names=None):
    known = dict(enumerate(classes))  # unlike a list it has no class -1
    names = names or [f"{file}{i:05}" for i in range(len(labels))]
    pictures = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return file, [known[label] for label in labels], names, pictures


def _read(files, name):
    if name not in files:
        raise ValueError(
            f"has no {name} with the names of the classes, and no pictures in folders "
            "train/<class> and test/<class>"
        )
    return files[name]


def unpickled(content):
    """The dict that a pickle of plain values and arrays of bytes holds; nothing is executed.

    Numbers, strings, lists and uint8 arrays, as in the Python version of CIFAR, with the keys as
    str.  NumPy itself takes no part in reading: of an array only the shape and the bytes are taken.

    Raises
    ------
    pickle.UnpicklingError
        For a pickle that asks for anything else.
    """
    return {
        _text(key): v for key, v in _Plain(io.BytesIO(content), encoding="bytes").load().items()
    }


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


class _Array:
    """Stands in for an array, and for its dtype, while a pickle is read."""

    def __init__(self, *_):
        self.values = None

    def __setstate__(self, state):
        if len(state) == 5:  # of an array: version, shape, dtype, order and bytes
            _, shape, _, fortran, raw = state
            self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="CF"[bool(fortran)])


class _Plain(pickle.Unpickler):
    def find_class(self, module, name):
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 writes them for Python 2
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which is not read")
