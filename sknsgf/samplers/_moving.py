"""Standardised rows, moved some at a time, and what is known of where they went."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sknsgf._random import seeded_generator, stream
from sknsgf._surroundings import undisturbed
from sknsgf.algorithms import Map
from sknsgf.flow import Hull, Rows, Source
from sknsgf.ode import Inverse
from sknsgf.samplers._units import Units
from sknsgf.samplers._warnings import warn_outside

_CHUNK_ENTRIES = 2**24  # numbers a batch of trajectories may hold: 64 MB in float32
_CHUNK_ROWS = 2**11  # whose layers fit in a cache
_N_KEPT = 40  # states that looking for where a row came from takes, beside its path
_N_DRAWN = 1000  # points that tell how far a source reaches that is no array
_OUTSIDE, _FEW = 2.5, 0.05  # times as far out as the source, and the share that may be
_INFINITY = 1e9  # times as far out
_REACHED, _ROUNDED = 1e-6, 2**13  # in standardised units, and in rounding errors of a row


class MovingMixin:
    """How a sampler moves rows, in standardised units."""

    mean_: NDArray[np.float64]
    scale_: float
    device_: torch.device
    _source_ball: Hull | None = None  # in files from before there was any

    def learned_map(self, dtype: torch.dtype = torch.float32) -> Map:
        """Return what was learned as a map on tensors."""
        raise NotImplementedError

    @property
    def _units(self) -> Units:
        # In files from before the source had an origin of its own it is the target's.
        return Units(self.mean_, self.scale_, vars(self).get("source_origin_", self.mean_))

    def _way_left(self, t: Any = 1.0) -> Any:
        """Tell what is left of the way between the origins; if no time is given, at the end."""
        return 1 - t

    def _inward(self, rows: NDArray, left: float) -> Tensor:
        """Standardise rows in their own precision, and keep to what can be squared in it."""
        double = rows.dtype == np.float64 and self.device_.type != "mps"
        x = self._units.inward(rows, torch.float64 if double else torch.float32, left)
        most = torch.finfo(x.dtype).max ** 0.3
        return x.clamp(-most, most)

    def _from_source(self, rows: NDArray) -> Tensor:
        """Standardise rows of the source; beyond all measure they are the same to a network."""
        x = self._inward(rows, left=1)
        if self._source_ball is None:
            return x
        centre, radius, _ = self._source_ball.to(x)
        most = _INFINITY * torch.where(radius > 0, radius, 1)
        return x.clamp(centre - most, centre + most)

    def _chunks(self, x: Tensor, n_states: int) -> tuple[Tensor, ...]:
        """Split rows so that neither states nor the layers of a network fill the memory."""
        return x.split(max(1, min(_CHUNK_ROWS, _CHUNK_ENTRIES // (x.shape[1] * n_states))))

    @undisturbed
    def _move(self, x: Tensor) -> Tensor:
        forward = self.learned_map(x.dtype).forward
        return torch.cat([forward(part.to(self.device_)).cpu() for part in self._chunks(x, 1)])

    @undisturbed
    def _move_back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find what is moved to these rows, and tell for which it was found."""
        learned = self.learned_map(x.dtype)
        parts = self._chunks(x, learned.n_states + _N_KEPT)
        found = [self._settle(part, learned.backward(part.to(self.device_))) for part in parts]
        starts, reached = zip(*found, strict=True)
        return torch.cat(starts), torch.cat(reached)

    def _settle(self, x: Tensor, back: Inverse) -> tuple[Tensor, Tensor]:
        """Tell where rows came from, and whether they did; those that did not stay near."""
        start, error = back.x[-1].cpu(), back.error.cpu()
        rounding = torch.finfo(x.dtype).eps * x.norm(dim=1).clamp(min=1)
        reached = error <= _REACHED + _ROUNDED * rounding
        if self._source_ball is not None:
            near = self._source_ball.to(x).draw_in(start)
            start = torch.where(reached[:, None], start, near)
        return start, reached

    def _warn_of_outside(self, x: Tensor) -> None:
        """Tell the user if rows lie where the flow was never trained."""
        if self._source_ball is None:
            return
        outside = self._source_ball.to(x).is_beyond(x, _OUTSIDE)
        if outside.all() or outside.sum() > 1 + _FEW * len(x):
            warn_outside(float(outside.double().mean()), _OUTSIDE)


def ball_around(source: Source, seed: int, earlier: Hull | None) -> Hull:
    """Tell how far a source reaches, and those of the fits that one goes on from."""
    if isinstance(source, Rows):
        ball = Hull.ball(source.x)
    else:
        ball = Hull.ball(source.draw(_N_DRAWN, seeded_generator(stream(seed, "ball"), 0)))
    if earlier is None:
        return ball
    reach = (ball.centre - earlier.centre).norm() + ball.radius
    return earlier._replace(radius=earlier.radius.maximum(reach))
