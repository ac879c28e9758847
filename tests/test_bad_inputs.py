"""Bad input is refused by a documented error that names the argument, and changes nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bad_inputs.py"
spec = importlib.util.spec_from_file_location("bad_inputs", SCRIPT)
bad_inputs = sys.modules["bad_inputs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bad_inputs)

CASES = bad_inputs.cases()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return bad_inputs.World(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("case", CASES[:: len(CASES) // 200], ids=lambda case: case.title)
def test_bad_input_is_refused_in_words(case, world):
    outcome = bad_inputs.run(case, world)
    assert outcome.error is not None, "accepted"
    assert outcome.documented, repr(outcome.error)
    assert outcome.named, outcome.error
    assert outcome.unchanged


def test_every_surface_is_there():
    rooms = {case.of.split(".")[0] for case in CASES}
    assert rooms == {"NSGFSampler", "NSGFPlusPlus", *bad_inputs_rooms()} and len(CASES) > 1500


def bad_inputs_rooms():
    return set("algorithms datasets flow metrics networks ode plotting sinkhorn training".split())
