"""What training shows: the log, the loss beside the metric, the bar on a terminal, callbacks."""

import logging
import re

import numpy as np
import pytest

import mxrs as mx
from module_cases import Batch, batch, blobs, bound, network
from mxrs import nd
from mxrs.base import MXNetError
from mxrs.module import _progress
from mxrs.module._head_loss import HeadLoss, loss_heads

# ---- what is shown -------------------------------------------------------------------------------------------


def logged(caplog, **kwargs):
    """The lines of a training, times and numbers blanked."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    X, y = blobs()
    symbol = kwargs.pop("symbol") if "symbol" in kwargs else network()
    data = mx.io.NDArrayIter(X, y, 30)
    mx.mod.Module(symbol).fit(
        data, num_epoch=1, eval_data=data if kwargs.pop("evaluate", False) else None, **kwargs
    )
    return [re.sub(r"=[\d.]+|=nan", "=#", line) for line in caplog.messages]


def test_the_log_is_mxnets_with_the_loss(caplog):
    assert logged(caplog, evaluate=True) == [
        "Epoch[0] Train-accuracy=#",
        "Epoch[0] Train-loss=#",
        "Epoch[0] Time cost=#",
        "Epoch[0] Validation-accuracy=#",
        "Epoch[0] Validation-loss=#",
    ]
    assert [line for line in logged(caplog, eval_metric="ce") if "Train" in line] == [
        "Epoch[0] Train-cross-entropy=#"
    ]


def test_a_metric_that_cannot_be_read_before_its_first_batch(caplog):
    class Share(mx.metric.EvalMetric):
        def update(self, labels, preds):
            self.sum_metric += 1
            self.num_inst += 2

        def get(self):
            return self.name, self.sum_metric / self.num_inst

    assert logged(caplog, eval_metric=Share("share"))[:2] == [
        "Epoch[0] Train-share=#",
        "Epoch[0] Train-loss=#",
    ]


def test_a_network_without_loss_layers_shows_none(caplog):
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="f")
    ones = mx.sym.MakeLoss(mx.sym.mean(x * x), name="own")
    silent = mx.sym.Group([mx.sym.BlockGrad(x), ones])
    wide = mx.metric.CustomMetric(lambda label, pred: 0.0, name="other", allow_extra_outputs=True)
    assert "Epoch[0] Train-loss=#" in logged(caplog, symbol=silent, eval_metric=wide)
    assert loss_heads(x) == []


@pytest.mark.parametrize(
    ("op", "formula"),
    [
        ("LinearRegressionOutput", lambda p, y: ((p - y) ** 2).mean() / 2),
        ("MAERegressionOutput", lambda p, y: np.abs(p - y).mean()),
        ("LogisticRegressionOutput", lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()),
    ],
)
def test_losses_of_regressions(op, formula):
    module = bound(symbol=network(classes=1, out=op))
    one = Batch(batch().data, [nd.array([0, 1, 1, 0])])
    module.forward(one, is_train=True)
    loss = HeadLoss()
    loss.update(module.symbol, module.get_outputs(), {"softmax_label": one.label[0]})
    wanted = formula(module.get_outputs()[0].asnumpy()[:, 0], one.label[0].asnumpy())
    np.testing.assert_allclose(loss.get_name_value()[0][1], wanted, rtol=1e-5)


def test_losses_of_softmax():
    random = np.random.RandomState(0)
    scores = mx.sym.Variable("data")
    raw = random.randn(4, 3, 6).astype(np.float32)
    label = random.randint(0, 3, (4, 6)).astype(np.float32)
    label[0, :2] = -1
    for flags, axis in (({"multi_output": True}, 1), ({"preserve_shape": True}, 2)):
        data = raw if axis == 1 else raw.transpose(0, 2, 1)
        for ignore in (True, False):
            targets = label if ignore else np.abs(label)
            out = mx.sym.SoftmaxOutput(scores, name="s", use_ignore=ignore, ignore_label=-1, **flags)
            executor = out.bind(mx.cpu(), {"data": nd.array(data), "s_label": nd.array(targets)})
            probabilities = executor.forward()[0]
            loss = HeadLoss()
            loss.update(out, [probabilities], {"s_label": nd.array(targets)})
            p = np.moveaxis(probabilities.asnumpy(), axis, -1)
            picked = np.take_along_axis(p, np.abs(targets).astype(int)[..., None], -1)[..., 0]
            kept = -np.log(picked[targets >= 0])
            np.testing.assert_allclose(loss.get_name_value()[0][1], kept.mean(), rtol=1e-5)


def test_the_running_loss_forgets_locally_and_remembers_the_epoch():
    symbol = network()
    loss = HeadLoss()
    values = []
    for step in range(150):  # more than are kept before they are added up
        p = np.full((2, 3), 0.1 + 0.005 * step, np.float32)
        values.append(-np.log(p[0, 0]))
        loss.update(symbol, [nd.array(p)], {"softmax_label": nd.zeros((2,))})
        if step == 99:
            np.testing.assert_allclose(loss.get_name_value()[0][1], np.mean(values), rtol=1e-5)
            loss.reset_local()
            assert np.isnan(loss.get_name_value()[0][1])
    np.testing.assert_allclose(loss.get_name_value()[0][1], np.mean(values[100:]), rtol=1e-5)
    np.testing.assert_allclose(loss.get_global_name_value()[0][1], np.mean(values), rtol=1e-5)
    loss.update(symbol, [nd.ones((2, 3))], {})  # a batch without the label adds nothing
    loss.reset()
    assert loss.get_global_name_value() == []


def test_several_losses_have_names():
    data = mx.sym.Variable("data")
    one = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=3, name="a"), name="cls")
    two = mx.sym.LinearRegressionOutput(mx.sym.FullyConnected(data, num_hidden=1, name="b"), name="box")
    three = mx.sym.SoftmaxOutput(data, mx.sym.Reshape(mx.sym.Variable("l"), shape=(-1,)), name="flat")
    inside = mx.sym.SoftmaxOutput(data, mx.sym.argmax(data, axis=1), name="inside")
    heads = loss_heads(mx.sym.Group([one, two, mx.sym.BlockGrad(one), three, inside]))
    assert [(h.place, h.name, h.label) for h in heads] == [
        (0, "cls", "cls_label"), (1, "box", "box_label"), (3, "flat", "l"),
    ]  # fmt: skip


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_no_bar_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    X, y = blobs()
    mx.mod.Module(network()).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=2)
    assert capsys.readouterr() == ("", "")


def test_a_plain_bar_on_a_terminal_gives_way_to_log_lines(monkeypatch):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)  # as if it were not installed
    monkeypatch.delenv("MXRS_PROGRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    logger = logging.getLogger("a training on a terminal")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(err)
    logger.addHandler(handler)
    X, y = blobs()
    mx.mod.Module(network(), logger=logger).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=2)
    assert re.search(r"\rEpoch 0 \|#+\.*\| 2/3 \[.* s left\] accuracy=\S+ loss=\S+", err.text)
    assert not handler.filters and out.text == ""
    for line in err.text.split("\n")[:-1]:
        shown = line.rsplit("\r\x1b[K", 1)[-1]
        assert "\r" not in shown and re.fullmatch(r"Epoch\[\d\] (Train-\w+|Time cost)=[\d.]+", shown)
    before = err.text
    monkeypatch.setenv("MXRS_PROGRESS", "0")
    mx.mod.Module(network(), logger=logging.getLogger("quiet")).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=1)
    assert err.text == before


def test_tqdm_draws_where_it_is_installed(monkeypatch):
    pytest.importorskip("tqdm")
    err = Terminal()
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0)
    X, y = blobs()
    mx.mod.Module(network()).fit(mx.io.NDArrayIter(X, y, 30), num_epoch=1)
    assert "Epoch 0" in err.text and "/3" in err.text


def test_how_many_batches():
    X, y = blobs(70)
    assert _progress.batches_in(mx.io.NDArrayIter(X, y, 30)) == 3
    assert _progress.batches_in(mx.io.NDArrayIter(X, y, 30, last_batch_handle="discard")) == 2
    assert _progress.batches_in(mx.io.ResizeIter(mx.io.NDArrayIter(X, y, 30), 7)) == 7
    assert _progress.batches_in([1, 2]) == 2 and _progress.batches_in(object()) is None


def test_callbacks_get_what_they_expect():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30)
    module = mx.mod.Module(network())
    calls = []

    def on_batch(param):
        calls.append(("batch", param.epoch, param.nbatch))
        assert param.locals["self"] is module and param.locals["epoch"] == param.epoch
        assert param.locals["data_batch"].data[0].shape == (30, 5)

    def on_epoch(epoch, symbol, arg_params, aux_params):
        calls.append(("epoch", epoch, sorted(arg_params)[0]))
        assert symbol is module.symbol

    def on_eval(param):
        calls.append(("eval", param.epoch, param.nbatch))
        assert "eval_batch" in param.locals

    module.fit(
        data,
        eval_data=mx.io.NDArrayIter(X, y, 45),
        num_epoch=3,
        begin_epoch=1,
        batch_end_callback=[on_batch],
        epoch_end_callback=on_epoch,
        eval_batch_end_callback=on_eval,
        eval_end_callback=lambda param: calls.append(("end", param.epoch, param.nbatch)),
    )
    one = [("batch", 0, i) for i in range(3)] + [
        ("epoch", 0, "fc1_bias"),
        ("eval", 0, 0),
        ("eval", 0, 1),
        ("end", 0, 2),
    ]
    assert calls == [(kind, epoch, rest) for epoch in (1, 2) for kind, _, rest in one]


def test_an_empty_iterator_is_told():
    class Empty(mx.io.DataIter):
        provide_data = [("data", (2, 5))]
        provide_label = [("softmax_label", (2,))]

        def next(self):
            raise StopIteration

    with pytest.raises(MXNetError, match="no batch in epoch 0"):
        mx.mod.Module(network()).fit(Empty(2), num_epoch=1)


def test_fit_learns():
    X, y = blobs()
    data = mx.io.NDArrayIter(X, y, 30, shuffle=True)
    module = mx.mod.Module(network(hidden=16))
    module.fit(data, num_epoch=20, initializer=mx.init.Xavier(), optimizer_params={"learning_rate": 0.2})
    assert module.score(data, "acc")[0][1] == 1.0
