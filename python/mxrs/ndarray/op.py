"""`mx.nd.op`: every operator with a public name."""

from __future__ import annotations

from typing import Any

from ._lookup import absent, public_ops

_OPERATORS = public_ops()
globals().update(_OPERATORS)


def __getattr__(name: str) -> Any:
    raise absent(__name__, name, name)


def __dir__() -> list[str]:
    return sorted(_OPERATORS)
