"""The deferred window: chains of elementwise calls on a GPU become one kernel, and nobody can tell but by counting.

The reference is the same program with nothing held back (`mx.engine.bulk(0)`), and the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, autograd, nd


def dispatches(work: Callable[[], Any]) -> int:
    """Kernels that `work` sends once its wiring is known."""
    for _ in range(2):
        kept = work()
        nd.waitall()
    _core.gpu_counts(0, reset=True)
    kept = work()
    nd.waitall()
    del kept
    return _core.gpu_counts(0)["dispatches"]


def test_a_chain_is_one_kernel(gpu: Any) -> None:
    """Temporaries are not written; with nothing held back every call is a kernel."""
    x = nd.array(np.linspace(-1, 1, 100), ctx=gpu)

    def chain() -> Any:
        y = x
        for i in range(10):
            y = nd.tanh(y * 0.9) + i
        return y

    assert dispatches(chain) == 1
    with mx.engine.bulk(0):
        assert dispatches(chain) == 30
        wanted = chain().asnumpy()
    np.testing.assert_allclose(chain().asnumpy(), wanted, rtol=1e-6)


def test_a_value_read_twice_by_one_kernel_is_computed_once(gpu: Any) -> None:
    """A diamond: the value in the middle has two readers, and both end in one result."""
    x = nd.array([0.5, 1.5], ctx=gpu)

    def diamond() -> Any:
        t = nd.exp(x)
        return t * t + t

    assert dispatches(diamond) == 1
    t = np.exp(np.array([0.5, 1.5]))
    np.testing.assert_allclose(diamond().asnumpy(), t * t + t, rtol=1e-6)


def test_what_somebody_holds_is_written(gpu: Any) -> None:
    """A temporary with a name, and one that the tape keeps, are there afterwards."""
    x = nd.array([1.0, 2.0], ctx=gpu)
    kept = []

    def named() -> Any:
        t = x + 1
        kept.append(t)
        return t * 2

    assert dispatches(named) == 2
    np.testing.assert_array_equal(kept[-1].asnumpy(), [2, 3])
    x.attach_grad()
    for _ in range(3):
        with autograd.record():
            y = nd.exp(nd.sin(x)) * x
        y.backward()
        s = np.array([1.0, 2.0])
        wanted = np.exp(np.sin(s)) * (1 + s * np.cos(s))
        np.testing.assert_allclose(x.grad.asnumpy(), wanted, rtol=1e-5)


def test_updates_in_place_are_one_kernel(gpu: Any) -> None:
    """A chain that writes one array over and over writes it once."""
    w = nd.array([1.0, 2.0, 3.0], ctx=gpu)
    wanted = np.array([1.0, 2.0, 3.0])

    def update() -> None:
        nonlocal w, wanted
        w *= 0.5
        w += 1
        w -= 0.25
        wanted = wanted * 0.5 + 0.75

    assert dispatches(update) == 1
    np.testing.assert_allclose(w.asnumpy(), wanted)


def test_an_update_by_assignment_is_one_kernel(gpu: Any) -> None:
    """`w[:] = w - lr * g` computes in place."""
    w, g = nd.ones((5,), ctx=gpu), nd.ones((5,), ctx=gpu) * 2
    g.wait_to_read()

    def update() -> None:
        w[:] = w - 0.25 * g

    assert dispatches(update) == 1
    np.testing.assert_array_equal(w.asnumpy(), np.full(5, 1 - 3 * 0.5))


def test_reads_come_before_later_writes(gpu: Any) -> None:
    """What was computed from an array keeps its value when the array is written; views see what was written."""
    for _ in range(3):
        x = nd.array(np.arange(6), ctx=gpu)
        before = x + 0.5
        rows = x.reshape((2, 3))
        x *= 10
        after = rows + 1
        x[2:4] = -1
        part = x[2:5] * 1
        np.testing.assert_array_equal(before.asnumpy(), np.arange(6) + 0.5)
        np.testing.assert_array_equal(after.asnumpy(), np.arange(6).reshape(2, 3) * 10 + 1)
        np.testing.assert_array_equal(part.asnumpy(), [-1, -1, 40])


def test_memory_of_dropped_arrays_is_free(gpu: Any) -> None:
    """A long chain over a large array holds a few such arrays, not one for each call."""
    x = nd.ones((1 << 20,), ctx=gpu)
    x.wait_to_read()
    mx.nd.waitall()
    start = _core.gpu_memory(0)["used"]
    _core.gpu_memory(0, reset_peak=True)
    for _ in range(200):
        x = x + 1
    assert float(x[0].asscalar()) == 201
    assert _core.gpu_memory(0)["peak"] - start <= 4 * x.size * 4


def test_errors_stay_with_their_array(gpu: Any) -> None:
    """Memory that cannot be had is reported by who reads the result, with the call's name; the device goes on."""
    x = nd.ones((1 << 18,), ctx=gpu)
    x.wait_to_read()
    nd.waitall()
    held = _core.gpu_memory(0)["used"]
    _core.set_gpu_memory_limit(0, held)
    try:
        y = nd.sqrt(x)
        with pytest.raises(MemoryError, match=r"sqrt.*memory limit"):
            y.asnumpy()
        with pytest.raises(MemoryError, match="memory limit"):
            (y + 1).asnumpy()
    finally:
        _core.set_gpu_memory_limit(0, None)
    np.testing.assert_array_equal(nd.sqrt(x)[:2].asnumpy(), [1, 1])


