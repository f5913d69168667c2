"""Optimizers: updates against NumPy formulas and MXNet 1.9.1, multipliers, counts, and saved states."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

import mxrs as mx

RULES = [
    ("sgd", "momentum=0.9"), ("nag", "momentum=0.9"), ("adam", ""), ("adagrad", ""), ("adadelta", ""),
    ("rmsprop", ""), ("rmsprop", "centered=True"), ("ftrl", ""), ("ftml", ""), ("adamax", ""), ("nadam", ""),
    ("signum", "wd_lh=0.1"), ("dcasgd", ""), ("lars", "momentum=0.9"), ("lamb", ""),
    ("lbsgd", "batch_scale=2, momentum=0.9"), ("test", ""),
]  # fmt: skip


def steps(name: str, count: int = 3, w=(1.0, -2.0), g=(0.5, -0.1), dtype="float32", **kwargs) -> np.ndarray:
    updater = mx.optimizer.get_updater(mx.optimizer.create(name, **kwargs))
    weight = mx.nd.array(w, dtype=dtype)
    for _ in range(count):
        updater(0, mx.nd.array(g, dtype=dtype), weight)
    return weight.asnumpy()


def test_sgd_momentum_follows_its_formula() -> None:
    w, g, m = np.array([1.0, -2.0]), np.array([0.5, -0.1]), np.zeros(2)
    for _ in range(3):
        m = 0.9 * m - 0.1 * (np.clip(0.5 * g, -0.2, 0.2) + 0.01 * w)
        w = w + m
    ours = steps("sgd", momentum=0.9, learning_rate=0.1, wd=0.01, rescale_grad=0.5, clip_gradient=0.2)
    np.testing.assert_allclose(ours, w, rtol=1e-6)


def test_adam_follows_its_formula() -> None:
    w, g, m, v = np.array([1.0, -2.0]), np.array([0.5, -0.1]), np.zeros(2), np.zeros(2)
    for t in range(1, 4):
        grad = g + 0.01 * w
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        w = w - 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(steps("adam", learning_rate=0.1, wd=0.01), w, rtol=1e-5)


def test_adamw_decays_apart_from_the_gradient() -> None:
    w, g, m, v = np.array([1.0, -2.0]), np.array([0.5, -0.1]), np.zeros(2), np.zeros(2)
    for t in range(1, 4):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        c = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - 0.1 * (c * m / (np.sqrt(v) + 1e-6) + 0.01 * w)
    np.testing.assert_allclose(steps("adamw", learning_rate=0.1, wd=0.01), w, rtol=1e-5)


@pytest.mark.parametrize("common", ["wd=0.1", "wd=0.1, clip_gradient=0.3, rescale_grad=0.5"])
@pytest.mark.parametrize(("name", "arguments"), RULES)
def test_same_as_mxnet(oracle, name: str, arguments: str, common: str) -> None:
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=(3, 2)).astype("f"), rng.normal(size=(4, 3, 2)).astype("f")
    kwargs = ", ".join(part for part in (arguments, common) if part)
    code = (
        f"u = mx.optimizer.get_updater(mx.optimizer.create({name!r}, {kwargs}))\n"
        "a = nd.array(w)\nfor i in range(4):\n    u(0, nd.array(g[i]), a)\nout_w = a.asnumpy()"
    )
    wanted = oracle.run(code, w=w, g=g)["out_w"]
    updater = mx.optimizer.get_updater(eval(f"mx.optimizer.create({name!r}, {kwargs})"))
    ours = mx.nd.array(w)
    for step in g:
        updater(0, mx.nd.array(step), ours)
    np.testing.assert_allclose(ours.asnumpy(), wanted, rtol=1e-5, atol=1e-6)


def test_multi_precision_accumulates_small_steps() -> None:
    assert steps("sgd", 20, [1.0], [1.0], "float16", learning_rate=1e-4, multi_precision=True)[0] < 1


def test_multipliers_and_decay_by_name() -> None:
    names = {0: "a_weight", 1: "b_bias", 2: "c_gamma", 3: "d"}
    optimizer = mx.optimizer.SGD(learning_rate=1, wd=0.5, param_idx2name=names)
    assert optimizer._get_wds([0, 1, 2, 3, 4]) == [0.5, 0, 0.5, 0, 0.5]
    optimizer.set_lr_mult({0: 2.0, "b_bias": 3.0})
    assert optimizer._get_lrs([0, 1, 2]) == [2, 3, 1]


def test_num_update_is_the_largest_count() -> None:
    updater = mx.optimizer.get_updater(mx.optimizer.SGD())
    w = mx.nd.ones((1,))
    for index in (0, 0, 0, 1):
        updater(index, w, w.copy())
    assert updater.optimizer.num_update == 3
    assert updater.optimizer._index_update_count == {0: 3, 1: 1}


@pytest.mark.parametrize("dump", [False, True])
def test_states_go_on_where_they_were_saved(dump: bool) -> None:
    schedule = mx.lr_scheduler.FactorScheduler(2, 0.5)
    first = mx.optimizer.get_updater(mx.optimizer.Adam(learning_rate=0.1, lr_scheduler=schedule))
    w, g = mx.nd.array([1.0, 2.0]), mx.nd.array([0.3, 0.2])
    for _ in range(3):
        first(0, g, w)
    second = mx.optimizer.get_updater(mx.optimizer.Adam())
    second.set_states(first.get_states(dump))
    np.testing.assert_array_equal(second.states[0][1].asnumpy(), first.states[0][1].asnumpy())
    if dump:
        copy = w.copy()
        first(0, g, w)
        second(0, g, copy)
        np.testing.assert_array_equal(w.asnumpy(), copy.asnumpy())


def test_states_written_by_mxnet_are_read(oracle) -> None:
    code = (
        "u = mx.optimizer.get_updater(mx.optimizer.create('sgd', momentum=0.9, learning_rate=0.1))\n"
        "u(0, nd.array([1.0, 2.0]), nd.array([1.0, 2.0]))\n"
        "out_states = np.frombuffer(u.get_states(True), dtype='uint8')"
    )
    updater = mx.optimizer.get_updater(mx.optimizer.SGD())
    updater.set_states(oracle.run(code)["out_states"].tobytes())
    assert type(updater.optimizer) is mx.optimizer.SGD and updater.optimizer.num_update == 1
    np.testing.assert_allclose(updater.states[0].asnumpy(), [-0.1, -0.2], rtol=1e-6)


class Evil:
    def __reduce__(self):
        return os.getenv, ("HOME",)


def test_states_that_name_a_foreign_function_are_refused() -> None:
    updater = mx.optimizer.get_updater(mx.optimizer.SGD())
    with pytest.raises(pickle.UnpicklingError, match="getenv is not allowed"):
        updater.set_states(pickle.dumps({0: Evil()}))
    for damaged in (b"", b"abc", pickle.dumps({0: 1})[:-3]):
        with pytest.raises(pickle.UnpicklingError):
            updater.set_states(damaged)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Cannot find optimizer addam; did you mean 'adam'"):
        mx.optimizer.create("addam")
    with pytest.raises(TypeError):
        mx.optimizer.create("sgd", foo=1)
    with pytest.raises(UserWarning):
        mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.FactorScheduler(1)).set_learning_rate(1)
