"""Callbacks for training loops: speed and metrics in the log, checkpoints, a bar of batches.

A batch callback is called with a `BatchEndParam` (epoch, nbatch, eval_metric, locals), an epoch callback with
(epoch, symbol, arg_params, aux_params). The texts they log are read by scripts, so their spelling is MXNet's;
where the training loop also measures the loss of the network (`locals['loss_metric']`), it is appended.
`save_checkpoint` stands here, below `mxrs.model` which offers it too, because `do_checkpoint` writes with it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import ndarray as nd

__all__ = [
    "LogValidationMetricsCallback",
    "ProgressBar",
    "Speedometer",
    "do_checkpoint",
    "log_train_metric",
    "module_checkpoint",
    "save_checkpoint",
]


def save_checkpoint(
    prefix: str,
    epoch: int,
    symbol: Any,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    remove_amp_cast: bool = True,
) -> None:
    """Write a network and its parameters: `PREFIX-symbol.json` and `PREFIX-EPOCH.params` (four digits).

    A file appears under its name only when it is complete, so a crash leaves the former one.

    Parameters
    ----------
    symbol : Symbol or None
        None writes the parameters only.
    arg_params, aux_params : dict of str to NDArray
    remove_amp_cast : bool
        Leave out the casts that automatic mixed precision put into `symbol`.
    """
    if not hasattr(epoch, "__index__"):
        raise TypeError(f"save_checkpoint: epoch is a whole number, given {epoch!r}")
    if symbol is not None:
        if not hasattr(symbol, "save"):
            raise TypeError(f"save_checkpoint: symbol is a Symbol or None, given {type(symbol).__name__}")
        symbol.save(f"{prefix}-symbol.json", remove_amp_cast=remove_amp_cast)
    arrays = {f"arg:{name}": array for name, array in arg_params.items()}
    arrays.update({f"aux:{name}": array for name, array in aux_params.items()})
    fname = f"{prefix}-{epoch:04d}.params"
    nd.save(fname, arrays)
    logging.info('Saved checkpoint to "%s"', fname)


def do_checkpoint(prefix: str, period: int = 1) -> Callable[..., None]:
    """Epoch callback that writes a checkpoint after every `period` epochs, numbered from 1."""
    period = int(max(1, period))

    def save(iter_no: int, sym: Any, arg: Mapping[str, Any], aux: Mapping[str, Any]) -> None:
        if (iter_no + 1) % period == 0:
            save_checkpoint(prefix, iter_no + 1, sym, arg, aux)

    return save


def module_checkpoint(
    mod: Any, prefix: str, period: int = 1, save_optimizer_states: bool = False
) -> Callable[..., None]:
    """Epoch callback that calls `mod.save_checkpoint` after every `period` epochs, numbered from 1."""
    period = int(max(1, period))

    def save(iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None) -> None:
        if (iter_no + 1) % period == 0:
            mod.save_checkpoint(prefix, iter_no + 1, save_optimizer_states)

    return save


def log_train_metric(period: int, auto_reset: bool = False) -> Callable[[Any], None]:
    """Batch callback that logs the training metric every `period` batches, and with `auto_reset` starts it
    anew.
    """

    def log(param: Any) -> None:
        if param.nbatch % period != 0 or param.eval_metric is None:
            return
        for name, value in param.eval_metric.get_name_value():
            logging.info("Iter[%d] Batch[%d] Train-%s=%f", param.epoch, param.nbatch, name, value)
        if auto_reset:
            param.eval_metric.reset_local()

    return log


class Speedometer:
    """Batch callback that logs samples per second, the metric and the loss every `frequent` batches.

    Parameters
    ----------
    batch_size : int
        Samples in a batch.
    frequent : int
        Batches between two lines.
    auto_reset : bool
        Whether each line is about the batches since the last one; otherwise about the epoch so far.
    """

    def __init__(self, batch_size: int, frequent: int = 50, auto_reset: bool = True) -> None:
        self.batch_size = batch_size
        self.frequent = frequent
        self.init = False
        self.tic = 0.0
        self.last_count = 0
        self.auto_reset = auto_reset

    def __call__(self, param: Any) -> None:
        """Start the clock at the first batch of an epoch, log at every `frequent`-th one."""
        count = param.nbatch
        if self.last_count > count:
            self.init = False
        self.last_count = count
        if not self.init:
            self.init = True
            self.tic = time.time()
            return
        if count % self.frequent != 0:
            return
        seconds = time.time() - self.tic
        speed = self.frequent * self.batch_size / seconds if seconds > 0 else float("inf")
        if param.eval_metric is None:
            logging.info("Iter[%d] Batch [%d]\tSpeed: %.2f samples/sec", param.epoch, count, speed)
        else:
            self._log_metrics(param, count, speed)
        self.tic = time.time()

    def _log_metrics(self, param: Any, count: int, speed: float) -> None:
        metrics = [param.eval_metric]
        if isinstance(param.locals, dict) and param.locals.get("loss_metric") is not None:
            metrics.append(param.locals["loss_metric"])
        pairs = [pair for metric in metrics for pair in metric.get_name_value()]
        if self.auto_reset:
            for metric in metrics:
                metric.reset_local()
        first = count - self.frequent if self.auto_reset else 0
        text = "Epoch[%d] Batch [%d-%d]\tSpeed: %.2f samples/sec" + "\t%s=%f" * len(pairs)
        logging.info(text, param.epoch, first, count, speed, *(part for pair in pairs for part in pair))


class ProgressBar:
    """Batch callback that logs a bar of '=' and '-'.

    Parameters
    ----------
    total : int
        Batches in an epoch.
    length : int
        Characters of the bar.
    """

    def __init__(self, total: int, length: int = 80) -> None:
        if total <= 0:
            raise ValueError(f"ProgressBar: total must be the number of batches, at least 1, given {total}")
        self.bar_len = length
        self.total = total

    def __call__(self, param: Any) -> None:
        """Log how far `param.nbatch` is towards `total`."""
        share = param.nbatch / float(self.total)
        filled = round(self.bar_len * share)
        bar = "=" * filled + "-" * (self.bar_len - filled)
        logging.info("[%s] %d%s\r", bar, math.ceil(100.0 * share), "%")


class LogValidationMetricsCallback:
    """Callback for the end of an evaluation that logs its metric."""

    def __call__(self, param: Any) -> None:
        """Log every value of `param.eval_metric`."""
        if not param.eval_metric:
            return
        for name, value in param.eval_metric.get_name_value():
            logging.info("Epoch[%d] Validation-%s=%f", param.epoch, name, value)
