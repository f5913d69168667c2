"""`Estimator`: the loop over epochs and batches. What happens around them is up to event handlers."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from .... import initializer as _initializer
from ....context import Context, cpu, gpu, num_gpus
from ....metric import EvalMetric
from ....metric import Loss as _LossMetric
from ...data import DataLoader
from ...loss import Loss
from ...trainer import Trainer
from .batch_processor import BatchProcessor
from .event_handler import (
    BatchBegin,
    BatchEnd,
    EpochBegin,
    EpochEnd,
    EventHandler,
    GradientUpdateHandler,
    LoggingHandler,
    MetricHandler,
    StoppingHandler,
    TrainBegin,
    TrainEnd,
    ValidationHandler,
)
from .utils import check_known_metrics, check_metrics, suggest_metric

__all__ = ["Estimator"]

_EVENTS = {
    "train_begin": TrainBegin,
    "epoch_begin": EpochBegin,
    "batch_begin": BatchBegin,
    "batch_end": BatchEnd,
    "epoch_end": EpochEnd,
    "train_end": TrainEnd,
}


class Estimator:
    """Trains and evaluates a network.

    Arguments:
        net: the Block to train.
        loss: its `gluon.loss.Loss`.
        train_metrics: metrics of the training; by default accuracy for a softmax cross-entropy, and the loss.
            Their names get 'training ' in front.
        val_metrics: metrics of the validation, by default copies of those, named 'validation ...'.
        initializer: for a network that is not initialized yet, `Uniform()` by default.
        trainer: by default SGD with a learning rate of 0.001.
        context: one or several contexts; by default the first GPU, or the CPU.
        val_net, val_loss: network and loss of the validation, where they differ.
        batch_processor: a `BatchProcessor`, or another object with `fit_batch` and `evaluate_batch`.

    Attributes `max_epoch`, `max_batch` and `batch_axis` are those of the last `fit`.

    Raises ValueError for an argument of the wrong kind.
    """

    #: The logger; each estimator has its own handle of it.
    logger: logging.Logger = logging.getLogger("Estimator")

    def __init__(
        self,
        net: Any,
        loss: Loss,
        train_metrics: Any = None,
        val_metrics: Any = None,
        initializer: Any = None,
        trainer: Trainer | None = None,
        context: Any = None,
        val_net: Any = None,
        val_loss: Loss | None = None,
        batch_processor: Any = None,
    ) -> None:
        self.net = net
        self.loss = _checked_loss(loss)
        self.val_net = net if val_net is None else val_net
        self.val_loss = self.loss if val_loss is None else _checked_loss(val_loss)
        self._train_metrics = check_metrics(train_metrics)
        self._val_metrics = check_metrics(val_metrics)
        self._add_metrics()
        self.logger = _logger()
        self.context = _contexts(context)
        self.batch_processor = _checked_processor(batch_processor)
        self.max_epoch: int | None = None
        self.max_batch: int | None = None
        self.batch_axis = 0
        self._initialize(initializer)
        self.trainer = self._checked_trainer(trainer)

    # ---- parts --------------------------------------------------------------------------------------------

    def _add_metrics(self) -> None:
        """Defaults where none were given, and names that tell training from validation."""
        if not self._train_metrics:
            suggested = suggest_metric(self.loss)
            self._train_metrics = [] if suggested is None else [suggested]
            self._train_metrics.append(_LossMetric(self.loss.name.rstrip("0123456789")))
        if not self._val_metrics:
            self._val_metrics = [copy.deepcopy(metric) for metric in self._train_metrics]
            for metric in self._val_metrics:
                metric.reset()
                metric.name = str(metric.name).removeprefix("training ")
        for prefix, metrics in (("training ", self._train_metrics), ("validation ", self._val_metrics)):
            for metric in metrics:
                if not str(metric.name).startswith(prefix):
                    metric.name = f"{prefix}{metric.name}"

    def _is_initialized(self) -> bool:
        try:
            for param in self.net.collect_params().values():
                param.list_ctx()
        except RuntimeError:
            return False
        return True

    def _initialize(self, initializer: Any) -> None:
        if not self._is_initialized():
            self.net.initialize(init=initializer or _initializer.Uniform(), ctx=self.context)
        elif initializer is not None:
            warnings.warn(
                "Estimator: the network is initialized already, the initializer is not used; call "
                "net.initialize(..., force_reinit=True) to start anew",
                stacklevel=3,
            )

    def _checked_trainer(self, trainer: Trainer | None) -> Trainer:
        if trainer is None:
            warnings.warn(
                "No trainer specified, default SGD optimizer with learning rate 0.001 is used.", stacklevel=3
            )
            return Trainer(self.net.collect_params(), "sgd", {"learning_rate": 0.001})
        if not isinstance(trainer, Trainer):
            raise ValueError(f"Trainer must be a Gluon Trainer instance, refer to gluon.Trainer:{trainer}")
        return trainer

    @property
    def train_metrics(self) -> list[EvalMetric]:
        """The metrics of the training; give these to handlers."""
        return self._train_metrics

    @property
    def val_metrics(self) -> list[EvalMetric]:
        """The metrics of the validation; give these to handlers."""
        return self._val_metrics

    # ---- loops --------------------------------------------------------------------------------------------

    def evaluate(self, val_data: DataLoader, batch_axis: int = 0, event_handlers: Any = None) -> None:
        """Run the validation network over `val_data`; `val_metrics` have the results.

        Handlers get the events of one epoch. Raises ValueError if `val_data` is not a DataLoader.
        """
        _check_loader(val_data)
        handlers = _checked_handlers(event_handlers)
        self._add_default(handlers, MetricHandler, lambda: MetricHandler(metrics=self.val_metrics))
        self._add_default(handlers, LoggingHandler, lambda: LoggingHandler(metrics=self.val_metrics))
        self._check_handlers(handlers)
        events = _by_event(handlers)
        _tell(events, "epoch_begin", self)
        for batch in val_data:
            _tell(events, "batch_begin", self, batch=batch)
            _, label, pred, loss = self.batch_processor.evaluate_batch(self, batch, batch_axis)
            _tell(events, "batch_end", self, batch=batch, pred=pred, label=label, loss=loss)
        _tell(events, "epoch_end", self)

    def fit(
        self,
        train_data: DataLoader,
        val_data: DataLoader | None = None,
        epochs: int | None = None,
        event_handlers: Any = None,
        batches: int | None = None,
        batch_axis: int = 0,
    ) -> None:
        """Train for `epochs` passes over `train_data`, or for `batches` batches.

        Unless `event_handlers` has one of its class, there is a `StoppingHandler`, a `GradientUpdateHandler`, a
        `MetricHandler`, a `LoggingHandler` and, with `val_data`, a `ValidationHandler` that evaluates after each
        epoch.

        Raises ValueError if the data is not a DataLoader, or not exactly one of `epochs` and `batches` is given.
        """
        _check_loader(train_data)
        if not (epochs is None) ^ (batches is None):
            raise ValueError(
                "Fit only support exactly one type of iteration, train by number of epochs or number of batches. "
                f"Please specify one and only one of: epochs or batches, got epochs={epochs}, batches={batches}."
            )
        limit = epochs if batches is None else batches
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(
                f"fit: the number of epochs or batches must be a positive integer, got {limit!r}"
            )
        if len(train_data) == 0:
            raise ValueError("fit: train_data has no batches, training would never end")
        self.max_epoch, self.max_batch, self.batch_axis = epochs, batches, batch_axis
        events = _by_event(self._handlers(val_data, event_handlers))
        _tell(events, "train_begin", self)
        stop = False
        while not stop:
            _tell(events, "epoch_begin", self)
            for batch in train_data:
                _tell(events, "batch_begin", self, batch=batch)
                _, label, pred, loss = self.batch_processor.fit_batch(self, batch, batch_axis)
                if _tell(events, "batch_end", self, batch=batch, pred=pred, label=label, loss=loss):
                    break
            stop = _tell(events, "epoch_end", self)
        _tell(events, "train_end", self)

    # ---- handlers -----------------------------------------------------------------------------------------

    def _handlers(self, val_data: Any, event_handlers: Any) -> list[Any]:
        handlers = _checked_handlers(event_handlers)
        self._add_default(handlers, StoppingHandler, lambda: StoppingHandler(self.max_epoch, self.max_batch))
        self._add_default(handlers, GradientUpdateHandler, GradientUpdateHandler)
        self._add_default(handlers, MetricHandler, lambda: MetricHandler(metrics=self.train_metrics))
        if val_data is not None:
            self._add_default(handlers, ValidationHandler, lambda: ValidationHandler(val_data, self.evaluate))
        self._add_default(handlers, LoggingHandler, lambda: LoggingHandler(metrics=self.train_metrics))
        self._check_handlers(handlers)
        return handlers

    @staticmethod
    def _add_default(handlers: list[Any], kind: type, make: Any) -> None:
        if not any(isinstance(handler, kind) for handler in handlers):
            handlers.append(make())

    def _check_handlers(self, handlers: Iterable[Any]) -> None:
        for handler in handlers:
            check_known_metrics(handler, [*self.train_metrics, *self.val_metrics])


def _by_event(handlers: list[Any]) -> dict[str, list[Any]]:
    """The handlers of each event, in the order in which they are called."""
    ordered = sorted(handlers, key=lambda handler: getattr(handler, "priority", 0))
    return {
        event: [handler for handler in ordered if isinstance(handler, kind)]
        for event, kind in _EVENTS.items()
    }


def _tell(events: dict[str, list[Any]], event: str, estimator: Estimator, **kwargs: Any) -> bool:
    """Call the handlers of an event, all of them; whether one of them asks to stop."""
    return any([bool(getattr(handler, event)(estimator, **kwargs)) for handler in events[event]])


# ---- checks ------------------------------------------------------------------------------------------------


def _logger() -> logging.Logger:
    logger = logging.getLogger("Estimator")
    if not logger.handlers:
        logger.setLevel(logging.INFO)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    return logger


def _checked_loss(loss: Any) -> Loss:
    if not isinstance(loss, Loss):
        raise ValueError(f"loss must be a Loss, refer to gluon.loss.Loss:{loss}")
    return loss


def _contexts(context: Any) -> list[Context]:
    if context is None:
        return [gpu(0)] if num_gpus() > 0 else [cpu()]
    contexts = [context] if isinstance(context, Context) else context
    if (
        not isinstance(contexts, list | tuple)
        or not all(isinstance(one, Context) for one in contexts)
        or not contexts
    ):
        raise ValueError(
            "context must be a Context or a list of Context, for example mx.cpu() or [mx.gpu(0), mx.gpu(1)], "
            f"refer to mxnet.Context:{context}"
        )
    return list(contexts)


def _checked_processor(processor: Any) -> Any:
    if processor is None:
        return BatchProcessor()
    if not all(callable(getattr(processor, name, None)) for name in ("fit_batch", "evaluate_batch")):
        raise ValueError(
            f"Customized Batch Processor must contain fit_batch() and evaluate_batch() methods, got {processor!r}"
        )
    return processor


def _check_loader(data: Any) -> None:
    if not isinstance(data, DataLoader):
        raise ValueError(
            "Estimator only support input as Gluon DataLoader. Alternatively, you can transform your DataIter or any "
            f"NDArray into Gluon DataLoader. Refer to gluon.data.DataLoader. Got {type(data).__name__}"
        )


def _checked_handlers(handlers: Any) -> list[Any]:
    found = [handlers] if isinstance(handlers, EventHandler) else handlers
    found = [] if found is None else found
    if not isinstance(found, list | tuple) or not all(isinstance(one, EventHandler) for one in found):
        raise ValueError(f"handlers must be an EventHandler or a list of EventHandler, got: {handlers}")
    return list(found)
