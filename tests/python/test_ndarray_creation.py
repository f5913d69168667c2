"""Making arrays, their types and contexts, printing, numbers, and the functions that combine arrays and
numbers.
"""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd

DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]


def agree(ours, theirs, dtype=None):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours.asnumpy(), theirs)
    if dtype is not None:
        assert ours.dtype is np.dtype(dtype).type


@pytest.mark.parametrize(
    "source, shape",
    [
        ([1, 2, 3], (3,)),
        ((1, 2), (2,)),
        (range(3), (3,)),
        ([[1, 2], [3, 4]], (2, 2)),
        (3, ()),
        (True, ()),
        ([], (0,)),
        ([[]], (1, 0)),
        (np.arange(3), (3,)),
        (np.zeros((2, 3)), (2, 3)),
        (np.array([True, False]), (2,)),
        (np.zeros(2, "uint16"), (2,)),
        (np.arange(6.0).reshape(2, 3).T, (3, 2)),
        (np.arange(10)[::3], (4,)),
        (np.arange(3, dtype=">f4"), (3,)),
    ],
)
def test_array_of_anything_is_float32(source, shape):
    x = nd.array(source)
    assert x.shape == shape and x.dtype is np.float32
    agree(x, np.asarray(source, "float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_array_takes_a_dtype(dtype):
    kind = np.dtype(dtype).type
    for given in (dtype, kind, np.dtype(dtype)):
        agree(nd.array([0, 1, 2], dtype=given), np.array([0, 1, 2], dtype), dtype)
    assert nd.zeros((2,), dtype=dtype).dtype is kind
    assert nd.array(nd.ones((2,), dtype=dtype)).dtype is kind


def test_dtype_given_as_python_type():
    assert nd.array([1], dtype=int).dtype is np.int64
    assert nd.array([1], dtype=float).dtype is np.float64


@pytest.mark.parametrize("source", [[[1, 2], [3]], "abc", [1 + 2j], {"a": 1}])
def test_array_refuses_what_is_no_array(source):
    with pytest.raises(TypeError, match="source_array must be array like object"):
        nd.array(source)


def test_unknown_dtype_is_named():
    with pytest.raises(TypeError, match="uint16 is not supported.*float32"):
        nd.array([1], dtype="uint16")
    with pytest.raises(TypeError, match="bfloat16"):
        nd.zeros((1,), dtype="bfloat16")


def test_numbers_outside_the_type_wrap():
    agree(nd.array([300, -1], dtype="uint8"), [44, 255], "uint8")
    x = nd.zeros((2,), dtype="int8")
    x[:] = [200, 1]
    agree(x, [-56, 1])


def test_shapes_are_whole_numbers():
    assert nd.zeros((2.0, np.int64(3))).shape == (2, 3)
    for call in (lambda: nd.zeros((2.5,)), lambda: nd.zeros((6,)).reshape((1.5, 4)), lambda: nd.ones(("a",))):
        with pytest.raises(TypeError, match="whole numbers"):
            call()


def test_array_of_arrays():
    agree(nd.array([nd.array([1, 2]), nd.array([3, 4])]), [[1, 2], [3, 4]])


def test_array_copies():
    source = np.ones(3, "float32")
    x = nd.array(source)
    y = nd.array(x)
    source[:] = 2
    x[:] = 3
    agree(x, [3, 3, 3])
    agree(y, [1, 1, 1])


def test_constants():
    agree(nd.zeros((2, 3)), np.zeros((2, 3)), "float32")
    agree(nd.zeros(3), np.zeros(3))
    agree(nd.ones((2,), dtype="int32"), [1, 1], "int32")
    agree(nd.full((2,), 7), [7, 7], "float32")
    agree(nd.full((2, 2), [1, 2]), [[1, 2], [1, 2]])
    agree(nd.full((2,), np.float32(1.5)), [1.5, 1.5])
    assert nd.empty((2, 0)).shape == (2, 0)
    target = nd.ones((2,))
    assert nd.zeros((2,), out=target) is target and target.asnumpy().sum() == 0
    with pytest.raises(mx.MXNetError, match="not negative"):
        nd.zeros((2, -1))
    with pytest.raises(NotImplementedError, match="csr"):
        nd.zeros((2, 2), stype="csr")


def test_ranges():
    agree(nd.arange(3), [0, 1, 2], "float32")
    agree(nd.arange(0, 2, repeat=2), [0, 0, 1, 1])
    agree(nd.arange(5, 1, -2), [5, 3])
    agree(nd.arange(1, 4, dtype="int32"), [1, 2, 3], "int32")
    assert nd.arange(0, 1, 0.3).shape == (4,)
    agree(nd.linspace(0, 1, 3), [0, 0.5, 1])
    agree(nd.linspace(0, 1, 4, endpoint=False), [0, 0.25, 0.5, 0.75])
    agree(nd.eye(2, 3, k=1), np.eye(2, 3, k=1), "float32")


def test_contexts():
    assert nd.ones((1,)).context == mx.cpu() == nd.ones((1,)).ctx
    x = nd.zeros((2,), ctx=mx.cpu(1))
    assert str(x.context) == "cpu(1)"
    assert nd.array([1], ctx=mx.cpu(2)).context == mx.cpu(2)
    assert nd.full((1,), 3, ctx=mx.cpu(1)).context == mx.cpu(1)
    assert mx.current_context() == mx.cpu(0)
    with mx.cpu(3):
        assert nd.ones((1,)).context == mx.cpu(3)
        assert nd.array([1]).context == mx.cpu(3)
    y = x.as_in_context(mx.cpu(0))
    assert y.context == mx.cpu(0) and y.as_in_context(mx.cpu()) is y
    assert x.copyto(mx.cpu(4)).context == mx.cpu(4)
    with pytest.raises(TypeError, match="not a context"):
        nd.zeros((1,), ctx=5)


@pytest.mark.parametrize(
    "x, text",
    [
        (lambda: nd.array([[1, 2]]), "\n[[1. 2.]]\n<NDArray 1x2 @cpu(0)>"),
        (lambda: nd.array([1], dtype="int32"), "\n[1]\n<NDArray 1 @cpu(0)>"),
        (lambda: nd.array([]), "\n[]\n<NDArray 0 @cpu(0)>"),
        (lambda: nd.array(3), "\n3.0\n<NDArray  @cpu(0)>"),
        (lambda: nd.array([True], dtype="bool"), "\n[ True]\n<NDArray 1 @cpu(0)>"),
    ],
)
def test_printing(x, text):
    assert repr(x()) == text == str(x())


def test_one_element_as_a_number():
    x = nd.array([2.7])
    assert isinstance(x.asscalar(), np.float32) and x.asscalar() == np.float32(2.7)
    assert float(x) == np.float32(2.7) and int(x) == 2
    assert bool(x) and not bool(nd.array([0])) and not bool(nd.array([]))
    assert [5, 6, 7][nd.array([1], dtype="int32")] == 6
    assert x.item() == float(np.float32(2.7)) and nd.array([[1, 2]]).tolist() == [[1, 2]]
    with pytest.raises(TypeError, match="only integer arrays"):
        [5, 6][x]
    with pytest.raises(ValueError, match="not a scalar"):
        nd.ones((2,)).asscalar()
    with pytest.raises(TypeError, match="one element"):
        float(nd.ones((2,)))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(nd.ones((2,)))


def test_shape_helpers():
    x = nd.ones((2, 3))
    assert (len(x), x.size, x.ndim, x.stype) == (2, 6, 2, "default")
    assert x.expand_dims(0, inplace=True).shape == (1, 2, 3)
    assert x.expand_dims(-1, inplace=True).shape == (2, 3, 1)
    assert nd.ones((1, 3, 1)).squeeze(inplace=True).shape == (3,)
    assert nd.ones((1, 3, 1)).squeeze(axis=-1, inplace=True).shape == (1, 3)
    assert nd.ones((2, 3, 4)).flatten(inplace=True).shape == (2, 12)
    assert x.tostype("default") is x
    with pytest.raises(ValueError, match="squeeze"):
        x.squeeze(axis=0, inplace=True)
    for call in (lambda: x.tostype("csr"), lambda: x.asscipy(), lambda: x.as_np_ndarray()):
        with pytest.raises(NotImplementedError, match="not built yet"):
            call()


def test_astype():
    x = nd.array([-1.7, 1.9])
    agree(x.astype("int32"), [-1, 1], "int32")
    assert x.astype("float32") is not x
    assert x.astype("float32", copy=False) is x
    agree(nd.array([0, 0.5, -2]).astype("bool"), [False, True, True], "bool")


def test_copies():
    x, y = nd.ones((2,)), nd.zeros((2,))
    assert x.copyto(y) is y and y.asnumpy().sum() == 2
    z = nd.zeros((2,), dtype="int32")
    assert x.copyto(z).dtype is np.int32
    with pytest.warns(RuntimeWarning, match="itself"):
        assert x.copyto(x) is False
    with pytest.raises(mx.MXNetError, match=r"\(3,\)"):
        x.copyto(nd.zeros((3,)))
    with pytest.raises(TypeError, match="does not support type"):
        x.copyto(5)
    c = x.copy()
    c[:] = 5
    agree(x, [1, 1])


@pytest.mark.parametrize(
    "name, a, b, expected",
    [
        ("add", 1, 2, 3),
        ("subtract", 1, 2, -1),
        ("multiply", 2, 3, 6),
        ("divide", 1, 2, 0.5),
        ("true_divide", 1, 2, 0.5),
        ("modulo", 5, 3, 2),
        ("power", 2, 3, 8),
        ("maximum", 2, 3, 3),
        ("minimum", 2, 3, 2),
        ("equal", 1, 1, 1),
        ("not_equal", 1, 1, 0),
        ("greater", 2, 1, 1),
        ("greater_equal", 1, 1, 1),
        ("lesser", 2, 1, 0),
        ("lesser_equal", 1, 1, 1),
        ("logical_and", 1, 0, 0),
        ("logical_or", 1, 0, 1),
        ("logical_xor", 1, 1, 0),
    ],
)
def test_functions_of_arrays_and_numbers(name, a, b, expected):
    f = getattr(nd, name)
    assert f(a, b) == expected and isinstance(f(a, b), (int, float))
    x, y = nd.array([[a], [b]]), nd.array([a, b])
    wanted = [[f(a, a), f(a, b)], [f(b, a), f(b, b)]]
    agree(f(x, y), np.array(wanted, "float32"), "float32")
    agree(f(y, b), np.array([f(a, b), f(b, b)], "float32"))
    agree(f(a, y), np.array([f(a, a), f(a, b)], "float32"))
    agree(f(x, np.array([a, b], "float32")), np.array(wanted, "float32"))
    with pytest.raises(TypeError, match=name):
        f("a", y)


def test_combining():
    a, b = nd.ones((1, 2)), nd.zeros((2, 2))
    agree(nd.concatenate([a, b]), [[1, 1], [0, 0], [0, 0]])
    assert nd.concatenate([a], always_copy=False) is a
    assert nd.moveaxis(nd.zeros((2, 3, 4)), 0, -1).shape == (3, 4, 2)
    assert nd.moveaxis(nd.zeros((2, 3, 4)), (0, 1), (2, 0)).shape == (3, 4, 2)
    with pytest.raises(ValueError, match="out of bounds"):
        nd.moveaxis(a, 2, 0)
    assert [p.shape for p in nd.split_v2(nd.zeros((5,)), (1, 3))] == [(1,), (2,), (2,)]
    assert [p.shape for p in nd.split_v2(nd.zeros((4, 6)), 3, axis=1)] == [(4, 2)] * 3
    with pytest.raises(ValueError, match="equal division"):
        nd.split_v2(nd.zeros((5,)), 2)
    assert nd.ones((3,)).broadcast_to((2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="broadcast"):
        nd.ones((2, 3)).broadcast_to((4, 3))


def test_histogram():
    counts, edges = found = nd.histogram(nd.array([1, 2, 3]), bins=2)
    assert isinstance(found, list)
    agree(counts, [1, 2])
    agree(edges, [1, 2, 3])
    counts, _ = nd.histogram(nd.array([0, 2, 5]), bins=5, range=(0, 5))
    agree(counts, np.histogram([0, 2, 5], 5, (0, 5))[0])


def test_unknown_operators_are_named():
    with pytest.raises(AttributeError, match="no operator relo is built.*relu"):
        nd.relo  # noqa: B018
    with pytest.raises(AttributeError, match="_contrib_nothing"):
        nd.contrib.nothing  # noqa: B018
    assert not hasattr(nd, "__nothing__")
    assert nd.ndarray.array is nd.array and nd.ndarray.NDArray is nd.NDArray
    assert "zeros" in dir(nd) and "relu" in dir(nd.op)


def test_every_operator_is_reachable():
    from mxrs import _core

    for name, function in _core.ops.items():
        if name.startswith("_"):
            assert getattr(nd._internal, name) is function
        else:
            assert getattr(nd.op, name) is function and callable(getattr(nd, name))
        for prefix, module in (("_contrib_", nd.contrib), ("_linalg_", nd.linalg), ("_image_", nd.image)):
            if name.startswith(prefix):
                assert callable(getattr(module, name.removeprefix(prefix)))


def test_control_flow():
    outputs, states = nd.contrib.foreach(lambda d, s: (d + s, d + s), nd.array([1, 2, 3]), nd.array([0]))
    agree(outputs, [[1], [3], [6]])
    agree(states, [6])
    outputs, states = nd.contrib.foreach(
        lambda d, s: ([d[0] + s[0]], [d[1]]), [nd.ones((2, 3)), nd.ones((2, 3))], [nd.zeros((3,))]
    )
    agree(outputs[0], [[1, 1, 1], [2, 2, 2]])
    agree(states[0], [1, 1, 1])
    outputs, last = nd.contrib.while_loop(
        lambda i, s: i < 3,
        lambda i, s: ([i + s], [i + 1, s + i]),
        [nd.array([0]), nd.array([1])],
        max_iterations=5,
    )
    agree(outputs[0], [[1], [2], [4], [0], [0]])
    assert [v.asscalar() for v in last] == [3, 4]
    assert (
        nd.contrib.while_loop(lambda i: i < 0, lambda i: (i, [i]), [nd.array([0])], max_iterations=5)[0] == []
    )
    with pytest.raises(ValueError, match="max_iterations"):
        nd.contrib.while_loop(lambda i: i < 9, lambda i: ([], i + 1), nd.array([0]))
    assert nd.contrib.cond(nd.array([0]), lambda: 1, lambda: 2) == 2
    assert nd.contrib.cond(nd.array([3]), lambda: 1, lambda: 2) == 1


def test_gradient_through_control_flow():
    x = nd.array([1.0, 2.0, 3.0])
    x.attach_grad()
    with mx.autograd.record():
        _, product = nd.contrib.foreach(lambda d, s: ([], d * s), x, nd.array([1.0]))
    product.backward()
    agree(x.grad, [6, 3, 2])


def test_tests_of_elements():
    x = nd.array([1, float("nan"), float("inf"), -float("inf")])
    agree(nd.contrib.isnan(x), [0, 1, 0, 0])
    agree(nd.contrib.isinf(x), [0, 0, 1, 1])
    agree(nd.contrib.isfinite(x), [1, 0, 0, 0])


@pytest.mark.parametrize(
    "name, numbers, arrays",
    [
        ("uniform", (0, 1), ([0, 10], [1, 11])),
        ("normal", (0, 1), ([0, 10], [1, 2])),
        ("exponential", (2.0,), ([1, 2],)),
        ("poisson", (3,), ([1, 2],)),
        ("gamma", (2, 2), ([1, 2], [1, 2])),
        ("negative_binomial", (3, 0.5), ([1, 2], [0.5, 0.5])),
        ("generalized_negative_binomial", (2, 0.5), ([1, 2], [0.5, 0.5])),
    ],
)
def test_samplers(name, numbers, arrays):
    sample = getattr(nd.random, name)
    mx.random.seed(0)
    first = sample(*numbers, shape=(3, 4))
    assert first.shape == (3, 4) and first.dtype is np.float32
    mx.random.seed(0)
    agree(sample(*numbers, shape=(3, 4)), first.asnumpy())
    assert (sample(*numbers, shape=(3, 4)).asnumpy() != first.asnumpy()).any()
    assert sample(*numbers).shape == (1,) and sample(*numbers, shape=5).shape == (5,)
    assert sample(*numbers, shape=2, dtype="float64").dtype is np.float64
    assert sample(*numbers, shape=2, ctx=mx.cpu(1)).context == mx.cpu(1)
    out = nd.zeros((2, 2))
    assert sample(*numbers, out=out) is out
    assert sample(*map(nd.array, arrays), shape=(3,)).shape == (2, 3)
    assert sample(*map(nd.array, arrays)).shape == (2,)
    with pytest.raises(ValueError, match="either NDArray or numbers"):
        sample("a")
    if len(numbers) == 2:
        with pytest.raises(AssertionError, match="same type"):
            sample(numbers[0], nd.array(arrays[1]))


def test_other_samplers():
    x = nd.random.randint(0, 5, shape=(100,))
    assert x.dtype is np.int32 and set(x.asnumpy().tolist()) == {0, 1, 2, 3, 4}
    assert nd.random.randint(0, 5, shape=2, dtype="int64").dtype is np.int64
    assert nd.random.randn(2, 3, loc=1, dtype="float64").shape == (2, 3)
    agree(nd.random.multinomial(nd.array([0, 1, 0]), shape=(3,)), [1, 1, 1], "int32")
    index, log_probability = nd.random.multinomial(nd.array([[0, 1], [1, 0]], dtype="float32"), get_prob=True)
    agree(index, [1, 0])
    agree(log_probability, [0, 0])
    assert sorted(nd.random.shuffle(nd.array([[1, 1], [2, 2], [3, 3]])).asnumpy()[:, 0].tolist()) == [1, 2, 3]
    assert nd.random.uniform_like(nd.zeros((2, 3))).shape == (2, 3)
    for call in (nd.random.randn, nd.random.uniform, nd.random.randint):
        with pytest.raises(TypeError, match="foo"):
            call(2, 3, foo=1)
    assert nd.random.uniform(0, 1, shape=(2,), name="x").shape == (2,)


def test_zipfian_counts():
    samples, expected_true, expected_sampled = nd.contrib.rand_zipfian(nd.array([3]), 4, 5)
    assert samples.shape == (4,) and samples.dtype is np.int64
    assert ((samples.asnumpy() >= 0) & (samples.asnumpy() < 5)).all()
    probability = np.log((np.arange(5) + 2) / (np.arange(5) + 1)) / np.log(6)
    np.testing.assert_allclose(expected_true.asnumpy(), 4 * probability[[3]], rtol=1e-6)
    np.testing.assert_allclose(expected_sampled.asnumpy(), 4 * probability[samples.asnumpy()], rtol=1e-6)


def test_sparse_arrays_say_that_they_are_missing():
    with pytest.raises(NotImplementedError, match="csr_matrix: sparse arrays are not built yet"):
        nd.sparse.csr_matrix(np.eye(2))
    with pytest.raises(NotImplementedError, match="csr"):
        nd.sparse.zeros("csr", (2, 2))
    assert not isinstance(nd.zeros((1,)), nd.sparse.BaseSparseNDArray)
    agree(nd.sparse.zeros("default", (2,)), [0, 0])
