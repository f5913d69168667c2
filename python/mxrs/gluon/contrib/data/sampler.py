"""`IntervalSampler`: indices in strides, as contiguous text needs them."""

from __future__ import annotations

from collections.abc import Iterator

from ...data import Sampler

__all__ = ["IntervalSampler"]


class IntervalSampler(Sampler):
    """Indices 0, interval, 2 interval, ... below `length`; then, with `rollover`, the same from 1, 2, ... on.

    Parameters
    ----------
    length : int
        How many samples there are.
    interval : int
        The stride, at least 1 and at most `length`.
    rollover : bool
        Whether every index is given once; without, only those of the first pass.

    Raises AssertionError for an interval that does not fit.
    """

    def __init__(self, length: int, interval: int, rollover: bool = True) -> None:
        if not 1 <= interval <= length:
            raise AssertionError(
                f"IntervalSampler: interval {interval} must be at least 1 and at most length {length}"
            )
        self._length = length
        self._interval = interval
        self._rollover = rollover

    def __iter__(self) -> Iterator[int]:
        for start in range(self._interval if self._rollover else 1):
            yield from range(start, self._length, self._interval)

    def __len__(self) -> int:
        return self._length if self._rollover else len(range(0, self._length, self._interval))
