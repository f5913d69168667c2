"""The optimizer updates: three steps against MXNet, in-place semantics, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx

# Operator, states (dtype None: the weight's), attributes of several runs.
CLIPPED = {"wd": 0.1, "rescale_grad": 0.5, "clip_gradient": 0.3}
RULES: list[tuple[str, int, list[dict[str, Any]]]] = [
    ("sgd_update", 0, [{"lr": 0.1}, {"lr": 0.1, **CLIPPED}, {"lr": 0.1, "clip_gradient": 0.0}]),
    ("sgd_mom_update", 1, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, **CLIPPED}]),
    ("nag_mom_update", 1, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, **CLIPPED}]),
    ("adam_update", 2, [{"lr": 0.1}, {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, **CLIPPED}]),
    ("rmsprop_update", 1, [{"lr": 0.1}, {"lr": 0.1, "gamma1": 0.8, "clip_weights": 0.4, **CLIPPED}]),
    ("rmspropalex_update", 3, [{"lr": 0.1}, {"lr": 0.1, "gamma1": 0.8, "gamma2": 0.5, **CLIPPED}]),
    ("ftrl_update", 2, [{"lr": 0.1}, {"lr": 0.1, "lamda1": 0.2, "beta": 0.5, **CLIPPED}]),
    (
        "ftml_update",
        3,
        [
            {"lr": 0.1, "t": 1},
            {"lr": 0.1, "t": 3, "beta1": 0.5, "wd": 0.1, "rescale_grad": 0.5, "clip_grad": 0.3},
        ],
    ),
    ("signsgd_update", 0, [{"lr": 0.1}, {"lr": 0.1, **CLIPPED}]),
    ("signum_update", 1, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "wd_lh": 0.2, **CLIPPED}]),
    (
        "lamb_update_phase1",
        2,
        [{"t": 1, "wd": 0.1}, {"t": 3, "bias_correction": False, **CLIPPED}, {"t": 2, **CLIPPED}],
    ),
]
MASTERED: list[tuple[str, int, list[dict[str, Any]]]] = [
    ("mp_sgd_update", 0, [{"lr": 0.1}, {"lr": 0.1, **CLIPPED}]),
    ("mp_sgd_mom_update", 1, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, **CLIPPED}]),
    ("mp_nag_mom_update", 1, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, **CLIPPED}]),
    ("mp_lamb_update_phase1", 2, [{"t": 1, "wd": 0.1}, {"t": 2, **CLIPPED}]),
]
CASES = [(op, k, attrs) for op, k, runs in RULES for attrs in runs]
MASTERED_CASES = [(op, k, attrs) for op, k, runs in MASTERED for attrs in runs]
SHAPES = [(1,), (3, 5), (2, 3, 87)]
# MXNet rounds after every float16 operation, this library at the end; MXNet's attributes are float32 numbers.
TOLERANCE = {"float16": 3e-2, "float32": 1e-5, "float64": 1e-6}


def _arrays(shape: tuple[int, ...], dtype: str, states: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {f"g{i}": rng.standard_normal(shape).astype(dtype) for i in range(3)}
    arrays["w"] = rng.standard_normal(shape).astype(dtype)
    # As after some steps: a mean square (first, where there are three) is larger than a squared mean.
    for i in range(states):
        arrays[f"s{i}"] = (0.5 + rng.random(shape) + 3.0 * (states == 3 and i == 0)).astype(dtype)
    return arrays


def _steps(op: str, states: int, attrs: dict[str, Any], tail: str = "", in_place: bool = True) -> str:
    names = "".join(f", s{i}" for i in range(states))
    out = ", out=w" if in_place else ""
    lines = [f"out_{i} = mx.nd.{op}(w, g{i}{names}{tail}{out}, **{attrs!r}).copy()" for i in range(3)]
    return "\n".join([*lines, "out_w = w", *(f"out_s{i} = s{i}" for i in range(states))])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("op", "states", "attrs"), CASES)
def test_three_steps(oracle: Any, op: str, states: int, attrs: dict[str, Any], dtype: str) -> None:
    code = _steps(op, states, attrs, in_place="phase1" not in op)
    for shape in SHAPES:
        arrays = _arrays(shape, dtype, states)
        oracle.check(code, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], **arrays)
    oracle.compared.add(op)


# MXNet's mp_lamb_update_phase1 refuses float32 weights.
MASTERED_DTYPES = [
    (*case, dtype)
    for case in MASTERED_CASES
    for dtype in ("float16", "float32")
    if (case[0], dtype) != ("mp_lamb_update_phase1", "float32")
]


@pytest.mark.parametrize(("op", "states", "attrs", "dtype"), MASTERED_DTYPES)
def test_three_steps_of_a_master_copy(
    oracle: Any, op: str, states: int, attrs: dict[str, Any], dtype: str
) -> None:
    code = _steps(op, states, attrs, tail=", master", in_place="phase1" not in op) + "\nout_master = master"
    for shape in SHAPES:
        arrays = _arrays(shape, dtype, 0)
        arrays |= {k: v for k, v in _arrays(shape, "float32", states).items() if k[0] == "s"}
        arrays["master"] = arrays["w"].astype("float32")
        ours = oracle.check(code, rtol=1e-3, atol=1e-3, only=["out_0", "out_1", "out_2"], **arrays)
        assert str(ours["out_master"].dtype) == "float32"
        oracle.check(
            code,
            rtol=1e-5,
            atol=1e-6,
            only=["out_master", *(f"out_s{i}" for i in range(states))],
            **arrays,
        )
    oracle.compared.add(op)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "attrs", [{"lr": 0.1, "eta": 1.0}, {"lr": 0.1, "eta": 0.5, "wd": 0.1, "clip_gradient": 0.2}]
)
def test_adamw(oracle: Any, attrs: dict[str, Any], scale: float) -> None:
    arrays = _arrays((3, 5), "float32", 2) | {"r": np.array([scale], "float32")}
    call = "out_{0} = {1}(w, g{0}, s0, s1, {2}r, out=w, **attrs).copy()"
    for mp, dtype in ((False, "float32"), (True, "float16")):
        tail = "master, " if mp else ""
        name = "_mp_adamw_update" if mp else "_adamw_update"
        given = {k: v.astype(dtype) if k[0] in "wg" or not mp else v for k, v in arrays.items()}
        given["master"] = given["w"].astype("float32")
        head = f"attrs = {attrs!r}\nf = mx.nd._internal.{name}\n"
        code = head + "\n".join(call.format(i, "f", tail) for i in range(3)) + "\nout_s0, out_s1 = s0, s1"
        tolerance = 1e-3 if mp else 1e-5
        oracle.check(code, rtol=tolerance, atol=tolerance, **given)
        oracle.compared.add(name)


@pytest.mark.parametrize("bounds", [{}, {"lower_bound": 3.0}, {"upper_bound": 0.5}])
@pytest.mark.parametrize("norms", [(2.0, 3.0), (0.0, 3.0), (2.0, 0.0)])
def test_lamb_step(oracle: Any, norms: tuple[float, float], bounds: dict[str, float]) -> None:
    rng = np.random.default_rng(1)
    w, g = rng.standard_normal((2, 3, 5)).astype("float32")
    r1, r2 = (np.array([n], "float32") for n in norms)
    code = f"out_w = mx.nd.lamb_update_phase2(w, g, r1, r2, lr=0.1, out=w, **{bounds!r})"
    oracle.check(code, w=w, g=g, r1=r1, r2=r2, rtol=1e-6)
    code = f"out_w = mx.nd.mp_lamb_update_phase2(w, g, r1, r2, m, lr=0.1, out=w, **{bounds!r})\nout_m = m"
    half = w.astype("float16")
    ours = oracle.check(code, w=half, g=g, r1=r1, r2=r2, m=w, rtol=1e-3, atol=1e-3, only=["out_w"])
    # MXNet 1.9.1 leaves the master copy as it was, so that training would never leave the first step.
    assert ours["out_m"].dtype == np.float32
    np.testing.assert_array_equal(ours["out_m"].astype("float16"), ours["out_w"])
    oracle.compared.update({"lamb_update_phase2", "mp_lamb_update_phase2"})


def _many(name: str, states: list[str], tail: str, attrs: str) -> str:
    """Three steps of two weights; a step's gradients are those of the step before, shrunk."""
    arrays = ", ".join(f"w{k}, g{k}" + "".join(f", {s}{k}" for s in states) for k in (0, 1))
    line = f"mx.nd.{name}({arrays}{tail}, out=[w0, w1], {attrs})\ng0 *= 0.5\ng1 *= 0.5\n"
    outs = "\n".join(f"out_{n} = {n}" for k in (0, 1) for n in ["w" + str(k), *(s + str(k) for s in states)])
    return line * 3 + outs


