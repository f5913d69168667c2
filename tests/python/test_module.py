"""The modules: each step of training by hand and by `fit`, compared with MXNet from the same weights."""

import logging
import re

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd
from mxrs.base import MXNetError
from mxrs.module import _progress
from mxrs.module._head_loss import HeadLoss, loss_heads
from mxrs.module.base_module import _as_list, _check_input_names, _parse_data_desc
from mxrs.module.executor_group import DataParallelExecutorGroup

Batch = mx.io.DataBatch


def network(hidden=4, classes=3, out="SoftmaxOutput"):
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=hidden, name="fc1")
    x = mx.sym.Activation(x, act_type="relu", name="relu1")
    x = mx.sym.FullyConnected(x, num_hidden=classes, name="fc2")
    return getattr(mx.sym, out)(x, name="softmax")


def bound(rows=4, symbol=None, init=True, optimizer=False, **kwargs):
    binding = {
        k: kwargs.pop(k)
        for k in ("for_training", "inputs_need_grad", "grad_req", "shared_module")
        if k in kwargs
    }
    module = mx.mod.Module(symbol or network(), **kwargs)
    module.bind([("data", (rows, 5))], [("softmax_label", (rows,))], **binding)
    if init:
        module.init_params(mx.init.Xavier())
    if optimizer:
        module.init_optimizer(optimizer_params={"learning_rate": 0.1})
    return module


def batch(rows=4, seed=0):
    random = np.random.RandomState(seed)
    return Batch([nd.array(random.randn(rows, 5))], [nd.array(np.arange(rows) % 3)])


def blobs(rows=90, classes=3):
    random = np.random.RandomState(0)
    labels = np.arange(rows) % classes
    centres = 3 * random.randn(classes, 5)
    return (centres[labels] + 0.3 * random.randn(rows, 5)).astype(np.float32), labels.astype(np.float32)


# ---- against MXNet -------------------------------------------------------------------------------------------

#: A network and weights that do not depend on a random number generator.
MLP = """
x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
x = mx.sym.BatchNorm(x, name="bn", fix_gamma=False)
x = mx.sym.Activation(x, act_type="relu", name="relu1")
net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")
random = np.random.RandomState(5)
X, y = random.randn(60, 5).astype("float32"), (np.arange(60) % 3).astype("float32")
arg_shapes, _, aux_shapes = net.infer_shape(data=(12, 5))
first = {n: nd.array(0.3 * random.randn(*s)) for n, s in zip(net.list_arguments(), arg_shapes)
         if n not in ("data", "softmax_label")}
aux = {n: nd.ones(s) for n, s in zip(net.list_auxiliary_states(), aux_shapes)}
curve = []
def follow(param):
    curve.append([float(v) for _, v in param.eval_metric.get_name_value()])
"""
KEEP = """
out_curve = np.array(curve)
out_arg = {n: module.get_params()[0][n] for n in sorted(first)}
out_aux = {n: module.get_params()[1][n] for n in sorted(aux)}
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize("kvstore", ["'local'", "None", "mx.kv.create('device')"])
def test_fit_follows_mxnet(oracle, optimizer, kvstore):
    found = oracle.check(
        MLP
        + f"""
module = mx.mod.Module(net)
module.fit(mx.io.NDArrayIter(X, y, 12), eval_metric=["ce", "acc"], num_epoch=4, optimizer="{optimizer}",
           kvstore={kvstore}, optimizer_params={{"learning_rate": 0.01, "wd": 1e-3}}, arg_params=first,
           aux_params=aux, batch_end_callback=follow)
"""
        + KEEP
    )
    assert len(found["out_curve"]) == 20


@pytest.mark.parametrize("store", ["'local'", "'device'"])
def test_two_contexts_follow_mxnet(oracle, store):
    oracle.check(
        MLP
        + f"""
