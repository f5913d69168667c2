"""Metrics of class predictions: accuracies, F1, correlation of classes, and the logarithmic scores.

Arrays are reduced by array operators where the result is smaller than what goes in, then read once per batch;
counting is done on the host, in integers and float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..ndarray import NDArray
from .base import EvalMetric, Value, alias, check_label_shapes, register

__all__ = [
    "F1",
    "MCC",
    "PCC",
    "Accuracy",
    "CrossEntropy",
    "NegativeLogLikelihood",
    "Perplexity",
    "TopKAccuracy",
]

Names = Sequence[str] | None


@alias("acc")
@register
class Accuracy(EvalMetric):
    """Part of the instances whose class is predicted right.

    Predictions of another shape than the labels are scores, whose maximum along `axis` is the class; of the
    same shape, they are classes. Both are truncated to integers.
    """

    def __init__(
        self, axis: int = 1, name: str = "accuracy", output_names: Names = None, label_names: Names = None
    ) -> None:
        super().__init__(
            name, axis=axis, output_names=output_names, label_names=label_names, has_global_stats=True
        )
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            if pred.shape != label.shape:
                pred = nd.argmax(pred, axis=self.axis)
            classes = pred.asnumpy().astype("int32").ravel()
            wanted = label.asnumpy().astype("int32").ravel()
            check_label_shapes(wanted, classes)
            self._add((classes == wanted).sum(), len(classes))


@alias("top_k_accuracy", "top_k_acc")
@register
class TopKAccuracy(EvalMetric):
    """Part of the instances whose class is among the `top_k` with the highest scores.

    Raises
    ------
    AssertionError
        For `top_k` of 1, which :class:`Accuracy` does, and for predictions of more than two axes.
    """

    def __init__(
        self,
        top_k: int = 1,
        name: str = "top_k_accuracy",
        output_names: Names = None,
        label_names: Names = None,
    ) -> None:
        super().__init__(
            name, top_k=top_k, output_names=output_names, label_names=label_names, has_global_stats=True
        )
        if top_k <= 1:
            raise AssertionError(f"Please use Accuracy if top_k is no more than 1, given {top_k}")
        self.top_k = top_k
        self.name += f"_{top_k}"

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            if len(pred.shape) > 2:
                raise AssertionError(f"Predictions should be no more than 2 dims, given shape {pred.shape}")
            scores = pred.asnumpy().astype("float32")
            wanted = label.asnumpy().astype("int32")
            check_label_shapes(wanted, scores)
            if scores.ndim == 1:
                # One score per instance: what is compared is the order that the partition leaves them in.
                order = np.argpartition(scores, -min(len(scores), self.top_k))
                self._add((order == wanted.ravel()).sum(), len(scores))
                continue
            chosen = min(scores.shape[1], self.top_k)
            best = np.argpartition(scores, -chosen)[:, -chosen:]
            self._add((best == wanted.reshape(-1, 1)).sum(), len(scores))


class _BinaryCounts:
    """True and false positives and negatives of one or more batches."""

    def __init__(self) -> None:
        self.true_positives = 0
        self.false_positives = 0
        self.true_negatives = 0
        self.false_negatives = 0

    def add(self, label: NDArray, pred: NDArray, metric: str) -> None:
        """Count one batch of scores (batch, 2). Raises ValueError for labels of more than two classes."""
        scores = pred.asnumpy()
        wanted = label.asnumpy().astype("int32")
        classes = np.argmax(scores, axis=1)
        check_label_shapes(wanted, scores)
        if len(np.unique(wanted)) > 2:
            raise ValueError(f"{metric} currently only supports binary classification.")
        predicted_true = classes == 1
        labelled_true = wanted.reshape(predicted_true.shape) == 1
        self.true_positives += int((predicted_true & labelled_true).sum())
        self.false_positives += int((predicted_true & ~labelled_true).sum())
        self.false_negatives += int((~predicted_true & labelled_true).sum())
        self.true_negatives += int((~predicted_true & ~labelled_true).sum())

    @property
    def total(self) -> int:
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0 where there is neither."""
        predicted = self.true_positives + self.false_positives
        labelled = self.true_positives + self.false_negatives
        precision = self.true_positives / predicted if predicted else 0.0
        recall = self.true_positives / labelled if labelled else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0

    @property
    def matthews(self) -> float:
        """Matthews' correlation coefficient; empty margins are left out of the denominator."""
        if not self.total:
            return 0.0
        tp, fp = float(self.true_positives), float(self.false_positives)
        tn, fn = float(self.true_negatives), float(self.false_negatives)
        margins = [margin for margin in (tp + fp, tp + fn, tn + fp, tn + fn) if margin]
        return (tp * tn - fp * fn) / math.sqrt(math.prod(margins))


