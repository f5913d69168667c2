"""autograd: scopes, gradients, what is refused, gradients of gradients, and functions with gradients of their own."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, nd
from oracle import Oracle

# Programs with an array `x`; what they put into out_* is MXNet's.
PROGRAMS = {
    "write": "for _ in range(2):\n with autograd.record(): y = x * x\n y.backward()\nout = x.grad",
    "add": "x.attach_grad('add')\nfor _ in range(3):\n with autograd.record(): y = x * x\n y.backward()\nout = x.grad",
    "head gradient": "with autograd.record(): y = x * x\ny.backward(nd.array([1, 10, 100]))\nout = x.grad",
    "several heads": "with autograd.record(): y, z = x * x, x * 3\n"
    "autograd.backward([y, z], [nd.array([1, 2, 3]), None])\nout = x.grad",
    "retain": "with autograd.record(): y = x * x\ny.backward(retain_graph=True)\ny.backward()\nout = x.grad",
    "grad leaves .grad": "with autograd.record(): y = x * x\nout = (autograd.grad(y, x), x.grad)",
    "grad of several": "w = x * 2\nw.attach_grad()\nwith autograd.record(): y = x * w\n"
    "out = autograd.grad([y], [x, w], head_grads=[nd.array([1, 2, 3])])",
    "pause": "with autograd.record():\n y = x * x\n with autograd.pause(): z = y * 10\n w = y + z\nw.backward()\nout = x.grad",
    "detach": "with autograd.record(): y = x * x.detach() + nd.BlockGrad(x) * 5\ny.backward()\nout = x.grad",
    "cut": "with autograd.record():\n y = x * x\n y.attach_grad()\n z = y * 3\nz.backward()\nout = (x.grad, y.grad)",
    "mark": "g = nd.zeros((3,))\nautograd.mark_variables([x], [g], 'add')\nwith autograd.record(): y = x * x\n"
    "y.backward(retain_graph=True)\ny.backward()\nout = (g, x.grad)",
    "indexing": "with autograd.record(): y = x[1] * x[0:2] + x.reshape((3, 1))[2] * 4\ny.backward()\nout = x.grad",
    "comparison": "with autograd.record(): y = (x > 1.5) * x\ny.backward()\nout = x.grad",
    "cast": "with autograd.record(): y = x.astype('float64') * 3\ny.backward()\nout = (y, x.grad)",
    "float16": "x = x.astype('float16')\nx.attach_grad()\nwith autograd.record(): y = x * x\ny.backward()\nout = x.grad",
    "the buffer stays": "g = x.grad\nwith autograd.record(): y = x * x\ny.backward()\nout = g",
    "attached again": "with autograd.record(): y = x * x\ny.backward()\nx.attach_grad()\nout = x.grad",
    "second order": "with autograd.record():\n y = nd.sin(x)\n"
    " g = autograd.grad(y, [x], create_graph=True, retain_graph=True)[0]\ng.backward()\nout = (g, x.grad)",
    "scopes": """
out = []
def note(): out.append((autograd.is_recording(), autograd.is_training()))
note()
with autograd.record():
    note()
    with autograd.predict_mode(): note()
    with autograd.pause(): note()
    with autograd.pause(train_mode=True): note()
with autograd.record(train_mode=False):
    note()
    with autograd.train_mode(): note()
with autograd.train_mode(): note()
out.append((autograd.set_training(True), autograd.set_training(False)))
out.append((autograd.set_recording(True), autograd.set_recording(False)))
note()
""",
    "function": """
class Scaled(autograd.Function):
    def forward(self, a, b):
        self.save_for_backward(a, b)
        return a * b, a + b
    def backward(self, da, db):
        a, b = self.saved_tensors
        return da * b * 10 + db, da * a * 100 + db
w = x + 1
w.attach_grad()
with autograd.record():
    p, s = Scaled()(x * 2, w)
    y = p * p + s
y.backward()
out = (p, s, x.grad, w.grad)
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_as_mxnet(oracle: Oracle, name: str) -> None:
    code = f"x.attach_grad()\n{PROGRAMS[name]}\nout_ = out"
    oracle.check(code, x=np.array([1.0, 2.0, 3.0], "float32"))


