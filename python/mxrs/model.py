"""Checkpoints, the step of an optimizer over several devices, and `FeedForward`, the first training interface.

`save_checkpoint` and `load_checkpoint` are what every symbolic program keeps its networks with. The functions
whose names begin with an underscore are called by `mxrs.module` and by programs that wrote their own module
from it. `FeedForward` trains and predicts through `mxrs.module`; it only translates arguments and arrays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import io, kvstore, metric
from . import ndarray as nd
from . import symbol as sym
from .base import MXNetError
from .callback import LogValidationMetricsCallback, save_checkpoint
from .context import Context, cpu, current_context
from .executor_manager import _check_arguments, labels_of, pad_of
from .initializer import Uniform
from .ndarray import NDArray

__all__ = [
    "BatchEndParam",
    "FeedForward",
    "load_checkpoint",
    "load_params",
    "save_checkpoint",
]


class BatchEndParam(NamedTuple):
    """What a batch callback is called with."""

    #: Number of the epoch, from 0.
    epoch: int
    #: Number of the batch in the epoch, from 0.
    nbatch: int
    #: The metric that is being updated.
    eval_metric: Any
    #: Names of the training loop: `self`, `data_batch`, `loss_metric` and more.
    locals: Any


def listed(callbacks: Any) -> list[Any]:
    """What an argument for callbacks holds: None, one, or a list of them."""
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]


def _counting_from_one(callback: Callable[[BatchEndParam], Any]) -> Callable[[BatchEndParam], Any]:
    """`callback` for a `FeedForward`, which counts the batches from 1 where a Module counts from 0."""
    return lambda param: callback(param._replace(nbatch=param.nbatch + 1))


# ---- files -------------------------------------------------------------------------------------------------


def load_params(prefix: str, epoch: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """The parameters and auxiliary states in `PREFIX-EPOCH.params`.

    Raises
    ------
    MXNetError
        Where the file is missing or damaged.
    ValueError
        Where it is no checkpoint: a list of arrays, or names without `arg:` or `aux:`.
    """
    if not hasattr(epoch, "__index__"):
        raise TypeError(f"load_params: epoch is a whole number, given {epoch!r}")
    fname = f"{prefix}-{epoch:04d}.params"
    arrays = nd.load(fname)
    if not arrays:
        logging.warning("Params file '%s' is empty", fname)
        return {}, {}
    if not isinstance(arrays, dict):
        raise ValueError(f"{fname}: a checkpoint holds named arrays, this file a list of {len(arrays)}")
    return split_params(arrays, fname)


def split_params(arrays: Mapping[str, NDArray], fname: str) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Arrays named `arg:NAME` and `aux:NAME` as two dictionaries; other kinds are passed over.

    Raises ValueError for a name without a kind.
    """
    kinds: dict[str, dict[str, NDArray]] = {"arg": {}, "aux": {}}
    for key, array in arrays.items():
        kind, colon, name = key.partition(":")
        if not colon:
            raise ValueError(
                f"{fname}: the array {key!r} is named neither 'arg:NAME' nor 'aux:NAME'; not a checkpoint"
            )
        if kind in kinds:
            kinds[kind][name] = array
    return kinds["arg"], kinds["aux"]


def load_checkpoint(prefix: str, epoch: int) -> tuple[Any, dict[str, NDArray], dict[str, NDArray]]:
    """The network and parameters that `save_checkpoint` wrote: (symbol, arg_params, aux_params)."""
    symbol = sym.load(f"{prefix}-symbol.json")
    arg_params, aux_params = load_params(prefix, epoch)
    return symbol, arg_params, aux_params


# ---- stores and updates ------------------------------------------------------------------------------------

#: With a parameter larger than this (in elements), a 'local' store only sums and devices update themselves.
_BIG_PARAMETER = 16 * 1024 * 1024


