"""hybridize: the graph of a block computes what its imperative calls compute, and says what it cannot trace."""

import warnings

import numpy as np
import pytest

import mxrs as mx
from hybrid_cases import (
    LAYERS,
    NETWORKS,
    assert_close,
    assert_same_states,
    assert_twins_agree,
    head,
    lenet,
    rand,
    resnet,
    twins,
)
from mxrs import autograd, gluon, nd
from mxrs.base import MXNetError
from mxrs.gluon import nn

# --- every layer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[layer for layer, _ in LAYERS])
def test_layer(layer, shape):
    x = rand(*shape)
    assert_twins_agree(*twins(lambda: eval(layer), x), [x])


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[layer for layer, _ in LAYERS])
def test_layer_in_double_precision_and_other_shapes(layer, shape):
    x = rand(*shape, dtype="float64")
    plain, hybrid = twins(lambda: eval(layer), x, dtype="float64")
    assert_twins_agree(plain, hybrid, [x], tol=1e-9, steps=1)
    # Another batch through the same graph; then the first again.
    assert_twins_agree(plain, hybrid, [rand(shape[0] + 1, *shape[1:], dtype="float64")], tol=1e-9, steps=1)
    assert_twins_agree(plain, hybrid, [x], tol=1e-9, steps=1)


HALF = [
    ("nn.BatchNorm()", (2, 3, 4, 4)),
    ("nn.LayerNorm()", (2, 3, 4)),
    ("nn.Dense(4, activation='relu')", (2, 3)),
    ("nn.Conv2D(4, 3, activation='relu')", (2, 3, 5, 5)),
    ("nn.MaxPool2D()", (1, 2, 4, 4)),
    ("nn.GlobalAvgPool2D()", (1, 2, 4, 4)),
    ("nn.PReLU()", (2, 3)),
    ("nn.GELU()", (2, 3)),
]


@pytest.mark.filterwarnings("ignore:Accumulating with float16")
@pytest.mark.parametrize(("layer", "shape"), HALF, ids=[layer for layer, _ in HALF])
def test_layer_in_half_precision(layer, shape):
    x = rand(*shape, dtype="float16")
    plain, hybrid = twins(lambda: eval(layer), x, dtype="float16")
    assert_twins_agree(plain, hybrid, [x], tol=4e-3, steps=2, lr=0.01)


def test_embedding():
    ids = nd.array([[0, 3], [3, 1]])
    plain, hybrid = twins(lambda: nn.Embedding(5, 4), ids)
    for _ in range(2):
        for net in (plain, hybrid):
            with autograd.record():
                out = net(ids)
            out.backward(head(out))
        assert_same_states(plain, hybrid, 1e-6)
    assert_close([hybrid(ids).asnumpy()], [plain(ids).asnumpy()], 1e-6, "output")
    as_int = nd.array([2, 2, 0], dtype="int32")
    assert_close([hybrid(as_int).asnumpy()], [plain(as_int).asnumpy()], 1e-6, "output for int32")


# --- networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    make, inputs = NETWORKS[name]
    assert_twins_agree(*twins(make, *inputs), inputs, tol=1e-4, lr=0.01)


@pytest.mark.parametrize("name", ["resnet", "lenet", "nested", "own", "tied", "reuse"])
def test_network_in_double_precision(name):
    make, inputs = NETWORKS[name]

    def cast(values):
        return [v.astype("float64") if isinstance(v, nd.NDArray) else cast(v) for v in values]

    inputs = cast(inputs)
    assert_twins_agree(*twins(make, *inputs, dtype="float64"), inputs, tol=1e-8, lr=0.01)


def test_results_are_nested_as_written():
    make, inputs = NETWORKS["nested"]
    plain, hybrid = twins(make, *inputs)
    out = hybrid(*inputs)
    assert isinstance(out, (list, tuple)) and len(out) == 3 and len(out[1]) == 2 and len(out[1][1]) == 2
    assert out[1][1][1].shape == (2, 2)
    with pytest.raises(ValueError, match="nested"):
        hybrid(inputs[0], [inputs[1][0], inputs[1][1][0], inputs[1][1][1]])


