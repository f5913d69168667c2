"""Arrays on GPUs as users handle them: files, indices, gradients, callbacks, data, metrics, initial values, contexts."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn


def both(f: Callable[[Any], np.ndarray], gpu: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """`f` gives on the GPU what it gives on the CPU."""
    np.testing.assert_allclose(f(gpu), f(mx.cpu()), rtol=rtol, atol=atol)


# --- files and copies ---------------------------------------------------------------------------------------


def test_files_and_pickles(gpu: Any, tmp_path: Any) -> None:
    """What a GPU wrote anybody reads: files come to the host, pickles to where they were."""
    x = nd.array([[1, 2], [3, 4]], ctx=gpu)
    nd.save(str(tmp_path / "a"), {"x": x, "y": nd.ones((2,))})
    with gpu:
        loaded = nd.load(str(tmp_path / "a"))
    assert loaded["x"].context == loaded["y"].context == mx.cpu()
    np.testing.assert_array_equal(loaded["x"].asnumpy(), x.asnumpy())
    for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x), x.copy()):
        assert again.context == gpu
        np.testing.assert_array_equal(again.asnumpy(), x.asnumpy())
    assert pickle.loads(pickle.dumps(gpu)) == gpu


def convolutional() -> Any:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3), nn.BatchNorm(), nn.Flatten(), nn.Dense(4))
    return net


def test_parameters_and_graphs_move_between_devices(gpu: Any, tmp_path: Any) -> None:
    """save_parameters, export, load, imports and reset_ctx, each way."""
    path = str(tmp_path / "net")
    net = convolutional()
    net.initialize(ctx=gpu)
    net.hybridize()
    x = nd.random.uniform(shape=(2, 1, 5, 5), ctx=gpu)
    wanted = net(x).asnumpy()
    net.save_parameters(path)
    net.export(path, 1)

    def check(block: Any, ctx: Any) -> None:
        assert all(p.list_ctx() == [ctx] for p in block.collect_params().values())
        np.testing.assert_allclose(block(x.as_in_context(ctx)).asnumpy(), wanted, rtol=1e-4, atol=1e-5)

    for ctx in (gpu, mx.cpu()):
        other = convolutional()
        other.load_parameters(path, ctx=ctx)
        check(other, ctx)
        imported = gluon.SymbolBlock.imports(f"{path}-symbol.json", ["data"], f"{path}-0001.params", ctx=ctx)
        check(imported, ctx)
        there = mx.cpu() if ctx == gpu else gpu
        other.collect_params().reset_ctx(there)
        check(other, there)
        other.hybridize()
        check(other, there)
        for p in imported.collect_params().values():
            p.reset_ctx(there)
        check(imported, there)
    other.collect_params().reset_ctx([gpu, mx.cpu()])
    for ctx in (gpu, mx.cpu()):
        np.testing.assert_allclose(other(x.as_in_context(ctx)).asnumpy(), wanted, rtol=1e-4, atol=1e-5)


def test_arrays_of_every_type(gpu: Any) -> None:
    """Creation, copies, assignment and casts of the types that GPUs have; float16 where the adapter has it."""
    x = nd.ones((2,))
    for move in (x.as_in_context, x.copyto, x.as_in_ctx):
        y = move(gpu)
        assert y.context == gpu and y.as_in_context(gpu) is y
    for dtype in ("float32", "float16", "int32", "int8", "uint8", "bool"):
        if dtype == "float16" and "f16" not in mx._core.gpu_list()[0]["features"]:
            continue
        values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
        x = nd.array(values, dtype=dtype, ctx=gpu)
        assert x.dtype == np.dtype(dtype) and x.context == gpu
        np.testing.assert_array_equal(x.asnumpy(), values)
        np.testing.assert_array_equal(x.astype("float32").asnumpy(), values.astype("float32"))
        z = nd.zeros((2, 3), ctx=gpu, dtype=dtype)
        z[:] = x
        z[1] = values[0]
        np.testing.assert_array_equal(z.asnumpy(), [values[0], values[0]])
        moved = nd.empty((2, 3), dtype=dtype)
        z.copyto(moved)
        np.testing.assert_array_equal(moved.asnumpy(), z.asnumpy())


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_types_of_64_bits_are_moved_cast_and_read(dtype: str, gpu: Any) -> None:
    """What NumPy makes unasked can go to a GPU: it is copied and cut exactly there, cast to other types, and an index."""
    values = np.array([[0, 3, 2], [1, -5, 2**31 + 1]]).astype(dtype) * (1 if dtype == "int64" else 1.1)
    x = nd.array(values, dtype=dtype, ctx=gpu)
    assert x.context == gpu and x.dtype == np.dtype(dtype)
    moved = (
        x,
        x.copy(),
        x.reshape((3, 2)).reshape((2, 3)),
        x.T.T,
        nd.concat(x, x, dim=0)[2:],
        nd.flip(x[:, ::-1], axis=1),
    )
    for same in moved:
        np.testing.assert_array_equal(same.asnumpy(), values)
    np.testing.assert_array_equal(x[:, [2, 0]].asnumpy(), values[:, [2, 0]])
    np.testing.assert_array_equal(x[nd.array([1, 0], ctx=gpu)].asnumpy(), values[[1, 0]])
    there, home = nd.zeros((2, 3), ctx=gpu), nd.zeros((2, 3), dtype=dtype)
    there[:] = nd.array(values, dtype=dtype)
    home[:] = there
    np.testing.assert_array_equal(home.asnumpy(), values.astype("float32").astype(dtype))
    home[1:] = nd.array([[7, 8, 9]], ctx=gpu, dtype="int32")
    np.testing.assert_array_equal(home.asnumpy()[1], [7, 8, 9])
    x.copyto(home)
    np.testing.assert_array_equal(home.asnumpy(), values)
    for there in ("float32", "int32", "bool"):
        small = nd.array(values[:1], dtype=dtype, ctx=gpu)
        np.testing.assert_array_equal(small.astype(there).asnumpy(), values[:1].astype(there))
    np.testing.assert_array_equal(x.astype("float32").asnumpy(), values.astype("float32"))
    scores = np.random.RandomState(0).rand(3, 4).astype("float32")

    def used(ctx: Any) -> np.ndarray:
        labels, table = nd.array([0, 3, 2], dtype=dtype, ctx=ctx), nd.array(scores, ctx=ctx)
        table.attach_grad()
        with autograd.record():
            loss = gluon.loss.SoftmaxCrossEntropyLoss()(table, labels)
            rows = nd.Embedding(nd.array([2, 0, 2], dtype=dtype, ctx=ctx), table, input_dim=3, output_dim=4)
            total = loss.sum() + (rows * rows).sum()
        total.backward()
        hot = nd.one_hot(labels, 4)
        parts = (loss, rows, table.grad, nd.take(table, labels, mode="wrap"), hot, nd.pick(table, labels))
        return np.concatenate([p.asnumpy().ravel() for p in parts])

    both(used, gpu, rtol=1e-4)


def test_a_loader_of_numpy_labels_trains(gpu: Any) -> None:
    """int64 labels, as NumPy makes them, through a loader to the GPU and into the loss."""
    rng = np.random.RandomState(0)
    data, labels = rng.rand(24, 4).astype("float32"), np.arange(24) % 3
    assert labels.dtype == np.int64

    def trained(ctx: Any) -> np.ndarray:
        net = nn.Dense(3, in_units=4)
        net.initialize(mx.init.One(), ctx=ctx)
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
        metric = mx.metric.Accuracy()
        for x, y in gluon.data.DataLoader(gluon.data.ArrayDataset(data, labels), 8):
            x, y = x.as_in_context(ctx), y.as_in_context(ctx)
            with autograd.record():
                scores = net(x)
                loss = gluon.loss.SoftmaxCrossEntropyLoss()(scores, y)
            loss.backward()
            trainer.step(8)
            metric.update([y], [scores])
        return np.append(net.weight.data().asnumpy(), metric.get()[1])

    both(trained, gpu, rtol=1e-4)


# --- indices ------------------------------------------------------------------------------------------------

KEYS: list[Any] = [
    1,
    -1,
    slice(0, 2),
    (slice(None), 1),
    (1, 2, 3),
    (..., 2),
    (slice(None), slice(None, None, 2)),
    (slice(None, None, -1),),
    (None, 1),
    ([0, 2],),
    ([0, 2], [1, 3]),
    (slice(None), [0, 3]),
    (np.array([0, 2]), slice(1, 3)),
    (slice(None), [0, 1], [2, 3]),
    (slice(2, 0, -1), [1, 2], None),
    ([[0, 1], [2, 0]],),
    np.array([True, False, True]),
    (..., [0, 1], 2),
    slice(3, 1),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_keys_are_those_of_numpy(key: Any, gpu: Any) -> None:
    """Reading, writing numbers, lists and arrays of both devices, in place, and gradients."""
    values = np.arange(60, dtype="float32").reshape(3, 4, 5)
    x = nd.array(values, ctx=gpu)
    chosen = values[key]
    assert x[key].context == gpu
    np.testing.assert_array_equal(x[key].asnumpy(), np.asarray(chosen).reshape(x[key].shape))
    new = np.asarray(np.random.RandomState(0).rand(*np.shape(chosen)), "float32")
    for value in (7, new, nd.array(new, ctx=gpu), nd.array(new)):
        y, wanted = x.copy(), values.copy()
        y[key] = value
        wanted[key] = value.asnumpy().reshape(np.shape(chosen)) if isinstance(value, nd.NDArray) else value
        y[key] += 1
        wanted[key] += 1
        np.testing.assert_array_equal(y.asnumpy(), wanted)

    def gradient(ctx: Any) -> np.ndarray:
        z = nd.array(values, ctx=ctx)
        z.attach_grad()
        with autograd.record():
            total = (z[key] ** 2).sum()
        total.backward()
        return z.grad.asnumpy()

    if x[key].size:
        both(gradient, gpu)


def test_arrays_as_keys(gpu: Any) -> None:
    """Index arrays of either device and any type, masks among them."""
    values = np.arange(12, dtype="float32").reshape(4, 3)
    x = nd.array(values, ctx=gpu)
    for ctx, dtype in itertools.product((gpu, mx.cpu()), ("float32", "int32", "int64", "uint8")):
        rows, columns = (nd.array(k, ctx=ctx, dtype=dtype) for k in ([0, 3], [1, 2]))
        np.testing.assert_array_equal(x[rows].asnumpy(), values[[0, 3]])
        np.testing.assert_array_equal(x[rows, columns].asnumpy(), values[[0, 3], [1, 2]])
        y = x.copy()
        y[rows] = 9
        assert y.asnumpy()[0, 0] == 9 and y.asnumpy()[1, 0] == 3
    mask = nd.array([1, 0, 0, 1], ctx=gpu, dtype="bool")
    np.testing.assert_array_equal(x[mask].asnumpy(), values[[0, 3]])


def test_work_in_place(gpu: Any) -> None:
    """Augmented assignment, `out=`, and views that share memory."""
    values = np.random.RandomState(0).rand(3, 4).astype("float32")
    x = y = nd.array(values, ctx=gpu)
    x += 1
    x *= 2
    x -= 0.5
    x /= 3
    x %= 0.7
    wanted = ((values + 1) * 2 - 0.5) / 3 % 0.7
    assert y is x
    np.testing.assert_allclose(x.asnumpy(), wanted, rtol=1e-5)
    nd.broadcast_add(x, x, out=y)
    np.testing.assert_allclose(x.asnumpy(), wanted * 2, rtol=1e-5)
    x.reshape((4, 3))[:] = 9
    x[1][:] = 3
    np.testing.assert_array_equal(x.asnumpy(), [[9] * 4, [3] * 4, [9] * 4])


# --- gradients ----------------------------------------------------------------------------------------------


def test_gradients_of_gradients(gpu: Any) -> None:
    """`autograd.grad` with create_graph, and gradients that add up."""

    def second(ctx: Any) -> np.ndarray:
        x = nd.array([1, 2, 3], ctx=ctx)
        x.attach_grad()
        with autograd.record():
            slope = autograd.grad(x**3 + nd.tanh(x), x, create_graph=True, retain_graph=True)[0]
            total = (slope * slope).sum()
        total.backward()
        first = x.grad.asnumpy()
        x.attach_grad("add")
        for _ in range(2):
            with autograd.record():
                y = (x * x).sum()
            y.backward()
        return np.stack([first, x.grad.asnumpy()])

    both(second, gpu, rtol=1e-4)


def test_gradients_cross_devices(gpu: Any) -> None:
    """A graph that moves an array takes its gradient back."""
    x, y = nd.ones((2, 2), ctx=gpu), nd.ones((2, 2))
    x.attach_grad()
    y.attach_grad()
    with autograd.record():
        total = (x.as_in_context(mx.cpu()) * y * 3).as_in_context(gpu).sum()
    total.backward()
    assert x.grad.context == gpu and y.grad.context == mx.cpu()
    np.testing.assert_array_equal(x.grad.asnumpy(), np.full((2, 2), 3))
    np.testing.assert_array_equal(y.grad.asnumpy(), np.full((2, 2), 3))
    with autograd.record():
        there = nd.zeros((2, 2))
        (x * 2).copyto(there)
        first = autograd.grad((there**3).as_in_context(gpu), x, create_graph=True, retain_graph=True)[0]
        total = (first.as_in_context(mx.cpu()) * y).sum()
    assert first.context == gpu
    total.backward()
    np.testing.assert_array_equal(first.asnumpy(), np.full((2, 2), 24))
    np.testing.assert_array_equal(x.grad.asnumpy(), np.full((2, 2), 48))
    np.testing.assert_array_equal(y.grad.asnumpy(), np.full((2, 2), 24))


def test_heads_on_several_devices(gpu: Any) -> None:
    """One backward over losses of both devices; rules that make zeros make them where they belong."""
    grads = []
    for contexts in ([mx.cpu(), mx.cpu(1)], [mx.cpu(), gpu], [gpu, mx.cpu()]):
        xs = [nd.array([[1, -2, 3], [4, 5, -6]], ctx=c) for c in contexts]
        losses = []
        for x in xs:
            x.attach_grad()
            with autograd.record():
                a, _ = nd.split(nd.relu(x[:, :2]), 2, axis=1)
                b = nd.where(x > 0, x, nd.zeros_like(x))[1, 1:]
                losses.append(a.sum() * 2 + nd.SliceChannel(x, 3)[1].square().sum() + b.sum())
        autograd.backward(losses)
        assert [x.grad.context for x in xs] == contexts
        grads.append([x.grad.asnumpy() for x in xs])
    np.testing.assert_array_equal(grads[1], grads[0])
    np.testing.assert_array_equal(grads[2], grads[0])


def test_functions_of_users(gpu: Any) -> None:
    """`autograd.Function` over device arrays."""

    class Sigmoid(autograd.Function):
        def forward(self, x: Any) -> Any:
            y = 1 / (1 + nd.exp(-x))
            self.save_for_backward(y)
            return y

        def backward(self, dy: Any) -> Any:
            (y,) = self.saved_tensors
            assert dy.context == y.context
            return dy * y * (1 - y)

    def slope(ctx: Any) -> np.ndarray:
        x = nd.array([1, 2, 3], ctx=ctx)
        x.attach_grad()
        with autograd.record():
            y = Sigmoid()(x * 2)
        y.backward()
        return x.grad.asnumpy()

    both(slope, gpu)


def test_control_flow(gpu: Any) -> None:
    """`foreach`, `while_loop` and `cond` over device arrays."""

    def run(ctx: Any) -> np.ndarray:
        steps, last = nd.contrib.foreach(
            lambda x, s: (x + s, x + s), nd.ones((3, 2), ctx=ctx), nd.zeros((2,), ctx=ctx)
        )
        looped, _ = nd.contrib.while_loop(
            lambda i: i < 3, lambda i: (i, [i + 1]), [nd.zeros((1,), ctx=ctx)], max_iterations=5
        )
        picked = nd.contrib.cond(last.sum() > 5, lambda: last, lambda: -last)
        assert looped.context == picked.context == ctx
        return np.concatenate([a.asnumpy().ravel() for a in (steps, looped, picked)])

    both(run, gpu)


# --- data and metrics ---------------------------------------------------------------------------------------


def test_iterators_over_device_arrays(gpu: Any) -> None:
    """`NDArrayIter` keeps its arrays where they are, shuffled or not; `DataLoader` over device arrays and through them."""
    x, y = nd.array(np.arange(24).reshape(8, 3), ctx=gpu), nd.arange(8, ctx=gpu)
    for shuffle, last in itertools.product((False, True), ("pad", "discard", "roll_over")):
        rows = []
        for batch in mx.io.NDArrayIter(x, y, 3, shuffle=shuffle, last_batch_handle=last):
            assert batch.data[0].context == batch.label[0].context == gpu
            np.testing.assert_array_equal(batch.data[0].asnumpy()[:, 0], batch.label[0].asnumpy() * 3)
            rows += batch.label[0].asnumpy().tolist()[: 3 - (batch.pad or 0)]
        assert len(set(rows)) == len(rows) == (8 if last == "pad" else 6)
    for options in ({}, {"shuffle": True}, {"num_workers": 2, "thread_pool": True}):
        # Labels in one dimension become NumPy's there, as in MXNet.
        batches = list(gluon.data.DataLoader(gluon.data.ArrayDataset(x, y), 4, **options))
        assert all(part.context == gpu for part, _ in batches)
        for part, labels in batches:
            np.testing.assert_array_equal(part.asnumpy()[:, 0], labels.asnumpy() * 3)


def test_metrics_over_device_arrays(gpu: Any) -> None:
    """Every metric's value, with labels on either device."""
    rng = np.random.RandomState(0)
    many, two = rng.dirichlet([1] * 4, 12).astype("float32"), rng.dirichlet([1] * 2, 12).astype("float32")
    classes, sides = rng.randint(0, 4, 12).astype("float32"), rng.randint(0, 2, 12).astype("float32")
    cases: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
        "acc": (classes, many, {}),
        "top_k_accuracy": (classes, many, {"top_k": 2}),
        "f1": (sides, two, {}),
        "mcc": (sides, two, {}),
        "pcc": (classes, many, {}),
        "perplexity": (classes, many, {"ignore_label": None}),
        "ce": (classes, many, {}),
        "nll_loss": (classes, many, {}),
        "mae": (many * 2, many, {}),
        "mse": (many * 2, many, {}),
        "rmse": (many * 2, many, {}),
        "pearsonr": (many**2, many, {}),
        "loss": (classes, many, {}),
    }
    for name, (label, found, options) in cases.items():
        values = []
        for label_ctx, ctx in ((mx.cpu(), mx.cpu()), (gpu, gpu), (mx.cpu(), gpu)):
            metric = mx.metric.create(name, **options)
            metric.update([nd.array(label, ctx=label_ctx)], [nd.array(found, ctx=ctx)])
            values.append(metric.get()[1])
        np.testing.assert_allclose(values, values[0], rtol=1e-4, err_msg=name)