class _BinaryMetric(EvalMetric):
    """What F1 and MCC share: a score of the counts, averaged over batches or taken of all counts."""

    def __init__(self, name: str, output_names: Names, label_names: Names, average: str) -> None:
        if average not in ("macro", "micro"):
            raise ValueError(f"{type(self).__name__}: average must be 'macro' or 'micro', given {average!r}")
        self.average = average
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def _score(self, counts: _BinaryCounts) -> float:
        raise NotImplementedError

    def reset(self) -> None:
        super().reset()
        self._local = _BinaryCounts()
        self._global = _BinaryCounts()

    def reset_local(self) -> None:
        super().reset_local()
        self._local = _BinaryCounts()

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        if self.average == "macro":
            batch = _BinaryCounts()
            for label, pred in zip(labels, preds):
                batch.add(label, pred, type(self).__name__)
            self._add(self._score(batch), 1)
            return
        for label, pred in zip(labels, preds):
            self._local.add(label, pred, type(self).__name__)
            self._global.add(label, pred, type(self).__name__)
        self.num_inst = self._local.total
        self.sum_metric = self._score(self._local) * self.num_inst
        self.global_num_inst = self._global.total
        self.global_sum_metric = self._score(self._global) * self.global_num_inst


@register
class F1(_BinaryMetric):
    """F1 score of class 1 against class 0, the class being the maximum along axis 1.

    Parameters
    ----------
    average : {'macro', 'micro'}
        Mean of the scores of the batches, or the score of all instances.
    """

    def __init__(
        self, name: str = "f1", output_names: Names = None, label_names: Names = None, average: str = "macro"
    ) -> None:
        super().__init__(name, output_names, label_names, average)

    def _score(self, counts: _BinaryCounts) -> float:
        return counts.f1


@register
class MCC(_BinaryMetric):
    """Matthews' correlation coefficient of two classes (Matthews, 1975).

    Parameters
    ----------
    average : {'macro', 'micro'}
        Mean of the scores of the batches, or the score of all instances.
    """

    def __init__(
        self, name: str = "mcc", output_names: Names = None, label_names: Names = None, average: str = "macro"
    ) -> None:
        super().__init__(name, output_names, label_names, average)

    def _score(self, counts: _BinaryCounts) -> float:
        return counts.matthews


@register
class PCC(EvalMetric):
    """Matthews' coefficient for any number of classes (Gorodkin, 2004), of all instances since the reset.

    nan where all instances are in one class or predicted to be.
    """

    def __init__(
        self,
        name: str = "pcc",
        output_names: Names = None,
        label_names: Names = None,
        has_global_stats: bool = True,
    ) -> None:
        self.k = 2
        super().__init__(
            name, output_names=output_names, label_names=label_names, has_global_stats=has_global_stats
        )

    def reset(self) -> None:
        self.global_num_inst = 0.0
        self.gcm = np.zeros((self.k, self.k))
        self.reset_local()

    def reset_local(self) -> None:
        self.num_inst = 0.0
        self.lcm = np.zeros((self.k, self.k))

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            wanted = label.asnumpy().astype("int32").ravel()
            classes = pred.asnumpy().argmax(axis=1).ravel()
            check_label_shapes(wanted, classes)
            if wanted.size and wanted.min() < 0:
                raise ValueError(f"PCC: labels must be classes from 0, given {wanted.min()}")
            largest = int(max(wanted.max(initial=0), classes.max(initial=0))) + 1
            if largest > self.k:
                grow = (0, largest - self.k)
                self.lcm = np.pad(self.lcm, (grow, grow))
                self.gcm = np.pad(self.gcm, (grow, grow))
                self.k = largest
            counts = np.bincount(classes * self.k + wanted, minlength=self.k**2).reshape(self.k, self.k)
            self.lcm += counts
            self.gcm += counts
        self.num_inst += 1
        self.global_num_inst += 1

    @property  # type: ignore[override]
    def sum_metric(self) -> Value:
        """The coefficient times ``num_inst``, so that their ratio is the coefficient."""
        return _multiclass_correlation(self.lcm) * self.num_inst

    @property  # type: ignore[override]
    def global_sum_metric(self) -> Value:
        """As ``sum_metric``, of everything since the last ``reset``."""
        return _multiclass_correlation(self.gcm) * self.global_num_inst


