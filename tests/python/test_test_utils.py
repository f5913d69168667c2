"""mx.test_utils: comparisons that can fail, random inputs, checks of symbols, data from files."""

import bz2
import functools
import gzip
import http.server
import os
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd
from mxrs import test_utils as tu

# --- tolerances and comparisons ---


def test_tolerances_follow_the_coarser_dtype():
    half, double = np.ones(2, "float16"), np.ones(2)
    assert tu.get_tols(half, double, None, None) == (1e-2, 1e-1)
    assert tu.get_tols(nd.ones((2,)), 1.0, None, None) == (1e-4, 1e-3)
    assert tu.get_tols(half, double, 1e-3, None) == (1e-3, 1e-1)
    assert tu.get_tols(half, half, {np.dtype("float16"): 0.5}, 0.0) == (0.5, 0.0)
    assert (tu.get_rtol(), tu.get_atol(), tu.get_etol(), tu.get_rtol(3)) == (1e-5, 1e-20, 0, 3)
    assert tu.effective_dtype(nd.ones((1,), dtype="int8")) == np.int8
    assert tu.default_numeric_eps()[np.dtype("float32")] == 2**-9


def test_same_and_almost_equal():
    assert tu.same(nd.ones((2,)), np.ones(2)) and not tu.same(np.ones(2), np.ones(3))
    assert not tu.same(np.array([np.nan]), np.array([np.nan]))
    assert tu.almost_equal(nd.ones((2,)), nd.ones((2,)) + 1e-5)
    assert not tu.almost_equal(np.ones(2), np.ones(2) + 1e-4)
    assert tu.almost_equal(np.ones(2), np.ones(2) * 1.1, rtol=0.2)
    assert tu.almost_equal(np.ones(2), np.ones((3, 2)))
    with pytest.raises(AssertionError, match=r"\(2,\) and b.shape = \(3, 2\)"):
        tu.almost_equal(np.ones(2), np.ones((3, 2)), use_broadcast=False)
    nan = np.array([np.nan])
    assert not tu.almost_equal(nan, nan) and tu.almost_equal(nan, nan, equal_nan=True)


def test_assert_almost_equal_shows_the_worst_elements_first():
    a = np.ones((2, 3))
    b = a + np.arange(6).reshape(2, 3) * 1e-3
    tu.assert_almost_equal(a, b, rtol=1e-2)
    with pytest.raises(AssertionError) as caught:
        tu.assert_almost_equal(nd.array(a, dtype="float64"), b, names=("got", "want"), mismatches=(2, 2))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("got and want differ: 5 of 6 elements (83.33 %) exceed tolerance rtol=1e-05")
    assert lines[1].startswith("  at (1, 2): got=1.0, want=1.005, 497.5")
    assert lines[2].startswith("  at (1, 1)") and not lines[3].startswith("  at")


@pytest.mark.parametrize(
    ("a", "b", "fits"),
    [
        ([np.inf, 1], [np.inf, 1], True),
        ([np.inf, 1], [-np.inf, 1], False),
        ([np.nan, 1], [0, 1], False),
        ([1, 2], [1, 3], False),
        (1.0, 1.0, True),
    ],
)
def test_special_values(a, b, fits):
    if fits:
        tu.assert_almost_equal(np.array(a), np.array(b))
        return
    with pytest.raises(AssertionError, match="1 of 2 elements"):
        tu.assert_almost_equal(np.array(a), np.array(b))