def test_none_among_the_arguments():
    class Masked(gluon.HybridBlock):
        def hybrid_forward(self, F, x, mask=None, bias=None):
            y = x * 2 if mask is None else x * mask
            return y if bias is None else y + bias

    x, mask, bias = rand(2, 3), rand(2, 3, seed=1), rand(2, 3, seed=2)
    for args in ([x], [x, mask], [x, None, bias], [x, mask, bias]):
        plain, hybrid = Masked(), Masked()
        hybrid.hybridize()
        assert_close([hybrid(*args).asnumpy()], [plain(*args).asnumpy()], 1e-6, str(len(args)))


# --- flags, shapes, types -----------------------------------------------------------------------------------


def test_traced_once_for_all_signatures():
    runs = []

    class Counted(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            runs.append(F)
            return F.relu(x) * 2

    net = Counted()
    net(nd.ones((1, 2)))
    net.hybridize(
        static_alloc=True, static_shape=True, inline_limit=4, forward_bulk_size=3, backward_bulk_size=2
    )
    for shape, dtype in [
        ((1, 2), "float32"),
        ((1, 2), "float64"),
        ((3, 2), "float32"),
        ((4, 2, 1), "float16"),
        ((1, 2), "float32"),
    ]:
        x = nd.ones(shape, dtype=dtype)
        out = net(x)
        assert out.shape == shape and out.dtype == x.dtype and (out.asnumpy() == 2).all()
        with autograd.record():
            net(x)
    assert runs == [mx.nd, mx.sym]
    net.hybridize()
    net(nd.ones((1, 2)))
    assert runs == [mx.nd, mx.sym, mx.sym]
    net.hybridize(clear=False)
    net(nd.ones((1, 2)))
    assert len(runs) == 3
    net.hybridize(False)
    net(nd.ones((1, 2)))
    assert runs[3:] == [mx.nd]


def test_deferred_parameters_get_their_shapes_from_the_graph():
    net = resnet()
    net.initialize()
    net.hybridize()
    assert net(rand(2, 3, 9, 9)).shape == (2, 3)
    assert net[0].weight.shape == (4, 3, 3, 3) and net[4].weight.shape == (3, 6)
    again = resnet()
    again.initialize()
    again.hybridize()
    with autograd.record():
        again(rand(2, 3, 9, 9)).backward()
    assert again[0].weight.grad().shape == (4, 3, 3, 3)


def test_uninitialized_parameters_are_told():
    net = lenet()
    net.hybridize()
    with pytest.raises(RuntimeError, match="has not been initialized"):
        net(rand(1, 1, 8, 8))
    net.initialize()
    assert net(rand(1, 1, 8, 8)).shape == (1, 4)


def test_initialization_is_that_of_the_imperative_call():
    values = []
    for hybrid in (False, True):
        mx.random.seed(11)
        np.random.seed(11)
        net = lenet()
        net.initialize(mx.init.Xavier())
        if hybrid:
            net.hybridize()
        net(rand(1, 1, 8, 8))
        values.append({k.split("_", 1)[1]: v.data().asnumpy() for k, v in net.collect_params().items()})
    assert sorted(values[0]) == sorted(values[1])
    for name in values[0]:
        np.testing.assert_array_equal(values[0][name], values[1][name], err_msg=name)


def test_a_wrong_shape_later_is_told():
    net = nn.Dense(3)
    net.initialize()
    net.hybridize()
    net(rand(2, 4))
    with pytest.raises(MXNetError, match=r"(?s)dense\d+_fwd.*\b5\b"):
        net(rand(2, 5)).wait_to_read()
    assert net(rand(3, 4)).shape == (3, 3)


def test_a_wrong_type_is_told():
    net = nn.Dense(3)
    net.initialize()
    net.hybridize()
    net(rand(2, 4))
    with pytest.raises(MXNetError, match="float64"):
        net(rand(2, 4, dtype="float64")).wait_to_read()


def test_cast_after_the_first_call():
    net = lenet()
    net.initialize()
    net.hybridize()
    x = rand(2, 1, 8, 8)
    single = net(x).asnumpy()
    net.cast("float64")
    double = net(x.astype("float64"))
    assert double.dtype == np.float64
    np.testing.assert_allclose(double.asnumpy(), single, rtol=1e-4, atol=1e-5)


def test_unused_inputs():
    class First(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.dense = nn.Dense(2)

        def hybrid_forward(self, F, x, y):
            return self.dense(x)

    net = First()
    net.initialize()
    net.hybridize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = net(rand(2, 3), rand(2, 4))
    np.testing.assert_allclose(out.asnumpy(), net.dense(rand(2, 3)).asnumpy(), rtol=1e-5, atol=1e-6)


def test_children_hybridized_alone():
    """The parent stays imperative; only its parts are graphs."""
    x = rand(4, 2, 7, 7)
    plain, hybrid = twins(resnet, x)
    hybrid._active = False
    for child in hybrid:
        child.hybridize()
    assert_twins_agree(plain, hybrid, [x], tol=1e-4, lr=0.01)

    class Outer(gluon.Block):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.inner = lenet()

        def forward(self, x):
            out = self.inner(x)
            return out * 2 if out.asnumpy().size else out

    net = Outer()
    net.initialize()
    net.hybridize()
    assert net.inner._active
    y = net(rand(2, 1, 8, 8))
    np.testing.assert_allclose(y.asnumpy(), net.inner(rand(2, 1, 8, 8)).asnumpy() * 2, rtol=1e-5)


def test_changes_of_the_structure_are_traced_anew():
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, x: x + 1))
    net.hybridize()
    assert net(nd.zeros((2,))).asnumpy().tolist() == [1, 1]
    net.add(nn.HybridLambda(lambda F, x: x * 5))
    assert net(nd.zeros((2,))).asnumpy().tolist() == [5, 5]


