"""`mx.sym._internal`: the operators whose names begin with an underscore, under their full names."""

from __future__ import annotations

from typing import Any

from ._lookup import attribute, names


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, name)


def __dir__() -> list[str]:
    return ["_" + name for name in names("_")]
