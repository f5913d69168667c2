"""Writes the type stubs of the operator functions, from the registry, and of the core, from the built library.
`--check` only says whether they are fresh.

The operator functions take tensors and typed parameters by position or keyword, and `out`.
A module that offers operators can take its types from here by `from ._op_stubs import *` in its own stub.
"""

from __future__ import annotations

import inspect
import keyword
from types import BuiltinFunctionType, GetSetDescriptorType
from typing import Any

from registry import ROOT, input_names, operators, write_or_check

PACKAGE = ROOT / "python" / "mxrs"

HEAD = '''"""Types of the operator functions. Written by `make stubs` from the registry; do not edit."""

from collections.abc import Sequence
from typing import Any, Literal

from mxrs.ndarray import NDArray

'''

# How a record's parameter types read in Python. What is not named here takes anything.
_TYPES = {
    "tuple of int": "int | Sequence[int]",
    "tuple of float": "float | Sequence[float]",
    "bool": "bool",
    "float": "float",
    "int": "int",
    "str": "str",
}


def python_type(param: dict[str, Any]) -> str:
    """The annotation of a parameter."""
    kind = param["type"].removesuffix(" or None")
    if kind.startswith("{"):
        python = f"Literal[{', '.join(repr(word) for word in kind[1:-1].split(', '))}]"
    else:
        python = _TYPES.get(kind, "Any")
    return f"{python} | None" if param["nullable"] and python != "Any" else python


def stub(op: dict[str, Any], name: str) -> str:
    """One function. Tensors come first, then attributes in the record's order; all may be given by position."""
    if op["variadic"]:
        given = ["*args: NDArray"]
    else:
        # Where attributes say how many tensors there are, only the first is sure to be one.
        sure = 1 if op["counted"] else len(op["inputs"])
        given = [
            f"{i}: NDArray" + ("" if n < sure else " | None = ...") for n, i in enumerate(input_names(op))
        ]
    optional = op["counted"]
    for p in op["params"]:
        optional = optional or not p["required"]
        given.append(f"{p['name']}: {python_type(p)}" + (" = ..." if optional else ""))
    if not op["variadic"]:
        given.append("*")
    tail = ["out: NDArray | Sequence[NDArray] | None = ...", "name: str | None = ...", "**kwargs: Any"]
    return f"def {name}({', '.join([*given, *tail])}) -> Any: ...\n"


CORE_HEAD = '''"""Types of the compiled core. Written by `make stubs` from the library; do not edit."""

from collections.abc import Callable
from typing import Any

ops: dict[str, Callable[..., Any]]

class MXNetError(RuntimeError): ...
class MXNetValueError(MXNetError, ValueError): ...
class MXNetTypeError(MXNetError, TypeError): ...
class MXNetIndexError(MXNetError, IndexError): ...
class MXNetNotImplementedError(MXNetError, NotImplementedError): ...
class MXNetMemoryError(MXNetError, MemoryError): ...

class NDArrayBase:
'''

# What the core's parameters are, by name. What is not named here takes anything.
_CORE_TYPES = {
    "address": "int",
    "array": "NDArrayBase",
    "create_graph": "bool",
    "device": "tuple[int, int] | None",
    "flag": "int",
    "naive": "bool",
    "name": "str",
    "on": "bool",
    "req": "str",
    "retain": "bool",
    "seed": "int",
    "skip": "int",
    "train": "bool",
}
_ATTRIBUTES = {
    "shape": "tuple[int, ...]",
    "ndim": "int",
    "size": "int",
    "dtype": "Any",
    "_device": "tuple[int, int]",
    "_type_flag": "int",
    "_fresh_grad": "bool",  # the one that can be set
}


def core_function(name: str, function: Any) -> str:
    """One function of the core, with the parameters its text signature names."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return f"def {name}(*args: Any) -> Any: ...\n"
    given = [
        f"{p.name}: {_CORE_TYPES.get(p.name, 'Any')}" + ("" if p.default is p.empty else " = ...")
        for p in parameters
    ]
    return f"def {name}({', '.join(given)}) -> Any: ...\n"


def _is_plain_class(member: Any) -> bool:
    """Whether it is a class of the core whose stub is read off it: not an exception, and not the array."""
    return isinstance(member, type) and not issubclass(member, Exception) and member.__name__ != "NDArrayBase"


def core_class(name: str, cls: type) -> str:
    """A class of the core with its own methods and properties."""
    lines = [f"\n\nclass {name}:\n", "    def __init__(self, *args: Any, **kwargs: Any) -> None: ...\n"]
    for member, what in sorted(vars(cls).items()):
        if isinstance(what, GetSetDescriptorType):
            lines.append(f"    @property\n    def {member}(self) -> Any: ...\n")
        elif callable(what) and member != "__new__":
            lines.append(f"    def {member}(self, *args: Any, **kwargs: Any) -> Any: ...\n")
    return "".join(lines)


def core() -> str:
    """The stub of the core. Its class has a method per operator that the registry calls one."""
    from mxrs import _core

    lines = [CORE_HEAD]
    for name, member in sorted(vars(_core.NDArrayBase).items()):
        if name in _ATTRIBUTES:
            read_only = f"    @property\n    def {name}(self) -> {_ATTRIBUTES[name]}: ...\n"
            lines.append(f"    {name}: bool\n" if name == "_fresh_grad" else read_only)
        elif callable(member) and name not in ("__new__", "__doc__"):
            lines.append(f"    def {name}(self, *args: Any, **kwargs: Any) -> Any: ...\n")
    lines += [core_class(name, c) for name, c in sorted(vars(_core).items()) if _is_plain_class(c)]
    lines.append("\n")
    functions = {n: f for n, f in vars(_core).items() if isinstance(f, BuiltinFunctionType) and n[0] != "_"}
    lines += [core_function(name, functions[name]) for name in sorted(functions)]
    return "".join(lines)


def main() -> None:
    """Gathers every spelling that Python can say."""
    functions: dict[str, str] = {}
    for op in operators():
        if op["hidden"]:
            continue
        for name in [op["name"], *op["aliases"]]:
            if name.isidentifier() and not keyword.iskeyword(name):
                functions.setdefault(name, stub(op, name))
    operations = HEAD + "".join(functions[name] for name in sorted(functions))
    write_or_check({PACKAGE / "_op_stubs.pyi": operations, PACKAGE / "_core.pyi": core()})


if __name__ == "__main__":
    main()
