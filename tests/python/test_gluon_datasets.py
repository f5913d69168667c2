"""gluon.data: datasets, samplers and batchify functions."""

import numpy as np
import pytest

from mxrs import gluon, nd
from mxrs.gluon.data import (
    ArrayDataset,
    BatchSampler,
    DataLoader,
    Dataset,
    FilterSampler,
    IntervalSampler,
    RandomSampler,
    SequentialSampler,
    SimpleDataset,
    batchify,
)


def items(dataset):
    return [dataset[i] for i in range(len(dataset))]


# --- datasets -----------------------------------------------------------------------------------------------


def test_array_dataset_items_are_rows():
    d = ArrayDataset(nd.arange(6).reshape((3, 2)), np.arange(3), ["a", "b", "c"])
    row, number, letter = d[1]
    assert isinstance(row, nd.NDArray) and row.asnumpy().tolist() == [2, 3]
    assert (number, letter) == (1, "b")
    assert d[-1][2] == "c" and len(d) == 3
    with pytest.raises(IndexError):
        d[3]


def test_array_dataset_of_one_array_has_no_tuples():
    assert ArrayDataset(np.arange(3))[2] == 2


def test_one_axis_ndarray_gives_numbers():
    item = ArrayDataset(nd.arange(3), nd.arange(3))[1]
    assert all(isinstance(x, np.float32) for x in item) and item == (1.0, 1.0)


def test_array_dataset_refuses():
    with pytest.raises(AssertionError, match="at least 1"):
        ArrayDataset()
    with pytest.raises(AssertionError, match=r"array\[0\] has length 2 while array\[1\] has 1"):
        ArrayDataset([1, 2], [1])


@pytest.mark.parametrize(
    "shards, expected", [(1, [10]), (2, [5, 5]), (3, [4, 3, 3]), (4, [3, 3, 2, 2]), (12, [1] * 10 + [0, 0])]
)
def test_shards_cover_everything_once(shards, expected):
    parts = [SimpleDataset(range(10)).shard(shards, i) for i in range(shards)]
    assert [len(p) for p in parts] == expected
    assert [x for p in parts for x in items(p)] == list(range(10))


@pytest.mark.parametrize("shards, index", [(2, 2), (2, -1), (0, 0)])
def test_shard_out_of_bounds(shards, index):
    with pytest.raises(AssertionError, match="out of"):
        SimpleDataset(range(4)).shard(shards, index)


def test_filter_take_sample():
    d = SimpleDataset(range(10))
    assert items(d.filter(lambda x: x % 3 == 0)) == [0, 3, 6, 9]
    assert items(d.take(3)) == [0, 1, 2] and len(d.take(None)) == 10 and len(d.take(99)) == 10
    assert items(d.sample(SequentialSampler(2, 3))) == [3, 4]
    assert items(d.take(6).filter(lambda x: x > 2).shard(2, 1)) == [5]
    with pytest.raises(ValueError, match="negative"):
        d.take(-1)
    with pytest.raises(TypeError, match="Sampler"):
        d.sample([1])


def test_transform():
    pairs = ArrayDataset([1, 2], [3, 4], [5, 6])
    assert pairs.transform(lambda a, b, c: a + b + c)[1] == 12
    assert pairs.transform_first(lambda a: a * 5)[1] == (10, 4, 6)
    assert SimpleDataset([1, 2]).transform_first(lambda a: a * 5)[1] == 10


def test_transform_lazy_or_not():
    calls = []

    def count(x):
        calls.append(x)
        return x

    lazy = SimpleDataset([1, 2]).transform(count)
    assert calls == []
    assert lazy[0] == lazy[0] == 1 and calls == [1, 1]
    eager = SimpleDataset([1, 2]).transform(count, lazy=False)
    assert items(eager) == [1, 2] and calls == [1, 1, 1, 2]


def test_abstract_classes_name_what_is_missing():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(gluon.data.Sampler())


# --- samplers -----------------------------------------------------------------------------------------------


def test_samplers():
    assert list(SequentialSampler(3, 2)) == [2, 3, 4]
    assert list(FilterSampler(lambda x: x > 1, SimpleDataset([0, 1, 2, 3]))) == [2, 3]
    assert list(IntervalSampler(7, 3)) == [0, 3, 6, 1, 4, 2, 5]
    once = IntervalSampler(7, 3, rollover=False)
    assert list(once) == [0, 3, 6] and len(once) == 3
    with pytest.raises(AssertionError, match="interval 4"):
        IntervalSampler(3, 4)


