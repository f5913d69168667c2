"""Trainer and gluon.utils: steps on one and more contexts, stale gradients, states, splitting, downloads."""

import hashlib
import http.server
import os
import threading
import warnings

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn

TWO = [mx.cpu(0), mx.cpu(1)]


def ones_param(name="a", ctx=None, **kwargs):
    p = gluon.Parameter(name, shape=(2,), **kwargs)
    p.initialize("ones", ctx=ctx)
    return p


def backward(*params, scale=2):
    """Leave the gradient `scale` in every copy of the parameters."""
    with autograd.record():
        ys = [x * scale for p in params for x in p.list_data()]
    autograd.backward(ys)


def values(p):
    return [x.asnumpy().tolist() for x in p.list_data()]


# --- the step ---


def test_step_divides_by_the_batch_size():
    p = ones_param()
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0})
    backward(p, scale=8)
    trainer.step(4)
    assert values(p) == [[-1, -1]]
    assert trainer.optimizer.rescale_grad == 0.25


def test_the_optimizers_own_rescaling_is_kept():
    p = ones_param()
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0, "rescale_grad": 0.5})
    backward(p)
    trainer.step(4)
    assert values(p) == [[0.75, 0.75]]


def test_multipliers_of_the_parameter():
    p = ones_param(lr_mult=0.5, wd_mult=2.0)
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0, "wd": 0.1})
    backward(p)
    trainer.step(1)
    np.testing.assert_allclose(values(p), [[-0.1, -0.1]], atol=1e-6)


def test_a_null_parameter_stays():
    p, q = ones_param(), ones_param("q", grad_req="null")
    trainer = gluon.Trainer([p, q], "sgd", {"learning_rate": 1.0})
    backward(p)
    trainer.step(1)
    assert values(p) == [[-1, -1]] and values(q) == [[1, 1]]


@pytest.mark.parametrize(
    ("kvstore", "on_store", "expected"),
    [
        ("device", None, -1.0),
        ("device", False, -1.0),
        ("device", True, -1.0),
        ("local", None, -1.0),
        # Without a store nothing is summed: each context follows its own gradient.
        (None, None, 0.0),
        (None, False, 0.0),
    ],
)
def test_two_contexts_are_summed(kvstore, on_store, expected):
    p, q = ones_param(ctx=TWO), ones_param("q", ctx=TWO)
    trainer = gluon.Trainer(
        [p, q], "sgd", {"learning_rate": 0.5}, kvstore=kvstore, update_on_kvstore=on_store
    )
    for _ in range(2):
        backward(p, q)
        trainer.step(2)
    assert values(p) == values(q) == [[expected] * 2] * 2


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("on_store", [True, False])
def test_two_contexts_equal_one_with_the_same_samples(optimizer, on_store):
    x = np.random.RandomState(0).randn(8, 3).astype("float32")
    results = []
    for ctx in ([mx.cpu(0)], TWO):
        net = nn.Dense(2, in_units=3)
        net.initialize(mx.init.Constant(0.3), ctx=ctx)
        trainer = gluon.Trainer(
            net.collect_params(), optimizer, {"learning_rate": 0.1}, update_on_kvstore=on_store
        )
        for _ in range(4):
            with autograd.record():
                losses = [(net(part) ** 2).sum() for part in gluon.utils.split_and_load(x, ctx)]
            autograd.backward(losses)
            trainer.step(8)
        copies = [a.asnumpy() for a in net.weight.list_data()]
        for other in copies[1:]:
            np.testing.assert_array_equal(other, copies[0])
        results.append(copies[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


def test_allreduce_then_update():
    p = ones_param(ctx=TWO)
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 0.5}, update_on_kvstore=False)
    backward(p)
    trainer.allreduce_grads()
    assert [g.asnumpy().tolist() for g in p.list_grad()] == [[4, 4], [4, 4]]
    trainer.update(2)
    assert values(p) == [[0, 0], [0, 0]]


def test_allreduce_needs_gradients_that_are_replaced():
    p = ones_param(ctx=TWO)
    trainer = gluon.Trainer([p], "sgd")
    for call in (trainer.allreduce_grads, lambda: trainer.update(1)):
        with pytest.raises(AssertionError, match="when parameters are updated on kvstore is not supported"):
            call()


