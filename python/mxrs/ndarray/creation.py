"""Functions that make arrays, and those that cut them up or put them together.

What an operator of the core does alone (`concat`, `stack`, `zeros_like`, ...) is not repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ..base import MXNetError
from ._devices import call_on, device_of
from ._dtypes import NAMES, flag_of
from ._lookup import op
from .interop import as_values, from_numpy, from_values
from .ndarray import NDArray
from .shapes import whole

__all__ = [
    "arange",
    "array",
    "concatenate",
    "empty",
    "eye",
    "from_numpy",
    "full",
    "histogram",
    "imdecode",
    "linspace",
    "moveaxis",
    "onehot_encode",
    "ones",
    "split_v2",
    "waitall",
    "zeros",
]


def _shape(shape: Any) -> tuple[int, ...]:
    """A shape given as an int or a sequence.

    Raises
    ------
    MXNetError
        For negative extents.
    """
    extents = (int(shape),) if hasattr(shape, "__index__") else tuple(map(whole, shape))
    if any(e < 0 for e in extents):
        raise MXNetError(f"shape {extents} is not valid: extents are not negative")
    return extents


def _dense(stype: str | None, what: str) -> None:
    if stype not in (None, "default"):
        raise NotImplementedError(
            f"{what}: storage type '{stype}' is not built yet; sparse arrays are missing"
        )


def _name(dtype: Any) -> str:
    return NAMES[0 if dtype is None else flag_of(dtype)]


def array(source_array: Any, ctx: Any = None, dtype: Any = None) -> NDArray:
    """An array of the values of a NumPy array, a list, a number or an NDArray.

    Parameters
    ----------
    source_array : array_like
        The values.
    ctx : Context, optional
        Where the array lives; the current context if not given.
    dtype : str or type, optional
        The element type. If not given, that of an NDArray, and float32 for anything else.

    Raises
    ------
    TypeError
        If the source is not a regular array of numbers.
    """
    if isinstance(source_array, NDArray):
        source = _core.detach(source_array)
        device = device_of(ctx)
        if device is None:
            device = _core.current_context()
        if dtype is not None and flag_of(dtype) != source._type_flag:
            source = op("Cast")(source, dtype=_name(dtype))
            return source if device == source._device else _core.copy_to_context(source, device)
        return _core.copy_to_context(source, device)
    flag = 0 if dtype is None else flag_of(dtype)
    if hasattr(source_array, "tocsr") and hasattr(source_array, "nnz"):
        raise NotImplementedError("array: SciPy matrices are sparse, and sparse arrays are not built yet")
    if isinstance(source_array, (str, bytes)):
        raise TypeError("source_array must be array like object")
    try:
        values = as_values(source_array, flag)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"source_array must be array like object ({error})") from None
    return from_values(values, flag, device_of(ctx))


def _constant(operator: str, shape: Any, ctx: Any, dtype: Any, kwargs: dict[str, Any]) -> NDArray:
    kwargs.pop("name", None)
    return call_on(ctx, op(operator), shape=_shape(shape), dtype=_name(dtype), **kwargs)


def zeros(shape: Any, ctx: Any = None, dtype: Any = None, stype: str | None = None, **kwargs: Any) -> NDArray:
    """Zeros of `shape`, float32 unless `dtype` says otherwise, on `ctx` or the current context."""
    _dense(stype, "zeros")
    return _constant("_zeros", shape, ctx, dtype, kwargs)


def ones(shape: Any, ctx: Any = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Ones of `shape`, float32 unless `dtype` says otherwise, on `ctx` or the current context."""
    return _constant("_ones", shape, ctx, dtype, kwargs)


def empty(shape: Any, ctx: Any = None, dtype: Any = None, stype: str | None = None) -> NDArray:
    """An array whose content is not defined."""
    _dense(stype, "empty")
    return _constant("_empty", shape, ctx, dtype, {})


def full(
    shape: Any, val: Any, ctx: Any = None, dtype: Any = np.float32, out: NDArray | None = None
) -> NDArray:
    """An array of `shape` filled with `val`, a number or an array that broadcasts to the shape."""
    if isinstance(val, (int, float, np.generic)):
        value = val.item() if isinstance(val, np.generic) else val
        extra = {} if out is None else {"out": out}
        return call_on(ctx, op("_full"), shape=_shape(shape), value=value, dtype=_name(dtype), **extra)
    target = empty(shape, ctx, dtype) if out is None else out
    target[:] = val
    return target


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool | None = None,
    ctx: Any = None,
    dtype: Any = np.float32,
) -> NDArray:
    """`start, start + step, ...` below `stop` (from 0 below `start` if there is no stop), each `repeat`
    times.
    """
    if infer_range:
        raise NotImplementedError("arange: infer_range takes the length from the graph; it is for symbols")
    return call_on(ctx, op("_arange"), start=start, stop=stop, step=step, repeat=repeat, dtype=_name(dtype))


