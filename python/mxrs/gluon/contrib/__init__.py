"""Layers and tools that MXNet kept in `gluon.contrib`."""

import importlib
from typing import Any

from . import data, nn, rnn

__all__ = ["data", "estimator", "nn", "rnn"]


def __getattr__(name: str) -> Any:
    # The estimator needs metrics and optimizers, which layers do not.
    if name == "estimator":
        return importlib.import_module(".estimator", __name__)
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
