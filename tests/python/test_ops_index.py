"""Movement by index arrays, ordering, and sequences: against NumPy, against MXNet, and what is refused."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mxrs as mx
from mxrs import autograd


def _array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _run(call: str) -> str:
    """A program that gives a call's result and the gradient of x under weights that differ."""
    return textwrap.dedent(
        f"""
        x.attach_grad()
        with mx.autograd.record():
            y = {call}
            out_y = y[0] if isinstance(y, (list, tuple)) else y
            z = (out_y * out_y * 0.5).sum()
        z.backward()
        out_g = x.grad
        """
    )


# ---- MXNet --------------------------------------------------------------------------------------------

CALLS: list[tuple[str, tuple[int, ...], list[Any]]] = [
    ("mx.nd.take(x, i)", (4, 3), [1, 1, 3, -5, 9]),
    ("mx.nd.take(x, i, axis=1)", (2, 4, 3), [[0, 3], [3, 2]]),
    ("mx.nd.take(x, i, axis=-1, mode='wrap')", (2, 5), [-1, 7, 2.9, -3.2]),
    ("mx.nd.take(x, i, mode='raise')", (4,), [0, 3, 3]),
    ("mx.nd.Embedding(i, x, input_dim=5, output_dim=2)", (5, 2), [[1, 1, 4], [-1, 9, 0]]),
    ("mx.nd.pick(x, i)", (3, 4), [0, 3, 9]),
    ("mx.nd.pick(x, i, axis=1, keepdims=True)", (2, 3, 2), [[0, 1], [2, 2]]),
    ("mx.nd.pick(x, i, axis=0, mode='wrap')", (3, 2), [[-1, 4]]),
    ("mx.nd.pick(x, i)", (5,), [2]),
    ("mx.nd.gather_nd(x, i)", (3, 4), [[0, 0, 2, 0], [1, 3, 0, 1]]),
    ("mx.nd.gather_nd(x, i)", (3, 4), [[[2, 0], [2, 1]]]),
    ("mx.nd.scatter_nd(x, i, shape=(5, 3))", (2, 3), [[4, 0]]),
    ("mx.nd.scatter_nd(x, i, shape=(2, 2))", (3,), [[0, 0, 1], [0, 1, 1]]),
    ("mx.nd.where(i, x, x * 2)", (2, 3), [[1, 0, -1], [0, 0.5, 0]]),
    ("mx.nd.where(i, x * 3, x * 2)", (3, 2), [1, 0, 2]),
    ("mx.nd.contrib.boolean_mask(x, i)", (4, 3), [0, 1, 0, 2]),
    ("mx.nd.contrib.index_copy(x, i, x[1:3] * 2)", (4, 3), [3, 0]),
    ("mx.nd.SequenceMask(x, i, use_sequence_length=True, value=2)", (3, 2, 2), [1, 3]),
    ("mx.nd.SequenceMask(x, i, use_sequence_length=True, axis=1)", (2, 4), [0, 9]),
    ("mx.nd.SequenceLast(x, i, use_sequence_length=True)", (3, 2, 2), [1, 3]),
    ("mx.nd.SequenceLast(x, i, use_sequence_length=True, axis=1)", (2, 3), [2, 3]),
    ("mx.nd.SequenceReverse(x, i, use_sequence_length=True)", (4, 2, 3), [2, 4]),
    ("mx.nd.SequenceReverse(x)", (3, 2), [0]),
    ("mx.nd.sort(x, axis=-1)", (3, 5), [0]),
    ("mx.nd.sort(x, axis=0, is_ascend=False)", (4, 2, 3), [0]),
    ("mx.nd.sort(x, axis=None)", (3, 2), [0]),
    ("mx.nd.topk(x, k=2, ret_typ='value')", (3, 5), [0]),
    ("mx.nd.topk(x, k=2, axis=0, ret_typ='both', is_ascend=True)", (4, 3), [0]),
    ("mx.nd.topk(x, k=3, axis=None, ret_typ='value')", (3, 2), [0]),
]


