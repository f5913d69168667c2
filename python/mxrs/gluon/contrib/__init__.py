"""Layers that MXNet kept in `gluon.contrib`."""

from . import nn

__all__ = ["nn"]
