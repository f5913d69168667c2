"""Worker processes for `DataLoader`: start, feed, collect, and end them without leaving anything behind.

One duplex pipe per worker and no lock or queue shared between processes, so that a worker that dies at any
moment
cannot block the others or the parent. Batches are dealt to workers in turn, which makes results reproducible
for
a given number of workers. What is computed in a worker is one call of the `fetch` function; how its result
travels
is the affair of `_transport`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import random
import secrets
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
import zlib
from collections import deque
from collections.abc import Callable
from multiprocessing import connection, resource_tracker
from typing import Any

import numpy as np

from ... import random as mx_random
from . import _transport

# Unread results per worker. Times _transport.INLINE_BYTES this stays below the 64 KiB that any pipe buffers,
# so a
# worker never blocks while sending, and the parent's sends therefore always find a reader.
MAX_UNDER_WAY = 32
_PARENT_POLL_SECONDS = 2.0
_GRACE_SECONDS = 0.5

# Ends that belong to this process. A forked worker inherits copies of all of them and must close them, or the
# workers forked before it would never see the end of their pipes.
_parent_ends: weakref.WeakSet[Any] = weakref.WeakSet()


class WorkerTraceback(Exception):
    """Carries the text of a traceback from another process, as the cause of the error raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def start_method() -> str:
    """The way workers are started: `MXRS_WORKER_START`, else fork on Linux and spawn elsewhere.

    Forked workers need no `if __name__ == "__main__"` in the user's script and no pickling of the dataset,
    which
    MXNet programs rely on, and the engine starts afresh in a forked child. On macOS system libraries do not
    survive a fork, and Windows has none. Raises ValueError for a method this platform does not have.
    """
    asked = os.environ.get("MXRS_WORKER_START") or ("fork" if sys.platform.startswith("linux") else "spawn")
    methods = multiprocessing.get_all_start_methods()
    if asked not in methods:
        raise ValueError(f"MXRS_WORKER_START must be one of {', '.join(methods)}, got {asked!r}")
    return asked


def _base_seed() -> int:
    """A number that depends on NumPy's global generator and leaves that generator as it is."""
    state: Any = np.random.get_state()
    return zlib.crc32(state[1].tobytes() + str(state[2]).encode())


def _seed_everything(seed: int) -> None:
    """Gives this worker random numbers of its own: a forked generator would repeat its siblings'
    augmentation.
    """
    words = np.random.SeedSequence(seed).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    mx_random.seed(int(words[2]) >> 1)


def _send_result(pipe: Any, task: int, name: str, result: Any, wrap: bool) -> Any:
    blob, segment = _transport.pack(result, name, wrap)
    if segment is None:
        pipe.send((task, "inline", blob))
        return None
    pipe.send((task, "segment", None))
    if os.name == "nt":
        return segment  # Windows removes a segment with its last handle, so the caller keeps this one for a while.
    segment.close()
    return None


