"""Cuts rows into batches of equal size: the sources that `MXDataIter` iterates over.

A source is reset and gives one `Arrays` after another. Where rows come from is left to `_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..base import MXNetError
from ._rows import Rows

__all__ = ["Arrays", "BatchSource", "RowBatches"]


@dataclass(frozen=True)
class Arrays:
    """A batch in NumPy arrays: `pad` examples at the end only fill it up; `index` numbers the examples."""

    data: np.ndarray
    label: np.ndarray
    pad: int
    index: np.ndarray


class BatchSource(Protocol):
    """What `MXDataIter` needs of its `handle`."""

    batch_size: int

    def reset(self) -> None:
        """Start the next epoch."""
        ...

    def next(self) -> Arrays | None:
        """The next batch, or None at the end of the epoch."""
        ...


class RowBatches:
    """Batches of rows in their order.

    Parameters
    ----------
    owner : str
        The iterator, for errors.
    rows : Rows
    batch_size : int
    last : 'round', 'fill' or 'drop'
        Rows at the end that make no whole batch are completed by rows from the beginning, at which the next
        epoch then goes on ('round'); or by rows of the batch before ('fill'); or left out ('drop').
    """

    def __init__(self, owner: str, rows: Rows, batch_size: int, last: str) -> None:
        self.batch_size = batch_size
        self._rows = rows
        self._last = last
        self._at = 0
        self._following = 0
        self._ended = False
        self._before: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        if not len(rows.take(0, 1)[0]):
            raise MXNetError(f"{owner}: there are no rows")

    def reset(self) -> None:
        """Start the next epoch: at the first row, or where the last batch of a whole 'round' epoch ended."""
        self._at = self._following if self._ended else 0
        self._following = 0
        self._ended = False

    def next(self) -> Arrays | None:
        """See `BatchSource.next`."""
        if self._ended:
            return None
        size = self.batch_size
        data, label = self._rows.take(self._at, self._at + size)
        count = len(data)
        index = np.arange(self._at, self._at + count, dtype=np.uint64)
        self._at += count
        if count < size:
            self._ended = True
            if count == 0 or self._last == "drop":
                return None
            total = self._at
            if self._last == "fill" and self._before is not None:
                rest = tuple(array[count:] for array in self._before)
            else:
                wrapped = np.arange(size - count, dtype=np.uint64) % np.uint64(total)
                first = self._rows.take(0, min(total, size - count))
                places = wrapped.astype(np.int64)
                rest = (first[0][places], first[1][places], wrapped)
                self._following = (size - count) % total if self._last == "round" else 0
            data, label, index = (
                np.concatenate([array, more]) for array, more in zip((data, label, index), rest, strict=True)
            )
        self._before = (data, label, index)
        return Arrays(data, label, size - count, index)
