"""Hints to the engine. Bulking is automatic here, so the hints are accepted and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _core

__all__ = ["bulk", "is_naive", "set_bulk_size", "set_naive"]

_size = 15


def set_bulk_size(size: int) -> int:
    """Sets how many calls MXNet would have bundled, and returns the number before."""
    global _size
    before, _size = _size, int(size)
    return before


@contextmanager
def bulk(size: int) -> Iterator[None]:
    """Scope with another bulk size."""
    before = set_bulk_size(size)
    try:
        yield
    finally:
        set_bulk_size(before)


def is_naive() -> bool:
    """Whether every call runs at once, in program order (``MXNET_ENGINE_TYPE=NaiveEngine``)."""
    return _core.is_naive_engine()


def set_naive(naive: bool) -> None:
    """Chooses the naive engine, or the threaded one, after waiting for what is queued."""
    _core.set_naive_engine(bool(naive))
