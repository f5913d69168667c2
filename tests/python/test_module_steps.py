"""`Module` step by step: names, order of calls, parameters, optimizers, shapes, states, placement."""

import collections

import numpy as np
import pytest

import mxrs as mx
from module_cases import Batch, batch, blobs, bound, network
from mxrs import nd
from mxrs.base import MXNetError
from mxrs.module.base_module import _as_list, _check_input_names, _parse_data_desc

# ---- names, shapes, order of calls ---------------------------------------------------------------------------


def test_names_and_shapes():
    module = bound()
    assert (module.data_names, module.label_names, module.output_names) == (
        ["data"],
        ["softmax_label"],
        ["softmax_output"],
    )
    assert module.data_shapes == [("data", (4, 5))] and module.label_shapes == [("softmax_label", (4,))]
    assert isinstance(module.data_shapes[0], mx.io.DataDesc)
    assert module.output_shapes == [("softmax_output", (4, 3))]
    assert module._param_names == ["fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"]
    assert module.binded and module.for_training and not module.inputs_need_grad


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"data_names=\['inp'\].*'inp'.*Did you mean one of:\n\tdata"):
        mx.mod.Module(network(), data_names=["inp"])
    for kind in ("fixed_param_names", "state_names"):
        with pytest.raises(ValueError, match=kind):
            mx.mod.Module(network(), **{kind: ["zz"]})
    with pytest.warns(UserWarning, match="label_names"):
        mx.mod.Module(network(), label_names=["zz"])
    assert mx.mod.Module(network(), label_names=None).label_names == []
    with pytest.raises(ValueError, match="data_shapes don't match names"):
        mx.mod.Module(network()).bind([("dat", (4, 5))], [("softmax_label", (4,))])
    with (
        pytest.warns(UserWarning, match="label_shapes don't match"),
        pytest.raises(ValueError, match="'lab'"),
    ):
        mx.mod.Module(network()).bind([("data", (4, 5))], [("lab", (4,))])
    with pytest.raises(AssertionError, match="same batch size"):
        mx.mod.Module(network()).bind([("data", (4, 5))], [("softmax_label", (6,))])
    _check_input_names(network(), ["data"], "data_names", True)
    assert _as_list("a") == ["a"] and _as_list(("a", "b")) == ["a", "b"]
    data, labels = _parse_data_desc(["data"], [], [("data", (1, 2))], None)
    assert data[0].shape == (1, 2) and labels is None


def test_steps_out_of_order_are_refused():
    module = mx.mod.Module(network())
    for call in (
        lambda: module.init_params(),
        lambda: module.forward(batch()),
        lambda: module.get_params(),
        lambda: module.data_shapes,
        lambda: module.set_params({}, {}),
        lambda: module.save_optimizer_states("x"),
        lambda: module.fit(None),
    ):
        with pytest.raises(AssertionError):
            call()
    module.bind([("data", (4, 5))], [("softmax_label", (4,))])
    for call in (lambda: module.forward(batch()), lambda: module.init_optimizer(), lambda: module.update()):
        with pytest.raises(AssertionError, match="init_params"):
            call()
    module.init_params()
    with pytest.raises(AssertionError, match="init_optimizer"):
        module.update()
    with pytest.raises(AssertionError, match="inputs_need_grad"):
        module.get_input_grads()
    silent = bound(for_training=False)
    silent.forward(batch())
    with pytest.raises(AssertionError, match="for_training=True"):
        silent.backward()


def test_binding_twice(caplog):
    module = bound(optimizer=True)
    module.bind([("data", (8, 5))], [("softmax_label", (8,))])
    assert "Already bound" in caplog.text and module.data_shapes[0].shape == (4, 5)
    module.init_optimizer()
    assert "optimizer already initialized" in caplog.text
    before = module.get_params()[0]["fc1_weight"].asnumpy().copy()
    module.bind([("data", (8, 5))], [("softmax_label", (8,))], force_rebind=True)
    assert module.data_shapes[0].shape == (8, 5)
    np.testing.assert_array_equal(module.get_params()[0]["fc1_weight"].asnumpy(), before)
    with pytest.warns(UserWarning, match="init_params call ignored"):
        module.init_params()


