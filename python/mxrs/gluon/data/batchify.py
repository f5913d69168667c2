"""Batchify functions: how a list of samples becomes one batch of arrays.

`default_batchify_fn` is what `DataLoader` uses when none is given. `Stack`, `Pad`, `Group` (also called
`Tuple`),
`List` and `Append` are building blocks for samples that need something else, such as sequences of different
lengths. The work is one NumPy or NDArray call per batch and array. Where the samples come from, and in which
process this runs, is left to `dataloader`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import ndarray as nd

__all__ = [
    "Append",
    "Group",
    "List",
    "Pad",
    "Stack",
    "Tuple",
    "default_batchify_fn",
    "default_mp_batchify_fn",
]

# What `collate` leaves of a batch: NDArrays, NumPy arrays, and lists of these.
RawBatch = Any


def to_ndarray(array: np.ndarray) -> nd.NDArray:
    """A NumPy array as an NDArray of the same dtype."""
    return nd.array(array, dtype=array.dtype)


def collate(samples: Sequence[Any]) -> RawBatch:
    """Stacks samples along a new first axis; tuples are taken apart into a list with one batch per position.

    NDArrays give an NDArray, everything else a NumPy array. Raises ValueError for samples of different
    shapes,
    TypeError for samples that are no numbers.
    """
    if len(samples) == 0:
        raise ValueError("default_batchify_fn: got an empty list of samples")
    first = samples[0]
    if isinstance(first, nd.NDArray):
        _same_shapes("default_batchify_fn", samples)
        return nd.stack(*samples)
    if isinstance(first, tuple):
        if any(not isinstance(sample, tuple) or len(sample) != len(first) for sample in samples):
            raise ValueError(
                "default_batchify_fn: all samples must be tuples of the same length, "
                f"the first has {len(first)} elements and others differ"
            )
        return [collate(column) for column in zip(*samples, strict=True)]
    return _numpy_stack("default_batchify_fn", samples)


def _same_shapes(owner: str, samples: Sequence[Any]) -> None:
    shape = samples[0].shape
    for position, sample in enumerate(samples):
        if getattr(sample, "shape", None) != shape:
            raise ValueError(
                f"{owner}: sample 0 has shape {shape} and sample {position} {getattr(sample, 'shape', type(sample))}; "
                "give DataLoader a batchify_fn such as gluon.data.batchify.Pad() for samples of different shapes"
            )


def _numpy_stack(owner: str, samples: Sequence[Any]) -> np.ndarray:
    if isinstance(samples[0], np.ndarray):
        _same_shapes(owner, samples)
    ragged = f"{owner}: the samples are sequences of different lengths; give DataLoader a batchify_fn such as Pad()"
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise ValueError(f"{ragged} ({error})") from None
    if array.dtype.kind == "O" and isinstance(samples[0], list | np.ndarray):
        raise ValueError(ragged)  # NumPy before 1.24 makes an array of objects of them.
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{owner}: cannot make an array of samples of type {type(samples[0]).__name__} (dtype {array.dtype}); "
            "give DataLoader a batchify_fn that handles them"
        )
    return array


def wrap(raw: RawBatch) -> Any:
    """`collate`'s result with every NumPy array turned into an NDArray."""
    if isinstance(raw, list):
        return [wrap(part) for part in raw]
    return raw if isinstance(raw, nd.NDArray) else to_ndarray(raw)


def default_batchify_fn(data: Sequence[Any]) -> Any:
    """Stacks samples into an NDArray (or, for tuple samples, into a list with one NDArray per position).

    The dtype is that of the samples: Python ints give int64, Python floats float64. Raises ValueError for
    samples
    of different shapes and TypeError for samples that are no numbers.
    """
    return wrap(collate(data))


def default_mp_batchify_fn(data: Sequence[Any]) -> Any:
    """The same as `default_batchify_fn`; the name under which worker processes know it.

    The way through shared memory is the loader's affair, so there is nothing special left to do here.
    """
    return wrap(collate(data))


class Stack:
    """Stacks samples of one shape along a new first axis."""

    def __call__(self, data: Sequence[Any]) -> Any:
        return default_batchify_fn(data)