class Recording(mx.kvstore.KVStoreBase):
    """Doubles what is pushed and notes the calls; `able` says whether it claims to run optimizers."""

    def __init__(self, able=False):
        self.able = able
        self.calls = []

    @property
    def type(self):
        return "recording"

    def is_capable(self, capability):
        return self.able

    def set_optimizer(self, optimizer):
        self.calls.append(("set_optimizer", type(optimizer).__name__))

    def broadcast(self, key, value, out, priority=0):
        self.calls.append(("broadcast", key, len(out)))

    def pushpull(self, key, value, out=None, priority=0):
        self.calls.append(("pushpull", key, len(value), None if out is None else len(out), priority))
        for array in value if out is None else out:
            array[:] = array * 2


@pytest.mark.parametrize("ctx", [[mx.cpu(0)], TWO], ids=["one", "two"])
def test_a_store_object_is_asked_to_sum(ctx):
    store = Recording()
    p, q, r = ones_param(ctx=ctx), ones_param("q", ctx=ctx), ones_param("r", ctx=ctx, grad_req="null")
    trainer = gluon.Trainer([p, r, q], "sgd", {"learning_rate": 1.0}, kvstore=store)
    backward(p, q)
    trainer.step(1)
    n = len(ctx)
    assert store.calls == [
        *[("broadcast", key, n) for key in range(3)],
        ("pushpull", 0, n, None, 0),
        ("pushpull", 2, n, None, -2),
    ]
    assert values(p) == values(q) == [[-3, -3]] * n


def test_a_store_object_that_can_update_gets_the_weights():
    store = Recording(able=True)
    p = ones_param(ctx=TWO)
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0}, kvstore=store)
    backward(p)
    trainer.step(1)
    assert store.calls == [("set_optimizer", "SGD"), ("broadcast", 0, 2), ("pushpull", 0, 2, 2, 0)]
    assert values(p) == [[2, 2]] * 2
    with pytest.raises(ValueError, match="update_on_kvstore=False when training with .*Recording"):
        gluon.Trainer([p], "sgd", kvstore=Recording(), update_on_kvstore=True).step(1)


@pytest.mark.parametrize("ctx", [[mx.cpu(0)], TWO], ids=["one", "two"])
@pytest.mark.parametrize("on_store", [None, True, False])
@pytest.mark.parametrize("name", ["local", "device"])
def test_a_kvstore_made_by_the_program(name, on_store, ctx):
    store = mx.kv.create(name)
    p = ones_param(ctx=ctx)
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 0.5}, kvstore=store, update_on_kvstore=on_store)
    backward(p)
    trainer.step(2)
    assert trainer._kvstore is store and trainer._update_on_kvstore is (on_store is not False)
    total = 2 * len(ctx)
    assert values(p) == [[1 - total / 4] * 2] * len(ctx)
    # Only a trainer that updates its own copies replaces the gradients by their sum.
    assert p.list_grad()[0].asnumpy().tolist() == [total if on_store is False else 2] * 2


def test_the_environment_chooses_where_updates_are_made(monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
    trainer = gluon.Trainer([ones_param(ctx=TWO)], "sgd")
    trainer.allreduce_grads()
    assert trainer._update_on_kvstore is False


def test_one_context_makes_no_store():
    p = ones_param()
    trainer = gluon.Trainer([p], "sgd", kvstore="device")
    backward(p)
    trainer.step(1)
    assert trainer._kvstore is None


def test_a_stale_gradient_stops_the_step_before_the_store_updates():
    p, q = ones_param(ctx=TWO), ones_param("q", ctx=TWO)
    trainer = gluon.Trainer([p, q], "sgd", {"learning_rate": 1.0})
    backward(p)
    with pytest.raises(UserWarning, match="`q`"):
        trainer.step(1)
    assert values(p) == [[1, 1], [1, 1]]


# --- stale gradients ---


def test_a_stale_gradient_is_refused():
    p = ones_param()
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0})
    with pytest.raises(
        UserWarning, match=r"Gradient of Parameter `a` on context cpu\(0\) has not been updated"
    ):
        trainer.step(1)
    backward(p)
    trainer.step(1)
    with pytest.raises(UserWarning, match="has not been updated by backward"):
        trainer.step(1)
    assert values(p) == [[-1, -1]]


