"""Rows of examples in files, as NumPy arrays: CSV, LibSVM and MNIST behind one interface.

A source gives any range of its rows. Text files are read as far as rows are asked for and kept, so that later
epochs do not parse again. Making batches of rows is left to `_batches`, making NDArrays to `file_iter`.
"""

from __future__ import annotations

import gzip
import math
import re
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..base import MXNetError
from ._text import Block, blocks_of, files_of, numbers

__all__ = ["CsvRows", "LibSvmRows", "MnistRows", "Rows", "read_idx"]


class Rows(Protocol):
    """A source of rows."""

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Data and labels of the rows `start <= i < stop`, fewer at the end of the source; not to be
        written to.
        """
        ...


class _Table:
    """Arrays of rows that arrive one after another and are kept."""

    def __init__(self, parts: Iterator[np.ndarray], empty: np.ndarray) -> None:
        self._parts = parts
        self._empty = empty
        self._kept: list[np.ndarray] = []
        self._starts: list[int] = []
        self._count = 0

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The rows of a range, as far as there are any."""
        while self._count < stop:
            part = next(self._parts, None)
            if part is None:
                break
            if len(part):
                self._kept.append(part)
                self._starts.append(self._count)
                self._count += len(part)
        if start >= min(stop, self._count):
            return self._empty
        found = []
        k = bisect_right(self._starts, start) - 1
        while k < len(self._kept) and self._starts[k] < stop:
            base = self._starts[k]
            found.append(self._kept[k][max(0, start - base) : stop - base])
            k += 1
        return found[0] if len(found) == 1 else np.concatenate(found)


# ---- CSV ---------------------------------------------------------------------------------------------------


