"""BucketingModule, SequentialModule, PythonModule, PythonLossModule and the executor group."""

import logging

import numpy as np
import pytest

import mxrs as mx
from module_cases import Batch, batch, blobs, bound, network
from mxrs import nd
from mxrs.module.executor_group import DataParallelExecutorGroup

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