def test_ignored_stale_gradients_skip_their_parameters():
    p, q = ones_param(), ones_param("q")
    trainer = gluon.Trainer([p, q], "sgd", {"learning_rate": 1.0})
    backward(p)
    trainer.step(1, ignore_stale_grad=True)
    assert values(p) == [[-1, -1]] and values(q) == [[1, 1]]


# --- learning rate and states ---


def test_learning_rate():
    p = ones_param()
    trainer = gluon.Trainer([p], "sgd", {"learning_rate": 1.0})
    trainer.set_learning_rate(0.5)
    assert trainer.learning_rate == 0.5
    scheduler = mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=1)
    trainer = gluon.Trainer([p], "sgd", {"lr_scheduler": scheduler})
    rates = []
    for _ in range(3):
        backward(p)
        trainer.step(1)
        rates.append(trainer.learning_rate)
    assert rates == [1, 0.5, 0.25]
    with pytest.raises(UserWarning, match="LRScheduler of the optimizer has already been defined"):
        trainer.set_learning_rate(1)


@pytest.mark.parametrize("ctx", [[mx.cpu(0)], TWO], ids=["one", "two"])
def test_states_continue_a_run(tmp_path, ctx):
    path = str(tmp_path / "t.states")

    def run(steps, resume=None, p=None):
        p = p or ones_param(ctx=ctx)
        trainer = gluon.Trainer([p], "sgd", {"learning_rate": 0.1, "momentum": 0.9})
        if resume:
            trainer.load_states(resume)
        for _ in range(steps):
            backward(p)
            trainer.step(1)
        return p, trainer

    p, trainer = run(2)
    trainer.save_states(path)
    run(2, resume=path, p=p)
    np.testing.assert_allclose(values(p), values(run(4)[0]), rtol=1e-6)


@pytest.mark.parametrize("on_store", [False, True])
def test_a_failed_save_leaves_the_former_states(tmp_path, monkeypatch, on_store):
    kvstore = mx.kv.create("local") if on_store else None
    trainer = gluon.Trainer([ones_param()], "adam", kvstore=kvstore, update_on_kvstore=on_store)
    target = tmp_path / "t.states"
    target.write_bytes(b"former")

    def fail(_):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        trainer.save_states(str(target))
    assert target.read_bytes() == b"former"
    assert [p.name for p in tmp_path.iterdir()] == ["t.states"]
    with pytest.raises(FileNotFoundError, match=r"nowhere/t.states'$"):
        trainer.save_states(str(tmp_path / "nowhere" / "t.states"))


# --- construction ---


def test_dictionaries_are_taken_by_sorted_key():
    a, b = ones_param("z"), ones_param("y")
    assert gluon.Trainer({"2": a, "1": b}, "sgd")._params == [b, a]
    net = nn.Dense(1, in_units=1, prefix="d_")
    net.initialize()
    assert [p.name for p in gluon.Trainer(net.collect_params(), "sgd")._params] == ["d_bias", "d_weight"]


