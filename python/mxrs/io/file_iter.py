"""Iterators over files: `CSVIter`, `LibSVMIter`, `MNISTIter`, and `MXDataIter`, the class of them all.

Arguments may be given as text ('(3,)', 'True'), as configuration files hold them. Parsing is left to `_rows`,
making batches to `_batches`.
"""

from __future__ import annotations

import ast
import logging
import warnings
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..base import MXNetError
from ..context import cpu
from ._batches import Arrays, BatchSource, RowBatches
from ._rows import CsvRows, LibSvmRows, MnistRows
from .batch import DataBatch, DataDesc, DataIter, as_batch_size

__all__ = ["CSVIter", "LibSVMIter", "MNISTIter", "MXDataIter"]


class MXDataIter(DataIter):
    """Iterates over the batches of a source, with one array of data and one of labels each.

    Programs get one from `CSVIter` and the like.

    Parameters
    ----------
    handle : BatchSource
        What gives the batches.
    data_name, label_name : str
        Names of the two arrays in `provide_data` and `provide_label`.

    Raises MXNetError where the source gives no batch.
    """

    def __init__(
        self, handle: BatchSource, data_name: str = "data", label_name: str = "softmax_label", **_: Any
    ) -> None:
        super().__init__()
        self.handle = handle
        self._debug_skip_load = False
        # The first batch tells the shapes; it is kept until it is asked for.
        found = handle.next()
        if found is None:
            raise MXNetError(f"the data source holds fewer examples than batch_size={handle.batch_size}")
        self.first_batch: DataBatch | None = _as_batch(found)
        self._skipped = self.first_batch
        self._current: DataBatch | None = None
        self.provide_data = [DataDesc(data_name, found.data.shape, found.data.dtype.type)]
        self.provide_label = [DataDesc(label_name, found.label.shape, found.label.dtype.type)]
        self.batch_size = found.data.shape[0]

    def debug_skip_load(self) -> None:
        """From now on give the first batch again and again, to measure a program without its input."""
        self._debug_skip_load = True
        logging.info("MXDataIter: debug_skip_load is on, next() gives the same batch for ever")

    def reset(self) -> None:
        """Start the next epoch."""
        self._current = None
        # While the first batch waits the epoch has not begun.
        if self.first_batch is None:
            self.handle.reset()

    def iter_next(self) -> bool:
        """Go to the next batch; False at the end."""
        if self._debug_skip_load:
            self._current = self._skipped
        elif self.first_batch is not None:
            self._current, self.first_batch = self.first_batch, None
        else:
            found = self.handle.next()
            self._current = None if found is None else _as_batch(found)
        return self._current is not None

    def next(self) -> DataBatch:
        """The next batch; StopIteration at the end."""
        if not self.iter_next():
            raise StopIteration
        return self._batch()

    def _batch(self) -> DataBatch:
        if self._current is None:
            raise RuntimeError("MXDataIter: there is no current batch; call next() or iter_next() first")
        return self._current

    def getdata(self) -> Any:
        """The data of the current batch, one NDArray."""
        return self._batch().data[0]  # type: ignore[index]  # never None here

    def getlabel(self) -> Any:
        """The labels of the current batch, one NDArray."""
        return self._batch().label[0]  # type: ignore[index]  # never None here

    def getindex(self) -> Any:
        """The numbers of the current batch's examples, a NumPy array of uint64."""
        return self._batch().index

    def getpad(self) -> int:
        """How many examples of the current batch only fill it up."""
        return self._batch().pad or 0


def _as_batch(found: Arrays) -> DataBatch:
    data, label = (nd.array(x, ctx=cpu(), dtype=x.dtype) for x in (found.data, found.label))
    return DataBatch(data=[data], label=[label], pad=found.pad, index=found.index)


