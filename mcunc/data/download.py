"""Files from the internet: checked by hash before use, resumed when broken off."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

CHUNK = 1 << 20
ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip")  # of archives


def cache_folder():
    """Where downloads are kept: MCUNC_CACHE, or .cache/mcunc in the home folder."""
    return Path(os.environ.get("MCUNC_CACHE") or Path.home() / ".cache" / "mcunc")


def folders():
    """Where data files are looked for: the folder MCUNC_DATA, where it is set, and the cache."""
    given = os.environ.get("MCUNC_DATA")  # set but empty: as if it were not set
    return [*([Path(given).expanduser().absolute()] if given else []), cache_folder()]


def file_here(names):
    """Path of the first of these archives or folders that is in `folders`; None where none is.

    Parameters
    ----------
    names : sequence of str
        Without ending, best first.  Of "name/inner" the folder counts only with `inner` in it.
        MCUNC_DATA may also be the archive or folder itself.
    """
    for folder in folders():
        for name in names:
            stem = name.partition("/")[0]
            archives = [stem + ending for ending in ENDINGS]
            itself = folder.name in (stem, *archives)
            for place in (folder, folder.parent) if itself else (folder,):
                for archive in archives:
                    if (place / archive).is_file():
                        return place / archive
                if (place / name).is_dir():
                    return place / stem
    return None


def accepted(names):
    """Names of archives and folders, and where they are looked for, in words."""
    return (
        f"none of {', '.join(names)} (a folder, or an archive {', '.join(ENDINGS)}) was found in "
        f"{' or '.join(map(str, folders()))}"
    )


def local_file(names, sources):
    """Path of a data file: from MCUNC_DATA, from the cache, or downloaded into the cache.

    Parameters
    ----------
    names : sequence of str
        As of `file_here`.
    sources : sequence of (url, md5) or (url, md5, name)
        Tried in this order where no file is there; the name is by default the end of the address.

    Raises
    ------
    FileNotFoundError
        Where no source could be reached, saying what to do.
    """
    path = file_here(names)
    if path is not None:
        return path
    failures = []
    for url, md5, *name in sources:
        try:
            return fetch(url, md5, cache_folder() / (name or url.rsplit("/", 1)[1:])[0])
        except OSError as error:
            failures.append(f"{url}: {error}")
    raise FileNotFoundError(
        f"{accepted(names)}, and the download failed ({'; '.join(failures)}); fetch the file by "
        "other means and set MCUNC_DATA to its folder"
    )


def fetch(url, md5, path):
    """Download `url` to `path`, going on from where an earlier attempt broke off.

    The file appears under its name only once its MD5 sum is right; a wrong one is discarded.  Of
    several processes one downloads and the others wait for its file; the system frees the lock of
    a process that is killed.

    Raises
    ------
    OSError
        Where the server cannot be reached or sends something else than expected.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():  # else another process has just fetched it
            _fetch(url, md5, path)
    return path


def _fetch(url, md5, path):
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if not (have and digest(part, "md5") == md5):  # else killed between the last byte and the name
        try:
            _transfer(url, part, have)
        except HTTPException as error:  # an answer that breaks HTTP's own rules
            raise OSError(f"broke off ({error!r}); try again") from error
        if (found := digest(part, "md5")) != md5:
            part.unlink()
            raise OSError(f"has MD5 {found}, expected {md5}; discarded, try again")
    part.replace(path)


def _transfer(url, part, have):
    """Add to the `have` bytes of the file `part` those it lacks; all of them if it must be."""
    response, have = _answer(url, have)
    with response:
        total = None if response.length is None else response.length + have
        bar = tqdm(
            total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None
        )
        with part.open("ab" if have else "wb") as file, bar:
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"broke off after {part.stat().st_size} of {total} bytes; try again")


def _answer(url, have):
    """The server's response, and how many of the bytes that are here it goes on from."""
    try:
        headers = {"Range": f"bytes={have}-"} if have else {}
        response = urlopen(Request(url, headers=headers), timeout=60)
    except HTTPError as error:
        error.close()
        if have and error.code == 416:  # more is here than the file has: begin again
            return _answer(url, 0)
        raise
    return response, have if response.status == 206 else 0  # 200: sends the whole file again


def digest(path, algorithm="sha256"):
    """Hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
