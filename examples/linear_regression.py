"""Linear regression twice: with nothing but arrays and autograd, and with Gluon.

    python examples/linear_regression.py

Both fit y = 2 a - 3.4 b + 4.2 to a thousand noisy points and print what they found.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn

TRUE_W = (2.0, -3.4)
TRUE_B = 4.2
POINTS = 1000
BATCH = 10
EPOCHS = 3
RATE = 0.03


def make_points() -> tuple[Any, Any]:
    """Features (1000, 2) and noisy targets (1000,)."""
    features = nd.random.normal(scale=1, shape=(POINTS, len(TRUE_W)))
    targets = TRUE_W[0] * features[:, 0] + TRUE_W[1] * features[:, 1] + TRUE_B
    return features, targets + nd.random.normal(scale=0.01, shape=targets.shape)


def batches(features: Any, targets: Any) -> Iterator[tuple[Any, Any]]:
    """Batches of points in random order."""
    order = list(range(len(features)))
    random.shuffle(order)
    for start in range(0, len(order), BATCH):
        chosen = nd.array(order[start : start + BATCH])
        yield features.take(chosen), targets.take(chosen)


def fit_by_hand(features: Any, targets: Any) -> tuple[Any, Any, list[float]]:
    """Weights (2, 1), bias (1,), and the mean loss over all points after each epoch."""
    w = nd.random.normal(scale=0.01, shape=(len(TRUE_W), 1))
    b = nd.zeros(shape=(1,))
    for parameter in (w, b):
        parameter.attach_grad()

    def predict(x: Any) -> Any:
        return nd.dot(x, w) + b

    def squared_loss(guess: Any, truth: Any) -> Any:
        return (guess - truth.reshape(guess.shape)) ** 2 / 2

    history = []
    for epoch in range(EPOCHS):
        for x, y in batches(features, targets):
            with autograd.record():
                loss = squared_loss(predict(x), y)
            loss.backward()
            for parameter in (w, b):
                parameter[:] = parameter - RATE * parameter.grad / BATCH
        history.append(squared_loss(predict(features), targets).mean().asscalar())
        print(f"by hand,    epoch {epoch + 1}, loss {history[-1]:.6f}")
    return w, b, history


def fit_with_gluon(features: Any, targets: Any) -> tuple[Any, Any, list[float]]:
    """The same with a network of one layer: weights (1, 2), bias (1,), loss after each epoch."""
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(features, targets), BATCH, shuffle=True)
    net = nn.Sequential()
    net.add(nn.Dense(1))
    net.initialize(mx.init.Normal(sigma=0.01))
    loss_of = gluon.loss.L2Loss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE})
    history = []
    for epoch in range(EPOCHS):
        for x, y in loader:
            with autograd.record():
                loss = loss_of(net(x), y)
            loss.backward()
            trainer.step(BATCH)
        loss = loss_of(net(features), targets)
        history.append(loss.mean().asscalar())
        print("with Gluon, epoch %d, loss %.6f" % (epoch + 1, loss.mean().asnumpy()))
    return net[0].weight.data(), net[0].bias.data(), history


def main(seed: int = 0) -> None:
    mx.random.seed(seed)
    random.seed(seed)
    features, targets = make_points()
    for fit in (fit_by_hand, fit_with_gluon):
        w, b, _ = fit(features, targets)
        print(f"found w = {w.asnumpy().ravel().round(3).tolist()}, b = {b.asscalar():.3f}")


if __name__ == "__main__":
    main()
