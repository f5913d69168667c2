"""mx.io: batches and their descriptions, iterators over arrays and files, and iterators over iterators."""

import copy
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import mxrs as mx
from mxrs import io, nd

MODES = ("pad", "discard", "roll_over")


def epoch(it):
    """Data, labels and pad of every batch of an epoch."""
    return [
        ([d.asnumpy().tolist() for d in b.data], [l.asnumpy().tolist() for l in b.label], b.pad) for b in it
    ]


# ---- descriptions and batches --------------------------------------------------------------------------


def test_desc_is_a_pair():
    desc = io.DataDesc("x", (2, 3), np.int32, "NTC")
    assert desc == ("x", (2, 3)) and (desc.name, desc.shape) == ("x", (2, 3))
    assert repr(desc) == "DataDesc[x,(2, 3),<class 'numpy.int32'>,NTC]"
    for twin in (copy.copy(desc), pickle.loads(pickle.dumps(desc))):
        assert (twin, twin.dtype, twin.layout) == (desc, np.int32, "NTC")
    assert [io.DataDesc.get_batch_axis(l) for l in ("NCHW", "TNC", "CN", "T", None)] == [0, 1, 1, -1, 0]
    listed = io.DataDesc.get_list([("a", (2,)), ("b", (3,))], [("b", "float16"), ("a", "int32")])
    assert [(d.name, d.dtype) for d in listed] == [("a", "int32"), ("b", "float16")]
    with pytest.raises(KeyError):
        io.DataDesc.get_list([("a", (2,))], [("b", "int32")])


def test_batch_wants_lists():
    assert str(io.DataBatch([nd.ones((2, 3))])) == "DataBatch: data shapes: [(2, 3)] label shapes: None"
    assert io.DataBatch(None).data is None
    with pytest.raises(AssertionError, match="Data must be list"):
        io.DataBatch(nd.ones(2))
    with pytest.raises(AssertionError, match="Label must be list"):
        io.DataBatch([nd.ones(2)], nd.ones(2))


def test_a_subclass_needs_only_the_protocol():
    class Count(io.DataIter):
        def __init__(self):
            super().__init__(2)
            self.at = 0

        def reset(self):
            self.at = 0

        def iter_next(self):
            self.at += 1
            return self.at <= 3

        def getdata(self):
            return [nd.full((2,), self.at)]

        def getpad(self):
            return 0

    it = Count()
    for _ in range(2):
        assert [b.data[0].asnumpy().tolist() for b in it] == [[1, 1], [2, 2], [3, 3]]
        it.reset()


# ---- arrays in memory ----------------------------------------------------------------------------------

_EPOCHS = """
out_runs = []
for shuffle in (False, True):
    for n, size in SIZES:
        np.random.seed(n)
        it = mx.io.NDArrayIter(np.arange(n), np.arange(n) * 10, size, shuffle, MODE)
        out_runs.append([it.idx.tolist(), it.cursor, it.num_data, it.num_source])
        for e in range(5):
            for b in it:
                out_runs.append([b.data[0].asnumpy(), b.label[0].asnumpy(), b.pad, b.index])
            (it.hard_reset if e == 3 else it.reset)()
            out_runs.append([it.cursor, it.idx.tolist()])
"""


@pytest.mark.parametrize("mode", MODES)
def test_epochs_equal_mxnet(oracle, mode):
    sizes = [(5, 2), (5, 3), (7, 4), (4, 2), (5, 5), (9, 4)]
    if mode != "roll_over":
        sizes.append((2, 5))
    oracle.check(_EPOCHS.replace("SIZES", repr(sizes)).replace("MODE", repr(mode)))


def test_reset_within_an_epoch_starts_over():
    for mode in MODES:
        it = io.NDArrayIter(np.arange(5), None, 2, last_batch_handle=mode)
        it.next()
        it.reset()
        assert it.next().data[0].asnumpy().tolist() == [0, 1]


def test_rolled_examples_survive_shuffling():
    it = io.NDArrayIter(np.arange(7), None, 3, shuffle=True, last_batch_handle="roll_over")
    seen = []
    for _ in range(3):
        seen += [x for b in it for x in b.data[0].asnumpy().astype(int).tolist()]
        it.reset()
    # Three epochs of seven: the last one, with nothing left over, ends exactly.
    assert sorted(seen) == sorted(list(range(7)) * 3)


