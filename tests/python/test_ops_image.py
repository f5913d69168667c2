"""Image operators and the small operators of `nd.contrib`, against MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx

DTYPES = ["uint8", "float32", "float64"]


def _image(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) * 255).astype(dtype)


def _gradient(f: Any, x: np.ndarray, head: np.ndarray) -> np.ndarray:
    data = mx.nd.array(x, dtype=x.dtype)
    data.attach_grad()
    with mx.autograd.record():
        y = f(data)
    y.backward(mx.nd.array(head, dtype=y.dtype))
    return data.grad.asnumpy()


def _check(oracle: Any, name: str, attrs: dict[str, Any], x: np.ndarray, **tolerance: float) -> None:
    oracle.check(f"out_y = mx.nd.image.{name}(x, **{attrs!r})", x=x, **tolerance)
    oracle.compared.add(f"_image_{name}")


@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
@pytest.mark.parametrize("shape", [(2, 5, 3), (4, 2, 5, 3), (3, 3, 1), (1, 1, 4)])
def test_to_tensor(oracle: Any, shape: tuple[int, ...], dtype: str) -> None:
    _check(oracle, "to_tensor", {}, _image(shape, dtype), rtol=1e-6, atol=1e-7)


def test_to_tensor_gradient() -> None:
    head = np.random.default_rng(1).random((2, 3, 4, 5)).astype("float32")
    grad = _gradient(mx.nd.image.to_tensor, _image((2, 4, 5, 3), "float32"), head)
    np.testing.assert_allclose(grad, head.transpose(0, 2, 3, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((3, 4, 5), {"mean": (0.1, 0.2, 0.3), "std": (0.5, 2.0, 4.0)}),
        ((2, 3, 4, 5), {"mean": (0.1, 0.2, 0.3), "std": (0.5, 2.0, 4.0)}),
        ((2, 1, 4, 5), {"mean": (0.1,), "std": (0.5,)}),
        ((3, 4, 5), {"mean": 0.5, "std": 0.25}),
    ],
)
def test_normalize(oracle: Any, shape: tuple[int, ...], attrs: dict[str, Any], dtype: str) -> None:
    x = _image(shape, dtype)
    code = (
        "x.attach_grad()\nwith mx.autograd.record():\n"
        f"    out_y = mx.nd.image.normalize(x, **{attrs!r})\nout_y.backward(x * 2)\nout_g = x.grad"
    )
    oracle.check(code, x=x, rtol=1e-5)
    oracle.compared.add("_image_normalize")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 6, 3), (4, 4, 1), (3, 5, 3), (1, 1, 3)])
@pytest.mark.parametrize("name", ["flip_left_right", "flip_top_bottom"])
def test_flips(oracle: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    x = _image(shape, dtype)
    flipped = x[:, ::-1] if name == "flip_left_right" else x[::-1]
    y = getattr(mx.nd.image, name)(mx.nd.array(x, dtype=dtype))
    np.testing.assert_array_equal(y.asnumpy(), flipped)
    if all(n % 2 == 0 for n in shape[:2]):
        # Of odd extents, MXNet leaves the middle line as it finds the memory.
        _check(oracle, name, {}, x)
    if dtype != "uint8":
        # MXNet passes the gradient on without flipping it.
        np.testing.assert_array_equal(_gradient(getattr(mx.nd.image, name), np.zeros_like(x), x), flipped)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "window"),
    [((4, 6, 3), (1, 2, 3, 2)), ((2, 4, 6, 3), (0, 0, 6, 4)), ((1, 4, 6, 1), (5, 3, 1, 1))],
)
def test_crop(oracle: Any, shape: tuple[int, ...], window: tuple[int, ...], dtype: str) -> None:
    attrs = dict(zip(("x", "y", "width", "height"), window))
    x = _image(shape, dtype)
    _check(oracle, "crop", attrs, x)
    if dtype != "uint8":
        left, top, width, height = window
        part = (..., slice(top, top + height), slice(left, left + width), slice(None))
        expected = np.zeros_like(x)
        expected[part] = x[part]
        grad = _gradient(lambda a: mx.nd.image.crop(a, **attrs), np.zeros_like(x), x[part])
        np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 4, 1), (2, 5, 7, 3), (1, 1, 3)])
@pytest.mark.parametrize(
    "attrs",
    [
        {"size": (3, 9)},
        {"size": (14, 10)},
        {"size": 4},
        {"size": 4, "keep_ratio": True},
        {"size": 13, "keep_ratio": True},
        {"size": (3, 9), "interp": 0},
        {"size": (14, 2), "interp": 0},
    ],
)
def test_resize(oracle: Any, shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    _check(oracle, "resize", attrs, _image(shape, "float32"), rtol=1e-4, atol=1e-2)
    # OpenCV's bytes are blended in fixed point: the last bit may differ.
    _check(oracle, "resize", attrs, _image(shape, "uint8"), atol=1.01)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: mx.nd.image.to_tensor(x.reshape((6, 3))), "3 to 4"),
        (lambda x: mx.nd.image.normalize(x), "2 channels"),
        (lambda x: mx.nd.image.flip_left_right(x.reshape((1, 2, 3, 3))), "3 are allowed"),
        (lambda x: mx.nd.image.crop(x, x=2, y=0, width=2, height=2), "leaves the image"),
        (lambda x: mx.nd.image.crop(x, x=0, y=0, width=0, height=2), "width = 0"),
        (lambda x: mx.nd.image.resize(x, size=(1, 2, 3)), "one or two numbers"),
        (lambda x: mx.nd.image.resize(x, size=0), "size"),
    ],
)
def test_refusals(call: Any, words: str) -> None:
    with pytest.raises(mx.MXNetError) as caught:
        call(mx.nd.zeros((2, 3, 3)))
    assert words in str(caught.value)


def test_what_is_not_built_says_so() -> None:
    with pytest.raises(NotImplementedError, match="interp = 2"):
        mx.nd.image.resize(mx.nd.zeros((2, 3, 3)), size=2, interp=2)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("div_sqrt_dim", {}),
        ("quadratic", {"a": 2.0, "b": -1.0, "c": 0.5}),
        ("quadratic", {}),
        ("gradientmultiplier", {"scalar": -3.0}),
        ("round_ste", {}),
        ("sign_ste", {}),
    ],
)
def test_small_operators(oracle: Any, name: str, attrs: dict[str, Any]) -> None:
    x = np.random.default_rng(2).standard_normal((3, 5)).astype("float32") * 3
    code = (
        "x.attach_grad()\nwith mx.autograd.record():\n"
        f"    out_y = mx.nd.contrib.{name}(x, **{attrs!r})\nout_y.backward(h)\nout_g = x.grad"
    )
    oracle.check(code, x=x, h=x[::-1].copy(), rtol=1e-5)
    oracle.compared.add(f"_contrib_{name}")


def test_multicast() -> None:
    arrays = [mx.nd.ones((2,), dtype=d) for d in ("float16", "float32", "float64")]
    assert [a.dtype for a in mx.nd.amp_multicast(*arrays, num_outputs=3)] == [np.float64] * 3
    narrow = mx.nd.amp_multicast(*arrays, num_outputs=3, cast_narrow=True)
    assert [a.dtype for a in narrow] == [np.float16] * 3
    with pytest.raises(mx.MXNetError, match="int32"):
        mx.nd.amp_multicast(arrays[0], mx.nd.ones((2,), dtype="int32"), num_outputs=2)
