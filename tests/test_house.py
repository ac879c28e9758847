"""The house: who may import whom, what stays private, how long code is; read from the source."""

import ast
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from io import StringIO
from pathlib import Path
from textwrap import dedent, indent
from typing import NamedTuple

import pytest

import sknsgf

ROOMS = {
    "__init__": {"samplers"},
    "samplers": {
        "algorithms",
        "flow",
        "networks",
        "training",
        "ode",
        "sinkhorn",
        "_arguments",
        "_arrays",
        "_persistence",
        "_random",
        "_surroundings",
    },
    "algorithms": {
        "flow",
        "networks",
        "training",
        "ode",
        "_arguments",
        "_random",
        "_surroundings",
    },
    "flow": {"sinkhorn", "_arguments", "_random", "_surroundings"},
    "training": {"_arguments", "_surroundings"},
    "networks": {"_arguments", "_surroundings"},
    "metrics": {"sinkhorn", "_arguments", "_arrays", "_random"},
    "sinkhorn": {"_arguments", "_surroundings"},
    "ode": {"_arguments"},
    "datasets": {"_arguments", "_random"},
    "plotting": {"_arguments", "_arrays"},
    "_arguments": set(),
    "_arrays": set(),
    "_persistence": {"_arguments"},
    "_random": {"_arguments"},
    "_surroundings": set(),
}
GUESTS = {
    "sklearn": {"samplers", "metrics", "datasets", "plotting", "_random"},
    "warnings": {"samplers", "metrics"},
    "tqdm": {"samplers"},
    "joblib": {"samplers", "flow"},
    "matplotlib": {"plotting"},
}

# Underscored names that are another library's interface all the same.
NAMEDTUPLE = {"_asdict", "_fields", "_make", "_replace"}
ESTIMATOR = {  # what scikit-learn asks of an estimator or keeps on it
    "_init_callback_context",
    "_metadata_request",
    "_parameter_constraints",
    "_serialize",
    "_sklearn_output_config",
    "_validate_params",
}
FUNCTIONS = ("sys._getframe", "torch._foreach_")

LONGEST_FILE, LONGEST_FUNCTION = 300, 40  # lines of code


class Module(NamedTuple):
    name: tuple[str, ...]
    text: str

    @property
    def tree(self):
        return ast.parse(self.text)

    @property
    def room(self):
        return _room(self.name)


def imports(package):
    """Every import that the house does not allow, in words."""
    for module in _modules(package):
        for import_ in _imports(module, package):
            if complaint := _complaint(module.room, import_):
                yield f"{_place(module, import_.line)} {complaint}"


def privacy(package):
    """Every look at what another object keeps to itself."""
    for module in _modules(package):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and _is_foreign(node):
                yield f"{_place(module, node.lineno)} reads {ast.unparse(node)}"


def sizes(package):
    """Every file and every function that is too long."""
    for module in _modules(package):
        code = _code_lines(module)
        if len(code) > LONGEST_FILE:
            yield f"{_place(module, 1)} has {len(code)} lines of code"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = len(code & set(range(node.lineno, node.end_lineno + 1)))
                if n_lines > LONGEST_FUNCTION and node.name != "__init__":
                    yield f"{_place(module, node.lineno)} {node.name} has {n_lines} lines of code"


def phantoms(package, table):
    """Rows of the table without a room, rooms without a row, and permissions nobody uses."""
    modules = list(_modules(package))
    there = {module.room for module in modules}
    imported = ((module.room, i.target) for module in modules for i in _imports(module, package))
    used = {(room, _room(target)) for room, target in imported if target[0] == "sknsgf"}
    yield from (f"there is no {room}" for room in sorted(set(table) - there))
    yield from (f"{room} has no row" for room in sorted(there - set(table)))
    for room in sorted(set(table) & there):
        for other in sorted(table[room]):
            if (room, other) not in used:
                yield f"{room} does not import {other}"


RULES = [imports, privacy, sizes]


def _place(module, line):
    return f"{'.'.join(module.name)}:{line}"


def _complaint(room, import_):
    target, entered = import_.target, _room(import_.target)
    guest = target[0]
    if guest in GUESTS:
        if room not in GUESTS[guest]:
            return f"imports {guest}, which belongs to {', '.join(sorted(GUESTS[guest]))}"
        if guest == "matplotlib" and import_.at_top:
            return "imports matplotlib outside a function"
    if guest != "sknsgf" or entered == room:
        return None
    if entered not in ROOMS.get(room, ()):
        return f"must not import {entered}"
    if len(target) > 2:
        return f"enters {entered} by {'.'.join(target)}, not by its door"
    if _is_private(import_.name):
        return f"imports {import_.name}, which {entered} keeps to itself"
    return None


def _room(name):
    return name[1] if len(name) > 1 else "__init__"


