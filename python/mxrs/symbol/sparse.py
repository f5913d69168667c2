"""`mx.sym.sparse`: the operators of sparse arrays. Storage is dense in this version: those that exist only for sparse
storage (`retain`, `cast_storage`, ...) are refused by name, the others are the operators of dense arrays.
"""

from __future__ import annotations

from typing import Any

from ._lookup import attribute, names


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, f"_sparse_{name}", name)


def __dir__() -> list[str]:
    return sorted({*names("_sparse_"), *names()})
