"""The kernels whose speed on a GPU is measured, and the worker that measures them with mxrs or with PyTorch.

`gpu_cases.py mxrs|torch` answers lines of JSON on its input with lines on its output: `{"case", "quick"}` with
`{"seconds", "work"}` (the best-known amount of bytes, operations or calls behind one run), or with `{"error"}`.
A case is a function of a toolbox, which both libraries fill in, so that each is written once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

#: Batches are this long, in seconds, fully and quickly.
SPAN = (0.1, 0.01)


class Case(NamedTuple):
    """What is measured: a line of the table, the unit of its rate, and `make(tools, quick) -> (run, work)`."""

    title: str
    unit: str
    make: Callable[[Any, bool], tuple[Callable[[], Any], float]]


class Mx:
    """mxrs on gpu(0)."""

    def __init__(self) -> None:
        import mxrs as mx

        self.mx, self.ctx = mx, mx.gpu(0)
        if mx.num_gpus() == 0:
            raise RuntimeError(f"no GPU: {mx._core.gpu_search()}")
        device = mx._core.gpu_list()[0]
        self.name = f"{device['name']} ({device['backend']}, {device['driver']})"

    def array(self, *shape: int) -> Any:
        return self.mx.nd.random.normal(shape=shape, ctx=self.ctx)

    def wait(self) -> None:
        self.mx.nd.waitall()

    def copy(self, x: Any) -> Any:
        return x.copy()

    def chain(self) -> Callable[[Any], Any]:
        class Chain(self.mx.gluon.HybridBlock):  # type: ignore[name-defined,misc]
            def hybrid_forward(self, F: Any, x: Any) -> Any:
                for _ in range(3):
                    x = F.relu(x * 1.01 + 0.1) - 0.5
                return x

        net = Chain()
        net.hybridize()
        return net

    def sum(self, x: Any, axis: int | None) -> Any:
        return self.mx.nd.sum(x) if axis is None else self.mx.nd.sum(x, axis=axis)

    def softmax(self, x: Any) -> Any:
        return self.mx.nd.softmax(x, axis=-1)

    def layer_norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        return self.mx.nd.LayerNorm(x, gamma, beta, axis=-1)

    def batch_norm(self, x: Any) -> Callable[[Any], Any]:
        channels = x.shape[1]
        gamma, beta, mean, var = (self.mx.nd.ones((channels,), ctx=self.ctx) for _ in range(4))

        def run(x: Any) -> Any:
            with self.mx.autograd.train_mode():
                return self.mx.nd.BatchNorm(x, gamma, beta, mean, var, fix_gamma=False)

        return run

    def transpose(self, x: Any) -> Any:
        return self.mx.nd.transpose(x)

    def dot(self, a: Any, b: Any, ta: bool, tb: bool) -> Any:
        return self.mx.nd.dot(a, b, transpose_a=ta, transpose_b=tb)

    def batch_dot(self, a: Any, b: Any) -> Any:
        return self.mx.nd.batch_dot(a, b)

    def conv(self, x: Any, w: Any, stride: int) -> Any:
        k = w.shape[-1]
        return self.mx.nd.Convolution(
            x,
            w,
            kernel=(k, k),
            stride=(stride, stride),
            pad=(k // 2, k // 2),
            num_filter=w.shape[0],
            no_bias=True,
        )

    def backward(self, forward: Callable[[Any], Any], of: Any) -> Callable[[], Any]:
        """The gradient of `forward` at `of`, again and again."""
        of.attach_grad()
        with self.mx.autograd.record():
            y = forward(of)
        head = self.mx.nd.ones_like(y)
        return lambda: y.backward(head, retain_graph=True)


class Torch:
    """PyTorch on cuda:0, float32 products in float32."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch has no CUDA here")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self.torch = torch
        self.name = f"{torch.cuda.get_device_name(0)} (PyTorch {torch.__version__})"

    def array(self, *shape: int) -> Any:
        return self.torch.randn(*shape, device="cuda")

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def copy(self, x: Any) -> Any:
        return x.clone()

    def chain(self) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for _ in range(3):
                x = self.torch.relu(x * 1.01 + 0.1) - 0.5
            return x

        return run

    def sum(self, x: Any, axis: int | None) -> Any:
        return x.sum() if axis is None else x.sum(dim=axis)

    def softmax(self, x: Any) -> Any:
        return self.torch.softmax(x, -1)

    def layer_norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta)

    def batch_norm(self, x: Any) -> Callable[[Any], Any]:
        gamma, beta, mean, var = (self.torch.ones(x.shape[1], device="cuda") for _ in range(4))
        norm = self.torch.nn.functional.batch_norm
        return lambda x: norm(x, mean, var, gamma, beta, training=True)

    def transpose(self, x: Any) -> Any:
        return x.t().contiguous()

    def dot(self, a: Any, b: Any, ta: bool, tb: bool) -> Any:
        return self.torch.mm(a.t() if ta else a, b.t() if tb else b)

    def batch_dot(self, a: Any, b: Any) -> Any:
        return self.torch.bmm(a, b)

    def conv(self, x: Any, w: Any, stride: int) -> Any:
        return self.torch.nn.functional.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)

    def backward(self, forward: Callable[[Any], Any], of: Any) -> Callable[[], Any]:
        of.requires_grad_()
        y = forward(of)
        head = self.torch.ones_like(y)
        return lambda: self.torch.autograd.grad(y, of, head, retain_graph=True)


