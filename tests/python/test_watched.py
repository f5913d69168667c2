"""What an executor tells those who watch it. `Monitor` itself is tested beside the callbacks."""

import numpy as np

import mxrs as mx


def product():
    return mx.sym.elemwise_mul(mx.sym.Variable("a"), mx.sym.Variable("b"), name="m")


def numbers(*values):
    return mx.nd.array(np.array(values, dtype="float32"))


def test_monitor_receives_outputs():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    seen = []
    executor.set_monitor_callback(lambda name, array: seen.append((name, array.asscalar())))
    executor.forward(a=numbers(2), b=numbers(3))
    assert seen == [(b"m_output", 6)]
    executor.forward(is_train=True, a=numbers(4))
    executor.backward(numbers(1))
    assert seen[1:] == [(b"m_output", 12)] and [g.asscalar() for g in executor.grad_arrays] == [3, 4]


def test_monitor_of_all_receives_inputs_too():
    executor = product().simple_bind(mx.cpu(), a=(1,), b=(1,))
    seen = []
    executor.set_monitor_callback(lambda name, array: seen.append(name), monitor_all=True)
    executor.forward()
    assert seen == [b"a", b"m_lhs", b"b", b"m_rhs", b"m_output"]


def test_monitored_names_of_a_network(oracle):
    """A watched network reports as MXNet does, and still computes the same."""
    oracle.check(
        """
with mx.name.NameManager():
    x = mx.sym.Convolution(mx.sym.Variable("data"), kernel=(3, 3), num_filter=2, name="c")
    x = mx.sym.Activation(mx.sym.BatchNorm(x, name="n"), act_type="relu", name="r")
    x = mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=3, name="f")
    net = mx.sym.SoftmaxOutput(x, name="softmax")
e = net.simple_bind(mx.cpu(), data=(2, 1, 5, 5))
for i, name in enumerate(net.list_arguments()):
    e.arg_dict[name][:] = np.sin(np.arange(e.arg_dict[name].size) + i).reshape(e.arg_dict[name].shape)
e.arg_dict["softmax_label"][:] = [1, 2]
out_names = []
e.set_monitor_callback(lambda name, array: out_names.append(name.decode()))
e.forward(is_train=True)
mx.nd.waitall()
# MXNet reports its scratch memory too.
out_names = [name for name in out_names if not name.endswith("_workspace")]
e.set_monitor_callback(lambda name, array: None)
e.backward()
out_grads = [g.asnumpy() for g in e.grad_arrays]
""",
        rtol=1e-3,
    )


def test_monitored_values_are_those_of_the_graph():
    dense = mx.sym.FullyConnected(mx.sym.Variable("x"), num_hidden=2, name="f")
    net = mx.sym.SoftmaxOutput(mx.sym.Activation(dense, act_type="relu", name="r"), name="s")
    executor = net.simple_bind(mx.cpu(), x=(4, 3))
    for i, name in enumerate(("x", "f_weight")):
        array = executor.arg_dict[name]
        array[:] = np.sin(np.arange(array.size) + i).reshape(array.shape)
    (plain,) = (out.asnumpy() for out in executor.forward())
    seen = {}
    executor.set_monitor_callback(lambda name, array: seen.__setitem__(name.decode(), array.asnumpy()))
    executor.forward()
    assert list(seen) == ["f_output", "r_output", "s_output"]
    x, weight = executor.arg_dict["x"].asnumpy(), executor.arg_dict["f_weight"].asnumpy()
    np.testing.assert_allclose(seen["f_output"], x @ weight.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen["r_output"], np.maximum(x @ weight.T, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen["s_output"], plain, rtol=1e-6)


def test_statistics_are_monitored(oracle):
    """The mean and deviation that a normalization computes, while training and afterwards."""
    oracle.check(
        """
x = mx.sym.BatchNorm(mx.sym.Variable("data"), name="b", fix_gamma=False, eps=1e-3)
net = mx.sym.LayerNorm(x, name="l")
e = net.simple_bind(mx.cpu(), data=(4, 3), grad_req="null")
e.arg_dict["data"][:] = data
e.arg_dict["b_gamma"][:] = 2
e.arg_dict["l_gamma"][:] = 1
e.aux_dict["b_moving_var"][:] = 4
monitor = mx.mon.Monitor(1, stat_func=lambda array: array.reshape(-1) + 0, pattern="(b|l)_(mean|var|std|output)")
monitor.install(e)
out_names, out_values = [], []
for train in (True, False):
    monitor.tic()
    e.forward(is_train=train)
    for _, name, text in monitor.toc():
        out_names.append(name)
        out_values.append(np.array(text.strip().strip("[]").split(), dtype="f"))
""",
        data=np.sin(np.arange(12, dtype="f")).reshape(4, 3),
        rtol=1e-3,
        atol=1e-4,
    )