def test_stepping_by_iter_next_agrees_with_next():
    for mode in MODES:
        one = io.NDArrayIter(np.arange(5), np.arange(5), 2, last_batch_handle=mode)
        two = io.NDArrayIter(np.arange(5), np.arange(5), 2, last_batch_handle=mode)
        stepped = []
        while one.iter_next():
            stepped.append(
                (one.getdata()[0].asnumpy().tolist(), one.getlabel()[0].asnumpy().tolist(), one.getpad())
            )
        assert not one.iter_next()
        assert stepped == [(d[0], l[0], p) for d, l, p in epoch(two)]
    with pytest.raises(RuntimeError, match="no current batch"):
        one.getdata()


def test_names_dtypes_and_forms(oracle):
    oracle.check(
        """
z = np.zeros
def names(it): return [(d.name, tuple(d.shape), np.dtype(d.dtype).name, d.layout) for d in it.provide_data + it.provide_label]
I = mx.io.NDArrayIter
out_forms = [
    names(I(z((4, 3)), z(4), 2)), names(I(z((4, 3)), z((4, 1)), 2, data_name='d', label_name='l')),
    names(I([z((4, 3)), z((4, 1))], [z(4), z(4)], 2)), names(I([z((4, 3))], [z(4)], 2)),
    names(I({'b': z((4, 3)), 'a': z(4)}, {'z': z(4), 'y': z(4)}, 2)), names(I(z((3, 2), 'int32'), None, 2, layout='NTC')),
    names(I(nd.zeros((3, 2), dtype='int32'), None, 2)), names(I(nd.zeros((3, 2), dtype='float64'), None, 2)),
    names(I([[1, 2], [3, 4]])), names(I({'a': [1, 2, 3]})),
]
out_empty = I(z(3), None).next().label
"""
    )


def test_a_shuffled_ndarray_keeps_its_dtype():
    it = io.NDArrayIter(nd.array([1 << 25, (1 << 25) + 1], dtype="int32"), None, 2, shuffle=True)
    batch = it.next().data[0]
    assert batch.dtype == np.int32 and sorted(batch.asnumpy().tolist()) == [1 << 25, (1 << 25) + 1]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "says"),
    [
        ((None,), {}, AssertionError, "at least one array"),
        (([],), {}, AssertionError, "at least one array"),
        (("x",), {}, TypeError, "Input must be NDArray"),
        ((np.array(["a"]),), {}, TypeError, "Invalid type"),
        ((np.zeros(()),), {}, ValueError, "first axis"),
        (([1, 2, 3],), {}, ValueError, "first axis"),
        ((np.zeros((0, 2)),), {}, ValueError, "no examples"),
        ((np.zeros(3), np.zeros(4)), {}, ValueError, "data: 3, softmax_label: 4"),
        ((np.zeros(3), None, 0), {}, ValueError, "batch_size"),
        ((np.zeros(3), None, -2), {}, ValueError, "batch_size"),
        ((np.zeros(3), None, 1.5), {}, ValueError, "batch_size"),
        ((np.zeros(3), None, "x"), {}, ValueError, "batch_size"),
        ((np.zeros(3),), dict(last_batch_handle="keep"), ValueError, "pad, discard, roll_over"),
        ((np.zeros(3), None, 4), dict(last_batch_handle="roll_over"), ValueError, "at least batch_size=4"),
    ],
)
def test_what_ndarrayiter_refuses(args, kwargs, error, says):
    with pytest.raises(error, match=says):
        io.NDArrayIter(*args, **kwargs)


# ---- iterators over iterators --------------------------------------------------------------------------


def counting(n=6, size=2, **kwargs):
    return io.NDArrayIter(np.arange(n), np.arange(n), size, **kwargs)


def firsts(it):
    return [b.data[0].asnumpy()[0] for b in it]


