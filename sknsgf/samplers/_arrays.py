"""Arrays as users pass them: checked, and returned as they came."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data
from torch import Tensor

from sknsgf.samplers._warnings import warn_ignored_target

FLOATS = (np.float64, np.float32)


def check_rows(X: Any, name: str, estimator: Any, min_samples: int) -> NDArray:
    """Return X as a finite two-dimensional float array, or say what is wrong with it."""
    shape = _shape(X)
    if len(shape) > 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}; expected two dimensions, (n_samples, n_features). "
            f"Flatten every sample to a row: {name}.reshape(len({name}), -1)."
        )
    if np.ma.is_masked(X):
        raise ValueError(f"{name} has masked entries, which cannot be moved; fill or drop them.")
    check = partial(check_array, estimator=estimator, input_name=f"array {name}")
    try:
        rows = check(_to_numpy(X), dtype=None, ensure_all_finite=False, ensure_min_features=0)
        _check_numeric(rows)
        # Sums over columns round differently in Fortran order: one order, one result.
        shaped = {"order": "C", "ensure_min_samples": min_samples}
        rows = check(rows, dtype=FLOATS, ensure_all_finite=False, **shaped)
        _check_finite(rows)
        return rows
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} cannot be used. {error}") from error


def check_source_and_target(
    sampler: Any,
    X_source: Any,
    y: Any,
    X_target: Any,
    *,
    min_samples: int = 1,
    names: Sequence[str] = (),
) -> tuple[NDArray | None, NDArray]:
    """Tell which argument is the source and which the target; None for a drawn source.

    `names` are the columns fitted, if any.
    """
    if sampler.source is not None:
        if X_target is not None:
            raise ValueError(
                "X_target was passed although source is set: the flow then starts from "
                "that source and its target is the first array. Pass the target first, "
                "or set source=None to start from an array."
            )
        if len(_shape(y)) == 2 and _shape(y)[1:] == _shape(X_source)[1:] > (1,):
            warn_ignored_target()
        return None, check_rows(X_source, "X", sampler, min_samples)
    rows = check_rows(X_source, "X_source", sampler, min_samples)
    given = _find_target(y, X_target)
    target = check_rows(given, "X_target", sampler, min_samples)
    if rows.shape[1] != target.shape[1]:
        raise ValueError(
            f"X_source has {rows.shape[1]} features but X_target has {target.shape[1]}; "
            "both must live in the same space."
        )
    names = list(names) or _column_names(sampler, X_source)
    target_names = _column_names(sampler, given)
    if names and target_names and names != target_names:
        same = set(names) == set(target_names)
        remedy = f"X_target[{names}]" if same else "rename them, or pass arrays"
        raise ValueError(
            f"X_source has the columns {names} but X_target has {target_names}; both must "
            f"have the same columns in the same order: {remedy}."
        )
    return rows, target


def check_domain(domain: Any) -> None:
    """Raise unless it is a place that rows come from."""
    if not isinstance(domain, str) or domain not in ("source", "target"):
        raise ValueError(f'domain must be "source" or "target", got {domain!r}.')


def as_given(rows: NDArray, X: Any) -> Any:
    """Return rows as a tensor on the device of X, in its precision, if X is one."""
    if not isinstance(X, Tensor):
        return rows
    return torch.from_numpy(rows).to(X.device, X.dtype if X.is_floating_point() else None)


def _to_numpy(X: Any) -> Any:
    """Bring a tensor of any device and dtype to numpy; leave anything else."""
    if not isinstance(X, Tensor):
        return X
    if X.layout != torch.strided:
        raise TypeError("Sparse tensors are not supported: pass X.to_dense().")
    X = X.detach().cpu().resolve_conj().resolve_neg()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()


def _check_numeric(rows: NDArray) -> None:
    """Raise for text and dates, which numpy would turn into numbers where it can."""
    texts = rows.dtype == object and any(isinstance(entry, str | bytes) for entry in rows.flat)
    if rows.dtype.kind not in "biufO" or texts:
        kind = "text" if texts else f"dtype {rows.dtype}"
        raise ValueError(
            f"Expected numeric values, got {kind}; convert numbers with astype(float) and encode "
            "categories."
        )


def _check_finite(rows: NDArray) -> None:
    if np.isnan(rows).any():
        raise ValueError("It contains NaN; impute missing values, or drop their rows.")
    if np.isinf(rows).any():
        raise ValueError("It contains infinity; clip such values, or drop their rows.")


def _find_target(y: Any, X_target: Any) -> Any:
    if X_target is None and y is None:
        raise ValueError(
            "The target is missing. Pass it as second array, fit(X_source, X_target), or by "
            'name, X_target=...; to generate from noise, set source="gaussian" and pass the '
            "data alone."
        )
    target = y if X_target is None else X_target
    if len(_shape(target)) == 1:
        raise ValueError(
            f"The target has shape {_shape(target)}: it looks like labels, but it must be an "
            "array of shape (n_samples, n_features). Pass the points to reach as X_target=..., "
            'or set source="gaussian" to generate from noise.'
        )
    return target


def _shape(X: Any) -> tuple[int, ...]:
    """Shape of an array or of nested lists; that of a ragged list is left to be complained of."""
    if isinstance(X, list | tuple):
        try:
            return np.shape(X)
        except ValueError:
            return ()
    return tuple(getattr(X, "shape", ()))


def read_layout(sampler: Any, X: Any) -> dict[str, Any]:
    """Return `n_features_in_` and, of a dataframe, `feature_names_in_`."""
    reader = type(sampler)()
    validate_data(reader, X, skip_check_array=True)
    return keep_layout(reader)


def keep_layout(sampler: Any) -> dict[str, Any]:
    """Return the layout that a sampler was fitted with."""
    names = ("n_features_in_", "feature_names_in_")
    return {name: vars(sampler)[name] for name in names if name in vars(sampler)}


def _column_names(sampler: Any, X: Any) -> list[str]:
    """Names of the columns of a dataframe; none for anything else."""
    return list(read_layout(sampler, X).get("feature_names_in_", []))
