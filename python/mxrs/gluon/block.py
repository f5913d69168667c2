"""The base classes of blocks under the module name that MXNet programs import them from."""

from ._block import Block
from ._scope import BlockScope as _BlockScope
from .hybrid import HybridBlock, _flatten, _regroup
from .parameter import DeferredInitializationError
from .symbol_block import SymbolBlock

__all__ = [
    "Block",
    "DeferredInitializationError",
    "HybridBlock",
    "SymbolBlock",
    "_BlockScope",
    "_flatten",
    "_regroup",
]
