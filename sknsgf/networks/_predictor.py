"""The network that tells how far along its way a particle is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from sknsgf._arguments import check_size
from sknsgf.networks._mlp import perceptron
from sknsgf.networks._sizes import are_sizes, check_image_shape, check_layer_sizes


class TimePredictor(nn.Module):
    """Multilayer perceptron from position to time in (0, 1).

    Parameters
    ----------
    n_features : int
        Width d of the rows.
    hidden_layer_sizes : int or sequence of int, default=(256, 256, 256)
        Widths of the hidden layers, or that of the only one.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

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

    def __init__(self, n_features: int, hidden_layer_sizes: int | Sequence[int] = (256, 256, 256)):
        super().__init__()
        check_size(n_features, "n_features")
        hidden_layer_sizes = check_layer_sizes(hidden_layer_sizes)
        self.arguments = {"n_features": n_features, "hidden_layer_sizes": hidden_layer_sizes}
        self.layers = perceptron([n_features, *hidden_layer_sizes], n_outputs=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the time (n,) of positions (n, d)."""
        return self.layers(x).squeeze(-1).sigmoid()


class ConvolutionalTimePredictor(nn.Module):
    """Convolutional network from image to time in (0, 1).

    Convolutions that halve the sides, each followed by a rectifier, then the mean over the
    image.

    Parameters
    ----------
    image_shape : tuple of three int
        Channels, height and width (C, H, W).
    widths : sequence of int, default=(32, 64, 128, 256)
        Channels after each convolution.

    Raises
    ------
    ValueError
        If `image_shape` is not made of three positive integers, or `widths` not of one or more.

    Notes
    -----
    Images are rows, as in :class:`VelocityUNet`.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> ConvolutionalTimePredictor((1, 8, 8))(torch.zeros(5, 64)).shape
    torch.Size([5])
    """

    def __init__(self, image_shape: Sequence[int], widths: Sequence[int] = (32, 64, 128, 256)):
        super().__init__()
        check_image_shape(image_shape)
        if not are_sizes(widths) or not len(widths):
            raise ValueError(f"widths must be one or more positive integers, got {widths!r}.")
        self.arguments = {"image_shape": image_shape, "widths": widths}
        self.image_shape = tuple(image_shape)
        pairs = pairwise([image_shape[0], *widths])
        self.convolutions = nn.Sequential(
            *(
                layer
                for pair in pairs
                for layer in (nn.Conv2d(*pair, 3, stride=2, padding=1), nn.ReLU())
            )
        )
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the time (n,) of rows (n, C * H * W)."""
        features = self.convolutions(x.reshape(-1, *self.image_shape)).mean((-2, -1))
        return self.last(features).squeeze(-1).sigmoid()
