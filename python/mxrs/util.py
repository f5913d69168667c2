"""Switches of MXNet's NumPy interface and small helpers.

The NumPy interface (``mx.np``) is not built yet, so its switches are off and cannot be turned on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .base import MXNetError
from .context import num_gpus

__all__ = [
    "get_gpu_count",
    "getenv",
    "is_np_array",
    "is_np_shape",
    "makedirs",
    "np_array",
    "np_shape",
    "reset_np",
    "set_np",
    "set_np_shape",
    "setenv",
    "use_np",
    "use_np_shape",
]


def makedirs(d: str) -> None:
    """Makes a folder and those above it; an existing one is fine."""
    os.makedirs(os.path.expanduser(d), exist_ok=True)


def get_gpu_count() -> int:
    """How many GPUs there are."""
    return num_gpus()


def getenv(name: str) -> str | None:
    """An environment variable, or None."""
    return os.environ.get(name)


def setenv(name: str, value: str | None) -> None:
    """Sets an environment variable; None removes it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def is_np_shape() -> bool:
    """Whether shape () means a scalar: never, in the legacy interface."""
    return False


def is_np_array() -> bool:
    """Whether Gluon uses mx.np arrays: never, in the legacy interface."""
    return False


def _refuse(active: bool, what: str) -> bool:
    if active:
        raise MXNetError(f"{what}: the NumPy interface (mx.np) is not built yet")
    return False


def set_np_shape(active: bool) -> bool:
    """Turns NumPy shapes on (not built yet) or off."""
    return _refuse(bool(active), "set_np_shape")


def set_np(shape: bool = True, array: bool = True, dtype: bool = False) -> None:
    """Turns the NumPy interface on: not built yet."""
    _refuse(shape or array or dtype, "set_np")


def reset_np() -> None:
    """Turns the NumPy interface off, which it is."""


@contextmanager
def np_shape(active: bool = True) -> Iterator[None]:
    """Scope with NumPy shapes (not built yet) or without."""
    _refuse(active, "np_shape")
    yield


@contextmanager
def np_array(active: bool = True) -> Iterator[None]:
    """Scope with NumPy arrays (not built yet) or without."""
    _refuse(active, "np_array")
    yield


def use_np_shape(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that runs a function with NumPy shapes: raises when the function is called."""

    @functools.wraps(func)
    def refused(*args: Any, **kwargs: Any) -> Any:
        _refuse(True, "use_np_shape")

    return refused


use_np = use_np_shape
