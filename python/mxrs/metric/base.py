"""The base of all metrics: running sums, the registry, shape checks, and the metric made of several.

A metric adds up ``sum_metric`` over ``num_inst`` instances and reports their ratio. Beside these, which
``reset_local`` clears between reports, the global pair runs on until ``reset``. The metrics themselves stand
in ``classification`` and ``regression``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..base import did_you_mean
from ..ndarray import NDArray

__all__ = ["CompositeEvalMetric", "EvalMetric", "alias", "check_label_shapes", "create", "register"]

MetricType = TypeVar("MetricType", bound="type[EvalMetric]")
Value = Any  # a number, Python's or NumPy's


def check_label_shapes(labels: Any, preds: Any, wrap: bool = False, shape: bool = False) -> tuple[Any, Any]:
    """Labels and predictions after a check that there are as many of both.

    Parameters
    ----------
    labels, preds : NDArray or list of NDArray
    wrap : bool
        Put a single array into a list.
    shape : bool
        Compare shapes instead of lengths.

    Raises
    ------
    ValueError
        Where they differ.
    TypeError
        Where one is neither.
    """
    for what, values in (("labels", labels), ("preds", preds)):
        if not hasattr(values, "shape" if shape else "__len__"):
            raise TypeError(f"metric: {what} is an NDArray or a list of them, given {type(values).__name__}")
    of_labels, of_preds = (labels.shape, preds.shape) if shape else (len(labels), len(preds))
    if of_labels != of_preds:
        raise ValueError(f"Shape of labels {of_labels} does not match shape of predictions {of_preds}")
    if wrap:
        labels = [labels] if isinstance(labels, NDArray) else labels
        preds = [preds] if isinstance(preds, NDArray) else preds
    return labels, preds


class EvalMetric:
    """Base class of the metrics.

    Parameters
    ----------
    name : str
        What :meth:`get` reports the value under.
    output_names, label_names : list of str, optional
        Which entries :meth:`update_dict` takes from the dicts of outputs and labels; None takes all.
    has_global_stats : bool
        Whether the class keeps the global pair; without, :meth:`get_global` is :meth:`get`.
    kwargs
        Further arguments for :meth:`get_config`.
    """

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.name: Any = str(name)
        self.output_names = output_names
        self.label_names = label_names
        self._has_global_stats = kwargs.pop("has_global_stats", False)
        self._kwargs = kwargs
        self.reset()

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"

    def get_config(self) -> dict[str, Any]:
        """Class and arguments, from which :func:`create` makes the metric anew."""
        config = self._kwargs.copy()
        config.update(
            metric=type(self).__name__,
            name=self.name,
            output_names=self.output_names,
            label_names=self.label_names,
        )
        return config

    def update_dict(self, label: dict[str, NDArray], pred: dict[str, NDArray]) -> None:
        """:meth:`update` with the arrays named by ``label_names`` and ``output_names``."""
        preds = (
            list(pred.values()) if self.output_names is None else [pred[name] for name in self.output_names]
        )
        labels = (
            list(label.values()) if self.label_names is None else [label[name] for name in self.label_names]
        )
        self.update(labels, preds)

    def update(self, labels: Any, preds: Any) -> None:
        """Add one batch.

        Parameters
        ----------
        labels, preds : list of NDArray
            One array per output of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def _add(self, total: Value, count: Value) -> None:
        """Add to both the local and the global pair."""
        self.sum_metric += total
        self.global_sum_metric += total
        self.num_inst += count
        self.global_num_inst += count

    def reset(self) -> None:
        """Forget everything."""
        # NumPy 2 adds a float32 to a Python float in float32, and a long sum loses its digits; a float64 of NumPy's
        # stays one, also in the `+=` of a metric that a user wrote.
        self.num_inst: Value = 0
        self.sum_metric: Value = np.float64(0)
        self.global_num_inst: Value = 0
        self.global_sum_metric: Value = np.float64(0)

    def reset_local(self) -> None:
        """Forget what came since the last reset, but not the global pair."""
        self.num_inst = 0
        self.sum_metric = np.float64(0)

    def get(self) -> tuple[Any, Any]:
        """Name and value; nan before the first update."""
        return self.name, _ratio(self.sum_metric, self.num_inst)

    def get_global(self) -> tuple[Any, Any]:
        """Name and value since the last :meth:`reset`."""
        if not self._has_global_stats:
            return self.get()
        return self.name, _ratio(self.global_sum_metric, self.global_num_inst)

    def get_name_value(self) -> list[tuple[str, Value]]:
        """:meth:`get` as a list of pairs, whether the metric is one or several."""
        return _pairs(*self.get())

    def get_global_name_value(self) -> list[tuple[str, Value]]:
        """:meth:`get_global` as a list of pairs."""
        return _pairs(*self.get_global())


def _ratio(total: Value, count: Value) -> Value:
    value = float("nan") if count == 0 else total / count
    # A number of Python's prints as 0.5, where NumPy's prints as np.float64(0.5).
    return value.item() if isinstance(value, np.generic) else value


