"""Seeding, and the samplers of ``mx.nd.random`` under ``mx.random``."""

from __future__ import annotations

from typing import Any

from . import _core
from .context import Context

__all__ = ["seed"]


def seed(seed_state: int, ctx: Context | str = "all") -> None:
    """Starts the random streams anew.

    Parameters
    ----------
    seed_state : int
        Equal seeds give equal numbers.
    ctx : Context or 'all'
        Only that context's stream, or those of all.
    """
    if not isinstance(seed_state, int) and not hasattr(seed_state, "__index__"):
        raise ValueError(f"seed_state must be an int, {type(seed_state).__name__} was given")
    # The streams take 64 bits; longer seeds are folded, not refused.
    state = int(seed_state) & 0xFFFFFFFFFFFFFFFF
    state = state - (1 << 64) if state >= 1 << 63 else state
    if isinstance(ctx, Context):
        _core.seed(state, (ctx.device_typeid, ctx.device_id))
    elif ctx == "all":
        _core.seed(state)
    else:
        raise ValueError(f"seed: ctx must be a Context or 'all', {ctx!r} was given")


def __getattr__(name: str) -> Any:
    from .ndarray import random as samplers

    if name.startswith("_") or not hasattr(samplers, name):
        raise AttributeError(f"module 'mxrs.random' has no attribute {name!r}")
    return getattr(samplers, name)
