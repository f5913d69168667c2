"""A bar that shows how far an epoch is, on a terminal and nowhere else.

It is drawn on standard error by `tqdm` where that is installed and by a few lines of this file otherwise.
Lines of the log that go to the same terminal push it aside: it is wiped before each and drawn again after.
`MXRS_PROGRESS=0` turns it off.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "batches_in", "progress"]

_REDRAW_SECONDS = 0.1
_BAR_LENGTH = 24

Report = Callable[[], Iterable[tuple[str, Any]]]


class Progress:
    """The bar that is not shown. Subclasses draw."""

    def begin(self, epoch: int, batches: int | None) -> None:
        """An epoch of `batches` batches begins; None where the number is not known."""

    def step(self, report: Report) -> None:
        """A batch is done; `report` gives names and values to show."""

    def wipe(self) -> None:
        """Make room for a line of text."""

    def end(self) -> None:
        """The epoch is over."""


class _PlainBar(Progress):
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._shown = False
        self._epoch = self._done = 0
        self._start = self._drawn = 0.0
        self._batches: int | None = None

    def begin(self, epoch: int, batches: int | None) -> None:
        self._epoch, self._batches, self._done = epoch, batches, 0
        self._start = self._drawn = time.monotonic()

    def step(self, report: Report) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        columns = shutil.get_terminal_size().columns
        self._stream.write("\r" + self._text(now, report)[: columns - 1] + "\x1b[K")
        self._stream.flush()
        self._shown = True

    def _text(self, now: float, report: Report) -> str:
        rate = self._done / (now - self._start)
        values = " ".join(f"{name}={_short(value)}" for name, value in report())
        if not self._batches or self._done > self._batches:
            return f"Epoch {self._epoch} {self._done} batches [{rate:.1f}/s] {values}"
        filled = _BAR_LENGTH * self._done // self._batches
        bar = "#" * filled + "." * (_BAR_LENGTH - filled)
        left = (self._batches - self._done) / rate
        return f"Epoch {self._epoch} |{bar}| {self._done}/{self._batches} [{rate:.1f}/s, {left:.0f} s left] {values}"

    def wipe(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def end(self) -> None:
        self.wipe()


class _TqdmBar(Progress):
    def __init__(self, make: Any, stream: Any) -> None:
        self._make = make
        self._stream = stream
        self._bar: Any = None
        self._drawn = 0.0

    def begin(self, epoch: int, batches: int | None) -> None:
        self.end()
        self._bar = self._make(
            total=batches,
            desc=f"Epoch {epoch}",
            unit="batch",
            leave=False,
            file=self._stream,
            dynamic_ncols=True,
        )

    def step(self, report: Report) -> None:
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_SECONDS:
            self._drawn = now
            self._bar.set_postfix_str(" ".join(f"{n}={_short(v)}" for n, v in report()), refresh=False)
        self._bar.update()

    def wipe(self) -> None:
        if self._bar is not None:
            self._bar.clear()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _short(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return str(value)


def batches_in(data: Any) -> int | None:
    """How many batches an iterator gives, where it says so."""
    try:
        return len(data)
    except TypeError:
        pass
    rows, size = getattr(data, "num_data", None), getattr(data, "batch_size", None)
    if isinstance(rows, int) and isinstance(size, int) and size > 0:
        whole = getattr(data, "last_batch_handle", "pad") == "discard"
        return rows // size if whole else -(-rows // size)
    size = getattr(data, "size", None)
    return size if isinstance(size, int) else None


def _wanted() -> bool:
    if os.environ.get("MXRS_PROGRESS", "1").strip().lower() in ("0", "false", "off"):
        return False
    try:
        return sys.stderr.isatty() and sys.stdout.isatty()
    except (AttributeError, ValueError):
        return False  # a closed or replaced stream


@contextmanager
def progress(logger: Any) -> Iterator[Progress]:
    """A bar for the length of a training, wiped before every line that handlers write to the terminal."""
    if not _wanted():
        yield Progress()
        return
    bar: Progress
    try:
        from tqdm import tqdm
    except ImportError:
        bar = _PlainBar(sys.stderr)
    else:
        bar = _TqdmBar(tqdm, sys.stderr)

    def aside(_record: logging.LogRecord) -> bool:
        bar.wipe()
        return True

    watched = [handler for handler in _handlers(logger) if _on_terminal(handler)]
    for handler in watched:
        handler.addFilter(aside)
    try:
        yield bar
    finally:
        bar.end()
        for handler in watched:
            handler.removeFilter(aside)


def _handlers(logger: Any) -> set[logging.Handler]:
    found = set(logging.getLogger().handlers)
    while isinstance(logger, logging.Logger):
        found.update(logger.handlers)
        logger = logger.parent
    return found


def _on_terminal(handler: logging.Handler) -> bool:
    stream = getattr(handler, "stream", None)
    try:
        return bool(stream is not None and stream.isatty())
    except (AttributeError, ValueError):
        return False
