"""Executors, modules and stores on GPUs: what symbolic programs do there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from gpu_nets import CASES, agree, curve
from mxrs import gluon, nd

ROWS, WIDE, CLASSES = 40, 6, 4
X = np.random.RandomState(0).randn(ROWS, WIDE).astype("float32")
Y = np.random.RandomState(1).randint(0, CLASSES, ROWS).astype("float32")


def network() -> Any:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, no_bias=True, name="fc1")
    x = mx.sym.Activation(mx.sym.BatchNorm(x, fix_gamma=False, name="bn"), act_type="relu", name="relu")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=CLASSES, name="fc2"), name="softmax")


def fill(executor: Any) -> None:
    """Arguments that depend on their names alone."""
    for name, array in executor.arg_dict.items():
        rng = np.random.RandomState(sum(map(ord, name)))
        array[:] = Y[: array.size] if name.endswith("label") else rng.randn(*array.shape) * 0.5


def seen(executor: Any) -> dict[str, np.ndarray]:
    """Everything that an executor shows."""
    grads = {f"gradient of {k}": v for k, v in executor.grad_dict.items() if v is not None}
    everything = {**executor.output_dict, **grads, **executor.aux_dict}
    return {name: array.asnumpy() for name, array in everything.items()}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


# --- executors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_an_executor_runs_on_a_gpu(grad_req: str, gpu: Any) -> None:
    """Forward, backward, values given by name from anywhere, another shape, parameters copied in."""

    def both(ctx: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        executor = network().simple_bind(ctx=ctx, grad_req=grad_req, data=(10, WIDE))
        fill(executor)
        executor.copy_params_from({"fc2_bias": nd.ones((CLASSES,))}, {"bn_moving_var": nd.full((8,), 2)})
        for _ in range(2):
            executor.forward(is_train=True, data=X[:10], softmax_label=nd.array(Y[:10], ctx=ctx))
            executor.backward()
        assert all(a.context == ctx for a in (*executor.outputs, *executor.grad_arrays, *executor.aux_arrays))
        other = executor.reshape(data=(5, WIDE), softmax_label=(5,))
        (out,) = other.forward(data=nd.array(X[:5]))
        return seen(executor), out.asnumpy()

    wanted, found = both(mx.cpu()), both(gpu)
    same(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-3, atol=1e-5)


def test_bind_takes_arrays_of_its_device(gpu: Any) -> None:
    """Arrays elsewhere are refused by name; head gradients may come from anywhere."""
    product = mx.sym.Variable("a") * mx.sym.Variable("b")
    a, b = nd.array([1, 2], ctx=gpu), nd.array([3, 4], ctx=gpu)
    grads = {"a": nd.zeros((2,), ctx=gpu)}
    executor = product.bind(gpu, {"a": a, "b": b}, grads)
    assert executor.forward(is_train=True)[0].context == gpu
    executor.backward(nd.array([10, 20]))
    np.testing.assert_array_equal(grads["a"].asnumpy(), [30, 80])
    on_host = product.bind(mx.cpu(), {"a": nd.ones((2,)), "b": nd.ones((2,))}, {"a": nd.zeros((2,))})
    on_host.forward(is_train=True)
    on_host.backward(nd.ones((2,), ctx=gpu))
    np.testing.assert_array_equal(on_host.grad_dict["a"].asnumpy(), [1, 1])
    for ctx, given, wrong in ((gpu, (a, nd.ones((2,))), "'b'"), (mx.cpu(), (a, nd.ones((2,))), "'a'")):
        with pytest.raises(mx.MXNetError, match=rf"bind: {wrong} is on .*as_in_context.*group2ctx"):
            product.bind(ctx, dict(zip("ab", given, strict=True)))
    with pytest.raises(mx.MXNetError, match="gradient of a"):
        product.bind(gpu, {"a": a, "b": b}, {"a": nd.zeros((2,))})


# --- parts of a graph on several devices --------------------------------------------------------------------


def layers() -> Any:
    """Two groups that call each other: a norm with states, a shared weight, a label that only the second has."""
    shared = mx.sym.Variable("shared", shape=(WIDE, WIDE))
    with mx.AttrScope(ctx_group="one"):
        x = mx.sym.Variable("data")
        y = mx.sym.FullyConnected(x, weight=shared, num_hidden=WIDE, no_bias=True, name="fc1")
        y = mx.sym.BatchNorm(y, fix_gamma=False, name="bn")
    with mx.AttrScope(ctx_group="two"):
        z = mx.sym.Activation(y, act_type="tanh", name="act")
        z = mx.sym.FullyConnected(z, weight=shared, num_hidden=WIDE, name="fc2")
    with mx.AttrScope(ctx_group="one"):
        w = mx.sym.broadcast_add(z + y, x, name="sum")
    with mx.AttrScope(ctx_group="two"):
        out = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(w, num_hidden=CLASSES, name="fc3"), name="softmax")
    return mx.sym.Group([out, mx.sym.BlockGrad(w, name="kept"), mx.sym.make_loss(mx.sym.sum(z), name="loss")])


@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_groups_on_several_devices(grad_req: str, gpus: list[Any]) -> None:
    """Values are copied forwards, gradients backwards; sharing and accumulation give what one device gives."""
    g, h = gpus
    found = []
    for one, two in ((mx.cpu(), mx.cpu()), (g, mx.cpu()), (mx.cpu(), g), (g, h)):
        executor = layers().simple_bind(
            mx.cpu(), grad_req=grad_req, group2ctx={"one": one, "two": two}, data=(10, WIDE)
        )
        assert executor.arg_dict["data"].context == one and executor.outputs[0].context == two
        fill(executor)
        for _ in range(2):
            executor.forward(is_train=True)
            executor.backward()
        found.append(seen(executor))
        assert executor.debug_str()
        smaller = executor.reshape(data=(4, WIDE), softmax_label=(4,)).forward()[0]
        assert smaller.shape == (4, CLASSES)
    for other in found[1:]:
        same(other, found[0])
    assert np.abs(found[0]["gradient of shared"]).max() > 0


def test_groups_are_watched(gpu: Any) -> None:
    """A monitor sees every value, wherever it is."""
    values, net = [], layers()
    for place in (mx.cpu(), gpu):
        executor = net.simple_bind(mx.cpu(), group2ctx={"one": place}, data=(10, WIDE))
        fill(executor)
        told: dict[str, np.ndarray] = {}
        executor.set_monitor_callback(lambda name, v, told=told: told.update({name.decode(): v.asnumpy()}))
        executor.forward(is_train=True)
        executor.backward()
        values.append({**told, **seen(executor)})
    assert {"fc1_output", "act_output", "sum_output"} <= values[0].keys()
    same(values[1], values[0])


def test_groups_of_a_module(gpu: Any) -> None:
    """A module trains over both devices and reads its parameters back."""

    def trained(groups: Any) -> np.ndarray:
        mx.random.seed(0)
        with mx.AttrScope(ctx_group="a"):
            lower = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="f1")
        with mx.AttrScope(ctx_group="b"):
            x = mx.sym.Activation(lower, act_type="tanh", name="t")
            net = mx.sym.SoftmaxOutput(
                mx.sym.FullyConnected(x, num_hidden=CLASSES, name="f2"), name="softmax"
            )
        module = mx.mod.Module(net, group2ctxs=groups)
        batches = mx.io.NDArrayIter(X, Y, 10)
        module.fit(batches, num_epoch=3, optimizer="adam", initializer=mx.init.Xavier())
        return module.predict(batches).asnumpy()

    wanted = trained({"a": mx.cpu(), "b": mx.cpu()})
    np.testing.assert_allclose(trained({"a": gpu, "b": mx.cpu()}), wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(trained({"a": mx.cpu(), "b": gpu}), wanted, rtol=1e-3, atol=1e-5)


# --- modules ------------------------------------------------------------------------------------------------


def fitted(ctx: Any, **options: Any) -> tuple[Any, Any]:
    """A module after three epochs, and its data."""
    mx.random.seed(0)
    module, batches = mx.mod.Module(network(), context=ctx), mx.io.NDArrayIter(X, Y, 10)
    options = {"optimizer_params": {"learning_rate": 0.1}, "initializer": mx.init.Xavier(), **options}
    module.fit(batches, num_epoch=3, **options)
    return module, batches


def test_a_module_fits_predicts_scores_and_is_saved(gpu: Any, tmp_path: Any) -> None:
    """The whole life of a module, going on from a checkpoint with its optimizer's states, on the other device too."""
    kept = []
    for ctx in (mx.cpu(), gpu):
        module, batches = fitted(ctx, optimizer="adam")
        before, scores = module.predict(batches), module.score(batches, ["acc", "ce"])
        module.save_checkpoint(str(tmp_path / "m"), 3, save_optimizer_states=True)
        for other in (gpu, mx.cpu()):
            loaded = mx.mod.Module.load(str(tmp_path / "m"), 3, load_optimizer_states=True, context=other)
            batches.reset()
            loaded.fit(batches, num_epoch=4, begin_epoch=3, optimizer="adam")
            after = loaded.predict(batches).asnumpy()
            kept.append((before.asnumpy(), after, dict(scores)["accuracy"], dict(scores)["cross-entropy"]))
    for found in kept[1:]:
        for a, b in zip(found, kept[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)
    assert np.abs(kept[0][1] - kept[0][0]).max() > 1e-3


@pytest.mark.parametrize("store", ["local", "device", None])
def test_a_module_splits_its_batches_over_devices(store: str | None, gpus: list[Any]) -> None:
    """Data parallel over two GPUs, and over a GPU and the CPU."""
    wanted = None
    for contexts in ([mx.cpu(0), mx.cpu(1)], gpus, [mx.cpu(), gpus[0]]):
        module, batches = fitted(contexts, kvstore=store)
        found = module.predict(batches).asnumpy()
        wanted = found if wanted is None else wanted
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_batches_come_from_anywhere(gpus: list[Any]) -> None:
    """Data on another device than the module's are moved, whole or in parts."""
    g, h = gpus
    for feeds, ctx in (
        ((g, mx.cpu()), mx.cpu()),
        ((mx.cpu(), h), g),
        ((g, mx.cpu()), [mx.cpu(), g]),
        ((h,), [g, h]),
    ):
        wanted, _ = fitted(ctx)
        for feed in feeds:
            mx.random.seed(0)
            module = mx.mod.Module(network(), context=ctx)
            batches = mx.io.NDArrayIter(nd.array(X, ctx=feed), nd.array(Y, ctx=feed), 10)
            options = {"optimizer_params": {"learning_rate": 0.1}, "initializer": mx.init.Xavier()}
            module.fit(batches, num_epoch=3, **options)
            for name, value in wanted.get_params()[0].items():
                np.testing.assert_allclose(
                    module.get_params()[0][name].asnumpy(), value.asnumpy(), rtol=1e-3, atol=1e-6
                )


def test_a_predictor_on_a_gpu(gpu: Any, tmp_path: Any) -> None:
    """The C API's little sister runs a saved module there."""
    module, batches = fitted(mx.cpu())
    module.save_checkpoint(str(tmp_path / "m"), 1)
    wanted = module.predict(mx.io.NDArrayIter(X[:10], None, 10)).asnumpy()
    symbol, params = (tmp_path / "m-symbol.json").read_text(), (tmp_path / "m-0001.params").read_bytes()
    predictor = mx.predictor.Predictor(symbol, params, {"data": (10, WIDE)}, ctx=gpu)
    predictor.forward(data=X[:10])
    np.testing.assert_allclose(predictor.get_output(0), wanted, rtol=1e-3, atol=1e-6)


def test_a_bucketing_module_on_a_gpu(gpu: Any) -> None:
    """Sentences of two lengths through an unrolled cell: buckets share parameters and memory."""

    def graph(length: int) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
        data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
        embedded = mx.sym.Embedding(data, input_dim=10, output_dim=5, name="embed")
        cell = mx.rnn.LSTMCell(6, prefix="l0_")
        outputs, _ = cell.unroll(length, inputs=embedded, merge_outputs=True)
        x = mx.sym.FullyConnected(mx.sym.Reshape(outputs, shape=(-1, 6)), num_hidden=10, name="pred")
        out = mx.sym.SoftmaxOutput(x, mx.sym.Reshape(label, shape=(-1,)), name="softmax")
        return out, ("data",), ("softmax_label",)

    sentences = [list(np.random.RandomState(i).randint(1, 10, 3 if i % 2 else 5)) for i in range(40)]
    perplexities = []
    for ctx in (mx.cpu(), gpu):
        np.random.seed(0)
        random.seed(0)
        mx.random.seed(0)
        batches = mx.rnn.BucketSentenceIter(sentences, 4, buckets=[3, 5], invalid_label=0)
        module = mx.mod.BucketingModule(graph, default_bucket_key=5, context=ctx)
        metric = mx.metric.Perplexity(0)
        module.fit(batches, eval_metric=metric, num_epoch=2, optimizer="adam", initializer=mx.init.Xavier())
        perplexities.append(metric.get()[1])
    np.testing.assert_allclose(perplexities[1], perplexities[0], rtol=1e-3)


def test_a_module_is_monitored_on_a_gpu(gpu: Any) -> None:
    """`Monitor` over a training step: names and norms of all values."""
    told: list[list[tuple[str, float]]] = []
    for ctx in (mx.cpu(), gpu):
        mx.random.seed(0)
        monitor = mx.mon.Monitor(1, stat_func=lambda x: nd.norm(x), sort=True, monitor_all=True)
        module, batches = mx.mod.Module(network(), context=ctx), mx.io.NDArrayIter(X, Y, 10)
        module.bind(batches.provide_data, batches.provide_label)
        module.init_params(mx.init.Xavier())
        module.init_optimizer()
        module.install_monitor(monitor)
        told.append([])
        for batch in batches:
            monitor.tic()
            module.forward_backward(batch)
            module.update()
            told[-1] += [(name, float(text.split()[0])) for _, name, text in monitor.toc()]
    assert [n for n, _ in told[1]] == [n for n, _ in told[0]] and len(told[0]) > 40
    np.testing.assert_allclose([v for _, v in told[1]], [v for _, v in told[0]], rtol=1e-3, atol=1e-5)


def test_other_modules_on_a_gpu(gpu: Any) -> None:
    """A sequence of modules, and `FeedForward`."""
    lower = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="a")
    upper = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=CLASSES, name="b")
    chain = mx.mod.SequentialModule()
    chain.add(mx.mod.Module(lower, label_names=None, context=gpu))
    chain.add(
        mx.mod.Module(mx.sym.SoftmaxOutput(upper, name="softmax"), context=gpu),
        take_labels=True,
        auto_wiring=True,
    )
    batches = mx.io.NDArrayIter(X, Y, 10)
    chain.fit(batches, num_epoch=8, optimizer_params={"learning_rate": 0.3}, initializer=mx.init.Xavier())
    assert chain.score(batches, "acc")[0][1] > 0.4
    model = mx.model.FeedForward(network(), ctx=gpu, num_epoch=8, learning_rate=0.3, numpy_batch_size=10)
    model.fit(X, Y)
    assert (model.predict(X).argmax(axis=1) == Y).mean() > 0.4


