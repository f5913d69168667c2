"""The profiler: which operators ran when, on which thread and how long, with the program's own events beside them.

The core notes operators while the profiler runs; `Task`, `Frame`, `Event`, `Counter` and `Marker` add what the
program marks. `dumps` gives statistics by name, as a table or JSON; `dump` writes a file that chrome://tracing and
ui.perfetto.dev open. Times of a trace are microseconds of `time.perf_counter`.

Each GPU has a row of its own with its dispatches, timed one by one by its clock, if it has one. `gpu_counts` says how
much was sent to it.
"""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from . import _core
from . import ndarray as nd
from ._files import write_whole
from .base import MXNetError
from .context import gpu_counts

__all__ = [
    "Counter",
    "Domain",
    "Event",
    "Frame",
    "Marker",
    "Task",
    "dump",
    "dump_profile",
    "dumps",
    "gpu_counts",
    "pause",
    "profiler_set_config",
    "profiler_set_state",
    "resume",
    "scope",
    "set_config",
    "set_kvstore_handle",
    "set_state",
    "start",
    "stop",
]

_DEFAULTS: dict[str, Any] = {
    "filename": "profile.json",
    "profile_all": False,
    "profile_symbolic": True,
    "profile_imperative": True,
    "profile_memory": True,
    "profile_api": True,
    "aggregate_stats": False,
    "continuous_dump": True,
    "dump_period": 1.0,
    "profile_process": "worker",
}
#: Categories of events that a switch of the configuration turns off.
_SWITCHES = {
    "symbolic": "profile_symbolic",
    "imperative": "profile_imperative",
    "memory": "profile_memory",
    "api": "profile_api",
}
#: A trace keeps this many events, some 200 MB; statistics go on counting.
_TRACE_LIMIT = 1_000_000
#: Events of GPUs have this category, and the device's number for a thread.
_GPU = "gpu"
_GPU_ROWS = 1_000_000
_HOOKS = ("profiler_start", "profiler_stop", "profiler_take")
_SORT_KEYS = {"total": 1, "avg": 4, "min": 2, "max": 3, "count": 0}


class _Span(NamedTuple):
    """Something that took time, in microseconds of `time.perf_counter`."""

    name: str
    category: str
    thread: int
    begin: float
    end: float
    bytes: int


def _now() -> float:
    return time.perf_counter() * 1e6