def _create_kvstore(store: Any, num_device: int, arg_params: Mapping[str, NDArray]) -> tuple[Any, bool]:
    """The store for an argument `kvstore`, and whether it runs the optimizer.

    None, or a store of this process for a single device, gives (None, False): nothing needs summing.
    Raises TypeError for what is neither None, a name nor a store.
    """
    if store is None:
        return None, False
    on_store = os.environ.get("MXNET_UPDATE_ON_KVSTORE", "1").strip().lower() not in ("0", "false")
    if isinstance(store, str):
        if num_device == 1 and "dist" not in store:
            return None, False
        if store == "local" and any(array.size > _BIG_PARAMETER for array in arg_params.values()):
            on_store = False
        return kvstore.create(store), on_store
    if not (isinstance(store, kvstore.KVStoreBase) or hasattr(store, "pushpull") or hasattr(store, "push")):
        raise TypeError(f"kvstore must be KVStore, str or None, given {type(store).__name__}")
    able = store.is_capable("optimizer") if hasattr(store, "is_capable") else True
    return store, on_store and able


def _initialize_kvstore(
    kvstore: Any,
    param_arrays: Sequence[Sequence[NDArray]],
    arg_params: Mapping[str, NDArray],
    param_names: Sequence[str],
    update_on_kvstore: bool,
) -> None:
    """Give every parameter to the store; where it updates them, bring its values to all devices."""
    for i, (name, arrays) in enumerate(zip(param_names, param_arrays)):
        # A store that has no `init` gives every machine the values of the first one.
        if (update_on_kvstore or not hasattr(kvstore, "init")) and hasattr(kvstore, "broadcast"):
            kvstore.broadcast(name, arg_params[name], out=arrays)
            continue
        kvstore.init(name, arg_params[name])
        if update_on_kvstore:
            kvstore.pull(name, arrays, priority=-i)


def _update_params_on_kvstore(
    param_arrays: Sequence[Sequence[NDArray]],
    grad_arrays: Sequence[Sequence[NDArray | None]],
    kvstore: Any,
    param_names: Sequence[str],
) -> None:
    """Hand the gradients to the store, which updates, and bring the new parameters back."""
    rows = [
        (i, name, grads, arrays)
        for i, (name, grads, arrays) in enumerate(zip(param_names, grad_arrays, param_arrays))
        if grads[0] is not None
    ]
    if not rows:
        return
    if _takes_lists(kvstore):
        _, names, grads_of, arrays_of = zip(*rows)
        kvstore.pushpull(list(names), list(grads_of), out=list(arrays_of))
        return
    for i, name, grads, arrays in rows:
        if hasattr(kvstore, "pushpull"):
            kvstore.pushpull(name, grads, out=arrays, priority=-i)
        else:
            kvstore.push(name, grads, priority=-i)
            kvstore.pull(name, arrays, priority=-i)


def _takes_lists(store: Any) -> bool:
    """Whether one call for all keys is right: for the store of this process; others may know single keys."""
    return type(store) is getattr(kvstore, "KVStore", None)


def _update_params(
    param_arrays: Sequence[Sequence[NDArray]],
    grad_arrays: Sequence[Sequence[NDArray | None]],
    updater: Callable[[Any, Any, Any], Any],
    num_device: int,
    kvstore: Any = None,
    param_names: Sequence[str] | None = None,
) -> None:
    """Update every device's parameters with `updater`, after summing the gradients in the store if there is
    one.

    The updater is called once per device with three lists: numbers, gradients and parameters. Parameter i on
    device k has the number `i * num_device + k`.
    """
    rows: list[list[tuple[int, Any, Any]]] = [[] for _ in range(num_device)]
    for i, (arrays, grads) in enumerate(zip(param_arrays, grad_arrays)):
        if grads[0] is None:
            continue
        if kvstore is not None:
            key = i if param_names is None else param_names[i]
            if hasattr(kvstore, "pushpull"):
                kvstore.pushpull(key, grads, priority=-i)
            else:
                kvstore.push(key, grads, priority=-i)
                kvstore.pull(key, grads, priority=-i)
        for k, (array, grad) in enumerate(zip(arrays, grads)):
            rows[k].append((i * num_device + k, grad, array))
    for device in rows:
        if device:
            numbers, gradients, parameters = zip(*device)
            updater(list(numbers), list(gradients), list(parameters))


# ---- FeedForward -------------------------------------------------------------------------------------------


