"""Files that are there whole or not at all."""

from contextlib import contextmanager, suppress
from pathlib import Path


class NotWritten(OSError):
    """A file could not be written; the message says which, and why."""


@contextmanager
def whole(path):
    """Write a file under another name first; it gets its own at the end.

    A kill or a full disk leaves what was there before.

    Parameters
    ----------
    path : path; its folder is made

    Yields
    ------
    path to write to

    Raises
    ------
    NotWritten
        Where it cannot be written, with the reason.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except NotWritten:  # of a file within this one
        raise
    except OSError as error:
        reason = error.strerror or error
        raise NotWritten(
            f"{path}: cannot be written ({reason}); what was there before is as it was"
        ) from error
    finally:
        with suppress(OSError):  # gone, or never there
            part.unlink()