def test_gradient_compression_is_refused_by_name():
    for make in (
        mx.mod.Module,
        lambda _, **kw: mx.mod.BucketingModule(lambda k: (network(), ["data"], []), 1, **kw),
    ):
        with pytest.raises(NotImplementedError, match="compression_params must be None"):
            make(network(), compression_params={"type": "2bit"})
    with pytest.raises(NotImplementedError, match="sparse_row_id_fn"):
        bound().prepare(batch(), sparse_row_id_fn=lambda b: {})


def test_gradient_requests():
    def requests(**kwargs):
        return bound(**kwargs)._exec_group.grad_req

    assert requests(fixed_param_names=["fc1_weight"])["fc1_weight"] == "null"
    assert requests(inputs_need_grad=True)["data"] == "write"
    assert requests(grad_req={"fc1_bias": "add"}) == {
        "data": "null", "fc1_weight": "write", "fc1_bias": "add", "fc2_weight": "write", "fc2_bias": "write",
        "softmax_label": "null",
    }  # fmt: skip
    assert set(requests(for_training=False).values()) == {"null"}
    with pytest.raises(AssertionError, match="one entry for each of the 6 arguments"):
        requests(grad_req=["write"])
    with pytest.raises(ValueError, match="grad_req must be"):
        requests(grad_req=3)


def test_gradients_add_up():
    module = bound(grad_req="add")
    module.forward_backward(batch())
    once = module._exec_group.grad_arrays[0][0].asnumpy().copy()
    module.forward_backward(batch())
    np.testing.assert_allclose(module._exec_group.grad_arrays[0][0].asnumpy(), 2 * once, rtol=1e-5)


# ---- parameters ----------------------------------------------------------------------------------------------


def test_parameters_in_and_out():
    module = bound()
    arg, aux = module.get_params()
    assert module.get_params()[0] is arg and aux == {}
    given = {name: nd.full(array.shape, 2.0) for name, array in arg.items()}
    module.set_params(given, {})
    assert all((array.asnumpy() == 2).all() for array in module.get_params()[0].values())
    given["fc1_bias"][:] = 9  # what was given is copied
    assert (module.get_params()[0]["fc1_bias"].asnumpy() == 2).all()
    module.set_params({"fc1_bias": nd.full((4,), 5.0)}, {}, allow_missing=True)
    assert (module.get_params()[0]["fc1_bias"].asnumpy() == 5).all()
    assert (module.get_params()[0]["fc2_bias"].asnumpy() == 2).all()


def test_wrong_parameters_are_refused():
    module = bound()
    full = {name: array.copy() for name, array in module.get_params()[0].items()}
    with pytest.raises(RuntimeError, match="fc1_bias is not presented"):
        module.set_params({k: v for k, v in full.items() if k != "fc1_bias"}, {})
    with pytest.raises(MXNetError, match=r"'fc1_bias' has shape \(4,\).*given \(7,\)"):
        module.set_params({**full, "fc1_bias": nd.ones((7,))}, {})
    module.set_params({**full, "stray": nd.ones((1,))}, {})
    with pytest.raises(ValueError, match="stray"):
        module.set_params({"stray": nd.ones((1,))}, {}, allow_missing=True)
    module.set_params({"stray": nd.ones((1,))}, {}, allow_missing=True, allow_extra=True)
    with pytest.raises(TypeError, match="neither an initializer"):
        module.init_params(initializer=None, force_init=True)


def test_initializers_go_by_name_and_attribute():
    seen = []

    class Watch(mx.init.Initializer):
        def _init_weight(self, name, array):
            seen.append(name)
            array[:] = 1

        _init_bias = _init_weight

    weight = mx.sym.Variable("fc2_weight", init=mx.init.Constant(7))
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc1")
    module = mx.mod.Module(mx.sym.FullyConnected(x, weight, num_hidden=2, name="fc2"), label_names=None)
    module.bind([("data", (3, 5))])
    module.init_params(Watch())
    assert seen == ["fc1_bias", "fc1_weight", "fc2_bias"]
    assert (module.get_params()[0]["fc2_weight"].asnumpy() == 7).all()


