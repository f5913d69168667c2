"""Metrics of real-valued predictions, the mean of a loss, and metrics made of a user's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as numpy_module

from .. import ndarray as nd
from ..ndarray import NDArray
from .base import EvalMetric, alias, check_label_shapes, register

__all__ = ["MAE", "MSE", "RMSE", "Caffe", "CustomMetric", "Loss", "PearsonCorrelation", "Torch", "np"]

Names = Sequence[str] | None
Array = numpy_module.ndarray


class _MeanOfBatches(EvalMetric):
    """Mean over batches of an error of each batch; vectors count as single columns."""

    def __init__(self, name: str, output_names: Names, label_names: Names) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def _error(self, difference: Array) -> Any:
        raise NotImplementedError

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            self._add(self._error(_columns(label.asnumpy()) - _columns(pred.asnumpy())), 1)


def _columns(values: Array) -> Array:
    return values.reshape(values.shape[0], 1) if values.ndim == 1 else values


@register
class MAE(_MeanOfBatches):
    """Mean over batches of the mean absolute error."""

    def __init__(self, name: str = "mae", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names, label_names)

    def _error(self, difference: Array) -> Any:
        return numpy_module.abs(difference).mean()


@register
class MSE(_MeanOfBatches):
    """Mean over batches of the mean squared error."""

    def __init__(self, name: str = "mse", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names, label_names)

    def _error(self, difference: Array) -> Any:
        return (difference**2.0).mean()


@register
class RMSE(_MeanOfBatches):
    """Mean over batches of the root of the mean squared error."""

    def __init__(self, name: str = "rmse", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names, label_names)

    def _error(self, difference: Array) -> Any:
        return numpy_module.sqrt((difference**2.0).mean())


class _Moments:
    """Count, means and central second moments of pairs, merged batch by batch (Chan, Golub and LeVeque,
    1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.means = numpy_module.zeros(2)
        self.products = numpy_module.zeros((2, 2))

    def add(self, first: Array, second: Array) -> None:
        """Merge one batch of pairs."""
        pairs = numpy_module.stack([first, second]).astype("float64")
        size = pairs.shape[1]
        if not size:
            return
        means = pairs.mean(axis=1)
        centred = pairs - means[:, None]
        shift = means - self.means
        total = self.count + size
        self.products += centred @ centred.T + numpy_module.outer(shift, shift) * (self.count * size / total)
        self.means += shift * (size / total)
        self.count = total

    @property
    def correlation(self) -> Any:
        variances = self.products[0, 0] * self.products[1, 1]
        return self.products[0, 1] / numpy_module.sqrt(variances) if variances else float("nan")


@alias("pearsonr")
@register
class PearsonCorrelation(EvalMetric):
    """Pearson's correlation of predictions and labels.

    Parameters
    ----------
    average : {'macro', 'micro'}
        Mean of the correlations of the batches, or the correlation of everything since the reset.
    """

    def __init__(
        self,
        name: str = "pearsonr",
        output_names: Names = None,
        label_names: Names = None,
        average: str = "macro",
    ) -> None:
        if average not in ("macro", "micro"):
            raise ValueError(f"PearsonCorrelation: average must be 'macro' or 'micro', given {average!r}")
        self.average = average
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def reset(self) -> None:
        super().reset()
        self.reset_micro()

    def reset_micro(self) -> None:
        """Forget the pairs gathered for the micro average."""
        self._moments = _Moments()

    def update_cov(self, label: Array, pred: Array) -> None:
        """Gather one batch of pairs for the micro average."""
        self._moments.add(label, pred)

    def update(self, labels: Any, preds: Any) -> None:
        labels, preds = check_label_shapes(labels, preds, True)
        for label, pred in zip(labels, preds):
            check_label_shapes(label, pred, False, True)
            wanted = label.asnumpy().ravel().astype("float64")
            given = pred.asnumpy().ravel().astype("float64")
            if self.average == "macro":
                self._add(numpy_module.corrcoef(given, wanted)[0, 1], 1)
            else:
                self.num_inst += 1
                self.global_num_inst += 1
                self.update_cov(wanted, given)

    def get(self) -> tuple[Any, Any]:
        if self.average == "macro":
            return super().get()
        return self.name, self._moments.correlation if self.num_inst else float("nan")

    def get_global(self) -> tuple[Any, Any]:
        return super().get_global() if self.average == "macro" else self.get()


@register
class Loss(EvalMetric):
    """Mean of the values of the predictions, which are losses; labels are not used."""

    def __init__(self, name: str = "loss", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def update(self, _: Any, preds: Any) -> None:
        for pred in [preds] if isinstance(preds, NDArray) else preds:
            self._add(nd.sum(pred).asscalar(), pred.size)


@register
class Torch(Loss):
    """:class:`Loss` under the name that programs with Torch criterions use."""

    def __init__(self, name: str = "torch", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names)


@register
class Caffe(Loss):
    """:class:`Loss` under the name that programs with Caffe criterions use."""

    def __init__(self, name: str = "caffe", output_names: Names = None, label_names: Names = None) -> None:
        super().__init__(name, output_names=output_names, label_names=label_names)


@register
class CustomMetric(EvalMetric):
    """Mean of what a function of the user returns.

    Parameters
    ----------
    feval : callable
        ``feval(label, pred)`` with NumPy arrays, returns a number or a pair (sum, number of instances).
    name : str, optional
        By default the function's name.
    allow_extra_outputs : bool
        Accept more predictions than labels and ignore the rest.
    """

    def __init__(
        self,
        feval: Callable[[Array, Array], Any],
        name: str | None = None,
        allow_extra_outputs: bool = False,
        output_names: Names = None,
        label_names: Names = None,
    ) -> None:
        if name is None:
            name = getattr(feval, "__name__", type(feval).__name__)
            if "<" in name:
                name = f"custom({name})"
        super().__init__(
            name,
            feval=feval,
            allow_extra_outputs=allow_extra_outputs,
            output_names=output_names,
            label_names=label_names,
            has_global_stats=True,
        )
        self._feval = feval
        self._allow_extra_outputs = allow_extra_outputs

    def update(self, labels: Any, preds: Any) -> None:
        if not self._allow_extra_outputs:
            labels, preds = check_label_shapes(labels, preds, True)
        for pred, label in zip(preds, labels):
            result = self._feval(label.asnumpy(), pred.asnumpy())
            if isinstance(result, tuple):
                self._add(*result)
            else:
                self._add(result, 1)

    def get_config(self) -> dict[str, Any]:
        """A function cannot be written down: raises NotImplementedError."""
        raise NotImplementedError("CustomMetric cannot be serialized")


def np(
    numpy_feval: Callable[[Array, Array], Any], name: str | None = None, allow_extra_outputs: bool = False
) -> CustomMetric:
    """:class:`CustomMetric` of a function of NumPy arrays; usable as a decorator."""

    def feval(label: Array, pred: Array) -> Any:
        return numpy_feval(label, pred)

    feval.__name__ = getattr(numpy_feval, "__name__", type(numpy_feval).__name__)
    return CustomMetric(feval, name, allow_extra_outputs)