class _Statistics:
    """Count, total, least and most of the numbers noted under a category and a name."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[float]]] = {}

    def add(self, category: str, name: str, value: float) -> None:
        row = self.rows.setdefault(category, {}).setdefault(name, [0, 0.0, value, value])
        row[0] += 1
        row[1] += value
        row[2] = min(row[2], value)
        row[3] = max(row[3], value)

    def sorted(self, category: str, sort_by: str, ascending: bool) -> list[tuple[str, list[float]]]:
        """(name, [count, total, min, max, average]) of a category, in order."""
        table = [(name, [*row, row[1] / row[0]]) for name, row in self.rows[category].items()]
        return sorted(table, key=lambda item: item[1][_SORT_KEYS[sort_by]], reverse=not ascending)


class _Recorder:
    """What has been recorded, and whether recording goes on. One per process."""

    def __init__(self) -> None:
        self.config = dict(_DEFAULTS)
        self.running = False
        self.paused = False
        self.lock = threading.RLock()
        self.origin = 0.0
        self.written = False
        self.clear()

    def clear(self) -> None:
        """Forget the trace and the statistics."""
        self.spans: list[_Span] = []
        self.points: list[dict[str, Any]] = []
        self.dropped = 0
        self.clear_statistics()

    def clear_statistics(self) -> None:
        """Forget the statistics; the trace stays."""
        self.times = _Statistics()
        self.sizes = _Statistics()
        self.counters = _Statistics()

    @property
    def active(self) -> bool:
        return self.running and not self.paused

    def run(self) -> None:
        with self.lock:
            if self.running:
                return
            self._check_hooks()
            if self.written:
                # The file of the run before has its events; a new run starts a new trace.
                self.clear()
                self.written = False
            self.running, self.paused = True, False
            self._start_core()

    def stop(self) -> None:
        with self.lock:
            if not self.running:
                return
            if not self.paused:
                self._stop_core()
            self.running = self.paused = False
            if self.config["continuous_dump"]:
                self.write()

    def pause(self, paused: bool) -> None:
        with self.lock:
            if not self.running or paused == self.paused:
                return
            if paused:
                self._stop_core()
            else:
                self._start_core()
            self.paused = paused

    @staticmethod
    def _check_hooks() -> None:
        missing = [name for name in _HOOKS if not hasattr(_core, name)]
        if missing:
            raise NotImplementedError(
                f"mx.profiler: this build of mxrs records no operators yet; the core lacks {', '.join(missing)}"
            )

    def _start_core(self) -> None:
        # Work queued before belongs to the time before.
        nd.waitall()
        self.origin = _now()
        _core.profiler_start()

    def _stop_core(self) -> None:
        nd.waitall()
        self.drain()
        _core.profiler_stop()

    def drain(self) -> None:
        """Take over what the core has noted. Its times count from `profiler_start`."""
        with self.lock:
            if not self.active:
                return
            off = {category for category, key in _SWITCHES.items() if not self.config[key]}
            if self.config["profile_all"]:
                off = set()
            taken = _core.profiler_take()
            self.add(
                _Span(name, category, thread, begin + self.origin, end + self.origin, size)
                for name, category, thread, begin, end, size in taken
                if category not in off
            )

    def add(self, spans: Iterable[_Span]) -> None:
        with self.lock:
            for span in spans:
                self.times.add(span.category, span.name, (span.end - span.begin) / 1e3)
                if span.bytes:
                    self.sizes.add(span.category, span.name, span.bytes / 1024)
                self._keep(self.spans, span)

    def point(self, event: dict[str, Any]) -> None:
        with self.lock:
            self._keep(self.points, event)

    def _keep(self, where: list[Any], event: Any) -> None:
        if len(self.spans) + len(self.points) < _TRACE_LIMIT:
            where.append(event)
        else:
            self.dropped += 1

    def trace(self) -> dict[str, Any]:
        """The trace in the Trace Event Format of Chrome."""
        pid = os.getpid()
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": "mxrs"}}
        ]
        for number in sorted({span.thread for span in self.spans if span.category == _GPU}):
            row = {"ph": "M", "pid": pid, "tid": _GPU_ROWS + number}
            events.append({**row, "name": "thread_name", "args": {"name": f"gpu({number})"}})
            events.append({**row, "name": "thread_sort_index", "args": {"sort_index": _GPU_ROWS + number}})
        for span in self.spans:
            event = {
                "name": span.name,
                "cat": span.category,
                "ph": "X",
                "ts": span.begin,
                "dur": span.end - span.begin,
                "pid": pid,
                "tid": span.thread + (_GPU_ROWS if span.category == _GPU else 0),
            }
            if span.bytes:
                event["args"] = {"bytes": span.bytes}
            events.append(event)
        events.extend({**point, "pid": pid} for point in self.points)
        return {
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {"events left out": self.dropped} if self.dropped else {},
        }

    def write(self) -> None:
        with self.lock:
            self.drain()
            write_whole(self.config["filename"], json.dumps(self.trace()).encode())


_recorder = _Recorder()


# ---- control -----------------------------------------------------------------------------------------------


def set_config(**kwargs: Any) -> None:
    """Set options; those not named keep their values.

    `filename` is where `dump` writes ('profile.json'). `profile_symbolic`, `profile_imperative`, `profile_memory`
    and `profile_api` choose what of the core is kept, `profile_all` everything. `continuous_dump`, on by default,
    writes the file whenever the profiler stops. `aggregate_stats` and `dump_period` are accepted: statistics are always
    there.

    Raises MXNetError for an unknown option.
    """
    for name, value in kwargs.items():
        if name not in _DEFAULTS:
            raise MXNetError(
                f"profiler.set_config: unknown option '{name}'; known are {', '.join(_DEFAULTS)}"
            )
        if name == "profile_process":
            _check_process(value)
        elif name == "filename":
            value = os.fspath(value)
        elif name != "dump_period":
            value = bool(value)
        kwargs[name] = value
    _recorder.config.update(kwargs)


def _check_process(profile_process: str) -> None:
    if profile_process not in ("worker", "server"):
        raise KeyError(f"profile_process must be 'worker' or 'server', got {profile_process!r}")
    if profile_process == "server":
        raise NotImplementedError(
            "mx.profiler: stores that span machines, and so their servers, are not built yet"
        )


def set_state(state: str = "stop", profile_process: str = "worker") -> None:
    """'run' starts recording, 'stop' ends it; both wait for what is queued.

    Raises KeyError for another word, NotImplementedError where the core has no profiler.
    """
    if state not in ("run", "stop"):
        raise KeyError(f"profiler.set_state: state must be 'run' or 'stop', got {state!r}")
    _check_process(profile_process)
    if state == "run":
        _recorder.run()
    else:
        _recorder.stop()


def start(profile_process: str = "worker") -> None:
    """`set_state('run')`."""
    set_state("run", profile_process)


def stop(profile_process: str = "worker") -> None:
    """`set_state('stop')`."""
    set_state("stop", profile_process)


def pause(profile_process: str = "worker") -> None:
    """Record nothing until `resume`."""
    _check_process(profile_process)
    _recorder.pause(True)


def resume(profile_process: str = "worker") -> None:
    """Go on recording after `pause`."""
    _check_process(profile_process)
    _recorder.pause(False)


def set_kvstore_handle(handle: Any) -> None:
    """Name the store whose servers are profiled. There are none, so this changes nothing."""


def profiler_set_config(mode: str = "symbolic", filename: str = "profile.json") -> None:
    """Old name of `set_config`: `mode` is 'symbolic', 'imperative', 'api', 'memory' or 'all'."""
    warnings.warn("profiler_set_config is deprecated, use set_config", DeprecationWarning, stacklevel=2)
    modes = {"symbolic", "imperative", "api", "memory", "all"}
    if mode not in modes:
        raise MXNetError(f"profiler_set_config: mode must be one of {sorted(modes)}, got {mode!r}")
    chosen = {key: mode in (name, "all") for name, key in _SWITCHES.items()}
    set_config(profile_all=mode == "all", filename=filename, **chosen)


def profiler_set_state(state: str = "stop") -> None:
    """Old name of `set_state`."""
    warnings.warn("profiler_set_state is deprecated, use set_state", DeprecationWarning, stacklevel=2)
    set_state(state)


# ---- results -----------------------------------------------------------------------------------------------


def dump(finished: bool = True, profile_process: str = "worker") -> None:
    """Write the trace to the configured file, in one step. If `finished`, the next run starts a new trace."""
    _check_process(profile_process)
    _recorder.write()
    _recorder.written = finished


def dump_profile() -> None:
    """Old name of `dump`."""
    warnings.warn("dump_profile is deprecated, use dump", DeprecationWarning, stacklevel=2)
    dump()


def dumps(reset: bool = False, format: str = "table", sort_by: str = "total", ascending: bool = False) -> str:
    """Statistics by category and name.

    Parameters
    ----------
    reset : bool
        Start new statistics afterwards.
    format : str
        'table', or 'json': {"Time": {category: {name: {"Count", "Total", "Min", "Max", "Avg"}}}, "Memory": the
        same, "Unit": {"Time": "ms", "Memory": "KB"}}.
    sort_by : str
        'total', 'avg', 'min', 'max' or 'count'; the largest first unless `ascending`.

    Raises AssertionError for other words.
    """
    if format not in ("table", "json"):
        raise AssertionError(f"Invalid value provided for format: {format}. Support: 'table', 'json'")
    if sort_by not in _SORT_KEYS:
        raise AssertionError(
            f"Invalid value provided for sort_by: {sort_by}. Support: 'total', 'avg', 'min', 'max', 'count'"
        )
    with _recorder.lock:
        _recorder.drain()
        text = _as_json(sort_by, ascending) if format == "json" else _as_table(sort_by, ascending)
        if reset:
            _recorder.clear_statistics()
    return text


def _as_json(sort_by: str, ascending: bool) -> str:
    def part(statistics: _Statistics) -> dict[str, Any]:
        keys = ("Count", "Total", "Min", "Max", "Avg")
        return {
            category: {
                name: dict(zip(keys, row)) for name, row in statistics.sorted(category, sort_by, ascending)
            }
            for category in sorted(statistics.rows)
        }

    return json.dumps(
        {
            "Time": part(_recorder.times),
            "Memory": part(_recorder.sizes),
            "Counter": part(_recorder.counters),
            "Unit": {"Time": "ms", "Memory": "KB"},
        },
        indent=4,
    )


def _as_table(sort_by: str, ascending: bool) -> str:
    lines = ["Profile Statistics"]
    for title, statistics, unit in (
        ("Time of", _recorder.times, "ms"),
        ("Memory of", _recorder.sizes, "KB"),
        ("Counters of", _recorder.counters, ""),
    ):
        for category in sorted(statistics.rows):
            suffix = f" ({unit})" if unit else ""
            heads = ["Total Count", *(f"{word}{suffix}" for word in ("Total", "Min", "Max", "Avg"))]
            lines += ["", f"{title} {category}", f"{'Name':<40}" + "".join(f"{head:>16}" for head in heads)]
            for name, (count, *row) in statistics.sorted(category, sort_by, ascending):
                shown = name if len(name) < 40 else f"{name[:36]}..."
                lines.append(f"{shown:<40}{int(count):>16}" + "".join(f"{value:>16.4f}" for value in row))
    return "\n".join(lines) + "\n"


# ---- the program's own events ------------------------------------------------------------------------------


class Domain:
    """A group of the program's events; its name is their category in a trace."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def new_task(self, name: str) -> Task:
        """A `Task` of this domain."""
        return Task(self, name)

    def new_frame(self, name: str) -> Frame:
        """A `Frame` of this domain."""
        return Frame(self, name)

    def new_counter(self, name: str, value: float | None = None) -> Counter:
        """A `Counter` of this domain."""
        return Counter(self, name, value)

    def new_marker(self, name: str) -> Marker:
        """A `Marker` of this domain."""
        return Marker(self, name)


