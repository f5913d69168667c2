"""`mx.sym.maximum`, `pow` and their kin: symbols and numbers in any combination. Two numbers give a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Number
from typing import Any

from ._lookup import op
from .symbol import Symbol

__all__ = ["hypot", "maximum", "minimum", "pow", "power"]


def _choose(
    left: Any, right: Any, symbols: str, number_right: str, number_left: str, plain: Callable[[Any, Any], Any]
) -> Any:
    if isinstance(left, Symbol) and isinstance(right, Symbol):
        return op(symbols)(left, right)
    if isinstance(left, Symbol) and isinstance(right, Number):
        return op(number_right)(left, scalar=right)
    if isinstance(left, Number) and isinstance(right, Symbol):
        return op(number_left)(right, scalar=left)
    if isinstance(left, Number) and isinstance(right, Number):
        return plain(left, right)
    raise TypeError(f"types ({type(left)}, {type(right)}) not supported: Symbols and numbers are")


def maximum(left: Any, right: Any) -> Any:
    """The larger of the two, element by element."""
    return _choose(
        left, right, "_Maximum", "_MaximumScalar", "_MaximumScalar", lambda a, b: a if a > b else b
    )


def minimum(left: Any, right: Any) -> Any:
    """The smaller of the two, element by element."""
    return _choose(
        left, right, "_Minimum", "_MinimumScalar", "_MinimumScalar", lambda a, b: a if a < b else b
    )


def pow(base: Any, exp: Any) -> Any:
    """`base` to the power of `exp`, element by element."""
    return _choose(base, exp, "_Power", "_PowerScalar", "_RPowerScalar", lambda a, b: a**b)


power = pow


def hypot(left: Any, right: Any) -> Any:
    """The hypotenuse of the two legs, element by element."""
    return _choose(left, right, "_Hypot", "_HypotScalar", "_HypotScalar", math.hypot)
