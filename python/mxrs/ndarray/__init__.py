"""`mx.nd`: arrays, and operators as functions.

Every operator of the core with a public name is a function here; beside them stand the functions of
`creation`, `arithmetic`, `interop`, `dlpack` and `utils`, and the modules `random`, `linalg`, `contrib`,
`image`, `sparse`, `op` and `_internal`.
"""

from __future__ import annotations

from typing import Any

from . import (
    _internal,
    _lookup,
    arithmetic,
    contrib,
    creation,
    dlpack,
    image,
    interop,
    linalg,
    ndarray,
    op,
    random,
    sparse,
    utils,
)
from .arithmetic import (
    add,
    divide,
    equal,
    greater,
    greater_equal,
    lesser,
    lesser_equal,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    modulo,
    multiply,
    not_equal,
    pow,
    power,
    subtract,
    true_divide,
)
from .creation import (
    arange,
    array,
    concatenate,
    empty,
    eye,
    full,
    histogram,
    imdecode,
    linspace,
    moveaxis,
    onehot_encode,
    ones,
    split_v2,
    waitall,
    zeros,
)
from .dlpack import from_dlpack, to_dlpack_for_read, to_dlpack_for_write
from .interop import from_numpy
from .ndarray import NDArray
from .sparse import CSRNDArray, RowSparseNDArray
from .utils import load, load_frombuffer, save

__all__ = [
    "CSRNDArray",
    "NDArray",
    "RowSparseNDArray",
    "_internal",
    "add",
    "arange",
    "array",
    "concatenate",
    "contrib",
    "divide",
    "empty",
    "equal",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "greater",
    "greater_equal",
    "histogram",
    "image",
    "imdecode",
    "lesser",
    "lesser_equal",
    "linalg",
    "linspace",
    "load",
    "load_frombuffer",
    "logical_and",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "modulo",
    "moveaxis",
    "multiply",
    "ndarray",
    "not_equal",
    "onehot_encode",
    "ones",
    "op",
    "pow",
    "power",
    "random",
    "save",
    "sparse",
    "split_v2",
    "subtract",
    "to_dlpack_for_read",
    "to_dlpack_for_write",
    "true_divide",
    "utils",
    "waitall",
    "zeros",
]

# Functions with more to say than an operator (nd.zeros, nd.maximum, ...) keep their names.
for _name, _operator in _lookup.public_ops().items():
    if globals().setdefault(_name, _operator) is _operator:
        __all__.append(_name)


def _function(name: str, module: str) -> Any:
    """A function of this package for a module inside it that MXNet keeps it in."""
    found = globals().get(name) if name in __all__ else None
    if found is not None:
        return found
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def __getattr__(name: str) -> Any:
    raise _lookup.absent(__name__, name, name)


def __dir__() -> list[str]:
    return sorted(name for name in globals() if not name.startswith("__"))
