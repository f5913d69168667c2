"""Metrics of an estimator: checks, the one that suits a loss, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .... import metric as _metric
from ....metric import EvalMetric
from ... import loss as _loss

__all__ = ["better", "check_known_metrics", "check_metrics", "suggest_metric"]

#: Parts of names of metrics that grow as a model gets better; the others measure errors.
_GROWING = ("acc", "f1", "mcc", "pcc", "pearson", "top_k")


def check_metrics(metrics: Any) -> list[EvalMetric]:
    """`metrics`, one or several, as a flat list. ValueError if something else is among them."""
    if isinstance(metrics, _metric.CompositeEvalMetric):
        return [one for child in metrics.metrics for one in check_metrics(child)]
    if isinstance(metrics, EvalMetric):
        return [metrics]
    found = list(metrics) if isinstance(metrics, list | tuple) else []
    if not all(isinstance(one, EvalMetric) for one in found) or (not found and metrics not in (None, [], ())):
        raise ValueError(
            f"metrics must be a Metric or a list of Metric, refer to mxnet.metric.EvalMetric: {metrics}"
        )
    return [one for child in found for one in check_metrics(child)]


def suggest_metric(loss: _loss.Loss) -> EvalMetric | None:
    """The metric people look at for this loss: accuracy for classification, none otherwise."""
    return _metric.Accuracy() if isinstance(loss, _loss.SoftmaxCrossEntropyLoss) else None


def check_known_metrics(handler: Any, known: Sequence[EvalMetric]) -> None:
    """ValueError if `handler.metrics` has a metric that is not among `known`: nobody would update it."""
    for one in getattr(handler, "metrics", None) or []:
        if not any(one is other for other in known):
            raise ValueError(
                f"Event handler {type(handler).__name__} refers to a metric instance {one} outside of the known "
                "training and validation metrics. Please use the metrics from estimator.train_metrics and "
                "estimator.val_metrics instead."
            )


def better(mode: str, monitor: Any) -> tuple[Any, float]:
    """The comparison under which one value of `monitor` is better than another, and the worst value there is.

    `mode` is 'min', 'max', or 'auto', which goes by the metric's name. ValueError if `monitor` is no metric.
    """
    if not isinstance(monitor, EvalMetric):
        raise ValueError(
            "Please provide one of the metric objects from estimator.train_metrics and estimator.val_metrics as "
            f"monitor, got {monitor!r}."
        )
    if mode not in ("min", "max", "auto"):
        raise ValueError(f"mode must be 'min', 'max' or 'auto', got {mode!r}")
    if mode == "auto":
        name = str(monitor.get()[0]).lower()
        mode = "max" if any(word in name for word in _GROWING) else "min"
    return (np.greater, -np.inf) if mode == "max" else (np.less, np.inf)
