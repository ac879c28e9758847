"""Warnings, all their sentences: they point at the user's line, however deep their cause."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sknsgf.flow import Status
from sknsgf.samplers._units import NEAR, Units, measure
from sknsgf.training import TrainingHistory, TrainingStatus

_INSIDE = ("sknsgf", "sklearn", "joblib")
_FAR = 10  # times the median distance from the mean that the root mean square may be
_UNSOLVED = 0.01  # share of the transport problems
_UNEQUAL = 30  # times the range of a narrow column that the widest may have
_FEW = 20  # rows
_HEAVY = 0.3  # share of the rows with one value, beyond that in the target
_MOVED = 0.25  # share of the target's variance in columns with such values
_LOOKED_AT = 5000  # rows
_AWAY = 10  # scales that data may be from where it was, or wide


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn about the line, outside this package and scikit-learn, that set things off."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_of_data(
    source: NDArray | None, target: NDArray, units: Units, names: Sequence[str], images: bool
) -> None:
    """Tell the user what of their data a flow cannot learn as it is, and what to do."""
    names = names or [f"column {j}" for j in range(target.shape[1])]
    if min(len(target), len(target if source is None else source)) < _FEW:
        counts = f"{len(target)} rows of the target"
        counts += "" if source is None else f" and {len(source)} of the source"
        warn_user(
            f"There are {counts}: fewer than {_FEW} say little of what lies between them, and "
            "where new rows are moved is a guess. Pass more rows, or move those fitted alone."
        )
    warn_outliers(target, units)
    if not images:
        warn_unequal_columns(target, names)
    if source is not None:
        warn_atoms(source, target, names)


def warn_unequal_columns(target: NDArray, names: Sequence[str]) -> None:
    """Tell the user if a few columns are so wide that the others count for nothing."""
    ranges = np.ptp(target.astype(np.float64), axis=0)
    varied = np.flatnonzero(ranges)
    if not len(varied):
        return
    widest = varied[ranges[varied].argmax()]
    # Of many columns, as of images, some hardly ever vary.
    narrow = np.quantile(ranges[varied], 0.1, method="lower")
    if ranges[widest] / narrow > _UNEQUAL:
        warn_user(
            f"Columns of the target differ in range by a factor of {ranges[widest] / narrow:.2g}: "
            f"distances are those of the widest, {names[widest]}, and the narrow ones are "
            "blurred. Scale both clouds first, with a StandardScaler fitted to the target; a "
            "pipeline does so, and its inverse_transform brings samples back."
        )


def warn_atoms(source: NDArray, target: NDArray, names: Sequence[str]) -> None:
    """Tell the user if source rows are alike where the target varies: no map parts them."""
    source, target = (rows[:: max(1, len(rows) // _LOOKED_AT)] for rows in (source, target))
    heaviest = [[np.unique(c, return_counts=True)[1].max() for c in x.T] for x in (source, target)]
    shares = [np.divide(h, len(x)) for h, x in zip(heaviest, (source, target), strict=True)]
    heavy = shares[0] - shares[1] > _HEAVY
    spread = np.square((target - target.mean(0)) / (np.abs(target).max() or 1)).mean(0)
    if spread[heavy].sum() > _MOVED * spread.sum():
        first = int(np.flatnonzero(heavy)[0])
        warn_user(
            f"{heavy.sum()} of {len(heavy)} columns of the source hold one value in many rows, "
            f"{names[first]} in {shares[0][first]:.0%} of them, where the target varies. Equal "
            "points cannot be moved apart, so that moved rows vary too little there. Add noise to "
            'such columns, leave them out, or generate from source="gaussian".'
        )


def warn_outliers(target: NDArray, units: Units) -> None:
    """Tell the user if a few far rows, not the data, set the unit of length."""
    distances = np.linalg.norm((target - units.mean) / units.scale, axis=1)
    if np.sqrt(np.mean(distances**2)) > _FAR * np.median(distances) > 0:
        warn_user(
            f"The farthest target row is {distances.max() / np.median(distances):.0f} times as "
            "far from the mean as the median row: outliers set the scale, and everything "
            "nearer is blurred. Clip or remove them, or put a QuantileTransformer first.",
        )


def warn_unsolved(statuses: Mapping[str, Status]) -> None:
    """Tell the user if transport problems behind a stage stayed unsolved."""
    for stage, status in statuses.items():
        if status.share_unsolved > _UNSOLVED:
            warn_user(
                f"{status.share_unsolved:.0%} of the transport problems of the "
                f"{stage.replace('_', ' ')} stopped short of a marginal error of {status.tol:g} "
                f"(worst: {status.marginal_error:.2g}): their velocities are approximate. Raise "
                "blur, or remove far outliers from the data.",
                ConvergenceWarning,
            )


def warn_elsewhere(source: NDArray | None, target: NDArray, units: Units) -> None:
    """Tell the user that data to go on with has other units than those that were fitted."""
    clouds = {"target": (target, units.mean, _AWAY)}
    if source is not None:
        clouds["source"] = source, units.source_origin, _AWAY + NEAR
    for name, (rows, origin, most) in clouds.items():
        mean, scale = measure(rows)
        away, wide = np.abs(mean - origin).max() / units.scale, scale / units.scale
        if away > most or wide > _AWAY:
            warn_user(
                f"The {name} lies {away:.2g} scales from where it was at the first fit, and is "
                f"{wide:.2g} scales wide: the units of that fit stay, and what is so far away is "
                "not learned in them. Fit again with warm_start=False."
            )


def warn_diverged(stage: str, history: TrainingHistory, learning_rate: float) -> None:
    """Tell the user that training ended early, and what to do."""
    if history.status == TrainingStatus.DIVERGED:
        warn_user(
            f"{history.status.sentence} What the {stage.replace('_', ' ')} had learned before, in "
            f"{len(history.loss)} steps at most, is kept. Lower learning_rate={learning_rate:g} "
            "there, or remove far outliers from the data.",
            ConvergenceWarning,
        )


def warn_many_steps(n_steps: int, most: int, t_end: float) -> None:
    """Tell the user that a first phase costs what the second was to save."""
    warn_user(
        f"The first phase has n_steps={n_steps}; more than {most} are simulated and sampled at a "
        "cost that the second phase was to save. Use "
        f"sinkhorn_flow=NSGFSampler(n_steps=5, t_end={t_end:g}).",
    )


def warn_late(switch_time: float) -> None:
    """Tell the user that a first phase leaves nothing to be done."""
    warn_user(
        f"Half of the points enter the straight flow after t = {switch_time:.2f}, where little is "
        "left for it to do. Stop the first phase earlier: "
        "sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5).",
    )


def warn_repeated_rows(n_samples: int, n_rows: int) -> None:
    """Tell the user that samples will repeat."""
    warn_user(
        f"n_samples={n_samples} exceeds the {n_rows} source rows: some are used again and give "
        "repeated samples. Pass new source rows to transform, or fit with "
        'source="gaussian" to draw without limit.',
    )


def warn_left_out(names: list[str], cls: str) -> None:
    """Tell the user what a file does not hold."""
    warn_user(
        f"{', '.join(names)} cannot be held by a file without code: pass the same to "
        f"{cls}.load(path, {names[0]}=...).",
    )


def warn_seen_target() -> None:
    """Tell the user that a flow is judged by what it was fitted to."""
    warn_user(
        "X_target holds the very rows that fit has seen, X_source does not: the flow is "
        "judged on targets it was fitted to. scikit-learn splits X_target only if it is "
        "as long as X_source: shorten the longer of the two before the search, "
        "sklearn.utils.resample(X_target, n_samples=len(X_source), replace=False).",
    )


def warn_ignored_target() -> None:
    """Tell the user that a second array plays no part."""
    warn_user(
        "The second array is ignored: source is set, so the flow starts there and "
        "its target is the first array. To carry the first array to the second, "
        "set source=None.",
    )


def warn_taken_target() -> None:
    """Tell the user that what a regressor is to predict may have become the target."""
    warn_user(
        "y has two dimensions, so it was taken as the target: the flow carries X_source to it. If "
        "it is what a later step is to predict, pass the points to reach by name, X_target=...; "
        "if it is the target, say so, X_target=y.",
    )


def warn_moved_noise() -> None:
    """Tell the user that data are moved as if they were noise."""
    warn_user(
        "source is set, so this flow starts at noise, and fit_transform moves the rows of the "
        "data as if they were noise: what comes out is no longer the data. Use fit and sample to "
        "generate rows, in a pipeline as the last step; set source=None and pass X_target to "
        'carry one array to another; domain="target" leaves rows as they are.',
    )


def warn_approximate_score(marginal_error: float) -> None:
    """Tell the user that a score is not exact."""
    warn_user(
        f"The Sinkhorn divergence stopped at a marginal error of {marginal_error:.1e}: the score "
        "is approximate. Raise score_blur.",
        ConvergenceWarning,
    )


def warn_outside(share: float, most: float) -> None:
    """Tell the user that rows lie where a flow was never trained."""
    warn_user(
        f"{share:.0%} of the rows lie outside of the source that was fitted, more than {most:g} "
        "times as far out as it reaches: the flow knows nothing of them, and where they end says "
        'little. Fit with a source that covers them; rows of the target pass by domain="target".'
    )


def warn_not_reached(reached: Tensor, so: str = "what is returned leads elsewhere") -> None:
    """Tell the user of which rows a flow does not say where they came from."""
    warn_user(
        f"For {int((~reached).sum())} of {len(reached)} rows no source row was found that is "
        f"carried there: {so}. Far from all target rows there is none; elsewhere more "
        "max_iter makes smoother flows, and float64 rows are found more surely. "
        "inverse_transform(X, return_reached=True) tells which they are.",
        ConvergenceWarning,
    )


def warn_no_map(reached: Tensor, held: Tensor, folded: Tensor) -> None:
    """Tell the user where a flow is not one to one, and a density not the whole one."""
    if folded.any():
        warn_user(
            f"{float(folded.float().mean()):.1%} of the rows lie where the flow folds over "
            "itself: other source points are carried there too, and the density counts one. More "
            "max_iter, or a larger blur, make smoother flows."
        )
    if not reached.all():
        warn_user(
            f"For {int((~reached).sum())} of {len(reached)} rows no source point was found that "
            "is carried there: their log-density is -inf. Either they are off what the flow can "
            "reach, or the network is too rough for Newton's method: more max_iter makes it "
            "smoother.",
            ConvergenceWarning,
        )
    if held.any():
        warn_user(
            f"{int(held.sum())} of {len(held)} rows are reached only where velocities are held "
            "back at the edge of the target, and have no density of the flow: their log-density "
            "is -inf. More max_iter makes flows that end nearer the target rows.",
            ConvergenceWarning,
        )
