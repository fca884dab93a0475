"""Files that are there whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from mcunc._files import whole

ROOT = Path(__file__).parents[1]


def test_a_file_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "new" / "run.txt"
    with whole(path) as part:
        part.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("before")

    def broken_off():
        with whole(path) as part:
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
        whole(tmp_path / "file" / "run.txt") as part,
    ):
        part.write_text("")


FULL = """
import resource, signal, sys
from pathlib import Path

import numpy as np
import torch

from mcunc import recorded, training

folder = Path(sys.argv[1])
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 9000))
images = np.zeros((4, 3, 2, 2), np.uint8)


def fit(epochs):
    recipe = training.Recipe(epochs)
    training.fit_minibatches(network, images, np.arange(4), recipe, checkpoint=folder / "run.pt")


fit(1)
recorded.save(folder / "run.npz", {"x": np.arange(3)}, {"n": 3})
before = {path.name: path.read_bytes() for path in folder.iterdir()}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file grows beyond
noise = np.random.default_rng(0).random(100_000)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 9000))
(folder / "run.pt").rename(folder / "kept.pt")
before["kept.pt"] = before.pop("run.pt")
for write in (lambda: fit(1), lambda: recorded.save(folder / "run.npz", {"x": noise}, {"n": 9})):
    try:
        write()
    except OSError as error:
        print(error)
assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_disk_that_is_full_loses_nothing(tmp_path):
    """Stood for by a limit on the size of a file: the system refuses in the middle of writing."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        str(tmp_path / "run.pt"), str(tmp_path / "run.npz")
    ]  # fmt: skip
    assert all("cannot be written (File too large)" in line for line in lines)