@pytest.mark.parametrize(("call", "shape", "index"), CALLS)
def test_values_and_gradients(oracle: Any, call: str, shape: tuple[int, ...], index: list[Any]) -> None:
    oracle.check(_run(call), rtol=1e-6, x=_array(*shape), i=np.array(index, "float32"))
    oracle.compared.add(call.split("(")[0].removeprefix("mx.nd.").replace("contrib.", "_contrib_"))


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int8", "int32", "int64"])
def test_types(oracle: Any, dtype: str) -> None:
    code = """
        out_take = mx.nd.take(x, i)
        out_pick = mx.nd.pick(x, j)
        out_gather = mx.nd.gather_nd(x, i.reshape((1, -1)))
        out_where = mx.nd.where(i, x, x + 1)
        out_hot = mx.nd.one_hot(i, 3, on_value=2, off_value=1, dtype=np_x.dtype.name)
        out_sort = mx.nd.sort(x, axis=0)
        out_topk = mx.nd.topk(x, k=2, ret_typ='value')
        out_mask = mx.nd.topk(x, k=2, ret_typ='mask')
        out_argsort = mx.nd.argsort(x)
        out_seq = mx.nd.SequenceMask(x, j, use_sequence_length=True, axis=1, value=3)
    """
    rng = np.random.default_rng(4)
    x = np.stack([rng.permutation(20)[:4] for _ in range(3)]).astype(dtype)
    oracle.check(textwrap.dedent(code), x=x, i=np.array([2, 0, 1], "int32"), j=np.array([3, 0, 2], "int64"))


def test_last_step_without_lengths() -> None:
    """MXNet's own gradient of this dies."""
    x = mx.nd.array(_array(3, 2))
    x.attach_grad()
    with autograd.record():
        y = mx.nd.SequenceLast(x)
    y.backward(mx.nd.array([2.0, 5.0]))
    np.testing.assert_array_equal(y.asnumpy(), x.asnumpy()[-1])
    np.testing.assert_array_equal(x.grad.asnumpy(), [[0, 0], [0, 0], [2, 5]])


@pytest.mark.parametrize("ret", ["indices", "mask", "both", "value"])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("k", [-1, 0, 1, 3])
def test_topk(oracle: Any, ret: str, axis: int | None, k: int) -> None:
    code = f"""
        y = mx.nd.topk(x, k={k}, axis={axis}, ret_typ='{ret}', dtype='int32')
        out_n = len(y) if isinstance(y, list) else 0
        out_0, out_1 = (y[0], y[1]) if isinstance(y, list) else (y, y)
    """
    oracle.check(textwrap.dedent(code), x=_array(4, 5))


def test_flat_indices(oracle: Any) -> None:
    code = """
        out_r = mx.nd.ravel_multi_index(c, shape=(3, 4))
        out_s = mx.nd.ravel_multi_index(c, shape=(-1, 4))
        out_u = mx.nd.unravel_index(f, shape=(3, 4))
        out_v = mx.nd.unravel_index(f, shape=(-1, 2, 2))
    """
    for dtype in ("float32", "int64", "int32"):
        flat = np.array([6, 11, 100, 0], dtype)
        oracle.check(textwrap.dedent(code), c=np.array([[1, 9], [2, 0]], dtype), f=flat)
    for name in ("_ravel_multi_index", "_unravel_index"):
        oracle.compared.add(name)


def test_old_names(oracle: Any) -> None:
    code = """
        out_f = mx.nd.fill_element_0index(x, v, i)
        out_c = mx.nd.choose_element_0index(x, i)
        out_h = mx.nd.onehot_encode(i, mx.nd.zeros((2, 3)))
        out_b = mx.nd.batch_take(x, i.astype('int32'))
        s = mx.nd.zeros((4, 3))
        mx.nd._internal._scatter_set_nd(s, x, j, shape=(4, 3), out=s)
        out_s = s
    """
    x = _array(2, 3)
    index = {"i": np.array([2, 0], "float32"), "j": np.array([[3, 1]], "float32")}
    oracle.check(textwrap.dedent(code), x=x, v=np.array([7, 8], "float32"), **index)


# ---- NumPy --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_take_is_numpys(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    index = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=1, max_size=6)))
    x = _array(*shape)
    for mode in ("clip", "wrap"):
        found = mx.nd.take(mx.nd.array(x), mx.nd.array(index), axis=axis, mode=mode).asnumpy()
        np.testing.assert_array_equal(found, np.take(x, index, axis=axis, mode=mode))


@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.0, 3.5, np.inf, -np.inf]), min_size=1, max_size=40))
def test_sorting_is_stable(values: list[float]) -> None:
    x = np.array(values, "float32")
    places = mx.nd.argsort(mx.nd.array(x), dtype="int64").asnumpy()
    np.testing.assert_array_equal(places, np.argsort(x, kind="stable"))


