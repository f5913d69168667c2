"""x[key] and x[key] = value, compared with NumPy over random keys, and MXNet's own rules."""

from __future__ import annotations

import random

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, nd

SHAPES = [(5,), (4, 3), (2, 3, 4), (3, 1, 2), (2, 3, 2, 3)]


def numbered(shape, dtype="float32"):
    """An array whose elements are all different, as NumPy's and as ours."""
    values = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    return values, nd.array(values, dtype=dtype)


def random_slice(rng: random.Random, extent: int) -> slice:
    def bound():
        return rng.choice([None, rng.randint(-extent - 2, extent + 2)])

    return slice(bound(), bound(), rng.choice([None, None, 1, 1, 2, -1, -2, 3]))


def random_basic(rng: random.Random, shape: tuple[int, ...]) -> tuple:
    key: list = []
    for extent in shape[: rng.randint(0, len(shape))]:
        key.append(rng.randrange(-extent, extent) if rng.random() < 0.35 else random_slice(rng, extent))
    if rng.random() < 0.4:
        key.insert(rng.randint(0, len(key)), None)
    if rng.random() < 0.3:
        key = [*key, Ellipsis]
    return tuple(key)


def random_advanced(rng: random.Random, shape: tuple[int, ...]) -> tuple:
    key: list = []
    together = rng.choice([(2,), (3,), (2, 2), (1,)])
    axes = rng.randint(1, len(shape))
    forced = rng.randrange(axes)
    for axis in range(axes):
        extent = shape[axis]
        kind = "array" if axis == forced else rng.choice(["array", "slice", "slice", "int"])
        if kind == "array":
            own = rng.choice([together, together, (1,), together[-1:]])
            array = np.array([rng.randrange(-extent, extent) for _ in range(int(np.prod(own)))]).reshape(own)
            key.append(rng.choice([array, array.tolist(), array.astype("int32")]))
        elif kind == "slice":
            key.append(random_slice(rng, extent))
        else:
            key.append(rng.randrange(-extent, extent))
    if rng.random() < 0.25:
        key.insert(rng.randint(0, len(key)), None)
    return tuple(key)


def agree(ours, theirs):
    """NumPy's result, except that one without dimensions has shape (1,) here."""
    theirs = np.asarray(theirs)
    assert ours.shape == (theirs.shape or (1,))
    np.testing.assert_array_equal(ours.asnumpy().ravel(), theirs.ravel())


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("make_key", [random_basic, random_advanced])
def test_get_agrees_with_numpy(seed, make_key):
    rng = random.Random(f"{make_key.__name__}{seed}")
    for _ in range(10):
        shape = rng.choice(SHAPES)
        values, x = numbered(shape, rng.choice(["float32", "int64", "float16"]))
        key = make_key(rng, shape)
        agree(x[key], values[key])


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("make_key", [random_basic, random_advanced])
def test_set_agrees_with_numpy(seed, make_key):
    rng = random.Random(f"set{make_key.__name__}{seed}")
    for _ in range(10):
        shape = rng.choice(SHAPES)
        values, x = numbered(shape)
        key = make_key(rng, shape)
        part = np.asarray(values[key])
        source = -np.arange(1, part.size + 1, dtype="float32").reshape(part.shape)
        kind = rng.choice(["number", "numpy", "ndarray", "row", "list"])
        if make_key is random_advanced:
            # Which of several values for one element stays is checked on its own; here they are all equal.
            kind = "number"
            flat = np.arange(values.size).reshape(shape)[key].ravel()
            if len(set(flat.tolist())) == flat.size:
                kind = rng.choice(["number", "numpy", "ndarray"])
        if kind == "number":
            values[key] = x[key] = -7
        elif kind == "row" and part.ndim > 1:
            values[key] = source[:1]
            x[key] = nd.array(source[:1])
        elif kind == "ndarray" and source.ndim:
            values[key] = source
            x[key] = nd.array(source)
        else:
            values[key] = source
            x[key] = source.tolist() if kind == "list" else source
        np.testing.assert_array_equal(x.asnumpy(), values)


def test_integer_on_one_dimension_keeps_it():
    x = nd.array([5, 6, 7])
    assert x[1].shape == (1,) and x[-1].asscalar() == 7 and x[np.int64(0)].asscalar() == 5
    assert nd.zeros((2, 3))[0, 1].shape == (1,)
    assert [e.shape for e in nd.ones((2, 3))] == [(3,), (3,)]


