"""Updater: one optimizer applied to many parameters, with their states kept, saved and loaded.

States are saved as a pickle of ``{index: state}``, or of that and the optimizer. They are read with an
unpickler that knows arrays, plain containers, optimizers and schedulers and refuses every other class by
name, so that a state file from elsewhere cannot run code. Files that MXNet 1.9.1 wrote are read too.
"""

from __future__ import annotations

import builtins
import collections
import io
import pickle
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..lr_scheduler import LRScheduler
from ..ndarray import NDArray
from .optimizer import Optimizer

__all__ = ["Updater", "get_updater"]


class Updater:
    """Callable ``(index, grad, weight)`` that steps the optimizer and keeps the states.

    Parameters
    ----------
    optimizer : Optimizer

    Attributes
    ----------
    states : dict
        State by index, made at the first update of that index.
    states_synced : dict
        False for states that were loaded and have not yet been brought to their weight's device.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.states: dict[Any, Any] = {}
        self.states_synced: dict[Any, bool] = {}
        self.aggregate_updates = optimizer.aggregate_num > 0

    def __call__(self, index: Any, grad: Any, weight: Any) -> None:
        """Update one parameter, or several where all three arguments are lists of equal length."""
        if not isinstance(index, (list, tuple)):
            index, grad, weight = (index,), (grad,), (weight,)
        elif not len(index) == len(grad) == len(weight):
            raise ValueError(
                "Updater: index, grad and weight must have the same length, "
                f"given {len(index)}, {len(grad)} and {len(weight)}"
            )
        if not index:
            return
        optimizer = self.optimizer
        optimizer._set_current_context(weight[0].context.device_id)
        states = [self._state(one, w) for one, w in zip(index, weight)]
        if self.aggregate_updates:
            for rows in _aggregated(index, weight, grad, states, optimizer.aggregate_num):
                optimizer.update_multi_precision(*rows)
        else:
            for row in zip(index, weight, grad, states):
                optimizer.update_multi_precision(*row)

    def _state(self, index: Any, weight: NDArray) -> Any:
        if index not in self.states:
            self.states[index] = self.optimizer.create_state_multi_precision(index, weight)
            self.states_synced[index] = True
        elif not self.states_synced[index]:
            self.states[index] = self.sync_state_context(self.states[index], weight.context)
            self.states_synced[index] = True
        return self.states[index]

    def sync_state_context(self, state: Any, context: Any) -> Any:
        """The state with every array in it on the device `context`."""
        if isinstance(state, NDArray):
            return state.as_in_context(context)
        if isinstance(state, (tuple, list)):
            return type(state)(self.sync_state_context(part, context) for part in state)
        return state

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """The states as bytes; with `dump_optimizer` the optimizer and its update counts go along."""
        return pickle.dumps((self.states, self.optimizer) if dump_optimizer else self.states)

    def set_states(self, states: bytes) -> None:
        """Take over what :meth:`get_states` gave, here or in MXNet 1.9.1.

        Raises
        ------
        pickle.UnpicklingError
            Where the bytes are damaged or name a class that does not belong in optimizer states.
        """
        loaded = load_states(states)
        if isinstance(loaded, tuple) and len(loaded) == 2:
            loaded, optimizer = loaded
            if not isinstance(optimizer, Optimizer):
                raise pickle.UnpicklingError(
                    f"optimizer states: expected an Optimizer, found {type(optimizer).__name__}"
                )
            self.optimizer = optimizer
            self.aggregate_updates = optimizer.aggregate_num > 0
        if not isinstance(loaded, dict):
            raise pickle.UnpicklingError(
                f"optimizer states: expected a dict of states by index, found {type(loaded).__name__}"
            )
        self.states = loaded
        self.states_synced = dict.fromkeys(loaded, False)

    def read_states(self, fname: str) -> None:
        """:meth:`set_states` with what a file holds; what it raises names the file, and OSError tells of files that
        cannot be read.
        """
        with open(fname, "rb") as file:
            data = file.read()
        try:
            self.set_states(data)
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(f"{fname}: {error}") from error


def get_updater(optimizer: Optimizer) -> Updater:
    """An :class:`Updater` for `optimizer`."""
    return Updater(optimizer)


def _aggregated(
    index: Sequence[Any], weight: Sequence[NDArray], grad: Sequence[NDArray], states: Sequence[Any], size: int
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Columns of at most `size` parameters of one dtype each, dtypes in the order they appear first."""
    dtypes = [w.dtype for w in weight]
    for dtype in dict.fromkeys(dtypes):
        members = [i for i, found in enumerate(dtypes) if found == dtype]
        for start in range(0, len(members), size):
            part = members[start : start + size]
            yield (
                tuple([index[i] for i in part]),
                tuple([weight[i] for i in part]),
                tuple([grad[i] for i in part]),
                [states[i] for i in part],
            )


# -- reading ----------------------------------------------------------------------------------------

