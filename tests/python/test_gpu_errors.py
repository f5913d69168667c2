"""What goes wrong on GPUs arrives as a Python exception that says where, and leaves the rest usable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, autograd, gluon, nd


def run(program: str, **environment: str) -> str:
    """What a program prints in a process of its own, where software counts as a GPU."""
    env = {**os.environ, "MXRS_ALLOW_SOFTWARE_GPU": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- memory -------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = """
import mxrs as mx
from mxrs import autograd, gluon, nd

gpu = mx.gpu(0)
a, b, kept = nd.ones((1 << 18,), ctx=gpu), nd.ones((1 << 18,), ctx=gpu), []


def refused(name, f):
    try:
        f()
    except MemoryError as error:
        assert isinstance(error, mx.MXNetError)
        assert name in str(error) and "8000000 bytes is reached" in str(error), error
        return
    raise AssertionError(f"{name}: no error")


def fill():
    for _ in range(100):
        c = a + b
        c.wait_to_read()
        kept.append(c)


refused("broadcast_add", fill)
assert 3 <= len(kept) <= 7
for name, f in {
    "_ones": lambda: nd.ones((1 << 19,), ctx=gpu),
    "copying to gpu(0)": lambda: nd.ones((1 << 19,)).as_in_context(gpu),
    "Concat": lambda: nd.concat(a, b, dim=0),
    "_mul_scalar": lambda: (a * 2).wait_to_read(),
    "dot": lambda: nd.dot(a.reshape((512, 512)), b.reshape((512, 512))),
}.items():
    refused(name, f)
refused("copying to gpu(0)", lambda: nd.array([1.0] * (1 << 19), ctx=gpu))
# What was there is there, and after something went, work goes on.
assert a.asnumpy().sum() == 1 << 18 and kept[0].asnumpy()[5] == 2
kept.clear()
assert (a * 3).asnumpy()[7] == 3
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Dense(256, in_units=256), gluon.nn.Dense(256, in_units=256))
net.initialize(ctx=gpu)
net.hybridize()


def step(rows):
    with autograd.record():
        loss = net(nd.ones((rows, 256), ctx=gpu)).sum()
    loss.backward()
    return net[0].weight.grad().asnumpy()


a = b = None
refused("a hybridized block", lambda: step(2000))
assert step(8).shape == (256, 256)
print("fine")
"""


def test_memory_that_is_not_there(gpu: Any) -> None:
    """The operation is named, arrays stay as they are, and what is let go can be used again."""
    assert run(OUT_OF_MEMORY, MXRS_GPU_MEM_LIMIT="8000000").strip() == "fine"


# --- lost devices -------------------------------------------------------------------------------------------


def test_a_lost_device_is_told_and_opened_again(gpu: Any) -> None:
    """Arrays of the lost device say so wherever they are used; new ones and the host's go on."""
    a, host = nd.ones((3,), ctx=gpu), nd.ones((3,))
    pending, target = a + a, nd.zeros((3,))
    _core.gpu_destroy(0)
    with pytest.raises(mx.MXNetError, match="the GPU device is lost"):
        nd.waitall()
    nd.waitall()
    uses: list[Callable[[], Any]] = [
        pending.asnumpy,
        pending.wait_to_read,
        lambda: a + 1,
        lambda: a + nd.ones((3,), ctx=gpu),
        lambda: a.as_in_context(mx.cpu()).asnumpy(),
        lambda: a.copyto(target),
        lambda: host.copyto(a),
        lambda: a.__setitem__(slice(None), 3),
        lambda: str(a),
        lambda: nd.dot(nd.ones((1, 3), ctx=gpu), a.reshape((3, 1))),
    ]
    for use in uses:
        with pytest.raises(mx.MXNetError, match="the GPU device is lost"):
            use()
    np.testing.assert_array_equal((host + 1).asnumpy(), [2, 2, 2])
    np.testing.assert_array_equal((nd.ones((3,), ctx=gpu) + 1).asnumpy(), [2, 2, 2])
    np.testing.assert_array_equal(host.as_in_context(gpu).asnumpy(), [1, 1, 1])
    assert mx.context.gpu_memory_info(0)[1] > 0
    nd.waitall()


def test_a_block_outlives_its_device(gpu: Any) -> None:
    """A hybridized block says what happened; initialized again (or loaded), it goes on."""
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(2, in_units=3))
    net.initialize(ctx=gpu)
    net.hybridize()
    x = nd.ones((1, 3))
    net(x.as_in_context(gpu)).wait_to_read()
    _core.gpu_destroy(0)
    with pytest.raises(mx.MXNetError, match="the GPU device is lost"):
        net(x.as_in_context(gpu)).asnumpy()
    net.initialize(mx.init.One(), ctx=gpu, force_reinit=True)
    np.testing.assert_array_equal(net(x.as_in_context(gpu)).asnumpy(), [[3, 3]])


