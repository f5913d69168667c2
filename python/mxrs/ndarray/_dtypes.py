"""Element types: NumPy's classes, MXNet's numbers, and the names that operators take."""

from __future__ import annotations

from typing import Any

import numpy as np

_DTYPE_NP_TO_MX: dict[Any, int] = {
    None: -1,
    np.float32: 0,
    np.float64: 1,
    np.float16: 2,
    np.uint8: 3,
    np.int32: 4,
    np.int8: 5,
    np.int64: 6,
    np.bool_: 7,
}
_DTYPE_MX_TO_NP: dict[int, Any] = {number: kind for kind, number in _DTYPE_NP_TO_MX.items()}

#: NumPy's element type and the operators' spelling of it, by MXNet's number.
NP_DTYPES = tuple(np.dtype(_DTYPE_MX_TO_NP[number]) for number in range(8))
NAMES = tuple(dtype.name for dtype in NP_DTYPES)


def flag_of(dtype: Any) -> int:
    """MXNet's number of an element type given as a name, a NumPy class or dtype, or a Python type.

    Raises
    ------
    TypeError
        For element types that arrays cannot have.
    """
    try:
        kind = np.dtype(dtype).type
    except TypeError:
        kind = None
    # NumPy's second 64-bit integer (long beside long long) is a class of its own.
    found = _DTYPE_NP_TO_MX.get(kind) if kind is not None else None
    if found is None and kind is not None and np.dtype(kind) == np.int64:
        found = 6
    if found is None:
        shown = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", dtype)
        raise TypeError(f"dtype {shown} is not supported; arrays hold {', '.join(NAMES)}")
    return found
