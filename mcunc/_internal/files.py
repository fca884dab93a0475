"""Files that are there whole or not at all."""

import errno
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class NotWritten(OSError):
    """A file could not be written; the message says which, and why."""


@contextmanager
def atomic_write(path):
    """Write a file under a name of its own first; it gets its final name at the end.

    A kill or a full disk leaves what was there before.  Of several that write the same file at
    once, the last one's file stays, whole.

    Parameters
    ----------
    path : path; its folder is made

    Yields
    ------
    path to write to

    Raises
    ------
    NotWritten
        Where this file cannot be written, with the reason.  Any other error inside the block, of
        reading another file for example, comes out unchanged.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid4().hex[:12]}.part")
    inside = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        inside = True
        yield part
        inside = False
        part.replace(path)
    except OSError as error:
        # Opening a file names it in the error; writing to an open one tells only that it is full.
        full = error.filename is None and error.errno in _FULL
        if inside and not full and str(error.filename) != str(part):
            raise
        reason = error.strerror or error
        raise NotWritten(f"{path}: cannot be written ({reason}); nothing has changed") from error
    finally:
        with suppress(OSError):  # gone, or never there
            part.unlink()
