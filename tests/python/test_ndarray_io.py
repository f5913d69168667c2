"""nd.save and nd.load: MXNet's files byte for byte, whole or not at all, and damaged ones refused by name and
offset.
"""

from __future__ import annotations

import os
import pickle
import stat
import struct

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd

# Files that MXNet 1.9.1 wrote: [A([1., 2.])], {"w": A([1.])}, [A([1], int64)], a row_sparse array.
LIST = bytes.fromhex(
    "120100000000000000000000000000000100000000000000c9fa93f90000000001000000020000000000000001000000"
    "0000000000000000" + "0000803f" + "00000040" + "0000000000000000"
)
NAMED = bytes.fromhex(
    "120100000000000000000000000000000100000000000000c9fa93f90000000001000000010000000000000001000000"
    "0000000000000000" + "0000803f" + "0100000000000000" + "0100000000000000" + "77"
)
INT64 = bytes.fromhex(
    "120100000000000000000000000000000100000000000000c9fa93f90000000001000000010000000000000001000000"
    "0000000006000000" + "0100000000000000" + "0000000000000000"
)
ROW_SPARSE = bytes.fromhex(
    "120100000000000000000000000000000100000000000000c9fa93f901000000020000000100000000000000010000000000000002000000"
    "03000000000000000100000000000000010000000000000000000000060000000100000001000000000000000000a0400100000000000000"
    "0000000000000000"
)
HEAD = struct.pack("<QQQ", 0x112, 0, 1)
NO_NAMES = struct.pack("<Q", 0)


def test_bytes_are_those_of_mxnet(tmp_path):
    path = tmp_path / "x"
    for data, content in (
        ([nd.array([1.0, 2.0])], LIST),
        (nd.array([1.0, 2.0]), LIST),
        ({"w": nd.array([1.0])}, NAMED),
        ([nd.array([1], dtype="int64")], INT64),
    ):
        nd.save(str(path), data)
        assert path.read_bytes() == content


def test_files_of_mxnet_are_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(LIST)
    (x,) = nd.load(path)
    assert x.asnumpy().tolist() == [1, 2] and x.dtype is np.float32
    loaded = nd.load_frombuffer(NAMED)
    assert list(loaded) == ["w"] and loaded["w"].asscalar() == 1
    assert nd.load_frombuffer(INT64)[0].dtype is np.int64


def old_layouts():
    element = struct.pack("<iii", 1, 0, 4) + struct.pack("<6i", *range(6))
    yield "version 1", struct.pack("<IIqq", 0xF993FAC8, 2, 2, 3) + element
    yield "version 3", struct.pack("<Iiiqq", 0xF993FACA, 0, 2, 2, 3) + element
    yield "oldest", struct.pack("<III", 2, 2, 3) + element


@pytest.mark.parametrize("name, body", list(old_layouts()))
def test_other_layouts(name, body):
    (x,) = nd.load_frombuffer(HEAD + body + NO_NAMES)
    assert x.dtype is np.int32 and x.asnumpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]
)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 3, 2), (), (0, 3)])
def test_round_trip(tmp_path, dtype, shape):
    values = np.random.RandomState(0).randint(0, 2, shape).astype(dtype)
    path = str(tmp_path / "x.params")
    nd.save(path, {"a": nd.array(values, dtype=dtype), "b:ä": nd.array([1.5])})
    back = nd.load(path)
    assert list(back) == ["a", "b:ä"]
    assert back["a"].dtype is np.dtype(dtype).type and back["a"].shape == shape
    np.testing.assert_array_equal(back["a"].asnumpy(), values)


def test_views_and_pending_values_are_saved(tmp_path):
    x = nd.array(np.arange(12.0).reshape(4, 3))
    nd.save(tmp_path / "x", [x[1:3], x * 2 + 1])
    part, computed = nd.load(tmp_path / "x")
    np.testing.assert_array_equal(part.asnumpy(), np.arange(12).reshape(4, 3)[1:3])
    np.testing.assert_array_equal(computed.asnumpy(), np.arange(12).reshape(4, 3) * 2 + 1)


def test_empty_collections(tmp_path):
    for data in ([], {}):
        nd.save(tmp_path / "x", data)
        assert nd.load(tmp_path / "x") == []


def test_save_refuses_other_things(tmp_path):
    for bad, error in (
        (5, ValueError),
        ((nd.zeros((1,)),), ValueError),
        ([5], TypeError),
        ({1: nd.zeros((1,))}, TypeError),
    ):
        with pytest.raises(error):
            nd.save(tmp_path / "x", bad)
    assert not list(tmp_path.iterdir())