def test_several_contexts():
    net = lenet()
    ctxs = [mx.cpu(0), mx.cpu(1)]
    net.initialize(ctx=ctxs)
    net.hybridize()
    x = rand(4, 1, 8, 8)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    parts = gluon.utils.split_and_load(x, ctxs)
    for _ in range(2):
        with autograd.record():
            outs = [net(part) for part in parts]
        assert [o.context for o in outs] == ctxs
        autograd.backward(outs)
        trainer.step(4)
    one, other = net[4].weight.data(ctxs[0]).asnumpy(), net[4].weight.data(ctxs[1]).asnumpy()
    np.testing.assert_array_equal(one, other)
    assert (net[4].weight.grad(ctxs[0]).asnumpy() != net[4].weight.grad(ctxs[1]).asnumpy()).any()


# --- what cannot be traced ----------------------------------------------------------------------------------


def untraceable(body):
    class Bad(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return body(F, x)

    net = Bad()
    net.hybridize()
    with pytest.raises(Exception) as caught:
        net(nd.ones((2, 3)))
    return caught.value, "\n".join(getattr(caught.value, "__notes__", [])) + str(caught.value)


def values(F, x):
    return x * float(x.asnumpy().sum())


def branches(F, x):
    if x.sum() > 0:
        return x
    return -x


def shapes(F, x):
    return x.reshape((x.shape[0], -1))


def arrays(F, x):
    return x + nd.ones((2, 3))


def imperative(F, x):
    return nd.relu(x)


def assigns(F, x):
    x[0] = 1
    return x


@pytest.mark.parametrize("body", [values, branches, shapes, arrays, imperative, assigns])
def test_errors_name_the_line_that_prevents_tracing(body):
    error, text = untraceable(body)
    assert "Bad" in text and "could not be traced" in text
    assert "test_hybridize.py" in text
    first = {
        "values": "asnumpy",
        "branches": "if x.sum() > 0",
        "shapes": "x.shape[0]",
        "arrays": "nd.ones((2, 3))",
    }
    first |= {"imperative": "nd.relu(x)", "assigns": "x[0] = 1"}
    assert first[body.__name__] in text, text


def test_a_child_that_cannot_be_traced_is_named():
    class Child(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return x * x.shape[1]

    net = nn.HybridSequential()
    net.add(nn.Dense(2), Child())
    net.initialize()
    net.hybridize()
    with pytest.raises(Exception) as caught:
        net(nd.ones((2, 3)))
    text = "\n".join([str(caught.value), *caught.value.__notes__])
    assert "return x * x.shape[1]" in text
    # Imperatively it works.
    net.hybridize(False)
    assert net(nd.ones((2, 3))).shape == (2, 2)


def test_no_array_at_all():
    net = nn.Dense(2)
    net.initialize()
    net.hybridize()
    with pytest.raises(ValueError, match="there must be one NDArray or one Symbol"):
        net(np.ones((1, 2)))


# --- hooks --------------------------------------------------------------------------------------------------


def test_op_hooks_see_every_node():
    net = lenet()
    net.initialize()
    x = rand(2, 1, 8, 8)
    seen, everything = {}, []
    net.hybridize()
    net.register_op_hook(lambda name, kind, array: seen.__setitem__(name.decode(), array.asnumpy()))
    net.register_op_hook(lambda name, kind, array: everything.append(name.decode()), monitor_all=True)
    out = net(x)
    outs = net(mx.sym.var("data")).get_internals().list_outputs()
    variables = [n for n in outs if n not in seen]
    assert sorted(variables) == sorted(["data", *net.collect_params()])
    np.testing.assert_allclose(list(seen.values())[-1], out.asnumpy(), rtol=1e-6)
    assert set(everything) >= set(seen) and not set(everything) & set(variables)
    net.hybridize(False)
    np.testing.assert_allclose(net(x).asnumpy(), out.asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("everything", [False, True])
def test_op_hooks_are_told_what_mxnet_tells(oracle, everything):
    """The statistics of a BatchNorm are told while recording; not yet the mask of a Dropout, and nothing of backward."""
    oracle.check(
        """
nn = mx.gluon.nn
net = nn.HybridSequential(prefix="g_")
with net.name_scope():
    net.add(nn.Dense(3), nn.BatchNorm(), nn.LayerNorm(), nn.Dropout(0.5), nn.Dense(2))
net.initialize()
net(mx.nd.ones((2, 3)))
net.hybridize()
told = []
net.register_op_hook(lambda *found: told.append(b" ".join(found[:2]).decode()), monitor_all=bool(everything))
net(mx.nd.ones((2, 3))).wait_to_read()
with mx.autograd.record():
    net(mx.nd.ones((2, 3))).wait_to_read()
mx.nd.waitall()
out_told = [name for name in told if "_mask" not in name]
""",
        everything=np.array(everything),
    )


def test_hooks_of_blocks():
    net = nn.Dense(2, in_units=3)
    net.initialize()
    calls = []
    net.register_forward_hook(lambda block, inputs, output: calls.append(("after", output.shape)))
    net.register_forward_pre_hook(lambda block, inputs: calls.append(("before", inputs[0].shape)))
    with pytest.warns(UserWarning, match="forward hook"):
        net.hybridize()
    net(nd.ones((4, 3)))
    assert calls == [("before", (4, 3)), ("after", (4, 2))]


def test_optimize_for():
    net = lenet()
    net.initialize()
    x = rand(2, 1, 8, 8)
    expected = net(x).asnumpy()
    net.optimize_for(x, backend="MKLDNN", some_option=1)
    assert net._active
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
    fresh = nn.HybridSequential()
    fresh.add(nn.Dense(3))
    fresh.initialize()
    fresh.optimize_for(rand(2, 4))
    assert fresh[0].weight.shape == (3, 4)


@pytest.mark.parametrize("nested", [False, True])
def test_operators_of_several_outputs_are_returned_whole(nested):
    """A block may return an operator of several outputs as it is, also inside a list: lists come back."""

    class Split(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            both = F.topk(x, k=2, ret_typ="both")
            return [both, x * 2] if nested else both

    x = nd.array([[3, 1, 2, 0], [5, 6, 7, 8]])
    plain, graph = Split(), Split()
    graph.hybridize()
    wanted, found = plain(x), graph(x)
    if nested:
        np.testing.assert_array_equal(found[1].asnumpy(), wanted[1].asnumpy())
        wanted, found = wanted[0], found[0]
    assert isinstance(found, list) and len(found) == 2
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(b.asnumpy(), a.asnumpy())
