"""Which array is the source and which the target, and the columns they were fitted with."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from sknsgf._arrays import (
    check_rows,
    check_same_columns,
    check_same_width,
    column_names,
    is_frame,
    shape_of,
)
from sknsgf.samplers._warnings import warn_ignored_target


def check_source_and_target(
    sampler: Any,
    X_source: Any,
    y: Any,
    X_target: Any,
    *,
    method: str = "fit",
    min_samples: int = 1,
) -> tuple[NDArray | None, NDArray]:
    """Tell which argument is the source and which the target; None for a drawn source.

    `method` is what the user has called; all but `fit` hold the arrays to the columns fitted.
    """
    fitted = method != "fit"
    if sampler.source is not None:
        if X_target is not None:
            raise ValueError(
                "X_target was passed although source is set: the flow then starts from "
                "that source and its target is the first array. Pass the target first, "
                "or set source=None to start from an array."
            )
        if len(shape_of(y)) == 2 and shape_of(y)[1:] == shape_of(X_source)[1:] > (1,):
            warn_ignored_target()
        target = check_rows(X_source, "X", min_samples)
        if fitted:
            check_layout(sampler, X_source, target, "X")
        return None, target
    rows = check_rows(X_source, "X_source", min_samples)
    if fitted:
        check_layout(sampler, X_source, rows, "X_source")
    given = _find_target(y, X_target, method)
    target = check_rows(given, "X_target", min_samples)
    check_same_width(rows, target, "X_source", "X_target")
    names = getattr(sampler, "feature_names_in_", ()) if fitted else ()
    names = names if len(names) else column_names(X_source, "X_source")
    check_same_columns(names, column_names(given, "X_target"), "X_source", "X_target")
    return rows, target


def check_domain(domain: Any) -> None:
    """Raise unless it is a place that rows come from."""
    if not isinstance(domain, str) or domain not in ("source", "target"):
        raise ValueError(f'domain must be "source" or "target", got {domain!r}.')


def check_layout(sampler: Any, X: Any, rows: NDArray, name: str) -> None:
    """Raise unless rows have the columns that were fitted; warn if only names are missing."""
    try:
        validate_data(sampler, X if is_frame(X) else rows, reset=False, skip_check_array=True)
    except ValueError as error:
        raise ValueError(f"{name} has other columns than fitted. {error}") from error


def read_layout(sampler: Any, X: Any) -> dict[str, Any]:
    """Return `n_features_in_` and, of a dataframe, `feature_names_in_`."""
    reader = type(sampler)()
    validate_data(reader, X, skip_check_array=True)
    return keep_layout(reader)


def keep_layout(sampler: Any) -> dict[str, Any]:
    """Return the layout that a sampler was fitted with."""
    names = ("n_features_in_", "feature_names_in_")
    return {name: vars(sampler)[name] for name in names if name in vars(sampler)}


def _find_target(y: Any, X_target: Any, method: str) -> Any:
    if X_target is None and y is None:
        remedy = '; to generate from noise, set source="gaussian" and pass the data alone'
        raise ValueError(
            f"The target is missing. Pass it as second array, {method}(X_source, X_target), or by "
            f"name, X_target=...{remedy if method == 'fit' else ''}."
        )
    target = y if X_target is None else X_target
    if len(shape_of(target)) == 1:
        raise ValueError(
            f"The target has shape {shape_of(target)}: it looks like labels, but it must be an "
            "array of shape (n_samples, n_features). Pass the points to reach as X_target=..., "
            'or set source="gaussian" to generate from noise.'
        )
    return target