REFUSED = [
    (lambda: gluon.Trainer([1], "sgd"), ValueError, "got list of <class 'int'>"),
    (lambda: gluon.Trainer("a", "sgd"), ValueError, "got <class 'str'>"),
    (lambda: gluon.Trainer([ones_param()], 3), ValueError, "optimizer must be"),
    (lambda: gluon.Trainer([ones_param()], "no_such"), ValueError, "no_such"),
    (
        lambda: gluon.Trainer([ones_param()], mx.optimizer.SGD(), {"learning_rate": 1}),
        AssertionError,
        "optimizer_params must be None",
    ),
    (
        lambda: gluon.Trainer([ones_param(ctx=mx.cpu(0)), ones_param("q", ctx=mx.cpu(1))], "sgd"),
        AssertionError,
        "same set of contexts",
    ),
    (
        lambda: gluon.Trainer([gluon.Parameter("a", shape=(1,))], "sgd"),
        RuntimeError,
        "'a' has not been initialized",
    ),
    (
        lambda: gluon.Trainer([ones_param()], "sgd", kvstore="foo").allreduce_grads(),
        ValueError,
        "unknown kvstore 'foo'",
    ),
    (
        lambda: gluon.Trainer([ones_param()], "sgd", kvstore="dist_sync").allreduce_grads(),
        NotImplementedError,
        "dist_sync",
    ),
    (
        lambda: gluon.Trainer([ones_param()], "sgd", kvstore=3).allreduce_grads(),
        TypeError,
        "kvstore must be a KVStore",
    ),
    (
        lambda: gluon.Trainer([ones_param()], "sgd", kvstore=None, update_on_kvstore=True).step(1),
        ValueError,
        "kvstore is None",
    ),
    (
        lambda: gluon.Trainer([ones_param(ctx=TWO)], "sgd", compression_params={"type": "2bit"}).step(1),
        NotImplementedError,
        "set_gradient_compression",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_deferred_parameter_is_named_before_anything_is_updated():
    net = nn.Dense(1, prefix="d_")
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    with pytest.raises(gluon.DeferredInitializationError, match="'d_weight'"):
        trainer.step(1)


def test_linear_regression():
    true_w, true_b = nd.array([[2.0], [-3.4]]), 4.2
    mx.random.seed(1)
    x = nd.random.normal(shape=(400, 2))
    y = nd.dot(x, true_w) + true_b
    net = nn.Dense(1)
    net.initialize(mx.init.Normal(0.01))
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    losses = []
    for _ in range(10):
        for i in range(0, 400, 20):
            with autograd.record():
                loss = (net(x[i : i + 20]) - y[i : i + 20]) ** 2 / 2
            loss.backward()
            trainer.step(20)
        losses.append(float(loss.mean().asscalar()))
    assert losses[-1] < 1e-5 < losses[0]
    np.testing.assert_allclose(net.weight.data().asnumpy(), [[2.0, -3.4]], atol=1e-2)
    np.testing.assert_allclose(net.bias.data().asnumpy(), [4.2], atol=1e-2)


TRAINING = """
x.attach_grad()
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Dense(4, activation='tanh'), gluon.nn.BatchNorm(), gluon.nn.Dense(1))
net.initialize()
net(x)
for p in net.collect_params().values():
    n = int(np.prod(p.shape))
    p.set_data(nd.array(np.cos(np.arange(n) * 1.3).reshape(p.shape) * 0.4 + 0.5))
trainer = gluon.Trainer(net.collect_params(), OPTIMIZER, PARAMS)
out_losses = []
for _ in range(5):
    with autograd.record():
        loss = ((net(x) - y) ** 2).mean()
    loss.backward()
    trainer.step(2)
    out_losses.append(loss.asnumpy())
out_params = [p.data() for p in net.collect_params().values()]
"""


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01}),
        ("adam", {"learning_rate": 0.05}),
        ("adagrad", {"learning_rate": 0.1}),
        ("rmsprop", {"learning_rate": 0.01}),
    ],
)
def test_training_as_mxnet(oracle, optimizer, params):
    rng = np.random.RandomState(5)
    code = TRAINING.replace("OPTIMIZER", repr(optimizer)).replace("PARAMS", repr(params))
    x, y = rng.randn(6, 3).astype("float32"), rng.randn(6, 1).astype("float32")
    oracle.check(code, x=x, y=y, rtol=1e-3, atol=1e-4)


# --- utils ---


def test_split_data():
    x = nd.arange(22).reshape((11, 2))
    assert [p.shape for p in gluon.utils.split_data(x, 4, even_split=False)] == [
        (3, 2),
        (3, 2),
        (3, 2),
        (2, 2),
    ]
    assert [p.shape for p in gluon.utils.split_data(x[:2], 3, even_split=False)] == [(1, 2), (1, 2), (0, 2)]
    left, right = gluon.utils.split_data(x, 2, batch_axis=1)
    np.testing.assert_array_equal(right.asnumpy(), x.asnumpy()[:, 1:])
    assert left.shape == (11, 1)
    with pytest.raises(
        ValueError, match=r"shape \(11, 2\) cannot be evenly split into 2 slices along axis 0"
    ):
        gluon.utils.split_data(x, 2)
    with pytest.raises(ValueError, match="num_slice"):
        gluon.utils.split_data(x, 0)
    with pytest.raises(ValueError, match="batch_axis 2"):
        gluon.utils.split_data(x, 1, batch_axis=2)


