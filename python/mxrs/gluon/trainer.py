"""`Trainer`: one step of an optimizer on a set of parameters, over all their contexts.

A step sums the gradients over contexts, scales them by one over the batch size and updates. The optimizers
themselves are in `mxrs.optimizer`. A store object given as `kvstore` does the summing (and that of other
machines); without one, `_LocalReduce` does it here for the contexts of this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import ndarray, optimizer
from ..context import Context
from ..ndarray import NDArray
from .parameter import Parameter
from .parameter_dict import ParameterDict

__all__ = ["Trainer"]


#: Names of stores that reduce within this process.
_LOCAL_STORES = (
    "local",
    "device",
    "nccl",
    "local_allreduce_cpu",
    "local_allreduce_device",
    "local_update_cpu",
)


class _LocalReduce:
    """The store that the names 'local' and 'device' stand for, as far as a trainer needs one."""

    num_workers = 1
    rank = 0

    def __init__(self, name: str) -> None:
        self.type = name

    def pushpull(self, key: int, value: Sequence[NDArray], out: Sequence[NDArray], priority: int = 0) -> None:
        """Write the sum of `value`, one array per context, into every array of `out`."""
        total = self.reduce(value)
        for array in out:
            total.copyto(array)

    @staticmethod
    def reduce(value: Sequence[NDArray]) -> NDArray:
        """The sum of `value` as a new array on the first one's context."""
        home = value[0].context
        return ndarray.add_n(*[array.as_in_context(home) for array in value])


class Trainer:
    """Applies an optimizer to parameters.

    Arguments:
        params: a ParameterDict, dict, list or tuple of Parameters. A dictionary is taken in the order of
            its sorted keys.
        optimizer: an Optimizer, or the name of one.
        optimizer_params: keyword arguments for the optimizer named.
        kvstore: 'device', 'local' or another name of a store within this process; a store object with
            `pushpull` (and `broadcast`), which is called for every parameter; None leaves gradients of
            several contexts as they are, each copy then follows its own.
        compression_params: gradient compression needs `mxrs.kvstore`, not built yet (NotImplementedError).
        update_on_kvstore: whether several contexts are updated once and the result copied (the default
            where a named store serves several contexts) or each copy by itself. Gradients are replaced by
            their sum only in the second case, which `allreduce_grads` and `update` therefore need.

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
        if compression_params:
            raise NotImplementedError("Trainer: compression_params needs mxrs.kvstore, not built yet")
        self._compression_params = compression_params
        self._contexts = self._check_contexts()
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
        store = self._kvstore_params["kvstore"]
        wish = self._kvstore_params["update_on_kvstore"]
        several = len(self._contexts) > 1
        self._distributed = False
        if store is None:
            self._update_on_kvstore = None
        elif isinstance(store, str):
            if "dist" in store:
                raise NotImplementedError(f"Trainer: kvstore='{store}' needs mxrs.kvstore, not built yet")
            if store not in _LOCAL_STORES:
                raise ValueError(
                    f"Trainer: unknown kvstore '{store}'; known are None, a store object and "
                    f"{', '.join(_LOCAL_STORES)}"
                )
            if several:
                self._kvstore = _LocalReduce(store)
                self._update_on_kvstore = True if wish is None else bool(wish)
        else:
            if not hasattr(store, "pushpull"):
                raise ValueError(
                    f"Trainer: kvstore must be a name, None or an object with pushpull(), got {store!r}"
                )
            if wish:
                raise ValueError(
                    f"Trainer: update_on_kvstore=True needs a named store; {type(store).__name__} only "
                    "sums gradients"
                )
            self._kvstore = store
            self._update_on_kvstore = False
            self._distributed = "dist" in str(getattr(store, "type", ""))
        self._kv_initialized = True

    def _init_params(self) -> None:
        """Let every machine start from the same values, for a store object that spans several."""
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
        self._optimizer.rescale_grad = self._scale / batch_size
        self._prepare()
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
        self._optimizer.rescale_grad = self._scale / batch_size
        self._update(ignore_stale_grad)

    def _check_split(self, call: str) -> None:
        if self._kvstore is not None and self._update_on_kvstore:
            raise AssertionError(
                f"{call}() when parameters are updated on kvstore is not supported. Try setting "
                "`update_on_kvstore` to False when creating trainer."
            )

    def _allreduce_grads(self) -> None:
        # Where the store's side updates, `_update_once` reduces into a buffer and leaves the gradients alone.
        if self._kvstore is None or self._update_on_kvstore:
            return
        for i, param in enumerate(self._params):
            if param.grad_req != "null":
                grads = param.list_grad()
                self._kvstore.pushpull(i, grads, out=grads, priority=-i)

    def _update(self, ignore_stale_grad: bool = False) -> None:
        if not ignore_stale_grad:
            self._refuse_stale()
        if self._kvstore is not None and self._update_on_kvstore:
            self._update_once()
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

    def _update_once(self) -> None:
        """Update the first context's copies with the summed gradients and copy the results to the others."""
        indices, grads, weights = [], [], []
        for i, param in enumerate(self._params):
            if param.grad_req != "null":
                indices.append(i)
                grads.append(_LocalReduce.reduce(param.list_grad()))
                weights.append(param.list_data()[0])
        if not indices:
            return
        self._updaters[0](indices, grads, weights)
        for i in indices:
            first, *others = self._params[i].list_data()
            for array in others:
                first.copyto(array)

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
        with open(fname, "wb") as file:
            file.write(self._updaters[0].get_states(dump_optimizer=True) if self._updaters else b"")

    def load_states(self, fname: str) -> None:
        """Read what `save_states` wrote; the optimizer becomes the saved one."""
        self._prepare()
        if not self._updaters:
            return
        with open(fname, "rb") as file:
            states = file.read()
        for updater in self._updaters:
            updater.set_states(states)
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
