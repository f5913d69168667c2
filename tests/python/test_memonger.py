"""Plans within a memory budget: the budget is kept, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import mxrs as mx
from mxrs import memonger

BATCH = 64


def mlp():
    """Dense layers with dropout."""
    x = mx.sym.Variable("data")
    for i in range(8):
        x = mx.sym.Activation(
            mx.sym.FullyConnected(x, num_hidden=64, name=f"fc{i}"), act_type="tanh", name=f"act{i}"
        )
        if i % 3 == 1:
            x = mx.sym.Dropout(x, p=0.4, name=f"drop{i}")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name="out"), name="softmax"), (
        BATCH,
        32,
    )


def residual():
    """Residual units with BatchNorm."""

    def unit(x, name):
        y = x
        for i in range(2):
            y = mx.sym.Convolution(
                y, kernel=(3, 3), pad=(1, 1), num_filter=8, no_bias=True, name=f"{name}c{i}"
            )
            y = mx.sym.BatchNorm(y, fix_gamma=False, name=f"{name}n{i}")
            if i == 0:
                y = mx.sym.Activation(y, act_type="relu", name=f"{name}r{i}")
        return mx.sym.Activation(x + y, act_type="relu", name=f"{name}o")

    x = mx.sym.Convolution(mx.sym.Variable("data"), kernel=(3, 3), pad=(1, 1), num_filter=8, name="first")
    for i in range(6):
        x = unit(x, f"u{i}")
        if i == 2:
            x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool")
    x = mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=10, name="out")
    return mx.sym.SoftmaxOutput(x, name="softmax"), (8, 3, 16, 16)


def cells():
    """An LSTM of cells over twelve steps."""
    cell = mx.rnn.LSTMCell(32, prefix="lstm_")
    steps = mx.sym.SliceChannel(
        mx.sym.Variable("data"), num_outputs=12, axis=1, squeeze_axis=True, name="steps"
    )
    outputs, _ = cell.unroll(12, [steps[i] for i in range(12)], layout="NTC", merge_outputs=False)
    return mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(outputs[-1], num_hidden=10, name="out"), name="softmax"
    ), (
        BATCH,
        12,
        16,
    )


NETWORKS = {"mlp": mlp, "residual": residual, "cells": cells}


def bound(symbol, shape, **more):
    executor = symbol.simple_bind(mx.cpu(), data=shape, **more)
    for i, (name, array) in enumerate(executor.arg_dict.items()):
        wave = np.sin(np.arange(array.size) * 0.7 + i).reshape(array.shape)
        array[:] = np.arange(shape[0]) % 10 if name == "softmax_label" else wave * 0.5
    for name, array in executor.aux_dict.items():
        array[:] = 1.0 if "var" in name else 0.0
    return executor


def trained(executor, steps=3):
    """What three steps of training leave behind: outputs, gradients, statistics, weights."""
    mx.random.seed(11)
    for _ in range(steps):
        executor.forward(is_train=True)
        executor.backward()
        for name, array in executor.arg_dict.items():
            if name not in ("data", "softmax_label") and not name.startswith("lstm_begin"):
                array[:] -= 0.01 * executor.grad_dict[name]
    arrays = [*executor.outputs, *executor.grad_arrays, *executor.aux_arrays, *executor.arg_arrays]
    return [a.asnumpy() for a in arrays]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("budget", ["90%", "75%", "smallest"])
def test_a_budget_changes_memory_and_nothing_else(network, budget):
    symbol, shape = NETWORKS[network]()
    plain = bound(symbol, shape)
    wanted, needed = trained(plain), plain._working_memory()
    tight = bound(symbol, shape, memory_budget=_bytes(budget, needed))
    assert_same(trained(tight), wanted)
    assert tight._working_memory() < needed
    if budget != "smallest":
        assert tight._working_memory() <= _bytes(budget, needed)
    assert "(again)" in tight.debug_str() and "(again)" not in plain.debug_str()


def _bytes(budget, needed):
    # A share of little memory is not asked for; bytes are meant as they stand.
    return int(needed * float(budget[:-1]) / 100) if budget.endswith("%") else budget


@pytest.mark.parametrize("network", NETWORKS)
def test_the_plan_is_written_into_the_symbol(network, tmp_path):
    symbol, shape = NETWORKS[network]()
    needed = memonger.get_cost(symbol, data=shape)
    planned = memonger.search_plan(symbol, data=shape)
    assert memonger.get_cost(planned, data=shape) < needed
    marks = {n: a["force_mirroring"] for n, a in planned.attr_dict().items() if "force_mirroring" in a}
    assert marks and set(marks.values()) == {"True"}
    assert (
        planned.list_arguments() == symbol.list_arguments()
        and planned.list_outputs() == symbol.list_outputs()
    )
    planned.save(str(tmp_path / "planned.json"))
    loaded = mx.sym.load(str(tmp_path / "planned.json"))
    executor = bound(loaded, shape)
    assert executor._working_memory() == round(memonger.get_cost(planned, data=shape) * (1 << 20))
    assert_same(trained(executor), trained(bound(symbol, shape)))


def test_plans_are_the_same_every_time():
    symbol, shape = residual()
    plans = {memonger.search_plan(symbol, budget="70%", data=shape).tojson() for _ in range(3)}
    assert len(plans) == 1


def test_a_budget_that_is_kept_anyway_costs_nothing():
    symbol, shape = residual()
    needed = round(memonger.get_cost(symbol, data=shape) * (1 << 20))
    assert memonger.search_plan(symbol, budget=needed, data=shape).tojson() == symbol.tojson()


def test_a_budget_too_small_is_refused_with_numbers():
    symbol, shape = residual()
    smallest = memonger.search_plan(symbol, data=shape)
    least = round(memonger.get_cost(smallest, data=shape) * (1 << 20))
    needed = round(memonger.get_cost(symbol, data=shape) * (1 << 20))
    with pytest.raises(ValueError, match=rf"memory budget: 1000 bytes.*{least}.*{needed}"):
        symbol.simple_bind(mx.cpu(), data=shape, memory_budget=1000)
    executor = symbol.simple_bind(mx.cpu(), data=shape, memory_budget=least)
    assert executor._working_memory() == least


@pytest.mark.parametrize("budget", ["much", "-5", "101%", "%", ""])
def test_words_that_are_no_budget(budget):
    symbol, shape = mlp()
    with pytest.raises(ValueError, match="memory_budget.*60%"):
        symbol.simple_bind(mx.cpu(), data=shape, memory_budget=budget)
    with pytest.raises(ValueError, match="memory_budget.*60%"):
        mx.gluon.nn.Dense(3).hybridize(memory_budget=budget)


def test_types_that_are_no_budget():
    symbol, shape = mlp()
    with pytest.raises(TypeError, match="memory_budget.*float"):
        symbol.simple_bind(mx.cpu(), data=shape, memory_budget=0.6)
    with pytest.raises(ValueError, match="ntrial"):
        memonger.search_plan(symbol, ntrial=0, data=shape)
    with pytest.raises(ValueError, match="data"):
        memonger.search_plan(symbol)


def test_what_is_forbidden_is_kept():
    x = mx.sym.Variable("data")
    for i in range(8):
        with mx.AttrScope(force_mirroring="False" if i % 2 else "True"):
            x = mx.sym.tanh(mx.sym.FullyConnected(x, num_hidden=64, name=f"f{i}"), name=f"t{i}")
    planned = memonger.search_plan(mx.sym.make_loss(mx.sym.sum(x)), data=(BATCH, 64))
    marks = {n: a["force_mirroring"] for n, a in planned.attr_dict().items() if "force_mirroring" in a}
    assert all(marks[f"{kind}{i}"] == ("False" if i % 2 else "True") for i in range(8) for kind in "ft")


def test_the_environment_gives_a_budget(monkeypatch):
    symbol, shape = residual()
    needed = bound(symbol, shape)._working_memory()
    monkeypatch.setenv("MXRS_MEMORY_BUDGET", str(int(needed * 0.8)))
    assert bound(symbol, shape)._working_memory() <= needed * 0.8
    inference = symbol.simple_bind(mx.cpu(), data=shape, grad_req="null")
    assert inference.forward()[0].shape == (8, 10)
    monkeypatch.setenv("MXRS_MEMORY_BUDGET", "a lot")
    with pytest.raises(ValueError, match="MXRS_MEMORY_BUDGET.*a lot"):
        bound(symbol, shape)


def network():
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    for _ in range(6):
        net.add(
            nn.Conv2D(16, 3, padding=1, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Dropout(0.2),
        )
    net.add(nn.GlobalAvgPool2D(), nn.Dense(4))
    return net


def gluon_steps(**flags):
    mx.random.seed(5)
    net = network()
    net.initialize(mx.init.Xavier())
    net.hybridize(**flags)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    data = mx.nd.array(np.sin(np.arange(16 * 3 * 16 * 16)).reshape(16, 3, 16, 16))
    label = mx.nd.array(np.arange(16) % 4)
    losses = []
    for _ in range(4):
        with mx.autograd.record():
            loss = loss_of(net(data), label)
        loss.backward()
        trainer.step(16)
        losses.append(loss.asnumpy())
    values = [p.data().asnumpy() for p in net.collect_params().values()]
    return [*losses, *values, net(data).asnumpy()]


def test_hybridized_blocks_take_a_budget():
    wanted = gluon_steps()
    for budget in ("60%", "smallest"):
        assert_same(gluon_steps(memory_budget=budget), wanted)
    with pytest.raises(ValueError, match="memory budget: 5 bytes.*smallest plan"):
        gluon_steps(memory_budget=5)


def test_training_steps_that_run_ahead_share_memory():
    """The next step is issued while the last one runs: it waits for its memory instead of taking more."""
    data = mx.nd.ones((16, 16, 32, 32))
    net = network()
    net.initialize()
    net.hybridize()
    peaks = []
    for steps in (1, 6):
        mx.nd.waitall()
        for _ in range(steps):
            with mx.autograd.record():
                loss = net(data).sum()
            loss.backward()
        mx.nd.waitall()
        del loss
        peaks.append(mx.context.cpu_memory_info()["peak"])
    assert peaks[1] - peaks[0] < 1 << 20
