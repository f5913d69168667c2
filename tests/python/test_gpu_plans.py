"""Plans on a GPU: what joins a dispatch, what a training step sends and creates, and devices that bind few buffers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd, profiler
from mxrs.gluon import nn


class BasicBlock(gluon.HybridBlock):
    """Two convolutions beside a shortcut, as users write it."""

    def __init__(self, channels: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.body = nn.HybridSequential()
        self.body.add(
            nn.Conv2D(channels, 3, stride, 1, use_bias=False), nn.BatchNorm(), nn.Activation("relu")
        )
        self.body.add(nn.Conv2D(channels, 3, 1, 1, use_bias=False), nn.BatchNorm())
        self.shortcut = None
        if project:
            self.shortcut = nn.HybridSequential()
            self.shortcut.add(nn.Conv2D(channels, 1, stride, use_bias=False), nn.BatchNorm())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        rest = x if self.shortcut is None else self.shortcut(x)
        return F.Activation(self.body(x) + rest, act_type="relu")


def residual_network(widths: tuple[int, ...] = (4, 6, 8, 10)) -> gluon.HybridBlock:
    """ResNet-18's shape, with fewer channels."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(widths[0], 3, 1, 1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"))
    net.add(nn.MaxPool2D(3, 2, 1))
    for stage, width in enumerate(widths):
        net.add(BasicBlock(width, 2 if stage else 1, stage > 0), BasicBlock(width))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(5))
    return net


def start(net: gluon.HybridBlock, ctx: Any, *shape: int) -> Any:
    """Initializes with the same numbers on every context; gives data."""
    rng = np.random.RandomState(3)
    data = nd.array(rng.randn(*shape).astype("float32"), ctx=ctx)
    net.initialize(ctx=ctx)
    net(data)
    for name, p in net._collect_params_with_prefix().items():
        spread = np.abs(rng.randn(*p.shape)) + 0.5 if "running_var" in name else rng.randn(*p.shape) * 0.2
        p.set_data(nd.array(spread.astype("float32"), ctx=ctx))
    net.hybridize()
    return data


def training(net: gluon.HybridBlock, ctx: Any, data: Any) -> Any:
    """A function that does one step and gives the loss."""
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05, "momentum": 0.9})
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    label = nd.array(np.arange(data.shape[0]) % 5, ctx=ctx)

    def step() -> Any:
        with autograd.record():
            loss = loss_of(net(data), label)
        loss.backward()
        trainer.step(data.shape[0])
        return loss

    return step


def dispatches(work: Any, times: int = 1) -> dict[str, int]:
    """What `work` sends to the GPU."""
    nd.waitall()
    profiler.gpu_counts(mx.gpu(0), reset=True)
    for _ in range(times):
        work()
    nd.waitall()
    return profiler.gpu_counts(mx.gpu(0))


def test_a_residual_network_trains_as_on_the_cpu(gpu: Any) -> None:
    """Six steps from equal weights, momentum and moving statistics; then a prediction."""

    def run(ctx: Any) -> tuple[list[float], np.ndarray]:
        net = residual_network()
        data = start(net, ctx, 3, 3, 16, 16)
        step = training(net, ctx, data)
        losses = [float(step().mean().asscalar()) for _ in range(6)]
        return losses, net(data).asnumpy()

    (wanted, prediction), (found, predicted) = run(mx.cpu()), run(gpu)
    assert wanted[-1] < wanted[0] * 0.95
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    np.testing.assert_allclose(predicted, prediction, rtol=2e-2, atol=2e-2)


def test_a_step_creates_nothing_and_submits_a_few_times(gpu: Any) -> None:
    """After a warm-up: no shader, pipeline, layout or buffer, no bytes to or from the host."""
    net = residual_network()
    step = training(net, gpu, start(net, gpu, 2, 3, 16, 16))
    dispatches(step, 3)
    counts = dispatches(step, 4)
    for made in (
        "pipelines",
        "layouts",
        "buffers",
        "staging_buffers",
        "bytes_written",
        "bytes_read",
        "bytes_copied",
    ):
        assert counts[made] == 0, (made, counts)
    # 20 convolutions forward and twice backward, as many normalizations of two dispatches each way, 62 weights in
    # updates of up to four, and what is left of pooling, classifier and loss.
    assert counts["dispatches"] / 4 <= 200, counts
    assert counts["submits"] / 4 <= 4, counts


