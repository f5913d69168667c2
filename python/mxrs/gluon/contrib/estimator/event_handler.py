"""Event handlers: what happens around training, epochs and batches of an `Estimator`.

A handler inherits the events it wants and defines their methods. Handlers of an event are called in ascending
`priority` (0 where they have none), equal ones in the order given. An `epoch_end` that returns True ends the
training, a `batch_end` the epoch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ....metric import EvalMetric
from ....metric import Loss as _LossMetric
from .utils import better, check_metrics

if TYPE_CHECKING:
    from .estimator import Estimator

__all__ = [
    "BatchBegin",
    "BatchEnd",
    "EarlyStoppingHandler",
    "EpochBegin",
    "EpochEnd",
    "EventHandler",
    "GradientUpdateHandler",
    "LoggingHandler",
    "MetricHandler",
    "StoppingHandler",
    "TrainBegin",
    "TrainEnd",
    "ValidationHandler",
]


class EventHandler:
    """What all handlers are."""


class TrainBegin(EventHandler):
    """Is told when training begins."""

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """Training begins."""


class TrainEnd(EventHandler):
    """Is told when training has ended."""

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """Training has ended."""


class EpochBegin(EventHandler):
    """Is told when an epoch begins."""

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """An epoch begins."""


class EpochEnd(EventHandler):
    """Is told when an epoch has ended."""

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """An epoch has ended. Return True to end the training."""
        return False


class BatchBegin(EventHandler):
    """Is told when a batch begins."""

    def batch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """A batch begins; `kwargs` has it as 'batch'."""


class BatchEnd(EventHandler):
    """Is told when a batch has been run."""

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> Any:
        """A batch has been run; `kwargs` has 'batch', and lists 'pred', 'label', 'loss' with an array per context.

        Return True to end the epoch.
        """
        return False


class StoppingHandler(TrainBegin, BatchEnd, EpochEnd):
    """Ends the training after as many epochs or batches as `fit` was asked for."""

    def __init__(self, max_epoch: int | None = None, max_batch: int | None = None) -> None:
        self.max_epoch = max_epoch
        self.max_batch = max_batch
        self.current_batch = 0
        self.current_epoch = 0
        self.stop_training = False

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Take over the estimator's limits."""
        self.max_epoch = estimator.max_epoch
        self.max_batch = estimator.max_batch
        self.current_batch = self.current_epoch = 0
        self.stop_training = False

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """Count, and stop at the limit."""
        self.current_batch += 1
        if self.current_batch == self.max_batch:
            self.stop_training = True
        return self.stop_training

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """Count, and stop at the limit."""
        self.current_epoch += 1
        if self.current_epoch == self.max_epoch:
            self.stop_training = True
        return self.stop_training


class MetricHandler(EpochBegin, BatchEnd):
    """Updates metrics with each batch and resets them at the beginning of an epoch."""

    def __init__(self, metrics: Any, priority: float = -1000) -> None:
        self.metrics = check_metrics(metrics)
        self.priority = priority

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Reset."""
        for metric in self.metrics:
            metric.reset()

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Update: metrics of losses with the losses, others with labels and predictions."""
        for metric in self.metrics:
            if isinstance(metric, _LossMetric):
                metric.update(0, kwargs["loss"])
            else:
                metric.update(kwargs["label"], kwargs["pred"])


