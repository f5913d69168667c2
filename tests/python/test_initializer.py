"""Initializers: ranges and deviations, dispatch by name and attribute, JSON text."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx

init = mx.init


def filled(initializer, name="fc_weight", shape=(100, 50), **attrs) -> np.ndarray:
    arr = mx.nd.ones(shape) * 7
    initializer(init.InitDesc(name, attrs), arr)
    return arr.asnumpy()


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [
        (init.Uniform(), 0.07),
        (init.Xavier(), 0.2),
        (init.Xavier(factor_type="in"), np.sqrt(3 / 50)),
        (init.Xavier(factor_type="out", magnitude=2), np.sqrt(2 / 100)),
    ],
)
def test_uniform_ones_fill_their_range(initializer, bound: float) -> None:
    values = filled(initializer)
    assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("initializer", "sigma"),
    [(init.Normal(0.5), 0.5), (init.Xavier("gaussian"), 0.2), (init.MSRAPrelu(), np.sqrt(2 / 1.0625 / 75))],
)
def test_normal_ones_have_their_deviation(initializer, sigma: float) -> None:
    assert filled(initializer).std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_orthogonal_rows(kind: str) -> None:
    rows = filled(init.Orthogonal(rand_type=kind), shape=(3, 5))
    np.testing.assert_allclose(rows @ rows.T, 1.414**2 * np.eye(3), atol=1e-5)


def test_bilinear_and_lstm_bias() -> None:
    plane = filled(init.Bilinear(), shape=(1, 1, 4, 4))[0, 0]
    np.testing.assert_allclose(plane[0], [0.0625, 0.1875, 0.1875, 0.0625])
    bias = filled(init.Zero(), "l_bias", (8,), __init__=init.LSTMBias(1.0).dumps())
    np.testing.assert_array_equal(bias, [0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("suffix", "value"), [("bias", 0), ("beta", 0), ("gamma", 1), ("min", 0), ("max", 1)]
)
def test_the_end_of_the_name_decides(suffix: str, value: float) -> None:
    assert (filled(init.Constant(5), f"x_{suffix}", (2, 2)) == value).all()


def test_attribute_wins_and_unknown_names_are_refused() -> None:
    assert (filled(init.Zero(), "x_bias", (2,), __init__="ones") == 1).all()
    with pytest.raises(ValueError, match="Unknown initialization pattern for x_running_mean"):
        filled(init.Uniform(), "x_running_mean", (2,))
    with pytest.raises(ValueError, match="at least 2D"):
        filled(init.Xavier(), shape=(3,))
    with pytest.raises(AssertionError, match="not registered"):
        init.create("foo")


def test_json_text_round_trips() -> None:
    assert init.Xavier(magnitude=2).dumps() == (
        '["xavier", {"rnd_type": "uniform", "factor_type": "avg", "magnitude": 2}]'
    )
    for one in (init.Zero(), init.Constant(3), init.MSRAPrelu("in", 0.1), init.Constant(mx.nd.array([1, 2]))):
        assert init.create(one.dumps()) == one


def test_mixed_and_load() -> None:
    arr = mx.nd.zeros((1,))
    init.Load({"arg:a": mx.nd.array([5])})("a", arr)
    assert arr.asscalar() == 5
    init.Mixed(["x", ".*"], [init.Zero(), init.One()])(init.InitDesc("y_weight"), arr)
    assert arr.asscalar() == 1
    with pytest.raises(ValueError, match="did not match any pattern"):
        init.Mixed(["x"], [init.Zero()])("y", arr)
