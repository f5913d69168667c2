"""`Monitor`: statistics of what a network computes, every few batches.

It is told of every operator's output through `set_monitor_callback` of an executor (`Module.install_monitor`
installs it on all of a module's) or `register_op_hook` of a Gluon block, and reads the arguments itself.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from . import ndarray as nd
from .ndarray import NDArray

__all__ = ["Monitor"]


def _mean_size(array: NDArray) -> NDArray:
    """The root mean square of the elements."""
    return nd.norm(array) / math.sqrt(max(array.size, 1))


class Monitor:
    """Collects a statistic of outputs, parameters and auxiliary states.

    Parameters
    ----------
    interval : int
        Batches from one collection to the next.
    stat_func : callable, optional
        Maps an array to an array, or to a list of them; the root mean square by default.
    pattern : str
        Regular expression that a name has to begin with.
    sort : bool
        Give results in the order of their names instead of that of computing.
    monitor_all : bool
        Collect the inputs of operators too.
    """

    def __init__(
        self,
        interval: int,
        stat_func: Callable[[NDArray], Any] | None = None,
        pattern: str = ".*",
        sort: bool = False,
        monitor_all: bool = False,
    ) -> None:
        if interval < 1:
            raise ValueError(f"Monitor: interval must be at least 1 batch, given {interval}")
        self.interval = interval
        self.stat_func = _mean_size if stat_func is None else stat_func
        self.activated = False
        self.queue: list[tuple[int, str, Any]] = []
        self.step = 0
        self.exes: list[Any] = []
        self.re_prog = re.compile(pattern)
        self.sort = sort
        self.monitor_all = monitor_all

    def stat_helper(self, name: str | bytes, array: NDArray, *rest: Any) -> None:
        """Note the statistic of one array; executors and blocks call this.

        Blocks pass the operator's name between the two, which is not used.
        """
        if rest:
            array = rest[0]
        if not self.activated:
            return
        name = name.decode() if isinstance(name, bytes) else name
        if self.re_prog.match(name):
            self.queue.append((self.step, name, self.stat_func(array)))

    def install(self, exe: Any) -> None:
        """Watch an executor or a Gluon block.

        Raises TypeError for another object.
        """
        if hasattr(exe, "set_monitor_callback"):
            exe.set_monitor_callback(self.stat_helper, self.monitor_all)
        elif hasattr(exe, "register_op_hook"):
            exe.register_op_hook(self.stat_helper, self.monitor_all)
        else:
            raise TypeError(
                f"Monitor.install: an Executor or a gluon.Block is needed, given {type(exe).__name__}; "
                "for a Module call module.install_monitor(monitor)"
            )
        self.exes.append(exe)

    def tic(self) -> None:
        """Begin a batch. Call before `forward`."""
        if self.step % self.interval == 0:
            for array in self._held():
                array.wait_to_read()
            self.queue = []
            self.activated = True
        self.step += 1

    def toc(self) -> list[tuple[int, str, str]]:
        """End a batch: (number of the batch from 1, name, statistic as text) for everything collected.

        Empty where this batch was not one to collect.
        """
        if not self.activated:
            return []
        for exe in self.exes:
            for name, array in _named(exe):
                if self.re_prog.match(name):
                    self.queue.append((self.step, name, self.stat_func(array)))
        self.activated = False
        found = sorted(self.queue, key=lambda entry: entry[1]) if self.sort else self.queue
        result = [(step, name, _text(name, value)) for step, name, value in found]
        self.queue = []
        return result

    def toc_print(self) -> None:
        """End a batch and log what `toc` gives."""
        for step, name, text in self.toc():
            logging.info("Batch: %7d %-30s %s", step, name, text)

    def _held(self) -> list[NDArray]:
        return [array for exe in self.exes for _, array in _named(exe)]


def _named(exe: Any) -> list[tuple[str, NDArray]]:
    """Arguments and auxiliary states of an executor, or the initialized parameters of a block."""
    if hasattr(exe, "arg_dict"):
        return [*exe.arg_dict.items(), *exe.aux_dict.items()]
    # A parameter that waits for its shape has no context yet.
    ready = [param for param in exe.collect_params().values() if getattr(param, "_data", None)]
    return [(param.name, param.list_data()[0]) for param in ready]


def _text(name: str, value: Any) -> str:
    """Each array's value and a tab behind it."""
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    parts = []
    for array in values:
        if not isinstance(array, NDArray):
            raise AssertionError(
                f"Monitor: stat_func must give an NDArray or a list of them; for {name!r} it gave "
                f"{type(array).__name__}"
            )
        parts.append(str(array.asscalar() if array.shape in ((1,), ()) else array.asnumpy()) + "\t")
    return "".join(parts)
