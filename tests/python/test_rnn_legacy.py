"""mx.rnn: symbolic cells, their graphs, weights and checkpoints, and sentences in buckets, against MXNet."""

import random

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd, rnn, sym

BUILD = """
R, S = mx.rnn, mx.sym
def stack(*cells):
    whole = R.SequentialRNNCell()
    for cell in cells:
        whole.add(cell)
    return whole
def flat(x):
    return [x] if isinstance(x, S.Symbol) else [z for y in x for z in flat(y)]
def graph(cell, layout, merge, kind):
    steps = [S.Variable('a'), S.Variable('b')] if kind == 'list' else S.Variable('data')
    begin = {'begin_state': cell.begin_state(func=S.Variable)} if kind == 'begin' else {}
    out, states = cell.unroll(2, steps, layout=layout, merge_outputs=merge, **begin)
    return out, states, S.Group(flat(out) + flat(states))
"""

CELLS = {
    "rnn": "R.RNNCell(3)",
    "relu": "R.RNNCell(3, activation='relu', prefix='q_')",
    "lstm": "R.LSTMCell(3, forget_bias=2.0)",
    "gru": "R.GRUCell(3)",
    "stack": "stack(R.LSTMCell(3, prefix='l0_'), R.DropoutCell(0.5), R.GRUCell(3, prefix='l1_'))",
    "nested": "stack(stack(R.RNNCell(3, prefix='a_')), R.GRUCell(3))",
    "shared": "(lambda p: stack(R.LSTMCell(3, params=p, prefix='a_'), R.LSTMCell(3, params=p, prefix='b_')))(R.RNNParams('s_'))",
    "both_ways": "R.BidirectionalCell(R.LSTMCell(3, prefix='f_'), R.GRUCell(3, prefix='b_'))",
    "stack_of_both_ways": "stack(R.BidirectionalCell(R.RNNCell(3, prefix='f_'), R.GRUCell(3, prefix='b_'), output_prefix='o_'), R.LSTMCell(2))",
    "dropout": "R.DropoutCell(0.5)",
    "residual": "R.ResidualCell(R.GRUCell(3))",
    "zoneout": "R.ZoneoutCell(R.LSTMCell(3), 0.1, 0.2)",
    "unfused_lstm": "R.FusedRNNCell(3, 2, 'lstm', True, 0.5, prefix='p_').unfuse()",
    "unfused_gru": "R.FusedRNNCell(3, 3, 'gru', dropout=0.5).unfuse()",
    "unfused_relu": "R.FusedRNNCell(3, 2, 'rnn_relu', True).unfuse()",
    "unfused_tanh": "R.FusedRNNCell(3, mode='rnn_tanh').unfuse()",
}
# MXNet refuses begin_state(func=...) of cells with modifiers: "multiple values for argument 'func'".
MODIFIED = ("residual", "zoneout")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
def test_graphs_equal_mxnet(oracle, name, layout):
    kinds = ["one", "list"] + ["begin"] * (name not in MODIFIED)
    oracle.check(
        f"""{BUILD}
out_graphs = []
for merge in (None, True, False):
    for kind in {kinds!r}:
        with mx.name.NameManager():
            cell = {CELLS[name]}
            out, states, whole = graph(cell, {layout!r}, merge, kind)
            out_graphs.append([
                type(out).__name__, len(states), whole.list_arguments(), whole.list_outputs(),
                whole.get_internals().list_outputs(), cell.state_info, cell.state_shape, sorted(cell.params._params),
                sorted((k, v['__init__']) for k, v in whole.attr_dict().items() if '__init__' in v),
            ])
"""
    )


@pytest.mark.parametrize("name", [n for n in CELLS if n != "dropout"])
def test_outputs_and_gradients_equal_mxnet(oracle, name):
    oracle.check(
        f"""{BUILD}
with mx.name.NameManager():
    _, _, whole = graph({CELLS[name]}, 'NTC', True, 'one')
ex = whole.simple_bind(mx.cpu(), data=(2, 2, 3))
rng = np.random.RandomState(0)
for name, array in ex.arg_dict.items():
    array[:] = rng.uniform(-0.5, 0.5, array.shape)
out_values = [o.asnumpy() for o in ex.forward(is_train=False)]
if {name not in ("zoneout", "unfused_lstm", "unfused_gru", "stack")!r}:
    ex.forward(is_train=True)
    ex.backward([mx.nd.ones(o.shape) for o in ex.outputs])
    out_grads = [[name, ex.grad_dict[name]] for name in whole.list_arguments()]
"""
    )


