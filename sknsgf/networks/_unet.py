"""The student for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    scaled_dot_product_attention,
    silu,
)

from sknsgf._arguments import check_size
from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._sizes import check_image_shape

_N_FREQUENCIES = 8
_COARSEST = 7  # side that is not halved further
_WIDEST = 4  # times the width, however deep


class VelocityUNet(nn.Module):
    """Convolutional network with skip connections from time and image to velocity.

    Residual blocks with group normalisation, told the time by a scale and a shift; the sides
    of the image are halved, odd ones rounded up, until the shorter is 7 or less, and
    self-attention looks across the coarsest image. The last layer begins at zero.

    Parameters
    ----------
    image_shape : tuple of three int
        Channels, height and width (C, H, W).
    width : int, default=32
        Channels at full resolution; a level below has twice as many, at most four times
        `width`.
    patch_size : int, default=1
        Side of the square patches of pixels that are read, and written, as one. Two is about
        four times as fast and leaves little to be seen of it at 28 x 28.
    attention : bool, default=True
        Whether the coarsest level has self-attention.

    Raises
    ------
    ValueError
        If `image_shape` is not made of three positive integers, `width` or `patch_size` is not
        one, or the sides are not multiples of `patch_size`.

    Notes
    -----
    Images are rows here as everywhere in the package, so that a row of shape (C * H * W,) is
    channel first: ``image.reshape(-1)`` of an array (C, H, W).

    References
    ----------
    .. [1] Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> network = VelocityUNet((1, 28, 28), width=8)
    >>> network(torch.zeros(5), torch.zeros(5, 784)).shape
    torch.Size([5, 784])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int = 32,
        *,
        patch_size: int = 1,
        attention: bool = True,
    ):
        super().__init__()
        check_image_shape(image_shape)
        check_size(width, "width")
        check_size(patch_size, "patch_size")
        if any(side % patch_size for side in image_shape[1:]):
            raise ValueError(
                f"patch_size={patch_size} does not divide both sides of images of shape "
                f"{tuple(image_shape)!r}."
            )
        self.arguments = {
            "image_shape": image_shape,
            "width": width,
            "patch_size": patch_size,
            "attention": attention,
        }
        self.image_shape, self.patch_size = tuple(image_shape), patch_size
        channels, *sides = self.image_shape
        channels *= patch_size**2
        n_halvings = max(0, math.ceil(math.log2(min(sides) / patch_size / _COARSEST)))
        widths = [min(2**level, _WIDEST) * width for level in range(n_halvings + 1)]
        n_times = 4 * width
        embedding = TimeEmbedding(_N_FREQUENCIES)
        self.time = nn.Sequential(embedding, nn.Linear(embedding.n_features, n_times), nn.SiLU())
        self.first = _convolution(channels, width)
        self.down = nn.ModuleList(_Block(n, n, n_times) for n in widths[:-1])
        self.halve = nn.ModuleList(_convolution(*pair, stride=2) for pair in pairwise(widths))
        self.before = _Block(widths[-1], widths[-1], n_times)
        self.attention = _Attention(widths[-1]) if attention else nn.Identity()
        self.after = _Block(widths[-1], widths[-1], n_times)
        self.up = nn.ModuleList(_Block(m + n, n, n_times) for n, m in pairwise(widths))
        self.norm = _normalisation(width)
        self.last = _Still(width, channels, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Predict dx/dt, shape (n, C * H * W), at times (n,) and rows (n, C * H * W)."""
        time = self.time(t)
        image = pixel_unshuffle(x.reshape(-1, *self.image_shape), self.patch_size)
        image = self.first(image)
        skipped = []
        for block, halve in zip(self.down, self.halve, strict=True):
            skipped.append(block(image, time))
            image = halve(skipped[-1])
        image = self.after(self.attention(self.before(image, time)), time)
        for block in reversed(self.up):
            skip = skipped.pop()
            image = interpolate(image, skip.shape[-2:])
            image = block(torch.cat([image, skip], 1), time)
        image = self.last(silu(self.norm(image)))
        return pixel_shuffle(image, self.patch_size).reshape(x.shape)


class _Still(nn.Conv2d):
    """A convolution that begins at zero."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class _Block(nn.Module):
    """Two convolutions around which the image passes unchanged; time scales and shifts."""

    def __init__(self, n_in: int, n_out: int, n_times: int):
        super().__init__()
        self.norm_in, self.norm_out = _normalisation(n_in), _normalisation(n_out)
        self.convolve_in, self.convolve_out = _convolution(n_in, n_out), _convolution(n_out, n_out)
        self.modulate = nn.Linear(n_times, 2 * n_out)
        self.past = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        inner = self.convolve_in(silu(self.norm_in(image)))
        scale, shift = self.modulate(time)[:, :, None, None].chunk(2, 1)
        inner = torch.addcmul(shift, self.norm_out(inner), 1 + scale)
        return self.past(image) + self.convolve_out(silu(inner))


class _Attention(nn.Module):
    """Every pixel looks at every other, from several sides."""

    def __init__(self, width: int):
        super().__init__()
        self.n_heads = math.gcd(width, 4)
        self.norm = _normalisation(width)
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, image: Tensor) -> Tensor:
        pixels = self.norm(image).flatten(2).mT
        heads = self.project_in(pixels).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return image + self.project_out(seen).mT.reshape(image.shape)


def _convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1)


def _normalisation(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, 8), width)
