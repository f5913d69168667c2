"""Losses of Gluon: blocks from predictions and labels to one number per sample.

Every loss reduces over all axes but the batch axis, by the mean unless its formula says otherwise, after
multiplying by the constant ``weight`` and by ``sample_weight``, which must broadcast to the shape of the
unreduced loss. They are hybrid blocks and use only operators that arrays and symbols both have.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .block import HybridBlock

__all__ = [
    "CTCLoss",
    "CosineEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "L2Loss",
    "LogisticLoss",
    "Loss",
    "PoissonNLLLoss",
    "SDMLLoss",
    "SigmoidBCELoss",
    "SigmoidBinaryCrossEntropyLoss",
    "SoftmaxCELoss",
    "SoftmaxCrossEntropyLoss",
    "SquaredHingeLoss",
    "TripletLoss",
]

Tensor = Any  # an NDArray, or a Symbol while a block is traced


def _apply_weighting(
    F: Any, loss: Tensor, weight: float | None = None, sample_weight: Tensor = None
) -> Tensor:
    """`loss` times `sample_weight`, by broadcasting, and times the number `weight`, where given."""
    if sample_weight is not None:
        loss = F.broadcast_mul(loss, sample_weight)
    if weight is not None:
        if not isinstance(weight, (int, float, np.number)):
            raise AssertionError(f"weight must be a number, given {type(weight).__name__}")
        loss = loss * weight
    return loss


def _reshape_like(F: Any, x: Tensor, y: Tensor) -> Tensor:
    """`x` in the shape of `y`."""
    return F.reshape_like(x, y)


class Loss(HybridBlock):
    """Base class of the losses.

    Parameters
    ----------
    weight : float or None
        Constant factor on the loss.
    batch_axis : int
        Axis of the samples; the others are reduced.
    """

    def __init__(self, weight: float | None, batch_axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._weight = weight
        self._batch_axis = batch_axis

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_axis={self._batch_axis}, w={self._weight})"

    def hybrid_forward(self, F: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of each sample; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define hybrid_forward")

    def _weighted(self, F: Any, loss: Tensor, sample_weight: Tensor) -> Tensor:
        return _apply_weighting(F, loss, self._weight, sample_weight)

    def _mean(self, F: Any, loss: Tensor) -> Tensor:
        return F.mean(loss, axis=self._batch_axis, exclude=True)


class L2Loss(Loss):
    """``0.5 * weight * (label - pred)^2``, mean per sample. `label` is brought to the shape of `pred`."""

    def __init__(self, weight: float | None = 1.0, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        half = None if self._weight is None else self._weight / 2
        loss = F.square(label - pred)
        return self._mean(F, _apply_weighting(F, loss, half, sample_weight))


class L1Loss(Loss):
    """``weight * |label - pred|``, mean per sample. `label` is brought to the shape of `pred`."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        return self._mean(F, self._weighted(F, F.abs(label - pred), sample_weight))