module = mx.mod.Module(net, context=[mx.cpu(0), mx.cpu(1)], work_load_list=[1, 2])
module.fit(mx.io.NDArrayIter(X, y, 12), eval_metric=["ce", "acc"], num_epoch=4, kvstore={store},
           optimizer_params=(("learning_rate", 0.05), ("momentum", 0.9)), arg_params=first, aux_params=aux,
           batch_end_callback=follow)
out_slices = [(s.start, s.stop) for s in module._exec_group.slices]
"""
        + KEEP
    )


def test_each_context_follows_its_own_gradients_without_a_store(oracle):
    oracle.check(
        MLP
        + """
module = mx.mod.Module(net, context=[mx.cpu(0), mx.cpu(1)])
module.bind([("data", (12, 5))], [("softmax_label", (12,))])
module.init_params(arg_params=first, aux_params=aux)
module.init_optimizer(kvstore=None, optimizer_params={"learning_rate": 0.1})
module.forward_backward(mx.io.DataBatch([nd.array(X[:12])], [nd.array(y[:12])]))
module.update()
out_parts = [e.arg_dict["fc2_weight"] for e in module._exec_group.execs]
out_index = sorted(module._optimizer.idx2name.items())
"""
        + KEEP
    )


def test_the_steps_by_hand_follow_mxnet(oracle):
    oracle.check(
        MLP
        + """
module = mx.mod.Module(net, fixed_param_names=["fc1_weight"])
module.bind([("data", (12, 5))], [("softmax_label", (12,))], inputs_need_grad=True)
module.init_params(arg_params=first, aux_params=aux)
module.init_optimizer(optimizer="nag", optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
metric = mx.metric.create("ce")
out_grads = []
for step in range(5):
    rows = slice(12 * step, 12 * step + 12)
    one = mx.io.DataBatch([nd.array(X[rows])], [nd.array(y[rows])])
    module.forward(one, is_train=True)
    module.update_metric(metric, one.label)
    module.backward()
    out_grads.append(module.get_input_grads()[0].asnumpy())
    module.update()
    curve.append(metric.get()[1])
out_requests = [module._exec_group.grad_req[n] for n in net.list_arguments()]
out_shapes = module.output_shapes
"""
        + KEEP
    )


def test_scores_and_predictions_are_mxnets(oracle):
    oracle.check(
        MLP
        + """
module = mx.mod.Module(net)
data = mx.io.NDArrayIter(X[:50], y[:50], 12)
module.bind(data.provide_data, data.provide_label, for_training=False)
module.init_params(arg_params=first, aux_params=aux)
out_score = [(n, float(v)) for n, v in module.score(data, ["acc", "ce"])]
out_part = [(n, float(v)) for n, v in module.score(data, "ce", num_batch=2)]
out_merged = module.predict(data)
out_listed = module.predict(data, always_output_list=True)
out_batches = [len(b) for b in module.predict(data, merge_batches=False)]
out_two = module.predict(data, num_batch=2).shape
out_none = module.predict(data, num_batch=0)
out_iter = [(n, outputs[0].shape) for outputs, n, _ in module.iter_predict(data)]
data.reset()
data.next()
out_rest = module.predict(data, reset=False).shape
out_array = module.predict(nd.array(X[:12]))
"""
    )


LSTM = """
def lengths(key):
    data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
    embedded = mx.sym.Embedding(data, input_dim=10, output_dim=4, name="emb")
    state = mx.sym.sum(embedded, axis=1)
    out = mx.sym.FullyConnected(state, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(out, label, name="softmax"), ("data",), ("softmax_label",)
random = np.random.RandomState(1)
weights = {"emb_weight": nd.array(random.randn(10, 4)), "fc_weight": nd.array(random.randn(3, 4)),
           "fc_bias": nd.zeros((3,))}
def words(key, seed):
    random = np.random.RandomState(seed)
    return mx.io.DataBatch([nd.array(random.randint(0, 10, (6, key)))], [nd.array(random.randint(0, 3, 6))],
                           bucket_key=key, provide_data=[("data", (6, key))],
                           provide_label=[("softmax_label", (6,))])
"""


def test_buckets_follow_mxnet(oracle):
    oracle.check(
        LSTM
        + """
module = mx.mod.BucketingModule(lengths, default_bucket_key=8)
module.bind([("data", (6, 8))], [("softmax_label", (6,))])
module.init_params(arg_params=weights, aux_params={})
module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.05})
metric = mx.metric.create("ce")
out_curve = []
for step, key in enumerate([8, 5, 3, 5, 8, 3]):
    one = words(key, step)
    module.forward_backward(one)
    module.update()
    metric.reset()
    module.update_metric(metric, one.label)
    out_curve.append(float(metric.get()[1]))
