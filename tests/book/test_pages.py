"""The rendered book in `_build/html`: what a reader's browser gets to see.

Pages are read from `_toc.yml`, so that a new chapter is covered the moment it is listed. What needs
a browser is gathered in one visit per page and colour scheme (`visit`) and judged in many tests.
"""

import os
import re
import shutil
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
SCHEMES = ("light", "dark")
WIDE, PHONE = 1280, 390  # CSS pixels
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = pytest.mark.pages


def pages_in_toc():
    """Every page listed in `_toc.yml`, in reading order, without suffix."""
    lines = (ROOT / "_toc.yml").read_text(encoding="utf8").splitlines()
    entries = (re.match(r"[\s-]*(?:root|file):\s*([^\s#]+)", line) for line in lines)
    return [re.sub(r"\.(md|ipynb)$", "", e[1].strip("'\"")) for e in entries if e]


PAGES = pages_in_toc()
CHAPTERS = [page for page in PAGES if (ROOT / f"{page}.ipynb").exists()]
each_page = pytest.mark.parametrize("page", PAGES)
each_chapter = pytest.mark.parametrize("page", CHAPTERS)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def unavailable(reason):
    """Skip, but never silently where nobody would notice."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# --- The files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def built():
    if not (HTML / "index.html").exists():
        unavailable(f"no rendered book in {HTML}: run `make book`")


@cache
def parsed(path):
    bs4 = pytest.importorskip("bs4")
    return bs4.BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")


@cache
def anchors(path):
    return {tag["id"] for tag in parsed(path).find_all(id=True)}


def article(page):
    return parsed(HTML / f"{page}.html").select_one("article.bd-article")


def project_url(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return project["urls"][name]


def broken(path, address):
    """Why `address`, found in the page at `path`, leads nowhere; None when it leads somewhere."""
    book = project_url("Documentation").rstrip("/") + "/"
    base = path.parent
    if address.startswith(book):  # the book's own public address is a local file too
        address, base = address.removeprefix(book) or "index.html", HTML
    if urlsplit(address).scheme or address.startswith("//"):
        return None
    place, anchor = urldefrag(address)
    target = base / unquote(urlsplit(place).path) if place else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"{address}: no such file"
    if anchor and target.suffix == ".html" and unquote(anchor) not in anchors(target.resolve()):
        return f"{address}: no such place in the page"
    return None


def test_the_toc_lists_pages():
    assert PAGES, "no pages read from _toc.yml"
    assert CHAPTERS, "no notebook among the pages of _toc.yml"


@each_page
def test_links_inside_the_book_lead_somewhere(page):
    path = HTML / f"{page}.html"
    tags = parsed(path).find_all(["a", "link", "img", "script"])
    addresses = {tag.get("href") or tag.get("src") for tag in tags} - {None, "", "#"}
    faults = [fault for a in sorted(addresses) if (fault := broken(path, a))]
    assert not faults, f"{page}: {faults}"


def test_the_front_door_leads_to_the_first_page():
    assert f"url={PAGES[0]}.html" in (HTML / "index.html").read_text(encoding="utf8")


@each_chapter
def test_colab_opens_this_chapter(page):
    repository = urlsplit(project_url("Repository")).path.strip("/")
    wanted = f"https://colab.research.google.com/github/{repository}/blob/main/{page}.ipynb"
    links = parsed(HTML / f"{page}.html").select('.bd-header-article a[href*="colab"]')
    assert [link["href"] for link in links] == [wanted]


@each_page
def test_every_image_says_what_it_shows(page):
    faults = []
    for image in article(page).find_all("img"):
        alt = " ".join(image.get("alt", "").split())
        figure = image.find_parent("figure")
        caption = figure.select_one(".caption-text") if figure else None
        if len(alt) < 20:
            faults.append(f"{image.get('src')}: alt text {alt!r} is shorter than 20 characters")
        elif re.search(r"\.(png|svg|jpe?g|gif|webp)$|_images/", alt):
            faults.append(f"{image.get('src')}: alt text {alt!r} is a file name")
        elif caption and alt.rstrip(".") == " ".join(caption.text.split()).rstrip("."):
            faults.append(f"{image.get('src')}: alt text repeats the caption")
    assert not faults, f"{page}: {faults}"


@each_page
def test_no_cell_complained(page):
    complaints = article(page).select(".stderr, .traceback, .highlight-ipythontb")
    assert not complaints, f"{page}: {[c.text.strip()[:200] for c in complaints]}"


@each_page
def test_no_place_on_this_machine_is_shown(page):
    html = (HTML / f"{page}.html").read_text(encoding="utf8")
    places = {str(ROOT), sys.prefix, f"{Path.home()}/", "/tmp/ipykernel"} - {"/", "//"}
    found = {place: html[html.index(place) - 60 :][:160] for place in places if place in html}
    assert not found, f"{page}: {found}"


# --- The browser ----------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(built):
    """Address of a server of the built book."""
    handler = partial(QuietHandler, directory=HTML)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find_chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("MCUNC_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found or not Path(found).exists():
        unavailable(
            "no Chromium or Chrome found: install one (apt install chromium), or name it in"
            " MCUNC_CHROMIUM"
        )
    return found


# The life of a module, not of a session: while it is open no other test can run an event loop.
@pytest.fixture(scope="module")
def browser():
    executable = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed: pip install -e '.[test]'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """What one visit to a page, in one colour scheme, brought to light."""

    console: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    foreign: list = field(default_factory=list)
    theme: str = ""
    too_wide: dict = field(default_factory=dict)
    math: dict = field(default_factory=dict)
    axe: list = field(default_factory=list)

    def watch(self, tab, site):
        """Note what the page says and asks for; nothing leaves this machine."""

        def ask(route):
            url = route.request.url
            if url.startswith((site, "data:", "blob:")):
                return route.continue_()
            self.foreign.append(url)
            return route.abort()

        tab.route("**/*", ask)
        tab.on("console", lambda m: m.type in ("error", "warning") and self.console.append(m.text))
        tab.on("pageerror", lambda error: self.console.append(str(error)))
        tab.on("requestfailed", lambda request: self.failed.append(request.url))
        tab.on("response", lambda r: r.status >= 400 and self.failed.append(f"{r.status} {r.url}"))


# Wait until mathematics and fonts are in place, then unfold everything that can be unfolded: what
# is folded must fit and be accessible too.
SETTLE = """async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  document.querySelectorAll("article details").forEach((fold) => { fold.open = true; });
  await document.fonts.ready;
}"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