def test_other_comparisons():
    four, five = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 5])
    tu.assert_almost_equal_with_err(four, five, etol=0.3)
    with pytest.raises(AssertionError):
        tu.assert_almost_equal_with_err(four, five, etol=0.1)
    tu.assert_almost_equal_ignore_nan(np.array([1.0, np.nan]), np.array([1.0, 3.0]))
    with pytest.raises(AssertionError):
        tu.assert_almost_equal_ignore_nan(np.array([1.0, np.nan]), np.array([2.0, 3.0]))
    tu.assert_allclose(nd.ones((1,)), nd.ones((1,)))
    tu.assert_exception(lambda x: 1 / x, ZeroDivisionError, 0)
    with pytest.raises(AssertionError, match="did not raise ZeroDivisionError"):
        tu.assert_exception(lambda x: 1 / x, ZeroDivisionError, 1)
    x = nd.ones((2,))
    assert tu.same_array(x, x[:]) and not tu.same_array(x, x.copy()) and not tu.same_array(x, x + 1)
    assert x.asnumpy().tolist() == [1, 1]
    tu.compare_ndarray_tuple((x, None, [x]), (x, None, [x]))
    for other in ((x, x), (x,), (x + 1, None)):
        with pytest.raises(AssertionError):
            tu.compare_ndarray_tuple((x, None), other)


def test_optimizers_are_told_apart():
    sgd = functools.partial(mx.optimizer.SGD, learning_rate=0.1, momentum=0.9)
    tu.compare_optimizer(sgd(), sgd(), [(2, 3), (4,)], "float32")
    with pytest.raises(AssertionError):
        tu.compare_optimizer(sgd(), mx.optimizer.SGD(learning_rate=1.0, momentum=0.9), (2, 3), "float32")


def test_reductions():
    x = np.arange(24.0).reshape(2, 3, 4)
    for axis, keepdims in ((1, True), (None, False), ((0, 2), True), (-1, False), ((0, -1), False)):
        np.testing.assert_array_equal(
            tu.np_reduce(x, axis, keepdims, np.sum), x.sum(axis=axis, keepdims=keepdims)
        )
    np.testing.assert_array_equal(tu.collapse_sum_like(x, (3, 1)), x.sum(axis=(0, 2)).reshape(3, 1))
    np.testing.assert_array_equal(tu.collapse_sum_like(x, (2, 3, 4)), x)


# --- inputs ---


def test_random_shapes_and_arrays():
    np.random.seed(0)
    for _ in range(50):
        shape = tu.rand_shape_nd(4, 3)
        assert len(shape) == 4 and all(1 <= n <= 3 for n in shape)
        assert 2 <= tu.rand_coord_2d(2, 4, 7, 8)[0] < 4
    assert 0 in {n for _ in range(99) for n in tu.rand_shape_2d(2, 2, allow_zero_size=True)}
    a, b = tu.random_arrays((2, 3), (4,))
    assert a.shape == (2, 3) and b.dtype == np.float32 and tu.random_arrays((2,)).shape == (2,)
    (u,) = tu.random_uniform_arrays((1000,), low=-2, high=3, dtype="float64")
    assert u.dtype == np.float64 and -2 <= u.min() < -1.5 and 2.5 < u.max() < 3
    with pytest.raises(TypeError, match="'lo'"):
        tu.random_uniform_arrays((2,), lo=1)
    x = tu.rand_ndarray((2000,), dtype="float64", ctx=mx.cpu(1))
    assert x.context == mx.cpu(1) and x.dtype == np.float64
    assert abs(x.asnumpy().mean()) < 0.15 and abs(x.asnumpy().std() - 1) < 0.1
    np.random.seed(3)
    first = tu.rand_ndarray((3,)).asnumpy()
    np.random.seed(3)
    np.testing.assert_array_equal(tu.rand_ndarray((3,)).asnumpy(), first)
    assert sorted(set(tu.random_sample([5, 6, 7], 3))) == [5, 6, 7]


def test_sparse_inputs_say_that_they_are_not_built():
    with pytest.raises(NotImplementedError, match="sparse"):
        tu.rand_ndarray((2, 3), "csr", density=0.5)
    with pytest.raises(AssertionError, match="unknown storage type 'zz'"):
        tu.rand_ndarray((2, 3), "zz")


