"""mxrs: the successor of Apache MXNet 1.x. ``import mxrs as mx`` runs MXNet programs.

Submodules load when they are first used, so that importing the package costs little more than importing NumPy.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from . import _core, base, context
from .base import MXNetError
from .context import Context, cpu, cpu_pinned, current_context, gpu, num_gpus

if TYPE_CHECKING:
    from . import autograd, gluon, initializer, metric, ndarray, optimizer, random, symbol

__version__ = "1.9.1"
__mxrs_version__ = "0.1.0"

# Arrays come first: the core makes its results instances of this class.
from . import ndarray

nd = ndarray

#: Short names of modules.
_ALIASES = {
    "init": "initializer",
    "nd": "ndarray",
    "rnd": "random",
    "kv": "kvstore",
    "sym": "symbol",
    "mod": "module",
    "mon": "monitor",
    "viz": "visualization",
}
_MODULES = {
    "attribute",
    "autograd",
    "callback",
    "engine",
    "executor",
    "executor_manager",
    "gluon",
    "initializer",
    "io",
    "kvstore",
    "libinfo",
    "log",
    "lr_scheduler",
    "memonger",
    "metric",
    "model",
    "module",
    "monitor",
    "name",
    "optimizer",
    "predictor",
    "profiler",
    "random",
    "rnn",
    "runtime",
    "symbol",
    "test_utils",
    "util",
    "visualization",
}
#: Parts of MXNet that are known and not built yet.
_MISSING = {
    "contrib", "image", "img", "lr", "np", "npx", "numpy", "numpy_extension", "operator", "recordio",
}  # fmt: skip
#: Names of other modules that are also names of the package.
_NAMES = {"AttrScope": "attribute", "Optimizer": "optimizer", "Initializer": "initializer"}

__all__ = [
    "Context",
    "MXNetError",
    "autograd",
    "base",
    "context",
    "cpu",
    "cpu_pinned",
    "current_context",
    "gluon",
    "gpu",
    "init",
    "initializer",
    "install_as_mxnet",
    "lr_scheduler",
    "metric",
    "nd",
    "ndarray",
    "num_gpus",
    "optimizer",
    "random",
]


def __getattr__(name: str) -> Any:
    target = _ALIASES.get(name, name)
    if target in _MODULES:
        module = importlib.import_module(f".{target}", __name__)
        globals()[name] = module
        return module
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    if target in _MISSING:
        # AttributeError, so that hasattr and getattr with a default keep working.
        raise AttributeError(f"mx.{name} is not built yet in mxrs {__mxrs_version__}")
    # With these two, Python's traceback names what was perhaps meant.
    raise AttributeError(f"module 'mxrs' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted(set(globals()) | _MODULES | set(_ALIASES))


def install_as_mxnet() -> None:
    """Makes ``import mxnet`` and ``from mxnet.gluon import nn`` give mxrs from now on.

    Raises
    ------
    RuntimeError
        The real mxnet was imported before.
    """
    from . import _alias

    _alias.install()


atexit.register(_core.gpu_shutdown)

if hasattr(os, "register_at_fork"):
    # A forked child (a data loader's worker) starts with a fresh engine.
    os.register_at_fork(before=_core.before_fork, after_in_child=_core.after_fork_in_child)