class _Timed:
    """Something with a start and a stop, recorded if the profiler runs at the stop."""

    def __init__(self, category: str, name: str) -> None:
        self.name = name
        self._category = category
        self._begin: float | None = None

    def start(self) -> None:
        """Begin; a second call begins anew."""
        self._begin = _now()

    def stop(self) -> None:
        """End. Without a start it does nothing."""
        begin, self._begin = self._begin, None
        if begin is not None and _recorder.active:
            _recorder.add([_Span(self.name, self._category, threading.get_ident(), begin, _now(), 0)])

    def __str__(self) -> str:
        return self.name


class Task(_Timed):
    """A piece of work, such as one mini-batch: `start()`, `stop()`."""

    def __init__(self, domain: Domain, name: str) -> None:
        super().__init__(str(domain), name)


class Frame(_Timed):
    """One round of something that repeats: `start()`, `stop()`."""

    def __init__(self, domain: Domain, name: str) -> None:
        super().__init__(str(domain), name)


class Event(_Timed):
    """A piece of work outside any domain: `start()`, `stop()`."""

    def __init__(self, name: str) -> None:
        super().__init__("event", name)


class Counter:
    """A number that changes; its course stands in the trace. `counter += 1` works too."""

    def __init__(self, domain: Domain, name: str, value: float | None = None) -> None:
        self.name = name
        self._domain = str(domain)
        self._value: float = 0
        if value is not None:
            self.set_value(value)

    def set_value(self, value: float) -> None:
        """The number is `value` from now on."""
        self._value = value
        if _recorder.active:
            with _recorder.lock:
                _recorder.counters.add(self._domain, self.name, float(value))
            _recorder.point(
                {"name": self.name, "cat": self._domain, "ph": "C", "ts": _now(), "tid": 0,
                 "args": {self.name: value}}
            )  # fmt: skip

    def increment(self, delta: float = 1) -> None:
        """Add `delta`."""
        self.set_value(self._value + delta)

    def decrement(self, delta: float = 1) -> None:
        """Subtract `delta`."""
        self.set_value(self._value - delta)

    def __iadd__(self, delta: float) -> Counter:
        self.increment(delta)
        return self

    def __isub__(self, delta: float) -> Counter:
        self.decrement(delta)
        return self

    def __str__(self) -> str:
        return self.name


