"""Parameters: states, shapes, initializers, dictionaries, deferred initialization."""

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn
from mxrs.gluon.parameter import DeferredInitializationError, _Deferred


class Pair(gluon.HybridBlock):
    """Two Dense layers that share their parameters, a parameter and a constant of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.a = nn.Dense(3)
            self.b = nn.Dense(3, params=self.a.params)
            self.w = self.params.get("w", shape=(3,), init="ones")
            self.c = self.params.get_constant("c", [1, 2, 3])

    def hybrid_forward(self, F, x, w, c):
        return self.b(self.a(x)) * w + c


@pytest.fixture
def fresh_names():
    with mx.name.NameManager():
        yield


def two_layers(prefix="n_", **kwargs):
    net = nn.HybridSequential(prefix=prefix)
    with net.name_scope():
        net.add(nn.Dense(1, in_units=1), nn.Dense(2, in_units=1))
    net.initialize(**kwargs)
    return net


# --- parameters ---


def test_parameter_states():
    p = gluon.Parameter("w", shape=(2, 3))
    with pytest.raises(RuntimeError, match="'w' has not been initialized"):
        p.data()
    with pytest.raises(RuntimeError, match="'w' has not been initialized"):
        p.list_ctx()
    with pytest.raises(ValueError, match="Cannot reset context for Parameter 'w'"):
        p.reset_ctx(mx.cpu())
    with pytest.raises(AssertionError, match="'w' has not been initialized"):
        p.set_data(nd.ones((2, 3)))
    p.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    assert p.list_ctx() == [mx.cpu(0), mx.cpu(1)]
    assert [a.context for a in p.list_grad()] == p.list_ctx()
    np.testing.assert_array_equal(p.data(mx.cpu(0)).asnumpy(), p.data(mx.cpu(1)).asnumpy())
    with pytest.raises(RuntimeError, match=r"not initialized on context cpu\(2\).*\[cpu\(0\), cpu\(1\)\]"):
        p.data(mx.cpu(2))
    p.reset_ctx(mx.cpu(1))
    assert p.list_ctx() == [mx.cpu(1)] and p.data().context == mx.cpu(1)


def test_parameter_text():
    assert (
        repr(gluon.Parameter("w", shape=(2, 0)))
        == "Parameter w (shape=(2, 0), dtype=<class 'numpy.float32'>)"
    )
    assert repr(gluon.Parameter("w", shape=3, dtype="int32")) == "Parameter w (shape=(3,), dtype=int32)"
    d = gluon.ParameterDict("p_")
    assert repr(d) == "p_ (\n\n)"
    d.get("a", shape=(2,))
    assert repr(d) == "p_ (\n  Parameter p_a (shape=(2,), dtype=<class 'numpy.float32'>)\n)"


def test_grad_req():
    p = gluon.Parameter("w", shape=(2,))
    p.initialize("ones")
    with pytest.raises(AssertionError, match="must be one of 'write', 'add', or 'null', but got 'foo'"):
        p.grad_req = "foo"
    p.grad_req = "null"
    with pytest.raises(
        RuntimeError, match="Cannot get gradient array for Parameter 'w' because grad_req='null'"
    ):
        p.grad()
    p.grad_req = "add"
    for _ in range(2):
        with autograd.record():
            y = p.data() * 3
        y.backward()
    np.testing.assert_array_equal(p.grad().asnumpy(), [6, 6])
    p.zero_grad()
    np.testing.assert_array_equal(p.grad().asnumpy(), [0, 0])
    assert gluon.Parameter("s", shape=(1,), differentiable=False).grad_req == "null"


def test_shape_completes_and_never_contradicts():
    p = gluon.Parameter("w", shape=(0, 3), allow_deferred_init=True)
    p.shape = (2, 3)
    with pytest.raises(
        AssertionError, match=r"Expected shape \(2, 4\) is incompatible with given shape \(2, 3\)"
    ):
        p.shape = (2, 4)
    with pytest.raises(ValueError, match="Cannot initialize Parameter 'v' because it has invalid shape"):
        gluon.Parameter("v", shape=(0, 2)).initialize()


def test_cast_keeps_value_and_gradient():
    p = gluon.Parameter("w", shape=(2,))
    p.initialize("ones")
    p.cast("float64")
    assert p.data().dtype == np.float64 and p.grad().dtype == np.float64
    with autograd.record():
        y = p.data() * 2
    y.backward()
    np.testing.assert_array_equal(p.grad().asnumpy(), [2, 2])


def test_initializer_precedence():
    net = nn.Dense(2, in_units=1, bias_initializer="ones")
    net.initialize(mx.init.Zero())
    np.testing.assert_array_equal(net.weight.data().asnumpy(), [[0], [0]])
    np.testing.assert_array_equal(net.bias.data().asnumpy(), [1, 1])
    with pytest.warns(UserWarning, match="already initialized, ignoring"):
        net.initialize(mx.init.One())
    np.testing.assert_array_equal(net.weight.data().asnumpy(), [[0], [0]])
    net.initialize(mx.init.One(), force_reinit=True)
    np.testing.assert_array_equal(net.weight.data().asnumpy(), [[1], [1]])


def test_constant():
    c = gluon.Constant("c", nd.array([1, 2], dtype="int32"))
    c.initialize()
    np.testing.assert_array_equal(c.data().asnumpy(), [1, 2])
    assert c.data().dtype == np.int32 and c.grad_req == "null"
    assert repr(c) == "Constant c (shape=(2,), dtype=<class 'numpy.int32'>)"
    with pytest.warns(UserWarning, match="does not support grad_req"):
        c.grad_req = "write"
    assert c.grad_req == "null"


def test_sparse_storage_is_refused_by_name():
    with pytest.raises(
        AssertionError, match="must be one of 'default', 'row_sparse', or 'csr', but got 'foo'"
    ):
        gluon.Parameter("w", shape=(3,), stype="foo")
    with pytest.raises(NotImplementedError, match=r"'w'.*stype='row_sparse'.*mxrs\.ndarray\.sparse"):
        gluon.Parameter("w", shape=(3,), stype="row_sparse")


def test_parameter_dict_get():
    d = gluon.ParameterDict("p_")
    w = d.get("w", shape=(0, 3))
    assert d.get("w", shape=(2, 0)) is w and w.shape == (2, 3)
    assert d.get("w", init="ones").init == "ones"
    with pytest.raises(AssertionError, match=r"attribute 'shape': desired '\(3, 3\)' vs stored '\(2, 3\)'"):
        d.get("w", shape=(3, 3))
    with pytest.raises(AssertionError, match="attribute 'dtype'"):
        d.get("w", dtype="float64")
    with pytest.raises(AssertionError, match="desired 'zeros' vs stored 'ones'"):
        d.get("w", init="zeros")
    with pytest.raises(KeyError, match="No constant named 'p_k'"):
        d.get_constant("k")
    assert d.get_constant("k", [1, 2]) is d.get_constant("k")
    with pytest.raises(AssertionError, match="value doesn't match"):
        d.get_constant("k", [1, 3])
    with pytest.raises(AssertionError, match="is not a constant"):
        d.get_constant("w", [1])
    assert list(d.keys()) == list(d) == ["p_w", "p_k"] and "p_w" in d and len(d) == 2
    other = gluon.ParameterDict("p_")
    other.get("w")
    with pytest.raises(AssertionError, match="different Parameters with the same name 'p_w'"):
        d.update(other)
    d.setattr("grad_req", "null")
    assert w.grad_req == "null"


# --- deferred initialization ---


def test_deferred_until_the_first_batch():
    net = nn.Dense(2, prefix="d_")
    with pytest.raises(RuntimeError, match="'d_weight' has not been initialized"):
        net(nd.ones((1, 3)))
    net.initialize()
    with pytest.raises(DeferredInitializationError, match="'d_weight' has not been initialized yet"):
        net.weight.data()
    with autograd.record():
        y = net(nd.ones((4, 3, 2)))
    y.backward()
    assert y.shape == (4, 2) and net.weight.shape == (2, 6)
    np.testing.assert_array_equal(net.weight.grad().asnumpy(), np.full((2, 6), 4.0))


def test_set_data_while_deferred():
    net = nn.Dense(2)
    net.initialize()
    net.weight.set_data(nd.ones((2, 3)))
    np.testing.assert_array_equal(net(nd.ones((1, 3))).asnumpy(), [[3, 3]])


def test_infer_shape_sets_shapes_only():
    net = nn.Dense(3)
    net.initialize()
    net.infer_shape(nd.ones((2, 5)))
    assert net.weight.shape == (3, 5) and net.weight._data is None


def test_infer_shape_of_a_container():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Flatten(), nn.Dense(2))
    net.initialize()
    net.infer_shape(nd.ones((1, 3, 5, 5)))
    assert (
        net[0].weight.shape == (4, 3, 3, 3) and net[1].gamma.shape == (4,) and net[3].weight.shape == (2, 36)
    )


def test_infer_type_refuses_what_the_operator_would():
    with pytest.raises(mx.base.MXNetError, match="float64"):
        nn.Dense(3, in_units=1).infer_type(nd.ones((1, 1), dtype="float64"))


def test_operators_complete_the_shapes_of_a_users_block():
    class Linear(gluon.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            with self.name_scope():
                self.weight = self.params.get("weight", shape=(3, 0), allow_deferred_init=True)
                self.out = nn.Dense(2)

        def hybrid_forward(self, F, x, weight):
            return self.out(F.FullyConnected(x, weight, no_bias=True, num_hidden=3))

    net = Linear()
    net.initialize()
    with autograd.record():
        y = net(nd.ones((2, 5)))
    y.backward()
    assert y.shape == (2, 2) and net.weight.shape == (3, 5) and net.weight.grad().shape == (3, 5)


def test_a_subclass_that_changes_its_input_is_asked_by_running_it():
    class Half(nn.Dense):
        def hybrid_forward(self, F, x, weight, bias=None):
            return super().hybrid_forward(F, F.slice_axis(x, axis=1, begin=0, end=2), weight, bias)

    net = Half(3)
    net.initialize()
    assert net(nd.ones((2, 5))).shape == (2, 3) and net.weight.shape == (3, 2)


def test_the_placeholder_of_a_deferred_parameter():
    p = gluon.Parameter("w", shape=(0, 3), allow_deferred_init=True)
    p.initialize("ones")
    stand_in = _Deferred(p, mx.cpu())
    with pytest.raises(AttributeError, match=r"'w' has shape \(0, 3\).*'\.reshape'"):
        stand_in.reshape((3, 0))
    with pytest.raises(ValueError, match=r"'w' has shape \(0, 3\), but its use needs \(2, 4\)"):
        stand_in._mxrs_deferred_((2, 4))
    with pytest.raises(ValueError, match="not complete"):
        stand_in._mxrs_deferred_((0, 3))
    value = stand_in._mxrs_deferred_((2, 3))
    np.testing.assert_array_equal(value.asnumpy(), np.ones((2, 3)))
    assert stand_in._mxrs_deferred_((2, 3)) is value is p.data()