# What sticks out is named, since a number alone helps nobody to find it; what sticks out of a box
# that scrolls by itself is meant to.
OVERFLOW = """() => {
  const width = window.innerWidth;
  if (document.documentElement.scrollWidth <= width) return null;
  const open = (node) => getComputedStyle(node).overflowX === "visible";
  const free = (node) => node.tagName === "ARTICLE" || (open(node) && free(node.parentElement));
  const out = [...document.querySelectorAll("article *")].filter((node) =>
    node.getBoundingClientRect().left + Math.max(node.offsetWidth ?? 0, node.scrollWidth) > width
    && open(node) && free(node.parentElement));
  const names = out.slice(-3).map((node) => node.outerHTML.slice(0, 120));
  return `${document.documentElement.scrollWidth} > ${width}: ${names.join(" | ")}`;
}"""

# Written by the build as .math; an unknown command is set in red, a syntax error as merror.
MATH = """() => {
  const count = (selector) => document.querySelectorAll(`article ${selector}`).length;
  return {
    written: count(".math"),
    set: count(".math mjx-container"),
    errors: [...document.querySelectorAll(
      "mjx-merror, [data-mml-node=merror], mjx-container g[fill=red]")].map((node) =>
        node.closest("mjx-container").textContent.slice(0, 200)),
  };
}"""


def axe_faults(tab, scheme):
    from axe_playwright_python.sync_playwright import Axe

    # Without preload, or axe fetches style sheets from addresses it resolves wrongly.
    options = {"resultTypes": ["violations"], "preload": False}
    if scheme == "dark":  # differs from the light one in colours only, and axe takes its time
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    found = Axe().run(tab, "article.bd-article", options).response["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [
        f"{fault['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for fault in grave
        for node in fault["nodes"]
    ]


@pytest.fixture(scope="module")
def visit(browser, site):
    """A function of page and scheme to a `Visit`; each is made once."""

    @cache
    def make(page, scheme):
        seen = Visit()
        context = browser.new_context(
            viewport={"width": WIDE, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        with context, context.new_page() as tab:
            seen.watch(tab, site)
            tab.goto(f"{site}/{page}.html")
            tab.evaluate(SETTLE)
            seen.theme = tab.evaluate("document.documentElement.dataset.theme")
            seen.math = tab.evaluate(MATH)
            for width in (WIDE, PHONE):
                tab.set_viewport_size({"width": width, "height": 900})
                tab.evaluate(PAINTED)
                seen.too_wide[width] = tab.evaluate(OVERFLOW)
            # At the width of a phone, where most boxes scroll and so most can go wrong.
            seen.axe = axe_faults(tab, scheme)
        return seen

    return make


@each_scheme
@each_page
def test_loads_in_peace(visit, page, scheme):
    seen = visit(page, scheme)
    assert seen.theme == scheme
    assert not seen.console
    assert not seen.failed
    assert not seen.foreign, "the page asks another host for something"


@each_scheme
@each_page
def test_no_sideways_scrolling(visit, page, scheme):
    faults = [fault for fault in visit(page, scheme).too_wide.values() if fault]
    assert not faults, "\n".join(faults)


@each_page
def test_mathematics_is_typeset(visit, page):
    math = visit(page, "light").math
    assert math["set"] == math["written"] == len(article(page).select(".math"))
    assert not math["errors"]


@each_scheme
@each_page
def test_accessible(visit, page, scheme):
    faults = visit(page, scheme).axe
    assert not faults, "\n".join(faults)


def test_search_finds_a_chapter(browser, site):
    addresses = [f"{site}/{page}.html" for page in CHAPTERS]
    with browser.new_context() as context, context.new_page() as tab:
        seen = Visit()
        seen.watch(tab, site)
        tab.goto(f"{site}/search.html?q=epistemic")
        tab.wait_for_function(
            "addresses => [...document.querySelectorAll('#search-results li a')]"
            ".some((link) => addresses.some((address) => link.href.startsWith(address)))",
            arg=addresses,
            timeout=10_000,
        )
    assert not seen.console + seen.failed + seen.foreign