class Pad:
    """Pads samples at the end of each axis to the largest size in the batch, then stacks them.

    Parameters
    ----------
    axis : int or tuple of int, the axes that may differ; None (default) for all of them
    val : number to pad with (default 0)
    dtype : dtype of the batch; that of the samples by default
    ret_length : also return the sizes along `axis` before padding, int32 of shape (batch,); needs a single
    `axis`
    pad_val : older name of `val`
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] | None = None,
        val: float | None = None,
        dtype: Any = None,
        ret_length: bool = False,
        pad_val: float | None = None,
    ) -> None:
        if val is not None and pad_val is not None:
            raise ValueError("Pad: val and pad_val are two names of one argument, give one of them")
        if ret_length and not isinstance(axis, int):
            raise ValueError(f"Pad: ret_length needs a single integer axis, got axis={axis!r}")
        self._axis = axis
        self._val = next((v for v in (val, pad_val) if v is not None), 0)
        self._dtype = dtype
        self._ret_length = ret_length

    def _padded_axes(self, ndim: int) -> set[int]:
        if self._axis is None:
            return set(range(ndim))
        axes = self._axis if isinstance(self._axis, tuple) else (self._axis,)
        for axis in axes:
            if not -ndim <= axis < ndim:
                raise ValueError(f"Pad: axis {axis} is out of range for samples with {ndim} axes")
        return {axis % ndim for axis in axes}

    def __call__(self, data: Sequence[Any]) -> Any:
        if len(data) == 0:
            raise ValueError("Pad: got an empty list of samples")
        arrays = [x.asnumpy() if isinstance(x, nd.NDArray) else np.asarray(x) for x in data]
        ndim = arrays[0].ndim
        if any(x.ndim != ndim for x in arrays):
            raise ValueError(
                f"Pad: samples must have the same number of axes, got {sorted({x.ndim for x in arrays})}"
            )
        axes = self._padded_axes(ndim)
        shape = tuple(max(x.shape[i] for x in arrays) for i in range(ndim))
        for position, x in enumerate(arrays):
            wrong = [i for i in range(ndim) if i not in axes and x.shape[i] != shape[i]]
            if wrong:
                raise ValueError(
                    f"Pad: sample {position} of shape {x.shape} differs along axis {wrong[0]}, not padded"
                )
        dtype = np.result_type(*arrays) if self._dtype is None else self._dtype
        batch = np.full((len(arrays), *shape), self._val, dtype=dtype)
        for row, x in zip(batch, arrays, strict=True):
            row[tuple(slice(size) for size in x.shape)] = x
        if not self._ret_length:
            return to_ndarray(batch)
        assert isinstance(self._axis, int)
        lengths = np.array([x.shape[self._axis] for x in arrays], dtype=np.int32)
        return to_ndarray(batch), to_ndarray(lengths)


class Group:
    """Applies one batchify function per position of the samples, which are tuples; gives a tuple.

    `Group(Stack(), Pad())` and `Group([Stack(), Pad()])` mean the same.
    """

    def __init__(self, fn: Any, *args: Callable[[Sequence[Any]], Any]) -> None:
        if isinstance(fn, list | tuple):
            if args:
                raise ValueError("Group: give the functions either as one list or as separate arguments")
            self._fn = list(fn)
        else:
            self._fn = [fn, *args]
        for position, function in enumerate(self._fn):
            if not callable(function):
                raise TypeError(f"Group: function {position} is not callable: {function!r}")

    def __call__(self, data: Sequence[Any]) -> tuple[Any, ...]:
        for position, sample in enumerate(data):
            if len(sample) != len(self._fn):
                raise ValueError(
                    f"Group: {len(self._fn)} functions, but sample {position} has {len(sample)} elements"
                )
        return tuple(fn([sample[i] for sample in data]) for i, fn in enumerate(self._fn))


Tuple = Group


class List:
    """Leaves the samples as they are, in a list."""

    def __call__(self, data: Sequence[Any]) -> list[Any]:
        return list(data)


class Append:
    """A list with one NDArray per sample, each with a first axis of size 1 unless `expand` is False."""

    def __init__(self, expand: bool = True) -> None:
        self._expand = expand

    def __call__(self, data: Sequence[Any]) -> list[Any]:
        arrays = [x if isinstance(x, nd.NDArray) else to_ndarray(np.asarray(x)) for x in data]
        return [x.expand_dims(0) for x in arrays] if self._expand else arrays
