"""Run the notebooks given as arguments and store their outputs in place: `make notebooks`.

What changes from run to run without meaning anything is left out (timings, versions, the metadata
of pictures), so that a second run gives the same bytes.  Data sets that are on this machine are
kept out of sight, so that what is stored depends on none.  A notebook that fails, or writes to
stderr, stays as it was.
"""

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops, ImageStat

ROOT = str(Path(__file__).resolve().parent.parent)
LARGE = 45_000  # bytes; a larger PNG is stored at half its size
PLACES = (ROOT, ROOT.replace(str(Path.home()), "~", 1))  # IPython shortens the home folder


def reduced(png):
    """Return a PNG of few colours and no text (Matplotlib writes its version into it).

    A third of the size, which keeps the stored notebooks small; the rendered book is executed
    afresh and shows the full colours.  64 colours do for lines and bars; pictures get 256.
    """
    image = Image.open(io.BytesIO(png)).convert("RGB")
    few = image.quantize(64, palette=image.quantize(64, kmeans=2), dither=Image.Dither.NONE)
    error = ImageStat.Stat(ImageChops.difference(image, few.convert("RGB"))).rms
    if max(error) > 2:  # of 255
        few = image.quantize(256, palette=image.quantize(256, kmeans=2))  # dithers
    stored = io.BytesIO()
    few.save(stored, "PNG", optimize=True)
    if stored.tell() > LARGE:
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        half = half.quantize(128, palette=half.quantize(128, kmeans=2), dither=Image.Dither.NONE)
        stored = io.BytesIO()
        half.save(stored, "PNG", optimize=True)
    return stored.getvalue()


def execute(notebook, folder):
    """Run a notebook in place, every cell, in a fresh kernel of this environment.

    Raises RuntimeError, naming the cell, for an exception, a timeout, a dead kernel, stderr, or
    an output (a traceback, say) that tells where on this machine the repository lies.
    """
    number = 0

    def note_start(cell, cell_index):
        nonlocal number
        number = cell_index

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # else one print may come in two pieces
        on_cell_start=note_start,
    )
    try:
        client.execute()
    except Exception as error:
        message = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise RuntimeError(f"cell {number} (counting from 0):\n{message}") from None
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(f"cell {i} (counting from 0) wrote to stderr:\n{output.text}")
            if any(place in str(output) for place in PLACES):
                raise RuntimeError(f"cell {i} (counting from 0) shows a path of this machine")


def tidy(notebook):
    """Drop what varies from run to run or from machine to machine."""
    notebook.metadata.kernelspec = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                png = reduced(base64.b64decode(data["image/png"]))
                data["image/png"] = base64.b64encode(png).decode()


def write_atomically(notebook, path):
    """Replace the file in one step, so that an interruption leaves the old one whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            nbformat.write(notebook, file)
        shutil.copymode(path, name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def store(path):
    """Run and rewrite one notebook; return what went wrong, or None."""
    try:
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as empty:  # photographs that may not be stored
            os.environ |= {"MCUNC_DATA": "", "MCUNC_CACHE": empty}
            execute(notebook, path.parent)
        tidy(notebook)
        nbformat.validate(notebook)
        write_atomically(notebook, path)
    except Exception as error:
        return f"{path}: {error}"
    return None


def main(names):
    """Store every notebook, two at a time; the exit status says whether any failed."""
    paths = [Path(name) for name in names]
    failed = False
    with ProcessPoolExecutor(max_workers=2) as pool:
        for path, message in zip(paths, pool.map(store, paths), strict=True):
            print(message or f"{path}: stored ({path.stat().st_size / 1000:.0f} kB)", flush=True)
            failed |= message is not None
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
