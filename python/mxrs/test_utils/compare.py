"""Tolerances and comparisons of arrays.

An element differs where `|a - b| > atol + rtol * |b|`; its error is the left side in units of the right one.
Without explicit tolerances the coarser of the two arrays' defaults holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .. import ndarray as nd
from .. import optimizer as opt
from ..ndarray import NDArray

__all__ = [
    "almost_equal",
    "assert_allclose",
    "assert_almost_equal",
    "assert_almost_equal_ignore_nan",
    "assert_almost_equal_with_err",
    "assert_exception",
    "checkShapes",
    "collapse_sum_like",
    "compare_ndarray_tuple",
    "compare_optimizer",
    "default_atols",
    "default_numeric_eps",
    "default_rtols",
    "effective_dtype",
    "get_atol",
    "get_etol",
    "get_rtol",
    "get_tolerance",
    "get_tols",
    "locationError",
    "np_reduce",
    "same",
    "same_array",
]

T = TypeVar("T")

_DOUBLE = np.dtype("float64")
_INTEGERS = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64")


def _by_dtype(half: float, single: float, double: float, others: float | None) -> dict[np.dtype, float]:
    table: dict[np.dtype, float] = {
        np.dtype("float16"): half,
        np.dtype("float32"): single,
        np.dtype("float64"): double,
    }
    if others is not None:
        table.update({np.dtype(name): others for name in _INTEGERS})
    return table


def default_rtols() -> dict[np.dtype, float]:
    """Default relative tolerance by dtype."""
    return _by_dtype(1e-2, 1e-4, 1e-5, 0)


def default_atols() -> dict[np.dtype, float]:
    """Default absolute tolerance by dtype."""
    return _by_dtype(1e-1, 1e-3, 1e-20, 0)


def default_numeric_eps() -> dict[np.dtype, float]:
    """Step of finite differences by dtype: a power of two, so that adding it is exact."""
    return _by_dtype(2.0**-6, 2.0**-9, 2.0**-14, None)


def get_tolerance(dat: Any, tol: Any, default_tol: Mapping[np.dtype, float]) -> Any:
    """`tol` if it is a number; the entry for `dat`'s dtype if it is a table, or `default_tol`'s if it is None."""
    if tol is not None and not isinstance(tol, Mapping):
        return tol
    dtype = effective_dtype(dat)
    for table in (tol, default_tol):
        if table is not None and dtype in table:
            return table[dtype]
    raise ValueError(f"get_tolerance: there is no tolerance for dtype {dtype}")


def get_tols(x: Any, y: Any, rtol: Any, atol: Any) -> tuple[Any, Any]:
    """(rtol, atol) for comparing `x` with `y`: what is given, else the coarser of both dtypes' defaults."""
    both = [
        (get_tolerance(z, rtol, default_rtols()), get_tolerance(z, atol, default_atols())) for z in (x, y)
    ]
    return max(r for r, _ in both), max(a for _, a in both)


def get_rtol(rtol: T | None = None, dtype: Any = _DOUBLE) -> T | float:
    """`rtol`, or the default for `dtype` if it is None."""
    return default_rtols()[np.dtype(dtype)] if rtol is None else rtol


def get_atol(atol: T | None = None, dtype: Any = _DOUBLE) -> T | float:
    """`atol`, or the default for `dtype` if it is None."""
    return default_atols()[np.dtype(dtype)] if atol is None else atol


def get_etol(etol: T | None = None) -> T | float:
    """`etol`, the share of elements that may differ, or 0 if it is None."""
    return 0 if etol is None else etol


def effective_dtype(dat: Any) -> np.dtype:
    """The dtype whose precision `dat` has."""
    return np.dtype(dat.dtype) if hasattr(dat, "dtype") else np.asarray(dat).dtype


def _numpy(value: Any) -> np.ndarray:
    return value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)


def same(a: Any, b: Any) -> bool:
    """Whether two arrays have the same shape and elements; NaN equals nothing."""
    return np.array_equal(_numpy(a), _numpy(b))


def same_array(array1: NDArray, array2: NDArray) -> bool:
    """Whether two NDArrays share memory: a change of one, undone afterwards, shows in the other."""
    if array1.shape != array2.shape:
        return False
    array1[:] += 1
    shared = same(array1, array2)
    array1[:] -= 1
    # Two different arrays may by chance differ by one.
    return shared and same(array1, array2)


