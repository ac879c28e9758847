"""Where a flow may end: an outer bound of the hull of its targets."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf._arguments import check_tensor

_N_EXTREMES = 64  # rows that a direction of its own is kept for
_FREE = 1.05  # share of its reach within which nothing is changed
_MOST = 1.2  # share of its reach that nothing goes beyond


class Hull(NamedTuple):
    r"""A body that contains the convex hull of points and is little larger.

    Along the direction :math:`\theta` from the centre it reaches
    :math:`\max(r, \max_k \langle y_k, \theta \rangle)`, with :math:`y_k` the farthest points and r
    the distance of the next one. A single outlier widens it in its own direction alone.

    Attributes
    ----------
    centre : Tensor of shape (d,)
        Mean of the points.
    radius : Tensor of shape ()
        Distance from it within which all points lie but the extremes.
    extremes : Tensor of shape (k, d)
        The farthest points, relative to the centre.

    Examples
    --------
    >>> import torch
    >>> corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    >>> hull = Hull.of(corners)
    >>> promised = torch.tensor([[1.0, 1.0], [20.0, 0.0]])  # what velocities lead to
    >>> hull.hold(torch.zeros(2, 2), promised, left=1.0)
    tensor([[1.0000, 1.0000],
            [1.1988, 0.0000]])
    """

    centre: Tensor
    radius: Tensor
    extremes: Tensor

    @classmethod
    def of(cls, points: Tensor) -> Hull:
        """Bound the hull of points of shape (n, d), one or more.

        Raises
        ------
        TypeError, ValueError
            If `points` are not finite numbers of that shape.
        """
        check_tensor(points, "points")
        if points.ndim != 2 or not points.numel() or not points.isfinite().all():
            raise ValueError(
                f"points must be finite and of shape (n, d), got shape {tuple(points.shape)}."
            )
        nothing = points.new_zeros(())
        return cls(points.mean(0), nothing, points[:0]).joined(points)

    @classmethod
    def ball(cls, points: Tensor) -> Hull:
        """Bound points of shape (n, d) by a ball, but for the farthest one in a hundred.

        Of few points it is a little wider than they are, as is the law that they come from.
        """
        n, centre = len(points), points.mean(0)
        distances = (points - centre).norm(dim=1)
        radius = distances.kthvalue(math.ceil(0.99 * n)).values * (n + 1) / max(1, n - 1)
        rounding = 4 * torch.finfo(points.dtype).eps * points.norm(dim=1).amax()
        return cls(centre, radius + rounding, torch.zeros_like(points[:1]))

    def joined(self, points: Tensor) -> Hull:
        """Return a hull around the same centre that contains further points (n, d), too."""
        points = torch.cat([self.extremes, points - self.centre])
        distances = points.norm(dim=1)
        order = distances.argsort(descending=True, stable=True)
        inner = order[_N_EXTREMES : _N_EXTREMES + 1]
        radius = torch.cat([self.radius[None], distances[inner]]).amax()
        return Hull(self.centre, radius, points[order[:_N_EXTREMES]])

    def is_sound(self, d: int) -> bool:
        """Tell whether it bounds points of d columns."""
        shapes = [tuple(part.shape) for part in self]
        return (
            shapes == [(d,), (), (len(self.extremes), d)]
            and len(self.extremes) > 0
            and all(part.dtype == torch.float32 and part.isfinite().all() for part in self)
            and float(self.radius) >= 0
        )

    def to(self, x: Tensor) -> Hull:
        """Bring it to the device and precision of a tensor."""
        return Hull(*(part.to(x) for part in self))

    def hold(self, x: Tensor, u: Tensor, left: Tensor | float) -> Tensor:
        """Correct velocities that lead far out of it.

        Rows of the same law that were not seen may lie a little farther out, so it has some
        give: up to 1.05 times its reach nothing is changed, what is beyond is drawn in smoothly
        and in order, and nothing goes beyond 1.2 times. So it cannot fold a flow.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Positions.
        u : Tensor of shape (n, d)
            Velocities; ``x + left * u`` is where each promises to lead.
        left : float or Tensor of shape (n, 1)
            Time left. Where there is none nothing is changed.

        Returns
        -------
        Tensor of shape (n, d)
            The velocities, those that lead nowhere far to the bit.
        """
        left = left if isinstance(left, Tensor) else u.new_tensor(left)
        far, towards, reach, share = self._beyond(torch.addcmul(x, left, u), _FREE)
        if left.ndim:
            going = left[far, 0] > 0
            far, towards, reach, share = (p[going] for p in (far, towards, reach, share))
        if not len(far):
            return u
        give = _MOST - _FREE
        kept = reach * (_FREE + give / (1 + give / (share - _FREE)))
        end = self.centre + kept.unsqueeze(-1) * towards
        held = (end - x[far]) / (left[far] if left.ndim else left)
        return u.index_put((far,), held)

    def is_beyond(self, x: Tensor, most: float) -> Tensor:
        """Tell which points are beyond so many times its reach."""
        beyond = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        beyond[self._beyond(x, most)[0]] = True
        return beyond

    def draw_in(self, x: Tensor) -> Tensor:
        """Bring points that no promise leads to, beyond 1.2 times its reach, to 1.05 times it."""
        far, towards, reach, _ = self._beyond(x, _MOST * (1 + 1e-5))  # but for rounding
        edge = self.centre + _FREE * reach.unsqueeze(-1) * towards
        return x.index_put((far,), edge) if len(far) else x

    def _beyond(self, x: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find the points beyond so many times its reach.

        Returns their indices, directions from the centre, its reach there and their share of it.
        """
        way = x - self.centre
        distance = way.norm(dim=-1)
        far = (distance > most * self.radius).nonzero().squeeze(-1)
        towards = way[far] / distance[far].unsqueeze(-1)
        reach = (towards @ self.extremes.mT).amax(-1).maximum(self.radius)
        share = distance[far] / reach
        out = share > most
        return far[out], towards[out], reach[out], share[out]
