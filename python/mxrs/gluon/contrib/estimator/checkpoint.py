"""`CheckpointHandler`: parameters and trainer states on disk while training, and going on from them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ....metric import EvalMetric
from ... import HybridBlock
from ...utils import replace_file
from .event_handler import BatchEnd, EpochEnd, TrainBegin
from .utils import better

if TYPE_CHECKING:
    from .estimator import Estimator

__all__ = ["CheckpointHandler"]


class CheckpointHandler(TrainBegin, BatchEnd, EpochEnd):
    """Saves the model after every `epoch_period` epochs and every `batch_period` batches.

    A checkpoint is `PREFIX-epochEbatchB.params` and `.states` in `model_dir`: E counts epochs from 0, B is the
    number of the last batch from 0, or, at the end of an epoch, the number of batches so far. A HybridBlock's
    architecture goes to `PREFIX-symbol.json`. Files appear whole or not at all.

    Arguments:
        model_dir: the folder, made where missing.
        model_prefix: how the files' names begin.
        monitor: a metric of the estimator; `save_best` compares its values.
        verbose: above 0, each saving is logged.
        save_best: also keep the best checkpoint so far as `PREFIX-best`.
        mode: 'min', 'max' or 'auto', as for `EarlyStoppingHandler`.
        epoch_period, batch_period: how often; None for never.
        max_checkpoints: how many are kept; the oldest are removed.
        resume_from_checkpoint: begin from the newest checkpoint in the folder and train what is left of `fit`'s epochs
            or batches. Only one of the periods may then be set, the one that `fit` counts in.

    Raises ValueError for `save_best` without a metric.
    """

    def __init__(
        self,
        model_dir: str,
        model_prefix: str = "model",
        monitor: EvalMetric | None = None,
        verbose: int = 0,
        save_best: bool = False,
        mode: str = "auto",
        epoch_period: int | None = 1,
        batch_period: int | None = None,
        max_checkpoints: int = 5,
        resume_from_checkpoint: bool = False,
    ) -> None:
        self.model_dir = os.fspath(model_dir)
        os.makedirs(self.model_dir, exist_ok=True)
        self.model_prefix = model_prefix
        self.monitor = monitor
        self.verbose = verbose
        self.save_best = save_best
        self.epoch_period = epoch_period
        self.batch_period = batch_period
        self.max_checkpoints = max_checkpoints
        self.resume_from_checkpoint = resume_from_checkpoint
        self.saved_checkpoints: list[str] = []
        self.current_epoch = 0
        self.current_batch = 0
        self.trained_epoch = -1
        self.trained_batch = 0
        if save_best:
            if not isinstance(monitor, EvalMetric):
                raise ValueError(
                    "To save best model only, please provide one of the metric objects from "
                    "estimator.train_metrics and estimator.val_metrics as monitor."
                )
            self.monitor_op, self.best = better(mode, monitor)

    # ---- events -------------------------------------------------------------------------------------------

    def train_begin(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Count anew, or go on from the newest checkpoint."""
        self.current_epoch = self.current_batch = 0
        self.trained_epoch, self.trained_batch = -1, 0
        if not self.resume_from_checkpoint:
            return
        if (estimator.max_epoch and self.batch_period) or (estimator.max_batch and self.epoch_period):
            raise AssertionError(
                "To use resume from checkpoint, you must only specify the same type of period you used for "
                "training. For example, if you are training based on number of epochs, you must save only based on "
                "epochs, and set batch_period to None."
            )
        self._resume(estimator)

    def batch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Save where it is time."""
        if self.current_batch == 0:
            self._save_symbol(estimator)
        self.current_batch += 1
        if self.batch_period and self.current_batch % self.batch_period == 0:
            self._save(estimator, self.trained_batch + self.current_batch - 1)

    def epoch_end(self, estimator: Estimator, *args: Any, **kwargs: Any) -> None:
        """Save where it is time."""
        if self.epoch_period and (self.current_epoch + 1) % self.epoch_period == 0:
            self._save(estimator, self.trained_batch + self.current_batch)
        self.current_epoch += 1

    # ---- saving -------------------------------------------------------------------------------------------

    def _log(self, estimator: Estimator, message: str, *args: Any) -> None:
        if self.verbose > 0:
            epoch = self.trained_epoch + 1 + self.current_epoch
            estimator.logger.info("[Epoch %d] CheckpointHandler: " + message, epoch, *args)

    def _path(self, name: str) -> str:
        return os.path.join(self.model_dir, name)

    def _save_symbol(self, estimator: Estimator) -> None:
        path = self._path(f"{self.model_prefix}-symbol.json")
        reason = f"{type(estimator.net).__name__} is not a HybridBlock"
        if isinstance(estimator.net, HybridBlock):
            try:
                from .... import symbol

                estimator.net(symbol.Variable("data")).save(path)
                return
            except Exception as error:
                # The parameters are what a checkpoint is for: training goes on without the architecture.
                reason = f"it cannot be traced with one input ({type(error).__name__}: {error})"
        estimator.logger.info(
            "CheckpointHandler: the model's architecture is not saved as %s: %s", path, reason
        )

    def _save(self, estimator: Estimator, batch: int) -> None:
        name = f"{self.model_prefix}-epoch{self.trained_epoch + 1 + self.current_epoch}batch{batch}"
        done = self.trained_batch + self.current_batch
        self._log(
            estimator,
            "trained total %d batches, saving model at %s with prefix: %s",
            done,
            self.model_dir,
            name,
        )
        self._write(estimator, name)
        if name not in self.saved_checkpoints:
            self.saved_checkpoints.append(name)
        while len(self.saved_checkpoints) > self.max_checkpoints:
            oldest = self.saved_checkpoints.pop(0)
            for ending in (".params", ".states"):
                if os.path.exists(self._path(oldest + ending)):
                    os.remove(self._path(oldest + ending))
        if self.save_best:
            self._save_best(estimator)

    def _save_best(self, estimator: Estimator) -> None:
        assert self.monitor is not None
        name, value = self.monitor.get()
        if np.isnan(value):
            estimator.logger.warning("CheckpointHandler: %s was not updated, skipping the best model", name)
        elif self.monitor_op(value, self.best):
            best = f"{self.model_prefix}-best"
            self._log(
                estimator,
                "%s improved from %.5f to %.5f, updating best model at %s with prefix: %s",
                name,
                self.best,
                value,
                self.model_dir,
                best,
            )
            self._write(estimator, best)
            self.best = value
        else:
            self._log(
                estimator, "%s did not improve from %.5f, skipping updating best model", name, self.best
            )

    def _write(self, estimator: Estimator, name: str) -> None:
        path = self._path(name)
        estimator.net.save_parameters(f"{path}.params.part")
        estimator.trainer.save_states(f"{path}.states.part")
        for ending in (".params", ".states"):
            replace_file(f"{path}{ending}.part", f"{path}{ending}")

    # ---- going on -----------------------------------------------------------------------------------------

    def _newest(self) -> tuple[int, int] | None:
        """(epoch, batch) of the newest checkpoint that has both its files."""
        pattern = re.compile(re.escape(self.model_prefix) + r"-epoch(\d+)batch(\d+)\.params")
        names = set(os.listdir(self.model_dir))
        found = [
            (int(match[1]), int(match[2]))
            for match in map(pattern.fullmatch, names)
            if match and match[0].replace(".params", ".states") in names
        ]
        return max(found, default=None)

    def _resume(self, estimator: Estimator) -> None:
        newest = self._newest()
        unit = "epochs" if estimator.max_epoch else "batches"
        if newest is None:
            left = estimator.max_epoch or estimator.max_batch
            estimator.logger.info(
                "CheckpointHandler: No checkpoint found, training from scratch for %d %s", left, unit
            )
            return
        epoch, batch = newest
        # An epoch's checkpoint counts the batches so far, a batch's names the last one.
        self.trained_epoch = epoch
        self.trained_batch = batch if estimator.max_epoch else batch + 1
        trained = epoch + 1 if estimator.max_epoch else batch + 1
        wanted = estimator.max_epoch or estimator.max_batch or 0
        if trained >= wanted:
            raise ValueError(
                f"Found checkpoint with maximum number of {unit} {wanted} reached, please specify "
                "resume_from_checkpoint=False (default value) if you want to train from scratch."
            )
        if estimator.max_epoch:
            estimator.max_epoch = wanted - trained
        else:
            estimator.max_batch = wanted - trained
        path = self._path(f"{self.model_prefix}-epoch{epoch}batch{batch}")
        estimator.net.load_parameters(f"{path}.params", ctx=estimator.context)
        estimator.trainer.load_states(f"{path}.states")
        estimator.logger.info(
            "CheckpointHandler: Checkpoint resumed from epoch %d batch %d, continue to train for %d %s",
            epoch,
            batch,
            wanted - trained,
            unit,
        )
