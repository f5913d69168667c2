"""`mx.sym`: graphs of operators.

Every operator of the core with a public name is a function here, made when it is first used; beside them stand the
functions of `symbol`, `creation` and `arithmetic`, and the modules `random`, `linalg`, `contrib`, `image`, `sparse`,
`op` and `_internal`.
"""

from __future__ import annotations

from typing import Any

from . import _internal, _lookup, contrib, image, linalg, op, random, sparse, symbol
from .arithmetic import hypot, maximum, minimum, pow, power
from .creation import arange, eye, full, histogram, linspace, ones, split_v2, zeros
from .symbol import Group, Symbol, Variable, fromjson, load, load_json, var

_OWN = [
    "Group",
    "Symbol",
    "Variable",
    "_internal",
    "arange",
    "contrib",
    "eye",
    "fromjson",
    "full",
    "histogram",
    "hypot",
    "image",
    "linalg",
    "linspace",
    "load",
    "load_json",
    "maximum",
    "minimum",
    "ones",
    "op",
    "pow",
    "power",
    "random",
    "sparse",
    "split_v2",
    "symbol",
    "var",
    "zeros",
]
__all__ = [*_OWN, *(name for name in _lookup.names() if name not in _OWN)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    # Operators with an underscore stand in `_internal`.
    if name.startswith("_"):
        raise _lookup.absent(__name__, name, name)
    found = _lookup.attribute(__name__, name, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
