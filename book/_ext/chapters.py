"""What the chapters use and show: links from the reference to them, and the gallery of figures.

A Sphinx extension of this book alone.  It reads the notebooks, so that neither list is kept by
hand.
"""

import ast
import base64
import json
import re
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from PIL import Image
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).resolve().parents[2]
THUMBNAILS = Path("_build/gallery")
WIDTH = 480  # pixels of a thumbnail, twice what the page shows


@dataclass(frozen=True)
class Section:
    """A heading of a chapter.

    Attributes
    ----------
    page : str, the chapter's document name
    chapter : str, its title
    title : str, the heading in plain text
    """

    page: str
    chapter: str
    title: str

    def address(self, page):
        """Address of this heading, seen from another page."""
        place = "" if self.title == self.chapter else f"#{nodes.make_id(self.title)}"
        return relative_uri(f"{page}.html", f"{self.page}.html") + place


def chapters():
    """Document names of the notebooks in `_toc.yml`, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [page for page in pages if (ROOT / f"{page}.ipynb").is_file()]


def cells(page):
    """Yield each cell of a notebook with the section that it stands in."""
    text = (ROOT / f"{page}.ipynb").read_text(encoding="utf-8")
    section = None
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for heading in re.findall(r"^#+ +(.+?)\s*$", source, re.MULTILINE):
                plain = re.sub(r"[`*]|\$", "", heading)
                section = Section(page, section.chapter if section else plain, plain)
        yield section, cell, source


def names_used(source, imports):
    """Yield the full name of everything of mcunc in a cell, in the order of the text.

    Parameters
    ----------
    source : str, the cell's code
    imports : dict of local name -> full name; what the cell imports is added
    """
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mcunc":
            for alias in node.names:
                imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            imports |= {a.name: a.name for a in node.names if a.name == "mcunc"}
        elif isinstance(node, ast.Attribute):
            head, *rest = ast.unparse(node).split(".")
            if head in imports:
                yield ".".join([imports[head], *rest])
        elif isinstance(node, ast.Name) and node.id in imports:
            yield imports[node.id]


@cache
def introductions():
    """Full name of each function or class -> the section that uses it first."""
    first = {}
    for page in chapters():
        imports = {}
        for section, cell, source in cells(page):
            if cell["cell_type"] == "code" and section:
                for name in names_used(source, imports):
                    first.setdefault(name, section)
    return first


def add_introduction(app, what, name, obj, options, lines):
    """Put a link to the section that introduces an object below its docstring's first paragraph."""
    section = introductions().get(name)
    if what not in ("function", "class") or section is None:
        return
    end = lines.index("") if "" in lines else len(lines)
    address = section.address(app.env.docname)
    words = section.title if section.title == section.chapter else (
        f"{section.chapter}, “{section.title}”"
    )  # fmt: skip
    lines[end:end] = ["", f"First used in `{words.replace('`', '')} <{address}>`__."]


def skip_old_names(app, what, name, obj, skip, options):
    """Leave old names out of the reference: they are there for code that still uses them."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Old name of") else skip


class Gallery(Directive):
    """Thumbnails of all figures of the chapters, each linked to its section."""

    def run(self):
        """Write the thumbnails and return a list of linked pictures for each chapter."""
        env = self.state.document.settings.env
        parts = []
        for page in chapters():
            env.note_dependency(f"{page}.ipynb")
            frames = nodes.container(classes=["gallery"])
            for number, (section, alt, png) in enumerate(figures(page), start=1):
                place = THUMBNAILS / f"{Path(page).name}-{number}.png"
                write_thumbnail(png, ROOT / place)
                link = nodes.reference(
                    "", "", refuri=section.address(env.docname), internal=True,
                    reftitle=section.title,
                )  # fmt: skip
                link += nodes.image(uri=f"/{place}", alt=alt)
                frames += nodes.container("", nodes.paragraph("", "", link))
            if frames.children:
                parts += [nodes.rubric(text=section.chapter), frames]
        return parts


def figures(page):
    """Yield section, alternative text and PNG of every figure that a notebook stores."""
    for section, cell, _ in cells(page):
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png")
            if png:
                yield section, " ".join(alt.split()), base64.b64decode("".join(png))


def write_thumbnail(png, path):
    """Shrink a PNG to the gallery's width, on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(BytesIO(png)) as image:
        picture = image.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        height = max(1, round(picture.height * WIDTH / picture.width))
        small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(64).save(path, optimize=True)


def setup(app):
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", add_introduction)
    app.connect("autodoc-skip-member", skip_old_names)
    app.add_directive("figure-gallery", Gallery)
    return {"parallel_read_safe": False}