REFUSED = {
    "not recorded": ("y = x * x", "not recorded|record"),
    "freed": ("with autograd.record(): y = x * x\ny.backward()", "retain_graph"),
    "no variable": ("with autograd.record(): y = nd.ones((3,)) * 2", "record|variable"),
    "written in place": (
        "with autograd.record():\n y = x * x\n y += 1",
        "writing to an array that is part of a recorded computation",
    ),
    "head gradient of another shape": ("with autograd.record(): y = x * x\nhead = nd.ones((2,))", "shape"),
    "left NDArray": ("with autograd.record(): y = nd.array(x.asnumpy()) * 2", "record|variable"),
    "histogram": (
        "with autograd.record(): y = nd.histogram(x, bins=2, range=(0, 3))[0]",
        "_histogram|gradient|record",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    code, words = REFUSED[name]
    x = nd.array([1.0, 2.0, 3.0])
    x.attach_grad()
    names: dict[str, Any] = {"x": x, "nd": nd, "autograd": autograd, "head": None}
    with pytest.raises(mx.MXNetError, match=words):
        exec(code, names)
        names["y"].backward(names["head"])
    # What failed leaves nothing behind.
    assert not autograd.is_recording()
    with autograd.record():
        y = x * x
    y.backward()
    assert x.grad.asnumpy().tolist() == [2, 4, 6]


def test_numbers_of_arguments_are_checked() -> None:
    x, g = nd.ones((2,)), nd.ones((2,))
    with pytest.raises(ValueError, match="2 variables, 1 gradients"):
        autograd.mark_variables([x, x], [g])
    with pytest.raises(mx.MXNetError):
        autograd.mark_variables([x], [nd.ones((3,))])
    with pytest.raises((mx.MXNetError, ValueError), match="sometimes"):
        autograd.mark_variables([x], [g], "sometimes")
    x.attach_grad()
    with autograd.record():
        y = x * 2
    with pytest.raises(ValueError, match="1 and 2"):
        autograd.backward([y], [g, g])


def test_a_scope_decorates_functions() -> None:
    @autograd.record()
    def state() -> tuple[bool, bool]:
        return autograd.is_recording(), autograd.is_training()

    assert state() == (True, True)
    assert (autograd.is_recording(), autograd.is_training()) == (False, False)


def test_an_error_ends_its_scope() -> None:
    with pytest.raises(KeyError), autograd.record():
        raise KeyError("x")
    assert not autograd.is_recording() and not autograd.is_training()


def test_threads_record_on_their_own() -> None:
    seen = []
    with autograd.record():
        thread = threading.Thread(target=lambda: seen.append(autograd.is_recording()))
        thread.start()
        thread.join()
        assert autograd.is_recording()
    assert seen == [False]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_any_order(order: int) -> None:
    x = nd.array(np.linspace(-1, 1, 5), dtype="float64")
    x.attach_grad()
    with autograd.record():
        y = nd.exp(2 * x)
        for _ in range(order):
            (y,) = autograd.grad(y, x, create_graph=True)
    np.testing.assert_allclose(y.asnumpy(), 2.0**order * np.exp(2 * x.asnumpy()), rtol=1e-12)


def test_the_tape_goes_with_its_arrays() -> None:
    """A recorded chain keeps what it needs as long as its end lives, and no longer."""
    before = mx._core.memory_stats()
    x = nd.ones((1000, 100))
    x.attach_grad()
    with autograd.record():
        y = x
        for _ in range(200):
            y = nd.sin(y)
    nd.waitall()
    kept = mx._core.memory_stats()["used"] - before["used"]
    assert kept > 100 * 400_000
    del y
    nd.waitall()
    assert mx._core.memory_stats()["used"] - before["used"] < kept / 20


def test_deep_chains_need_no_stack() -> None:
    x = nd.ones((1,))
    x.attach_grad()
    with autograd.record():
        y = x
        for _ in range(20_000):
            y = y + 1
    y.backward()
    assert x.grad.asscalar() == 1


# ---- functions with a gradient of their own ------------------------------------------------------------------


class Cube(autograd.Function):
    """x^3, its gradient ten times too large, so that it can be told from a derived one."""

    def forward(self, x: Any) -> Any:
        self.seen = (autograd.is_recording(), autograd.is_training())
        self.save_for_backward(x)
        return x**3

    def backward(self, dy: Any) -> Any:
        self.seen_backward = autograd.is_recording()
        (x,) = self.saved_tensors
        return 30 * x**2 * dy


def test_function_gives_its_own_gradient() -> None:
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    cube = Cube()
    with autograd.record():
        y = cube(x) * 2
    y.backward(nd.array([1.0, 10.0]))
    assert cube.seen == (False, True) and cube.seen_backward is False
    assert x.grad.asnumpy().tolist() == [60, 2400]
    with pytest.raises(RuntimeError, match="once"):
        cube(x)


def test_function_outside_of_record_is_a_call() -> None:
    x = nd.array([2.0])
    x.attach_grad()
    y = Cube()(x)
    assert y.asnumpy().tolist() == [8]
    with pytest.raises(mx.MXNetError):
        y.backward()


def test_function_of_inputs_without_gradient() -> None:
    with autograd.record():
        y = Cube()(nd.array([2.0]))
    assert y.asnumpy().tolist() == [8]


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (lambda dy: (dy, dy), mx.MXNetError, "2 gradients; the function has 1 inputs"),
        (lambda dy: nd.ones((3,)), mx.MXNetError, "shape"),
        (lambda dy: 5, mx.MXNetError, "gave a int; an NDArray"),
        (lambda dy: ["x"], mx.MXNetError, "str"),
    ],
    ids=["too many", "another shape", "no array", "no arrays"],
)
def test_wrong_gradients_of_a_function_are_refused(returned: Any, error: type, words: str) -> None:
    class Wrong(autograd.Function):
        def forward(self, x: Any) -> Any:
            return x * 2

        def backward(self, dy: Any) -> Any:
            return returned(dy)

    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = Wrong()(x)
    with pytest.raises(error, match=words):
        y.backward()


