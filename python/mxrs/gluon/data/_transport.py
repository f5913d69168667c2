"""How a batch travels from a worker process to its parent: pickled, with the array bytes in shared memory.

`pack` writes an object into a fresh shared-memory segment with a name both sides can compute, so that the
parent can remove what a killed worker leaves behind. `unpack` reads it, removes the segment and returns the object;
array bytes are copied once on each side and never pass through the pipe. Processes, pipes and errors are the
affair of `_workers`.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from multiprocessing import shared_memory
from typing import Any, cast

import numpy as np

from ... import ndarray as nd

# Messages up to this size go through the pipe. It is small on purpose: all results that may be under way at one time
# must fit the pipe's buffer, or worker and parent could wait for each other (see MAX_UNDER_WAY in _workers).
INLINE_BYTES = 1024
_ALIGNMENT = 64
_WORD = 8


def _rebuild_numpy(buffer: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    # The buffer lies in a segment that is about to go, hence the copy.
    return np.ndarray(shape, dtype=dtype, buffer=buffer).copy()


def _rebuild_ndarray(buffer: Any, dtype: str, shape: tuple[int, ...]) -> nd.NDArray:
    view = np.ndarray(shape, dtype=dtype, buffer=buffer)
    return nd.array(view, dtype=view.dtype)


class _BatchPickler(pickle.Pickler):
    """Keeps array bytes out of the pickle. With `wrap`, NumPy arrays arrive as NDArrays."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer], wrap: bool) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffers.append)
        self._wrap = wrap

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nd.NDArray) and getattr(obj, "stype", "default") == "default":
            return self._reduce(_rebuild_ndarray, obj.asnumpy())
        if type(obj) is np.ndarray and obj.dtype.kind in "biufc":
            return self._reduce(_rebuild_ndarray if self._wrap else _rebuild_numpy, obj)
        return NotImplemented

    @staticmethod
    def _reduce(rebuild: Any, array: np.ndarray) -> Any:
        # ascontiguousarray turns a 0-d array into shape (1,), so the shape is taken from the original.
        packed = pickle.PickleBuffer(cast(Any, np.ascontiguousarray(array)))
        return rebuild, (packed, array.dtype.str, array.shape)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def pack(obj: Any, name: str, wrap: bool) -> tuple[bytes | None, shared_memory.SharedMemory | None]:
    """Serializes `obj`: either as bytes for the pipe, or into the new segment `name`, which is returned.

    Raises OSError with a sentence about the mount when shared memory is too small, and whatever pickling
    raises.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _BatchPickler(stream, buffers, wrap).dump(obj)
    views = [memoryview(stream.getbuffer()), *(buffer.raw() for buffer in buffers)]
    # Layout: count, the length of each part, then the parts, each on a multiple of 64 bytes.
    table = np.array([len(views), *(view.nbytes for view in views)], dtype=np.int64).tobytes()
    offsets, end = [], len(table)
    for view in views:
        offsets.append(_aligned(end))
        end = offsets[-1] + view.nbytes
    if end <= INLINE_BYTES:
        blob = bytearray(end)
        _fill(memoryview(blob), table, offsets, views)
        return bytes(blob), None
    _check_room(end)
    segment = shared_memory.SharedMemory(name=name, create=True, size=end)
    try:
        _fill(cast(memoryview, segment.buf), table, offsets, views)
    except BaseException:
        segment.close()
        segment.unlink()
        raise
    return None, segment


def _fill(target: memoryview, table: bytes, offsets: list[int], views: list[memoryview]) -> None:
    target[: len(table)] = table
    for offset, view in zip(offsets, views, strict=True):
        target[offset : offset + view.nbytes] = view


def _check_room(size: int) -> None:
    """A full tmpfs kills the writer with SIGBUS; looking first turns that into an error one can read."""
    mount = "/dev/shm"
    if not os.path.isdir(mount):
        return
    free = os.statvfs(mount)
    room = free.f_bavail * free.f_frsize
    if size > room:
        raise OSError(
            f"DataLoader: a batch of {size} bytes does not fit into shared memory, {mount} has {room} bytes left; "
            "enlarge that mount, use a smaller batch or prefetch, or pass thread_pool=True"
        )


def _read(source: memoryview) -> Any:
    count = int(np.frombuffer(source, dtype=np.int64, count=1)[0])
    lengths = np.frombuffer(source, dtype=np.int64, count=count, offset=_WORD).tolist()
    parts, end = [], _WORD * (count + 1)
    for length in lengths:
        start = _aligned(end)
        end = start + length
        parts.append(source[start:end])
    return pickle.loads(parts[0], buffers=parts[1:])


def unpack_inline(blob: bytes) -> Any:
    """The object that `pack` returned as bytes."""
    return _read(memoryview(blob))


def unpack_segment(name: str) -> Any:
    """The object in the segment `name`; the segment is gone afterwards, also when reading fails."""
    segment = shared_memory.SharedMemory(name=name)
    try:
        return _read(cast(memoryview, segment.buf))
    finally:
        _drop(segment)


def discard_segment(name: str) -> None:
    """Removes the segment `name` if it exists."""
    try:
        segment = shared_memory.SharedMemory(name=name)
    except (FileNotFoundError, ValueError):
        return
    _drop(segment)


def _drop(segment: shared_memory.SharedMemory) -> None:
    segment.unlink()
    # A failed read keeps views alive in its traceback; the mapping goes when they do.
    with contextlib.suppress(BufferError):
        segment.close()
