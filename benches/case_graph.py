"""The cases of graphs for mxrs and for MXNet 1.9.1: hybridized networks, executors, and making a plan."""

from __future__ import annotations

from typing import Any

import numpy as np


def cases(mx: Any) -> dict[str, Any]:
    """Every case by name."""
    return {
        "chain20": lambda: _chain(mx),
        "resnet18": lambda: _image_training(mx, 18),
        "resnet50": lambda: _image_training(mx, 50),
        "resnet18-eager": lambda: _image_training(mx, 18, False),
        "lstm": lambda: _lstm(mx),
        "lstm-eager": lambda: _lstm(mx, False),
        "bind10000": lambda: _bind(mx),
        "executor": lambda: _executor(mx),
        "module": lambda: _module(mx),
    }


def memory_cases(mx: Any) -> dict[str, Any]:
    """The cases whose memory is measured: the same steps, and a large one by Executor."""
    return {
        "resnet50": lambda: _image_training(mx, 50),
        "resnet50-executor": lambda: _image_executor(mx, 50),
    }


def _random(mx: Any, *shape: int) -> Any:
    return mx.nd.array(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def _chain(mx: Any) -> Any:
    class Chain(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]
        def hybrid_forward(self, F: Any, x: Any) -> Any:
            for i in range(10):
                x = x * 1.01 + 0.1 if i % 2 else F.relu(x) - 0.5
            return x

    net = Chain()
    net.hybridize(static_alloc=True, static_shape=True)
    data = _random(mx, 4_000_000)

    def work(n: int) -> None:
        for _ in range(n):
            net(data).wait_to_read()

    return work, mx.nd.waitall


def _unit(mx: Any, channels: int, stride: int, widen: bool, deep: bool) -> Any:
    nn = mx.gluon.nn

    class Unit(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.HybridSequential()
            out = channels * 4 if deep else channels
            if deep:
                self.body.add(
                    nn.Conv2D(channels, 1, stride, use_bias=False), nn.BatchNorm(), nn.Activation("relu")
                )
                self.body.add(
                    nn.Conv2D(channels, 3, 1, 1, use_bias=False), nn.BatchNorm(), nn.Activation("relu")
                )
                self.body.add(nn.Conv2D(out, 1, use_bias=False), nn.BatchNorm())
            else:
                self.body.add(
                    nn.Conv2D(channels, 3, stride, 1, use_bias=False), nn.BatchNorm(), nn.Activation("relu")
                )
                self.body.add(nn.Conv2D(out, 3, 1, 1, use_bias=False), nn.BatchNorm())
            self.skip = None
            if widen:
                self.skip = nn.HybridSequential()
                self.skip.add(nn.Conv2D(out, 1, stride, use_bias=False), nn.BatchNorm())

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            rest = x if self.skip is None else self.skip(x)
            return F.Activation(self.body(x) + rest, act_type="relu")

    return Unit()


def residual_network(mx: Any, layers: int) -> Any:
    """The networks of He et al. (2015) with 18 or 50 layers."""
    nn = mx.gluon.nn
    counts, deep = ((2, 2, 2, 2), False) if layers == 18 else ((3, 4, 6, 3), True)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(64, 7, 2, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(3, 2, 1)
    )
    for stage, (channels, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True)):
        for i in range(count):
            first = i == 0
            net.add(_unit(mx, channels, 2 if first and stage else 1, first and (deep or stage > 0), deep))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(1000))
    return net


def training(mx: Any, net: Any, data: Any, label: Any, hybridize: bool = True) -> Any:
    """The work of training steps."""
    net.initialize(mx.init.Xavier())
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})

    def work(n: int) -> None:
        for _ in range(n):
            with mx.autograd.record():
                loss = loss_of(net(data), label)
            loss.backward()
            trainer.step(data.shape[0])
        mx.nd.waitall()

    return work, mx.nd.waitall


def _image_training(mx: Any, layers: int, hybridize: bool = True) -> Any:
    data, label = _random(mx, 8, 3, 224, 224), mx.nd.array(np.arange(8))
    return training(mx, residual_network(mx, layers), data, label, hybridize)


def _lstm(mx: Any, hybridize: bool = True) -> Any:
    gluon = mx.gluon

    class Model(gluon.HybridBlock):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.cell = gluon.rnn.LSTMCell(128, input_size=64)
            self.out = gluon.nn.Dense(10)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            outputs, _ = self.cell.unroll(20, x, layout="NTC", merge_outputs=False)
            return self.out(outputs[-1])

    return training(mx, Model(), _random(mx, 32, 20, 64), mx.nd.array(np.arange(32) % 10), hybridize)


def _bind(mx: Any) -> Any:
    x = mx.sym.Variable("x")
    for _ in range(3333):
        x = mx.sym.relu(x * 1.01 + 0.5)
    symbol = mx.sym.sum(x)

    def work(n: int) -> None:
        for _ in range(n):
            symbol.simple_bind(mx.cpu(), x=(8, 8))

    return work, mx.nd.waitall


def _mlp(mx: Any) -> Any:
    x = mx.sym.Variable("data")
    for i, size in enumerate((128, 64)):
        x = mx.sym.Activation(mx.sym.FullyConnected(x, num_hidden=size, name=f"fc{i}"), act_type="relu")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name="fc"), name="softmax")


def _image_executor(mx: Any, layers: int) -> Any:
    net = residual_network(mx, layers)
    net.initialize()
    net.hybridize()
    symbol = mx.sym.SoftmaxOutput(net(mx.sym.Variable("data")), name="softmax")
    bound = symbol.simple_bind(mx.cpu(), data=(8, 3, 224, 224))
    for name, array in bound.arg_dict.items():
        if name.endswith("weight"):
            mx.nd.random.normal(0, 0.05, shape=array.shape, out=array)
    return _executor_training(mx, bound, _random(mx, 8, 3, 224, 224), mx.nd.array(np.arange(8)))


def _executor(mx: Any) -> Any:
    bound = _mlp(mx).simple_bind(mx.cpu(), data=(128, 784))
    for name, array in bound.arg_dict.items():
        if name not in ("data", "softmax_label"):
            array[:] = 0.01
    return _executor_training(mx, bound, _random(mx, 128, 784), mx.nd.array(np.arange(128) % 10))


def _executor_training(mx: Any, bound: Any, data: Any, label: Any) -> Any:
    names = [n for n in bound.arg_dict if n not in ("data", "softmax_label")]
    optimizer = mx.optimizer.SGD(learning_rate=0.01, momentum=0.9, rescale_grad=1 / data.shape[0])
    update = mx.optimizer.get_updater(optimizer)

    def work(n: int) -> None:
        for _ in range(n):
            bound.forward(is_train=True, data=data, softmax_label=label)
            bound.backward()
            for i, name in enumerate(names):
                update(i, bound.grad_dict[name], bound.arg_dict[name])
        mx.nd.waitall()

    return work, mx.nd.waitall


def _module(mx: Any) -> Any:
    batches = 20
    data = np.random.default_rng(0).standard_normal((128 * batches, 784)).astype("float32")
    feed = mx.io.NDArrayIter(data, (np.arange(128 * batches) % 10).astype("float32"), 128)
    module = mx.mod.Module(_mlp(mx), context=mx.cpu())
    options = {"learning_rate": 0.01, "momentum": 0.9}

    def work(n: int) -> None:
        for _ in range(n):
            module.fit(feed, num_epoch=1, optimizer="sgd", optimizer_params=options, eval_metric="ce")

    return work, mx.nd.waitall
