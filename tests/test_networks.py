import math

import pytest
import torch

from sknsgf.networks import (
    ConvolutionalTimePredictor,
    TimeEmbedding,
    VelocityMLP,
    VelocityUNet,
)


@pytest.fixture(autouse=True)
def same_weights_every_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def records(n, d, generator, device):
    t = torch.rand(n, dtype=torch.float64, generator=generator)
    x = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return t.to(device), x.to(device)


@pytest.mark.parametrize("n_frequencies", [0, 1, 8])
def test_distinct_times_have_distinct_embeddings(n_frequencies, device):
    times = torch.linspace(0, 1, 101, dtype=torch.float64, device=device)
    rows = TimeEmbedding(n_frequencies).to(device)(times)
    assert rows.shape == (101, TimeEmbedding(n_frequencies).n_features)
    distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    assert distances.min() > 0.01  # the grid's own spacing
    assert distances[0, -1] > 1  # the source is nowhere near the end of the flow


@pytest.mark.parametrize("n_frequencies", [1, 8])
def test_waves_alone_tell_the_source_from_the_end(n_frequencies):
    ends = TimeEmbedding(n_frequencies)(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (ends[0, 1:] - ends[1, 1:]).norm() > 1


def test_embedding_is_bounded_and_of_full_rank():
    rows = TimeEmbedding(4)(torch.linspace(0, 1, 50, dtype=torch.float64))
    assert rows.abs().max() <= 1
    assert torch.linalg.matrix_rank(rows) == rows.shape[1]


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (8,), (8, 16, 4)])
def test_velocity_has_the_shape_of_the_positions(n, d, hidden_layer_sizes, generator, device):
    t, x = records(n, d, generator, device)
    network = VelocityMLP(d, hidden_layer_sizes).double().to(device)
    assert network(t, x).shape == (n, d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocity_has_the_dtype_of_the_network(dtype, generator, device):
    t, x = records(5, 2, generator, device)
    network = VelocityMLP(2, (8,)).to(device, dtype)
    assert network(t.to(dtype), x.to(dtype)).dtype == dtype


def test_double_network_is_the_float_network(generator, device):
    t, x = records(50, 3, generator, device)
    network = VelocityMLP(3, (16, 16)).float().to(device)
    single = network(t.float(), x.float())
    double = network.double()(t.float().double(), x.float().double())
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip(generator, device):
    t, x = records(5, 2, generator, device)
    network, other = (VelocityMLP(2, (8, 8)).double().to(device) for _ in range(2))
    assert not torch.equal(network(t, x), other(t, x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(t, x), other(t, x))


@pytest.mark.gradients
def test_every_parameter_learns(generator, device):
    t, x = records(20, 2, generator, device)
    network = VelocityMLP(2, (8, 8, 8)).double().to(device)
    network(t, x).square().sum().backward()
    assert len(list(network.parameters())) == 8
    assert all(p.grad is not None and p.grad.norm() > 0 for p in network.parameters())


def test_velocity_depends_on_time_and_on_position(generator, device):
    t, x = records(20, 2, generator, device)
    network = VelocityMLP(2, (32, 32)).double().to(device)
    u = network(t, x)
    assert not torch.allclose(u, network(1 - t, x))
    assert not torch.allclose(u, network(t, x.flip(0)))


def test_each_row_is_on_its_own(generator, device):
    t, x = records(20, 2, generator, device)
    network = VelocityMLP(2, (16,)).double().to(device)
    some = torch.randperm(20, generator=generator)[:5].to(device)
    torch.testing.assert_close(
        network(t[some], x[some]), network(t, x)[some], rtol=1e-12, atol=1e-12
    )


IMAGE_SHAPES = [(1, 8, 8), (3, 7, 9), (1, 14, 14), (1, 28, 28), (3, 1, 1), (2, 5, 21)]


def image_records(image_shape, generator, n=4):
    return records(n, math.prod(image_shape), generator, "cpu")


def trained_unet(image_shape, **parameters):
    """A U-Net whose last layer no longer is zero."""
    network = VelocityUNet(image_shape, width=8, **parameters).double()
    torch.nn.init.normal_(network.last.weight)
    return network


class TestUNet:
    @pytest.mark.parametrize("image_shape", IMAGE_SHAPES, ids=str)
    def test_rows_in_rows_out(self, image_shape, generator):
        t, x = image_records(image_shape, generator)
        assert trained_unet(image_shape)(t, x).shape == x.shape

    def test_begins_at_zero(self, generator):
        t, x = image_records((1, 8, 8), generator)
        assert not VelocityUNet((1, 8, 8), width=8).double()(t, x).any()

    @pytest.mark.parametrize("parameters", [{}, {"attention": False}, {"patch_size": 2}], ids=str)
    @pytest.mark.gradients
    def test_every_parameter_learns(self, parameters, generator):
        t, x = image_records((1, 28, 28), generator)
        network = trained_unet((1, 28, 28), **parameters)
        network(t, x).square().sum().backward()
        assert all(p.grad is not None and p.grad.norm() > 0 for p in network.parameters())

    def test_depends_on_time_and_on_position(self, generator):
        t, x = image_records((1, 8, 8), generator)
        network = trained_unet((1, 8, 8))
        assert not torch.allclose(network(t, x), network(1 - t, x))
        assert not torch.allclose(network(t, x), network(t, x.flip(0)))

    def test_each_row_is_on_its_own(self, generator):
        t, x = image_records((1, 14, 14), generator)
        network = trained_unet((1, 14, 14))
        torch.testing.assert_close(network(t[1:3], x[1:3]), network(t, x)[1:3])

    @pytest.mark.parametrize("patch_size", [1, 2])
    def test_a_pixel_stays_in_its_place(self, patch_size, generator, monkeypatch):
        """Without attention, far corners of a wide image do not see each other."""
        shape = (1, 8, 256)
        t, x = image_records(shape, generator, n=1)
        network = trained_unet(shape, attention=False, patch_size=patch_size)
        # Group means are over the whole image: only local normalisation keeps corners apart.
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                monkeypatch.setattr(module, "forward", lambda image: image)
        other = x.clone()
        other[:, 0] += 1
        changed = (network(t, x) != network(t, other)).reshape(8, 256)
        assert changed[0, 0] and not changed[:, 128:].any()

    def test_double_network_is_the_float_network(self, generator):
        t, x = image_records((1, 8, 8), generator)
        network = trained_unet((1, 8, 8)).float()
        single = network(t.float(), x.float())
        double = network.double()(t.float().double(), x.float().double())
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize(
        "parameters, match",
        [
            ({"patch_size": 3}, "patch_size=3 does not divide"),
            ({"patch_size": 0}, "patch_size must be a positive integer"),
            ({"patch_size": 2.0}, "patch_size must be a positive integer"),
            ({"width": -4}, "width must be a positive integer"),
            ({"width": "8"}, "width must be a positive integer"),
        ],
        ids=str,
    )
    def test_impossible_widths(self, parameters, match):
        with pytest.raises(ValueError, match=match):
            VelocityUNet((1, 8, 8), **parameters)


@pytest.mark.parametrize("network", [VelocityUNet, ConvolutionalTimePredictor])
@pytest.mark.parametrize(
    "image_shape", [(8, 8), (1, 0, 8), (1.0, 8, 8), (1, 8, None), 64, None, "188"], ids=str
)
def test_networks_for_images_want_the_shape_of_one(network, image_shape):
    with pytest.raises(ValueError, match="image_shape must be three positive integers"):
        network(image_shape)


@pytest.mark.parametrize("widths", [(), (0,), (8, 2.5), 8, "8"], ids=str)
def test_a_convolutional_predictor_wants_widths(widths):
    with pytest.raises(ValueError, match="widths must be one or more positive integers"):
        ConvolutionalTimePredictor((1, 8, 8), widths)


@pytest.mark.parametrize("image_shape", IMAGE_SHAPES, ids=str)
def test_convolutional_predictor_tells_a_time_for_each_row(image_shape, generator):
    _, x = image_records(image_shape, generator)
    predictor = ConvolutionalTimePredictor(image_shape, widths=(8, 16)).double()
    times = predictor(x)
    assert times.shape == (4,) and 0 < times.min() and times.max() < 1
    torch.testing.assert_close(predictor(x[1:2]), times[1:2])
