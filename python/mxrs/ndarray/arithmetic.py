"""`mx.nd.add`, `maximum`, `equal` and their kin: arrays and numbers in any combination.

Two numbers give a number, everything else an array, with broadcasting.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .. import _core
from ._lookup import op
from .interop import convert

__all__ = [
    "add",
    "divide",
    "equal",
    "greater",
    "greater_equal",
    "lesser",
    "lesser_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "modulo",
    "multiply",
    "not_equal",
    "pow",
    "power",
    "subtract",
    "true_divide",
]

_Base = _core.NDArrayBase


def _operand(value: Any, what: str) -> Any:
    """An array, a Python number, or an array made of NumPy's.

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(value, (_Base, int, float)):
        return value
    made = convert(value)
    if made is None:
        raise TypeError(f"{what}: an NDArray or a number is expected, a {type(value).__name__} was given")
    return made


def _sign(name: str, sign: Callable[[Any, Any], Any], doc: str) -> Any:
    """A function for something that has a sign, which does the work."""

    def compute(lhs: Any, rhs: Any) -> Any:
        if not isinstance(lhs, _Base):
            lhs = _operand(lhs, name)
        if not isinstance(rhs, _Base):
            rhs = _operand(rhs, name)
        result = sign(lhs, rhs)
        return int(result) if isinstance(result, bool) else result

    return _named(compute, name, doc)


def _pair(name: str, arrays: str, scalar: str, plain: Callable[[Any, Any], Any], doc: str) -> Any:
    """A function for something symmetric that has no sign."""

    def function(lhs: Any, rhs: Any) -> Any:
        lhs, rhs = _operand(lhs, name), _operand(rhs, name)
        left, right = isinstance(lhs, _Base), isinstance(rhs, _Base)
        if left and right:
            return op(arrays)(lhs, rhs)
        if left or right:
            return op(scalar)(lhs if left else rhs, scalar=rhs if left else lhs)
        return plain(lhs, rhs)

    return _named(function, name, doc)


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc} Arrays are broadcast; two numbers give a number."
    return function


add = _sign("add", operator.add, "lhs + rhs.")
subtract = _sign("subtract", operator.sub, "lhs - rhs.")
multiply = _sign("multiply", operator.mul, "lhs * rhs.")
divide = _sign("divide", operator.truediv, "lhs / rhs.")
true_divide = _sign("true_divide", operator.truediv, "lhs / rhs.")
_power = _sign("power", operator.pow, "base to the power of exp.")
modulo = _sign("modulo", operator.mod, "lhs modulo rhs, with the sign of rhs.")
equal = _sign("equal", operator.eq, "1 where lhs = rhs, else 0.")
not_equal = _sign("not_equal", operator.ne, "1 where lhs != rhs, else 0.")
greater = _sign("greater", operator.gt, "1 where lhs > rhs, else 0.")
greater_equal = _sign("greater_equal", operator.ge, "1 where lhs >= rhs, else 0.")
lesser = _sign("lesser", operator.lt, "1 where lhs < rhs, else 0.")
lesser_equal = _sign("lesser_equal", operator.le, "1 where lhs <= rhs, else 0.")
maximum = _pair("maximum", "broadcast_maximum", "_maximum_scalar", max, "The larger of both.")
minimum = _pair("minimum", "broadcast_minimum", "_minimum_scalar", min, "The smaller of both.")
logical_and = _pair(
    "logical_and",
    "broadcast_logical_and",
    "_logical_and_scalar",
    lambda a, b: int(bool(a) and bool(b)),
    "1 where both are not zero, else 0.",
)
logical_or = _pair(
    "logical_or",
    "broadcast_logical_or",
    "_logical_or_scalar",
    lambda a, b: int(bool(a) or bool(b)),
    "1 where either is not zero, else 0.",
)
logical_xor = _pair(
    "logical_xor",
    "broadcast_logical_xor",
    "_logical_xor_scalar",
    lambda a, b: int(bool(a) != bool(b)),
    "1 where exactly one is not zero, else 0.",
)


def power(base: Any, exp: Any) -> Any:
    """Base to the power of exp. Arrays are broadcast; two numbers give a number."""
    return _power(base, exp)


pow = power
