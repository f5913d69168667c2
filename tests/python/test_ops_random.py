"""Random operators: moments, shapes, types, the stream's determinism, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxrs as mx

# Operator, attributes, mean, variance.
LAWS: list[tuple[str, dict[str, float], float, float]] = [
    ("uniform", {"low": -1.0, "high": 3.0}, 1.0, 16 / 12),
    ("normal", {"loc": 2.0, "scale": 3.0}, 2.0, 9.0),
    ("gamma", {"alpha": 0.5, "beta": 2.0}, 1.0, 2.0),
    ("gamma", {"alpha": 9.0, "beta": 0.5}, 4.5, 2.25),
    ("exponential", {"lam": 4.0}, 0.25, 1 / 16),
    ("poisson", {"lam": 3.0}, 3.0, 3.0),
    ("poisson", {"lam": 50.0}, 50.0, 50.0),
    ("negative_binomial", {"k": 3, "p": 0.4}, 4.5, 11.25),
    ("generalized_negative_binomial", {"mu": 2.0, "alpha": 0.3}, 2.0, 3.2),
    ("generalized_negative_binomial", {"mu": 2.0, "alpha": 0.0}, 2.0, 2.0),
]
# The names of the array form's inputs, where they are others.
INPUTS = {"loc": "mu", "scale": "sigma"}
N = 200_000


def _op(name: str) -> Any:
    return getattr(mx.nd._internal, name)


def _agrees(x: np.ndarray, mean: float, variance: float) -> None:
    """Mean within five standard errors; variance within what its sampling error can be for these laws."""
    x = x.astype("float64")
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / x.size), (x.mean(), mean)
    np.testing.assert_allclose(x.var(), variance, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("law", "attrs", "mean", "variance"), LAWS)
def test_moments(law: str, attrs: dict[str, float], mean: float, variance: float, dtype: str) -> None:
    mx.random.seed(7)
    x = _op(f"_random_{law}")(shape=(N // 4, 4), dtype=dtype, **attrs)
    assert x.shape == (N // 4, 4) and x.dtype == np.dtype(dtype)
    _agrees(x.asnumpy(), mean, variance)


@pytest.mark.parametrize(("law", "attrs", "mean", "variance"), LAWS)
def test_like(law: str, attrs: dict[str, float], mean: float, variance: float) -> None:
    mx.random.seed(8)
    data = mx.nd.zeros((2, N // 2), dtype="float64")
    x = mx._core.ops[f"_random_{law}_like"](data, **attrs)
    assert x.shape == data.shape and x.dtype == data.dtype
    _agrees(x.asnumpy(), mean, variance)


@pytest.mark.parametrize(("law", "attrs", "mean", "variance"), LAWS)
def test_samples_per_element(law: str, attrs: dict[str, float], mean: float, variance: float) -> None:
    mx.random.seed(9)
    arrays = {INPUTS.get(k, k): mx.nd.array([v, v, v]) for k, v in attrs.items()}
    x = _op(f"_sample_{law}")(shape=(N // 2, 2), **arrays)
    assert x.shape == (3, N // 2, 2) and x.dtype == np.float32
    rows = x.asnumpy()
    for row in rows:
        _agrees(row, mean, variance)
    assert (rows[0] != rows[1]).any()
    assert _op(f"_sample_{law}")(**arrays, dtype="float64").dtype == np.float64


def test_samples_follow_their_own_parameters() -> None:
    low, high = mx.nd.array([[0, 10], [20, 30]]), mx.nd.array([[1, 11], [21, 31]])
    x = mx.nd.random.uniform(low, high, shape=(5,)).asnumpy()
    assert x.shape == (2, 2, 5)
    assert ((x >= low.asnumpy()[..., None]) & (x <= high.asnumpy()[..., None])).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bounds_and_types(dtype: str) -> None:
    x = mx.nd.random.uniform(2, 5, shape=(5000,), dtype=dtype)
    assert x.dtype == np.dtype(dtype)
    assert (x.asnumpy() >= 2).all() and (x.asnumpy() <= 5).all()


def test_normal_has_normal_quantiles() -> None:
    mx.random.seed(3)
    x = np.sort(mx.nd.random.normal(shape=(N,)).asnumpy())
    for quantile, value in [
        (0.5, 0.0),
        (0.8413447, 1.0),
        (0.1586553, -1.0),
        (0.9772499, 2.0),
        (0.9986501, 3.0),
    ]:
        assert abs(x[int(quantile * N)] - value) < 0.05


@pytest.mark.parametrize(
    "draw",
    [
        lambda: mx.nd.random.uniform(shape=(100,)),
        lambda: mx.nd.random.normal(shape=(100,), dtype="float64"),
        lambda: mx.nd.random.gamma(2, 3, shape=(100,)),
        lambda: mx.nd.random.randint(0, 1000, shape=(100,)),
        lambda: mx.nd.random.multinomial(mx.nd.array([0.2, 0.8]), shape=(100,)),
        lambda: mx.nd.random.shuffle(mx.nd.array(np.arange(100))),
    ],
)
def test_seed_repeats_and_calls_differ(draw: Any) -> None:
    mx.random.seed(42)
    first, second = draw().asnumpy(), draw().asnumpy()
    mx.random.seed(42)
    np.testing.assert_array_equal(draw().asnumpy(), first)
    assert (first != second).any()
    mx.random.seed(43)
    assert (draw().asnumpy() != first).any()


def test_large_and_small_calls_agree_on_the_stream() -> None:
    mx.random.seed(5)
    a = mx.nd.random.uniform(shape=(1000,)).asnumpy()
    mx.random.seed(5)
    b = mx.nd.random.uniform(shape=(100_000,)).asnumpy()
    np.testing.assert_array_equal(a[:960], b[:960])


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(-3, 4, "int32"), (0, 2, "int64"), (2**40, 2**40 + 3, "int64")]
)
def test_randint(low: int, high: int, dtype: str) -> None:
    mx.random.seed(1)
    x = mx.nd.random.randint(low, high, shape=(N,), dtype=dtype)
    assert x.dtype == np.dtype(dtype)
    values, counts = np.unique(x.asnumpy(), return_counts=True)
    assert values.tolist() == list(range(low, high))
    assert (abs(counts - N / (high - low)) < 5 * np.sqrt(N / (high - low))).all()


def test_multinomial_frequencies() -> None:
    mx.random.seed(2)
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5]], "float32")
    x, log = mx.nd.random.multinomial(mx.nd.array(p), shape=(N,), get_prob=True)
    assert x.shape == log.shape == (2, N) and x.dtype == np.int32 and log.dtype == np.float32
    for row in range(2):
        share = np.bincount(x.asnumpy()[row], minlength=3) / N
        np.testing.assert_allclose(share, p[row], atol=5 * 0.5 / np.sqrt(N))
        np.testing.assert_allclose(log.asnumpy()[row], np.log(p[row])[x.asnumpy()[row]], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "draws"),
    [((3,), ()), ((3,), (4,)), ((2, 3), ()), ((2, 3), (4,)), ((2, 2, 3), (4, 5)), ((2, 3), (0,))],
)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float16", "float32", "float64"])
def test_multinomial_shapes(oracle: Any, shape: tuple[int, ...], draws: tuple[int, ...], dtype: str) -> None:
    p = np.full(shape, 1 / 3, "float32")
    code = f"out_a, out_b = mx.nd.sample_multinomial(p, get_prob=True, shape={draws}, dtype={dtype!r})"
    theirs = oracle.run(code, p=p)
    a, b = mx.nd.sample_multinomial(mx.nd.array(p), get_prob=True, shape=draws, dtype=dtype)
    for ours, name in ((a, "out_a"), (b, "out_b")):
        assert (ours.shape, np.dtype(ours.dtype)) == (theirs[name].shape, theirs[name].dtype)
    np.testing.assert_allclose(b.asnumpy(), theirs["out_b"], rtol=1e-6)
    oracle.compared.add("_sample_multinomial")


def test_multinomial_gradient() -> None:
    p = mx.nd.array([[0.25, 0.75], [0.5, 0.5]])
    p.attach_grad()
    heads = mx.nd.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    with mx.autograd.record():
        drawn, log = mx.nd.sample_multinomial(p, shape=(3,), get_prob=True)
    log.backward(heads)
    expected = np.zeros((2, 2))
    for row in range(2):
        for class_, head in zip(drawn.asnumpy()[row], heads.asnumpy()[row]):
            expected[row, class_] += head / p.asnumpy()[row, class_]
    np.testing.assert_allclose(p.grad.asnumpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(7,), (50, 2), (5, 2, 3), (1, 4), (0, 2)])
def test_shuffle_permutes_rows(shape: tuple[int, ...], dtype: str) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    y = mx.nd.random.shuffle(mx.nd.array(x, dtype=dtype)).asnumpy()
    assert y.dtype == x.dtype and y.shape == x.shape
    if len(x):
        order = [x.reshape(len(x), -1)[:, 0].tolist().index(v) for v in y.reshape(len(y), -1)[:, 0].tolist()]
        assert sorted(order) == list(range(len(x)))
        np.testing.assert_array_equal(y, x[order])


def test_shuffle_is_uniform() -> None:
    mx.random.seed(4)
    x = mx.nd.array(np.arange(4))
    firsts = [int(mx.nd.random.shuffle(x).asnumpy()[0]) for _ in range(2000)]
    assert (abs(np.bincount(firsts) - 500) < 5 * np.sqrt(375)).all()


def test_unique_zipfian() -> None:
    mx.random.seed(6)
    x, tries = mx.nd._internal._sample_unique_zipfian(range_max=50, shape=(400, 10))
    assert x.dtype == tries.dtype == np.int64 and tries.shape == (400,)
    x = x.asnumpy()
    assert ((x >= 0) & (x < 50)).all() and (tries.asnumpy() >= 10).all()
    assert all(len(set(row)) == 10 for row in x.tolist())
    # The first of a row follows the law itself: P(0) = ln 2 / ln 51.
    share = (x[:, 0] == 0).mean()
    p = np.log(2) / np.log(51)
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 400)
    full, _ = mx.nd._internal._sample_unique_zipfian(range_max=10, shape=(2, 10))
    assert np.sort(full.asnumpy(), axis=1).tolist() == [list(range(10))] * 2


@pytest.mark.parametrize(
    ("name", "attrs", "words"),
    [
        ("_random_uniform", {"low": 2, "high": 1, "shape": 3}, "low <= high"),
        ("_random_uniform", {"low": float("nan"), "shape": 3}, "low <= high"),
        ("_random_uniform", {}, "shape is required"),
        ("_random_uniform", {"shape": ()}, "shape is required"),
        ("_random_uniform", {"shape": (-1,)}, "shape"),
        ("_random_uniform", {"shape": (2**40, 2**40)}, "more elements"),
        ("_random_uniform", {"shape": 3, "dtype": "int32"}, "allowed are float32, float64, float16"),
        ("_random_normal", {"scale": -1, "shape": 3}, "scale > 0"),
        ("_random_normal", {"scale": 0, "shape": 3}, "scale > 0"),
        ("_random_gamma", {"alpha": -1, "shape": 3}, "alpha > 0"),
        ("_random_gamma", {"beta": 0, "shape": 3}, "beta > 0"),
        ("_random_exponential", {"lam": 0, "shape": 3}, "lam > 0"),
        ("_random_poisson", {"lam": -1, "shape": 3}, "lam >= 0"),
        ("_random_negative_binomial", {"k": -1, "p": 0.5, "shape": 3}, "k >= 0"),
        ("_random_negative_binomial", {"k": 1, "p": 1.5, "shape": 3}, "p <= 1"),
        ("_random_generalized_negative_binomial", {"mu": -1, "shape": 3}, "mu >= 0"),
        ("_random_randint", {"low": 2, "high": 1, "shape": 3}, "low < high"),
        ("_random_randint", {"low": 1, "high": 1, "shape": 3}, "low < high"),
        ("_random_randint", {"low": 0, "high": 2**40, "shape": 3}, "leaves int32"),
        (
            "_random_randint",
            {"low": 0, "high": 9, "shape": 3, "dtype": "float32"},
            "allowed are int32, int64",
        ),
        ("_sample_unique_zipfian", {"range_max": 3, "shape": (2, 4)}, "do not exist"),
        ("_sample_unique_zipfian", {"range_max": 3, "shape": 2}, "is expected"),
    ],
)
def test_refusals(name: str, attrs: dict[str, Any], words: str) -> None:
    with pytest.raises((mx.MXNetError, MemoryError)) as caught:
        _op(name)(**attrs).asnumpy()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mx.nd.sample_uniform(mx.nd.ones((2,)), mx.nd.ones((3,))), "must be equal"),
        (lambda: mx.nd.sample_multinomial(mx.nd.array([-1.0, 2.0])), "negative"),
        (lambda: mx.nd.sample_multinomial(mx.nd.array([float("nan"), 2.0])), "not finite"),
        (lambda: mx.nd.sample_multinomial(mx.nd.ones((2,), dtype="int32")), "float32, float64 and float16"),
        (lambda: mx.nd.sample_multinomial(mx.nd.ones((2, 300)), dtype="uint8"), "1 to 256 are allowed"),
        (lambda: mx.nd.sample_multinomial(mx.nd.zeros((2, 0))), "0 classes"),
        (lambda: mx._core.ops["_random_normal_like"](mx.nd.ones((2,), dtype="int32")), "int32"),
    ],
)
def test_array_refusals(call: Any, words: str) -> None:
    with pytest.raises(mx.MXNetError) as caught:
        call().asnumpy()
    assert words in str(caught.value)


def test_empty_results() -> None:
    assert mx.nd.random.uniform(shape=(0, 3)).shape == (0, 3)
    assert mx.nd.sample_normal(mx.nd.ones((2,)), mx.nd.ones((2,)), shape=(0,)).shape == (2, 0)
    assert mx.nd.sample_multinomial(mx.nd.zeros((0, 3)), shape=(2,)).shape == (0, 2)