module.prepare(words(6, 0))
out_keys = sorted(module._buckets)
out_current = module._curr_bucket_key
out_params = {n: module.get_params()[0][n] for n in sorted(weights)}
"""
    )


def test_a_row_of_modules_follows_mxnet(oracle):
    oracle.check(
        """
random = np.random.RandomState(2)
X, y = random.randn(40, 5).astype("float32"), (np.arange(40) % 3).astype("float32")
lower = mx.sym.Activation(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6, name="fc1"), act_type="tanh")
upper = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("in"), num_hidden=3, name="fc2"), name="softmax")
first = dict(fc1_weight=nd.array(random.randn(6, 5)), fc1_bias=nd.zeros((6,)),
             fc2_weight=nd.array(random.randn(3, 6)), fc2_bias=nd.zeros((3,)))
module = mx.mod.SequentialModule()
module.add(mx.mod.Module(lower, label_names=None))
module.add(mx.mod.Module(upper, data_names=["in"]), take_labels=True, auto_wiring=True)
out_curve = []
module.fit(mx.io.NDArrayIter(X, y, 10), eval_metric="ce", num_epoch=3, arg_params=first, aux_params={},
           optimizer_params={"learning_rate": 0.1},
           batch_end_callback=lambda param: out_curve.append(float(param.eval_metric.get()[1])))
out_params = {n: module.get_params()[0][n] for n in sorted(first)}
out_names = (module.data_names, module.output_names, [d[0] for d in module._modules[1].data_shapes])
"""
    )


def test_a_loss_in_python_follows_mxnet(oracle):
    oracle.check(
        """
random = np.random.RandomState(2)
X, y = random.randn(40, 5).astype("float32"), (np.arange(40) % 3).astype("float32")
scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
def hinge(scores, labels):
    s, wanted = scores.asnumpy(), labels.asnumpy().astype(int)
    rows = np.arange(len(s))
    grad = (s - s[rows, wanted][:, None] + 1 > 0).astype("float32")
    grad[rows, wanted] = 0
    grad[rows, wanted] = -grad.sum(1)
    return grad / len(s)
module = mx.mod.SequentialModule()
module.add(mx.mod.Module(scores, label_names=None))
module.add(mx.mod.PythonLossModule(grad_func=hinge), take_labels=True, auto_wiring=True)
first = dict(fc_weight=nd.array(random.randn(3, 5)), fc_bias=nd.zeros((3,)))
module.bind([("data", (10, 5))], [("softmax_label", (10,))])
module.init_params(arg_params=first, aux_params={})
module.init_optimizer(optimizer_params={"learning_rate": 0.5})
for one in list(mx.io.NDArrayIter(X, y, 10)) * 3:
    module.forward_backward(one)
    module.update()
out_params = {n: module.get_params()[0][n] for n in sorted(first)}
out_scores = module.get_outputs()[0]
"""
    )


def test_files_are_read_on_both_sides(oracle, tmp_path):
    ours = bound(optimizer=True)
    ours.init_optimizer("local", "adam", force_init=True)
    one = batch()
    for _ in range(3):
        ours.forward_backward(one)
        ours.update()
    ours.save_checkpoint(str(tmp_path / "ours"), 3, save_optimizer_states=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ours-0003.params",
        "ours-0003.states",
        "ours-symbol.json",
    ]
    theirs = oracle.run(
        f"""
