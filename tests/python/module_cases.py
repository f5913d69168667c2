"""What the tests of the modules share: a small network, a bound module, batches, separable points."""

import numpy as np

import mxrs as mx
from mxrs import nd

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
    module = mx.mod.Module(network() if symbol is None else symbol, **kwargs)
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