def _send_error(pipe: Any, task: int, name: str, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__traceback__ = None
    blob, segment = _transport.pack((error, text), name, wrap=False)
    pipe.send((task, "error" if segment is None else "error-segment", blob))
    if segment is not None:
        segment.close()


def worker_main(
    pipe: Any, prefix: str, parent: int, seed: int, fetch: Callable[[Any], Any], wrap: bool
) -> None:
    """Body of a worker: takes `(task, indices)` from the pipe until None, end of file, or the parent is gone."""
    for end in list(_parent_ends):
        end.close()
    # Ctrl-C reaches the whole group; the parent alone answers it and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _seed_everything(seed)
    kept: deque[Any] = deque(maxlen=MAX_UNDER_WAY)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            while not pipe.poll(_PARENT_POLL_SECONDS):
                if os.getppid() != parent:
                    return
            message = pipe.recv()
            if message is None:
                return
            task, indices = message
            name = f"{prefix}{task:x}"
            try:
                kept.append(_send_result(pipe, task, name, fetch(indices), wrap))
            except (BrokenPipeError, ConnectionResetError):
                _transport.discard_segment(name)
                return
            except Exception as error:
                _send_error(pipe, task, name, error)


class WorkerPool:
    """A fixed number of worker processes that run `fetch(indices)`.

    `submit` hands out a task, `collect` waits for its result, `abandon` says that nobody will ask for it.
    When a
    worker dies, every waiting `collect` raises RuntimeError and the pool is closed. Several iterators and
    threads
    may use one pool.
    """

    def __init__(self, workers: int, fetch: Callable[[Any], Any], wrap: bool) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._method = start_method()
        self._prefix = f"mxrs_{secrets.token_hex(5)}_"
        self._next_task = 0
        self._under_way: list[set[int]] = [set() for _ in range(workers)]
        self._arrived: dict[int, tuple[str, bytes | None]] = {}
        self._abandoned: set[int] = set()
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        self.closed = False
        # Both sides register segments; they must do so with one tracker, which has to exist before the fork.
        if os.name != "nt":
            resource_tracker.ensure_running()
        seeds = np.random.SeedSequence(_base_seed()).generate_state(workers)
        try:
            for seed in seeds:
                self._start_one(int(seed), fetch, wrap)
        except BaseException:
            self.close()
            raise

    def _start_one(self, seed: int, fetch: Callable[[Any], Any], wrap: bool) -> None:
        context = multiprocessing.get_context(self._method)
        ours, theirs = context.Pipe(duplex=True)
        _parent_ends.add(ours)
        self._pipes.append(ours)
        arguments = (theirs, self._prefix, os.getpid(), seed, fetch, wrap)
        process = context.Process(  # type: ignore[attr-defined]
            target=worker_main, args=arguments, daemon=True, name=f"mxrs-data-{len(self._processes)}"
        )
        with warnings.catch_warnings(), theirs:
            # Python warns that a fork of a process with threads may deadlock in the child. The threads here
            # are
            # the engine's, which the child does not use: it starts with a fresh engine.
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            try:
                process.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise RuntimeError(
                    f"DataLoader: the dataset or batchify_fn cannot be sent to a worker process ({error}). Start method "
                    f"{self._method!r} needs them picklable: use module-level functions and classes in place of "
                    "lambdas and local ones, or pass thread_pool=True"
                ) from error
        self._processes.append(process)

    @property
    def room(self) -> int:
        """Tasks that may be under way at once."""
        return MAX_UNDER_WAY * len(self._under_way)

    def submit(self, indices: Any) -> int:
        """Queues `fetch(indices)` and returns the number to `collect` it by."""
        with self._lock:
            task = self._next_task
            worker = task % len(self._under_way)
            while len(self._under_way[worker]) >= MAX_UNDER_WAY:
                self._receive(None)
            self._next_task += 1
            self._under_way[worker].add(task)
            try:
                self._pipes[worker].send((task, indices))
            except (BrokenPipeError, ConnectionResetError):
                self._fail(worker)
            return task

    def collect(self, task: int, timeout: float) -> Any:
        """The result of a task. Raises what the task raised, with the worker's traceback as cause;
        RuntimeError
        when a worker died; multiprocessing.TimeoutError after `timeout` seconds without a result.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                if task in self._arrived:
                    kind, blob = self._arrived.pop(task)
                    break
                if self.closed:
                    raise RuntimeError("DataLoader: its worker processes have been shut down")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise multiprocessing.TimeoutError(
                        f"DataLoader: no batch from worker {task % len(self._under_way)} within {timeout} seconds; "
                        "raise `timeout`, or look for a dataset or batchify_fn that blocks"
                    )
                self._receive(left)
        name = f"{self._prefix}{task:x}"
        result = _transport.unpack_segment(name) if blob is None else _transport.unpack_inline(blob)
        if kind.startswith("error"):
            error, text = result
            raise error from WorkerTraceback(text)
        return result

    def abandon(self, task: int) -> None:
        """Says that the result of a task will not be collected; it is thrown away when it comes."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if task in self._arrived:
                self._throw_away(task)
            elif not self.closed:
                self._abandoned.add(task)

    def _throw_away(self, task: int) -> None:
        _, blob = self._arrived.pop(task)
        if blob is None:
            _transport.discard_segment(f"{self._prefix}{task:x}")

    def _receive(self, timeout: float | None) -> None:
        """Waits for at least one message or death, and files what has come."""
        sentinels = {process.sentinel: worker for worker, process in enumerate(self._processes)}
        pipes = {id(pipe): worker for worker, pipe in enumerate(self._pipes)}
        try:
            ready = connection.wait([*self._pipes, *sentinels], timeout)
            for worker in {pipes[id(item)] for item in ready if id(item) in pipes}:
                self._drain(worker)
        except KeyboardInterrupt:
            # It may have come between the two halves of a message: these pipes cannot be trusted any more.
            self.close()
            raise
        for item in ready:
            if isinstance(item, int) and item in sentinels:
                self._drain(sentinels[item])
                self._fail(sentinels[item])

    def _drain(self, worker: int) -> None:
        with contextlib.suppress(EOFError, ConnectionResetError, OSError):
            while self._pipes[worker].poll():
                task, kind, blob = self._pipes[worker].recv()
                self._under_way[worker].discard(task)
                self._arrived[task] = (kind, blob)
                if task in self._abandoned:
                    self._abandoned.discard(task)
                    self._throw_away(task)

    def _fail(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(_GRACE_SECONDS)
        code = process.exitcode
        if code is not None and code < 0:
            try:
                how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
            except ValueError:
                how = f"was killed by signal {-code}"
            hint = "; the system may be out of memory (SIGKILL) or shared memory (SIGBUS)"
        else:
            how, hint = f"exited with code {code}", ""
            if self._method != "fork":
                hint = '; a script that uses workers must start its work under `if __name__ == "__main__":`'
        pid = process.pid
        self.close()
        raise RuntimeError(f"DataLoader: worker process {worker} (pid {pid}) {how}{hint}")

    def close(self) -> None:
        """Ends the workers and removes every segment they may have left. May be called twice."""
        if self.closed or os.getpid() != self._owner:
            return
        self.closed = True
        for pipe in self._pipes:
            with contextlib.suppress(OSError, ValueError):
                pipe.send(None)
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for stop in ("terminate", "kill"):
            for process in self._processes:
                if process.exitcode is None:
                    getattr(process, stop)()
                    process.join(5.0)
        for worker, pipe in enumerate(self._pipes):
            if worker < len(self._processes):
                self._drain(worker)
            pipe.close()
        left = {task for tasks in self._under_way for task in tasks} | set(self._arrived)
        self._arrived.clear()
        for task in left:
            _transport.discard_segment(f"{self._prefix}{task:x}")
        for process in self._processes:
            if process.exitcode is not None:
                process.close()
        self._processes.clear()
