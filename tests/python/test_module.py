"""The modules against MXNet from the same weights, by `fit` and step by step; and files on both sides."""

import numpy as np
import pytest

import mxrs as mx
from module_cases import batch, bound

#: A network and weights that do not depend on a random number generator. The layer before BatchNorm has no bias:
#: its gradient would be rounding errors, which Adam blows up.
MLP = """
x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, no_bias=True, name="fc1")
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
#: MXNet updates moving statistics on the side, so everything has to be finished.
KEEP = """
nd.waitall()
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
    curve.append(float(metric.get()[1]))
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
out_result = module.get_outputs()[0].copy()
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
