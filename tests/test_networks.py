import pytest
import torch

from sknsgf.networks import TimeEmbedding, VelocityMLP


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
    network = VelocityMLP(3, (16, 16)).to(device)
    single = network(t.float(), x.float())
    double = network.double()(t.float().double(), x.float().double())
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip(generator, device):
    t, x = records(5, 2, generator, device)
    network, other = (VelocityMLP(2, (8, 8)).double().to(device) for _ in range(2))
    assert not torch.equal(network(t, x), other(t, x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(t, x), other(t, x))


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
