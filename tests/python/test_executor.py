"""Executor: bind and simple_bind, running, arrays that are shared, reshape, plans, placement, and what is refused."""

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd
from mxrs.base import MXNetError


def product(name="m"):
    return mx.sym.elemwise_mul(mx.sym.Variable("a"), mx.sym.Variable("b"), name=name)


def dense(hidden=2):
    return mx.sym.FullyConnected(mx.sym.Variable("x"), num_hidden=hidden, name="f")


def numbers(*values):
    return nd.array(np.array(values, dtype="float32"))


def listed(arrays):
    return [None if a is None else a.asnumpy().tolist() for a in arrays]


# --- bind ---------------------------------------------------------------------------------------------------


def test_bind_with_dictionaries():
    grads = {"a": nd.zeros((1,))}
    executor = product().bind(mx.cpu(), {"a": numbers(2), "b": numbers(3)}, args_grad=grads)
    executor.forward(is_train=True)
    executor.backward(numbers(10))
    assert listed(executor.outputs) == [[6]]
    assert executor.grad_dict["b"] is None and listed(executor.grad_arrays) == [[30], None]
    # The arrays are those that were given.
    assert executor.grad_dict["a"] is grads["a"] and grads["a"].asscalar() == 30


def test_bind_with_lists_and_a_request_per_argument():
    arrays = [numbers(2), numbers(3)]
    executor = product().bind(
        mx.cpu(), arrays, args_grad=[nd.zeros((1,)), nd.ones((1,))], grad_req=["write", "add"]
    )
    for expected in ([[3], [3]], [[3], [5]]):
        executor.forward(is_train=True)
        executor.backward(numbers(1))
        assert listed(executor.grad_arrays) == expected
    assert executor.arg_arrays[0] is arrays[0]


@pytest.mark.parametrize(
    "grad_req", ["write", "add", "null", ["add", "null"], {"b": "add"}, {"a": "write", "b": "null"}]
)
def test_requests(grad_req):
    executor = product().bind(
        mx.cpu(),
        {"a": numbers(2), "b": numbers(3)},
        args_grad={"a": numbers(100), "b": numbers(100)},
        grad_req=grad_req,
    )
    words = [grad_req] * 2 if isinstance(grad_req, str) else grad_req
    if isinstance(words, dict):
        words = [words.get(name, "null") for name in ("a", "b")]
    for _ in range(2):
        executor.forward(is_train=True)
        executor.backward(numbers(1))
    for word, grad, slope in zip(words, executor.grad_arrays, (3, 2)):
        assert (grad is None) == (word == "null")
        if grad is not None:
            assert grad.asscalar() == (slope if word == "write" else 100 + 2 * slope)


def test_simple_bind_makes_zeros():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    for arrays in (executor.arg_dict, executor.grad_dict):
        assert list(arrays) == ["a", "b"] and listed(arrays.values()) == [[0], [0]]
    assert listed(product().simple_bind(mx.cpu(), grad_req="null", a=(1,), b=(1,)).grad_arrays) == [
        None,
        None,
    ]


def test_simple_bind_infers_what_is_not_given():
    net = mx.sym.BatchNorm(dense(3), name="n")
    executor = net.simple_bind(mx.cpu(), x=(4, 5))
    shapes = {name: array.shape for name, array in executor.arg_dict.items()}
    assert shapes == {"x": (4, 5), "f_weight": (3, 5), "f_bias": (3,), "n_gamma": (3,), "n_beta": (3,)}
    assert [a.shape for a in executor.aux_arrays] == [(3,), (3,)]
    assert list(executor.aux_dict) == ["n_moving_mean", "n_moving_var"]
    assert list(executor.output_dict) == ["n_output"] and executor.output_dict["n_output"].shape == (4, 3)
    assert executor.grad_dict["f_weight"].shape == (3, 5)


@pytest.mark.parametrize("dtype", ["float64", "float16", "float32"])
def test_simple_bind_with_types(dtype):
    executor = dense().simple_bind(mx.cpu(), type_dict={"x": dtype}, x=(4, 5))
    assert {a.dtype for a in (*executor.arg_arrays, *executor.grad_arrays, *executor.outputs)} == {
        np.dtype(dtype).type
    }


