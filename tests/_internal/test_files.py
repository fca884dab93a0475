"""Files that are there whole or not at all."""

import errno
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import numpy as np
import pytest
import torch

from mcunc import recorded
from mcunc._internal import checkpoint as checkpoints
from mcunc._internal.files import NotWritten, atomic_write


def test_a_file_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "new" / "run.txt"
    with atomic_write(path) as part:
        part.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("before")

    def broken_off():
        with atomic_write(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        broken_off()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"run.txt: cannot be written \("),
        atomic_write(tmp_path / "file" / "run.txt") as part,
    ):
        part.write_text("")


def of_another_file(tmp_path):
    (tmp_path / "missing").read_text()


def full_elsewhere(_):
    """As `cp` of another program tells it: with the name of its own file."""
    raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")


def no_server(_):
    raise URLError("no route to host")


def broken_disk(_):
    """From reading: writing has no part in it."""
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("cause", [of_another_file, full_elsewhere, no_server, broken_disk])
def test_an_error_that_is_not_of_this_file_comes_out_unchanged(cause, tmp_path):
    def write():
        with atomic_write(tmp_path / "run.txt") as part:
            part.write_text("half")
            cause(tmp_path)

    with pytest.raises(OSError, match=r"No such|No space|no route|Input") as info:
        write()
    assert not isinstance(info.value, NotWritten)
    assert not list(tmp_path.iterdir())


def test_errors_of_this_file_name_it(tmp_path):
    def removed(part):
        part.parent.rmdir()
        part.write_text("")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")  # as `write` tells it: no name

    for i, cause in enumerate((removed, full)):
        path = tmp_path / str(i) / "run.txt"
        with (
            pytest.raises(NotWritten, match=r"run.txt: cannot be written \("),
            atomic_write(path) as part,
        ):
            cause(part)
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(NotWritten, match="folder: cannot be"),
        atomic_write(tmp_path / "folder") as part,
    ):
        part.touch()
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotWritten, match="inner: cannot be written"),  # and not the outer one
        atomic_write(tmp_path / "outer"),
        atomic_write(tmp_path / "file" / "inner"),
    ):
        pass


def test_writers_of_one_record_do_not_disturb_each_other(tmp_path):
    """What stays is whole, and one of those that were written."""

    def write(n):
        recorded.save(tmp_path / "run.npz", {"x": np.full(20, n)}, {"n": n})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(60)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.npz"]
    run = recorded.load(tmp_path / "run.npz")
    assert len(set(run["x"])) == 1
    assert run.record["n"] in range(60)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_disk_that_is_full_loses_nothing(tmp_path):
    """Stood for by a limit on the size of a file: the system refuses in the middle of writing."""
    import resource

    network = torch.nn.Linear(12, 9000)
    optimiser = torch.optim.SGD(network.parameters())
    noise = np.random.default_rng(0).random(100_000)
    writes = {
        "run.pt": lambda history: checkpoints.save(
            tmp_path / "run.pt", {"seed": 0}, network, optimiser, history
        ),
        "run.npz": lambda x: recorded.save(tmp_path / "run.npz", {"x": x}, {"n": len(x)}),
    }
    writes["run.pt"]([])
    writes["run.npz"](noise[:3])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file grows beyond
    try:
        for name, write in writes.items():
            with pytest.raises(OSError, match=f"{name}: cannot be written .File too large."):
                write(noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
