"""Loggers with short, coloured lines: `get_logger(name, filename, filemode, level)`."""

from __future__ import annotations

import logging
import sys
import warnings
from logging import CRITICAL, DEBUG, ERROR, INFO, NOTSET, WARNING

__all__ = ["CRITICAL", "DEBUG", "ERROR", "INFO", "NOTSET", "WARNING", "getLogger", "get_logger"]

_COLOURS = {"W": "\x1b[31m", "E": "\x1b[31m", "C": "\x1b[31m", "I": "\x1b[32m", "D": "\x1b[34m"}
_END = "\x1b[0m"


class _Formatter(logging.Formatter):
    """One letter for the level, date and time, process, place, message."""

    def __init__(self, coloured: bool) -> None:
        super().__init__(datefmt="%m%d %H:%M:%S")
        self._coloured = coloured

    def formatMessage(self, record: logging.LogRecord) -> str:
        letter = record.levelname[:1]
        place = f"{record.pathname}:{record.funcName}:{record.lineno}"
        head = f"{letter}{self.formatTime(record, self.datefmt)} {record.process} {place}]"
        if self._coloured:
            head = f"{_COLOURS.get(letter, '')}{head}{_END}"
        return f"{head} {record.message}"


def get_logger(
    name: str | None = None, filename: str | None = None, filemode: str | None = None, level: int = WARNING
) -> logging.Logger:
    """A logger, at its first call with a handler of its own: to `filename`, opened in `filemode` ('a'), or to standard
    error, coloured on a terminal. Without a name, the root logger, which is left as it is.

    Raises OSError if the file cannot be opened.
    """
    logger = logging.getLogger(name)
    if name is None or getattr(logger, "_mxrs_handler", None) is not None:
        return logger
    handler: logging.Handler
    if filename:
        handler = logging.FileHandler(filename, filemode or "a")
        handler.setFormatter(_Formatter(coloured=False))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter(coloured=sys.stderr.isatty()))
    logger._mxrs_handler = handler  # type: ignore[attr-defined]
    logger.addHandler(handler)
    logger.setLevel(level)
    return logger


def getLogger(
    name: str | None = None, filename: str | None = None, filemode: str | None = None, level: int = WARNING
) -> logging.Logger:
    """Old name of `get_logger`."""
    warnings.warn("getLogger is deprecated, use get_logger", DeprecationWarning, stacklevel=2)
    return get_logger(name, filename, filemode, level)