def test_simple_bind_with_types_of_indices():
    table = mx.sym.Embedding(mx.sym.Variable("i"), input_dim=5, output_dim=2, name="e")
    executor = table.simple_bind(mx.cpu(), grad_req={"e_weight": "write"}, type_dict={"i": "int32"}, i=(3,))
    assert executor.arg_dict["i"].dtype == np.int32 and executor.arg_dict["e_weight"].dtype == np.float32
    executor.arg_dict["i"][:] = nd.array([1, 1, 4], dtype="int32")
    executor.forward(is_train=True)
    executor.backward(nd.ones((3, 2)))
    assert executor.grad_dict["e_weight"].asnumpy()[:, 0].tolist() == [0, 2, 0, 0, 1]


def test_bind_in_double_precision():
    x = nd.array(np.eye(3), dtype="float64")
    weight = nd.array(np.arange(6).reshape(2, 3), dtype="float64")
    bias = nd.array([1e-12, 2], dtype="float64")
    net = mx.sym.FullyConnected(
        mx.sym.Variable("x"), mx.sym.Variable("w", dtype="float64"), mx.sym.Variable("b"), num_hidden=2
    )
    (out,) = net.bind(mx.cpu(), {"x": x, "w": weight, "b": bias}).forward()
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out.asnumpy(), np.arange(6).reshape(2, 3).T + np.array([1e-12, 2]))


def test_automatic_names():
    with mx.name.NameManager():
        product_ = mx.sym.Variable("a") * mx.sym.Variable("b")
        executor = product_.simple_bind(mx.cpu(), a=(1,), b=(1,))
    assert list(executor.output_dict) == ["_mul0_output"]


# --- running ------------------------------------------------------------------------------------------------


def test_forward_takes_values_by_name():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    (out,) = executor.forward(a=numbers(4), b=np.array([5.0]))
    assert out.asscalar() == 20 and executor.arg_dict["a"].asscalar() == 4
    assert executor.forward(b=nd.array([2.0], dtype="float64"))[0].asscalar() == 8


def test_outputs_stay_the_same_arrays():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    first = executor.outputs[0]
    executor.forward(a=numbers(2), b=numbers(3))
    assert first.asscalar() == 6
    executor.forward(a=numbers(5))
    assert first.asscalar() == 15 and executor.output_dict["m_output"].asscalar() == 15


def test_arguments_are_written_in_several_ways():
    executor = product().simple_bind(mx.cpu(), a=(2,), b=(2,))
    executor["a"][:] = 3
    executor["b"][:] = np.array([1, 2])
    assert executor.forward()[0].asnumpy().tolist() == [3, 6]
    executor.arg_dict["a"][1] = 10
    executor.arg_arrays[1] += 1
    assert executor.forward()[0].asnumpy().tolist() == [6, 30]
    assert executor["m_output"].asnumpy().tolist() == [6, 30]
    with pytest.raises(KeyError, match=r"(?s)c.*a, b"):
        executor["c"]
    with pytest.raises(TypeError):
        executor[0]


def test_states_by_name():
    executor = mx.sym.BatchNorm(mx.sym.Variable("x"), name="n", momentum=0.5).simple_bind(mx.cpu(), x=(2, 1))
    executor["n_moving_var"][:] = 1
    executor.forward(is_train=True, x=np.array([[1.0], [3.0]]))
    assert executor["n_moving_mean"].asscalar() == 0
    # As in MXNet, going backward moves the statistics.
    executor.backward(nd.ones((2, 1)))
    assert executor.aux_dict["n_moving_mean"].asscalar() == 1 and executor["n_moving_var"].asscalar() == 1


def test_backward_after_prediction_gives_zeros():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    executor.forward(a=numbers(2), b=numbers(3))
    executor.backward(numbers(1))
    executor.forward(is_train=False)
    assert all(np.isfinite(g.asscalar()) for g in executor.grad_arrays)


def test_heads_as_list_dictionary_and_array():
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    net = mx.sym.Group([mx.sym.identity(a * 2, name="p"), mx.sym.identity(a * b, name="q")])
    executor = net.simple_bind(mx.cpu(), a=(1,), b=(1,))
    for heads in ([numbers(1), numbers(10)], {"q_output": numbers(10), "p_output": numbers(1)}):
        executor.forward(is_train=True, a=numbers(3), b=numbers(4))
        executor.backward(heads)
        assert listed(executor.grad_arrays) == [[42], [30]]
    with pytest.raises(TypeError, match="NDArray"):
        executor.backward([1.0, 2.0])


