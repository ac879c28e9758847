"""A fitted sampler in a file, and back."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sknsgf._persistence import read_archive, refusing, write_archive
from sknsgf._surroundings import undisturbed
from sknsgf.flow import GaussianNoise, Hull, Rows
from sknsgf.networks import ByValue
from sknsgf.samplers._parameters import find_device
from sknsgf.samplers._saving import Packer, Unpacker, find_left_out, is_history, is_sound_array
from sknsgf.samplers._warnings import warn_left_out


class FilesMixin:
    """Methods of a sampler that save and load it."""

    _parts: ClassVar[tuple[type, ...]] = ()  # estimators it may hold

    n_features_in_: int
    mean_: NDArray[np.float64]
    source_: Any
    history_: Any
    _constant: NDArray[np.int64]
    _source_ball: Hull | None

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes; networks so that those of a clone pickle and hash alike."""
        state: Any = super().__getstate__()
        return {
            name: ByValue(value) if isinstance(value, nn.Module) else value
            for name, value in state.items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes over; from a pickle networks come as such."""
        super().__setstate__(  # type: ignore[misc]
            {
                name: value.network if isinstance(value, ByValue) else value
                for name, value in state.items()
            }
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted sampler to one file that is safe to share.

        Parameters
        ----------
        path : path
            File to write; ".npz" is its customary ending. One that exists is replaced in one
            step.

        Raises
        ------
        NotFittedError
            If the sampler has not been fitted.
        OSError
            If the file cannot be written; one that was there is left as it was.
        TypeError, ValueError
            If `path` is not the name of a file.

        Warns
        -----
        UserWarning
            If parameters are objects of your own, such as a network or a source: they are left
            out, and `load` asks for them.

        See Also
        --------
        load : Read it.

        Notes
        -----
        The file is numpy's npz: arrays, and a header in JSON with the parameters, the version
        of the format and a checksum. It holds no code and no pickle, so that loading it
        executes nothing. Where the source is an array, its rows are part of the model and of
        the file.

        Examples
        --------
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(source="gaussian", max_iter=50, random_state=0).fit(X)
        >>> with TemporaryDirectory() as folder:
        ...     flow.save(f"{folder}/flow.npz")
        ...     loaded = NSGFSampler.load(f"{folder}/flow.npz")
        >>> bool((loaded.sample(100) == flow.sample(100)).all())
        True
        """
        check_is_fitted(self)
        packer = Packer((type(self), *self._parts))
        header = packer.estimator(self)
        write_archive(path, header, packer.arrays)
        if left_out := find_left_out(header):
            warn_left_out(left_out, type(self).__name__)

    @classmethod
    @undisturbed
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> Self:
        """Load a sampler saved with `save`, by this or an earlier version.

        Parameters
        ----------
        path : path
            File to read. It need not be trusted: nothing in it is executed.
        **parameters
            Parameters that a file cannot hold, a network or a source of your own; any other
            parameter given, such as `device`, takes the place of the one saved.

        Returns
        -------
        NSGFSampler or NSGFPlusPlus
            The fitted sampler, on `device` if it can be used here, else on the CPU.

        Raises
        ------
        OSError
            If the file is missing or cannot be read.
        PersistenceError
            If it is damaged, was not saved by this class, or needs parameters that are not
            given.
        TypeError, ValueError
            If `path` is not the name of a file, or `device` is given and cannot be used here.

        Examples
        --------
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> from sknsgf import NSGFSampler
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = NSGFSampler(max_iter=50).fit(X, X + 10)
        >>> with TemporaryDirectory() as folder:
        ...     flow.save(f"{folder}/flow.npz")
        ...     loaded = NSGFSampler.load(f"{folder}/flow.npz", device="cpu")
        >>> loaded.transform(X).shape
        (200, 2)
        """
        if "device" in parameters:
            find_device(parameters["device"])
        header, arrays = read_archive(path)
        with refusing(path):
            return Unpacker((cls, *cls._parts), arrays, header["version"]).top(header, parameters)

    def __is_sound__(self) -> dict[str, bool]:
        """Tell which parts of a sampler that was loaded fit the others."""
        d, histories = self.n_features_in_, self.history_
        histories = histories if isinstance(histories, dict) else {"": histories}
        return {
            "mean_": is_sound_array(self.mean_, (d,), np.float64),
            "source_origin_": is_sound_array(
                getattr(self, "source_origin_", self.mean_), (d,), np.float64
            ),
            "source_": self._is_source_sound(),
            "_constant": self._constant.dtype == np.int64
            and self._constant.ndim == 1
            and bool(np.isin(self._constant, np.arange(d)).all()),
            "feature_names_in_": len(getattr(self, "feature_names_in_", range(d))) == d,
            "history_": all(map(is_history, histories.values())),
            "_source_ball": self._source_ball is None or self._source_ball.is_sound(d),
        }

    def _is_source_sound(self) -> bool:
        d, source = self.n_features_in_, self.source_
        if isinstance(source, Rows):
            shape = (len(source.x), d)
            return len(source.x) > 0 and is_sound_array(source.x.numpy(), shape, np.float32)
        if isinstance(source, GaussianNoise):
            return source.n_features == d
        return is_sound_array(source.units.mean, (d,), np.float64) and source.units.scale > 0
