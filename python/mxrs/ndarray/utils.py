"""`nd.save` and `nd.load`: MXNet's own files of arrays (`.params`), read and written byte for byte.

A file is the magic 0x112, a reserved word, a count and that many arrays, then a count of names and the names
(none for a list, else one per array). Arrays begin with a number that tells the layout: version 2 is what
MXNet 1.x writes, version 3 its twin under NumPy shapes (the only one that can hold shape `()` and extents of
0), version 1 has no storage type, and the oldest begins with its number of dimensions and has 32-bit extents.
All numbers are little-endian.

Files are not trusted: every size is checked against the bytes that are left before anything is made of it,
and errors name the file, what was read, and the offset. A file that is being written never replaces the old
one before it is whole.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from .. import _core
from .._files import replacing
from ..base import MXNetError
from ..context import cpu
from ._devices import call_on
from ._dtypes import NAMES, NP_DTYPES
from ._lookup import op
from .creation import array, empty, zeros
from .interop import memory_view, shared_view
from .ndarray import NDArray

__all__ = ["array", "empty", "load", "load_frombuffer", "save", "zeros"]

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_MAX_NDIM = 32
_STORAGE = {0: "default", 1: "row_sparse", 2: "csr"}


class _Reader:
    """A source of known size, which knows where it is and refuses to read beyond its end."""

    def __init__(self, stream: IO[bytes], size: int, name: str):
        self.stream, self.size, self.name, self.at = stream, size, name, 0

    def fail(self, what: str, at: int | None = None) -> MXNetError:
        return MXNetError(
            f"{self.name} is damaged or not an NDArray file, at byte {self.at if at is None else at}: {what}"
        )

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise self.fail(f"{what} needs {count} bytes, and {self.size - self.at} are left")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fail(f"{what}: the file ended early")
        self.at += count
        return data

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}"), what))

    def count(self, least: int, what: str) -> int:
        """A count of things that take at least `least` bytes each."""
        start = self.at
        (count,) = self.numbers("Q", what)
        if count > (self.size - self.at) // least:
            raise self.fail(
                f"{what} is {count}, more than the {self.size - self.at} bytes left can hold", start
            )
        return count

    def fill(self, target: np.ndarray, what: str) -> None:
        """Reads straight into memory."""
        view = target.view(np.uint8).data
        done = 0
        while done < len(view):
            step = self.stream.readinto(view[done:])  # type: ignore[attr-defined]
            if not step:
                raise self.fail(f"{what}: the file ended early")
            done += step
        self.at += done


def _read_shape(r: _Reader, form: str, ndim: int) -> tuple[int, ...]:
    if ndim > _MAX_NDIM:
        raise r.fail(f"{ndim} dimensions; at most {_MAX_NDIM} are allowed", r.at - 4)
    start = r.at
    shape = r.numbers(f"{ndim}{form}", "the shape") if ndim else ()
    if any(e < 0 for e in shape):
        raise r.fail(f"shape {shape} has a negative extent", start)
    return shape


def _read_array(r: _Reader) -> NDArray | None:
    """One array; None for one that had no memory when it was saved."""
    start = r.at
    (magic,) = r.numbers("I", "the layout of an array")
    if magic in (_V2, _V3):
        (storage,) = r.numbers("i", "the storage type")
        if storage != 0:
            kind = _STORAGE.get(storage)
            if kind is None:
                raise r.fail(f"storage type {storage} is not known; 0, 1 and 2 are", start + 4)
            raise NotImplementedError(
                f"{r.name}, at byte {start}: an array of storage type '{kind}', which is not built yet"
            )
        (ndim,) = r.numbers("i", "the number of dimensions")
        if (magic == _V2 and ndim == 0) or (magic == _V3 and ndim == -1):
            return None
        if ndim < 0:
            raise r.fail(f"{ndim} dimensions", r.at - 4)
        shape = _read_shape(r, "q", ndim)
    elif magic == _V1:
        (ndim,) = r.numbers("I", "the number of dimensions")
        if ndim == 0:
            return None
        shape = _read_shape(r, "q", ndim)
    else:
        if magic > _MAX_NDIM:
            raise r.fail(f"{magic:#x} is not the beginning of an array of any version", start)
        if magic == 0:
            return None
        shape = _read_shape(r, "I", magic)
    r.numbers("ii", "the context")
    at = r.at
    (flag,) = r.numbers("i", "the element type")
    if not 0 <= flag < len(NAMES):
        raise r.fail(f"element type {flag} is not known; 0 to {len(NAMES) - 1} ({', '.join(NAMES)}) are", at)
    r.need(math.prod(shape) * NP_DTYPES[flag].itemsize, f"an array of {NAMES[flag]} {shape}")
    # What is in a file comes to the host, whatever the default context is.
    target = call_on(cpu(), op("_empty"), shape=shape, dtype=NAMES[flag])
    if target.size:
        target.wait_to_read()
        memory = memory_view(_core.address(target), (target.size,), NP_DTYPES[flag], target)
        r.fill(memory, "the elements")
        if sys.byteorder == "big":
            memory.byteswap(inplace=True)
    return target


def _read_list(r: _Reader) -> list[NDArray] | dict[str, NDArray]:
    (magic,) = r.numbers("Q", "the magic number")
    if magic != _LIST_MAGIC:
        raise r.fail(f"the magic number is {magic:#x}; NDArray files begin with {_LIST_MAGIC:#x}", 0)
    r.numbers("Q", "the reserved word")
    arrays: list[Any] = [_read_array(r) for _ in range(r.count(4, "the number of arrays"))]
    start = r.at
    names = []
    count = r.count(8, "the number of names")
    if count not in (0, len(arrays)):
        raise r.fail(f"{count} names for {len(arrays)} arrays; allowed are none or one per array", start)
    for _ in range(count):
        length = r.count(1, "the length of a name")
        at = r.at
        try:
            names.append(r.take(length, "a name").decode())
        except UnicodeDecodeError:
            raise r.fail("a name is not UTF-8", at) from None
    return dict(zip(names, arrays)) if count else arrays


def load(fname: str | os.PathLike[str]) -> list[NDArray] | dict[str, NDArray]:
    """The arrays of a file that `save` (or MXNet) wrote: a list, or a dict if they were saved with names.

    Raises
    ------
    MXNetError
        If the file cannot be opened or is damaged.
    """
    path = _path("load", fname)
    try:
        stream = open(os.path.expanduser(path), "rb", buffering=1 << 16)  # noqa: SIM115 (closed by the caller below)
    except OSError as error:
        raise MXNetError(f"load: {path} cannot be opened: {error.strerror}") from None
    with stream:
        try:
            return _read_list(_Reader(stream, os.fstat(stream.fileno()).st_size, path))
        except OSError as error:
            raise MXNetError(f"load: {path} cannot be read: {error.strerror}") from None


def load_frombuffer(buf: bytes) -> list[NDArray] | dict[str, NDArray]:
    """The arrays of a file's content; see `load`."""
    data = memoryview(buf).cast("B")
    return _read_list(_Reader(io.BytesIO(data), len(data), "the buffer"))


