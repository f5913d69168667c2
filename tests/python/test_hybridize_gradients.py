"""Hybridized blocks while recording: training and prediction, random operators, gradients of every kind."""

import concurrent.futures

import numpy as np
import pytest

import mxrs as mx
from hybrid_cases import (
    NETWORKS,
    assert_close,
    assert_same_states,
    flat,
    head,
    leaves,
    lenet,
    parameters,
    rand,
    resnet,
    step,
    twins,
)
from mxrs import autograd, gluon, nd
from mxrs.base import MXNetError
from mxrs.gluon import nn


def test_dropout_drops_in_training_only():
    x = nd.ones((200, 50))
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, v: v * 3), nn.Dropout(0.25), nn.HybridLambda(lambda F, v: v * 2))
    net.hybridize()
    assert (net(x).asnumpy() == 6).all()
    x.attach_grad()
    with autograd.record():
        first = net(x)
    first.backward()
    kept = first.asnumpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(first.asnumpy()[kept], 8, rtol=1e-5)
    # The gradient has the mask of the forward pass.
    np.testing.assert_allclose(x.grad.asnumpy(), first.asnumpy(), rtol=1e-6)
    with autograd.record():
        second = net(x)
    assert 0.3 < (kept != (second.asnumpy() != 0)).mean() < 0.45
    with autograd.record(train_mode=False):
        assert (net(x).asnumpy() == 6).all()
    with autograd.train_mode():
        assert (net(x).asnumpy() == 0).any()


