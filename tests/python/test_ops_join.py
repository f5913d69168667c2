"""Concatenation, stacking and sums of many arrays: against MXNet 1.9.1 and against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mxrs as mx
from mxrs import autograd, nd
from op_cases import compare, here, values
from oracle import Oracle

CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("Concat", [(2, 3), (2, 1), (2, 4)], {}),
    ("Concat", [(2, 3), (1, 3)], {"dim": 0}),
    ("Concat", [(2, 3, 2), (2, 1, 2)], {"dim": -2}),
    ("Concat", [(2, 3)], {"dim": 1}),
    ("stack", [(2, 3), (2, 3)], {}),
    ("stack", [(2, 3), (2, 3), (2, 3)], {"axis": -1}),
    ("stack", [(2, 3), (2, 3)], {"axis": 1}),
    ("add_n", [(2, 3)] * 5, {}),
    ("add_n", [(2, 3)], {}),
    ("ElementWiseSum", [(7,)] * 2, {}),
    ("_rnn_param_concat", [(3,), (4,)], {"dim": 0}),
]


@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES)
def test_as_mxnet(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], oracle: Oracle) -> None:
    """Outputs and gradients in float32."""
    compare(oracle, name, [values(s, seed=i) for i, s in enumerate(shapes)], attrs)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize(("name", "shapes", "attrs"), [CASES[0], CASES[5], CASES[7]])
def test_types_as_mxnet(
    name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str, oracle: Oracle
) -> None:
    arrays = [values(s, dtype, seed=i) // 8 for i, s in enumerate(shapes)]
    compare(oracle, name, arrays, attrs, gradient=False)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_joins_as_numpy(data: st.DataObject) -> None:
    """Drawn shapes, empty parts among them, and the gradients of every part."""
    shape = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for i, extent in enumerate(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))):
        shape[axis] = extent
        parts.append(values(tuple(shape), seed=i))
    joined = np.concatenate(parts, axis)
    head = values(joined.shape, seed=8)
    (out,), grads = here("Concat", parts, {"dim": axis}, [head])
    np.testing.assert_array_equal(out, joined)
    np.testing.assert_array_equal(np.concatenate(grads, axis), head)
    same = [parts[0]] * len(parts)
    place = data.draw(st.integers(-len(shape) - 1, len(shape)))
    np.testing.assert_array_equal(here("stack", same, {"axis": place})[0][0], np.stack(same, place))


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 100_003])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_add_n_of_many_sizes(size: int, dtype: str) -> None:
    parts = [values((size,), dtype, seed=i) for i in range(4)]
    (out,), _ = here("add_n", parts, {})
    np.testing.assert_array_equal(out, sum(parts[1:], parts[0]))


def test_add_n_into_an_input() -> None:
    a, b = nd.ones((3,)), nd.ones((3,)) * 2
    nd.add_n(a, b, a, out=a)
    assert a.asnumpy().tolist() == [4, 4, 4]


def test_gradient_of_one_part_only() -> None:
    a, b = mx.nd.array([[1.0, 2.0]]), mx.nd.array([[3.0]])
    b.attach_grad()
    with autograd.record():
        y = nd.concat(a, b, dim=1) ** 2
    y.backward()
    assert b.grad.asnumpy().tolist() == [[6.0]]


def test_second_gradient_of_joins() -> None:
    x = mx.nd.array([[1.0, 2.0]])
    x.attach_grad()
    with autograd.record():
        y = nd.add_n(nd.concat(x, 2 * x, dim=0), nd.stack(x, x, axis=0).reshape((2, 2))) ** 3
        grad = autograd.grad(y, [x], create_graph=True, retain_graph=True)[0]
    grad.backward()
    # y = (2x)^3 + (3x)^3, whose second derivative is 6 * 35 x.
    np.testing.assert_allclose(x.grad.asnumpy(), [[210.0, 420.0]])


REFUSED: list[tuple[str, list[tuple[int, ...]], dict[str, Any], str]] = [
    ("Concat", [(2, 3), (2, 3)], {"dim": 2}, "axis 2"),
    ("Concat", [(2, 3), (3, 3)], {"dim": 1}, "arg1"),
    ("Concat", [(2, 3), (2, 3, 4)], {"dim": 0}, "arg1"),
    ("Concat", [], {}, "no array"),
    ("stack", [(2, 3), (3, 2)], {}, "equal"),
    ("stack", [(2, 3), (2, 3)], {"axis": 3}, "axis = 3"),
    ("add_n", [(2, 3), (1, 3)], {}, "equal"),
    ("add_n", [], {}, "no array"),
    ("_rnn_param_concat", [(3, 2), (4,)], {"dim": 0}, "arg1"),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "names"), REFUSED)
def test_refused(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], names: str) -> None:
    """The message names the operator and what is wrong."""
    with pytest.raises((mx.MXNetError, ValueError)) as caught:
        here(name, [values(s) for s in shapes], attrs)
    assert names in str(caught.value)


@pytest.mark.parametrize("name", ["Concat", "stack", "add_n"])
def test_mixed_types_are_refused(name: str) -> None:
    with pytest.raises(mx.MXNetError, match="one type"):
        here(name, [values((2, 3)), values((2, 3), "int32")], {})