def test_parameter_files(tmp_path):
    module, other = bound(), bound()
    module.save_params(str(tmp_path / "p"))
    other.load_params(str(tmp_path / "p"))
    for name, array in module.get_params()[0].items():
        np.testing.assert_array_equal(other.get_params()[0][name].asnumpy(), array.asnumpy())
    nd.save(str(tmp_path / "bad"), {"foo:x": nd.ones((1,))})
    with pytest.raises(ValueError, match="Invalid param file .*foo:x"):
        other.load_params(str(tmp_path / "bad"))


def test_shared_parameters_are_one():
    module = bound(optimizer=True)
    shared = bound(rows=2, shared_module=module, init=False)
    assert shared.params_initialized and shared.optimizer_initialized
    module._exec_group.execs[0].arg_dict["fc1_bias"][:] = 5
    assert (shared._exec_group.execs[0].arg_dict["fc1_bias"].asnumpy() == 5).all()
    module.forward(batch(2), is_train=False)
    shared.forward(batch(2), is_train=False)
    np.testing.assert_allclose(
        shared.get_outputs()[0].asnumpy(), module.get_outputs()[0].asnumpy(), rtol=1e-6
    )
    with pytest.raises(MXNetError, match=r"'fc1_weight' has shape \(4, 5\), this network needs \(7, 5\)"):
        bound(symbol=network(hidden=7), shared_module=module, init=False)
    with pytest.raises(AssertionError, match="shared_module"):
        bound(shared_module=mx.mod.Module(network()), init=False)


def test_batches_without_labels():
    """Programs that predict make a batch with `data` alone."""
    Plain = collections.namedtuple("Plain", ["data"])
    module = bound()
    wanted = [module.forward(batch(4), is_train=False), module.get_outputs()[0].asnumpy()][1]
    values = batch(4).data
    module.forward(Plain(values), is_train=False)
    np.testing.assert_array_equal(module.get_outputs()[0].asnumpy(), wanted)
    module.forward(Plain([nd.concat(*values, *values, dim=0)]), is_train=False)
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy()[4:], wanted, rtol=1e-6)
    module.forward([Plain(values)], is_train=False)
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), wanted, rtol=1e-6)
    ((outputs, number, _),) = module.iter_predict([Plain(values)], reset=False)
    assert number == 0 and outputs[0].shape == wanted.shape


def test_shared_parameters_of_no_decided_type():
    """An argument whose type nothing decides is float32, also when executors share."""
    state = mx.sym.Variable("state", shape=(1, 5), init=mx.init.One())
    x = mx.sym.broadcast_add(mx.sym.Variable("data"), mx.sym.Cast(state, dtype="float32"))
    net = mx.sym.FullyConnected(x, num_hidden=2, name="fc")
    module, shared = (mx.mod.Module(net, label_names=None) for _ in range(2))
    module.bind([("data", (4, 5))])
    module.init_params(mx.init.Constant(0.5))
    shared.bind([("data", (2, 5))], shared_module=module)
    shared.forward(mx.io.DataBatch([nd.ones((2, 5))]), is_train=False)
    assert (shared.get_outputs()[0].asnumpy() == 5 * (1 + 1) * 0.5).all()


def test_the_mean_over_contexts_is_returned():
    module = bound(context=[mx.cpu(0), mx.cpu(1)], optimizer=True)
    for value, executor in zip((2, 4), module._exec_group.execs):
        executor.arg_dict["fc1_bias"][:] = value
    module._params_dirty = True
    assert (module.get_params()[0]["fc1_bias"].asnumpy() == 3).all()


# ---- optimizers ----------------------------------------------------------------------------------------------


def test_optimizer_arguments():
    module = bound(rows=8)
    module.init_optimizer(optimizer_params={"wd": 0.1})
    optimizer = module._optimizer
    assert optimizer.rescale_grad == 1 / 8 and optimizer.lr == 0.01
    assert {optimizer.idx2name[i]: optimizer._get_wd(i) for i in optimizer.idx2name} == {
        "fc1_weight": 0.1, "fc1_bias": 0, "fc2_weight": 0.1, "fc2_bias": 0,
    }  # fmt: skip
    own = mx.optimizer.SGD(learning_rate=0.3)
    with pytest.warns(UserWarning, match="rescale_grad is not normalized"):
        module.init_optimizer(optimizer=own, force_init=True)
    assert module._optimizer is own and own.idx2name[1] == "fc1_bias"
    with pytest.raises(AssertionError, match="given int"):
        bound().init_optimizer(optimizer=3)
    with pytest.raises(ValueError, match="Cannot find optimizer"):
        bound().init_optimizer(optimizer="nope")


