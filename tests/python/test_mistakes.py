"""Mistakes that programs make with what they use most: the error says where, what was given and what is allowed."""

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn
from mxrs.gluon.data.vision import transforms

CTX = r"Context such as mx\.cpu\(\)"


def array():
    return nd.array([[1, 2, 3], [4, 5, 6]])


def net():
    block = nn.HybridSequential(prefix="net_")
    block.add(nn.Dense(2, in_units=3, prefix="net_dense_"))
    block.initialize()
    return block


def symbol():
    return mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc"), name="softmax"
    )


def bound():
    module = mx.mod.Module(symbol())
    module.bind([("data", (2, 3))], [("softmax_label", (2,))])
    return module


def fit(**options):
    data = mx.io.NDArrayIter(np.ones((4, 3)), np.ones(4), 2)
    mx.mod.Module(symbol()).fit(data, **{"num_epoch": 1, **options})


def trainer(*args, **options):
    return gluon.Trainer(net().collect_params(), *(args or ("sgd",)), **options)


def executor():
    return symbol().simple_bind(mx.cpu(), data=(2, 3))


#: What is called, the class of the error, and what its text has to say.
MISTAKES = {
    # a misspelt argument: which class, and what was perhaps meant
    "dense": (lambda: nn.Dense(2, actvation="relu"), TypeError, "Dense: .*'actvation'; did you mean 'activation'"),
    "conv": (lambda: nn.Conv2D(2, 3, kernl_size=3), TypeError, "Conv2D: .*'kernl_size'; did you mean 'kernel_size'"),
    "norm": (lambda: nn.BatchNorm(eps=1e-3), TypeError, "BatchNorm: .*'eps'; did you mean 'epsilon'"),
    "loss": (lambda: gluon.loss.L2Loss(wieght=1), TypeError, "L2Loss: .*'wieght'; did you mean 'weight'"),
    "lr": (lambda: trainer("sgd", {"lr": 0.1}), TypeError, "SGD: .*'lr'; did you mean 'learning_rate'"),
    "momentum": (lambda: mx.optimizer.create("nag", momentm=1), TypeError, "NAG: .*did you mean 'momentum'"),
    "fit lr": (lambda: fit(optimizer_params={"lr": 0.1}), TypeError, "SGD: .*did you mean 'learning_rate'"),
    "uniform": (lambda: nd.random.uniform(0, 1, shp=(2,)), TypeError, "'shp'; did you mean 'shape'.*low, high"),
    # contexts
    "initialize": (lambda: net().initialize(ctx="cpu", force_reinit=True), TypeError, CTX + ".*'cpu'"),
    "reset_ctx": (lambda: net().collect_params().reset_ctx("cpu"), TypeError, CTX + ".*'cpu'"),
    "module ctx": (lambda: mx.mod.Module(symbol(), context="cpu"), TypeError, "Module: .*" + CTX + ".*'cpu'"),
    "copyto": (lambda: array().copyto("cpu"), TypeError, "copyto.*'str'.*" + CTX),
    "cpu": (lambda: mx.cpu("a"), TypeError, "device_id must be a whole number, given 'a'"),
    "split": (lambda: gluon.utils.split_and_load(array(), 5), TypeError, "ctx_list is a list of contexts, given 5"),
    # files
    "load": (lambda: net().load_parameters(5), TypeError, "load: .*given 5"),
    "save": (lambda: nd.save(None, array()), TypeError, "save: .*given None"),
    "checkpoint": (lambda: mx.model.save_checkpoint("m", "x", None, {}, {}), TypeError, "epoch.*given 'x'"),
    "checkpoint 2": (lambda: mx.model.save_checkpoint("m", 1, 5, {}, {}), TypeError, "symbol is a Symbol.*int"),
    "resume": (lambda: mx.model.load_checkpoint("m", "x"), Exception, "epoch.*given 'x'|m-symbol"),
    # blocks
    "number": (lambda: net()(5), ValueError, "HybridSequential 'net' was given int .*mx.nd.array"),
    "two inputs": (lambda: net()[0](array(), array()), TypeError, "'net_dense': 2 inputs .* takes x$"),
    "no label": (lambda: gluon.loss.L1Loss()(array()), TypeError, "L1Loss.*1 inputs .* pred, label"),
    "half units": (lambda: nn.Dense(2.5), TypeError, r"whole numbers; \(2.5, 0\)"),
    "set_data": (lambda: net()[0].weight.set_data(5), TypeError, r"'net_dense_weight'.* \(2, 3\), given int"),
    "axis": (lambda: one(nn.BatchNorm(axis=9)), ValueError, r"axis 9 is not an axis of the input.*\(2, 3\)"),
    "rate": (lambda: nn.Dropout("x"), TypeError, "Dropout: rate is a number from 0 to 1, given 'x'"),
    "transform": (lambda: transforms.ToTensor()(5), ValueError, "ToTensor.*was given int"),
    # training
    "options": (lambda: trainer("sgd", 5), TypeError, "optimizer_params is a dict.*given 5"),
    "no samples": (lambda: trainer().step(0), ValueError, "Trainer.step: batch_size.*given 0"),
    "no number": (lambda: trainer().update("x"), ValueError, "Trainer.update: batch_size.*given 'x'"),
    "rate 2": (lambda: trainer().set_learning_rate("x"), TypeError, "set_learning_rate: a number.*'x'"),
    "clip": (lambda: gluon.utils.clip_global_norm(5, 1), TypeError, "clip_global_norm: .*given int"),
    "clip 2": (lambda: gluon.utils.clip_global_norm([array()], "x"), TypeError, "max_norm is a number, given 'x'"),
    "metric": (lambda: mx.metric.Accuracy().update(5, [array()]), TypeError, "labels is an NDArray.*given int"),
    "grad_req": (lambda: array().attach_grad(5), TypeError, "attach_grad: .*'write', 'add' or 'null', given 5"),
    "head": (lambda: array().backward(5), TypeError, r"backward: out_grad .*\(2, 3\), given int"),
    "heads": (lambda: autograd.backward([5]), TypeError, "backward: heads are NDArrays, given int"),
    "head_grads": (lambda: autograd.grad([array()], [array()], [5]), TypeError, "grad: head_grads .*given int"),
    "mark": (lambda: autograd.mark_variables(array(), 5), TypeError, "mark_variables: .*given int"),
    # data
    "loader": (lambda: gluon.data.DataLoader(5, 2), TypeError, "DataLoader: dataset needs __len__.*int has not"),
    "dataset": (lambda: gluon.data.ArrayDataset([1], 5), TypeError, r"ArrayDataset: .*array\[1\] is 5"),
    "url": (lambda: gluon.utils.download(5), TypeError, "download: url is text, given 5"),
    # the symbolic half
    "module": (lambda: mx.mod.Module(5), TypeError, "Module: symbol must be a Symbol, given int"),
    "bind": (lambda: mx.mod.Module(symbol()).bind(5), TypeError, r"data_shapes is a list of pairs.*given 5"),
    "shape": (
        lambda: mx.mod.Module(symbol()).bind([("data", "x")]),
        TypeError,
        "data_shapes is a list of pairs.*'data' is 'x'",
    ),
    "initializer": (lambda: bound().init_params("xavir"), AssertionError, "did you mean 'xavier'"),
    "initializer 2": (lambda: bound().init_params(5), TypeError, "init_params: .*given 5"),
    "values": (lambda: bound().init_params(arg_params=5), TypeError, "init_params: arg_params is a dict.*int"),
    "missing": (
        lambda: bound().init_params(arg_params={"fc_weight": nd.ones((2, 3))}),
        RuntimeError,
        "fc_bias is not presented: .*are fc_weight; with allow_missing=True",
    ),
    "epochs": (lambda: fit(num_epoch="x"), TypeError, "fit: num_epoch .*given 'x'"),
    "infer": (lambda: symbol().infer_shape(data=("a", 3)), TypeError, "infer_shape: .*'data' .*given"),
    "group": (lambda: mx.sym.Group(5), TypeError, "Group: .*list of symbols.*given 5"),
    "variable": (lambda: mx.sym.Variable("x", shape="y"), TypeError, "variable x: shape .*given 'y'"),
    "out_grads": (lambda: executor().backward(5), TypeError, "out_grads must be NDArrays, not int"),
    "copy params": (lambda: executor().copy_params_from(5), TypeError, "copy_params_from: a dict.*given int"),
}  # fmt: skip


