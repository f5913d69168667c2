"""Attributes that symbols made in a scope carry."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import ClassVar

__all__ = ["AttrScope"]


class _Current(type):
    @property
    def current(cls) -> AttrScope:
        """The innermost scope in force."""
        return _stack()[-1]


class AttrScope(metaclass=_Current):
    """Scope whose keyword arguments (strings) become attributes of every symbol made inside."""

    _local: ClassVar[threading.local] = threading.local()

    def __init__(self, **kwargs: str) -> None:
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise ValueError(f"AttrScope: {key} is a {type(value).__name__}; attributes are strings")
        self._attr = dict(kwargs)

    def get(self, attr: dict[str, str] | None) -> dict[str, str]:
        """The scope's attributes, with `attr` over them."""
        return {**self._attr, **attr} if attr else dict(self._attr)

    def __enter__(self) -> AttrScope:
        inner = AttrScope()
        inner._attr = {**_stack()[-1]._attr, **self._attr}
        _stack().append(inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stack().pop()


def _stack() -> list[AttrScope]:
    stack: list[AttrScope] | None = getattr(AttrScope._local, "stack", None)
    if stack is None:
        stack = AttrScope._local.stack = [AttrScope()]
    return stack