@pytest.mark.parametrize("store", [None, "device"])
def test_optimizer_states_continue(tmp_path, store):
    """Training that is broken off and taken up again ends where unbroken training does."""
    contexts = [mx.cpu(0), mx.cpu(1)] if store else [mx.cpu()]
    arguments = {"optimizer": "sgd", "optimizer_params": {"learning_rate": 0.1, "momentum": 0.9}}

    def steps(module, count):
        for _ in range(count):
            module.forward_backward(batch())
            module.update()
        return module.get_params()[0]["fc1_weight"].asnumpy()

    module = bound(context=contexts)
    module.init_optimizer(store, **arguments)
    steps(module, 2)
    module.save_checkpoint(str(tmp_path / "m"), 2, save_optimizer_states=True)
    wanted = steps(module, 2)
    again = mx.mod.Module.load(str(tmp_path / "m"), 2, load_optimizer_states=True, context=contexts)
    again.bind([("data", (4, 5))], [("softmax_label", (4,))])
    again.init_optimizer(store, **arguments)
    np.testing.assert_allclose(steps(again, 2), wanted, rtol=1e-5)


# ---- shapes that change --------------------------------------------------------------------------------------


def test_other_batch_sizes_bind_anew():
    module = bound()
    executors = module._exec_group.execs
    module.forward(batch(6))
    assert module.get_outputs()[0].shape == (6, 3) and module.label_shapes[0].shape == (6,)
    module.forward(Batch([nd.ones((3, 5))], None))  # without a label
    assert module.get_outputs()[0].shape == (3, 3) and module.label_shapes[0].shape == (3,)
    one = batch(2)
    one.provide_data = [mx.io.DataDesc("data", (2, 5), layout="NC")]
    module.forward(one)
    assert module.data_shapes[0].layout == "NC"
    module.forward(batch(4))
    assert module._exec_group.execs == executors  # those of the first bind


def test_a_shape_that_changes_parameters_leaves_the_module_as_it_was():
    module = bound()
    with pytest.raises(MXNetError):
        module.forward(Batch([nd.ones((4, 6))], [nd.zeros((4,))]))
    assert module.data_shapes[0].shape == (4, 5)
    module.forward(batch())
    assert module.get_outputs()[0].shape == (4, 3)


def test_reshape_trains_the_same_parameters():
    module = bound(optimizer=True)
    before = module.get_params()[0]["fc2_bias"].asnumpy().copy()
    module.reshape([("data", (8, 5))], [("softmax_label", (8,))])
    module.forward_backward(batch(8))
    module.update()
    assert not np.array_equal(module.get_params()[0]["fc2_bias"].asnumpy(), before)
    weight = module._exec_group.execs[0].arg_dict["fc2_bias"].asnumpy()
    module.reshape([("data", (4, 5))], [("softmax_label", (4,))])
    np.testing.assert_array_equal(module._exec_group.execs[0].arg_dict["fc2_bias"].asnumpy(), weight)


def test_numpy_batches_and_batches_per_context():
    module = bound(context=[mx.cpu(0), mx.cpu(1)])
    one = batch()
    module.forward(Batch([one.data[0].asnumpy()], [one.label[0].asnumpy()]), is_train=False)
    whole = module.get_outputs()[0].asnumpy()
    halves = [Batch([one.data[0][i : i + 2]], [one.label[0][i : i + 2]]) for i in (0, 2)]
    module.forward(halves, is_train=False)
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), whole, rtol=1e-6)
    metric = mx.metric.Accuracy()
    module.update_metric(metric, [half.label for half in halves], pre_sliced=True)
    assert metric.num_inst == 4
    parts = module.get_outputs(merge_multi_context=False)
    assert [part.shape for part in parts[0]] == [(2, 3), (2, 3)]


