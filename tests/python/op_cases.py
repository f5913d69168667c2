"""Cases of one operator: run here, run in MXNet 1.9.1, compared in outputs and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import mxrs as mx
from oracle import Oracle, assert_same
from oracle_server import call_op


def values(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Small whole numbers and halves, exact in every type (whole where the type is)."""
    drawn = np.random.default_rng(seed + sum(shape)).integers(0, 100, shape)
    return (drawn / 2 if np.dtype(dtype).kind == "f" else drawn).astype(dtype)


def here(
    name: str, inputs: list[np.ndarray], attrs: dict[str, Any], heads: list[np.ndarray] | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs, and the gradients of all inputs where `heads` gives those of the outputs."""
    grad_of = None if heads is None else list(range(len(inputs)))
    outputs, grads = call_op(mx, name, inputs, attrs, False, grad_of, heads)
    return outputs, grads


def compare(
    oracle: Oracle, name: str, inputs: list[np.ndarray], attrs: dict[str, Any], *, gradient: bool = True
) -> None:
    """Asserts that outputs and gradients (under drawn head gradients) are MXNet's."""
    outputs, _ = here(name, inputs, attrs)
    heads = [values(o.shape, str(o.dtype), seed=9) for o in outputs] if gradient else None
    outputs, grads = here(name, inputs, attrs, heads)
    grad_of = list(range(len(inputs))) if gradient else None
    theirs, their_grads = oracle.op(name, inputs, attrs, grad_of=grad_of, head_grads=heads)
    assert_same(outputs, theirs, f"{name} {attrs}")
    assert_same(grads, their_grads, f"gradient of {name} {attrs}")
