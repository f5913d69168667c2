"""What the tests of hybridize share: networks, and twins of which one is hybridized."""

import numpy as np

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn
from test_gluon_nn import LAYERS as _ALL_LAYERS

# What `nn.Lambda` wraps is no graph; everything else of `gluon.nn` is.
LAYERS = [(layer, shape) for layer, shape in _ALL_LAYERS if "nn.Lambda(" not in layer] + [
    ("nn.BatchNormReLU()", (4, 3, 2, 2)),
    ("nn.Conv2D(4, 3, activation='sigmoid', in_channels=3)", (2, 3, 5, 5)),
    ("nn.Dense(3, activation='relu', use_bias=False)", (2, 4)),
    ("nn.AvgPool2D(2, 3, ceil_mode=True)", (1, 2, 8, 8)),
    ("nn.Conv2DTranspose(3, 3, activation='relu', output_padding=1, strides=2)", (1, 2, 4, 4)),
    ("nn.HybridSequential()", (2, 3)),
]


def rand(*shape, dtype="float32", seed=0):
    return nd.array(np.random.RandomState(seed + sum(shape)).randn(*shape), dtype=dtype)


def fill(net):
    """Values that depend on a parameter's place and shape alone; statistics stay as they were initialized."""
    for i, (_, param) in enumerate(sorted(net._collect_params_with_prefix().items())):
        if param.grad_req == "null" or isinstance(param, gluon.Constant):
            continue
        n = int(np.prod(param.shape))
        values = (
            np.cos(np.arange(n) * 1.7 + i).reshape(param.shape) / np.sqrt(max(n / param.shape[0], 1)) + 0.1
        )
        param.set_data(nd.array(values, dtype=param.dtype))


def twins(make, *inputs, dtype=None):
    """Two nets of `make` with equal parameters, the second one hybridized and not called so far."""
    nets = []
    for _ in range(2):
        with mx.name.NameManager():
            net = make()
        net.initialize()
        if dtype:
            net.cast(dtype)
        nets.append(net)
    plain, hybrid = nets
    with autograd.predict_mode():
        plain(*inputs)
    fill(plain)
    hybrid.hybridize()
    with autograd.predict_mode():
        hybrid(*inputs)
    for name, param in plain._collect_params_with_prefix().items():
        hybrid._collect_params_with_prefix()[name].set_data(param.data())
    return plain, hybrid


def flat(results):
    if isinstance(results, nd.NDArray):
        return [results]
    return [leaf for item in results for leaf in flat(item)]


def leaves(inputs):
    return [leaf for item in inputs for leaf in ([item] if isinstance(item, nd.NDArray) else leaves(item))]


def head(out):
    """A gradient that differs in every place."""
    return nd.array(np.sin(np.arange(out.size) + 1).reshape(out.shape), dtype=out.dtype)


def step(net, inputs, train=True, retain=False):
    """Outputs and gradients of the inputs of one recorded call."""
    arrays = leaves(inputs)
    for array in arrays:
        array.attach_grad()
    with autograd.record(train_mode=train):
        out = net(*inputs)
        outs = flat(out)
    autograd.backward(outs, [head(o) for o in outs], retain_graph=retain)
    return [o.asnumpy() for o in outs], [a.grad.asnumpy() for a in arrays]


def parameters(net, grads):
    found = {}
    for name, param in net._collect_params_with_prefix().items():
        if grads and param.grad_req != "null":
            found[name] = param.grad().asnumpy()
        elif not grads:
            found[name] = param.data().asnumpy()
    return found


def assert_close(ours, theirs, tol, what):
    assert len(ours) == len(theirs), what
    for i, (a, b) in enumerate(zip(ours, theirs)):
        assert a.shape == b.shape and a.dtype == b.dtype, (what, i, a.shape, b.shape, a.dtype, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol, err_msg=f"{what} {i}")


