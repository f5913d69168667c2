"""`x[key]` and `x[key] = value`.

Basic keys (integers, slices, `None`, `...`) that select one contiguous block give a view of the array's
memory, all others a copy. Keys with index arrays follow NumPy: index arrays are broadcast together, and their
dimensions stand where the first of them stood, or in front if a slice or `None` lies between them. Boolean
arrays are masks. Indices known to the host are checked here; those in an NDArray are checked by the operator
when it runs. A result without dimensions has shape `(1,)`, as everywhere in MXNet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ._dtypes import NAMES
from ._lookup import OPS, op
from .interop import GPU, as_values, from_values, positions

_Base = _core.NDArrayBase
_window = _core.window
_FULL = slice(None)
_NUMBERS = (int, float, np.generic)
_WIDE = (1, 6)  # float64 and int64


class _Span(NamedTuple):
    """A slice of an axis: `extent` elements from `start` on, `step` apart."""

    start: int
    extent: int
    step: int

    def is_full(self, extent: int) -> bool:
        return self.extent == extent and (self.step == 1 or extent <= 1)

    def positions(self) -> np.ndarray:
        return self.start + self.step * np.arange(self.extent, dtype=np.int64)


class _Key:
    """A key sorted out against a shape.

    `entries` holds, in the order of the key and with `...` spelled out, None for a new axis, an int, a
    `_Span`, or an index array (a NumPy int64 array, or an NDArray whose values stay on the device).
    """

    def __init__(self, key: Any, shape: tuple[int, ...]):
        items = key if isinstance(key, tuple) else (key,)
        self.shape = shape
        self.entries: list[Any] = []
        self.advanced = False
        expanded: list[Any] = []
        for item in items:
            expanded.extend(_classify(item))
        used = sum(1 for e in expanded if e is not None and e is not Ellipsis)
        ellipses = sum(1 for e in expanded if e is Ellipsis)
        if ellipses > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        if used > len(shape):
            raise IndexError(f"too many indices ({used}) for array with {len(shape)} dimensions")
        if not ellipses:
            expanded.append(Ellipsis)
        axis = 0
        for item in expanded:
            if item is None:
                self.entries.append(None)
            elif item is Ellipsis:
                for _ in range(len(shape) - used):
                    self.entries.append(_Span(0, shape[axis], 1))
                    axis += 1
            else:
                self.entries.append(self._fit(item, axis))
                axis += 1

    def _fit(self, item: Any, axis: int) -> Any:
        """An entry of the key against its axis: in bounds and not negative."""
        extent = self.shape[axis]
        if isinstance(item, slice):
            try:
                start, stop, step = item.indices(extent)
            except ValueError as error:
                raise IndexError(str(error)) from None
            count = len(range(start, stop, step))
            return _Span(start if count else 0, count, step if count > 1 else 1)
        if isinstance(item, int):
            return checked_index(item, axis, extent)
        self.advanced = True
        if isinstance(item, _Mask):
            if item.extent != extent:
                raise IndexError(
                    f"boolean index did not match indexed array along axis {axis}; size of axis is "
                    f"{extent} but size of corresponding boolean axis is {item.extent}"
                )
            return item.positions
        if isinstance(item, np.ndarray):
            if item.size:
                low, high = item.min(), item.max()
                if low < -extent or high >= extent:
                    bad = low if low < -extent else high
                    raise IndexError(f"index {bad} is out of bounds for axis {axis} with size {extent}")
                if low < 0:
                    item = np.where(item < 0, item + extent, item)
            return item
        return item

    def axes(self) -> list[Any]:
        """The entries of the array's own axes."""
        return [e for e in self.entries if e is not None]


class _Mask(NamedTuple):
    """One axis of a boolean mask: where it is true, and how long the axis must be."""

    positions: np.ndarray
    extent: int


def checked_index(index: int, axis: int, extent: int) -> int:
    """A Python index as one that is not negative.

    Raises
    ------
    IndexError
        If it is out of bounds.
    """
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for axis {axis} with size {extent}")
    return index + extent if index < 0 else index


