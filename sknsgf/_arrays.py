"""One gate for arrays: what samplers, metrics and pictures take, and the words for what not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Complex, Number, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch import Tensor

FLOATS = (np.float64, np.float32)
ROWS = ("n_samples", "n_features")

# What dtypes of numbers are called in pandas, polars and arrow; each object is looked at later.
_NUMERIC = re.compile(
    r"(sparse\[)?(u?int\d+\b|(half)?float\d*\b|double|bool|decimal|complex|null|object)", re.I
)
_MISSING = ("NoneType", "NAType", "NaTType")


def check_rows(X: Any, name: str, min_samples: int = 1) -> NDArray:
    """Return X as finite rows (n_samples, n_features) of floats, or say what is wrong with it."""
    return check_floats(X, name, ROWS, min_samples=min_samples)


def check_floats(
    X: Any, name: str, shape: Sequence[str | int], *, min_samples: int = 1, hint: str = ""
) -> NDArray:
    """Return X as a finite array of a shape, in its own precision, or say what is wrong with it.

    Parameters
    ----------
    X : array-like, dataframe or Tensor
        What a user passed.
    name : str
        What the user knows it by.
    shape : sequence of str or int
        Names of the dimensions that may have any size but zero, sizes of the others.
    min_samples : int, default=1
        The least size of the dimension "n_samples".
    hint : str, default=""
        How an array of another shape may be brought to this one.

    Returns
    -------
    ndarray
        In C order, float32 where it came so, else float64.

    Raises
    ------
    TypeError
        If it is sparse, an entry is an object that is no number, or some names of columns are text
        and some are not.
    ValueError
        If it is anything else that cannot be computed with.
    """
    values = _as_array(_plain(X, name), name)
    _check_shape(values, X, name, shape, min_samples, hint)
    values = _numbers(values, name)
    # Sums over columns round differently in Fortran order: one order, one result.
    dtype = values.dtype if values.dtype in FLOATS else np.float64
    with np.errstate(over="ignore"):  # beyond all floats is infinite
        values = np.asarray(values, dtype=dtype, order="C")
    _check_finite(values, name, X)
    return values


def check_same_columns(
    names: Sequence[str], others: Sequence[str], name: str, other_name: str
) -> None:
    """Raise if two frames have other columns, or the same in another order."""
    if not len(names) or not len(others) or list(names) == list(others):
        return
    remedy = "rename them, or pass arrays"
    if set(names) == set(others):
        remedy = f"{other_name}[{list(names)}]"
    raise ValueError(
        f"{name} has the columns {list(names)} but {other_name} has {list(others)}; both must "
        f"have the same columns in the same order: {remedy}."
    )


def check_same_width(x: NDArray, y: NDArray, name: str, other_name: str) -> None:
    """Raise unless two arrays have as many columns."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{name} has {x.shape[1]} features but {other_name} has {y.shape[1]}; both must live "
            "in the same space."
        )


def column_names(X: Any, name: str) -> list[str]:
    """Return the names of the columns of a frame, if they are text; none of anything else."""
    labels = [label for label, _ in _columns(X) or ()]
    n_texts = sum(isinstance(label, str) for label in labels)
    if 0 < n_texts < len(labels):
        raise TypeError(
            f"{name} has columns whose name is a string and others whose name is none: "
            f"{name}.columns = {name}.columns.astype(str)."
        )
    return labels if n_texts else []


def is_frame(X: Any) -> bool:
    """Tell whether something is a table of columns."""
    return _columns(X) is not None


def shape_of(X: Any) -> tuple[int, ...]:
    """Shape of an array or of nested lists; of a ragged list, or of what has none, ()."""
    try:
        return tuple(np.shape(X) if isinstance(X, list | tuple) else getattr(X, "shape", ()))
    except Exception:  # whatever entries, or the object's own shape, raise
        return ()


def as_given(rows: NDArray, X: Any) -> Any:
    """Return rows as a tensor on the device of X, in its precision, if X is one."""
    if not isinstance(X, Tensor):
        return rows
    return torch.from_numpy(rows).to(X.device, X.dtype if X.is_floating_point() else None)


def _columns(X: Any) -> list[tuple[Any, Any]] | None:
    """Return the columns of a frame of pandas, polars or arrow, with their names."""
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        return [(label, X.iloc[:, j]) for j, label in enumerate(X.columns)]
    if hasattr(X, "get_columns") and hasattr(X, "columns"):
        return list(zip(X.columns, X.get_columns(), strict=True))
    if hasattr(X, "column_names") and hasattr(X, "columns"):
        return list(zip(X.column_names, X.columns, strict=True))
    return None