def _pairs(name: Any, value: Any) -> list[tuple[str, Value]]:
    names = name if isinstance(name, list) else [name]
    values = value if isinstance(value, list) else [value]
    return list(zip(names, values))


# -- registry ---------------------------------------------------------------------------------------

_REGISTRY: dict[str, type[EvalMetric]] = {}


def register(klass: MetricType, name: str | None = None) -> MetricType:
    """Make `klass` known to :func:`create` under `name`, by default its class name, in any case; also a
    decorator.
    """
    if not (isinstance(klass, type) and issubclass(klass, EvalMetric)):
        raise TypeError(f"register expects a subclass of EvalMetric, given {klass!r}")
    key = (klass.__name__ if name is None else name).lower()
    known = _REGISTRY.get(key)
    if known is not None:
        warnings.warn(
            f"New metric {klass.__module__}.{klass.__name__} registered with name {key} is overriding "
            f"existing metric {known.__module__}.{known.__name__}",
            stacklevel=2,
        )
    _REGISTRY[key] = klass
    return klass


def alias(*aliases: str) -> Callable[[MetricType], MetricType]:
    """Decorator that makes a class known under further names."""

    def decorate(klass: MetricType) -> MetricType:
        for name in aliases:
            register(klass, name)
        return klass

    return decorate


def create(metric: Any, *args: Any, **kwargs: Any) -> Any:
    """Metric from a name, a function ``(label, pred)``, a list of these, JSON text, or a metric, returned as
    it is.

    Raises
    ------
    AssertionError
        For an unknown name, or arguments beside a metric.
    """
    if isinstance(metric, EvalMetric):
        if args or kwargs:
            raise AssertionError("metric is already an instance. Additional arguments are invalid")
        return metric
    if callable(metric):
        from .regression import CustomMetric  # regression imports this module

        return CustomMetric(metric, *args, **kwargs)
    if isinstance(metric, list):
        composite = CompositeEvalMetric()
        for child in metric:
            composite.add(create(child, *args, **kwargs))
        return composite
    if isinstance(metric, dict):
        return create(**metric)
    if not isinstance(metric, str):
        raise AssertionError(f"metric must be of string type, given {type(metric).__name__}")
    if metric.startswith(("[", "{")):
        decoded = json.loads(metric)
        if isinstance(decoded, dict):
            return create(**decoded)
        name, arguments = decoded
        return create(name, **arguments)
    klass = _REGISTRY.get(metric.lower())
    if klass is None:
        hint = did_you_mean(metric.lower(), _REGISTRY)
        raise AssertionError(f"{metric} is not registered. Please register with metric.register first{hint}")
    return klass(*args, **kwargs)


@alias("composite")
@register
class CompositeEvalMetric(EvalMetric):
    """Several metrics updated together; names and values come as lists.

    Parameters
    ----------
    metrics : list, optional
        Whatever :func:`create` takes.
    """

    def __init__(
        self,
        metrics: Iterable[Any] | None = None,
        name: str = "composite",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        self.metrics: list[EvalMetric] = [create(metric) for metric in metrics or ()]
        super().__init__(name, output_names=output_names, label_names=label_names, has_global_stats=True)

    def add(self, metric: Any) -> None:
        """Append what :func:`create` makes of `metric`."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> EvalMetric:
        """The metric at `index`. Raises ValueError where there is none."""
        try:
            return self.metrics[index]
        except IndexError:
            raise ValueError(f"Metric index {index} is out of range 0 and {len(self.metrics)}") from None

    def update_dict(self, label: dict[str, NDArray], pred: dict[str, NDArray]) -> None:
        """Pass on the entries named by ``label_names`` and ``output_names``."""
        if self.label_names is not None:
            label = {name: value for name, value in label.items() if name in self.label_names}
        if self.output_names is not None:
            pred = {name: value for name, value in pred.items() if name in self.output_names}
        for metric in self.metrics:
            metric.update_dict(label, pred)

    def update(self, labels: Any, preds: Any) -> None:
        for metric in self.metrics:
            metric.update(labels, preds)

    def reset(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def reset_local(self) -> None:
        for metric in self.metrics:
            metric.reset_local()

    def get(self) -> tuple[list[str], list[Value]]:
        return self._collected(EvalMetric.get_name_value)

    def get_global(self) -> tuple[list[str], list[Value]]:
        return self._collected(EvalMetric.get_global_name_value)

    def _collected(
        self, pairs_of: Callable[[EvalMetric], list[tuple[str, Value]]]
    ) -> tuple[list[str], list[Value]]:
        pairs = [pair for metric in self.metrics for pair in pairs_of(metric)]
        return [name for name, _ in pairs], [value for _, value in pairs]

    def get_config(self) -> dict[str, Any]:
        """As in the base class, with the configurations of the parts under ``metrics``."""
        config = super().get_config()
        config["metrics"] = [metric.get_config() for metric in self.metrics]
        return config
