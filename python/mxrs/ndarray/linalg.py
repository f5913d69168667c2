"""`mx.nd.linalg`: linear algebra, the operators `_linalg_X` as X."""

from __future__ import annotations

from typing import Any

from ._lookup import absent, with_prefix

_OPERATORS = with_prefix("_linalg_")
globals().update(_OPERATORS)


def __getattr__(name: str) -> Any:
    raise absent(__name__, name, f"_linalg_{name}")


def __dir__() -> list[str]:
    return sorted(_OPERATORS)