def assert_same_states(plain, hybrid, tol, grads=True):
    for kind in (True, False) if grads else (False,):
        ours, theirs = parameters(hybrid, kind), parameters(plain, kind)
        assert sorted(ours) == sorted(theirs)
        for name in theirs:
            what = ("gradient of " if kind else "value of ") + name
            np.testing.assert_allclose(ours[name], theirs[name], rtol=tol, atol=tol, err_msg=what)


def assert_twins_agree(plain, hybrid, inputs, tol=2e-5, steps=3, lr=0.05):
    """Several steps of training, then prediction, of both; everything that can be seen must agree."""
    nets = (plain, hybrid)
    trainers = []
    for net in nets:
        params = net.collect_params()
        learnt = any(p.grad_req != "null" for p in params.values())
        trainers.append(
            gluon.Trainer(params, "sgd", {"learning_rate": lr, "momentum": 0.9}) if learnt else None
        )
    for i in range(steps):
        (outs, grads), (hybrid_outs, hybrid_grads) = (step(net, inputs) for net in nets)
        assert_close(hybrid_outs, outs, tol, f"output in step {i}")
        assert_close(hybrid_grads, grads, tol, f"gradient of the input in step {i}")
        assert_same_states(plain, hybrid, tol)
        for trainer in trainers:
            if trainer:
                trainer.step(4)
    assert_same_states(plain, hybrid, tol)
    for train in (False, True):
        (outs, grads), (hybrid_outs, hybrid_grads) = (step(net, inputs, train=train) for net in nets)
        assert_close(hybrid_outs, outs, tol, f"output recorded with train_mode={train}")
        assert_close(hybrid_grads, grads, tol, f"gradient recorded with train_mode={train}")
    expected, got = (flat(net(*inputs)) for net in nets)
    assert_close([o.asnumpy() for o in got], [o.asnumpy() for o in expected], tol, "prediction")


# --- networks of several layers ------------------------------------------------------------------------------


class Residual(gluon.HybridBlock):
    """Two convolutions beside a shortcut, with normalization before the sum."""

    def __init__(self, channels, down=False, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            stride = 2 if down else 1
            self.body = nn.HybridSequential()
            self.body.add(
                nn.Conv2D(channels, 3, stride, 1, use_bias=False), nn.BatchNorm(), nn.Activation("relu")
            )
            self.body.add(nn.Conv2D(channels, 3, 1, 1, use_bias=False), nn.BatchNorm())
            self.short = nn.Conv2D(channels, 1, stride, use_bias=False) if down else None

    def hybrid_forward(self, F, x):
        short = self.short(x) if self.short is not None else x
        return F.Activation(self.body(x) + short, act_type="relu")


def resnet():
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(
            nn.Conv2D(4, 3, padding=1), Residual(4), Residual(6, down=True), nn.GlobalAvgPool2D(), nn.Dense(3)
        )
    return net


def lenet():
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Conv2D(3, 3, activation="tanh"), nn.MaxPool2D(), nn.BatchNorm(momentum=0.7), nn.Flatten())
        net.add(nn.Dense(6, activation="relu"), nn.LayerNorm(), nn.PReLU(), nn.Dense(4))
    return net


class Scales(gluon.HybridBlock):
    """Scalars on either side of every operator."""

    def hybrid_forward(self, F, x):
        y = 2 * x + 1 - (3 - x) / 2 + 1 / (x * x + 1) - (-x)
        y = y + (x**2) * 0.1 + F.abs(x) ** 1.5 + 2 ** (x * 0.1) + x % 3
        return y + (x > 0) * x + (x <= 0.5) * 2 + F.maximum(x, 0.1) + F.minimum(0.2, x) + F.clip(x, -0.3, 0.4)


