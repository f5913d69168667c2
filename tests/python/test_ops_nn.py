"""Softmaxes, activations, normalizations, dropout and loss layers against MXNet 1.9.1 and against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx
from oracle import Oracle, assert_same
from oracle_server import call_op

RNG = np.random.RandomState(7)


def draw(*shape: int, low: float = -2.0, high: float = 2.0, dtype: str = "float32") -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(dtype)


def labels(*shape: int, classes: int) -> np.ndarray:
    return RNG.randint(0, classes, shape).astype("float32")


def norm_inputs(channels: int, *shape: int) -> list[np.ndarray]:
    return [draw(*shape), draw(channels), draw(channels), draw(channels), draw(channels, low=0.5)]


Case = tuple[str, list[np.ndarray], dict[str, Any], list[int]]

CASES: list[Case] = [
    ("softmax", [draw(3, 5)], {}, [0]),
    ("softmax", [draw(2, 3, 4)], {"axis": 1, "temperature": 1.7}, [0]),
    ("softmax", [draw(2, 33, dtype="float64")], {}, [0]),
    ("softmax", [draw(2, 4), np.array([3, 0], "int32")], {"use_length": True}, [0]),
    (
        "softmax",
        [draw(2, 4, 3), np.array([[3, 0, 1], [4, 2, 4]], "int64")],
        {"use_length": True, "axis": 1},
        [0],
    ),
    ("softmax", [draw(2, 4)], {"dtype": "float64"}, [0]),
    ("log_softmax", [draw(3, 5)], {}, [0]),
    ("log_softmax", [draw(2, 3, 4)], {"axis": 1, "temperature": 0.5}, [0]),
    ("softmin", [draw(3, 5)], {"temperature": 2.0}, [0]),
    ("SoftmaxActivation", [draw(3, 4)], {}, [0]),
    ("SoftmaxActivation", [draw(2, 3, 4)], {"mode": "channel"}, [0]),
    ("softmax_cross_entropy", [draw(3, 5), labels(3, classes=5)], {}, [0]),
    *[
        ("Activation", [draw(3, 4)], {"act_type": a}, [0])
        for a in ("relu", "sigmoid", "softrelu", "softsign", "tanh")
    ],
    *[("LeakyReLU", [draw(3, 4)], {"act_type": a}, [0]) for a in ("leaky", "elu", "gelu")],
    ("LeakyReLU", [draw(3, 4)], {"act_type": "elu", "slope": 0.7}, [0]),
    ("LeakyReLU", [draw(2, 3, 4), draw(3)], {"act_type": "prelu"}, [0, 1]),
    ("LeakyReLU", [draw(2, 3, 4), draw(1)], {"act_type": "prelu"}, [0, 1]),
    ("BatchNorm", norm_inputs(3, 4, 3, 5), {}, [0, 1, 2]),
    ("BatchNorm", norm_inputs(3, 4, 3, 5), {"fix_gamma": False}, [0, 1, 2]),
    ("BatchNorm", norm_inputs(5, 4, 3, 5), {"fix_gamma": False, "axis": -1}, [0, 1, 2]),
    ("BatchNorm", norm_inputs(3, 4, 3), {"fix_gamma": False, "use_global_stats": True}, [0, 1, 2]),
    ("LayerNorm", [draw(3, 5), draw(5), draw(5)], {}, [0, 1, 2]),
    ("LayerNorm", [draw(3, 5, 2), draw(5), draw(5)], {"axis": 1}, [0, 1, 2]),
    ("InstanceNorm", [draw(2, 3, 4), draw(3), draw(3)], {}, [0, 1, 2]),
    ("GroupNorm", [draw(2, 4, 3), draw(2), draw(2)], {"num_groups": 2}, [0, 1, 2]),
    *[("L2Normalization", [draw(2, 3, 4)], {"mode": m}, [0]) for m in ("instance", "channel", "spatial")],
    ("LRN", [draw(2, 5, 2, 3)], {"nsize": 3, "alpha": 0.5}, [0]),
    ("SoftmaxOutput", [draw(3, 4), labels(3, classes=4)], {"grad_scale": 2.0}, [0]),
    ("SoftmaxOutput", [draw(3, 4), labels(3, classes=4)], {"smooth_alpha": 0.3}, [0]),
    ("SoftmaxOutput", [draw(3, 4), labels(3, classes=4)], {"out_grad": True}, [0]),
    ("SoftmaxOutput", [draw(3, 4), labels(3, classes=4)], {"normalization": "batch"}, [0]),
    ("SoftmaxOutput", [draw(2, 3, 4), labels(2, 3, classes=4)], {"preserve_shape": True}, [0]),
    (
        "SoftmaxOutput",
        [draw(2, 3, 4), labels(2, 3, classes=4)],
        {"preserve_shape": True, "normalization": "batch"},
        [0],
    ),
    ("SoftmaxOutput", [draw(3, 4), draw(3, 4, low=0.0)], {"grad_scale": 2.0, "normalization": "batch"}, [0]),
    (
        "SoftmaxOutput",
        [draw(2, 3, 4), labels(2, 4, classes=3)],
        {"multi_output": True, "use_ignore": True, "ignore_label": 1, "normalization": "valid"},
        [0],
    ),
    ("LinearRegressionOutput", [draw(3, 4), draw(3, 4)], {"grad_scale": 3.0}, [0]),
    ("LinearRegressionOutput", [draw(3, 1), draw(3)], {}, [0]),
    ("MAERegressionOutput", [draw(3, 4), draw(3, 4)], {}, [0]),
    ("LogisticRegressionOutput", [draw(3, 4), draw(3, 4)], {}, [0]),
    ("SVMOutput", [draw(3, 4), labels(3, classes=4)], {"margin": 0.8}, [0]),
    ("SVMOutput", [draw(3, 4), labels(3, classes=4)], {"use_linear": True}, [0]),
    *[
        ("MakeLoss", [draw(3, 4)], {"normalization": n, "grad_scale": 0.5}, [0])
        for n in ("null", "batch", "valid")
    ],
    ("make_loss", [draw(3, 4)], {}, [0]),
    ("CTCLoss", [draw(5, 2, 4), np.array([[1, 2, 0], [3, 3, 0]], "float32")], {}, [0]),
    ("CTCLoss", [draw(5, 2, 4), np.array([[1, 2, -1], [0, 0, -1]], "float32")], {"blank_label": "last"}, [0]),
]


@pytest.mark.parametrize(
    ("name", "shape", "attrs"),
    [("LeakyReLU", (3, 4), {"act_type": "selu"}), ("SoftmaxActivation", (2, 3, 4), {})],
    ids=["selu", "SoftmaxActivation"],
)
def test_outputs_agree(oracle: Oracle, name: str, shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    """Where MXNet's gradient is not the slope of its output (docs/differences.md), outputs alone are compared."""
    x = draw(*shape)
    assert_same(
        call_op(mx, name, [x], attrs, False, None, None)[0], oracle.op(name, [x], attrs)[0], f"{name} outputs"
    )


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{'-'.join(map(str, c[2].values()))}")
def test_outputs_and_gradients_agree(oracle: Oracle, case: Case, train: bool) -> None:
    name, inputs, attrs, grad_of = case
    if name == "BatchNorm" and not train:
        # MXNet mixes statistics in the gradient of its inference mode: only outputs are comparable.
        theirs = oracle.op(name, inputs, attrs)
        ours = call_op(mx, name, inputs, attrs, False, None, None)
        assert_same(ours[0], theirs[0], name)
        return
    outputs, _ = oracle.op(name, inputs, attrs, train=train)
    heads = [draw(*o.shape, dtype=o.dtype.name) for o in outputs]
    theirs = oracle.op(name, inputs, attrs, train=train, grad_of=grad_of, head_grads=heads)
    ours = call_op(mx, name, inputs, attrs, train, grad_of, heads)
    assert_same(ours[0], theirs[0], f"{name} outputs")
    assert_same(ours[1], theirs[1], f"{name} gradients")


