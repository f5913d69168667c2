"""Slices, crops, splits and assignment to slices: against MXNet 1.9.1 and against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mxrs as mx
from mxrs import _core, autograd, nd
from op_cases import compare, here, values
from oracle import Oracle

CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("slice", [(4, 5)], {"begin": (1,), "end": (3,)}),
    ("slice", [(4, 5)], {"begin": (1, 0), "end": (9, -1)}),
    ("slice", [(4, 5)], {"begin": (None, 1), "end": (None, 4)}),
    ("slice", [(4, 5)], {"begin": (0, 4), "end": (4, 0), "step": (2, -2)}),
    ("slice", [(2, 3)], {"begin": (None, 2), "end": (None, None), "step": (1, -1)}),
    ("slice", [(4, 5)], {"begin": (), "end": ()}),
    ("slice_axis", [(2, 3, 4)], {"axis": 1, "begin": 0, "end": 2}),
    ("slice_axis", [(2, 3, 4)], {"axis": -1, "begin": -3, "end": None}),
    ("slice_axis", [(2, 3, 4)], {"axis": 0, "begin": 0, "end": -1}),
    ("slice_like", [(3, 4), (2, 2)], {}),
    ("slice_like", [(3, 4), (2, 2)], {"axes": (0,)}),
    ("slice_like", [(3, 4), (2, 2)], {"axes": (-1, 1)}),
    ("slice_like", [(3, 4), (2, 2, 3)], {"axes": (1,)}),
    ("SliceChannel", [(2, 6)], {"num_outputs": 3}),
    ("SliceChannel", [(2, 3, 4)], {"num_outputs": 3, "squeeze_axis": True}),
    ("SliceChannel", [(4, 3)], {"num_outputs": 2, "axis": 0}),
    ("SliceChannel", [(4, 3)], {"num_outputs": 1, "axis": -1}),
    ("_split_v2", [(2, 5)], {"indices": (0, 1, 3), "axis": 1}),
    ("_split_v2", [(5, 2)], {"indices": (0,), "axis": 0, "sections": 2}),
    ("_split_v2", [(2, 3)], {"indices": (0, 1, 2), "axis": -1, "squeeze_axis": True}),
    ("Crop", [(1, 2, 4, 5)], {"h_w": (2, 3), "offset": (1, 2)}),
    ("Crop", [(1, 2, 4, 5), (1, 1, 3, 2)], {"num_args": 2}),
    ("Crop", [(1, 2, 4, 5), (1, 1, 3, 2)], {"num_args": 2, "center_crop": True}),
]


@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES)
def test_as_mxnet(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], oracle: Oracle) -> None:
    """Outputs and gradients in float32."""
    compare(oracle, name, [values(s) for s in shapes], attrs)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES[1::6])
def test_types_as_mxnet(
    name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str, oracle: Oracle
) -> None:
    """Movement is the same in every type."""
    compare(oracle, name, [values(s, dtype) for s in shapes], attrs, gradient=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_assignment_as_mxnet(dtype: str, oracle: Oracle) -> None:
    x, part = values((3, 4), dtype), values((2, 2), dtype, seed=1)
    attrs: dict[str, Any] = {"begin": (0, None), "end": (3, None), "step": (2, -2)}
    compare(oracle, "_slice_assign", [x, part], attrs, gradient=False)
    compare(oracle, "_slice_assign_scalar", [x], attrs | {"scalar": 5.0}, gradient=False)


index = st.one_of(st.none(), st.integers(-8, 8))
step = st.one_of(st.none(), st.integers(-3, 3).filter(bool))


@given(shape=st.lists(st.integers(0, 6), min_size=1, max_size=4), data=st.data())
@settings(max_examples=150, deadline=None)
def test_slices_and_assignments_as_numpy(shape: list[int], data: st.DataObject) -> None:
    """Any begin, end and step: taking, its gradient, and assigning."""
    cuts = data.draw(st.lists(st.tuples(index, index, step), max_size=len(shape)))
    begin, end, steps = ([c[i] for c in cuts] for i in range(3))
    attrs = {"begin": tuple(begin), "end": tuple(end), "step": tuple(steps)}
    place = tuple(slice(*c) for c in cuts)
    x = values(tuple(shape))
    part = values(x[place].shape, seed=2) + 0.5
    (taken,), (grad,) = here("slice", [x], attrs, [part])
    np.testing.assert_array_equal(taken, x[place])
    among = np.zeros_like(x)
    among[place] = part
    np.testing.assert_array_equal(grad, among)
    wanted = x.copy()
    wanted[place] = part
    a = mx.nd.array(x, dtype=x.dtype)
    _core.ops["_slice_assign"](a, mx.nd.array(part, dtype=x.dtype), out=a, **attrs)
    np.testing.assert_array_equal(a.asnumpy(), wanted)
    wanted[place] = -1
    _core.ops["_slice_assign_scalar"](a, scalar=-1, out=a, **attrs)
    np.testing.assert_array_equal(a.asnumpy(), wanted)


def test_assignment_in_place_keeps_the_memory() -> None:
    x = nd.zeros((3, 4))
    place = _core.address(x)
    _core.ops["_slice_assign_scalar"](x, scalar=2.0, begin=(1,), end=(2,), out=x)
    _core.ops["_slice_assign"](x, nd.ones((1, 1)), begin=(0, 0), end=(1, 2), out=x)
    assert _core.address(x) == place
    assert x.asnumpy().tolist() == [[1, 1, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]]


def test_assignment_from_an_overlapping_part() -> None:
    """The right side is read before anything is written."""
    x = mx.nd.array(np.arange(6, dtype="float32"))
    _core.ops["_slice_assign"](x, x[0:5], begin=(1,), end=(6,), out=x)
    assert x.asnumpy().tolist() == [0, 0, 1, 2, 3, 4]


def test_assignment_out_of_place_leaves_its_input() -> None:
    x = nd.zeros((2, 2))
    y = _core.ops["_slice_assign_scalar"](x, scalar=3.0, begin=(0,), end=(1,))
    assert x.asnumpy().tolist() == [[0, 0], [0, 0]]
    assert y.asnumpy().tolist() == [[3, 3], [0, 0]]


def test_assignment_gradient() -> None:
    """What was overwritten has no gradient; what was written has that of its place."""
    x, part = values((3, 4)), values((1, 2))
    head = values((3, 4), seed=4)
    attrs = {"begin": (1, 0), "end": (2, 4), "step": (1, 2)}
    _, (left, right) = here("_slice_assign", [x, part], attrs, [head])
    np.testing.assert_array_equal(right, head[1:2, ::2])
    expected = head.copy()
    expected[1:2, ::2] = 0
    np.testing.assert_array_equal(left, expected)


def test_gradient_of_one_part_of_a_split() -> None:
    """Parts that nothing depends on count as zero."""
    x = mx.nd.array([[1.0, 2.0, 3.0]])
    x.attach_grad()
    with autograd.record():
        parts = nd.split(x, num_outputs=3, axis=1)
        y = parts[1] * 4
    y.backward()
    assert x.grad.asnumpy().tolist() == [[0, 4, 0]]


def test_second_gradient_of_a_slice() -> None:
    x = mx.nd.array([1.0, 2.0, 3.0])
    x.attach_grad()
    with autograd.record():
        y = nd.slice(x, begin=(1,), end=(3,)) ** 3
        grad = autograd.grad(y, [x], create_graph=True, retain_graph=True)[0]
    grad.backward()
    assert x.grad.asnumpy().tolist() == [0, 12, 18]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_split_of_an_empty_axis(count: int) -> None:
    parts = nd.SliceChannel(nd.zeros((2, 0)), num_outputs=count)
    shapes = [p.shape for p in parts] if isinstance(parts, (list, tuple)) else [parts.shape]
    assert shapes == [(2, 0)] * count


REFUSED: list[tuple[str, list[tuple[int, ...]], dict[str, Any], str]] = [
    ("slice", [(2, 3)], {"begin": (0, 0, 0), "end": (1, 1, 1)}, "one per axis"),
    ("slice", [(2, 3)], {"begin": (0, 0), "end": (1,)}, "begin"),
    ("slice", [(2, 3)], {"begin": (0, 0), "end": (1, 1), "step": (1,)}, "step"),
    ("slice", [(2, 3)], {"begin": (0, 0), "end": (1, 1), "step": (0, 1)}, "step is 0"),
    ("slice_axis", [(2, 3)], {"axis": 1, "begin": 0, "end": 9}, "end = 9"),
    ("slice_axis", [(2, 3)], {"axis": 1, "begin": -9, "end": 2}, "begin = -9"),
    ("slice_axis", [(2, 3)], {"axis": 1, "begin": 2, "end": 2}, "not be empty"),
    ("slice_axis", [(2, 3)], {"axis": 2, "begin": 0, "end": 1}, "axis 2"),
    ("slice_like", [(2, 3), (3, 2)], {}, "axis 0"),
    ("slice_like", [(2, 3), (1, 2, 3)], {}, "axes"),
    ("slice_like", [(2, 3), (1,)], {"axes": (1,)}, "no axis 1"),
    ("SliceChannel", [(2, 3)], {"num_outputs": 2}, "does not divide"),
    ("SliceChannel", [(2, 4)], {"num_outputs": 2, "squeeze_axis": True}, "squeeze_axis"),
    ("SliceChannel", [(2, 3)], {"num_outputs": 0}, "num_outputs"),
    ("SliceChannel", [(2, 3)], {"num_outputs": 3, "axis": 2}, "axis 2"),
    ("_split_v2", [(2, 3)], {"indices": (0, 2, 1)}, "rise"),
    ("_split_v2", [(2, 3)], {"indices": (0, 5)}, "rise"),
    ("_split_v2", [(2, 3)], {"indices": (1,)}, "begin with 0"),
    ("_split_v2", [(2, 3)], {"indices": ()}, "begin with 0"),
    ("Crop", [(1, 2, 4, 4)], {"h_w": (2, 3), "offset": (3, 1)}, "offset"),
    ("Crop", [(1, 2, 4, 4)], {}, "height"),
    ("Crop", [(1, 2)], {"h_w": (1, 1)}, "dimensions"),
    ("_slice_assign", [(2, 3), (2, 2)], {"begin": (0, 0), "end": (1, 2)}, "(1, 2) is expected"),
    ("_slice_assign_scalar", [(2, 3)], {"begin": (0, 0, 0), "end": (1, 2, 3)}, "begin"),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "names"), REFUSED)
def test_refused(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], names: str) -> None:
    """The message names the operator and what is wrong."""
    with pytest.raises((mx.MXNetError, ValueError)) as caught:
        here(name, [values(s) for s in shapes], attrs)
    assert names in str(caught.value)


def test_assignment_of_another_type_is_refused() -> None:
    with pytest.raises(mx.MXNetError, match="one type"):
        here("_slice_assign", [values((2, 3)), values((1, 2), "int32")], {"begin": (0, 0), "end": (1, 2)})
