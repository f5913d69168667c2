"""Gluon: models as blocks, trained imperatively.

`block` and `parameter` hold what models are made of, `nn` the layers, `loss` the losses, `data` datasets
and loaders, `rnn` recurrent cells, and `Trainer` the step of an optimizer.
"""

import importlib

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
    "rnn",
    "tensor_types",
    "utils",
]


def __getattr__(name: str) -> object:
    if name == "rnn":
        # Loaded when first used: its cells need nothing that other models need.
        return importlib.import_module(".rnn", __name__)
    if name == "model_zoo":
        raise AttributeError(f"mxrs.gluon.{name} is not built yet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
