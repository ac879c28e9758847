"""The default student for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sknsgf.networks._embedding import TimeEmbedding


def perceptron(widths: Sequence[int], n_outputs: int) -> nn.Sequential:
    """Stack linear layers of the given widths, an activation after each but the last."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs))


class VelocityMLP(nn.Module):
    """Multilayer perceptron from time and position to velocity.

    Parameters
    ----------
    n_features : int
        Width d of the rows.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the hidden layers.

    Examples
    --------
    >>> import torch
    >>> VelocityMLP(2, (16,))(torch.zeros(5), torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, n_features: int, hidden_layer_sizes: Sequence[int] = (256, 256, 256)):
        super().__init__()
        self.arguments = {"n_features": n_features, "hidden_layer_sizes": hidden_layer_sizes}
        self.embedding = TimeEmbedding()
        widths = [n_features + self.embedding.n_features, *hidden_layer_sizes]
        self.layers = perceptron(widths, n_features)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Predict dx/dt, shape (n, d), at times (n,) and positions (n, d)."""
        return self.layers(torch.cat([x, self.embedding(t)], -1))
