"""Datasets: things with a length and items.

A dataset answers `len(d)` and `d[i]`; the methods here derive new datasets from it (filter, shard, take,
sample,
transform). A dataset may also tell the loader that its items are rows of whole arrays (`_whole_arrays`),
which
lets a batch be gathered with one `take` per array in place of one indexing per item. Making batches is left
to
`batchify` and `dataloader`, files of well-known data sets to `vision`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ndarray as nd
from . import sampler as _sampler

__all__ = ["ArrayDataset", "Dataset", "RecordFileDataset", "SimpleDataset"]


class Dataset:
    """Base class. A subclass implements `__getitem__(index)` and `__len__()`."""

    def __getitem__(self, idx: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must implement __len__")

    def filter(self, fn: Callable[[Any], Any]) -> Dataset:
        """The items for which `fn(item)` is true. `fn` is called on every item now, once."""
        return _SampledDataset(self, _sampler.FilterSampler(fn, self))

    def shard(self, num_shards: int, index: int) -> Dataset:
        """The `index`-th of `num_shards` contiguous parts; the first parts get the items left over.

        Raises AssertionError when `index` is not in `[0, num_shards)`.
        """
        num_shards, index = operator.index(num_shards), operator.index(index)
        if not 0 <= index < num_shards:
            raise AssertionError(f"Dataset.shard: shard index out of bounds: {index} out of {num_shards}")
        size, extra = divmod(len(self), num_shards)
        start = size * index + min(index, extra)
        return _SampledDataset(self, _sampler.SequentialSampler(size + (index < extra), start))

    def take(self, count: int | None) -> Dataset:
        """The first `count` items, or all of them when `count` is None or larger than the dataset."""
        count = len(self) if count is None else min(operator.index(count), len(self))
        if count < 0:
            raise ValueError(f"Dataset.take: count must not be negative, got {count}")
        return _SampledDataset(self, _sampler.SequentialSampler(count))

    def sample(self, sampler: _sampler.Sampler) -> Dataset:
        """The items at the indices that `sampler` yields now, in its order."""
        if not isinstance(sampler, _sampler.Sampler):
            raise TypeError(f"Invalid sampler type: {type(sampler)}. Expected gluon.data.Sampler instead.")
        return _SampledDataset(self, sampler)

    def transform(self, fn: Callable[..., Any], lazy: bool = True) -> Dataset:
        """A dataset whose items are `fn(*item)` for tuple items and `fn(item)` for others.

        With `lazy` the function runs at each access, as random augmentation needs; otherwise it runs on every
        item now and the results are kept.
        """
        lazy_dataset = _LazyTransformDataset(self, fn)
        if lazy:
            return lazy_dataset
        return SimpleDataset([lazy_dataset[i] for i in range(len(lazy_dataset))])

    def transform_first(self, fn: Callable[[Any], Any], lazy: bool = True) -> Dataset:
        """As `transform`, but `fn` sees only the first element of each item (the picture, not the label)."""
        return self.transform(_TransformFirstClosure(fn), lazy)

    def _whole_arrays(self) -> tuple[list[Any], bool] | None:
        """`(arrays, is_tuple)` when item i is exactly row i of each of `arrays`, else None.

        `is_tuple` is False for a dataset of one array, whose items are the rows themselves. An array is a
        NumPy
        array with at least one axis, or an NDArray with at least two (a row of a one-axis NDArray is an
        NDArray
        of shape (1,), which stacks differently).
        """
        return None


def _all_gatherable(arrays: list[Any]) -> bool:
    for array in arrays:
        if isinstance(array, nd.NDArray):
            if len(array.shape) < 2 or getattr(array, "stype", "default") != "default":
                return False
        elif type(array) is not np.ndarray or array.ndim < 1 or array.dtype.kind not in "biuf":
            return False
    return True


class SimpleDataset(Dataset):
    """Wraps any object with a length and items, a list or an array for instance."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: Any) -> Any:
        return self._data[idx]

    def _whole_arrays(self) -> tuple[list[Any], bool] | None:
        plain = type(self).__getitem__ is SimpleDataset.__getitem__
        return ([self._data], False) if plain and _all_gatherable([self._data]) else None


