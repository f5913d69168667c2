"""Gluon losses: values by formula, values and gradients as in MXNet 1.9.1."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(2, 4, 3)).astype("f")
B = (RNG.random((4, 3)) > 0.5).astype("f")
S = (2 * B - 1).astype("f")
W = RNG.random((4, 1)).astype("f")
P = (np.exp(Y) / np.exp(Y).sum(1, keepdims=True)).astype("f")
C = np.array([0, 2, 1, 2], "f")

CASES = [
    ("L1Loss()", (X, Y, W)), ("L2Loss(weight=2.0)", (X, Y, W)), ("HuberLoss(rho=0.3)", (X, Y)),
    ("HingeLoss()", (X, S)), ("SquaredHingeLoss(margin=0.3)", (X, S)), ("LogisticLoss()", (X, S)),
    ("LogisticLoss(label_format='binary')", (X, B)), ("SigmoidBCELoss()", (50 * X, B, W)),
    ("SigmoidBCELoss(from_sigmoid=True)", (P, B)), ("SigmoidBCELoss()", (X, B, W, P[:1])),
    ("SoftmaxCELoss()", (X, C, W)), ("SoftmaxCELoss(sparse_label=False)", (X, P)),
    ("SoftmaxCELoss(from_logits=True)", (np.log(P), C)), ("SoftmaxCELoss(axis=0, batch_axis=1)", (X, C[:3])),
    ("KLDivLoss()", (np.log(P), P[::-1].copy())), ("KLDivLoss(from_logits=False)", (X, P)),
    ("TripletLoss(margin=3)", (X, Y, B)), ("PoissonNLLLoss()", (X, P)),
    ("CosineEmbeddingLoss(margin=0.2)", (X, Y, S[:, 0].copy())), ("SDMLLoss()", (X, Y)),
    ("CTCLoss()", (RNG.normal(size=(2, 6, 4)).astype("f"), np.array([[0, 1, 2], [1, -1, -1]], "f"))),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{i}-{name}" for i, (name, _) in enumerate(CASES)])
@pytest.mark.parametrize("hybridize", [False, True])
def test_values_and_gradients_as_in_mxnet(oracle, case: int, hybridize: bool) -> None:
    text, arrays = CASES[case]
    named = {f"a{i}": array for i, array in enumerate(arrays)}
    code = (
        f"args = [nd.array(a) for a in ({', '.join(named)},)]\nargs[0].attach_grad()\n"
        f"loss = mx.gluon.loss.{text}\nwith mx.autograd.record():\n    y = loss(*args)\ny.backward()\n"
        "out_y, out_g = y.asnumpy(), args[0].grad.asnumpy()"
    )
    wanted = oracle.run(code, **named)
    loss = eval(f"gluon.loss.{text}", {"gluon": gluon})
    if hybridize:
        loss.hybridize()
    args = [mx.nd.array(array) for array in arrays]
    args[0].attach_grad()
    with autograd.record():
        y = loss(*args)
    y.backward()
    np.testing.assert_allclose(y.asnumpy(), wanted["out_y"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(args[0].grad.asnumpy(), wanted["out_g"], rtol=1e-4, atol=1e-5)


def test_formulas() -> None:
    nd = mx.nd
    value = gluon.loss.L2Loss()(nd.array([[1.0, 3.0]]), nd.zeros((1, 2))).asnumpy()
    np.testing.assert_allclose(value, [2.5])
    log_softmax = X - np.log(np.exp(X).sum(1, keepdims=True))
    value = gluon.loss.SoftmaxCrossEntropyLoss()(nd.array(X), nd.array(C)).asnumpy()
    np.testing.assert_allclose(value, -log_softmax[range(4), C.astype(int)], rtol=1e-5)
    value = gluon.loss.KLDivLoss()(nd.array(np.log(P)), nd.array(P)).asnumpy()
    np.testing.assert_allclose(value, np.zeros(4), atol=1e-6)


def test_poisson_full_likelihood_of_zero_counts_is_finite() -> None:
    loss = gluon.loss.PoissonNLLLoss(compute_full=True)(mx.nd.zeros((1, 2)), mx.nd.array([[0.0, 3.0]]))
    stirling = 3 * np.log(3) - 3 + 0.5 * np.log(6 * np.pi)
    np.testing.assert_allclose(loss.asnumpy().ravel(), [(2 + stirling) / 2], rtol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="signed or binary"):
        gluon.loss.LogisticLoss(label_format="x")
    with pytest.raises(AssertionError, match="layout"):
        gluon.loss.CTCLoss(layout="x")
