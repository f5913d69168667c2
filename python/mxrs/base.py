"""Exceptions and type tuples that the rest of the package shares."""

from __future__ import annotations

import numpy as np

from ._core import (
    MXNetError,
    MXNetIndexError,
    MXNetNotImplementedError,
    MXNetTypeError,
    MXNetValueError,
)

__all__ = [
    "MXNetError",
    "MXNetIndexError",
    "MXNetNotImplementedError",
    "MXNetTypeError",
    "MXNetValueError",
    "NotImplementedForSymbol",
    "integer_types",
    "numeric_types",
    "string_types",
]

string_types = (str,)
integer_types = (int, np.integer)
numeric_types = (float, int, np.generic)


class NotImplementedForSymbol(MXNetError):
    """A method of NDArray that a Symbol does not have was called on a Symbol.

    Parameters
    ----------
    function : callable
        The method.
    alias : str or None
        Another name under which it was called.
    args
        The arguments of the call; only their types are shown.
    """

    def __init__(self, function: object, alias: str | None, *args: object) -> None:
        self.function = getattr(function, "__name__", str(function))
        self.alias = alias
        self.args_types = [type(a).__name__ for a in args]
        called = f"{self.function} (called as {alias})" if alias else self.function
        super().__init__(f"{called} is not available on Symbol; arguments were {self.args_types}")
