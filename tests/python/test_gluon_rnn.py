"""gluon.rnn: cells and what is made of them, unrolled over arrays, against MXNet; the layers of the RNN
operator.
"""

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import rnn

MAKERS = """
G = gluon.rnn
def stack(kind, *makers):
    cell = kind()
    with cell.name_scope():
        for make in makers:
            cell.add(make())
    return cell
def flat(x):
    return [z for y in x for z in flat(y)] if isinstance(x, (list, tuple)) else [x]
def run(cell, x, layout, merge, length):
    cell.initialize()
    cell.unroll(4, x, layout=layout)
    params = cell.collect_params()
    rng = np.random.RandomState(1)
    for p in params.values():
        p.set_data(nd.array(rng.uniform(-0.5, 0.5, p.shape)))
    with autograd.record(train_mode=False):
        out, states = cell.unroll(4, x, layout=layout, merge_outputs=merge, valid_length=length)
        loss = sum((y * y).sum() for y in flat(out) + flat(states))
    if len(params.keys()):
        loss.backward()
    return [out, states, list(params), [p.grad() for p in params.values()]]
"""

CELLS = {
    "rnn": "G.RNNCell(3)",
    "lstmp": "gluon.contrib.rnn.LSTMPCell(3, 2)",
    "vardrop": "gluon.contrib.rnn.VariationalDropoutCell(G.LSTMCell(3), 0.3, 0.3, 0.3)",
    "relu": "G.RNNCell(3, activation='relu', prefix='z_')",
    "softrelu": "G.RNNCell(3, activation='softrelu', input_size=3)",
    "lstm": "G.LSTMCell(3)",
    "lstm_relu": "G.LSTMCell(3, activation='relu', recurrent_activation='tanh')",
    "gru": "G.GRUCell(3)",
    "stack": "stack(G.SequentialRNNCell, lambda: G.LSTMCell(3), lambda: G.DropoutCell(0.3), lambda: G.ResidualCell(G.GRUCell(3)))",
    "hybrid_stack": "stack(G.HybridSequentialRNNCell, lambda: G.GRUCell(3), lambda: G.ZoneoutCell(G.RNNCell(3), 0.2, 0.3))",
    "both_ways": "G.BidirectionalCell(G.LSTMCell(3), G.GRUCell(3))",
    "stack_of_both_ways": "stack(G.HybridSequentialRNNCell, lambda: G.BidirectionalCell(G.LSTMCell(3), G.GRUCell(3)), lambda: G.LSTMCell(2))",
    "residual": "G.ResidualCell(G.LSTMCell(3))",
    "zoneout": "G.ZoneoutCell(G.LSTMCell(3), 0.1, 0.1)",
    "dropout": "G.DropoutCell(0.4)",
}
TWO_WAYS = ("both_ways", "stack_of_both_ways")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
def test_unrolled_cells_equal_mxnet(oracle, name, layout):
    # MXNet fails for two directions with lengths in NTC; test_lengths_in_both_layouts has those.
    lengths = [None] if name in TWO_WAYS and layout == "NTC" else [None, [1, 4]]
    x = np.random.RandomState(0).randn(2, 4, 3).astype("f4")
    oracle.check(
        f"""{MAKERS}
out_runs = []
for merge in (None, True, False):
    for length in {lengths!r}:
        with mx.name.NameManager():
            length = None if length is None else nd.array(length)
            out_runs.append(run({CELLS[name]}, x, {layout!r}, merge, length))
            if {layout!r} == "NTC":
                steps = [nd.array(np_x[:, i]) for i in range(4)]
                out_runs.append(run({CELLS[name]}, steps, {layout!r}, merge, None))
""",
        x=x if layout == "NTC" else x.transpose(1, 0, 2),
    )


@pytest.mark.parametrize("name", CELLS)
def test_names_and_descriptions_equal_mxnet(oracle, name):
    oracle.check(
        f"""{MAKERS}
with mx.name.NameManager():
    cell = {CELLS[name]}
    out_names = [cell.prefix, cell.name, repr(cell), list(cell.collect_params()), list(cell._collect_params_with_prefix())]
    out_shapes = [p.shape for p in cell.collect_params().values()]
    out_states = [cell.state_info(), cell.state_info(5), [s.shape for s in cell.begin_state(batch_size=2, func=nd.zeros)]]
"""
    )


