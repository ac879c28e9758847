"""How far a generated sample is from its target: distances, and a classifier's verdict."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances, pairwise_distances_chunked, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.metadata_routing import MetadataRequest

from sknsgf import sinkhorn
from sknsgf._arguments import check_number, check_positive, check_size, shown
from sknsgf._arrays import check_rows, check_same_columns, check_same_width, column_names
from sknsgf._random import as_random_state

__all__ = [
    "energy_distance",
    "make_transport_scorer",
    "sinkhorn_divergence",
    "two_sample_auc",
    "w2_distance",
]

_BLOCK = 16  # MiB of distances at a time: about what a cache holds


def w2_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""Exact 2-Wasserstein distance between two clouds with uniform weights.

    .. math:: W_2(X, Y) = \Bigl(\min_\pi \sum_{ij} \pi_{ij} \|x_i - y_j\|^2\Bigr)^{1/2}

    over the couplings :math:`\pi` of the two clouds. This is the distance, not its square, and
    its cost carries no factor one half.

    Parameters
    ----------
    X : array-like of shape (n, d)
        One cloud.
    Y : array-like of shape (m, d)
        The other cloud, in the same space and units.

    Returns
    -------
    float
        Distance, in the units of the clouds.

    Raises
    ------
    TypeError, ValueError
        If the clouds differ in their columns, hold what is no number or not finite, or are sparse.

    Notes
    -----
    Two independent draws from *one* distribution lie far apart under W2 (about 0.6 for 1024
    points of :func:`~sknsgf.datasets.make_8gaussians`). Report this floor beside every figure,
    or use :func:`energy_distance`, whose floor is zero. Memory grows as n·m, time faster.

    Examples
    --------
    >>> from sknsgf.metrics import w2_distance
    >>> w2_distance([[0.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [0.0, 2.0]])
    2.0
    """
    ot = _import_pot()
    (x, y), unit = _in_units(*_check_clouds(X, Y))
    cost = pairwise_distances(x, y, metric="sqeuclidean")
    # POT compares costs with fixed roundings: those of most pairs, not of an outlier, count.
    cost_unit = max(int(np.frexp(np.median(cost) or cost.max())[1]), -900)
    cost = np.ldexp(cost, -cost_unit)
    # The default iteration limit of POT stops short of the optimum from about 5000 points on.
    squared = np.ldexp(ot.emd2([], [], cost, numItermax=10**7), cost_unit)
    return _out_of_units(np.sqrt(squared), unit)