class FeedForward:
    """A network with its parameters, trained with `fit` and used with `predict`.

    Parameters
    ----------
    symbol : Symbol or callable
        The network, or a function that makes it for a bucket key.
    ctx : Context or list of Context
        Where to compute; the current context by default.
    num_epoch : int
        The epoch before which training ends.
    epoch_size : int
        Batches in an epoch; by default all that the data has.
    optimizer : str or Optimizer
        Its arguments are given as `kwargs`.
    initializer : Initializer
        For parameters that `arg_params` does not hold.
    numpy_batch_size : int
        Rows in a batch where arrays are given instead of an iterator.
    allow_extra_params : bool
        Drop entries of `arg_params` and `aux_params` that the network does not have.
    begin_epoch : int
        The number of the first epoch.

    Raises
    ------
    ValueError
        Where two arguments of the network have the same name.
    """

    def __init__(
        self,
        symbol: Any,
        ctx: Context | Sequence[Context] | None = None,
        num_epoch: int | None = None,
        epoch_size: int | None = None,
        optimizer: Any = "sgd",
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        numpy_batch_size: int = 128,
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_extra_params: bool = False,
        begin_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        is_network = isinstance(symbol, sym.Symbol)
        if not is_network and not callable(symbol):
            raise TypeError(
                f"FeedForward: symbol must be a Symbol or a function that makes one, given {type(symbol).__name__}"
            )
        self.symbol = symbol if is_network else None
        self.sym_gen = None if is_network else symbol
        self.arg_params: Any = arg_params
        self.aux_params: Any = aux_params
        self.allow_extra_params = allow_extra_params
        self.argument_checked = False
        if is_network:
            self._check_arguments()
        if ctx is None:
            ctx = [current_context()]
        self.ctx = [ctx] if isinstance(ctx, Context) else list(ctx)
        self.num_epoch = num_epoch
        self.epoch_size = epoch_size
        self.kwargs = kwargs.copy()
        self.optimizer = optimizer
        self.initializer = initializer
        self.numpy_batch_size = numpy_batch_size
        self.begin_epoch = begin_epoch
        self._pred_exec: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the bound predictor, which is made again."""
        return {**self.__dict__, "_pred_exec": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _check_arguments(self) -> None:
        if self.argument_checked:
            return
        assert self.symbol is not None
        _check_arguments(self.symbol)
        if self.allow_extra_params:
            names = set(self.symbol.list_arguments()) | set(self.symbol.list_auxiliary_states())
            for held in ("arg_params", "aux_params"):
                if getattr(self, held):
                    kept = {name: array for name, array in getattr(self, held).items() if name in names}
                    setattr(self, held, kept)
        self.argument_checked = True

    # ---- data ---------------------------------------------------------------------------------------------

    def _init_iter(self, X: Any, y: Any, is_train: bool) -> Any:
        """An iterator over `X` and `y`, which may be one already."""
        if isinstance(X, NDArray | np.ndarray):
            if y is None:
                if is_train:
                    raise ValueError("y must be specified when X is numpy.ndarray")
                y = np.zeros(X.shape[0])
            if not isinstance(y, NDArray | np.ndarray):
                raise TypeError(f"y must be ndarray when X is numpy.ndarray, given {type(y).__name__}")
            if X.shape[0] != y.shape[0]:
                raise ValueError(
                    f"The numbers of data points and labels not equal: X has {X.shape[0]} rows, y {y.shape[0]}"
                )
            if y.ndim == 2 and y.shape[1] == 1:
                y = y.reshape((-1,))
            if y.ndim != 1:
                raise ValueError(
                    f"Label must be 1D or 2D (with 2nd dimension being 1), given shape {y.shape}"
                )
            size = min(X.shape[0], self.numpy_batch_size)
            handle = "roll_over" if is_train else "pad"
            return io.NDArrayIter(X, y, size, shuffle=is_train, last_batch_handle=handle)
        if not hasattr(X, "provide_data"):
            raise TypeError(f"X must be DataIter, NDArray or numpy.ndarray, given {type(X).__name__}")
        return X

    def _init_eval_iter(self, eval_data: Any) -> Any:
        if eval_data is None:
            return None
        if isinstance(eval_data, tuple | list) and len(eval_data) == 2:
            X, y = eval_data
            if X is None:
                raise ValueError("Eval data is NONE")
            if y is None and hasattr(X, "provide_data"):
                return X
            X = np.asarray(X) if isinstance(X, list) else X
            y = np.asarray(y) if isinstance(y, list) else y
            return self._init_iter(X, y, is_train=True)
        if not hasattr(eval_data, "provide_data"):
            raise TypeError(
                "Eval data must be DataIter, or NDArray/numpy.ndarray/list pair (i.e. tuple/list of length 2)"
            )
        return eval_data

    def _module(self, data: Any, ctx: Any, logger: Any = logging, work_load_list: Any = None) -> Any:
        """An unbound module for the network and the names of `data`."""
        from .module import BucketingModule, Module

        data_names = [desc[0] for desc in data.provide_data]
        labels = [desc[0] for desc in data.provide_label or []]
        options = {"logger": logger, "context": ctx, "work_load_list": work_load_list}
        if self.symbol is None:
            make = self.sym_gen
            assert make is not None
            return BucketingModule(
                lambda key: (make(key), data_names, labels), data.default_bucket_key, **options
            )
        arguments = self.symbol.list_arguments()
        # A label that the data does not bring is no parameter either.
        ends = [name for name in arguments if name.endswith("label") and name not in data_names + labels]
        labels = [name for name in labels if name in arguments]
        return Module(self.symbol, data_names, labels + ends, **options)

    # ---- use ----------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        logger: Any = None,
        work_load_list: Sequence[float] | None = None,
        monitor: Any = None,
        eval_end_callback: Any = LogValidationMetricsCallback(),  # noqa: B008 - it holds no state
        eval_batch_end_callback: Any = None,
    ) -> None:
        """Train on an iterator, or on an array `X` and labels `y`, and keep the parameters.

        `eval_data` is an iterator or a pair of arrays. The other arguments are those of `Module.fit`.
        """
        data = self._init_iter(X, y, is_train=True)
        evaluation = self._init_eval_iter(eval_data)
        if self.num_epoch is None:
            raise TypeError("FeedForward.fit: num_epoch is needed, the number of epochs to train")
        logger = logging if logger is None else logger
        module = self._module(data, self.ctx, logger, work_load_list)
        if self.epoch_size is not None:
            data = io.ResizeIter(data, self.epoch_size, reset_internal=False)
        logger.info("Start training with %s", str(self.ctx))

        def keep(_epoch: int, _symbol: Any, arg_params: Any, aux_params: Any) -> None:
            self.arg_params, self.aux_params = arg_params, aux_params

        if isinstance(eval_end_callback, LogValidationMetricsCallback):
            eval_end_callback = None  # the module logs these lines itself
        module.fit(
            data,
            eval_data=evaluation,
            eval_metric=eval_metric,
            epoch_end_callback=[keep, *listed(epoch_end_callback)],
            batch_end_callback=[_counting_from_one(each) for each in listed(batch_end_callback)],
            kvstore=kvstore,
            optimizer=self.optimizer,
            optimizer_params=self.kwargs,
            eval_end_callback=eval_end_callback,
            eval_batch_end_callback=eval_batch_end_callback,
            initializer=self.initializer,
            arg_params=self.arg_params,
            aux_params=self.aux_params,
            allow_missing=True,
            begin_epoch=self.begin_epoch,
            num_epoch=self.num_epoch,
            monitor=monitor,
        )
        self.arg_params, self.aux_params = module.get_params()
        self._pred_exec = None

    def _predictor(self, data: Any) -> Any:
        """A module bound for the batches of `data`, with the parameters as they are now."""
        if self.arg_params is None:
            raise MXNetError("FeedForward: there are no parameters yet; call fit, or give arg_params")
        shapes = [(desc[0], tuple(desc[1])) for desc in data.provide_data]
        module = self._pred_exec
        if module is None or [(d.name, d.shape) for d in module.data_shapes] != shapes:
            module = self._module(data, self.ctx[0])
            module.bind(data.provide_data, self._label_shapes(module, dict(shapes)), for_training=False)
            self._pred_exec = module
        module.set_params(self.arg_params, self.aux_params or {})
        return module

    def _label_shapes(self, module: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Shapes of the labels, inferred from the data, so that none need be given."""
        if self.symbol is None:
            return None
        inferred = self.symbol.infer_shape_partial(**shapes)[0]
        known = dict(zip(self.symbol.list_arguments(), inferred))
        return [(name, known[name]) for name in module.label_names if known.get(name)] or None

    def predict(
        self, X: Any, num_batch: int | None = None, return_data: bool = False, reset: bool = True
    ) -> Any:
        """The outputs for an iterator or array, as a NumPy array, or a list of them for several outputs.

        With `return_data` a tuple (outputs, data, labels). The rows that pad the last batch are dropped.
        """
        data = self._init_iter(X, None, is_train=False)
        if reset:
            data.reset()
        module = self._predictor(data)
        columns: list[list[list[np.ndarray]]] = [[], [], []]
        for outputs, _, batch in module.iter_predict(data, num_batch=num_batch, reset=False):
            rows = batch.data[0].shape[0] - pad_of(batch)
            columns[0].append([array.asnumpy() for array in outputs])
            if return_data:
                columns[1].append([array[:rows].asnumpy() for array in batch.data])
                columns[2].append([array[:rows].asnumpy() for array in labels_of(batch)])
        joined = [[np.concatenate(parts) for parts in zip(*column)] for column in columns]
        single = [parts[0] if len(parts) == 1 else parts for parts in joined]
        return tuple(single) if return_data else single[0]

    def score(
        self,
        X: Any,
        eval_metric: Any = "acc",
        num_batch: int | None = None,
        batch_end_callback: Any = None,
        reset: bool = True,
    ) -> Any:
        """The value of a metric over an iterator, or over a pair of an array and its labels."""
        if isinstance(X, tuple) and len(X) == 2:
            data = self._init_iter(X[0], X[1], is_train=False)
        elif hasattr(X, "provide_data"):
            data = X
        elif isinstance(X, NDArray | np.ndarray):
            raise ValueError("FeedForward.score: labels are needed; give an iterator or a pair (X, y)")
        else:
            raise TypeError(f"X must be DataIter, NDArray or numpy.ndarray, given {type(X).__name__}")
        measure = metric.create(eval_metric)
        module = self._predictor(data)
        module.score(data, measure, num_batch=num_batch, batch_end_callback=batch_end_callback, reset=reset)
        return measure.get()[1]

    # ---- files --------------------------------------------------------------------------------------------

    def save(self, prefix: str, epoch: int | None = None, remove_amp_cast: bool = True) -> None:
        """Write a checkpoint, numbered `num_epoch` by default; see `save_checkpoint`."""
        epoch = self.num_epoch if epoch is None else epoch
        if epoch is None:
            raise ValueError("FeedForward.save: epoch is needed where num_epoch is not set")
        save_checkpoint(prefix, epoch, self.symbol, self.arg_params, self.aux_params or {}, remove_amp_cast)

    @staticmethod
    def load(prefix: str, epoch: int, ctx: Any = None, **kwargs: Any) -> FeedForward:
        """The model in a checkpoint; training goes on with epoch number `epoch`.

        `kwargs` are further arguments of the class.
        """
        symbol, arg_params, aux_params = load_checkpoint(prefix, epoch)
        ctx = cpu() if ctx is None else ctx
        return FeedForward(
            symbol, ctx=ctx, arg_params=arg_params, aux_params=aux_params, begin_epoch=epoch, **kwargs
        )

    @staticmethod
    def create(
        symbol: Any,
        X: Any,
        y: Any = None,
        ctx: Any = None,
        num_epoch: int | None = None,
        epoch_size: int | None = None,
        optimizer: Any = "sgd",
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        logger: Any = None,
        work_load_list: Sequence[float] | None = None,
        eval_end_callback: Any = LogValidationMetricsCallback(),  # noqa: B008 - it holds no state
        eval_batch_end_callback: Any = None,
        **kwargs: Any,
    ) -> FeedForward:
        """A model that is made and trained in one call; the arguments are those of the class and of `fit`."""
        model = FeedForward(
            symbol,
            ctx=ctx,
            num_epoch=num_epoch,
            epoch_size=epoch_size,
            optimizer=optimizer,
            initializer=initializer,
            **kwargs,
        )
        model.fit(
            X,
            y,
            eval_data=eval_data,
            eval_metric=eval_metric,
            epoch_end_callback=epoch_end_callback,
            batch_end_callback=batch_end_callback,
            kvstore=kvstore,
            logger=logger,
            work_load_list=work_load_list,
            eval_end_callback=eval_end_callback,
            eval_batch_end_callback=eval_batch_end_callback,
        )
        return model