def test_resize_iter():
    it = io.ResizeIter(counting(), 5)
    for _ in range(2):
        assert firsts(it) == [0, 2, 4, 0, 2]
        it.reset()
    it = io.ResizeIter(counting(), 2, reset_internal=False)
    assert firsts(it) == [0, 2]
    it.reset()
    assert firsts(it) == [4, 0]
    assert it.provide_data == [("data", (2,))] and it.batch_size == 2 and it.getpad() == 0
    empty = io.ResizeIter(io.NDArrayIter(np.zeros(1), None, 2, last_batch_handle="discard"), 1)
    with pytest.raises(ValueError, match="gives no batch"):
        empty.next()


def test_prefetching_joins_iterators():
    other = io.NDArrayIter({"x": np.arange(6) * 2}, {"y": np.arange(6)}, 2)
    it = io.PrefetchingIter(
        [counting(), other],
        rename_data=[{"data": "a"}, {}],
        rename_label=[{}, {"y": "b"}],
    )
    assert it.provide_data == [("a", (2,)), ("x", (2,))]
    assert it.provide_label == [("softmax_label", (2,)), ("b", (2,))]
    for _ in range(3):
        batches = list(it)
        assert [[d.asnumpy()[1] for d in b.data] for b in batches] == [[1, 2], [3, 6], [5, 10]]
        assert batches[0].provide_data == it.provide_data and batches[0].pad == 0
        with pytest.raises(StopIteration):
            it.next()
        it.reset()
    it.next()
    it.reset()
    assert firsts(it) == [0, 2, 4]


class Failing(io.DataIter):
    """The second batch of each epoch cannot be made."""

    provide_data = [io.DataDesc("data", (2,))]
    provide_label: list = []

    def __init__(self):
        super().__init__(2)
        self.at = 0

    def reset(self):
        self.at = 0

    def next(self):
        self.at += 1
        if self.at == 2:
            raise KeyError("the second batch is damaged")
        if self.at > 3:
            raise StopIteration
        return io.DataBatch([nd.full((2,), self.at)], [], pad=0)


def test_prefetching_raises_in_the_consumer():
    it = io.PrefetchingIter(Failing())
    for _ in range(2):
        assert it.next().data[0].asnumpy()[0] == 1
        with pytest.raises(KeyError, match="second batch is damaged"):
            it.next()
        assert it.next().data[0].asnumpy()[0] == 3
        with pytest.raises(StopIteration):
            it.next()
        it.reset()


def test_prefetching_refuses_what_does_not_fit():
    with pytest.raises(AssertionError, match="at least one"):
        io.PrefetchingIter([])
    with pytest.raises(ValueError, match="list of 1 dicts"):
        io.PrefetchingIter(counting(), rename_data={"data": "x"})
    it = io.PrefetchingIter([counting(6), counting(4)])
    it.next(), it.next()
    with pytest.raises(ValueError, match=r"different numbers of batches.*\[1\]"):
        it.next()
    with pytest.raises(ValueError, match="pad a batch by different numbers"):
        io.PrefetchingIter([counting(5, 6), counting(4, 6)]).next()


def test_prefetching_threads_end_with_their_iterator():
    before = threading.active_count()
    for _ in range(20):
        it = io.PrefetchingIter([counting(), counting()])
        it.next()
        del it
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_prefetching_does_not_hang_exit():
    code = """
import time
import numpy as np
import mxrs as mx
class Slow(mx.io.NDArrayIter):
    def next(self):
        time.sleep(0.2)
        return super().next()
it = mx.io.PrefetchingIter(Slow(np.arange(100), None, 2))
it.next()
print("end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_prefetching_passes_buckets_on():
    it = io.PrefetchingIter(mx.rnn.BucketSentenceIter([[1, 2], [3, 4], [5], [6]], 2, buckets=[1, 2]))
    seen = {b.bucket_key: (b.provide_data[0].shape, b.data[0].shape) for b in it}
    assert seen == {1: ((2, 1), (2, 1)), 2: ((2, 2), (2, 2))}


def test_iterators_that_are_not_built_say_so():
    for name in ("ImageRecordIter", "ImageDetRecordIter", "ImageRecordUInt8Iter", "ImageRecordInt8Iter"):
        with pytest.raises(NotImplementedError, match=f"mx.io.{name} is not built yet"):
            getattr(io, name)(path_imgrec="x.rec")