module = mx.mod.Module.load({str(tmp_path / "ours")!r}, 3)
module.bind([("data", (4, 5))], [("softmax_label", (4,))])
module.forward(mx.io.DataBatch([data], [label]), is_train=False)
out_result = module.get_outputs()[0]
module.init_optimizer(optimizer="adam")
for _ in range(2):
    module.forward_backward(mx.io.DataBatch([data], [label]))
    module.update()
module.save_checkpoint({str(tmp_path / "theirs")!r}, 1, save_optimizer_states=True)
module.forward_backward(mx.io.DataBatch([data], [label]))
module.update()
out_next = module.get_params()[0]["fc1_weight"]
""",
        data=one.data[0].asnumpy(),
        label=one.label[0].asnumpy(),
    )
    ours.forward(one, is_train=False)
    np.testing.assert_allclose(ours.get_outputs()[0].asnumpy(), theirs["out_result"], rtol=1e-5)
    back = mx.mod.Module.load(str(tmp_path / "theirs"), 1, load_optimizer_states=True)
    back.bind([("data", (4, 5))], [("softmax_label", (4,))])
    back.init_optimizer(optimizer="adam")
    back._optimizer.begin_num_update = 2  # counts are not among the states
    back._optimizer._index_update_count.update(dict.fromkeys(range(4), 2))
    back.forward_backward(one)
    back.update()
    np.testing.assert_allclose(
        back.get_params()[0]["fc1_weight"].asnumpy(), theirs["out_next"], rtol=1e-4, atol=1e-6
    )


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


# ---- what is shown -------------------------------------------------------------------------------------------


def logged(caplog, **kwargs):
    """The lines of a training, times and numbers blanked."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    X, y = blobs()
    symbol = kwargs.pop("symbol", None) or network()
    module = mx.mod.Module(symbol, label_names=[n for n in symbol.list_arguments() if n.endswith("label")])
    label = module.label_names[0] if module.label_names else "softmax_label"
    data = mx.io.NDArrayIter(X, kwargs.pop("y", y), 30, label_name=label)
    module.fit(data, num_epoch=1, eval_data=data if kwargs.pop("evaluate", False) else None, **kwargs)
    return [re.sub(r"=[\d.]+|=nan", "=#", line) for line in caplog.messages]


def test_the_log_is_mxnets_with_the_loss(caplog):
    assert logged(caplog, evaluate=True) == [
        "Epoch[0] Train-accuracy=#",
        "Epoch[0] Train-loss=#",
        "Epoch[0] Time cost=#",
        "Epoch[0] Validation-accuracy=#",
        "Epoch[0] Validation-loss=#",
    ]
    assert [line for line in logged(caplog, eval_metric="ce") if "Train" in line] == [
        "Epoch[0] Train-cross-entropy=#"
    ]


def test_a_network_without_loss_layers_shows_none(caplog):
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="f")
    ones = mx.sym.MakeLoss(mx.sym.mean(x * x), name="own")
    silent = mx.sym.Group([mx.sym.BlockGrad(x), ones])
    wide = mx.metric.CustomMetric(lambda label, pred: 0.0, name="other", allow_extra_outputs=True)
    assert "Epoch[0] Train-loss=#" in logged(caplog, symbol=silent, eval_metric=wide)
    X, _ = blobs()
    module = mx.mod.Module(x, label_names=None)
    module.bind([("data", (30, 5))])
    assert loss_heads(x) == []


@pytest.mark.parametrize(
    ("op", "formula"),
    [
        ("LinearRegressionOutput", lambda p, y: ((p - y) ** 2).mean() / 2),
        ("MAERegressionOutput", lambda p, y: np.abs(p - y).mean()),
        ("LogisticRegressionOutput", lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()),
    ],
)
def test_losses_of_regressions(op, formula):
    module = bound(symbol=network(classes=1, out=op))
    one = Batch(batch().data, [nd.array([0, 1, 1, 0])])
    module.forward(one, is_train=True)
    loss = HeadLoss()
    loss.update(module.symbol, module.get_outputs(), {"softmax_label": one.label[0]})
    wanted = formula(module.get_outputs()[0].asnumpy()[:, 0], one.label[0].asnumpy())
    np.testing.assert_allclose(loss.get_name_value()[0][1], wanted, rtol=1e-5)