def one(block):
    block.initialize()
    return block(array())


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, error, words = MISTAKES[name]
    with pytest.raises(error, match=words):
        call()


def test_what_can_only_mean_one_thing_works():
    module = mx.mod.Module(symbol(), data_names="data", label_names="softmax_label")
    module.bind([("data", (2, 3))], [("softmax_label", (2,))])
    module.init_params("ones")
    assert (module.get_params()[0]["fc_weight"].asnumpy() == 1).all()


def test_an_inner_mistake_keeps_its_own_text():
    """Only a wrong number of inputs is told as one."""

    class Inner(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            raise TypeError("from inside")

    with pytest.raises(TypeError, match="^from inside$"):
        Inner()(array())


def test_python_says_what_was_meant():
    """The interpreter's hint reads what the error carries."""
    with pytest.raises(AttributeError, match="'metrik'") as caught:
        _ = mx.metrik
    assert caught.value.name == "metrik" and caught.value.obj is mx and "metric" in dir(mx)


@pytest.mark.parametrize("data", [b"", b"junk that is no pickle", b"\x80\x04K\x01."])
def test_damaged_states_name_their_file(tmp_path, data):
    path = tmp_path / "net.states"
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"net\.states: optimizer states"):
        trainer().load_states(str(path))
    module = bound()
    module.init_params()
    module.init_optimizer()
    with pytest.raises(Exception, match=r"net\.states: optimizer states"):
        module.load_optimizer_states(str(path))


def test_a_misspelt_option_of_hybridize_is_told():
    with pytest.warns(UserWarning, match="'staticalloc'; did you mean 'static_alloc'"):
        net().hybridize(staticalloc=True)


@pytest.mark.parametrize("other", [[1, 2], (1,), "ab", b"x"])
def test_lists_and_texts_are_no_operands(other: object) -> None:
    """Python would repeat them as often as the array's only number says."""
    with pytest.raises(TypeError, match="make an array of it"):
        mx.nd.array([3], dtype="int32") * other
