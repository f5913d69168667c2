"""Fetching files and well-known data for examples and tests.

Transfers are those of `gluon.utils`; the digits come from `gluon.data.vision.MNIST`, which looks for the original
files in its own folder and downloads what is missing.
"""

from __future__ import annotations

import bz2
import os
import struct
import zipfile
from typing import Any, NoReturn

import numpy as np

from ..gluon import utils as _utils

__all__ = [
    "DummyIter",
    "download",
    "download_model",
    "get_bz2_data",
    "get_cifar10",
    "get_im2rec_path",
    "get_mnist",
    "get_mnist_iterator",
    "get_mnist_pkl",
    "get_mnist_ubyte",
    "get_zip_data",
]

_CIFAR10_URL = "https://data.mxnet.io/mxnet/data/cifar10.zip"


def download(
    url: str, fname: str | None = None, dirname: str | None = None, overwrite: bool = False, retries: int = 5
) -> str:
    """Fetch `url` into `dirname/fname` and return that path; an existing file is kept unless `overwrite`.

    `fname` defaults to the last part of the URL, `dirname`, which is made, to the working folder. Raises what
    `gluon.utils.download` raises.
    """
    if retries < 1:
        raise AssertionError(f"download: retries must be at least 1, got {retries}")
    if fname is None:
        fname = url.split("?")[0].split("#")[0].split("/")[-1]
        if not fname:
            raise AssertionError(f"download: {url} ends in no file name; give fname")
    path = fname if dirname is None else os.path.join(dirname, fname)
    return _utils.download(url, path=path, overwrite=overwrite, retries=retries - 1)


def download_model(model_name: str, dst_dir: str = "./", meta_info: Any = None) -> NoReturn:
    """Models of MXNet's old zoo: not built (NotImplementedError); see `gluon.model_zoo`."""
    raise NotImplementedError(
        f"download_model: the symbolic zoo that held '{model_name}' is not built in mxrs; fetch its -symbol.json and "
        ".params with mx.test_utils.download and read them with mx.model.load_checkpoint"
    )


# ---- archives ----------------------------------------------------------------------------------------------


def get_zip_data(data_dir: str, url: str, data_origin_name: str) -> None:
    """Fetch a zip archive into `data_dir` under the name `data_origin_name` and unpack it there."""
    path = download(url, fname=data_origin_name, dirname=data_dir)
    with zipfile.ZipFile(path) as archive:
        # extractall keeps members inside the folder, whatever their names say.
        archive.extractall(data_dir)


def get_bz2_data(data_dir: str, data_name: str, url: str, data_origin_name: str) -> None:
    """Fetch a bz2 file as `data_dir/data_origin_name` and unpack it to `data_dir/data_name`, if not there."""
    target = os.path.join(data_dir, data_name)
    if os.path.exists(target):
        return
    path = download(url, fname=data_origin_name, dirname=data_dir)
    part = f"{target}.part"
    with bz2.open(path) as packed, open(part, "wb") as unpacked:
        while chunk := packed.read(1 << 20):
            unpacked.write(chunk)
    _utils.replace_file(part, target)
    os.remove(path)


# ---- data sets ---------------------------------------------------------------------------------------------


def _digits(train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 28, 28) of uint8 and labels (n,)."""
    from ..gluon.data.vision import MNIST

    images, labels = MNIST(train=train)[:]
    return images.asnumpy()[..., 0], np.asarray(labels)


def get_mnist() -> dict[str, np.ndarray]:
    """The MNIST digits as NumPy arrays.

    'train_data' (60000, 1, 28, 28) and 'test_data' (10000, 1, 28, 28) are float32 in [0, 1], 'train_label' and
    'test_label' int8. Raises FileNotFoundError, with the files needed and their folder, where they are neither
    there nor to be downloaded.
    """
    result: dict[str, np.ndarray] = {}
    for part, train in (("train", True), ("test", False)):
        images, labels = _digits(train)
        result[f"{part}_data"] = images[:, np.newaxis].astype(np.float32) / 255
        result[f"{part}_label"] = labels.astype(np.int8)
    return result


def get_mnist_ubyte() -> None:
    """Put MNIST's four files, unpacked, into the folder `data` of the working folder."""
    os.makedirs("data", exist_ok=True)
    for part, train in (("train", True), ("t10k", False)):
        paths = [os.path.join("data", f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
        if all(os.path.exists(path) for path in paths):
            continue
        images, labels = _digits(train)
        _write_idx(paths[0], images)
        _write_idx(paths[1], labels)


def _write_idx(path: str, array: np.ndarray) -> None:
    """An array of bytes in the idx format: a magic number that counts the axes, their sizes, the bytes."""
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.write(struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape))
        file.write(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
    _utils.replace_file(part, path)


def get_mnist_pkl() -> NoReturn:
    """The pickled MNIST of old tutorials: not built (NotImplementedError), pickles from a network run code."""
    raise NotImplementedError("get_mnist_pkl: pickled data from the network is not loaded; use get_mnist()")


def get_mnist_iterator(
    batch_size: int, input_shape: Any, num_parts: int = 1, part_index: int = 0
) -> tuple[Any, Any]:
    """(training, validation) `io.MNISTIter`s over the digits; pictures are flat unless `input_shape` has 3 axes.

    `num_parts` workers read a part each, this one `part_index`.
    """
    from .. import io

    get_mnist_ubyte()
    iterators = []
    for part, training in (("train", True), ("t10k", False)):
        sharding = {"num_parts": num_parts, "part_index": part_index}
        iterators.append(
            io.MNISTIter(
                image=os.path.join("data", f"{part}-images-idx3-ubyte"),
                label=os.path.join("data", f"{part}-labels-idx1-ubyte"),
                input_shape=input_shape,
                batch_size=batch_size,
                shuffle=training,
                flat=len(input_shape) != 3,
                **sharding,
            )
        )
    return iterators[0], iterators[1]


def get_cifar10() -> None:
    """Put CIFAR-10 as `data/cifar/train.rec` and `data/cifar/test.rec` into the working folder."""
    folder = os.path.join("data", "cifar")
    if not all(os.path.exists(os.path.join(folder, name)) for name in ("train.rec", "test.rec")):
        get_zip_data("data", _CIFAR10_URL, "cifar10.zip")


def get_im2rec_path(home_env: str = "MXNET_HOME") -> str:
    """Path of the program `im2rec.py` under the folder that the variable `home_env` names.

    Raises FileNotFoundError if it is not there.
    """
    home = os.environ.get(home_env)
    for folder in [os.path.join(home, "tools"), home] if home else []:
        path = os.path.join(folder, "im2rec.py")
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"get_im2rec_path: im2rec.py is not under the folder in {home_env} ({home or 'not set'})"
    )


class DummyIter:
    """An endless iterator that gives the first batch of `real_iter` again and again: no time goes to reading."""

    def __init__(self, real_iter: Any) -> None:
        self.real_iter = real_iter
        self.provide_data = real_iter.provide_data
        self.provide_label = real_iter.provide_label
        self.batch_size = real_iter.batch_size
        self.the_batch = next(iter(real_iter))

    def __iter__(self) -> DummyIter:
        return self

    def next(self) -> Any:
        """The batch."""
        return self.the_batch

    __next__ = next

    def reset(self) -> None:
        """Nothing to start again from."""