def test_layouts_decide_what_is_split():
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, flatten=False, name="f")
    net = mx.sym.identity(net, name="out")
    net._set_attr(__layout__="TNC")
    module = mx.mod.Module(net, label_names=None, context=[mx.cpu(0), mx.cpu(1)])
    module.bind([mx.io.DataDesc("data", (6, 4, 5), layout="TNC")], inputs_need_grad=True)
    module.init_params()
    data = nd.array(np.random.RandomState(0).randn(6, 4, 5))
    module.forward(Batch([data], None))
    assert [part.shape for part in module.get_outputs(False)[0]] == [(6, 2, 3), (6, 2, 3)]
    assert module.output_shapes == [("out_output", (6, 4, 3))]
    weight = module.get_params()[0]["f_weight"].asnumpy()
    np.testing.assert_allclose(
        module.get_outputs()[0].asnumpy(), data.asnumpy() @ weight.T, rtol=1e-4, atol=1e-6
    )
    head = np.random.RandomState(1).randn(6, 4, 3).astype(np.float32)
    module.backward([nd.array(head)])
    np.testing.assert_allclose(module.get_input_grads()[0].asnumpy(), head @ weight, rtol=1e-4, atol=1e-6)


def test_states():
    data, hidden = mx.sym.Variable("data"), mx.sym.Variable("h0")
    out = mx.sym.FullyConnected(data, num_hidden=3, name="f") + hidden
    both = mx.sym.Group([mx.sym.SoftmaxOutput(out, name="softmax"), mx.sym.BlockGrad(out)])
    module = mx.mod.Module(both, state_names=["h0"])
    module.bind([("data", (4, 5))], [("softmax_label", (4,))])
    module.init_params()
    assert module._param_names == ["f_weight", "f_bias"]
    module.set_states(value=2)
    assert (module.get_states(merge_multi_context=False)[0][0].asnumpy() == 2).all()
    module.forward(batch())
    states = [module.get_outputs(merge_multi_context=False)[1]]
    module.set_states(states=states)
    np.testing.assert_array_equal(module.get_states(False)[0][0].asnumpy(), states[0][0].asnumpy())
    with pytest.raises(AssertionError, match="Only one"):
        module.set_states(states=states, value=1)
    with pytest.raises(AssertionError, match="At least one"):
        module.set_states()
    with pytest.raises(AssertionError, match="not supported"):
        module.get_states()


# ---- placement -----------------------------------------------------------------------------------------------


def two_groups():
    with mx.AttrScope(ctx_group="a"):
        lower = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="f1")
    with mx.AttrScope(ctx_group="b"):
        return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(lower, num_hidden=3, name="f2"), name="softmax")


@pytest.mark.parametrize("groups", [
    {"a": mx.cpu(0), "b": mx.cpu(1)},
    {"a": [mx.cpu(0)], "b": [mx.cpu(1)]},
    [{"a": mx.cpu(0), "b": mx.cpu(1)}],
])  # fmt: skip
def test_groups_are_placed_and_train(groups):
    module = mx.mod.Module(two_groups(), group2ctxs=groups)
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30)
    module.fit(data, num_epoch=20, optimizer_params={"learning_rate": 0.2}, initializer=mx.init.Xavier())
    places = {name: array.context for name, array in module._exec_group.execs[0].arg_dict.items()}
    assert places["f1_weight"] == mx.cpu(0) and places["f2_weight"] == mx.cpu(1)
    assert module.score(data, "acc")[0][1] == 1.0


def test_wrong_groups_are_refused():
    def place(groups, contexts=1):
        module = mx.mod.Module(two_groups(), context=[mx.cpu(i) for i in range(contexts)], group2ctxs=groups)
        module.bind([("data", (4, 5))], [("softmax_label", (4,))])

    with pytest.raises(AssertionError, match="length of the list should be 2"):
        place([{"a": mx.cpu(0), "b": mx.cpu(1)}], contexts=2)
    with pytest.raises(AssertionError, match=r"group2ctxs\['a'\]: length .* given 2"):
        place({"a": [mx.cpu(0), mx.cpu(2)], "b": mx.cpu(1)})
    with pytest.raises(TypeError, match="a context or a list of contexts, given 3"):
        place({"a": 3})
    with pytest.raises(AssertionError, match="given int"):
        place(5)
