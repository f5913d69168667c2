"""Well-known data sets of pictures, read from their original files, and folders or lists of picture files.

MNIST, FashionMNIST, CIFAR10 and CIFAR100 look for their files under `root`, download what is missing where
the
network allows, and otherwise say which files belong where. The file formats are read in `_formats`; what
happens
to a picture afterwards is left to `transforms`.
"""

from __future__ import annotations

import os
import tarfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .... import ndarray as nd
from ..dataset import Dataset, RecordFileDataset
from . import _formats

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "FashionMNIST",
    "ImageFolderDataset",
    "ImageListDataset",
    "ImageRecordDataset",
]

# MXNet's own mirror; the variable of the same name as MXNet's chooses another.
_DEFAULT_REPOSITORY = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/"

Transform = Callable[..., Any]


def _default_root(name: str) -> str:
    home = os.environ.get("MXNET_HOME") or os.path.join("~", ".mxnet")
    return os.path.join(home, "datasets", name)


class _DownloadedDataset(Dataset):
    """Pictures in one NDArray and labels in one NumPy array, read by `_get_data`, which a subclass writes."""

    _namespace = ""

    def __init__(self, root: str, transform: Transform | None) -> None:
        self._transform = transform
        self._data: Any = None
        self._label: Any = None
        self._root = os.path.expanduser(root)
        self._get_data()

    def _get_data(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must implement _get_data")

    def __getitem__(self, idx: Any) -> Any:
        if self._transform is not None:
            return self._transform(self._data[idx], self._label[idx])
        return self._data[idx], self._label[idx]

    def __len__(self) -> int:
        return len(self._label)

    def _whole_arrays(self) -> tuple[list[Any], bool] | None:
        plain = type(self).__getitem__ is _DownloadedDataset.__getitem__ and self._transform is None
        return ([self._data, self._label], True) if plain else None

    def _find_or_download(self, names: Sequence[str], sha1: str) -> str:
        """Path of the first of `names` that exists under the root; else `names[0]`, downloaded.

        A file that is already there is not compared with the checksum, so that a copy with other compression
        or a subset in the same format can be used; the reader checks its structure.
        """
        for name in names:
            path = os.path.join(self._root, name)
            if os.path.isfile(path):
                return path
        path = os.path.join(self._root, names[0])
        repository = os.environ.get("MXNET_GLUON_REPO") or _DEFAULT_REPOSITORY
        url = f"{repository.rstrip('/')}/gluon/dataset/{self._namespace}/{names[0]}"
        # Imported here: only a download needs it, and it brings in the HTTP and TLS modules.
        from ...utils import download

        try:
            os.makedirs(self._root, exist_ok=True)
            return str(download(url, path=path, sha1_hash=sha1))
        except Exception as error:
            raise FileNotFoundError(
                f"{type(self).__name__}: the file {' or '.join(names)} is not in {self._root} and could not be "
                f"downloaded from {url} ({type(error).__name__}: {error}). Put the original files of the data set "
                f"there by hand: {', '.join(self._all_files())}. Another folder is chosen with root=..."
            ) from error

    def _all_files(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} must implement _all_files")


class MNIST(_DownloadedDataset):
    """Handwritten digits: 60,000 pictures for training and 10,000 for testing, 28x28, one channel, 10
    classes.

    Item i is the pair of an NDArray (28, 28, 1) of uint8 and a NumPy int32 label.

    Parameters
    ----------
    root : folder of the files, by default `datasets/mnist` in `$MXNET_HOME` or `~/.mxnet`
    train : the training part (default) or the test part
    transform : function of (picture, label), applied at each access

    Raises FileNotFoundError when files are missing and cannot be downloaded, ValueError (with file and
    offset)
    when they are damaged.
    """

    _namespace = "mnist"
    _train_data = ("train-images-idx3-ubyte.gz", "6c95f4b05d2bf285e1bfb0e7960c31bd3b3f8a7d")
    _train_label = ("train-labels-idx1-ubyte.gz", "2a80914081dc54586dbdf242f9805a6b8d2a15fc")
    _test_data = ("t10k-images-idx3-ubyte.gz", "c3a25af1f52dad7f726cce8cacb138654b760d48")
    _test_label = ("t10k-labels-idx1-ubyte.gz", "763e7fa3757d93b0cdec073cef058b2004252c17")
    _classes = 10

    def __init__(
        self, root: str | None = None, train: bool = True, transform: Transform | None = None
    ) -> None:
        self._train = train
        super().__init__(_default_root(self._namespace) if root is None else root, transform)

    def _all_files(self) -> list[str]:
        return [name for name, _ in (self._train_data, self._train_label, self._test_data, self._test_label)]

    def _path(self, file: tuple[str, str]) -> str:
        name, sha1 = file
        return self._find_or_download((name, name.removesuffix(".gz")), sha1)

    def _get_data(self) -> None:
        images_path = self._path(self._train_data if self._train else self._test_data)
        labels_path = self._path(self._train_label if self._train else self._test_label)
        images = _formats.read_idx(images_path, 3)
        labels = _formats.read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise _formats.DatasetFileError(
                f"{labels_path}: its header at offset 4 says {len(labels)} labels, "
                f"but {images_path} has {len(images)} pictures"
            )
        _formats.check_labels(labels_path, labels, self._classes, first_offset=8, stride=1)
        self._label = labels.astype(np.int32)
        self._data = nd.array(images[..., np.newaxis], dtype=np.uint8)


class FashionMNIST(MNIST):
    """Pictures of ten kinds of clothing, in MNIST's sizes and format. Arguments, items and errors are
    MNIST's.

    Debian's package dataset-fashion-mnist carries the files; `root` is then the folder it puts them in.
    """

    _namespace = "fashion-mnist"
    _train_data = ("train-images-idx3-ubyte.gz", "0cf37b0d40ed5169c6b3aba31069a9770ac9043d")
    _train_label = ("train-labels-idx1-ubyte.gz", "236021d52f1e40852b06a4c3008d8de8aef1e40b")
    _test_data = ("t10k-images-idx3-ubyte.gz", "626ed6a7c06dd17c0eec72fa3be1740f146a2863")
    _test_label = ("t10k-labels-idx1-ubyte.gz", "17f9ab60e7257a1620f4ad76bbbaf857c3920701")


class CIFAR10(_DownloadedDataset):
    """Small colour pictures: 50,000 for training and 10,000 for testing, 32x32x3, 10 classes.

    Item i is the pair of an NDArray (32, 32, 3) of uint8 and a NumPy int32 label. The binary files are looked
    for
    in `root` and in the folder that the archive unpacks to; the archive itself is unpacked when it is there.

    Parameters
    ----------
    root : folder of the files, by default `datasets/cifar10` in `$MXNET_HOME` or `~/.mxnet`
    train : the training part (default) or the test part
    transform : function of (picture, label), applied at each access

    Raises FileNotFoundError when files are missing and cannot be downloaded, ValueError (with file and
    offset)
    when they are damaged.
    """

    _namespace = "cifar10"
    _folder = "cifar-10-batches-bin"
    _archive_file = ("cifar-10-binary.tar.gz", "fab780a1e191a7eda0f345501ccd62d20f7ed891")
    _train_data: tuple[str, ...] = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    _test_data: tuple[str, ...] = ("test_batch.bin",)
    _label_bytes = 1
    _label_column = 0
    _classes = 10

    def __init__(
        self, root: str | None = None, train: bool = True, transform: Transform | None = None
    ) -> None:
        self._train = train
        super().__init__(_default_root(self._namespace) if root is None else root, transform)

    def _all_files(self) -> list[str]:
        return [*self._train_data, *self._test_data]

    def _locate(self, name: str) -> str | None:
        for folder in (self._root, os.path.join(self._root, self._folder)):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return path
        return None

    def _paths(self) -> list[str]:
        names = self._train_data if self._train else self._test_data
        if any(self._locate(name) is None for name in names):
            self._unpack(self._find_or_download((self._archive_file[0],), self._archive_file[1]))
        paths = [self._locate(name) for name in names]
        for name, path in zip(names, paths, strict=True):
            if path is None:
                raise FileNotFoundError(
                    f"{type(self).__name__}: {self._archive_file[0]} does not contain {name}"
                )
        return [path for path in paths if path is not None]

    def _unpack(self, archive: str) -> None:
        """Takes the data files, and nothing else, out of the archive; where they lie in it does not matter."""
        wanted = set(self._all_files())
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = os.path.basename(member.name)
                    source = tar.extractfile(member) if name in wanted and member.isfile() else None
                    if source is None:
                        continue
                    partial = os.path.join(self._root, f"{name}.part{os.getpid()}")
                    with source, open(partial, "wb") as target:
                        while chunk := source.read(1 << 20):
                            target.write(chunk)
                    os.replace(partial, os.path.join(self._root, name))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise _formats.DatasetFileError(
                f"{archive}: cannot be unpacked ({error}); remove it and try again"
            ) from error

    def _get_data(self) -> None:
        pictures, labels = [], []
        for path in self._paths():
            data, label = _formats.read_cifar(path, self._label_bytes)
            column = label[:, self._label_column]
            _formats.check_labels(
                path, column, self._classes, first_offset=self._label_column, stride=self._label_bytes + 3072
            )
            pictures.append(data)
            labels.append(column)
        self._data = nd.array(np.concatenate(pictures), dtype=np.uint8)
        self._label = np.concatenate(labels).astype(np.int32)


class CIFAR100(CIFAR10):
    """As CIFAR10, with 100 fine classes in 20 coarse ones.

    `fine_label` chooses the fine labels; the default, as in MXNet, is the coarse ones.
    """

    _namespace = "cifar100"
    _folder = "cifar-100-binary"
    _archive_file = ("cifar-100-binary.tar.gz", "a0bb982c76b83111308126cc779a992fa506b90b")
    _train_data = ("train.bin",)
    _test_data = ("test.bin",)
    _label_bytes = 2

    def __init__(
        self,
        root: str | None = None,
        fine_label: bool = False,
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        self._fine_label = fine_label
        self._label_column = 1 if fine_label else 0
        self._classes = 100 if fine_label else 20
        super().__init__(root, train, transform)


def _image(asked_by: str) -> Any:
    try:
        from .... import image
    except ImportError:
        raise NotImplementedError(
            f"{asked_by} needs mxrs.image to decode pictures, which this version does not have yet"
        ) from None
    return image


class ImageRecordDataset(RecordFileDataset):
    """Pictures and labels from a RecordIO file made with `im2rec`.

    Parameters
    ----------
    filename : path of the `.rec` file, with its `.idx` beside it
    flag : 1 for colour (RGB), 0 for grey
    transform : function of (picture, label), applied at each access

    Raises NotImplementedError, naming what is missing, where this build has no `mxrs.recordio` or
    `mxrs.image`.
    """

    def __init__(self, filename: str, flag: int = 1, transform: Transform | None = None) -> None:
        _image(type(self).__name__)
        super().__init__(filename)
        self._flag = flag
        self._transform = transform

    def __getitem__(self, idx: Any) -> Any:
        from .... import recordio

        header, picture = recordio.unpack(super().__getitem__(idx))
        decoded = _image(type(self).__name__).imdecode(picture, self._flag)
        if self._transform is not None:
            return self._transform(decoded, header.label)
        return decoded, header.label


class ImageFolderDataset(Dataset):
    """Pictures in one folder per class: `root/car/0001.jpg`, `root/bus/123.png`, ...

    `synsets` lists the class names, which are the names of the folders in alphabetical order; `items` lists
    the
    pairs of path and class number.

    Parameters
    ----------
    root : the folder that holds one folder per class
    flag : 1 for colour (RGB), 0 for grey
    transform : function of (picture, label), applied at each access

    Files that are no .jpg, .jpeg or .png, and files beside the folders, are passed over with a warning.
    Reading an
    item raises NotImplementedError where this build has no `mxrs.image`.
    """

    def __init__(self, root: str, flag: int = 1, transform: Transform | None = None) -> None:
        self._root = os.path.expanduser(root)
        self._flag = flag
        self._transform = transform
        self._exts = [".jpg", ".jpeg", ".png"]
        self._list_images(self._root)

    def _list_images(self, root: str) -> None:
        self.synsets: list[str] = []
        self.items: list[tuple[str, int]] = []
        for folder in sorted(os.listdir(root)):
            path = os.path.join(root, folder)
            if not os.path.isdir(path):
                warnings.warn(f"Ignoring {path}, which is not a directory.", stacklevel=3)
                continue
            label = len(self.synsets)
            self.synsets.append(folder)
            for filename in sorted(os.listdir(path)):
                extension = os.path.splitext(filename)[1]
                if extension.lower() not in self._exts:
                    supported = ", ".join(self._exts)
                    warnings.warn(
                        f"Ignoring {os.path.join(path, filename)} of type {extension}. Only support {supported}",
                        stacklevel=3,
                    )
                    continue
                self.items.append((os.path.join(path, filename), label))

    def __getitem__(self, idx: Any) -> Any:
        path, label = self.items[idx]
        picture = _image(type(self).__name__).imread(path, self._flag)
        return self._transform(picture, label) if self._transform is not None else (picture, label)

    def __len__(self) -> int:
        return len(self.items)


class ImageListDataset(Dataset):
    """Pictures named by a list: lines `index <tab> label ... <tab> path` of a `.lst` file, or `[label, path]`
    pairs.

    Parameters
    ----------
    root : folder that the paths of the list are relative to
    imglist : path of a `.lst` file, or a list of `[label, path]` entries; a label may be a list of numbers
    flag : 1 for colour (RGB), 0 for grey

    Raises ValueError for an entry that cannot be read, naming its line. Reading an item raises
    NotImplementedError
    where this build has no `mxrs.image`.
    """

    def __init__(self, root: str = ".", imglist: str | Sequence[Any] | None = None, flag: int = 1) -> None:
        if imglist is None:
            raise ValueError("ImageListDataset: imglist must be the path of a .lst file or a list, got None")
        self._root = os.path.expanduser(root)
        self._flag = flag
        entries = self._from_file(imglist) if isinstance(imglist, str) else self._from_list(imglist)
        self.items: list[tuple[str, np.ndarray]] = [
            (os.path.join(self._root, path), np.array(label, dtype=np.float32)) for path, label in entries
        ]

    @staticmethod
    def _from_file(path: str) -> list[tuple[str, list[float]]]:
        entries = []
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.rstrip("\r\n").split("\t")
                if fields == [""]:
                    continue
                try:
                    labels = [float(field) for field in fields[1:-1]]
                except ValueError:
                    labels = []
                if not labels:
                    raise ValueError(
                        f"{path}: line {number} is not 'index <tab> label <tab> path': {line.rstrip()!r}"
                    )
                entries.append((fields[-1], labels))
        return entries

    @staticmethod
    def _from_list(entries: Sequence[Any]) -> list[tuple[str, list[float]]]:
        result = []
        for position, entry in enumerate(entries):
            if len(entry) < 2 or not isinstance(entry[-1], str):
                raise ValueError(f"ImageListDataset: entry {position} is not [label, path]: {entry!r}")
            label = entry[0] if len(entry) == 2 else entry[:-1]
            result.append((entry[-1], list(np.atleast_1d(np.asarray(label, dtype=np.float32)))))
        return result

    def __getitem__(self, idx: Any) -> Any:
        path, label = self.items[idx]
        return _image(type(self).__name__).imread(path, self._flag), label

    def __len__(self) -> int:
        return len(self.items)
