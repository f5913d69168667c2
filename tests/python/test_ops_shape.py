"""Reshaping, permuting, repeating, padding and columns: against MXNet 1.9.1 and against NumPy."""

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

MXNET_TYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64"]

CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("Reshape", [(2, 3, 4)], {"shape": (4, 6)}),
    ("Reshape", [(2, 3, 4)], {"shape": (0, -1)}),
    ("Reshape", [(2, 3, 4)], {"shape": (-1, 4)}),
    ("Reshape", [(2, 3, 4)], {"shape": (0, -2)}),
    ("Reshape", [(2, 3, 4)], {"shape": (-2, 1, 1)}),
    ("Reshape", [(2, 3, 4)], {"shape": (-1, -2)}),
    ("Reshape", [(2, 3, 4)], {"shape": (0, 0, -2, 1)}),
    ("Reshape", [(2, 3, 4)], {"shape": (-3, 4)}),
    ("Reshape", [(2, 3, 4)], {"shape": (0, -3)}),
    ("Reshape", [(2, 3, 4, 5)], {"shape": (-3, -3)}),
    ("Reshape", [(2, 3, 4, 5)], {"shape": (-3, -2)}),
    ("Reshape", [(6, 4)], {"shape": (-4, 2, 3, 0)}),
    ("Reshape", [(6, 4)], {"shape": (-4, -1, 3, 4)}),
    ("Reshape", [(2, 6)], {"shape": (0, -4, 2, -1)}),
    ("Reshape", [(2, 6)], {"shape": (-4, 1, -1, 6)}),
    ("Reshape", [(10, 5, 4)], {"shape": (-1, 0)}),
    ("Reshape", [(10, 5, 4)], {"shape": (-1, 0), "reverse": True}),
    ("Reshape", [(8, 3)], {"shape": (4, -1, -4, 0), "reverse": True}),
    ("Reshape", [(2, 3, 4)], {"shape": (0, -3), "reverse": True}),
    ("Reshape", [(2, 3, 4)], {"shape": (-2, 3, 4), "reverse": True}),
    ("Reshape", [(2, 3, 4)], {"shape": (-1, 0, 0), "reverse": True}),
    ("Reshape", [(2, 3)], {"target_shape": (3, 2)}),
    ("Reshape", [(2, 3)], {"target_shape": (0, 3)}),
    ("Reshape", [(2, 3)], {"target_shape": (0, 0), "keep_highest": True}),
    ("reshape_like", [(6,), (2, 3)], {}),
    ("reshape_like", [(30, 7), (15, 2, 4)], {"lhs_begin": 0, "lhs_end": 1, "rhs_begin": 0, "rhs_end": 2}),
    ("reshape_like", [(2, 3), (3, 2)], {"lhs_begin": -2, "rhs_begin": 0}),
    ("Flatten", [(2, 3, 4)], {}),
    ("Flatten", [(3,)], {}),
    ("expand_dims", [(2, 3)], {"axis": 0}),
    ("expand_dims", [(2, 3)], {"axis": 2}),
    ("expand_dims", [(2, 3)], {"axis": -3}),
    ("expand_dims", [(2, 3)], {"axis": -1}),
    ("squeeze", [(1, 2, 1)], {}),
    ("squeeze", [(1, 1)], {}),
    ("squeeze", [(1, 2, 1)], {"axis": (0, 2)}),
    ("squeeze", [(1, 2, 1)], {"axis": -1}),
    ("transpose", [(2, 3, 4)], {}),
    ("transpose", [(2, 3, 4)], {"axes": (1, 2, 0)}),
    ("transpose", [(2, 1, 3, 4)], {"axes": (0, 2, 3, 1)}),
    ("transpose", [(33, 70)], {}),
    ("SwapAxis", [(2, 3, 4)], {"dim1": 0, "dim2": 2}),
    ("SwapAxis", [(2, 3, 4)], {"dim1": -1, "dim2": 1}),
    ("reverse", [(2, 3, 4)], {"axis": 1}),
    ("reverse", [(2, 3, 4)], {"axis": (0, 2)}),
    ("tile", [(2, 3)], {"reps": (2,)}),
    ("tile", [(2, 3)], {"reps": (2, 1, 3)}),
    ("tile", [(2, 3)], {"reps": ()}),
    ("repeat", [(2, 3)], {"repeats": 2}),
    ("repeat", [(2, 3)], {"repeats": 3, "axis": 0}),
    ("repeat", [(2, 3)], {"repeats": 2, "axis": -1}),
    ("broadcast_to", [(2, 1, 3)], {"shape": (2, 4, 3)}),
    ("broadcast_to", [(1, 3)], {"shape": (2, 0)}),
    ("broadcast_axis", [(1, 2, 1)], {"axis": (0, 2), "size": (3, 4)}),
    ("broadcast_axis", [(1, 2, 1)], {"axis": 2, "size": 5}),
    ("broadcast_like", [(1, 3), (2, 3)], {}),
    ("broadcast_like", [(1, 3), (2, 3, 4)], {"lhs_axes": (0,), "rhs_axes": (2,)}),
    ("broadcast_like", [(1, 3), (2, 3, 4)], {"lhs_axes": (-2,), "rhs_axes": (-1,)}),
    ("depth_to_space", [(2, 8, 2, 3)], {"block_size": 2}),
    ("space_to_depth", [(2, 3, 4, 6)], {"block_size": 2}),
    ("diag", [(3, 4)], {}),
    ("diag", [(3, 4)], {"k": 2}),
    ("diag", [(3, 4)], {"k": -1}),
    ("diag", [(3,)], {"k": 1}),
    ("diag", [(2, 3, 4)], {"axis1": 0, "axis2": 2}),
    ("diag", [(2, 3, 4)], {"axis1": -1, "axis2": 0, "k": 1}),
]
FLOAT_CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("Pad", [(2, 2, 3, 4)], {"mode": "constant", "pad_width": (0, 0, 0, 0, 1, 2, 0, 3), "constant_value": 5}),
    ("Pad", [(2, 2, 3, 4)], {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 2, 4, 5)}),
    ("Pad", [(2, 2, 3, 4)], {"mode": "reflect", "pad_width": (0, 0, 0, 0, 1, 2, 3, 3)}),
    ("Pad", [(1, 2, 3, 3, 3)], {"mode": "constant", "pad_width": (0, 0, 0, 0, 1, 0, 0, 1, 2, 2)}),
    ("Pad", [(1, 2, 3, 3, 3)], {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 0, 0, 1, 2, 2)}),
    ("Pad", [(1, 2, 3, 3, 3)], {"mode": "reflect", "pad_width": (0, 0, 0, 0, 1, 0, 0, 1, 2, 2)}),
    ("im2col", [(2, 2, 5, 6)], {"kernel": (2, 3)}),
    ("im2col", [(1, 2, 5, 6)], {"kernel": (2, 3), "stride": (2, 1), "dilate": (1, 2), "pad": (1, 2)}),
    ("col2im", [(2, 8, 4)], {"output_size": (3, 3), "kernel": (2, 2)}),
    (
        "col2im",
        [(1, 8, 4)],
        {"output_size": (4, 3), "kernel": (2, 2), "stride": (2, 1), "pad": (1, 0), "dilate": (2, 1)},
    ),
]


