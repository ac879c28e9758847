"""What every sampler shares: arrays in, arrays out, and a fit that is written once."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, Options
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sknsgf._arguments import check_choice, check_size
from sknsgf._arrays import FLOATS, as_given, check_rows, shape_of
from sknsgf._random import stream
from sknsgf._surroundings import undisturbed
from sknsgf.algorithms import Algorithm, Learned, Map, Run
from sknsgf.flow import Ends, GaussianNoise, Hull, Rows, Source, seeded_generator
from sknsgf.samplers._files import FilesMixin
from sknsgf.samplers._judging import JudgingMixin
from sknsgf.samplers._moving import ball_around
from sknsgf.samplers._parameters import SHARED, ParametersMixin, draw_seed, find_device
from sknsgf.samplers._roles import (
    check_domain,
    check_layout,
    check_source_and_target,
    keep_layout,
    read_layout,
)
from sknsgf.samplers._source import UserSource
from sknsgf.samplers._stages import CallbackSupportMixin, Fit, with_callbacks
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import (
    warn_diverged,
    warn_elsewhere,
    warn_moved_noise,
    warn_not_reached,
    warn_of_data,
    warn_repeated_rows,
    warn_taken_target,
    warn_unsolved,
)
from sknsgf.training import TrainingHistory

NO_COLUMNS = np.empty(0, dtype=np.int64)

Attributes = dict[str, Any]


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
        TypeError, ValueError
            If a parameter or an array cannot be used, as in `fit`.

        Warns
        -----
        UserWarning
            If `y` has two dimensions and `X_target` is not given: `y` is then the target, which
            is not meant where a pipeline hands on what a regressor is to predict. Also if
            `source` is set, and so the rows moved are the target: they are taken for noise.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> NSGFSampler(max_iter=50).fit_transform(X, X_target=X + 10).shape
        (200, 2)
        """
        check_domain(domain)
        if self.source is not None and domain == "source":
            warn_moved_noise()
        elif self.source is None and X_target is None and len(shape_of(y)) == 2:
            warn_taken_target()
        given = {} if X_target is None else {"X_target": X_target}
        return self.fit(X_source, y, **given).transform(X_source, domain=domain)


