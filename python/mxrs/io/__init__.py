"""`mx.io`: iterators that hand a program its data batch by batch.

`batch` holds what a batch and its description are, and the protocol of iterators; `ndarray_iter` iterates over
arrays in memory; `wrappers` change another iterator's length or run it ahead in a thread; `file_iter` reads
CSV, LibSVM and MNIST files. Iterators over record files of pictures need a decoder that is not built yet;
they stand in `missing` and say so when they are called.
"""

from .batch import DataBatch, DataDesc, DataIter
from .file_iter import CSVIter, LibSVMIter, MNISTIter, MXDataIter
from .missing import (
    ImageDetRecordIter,
    ImageRecordInt8Iter,
    ImageRecordIter,
    ImageRecordIter_v1,
    ImageRecordUInt8Iter,
    ImageRecordUInt8Iter_v1,
)
from .ndarray_iter import NDArrayIter
from .wrappers import PrefetchingIter, ResizeIter

__all__ = [
    "CSVIter",
    "DataBatch",
    "DataDesc",
    "DataIter",
    "ImageDetRecordIter",
    "ImageRecordInt8Iter",
    "ImageRecordIter",
    "ImageRecordIter_v1",
    "ImageRecordUInt8Iter",
    "ImageRecordUInt8Iter_v1",
    "LibSVMIter",
    "MNISTIter",
    "MXDataIter",
    "NDArrayIter",
    "PrefetchingIter",
    "ResizeIter",
]