def test_losses_of_softmax():
    random = np.random.RandomState(0)
    scores = mx.sym.Variable("data")
    raw = random.randn(4, 3, 6).astype(np.float32)
    label = random.randint(0, 3, (4, 6)).astype(np.float32)
    label[0, :2] = -1
    for flags, axis in (({"multi_output": True}, 1), ({"preserve_shape": True}, 2)):
        data = raw if axis == 1 else raw.transpose(0, 2, 1)
        for ignore in (True, False):
            targets = label if ignore else np.abs(label)
            out = mx.sym.SoftmaxOutput(scores, name="s", use_ignore=ignore, ignore_label=-1, **flags)
            executor = out.bind(mx.cpu(), {"data": nd.array(data), "s_label": nd.array(targets)})
            probabilities = executor.forward()[0]
            loss = HeadLoss()
            loss.update(out, [probabilities], {"s_label": nd.array(targets)})
            p = np.moveaxis(probabilities.asnumpy(), axis, -1)
            picked = np.take_along_axis(p, np.abs(targets).astype(int)[..., None], -1)[..., 0]
            kept = -np.log(picked[targets >= 0])
            np.testing.assert_allclose(
                loss.get_name_value(),
                [("loss", kept.mean())] if False else [("loss", loss.get_name_value()[0][1])],
            )
            np.testing.assert_allclose(loss.get_name_value()[0][1], kept.mean(), rtol=1e-5)


def test_the_running_loss_forgets_locally_and_remembers_the_epoch():
    symbol = network()
    loss = HeadLoss()
    values = []
    for step in range(150):  # more than are kept before they are added up
        p = np.full((2, 3), 0.1 + 0.005 * step, np.float32)
        values.append(-np.log(p[0, 0]))
        loss.update(symbol, [nd.array(p)], {"softmax_label": nd.zeros((2,))})
        if step == 99:
            np.testing.assert_allclose(loss.get_name_value()[0][1], np.mean(values), rtol=1e-5)
            loss.reset_local()
            assert np.isnan(loss.get_name_value()[0][1])
    np.testing.assert_allclose(loss.get_name_value()[0][1], np.mean(values[100:]), rtol=1e-5)
    np.testing.assert_allclose(loss.get_global_name_value()[0][1], np.mean(values), rtol=1e-5)
    loss.update(symbol, [nd.ones((2, 3))], {})  # a batch without the label adds nothing
    loss.reset()
    assert loss.get_global_name_value() == []


def test_several_losses_have_names():
    data = mx.sym.Variable("data")
    one = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=3, name="a"), name="cls")
    two = mx.sym.LinearRegressionOutput(mx.sym.FullyConnected(data, num_hidden=1, name="b"), name="box")
    three = mx.sym.SoftmaxOutput(data, mx.sym.Reshape(mx.sym.Variable("l"), shape=(-1,)), name="flat")
    inside = mx.sym.SoftmaxOutput(data, mx.sym.argmax(data, axis=1), name="inside")
    heads = loss_heads(mx.sym.Group([one, two, mx.sym.BlockGrad(one), three, inside]))
    assert [(h.place, h.name, h.label) for h in heads] == [
        (0, "cls", "cls_label"), (1, "box", "box_label"), (3, "flat", "l"),
    ]  # fmt: skip


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_no_bar_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    X, y = blobs()
    mx.mod.Module(network()).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=2)
    assert capsys.readouterr() == ("", "")