def _csv_parts(
    owner: str, argument: str, files: list[str], shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[np.ndarray]:
    """Arrays (rows, *shape) of comma-separated files. Empty lines and one comma at a line's end do not count."""
    columns = math.prod(shape)
    for block in blocks_of(files):
        stripped = list(map(bytes.strip, block.lines))
        places = [i for i, line in enumerate(stripped) if line]
        rows = [line for line in stripped if line]
        if not rows:
            continue
        if any(row.endswith(b",") for row in rows):
            rows = [row.removesuffix(b",") for row in rows]
        for row, place in zip(rows, places, strict=True):
            if row.count(b",") + 1 != columns:
                raise block.error(
                    owner,
                    place,
                    f"{row.count(b',') + 1} values, but {argument}={shape} needs {columns} in every row",
                )
        yield numbers(owner, block, rows, places, b",", dtype).reshape(-1, *shape)


class CsvRows:
    """Rows of a CSV file, and of a second one for the labels (zeros of `label_shape` without it).

    Labels of shape (1,) lose that axis. Raises MXNetError, with file and line, for a row of the wrong length
    and for what is no number, and where there are fewer labels than rows.
    """

    def __init__(
        self,
        data_csv: str,
        data_shape: tuple[int, ...],
        label_csv: str | None,
        label_shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        owner = "CSVIter"
        self._data_csv, self._label_csv = data_csv, label_csv
        files = files_of(owner, "data_csv", data_csv)
        self._data = _Table(
            _csv_parts(owner, "data_shape", files, data_shape, dtype), np.empty((0, *data_shape), dtype)
        )
        self._label_tail = () if label_shape == (1,) else label_shape
        self._dtype = dtype
        self._labels: _Table | None = None
        self._warned = False
        if label_csv is not None:
            self._labels = _Table(
                _csv_parts(owner, "label_shape", files_of(owner, "label_csv", label_csv), label_shape, dtype),
                np.empty((0, *label_shape), dtype),
            )

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.take`."""
        data = self._data.rows(start, stop)
        if self._labels is None:
            return data, np.zeros((len(data), *self._label_tail), self._dtype)
        found = start + len(data)
        labels = self._labels.rows(start, found)
        if len(labels) < len(data):
            raise MXNetError(
                f"CSVIter: label_csv={self._label_csv!r} has {start + len(labels)} rows, fewer than "
                f"data_csv={self._data_csv!r}"
            )
        if found < stop and not self._warned and len(self._labels.rows(found, found + 1)):
            self._warned = True
            warnings.warn(
                f"CSVIter: label_csv={self._label_csv!r} has more rows than the {found} of "
                f"data_csv={self._data_csv!r}; those left over are not used",
                stacklevel=4,
            )
        return data, labels.reshape(len(data), *self._label_tail)


# ---- LibSVM ------------------------------------------------------------------------------------------------

_LIBSVM_ROW = re.compile(rb"[^\s:]+(?:[ \t]+[^\s:]+:[^\s:]+)*")
_LABEL_WEIGHT = re.compile(rb"^([^\s:]+):\S+")
_QUERY = re.compile(rb"\sqid:\S+")


def _libsvm_rows(block: Block) -> tuple[list[bytes], list[int]]:
    """The rows of a block and their lines, without comments, weights of labels, and numbers of queries."""
    stripped = list(map(bytes.strip, block.lines))
    if any(b"#" in line for line in stripped):
        stripped = [line.partition(b"#")[0].strip() for line in stripped]
    places = [i for i, line in enumerate(stripped) if line]
    rows = [line for line in stripped if line]
    if not all(map(_LIBSVM_ROW.fullmatch, rows)):
        rows = [_LABEL_WEIGHT.sub(rb"\1", _QUERY.sub(b"", row)) for row in rows]
    return rows, places


def _libsvm_parts(
    owner: str, argument: str, files: list[str], columns: int, part: int, parts: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Labels, features per row, columns and values of the rows of LibSVM files, block by block."""
    for block in blocks_of(files, part, parts):
        rows, places = _libsvm_rows(block)
        for row, place in zip(rows, places, strict=True):
            if not _LIBSVM_ROW.fullmatch(row):
                raise block.error(owner, place, "a row is a label and then column:value, ...")
        if not rows:
            continue
        flat = numbers(
            owner,
            block,
            [b" ".join(row.replace(b":", b" ").split()) for row in rows],
            places,
            b" ",
            np.dtype("f8"),
        )
        counts = np.fromiter((row.count(b":") for row in rows), dtype=np.int64, count=len(rows))
        first = np.zeros(len(rows), dtype=np.int64)  # where each row's label stands in `flat`
        np.cumsum(2 * counts[:-1] + 1, out=first[1:])
        pairs = np.delete(flat, first).reshape(-1, 2)
        wrong = np.flatnonzero(
            (pairs[:, 0] != np.floor(pairs[:, 0])) | (pairs[:, 0] < 0) | (pairs[:, 0] >= columns)
        )
        if wrong.size:
            at = int(np.searchsorted(np.cumsum(counts), wrong[0], side="right"))
            raise block.error(
                owner,
                places[at],
                f"column {pairs[wrong[0], 0]:g} is not a whole number in [0, {columns}), which {argument}="
                f"({columns},) allows; columns are counted from 0",
            )
        yield flat[first].astype("f4"), counts, pairs[:, 0].astype(np.int64), pairs[:, 1].astype("f4")


class _SparseTable:
    """Compressed rows that are kept, and dense arrays of any range of them."""

    def __init__(
        self, parts: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], columns: int
    ) -> None:
        blocks = list(parts)
        self._columns = columns
        self.labels, counts, self._columns_of, self._values = (
            np.concatenate([block[i] for block in blocks]) if blocks else np.empty(0, dtype)
            for i, dtype in enumerate(("f4", "i8", "i8", "f4"))
        )
        self._ends = np.concatenate([[0], np.cumsum(counts)])

    def dense(self, start: int, stop: int) -> np.ndarray:
        """The rows of a range as an array (rows, columns); of a column given twice the last value counts."""
        stop = min(stop, len(self.labels))
        count = max(0, stop - start)
        out = np.zeros((count, self._columns), "f4")
        if count:
            here = slice(self._ends[start], self._ends[stop])
            rows = np.repeat(np.arange(count), np.diff(self._ends[start : stop + 1]))
            out[rows, self._columns_of[here]] = self._values[here]
        return out


class LibSvmRows:
    """Rows of a LibSVM file, `label column:value ...` with columns from 0, given as dense arrays.

    Labels are the numbers before the features, or the rows of a second file. `# ...`, the weight of
    a label (`label:weight`) and `qid:...` are skipped. Raises MXNetError, with file and line, for a row of
    another form and a column outside `data_shape`.
    """

    def __init__(
        self,
        data_libsvm: str,
        data_shape: tuple[int, ...],
        label_libsvm: str | None,
        label_shape: tuple[int, ...],
        part: int,
        parts: int,
    ) -> None:
        owner = "LibSVMIter"
        for name, shape in (("data_shape", data_shape), ("label_shape", label_shape)):
            if len(shape) != 1:
                raise MXNetError(f"{owner}: {name} must have one dimension, got {shape}")
        if (label_libsvm is None) != (label_shape == (1,)):
            raise MXNetError(
                f"{owner}: label_shape={label_shape} needs label_libsvm to be "
                f"{'given' if label_libsvm is None else 'left out'}"
            )
        self._labels: _SparseTable | None = None
        self._data = self._read(owner, "data", data_libsvm, data_shape[0], part, parts)
        if label_libsvm is not None:
            self._labels = self._read(owner, "label", label_libsvm, label_shape[0], part, parts)
            if len(self._labels.labels) < len(self._data.labels):
                raise MXNetError(
                    f"{owner}: label_libsvm={label_libsvm!r} has {len(self._labels.labels)} rows, fewer than "
                    f"the {len(self._data.labels)} of data_libsvm={data_libsvm!r}"
                )

    @staticmethod
    def _read(owner: str, what: str, uri: str, columns: int, part: int, parts: int) -> _SparseTable:
        files = files_of(owner, f"{what}_libsvm", uri)
        return _SparseTable(_libsvm_parts(owner, f"{what}_shape", files, columns, part, parts), columns)

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.take`."""
        data = self._data.dense(start, stop)
        if self._labels is not None:
            return data, self._labels.dense(start, start + len(data))
        return data, self._data.labels[start:stop]


# ---- MNIST -------------------------------------------------------------------------------------------------


def read_idx(owner: str, path: str, ndim: int) -> np.ndarray:
    """The uint8 array with `ndim` axes of an idx file, gzipped or not.

    The format (Y. LeCun, C. Cortes, C. Burges, the MNIST page): two zero bytes, the type (8 for uint8), the
    number of axes, one big-endian uint32 per axis, the values. Raises MXNetError, with file and offset, for
    anything else and for values missing or left over.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MXNetError(f"{owner}: {path}: the gzip stream cannot be unpacked ({error})") from None
    except OSError as error:
        raise MXNetError(f"{owner}: {path}: {error.strerror or error}") from None
    header = 4 + 4 * ndim
    expected = bytes((0, 0, 8, ndim))
    if content[:4] != expected or len(content) < header:
        raise MXNetError(
            f"{owner}: {path}, offset 0: {content[:4].hex() or 'nothing'}, not {expected.hex()}, with which an idx "
            f"file of uint8 with {ndim} axes begins"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", ndim, 4))
    end = header + math.prod(shape)
    if len(content) != end:
        raise MXNetError(
            f"{owner}: {path}, offset 4: the shape {shape} makes the file end at offset {end}, but it ends at "
            f"{len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class MnistRows:
    """Pictures and labels of two idx files, or one part of `parts` of them, shuffled once or not.

    Values are float32 in [0, 1): the bytes divided by 256. Raises MXNetError where the files do not belong
    together.
    """

    def __init__(
        self, image: str, label: str, flat: bool, shuffle: bool, seed: int, part: int, parts: int
    ) -> None:
        owner = "MNISTIter"
        pictures = read_idx(owner, image, 3)
        labels = read_idx(owner, label, 1)
        if len(pictures) != len(labels):
            raise MXNetError(
                f"{owner}: image={image!r} has {len(pictures)} pictures, label={label!r} has {len(labels)} labels"
            )
        size = len(pictures)
        chosen = slice(size * part // parts, size * (part + 1) // parts)
        pictures, labels = pictures[chosen], labels[chosen]
        if shuffle:
            order = np.random.RandomState(seed & 0xFFFFFFFF).permutation(len(pictures))
            pictures, labels = pictures[order], labels[order]
        self._pictures = pictures.reshape(len(pictures), -1) if flat else pictures[:, None]
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Rows.take`."""
        pictures = self._pictures[start:stop].astype(np.float32)
        pictures *= np.float32(1 / 256)
        return pictures, self._labels[start:stop].astype(np.float32)