def test_errors_in_a_function_name_its_line() -> None:
    class Failing(autograd.Function):
        def forward(self, x: Any) -> Any:
            return x * 2

        def backward(self, dy: Any) -> Any:
            raise KeyError("in backward")

    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = Failing()(x)
    with pytest.raises(mx.MXNetError, match="Function.backward raised KeyError: 'in backward'") as caught:
        y.backward()
    assert "test_autograd.py" in str(caught.value)
    for method in ("forward", "backward"):
        with pytest.raises(NotImplementedError, match=f"Function.{method}"):
            getattr(autograd.Function(), method)(x)


def test_function_in_a_network_and_none_as_gradient() -> None:
    class Gate(autograd.Function):
        def forward(self, x: Any, mask: Any) -> Any:
            self.save_for_backward(mask)
            return x * mask

        def backward(self, dy: Any) -> Any:
            (mask,) = self.saved_tensors
            return dy * mask, None

    net = mx.gluon.nn.Dense(2, use_bias=False, in_units=3)
    net.initialize(mx.init.One())
    x, mask = nd.ones((4, 3)), nd.array([[1, 0]] * 4)
    x.attach_grad()
    mask.attach_grad()
    with autograd.record():
        y = Gate()(net(x), mask)
    y.backward()
    assert net.weight.grad().asnumpy().tolist() == [[4, 4, 4], [0, 0, 0]]
    assert x.grad.asnumpy().tolist() == [[1, 1, 1]] * 4
    assert mask.grad.asnumpy().tolist() == [[0, 0]] * 4


def test_function_is_freed_with_its_result() -> None:
    x = nd.ones((2,))
    x.attach_grad()
    cube = Cube()
    gone = weakref.ref(cube)
    with autograd.record():
        y = cube(x)
    y.backward()
    del cube, y
    gc.collect()
    assert gone() is None


def test_values_of_a_freed_graph_are_constants() -> None:
    """Truncated backpropagation: a state kept from one step to the next needs no `detach` once backward ran."""
    w = mx.nd.array([2.0])
    w.attach_grad()
    state = mx.nd.array([1.0])
    found = []
    for _ in range(3):
        with autograd.record():
            state = state * w
            loss = state * state
        loss.backward()
        found.append(float(w.grad.asscalar()))
    assert found == [4.0, 16.0, 64.0]
    with autograd.record():
        h = w * w
        a, b = h * 2, h * 3
    a.backward()
    with pytest.raises(mx.MXNetError, match="freed"):
        b.backward()