def test_what_stands_behind_a_kernel_joins_its_dispatch(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalization at inference, residual sums and activations behind convolutions and dense layers."""

    class Head(gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Dense(6, activation="relu"), nn.Dense(6)
            self.up = nn.Conv2DTranspose(3, 3, strides=2)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            y = self.one(x)
            y = F.tanh(self.two(y) + y)
            z = F.batch_dot(F.expand_dims(y, 2), F.expand_dims(y, 1)) * 0.5
            return F.sigmoid(self.up(F.expand_dims(z, 1)))

    def run(ctx: Any) -> tuple[np.ndarray, int]:
        net = nn.HybridSequential()
        net.add(BasicBlock(4, project=True), BasicBlock(4), Head())
        data = start(net, ctx, 2, 3, 6, 6)
        net(data)
        count = dispatches(lambda: net(data))["dispatches"] if ctx == gpu else 0
        return net(data).asnumpy(), count

    wanted, _ = run(mx.cpu())
    found, fused = run(gpu)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)
    monkeypatch.setenv("MXRS_PASSES_OFF", "epilogue")
    apart, unfused = run(gpu)
    np.testing.assert_allclose(apart, wanted, rtol=2e-4, atol=2e-5)
    # Of five convolutions, two dense layers, a product and a deconvolution only the shortcut's convolution has nothing
    # behind it: its normalization is part of the residual sum.
    assert fused == unfused - 8


def test_gradients_pass_an_activation_in_the_dispatch(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of an activation is taken where the gradient that it scales is computed."""

    def run(ctx: Any) -> tuple[list[np.ndarray], int]:
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 3, activation="relu"), nn.Conv2D(4, 3, activation="tanh"), nn.Conv2D(2, 3))
        data = start(net, ctx, 2, 3, 9, 9)
        data.attach_grad()

        def step() -> None:
            with autograd.record():
                out = net(data)
            out.backward()

        step()
        count = dispatches(step)["dispatches"] if ctx == gpu else 0
        grads = [p.grad().asnumpy() for p in net.collect_params().values()]
        return [data.grad.asnumpy(), *grads], count

    wanted, _ = run(mx.cpu())
    found, fused = run(gpu)
    monkeypatch.setenv("MXRS_PASSES_OFF", "epilogue")
    apart, unfused = run(gpu)
    for a, b, c in zip(wanted, found, apart, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(c, a, rtol=2e-4, atol=2e-5)
    assert fused == unfused - 4


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "clip_gradient": 0.3, "wd": 0.1}]
)
def test_weights_are_updated_together(gpu: Any, options: dict[str, float]) -> None:
    """SGD hands over a few weights at a time: one dispatch, with the rates of each."""

    def run(ctx: Any) -> tuple[list[np.ndarray], int]:
        rng = np.random.RandomState(0)
        params = []
        for i in range(8):
            param = gluon.Parameter(f"p{i}", shape=(3, 200 * i + 1))
            param.initialize(ctx=ctx)
            param.set_data(nd.array(rng.randn(*param.shape), ctx=ctx))
            param.lr_mult, param.wd_mult = 1 + i / 10, float(i)
            params.append(param)
        factors = [nd.array(rng.randn(*param.shape), ctx=ctx) for param in params]
        trainer = gluon.Trainer(params, "sgd", {"learning_rate": 0.1, **options})
        for _ in range(3):
            with autograd.record():
                loss = sum((param.data() * f).sum() for param, f in zip(params, factors, strict=True))
            loss.backward()
            count = dispatches(lambda: trainer.step(2))["dispatches"]
        return [param.data().asnumpy() for param in params], count

    (wanted, _), (found, count) = run(mx.cpu()), run(gpu)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert count == 2


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 3e-2)])
def test_channels_may_stand_last(gpu: Any, dtype: str, tolerance: float) -> None:
    """NHWC: convolutions, their transpose, pooling and normalization, forward and backward."""
    if dtype == "float16" and "f16" not in mx._core.gpu_list()[0]["features"]:
        pytest.skip("the adapter has no float16")

    def run(ctx: Any) -> list[np.ndarray]:
        net = nn.HybridSequential()
        net.add(nn.Conv2D(8, 3, 2, 1, layout="NHWC", activation="relu"), nn.BatchNorm(axis=-1))
        net.add(nn.MaxPool2D(2, layout="NHWC"), nn.Conv2D(8, 3, 1, 1, groups=2, layout="NHWC"))
        net.add(nn.Conv2DTranspose(4, 3, 2, layout="NHWC"), nn.GlobalAvgPool2D(layout="NHWC"))
        data = start(net, ctx, 2, 13, 12, 6)
        net.cast(dtype)
        data = data.astype(dtype)
        data.attach_grad()
        with autograd.record():
            out = net(data)
        out.backward()
        params = [p for p in net.collect_params().values() if p.grad_req != "null"]
        return [out.asnumpy(), data.grad.asnumpy(), *(p.grad().asnumpy() for p in params)]

    for a, b in zip(run(mx.cpu()), run(gpu), strict=True):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())


