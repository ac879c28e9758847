"""A fitted estimator as JSON and arrays, and back: the closed set of things a file may hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from sklearn import config_context
from sklearn.utils._param_validation import validate_parameter_constraints
from torch import Tensor, nn

from sknsgf._persistence import Arrays, PersistenceError
from sknsgf.flow import GaussianNoise, Hull, Rows
from sknsgf.networks import NetworkSpec, describe_network, rebuild_network
from sknsgf.samplers._parameters import find_device
from sknsgf.samplers._source import UserSource
from sknsgf.samplers._units import Units
from sknsgf.training import TrainingHistory, TrainingStatus

Json = Any


class Packer:
    """Says in JSON what an estimator is; numbers of any size go to `arrays`, by name.

    Parameters
    ----------
    classes : tuple of type
        Estimators that may be met.
    """

    def __init__(self, classes: tuple[type, ...]):
        self.classes = classes
        self.arrays: Arrays = {}

    def estimator(self, estimator: Any, prefix: str = "", *, fitted: bool = True) -> Json:
        """Describe an estimator: its class, its parameters and what it has learned."""
        if type(estimator) not in self.classes:
            _refuse(f"a file cannot hold a {type(estimator).__name__}")
        parameters: dict[str, Json] = {}
        left_out: list[str] = []
        for name, value in estimator.get_params(deep=False).items():
            try:
                parameters[name] = self._parameter(value)
            except PersistenceError:
                left_out.append(name)
        packed = {"class": type(estimator).__name__, "parameters": parameters}
        packed |= {"left_out": left_out, "settings": _settings(estimator)}
        if fitted:
            state = {n: v for n, v in vars(estimator).items() if n in estimator.__fitted_kinds__}
            packed["fitted"] = {n: self._value(v, prefix + n) for n, v in state.items()}
        return packed

    def _parameter(self, value: Any) -> Json:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            return float(value)
        if isinstance(value, os.PathLike | torch.device):
            return str(value)
        if isinstance(value, Sequence | np.ndarray):
            return [self._parameter(item) for item in value]
        return self.estimator(value, fitted=False)

    def _value(self, value: Any, name: str) -> Json:
        """Describe a fitted attribute: a number, or a tag that says what it is."""
        if value is None or isinstance(value, Real):
            return value.item() if isinstance(value, np.generic) else value
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, np.ndarray):
            return {"names": value.tolist()} if value.dtype == object else self._array(value, name)
        if isinstance(value, Rows):
            return {"rows": self._array(value.x.numpy(), f"{name}.x")}
        if isinstance(value, GaussianNoise):
            return {"noise": value.n_features}
        if isinstance(value, UserSource):
            mean, scale, origin = value.units
            mean, origin = self._array(mean, f"{name}.mean"), self._array(origin, f"{name}.origin")
            return {"user_source": [mean, scale, origin]}
        if isinstance(value, Hull):
            parts = value._asdict().items()
            return {"hull": [self._array(part.numpy(), f"{name}.{key}") for key, part in parts]}
        if isinstance(value, TrainingHistory):
            return {"history": self._history(value, name)}
        if isinstance(value, nn.Module):
            return {"network": [describe_network(value), self._state(value, name)]}
        if isinstance(value, dict):
            items = {key: self._value(item, f"{name}.{key}") for key, item in value.items()}
            return {"dict": items}
        return {"estimator": self.estimator(value, f"{name}.")}

    def _array(self, array: NDArray, name: str) -> Json:
        self.arrays[name] = array
        return {"array": name}

    def _history(self, history: TrainingHistory, name: str) -> Json:
        fields = dict(vars(history))
        status = fields.pop("status")
        arrays = {
            key: self._array(value.numpy(), f"{name}.{key}") for key, value in fields.items()
        }
        return {**arrays, "status": status}

    def _state(self, network: nn.Module, name: str) -> Json:
        state = network.state_dict().items()
        return {key: self._array(value.cpu().numpy(), f"{name}.{key}") for key, value in state}


class Unpacker:
    """Builds an estimator from what a `Packer` said.

    Parameters
    ----------
    classes : tuple of type
        Estimators that may be built.
    arrays : dict of str to ndarray
        Numbers, by name; they need not be trusted.
    version : int
        Version of the format.
    """

    def __init__(self, classes: tuple[type, ...], arrays: Arrays, version: int):
        self.classes = {cls.__name__: cls for cls in classes}
        self.arrays, self.version = arrays, version

    def top(self, packed: Json, given: dict[str, Any]) -> Any:
        """Build the estimator a file is about, and see that nothing is missing or left over."""
        name, *_ = self.classes
        if packed["class"] != name:
            _refuse(f"it holds a {packed['class']}: use {packed['class']}.load")
        if missing := [part for part in find_left_out(packed) if part not in given]:
            _refuse(
                f"it was fitted with {', '.join(missing)} of your own, which a file cannot hold: "
                f"pass the same to {name}.load(path, {missing[0]}=...)"
            )
        estimator = self.estimator(packed, given)
        if self.arrays:
            _refuse(f"it has an array {min(self.arrays)!r} that nothing needs")
        return estimator

    def estimator(self, packed: Json, given: dict[str, Any]) -> Any:
        """Build an estimator; `given` parameters come before those it was saved with."""
        estimator = self._unfitted(packed).set_params(**given)
        if "fitted" in packed:
            estimator._validate_params()
            self._fill(estimator, packed["fitted"])
        return estimator

    def _unfitted(self, packed: Json) -> Any:
        parameters = {name: self._parameter(value) for name, value in packed["parameters"].items()}
        estimator = self.classes[packed["class"]](**parameters)
        _apply(estimator, packed["settings"])
        return estimator

    def _parameter(self, value: Json) -> Any:
        if isinstance(value, dict):
            return self._unfitted(value)
        return tuple(map(self._parameter, value)) if isinstance(value, list) else value

    def _fill(self, estimator: Any, fitted: Json) -> None:
        """Set the fitted attributes, once they are all there and fit each other."""
        estimator.n_features_in_ = fitted["n_features_in_"]
        values = {name: self._value(value, estimator) for name, value in fitted.items()}
        optional = {"feature_names_in_", "source_origin_", "_source_ball"}
        if self.version == 1:
            later = {"_constant", "_hull", "_pace"} & estimator.__fitted_kinds__.keys()
            values = {name: getattr(type(estimator), name) for name in later} | values
        known = estimator.__fitted_kinds__.keys()
        if differing := (values.keys() | optional & known) ^ known:
            _refuse(f"{min(differing)} is missing, or unknown to a {type(estimator).__name__}")
        validate_parameter_constraints(
            estimator.__fitted_kinds__, values, type(estimator).__name__
        )
        vars(estimator).update(values)
        for name, is_sound in estimator.__is_sound__().items():
            if not is_sound:
                _refuse(f"its {name} does not fit the rest")

    def _value(self, value: Json, estimator: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((tag, content),) = value.items()
        match tag:
            case "array":
                return self.arrays.pop(content)
            case "dtype":
                return np.dtype(content)
            case "device":
                return _usable(estimator.device)
            case "names":
                return np.array(content, dtype=object)
            case "rows":
                return Rows(self._tensor(content))
            case "noise":
                return GaussianNoise(content)
            case "user_source":
                mean = self._value(content[0], estimator)
                origin = self._value(content[2], estimator) if len(content) > 2 else mean
                return UserSource(estimator.source, Units(mean, content[1], origin))
            case "hull":
                return Hull(*map(self._tensor, content))
            case "history":
                return self._history(content)
            case "network":
                return self._network(estimator, *content)
            case "dict":
                return {key: self._value(item, estimator) for key, item in content.items()}
            case "estimator":
                return self.estimator(content, _lent(estimator, content["left_out"]))
        _refuse(f"there is no kind of value {tag!r}")

    def _tensor(self, value: Json) -> Tensor:
        return torch.from_numpy(self.arrays.pop(value["array"]))

    def _history(self, content: Json) -> TrainingHistory:
        status = content.pop("status")
        tensors = {name: self._tensor(value) for name, value in content.items()}
        return TrainingHistory(**tensors, status=TrainingStatus(status))

    def _network(self, estimator: Any, description: Json, state: Json) -> nn.Module:
        def foreign() -> nn.Module:
            sizes = estimator.hidden_layer_sizes, estimator.image_shape
            return NetworkSpec(estimator.n_features_in_, estimator.network, *sizes).make(seed=0)

        tensors = {name: self._tensor(value) for name, value in state.items()}
        network = rebuild_network(description, tensors, foreign)
        return network.to(_usable(estimator.device))


def find_left_out(packed: Json) -> list[str]:
    """List the parameters a file does not hold, nested ones as of ``set_params``."""
    nested = [(name, v) for name, v in packed["parameters"].items() if isinstance(v, dict)]
    inner = [f"{name}__{part}" for name, value in nested for part in find_left_out(value)]
    return [*packed["left_out"], *inner]


def is_history(history: Any) -> bool:
    """Tell whether a history that was loaded is one."""
    if not isinstance(history, TrainingHistory):
        return False
    n_iter, n_validations = len(history.loss), len(history.validation_iter)
    return history.iter.shape == history.loss.shape == (
        n_iter,
    ) and history.validation_iter.shape == history.validation_loss.shape == (n_validations,)


def is_sound_array(array: NDArray, shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Tell whether an array has a shape and type and only finite numbers."""
    return array.shape == shape and array.dtype == dtype and bool(np.isfinite(array).all())


def _lent(estimator: Any, names: Sequence[str]) -> dict[str, Any]:
    """Look up what a nested estimator got from the one around it."""
    known = estimator.get_params()
    return {name: known.get(f"sinkhorn_flow__{name}", known.get(name)) for name in names}


def _usable(device: str | torch.device) -> torch.device:
    """Find the device, or the CPU where a model was saved on a device that is not here."""
    try:
        return find_device(device)
    except ValueError:
        return torch.device("cpu")


def _settings(estimator: Any) -> Json:
    """Say what `set_output` and the ``set_..._request`` methods have left."""
    requests = getattr(estimator, "_metadata_request", None)
    return {
        "output": getattr(estimator, "_sklearn_output_config", {}),
        "requests": {} if requests is None else requests._serialize(),
    }


def _apply(estimator: Any, settings: Json) -> None:
    if settings["output"]:
        estimator.set_output(**settings["output"])
    with config_context(enable_metadata_routing=True):
        for method, requests in settings["requests"].items():
            getattr(estimator, f"set_{method}_request")(**requests)


def _refuse(why: str) -> NoReturn:
    raise PersistenceError(why)
