"""``import mxnet`` that gives mxrs: a finder that answers for ``mxnet`` and everything below it."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


class _Loader(importlib.abc.Loader):
    """Hands out the module of mxrs that stands behind a name of mxnet."""

    def __init__(self) -> None:
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        _, _, rest = spec.name.partition(".")
        module = _find(rest)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module ran when mxrs imported it. It keeps the spec of that import: what it imports later is found by it."""
        module.__spec__ = self._spec


def _find(path: str) -> ModuleType:
    """The module ``mxrs.<path>``, also where the path goes through a short name such as nd."""
    import mxrs

    module: ModuleType = mxrs
    walked = "mxrs"
    for part in filter(None, path.split(".")):
        walked += f".{part}"
        try:
            found = importlib.import_module(walked)
        except ModuleNotFoundError:
            found = getattr(module, part, None)  # type: ignore[assignment]
            if not isinstance(found, ModuleType):
                raise ModuleNotFoundError(f"No module named 'mxnet.{path}' (mxrs has no {walked})") from None
        module = found
        walked = module.__name__
    return module


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "mxnet" and not fullname.startswith("mxnet."):
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=True)


def install() -> None:
    """See :func:`mxrs.install_as_mxnet`."""
    import mxrs

    known = sys.modules.get("mxnet")
    if known is not None and known is not mxrs:
        raise RuntimeError("mxnet was imported before; call install_as_mxnet() first")
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    sys.modules["mxnet"] = mxrs
