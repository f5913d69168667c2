"""The cases for PyTorch on the CPU, as its users would write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def cases(library: str, threads: int) -> dict[str, Any]:
    """Every case by name. PyTorch computes at once, so `issue` is not measured."""
    torch.set_num_threads(threads)
    return {
        "add10": _add10,
        "chain10": _chain10,
        "asnumpy10": _asnumpy10,
        "mlp": lambda: _training("mlp"),
        "lenet": lambda: _training("lenet"),
        "gemm1024": _gemm,
        "elementwise": _elementwise,
        "overlap": _overlap,
    }


def _nothing() -> None:
    pass


def _random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def _add10() -> Any:
    a, b = _random(10), _random(10)

    def work(n: int) -> None:
        for _ in range(n):
            a + b

    return work, _nothing


def _chain10() -> Any:
    x = _random(10).requires_grad_()
    ones = torch.ones(10)
    tanh = torch.tanh

    def work(n: int) -> None:
        for _ in range(n):
            x.grad = None
            y = x
            for _ in range(5):
                y = tanh(y * 1.01)
            y.backward(ones)

    return work, _nothing


def _asnumpy10() -> Any:
    a = _random(10)

    def work(n: int) -> None:
        for _ in range(n):
            a.numpy().copy()  # a copy, as asnumpy makes one

    return work, _nothing


def _training(kind: str) -> Any:
    nn = torch.nn
    if kind == "mlp":
        net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
        data = _random(128, 784)
    else:
        net = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
        )  # fmt: skip
        data = _random(128, 1, 28, 28)
    label = torch.arange(128) % 10
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def work(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            loss_of(net(data), label).backward()
            optimizer.step()

    return work, _nothing


def _gemm() -> Any:
    a, b = _random(1024, 1024), _random(1024, 1024)

    def work(n: int) -> None:
        for _ in range(n):
            torch.mm(a, b)

    return work, _nothing


def _elementwise() -> Any:
    a, b, c = (_random(1000, 1000) for _ in range(3))

    def work(n: int) -> None:
        for _ in range(n):
            torch.sqrt(torch.relu(torch.tanh(a * b + c)) + 1.0)

    return work, _nothing


def _overlap() -> Any:
    a, b = _random(256, 256), _random(256, 256)

    def work(n: int) -> None:
        for _ in range(n):
            x, y = a, b
            for _ in range(4):
                x, y = x @ a, y @ b

    return work, _nothing