def _multiclass_correlation(counts: np.ndarray) -> Value:
    total = counts.sum()
    predicted, labelled = counts.sum(axis=1), counts.sum(axis=0)
    predicted_variance = np.sum(predicted * (total - predicted))
    labelled_variance = np.sum(labelled * (total - labelled))
    if predicted_variance == 0 or labelled_variance == 0:
        return float("nan")
    covariance = np.sum(counts.diagonal() * total - predicted * labelled)
    return covariance / (predicted_variance * labelled_variance) ** 0.5


@register
class Perplexity(EvalMetric):
    """``exp`` of the mean negative log probability of the labels.

    Parameters
    ----------
    ignore_label : int or None
        Label whose instances do not count.
    axis : int
        Axis of the predictions along which the classes lie.
    """

    def __init__(
        self,
        ignore_label: int | None,
        axis: int = -1,
        name: str = "perplexity",
        output_names: Names = None,
        label_names: Names = None,
    ) -> None:
        super().__init__(
            name,
            ignore_label=ignore_label,
            axis=axis,
            output_names=output_names,
            label_names=label_names,
            has_global_stats=True,
        )
        self.ignore_label = ignore_label
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        if len(labels) != len(preds):
            raise AssertionError(f"Perplexity: {len(labels)} labels for {len(preds)} predictions")
        loss: Value = 0.0
        count: Value = 0
        for label, pred in zip(labels, preds):
            if label.size != pred.size / pred.shape[-1]:
                raise AssertionError(f"shape mismatch: {label.shape} vs. {pred.shape}")
            label = label.as_in_context(pred.context).reshape((label.size,))
            probability = nd.pick(pred, label.astype(dtype="int32"), axis=self.axis)
            if self.ignore_label is not None:
                ignored = (label == self.ignore_label).astype(probability.dtype)
                count -= nd.sum(ignored).asscalar()
                probability = probability * (1 - ignored) + ignored
            loss -= nd.sum(nd.log(nd.maximum(1e-10, probability))).asscalar()
            count += probability.size
        self._add(loss, count)

    def get(self) -> tuple[Any, Any]:
        return self.name, _perplexity(self.sum_metric, self.num_inst)

    def get_global(self) -> tuple[Any, Any]:
        return self.name, _perplexity(self.global_sum_metric, self.global_num_inst)


def _perplexity(loss: Value, count: Value) -> float:
    return float("nan") if count == 0 else math.exp(loss / count)


class _LogScore(EvalMetric):
    """Mean of ``-log(probability of the label + eps)``; predictions are (instances, classes)."""

    def __init__(self, eps: float, name: str, output_names: Names, label_names: Names) -> None:
        super().__init__(
            name, eps=eps, output_names=output_names, label_names=label_names, has_global_stats=True
        )
        self.eps = eps

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            wanted = label.asnumpy().ravel()
            scores = pred.asnumpy()
            if wanted.shape[0] != scores.shape[0]:
                raise AssertionError(
                    f"{type(self).__name__}: {wanted.shape[0]} labels for {scores.shape[0]} predictions"
                )
            probability = scores[np.arange(len(wanted)), wanted.astype("int64")]
            self._add((-np.log(probability + self.eps)).sum(), len(wanted))


@alias("ce")
@register
class CrossEntropy(_LogScore):
    """Mean of ``-log(probability of the label + eps)``."""

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "cross-entropy",
        output_names: Names = None,
        label_names: Names = None,
    ) -> None:
        super().__init__(eps, name, output_names, label_names)


@alias("nll_loss")
@register
class NegativeLogLikelihood(_LogScore):
    """:class:`CrossEntropy` under another name."""

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "nll-loss",
        output_names: Names = None,
        label_names: Names = None,
    ) -> None:
        super().__init__(eps, name, output_names, label_names)
