"""Blocks: names, registration, files, hooks, hybridize, summary. Parameters are in test_gluon_parameter."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn


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


# --- names ---


NAMES = """
def build(outer, inner):
    net = gluon.nn.HybridSequential(prefix=outer)
    with net.name_scope():
        net.add(gluon.nn.Dense(1, prefix=inner), gluon.nn.Dense(1))
        plain = gluon.nn.HybridSequential(prefix='')
        with plain.name_scope():
            plain.add(gluon.nn.Dense(1))
        net.add(plain)
        deep = gluon.nn.HybridSequential()
        with deep.name_scope():
            deep.add(gluon.nn.Conv2D(1, 1, activation='relu'), gluon.nn.MaxPool2D())
        net.add(deep)
    blocks = []
    net.apply(lambda b: blocks.append((b.prefix, b.name, b.params.prefix)))
    return blocks, list(net.collect_params().keys())

with mx.name.NameManager():
    out_names = [build(outer, inner) for outer in (None, '', 'net_') for inner in (None, 'd_')]
with mx.name.Prefix('zz_'):
    out_prefixed = gluon.nn.Dense(1, prefix=None).name
with mx.name.NameManager():
    a = gluon.nn.HybridSequential()
    with a.name_scope():
        a.add(gluon.nn.Dense(1))
    b = gluon.nn.HybridSequential(params=a.collect_params())
    with b.name_scope():
        b.add(gluon.nn.Dense(1))
    out_shared = b.prefix, b.params.prefix, b[0].prefix, list(b.collect_params().keys())
    out_is_shared = b[0].weight is a[0].weight