def test_an_estimator_on_a_gpu(gpu: Any) -> None:
    """The contrib loop trains there what it trains on the CPU."""
    from mxrs.gluon.contrib.estimator import Estimator

    rng = np.random.RandomState(0)
    data = gluon.data.ArrayDataset(rng.rand(20, 4).astype("float32"), rng.randint(0, 3, 20).astype("float32"))

    def trained(ctx: Any) -> np.ndarray:
        net = nn.Dense(3, in_units=4)
        net.initialize(mx.init.One(), ctx=ctx)
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
        accuracy = mx.metric.Accuracy()
        estimator = Estimator(
            net, gluon.loss.SoftmaxCrossEntropyLoss(), train_metrics=accuracy, trainer=trainer, context=ctx
        )
        logging.disable(logging.CRITICAL)
        try:
            estimator.fit(gluon.data.DataLoader(data, 5), val_data=gluon.data.DataLoader(data, 5), epochs=2)
        finally:
            logging.disable(logging.NOTSET)
        return net.weight.data().asnumpy()

    both(trained, gpu, rtol=1e-3)


# --- initial values and random numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "initializer",
    ["Xavier", "Uniform", "Normal", "MSRAPrelu", "Orthogonal", "Bilinear", "Constant", "One", "LSTMBias"],
)
def test_initial_values_are_those_of_the_cpu(initializer: str, gpu: Any) -> None:
    """The same seed gives the same parameters, wherever they go."""
    options: dict[str, Any] = {"Constant": {"value": 2.0}, "LSTMBias": {"forget_bias": 1.0}}.get(
        initializer, {}
    )
    shape = (4, 4, 4, 4) if initializer == "Bilinear" else (8, 6)

    def drawn(ctx: Any) -> np.ndarray:
        mx.random.seed(3)
        np.random.seed(3)
        random.seed(3)
        p = gluon.Parameter("w_weight", shape=shape, init=getattr(mx.init, initializer)(**options))
        p.initialize(ctx=ctx)
        assert p.data().context == ctx
        return p.data().asnumpy()

    np.testing.assert_array_equal(drawn(gpu), drawn(mx.cpu()))
    array = nd.zeros(shape, ctx=gpu)
    getattr(mx.init, initializer)(**options)(mx.init.InitDesc("w_weight"), array)
    assert np.abs(array.asnumpy()).max() > 0


