"""The cases that NumPy has: the ground on which all of them stand."""

from __future__ import annotations

from typing import Any

import numpy as np


def cases(library: str, threads: int) -> dict[str, Any]:
    """Every case by name."""
    return {"add10": _add10, "asnumpy10": _asnumpy10, "gemm1024": _gemm, "elementwise": _elementwise}


def _nothing() -> None:
    pass


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def _add10() -> Any:
    a, b = _random(10), _random(10)

    def work(n: int) -> None:
        for _ in range(n):
            a + b

    return work, _nothing


def _asnumpy10() -> Any:
    a = _random(10)

    def work(n: int) -> None:
        for _ in range(n):
            a.copy()

    return work, _nothing


def _gemm() -> Any:
    a, b = _random(1024, 1024), _random(1024, 1024)

    def work(n: int) -> None:
        for _ in range(n):
            np.dot(a, b)

    return work, _nothing


def _elementwise() -> Any:
    a, b, c = (_random(1000, 1000) for _ in range(3))

    def work(n: int) -> None:
        for _ in range(n):
            np.sqrt(np.maximum(np.tanh(a * b + c), 0) + np.float32(1))

    return work, _nothing