def test_random_sampler_follows_numpys_seed():
    np.random.seed(0)
    expected = np.arange(20)
    np.random.shuffle(expected)
    np.random.seed(0)
    sampler = RandomSampler(20)
    assert list(sampler) == expected.tolist()
    assert list(sampler) != expected.tolist() and len(sampler) == 20


def test_batch_sampler_keep_discard():
    five = SequentialSampler(5)
    assert list(BatchSampler(five, 2, "keep")) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(five, 2, "discard")) == [[0, 1], [2, 3]]
    assert [len(BatchSampler(five, 2, last)) for last in ("keep", "discard", "rollover")] == [3, 2, 2]


def test_batch_sampler_rollover():
    sampler = BatchSampler(SequentialSampler(5), 3, "rollover")
    epochs = []
    for _ in range(3):
        length = len(sampler)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == length
    assert epochs == [[[0, 1, 2]], [[3, 4, 0], [1, 2, 3]], [[4, 0, 1], [2, 3, 4]]]


@pytest.mark.parametrize("size", [0, -1, 1.5, None, "2"])
def test_batch_size_is_checked(size):
    with pytest.raises(ValueError, match="batch_size"):
        BatchSampler(SequentialSampler(5), size)


def test_last_batch_is_checked():
    with pytest.raises(ValueError, match="'keep', 'discard', or 'rollover', but got x"):
        DataLoader([1], 1, last_batch="x")


# --- batchify -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples, dtype, shape",
    [
        ([1, 2], np.int64, (2,)),
        ([1.0, 2.0], np.float64, (2,)),
        ([True, False], np.bool_, (2,)),
        ([np.float32(1), np.float32(2)], np.float32, (2,)),
        ([np.zeros((2, 3), "uint8")] * 4, np.uint8, (4, 2, 3)),
        ([[1, 2], [3, 4], [5, 6]], np.int64, (3, 2)),
    ],
)
def test_default_batchify_keeps_dtypes(samples, dtype, shape):
    for function in (batchify.default_batchify_fn, batchify.default_mp_batchify_fn):
        batch = function(samples)
        assert isinstance(batch, nd.NDArray) and batch.dtype == dtype and batch.shape == shape


def test_default_batchify_takes_tuples_apart():
    a, (b, c) = batchify.default_batchify_fn([(1, (2, nd.ones(3))), (4, (5, nd.zeros(3)))])
    assert a.asnumpy().tolist() == [1, 4] and b.asnumpy().tolist() == [2, 5]
    assert c.asnumpy().tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("make", [np.zeros, nd.zeros, lambda n: [0] * n])
def test_default_batchify_refuses_different_shapes(make):
    with pytest.raises(ValueError, match="Pad"):
        batchify.default_batchify_fn([make(2), make(3)])


def test_default_batchify_refuses_words_and_nothing():
    with pytest.raises(TypeError, match="str"):
        batchify.default_batchify_fn(["a", "b"])
    with pytest.raises(ValueError, match="empty"):
        batchify.default_batchify_fn([])


def test_pad():
    batch, lengths = batchify.Pad(axis=0, val=-1, ret_length=True)([np.array([1.0, 2.0]), np.array([3.0])])
    assert batch.asnumpy().tolist() == [[1, 2], [3, -1]]
    assert lengths.asnumpy().tolist() == [2, 1] and lengths.dtype == np.int32
    both = batchify.Pad(dtype="float32")([np.ones((1, 3)), nd.ones((2, 1))])
    assert both.shape == (2, 2, 3) and both.asnumpy().sum() == 5 and both.dtype == np.float32
    with pytest.raises(ValueError, match="axis 1"):
        batchify.Pad(axis=0)([np.ones((1, 3)), np.ones((2, 1))])
    with pytest.raises(ValueError, match="out of range"):
        batchify.Pad(axis=2)([np.ones((1, 3))])


def test_group_and_list():
    samples = [([1, 2], 3, "a"), ([4], 5, "b")]
    padded, numbers, words = batchify.Tuple(batchify.Pad(), batchify.Stack(), batchify.List())(samples)
    assert padded.asnumpy().tolist() == [[1, 2], [4, 0]] and numbers.asnumpy().tolist() == [3, 5]
    assert words == ["a", "b"]
    with pytest.raises(ValueError, match="2 functions"):
        batchify.Group([batchify.Stack(), batchify.Stack()])(samples)
