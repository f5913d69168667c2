"""Dense layers, products and factorisations against MXNet, NumPy and central differences."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from op_checks import check_numeric, compare, run
from oracle import Oracle


def _draw(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape).astype(dtype)


def _definite(*shape: int, dtype: str = "float32") -> np.ndarray:
    a = _draw(*shape, dtype="float64")
    return (a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1])).astype(dtype)


def _lower(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.tril(_draw(*shape, dtype="float64")) + 2 * np.eye(shape[-1])).astype(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "data, weight, flatten",
    [
        ((5, 7), (3, 7), True),
        ((5, 2, 3), (4, 6), True),
        ((5, 2, 3), (4, 3), False),
        ((5,), (4, 1), True),
        ((5,), (4, 5), False),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fully_connected(
    oracle: Oracle, data: tuple, weight: tuple, flatten: bool, bias: bool, dtype: str
) -> None:
    inputs = [_draw(*data, dtype=dtype), _draw(*weight, dtype=dtype)]
    if bias:
        inputs.append(_draw(weight[0], dtype=dtype))
    attrs = {"num_hidden": weight[0], "flatten": flatten, "no_bias": not bias}
    compare(oracle, "FullyConnected", inputs, attrs)


@pytest.mark.parametrize(
    "lhs, rhs, a, b",
    [
        ((4, 5), (5, 3), False, False),
        ((5, 4), (5, 3), True, False),
        ((4, 5), (3, 5), False, True),
        ((5, 4), (3, 5), True, True),
        ((5,), (5,), False, False),
        ((5,), (5, 3), False, False),
        ((4, 5), (5,), False, False),
        ((5, 4), (5,), True, False),
        ((4, 5), (5,), False, True),
        ((5,), (3, 5), False, True),
        ((2, 3, 4), (4, 5, 6), False, False),
        ((4, 2, 3), (4, 5), True, False),
        ((2, 4), (3, 5, 4), False, True),
        ((4, 2, 3), (3, 5, 4), True, True),
        ((2, 3, 4), (4,), False, False),
        ((65, 130), (130, 70), False, False),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dot(oracle: Oracle, lhs: tuple, rhs: tuple, a: bool, b: bool, dtype: str) -> None:
    # MXNet cannot differentiate every turned vector; the values are compared for all.
    turned_vector = (a or b) and 1 in (len(lhs), len(rhs))
    inputs = [_draw(*lhs, dtype=dtype), _draw(*rhs, dtype=dtype, seed=1)]
    compare(oracle, "dot", inputs, {"transpose_a": a, "transpose_b": b}, grad=not turned_vector)


@pytest.mark.parametrize("a", [True, False])
@pytest.mark.parametrize("b", [True, False])
@pytest.mark.parametrize("batch", [(3,), (2, 2), (0,)])
def test_batched_products(oracle: Oracle, a: bool, b: bool, batch: tuple) -> None:
    lhs = _draw(*batch, *((5, 4) if a else (4, 5)))
    rhs = _draw(*batch, *((3, 5) if b else (5, 3)), seed=1)
    flags = {"transpose_a": a, "transpose_b": b}
    if 0 in batch:
        assert run("batch_dot", [lhs, rhs], flags)[0][0].shape == (*batch, 4, 3)
        return
    compare(oracle, "batch_dot", [lhs, rhs], flags)
    compare(oracle, "_linalg_gemm2", [lhs, rhs], {**flags, "alpha": -1.5})
    compare(oracle, "_linalg_gemm", [lhs, rhs, _draw(*batch, 4, 3)], {**flags, "alpha": 0.5, "beta": 2.0})


@pytest.mark.parametrize(
    "axis, lhs, rhs", [(0, (2, 3, 4), (4, 3, 2)), (1, (2, 4, 3, 5), (2, 5, 3, 2)), (-3, (3, 2, 2), (2, 2, 3))]
)
def test_rows_along_another_axis(oracle: Oracle, axis: int, lhs: tuple, rhs: tuple) -> None:
    compare(oracle, "_linalg_gemm2", [_draw(*lhs), _draw(*rhs, seed=1)], {"axis": axis, "alpha": 2.0})


@pytest.mark.parametrize("transpose", [True, False])
def test_symmetric_product(oracle: Oracle, transpose: bool) -> None:
    compare(oracle, "_linalg_syrk", [_draw(2, 3, 4)], {"transpose": transpose, "alpha": 1.5})


@pytest.mark.parametrize("name", ["_linalg_trmm", "_linalg_trsm"])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("rightside", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_triangles(oracle: Oracle, name: str, transpose: bool, rightside: bool, lower: bool) -> None:
    a = _lower(2, 3, 3) if lower else np.ascontiguousarray(np.swapaxes(_lower(2, 3, 3), 1, 2))
    b = _draw(2, 4, 3) if rightside else _draw(2, 3, 4)
    attrs = {"transpose": transpose, "rightside": rightside, "lower": lower, "alpha": 1.5}
    compare(oracle, name, [a, b], attrs)


def test_the_other_triangle_is_not_read() -> None:
    a, b = _lower(3, 3), _draw(3, 2)
    noisy = a + np.triu(np.full((3, 3), np.nan, np.float32), 1)
    for name in ["_linalg_trmm", "_linalg_trsm"]:
        np.testing.assert_array_equal(run(name, [noisy, b])[0][0], run(name, [a, b])[0][0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_factorisations(oracle: Oracle, shape: tuple, dtype: str) -> None:
    compare(oracle, "_linalg_potrf", [_definite(*shape, dtype=dtype)], rtol=1e-3, atol=1e-3)
    compare(oracle, "_linalg_potri", [_lower(*shape, dtype=dtype)], rtol=1e-3, atol=1e-3)
    compare(oracle, "_linalg_sumlogdiag", [_definite(*shape, dtype=dtype)])
    compare(oracle, "_linalg_inverse", [_definite(*shape, dtype=dtype)], rtol=1e-3, atol=1e-3)
    compare(oracle, "_linalg_det", [_definite(*shape, dtype=dtype)], rtol=1e-3, atol=1e-3)


def test_slogdet(oracle: Oracle) -> None:
    compare(oracle, "_linalg_slogdet", [_draw(3, 4, 4)], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_diagonals_and_triangles(oracle: Oracle, offset: int) -> None:
    compare(oracle, "_linalg_extractdiag", [_draw(2, 4, 4)], {"offset": offset})
    compare(oracle, "_linalg_makediag", [_draw(2, 3)], {"offset": offset})
    for lower in [True, False]:
        compare(oracle, "_linalg_extracttrian", [_draw(2, 4, 4)], {"offset": offset, "lower": lower})
        compare(oracle, "_linalg_maketrian", [_draw(2, 6)], {"offset": offset, "lower": lower})


def test_khatri_rao(oracle: Oracle) -> None:
    compare(
        oracle, "khatri_rao", [_draw(2, 3), _draw(4, 3), _draw(2, 3, seed=1)], {"num_args": 3}, grad=False
    )


@pytest.mark.parametrize(
    "name, inputs, attrs",
    [
        ("FullyConnected", [_draw(2, 3), _draw(4, 3), _draw(4)], {"num_hidden": 4}),
        (
            "FullyConnected",
            [_draw(2, 2, 3), _draw(4, 3)],
            {"num_hidden": 4, "no_bias": True, "flatten": False},
        ),
        ("dot", [_draw(3, 2, 2), _draw(2, 3)], {"transpose_a": True, "transpose_b": True}),
        ("dot", [_draw(3), _draw(2, 3)], {"transpose_b": True}),
        ("dot", [_draw(3), _draw(3, seed=1)], {}),
        ("batch_dot", [_draw(2, 3, 2), _draw(2, 2, 3)], {"transpose_a": True, "transpose_b": True}),
        ("_linalg_gemm", [_draw(2, 3), _draw(3, 2), _draw(2, 2)], {"alpha": 2.0, "beta": 0.5}),
        ("_linalg_gemm2", [_draw(2, 3, 2), _draw(2, 3, 2)], {"axis": 0, "transpose_b": True}),
        ("_linalg_syrk", [_draw(2, 3)], {"transpose": True}),
        ("_linalg_trmm", [_lower(3, 3), _draw(3, 2)], {"alpha": 1.5}),
        ("_linalg_trsm", [_lower(3, 3), _draw(2, 3)], {"rightside": True, "transpose": True}),
        ("_linalg_trsm", [_lower(3, 3), _draw(3, 2)], {"alpha": 0.5}),
        ("_linalg_potri", [_lower(3, 3)], {}),
        ("_linalg_inverse", [_definite(3, 3)], {}),
        ("_linalg_det", [_definite(3, 3)], {}),
        ("_linalg_sumlogdiag", [_definite(3, 3)], {}),
        ("_linalg_makediag", [_draw(2, 3)], {"offset": 1}),
        ("_linalg_extracttrian", [_draw(3, 3)], {"offset": -1}),
    ],
)
def test_gradients_of_both_orders(name: str, inputs: list, attrs: dict) -> None:
    check_numeric(name, inputs, attrs)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_whole_numbers_multiply_exactly(dtype: str) -> None:
    lhs, rhs = np.arange(-3, 3).reshape(2, 3).astype(dtype), np.arange(12).reshape(3, 4).astype(dtype)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(run("dot", [lhs, rhs])[0][0], lhs @ rhs)


def test_half_precision() -> None:
    lhs, rhs = _draw(4, 5, dtype="float16"), _draw(5, 3, dtype="float16")
    out = run("dot", [lhs, rhs])[0][0]
    assert out.dtype == np.float16
    np.testing.assert_allclose(out, lhs.astype("float32") @ rhs.astype("float32"), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "name, shapes, attrs",
    [
        ("FullyConnected", [(2, 3), (5, 4), (5,)], {"num_hidden": 5}),
        ("FullyConnected", [(2, 3), (5, 3), (1, 5)], {"num_hidden": 5}),
        ("FullyConnected", [(2, 3), (5, 3)], {"num_hidden": 5}),
        ("FullyConnected", [(2, 3), (0, 3), (0,)], {"num_hidden": 0}),
        ("dot", [(2, 3), (2, 3)], {}),
        ("dot", [(), (2, 3)], {}),
        ("batch_dot", [(1, 2, 3), (4, 3, 2)], {}),
        ("batch_dot", [(2, 3), (3, 2)], {}),
        ("batch_dot", [(2, 2, 3), (2, 2, 3)], {}),
        ("_linalg_gemm2", [(4,), (4, 2)], {}),
        ("_linalg_gemm2", [(2, 2), (2, 2)], {"axis": -1}),
        ("_linalg_gemm2", [(2, 2), (2, 2)], {"axis": 7}),
        ("_linalg_gemm", [(2, 2), (2, 2), (2, 3)], {}),
        ("_linalg_trsm", [(2, 3), (3, 2)], {}),
        ("_linalg_trmm", [(2, 2), (3, 2)], {}),
        ("_linalg_potrf", [(2, 3)], {}),
        ("_linalg_extractdiag", [(3, 3)], {"offset": 5}),
        ("_linalg_extractdiag", [(3, 3)], {"offset": -(2**53)}),
        ("_linalg_makediag", [(3,)], {"offset": 2**52}),
        ("_linalg_maketrian", [(4,)], {}),
        ("_linalg_extracttrian", [(3, 3)], {"offset": 3}),
        ("khatri_rao", [(2, 3), (2, 2)], {"num_args": 2}),
    ],
)
def test_refusals(name: str, shapes: list, attrs: dict) -> None:
    with pytest.raises((mx.MXNetError, MemoryError, ValueError, TypeError), match=r"."):
        run(name, [_draw(*s) for s in shapes], attrs)


@pytest.mark.parametrize("name", ["_linalg_potrf", "_linalg_inverse"])
def test_what_cannot_be_factored(name: str) -> None:
    with pytest.raises(mx.MXNetError, match="matrix"):
        run(name, [np.zeros((2, 3, 3), np.float32)])


def test_mixed_types_are_refused() -> None:
    with pytest.raises(mx.MXNetError, match="float64"):
        run("dot", [_draw(2, 2), _draw(2, 2, dtype="float64")])
