"""Language models with BucketingModule and the cells of `mx.rnn`, on real text: the curves are MXNet's."""

import pathlib
import re

import numpy as np
import pytest

import mxrs as mx
from oracle import assert_same
from oracle_server import execute
from test_symbolic_programs import COMMON

ROWS = 8
STEPS = 20


@pytest.fixture(scope="module")
def lines():
    """The sentences of the licence, as lists of words."""
    text = (pathlib.Path(__file__).parents[2] / "LICENSE").read_text().lower()
    sentences = [re.findall(r"[a-z]+", part) for part in re.split(r"[.,;:()]", text)]
    found = [words[:8] for words in sentences if len(words) > 3]
    assert len(found) > 80
    return found


MODEL = """
from collections import Counter
counts = Counter(word for words in lines for word in words)
common = [word for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:60]]
known = {word: i + 2 for i, word in enumerate(common)}
sentences = [[known.get(word, 1) for word in words] for words in lines]
vocabulary = len(known) + 2
random.seed(3)
np.random.seed(3)
data = mx.rnn.BucketSentenceIter(sentences, rows, buckets=[5, 8], invalid_label=0)

def cells():
    stack = mx.rnn.SequentialRNNCell()
    for i in range(2):
        stack.add(CELL)
    return stack

def graph(length):
    with mx.name.NameManager():
        words, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
        embedded = mx.sym.Embedding(words, input_dim=vocabulary, output_dim=12, name="embed")
        stack = cells()
        stack.reset()
        outputs, states = stack.unroll(length, inputs=embedded, merge_outputs=MERGE)
        if not MERGE:
            outputs = mx.sym.Concat(*[mx.sym.expand_dims(o, axis=1) for o in outputs], dim=1)
        scores = mx.sym.FullyConnected(mx.sym.Reshape(outputs, shape=(-1, 16)), num_hidden=vocabulary, name="pred")
        return mx.sym.SoftmaxOutput(scores, mx.sym.Reshape(label, shape=(-1,)), name="softmax", use_ignore=True,
                                    ignore_label=0), ("data",), ("softmax_label",)

out_lists = [graph(5)[0].list_arguments(), graph(5)[0].list_outputs()]
default = graph(data.default_bucket_key)[0]
shapes = {"data": (rows, 8), "softmax_label": (rows, 8)}
args, aux = initial(default, scale=0.7, **shapes)
"""

FIT = """
out_keys, out_losses = [], []
def follow(param):
    out_losses.append(param.eval_metric.get()[1])
    param.eval_metric.reset()
    out_keys.append(param.locals["data_batch"].bucket_key)
module = mx.mod.BucketingModule(graph, default_bucket_key=data.default_bucket_key)
module.fit(data, eval_metric=mx.metric.Perplexity(0), num_epoch=2, optimizer="sgd",
           optimizer_params={"learning_rate": 0.05, "momentum": 0.0, "wd": 1e-5}, arg_params=args, aux_params=aux,
           batch_end_callback=follow)
out_buckets = sorted(module._buckets)
out_weights = {n: module.get_params()[0][n] for n in sorted(args)}
"""

CELLS = {
    "lstm": ("mx.rnn.LSTMCell(num_hidden=16, prefix='lstm_l%d_' % i)", True),
    "gru": ("mx.rnn.GRUCell(num_hidden=16, prefix='gru_l%d_' % i)", False),
    "residual": (
        "mx.rnn.ResidualCell(mx.rnn.RNNCell(num_hidden=16, prefix='rnn_l%d_' % i)) if i else "
        "mx.rnn.RNNCell(num_hidden=16, prefix='rnn_l0_')",
        True,
    ),
}


@pytest.mark.parametrize("kind", CELLS)
def test_language_model_follows_mxnet(oracle, lines, kind):
    cell, merge = CELLS[kind]
    code = "import random\n" + COMMON + (MODEL + FIT).replace("CELL", cell).replace("MERGE", str(merge))
    given = {"lines": lines, "rows": ROWS}
    theirs, ours = oracle.run(code, **given), execute(mx, code, given)
    assert ours["out_lists"] == theirs["out_lists"]
    assert ours["out_keys"] == theirs["out_keys"] and len(ours["out_keys"]) >= STEPS
    assert ours["out_buckets"] == [5, 8]
    # Perplexity is the exponential of the loss.
    losses, expected = np.log(ours["out_losses"]), np.log(theirs["out_losses"])
    np.testing.assert_allclose(losses[:STEPS], expected[:STEPS], rtol=1e-4)
    assert_same(ours["out_weights"], theirs["out_weights"], "weights", 1e-3, 1e-4)
    assert losses[-5:].mean() < losses[:5].mean()
