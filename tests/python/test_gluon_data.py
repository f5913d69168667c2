"""gluon.data: datasets, samplers, batchify functions, and the loader in this thread, in threads and in
processes.
"""

import gc
import glob
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import TimeoutError as WorkerTimeout

import numpy as np
import pytest

import mxrs as mx
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

WORKERS = [dict(num_workers=0), dict(num_workers=2), dict(num_workers=2, thread_pool=True)]
WORKER_IDS = ["caller", "processes", "threads"]


def numpy_of(batch):
    """A batch with its NDArrays as NumPy arrays, for comparison."""
    if isinstance(batch, list | tuple):
        return [numpy_of(part) for part in batch]
    assert isinstance(batch, nd.NDArray)
    return batch.asnumpy()


def assert_same_batches(left, right):
    left, right = [numpy_of(b) for b in left], [numpy_of(b) for b in right]
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        a, b = (x if isinstance(x, list) else [x] for x in (a, b))
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype and x.shape == y.shape
            np.testing.assert_array_equal(x, y)


def items(dataset):
    return [dataset[i] for i in range(len(dataset))]


class Squares(Dataset):
    """Item i is (i * i, i), computed in Python."""

    def __init__(self, length=10):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return np.full((3,), i * i, dtype=np.float32), i


class Failing(Squares):
    def __getitem__(self, i):
        if i == 5:
            raise KeyError("no item five")
        return super().__getitem__(i)


class Killing(Squares):
    def __getitem__(self, i):
        if i == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


class Sleeping(Squares):
    def __getitem__(self, i):
        if i == 5:
            time.sleep(30)
        return super().__getitem__(i)


class Odd(Exception):
    """Cannot be unpickled: its constructor wants more than its args hold."""

    def __init__(self, one, two):
        super().__init__(one)


class OddlyFailing(Squares):
    def __getitem__(self, i):
        raise Odd("strange", 2)


class Noise(Squares):
    def __getitem__(self, i):
        return np.array([random.random(), np.random.rand(), nd.random.uniform(shape=(1,)).asscalar()])


class WhoAmI(Squares):
    def __getitem__(self, i):
        return os.getpid()


def first_of_each(samples):
    return {"first": np.array([s[1] for s in samples]), "text": "x" * len(samples)}


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


# --- the loader ---------------------------------------------------------------------------------------------


def test_loader_arguments_are_checked():
    sequence, batches = SequentialSampler(1), BatchSampler(SequentialSampler(1), 1)
    with pytest.raises(ValueError, match="batch_size must be specified"):
        DataLoader([1])
    with pytest.raises(ValueError, match="shuffle must not"):
        DataLoader([1], 1, shuffle=True, sampler=sequence)
    for extra in (dict(batch_size=1), dict(shuffle=True), dict(sampler=sequence), dict(last_batch="keep")):
        with pytest.raises(ValueError, match="must not be specified if batch_sampler"):
            DataLoader([1], batch_sampler=batches, **extra)
    with pytest.raises(AssertionError, match="timeout must be positive"):
        DataLoader([1], 1, timeout=0)
    with pytest.raises(TypeError, match="batchify_fn"):
        DataLoader([1], 1, batchify_fn=3)


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
def test_batches_in_order(how):
    loader = DataLoader(Squares(10), 3, **how)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 4
        assert np.concatenate([b[1].asnumpy() for b in batches]).tolist() == list(range(10))
        assert np.concatenate([b[0].asnumpy() for b in batches])[:, 1].tolist() == [i * i for i in range(10)]
        assert batches[0][0].dtype == np.float32 and type(batches[0]) is list


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
@pytest.mark.parametrize("last, lengths", [("keep", [2, 2, 1]), ("discard", [2, 2]), ("rollover", [2, 2])])
def test_last_batch(how, last, lengths):
    loader = DataLoader(np.arange(5), 2, last_batch=last, **how)
    assert [len(b) for b in loader] == lengths
    if last == "rollover":
        assert [b.asnumpy().tolist() for b in loader] == [[4, 0], [1, 2], [3, 4]]


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
def test_shuffle_is_the_same_for_all_kinds_of_workers(how):
    np.random.seed(3)
    order = np.arange(50)
    np.random.shuffle(order)
    np.random.seed(3)
    loader = DataLoader(ArrayDataset(np.arange(50)), 7, shuffle=True, **how)
    assert np.concatenate([b.asnumpy() for b in loader]).tolist() == order.tolist()


