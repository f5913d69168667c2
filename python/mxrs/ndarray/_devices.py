"""Between `Context` objects and the pairs (device type, device id) that the core knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core
from ..context import Context

_NAMES = {1: "cpu", 2: "gpu", 3: "cpu_pinned", 5: "cpu_shared"}
_CONTEXTS: dict[tuple[int, int], Context] = {}


def context_of(device: tuple[int, int]) -> Context:
    """The `Context` of a pair; the same object every time."""
    found = _CONTEXTS.get(device)
    if found is None:
        found = _CONTEXTS[device] = Context(_NAMES[device[0]], device[1])
    return found


def device_of(ctx: Any) -> tuple[int, int] | None:
    """The pair of a `Context`, of its text (`"cpu(0)"`, `"gpu"`), or None for None: the current context.

    Raises
    ------
    TypeError
        For anything else.
    """
    if ctx is None:
        return None
    if isinstance(ctx, Context):
        return ctx.device_typeid, ctx.device_id
    if isinstance(ctx, str):
        name, _, rest = ctx.partition("(")
        number = rest.rstrip(")").strip()
        for kind, known in _NAMES.items():
            if name.strip() == known and (not number or number.isdigit()):
                return kind, int(number or 0)
    raise TypeError(f"ctx = {ctx!r} is not a context; mx.cpu(), mx.gpu(0) and the like are allowed")


def call_on(ctx: Any, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls an operator without tensor inputs so that its result lives on `ctx`."""
    device = device_of(ctx)
    if device is None or device == _core.current_context():
        return f(*args, **kwargs)
    before = _core.set_current_context(*device)
    try:
        return f(*args, **kwargs)
    finally:
        _core.set_current_context(*before)
