"""gluon.nn: every layer gives MXNet's names, shapes, text, outputs and gradients, its sizes told or not."""

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn

# (expression, input shape): what the first batch tells is left open wherever a layer allows it.
LAYERS = [
    ("nn.Dense(4)", (2, 3, 2)),
    ("nn.Dense(4, flatten=False, activation='tanh')", (2, 3, 2)),
    ("nn.Dense(4, use_bias=False, in_units=3)", (2, 3)),
    ("nn.Conv1D(4, 3, activation='relu')", (2, 3, 8)),
    ("nn.Conv2D(4, 3, groups=2, padding=1)", (2, 6, 8, 8)),
    ("nn.Conv2D(4, (3, 2), strides=2, dilation=(1, 2), use_bias=False)", (2, 3, 9, 8)),
    ("nn.Conv3D(4, (1, 2, 3))", (2, 3, 4, 5, 6)),
    ("nn.Conv1DTranspose(4, 3, strides=2, output_padding=1)", (2, 3, 8)),
    ("nn.Conv2DTranspose(4, 3, groups=2, in_channels=6)", (2, 6, 8, 8)),
    ("nn.Conv2DTranspose(4, 4, strides=2, padding=1, use_bias=False)", (2, 3, 5, 5)),
    ("nn.Conv3DTranspose(4, 2)", (2, 3, 3, 4, 5)),
    ("nn.BatchNorm()", (2, 3, 4, 4)),
    ("nn.BatchNorm(axis=-1, momentum=0.5)", (2, 3, 4, 5)),
    ("nn.BatchNorm(scale=False, center=False)", (4, 3)),
    ("nn.BatchNorm(use_global_stats=True)", (4, 3)),
    ("nn.InstanceNorm()", (2, 3, 4)),
    ("nn.InstanceNorm(axis=2, scale=True)", (2, 3, 4)),
    ("nn.LayerNorm()", (2, 3, 4)),
    ("nn.LayerNorm(axis=1, epsilon=1e-3)", (2, 3, 4)),
    ("nn.GroupNorm(3)", (2, 6, 4)),
    ("nn.PReLU()", (2, 3)),
    ("nn.PReLU(in_channels=3)", (2, 3, 4)),
    ("nn.ELU(0.5)", (2, 3)),
    ("nn.GELU()", (2, 3)),
    ("nn.Swish(2)", (2, 3)),
    ("nn.LeakyReLU(0.2)", (2, 3)),
    ("nn.Activation('softrelu')", (2, 3)),
    ("nn.Activation('softsign')", (2, 3)),
    ("nn.MaxPool1D()", (1, 2, 7)),
    ("nn.MaxPool2D(3, 2, 1)", (1, 2, 7, 7)),
    ("nn.MaxPool2D(3, 2, ceil_mode=True)", (1, 2, 8, 8)),
    ("nn.MaxPool3D()", (1, 2, 4, 4, 4)),
    ("nn.AvgPool1D(3, padding=1)", (1, 2, 7)),
    ("nn.AvgPool2D(3, padding=1, count_include_pad=False)", (1, 2, 7, 7)),
    ("nn.AvgPool3D(strides=1)", (1, 2, 4, 4, 4)),
    ("nn.GlobalMaxPool1D()", (1, 2, 7)),
    ("nn.GlobalMaxPool2D()", (1, 2, 5, 7)),
    ("nn.GlobalMaxPool3D()", (1, 2, 3, 2, 4)),
    ("nn.GlobalAvgPool1D()", (1, 2, 7)),
    ("nn.GlobalAvgPool2D()", (1, 2, 5, 7)),
    ("nn.GlobalAvgPool3D()", (1, 2, 3, 2, 4)),
    ("nn.ReflectionPad2D(2)", (1, 2, 7, 7)),
    ("nn.ReflectionPad2D((0, 0, 0, 0, 1, 2, 3, 0))", (1, 2, 7, 7)),
    ("nn.Flatten()", (2, 3, 4)),
    ("nn.Dropout(0)", (2, 3)),
    ("nn.HybridLambda('relu')", (2, 3)),
    ("nn.HybridLambda(lambda F, x: F.exp(x))", (2, 3)),
    ("nn.Lambda(lambda x: x * 2)", (2, 3)),
    ("gluon.contrib.nn.Identity()", (2, 3)),
    ("gluon.contrib.nn.PixelShuffle1D(3)", (2, 12, 2)),
    ("gluon.contrib.nn.PixelShuffle2D((2, 3))", (2, 12, 2, 3)),
    ("gluon.contrib.nn.PixelShuffle3D((2, 1, 3))", (2, 12, 2, 3, 2)),
]