def test_moving_statistics_change_in_backward_alone() -> None:
    x, gamma, beta = (mx.nd.array(a) for a in (draw(4, 3), np.ones(3), np.zeros(3)))
    mean, var = mx.nd.zeros(3), mx.nd.ones(3)
    x.attach_grad()
    with mx.autograd.record():
        y = mx.nd.BatchNorm(x, gamma, beta, mean, var, momentum=0.5)
    np.testing.assert_array_equal(mean.asnumpy(), 0)
    y.backward()
    np.testing.assert_allclose(mean.asnumpy(), x.asnumpy().mean(0) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var.asnumpy(), 0.5 + x.asnumpy().var(0) / 2, rtol=1e-5)


@pytest.mark.parametrize("axes", [(), (1,), (0, 2)])
def test_dropout_keeps_the_mean_and_reuses_its_mask(axes: tuple[int, ...]) -> None:
    x = mx.nd.ones((20, 30, 40))
    x.attach_grad()
    with mx.autograd.record():
        y = mx.nd.Dropout(x, p=0.25, axes=axes)
    y.backward()
    out = y.asnumpy()
    assert set(np.unique(out).tolist()) <= {0.0, float(np.float32(1 / 0.75))}
    assert all((np.ptp(out, axis=a) == 0).all() for a in axes)
    assert abs(out.mean() - 1) < (0.5 if 2 in axes else 0.1)
    np.testing.assert_array_equal(x.grad.asnumpy(), out)
    np.testing.assert_array_equal(mx.nd.Dropout(x, p=0.25).asnumpy(), 1)


