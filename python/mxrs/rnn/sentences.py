"""Sentences as numbers, and batches of sentences of similar length."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..io.batch import DataBatch, DataDesc, DataIter, as_batch_size

__all__ = ["BucketSentenceIter", "encode_sentences"]


def encode_sentences(
    sentences: Iterable[Iterable[Hashable]],
    vocab: dict[Any, int] | None = None,
    invalid_label: int = -1,
    invalid_key: Hashable = "\n",
    start_label: int = 0,
    unknown_token: Hashable | None = None,
) -> tuple[list[list[int]], dict[Any, int]]:
    """Sentences with every word replaced by its number, and the numbers of the words.

    Parameters
    ----------
    sentences : iterable of iterables of words
    vocab : dict of int by word, optional
        Known numbers; without it each new word gets the next one, from `start_label` on.
    invalid_label : int
        The number that means "no word"; no word gets it.
    invalid_key : hashable
        Stands for `invalid_label` in a new vocabulary.
    start_label : int
    unknown_token : hashable, optional
        Stands for all words that are not in `vocab`; it is added to `vocab` where it is missing.

    Raises AssertionError for a word that is not in a given `vocab` where there is no `unknown_token`.
    """
    grows = vocab is None
    known: dict[Any, int] = {invalid_key: invalid_label} if vocab is None else vocab
    following = start_label
    taken = set() if grows else set(known.values())

    def number_of(word: Hashable) -> int:
        nonlocal following
        if word in known:
            return known[word]
        if not grows and unknown_token is None:
            raise AssertionError(f"Unknown token {word}")
        if unknown_token is not None:
            word = unknown_token
            if word in known:
                return known[word]
        while following == invalid_label or following in taken:
            following += 1
        known[word] = following
        following += 1
        return known[word]

    return [[number_of(word) for word in sentence] for sentence in sentences], known


class BucketSentenceIter(DataIter):
    """Batches of sentences for language models: the label of each word is the next one.

    Each sentence goes into the smallest bucket that holds it and is filled up with `invalid_label`; sentences
    longer than the largest bucket, and those that make no whole batch, are left out. The order of batches comes
    from Python's `random`, that of sentences in a bucket from NumPy's global generator, anew at every reset.
    `bucket_key` of a batch is the length of its bucket.

    Parameters
    ----------
    sentences : list of lists of int
    batch_size : int
    buckets : list of int, optional
        Lengths; by default all that at least `batch_size` sentences have.
    invalid_label : int
    data_name, label_name : str
    dtype : dtype of data and labels
    layout : 'NT' (batch, time) or 'TN'

    Raises ValueError for a layout without N, and where there is no bucket.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        batch_size: int,
        buckets: Sequence[int] | None = None,
        invalid_label: int = -1,
        data_name: str = "data",
        label_name: str = "softmax_label",
        dtype: Any = "float32",
        layout: str = "NT",
    ) -> None:
        super().__init__(as_batch_size("BucketSentenceIter", batch_size))
        self.major_axis = layout.find("N")
        if self.major_axis not in (0, 1):
            raise ValueError(
                f"BucketSentenceIter: Invalid layout {layout!r}: Must by NT (batch major) or TN (time major)"
            )
        lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        if not buckets:
            counts = np.bincount(lengths) if len(lengths) else np.zeros(0, np.int64)
            buckets = [int(length) for length in np.flatnonzero(counts >= self.batch_size)]
            if not buckets:
                raise ValueError(
                    f"BucketSentenceIter: no length is that of batch_size={self.batch_size} sentences or more; "
                    "give the buckets"
                )
        self.buckets = sorted(buckets)
        self.default_bucket_key = max(self.buckets)
        self.data_name, self.label_name = data_name, label_name
        self.dtype = dtype
        self.invalid_label = invalid_label
        self.layout = layout
        self.nddata: list[Any] = []
        self.ndlabel: list[Any] = []

        places = np.searchsorted(self.buckets, lengths)
        self.data = []
        for i, bucket in enumerate(self.buckets):
            chosen = np.flatnonzero(places == i)
            rows = np.full((len(chosen), bucket), invalid_label, dtype=dtype)
            for row, j in enumerate(chosen.tolist()):
                rows[row, : lengths[j]] = sentences[j]
            self.data.append(rows)
        left_out = int(np.count_nonzero(places == len(self.buckets)))
        if left_out:
            logging.warning("discarded %d sentences longer than the largest bucket.", left_out)

        shape = (self.batch_size, self.default_bucket_key)
        self.provide_data = self._describe(data_name, shape)
        self.provide_label = self._describe(label_name, shape)
        self.idx = [
            (i, start)
            for i, rows in enumerate(self.data)
            for start in range(0, len(rows) - self.batch_size + 1, self.batch_size)
        ]
        self.curr_idx = 0
        self.reset()

    def _describe(self, name: str, shape: tuple[int, ...]) -> list[DataDesc]:
        return [DataDesc(name, shape if self.major_axis == 0 else shape[::-1], layout=self.layout)]

    def reset(self) -> None:
        """Start over, in another order."""
        self.curr_idx = 0
        random.shuffle(self.idx)
        self.nddata, self.ndlabel = [], []
        for rows in self.data:
            np.random.shuffle(rows)
            label = np.full_like(rows, self.invalid_label)
            label[:, :-1] = rows[:, 1:]
            self.nddata.append(nd.array(rows, dtype=self.dtype) if len(rows) else None)
            self.ndlabel.append(nd.array(label, dtype=self.dtype) if len(rows) else None)

    def next(self) -> DataBatch:
        """The next batch; StopIteration at the end."""
        if self.curr_idx == len(self.idx):
            raise StopIteration
        i, start = self.idx[self.curr_idx]
        self.curr_idx += 1
        data, label = (arrays[i][start : start + self.batch_size] for arrays in (self.nddata, self.ndlabel))
        if self.major_axis == 1:
            data, label = data.T, label.T
        return DataBatch(
            [data],
            [label],
            pad=0,
            bucket_key=self.buckets[i],
            provide_data=[DataDesc(self.data_name, data.shape, layout=self.layout)],
            provide_label=[DataDesc(self.label_name, label.shape, layout=self.layout)],
        )
