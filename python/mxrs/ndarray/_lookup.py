"""Finding operators of the core by name.

Operators are looked up when they are called, so that a function whose operator is missing raises an error
that names it instead of failing at import. What the operators do stands in the core's records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core

OPS: dict[str, Callable[..., Any]] = _core.ops


def close_names(name: str) -> str:
    """A hint for error texts: the operators whose names are close to `name`, or nothing."""
    close = [n for n in _core.similar_ops(name) if n != name]
    return f"; close names: {', '.join(close)}" if close else ""


def op(name: str) -> Callable[..., Any]:
    """The operator called `name`.

    Raises
    ------
    NotImplementedError
        If the core does not have it.
    """
    found = OPS.get(name)
    if found is None:
        raise NotImplementedError(
            f"the operator {name} is not built in this version of mxrs{close_names(name)}"
        )
    return found


def public_ops() -> dict[str, Callable[..., Any]]:
    """Every operator by the names that do not begin with an underscore."""
    return {name: f for name, f in OPS.items() if name[0] != "_"}


def with_prefix(prefix: str) -> dict[str, Callable[..., Any]]:
    """The operators whose name begins with `prefix`, by the rest of the name."""
    skip = len(prefix)
    return {name[skip:]: f for name, f in OPS.items() if name.startswith(prefix)}


def absent(module: str, name: str, operator: str) -> AttributeError:
    """The error for an attribute that a module of operators does not have."""
    if name.startswith("__"):
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    return AttributeError(
        f"module {module!r} has no attribute {name!r}: no operator {operator} is built in this version"
        " of mxrs" + close_names(operator)
    )