def test_errors_name_the_file(tmp_path):
    with pytest.raises(mx.MXNetError, match="nofile.*No such file"):
        nd.load(tmp_path / "nofile")
    with pytest.raises(mx.MXNetError, match="folder.*cannot be written"):
        nd.save(tmp_path / "folder" / "x", nd.zeros((1,)))
    path = tmp_path / "damaged"
    path.write_bytes(LIST[:30])
    with pytest.raises(mx.MXNetError, match=r"damaged.*at byte \d+"):
        nd.load(path)


def test_sparse_arrays_are_refused_by_name():
    with pytest.raises(NotImplementedError, match="row_sparse"):
        nd.load_frombuffer(ROW_SPARSE)


@pytest.mark.parametrize("content", [LIST, NAMED, INT64])
def test_every_truncation_is_refused(content):
    for length in range(len(content)):
        with pytest.raises(mx.MXNetError, match="at byte"):
            nd.load_frombuffer(content[:length])


def test_every_bit_flip_is_read_or_refused():
    for bit in range(len(NAMED) * 8):
        damaged = bytearray(NAMED)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            loaded = nd.load_frombuffer(bytes(damaged))
        except (mx.MXNetError, NotImplementedError):
            continue
        assert len(loaded) <= 1


@pytest.mark.parametrize(
    "body, text",
    [
        (struct.pack("<QQQ", 0x112, 0, 1 << 60), "the number of arrays is"),
        (struct.pack("<QQQ", 0x113, 0, 0), "magic number is 0x113"),
        (HEAD + struct.pack("<Iii", 0xF993FAC9, 0, 2**31 - 1), "dimensions; at most 32"),
        (HEAD + struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 1 << 40, 1, 0, 0), "needs 4398046511104 bytes"),
        (HEAD + struct.pack("<Iii6qiii", 0xF993FAC9, 0, 6, *[1 << 40] * 6, 1, 0, 0), "needs .* bytes"),
        (HEAD + struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, -5, 1, 0, 0), "negative extent"),
        (HEAD + struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 1, 1, 0, 99), "element type 99"),
        (HEAD + struct.pack("<Ii", 0xF993FAC9, 99), "storage type 99"),
        (HEAD + struct.pack("<Iii", 0xF993FACA, 0, -7), "-7 dimensions"),
        (HEAD + struct.pack("<I", 0xDEADBEEF), "0xdeadbeef"),
        (LIST[:-8] + struct.pack("<QQQ", 2, 0, 0), "2 names for 1 arrays"),
        (LIST[:-8] + struct.pack("<QQ", 1, 1 << 60), "length of a name"),
        (NAMED[:-1] + b"\xff", "not UTF-8"),
    ],
)
def test_bombs(body, text):
    with pytest.raises(mx.MXNetError, match=text):
        nd.load_frombuffer(body + (b"" if "name" in text or "UTF" in text else bytes(64)))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    nd.save(path, nd.array([1.0, 2.0]))

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(mx.MXNetError, match="No space left"):
        nd.save(path, nd.zeros((1000,)))
    assert path.read_bytes() == LIST and [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_and_links_are_kept(tmp_path):
    path, link = tmp_path / "x", tmp_path / "link"
    nd.save(path, nd.zeros((1,)))
    path.chmod(0o640)
    link.symlink_to(path)
    nd.save(link, nd.ones((1,)))
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert nd.load(path)[0].asscalar() == 1


def test_saving_over_a_loaded_file(tmp_path):
    path = tmp_path / "x"
    nd.save(path, {"a": nd.ones((1000,))})
    loaded = nd.load(path)
    nd.save(path, {"a": loaded["a"] + 1})
    assert (nd.load(path)["a"].asnumpy() == 2).all()


def test_pickle():
    for x in (nd.array([[1, 2]], dtype="int8"), nd.array(3), nd.zeros((0, 2)), nd.ones((2,), ctx=mx.cpu(1))):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            y = pickle.loads(pickle.dumps(x, protocol))
            assert (
                type(y) is nd.NDArray and y.dtype is x.dtype and y.shape == x.shape and y.context == x.context
            )
            np.testing.assert_array_equal(x.asnumpy(), y.asnumpy())


def test_oracle_reads_what_we_write_and_the_reverse(oracle, tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    values = np.arange(6, dtype="float32").reshape(2, 3)
    nd.save(ours, {"w": nd.array(values), "i": nd.array(values, dtype="int8")})
    code = f"""
loaded = mx.nd.load({ours!r})
mx.nd.save({theirs!r}, loaded)
out_w, out_i = loaded["w"], loaded["i"]
"""
    out = oracle.run(code)
    np.testing.assert_array_equal(out["out_w"], values)
    np.testing.assert_array_equal(out["out_i"], values.astype("int8"))
    with open(ours, "rb") as a, open(theirs, "rb") as b:
        assert a.read() == b.read()
