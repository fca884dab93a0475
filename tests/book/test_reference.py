"""The reference of the package and the gallery: generated from the package and the notebooks."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import mcunc

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html" / "book"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
chapters = importlib.import_module("chapters")


def test_every_public_module_has_a_page():
    pages = {path.stem for path in (ROOT / "book" / "api").glob("*.md")} - {"index"}
    assert pages == set(mcunc._SUBMODULES)
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for name in pages:
        assert f"book/api/{name}\n" in toc
        page = (ROOT / "book" / "api" / f"{name}.md").read_text(encoding="utf-8")
        assert f".. automodule:: mcunc.{name}\n   :members:" in page


def test_names_are_found_however_they_are_imported():
    imports = {}
    code = """
from mcunc import calibration, plot as p
from mcunc.dropout import sample_logits
import mcunc
%matplotlib inline
table = calibration.bin_table(c, o)
p.truth(ax, x, y); sample_logits(network, x); print(mcunc.report(logits, labels))
other.bin_table(1)
"""
    assert list(chapters.names_used(code, imports))[:1] == ["mcunc.calibration.bin_table"]
    assert set(chapters.names_used(code, imports)) >= {
        "mcunc.plot.truth", "mcunc.dropout.sample_logits", "mcunc.reporting.report"
    }  # fmt: skip


def test_a_function_is_introduced_where_it_is_used_first(tmp_path, monkeypatch):
    def notebook(*cells):
        return json.dumps({
            "cells": [{"cell_type": kind, "source": text, "metadata": {}} for kind, text in cells]
        })  # fmt: skip

    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts: [{chapters: [{file: book/01_a}, {file: book/02_b}]}]\n"
    )
    (tmp_path / "book" / "01_a.ipynb").write_text(
        notebook(
            ("markdown", "# One\n\n## A `part`"), ("code", "from mcunc import ood"),
            ("markdown", "## Later"), ("code", "ood.detection(a, b)"),
        )
    )  # fmt: skip
    (tmp_path / "book" / "02_b.ipynb").write_text(
        notebook(("markdown", "# Two"), ("code", "from mcunc import ood\nood.detection(a, b)"))
    )
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    first = chapters.introductions.__wrapped__()["mcunc.ood.detection"]
    assert (first.page, first.chapter, first.title) == ("book/01_a", "One", "Later")
    assert first.address("book/api/ood") == "../01_a.html#later"


built = pytest.mark.skipif(not HTML.is_dir(), reason="no rendered book: run `make book`")


def article(name):
    bs4 = pytest.importorskip("bs4")
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    return bs4.BeautifulSoup(text, "html.parser").select_one("article.bd-article")


@built
@pytest.mark.pages
def test_reference_and_chapters_link_to_each_other():
    entry = article("api/calibration").find(id="mcunc.calibration.bin_table").parent
    assert entry.select_one('a[href^="../01_calibration.html#"]')
    assert article("01_calibration").select('a[href*="api/calibration.html#mcunc.calibration."]')
    names = [f"mcunc.calibration.{name}" for name in mcunc.calibration.__all__]
    there = {tag["id"] for tag in article("api/calibration").find_all(id=True)}
    assert not [n for n in names if n not in there and callable(eval(n, {"mcunc": mcunc}))]
    assert "Old name of" not in article("api/training").text


@built
@pytest.mark.pages
def test_the_gallery_shows_every_figure():
    shown = article("reference/gallery").select(".gallery a img")
    stored = sum(1 for page in chapters.chapters() for _ in chapters.figures(page))
    assert len(shown) == stored > 50