def _elementwise(name: str, arrays: int) -> Callable[[Any, bool], Any]:
    """Streams: `arrays` of n floats are read or written."""

    def make(t: Any, quick: bool) -> Any:
        n = 1 << (16 if quick else 26)
        x = t.array(n)
        x2: Any = t.array(n) if name == "add" else None
        chain = t.chain()
        runs = {
            "copy": lambda: t.copy(x),
            "add": lambda: x + x2,
            "chain": lambda: chain(x),
            "sum": lambda: t.sum(x, None),
        }
        return runs[name], 4.0 * n * arrays

    return make


def _matrix(name: str, arrays: int) -> Callable[[Any, bool], Any]:
    """Rows of a square matrix."""

    def make(t: Any, quick: bool) -> Any:
        n = 128 if quick else 8192
        x, line, shift = t.array(n, n), t.array(n), t.array(n)
        runs: dict[str, Callable[[], Any]] = {
            "sum rows": lambda: t.sum(x, 1),
            "sum columns": lambda: t.sum(x, 0),
            "softmax": lambda: t.softmax(x),
            "layer norm": lambda: t.layer_norm(x, line, shift),
            "transpose": lambda: t.transpose(x),
        }
        if name.startswith("d "):
            runs["d softmax"] = t.backward(t.softmax, x)
            runs["d layer norm"] = t.backward(lambda v: t.layer_norm(v, line, shift), x)
        return runs[name], 4.0 * n * n * arrays

    return make


def _batch_norm(back: bool, arrays: int) -> Callable[[Any, bool], Any]:
    def make(t: Any, quick: bool) -> Any:
        shape = (4, 16, 14, 14) if quick else (64, 256, 56, 56)
        x = t.array(*shape)
        run = t.batch_norm(x)
        size = shape[0] * shape[1] * shape[2] * shape[3]
        return (t.backward(run, x) if back else lambda: run(x)), 4.0 * size * arrays

    return make


def _gemm(n: int, ta: bool, tb: bool) -> Callable[[Any, bool], Any]:
    def make(t: Any, quick: bool) -> Any:
        m = n // 32 if quick else n
        a, b = t.array(m, m), t.array(m, m)
        return (lambda: t.dot(a, b, ta, tb)), 2.0 * m**3

    return make


def _batched(t: Any, quick: bool) -> Any:
    count, n = (4, 32) if quick else (64, 512)
    a, b = t.array(count, n, n), t.array(count, n, n)
    return (lambda: t.batch_dot(a, b)), 2.0 * count * n**3


