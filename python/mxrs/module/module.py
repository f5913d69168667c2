"""`Module`: one network, bound on one or several devices, with its parameters and its optimizer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .. import ndarray as nd
from .. import optimizer as opt
from .._files import write_whole
from ..base import MXNetError
from ..context import Context, cpu
from ..initializer import InitDesc, Uniform
from ..io import DataDesc
from ..model import (
    _create_kvstore,
    _initialize_kvstore,
    _update_params,
    _update_params_on_kvstore,
    load_checkpoint,
)
from ..ndarray import NDArray
from ._arguments import (
    _check_input_names,
    _parse_data_desc,
    _refuse_sparse,
    contexts_in,
    initializer_in,
    names_in,
    symbol_in,
)
from .base_module import _ORDER, BaseModule
from .executor_group import DataParallelExecutorGroup

__all__ = ["Module"]


class Module(BaseModule):
    """A network with its parameters and optimizer.

    Parameters
    ----------
    symbol : Symbol
    data_names, label_names : list of str, optional
        Inputs that each batch brings. None stands for none. A label that the network does not have is warned
        of; other unknown names are a ValueError.
    logger : logging.Logger
    context : Context or list of Context
        Each batch is split over them.
    work_load_list : list of float, optional
        Share of the batch for each context; equal shares by default.
    fixed_param_names : list of str, optional
        Parameters that are not trained.
    state_names : list of str, optional
        Inputs that are neither data nor trained: see `set_states`.
    group2ctxs : dict or list, optional
        Contexts of the ctx_groups: one dictionary from group to context, a list of these with one for each
        context, or a dictionary from group to a list of contexts.
    compression_params : None
        Gradient compression is not built yet: NotImplementedError for anything else.
    """

    def __init__(
        self,
        symbol: Any,
        data_names: Sequence[str] | None = ("data",),
        label_names: Sequence[str] | None = ("softmax_label",),
        logger: Any = logging,
        context: Context | Sequence[Context] = cpu(),  # noqa: B008 - immutable
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(logger=logger)
        _refuse_compression("Module", compression_params)
        self._context = contexts_in(context)
        loads = [1] * len(self._context) if work_load_list is None else list(work_load_list)
        if len(loads) != len(self._context):
            raise AssertionError(
                f"Module: work_load_list has {len(loads)} entries for {len(self._context)} contexts"
            )
        self._work_load_list = loads
        self._group2ctxs = group2ctxs
        self._symbol = symbol_in(symbol)
        self._data_names = names_in(data_names)
        self._label_names = names_in(label_names)
        self._state_names = names_in(state_names)
        self._fixed_param_names = names_in(fixed_param_names)
        _check_input_names(symbol, self._data_names, "data_names", True)
        _check_input_names(symbol, self._label_names, "label_names", False)
        _check_input_names(symbol, self._state_names, "state_names", True)
        _check_input_names(symbol, self._fixed_param_names, "fixed_param_names", True)
        inputs = {*self._data_names, *self._label_names, *self._state_names}
        self._param_names = [name for name in symbol.list_arguments() if name not in inputs]
        self._aux_names = symbol.list_auxiliary_states()
        self._output_names = symbol.list_outputs()
        self._arg_params: dict[str, NDArray] | None = None
        self._aux_params: dict[str, NDArray] | None = None
        # Whether the devices hold newer values than the two dictionaries.
        self._params_dirty = False
        self._compression_params = compression_params
        self._optimizer: Any = None
        self._kvstore: Any = None
        self._update_on_kvstore: bool | None = None
        self._updater: Any = None
        self._preload_opt_states: str | None = None
        self._grad_req: Any = None
        self._exec_group: Any = None
        self._data_shapes: Any = None
        self._label_shapes: Any = None

    # ---- files --------------------------------------------------------------------------------------------

    @staticmethod
    def load(prefix: str, epoch: int, load_optimizer_states: bool = False, **kwargs: Any) -> Module:
        """A module for the checkpoint `PREFIX`, number `epoch`.

        With `load_optimizer_states` those are read when `init_optimizer` is called. `kwargs` are arguments of
        the class.
        """
        symbol, arg_params, aux_params = load_checkpoint(prefix, epoch)
        module = Module(symbol=symbol, **kwargs)
        module._arg_params = arg_params
        module._aux_params = aux_params
        module.params_initialized = True
        if load_optimizer_states:
            module._preload_opt_states = f"{prefix}-{epoch:04d}.states"
        return module

    def save_checkpoint(
        self, prefix: str, epoch: int, save_optimizer_states: bool = False, remove_amp_cast: bool = True
    ) -> None:
        """Write `PREFIX-symbol.json`, `PREFIX-EPOCH.params` and, if wanted, `PREFIX-EPOCH.states`."""
        self._symbol.save(f"{prefix}-symbol.json", remove_amp_cast=remove_amp_cast)
        fname = f"{prefix}-{epoch:04d}.params"
        self.save_params(fname)
        logging.info('Saved checkpoint to "%s"', fname)
        if save_optimizer_states:
            fname = f"{prefix}-{epoch:04d}.states"
            self.save_optimizer_states(fname)
            logging.info('Saved optimizer state to "%s"', fname)

    def save_optimizer_states(self, fname: str) -> None:
        """Write the states of the optimizer to a file, in one step."""
        assert self.optimizer_initialized, "call init_optimizer before saving its states"
        if self._update_on_kvstore:
            self._kvstore.save_optimizer_states(fname)
        else:
            write_whole(fname, self._updater.get_states())

    def load_optimizer_states(self, fname: str) -> None:
        """Read what `save_optimizer_states` wrote."""
        assert self.optimizer_initialized, "call init_optimizer before loading its states"
        if self._update_on_kvstore:
            self._kvstore.load_optimizer_states(fname)
        else:
            self._updater.read_states(fname)

    # ---- names and shapes ---------------------------------------------------------------------------------

    @property
    def data_names(self) -> list[str]:
        return self._data_names

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        return self._label_names

    @property
    def output_names(self) -> list[str]:
        return self._output_names

    @property
    def data_shapes(self) -> list[DataDesc]:
        assert self.binded, _BIND
        return self._data_shapes

    @property
    def label_shapes(self) -> list[DataDesc] | None:
        assert self.binded, _BIND
        return self._label_shapes

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        assert self.binded, _BIND
        return self._exec_group.get_output_shapes()

    def _loss_source(self) -> tuple[Any, Sequence[str]]:
        bound = self._exec_group.label_names if self._exec_group is not None else None
        return self._symbol, bound or self._label_names

    # ---- parameters ---------------------------------------------------------------------------------------

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Parameters and auxiliary states by name; where devices differ, their mean.

        The same dictionaries are returned each time.
        """
        assert self.params_initialized, "call init_params (or load parameters) before get_params"
        if self.binded and self._params_dirty:
            self._sync_params_from_devices()
        assert self._arg_params is not None and self._aux_params is not None
        return self._arg_params, self._aux_params

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Give the parameters their first values: those given, and the initializer's for the others.

        Parameters
        ----------
        initializer : Initializer or None
            Fills what is not given; in the order of the names.
        arg_params, aux_params : dict of str to NDArray, optional
        allow_missing : bool
            Whether dictionaries that are given may lack parameters; RuntimeError otherwise.
        force_init : bool
            Whether parameters that are set already are set anew; otherwise the call is ignored with a
            warning.
        allow_extra : bool
            Accepted: names that the network does not have are passed over in any case.
        """
        if self.params_initialized and not force_init:
            warnings.warn(
                "Parameters already initialized and force_init=False. init_params call ignored.", stacklevel=2
            )
            return
        assert self.binded, "call bind before initializing the parameters"
        assert self._arg_params is not None and self._aux_params is not None
        initializer = initializer_in(initializer, arg_params, aux_params)
        attrs = self._symbol.attr_dict()
        for held, given in ((self._arg_params, arg_params), (self._aux_params, aux_params)):
            for name in sorted(held):
                self._fill(name, held[name], given, initializer, allow_missing, attrs.get(name))
        self.params_initialized = True
        self._params_dirty = False
        self._exec_group.set_params(self._arg_params, self._aux_params, allow_extra=allow_extra)

    @staticmethod
    def _fill(
        name: str,
        array: NDArray,
        given: Mapping[str, NDArray] | None,
        initializer: Any,
        allow_missing: bool,
        attrs: Mapping[str, str] | None,
    ) -> None:
        if given is not None and name in given:
            source = given[name]
            if source is array:
                return
            if source.shape != array.shape:
                raise MXNetError(
                    f"Module: parameter {name!r} has shape {array.shape} in this network, given {source.shape}"
                )
            source.copyto(array)
        elif given is not None and not allow_missing:
            raise RuntimeError(
                f"{name} is not presented: the parameters that were given are {', '.join(sorted(given)) or 'none'}; "
                "with allow_missing=True the initializer fills it"
            )
        elif initializer is not None:
            initializer(InitDesc(name, attrs), array)
        elif given is None:
            raise TypeError(
                f"Module: parameter {name!r} gets no value: neither an initializer nor arrays are given"
            )

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
        self._exec_group.set_params(arg_params, aux_params, allow_extra=allow_extra)
        # The dictionaries follow when they are asked for.
        self._params_dirty = True
        self.params_initialized = True

    def _sync_params_from_devices(self) -> None:
        """Bring the dictionaries up to date."""
        self._exec_group.get_params(self._arg_params, self._aux_params)
        self._params_dirty = False

    # ---- binding ------------------------------------------------------------------------------------------

    def _reset_bind(self) -> None:
        self.binded = False
        self._exec_group = None
        self._data_shapes = None
        self._label_shapes = None

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
        """Allocate arrays for batches of these shapes.

        Parameters
        ----------
        data_shapes, label_shapes : list of DataDesc or of (name, shape)
            Without labels, the network can be used where its label's shape follows from the data's.
        for_training : bool
            Whether gradients are wanted.
        inputs_need_grad : bool
            Whether gradients of the data are wanted.
        force_rebind : bool
            Bind anew a module that is bound; otherwise the call is ignored with a warning.
        shared_module : Module, optional
            A bound module with parameters: the same parameters (and its memory) are used.
        grad_req : str, list or dict
            'write', 'add' or 'null'; for each argument in a list or dictionary.
        """
        if force_rebind:
            if self.binded and self._params_dirty and self.params_initialized:
                self._sync_params_from_devices()
            self._reset_bind()
        if self.binded:
            self.logger.warning("Already bound, ignoring bind()")
            return
        if inputs_need_grad and not for_training:
            raise AssertionError("Module.bind: inputs_need_grad=True needs for_training=True")
        data, labels = _parse_data_desc(self.data_names, self.label_names, data_shapes, label_shapes)
        for desc in labels or ():
            if desc.name not in self._label_names and desc.name not in self._symbol.list_arguments():
                raise ValueError(
                    f"Module.bind: label_shapes names {desc.name!r}, which is no input of this network; "
                    f"label_names is {self._label_names}"
                )
        if shared_module is not None:
            assert isinstance(shared_module, Module), "shared_module must be a Module"
            assert shared_module.binded and shared_module.params_initialized, (
                "shared_module must be bound and have parameters"
            )
            if len(shared_module._context) < len(self._context):
                raise AssertionError("shared_module must have as many contexts as this module")
        self._exec_group = DataParallelExecutorGroup(
            self._symbol,
            self._context,
            self._work_load_list,
            data,
            labels,
            self._param_names,
            for_training,
            inputs_need_grad,
            shared_group=None if shared_module is None else shared_module._exec_group,
            logger=self.logger,
            fixed_param_names=self._fixed_param_names,
            grad_req=grad_req,
            state_names=self._state_names,
            group2ctxs=self._group2ctxs,
        )
        self._data_shapes, self._label_shapes = self._exec_group.data_shapes, self._exec_group.label_shapes
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad
        self._grad_req = grad_req
        self.binded = True
        if shared_module is not None:
            self.params_initialized = True
            self._arg_params = shared_module._arg_params
            self._aux_params = shared_module._aux_params
            if shared_module.optimizer_initialized:
                self.borrow_optimizer(shared_module)
        elif self.params_initialized:
            self._exec_group.set_params(self._arg_params, self._aux_params, allow_extra=True)
        else:
            self._allocate_params()

    def _allocate_params(self) -> None:
        """Arrays on the CPU in which `get_params` returns the parameters."""
        group = self._exec_group
        self._arg_params = {
            name: nd.zeros(arrays[0].shape, dtype=arrays[0].dtype, ctx=cpu())
            for name, arrays in zip(self._param_names, group.param_arrays)
        }
        self._aux_params = {
            name: nd.zeros(arrays[0].shape, dtype=arrays[0].dtype, ctx=cpu())
            for name, arrays in zip(self._aux_names, group.aux_arrays)
        }

    def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Bind for other shapes, with the same parameters. On failure the module stays as it was."""
        assert self.binded, _BIND
        data, labels = _parse_data_desc(self.data_names, self.label_names, data_shapes, label_shapes)
        self._exec_group.reshape(data, labels)
        self._data_shapes, self._label_shapes = self._exec_group.data_shapes, self._exec_group.label_shapes

    # ---- the optimizer ------------------------------------------------------------------------------------

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer.

        Parameters
        ----------
        kvstore : str, KVStore or None
            Sums gradients over contexts. None lets each context follow its own gradients.
        optimizer : str or Optimizer
            One that is named divides gradients by the batch size unless `rescale_grad` is among its
            arguments.
        optimizer_params : dict or list of (str, value)
            Arguments of an optimizer that is named.
        force_init : bool
            Whether an optimizer that is there is replaced; otherwise the call is ignored with a warning.
        """
        assert self.binded and self.params_initialized, _ORDER
        if self.optimizer_initialized and not force_init:
            self.logger.warning("optimizer already initialized, ignoring...")
            return
        if self._params_dirty:
            self._sync_params_from_devices()
        assert self._arg_params is not None
        devices = len(self._context)
        store, on_store = _create_kvstore(kvstore, devices, self._arg_params)
        batch_size = self._exec_group.batch_size
        if store is not None and "dist" in store.type and "_sync" in store.type:
            batch_size *= store.num_workers
        names = self._param_names
        if on_store:
            idx2name = dict(enumerate(names))
        else:
            idx2name = {i * devices + k: name for k in range(devices) for i, name in enumerate(names)}
        self._optimizer = self._make_optimizer(optimizer, optimizer_params, idx2name, 1.0 / batch_size)
        self._kvstore, self._update_on_kvstore = store, on_store
        self._updater = None if on_store else opt.get_updater(self._optimizer)
        if store is not None:
            _initialize_kvstore(
                kvstore=store,
                param_arrays=self._exec_group.param_arrays,
                arg_params=self._arg_params,
                param_names=names,
                update_on_kvstore=on_store,
            )
            if on_store:
                store.set_optimizer(self._optimizer)
        self.optimizer_initialized = True
        if self._preload_opt_states is not None:
            self.load_optimizer_states(self._preload_opt_states)
            self._preload_opt_states = None

    def _make_optimizer(self, optimizer: Any, params: Any, idx2name: dict[int, str], rescale: float) -> Any:
        if isinstance(optimizer, str):
            arguments = {"rescale_grad": rescale, **dict(params)}
            return opt.create(optimizer, sym=self.symbol, param_idx2name=idx2name, **arguments)
        if not isinstance(optimizer, opt.Optimizer):
            raise AssertionError(
                f"Module: optimizer must be an Optimizer or the name of one, given {type(optimizer).__name__}"
            )
        if optimizer.rescale_grad != rescale:
            warnings.warn(
                "Optimizer created manually outside Module but rescale_grad is not normalized to "
                f"1.0/batch_size/num_workers ({optimizer.rescale_grad} vs. {rescale}). Is this intended?",
                stacklevel=3,
            )
        if not optimizer.idx2name:
            optimizer.idx2name = idx2name.copy()
        return optimizer

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use the optimizer of another module, with its states."""
        assert shared_module.optimizer_initialized, "shared_module has no optimizer yet"
        self._optimizer = shared_module._optimizer
        self._kvstore = shared_module._kvstore
        self._update_on_kvstore = shared_module._update_on_kvstore
        self._updater = shared_module._updater
        self.optimizer_initialized = True

    # ---- computing ----------------------------------------------------------------------------------------

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs of a batch.

        Parameters
        ----------
        data_batch : DataBatch or list of DataBatch
            A list has one batch for each context. Another shape than was bound binds anew, with the same
            parameters.
        is_train : bool, optional
            As bound, by default.
        """
        assert self.binded and self.params_initialized, _ORDER
        group = self._exec_group
        if not group.fits(data_batch):
            self.reshape(*group.described(data_batch))
        group.forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients of the batch of the last `forward`.

        `out_grads`, arrays for the whole batch, are needed for outputs that are no losses.
        """
        assert self.binded and self.params_initialized, _ORDER
        self._exec_group.backward(out_grads)

    def update(self) -> None:
        """Update the parameters with the gradients, summed over contexts where there is a store."""
        assert self.binded and self.params_initialized and self.optimizer_initialized, (
            "call bind, init_params and init_optimizer first"
        )
        self._params_dirty = True
        group = self._exec_group
        if self._update_on_kvstore:
            _update_params_on_kvstore(group.param_arrays, group.grad_arrays, self._kvstore, self._param_names)
        elif self._kvstore is None:
            for numbers, grads, arrays in group.update_rows:
                if numbers:
                    self._updater(numbers, grads, arrays)
        else:
            _update_params(
                group.param_arrays,
                group.grad_arrays,
                self._updater,
                len(self._context),
                self._kvstore,
                self._param_names,
            )

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """Outputs of the last `forward`: a list of arrays, or of lists with one array for each context."""
        assert self.binded and self.params_initialized, _ORDER
        return self._exec_group.get_outputs(merge_multi_context=merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """Gradients of the data, as in `get_outputs`; needs `inputs_need_grad` in `bind`."""
        assert self.binded and self.params_initialized and self.inputs_need_grad, (
            "get_input_grads needs a module that is bound with inputs_need_grad=True and has parameters"
        )
        return self._exec_group.get_input_grads(merge_multi_context=merge_multi_context)

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        assert self.binded and self.params_initialized, _ORDER
        return self._exec_group.get_states(merge_multi_context=merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        assert self.binded and self.params_initialized, _ORDER
        self._exec_group.set_states(states, value)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        self._exec_group.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        assert self.binded, _BIND
        self._exec_group.install_monitor(mon)

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        assert self.binded, _BIND
        _refuse_sparse(sparse_row_id_fn)


_BIND = "call bind first"


def _refuse_compression(what: str, compression_params: Any) -> None:
    if compression_params is not None:
        raise NotImplementedError(
            f"{what}: gradient compression is not built yet in mxrs; compression_params must be None, given "
            f"{compression_params!r}"
        )