class BaseFlowSampler(
    _FitTransformMixin,
    JudgingMixin,
    FilesMixin,
    ParametersMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    BaseEstimator,
    CallbackSupportMixin,
):
    """What samplers share: derive one of your own from it.

    It checks arrays, brings them to standardised units, fits whole or not at all, moves rows,
    draws, judges and saves. A subclass says which algorithm learns, and what is kept of it.

    Parameters
    ----------
    source : None, "gaussian" or object with ``sample(n)``, default=None
        Where the flow starts, as in :class:`~sknsgf.NSGFSampler`.
    warm_start : bool, default=False
        Whether `fit` goes on where the last one ended.
    score_blur : float or "auto", default="auto"
        Resolution of `score`, as in :class:`~sknsgf.NSGFSampler`.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is a GPU if there is one.
    n_jobs : int, default=None
        Handed to the algorithm, as are seed and device.
    random_state : int, RandomState or None, default=None
        Seed of `fit` and of `sample`.
    verbose : int, default=0
        Whether there are progress bars.

    See Also
    --------
    sknsgf.algorithms.SinkhornFlow : An algorithm to look at.

    Notes
    -----
    A subclass has three methods:

    ``_algorithm(n_features)``
        Returns the algorithm that the parameters stand for: a frozen dataclass with
        ``stages(ends)``, which counts the stages of a run, and ``learn(ends, run, start)``, which
        returns a :class:`~sknsgf.algorithms.Learned`. `ends` is an
        :class:`~sknsgf.flow.Ends` in standardised units, `run` a
        :class:`~sknsgf.algorithms.Run`, `start` None or the map to go on from.
    ``_attributes(learned, algorithm, common)``
        Returns the fitted attributes that a learned map stands for, by name. `common` are those
        of every sampler, such as `mean_` and `scale_`. It is asked during training, too, for
        callbacks.
    ``_learned_map(dtype)``
        Makes the map of these attributes again, in single or double precision. A map has
        ``forward(x)``, which moves points of shape (n, d), ``path(x)``, which returns a
        ``sknsgf.ode.Solution``, ``backward(x)``, which returns a ``sknsgf.ode.Inverse`` whose
        `error` tells what was reached, and ``n_states``, the number of states on a path.

    And, where needed:

    ``_outcome(learned, algorithm, ends, run, fitted)``
        Returns further attributes of a finished fit, and warns of what went wrong.
    ``__fitted_kinds__``
        What each fitted attribute may be, as in ``_parameter_constraints``. Extend the one here:
        an attribute that is not named in it is not saved.
    ``_parameter_constraints``
        What parameters of its own may be. Those named as in the samplers of this package are
        checked already.

    Histories of training become `history_`, a dict of them where there are several stages.

    Examples
    --------
    A whole one is in the gallery, "An algorithm of your own". Samplers of this package are made
    the same way:

    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.samplers import BaseFlowSampler
    >>> issubclass(NSGFSampler, BaseFlowSampler)
    True
    """

    # X_source is data, never routed. X_target and domain mean nothing to any other estimator,
    # so that a pipeline may hand them over unasked; but a pipeline transforms X_target for fit
    # alone, hence score has to be asked for by set_score_request.
    __metadata_request__fit: ClassVar = {"X_source": UNUSED, "X_target": True}
    __metadata_request__partial_fit: ClassVar = {"X_source": UNUSED, "X_target": True}
    __metadata_request__transform: ClassVar = {"domain": True}
    __metadata_request__inverse_transform: ClassVar = {"return_reached": UNUSED}
    __metadata_request__score: ClassVar = {"X_source": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = SHARED

    # Attributes that make a fitted sampler, and what they may be.
    __fitted_kinds__: ClassVar[dict[str, list[Any]]] = {
        "n_features_in_": [Interval(Integral, 1, None, closed="left")],
        "feature_names_in_": [np.ndarray],
        "mean_": [np.ndarray],
        "scale_": [Interval(Real, 0, None, closed="neither")],
        "source_origin_": [np.ndarray],
        "source_": [Rows, GaussianNoise, UserSource],
        "device_": [torch.device],
        "n_iter_": [Interval(Integral, 0, None, closed="left")],
        "history_": [TrainingHistory, dict],
        "_constant": [np.ndarray],
        "_dtype": [Options(np.dtype, {np.dtype(kind) for kind in FLOATS})],
        "_score_seed": [Interval(Integral, 0, None, closed="left")],
        "_source_ball": [None, Hull],
    }
    history_: Any
    _constant: NDArray[np.int64] = NO_COLUMNS  # in files from before there was any

    def __init__(
        self,
        *,
        source: Any = None,
        warm_start: bool = False,
        score_blur: float | str = "auto",
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.source = source
        self.warm_start = warm_start
        self.score_blur = score_blur
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _algorithm(self, n_features: int) -> Algorithm:
        """Return the algorithm that the parameters stand for."""
        raise _missing(self, "_algorithm")

    def learned_map(self, dtype: torch.dtype = torch.float32) -> Any:
        """Return what was learned as a map on tensors.

        Parameters
        ----------
        dtype : {torch.float32, torch.float64}, default=torch.float32
            Precision of the tensors it is for.

        Returns
        -------
        Map
            Moves points on `device_` from the source, ``(X - source_origin_) / scale_``, to the
            target, ``(Y - mean_) / scale_``: a :class:`~sknsgf.algorithms.SinkhornMap` of an
            NSGFSampler, a :class:`~sknsgf.algorithms.TwoPhaseMap` of an NSGFPlusPlus.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `dtype` is neither of the two.
        """
        check_is_fitted(self)
        check_choice(dtype, "dtype", (torch.float32, torch.float64))
        return self._learned_map(dtype)

    def _learned_map(self, dtype: torch.dtype) -> Map:
        """Make the map that the fitted attributes stand for."""
        raise _missing(self, "_learned_map")

    def _attributes(self, learned: Any, algorithm: Any, common: Attributes) -> Attributes:
        """Return the fitted attributes that a map stands for, beside those of every sampler."""
        raise _missing(self, "_attributes")

    def _outcome(
        self, learned: Learned, algorithm: Any, ends: Ends, run: Run, fitted: Attributes
    ) -> Attributes:
        """Return further attributes of a finished fit, and warn of what went wrong."""
        return {}

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
        TypeError, ValueError
            If a parameter or an array cannot be used. The sampler is then left as it was.

        Warns
        -----
        ConvergenceWarning
            If transport problems stayed unsolved or training diverged, with the remedy.
        UserWarning
            If a flow cannot learn the data as they are: outliers set the scale, columns differ
            in range, the source holds one value in many rows where the target varies, or there
            are fewer than twenty rows. From an NSGFPlusPlus also if its phases do not share the
            work.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(300, 2)), rng.uniform(size=(400, 2))
        >>> NSGFSampler(max_iter=100).fit(X, Y).transform(X).shape
        (300, 2)
        """
        return self._fit(X_source, y, X_target, warm_start=self.warm_start)

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
        TypeError, ValueError
            If a parameter or an array cannot be used, if the rows have another width than those
            before, or if the parameters describe another network. The sampler is then left as
            it was.

        Warns
        -----
        UserWarning
            If the data lie far from where they were at the first fit; and as in `fit`.
        ConvergenceWarning
            As in `fit`.

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
        return self._fit(X_source, y, X_target, warm_start=True)

    @with_callbacks
    @undisturbed
    def _fit(self, X_source: Any, y: Any, X_target: Any, *, warm_start: bool) -> Self:
        """Fit, from the start or from where the last fit ended; whole, or not at all."""
        warm_start = warm_start and self.__sklearn_is_fitted__()
        self._check_parameters()
        device = find_device(self.device)
        rows, target = check_source_and_target(self, X_source, y, X_target, min_samples=2)
        if warm_start:
            self._check_warm_start(X_source, target if rows is None else rows)
        seed = self._choose_seed(warm_start)
        algorithm: Any = self._algorithm(target.shape[1])
        units = self._measure_units(rows, target, warm_start)
        common = self._begin(X_source, rows, target, units, warm_start)
        names = [repr(name) for name in common.get("feature_names_in_", ())]
        images = getattr(self, "image_shape", None) is not None
        warn_of_data(rows, target, units, names, images)
        common |= {"device_": device, "_score_seed": stream(seed, "score")}
        earlier = self._source_ball if warm_start else None
        common["_source_ball"] = ball_around(common["source_"], seed, earlier)
        ends = Ends(common["source_"], units.inward(target))
        data = X_source, y if X_target is None else X_target

        def attributes(learned: Map) -> Attributes:
            return common | self._attributes(learned, algorithm, common)

        fit = Fit(self, *data, algorithm.stages(ends), attributes)
        with fit:
            run = Run(seed, device, self.n_jobs, watch=fit)
            start = self.learned_map() if warm_start else None
            learned = algorithm.learn(ends, run, start)
            warn_unsolved(learned.statuses)
            if warm_start:
                learned = learned._replace(histories=_joined(self.history_, learned.histories))
            for stage, history in learned.histories.items():
                warn_diverged(stage, history, learned.learning_rates[stage])
            fitted = attributes(learned.map) | _told(learned.histories)
            self._commit(fitted | self._outcome(learned, algorithm, ends, run, fitted))
        return self

    def _begin(
        self,
        X_source: Any,
        rows: NDArray | None,
        target: NDArray,
        units: Units,
        warm_start: bool,
    ) -> Attributes:
        """Return the attributes that do not depend on training."""
        constant = np.flatnonzero((target == units.mean).all(axis=0))
        return {
            **(keep_layout(self) if warm_start else read_layout(self, X_source)),
            "mean_": units.mean,
            "scale_": units.scale,
            "source_origin_": units.source_origin,
            "source_": self._make_source(rows, units),
            "_dtype": target.dtype,
            "_constant": np.intersect1d(constant, self._constant) if warm_start else constant,
        }

    def _commit(self, fitted: Attributes) -> None:
        """Take over all that was fitted, in place of what was before."""
        for name in self.__fitted_kinds__:
            self.__dict__.pop(name, None)
        self.__dict__.update(fitted)

    def _check_parameters(self) -> None:
        """Raise unless the parameters fit each other."""
        self._validate_params()

    def _check_warm_start(self, X_source: Any, rows: NDArray) -> None:
        """Raise unless the rows are of the kind that was fitted."""
        try:
            check_layout(self, X_source, rows, "X_source" if self.source is None else "X")
        except ValueError as error:
            raise ValueError(
                f"{error} Fitting goes on with the network there is; fit again with "
                "warm_start=False for other columns."
            ) from error

    def _choose_seed(self, warm_start: bool) -> int:
        """Draw the seed of a fit; further ones get others, or they would see nothing new."""
        seed = draw_seed(self.random_state)
        return stream(seed, f"after {self.n_iter_} steps") if warm_start else seed

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
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width, or `domain` is
            neither of the two.

        Warns
        -----
        UserWarning
            If rows lie outside of the source that was fitted, more than one in twenty, or all:
            2.5 times as far from its mean as 99 % of it.

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
        check_domain(domain)
        if domain == "target":
            return as_given(self._check_rows(X).copy(), X)
        rows = self._check_rows(X)
        x = self._from_source(rows)
        self._warn_of_outside(x)
        return as_given(self._units.outward(self._move(x), rows.dtype, self._way_left()), X)

    def inverse_transform(self, X: ArrayLike, *, return_reached: bool = False) -> Any:
        """Move target points back to the source: the flow run backwards.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Points of the target distribution.
        return_reached : bool, default=False
            Whether to return which rows were found.

        Returns
        -------
        X_source : ndarray or Tensor of shape (n_samples, n_features)
            The points at time 0.
        reached : ndarray of shape (n_samples,)
            Whether `transform`, in the precision of `X`, carries them to `X`: to within 1e-6 of
            `scale_`, in float32 to within 1e-3 of it or, where that is more, of the row's
            distance from `mean_`. Only if asked for.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Warns
        -----
        ConvergenceWarning
            If no source point was found for some of the rows: what is returned for them is
            carried elsewhere.

        Notes
        -----
        Every step of `transform` is undone, by a fixed-point iteration where that is fast and by
        Newton's method elsewhere, at some ten times its evaluations; then it is taken again, to
        see where it ends. Rows that no source point is moved to, far from all targets, are taken
        back from the edge of where the flow may end; what is found for them stays near
        the source.

        The last step is close to a projection, which remembers little of where a point came
        from: `round_trip_error` tells what is lost on your data. Where an NSGFPlusPlus predicts
        switch times, several points may be carried to the same place, and any of them is found.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=200, random_state=0).fit(X, X + 10)
        >>> X_back, reached = flow.inverse_transform(flow.transform(X), return_reached=True)
        >>> bool(reached.all())
        True
        """
        rows = self._check_rows(X)
        x, reached = self._move_back(self._inward(rows, self._way_left()))
        if not reached.all():
            warn_not_reached(reached)
        moved = as_given(self._units.outward(x, rows.dtype, left=1), X)
        return (moved, reached.numpy()) if return_reached else moved

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:
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
        ndarray or dataframe of shape (n_samples, n_features)
            New points, in data units and the dtype of the data fitted. Where `set_output` asks
            for dataframes from `transform`, samples come as one, too: an extension of ours.

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
        n_samples = check_size(n_samples, "n_samples")
        seed = draw_seed(self.random_state if random_state is None else random_state)
        if isinstance(self.source_, Rows) and n_samples > len(self.source_.x):
            warn_repeated_rows(n_samples, len(self.source_.x))
        x = self.source_.draw(n_samples, seeded_generator(seed, 0))
        rows = self._make_samples(x, self._dtype)
        return _wrap_data_with_container("transform", rows, rows, self)

    @undisturbed
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
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Warns
        -----
        UserWarning
            If rows lie outside of the source that was fitted, as of `transform`.

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
        x = self._from_source(rows)
        self._warn_of_outside(x)
        solution = self.learned_map(x.dtype).path(x.to(self.device_))
        times = solution.t.cpu().numpy()
        states = self._units.outward(solution.x, rows.dtype, self._way_left(times))
        states[0] = rows
        return Trajectory(states, times, solution.nfe)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "source_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _make_samples(self, x: Tensor, dtype: np.dtype) -> NDArray:
        """Carry standardised source points to the target, and leave no noise where it has none."""
        rows = self._units.outward(self._move(x), dtype, self._way_left())
        rows[:, self._constant] = self.mean_[self._constant]
        return rows

    def _check_rows(self, X: Any) -> NDArray:
        check_is_fitted(self)
        self._validate_params()
        rows = check_rows(X, "X")
        check_layout(self, X, rows, "X")
        return rows

    def _measure_units(self, rows: NDArray | None, target: NDArray, warm_start: bool) -> Units:
        if warm_start:
            warn_elsewhere(rows, target, self._units)
            return self._units
        if hasattr(self.source, "sample"):
            rows = UserSource(self.source, Units.of(target)).try_out()
        return Units.of(target, rows)

    def _make_source(self, rows: NDArray | None, units: Units) -> Source:
        if rows is not None:
            return Rows(units.inward(rows, left=1))
        if isinstance(self.source, str):
            return GaussianNoise(len(units.mean))
        return UserSource(self.source, units)


def _missing(sampler: Any, method: str) -> NotImplementedError:
    return NotImplementedError(
        f"{type(sampler).__name__} has no {method}: a sampler is a subclass of BaseFlowSampler "
        "with _algorithm, _attributes and _learned_map."
    )


def _told(histories: Mapping[str, TrainingHistory]) -> Attributes:
    """Return the attributes that tell how training went; of one stage its history alone."""
    alone = list(histories.values()) if len(histories) == 1 else [histories]
    return {"history_": alone[0], "n_iter_": sum(map(len, histories.values()))}


def _joined(
    earlier: TrainingHistory | Mapping[str, TrainingHistory],
    later: Mapping[str, TrainingHistory],
) -> dict[str, TrainingHistory]:
    """Put histories behind those of earlier fits."""
    if isinstance(earlier, TrainingHistory):
        earlier = dict.fromkeys(later, earlier)
    return {n: earlier[n] + history if n in earlier else history for n, history in later.items()}