# --- stores and trainers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "device"])
def test_a_store_sums_over_gpus(kind: str, gpus: list[Any]) -> None:
    """init, push, pull and pushpull of lists over three contexts, with an optimizer, with a function."""
    contexts = [*gpus, mx.cpu()]
    store = mx.kv.create(kind)
    store.init([3, 5], [nd.ones((2, 3), ctx=gpus[0]), nd.zeros((4,))])
    store.push(3, [nd.full((2, 3), i + 1, ctx=c) for i, c in enumerate(contexts)])
    outs = [nd.zeros((2, 3), ctx=c) for c in contexts]
    store.pull(3, out=outs)
    for out, ctx in zip(outs, contexts, strict=True):
        assert out.context == ctx
        np.testing.assert_array_equal(out.asnumpy(), np.full((2, 3), 6))
    halves = [nd.full((4,), 0.5, ctx=c) for c in contexts]
    store.pushpull([3, 5], [outs, halves])
    assert outs[1].asnumpy()[0, 0] == 18 and halves[2].asnumpy()[0] == 1.5
    store.set_optimizer(mx.optimizer.create("sgd", learning_rate=0.1, momentum=0.9))
    store.push(5, [nd.ones((4,), ctx=c) for c in gpus])
    store.pull(5, out=halves)
    np.testing.assert_allclose([h.asnumpy()[0] for h in halves], 1.3, rtol=1e-6)

    def half(key: int, pushed: Any, stored: Any) -> None:
        stored += pushed * 0.5

    store._set_updater(half)
    store.pushpull(5, [nd.full((4,), 2, ctx=c) for c in gpus], out=halves[0])
    np.testing.assert_allclose(halves[0].asnumpy(), 3.3, rtol=1e-6)


