"""Families of operators on a GPU whose records' samples are too small to show them: against the CPU, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, nd

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def agree(
    gpu: Any, f: Callable[..., Any], xs: Sequence[np.ndarray], tol: float = 1e-4, grad: bool = True
) -> None:
    """`f` of arrays on both devices: equal results and, of float32 inputs, equal gradients up to `tol`."""
    found = []
    for ctx in (mx.cpu(), gpu):
        mx.random.seed(7, ctx)
        arrays = [nd.array(x, dtype=x.dtype, ctx=ctx) for x in xs]
        which = [a for a in arrays if a.dtype == np.float32 and grad]
        for a in which:
            a.attach_grad()
        with autograd.record():
            given = f(*arrays)
            outs = list(given) if isinstance(given, (list, tuple)) else [given]
        if which:
            heads = [nd.array(np.linspace(0.5, 1.5, o.size).reshape(o.shape), ctx=ctx) for o in outs]
            autograd.backward(outs, heads)
        found.append([o.asnumpy() for o in outs] + [a.grad.asnumpy() for a in which])
    for want, got in zip(*found, strict=True):
        assert want.dtype == got.dtype
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=1e-6))
        np.testing.assert_allclose(got.astype("float64"), want.astype("float64"), rtol=tol, atol=tol * scale)


@pytest.mark.parametrize("n", [1, 5, 33, 100])
def test_factorisations(gpu: Any, n: int) -> None:
    """Within a block of the kernels, and over several."""
    a = floats(2, n, n)
    steep = a / np.sqrt(n, dtype="float32") + 2 * np.eye(n, dtype="float32")
    turned = np.ascontiguousarray(np.roll(steep, 1, axis=1))
    positive = a @ a.transpose(0, 2, 1) / n + np.eye(n, dtype="float32")
    agree(gpu, nd.linalg.potrf, [positive], 1e-3)
    agree(gpu, nd.linalg.potri, [np.linalg.cholesky(positive)], 2e-3)
    agree(gpu, nd.linalg.inverse, [turned], 1e-3)
    agree(gpu, nd.linalg.det, [turned / 1.5], 1e-3)
    agree(gpu, nd.linalg.slogdet, [turned], 1e-3)


@pytest.mark.parametrize("rightside", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("lower", [False, True])
def test_triangular_systems(gpu: Any, rightside: bool, transpose: bool, lower: bool) -> None:
    n = 40
    a = floats(2, n, n) / np.sqrt(n, dtype="float32") + 2 * np.eye(n, dtype="float32")
    b = floats(2, 3, n) if rightside else floats(2, n, 3)
    attrs = {"rightside": rightside, "transpose": transpose, "lower": lower, "alpha": 1.5}
    agree(gpu, lambda a, b: nd.linalg.trsm(a, b, **attrs), [a, b], 1e-3)
    agree(gpu, lambda a, b: nd.linalg.trmm(a, b, **attrs), [a, b], 1e-3)


def test_products_along_any_axis(gpu: Any) -> None:
    for axis, shapes in {
        -2: ((3, 4, 5), (3, 5, 6), (3, 4, 6)),
        1: ((2, 4, 3, 5), (2, 5, 3, 6), (2, 4, 3, 6)),
        0: ((4, 2, 3, 5), (5, 2, 3, 6), (4, 2, 3, 6)),
    }.items():
        a, b, c = (floats(*s) for s in shapes)
        attrs = {"axis": axis, "alpha": 1.5}
        agree(gpu, lambda a, b, c, k=attrs: nd.linalg.gemm(a, b, c, beta=0.7, **k), [a, b, c])
        turned = [np.ascontiguousarray(x.swapaxes(axis, -1)) for x in (a, b)]
        attrs = {**attrs, "transpose_a": True, "transpose_b": True}
        agree(gpu, lambda a, b, k=attrs: nd.linalg.gemm2(a, b, **k), turned)


def test_diagonals_and_packed_triangles(gpu: Any) -> None:
    a = floats(2, 9, 9)
    for offset in (0, 1, -1, 4, -8):
        agree(gpu, lambda a, o=offset: nd.linalg.extractdiag(a, offset=o), [a])
        agree(gpu, lambda a, o=offset: nd.linalg.makediag(a, offset=o), [floats(2, 3)])
        for lower in (False, True):
            attrs = {"offset": offset, "lower": lower}
            agree(gpu, lambda a, k=attrs: nd.linalg.extracttrian(a, **k), [a])
            agree(gpu, lambda a, k=attrs: nd.linalg.maketrian(a, **k), [floats(2, 10)])


@pytest.mark.parametrize(
    ("shape", "axis"), [((70, 33), 0), ((2, 3000), 1), ((3, 1025, 2), 1), ((40, 70), None)]
)
def test_order(gpu: Any, shape: tuple[int, ...], axis: int | None) -> None:
    """Rows within a tile and beyond; ties, infinities, zeros of both signs and not-a-number."""
    x = np.round(floats(*shape) * 3)
    flat = x.reshape(-1)
    flat[::7], flat[1::11], flat[2::13], flat[3::5] = np.nan, np.inf, -np.inf, -0.0
    whole = RNG.integers(-5, 5, shape).astype("int32")
    for ascending in (False, True):
        for values in (x, x.astype("float16"), whole, whole.astype("int8")):
            attrs = {"axis": axis, "is_ascend": ascending}
            agree(gpu, lambda a, k=attrs: nd.argsort(a, **k), [values], 0, False)
            for k in (1, 30):
                for kind in ("both", "mask"):
                    wanted = {**attrs, "k": k, "ret_typ": kind, "dtype": "int32"}
                    agree(gpu, lambda a, k=wanted: nd.topk(a, **k), [values], 0, False)
        agree(gpu, lambda a, k=attrs: nd.sort(a, **k), [floats(*shape)])
        agree(gpu, lambda a, k=attrs: nd.topk(a, k=20, ret_typ="value", **k), [floats(*shape)])
    with pytest.raises(mx.base.MXNetTypeError, match="int64 is not supported on a GPU"):
        nd.argsort(nd.ones((3,), ctx=gpu), dtype="int64")


@pytest.mark.parametrize("blank", ["first", "last"])
def test_ctc_with_lengths(gpu: Any, blank: str) -> None:
    steps, batch, classes, width = 30, 4, 7, 9
    label = RNG.integers(blank == "first", classes - (blank == "last"), (batch, width)).astype("int32")
    label[1, 4:] = 0 if blank == "first" else -1
    lengths = [
        RNG.integers(20, steps + 1, batch).astype("int32"),
        RNG.integers(0, width, batch).astype("int32"),
    ]
    agree(
        gpu,
        lambda x, label: nd.CTCLoss(x, label, blank_label=blank),
        [floats(steps, batch, classes), label],
        5e-4,
    )
    told = {"use_data_lengths": True, "use_label_lengths": True, "blank_label": blank}
    agree(
        gpu,
        lambda x, *rest: nd.CTCLoss(x, *rest, **told),
        [floats(steps, batch, classes), label, *lengths],
        5e-4,
    )


def test_images_of_bytes(gpu: Any) -> None:
    for shape in ((15, 11, 3), (2, 15, 11, 3)):
        image = RNG.integers(0, 256, shape).astype("uint8")
        agree(gpu, nd.image.to_tensor, [image])
        agree(gpu, lambda a: nd.image.crop(a, x=1, y=2, width=4, height=3), [image], 0)
        agree(gpu, lambda a: nd.image.resize(a, size=(7, 20), interp=0), [image], 0)
        # A half may be rounded the other way.
        agree(gpu, lambda a: nd.image.resize(a, size=(7, 20), interp=1), [image], 6e-3)
    image = RNG.integers(0, 256, (15, 11, 3)).astype("uint8")
    agree(gpu, nd.image.flip_left_right, [image], 0)
    agree(gpu, nd.image.flip_top_bottom, [image], 0)
    agree(gpu, lambda a: nd.image.normalize(a, mean=(1, 2, 3), std=(0.5, 2, 4)), [floats(2, 3, 4, 5)])


def test_finite_and_close(gpu: Any) -> None:
    for odd in (1.0, np.nan, np.inf, -np.inf):
        x, y = floats(5), floats(300, 7)
        y[200, 3] = odd
        agree(gpu, lambda *a: nd.multi_all_finite(*a, num_arrays=2), [x, y], 0, False)
        agree(gpu, lambda a, b: nd.contrib.allclose(a, b), [y, y], 0, False)
        agree(gpu, lambda a, b: nd.contrib.allclose(a, b, equal_nan=False), [y, y], 0, False)
    held = nd.zeros((1,), ctx=gpu)
    nd.all_finite(nd.ones((3,), ctx=gpu), init_output=False, out=held)
    assert held.asscalar() == 0


def test_rows_held_by_a_mask(gpu: Any) -> None:
    for dtype in ("float32", "int32", "uint8"):
        mask = (RNG.random(3000) < 0.3).astype(dtype)
        agree(gpu, nd.contrib.boolean_mask, [floats(3000, 2), mask])


def test_draws_of_classes(gpu: Any) -> None:
    prob = RNG.random((4, 50)).astype("float32")
    prob[:, ::3] = 0
    agree(gpu, lambda p: nd.random.multinomial(p, shape=(40,), get_prob=True)[1], [prob], 1e-3)
    mx.random.seed(7, gpu)
    drawn = nd.random.multinomial(nd.array(prob, ctx=gpu), shape=(1000,)).asnumpy()
    assert (np.take_along_axis(prob, drawn, 1) > 0).all()


@pytest.mark.parametrize("name", sorted(mx.optimizer.Optimizer.opt_registry))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_optimizers(gpu: Any, name: str, dtype: str) -> None:
    """Four steps of every optimizer, with a float32 copy of float16 weights."""
    found = []
    for ctx in (mx.cpu(), gpu):
        mx.random.seed(1, ctx)
        draws = np.random.default_rng(3)
        wd = 0.0 if name == "groupadagrad" else 0.01
        optimizer = mx.optimizer.create(name, learning_rate=0.01, wd=wd, multi_precision=dtype == "float16")
        updater = mx.optimizer.get_updater(optimizer)
        weights = [nd.array(draws.normal(size=s), ctx=ctx, dtype=dtype) for s in ((4, 3), (5, 1))]
        for _ in range(4):
            grads = [nd.array(draws.normal(size=w.shape), ctx=ctx, dtype=dtype) for w in weights]
            if optimizer.aggregate_num > 0:
                updater([0, 1], grads, weights)
            else:
                for i, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
                    updater(i, grad, weight)
        assert all(w.context == ctx for w in weights)
        found.append([w.asnumpy().astype("float64") for w in weights])
    for want, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "float32" else 2e-3, atol=1e-6)
