"""What every sampler shares: arrays in, arrays out, and the methods users call."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, InvalidParameterError, Options
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sknsgf._persistence import read_archive, refusing, write_archive
from sknsgf.flow import seeded_generator
from sknsgf.ode import Solution
from sknsgf.samplers._saving import Packer, Unpacker, find_left_out
from sknsgf.samplers._source import GaussianNoise, Rows, Source, UserSource, is_finite
from sknsgf.samplers._stages import CallbackSupportMixin
from sknsgf.samplers._students import find_device
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import warn_user
from sknsgf.sinkhorn import sinkhorn_divergence

_FLOATS = (np.float64, np.float32)
_CHUNK_ENTRIES = 2**24  # numbers a batch of trajectories may hold: 64 MB in float32
_CHUNK_ROWS = 2**13
_NO_COLUMNS = np.empty(0, dtype=np.int64)
_FAR = 10  # times the median distance from the mean that the root mean square may be


class Trajectory(NamedTuple):
    """States along the flow.

    Attributes
    ----------
    states : ndarray of shape (n_times, n_samples, n_features)
        Rows at each time, in data units; the first are the rows passed in.
    times : ndarray of shape (n_times,) or (n_times, n_samples)
        Times, from 0 (source) to the end of the flow. Of an NSGFPlusPlus those of every row, in
        two stretches: along the first phase, then along the straight flow, whose times are its
        own, from where the row enters to 1. The state between them is there twice.
    nfe : int
        Network evaluations a row took; with steps of one length the most that any row took.
    """

    states: NDArray
    times: NDArray
    nfe: int


class _FitTransformMixin:
    # Outside of BaseFlowSampler: scikit-learn wraps the methods of a transformer's own class for
    # set_output and calls them with the first argument by position. `transform` is wrapped.
    def fit_transform(
        self: Any,
        X_source: ArrayLike,
        y: ArrayLike | None = None,
        *,
        X_target: ArrayLike | None = None,
        domain: str = "source",
    ) -> Any:
        """Fit the flow, then move the source rows it was fitted to.

        Parameters
        ----------
        X_source : array-like of shape (n_source, n_features)
            Samples of the source, as in `fit`.
        y : array-like of shape (n_target, n_features), default=None
            Samples of the target, as in `fit`.
        X_target : array-like of shape (n_target, n_features), default=None
            Samples of the target, as in `fit`.
        domain : {"source", "target"}, default="source"
            Where the rows to move come from, as in `transform`.

        Returns
        -------
        ndarray, dataframe or Tensor of shape (n_source, n_features)
            ``fit(X_source, y, X_target=X_target).transform(X_source, domain=domain)``.

        Raises
        ------
        ValueError
            If a parameter or an array cannot be used.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> NSGFSampler(max_iter=50).fit_transform(X, X_target=X + 10).shape
        (200, 2)
        """
        _check_domain(domain)
        given = {} if X_target is None else {"X_target": X_target}
        return self.fit(X_source, y, **given).transform(X_source, domain=domain)


class BaseFlowSampler(
    _FitTransformMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    BaseEstimator,
    CallbackSupportMixin,
):
    """Arrays, units and the source; subclasses fit a flow and integrate it."""

    # X_source is data, never routed. X_target and domain mean nothing to any other estimator,
    # so that a pipeline may hand them over unasked; but a pipeline transforms X_target for fit
    # alone, hence score has to be asked for by set_score_request.
    __metadata_request__fit: ClassVar = {"X_source": UNUSED, "X_target": True}
    __metadata_request__partial_fit: ClassVar = {"X_source": UNUSED, "X_target": True}
    __metadata_request__transform: ClassVar = {"domain": True}
    __metadata_request__score: ClassVar = {"X_source": UNUSED}

    # Attributes that make a fitted sampler, and what they may be.
    _fitted: ClassVar[dict[str, list[Any]]] = {
        "n_features_in_": [Interval(Integral, 1, None, closed="left")],
        "feature_names_in_": [np.ndarray],
        "mean_": [np.ndarray],
        "scale_": [Interval(Real, 0, None, closed="neither")],
        "source_": [Rows, GaussianNoise, UserSource],
        "device_": [torch.device],
        "n_iter_": [Interval(Integral, 0, None, closed="left")],
        "_constant": [np.ndarray],
        "_dtype": [Options(np.dtype, {np.dtype(kind) for kind in _FLOATS})],
        "_score_seed": [Interval(Integral, 0, None, closed="left")],
    }
    _parts: ClassVar[tuple[type, ...]] = ()  # estimators it may hold
    _constant: NDArray[np.int64] = _NO_COLUMNS  # in files from before there was any

    source: Any
    random_state: Any
    score_blur: float | str
    verbose: int
    warm_start: bool

    @abstractmethod
    def _fit(self, X_source: Any, y: Any, X_target: Any, *, goes_on: bool) -> Self:
        """Fit, from the start or from where the last fit ended."""

    @abstractmethod
    def _integrate(self, x: Tensor, *, backward: bool = False) -> Solution:
        """Carry standardised rows along the fitted flow."""

    def fit(
        self, X_source: ArrayLike, y: ArrayLike | None = None, *, X_target: ArrayLike | None = None
    ) -> Self:
        """Learn the flow from the source to the target.

        Parameters
        ----------
        X_source : array-like of shape (n_source, n_features)
            Samples of the source; of the target where `source` is given.
        y : array-like of shape (n_target, n_features), default=None
            Samples of the target. Ignored (labels, say) if `X_target` or `source` is given.
        X_target : array-like of shape (n_target, n_features), default=None
            Samples of the target, by name: the form for pipelines.

        Returns
        -------
        self : NSGFSampler or NSGFPlusPlus
            The fitted sampler.

        Raises
        ------
        ValueError
            If a parameter or an array cannot be used. The sampler is then left as it was.

        Warns
        -----
        ConvergenceWarning
            If transport problems stayed unsolved or training diverged, with the remedy.
        UserWarning
            If outliers set the scale of the data; from an NSGFPlusPlus also if its phases do not
            share the work.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(300, 2)), rng.uniform(size=(400, 2))
        >>> NSGFSampler(max_iter=100).fit(X, Y).transform(X).shape
        (300, 2)
        """
        return self._fit(X_source, y, X_target, goes_on=self.warm_start)

    def partial_fit(
        self, X_source: ArrayLike, y: ArrayLike | None = None, *, X_target: ArrayLike | None = None
    ) -> Self:
        """Go on fitting, with the same data or with more.

        The networks are trained for `max_iter` further steps, on new simulations of the data
        given. The first call is a `fit`.

        Parameters
        ----------
        X_source : array-like of shape (n_source, n_features)
            Samples of the source; of the target where `source` is given.
        y : array-like of shape (n_target, n_features), default=None
            Samples of the target, as in `fit`.
        X_target : array-like of shape (n_target, n_features), default=None
            Samples of the target, by name.

        Returns
        -------
        self : NSGFSampler or NSGFPlusPlus
            The fitted sampler.

        Raises
        ------
        ValueError
            If a parameter or an array cannot be used, if the rows have another width than those
            before, or if the parameters describe another network. The sampler is then left as
            it was.

        Notes
        -----
        What the networks know is kept, and with it the units it is in: `mean_` and `scale_` stay
        those of the first fit, so that data that has moved far from there wants a new `fit`.
        What is not kept: the optimiser's state, as the learning rate rises and falls once in
        every call, and the data of earlier calls. The last source rows are those `sample`
        starts from.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> rng = np.random.default_rng(0)
        >>> flow = NSGFSampler(source="gaussian", max_iter=50, random_state=0)
        >>> for batch in range(3):
        ...     flow = flow.partial_fit(rng.normal(loc=5, size=(500, 2)))
        >>> flow.n_iter_
        150
        """
        return self._fit(X_source, y, X_target, goes_on=True)

    def _to_be_fitted(
        self, X_source: Any, target: NDArray, device: torch.device, *, goes_on: bool
    ) -> Self:
        """Copy the estimator for `fit` to fill in, which then changes whole or not at all."""
        copied = copy.copy(self)
        if not goes_on:
            for name in self._fitted:
                copied.__dict__.pop(name, None)
            validate_data(copied, X_source, skip_check_array=True)
        copied._dtype, copied.device_ = target.dtype, device
        return copied

    def _become(self, fitted: Self) -> None:
        self.__dict__.pop("feature_names_in_", None)  # the one that not every fit sets
        self.__dict__.update(fitted.__dict__)

    def _check_goes_on(self, X_source: Any) -> None:
        """Raise unless the rows are of the kind that was fitted."""
        try:
            validate_data(self, X_source, reset=False, skip_check_array=True)
        except ValueError as error:
            raise ValueError(
                f"{error} Fitting goes on with the network there is; fit again with "
                "warm_start=False for other columns."
            ) from error

    def _make_seeds(self, n: int, *, goes_on: bool) -> list[int]:
        """Draw seeds; further fits get others than the first, or they would see nothing new."""
        key = (self.n_iter_,) if goes_on else ()
        sequence = np.random.SeedSequence(_draw_seed(self.random_state), spawn_key=key)
        return sequence.generate_state(n).tolist()

    def transform(self, X: ArrayLike, *, domain: str = "source") -> Any:
        """Move source points to the target.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Points of the source distribution; they need not have been seen by `fit`.
        domain : {"source", "target"}, default="source"
            Where the points come from. Points of the target are there already and returned
            as they are.

        Returns
        -------
        ndarray, dataframe or Tensor of shape (n_samples, n_features)
            The points at the end of the flow: float32 for float32, else float64; of a tensor a
            tensor of its floating dtype, on its device.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `X` is not a finite two-dimensional array of the fitted width, or `domain` is
            neither of the two.

        Notes
        -----
        In a pipeline that ends in a predictor, ``pipe.predict(X_target)`` would carry the target
        rows a second time, past the target. With metadata routing enabled say where they come
        from: ``pipe.predict(X_target, domain="target")``, and likewise for ``score``. Without
        routing leave the sampler out: ``make_pipeline(pipe[0], pipe[-1]).predict(X_target)``.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> flow.transform([[0.0, 0.0]]).round()
        array([[10., 10.]])
        >>> flow.transform([[10.0, 10.0]], domain="target")
        array([[10., 10.]])
        """
        _check_domain(domain)
        if domain == "target":
            return _as_given(self._check_rows(X).copy(), X)
        return self._carry(X, backward=False)

    def inverse_transform(self, X: ArrayLike) -> Any:
        """Move target points back to the source: the flow run backwards.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Points of the target distribution.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_features)
            The points at time 0.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Notes
        -----
        Every step of `transform` is undone by a fixed-point iteration, at ten times its
        evaluations. The last step is close to a projection, which remembers little of where
        a point came from: `round_trip_error` tells what is lost on your data. Where an
        NSGFPlusPlus predicts switch times, a point going back leaves the straight flow where the
        prediction first reaches the time, which need not be where it entered.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> flow.inverse_transform([[10.0, 10.0]]).shape
        (1, 2)
        """
        return self._carry(X, backward=True)

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
            spread of the source is what to compare them with.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> bool(np.median(flow.round_trip_error(X)) < 0.1)
        True
        """
        x = self._inward(self._check_rows(X))
        back = self._integrate_chunks(self._integrate_chunks(x), backward=True)
        return (back - x).norm(dim=1).double().numpy() * self.scale_

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> NDArray:
        """Draw new target points: source points, transformed.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState or None, default=None
            Seed of the draw. None takes the estimator's own `random_state`, so that an
            estimator seeded with an int returns the same points at every call.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            New points, in data units and the dtype of the data fitted.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `n_samples` is not a positive integer.

        Warns
        -----
        UserWarning
            If the source is an array with fewer rows than `n_samples`: they are then used
            again, and repeated source rows give repeated samples.

        Notes
        -----
        Columns in which the target never varied are exactly constant in samples, too, unless an
        NSGFSampler ends before, at a `t_end` below 1. `transform` leaves rows where the flow ends,
        from where `inverse_transform` finds back.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(loc=5, size=(200, 2))
        >>> flow = NSGFSampler(source="gaussian", max_iter=200, random_state=0).fit(X)
        >>> flow.sample(1000).mean(axis=0).round()
        array([5., 5.])
        """
        check_is_fitted(self)
        self._validate_params()
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}.")
        if isinstance(self.source_, Rows) and n_samples > len(self.source_.x):
            warn_user(
                f"n_samples={n_samples} exceeds the {len(self.source_.x)} source rows: some "
                "are used again and give repeated samples. Pass new source rows to transform, "
                'or fit with source="gaussian" to draw without limit.',
            )
        seed = _draw_seed(self.random_state if random_state is None else random_state)
        x = self.source_.draw(int(n_samples), seeded_generator(seed, 0))
        return self._make_samples(x, self._dtype)

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
        ValueError
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
        moved, target = self._moved_and_target(X_source, y, X_target)
        blur = _resolve_blur(self.score_blur, moved.shape[1])
        clouds = (self._units.inward(rows, torch.float64) for rows in (moved, target))
        result = sinkhorn_divergence(*clouds, blur=blur)
        if not result.converged:
            warn_user(
                f"The Sinkhorn divergence stopped at a marginal error of "
                f"{result.marginal_error:.1e}: the score is approximate. Raise score_blur.",
                ConvergenceWarning,
            )
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
        ValueError
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
        moved, target = self._moved_and_target(X_source, y, X_target)
        return metric(moved, target)

    def trajectory(self, X: ArrayLike) -> Trajectory:
        """Follow source points along the flow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points of the source distribution.

        Returns
        -------
        Trajectory
            States at every step, their times, and the number of function evaluations. The
            last state is what `transform` returns.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Notes
        -----
        Holds all states of all points at once; pass as many points as you want to draw.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> path = flow.trajectory(X[:7])
        >>> path.states.shape, path.nfe
        ((11, 7, 2), 10)
        """
        rows = self._check_rows(X)
        solution = self._integrate(self._inward(rows))
        states = self._units.outward(solution.x, rows.dtype)
        return Trajectory(states, solution.t.cpu().numpy(), solution.nfe)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted sampler to one file that is safe to share.

        Parameters
        ----------
        path : path
            File to write; ".npz" is its customary ending. One that exists is replaced in one
            step.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        OSError
            If the file cannot be written; one that was there is left as it was.

        Warns
        -----
        UserWarning
            If parameters are objects of your own, such as a network or a source: they are left
            out, and `load` asks for them.

        See Also
        --------
        load : Read it.

        Notes
        -----
        The file is numpy's npz: arrays, and a header in JSON with the parameters, the version
        of the format and a checksum. It holds no code and no pickle, so that loading it
        executes nothing. Where the source is an array, its rows are part of the model and of
        the file.

        Examples
        --------
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(source="gaussian", max_iter=50, random_state=0).fit(X)
        >>> with TemporaryDirectory() as folder:
        ...     flow.save(f"{folder}/flow.npz")
        ...     loaded = NSGFSampler.load(f"{folder}/flow.npz")
        >>> bool((loaded.sample(100) == flow.sample(100)).all())
        True
        """
        check_is_fitted(self)
        packer = Packer((type(self), *self._parts))
        header = packer.estimator(self)
        write_archive(path, header, packer.arrays)
        if left_out := find_left_out(header):
            warn_user(
                f"{', '.join(left_out)} cannot be held by a file without code: pass the same to "
                f"{type(self).__name__}.load(path, {left_out[0]}=...).",
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> Self:
        """Load a sampler saved with `save`, by this or an earlier version.

        Parameters
        ----------
        path : path
            File to read. It need not be trusted: nothing in it is executed.
        **parameters
            Parameters that a file cannot hold, a network or a source of your own; any other
            parameter given, such as `device`, takes the place of the one saved.

        Returns
        -------
        NSGFSampler or NSGFPlusPlus
            The fitted sampler, on `device` if it can be used here, else on the CPU.

        Raises
        ------
        OSError
            If the file is missing or cannot be read.
        PersistenceError
            If it is damaged, was not saved by this class, or needs parameters that are not
            given.
        ValueError
            If `device` is given and cannot be used here.

        Examples
        --------
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=50).fit(X, X + 10)
        >>> with TemporaryDirectory() as folder:
        ...     flow.save(f"{folder}/flow.npz")
        ...     loaded = NSGFSampler.load(f"{folder}/flow.npz", device="cpu")
        >>> loaded.transform(X).shape
        (200, 2)
        """
        if "device" in parameters:
            find_device(parameters["device"])
        header, arrays = read_archive(path)
        with refusing(path):
            return Unpacker((cls, *cls._parts), arrays).top(header, parameters)

    def _soundness(self) -> dict[str, bool]:
        """Tell which parts of a sampler that was loaded fit the others."""
        d = self.n_features_in_
        return {
            "mean_": is_finite(self.mean_, (d,), np.float64),
            "source_": self.source_.is_sound(d),
            "_constant": self._constant.dtype == np.int64
            and self._constant.ndim == 1
            and bool(np.isin(self._constant, np.arange(d)).all()),
            "feature_names_in_": len(getattr(self, "feature_names_in_", range(d))) == d,
        }

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "source_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate_params(self) -> None:
        """Refuse what scikit-learn's own check lets pass: classes, and booleans for numbers."""
        parameters = self.get_params(deep=False)
        for name, value in parameters.items():
            if isinstance(value, type) and name != "network":
                raise InvalidParameterError(
                    f"{name} is the class {value.__name__}; pass an instance: "
                    f"{name}={value.__name__}(...)."
                )
        super()._validate_params()
        for name, value in parameters.items():
            switch = {"boolean", "verbose"} & {*map(str, self._parameter_constraints[name])}
            if isinstance(value, bool | np.bool_) and not switch:
                raise InvalidParameterError(f"{name} must not be a boolean, got {value}.")

    @property
    def _units(self) -> Units:
        return Units(self.mean_, self.scale_)

    def _moved_and_target(self, X_source: Any, y: Any, X_target: Any) -> tuple[NDArray, NDArray]:
        """Return the clouds to compare: moved rows, or samples, and target rows."""
        check_is_fitted(self)
        self._validate_params()
        validate_data(self, X_source, reset=False, skip_check_array=True)
        names = getattr(self, "feature_names_in_", ())
        rows, target = self._check_rows_and_target(X_source, y, X_target, names=names)
        if rows is None:
            x = self.source_.draw(len(target), seeded_generator(self._score_seed, 0))
            return self._make_samples(x, target.dtype), target
        x = self._inward(rows)
        if isinstance(self.source_, Rows):
            self._warn_of_seen_target(x, self.source_.x, target)
        return self._units.outward(self._integrate_chunks(x), target.dtype), target

    def _warn_of_seen_target(self, x: Tensor, seen: Tensor, target: NDArray) -> None:
        """Tell the user if only the source was held out, as when a search cannot split both."""
        same_source = len(seen) == len(x) and torch.allclose(seen, x.float(), atol=1e-5)
        mean, scale = Units.of(target)
        offset = np.abs(mean - self.mean_).max() + abs(scale - self.scale_)
        if offset < 1e-9 * self.scale_ and not same_source:
            warn_user(
                "X_target holds the very rows that fit has seen, X_source does not: the flow is "
                "judged on targets it was fitted to. scikit-learn splits X_target only if it is "
                "as long as X_source: shorten the longer of the two before the search, "
                "sklearn.utils.resample(X_target, n_samples=len(X_source), replace=False).",
            )

    def _carry(self, X: Any, *, backward: bool) -> Any:
        rows = self._check_rows(X)
        x = self._integrate_chunks(self._inward(rows), backward=backward)
        return _as_given(self._units.outward(x, rows.dtype), X)

    def _make_samples(self, x: Tensor, dtype: np.dtype) -> NDArray:
        """Carry standardised source points to the target, and leave no noise where it has none."""
        rows = self._units.outward(self._integrate_chunks(x), dtype)
        rows[:, self._constant] = self.mean_[self._constant]
        return rows

    def _find_constant(self, target: NDArray, *, goes_on: bool) -> NDArray[np.int64]:
        """List the columns in which the target has not varied, in this fit or one before."""
        constant = np.flatnonzero((target == self.mean_).all(axis=0))
        return np.intersect1d(constant, self._constant) if goes_on else constant

    def _integrate_chunks(self, x: Tensor, *, backward: bool = False) -> Tensor:
        chunks = self._chunks(x, n_states=self._n_sampling_steps() + 1)
        return torch.cat([self._integrate(c, backward=backward).x[-1].cpu() for c in chunks])

    def _chunks(self, x: Tensor, n_states: int) -> tuple[Tensor, ...]:
        """Split rows so that neither states nor the layers of a network fill the memory."""
        return x.split(max(1, min(_CHUNK_ROWS, _CHUNK_ENTRIES // (x.shape[1] * n_states))))

    @abstractmethod
    def _n_sampling_steps(self) -> int:
        """Count the steps the flow is integrated in."""

    def _inward(self, rows: NDArray) -> Tensor:
        """Standardise rows in their own precision."""
        double = rows.dtype == np.float64 and self.device_.type != "mps"
        return self._units.inward(rows, torch.float64 if double else torch.float32)

    def _check_rows(self, X: Any) -> NDArray:
        check_is_fitted(self)
        self._validate_params()
        rows = check_rows(X, "X", self, min_samples=1)
        named = X if hasattr(X, "columns") else rows
        validate_data(self, named, reset=False, skip_check_array=True)
        return rows

    def _check_rows_and_target(
        self,
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
        if self.source is not None:
            if X_target is not None:
                raise ValueError(
                    "X_target was passed although source is set: the flow then starts from "
                    "that source and its target is the first array. Pass the target first, "
                    "or set source=None to start from an array."
                )
            if len(_shape(y)) == 2 and _shape(y)[1:] == _shape(X_source)[1:] > (1,):
                warn_user(
                    "The second array is ignored: source is set, so the flow starts there and "
                    "its target is the first array. To carry the first array to the second, "
                    "set source=None.",
                )
            return None, check_rows(X_source, "X", self, min_samples)
        rows = check_rows(X_source, "X_source", self, min_samples)
        given = _find_target(y, X_target)
        target = check_rows(given, "X_target", self, min_samples)
        if rows.shape[1] != target.shape[1]:
            raise ValueError(
                f"X_source has {rows.shape[1]} features but X_target has {target.shape[1]}; "
                "both must live in the same space."
            )
        names = list(names) or _column_names(self, X_source)
        target_names = _column_names(self, given)
        if names and target_names and names != target_names:
            same = set(names) == set(target_names)
            remedy = f"X_target[{names}]" if same else "rename them, or pass arrays"
            raise ValueError(
                f"X_source has the columns {names} but X_target has {target_names}; both must "
                f"have the same columns in the same order: {remedy}."
            )
        return rows, target

    def _make_source(self, rows: NDArray | None, units: Units) -> Source:
        if rows is not None:
            return Rows(units.inward(rows))
        if isinstance(self.source, str):
            return GaussianNoise(len(units.mean))
        return UserSource(self.source, units)


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
        rows = check(rows, dtype=_FLOATS, ensure_all_finite=False, **shaped)
        _check_finite(rows)
        return rows
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} cannot be used. {error}") from error


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


def _check_domain(domain: Any) -> None:
    if not isinstance(domain, str) or domain not in ("source", "target"):
        raise ValueError(f'domain must be "source" or "target", got {domain!r}.')


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


def _column_names(estimator: Any, X: Any) -> list[str]:
    """Names of the columns of a dataframe; none for anything else."""
    reader = type(estimator)()
    validate_data(reader, X, skip_check_array=True)
    return list(getattr(reader, "feature_names_in_", []))


def _as_given(rows: NDArray, X: Any) -> Any:
    """Return rows as a tensor on the device of X, in its precision, if X is one."""
    if not isinstance(X, Tensor):
        return rows
    return torch.from_numpy(rows).to(X.device, X.dtype if X.is_floating_point() else None)


def warn_outliers(target: NDArray, units: Units) -> None:
    """Tell the user if a few far rows, not the data, set the unit of length."""
    distances = np.linalg.norm((target - units.mean) / units.scale, axis=1)
    if np.sqrt(np.mean(distances**2)) > _FAR * np.median(distances) > 0:
        warn_user(
            f"The farthest target row is {distances.max() / np.median(distances):.0f} times as "
            "far from the mean as the median row: outliers set the scale, and everything "
            "nearer is blurred. Clip or remove them, or put a QuantileTransformer first.",
        )


def _draw_seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def _resolve_blur(blur: float | str, n_features: int) -> float:
    """Five per cent of the distance between two random target points, unless given."""
    return 0.05 * (2 * n_features) ** 0.5 if isinstance(blur, str) else float(blur)