@pytest.mark.parametrize("inside", [True, False], ids=["on the store", "on each context"])
@pytest.mark.parametrize("store", ["device", "local"])
def test_a_trainer_over_two_gpus(store: str, inside: bool, gpus: list[Any], tmp_path: Any) -> None:
    """Split batches give the curve of one device; states are saved and read."""
    options = ("adam", {"learning_rate": 0.02})
    wanted, _ = curve(CASES["transformer"], mx.cpu(), False, *options)
    for hybridize in (False, True):
        losses, net = curve(
            CASES["transformer"], gpus, hybridize, *options, kvstore=store, update_on_kvstore=inside
        )
        agree(losses, wanted)
    first, second = (net.head.weight.data(g).asnumpy() for g in gpus)
    np.testing.assert_allclose(first, second, rtol=1e-6)
    trainer = gluon.Trainer(net.collect_params(), *options, kvstore=store, update_on_kvstore=inside)
    trainer.save_states(str(tmp_path / "states"))
    trainer.load_states(str(tmp_path / "states"))


def test_gradients_are_summed_and_clipped_between(gpus: list[Any]) -> None:
    """`allreduce_grads`, then `clip_global_norm` per context, then `update`."""

    def weights(contexts: list[Any], clip: Callable[..., Any]) -> np.ndarray:
        net = gluon.nn.Dense(3, in_units=WIDE)
        net.initialize(mx.init.One(), ctx=contexts)
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1}, update_on_kvstore=False)
        parts = gluon.utils.split_and_load(X[:8], contexts)
        with mx.autograd.record():
            losses = [net(x).square().sum() for x in parts]
        mx.autograd.backward(losses)
        trainer.allreduce_grads()
        for ctx in contexts:
            norm = clip([p.grad(ctx) for p in net.collect_params().values()], 0.5)
            assert norm > 0.5
        trainer.update(1)
        return np.stack([net.weight.data(c).asnumpy() for c in contexts])

    wanted = weights([mx.cpu(0), mx.cpu(1)], gluon.utils.clip_global_norm)
    found = weights(gpus, gluon.utils.clip_global_norm)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert np.abs(wanted - 1).max() > 0.01
