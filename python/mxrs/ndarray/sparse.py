"""`mx.nd.sparse`: sparse arrays are not built yet, and say so.

The classes exist so that `isinstance` tests of programs work; no array is one of them. Operators of this
module are those of dense arrays.
"""

from __future__ import annotations

from typing import Any, NoReturn

from . import arithmetic
from ._lookup import OPS, absent, public_ops, with_prefix
from .creation import array as _dense_array
from .creation import empty as _dense_empty
from .creation import zeros as _dense_zeros
from .ndarray import NDArray

_OPERATORS = {**public_ops(), **with_prefix("_sparse_")}


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"{what}: sparse arrays are not built yet in mxrs")


class BaseSparseNDArray:
    """What sparse arrays have in common. None can be made yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse(type(self).__name__)


class CSRNDArray(BaseSparseNDArray):
    """A matrix by compressed rows. None can be made yet."""


class RowSparseNDArray(BaseSparseNDArray):
    """An array most of whose rows are zero. None can be made yet."""


def csr_matrix(arg1: Any, shape: Any = None, ctx: Any = None, dtype: Any = None) -> NoReturn:
    """Not built yet."""
    _refuse("csr_matrix")


def row_sparse_array(arg1: Any, shape: Any = None, ctx: Any = None, dtype: Any = None) -> NoReturn:
    """Not built yet."""
    _refuse("row_sparse_array")


def retain(data: Any, indices: Any, **kwargs: Any) -> NoReturn:
    """Not built yet."""
    _refuse("retain")


def array(source_array: Any, ctx: Any = None, dtype: Any = None) -> NDArray:
    """A dense array of a dense source; sparse sources are not built yet."""
    return _dense_array(source_array, ctx, dtype)


def zeros(stype: str, shape: Any, ctx: Any = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """Zeros of storage type 'default'; others are not built yet."""
    return _dense_zeros(shape, ctx, dtype, stype=stype, **kwargs)


def empty(stype: str, shape: Any, ctx: Any = None, dtype: Any = None) -> NDArray:
    """An array of storage type 'default' and undefined content; other storage types are not built yet."""
    return _dense_empty(shape, ctx, dtype, stype=stype)


def __getattr__(name: str) -> Any:
    found = getattr(arithmetic, name, None) if name in arithmetic.__all__ else _OPERATORS.get(name)
    if found is None:
        raise absent(__name__, name, f"_sparse_{name}" if f"_sparse_{name}" in OPS else name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_OPERATORS, *arithmetic.__all__})