def checkShapes(a: Any, b: Any) -> None:
    """AssertionError, with both arrays, if their shapes differ."""
    a, b = _numpy(a), _numpy(b)
    if a.shape != b.shape:
        raise AssertionError(
            f"a.shape = {a.shape} and b.shape = {b.shape} are not equal\n a: {a!r}\n b: {b!r}"
        )


def almost_equal(
    a: Any, b: Any, rtol: Any = None, atol: Any = None, equal_nan: bool = False, use_broadcast: bool = True
) -> bool:
    """Whether no element differs. Shapes must be equal without `use_broadcast` (AssertionError)."""
    if not use_broadcast:
        checkShapes(a, b)
    rtol, atol = get_tols(a, b, rtol, atol)
    return bool(np.allclose(_numpy(a), _numpy(b), rtol=rtol, atol=atol, equal_nan=bool(equal_nan)))


def locationError(
    a: Any, b: Any, index: tuple[int, ...], names: Sequence[str], maxError: bool = False
) -> str:
    """Words that show the elements of `a` and `b` at `index`."""
    which = "maximum error" if maxError else "error"
    return f"Location of {which}: {index}, {names[0]}={a[index]:.8f}, {names[1]}={b[index]:.8f}"


def _errors(a: np.ndarray, b: np.ndarray, rtol: Any, atol: Any) -> np.ndarray:
    """The error of each element: above 1 where it differs, infinite where only one is finite, NaN never small."""
    a, b = a.astype("float64"), b.astype("float64")
    with np.errstate(all="ignore"):
        excess = np.abs(a - b)
        # Equal infinities have no distance; elements whose tolerance is 0 differ by any distance.
        excess = np.where(a == b, 0.0, excess)
        errors = excess / (atol + rtol * np.abs(b) + 1e-20)
    return np.where(np.isnan(errors), np.inf, errors)


def _report(
    a: np.ndarray, b: np.ndarray, rtol: Any, atol: Any, names: Sequence[str], rows: int, bad: np.ndarray
) -> str:
    """Where and by how much two arrays of one shape differ, the worst elements first."""
    errors = _errors(a, b, rtol, atol)
    worst = np.argsort(-errors, axis=None, kind="stable")[: max(1, rows)]
    count = int(bad.sum())
    lines = [
        f"{names[0]} and {names[1]} differ: {count} of {bad.size} elements ({100 * count / max(bad.size, 1):.4g} %) "
        f"exceed tolerance rtol={rtol:.3g}, atol={atol:.3g}"
    ]
    for flat in worst:
        index = tuple(int(i) for i in np.unravel_index(flat, errors.shape))
        if bad[index]:
            lines.append(
                f"  at {index}: {names[0]}={a[index]!s}, {names[1]}={b[index]!s}, {errors[index]:.6g} times the tolerance"
            )
    lines += [f"{names[0]}: {a!r}", f"{names[1]}: {b!r}"]
    return "\n".join(lines)


def assert_almost_equal(
    a: Any,
    b: Any,
    rtol: Any = None,
    atol: Any = None,
    names: Sequence[str] = ("a", "b"),
    equal_nan: bool = False,
    use_broadcast: bool = True,
    mismatches: tuple[int, int] = (10, 10),
) -> None:
    """AssertionError unless `almost_equal`; it shows the worst `min(mismatches)` elements."""
    if not use_broadcast:
        checkShapes(a, b)
    _assert_close(a, b, rtol, atol, 0, names, equal_nan, mismatches)


def _assert_close(
    a: Any, b: Any, rtol: Any, atol: Any, etol: float, names: Any, equal_nan: bool, mismatches: Sequence[int]
) -> None:
    rtol, atol = get_tols(a, b, rtol, atol)
    x, y = np.broadcast_arrays(_numpy(a), _numpy(b))
    bad = ~np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=bool(equal_nan))
    if bad.any() and bad.mean() > etol:
        raise AssertionError(_report(x, y, rtol, atol, names, min(mismatches), bad))


def assert_allclose(a: Any, b: Any, rtol: float = 1e-07, atol: float = 0, equal_nan: bool = True) -> None:
    """`assert_almost_equal` with the defaults of NumPy's function of this name."""
    assert_almost_equal(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)


def assert_almost_equal_with_err(
    a: Any,
    b: Any,
    rtol: Any = None,
    atol: Any = None,
    etol: float | None = None,
    names: Sequence[str] = ("a", "b"),
    equal_nan: bool = False,
    mismatches: tuple[int, int] = (10, 10),
) -> None:
    """`assert_almost_equal` that lets the share `etol` of the elements differ."""
    _assert_close(a, b, rtol, atol, get_etol(etol), names, equal_nan, mismatches)


