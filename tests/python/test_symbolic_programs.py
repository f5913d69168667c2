"""Symbolic programs as MXNet's users write them, on real data: from equal weights, their curves are MXNet's."""

import logging
import pathlib
import sys
import textwrap

import numpy as np
import pytest

import mxrs as mx
from oracle import assert_same
from oracle_server import execute

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import digits_data

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 20
BATCH = 16


@pytest.fixture(scope="module")
def digits():
    """Pictures (n, 1, 28, 28) from 0 to 1 and labels, to train on and held out."""
    try:
        split = digits_data.load_digits()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    X, y, V, t = (part.astype("float32") for part in split)
    return X[:, None] / 255, y, V[:, None] / 255, t


@pytest.fixture(scope="module")
def few(digits):
    """As many pictures as the curves need."""
    return {"X": digits[0][: STEPS * BATCH], "y": digits[1][: STEPS * BATCH], "steps": STEPS, "rows": BATCH}


# Weights that depend on names and shapes alone; the loss of probabilities; what all programs start with.
COMMON = """
def initial(symbol, seed=1, scale=1.0, **shapes):
    random = np.random.RandomState(seed)
    arg_shapes, _, aux_shapes = symbol.infer_shape(**shapes)
    args = {}
    for name, shape in sorted(zip(symbol.list_arguments(), arg_shapes)):
        if name in shapes:
            continue
        if name.endswith("gamma"):
            value = np.ones(shape)
        elif len(shape) < 2:
            value = np.zeros(shape)
        else:
            value = random.randn(*shape) * scale * np.sqrt(2 / np.prod(shape[1:]))
        args[name] = nd.array(value)
    aux = {name: nd.ones(shape) if name.endswith("var") else nd.zeros(shape)
           for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes)}
    return args, aux

def entropy(probabilities, labels):
    p = probabilities.asnumpy()
    return float(-np.log(p[np.arange(len(p)), np.asarray(labels, dtype="int64")] + 1e-12).mean())

def predicted(module):
    # Module.predict is not asked: MXNet overwrites inputs and outputs of batches that are still in flight.
    found = []
    for i in range(2):
        mx.nd.waitall()
        module.forward(mx.io.DataBatch([nd.array(np_X[i * rows : (i + 1) * rows])]), is_train=False)
        found.append(module.get_outputs()[0].asnumpy())
    return np.concatenate(found)

def parts():
    for i in range(steps):
        rows_ = slice(i * rows, (i + 1) * rows)
        yield np_X[rows_], np_y[rows_]
"""


def curve(oracle, code, few, only=None, **more):
    """Runs a program on both libraries; its losses must agree and fall. Returns what is found here."""
    found = oracle.check(COMMON + code, rtol=1e-4, atol=1e-4, only=only, **few, **more)
    losses = found["out_losses"]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    return found


# --- a graph by hand ----------------------------------------------------------------------------------------


