"""Interleaved attention products against MXNet, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx

CASES = [
    ("selfatt_qk", [(5, 2, 3 * 4 * 6)]),
    ("selfatt_valatt", [(5, 2, 3 * 4 * 6), (8, 5, 5)]),
    ("encdec_qk", [(5, 2, 4 * 6), (7, 2, 2 * 4 * 6)]),
    ("encdec_valatt", [(7, 2, 2 * 4 * 6), (8, 5, 7)]),
]


@pytest.mark.parametrize(("name", "shapes"), CASES)
def test_products(oracle: Any, name: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s).astype("float32") for n, s in zip("xy", shapes)}
    names = ", ".join(arrays)
    attach = "\n".join(f"{n}.attach_grad()" for n in arrays)
    code = (
        f"{attach}\nwith mx.autograd.record():\n"
        f"    out = mx.nd.contrib.interleaved_matmul_{name}({names}, heads=4)\n"
        "out.backward(out * 0.5)\nout_r = out\n" + "\n".join(f"out_{n} = {n}.grad" for n in arrays)
    )
    oracle.check(code, rtol=1e-4, atol=1e-4, **arrays)
    oracle.compared.add(f"_contrib_interleaved_matmul_{name}")


@pytest.mark.parametrize(
    ("shape", "heads"), [((5, 2, 70), 4), ((5, 72), 4), ((5, 2, 72), 0), ((5, 2, 72), 2**52)]
)
def test_refusals(shape: tuple[int, ...], heads: int) -> None:
    with pytest.raises(mx.MXNetError, match="interleaved_matmul_selfatt_qk"):
        mx.nd.contrib.interleaved_matmul_selfatt_qk(mx.nd.zeros(shape), heads=heads)
