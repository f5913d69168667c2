"""Between `Context` objects and the pairs (device type, device id) that the core knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core
from ..context import Context, _of

#: The `Context` of a pair; the same object every time.
context_of: Callable[[tuple[int, int]], Context] = _of


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
        kind = Context.devstr2type.get(name.strip())
        if kind is not None and (not number or number.isdigit()):
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