def _modules(package) -> Iterator[Module]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_door = parts[-1] == "__init__"
        yield Module(("sknsgf", *parts[: len(parts) - is_door]), path.read_text(encoding="utf-8"))


class Import(NamedTuple):
    target: tuple[str, ...]  # the module, by its dotted name
    name: str  # what is taken from it, "" for the module itself
    line: int
    at_top: bool  # at import time, not in a function or for types


def _imports(module, package) -> Iterator[Import]:
    tree = module.tree
    deferred = {id(node) for inner in _deferred(tree) for node in ast.walk(inner)}
    for node in ast.walk(tree):
        for target, name in _targets(node, module.name, package):
            yield Import(target, name, node.lineno, id(node) not in deferred)


def _deferred(tree):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or isinstance(node, functions):
            yield node


def _targets(node, module, package):
    if isinstance(node, ast.Import):
        yield from ((tuple(alias.name.split(".")), "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, module, package)
        for alias in node.names:
            inner = (*base, alias.name)
            yield (inner, "") if _is_module(inner, package) else (base, alias.name)


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


def _is_foreign(node):
    """Whether an attribute is private and of something else than the object itself."""
    if not _is_private(node.attr) or node.attr in NAMEDTUPLE | ESTIMATOR:
        return False
    is_own = ast.unparse(node.value) in {"self", "cls", "super()"}
    return not is_own and not ast.unparse(node).startswith(FUNCTIONS)


def _is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _code_lines(module):
    """Numbers of the lines of code: docstrings, comments and blank lines are none."""
    silent = {"COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"}
    code = set()
    for token in tokenize.generate_tokens(StringIO(module.text).readline):
        if tokenize.tok_name[token.type] not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(module.tree):
        if _is_docstring(node):
            code -= set(range(node.lineno, node.end_lineno + 1))
    return code


def _is_docstring(node):
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)


PACKAGE = Path(sknsgf.__file__).parent


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule):
    assert list(rule(PACKAGE)) == []


def test_the_table_is_what_is_used():
    assert list(phantoms(PACKAGE, ROOMS)) == []


def test_the_table_runs_one_way():
    TopologicalSorter(ROOMS).prepare()  # raises on a cycle


@pytest.fixture
def house(tmp_path):
    """A house in order, with lines of ours planted in one of its modules."""

    def build(path, lines):
        for room in ("algorithms", "flow", "sinkhorn", "samplers"):
            (tmp_path / room).mkdir()
            (tmp_path / room / "__init__.py").touch()
            (tmp_path / room / "_inner.py").touch()
        for module in ("__init__", "_random", "metrics", "plotting", "ode"):
            (tmp_path / f"{module}.py").touch()
        (tmp_path / path).write_text(dedent(lines))
        return tmp_path

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
        ("flow/_inner.py", "from sknsgf.algorithms import SinkhornFlow"),
        ("algorithms/_inner.py", "from sknsgf.sinkhorn import transport"),
        ("_random.py", "from sknsgf.flow import simulate"),
        ("__init__.py", "from .sinkhorn import solve"),
        ("ode.py", "from . import flow"),
        ("flow/_inner.py", "from sknsgf.sinkhorn._inner import solve"),
        ("flow/_inner.py", "from sknsgf.sinkhorn import _inner"),
        ("flow/_inner.py", "from ..sinkhorn._inner import solve"),
        ("flow/_inner.py", "import sknsgf.sinkhorn._inner"),
        ("flow/_inner.py", "from sknsgf.sinkhorn import _solve"),
        ("flow/_inner.py", "from ..sinkhorn import _solve as solve"),
        ("flow/_inner.py", "from sknsgf._random import _hash"),
        ("flow/_inner.py", "from sklearn.utils import check_array"),
        ("algorithms/_inner.py", "from sklearn.base import clone"),
        ("algorithms/_inner.py", "from tqdm.auto import tqdm"),
        ("algorithms/_inner.py", "import warnings"),
        ("sinkhorn/_inner.py", "def solve():\n    from warnings import warn"),
        ("algorithms/_inner.py", "from joblib import Parallel"),
        ("flow/_inner.py", "import matplotlib"),
        ("plotting.py", "import matplotlib.pyplot as plt"),
        ("plotting.py", "class Plot:\n    from matplotlib.axes import Axes"),
    ],
)
def test_a_forbidden_import_is_found(house, path, line):
    assert len(list(imports(house(path, line)))) == 1