def test_known_matrices():
    assert tu.create_2d_tensor(2, 3).asnumpy().tolist() == [[0, 0, 0], [1, 1, 1]]
    assert tu.create_vector(3).dtype == np.int64
    assert tu.get_identity_mat_batch(2).asnumpy().tolist() == [[[1, 0], [0, 1]]] * 2
    q = tu.new_orthonormal_matrix_2d(4)
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-12)
    s = tu.new_sym_matrix_with_real_eigvals_nd((2, 3, 4, 4))
    assert s.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(s, np.swapaxes(s, -1, -2), atol=1e-12)
    eigenvalues = np.linalg.eigvals(tu.new_matrix_with_real_eigvals_nd((5, 4, 4)))
    assert np.abs(np.imag(eigenvalues)).max() < 1e-5
    assert tu.assign_each(np.array([1.0, 2]), lambda x: x + 1).tolist() == [2, 3]
    assert tu.assign_each2(np.array([1.0, 2]), np.array([3.0, 4]), lambda x, y: x * y).tolist() == [3, 8]


def test_contexts():
    assert tu.default_context() == mx.cpu() and list(tu.list_gpus()) == list(range(mx.num_gpus()))
    try:
        tu.set_default_context(mx.cpu(1))
        assert tu.default_context() == nd.ones((1,)).context == mx.cpu(1)
    finally:
        tu.set_default_context(mx.cpu(0))


