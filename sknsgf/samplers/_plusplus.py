"""NSGFPlusPlus: a few Sinkhorn steps, then a straight flow; Algorithms 3 and 4 of the paper."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import Tensor, nn

from sknsgf.flow import (
    Records,
    coupled_pairs,
    large_pairs,
    seeded_generator,
    straight_records,
)
from sknsgf.networks import StandardisedVelocity
from sknsgf.ode import Inverse, Solution, integrate, invert
from sknsgf.samplers._base import BaseFlowSampler
from sknsgf.samplers._ends import Ends, hold_out, split
from sknsgf.samplers._nsgf import NSGFSampler
from sknsgf.samplers._saving import is_history
from sknsgf.samplers._source import Rows, Source, dealt, is_finite
from sknsgf.samplers._stages import Fit, Stage, with_callbacks
from sknsgf.samplers._students import (
    check_hidden_layer_sizes,
    check_images,
    find_device,
    in_dtype,
    inverse_tol,
    make_network,
    make_time_predictor,
    move_records,
    resolve_learning_rate,
    resume,
    warn_diverged,
)
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import warn_user
from sknsgf.training import (
    TrainingHistory,
    time_prediction_loss,
    train,
    velocity_matching_loss,
)

_N_STARTS = 2**15  # most points at the end of the Sinkhorn steps that lines start from
_REUSE = 16  # lines that start from each of them, where they can be drawn at will
_N_UNSEEN = 2**12  # records on lines between rows held out
_N_STATISTICS = 2**13
_N_SWITCHES = 1024
_EMA_DECAY = 0.995
_N_LARGE = 2**13  # points of each cloud that a large coupling is solved for
_SPARE_ROWS = 50  # of a source: in fewer, none is spared for measuring switch times
_MOST_STEPS = 5  # of the first phase, without a warning
_PERCEPTRON_RATE = 3e-3  # targets of the straight flow are noisier than velocities
_LATE = 0.95  # median switch time past which nothing is left for the straight flow to do

Draw = Callable[[torch.Generator], Records]


class Lines(NamedTuple):
    """Straight lines: what draws records on them, and records on lines between rows held out."""

    draw: Draw
    unseen: Records | None


class NSGFPlusPlus(BaseFlowSampler):
    r"""NSGF++: a few steps of the Sinkhorn flow, then a straight flow to the target.

    The Sinkhorn flow takes points half of the way to the target in few steps; a straight flow,
    trained on lines between pairs of points, takes them the rest of it. Meant for data of many
    columns, images above all, where :class:`NSGFSampler` alone blurs.

    Parameters
    ----------
    sinkhorn_flow : NSGFSampler, default=None
        The first phase; cloned, never fitted in place. Its `source`, `device`, `n_jobs`,
        `random_state` and `verbose` are replaced by this estimator's, `image_shape` if it is
        given. None takes ``NSGFSampler(n_steps=5, t_end=0.5)``, which goes half of the way, with
        the training parameters given here. Its `early_stopping` holds for the second phase, too.
    straight_from : {"flow", "source"}, default="flow"
        Where the straight flow's lines start. "flow": where the first phase ends. "source": at
        the source, as in the paper; it is then entered midway, and a time predictor tells for
        every point how far along it already is.
    coupling : {"auto", "independent", "minibatch", "large"}, default="auto"
        How lines are paired. "independent": at random. "minibatch": by entropic optimal
        transport within each batch. "large": by transport between up to 8192 starts and as
        many target rows, solved beforehand, and again for others if there are more. "auto" is
        "large" for lines from the first phase and "independent" for lines from the source.
    switch : {"predict", "fixed"}, default="predict"
        When a point enters the straight flow that starts at the source: at its predicted
        time, or at the `t_end` of the first phase.
    n_straight_steps : int, default=20
        Euler steps of the straight flow, for every point. Read at every call.
    straight_step_size : float, default=None
        Length of a step of the straight flow, in (0, 1]: the fixed step of the paper, which
        then takes the place of `n_straight_steps`. A point that enters at t takes
        ``ceil((1 - t) / straight_step_size)`` steps, the last of them shorter. Read at every
        call.
    source : None, "gaussian" or object with ``sample(n)``, default=None
        Where the flow starts, as in :class:`NSGFSampler`.
    network : {"auto", "mlp", "unet"}, Module or callable, default="auto"
        The network of the straight flow and, by default, of the first phase, as in
        :class:`NSGFSampler`.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Hidden layers of perceptrons.
    image_shape : tuple of three int, default=None
        Channels, height and width (C, H, W) of images, one a row, as in
        :class:`NSGFSampler`. The time predictor is then convolutional too, unless
        `network` is "mlp".
    max_iter : int, default=3000
        Training steps of each of the networks.
    learning_rate : float or "auto", default="auto"
        Peak learning rate, of the first phase too by default. "auto" is 3e-3 for perceptrons
        and 2e-3 for any other network.
    batch_size : int, default=256
        Records in a training step.
    warm_start : bool, default=False
        Whether `fit` goes on where the last fit ended, as `partial_fit` does, rather than
        starting again.
    score_blur : float or "auto", default="auto"
        Resolution at which `score` judges, as in :class:`NSGFSampler`.
    device : str or torch.device, default="auto"
        Where to compute, as in :class:`NSGFSampler`.
    n_jobs : int, default=None
        Simulations computed in parallel, as in :class:`NSGFSampler`.
    random_state : int, RandomState or None, default=None
        Seed, as in :class:`NSGFSampler`.
    verbose : int, default=0
        Show progress bars.

    Attributes
    ----------
    sinkhorn_flow_ : NSGFSampler
        The fitted first phase.
    straight_network_ : Module
        Velocity network of the straight flow.
    time_predictor_ : Module or None
        The time predictor, where one is used.
    switch_time_ : ndarray of shape (n_points,)
        Times at which points drawn from the source enter the straight flow: 0 where it starts
        at the end of the first phase. Predicted ones are those of rows that nothing was fitted
        to, a tenth of the source, where that is an array of 50 rows or more.
    history_ : dict of str to TrainingHistory
        Losses of "sinkhorn_flow", "straight_flow" and, where used, "time_predictor".
    n_iter_ : int
        Training steps done, of all networks.
    learning_rate_ : float
        Peak learning rate of the straight flow.
    source_, mean_, scale_, device_, n_features_in_, feature_names_in_
        As in :class:`NSGFSampler`.

    Raises
    ------
    ValueError
        From `fit`, if a parameter or an array cannot be used. The estimator is then left as
        it was.

    See Also
    --------
    NSGFSampler : The first phase alone.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithms 3 and 4.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknsgf import NSGFPlusPlus
    >>> X = load_digits().data
    >>> model = NSGFPlusPlus(source="gaussian", max_iter=50, random_state=0).fit(X)
    >>> model.sample(10).shape
    (10, 64)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "sinkhorn_flow": [None, NSGFSampler],
        "straight_from": [StrOptions({"source", "flow"})],
        "coupling": [StrOptions({"auto", "independent", "minibatch", "large"})],
        "switch": [StrOptions({"predict", "fixed"})],
        "n_straight_steps": [Interval(Integral, 1, None, closed="left")],
        "straight_step_size": [None, Interval(Real, 0, 1, closed="right")],
        "source": [None, StrOptions({"gaussian"}), HasMethods("sample")],
        "network": [StrOptions({"auto", "mlp", "unet"}), callable],
        "hidden_layer_sizes": ["array-like"],
        "image_shape": [None, "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "score_blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "device": [str, torch.device],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _fitted: ClassVar[dict[str, list[Any]]] = {
        **BaseFlowSampler._fitted,
        "learning_rate_": [Interval(Real, 0, None, closed="neither")],
        "sinkhorn_flow_": [NSGFSampler],
        "straight_network_": [nn.Module],
        "time_predictor_": [None, nn.Module],
        "switch_time_": [np.ndarray],
        "history_": [dict],
        "_switch_fixed": [Interval(Real, 0, 1, closed="both")],
    }
    _parts: ClassVar[tuple[type, ...]] = (NSGFSampler,)

    sinkhorn_flow_: NSGFSampler
    straight_network_: nn.Module
    time_predictor_: nn.Module | None
    history_: dict[str, TrainingHistory]

    def __init__(
        self,
        *,
        sinkhorn_flow: NSGFSampler | None = None,
        straight_from: str = "flow",
        coupling: str = "auto",
        switch: str = "predict",
        n_straight_steps: int = 20,
        straight_step_size: float | None = None,
        source: Any = None,
        network: Any = "auto",
        hidden_layer_sizes: Sequence[int] = (256, 256, 256),
        image_shape: Sequence[int] | None = None,
        max_iter: int = 3000,
        learning_rate: float | str = "auto",
        batch_size: int = 256,
        warm_start: bool = False,
        score_blur: float | str = "auto",
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.sinkhorn_flow = sinkhorn_flow
        self.straight_from = straight_from
        self.coupling = coupling
        self.switch = switch
        self.n_straight_steps = n_straight_steps
        self.straight_step_size = straight_step_size
        self.source = source
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.score_blur = score_blur
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of the first phase by names like ``sinkhorn_flow__blur``.

        Parameters
        ----------
        **params
            Parameters and their values.

        Returns
        -------
        self : NSGFPlusPlus
            The sampler itself.

        Raises
        ------
        ValueError
            If there is no such parameter, or no `sinkhorn_flow` that has it.

        Examples
        --------
        >>> from sknsgf import NSGFPlusPlus, NSGFSampler
        >>> model = NSGFPlusPlus(sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5))
        >>> model.set_params(sinkhorn_flow__blur=0.1).sinkhorn_flow.blur
        0.1
        """
        nested = [name for name in params if name.startswith("sinkhorn_flow__")]
        if nested and params.get("sinkhorn_flow", self.sinkhorn_flow) is None:
            raise ValueError(
                f"{nested[0]} cannot be set, as sinkhorn_flow is None. Give the first phase "
                "explicitly: sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5)."
            )
        return super().set_params(**params)

    @with_callbacks
    def _fit(self, X_source: Any, y: Any, X_target: Any, *, goes_on: bool) -> Self:
        goes_on = goes_on and hasattr(self, "sinkhorn_flow_")
        self._validate_params()
        check_hidden_layer_sizes(self.hidden_layer_sizes)
        device = find_device(self.device)
        rows, target = self._check_rows_and_target(X_source, y, X_target, min_samples=2)
        check_images(self.image_shape, self.network, target.shape[1])
        if goes_on:
            self._check_goes_on(X_source)
        fitted = self._to_be_fitted(X_source, target, device, goes_on=goes_on)
        seeds = self._make_seeds(6, goes_on=goes_on)
        kind = (self.network, self.hidden_layer_sizes, self.image_shape, target.shape[1])
        network: Any = make_network(*kind, seeds[0])
        predictor = self._make_predictor(*kind, seeds[4])
        for_training, for_switching = rows, rows
        if predictor is not None:
            for_training, for_switching = _hold_out_starts(rows)
        units = self._units if goes_on else Units.of(target, for_training)
        fitted.mean_, fitted.scale_ = units
        fitted._constant = fitted._find_constant(target, goes_on=goes_on)
        fitted.source_, fitted._score_seed = self._make_source(rows, units), seeds[5]
        rate = resolve_learning_rate(self.learning_rate, network, _PERCEPTRON_RATE)
        fitted.learning_rate_ = rate
        flow = self._make_sinkhorn_flow(rate, seeds[1])
        if goes_on:
            network = resume(self.straight_network_, network)
            if predictor is not None and self.time_predictor_ is not None:
                predictor = resume(self.time_predictor_, predictor)
            flow = copy.copy(self.sinkhorn_flow_).set_params(**flow.get_params(deep=False))
            vars(flow).pop("feature_names_in_", None)  # arrays are what it goes on with

        n_stages = 2 if predictor is None else 3
        fit = Fit(self, X_source, y if X_target is None else X_target, n_stages)
        with fit.nested("sinkhorn_flow", flow):
            arrays = (target,) if for_training is None else (for_training, target)
            fitted.sinkhorn_flow_ = flow.partial_fit(*arrays)
        if hasattr(fitted, "feature_names_in_"):
            flow.feature_names_in_ = fitted.feature_names_in_
        fitted._switch_fixed = 0.0 if self.straight_from == "flow" else flow.t_end
        ends = Ends(self._make_source(for_training, units), units.inward(target))
        lines = self._make_lines(ends, flow, (seeds[2], seeds[3]))
        student = network if goes_on else _standardise(network, lines.draw, seeds[3])
        histories = {"sinkhorn_flow": flow.history_}
        if predictor is None:
            fitted.time_predictor_ = None
        fitted.straight_network_, history = fitted._train_straight(student, lines, seeds[3], fit)
        histories["straight_flow"] = history
        if predictor is not None:
            predictor, history = fitted._train_predictor(predictor, lines, seeds[4], fit)
            fitted.time_predictor_, histories["time_predictor"] = predictor, history

        fitted.history_ = self._join_histories(histories) if goes_on else histories
        fitted.n_iter_ = sum(map(len, fitted.history_.values()))
        fresh = self._make_source(for_switching, units)
        fitted.switch_time_ = fitted._measure_switch_times(fresh, seeds[5])
        self._become(fitted)
        fit.end()
        return self

    def _check_goes_on(self, X_source: Any) -> None:
        super()._check_goes_on(X_source)
        fitted_from = "flow" if self._switch_fixed == 0 else "source"
        if self.straight_from != fitted_from:
            raise ValueError(
                f'The straight flow was fitted with straight_from="{fitted_from}" and cannot go '
                f'on with "{self.straight_from}": other lines are another flow. Fit again with '
                "warm_start=False."
            )

    def _make_predictor(self, *kind_and_seed: Any) -> nn.Module | None:
        if self.straight_from == "flow" or self.switch == "fixed":
            return None
        return make_time_predictor(*kind_and_seed)

    def _make_sinkhorn_flow(self, rate: float, seed: int) -> NSGFSampler:
        names = ["source", "device", "n_jobs", "verbose"]
        names += [] if self.image_shape is None else ["image_shape"]
        run = {name: getattr(self, name) for name in names}
        if self.sinkhorn_flow is None:
            return NSGFSampler(
                n_steps=5,
                t_end=0.5,
                network=self.network,
                hidden_layer_sizes=self.hidden_layer_sizes,
                max_iter=self.max_iter,
                learning_rate=rate,
                batch_size=self.batch_size,
                random_state=seed,
                **run,
            )
        flow = clone(self.sinkhorn_flow).set_params(**run, random_state=seed)
        flow._check_parameters()
        if flow.n_steps > _MOST_STEPS:
            warn_user(
                f"The first phase has n_steps={flow.n_steps}; more than {_MOST_STEPS} are "
                "simulated and sampled at a cost that the second phase was to save. Use "
                f"sinkhorn_flow=NSGFSampler(n_steps=5, t_end={flow.t_end:g}).",
            )
        return flow

    def _make_lines(self, ends: Ends, flow: NSGFSampler, seeds: tuple[int, int]) -> Lines:
        kept, held_out = hold_out(ends, flow.early_stopping, self.max_iter)
        n_starts = min(_N_STARTS, math.ceil(self.max_iter * self.batch_size / _REUSE))
        draw = self._make_draw(kept, n_starts, flow, seeds)
        if held_out is None:
            return Lines(draw, None)
        draw_unseen = self._make_draw(held_out, _N_UNSEEN, flow, (seeds[0] + 1, seeds[1] + 1))
        return Lines(draw, _gather(draw_unseen, _N_UNSEEN, seeded_generator(seeds[1], 3)))

    def _make_start(self, source: Source, n_starts: int, flow: NSGFSampler, seed: int) -> Source:
        if self.straight_from == "source":
            return source
        n_starts = len(source.x) if isinstance(source, Rows) else n_starts
        return Rows(flow._integrate_chunks(source.draw(n_starts, seeded_generator(seed, 0))))

    def _make_draw(
        self, ends: Ends, n_starts: int, flow: NSGFSampler, seeds: tuple[int, int]
    ) -> Draw:
        """Return what draws a batch of records on straight lines."""
        start = self._make_start(ends.source, n_starts, flow, seeds[0])
        pairs = self._make_pairs(start, Rows(ends.target), flow.blur_, seeds[1])
        return lambda generator: straight_records(*next(pairs), generator)

    def _make_pairs(
        self, start: Source, target: Rows, blur: float, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what batches of lines lead from and to."""
        n, generator = self.batch_size, seeded_generator(seed, 1)
        coupling = self.coupling
        if coupling == "auto":
            coupling = "large" if self.straight_from == "flow" else "independent"
        if coupling == "large":
            n_source = len(start.x) if isinstance(start, Rows) else _N_LARGE
            n_target = min(_N_LARGE, len(target.x))
            return large_pairs(
                start.draw,
                target.draw,
                generator,
                batch_size=n,
                n_source=max(n, min(_N_LARGE, n_source)),
                n_target=n_target,
                fixed_target=n_target == len(target.x),
            )
        draw_start, draw_end = (partial(dealt(side).draw, n) for side in (start, target))
        if coupling == "minibatch":
            return coupled_pairs(draw_start, draw_end, generator, blur=blur)
        return ((draw_start(generator), draw_end(generator)) for _ in itertools.count())

    def _join_histories(self, later: dict[str, TrainingHistory]) -> dict[str, TrainingHistory]:
        """Put histories behind those of earlier fits; the first phase has done so itself."""
        own = later.keys() & self.history_.keys() - {"sinkhorn_flow"}
        return later | {name: self.history_[name] + later[name] for name in own}

    def _train_straight(
        self, student: StandardisedVelocity, lines: Lines, seed: int, fit: Fit
    ) -> tuple[nn.Module, TrainingHistory]:
        unit = float(student.u_scale) ** 2

        def loss(network: nn.Module, records: Records) -> Tensor:
            return velocity_matching_loss(network, *records) / unit

        with fit.stage("straight", self.max_iter) as stage:
            rate = self.learning_rate_
            return self._train("straight_network_", student, loss, lines, rate, seed, stage)

    def _train_predictor(
        self, network: nn.Module, lines: Lines, seed: int, fit: Fit
    ) -> tuple[nn.Module, TrainingHistory]:
        rate = resolve_learning_rate(self.learning_rate, network, _PERCEPTRON_RATE)

        def loss(network: nn.Module, records: Records) -> Tensor:
            return time_prediction_loss(network, records.t, records.x)

        with fit.stage("predictor", self.max_iter) as stage:
            return self._train("time_predictor_", network, loss, lines, rate, seed, stage)

    def _train(
        self,
        name: str,
        network: nn.Module,
        loss: Callable[[nn.Module, Records], Tensor],
        lines: Lines,
        rate: float,
        seed: int,
        stage: Stage,
    ) -> tuple[nn.Module, TrainingHistory]:
        generator = seeded_generator(seed, 0)
        unseen = None if lines.unseen is None else move_records(lines.unseen, self.device_)
        network, history = train(
            network.to(self.device_),
            lambda network: loss(network, move_records(lines.draw(generator), self.device_)),
            max_iter=self.max_iter,
            learning_rate=rate,
            ema_decay=_EMA_DECAY,
            validation_loss=None if unseen is None else lambda network: loss(network, unseen),
            should_stop=lambda _, network: stage.advance(1, partial(self._so_far, name, network)),
        )
        warn_diverged(history, rate)
        return network, history

    def _so_far(self, name: str, network: nn.Module) -> dict[str, Any] | None:
        """Return what would make the estimator a fitted one if training ended here, if it can."""
        parts = vars(self) | {name: copy.deepcopy(network).eval()}
        return parts if {"straight_network_", "time_predictor_"} <= parts.keys() else None

    def _measure_switch_times(self, source: Source, seed: int) -> np.ndarray:
        n = min(_N_SWITCHES, len(source.x)) if isinstance(source, Rows) else _N_SWITCHES
        x = source.draw(n, seeded_generator(seed, 1)).to(self.device_)
        times = self._switch_times(self.sinkhorn_flow_._integrate(x).x[-1]).cpu().numpy()
        if np.median(times) > _LATE:
            warn_user(
                f"Half of the points enter the straight flow after t = {np.median(times):.2f}, "
                "where little is left for it to do. Stop the first phase earlier: "
                "sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5).",
            )
        return times

    @torch.no_grad()
    def _switch_times(self, x: Tensor) -> Tensor:
        """Tell when (n,) points at the end of the first phase enter the straight flow."""
        if self.time_predictor_ is None:
            return torch.full((len(x),), self._switch_fixed, dtype=x.dtype, device=x.device)
        return in_dtype(self.time_predictor_, x.dtype)(x)

    def _soundness(self) -> dict[str, bool]:
        row = torch.zeros(1, self.n_features_in_, device=self.device_)
        u = self.straight_network_(row[:, 0], row).cpu().numpy()
        time = self._switch_times(row).cpu().numpy()
        return super()._soundness() | {
            "sinkhorn_flow_": self.sinkhorn_flow_.n_features_in_ == self.n_features_in_,
            "straight_network_": is_finite(u, tuple(row.shape), np.float32),
            "time_predictor_": is_finite(time, (1,), np.float32),
            "switch_time_": is_finite(self.switch_time_, (len(self.switch_time_),), np.float32),
            "history_": all(map(is_history, self.history_.values())),
        }

    def _n_sampling_steps(self) -> int:
        n_straight = self._n_steps_from(torch.zeros(1, dtype=torch.float64))
        return self.sinkhorn_flow_._n_sampling_steps() + n_straight

    def _integrate(self, x: Tensor, *, backward: bool = False) -> Solution:
        x = x.to(self.device_)
        network, hull = in_dtype(self.straight_network_, x.dtype), self.sinkhorn_flow_._hull
        hull = hull and hull.to(x)

        @torch.no_grad()
        def velocity(t: Tensor, x: Tensor) -> Tensor:
            u = network(t, x)
            return u if hull is None else hull.hold(x, u, 1 - t.unsqueeze(-1))

        if backward and hull is not None:
            x = hull.draw_in(x)
        return (self._backward if backward else self._forward)(velocity, x)

    def _forward(self, velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Solution:
        near = self.sinkhorn_flow_._integrate(x)
        switch = self._switch_times(near.x[-1])
        end = integrate(velocity, near.x[-1], self._straight_grid(switch))
        return _joined(near, end, predictions=int(self.time_predictor_ is not None))

    def _n_steps_from(self, start: Tensor) -> int:
        """Count the steps of the straight flow that points starting at times (n,) need."""
        if self.straight_step_size is None:
            return self.n_straight_steps
        rounding = 4 * torch.finfo(start.dtype).eps
        to_go = 1 - float(start.min()) - rounding  # which is no step of its own
        return max(1, math.ceil(to_go / self.straight_step_size))

    def _straight_grid(self, start: Tensor) -> Tensor:
        """Lay out times (n_steps + 1, n) from each point's start (n,) to 1."""
        if self.straight_step_size is None:
            done = torch.linspace(0, 1, self.n_straight_steps + 1, dtype=start.dtype)
            return torch.lerp(start, torch.ones_like(start), done.to(start.device)[:, None])
        n_steps = self._n_steps_from(start)
        steps = torch.arange(n_steps + 1, dtype=start.dtype, device=start.device)
        grid = (start + self.straight_step_size * steps[:, None]).clamp(max=1)
        grid[-1] = 1  # which rounding may have missed
        return grid

    def _backward(self, velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Solution:
        """Leave the straight flow where the predictor first reaches t, else at its start."""
        last = 0.0 if self.time_predictor_ is not None else self._switch_fixed
        grid = self._straight_grid(x.new_full((len(x),), last))
        straight = invert(velocity, x, grid, tol=inverse_tol(x))
        left, predictions = straight.x[-1], 0
        if self.time_predictor_ is not None:
            predicted = torch.stack([self._switch_times(state) for state in straight.x])
            reached = predicted >= straight.t
            left = straight.x[reached.int().argmax(0), torch.arange(len(x), device=x.device)]
            predictions = len(grid)
        near = self.sinkhorn_flow_._integrate(left, backward=True)
        return _joined(straight, near, predictions)


def _hold_out_starts(rows: Any) -> tuple[Any, Any]:
    """Split a tenth off the rows of a source; a drawn source, None, needs no split."""
    return (rows, rows) if rows is None or len(rows) < _SPARE_ROWS else split(rows)


@torch.inference_mode(False)
def _standardise(network: nn.Module, draw: Draw, seed: int) -> StandardisedVelocity:
    t, x, u = _gather(draw, _N_STATISTICS, seeded_generator(seed, 2))
    start = x - t.unsqueeze(-1) * u
    return StandardisedVelocity(network, start, start + u, 1.0, u)


def _gather(draw: Draw, n: int, generator: torch.Generator) -> Records:
    """Draw batches until there are n records or more."""
    batches = [draw(generator)]
    while len(batches) * len(batches[0].t) < n:
        batches.append(draw(generator))
    return Records(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def _joined(first: Solution | Inverse, second: Solution | Inverse, predictions: int) -> Solution:
    """Put two phases behind each other; times get a column per point."""
    shape = (-1, first.x.shape[1])
    t = [s.t if s.t.ndim == 2 else s.t[:, None].expand(shape) for s in (first, second)]
    nfe = first.nfe + second.nfe + predictions
    return Solution(torch.cat(t), torch.cat([first.x, second.x]), nfe)
