"""Convolution, Deconvolution, Pooling, UpSampling and resampling against MXNet, the definition, and differences."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from op_checks import check_numeric, compare, run
from oracle import Oracle


def _draw(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape).astype(dtype)


CONVOLUTIONS = [
    ((2, 3, 7), (4, 3, 3), {"kernel": (3,), "num_filter": 4}),
    ((2, 3, 7), (4, 3, 3), {"kernel": (3,), "num_filter": 4, "stride": (2,), "pad": (2,), "dilate": (2,)}),
    ((2, 3, 8, 9), (4, 3, 3, 3), {"kernel": (3, 3), "num_filter": 4}),
    ((2, 3, 8, 9), (4, 3, 3, 2), {"kernel": (3, 2), "num_filter": 4, "stride": (2, 3), "pad": (1, 1)}),
    ((2, 4, 8, 9), (6, 2, 3, 3), {"kernel": (3, 3), "num_filter": 6, "num_group": 2, "dilate": (2, 1)}),
    ((1, 4, 6, 6), (4, 1, 3, 3), {"kernel": (3, 3), "num_filter": 4, "num_group": 4, "pad": (1, 1)}),
    ((2, 5, 4, 4), (3, 5, 1, 1), {"kernel": (1, 1), "num_filter": 3}),
    (
        (2, 2, 4, 5, 6),
        (3, 2, 2, 3, 2),
        {"kernel": (2, 3, 2), "num_filter": 3, "stride": (1, 2, 1), "pad": (1, 0, 1)},
    ),
]


@pytest.mark.parametrize("data, weight, attrs", CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(oracle: Oracle, data: tuple, weight: tuple, attrs: dict, bias: bool) -> None:
    inputs = [_draw(*data), _draw(*weight)]
    if bias:
        inputs.append(_draw(weight[0]))
    compare(oracle, "Convolution", inputs, {**attrs, "no_bias": not bias})


def test_convolution_float64(oracle: Oracle) -> None:
    inputs = [_draw(2, 3, 6, 6, dtype="float64"), _draw(2, 3, 3, 3, dtype="float64")]
    compare(
        oracle,
        "Convolution",
        inputs,
        {"kernel": (3, 3), "num_filter": 2, "no_bias": True},
        rtol=1e-9,
        atol=1e-9,
    )


DECONVOLUTIONS = [
    ((2, 3, 5), (3, 2, 3), {"kernel": (3,), "num_filter": 2}),
    (
        (2, 3, 4, 5),
        (3, 2, 3, 3),
        {"kernel": (3, 3), "num_filter": 2, "stride": (2, 2), "pad": (1, 1), "adj": (1, 0)},
    ),
    ((2, 4, 4, 5), (4, 3, 2, 3), {"kernel": (2, 3), "num_filter": 6, "num_group": 2, "stride": (2, 1)}),
    ((1, 2, 3, 3, 3), (2, 2, 2, 2, 2), {"kernel": (2, 2, 2), "num_filter": 2, "stride": (2, 2, 2)}),
]


@pytest.mark.parametrize("data, weight, attrs", DECONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_deconvolution(oracle: Oracle, data: tuple, weight: tuple, attrs: dict, bias: bool) -> None:
    inputs = [_draw(*data), _draw(*weight)]
    if bias:
        inputs.append(_draw(attrs["num_filter"]))
    compare(oracle, "Deconvolution", inputs, {**attrs, "no_bias": not bias})


@pytest.mark.parametrize("stride, targets", [((1,), [1, 3, 5]), ((2,), [4, 5, 6, 7]), ((3,), [5, 8, 9])])
def test_deconvolution_reaches_its_target(stride: tuple, targets: list) -> None:
    for target in targets:
        attrs = {"kernel": (3,), "num_filter": 2, "stride": stride, "target_shape": (target,)}
        out, _ = run("Deconvolution", [_draw(1, 2, 3), _draw(2, 2, 3)], attrs)
        excess = (3 - 1) * stride[0] + 3 - target
        same = {**attrs, "target_shape": (), "pad": ((excess + 1) // 2,), "adj": (excess % 2,)}
        assert out[0].shape == (1, 2, target)
        np.testing.assert_array_equal(
            out[0], run("Deconvolution", [_draw(1, 2, 3), _draw(2, 2, 3)], same)[0][0]
        )
    with pytest.raises(mx.MXNetError, match="target_shape"):
        run("Deconvolution", [_draw(1, 2, 3), _draw(2, 2, 3)], {**attrs, "target_shape": (99,)})


@pytest.mark.parametrize("name", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("layout", ["NWC", "NHWC", "NDHWC"])
def test_channels_last_is_a_transposition(name: str, layout: str) -> None:
    """With channels last, results and gradients are those of channels first, transposed."""
    n = len(layout) - 2
    data, weight, bias = _draw(2, 4, *range(5, 5 + n)), _draw(4, 2, *[2] * n), _draw(4)
    attrs = {
        "kernel": (2,) * n,
        "num_filter": 4,
        "num_group": 2,
        "pad": (1,) * n,
        "stride": (2,) * n,
        "no_bias": False,
    }

    def last(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(x, 1, -1))

    first = run(name, [data, weight, bias], attrs)[0][0]
    head = _draw(*first.shape)
    grads = run(name, [data, weight, bias], attrs, [head])[1]
    out, turned = run(name, [last(data), last(weight), bias], {**attrs, "layout": layout}, [last(head)])
    np.testing.assert_allclose(out[0], last(first), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(turned, [last(grads[0]), last(grads[1]), grads[2]]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, shapes, attrs",
    [
        (
            "Convolution",
            [(1, 2, 4, 3), (2, 1, 2, 2), (2,)],
            {"kernel": (2, 2), "num_filter": 2, "num_group": 2},
        ),
        (
            "Convolution",
            [(1, 4, 2), (2, 2, 2)],
            {"kernel": (2,), "num_filter": 2, "no_bias": True, "layout": "NWC"},
        ),
        (
            "Deconvolution",
            [(1, 2, 2, 3), (2, 1, 2, 2)],
            {"kernel": (2, 2), "num_filter": 1, "stride": (2, 1)},
        ),
        ("Pooling", [(1, 2, 4, 3)], {"kernel": (2, 2)}),
        ("Pooling", [(1, 2, 4, 3)], {"kernel": (2, 2), "pool_type": "avg", "pad": (1, 1)}),
        ("UpSampling", [(1, 2, 2, 3)], {"scale": 2, "sample_type": "nearest"}),
        ("_contrib_AdaptiveAvgPooling2D", [(1, 2, 5, 4)], {"output_size": (2, 3)}),
        ("_contrib_BilinearResize2D", [(1, 2, 3, 4)], {"height": 5, "width": 3}),
    ],
)
def test_gradients_of_both_orders(name: str, shapes: list, attrs: dict) -> None:
    check_numeric(name, [_draw(*s, dtype="float64", seed=i) for i, s in enumerate(shapes)], attrs)


POOLINGS = [
    ((2, 3, 9), {"kernel": (3,)}),
    ((2, 3, 9), {"kernel": (3,), "stride": (2,), "pad": (1,), "pooling_convention": "full"}),
    ((2, 3, 8, 9), {"kernel": (2, 3), "stride": (2, 2)}),
    ((2, 3, 8, 9), {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}),
    ((2, 3, 8, 9), {"kernel": (3, 3), "stride": (3, 2), "pad": (1, 2), "pooling_convention": "full"}),
    ((2, 3, 8, 9), {"global_pool": True, "kernel": (2, 2)}),
    ((1, 2, 5, 6, 7), {"kernel": (2, 3, 2), "stride": (2, 1, 2), "pad": (1, 1, 0)}),
]


@pytest.mark.parametrize("shape, attrs", POOLINGS)
@pytest.mark.parametrize("kind", ["max", "avg", "sum", "lp"])
def test_pooling(oracle: Oracle, shape: tuple, attrs: dict, kind: str) -> None:
    data = _draw(*shape)
    extra = {"pool_type": kind}
    if kind == "lp":
        data, extra["p_value"] = np.abs(data) + 0.1, 2
    compare(oracle, "Pooling", [data], {**attrs, **extra})


@pytest.mark.parametrize("shape, attrs", POOLINGS)
def test_averages_without_the_border(oracle: Oracle, shape: tuple, attrs: dict) -> None:
    compare(oracle, "Pooling", [_draw(*shape)], {**attrs, "pool_type": "avg", "count_include_pad": False})


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
def test_pooling_channels_last(oracle: Oracle, kind: str) -> None:
    attrs = {"kernel": (2, 3), "stride": (2, 1), "pad": (0, 1), "pool_type": kind, "layout": "NHWC"}
    compare(oracle, "Pooling", [_draw(2, 5, 6, 3)], attrs)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_up_sampling(oracle: Oracle, scale: int) -> None:
    attrs = {"scale": scale, "sample_type": "nearest", "num_args": 1}
    compare(oracle, "UpSampling", [_draw(2, 3, 4, 5)], attrs)
    kernel = 2 * scale - scale % 2
    attrs = {"scale": scale, "sample_type": "bilinear", "num_filter": 3, "num_args": 2}
    compare(oracle, "UpSampling", [_draw(2, 3, 4, 5), _draw(3, 1, kernel, kernel)], attrs)


@pytest.mark.parametrize("mode", ["sum", "concat"])
def test_up_sampling_of_several(oracle: Oracle, mode: str) -> None:
    attrs = {"scale": 4, "sample_type": "nearest", "num_args": 2, "multi_input_mode": mode}
    compare(oracle, "UpSampling", [_draw(2, 3, 2, 3), _draw(2, 3, 4, 6)], attrs)


@pytest.mark.parametrize("size", [(), 2, (2, 3), (5, 7), (1, 1), (4, 6)])
def test_adaptive_average(oracle: Oracle, size: tuple) -> None:
    compare(oracle, "_contrib_AdaptiveAvgPooling2D", [_draw(2, 3, 4, 6)], {"output_size": size})


@pytest.mark.parametrize(
    "attrs",
    [
        {"height": 7, "width": 3},
        {"height": 7, "width": 3, "align_corners": False},
        {"height": 1, "width": 1},
        {"height": 4, "width": 6},
        {"scale_height": 2.0, "scale_width": 0.5},
        {"scale_height": 2.0, "scale_width": 1.5, "mode": "odd_scale"},
        {"mode": "to_even_down"},
        {"mode": "to_even_up"},
        {"mode": "to_odd_down"},
        {"mode": "to_odd_up"},
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 5, 7)])
def test_bilinear_resize(oracle: Oracle, shape: tuple, attrs: dict) -> None:
    compare(oracle, "_contrib_BilinearResize2D", [_draw(*shape)], attrs)


def test_bilinear_resize_like(oracle: Oracle) -> None:
    compare(
        oracle,
        "_contrib_BilinearResize2D",
        [_draw(1, 2, 4, 5), _draw(1, 2, 3, 8)],
        {"mode": "like"},
        grad=False,
    )


def test_half_precision_is_single_precision_rounded() -> None:
    data, weight, bias = (_draw(*s, dtype="float16") for s in [(1, 2, 5, 5), (3, 2, 3, 3), (3,)])
    attrs = {"kernel": (3, 3), "num_filter": 3}
    half = run("Convolution", [data, weight, bias], attrs)[0][0]
    single = run("Convolution", [x.astype("float32") for x in (data, weight, bias)], attrs)[0][0]
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, single, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "name, shapes, attrs",
    [
        ("Convolution", [(1, 2, 3, 3), (1, 1, 3, 3)], {"kernel": (3, 3), "num_filter": 1, "no_bias": True}),
        ("Convolution", [(1, 1, 2, 2), (1, 1, 3, 3)], {"kernel": (3, 3), "num_filter": 1, "no_bias": True}),
        ("Convolution", [(1, 1, 3, 3), (1, 1, 3, 3)], {"kernel": (3, 3), "num_filter": 1}),
        ("Convolution", [(1, 1, 3, 3), (1, 1, 3, 3)], {"kernel": (3, 3), "num_filter": 0, "no_bias": True}),
        ("Convolution", [(1, 1, 3, 3), (1, 1, 3, 3)], {"kernel": (0, 3), "num_filter": 1, "no_bias": True}),
        ("Convolution", [(1, 1, 3), (1, 1, 3, 3)], {"kernel": (3, 3), "num_filter": 1, "no_bias": True}),
        (
            "Convolution",
            [(1, 1, 3), (1, 1, 3)],
            {"kernel": (3,), "num_filter": 1, "no_bias": True, "stride": (0,)},
        ),
        (
            "Convolution",
            [(1, 1, 3), (1, 1, 3)],
            {"kernel": (3,), "num_filter": 1, "no_bias": True, "pad": (2**52,)},
        ),
        (
            "Convolution",
            [(1, 1, 3), (1, 1, 3)],
            {"kernel": (3,), "num_filter": 1, "no_bias": True, "pad": (2**40,), "stride": (2**40,)},
        ),
        (
            "Convolution",
            [(1, 1, 3), (1, 1, 3)],
            {"kernel": (3,), "num_filter": 1, "no_bias": True, "layout": "NCHW"},
        ),
        (
            "Convolution",
            [(1, 3, 3), (2, 1, 3)],
            {"kernel": (3,), "num_filter": 2, "no_bias": True, "num_group": 2},
        ),
        (
            "Deconvolution",
            [(1, 1, 3), (1, 1, 3)],
            {"kernel": (3,), "num_filter": 1, "stride": (2,), "adj": (2,)},
        ),
        ("Deconvolution", [(1, 1, 3), (1, 1, 3)], {"kernel": (3,), "num_filter": 1, "stride": (2**50,)}),
        ("Deconvolution", [(1, 1, 3), (1, 1, 3)], {"kernel": (3,), "num_filter": 1, "pad": (9,)}),
        ("Pooling", [(1, 1, 3, 3)], {}),
        ("Pooling", [(1, 1, 3, 3)], {"kernel": (2,)}),
        ("Pooling", [(1, 1, 3, 3)], {"kernel": (2, 2), "stride": (0, 1)}),
        ("Pooling", [(1, 1, 3, 3)], {"kernel": (4, 4)}),
        ("Pooling", [(1, 1, 3)], {"kernel": (2,), "pad": (2,)}),
        ("Pooling", [(1, 1, 3)], {"kernel": (2,), "pool_type": "lp"}),
        ("Pooling", [(3, 3)], {"kernel": (2,)}),
        ("UpSampling", [(1, 1, 2, 2)], {"scale": 0, "sample_type": "nearest"}),
        ("UpSampling", [(1, 2, 2)], {"scale": 2, "sample_type": "nearest"}),
        ("UpSampling", [(1, 1, 2, 2), (1, 1, 3, 3)], {"scale": 2, "sample_type": "nearest", "num_args": 2}),
        ("_contrib_BilinearResize2D", [(1, 1, 2, 2)], {"height": 0, "width": 3}),
        ("_contrib_BilinearResize2D", [(1, 1, 2, 2)], {"scale_height": float("nan"), "scale_width": 2.0}),
    ],
)
def test_refusals(name: str, shapes: list, attrs: dict) -> None:
    with pytest.raises((mx.MXNetError, MemoryError, ValueError, TypeError), match=r"."):
        run(name, [_draw(*s) for s in shapes], attrs)


def test_integers_are_refused_by_name() -> None:
    with pytest.raises(mx.MXNetError, match="int32"):
        run("Pooling", [np.ones((1, 1, 3), np.int32)], {"kernel": (2,)})


def test_empty_batches() -> None:
    out, grads = run(
        "Convolution",
        [_draw(0, 2, 4, 4), _draw(3, 2, 3, 3), _draw(3)],
        {"kernel": (3, 3), "num_filter": 3},
        [_draw(0, 3, 2, 2)],
    )
    assert out[0].shape == (0, 3, 2, 2) and grads[0].shape == (0, 2, 4, 4)
    assert not grads[1].any() and not grads[2].any()
    assert run("Pooling", [_draw(0, 2, 4, 4)], {"kernel": (2, 2)})[0][0].shape == (0, 2, 3, 3)


def test_shapes_are_completed() -> None:
    attrs = {"kernel": (3, 3), "num_filter": 4, "num_group": 2}
    complete = mx._core.complete_shapes
    assert complete("Convolution", attrs, [[2, 6, 5, 5], None, None])[1:] == [[4, 3, 3, 3], [4]]
    assert complete("Deconvolution", attrs, [[2, 6, 5, 5], None])[1:] == [[6, 2, 3, 3]]
    assert complete("FullyConnected", {"num_hidden": 4}, [[2, 6, 5], None, None])[1:] == [[4, 30], [4]]
