"""Extents given by the user, and the codes of `NDArray.reshape`."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..base import MXNetValueError


def whole(extent: Any) -> int:
    """An extent as an int; a float is one if it has no fraction.

    Raises
    ------
    TypeError
        For anything else.
    """
    try:
        return operator.index(extent)
    except TypeError:
        if isinstance(extent, float) and extent.is_integer():
            return int(extent)
        raise TypeError(f"a shape holds whole numbers; {extent!r} was given") from None


def reshaped(shape: tuple[int, ...], codes: tuple[int, ...], reverse: bool = False) -> tuple[int, ...]:
    """The shape that MXNet's codes make of `shape`.

    A code that is a positive number is that extent; 0 keeps the dimension, -1 (once) takes what is left, -2
    keeps all remaining dimensions, -3 merges the next two, and -4, a, b splits one into a and b, one of which
    may be -1. With `reverse` codes and dimensions are matched from the right, and the group of -4 is written
    backwards.

    Raises
    ------
    MXNetValueError
        (a ValueError) For codes that do not fit, or if the number of elements would change.
    """
    given, wanted = tuple(shape), codes
    if reverse:
        shape, codes = shape[::-1], codes[::-1]
    out: list[int] = []
    unknown = -1
    at, i = 0, 0

    def fail(reason: str) -> MXNetValueError:
        return MXNetValueError(f"cannot reshape an array of shape {given} with shape={wanted}: {reason}")

    def take() -> int:
        nonlocal at
        if at >= len(shape):
            raise fail(f"code {codes[i]} needs a dimension that the array does not have")
        at += 1
        return shape[at - 1]

    while i < len(codes):
        code = codes[i]
        if code == 0:
            out.append(take())
        elif code == -1:
            if unknown >= 0:
                raise fail("only one dimension can be -1")
            unknown = len(out)
            out.append(1)
            at += 1
        elif code == -2:
            out.extend(shape[at:])
            at = max(at, len(shape))
        elif code == -3:
            out.append(take() * take())
        elif code == -4:
            if i + 2 >= len(codes):
                raise fail("code -4 is followed by the two extents it makes")
            whole, first, second = take(), codes[i + 1], codes[i + 2]
            if first == -1 and second > 0:
                first = whole // second
            elif second == -1 and first > 0:
                second = whole // first
            if first <= 0 or second <= 0 or first * second != whole:
                raise fail(f"a dimension of {whole} cannot be split into {codes[i + 1]} and {codes[i + 2]}")
            out.extend((first, second))
            i += 2
        elif code > 0:
            out.append(code)
            at += 1
        else:
            raise fail(f"{code} is not a code; 0, -1, -2, -3 and -4 are")
        i += 1
    size = math.prod(shape)
    if unknown >= 0:
        known = math.prod(out)
        if known == 0 or size % known:
            raise fail(f"{size} elements cannot be divided into groups of {known}")
        out[unknown] = size // known
    if math.prod(out) != size:
        raise fail(f"it has {size} elements")
    return tuple(out[::-1] if reverse else out)
