"""Where the compiled part of the package is."""

from __future__ import annotations

import os
from typing import NoReturn

from . import _core

__all__ = ["__version__", "find_conf_path", "find_include_path", "find_lib_path"]

__version__ = "1.9.1"


def find_lib_path(prefix: str = "libmxnet") -> list[str]:
    """The path, in a list, of the extension module: the library that MXNet calls libmxnet.

    It exports Python's entry point, not MXNet's C interface. Raises RuntimeError for another `prefix`.
    """
    path = os.path.abspath(str(_core.__file__))
    if prefix not in ("libmxnet", "mxrs", os.path.basename(path).split(".")[0]):
        raise RuntimeError(f"find_lib_path: there is no library {prefix!r}; mxrs has one, {path}")
    return [path]


def find_include_path() -> NoReturn:
    """Where MXNet has C headers; mxrs has none (RuntimeError)."""
    raise RuntimeError(
        "find_include_path: mxrs has no C headers; its compiled part is a Python extension module"
    )


def find_conf_path(prefix: str = "tvmop") -> NoReturn:
    """Where MXNet built with TVM has a configuration; mxrs is not (RuntimeError)."""
    raise RuntimeError(f"find_conf_path: there is no {prefix}.conf; mxrs has no operators compiled by TVM")