def test_what_is_held_back_gives_memory_back(gpu: Any) -> None:
    """An array that only a held call still reads makes room for one that would not fit beside it."""
    x = nd.ones((1 << 20,), ctx=gpu)
    x.wait_to_read()
    nd.waitall()
    gpu.empty_cache()
    _core.set_gpu_memory_limit(0, _core.gpu_memory(0)["used"] + (1 << 16))
    try:
        total = x * 2
        del x, total
        y = nd.dot(nd.ones((1024, 1), ctx=gpu), nd.ones((1, 900), ctx=gpu))
        assert float(y[3, 5].asscalar()) == 1
    finally:
        _core.set_gpu_memory_limit(0, None)


def test_threads_share_a_window(gpu: Any) -> None:
    """Arrays go from one thread to another while calls on them are held back."""
    results: dict[int, float] = {}

    def work(i: int, x: Any) -> None:
        y = x
        for _ in range(50):
            y = y + i
        results[i] = float(y.asscalar())

    x = nd.ones((1,), ctx=gpu) * 3
    threads = [threading.Thread(target=work, args=(i, x)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {i: 3 + 50 * i for i in range(8)}


UNARY = [nd.sin, nd.exp, nd.tanh, nd.abs, nd.relu, nd.sign, nd.floor, nd.zeros_like, nd.ones_like]
BINARY = [nd.broadcast_add, nd.broadcast_mul, nd.broadcast_maximum, nd.broadcast_greater, nd.broadcast_sub]
SHAPES = [(6,), (2, 3), (1, 3), (2, 1), (1,)]


def program(seed: int, ctx: Any) -> list[np.ndarray]:
    """A random program over a few arrays: values, views, updates, reductions, dropped names, waits."""
    rng = np.random.RandomState(seed)
    live = [nd.array(rng.uniform(-1, 1, SHAPES[i % len(SHAPES)]), ctx=ctx) for i in range(5)]

    def pick() -> Any:
        return live[rng.randint(len(live))]

    for _ in range(rng.randint(5, 60)):
        kind = rng.randint(14)
        a = pick()
        if kind < 3:
            live.append(UNARY[rng.randint(len(UNARY))](a) * 0.5)
        elif kind < 6:
            partners = [b for b in live if b.ndim == a.ndim and b.shape[-1] in (1, a.shape[-1])]
            partners = [
                b for b in partners if b.ndim == 1 or 1 in (b.shape[0], a.shape[0]) or b.shape == a.shape
            ]
            live.append(BINARY[rng.randint(len(BINARY))](a, partners[rng.randint(len(partners))]) - 0.25)
        elif kind == 6:
            a *= float(rng.uniform(0.5, 1))
        elif kind == 7:
            a += a * 0.125
        elif kind == 12:
            a[:] = nd.tanh(a) - a * 0.5
        elif kind == 13:
            later = a * 0.25
            a *= 2
            live.append(later + a * 0.125)
        elif kind == 8:
            live.append(a.reshape((-1,)) if a.ndim > 1 else a.reshape((1, -1)))
        elif kind == 9:
            a[:1] = float(rng.uniform(-1, 1))
        elif kind == 10:
            live.append(nd.sum(a, axis=0, keepdims=True))
        else:
            live.append(a.astype("float16" if rng.randint(4) == 0 else "int32").astype("float32"))
        if len(live) > 8:
            del live[rng.randint(len(live))]
        if rng.randint(15) == 0:
            pick().wait_to_read()
    return [a.asnumpy() for a in live]


@pytest.mark.parametrize("seed", range(80))
def test_random_programs(seed: int, gpu: Any) -> None:
    """Run as it stands, held back and run singly, and fused: all the same, and what the CPU computes."""
    with mx.engine.bulk(0):
        wanted = program(seed, gpu)
    for a, b in zip(wanted, program(seed, mx.cpu()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3)
    for size in (32, 32, 3, 3):
        with mx.engine.bulk(size):
            found = program(seed, gpu)
        for a, b in zip(wanted, found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_the_bulk_size_is_settable(gpu: Any) -> None:
    before = mx.engine.set_bulk_size(7)
    assert mx.engine.set_bulk_size(before) == 7
    with pytest.raises(ValueError, match="size = -1"):
        mx.engine.set_bulk_size(-1)
