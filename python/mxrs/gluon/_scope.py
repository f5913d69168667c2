"""How blocks get their names: the scope a block opens for its children, and what a new block is called
inside it.
"""

from __future__ import annotations

import threading
from typing import Any

from ..name import NameManager, Prefix
from .parameter_dict import ParameterDict

__all__ = ["BlockScope"]


class BlockScope:
    """The scope of one block: numbers its children by kind and hands its prefix and shared parameters on to
    them.

    It knows the block's prefix and parameters, not the block, so that a block can be freed without the
    cycle collector. A block whose own prefix is '' opens no scope: its children are named by the scope
    around it.
    """

    _current = threading.local()

    def __init__(self, prefix: str, params: ParameterDict, is_open: bool) -> None:
        self._prefix = prefix
        self._params = params
        self._is_open = is_open
        self._counter: dict[str, int] = {}
        # One entry per `with`, as the same scope can be entered again inside itself.
        self._outer: list[tuple[BlockScope | None, Any]] = []

    @staticmethod
    def create(prefix: str | None, params: ParameterDict | None, hint: str) -> tuple[str, ParameterDict]:
        """Full prefix and parameter dictionary for a new block of kind `hint` in the current scope."""
        scope: BlockScope | None = getattr(BlockScope._current, "value", None)
        if scope is None:
            if prefix is None:
                prefix = NameManager.current.get(None, hint) + "_"
            own = ParameterDict(prefix) if params is None else ParameterDict(params.prefix, params)
            return prefix, own
        if prefix is None:
            count = scope._counter.get(hint, 0)
            scope._counter[hint] = count + 1
            prefix = f"{hint}{count}_"
        if params is None:
            own = ParameterDict(scope._params.prefix + prefix, scope._params._shared)
        else:
            own = ParameterDict(params.prefix, params)
        return scope._prefix + prefix, own

    def __enter__(self) -> BlockScope:
        if self._is_open:
            names = Prefix(self._prefix)
            names.__enter__()
            self._outer.append((getattr(BlockScope._current, "value", None), names))
            BlockScope._current.value = self
        return self

    def __exit__(self, ptype: Any, value: Any, trace: Any) -> None:
        if self._is_open:
            outer, names = self._outer.pop()
            names.__exit__(ptype, value, trace)
            BlockScope._current.value = outer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_outer": []}