def _conv(what: str, shape: tuple[int, int, int, int, int]) -> Callable[[Any, bool], Any]:
    """One of ResNet's convolutions at batch 32: channels in and out, window, step, extent."""

    def make(t: Any, quick: bool) -> Any:
        inputs, outputs, kernel, stride, extent = shape
        batch = 1 if quick else 32
        if quick:
            inputs, outputs, extent = max(inputs // 8, 1), outputs // 8, max(extent // 4, kernel)
        x, w = t.array(batch, inputs, extent, extent), t.array(outputs, inputs, kernel, kernel)
        if what == "forward":
            run = lambda: t.conv(x, w, stride)  # noqa: E731
        elif what == "data":
            run = t.backward(lambda v: t.conv(v, w, stride), x)
        else:
            run = t.backward(lambda v: t.conv(x, v, stride), w)
        out = (extent + 2 * (kernel // 2) - kernel) // stride + 1
        return run, 2.0 * batch * outputs * out * out * inputs * kernel * kernel

    return make


def _call(name: str) -> Callable[[Any, bool], Any]:
    """Small calls, counted."""

    def make(t: Any, quick: bool) -> Any:
        x = t.array(8, 8)
        runs = {
            "add": lambda: x + 1.0,
            "sum": lambda: t.sum(x, None),
            "dot": lambda: t.dot(x, x, False, False),
        }
        run = runs[name]

        def many() -> None:
            for _ in range(100):
                run()

        return many, 100.0

    return make


CONVOLUTIONS = {
    "7x7/2 3-64 at 224": (3, 64, 7, 2, 224),
    "1x1 64-256 at 56": (64, 256, 1, 1, 56),
    "3x3 64-64 at 56": (64, 64, 3, 1, 56),
    "3x3/2 64-128 at 56": (64, 128, 3, 2, 56),
    "3x3 128-128 at 28": (128, 128, 3, 1, 28),
    "3x3 256-256 at 14": (256, 256, 3, 1, 14),
    "3x3 512-512 at 7": (512, 512, 3, 1, 7),
}


def cases() -> dict[str, Case]:
    """Every case by name."""
    found = {
        "copy": Case("copy", "GB/s", _elementwise("copy", 2)),
        "add": Case("a + b", "GB/s", _elementwise("add", 3)),
        "chain": Case(
            "nine operators ending in relu(...) - 0.5, counted as one pass", "GB/s", _elementwise("chain", 2)
        ),
        "sum": Case("sum of all", "GB/s", _elementwise("sum", 1)),
        "sum-rows": Case("sums of rows", "GB/s", _matrix("sum rows", 1)),
        "sum-columns": Case("sums of columns", "GB/s", _matrix("sum columns", 1)),
        "transpose": Case("transpose", "GB/s", _matrix("transpose", 2)),
        "softmax": Case("softmax of rows", "GB/s", _matrix("softmax", 2)),
        "softmax-grad": Case("its gradient", "GB/s", _matrix("d softmax", 3)),
        "layer-norm": Case("layer norm of rows", "GB/s", _matrix("layer norm", 2)),
        "layer-norm-grad": Case("its gradient", "GB/s", _matrix("d layer norm", 3)),
        "batch-norm": Case("batch norm, training", "GB/s", _batch_norm(False, 3)),
        "batch-norm-grad": Case("its gradient", "GB/s", _batch_norm(True, 5)),
    }
    for n in (1024, 2048, 4096):
        for word, ta, tb in (
            ("nn", False, False),
            ("nt", False, True),
            ("tn", True, False),
            ("tt", True, True),
        ):
            found[f"gemm-{n}-{word}"] = Case(f"GEMM {n}, {word}", "GFLOP/s", _gemm(n, ta, tb))
    found["batch-dot"] = Case("64 products of 512", "GFLOP/s", _batched)
    for name, shape in CONVOLUTIONS.items():
        key = name.split(" at ")[0].replace(" ", "-").replace("/", "s")
        for what in ("forward", "data", "weight"):
            title = f"conv {name}, {what}" + ("" if what == "forward" else " gradient")
            found[f"conv-{key}-{what}"] = Case(title, "GFLOP/s", _conv(what, shape))
    for name in ("add", "sum", "dot"):
        found[f"calls-{name}"] = Case(f"small calls, {name} of 8 x 8", "kcall/s", _call(name))
    return found


def seconds_per_run(tools: Any, run: Callable[[], Any], span: float) -> float:
    """Of a batch of runs that takes `span` seconds, waited for as a whole."""

    def batch(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            run()
        tools.wait()
        return time.perf_counter() - started

    batch(1)  # what is compiled, tuned or allocated at first
    n, spent = 1, batch(1)
    while spent < span / 4:
        n *= 4
        spent = batch(n)
    n = max(1, round(n * span / spent))
    return batch(n) / n


def main() -> None:
    """Answers until its input ends."""
    kinds: dict[str, Callable[[], Any]] = {"mxrs": Mx, "torch": Torch}
    try:
        tools = kinds[sys.argv[1]]()
    except Exception as error:
        print(json.dumps({"error": f"{error}"}), flush=True)
        return
    print(json.dumps({"name": tools.name}), flush=True)
    known = cases()
    run: Any
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            run, work = known[asked["case"]].make(tools, asked["quick"])
            seconds = seconds_per_run(tools, run, SPAN[asked["quick"]])
            answer: dict[str, Any] = {"seconds": seconds, "work": work}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        run = None  # lets the arrays go
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