def _classify(item: Any) -> list[Any]:
    """A part of a key in the forms that `_Key` works with; a mask becomes one part per axis."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return [item]
    if isinstance(item, (int, np.integer)):
        return [int(item)]
    if isinstance(item, _Base):
        return _mask(item.asnumpy()) if item.dtype is np.bool_ else [item]
    if isinstance(item, (list, tuple, range, np.ndarray, np.bool_)):
        try:
            array = np.asarray(item)
        except ValueError:
            array = np.asarray(None)
        if array.size == 0 and not isinstance(item, np.ndarray):
            array = array.astype(np.int64)
        if array.dtype == np.bool_ and array.ndim:
            return _mask(array)
        if array.dtype.kind in "iuf":
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise IndexError("an index array holds nan or inf")
            return [array.astype(np.int64) if array.ndim else int(array)]
    elif hasattr(item, "__index__"):
        return [item.__index__()]
    raise ValueError(
        f"NDArray does not support slicing with key {item} of type {type(item)}; integers, slices, None, "
        "'...', lists, and arrays of numbers or of bool are allowed"
    )


def _mask(mask: np.ndarray) -> list[_Mask]:
    return [_Mask(where, extent) for where, extent in zip(mask.nonzero(), mask.shape)]


def get_item(x: Any, key: Any) -> Any:
    """`x[key]`; the body of `NDArray.__getitem__`."""
    kind = type(key)
    if kind is int:
        return _row(x, key)
    if kind is slice:
        if key == _FULL:
            return x
        shape = x.shape
        if shape:
            start, stop, step = key.indices(shape[0]) if key.step != 0 else (0, 0, 0)
            if step == 1:
                return _rows(x, shape, start, stop)
    elif kind is tuple:
        if not key:
            return x
        block = _block(key, x.shape)
        if block is not None:
            return _get_block(x, *block)
    parsed = _Key(key, x.shape)
    if parsed.advanced:
        return _get_advanced(x, parsed)
    return _get_block(x, *_basic(parsed))


def set_item(x: Any, key: Any, value: Any) -> None:
    """`x[key] = value`; the body of `NDArray.__setitem__`."""
    kind = type(key)
    target = None
    if (kind is slice and key == _FULL) or (kind is tuple and not key):
        target = x
    elif kind is int and not _must_record(value):
        target = _row(x, key)
    if target is not None:
        store(target, value)
        return
    block = _block(key, x.shape) if kind is tuple else None
    if block is not None:
        _set_block(x, *block, value)
        return
    parsed = _Key(key, x.shape)
    if parsed.advanced:
        _set_advanced(x, parsed, value)
    else:
        _set_block(x, *_basic(parsed), value)


def _row(x: Any, index: int) -> Any:
    shape = x.shape
    if not shape:
        raise IndexError("too many indices (1) for array with 0 dimensions")
    extent = shape[0]
    at = index + extent if index < 0 else index
    if not 0 <= at < extent:
        raise IndexError(f"index {index} is out of bounds for axis 0 with size {extent}")
    return _window(x, at * (x.size // extent), shape[1:] or (1,))


def _rows(x: Any, shape: tuple[int, ...], start: int, stop: int) -> Any:
    count = stop - start
    if count <= 0:
        return _window(x, 0, (0, *shape[1:]))
    return _window(x, start * (x.size // shape[0]), (count, *shape[1:]))


def _must_record(value: Any) -> bool:
    """Whether an assignment is part of a gradient: then it must be an operator on the whole array, not a
    write to a view.
    """
    return isinstance(value, _Base) and _core.is_recording() and _core.is_linked(value)


def _block(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[list[_Span], tuple[int, ...]] | None:
    """What a key of integers and slices alone selects, and the result's shape; None for any other key.

    Such keys are by far the most common ones, so they do not go through `_Key`.
    """
    if len(key) > len(shape):
        return None
    spans: list[_Span] = []
    out: list[int] = []
    for item, extent in zip(key, shape):
        kind = type(item)
        if kind is int:
            spans.append(_Span(checked_index(item, len(spans), extent), 1, 1))
        elif kind is slice and item.step != 0:
            if item == _FULL:
                span = _Span(0, extent, 1)
            else:
                start, stop, step = item.indices(extent)
                count = len(range(start, stop, step))
                span = _Span(start if count else 0, count, step if count > 1 else 1)
            spans.append(span)
            out.append(span.extent)
        else:
            return None
    for extent in shape[len(key) :]:
        spans.append(_Span(0, extent, 1))
        out.append(extent)
    return spans, tuple(out) or (1,)


def _basic(parsed: _Key) -> tuple[list[_Span], tuple[int, ...]]:
    """What a basic key selects (an integer being a span of one), and the result's shape."""
    spans = [e if isinstance(e, _Span) else _Span(e, 1, 1) for e in parsed.axes()]
    shape = tuple(1 if e is None else e.extent for e in parsed.entries if not isinstance(e, int))
    return spans, shape if shape or not parsed.shape else (1,)