def test_a_plain_bar_on_a_terminal_gives_way_to_log_lines(monkeypatch):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)  # as if it were not installed
    monkeypatch.delenv("MXRS_PROGRESS", raising=False)
    logger = logging.getLogger("a training on a terminal")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(err)
    logger.addHandler(handler)
    X, y = blobs()
    mx.mod.Module(network(), logger=logger).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=2)
    assert re.search(r"\rEpoch 0 \|#+\.*\| 2/3 \[.* s left\] accuracy=\S+ loss=\S+", err.text)
    assert not handler.filters and out.text == ""
    for line in err.text.split("\n")[:-1]:
        shown = line.rsplit("\r\x1b[K", 1)[-1]
        assert "\r" not in shown and re.fullmatch(r"Epoch\[\d\] (Train-\w+|Time cost)=[\d.]+", shown)
    before = err.text
    monkeypatch.setenv("MXRS_PROGRESS", "0")
    mx.mod.Module(network(), logger=logging.getLogger("quiet")).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=1)
    assert err.text == before


def test_tqdm_draws_where_it_is_installed(monkeypatch):
    pytest.importorskip("tqdm")
    err = Terminal()
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    X, y = blobs()
    mx.mod.Module(network()).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=1)
    assert "Epoch 0" in err.text and "/3" in err.text


def test_how_many_batches():
    X, y = blobs(70)
    assert _progress.batches_in(mx.io.NDArrayIter(X, y, 30)) == 3
    assert _progress.batches_in(mx.io.NDArrayIter(X, y, 30, last_batch_handle="discard")) == 2
    assert _progress.batches_in(mx.io.ResizeIter(mx.io.NDArrayIter(X, y, 30), 7)) == 7
    assert _progress.batches_in([1, 2]) == 2 and _progress.batches_in(object()) is None


def test_callbacks_get_what_they_expect():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30)
    module = mx.mod.Module(network())
    calls = []

    def on_batch(param):
        calls.append(("batch", param.epoch, param.nbatch))
        assert param.locals["self"] is module and param.locals["epoch"] == param.epoch
        assert param.locals["data_batch"].data[0].shape == (30, 5)

    def on_epoch(epoch, symbol, arg_params, aux_params):
        calls.append(("epoch", epoch, sorted(arg_params)[0]))
        assert symbol is module.symbol

    def on_eval(param):
        calls.append(("eval", param.epoch, param.nbatch))
        assert "eval_batch" in param.locals

    module.fit(
        data,
        eval_data=mx.io.NDArrayIter(X, y, 45),
        num_epoch=3,
        begin_epoch=1,
        batch_end_callback=[on_batch],
        epoch_end_callback=on_epoch,
        eval_batch_end_callback=on_eval,
        eval_end_callback=lambda param: calls.append(("end", param.epoch, param.nbatch)),
    )
    one = [("batch", 0, i) for i in range(3)] + [
        ("epoch", 0, "fc1_bias"),
        ("eval", 0, 0),
        ("eval", 0, 1),
        ("end", 0, 2),
    ]
    assert calls == [(kind, epoch, rest) for epoch in (1, 2) for kind, _, rest in one]


def test_an_empty_iterator_is_told():
    class Empty(mx.io.DataIter):
        provide_data = [("data", (2, 5))]
        provide_label = [("softmax_label", (2,))]

        def next(self):
            raise StopIteration

    with pytest.raises(MXNetError, match="no batch in epoch 0"):
        mx.mod.Module(network()).fit(Empty(2), num_epoch=1)


def test_fit_learns():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30, shuffle=True)
    module = mx.mod.Module(network(hidden=16))
    module.fit(data, num_epoch=20, initializer=mx.init.Xavier(), optimizer_params={"learning_rate": 0.2})
    assert module.score(data, "acc")[0][1] == 1.0


# ---- the other modules ---------------------------------------------------------------------------------------


def by_length(key):
    data = mx.sym.Variable("data")
    state = mx.sym.sum(mx.sym.Embedding(data, input_dim=10, output_dim=4, name="emb"), axis=1)
    out = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(state, num_hidden=3, name="fc"), name="softmax")
    return out, ("data",), ("softmax_label",)