def test_rrelu_draws_slopes_while_training() -> None:
    x = mx.nd.array(-np.ones(1000))
    with mx.autograd.record():
        y, slopes = mx.nd.LeakyReLU(x, act_type="rrelu", lower_bound=0.2, upper_bound=0.4)
    np.testing.assert_allclose(y.asnumpy(), -slopes.asnumpy())
    assert slopes.asnumpy().min() >= 0.2 and slopes.asnumpy().max() <= 0.4 and slopes.asnumpy().std() > 0.03
    np.testing.assert_allclose(mx.nd.LeakyReLU(x, act_type="rrelu")[0].asnumpy(), -0.2295, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "inputs", "attrs"),
    [
        ("softmax", [draw(2, 3)], {"axis": 5}),
        ("softmax", [np.ones((2, 3), "int32")], {}),
        ("softmax_cross_entropy", [draw(2, 3), np.array([0, 3], "float32")], {}),
        ("Dropout", [draw(2, 3)], {"p": 1.5}),
        ("Dropout", [draw(2, 3)], {"axes": (4,)}),
        ("BatchNorm", [draw(2, 3), *[draw(2) for _ in range(4)]], {}),
        ("GroupNorm", [draw(2, 3, 2), draw(2), draw(2)], {"num_groups": 2}),
        ("LRN", [draw(2, 3, 2, 2)], {"nsize": 0}),
        ("LeakyReLU", [draw(2, 3), draw(4)], {"act_type": "prelu"}),
        ("SoftmaxOutput", [draw(2, 3), draw(3)], {}),
    ],
)
def test_bad_input_is_refused_by_name(name: str, inputs: list[np.ndarray], attrs: dict[str, Any]) -> None:
    with pytest.raises(mx.MXNetError, match=name):
        call_op(mx, name, inputs, attrs, False, None, None)


def test_softmax_of_long_columns_is_exact():
    """Sums down a long axis keep their last digits, in the result and in the gradient."""
    x = np.random.RandomState(0).randn(2, 40000, 3).astype("float32")
    e = np.exp(-x.astype("float64"))
    wanted = e / e.sum(1, keepdims=True)
    data = mx.nd.array(x)
    data.attach_grad()
    with mx.autograd.record():
        y = mx.nd.softmin(data, axis=1)
    np.testing.assert_allclose(y.asnumpy(), wanted, rtol=3e-6)
    y.backward(mx.nd.array(x))
    slope = -wanted * (x - (wanted * x).sum(1, keepdims=True))
    np.testing.assert_allclose(data.grad.asnumpy(), slope, rtol=1e-4, atol=1e-9)
