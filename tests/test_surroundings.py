"""Whatever a caller has set around a call: results are the same bits, and nothing is moved."""

import ast
from pathlib import Path

import pytest

import sknsgf

# Who makes a tensor says where, and in which precision.

MAKERS = set(
    "arange asarray as_tensor empty eye full linspace logspace normal ones rand randint randn "
    "randperm scalar_tensor tensor zeros Generator".split()
)
WHOLE = {"arange", "randint", "randperm", "Generator"}  # of integers, whatever the default is


def unnamed(package):
    """Every call that makes a tensor by what is the default in the process or the thread."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                made, named = node.func.attr, {keyword.arg for keyword in node.keywords}
                wanted = {"device"} if made in WHOLE else {"device", "dtype"}
                if ast.unparse(node.func.value) == "torch" and made in MAKERS:
                    for word in sorted(wanted - named):
                        yield f"{path.name}:{node.lineno} torch.{made} names no {word}"


def test_every_tensor_is_made_somewhere_and_in_some_precision():
    assert list(unnamed(Path(sknsgf.__file__).parent)) == []


@pytest.mark.parametrize(
    "line, n",
    [
        ("torch.zeros(3)", 2),
        ("torch.zeros(3, device=x.device)", 1),
        ("torch.linspace(0, 1, 3, dtype=x.dtype, device='cpu')", 0),
        ("torch.randperm(3, generator=generator)", 1),
        ("torch.Generator()", 1),
        ("torch.zeros_like(x)", 0),
        ("x.new_zeros(3)", 0),
        ("np.zeros(3)", 0),
    ],
)
def test_an_unnamed_place_or_precision_is_found(tmp_path, line, n):
    (tmp_path / "module.py").write_text(f"def make(x):\n    return {line}\n")
    assert len(list(unnamed(tmp_path))) == n