def test_losses_need_no_heads(oracle):
    oracle.check("""
x = mx.sym.Variable("x")
values = {"x": nd.array([[1, 2], [3, -1]]), "y": nd.array([0, 1]), "z": nd.array([[1, 0], [2, 2]])}
out_found = []
for loss in (mx.sym.SoftmaxOutput(x, mx.sym.Variable("y")), mx.sym.LinearRegressionOutput(x, mx.sym.Variable("z")),
             mx.sym.MakeLoss(x * 3, grad_scale=2), mx.sym.Group([mx.sym.MakeLoss(x ** 2), mx.sym.BlockGrad(x * 5)])):
    grad = nd.zeros((2, 2))
    e = loss.bind(mx.cpu(), {n: values[n] for n in loss.list_arguments()}, args_grad={"x": grad})
    e.forward(is_train=True)
    e.backward()
    out_found += [o.asnumpy() for o in e.outputs] + [grad.asnumpy()]
""")


def test_without_heads_what_is_no_loss_is_refused():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    executor.forward(is_train=True)
    with pytest.raises(MXNetError, match=r"(?i)loss"):
        executor.backward()


def test_dropout_by_mode():
    executor = mx.sym.Dropout(mx.sym.Variable("x"), p=0.5).simple_bind(mx.cpu(), x=(50, 40))
    executor.arg_dict["x"][:] = 1
    assert (executor.forward()[0].asnumpy() == 1).all()
    (out,) = executor.forward(is_train=True)
    first = out.asnumpy()
    assert set(np.unique(first)) == {0, 2} and abs(first.mean() - 1) < 0.1
    executor.backward(nd.ones((50, 40)))
    np.testing.assert_array_equal(executor.grad_dict["x"].asnumpy(), first)
    assert (executor.forward(is_train=True)[0].asnumpy() != first).any()


def test_one_argument_in_two_places():
    a = mx.sym.Variable("a")
    executor = (a * a + a).bind(mx.cpu(), {"a": numbers(3)}, {"a": numbers(0)})
    executor.forward(is_train=True)
    executor.backward(numbers(1))
    assert executor.outputs[0].asscalar() == 12 and executor.grad_arrays[0].asscalar() == 7


def test_an_output_that_is_an_argument():
    a = mx.sym.Variable("a")
    executor = mx.sym.Group([a, a + 1]).simple_bind(mx.cpu(), a=(2,))
    outs = executor.forward(is_train=True, a=numbers(1, 2))
    executor.backward([numbers(1, 1), numbers(10, 10)])
    assert listed(outs) == [[1, 2], [2, 3]] and listed(executor.grad_arrays) == [[11, 11]]


def test_gradients_of_one_array_given_twice_are_added_by_request():
    weight, grad = numbers(2), nd.zeros((1,))
    executor = product().bind(mx.cpu(), [weight, weight], args_grad=[grad, grad], grad_req="add")
    executor.forward(is_train=True)
    executor.backward(numbers(1))
    assert executor.outputs[0].asscalar() == 4 and grad.asscalar() == 4


# --- shared arrays ------------------------------------------------------------------------------------------


def test_a_second_executor_on_the_same_arrays():
    net = mx.sym.BatchNorm(dense(), name="n")
    train = net.simple_bind(mx.cpu(), x=(4, 3))
    test = net.bind(mx.cpu(), train.arg_arrays, grad_req="null", aux_states=train.aux_arrays)
    train.aux_dict["n_moving_var"][:] = 4
    for value in (1, 2):
        train.arg_dict["f_weight"][:] = value
        train.arg_dict["x"][:] = 1
        train.arg_dict["n_gamma"][:] = 1
        (out,) = test.forward()
        np.testing.assert_allclose(out.asnumpy(), np.full((4, 2), 3 * value / 2), rtol=1e-3)


def test_shared_exec_shares_parameters():
    big = dense().simple_bind(mx.cpu(), x=(8, 3))
    small = dense().simple_bind(mx.cpu(), shared_exec=big, shared_arg_names=["f_weight", "f_bias"], x=(2, 3))
    big.arg_dict["f_weight"][:] = 5
    assert (small.arg_dict["f_weight"].asnumpy() == 5).all()
    small.arg_dict["x"][:] = 1
    big.arg_dict["x"][:] = 0
    assert (small.forward()[0].asnumpy() == 15).all() and (big.forward()[0].asnumpy() == 0).all()


