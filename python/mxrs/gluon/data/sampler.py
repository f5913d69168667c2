"""Samplers: in which order, and in which groups, the items of a dataset are visited.

A sampler is an iterable with a length. The samplers here yield indices or lists of indices and never touch
the data, except `FilterSampler`, which looks at every item once when it is made. How a group becomes a batch
of arrays is left to `batchify`, and who does the work to `dataloader`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = [
    "BatchSampler",
    "FilterSampler",
    "IntervalSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
]

_LAST_BATCH = ("keep", "discard", "rollover")


def _as_count(owner: str, name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`, or a ValueError that names the argument."""
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{owner}: {name} must be an integer, got {value!r}") from None
    if count < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {count}")
    return count


class Sampler:
    """Base class of all samplers: an iterable over indices that knows how many it will yield."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must implement __iter__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must implement __len__")


class SequentialSampler(Sampler):
    """Yields `start`, `start + 1`, ..., `start + length - 1`."""

    def __init__(self, length: int, start: int = 0) -> None:
        self._length = _as_count("SequentialSampler", "length", length, 0)
        self._start = operator.index(start)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._start + self._length))

    def __len__(self) -> int:
        return self._length


class RandomSampler(Sampler):
    """Yields `0 ... length - 1` in a fresh random order each time it is iterated.

    The order is drawn from NumPy's global generator, so `numpy.random.seed` makes it reproducible.
    """

    def __init__(self, length: int) -> None:
        self._length = _as_count("RandomSampler", "length", length, 0)

    def __iter__(self) -> Iterator[int]:
        indices = np.arange(self._length)
        np.random.shuffle(indices)
        return iter(indices.tolist())

    def __len__(self) -> int:
        return self._length


class IntervalSampler(Sampler):
    """Yields every `interval`-th index; with `rollover` it starts over at 1, 2, ... until all were visited.

    Without `rollover` only `0, interval, 2 * interval, ...` are visited. Raises AssertionError when
    `interval`
    is larger than `length`.
    """

    def __init__(self, length: int, interval: int, rollover: bool = True) -> None:
        self._length = _as_count("IntervalSampler", "length", length, 0)
        self._interval = _as_count("IntervalSampler", "interval", interval, 1)
        if self._interval > self._length:
            raise AssertionError(
                f"IntervalSampler: interval {self._interval} must be smaller than or equal to length {self._length}"
            )
        self._rollover = rollover

    def __iter__(self) -> Iterator[int]:
        for first in range(self._interval if self._rollover else 1):
            yield from range(first, self._length, self._interval)

    def __len__(self) -> int:
        # Without rollover fewer indices come than there are items, and the length says so.
        return self._length if self._rollover else len(range(0, self._length, self._interval))


class FilterSampler(Sampler):
    """Yields, in order, the indices of the items of `dataset` for which `fn(item)` is true."""

    def __init__(self, fn: Callable[[Any], Any], dataset: Any) -> None:
        self._fn = fn
        self._dataset = dataset
        self._indices = [i for i in range(len(dataset)) if fn(dataset[i])]

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


class BatchSampler(Sampler):
    """Groups the indices of another sampler into lists of `batch_size`.

    Parameters
    ----------
    sampler : Sampler or any iterable of indices with a length
    batch_size : int, at least 1
    last_batch : what happens to an incomplete group at the end: `'keep'` yields it, `'discard'` drops it,
        `'rollover'` puts it at the front of the next round.

    Raises ValueError for an argument outside these bounds.
    """

    def __init__(self, sampler: Any, batch_size: int, last_batch: str = "keep") -> None:
        if last_batch not in _LAST_BATCH:
            raise ValueError(
                f"last_batch must be one of 'keep', 'discard', or 'rollover', but got {last_batch}"
            )
        self._sampler = sampler
        self._batch_size = _as_count("BatchSampler", "batch_size", batch_size, 1)
        self._last_batch = last_batch
        self._prev: list[Any] = []

    def __iter__(self) -> Iterator[list[Any]]:
        batch, self._prev = self._prev, []
        for index in self._sampler:
            batch.append(index)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch and self._last_batch == "keep":
            yield batch
        elif self._last_batch == "rollover":
            self._prev = batch

    def __len__(self) -> int:
        count = len(self._sampler)
        if self._last_batch == "keep":
            return (count + self._batch_size - 1) // self._batch_size
        return (count + len(self._prev)) // self._batch_size