class ValidationHandler(TrainBegin, BatchEnd, EpochEnd):
    """Evaluates on validation data after every `epoch_period` epochs and every `batch_period` batches.

    `eval_fn` is called with `val_data`, `batch_axis` and `event_handlers`; usually it is `estimator.evaluate`.
    """

    def __init__(
        self,
        val_data: Any,
        eval_fn: Callable[..., Any],
        epoch_period: int | None = 1,
        batch_period: int | None = None,
        priority: float = -1000,
        event_handlers: Any = None,
    ) -> None:
        self.val_data = val_data
        self.eval_fn = eval_fn
        self.epoch_period = epoch_period
        self.batch_period = batch_period
        self.current_batch = 0
        self.current_epoch = 0
        self.priority = priority
        self.event_handlers = event_handlers

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count anew."""
        self.current_batch = self.current_epoch = 0

    def _evaluate(self, estimator: Estimator) -> None:
        self.eval_fn(
            val_data=self.val_data, batch_axis=estimator.batch_axis, event_handlers=self.event_handlers
        )

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count, and evaluate where it is time."""
        self.current_batch += 1
        if self.batch_period and self.current_batch % self.batch_period == 0:
            self._evaluate(estimator)

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count, and evaluate where it is time."""
        self.current_epoch += 1
        if self.epoch_period and self.current_epoch % self.epoch_period == 0:
            self._evaluate(estimator)


class LoggingHandler(TrainBegin, TrainEnd, EpochBegin, EpochEnd, BatchBegin, BatchEnd):
    """Logs progress and metrics through the estimator's logger.

    Arguments:
        log_interval: 'epoch', or the number of batches after which a line is logged as well.
        metrics: what is shown; those of the estimator.
        priority: the last by default, so that everything is up to date.

    Raises ValueError for another interval.
    """

    def __init__(
        self, log_interval: int | str = "epoch", metrics: Any = None, priority: float = np.inf
    ) -> None:
        if log_interval != "epoch" and (not isinstance(log_interval, int) or log_interval < 1):
            raise ValueError(
                f"log_interval must be either an integer or string 'epoch', got {log_interval!r}"
            )
        self.metrics: list[EvalMetric] = check_metrics(metrics)
        self.log_interval = log_interval
        self.priority = priority
        self.batch_index = 0
        self.current_epoch = 0
        self.processed_samples = 0
        self.log_interval_time = 0.0
        self.train_start = self.epoch_start = self.batch_start = time.time()

    def _values(self) -> str:
        """', name: value' of each metric."""
        return "".join(f", {name}: {value:.4f}" for name, value in (metric.get() for metric in self.metrics))

    @property
    def _validates(self) -> bool:
        names = [str(metric.name) for metric in self.metrics]
        return bool(names) and all(name.startswith("validation") for name in names)

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Say what is going to happen."""
        self.train_start = time.time()
        trainer = estimator.trainer
        estimator.logger.info(
            "Training begin: using optimizer %s with current learning rate %.4f",
            type(trainer.optimizer).__name__,
            trainer.learning_rate,
        )
        if estimator.max_epoch:
            estimator.logger.info("Train for %d epochs.", estimator.max_epoch)
        else:
            estimator.logger.info("Train for %d batches.", estimator.max_batch)
        self.current_epoch = self.batch_index = self.processed_samples = 0
        self.log_interval_time = 0.0

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Say how it ended."""
        seconds = time.time() - self.train_start
        estimator.logger.info(
            "Train finished using total %ds with %d epochs.%s",
            seconds,
            self.current_epoch,
            self._values().replace(",", "", 1),
        )

    def batch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Take the time."""
        self.batch_start = time.time()

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count samples; log where it is time."""
        if not isinstance(self.log_interval, int):
            self.batch_index += 1
            return
        self.log_interval_time += time.time() - self.batch_start
        self.processed_samples += sum(part.shape[estimator.batch_axis] for part in kwargs["label"])
        if self.batch_index % self.log_interval == 0:
            estimator.logger.info(
                "[Epoch %d][Batch %d][Samples %d] time/interval: %.3fs%s",
                self.current_epoch,
                self.batch_index,
                self.processed_samples,
                self.log_interval_time,
                self._values(),
            )
            self.log_interval_time = 0.0
        self.batch_index += 1

    def epoch_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Say that an epoch or a validation begins."""
        self.epoch_start = time.time()
        if self._validates:
            estimator.logger.info("Validation Begin")
        else:
            estimator.logger.info(
                "[Epoch %d] Begin, current learning rate: %.4f",
                self.current_epoch,
                estimator.trainer.learning_rate,
            )

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Say how it went."""
        what = "[Validation]" if self._validates else f"[Epoch {self.current_epoch}]"
        estimator.logger.info("%s Finished in %.3fs%s", what, time.time() - self.epoch_start, self._values())
        self.current_epoch += 1
        self.batch_index = 0


class EarlyStoppingHandler(TrainBegin, EpochEnd, TrainEnd):
    """Ends the training when a metric no longer gets better.

    Arguments:
        monitor: the metric, one of the estimator's.
        min_delta: by how much a value has to be better than the best one to count.
        patience: how many epochs without a better value are waited for.
        mode: 'min' or 'max' says which values are better, 'auto' goes by the metric's name: accuracies, F1 and
            correlations grow, everything else shrinks.
        baseline: the value that the first one has to beat.

    After the training `best` is the best value and `stopped_epoch` the epoch (from 0) at whose end it stopped.
    """

    def __init__(
        self,
        monitor: EvalMetric,
        min_delta: float = 0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
    ) -> None:
        self.monitor_op, self._worst = better(mode, monitor)
        self.monitor = monitor
        self.baseline = baseline
        self.patience = patience
        self.min_delta = min_delta if self.monitor_op is np.greater else -min_delta
        self.best = self._worst
        self._start()

    def _start(self) -> None:
        self.wait = self.stopped_epoch = self.current_epoch = 0
        self.stop_training = False

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Start from the baseline."""
        self._start()
        self.best = self._worst if self.baseline is None else self.baseline

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> bool:
        """Compare, and stop when patience is at its end."""
        name, value = self.monitor.get()
        if np.isnan(value):
            warnings.warn(
                f"{name} is not updated: train with more batches per epoch, or check that the metric is one of the "
                "estimator's",
                RuntimeWarning,
                stacklevel=2,
            )
        elif self.monitor_op(value - self.min_delta, self.best):
            self.best = value
            self.wait = 0
        else:
            self.wait += 1
            if self.wait >= self.patience:
                self.stopped_epoch = self.current_epoch
                self.stop_training = True
        self.current_epoch += 1
        return self.stop_training

    def train_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Say that it stopped early."""
        if self.stop_training:
            estimator.logger.info(
                "[Epoch %d] EarlyStoppingHandler: early stopping due to %s not improving",
                self.stopped_epoch,
                self.monitor.get()[0],
            )


class GradientUpdateHandler(BatchEnd):
    """Updates the parameters after each batch; the first handler of a batch unless told otherwise."""

    def __init__(self, priority: float = -2000) -> None:
        self.priority = priority

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """One step, over as many samples as there are losses."""
        losses = kwargs["loss"]
        parts: Sequence[Any] = losses if isinstance(losses, list | tuple) else [losses]
        estimator.trainer.step(sum(part.shape[0] for part in parts))
