"""The base classes of blocks under the module name that MXNet programs import them from."""

from ._block import Block
from ._scope import BlockScope as _BlockScope
from .hybrid import HybridBlock, SymbolBlock, _flatten, _regroup
from .parameter import DeferredInitializationError

__all__ = [
    "Block",
    "DeferredInitializationError",
    "HybridBlock",
    "SymbolBlock",
    "_BlockScope",
    "_flatten",
    "_regroup",
]
