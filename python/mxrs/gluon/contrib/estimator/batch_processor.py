"""`BatchProcessor`: what an estimator does with one batch. Override it for other data or other passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .... import autograd
from ....ndarray import NDArray
from ...utils import split_and_load

if TYPE_CHECKING:
    from .estimator import Estimator

__all__ = ["BatchProcessor"]

Parts = list[NDArray]


class BatchProcessor:
    """Runs networks on batches of the form (data, label). Every method works on one part per context."""

    def _get_data_and_label(self, batch: Any, ctx: Any, batch_axis: int = 0) -> tuple[Parts, Parts]:
        """Data and label of a batch, split over the contexts `ctx`; parts may differ by one sample."""
        if len(batch) < 2:
            raise ValueError(f"BatchProcessor: a batch must have data and label, got {len(batch)} arrays")
        return tuple(  # type: ignore[return-value]
            split_and_load(
                array, ctx_list=ctx, batch_axis=batch_axis, even_split=array.shape[batch_axis] < len(ctx)
            )
            for array in (batch[0], batch[1])
        )

    def evaluate_batch(
        self, estimator: Estimator, val_batch: Any, batch_axis: int = 0
    ) -> tuple[Parts, Parts, Parts, Parts]:
        """(data, label, predictions, losses) of the validation network, one array per context each."""
        data, label = self._get_data_and_label(val_batch, estimator.context, batch_axis)
        pred = [estimator.val_net(x) for x in data]
        loss = [estimator.val_loss(y_hat, y) for y_hat, y in zip(pred, label)]
        return data, label, pred, loss

    def fit_batch(
        self, estimator: Estimator, train_batch: Any, batch_axis: int = 0
    ) -> tuple[Parts, Parts, Parts, Parts]:
        """(data, label, predictions, losses) of the network, and the gradients left in its parameters."""
        data, label = self._get_data_and_label(train_batch, estimator.context, batch_axis)
        with autograd.record():
            pred = [estimator.net(x) for x in data]
            loss = [estimator.loss(y_hat, y) for y_hat, y in zip(pred, label)]
        autograd.backward(loss)
        return data, label, pred, loss