def _plain(X: Any, name: str) -> Any:
    """Judge what numpy would not see, masks and dtypes of columns; bring tensors to numpy."""
    if isinstance(X, list | tuple) and X and not isinstance(X[0], Number | str | bytes | None):
        return [_plain(part, name) for part in X]
    if np.ma.is_masked(X):
        raise ValueError(f"{name} has masked entries, which have no values; fill or drop them.")
    if issparse(X):
        raise TypeError(f"{name} is sparse, which is not supported: make it dense by toarray().")
    if isinstance(X, Tensor):
        return _of_tensor(X, name)
    columns = _columns(X)
    if columns is None:
        return X
    column_names(X, name)
    parts = [_of_column(part, f"Column {label!r} of {name}") for label, part in columns]
    return np.column_stack(parts) if parts else np.empty((len(X), 0))


def _of_column(column: Any, name: str) -> NDArray:
    """Return a column as an array of numbers, judged by its own dtype."""
    kind = str(column.dtype if hasattr(column, "dtype") else column.type)
    if not _NUMERIC.match(kind):
        raise _not_numeric(name, f"dtype {kind}")
    return _numbers(_as_array(column, name), name)


def _of_tensor(X: Tensor, name: str) -> NDArray:
    if X.layout != torch.strided or X.is_nested:
        raise TypeError(
            f"{name} is a sparse or nested tensor, not supported: pass {name}.to_dense(), or "
            "rows that are padded."
        )
    if X.is_meta:
        raise ValueError(f"{name} is a tensor on the meta device, which holds no values.")
    X = X.detach().cpu().resolve_conj().resolve_neg()
    known = X.dtype in (torch.float64, torch.float32, torch.float16)
    return _as_array(X if known or not X.is_floating_point() else X.float(), name)


def _as_array(X: Any, name: str) -> NDArray:
    try:
        return np.asarray(X)
    except Exception as error:  # whatever the object's own conversion raises
        raise ValueError(f"{name} cannot be made an array of numbers: {error}") from error


def _check_shape(
    values: NDArray,
    X: Any,
    name: str,
    shape: Sequence[str | int],
    min_samples: int,
    hint: str,
) -> None:
    fits = values.ndim == len(shape) and all(
        isinstance(size, str) or size == came
        for size, came in zip(shape, values.shape, strict=True)
    )
    if not fits:
        words = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        came = f"it has shape {values.shape}" if values.ndim else f"it is a {type(X).__name__}"
        if tuple(shape) == ROWS:
            hint = _how_to_reshape(values.ndim, name)
        raise ValueError(f"{name} must have shape ({words}), but {came}{hint and '; '}{hint}.")
    for label, size in zip(shape, values.shape, strict=True):
        least = min_samples if label == "n_samples" else 1
        if isinstance(label, str) and size < least:
            raise ValueError(
                f"{name} has {size} {label[2:-1]}(s) (shape={values.shape}) while a minimum of "
                f"{least} is required."
            )


def _how_to_reshape(ndim: int, name: str) -> str:
    """Say how to bring an array to rows, in words that users of scikit-learn know."""
    if ndim > 2:
        return f"flatten every sample to a row: {name}.reshape(len({name}), -1)"
    return (
        f"Expected 2D array, got {ndim}D. Reshape your data: {name}.reshape(-1, 1) if it is one "
        f"feature, {name}.reshape(1, -1) if it is one sample"
    )


def _numbers(values: NDArray, name: str) -> NDArray:
    """Raise for all that numpy would turn into numbers although it is none."""
    if values.dtype == object:
        entries = [_number(entry, name) for entry in values.flat]
        return np.array(entries, dtype=np.float64).reshape(values.shape)
    if values.dtype.kind == "c":
        raise _complex(name)
    if values.dtype.kind not in "biuf":
        raise _not_numeric(name, f"dtype {values.dtype}")
    return values


def _number(entry: Any, name: str) -> float:
    """Return an entry of an array of objects as a number."""
    if type(entry).__name__ in _MISSING:
        return math.nan
    if isinstance(entry, str | bytes):
        raise _not_numeric(name, "text")
    if isinstance(entry, Complex) and not isinstance(entry, Real):
        raise _complex(name)
    try:
        return float(entry)
    except OverflowError:
        return math.inf
    except Exception as error:
        raise TypeError(f"{name} must hold numbers: {error}; convert such entries.") from error


def _not_numeric(name: str, kind: str) -> ValueError:
    return ValueError(
        f"{name} must hold numeric values, got {kind}; convert numbers with astype(float), encode "
        "categories, and measure dates from one of them."
    )


def _complex(name: str) -> ValueError:
    return ValueError(
        f"{name} holds complex numbers. Complex data not supported: pass real and imaginary parts "
        "as columns."
    )


def _check_finite(values: NDArray, name: str, X: Any) -> None:
    """Raise for what is missing or beyond all numbers, naming the column of a frame."""
    if np.isfinite(values).all():
        return
    parts = {name: values}
    if columns := _columns(X):
        labels = [f"Column {label!r} of {name}" for label, _ in columns]
        parts = dict(zip(labels, values.T, strict=True))
    for at, part in parts.items():
        if np.isnan(part).any():
            raise ValueError(f"{at} contains NaN; impute missing values, or drop their rows.")
        if np.isinf(part).any():
            raise ValueError(f"{at} contains infinity; clip such values, or drop their rows.")