def test_the_stream_of_random_numbers(gpu: Any) -> None:
    """`mx.random.seed(n, ctx)` starts a context where it starts the CPU; samplers then agree."""

    def drawn(ctx: Any) -> np.ndarray:
        mx.random.seed(5, ctx)
        parts = [
            nd.random.uniform(0, 1, (7,), ctx=ctx),
            nd.random.normal(0, 1, (7,), ctx=ctx),
            nd.random.randn(7, ctx=ctx),
            mx.random.randint(0, 9, (7,), ctx=ctx).astype("float32"),
            nd.Dropout(nd.ones((50,), ctx=ctx), p=0.5, mode="always"),
        ]
        assert all(p.context == ctx for p in parts)
        return np.concatenate([p.asnumpy() for p in parts])

    both(drawn, gpu)
    mx.random.seed(5)
    first = nd.random.uniform(shape=(4,), ctx=gpu).asnumpy()
    mx.random.seed(5)
    np.testing.assert_array_equal(nd.random.uniform(shape=(4,), ctx=gpu).asnumpy(), first)


# --- contexts -----------------------------------------------------------------------------------------------


def test_the_default_context(gpu: Any) -> None:
    """`with mx.gpu(0):` holds for what is made inside, in this thread alone."""
    seen: list[Any] = []
    with mx.gpu(0):
        assert mx.current_context() == gpu
        made = [nd.ones((2,)), nd.array([1]), nd.arange(3), nd.random.uniform(shape=(2,)), nd.full((2,), 3)]
        assert all(a.context == gpu for a in made)
        net = nn.Dense(2)
        net.initialize()
        assert net(nd.ones((1, 3))).context == gpu
        with mx.cpu():
            assert nd.ones((1,)).context == mx.cpu()
        thread = threading.Thread(target=lambda: seen.append(nd.ones((1,)).context))
        thread.start()
        thread.join()
        batch = next(iter(gluon.data.DataLoader(gluon.data.ArrayDataset(np.ones((4, 2), "float32")), 2)))
        assert batch.context == gpu
    assert seen == [mx.cpu()] and mx.current_context() == mx.cpu()
    assert nd.ones((2,), ctx="gpu(0)").context == gpu