# The parameters get values that depend only on their shape, so that both sides compute with the same.
PROGRAM = """
nn = gluon.nn
with mx.name.NameManager():
    net = LAYER
net.initialize()
x.attach_grad()
net(x)
params = net.collect_params().values()
for p in params:
    if p.grad_req == 'null' and p.name.endswith('gamma'):
        continue  # fixed at 1, which MXNet writes into it and we do not
    n = int(np.prod(p.shape))
    p.set_data(nd.array(np.cos(np.arange(n) * 1.7).reshape(p.shape) * 0.5 + 0.6))
with autograd.record():
    y = net(x)
    loss = (y * y * nd.array(np.sin(np.arange(y.size)).reshape(y.shape))).sum()
loss.backward()
out_text = repr(net), net.name
out_params = [(p.name, p.shape, p.grad_req) for p in params]
out_y, out_dx = y, x.grad
out_grads = [p.grad() for p in params if p.grad_req != 'null']
out_values = [p.data() for p in params]
out_predicted = net(x)
"""


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[layer for layer, _ in LAYERS])
def test_layer_as_mxnet(oracle, layer, shape):
    x = np.random.RandomState(3).randn(*shape).astype("float32")
    oracle.check(PROGRAM.replace("LAYER", layer), x=x, rtol=2e-4, atol=2e-5)


# What MXNet 1.9.1 printed, the counters of names being fresh.
TEXTS = [
    ("nn.Dense(2)", "dense0", "Dense(None -> 2, linear)"),
    ("nn.Dense(2, in_units=3, activation='relu')", "dense0", "Dense(3 -> 2, Activation(relu))"),
    ("nn.Dropout(0.5, axes=(1,))", "dropout0", "Dropout(p = 0.5, axes=(1,))"),
    (
        "nn.BatchNorm(in_channels=4, scale=False)",
        "batchnorm0",
        "BatchNorm(axis=1, eps=1e-05, momentum=0.9, fix_gamma=True, use_global_stats=False, in_channels=4)",
    ),
    (
        "nn.InstanceNorm()",
        "instancenorm0",
        "InstanceNorm(eps=1e-05, axis=1, center=True, scale=False, in_channels=0)",
    ),
    (
        "nn.LayerNorm(in_channels=3)",
        "layernorm0",
        "LayerNorm(eps=1e-05, axis=-1, center=True, scale=True, in_channels=3)",
    ),
    ("nn.GroupNorm(2)", "groupnorm0", "GroupNorm(eps=1e-05, num_groups=2, center=True, scale=True)"),
    ("nn.Embedding(3, 4)", "embedding0", "Embedding(3 -> 4, float32)"),
    ("nn.Flatten()", "flatten0", "Flatten"),
    ("nn.Lambda('relu')", "lambda0", "Lambda(relu)"),
    ("nn.HybridLambda(lambda F, x: x)", "hybridlambda0", "HybridLambda(<lambda>)"),
    ("nn.Activation('relu')", "relu0", "Activation(relu)"),
    ("nn.LeakyReLU(0.1)", "leakyrelu0", "LeakyReLU(0.1)"),
    ("nn.PReLU()", "prelu0", "PReLU(\n\n)"),
    (
        "nn.Conv2D(2, 3, strides=2, padding=1, dilation=2, groups=2, use_bias=False, in_channels=4, "
        "activation='relu')",
        "conv0",
        "Conv2D(2 -> 2, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2, "
        "bias=False, Activation(relu))",
    ),
    ("nn.Conv1DTranspose(2, 3)", "conv0", "Conv1DTranspose(2 -> 0, kernel_size=(3,), stride=(1,))"),
    ("nn.Conv2D(2, 3, layout='NHWC')", "conv0", "Conv2D(3 -> 2, kernel_size=(3, 3), stride=(1, 1))"),
    (
        "nn.MaxPool2D(3, 2, 1)",
        "pool0",
        "MaxPool2D(size=(3, 3), stride=(2, 2), padding=(1, 1), ceil_mode=False, global_pool=False, "
        "pool_type=max, layout=NCHW)",
    ),
    (
        "nn.GlobalAvgPool1D()",
        "pool0",
        "GlobalAvgPool1D(size=(1,), stride=(1,), padding=(0,), ceil_mode=True, global_pool=True, "
        "pool_type=avg, layout=NCW)",
    ),
    ("gluon.contrib.nn.PixelShuffle2D((2, 3))", "pixelshuffle2d0", "PixelShuffle2D((2, 3))"),
    ("gluon.contrib.nn.HybridConcurrent(1)", "hybridconcurrent0", "HybridConcurrent(\n\n)"),
]


