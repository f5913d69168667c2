"""Exceptions, their hints, and type tuples that the rest of the package shares."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ._core import (
    MXNetError,
    MXNetIndexError,
    MXNetMemoryError,
    MXNetNotImplementedError,
    MXNetTypeError,
    MXNetValueError,
)

__all__ = [
    "MXNetError",
    "MXNetIndexError",
    "MXNetMemoryError",
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

_BUDGET = re.compile(r"\d+|\d+(\.\d*)?\s*%|smallest")


def check_budget(budget: int | str | None, name: str = "memory_budget") -> str | None:
    """A budget of working memory as the core reads it: bytes, a share such as '60%', or 'smallest'.

    Raises
    ------
    TypeError, ValueError
        It is none of these.
    """
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer | str):
        raise TypeError(
            f"{name} must be a number of bytes or a str such as '60%', not {type(budget).__name__}"
        )
    text = str(budget).strip()
    if not _BUDGET.fullmatch(text) or (text.endswith("%") and float(text[:-1]) > 100):
        raise ValueError(
            f"{name} is {budget!r}; a number of bytes, a share of what is needed without a budget ('60%', at most "
            "'100%') or 'smallest' is allowed"
        )
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses `name`: the one of the `known` that was perhaps meant, or nothing.

    A name near in spelling is one, and one whose words begin with the letters of `name`, as learning_rate for lr.
    """
    import difflib  # slow to import, and only needed where something went wrong

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    near += [one for one in known if "_" in one and "".join(word[:1] for word in one.split("_")) == name]
    return f"; did you mean {near[0]!r}?" if near else ""


def refuse_keywords(kind: type, unknown: Iterable[str]) -> None:
    """Raises TypeError for keyword arguments of `kind` that it and the classes above it do not have, if any."""
    name = next(iter(unknown), None)
    if name is None:
        return
    import inspect

    known: dict[str, None] = {}
    for cls in kind.__mro__:
        if "__init__" in cls.__dict__ and cls is not object:
            arguments = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
            known.update((one.name, None) for one in arguments if one.kind is not one.VAR_KEYWORD)
    raise TypeError(
        f"{kind.__name__}: no argument is named {name!r}{did_you_mean(name, known)} (there are {', '.join(known)})"
    )


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
