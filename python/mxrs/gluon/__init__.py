"""Gluon: models as blocks, trained imperatively.

`block` and `parameter` hold what models are made of, `nn` the layers, `loss` the losses, `data` datasets
and loaders, and `Trainer` the step of an optimizer.
"""

from . import contrib, data, loss, nn, parameter, utils
from .block import Block, HybridBlock, SymbolBlock
from .parameter import Constant, DeferredInitializationError, Parameter, tensor_types
from .parameter_dict import ParameterDict
from .trainer import Trainer

__all__ = [
    "Block",
    "Constant",
    "DeferredInitializationError",
    "HybridBlock",
    "Parameter",
    "ParameterDict",
    "SymbolBlock",
    "Trainer",
    "contrib",
    "data",
    "loss",
    "nn",
    "parameter",
    "tensor_types",
    "utils",
]


def __getattr__(name: str) -> object:
    if name in ("rnn", "model_zoo"):
        raise AttributeError(f"mxrs.gluon.{name} is not built yet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
