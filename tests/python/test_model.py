"""Checkpoints, the helpers that other code imports from `mx.model`, and FeedForward."""

import logging
import pickle

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd
from mxrs.base import MXNetError
from mxrs.executor_manager import DataParallelExecutorManager, _check_arguments, _split_input_slice
from mxrs.model import (
    BatchEndParam,
    FeedForward,
    _create_kvstore,
    _initialize_kvstore,
    _update_params,
    _update_params_on_kvstore,
)


def network(hidden=4, classes=3):
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=hidden, name="fc1")
    x = mx.sym.Activation(x, act_type="relu", name="relu1")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=classes, name="fc2"), name="softmax")


def blobs(rows=90, classes=3, seed=0):
    """Points around one centre per class."""
    random = np.random.RandomState(seed)
    labels = np.arange(rows) % classes
    centres = 3 * random.randn(classes, 5)
    return (centres[labels] + 0.3 * random.randn(rows, 5)).astype(np.float32), labels.astype(np.float32)


# ---- checkpoints ---------------------------------------------------------------------------------------------


def test_checkpoint_comes_back(tmp_path):
    prefix = str(tmp_path / "net")
    arg = {"fc1_weight": nd.array(np.arange(6).reshape(2, 3))}
    aux = {"mean": nd.array([1.0, 2.0], dtype="float64")}
    mx.model.save_checkpoint(prefix, 12, network(), arg, aux)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net-0012.params", "net-symbol.json"]
    symbol, arg2, aux2 = mx.model.load_checkpoint(prefix, 12)
    assert symbol.tojson() == network().tojson()
    np.testing.assert_array_equal(arg2["fc1_weight"].asnumpy(), arg["fc1_weight"].asnumpy())
    assert aux2["mean"].dtype == np.float64
    assert sorted(mx.model.load_params(prefix, 12)[1]) == ["mean"]


def test_checkpoint_without_network(tmp_path):
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, None, {"a": nd.ones((1,))}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["net-0000.params"]


def test_what_is_no_checkpoint_is_refused(tmp_path, caplog):
    prefix = str(tmp_path / "net")
    with pytest.raises(MXNetError):
        mx.model.load_checkpoint(prefix, 1)
    nd.save(prefix + "-0001.params", [nd.ones((1,))])
    with pytest.raises(ValueError, match="list of 1"):
        mx.model.load_params(prefix, 1)
    nd.save(prefix + "-0002.params", {"x": nd.ones((1,)), "arg:y": nd.ones((1,))})
    with pytest.raises(ValueError, match=r"net-0002\.params.*'x'"):
        mx.model.load_params(prefix, 2)
    nd.save(prefix + "-0003.params", {"other:x": nd.ones((1,)), "arg:y": nd.ones((1,))})
    arg_params, aux_params = mx.model.load_params(prefix, 3)
    assert list(arg_params) == ["y"] and aux_params == {}
    nd.save(prefix + "-0004.params", {})
    assert mx.model.load_params(prefix, 4) == ({}, {})
    assert "is empty" in caplog.text


