"""How good a fitted flow is: a score, any metric, and what an inverse loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sknsgf.flow import Rows, seeded_generator
from sknsgf.samplers._moving import MovingMixin
from sknsgf.samplers._parameters import resolve_blur
from sknsgf.samplers._roles import check_source_and_target
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import (
    warn_approximate_score,
    warn_not_reached,
    warn_seen_target,
)
from sknsgf.sinkhorn import sinkhorn_divergence


class JudgingMixin(MovingMixin):
    """Methods of a sampler that compare what it moves, or draws, with the target."""

    score_blur: float | str
    source_: Any
    _score_seed: int
    _validate_params: Callable[[], None]
    _check_rows: Callable[[Any], NDArray]
    _make_samples: Callable[[Tensor, np.dtype], NDArray]

    def score(self, X_source: ArrayLike, y: Any = None, *, X_target: Any = None) -> float:
        """Minus the Sinkhorn divergence between moved source rows and target rows.

        Parameters
        ----------
        X_source : array-like of shape (n_samples, n_features)
            Held-out source rows; held-out target rows where `source` is given.
        y : array-like, default=None
            Held-out target rows, as in `fit`.
        X_target : array-like of shape (n_target, n_features), default=None
            Held-out target rows, as in `fit`.

        Returns
        -------
        float
            Score, higher is better, at best about zero; in squared standardised units. The
            ruler is `score_blur`, whatever `blur` the flow was fitted with.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        TypeError, ValueError
            If the arrays are unusable, as in `fit`.

        Warns
        -----
        UserWarning
            If the target rows are those of `fit` while the source rows are not: the flow is
            then judged on targets it has seen.
        ConvergenceWarning
            If the divergence is approximate.

        See Also
        --------
        evaluate : Any other metric, in data units.
        sknsgf.metrics.make_transport_scorer : The same as `scoring` of a search.

        Notes
        -----
        In searches and cross-validation, scikit-learn splits the target along with the source
        only if both have the same number of rows: as `y` other lengths are refused, as a routed
        `X_target` they are passed **whole** to `fit` and `score`, and every fold is judged on
        target rows that were fitted (there is a warning). Draw rows from the longer array
        first, ``sklearn.utils.resample(X_target, n_samples=len(X_source), replace=False)``, and
        refit the best parameters on everything.

        A pipeline hands ``X_target`` to `score` as it came, not through its earlier steps, even
        where `transform_input` lists it. Search over a pipeline with
        :func:`~sknsgf.metrics.make_transport_scorer`, which takes both the same way.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> bool(flow.score(X, X + 10) > flow.score(X, X + 20))
        True
        """
        moved, target = self._moved_and_target(X_source, y, X_target, "score")
        blur = resolve_blur(self.score_blur, moved.shape[1])
        clouds = (self._units.inward(rows, torch.float64) for rows in (moved, target))
        result = sinkhorn_divergence(*clouds, blur=blur)
        if not result.converged:
            warn_approximate_score(float(result.marginal_error))
        return -float(result.value)

    def evaluate(
        self,
        metric: Callable[[NDArray, NDArray], float],
        X_source: ArrayLike,
        y: Any = None,
        *,
        X_target: Any = None,
    ) -> float:
        """Judge the flow by a distance between moved source rows and target rows.

        Parameters
        ----------
        metric : callable
            Takes two arrays, of shapes (n_samples, n_features) and (n_target, n_features) in
            data units, such as the functions of :mod:`sknsgf.metrics`.
        X_source : array-like of shape (n_samples, n_features)
            Held-out source rows; held-out target rows where `source` is given, which are then
            compared with as many samples.
        y : array-like, default=None
            Held-out target rows, as in `fit`.
        X_target : array-like of shape (n_target, n_features), default=None
            Held-out target rows, as in `fit`.

        Returns
        -------
        float
            What `metric` returns.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        TypeError
            If `metric` cannot be called.
        TypeError, ValueError
            If the arrays are unusable, as in `fit`.

        Warns
        -----
        UserWarning
            If the target rows are those of `fit` while the source rows are not.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> from sknsgf.metrics import w2_distance
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> flow.evaluate(w2_distance, X, X + 10) < 0.5
        True
        """
        if not callable(metric):
            raise TypeError(f"metric must be a function of two clouds, got {metric!r}.")
        moved, target = self._moved_and_target(X_source, y, X_target, "evaluate")
        return metric(moved, target)

    def round_trip_error(self, X: ArrayLike) -> NDArray:
        """Tell how far `inverse_transform` ends from points that `transform` has moved.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points of the source distribution.

        Returns
        -------
        ndarray of shape (n_samples,)
            Distances between `X` and ``inverse_transform(transform(X))``, in data units. The
            spread of the source is what to compare them with. Rows whose way back was not found
            are left out, and the array is shorter by so many.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Warns
        -----
        ConvergenceWarning
            If rows are left out, with their number.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> bool(np.median(flow.round_trip_error(X)) < 0.1)
        True
        """
        x = self._from_source(self._check_rows(X))
        back, reached = self._move_back(self._move(x))
        if not reached.all():
            warn_not_reached(reached, "they are left out")
        return (back - x)[reached].norm(dim=1).double().numpy() * self.scale_

    def _moved_and_target(
        self, X_source: Any, y: Any, X_target: Any, method: str
    ) -> tuple[NDArray, NDArray]:
        """Return the clouds to compare: moved rows, or samples, and target rows."""
        check_is_fitted(self)
        self._validate_params()
        rows, target = check_source_and_target(self, X_source, y, X_target, method=method)
        if rows is None:
            x = self.source_.draw(len(target), seeded_generator(self._score_seed, 0))
            return self._make_samples(x, target.dtype), target
        x = self._from_source(rows)
        if isinstance(self.source_, Rows):
            self._warn_of_seen_target(x, self.source_.x, target)
        return self._units.outward(self._move(x), target.dtype, self._way_left()), target

    def _warn_of_seen_target(self, x: Tensor, seen: Tensor, target: NDArray) -> None:
        """Tell the user if only the source was held out, as when a search cannot split both."""
        same_source = len(seen) == len(x) and torch.allclose(seen, x.float(), atol=1e-5)
        mean, scale, _ = Units.of(target)
        offset = np.abs(mean - self.mean_).max() + abs(scale - self.scale_)
        if offset < 1e-9 * self.scale_ and not same_source:
            warn_seen_target()
