"""KVStore: keys, sums over devices, updaters and optimizers, the registry."""

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd

TWO = [mx.cpu(0), mx.cpu(1)]


def full(value, ctx=None, shape=(2,)):
    return nd.full(shape, value, ctx=ctx or mx.cpu())


def pulled(store, key, ctx=None):
    out = nd.zeros((2,), ctx=ctx)
    store.pull(key, out=out)
    assert out.context == (ctx or mx.cpu())
    return out.asnumpy().tolist()


@pytest.fixture(params=["local", "device"])
def store(request):
    return mx.kv.create(request.param)


# --- values ---


@pytest.mark.parametrize("key", [3, "weight"])
def test_init_push_pull(store, key):
    store.init(key, full(1))
    assert pulled(store, key) == [1, 1]
    store.push(key, full(5))
    assert pulled(store, key, mx.cpu(1)) == [5, 5]
    store.push(key, [full(1), full(2, mx.cpu(1)), full(4)], priority=-7)
    assert pulled(store, key) == [7, 7]


def test_lists_of_keys_and_of_outs(store):
    store.init([4, 5], [full(1), full(2)])
    store.push((4, 5), [[full(1), full(1, mx.cpu(1))], [full(3)]])
    outs = [[nd.zeros((2,), ctx=c) for c in TWO] for _ in range(2)]
    store.pull([4, 5], out=outs)
    assert [[a.asnumpy()[0] for a in part] for part in outs] == [[2, 2], [3, 3]]
    # A key that stands there twice is pushed once, with the values of both.
    store.push([4, 4], [full(1), full(2)])
    assert pulled(store, 4) == [3, 3]


def test_stored_arrays_are_copies(store):
    value = full(1)
    store.init(0, value)
    value[:] = 9
    assert pulled(store, 0) == [1, 1]
    value[:] = 2
    store.push(0, value)
    value[:] = 9
    assert pulled(store, 0) == [2, 2]
    out = nd.zeros((2,))
    store.pull(0, out)
    out[:] = 9
    assert pulled(store, 0) == [2, 2]


def test_pushpull_and_broadcast(store):
    outs = [nd.zeros((2,), ctx=c) for c in TWO]
    store.broadcast(0, full(4), out=outs)
    assert [a.asnumpy().tolist() for a in outs] == [[4, 4]] * 2
    store.pushpull(0, [full(1), full(2, mx.cpu(1))], out=outs)
    assert [a.asnumpy().tolist() for a in outs] == [[3, 3]] * 2
    grads = [full(1), full(6, mx.cpu(1))]
    store.pushpull(0, grads)
    assert [a.asnumpy().tolist() for a in grads] == [[7, 7]] * 2
    assert pulled(store, 0) == [7, 7]


def test_dtypes_are_cast_on_the_way_out(store):
    store.init(0, full(1.5))
    out = nd.zeros((2,), dtype="float64")
    store.pull(0, out)
    assert out.dtype == np.float64 and out.asnumpy().tolist() == [1.5, 1.5]


def test_what_a_store_says_of_itself(store):
    assert (store.rank, store.num_workers) == (0, 1) and store.type in ("local", "device")
    assert store.is_capable("optimizer") and isinstance(store, mx.kvstore.KVStoreBase)
    store.barrier()
    assert mx.kv.create("NCCL").type == "nccl" and mx.kv.create().type == "local"


# --- updates ---


@pytest.mark.parametrize("keys", [(0, 1), ("a", "b")], ids=["int", "str"])
def test_an_updater_sees_key_sum_and_stored(store, keys):
    store.init(list(keys), [full(1), full(1)])
    calls = []

    def updater(key, pushed, stored):
        calls.append((key, pushed.asnumpy()[0], stored.asnumpy()[0]))
        stored += pushed * 2

    store._set_updater(updater)
    store.push([keys[1], keys[0]], [[full(3), full(4, mx.cpu(1))], full(1)])
    out = full(0)
    store.pushpull(keys[0], full(1), out=out)
    seen = [k.encode() if isinstance(k, str) else k for k in keys]
    assert calls == [(seen[0], 1, 1), (seen[1], 7, 1), (seen[0], 1, 3)]
    assert out.asnumpy().tolist() == [5, 5] and pulled(store, keys[1]) == [15, 15]


