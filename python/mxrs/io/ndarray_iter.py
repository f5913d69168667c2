"""`NDArrayIter`: batches of arrays that are in memory.

Without shuffling a batch is a view of the source wherever it does not wrap around the end. Shuffling draws
from NumPy's global generator, so that `numpy.random.seed` decides the order, and moves the rows once per epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ndarray as nd
from ..ndarray import NDArray
from ..ndarray.interop import positions
from .batch import DataBatch, DataDesc, DataIter, as_batch_size

__all__ = ["NDArrayIter"]

_MODES = ("pad", "discard", "roll_over")


class NDArrayIter(DataIter):
    """Iterates over arrays in memory, whose first axis counts examples.

    Parameters
    ----------
    data, label : NDArray, numpy.ndarray, h5py.Dataset, a list of them, or a dict of them by name
        NumPy arrays become float32; an NDArray keeps its dtype. `label` may be None.
    batch_size : int
        Examples per batch.
    shuffle : bool
        Put the examples in a new random order now and at every reset.
    last_batch_handle : 'pad', 'discard' or 'roll_over'
        What happens to examples that do not fill the last batch: it is filled up from the beginning (`pad` of
        the batch says by how many), or left out, or they start the next epoch.
    data_name, label_name : str
        Names of arrays without one of their own; a list of several gives `_0_data`, `_1_data`, ... Arrays
        of a dict come in the order of their names.
    layout : str
        Layout of the descriptions.

    Raises TypeError for what cannot become arrays, ValueError for sources of different lengths, an unknown
    mode, or a batch size that does not work (`roll_over` needs as many examples as a batch has).
    """

    def __init__(
        self,
        data: Any,
        label: Any = None,
        batch_size: int = 1,
        shuffle: bool = False,
        last_batch_handle: str = "pad",
        data_name: str = "data",
        label_name: str = "softmax_label",
        layout: str = "NCHW",
    ) -> None:
        super().__init__(as_batch_size("NDArrayIter", batch_size))
        if last_batch_handle not in _MODES:
            raise ValueError(
                f"NDArrayIter: last_batch_handle must be one of {', '.join(_MODES)}, got {last_batch_handle!r}"
            )
        self.data = _init_data(data, allow_empty=False, default_name=data_name)
        self.label = _init_data(label, allow_empty=True, default_name=label_name)
        self.num_data = _common_length(self.data + self.label)
        if last_batch_handle == "roll_over" and self.num_data < self.batch_size:
            raise ValueError(
                f"NDArrayIter: last_batch_handle='roll_over' needs at least batch_size={self.batch_size} "
                f"examples, got {self.num_data}"
            )
        self.idx = np.arange(self.num_data)
        self.shuffle = shuffle
        self.last_batch_handle = last_batch_handle
        self.layout = layout
        self.num_source = len(self.data) + len(self.label)
        # Where the current batch starts; negative where it starts with examples left over from an epoch.
        self.cursor = -self.batch_size
        self._rolled: list[NDArray] | None = None
        if shuffle:
            self._shuffle_data()

    @property
    def data_list(self) -> list[NDArray]:
        """All arrays, data first."""
        return [array for _, array in self.data + self.label]

    @property
    def provide_data(self) -> list[DataDesc]:
        """Descriptions of a batch's data."""
        return self._describe(self.data)

    @property
    def provide_label(self) -> list[DataDesc]:
        """Descriptions of a batch's labels."""
        return self._describe(self.label)

    def _describe(self, arrays: list[tuple[str, NDArray]]) -> list[DataDesc]:
        return [
            DataDesc(name, (self.batch_size, *array.shape[1:]), array.dtype, self.layout)
            for name, array in arrays
        ]

    def hard_reset(self) -> None:
        """Start over and forget what an epoch left over; the order stays unless examples are shuffled."""
        if self.shuffle:
            self._shuffle_data()
        self.cursor = -self.batch_size
        self._rolled = None

    def reset(self) -> None:
        """Start the next epoch; what the last one left over comes first in the mode 'roll_over'."""
        start = self.cursor
        # Only an epoch that came to its end leaves something over.
        left = self.num_data - start
        rolls = self.last_batch_handle == "roll_over" and 0 < left < self.batch_size
        self._rolled = [array[start:] for array in self.data_list] if rolls else None
        if self.shuffle:
            self._shuffle_data()
        self.cursor = -self.batch_size - left if rolls else -self.batch_size

    def _shuffle_data(self) -> None:
        np.random.shuffle(self.idx)
        self.data = [(name, _rows(array, self.idx)) for name, array in self.data]
        self.label = [(name, _rows(array, self.idx)) for name, array in self.label]

    def iter_next(self) -> bool:
        """Go to the next batch; False at the end, where the cursor stays."""
        following = self.cursor + self.batch_size
        if self.cursor >= 0 and self._ends_at(self.cursor):
            return False
        self.cursor = following
        return not self._ends_at(following)

    def _ends_at(self, cursor: int) -> bool:
        if self.last_batch_handle == "pad":
            return cursor >= self.num_data
        return cursor + self.batch_size > self.num_data

    def next(self) -> DataBatch:
        """The next batch; StopIteration at the end of the epoch."""
        if not self.iter_next():
            raise StopIteration
        return DataBatch(data=self.getdata(), label=self.getlabel(), pad=self.getpad(), index=None)

    def getdata(self) -> list[NDArray]:
        """The data of the current batch."""
        return self._batch(0, len(self.data))

    def getlabel(self) -> list[NDArray]:
        """The labels of the current batch."""
        return self._batch(len(self.data), self.num_source)

    def _batch(self, first: int, last: int) -> list[NDArray]:
        start, stop = self.cursor, self.cursor + self.batch_size
        if stop <= 0 or (start >= 0 and self._ends_at(start)):
            raise RuntimeError("NDArrayIter: there is no current batch; call next() or iter_next() first")
        batch = []
        for k, array in enumerate(self.data_list[first:last], first):
            if start < 0:
                rolled = self._rolled[k] if self._rolled is not None else array[start:]
                batch.append(nd.concat(rolled, array[:stop], dim=0))
            elif stop <= self.num_data:
                batch.append(array[start:stop])
            else:
                whole, rest = divmod(stop - self.num_data, self.num_data)
                parts = [array[start:]] + [array] * whole + ([array[:rest]] if rest else [])
                batch.append(nd.concat(*parts, dim=0))
        return batch

    def getpad(self) -> int:
        """How many examples of the current batch belong to another epoch: those that fill up its end in the
        mode 'pad', those left over by the last epoch in the mode 'roll_over'.
        """
        if self.last_batch_handle == "pad":
            return max(0, self.cursor + self.batch_size - self.num_data)
        if self.last_batch_handle == "roll_over" and -self.batch_size < self.cursor < 0:
            return -self.cursor
        return 0