def words(key):
    data = nd.array(np.random.RandomState(key).randint(0, 10, (6, key)))
    return Batch(
        [data],
        [nd.array(np.arange(6) % 3)],
        bucket_key=key,
        provide_data=[("data", (6, key))],
        provide_label=[("softmax_label", (6,))],
    )


def test_bucketing_checkpoint(tmp_path):
    module = mx.mod.BucketingModule(by_length, default_bucket_key=8)
    assert list(module.data_names) == ["data"] and module.output_names == ["softmax_output"]
    module.bind([("data", (6, 8))], [("softmax_label", (6,))])
    module.init_params()
    module.init_optimizer()
    for key in (8, 5):
        module.forward_backward(words(key))
        module.update()
    module.save_checkpoint(str(tmp_path / "b"), 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "b-0001.params", "b-5-symbol.json", "b-8-symbol.json", "b.buckets",
    ]  # fmt: skip
    again = mx.mod.BucketingModule.load(str(tmp_path / "b"), 1, sym_gen=by_length, default_bucket_key=8)
    assert again.params_initialized
    again.bind([("data", (6, 8))], [("softmax_label", (6,))], for_training=False)
    for key in (5, 3):
        for each in (module, again):
            each.forward(words(key), is_train=False)
        np.testing.assert_allclose(
            again.get_outputs()[0].asnumpy(), module.get_outputs()[0].asnumpy(), rtol=1e-6
        )


def test_bucketing_is_checked():
    with pytest.raises(AssertionError, match="default_bucket_key"):
        mx.mod.BucketingModule(by_length)
    with pytest.raises(TypeError, match="must give"):
        mx.mod.BucketingModule(lambda key: 3, 8)
    module = mx.mod.BucketingModule(by_length, 8)
    with pytest.raises(AssertionError, match="call bind before switching bucket"):
        module.switch_bucket(3, [("data", (6, 3))])
    with pytest.raises(AssertionError, match="call bind first"):
        module.symbol  # noqa: B018
    with pytest.raises(AssertionError, match="sym_gen is required"):
        mx.mod.BucketingModule.load("x", 1)


def test_bucketing_fit_shows_the_loss(caplog):
    caplog.set_level(logging.INFO)

    class Lengths(mx.io.DataIter):
        default_bucket_key = 8
        provide_data = [("data", (6, 8))]
        provide_label = [("softmax_label", (6,))]

        def __init__(self):
            super().__init__(6)
            self.reset()

        def reset(self):
            self.rest = [8, 3, 5, 3]

        def next(self):
            if not self.rest:
                raise StopIteration
            return words(self.rest.pop())

    module = mx.mod.BucketingModule(by_length, 8)
    module.fit(
        Lengths(),
        eval_data=Lengths(),
        num_epoch=40,
        optimizer="adam",
        optimizer_params={"learning_rate": 0.1},
    )
    losses = [float(m.split("=")[1]) for m in caplog.messages if "Train-loss" in m]
    assert len(losses) == 40 and losses[-1] < 0.3 * losses[0]
    assert sum("Validation-loss" in m for m in caplog.messages) == 40


def test_sequential_is_checked():
    sequence = mx.mod.SequentialModule()
    assert sequence.data_names == [] and sequence.output_names == []
    with pytest.raises(AssertionError, match="empty SequentialModule"):
        sequence.bind([("data", (2, 5))])
    with pytest.raises(AssertionError, match='Unknown meta "foo"'):
        sequence.add(mx.mod.Module(network()), foo=1)
    layer = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5, name="same")
    assert sequence.add(mx.mod.Module(layer, label_names=None)) is sequence
    sequence.add(mx.mod.Module(layer, label_names=None), auto_wiring=True)
    sequence.bind([("data", (2, 5))])
    with pytest.raises(AssertionError, match='name "same_weight" in layer 1'):
        sequence.init_params()
    with pytest.raises(AssertionError, match="Shared module"):
        sequence.bind([("data", (2, 5))], force_rebind=True, shared_module=sequence)


