"""The rooms of the package: who may import whom, read from the source text."""

import ast
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import sknsgf

ROOMS = {
    "__init__": {"samplers"},
    "samplers": {
        "flow",
        "training",
        "networks",
        "ode",
        "sinkhorn",
        "_persistence",
        "_distributed",
    },
    "training": {"_distributed", "_persistence"},
    "flow": {"sinkhorn"},
    "metrics": {"sinkhorn"},
    "sinkhorn": set(),
    "networks": set(),
    "ode": set(),
    "datasets": set(),
    "plotting": set(),
    "_persistence": set(),
    "_distributed": set(),
}
GUESTS = {"sklearn": {"samplers", "metrics", "datasets"}, "matplotlib": {"plotting"}}


def violations(package):
    """Every import below a package folder that the house does not allow, in words."""
    return [
        f"{'.'.join(module)} {complaint}"
        for module, tree in _modules(package)
        for target, at_top in _imports(tree, module, package)
        if (complaint := _complaint(module, target, at_top))
    ]


def _complaint(module, target, at_top):
    room = _room(module)
    guest, entered = target[0], _room(target)
    if guest in GUESTS:
        if room not in GUESTS[guest]:
            return f"imports {guest}, which belongs to {', '.join(sorted(GUESTS[guest]))}"
        if guest == "matplotlib" and at_top:
            return "imports matplotlib outside a function"
    if guest != "sknsgf" or entered == room:
        return None
    if entered not in ROOMS[room]:
        return f"must not import {entered}"
    if len(target) > 2:
        return f"enters {entered} by {'.'.join(target)}, not by its door"
    return None


def _room(module):
    return module[1] if len(module) > 1 else "__init__"


def _modules(package):
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_door = parts[-1] == "__init__"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield ("sknsgf", *parts[: len(parts) - is_door]), tree


def _imports(tree, module, package):
    """Modules imported, as tuples of their dotted name, and whether at import time."""
    deferred = {id(node) for inner in _deferred(tree) for node in ast.walk(inner)}
    for node in ast.walk(tree):
        for target in _targets(node, module, package):
            yield target, id(node) not in deferred


def _deferred(tree):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or isinstance(node, functions):
            yield node


def _targets(node, module, package):
    if isinstance(node, ast.Import):
        yield from (tuple(alias.name.split(".")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, module, package)
        for alias in node.names:
            inner = (*base, alias.name)
            yield inner if _is_module(inner, package) else base


def _base(node, module, package):
    named = tuple(node.module.split(".")) if node.module else ()
    if not node.level:
        return named
    is_door = package.joinpath(*module[1:]).is_dir()
    return (*module[: len(module) + is_door - node.level], *named)


def _is_module(target, package):
    if target[0] != "sknsgf":
        return False
    path = package.joinpath(*target[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_the_house_is_in_order():
    assert violations(Path(sknsgf.__file__).parent) == []


def test_every_room_is_known():
    found = {_room(module) for module, _ in _modules(Path(sknsgf.__file__).parent)}
    assert found <= set(ROOMS)


@pytest.fixture
def house(tmp_path):
    """A house in order, with one line of ours planted in one of its modules."""

    def build(path, line):
        for room in ("flow", "sinkhorn", "samplers"):
            (tmp_path / room).mkdir()
            (tmp_path / room / "__init__.py").touch()
            (tmp_path / room / "_inner.py").touch()
        for module in ("__init__", "metrics", "plotting", "ode"):
            (tmp_path / f"{module}.py").touch()
        (tmp_path / path).write_text(dedent(line))
        return violations(tmp_path)

    return build


@pytest.mark.parametrize(
    "path, line",
    [
        ("sinkhorn/_inner.py", "import sknsgf.flow"),
        ("sinkhorn/_inner.py", "from sknsgf.flow import simulate"),
        ("sinkhorn/_inner.py", "from sknsgf import flow"),
        ("sinkhorn/_inner.py", "from ..flow import simulate"),
        ("sinkhorn/_inner.py", "from .. import flow"),
        ("sinkhorn/__init__.py", "from ..flow import simulate"),
        ("sinkhorn/_inner.py", "def solve():\n    from sknsgf.flow import simulate"),
        ("sinkhorn/_inner.py", "from sknsgf import NSGFSampler"),
        ("__init__.py", "from .sinkhorn import solve"),
        ("ode.py", "from . import flow"),
        ("flow/_inner.py", "from sknsgf.sinkhorn._inner import solve"),
        ("flow/_inner.py", "from sknsgf.sinkhorn import _inner"),
        ("flow/_inner.py", "from ..sinkhorn._inner import solve"),
        ("flow/_inner.py", "import sknsgf.sinkhorn._inner"),
        ("flow/_inner.py", "from sklearn.utils import check_array"),
        ("flow/_inner.py", "import matplotlib"),
        ("plotting.py", "import matplotlib.pyplot as plt"),
        ("plotting.py", "class Plot:\n    from matplotlib.axes import Axes"),
    ],
)
def test_a_breach_is_found(house, path, line):
    assert len(house(path, line)) == 1


@pytest.mark.parametrize(
    "path, line",
    [
        ("flow/_inner.py", "from sknsgf.sinkhorn import solve"),
        ("flow/_inner.py", "from ..sinkhorn import solve"),
        ("flow/_inner.py", "from . import _inner"),
        ("flow/__init__.py", "from ._inner import simulate"),
        ("flow/__init__.py", "from sknsgf.flow._inner import simulate"),
        ("__init__.py", "from .samplers import NSGFSampler"),
        ("metrics.py", "from sknsgf import sinkhorn"),
        ("metrics.py", "import sklearn"),
        ("samplers/_inner.py", "from sklearn.base import BaseEstimator"),
        ("plotting.py", "def draw():\n    import matplotlib.pyplot as plt"),
        ("plotting.py", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("ode.py", "import torch"),
    ],
)
def test_what_is_allowed_is_not_a_breach(house, path, line):
    assert house(path, line) == []


def test_import_loads_neither_matplotlib_nor_pot():
    code = "import sys, sknsgf; print(sorted({'matplotlib', 'ot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
