"""The loss of a network whose outputs are loss layers, to be shown beside the metric while it is trained.

A layer such as SoftmaxOutput puts out predictions; the loss whose gradient it computes is not among its
outputs. `HeadLoss` computes it from outputs and labels. Networks say in their graph which layer each output
comes from, so only they are asked; an output that is no loss layer, or whose label is computed inside the
network, has no loss here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import ndarray as nd
from ..ndarray import NDArray

__all__ = ["HeadLoss", "loss_heads", "reports_loss"]

#: A metric with one of these in its name reports the loss already.
_LOSS_WORDS = ("loss", "entropy", "perplexity", "nll", "likelihood", "mse", "mae")

#: Below every probability that matters, so that the logarithm of 0 is finite.
_TINY = 1e-12

#: So many batches are added up at once: reading from the device waits for it.
_FOLD_EVERY = 64

#: How attributes spell yes.
_TRUE = ("True", "true", "1")

#: Operators that only change the shape of what passes through.
_RESHAPES = {
    "Reshape",
    "reshape",
    "Flatten",
    "flatten",
    "BlockGrad",
    "stop_gradient",
    "identity",
    "_copy",
    "Cast",
}


class Head(NamedTuple):
    """An output that is a loss layer."""

    #: Place among the outputs, and name of the layer.
    place: int
    name: str
    #: The operator and its attributes.
    op: str
    attrs: Mapping[str, str]
    #: The variable that holds the labels; None where the output is the loss itself.
    label: str | None


def reports_loss(metric: Any) -> bool:
    """Whether a metric, or one of those it is made of, is a loss by its name."""
    parts = getattr(metric, "metrics", None)
    if isinstance(parts, list):
        return any(reports_loss(part) for part in parts)
    # Not get(): a metric of the user's own may divide by the number of samples, which is still 0.
    return any(word in str(getattr(metric, "name", "")).lower() for word in _LOSS_WORDS)


def loss_heads(symbol: Any) -> list[Head]:
    """The loss layers among the outputs of a network."""
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    heads = []
    for place, (node, *_) in enumerate(graph["heads"]):
        op = nodes[node]["op"]
        if op in _OWN_LOSS:
            label = None
        elif op in _LOSSES:
            inputs = nodes[node]["inputs"]
            found = _variable(nodes, inputs[1][0]) if len(inputs) > 1 else None
            if found is None:
                continue
            label = found
        else:
            continue
        attrs = nodes[node].get("attrs") or nodes[node].get("param") or {}
        heads.append(Head(place, nodes[node]["name"], op, attrs, label))
    return heads


def _variable(nodes: Sequence[Mapping[str, Any]], node: int) -> str | None:
    """The name of the variable at `node`, or before operators that only reshape it."""
    while nodes[node]["op"] in _RESHAPES:
        node = nodes[node]["inputs"][0][0]
    return nodes[node]["name"] if nodes[node]["op"] == "null" else None


# ---- losses: (output, label, attributes) to what is kept of a batch ------------------------------------------
# None where labels come in a form that is not known. What is kept is small and costs a batch one or two
# operations; logarithms and sums are taken of many batches at once.


class Part(NamedTuple):
    """What is kept of a batch."""

    #: Terms of the sum, or the probabilities whose negative logarithms are the terms.
    values: NDArray
    #: What the sum is divided by: a number, or an array of one element.
    count: Any
    are_probabilities: bool


def _softmax(output: NDArray, label: NDArray, attrs: Mapping[str, str]) -> Part | None:
    """Cross-entropy of probabilities, over positions that are not ignored."""
    shape = output.shape
    if label.shape == shape:
        return Part(-(label * nd.log(output + _TINY)).sum(), output.size // shape[1], False)
    axis = len(shape) - 1 if attrs.get("preserve_shape") in _TRUE else 1
    if len(shape) > 2 and axis == 1 and attrs.get("multi_output") not in _TRUE:
        output = output.reshape((shape[0], -1))
        shape = output.shape
    positions = shape[:axis] + shape[axis + 1 :]
    if label.shape != positions:
        if label.size != math.prod(positions):
            return None
        label = label.reshape(positions)
    picked = nd.pick(output, label, axis=axis)
    if attrs.get("use_ignore") not in _TRUE:
        return Part(picked, picked.size, True)
    ignored = nd.full((1,) * len(positions), float(attrs.get("ignore_label", -1)), ctx=label.context)
    counted = nd.broadcast_not_equal(label, ignored)
    # The logarithm of 1 adds nothing.
    return Part(nd.where(counted, picked, nd.ones_like(picked)), counted.sum(), True)


def _squared(output: NDArray, label: NDArray, _attrs: Mapping[str, str]) -> Part | None:
    if label.size != output.size:
        return None
    return Part(nd.square(output - label.reshape(output.shape)).sum() / 2, output.size, False)


def _absolute(output: NDArray, label: NDArray, _attrs: Mapping[str, str]) -> Part | None:
    if label.size != output.size:
        return None
    return Part(nd.abs(output - label.reshape(output.shape)).sum(), output.size, False)


def _logistic(output: NDArray, label: NDArray, _attrs: Mapping[str, str]) -> Part | None:
    if label.size != output.size:
        return None
    label = label.reshape(output.shape)
    likelihood = label * nd.log(output + _TINY) + (1 - label) * nd.log(1 - output + _TINY)
    return Part(-likelihood.sum(), output.size, False)


_LOSSES: dict[str, Callable[[NDArray, NDArray, Mapping[str, str]], Part | None]] = {
    "SoftmaxOutput": _softmax,
    "Softmax": _softmax,
    "LinearRegressionOutput": _squared,
    "MAERegressionOutput": _absolute,
    "LogisticRegressionOutput": _logistic,
}
_OWN_LOSS = {"MakeLoss", "make_loss"}


class _Sum:
    """A running mean whose parts are read from the device now and then."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.total = self.count = 0.0
        self._parts: list[Part] = []

    def add(self, part: Part) -> None:
        if self._parts and self._parts[0].are_probabilities != part.are_probabilities:
            self.fold()
        self._parts.append(part)
        if len(self._parts) >= _FOLD_EVERY:
            self.fold()

    def fold(self) -> None:
        parts, self._parts = self._parts, []
        if not parts:
            return
        home = parts[0].values.context
        values = nd.concat(*[part.values.reshape((-1,)).as_in_context(home) for part in parts], dim=0)
        if parts[0].are_probabilities:
            values = -nd.log(values.astype("float32") + _TINY)
        self.total += float(values.sum().asscalar())
        for part in parts:
            self.count += float(part.count.asscalar() if isinstance(part.count, NDArray) else part.count)

    def mean(self) -> float:
        self.fold()
        return self.total / self.count if self.count else float("nan")


