"""Deployed networks: from files, from bytes, with other shapes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from mxrs.gluon import nn
from mxrs.predictor import Predictor


@pytest.fixture
def deployed(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Flatten(), nn.Dense(4))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    x = mx.nd.random.normal(shape=(2, 1, 8, 8))
    y = net(x).asnumpy()
    return (*net.export(str(tmp_path / "net")), x, y)


def test_files_and_bytes_answer_alike(deployed):
    symbol, params, x, y = deployed
    by_file = Predictor(symbol, params, {"data": (2, 1, 8, 8)})
    np.testing.assert_allclose(by_file(data=x)[0], y, rtol=1e-5, atol=1e-6)
    with open(symbol) as text, open(params, "rb") as raw:
        by_bytes = Predictor(text.read(), raw.read(), {"data": (2, 1, 8, 8)})
    by_bytes.forward(data=x.asnumpy())
    np.testing.assert_allclose(by_bytes.get_output(0).asnumpy(), y, rtol=1e-5, atol=1e-6)


def test_other_batches(deployed):
    symbol, params, x, y = deployed
    net = Predictor(symbol, params, {"data": (2, 1, 8, 8)})
    net.reshape({"data": (1, 1, 8, 8)})
    np.testing.assert_allclose(net(data=x[1:2])[0], y[1:2], rtol=1e-5, atol=1e-6)


def test_what_is_refused(deployed):
    symbol, params, x, _ = deployed
    with pytest.raises(mx.MXNetError, match="has no input picture"):
        Predictor(symbol, params, {"picture": (2, 1, 8, 8)})
    weights = mx.nd.load(params)
    some = {name: value for name, value in weights.items() if "conv" not in name}
    with pytest.raises(mx.MXNetError, match="no values for conv"):
        Predictor(symbol, some, {"data": (2, 1, 8, 8)})
    name = next(n for n in weights if "conv" in n and n.endswith("weight"))
    with pytest.raises(mx.MXNetError, match=r"the network needs \(3, 1, 3, 3\)"):
        Predictor(symbol, {**weights, name: mx.nd.zeros((3, 1, 5, 5))}, {"data": (2, 1, 8, 8)})
    net = Predictor(symbol, params, {"data": (2, 1, 8, 8)})
    with pytest.raises(TypeError, match="no input is named x"):
        net(x=x)
    with pytest.raises(ValueError, match="Shape not match"):
        net(data=x[0:1])


def test_the_label_of_a_loss_is_no_input():
    x = mx.sym.Variable("data")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc"), name="softmax")
    params = {"arg:fc_weight": mx.nd.ones((3, 2)), "arg:fc_bias": mx.nd.zeros((3,))}
    answer = Predictor(net, params, {"data": (5, 2)})(data=np.ones((5, 2), "float32"))
    np.testing.assert_allclose(answer[0], np.full((5, 3), 1 / 3), rtol=1e-6)
