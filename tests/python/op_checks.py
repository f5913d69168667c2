"""Running one operator here as the oracle runs it there, and numeric gradients of first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oracle import Oracle, assert_same


def call(name: str, inputs: Sequence[Any], attrs: dict[str, Any]) -> list[Any]:
    """The outputs of an operator of `mxrs`, hidden operators included."""
    import mxrs

    result = mxrs._core.ops[name](*inputs, **attrs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def run(
    name: str,
    inputs: Sequence[np.ndarray],
    attrs: dict[str, Any] | None = None,
    heads: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs and, with `heads`, the gradients of all inputs."""
    import mxrs as mx

    arrays = [mx.nd.array(x, dtype=x.dtype) for x in inputs]
    if heads is None:
        return [o.asnumpy() for o in call(name, arrays, attrs or {})], []
    for a in arrays:
        a.attach_grad()
    with mx.autograd.record():
        outputs = call(name, arrays, attrs or {})
    mx.autograd.backward(outputs, [mx.nd.array(h, dtype=h.dtype) for h in heads])
    return [o.asnumpy() for o in outputs], [a.grad.asnumpy() for a in arrays]


def compare(
    oracle: Oracle,
    name: str,
    inputs: Sequence[np.ndarray],
    attrs: dict[str, Any] | None = None,
    *,
    grad: bool = True,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> None:
    """Asserts that outputs and the gradients of all inputs agree with MXNet's, under random head gradients."""
    theirs, _ = oracle.op(name, list(inputs), attrs)
    ours, _ = run(name, inputs, attrs)
    assert_same(ours, theirs, name, rtol, atol)
    if not grad:
        return
    rng = np.random.default_rng(7)
    heads = [rng.uniform(-1, 1, o.shape).astype(o.dtype) for o in theirs]
    _, theirs = oracle.op(
        name, list(inputs), attrs, train=True, grad_of=list(range(len(inputs))), head_grads=list(heads)
    )
    _, ours = run(name, inputs, attrs, heads)
    assert_same(ours, theirs, f"gradient of {name}", rtol, atol)


def _numeric(
    f: Callable[[list[np.ndarray]], float], x: list[np.ndarray], which: int, step: float
) -> np.ndarray:
    grad = np.zeros_like(x[which])
    for place in np.ndindex(x[which].shape):
        ends = []
        for sign in (1, -1):
            moved = [a.copy() for a in x]
            moved[which][place] += sign * step
            ends.append(f(moved))
        grad[place] = (ends[0] - ends[1]) / (2 * step)
    return grad


def check_numeric(name: str, inputs: Sequence[np.ndarray], attrs: dict[str, Any] | None = None) -> None:
    """Asserts first- and second-order gradients against central differences in double precision."""
    import mxrs as mx

    rng = np.random.default_rng(11)
    x = [np.asarray(a, np.float64) for a in inputs]
    heads = [rng.uniform(-1, 1, o.shape) for o in run(name, x, attrs)[0]]
    seconds = [rng.uniform(-1, 1, a.shape) for a in x]

    def value(at: list[np.ndarray]) -> float:
        return float(sum((o * h).sum() for o, h in zip(run(name, at, attrs)[0], heads)))

    def slope(at: list[np.ndarray]) -> float:
        return float(sum((g * s).sum() for g, s in zip(run(name, at, attrs, heads)[1], seconds)))

    first = run(name, x, attrs, heads)[1]
    arrays = [mx.nd.array(a, dtype="float64") for a in x]
    # Heads are variables too, so that every gradient depends on one even where the operator is linear.
    weights = [mx.nd.array(h, dtype="float64") for h in heads]
    for a in arrays + weights:
        a.attach_grad()
    with mx.autograd.record():
        outputs = call(name, arrays, attrs or {})
        grads = mx.autograd.grad(outputs, arrays, head_grads=weights, create_graph=True, retain_graph=True)
    mx.autograd.backward(grads, [mx.nd.array(s, dtype="float64") for s in seconds])
    for i, a in enumerate(arrays):
        np.testing.assert_allclose(first[i], _numeric(value, x, i, 1e-5), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a.grad.asnumpy(), _numeric(slope, x, i, 1e-5), rtol=1e-5, atol=1e-6)