def test_copy_params_from():
    executor = mx.sym.BatchNorm(product(), name="n").simple_bind(mx.cpu(), a=(2, 1), b=(2, 1))
    executor.copy_params_from({"a": nd.full((2, 1), 7)}, {"n_moving_mean": numbers(3)})
    assert executor.arg_dict["a"].asnumpy().ravel().tolist() == [7, 7]
    assert executor.aux_dict["n_moving_mean"].asscalar() == 3
    with pytest.raises(ValueError, match='Find name "q" that is not in the arguments'):
        executor.copy_params_from({"q": numbers(7)})
    with pytest.raises(ValueError, match='Find name "q" that is not in the auxiliary states'):
        executor.copy_params_from({}, {"q": numbers(7)})
    executor.copy_params_from(
        {"q": numbers(7), "b": nd.ones((2, 1))}, {"r": numbers(1)}, allow_extra_params=True
    )
    assert executor.arg_dict["b"].asnumpy().sum() == 2
    with pytest.raises(ValueError, match="shape"):
        executor.copy_params_from({"a": numbers(1, 2, 3)})


# --- reshape ------------------------------------------------------------------------------------------------


def test_reshape_to_a_smaller_batch():
    executor = dense().simple_bind(mx.cpu(), x=(4, 3))
    small = executor.reshape(x=(2, 3))
    executor.arg_dict["f_weight"][:] = 3
    assert small.outputs[0].shape == (2, 2) and (small.arg_dict["f_weight"].asnumpy() == 3).all()
    small.forward(is_train=True, x=np.ones((2, 3)))
    assert (small.outputs[0].asnumpy() == 9).all()
    small.backward(nd.ones((2, 2)))
    np.testing.assert_array_equal(executor.grad_dict["f_weight"].asnumpy(), np.full((2, 3), 2))
    # The data lies in the larger array.
    assert executor.arg_dict["x"].asnumpy()[:2].tolist() == np.ones((2, 3)).tolist()


def test_reshape_to_a_larger_batch():
    executor = dense().simple_bind(mx.cpu(), x=(4, 3))
    with pytest.raises(MXNetError, match="allow_up_sizing"):
        executor.reshape(x=(8, 3))
    large = executor.reshape(allow_up_sizing=True, x=(8, 3))
    executor.arg_dict["f_weight"][:] = 1
    large.forward(x=np.ones((8, 3)))
    assert (large.outputs[0].asnumpy() == 3).all() and large.arg_dict["x"].shape == (8, 3)


def test_reshape_that_changes_a_parameter():
    executor = dense().simple_bind(mx.cpu(), x=(4, 3))
    with pytest.raises(MXNetError):
        executor.reshape(x=(4, 5))
    other = executor.reshape(partial_shaping=True, allow_up_sizing=True, x=(4, 5))
    assert other.arg_dict["f_weight"].shape == (2, 5)
    smaller = executor.reshape(partial_shaping=True, x=(4, 2))
    assert smaller.arg_dict["f_weight"].shape == (2, 2)


def test_reshape_of_a_convolutional_network():
    net = mx.sym.Convolution(mx.sym.Variable("x"), kernel=(3, 3), num_filter=2, name="c")
    executor = mx.sym.BatchNorm(net, name="n").simple_bind(mx.cpu(), x=(2, 1, 8, 8))
    other = executor.reshape(x=(1, 1, 6, 7))
    assert other.outputs[0].shape == (1, 2, 4, 5)
    executor.aux_dict["n_moving_mean"][:] = 2
    assert (other.aux_dict["n_moving_mean"].asnumpy() == 2).all()


# --- plans --------------------------------------------------------------------------------------------------


def test_the_plan_can_be_read():
    net = mx.sym.Activation(dense(), act_type="relu", name="act")
    text = net.simple_bind(mx.cpu(), x=(2, 3)).debug_str()
    assert isinstance(text, str) and "FullyConnected" in text and len(text.splitlines()) > 1


# --- placement ----------------------------------------------------------------------------------------------


