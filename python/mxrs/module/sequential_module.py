"""`SequentialModule`: modules in a row, each fed with the outputs of the one before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..executor_manager import labels_of, pad_of
from ..initializer import Uniform
from ..io import DataBatch, DataDesc
from ..ndarray import NDArray
from .base_module import _ORDER, BaseModule
from .module import _BIND

__all__ = ["SequentialModule"]


class SequentialModule(BaseModule):
    """Modules in a row, added with `add`.

    Training through it needs loss layers (or a `PythonLossModule`) at the end.
    """

    #: The module gets the labels of the batch.
    META_TAKE_LABELS = "take_labels"
    #: The outputs of the module before are taken as this one's data whatever they are called.
    META_AUTO_WIRING = "auto_wiring"

    def __init__(self, logger: Any = logging) -> None:
        super().__init__(logger=logger)
        self._modules: list[BaseModule] = []
        self._metas: list[dict[str, Any]] = []
        self._data_shapes: Any = None
        self._label_shapes: Any = None
        self._meta_keys = {self.META_TAKE_LABELS, self.META_AUTO_WIRING}

    def add(self, module: BaseModule, **kwargs: Any) -> SequentialModule:
        """Append a module and return this one.

        Parameters
        ----------
        take_labels : bool
            Whether the module gets the labels.
        auto_wiring : bool
            Whether outputs of the module before become its data by their order instead of by their names.
        """
        for key in kwargs:
            if key not in self._meta_keys:
                raise AssertionError(f'Unknown meta "{key}", a typo? Known are {sorted(self._meta_keys)}')
        self._modules.append(module)
        self._metas.append(kwargs)
        # The whole has to be bound again.
        self.binded = False
        self.params_initialized = False
        self.optimizer_initialized = False
        return self

    # ---- names and shapes ---------------------------------------------------------------------------------

    @property
    def data_names(self) -> Any:
        return self._modules[0].data_names if self._modules else []

    @property
    def output_names(self) -> Any:
        return self._modules[-1].output_names if self._modules else []

    @property
    def data_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._modules[0].data_shapes

    @property
    def label_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._label_shapes

    @property
    def output_shapes(self) -> Any:
        assert self.binded, _BIND
        return self._modules[-1].output_shapes

    def _loss_source(self) -> Any:
        return self._modules[-1]._loss_source() if self._metas[-1].get(self.META_TAKE_LABELS) else None

    # ---- parameters ---------------------------------------------------------------------------------------

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Parameters and auxiliary states of all modules."""
        assert self.binded and self.params_initialized, _ORDER
        arg_params: dict[str, NDArray] = {}
        aux_params: dict[str, NDArray] = {}
        for module in self._modules:
            arg, aux = module.get_params()
            arg_params.update(arg)
            aux_params.update(aux)
        return arg_params, aux_params

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008 - it holds no state
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """As for `Module`, for all modules. AssertionError where two have parameters of one name."""
        if self.params_initialized and not force_init:
            return
        assert self.binded, "call bind before initializing the parameters"
        for module in self._modules:
            module.init_params(
                initializer=initializer,
                arg_params=arg_params,
                aux_params=aux_params,
                allow_missing=allow_missing,
                force_init=force_init,
                allow_extra=True,  # a name of one module is extra in the others
            )
        self._check_names()
        self.params_initialized = True

    def _check_names(self) -> None:
        owners: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for layer, module in enumerate(self._modules):
            for names, owner in zip(module.get_params(), owners):
                for name in names:
                    if name in owner:
                        raise AssertionError(
                            f'Duplicated parameter names: name "{name}" in layer {layer} ({type(module)}) is '
                            f"already used in layer {owner[name]} ({type(self._modules[owner[name]])})."
                        )
                    owner[name] = layer

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
        """Bind all modules, each for the outputs of the one before; as for `Module`, without
        `shared_module`.
        """
        if self.binded and not force_rebind:
            self.logger.warning("Already bound, ignoring bind()")
            return
        if inputs_need_grad and not for_training:
            raise AssertionError("SequentialModule.bind: inputs_need_grad=True needs for_training=True")
        if shared_module is not None:
            raise AssertionError("Shared module is not supported")
        if not self._modules:
            raise AssertionError("Attempting to bind an empty SequentialModule")
        self.binded = True
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad
        labels_taken = False
        shapes = data_shapes
        for layer, (module, meta) in enumerate(zip(self._modules, self._metas)):
            takes_labels = bool(meta.get(self.META_TAKE_LABELS))
            labels_taken = labels_taken or takes_labels
            if meta.get(self.META_AUTO_WIRING):
                names = module.data_names
                if len(names) != len(shapes):
                    raise AssertionError(
                        f"SequentialModule: module {layer} takes {len(names)} inputs {list(names)}, given "
                        f"{len(shapes)}"
                    )
                shapes = [_renamed(name, desc) for name, desc in zip(names, shapes)]
            module.bind(
                data_shapes=shapes,
                label_shapes=label_shapes if takes_labels else None,
                for_training=for_training,
                # Every module but the first hands gradients on.
                inputs_need_grad=for_training and (inputs_need_grad or layer > 0),
                force_rebind=force_rebind,
                shared_module=None,
                grad_req=grad_req,
            )
            shapes = module.output_shapes
        self._label_shapes = label_shapes if labels_taken else None

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """As for `Module`, one for each module."""
        assert self.binded and self.params_initialized, _ORDER
        if self.optimizer_initialized and not force_init:
            self.logger.warning("optimizer already initialized, ignoring.")
            return
        for module in self._modules:
            module.init_optimizer(
                kvstore=kvstore,
                optimizer=optimizer,
                optimizer_params=optimizer_params,
                force_init=force_init,
            )
        self.optimizer_initialized = True

    # ---- computing ----------------------------------------------------------------------------------------

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute a batch through all modules."""
        assert self.binded and self.params_initialized, _ORDER
        label, pad, index = (
            list(labels_of(data_batch)),
            pad_of(data_batch),
            getattr(data_batch, "index", None),
        )
        batch = data_batch
        for layer, module in enumerate(self._modules):
            module.forward(batch, is_train=is_train)
            if layer + 1 == len(self._modules):
                break
            outputs = module.get_outputs()
            names = self._modules[layer + 1].data_names
            batch = DataBatch(
                data=outputs,
                label=label,
                pad=pad,
                index=index,
                bucket_key=getattr(data_batch, "bucket_key", None),
                provide_data=[DataDesc(name, out.shape, out.dtype) for name, out in zip(names, outputs)],
                provide_label=getattr(data_batch, "provide_label", None),
            )

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients through all modules, from the last to the first."""
        assert self.binded and self.params_initialized, _ORDER
        for layer, module in reversed(list(enumerate(self._modules))):
            module.backward(out_grads=out_grads)
            if layer > 0:
                out_grads = module.get_input_grads()

    def update(self) -> None:
        assert self.binded and self.params_initialized and self.optimizer_initialized, (
            "call bind, init_params and init_optimizer first"
        )
        for module in self._modules:
            module.update()

    def get_outputs(self, merge_multi_context: bool = True) -> Any:
        """Outputs of the last module."""
        assert self.binded and self.params_initialized, _ORDER
        return self._modules[-1].get_outputs(merge_multi_context=merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """Gradients of the data of the first module."""
        assert self.binded and self.params_initialized and self.inputs_need_grad, (
            "get_input_grads needs a module that is bound with inputs_need_grad=True and has parameters"
        )
        return self._modules[0].get_input_grads(merge_multi_context=merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Add the outputs of every module that takes labels to a metric."""
        assert self.binded and self.params_initialized, _ORDER
        for module, meta in zip(self._modules, self._metas):
            if meta.get(self.META_TAKE_LABELS):
                module.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Watch all modules."""
        assert self.binded, _BIND
        for module in self._modules:
            module.install_monitor(mon)


def _renamed(name: str, desc: Any) -> Any:
    """A description with another name."""
    if isinstance(desc, DataDesc):
        return DataDesc(name, desc.shape, desc.dtype, desc.layout)
    return (name, *desc[1:])
