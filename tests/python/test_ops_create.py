"""Ranges, identity matrices and positions: against MXNet 1.9.1 and against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core
from op_cases import compare, here, values
from oracle import Oracle

CASES: list[tuple[str, dict[str, Any]]] = [
    ("_arange", {"start": 5}),
    ("_arange", {"start": 3, "stop": 0, "step": -2}),
    ("_arange", {"start": 0, "stop": 1, "step": 0.3}),
    ("_arange", {"start": 0, "stop": 3, "step": 2, "repeat": 3, "dtype": "int32"}),
    ("_arange", {"start": 0.5, "stop": 3, "step": 0.5, "dtype": "int32"}),
    ("_arange", {"start": 1.5, "stop": 7, "step": 2.5, "dtype": "int64"}),
    ("_arange", {"start": 0, "stop": 100, "dtype": "float16"}),
    ("_arange", {"start": 0, "stop": 3, "infer_range": True}),
    ("_eye", {"N": 2}),
    ("_eye", {"N": 2, "M": 3, "k": -1, "dtype": "int32"}),
    ("_eye", {"N": 2, "M": -3}),
    ("_eye", {"N": 2, "k": 9}),
    ("_eye", {"N": 3, "M": 5, "k": 2, "dtype": "float16"}),
    ("_linspace", {"start": 0, "stop": 1, "num": 5}),
    ("_linspace", {"start": 1, "stop": 5, "num": 3, "endpoint": False}),
    ("_linspace", {"start": 1, "stop": 5, "num": 1}),
    ("_linspace", {"start": 0, "stop": 10, "num": 5, "endpoint": False, "dtype": "int32"}),
    ("_linspace", {"start": 3, "stop": -3, "num": 7, "dtype": "float64"}),
]
LIKE: list[tuple[str, dict[str, Any]]] = [
    ("_contrib_arange_like", {"start": 2, "step": 0.5}),
    ("_contrib_arange_like", {"axis": -1}),
    ("_contrib_arange_like", {"axis": 1, "repeat": 2}),
    ("_contrib_arange_like", {"repeat": 2}),
    ("_contrib_index_array", {}),
    ("_contrib_index_array", {"axes": (1, 0)}),
]


@pytest.mark.parametrize(("name", "attrs"), CASES)
def test_as_mxnet(name: str, attrs: dict[str, Any], oracle: Oracle) -> None:
    compare(oracle, name, [], attrs, gradient=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
@pytest.mark.parametrize(("name", "attrs"), LIKE)
def test_like_as_mxnet(name: str, attrs: dict[str, Any], dtype: str, oracle: Oracle) -> None:
    if dtype == "float16" and attrs.get("step") == 0.5:
        pytest.skip("MXNet drops the fraction of the step in float16")
    compare(oracle, name, [values((2, 3), dtype)], attrs, gradient=False)


@pytest.mark.parametrize("start", [-3.0, 0.0, 0.1])
@pytest.mark.parametrize("step", [0.1, 0.25, 7.0])
def test_arange_as_numpy(start: float, step: float) -> None:
    """Every number is rounded once, from start + i * step in double precision."""
    got = _core.ops["_arange"](start=start, stop=start + 50, step=step).asnumpy()
    count = int(np.ceil(((start + 50) - start) / step))
    np.testing.assert_array_equal(got, (start + np.arange(count) * step).astype("float32"))


def test_arange_like_in_float16() -> None:
    got = _core.ops["_contrib_arange_like"](mx.nd.zeros((2, 3), dtype="float16"), start=2, step=0.5).asnumpy()
    np.testing.assert_array_equal(got, np.arange(2, 5, 0.5, "float16").reshape(2, 3))


def test_linspace_meets_its_end() -> None:
    for num in (2, 3, 7, 1000):
        got = _core.ops["_linspace"](start=0.1, stop=0.7, num=num, dtype="float64").asnumpy()
        assert got.shape == (num,) and got[0] == 0.1 and got[-1] == 0.7
    assert _core.ops["_linspace"](start=0, stop=1, num=0).asnumpy().shape == (0,)


def test_index_array_as_numpy() -> None:
    got = _core.ops["_contrib_index_array"](mx.nd.zeros((2, 3, 4)), axes=(2, -3)).asnumpy()
    np.testing.assert_array_equal(got, np.moveaxis(np.indices((2, 3, 4))[[2, 0]], 0, -1))


def test_zeros_without_dtype() -> None:
    assert _core.ops["_zeros_without_dtype"](shape=(2,)).asnumpy().dtype == np.float32
    assert _core.ops["_zeros_without_dtype"](shape=(2,), dtype=4).asnumpy().dtype == np.int32


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("_arange", {"start": 0, "stop": -1}, "stop = -1"),
    ("_arange", {"start": 2, "stop": 2}, "stop = 2"),
    ("_arange", {"start": 0, "stop": 3, "step": 0}, "step = 0"),
    ("_arange", {"start": 0, "stop": 3, "repeat": 0}, "repeat"),
    ("_arange", {"start": float("nan")}, "NaN"),
    ("_arange", {"start": 0, "stop": float("inf")}, "inf"),
    ("_arange", {"start": 1e300}, "too long"),
    ("_arange", {"start": 1 << 52, "repeat": 1 << 52}, "memory"),
    ("_arange", {"start": 0, "infer_range": True}, "infer_range"),
    ("_linspace", {"start": 0, "stop": 1, "num": -1}, "num"),
    ("_linspace", {"start": 0, "stop": float("nan"), "num": 3}, "finite"),
    ("_eye", {"N": -1, "M": 3}, "N"),
    ("_eye", {"N": 1 << 40, "M": 1 << 40}, "memory"),
    ("_zeros_without_dtype", {"shape": (2,), "dtype": 99}, "99"),
]


@pytest.mark.parametrize(("name", "attrs", "names"), REFUSED)
def test_refused(name: str, attrs: dict[str, Any], names: str) -> None:
    """The message names the operator and what is wrong."""
    with pytest.raises((mx.MXNetError, ValueError, MemoryError)) as caught:
        _core.ops[name](**attrs)
    assert names in str(caught.value)


@pytest.mark.parametrize("axes", [(3,), (-3,)])
def test_index_array_of_a_missing_axis(axes: tuple[int, ...]) -> None:
    with pytest.raises((mx.MXNetError, ValueError), match="axis"):
        here("_contrib_index_array", [values((2, 3))], {"axes": axes})
