"""`Trainer`: one step of an optimizer on a set of parameters, over all their contexts.

A step sums the gradients over contexts, scales them by one over the batch size and updates. The optimizers
themselves are in `mxrs.optimizer`, the sums in `mxrs.kvstore`. Parameters on one context need no sum: a store
named for them is not even made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import kvstore, optimizer
from .._files import write_whole
from ..context import Context
from .parameter import Parameter
from .parameter_dict import ParameterDict

__all__ = ["Trainer"]


class Trainer:
    """Applies an optimizer to parameters.

    Arguments:
        params: a ParameterDict, dict, list or tuple of Parameters. A dictionary is taken in the order of
            its sorted keys.
        optimizer: an Optimizer, or the name of one.
        optimizer_params: keyword arguments for the optimizer named.
        kvstore: the name of a store, 'device' or 'local' for instance, made when there are several contexts; a
            store object with `pushpull` (and `broadcast`), which is used for one context too; None leaves
            gradients of several contexts as they are, each copy then follows its own.
        compression_params: given to the store's `set_gradient_compression`, where a store is used.
        update_on_kvstore: whether the store updates one copy of each parameter, which then goes to every
            context, or every context its own. The default is True where the store can, unless the environment
            variable MXNET_UPDATE_ON_KVSTORE is 0. Gradients are replaced by their sum only in the second
            case, which `allreduce_grads` and `update` therefore need.

    Raises ValueError for arguments of the wrong kind, AssertionError if parameters are on different contexts.
    """

    def __init__(
        self,
        params: ParameterDict | Mapping[str, Parameter] | Sequence[Parameter],
        optimizer: Any,
        optimizer_params: Mapping[str, Any] | None = None,
        kvstore: Any = "device",
        compression_params: Mapping[str, Any] | None = None,
        update_on_kvstore: bool | None = None,
    ) -> None:
        self._params = _as_list(params)
        self._param2idx = {param.name: i for i, param in enumerate(self._params)}
        for param in self._params:
            param._set_trainer(self)
        self._compression_params = compression_params
        self._contexts = self._check_contexts()
        if optimizer_params is not None and not isinstance(optimizer_params, Mapping):
            raise TypeError(
                f"Trainer: optimizer_params is a dict such as {{'learning_rate': 0.1}}, given {optimizer_params!r}"
            )
        options = dict(optimizer_params) if optimizer_params else {}
        self._init_optimizer(optimizer, options)
        self._scale = float(self._optimizer.rescale_grad)
        self._kvstore_params = {"kvstore": kvstore, "update_on_kvstore": update_on_kvstore}
        self._params_to_init: list[Parameter] = []
        self._reset_kvstore()

    def _check_contexts(self) -> list[Context]:
        contexts: list[Context] | None = None
        for param in self._params:
            ctx = param.list_ctx()
            if contexts is not None and contexts != ctx:
                raise AssertionError(
                    "All Parameters must be initialized on the same set of contexts, but Parameter "
                    f"{param.name} is initialized on {ctx} while previous Parameters are initialized on "
                    f"{contexts}."
                )
            contexts = ctx
        return contexts or []

    def _init_optimizer(self, kind: Any, options: dict[str, Any]) -> None:
        by_index = dict(enumerate(self._params))
        if isinstance(kind, optimizer.Optimizer):
            if options:
                raise AssertionError(
                    "optimizer_params must be None if optimizer is an instance of Optimizer instead of str"
                )
            self._optimizer = kind
            self._optimizer.param_dict = by_index
        elif isinstance(kind, str):
            self._optimizer = optimizer.create(kind, param_dict=by_index, **options)
        else:
            raise ValueError(f"Trainer: optimizer must be an Optimizer or the name of one, got {kind!r}")
        self._updaters = [optimizer.get_updater(self._optimizer) for _ in self._contexts]

    def _reset_kvstore(self) -> None:
        self._kv_initialized = False
        self._kvstore: Any = None
        self._distributed: bool | None = None
        self._update_on_kvstore: bool | None = None
        self._params_to_init = list(self._params)

    def _init_kvstore(self) -> None:
        for param in self._params:
            # Raises where a parameter still waits for its shape: better now than halfway through the first
            # update.
            param.list_data()
        store = self._store()
        wish = self._kvstore_params["update_on_kvstore"]
        self._distributed = "dist" in str(getattr(store, "type", ""))
        if store is None:
            if wish and self._kvstore_params["kvstore"] is None:
                raise ValueError("Trainer: update_on_kvstore=True needs a kvstore, but kvstore is None")
        else:
            able = bool(hasattr(store, "is_capable") and store.is_capable("optimizer"))
            if wish and not able:
                raise ValueError(
                    f"Please set update_on_kvstore=False when training with {type(store)}: it only sums gradients"
                )
            if wish is None:
                wish = able and os.environ.get("MXNET_UPDATE_ON_KVSTORE", "1") != "0"
            if self._compression_params:
                store.set_gradient_compression(self._compression_params)
            if wish:
                store.set_optimizer(self._optimizer)
            self._update_on_kvstore = bool(wish)
        self._kvstore = store
        self._kv_initialized = True

    def _store(self) -> Any:
        """The store to use, or None where each context is on its own."""
        store = self._kvstore_params["kvstore"]
        if store is None:
            return None
        if isinstance(store, str):
            # A name is looked up even where no store is needed, so that a wrong one shows at once.
            kvstore.base.find(store)
            return kvstore.create(store) if len(self._contexts) > 1 else None
        if not hasattr(store, "pushpull"):
            raise TypeError(
                f"Trainer: kvstore must be a KVStore, a name, None or an object with pushpull(), got {store!r}"
            )
        return store

    def _init_params(self) -> None:
        """Give the store its first values; where it spans machines, all start from the same."""
        if hasattr(self._kvstore, "broadcast"):
            for param in self._params_to_init:
                arrays = param.list_data()
                self._kvstore.broadcast(self._param2idx[param.name], arrays[0], arrays)
        self._params_to_init = []

    def _prepare(self) -> None:
        if not self._kv_initialized:
            self._init_kvstore()
        if self._params_to_init:
            self._init_params()

    # --- learning rate ---

    @property
    def learning_rate(self) -> float:
        """The rate in force: the scheduler's for the present number of updates, or the optimizer's own."""
        self._check_optimizer("accessed")
        return self._optimizer.learning_rate

    @property
    def optimizer(self) -> Any:
        """The Optimizer."""
        self._check_optimizer("accessed")
        return self._optimizer

    def set_learning_rate(self, lr: float) -> None:
        """Set the rate; UserWarning is raised if a scheduler decides it."""
        self._check_optimizer("mutated")
        self._optimizer.set_learning_rate(lr)

    def _check_optimizer(self, what: str) -> None:
        if not isinstance(self._optimizer, optimizer.Optimizer):
            raise UserWarning(f"Optimizer has to be defined before its learning rate can be {what}.")

    # --- the step ---

    def step(self, batch_size: int, ignore_stale_grad: bool = False) -> None:
        """Sum the gradients over contexts, scale them by `1 / batch_size` and update the parameters.

        Call it after `backward`, outside `record`. A gradient that no `backward` has touched since the last
        step raises UserWarning, or, with `ignore_stale_grad`, leaves its parameter as it is.
        """
        self._optimizer.rescale_grad = self._rescaling("step", batch_size)
        self._prepare()
        if not self._update_on_kvstore:
            self._allreduce_grads()
        self._update(ignore_stale_grad)

    def allreduce_grads(self) -> None:
        """Replace the gradients on all contexts by their sum; `update` then finishes the step.

        Between the two, gradients can be clipped or changed. AssertionError if the trainer updates on its
        store.
        """
        self._prepare()
        self._check_split("allreduce_grads")
        self._allreduce_grads()

    def update(self, batch_size: int, ignore_stale_grad: bool = False) -> None:
        """The second half of a step: scale by `1 / batch_size` and update, without summing over contexts."""
        self._prepare()
        self._check_split("update")
        self._optimizer.rescale_grad = self._rescaling("update", batch_size)
        self._update(ignore_stale_grad)

    def _rescaling(self, call: str, batch_size: float) -> float:
        if not hasattr(batch_size, "__float__") or batch_size == 0:
            raise ValueError(
                f"Trainer.{call}: batch_size is the number of samples, at least 1; given {batch_size!r}"
            )
        return self._scale / batch_size

    def _check_split(self, call: str) -> None:
        if self._kvstore is not None and self._update_on_kvstore:
            raise AssertionError(
                f"{call}() when parameters are updated on kvstore is not supported. Try setting "
                "`update_on_kvstore` to False when creating trainer."
            )

    def _allreduce_grads(self) -> None:
        self._exchange(to_weights=False)

    def _exchange(self, to_weights: bool) -> None:
        """Push all gradients; pull into the weights, or back into the gradients."""
        if self._kvstore is None:
            return
        indices = [i for i, param in enumerate(self._params) if param.grad_req != "null"]
        grads = [self._params[i].list_grad() for i in indices]
        outs = [self._params[i].list_data() for i in indices] if to_weights else None
        if type(self._kvstore) is kvstore.KVStore:
            self._kvstore.pushpull(indices, grads, out=outs)
            return
        for slot, i in enumerate(indices):
            if outs is None:
                self._kvstore.pushpull(i, grads[slot], priority=-i)
            else:
                self._kvstore.pushpull(i, grads[slot], out=outs[slot], priority=-i)

    def _update(self, ignore_stale_grad: bool = False) -> None:
        if not ignore_stale_grad:
            self._refuse_stale()
        if self._kvstore is not None and self._update_on_kvstore:
            self._exchange(to_weights=True)
            return
        for slot, updater in enumerate(self._updaters):
            indices, grads, weights = [], [], []
            for i, param in enumerate(self._params):
                if param.grad_req == "null":
                    continue
                weight = param.list_data()[slot]
                if ignore_stale_grad and not weight._fresh_grad:
                    continue
                weight._fresh_grad = False
                indices.append(i)
                grads.append(param.list_grad()[slot])
                weights.append(weight)
            if indices:
                updater(indices, grads, weights)

    def _refuse_stale(self) -> None:
        for param in self._params:
            if param.grad_req == "null":
                continue
            for array in param.list_data():
                if not array._fresh_grad:
                    raise UserWarning(
                        f"Gradient of Parameter `{param.name}` on context {array.context} has not been "
                        "updated by backward since last `step`. This could mean a bug in your model that "
                        "made it only use a subset of the Parameters (Blocks) for this iteration. If you "
                        "are intentionally only using a subset, call step with ignore_stale_grad=True to "
                        "suppress this warning and skip updating of Parameters with stale gradient"
                    )

    # --- states ---

    def save_states(self, fname: str) -> None:
        """Write the optimizer and its states (momenta and such) to a file."""
        self._prepare()
        if self._update_on_kvstore:
            self._kvstore.save_optimizer_states(fname, dump_optimizer=True)
            return
        write_whole(fname, self._updaters[0].get_states(dump_optimizer=True) if self._updaters else b"")

    def load_states(self, fname: str) -> None:
        """Read what `save_states` wrote; the optimizer becomes the saved one."""
        self._prepare()
        if self._update_on_kvstore:
            self._kvstore.load_optimizer_states(fname)
            self._optimizer = self._kvstore._updater.optimizer
            self._optimizer.param_dict = dict(enumerate(self._params))
            return
        if not self._updaters:
            return
        for updater in self._updaters:
            updater.read_states(fname)
            updater.optimizer = self._updaters[0].optimizer
        self._optimizer = self._updaters[0].optimizer
        self._optimizer.param_dict = dict(enumerate(self._params))


def _as_list(params: Any) -> list[Parameter]:
    if isinstance(params, ParameterDict | Mapping):
        params = [params[key] for key in sorted(params.keys())]
    if not isinstance(params, list | tuple):
        raise ValueError(f"First argument must be a list or dict of Parameters, got {type(params)}.")
    for param in params:
        if not isinstance(param, Parameter):
            raise ValueError(
                f"First argument must be a list or dict of Parameters, got list of {type(param)}."
            )
    return list(params)
