"""What the test modules share: the device to run on, and a watch over the global seeds."""

import numpy as np
import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="torch device to run the tests on")


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def untouched_global_seeds():
    before = _global_states()
    yield
    for old, new in zip(before, _global_states(), strict=True):
        np.testing.assert_array_equal(new, old)


def _global_states():
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return keys.copy(), position, torch.get_rng_state().numpy().copy()