@pytest.mark.parametrize("kind", ["ConvRNNCell", "ConvLSTMCell", "ConvGRUCell"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {
            "i2h_kernel": (5, 5),
            "i2h_stride": (2, 2),
            "h2h_dilate": (2, 2),
            "activation": "tanh",
            "prefix": "k_",
        },
    ],
)
def test_convolutional_cells_equal_mxnet(oracle, kind, kwargs):
    oracle.check(
        f"""{BUILD}
with mx.name.NameManager():
    cell = R.{kind}((1, 3, 8, 8), 4, **{kwargs!r})
    out, states = cell.unroll(2, [S.Variable('a'), S.Variable('b')], begin_state=cell.begin_state(func=S.Variable))
whole = S.Group(out + states)
out_names = [whole.list_arguments(), whole.get_internals().list_outputs(), cell.state_info]
state = (2, *cell.state_shape[0][1:])
begin = {{name: state for name in whole.list_arguments() if 'begin_state' in name}}
ex = whole.simple_bind(mx.cpu(), a=(2, 3, 8, 8), b=(2, 3, 8, 8), **begin)
rng = np.random.RandomState(0)
for array in ex.arg_dict.values():
    array[:] = rng.uniform(-0.5, 0.5, array.shape)
out_values = ex.forward()
"""
    )


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "stack", "both_ways", "residual", "unfused_lstm"])
def test_weights_of_each_gate_equal_mxnet(oracle, name):
    ours = oracle.check(
        f"""{BUILD}
cell = {CELLS[name]}
_, _, whole = graph(cell, 'NTC', True, 'one')
shapes, _, _ = whole.infer_shape(data=(1, 2, 3))
args = {{k: nd.arange(int(np.prod(s))).reshape(s) for k, s in zip(whole.list_arguments(), shapes) if k != 'data'}}
args['other'] = nd.ones(1)
out_before = dict(args)
out_unpacked = cell.unpack_weights(args)
out_packed = cell.pack_weights(out_unpacked)
out_untouched = list(args)
"""
    )
    assert list(ours["out_before"]) == ours["out_untouched"]
    for key, value in ours["out_before"].items():
        np.testing.assert_array_equal(value, ours["out_packed"][key])


