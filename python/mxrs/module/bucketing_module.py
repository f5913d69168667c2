"""`BucketingModule`: networks of one family, made for a key when it comes up, that share their parameters.

Sequences of different lengths are its use: the key is the length. Every network is a `Module` bound with the
parameters and memory of the first one, that of the default key.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import ndarray as nd
from .. import symbol as sym
from ..context import Context, cpu
from ..initializer import Uniform
from ..model import load_params
from ..ndarray import NDArray
from ._arguments import _check_input_names, _refuse_sparse, names_in
from .base_module import _ORDER, BaseModule
from .module import _BIND, Module, _refuse_compression

__all__ = ["BucketingModule"]


class BucketingModule(BaseModule):
    """Modules by bucket key.

    Parameters
    ----------
    sym_gen : callable
        Maps a bucket key to (symbol, data_names, label_names).
    default_bucket_key : object
        The key of the largest network; needed.
    logger, context, work_load_list, fixed_param_names, state_names, group2ctxs, compression_params
        As for `Module`.
    """

    def __init__(
        self,
        sym_gen: Callable[[Any], tuple[Any, Sequence[str], Sequence[str]]],
        default_bucket_key: Any = None,
        logger: Any = logging,
        context: Context | Sequence[Context] = cpu(),  # noqa: B008 - immutable
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(logger=logger)
        if default_bucket_key is None:
            raise AssertionError(
                "BucketingModule: default_bucket_key is needed, the key of the largest network"
            )
        _refuse_compression("BucketingModule", compression_params)
        self._default_bucket_key = default_bucket_key
        self._sym_gen = sym_gen
        self._compression_params = compression_params
        self._fixed_param_names = list(fixed_param_names or ())
        self._state_names = list(state_names or ())
        self._context = context
        self._work_load_list = work_load_list
        self._group2ctxs = group2ctxs
        self._buckets: dict[Any, Module] = {}
        self._curr_module: Any = None
        self._curr_bucket_key: Any = None
        self._params_dirty = False
        self._monitor: Any = None
        self._grad_req: Any = None
        self._given_params: tuple[Any, Any] | None = None
        symbol, data_names, label_names = self._call_sym_gen(default_bucket_key)
        _check_input_names(symbol, names_in(data_names), "data_names", True)
        _check_input_names(symbol, names_in(label_names), "label_names", False)
        _check_input_names(symbol, self._state_names, "state_names", True)
        _check_input_names(symbol, self._fixed_param_names, "fixed_param_names", True)

    def _call_sym_gen(self, key: Any) -> tuple[Any, Any, Any]:
        made = self._sym_gen(key)
        if not isinstance(made, tuple | list) or len(made) != 3:
            raise TypeError(
                f"BucketingModule: sym_gen({key!r}) must give (symbol, data_names, label_names), gave "
                f"{type(made).__name__}"
            )
        return made[0], made[1], made[2]

    def _make(self, key: Any) -> Module:
        symbol, data_names, label_names = self._call_sym_gen(key)
        return Module(
            symbol,
            data_names,
            label_names,
            logger=self.logger,
            context=self._context,
            work_load_list=self._work_load_list,
            fixed_param_names=self._fixed_param_names,
            state_names=self._state_names,
            group2ctxs=self._group2ctxs,
        )

    def _reset_bind(self) -> None:
        self.binded = False
        self._buckets = {}
        self._curr_module = None
        self._curr_bucket_key = None

    # ---- names and shapes ---------------------------------------------------------------------------------

    @property
    def data_names(self) -> Sequence[str]:
        if self.binded:
            return self._curr_module.data_names
        return self._call_sym_gen(self._default_bucket_key)[1]

    @property
    def output_names(self) -> Sequence[str]:
        if self.binded:
            return self._curr_module.output_names
        return self._call_sym_gen(self._default_bucket_key)[0].list_outputs()

    @property
    def data_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._curr_module.data_shapes

    @property
    def label_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._curr_module.label_shapes

    @property
    def output_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._curr_module.output_shapes

    @property
    def symbol(self) -> Any:
        """The network of the current key."""
        assert self.binded, _BIND
        return self._curr_module.symbol

    def _loss_source(self) -> tuple[Any, Sequence[str]] | None:
        return self._curr_module._loss_source()

    # ---- parameters ---------------------------------------------------------------------------------------

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Parameters and auxiliary states by name."""
        if self._given_params is not None and not self.binded:
            return self._given_params
        assert self.binded and self.params_initialized, _ORDER
        self._curr_module._params_dirty = self._params_dirty
        params = self._curr_module.get_params()
        self._params_dirty = False
        return params

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """As for `Module`, for all keys."""
        if self.params_initialized and not force_init:
            return
        assert self.binded, "call bind before initializing the parameters"
        self._curr_module.init_params(
            initializer=initializer,
            arg_params=arg_params,
            aux_params=aux_params,
            allow_missing=allow_missing,
            force_init=force_init,
            allow_extra=allow_extra,
        )
        self._params_dirty = False
        self.params_initialized = True

    def set_params(
        self,
        arg_params: Any,
        aux_params: Any,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        if not allow_missing:
            self.init_params(
                initializer=None,
                arg_params=arg_params,
                aux_params=aux_params,
                allow_missing=allow_missing,
                force_init=force_init,
                allow_extra=allow_extra,
            )
            return
        if self.params_initialized and not force_init:
            warnings.warn(
                "Parameters already initialized and force_init=False. set_params call ignored.", stacklevel=2
            )
            return
        assert self.binded, "call bind before setting the parameters"
        self._curr_module.set_params(
            arg_params, aux_params, allow_missing=True, force_init=force_init, allow_extra=allow_extra
        )
        self._params_dirty = True
        self.params_initialized = True

    # ---- binding ------------------------------------------------------------------------------------------

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
        """Bind the network of the default key; as for `Module`, without `shared_module`."""
        if shared_module is not None:
            raise AssertionError("shared_module for BucketingModule is not supported")
        former = None
        if force_rebind:
            if self.binded and self.params_initialized:
                former = self.get_params()
            self._reset_bind()
        if self.binded:
            self.logger.warning("Already bound, ignoring bind()")
            return
        former = self._given_params if former is None else former
        module = self._make(self._default_bucket_key)
        module.bind(data_shapes, label_shapes, for_training, inputs_need_grad, grad_req=grad_req)
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad
        self._grad_req = grad_req
        self._buckets = {self._default_bucket_key: module}
        self._curr_module = module
        self._curr_bucket_key = self._default_bucket_key
        self.binded = True
        if former is not None:
            module.init_params(None, *former, force_init=True, allow_extra=True)
            self._given_params = None
            self.params_initialized = True
            self._params_dirty = False

    def switch_bucket(self, bucket_key: Any, data_shapes: Any, label_shapes: Any = None) -> None:
        """Make the network of a key the current one; bind it with these shapes if it is new."""
        assert self.binded, "call bind before switching bucket"
        if bucket_key not in self._buckets:
            module = self._make(bucket_key)
            module.bind(
                data_shapes,
                label_shapes,
                self.for_training,
                self.inputs_need_grad,
                shared_module=self._buckets[self._default_bucket_key],
                grad_req=self._grad_req,
            )
            if self._monitor is not None:
                module.install_monitor(self._monitor)
            self._buckets[bucket_key] = module
        self._curr_module = self._buckets[bucket_key]
        self._curr_bucket_key = bucket_key

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Bind the network of a batch that comes next, while the present one is computed."""
        assert self.binded and self.params_initialized, _ORDER
        _refuse_sparse(sparse_row_id_fn)
        key = self._curr_bucket_key
        self.switch_bucket(data_batch.bucket_key, data_batch.provide_data, data_batch.provide_label)
        self.switch_bucket(key, None, None)

    # ---- the optimizer ------------------------------------------------------------------------------------

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """As for `Module`, one for all keys."""
        assert self.binded and self.params_initialized, _ORDER
        if self.optimizer_initialized and not force_init:
            self.logger.warning("optimizer already initialized, ignoring.")
            return
        self._curr_module._params_dirty = self._params_dirty
        self._curr_module.init_optimizer(kvstore, optimizer, optimizer_params, force_init=force_init)
        for module in self._buckets.values():
            if module is not self._curr_module:
                module.borrow_optimizer(self._curr_module)
        self.optimizer_initialized = True

    # ---- computing ----------------------------------------------------------------------------------------

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute a batch with the network of its `bucket_key`."""
        assert self.binded and self.params_initialized, _ORDER
        self.switch_bucket(data_batch.bucket_key, data_batch.provide_data, data_batch.provide_label)
        self._curr_module.forward(data_batch, is_train=is_train)

    def backward(self, out_grads: Any = None) -> None:
        assert self.binded and self.params_initialized, _ORDER
        self._curr_module.backward(out_grads=out_grads)

    def update(self) -> None:
        assert self.binded and self.params_initialized and self.optimizer_initialized, (
            "call bind, init_params and init_optimizer first"
        )
        self._params_dirty = True
        self._curr_module.update()

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        assert self.binded and self.params_initialized, _ORDER
        return self._curr_module.get_outputs(merge_multi_context=merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        assert self.binded and self.params_initialized and self.inputs_need_grad, (
            "get_input_grads needs a module that is bound with inputs_need_grad=True and has parameters"
        )
        return self._curr_module.get_input_grads(merge_multi_context=merge_multi_context)

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        assert self.binded and self.params_initialized, _ORDER
        return self._curr_module.get_states(merge_multi_context=merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        assert self.binded and self.params_initialized, _ORDER
        self._curr_module.set_states(states, value)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        assert self.binded and self.params_initialized, _ORDER
        self._curr_module.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Watch the networks of all keys, those too that come later."""
        assert self.binded, _BIND
        self._monitor = mon
        for module in self._buckets.values():
            module.install_monitor(mon)

    # ---- files --------------------------------------------------------------------------------------------

    def save_checkpoint(self, prefix: str, epoch: int, remove_amp_cast: bool = False) -> None:
        """Write the parameters, the networks (`PREFIX-KEY-symbol.json`) and the list of keys
        (`PREFIX.buckets`, of integers).
        """
        assert len(self._buckets) > 0, "Empty BucketingModule cannot be saved"
        fname = f"{prefix}-{epoch:04d}.params"
        self.save_params(fname)
        logging.info('Saved checkpoint to "%s"', fname)
        for key, module in self._buckets.items():
            module.symbol.save(f"{prefix}-{key}-symbol.json", remove_amp_cast=remove_amp_cast)
        nd.save(f"{prefix}.buckets", [nd.array(list(self._buckets), dtype="int32")])

    @staticmethod
    def load(
        prefix: str, epoch: int, sym_gen: Any = None, default_bucket_key: Any = None, **kwargs: Any
    ) -> BucketingModule:
        """A module with the parameters of a checkpoint; its networks are made by `sym_gen`.

        `kwargs` are arguments of the class.
        """
        assert sym_gen is not None, "sym_gen is required for loading BucketingModule"
        assert default_bucket_key is not None, "default_bucket_key is required for loading BucketingModule"
        keys = [int(key) for key in _key_array(f"{prefix}.buckets").asnumpy()]
        networks = {key: sym.load(f"{prefix}-{key}-symbol.json") for key in keys}
        arg_params, aux_params = load_params(prefix, epoch)
        return BucketingModule.load_dict(
            networks, sym_gen, default_bucket_key, arg_params, aux_params, **kwargs
        )

    @staticmethod
    def load_dict(
        sym_dict: Mapping[Any, Any] | None = None,
        sym_gen: Any = None,
        default_bucket_key: Any = None,
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        **kwargs: Any,
    ) -> BucketingModule:
        """A module with parameters and networks that are in memory.

        Parameters
        ----------
        sym_dict : dict from key to Symbol
            Networks that are used instead of what `sym_gen` makes for these keys.
        sym_gen : callable
            Says the names of data and labels, and makes the networks of other keys.
        """
        assert sym_dict is not None, "sym_dict needs to be provided for BucketingModule.load_dict"
        assert sym_gen is not None, "sym_gen is required for BucketingModule.load_dict"
        assert default_bucket_key is not None, "default_bucket_key is required for BucketingModule.load_dict"
        assert arg_params is not None, "arg_params need to be provided for BucketingModule.load_dict"
        assert aux_params is not None, "aux_params need to be provided for BucketingModule.load_dict"

        def make(key: Any) -> tuple[Any, Any, Any]:
            symbol, data_names, label_names = sym_gen(key)
            return sym_dict.get(key, symbol), data_names, label_names

        module = BucketingModule(make, default_bucket_key, **kwargs)
        module._given_params = (dict(arg_params), dict(aux_params))
        module.params_initialized = True
        return module


def _key_array(fname: str) -> NDArray:
    """The array of keys that `save_checkpoint` wrote."""
    arrays = nd.load(fname)
    if not isinstance(arrays, list) or len(arrays) != 1:
        raise ValueError(f"{fname}: not a list of bucket keys")
    return arrays[0]