def _block_start(spans: list[_Span], shape: tuple[int, ...]) -> int | None:
    """Where the block begins in row-major order if it is contiguous, else None."""
    skip, stride, partial = 0, 1, False
    for (start, count, step), extent in zip(reversed(spans), reversed(shape)):
        if partial:
            if count != 1:
                return None
        elif count != extent or (step != 1 and extent > 1):
            if step != 1:
                return None
            partial = True
        skip += start * stride
        stride *= extent
    return skip


def _bounds(spans: list[_Span]) -> dict[str, tuple[int | None, ...]]:
    """The arguments of the slicing operators for a block that is not empty."""
    ends = []
    for start, count, step in spans:
        end = start + (count - 1) * step + (1 if step > 0 else -1)
        ends.append(None if end < 0 else end)
    return {
        "begin": tuple(s.start for s in spans),
        "end": tuple(ends),
        "step": tuple(s.step for s in spans),
    }


def _get_block(x: Any, spans: list[_Span], out_shape: tuple[int, ...]) -> Any:
    if 0 in out_shape:
        return _window(x, 0, out_shape)
    start = _block_start(spans, x.shape)
    if start is not None:
        return _window(x, start, out_shape)
    block = op("slice")(x, **_bounds(spans))
    return block if block.shape == out_shape else _window(block, 0, out_shape)


def _set_block(x: Any, spans: list[_Span], out_shape: tuple[int, ...], value: Any) -> None:
    if 0 in out_shape:
        return
    start = _block_start(spans, x.shape)
    if start is not None and not _must_record(value):
        store(_window(x, start, out_shape), value)
        return
    if isinstance(value, _NUMBERS):
        op("_slice_assign_scalar")(x, scalar=_plain(value), **_bounds(spans), out=x)
        return
    value = fitted(value, out_shape, x)
    block = tuple(s.extent for s in spans)
    if value.shape != block:
        value = _window(value, 0, block)
    op("_slice_assign")(x, value, **_bounds(spans), out=x)


class _Gather(NamedTuple):
    """Where the elements of an advanced key lie.

    `indices` has shape `(k, *lead)`: row i holds the positions on axis i. The axes from k on are taken whole.
    `shape` is the result's shape with new axes, whose elements are in the order of `(*lead, *rest)`.
    """

    indices: np.ndarray
    shape: tuple[int, ...]


def _host(entry: Any) -> Any:
    """An index array as NumPy's."""
    return entry.asnumpy().astype(np.int64) if isinstance(entry, _Base) else entry


