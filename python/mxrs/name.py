"""Automatic names of symbols and blocks: ``fullyconnected0``, ``conv2d3_weight``."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import ClassVar

__all__ = ["NameManager", "Prefix"]


class _Current(type):
    """Gives the class a `current` that belongs to the thread."""

    @property
    def current(cls) -> NameManager:
        """The innermost manager in force."""
        return _stack()[-1]


class NameManager(metaclass=_Current):
    """Numbers the names made from each hint. ``with NameManager():`` starts counting anew."""

    _local: ClassVar[threading.local] = threading.local()

    def __init__(self) -> None:
        self._counter: dict[str, int] = {}

    def get(self, name: str | None, hint: str) -> str:
        """`name` if it is given, else `hint` with the next number."""
        if name:
            return name
        number = self._counter.get(hint, 0)
        self._counter[hint] = number + 1
        return f"{hint}{number}"

    def __enter__(self) -> NameManager:
        _stack().append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stack().pop()


class Prefix(NameManager):
    """Puts a prefix before every name, given ones included."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def get(self, name: str | None, hint: str) -> str:
        """The name with the prefix before it."""
        return self._prefix + super().get(name, hint)


def _stack() -> list[NameManager]:
    stack: list[NameManager] | None = getattr(NameManager._local, "stack", None)
    if stack is None:
        stack = NameManager._local.stack = [NameManager()]
    return stack
