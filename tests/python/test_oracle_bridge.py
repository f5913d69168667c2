"""The bridge to the oracle itself: what it carries, what it reports, and that it survives MXNet's death."""

from __future__ import annotations

import io

import numpy as np
import pytest

from oracle import Oracle, OracleCrashed, OracleError, assert_same
from oracle_server import pack, unpack


def test_wire_carries_every_kind_of_value() -> None:
    value = {
        "f16": np.arange(3, dtype="float16"),
        "empty": np.zeros((0, 4), dtype="int64"),
        "scalar": np.array(True),
        "nested": [1, 2.5, None, "ä", (1, (2, np.float32(3))), {"k": np.ones(2)}],
        "nan": float("inf"),
        "dtype": np.dtype("float64"),
    }
    stream = io.BytesIO(pack(value))
    back = unpack(stream.read)
    assert_same(back["f16"], value["f16"], "f16")
    assert back["empty"].shape == (0, 4) and back["empty"].dtype == np.int64
    assert back["scalar"].shape == () and bool(back["scalar"])
    assert back["nested"][:5] == [1, 2.5, None, "ä", (1, (2, 3.0))]
    assert_same(back["nested"][5]["k"], np.ones(2), "k")
    assert back["nan"] == float("inf") and back["dtype"] == "float64"
    assert stream.read() == b""


def test_wire_refuses_objects() -> None:
    with pytest.raises(TypeError, match="Python objects"):
        pack(np.array([object()]))
    with pytest.raises(TypeError, match="type object"):
        pack(object())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (np.ones(3, "float32"), np.ones((3, 1), "float32")),
        (np.ones(3, "float32"), np.ones(3, "float64")),
        (np.ones(3), np.ones(3) * 1.01),
        ([1], [1, 2]),
        ("a", "b"),
        (1.0, float("nan")),
    ],
)
def test_assert_same_tells_difference(ours: object, theirs: object) -> None:
    with pytest.raises(AssertionError):
        assert_same(ours, theirs, "x")


def test_run_returns_outputs_and_hears_nothing_printed(oracle: Oracle) -> None:
    out = oracle.run(
        "print('noise'); out_y = x * 2 + c; out_list = [x, x + 1]\n"
        "out_np = np_x.sum(); out_name = str(x.context)",
        x=np.arange(4, dtype="float32"),
        c=1.5,
    )
    np.testing.assert_array_equal(out["out_y"], [1.5, 3.5, 5.5, 7.5])
    np.testing.assert_array_equal(out["out_list"][1], [1, 2, 3, 4])
    assert out["out_np"] == 6 and out["out_name"] == "cpu(0)"


def test_run_is_repeatable(oracle: Oracle) -> None:
    program = "out_r = mx.nd.random.uniform(shape=(3,))"
    np.testing.assert_array_equal(oracle.run(program)["out_r"], oracle.run(program)["out_r"])


def test_op_with_gradients(oracle: Oracle) -> None:
    x = np.array([[1, -2], [3, 4]], "float32")
    w = np.array([[1, 0], [2, 1], [0, 1]], "float32")
    head = np.arange(6, dtype="float32").reshape(2, 3)
    outputs, grads = oracle.op(
        "FullyConnected", [x, w], {"num_hidden": 3, "no_bias": True}, grad_of=[0, 1], head_grads=[head]
    )
    np.testing.assert_allclose(outputs[0], x @ w.T)
    np.testing.assert_allclose(grads[0], head @ w)
    np.testing.assert_allclose(grads[1], head.T @ x)
    assert "FullyConnected" in oracle.compared


@pytest.mark.parametrize("name", ["_plus_scalar", "_internal._plus_scalar"])
def test_op_by_registry_name(oracle: Oracle, name: str) -> None:
    outputs, grads = oracle.op(name, [np.ones(2, "float32")], {"scalar": 3.0})
    np.testing.assert_array_equal(outputs[0], [4, 4])
    assert grads == []


def test_op_of_submodule_and_train_mode(oracle: Oracle) -> None:
    outputs, _ = oracle.op(
        "linalg.gemm2", [np.eye(2, dtype="float32"), np.eye(2, dtype="float32")], {"alpha": 2.0}
    )
    np.testing.assert_array_equal(outputs[0], 2 * np.eye(2))
    ones = np.ones((100,), "float32")
    assert (oracle.op("Dropout", [ones], {"p": 0.5}, train=True)[0][0] == 0).any()
    assert (oracle.op("Dropout", [ones], {"p": 0.5})[0][0] == 1).all()


def test_refusal_has_class_and_text(oracle: Oracle) -> None:
    with pytest.raises(OracleError) as caught:
        oracle.op("dot", [np.ones((2, 3), "float32"), np.ones((2, 3), "float32")])
    assert caught.value.name == "MXNetError" and "dot" in caught.value.text
    with pytest.raises(OracleError, match="no operator"):
        oracle.op("not_an_operator", [])
    with pytest.raises(OracleError, match="ZeroDivisionError"):
        oracle.run("1/0")


def test_death_is_reported_and_survived(oracle: Oracle) -> None:
    with pytest.raises(OracleCrashed, match="Segmentation fault"):
        oracle.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    np.testing.assert_array_equal(oracle.run("out_y = x + 1", x=np.zeros(1, "float32"))["out_y"], [1])
    with pytest.raises(OracleCrashed, match="no answer"):
        oracle.run("import time; time.sleep(30)", seconds=0.5)
    np.testing.assert_array_equal(oracle.run("out_y = x + 1", x=np.zeros(1, "float32"))["out_y"], [1])


def test_large_arrays_travel(oracle: Oracle) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 1000)).astype("float32")
    np.testing.assert_array_equal(oracle.run("out_y = x + x", x=x)["out_y"], x + x)