def _init_data(data: Any, allow_empty: bool, default_name: str) -> list[tuple[str, NDArray]]:
    """Pairs of name and array from what users give as `data` or `label` (for the forms see `NDArrayIter`)."""
    what = f"NDArrayIter: {default_name}"
    if data is None:
        data = []
    if _is_array(data):
        data = [data]
    if isinstance(data, list | tuple):
        if len(data) == 1:
            data = {default_name: data[0]}
        else:
            data = {f"_{i}_{default_name}": value for i, value in enumerate(data)}
    elif isinstance(data, dict):
        data = dict(sorted(data.items()))
    else:
        raise TypeError(
            f"{what}: Input must be NDArray, numpy.ndarray, h5py.Dataset a list of them or dict with them as "
            f"values, got {type(data).__name__}"
        )
    if not data and not allow_empty:
        raise AssertionError(f"{what}: at least one array is needed")
    return [(name, _as_ndarray(f"{what}: {name}", value)) for name, value in data.items()]


def _is_array(value: Any) -> bool:
    # An h5py.Dataset is known by these, without importing h5py.
    return isinstance(value, NDArray | np.ndarray) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _as_ndarray(what: str, value: Any) -> NDArray:
    if isinstance(value, NDArray):
        array = value
    else:
        source = np.asarray(value)
        if source.dtype.kind not in "biuf" and source.dtype.name != "bfloat16":
            raise TypeError(
                f"{what}: Invalid type '{type(value)}' with dtype {source.dtype}, should be numbers in an "
                "NDArray, numpy.ndarray or h5py.Dataset"
            )
        array = nd.array(source)
    if not array.shape:
        raise ValueError(f"{what}: needs a first axis that counts examples, got a scalar")
    return array


def _common_length(arrays: list[tuple[str, NDArray]]) -> int:
    lengths = {name: array.shape[0] for name, array in arrays}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(f"NDArrayIter: all arrays must have equally many examples, got {found}")
    count = next(iter(lengths.values()))
    if count == 0:
        raise ValueError(f"NDArrayIter: there are no examples; the arrays {', '.join(lengths)} are empty")
    return count


def _rows(array: NDArray, order: np.ndarray) -> NDArray:
    """The rows of `array` in another order, on its own device."""
    return nd.take(array, positions(order, array._device), axis=0)
