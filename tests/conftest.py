"""What the test modules share: the device to run on, and what a caller may have set around."""

import os
import random
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


WORLDS = {
    "here": nullcontext,
    "float64": lambda: default_dtype(torch.float64),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta": lambda: torch.device("meta"),  # stands for a GPU: nothing that lands there has values
}


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="torch device to run the tests on")


def pytest_generate_tests(metafunc):
    if "elsewhere" in metafunc.fixturenames:
        metafunc.parametrize(
            "elsewhere", [name for name in WORLDS if name != "here"], indirect=True
        )


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Run every test, with what it needs, in the world that `SKNSGF_WORLD` names."""
    name = os.environ.get("SKNSGF_WORLD", "here")
    if name == "inference" and item.get_closest_marker("gradients"):
        name = "here"
    with WORLDS[name]():
        return (yield)


@pytest.fixture
def elsewhere(request):
    """Run a test once in each of the worlds."""
    with WORLDS[request.param]():
        yield request.param


@pytest.fixture
def untouched_global_seeds():
    before = _global_states()
    yield
    for old, new in zip(before, _global_states(), strict=True):
        np.testing.assert_array_equal(new, old)


def _global_states():
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return keys.copy(), position, torch.get_rng_state().numpy().copy(), random.getstate()[1]
