"""Modules that are computed in Python: `PythonModule`, to derive from, and `PythonLossModule`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import ndarray as nd
from ..executor_manager import labels_of
from ..initializer import Uniform
from ..io import DataDesc
from ..ndarray import NDArray
from .base_module import BaseModule

__all__ = ["PythonLossModule", "PythonModule"]


class PythonModule(BaseModule):
    """A module without parameters; a subclass defines `forward`, `backward`, `get_outputs`,
    `get_input_grads` and `_compute_output_shapes`.

    Parameters
    ----------
    data_names, output_names : list of str
    label_names : list of str or None
    """

    def __init__(
        self,
        data_names: Sequence[str],
        label_names: Sequence[str] | None,
        output_names: Sequence[str],
        logger: Any = logging,
    ) -> None:
        super().__init__(logger=logger)
        self._data_names = list(data_names)
        self._label_names = list(label_names) if label_names is not None else None
        self._output_names = list(output_names)
        self._data_shapes: Any = None
        self._label_shapes: Any = None
        self._output_shapes: Any = None

    @property
    def data_names(self) -> list[str]:
        return self._data_names

    @property
    def output_names(self) -> list[str]:
        return self._output_names

    @property
    def data_shapes(self) -> Any:
        return self._data_shapes

    @property
    def label_shapes(self) -> Any:
        return self._label_shapes

    @property
    def output_shapes(self) -> Any:
        return self._output_shapes

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Two empty dictionaries."""
        return {}, {}

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Nothing: there are no parameters."""

    def update(self) -> None:
        """Nothing: there are no parameters."""

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Add the outputs to a metric, if the module has labels."""
        if self._label_shapes is None:
            return
        if pre_sliced:
            raise RuntimeError("PythonModule does not support presliced labels")
        eval_metric.update(labels, self.get_outputs())

    def bind(
        self,
        data_shapes: Any,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Any = None,
        grad_req: Any = "write",
    ) -> None:
        """Take over the shapes; as for `Module`."""
        if self.binded and not force_rebind:
            self.logger.warning("Already bound, ignoring bind()")
            return
        if grad_req != "write":
            raise AssertionError(f"Python module only support write gradient, given grad_req={grad_req!r}")
        data = [desc if isinstance(desc, DataDesc) else DataDesc(*desc) for desc in data_shapes]
        if [desc.name for desc in data] != self._data_names:
            raise AssertionError(
                f"{type(self).__name__}: data_shapes must name {self._data_names}, given "
                f"{[desc.name for desc in data]}"
            )
        labels = None
        if label_shapes is not None:
            labels = [desc if isinstance(desc, DataDesc) else DataDesc(*desc) for desc in label_shapes]
            if [desc.name for desc in labels] != (self._label_names or []):
                raise AssertionError(
                    f"{type(self).__name__}: label_shapes must name {self._label_names or []}, given "
                    f"{[desc.name for desc in labels]}"
                )
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad
        self._data_shapes = data
        self._label_shapes = labels
        self._output_shapes = self._compute_output_shapes()
        self.binded = True
        # There is nothing to initialize.
        self.params_initialized = True

    def _compute_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Pairs of name and shape of the outputs, from `_data_shapes` and `_label_shapes`."""
        raise self._absent("_compute_output_shapes()")

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Nothing: there are no parameters."""
        self.optimizer_initialized = True


class PythonLossModule(PythonModule):
    """A loss whose gradient is computed in Python; its output is its input, the scores.

    Parameters
    ----------
    name : str
        The output is called `NAME_output`.
    data_names, label_names : list of str
        One of each.
    grad_func : callable
        Maps scores and labels, arrays of the last batch, to the gradient of the scores: an NDArray, or what
        `mx.nd.array` takes. A subclass may define `_backward_impl` instead, which sets `_scores_grad`.
    """

    def __init__(
        self,
        name: str = "pyloss",
        data_names: Sequence[str] = ("data",),
        label_names: Sequence[str] = ("softmax_label",),
        logger: Any = logging,
        grad_func: Callable[[NDArray, NDArray], Any] | None = None,
    ) -> None:
        super().__init__(data_names, label_names, [f"{name}_output"], logger=logger)
        if len(self._data_names) != 1 or len(label_names) != 1:
            raise AssertionError(
                f"PythonLossModule: one name of data and one of a label are needed, given {list(data_names)} "
                f"and {list(label_names)}"
            )
        if grad_func is not None and not callable(grad_func):
            raise AssertionError(f"PythonLossModule: grad_func must be callable, given {grad_func!r}")
        self._name = name
        self._scores: Any = None
        self._labels: Any = None
        self._scores_grad: Any = None
        self._grad_func = grad_func

    def _compute_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(f"{self._name}_output", self._data_shapes[0].shape)]

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Keep the scores and, in training mode, the labels."""
        self._scores = data_batch.data[0]
        is_train = self.for_training if is_train is None else is_train
        if is_train:
            if not labels_of(data_batch):
                raise ValueError(f"{type(self).__name__}: training needs a batch with a label")
            self._labels = labels_of(data_batch)[0]

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The scores."""
        assert merge_multi_context is True, "PythonLossModule computes on one device"
        return [self._scores]

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradient of the scores."""
        assert out_grads is None, "For a loss module, out_grads should be None"
        assert self.for_training, "re-bind with for_training=True to run backward"
        self._backward_impl()

    def _backward_impl(self) -> None:
        if self._grad_func is None:
            raise NotImplementedError(
                f"{type(self).__name__}: give grad_func, or define _backward_impl in a subclass"
            )
        grad = self._grad_func(self._scores, self._labels)
        self._scores_grad = grad if isinstance(grad, NDArray) else nd.array(grad)

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradient of the scores."""
        assert merge_multi_context is True, "PythonLossModule computes on one device"
        return [self._scores_grad]

    def install_monitor(self, mon: Any) -> None:
        """Not offered: no executor computes here."""
        raise NotImplementedError("PythonLossModule has no executor that a Monitor could watch")