class Shapes(gluon.HybridBlock):
    """Zeros, slices, joins and turned axes."""

    def hybrid_forward(self, F, x):
        zero = F.zeros_like(x) + F.ones_like(x)
        left, right = F.split(x, num_outputs=2, axis=1)
        part = F.slice_axis(x, axis=1, begin=1, end=-1)
        joined = F.concat(left, right * 2, part, zero, dim=1)
        turned = F.transpose(joined, axes=(0, 2, 1)).reshape((0, -1))
        stacked = F.stack(left.sum(axis=1), right.mean(axis=1), axis=1)
        wide = F.broadcast_add(
            stacked.sum(axis=1).expand_dims(1), F.slice(x, begin=(None, 0, None), end=(None, 2, None))
        )
        return (
            turned,
            F.slice_like(wide, left, axes=(0, 1)),
            F.broadcast_like(x.sum(axis=2, keepdims=True), x),
            F.reverse(x, axis=2),
        )


class Nested(gluon.HybridBlock):
    """Lists in lists, in and out."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.dense = nn.Dense(3, flatten=False)

    def hybrid_forward(self, F, x, pair):
        a, (b, c) = pair
        return self.dense(x), [a * b, (self.dense(c), F.dot(b, c.transpose()))], b - 1


class Own(gluon.HybridBlock):
    """Parameters and a constant of the block's own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.scale = self.params.get("scale", shape=(1, 4), init=mx.init.One())
            self.late = self.params.get("late", shape=(5, 0), allow_deferred_init=True)
            self.table = self.params.get_constant("table", np.arange(4).reshape(1, 4) - 1.5)

    def hybrid_forward(self, F, x, scale, late, table):
        y = F.broadcast_mul(x, scale) + F.broadcast_mul(table, F.ones_like(x))
        return F.FullyConnected(y, late, no_bias=True, num_hidden=5)


class Tied(gluon.HybridBlock):
    """One matrix in two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.one = nn.Dense(4, in_units=4)
            self.two = nn.Dense(4, in_units=4, params=self.one.params)

    def hybrid_forward(self, F, x):
        return self.two(F.tanh(self.one(x))) + self.one(x)


class Picks(gluon.HybridBlock):
    """Operators of sub-namespaces, and of those with several outputs."""

    def hybrid_forward(self, F, x):
        best, where = F.topk(x, k=2, ret_typ="both", axis=-1)
        product = F.linalg.gemm2(x, x, transpose_b=True)
        pooled = F.contrib.AdaptiveAvgPooling2D(x.expand_dims(0).expand_dims(0), output_size=2)
        chosen = F.contrib.index_copy(x, F.arange(0, 1), F.slice_axis(x, axis=0, begin=1, end=2))
        mask = F.where(x > 0, x, F.zeros_like(x) - 1)
        return best, where, product, pooled, chosen, F.norm(mask, axis=1), F.softmax(x), F.BlockGrad(x) * x


class Reuse(gluon.HybridBlock):
    """A layer with running statistics that is called twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.norm = nn.BatchNorm()

    def hybrid_forward(self, F, x):
        return x + self.norm(self.norm(x * 3 + 1) + x)


def lambdas():
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, x: F.tanh(x) * 2), nn.HybridLambda("relu"), nn.Dense(2), Scales())
    return net


def concurrent():
    net = gluon.contrib.nn.HybridConcurrent(axis=1)
    net.add(nn.Dense(2), gluon.contrib.nn.Identity(), nn.Dense(3, activation="sigmoid"))
    return net


NETWORKS = {
    "resnet": (resnet, [rand(4, 2, 7, 7)]),
    "lenet": (lenet, [rand(4, 1, 8, 8)]),
    "scales": (Scales, [rand(3, 4)]),
    "shapes": (Shapes, [rand(2, 4, 3)]),
    "nested": (Nested, [rand(2, 4), [rand(2, 4), [rand(2, 4, seed=1), rand(2, 4, seed=2)]]]),
    "own": (Own, [rand(2, 4)]),
    "tied": (Tied, [rand(3, 4)]),
    "picks": (Picks, [rand(3, 4)]),
    "reuse": (Reuse, [rand(6, 4)]),
    "lambdas": (lambdas, [rand(3, 4)]),
    "concurrent": (concurrent, [rand(3, 4)]),
}
