"""Whole trainings on a GPU: what MXNet users train gives there the curves it gives on the CPU."""

from __future__ import annotations

import functools
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from gpu_nets import CASES, agree, curve, start
from mxrs import autograd, gluon, nd

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import digits_data
import train_digits


@functools.cache
def on_cpu(name: str) -> list[float]:
    """The curve of a case on the CPU, imperative."""
    return curve(CASES[name], mx.cpu(), False)[0]


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("name", list(CASES))
def test_curves_are_those_of_the_cpu(name: str, hybridize: bool, gpu: Any) -> None:
    """Ten steps with momentum from equal weights."""
    losses, net = curve(CASES[name], gpu, hybridize)
    agree(losses, on_cpu(name))
    assert all(p.list_ctx() == [gpu] for p in net.collect_params().values())


OPTIMIZERS = {
    "sgd": {"learning_rate": 0.2, "wd": 1e-3},
    "nag": {"learning_rate": 0.05, "momentum": 0.9},
    "adam": {"learning_rate": 0.02},
    "adamax": {"learning_rate": 0.02},
    "nadam": {"learning_rate": 0.02},
    "adagrad": {"learning_rate": 0.05},
    "adadelta": {"rho": 0.8, "epsilon": 1e-3},
    "rmsprop": {"learning_rate": 0.005},
    "ftrl": {"learning_rate": 0.2},
    "ftml": {"learning_rate": 0.02},
    "signum": {"learning_rate": 0.01},
    "lamb": {"learning_rate": 0.02},
    "lars": {"learning_rate": 0.5, "momentum": 0.9},
    "dcasgd": {"learning_rate": 0.1},
    "adamw": {"learning_rate": 0.02, "wd": 0.01},
    "sgld": {"learning_rate": 0.05},
    "lbsgd": {"learning_rate": 0.1, "momentum": 0.9},
}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_steps_as_on_the_cpu(optimizer: str, gpu: Any) -> None:
    """Weights after ten steps, not only losses: an update that differs a little shows there."""
    options = OPTIMIZERS[optimizer]
    try:
        nets = [curve(CASES["mlp"], ctx, True, optimizer, options) for ctx in (mx.cpu(), gpu)]
    except mx.base.MXNetNotImplementedError as error:
        assert "has no GPU kernel yet" in str(error)
        pytest.skip(str(error))
    np.testing.assert_allclose(nets[1][0], nets[0][0], rtol=1e-3)
    cpu_params, gpu_params = (net._collect_params_with_prefix() for _, net in nets)
    for name, p in cpu_params.items():
        np.testing.assert_allclose(
            gpu_params[name].data().asnumpy(), p.data().asnumpy(), rtol=5e-3, atol=5e-4, err_msg=name
        )


@pytest.mark.parametrize("name", ["mlp", "resnet", "transformer"])
def test_half_precision_trains_as_on_the_cpu(name: str, gpu: Any) -> None:
    """Weights in float16 with masters in float32; losses agree to what float16 keeps."""
    if "f16" not in mx._core.gpu_list()[0]["features"]:
        pytest.skip("this GPU has no float16")
    case, curves = CASES[name], []
    for ctx in (mx.cpu(), gpu):
        net = case.make()
        net.initialize(ctx=ctx)
        start(net, [nd.array(x, ctx=ctx) for x in case.inputs])
        net.cast("float16")
        net.hybridize()
        # Words stay numbers of float32.
        xs = [
            nd.array(x, ctx=ctx, dtype="float32" if name == "transformer" else "float16") for x in case.inputs
        ]
        y, loss_of, losses = nd.array(case.label, ctx=ctx), case.loss(), []
        options = {"learning_rate": 0.1, "momentum": 0.9, "multi_precision": True}
        trainer = gluon.Trainer(net.collect_params(), "sgd", options)
        for _ in range(6):
            with autograd.record():
                loss = loss_of(net(*xs).astype("float32"), y)
            loss.backward()
            trainer.step(len(case.label))
            losses.append(float(loss.mean().asscalar()))
        curves.append(losses)
    agree(curves[1], curves[0], rtol=5e-3)


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """200 of the example's pictures and their labels."""
    data = digits_data.load("digits")
    chosen = np.random.RandomState(2).permutation(len(data.train_labels))[:200]
    return data.train_images[chosen], data.train_labels[chosen].astype("float32")


@functools.cache
def digits_curve(ctx: Any, hybridize: bool) -> tuple[list[float], float]:
    """Losses of ten steps of the example's network without its dropout, and its accuracy meanwhile."""
    images, labels = digits()
    np.random.seed(0)
    mx.random.seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gluon.nn, "Dropout", lambda rate: gluon.nn.HybridLambda("identity"))
        net = train_digits.build_network(hybridize)
    net.initialize(mx.init.Xavier(), ctx=ctx)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.001, "wd": 1e-4})
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    losses, metric, generator = [], mx.metric.Accuracy(), np.random.RandomState(1)
    for i in range(0, len(labels), 20):
        x = nd.array(train_digits.as_planes(images[i : i + 20]), ctx=ctx)
        y = nd.array(labels[i : i + 20], ctx=ctx)
        x = train_digits.shifted(x, generator, mirror=True)
        with autograd.record():
            scores = net(x)
            loss = loss_of(scores, y)
        loss.backward()
        trainer.step(20)
        metric.update([y], [scores])
        losses.append(float(loss.mean().asscalar()))
    return losses, float(metric.get()[1])


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_digits_train_as_on_the_cpu(hybridize: bool, gpu: Any) -> None:
    """`make train CTX=gpu`, its first steps: losses and accuracy, from equal weights."""
    (found, right), (wanted, known) = digits_curve(gpu, hybridize), digits_curve(mx.cpu(), False)
    agree(found, wanted)
    assert right == known