def test_one_step(oracle):
    oracle.check(
        """
out_steps = []
for make in (gluon.rnn.RNNCell, gluon.rnn.LSTMCell, gluon.rnn.GRUCell):
    cell = make(2)
    cell.initialize(mx.init.One())
    states = cell.begin_state(2, func=nd.ones)
    out_steps.append(cell(x, states))
""",
        x=np.arange(6.0, dtype="f4").reshape(2, 3) / 10,
    )


def test_states_are_arrays_by_default():
    # MXNet gives Symbols where a modifier cell is among the cells.
    cell = rnn.SequentialRNNCell()
    cell.add(rnn.ResidualCell(rnn.RNNCell(3)))
    assert isinstance(cell.begin_state(batch_size=2)[0], nd.NDArray)


def test_states_follow_ctx_dtype_and_function():
    cell = rnn.LSTMCell(3)
    h, c = cell.begin_state(2, dtype="float16", ctx=mx.cpu())
    assert (h.shape, h.dtype, c.dtype) == ((2, 3), np.float16, np.float16)
    seen = []
    cell.begin_state(4, func=lambda **kw: seen.append(kw), answer=1)
    assert seen[0] == {
        "name": f"{cell.prefix}begin_state_2",
        "shape": (4, 3),
        "__layout__": "NC",
        "answer": 1,
    }
    cell.cast("float16")
    cell.initialize()
    out, states = cell.unroll(2, nd.ones((1, 2, 3), dtype="float16"), merge_outputs=True)
    assert out.dtype == np.float16 == states[1].dtype


@pytest.mark.parametrize("name", TWO_WAYS)
def test_lengths_in_both_layouts(name):
    space: dict = {"gluon": gluon, "nd": nd, "np": np, "autograd": autograd}
    exec(MAKERS, space)
    x, lengths = nd.random.uniform(shape=(2, 4, 3)), nd.array([1, 3])
    cell = eval(CELLS[name], space)
    cell.initialize()
    out, states = cell.unroll(4, x, valid_length=lengths)
    other, other_states = cell.unroll(4, x.transpose((1, 0, 2)), layout="TNC", valid_length=lengths)
    np.testing.assert_allclose(out.asnumpy(), other.asnumpy().transpose(1, 0, 2), rtol=1e-6)
    assert not out.asnumpy()[0, 1:].any() and out.asnumpy()[1, :3].all()
    # What lies behind a sequence's end has no influence.
    changed = x.copy()
    changed[0, 1:] = 7
    again, again_states = cell.unroll(4, changed, valid_length=lengths)
    np.testing.assert_array_equal(out.asnumpy(), again.asnumpy())
    for a, b, c in zip(states, other_states, again_states):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-6)
        np.testing.assert_array_equal(a.asnumpy(), c.asnumpy())


def test_zoneout_and_dropout_act_in_training():
    mx.random.seed(3)
    cell = rnn.ZoneoutCell(rnn.RNNCell(200), 0.5, 0.25)
    cell.initialize()
    x, state = nd.ones((1, 4)), [nd.full((1, 200), 7)]
    with autograd.record():
        first, states = cell(x, state)
        second, _ = cell(x, states)
    kept = (states[0].asnumpy() == 7).mean()
    assert 0.1 < kept < 0.4 and 0.3 < (first.asnumpy() == 0).mean() < 0.7
    assert 0.3 < (second.asnumpy() == first.asnumpy()).mean() < 0.8
    out, _ = cell(x, state)
    assert (out.asnumpy() != 0).all()
    cell.reset()
    dropped = rnn.DropoutCell(0.5)
    with autograd.record():
        assert 0.3 < (dropped.unroll(3, nd.ones((2, 3, 50)))[0].asnumpy() == 0).mean() < 0.7


