"""NDArray beside NumPy, DLPack and copy: who shares memory, who keeps it alive, and what the signs give."""

from __future__ import annotations

import copy
import gc
import operator

import numpy as np
import pytest

from mxrs import autograd, nd

SIGNS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.mod, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("sign", SIGNS + COMPARISONS)
def test_signs_between_numpy_and_ndarray(sign):
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]], "float32"), np.array([2.0, 1.0], "float32")
    for left, right in ((nd.array(a), b), (a, nd.array(b)), (nd.array(b), a), (b, nd.array(a))):
        result = sign(left, right)
        assert type(result) is nd.NDArray
        plain = [v.asnumpy() if isinstance(v, nd.NDArray) else v for v in (left, right)]
        np.testing.assert_allclose(result.asnumpy(), sign(*plain).astype("float32"), rtol=1e-6)


def test_numpy_scalars():
    x = nd.array([1, 2])
    for scalar in (np.float32(2), np.int64(2), np.float64(2)):
        for result in (scalar * x, x * scalar):
            assert type(result) is nd.NDArray and result.dtype is np.float32
            assert result.asnumpy().tolist() == [2, 4]


def test_numpy_functions_give_numpy_arrays():
    x = nd.array([0.0, 1.0])
    result = np.exp(x)
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, np.exp([0, 1]), rtol=1e-6)
    assert np.add.reduce(x) == 1
    target = np.ones(2, "float32")
    target += x
    assert target.tolist() == [1, 2]
    with pytest.raises(TypeError, match="out is an NDArray"):
        np.add(target, target, out=x)


def test_array_protocol():
    x = nd.array([[1, 2]])
    a = np.asarray(x)
    a[:] = 9
    assert x.asnumpy().tolist() == [[1, 2]]
    assert np.array(x, dtype="int64").dtype == np.int64
    assert np.array([nd.array([1, 2]), nd.array([3, 4])]).tolist() == [[1, 2], [3, 4]]
    shared = x.__array__(copy=False)
    shared[0, 0] = 7
    assert x[0, 0].asscalar() == 7
    with pytest.raises(ValueError, match="without a copy"):
        x.__array__(dtype="int64", copy=False)


def test_shared_views_outlive_the_array():
    view = nd.full((1000,), 3).__array__(copy=False)
    gc.collect()
    others = [nd.zeros((1000,)) for _ in range(50)]
    assert (view == 3).all() and len(others) == 50


def test_asnumpy_is_a_copy():
    x = nd.zeros((1,))
    x.asnumpy()[0] = 1
    assert x.asscalar() == 0