def test_sum_and_scalars(oracle):
    found = oracle.check("""
with mx.name.NameManager():
    A, B = mx.sym.Variable("A"), mx.sym.Variable("B")
    c = (A + B) / 10
    d = c + 1
out_names = d.list_arguments(), d.list_outputs(), d.get_internals().list_outputs()
given = {"A": nd.array([[1, 2], [3, 4]]), "B": nd.ones((2, 2))}
grads = {"A": nd.zeros((2, 2)), "B": nd.zeros((2, 2))}
executor = d.bind(ctx=mx.cpu(), args=given, args_grad=grads)
executor.forward(is_train=True)
out_first = executor.outputs[0].asnumpy()
executor.backward(out_grads=nd.array([[1, 2], [3, 4]]))
out_grads = [grads["A"], grads["B"]]
given["A"][:] = 9
executor.forward()
out_second = executor.outputs[0]
""")
    assert found["out_names"][:2] == (["A", "B"], ["_plusscalar0_output"])
    np.testing.assert_allclose(found["out_first"], [[1.2, 1.3], [1.4, 1.5]], rtol=1e-6)
    np.testing.assert_allclose(found["out_grads"][0], [[0.1, 0.2], [0.3, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(found["out_grads"][1], found["out_grads"][0])
    np.testing.assert_allclose(found["out_second"], np.full((2, 2), 2.0), rtol=1e-6)


# --- one network, written four ways -------------------------------------------------------------------------

MLP = """
with mx.name.NameManager():
    net = mx.sym.Variable("data")
    for i, width in enumerate((64, 32)):
        net = mx.sym.FullyConnected(net, name="fc%d" % i, num_hidden=width)
        net = mx.sym.Activation(net, name="relu%d" % i, act_type="relu")
    net = mx.sym.FullyConnected(net, name="fc2", num_hidden=10)
    net = mx.sym.SoftmaxOutput(net, name="softmax")
shapes = {"data": (rows, 784), "softmax_label": (rows,)}
args, aux = initial(net, **shapes)
flat = np_X.reshape(len(np_X), 784)
out_losses = []
"""

BY_HAND = (
    MLP
    + """
executor = net.simple_bind(mx.cpu(), grad_req="write", **shapes)
executor.copy_params_from(args)
evaluation = net.bind(mx.cpu(), executor.arg_arrays, grad_req="null")
out_after = []
for x, y_ in parts():
    executor.arg_dict["data"][:] = x.reshape(rows, 784)
    executor.arg_dict["softmax_label"][:] = y_
    executor.forward(is_train=True)
    out_losses.append(entropy(executor.outputs[0], y_))
    executor.backward()
    for name, weight, grad in zip(net.list_arguments(), executor.arg_arrays, executor.grad_arrays):
        if name not in shapes:
            weight[:] -= 0.1 / rows * grad
    out_after.append(entropy(evaluation.forward(is_train=False)[0], y_))
out_weights = {name: executor.arg_dict[name] for name in sorted(args)}
"""
)

BY_MODULE = (
    MLP
    + """
def follow(param):
    out_losses.append(param.eval_metric.get()[1])
    param.eval_metric.reset()
data = mx.io.NDArrayIter(flat, np_y, rows)
module = mx.mod.Module(net)
module.fit(data, eval_metric=mx.metric.CrossEntropy(), num_epoch=1, optimizer="sgd",
           optimizer_params={"learning_rate": 0.1}, arg_params=args, batch_end_callback=follow)
out_weights = {name: module.get_params()[0][name] for name in sorted(args)}
"""
)

BY_FEEDFORWARD = (
    MLP
    + """
def follow(param):
    out_losses.append(param.eval_metric.get()[1])
    param.eval_metric.reset()
data = mx.io.NDArrayIter(flat, np_y, rows)
model = mx.model.FeedForward(net, ctx=mx.cpu(), num_epoch=1, optimizer="sgd", learning_rate=0.1, arg_params=args,
                             aux_params={})
model.fit(data, eval_metric=mx.metric.CrossEntropy(), batch_end_callback=follow)
out_weights = {name: model.arg_params[name] for name in sorted(args)}
"""
)

BY_GLUON = (
    MLP
    + """
block = gluon.nn.HybridSequential()
for width in (64, 32):
    block.add(gluon.nn.Dense(width, activation="relu"))
block.add(gluon.nn.Dense(10))
block.initialize()
block.hybridize()
block(nd.zeros((1, 784)))
for i in range(3):
    block[i].weight.set_data(args["fc%d_weight" % i])
    block[i].bias.set_data(args["fc%d_bias" % i])
loss = gluon.loss.SoftmaxCrossEntropyLoss()
loss.hybridize()
trainer = gluon.Trainer(block.collect_params(), "sgd", {"learning_rate": 0.1})
for x, y_ in parts():
    with autograd.record():
        l = loss(block(nd.array(x.reshape(rows, 784))), nd.array(y_))
    l.backward()
    trainer.step(rows)
    out_losses.append(float(l.mean().asscalar()))
out_weights = {}
for i in range(3):
    out_weights["fc%d_bias" % i] = block[i].bias.data()
    out_weights["fc%d_weight" % i] = block[i].weight.data()
"""
)

WAYS = {"executor": BY_HAND, "module": BY_MODULE, "feedforward": BY_FEEDFORWARD, "gluon": BY_GLUON}


# MXNet's own evaluation is left out: with oneDNN its second executor computes with weights of an earlier step.
@pytest.mark.parametrize("way", WAYS)
def test_mlp_follows_mxnet(oracle, few, way):
    curve(oracle, WAYS[way], few, only=["out_losses", "out_weights"])


def test_the_second_executor_sees_the_weights(few):
    found = execute(mx, COMMON + BY_HAND, {**few, "steps": 3})
    weights = found["out_weights"]
    hidden = few["X"][2 * BATCH : 3 * BATCH].reshape(BATCH, 784)
    for i in range(2):
        hidden = np.maximum(hidden @ weights[f"fc{i}_weight"].T + weights[f"fc{i}_bias"], 0)
    scores = hidden @ weights["fc2_weight"].T + weights["fc2_bias"]
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    labels = few["y"][2 * BATCH : 3 * BATCH].astype(int)
    expected = -scores[np.arange(BATCH), labels].mean()
    np.testing.assert_allclose(found["out_after"][2], expected, rtol=1e-5)
    assert found["out_after"][2] < found["out_losses"][2]


def test_four_ways_are_one(few):
    found = {way: execute(mx, COMMON + code, few) for way, code in WAYS.items()}
    for way, results in found.items():
        for key in ("out_losses", "out_weights"):
            assert_same(results[key], found["executor"][key], f"{way}: {key}", 1e-4, 1e-5)


def test_module_learns_digits(digits, caplog):
    X, y, V, t = digits
    found = execute(mx, COMMON + MLP, {"X": X[:320], "y": y[:320], "steps": 1, "rows": 100})
    data = mx.io.NDArrayIter(X.reshape(-1, 784), y, 100, shuffle=True)
    held_out = mx.io.NDArrayIter(V.reshape(-1, 784), t, 100)
    net = mx.sym.Variable("data")
    net = mx.sym.Activation(mx.sym.FullyConnected(net, num_hidden=64), act_type="relu")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=10), name="softmax")
    module = mx.mod.Module(net)
    with caplog.at_level(logging.INFO):
        module.fit(
            data,
            held_out,
            initializer=mx.init.Xavier(),
            optimizer="adam",
            optimizer_params={"learning_rate": 0.003},
            num_epoch=3,
            batch_end_callback=mx.callback.Speedometer(100, 20),
        )
    assert "Validation-accuracy" in caplog.text
    assert module.score(held_out, "acc")[0][1] > 0.88
    assert not found["out_losses"]


# --- placement ----------------------------------------------------------------------------------------------

TWO_GROUPS = """
with mx.name.NameManager():
    with mx.AttrScope(ctx_group="dev1"):
        x = mx.sym.Variable("data")
        x = mx.sym.FullyConnected(x, num_hidden=32, name="fc1")
        x = mx.sym.BatchNorm(x, name="bn1", fix_gamma=False)
        x = mx.sym.Activation(x, act_type="relu", name="relu1")
    with mx.AttrScope(ctx_group="dev2"):
        x = mx.sym.FullyConnected(x, num_hidden=16, name="fc2")
        x = mx.sym.BatchNorm(x, name="bn2")
        x = mx.sym.Activation(x, act_type="tanh", name="tanh2")
        x = mx.sym.FullyConnected(x, num_hidden=10, name="fc3")
        net = mx.sym.SoftmaxOutput(x, name="softmax")
shapes = {"data": (rows, 784), "softmax_label": (rows,)}
args, aux = initial(net, **shapes)
groups = {"dev1": mx.cpu(0), "dev2": mx.cpu(1)}
out_losses = []
"""


def test_two_groups_by_executor(oracle, few):
    found = curve(
        oracle,
        TWO_GROUPS
        + """
executor = net.simple_bind(mx.cpu(0), group2ctx=groups, **shapes)
executor.copy_params_from(args, aux)
out_places = [(n, str(a.context)) for n, a in sorted(executor.arg_dict.items())]
out_aux_places = [(n, str(a.context)) for n, a in sorted(executor.aux_dict.items())]
out_grad_places = [(n, str(a.context)) for n, a in sorted(executor.grad_dict.items())]
for x, y_ in parts():
    executor.forward(is_train=True, data=nd.array(x.reshape(rows, 784)), softmax_label=nd.array(y_))
    out_losses.append(entropy(executor.outputs[0], y_))
    executor.backward()
    for name in args:
        executor.arg_dict[name][:] -= 0.05 / rows * executor.grad_dict[name]
out_place = str(executor.outputs[0].context)
mx.nd.waitall()  # MXNet does not order reading the statistics after their update
out_states = {n: executor.aux_dict[n] for n in sorted(aux)}
""",
        few,
    )
    places = dict(found["out_places"])
    assert places["fc1_weight"] == "cpu(0)" and places["fc3_weight"] == "cpu(1)"
    assert found["out_place"] == "cpu(1)"


@pytest.mark.parametrize("groups", ["groups", "[groups]", "{'dev1': [mx.cpu(0)], 'dev2': [mx.cpu(1)]}"])
def test_two_groups_by_module(oracle, few, groups):
    curve(
        oracle,
        TWO_GROUPS
        + f"""
def follow(param):
    out_losses.append(param.eval_metric.get()[1])
    param.eval_metric.reset()
module = mx.mod.Module(net, group2ctxs={groups})
module.fit(mx.io.NDArrayIter(np_X.reshape(-1, 784), np_y, rows), eval_metric=mx.metric.CrossEntropy(), num_epoch=1,
           optimizer_params={{"learning_rate": 0.05, "momentum": 0.5}}, arg_params=args, aux_params=aux,
           batch_end_callback=follow)
""",
        few,
    )


def test_placement_changes_no_result(few):
    for groups in ("groups", "None"):
        code = (
            COMMON
            + TWO_GROUPS
            + f"""
executor = net.simple_bind(mx.cpu(0), group2ctx={groups}, **shapes)
executor.copy_params_from(args, aux)
executor.forward(is_train=True, data=nd.array(np_X[:rows].reshape(rows, 784)), softmax_label=nd.array(np_y[:rows]))
executor.backward()
out_found = [executor.outputs[0]] + [executor.grad_dict[n] for n in sorted(args)]
"""
        )
        found = execute(mx, code, few)["out_found"]
        if groups == "groups":
            placed = found
    for a, b in zip(placed, found):
        np.testing.assert_array_equal(a, b)


# --- convolutional networks ---------------------------------------------------------------------------------

EIGHT_STAGES = """
def eight_stages(drop):
    with mx.name.NameManager():
        x = mx.sym.Variable("data")
        x = mx.sym.BatchNorm(x, fix_gamma=True, eps=2e-5, momentum=0.9, name="bn_data")
        for stage, (convolutions, channels) in enumerate(((1, 6), (1, 8), (2, 8), (2, 10))):
            for i in range(convolutions):
                x = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=channels, name="conv%d_%d" % (stage, i))
                x = mx.sym.Activation(x, act_type="relu")
            x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool%d" % stage)
        x = mx.sym.Flatten(x)
        for i, width in enumerate((24, 16)):
            x = mx.sym.FullyConnected(x, num_hidden=width, name="hidden%d" % i)
            x = mx.sym.Activation(x, act_type="tanh" if i else "relu")
        x = mx.sym.Dropout(x, p=drop)
        x = mx.sym.FullyConnected(x, num_hidden=10, name="out")
        return mx.sym.SoftmaxOutput(x, name="softmax")
"""

TRAIN = """
shapes = {"data": (rows, 1, 28, 28), "softmax_label": (rows,)}
args, aux = initial(net, **shapes)
module = mx.mod.Module(net)
module.bind([("data", shapes["data"])], [("softmax_label", (rows,))])
module.init_params(arg_params=args, aux_params=aux)
module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": rate, "momentum": 0.9, "wd": 1e-4})
out_losses = []
for x, y_ in parts():
    module.forward_backward(mx.io.DataBatch([nd.array(x)], [nd.array(y_)]))
    out_losses.append(entropy(module.get_outputs()[0], y_))
    module.update()
out_predicted = predicted(module)
out_states = {n: module.get_params()[1][n] for n in sorted(aux)}
if prefix:
    module.save_checkpoint(prefix, 1, save_optimizer_states=True)
"""


def test_eight_stages_follow_mxnet(oracle, few):
    curve(oracle, EIGHT_STAGES + "net = eight_stages(0.0)\n" + TRAIN, few, rate=0.004, prefix="")


def test_eight_stages_learn_with_dropout(digits):
    X, y, V, t = digits
    names = {"mx": mx}
    exec(EIGHT_STAGES, names)
    mx.random.seed(1)
    np.random.seed(1)
    module = mx.mod.Module(names["eight_stages"](0.3))
    data = mx.io.NDArrayIter(X[:2000], y[:2000], 50, shuffle=True)
    module.fit(
        data,
        initializer=mx.init.Xavier(magnitude=2),
        optimizer="adam",
        optimizer_params={"learning_rate": 0.004},
        num_epoch=4,
    )
    held_out = mx.io.NDArrayIter(V, t, 100)
    assert module.score(held_out, "acc")[0][1] > 0.8


ZOO = {
    "vgg": """
x = mx.sym.Variable("data")
for channels, count in ((6, 1), (8, 2), (8, 2)):
    for _ in range(count):
        x = mx.sym.Activation(mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=channels), act_type="relu")
    x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
x = mx.sym.flatten(x)
for _ in range(2):
    x = mx.sym.Dropout(mx.sym.relu(mx.sym.FullyConnected(x, num_hidden=16)), p=0.0)
""",
    "resnet_v1": """
def convolution(x, channels, kernel, stride, relu=True):
    pad = kernel // 2
    x = mx.sym.Convolution(x, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad), num_filter=channels,
                           no_bias=True)
    x = mx.sym.BatchNorm(x, fix_gamma=False, eps=2e-5, momentum=0.9)
    return mx.sym.Activation(x, act_type="relu") if relu else x
x = convolution(mx.sym.Variable("data"), 4, 3, 1)
for channels, stride in ((4, 1), (6, 2), (8, 2)):
    y = convolution(convolution(x, channels, 3, stride), channels, 3, 1, relu=False)
    short = x if stride == 1 else convolution(x, channels, 1, stride, relu=False)
    x = mx.sym.Activation(y + short, act_type="relu")
x = mx.sym.Pooling(x, global_pool=True, kernel=(7, 7), pool_type="avg")
x = mx.sym.Flatten(x)
""",
    "resnet_v2": """
def normal(x):
    return mx.sym.Activation(mx.sym.BatchNorm(x, fix_gamma=False, eps=2e-5, momentum=0.9), act_type="relu")
def convolution(x, channels, kernel, stride):
    pad = kernel // 2
    return mx.sym.Convolution(x, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad),
                              num_filter=channels, no_bias=True, workspace=256)
x = mx.sym.BatchNorm(mx.sym.identity(mx.sym.Variable("data")), fix_gamma=True, eps=2e-5)
x = convolution(x, 4, 3, 1)
for channels, stride in ((4, 1), (6, 2), (8, 2)):
    first = normal(x)
    y = convolution(normal(convolution(normal(convolution(first, 4, 1, 1)), 4, 3, stride)), channels, 1, 1)
    x = y + (x if stride == 1 else convolution(first, channels, 1, stride))
x = mx.sym.Flatten(mx.sym.Pooling(normal(x), global_pool=True, kernel=(7, 7), pool_type="avg"))
""",
    "inception": """
def unit(x, channels, kernel=1, stride=1):
    pad = kernel // 2
    x = mx.sym.Convolution(x, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad), num_filter=channels)
    return mx.sym.Activation(mx.sym.BatchNorm(x), act_type="relu")
x = unit(mx.sym.Variable("data"), 4, 3, 2)
for i in range(2):
    pooled = mx.sym.Pooling(x, kernel=(3, 3), stride=(1, 1), pad=(1, 1), pool_type="avg" if i else "max")
    x = mx.sym.Concat(unit(x, 3), unit(unit(x, 2), 4, 3), unit(unit(unit(x, 2), 3, 3), 3, 3), unit(pooled, 2))
    if not i:
        x = mx.sym.Concat(unit(x, 3, 3, 2), mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1),
                                                           pool_type="max"), dim=1)
x = mx.sym.Flatten(mx.sym.Pooling(x, kernel=(7, 7), stride=(1, 1), pool_type="avg"))
""",
    "mobilenet": """
def unit(x, channels, kernel=1, stride=1, groups=1):
    pad = kernel // 2
    x = mx.sym.Convolution(x, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad), num_filter=channels,
                           num_group=groups, no_bias=True)
    return mx.sym.clip(mx.sym.BatchNorm(x, fix_gamma=False), 0, 6)
x, width = unit(mx.sym.Variable("data"), 4, 3, 2), 4
for channels, stride in ((6, 1), (8, 2), (8, 1), (10, 2)):
    x, width = unit(unit(x, width, 3, stride, groups=width), channels), channels
x = mx.sym.Flatten(mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg"))
""",
}
HEAD = "net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name='out'), name='softmax')\n"


def of_zoo(name):
    """The program that makes `net`, with names counted from nought."""
    return "with mx.name.NameManager():\n" + textwrap.indent(ZOO[name] + HEAD, "    ")


DOUBLE = """
shapes = {"data": (rows, 1, 28, 28), "softmax_label": (rows,)}
args, aux = initial(net, **shapes)
executor = net.simple_bind(mx.cpu(), type_dict={name: "float64" for name in net.list_arguments()}, **shapes)
executor.copy_params_from(args, aux)
velocity = {name: nd.zeros(value.shape, dtype="float64") for name, value in args.items()}
out_losses = []
for x, y_ in parts():
    executor.forward(is_train=True, data=nd.array(x, dtype="float64"), softmax_label=nd.array(y_, dtype="float64"))
    out_losses.append(entropy(executor.outputs[0], y_))
    executor.backward()
    mx.nd.waitall()
    for name in args:
        velocity[name][:] = 0.9 * velocity[name] - 0.02 / rows * executor.grad_dict[name]
        executor.arg_dict[name][:] += velocity[name]
out_states = [executor.aux_dict[name] for name in sorted(aux)]
out_grads = [executor.grad_dict[name] for name in sorted(args)]
"""


@pytest.mark.parametrize("name", [*ZOO, "eight_stages"])
def test_networks_in_double_precision(oracle, few, name):
    """Rounding moves values of single precision over the kinks of relu; in double precision curves are one."""
    make = of_zoo(name) if name in ZOO else EIGHT_STAGES + "net = eight_stages(0.0)\n"
    theirs = oracle.run(COMMON + make + DOUBLE, **few)
    found = execute(mx, COMMON + make + DOUBLE, few)
    assert_same(found["out_losses"], theirs["out_losses"], "losses", 1e-9)
    assert_same(found["out_grads"], theirs["out_grads"], "gradients", 1e-7, 1e-9)
    # MXNet's momentum of statistics is a number of single precision.
    assert_same(found["out_states"], theirs["out_states"], "statistics", 1e-6, 1e-7)
    assert found["out_grads"][0].dtype == np.float64
    assert np.mean(found["out_losses"][-5:]) < np.mean(found["out_losses"][:5])


LOAD = """
symbol, args, aux = mx.model.load_checkpoint(prefix, 1)
module = mx.mod.Module.load(prefix, 1, load_optimizer_states=states)
module.bind([("data", (rows, 1, 28, 28))], [("softmax_label", (rows,))])
out_predicted = predicted(module)
out_names = symbol.list_arguments(), symbol.list_auxiliary_states(), symbol.get_internals().list_outputs()
module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": rate, "momentum": 0.9, "wd": 1e-4})
out_losses = []
for x, y_ in parts():
    module.forward_backward(mx.io.DataBatch([nd.array(x)], [nd.array(y_)]))
    out_losses.append(entropy(module.get_outputs()[0], y_))
    module.update()
"""


@pytest.mark.parametrize("name", ZOO)
def test_networks_as_symbols(oracle, few, tmp_path, name):
    """Twenty steps from equal weights; then either library continues from the other's checkpoint."""
    rate = 0.001
    code = COMMON + of_zoo(name) + TRAIN
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    theirs = oracle.run(code, rate=rate, prefix=there, **few)
    ours = execute(mx, code, {"rate": rate, "prefix": here, **few})
    assert_same(ours["out_losses"], theirs["out_losses"], "losses", 1e-4, 1e-5)
    for key in ("out_predicted", "out_states"):
        assert_same(ours[key], theirs[key], key, 2e-3, 1e-4)
    again = {**few, "steps": 5, "rate": rate}
    expected = oracle.run(COMMON + LOAD, prefix=there, states=True, **again)
    stateless = oracle.run(COMMON + LOAD, prefix=there, states=False, **again)
    # MXNet cannot read our optimizer states: they are pickled objects of this package.
    crossed = [
        (execute(mx, COMMON + LOAD, {"prefix": there, "states": True, **again}), expected),
        (oracle.run(COMMON + LOAD, prefix=here, states=False, **again), stateless),
    ]
    for found, expected in crossed:
        assert found["out_names"] == expected["out_names"]
        assert_same(found["out_predicted"], theirs["out_predicted"], "predicted from files", 2e-3, 1e-4)
        assert_same(found["out_losses"], expected["out_losses"], "losses after loading", 5e-4, 2e-4)
