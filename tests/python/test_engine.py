"""The engine as programs see it: lazy calls, errors that come out where they are waited for, and its naive twin."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from child import run_child
from mxrs import autograd, engine, nd

#: Arithmetic, in-place writes, a gradient and random numbers; its text is the same on both engines.
PROGRAM = """
import os
import mxrs as mx
from mxrs import autograd, engine, gluon, nd

assert engine.is_naive() is (os.environ.get("MXNET_ENGINE_TYPE") == "NaiveEngine")
mx.random.seed(3)
net = gluon.nn.Sequential()
net.add(gluon.nn.Dense(16, activation="relu"), gluon.nn.Dropout(0.3), gluon.nn.Dense(3))
net.initialize(mx.init.Xavier())
trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
x = nd.random.normal(shape=(40, 7))
y = nd.random.randint(0, 3, shape=(40,)).astype("float32")
loss = gluon.loss.SoftmaxCrossEntropyLoss()
for _ in range(20):
    with autograd.record():
        l = loss(net(x), y)
    l.backward()
    trainer.step(40)
    x[0] = x[1] + 1
    x += 0.01
print(float(l.sum().asscalar()).hex())
print(float(sum(p.data().sum().asscalar() for p in net.collect_params().values())).hex())
"""


def test_naive_engine_gives_the_same_answers() -> None:
    """Chosen by the environment, as in MXNet; to the last bit."""
    threaded = run_child(PROGRAM, environment={"MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"})
    naive = run_child(PROGRAM, environment={"MXNET_ENGINE_TYPE": "NaiveEngine"})
    assert threaded.returncode == 0, threaded.stderr
    assert naive.returncode == 0, naive.stderr
    assert naive.stdout == threaded.stdout and len(naive.stdout.split()) == 2


ERROR = """
import os
import mxrs as mx
from mxrs import engine, nd

data = nd.ones((300, 300))
for _ in range(20):
    data = nd.dot(data, data) * 0
try:
    bad = nd.gather_nd(data, nd.full((2, 40000), 999))
    print("issued")
    (bad + 1).wait_to_read()
except mx.MXNetError as error:
    print(type(error).__name__, "gather_nd" in str(error), "999" in str(error))
print(nd.ones((2,)).asnumpy().tolist())
"""


def test_errors_come_out_where_they_are_waited_for() -> None:
    """The naive engine raises at the call, which is what it is for; the threaded one at the latest where a result
    of it is waited for. Both go on afterwards.
    """
    threaded = run_child(ERROR, environment={"MXNET_ENGINE_TYPE": "ThreadedEngine"})
    naive = run_child(ERROR, environment={"MXNET_ENGINE_TYPE": "NaiveEngine"})
    said = "MXNetIndexError True True\n[1.0, 1.0]\n"
    assert naive.stdout == said, naive.explain()
    assert threaded.stdout == "issued\n" + said, threaded.explain()


def test_the_engine_can_be_changed_while_running() -> None:
    assert not engine.is_naive()
    x = nd.ones((500, 500))
    for _ in range(10):
        x = x + 1
    engine.set_naive(True)
    try:
        assert engine.is_naive()
        y = x * 2
        assert y.asnumpy().min() == 22
    finally:
        engine.set_naive(False)
    assert (y + x).asnumpy().max() == 33


def test_bulk_is_accepted() -> None:
    before = engine.set_bulk_size(3)
    with engine.bulk(10):
        x = nd.ones((2,)) + 1
    assert x.asnumpy().tolist() == [2, 2]
    assert engine.set_bulk_size(before) == 3


def test_many_arrays_in_flight() -> None:
    """Far more calls than the engine lets pend, with writes and reads of one array between them."""
    shared = nd.zeros((64, 64))
    parts = []
    for i in range(1000):
        shared += 1
        if i % 10 == 0:
            parts.append(shared * 2)
    assert [int(p[0, 0].asscalar()) for p in parts] == [2 * (i + 1) for i in range(0, 1000, 10)]
    assert shared.asnumpy().min() == 1000


def test_waitall_reports_what_nobody_saw() -> None:
    data = nd.ones((400, 400))
    for _ in range(10):
        data = nd.dot(data, data) * 0
    bad = nd.gather_nd(data, nd.full((2, 40_000), 999))
    with pytest.raises(mx.MXNetError, match="gather_nd"):
        nd.waitall()
    nd.waitall()  # Each is reported once.
    with pytest.raises(mx.MXNetError, match="gather_nd"):
        bad.asnumpy()
    np.testing.assert_array_equal(data.asnumpy(), 0)


def test_errors_in_backward_name_the_operator() -> None:
    x, index = nd.ones((200, 200)), nd.zeros((1, 50_000))
    x.attach_grad()
    with autograd.record():
        y = nd.dot(x, x)
        z = nd.gather_nd(y, index + 999)
    with pytest.raises(mx.MXNetError, match="gather_nd"):
        z.backward()
        x.grad.asnumpy()


def test_signals_and_fork_are_survived() -> None:
    """Ctrl-C ends a wait, and a forked child computes on an engine of its own."""
    code = """
import os, signal, threading, time
import mxrs as mx
from mxrs import nd
x = nd.ones((600, 600))
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(100000):
        x = nd.dot(x, x) * 0
        x.wait_to_read()
except KeyboardInterrupt:
    print("interrupted")
y = nd.ones((100, 100)) + 1
child = os.fork()
if child == 0:
    os._exit(int((y * 3).sum().asscalar() == 60000) + 4)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), y.sum().asscalar())
"""
    run = run_child(code)
    assert run.stdout == "interrupted\n5 20000.0\n", run.explain()
