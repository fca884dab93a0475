"""Find or download archives of public data sets, check them, and read them without unpacking."""

import hashlib
import os
import shutil
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

__all__ = ["Archive", "cache_folder", "digest", "fetch", "folders", "read_files"]

CHUNK = 1 << 20  # bytes
ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip")  # of archives
LARGEST = 200_000_000  # bytes of a file in an archive; CIFAR-100's training batch has 155 million


def cache_folder():
    """Return the folder for downloads: MCUNC_CACHE if set, else .cache/mcunc in the home folder.

    Returns
    -------
    Path

    Examples
    --------
    >>> from mcunc.data import download
    >>> download.cache_folder() in download.folders()
    True
    """
    return Path(os.environ.get("MCUNC_CACHE") or Path.home() / ".cache" / "mcunc")


def folders():
    """Return the folders that are searched for data: MCUNC_DATA, if it is set, then the cache.

    Returns
    -------
    list of Path

    Examples
    --------
    >>> from mcunc.data import download
    >>> len(download.folders()) in (1, 2)
    True
    """
    data = os.environ.get("MCUNC_DATA")  # set but empty: as if it were not set
    return [*([Path(data).expanduser().absolute()] if data else []), cache_folder()]


@dataclass(frozen=True)
class Archive:
    """Names and download addresses of the files of a public data set.

    Attributes
    ----------
    title : str, for messages
    names : sequence of str
        Names of archives, without their ending, and of folders, in order of preference.  For
        "name/inner", the folder `name` must contain `inner`.
    downloads : sequence of (url, md5) or (url, md5, file name)
        Tried in this order if there is no file on this machine.  The file name is by default the
        end of the address.

    Examples
    --------
    >>> from mcunc.data.download import Archive
    >>> Archive("a set of mine", ["no-such-archive"]).find() is None
    True
    """

    title: str
    names: tuple
    downloads: tuple = ()

    def find(self):
        """Path of the archive or folder on this machine, or None."""
        for folder in folders():
            for name in self.names:
                stem = name.partition("/")[0]
                for place in (folder, folder.parent):  # MCUNC_DATA may be the archive itself
                    paths = [*filter(Path.is_file, (place / (stem + end) for end in ENDINGS))]
                    paths += [place / stem] if (place / name).is_dir() else []
                    if path := next((path for path in paths if folder in (place, path)), None):
                        return path
        return None

    def path(self):
        """Path of the archive or folder, which is downloaded into the cache if necessary.

        Raises
        ------
        FileNotFoundError
            If no download succeeds; the message says what to do.
        """
        if path := self.find():
            return path
        failures = ""
        for url, md5, *name in self.downloads:
            try:
                return fetch(url, md5, cache_folder() / (name or url.rsplit("/", 1)[1:])[0])
            except OSError as error:
                failures += f"; the download of {url} failed ({error})"
        raise FileNotFoundError(
            f"{self.title}: none of {', '.join(self.names)} (a folder, or an archive "
            f"{', '.join(ENDINGS)}) was found in {' or '.join(map(str, folders()))}{failures}; "
            "fetch the file by other means and set MCUNC_DATA to its folder"
        )

    @contextmanager
    def reading(self, path):
        """Context in which any error becomes a ValueError that names the file."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"{path}: is damaged or not {self.title} ({error}); delete it or give it another "
                "name, and fetch it again"
            ) from error


def fetch(url, md5, path):
    """Download a file.

    An interrupted download is resumed.  The file gets its final name only after its MD5 sum has
    been checked; a wrong file is deleted.  If several processes call this function, one downloads
    and the others wait.  If that process is killed, its lock is released.

    Parameters
    ----------
    url, md5 : str
    path : Path of the file; its folder is created

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If the server cannot be reached or sends a different file.

    Examples
    --------
    >>> from mcunc.data.download import cache_folder, fetch
    >>> url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    >>> path = cache_folder() / "cifar-10-python.tar.gz"
    >>> fetch(url, "c58f30108f718f92721af3b95e74349a", path)  # doctest: +SKIP
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file():  # another process has just fetched it
            return path
        have = part.stat().st_size if part.exists() else 0
        request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urlopen(request, timeout=60) as response:
                have *= response.status == 206  # else the whole file is sent again
                total = have + (response.length or 0)
                bar = {"desc": path.name, "initial": have, "total": total, "disable": None}
                wrapped = tqdm.wrapattr(response, "read", **bar)
                with part.open("ab" if have else "wb") as file, wrapped as stream:
                    shutil.copyfileobj(stream, file, CHUNK)
        except HTTPException as error:  # an answer that breaks HTTP's own rules
            raise OSError(f"broke off ({error!r}); try again") from error
        except HTTPError as error:
            if error.code == 416:  # no more is there than we have, and that is not the file
                part.unlink()
            raise
        if (size := part.stat().st_size) < total:
            raise OSError(f"broke off after {size} of {total} bytes; try again")
        if (received := digest(part, "md5")) != md5:
            part.unlink()
            raise OSError(f"has MD5 {received}, expected {md5}; discarded, try again")
        part.replace(path)
    return path


def read_files(path):
    """Iterate over the files of a folder or a tar or zip archive, without unpacking it.

    Links and devices in tar archives, archives in folders, and hidden files and folders, such as
    those that macOS adds to zip archives, are skipped.

    Parameters
    ----------
    path : Path

    Yields
    ------
    name : str
    read : function without arguments
        Returns the content as bytes.  Call it before the next iteration.  It raises a ValueError
        for files above 200 MB.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from mcunc.data.download import read_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("abc")
    ...     [read() for name, read in read_files(Path(folder))]
    [b'abc']
    """
    if path.is_dir():
        files = _files_of_folder(path)
    else:
        files = _files_of_zip(path) if zipfile.is_zipfile(path) else _files_of_tar(path)
    for name, size, read in files:
        if not any(part.startswith(".") and part.strip(".") for part in name.split("/")):
            yield name, partial(_read, name, size, read)


def _read(name, size, read):
    if size > LARGEST:
        raise ValueError(f"{name} has {size:,} bytes")
    return read()


def _files_of_folder(path):
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        for file in (Path(folder, name) for name in sorted(names)):
            if file.is_file() and not file.name.endswith(ENDINGS):
                yield file.relative_to(path.parent).as_posix(), file.stat().st_size, file.read_bytes


def _files_of_zip(path):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.replace("\\", "/")  # as old programs of Windows wrote them
            if name.endswith(ENDINGS[:-1]) and "/." not in name:  # what macOS adds is hidden
                yield from _files_of_tar(fileobj=archive.open(member))
            elif not member.is_dir():
                yield name, member.file_size, partial(archive.read, member)


def _files_of_tar(path=None, fileobj=None):
    with tarfile.open(path, fileobj=fileobj) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            yield member.name, member.size, archive.extractfile(member).read


def digest(path, algorithm="sha256"):
    """Return the hash of a file; for a folder, the SHA-256 of its files' hashes and names.

    Parameters
    ----------
    path : Path of a file or a folder
    algorithm : str, for files, as in `hashlib.new`

    Returns
    -------
    str, hexadecimal

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from mcunc.data.download import digest
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "abc")
    ...     _ = path.write_bytes(b"abc")
    ...     digest(path, "md5")
    '900150983cd24fb0d6963f7d28e17f72'
    """
    if path.is_dir():
        sums = (
            f"{hashlib.sha256(read()).hexdigest()}  {name}\n" for name, read in read_files(path)
        )
        return hashlib.sha256("".join(sums).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
