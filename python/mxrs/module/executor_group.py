"""`DataParallelExecutorGroup`: the executors of one network, one per device, each with its part of the batch.

It binds and rebinds them, loads batches, merges outputs and gradients, and copies parameters in and out. What
to train with, and when, is the module's business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .. import ndarray as nd
from ..base import MXNetError
from ..context import Context
from ..executor import types_of
from ..executor_manager import _load_general, _part, _split_input_slice, labels_of
from ..io import DataDesc
from ..ndarray import NDArray

__all__ = ["DataParallelExecutorGroup"]

Placement = Mapping[str, Context]


def _prepare_group2ctxs(group2ctxs: Any, ctx_len: int) -> list[Placement | None]:
    """The placement of ctx_groups for each of `ctx_len` devices.

    Takes None, one dictionary from group to context, a list of one per device, or a dictionary whose values
    are lists with one context per device (or a single one for all).
    """
    if group2ctxs is None:
        return [None] * ctx_len
    if isinstance(group2ctxs, list):
        if len(group2ctxs) != ctx_len:
            raise AssertionError(
                f"group2ctxs: length of the list should be {ctx_len}, the number of contexts, given "
                f"{len(group2ctxs)}"
            )
        return group2ctxs
    if not isinstance(group2ctxs, Mapping):
        raise AssertionError(
            "group2ctxs should be a dict of str to context, a list of these (one per context of the module), "
            f"or a dict of str to a list of contexts; given {type(group2ctxs).__name__}"
        )
    placements: list[dict[str, Context]] = [{} for _ in range(ctx_len)]
    for group, places in group2ctxs.items():
        chosen = [places] if isinstance(places, Context) else places
        if not isinstance(chosen, list | tuple) or not all(isinstance(c, Context) for c in chosen):
            raise TypeError(
                f"group2ctxs[{group!r}] should be a context or a list of contexts, given {places!r}"
            )
        if len(chosen) not in (1, ctx_len):
            raise AssertionError(
                f"group2ctxs[{group!r}]: length of the list should be 1 or {ctx_len}, given {len(chosen)}"
            )
        for placement, place in zip(placements, list(chosen) * (ctx_len if len(chosen) == 1 else 1)):
            placement[group] = place
    return list(placements)


def _merge_multi_context(outputs: Sequence[Sequence[NDArray]], axes: Sequence[int]) -> list[NDArray]:
    """Each output's parts joined along its batch axis; the first part of one that has no such axis."""
    merged = []
    for parts, axis in zip(outputs, axes):
        if axis < 0 or len(parts) == 1:
            merged.append(parts[0])
        else:
            home = parts[0].context
            merged.append(nd.concat(*[part.as_in_context(home) for part in parts], dim=axis))
    return merged


