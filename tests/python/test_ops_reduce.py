"""Reductions, positions, running sums and statistics: against NumPy, against MXNet, and what is refused."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mxrs as mx
from mxrs import autograd

REDUCTIONS = {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "min": np.min,
    "nansum": np.nansum, "nanprod": np.nanprod,
}  # fmt: skip


def _array(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith(("int", "uint")):
        return rng.integers(0, 4, shape).astype(dtype)
    return np.asarray(rng.uniform(0.5, 1.5, shape)).astype(dtype)


def _axes(ndim: int) -> list[Any]:
    """Every way to name axes of an array of `ndim` dimensions."""
    sets = [c for n in range(1, ndim + 1) for c in itertools.combinations(range(ndim), n)]
    return [None, (), -1, *range(ndim), *sets]


# ---- NumPy --------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(REDUCTIONS)),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.data(),
)
def test_reductions_are_numpys(name: str, shape: list[int], data: st.DataObject) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    keepdims, exclude = data.draw(st.booleans()), data.draw(st.booleans())
    x = _array(tuple(shape), "float64", seed=sum(shape))
    reduced = tuple(i for i in range(len(shape)) if (i in axes) != exclude)
    expected = REDUCTIONS[name](x, axis=reduced, keepdims=keepdims) if reduced else x
    found = getattr(mx.nd, name)(
        mx.nd.array(x, dtype="float64"), axis=tuple(axes), keepdims=keepdims, exclude=exclude
    ).asnumpy()
    # What has no axes left has shape (1,), as MXNet has it.
    assert found.shape == (np.shape(expected) or (1,))
    np.testing.assert_allclose(found.reshape(np.shape(expected)), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 1000, 100_003])
def test_long_sums_keep_their_accuracy(n: int) -> None:
    x = _array((n,))
    exact = float(np.sum(x.astype(np.float64)))
    assert abs(mx.nd.sum(mx.nd.array(x)).asscalar() - exact) <= 2e-7 * exact


def test_empty_arrays() -> None:
    empty = mx.nd.zeros((2, 0, 3))
    np.testing.assert_array_equal(mx.nd.sum(empty, axis=1).asnumpy(), np.zeros((2, 3)))
    np.testing.assert_array_equal(mx.nd.prod(empty).asnumpy(), [1.0])
    assert mx.nd.max(empty, axis=0).shape == (0, 3)
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(mx.MXNetError, match=f"{name}.*no elements"):
            getattr(mx.nd, name)(empty, axis=1)


@pytest.mark.parametrize(
    ("name", "attrs", "text"),
    [
        ("sum", {"axis": 3}, "sum.*axis 3"),
        ("sum", {"axis": (0, -3)}, "sum.*twice"),
        ("norm", {"ord": 3}, "norm.*ord"),
        ("argmax", {"axis": -4}, "argmax.*axis -4"),
        ("cumsum", {"axis": 7}, "cumsum.*axis 7"),
        ("moments", {"axes": (0, 9)}, "moments.*axis 9"),
    ],
)
def test_bad_axes_are_named(name: str, attrs: dict[str, Any], text: str) -> None:
    with pytest.raises((mx.MXNetError, ValueError), match=text):
        getattr(mx.nd, name)(mx.nd.ones((2, 3, 4)), **attrs).asnumpy()


def test_all_ties_get_the_gradient() -> None:
    x = mx.nd.array([[1.0, 3.0, 3.0], [2.0, 0.0, 2.0]])
    x.attach_grad()
    with autograd.record():
        y = mx.nd.max(x, axis=1)
    y.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), [[0, 1, 1], [1, 0, 1]])


def test_all_finite_combines_with_out() -> None:
    good, bad, out = mx.nd.ones((5000,)), mx.nd.array([1.0, np.inf]), mx.nd.zeros((1,))
    mx.nd.all_finite(good, out=out)
    assert out.asscalar() == 1
    mx.nd.multi_all_finite(good, bad, num_arrays=2, init_output=False, out=out)
    assert out.asscalar() == 0
    mx.nd.all_finite(good, init_output=False, out=out)
    assert out.asscalar() == 0


def test_histogram_is_numpys() -> None:
    x = _array((1000,), "float64") * 4 - 3
    for bins in (np.array([-3.0, -1.0, 0.0, 0.5, 3.0]), np.linspace(-2.0, 2.0, 9)):
        arrays = [mx.nd.array(v, dtype="float64") for v in (x, bins)]
        counts, edges = mx.nd._internal._histogram(*arrays)
        np.testing.assert_array_equal(counts.asnumpy(), np.histogram(x, bins)[0])
        np.testing.assert_array_equal(edges.asnumpy(), bins)


# ---- MXNet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REDUCTIONS, "norm"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_reductions_and_gradients(oracle: Any, name: str, shape: tuple[int, ...]) -> None:
    x = _array(shape)
    if name.startswith("nan"):
        x.flat[::4] = np.nan
    if name in ("max", "min"):
        x = np.round(x * 3)  # ties
    lines = []
    for i, axis in enumerate(_axes(len(shape))):
        for keepdims in (False, True):
            excludes = (False,) if name == "norm" else (False, True)
            for exclude in excludes:
                extra = "" if name == "norm" else f", exclude={exclude}"
                tag = f"{i}{int(keepdims)}{int(exclude)}"
                lines += [
                    "x.attach_grad()",
                    "with mx.autograd.record():",
                    f"    out_{tag} = mx.nd.{name}(x, axis={axis}, keepdims={keepdims}{extra})",
                    f"    z{tag} = (out_{tag} * out_{tag}).sum()",
                    f"z{tag}.backward()",
                    f"out_g{tag} = x.grad.copy()",
                ]
    oracle.check("\n".join(lines), rtol=2e-5, atol=1e-6, x=x)
    oracle.compared.add(name)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int8", "int32", "int64"])
def test_types(oracle: Any, dtype: str) -> None:
    x = _array((3, 4), dtype)
    # The length of a vector of whole numbers depends on the order in which MXNet rounds.
    names = [*REDUCTIONS, "argmax", "argmin", *(["norm"] if dtype.startswith("float") else [])]
    code = "\n".join(f"out_{n} = mx.nd.{n}(x, axis=1)" for n in names)
    oracle.check(code, rtol=2e-3 if dtype == "float16" else 1e-6, x=x)


@pytest.mark.parametrize("ord_", [1, 2])
def test_norm_gradient(oracle: Any, ord_: int) -> None:
    code = f"""
        x.attach_grad()
        with mx.autograd.record():
            out_y = mx.nd.norm(x, ord={ord_}, axis=(0, 2), keepdims=True)
            z = (out_y * w).sum()
        z.backward()
        out_g = x.grad
    """
    x = _array((2, 3, 4)) - 1
    oracle.check(textwrap.dedent(code), x=x, w=_array((1, 3, 1), seed=2))


def test_positions(oracle: Any) -> None:
    x = np.round(_array((3, 4, 5)) * 4)
    x[0, 1, 2] = np.nan
    code = "\n".join(
        f"out_{n}{i} = mx.nd.{n}(x, axis={axis}, keepdims={keep})"
        for n in ("argmax", "argmin")
        for i, (axis, keep) in enumerate(itertools.product([None, 0, 1, 2, -1], [False, True]))
    )
    oracle.check(code + "\nout_channel = mx.nd.argmax_channel(x)", x=x)
    for name in ("argmax", "argmin", "argmax_channel"):
        oracle.compared.add(name)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_cumsum(oracle: Any, axis: int | None, dtype: str | None) -> None:
    extra = f", dtype={dtype!r}" if dtype else ""  # MXNet reads a written None as float64
    code = "\n".join(
        [
            "x.attach_grad()",
            "with mx.autograd.record():",
            f"    out_y = mx.nd.cumsum(x, axis={axis}{extra})",
            "    z = (out_y * out_y).sum()",
            "z.backward()",
            "out_g = x.grad",
        ]
    )
    oracle.check(code, x=_array((3, 4)))
    oracle.compared.add("cumsum")


def test_statistics(oracle: Any) -> None:
    code = "\n".join(
        [
            "x.attach_grad()",
            "with mx.autograd.record():",
            "    out_m, out_v = mx.nd.moments(x, axes=(0, 2), keepdims=True)",
            "    z = (out_m * out_v).sum()",
            "z.backward()",
            "out_g = x.grad",
            "out_s = mx.nd.multi_sum_sq(x, y, num_arrays=2)",
            "out_f = mx.nd.multi_all_finite(x, y, num_arrays=2)",
            "out_c = mx.nd.contrib.allclose(x, x + 1e-9)",
            "out_d = mx.nd.contrib.allclose(x, x + 1)",
        ]
    )
    oracle.check(code, x=_array((2, 3, 4)), y=_array((5,), seed=3))
    oracle.check("out_s = mx.nd.multi_sum_sq(x, num_arrays=1)", x=_array((500,), "float16") * 30, rtol=1e-3)