@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES + FLOAT_CASES)
def test_as_mxnet(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], oracle: Oracle) -> None:
    """Outputs and gradients in float32."""
    compare(oracle, name, [values(s) for s in shapes], attrs)


@pytest.mark.parametrize("dtype", MXNET_TYPES[1:])
@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES[::5])
def test_types_as_mxnet(
    name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str, oracle: Oracle
) -> None:
    """Movement is the same in every type."""
    compare(oracle, name, [values(s, dtype) for s in shapes], attrs, gradient=False)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize(("name", "shapes", "attrs"), FLOAT_CASES[::3])
def test_float_types_as_mxnet(
    name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str, oracle: Oracle
) -> None:
    """What MXNet has for floats only."""
    compare(oracle, name, [values(s, dtype) for s in shapes], attrs, gradient=dtype == "float64")


@pytest.mark.parametrize("shape", [(2, 3, 4), (7,), (1,)])
def test_facts(shape: tuple[int, ...], oracle: Oracle) -> None:
    compare(oracle, "shape_array", [values(shape)], {}, gradient=False)
    compare(oracle, "size_array", [values(shape)], {}, gradient=False)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_moves_as_numpy(data: st.DataObject) -> None:
    """transpose, flip, tile and repeat of drawn shapes, empty ones too."""
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5)))
    x = values(shape, data.draw(st.sampled_from([*MXNET_TYPES, "bool"])))
    a = mx.nd.array(x, dtype=x.dtype)
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    np.testing.assert_array_equal(nd.transpose(a, axes=axes).asnumpy(), x.transpose(axes))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    np.testing.assert_array_equal(nd.flip(a, axis=axis).asnumpy(), np.flip(x, axis))
    reps = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)))
    np.testing.assert_array_equal(nd.tile(a, reps=reps).asnumpy(), np.tile(x, reps))
    count = data.draw(st.integers(0, 3))
    np.testing.assert_array_equal(nd.repeat(a, repeats=count, axis=axis).asnumpy(), np.repeat(x, count, axis))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_broadcast_to_and_its_gradient_as_numpy(data: st.DataObject) -> None:
    target = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    lead = data.draw(st.integers(0, len(target) - 1))
    shape = tuple(1 if data.draw(st.booleans()) else d for d in target[lead:])
    x, head = values(shape), values(target, seed=3)
    (out,), (grad,) = here("broadcast_to", [x], {"shape": target}, [head])
    np.testing.assert_array_equal(out, np.broadcast_to(x, target))
    summed = tuple(range(lead)) + tuple(lead + d for d, n in enumerate(shape) if n == 1)
    np.testing.assert_allclose(grad, head.sum(axis=summed, keepdims=True).reshape(shape), rtol=1e-6)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad_as_numpy(mode: str) -> None:
    x = values((1, 2, 3, 4))
    got = nd.pad(mx.nd.array(x), mode=mode, pad_width=(0, 0, 0, 0, 2, 1, 1, 3)).asnumpy()
    np.testing.assert_array_equal(got, np.pad(x, ((0, 0), (0, 0), (2, 1), (1, 3)), mode=mode))


