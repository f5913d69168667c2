"""Living with NumPy: arrays that share memory, NumPy's functions on NDArrays, NumPy values in arithmetic.

`np.add(a, x)` and the signs between a NumPy array and an NDArray give an NDArray. Other ufuncs (`np.exp(x)`)
give what they give on `x.asnumpy()`.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _core
from ._dtypes import _DTYPE_NP_TO_MX, NP_DTYPES

_Base = _core.NDArrayBase


def as_values(source: Any, flag: int) -> np.ndarray:
    """A C-contiguous NumPy array of the element type with number `flag`.

    Whole numbers outside the type's range wrap, as they do in NumPy 1; NumPy 2 refuses them in lists.

    Raises
    ------
    TypeError, ValueError
        If the source is not a regular array of numbers.
    """
    try:
        return np.asarray(source, dtype=NP_DTYPES[flag], order="C")
    except OverflowError:
        return np.asarray(np.asarray(source).astype(NP_DTYPES[flag]), order="C")


def from_values(values: np.ndarray, flag: int, device: tuple[int, int] | None = None) -> Any:
    """An NDArray with a copy of a C-contiguous NumPy array of the element type with number `flag`."""
    # NumPy's buffer of an array without dimensions has no extents at all; as one element it has.
    return _core.from_buffer(values if values.ndim else values.reshape(1), flag, values.shape, device)


#: The type number of GPU contexts.
GPU = 2


def positions(indices: np.ndarray, device: tuple[int, int]) -> Any:
    """An NDArray of places in another: int64, or int32 on a GPU, which has no longer type (and no longer axes)."""
    name, flag = ("int32", 4) if device[0] == GPU else ("int64", 6)
    return from_values(np.asarray(indices, name, order="C"), flag, device)


#: ufuncs that stand behind signs.
_SIGNS: dict[Any, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.remainder: operator.mod,
    np.power: operator.pow,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
}


def array_ufunc(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's hook: what `ufunc` gives where an NDArray is among its inputs or outputs."""
    outs = kwargs.get("out", ())
    if any(isinstance(o, _Base) for o in outs):
        raise TypeError(f"np.{ufunc.__name__}: out is an NDArray; a numpy.ndarray is allowed")
    sign = _SIGNS.get(ufunc)
    if sign is not None and method == "__call__" and not kwargs:
        left, right = (x if isinstance(x, _Base) else convert(x, self._device) for x in inputs)
        if left is not None and right is not None:
            return sign(left, right)
        return NotImplemented
    plain = (x.asnumpy() if isinstance(x, _Base) else x for x in inputs)
    return getattr(ufunc, method)(*plain, **kwargs)


class _OneElement(np.ndarray):
    """A NumPy array of one element that is a number where one is wanted, as every such array was before NumPy 2.4.

    MXNet's reductions give arrays of shape (1,), and programs print and compare them:
    `'%.4f' % loss.mean().asnumpy()`, `float(x.asnumpy())`.
    """

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        if return_scalar:
            return plain[()]
        return plain.view(_OneElement) if plain.size == 1 and plain.ndim else plain

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


def convert(value: Any, device: tuple[int, int] | None = None) -> Any:
    """An NDArray of a NumPy array or scalar, in its own element type; None for values that are not NumPy's.

    It is made on `device`, or on the current context.

    Arithmetic calls it for operands that are neither NDArrays nor numbers.
    """
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        return None
    flag = _DTYPE_NP_TO_MX.get(value.dtype.type)
    if flag is None or value.dtype != NP_DTYPES[flag]:
        # Types that arrays do not have: whole numbers become int64, the rest float64, which hold most of
        # them.
        if value.dtype.kind not in "iufb":
            return None
        flag = 1 if value.dtype.kind == "f" else 6
    values = np.asarray(value, dtype=NP_DTYPES[flag], order="C")
    return from_values(values, flag, device)


class _Memory:
    """A block of memory as NumPy's array interface describes it, and what keeps it alive."""

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype, owner: Any, strides: Any = None
    ):
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
            "strides": strides,
        }


def memory_view(
    address: int, shape: tuple[int, ...], dtype: np.dtype, owner: Any, strides: Any = None
) -> np.ndarray:
    """A NumPy array over memory that `owner` keeps alive; strides are in bytes, None for row-major order."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(_Memory(address, shape, dtype, owner, strides))


def shared_view(array: Any) -> np.ndarray:
    """A NumPy array over the memory of an NDArray, after its values are computed; writes go both ways.

    Raises
    ------
    ValueError
        If the memory is not the host's.
    """
    if array._device[0] == GPU:
        raise ValueError("an array on a GPU cannot be seen from NumPy without a copy")
    array.wait_to_read()
    return memory_view(_core.address(array), array.shape, NP_DTYPES[array._type_flag], _core.detach(array))


def from_numpy(ndarray: np.ndarray, zero_copy: bool = True, array_cls: Any = None) -> Any:
    """An NDArray of a NumPy array, sharing its memory by default; the NumPy array is then made read-only.

    Parameters
    ----------
    ndarray : numpy.ndarray
        C-contiguous, of an element type that arrays have.
    zero_copy : bool
        False: copy.
    array_cls : type, optional
        Accepted for compatibility.

    Raises
    ------
    ValueError
        If the memory cannot be shared.
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: a numpy.ndarray is expected, a {type(ndarray).__name__} was given")
    from ._dtypes import flag_of

    flag = flag_of(ndarray.dtype)
    if not zero_copy:
        values = np.asarray(ndarray, dtype=NP_DTYPES[flag], order="C")
        return from_values(values, flag)
    if not ndarray.flags["C_CONTIGUOUS"]:
        raise ValueError("Only c-contiguous arrays are supported for zero-copy")
    if not ndarray.dtype.isnative:
        raise ValueError("from_numpy: the array's byte order is not the machine's; zero_copy=False copies")
    ndarray.flags.writeable = False
    if ndarray.size == 0:
        return _core.from_buffer(b"", flag, ndarray.shape)
    return _core.from_memory(ndarray.ctypes.data, flag, ndarray.shape, ndarray, (1, 0))


_core.set_converter(lambda value, device: None if isinstance(value, np.generic) else convert(value, device))

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        float(np.ones(1))
    except TypeError:
        _core.set_one_element_class(_OneElement)
