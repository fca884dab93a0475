"""Stored notebooks: run from top to bottom, free of accidents, small, with text for each figure."""

import json
import re
import tomllib
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
NOTEBOOKS = CHAPTERS + sorted((ROOT / "book" / "template").glob("*.ipynb"))
CLOSING = ["What can go wrong", "Summary", "Exercises", "References"]
LONG_ALLOWED = {"hide-input", "hide-cell", "lesson"}

FORBIDDEN = {
    "absolute path": r"(?<![\w.])/(work|home|root|tmp|Users|content)/|\b[A-Z]:\\",
    "progress bar": r"\d+%\s*\||[█▏▎▍▌▋▊▉]|\bit/s\b",
    "timing": r"\b\d+(\.\d+)?\s*(ns|µs|ms|s|secs?|seconds?|minutes?)\b(?!\.e)|Wall time|CPU times",
    "version": r"\b\d+\.\d+\.\d+\b|\b(numpy|scipy|torch|matplotlib|pandas|python)[ =v]*\d+\.\d+",
    "figure repr": r"<Figure|<Axes|<matplotlib|object at 0x",
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    """The cells with code in them, as (number in the notebook, source, cell)."""
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.strip():
            yield number, source, cell


def printed(cell):
    """All that a cell shows as text (the repr beside a picture is not shown: see nbval.cfg)."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", ""))
        data = output.get("data", {})
        for kind, content in data.items():
            if kind.startswith("text/") and "image/png" not in data:
                yield "".join(content)


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def test_there_are_chapters():
    assert [path.stem for path in CHAPTERS], "book/ holds no chapter"
    assert all(re.fullmatch(r"\d\d[a-z]?_\w+", path.stem) for path in CHAPTERS)


def test_every_cell_has_run_once_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for _, _, cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert counts


def test_no_errors_and_no_warnings_are_stored(notebook):
    for number, _, cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", f"cell {number}"
            assert output.get("name") != "stderr", f"cell {number}: {output['text']}"


def test_size(path):
    assert path.stat().st_size <= 400_000


def test_cells_are_short(notebook):
    lengths = []
    for number, source, cell in code_cells(notebook):
        lines = len(source.strip().splitlines())
        lengths.append(lines)
        assert lines <= 25, f"cell {number} has {lines} lines"
        assert lines <= 10 or tags(cell) & LONG_ALLOWED, f"cell {number} has {lines} lines"
        widest = max(map(len, source.splitlines()))  # 84 columns fit a page
        assert widest <= 84 or "hide-input" in tags(cell), f"cell {number} has {widest} columns"
    assert median(lengths) <= 6


def test_every_figure_has_alt_text_and_a_caption(notebook):
    for number, _, cell in code_cells(notebook):
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            text = cell["metadata"].get("mystnb", {})
            assert len(text.get("image", {}).get("alt", "")) >= 20, f"cell {number}: alt text"
            assert text.get("figure", {}).get("caption", "").strip(), f"cell {number}: caption"


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_outputs_hold_nothing_that_differs_by_machine(notebook, kind):
    for number, _, cell in code_cells(notebook):
        for text in printed(cell):
            accident = re.search(FORBIDDEN[kind], text)
            assert not accident, f"cell {number}: {kind} {accident.group()!r}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("absolute path", "/home/anna/mcunc"),
        ("absolute path", "in C:\\Users"),
        ("progress bar", " 45%|####"),
        ("timing", "took 3.2 s"),
        ("timing", "Wall time: 1"),
        ("version", "torch 2.4"),
        ("version", "1.26.4"),
        ("figure repr", "<Figure size 640x480 with 1 Axes>"),
    ],
)
def test_the_patterns_find_what_they_are_for(kind, text):
    assert re.search(FORBIDDEN[kind], text)


def test_standard_errors_are_no_seconds():
    assert not re.search(FORBIDDEN["timing"], "1.96 s.e. of the slope")


def test_kernel(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_first_code_cell_installs_on_colab_only(notebook):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    _, source, cell = next(code_cells(notebook))
    assert project["project"]["urls"]["Repository"] in source
    guard = 'if importlib.util.find_spec("mcunc") is None:'
    before, _, after = source.partition(guard)
    assert after, "not guarded"
    assert all(line.startswith("import ") for line in before.split("\n") if line.strip())
    assert all(line.startswith("    ") for line in after.split("\n")[1:] if line.strip())
    assert not cell["outputs"]


def test_photographs_are_shown_to_those_who_have_them_and_stored_nowhere(notebook):
    """A cell that may show some compares no output, and was stored without any."""
    for _, source, cell in code_cells(notebook):
        if "cub200" in source or "if photographs" in source:
            assert "nbval-ignore-output" in cell["metadata"].get("tags", [])
            assert not cell["outputs"]


def test_sections_close_as_every_chapter_does(notebook):
    headings = [
        line[3:].strip()
        for cell in notebook["cells"]
        if cell["cell_type"] == "markdown"
        for line in "".join(cell["source"]).splitlines()
        if line.startswith("## ")
    ]
    assert headings[-4:] == CLOSING
