"""Metrics against numbers worked out by hand and against MXNet 1.9.1."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mxrs as mx

METRICS = [
    "Accuracy()", "TopKAccuracy(2)", "CrossEntropy()", "NegativeLogLikelihood(1e-3)", "Perplexity(None)",
    "Perplexity(1)", "PCC()", "create(['acc', 'ce'])",
]  # fmt: skip
BINARY = ["F1()", "F1(average='micro')", "MCC()", "MCC(average='micro')"]
REAL = ["MAE()", "MSE()", "RMSE()", "PearsonCorrelation()", "PearsonCorrelation(average='micro')", "Loss()"]


def after(metric, *batches) -> float:
    for labels, preds in batches:
        metric.update([mx.nd.array(labels)], [mx.nd.array(preds)])
    return metric.get()[1]


def test_values_by_hand() -> None:
    scores = [[0.3, 0.7], [0.2, 0.8], [0.6, 0.4]]
    assert after(mx.metric.Accuracy(), ([0, 1, 1], scores)) == pytest.approx(1 / 3)
    assert after(mx.metric.F1(), ([0, 1, 1], scores), ([1], [[0.1, 0.9]])) == pytest.approx(0.75)
    assert after(mx.metric.F1(average="micro"), ([0, 1, 1], scores), ([1], [[0.1, 0.9]])) == pytest.approx(
        2 / 3
    )
    assert after(mx.metric.RMSE(), ([0, 0], [1, 3]), ([0], [5])) == pytest.approx((math.sqrt(5) + 5) / 2)
    assert after(mx.metric.Perplexity(0), ([0, 1], [[0.5, 0.5], [0.2, 0.8]])) == pytest.approx(1.25)
    assert after(mx.metric.TopKAccuracy(2), ([2, 0], [[0.1, 0.3, 0.6]] * 2)) == pytest.approx(0.5)


def test_local_and_global_statistics() -> None:
    metric = mx.metric.Accuracy()
    assert math.isnan(metric.get()[1])
    after(metric, ([0], [[1.0, 0.0]]))
    metric.reset_local()
    after(metric, ([1], [[1.0, 0.0]]))
    assert metric.get() == ("accuracy", 0.0)
    assert metric.get_global() == ("accuracy", 0.5)


@pytest.mark.parametrize("kind", ["class", "binary", "real"])
def test_same_as_mxnet(oracle, kind: str) -> None:
    rng = np.random.default_rng(2)
    metrics, classes = {"class": (METRICS, 4), "binary": (BINARY, 2), "real": (REAL, 0)}[kind]
    labels = rng.integers(0, classes, (3, 7)).astype("f") if classes else rng.normal(size=(3, 7)).astype("f")
    preds = rng.dirichlet(np.ones(classes), (3, 7)) if classes else rng.normal(size=(3, 7))
    preds = preds.astype("f")
    for metric in metrics:
        code = (
            f"m = mx.metric.{metric}\nfor i in range(3):\n    m.update([nd.array(l[i])], [nd.array(p[i])])\n"
            "out_value = np.array([v for _, v in m.get_name_value()])"
        )
        wanted = oracle.run(code, l=labels, p=preds)["out_value"]
        ours = eval(f"mx.metric.{metric}", {"mx": mx})
        after(ours, *zip(labels, preds))
        np.testing.assert_allclose([v for _, v in ours.get_name_value()], wanted, rtol=1e-5, err_msg=metric)


def test_custom_and_composite() -> None:
    metric = mx.metric.np(lambda label, pred: float((label - pred).sum()))
    assert metric.name == "custom(<lambda>)" and after(metric, ([3], [1])) == 2
    both = mx.metric.create(["acc", mx.metric.CustomMetric(lambda label, pred: (4.0, 2), name="x")])
    both.update([mx.nd.array([0])], [mx.nd.array([[0.6, 0.4]])])
    assert both.get_name_value() == [("accuracy", 1.0), ("x", 2.0)]


class _Peak(mx.metric.EvalMetric):
    """As users write them: sums of NumPy's numbers."""

    def update(self, labels, preds) -> None:
        self.sum_metric += preds[0].asnumpy().max()
        self.num_inst += 1


@pytest.mark.parametrize("metric", [_Peak("peak"), mx.metric.Loss(), mx.metric.MAE()])
def test_long_sums_keep_their_digits(metric) -> None:
    """2**24 is where a float32 stops to count."""
    for value in [2.0**24] + [1.0] * 31:
        metric.update([mx.nd.zeros((1,))], [mx.nd.array([value])])
    assert metric.get()[1] == (2**24 + 31) / 32
    metric.reset_local()
    metric.update([mx.nd.zeros((1,))], [mx.nd.array([2.0**24])])
    metric.update([mx.nd.zeros((1,))], [mx.nd.array([1.0])])
    assert metric.get()[1] == (2**24 + 1) / 2


def test_values_print_as_numbers() -> None:
    metric = mx.metric.create(
        ["acc", "ce", "f1", mx.metric.Perplexity(None), mx.metric.np(lambda label, pred: np.float32(0.5))]
    )
    metric.update([mx.nd.array([0, 1])], [mx.nd.array([[0.5, 0.5], [0.5, 0.5]])])
    assert str(metric.get()) == str((metric.get()[0], [float(value) for value in metric.get()[1]]))
    assert "float" not in str(metric.get_name_value()) + str(metric)


def test_update_dict_takes_the_named_arrays() -> None:
    metric = mx.metric.Accuracy(output_names=["p"], label_names=["l"])
    arrays = {"p": mx.nd.array([[1.0, 0.0]]), "z": mx.nd.array([[0.0]])}
    metric.update_dict({"l": mx.nd.array([0]), "q": mx.nd.array([9])}, arrays)
    assert metric.get() == ("accuracy", 1.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Shape of labels 3 does not match shape of predictions 2"):
        after(mx.metric.Accuracy(), ([0, 1, 1], [[0.9, 0.1], [0.2, 0.8]]))
    with pytest.raises(ValueError, match="binary"):
        after(mx.metric.F1(), ([0, 1, 2], [[0.3, 0.7, 0], [0.2, 0.8, 0], [0.6, 0.4, 0]]))
    with pytest.raises(AssertionError, match="not registered"):
        mx.metric.create("foo")
    with pytest.raises(AssertionError, match="Accuracy"):
        mx.metric.TopKAccuracy(top_k=1)