COMMON = "rescale_grad=0.5, clip_gradient=0.3, num_weights=2"
LISTS = "lrs=(0.1, 0.2), wds=(0.0, 0.1), "
MANY = [
    ("multi_sgd_update", [], "", LISTS + COMMON),
    ("multi_sgd_mom_update", ["s"], "", LISTS + "momentum=0.9, " + COMMON),
    ("multi_mp_sgd_update", ["m"], "", LISTS + COMMON),
    ("multi_mp_sgd_mom_update", ["s", "m"], "", LISTS + "momentum=0.9, " + COMMON),
    ("preloaded_multi_sgd_update", [], ", lr, wd", COMMON),
    ("preloaded_multi_sgd_mom_update", ["s"], ", lr, wd", "momentum=0.9, " + COMMON),
    ("preloaded_multi_mp_sgd_update", ["m"], ", lr, wd", COMMON),
    ("preloaded_multi_mp_sgd_mom_update", ["s", "m"], ", lr, wd", "momentum=0.9, " + COMMON),
    ("_internal._multi_adamw_update", ["s", "t"], ", r", LISTS + "etas=(1.0, 0.5), num_weights=2"),
    ("_internal._multi_mp_adamw_update", ["s", "t", "m"], ", r", LISTS + "etas=(1.0, 0.5), num_weights=2"),
    (
        "_internal._multi_lamb_update",
        ["s", "t"],
        "",
        "learning_rates=(0.1, 0.2), wds=(0.0, 0.1), step_count=(1, 2), num_tensors=2, upper_bound=2.0",
    ),
    (
        "_internal._multi_mp_lamb_update",
        ["s", "t", "m"],
        "",
        "learning_rates=(0.1, 0.2), wds=(0.0, 0.1), step_count=(1, 2), num_tensors=2, bias_correction=False",
    ),
]