def test_a_device_is_lost_at_work(gpu: Any) -> None:
    """With much queued, the wait ends with the error."""
    x = nd.ones((128, 128), ctx=gpu)
    for _ in range(100):
        x = nd.dot(x, x) * 0.001
    _core.gpu_destroy(0)
    with pytest.raises(mx.MXNetError, match="the GPU device is lost"):
        x.asnumpy()
    np.testing.assert_array_equal(nd.ones((2,), ctx=gpu).asnumpy(), [1, 1])


# --- types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_types_of_64_bits_are_refused_by_name(dtype: str, gpu: Any) -> None:
    """They can be moved, cast and used as indices (`test_gpu_arrays`); what computes names the type and the operator."""
    x = nd.array([1, 2], dtype=dtype, ctx=gpu)
    for name, f in {
        "_plus_scalar": lambda: x + 1,
        "broadcast_add": lambda: x + x,
        "_zeros": lambda: nd.zeros((2,), ctx=gpu, dtype=dtype),
        "Cast": lambda: nd.ones((2,), ctx=gpu).astype(dtype),
        "sum": lambda: x.sum(),
    }.items():
        with pytest.raises(
            TypeError, match=rf"{name}: {dtype} is not supported on a GPU; allowed are float32"
        ):
            f()
    net = gluon.nn.Dense(2, in_units=2)
    net.cast("float64")
    with pytest.raises(TypeError, match="float64 is not supported on a GPU"):
        net.initialize(ctx=gpu)
    with pytest.raises(TypeError, match="float64 is not supported on a GPU"):
        mx.sym.tanh(mx.sym.Variable("x")).simple_bind(ctx=gpu, x=(2,), type_dict={"x": "float64"})


# --- devices that do not fit --------------------------------------------------------------------------------


class Two(gluon.HybridBlock):
    """Adds its inputs."""

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        return F.tanh(x) + y


def test_mixed_devices_are_named(gpu: Any) -> None:
    """In operators, assignments to results, optimizer updates, hybridized blocks, and head gradients."""
    x, y = nd.ones((2,), ctx=gpu), nd.ones((2,))
    block = Two()
    block.hybridize()
    for f in (
        lambda: x + y,
        lambda: y + x,
        lambda: nd.add_n(y, x),
        lambda: nd.concat(x, y, dim=0),
        lambda: nd.tanh(x, out=y),
        lambda: nd.sgd_mom_update(x, x, y, lr=0.1),
        lambda: nd.BatchNorm(nd.ones((1, 2)), y, y, x, x),
        lambda: y.__iadd__(x),
        lambda: block(x, y),
        lambda: block(y, x),
    ):
        with pytest.raises(
            mx.MXNetError, match=r"one device; given were .pu\(0\) and .pu\(0\); as_in_context"
        ):
            f()
    for hybridize in (False, True):
        for here, there in ((gpu, mx.cpu()), (mx.cpu(), gpu)):
            block = Two()
            block.hybridize(hybridize)
            z = nd.ones((2,), ctx=here)
            z.attach_grad()
            with autograd.record():
                out = block(z, z)
            with pytest.raises(
                mx.MXNetError, match=r"head gradient 0 is on .*, its output on .*; as_in_context"
            ):
                out.backward(nd.ones((2,), ctx=there))
    net = gluon.nn.Dense(2, in_units=2)
    net.initialize(ctx=gpu)
    with pytest.raises(
        RuntimeError, match=r"not initialized on context cpu\(0\).*only initialized on \[gpu\(0\)\]"
    ):
        net(nd.ones((1, 2)))


def test_numpy_operands_come_to_the_array(gpu: Any) -> None:
    """`x + numpy` computes where x is, from either side and in place."""
    x, y = nd.array([1, 2], ctx=gpu), np.array([3, 4], "float32")
    for z, wanted in ((x + y, [4, 6]), (y * x, [3, 8]), (x < y, [1, 1]), (y - x, [2, 2])):
        assert z.context == gpu
        np.testing.assert_array_equal(z.asnumpy(), wanted)
    x += y
    np.testing.assert_array_equal(x.asnumpy(), [4, 6])


def test_gradients_of_functions_come_to_their_inputs(gpu: Any) -> None:
    """A user's backward that makes its gradient of NumPy's gives one on the host; it is moved."""

    class Cube(autograd.Function):
        def forward(self, x: Any) -> Any:
            self.x = x.asnumpy()
            return nd.array(self.x**3, ctx=x.context)

        def backward(self, dy: Any) -> Any:
            return nd.array(3 * self.x**2 * dy.asnumpy())

    x = nd.array([1, 2], ctx=gpu)
    x.attach_grad()
    block = Two()
    block.hybridize()
    with autograd.record():
        z = block(Cube()(block(x, x)), x).sum()
    z.backward()
    assert x.grad.context == gpu
    t = np.tanh([1, 2]) + np.array([1, 2])
    chain = (1 - np.tanh(t**3) ** 2) * 3 * t**2 * (2 - np.tanh([1, 2]) ** 2) + 1
    np.testing.assert_allclose(x.grad.asnumpy(), chain, rtol=1e-4)