def energy_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""Energy distance between two distributions, estimated without bias from samples.

    .. math:: 2\,E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    with the mean over pairs of *different* rows within each cloud, so that the estimate
    averages to zero when both come from one distribution. It can therefore be negative.

    Parameters
    ----------
    X : array-like of shape (n, d)
        One sample, of at least two rows.
    Y : array-like of shape (m, d)
        The other sample, of at least two rows, in the same space and units.

    Returns
    -------
    float
        Estimate, in the units of the samples.

    Raises
    ------
    TypeError, ValueError
        If the samples differ in their columns, have a single row, hold what is no number or not
        finite, or are sparse.

    Notes
    -----
    Distances are summed over blocks of rows of 16 MiB, or of the ``working_memory`` of
    :func:`sklearn.set_config` where that is less, so memory grows with n + m only.

    References
    ----------
    Székely, Rizzo, "Energy statistics: A class of statistics based on distances", Journal of
    Statistical Planning and Inference 143, 2013.

    Examples
    --------
    >>> from sknsgf.metrics import energy_distance
    >>> energy_distance([[0.0], [1.0]], [[3.0], [4.0]])
    4.0
    """
    (x, y), unit = _in_units(*_check_clouds(X, Y, min_samples=2))
    n, m = len(x), len(y)
    # Distances come from an expansion of the square, which is exact only near the origin.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    between = _sum_of_distances(x, y) / (n * m)
    within_x = _sum_of_distances(x, x) / (n * (n - 1))
    within_y = _sum_of_distances(y, y) / (m * (m - 1))
    return _out_of_units(2 * between - within_x - within_y, unit)


def sinkhorn_divergence(X: ArrayLike, Y: ArrayLike, *, blur: float, tol: float = 1e-3) -> float:
    r"""Sinkhorn divergence between two clouds with uniform weights.

    .. math:: S_\varepsilon(X, Y) = OT_\varepsilon(X, Y)
              - \tfrac12 OT_\varepsilon(X, X) - \tfrac12 OT_\varepsilon(Y, Y)

    for the cost :math:`\tfrac12\|x - y\|^2` and :math:`\varepsilon = \text{blur}^2`. From
    :math:`\tfrac12 W_2^2` at small blur to half the squared distance of the means at large blur.

    Parameters
    ----------
    X : array-like of shape (n, d)
        One cloud.
    Y : array-like of shape (m, d)
        The other cloud, in the same space and units.
    blur : float
        Length below which details are not resolved, in the units of the clouds.
    tol : float, default=1e-3
        Largest accepted marginal error of the solver.

    Returns
    -------
    float
        Divergence, in squared units of the clouds; zero for equal clouds.

    Raises
    ------
    TypeError, ValueError
        If the clouds differ in their columns, hold what is no number or not finite, or are
        sparse; if `blur` or `tol` is not a positive number.

    Warns
    -----
    ConvergenceWarning
        If the solver did not reach `tol`.

    References
    ----------
    Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences",
    AISTATS 2019.

    Examples
    --------
    >>> from sknsgf.metrics import sinkhorn_divergence
    >>> round(sinkhorn_divergence([[0.0, 0.0]], [[0.0, 2.0]], blur=0.5), 6)
    2.0
    """
    check_positive(blur, "blur")
    check_positive(tol, "tol")
    (x, y, own_blur), unit = _in_units(*_check_clouds(X, Y), np.float64(blur))
    result = sinkhorn.sinkhorn_divergence(
        torch.from_numpy(x), torch.from_numpy(y), blur=float(own_blur), tol=tol
    )
    if not result.converged:
        warnings.warn(
            f"The Sinkhorn solver stopped at a marginal error of {result.marginal_error:.1e} "
            f"instead of {tol:.1e}: the divergence is approximate. Raise blur ({blur:g}) or tol.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return _out_of_units(float(result.value), 2 * unit)


def two_sample_auc(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    classifier: Any = None,
    n_splits: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """How well a classifier tells the rows of one sample from those of another.

    Parameters
    ----------
    X : array-like of shape (n, d)
        One sample, of at least `n_splits` rows.
    Y : array-like of shape (m, d)
        The other sample, of at least `n_splits` rows, in the same space.
    classifier : estimator with ``decision_function``, default=None
        What tells them apart. None takes a support vector machine with a radial kernel on
        standardised columns: smooth, so that rounding and exact zeros in one of the samples
        are not all it looks at.
    n_splits : int, default=5
        Folds of the cross-validation.
    random_state : int, RandomState or None, default=None
        Seed of the folds.

    Returns
    -------
    float
        Area under the ROC curve on held-out rows: about 0.5 if the samples cannot be told
        apart, 1 if they always can.

    Raises
    ------
    TypeError, ValueError
        If the samples differ in their columns, are too small, hold what is no number or not
        finite, or are sparse; if another argument cannot be used.

    Notes
    -----
    A generator that repeats its training rows also scores 0.5: look at nearest-neighbour
    distances to the training data as well. A column that is constant in one sample and not in
    the other gives them away, however small the difference: columns are standardised.

    References
    ----------
    Lopez-Paz, Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.

    Examples
    --------
    >>> from sknsgf.metrics import two_sample_auc
    >>> low, high = [[0.0], [1.0], [2.0]], [[7.0], [8.0], [9.0]]
    >>> two_sample_auc(low, high, n_splits=3, random_state=0)
    1.0
    """
    x, y = _check_clouds(X, Y, min_samples=check_size(n_splits, "n_splits", least=2))
    if classifier is not None and not hasattr(classifier, "decision_function"):
        raise TypeError(
            "classifier must be an estimator with decision_function, got "
            f"{shown(classifier)}: pass None or, for instance, sklearn.svm.SVC()."
        )
    rows, labels = np.concatenate([x, y]), np.repeat([0, 1], [len(x), len(y)])
    classifier = (
        make_pipeline(StandardScaler(), SVC(random_state=0)) if classifier is None else classifier
    )
    folds = StratifiedKFold(n_splits, shuffle=True, random_state=as_random_state(random_state))
    held_out = cross_val_predict(classifier, rows, labels, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, held_out))


def make_transport_scorer(
    metric: Callable[..., float],
    *,
    greater_is_better: bool = False,
    optimum: float | None = None,
    **parameters: Any,
) -> TransportScorer:
    """Make a scorer, for `scoring` of searches and cross-validation, from a two-sample metric.

    Parameters
    ----------
    metric : callable
        ``metric(moved, target, **parameters)`` of two clouds, such as the functions of this
        module.
    greater_is_better : bool, default=False
        Whether the clouds are closer the larger the metric is. If not, as for distances, the
        score is minus the metric.
    optimum : float, default=None
        Value of the metric for equal distributions, if values on either side of it are worse.
        The score is then minus the distance to it. The AUC of a classifier has the optimum 0.5:
        copies of the training rows push it below.
    **parameters
        Further arguments of `metric`, such as `blur` or `random_state`.

    Returns
    -------
    TransportScorer
        Called as ``scorer(sampler, X_source, X_target)`` or, with the target by name,
        ``scorer(sampler, X_source, X_target=X_target)``; for a sampler with a given `source`,
        ``scorer(sampler, X)``. Higher is better.

    Raises
    ------
    TypeError
        If `metric` cannot be called or `optimum` is no number; on scoring, if the estimator is no
        sampler of this package.
    ValueError
        If both `greater_is_better` and `optimum` are given, or one of them cannot be used.

    Warns
    -----
    UserWarning
        When called with the target rows that were fitted and other source rows: see the notes
        on searches in :meth:`NSGFSampler.score <sknsgf.NSGFSampler.score>`.

    Notes
    -----
    A pipeline is judged in the units of its last step, the sampler: `X_target` goes through the
    earlier steps if `transform_input` names it, as in ``Pipeline.fit``, and ``y`` does not.
    The scorer asks for a routed `X_target` by itself; no request needs to be set.

    The metric sees data units (those of the sampler's step). Do not choose `blur` by a Sinkhorn
    divergence whose own `blur` changes with it, and mind the floors: see the metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.metrics import energy_distance, make_transport_scorer
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> search = GridSearchCV(
    ...     NSGFSampler(random_state=0),
    ...     {"max_iter": [1, 200]},
    ...     scoring=make_transport_scorer(energy_distance),
    ...     cv=2,
    ... )
    >>> search.fit(X, X + 10).best_params_
    {'max_iter': 200}
    """
    if not callable(metric):
        raise TypeError(f"metric must be a function of two clouds, got {metric!r}.")
    if not isinstance(greater_is_better, bool | np.bool_):
        raise ValueError(
            f"greater_is_better must be True or False, got {shown(greater_is_better)}."
        )
    if optimum is not None:
        check_number(optimum, "optimum")
    if greater_is_better and optimum is not None:
        raise ValueError("greater_is_better and optimum exclude each other: pass one of them.")
    return TransportScorer(metric, greater_is_better, optimum, parameters)


class TransportScorer:
    """A two-sample metric as a scorer; made by `make_transport_scorer`."""

    def __init__(
        self,
        metric: Callable[..., float],
        greater_is_better: bool,
        optimum: float | None,
        parameters: dict[str, Any],
    ):
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.optimum = optimum
        self.parameters = parameters

    def __call__(
        self,
        estimator: Any,
        X_source: ArrayLike,
        y: Any = None,
        *,
        X_target: ArrayLike | None = None,
    ) -> float:
        """Judge a fitted sampler, or a pipeline or search that ends in one, on held-out rows."""
        estimator = getattr(estimator, "best_estimator_", estimator)
        if isinstance(estimator, Pipeline):
            estimator, X_source, X_target = _enter_last_step(estimator, X_source, X_target)
        if not hasattr(estimator, "evaluate"):
            raise TypeError(
                f"{type(estimator).__name__} cannot be judged by {self}: expected a sampler, such "
                "as NSGFSampler, or a pipeline or search that ends in one."
            )
        metric = partial(self.metric, **self.parameters)
        value = estimator.evaluate(metric, X_source, y, X_target=X_target)
        if self.optimum is not None:
            return -abs(value - self.optimum)
        return value if self.greater_is_better else -value

    def __repr__(self) -> str:
        options: dict[str, Any] = {"greater_is_better": True} if self.greater_is_better else {}
        if self.optimum is not None:
            options["optimum"] = self.optimum
        words = [f"{name}={value!r}" for name, value in {**options, **self.parameters}.items()]
        name = getattr(self.metric, "__name__", repr(self.metric))
        return f"make_transport_scorer({', '.join([name, *words])})"

    def get_metadata_routing(self) -> MetadataRequest:
        """Ask for `X_target` where metadata is routed."""
        request = MetadataRequest(owner=type(self).__name__)
        request.score.add_request(param="X_target", alias=True)
        return request


def _enter_last_step(
    pipeline: Pipeline, X_source: Any, X_target: Any
) -> tuple[Any, ArrayLike, ArrayLike | None]:
    """Bring both arrays to the last step, on the ways that they take there in `fit`."""
    if len(pipeline) > 1:
        X_source = pipeline[:-1].transform(X_source)
        if X_target is not None and "X_target" in (pipeline.transform_input or ()):
            X_target = pipeline[:-1].transform(X_target)
    return pipeline[-1], X_source, X_target


def _check_clouds(
    X: ArrayLike, Y: ArrayLike, min_samples: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (check_rows(cloud, name, min_samples) for cloud, name in ((X, "X"), (Y, "Y")))
    check_same_width(x, y, "X", "Y")
    check_same_columns(column_names(X, "X"), column_names(Y, "Y"), "X", "Y")
    return x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)


def _import_pot() -> Any:
    """Import POT, and with it JAX where that is installed.

    JAX draws from numpy's global generator when it is imported, which is then put back.
    """
    before = None if "jax" in sys.modules else np.random.get_state(legacy=False)  # noqa: NPY002
    import ot

    if before is not None and "jax" in sys.modules:
        np.random.set_state(before)  # noqa: NPY002
    return ot


def _in_units(*values: Any) -> tuple[list[Any], int]:
    """Values in units of a power of two near the largest, and its exponent: without rounding."""
    exponent = max(int(np.frexp(np.abs(value).max())[1]) for value in values)
    return [np.ldexp(value, -exponent) for value in values], exponent


def _out_of_units(value: float, exponent: int) -> float:
    with np.errstate(over="ignore"):
        value = float(np.ldexp(value, exponent))
    if not np.isfinite(value):
        raise ValueError("Clouds so large lie further apart than float64 can say: rescale them.")
    return value


def _sum_of_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    memory = min(_BLOCK, get_config()["working_memory"])
    blocks = pairwise_distances_chunked(x, y, working_memory=memory)
    return float(sum(block.sum() for block in blocks))