def two_places():
    with mx.AttrScope(ctx_group="one"):
        x = mx.sym.Activation(dense(3), act_type="tanh", name="t")
    with mx.AttrScope(ctx_group="two"):
        return mx.sym.FullyConnected(x, num_hidden=2, name="g")


GROUPS = {"one": mx.cpu(1), "two": mx.cpu(2)}


def test_groups_place_arguments_and_results():
    executor = two_places().simple_bind(mx.cpu(0), group2ctx=GROUPS, x=(4, 5))
    places = {name: array.context for name, array in executor.arg_dict.items()}
    # The variable was made outside of both groups... inside `dense`, which runs in the first.
    assert places == {
        "x": mx.cpu(1),
        "f_weight": mx.cpu(1),
        "f_bias": mx.cpu(1),
        "g_weight": mx.cpu(2),
        "g_bias": mx.cpu(2),
    }
    assert {n: g.context for n, g in executor.grad_dict.items()} == places
    assert executor.outputs[0].context == mx.cpu(2)


def test_groups_change_no_result():
    found = []
    for groups in (None, GROUPS):
        executor = two_places().simple_bind(mx.cpu(0), group2ctx=groups, x=(4, 5))
        for i, array in enumerate(executor.arg_arrays):
            array[:] = np.cos(np.arange(array.size) + i).reshape(array.shape)
        executor.forward(is_train=True)
        executor.backward(nd.ones((4, 2), ctx=executor.outputs[0].context))
        found.append([a.asnumpy() for a in (executor.outputs[0], *executor.grad_arrays)])
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


def test_groups_in_bind():
    net = two_places()
    shapes, _, _ = net.infer_shape(x=(4, 5))
    places = [mx.cpu(1), mx.cpu(1), mx.cpu(1), mx.cpu(2), mx.cpu(2)]
    arrays = [nd.ones(shape, ctx=place) for shape, place in zip(shapes, places)]
    grads = [nd.zeros(shape, ctx=place) for shape, place in zip(shapes, places)]
    executor = net.bind(mx.cpu(0), arrays, grads, group2ctx=GROUPS)
    (out,) = executor.forward(is_train=True)
    assert out.context == mx.cpu(2)
    np.testing.assert_allclose(out.asnumpy(), np.full((4, 2), 3 * np.tanh(6) + 1), rtol=1e-5)
    executor.backward(nd.ones((4, 2), ctx=mx.cpu(2)))
    assert (grads[4].asnumpy() == 4).all()


def test_an_unknown_group_stays_where_the_graph_is_bound():
    executor = two_places().simple_bind(mx.cpu(0), group2ctx={"two": mx.cpu(3)}, x=(4, 5))
    assert executor.arg_dict["f_weight"].context == mx.cpu(0)
    assert executor.arg_dict["g_weight"].context == mx.cpu(3)


@pytest.mark.parametrize(
    "groups",
    [[mx.cpu(0), mx.cpu(1)], {"one": [mx.cpu(0), mx.cpu(1)]}, mx.cpu(0), {"one": "cpu"}],
    ids=["list", "list inside", "context", "text"],
)
def test_wrong_placements_say_what_to_do(groups):
    with pytest.raises(TypeError, match=r"group2ctx.*Context.*Module\(context=\[...\]\)"):
        two_places().simple_bind(mx.cpu(0), group2ctx=groups, x=(4, 5))


# --- what is refused ----------------------------------------------------------------------------------------


def test_wrong_arguments_of_bind():
    net = product()
    with pytest.raises(ValueError, match="key 'b' is missing in 'args'"):
        net.bind(mx.cpu(), {"a": numbers(2)})
    with pytest.raises(ValueError, match="args"):
        net.bind(mx.cpu(), [numbers(2)])
    with pytest.raises(TypeError, match="args"):
        net.bind(mx.cpu(), numbers(2))
    with pytest.raises(TypeError, match="'b' must be an NDArray"):
        net.bind(mx.cpu(), {"a": numbers(2), "b": 3})
    with pytest.raises(TypeError, match="Context"):
        net.bind("cpu", {"a": numbers(2), "b": numbers(3)})
    with pytest.raises(ValueError, match="'plus'"):
        net.bind(mx.cpu(), {"a": numbers(2), "b": numbers(3)}, grad_req="plus")
    with pytest.raises(ValueError, match="grad_req"):
        net.bind(mx.cpu(), {"a": numbers(2), "b": numbers(3)}, grad_req=["write"])
    with pytest.raises(MXNetError, match=r"(?s)\bm\b.*b"):
        net.bind(mx.cpu(), {"a": numbers(2), "b": numbers(3, 4)})
    with pytest.raises((MXNetError, ValueError), match="a"):
        net.bind(mx.cpu(), {"a": numbers(2), "b": numbers(3)}, {"a": nd.zeros((2,))})


