"""Files of a folder, a tar archive or a zip archive, read one by one; nothing is unpacked."""

import hashlib
import os
import stat
import tarfile
import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mcunc.data.download import ENDINGS, digest


@contextmanager
def opened(path):
    """Open a folder or an archive, or a zip archive with tar archives in it.

    Links and devices in an archive are passed over, and so are archives in a folder, hidden
    folders, and hidden files, such as those that macOS adds to zip archives.

    Parameters
    ----------
    path : Path

    Yields
    ------
    iterator of (name, size in bytes, function that reads the content); the functions work until
    the block ends
    """
    with ExitStack() as stack:
        if path.is_dir():
            files = _of_folder(path)
        elif zipfile.is_zipfile(path):
            files = _of_zip(stack.enter_context(zipfile.ZipFile(path)), stack)
        else:
            files = _of_tar(stack.enter_context(tarfile.open(path)))
        yield (file for file in files if not _hidden(file[0]))


def _hidden(name):
    *folders, file = name.split("/")
    return file.startswith(".") or any(f.startswith(".") and f.strip(".") for f in folders)


def _of_folder(path):
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        for file in (Path(folder, name) for name in sorted(names)):
            if file.is_file() and not file.name.endswith(ENDINGS):
                yield file.relative_to(path.parent).as_posix(), file.stat().st_size, file.read_bytes


def _of_tar(archive):
    for member in archive:
        if member.isfile():
            yield member.name, member.size, lambda m=member: archive.extractfile(m).read()


def _of_zip(archive, stack):
    for member in archive.infolist():
        name = member.filename.replace("\\", "/")  # as old programs of Windows wrote them
        link = stat.S_ISLNK(member.external_attr >> 16)
        if member.is_dir() or link or _hidden(name):
            continue
        if name.endswith(ENDINGS[:-1]):
            file = stack.enter_context(archive.open(member))
            inner = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115
            yield from _of_tar(inner)
        else:
            yield name, member.file_size, lambda m=member: archive.read(m)


def source(path):
    """Name and SHA-256 sum of an archive; of a folder, that of its files' sums and names."""
    if path.is_file():
        return f"{path.name} sha256:{digest(path)}"
    with opened(path) as files:
        sums = [f"{hashlib.sha256(read()).hexdigest()}  {name}\n" for name, _, read in files]
    return f"{path.name} sha256:{hashlib.sha256(''.join(sums).encode()).hexdigest()}"
