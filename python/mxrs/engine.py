"""How calls are issued: at once, later, or several as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _core

__all__ = ["bulk", "is_naive", "set_bulk_size", "set_naive"]


def set_bulk_size(size: int) -> int:
    """Sets how many elementwise calls on a GPU are held back to be issued as few kernels; returns the number before.

    They are issued when so many are there, when anything else touches the GPU, and when somebody waits. With 0 or 1
    every call is issued at once; at most 64 are held. Calls on the CPU are not held back.

    Raises
    ------
    ValueError
        If `size` is negative.
    """
    if size < 0:
        raise ValueError(f"set_bulk_size: size = {size}; it is 0 or more")
    return _core.set_window_size(int(size))


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
