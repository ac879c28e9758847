"""NSGFSampler: Neural Sinkhorn Gradient Flow for arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sknsgf._arguments import check_share
from sknsgf._arrays import as_given
from sknsgf._surroundings import undisturbed
from sknsgf.algorithms import SinkhornFlow, SinkhornMap
from sknsgf.flow import Hull
from sknsgf.networks import NetworkSpec, in_dtype
from sknsgf.ode import METHODS
from sknsgf.samplers._base import NO_COLUMNS, Attributes, BaseFlowSampler
from sknsgf.samplers._parameters import resolve_blur
from sknsgf.samplers._saving import is_sound_array
from sknsgf.samplers._warnings import warn_no_map
from sknsgf.training import TrainingHistory

_JACOBIAN_ENTRIES = 2**22  # numbers in the Jacobians of the rows done at a time


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
        Step of the simulated flow with ``schedule="constant"``, below 2, from where particles
        overshoot ever more; 1 leads to the targets at once. None chooses it so that 1 %
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
        network reshapes them. While a callable makes a module, on the CPU, torch's global
        generator is seeded by `random_state`; layers that are random in training, such as
        dropout, draw from it as it is and are not covered.
    hidden_layer_sizes : int or sequence of int, default=(256, 256, 256)
        Hidden layers of the perceptron, or the width of a single one.
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
        `velocity` is the same in data units, held to velocities that lead near the target.
    source_ : object
        Draws the points `sample` starts from.
    mean_ : ndarray of shape (n_features,)
        Mean of the target.
    source_origin_ : ndarray of shape (n_features,)
        What source rows are taken relative to: `mean_`, where they are not far from it.
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
    TypeError, ValueError
        From `fit`, if a parameter or an array cannot be used. The estimator is then left as
        it was.

    See Also
    --------
    sknsgf.flow.sinkhorn_velocity : The velocity the network learns.

    Notes
    -----
    The flow of minibatches is not the flow of the full distributions: each particle sees a
    few hundred targets, so the end point is close to the target rather than equal to it.

    No row ends far from the target, whatever the network says of it. End points beyond 1.05 times
    the reach of the target rows from their mean are drawn in, and none lies beyond 1.2 times; an
    outlier among the targets widens this in its own direction. (With ``schedule="constant"`` some
    of the way is always left, and a row far away stays so by that share.)

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
        **BaseFlowSampler._parameter_constraints,
        "blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "step_size": [None, Interval(Real, 0, 2, closed="neither")],  # 2 and more never settle
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_particles": [Interval(Integral, 2, None, closed="left")],
        "n_targets": [None, Interval(Integral, 2, None, closed="left")],
        "n_simulations": [None, Interval(Integral, 1, None, closed="left")],
        "schedule": [StrOptions({"straight", "constant"})],
        "t_end": [Interval(Real, 0, 1, closed="right")],
        "pool_dir": [None, str, HasMethods("__fspath__")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "n_sampling_steps": [None, Interval(Integral, 1, None, closed="left")],
        "ode_method": [StrOptions(set(METHODS))],
    }

    __fitted_kinds__: ClassVar[dict[str, list[Any]]] = {
        **BaseFlowSampler.__fitted_kinds__,
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
    _pace: float | None = None

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
        hidden_layer_sizes: int | Sequence[int] = (256, 256, 256),
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
        super().__init__(
            source=source,
            warm_start=warm_start,
            score_blur=score_blur,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
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
        self.n_sampling_steps = n_sampling_steps
        self.ode_method = ode_method

    def _algorithm(self, n_features: int) -> SinkhornFlow:
        return make_sinkhorn_flow(self, n_features)

    def _learned_map(self, dtype: torch.dtype) -> SinkhornMap:
        return SinkhornMap(
            in_dtype(self.velocity_network_, dtype),
            self._hull,
            t_last=self._last_time,
            t_end=self._end_time,
            pace=self._pace,
            n_steps=self.n_sampling_steps or self._n_steps,
            method=self.ode_method,
        )

    def _attributes(
        self, learned: SinkhornMap, algorithm: SinkhornFlow, common: Attributes
    ) -> Attributes:
        return sinkhorn_attributes(learned, algorithm, common)

    def _check_parameters(self) -> None:
        check_sinkhorn_parameters(self)

    def _check_warm_start(self, X_source: Any, rows: NDArray) -> None:
        super()._check_warm_start(X_source, rows)
        if self.t_end != self._end_time:
            raise ValueError(
                f"The flow was fitted with t_end={self._end_time} and cannot go on to "
                f"t_end={self.t_end}, as its network is told the time in these units. Fit "
                "again with warm_start=False."
            )

    @undisturbed
    @torch.no_grad()
    def velocity(self, t: float, X: ArrayLike) -> Any:
        """Evaluate the learned velocity field, held to velocities that lead near the target.

        Parameters
        ----------
        t : float
            Time in [0, 1], from 0 (source) to the end of the flow. Past the last time trained, the
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
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width, or `t` is not in
            [0, 1].

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
        t = check_share(t, "t")
        left = self._way_left(t)
        x = self._inward(rows, left)
        field = torch.no_grad()(self.learned_map(x.dtype).velocity)
        chunks = (chunk.to(self.device_) for chunk in self._chunks(x, n_states=1))
        u = torch.cat([field(chunk.new_full((len(chunk),), t), chunk).cpu() for chunk in chunks])
        way = self._units.source_origin - self.mean_
        pace = -1.0 if self._pace is None else -self._pace * left
        return as_given((u.numpy() * self.scale_ + pace * way).astype(rows.dtype, copy=False), X)

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
            minus infinity where no source point is carried, and where velocities on the way
            there are held back at the edge of the target.

        Raises
        ------
        AttributeError
            If the source is an array: it has samples but no density.
        NotFittedError
            If the sampler has not been fitted.
        TypeError, ValueError
            If `X` is not a finite two-dimensional array of the fitted width.

        Warns
        -----
        UserWarning
            If the flow folds: several source points are then carried to the same place, and
            only one of them is counted.
        ConvergenceWarning
            If some of the rows have no density: no source point was found for them, or
            velocities are held on the way.

        Notes
        -----
        The density is that of the steps which `sample` takes, not of the differential equation
        behind them: it is the one that integrates to one over what is sampled, at any
        `n_sampling_steps` and `ode_method`, less the share of samples on whose way velocities
        are held. With :math:`x_{k+1} = F_k(x_k)` and the units
        :math:`X = m + s\,x`,

        .. math:: \log p(X) = \log p_0(x_0) - \sum_k \log|\det \nabla F_k(x_k)| - d \log s.

        Steps are undone as by `inverse_transform`, and Jacobians are exact in any dimension, at
        d backward passes of the network a step: nothing is estimated or random. The last step
        nearly projects, so that densities are peaked: where there are many features they tell
        more about the flow than about the data. `sample` sets columns that never vary in the
        target at the very end; the density is that before.

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
        rows = self._check_rows(X).astype(np.float64, copy=False)
        x = self._inward(rows, self._way_left())
        learned = self.learned_map(x.dtype)

        def trace(part: Tensor) -> tuple[Tensor, ...]:
            back = learned.backward(part.to(self.device_))
            log_det, folded = learned.volumes(back.x.flip(0))
            start, reached = self._settle(part, back)
            held = learned.is_held(back.x[-1])
            return start, reached, *(tensor.cpu() for tensor in (log_det, folded, held))

        size = max(1, _JACOBIAN_ENTRIES // x.shape[1] ** 2)
        x, reached, log_det, folded, held = map(
            torch.cat, zip(*map(trace, x.split(size)), strict=True)
        )
        reached &= log_det.isfinite()  # where space is pressed flat there is no density
        warn_no_map(reached, reached & held, reached & folded & ~held)
        density = self.source_.log_density(x) - log_det
        density = torch.where(reached & ~held, density, -torch.inf)
        return as_given(density.numpy() - x.shape[1] * math.log(self.scale_), X)

    def _way_left(self, t: Any = None) -> Any:
        return self.learned_map().way_left(self._end_time if t is None else t)

    def __is_sound__(self) -> dict[str, bool]:
        """Tell which parts of a sampler that was loaded fit the others."""
        row = torch.zeros(1, self.n_features_in_, dtype=torch.float32, device=self.device_)
        u = self.learned_map().velocity(row[:, 0], row).detach().cpu().numpy()
        return super().__is_sound__() | {
            "velocity_network_": is_sound_array(u, tuple(row.shape), np.float32),
            "_hull": self._hull is None or self._hull.is_sound(self.n_features_in_),
        }


def check_sinkhorn_parameters(sampler: NSGFSampler) -> None:
    """Raise unless the parameters fit each other."""
    sampler._validate_params()
    if sampler.schedule == "straight" and sampler.step_size is not None:
        raise ValueError(
            'step_size is only used with schedule="constant"; the straight schedule '
            f"chooses its own. Got step_size={sampler.step_size}: set it to None or change "
            "schedule."
        )
    if sampler.schedule == "constant" and sampler.t_end != 1:
        raise ValueError(
            'schedule="constant" always runs to t_end=1; to go less far choose fewer or '
            f"smaller steps, or the straight schedule. Got t_end={sampler.t_end}."
        )


def make_sinkhorn_flow(sampler: NSGFSampler, n_features: int) -> SinkhornFlow:
    """Return the algorithm that the parameters of a sampler stand for."""
    sizes = sampler.hidden_layer_sizes, sampler.image_shape
    return SinkhornFlow(
        network=NetworkSpec(n_features, sampler.network, *sizes),
        blur=resolve_blur(sampler.blur, n_features),
        step_size=sampler.step_size,
        n_steps=sampler.n_steps,
        n_particles=sampler.n_particles,
        n_targets=sampler.n_targets,
        n_simulations=sampler.n_simulations,
        schedule=sampler.schedule,
        t_end=sampler.t_end,
        pool_dir=sampler.pool_dir,
        max_iter=sampler.max_iter,
        learning_rate=sampler.learning_rate,
        batch_size=sampler.batch_size,
        ema_decay=sampler.ema_decay,
        early_stopping=sampler.early_stopping,
    )


def sinkhorn_attributes(
    learned: SinkhornMap, algorithm: SinkhornFlow, common: Attributes
) -> Attributes:
    """Return the fitted attributes of a sampler that has learned this map."""
    network: Any = learned.network
    return {
        "velocity_network_": network,
        "learning_rate_": algorithm.choose_rate(network.network),
        "blur_": algorithm.blur,
        "_constant": common["_constant"] if learned.t_end == 1 else NO_COLUMNS,
        "_last_time": learned.t_last,
        "_end_time": learned.t_end,
        "_n_steps": learned.n_steps,
        "_hull": learned.hull,
        "_pace": learned.pace,
    }