def test_contexts_compare_and_count(gpu: Any) -> None:
    """Equality, hashes, text, counting, memory."""
    assert mx.gpu() == gpu == mx.gpu(0) != mx.gpu(1) and mx.gpu(0) != mx.cpu(0) and gpu
    assert {mx.gpu(0): 1}[gpu] == 1 and str(gpu) == repr(gpu) == "gpu(0)" and gpu.device_type == "gpu"
    assert mx.context.num_gpus() == mx.num_gpus() >= 1
    assert list(mx.test_utils.list_gpus()) == list(range(mx.num_gpus()))
    before, total = mx.context.gpu_memory_info(0)
    kept = nd.ones((1 << 20,), ctx=gpu)
    kept.wait_to_read()
    after, _ = mx.context.gpu_memory_info(0)
    assert 0 < after <= before - (1 << 22) and before <= total
    del kept
    assert mx.context.gpu_memory_info(0)[0] >= before and mx._core.gpu_memory(0)["pooled"] >= 1 << 22
    gpu.empty_cache()
    assert mx._core.gpu_memory(0)["pooled"] == 0


def test_test_utils_across_devices(gpu: Any) -> None:
    """`check_consistency` between CPU and GPU, gradients against differences, and the default context."""
    tools = mx.test_utils
    convolution = mx.sym.Convolution(mx.sym.Variable("x"), num_filter=3, kernel=(3, 3), name="c")
    places = [{"ctx": c, "x": (2, 2, 5, 5), "type_dict": {"x": np.float32}} for c in (mx.cpu(), gpu)]
    tools.check_consistency(convolution, places)
    x = mx.sym.Variable("x")
    tools.check_numeric_gradient(mx.sym.tanh(x), [np.random.rand(3, 2)], ctx=gpu)
    tools.check_symbolic_forward(mx.sym.square(x), [np.full((2, 2), 3)], [np.full((2, 2), 9)], ctx=gpu)
    tools.check_symbolic_backward(
        mx.sym.square(x), [np.full((2, 2), 3)], [np.ones((2, 2))], [np.full((2, 2), 6)], ctx=gpu
    )
    tools.assert_almost_equal(nd.ones((2,), ctx=gpu), nd.ones((2,)))
    before = tools.default_context()
    tools.set_default_context(gpu)
    try:
        assert tools.default_context() == gpu
    finally:
        tools.set_default_context(before)


def test_norms_are_clipped_over_devices(gpu: Any) -> None:
    """`clip_global_norm` of arrays on one device and on several."""
    for places in ([gpu] * 3, [mx.cpu(), gpu, gpu]):
        arrays = [nd.full((2, 2), 3, ctx=c) for c in places]
        np.testing.assert_allclose(gluon.utils.clip_global_norm(arrays, 1.0), 3 * np.sqrt(12), rtol=1e-5)
        assert [a.context for a in arrays] == places
        np.testing.assert_allclose([a.asnumpy()[0, 0] for a in arrays], 1 / np.sqrt(12), rtol=1e-5)