@pytest.mark.parametrize(
    "key, writes",
    [
        (0, True),
        (slice(1, 3), True),
        ((0, slice(1, 3)), True),
        ((slice(0, 1), slice(None)), True),
        ((slice(1, 2), slice(0, 2)), True),
        ((1, 2), True),
        ((Ellipsis,), True),
        ((None, 1), True),
        ((slice(None), slice(0, 1)), False),
        ((slice(None, None, 2),), False),
        ((slice(None, None, -1),), False),
        (([0, 1],), False),
    ],
)
def test_contiguous_blocks_are_views_and_others_copies(key, writes):
    _, x = numbered((4, 3))
    before = x.asnumpy()
    y = x[key]
    y[:] = -1
    assert (x.asnumpy() != before).any() == writes
    if writes:
        x[:] = 9
        assert (y.asnumpy() == 9).all()


def test_whole_slice_is_the_array_itself():
    x = nd.zeros((2, 3))
    assert x[:] is x and x[()] is x
    y = x[...]
    y[:] = 1
    assert (x.asnumpy() == 1).all()


def test_indices_in_arrays():
    x = nd.array([[1, 2], [3, 4], [5, 6]])
    agree(x[nd.array([2, 0])], [[5, 6], [1, 2]])
    agree(x[nd.array([2, -1], dtype="int32")], [[5, 6], [5, 6]])
    agree(x[nd.array([0, 1]), nd.array([1, 0])], [2, 3])
    agree(x[nd.array([0, 1]), nd.array([1, 0], dtype="int64")], [2, 3])
    agree(x[:, nd.array([1, 0])], [[2, 1], [4, 3], [6, 5]])
    agree(x[nd.array([[0, 1], [2, 0]])], x.asnumpy()[[[0, 1], [2, 0]]])
    agree(x[[0, 1], nd.array([1, 1])], [2, 4])
    assert x[[]].shape == (0, 2)
    # The 0/1 result of a comparison is an array of indices, as in MXNet.
    agree(nd.array([10, 20, 30])[nd.array([10, 20, 30]) > 15], [10, 20, 20])


def test_masks():
    values, x = numbered((3, 4))
    mask = values % 2 == 1
    agree(x[mask], values[mask])
    agree(x[nd.array(mask, dtype="bool")], values[mask])
    agree(x[np.array([True, False, True])], values[[0, 2]])
    agree(x[[True, False, True]], values[[0, 2]])
    agree(x[:, np.array([True, False, True, False])], values[:, [0, 2]])
    agree(x[mask & False], values[mask & False])
    x[mask] = 0
    values[mask] = 0
    agree(x, values)
    with pytest.raises(IndexError, match="boolean index"):
        x[np.array([True, False])]


def test_setting_through_indices():
    x = nd.zeros((2, 3))
    x[[0, 1], [1, 2]] = nd.array([5, 6])
    agree(x, [[0, 5, 0], [0, 0, 6]])
    x = nd.zeros((3,))
    x[[0, 0]] = [1, 2]
    assert x[0].asscalar() == 2
    x[nd.array([2, 1])] = nd.array([8, 9])
    agree(x, [2, 9, 8])
    x[nd.array([2, 1])] = 4
    agree(x, [2, 4, 4])


def test_setting_broadcasts_and_casts():
    x = nd.zeros((2, 3), dtype="int32")
    x[:] = 1.9
    assert x.dtype is np.int32 and (x.asnumpy() == 1).all()
    x[:] = nd.array([1.5, 2.5, 3.5])
    agree(x, [[1, 2, 3], [1, 2, 3]])
    x[0] = np.array([[7, 8, 9]])
    agree(x[0], [7, 8, 9])
    x[:, 0] = nd.array([4, 5])
    agree(x[:, 0], [4, 5])
    x[1:1] = 99
    assert 99 not in x.asnumpy()


def test_setting_refuses_what_does_not_fit():
    x = nd.zeros((2, 3))
    with pytest.raises(ValueError, match="broadcast"):
        x[:] = nd.ones((2, 2))
    with pytest.raises(ValueError, match="broadcast"):
        x[:, 0] = [[1], [2]]
    with pytest.raises(TypeError, match="non-array-like"):
        x[0] = "a"
    assert (x.asnumpy() == 0).all()


