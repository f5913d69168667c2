"""How a batch is split over devices, and the loading of slices into bound arrays.

`_split_input_slice` is called by programs that wrote their own module; `mxrs.module` splits and loads with the
functions of this file too. `DataParallelExecutorManager` is the interface that came before `Module`; it binds
through `mxrs.module.executor_group` and keeps no arithmetic of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .ndarray import NDArray

__all__ = ["DataParallelExecutorGroup", "DataParallelExecutorManager"]

#: Where a slice of a batch goes: the slice, and the array of one device.
Target = tuple[slice, NDArray]


def _split_input_slice(batch_size: int, work_load_list: Sequence[float]) -> list[slice]:
    """Consecutive slices of a batch, one per device, as long as its share of the work load.

    The lengths are rounded to whole rows; the last device takes what rounding left over.

    Raises
    ------
    ValueError
        Where a device would get nothing.
    """
    total = sum(work_load_list)
    lengths = [round(load * batch_size / total) for load in work_load_list]
    lengths[-1] += batch_size - sum(lengths)
    slices = []
    begin = 0
    for length in lengths:
        end = min(begin + max(length, 0), batch_size)
        if begin >= end:
            raise ValueError(
                f"Too many slices. Some splits are empty: a batch of {batch_size} over work loads "
                f"{list(work_load_list)}"
            )
        slices.append(slice(begin, end))
        begin = end
    return slices


def _check_arguments(symbol: Any) -> None:
    """Raise ValueError where two arguments, or two auxiliary states, of a network have the same name."""
    for kind, names in (
        ("argument", symbol.list_arguments()),
        ("auxiliary param", symbol.list_auxiliary_states()),
    ):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(
                    f'Find duplicated {kind} name "{name}", please make the weight name non-duplicated'
                    f"(using name arguments), {kind}s are {names}"
                )
            seen.add(name)


def _part(array: Any, part: slice, axis: int) -> Any:
    """`array[part]` along `axis`; the whole of it where the slice is the whole, or there is no such axis."""
    if axis < 0 or (part.start == 0 and part.stop == array.shape[axis]):
        return array
    if axis == 0:
        return array[part]
    if isinstance(array, NDArray):
        return array.slice_axis(axis=axis, begin=part.start, end=part.stop)
    return array[(slice(None),) * axis + (part,)]


def _load_general(data: Sequence[Any], targets: Sequence[Any], major_axis: Sequence[int] = ()) -> None:
    """Copy each array into its targets: an array, or the slices of several devices.

    A source that is a list holds one array per device already.
    """
    for i, (source, target) in enumerate(zip(data, targets)):
        if isinstance(target, NDArray):
            _copy(source, target)
            continue
        axis = major_axis[i] if major_axis else 0
        if isinstance(source, list | tuple):
            if len(source) != len(target):
                raise ValueError(f"{len(source)} slices were given for {len(target)} devices")
            for part, (_, array) in zip(source, target):
                _copy(part, array)
            continue
        for part, array in target:
            _copy(_part(source, part, axis), array)


def _copy(source: Any, target: NDArray) -> None:
    if isinstance(source, NDArray):
        source.copyto(target)
    else:
        target[:] = np.asarray(source)


def labels_of(batch: Any) -> Sequence[Any]:
    """The labels of a batch; programs that only predict make batches of their own that have none."""
    return getattr(batch, "label", None) or ()


def pad_of(batch: Any) -> int:
    """How many rows at the end of a batch only fill it up."""
    return getattr(batch, "pad", None) or 0


def _load_data(batch: Any, targets: Sequence[Any], major_axis: Sequence[int] = ()) -> None:
    """Copy `batch.data` into its targets."""
    _load_general(batch.data, targets, major_axis)


def _load_label(batch: Any, targets: Sequence[Any], major_axis: Sequence[int] = ()) -> None:
    """Copy `batch.label` into its targets."""
    _load_general(labels_of(batch), targets, major_axis)


class DataParallelExecutorGroup:
    """Executors of one network on several devices, each with its slice of the batch.

    Parameters
    ----------
    sym : Symbol
    arg_names, param_names : list of str
        All arguments, and those that are trained.
    ctx : list of Context
    slices : list of slice
        The rows of the batch for each device.
    train_data : DataIter
        Its `provide_data`, `provide_label` and `batch_size` are used.
    shared_group : DataParallelExecutorGroup, optional
        A group whose parameters and memory are used.
    """

    def __init__(
        self,
        sym: Any,
        arg_names: Sequence[str],
        param_names: Sequence[str],
        ctx: Sequence[Any],
        slices: Sequence[slice],
        train_data: Any,
        shared_group: DataParallelExecutorGroup | None = None,
    ) -> None:
        from .module.executor_group import DataParallelExecutorGroup as Group

        _check_arguments(sym)
        self._group: Any = Group(
            sym,
            list(ctx),
            [part.stop - part.start for part in slices],
            train_data.provide_data,
            train_data.provide_label,
            list(param_names),
            for_training=True,
            inputs_need_grad=False,
            shared_group=None if shared_group is None else shared_group._group,
        )
        group = self._group
        self.data_names = [desc[0] for desc in train_data.provide_data]
        self.label_names = [desc[0] for desc in train_data.provide_label]
        self.aux_names = sym.list_auxiliary_states()
        self.param_idx = [i for i, name in enumerate(arg_names) if name in param_names]
        self.param_names = [arg_names[i] for i in self.param_idx]
        self.slices = group.slices
        self.train_execs = group.execs
        self.data_arrays = group.data_arrays
        self.label_arrays = group.label_arrays
        self.param_arrays = group.param_arrays
        self.grad_arrays = group.grad_arrays
        self.aux_arrays = group.aux_arrays

    def load_data_batch(self, data_batch: Any) -> None:
        """Copy a batch into the bound arrays."""
        self._group.load(data_batch)

    def forward(self, is_train: bool = False) -> None:
        """Run all executors on what was loaded."""
        for executor in self.train_execs:
            executor.forward(is_train=is_train)

    def backward(self) -> None:
        """Compute the gradients on all devices."""
        self._group.backward()

    def update_metric(self, metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Add the outputs of all devices to a metric."""
        self._group.update_metric(metric, labels, pre_sliced)


