"""One file for arrays and JSON: an npz that is checked before anything in it is used.

Nothing in a file is executed: there is no pickle, no name to import, no path to extract to, and
nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sknsgf._arguments import check_path

_FORMAT, _VERSION = "sknsgf", 2
_READABLE = range(1, _VERSION + 1)
_HEADER, _DIGEST = "header", "sha256"
_NAME = re.compile(r"(?P<array>[A-Za-z0-9_.]+)\.npy", re.ASCII)
_NUMBERS = "biufc"  # kinds of dtype: booleans, integers, floats, complex; never objects

Arrays = dict[str, NDArray]


class PersistenceError(ValueError):
    """A file cannot be written or read: it is damaged, foreign, newer, or asks for more.

    It is a ValueError, and the only exception for what a file holds; a file that is missing
    or may not be read raises an OSError.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler, PersistenceError
    >>> np.savez("other.npz", x=np.zeros(3))
    >>> try:
    ...     NSGFSampler.load("other.npz")
    ... except PersistenceError as error:
    ...     print(error)
    other.npz cannot be loaded: it was not saved by sknsgf.
    >>> import os
    >>> os.remove("other.npz")
    """


def write_archive(path: str | os.PathLike[str], header: dict[str, Any], arrays: Arrays) -> None:
    """Write arrays and a JSON header to one file, whole or not at all.

    Parameters
    ----------
    path : path
        File to write. It is replaced in one step, once all is on disk.
    header : dict
        Anything JSON can hold.
    arrays : dict of str to ndarray
        Numbers of any shape; names of letters, digits, dots and underscores.

    Raises
    ------
    OSError
        If the file cannot be written; one that was there is left as it was.
    """
    header = {"format": _FORMAT, "version": _VERSION, **header}
    encoded = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    members = {name: _to_npy(array) for name, array in {_HEADER: encoded, **arrays}.items()}
    members[_DIGEST] = _to_npy(np.frombuffer(_digest(members.items()), np.uint8))
    path = check_path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in members.items():
                    info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: equal models, files
                    info.external_attr = 0o600 << 16
                    archive.writestr(info, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """Read what `write_archive` wrote, and refuse everything else.

    Parameters
    ----------
    path : path
        File to read.

    Returns
    -------
    header : dict
        As written.
    arrays : dict of str to ndarray
        As written, to the bit.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    PersistenceError
        If it is not what was written, in any way.
    """
    content = check_path(path).read_bytes()
    with refusing(path):
        members = _read_zip(content)
        if not {_HEADER, _DIGEST} <= members.keys():
            _refuse(f"it was not saved by {_FORMAT}")
        expected = _from_npy(members.pop(_DIGEST)).tobytes()
        if _digest(members.items()) != expected:
            _refuse("its checksum is wrong, so it is damaged")
        arrays = {name: _from_npy(member) for name, member in members.items()}
        return _read_header(arrays.pop(_HEADER)), arrays


@contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a file into one PersistenceError.

    Parameters
    ----------
    path : path
        The file, to be named.
    """
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise PersistenceError(
            f"{os.fspath(path)} cannot be loaded: {why.rstrip('.')}."
        ) from error


def _digest(members: Iterable[tuple[str, bytes]]) -> bytes:
    digest = hashlib.sha256()
    for name, content in sorted(members):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


def _read_zip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        # Stored as they are and no larger than the file, so that nothing small unfolds.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            _refuse("it is compressed, which saved files never are")
        if sum(entry.file_size for entry in entries) > len(content):
            _refuse("it declares more than it holds")
        members = {}
        for entry in entries:
            if not (name := _NAME.fullmatch(entry.filename)):
                _refuse(f"it has an array of the unexpected name {entry.filename!r}")
            members[name["array"]] = archive.read(entry)
    if len(members) < len(entries):
        _refuse("it names an array twice")
    return members


def _to_npy(array: NDArray) -> bytes:
    stream = BytesIO()
    npy.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _from_npy(content: bytes) -> NDArray:
    stream = BytesIO(content)
    if npy.read_magic(stream) != (1, 0):
        _refuse("it has an array in an unexpected format")
    shape, in_fortran_order, dtype = npy.read_array_header_1_0(stream)
    if dtype.kind not in _NUMBERS or in_fortran_order:
        _refuse(f"it has an array of the unexpected type {dtype}")
    if (
        min(shape, default=0) < 0
        or math.prod(shape) * dtype.itemsize != len(content) - stream.tell()
    ):
        _refuse(f"it has an array of the wrong size for its shape {shape}")
    array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    return array.astype(dtype.newbyteorder("="))  # a copy, which can be written to


def _read_header(encoded: NDArray) -> dict[str, Any]:
    header = json.loads(encoded.tobytes(), parse_constant=_refuse)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        _refuse(f"it was not saved by {_FORMAT}")
    version = header.get("version")
    if type(version) is not int or version not in _READABLE:
        _refuse(
            f"its format is version {version!r}, and this version of {_FORMAT} reads "
            f"those up to {_VERSION}: "
            f"install the {_FORMAT} that saved it"
        )
    return header


def _refuse(why: str) -> NoReturn:
    raise PersistenceError(why)