def test_from_numpy_shares_memory():
    a = np.zeros(4, "float32")
    x = nd.from_numpy(a)
    assert not a.flags.writeable
    x[1] = 5
    assert a.tolist() == [0, 5, 0, 0]
    del a
    gc.collect()
    assert x.asnumpy().tolist() == [0, 5, 0, 0]
    b = np.arange(3.0)
    y = nd.from_numpy(b, zero_copy=False)
    assert b.flags.writeable and y.dtype is np.float64
    with pytest.raises(ValueError, match="c-contiguous"):
        nd.from_numpy(np.zeros((2, 3))[:, ::2])
    with pytest.raises(TypeError, match="uint16"):
        nd.from_numpy(np.zeros(2, "uint16"))
    assert nd.from_numpy(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"])
def test_dlpack_with_numpy(dtype):
    x = nd.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    a = np.from_dlpack(x)
    assert a.dtype == dtype and a.tolist() == [[1, 2, 3], [4, 5, 6]]
    x[0, 0] = 9
    x.wait_to_read()
    assert a[0, 0] == 9
    b = np.arange(6, dtype=dtype).reshape(2, 3)
    y = nd.from_dlpack(b)
    y[1] = 0
    assert b[1].tolist() == [0, 0, 0] and y.shape == (2, 3)


def test_dlpack_lifetimes():
    from mxrs.ndarray import dlpack

    before = len(dlpack._exported)
    a = np.from_dlpack(nd.full((1000,), 3))
    gc.collect()
    others = [nd.zeros((1000,)) for _ in range(50)]
    assert (a == 3).all() and len(others) == 50 and len(dlpack._exported) == before + 1
    del a
    gc.collect()
    assert len(dlpack._exported) == before
    nd.zeros((2,)).to_dlpack_for_read()
    gc.collect()
    assert len(dlpack._exported) == before
    y = nd.from_dlpack(np.full(1000, 5.0))
    gc.collect()
    assert (y.asnumpy() == 5).all()
    z = nd.from_dlpack(nd.full((3,), 2))
    gc.collect()
    assert z.asnumpy().tolist() == [2, 2, 2]
    del z
    # The owner of memory is let go at the next call into the core, which may free it on a thread without
    # Python.
    nd.waitall()
    assert len(dlpack._exported) == before


def test_dlpack_capsules_are_taken_once():
    capsule = nd.array([1, 2]).to_dlpack_for_write()
    assert nd.from_dlpack(capsule).asnumpy().tolist() == [1, 2]
    with pytest.raises(ValueError, match="consumed"):
        nd.from_dlpack(capsule)
    with pytest.raises(TypeError, match="capsule is expected"):
        nd.from_dlpack([1, 2])


def test_dlpack_of_odd_memory():
    a = np.arange(12, dtype="int32").reshape(3, 4)
    assert nd.from_dlpack(a.T).asnumpy().tolist() == a.T.tolist()
    assert nd.from_dlpack(a[::-1, ::2]).asnumpy().tolist() == a[::-1, ::2].tolist()
    assert nd.from_dlpack(np.zeros((0, 3))).shape == (0, 3)
    assert np.from_dlpack(nd.zeros((0, 3))).shape == (0, 3)
    assert np.from_dlpack(nd.array(3.0)).shape == ()
    with pytest.raises(TypeError, match="not supported"):
        nd.from_dlpack(np.zeros(2, "uint32"))


def test_dlpack_arguments():
    x = nd.ones((2,))
    assert x.__dlpack_device__() == (1, 0)
    copied = nd.from_dlpack(x.__dlpack__(copy=True, max_version=(1, 0), dl_device=(1, 0)))
    copied[:] = 5
    assert x.asnumpy().tolist() == [1, 1]
    with pytest.raises(BufferError, match="device"):
        x.__dlpack__(dl_device=(2, 0))


def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    x = nd.array([[1, 2], [3, 4]])
    t = torch.from_dlpack(x)
    t += 1
    assert x.asnumpy().tolist() == [[2, 3], [4, 5]]
    y = nd.from_dlpack(torch.arange(3, dtype=torch.float32))
    assert y.asnumpy().tolist() == [0, 1, 2]


def test_copies():
    x = nd.array([[1, 2]])
    for y in (copy.copy(x), copy.deepcopy(x), copy.deepcopy([x])[0]):
        y[:] = 5
        assert x.asnumpy().tolist() == [[1, 2]]


def test_contains_and_iteration():
    x = nd.array([1, 2, 3])
    assert 2 in x and 7 not in x
    a, b, c = x
    assert (a.asscalar(), b.asscalar(), c.asscalar()) == (1, 2, 3)


def test_identity():
    x = nd.array([1, 2])
    assert {x: 1}[x] == 1 and x.handle is x and x.as_nd_ndarray() is x
    assert not hasattr(x, "__dict__")
    with pytest.raises(AttributeError):
        x.anything = 1


def test_gradients():
    x = nd.array([1.0, 2.0])
    assert x.grad is None
    x.attach_grad()
    assert x.grad.asnumpy().tolist() == [0, 0]
    with autograd.record():
        y = x * x * 3
        z = y.detach() * x
    y.backward(nd.array([1.0, 10.0]), retain_graph=True)
    assert x.grad.asnumpy().tolist() == [6, 120]
    y.backward()
    assert x.grad.asnumpy().tolist() == [6, 12]
    z.backward()
    assert x.grad.asnumpy().tolist() == [3, 12]
    x.attach_grad("add")
    for _ in range(2):
        with autograd.record():
            y = x * 2
        y.backward()
    assert x.grad.asnumpy().tolist() == [4, 4]
    with pytest.raises(Exception, match="grad_req"):
        x.attach_grad("foo")
    with pytest.raises(NotImplementedError, match="row_sparse"):
        x.attach_grad(stype="row_sparse")
    with pytest.raises(Exception, match=r"."):
        nd.zeros((2,)).backward()