class DataParallelExecutorGroup:
    """Executors of one network over several devices.

    Parameters
    ----------
    symbol : Symbol
    contexts : list of Context
    workload : list of float
        Share of the batch for each context.
    data_shapes : list of DataDesc
    label_shapes : list of DataDesc or None
    param_names : list of str
        Arguments that are neither data, label nor state.
    for_training : bool
        Whether gradients are wanted.
    inputs_need_grad : bool
        Whether gradients of the data are wanted.
    shared_group : DataParallelExecutorGroup, optional
        A bound group whose parameters, gradients and memory are used.
    fixed_param_names : list of str, optional
        Parameters without gradients.
    grad_req : str, list or dict
        'write', 'add' or 'null'; a list has one for each argument.
    state_names : list of str, optional
        Inputs whose values are set by `set_states`.
    group2ctxs : dict or list, optional
        See `_prepare_group2ctxs`.

    Attributes
    ----------
    execs : list of Executor
    slices : list of slice
        Rows of the batch for each context.
    data_arrays, label_arrays : list of list of (slice, NDArray)
        Bound inputs: for each the parts of the contexts.
    param_arrays, grad_arrays, aux_arrays : list of list of NDArray
        One array per context for each parameter; gradients may be None.
    """

    def __init__(
        self,
        symbol: Any,
        contexts: Sequence[Context],
        workload: Sequence[float],
        data_shapes: Sequence[Any],
        label_shapes: Sequence[Any] | None,
        param_names: Sequence[str],
        for_training: bool,
        inputs_need_grad: bool,
        shared_group: DataParallelExecutorGroup | None = None,
        logger: Any = logging,
        fixed_param_names: Sequence[str] | None = None,
        grad_req: Any = "write",
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
    ) -> None:
        self.symbol = symbol
        self.arg_names = symbol.list_arguments()
        self.aux_names = symbol.list_auxiliary_states()
        self.output_names = symbol.list_outputs()
        self.num_outputs = len(self.output_names)
        self.contexts = list(contexts)
        self.workload = list(workload)
        self.group2ctxs = _prepare_group2ctxs(group2ctxs, len(self.contexts))
        self.param_names = list(param_names)
        self.fixed_param_names = list(fixed_param_names or ())
        self.state_names = list(state_names or ())
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad
        self.logger = logger
        self.output_layouts = [
            DataDesc.get_batch_axis(symbol[name].attr("__layout__")) for name in self.output_names
        ]
        self.grad_req = self._requests(grad_req, [_desc(shape).name for shape in data_shapes])
        self._place(data_shapes, label_shapes)
        self.execs: list[Any] = [
            self._bind(i, None if shared_group is None else shared_group.execs[i])
            for i in range(len(self.contexts))
        ]
        self._default_execs = list(self.execs)
        self._default_shapes = self._bound_shapes()
        self._collect_arrays()

    # ---- binding ------------------------------------------------------------------------------------------

    def _requests(self, grad_req: Any, data_names: Sequence[str]) -> dict[str, str]:
        """What to do with the gradient of each argument."""
        if not self.for_training:
            return dict.fromkeys(self.arg_names, "null")
        if isinstance(grad_req, list | tuple):
            if len(grad_req) != len(self.arg_names):
                raise AssertionError(
                    f"grad_req: a list needs one entry for each of the {len(self.arg_names)} arguments "
                    f"{self.arg_names}, given {len(grad_req)}"
                )
            return dict(zip(self.arg_names, grad_req))
        if not isinstance(grad_req, str | Mapping):
            raise ValueError(
                f"grad_req must be one of list, tuple, dict and str, given {type(grad_req).__name__}"
            )
        params = grad_req if isinstance(grad_req, str) else "write"
        requests = {}
        for name in self.arg_names:
            if name in self.param_names:
                requests[name] = "null" if name in self.fixed_param_names else params
            elif name in data_names:
                requests[name] = params if self.inputs_need_grad else "null"
            else:
                requests[name] = "null"
        if isinstance(grad_req, Mapping):
            requests.update(grad_req)
        return requests

    def _place(self, data_shapes: Sequence[Any], label_shapes: Sequence[Any] | None) -> None:
        """Take over shapes of inputs and decide the slices."""
        self.data_shapes = [_desc(shape) for shape in data_shapes]
        labels = [_desc(shape) for shape in label_shapes or ()]
        self.label_shapes = None if label_shapes is None else labels
        self.data_names = [desc.name for desc in self.data_shapes]
        self.label_names = [desc.name for desc in labels]
        self.data_layouts = [DataDesc.get_batch_axis(desc.layout) for desc in self.data_shapes]
        self.label_layouts = [DataDesc.get_batch_axis(desc.layout) for desc in labels]
        # A label that the network does not take is accepted, for metrics, and not loaded.
        self._taken = [i for i, desc in enumerate(labels) if desc.name in self.arg_names]
        self.batch_size = self._batch_size()
        self.slices = _split_input_slice(self.batch_size, self.workload)

    def _batch_size(self) -> int:
        found: int | None = None
        layouts = self.data_layouts + self.label_layouts
        for desc, axis in zip(self.data_shapes + (self.label_shapes or []), layouts):
            if axis < 0:
                continue
            if found is None:
                found = desc.shape[axis]
            elif desc.shape[axis] != found:
                raise AssertionError(
                    f"all data must have the same batch size: batch_size = {found}, but {desc.name} has "
                    f"shape {desc.shape}"
                )
        return self.data_shapes[0].shape[0] if found is None else found

    def _shapes(self, i: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs on the i-th device."""
        part = self.slices[i]
        shapes = {}
        layouts = self.data_layouts + self.label_layouts
        for desc, axis in zip(self.data_shapes + (self.label_shapes or []), layouts):
            shape = list(desc.shape)
            if axis >= 0:
                shape[axis] = part.stop - part.start
            if desc.name in self.arg_names:
                shapes[desc.name] = tuple(shape)
        return shapes

    def _bind(self, i: int, shared: Any) -> Any:
        shapes = self._shapes(i)
        descs = self.data_shapes + (self.label_shapes or [])
        types = {desc.name: desc.dtype for desc in descs if desc.name in shapes}
        if shared is not None:
            return self._bind_shared(i, shared, shapes, types)
        return self.symbol.simple_bind(
            ctx=self.contexts[i],
            grad_req=self.grad_req,
            type_dict=types,
            group2ctx=self.group2ctxs[i],
            **shapes,
        )

    def _bind_shared(
        self, i: int, shared: Any, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, Any]
    ) -> Any:
        """An executor with the parameters, gradients and auxiliary states of another one."""
        arg_shapes, _, aux_shapes = self.symbol.infer_shape(**shapes)
        arg_types, aux_types = types_of(self.symbol, types)
        place = self.contexts[i]

        def taken(held: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
            array = held.get(name)
            if array is None:
                return nd.zeros(shape, ctx=place, dtype=dtype)
            if array.shape != tuple(shape):
                raise MXNetError(
                    f"Module: the shared parameter {name!r} has shape {array.shape}, this network needs {shape}"
                )
            return array

        args, grads = {}, {}
        for name, shape, dtype in zip(self.arg_names, arg_shapes, arg_types):
            is_param = name in self.param_names
            args[name] = taken(shared.arg_dict if is_param else {}, name, shape, dtype)
            if self.grad_req[name] != "null":
                grads[name] = taken(shared.grad_dict if is_param else {}, name, shape, dtype)
        states = {
            name: taken(shared.aux_dict, name, shape, dtype)
            for name, shape, dtype in zip(self.aux_names, aux_shapes, aux_types)
        }
        return self.symbol.bind(
            ctx=place,
            args=args,
            args_grad=grads,
            grad_req=self.grad_req,
            aux_states=states,
            group2ctx=self.group2ctxs[i],
            shared_exec=shared,
        )

    def _bound_shapes(self) -> list[dict[str, tuple[int, ...]]]:
        return [self._shapes(i) for i in range(len(self.contexts))]

    def reshape(self, data_shapes: Sequence[Any], label_shapes: Sequence[Any] | None) -> None:
        """Bind for other shapes of the inputs, with the same parameters.

        On failure the group stays as it was. Going back to the shapes of the first bind costs nothing.
        """
        former = {
            name: getattr(self, name)
            for name in (
                "data_shapes", "label_shapes", "data_names", "label_names", "data_layouts", "label_layouts",
                "batch_size", "slices", "_taken",
            )
        }  # fmt: skip
        try:
            self._place(data_shapes, label_shapes)
            shapes = self._bound_shapes()
            if shapes == self._default_shapes:
                execs = list(self._default_execs)
            else:
                execs = [
                    executor.reshape(allow_up_sizing=True, **shape)
                    for executor, shape in zip(self._default_execs, shapes)
                ]
        except BaseException:
            self.__dict__.update(former)
            raise
        self.execs = execs
        self._collect_arrays()

    def _collect_arrays(self) -> None:
        execs = self.execs
        args = [executor.arg_dict for executor in execs]
        grads = [executor.grad_dict for executor in execs]
        aux = [executor.aux_dict for executor in execs]
        self.data_arrays = [self._parts(name, args) for name in self.data_names]
        self.label_arrays = [self._parts(self.label_names[i], args) for i in self._taken]
        self.state_arrays = [[arg[name] for arg in args] for name in self.state_names]
        bound = [name for name in self.param_names if name in self.arg_names]
        self.param_arrays = [[arg[name] for arg in args] for name in bound]
        # A parameter without a gradient stands as None on every device.
        self.grad_arrays = [[grad.get(name) for grad in grads] for name in bound]
        self.aux_arrays = [[states[name] for states in aux] for name in self.aux_names]
        self.input_grad_arrays = (
            [[grad.get(name) for grad in grads] for name in self.data_names] if self.inputs_need_grad else []
        )
        self._simple_data = self._simple(self.data_arrays)
        self._simple_label = self._simple(self.label_arrays)
        self.update_rows = self._update_rows()

    def _parts(self, name: str, args: Sequence[Mapping[str, NDArray]]) -> list[tuple[slice, NDArray]]:
        return [(part, arg[name]) for part, arg in zip(self.slices, args)]

    def _simple(self, arrays: Sequence[Sequence[tuple[slice, NDArray]]]) -> list[NDArray] | None:
        """The arrays that whole inputs are copied into, where there is one device."""
        return [parts[0][1] for parts in arrays] if len(self.contexts) == 1 else None

    def _update_rows(self) -> list[tuple[list[int], list[NDArray], list[NDArray]]]:
        """For each device the numbers, gradients and arrays of the parameters that are trained.

        Parameter i on device k has the number `i * devices + k`.
        """
        devices = len(self.contexts)
        rows: list[tuple[list[int], list[NDArray], list[NDArray]]] = [([], [], []) for _ in range(devices)]
        for i, (arrays, grads) in enumerate(zip(self.param_arrays, self.grad_arrays)):
            for k, (array, grad) in enumerate(zip(arrays, grads)):
                if grad is not None:
                    numbers, gradients, parameters = rows[k]
                    numbers.append(i * devices + k)
                    gradients.append(grad)
                    parameters.append(array)
        return rows

    # ---- parameters ---------------------------------------------------------------------------------------

    def set_params(
        self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray], allow_extra: bool = False
    ) -> None:
        """Copy parameters to all devices. ValueError for unknown names, unless `allow_extra`."""
        for executor in self.execs:
            executor.copy_params_from(arg_params, aux_params, allow_extra_params=allow_extra)

    def get_params(self, arg_params: dict[str, NDArray], aux_params: dict[str, NDArray]) -> None:
        """Write the mean over devices of every parameter into the dictionaries' arrays."""
        for names, arrays, held in (
            (self.param_names, self.param_arrays, arg_params),
            (self.aux_names, self.aux_arrays, aux_params),
        ):
            for name, parts in zip(names, arrays):
                _mean_into(parts, held[name])

    # ---- batches ------------------------------------------------------------------------------------------

    def _shapes_of(self, batch: Any) -> list[tuple[int, ...]]:
        """Shapes of the data of a batch, or of one batch per device put together."""
        if not isinstance(batch, list):
            return [array.shape for array in batch.data]
        shapes = []
        for parts, axis in zip(zip(*(each.data for each in batch)), self.data_layouts):
            shape = list(parts[0].shape)
            if axis >= 0:
                shape[axis] = sum(part.shape[axis] for part in parts)
            shapes.append(tuple(shape))
        return shapes

    def fits(self, batch: Any) -> bool:
        """Whether the data of a batch has the shapes that are bound."""
        return all(shape == desc.shape for shape, desc in zip(self._shapes_of(batch), self.data_shapes))

    def described(self, batch: Any) -> tuple[list[DataDesc], list[DataDesc] | None]:
        """Descriptions of the inputs for a batch of other shapes: its own, or those bound with its shapes.

        Labels that it does not bring get the batch's size.
        """
        shapes = self._shapes_of(batch)
        whole = not isinstance(batch, list)
        data = whole and getattr(batch, "provide_data", None)
        if not data:
            data = [DataDesc(d.name, s, d.dtype, d.layout) for d, s in zip(self.data_shapes, shapes)]
        labels = whole and getattr(batch, "provide_label", None)
        if not labels:
            if self.label_shapes is None:
                return data, None
            given = [label.shape for label in labels_of(batch)] if whole else []
            size = shapes[0][self.data_layouts[0]] if self.data_layouts[0] >= 0 else self.batch_size
            labels = []
            for i, (desc, axis) in enumerate(zip(self.label_shapes, self.label_layouts)):
                shape = list(given[i] if i < len(given) else desc.shape)
                if i >= len(given) and axis >= 0:
                    shape[axis] = size
                labels.append(DataDesc(desc.name, tuple(shape), desc.dtype, desc.layout))
        return data, labels

    # ---- running ------------------------------------------------------------------------------------------

    def load(self, data_batch: Any) -> None:
        """Copy a batch, or a list of one batch per device, into the bound arrays."""
        if isinstance(data_batch, list):
            batches = data_batch
            data: Sequence[Any] = [list(parts) for parts in zip(*(batch.data for batch in batches))]
            label: Sequence[Any] = [list(parts) for parts in zip(*(labels_of(batch) for batch in batches))]
            label = self._loaded(label)
        else:
            data, label = data_batch.data, self._loaded(labels_of(data_batch))
            if self._simple_data is not None and self._simple_label is not None:
                _load_general(data, self._simple_data)
                if label:
                    _load_general(label, self._simple_label)
                return
        _load_general(data, self.data_arrays, self.data_layouts)
        if label:
            _load_general(label, self.label_arrays, [self.label_layouts[i] for i in self._taken])

    def _loaded(self, labels: Sequence[Any]) -> Sequence[Any]:
        """The labels that the network takes, of all that a batch brings."""
        if not self._taken or len(self._taken) == len(labels):
            return labels if self._taken else ()
        return [labels[i] for i in self._taken if i < len(labels)]

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Load a batch and run all executors; in training mode as bound where `is_train` is None."""
        self.load(data_batch)
        if is_train is None:
            is_train = self.for_training
        for executor in self.execs:
            executor.forward(is_train=is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients.

        Parameters
        ----------
        out_grads : NDArray or list of NDArray, optional
            Gradients of the outputs, for the whole batch; not needed where all outputs are losses.
        """
        if not self.for_training:
            raise AssertionError("re-bind with for_training=True to run backward")
        heads = [out_grads] if isinstance(out_grads, NDArray) else list(out_grads or ())
        if len(self.execs) == 1:
            home = self.contexts[0]
            self.execs[0].backward([head.as_in_context(home) for head in heads] if heads else None)
            return
        for k, (executor, part) in enumerate(zip(self.execs, self.slices)):
            parts = [
                _part(head, part, axis).as_in_context(self.contexts[k])
                for head, axis in zip(heads, self.output_layouts)
            ]
            executor.backward(parts if heads else None)

    def get_outputs(self, merge_multi_context: bool = True, begin: int = 0, end: int | None = None) -> Any:
        """Outputs number `begin` to `end`: arrays of the whole batch, or lists of one array per device."""
        last = self.num_outputs if end is None else end
        if len(self.execs) == 1:
            outputs = list(self.execs[0].outputs[begin:last])
            return outputs if merge_multi_context else [[array] for array in outputs]
        parts = [[executor.outputs[i] for executor in self.execs] for i in range(begin, last)]
        return _merge_multi_context(parts, self.output_layouts[begin:last]) if merge_multi_context else parts

    def get_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each output for the whole batch."""
        shapes = []
        for i, (name, axis) in enumerate(zip(self.output_names, self.output_layouts)):
            parts = [executor.outputs[i].shape for executor in self.execs]
            shape = list(parts[0])
            if axis >= 0 and shape:
                shape[axis] = sum(part[axis] for part in parts)
            shapes.append((name, tuple(shape)))
        return shapes

    def get_input_grads(self, merge_multi_context: bool = True) -> Any:
        """Gradients of the data, as in `get_outputs`."""
        if not self.inputs_need_grad:
            raise AssertionError("get_input_grads: bind with inputs_need_grad=True")
        if merge_multi_context:
            return _merge_multi_context(self.input_grad_arrays, self.data_layouts)
        return self.input_grad_arrays

    def get_states(self, merge_multi_context: bool = True) -> list[list[NDArray]]:
        """The states, each a list with one array per device; merging is not offered."""
        if merge_multi_context:
            raise AssertionError("merge_multi_context=True is not supported for get_states yet.")
        return self.state_arrays

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states from arrays, nested as `get_states` gives them, or all of them to one number."""
        if states is not None:
            if value is not None:
                raise AssertionError("Only one of states & value can be specified.")
            _load_general(
                states, [[(part, a) for part, a in zip(self.slices, row)] for row in self.state_arrays]
            )
            return
        if value is None:
            raise AssertionError("At least one of states & value must be specified.")
        for row in self.state_arrays:
            for array in row:
                array[:] = value

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Add the outputs of the last forward to a metric.

        Parameters
        ----------
        labels : list of NDArray
            In the order of the label names; with `pre_sliced` a list of these for each device.
        """
        for k, (executor, part) in enumerate(zip(self.execs, self.slices)):
            if pre_sliced:
                own = labels[k]
            elif len(self.execs) == 1:
                own = labels
            else:
                layouts = self.label_layouts or [0] * len(labels)
                own = [_part(label, part, axis) for label, axis in zip(labels, layouts)]
            # Labels that were not bound still count for metrics; their names are not known then.
            names = self.label_names or [f"label{i}" for i in range(len(own))]
            eval_metric.update_dict(dict(zip(names, own)), dict(zip(self.output_names, executor.outputs)))

    def install_monitor(self, mon: Any) -> None:
        """Watch all executors with a Monitor."""
        for executor in self.execs:
            mon.install(executor)


def _desc(shape: Any) -> DataDesc:
    return shape if isinstance(shape, DataDesc) else DataDesc(*shape)


def _mean_into(parts: Sequence[NDArray], target: NDArray) -> None:
    """Write the mean of `parts`, which lie on several devices, into `target`."""
    if len(parts) == 1:
        parts[0].copyto(target)
        return
    home = target.context
    total = nd.add_n(*[part.as_in_context(home) for part in parts])
    (total / len(parts)).astype(target.dtype).copyto(target)
