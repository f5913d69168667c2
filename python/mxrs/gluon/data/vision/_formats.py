"""Readers of the files in which MNIST and CIFAR are distributed.

Both formats are a few bytes of header and then raw uint8. A reader looks at every number of the header before
it
believes it, and its errors name the file and the offset. Where the files come from is left to `datasets`.

The idx format is described on the MNIST page of Y. LeCun, C. Cortes and C. Burges; the binary version of
CIFAR on
the CIFAR page of A. Krizhevsky.
"""

from __future__ import annotations

import gzip
import os
import zlib

import numpy as np

__all__ = ["DatasetFileError", "read_cifar", "read_idx"]

_IDX_UINT8 = 0x08
CIFAR_SHAPE = (3, 32, 32)
_CIFAR_PIXELS = 3 * 32 * 32


class DatasetFileError(ValueError):
    """A file of a data set is damaged; the message names the file and the offset."""


def _whole_file(path: str) -> bytes:
    """The bytes of a file, unpacked when they start with gzip's magic number."""
    with open(path, "rb") as raw:
        content = raw.read()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetFileError(
            f"{path}: the gzip stream of {len(content)} bytes cannot be unpacked ({error}); "
            "the file is damaged or was not downloaded to its end (offset unknown inside the stream)"
        ) from None


def read_idx(path: str, ndim: int) -> np.ndarray:
    """A uint8 array with `ndim` axes from an idx file, gzipped or not.

    Layout: two zero bytes, type (0x08 for uint8), number of axes, one big-endian uint32 per axis, the values.
    Raises DatasetFileError for anything else, and for values missing or left over.
    """
    content = _whole_file(path)
    header = 4 + 4 * ndim
    if len(content) < header:
        raise DatasetFileError(
            f"{path}: ends at offset {len(content)}, inside the idx header of {header} bytes"
        )
    expected = bytes((0, 0, _IDX_UINT8, ndim))
    if content[:4] != expected:
        raise DatasetFileError(
            f"{path}: at offset 0 stands {content[:4].hex()}, not {expected.hex()}, the magic number of an idx file "
            f"of uint8 with {ndim} axes"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=ndim, offset=4))
    count = 1
    for size in shape:  # Python integers: the product of three uint32 cannot overflow.
        count *= size
    if len(content) != header + count:
        problem = "ends early" if len(content) < header + count else "has bytes left over"
        raise DatasetFileError(
            f"{path}: {problem}: the header at offset 4 says {'x'.join(map(str, shape))} values, so the file should "
            f"end at offset {header + count}, but it ends at offset {len(content)}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_cifar(path: str, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(n, 32, 32, 3)` and labels `(n, label_bytes)`, both uint8, from a binary CIFAR file.

    A record is `label_bytes` labels, then 1024 red, 1024 green and 1024 blue values. CIFAR-10 has one label
    byte;
    CIFAR-100 two, coarse and fine. Raises DatasetFileError unless the file is a whole number of records.
    """
    record = label_bytes + _CIFAR_PIXELS
    size = os.path.getsize(path)
    if size == 0 or size % record:
        whole = size // record
        raise DatasetFileError(
            f"{path}: {size} bytes is not a whole number of records of {record} bytes; "
            f"record {whole} starts at offset {whole * record} and is incomplete"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, record)
    pictures = records[:, label_bytes:].reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), records[:, :label_bytes]


def check_labels(path: str, labels: np.ndarray, classes: int, first_offset: int, stride: int) -> None:
    """Raises DatasetFileError for a label that is not in `[0, classes)`; label i stands at
    `first_offset + i * stride` of the (unpacked) file.
    """
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        index = int(wrong[0])
        raise DatasetFileError(
            f"{path}: at offset {first_offset + index * stride} stands the label {int(labels[index])}, "
            f"but there are only {classes} classes"
        )
