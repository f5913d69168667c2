"""`mx.nd._internal`: the operators whose names begin with an underscore, under their full names."""

from __future__ import annotations

from typing import Any

from ._lookup import OPS, absent

_OPERATORS = {name: f for name, f in OPS.items() if name[0] == "_"}
globals().update(_OPERATORS)


def __getattr__(name: str) -> Any:
    raise absent(__name__, name, name)


def __dir__() -> list[str]:
    return sorted(_OPERATORS)
