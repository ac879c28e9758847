"""The network that tells how far along its way a particle is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sknsgf.networks._mlp import perceptron


class TimePredictor(nn.Module):
    """Multilayer perceptron from position to time in (0, 1).

    Parameters
    ----------
    n_features : int
        Width d of the rows.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the hidden layers.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> TimePredictor(2, (16,))(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, n_features: int, hidden_layer_sizes: Sequence[int] = (256, 256, 256)):
        super().__init__()
        self.arguments = {"n_features": n_features, "hidden_layer_sizes": hidden_layer_sizes}
        self.layers = perceptron([n_features, *hidden_layer_sizes], n_outputs=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the time (n,) of positions (n, d)."""
        return self.layers(x).squeeze(-1).sigmoid()
