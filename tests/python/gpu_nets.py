"""Small networks of every kind that people train, and their training, for the tests on GPUs.

A `Case` is a network, its batch and its loss; `curve` trains it on a context for ten steps from the same weights wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn, rnn

STEPS = 10


class Case(NamedTuple):
    """What is trained: a network, its inputs and labels as NumPy arrays, and a loss."""

    make: Callable[[], Any]
    inputs: tuple[np.ndarray, ...]
    label: np.ndarray
    loss: Callable[[], Any]


class BasicBlock(gluon.HybridBlock):
    """Two convolutions around which the input runs, through a convolution of its own where sizes change."""

    def __init__(self, channels: int, stride: int, widen: bool) -> None:
        super().__init__()
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(
                nn.Conv2D(channels, 3, strides=stride, padding=1, use_bias=False),
                nn.BatchNorm(),
                nn.Activation("relu"),
                nn.Conv2D(channels, 3, padding=1, use_bias=False),
                nn.BatchNorm(),
            )
            self.shortcut = None
            if widen:
                self.shortcut = nn.HybridSequential()
                self.shortcut.add(nn.Conv2D(channels, 1, strides=stride, use_bias=False), nn.BatchNorm())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        kept = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.body(x) + kept)


def resnet() -> Any:
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Conv2D(8, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"))
        net.add(nn.MaxPool2D(2, 2), BasicBlock(8, 1, False), BasicBlock(12, 2, True))
        net.add(nn.GlobalAvgPool2D(), nn.Dense(5))
    return net


def mobilenet() -> Any:
    net = nn.HybridSequential()

    def unit(channels: int, groups: int, kernel: int, stride: int) -> None:
        net.add(nn.Conv2D(channels, kernel, stride, kernel // 2, groups=groups, use_bias=False))
        net.add(nn.BatchNorm(scale=True), nn.Activation("relu"))

    with net.name_scope():
        unit(8, 1, 3, 1)
        unit(8, 8, 3, 1)
        unit(12, 1, 1, 1)
        unit(12, 12, 3, 2)
        unit(16, 1, 1, 1)
        net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(5))
    return net


class Unrolled(gluon.HybridBlock):
    """One LSTM cell over five steps, and a dense layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.cell = rnn.LSTMCell(7)
            self.head = nn.Dense(5)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        outputs, _ = self.cell.unroll(5, x, layout="NTC", merge_outputs=False)
        return self.head(outputs[-1])


class Stacked(gluon.HybridBlock):
    """A stack of cells (LSTM, a residual GRU, dropout that drops nothing) merged over time."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.cells = rnn.HybridSequentialRNNCell()
            self.cells.add(rnn.LSTMCell(6))
            self.cells.add(rnn.ResidualCell(rnn.GRUCell(6)))
            self.cells.add(rnn.DropoutCell(0.0))
            self.cells.add(rnn.RNNCell(6, activation="tanh"))
            self.head = nn.Dense(5)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        outputs, _ = self.cells.unroll(5, x, layout="NTC", merge_outputs=True)
        return self.head(F.mean(outputs, axis=1))


class Attention(gluon.HybridBlock):
    """Self-attention of several heads by batch products. Input (batch, time, units)."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        with self.name_scope():
            self.qkv = nn.Dense(3 * units, flatten=False, use_bias=False)
            self.out = nn.Dense(units, flatten=False)

    def _split(self, F: Any, x: Any) -> Any:
        x = F.reshape(x, shape=(0, 0, self._heads, -1))
        return F.reshape(F.transpose(x, axes=(0, 2, 1, 3)), shape=(-1, 0, 0), reverse=True)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        q, k, v = (self._split(F, part) for part in F.split(self.qkv(x), num_outputs=3, axis=-1))
        weights = F.softmax(F.batch_dot(q, k, transpose_b=True) * 0.5, axis=-1)
        y = F.reshape(F.batch_dot(weights, v), shape=(-1, self._heads, 0, 0), reverse=True)
        return self.out(F.reshape(F.transpose(y, axes=(0, 2, 1, 3)), shape=(0, 0, -1)))