def CSVIter(
    data_csv: str,
    data_shape: Any,
    label_csv: str | None = None,
    label_shape: Any = (1,),
    batch_size: Any = None,
    round_batch: Any = True,
    prefetch_buffer: Any = 4,
    ctx: Any = "gpu",
    dtype: Any = None,
    **kwargs: Any,
) -> MXDataIter:
    """Iterates over the rows of comma-separated text.

    Parameters
    ----------
    data_csv, label_csv : str
        A file, a folder whose files are read in the order of their names, or several joined by ';'. Labels are
        zero without `label_csv`. Empty lines do not count.
    data_shape, label_shape : tuple of int
        Shape of a row; their product is the number of values in a line. Labels of shape (1,) make a batch of
        shape (batch_size,).
    batch_size : int
    round_batch : bool
        Fill the last batch with rows from the beginning; the next epoch then goes on behind them. Otherwise
        its rest is filled from the batch before, and every epoch starts at the first row.
    dtype : 'float32' (default), 'float64', 'int32' or 'int64'
        Type of data and labels.
    data_name, label_name : str
        Names of the arrays.
    prefetch_buffer, ctx
        Taken for compatibility. Text is parsed as far as batches are asked for, and once: later epochs read
        from memory.

    Raises MXNetError for missing files and, with file and line, for rows that are not numbers of that shape.
    """
    owner = "CSVIter"
    size = as_batch_size(owner, _needed(owner, "batch_size", batch_size))
    wanted = np.dtype(np.float32 if dtype in (None, "None") else dtype)
    if wanted.name not in ("float32", "float64", "int32", "int64"):
        raise MXNetError(f"{owner}: dtype must be float32, float64, int32 or int64, got {wanted}")
    label_file = None if label_csv in (None, "NULL") else label_csv
    rows = CsvRows(
        data_csv,
        _shape(owner, "data_shape", data_shape),
        label_file,
        _shape(owner, "label_shape", label_shape),
        wanted,
    )
    last = "round" if _flag(owner, "round_batch", round_batch) else "fill"
    return _iterator(owner, RowBatches(owner, rows, size, last), kwargs)


def LibSVMIter(
    data_libsvm: str,
    data_shape: Any,
    label_libsvm: str | None = None,
    label_shape: Any = (1,),
    num_parts: Any = 1,
    part_index: Any = 0,
    batch_size: Any = None,
    round_batch: Any = True,
    prefetch_buffer: Any = 4,
    ctx: Any = "gpu",
    dtype: Any = None,
    **kwargs: Any,
) -> MXDataIter:
    """Iterates over rows `label column:value column:value ...`, with columns counted from 0.

    The batches are dense float32 arrays (batch_size, columns), and a warning says so: sparse arrays, as which
    MXNet gives them, are not built yet. Only one batch at a time is made dense.

    Parameters
    ----------
    data_libsvm, label_libsvm : str
        A file, a folder whose files are read in the order of their names, or several joined by ';'. Without
        `label_libsvm` the labels are the first numbers of the rows, shape (batch_size,); with it they are its
        rows, shape (batch_size, *label_shape), and the first numbers of both files do not count.
    data_shape, label_shape : tuple of one int
        Number of columns.
    num_parts, part_index : int
        Read only one of `num_parts` parts, which have about equally many bytes.
    batch_size : int
    round_batch : bool
        Must be True: the last batch is filled with rows from the beginning, and the next epoch goes on behind
        them.
    data_name, label_name : str
        Names of the arrays.
    prefetch_buffer, ctx
        Taken for compatibility.

    Raises MXNetError for missing files, and with file and line for rows of another form.
    """
    owner = "LibSVMIter"
    size = as_batch_size(owner, _needed(owner, "batch_size", batch_size))
    if not _flag(owner, "round_batch", round_batch):
        raise MXNetError(f"{owner}: round_batch=False is not supported")
    _only_float32(owner, dtype)
    part, parts = _part(owner, part_index, num_parts)
    label_file = None if label_libsvm in (None, "NULL") else label_libsvm
    rows = LibSvmRows(
        data_libsvm,
        _shape(owner, "data_shape", data_shape),
        label_file,
        _shape(owner, "label_shape", label_shape),
        part,
        parts,
    )
    warnings.warn(
        "LibSVMIter: sparse arrays are not built yet in mxrs; the batches are dense arrays", stacklevel=2
    )
    return _iterator(owner, RowBatches(owner, rows, size, "round"), kwargs)