def test_a_failed_save_leaves_the_former_file(tmp_path, monkeypatch):
    module = mx.mod.Module(network())
    module.bind([("data", (4, 5))], [("softmax_label", (4,))])
    module.init_params()
    module.init_optimizer(optimizer="adam")
    target = tmp_path / "net.states"
    target.write_bytes(b"former")

    def fail(_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        module.save_optimizer_states(str(target))
    assert target.read_bytes() == b"former"
    assert [p.name for p in tmp_path.iterdir()] == ["net.states"]


# ---- splitting, stores, updates ------------------------------------------------------------------------------


def test_slices_are_mxnets(oracle):
    cases = [(10, [1, 1, 1]), (10, [1, 2, 3]), (3, [1, 1, 1]), (5, [1, 1, 1, 1]), (11, [1, 1]), (7, [2, 5])]
    cases += [(128, [1] * 7), (9, [0.5, 0.25, 0.25]), (1, [3])]
    code = f"""
from {{package}}.executor_manager import _split_input_slice
out_slices = [[(s.start, s.stop) for s in _split_input_slice(*case)] for case in {cases}]
"""
    theirs = oracle.run(code.format(package="mxnet"))["out_slices"]
    ours = [[(s.start, s.stop) for s in _split_input_slice(*case)] for case in cases]
    assert ours == theirs


def test_a_device_without_rows_is_refused():
    with pytest.raises(ValueError, match="Too many slices"):
        _split_input_slice(2, [1, 1, 1])


def test_duplicate_arguments_are_refused():
    data = mx.sym.Variable("data")
    twice = mx.sym.FullyConnected(data, num_hidden=2, name="a") + mx.sym.FullyConnected(
        data, num_hidden=2, name="a"
    )
    with pytest.raises(ValueError, match='duplicated argument name "a_weight"'):
        _check_arguments(twice)
    _check_arguments(network())


def test_which_store_is_made(monkeypatch):
    monkeypatch.delenv("MXNET_UPDATE_ON_KVSTORE", raising=False)
    small = {"w": nd.ones((3,))}
    assert _create_kvstore(None, 4, small) == (None, False)
    assert _create_kvstore("local", 1, small) == (None, False)
    store, on_store = _create_kvstore("device", 2, small)
    assert store.type == "device" and on_store
    given = mx.kv.create("local")
    assert _create_kvstore(given, 1, small) == (given, True)
    monkeypatch.setattr("mxrs.model._BIG_PARAMETER", 2)
    assert _create_kvstore("local", 2, small)[1] is False
    assert _create_kvstore("device", 2, small)[1] is True
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
    assert _create_kvstore("device", 2, small)[1] is False
    with pytest.raises(TypeError, match="kvstore must be KVStore, str or None"):
        _create_kvstore(5, 2, small)


def weights_and_grads():
    weights = [[nd.ones((2,)), nd.ones((2,))], [nd.ones((3,)), nd.ones((3,))]]
    grads = [[nd.full((2,), 1.0), nd.full((2,), 3.0)], [None, None]]
    return weights, grads


def test_update_without_store():
    weights, grads = weights_and_grads()
    seen = []

    def updater(numbers, gradients, parameters):
        seen.append(numbers)
        for gradient, parameter in zip(gradients, parameters):
            parameter -= gradient

    _update_params(weights, grads, updater, num_device=2)
    assert seen == [[0], [1]]
    assert [w.asnumpy().tolist() for w in weights[0]] == [[0, 0], [-2, -2]]
    assert weights[1][0].asnumpy().tolist() == [1, 1, 1]


def test_update_with_a_store_that_sums():
    weights, grads = weights_and_grads()
    store = mx.kv.create("local")
    first = {"a": weights[0][0].copy(), "b": weights[1][0].copy()}
    _initialize_kvstore(store, weights, first, ["a", "b"], update_on_kvstore=False)
    optimizer = mx.optimizer.SGD(learning_rate=0.5)
    _update_params(weights, grads, mx.optimizer.get_updater(optimizer), 2, store, ["a", "b"])
    assert [w.asnumpy().tolist() for w in weights[0]] == [[-1, -1], [-1, -1]]


def test_update_on_the_store():
    weights, grads = weights_and_grads()
    store = mx.kv.create("local")
    _initialize_kvstore(store, weights, {"a": nd.zeros((2,)), "b": nd.ones((3,))}, ["a", "b"], True)
    assert [w.asnumpy().tolist() for w in weights[0]] == [[0, 0], [0, 0]]  # brought to the devices
    store.set_optimizer(mx.optimizer.SGD(learning_rate=0.5))
    _update_params_on_kvstore(weights, grads, store, ["a", "b"])
    assert [w.asnumpy().tolist() for w in weights[0]] == [[-2, -2], [-2, -2]]


class OldStore:
    """Knows push and pull of single keys, as stores did before pushpull."""

    def __init__(self):
        self.calls = []

    def push(self, key, value, priority=0):
        self.calls.append(("push", key, len(value), priority))

    def pull(self, key, out=None, priority=0):
        self.calls.append(("pull", key, len(out), priority))


def test_a_store_with_push_and_pull_only():
    weights, grads = weights_and_grads()
    grads[1] = [nd.ones((3,)), nd.ones((3,))]
    store = OldStore()
    _update_params_on_kvstore(weights, grads, store, ["a", "b"])
    assert store.calls == [
        ("push", "a", 2, 0),
        ("pull", "a", 2, 0),
        ("push", "b", 2, -1),
        ("pull", "b", 2, -1),
    ]


def test_batch_end_param_is_a_tuple():
    param = BatchEndParam(epoch=1, nbatch=2, eval_metric=None, locals={"a": 1})
    assert tuple(param) == (1, 2, None, {"a": 1}) and param._fields == (
        "epoch",
        "nbatch",
        "eval_metric",
        "locals",
    )


def test_executor_manager_trains():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30)
    symbol = network(hidden=16)
    names = [n for n in symbol.list_arguments() if n not in ("data", "softmax_label")]
    manager = DataParallelExecutorManager(
        symbol, [mx.cpu(0), mx.cpu(1)], data, symbol.list_arguments(), names, [], work_load_list=[1, 2]
    )
    assert manager.slices == [slice(0, 10), slice(10, 30)]
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(30, 5))[0]))
    params = {name: nd.random.normal(0, 0.5, shape=shapes[name]) for name in names}
    manager.set_params(params, {})
    updater = mx.optimizer.get_updater(mx.optimizer.SGD(learning_rate=0.1, rescale_grad=1 / 30))
    store = mx.kv.create("local")
    _initialize_kvstore(store, manager.param_arrays, params, names, update_on_kvstore=False)
    metric = mx.metric.Accuracy()
    for _ in range(30):
        data.reset()
        metric.reset()
        for batch in data:
            manager.load_data_batch(batch)
            manager.forward(is_train=True)
            manager.backward()
            _update_params(manager.param_arrays, manager.grad_arrays, updater, 2, store, names)
            manager.update_metric(metric, batch.label)
    assert metric.get()[1] == 1.0
    manager.copy_to(params, {})
    for name, parts in zip(names, manager.param_arrays):
        for part in parts:
            np.testing.assert_allclose(part.asnumpy(), params[name].asnumpy(), rtol=1e-6)


