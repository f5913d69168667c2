"""Every operator that has a body for GPUs gives there what it gives on the CPU: values and gradients.

The samples of the operators' records are the inputs, as in `test_derived.py`. A machine without a GPU runs them on Mesa's software
Vulkan; where that cannot be had either, they are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, autograd
from test_derived import OPS, WITH_SAMPLES, call, samples

ON_GPU = [name for name in WITH_SAMPLES if OPS[name]["gpu"] and OPS[name]["name"] not in {"_empty"}]


def placed(values: list[np.ndarray], ctx: Any) -> list[Any]:
    return [mx.nd.array(v, dtype=v.dtype, ctx=ctx) for v in values]


def run(name: str, inputs: list[np.ndarray], attrs: dict[str, Any], ctx: Any, train: bool) -> Any:
    """Outputs and gradients of one call on a context, whose stream of random numbers starts at the same place."""
    mx.random.seed(7, ctx)
    xs = placed(inputs, ctx)
    if any(p["name"] == "ctx" for p in OPS[name]["params"]):
        attrs = {**attrs, "ctx": str(ctx)}
    if not train:
        return [o.asnumpy() for o in call(name, xs, attrs)], []
    which = [x for x in xs if x.dtype == np.float32]
    for x in which:
        x.attach_grad()
    with autograd.record():
        outs = [o for o in call(name, xs, attrs) if o.dtype == np.float32]
        heads = [mx.nd.array(np.linspace(0.5, 1.5, o.size).reshape(o.shape), ctx=ctx) for o in outs]
    if which and outs and OPS[name]["gradient"] in ("derived", "rule"):
        autograd.backward(outs, heads)
    return [o.asnumpy() for o in outs], [x.grad.asnumpy() for x in which]


@pytest.mark.parametrize("name", ON_GPU)
def test_gpu_gives_what_the_cpu_gives(name: str, gpu: Any, cover: Callable[[str, str], None]) -> None:
    """Forward alone, and forward and backward while training."""
    done = 0
    for inputs, attrs in samples(name):
        given = {str(v.dtype) for v in inputs} | {str(v) for v in attrs.values() if isinstance(v, str)}
        if {"float64", "int64"} & given:
            continue
        for train in (False, True):
            if train and OPS[name]["random"]:
                continue
            wanted = run(name, inputs, attrs, mx.cpu(), train)
            try:
                found = run(name, inputs, attrs, gpu, train)
            except _core.MXNetNotImplementedError as error:
                # A composition or a gradient can reach an operator that has no body yet; the table of operators shows which.
                assert "has no GPU kernel yet" in str(error) or "not built for GPUs yet" in str(error)
                continue
            except _core.MXNetTypeError as error:
                assert "is not supported on a GPU" in str(error)
                continue
            for a, b in zip(wanted[0] + wanted[1], found[0] + found[1], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(
                    b.astype(np.float64), a.astype(np.float64), rtol=2e-4, atol=2e-5, err_msg=name
                )
            done += 1
    if not done:
        pytest.skip(f"{name} reaches operators without a GPU body")
    cover("gpu", name)
