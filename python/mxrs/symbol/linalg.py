"""`mx.sym.linalg`: linear algebra, the operators `_linalg_X` as X."""

from __future__ import annotations

from typing import Any

from ._lookup import attribute, names


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, f"_linalg_{name}")


def __dir__() -> list[str]:
    return names("_linalg_")