"""


def test_names_as_mxnet(oracle):
    oracle.check(NAMES)


def test_automatic_names(fresh_names):
    assert [nn.Dense(1).name, nn.Dense(1).name, nn.HybridSequential().name] == [
        "dense0",
        "dense1",
        "hybridsequential0",
    ]
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Dense(2))
    assert list(net.collect_params()) == [
        "hybridsequential1_dense0_weight",
        "hybridsequential1_dense0_bias",
    ]


def test_children_outside_a_scope_keep_names_of_their_own():
    net = nn.HybridSequential(prefix="net_")
    net.add(nn.Dense(2, prefix="d_"))
    assert list(net.collect_params()) == ["d_weight", "d_bias"]


def test_a_scope_can_be_entered_again_inside_itself(fresh_names):
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        with net.name_scope():
            first = nn.Dense(1)
        second = nn.Dense(1)
    assert (first.name, second.name, nn.Dense(1).name) == ("net_dense0", "net_dense1", "dense0")


# --- registration ---


def test_attributes_register(fresh_names):
    net = Pair()
    assert list(net._children) == ["a", "b"]
    assert list(net._reg_params) == ["w", "c"]
    assert list(net.collect_params()) == ["pair0_w", "pair0_c", "pair0_dense0_weight", "pair0_dense0_bias"]
    assert list(net.collect_params(".*weight|.*w$")) == ["pair0_w", "pair0_dense0_weight"]
    assert repr(net) == "Pair(\n  (a): Dense(None -> 3, linear)\n  (b): Dense(None -> 3, linear)\n)"
    assert net.b.weight is net.a.weight


def test_an_attribute_keeps_its_kind():
    net = Pair()
    with pytest.raises(TypeError, match="Changing attribute type for a"):
        net.a = 3
    with pytest.raises(AssertionError, match="Overriding Parameter attribute w"):
        net.w = gluon.Parameter("q", shape=(1,))
    net.a = nn.Dense(5)
    assert net._children["a"] is net.a


def test_super_init_must_come_first():
    class Hasty(gluon.Block):
        def __init__(self):
            self.layer = nn.Dense(1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Hasty()


def test_blocks_hidden_in_a_list_are_warned_of():
    class Hider(gluon.Block):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Dense(1)]

    with pytest.warns(UserWarning, match='"Hider.layers" is an unregistered container'):
        Hider().collect_params()


def test_a_registered_list_is_not_warned_of():
    class Honest(gluon.Block):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Dense(1)]
            self.register_child(self.layers[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Honest().collect_params().keys()) == 2


# --- files ---


def test_structural_names_in_files(tmp_path, fresh_names):
    path = str(tmp_path / "x.params")
    net = Pair()
    net.initialize()
    net(nd.ones((1, 3)))
    net.save_parameters(path)
    assert list(nd.load(path)) == ["w", "c", "a.weight", "a.bias", "b.weight", "b.bias"]
    net.save_parameters(path, deduplicate=True)
    assert sorted(nd.load(path)) == ["b.bias", "b.weight", "c", "w"]
    twin = Pair()
    twin.load_parameters(path)
    x = nd.array([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(twin(x).asnumpy(), net(x).asnumpy())


def test_full_names_in_files(tmp_path):
    path = str(tmp_path / "x.params")
    net = two_layers(init="ones")
    net.collect_params().save(path)
    assert list(nd.load(path)) == ["n_dense0_weight", "n_dense0_bias", "n_dense1_weight", "n_dense1_bias"]
    net.collect_params().save(path, strip_prefix="n_")
    assert list(nd.load(path)) == ["dense0_weight", "dense0_bias", "dense1_weight", "dense1_bias"]
    other = two_layers(prefix="m_")
    other.load_parameters(path)
    other.collect_params().load(path, restore_prefix="m_")
    np.testing.assert_array_equal(other[1].weight.data().asnumpy(), [[1], [1]])
    with pytest.raises(ValueError, match="'n_dense0_weight' does not start with 'q'"):
        net.collect_params().save(path, strip_prefix="q")
    with pytest.raises(AssertionError, match="restore_prefix is 'zz'"):
        net.collect_params().load(path, restore_prefix="zz")
    with pytest.raises(AssertionError, match="'n_dense0_weight' is missing"):
        net.collect_params().load(path)


def test_checkpoint_names_are_read(tmp_path):
    path = str(tmp_path / "x.params")
    nd.save(path, {"arg:weight": nd.ones((2, 1)), "aux:bias": nd.zeros((2,))})
    net = nn.Dense(2)
    net.load_parameters(path)
    np.testing.assert_array_equal(net(nd.array([[3.0]])).asnumpy(), [[3, 3]])


def test_missing_and_extra(tmp_path):
    path = str(tmp_path / "x.params")
    net = two_layers(init="ones")
    net.save_parameters(path)
    arrays = nd.load(path)
    fewer = {k: v for k, v in arrays.items() if k != "1.bias"}
    nd.save(path, fewer)
    with pytest.raises(AssertionError, match=r"'1.bias' is missing in file '.*x.params'.*allow_missing=True"):
        net.load_parameters(path)
    net.load_parameters(path, allow_missing=True)
    nd.save(path, {**arrays, "7.q": nd.ones((1,))})
    with pytest.raises(
        ValueError, match=r"'7.q' loaded from file '.*x.params' is not present.*ignore_extra=True"
    ):
        net.load_parameters(path)
    net.load_parameters(path, ignore_extra=True)
    nd.save(path, [nd.ones((1,))])
    with pytest.raises(ValueError, match="list of 1 arrays without names"):
        net.load_parameters(path)


def test_wrong_shape_dtype_and_context(tmp_path):
    path = str(tmp_path / "x.params")
    nd.save(path, {"weight": nd.ones((2, 1), dtype="float64"), "bias": nd.ones((2,), dtype="float64")})
    with pytest.raises(AssertionError, match=r"shape incompatible expected \(3, 0\) vs saved \(2, 1\)"):
        nn.Dense(3).load_parameters(path)
    net = nn.Dense(2)
    with pytest.raises(AssertionError, match=r"dtype incompatible expected float32 vs saved .*float64"):
        net.load_parameters(path)
    net = nn.Dense(2)
    net.load_parameters(path, cast_dtype=True)
    assert net.weight.data().dtype == np.float32
    net = nn.Dense(2)
    net.load_parameters(path, cast_dtype=True, dtype_source="saved")
    assert net.weight.data().dtype == np.float64
    net = nn.Dense(2)
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(AssertionError, match=r"Failed to load Parameter .* on \[cpu\(2\)\]"):
        net.load_parameters(path, ctx=mx.cpu(2), cast_dtype=True)
    net.load_parameters(path, cast_dtype=True)
    assert net.weight.list_ctx() == [mx.cpu(0), mx.cpu(1)]


def test_deprecated_names_still_work(tmp_path):
    path = str(tmp_path / "x.params")
    net = two_layers()
    with pytest.warns(UserWarning, match="save_params is deprecated"):
        net.save_params(path)
    with pytest.warns(UserWarning, match="load_params is deprecated"):
        net.load_params(path)


def test_save_and_load_of_a_model(tmp_path):
    prefix = str(tmp_path / "m")
    net = two_layers(init="ones")
    net.hybridize()
    net.save(prefix)
    other = two_layers(prefix="o_")
    other.load(prefix)
    assert other._active and other[0]._active
    np.testing.assert_array_equal(other[0].weight.data().asnumpy(), [[1]])
    with pytest.raises(ValueError, match="has the children"):
        Pair().load(prefix)


def test_files_of_mxnet_are_read_and_ours_by_mxnet(oracle, tmp_path):
    theirs, ours = str(tmp_path / "theirs.params"), str(tmp_path / "ours.params")
    build = """
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Dense(3), gluon.nn.BatchNorm(), gluon.nn.Dense(2))
"""
    x = np.random.RandomState(0).randn(4, 5).astype("float32")
    want = oracle.run(
        f"{build}\nnet.initialize(mx.init.Normal(1))\nout_y = net(x)\nnet.save_parameters({theirs!r})", x=x
    )["out_y"]
    names = {"nd": nd, "gluon": gluon, "mx": mx}
    exec(build, names)
    names["net"].load_parameters(theirs)
    np.testing.assert_allclose(names["net"](nd.array(x)).asnumpy(), want, rtol=1e-5, atol=1e-6)
    names["net"].save_parameters(ours)
    got = oracle.run(f"{build}\nnet.load_parameters({ours!r})\nout_y = net(x)", x=x)["out_y"]
    np.testing.assert_array_equal(got, want)


# --- running ---


def test_hooks_see_inputs_and_outputs():
    net = nn.Dense(1, in_units=1)
    net.initialize()
    seen = []
    before = net.register_forward_pre_hook(lambda block, inputs: seen.append(("in", len(inputs))))
    after = net.register_forward_hook(lambda block, inputs, out: seen.append(("out", out.shape)))
    net(nd.ones((2, 1)))
    assert seen == [("in", 1), ("out", (2, 1))]
    before.detach()
    after.detach()
    after.detach()
    with net.register_forward_hook(lambda block, inputs, out: seen.append("with")):
        net(nd.ones((2, 1)))
    net(nd.ones((2, 1)))
    assert seen[2:] == ["with"]


def test_nested_arguments():
    class Cell(gluon.HybridBlock):
        def hybrid_forward(self, F, x, states):
            h, c = states
            return x + h, [h, (c, None)]

    out, (h, (c, nothing)) = Cell()(nd.ones((2,)), [nd.ones((2,)), nd.zeros((2,))])
    assert out.shape == h.shape == c.shape == (2,) and nothing is None


def test_flatten_and_regroup():
    a, b = nd.ones((1,)), nd.zeros((1,))
    flat, fmt = gluon.block._flatten([a, (b, None)], "input")
    assert flat == [a, b, None] and fmt == [0, [0, -1]]
    nested, rest = gluon.block._regroup(flat, fmt)
    assert nested[0] is a and nested[1][0] is b and nested[1][1] is None and rest == []


def test_arrays_made_inside_are_on_the_inputs_context():
    class Maker(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return F.zeros((1,))

    assert Maker()(nd.ones((1,), ctx=mx.cpu(1))).context == mx.cpu(1)


def test_what_a_hybrid_block_refuses():
    class Blank(gluon.HybridBlock):
        pass

    with pytest.raises(NotImplementedError, match="Blank"):
        Blank()(nd.ones((1,)))
    with pytest.raises(ValueError, match="there must be one NDArray or one Symbol"):
        nn.Flatten()(3)
    with pytest.raises(ValueError, match="there must be one NDArray"):
        nn.Dense(1, in_units=2)(np.ones((1, 2)))
    net = nn.Dense(1, in_units=1)
    net.initialize()
    with pytest.raises(RuntimeError, match=r"not initialized on context cpu\(1\)"):
        net(nd.ones((1, 1), ctx=mx.cpu(1)))


def test_hybridize_keeps_its_flags_and_the_results():
    net = two_layers()
    x = nd.ones((3, 1))
    eager = net(x).asnumpy()
    net.hybridize(static_alloc=True, static_shape=True)
    flags = [("static_alloc", True), ("static_shape", True), ("inline_limit", 2)]
    assert net._flags == net[0]._flags == flags and net._active and net[1]._active
    np.testing.assert_array_equal(net(x).asnumpy(), eager)
    net.hybridize(False)
    assert not net._active and not net[0]._active


def test_export_needs_a_traced_graph():
    net = two_layers()
    with pytest.raises(RuntimeError, match=r"Please first call block\.hybridize"):
        net.export("never")
    net.hybridize()
    with pytest.raises(RuntimeError, match="forward with this block at least once"):
        net.export("never")


def test_copies_are_independent_and_trainable():
    net = two_layers(init="ones")
    x = nd.ones((1, 1))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin[0].weight is not net[0].weight and twin.name == net.name
        with autograd.record():
            y = twin(x)
        y.backward()
        np.testing.assert_array_equal(twin[0].weight.grad().asnumpy(), [[2]])
        twin[0].weight.set_data(nd.zeros((1, 1)))
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), [[1]])


def test_cast_of_a_net():
    net = two_layers()
    net.cast("float64")
    assert net(nd.ones((1, 1), dtype="float64")).dtype == np.float64


SUMMARY = """
--------------------------------------------------------------------------------
        Layer (type)                                Output Shape         Param #
