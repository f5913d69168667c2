"""Arrays, gradients and blocks on a GPU (Mesa's software Vulkan where there is nothing better)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, autograd, gluon, nd


def test_arrays_come_and_go(gpu: Any) -> None:
    """Creation, printing, copies both ways, between contexts of the host, and pickling."""
    x = nd.array(np.arange(6).reshape(2, 3), ctx=gpu)
    assert x.context == gpu and "@gpu(0)" in str(x)
    np.testing.assert_array_equal(x.asnumpy(), np.arange(6).reshape(2, 3))
    host = x.as_in_context(mx.cpu())
    assert host.context == mx.cpu()
    np.testing.assert_array_equal(host.asnumpy(), x.asnumpy())
    back = nd.zeros((2, 3), ctx=gpu)
    host.copyto(back)
    np.testing.assert_array_equal(back.asnumpy(), x.asnumpy())
    x[1] = 7
    x[:, 0] = nd.array([1, 2], ctx=gpu)
    np.testing.assert_array_equal(x.asnumpy(), [[1, 1, 2], [2, 7, 7]])
    assert nd.zeros((0, 4), ctx=gpu).asnumpy().shape == (0, 4)
    for n in range(1, 10):
        few = np.arange(n, dtype="uint8")
        np.testing.assert_array_equal(nd.array(few, dtype="uint8", ctx=gpu).asnumpy(), few)


def test_order_is_kept_between_host_and_device(gpu: Any) -> None:
    """What is written after a copy was asked for does not change the copy."""
    x = nd.ones((1000,), ctx=gpu)
    copies = []
    for i in range(20):
        copies.append(x.as_in_context(mx.cpu()))
        x += i
    assert [float(c[0].asscalar()) for c in copies] == [1 + i * (i - 1) / 2 for i in range(20)]


@pytest.mark.parametrize("hybridize", [False, True])
def test_curves_agree_with_the_cpu(gpu: Any, hybridize: bool) -> None:
    """Ten steps of a small network from equal weights: losses within 1e-3, gradients of every layer used."""

    class Net(gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.conv = gluon.nn.Conv2D(4, 3, padding=1, in_channels=2)
            self.dense = gluon.nn.Dense(5, in_units=4 * 36)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return F.mean(F.square(F.tanh(self.dense(F.relu(self.conv(x)))) - 0.5))

    rng = np.random.RandomState(0)
    data = rng.randn(3, 2, 6, 6).astype("float32")
    start = {}

    def curve(ctx: Any) -> list[float]:
        net = Net()
        net.initialize(ctx=ctx)
        for name, p in net._collect_params_with_prefix().items():
            p.set_data(nd.array(start.setdefault(name, rng.randn(*p.shape).astype("float32") * 0.1)))
        if hybridize:
            net.hybridize()
        x = nd.array(data, ctx=ctx)
        losses = []
        for _ in range(10):
            with autograd.record():
                loss = net(x)
            loss.backward()
            for p in net.collect_params().values():
                p.data()[:] = p.data() - 0.5 * p.grad()
            losses.append(float(loss.asscalar()))
        return losses

    wanted, found = curve(mx.cpu()), curve(gpu)
    assert wanted[-1] < wanted[0] * 0.8
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_a_replayed_plan_creates_nothing(gpu: Any) -> None:
    """After a warm-up, a hybridized step compiles no shader and makes no layout, and submits a handful of times."""
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(8, in_units=6), gluon.nn.Activation("tanh"), gluon.nn.Dense(3, in_units=8))
    net.initialize(ctx=gpu)
    net.hybridize()
    x = nd.ones((4, 6), ctx=gpu)

    def step() -> None:
        with autograd.record():
            loss = net(x).square().sum()
        loss.backward()
        nd.waitall()

    for _ in range(3):
        step()
    _core.gpu_counts(0, reset=True)
    step()
    counts = _core.gpu_counts(0)
    assert counts["dispatches"] > 5
    assert counts["pipelines"] == counts["layouts"] == counts["buffers"] == 0
    assert counts["submits"] <= 4


def test_mistakes_are_named(gpu: Any) -> None:
    """Mixed devices, types that GPUs lack, operators without a body, GPUs that are not there."""
    x = nd.ones((2, 2), ctx=gpu)
    with pytest.raises(mx.MXNetError, match=r"one device.*gpu\(0\).*cpu\(0\).*as_in_context"):
        x + nd.ones((2, 2))
    with pytest.raises(TypeError, match="float64 is not supported on a GPU"):
        nd.ones((2, 2), ctx=gpu, dtype="float64") + 1
    with pytest.raises(
        NotImplementedError, match=r"_contrib_index_array has no GPU kernel yet.*as_in_context"
    ):
        nd.contrib.index_array(x)
    with pytest.raises(mx.MXNetError, match=r"gpu\(77\).*there is one GPU"):
        nd.ones((2,), ctx=mx.gpu(77))
    np.testing.assert_array_equal((x + 1).asnumpy(), np.full((2, 2), 2))


def test_without_permission_software_is_no_gpu() -> None:
    """A processor in disguise counts only for those who ask; without a GPU the error says what was found."""
    program = (
        "import mxrs as mx\n"
        "if mx.num_gpus() == 0:\n"
        "    try: mx.nd.ones((1,), ctx=mx.gpu(0))\n"
        "    except mx.MXNetError as e: assert 'looked for adapters' in str(e), e\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_dispatches_are_listed(gpu: Any) -> None:
    """`MXRS_DEBUG=gpu` says what is sent: which operator by which kernel, over which buffers."""
    program = (
        "import mxrs as mx\nx = mx.nd.ones((4, 4), ctx=mx.gpu(0))\nprint(mx.nd.dot(x, x).sum().asscalar())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MXRS_DEBUG": "gpu"},
    )
    assert done.stdout.strip() == "64.0", done.stderr
    for said in ("_ones by map", "dot by matmul", "sum by reduce", "copy from the GPU 4 bytes"):
        assert said in done.stderr


def test_devices_are_described(gpu: Any) -> None:
    """`python -m mxrs devices`: adapter, limits, measured rates."""
    done = subprocess.run(
        [sys.executable, "-m", "mxrs", "devices"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "gpu(0):" in done.stdout and "GFLOP/s" in done.stdout and "limits:" in done.stdout


def test_what_is_no_number_or_infinite_is_seen(gpu: Any) -> None:
    """Comparisons for equality follow IEEE 754, though shaders may assume that every number is finite."""
    values = np.array([0.0, -0.0, 1.5, np.nan, np.inf, -np.inf], "float32")
    x = nd.array(values, ctx=gpu)
    np.testing.assert_array_equal(nd.contrib.isnan(x).asnumpy(), np.isnan(values))
    np.testing.assert_array_equal(nd.contrib.isinf(x).asnumpy(), np.isinf(values))
    np.testing.assert_array_equal(nd.contrib.isfinite(x).asnumpy(), np.isfinite(values))
    pairs = nd.array(values[:, None], ctx=gpu), nd.array(values[None, :], ctx=gpu)
    np.testing.assert_array_equal(nd.broadcast_equal(*pairs).asnumpy(), values[:, None] == values[None, :])
    np.testing.assert_array_equal(
        nd.broadcast_not_equal(*pairs).asnumpy(), values[:, None] != values[None, :]
    )