def test_dropout_repeats_after_a_seed():
    net = nn.Dropout(0.5)
    net.hybridize()
    x = nd.ones((40, 40))
    drawn = []
    for seed in (3, 3, 4):
        mx.random.seed(seed)
        with autograd.train_mode():
            drawn.append(net(x).asnumpy())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_random_operators_in_a_graph():
    class Noise(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            wide = F.random.uniform(-1, 1, shape=(300, 20))
            return (
                wide,
                F.random.normal(2, 0.5, shape=(300, 20)),
                x + F.random.normal_like(x)
                if hasattr(F.random, "normal_like")
                else F.random.normal(shape=(100, 40)),
                F.random.randint(0, 5, shape=(300,)),
                # As a graph, it always has a second output: the probabilities.
                F.random.multinomial(F.softmax(x), shape=3)[0],
            )

    net = Noise()
    net.hybridize()
    x = nd.zeros((100, 40))
    mx.random.seed(1)
    first = [o.asnumpy() for o in net(x)]
    second = [o.asnumpy() for o in net(x)]
    mx.random.seed(1)
    again = [o.asnumpy() for o in net(x)]
    for a, b, c in zip(first, second, again):
        np.testing.assert_array_equal(a, c)
        assert (a != b).any()
    assert abs(first[0].mean()) < 0.03 and abs(first[0]).max() <= 1
    assert abs(first[1].mean() - 2) < 0.03 and abs(first[1].std() - 0.5) < 0.02
    assert abs(first[2].mean()) < 0.05 and abs(first[2].std() - 1) < 0.05
    assert set(first[3]) <= set(range(5)) and first[4].shape == (100, 3)


def test_two_draws_of_one_graph_differ():
    """Equal calls of an operator that draws are two draws, not one common value."""

    class Twice(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return (
                F.Dropout(x, p=0.5) + 0,
                F.Dropout(x, p=0.5) + 0,
                F.random.uniform(shape=(9,)),
                F.random.uniform(shape=(9,)),
            )

    net = Twice()
    net.hybridize()
    with autograd.train_mode():
        a, b, c, d = (o.asnumpy() for o in net(nd.ones((30, 30))))
    assert (a != b).any() and (c != d).all()


def test_gradients_are_added():
    x = rand(3, 4)
    plain, hybrid = twins(lenet, rand(3, 1, 8, 8))
    x = rand(3, 1, 8, 8)
    for net in (plain, hybrid):
        for param in net.collect_params().values():
            if param.grad_req != "null":
                param.grad_req = "add"
        for i in range(3):
            if i == 2:
                net[0].weight.zero_grad()
            with autograd.record():
                out = net(x * (i + 1))
            out.backward(head(out))
    assert_same_states(plain, hybrid, 2e-5)


def test_parameters_without_gradient():
    x = rand(3, 1, 8, 8)
    plain, hybrid = twins(lenet, x)
    for net in (plain, hybrid):
        net[0].collect_params().setattr("grad_req", "null")
        step(net, [x])
    assert "0.weight" not in parameters(hybrid, True)
    assert_same_states(plain, hybrid, 2e-5)
    for net in (plain, hybrid):
        net[0].collect_params().setattr("grad_req", "write")
        step(net, [x])
    assert_same_states(plain, hybrid, 2e-5)


def test_going_backward_twice():
    x = rand(4, 2, 7, 7)
    plain, hybrid = twins(resnet, x)
    results = []
    for net in (plain, hybrid):
        x.attach_grad()
        with autograd.record():
            out = net(x)
        out.backward(retain_graph=True)
        first = x.grad.copy()
        out.backward(head(out))
        results.append((first.asnumpy(), x.grad.asnumpy()))
    assert_close(results[1], results[0], 2e-5, "gradient")
    assert_same_states(plain, hybrid, 2e-5)
    with pytest.raises(MXNetError):
        out.backward()


def test_part_of_the_outputs_goes_backward():
    make, inputs = NETWORKS["nested"]
    for chosen in (0, 3):
        grads = []
        for net in twins(make, *inputs):
            arrays = leaves(inputs)
            for array in arrays:
                array.attach_grad()
            with autograd.record():
                out = flat(net(*inputs))[chosen]
            out.backward()
            grads.append([a.grad.asnumpy() for a in arrays])
        assert_close(grads[1], grads[0], 2e-5, f"output {chosen}")


def test_gradient_of_gradient():
    class Cubic(gluon.HybridBlock):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.w = self.params.get("w", shape=(3,), init=mx.init.Constant(0.7))

        def hybrid_forward(self, F, x, w):
            return F.broadcast_mul(F.sin(x) * x * x, w * w)

    x = rand(4, 3)
    found = []
    for net in twins(Cubic, x):
        x.attach_grad()
        with autograd.record():
            y = net(x)
            (dx,) = autograd.grad(y, [x], create_graph=True, retain_graph=True)
            penalty = (dx * dx).sum()
        penalty.backward()
        found.append([dx.asnumpy(), x.grad.asnumpy(), net.w.grad().asnumpy()])
    assert_close(found[1], found[0], 1e-5, "second derivative")
    v = x.asnumpy().astype("float64")
    ww = net.w.data().asnumpy() ** 2
    first = ww * (np.cos(v) * v * v + 2 * v * np.sin(v))
    second = ww * (-np.sin(v) * v * v + 4 * v * np.cos(v) + 2 * np.sin(v))
    np.testing.assert_allclose(found[1][0], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1][1], 2 * first * second, rtol=1e-4, atol=1e-5)


def test_gradient_penalty_through_a_network():
    """A penalty on the gradient of the input, as critics are trained; statistics move once a step."""

    def critic():
        net = nn.HybridSequential()
        net.add(nn.Dense(5, activation="tanh"), nn.BatchNorm(), nn.Dense(1))
        return net

    x = rand(6, 4)
    plain, hybrid = twins(critic, x)
    for net in (plain, hybrid):
        x.attach_grad()
        with autograd.record():
            y = net(x)
            (dx,) = autograd.grad(y, [x], create_graph=True, retain_graph=True)
            loss = y.mean() + ((dx.norm(axis=1) - 1) ** 2).mean()
        loss.backward()
    assert_same_states(plain, hybrid, 1e-4)


def test_gradient_penalty_keeps_the_mask_of_dropout():
    net = nn.HybridSequential()
    net.add(nn.Dropout(0.5), nn.HybridLambda(lambda F, v: v * v))
    net.hybridize()
    x = nd.ones((50, 20))
    x.attach_grad()
    with autograd.record():
        y = net(x)
        (dx,) = autograd.grad(y, [x], create_graph=True, retain_graph=True)
        total = dx.sum()
    total.backward()
    # y = (m x)^2 with m either 0 or 2.
    np.testing.assert_allclose(dx.asnumpy(), 2 * y.asnumpy(), rtol=1e-5)
    np.testing.assert_allclose(x.grad.asnumpy(), 2 * y.asnumpy(), rtol=1e-5)


def test_a_hybridized_layer_among_recorded_operators():
    x = rand(4, 3)
    plain, hybrid = twins(lambda: nn.Dense(3, activation="tanh"), x)
    found = []
    for net in (plain, hybrid):
        x.attach_grad()
        with autograd.record():
            y = net(nd.exp(x)) * x
            for _ in range(2):
                y = net(y) + nd.sin(y)
            loss = (y * y).sum()
        loss.backward()
        found.append([x.grad.asnumpy(), net.weight.grad().asnumpy()])
    assert_close(found[1], found[0], 2e-5, "gradient")


def test_weights_changed_between_calls_are_seen():
    x = rand(2, 3)
    net = nn.HybridSequential()
    net.add(nn.Conv1D(2, 1, in_channels=3), nn.BatchNorm(in_channels=2))
    net.initialize()
    net.hybridize()
    x = rand(2, 3, 5)
    before = net(x).asnumpy()
    net[0].weight.data()[:] = net[0].weight.data() * 2
    net[1].running_var.set_data(nd.array([4.0, 9.0]))
    after = net(x).asnumpy()
    net.hybridize(False)
    np.testing.assert_allclose(net(x).asnumpy(), after, rtol=1e-5, atol=1e-6)
    assert not np.allclose(before, after)
    net[0].collect_params().initialize(mx.init.One(), force_reinit=True)
    imperative = net(x).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(x).asnumpy(), imperative, rtol=1e-5, atol=1e-6)


