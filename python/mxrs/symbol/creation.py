"""`mx.sym.zeros`, `arange`, `split_v2` and their kin: operators whose functions take other arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._lookup import op
from .symbol import Symbol

__all__ = ["arange", "eye", "full", "histogram", "linspace", "ones", "split_v2", "zeros"]


def _dtype(dtype: Any) -> Any:
    return np.float32 if dtype is None else dtype


def zeros(shape: Any, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Zeros of this shape; float32 without `dtype`."""
    return op("_zeros")(shape=shape, dtype=_dtype(dtype), **kwargs)


def ones(shape: Any, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Ones of this shape; float32 without `dtype`."""
    return op("_ones")(shape=shape, dtype=_dtype(dtype), **kwargs)


def full(shape: Any, val: float, dtype: Any = None, **kwargs: Any) -> Symbol:
    """This shape filled with `val`; float32 without `dtype`."""
    return op("_full")(shape=shape, dtype=_dtype(dtype), value=float(val), **kwargs)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool = False,
    name: str | None = None,
    dtype: Any = None,
) -> Symbol:
    """Numbers from `start` to before `stop`, each `repeat` times; from 0 to before `start` without `stop`.

    With `infer_range` the end follows from the shape that the graph needs.
    """
    return op("_arange")(
        start=start,
        stop=stop,
        step=step,
        repeat=repeat,
        infer_range=infer_range,
        name=name,
        dtype=_dtype(dtype),
    )


def linspace(
    start: float, stop: float, num: int, endpoint: bool = True, name: str | None = None, dtype: Any = None
) -> Symbol:
    """`num` numbers at equal distances from `start` to `stop`, which is left out without `endpoint`."""
    return op("_linspace")(start=start, stop=stop, num=num, endpoint=endpoint, name=name, dtype=_dtype(dtype))


def eye(N: int, M: int = 0, k: int = 0, dtype: Any = None, **kwargs: Any) -> Symbol:
    """An (N, M) matrix (M = 0: square) of ones on the k-th diagonal."""
    return op("_eye")(N, M, k, dtype=_dtype(dtype), **kwargs)


def histogram(
    a: Symbol, bins: int | Symbol = 10, range: tuple[float, float] | None = None, **kwargs: Any
) -> Symbol:
    """How many elements fall into each bin, and the edges of the bins: two outputs.

    Parameters
    ----------
    a : Symbol
        The values.
    bins : int or Symbol
        A number of bins of equal width, or their edges.
    range : (float, float)
        The outer edges; needed with a number of bins.
    """
    if isinstance(bins, Symbol):
        return op("_histogram")(data=a, bins=bins, **kwargs)
    if not isinstance(bins, (int, np.integer)):
        raise ValueError(f"bins argument should be either an integer or a Symbol, not {type(bins).__name__}")
    if range is None:
        raise ValueError("histogram: range is needed with a number of bins: a graph has no values to look at")
    return op("_histogram")(data=a, bin_cnt=bins, range=range, **kwargs)


def split_v2(
    ary: Symbol, indices_or_sections: int | Sequence[int], axis: int = 0, squeeze_axis: bool = False
) -> Symbol:
    """Parts along an axis: equal sections (an int), or cuts before each of the given indices."""
    indices: list[int] = []
    sections = 0
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
    elif isinstance(indices_or_sections, (list, tuple, set, np.ndarray)):
        indices = [0, *(int(i) for i in indices_or_sections)]
    else:
        raise ValueError("indices_or_sections must either int, or tuple / list / set of ints")
    return op("_split_v2")(ary, indices=indices, axis=axis, squeeze_axis=squeeze_axis, sections=sections)
