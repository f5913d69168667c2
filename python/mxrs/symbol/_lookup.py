"""Functions that make graph nodes, one per operator of the core, made when they are first asked for.

A node without a name is named after the name that its function was called by: `mx.sym.Concat` and `mx.sym.concat`
give `concat0`, `mx.sym.linalg.gemm2` gives `gemm20`, `mx.sym.linalg_gemm2` gives `linalg_gemm20`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import _core
from ..ndarray._lookup import absent, close_names

Function = Callable[..., Any]


@functools.cache
def function(op: str, name: str) -> Function | None:
    """The function called `name` that makes nodes of the operator `op`; None where there is no such operator."""
    made: Function | None = _core.symbol_function(op, name)
    return made


def op(name: str) -> Function:
    """The function of the operator `name`.

    Raises
    ------
    NotImplementedError
        If the core does not have it.
    """
    found = function(name, name)
    if found is None:
        raise NotImplementedError(
            f"the operator {name} is not built in this version of mxrs{close_names(name)}"
        )
    return found


def names(prefix: str = "") -> list[str]:
    """The rest of the names of all operators that begin with `prefix`; without one, the public names."""
    if prefix:
        return sorted(name[len(prefix) :] for name in _core.ops if name.startswith(prefix))
    return sorted(name for name in _core.ops if name[0] != "_")


def attribute(module: str, name: str, *candidates: str) -> Function:
    """What a module's `__getattr__` gives: the function of the first operator of `candidates` that there is.

    Raises
    ------
    AttributeError
        If there is none.
    """
    if not name.startswith("__"):
        for candidate in candidates:
            found = function(candidate, name)
            if found is not None:
                return found
    raise absent(module, name, candidates[0])
