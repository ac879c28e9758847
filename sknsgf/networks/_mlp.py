"""The default student for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sknsgf._arguments import check_size
from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._sizes import check_layer_sizes


def perceptron(
    widths: Sequence[int], n_outputs: int, *, layer_norm: bool = False
) -> nn.Sequential:
    """Stack linear layers of the given widths, an activation after each but the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        # Without weights of its own, whose gradients would be summed in an order that depends on
        # the number of threads.
        norm: list[nn.Module] = (
            [nn.LayerNorm(n_out, elementwise_affine=False)] if layer_norm else []
        )
        layers += [nn.Linear(n_in, n_out), *norm, nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs))


class VelocityMLP(nn.Module):
    """Multilayer perceptron from time and position to velocity.

    Parameters
    ----------
    n_features : int
        Width d of the rows.
    hidden_layer_sizes : int or sequence of int, default=(256, 256, 256)
        Widths of the hidden layers, or that of the only one.
    layer_norm : bool, default=True
        Whether each hidden layer is normalised. What the network says is then bounded, however
        far its input is from all it was trained on.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    Examples
    --------
    >>> import torch
    >>> VelocityMLP(2, (16,))(torch.zeros(5), torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: int | Sequence[int] = (256, 256, 256),
        *,
        layer_norm: bool = True,
    ):
        super().__init__()
        check_size(n_features, "n_features")
        hidden_layer_sizes = check_layer_sizes(hidden_layer_sizes)
        self.arguments = {
            "n_features": n_features,
            "hidden_layer_sizes": hidden_layer_sizes,
            "layer_norm": layer_norm,
        }
        self.embedding = TimeEmbedding()
        widths = [n_features + self.embedding.n_features, *hidden_layer_sizes]
        self.layers = perceptron(widths, n_features, layer_norm=layer_norm)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Predict dx/dt, shape (n, d), at times (n,) and positions (n, d)."""
        return self.layers(torch.cat([x, self.embedding(t)], -1))