def test_environment_and_retry(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.delenv("ABSENT", raising=False)
    with tu.environment({"KEPT": None, "ABSENT": "2"}):
        assert "KEPT" not in os.environ and os.environ["ABSENT"] == "2"
    assert os.environ["KEPT"] == "1" and "ABSENT" not in os.environ
    with pytest.raises(AssertionError, match="a dict, or a name"), tu.environment("KEPT"):
        pass
    runs = []

    @tu.retry(3)
    def flaky():
        runs.append(1)
        assert len(runs) == 3
        return 5

    assert flaky() == 5

    @tu.retry(2)
    def broken():
        runs.append(1)
        raise AssertionError("never")

    with pytest.raises(AssertionError, match="never"):
        broken()
    assert len(runs) == 5


def test_discard_stderr():
    # In a process of its own: pytest has replaced this one's standard error.
    program = """
import os, sys
from mxrs import test_utils
with test_utils.discard_stderr():
    os.write(2, b"below Python")
    print("from Python", file=sys.stderr)
print("kept", file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == "kept\n"


# --- distributions ---


def test_moments_of_generators():
    rng = np.random.RandomState(0)
    assert tu.mean_check(lambda n: rng.randn(n) * 2 + 1, 1, 2, 10000)
    assert not tu.mean_check(lambda n: rng.randn(n) * 2 + 1.2, 1, 2, 10000)
    assert tu.var_check(lambda n: nd.array(rng.randn(n) * 2), 2, 10000)
    assert not tu.var_check(lambda n: rng.randn(n) * 2.2, 2, 10000)
    buckets, probs = tu.gen_buckets_probs_with_ppf(lambda p: p * 4, 4)
    assert buckets == [(0, 1), (1, 2), (2, 3), (3, 4)] and probs == [0.25] * 4


def test_chi_square():
    pytest.importorskip("scipy", reason="p-values need SciPy")
    rng = np.random.RandomState(0)
    buckets = [(0.0, 0.5), (0.5, 1.0)]
    p, observed, expected = tu.chi_square_check(lambda n: rng.rand(n), buckets, [0.5, 0.5], 1000)
    assert p > 0.001 and observed.sum() == 1000 and expected.tolist() == [500, 500]
    tu.verify_generator(lambda n: rng.randint(0, 2, n), [0, 1], [0.5, 0.5], 1000)
    with pytest.raises(AssertionError, match="does not follow"):
        tu.verify_generator(lambda n: rng.rand(n) ** 2, buckets, [0.5, 0.5], 1000)


# --- symbols ---


def test_simple_forward():
    a = mx.sym.Variable("a")
    np.testing.assert_array_equal(tu.simple_forward(a * 2, a=np.ones(2)), [2, 2])
    both = tu.simple_forward(mx.sym.Group([a * 2, a + 1]), a=np.ones(2))
    assert [x.tolist() for x in both] == [[2, 2], [2, 2]]


def test_symbolic_forward_and_backward():
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    (out,) = tu.check_symbolic_forward(a * 2, [np.ones(2)], [np.ones(2) * 2])
    assert out.asnumpy().tolist() == [2, 2]
    with pytest.raises(AssertionError, match="EXPECTED_.*_output and FORWARD_"):
        tu.check_symbolic_forward(a * 2, [np.ones(2)], [np.ones(2) * 3])
    three = np.full(2, 3.0)
    for request, expected in (("write", 6), ("add", 6), ("null", 0)):
        tu.check_symbolic_backward(a * a, [three], [np.ones(2)], [np.full(2, expected)], grad_req=request)
    with pytest.raises(AssertionError, match="BACKWARD_a"):
        tu.check_symbolic_backward(a * a, [three], [np.ones(2)], [np.full(2, 5)])
    grads = tu.check_symbolic_backward(a * b, {"a": three, "b": three}, [np.ones(2)], {"a": three})
    assert grads["b"].asnumpy().tolist() == [3, 3]
    with pytest.raises(ValueError, match="location: the symbol has"):
        tu.check_symbolic_forward(a * b, {"a": three, "c": three}, [three])


def test_numeric_gradient():
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    np.random.seed(0)
    x, y = np.random.rand(2, 3), np.random.rand(2, 3)
    tu.check_numeric_gradient(mx.sym.sin(a) * b, [x, y])
    tu.check_numeric_gradient(mx.sym.sin(a) * b, {"a": x, "b": y}, grad_nodes=["a"], dtype=np.float64)
    tu.check_numeric_gradient(a * b, [x, y], grad_nodes={"a": "add", "b": "null"})
    with pytest.raises(AssertionError, match="NUMERICAL_a and BACKWARD_a"):
        tu.check_numeric_gradient(mx.sym.BlockGrad(a) * a, [x])
    with pytest.raises(AssertionError, match="dtype must be float16"):
        tu.check_numeric_gradient(a * b, [x, y], dtype=np.int32)
    executor = (a * a).bind(mx.cpu(), {"a": nd.array([2.0])}, args_grad={"a": nd.zeros((1,))})
    grads = tu.numeric_grad(executor, {"a": np.array([2.0])}, eps=1e-2)
    np.testing.assert_allclose(grads["a"], [4.0], rtol=1e-3)


def test_a_batch_norm_starts_each_step_from_the_same_statistics():
    net = mx.sym.BatchNorm(mx.sym.Variable("data"), fix_gamma=False, name="bn")
    np.random.seed(1)
    arrays = [np.random.randn(4, 2), np.random.rand(2) + 0.5, np.random.randn(2)]
    aux = [np.zeros(2), np.ones(2)]
    tu.check_numeric_gradient(net, arrays, aux, rtol=5e-2, atol=5e-2, numeric_eps=1e-2)


def test_consistency_over_dtypes():
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    entries = [
        {"ctx": mx.cpu(i), "data": (2, 3), "type_dict": {"data": dtype}}
        for i, dtype in enumerate((np.float32, np.float64))
    ]
    truth = tu.check_consistency(net, entries)
    assert set(truth) == {"fc_output", "data", "fc_weight", "fc_bias"}
    other = mx.sym.FullyConnected(mx.sym.Variable("data") * 1.01, num_hidden=2, name="fc")
    with pytest.raises(AssertionError, match="differ"):
        tu.check_consistency([net, other], entries)


def test_structure_and_speed():
    a, b, c = (mx.sym.Variable(n) for n in "abc")
    assert tu.same_symbol_structure(a + b, a + c) and not tu.same_symbol_structure(a + b, a * b)
    assert tu.check_speed(a * 2, a=(2, 3), N=2) > 0 and tu.check_speed(a * 2, {"a": np.ones(2)}, N=2) > 0
    with pytest.raises(ValueError, match="'half'"):
        tu.check_speed(a * 2, a=(2,), typ="half")


def test_hybridized_and_eager_blocks():
    from mxrs.gluon import nn

    tu.check_gluon_hybridize_consistency(lambda: nn.Dense(3, activation="tanh"), [nd.ones((2, 4))])
    with pytest.raises(AssertionError, match="differ"):
        tu.check_gluon_hybridize_consistency(
            lambda: nn.Activation("relu"), [nd.ones((2,))], numpy_func=lambda x: x + 1
        )


# --- files ---


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Four files in MNIST's format under a home folder, and a working folder beside it."""
    rng = np.random.RandomState(0)
    folder = tmp_path / "home" / "datasets" / "mnist"
    folder.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    made = {}
    for part, count in (("train", 7), ("t10k", 3)):
        images = rng.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = rng.randint(0, 10, count).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *array.shape], dtype=">u4").tobytes()
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
        made[part] = images, labels
    return made