@pytest.mark.parametrize(("name", "states", "tail", "attrs"), MANY)
def test_many_weights(oracle: Any, name: str, states: list[str], tail: str, attrs: str) -> None:
    mastered = "m" in states
    arrays: dict[str, np.ndarray] = {}
    for k, shape in enumerate([(2, 3), (300,)]):
        given = _arrays(shape, "float16" if mastered else "float32", 0, seed=k)
        arrays |= {f"w{k}": given["w"], f"g{k}": given["g0"], f"m{k}": given["w"].astype("float32")}
        arrays |= {f"{s}{k}": v for s, v in zip("st", _arrays(shape, "float32", 2, seed=k).values())}
        arrays[f"t{k}"] = np.abs(arrays[f"t{k}"])
    arrays |= {"lr": np.array([0.1, 0.2], "float32"), "wd": np.array([0.0, 0.1], "float32")}
    arrays["r"] = np.array([0.5], "float32")
    tolerance = 2e-3 if mastered else 1e-5
    oracle.check(_many(name, states, tail, attrs), rtol=tolerance, atol=tolerance, **arrays)
    oracle.compared.add(name.removeprefix("_internal."))


def test_lars_rates(oracle: Any) -> None:
    code = "out = mx.nd.multi_lars(lr, w, g, wd, eta=0.1, eps=1e-3, rescale_grad=0.5)\nout_lr = out"
    lr, w = np.array([1.0, 2.0, 3.0], "float32"), np.array([0.0, 4.0, 9.0], "float32")
    oracle.check(code, lr=lr, w=w, g=w[::-1].copy(), wd=lr * 0.1)
    oracle.compared.add("multi_lars")


def test_reset_arrays() -> None:
    arrays = [mx.nd.ones((2, 3)), mx.nd.ones((4,), dtype="int32"), mx.nd.ones((700, 300), dtype="float16")]
    mx.nd.reset_arrays(*arrays, num_arrays=3)
    for a in arrays:
        assert not a.asnumpy().any()


def test_group_adagrad() -> None:
    w, g, h = (
        np.array([[1.0, -2.0], [3.0, 4.0]]),
        np.array([[0.5, 3.0], [0.1, 0.2]]),
        np.array([[0.1], [0.2]]),
    )
    a = [mx.nd.array(v, dtype="float64") for v in (w, g, h)]
    new = mx.nd.contrib.group_adagrad_update(*a, lr=0.1, epsilon=1e-3, rescale_grad=2.0, clip_gradient=1.0)
    clipped = np.clip(2 * g, -1, 1)
    sums = h + (clipped**2).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(a[2].asnumpy(), sums, rtol=1e-12)
    np.testing.assert_allclose(new.asnumpy(), w - 0.1 * clipped / np.sqrt(sums + 1e-3), rtol=1e-12)


