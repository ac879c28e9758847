"""How a network is told the time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sknsgf._arguments import check_size


class TimeEmbedding(nn.Module):
    r"""Features of time: 2t − 1, then cosines and sines of :math:`\pi k t`.

    Frequencies :math:`\pi k`, not :math:`2 \pi k`: under the latter t = 0 and t = 1 look the
    same.

    Parameters
    ----------
    n_frequencies : int, default=0
        How many cosines and sines follow the linear feature.

    Raises
    ------
    ValueError
        If it is not a whole number, 0 or more.

    Examples
    --------
    >>> import torch
    >>> TimeEmbedding(1)(torch.tensor([0.0, 1.0])).round()
    tensor([[-1.,  1.,  0.],
            [ 1., -1., -0.]])
    """

    def __init__(self, n_frequencies: int = 0):
        super().__init__()
        self.n_frequencies = check_size(n_frequencies, "n_frequencies", least=0)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return 1 + 2 * self.n_frequencies

    def forward(self, t: Tensor) -> Tensor:
        """Embed times of shape (n,) as rows of shape (n, n_features)."""
        t = t.unsqueeze(-1)
        if not self.n_frequencies:
            return 2 * t - 1
        k = torch.arange(1, self.n_frequencies + 1, dtype=torch.float32, device=t.device)
        angles = t * (math.pi * k).to(t)
        return torch.cat([2 * t - 1, angles.cos(), angles.sin()], -1)
