"""One gate for arrays: what samplers, metrics and pictures take, and the words for what not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Number
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
    values = _plain(X, name)
    _check_shape(values, X, name, shape, min_samples, hint)
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
    labels = _labels(X) or []
    n_texts = sum(isinstance(label, str) for label in labels)
    if 0 < n_texts < len(labels):
        raise TypeError(
            f"{name} has columns whose name is a string and others whose name is none: "
            f"{name}.columns = {name}.columns.astype(str)."
        )
    return labels if n_texts else []


def is_frame(X: Any) -> bool:
    """Tell whether something is a table of columns."""
    return _labels(X) is not None


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
    given = torch.from_numpy(rows).to(X.device, X.dtype if X.is_floating_point() else None)
    if np.isfinite(rows).all() and not given.isfinite().all():
        raise ValueError(
            f"Results are beyond what {X.dtype} holds: pass X.float(), or data in smaller units."
        )
    return given


def _labels(X: Any) -> list[Any] | None:
    """Return the names of the columns of a frame of pandas, polars or arrow."""
    if hasattr(X, "column_names"):
        return list(X.column_names)
    is_known = hasattr(X, "iloc") or hasattr(X, "get_columns")
    return list(X.columns) if is_known and hasattr(X, "columns") else None


def _plain(X: Any, name: str) -> NDArray:
    """Return an array of numbers; tensors, masks and columns tell more than numpy would see."""
    if isinstance(X, list | tuple):
        first = X
        while isinstance(first, list | tuple) and first:
            first = first[0]
        if not isinstance(first, Number | str | bytes | list | tuple | None):
            X = [_plain(part, name) for part in X]
    elif np.ma.is_masked(X):
        raise ValueError(f"{name} has masked entries, which have no values; fill or drop them.")
    elif issparse(X):
        raise TypeError(f"{name} is sparse, which is not supported: make it dense by toarray().")
    elif isinstance(X, Tensor):
        X = _of_tensor(X, name)
    elif _labels(X) is not None:
        return _of_frame(X, name)
    return _numbers(_as_array(X, name), name)


def _of_frame(X: Any, name: str) -> NDArray:
    """Return the columns of a frame, each judged by its own dtype, as one array."""
    if hasattr(X, "iloc"):
        columns = [X.iloc[:, j] for j in range(X.shape[1])]
    else:
        columns = X.get_columns() if hasattr(X, "get_columns") else X.columns
    parts = []
    column_names(X, name)
    for label, column in zip(_labels(X) or [], columns, strict=True):
        at = f"Column {label!r} of {name}"
        kind = str(column.dtype if hasattr(column, "dtype") else column.type)
        if not _NUMERIC.match(kind):
            raise _not_numeric(at, f"dtype {kind}")
        parts.append(_numbers(_as_array(column, at), at))
    return np.column_stack(parts) if parts else np.empty((len(X), 0))


def _of_tensor(X: Tensor, name: str) -> Tensor:
    """Bring a tensor of any device and precision to where numpy can read it."""
    if X.layout != torch.strided or X.is_nested:
        raise TypeError(
            f"{name} is a sparse or nested tensor, not supported: pass {name}.to_dense(), or "
            "rows that are padded."
        )
    if X.is_meta:
        raise ValueError(f"{name} is a tensor on the meta device, which holds no values.")
    X = X.detach().cpu().resolve_conj().resolve_neg()
    known = X.dtype in (torch.float64, torch.float32, torch.float16)
    return X if known or not X.is_floating_point() else X.float()


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
        if tuple(shape) == ROWS and values.ndim > 2:
            hint = f"flatten every sample to a row: {name}.reshape(len({name}), -1)"
        elif tuple(shape) == ROWS:  # in words that users of scikit-learn know
            hint = (
                f"Expected 2D array, got {values.ndim}D. Reshape your data: {name}.reshape(-1, 1) "
                f"if it is one feature, {name}.reshape(1, -1) if it is one sample"
            )
        raise ValueError(f"{name} must have shape ({words}), but {came}{hint and '; '}{hint}.")
    for label, size in zip(shape, values.shape, strict=True):
        least = min_samples if label == "n_samples" else 1
        if isinstance(label, str) and size < least:
            raise ValueError(
                f"{name} has {size} {label[2:-1]}(s) (shape={values.shape}) while a minimum of "
                f"{least} is required."
            )


def _numbers(values: NDArray, name: str) -> NDArray:
    """Raise for all that numpy would turn into numbers although it is none."""
    if values.dtype == object and values.ndim:
        entries = [_number(entry, name) for entry in values.flat]
        return np.array(entries, dtype=np.float64).reshape(values.shape)
    if values.dtype.kind not in "biuf" and values.ndim:
        raise _not_numeric(name, f"dtype {values.dtype}")
    return values


def _number(entry: Any, name: str) -> float:
    """Return an entry of an array of objects as a number."""
    if type(entry).__name__ in _MISSING:
        return math.nan
    if isinstance(entry, str | bytes | np.complexfloating):
        raise _not_numeric(name, "text" if isinstance(entry, str | bytes) else "complex numbers")
    try:
        return float(entry)
    except OverflowError:
        return math.inf
    except Exception as error:
        raise TypeError(f"{name} must hold numbers: {error}; convert such entries.") from error


def _not_numeric(name: str, kind: str) -> ValueError:
    remedy = (
        "Complex data not supported: pass real and imaginary parts as columns"
        if "complex" in kind
        else "convert numbers with astype(float), encode categories, and measure dates from one"
    )
    return ValueError(f"{name} must hold numeric values, got {kind}; {remedy}.")


def _check_finite(values: NDArray, name: str, X: Any) -> None:
    """Raise for what is missing or beyond all numbers, naming the column of a frame."""
    if np.isfinite(values).all():
        return
    labels = _labels(X)
    names = [name] if labels is None else [f"Column {label!r} of {name}" for label in labels]
    for at, part in zip(names, [values] if labels is None else values.T, strict=True):
        if np.isnan(part).any():
            raise ValueError(f"{at} contains NaN; impute missing values, or drop their rows.")
        if np.isinf(part).any():
            raise ValueError(f"{at} contains infinity; clip such values, or drop their rows.")