def test_variational_dropout_draws_once_per_sequence():
    class Echo(rnn.HybridRecurrentCell):
        def state_info(self, batch_size=0):
            return [{"shape": (batch_size, 8), "__layout__": "NC"}]

        def hybrid_forward(self, F, inputs, states):
            return inputs, [F.ones_like(states[0])]

    cell = gluon.contrib.rnn.VariationalDropoutCell(Echo(), drop_inputs=0.5, drop_outputs=0.25)
    x = nd.ones((4, 6, 8))
    with autograd.record():
        first, _ = cell.unroll(6, x, merge_outputs=True)
        second, _ = cell.unroll(6, x, merge_outputs=True)
    assert (first == first[:, :1].broadcast_to(first.shape)).asnumpy().all()
    assert set(np.unique(first.asnumpy()).round(4)) <= {0, np.float32(1 / 0.5 / 0.75).round(4)}
    assert (first != second).asnumpy().any()
    outside, _ = cell.unroll(6, x, merge_outputs=True)
    assert (outside == 1).asnumpy().all()
    cell.reset()
    assert cell.drop_inputs_mask is None and cell.drop_states_mask is None
    states = gluon.contrib.rnn.VariationalDropoutCell(rnn.LSTMCell(4), drop_states=0.5)
    states.initialize()
    with autograd.record():
        states.unroll(2, x[:, :2])
    assert states.drop_states_mask.shape == (4, 4) and states.drop_inputs_mask is None
    both = rnn.BidirectionalCell(rnn.LSTMCell(2), rnn.LSTMCell(2))
    with pytest.raises(AssertionError, match="variational state dropout"):
        gluon.contrib.rnn.VariationalDropoutCell(both, drop_states=0.5)
    with pytest.raises(AttributeError, match="Conv2DLSTMCell is not built yet"):
        _ = gluon.contrib.rnn.Conv2DLSTMCell


def test_a_cell_learns():
    """Whether the first element of a sequence was positive has to be remembered over ten steps."""
    mx.random.seed(0)
    rng = np.random.RandomState(0)
    cell = rnn.HybridSequentialRNNCell()
    with cell.name_scope():
        cell.add(rnn.LSTMCell(16))
        cell.add(rnn.GRUCell(16))
    head = gluon.nn.Dense(1)
    cell.initialize(mx.init.Xavier())
    head.initialize(mx.init.Xavier())
    params = cell.collect_params()
    params.update(head.collect_params())
    trainer = gluon.Trainer(params, "adam", {"learning_rate": 0.01})
    loss_of = gluon.loss.SigmoidBinaryCrossEntropyLoss()
    right = []
    for _ in range(200):
        x = rng.randn(32, 10, 1).astype("f4")
        y = (x[:, 0] > 0).astype("f4")
        with autograd.record():
            out, _ = cell.unroll(10, nd.array(x))
            loss = loss_of(head(out[-1]), nd.array(y))
        loss.backward()
        trainer.step(32)
        right.append(((head(out[-1]).asnumpy() > 0) == y).mean())
    assert np.mean(right[:10]) < 0.7 and np.mean(right[-20:]) > 0.85


def test_shared_and_saved_parameters(tmp_path):
    one = rnn.LSTMCell(3, input_size=2)
    two = rnn.LSTMCell(3, input_size=2, params=one.params)
    assert two.i2h_weight is one.i2h_weight
    stack = rnn.SequentialRNNCell()
    stack.add(rnn.BidirectionalCell(rnn.GRUCell(2, input_size=2), rnn.GRUCell(2, input_size=2)))
    stack.add(rnn.ResidualCell(rnn.RNNCell(4, input_size=4)))
    stack.initialize()
    path = str(tmp_path / "stack.params")
    stack.save_parameters(path)
    assert sorted(nd.load(path))[::4] == ["0.l_cell.h2h_bias", "0.r_cell.h2h_bias", "1.base_cell.h2h_bias"]
    values = [p.data().asnumpy() for p in stack.collect_params().values()]
    stack.initialize(force_reinit=True)
    stack.load_parameters(path)
    for value, p in zip(values, stack.collect_params().values()):
        np.testing.assert_array_equal(value, p.data().asnumpy())


