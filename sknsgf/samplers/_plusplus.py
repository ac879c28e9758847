"""NSGFPlusPlus: a few Sinkhorn steps, then a straight flow, for arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sknsgf.algorithms import STRAIGHT_RATE, Learned, Run, TwoPhaseMap, TwoPhases
from sknsgf.flow import Ends
from sknsgf.networks import NetworkSpec, in_dtype
from sknsgf.samplers._base import Attributes, BaseFlowSampler
from sknsgf.samplers._nsgf import (
    NSGFSampler,
    check_sinkhorn_parameters,
    make_sinkhorn_flow,
    sinkhorn_attributes,
)
from sknsgf.samplers._saving import is_sound_array
from sknsgf.samplers._warnings import warn_late, warn_many_steps
from sknsgf.training import TrainingHistory

_MOST_STEPS = 5  # of the first phase, without a warning
_LATE = 0.95  # median switch time past which nothing is left for the straight flow to do


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
    source_, mean_, source_origin_, scale_, device_, n_features_in_, feature_names_in_
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
        **BaseFlowSampler._parameter_constraints,
        "sinkhorn_flow": [None, NSGFSampler],
        "straight_from": [StrOptions({"source", "flow"})],
        "coupling": [StrOptions({"auto", "independent", "minibatch", "large"})],
        "switch": [StrOptions({"predict", "fixed"})],
        "n_straight_steps": [Interval(Integral, 1, None, closed="left")],
        "straight_step_size": [None, Interval(Real, 0, 1, closed="right")],
    }

    __fitted_kinds__: ClassVar[dict[str, list[Any]]] = {
        **BaseFlowSampler.__fitted_kinds__,
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
        hidden_layer_sizes: int | Sequence[int] = (256, 256, 256),
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
        super().__init__(
            source=source,
            warm_start=warm_start,
            score_blur=score_blur,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.sinkhorn_flow = sinkhorn_flow
        self.straight_from = straight_from
        self.coupling = coupling
        self.switch = switch
        self.n_straight_steps = n_straight_steps
        self.straight_step_size = straight_step_size
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size

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

    def _algorithm(self, n_features: int) -> TwoPhases:
        spec = NetworkSpec(n_features, self.network, self.hidden_layer_sizes, self.image_shape)
        flow = self._make_first_phase(self.learning_rate, random_state=None)
        first = make_sinkhorn_flow(flow, n_features)
        if self.sinkhorn_flow is None:
            first = replace(first, perceptron_rate=STRAIGHT_RATE)
        return TwoPhases(
            first=first,
            network=spec,
            straight_from=self.straight_from,
            coupling=self.coupling,
            switch=self.switch,
            n_straight_steps=self.n_straight_steps,
            straight_step_size=self.straight_step_size,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
        )

    def _make_first_phase(self, learning_rate: float | str, random_state: Any) -> NSGFSampler:
        """Return the first phase as an estimator, with what it has of this one."""
        names = ["source", "device", "n_jobs", "verbose"]
        names += [] if self.image_shape is None else ["image_shape"]
        run = {name: getattr(self, name) for name in names} | {"random_state": random_state}
        if self.sinkhorn_flow is not None:
            return clone(self.sinkhorn_flow).set_params(**run)
        return NSGFSampler(
            n_steps=5,
            t_end=0.5,
            network=self.network,
            hidden_layer_sizes=self.hidden_layer_sizes,
            max_iter=self.max_iter,
            learning_rate=learning_rate,
            batch_size=self.batch_size,
            **run,
        )

    def _learned_map(self, dtype: torch.dtype) -> TwoPhaseMap:
        predictor = self.time_predictor_
        return TwoPhaseMap(
            self.sinkhorn_flow_.learned_map(dtype),
            in_dtype(self.straight_network_, dtype),
            None if predictor is None else in_dtype(predictor, dtype),
            switch=self._switch_fixed,
            n_steps=self.n_straight_steps,
            step_size=self.straight_step_size,
        )

    def _attributes(
        self, learned: TwoPhaseMap, algorithm: TwoPhases, common: Attributes
    ) -> Attributes:
        first = algorithm.first
        velocity: Any = learned.first.network
        rate = first.choose_rate(velocity.network)
        flow = self._make_first_phase(rate, common["_score_seed"] % 2**31)
        source, _ = algorithm.spare_starts(common["source_"])
        flow.__dict__.update(common | {"source_": source})
        flow.__dict__.update(sinkhorn_attributes(learned.first, first, common))
        network: Any = learned.network
        return {
            "sinkhorn_flow_": flow,
            "straight_network_": network,
            "time_predictor_": learned.predictor,
            "learning_rate_": algorithm.choose_rate(network.network),
            "_switch_fixed": learned.switch,
        }

    def _outcome(
        self,
        learned: Learned,
        algorithm: TwoPhases,
        ends: Ends,
        run: Run,
        fitted: Attributes,
    ) -> Attributes:
        first = learned.histories["sinkhorn_flow"]
        fitted["sinkhorn_flow_"].__dict__.update({"history_": first, "n_iter_": len(first)})
        times = algorithm.measure_switch_times(ends, run, learned.map).cpu().numpy()
        if np.median(times) > _LATE:
            warn_late(float(np.median(times)))
        return {"switch_time_": times}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        flow = self.sinkhorn_flow
        if flow is not None:
            check_sinkhorn_parameters(flow)
            if flow.n_steps > _MOST_STEPS:
                warn_many_steps(flow.n_steps, _MOST_STEPS, flow.t_end)

    def _check_warm_start(self, X_source: Any, rows: NDArray) -> None:
        super()._check_warm_start(X_source, rows)
        fitted_from = "flow" if self._switch_fixed == 0 else "source"
        if self.straight_from != fitted_from:
            raise ValueError(
                f'The straight flow was fitted with straight_from="{fitted_from}" and cannot go '
                f'on with "{self.straight_from}": other lines are another flow. Fit again with '
                "warm_start=False."
            )

    def _way_left(self, t: Any = None) -> Any:
        return 0.0 if t is None else self.learned_map().way_left(t)

    def __is_sound__(self) -> dict[str, bool]:
        """Tell which parts of a sampler that was loaded fit the others."""
        row = torch.zeros(1, self.n_features_in_, dtype=torch.float32, device=self.device_)
        learned = self.learned_map()
        u = learned.velocity(row[:, 0], row).detach().cpu().numpy()
        time = learned.switch_times(row).cpu().numpy()
        return super().__is_sound__() | {
            "sinkhorn_flow_": self.sinkhorn_flow_.n_features_in_ == self.n_features_in_,
            "straight_network_": is_sound_array(u, tuple(row.shape), np.float32),
            "time_predictor_": is_sound_array(time, (1,), np.float32),
            "switch_time_": is_sound_array(
                self.switch_time_, (len(self.switch_time_),), np.float32
            ),
        }