def _plan(parsed: _Key, depth: int) -> _Gather:
    """Positions for the first `depth` axes, which contain every index array; later ones are full slices."""
    arrays_at = [
        i for i, e in enumerate(parsed.entries) if e is not None and not isinstance(e, _Span)
    ]  # with an index array in the key, integers count as such
    arrays = [np.asarray(parsed.entries[i], np.int64) for i in arrays_at]
    try:
        together = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " ".join(str(a.shape) for a in arrays)
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together with shapes {shapes}"
        ) from None
    adjacent = arrays_at[-1] - arrays_at[0] + 1 == len(arrays_at)
    before = arrays_at[0] if adjacent else 0
    # The result's dimensions in order: those of slices in front, the index arrays' own, those of the other
    # slices.
    lead: list[int] = []
    shape: list[int] = []
    place: dict[int, int] = {}
    axis, block_at = 0, -1
    for i, entry in enumerate(parsed.entries):
        if i == before or (block_at < 0 and not adjacent):
            block_at = len(lead)
            lead.extend(together)
            shape.extend(together)
        if entry is None:
            shape.append(1)
            continue
        if isinstance(entry, _Span):
            if axis < depth:
                place[axis] = len(lead)
                lead.append(entry.extent)
            shape.append(entry.extent)
        axis += 1
    indices = np.empty((depth, *lead), np.int64)
    taken = iter(arrays)
    for axis, entry in enumerate(parsed.axes()):
        if axis >= depth:
            break
        dims = [1] * len(lead)
        if isinstance(entry, _Span):
            dims[place[axis]] = entry.extent
            indices[axis] = entry.positions().reshape(dims)
        else:
            array = np.broadcast_to(next(taken), together)
            dims[block_at : block_at + len(together)] = together
            indices[axis] = array.reshape(dims)
    return _Gather(indices, tuple(shape) or (1,))


def _depth(parsed: _Key, whole_slices: bool) -> int:
    """How many axes need positions: up to the last index array or, if asked for, the last partial slice."""
    last = 0
    for axis, entry in enumerate(parsed.axes()):
        if not isinstance(entry, _Span) or (whole_slices and not entry.is_full(parsed.shape[axis])):
            last = axis + 1
    return last


def _device_indices(parsed: _Key, device: tuple[int, int]) -> Any:
    """The stacked indices of a key of NDArrays of one shape on the leading axes, or None for any other key.

    These need not come to the host: the operator checks them when it runs. GPUs have no types of 64 bits, so indices of
    such go by the host.
    """
    on_gpu = device[0] == GPU
    arrays: list[Any] = []
    for axis, entry in enumerate(parsed.entries):
        if isinstance(entry, _Base):
            if len(arrays) != axis or (arrays and entry.shape != arrays[0].shape):
                return None
            if on_gpu and entry._type_flag in _WIDE:
                return None
            arrays.append(entry)
        elif not isinstance(entry, _Span) or not entry.is_full(parsed.shape[axis]):
            return None
    if not arrays or 0 in arrays[0].shape:
        return None
    arrays = [
        a.detach() if a._device == device else _core.copy_to_context(a.detach(), device) for a in arrays
    ]
    if len(arrays) == 1:
        return _window(arrays[0], 0, (1, *arrays[0].shape))
    if any(a.dtype is not arrays[0].dtype for a in arrays):
        arrays = [op("Cast")(a, dtype="int32" if on_gpu else "int64") for a in arrays]
    return op("stack")(*arrays, axis=0)


def _get_advanced(x: Any, parsed: _Key) -> Any:
    indices = _device_indices(parsed, x._device)
    if indices is not None:
        return op("gather_nd")(x, indices)
    # Slices behind the last index array are cut first; those before it become positions.
    depth = _depth(parsed, whole_slices=False)
    axes = parsed.axes()
    if any(not e.is_full(parsed.shape[i]) for i, e in enumerate(axes[depth:], depth)):
        x = get_item(x, (*[_FULL] * depth, *(_as_slice(e) for e in axes[depth:])))
    parsed.entries = [_host(e) for e in parsed.entries]
    axes = parsed.axes()
    indexed = [i for i, e in enumerate(axes) if not isinstance(e, _Span)]
    if len(indexed) == 1 and all(
        e.is_full(parsed.shape[i]) for i, e in enumerate(axes[:depth]) if i not in indexed
    ):
        axis = indexed[0]
        shape = tuple(
            extent
            for e in parsed.entries
            for extent in ((1,) if e is None else (e.extent,) if isinstance(e, _Span) else e.shape)
        )
        if 0 in shape:
            return _nothing(x, shape)
        result = op("take")(x, positions(axes[axis], x._device), axis=axis, mode="clip")
    else:
        plan = _plan(parsed, depth)
        shape = plan.shape
        if 0 in shape:
            return _nothing(x, shape)
        result = op("gather_nd")(x, positions(plan.indices, x._device))
    return result if result.shape == shape else _window(result, 0, shape)