@pytest.mark.parametrize("shape", [(2, 2, 6), (1, 2, 4, 5), (1, 2, 4, 3, 5)])
def test_columns_are_windows(shape: tuple[int, ...]) -> None:
    """im2col lists NumPy's sliding windows; col2im of ones counts the windows over each element."""
    x, axes = values(shape), tuple(range(2, len(shape)))
    kernel = (2,) * len(axes)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axes)
    order = (0, 1, *range(len(shape), 2 * len(shape) - 2), *axes)
    columns = windows.transpose(order).reshape(shape[0], shape[1] * 2 ** len(axes), -1)
    np.testing.assert_array_equal(nd.im2col(mx.nd.array(x), kernel=kernel).asnumpy(), columns)
    (_,), (counts,) = here("im2col", [x], {"kernel": kernel}, [np.ones_like(columns)])
    edge = [np.minimum(np.minimum(np.arange(n) + 1, n - np.arange(n)), 2) for n in shape[2:]]
    expected = np.ones(())
    for line in edge:
        expected = np.multiply.outer(expected, line)
    np.testing.assert_array_equal(counts, np.broadcast_to(expected, shape))


def test_nd_reshape_is_a_copy() -> None:
    x = nd.zeros((2,))
    y = nd.Reshape(x, shape=(2, 1))
    y[:] = 1
    assert x.asnumpy().tolist() == [0, 0]


def test_second_gradient_through_moves() -> None:
    """The gradient of the gradient of sum((T x)^3), T a chain of moves, is 6 x times the repetitions."""
    x = mx.nd.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    x.attach_grad()
    with autograd.record():
        y = nd.tile(nd.flip(nd.transpose(nd.expand_dims(x, axis=1)), axis=0), reps=(1, 2, 1))
        z = nd.broadcast_to(nd.Reshape(y, shape=(0, -1, 1)), shape=(0, 0, 2)) ** 3
        grad = autograd.grad(z, [x], create_graph=True, retain_graph=True)[0]
    grad.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), 4 * 6 * x.asnumpy())