@pytest.mark.parametrize(("layer", "name", "text"), TEXTS, ids=[layer for layer, _, _ in TEXTS])
def test_name_and_repr(layer, name, text):
    with mx.name.NameManager():
        net = eval(layer, {"nn": nn, "gluon": gluon})
    assert net.name == name
    assert repr(net) == text


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("nn.Conv2D(4, 3)", (4, 0, 3, 3)),
        ("nn.Conv2D(4, 3, groups=4)", (4, 0, 3, 3)),
        ("nn.Conv2D(4, 3, in_channels=6, groups=2, layout='NHWC')", (4, 3, 3, 3)),
        ("nn.Conv3D(4, (1, 2, 3), in_channels=2, layout='NDHWC')", (4, 1, 2, 3, 2)),
        ("nn.Conv2DTranspose(4, 3)", (0, 4, 3, 3)),
        ("nn.Conv2DTranspose(4, (3, 5), in_channels=6, groups=2)", (6, 2, 3, 5)),
        ("nn.Dense(4)", (4, 0)),
    ],
)
def test_weight_shape_before_the_first_batch(layer, shape):
    assert eval(layer, {"nn": nn}).weight.shape == shape


def test_embedding_looks_up_rows():
    net = nn.Embedding(5, 3)
    net.initialize()
    out = net(nd.array([[0, 4], [2, 2]]))
    assert out.shape == (2, 2, 3)
    np.testing.assert_array_equal(out.asnumpy(), net.weight.data().asnumpy()[[[0, 4], [2, 2]]])


def test_embedding_with_sparse_gradient_is_refused_by_name():
    with pytest.raises(NotImplementedError, match=r"grad_stype='row_sparse'.*sparse"):
        nn.Embedding(5, 3, sparse_grad=True)


def test_dropout_acts_in_training_only():
    net = nn.Dropout(0.5)
    x = nd.ones((1000,))
    np.testing.assert_array_equal(net(x).asnumpy(), np.ones(1000))
    with autograd.record():
        y = net(x).asnumpy()
    assert set(np.unique(y)) == {0.0, 2.0}
    assert 400 < (y == 0).sum() < 600


def test_batch_norm_moves_its_statistics_in_backward_only():
    net = nn.BatchNorm()
    net.initialize()
    x = nd.array([[1.0, 10.0], [3.0, 30.0]])
    with autograd.record():
        y = net(x)
    y.wait_to_read()
    np.testing.assert_array_equal(net.running_mean.data().asnumpy(), [0, 0])
    y.backward()
    np.testing.assert_allclose(net.running_mean.data().asnumpy(), [0.2, 2.0], rtol=1e-6)
    np.testing.assert_allclose(net.running_var.data().asnumpy(), [1.0, 10.9], rtol=1e-6)


def test_batch_norm_stays_in_float32_under_float16():
    net = nn.BatchNorm(in_channels=2)
    net.cast("float16")
    assert {np.dtype(p.dtype).name for p in net.collect_params().values()} == {"float32"}
    net.cast("float64")
    assert {np.dtype(p.dtype).name for p in net.collect_params().values()} == {"float64"}


def test_batch_norm_relu_is_batch_norm_then_relu():
    net = nn.BatchNormReLU(in_channels=1)
    net.initialize()
    np.testing.assert_allclose(net(nd.array([[-1.0], [1.0]])).asnumpy(), [[0], [0.999995]], rtol=1e-5)


@pytest.mark.parametrize("kind", [nn.Sequential, nn.HybridSequential])
def test_sequential_is_a_list_of_blocks(kind):
    net = kind(prefix="n_")
    with net.name_scope():
        net.add(nn.Dense(4), nn.Dense(3))
        net.add(nn.Dense(2))
    assert len(net) == 3
    assert [block.name for block in net] == ["n_dense0", "n_dense1", "n_dense2"]
    assert net[-1] is net[2]
    part = net[1:]
    assert type(part) is kind and len(part) == 2 and part[0] is net[1] and part.prefix == "n_"
    with pytest.raises(IndexError):
        net[3]
    assert list(net._children) == ["0", "1", "2"]
    net.initialize()
    assert net(nd.ones((5, 7))).shape == (5, 2)
    assert net[0].weight.shape == (4, 7)