def test_inputs_are_left_alone():
    """An output that is an input, and work in place, never write where the caller's array lies."""

    class Through(gluon.HybridBlock):
        def hybrid_forward(self, F, x, y):
            return x, x + 1, F.relu(y), y.reshape((-1,)), F.identity(x)

    net = Through()
    net.hybridize()
    x, y = rand(2, 3), rand(2, 3, seed=1)
    was = x.asnumpy(), y.asnumpy()
    outs = net(x, y)
    outs[0][:] = 7
    outs[3][:] = 8
    outs[4][:] = 9
    np.testing.assert_array_equal(x.asnumpy(), was[0])
    np.testing.assert_array_equal(y.asnumpy(), was[1])
    x.attach_grad()
    with autograd.record():
        outs = net(x, y)
        total = outs[0].sum() * 2 + outs[1].sum() + outs[4].sum() * 5
    total.backward()
    assert (x.grad.asnumpy() == 8).all()


def test_earlier_results_outlive_later_calls():
    net = nn.HybridSequential()
    net.add(nn.Dense(4, activation="relu"), nn.Dense(2))
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    inputs = [rand(3, 5, seed=i) for i in range(4)]
    kept = [net(x) for x in inputs]
    net.hybridize(False)
    for x, y in zip(inputs, kept):
        np.testing.assert_allclose(y.asnumpy(), net(x).asnumpy(), rtol=1e-5, atol=1e-6)


def test_two_recorded_calls_before_going_backward():
    x, z = rand(4, 2, 7, 7), rand(4, 2, 7, 7, seed=9)
    plain, hybrid = twins(resnet, x)
    for net in (plain, hybrid):
        with autograd.record():
            loss = (net(x) * 2).sum() + (net(z) ** 2).sum()
        loss.backward()
    for name, grad in parameters(plain, True).items():
        np.testing.assert_allclose(parameters(hybrid, True)[name], grad, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_mode_of_a_recorded_call_holds_for_its_second_derivative():
    net = nn.HybridSequential()
    net.add(nn.Dropout(0.5), nn.HybridLambda(lambda F, v: v * v))
    net.hybridize()
    x = nd.ones((10, 10))
    x.attach_grad()
    with autograd.record(train_mode=False):
        y = net(x)
    with autograd.record():
        (dx,) = autograd.grad(y, [x], create_graph=True, retain_graph=True, train_mode=False)
    assert (dx.asnumpy() == 2).all()


def test_several_threads_call_one_graph():
    """Predictions in threads use working memory of their own, or wait for one another."""
    net = resnet()
    net.initialize()
    net.hybridize()
    inputs = [rand(4, 2, 7, 7, seed=i) for i in range(8)]
    expected = [net(x).asnumpy() for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda x: net(x).asnumpy(), inputs))
            for a, b in zip(found, expected):
                np.testing.assert_array_equal(a, b)
