"""Check what jupyter-book wrote: every page of _toc.yml is there and every code cell ran cleanly.

Run from the repository root after `jupyter-book build`, as a second look that does not depend on
the build's own settings: a failing notebook is only a warning to Sphinx, and fails the build only
under -W; text on stderr only under `stderr_output: error`.
"""

import json
import sys
from pathlib import Path

import yaml

BUILD = Path("_build")


def toc_entries(node):
    """Yield the document names in a table of contents, whatever its nesting."""
    if isinstance(node, list):
        for child in node:
            yield from toc_entries(child)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield value.removesuffix(".md").removesuffix(".ipynb")
            else:
                yield from toc_entries(value)


def notebook_faults(path):
    """Yield what is wrong with one notebook as executed by the build."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [
        cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
    ]
    for number, cell in enumerate(code, start=1):
        expected = "raises-exception" in cell["metadata"].get("tags", [])
        if cell["execution_count"] is None:
            yield f"code cell {number} was not run"
        for output in cell["outputs"]:
            if output["output_type"] == "error" and not expected:
                yield f"code cell {number} raised {output['ename']}: {output['evalue']}"
            if output.get("name") == "stderr":
                first = "".join(output["text"]).strip().splitlines()[:1]
                yield f"code cell {number} wrote to stderr: {''.join(first)}"


def faults():
    """Yield what is wrong with the build, one line each."""
    with open("_toc.yml", encoding="utf-8") as file:
        entries = list(toc_entries(yaml.safe_load(file)))
    executed = BUILD / "jupyter_execute"
    for entry in entries:
        if not (BUILD / "html" / f"{entry}.html").is_file():
            yield f"{entry}: in _toc.yml, but has no page in {BUILD / 'html'}"
        if Path(f"{entry}.ipynb").is_file() and not (executed / f"{entry}.ipynb").is_file():
            yield f"{entry}: was not executed"
    for path in sorted(executed.rglob("*.ipynb")):  # Markdown pages with code cells included
        name = path.relative_to(executed).with_suffix("")
        yield from (f"{name}: {fault}" for fault in notebook_faults(path))
    for report in sorted((BUILD / "html" / "reports").rglob("*.log")):
        lines = report.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        yield f"{report}: {lines[-1] if lines else 'execution failed'}"


def main():
    """Print the faults; the exit status says whether there were any."""
    found = list(faults())
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        print(f"check_build: {len(found)} fault(s) in the rendered book", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
