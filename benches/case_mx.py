"""The cases for mxrs and for MXNet 1.9.1: one text, since one is to run the programs of the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import case_graph

Case = Callable[[], tuple[Callable[[int], None], Callable[[], None]]]


def cases(library: str, threads: int) -> dict[str, Case]:
    """Every case by name. `threads` reaches the library through OMP_NUM_THREADS, set by who started this
    process.
    """
    mx = importlib.import_module(library)
    return {
        "add10": lambda: _add10(mx),
        "chain10": lambda: _chain10(mx),
        "asnumpy10": lambda: _asnumpy10(mx),
        "mlp": lambda: _training(mx, "mlp"),
        "lenet": lambda: _training(mx, "lenet"),
        "mlp-eager": lambda: _training(mx, "mlp", False),
        "lenet-eager": lambda: _training(mx, "lenet", False),
        "gemm1024": lambda: _gemm(mx),
        "elementwise": lambda: _elementwise(mx),
        "overlap": lambda: _overlap(mx, wait=True),
        "issue": lambda: _overlap(mx, wait=False),
        **case_graph.cases(mx),
    }


def _random(mx: Any, *shape: int) -> Any:
    return mx.nd.array(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def _add10(mx: Any) -> Any:
    a, b = _random(mx, 10), _random(mx, 10)

    def work(n: int) -> None:
        for _ in range(n):
            a + b
        mx.nd.waitall()

    return work, mx.nd.waitall


def _chain10(mx: Any) -> Any:
    x = _random(mx, 10)
    x.attach_grad()
    tanh, record = mx.nd.tanh, mx.autograd.record

    def work(n: int) -> None:
        for _ in range(n):
            with record():
                y = x
                for _ in range(5):
                    y = tanh(y * 1.01)
            y.backward()
        x.grad.wait_to_read()

    return work, mx.nd.waitall


def _asnumpy10(mx: Any) -> Any:
    a = _random(mx, 10)

    def work(n: int) -> None:
        for _ in range(n):
            a.asnumpy()

    return work, mx.nd.waitall


def _network(mx: Any, kind: str) -> tuple[Any, Any]:
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    if kind == "mlp":
        net.add(nn.Dense(128, activation="relu"), nn.Dense(64, activation="relu"), nn.Dense(10))
        return net, _random(mx, 128, 784)
    net.add(
        nn.Conv2D(20, kernel_size=5, activation="tanh"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Conv2D(50, kernel_size=5, activation="tanh"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Flatten(),
        nn.Dense(500, activation="tanh"),
        nn.Dense(10),
    )
    return net, _random(mx, 128, 1, 28, 28)


def _training(mx: Any, kind: str, hybridize: bool = True) -> Any:
    gluon, autograd = mx.gluon, mx.autograd
    net, data = _network(mx, kind)
    net.initialize(mx.init.Xavier())
    if hybridize:
        net.hybridize()
    label = mx.nd.array(np.arange(128) % 10)
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})

    def work(n: int) -> None:
        for _ in range(n):
            with autograd.record():
                loss = loss_of(net(data), label)
            loss.backward()
            trainer.step(128)
        mx.nd.waitall()

    return work, mx.nd.waitall


def _gemm(mx: Any) -> Any:
    a, b = _random(mx, 1024, 1024), _random(mx, 1024, 1024)

    def work(n: int) -> None:
        for _ in range(n):
            mx.nd.dot(a, b).wait_to_read()

    return work, mx.nd.waitall


def _elementwise(mx: Any) -> Any:
    a, b, c = (_random(mx, 1000, 1000) for _ in range(3))
    nd = mx.nd

    def work(n: int) -> None:
        for _ in range(n):
            nd.sqrt(nd.relu(nd.tanh(a * b + c)) + 1.0).wait_to_read()

    return work, nd.waitall


def _overlap(mx: Any, wait: bool) -> Any:
    a, b = _random(mx, 256, 256), _random(mx, 256, 256)
    dot = mx.nd.dot

    def work(n: int) -> None:
        for _ in range(n):
            x, y = a, b
            for _ in range(4):
                x, y = dot(x, a), dot(y, b)
            if wait:
                x.wait_to_read()
                y.wait_to_read()

    return work, mx.nd.waitall
