"""Tests that follow from the operators' records: one line in the registry, and these run on it.

Every operator's samples are run forward, compared with MXNet 1.9.1, differentiated numerically (first and second
order), and run on both engines. What an operator's record cannot tell stands in the tables below with its reason.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, autograd
from oracle import Oracle, OracleCrashed, OracleError

OPS = {op["name"]: op for op in _core.list_ops()}
WITH_SAMPLES = [name for name, op in OPS.items() if op["samples"]]

#: Their backward is not the derivative of their forward, by definition: they are the ends of a network, or estimators.
NOT_A_DERIVATIVE = {
    "SoftmaxOutput", "LinearRegressionOutput", "MAERegressionOutput", "LogisticRegressionOutput", "SVMOutput",
    "MakeLoss", "make_loss", "IdentityAttachKLSparseReg", "_contrib_round_ste", "_contrib_sign_ste",
    "_contrib_gradientmultiplier", "Embedding", "_sample_multinomial",
}  # fmt: skip

#: Their gradient is a kernel without a composition behind it yet: asking for the second one raises, by name.
NO_SECOND_GRADIENT = {"CTCLoss", "SoftmaxOutput"}

#: Results that are drawn, or not defined.
NOT_COMPARABLE = {"_empty"}

#: MXNet 1.9.1 has the operator and answers otherwise; docs/differences.md says why.
DIFFERS: dict[str, str] = {
    "_slice_assign": "MXNet has no gradient for it; ours has",
    "_slice_assign_scalar": "MXNet has no gradient for it; ours has",
}


def draw(spec: dict[str, Any], seed: str, dtype: str | None = None) -> np.ndarray:
    """The sample's values, the same in every run."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    low, high, shape = spec["low"], spec["high"], tuple(spec["shape"])
    values = rng.integers(int(low), int(high), shape) if spec["integer"] else rng.uniform(low, high, shape)
    return np.asarray(values).astype(dtype or spec["dtype"])


def samples(name: str, dtype: str | None = None) -> list[tuple[list[np.ndarray], dict[str, Any]]]:
    """(inputs, attributes) of every sample; floats in `dtype` where one is given."""
    out = []
    for i, sample in enumerate(OPS[name]["samples"]):
        inputs = []
        for j, spec in enumerate(sample["inputs"]):
            wanted = dtype if dtype and spec["dtype"] == "float32" and not spec["integer"] else None
            inputs.append(draw(spec, f"{name}/{i}/{j}", wanted))
        out.append((inputs, dict(sample["attrs"])))
    return out


def call(name: str, inputs: list[Any], attrs: dict[str, Any]) -> list[Any]:
    """The operator's visible outputs."""
    result = _core.ops[name](*inputs, **attrs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def arrays(values: list[np.ndarray]) -> list[Any]:
    return [mx.nd.array(v, dtype=v.dtype) for v in values]


@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_samples_run(name: str, cover: Callable[[str, str], None]) -> None:
    """Each sample gives finite values, on either engine the same."""
    for inputs, attrs in samples(name):
        mx.random.seed(7)
        first = [o.asnumpy() for o in call(name, arrays(inputs), attrs)]
        assert all(np.all(np.isfinite(o.astype(np.float64))) for o in first) or name in NOT_COMPARABLE
        _core.set_naive_engine(True)
        try:
            mx.random.seed(7)
            again = [o.asnumpy() for o in call(name, arrays(inputs), attrs)]
        finally:
            _core.set_naive_engine(False)
        if name not in NOT_COMPARABLE:
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a, b)
    cover("derived", name)


def test_every_public_operator_has_a_sample() -> None:
    """An operator without a sample is an operator without tests."""
    missing = [n for n, op in OPS.items() if not op["hidden"] and not op["samples"]]
    assert not missing, f"operators without a sample: {missing}"


DIFFERENTIABLE = [
    n
    for n in WITH_SAMPLES
    if OPS[n]["gradient"] in ("derived", "rule")
    and n not in NOT_A_DERIVATIVE
    and not OPS[n]["random"]
    and not OPS[n]["states"]
]


def wants_gradient(values: np.ndarray, spec: dict[str, Any]) -> bool:
    return values.dtype == np.float64 and not spec["integer"]


def numeric(f: Callable[[list[np.ndarray]], float], inputs: list[np.ndarray], i: int) -> np.ndarray:
    """Central differences of a number with respect to input `i`."""
    step = 1e-5
    out = np.zeros_like(inputs[i])
    for at in np.ndindex(*inputs[i].shape):
        ends = []
        for sign in (1, -1):
            moved = [v.copy() for v in inputs]
            moved[i][at] += sign * step
            ends.append(f(moved))
        out[at] = (ends[0] - ends[1]) / (2 * step)
    return out


