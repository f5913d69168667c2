"""`mx.nd.image`: operations on images, the operators `_image_X` as X."""

from __future__ import annotations

from typing import Any

from ._lookup import absent, with_prefix

_OPERATORS = with_prefix("_image_")
globals().update(_OPERATORS)


def __getattr__(name: str) -> Any:
    raise absent(__name__, name, f"_image_{name}")


def __dir__() -> list[str]:
    return sorted(_OPERATORS)
