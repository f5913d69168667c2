"""`mx.sym.op`: every operator with a public name."""

from __future__ import annotations

from typing import Any

from ._lookup import attribute, names


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, name)


def __dir__() -> list[str]:
    return names()