class ArrayDataset(Dataset):
    """Zips arrays or datasets of one length: item i is the tuple of their i-th items.

    With a single array the items are its rows, not 1-tuples. An NDArray with one axis is kept as a NumPy
    array,
    so that its items are plain numbers.

    Parameters
    ----------
    *args : one or more of NDArray, numpy.ndarray, list or Dataset, all of the same length

    Raises AssertionError without arguments or when the lengths differ.
    """

    def __init__(self, *args: Any) -> None:
        if not args:
            raise AssertionError("ArrayDataset: needs at least 1 array")
        for position, data in enumerate(args):
            if not hasattr(data, "__len__"):
                raise TypeError(
                    f"ArrayDataset: an array, a list or a Dataset is needed; array[{position}] is {data!r}, a "
                    f"{type(data).__name__}"
                )
        self._length = len(args[0])
        self._data: list[Any] = []
        for position, data in enumerate(args):
            if len(data) != self._length:
                raise AssertionError(
                    "ArrayDataset: all arrays must have the same length; "
                    f"array[0] has length {self._length} while array[{position}] has {len(data)}."
                )
            if isinstance(data, nd.NDArray) and len(data.shape) == 1:
                data = data.asnumpy()
            self._data.append(data)

    def __getitem__(self, idx: Any) -> Any:
        if len(self._data) == 1:
            return self._data[0][idx]
        return tuple(data[idx] for data in self._data)

    def __len__(self) -> int:
        return self._length

    def _whole_arrays(self) -> tuple[list[Any], bool] | None:
        plain = type(self).__getitem__ is ArrayDataset.__getitem__
        return (self._data, len(self._data) > 1) if plain and _all_gatherable(self._data) else None


class RecordFileDataset(Dataset):
    """The records of a RecordIO file (`.rec`) with its index (`.idx`) beside it, as bytes.

    Parameters
    ----------
    filename : path of the `.rec` file; the index is looked for under the same name with `.idx`

    Raises NotImplementedError, naming the class, where this build of mxrs has no `mxrs.recordio`.
    """

    def __init__(self, filename: str) -> None:
        _recordio(type(self).__name__)
        self.filename = filename
        self.idx_file = os.path.splitext(filename)[0] + ".idx"
        self._open()

    def _open(self) -> None:
        recordio = _recordio(type(self).__name__)
        self._record = recordio.MXIndexedRecordIO(self.idx_file, self.filename, "r")
        self._pid = os.getpid()

    def __getitem__(self, idx: Any) -> Any:
        # A forked worker shares the parent's file offset, and seeks of the two would interleave.
        if self._pid != os.getpid():
            self._open()
        return self._record.read_idx(self._record.keys[idx])

    def __len__(self) -> int:
        return len(self._record.keys)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_record"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _recordio(asked_by: str) -> Any:
    try:
        from ... import recordio
    except ImportError:
        raise NotImplementedError(
            f"{asked_by} needs mxrs.recordio, which this version does not have yet"
        ) from None
    return recordio


class _TransformFirstClosure:
    """Applies a function to the first of the arguments; a class, so that it can be pickled for a worker."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self._fn = fn

    def __call__(self, x: Any, *args: Any) -> Any:
        return (self._fn(x), *args) if args else self._fn(x)


class _LazyTransformDataset(Dataset):
    def __init__(self, data: Any, fn: Callable[..., Any]) -> None:
        self._data = data
        self._fn = fn

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: Any) -> Any:
        item = self._data[idx]
        return self._fn(*item) if isinstance(item, tuple) else self._fn(item)


class _SampledDataset(Dataset):
    """The items of a dataset at the indices that a sampler yielded when this was made."""

    def __init__(self, dataset: Any, sampler: _sampler.Sampler) -> None:
        self._dataset = dataset
        self._sampler = sampler
        self._indices = list(sampler)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, idx: Any) -> Any:
        return self._dataset[self._indices[idx]]
