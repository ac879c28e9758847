"""The documentation: complete docstrings, code that runs, a site without a broken link."""

import functools
import http.server
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import threading
from dataclasses import is_dataclass
from enum import Enum
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib
import numpy as np
import pytest
import sklearn
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import sknsgf
from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import make_8gaussians, make_moons

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"

# Docstrings

MODULES = [m.name for m in pkgutil.iter_modules(sknsgf.__path__) if not m.name.startswith("_")]
COMPLETE = {
    "GL08": "has no docstring",
    "SS03": "summary does not end with a period",
    "SS06": "summary takes more than a line",
    "PR01": "parameters are not documented",
    "PR02": "documents parameters there are not",
    "PR03": "parameters are out of order",
    "PR04": "a parameter has no type",
    "PR07": "a parameter has no description",
    "RT01": "does not say what it returns",
    "RT03": "does not describe what it returns",
    "EX01": "has no example",
}


def exported():
    """What every door exports and can be called, by its dotted name."""
    rooms = [sknsgf, *(importlib.import_module(f"sknsgf.{name}") for name in MODULES)]
    items = (
        (f"{room.__name__}.{name}", getattr(room, name)) for room in rooms for name in room.__all__
    )
    return {path: item for path, item in items if callable(item)}


def public_names():
    """Every exported name and every public method below it."""
    for path, item in exported().items():
        yield path
        if inspect.isclass(item) and not issubclass(item, tuple | Exception):
            yield from _methods(path, item)


def _methods(path, owner):
    for base in owner.__mro__:
        if base.__module__.startswith("sknsgf"):
            for name, member in vars(base).items():
                ours = getattr(member, "__module__", "").startswith("sknsgf")
                if not name.startswith("_") and ours:
                    yield f"{path}.{name}"


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_docstring_is_complete(name):
    doc = Validator(get_doc_object(_find(name)))
    found = {code for code, _ in validate(name)["errors"]}
    if all(_has_type(*parameter) for parameter in doc.doc_all_parameters.items()):
        found.discard("PR04")
    missing = (found & set(COMPLETE)) - _not_asked_of(name, doc)
    assert not missing, [COMPLETE[code] for code in sorted(missing)]


def _find(name):
    return functools.reduce(getattr, name.split(".")[1:], sknsgf)


def _has_type(name, type_and_text):
    """Whether a parameter has a type, needs none, or has it where "As in ..." points."""
    kind, text = type_and_text
    return bool(kind) or name.startswith("*") or "".join(text).startswith("As in")


def _not_asked_of(name, doc):
    owner, method = name.rsplit(".", 1)
    shown = {"EX01"} if _shows(_find(owner), method) else set()
    if method == "forward":  # called as network(t, x), as the class explains
        return {"PR01", "RT01"} | shown
    if inspect.isclass(doc.obj) and (is_dataclass(doc.obj) or issubclass(doc.obj, tuple)):
        return {"PR01", "EX01"}  # what is returned is not made by users
    if inspect.isclass(doc.obj) and issubclass(doc.obj, Exception | Enum):
        return {"PR01"}
    return shown


def _shows(owner, method):
    """Whether a class, or the one that it has the method from, has an example."""
    if not inspect.isclass(owner):
        return False
    classes = [owner, *(base for base in owner.__mro__ if method in vars(base))]
    return any(Validator(get_doc_object(cls)).examples for cls in classes)


class Shown:
    """A class with an example.

    Examples
    --------
    >>> Shown().draw()
    """

    def draw(self): ...


class Heir(Shown):
    """A class without."""

    def save(self): ...


def test_an_example_of_the_class_is_one_of_its_methods():
    assert _shows(Shown, "draw") and _shows(Heir, "draw")
    assert not _shows(Heir, "save")
    assert not _shows(sknsgf, "NSGFSampler")


# Code on the pages

PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _blocks(page):
    path = ROOT / page
    return BLOCK.findall(path.read_text(encoding="utf-8")) if path.exists() else []


@pytest.mark.filterwarnings("ignore:n_samples=")  # the arrays are small
@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)])
def test_code_on_the_page_runs(page, monkeypatch, tmp_path):
    """In order, in one session, from small arrays of the names that readers use."""
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    for estimator in (NSGFSampler, NSGFPlusPlus):  # the code is what is tested, not the fit
        monkeypatch.setitem(estimator.__init__.__kwdefaults__, "max_iter", 10)
    names = _readers_arrays()
    with sklearn.config_context():
        for block in _blocks(page):
            exec(compile(block, page, "exec"), names)


def _readers_arrays():
    X, Y = make_8gaussians(200, random_state=0), make_moons(200, random_state=0)
    y = (np.arange(200) % 2).astype(int)
    names = {"X": X, "Y": Y, "X_source": X, "X_target": Y, "y_source": y, "X_new": X[:20]}
    return names | {"NSGFSampler": NSGFSampler, "NSGFPlusPlus": NSGFPlusPlus}


# The built site


class Page(HTMLParser):
    """What a page links to and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        for key in ("href", "src"):
            if attributes.get(key):
                self.links.append(attributes[key])


@pytest.fixture(scope="module")
def site():
    if not (SITE / "index.html").exists():
        pytest.skip("the documentation is not built: tox run -e docs")
    return {path: Page(path) for path in SITE.rglob("*.html") if "_static" not in path.parts}


def test_links_and_pictures_of_the_site_exist(site):
    broken = [
        f"{path.relative_to(SITE)}: {link}"
        for path, page in site.items()
        for link in page.links
        if not _leads_somewhere(path, link, site)
    ]
    assert not broken


def _leads_somewhere(path, link, site):
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in site:
        return target.exists()
    return unquote(parts.fragment) in site[target].anchors


def test_every_public_name_has_a_page(site):
    pages = {path.stem for path in site}
    aliases = {f"sknsgf.samplers.{name}": f"sknsgf.{name}" for name in sknsgf.__all__}
    assert {aliases.get(name, name) for name in exported()} <= pages


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve the site and remember what it asked for in vain."""

    missing: list[str]

    def send_error(self, code, *args):
        if not self.path.endswith("favicon.ico"):
            self.missing.append(self.path)
        super().send_error(code, *args)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    Handler.missing = []
    handler = functools.partial(Handler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "auto_examples/index.html",
        "auto_examples/plot_two_moons.html",
        "auto_examples/synthetic/plot_eight_gaussians.html",
        "auto_examples/synthetic/plot_checkerboard.html",
        "generated/sknsgf.NSGFSampler.html",
        "method.html",
        "search.html?q=blur",
    ],
)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_has_nothing_to_complain_of(page, width, address, tmp_path):
    done = browse(f"{address}/{page}", width, tmp_path, "--dump-dom")
    assert "</html>" in done.stdout
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in console if "[PST]" not in line] == []  # the theme's own remarks
    assert not Handler.missing


def browse(url, width, folder, *options):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium")
    quiet = "quic background-networking component-update sync".split()
    command = [
        browser,
        *("--headless", "--no-sandbox", "--no-first-run", "--disable-gpu"),
        *(f"--disable-{what}" for what in quiet),
        *(f"--user-data-dir={folder}", f"--window-size={width},900", "--enable-logging=stderr"),
        *("--virtual-time-budget=5000", *options, url),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
