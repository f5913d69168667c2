"""`DataLoader`: batches of a dataset, made in this thread, in worker threads or in worker processes.

Three iterators share one idea, that a batch is `fetch(indices)`: the loader keeps a window of batches under
way
and hands them out in the sampler's order. A dataset that consists of whole arrays is gathered with one `take`
per
array in place of one indexing per item, with the same result. Worker processes themselves are in `_workers`,
the
stacking of samples in `batchify`.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import operator
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import context
from ... import ndarray as nd
from ...ndarray.interop import positions
from . import sampler as _sampler
from ._workers import WorkerPool
from .batchify import collate, default_batchify_fn, default_mp_batchify_fn, wrap
from .dataset import Dataset, SimpleDataset

__all__ = ["DataLoader", "default_batchify_fn", "default_mp_batchify_fn"]


def _as_indices(batch: Any, length: int) -> np.ndarray | None:
    """A batch as int64 row numbers in [0, length), or None when it is not a plain list of integers.

    Raises IndexError for a number outside the dataset, as indexing the items one by one would.
    """
    try:
        indices = np.asarray(batch)
    except ValueError:
        return None
    if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
        return None
    low, high = int(indices.min()), int(indices.max())
    if low < -length or high >= length:
        wrong = high if high >= length else low
        raise IndexError(f"DataLoader: index {wrong} is out of bounds for a dataset of length {length}")
    indices = indices.astype(np.int64, copy=False)
    return np.where(indices < 0, indices + length, indices) if low < 0 else indices


def _gather(array: Any, indices: np.ndarray) -> Any:
    if isinstance(array, np.ndarray):
        return array.take(indices, axis=0)
    return nd.take(array, positions(indices, array._device))


class _Fetch:
    """Makes the batch of a list of indices. An object, not a closure, so that it can be sent to a worker."""

    def __init__(self, dataset: Any, batchify_fn: Callable[[Any], Any]) -> None:
        self.dataset = dataset
        self.batchify_fn = batchify_fn
        self.default = batchify_fn in (default_batchify_fn, default_mp_batchify_fn)
        holder = dataset if isinstance(dataset, Dataset) else SimpleDataset(dataset)
        self._whole = holder._whole_arrays() if self.default else None

    def raw(self, batch: Any) -> Any:
        """The batch as `batchify_fn` makes it; for the default one NumPy arrays may stand for NDArrays."""
        if self._whole is not None:
            arrays, is_tuple = self._whole
            indices = _as_indices(batch, len(arrays[0]))
            if indices is not None:
                parts = [_gather(array, indices) for array in arrays]
                return parts if is_tuple else parts[0]
        samples = [self.dataset[i] for i in batch]
        return collate(samples) if self.default else self.batchify_fn(samples)

    def __call__(self, batch: Any) -> Any:
        raw = self.raw(batch)
        return wrap(raw) if self.default else raw


def _pin(data: Any, device_id: int) -> Any:
    """Moves the NDArrays of a batch to page-locked memory, from where copies to a GPU are fastest."""
    if isinstance(data, nd.NDArray):
        return data.as_in_context(context.cpu_pinned(device_id))
    if isinstance(data, list):
        return [_pin(part, device_id) for part in data]
    if type(data) is tuple:
        return tuple(_pin(part, device_id) for part in data)
    return data


class _WindowIter:
    """Hands out batches in order while up to `window` of them are under way. Subclasses say what that means."""

    def __init__(self, loader: DataLoader, window: int) -> None:
        self._loader = loader  # Keeps the workers alive as long as somebody iterates.
        self._batches = iter(loader._batch_sampler)
        self._window = max(1, window)
        self._under_way: deque[Any] = deque()
        self._taken = 0
        self._done = False
        for _ in range(self._window):
            self._push_next()

    def _submit(self, batch: Any) -> Any:
        raise NotImplementedError

    def _result(self, ticket: Any) -> Any:
        raise NotImplementedError

    def _forget(self, ticket: Any) -> None:
        raise NotImplementedError

    def _push_next(self) -> None:
        batch = next(self._batches, None)
        if batch is not None:
            self._under_way.append(self._submit(batch))

    def __iter__(self) -> _WindowIter:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        if not self._under_way:
            if not self._done:
                self._done = True
                self._loader._epoch_ended()
            raise StopIteration
        try:
            result = self._result(self._under_way.popleft())
        except BaseException:
            self.close()
            raise
        self._push_next()
        self._taken += 1
        return self._loader._finish(result)

    def close(self) -> None:
        """Gives up the batches that are still under way."""
        self._done = True
        self._batches = iter(())
        while self._under_way:
            self._forget(self._under_way.popleft())

    def __del__(self) -> None:
        if getattr(self, "_under_way", None):
            self.close()


class _MultiWorkerIter(_WindowIter):
    """Batches from worker processes."""

    def __init__(self, loader: DataLoader, pool: WorkerPool, window: int) -> None:
        self._pool = pool
        super().__init__(loader, min(window, pool.room))

    def _submit(self, batch: Any) -> int:
        return self._pool.submit(batch)

    def _result(self, ticket: int) -> Any:
        return self._pool.collect(ticket, self._loader._timeout)

    def _forget(self, ticket: int) -> None:
        self._pool.abandon(ticket)


class _ThreadIter(_WindowIter):
    """Batches from worker threads."""

    def __init__(self, loader: DataLoader, pool: concurrent.futures.Executor, window: int) -> None:
        self._pool = pool
        super().__init__(loader, window)

    def _submit(self, batch: Any) -> concurrent.futures.Future[Any]:
        return self._pool.submit(self._loader._fetch, batch)

    def _result(self, ticket: concurrent.futures.Future[Any]) -> Any:
        try:
            return ticket.result(self._loader._timeout)
        except concurrent.futures.TimeoutError:
            if ticket.done():
                raise  # The dataset itself raised a TimeoutError.
            raise multiprocessing.TimeoutError(
                f"DataLoader: no batch from a worker thread within {self._loader._timeout} seconds; "
                "raise `timeout`, or look for a dataset or batchify_fn that blocks"
            ) from None

    def _forget(self, ticket: concurrent.futures.Future[Any]) -> None:
        ticket.cancel()


class DataLoader:
    """Loads a dataset in batches.

    Parameters
    ----------
    dataset : Dataset, or anything with a length and items (a list, a NumPy array, an NDArray)
    batch_size : int, at least 1; required unless `batch_sampler` is given
    shuffle : visit the items in a new random order each epoch (NumPy's global generator)
    sampler : Sampler of indices, in place of `shuffle`
    last_batch : `'keep'` (default), `'discard'` or `'rollover'`, see `BatchSampler`
    batch_sampler : iterable of lists of indices, in place of the four arguments before it
    batchify_fn : function from a list of samples to a batch; `default_batchify_fn` stacks them
    num_workers : number of worker processes, or threads with `thread_pool`; 0 works in the calling thread
    pin_memory : put batches into page-locked memory for device `pin_device_id`
    prefetch : batches made ahead by workers, `2 * num_workers` by default
    thread_pool : use threads. They share memory with the caller and need nothing picklable, and help where
    the
        work is in operators or in files; processes help where it is in Python
    timeout : seconds to wait for one batch of a worker before multiprocessing.TimeoutError is raised
    auto_reload : start making the next epoch's first batches as soon as an epoch ends
    try_nopython : accepted for programs written for MXNet 2; the fast path is chosen by the data here

    Raises ValueError for arguments that contradict each other or are out of range. An error in a worker is
    raised
    by the iteration, with the worker's traceback as its cause; a worker that is killed makes it raise
    RuntimeError.
    Workers see the dataset as it was at the first iteration. Their random generators are seeded from the
    state of
    NumPy's, each differently.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = None,
        shuffle: bool = False,
        sampler: Any = None,
        last_batch: str | None = None,
        batch_sampler: Any = None,
        batchify_fn: Callable[[Any], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        pin_device_id: int = 0,
        prefetch: int | None = None,
        thread_pool: bool = False,
        timeout: float = 120,
        auto_reload: bool = False,
        try_nopython: bool | None = None,
    ) -> None:
        if timeout <= 0:
            raise AssertionError(f"DataLoader: timeout must be positive, given {timeout}")
        if batchify_fn is not None and not callable(batchify_fn):
            raise TypeError(f"DataLoader: batchify_fn must be callable, got {batchify_fn!r}")
        self._dataset = dataset
        self._pin_memory = pin_memory
        self._pin_device_id = pin_device_id
        self._thread_pool = thread_pool
        self._timeout = timeout
        self._batch_sampler = _make_batch_sampler(
            dataset, batch_size, shuffle, sampler, last_batch, batch_sampler
        )
        self._num_workers = max(0, operator.index(num_workers))
        self._prefetch = max(0, 2 * self._num_workers if prefetch is None else operator.index(prefetch))
        self._batchify_fn = batchify_fn or (
            default_mp_batchify_fn if self._num_workers else default_batchify_fn
        )
        self._fetch = _Fetch(dataset, self._batchify_fn)
        self._worker_pool: Any = None
        self._pool_closer: weakref.finalize | None = None
        self.auto_reload = auto_reload
        self._iter: _WindowIter | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._num_workers == 0:
            return self._in_this_thread()
        if self._iter is not None:
            waiting, self._iter = self._iter, None
            return waiting
        return self._start_workers()

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def refresh(self) -> None:
        """Starts making the batches of the next epoch now. Without workers it does nothing."""
        self.clean()
        if self._num_workers > 0:
            self._iter = self._start_workers()

    def clean(self) -> None:
        """Throws away what `refresh` or `auto_reload` has started."""
        if self._iter is not None:
            self._iter.close()
            self._iter = None

    def close(self) -> None:
        """Ends the workers now, rather than when the loader is collected. A later epoch starts new ones."""
        self.clean()
        if self._pool_closer is not None:
            self._pool_closer()
        self._worker_pool = self._pool_closer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_worker_pool": None, "_pool_closer": None, "_iter": None}

    def _in_this_thread(self) -> Iterator[Any]:
        for batch in self._batch_sampler:
            yield self._finish(self._fetch(batch))

    def _finish(self, batch: Any) -> Any:
        return _pin(batch, self._pin_device_id) if self._pin_memory else batch

    def _epoch_ended(self) -> None:
        if self.auto_reload:
            self.refresh()

    def _start_workers(self) -> _WindowIter:
        if self._thread_pool:
            if self._worker_pool is None:
                self._worker_pool = concurrent.futures.ThreadPoolExecutor(self._num_workers, "mxrs-data")
                self._pool_closer = weakref.finalize(
                    self, self._worker_pool.shutdown, wait=False, cancel_futures=True
                )
            return _ThreadIter(self, self._worker_pool, self._prefetch)
        if self._worker_pool is None or self._worker_pool.closed:
            self._worker_pool = WorkerPool(self._num_workers, self._fetch.raw, wrap=self._fetch.default)
            self._pool_closer = weakref.finalize(self, self._worker_pool.close)
        return _MultiWorkerIter(self, self._worker_pool, self._prefetch)


def _make_batch_sampler(
    dataset: Any, batch_size: Any, shuffle: bool, sampler: Any, last_batch: str | None, batch_sampler: Any
) -> Any:
    if batch_sampler is not None:
        if batch_size is not None or shuffle or sampler is not None or last_batch is not None:
            raise ValueError(
                "batch_size, shuffle, sampler and last_batch must not be specified if batch_sampler is specified."
            )
        return batch_sampler
    if batch_size is None:
        raise ValueError("batch_size must be specified unless batch_sampler is specified")
    if sampler is None:
        if not hasattr(dataset, "__len__"):
            raise TypeError(
                f"DataLoader: dataset needs __len__ and __getitem__, as a Dataset, a list or an array has; "
                f"{type(dataset).__name__} has not"
            )
        sampler = (_sampler.RandomSampler if shuffle else _sampler.SequentialSampler)(len(dataset))
    elif shuffle:
        raise ValueError("shuffle must not be specified if sampler is specified")
    return _sampler.BatchSampler(sampler, batch_size, "keep" if last_batch is None else last_batch)