class HeadLoss:
    """Mean loss of each loss layer, since `reset` and since `reset_local`.

    With one loss layer the value is called `loss`, with several `NAME-loss`.
    """

    def __init__(self) -> None:
        self._local: dict[str, _Sum] = {}
        self._before: dict[str, tuple[float, float]] = {}
        self._heads: list[tuple[Any, list[Head]]] = []

    def reset(self) -> None:
        """Forget everything."""
        self._local = {}
        self._before = {}

    def reset_local(self) -> None:
        """Forget what came since the last reset, but not the mean since `reset`."""
        for name, part in self._local.items():
            part.fold()
            total, count = self._before.get(name, (0.0, 0.0))
            self._before[name] = total + part.total, count + part.count
            part.clear()

    def update(self, symbol: Any, outputs: Sequence[NDArray], labels: Mapping[str, NDArray]) -> None:
        """Add a batch: the outputs of `symbol` and the labels by name."""
        heads = self._heads_of(symbol)
        for head in heads:
            output = outputs[head.place]
            part: Part | None = None
            if head.label is None:
                part = Part(output.sum(), output.size, False)
            elif head.label in labels:
                label = labels[head.label].as_in_context(output.context)
                part = _LOSSES[head.op](output, label, head.attrs)
            if part is None:
                continue
            name = "loss" if len(heads) == 1 else f"{head.name}-loss"
            if name not in self._local:
                self._local[name] = _Sum()
            self._local[name].add(part)

    def has_heads(self, symbol: Any) -> bool:
        """Whether a network has loss layers among its outputs."""
        return bool(self._heads_of(symbol))

    def _heads_of(self, symbol: Any) -> list[Head]:
        for known, heads in self._heads:
            if known is symbol:
                return heads
        found = loss_heads(symbol)
        self._heads.append((symbol, found))
        return found

    def get_name_value(self) -> list[tuple[str, float]]:
        """Names and means since `reset_local`."""
        return [(name, part.mean()) for name, part in self._local.items()]

    def get_global_name_value(self) -> list[tuple[str, float]]:
        """Names and means since `reset`."""
        pairs = []
        for name, part in self._local.items():
            part.fold()
            total, count = self._before.get(name, (0.0, 0.0))
            whole = count + part.count
            pairs.append((name, (total + part.total) / whole if whole else float("nan")))
        return pairs