def _as_slice(span: _Span) -> slice:
    end: int | None = span.start + span.extent * span.step
    return slice(span.start, None if end is not None and end < 0 else end, span.step)


def _nothing(x: Any, shape: tuple[int, ...]) -> Any:
    """A result without elements."""
    return _core.from_buffer(b"", x._type_flag, shape, x._device)


def _set_advanced(x: Any, parsed: _Key, value: Any) -> None:
    indices = _device_indices(parsed, x._device)
    if indices is not None:
        shape = lead = (*indices.shape[1:], *parsed.shape[indices.shape[0] :])
    else:
        parsed.entries = [_host(e) for e in parsed.entries]
        depth = _depth(parsed, whole_slices=True)
        plan = _plan(parsed, depth)
        shape = plan.shape
        if 0 in shape:
            return
        indices = positions(plan.indices, x._device)
        lead = (*plan.indices.shape[1:], *parsed.shape[depth:])
    if isinstance(value, _NUMBERS):
        filled = _core.ops["_full"](shape=lead, value=_plain(value), dtype=NAMES[x._type_flag])
        value = _on(filled, x)
    else:
        value = fitted(value, shape, x)
        if value.shape != lead:
            value = _window(value, 0, lead)
    op("_scatter_set_nd")(x, value, indices, shape=x.shape, out=x)


def _plain(value: Any) -> float | int:
    """A Python or NumPy number as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _on(value: Any, like: Any) -> Any:
    return value if value._device == like._device else _core.copy_to_context(value, like._device)


def store(target: Any, value: Any) -> None:
    """Writes `value`, broadcast and cast, into all of `target`."""
    if isinstance(value, _NUMBERS):
        OPS["_full"](shape=target.shape, value=_plain(value), dtype=NAMES[target._type_flag], out=target)
        return
    shape = target.shape
    if not isinstance(value, _Base):
        value = _converted(value, target)
    if value.shape != shape:
        if 0 in shape:
            return
        value = _broadcast(value, shape)
    if value._device != target._device and (_must_record(value) or value._type_flag != target._type_flag):
        value = _moved(value, target)
    if value._type_flag == target._type_flag:
        if not _core.same_memory(value, target):
            OPS["_copyto"](value, out=target)
    else:
        OPS["Cast"](value, dtype=NAMES[target._type_flag], out=target)


def _moved(value: Any, like: Any) -> Any:
    """`value` on the device and of the element type of `like`. Types change on the host if it can be: it has them all."""
    name = NAMES[like._type_flag]
    if value._type_flag != like._type_flag and value._device[0] != GPU:
        value = OPS["Cast"](value, dtype=name)
    if value._device != like._device:
        value = _core.copy_to_context(value, like._device)
    return value if value._type_flag == like._type_flag else OPS["Cast"](value, dtype=name)


def fitted(value: Any, shape: tuple[int, ...], like: Any) -> Any:
    """`value` as an array of `shape` with the element type and on the context of `like`."""
    if not isinstance(value, _Base):
        value = _converted(value, like)
    if value.shape != shape:
        value = _broadcast(value, shape)
    return _moved(value, like)


def _converted(value: Any, like: Any) -> Any:
    """An array of a list, tuple, NumPy array or the like."""
    try:
        array = as_values(value, like._type_flag)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or isinstance(value, (str, bytes)):
        name = type(like).__name__
        raise TypeError(
            f"{name} does not support assignment with non-array-like object {value} of type {type(value)}"
        )
    return from_values(array, like._type_flag, like._device)


def _broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    """`value` repeated to `shape`; dimensions of 1 in front that `shape` has not are dropped."""
    given = value.shape
    own = given
    while len(own) > len(shape) and own[0] == 1:
        own = own[1:]
    own = (1,) * (len(shape) - len(own)) + own
    if len(own) != len(shape) or any(a not in (1, b) for a, b in zip(own, shape)):
        raise ValueError(
            "operands could not be broadcast together with remapped shapes[original->remapped]: "
            f"{given} and requested shape {shape}"
        )
    if own != given:
        value = _window(value, 0, own)
    return value if own == shape else op("broadcast_to")(value, shape=shape)