_OLD_PACKAGE = "mxnet."
_OWN_PACKAGE = __name__.split(".", 1)[0] + "."
_OLD_ARRAY_MODULES = (
    "mxnet.ndarray.ndarray",
    "mxnet.ndarray",
    "mxnet.ndarray.sparse",
    "mxnet.numpy.multiarray",
)
_LIST_FILE_MAGIC = 0x112

_PLAIN_CLASSES: dict[tuple[str, str], Any] = {
    ("builtins", name): getattr(builtins, name)
    for name in ("bytearray", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "tuple")
} | {("collections", "OrderedDict"): collections.OrderedDict}


class _SavedArray:
    """Stands for an array of an MXNet pickle until its bytes, which come after its class, are known."""

    def __init__(self, handle: Any = None, *_: Any) -> None:
        self.data: bytes | None = None

    def __setstate__(self, state: Any) -> None:
        data = state.get("handle") if isinstance(state, dict) else None
        if data is not None and not isinstance(data, (bytes, bytearray)):
            raise pickle.UnpicklingError("optimizer states: an array without its bytes")
        self.data = None if data is None else bytes(data)

    def array(self) -> NDArray:
        """The array: its record, in the format of parameter files, read as a file with this one record."""
        if self.data is None:
            raise pickle.UnpicklingError("optimizer states: an array without its bytes")
        header = struct.pack("<QQQ", _LIST_FILE_MAGIC, 0, 1)
        arrays = nd.load_frombuffer(header + self.data + struct.pack("<Q", 0))
        assert isinstance(arrays, list)  # a file without names
        return arrays[0]


class _StatesUnpickler(pickle.Unpickler):
    """Knows arrays, plain containers, optimizers and schedulers; the error for another class names it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._array_builder = nd.zeros((1,)).__reduce_ex__(pickle.DEFAULT_PROTOCOL)[0]

    def find_class(self, module: str, name: str) -> Any:
        plain = _PLAIN_CLASSES.get((module, name))
        if plain is not None:
            return plain
        if module in _OLD_ARRAY_MODULES and name in ("NDArray", "ndarray"):
            return _SavedArray
        if module.startswith(_OLD_PACKAGE):
            module = _OWN_PACKAGE + module[len(_OLD_PACKAGE) :]
        found = _numpy_name(module, name) or self._loaded_name(module, name)
        if found is None:
            raise pickle.UnpicklingError(
                f"optimizer states: {module}.{name} is not allowed; only arrays, plain containers, "
                "optimizers and learning-rate schedulers are"
            )
        return found

    def _loaded_name(self, module: str, name: str) -> Any:
        """A class or array builder of a module that the program has already imported; nothing is imported
        here.
        """
        found = getattr(sys.modules.get(module), name, None) if "." not in name else None
        if found is None:
            found = Optimizer.opt_registry.get(name.lower()) if module.startswith(_OWN_PACKAGE) else None
        if isinstance(found, type) and issubclass(found, (Optimizer, LRScheduler, NDArray)):
            return found
        if found is not None and found is self._array_builder:
            return found
        return None


def _numpy_name(module: str, name: str) -> Any:
    """NumPy's scalar types, dtype, ndarray and the two functions its pickles call; None for anything else."""
    if module == "numpy":
        found = getattr(np, name, None)
        if found in (np.ndarray, np.dtype) or (isinstance(found, type) and issubclass(found, np.generic)):
            return found
        return None
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        # NumPy 2 moved the module; take the functions from pickles of the NumPy that runs.
        if name == "scalar":
            return np.float64(0).__reduce__()[0]
        if name == "_reconstruct":
            return np.zeros(1).__reduce__()[0]
    if module in ("numpy.dtypes",) and name.endswith("DType"):
        return getattr(getattr(np, "dtypes", None), name, None)
    return None


def load_states(data: bytes) -> Any:
    """The object that pickled optimizer states describe; see :class:`_StatesUnpickler` for what may stand in
    it.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"optimizer states must be bytes, given {type(data).__name__}")
    try:
        loaded = _StatesUnpickler(io.BytesIO(data)).load()
        return _with_arrays(loaded)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and str(error).startswith("optimizer states"):
            raise
        raise pickle.UnpicklingError(f"optimizer states are damaged: {error}") from error


def _with_arrays(value: Any) -> Any:
    """`value` with every :class:`_SavedArray` in it replaced by its array."""
    memo: dict[int, Any] = {}

    def convert(item: Any, depth: int) -> Any:
        if depth > 64:
            raise pickle.UnpicklingError("optimizer states are nested too deeply")
        if isinstance(item, _SavedArray):
            if id(item) not in memo:
                memo[id(item)] = item.array()
            return memo[id(item)]
        if isinstance(item, (tuple, list)):
            return type(item)(convert(part, depth + 1) for part in item)
        if isinstance(item, dict):
            for key in item:
                item[key] = convert(item[key], depth + 1)
        elif isinstance(item, (Optimizer, LRScheduler)) and id(item) not in memo:
            memo[id(item)] = item
            convert(item.__dict__, depth + 1)
        return item

    return convert(value, 0)
