"""NSGFSampler: Neural Sinkhorn Gradient Flow, Algorithms 1 and 2 of the paper."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sknsgf.flow import (
    Hull,
    Records,
    Schedule,
    TrajectoryPool,
    constant_schedule,
    seeded_generator,
    simulate_sinkhorn_flow,
    straight_schedule,
)
from sknsgf.networks import StandardisedVelocity
from sknsgf.ode import METHODS, Solution, change_of_variables, integrate, invert
from sknsgf.samplers._base import (
    _NO_COLUMNS,
    BaseFlowSampler,
    _as_given,
    _resolve_blur,
    warn_outliers,
)
from sknsgf.samplers._ends import Ends, hold_out
from sknsgf.samplers._saving import is_history
from sknsgf.samplers._source import Deck, dealt, is_finite
from sknsgf.samplers._stages import Fit, Stage, with_callbacks
from sknsgf.samplers._students import (
    check_hidden_layer_sizes,
    check_images,
    find_device,
    in_dtype,
    inverse_tol,
    make_network,
    move_records,
    resolve_learning_rate,
    resume,
    warn_diverged,
)
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import warn_user
from sknsgf.training import TrainingHistory, train, velocity_matching_loss

_POOL_TOL = 5e-3  # marginal error; the network's own error is several times larger
_POOL_MAX_ITER = 50
_REUSE = 2  # times a record is drawn, on average, in a full run
_RECORDS_A_ROW = 500  # at most: more teach nothing where rows are few
_POOL_ENTRIES = 2**28  # numbers in the largest pool that is chosen unasked: 1 GB
_N_HELD_OUT_RECORDS = 4096
_JACOBIAN_ENTRIES = 2**22  # numbers in the Jacobians of the rows done at a time
_N_STATISTICS = 16384  # records that the scale of the velocities is measured on


def _has_density(sampler: Any) -> bool:
    if isinstance(sampler.source, str) or hasattr(sampler.source, "score_samples"):
        return True
    raise AttributeError(
        "score_samples needs a source with a density and the source here has none: fit with "
        'source="gaussian", or with an object that has score_samples.'
    )


class NSGFSampler(BaseFlowSampler):
    r"""Neural Sinkhorn Gradient Flow: move samples of a source to a target distribution.

    From samples alone it learns the velocity field that carries the source to the target
    along the Wasserstein gradient flow of the Sinkhorn divergence. `fit` simulates the flow
    of particles on many minibatches and trains a network on their velocities; `transform`
    moves new source points along the learned field, `sample` draws new target points.

    Parameters
    ----------
    source : None, "gaussian" or object with ``sample(n)``, default=None
        Where the flow starts. None: from the first array given to `fit`, which then needs
        the target as well. "gaussian": from noise as wide as the data, so that ``fit(X)``
        learns to generate X. An object with ``sample``: from its samples. Wrap a fitted
        estimator, such as a :class:`~sklearn.mixture.GaussianMixture`, in a
        :class:`~sklearn.frozen.FrozenEstimator`, or a search, which clones, unfits it.
    blur : float or "auto", default="auto"
        Resolution of the Sinkhorn divergence, in units of the target's standard deviation;
        details finer than it are smoothed over. "auto" is 5 % of the root mean squared
        distance between two target points, ``0.05 * sqrt(2 * n_features)``.
    step_size : float, default=None
        Step of the simulated flow with ``schedule="constant"``. None chooses it so that 1 %
        of the way is left after `n_steps`.
    n_steps : int, default=10
        Steps of the simulated flow.
    n_particles : int, default=256
        Particles moved together in one simulation, at most the rows there are.
    n_targets : int, default=None
        Target rows they are coupled to. None takes as many as particles.
    n_simulations : int, default=None
        Number of independent simulations. None lets it grow with `max_iter`, as far as the rows
        have something to teach (500 positions each) and within 1 GB.
    schedule : {"straight", "constant"}, default="straight"
        "straight": steps that grow so that particles move on straight lines at constant
        speed and the last step lands on the target. "constant": the equal steps of the
        paper.
    t_end : float, default=1.0
        Where the flow stops, in (0, 1]; less than 1 stops part of the way. Only with
        ``schedule="straight"``.
    pool_dir : path, default=None
        Directory for the simulated trajectories, as a memory-mapped file, when they do not
        fit in memory. Each fit has its own file there, and removes it.
    network : {"auto", "mlp", "unet"}, Module or callable, default="auto"
        The velocity network, called as ``network(t, x)`` with times of shape (n,) and rows of
        shape (n, n_features), centred and scaled at every time, for velocities of the shape and
        dtype of the rows: float32, and float64 where those to move are. "auto" is a
        :class:`~sknsgf.networks.VelocityUNet` if `image_shape` is given, else a perceptron. A
        module is copied, never trained in place; a callable gets `image_shape`, or the shape
        of one row, ``(n_features,)``, where there is none, and returns a module:
        ``network=partial(VelocityUNet, width=64)``. Rows stay rows, images too, until the
        network reshapes them. Layers that are random in training, such as dropout, draw from
        torch's global generator and are not covered by `random_state`.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Hidden layers of the perceptron.
    image_shape : tuple of three int, default=None
        Channels, height and width (C, H, W) of images, one a row, channel first. Values may
        have any range: rows are standardised, and what is generated is not clipped.
    max_iter : int, default=3000
        Training steps: the effort. More give a closer fit and take proportionally longer,
        simulations included.
    learning_rate : float or "auto", default="auto"
        Peak learning rate. "auto" is 1e-2 for the perceptron and 2e-3 for any other network.
    batch_size : int, default=256
        Records in a training step.
    ema_decay : float, default=0.995
        Decay of the averaged weights that are kept.
    early_stopping : bool or "auto", default="auto"
        Hold out a tenth of the rows of both arrays, and stop when the loss on flows between
        them stops falling: from then on rows are learned by heart. "auto" does so where there
        are at least 20 rows but fewer than training steps, and at least 500 of these.
    warm_start : bool, default=False
        Whether `fit` goes on where the last fit ended, as `partial_fit` does, rather than
        starting again.
    score_blur : float or "auto", default="auto"
        Resolution at which `score` judges, in the same units as `blur` but independent of
        it.
    n_sampling_steps : int, default=None
        Steps in which the learned flow is integrated. None takes `n_steps`. Read at every
        call: it can be changed without fitting again. The last step never begins later than
        the last simulated one did; all others are equal.
    ode_method : {"euler", "heun", "rk4"}, default="euler"
        How it is integrated. Read at every call.
    device : str or torch.device, default="auto"
        Where to compute. "auto" takes a CUDA device if there is one, else the CPU; small
        networks are seldom faster on "mps", which must be asked for.
    n_jobs : int, default=None
        Simulations computed in parallel on the CPU, through joblib. It changes the time
        taken, not one bit of the result.
    random_state : int, RandomState or None, default=None
        Seed. With an int, fitting and sampling on the CPU repeat bit for bit.
    verbose : int, default=0
        Show progress bars.

    Attributes
    ----------
    velocity_network_ : Module
        The trained network, called as ``velocity_network_(t, x)`` in standardised units;
        `velocity` is the same in data units.
    source_ : object
        Draws the points `sample` starts from.
    mean_ : ndarray of shape (n_features,)
        Mean of the target.
    scale_ : float
        Root mean square deviation of the target, the unit of `blur`.
    blur_ : float
        Resolution used.
    history_ : TrainingHistory
        Losses by iteration, relative to the variance of the velocities, and why training
        ended. It can be sliced: ``history_[-1]``, ``history_[1000:]``.
    n_iter_ : int
        Training steps done, by all fits that went on from each other.
    learning_rate_ : float
        Peak learning rate used.
    device_ : torch.device
        Device used.
    n_features_in_ : int
        Width of the rows.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, where the first array had them.

    Raises
    ------
    ValueError
        From `fit`, if a parameter or an array cannot be used. The estimator is then left as
        it was.

    See Also
    --------
    sknsgf.flow.sinkhorn_velocity : The velocity the network learns.

    Notes
    -----
    The flow of minibatches is not the flow of the full distributions: each particle sees a
    few hundred targets, so the end point is close to the target rather than equal to it.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> Y = X @ [[2, 0], [0, 0.5]] + 10
    >>> flow = NSGFSampler(max_iter=300, random_state=0).fit(X, Y)
    >>> flow.sample(200).shape
    (200, 2)
    >>> generator = NSGFSampler(source="gaussian", max_iter=300, random_state=0).fit(Y)
    >>> generator.sample(1000).shape
    (1000, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "source": [None, StrOptions({"gaussian"}), HasMethods("sample")],
        "blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "step_size": [None, Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_particles": [Interval(Integral, 2, None, closed="left")],
        "n_targets": [None, Interval(Integral, 2, None, closed="left")],
        "n_simulations": [None, Interval(Integral, 1, None, closed="left")],
        "schedule": [StrOptions({"straight", "constant"})],
        "t_end": [Interval(Real, 0, 1, closed="right")],
        "pool_dir": [None, str, HasMethods("__fspath__")],
        "network": [StrOptions({"auto", "mlp", "unet"}), callable],
        "hidden_layer_sizes": ["array-like"],
        "image_shape": [None, "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "warm_start": ["boolean"],
        "score_blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "n_sampling_steps": [None, Interval(Integral, 1, None, closed="left")],
        "ode_method": [StrOptions(set(METHODS))],
        "device": [str, torch.device],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _fitted: ClassVar[dict[str, list[Any]]] = {
        **BaseFlowSampler._fitted,
        "learning_rate_": [Interval(Real, 0, None, closed="neither")],
        "blur_": [Interval(Real, 0, None, closed="neither")],
        "velocity_network_": [nn.Module],
        "history_": [TrainingHistory],
        "_last_time": [Interval(Real, 0, 1, closed="left")],
        "_end_time": [Interval(Real, 0, 1, closed="right")],
        "_n_steps": [Interval(Integral, 1, None, closed="left")],
        "_hull": [None, Hull],
        "_pace": [None, Interval(Real, 0, None, closed="neither")],
    }
    _hull: Hull | None = None  # in files from before there was any
    _pace: float | None = None  # flow time per unit of network time, where it is constant

    velocity_network_: nn.Module
    history_: TrainingHistory

    def __init__(
        self,
        *,
        source: Any = None,
        blur: float | str = "auto",
        step_size: float | None = None,
        n_steps: int = 10,
        n_particles: int = 256,
        n_targets: int | None = None,
        n_simulations: int | None = None,
        schedule: str = "straight",
        t_end: float = 1.0,
        pool_dir: Any = None,
        network: Any = "auto",
        hidden_layer_sizes: Sequence[int] = (256, 256, 256),
        image_shape: Sequence[int] | None = None,
        max_iter: int = 3000,
        learning_rate: float | str = "auto",
        batch_size: int = 256,
        ema_decay: float = 0.995,
        early_stopping: bool | str = "auto",
        warm_start: bool = False,
        score_blur: float | str = "auto",
        n_sampling_steps: int | None = None,
        ode_method: str = "euler",
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.source = source
        self.blur = blur
        self.step_size = step_size
        self.n_steps = n_steps
        self.n_particles = n_particles
        self.n_targets = n_targets
        self.n_simulations = n_simulations
        self.schedule = schedule
        self.t_end = t_end
        self.pool_dir = pool_dir
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.warm_start = warm_start
        self.score_blur = score_blur
        self.n_sampling_steps = n_sampling_steps
        self.ode_method = ode_method
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def _fit(self, X_source: Any, y: Any, X_target: Any, *, goes_on: bool) -> Self:
        goes_on = goes_on and hasattr(self, "velocity_network_")
        self._check_parameters()
        device = find_device(self.device)
        rows, target = self._check_rows_and_target(X_source, y, X_target, min_samples=2)
        check_images(self.image_shape, self.network, target.shape[1])
        if goes_on:
            self._check_goes_on(X_source)
        fitted = self._to_be_fitted(X_source, target, device, goes_on=goes_on)
        units = self._units if goes_on else Units.of(target, rows)
        warn_outliers(target, units)
        source = self._make_source(rows, units)
        ends = Ends(source, units.inward(target))
        ends, held_out_ends = hold_out(ends, self.early_stopping, self.max_iter)
        seeds = self._make_seeds(5, goes_on=goes_on)
        network: Any = make_network(
            self.network, self.hidden_layer_sizes, self.image_shape, target.shape[1], seeds[0]
        )
        fitted.mean_, fitted.scale_ = units
        constant = fitted._find_constant(target, goes_on=goes_on)
        fitted._constant = constant if self.t_end == 1 else _NO_COLUMNS
        fitted.source_, fitted._score_seed = source, seeds[3]
        fitted.blur_ = _resolve_blur(self.blur, target.shape[1])
        fitted.learning_rate_ = resolve_learning_rate(self.learning_rate, network)
        fitted._last_time = self.t_end * (self.n_steps - 1) / self.n_steps
        fitted._end_time, fitted._n_steps = self.t_end, self.n_steps
        x_target = units.inward(target)
        fitted._hull = self._hull.joined(x_target) if goes_on and self._hull else Hull.of(x_target)
        fitted._pace = None if self.schedule == "straight" else self.n_steps * self._step_size()
        if goes_on:
            network = resume(self.velocity_network_, network)

        data = X_source, y if X_target is None else X_target
        fit = Fit(self, *data, n_stages=3 if held_out_ends else 2)
        simulating = fit.stage("simulate", self._choose_n_simulations(ends))
        pool = self._simulate(ends, seeds[1], device, simulating)
        held_out = held_out_ends and self._simulate_held_out(held_out_ends, seeds[4], device, fit)
        student = network if goes_on else _standardise(network, pool, seeds[2])
        network, history = fitted._train(student, pool, held_out, seeds[2], fit)

        fitted.velocity_network_ = network
        fitted.history_ = self.history_ + history if goes_on else history
        fitted.n_iter_ = len(fitted.history_)
        self._become(fitted)
        fit.end()
        return self

    def velocity(self, t: float, X: ArrayLike) -> Any:
        """Evaluate the learned velocity field.

        Parameters
        ----------
        t : float
            Time, from 0 (source) to the end of the flow. Past the last time trained, the
            start of the last step, the field is held.
        X : array-like of shape (n_samples, n_features)
            Positions, in data units.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            dx/dt, in data units per unit of time.

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
        >>> flow.velocity(0.5, [[5.0, 5.0]]).round()  # 10 units in a unit of time
        array([[10., 10.]])
        """
        rows = self._check_rows(X)
        x = self._inward(rows)
        field = torch.no_grad()(self._field(x.dtype))
        chunks = (chunk.to(self.device_) for chunk in self._chunks(x, n_states=1))
        u = torch.cat([field(chunk.new_full((len(chunk),), t), chunk).cpu() for chunk in chunks])
        return _as_given((u.numpy() * self.scale_).astype(rows.dtype, copy=False), X)

    @available_if(_has_density)
    def score_samples(self, X: ArrayLike) -> Any:
        r"""Evaluate the log-density of the points that `sample` draws.

        Only where the source has a density: ``source="gaussian"``, or an object with
        ``score_samples`` of its own, such as a frozen
        :class:`~sklearn.mixture.GaussianMixture`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points, in data units.

        Returns
        -------
        ndarray of shape (n_samples,)
            Logarithms of the density, in data units, as of scikit-learn's density estimators;
            minus infinity where no source point is carried.

        Raises
        ------
        AttributeError
            If the source is an array: it has samples but no density.
        NotFittedError
            If the sampler has not been fitted.
        ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Warns
        -----
        UserWarning
            If the flow folds: several source points are then carried to the same place, and
            only one of them is counted.
        ConvergenceWarning
            If no source point was found for some of the rows.

        Notes
        -----
        The density is that of the steps which `sample` takes, not of the differential equation
        behind them: it is the one that integrates to one over what is sampled, at any
        `n_sampling_steps` and `ode_method`. With :math:`x_{k+1} = F_k(x_k)` and the units
        :math:`X = m + s\,x`,

        .. math:: \log p(X) = \log p_0(x_0) - \sum_k \log|\det \nabla F_k(x_k)| - d \log s.

        Steps are undone by Newton's method, and Jacobians are exact in any dimension, at d
        backward passes of the network a step: nothing is estimated or random. It takes ten to
        twenty times d the time of a sample. The last step nearly projects, so that densities are
        peaked: where there are many features they tell more about the flow than about the data.
        `sample` sets columns that never vary in the target at the very end; the density is that
        before.

        There is none in :class:`NSGFPlusPlus`: when a point enters its second phase depends on
        the point, so that its steps are not one map after the other.

        References
        ----------
        .. [1] Chen et al., "Neural Ordinary Differential Equations", NeurIPS 2018: the limit of
           small steps.
        .. [2] Behrmann et al., "Invertible Residual Networks", ICML 2019: densities of steps.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(loc=5, size=(500, 1))
        >>> flow = NSGFSampler(source="gaussian", max_iter=200, random_state=0).fit(X)
        >>> near, far = flow.score_samples([[5.0], [9.0]])
        >>> bool(near > far)
        True
        """
        rows = self._check_rows(X)
        x = self._units.inward(rows, torch.float64)
        size = max(1, _JACOBIAN_ENTRIES // x.shape[1] ** 2)
        parts = [self._pull_back(part.to(self.device_)) for part in x.split(size)]
        density, folded, reached = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        _warn_no_map(folded & reached, reached)
        density = torch.where(reached, density, -torch.inf)
        return _as_given(density.numpy() - x.shape[1] * math.log(self.scale_), X)

    def _pull_back(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-densities in standardised units, and where they are none."""
        density = torch.zeros_like(x[:, 0])
        folded = torch.zeros_like(density, dtype=torch.bool)
        reached = ~folded
        for times, method in reversed(self._pieces(x)):
            back = change_of_variables(self._field(x.dtype), x, times, method=method)
            x, density = back.x, density - back.log_det
            folded, reached = folded | back.folded, reached & back.reached
        return density + self.source_.log_density(x), folded, reached

    def _check_parameters(self) -> None:
        self._validate_params()
        check_hidden_layer_sizes(self.hidden_layer_sizes)
        if self.schedule == "straight" and self.step_size is not None:
            raise ValueError(
                'step_size is only used with schedule="constant"; the straight schedule '
                f"chooses its own. Got step_size={self.step_size}: set it to None or change "
                "schedule."
            )
        if self.schedule == "constant" and self.t_end != 1:
            raise ValueError(
                'schedule="constant" always runs to t_end=1; to go less far choose fewer or '
                f"smaller steps, or the straight schedule. Got t_end={self.t_end}."
            )

    def _check_goes_on(self, X_source: Any) -> None:
        super()._check_goes_on(X_source)
        if self.t_end != self._end_time:
            raise ValueError(
                f"The flow was fitted with t_end={self._end_time} and cannot go on to "
                f"t_end={self.t_end}, as its network is told the time in these units. Fit "
                "again with warm_start=False."
            )

    def _simulate_held_out(
        self, ends: Ends, seed: int, device: torch.device, fit: Fit
    ) -> TrajectoryPool:
        """Simulate a tenth of what a full run wants, or as much as is looked at."""
        n_records = min(self._n_records_wanted() / 10, _N_HELD_OUT_RECORDS)
        stage = fit.stage("simulate held-out rows", self._count_simulations(ends, n_records))
        return self._simulate(ends, seed, device, stage)

    def _simulate(
        self, ends: Ends, seed: int, device: torch.device, stage: Stage
    ) -> TrajectoryPool:
        source, target = ends
        n_particles = self._choose_n_particles(ends)
        with stage:
            pool = simulate_sinkhorn_flow(
                dealt(source).draw,
                Deck(target).draw,
                self._make_schedule(),
                n_particles=n_particles,
                n_targets=min(self.n_targets or n_particles, len(target)),
                n_simulations=stage.total,
                blur=_resolve_blur(self.blur, target.shape[1]),
                tol=_POOL_TOL,
                max_iter=_POOL_MAX_ITER,
                seed=seed,
                device=device,
                n_jobs=self.n_jobs,
                directory=self.pool_dir,
                progress=stage.advance,
            )
        _warn_unsolved(pool)
        return pool

    def _choose_n_particles(self, ends: Ends) -> int:
        return min(int(self.n_particles), ends.n_rows)

    def _choose_n_simulations(self, ends: Ends) -> int:
        if self.n_simulations is not None:
            return self.n_simulations
        n_records = min(self._n_records_wanted(), _RECORDS_A_ROW * ends.n_rows)
        positions = self._choose_n_particles(ends) * (int(self.n_steps) + 1)
        largest = _POOL_ENTRIES // (positions * ends.target.shape[1])
        return max(1, min(self._count_simulations(ends, n_records), largest))

    def _n_records_wanted(self) -> float:
        return float(self.max_iter) * self.batch_size / _REUSE

    def _count_simulations(self, ends: Ends, n_records: float) -> int:
        return math.ceil(n_records / (self._choose_n_particles(ends) * int(self.n_steps)))

    def _make_schedule(self) -> Callable[[torch.Generator], Schedule]:
        if self.schedule == "straight":
            return partial(_jittered_schedule, self.n_steps, self.t_end)
        return partial(_fixed_schedule, self.n_steps, self._step_size())

    def _step_size(self) -> float:
        return self.step_size or 1 - 0.01 ** (1 / self.n_steps)

    def _train(
        self,
        student: StandardisedVelocity,
        pool: TrajectoryPool,
        held_out: TrajectoryPool | None,
        seed: int,
        fit: Fit,
    ) -> tuple[nn.Module, TrainingHistory]:
        generator = seeded_generator(seed, 0)
        student = student.to(self.device_)
        unit = float(student.u_scale) ** 2

        def loss(network: nn.Module, records: Records) -> Tensor:
            return velocity_matching_loss(network, *move_records(records, self.device_)) / unit

        validation_loss = None
        if held_out is not None:
            records = held_out.draw(_N_HELD_OUT_RECORDS, generator)
            validation_loss = partial(loss, records=records)
        with fit.stage("train", self.max_iter) as stage:
            trained, history = train(
                student,
                lambda network: loss(network, pool.draw(self.batch_size, generator)),
                max_iter=self.max_iter,
                learning_rate=self.learning_rate_,
                ema_decay=self.ema_decay,
                validation_loss=validation_loss,
                should_stop=lambda _, network: stage.advance(1, partial(self._so_far, network)),
            )
        warn_diverged(history, self.learning_rate_)
        return trained, history

    def _so_far(self, network: nn.Module) -> dict[str, Any]:
        """Return what would make the estimator a fitted one if training ended here."""
        return vars(self) | {"velocity_network_": copy.deepcopy(network).eval()}

    def _soundness(self) -> dict[str, bool]:
        row = torch.zeros(1, self.n_features_in_, device=self.device_)
        u = self._field(torch.float32)(row[:, 0], row).cpu().numpy()
        sound = {"velocity_network_": is_finite(u, tuple(row.shape), np.float32)}
        d = self.n_features_in_
        sound["_hull"] = self._hull is None or self._hull.is_sound(d)
        return super()._soundness() | sound | {"history_": is_history(self.history_)}

    def _n_sampling_steps(self) -> int:
        return self._n_steps if self.n_sampling_steps is None else self.n_sampling_steps

    def _field(self, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the network as a function, in the given precision.

        It is held past its last time, and to velocities that lead to the target.
        """
        network = in_dtype(self.velocity_network_, dtype)
        hull = self._hull and self._hull.to(torch.empty(0, dtype=dtype, device=self.device_))

        def field(t: Tensor, x: Tensor) -> Tensor:
            t = t.clamp(max=self._last_time)
            u = network(t, x)
            if hull is None:
                return u
            left = 1 - t.unsqueeze(-1) if self._pace is None else 1 / self._pace
            return hull.hold(x, u, left)

        return field

    @torch.no_grad()
    def _integrate(self, x: Tensor, *, backward: bool = False) -> Solution:
        x = x.to(self.device_)
        field = self._field(x.dtype)
        pieces = self._pieces(x)
        if backward and self._hull is not None and self._end_time == 1:
            x = self._hull.to(x).draw_in(x)
        solutions = []
        for times, method in reversed(pieces) if backward else pieces:
            solve = partial(invert, tol=inverse_tol(x)) if backward else integrate
            solutions.append(solve(field, x, times, method=method))
            x = solutions[-1].x[-1]
        first, second = solutions
        return Solution(
            torch.cat([first.t, second.t[1:]]),
            torch.cat([first.x, second.x[1:]]),
            first.nfe + second.nfe,
        )

    def _pieces(self, x: Tensor) -> list[tuple[Tensor, str]]:
        """Return times and methods: past the last simulated time the flow is one straight step."""
        grid = self._grid(x)
        return [(grid[:-1], self.ode_method), (grid[-2:], "euler")]

    def _grid(self, x: Tensor) -> Tensor:
        """Equal steps, except that the last begins no later than the last simulated one."""
        # One simulated step is one straight step, however many are asked for.
        n = self._n_sampling_steps() if self._last_time > 0 else 1
        even = torch.linspace(0, self._end_time, n + 1, dtype=x.dtype)
        if even[-2] > self._last_time:
            even[:-1] = torch.linspace(0, self._last_time, n, dtype=x.dtype)
        return even.to(x.device)


def _jittered_schedule(n_steps: int, t_end: float, generator: torch.Generator) -> Schedule:
    return straight_schedule(n_steps, t_end, generator)


def _fixed_schedule(n_steps: int, step_size: float, generator: torch.Generator) -> Schedule:
    return constant_schedule(n_steps, step_size)


@torch.inference_mode(False)
def _standardise(network: nn.Module, pool: TrajectoryPool, seed: int) -> StandardisedVelocity:
    start, end = (pool.positions[:, k].flatten(0, 1) for k in (0, -1))
    u = pool.draw(_N_STATISTICS, seeded_generator(seed, 1)).u
    return StandardisedVelocity(network, start, end, float(pool.times[0, -1]), u)


def _warn_no_map(folded: Tensor, reached: Tensor) -> None:
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
            "reach, or the network is too rough for Newton's method.",
            ConvergenceWarning,
        )


def _warn_unsolved(pool: TrajectoryPool) -> None:
    share = 1 - float(pool.converged.float().mean())
    if share > 0.01:
        warn_user(
            f"{share:.0%} of the transport problems stopped short of a marginal error of "
            f"{_POOL_TOL:g} (worst: {float(pool.marginal_error.max()):.2g}): their velocities "
            "are approximate. Raise blur, or remove far outliers from the data.",
            ConvergenceWarning,
        )