def assert_almost_equal_ignore_nan(
    a: Any, b: Any, rtol: Any = None, atol: Any = None, names: Sequence[str] = ("a", "b")
) -> None:
    """`assert_almost_equal` of the elements that are NaN in neither array."""
    x, y = _numpy(a).copy(), _numpy(b).copy()
    skipped = np.isnan(x) | np.isnan(y)
    x[skipped] = 0
    y[skipped] = 0
    assert_almost_equal(x, y, rtol, atol, names)


def assert_exception(
    f: Callable[..., Any], exception_type: type[BaseException], *args: Any, **kwargs: Any
) -> None:
    """AssertionError unless `f(*args, **kwargs)` raises `exception_type`."""
    try:
        f(*args, **kwargs)
    except exception_type:
        return
    raise AssertionError(f"{getattr(f, '__name__', f)} did not raise {exception_type.__name__}")


def compare_ndarray_tuple(t1: Any, t2: Any, rtol: Any = None, atol: Any = None) -> None:
    """Compare two arrays, or nested tuples of arrays in which None equals None."""
    if isinstance(t1, tuple | list):
        if not isinstance(t2, tuple | list) or len(t1) != len(t2):
            raise AssertionError(f"compare_ndarray_tuple: {type(t1).__name__} of {len(t1)} against {t2!r}")
        for s1, s2 in zip(t1, t2):
            compare_ndarray_tuple(s1, s2, rtol, atol)
    elif t1 is None or t2 is None:
        if t1 is not t2:
            raise AssertionError(f"compare_ndarray_tuple: {t1!r} against {t2!r}")
    else:
        assert_almost_equal(t1, t2, rtol=rtol, atol=atol)


def compare_optimizer(
    opt1: opt.Optimizer,
    opt2: opt.Optimizer,
    shape: Any,
    dtype: Any,
    w_stype: str = "default",
    g_stype: str = "default",
    rtol: Any = 1e-4,
    atol: Any = 1e-5,
    compare_states: bool = True,
    ntensors: int = 1,
) -> None:
    """Update random weights of `shape` once with each optimizer and compare weights and states.

    `shape` is one shape, given to `ntensors` weights, or a list of shapes. Storage types other than 'default'
    are not built yet (NotImplementedError).
    """
    if (w_stype, g_stype) != ("default", "default"):
        raise NotImplementedError("compare_optimizer: sparse arrays are not built yet in mxrs")
    shapes = list(shape) if isinstance(shape, list) else [shape] * ntensors
    results = []
    for optimizer in (opt1, opt2):
        draw = np.random.RandomState(0)
        pairs = [[nd.array(draw.randn(*s), dtype=dtype) for _ in range(2)] for s in shapes]
        weights, grads = [w for w, _ in pairs], [g for _, g in pairs]
        updater = opt.get_updater(optimizer)
        updater(list(range(len(shapes))), grads, weights)
        results.append((weights, [updater.states[i] for i in range(len(shapes))]))
    (weights1, states1), (weights2, states2) = results
    if compare_states:
        compare_ndarray_tuple(states1, states2, rtol=rtol, atol=atol)
    compare_ndarray_tuple(weights1, weights2, rtol=rtol, atol=atol)


def np_reduce(dat: np.ndarray, axis: Any, keepdims: bool, numpy_reduce_func: Callable[..., Any]) -> Any:
    """`numpy_reduce_func` over `axis` (None, one or several), whether or not it knows tuples and keepdims."""
    if axis is None:
        axes = tuple(range(dat.ndim))
    else:
        axes = (axis,) if isinstance(axis, int) else tuple(a % dat.ndim for a in axis)
    result = dat
    for one in sorted((a % dat.ndim for a in axes), reverse=True):
        result = numpy_reduce_func(result, axis=one)
    if keepdims:
        shape = tuple(1 if i in {a % dat.ndim for a in axes} else n for i, n in enumerate(dat.shape))
        result = np.reshape(result, shape)
    return result


def collapse_sum_like(a: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The sum of `a` over the axes along which an array of `shape` is broadcast to `a.shape`."""
    extra = a.ndim - len(shape)
    if extra < 0:
        raise AssertionError(f"collapse_sum_like: shape {tuple(shape)} has more axes than {a.shape}")
    axes = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n != a.shape[extra + i])
    return a.sum(axis=axes, keepdims=True).reshape(tuple(shape)) if axes else a