# ---- FeedForward ---------------------------------------------------------------------------------------------


def trained(**kwargs):
    mx.random.seed(0)
    np.random.seed(0)
    X, y = blobs()
    options = {"num_epoch": 15, "learning_rate": 0.2, "numpy_batch_size": 30, "initializer": mx.init.Xavier()}
    model = FeedForward(network(), **{**options, **kwargs})
    model.fit(X, y)
    return model, X, y


def test_feedforward_learns_and_predicts():
    model, X, y = trained()
    assert sorted(model.arg_params) == ["fc1_bias", "fc1_weight", "fc2_bias", "fc2_weight"]
    found = model.predict(X)
    assert isinstance(found, np.ndarray) and found.shape == (90, 3)
    assert (found.argmax(1) == y).mean() == 1.0
    assert model.score(mx.io.NDArrayIter(X, y, 30)) == 1.0
    assert model.score((X, y), "ce") < 0.2
    np.testing.assert_allclose(model.predict(X[:7]), found[:7], rtol=1e-5)
    np.testing.assert_allclose(model.predict(nd.array(X)), found, rtol=1e-5)
    assert model.predict(X, num_batch=2).shape == (60, 3)


def test_feedforward_counts_batches_from_one(oracle):
    """As MXNet, where a Module counts from 0."""
    oracle.check(
        """
net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2), name="softmax")
seen = []
model = mx.model.FeedForward(net, num_epoch=1, numpy_batch_size=10)
note = lambda where: lambda param: seen.append((where, param.epoch, param.nbatch))
data = np.ones((30, 3), "f"), np.zeros(30)
model.fit(*data, eval_data=data, batch_end_callback=(note(0) if whole else [note(0)]),
          eval_batch_end_callback=note(1), eval_end_callback=note(2))
model.score(mx.io.NDArrayIter(*data, 10), batch_end_callback=note(3))
mx.mod.Module(net).fit(mx.io.NDArrayIter(*data, 10), num_epoch=1, batch_end_callback=note(4))
out_seen = np.array(seen)
""",
        whole=np.array(1),
    )


def test_predict_drops_the_pad_and_returns_data():
    model, X, y = trained(num_epoch=1)
    out, data, label = model.predict(mx.io.NDArrayIter(X[:50], y[:50], 30), return_data=True)
    assert out.shape == (50, 3)
    np.testing.assert_array_equal(data, X[:50])
    np.testing.assert_array_equal(label, y[:50])


def test_feedforward_equals_mxnets(oracle, tmp_path):
    X, y = blobs(60)
    random = np.random.RandomState(3)
    first = {
        "fc1_weight": random.randn(4, 5).astype(np.float32),
        "fc1_bias": random.randn(4).astype(np.float32),
        "fc2_weight": random.randn(3, 4).astype(np.float32),
        "fc2_bias": random.randn(3).astype(np.float32),
    }
    oracle.check(
        """
x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1")
x = mx.sym.Activation(x, act_type="relu")
net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")
first = dict(fc1_weight=fc1_weight, fc1_bias=fc1_bias, fc2_weight=fc2_weight, fc2_bias=fc2_bias)
model = mx.model.FeedForward(net, num_epoch=4, learning_rate=0.1, momentum=0.9, wd=1e-3, arg_params=first)
out_curve = []
model.fit(mx.io.NDArrayIter(np_X, np_y, 20), eval_metric="ce",
          batch_end_callback=lambda param: out_curve.append(float(param.eval_metric.get()[1])))
out_params = {name: model.arg_params[name] for name in sorted(model.arg_params)}
out_prediction = model.predict(np_X)
""",
        X=X,
        y=y,
        **first,
    )


