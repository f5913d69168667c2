"""Writes the type stub of the operator functions from the registry. `--check` only says whether it is fresh.

The functions take tensor inputs by position or keyword, typed parameters by keyword, and `out`.
A module that offers operators can take its types from here by `from ._op_stubs import *` in its own stub.
"""

from __future__ import annotations

import keyword
from typing import Any

from registry import ROOT, input_names, operators, write_or_check

PATH = ROOT / "python" / "mxrs" / "_op_stubs.pyi"

HEAD = '''"""Types of the operator functions. Written by `make stubs` from the registry; do not edit."""

from collections.abc import Sequence
from typing import Any

from mxrs.ndarray import NDArray

'''

# How a record's parameter types read in Python. What is not named here takes anything.
_TYPES = (
    (("shape", "tuple", "ints"), "int | Sequence[int]"),
    (("bool",), "bool"),
    (("float", "double", "real"), "float"),
    (("int", "long"), "int"),
    (("string", "str", "{", "enum", "dtype"), "str"),
)


def python_type(kind: str, default: object) -> str:
    """The annotation of a parameter."""
    lowered = kind.lower()
    found = next((python for words, python in _TYPES if any(word in lowered for word in words)), "Any")
    nullable = default is None or default == "None" or "none" in lowered or "optional" in lowered
    return f"{found} | None" if nullable and found != "Any" else found


def stub(op: dict[str, Any], name: str) -> str:
    """One function."""
    inputs = [f"{i}: NDArray" for i in input_names(op) if i.isidentifier()]
    if len(inputs) != len(input_names(op)):
        inputs = ["*args: NDArray"]
    params = []
    for p in op["params"]:
        annotation = python_type(str(p["type"]), p["default"])
        params.append(f"{p['name']}: {annotation}" + ("" if p["required"] else " = ..."))
    star = [] if inputs[:1] == ["*args: NDArray"] else ["*"]
    tail = ["out: NDArray | Sequence[NDArray] | None = ...", "name: str | None = ...", "**kwargs: Any"]
    return f"def {name}({', '.join([*inputs, *star, *params, *tail])}) -> Any: ...\n"


def main() -> None:
    """Gathers every spelling that Python can say."""
    functions: dict[str, str] = {}
    for op in operators():
        for name in [op["name"], *op["aliases"]]:
            if name.isidentifier() and not keyword.iskeyword(name):
                functions.setdefault(name, stub(op, name))
    write_or_check(PATH, HEAD + "".join(functions[name] for name in sorted(functions)))


if __name__ == "__main__":
    main()
