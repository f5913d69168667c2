"""mx.io: iterators over CSV, LibSVM and MNIST files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mxrs import io
from mxrs.base import MXNetError


def labels(it):
    return [b.label[0].asnumpy().tolist() for b in it]


# ---- CSV -----------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def csv_epochs(it, epochs=1):
    seen = []
    for _ in range(epochs):
        seen.append(
            [
                (b.data[0].asnumpy().tolist(), b.label[0].asnumpy().tolist(), b.pad, b.index.tolist())
                for b in it
            ]
        )
        it.reset()
    return seen


_CSV_EPOCHS = """
it = mx.io.CSVIter(data_csv=PATH, **ARGS)
out_provided = [(d.name, tuple(d.shape), np.dtype(d.dtype).name) for d in it.provide_data + it.provide_label]
out_batches = []
for e in range(4):
    # asnumpy at once: over there the next batch takes the memory of this one
    out_batches.append([(b.data[0].asnumpy(), b.label[0].asnumpy(), b.pad, b.index.tolist()) for b in it])
    it.reset()
"""


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("1,2\n3,4\n5,6\n", {"batch_size": 2}),
        ("1,2\n3,4\n5,6\n7,8\n", {"batch_size": 3}),
        ("1,2\n3,4\n5,6\n7,8\n", {"batch_size": 3, "round_batch": False}),
        ("1, 2\r\n\n 3 ,4,\n", {"batch_size": 1}),
        ("nan,inf\n-inf,1e5\n+1,-.5e-3", {"batch_size": 3}),
        ("1,2\n3,4\n", {"batch_size": 2, "dtype": "int32"}),
        ("9007199254740993,2\n3,4\n", {"batch_size": 2, "dtype": "int64"}),
        ("1,2\n3,4\n", {"batch_size": "2", "data_shape": "(2,)", "round_batch": "False"}),
        ("1,2\n3,4\n", {"batch_size": 2, "data_shape": (2, 1), "data_name": "x", "label_name": "y"}),
    ],
)
def test_csv_equals_mxnet(oracle, write, text, args):
    args = {"data_shape": (2,), **args}
    code = _CSV_EPOCHS.replace("ARGS", repr(args)).replace("PATH", repr(write("t.csv", text)))
    oracle.check(code)


def test_csv_with_labels(write):
    data = write("t.csv", "1,2\n3,4\n5,6\n")
    it = io.CSVIter(data_csv=data, data_shape=(2,), label_csv=write("l.csv", "1\n2\n3\n"), batch_size=2)
    assert [batch[1] for batch in csv_epochs(it)[0]] == [[1, 2], [3, 1]]
    pairs = write("p.csv", "1,2\n2,3\n3,4\n")
    it = io.CSVIter(data_csv=data, data_shape=(2,), label_csv=pairs, label_shape=(2,), batch_size=3)
    assert csv_epochs(it)[0][0][1] == [[1, 2], [2, 3], [3, 4]]
    with pytest.raises(MXNetError, match=r"l2\.csv' has 1 rows, fewer than data_csv"):
        io.CSVIter(data_csv=data, data_shape=(2,), label_csv=write("l2.csv", "1\n"), batch_size=2)
    with pytest.warns(UserWarning, match="has more rows than the 3"):
        csv_epochs(
            io.CSVIter(
                data_csv=data, data_shape=(2,), label_csv=write("l4.csv", "1\n2\n3\n4\n"), batch_size=2
            )
        )


def test_csv_folders_and_lists(write, tmp_path):
    second, first = write("d/b.csv", "1,2\n"), write("d/a.csv", "3,4\n")
    for uri, rows in (
        (str(tmp_path / "d"), [[3, 4], [1, 2]]),
        (f"{second};{first}", [[1, 2], [3, 4]]),
        (str(tmp_path / "d" / r".*\.csv"), [[3, 4], [1, 2]]),
    ):
        assert csv_epochs(io.CSVIter(data_csv=uri, data_shape=(2,), batch_size=2))[0][0][0] == rows


def test_csv_reads_many_blocks(write):
    rows = np.random.RandomState(0).uniform(-1, 1, (40000, 8)).astype("f4")
    path = write("big.csv", "\n".join(",".join(map(repr, row)) for row in rows.tolist()))
    it = io.CSVIter(data_csv=path, data_shape=(8,), batch_size=999)
    for _ in range(2):
        batches = [b.data[0].asnumpy() for b in it]
        it.reset()
    # The first epoch borrowed 959 rows from the second, which goes on behind them and borrows 919 itself.
    shifted = np.concatenate([rows[959:], rows])[: len(batches) * 999]
    np.testing.assert_array_equal(np.concatenate(batches), shifted)


def test_csv_reset_before_the_end_starts_over(write):
    it = io.CSVIter(data_csv=write("t.csv", "1\n2\n3\n"), data_shape=(1,), batch_size=1)
    for _ in range(2):
        it.reset()
        assert it.next().data[0].asnumpy().tolist() == [[1]]
        assert it.iter_next() and it.getdata().asnumpy().tolist() == [[2]]
        assert (it.getpad(), it.getindex().tolist(), it.getlabel().shape) == (0, [1], (1,))
    it.reset()
    it.debug_skip_load()
    assert [it.next().data[0].asnumpy().item() for _ in range(5)] == [1] * 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2\n3,4\na,b\n", r"line 3: 'a' is not a number of type float32; the line is 'a,b'"),
        ("1,2\n\n3,4x\n", r"line 3: '4x' is not a number"),
        ("1,2\n1_0,2\n", r"line 2: '1_0' is not a number"),
        ("1,2\n,4\n", r"line 2: '' is not a number"),
        ("1,2\n3\n", r"line 2: 1 values, but data_shape=\(2,\) needs 2"),
        ("1,2,3\n4,5\n", r"line 1: 3 values"),
        ("1 2\n", r"line 1: 1 values"),
        ("", r"there are no rows"),
        ("\n \n", r"there are no rows"),
        (b"1,2\n\xff\x00,3\n", r"line 2: .* is not a number"),
    ],
)
def test_csv_errors_name_file_and_line(write, text, says):
    path = write("bad.csv", text)
    with pytest.raises(MXNetError, match=says) as caught:
        csv_epochs(io.CSVIter(data_csv=path, data_shape=(2,), batch_size=2))
    assert "no rows" in says or path in str(caught.value)


def test_csv_errors_far_into_a_file(write):
    path = write("bad.csv", "1,2\n" * 600_000 + "3,oops\n")
    with pytest.raises(MXNetError, match="line 600001: 'oops'"):
        csv_epochs(io.CSVIter(data_csv=path, data_shape=(2,), batch_size=1000))


def test_csv_arguments(write, tmp_path):
    path = write("t.csv", "1,2\n")
    for kwargs, says in (
        (dict(data_csv=str(tmp_path / "none.csv")), "no such file"),
        (dict(batch_size=None), "batch_size is required"),
        (dict(data_shape=(0,)), "data_shape"),
        (dict(data_shape="x"), "data_shape"),
        (dict(dtype="uint8"), "dtype"),
        (dict(round_batch="maybe"), "round_batch"),
    ):
        with pytest.raises(MXNetError, match=says):
            io.CSVIter(**{"data_csv": path, "data_shape": (2,), "batch_size": 1, **kwargs})
    with pytest.warns(UserWarning, match="roundbatch are not known"):
        io.CSVIter(data_csv=path, data_shape=(2,), batch_size=1, roundbatch=True)


# ---- LibSVM --------------------------------------------------------------------------------------------


def svm(path, **kwargs):
    with pytest.warns(UserWarning, match="dense"):
        return io.LibSVMIter(**{"data_libsvm": path, "data_shape": (3,), "batch_size": 2, **kwargs})


def test_libsvm_rows(write):
    path = write("t.svm", "1 0:2 2:3\n\n0 1:5 # five\n# nothing\n2:0.5 qid:7 0:1\t2:-1e1\r\n")
    it = svm(path)
    assert it.provide_data == [("data", (2, 3))] and it.provide_label == [("softmax_label", (2,))]
    one, two, three = [2, 0, 3], [0, 5, 0], [1, 0, -10]
    assert csv_epochs(it, 3) == [
        [([one, two], [1, 0], 0, [0, 1]), ([three, one], [2, 1], 1, [2, 0])],
        [([two, three], [0, 2], 0, [1, 2])],
        [([one, two], [1, 0], 0, [0, 1]), ([three, one], [2, 1], 1, [2, 0])],
    ]
    assert csv_epochs(svm(path, batch_size=7))[0][0][3] == [0, 1, 2, 0, 1, 2, 0]


def test_libsvm_label_file(write):
    data, label = write("t.svm", "1 0:2\n0 1:2\n"), write("l.svm", "1\n-2 0:0.125 2:1\n")
    it = svm(data, label_libsvm=label, label_shape=(3,))
    assert csv_epochs(it)[0][0][:2] == ([[2, 0, 0], [0, 2, 0]], [[0, 0, 0], [0.125, 0, 1]])


def test_libsvm_parts_cover_all_rows_once(write):
    path = write("t.svm", "".join(f"{i} {i % 3}:{i}\n" for i in range(1, 20)))
    parts = [
        [int(b.label[0].asnumpy()[0]) for b in svm(path, batch_size=1, num_parts=3, part_index=p)]
        for p in range(3)
    ]
    # The boundaries are those of MXNet, which cuts at bytes.
    assert parts == [list(range(1, 9)), list(range(9, 15)), list(range(15, 20))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 0:2\n0 3:1\n", r"line 2: column 3 is not a whole number in \[0, 3\)"),
        ("1 0:2\n0 -1:1\n", r"line 2: column -1"),
        ("1 0.5:2\n", r"line 1: column 0.5"),
        ("1 0:2\n0 1\n", r"line 2: a row is a label"),
        ("1 0:2:3\n", r"line 1: a row is a label"),
        ("x 0:2\n", r"line 1: 'x' is not a number"),
        ("1 0:2\n1 0:x\n", r"line 2: 'x' is not a number"),
        ("1 a:2\n", r"line 1: 'a' is not a number"),
        ("1 nan:2\n", r"line 1: column nan"),
        ("", r"there are no rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:LibSVMIter:UserWarning")
def test_libsvm_errors_name_file_and_line(write, text, says):
    with pytest.raises(MXNetError, match=says):
        io.LibSVMIter(data_libsvm=write("bad.svm", text), data_shape=(3,), batch_size=1)


def test_libsvm_arguments(write):
    path = write("t.svm", "1 0:2\n")
    for kwargs, says in (
        (dict(round_batch=False), "round_batch"),
        (dict(dtype="float64"), "float32"),
        (dict(data_shape=(3, 2)), "one dimension"),
        (dict(label_shape=(2,)), "label_libsvm"),
        (dict(label_libsvm=path), "label_shape"),
        (dict(num_parts=2, part_index=2), "part_index"),
    ):
        with pytest.raises(MXNetError, match=says):
            io.LibSVMIter(**{"data_libsvm": path, "data_shape": (3,), "batch_size": 1, **kwargs})


# ---- MNIST ---------------------------------------------------------------------------------------------


@pytest.fixture
def digits(write):
    pictures = (np.arange(10)[:, None, None] + np.arange(12).reshape(1, 4, 3) * 20).astype("u1")
    image = struct.pack(">4I", 2051, 10, 4, 3) + pictures.tobytes()
    label = struct.pack(">2I", 2049, 10) + bytes(range(10))
    write("im.gz", gzip.compress(image)), write("lb.gz", gzip.compress(label))
    return pictures, {"image": write("im", image), "label": write("lb", label)}


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"flat": True},
        {"num_parts": 3, "part_index": 1, "batch_size": 2},
        {"label_name": "y", "input_shape": (1, 2)},
    ],
)
def test_mnist_equals_mxnet(oracle, digits, args):
    args = {**digits[1], "batch_size": 4, "shuffle": False, "silent": True, **args}
    oracle.check(
        f"""