def MNISTIter(
    image: str = "./train-images-idx3-ubyte",
    label: str = "./train-labels-idx1-ubyte",
    batch_size: Any = 128,
    shuffle: Any = True,
    flat: Any = False,
    seed: Any = 0,
    silent: Any = False,
    num_parts: Any = 1,
    part_index: Any = 0,
    prefetch_buffer: Any = 4,
    ctx: Any = "gpu",
    dtype: Any = None,
    **kwargs: Any,
) -> MXDataIter:
    """Iterates over pictures and labels in MNIST's idx files, gzipped or not.

    Data are float32, the bytes divided by 256, of shape (batch_size, 1, height, width) or with `flat`
    (batch_size, height * width); labels float32 (batch_size,). Examples that make no whole batch are left out.

    Parameters
    ----------
    image, label : str
        The two files.
    batch_size : int
    shuffle : bool
        Put the examples in a random order, the same in every epoch.
    flat : bool
    seed : int
        Decides that order.
    silent : bool
        Do not log how many pictures were read.
    num_parts, part_index : int
        Use only one of `num_parts` equal parts of the examples, which follow one another.
    data_name, label_name : str
        Names of the arrays.
    prefetch_buffer, ctx
        Taken for compatibility, like `input_shape` and `data_shape`: the files tell the shape.

    Raises MXNetError for missing files, and with file and offset for damaged ones.
    """
    owner = "MNISTIter"
    size = as_batch_size(owner, batch_size)
    _only_float32(owner, dtype)
    part, parts = _part(owner, part_index, num_parts)
    is_flat, shuffled = _flag(owner, "flat", flat), _flag(owner, "shuffle", shuffle)
    rows = MnistRows(str(image), str(label), is_flat, shuffled, int(seed), part, parts)
    if len(rows) < size:
        raise MXNetError(f"{owner}: batch_size={size} is more than the {len(rows)} examples of {image!r}")
    if not _flag(owner, "silent", silent):
        logging.getLogger(__name__).info("MNISTIter: %d pictures, shuffle=%s", len(rows), shuffled)
    others = {k: v for k, v in kwargs.items() if k not in ("input_shape", "data_shape")}
    return _iterator(owner, RowBatches(owner, rows, size, "drop"), others)


def _iterator(owner: str, source: BatchSource, kwargs: dict[str, Any]) -> MXDataIter:
    names = {key: kwargs.pop(key) for key in ("data_name", "label_name") if key in kwargs}
    if kwargs:
        # MXNet takes and ignores them, so programs hold some; a spelling mistake should still be seen.
        warnings.warn(
            f"{owner}: the arguments {', '.join(sorted(kwargs))} are not known and ignored", stacklevel=3
        )
    return MXDataIter(source, **names)


def _needed(owner: str, name: str, value: Any) -> Any:
    if value is None:
        raise MXNetError(f"{owner}: the argument {name} is required")
    return value


def _only_float32(owner: str, dtype: Any) -> None:
    if dtype not in (None, "None") and np.dtype(dtype) != np.float32:
        raise MXNetError(f"{owner}: dtype must be float32, got {dtype!r}")


def _shape(owner: str, name: str, value: Any) -> tuple[int, ...]:
    given = value
    try:
        if isinstance(value, str):
            value = ast.literal_eval(value)
        shape = (int(value),) if isinstance(value, int | np.integer) else tuple(int(n) for n in value)
    except (TypeError, ValueError, SyntaxError):
        shape = ()
    if not shape or any(n < 1 for n in shape):
        raise MXNetError(f"{owner}: {name} must be a tuple of positive whole numbers, got {given!r}")
    return shape


def _flag(owner: str, name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise MXNetError(f"{owner}: {name} must be True or False, got {value!r}")
    return text in ("true", "1")


def _part(owner: str, part_index: Any, num_parts: Any) -> tuple[int, int]:
    part, parts = int(part_index), int(num_parts)
    if not 0 <= part < parts:
        raise MXNetError(f"{owner}: part_index must be in [0, num_parts={parts}), got {part}")
    return part, parts