@pytest.mark.parametrize(
    "path, line",
    [
        ("flow/_inner.py", "from sknsgf.sinkhorn import solve"),
        ("flow/_inner.py", "from ..sinkhorn import solve"),
        ("flow/_inner.py", "from . import _inner"),
        ("flow/_inner.py", "from sknsgf import _random"),
        ("flow/_inner.py", "from sknsgf._random import stream"),
        ("flow/_inner.py", "from joblib import Parallel"),
        ("flow/__init__.py", "from ._inner import simulate"),
        ("flow/__init__.py", "from sknsgf.flow._inner import simulate"),
        ("flow/__init__.py", "from sknsgf.flow._inner import _simulate"),
        ("algorithms/_inner.py", "from sknsgf.flow import simulate"),
        ("__init__.py", "from .samplers import NSGFSampler"),
        ("metrics.py", "from sknsgf import sinkhorn"),
        ("metrics.py", "import sklearn"),
        ("metrics.py", "import warnings"),
        ("samplers/_inner.py", "from sklearn.base import BaseEstimator"),
        ("samplers/_inner.py", "from sklearn.utils._param_validation import Interval"),
        ("samplers/_inner.py", "from tqdm.auto import tqdm"),
        ("plotting.py", "def draw():\n    import matplotlib.pyplot as plt"),
        ("plotting.py", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("ode.py", "import torch"),
    ],
)
def test_an_import_that_is_allowed(house, path, line):
    assert list(imports(house(path, line))) == []


PLANTED = "__init__ _random algorithms flow metrics ode plotting samplers sinkhorn".split()
TABLE = {room: set() for room in PLANTED} | {"flow": {"sinkhorn"}}


@pytest.mark.parametrize(
    "line, table, found",
    [
        ("from sknsgf.sinkhorn import solve", TABLE, []),
        ("def move():\n    from ..sinkhorn import solve", TABLE, []),
        ("import torch.sinkhorn", TABLE, ["flow does not import sinkhorn"]),
        ("from sknsgf.sinkhorn import solve", TABLE | {"cellar": set()}, ["there is no cellar"]),
        (
            "from sknsgf.sinkhorn import solve",
            {room: row for room, row in TABLE.items() if room != "ode"},
            ["ode has no row"],
        ),
        (
            "from sknsgf.sinkhorn import solve",
            TABLE | {"metrics": {"sinkhorn"}},
            ["metrics does not import sinkhorn"],
        ),
    ],
)
def test_a_phantom_is_found(house, line, table, found):
    assert list(phantoms(house("flow/_inner.py", line), table)) == found


@pytest.mark.parametrize(
    "line",
    [
        "flow._hull",
        "flow._hull = None",
        "del flow._hull",
        "flow._integrate(x)",
        "self.flow._hull",
        "self._flow._hull",
        "type(self)._table",
        "BaseFlow._table",
        "np._core",
        "import sknsgf.sinkhorn\nsknsgf.sinkhorn._solve(x)",
        "estimator._fitted",
        "torch._dynamo",
    ],
)
def test_a_look_at_what_is_private_is_found(house, line):
    assert len(list(privacy(house("samplers/_inner.py", line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "self._hull = cls._make_hull()",
        "super()._check(x)",
        "self._hull.points",
        "flow.__class__.__name__",
        "state._replace(x=x)._asdict()",
        "torch._foreach_lerp_(a, b, weight)",
        "sys._getframe(1)",
        "estimator._validate_params()",
        "_helper(x)",
    ],
)
def test_a_private_name_that_is_allowed(house, line):
    assert list(privacy(house("samplers/_inner.py", line))) == []


CODE, COMMENT, DOCSTRING = "x = 1\n", "# why\n\n", '"""Text,\n\nand more."""\n'


def a_function(n_lines, name="solve", start=""):
    """Source of a function of so many lines of code, its first one included."""
    return f"def {name}():\n" + indent(start + (n_lines - 1) * CODE, "    ")


@pytest.mark.parametrize(
    "lines",
    [
        (LONGEST_FILE + 1) * CODE,
        "x = [\n" + LONGEST_FILE * "    1,\n" + "]\n",
        'x = """\n' + LONGEST_FILE * "text\n" + '"""\n',
        a_function(LONGEST_FUNCTION + 1),
        "class Flow:\n" + indent(a_function(LONGEST_FUNCTION + 1), "    "),
        "async " + a_function(LONGEST_FUNCTION + 1),
    ],
    ids=["file", "list", "text", "function", "method", "coroutine"],
)
def test_what_is_too_long_is_found(house, lines):
    assert len(list(sizes(house("flow/_inner.py", lines)))) == 1


@pytest.mark.parametrize(
    "lines",
    [
        LONGEST_FILE * CODE,
        DOCSTRING + LONGEST_FILE * (CODE + COMMENT),
        a_function(LONGEST_FUNCTION),
        a_function(LONGEST_FUNCTION, start=DOCSTRING + COMMENT),
        a_function(LONGEST_FUNCTION + 1, name="__init__"),
    ],
    ids=["file", "file with comments", "function", "function with a docstring", "__init__"],
)
def test_a_length_that_is_allowed(house, lines):
    assert list(sizes(house("flow/_inner.py", lines))) == []


def test_import_loads_neither_matplotlib_nor_pot():
    code = "import sys, sknsgf; print(sorted({'matplotlib', 'ot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
