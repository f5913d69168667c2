"""gluon.data: the loader in this thread, in threads and in processes. What it loads is in test_gluon_datasets."""

import contextlib
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
from mxrs import nd
from mxrs.gluon.data import (
    ArrayDataset,
    BatchSampler,
    DataLoader,
    Dataset,
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
        batches = iter(loader)
        pids = [p.pid for p in loader._worker_pool._processes]
        # Left with batches under way. A worker may have met its error already.
        with contextlib.suppress(*filter(None, [error])):
            next(batches)
        del batches
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


@pytest.mark.parametrize("rollover", [True, False])
def test_interval_sampler(oracle, rollover):
    oracle.check(
        """
IntervalSampler = gluon.contrib.data.IntervalSampler
samplers = [IntervalSampler(n, k, bool(rollover)) for n, k in ((7, 3), (6, 3), (4, 4), (5, 1))]
out_found = [list(sampler) for sampler in samplers]
""",
        rollover=np.array(rollover),
    )
    # MXNet says 7 in both cases.
    sampler = mx.gluon.contrib.data.IntervalSampler(7, 3, rollover)
    assert len(sampler) == len(list(sampler))
    for interval in (0, 4):
        with pytest.raises(AssertionError, match=rf"interval {interval} must be .* at most length 3"):
            mx.gluon.contrib.data.IntervalSampler(3, interval)