@pytest.mark.parametrize(
    "key, error, text",
    [
        (3, IndexError, "index 3 is out of bounds for axis 0 with size 3"),
        (-4, IndexError, "index -4 is out of bounds for axis 0"),
        ((0, 2), IndexError, "index 2 is out of bounds for axis 1 with size 2"),
        ((0, 0, 0), IndexError, "too many indices"),
        ((Ellipsis, Ellipsis), IndexError, "single ellipsis"),
        ([0, 5], IndexError, "index 5 is out of bounds for axis 0 with size 3"),
        (([0, 1], [0, 1, 1]), IndexError, "broadcast"),
        (slice(None, None, 0), IndexError, "step"),
        ([0.0, float("nan")], IndexError, "nan"),
        (1.5, ValueError, "does not support slicing with key 1.5"),
        ("a", ValueError, "does not support slicing with key a"),
        ([[0], [1, 2]], ValueError, "does not support slicing"),
    ],
)
def test_bad_keys(key, error, text):
    x = nd.zeros((3, 2))
    with pytest.raises(error, match=text):
        x[key]
    with pytest.raises(error, match=text):
        x[key] = 1


def test_bad_index_in_an_ndarray_is_reported():
    x = nd.zeros((3,))
    with pytest.raises(IndexError):
        x[nd.array([0, 5])].asnumpy()


def test_no_dimensions():
    x = nd.array(3)
    assert x.shape == () and x[()] is x and x[None].shape == (1,)
    with pytest.raises(IndexError):
        x[0]
    with pytest.raises(TypeError):
        len(x)


@pytest.mark.parametrize("key", [1, slice(0, 2), (slice(None), 1), [0, 2], (0, [1, 2])])
def test_gradient_of_reading(key):
    values, x = numbered((3, 4))
    x.attach_grad()
    with autograd.record():
        y = x[key] * 3
    y.backward()
    expected = np.zeros_like(values)
    np.add.at(expected, key if not isinstance(key, list) else (key,), 3)
    agree(x.grad, expected)


@pytest.mark.parametrize("key", [slice(None), 0, slice(0, 2), (slice(None), 1)])
def test_gradient_of_writing(key):
    w = nd.array([2.0])
    w.attach_grad()
    with autograd.record():
        x = nd.zeros((3, 4))
        x[key] = w * 5
        y = (x * 2).sum()
    y.backward()
    count = np.zeros((3, 4))[key].size
    assert w.grad.asscalar() == 10 * count


def test_writing_into_a_recorded_array_is_refused():
    x = nd.zeros((3,))
    x.attach_grad()
    with autograd.record():
        with pytest.raises(mx.MXNetError):
            x[:] = 1
        with pytest.raises(mx.MXNetError):
            x[0] = 1


@pytest.mark.parametrize(
    "shape, codes, reverse, expected",
    [
        ((2, 3, 4), (0, -1), False, (2, 12)),
        ((2, 3, 4), (-1, 4), False, (6, 4)),
        ((2, 3, 4), (0, -2), False, (2, 3, 4)),
        ((2, 3, 4), (-2, 1), False, (2, 3, 4, 1)),
        ((2, 3, 4), (-3, 4), False, (6, 4)),
        ((2, 3, 4), (0, -3), False, (2, 12)),
        ((2, 3, 4, 5), (-3, -3), False, (6, 20)),
        ((6, 4), (-4, 2, 3, 0), False, (2, 3, 4)),
        ((6, 4), (-4, -1, 3, 4), False, (2, 3, 4)),
        ((2, 6), (0, -4, 2, -1), False, (2, 2, 3)),
        ((10, 5, 4), (-1, 0), False, (40, 5)),
        ((10, 5, 4), (-1, 0), True, (50, 4)),
        ((8, 3), (4, -1, -4, 0), True, (4, 2, 3)),
        ((2, 3, 4), (0, -3), True, (2, 12)),
        ((0, 3), (3, 0), False, None),
        ((2, 3), (0, 0, 0), False, None),
        ((2, 3), (-1, -1), False, None),
        ((2, 3), (4, 2), False, None),
        ((2, 3), (2, 2), False, None),
        ((2, 3), (-5,), False, None),
        ((8, 3), (-4, 4, -1, 0), True, None),
    ],
)
def test_reshape_codes(shape, codes, reverse, expected):
    x = nd.zeros(shape)
    if expected is None:
        with pytest.raises(ValueError, match="cannot reshape"):
            x.reshape(codes, reverse=reverse)
    else:
        assert x.reshape(codes, reverse=reverse).shape == expected
        assert x.reshape(shape=codes, reverse=reverse).shape == expected