class DataParallelExecutorManager:
    """Trains one network, or one per bucket, on several devices; `Module` is its successor.

    Parameters
    ----------
    symbol : Symbol
    ctx : list of Context
    train_data : DataIter
    arg_names, param_names, aux_names : list of str
    work_load_list : list of float, optional
        Share of the batch for each device; equal shares by default.
    sym_gen : callable, optional
        Makes the network for a bucket key.
    """

    def __init__(
        self,
        symbol: Any,
        ctx: Sequence[Any],
        train_data: Any,
        arg_names: Sequence[str],
        param_names: Sequence[str],
        aux_names: Sequence[str],
        work_load_list: Sequence[float] | None = None,
        logger: Any = None,
        sym_gen: Callable[[Any], Any] | None = None,
    ) -> None:
        logger = logging if logger is None else logger
        logger.info("Start training with %s", str(list(ctx)))
        loads = [1.0] * len(ctx) if work_load_list is None else list(work_load_list)
        if len(loads) != len(ctx):
            raise AssertionError(
                f"Invalid settings for work load: {len(loads)} shares were given for {len(ctx)} contexts"
            )
        self.symbol = symbol
        self.ctx = list(ctx)
        self.arg_names = list(arg_names)
        self.param_names = list(param_names)
        self.aux_names = list(aux_names)
        self.sym_gen = sym_gen
        self.slices = _split_input_slice(train_data.batch_size, loads)
        self.execgrp = DataParallelExecutorGroup(
            symbol, self.arg_names, self.param_names, self.ctx, self.slices, train_data
        )
        self.curr_execgrp = self.execgrp
        self.execgrp_bucket: dict[Any, DataParallelExecutorGroup] = {}
        if sym_gen is not None:
            self.execgrp_bucket[train_data.default_bucket_key] = self.execgrp

    def install_monitor(self, monitor: Any) -> None:
        """Watch all executors with a Monitor."""
        if self.sym_gen is not None:
            raise NotImplementedError("Monitoring is not implemented for bucketing")
        for executor in self.execgrp.train_execs:
            monitor.install(executor)

    def set_params(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Copy parameters to all devices."""
        for executor in self.execgrp.train_execs:
            executor.copy_params_from(arg_params, aux_params)

    def copy_to(self, arg_params: dict[str, NDArray], aux_params: dict[str, NDArray]) -> None:
        """Write the mean over devices of every parameter into the arrays given."""
        self.execgrp._group.get_params(arg_params, aux_params)

    @property
    def param_arrays(self) -> list[list[NDArray]]:
        """The parameters, each a list with one array per device."""
        return self.execgrp.param_arrays

    @property
    def grad_arrays(self) -> list[list[NDArray | None]]:
        """The gradients, each a list with one array per device."""
        return self.execgrp.grad_arrays

    @property
    def aux_arrays(self) -> list[list[NDArray]]:
        """The auxiliary states, each a list with one array per device."""
        return self.execgrp.aux_arrays

    def load_data_batch(self, data_batch: Any) -> None:
        """Copy a batch into the bound arrays, those of its bucket where there are buckets."""
        if self.sym_gen is not None:
            key = data_batch.bucket_key
            if key not in self.execgrp_bucket:
                self.execgrp_bucket[key] = DataParallelExecutorGroup(
                    self.sym_gen(key),
                    self.arg_names,
                    self.param_names,
                    self.ctx,
                    self.slices,
                    data_batch,
                    shared_group=self.execgrp,
                )
            self.curr_execgrp = self.execgrp_bucket[key]
        self.curr_execgrp.load_data_batch(data_batch)

    def forward(self, is_train: bool = False) -> None:
        """Run the executors of the current bucket."""
        self.curr_execgrp.forward(is_train=is_train)

    def backward(self) -> None:
        """Compute the gradients of the current bucket."""
        self.curr_execgrp.backward()

    def update_metric(self, metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Add the outputs of the current bucket to a metric."""
        self.curr_execgrp.update_metric(metric, labels, pre_sliced)