def test_an_exception_of_the_updater_arrives(store):
    store.init(0, full(1))
    store.set_updater(lambda key, pushed, stored: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.push(0, full(1))
    store.set_updater(None)
    store.push(0, full(3))
    assert pulled(store, 0) == [3, 3]


@pytest.mark.parametrize("key", [0, "w"])
def test_an_optimizer_inside(store, tmp_path, key):
    def fresh():
        made = mx.kv.create(store.type)
        made.init(key, full(1))
        optimizer = mx.optimizer.SGD(learning_rate=0.5, momentum=0.9)
        made.set_optimizer(optimizer)
        return made, optimizer

    first, optimizer = fresh()
    first.push(key, [full(0.5), full(0.5, mx.cpu(1))])
    assert pulled(first, key) == [0.5, 0.5]
    assert list(first._updater.states) == [key]
    for dump in (False, True):
        path = str(tmp_path / f"{dump}.states")
        first.save_optimizer_states(path, dump_optimizer=dump)
        second, _ = fresh()
        second.load_optimizer_states(path)
        second.push(key, full(1))
        # The momentum of the first push, -0.5, goes on: 1 + (0.9 * -0.5 - 0.5).
        np.testing.assert_allclose(pulled(second, key), [0.05, 0.05], rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["False.states", "True.states"]
    optimizer.set_learning_rate(0.0)
    first.push(key, full(1))
    np.testing.assert_allclose(pulled(first, key), [0.05, 0.05], rtol=1e-5)


# --- what is refused ---


def _with(key=0):
    store = mx.kv.create("local")
    store.init(key, full(1))
    return store


REFUSED = [
    (lambda: _with().init(0, full(1)), mx.MXNetError, "duplicate init of key 0"),
    (lambda: mx.kv.create().init(0, [full(1), full(2)]), mx.MXNetError, "duplicate init of key 0"),
    (lambda: _with().push(9, full(1)), mx.MXNetError, "key 9 has not been initialized"),
    (lambda: _with().pull(9, full(1)), mx.MXNetError, "key 9 has not been initialized"),
    (lambda: _with().pushpull(9, full(1)), mx.MXNetError, "key 9 has not been initialized"),
    (lambda: _with().init("a", full(1)), mx.MXNetError, "mixed key types"),
    (lambda: _with().pull("0", full(1)), mx.MXNetError, "mixed key types"),
    (lambda: _with().push([0, "a"], [full(1)] * 2), AssertionError, "inconsistent types of keys"),
    (lambda: _with().push(1.5, full(1)), AssertionError, "unexpected type for keys"),
    (lambda: _with().push([0, 0], [full(1)]), AssertionError, "2 keys and 1 values"),
    (lambda: _with().push(0, 3), TypeError, "must be an NDArray"),
    (lambda: _with().push(0, []), ValueError, "empty list"),
    (lambda: _with().push(0, full(1, shape=(3,))), mx.MXNetError, r"holds shape \(2,\).*\(3,\)"),
    (lambda: _with().pull(0, full(1, shape=(3,))), mx.MXNetError, r"holds shape \(2,\).*\(3,\)"),
    (lambda: _with().pull(0), AssertionError, "out is needed"),
    (lambda: _with().set_optimizer("sgd"), TypeError, "Optimizer"),
    (lambda: _with().set_updater(3), TypeError, "callable"),
    (lambda: _with().save_optimizer_states("f"), AssertionError, "Cannot save states"),
    (lambda: _with().load_optimizer_states("f"), AssertionError, "Cannot load states"),
    (lambda: _with().is_capable("magic"), ValueError, "Unknown capability: magic"),
    (lambda: _with().set_gradient_compression({"type": "2bit"}), NotImplementedError, "set_gradient_comp"),
    (lambda: _with().row_sparse_pull(0, full(1), row_ids=full(0)), NotImplementedError, "row_sparse_pull"),
    (lambda: mx.kv.create(3), TypeError, "name must be a string"),
    (lambda: mx.kv.create("foo"), ValueError, "unknown kvstore 'foo'; known are local, device"),
    (lambda: mx.kv.create("dist_sync"), NotImplementedError, "dist_sync"),
    (lambda: mx.kvstore.KVStoreServer(_with()).run(), NotImplementedError, "KVStoreServer.run"),
    (lambda: mx.kvstore.KVStoreBase.register(3), AssertionError, "a class is needed"),
    (lambda: mx.kvstore.KVStoreBase().pushpull(0, full(1)), NotImplementedError, "pushpull"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_calls_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_refused_push_changes_nothing(store):
    store.init([0, 1], [full(1), full(2)])
    with pytest.raises(mx.MXNetError):
        store.push([0, 1], [full(5), full(5, shape=(3,))])
    assert pulled(store, 0) == [1, 1]


# --- the registry ---


def test_a_registered_store_is_made_by_name(monkeypatch):
    monkeypatch.setattr(mx.kvstore.KVStoreBase, "kv_registry", {})

    @mx.kvstore.KVStoreBase.register
    class MyStore(mx.kvstore.KVStoreBase):
        @property
        def type(self):
            return "mine"

    assert mx.kv.create("mystore").type == mx.kv.create("MyStore").type == "mine"
    with pytest.warns(UserWarning, match="takes the name 'mystore'"):
        mx.kvstore.KVStoreBase.register(type("MyStore", (), {}))


# --- the oracle ---

ROUNDS = """
kv = mx.kv.create(NAME)
keys = [3, 5]
kv.init(keys, [x, y])
kv.set_optimizer(mx.optimizer.create(OPTIMIZER, learning_rate=0.1, wd=0.01, rescale_grad=0.5))
out_values = []
for step in range(4):
    kv.push(keys, [[(x * 0.1 * i + step).as_in_context(mx.cpu(i)) for i in range(2)], y * 0.3])
    a, b = nd.zeros(x.shape), nd.zeros(y.shape)
    kv.pull(keys, out=[a, b])
    out_values += [a, b]
"""


@pytest.mark.parametrize("name", ["local", "device"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_in_the_store_as_mxnet(oracle, name, optimizer):
    rng = np.random.RandomState(0)
    code = ROUNDS.replace("NAME", repr(name)).replace("OPTIMIZER", repr(optimizer))
    oracle.check(code, x=rng.randn(3, 2).astype("float32"), y=rng.randn(4).astype("float32"))