REFUSED: list[tuple[str, list[tuple[int, ...]], dict[str, Any], str]] = [
    ("Reshape", [(2, 3)], {}, "shape"),
    ("Reshape", [(2, 3)], {"shape": (4, 2)}, "8 elements"),
    ("Reshape", [(2, 3)], {"shape": (2, 2)}, "4 elements"),
    ("Reshape", [(2, 3)], {"shape": (-1, -1)}, "-1"),
    ("Reshape", [(2, 3)], {"shape": (-1, 4)}, "-1"),
    ("Reshape", [(2, 3)], {"shape": (-5,)}, "-5"),
    ("Reshape", [(2, 3)], {"shape": (0, 0, 0)}, "no axis"),
    ("Reshape", [(2, 3)], {"shape": (0, -3)}, "-3"),
    ("Reshape", [(8, 3)], {"shape": (-4, 4, -1, 0), "reverse": True}, "-4"),
    ("Reshape", [(6,)], {"shape": (-4, 4, -1)}, "-4"),
    ("Reshape", [(6,)], {"shape": (-4, -1, -1)}, "-4"),
    ("Reshape", [(6,)], {"shape": (1 << 40, 1 << 40)}, ""),
    ("reshape_like", [(2, 3), (7,)], {}, "lhs"),
    ("reshape_like", [(2, 3), (3, 2)], {"lhs_begin": 3}, "lhs_begin"),
    ("expand_dims", [(2, 3)], {"axis": 3}, "axis"),
    ("expand_dims", [(2, 3)], {"axis": -4}, "axis"),
    ("squeeze", [(1, 2)], {"axis": 1}, "axis 1"),
    ("squeeze", [(1, 2)], {"axis": (0, 0)}, "twice"),
    ("transpose", [(2, 3)], {"axes": (0, 0)}, "twice"),
    ("transpose", [(2, 3)], {"axes": (0,)}, "axes"),
    ("transpose", [(2, 3)], {"axes": (0, 2)}, "axis 2"),
    ("SwapAxis", [(2, 3)], {"dim1": 0, "dim2": 2}, "axis 2"),
    ("reverse", [(2, 3)], {"axis": 2}, "axis 2"),
    ("tile", [(2, 3)], {"reps": (-1,)}, "reps"),
    ("tile", [(2, 3)], {"reps": (1 << 52, 1 << 52)}, "memory"),
    ("repeat", [(2, 3)], {"repeats": -1}, "repeats"),
    ("repeat", [(2, 3)], {"repeats": 1 << 53}, ""),
    ("broadcast_to", [(2, 3)], {"shape": (3, 3)}, "broadcast"),
    ("broadcast_to", [(2, 3)], {"shape": (2,)}, "shape"),
    ("broadcast_axis", [(1, 3)], {"axis": 1, "size": 2}, "axis 1"),
    ("broadcast_axis", [(1, 3)], {"axis": (0, 1), "size": 2}, "size"),
    ("broadcast_like", [(1, 3), (2, 3, 4)], {}, "axes"),
    ("broadcast_like", [(1, 3), (2, 3, 4)], {"lhs_axes": (1,), "rhs_axes": (0,)}, "broadcast"),
    ("broadcast_like", [(1, 3), (2, 3, 4)], {"lhs_axes": (0,)}, "together"),
    ("depth_to_space", [(1, 6, 2, 2)], {"block_size": 2}, "multiple"),
    ("depth_to_space", [(1, 8, 2, 2)], {"block_size": 0}, "block_size"),
    ("depth_to_space", [(8, 2, 2)], {"block_size": 2}, "dimensions"),
    ("space_to_depth", [(1, 2, 3, 2)], {"block_size": 2}, "multiples"),
    ("diag", [(2, 3)], {"k": 5}, "k = 5"),
    ("diag", [(2, 3)], {"axis1": 1}, "same axis"),
    ("Pad", [(2, 2)], {"mode": "constant", "pad_width": (0, 0, 1, 1)}, "dimensions"),
    ("Pad", [(1, 1, 2, 2)], {"mode": "constant", "pad_width": (0, 0, 1, 0, 1, 1, 1, 1)}, "first two"),
    ("Pad", [(1, 1, 2, 2)], {"mode": "reflect", "pad_width": (0, 0, 0, 0, 1, 1, 2, 2)}, "reflect"),
    ("Pad", [(1, 1, 2, 2)], {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 1, 1, -1)}, "pad_width"),
    ("Pad", [(1, 1, 2, 2)], {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 1, 1)}, "pad_width"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (4, 2)}, "kernel"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (0, 2)}, "kernel"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (2,)}, "kernel"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (None, 2)}, "kernel"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (2, 2), "stride": (1, None)}, "stride"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (2, 2), "stride": (0, 1)}, "stride"),
    ("im2col", [(1, 1, 3, 3)], {"kernel": (2, 2), "pad": (1 << 52, 1 << 52)}, ""),
    ("col2im", [(1, 4, 5)], {"output_size": (3, 3), "kernel": (2, 2)}, "shape"),
    ("col2im", [(1, 2, 4)], {"output_size": (3, 3), "kernel": (2, 2)}, "kernel"),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "names"), REFUSED)
def test_refused(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], names: str) -> None:
    """The message names the operator and what is wrong."""
    with pytest.raises((mx.MXNetError, ValueError, MemoryError)) as caught:
        here(name, [values(s) for s in shapes], attrs)
    assert names in str(caught.value)
