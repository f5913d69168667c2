"""Iterators over other iterators: `ResizeIter` gives an epoch another length, `PrefetchingIter` fetches ahead
in threads.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from ..context import current_context
from .batch import DataBatch, DataDesc, DataIter

__all__ = ["PrefetchingIter", "ResizeIter"]


class ResizeIter(DataIter):
    """Makes an epoch of `data_iter` exactly `size` batches long, starting it over as often as needed.

    With `reset_internal=False` a reset goes on where the last epoch stopped. Raises ValueError from `next`
    where `data_iter` gives no batch at all.
    """

    def __init__(self, data_iter: DataIter, size: int, reset_internal: bool = True) -> None:
        super().__init__()
        self.data_iter = data_iter
        self.size = size
        self.reset_internal = reset_internal
        self.cur = 0
        self.current_batch: DataBatch | None = None
        self.provide_data = data_iter.provide_data  # type: ignore[attr-defined]
        self.provide_label = data_iter.provide_label  # type: ignore[attr-defined]
        self.batch_size = data_iter.batch_size
        if hasattr(data_iter, "default_bucket_key"):
            self.default_bucket_key = data_iter.default_bucket_key

    def reset(self) -> None:
        """Start the next epoch."""
        self.cur = 0
        if self.reset_internal:
            self.data_iter.reset()

    def iter_next(self) -> bool:
        """Go to the next batch; False after `size` of them."""
        if self.cur == self.size:
            return False
        try:
            self.current_batch = self.data_iter.next()
        except StopIteration:
            self.data_iter.reset()
            try:
                self.current_batch = self.data_iter.next()
            except StopIteration:
                raise ValueError(
                    f"ResizeIter: {type(self.data_iter).__name__} gives no batch, even after a reset"
                ) from None
        self.cur += 1
        return True

    def next(self) -> Any:
        """The next batch, as the inner iterator made it."""
        if not self.iter_next():
            raise StopIteration
        return self.current_batch

    def _current(self) -> DataBatch:
        if self.current_batch is None:
            raise RuntimeError("ResizeIter: there is no current batch; call next() or iter_next() first")
        return self.current_batch

    def getdata(self) -> Any:
        """The data of the current batch."""
        return self._current().data

    def getlabel(self) -> Any:
        """The labels of the current batch."""
        return self._current().label

    def getindex(self) -> Any:
        """The numbers of the current batch's examples, or None."""
        return self._current().index

    def getpad(self) -> Any:
        """How many examples of the current batch only fill it up."""
        return self._current().pad


class _Fetcher:
    """A thread that keeps one batch of one iterator ready.

    The two events pass the batch back and forth: the thread owns it while `taken` is set, the consumer while
    `ready` is. The thread knows this object alone, so that the `PrefetchingIter` can be freed.
    """

    def __init__(self, source: DataIter) -> None:
        self.source = source
        self.batch: DataBatch | None = None
        self.error: BaseException | None = None
        self.running = True
        self.ready = threading.Event()
        self.taken = threading.Event()
        self.taken.set()
        # Contexts belong to threads; arrays shall be made where the consumer would have made them.
        self._context = current_context()
        self.thread = threading.Thread(target=self._run, name="mxrs-prefetch", daemon=True)
        self.thread.start()
        _FETCHERS.add(self)

    def _run(self) -> None:
        with self._context:
            while True:
                self.taken.wait()
                if not self.running:
                    return
                self.batch = None
                try:
                    self.batch = self.source.next()
                except StopIteration:
                    pass
                except BaseException as error:
                    self.error = error
                self.taken.clear()
                self.ready.set()

    def get(self) -> DataBatch | None:
        """Waits for the batch; None at the end, or where `error` says what went wrong."""
        self.ready.wait()
        return self.batch

    def go_on(self) -> None:
        """Lets the thread fetch the next batch."""
        self.error = None
        self.ready.clear()
        self.taken.set()

    def stop(self) -> None:
        """Ends the thread after the batch it may be making."""
        self.running = False
        self.taken.set()


_FETCHERS: weakref.WeakSet[_Fetcher] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # A thread inside native code while the interpreter goes away may crash; one that hangs must not hang exit.
    fetchers = list(_FETCHERS)
    for fetcher in fetchers:
        fetcher.stop()
    for fetcher in fetchers:
        fetcher.thread.join(timeout=2.0)