def test_sequential_recommends_its_hybrid_sister():
    net = nn.Sequential(prefix="s_")
    net.add(nn.Dense(1))
    with pytest.warns(UserWarning, match="All children of this Sequential layer 's_' are HybridBlocks"):
        net.hybridize()


def test_concurrent_concatenates():
    for kind in (gluon.contrib.nn.Concurrent, gluon.contrib.nn.HybridConcurrent):
        net = kind(axis=1)
        net.add(gluon.contrib.nn.Identity(), nn.Activation("relu"))
        out = net(nd.array([[-1.0, 2.0]]))
        np.testing.assert_array_equal(out.asnumpy(), [[-1, 2, 0, 2]])


REFUSED = [
    ("nn.Conv2D(3, (3, 3, 3))", AssertionError, "kernel_size must be a number or a list of 2 ints"),
    ("nn.Conv2D(3, 3, strides=(1, 2, 3))", AssertionError, "strides"),
    ("nn.Conv2D(3, 3, layout='HWCN')", AssertionError, "layout must be 'NCHW' or 'NHWC'"),
    ("nn.Conv1D(3, 3, layout='NWC')", AssertionError, "layout must be 'NCW'"),
    ("nn.Conv2D(4, 3, in_channels=5, groups=2)", ValueError, "groups"),
    ("nn.Conv2D(4, 3, groups=0)", ValueError, "groups must be at least 1"),
    ("nn.MaxPool2D((3,))", AssertionError, "pool_size must be a number or a list of 2 ints"),
    ("nn.AvgPool3D(layout='x')", AssertionError, "layout"),
    ("nn.LeakyReLU(-1)", AssertionError, "no less than 0"),
    ("nn.Lambda('no_such_operator')", AssertionError, "no_such_operator is not found"),
    ("nn.Lambda(3)", ValueError, "Unrecognized function"),
    ("nn.HybridLambda('no_such_operator')", AssertionError, "no_such_operator is not found"),
    ("nn.HybridLambda(3)", ValueError, "Unrecognized function"),
    ("nn.ReflectionPad2D((1, 2))", ValueError, "8 ints"),
    ("nn.HybridSequential().add(3)", ValueError, "must also be HybridBlock"),
    ("nn.HybridSequential().add(nn.Sequential())", ValueError, "try HybridSequential instead"),
    ("nn.Sequential().add(3)", TypeError, "a child must be a Block"),
    ("gluon.contrib.nn.PixelShuffle2D((2, 0))", ValueError, "factor"),
    ("gluon.contrib.nn.SyncBatchNorm(num_devices=2)", NotImplementedError, "SyncBatchNorm"),
    ("gluon.contrib.nn.SparseEmbedding(2, 3)", NotImplementedError, "sparse"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[call for call, _, _ in REFUSED])
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        eval(call, {"nn": nn, "gluon": gluon})


def test_bad_input_of_a_deferred_layer_is_named():
    net = nn.Conv2D(4, 3, prefix="c_")
    net.initialize()
    with pytest.raises(ValueError, match=r"Conv2D 'c'.*4 axes \(NCHW\).*\(2, 3\)"):
        net(nd.ones((2, 3)))
    net = nn.Conv2D(4, 3, groups=2)
    net.initialize()
    with pytest.raises(ValueError, match="3 input channels do not divide into 2 groups"):
        net(nd.ones((1, 3, 5, 5)))
    assert net(nd.ones((1, 4, 5, 5))).shape == (1, 4, 3, 3)


def test_selu_as_mxnet_forward_and_its_slope_backward(oracle):
    # MXNet's own gradient below zero is scale * (alpha + selu(x)), which is not the slope.
    x = np.random.RandomState(3).randn(2, 3).astype("float32")
    code = "net = gluon.nn.SELU()\nnet.initialize()\nout = net(x)\nout_y = out"
    oracle.check(code, x=x, rtol=1e-5, atol=1e-6)
    data = nd.array(x)
    data.attach_grad()
    with autograd.record():
        y = nn.SELU()(data)
    y.backward()
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    slope = np.where(x > 0, scale, scale * alpha * np.exp(x))
    np.testing.assert_allclose(data.grad.asnumpy(), slope, rtol=1e-5)
