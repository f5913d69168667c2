"""Iterators of MXNet that are known and not built yet. Each raises NotImplementedError when it is called."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = [
    "ImageDetRecordIter",
    "ImageRecordInt8Iter",
    "ImageRecordIter",
    "ImageRecordIter_v1",
    "ImageRecordUInt8Iter",
    "ImageRecordUInt8Iter_v1",
]


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"mx.io.{name} is not built yet: it needs the reader of record files of pictures. Until then, "
        "gluon.data.DataLoader loads folders and lists of pictures"
    )


def ImageRecordIter(*args: Any, **kwargs: Any) -> NoReturn:
    """Pictures and labels of a record file: not built yet."""
    _refuse("ImageRecordIter")


def ImageRecordIter_v1(*args: Any, **kwargs: Any) -> NoReturn:
    """The older `ImageRecordIter`: not built yet."""
    _refuse("ImageRecordIter_v1")


def ImageRecordUInt8Iter(*args: Any, **kwargs: Any) -> NoReturn:
    """`ImageRecordIter` with uint8 pictures: not built yet."""
    _refuse("ImageRecordUInt8Iter")


def ImageRecordUInt8Iter_v1(*args: Any, **kwargs: Any) -> NoReturn:
    """The older `ImageRecordUInt8Iter`: not built yet."""
    _refuse("ImageRecordUInt8Iter_v1")


def ImageRecordInt8Iter(*args: Any, **kwargs: Any) -> NoReturn:
    """`ImageRecordIter` with int8 pictures: not built yet."""
    _refuse("ImageRecordInt8Iter")


def ImageDetRecordIter(*args: Any, **kwargs: Any) -> NoReturn:
    """Pictures with boxes of a record file: not built yet."""
    _refuse("ImageDetRecordIter")