class PrefetchingIter(DataIter):
    """Fetches the next batch of one or several iterators in threads while the current one is used.

    The arrays of several iterators stand one after another in each batch; all must give equally many batches.
    What an iterator raises in its thread is raised by `next` here. The iterators must not be used elsewhere
    meanwhile.

    Parameters
    ----------
    iters : DataIter or list of DataIter
    rename_data, rename_label : list of dicts, one per iterator
        New names of arrays by old ones; a name that is not in the dict stays.
    """

    def __init__(
        self,
        iters: DataIter | Sequence[DataIter],
        rename_data: Sequence[Mapping[str, str]] | None = None,
        rename_label: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__()
        self._fetchers: list[_Fetcher] = []
        self.iters: list[Any] = list(iters) if isinstance(iters, list | tuple) else [iters]
        self.n_iter = len(self.iters)
        if not self.iters:
            raise AssertionError("PrefetchingIter: at least one iterator is needed")
        for name, table in (("rename_data", rename_data), ("rename_label", rename_label)):
            if table is not None and (isinstance(table, Mapping) or len(table) != self.n_iter):
                raise ValueError(
                    f"PrefetchingIter: {name} must be a list of {self.n_iter} dicts, one per iterator, got "
                    f"{table!r}"
                )
        self.rename_data = rename_data
        self.rename_label = rename_label
        self.batch_size = self.provide_data[0][1][0]
        self.current_batch: DataBatch | None = None
        self.started = True
        self._fetchers = [_Fetcher(source) for source in self.iters]

    @property
    def prefetch_threads(self) -> list[threading.Thread]:
        """The threads, one per iterator."""
        return [fetcher.thread for fetcher in self._fetchers]

    @property
    def data_ready(self) -> list[threading.Event]:
        """Events that are set while a batch waits to be used."""
        return [fetcher.ready for fetcher in self._fetchers]

    @property
    def data_taken(self) -> list[threading.Event]:
        """Events that are set while a batch is being made."""
        return [fetcher.taken for fetcher in self._fetchers]

    @property
    def next_batch(self) -> list[DataBatch | None]:
        """The batches that wait, or the last ones."""
        return [fetcher.batch for fetcher in self._fetchers]

    @property
    def provide_data(self) -> list[DataDesc]:
        """Descriptions of a batch's data, with the new names."""
        return self._gather([it.provide_data for it in self.iters], self.rename_data)

    @property
    def provide_label(self) -> list[DataDesc]:
        """Descriptions of a batch's labels, with the new names."""
        return self._gather([it.provide_label for it in self.iters], self.rename_label)

    @staticmethod
    def _gather(parts: Sequence[Any], renames: Sequence[Mapping[str, str]] | None) -> list[DataDesc]:
        tables = renames if renames is not None else [{}] * len(parts)
        gathered = []
        for part, table in zip(parts, tables, strict=True):
            for desc in part or []:
                known = desc if isinstance(desc, DataDesc) else DataDesc(*desc)
                name = table.get(known.name, known.name)
                gathered.append(DataDesc(name, known.shape, known.dtype, known.layout))
        return gathered

    def reset(self) -> None:
        """Start over: waits for the threads, drops what they fetched, and resets the iterators."""
        for fetcher in self._fetchers:
            fetcher.ready.wait()
        for source in self.iters:
            source.reset()
        for fetcher in self._fetchers:
            fetcher.go_on()

    def iter_next(self) -> bool:
        """Go to the next batch; False at the end.

        Raises ValueError where only some iterators are at their end or their batches are padded differently,
        and whatever an iterator raised.
        """
        batches = [fetcher.get() for fetcher in self._fetchers]
        errors = [fetcher.error for fetcher in self._fetchers if fetcher.error is not None]
        if errors:
            # All go on, so that the iterators stay in step for a consumer that skips the batch.
            for fetcher in self._fetchers:
                fetcher.go_on()
            raise errors[0]
        present = [batch for batch in batches if batch is not None]
        if not present:
            return False
        if len(present) < len(batches):
            raise ValueError(
                "PrefetchingIter: the iterators give different numbers of batches; at their end are those at "
                f"the places {[i for i, batch in enumerate(batches) if batch is None]}"
            )
        first = present[0]
        if any(batch.pad != first.pad for batch in present):
            raise ValueError(
                f"PrefetchingIter: the iterators pad a batch by different numbers of examples: "
                f"{[batch.pad for batch in present]}"
            )
        self.current_batch = DataBatch(
            [array for batch in present for array in batch.data or []],
            [array for batch in present for array in batch.label or []],
            first.pad,
            first.index,
            bucket_key=first.bucket_key,
            provide_data=self._of_batches(present, "provide_data", self.rename_data),
            provide_label=self._of_batches(present, "provide_label", self.rename_label),
        )
        for fetcher in self._fetchers:
            fetcher.go_on()
        return True

    def _of_batches(
        self, batches: list[DataBatch], field: str, renames: Sequence[Mapping[str, str]] | None
    ) -> list[DataDesc]:
        # Batches of changing shape describe themselves; the iterator describes all others.
        parts = [
            own if (own := getattr(batch, field)) is not None else getattr(source, field)
            for batch, source in zip(batches, self.iters, strict=True)
        ]
        return self._gather(parts, renames)

    def next(self) -> Any:
        """The next batch; StopIteration at the end."""
        if not self.iter_next():
            raise StopIteration
        return self.current_batch

    def _current(self) -> DataBatch:
        if self.current_batch is None:
            raise RuntimeError("PrefetchingIter: there is no current batch; call next() or iter_next() first")
        return self.current_batch

    def getdata(self) -> Any:
        """The data of the current batch."""
        return self._current().data

    def getlabel(self) -> Any:
        """The labels of the current batch."""
        return self._current().label

    def getindex(self) -> Any:
        """The numbers of the current batch's examples, or None."""
        return self._current().index

    def getpad(self) -> Any:
        """How many examples of the current batch only fill it up."""
        return self._current().pad

    def __del__(self) -> None:
        self.started = False
        with contextlib.suppress(AttributeError):
            for fetcher in self._fetchers:
                fetcher.stop()