ARRAYS = [
    (np.arange(24.0, dtype="float32").reshape(12, 2),),
    (nd.arange(24).reshape((12, 2)), np.arange(12)),
    (nd.arange(36).reshape((12, 3, 1)).astype("int32"), nd.arange(12), np.arange(12) % 2 == 0),
    (np.arange(12, dtype="uint8"), np.ones((12, 2, 2), "float16")),
]


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
@pytest.mark.parametrize("arrays", ARRAYS)
def test_gathering_whole_arrays_equals_indexing_items(arrays, how):
    class Slow(ArrayDataset):
        def __getitem__(self, i):
            return super().__getitem__(i)

    batches = [[3, 0, 11], [-1, -12, 5, 5], [7]]
    fast, slow = ArrayDataset(*arrays), Slow(*arrays)
    assert fast._whole_arrays() is not None and slow._whole_arrays() is None
    expected = [batchify.default_batchify_fn([slow[i] for i in b]) for b in batches]
    assert_same_batches(list(DataLoader(fast, batch_sampler=batches, **how)), expected)


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
@pytest.mark.parametrize("wrong", [12, -13])
def test_index_outside_the_dataset(wrong, how):
    for arrays in ARRAYS[:2]:
        with pytest.raises(IndexError, match=str(wrong)):
            list(DataLoader(ArrayDataset(*arrays), batch_sampler=[[0, wrong]], **how))


def test_gather_keeps_the_context():
    data = nd.ones((4, 2), ctx=mx.cpu(1))
    assert next(iter(DataLoader(ArrayDataset(data), 2))).context == mx.cpu(1)


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
def test_custom_batchify_result_arrives_as_it_is(how):
    first, *_, last = list(DataLoader(Squares(5), 2, batchify_fn=first_of_each, **how))
    assert type(first["first"]) is np.ndarray and first["first"].tolist() == [0, 1] and first["text"] == "xx"
    assert last["text"] == "x"
    first["first"][0] = 9  # Owns its memory.


def test_loader_can_be_left_and_nested():
    loader = DataLoader(Squares(40), 2, num_workers=2)
    batch = next(iter(loader))
    pairs = [(a[1].asnumpy()[0], b[1].asnumpy()[0]) for a, b in zip(loader, loader, strict=True)]
    assert pairs == [(i, i) for i in range(0, 40, 2)]
    assert batch[1].asnumpy().tolist() == [0, 1]


@pytest.mark.parametrize("prefetch", [0, 1, 3, 200])
def test_prefetch(prefetch):
    loader = DataLoader(Squares(90), 1, num_workers=2, prefetch=prefetch)
    assert [int(b[1].asscalar()) for b in loader] == list(range(90))


def test_big_tasks_and_big_results():
    rows = 30000
    data = ArrayDataset(np.arange(rows * 20, dtype="float64").reshape(rows, 20))
    order = list(reversed(range(rows)))
    loader = DataLoader(data, batch_sampler=[order] * 6, num_workers=2, prefetch=6)
    for batch in loader:
        assert batch.shape == (rows, 20) and batch[0, 0].asscalar() == (rows - 1) * 20


def test_workers_are_other_processes_and_threads_are_not():
    seen = {int(x) for b in DataLoader(WhoAmI(8), 1, num_workers=2) for x in b.asnumpy()}
    assert len(seen) == 2 and os.getpid() not in seen
    seen = {int(x) for b in DataLoader(WhoAmI(8), 1, num_workers=2, thread_pool=True) for x in b.asnumpy()}
    assert seen == {os.getpid()}


def test_workers_draw_different_random_numbers():
    values = np.concatenate([b.asnumpy() for b in DataLoader(Noise(8), 1, num_workers=4)])
    for column in values.T:
        assert len(set(column.tolist())) == len(values)


def test_workers_draw_the_same_numbers_for_the_same_seed():
    def draw():
        np.random.seed(11)
        return np.concatenate([b.asnumpy() for b in DataLoader(Noise(8), 1, num_workers=3)])

    np.testing.assert_array_equal(draw(), draw())


@pytest.mark.parametrize("how", WORKERS, ids=WORKER_IDS)
def test_error_in_a_dataset_reaches_the_caller(how):
    loader = DataLoader(Failing(8), 2, **how)
    got = []
    with pytest.raises(KeyError, match="no item five") as info:
        for batch in loader:
            got.append(batch[1].asnumpy().tolist())
    assert got == [[0, 1], [2, 3]]
    if how == WORKERS[1]:
        assert "in __getitem__" in str(info.value.__cause__) and "test_gluon_data.py" in str(
            info.value.__cause__
        )


def test_error_that_cannot_be_pickled():
    with pytest.raises(RuntimeError, match="Odd: strange"):
        list(DataLoader(OddlyFailing(2), 1, num_workers=1))


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_worker_raises_and_the_loader_recovers():
    loader = DataLoader(Killing(8), 2, num_workers=2)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="killed by signal 9"):
            list(loader)
        assert time.monotonic() - started < 20
    loader._fetch.dataset.__class__ = Squares
    assert len(list(loader)) == 4


