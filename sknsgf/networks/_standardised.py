"""A network in the units of the flow it is to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StandardisedVelocity(nn.Module):
    r"""A velocity network that sees standardised positions and predicts standardised residuals.

    .. math:: u(t, x) = \bar u + \sigma_u\, \phi\Bigl(t, \frac{x - m(t)}{\sigma(t)}\Bigr)

    where :math:`m(t)` and :math:`\sigma(t)` run linearly from the mean and spread of the
    particles at the start to those at the end, and :math:`\bar u` is the velocity of the mean.
    However far the source is from the target, and however different their widths, the network
    :math:`\phi` has numbers around one on both sides.

    Parameters
    ----------
    network : Module
        The network :math:`\phi`.
    start, end : Tensor of shape (n, d)
        Particles at the start and at the end of the flow.
    t_end : float
        Time at the end of the flow.
    u : Tensor of shape (m, d)
        Velocities along it.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.networks import VelocityMLP
    >>> x = torch.randn(100, 2)
    >>> u = torch.full((100, 2), 500.0)
    >>> network = StandardisedVelocity(VelocityMLP(2), x, x + 500, 1.0, u)
    >>> bool((network(torch.zeros(100), x) / 500 - 1).abs().max() < 0.01)  # before any training
    True
    """

    def __init__(self, network: nn.Module, start: Tensor, end: Tensor, t_end: float, u: Tensor):
        super().__init__()
        self.network = network
        self.t_end = t_end
        means = torch.stack([start.mean(0), end.mean(0)])
        self.register_buffer("means", means)
        self.register_buffer("scales", torch.stack([_spread(start), _spread(end)]))
        self.register_buffer("u_mean", (means[1] - means[0]) / t_end)
        self.register_buffer("u_scale", _spread(u, self.u_mean))

    means: Tensor
    scales: Tensor
    u_mean: Tensor
    u_scale: Tensor

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Predict dx/dt, shape (n, d), at times (n,) and positions (n, d)."""
        done = (t / self.t_end).unsqueeze(-1)
        mean = torch.lerp(self.means[0], self.means[1], done)
        scale = torch.lerp(self.scales[0], self.scales[1], done)
        return torch.addcmul(self.u_mean, self.u_scale, self.network(t, (x - mean) / scale))


def _spread(rows: Tensor, centre: Tensor | None = None) -> Tensor:
    """Root mean square deviation of all entries; 1 where there is none."""
    centre = rows.mean(0) if centre is None else centre
    spread = (rows - centre).square().mean().sqrt()
    # A spread of rounding errors is no unit to measure in.
    meaningful = spread > 1e-5 * rows.abs().amax()
    return torch.where(meaningful, spread, torch.ones_like(spread))