def test_many_weights_refuses_wrong_counts() -> None:
    w, g = mx.nd.ones((2,)), mx.nd.ones((2,))
    with pytest.raises(mx.MXNetError, match="2 weights need 4 arrays; 2 were given"):
        mx.nd.multi_sgd_update(w, g, lrs=(0.1, 0.1), wds=(0, 0), num_weights=2)
    with pytest.raises(mx.MXNetError, match="lrs has 2 entries for 1 weights"):
        mx.nd.multi_sgd_update(w, g, lrs=(0.1, 0.1), wds=(0,), num_weights=1)


def test_weight_stays_without_out() -> None:
    w, g, m = (mx.nd.array(v) for v in ([1.0, 2.0], [1.0, -1.0], [0.5, 0.5]))
    new = mx.nd.sgd_mom_update(w, g, m, lr=0.1, momentum=0.5)
    np.testing.assert_array_equal(w.asnumpy(), [1.0, 2.0])
    np.testing.assert_allclose(m.asnumpy(), [0.15, 0.35], rtol=1e-6)
    np.testing.assert_allclose(new.asnumpy(), [1.15, 2.35], rtol=1e-6)


def test_weight_changes_in_place() -> None:
    w = mx.nd.ones((1000, 100))
    same = mx.nd.sgd_update(w, mx.nd.ones((1000, 100)), lr=0.25, out=w)
    assert same is w
    np.testing.assert_array_equal(w.asnumpy(), np.full((1000, 100), 0.75, "float32"))


def test_adagrad_of_dense_arrays() -> None:
    w, g, h = np.array([1.0, -2.0]), np.array([0.5, 3.0]), np.array([0.1, 0.2])
    a = [mx.nd.array(v, dtype="float64") for v in (w, g, h)]
    new = mx.nd.sparse.adagrad_update(*a, lr=0.1, wd=0.2, epsilon=1e-3, clip_gradient=1.0)
    clipped = np.clip(g, -1, 1)
    np.testing.assert_allclose(a[2].asnumpy(), h + clipped**2, rtol=1e-12)
    expected = w - 0.1 * (clipped / np.sqrt(h + clipped**2 + 1e-3) + 0.2 * w)
    np.testing.assert_allclose(new.asnumpy(), expected, rtol=1e-12)


A = mx.nd.array


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: mx.nd.sgd_update(w, A([1.0]), lr=0.1), ["sgd_update", "grad", "shape"]),
        (lambda w: mx.nd.sgd_update(w, w.astype("float64"), lr=0.1), ["grad", "float64", "float32"]),
        (lambda w: mx.nd.sgd_update(w, w), ["lr", "required"]),
        (lambda w: mx.nd.sgd_update(w.astype("int32"), w.astype("int32"), lr=0.1), ["int32", "allowed"]),
        (lambda w: mx.nd.sgd_mom_update(w, w, w, lr=0.1), ["shares memory"]),
        (lambda w: mx.nd.adam_update(w, w, *(2 * [w * 0]), lr=0.1), ["shares memory"]),
        (
            lambda w: mx.nd.mp_sgd_update(w.astype("float64"), w.astype("float64"), w, lr=0.1),
            ["float64", "float16 and float32"],
        ),
        (lambda w: mx.nd.ftml_update(w, w, w * 0, w * 0, w * 0, lr=0.1, t=0), ["t = 0", "not valid"]),
        (lambda w: mx.nd.lamb_update_phase2(w, w * 1, w * 1, w * 1, lr=0.1), ["r1", "one number"]),
    ],
)
def test_refusals(call: Any, words: list[str]) -> None:
    with pytest.raises(mx.MXNetError) as caught:
        call(mx.nd.array([1.0, 2.0])).asnumpy()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("op", ["sgd_update", "sgd_mom_update", "adam_update"])
def test_empty_arrays(op: str) -> None:
    states = {"sgd_update": 0, "sgd_mom_update": 1, "adam_update": 2}[op]
    arrays = [mx.nd.zeros((0, 3)) for _ in range(2 + states)]
    assert getattr(mx.nd, op)(*arrays, lr=0.1).shape == (0, 3)