class Interleaved(gluon.HybridBlock):
    """The same by the contrib operators over interleaved projections. Input (batch, time, units)."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        with self.name_scope():
            self.qkv = nn.Dense(3 * units, flatten=False)
            self.out = nn.Dense(units, flatten=False)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        qkv = self.qkv(F.swapaxes(x, 0, 1))
        weights = F.softmax(F.contrib.interleaved_matmul_selfatt_qk(qkv, heads=self._heads), axis=-1)
        y = F.contrib.interleaved_matmul_selfatt_valatt(qkv, weights, heads=self._heads)
        return F.swapaxes(self.out(y), 0, 1)


class Transformer(gluon.HybridBlock):
    """Embedding, positions, one encoder layer with norms before, and a mean over time."""

    def __init__(self, attention: Callable[[int, int], Any], length: int = 6, units: int = 8) -> None:
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(11, units)
            self.place = self.params.get("place", shape=(1, length, units))
            self.before, self.between, self.after = nn.LayerNorm(), nn.LayerNorm(), nn.LayerNorm()
            self.attention = attention(units, 2)
            self.wide = nn.Dense(16, flatten=False)
            self.narrow = nn.Dense(units, flatten=False)
            self.drop = nn.Dropout(0.0)
            self.head = nn.Dense(5)

    def hybrid_forward(self, F: Any, x: Any, place: Any) -> Any:
        x = self.drop(F.broadcast_add(self.embed(x), place))
        x = x + self.drop(self.attention(self.before(x)))
        x = x + self.narrow(F.LeakyReLU(self.wide(self.between(x)), act_type="gelu"))
        return self.head(F.mean(self.after(x), axis=1))


def mlp() -> Any:
    net = nn.HybridSequential()
    with net.name_scope():
        # No bias before the norm, which takes it away: its gradient would be rounding errors, which some optimizers blow up.
        net.add(nn.Dense(16, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.0))
        net.add(nn.Dense(8, activation="tanh"), nn.LayerNorm(), nn.Dense(5))
    return net


def autoencoder() -> Any:
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Conv2D(6, 3, strides=2, padding=1), nn.LeakyReLU(0.1), nn.InstanceNorm())
        net.add(nn.Conv2DTranspose(3, 4, strides=2, padding=1), nn.PReLU())
    return net


def _numbers(*shape: int) -> np.ndarray:
    return np.random.RandomState(len(shape)).randn(*shape).astype("float32")


_CLASSES = np.random.RandomState(3).randint(0, 5, 6).astype("float32")
_WORDS = np.random.RandomState(4).randint(0, 11, (6, 6)).astype("float32")
_NAMED = gluon.loss.SoftmaxCrossEntropyLoss

CASES = {
    "mlp": Case(mlp, (_numbers(6, 10),), _CLASSES, _NAMED),
    "resnet": Case(resnet, (_numbers(6, 3, 12, 12),), _CLASSES, _NAMED),
    "mobilenet": Case(mobilenet, (_numbers(6, 3, 8, 8),), _CLASSES, _NAMED),
    "lstm": Case(Unrolled, (_numbers(6, 5, 4),), _CLASSES, _NAMED),
    "stack": Case(Stacked, (_numbers(6, 5, 6),), _CLASSES, _NAMED),
    "transformer": Case(lambda: Transformer(Attention), (_WORDS,), _CLASSES, _NAMED),
    "interleaved": Case(lambda: Transformer(Interleaved), (_WORDS,), _CLASSES, _NAMED),
    "autoencoder": Case(autoencoder, (_numbers(6, 3, 8, 8),), _numbers(6, 3, 8, 8), gluon.loss.L2Loss),
}


def start(net: Any, inputs: list[Any]) -> None:
    """Fills the parameters with numbers that depend on their place in the network alone."""
    with autograd.pause():
        net(*inputs)
    rng = np.random.RandomState(5)
    for name, p in sorted(net._collect_params_with_prefix().items()):
        if name.endswith(("running_mean", "running_var", "gamma", "beta")):
            continue
        p.set_data(nd.array(rng.randn(*p.shape) * min(0.5, p.shape[-1] ** -0.5)))


def curve(
    case: Case,
    ctx: Any,
    hybridize: bool,
    optimizer: str = "sgd",
    options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> tuple[list[float], Any]:
    """Losses of ten steps, each the mean over the batch, and the network. `ctx` may be a list of contexts, over which the batch is split."""
    contexts = ctx if isinstance(ctx, list) else [ctx]
    net = case.make()
    net.initialize(ctx=contexts)
    if hybridize:
        net.hybridize()
    parts = [gluon.utils.split_and_load(nd.array(x), contexts) for x in case.inputs]
    labels = gluon.utils.split_and_load(nd.array(case.label), contexts)
    start(net, [p[0] for p in parts])
    for c in contexts:
        mx.random.seed(11, c)
    loss_of = case.loss()
    options = {"learning_rate": 0.1, "momentum": 0.9} if options is None else options
    trainer = gluon.Trainer(net.collect_params(), optimizer, options, **trainer_options)
    losses = []
    for _ in range(STEPS):
        with autograd.record():
            each = [loss_of(net(*xs), y) for *xs, y in zip(*parts, labels, strict=True)]
        autograd.backward(each)
        trainer.step(len(case.label))
        losses.append(
            float(sum(part.sum().as_in_context(mx.cpu()) for part in each).asscalar()) / len(case.label)
        )
    return losses, net


def agree(found: list[float], wanted: list[float], rtol: float = 1e-3) -> None:
    """The curves are equal within the tolerance, and something was learned."""
    assert np.all(np.isfinite(wanted)) and min(wanted) < 0.97 * wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-5)