def test_get_mnist(digits):
    mnist = tu.get_mnist()
    for part, source in (("train", "train"), ("test", "t10k")):
        images, labels = digits[source]
        data = mnist[f"{part}_data"]
        assert data.shape == (len(images), 1, 28, 28) and data.dtype == np.float32
        np.testing.assert_allclose(data[:, 0], images / 255.0, rtol=1e-6)
        np.testing.assert_array_equal(mnist[f"{part}_label"], labels)


def test_get_mnist_ubyte(digits):
    tu.get_mnist_ubyte()
    images, labels = digits["t10k"]
    with open("data/t10k-images-idx3-ubyte", "rb") as file:
        content = file.read()
    assert content[:16] == np.array([0x803, 3, 28, 28], dtype=">u4").tobytes()
    assert content[16:] == images.tobytes()
    with open("data/t10k-labels-idx1-ubyte", "rb") as file:
        assert file.read()[8:] == labels.tobytes()


def test_get_mnist_iterator(digits):
    train, val = tu.get_mnist_iterator(batch_size=3, input_shape=(1, 28, 28))
    assert next(iter(train)).data[0].shape == next(iter(val)).data[0].shape == (3, 1, 28, 28)
    flat, _ = tu.get_mnist_iterator(batch_size=1, input_shape=(784,), num_parts=2, part_index=1)
    assert next(iter(flat)).data[0].shape == (1, 784)


@pytest.fixture
def server(tmp_path):
    """A web server for the folder it gives beside its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_download(server, tmp_path, monkeypatch):
    url, folder = server
    monkeypatch.chdir(tmp_path)
    (folder / "a.txt").write_text("one")
    assert tu.download(f"{url}/a.txt") == "a.txt"
    path = tu.download(f"{url}/a.txt", fname="b.txt", dirname="new/folder")
    assert path == os.path.join("new/folder", "b.txt")
    (folder / "a.txt").write_text("two")
    tu.download(f"{url}/a.txt")
    assert (tmp_path / "a.txt").read_text() == "one"
    tu.download(f"{url}/a.txt", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "two"
    with pytest.raises(AssertionError, match="ends in no file name"):
        tu.download(f"{url}/")
    with pytest.raises(ConnectionError, match="absent"):
        tu.download(f"{url}/absent", retries=1)


def test_archives(server, tmp_path):
    url, folder = server
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("sub/in.txt", "content")
    (folder / "y.bz2").write_bytes(bz2.compress(b"packed"))
    target = tmp_path / "data"
    tu.get_zip_data(str(target), f"{url}/x.zip", "x.zip")
    assert (target / "sub" / "in.txt").read_text() == "content"
    tu.get_bz2_data(str(target), "y", f"{url}/y.bz2", "y.bz2")
    assert (target / "y").read_bytes() == b"packed"


def test_a_dummy_iterator_repeats_its_first_batch():
    class Counting:
        batch_size, provide_data, provide_label = 2, ["d"], ["l"]

        def __iter__(self):
            return iter(range(5))

    dummy = tu.DummyIter(Counting())
    assert [next(dummy), dummy.next(), next(iter(dummy))] == [0, 0, 0] and dummy.batch_size == 2


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="im2rec.py"):
        tu.get_im2rec_path()
    with pytest.raises(NotImplementedError, match="imagenet1k-resnet"):
        tu.download_model("imagenet1k-resnet-18")
    with pytest.raises(NotImplementedError, match="get_mnist_pkl"):
        tu.get_mnist_pkl()