@pytest.mark.parametrize("threads", [False, True])
def test_timeout(threads):
    loader = DataLoader(Sleeping(8), 2, num_workers=2, thread_pool=threads, timeout=0.5)
    if threads:  # Threads cannot be ended from outside, so the sleep has to be short.
        loader._fetch.dataset = loader._fetch.dataset.transform(lambda a, b: (time.sleep(1.5), (a, b))[1])
        loader._fetch.dataset._data.__class__ = Squares
    with pytest.raises(WorkerTimeout, match="within 0.5 seconds"):
        list(loader)
    loader.close()


def test_auto_reload_refresh_clean():
    loader = DataLoader(Squares(6), 2, num_workers=1, auto_reload=True)
    for _ in range(3):
        assert len(list(loader)) == 3
        assert loader._iter is not None
    loader.refresh()
    loader.clean()
    assert loader._iter is None and len(list(loader)) == 3
    loader.close()


def test_loader_used_by_two_threads():
    loader = DataLoader(Squares(60), 2, num_workers=2)
    results = [None, None]

    def run(slot):
        results[slot] = [int(b[1].asnumpy()[0]) for b in loader]

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [list(range(0, 60, 2))] * 2


def test_pickling():
    data = ArrayDataset(nd.arange(6).reshape((3, 2)), [1, 2, 3])
    for d in (data, data.take(2), data.transform_first(abs), SimpleDataset([1, 2]).filter(bool)):
        copy = pickle.loads(pickle.dumps(d))
        assert_same_batches(list(DataLoader(copy, 2)), list(DataLoader(d, 2)))
    loader = DataLoader(data, 2, num_workers=1)
    first = list(loader)
    assert_same_batches(list(pickle.loads(pickle.dumps(loader))), first)


def test_pin_memory_is_accepted():
    for how in WORKERS:
        batch = next(iter(DataLoader(Squares(4), 2, pin_memory=True, **how)))
        assert batch[1].asnumpy().tolist() == [0, 1]


# --- nothing is left behind ---------------------------------------------------------------------------------

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc and /dev/shm")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def segments():
    return set(glob.glob("/dev/shm/mxrs_*"))


@linux_only
def test_no_processes_descriptors_or_segments_are_left():
    def use(dataset, error=None):
        loader = DataLoader(dataset, 2, num_workers=2)
        next(iter(loader))  # Left with batches under way.
        pids = [p.pid for p in loader._worker_pool._processes]
        if error is None:
            list(loader)
        else:
            with pytest.raises(error):
                list(loader)
        return pids

    use(Squares(8))  # Starts the resource tracker, which stays.
    gc.collect()
    before, files = descriptors(), segments()
    for dataset, error in ((Squares(400), None), (Failing(8), KeyError), (Killing(8), RuntimeError)):
        pids = use(dataset, error)
        gc.collect()
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    assert descriptors() == before
    assert segments() <= files


@linux_only
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(how):
    program = (
        "import numpy as np, sys\n"
        "from mxrs.gluon.data import DataLoader\n"
        "loader = DataLoader(np.zeros((4000, 50)), 2, num_workers=2)\n"
        "batches = iter(loader); next(batches)\n"
        "print(*[p.pid for p in loader._worker_pool._processes], flush=True)\n"
        "while True:\n"
        "    list(loader)\n"
    )
    before = segments()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = [int(word) for word in child.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.2)
    child.send_signal(how)
    _, errors = child.communicate(timeout=30)
    assert child.returncode != 0
    if how == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if not alive and segments() <= before:
            break
        time.sleep(0.1)
    assert not alive
    assert segments() <= before


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method, tmp_path):
    if os.name == "nt" and method == "forkserver":
        pytest.skip("Windows has no forkserver")
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np\n"
        "from mxrs.gluon.data import ArrayDataset, DataLoader\n"
        "if __name__ == '__main__':\n"
        "    for batch in DataLoader(ArrayDataset(np.arange(6)), 2, num_workers=2):\n"
        "        print(batch.asnumpy().sum())\n"
        "    try:\n"
        "        list(DataLoader(ArrayDataset(np.arange(6)).transform(lambda x: x), 2, num_workers=1))\n"
        "    except RuntimeError as error:\n"
        "        print('refused' if 'picklable' in str(error) else error)\n"
    )
    environment = {**os.environ, "MXRS_WORKER_START": method}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout.split() == ["1", "5", "9", "refused"], done.stderr