def _write_array(stream: IO[bytes], value: NDArray) -> None:
    shape = value.shape
    # Version 2 cannot tell a scalar or an extent of 0 from an array that has no shape yet.
    magic = _V2 if shape and 0 not in shape else _V3
    kind, number = value._device
    stream.write(struct.pack(f"<Iii{len(shape)}q", magic, 0, len(shape), *shape))
    stream.write(struct.pack("<iii", kind, number, value._type_flag))
    if value.size:
        memory = shared_view(value if kind != 2 else _core.copy_to_context(value, (1, 0)))
        if sys.byteorder == "big":
            memory = memory.byteswap()
        stream.write(memory.reshape(-1).view(np.uint8).data)


def save(fname: str | os.PathLike[str], data: NDArray | list[NDArray] | Mapping[str, NDArray]) -> None:
    """Writes arrays to a file, which is replaced only when the new one is whole.

    Parameters
    ----------
    fname : str
        The file.
    data : NDArray, list of NDArray, or dict of str to NDArray
        What to save; `load` gives a list back, or a dict.

    Raises
    ------
    MXNetError
        If the file cannot be written.
    """
    path = _path("save", fname)
    names: list[str] = []
    if isinstance(data, NDArray):
        values = [data]
    elif isinstance(data, Mapping):
        names, values = list(data.keys()), list(data.values())
    elif isinstance(data, list):
        values = data
    else:
        raise ValueError(
            "data needs to either be a NDArray, dict of str, NDArray pairs or a list of NDarrays."
        )
    if not all(isinstance(v, NDArray) for v in values) or not all(isinstance(n, str) for n in names):
        raise TypeError("save only accept dict str->NDArray or list of NDArray")
    for value in values:
        value.wait_to_read()
    try:
        with replacing(os.path.expanduser(path)) as stream:
            stream.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(values)))
            for value in values:
                _write_array(stream, value)
            stream.write(struct.pack("<Q", len(names)))
            for name in names:
                encoded = name.encode()
                stream.write(struct.pack("<Q", len(encoded)) + encoded)
    except OSError as error:
        raise MXNetError(f"save: {path} cannot be written: {error.strerror}") from None


def _path(call: str, fname: Any) -> str:
    if not isinstance(fname, str | os.PathLike):
        raise TypeError(f"{call}: fname is the name of a file, given {fname!r}")
    return os.fspath(fname)