def test_reshape_is_a_view():
    x = nd.zeros((2, 3))
    y = x.reshape(3, -1)
    y[0] = 5
    agree(x, [[5, 5, 0], [0, 0, 0]])
    assert x.reshape([6]).shape == (6,)
    with pytest.raises(TypeError, match="unknown keywords"):
        x.reshape((6,), foo=1)


def test_arrays_of_no_elements():
    x = nd.zeros((0, 3))
    assert x[:].shape == (0, 3) and x[:, 1].shape == (0,) and x[0:2].shape == (0, 3)
    assert nd.zeros((2, 3))[5:].shape == (0, 3)
    x[:] = 1
    assert x.size == 0


KEYS = [
    "0", "-1", "1:3", "::2", "::-1", "1, 2", "1, 0:2", ":, 1", ":, 1:2", ":, ::-2", "None", "..., None, 0", ":, None, 1",
    "[0, 2]", ":, [0, 2]", "[0, 1], [2, 0]", "[[0, 1], [2, 0]]", "0, [1, 2]", "[1, 2], 0", "[[0], [2]], [1, 2]",
    "nd.array([2, 0])", "nd.array([0, 1]), nd.array([1, 0])", "np.array([2, 0]), 1:3",
    "nd.array([[0, 1], [2, 0]])", "x[:, 0] > 1", "-2:, -2:", "np.int64(1), np.int32(2)",
]  # fmt: skip


def test_oracle_agrees_on_keys(oracle):
    code = "out = []\nx = nd.arange(12).reshape((4, 3))\n"
    for i, key in enumerate(KEYS):
        code += f"out_{i} = x[{key}]\ny = x.copy()\ny[{key}] = -7\nout_set_{i} = y\n"
        code += f"out_view_{i} = x.copy()\nz = out_view_{i}[{key}]\n"
        code += "if z.size: z[:] = -7\n"
    theirs = oracle.run("import numpy as np\nnd = mx.nd\n" + code)
    ours: dict = {"nd": nd, "np": np, "mx": mx}
    exec(code, ours)
    for i, key in enumerate(KEYS):
        for name in (f"out_{i}", f"out_set_{i}", f"out_view_{i}"):
            assert ours[name].shape == theirs[name].shape, (name, key)
            np.testing.assert_array_equal(ours[name].asnumpy(), theirs[name], err_msg=f"{name}: {key}")


def test_oracle_agrees_on_reshape_codes(oracle):
    rng = random.Random(5)
    cases = []
    for _ in range(400):
        shape = tuple(rng.choice([1, 2, 3, 4, 6]) for _ in range(rng.randint(1, 4)))
        codes: list[int] = []
        for _ in range(rng.randint(1, 4)):
            codes.append(rng.choice([0, 0, -1, -2, -3, -4, 1, 2, 3, 4, 6, 12]))
            if codes[-1] == -4:
                codes += [rng.choice([2, 3, -1, 1]), rng.choice([2, 3, -1, 1])]
        # MXNet counts dimensions wrongly where -4 and -1 meet, and then refuses nearly everything.
        if not (-4 in codes and codes.count(-1) > 0):
            reverse = rng.random() < 0.3
            cases.append((shape, tuple(reversed(codes)) if reverse else tuple(codes), reverse))
    code = f"""
out_shapes = []
for shape, codes, reverse in {cases!r}:
    try:
        out_shapes.append(list(mx.nd.zeros(shape).reshape(codes, reverse=reverse).shape))
    except Exception:
        out_shapes.append(None)
"""
    theirs = oracle.run(code)["out_shapes"]
    checked = 0
    for (shape, codes, reverse), expected in zip(cases, theirs):
        if expected is not None:
            assert list(nd.zeros(shape).reshape(codes, reverse=reverse).shape) == list(expected), (
                shape,
                codes,
                reverse,
            )
            checked += 1
    assert checked > 40