class Marker:
    """A moment: `mark()`."""

    _SCOPES = {"global": "g", "process": "p", "thread": "t", "task": "t", "marker": "t"}

    def __init__(self, domain: Domain, name: str) -> None:
        self.domain = domain
        self.name = name

    def mark(self, scope: str = "process") -> None:
        """Note the present moment, for `scope`: 'global', 'process', 'thread', 'task' or 'marker'.

        Raises MXNetError for another word.
        """
        if scope not in self._SCOPES:
            raise MXNetError(f"Marker.mark: scope must be one of {sorted(self._SCOPES)}, got {scope!r}")
        if _recorder.active:
            _recorder.point(
                {"name": self.name, "cat": str(self.domain), "ph": "i", "ts": _now(),
                 "tid": threading.get_ident(), "s": self._SCOPES[scope]}
            )  # fmt: skip

    def __str__(self) -> str:
        return self.name


_scopes = threading.local()


@contextmanager
def scope(name: str = "<unk>:", append_mode: bool = True) -> Iterator[str]:
    """Record the time spent in a ``with`` block under `name`; inside another scope, after its name.

    Gives the whole name. `append_mode=False` leaves the outer name out.
    """
    name = name if name.endswith(":") else f"{name}:"
    outer = getattr(_scopes, "name", "")
    whole = outer + name if append_mode else name
    timed = _Timed("scope", whole)
    _scopes.name = whole
    timed.start()
    try:
        yield whole
    finally:
        _scopes.name = outer
        timed.stop()
