"""`BaseModule`: what all modules share, above `forward`, `backward` and `update`.

It trains (`fit`), evaluates (`score`), predicts (`predict`, `iter_predict`) and keeps parameters in files. The
subclasses say how a batch is computed. Programs that wrote their own module import the checks of names and shapes
from here; they stand in `_arguments`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import metric
from .. import ndarray as nd
from ..base import MXNetError
from ..executor_manager import labels_of, pad_of
from ..initializer import Uniform
from ..io import DataBatch
from ..model import BatchEndParam, listed, split_params
from ..ndarray import NDArray
from ._arguments import _as_list, _check_input_names, _parse_data_desc, _refuse_sparse
from ._head_loss import HeadLoss, reports_loss
from ._progress import Progress, batches_in, progress

__all__ = ["BaseModule", "_as_list", "_check_input_names", "_parse_data_desc"]


class BaseModule:
    """Base class of the modules.

    A module is bound (`bind`), gets parameters (`init_params`) and an optimizer (`init_optimizer`), and then
    goes through batches with `forward`, `backward` and `update`; `fit` does all of it.

    Parameters
    ----------
    logger : logging.Logger

    Attributes
    ----------
    binded, for_training, inputs_need_grad, params_initialized, optimizer_initialized : bool
        How far the module is.
    """

    def __init__(self, logger: Any = logging) -> None:
        self.logger = logger
        self.binded = False
        self.for_training = False
        self.inputs_need_grad = False
        self.params_initialized = False
        self.optimizer_initialized = False
        self._symbol: Any = None
        self._total_exec_bytes = 0

    # ---- what subclasses define ---------------------------------------------------------------------------

    def _absent(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not define {what}")

    @property
    def data_names(self) -> Sequence[str]:
        """Names of the data."""
        raise self._absent("data_names")

    @property
    def output_names(self) -> Sequence[str]:
        """Names of the outputs."""
        raise self._absent("output_names")

    @property
    def data_shapes(self) -> Any:
        """Descriptions of the data that is bound."""
        raise self._absent("data_shapes")

    @property
    def label_shapes(self) -> Any:
        """Descriptions of the labels that are bound, or None."""
        raise self._absent("label_shapes")

    @property
    def output_shapes(self) -> Any:
        """Pairs of name and shape of the outputs."""
        raise self._absent("output_shapes")

    @property
    def symbol(self) -> Any:
        """The network, or None for a module that has none."""
        return self._symbol

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Parameters and auxiliary states by name."""
        raise self._absent("get_params()")

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Give the parameters their first values."""
        raise self._absent("init_params()")

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
        """Allocate what is needed to compute batches of these shapes."""
        raise self._absent("bind()")

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer."""
        raise self._absent("init_optimizer()")

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs of a batch."""
        raise self._absent("forward()")

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients of the batch of the last `forward`."""
        raise self._absent("backward()")

    def update(self) -> None:
        """Update the parameters with the gradients."""
        raise self._absent("update()")

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """Outputs of the last `forward`."""
        raise self._absent("get_outputs()")

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """Gradients of the data of the last `backward`."""
        raise self._absent("get_input_grads()")

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Add the outputs of the last `forward` to a metric."""
        raise self._absent("update_metric()")

    def install_monitor(self, mon: Any) -> None:
        """Watch what is computed with a Monitor."""
        raise self._absent("install_monitor()")

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch that comes next.

        Raises NotImplementedError where `sparse_row_id_fn` is given: sparse parameters are not built yet.
        """
        _refuse_sparse(sparse_row_id_fn)

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """Values of the states; a module without states has none."""
        assert self.binded and self.params_initialized, _ORDER
        assert not merge_multi_context, "merge_multi_context=True: this module has no states to merge"
        return []

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the values of the states."""
        assert self.binded and self.params_initialized, _ORDER
        assert not states and not value, f"{type(self).__name__} has no states"

    def _loss_source(self) -> tuple[Any, Sequence[str]] | None:
        """The network whose outputs are those of the module, and the names of its labels."""
        return None

    # ---- parameters ---------------------------------------------------------------------------------------

    def set_params(
        self,
        arg_params: Any,
        aux_params: Any,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        """Set the parameters.

        Parameters
        ----------
        arg_params, aux_params : dict of str to NDArray
        allow_missing : bool
            Leave parameters that are not given as they are; RuntimeError otherwise.
        force_init : bool
            Whether parameters that are set already are set anew.
        allow_extra : bool
            Pass over names that the network does not have.
        """
        self.init_params(
            initializer=None,
            arg_params=arg_params,
            aux_params=aux_params,
            allow_missing=allow_missing,
            force_init=force_init,
            allow_extra=allow_extra,
        )

    def save_params(self, fname: str) -> None:
        """Write the parameters to a file."""
        arg_params, aux_params = self.get_params()
        arrays = {f"arg:{name}": array for name, array in arg_params.items()}
        arrays.update({f"aux:{name}": array for name, array in aux_params.items()})
        nd.save(fname, arrays)

    def load_params(self, fname: str) -> None:
        """Set the parameters from a file. ValueError where it holds anything but parameters."""
        arrays = nd.load(fname)
        if not isinstance(arrays, dict):
            raise ValueError(f"Invalid param file {fname}: it holds a list of arrays without names")
        for name in arrays:
            if not name.startswith(("arg:", "aux:")):
                raise ValueError(f"Invalid param file {fname}: it holds {name!r}")
        self.set_params(*split_params(arrays, fname))

    # ---- evaluation ---------------------------------------------------------------------------------------

    def forward_backward(self, data_batch: Any) -> None:
        """`forward` in training mode, then `backward`."""
        self.forward(data_batch, is_train=True)
        self.backward()

    def score(
        self,
        eval_data: Any,
        eval_metric: Any,
        num_batch: int | None = None,
        batch_end_callback: Any = None,
        score_end_callback: Any = None,
        reset: bool = True,
        epoch: int = 0,
        sparse_row_id_fn: Any = None,
    ) -> list[tuple[str, Any]]:
        """Names and values of a metric over data.

        Parameters
        ----------
        eval_data : DataIter
        eval_metric : EvalMetric, or what `mx.metric.create` takes
        num_batch : int, optional
            How many batches to take; all by default.
        batch_end_callback, score_end_callback : callable or list of callable
            Called with a `BatchEndParam`.
        reset : bool
            Whether to start from the beginning of `eval_data`.
        epoch : int
            Given to the callbacks.
        """
        assert self.binded and self.params_initialized, _ORDER
        if reset:
            eval_data.reset()
        eval_metric = metric.create(eval_metric)
        eval_metric.reset()
        scope = dict(locals())
        actual_num_batch = 0
        for nbatch, eval_batch in enumerate(eval_data):
            if num_batch is not None and nbatch == num_batch:
                break
            self.prepare(eval_batch, sparse_row_id_fn=sparse_row_id_fn)
            self.forward(eval_batch, is_train=False)
            self._measure(eval_metric, eval_batch)
            actual_num_batch = nbatch + 1
            scope.update(nbatch=nbatch, eval_batch=eval_batch, actual_num_batch=actual_num_batch)
            _call(batch_end_callback, BatchEndParam(epoch, nbatch, eval_metric, scope))
        if score_end_callback is not None:
            scope["actual_num_batch"] = actual_num_batch
            _call(score_end_callback, BatchEndParam(epoch, actual_num_batch, eval_metric, scope))
        return eval_metric.get_name_value()

    def _measure(self, eval_metric: Any, batch: Any) -> None:
        if isinstance(batch, list):
            self.update_metric(eval_metric, [part.label for part in batch], pre_sliced=True)
        else:
            self.update_metric(eval_metric, getattr(batch, "label", None))

    def iter_predict(
        self, eval_data: Any, num_batch: int | None = None, reset: bool = True, sparse_row_id_fn: Any = None
    ) -> Iterator[tuple[list[NDArray], int, Any]]:
        """Yield (outputs, number of the batch, batch), without the rows that pad the batch.

        The outputs are overwritten by the next batch.
        """
        assert self.binded and self.params_initialized, _ORDER
        if reset:
            eval_data.reset()
        for nbatch, batch in enumerate(eval_data):
            if num_batch is not None and nbatch == num_batch:
                break
            self.prepare(batch, sparse_row_id_fn=sparse_row_id_fn)
            self.forward(batch, is_train=False)
            pad = pad_of(batch)
            outputs = [out[: out.shape[0] - pad] if pad else out for out in self.get_outputs()]
            yield outputs, nbatch, batch

    def predict(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        merge_batches: bool = True,
        reset: bool = True,
        always_output_list: bool = False,
        sparse_row_id_fn: Any = None,
    ) -> Any:
        """Outputs over data, without the rows that pad the last batch.

        Parameters
        ----------
        eval_data : DataIter, NDArray or numpy.ndarray
            An array is one batch, and its first output is returned.
        num_batch : int, optional
            How many batches to take; all by default.
        merge_batches : bool
            Join the batches, into one array or a list of one per output; otherwise a list of lists of
            outputs, one per batch.
        always_output_list : bool
            A list also where there is one output.

        Raises
        ------
        ValueError
            For another kind of data.
        AssertionError
            Where batches to be joined have different numbers of outputs.
        """
        assert self.binded and self.params_initialized, _ORDER
        if isinstance(eval_data, NDArray | np.ndarray):
            array = eval_data if isinstance(eval_data, NDArray) else nd.array(eval_data)
            self.forward(DataBatch([array], None), is_train=False)
            return self.get_outputs()[0]
        if isinstance(eval_data, DataBatch) or not hasattr(eval_data, "provide_data"):
            raise ValueError(
                f"eval_data must be of type NDArray or DataIter, given {type(eval_data).__name__}"
            )
        batches = [
            [out.copy() for out in outputs]
            for outputs, _, _ in self.iter_predict(eval_data, num_batch, reset, sparse_row_id_fn)
        ]
        if not batches or not merge_batches:
            return batches
        if len({len(outputs) for outputs in batches}) > 1:
            raise AssertionError(
                "Cannot merge batches, as num of outputs is not the same in mini-batches. Maybe bucketing is "
                "used?"
            )
        merged = [parts[0] if len(parts) == 1 else nd.concat(*parts, dim=0) for parts in zip(*batches)]
        return merged[0] if len(merged) == 1 and not always_output_list else merged

    # ---- training -----------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: Any,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        eval_end_callback: Any = None,
        eval_batch_end_callback: Any = None,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_rebind: bool = False,
        force_init: bool = False,
        begin_epoch: int = 0,
        num_epoch: int | None = None,
        validation_metric: Any = None,
        monitor: Any = None,
        sparse_row_id_fn: Any = None,
    ) -> None:
        """Train: bind, initialize, and go `num_epoch - begin_epoch` times through the data.

        The log gets the metric of each epoch (`Epoch[0] Train-accuracy=...`), the loss where the outputs are
        loss layers and the metric is none (`Epoch[0] Train-loss=...`), the seconds, and both over `eval_data`.
        On a terminal a bar shows how far the epoch is (`MXRS_PROGRESS=0` turns it off).

        Parameters
        ----------
        train_data, eval_data : DataIter
        eval_metric, validation_metric : EvalMetric, or what `mx.metric.create` takes
            `validation_metric` is `eval_metric` by default.
        epoch_end_callback : callable or list of callable
            Called with (epoch, symbol, arg_params, aux_params).
        batch_end_callback, eval_batch_end_callback, eval_end_callback : callable or list of callable
            Called with a `BatchEndParam`.
        kvstore, optimizer, optimizer_params
            See `init_optimizer`.
        initializer, arg_params, aux_params, allow_missing, force_init
            See `init_params`.
        begin_epoch, num_epoch : int
            Numbers of the first epoch and of the one before which training ends.
        monitor : Monitor, optional
        """
        if num_epoch is None:
            raise AssertionError("please specify number of epochs")
        if not hasattr(num_epoch, "__index__"):
            raise TypeError(f"fit: num_epoch is the number of epochs, given {num_epoch!r}")
        _refuse_sparse(sparse_row_id_fn)
        self.bind(
            data_shapes=train_data.provide_data,
            label_shapes=train_data.provide_label,
            for_training=True,
            force_rebind=force_rebind,
        )
        if monitor is not None:
            self.install_monitor(monitor)
        self.init_params(
            initializer=initializer,
            arg_params=arg_params,
            aux_params=aux_params,
            allow_missing=allow_missing,
            force_init=force_init,
        )
        self.init_optimizer(kvstore=kvstore, optimizer=optimizer, optimizer_params=optimizer_params)
        eval_metric = metric.create(eval_metric)
        validation_metric = eval_metric if validation_metric is None else metric.create(validation_metric)
        loss_metric = None if reports_loss(eval_metric) else HeadLoss()
        # What callbacks find in `locals`; one dictionary, brought up to date for each batch.
        scope = dict(locals())
        batches = batches_in(train_data)
        with progress(self.logger) as bar:
            for epoch in range(begin_epoch, num_epoch):
                tic = time.time()
                scope.update(epoch=epoch, tic=tic)
                bar.begin(epoch, batches)
                batches = self._train_epoch(scope, bar)
                bar.end()
                self.logger.info("Epoch[%d] Time cost=%.3f", epoch, time.time() - tic)
                # The parameters come from the devices, and where these differ all get the mean.
                params = self.get_params()
                self.set_params(*params)
                for callback in listed(epoch_end_callback):
                    callback(epoch, self.symbol, *params)
                if eval_data is not None:
                    self._validate(scope)
                train_data.reset()

    def _train_epoch(self, scope: dict[str, Any], bar: Progress) -> int:
        """One pass through the data; returns how many batches there were."""
        epoch, eval_metric, loss_metric = scope["epoch"], scope["eval_metric"], scope["loss_metric"]
        monitor, callbacks = scope["monitor"], listed(scope["batch_end_callback"])
        metrics = [eval_metric] if loss_metric is None else [eval_metric, loss_metric]
        for each in metrics:
            each.reset()

        def report() -> list[tuple[str, Any]]:
            return [pair for each in metrics for pair in each.get_global_name_value()]

        data_iter = iter(scope["train_data"])
        upcoming = next(data_iter, _END)
        if upcoming is _END:
            raise MXNetError(
                f"{type(self).__name__}.fit: train_data gives no batch in epoch {epoch}; was it reset?"
            )
        nbatch = 0
        final: list[tuple[str, Any]] = []
        while upcoming is not _END:
            data_batch = upcoming
            if monitor is not None:
                monitor.tic()
            self.forward_backward(data_batch)
            self.update()
            # The next batch is read while the device computes this one.
            upcoming = next(data_iter, _END)
            if upcoming is not _END:
                self.prepare(upcoming)
            self._measure(eval_metric, data_batch)
            if loss_metric is not None:
                self._measure_loss(loss_metric, data_batch)
            if monitor is not None:
                monitor.toc_print()
            if upcoming is _END:
                final = report()  # a callback may reset the metric
            bar.step(report)
            if callbacks:
                scope.update(nbatch=nbatch, data_batch=data_batch, end_of_batch=upcoming is _END)
                param = BatchEndParam(epoch, nbatch, eval_metric, scope)
                for callback in callbacks:
                    callback(param)
            nbatch += 1
        for name, value in final:
            self.logger.info("Epoch[%d] Train-%s=%f", epoch, name, value)
        return nbatch

    def _measure_loss(self, loss_metric: HeadLoss, batch: Any) -> None:
        source = self._loss_source()
        if source is not None and not isinstance(batch, list):
            symbol, label_names = source
            if loss_metric.has_heads(symbol):
                loss_metric.update(symbol, self.get_outputs(), dict(zip(label_names, labels_of(batch))))

    def _validate(self, scope: dict[str, Any]) -> None:
        """Log metric and loss over the evaluation data."""
        callbacks = listed(scope["eval_batch_end_callback"])
        loss_metric = None if reports_loss(scope["validation_metric"]) else HeadLoss()
        if loss_metric is not None:
            callbacks = [
                lambda param: self._measure_loss(loss_metric, param.locals["eval_batch"]),
                *callbacks,
            ]
        pairs = self.score(
            scope["eval_data"],
            scope["validation_metric"],
            score_end_callback=scope["eval_end_callback"],
            batch_end_callback=callbacks,
            epoch=scope["epoch"],
        )
        for name, value in [*pairs, *(loss_metric.get_name_value() if loss_metric else ())]:
            self.logger.info("Epoch[%d] Validation-%s=%f", scope["epoch"], name, value)


#: What `next` gives at the end of the data.
_END = object()

_ORDER = "call bind and init_params first"


def _call(callbacks: Any, param: BatchEndParam) -> None:
    for callback in listed(callbacks):
        callback(param)