def test_devices_that_are_not_there(gpu: Any) -> None:
    """Every way to name one; the default context is what it was."""
    beyond = mx.gpu(mx.num_gpus() + 6)
    for f in (
        lambda: nd.ones((2,), ctx=beyond),
        lambda: nd.array([1], ctx=beyond),
        lambda: nd.ones((2,)).as_in_context(beyond),
        lambda: nd.ones((2,), ctx=gpu).copyto(beyond),
        lambda: gluon.nn.Dense(2, in_units=2).initialize(ctx=beyond),
        lambda: mx.context.gpu_memory_info(beyond.device_id),
        lambda: mx.sym.tanh(mx.sym.Variable("x")).simple_bind(ctx=beyond, x=(2,)),
    ):
        with pytest.raises(mx.MXNetError, match=rf"gpu\({beyond.device_id}\): there .*looked for adapters"):
            f()
    with pytest.raises(mx.MXNetError), beyond:
        nd.ones((2,))
    assert mx.current_context() == mx.cpu()
    with pytest.raises(ValueError, match=r"gpu\(-1\).*counted from 0"):
        nd.ones((2,), ctx=mx.gpu(-1))


# --- forks --------------------------------------------------------------------------------------------------

FORKS = """
import multiprocessing

import mxrs as mx
from mxrs import nd

gpu, forking = mx.gpu(0), multiprocessing.get_context("fork")


def in_child(uses):
    def work():
        for f in uses:
            try:
                answers.put(str(f()))
            except Exception as error:
                answers.put(f"{type(error).__name__}: {error}")

    answers = forking.Queue()
    child = forking.Process(target=work)
    child.start()
    told = [answers.get(timeout=30) for _ in uses]
    child.join(30)
    assert child.exitcode == 0, child.exitcode
    return told


host = nd.ones((2,))
assert mx.num_gpus() >= 1
# A child may use the GPU as long as its parent has not.
assert in_child([lambda: (nd.ones((2,), ctx=gpu) + 1).asnumpy()]) == ["[2. 2.]"]
x = nd.ones((2,), ctx=gpu) + 1
told = in_child([
    lambda: nd.ones((2,), ctx=gpu),
    lambda: x.asnumpy(),
    lambda: x + 1,
    lambda: x.as_in_context(mx.cpu()).asnumpy(),
    lambda: mx.context.gpu_memory_info(0),
    lambda: (host + 1).asnumpy(),
    lambda: nd.waitall(),
])
assert told[-2:] == ["[2. 2.]", "None"], told
for line in told[:-2]:
    assert line.startswith("MXNetError") and "forked from one that uses the GPU" in line and "spawn" in line, line
assert (x + 1).asnumpy().tolist() == [3, 3]
print("fine")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks with threads are Linux's")
def test_forked_processes_are_told(gpu: Any) -> None:
    """Nothing hangs in the child, which can go on on the host; the parent does not notice."""
    assert run(FORKS).strip() == "fine"


def test_workers_load_while_the_gpu_computes(gpu: Any) -> None:
    """A loader's workers stay on the host; what they bring goes to the GPU, also by pinned memory."""
    data = np.random.RandomState(0).randn(40, 3).astype("float32")
    net = gluon.nn.Dense(2)
    net.initialize(ctx=gpu)
    wanted = net(nd.array(data, ctx=gpu)).asnumpy()
    for pinned in (False, True):
        loader = gluon.data.DataLoader(gluon.data.ArrayDataset(data), 8, num_workers=2, pin_memory=pinned)
        found = [net(batch.as_in_context(gpu)).asnumpy() for batch in loader]
        np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-5, atol=1e-6)


# --- no adapter at all --------------------------------------------------------------------------------------

NO_GPU = """
import mxrs as mx
assert mx.num_gpus() == 0 and mx.context.num_gpus() == 0
assert mx.gpu(0) == mx.gpu() and hash(mx.gpu(0)) == hash(mx.gpu()) and mx.gpu(0) and mx.gpu(1) != mx.gpu(0)
assert not mx.runtime.Features().is_enabled("GPU")
for f in (lambda: mx.nd.ones((1,), ctx=mx.gpu()), lambda: mx.context.gpu_memory_info(0)):
    try:
        f()
    except mx.MXNetError as error:
        assert "gpu(0): there is no GPU; looked for adapters of Vulkan" in str(error), error
    else:
        raise AssertionError("no error")
assert (mx.nd.ones((2,)) + 1).asnumpy().tolist() == [2, 2]
print("fine")
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the variable is that of Linux's Vulkan loader"
)
def test_without_any_adapter() -> None:
    """Counting is quiet, using says what was looked for, and `devices` is no error."""
    assert run(NO_GPU, VK_DRIVER_FILES="", VK_ICD_FILENAMES="/nowhere").strip() == "fine"
    program = "import mxrs.__main__ as m; m.main(['devices'])"
    said = run(program, VK_DRIVER_FILES="", VK_ICD_FILENAMES="/nowhere")
    assert "looked for adapters of Vulkan; found no adapter" in said and "Vulkan driver" in said