class SigmoidBinaryCrossEntropyLoss(Loss):
    """Cross entropy of independent yes/no labels in [0, 1], mean per sample.

    With ``p = sigmoid(pred)``, or `pred` itself under `from_sigmoid`:
    ``-(pos_weight * label * log(p) + (1 - label) * log(1 - p))``. From logits it is computed as
    ``max(pred, 0) - pred * label + softplus(-|pred|)``, which does not overflow.

    Parameters
    ----------
    from_sigmoid : bool
        Predictions are probabilities already; 1e-12 is added inside the logarithms.

    Notes ----- Called with ``(pred, label, sample_weight=None, pos_weight=None)``; `pos_weight` must
    broadcast to the labels.
    """

    def __init__(
        self, from_sigmoid: bool = False, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._from_sigmoid = from_sigmoid

    def hybrid_forward(
        self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None, pos_weight: Tensor = None
    ) -> Tensor:
        label = _reshape_like(F, label, pred)
        if self._from_sigmoid:
            yes = F.log(pred + 1e-12) * label
            if pos_weight is not None:
                yes = F.broadcast_mul(yes, pos_weight)
            loss = -(yes + F.log(1.0 - pred + 1e-12) * (1.0 - label))
        else:
            softplus = F.Activation(-F.abs(pred), act_type="softrelu")
            if pos_weight is None:
                loss = F.relu(pred) - pred * label + softplus
            else:
                # -log(p) counts pos_weight times where the label is 1; the linear part does not.
                factor = 1 + F.broadcast_mul(label, pos_weight - 1)
                loss = pred - pred * label + factor * (softplus + F.relu(-pred))
        return self._mean(F, self._weighted(F, loss, sample_weight))


SigmoidBCELoss = SigmoidBinaryCrossEntropyLoss


class SoftmaxCrossEntropyLoss(Loss):
    """Cross entropy of the softmax along `axis`, mean per sample.

    Parameters
    ----------
    axis : int
        Axis of the classes.
    sparse_label : bool
        Labels are class numbers, without the class axis; otherwise distributions of the shape of `pred`.
    from_logits : bool
        `pred` are log probabilities already.
    """

    def __init__(
        self,
        axis: int = -1,
        sparse_label: bool = True,
        from_logits: bool = False,
        weight: float | None = None,
        batch_axis: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._axis = axis
        self._sparse_label = sparse_label
        self._from_logits = from_logits

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        if not self._from_logits:
            pred = F.log_softmax(pred, axis=self._axis)
        if self._sparse_label:
            loss = -F.pick(pred, label, axis=self._axis, keepdims=True)
        else:
            label = _reshape_like(F, label, pred)
            loss = -F.sum(pred * label, axis=self._axis, keepdims=True)
        return self._mean(F, self._weighted(F, loss, sample_weight))


SoftmaxCELoss = SoftmaxCrossEntropyLoss


class KLDivLoss(Loss):
    """Kullback-Leibler divergence ``label * (log(label) - log p)``, summed per sample, not averaged.

    Parameters
    ----------
    from_logits : bool
        `pred` are log probabilities; otherwise their log softmax along `axis` is taken.
    axis : int
    """

    def __init__(
        self,
        from_logits: bool = True,
        axis: int = -1,
        weight: float | None = None,
        batch_axis: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._from_logits = from_logits
        self._axis = axis

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        if not self._from_logits:
            pred = F.log_softmax(pred, axis=self._axis)
        loss = label * (F.log(label + 1e-12) - pred)
        return F.sum(self._weighted(F, loss, sample_weight), axis=self._batch_axis, exclude=True)


class CTCLoss(Loss):
    """Connectionist temporal classification (Graves et al., 2006): one number per sequence, the last class is
    blank.

    Parameters
    ----------
    layout : {'NTC', 'TNC'}
        Axes of `pred`: N batch, T time, C classes; unnormalised scores.
    label_layout : {'NT', 'TN'}
        Axes of `label`; shorter labels are padded with -1 unless `label_lengths` is given.

    Notes
    -----
    Called with ``(pred, label, pred_lengths=None, label_lengths=None, sample_weight=None)``.
    """

    def __init__(
        self, layout: str = "NTC", label_layout: str = "NT", weight: float | None = None, **kwargs: Any
    ) -> None:
        if layout not in ("NTC", "TNC"):
            raise AssertionError(f"CTCLoss: layout must be 'NTC' or 'TNC', given {layout!r}")
        if label_layout not in ("NT", "TN"):
            raise AssertionError(f"CTCLoss: label_layout must be 'NT' or 'TN', given {label_layout!r}")
        self._layout = layout
        self._label_layout = label_layout
        super().__init__(weight, label_layout.find("N"), **kwargs)

    def hybrid_forward(
        self,
        F: Any,
        pred: Tensor,
        label: Tensor,
        pred_lengths: Tensor = None,
        label_lengths: Tensor = None,
        sample_weight: Tensor = None,
    ) -> Tensor:
        if self._layout == "NTC":
            pred = F.swapaxes(pred, 0, 1)
        if self._batch_axis == 1:
            label = F.swapaxes(label, 0, 1)
        lengths = [given for given in (pred_lengths, label_lengths) if given is not None]
        names = ("data_lengths", "label_lengths") if pred_lengths is not None else ("label_lengths",)
        loss = F.CTCLoss(
            pred,
            label,
            **dict(zip(names, lengths)),
            use_data_lengths=pred_lengths is not None,
            use_label_lengths=label_lengths is not None,
            blank_label="last",
        )
        return self._weighted(F, loss, sample_weight)


class HuberLoss(Loss):
    """Quadratic near zero and linear beyond `rho`, mean per sample.

    ``(label - pred)^2 / (2 * rho)`` where ``|label - pred| <= rho``, else ``|label - pred| - rho / 2``.
    """

    def __init__(
        self, rho: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._rho = rho

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        error = F.abs(label - pred)
        loss = F.where(error > self._rho, error - 0.5 * self._rho, (0.5 / self._rho) * F.square(error))
        return self._mean(F, self._weighted(F, loss, sample_weight))


class HingeLoss(Loss):
    """``max(0, margin - pred * label)`` for labels -1 and 1, mean per sample."""

    def __init__(
        self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        loss = F.relu(self._margin - pred * label)
        return self._mean(F, self._weighted(F, loss, sample_weight))


class SquaredHingeLoss(Loss):
    """``max(0, margin - pred * label)^2`` for labels -1 and 1, mean per sample."""

    def __init__(
        self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        loss = F.square(F.relu(self._margin - pred * label))
        return self._mean(F, self._weighted(F, loss, sample_weight))


class LogisticLoss(Loss):
    """``log(1 + exp(-pred * label))``, mean per sample.

    Parameters
    ----------
    label_format : {'signed', 'binary'}
        Labels are -1 and 1, or 0 and 1.

    Raises
    ------
    ValueError
        For another `label_format`.
    """

    def __init__(
        self,
        weight: float | None = None,
        batch_axis: int = 0,
        label_format: str = "signed",
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        if label_format not in ("signed", "binary"):
            raise ValueError(f"label_format can only be signed or binary, received {label_format}.")
        self._label_format = label_format

    def hybrid_forward(self, F: Any, pred: Tensor, label: Tensor, sample_weight: Tensor = None) -> Tensor:
        label = _reshape_like(F, label, pred)
        if self._label_format == "signed":
            label = (label + 1.0) / 2.0
        loss = F.relu(pred) - pred * label + F.Activation(-F.abs(pred), act_type="softrelu")
        return self._mean(F, self._weighted(F, loss, sample_weight))


class TripletLoss(Loss):
    """``max(0, margin + |pred - positive|^2 - |pred - negative|^2)``, squares summed per sample."""

    def __init__(
        self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(
        self, F: Any, pred: Tensor, positive: Tensor, negative: Tensor, sample_weight: Tensor = None
    ) -> Tensor:
        positive = _reshape_like(F, positive, pred)
        negative = _reshape_like(F, negative, pred)
        difference = F.square(pred - positive) - F.square(pred - negative)
        loss = F.relu(F.sum(difference, axis=self._batch_axis, exclude=True) + self._margin)
        return self._weighted(F, loss, sample_weight)


class PoissonNLLLoss(Loss):
    """Negative log likelihood of counts under Poisson distributions: one number, the mean over everything.

    ``exp(pred) - target * pred`` under `from_logits`, else ``pred - target * log(pred + epsilon)``.

    Parameters
    ----------
    from_logits : bool
        `pred` are logarithms of the rates.
    compute_full : bool
        Add Stirling's approximation of ``log(target!)`` where `target` exceeds 1.
    """

    def __init__(
        self,
        weight: float | None = None,
        from_logits: bool = True,
        batch_axis: int = 0,
        compute_full: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._from_logits = from_logits
        self._compute_full = compute_full

    def hybrid_forward(
        self, F: Any, pred: Tensor, target: Tensor, sample_weight: Tensor = None, epsilon: float = 1e-08
    ) -> Tensor:
        target = _reshape_like(F, target, pred)
        if self._from_logits:
            loss = F.exp(pred) - target * pred
        else:
            loss = pred - target * F.log(pred + epsilon)
        if self._compute_full:
            stirling = target * F.log(target) - target + 0.5 * F.log(2 * math.pi * target)
            # Chosen, not multiplied: at 0 the approximation is not a number.
            loss = loss + F.where(target > 1, stirling, F.zeros_like(target))
        return F.mean(self._weighted(F, loss, sample_weight))


class CosineEmbeddingLoss(Loss):
    """``1 - cos`` of pairs labelled 1, ``max(0, cos - margin)`` of pairs labelled -1; shape (batch, 1).

    Cosines are taken along the last axis.
    """

    def __init__(
        self, weight: float | None = None, batch_axis: int = 0, margin: float = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = margin

    def hybrid_forward(
        self, F: Any, input1: Tensor, input2: Tensor, label: Tensor, sample_weight: Tensor = None
    ) -> Tensor:
        input1 = _reshape_like(F, input1, input2)
        cosine = self._cosine_similarity(F, input1, input2)
        label = F.reshape(label, (-1, 1))
        loss = F.where(label == 1, 1 - cosine, F.relu(cosine - self._margin))
        return self._weighted(F, loss, sample_weight)

    @staticmethod
    def _cosine_similarity(F: Any, x: Tensor, y: Tensor, axis: int = -1) -> Tensor:
        norms = F.reshape(F.norm(x, axis=axis), (-1, 1)) * F.reshape(F.norm(y, axis=axis), (-1, 1))
        products = F.reshape(F.sum(x * y, axis=axis), (-1, 1))
        return F.broadcast_div(products, F.broadcast_maximum(norms, F.ones_like(norms) * 1e-12))


class SDMLLoss(Loss):
    """Smoothed deep metric learning (Bonadiman, Kumar and Mittal, 2019): matching rows of two batches.

    The distribution of each row of `x1` over the rows of `x2`, the softmax of negative squared distances, is
    compared by Kullback-Leibler divergence with one that puts ``1 - smoothing_parameter`` on the same row and
    the rest evenly on the others. One number per row.

    Parameters
    ----------
    smoothing_parameter : float
    """

    def __init__(
        self, smoothing_parameter: float = 0.3, weight: float | None = 1.0, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self.kl_loss = KLDivLoss(from_logits=True)
        self.smoothing_parameter = smoothing_parameter

    @staticmethod
    def _compute_distances(F: Any, x1: Tensor, x2: Tensor) -> Tensor:
        """Squared distances of all pairs of rows, (batch, batch)."""
        return F.sum(F.square(F.broadcast_sub(F.expand_dims(x1, 1), F.expand_dims(x2, 0))), axis=2)

    def _compute_labels(self, F: Any, distances: Tensor) -> Tensor:
        """The smoothed identity of the shape of `distances`."""
        ones = F.ones_like(distances)
        # The diagonal is where counts along both axes agree: so the batch size may stay open in a graph.
        columns = F.cumsum(ones, axis=1)
        rows = F.cumsum(ones, axis=0)
        identity = columns == rows
        others = F.sum(ones, axis=1, keepdims=True) - 1
        share = F.broadcast_div(self.smoothing_parameter * (1 - identity), others)
        return identity * (1 - self.smoothing_parameter) + share

    def hybrid_forward(self, F: Any, x1: Tensor, x2: Tensor) -> Tensor:
        distances = self._compute_distances(F, x1, x2)
        log_probabilities = F.log_softmax(-distances, axis=1)
        return self.kl_loss(log_probabilities, self._compute_labels(F, distances))