def test_repeated_rows_add_up_in_float16() -> None:
    """A sum of many small terms does not stop growing where float16's spacing exceeds them."""
    weight = mx.nd.zeros((2, 1), dtype="float16")
    weight.attach_grad()
    with autograd.record():
        y = mx.nd.Embedding(mx.nd.ones((4096,)), weight, input_dim=2, output_dim=1, dtype="float16")
    y.backward()
    np.testing.assert_array_equal(weight.grad.asnumpy(), [[0], [4096]])


def test_nothing_to_take() -> None:
    x = mx.nd.ones((3, 2))
    assert mx.nd.take(x, mx.nd.zeros((0,))).shape == (0, 2)
    assert mx.nd.contrib.boolean_mask(x, mx.nd.zeros((3,))).shape == (0, 2)
    assert mx.nd.one_hot(mx.nd.zeros((2,)), 0).shape == (2, 0)
    assert mx.nd.sort(mx.nd.zeros((2, 0))).shape == (2, 0)
    assert mx.nd.gather_nd(x, mx.nd.zeros((1, 0))).shape == (0, 2)


def _nd(values: Any) -> Any:
    return mx.nd.array(np.array(values, "float32"))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: mx.nd.take(_nd([1, 2]), _nd([2]), mode="raise"), "take.*index 2.*axis 0 with size 2"),
        (lambda: mx.nd.take(_nd([1, 2]), _nd([0]), axis=1), "take.*axis 1"),
        (lambda: mx.nd.take(mx.nd.zeros((0, 2)), _nd([0])), "take.*size 0"),
        (lambda: mx.nd.take(_nd([1, 2]), _nd([0]), mode="near"), "take.*mode.*near"),
        (lambda: mx.nd.pick(mx.nd.ones((2, 3)), _nd([0, 1, 2])), "pick.*index has shape"),
        (lambda: mx.nd.pick(mx.nd.ones((2, 3)), _nd([0, 1]), axis=None), "pick.*axis"),
        (lambda: mx.nd.gather_nd(mx.nd.ones((2, 3)), _nd([[0], [3]])), "index 3.*axis 1 with size 3"),
        (lambda: mx.nd.gather_nd(mx.nd.ones((2, 3)), _nd([[0], [1], [0]])), "gather_nd.*3 coordinates"),
        (lambda: mx.nd.gather_nd(mx.nd.ones((2, 3)), _nd([0, 1])), "gather_nd.*two dimensions"),
        (lambda: mx.nd.scatter_nd(_nd([1, 2]), _nd([[0, 9]]), shape=(3,)), "index 9"),
        (lambda: mx.nd.scatter_nd(_nd([1, 2]), _nd([[0, 1]]), shape=(-3,)), "scatter_nd.*shape"),
        (lambda: mx.nd.one_hot(_nd([1]), -1), "one_hot.*depth"),
        (lambda: mx.nd.where(_nd([1, 0, 1]), mx.nd.ones((2, 2)), mx.nd.ones((2, 2))), "where.*condition"),
        (
            lambda: mx.nd.Embedding(_nd([0]), mx.nd.ones((3, 2)), input_dim=4, output_dim=2),
            "Embedding.*weight",
        ),
        (lambda: mx.nd.contrib.index_copy(mx.nd.ones((2, 1)), _nd([2]), mx.nd.ones((1, 1))), "index 2"),
        (lambda: mx.nd.contrib.boolean_mask(mx.nd.ones((2, 1)), _nd([1])), "boolean_mask.*one element"),
        (lambda: mx.nd.topk(_nd([3, 1, 2]), k=5), "topk.*k = 5"),
        (lambda: mx.nd.sort(_nd([3, 1, 2]), axis=1), "sort.*axis 1"),
        (lambda: mx.nd.unravel_index(_nd([3]), shape=(2, 0)), "size 0"),
        (lambda: mx.nd.SequenceMask(_nd([1, 2])), "SequenceMask.*two dimensions"),
        (lambda: mx.nd.SequenceLast(mx.nd.ones((2, 1)), _nd([3]), use_sequence_length=True), "3.*1 to 2"),
        (lambda: mx.nd.SequenceReverse(mx.nd.ones((2, 1)), axis=1), "SequenceReverse.*axis"),
        (
            lambda: mx.nd.SequenceMask(mx.nd.ones((2, 3)), _nd([1]), use_sequence_length=True),
            "sequence_length",
        ),
    ],
)
def test_refusals_say_why(call: Any, text: str) -> None:
    with pytest.raises((mx.MXNetError, IndexError, ValueError), match=text):
        call().asnumpy()