def linspace(
    start: float, stop: float, num: int, endpoint: bool = True, ctx: Any = None, dtype: Any = np.float32
) -> NDArray:
    """`num` numbers at equal distances from `start` to `stop`, which belongs to them if `endpoint` is true."""
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    return call_on(
        ctx, op("_linspace"), start=start, stop=stop, num=num, endpoint=endpoint, dtype=_name(dtype)
    )


def eye(N: int, M: int = 0, k: int = 0, ctx: Any = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Ones on diagonal `k` of an N x M matrix (N x N if M is 0), zeros elsewhere."""
    kwargs.pop("name", None)
    return call_on(ctx, op("_eye"), N=N, M=M, k=k, dtype=_name(dtype), **kwargs)


def moveaxis(tensor: NDArray, source: int | Sequence[int], destination: int | Sequence[int]) -> NDArray:
    """The array with the axes `source` at the places `destination`, the others in their order.

    Raises
    ------
    ValueError
        If the two do not match, name an axis twice, or one that does not exist.
    """

    def axes(given: int | Sequence[int], what: str) -> list[int]:
        listed = [given] if isinstance(given, (int, np.integer)) else list(given)
        for axis in listed:
            if not -tensor.ndim <= axis < tensor.ndim:
                raise ValueError(
                    f"moveaxis: {what} {axis} is out of bounds for an array of {tensor.ndim} dimensions"
                )
        plain = [int(axis) % tensor.ndim for axis in listed]
        if len(set(plain)) != len(plain):
            raise ValueError(f"moveaxis: {what} {given} names an axis twice")
        return plain

    sources, targets = axes(source, "source"), axes(destination, "destination")
    if len(sources) != len(targets):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [axis for axis in range(tensor.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources)):
        order.insert(target, axis)
    return op("transpose")(tensor, axes=tuple(order))


def concatenate(arrays: Sequence[NDArray], axis: int = 0, always_copy: bool = True) -> NDArray:
    """Arrays joined along an axis; a single one is returned as it is unless `always_copy`."""
    if not arrays:
        raise ValueError("concatenate: no arrays were given")
    if len(arrays) == 1 and not always_copy:
        return arrays[0]
    return op("Concat")(*arrays, dim=axis)


def split_v2(
    ary: NDArray, indices_or_sections: int | Sequence[int], axis: int = 0, squeeze_axis: bool = False
) -> Any:
    """Cuts an array along an axis into equal sections (an int), or before each of the given indices.

    Returns
    -------
    list of NDArray
        The parts; one array where there is only one part.
    """
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
        extent = ary.shape[axis]
        if sections < 1 or extent % sections:
            raise ValueError("array split does not result in an equal division")
        parts = range(0, extent, extent // sections) if extent else [0] * sections
        return op("_split_v2")(ary, tuple(parts), axis, squeeze_axis)
    if isinstance(indices_or_sections, (list, tuple, set, np.ndarray)):
        indices = (0, *(int(i) for i in indices_or_sections))
        return op("_split_v2")(ary, indices, axis, squeeze_axis)
    raise ValueError("indices_or_sections must either int, or tuple / list / set of ints")


def histogram(
    a: NDArray, bins: int | NDArray = 10, range: tuple[float, float] | None = None
) -> list[NDArray]:
    """How many elements fall into each bin, and the edges of the bins.

    Parameters
    ----------
    a : NDArray
        The values.
    bins : int or NDArray
        A number of bins of equal width, or their edges.
    range : (float, float), optional
        The outer edges; the least and the largest value if not given.
    """
    if isinstance(bins, NDArray):
        return op("_histogram")(a, bins)
    if not isinstance(bins, (int, np.integer)):
        raise ValueError(
            f"bins argument should be either an integer or an NDArray, a {type(bins).__name__} was given"
        )
    if range is None:
        # NumPy's rule for the outer edges: a single value gets half a unit on either side.
        values = a.asnumpy()
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        range = (low, high) if low < high else (low - 0.5, high + 0.5)
    return op("_histogram")(a, bin_cnt=int(bins), range=(float(range[0]), float(range[1])))


def onehot_encode(indices: NDArray, out: NDArray) -> NDArray:
    """Writes ones into `out`, a matrix with a row per index, at the column of the index, and zeros elsewhere."""
    return op("_onehot_encode")(indices, out, out=out)


def imdecode(
    str_img: bytes,
    clip_rect: tuple[int, int, int, int] = (0, 0, 0, 0),
    out: NDArray | None = None,
    index: int = 0,
    channels: int = 3,
    mean: NDArray | None = None,
) -> NDArray:
    """Not built yet: decoding images in the core."""
    raise NotImplementedError("nd.imdecode is not built yet; mx.image.imdecode is its successor")


def waitall() -> None:
    """Waits until everything that was asked for is computed; raises the first error that nobody has seen."""
    _core.waitall()