def test_split_and_load():
    parts = gluon.utils.split_and_load(np.ones((4, 1)), TWO)
    assert [(p.shape, p.context) for p in parts] == [((2, 1), mx.cpu(0)), ((2, 1), mx.cpu(1))]
    assert gluon.utils.split_and_load(nd.ones((5, 1)), [mx.cpu(1)])[0].context == mx.cpu(1)
    with pytest.raises(ValueError, match="ctx_list is empty"):
        gluon.utils.split_and_load(nd.ones((5, 1)), [])


def test_clip_global_norm():
    arrays = [nd.array([3.0]), nd.array([4.0], ctx=mx.cpu(1))]
    assert gluon.utils.clip_global_norm(arrays, 1.0) == 5.0
    np.testing.assert_allclose([a.asscalar() for a in arrays], [0.6, 0.8], rtol=1e-6)
    assert gluon.utils.clip_global_norm(arrays, 10.0) == pytest.approx(1.0)
    np.testing.assert_allclose([a.asscalar() for a in arrays], [0.6, 0.8], rtol=1e-6)
    lazy = gluon.utils.clip_global_norm(arrays, 0.5, check_isfinite=False)
    assert lazy.shape == (1,) and lazy.asscalar() == pytest.approx(1.0)
    with pytest.warns(UserWarning, match="nan or inf is detected"):
        gluon.utils.clip_global_norm([nd.array([float("inf")])], 1.0)
    with pytest.raises(AssertionError, match="arrays is empty"):
        gluon.utils.clip_global_norm([], 1.0)


def test_shape_is_known():
    known = gluon.utils.shape_is_known
    assert [known(s) for s in ((1, 2), (0, 2), (), None)] == [True, False, False, False]
    with pytest.raises(AssertionError, match="received -1"):
        known((-1,))


@pytest.fixture
def server():
    """A web server in this process: /ok answers, /flaky fails once, anything else is absent."""
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            if self.path == "/ok" or (self.path == "/flaky" and hits.count("/flaky") > 1):
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"hello")
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", hits
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_download(server, tmp_path):
    url, hits = server
    sha1 = hashlib.sha1(b"hello").hexdigest()
    path = gluon.utils.download(f"{url}/ok", path=str(tmp_path), sha1_hash=sha1)
    assert path == str(tmp_path / "ok") and gluon.utils.check_sha1(path, sha1)
    gluon.utils.download(f"{url}/ok", path=path, sha1_hash=sha1)
    assert hits == ["/ok"]
    gluon.utils.download(f"{url}/ok", path=path, overwrite=True)
    assert hits == ["/ok", "/ok"]
    gluon.utils.download(f"{url}/flaky", path=str(tmp_path), retries=1)
    assert hits[2:] == ["/flaky", "/flaky"] and (tmp_path / "flaky").read_bytes() == b"hello"


def test_download_that_fails_says_where_to_put_the_file(server, tmp_path):
    url, _ = server
    with pytest.raises(
        ConnectionError, match=f"cannot fetch {url}/absent.*put the file at {tmp_path}/absent"
    ):
        gluon.utils.download(f"{url}/absent", path=str(tmp_path), retries=0)
    with pytest.raises(OSError, match="SHA-1 differs"):
        gluon.utils.download(f"{url}/ok", path=str(tmp_path), sha1_hash="0" * 40, retries=0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError, match="retries"):
        gluon.utils.download(f"{url}/ok", retries=-1)
    with pytest.raises(AssertionError, match="file-name"):
        gluon.utils.download(f"{url}/")


def test_nothing_warns_in_an_ordinary_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = nn.HybridSequential()
        net.add(nn.Dense(2), nn.BatchNorm())
        net.initialize()
        trainer = gluon.Trainer(net.collect_params(), "sgd")
        with autograd.record():
            y = net(nd.ones((2, 3)))
        y.backward()
        trainer.step(2)
