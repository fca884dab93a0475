"""Files from the internet: checked by hash before use, resumed when broken off."""

import hashlib
import os
from pathlib import Path
from urllib.request import Request, urlopen

from tqdm import tqdm

CHUNK = 1 << 20


def cache_folder():
    """Where downloads are kept: MCUNC_CACHE, or .cache/mcunc in the home folder."""
    return Path(os.environ.get("MCUNC_CACHE") or Path.home() / ".cache" / "mcunc")


def local_file(names, sources):
    """Path of a data file: from MCUNC_DATA, from the cache, or downloaded into the cache.

    Parameters
    ----------
    names : sequence of str
        File names looked for, best first, in the folder MCUNC_DATA and then in the cache.
    sources : sequence of (url, md5)
        Tried in this order where no file is there.

    Raises
    ------
    FileNotFoundError
        Where no source could be reached, saying what to do.
    """
    folders = [cache_folder()]
    if "MCUNC_DATA" in os.environ:
        folders.insert(0, Path(os.environ["MCUNC_DATA"]))
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    failures = []
    for url, md5 in sources:
        try:
            return fetch(url, md5, cache_folder() / url.rsplit("/", 1)[1])
        except OSError as error:
            failures.append(f"{url}: {error}")
    raise FileNotFoundError(
        f"none of {', '.join(names)} was found in {' or '.join(map(str, folders))}, and the "
        f"download failed ({'; '.join(failures)}); fetch the file by other means and set "
        "MCUNC_DATA to its folder"
    )


def fetch(url, md5, path):
    """Download `url` to `path`, going on from where an earlier attempt broke off.

    The file appears under its name only once its MD5 sum is right; a wrong one is discarded.

    Raises
    ------
    OSError
        Where the server cannot be reached or sends something else than expected.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=60) as response:
        resumed = response.status == 206  # 200: the server sends the whole file again
        total = int(response.headers.get("Content-Length", 0)) + have * resumed
        bar = tqdm(
            total=total or None, initial=have * resumed, desc=path.name, unit="B", unit_scale=True,
            disable=None,
        )  # fmt: skip
        with part.open("ab" if resumed else "wb") as file, bar:
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    if total and part.stat().st_size < total:
        raise OSError(f"broke off after {part.stat().st_size} of {total} bytes; try again")
    if (found := digest(part, "md5")) != md5:
        part.unlink()
        raise OSError(f"has MD5 {found}, expected {md5}; discarded")
    part.replace(path)
    return path


def digest(path, algorithm="sha256"):
    """Hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