it = mx.io.MNISTIter(**{args!r})
out_provided = [(d.name, tuple(d.shape)) for d in it.provide_data + it.provide_label]
out_batches = []
for e in range(2):
    out_batches.append([(b.data[0].asnumpy(), b.label[0].asnumpy(), b.pad) for b in it])
    it.reset()
"""
    )


def test_mnist_shuffles_by_its_seed(digits):
    pictures, files = digits

    def order(**kwargs):
        it = io.MNISTIter(**files, batch_size=5, silent=True, **kwargs)
        first = [(b.data[0].asnumpy(), b.label[0].asnumpy().astype(int)) for b in it]
        it.reset()
        assert labels(it) == [label.tolist() for _, label in first]
        for data, label in first:
            np.testing.assert_array_equal(data[:, 0] * 256, pictures[label])
        return np.concatenate([label for _, label in first]).tolist()

    assert order(seed=3) == order(seed=3) != order(seed=4)
    assert sorted(order()) == list(range(10)) != order()


def test_mnist_reads_gzip(digits):
    files = {name: path + ".gz" for name, path in digits[1].items()}
    it = io.MNISTIter(**files, batch_size=5, shuffle=False)
    assert labels(it) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_mnist_errors_name_file_and_place(digits, write):
    files = digits[1]
    good = Path(files["image"]).read_bytes()
    damaged = [
        (good[:-1], r"offset 4: the shape \(10, 4, 3\) makes the file end at offset 136"),
        (good + b"x", "ends at 137"),
        (good[:10], "offset 0"),
        (b"", "offset 0: nothing"),
        (b"\x00\x00\x0d\x03" + good[4:], "offset 0: 00000d03"),
        (struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "offset 4"),
        (gzip.compress(good)[:-9], "gzip stream"),
    ]
    for content, says in damaged:
        with pytest.raises(MXNetError, match=says):
            io.MNISTIter(image=write("bad", content), label=files["label"], batch_size=1)
    for kwargs, says in (
        (dict(label=files["image"]), "offset 0"),
        (dict(image=files["image"] + ".none"), "No such file"),
        (dict(batch_size=11), "batch_size=11 is more than the 10"),
        (dict(part_index=2, num_parts=2), "part_index"),
        (dict(dtype="uint8"), "float32"),
    ):
        with pytest.raises(MXNetError, match=says):
            io.MNISTIter(**{**files, "batch_size": 1, **kwargs})