================================================================================
               Input                              (1, 1, 12, 12)               0
        Activation-1                                (1, 6, 8, 8)               0
            Conv2D-2                                (1, 6, 8, 8)             156
         MaxPool2D-3                                (1, 6, 4, 4)               0
           Flatten-4                                     (1, 96)               0
             Dense-5                                     (1, 10)             970
         BatchNorm-6                                     (1, 10)              40
================================================================================
Parameters in forward computation graph, duplicate included
   Total params: 1166
   Trainable params: 1146
   Non-trainable params: 20
Shared params in forward computation graph: 0
Unique parameters in model: 1166
--------------------------------------------------------------------------------
"""


def test_summary(capsys):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 5, activation="relu"), nn.MaxPool2D(), nn.Flatten(), nn.Dense(10), nn.BatchNorm())
    net.initialize()
    net.summary(nd.ones((1, 1, 12, 12)))
    assert capsys.readouterr().out == SUMMARY[1:]
    assert not net[0]._forward_hooks
    net.hybridize()
    with pytest.raises(AssertionError, match="must not be hybridized"):
        net.summary(nd.ones((1, 1, 12, 12)))


def test_summary_counts_shared_parameters_once(capsys):
    net = Pair()
    net.initialize()
    net.summary(nd.ones((1, 3)))
    out = capsys.readouterr().out
    for line in (
        "Total params: 30",
        "Non-trainable params: 3",
        "Shared params in forward computation graph: 12",
        "Unique parameters in model: 18",
    ):
        assert line in out


def test_threads_that_make_the_first_call_together_see_one_value():
    net = nn.Dense(64)
    net.initialize()
    x = nd.ones((1, 8))
    outputs = [None] * 8
    gate = threading.Barrier(len(outputs))

    def call(i):
        gate.wait()
        outputs[i] = net(x).asnumpy()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(outputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out in outputs:
        np.testing.assert_array_equal(out, outputs[0])


def test_sizes_may_be_numpy_integers():
    p = gluon.Parameter("w", shape=(np.int64(2), np.int32(3)))
    assert p.shape == (2, 3) and all(type(dim) is int for dim in p.shape)
    assert gluon.Parameter("v", shape=np.int64(4)).shape == (4,)