@pytest.mark.parametrize("mode", ["rnn_relu", "rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_fused_weights_equal_mxnet(oracle, mode, both):
    gates = {"lstm": 4, "gru": 3}.get(mode, 1)
    ways = 1 + both
    size = sum(((3 if layer == 0 else 2 * ways) * 2 + 4 + 4) * gates * ways for layer in range(2))
    oracle.check(
        f"""
cell = mx.rnn.FusedRNNCell(2, 2, {mode!r}, {both}, prefix='p_')
out_unpacked = cell.unpack_weights({{'p_parameters': nd.arange({size}), 'other': nd.ones(1)}})
out_packed = cell.pack_weights(out_unpacked)
out_state = [cell.state_info, cell._prefix, mx.rnn.FusedRNNCell(2, mode={mode!r})._prefix]
"""
    )


def test_fused_and_unfused_share_weights():
    fused = rnn.FusedRNNCell(2, 2, "gru", True, prefix="p_")
    plain = fused.unfuse()
    vector = nd.arange(180)
    args = plain.pack_weights(fused.unpack_weights({"p_parameters": vector}))
    out, _ = plain.unroll(3, sym.Variable("data"), merge_outputs=True)
    shapes = dict(zip(out.list_arguments(), out.infer_shape(data=(1, 3, 3))[0]))
    assert {name: array.shape for name, array in args.items()} == {
        k: s for k, s in shapes.items() if k != "data"
    }
    back = fused.pack_weights(plain.unpack_weights(args))
    np.testing.assert_array_equal(back["p_parameters"].asnumpy(), vector.asnumpy())


def test_unfused_cells_keep_the_forget_bias():
    # MXNet's unfuse() forgets it.
    out, _ = rnn.FusedRNNCell(3, forget_bias=0.5).unfuse().unroll(1, sym.Variable("data"), merge_outputs=True)
    assert out.attr_dict()["lstm_l0_i2h_bias"]["__init__"] == '["lstmbias", {"forget_bias": 0.5}]'


def test_fused_unroll_says_what_it_needs():
    cell = rnn.FusedRNNCell(3, 2, "lstm", get_next_state=True)
    if hasattr(sym, "RNN"):
        out, states = cell.unroll(4, sym.Variable("data"), layout="TNC")
        assert out.list_arguments() == ["data", "lstm_parameters"] and len(states) == 2
        return
    with pytest.raises(NotImplementedError, match=r"FusedRNNCell.unroll needs the operator RNN.*unfuse\(\)"):
        cell.unroll(4, sym.Variable("data"))


def test_modified_cells_take_states_of_any_kind():
    whole = rnn.SequentialRNNCell()
    whole.add(rnn.ResidualCell(rnn.RNNCell(3)))
    (state,) = whole.begin_state(func=sym.Variable)
    assert state.name == "rnn_begin_state_0"


def test_checkpoints_equal_mxnet(oracle, tmp_path):
    files = [str(tmp_path / "theirs"), str(tmp_path / "ours")]
    code = f"""{BUILD}
cell = stack(R.LSTMCell(2, prefix='a_'), R.GRUCell(2, prefix='b_'))
out, _ = cell.unroll(2, S.Variable('data'), merge_outputs=True)
shapes, _, _ = out.infer_shape(data=(1, 2, 3))
rng = np.random.RandomState(0)
args = {{k: nd.array(rng.rand(*s)) for k, s in zip(out.list_arguments(), shapes) if k != 'data'}}
save = R.do_rnn_checkpoint(cell, PREFIX, 2)
for epoch in range(2):
    save(epoch, out, args, {{}})
out_saved = sorted(nd.load(PREFIX + '-0002.params'))
"""
    oracle.run(code.replace("PREFIX", repr(files[0])))
    space = {"mx": mx, "nd": nd, "np": np}
    exec(code.replace("PREFIX", repr(files[1])), space)
    assert not list(tmp_path.glob("*-0001.params"))
    for prefix in files:
        oracle.check(
            f"""
stack = mx.rnn.SequentialRNNCell()
stack.add(mx.rnn.LSTMCell(2, prefix='a_'))
stack.add(mx.rnn.GRUCell(2, prefix='b_'))
symbol, args, aux = mx.rnn.load_rnn_checkpoint([stack], {prefix!r}, 2)
out_args = dict(sorted(args.items()))
out_symbol = [symbol.list_arguments(), aux]
"""
        )
    loaded = rnn.load_rnn_checkpoint(space["cell"], files[0], 2)[1]
    for name, value in space["args"].items():
        np.testing.assert_array_equal(value.asnumpy(), loaded[name].asnumpy())


def test_rnn_unroll_makes_its_inputs():
    with pytest.warns(UserWarning, match="deprecated"):
        out, _ = rnn.rnn_unroll(rnn.LSTMCell(3), 2, input_prefix="x_")
    assert [n for n in sym.Group(out).list_arguments() if n.startswith("x_")] == ["x_t0_data", "x_t1_data"]


def test_what_cells_refuse():
    data, cell = sym.Variable("data"), rnn.LSTMCell(3)
    for inputs, says in (
        ([data], "1 inputs were given for length=2"),
        (sym.SliceChannel(data, num_outputs=2), "grouped symbol"),
    ):
        with pytest.raises(AssertionError, match=says):
            cell.unroll(2, inputs)
    with pytest.raises(ValueError, match="layout must hold T"):
        cell.unroll(2, data, layout="NC")
    both = rnn.BidirectionalCell(rnn.RNNCell(2, prefix="l_"), rnn.RNNCell(2, prefix="r_"))
    for call in (lambda: both(data, []), lambda: rnn.FusedRNNCell(2)(data, [])):
        with pytest.raises(NotImplementedError, match="cannot be stepped"):
            call()
    for make, says in (
        (lambda: rnn.ZoneoutCell(both), "doesn't support zoneout"),
        (lambda: rnn.ZoneoutCell(rnn.FusedRNNCell(2)), "unfuse first"),
        (lambda: rnn.DropoutCell("a"), "must be a number"),
        (lambda: rnn.ConvRNNCell((1, 3, 8, 8), 2, h2h_kernel=(2, 2)), "h2h_kernel must be odd"),
    ):
        with pytest.raises(AssertionError, match=says):
            make()
    with pytest.raises(ValueError, match="mode must be one of"):
        rnn.FusedRNNCell(2, mode="elman")
    with pytest.raises(ValueError, match="7 elements, which fits no width"):
        rnn.FusedRNNCell(2).unpack_weights({"lstm_parameters": nd.ones(7)})
    rnn.ResidualCell(cell)
    with pytest.raises(AssertionError, match="After applying modifier cells"):
        cell.begin_state()


# ---- sentences -----------------------------------------------------------------------------------------

SENTENCES = [
    [1, 2, 3],
    [4, 5],
    [1, 2, 3, 4, 5, 6],
    [7, 8, 9],
    [1, 2],
    [3, 4],
    [5, 6, 7],
    [1] * 4,
    [2] * 5,
    [9] * 9,
]


@pytest.mark.parametrize(
    "args",
    [
        {"buckets": [3, 6]},
        {},
        {"buckets": [6, 3], "invalid_label": 0, "layout": "TN"},
        {"buckets": [3, 6], "dtype": "int32", "data_name": "d", "label_name": "l"},
        {"buckets": [20]},
    ],
)
def test_buckets_equal_mxnet(oracle, args):
    oracle.check(
        f"""
import random
random.seed(1)
it = mx.rnn.BucketSentenceIter({SENTENCES!r}, 2, **{args!r})
def described(descs): return [(d.name, tuple(d.shape), d.layout) for d in descs]
out_provided = [described(it.provide_data + it.provide_label), it.buckets, it.default_bucket_key]
out_batches = []
for e in range(3):
    for b in it:
        out_batches.append([b.data[0], b.label[0], b.bucket_key, b.pad, described(b.provide_data + b.provide_label)])
    it.reset()
    out_batches.append(list(it.idx))
"""
    )


def test_what_buckets_refuse():
    with pytest.raises(ValueError, match="Invalid layout 'XX'"):
        rnn.BucketSentenceIter(SENTENCES, 2, layout="XX")
    with pytest.raises(ValueError, match="batch_size=50 sentences"):
        rnn.BucketSentenceIter(SENTENCES, 50)
    assert list(rnn.BucketSentenceIter([], 2, buckets=[3])) == []


def test_encoded_sentences_equal_mxnet(oracle):
    oracle.check(
        """
encode = mx.rnn.encode_sentences
two = [['a', 'b'], ['b', 'c']]
out_codes = [
    encode(two), encode(two, invalid_label=0), encode(two, invalid_label=0, start_label=1), encode(['ab', 'bc']),
    encode([['a', 'b', 'c', 'd']], invalid_label=2, start_label=1), encode(two, invalid_key='q'),
    encode([['a']], vocab={'a': 5}),
]
"""
    )


def test_unknown_words_share_a_number():
    with pytest.raises(AssertionError, match="Unknown token z"):
        rnn.encode_sentences([["a", "z"]], vocab={"a": 5})
    # MXNet numbers each of them anew, from 0 on, whatever has that number already.
    assert rnn.encode_sentences([["a", "z", "y"]], {"a": 0}, unknown_token="?") == (
        [[0, 1, 1]],
        {"a": 0, "?": 1},
    )
    assert rnn.encode_sentences([["z"]], {"a": 0, "?": 7}, unknown_token="?") == ([[7]], {"a": 0, "?": 7})


def test_a_language_model_learns_by_buckets():
    """A BucketingModule learns to count upwards, with sentences of two lengths."""
    random.seed(0)
    np.random.seed(0)
    mx.random.seed(0)
    rng = np.random.RandomState(0)
    sentences = [
        [(start + i) % 10 for i in range(length)]
        for start, length in zip(rng.randint(0, 10, 240), rng.choice([4, 7], 240))
    ]
    it = rnn.BucketSentenceIter(sentences, 16, buckets=[4, 7], invalid_label=-1)
    cell = rnn.LSTMCell(32)

    def network(length):
        embedded = sym.Embedding(sym.Variable("data"), input_dim=10, output_dim=16, name="embed")
        cell.reset()
        out, _ = cell.unroll(length, embedded, merge_outputs=True)
        scores = sym.FullyConnected(sym.reshape(out, shape=(-1, 32)), num_hidden=10, name="scores")
        label = sym.reshape(sym.Variable("softmax_label"), shape=(-1,))
        return (
            sym.SoftmaxOutput(scores, label, use_ignore=True, ignore_label=-1, name="softmax"),
            ("data",),
            ("softmax_label",),
        )

    module = mx.mod.BucketingModule(network, default_bucket_key=it.default_bucket_key, context=mx.cpu())
    metric = mx.metric.Perplexity(-1)
    module.fit(
        it, eval_metric=metric, num_epoch=12, optimizer="adam", optimizer_params={"learning_rate": 0.01},
        initializer=mx.init.Xavier(),
    )  # fmt: skip
    assert metric.get()[1] < 1.5
