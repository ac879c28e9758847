"""Images as rows: what `image_shape` and the network parameter do in both samplers."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.networks import (
    ConvolutionalTimePredictor,
    TimePredictor,
    VelocityMLP,
    VelocityUNet,
)

IMAGES = np.random.default_rng(0).uniform(size=(60, 2 * 5 * 4)).astype(np.float32)
SHAPE = (2, 5, 4)
SAMPLERS = [NSGFSampler, NSGFPlusPlus]
Small = partial(VelocityUNet, width=8)


class PerPixel(torch.nn.Module):
    """A network of one's own, which is told the shape of the images."""

    def __init__(self, image_shape):
        super().__init__()
        self.image_shape = image_shape
        self.layer = torch.nn.Conv2d(image_shape[0], image_shape[0], 1)

    def forward(self, t, x):
        return self.layer(x.unflatten(1, self.image_shape)).flatten(1)


def quick(sampler, **parameters):
    defaults = {"max_iter": 2, "random_state": 0, "source": "gaussian", "batch_size": 16}
    return sampler(**{**defaults, **parameters})


def networks(model):
    """Velocity networks of every phase, inside their units."""
    if isinstance(model, NSGFSampler):
        return [model.velocity_network_.network]
    return [*networks(model.sinkhorn_flow_), model.straight_network_.network]


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestImages:
    def test_rows_in_rows_out(self, sampler):
        model = quick(sampler, image_shape=SHAPE, network=Small).fit(IMAGES)
        assert model.sample(3).shape == (3, 40)
        assert model.sample(3).dtype == np.float32
        moved = model.transform(IMAGES[:5])
        assert model.inverse_transform(moved).shape == moved.shape == (5, 40)

    @pytest.mark.parametrize(
        "parameters, expected, rate",
        [
            ({"image_shape": SHAPE}, VelocityUNet, 2e-3),
            ({"image_shape": SHAPE, "network": "unet"}, VelocityUNet, 2e-3),
            ({"image_shape": SHAPE, "network": "mlp"}, VelocityMLP, 1e-2),
            ({}, VelocityMLP, 1e-2),
            ({"image_shape": list(SHAPE), "network": PerPixel}, PerPixel, 2e-3),
            ({"image_shape": np.array(SHAPE), "network": Small}, VelocityUNet, 2e-3),
            ({"network": PerPixel(SHAPE)}, PerPixel, 2e-3),
            ({"image_shape": SHAPE, "network": Small, "learning_rate": 3e-4}, VelocityUNet, 3e-4),
        ],
        ids=str,
    )
    def test_which_network_and_rate(self, sampler, parameters, expected, rate):
        model = clone(quick(sampler, **parameters)).fit(IMAGES)
        assert all(isinstance(network, expected) for network in networks(model))
        if rate == 1e-2 and sampler is NSGFPlusPlus:
            rate = 3e-3
        assert model.learning_rate_ == rate

    @pytest.mark.parametrize(
        "parameters, match",
        [
            ({"image_shape": (2, 5, 5)}, r"has 50 values but the rows have 40"),
            ({"image_shape": (5, 8)}, "three positive integers"),
            ({"image_shape": (2, -5, -4)}, "three positive integers"),
            ({"image_shape": (2.0, 5, 4)}, "three positive integers"),
            ({"image_shape": (True, 8, 5)}, "three positive integers"),
            ({"image_shape": {2, 5, 4}}, "three positive integers"),
            ({"image_shape": 40}, "image_shape"),
            ({"network": "unet"}, r"pass image_shape=\(C, H, W\)"),
            ({"network": lambda shape: torch.nn.Linear(40, 40)}, "Images arrive as rows"),
            ({"image_shape": SHAPE, "network": lambda shape: None}, "image_shape"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_said_at_once(self, sampler, parameters, match):
        model = quick(sampler, network="mlp").fit(IMAGES).set_params(**parameters)
        before = pickle.dumps(sorted(vars(model)))
        with pytest.raises(ValueError, match=match):
            model.fit(IMAGES)
        assert pickle.dumps(sorted(vars(model))) == before

    def test_an_array_of_images_is_to_be_flattened(self, sampler):
        with pytest.raises(ValueError, match=r"reshape\(len\(X\), -1\)"):
            quick(sampler, image_shape=SHAPE).fit(IMAGES.reshape(-1, *SHAPE))


@pytest.mark.parametrize(
    "network, expected", [("mlp", TimePredictor), (Small, ConvolutionalTimePredictor)]
)
def test_the_time_predictor_goes_with_the_network(network, expected):
    form = {"straight_from": "source", "image_shape": SHAPE, "network": network}
    model = quick(NSGFPlusPlus, **form).fit(IMAGES)
    assert isinstance(model.time_predictor_, expected)


def test_the_first_phase_is_told_the_shape():
    flow = NSGFSampler(n_steps=2, t_end=0.5, max_iter=2)
    model = quick(NSGFPlusPlus, image_shape=SHAPE, sinkhorn_flow=flow).fit(IMAGES)
    assert isinstance(model.sinkhorn_flow_.velocity_network_.network, VelocityUNet)


def test_the_first_phase_may_know_the_shape_alone():
    flow = NSGFSampler(n_steps=2, t_end=0.5, max_iter=2, image_shape=SHAPE)
    first, second = networks(quick(NSGFPlusPlus, sinkhorn_flow=flow).fit(IMAGES))
    assert isinstance(first, VelocityUNet) and isinstance(second, VelocityMLP)