def test_states_must_be_given():
    net = mx.sym.BatchNorm(mx.sym.Variable("x"), name="n")
    args = {"x": nd.ones((2, 1)), "n_gamma": nd.ones((1,)), "n_beta": nd.ones((1,))}
    with pytest.raises(ValueError, match="n_moving_mean"):
        net.bind(mx.cpu(), args)


def test_unknown_shapes_are_named():
    with pytest.raises(RuntimeError, match=r"(?s)simple_bind error.*a.*b"):
        product().simple_bind(mx.cpu())
    with pytest.raises(RuntimeError, match=r"(?s)simple_bind error.*x: None"):
        dense().simple_bind(mx.cpu())
    with pytest.raises(MXNetError, match="zz"):
        product().simple_bind(mx.cpu(), a=(1,), zz=(1,))
    with pytest.raises((MXNetError, RuntimeError), match=r"(?s)m.*\(3,\)"):
        product().simple_bind(mx.cpu(), a=(2,), b=(3,))


def test_wrong_values_of_forward():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    with pytest.raises(TypeError, match="Unknown argument zz"):
        executor.forward(zz=numbers(4))
    with pytest.raises(ValueError, match=r"Shape not match! Argument a, need: \(1,\), received: \(2,\)"):
        executor.forward(a=numbers(4, 4))
    with pytest.raises(ValueError, match="Argument a must be"):
        executor.forward(a=[4.0])


def test_duplicate_names_are_refused_by_dictionaries():
    net = mx.sym.Variable("a") + mx.sym.Variable("a")
    executor = net.bind(mx.cpu(), [numbers(1), numbers(2)])
    assert executor.forward()[0].asscalar() == 3
    with pytest.raises(ValueError, match="Duplicate.*a"):
        executor.arg_dict  # noqa: B018


def test_wrong_heads():
    executor = product().simple_bind(mx.cpu(), a=(2,), b=(2,))
    executor.forward(is_train=True)
    with pytest.raises(MXNetError, match=r"head gradient.*\(3,\).*\(2,\)"):
        executor.backward(numbers(1, 2, 3))
    with pytest.raises(MXNetError):
        executor.backward([numbers(1, 2), numbers(1, 2)])


# --- recomputation ------------------------------------------------------------------------------------------


def deep(mirrored):
    x = mx.sym.Variable("x")
    for i in range(6):
        x = mx.sym.BatchNorm(
            mx.sym.FullyConnected(x, num_hidden=32, name=f"f{i}"), name=f"n{i}", fix_gamma=False
        )
        with mx.AttrScope(**({"force_mirroring": "True"} if mirrored else {})):
            x = mx.sym.Activation(x, act_type="tanh", name=f"t{i}")
            x = mx.sym.square(x, name=f"q{i}") + x
    return mx.sym.SoftmaxOutput(x, name="s")


@pytest.mark.parametrize("way", ["attribute", "variable"])
def test_recomputation_changes_memory_not_results(monkeypatch, way):
    found, memory = [], []
    for mirrored in (False, True):
        if way == "variable":
            monkeypatch.setenv("MXNET_BACKWARD_DO_MIRROR", "1" if mirrored else "0")
        executor = deep(mirrored and way == "attribute").simple_bind(mx.cpu(), x=(256, 32))
        for i, array in enumerate(executor.arg_arrays):
            array[:] = np.sin(np.arange(array.size) * 0.7 + i).reshape(array.shape)
        executor.arg_dict["s_label"][:] = np.arange(256) % 32
        for _ in range(2):
            executor.forward(is_train=True)
            executor.backward()
        memory.append(executor._working_memory())
        found.append([a.asnumpy() for a in (*executor.outputs, *executor.grad_arrays, *executor.aux_arrays)])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert memory[1] < memory[0]