def test_what_cells_refuse():
    cell = rnn.LSTMCell(2, input_size=2)
    cell.initialize()
    with pytest.raises(AssertionError, match="have 3 steps in layout NTC, not length=2"):
        cell.unroll(2, nd.ones((1, 3, 2)))
    with pytest.raises(AssertionError, match="1 inputs were given for length=2"):
        cell.unroll(2, [nd.ones((1, 2))])
    with pytest.raises(AssertionError, match="layout must hold T"):
        cell.unroll(2, nd.ones((1, 2, 2)), layout="NCX")
    with pytest.raises(ValueError, match="2 states are needed, got 1"):
        cell(nd.ones((1, 2)), [nd.ones((1, 2))])
    rnn.ResidualCell(cell)
    with pytest.raises(AssertionError, match="After applying modifier cells"):
        cell.begin_state(2)
    with pytest.raises(AssertionError, match="cannot be modified twice"):
        rnn.ZoneoutCell(cell)
    both = rnn.BidirectionalCell(rnn.RNNCell(2), rnn.RNNCell(2))
    with pytest.raises(NotImplementedError, match="cannot be stepped"):
        both(nd.ones((1, 2)), [])
    with pytest.raises(AssertionError, match="doesn't support zoneout"):
        rnn.ZoneoutCell(both)
    with pytest.raises(AssertionError, match="rate must be a number"):
        rnn.DropoutCell("a")
    with pytest.raises(ValueError, match="must also be HybridBlock"):
        rnn.HybridSequentialRNNCell().add(rnn.SequentialRNNCell())
    for call in (
        lambda: rnn.RecurrentCell().state_info(),
        lambda: rnn.RecurrentCell()(nd.ones(1), []),
        lambda: rnn.HybridRecurrentCell()(nd.ones(1), []),
        lambda: rnn.ModifierCell(rnn.RNNCell(2))(nd.ones((1, 2)), [nd.ones((1, 2))]),
    ):
        with pytest.raises(NotImplementedError):
            call()


# ---- layers --------------------------------------------------------------------------------------------

LAYERS = {
    "lstm": "gluon.rnn.LSTM(3, 2, bidirectional=True, prefix='q_')",
    "gru": "gluon.rnn.GRU(3, input_size=5, layout='NTC', dropout=0.2, prefix='q_')",
    "rnn": "gluon.rnn.RNN(3, 2, 'tanh', prefix='q_')",
    "projected": "gluon.rnn.LSTM(3, 2, projection_size=2, prefix='q_')",
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_names_and_states_equal_mxnet(oracle, name):
    oracle.check(
        f"""
layer = {LAYERS[name]}
out_names = [repr(layer), list(layer.collect_params()), list(layer._collect_params_with_prefix())]
out_shapes = [p.shape for p in layer.collect_params().values()]
out_states = [layer.state_info(2), layer.begin_state(2)]
"""
    )


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_layer_computes_what_its_cells_compute(name):
    layer = eval(LAYERS[name])
    layer.initialize()
    cells = layer._unfuse()
    x = nd.random.uniform(shape=(4, 2, 5))
    layout = layer._layout
    expected, states = cells.unroll(x.shape[layout.find("T")], x, layout=layout, merge_outputs=True)
    assert list(cells.collect_params()) == list(layer.collect_params())
    if not hasattr(nd, "RNN"):
        with pytest.raises(NotImplementedError, match="needs the operator RNN"):
            layer(x)
        return
    np.testing.assert_allclose(layer(x).asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-6)
    batch_size = x.shape[layout.find("N")]
    out, last = layer(x, layer.begin_state(batch_size))
    np.testing.assert_allclose(out.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-6)
    # The cells' states follow one another by layer and direction, those of the layer by kind.
    for i, state in enumerate(last):
        np.testing.assert_allclose(
            state.asnumpy(), np.stack([s.asnumpy() for s in states[i :: len(last)]]), rtol=1e-4, atol=1e-6
        )


def test_what_layers_refuse():
    with pytest.raises(AssertionError, match="Invalid layout CNT"):
        rnn.LSTM(3, layout="CNT")
    with pytest.raises(ValueError, match="activation must be"):
        rnn.RNN(3, activation="sigmoid")
    with pytest.raises(NotImplementedError, match="_unfuse"):
        rnn.LSTM(3, projection_size=2)._unfuse()