def test_sequential_hands_gradients_to_the_first_input():
    whole = mx.mod.Module(network())
    lower = mx.sym.Activation(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1"), act_type="relu"
    )
    upper = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc2"), name="softmax"
    )
    parts = mx.mod.SequentialModule()
    parts.add(mx.mod.Module(lower, label_names=None)).add(
        mx.mod.Module(upper), take_labels=True, auto_wiring=True
    )
    grads = []
    params = bound().get_params()[0]
    for module in (whole, parts):
        module.bind([("data", (4, 5))], [("softmax_label", (4,))], inputs_need_grad=True)
        module.init_params(arg_params=params, aux_params={})
        module.forward_backward(batch())
        grads.append(module.get_input_grads()[0].asnumpy())
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-5, atol=1e-7)


def test_python_modules_are_checked():
    loss = mx.mod.PythonLossModule(grad_func=lambda scores, labels: scores - 1)
    loss.bind([("data", (2, 3))], [("softmax_label", (2,))], inputs_need_grad=True)
    loss.init_params()
    loss.forward(Batch([nd.full((2, 3), 3.0)], [nd.zeros((2,))]), is_train=True)
    loss.backward()
    assert (loss.get_input_grads()[0].asnumpy() == 2).all() and loss.get_params() == ({}, {})
    assert loss.output_shapes == [("pyloss_output", (2, 3))]
    with pytest.raises(AssertionError, match="out_grads should be None"):
        loss.backward(out_grads=[nd.ones((1,))])
    with pytest.raises(NotImplementedError, match="grad_func"):
        plain = mx.mod.PythonLossModule()
        plain.bind([("data", (2, 3))], [("softmax_label", (2,))])
        plain.forward(Batch([nd.ones((2, 3))], [nd.zeros((2,))]))
        plain.backward()
    with pytest.raises(AssertionError, match="callable"):
        mx.mod.PythonLossModule(grad_func=3)
    with pytest.raises(AssertionError, match="only support write"):
        mx.mod.PythonModule(["data"], None, ["out"]).bind([("data", (2, 3))], grad_req="add")
    with pytest.raises(AssertionError, match=r"must name \['data'\]"):
        mx.mod.PythonModule(["data"], None, ["out"]).bind([("dat", (2, 3))])
    with pytest.raises(NotImplementedError, match="BaseModule does not define forward"):
        mx.mod.BaseModule().forward(None)


def test_a_python_module_of_ones_own():
    class Double(mx.mod.PythonModule):
        def _compute_output_shapes(self):
            return [("out", self.data_shapes[0].shape)]

        def forward(self, data_batch, is_train=None):
            self.result = data_batch.data[0] * 2

        def get_outputs(self, merge_multi_context=True):
            return [self.result]

    module = Double(["data"], ["y"], ["out"])
    module.bind([("data", (3, 2))], [("y", (3,))], for_training=False)
    data = mx.io.NDArrayIter(np.ones((7, 2), np.float32), np.zeros(7, np.float32), 3, label_name="y")
    assert (module.predict(data).asnumpy() == np.full((7, 2), 2)).all()


def test_executor_group_is_public():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30)
    symbol = network()
    names = [n for n in symbol.list_arguments() if n not in ("data", "softmax_label")]
    group = DataParallelExecutorGroup(
        symbol, [mx.cpu(0)], [1], data.provide_data, data.provide_label, names, True, False
    )
    group.set_params({n: nd.ones(a[0].shape) for n, a in zip(names, group.param_arrays)}, {})
    one = data.next()
    group.forward(one, is_train=True)
    group.backward()
    assert group.get_output_shapes() == [("softmax_output", (30, 3))] and group.batch_size == 30
    metric = mx.metric.Accuracy()
    group.update_metric(metric, one.label, False)
    assert metric.num_inst == 30
