"""`mx.sym.image`: operations on images, the operators `_image_X` as X."""

from __future__ import annotations

from typing import Any

from ._lookup import attribute, names


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, f"_image_{name}")


def __dir__() -> list[str]:
    return names("_image_")
