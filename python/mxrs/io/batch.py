"""What a batch is, how its arrays are described, and the protocol that every iterator follows.

Nothing here reads data; the iterators beside this module do.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["DataBatch", "DataDesc", "DataIter", "as_batch_size"]

_NameAndShape = namedtuple("_NameAndShape", ["name", "shape"])


class DataDesc(_NameAndShape):
    """Name and shape of one array of a batch: a pair `(name, shape)` that also knows `dtype` and `layout`.

    It equals the plain pair, so programs may give pairs where descriptions are asked for. `layout` names the
    axes by letters; N is the batch.
    """

    dtype: Any
    layout: str | None

    def __new__(
        cls, name: str, shape: Sequence[int], dtype: Any = np.float32, layout: str | None = "NCHW"
    ) -> DataDesc:
        made = super().__new__(cls, name, shape)  # type: ignore[call-arg]  # the fields of the pair
        made.dtype = dtype
        made.layout = layout
        return made

    def __repr__(self) -> str:
        return f"DataDesc[{self.name},{self.shape},{self.dtype},{self.layout}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return DataDesc, (self.name, self.shape, self.dtype, self.layout)

    @staticmethod
    def get_batch_axis(layout: str | None) -> int:
        """The axis that counts examples: the place of N in `layout`, 0 for None, -1 where there is no N."""
        return 0 if layout is None else layout.find("N")

    @staticmethod
    def get_list(
        shapes: Sequence[tuple[str, Sequence[int]]], types: Sequence[tuple[str, Any]] | None
    ) -> list[DataDesc]:
        """Descriptions from pairs (name, shape) and, where given, pairs (name, dtype) for every name.

        Raises KeyError for a name without a dtype.
        """
        if types is None:
            return [DataDesc(name, shape) for name, shape in shapes]
        known = dict(types)
        return [DataDesc(name, shape, known[name]) for name, shape in shapes]


class DataBatch:
    """One batch.

    Parameters
    ----------
    data, label : lists of NDArrays, or None
    pad : how many examples at the end of the batch fill it up and do not count
    index : the numbers of the examples in their source, or None
    bucket_key, provide_data, provide_label : for batches of changing shape: which network they belong to, and
        the descriptions of their arrays

    Raises AssertionError where `data` or `label` is neither a list, a tuple nor None.
    """

    def __init__(
        self,
        data: Sequence[Any] | None,
        label: Sequence[Any] | None = None,
        pad: int | None = None,
        index: Any = None,
        bucket_key: Any = None,
        provide_data: Sequence[Any] | None = None,
        provide_label: Sequence[Any] | None = None,
    ) -> None:
        for name, value in (("Data", data), ("Label", label)):
            if value is not None and not isinstance(value, list | tuple):
                raise AssertionError(f"{name} must be list of NDArrays, got {type(value).__name__}")
        self.data = data
        self.label = label
        self.pad = pad
        self.index = index
        self.bucket_key = bucket_key
        self.provide_data = provide_data
        self.provide_label = provide_label

    def __str__(self) -> str:
        data, label = ([x.shape for x in arrays] if arrays else None for arrays in (self.data, self.label))
        return f"{type(self).__name__}: data shapes: {data} label shapes: {label}"


class DataIter:
    """Base of all iterators over batches.

    A subclass gives `provide_data`, `provide_label` (lists of `DataDesc`), `reset`, and either `next` or
    `iter_next` with `getdata`, `getlabel`, `getindex` and `getpad`, from which `next` makes batches.
    """

    def __init__(self, batch_size: int = 0) -> None:
        self.batch_size = batch_size

    def __iter__(self) -> DataIter:
        return self

    def __next__(self) -> Any:
        return self.next()

    def reset(self) -> None:
        """Start over."""

    def next(self) -> Any:
        """The next batch; StopIteration at the end."""
        if not self.iter_next():
            raise StopIteration
        return DataBatch(data=self.getdata(), label=self.getlabel(), pad=self.getpad(), index=self.getindex())

    def iter_next(self) -> Any:
        """Go to the next batch; whether there is one."""

    def getdata(self) -> Any:
        """The data of the current batch."""

    def getlabel(self) -> Any:
        """The labels of the current batch."""

    def getindex(self) -> Any:
        """The numbers of the current batch's examples, or None."""

    def getpad(self) -> Any:
        """How many examples at the end of the current batch only fill it up."""


def as_batch_size(owner: str, value: Any) -> int:
    """`value` as a batch size; ValueError unless it is a whole number of at least 1."""
    try:
        size = int(value)
    except (TypeError, ValueError):
        size = 0
    if size < 1 or (not isinstance(value, str) and size != value):
        raise ValueError(f"{owner}: batch_size must be a whole number of at least 1, got {value!r}")
    return size