def test_feedforward_on_two_contexts_follows_one():
    X, y = blobs(60)
    shapes = network().infer_shape(data=(20, 5))[0]
    first = {
        name: nd.random.normal(0, 0.5, shape=shape)
        for name, shape in zip(network().list_arguments(), shapes)
        if name not in ("data", "softmax_label")
    }
    found = []
    for ctx in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        model = FeedForward(network(), ctx=ctx, num_epoch=3, learning_rate=0.1, arg_params=first)
        model.fit(mx.io.NDArrayIter(X, y, 20))
        found.append(model.predict(X))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_feedforward_in_files(tmp_path):
    model, X, _ = trained()
    model.save(str(tmp_path / "ff"))
    assert (tmp_path / "ff-0015.params").exists()
    again = FeedForward.load(str(tmp_path / "ff"), 15, numpy_batch_size=10)
    assert again.begin_epoch == 15 and again.numpy_batch_size == 10
    np.testing.assert_allclose(again.predict(X), model.predict(X), rtol=1e-5)
    pickled = pickle.loads(pickle.dumps(again))
    assert pickled.begin_epoch == 15
    np.testing.assert_allclose(pickled.predict(X), model.predict(X), rtol=1e-5)


def test_create_trains_with_an_epoch_size(caplog):
    caplog.set_level(logging.INFO)
    X, y = blobs()
    counted = []
    model = FeedForward.create(
        network(),
        mx.io.NDArrayIter(X, y, 30),
        num_epoch=2,
        epoch_size=5,
        learning_rate=0.1,
        eval_data=(X, y),
        batch_end_callback=lambda param: counted.append((param.epoch, param.nbatch)),
    )
    assert counted == [(e, b) for e in range(2) for b in range(1, 6)]
    assert model.kwargs == {"learning_rate": 0.1}
    kinds = [m.split("=")[0] for m in caplog.messages if m.startswith("Epoch[1]")]
    assert kinds.count("Epoch[1] Validation-accuracy") == 1 and kinds.count("Epoch[1] Train-loss") == 1


def test_several_outputs():
    data = mx.sym.Variable("data")
    hidden = mx.sym.FullyConnected(data, num_hidden=3, name="a")
    both = mx.sym.Group([mx.sym.SoftmaxOutput(hidden, name="softmax"), mx.sym.BlockGrad(hidden)])
    X, y = blobs()
    model = FeedForward(both, num_epoch=1, numpy_batch_size=40)
    model.fit(X, y, eval_metric=mx.metric.CustomMetric(lambda *_: 0.0, allow_extra_outputs=True))
    assert [out.shape for out in model.predict(X)] == [(90, 3), (90, 3)]


@pytest.mark.parametrize(
    ("X", "y", "error", "words"),
    [
        (np.ones((4, 5), np.float32), None, ValueError, "y must be specified"),
        (np.ones((4, 5), np.float32), np.zeros((4, 2)), ValueError, "1D or 2D"),
        (np.ones((4, 5), np.float32), np.zeros(3), ValueError, "not equal: X has 4 rows, y 3"),
        (np.ones((4, 5), np.float32), [0, 0, 0, 0], TypeError, "y must be ndarray"),
        ("text", np.zeros(4), TypeError, "X must be DataIter"),
    ],
)
def test_bad_data_is_refused(X, y, error, words):
    with pytest.raises(error, match=words):
        FeedForward(network(), num_epoch=1).fit(X, y)


def test_bad_use_is_refused():
    X, y = blobs()
    with pytest.raises(TypeError, match="num_epoch"):
        FeedForward(network()).fit(X, y)
    with pytest.raises(MXNetError, match="no parameters yet"):
        FeedForward(network()).predict(X)
    with pytest.raises(TypeError, match="Eval data must be DataIter"):
        FeedForward(network(), num_epoch=1).fit(X, y, eval_data=(X, y, y))
    with pytest.raises(ValueError, match="labels are needed"):
        trained(num_epoch=1)[0].score(X)
    with pytest.raises(TypeError, match="symbol must be a Symbol"):
        FeedForward(3)


def test_extra_parameters_are_dropped_on_request():
    model, X, _ = trained()
    more = {**model.arg_params, "stray": nd.ones((1,))}
    kept = FeedForward(network(), arg_params=more, aux_params={}, allow_extra_params=True)
    assert "stray" not in kept.arg_params
    np.testing.assert_allclose(kept.predict(X), model.predict(X), rtol=1e-5)