PROGRAM = """
import numpy as np
import mxrs as mx
from test_gpu_plans import BasicBlock, Many, start, training
from mxrs.gluon import nn

def run(ctx):
    net = nn.HybridSequential()
    net.add(BasicBlock(6), BasicBlock(8, 2, True), nn.GlobalAvgPool2D(), nn.Dense(5))
    data = start(net, ctx, 2, 6, 8, 8)
    step = training(net, ctx, data)
    losses = [float(step().mean().asscalar()) for _ in range(3)]
    many = Many()
    many.hybridize()
    rng = np.random.RandomState(1)
    xs = [mx.nd.array(rng.randn(3, 4) if i % 4 else rng.randn(4), ctx=ctx) for i in range(14)]
    return losses, net(data).asnumpy(), many(*xs).asnumpy()

for a, b in zip(run(mx.cpu()), run(mx.gpu(0))):
    np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4)
print("agreed", mx._core.gpu_list()[0]["limits"]["storage buffers"])
"""


class Many(gluon.HybridBlock):
    """One long formula of all its inputs."""

    def hybrid_forward(self, F: Any, *xs: Any) -> Any:
        total = F.tanh(F.broadcast_add(xs[0], xs[1]))
        for i, x in enumerate(xs[2:]):
            total = F.relu(F.broadcast_sub(total, x * 0.5)) + i
        return total


@pytest.mark.parametrize("limits", ["webgpu", "metal"])
def test_small_devices_run_the_same_plans(gpu: Any, limits: str, tmp_path: Any) -> None:
    """With WebGPU's eight buffers, and with Metal's limits: a residual step, and a formula of fourteen arrays."""
    import os
    from pathlib import Path

    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MXRS_GPU_LIMITS": limits, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.stdout.startswith("agreed"), done.stderr[-2000:]


def test_counts_are_told(gpu: Any) -> None:
    """`profiler.gpu_counts` of the current context or of one that is named; `reset` begins anew."""
    x = nd.ones((2, 3), ctx=gpu)
    nd.waitall()
    with gpu:
        profiler.gpu_counts(reset=True)
        y = x + 1
        y.wait_to_read()
        assert profiler.gpu_counts()["dispatches"] == 1
    y.asnumpy()
    counts = profiler.gpu_counts(gpu, reset=True)
    assert counts["bytes_read"] == 24 and counts["submits"] >= 1
    assert profiler.gpu_counts(gpu)["dispatches"] == 0
    with pytest.raises(mx.MXNetError, match=r"gpu\(77\)"):
        profiler.gpu_counts(mx.gpu(77))