def weights(outputs: list[np.ndarray], name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    return [rng.uniform(0.5, 1.5, o.shape).astype(o.dtype) for o in outputs]


def gradients(
    name: str, inputs: list[np.ndarray], attrs: dict[str, Any], which: list[int], ws: list[np.ndarray]
) -> list[Any]:
    """Gradients of the weighted sum of the outputs, recorded themselves."""
    xs = arrays(inputs)
    for i in which:
        xs[i].attach_grad()
    with autograd.record():
        outs = [o for o in call(name, xs, attrs)]
        heads = arrays(ws)
        return autograd.grad(outs, [xs[i] for i in which], heads, retain_graph=True, create_graph=True)


def float64_samples(name: str) -> list[tuple[list[np.ndarray], dict[str, Any], list[int]]]:
    """The samples in float64 with the inputs that have a gradient; empty where the operator refuses float64."""
    out = []
    for (inputs, attrs), sample in zip(samples(name, "float64"), OPS[name]["samples"], strict=True):
        which = [
            i for i, (v, s) in enumerate(zip(inputs, sample["inputs"], strict=True)) if wants_gradient(v, s)
        ]
        if which:
            out.append((inputs, attrs, which))
    return out


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_is_the_slope(name: str, cover: Callable[[str, str], None]) -> None:
    """Autograd agrees with central differences, in float64."""
    for inputs, attrs, which in float64_samples(name):
        with autograd.train_mode():
            outs = [o.asnumpy() for o in call(name, arrays(inputs), attrs)]
        if any(o.dtype != np.float64 for o in outs):
            continue
        ws = weights(outs, name)

        def value(moved: list[np.ndarray], attrs: dict[str, Any] = attrs, ws: list[np.ndarray] = ws) -> float:
            with autograd.train_mode():
                return float(
                    sum(
                        (o.asnumpy() * w).sum()
                        for o, w in zip(call(name, arrays(moved), attrs), ws, strict=True)
                    )
                )

        found = gradients(name, inputs, attrs, which, ws)
        for i, g in zip(which, found, strict=True):
            expected = numeric(value, inputs, i)
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(
                g.asnumpy(), expected, atol=2e-6 * scale, rtol=1e-4, err_msg=f"{name} input {i}"
            )
    cover("gradient", name)


@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if n not in NO_SECOND_GRADIENT])
def test_gradient_of_the_gradient(name: str, cover: Callable[[str, str], None]) -> None:
    """The recorded gradient, differentiated again, agrees with central differences of the first gradient."""
    for inputs, attrs, which in float64_samples(name):
        with autograd.train_mode():
            outs = [o.asnumpy() for o in call(name, arrays(inputs), attrs)]
        if any(o.dtype != np.float64 for o in outs):
            continue
        ws = weights(outs, name)
        mixes = [np.random.default_rng(i).uniform(0.5, 1.5, inputs[i].shape) for i in which]

        def value(
            moved: list[np.ndarray],
            attrs: dict[str, Any] = attrs,
            ws: list[np.ndarray] = ws,
            which: list[int] = which,
            mixes: list[np.ndarray] = mixes,
        ) -> float:
            found = gradients(name, moved, attrs, which, ws)
            return float(sum((g.asnumpy() * m).sum() for g, m in zip(found, mixes, strict=True)))

        xs = arrays(inputs)
        for i in which:
            xs[i].attach_grad()
        with autograd.record():
            first = autograd.grad(
                call(name, xs, attrs),
                [xs[i] for i in which],
                arrays(ws),
                retain_graph=True,
                create_graph=True,
            )
            linked = [(g, m) for g, m in zip(first, mixes, strict=True) if _core.is_linked(g)]
        second = {i: np.zeros_like(inputs[i]) for i in which}
        if linked:
            found = autograd.grad(
                [g for g, _ in linked], [xs[i] for i in which], arrays([m for _, m in linked])
            )
            second = {i: g.asnumpy() for i, g in zip(which, found, strict=True)}
        for i in which:
            expected = numeric(value, inputs, i)
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(
                second[i], expected, atol=1e-5 * scale, rtol=1e-3, err_msg=f"{name} input {i}"
            )
    cover("second gradient", name)


#: As above, for calls with this attribute alone.
DIFFERS_WITH: dict[str, tuple[str, Any, str]] = {
    "LeakyReLU": ("act_type", "selu", "MXNet's gradient of selu is not its slope"),
}

ASKED = [
    n
    for n in WITH_SAMPLES
    if not OPS[n]["hidden"] and not OPS[n]["random"] and n not in NOT_COMPARABLE | set(DIFFERS)
]


@pytest.mark.parametrize("name", ASKED)
def test_answers_as_mxnet(name: str, oracle: Oracle, cover: Callable[[str, str], None]) -> None:
    """Outputs and gradients of the samples agree with MXNet 1.9.1, in shape, type and value."""
    refused, asked = "", 0
    for (inputs, attrs), sample in zip(samples(name), OPS[name]["samples"], strict=True):
        attribute, value, _ = DIFFERS_WITH.get(name, ("", None, ""))
        if attribute and attrs.get(attribute) == value:
            continue
        floats = [
            i
            for i, (v, s) in enumerate(zip(inputs, sample["inputs"], strict=True))
            if v.dtype == np.float32 and not s["integer"] and i not in OPS[name]["states"]
        ]
        wanted = floats if OPS[name]["gradient"] in ("derived", "rule") else []
        try:
            theirs, their_grads = oracle.op(name, inputs, attrs, train=bool(wanted), grad_of=wanted or None)
        except (OracleError, OracleCrashed) as error:
            refused = str(error).strip().splitlines()[0]
            continue
        asked += 1
        xs = arrays(inputs)
        for i in wanted:
            xs[i].attach_grad()
        with autograd.record() if wanted else autograd.pause():
            ours = call(name, xs, attrs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert np.dtype(a.dtype) == b.dtype
            np.testing.assert_allclose(a.asnumpy(), b, rtol=2e-5, atol=2e-6, err_msg=name)
        if wanted:
            autograd.backward(ours)
            for i, theirs_i in zip(wanted, their_grads, strict=True):
                np.testing.assert_allclose(
                    xs[i].grad.asnumpy(),
                    theirs_i,
                    rtol=1e-4,
                    atol=1e-5,
                    err_msg=f"{name} gradient of input {i}",
                )
    if not asked:
        pytest.skip(f"MXNet 1.9.1 has no answer: {refused}")
    cover("oracle", name)
