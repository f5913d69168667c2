"""gluon.contrib.estimator: loops, events and their order, stopping, validation, logging, checkpoints."""

import logging
import os

import numpy as np
import pytest

import mxrs as mx
from mxrs import gluon, nd
from mxrs.gluon import nn
from mxrs.gluon.contrib import estimator as est

TWO = [mx.cpu(0), mx.cpu(1)]


def loader(count=20, batch_size=5):
    """A separable problem of two classes."""
    rng = np.random.RandomState(0)
    x = rng.randn(count, 4).astype("float32")
    y = (x.sum(axis=1) > 0).astype("float32")
    return gluon.data.DataLoader(gluon.data.ArrayDataset(x, y), batch_size=batch_size)


def make(net=None, ctx=None, lr=0.1, optimizer="sgd", **kwargs):
    net = net or nn.Dense(2, in_units=4)
    net.initialize(mx.init.Constant(0.1), ctx=ctx)
    kwargs.setdefault("trainer", gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": lr}))
    kwargs.setdefault("train_metrics", mx.metric.Accuracy())
    return est.Estimator(net, gluon.loss.SoftmaxCrossEntropyLoss(), context=ctx, **kwargs)


class Recorder(est.TrainBegin, est.TrainEnd, est.EpochBegin, est.EpochEnd, est.BatchBegin, est.BatchEnd):
    """Notes every event; `stop` names one that returns True."""

    def __init__(self, stop=None):
        self.log = []
        self.stop = stop

    def _note(self, event, kwargs):
        self.log.append(event)
        self.kwargs = kwargs
        return event == self.stop

    def train_begin(self, estimator, *args, **kwargs):
        return self._note("train_begin", kwargs)

    def train_end(self, estimator, *args, **kwargs):
        return self._note("train_end", kwargs)

    def epoch_begin(self, estimator, *args, **kwargs):
        return self._note("epoch_begin", kwargs)

    def epoch_end(self, estimator, *args, **kwargs):
        return self._note("epoch_end", kwargs)

    def batch_begin(self, estimator, *args, **kwargs):
        return self._note("batch_begin", kwargs)

    def batch_end(self, estimator, *args, **kwargs):
        self.ended = kwargs
        return self._note("batch_end", kwargs)


# --- the loop ---


def test_training_learns():
    e = make(lr=0.5)
    first = e.net.weight.data().asnumpy()
    e.fit(loader(), epochs=10)
    assert e.train_metrics[0].get() == ("training accuracy", e.train_metrics[0].get()[1])
    assert e.train_metrics[0].get()[1] >= 0.9 and not np.allclose(first, e.net.weight.data().asnumpy())
    assert (e.max_epoch, e.max_batch, e.batch_axis) == (10, None, 0)


def test_a_step_is_the_trainers():
    """One batch by the estimator equals one batch by hand."""
    by_hand = nn.Dense(2, in_units=4)
    by_hand.initialize(mx.init.Constant(0.1))
    trainer = gluon.Trainer(by_hand.collect_params(), "sgd", {"learning_rate": 0.1})
    x, y = next(iter(loader()))
    with mx.autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(by_hand(x), y)
    loss.backward()
    trainer.step(5)
    e = make()
    e.fit(loader(), batches=1)
    np.testing.assert_allclose(e.net.weight.data().asnumpy(), by_hand.weight.data().asnumpy(), rtol=1e-6)
    assert not np.allclose(e.net.weight.data().asnumpy(), 0.1)


def test_events_in_order():
    recorder = Recorder()
    make().fit(loader(10), epochs=2, event_handlers=[recorder])
    epoch = ["epoch_begin", *["batch_begin", "batch_end"] * 2, "epoch_end"]
    assert recorder.log == ["train_begin", *epoch * 2, "train_end"]
    assert {key: len(value) for key, value in recorder.ended.items()} == {
        "batch": 2,
        "pred": 1,
        "label": 1,
        "loss": 1,
    }
    assert recorder.ended["pred"][0].shape == (5, 2)


def test_batches_count_over_epochs():
    recorder = Recorder()
    make().fit(loader(), batches=6, event_handlers=recorder)
    assert recorder.log.count("batch_end") == 6 and recorder.log.count("epoch_begin") == 2


def test_handlers_can_stop():
    for stop, batches, epochs in (("batch_end", 3, 3), ("epoch_end", 4, 1), ("batch_begin", 12, 3)):
        recorder = Recorder(stop)
        make().fit(loader(), epochs=3, event_handlers=[recorder])
        assert (recorder.log.count("batch_end"), recorder.log.count("epoch_end")) == (batches, epochs)
        assert recorder.log[-1] == "train_end"


def test_priorities():
    order = []

    class Ordered(est.BatchEnd):
        def __init__(self, name, priority=None):
            self.name = name
            if priority is not None:
                self.priority = priority

        def batch_end(self, estimator, *args, **kwargs):
            updated = not np.allclose(estimator.net.weight.data().asnumpy(), 0.1)
            order.append((self.name, updated, estimator.train_metrics[0].num_inst > 0))

    handlers = [Ordered("late", 5), Ordered("first", -5000), Ordered("plain"), Ordered("between", -1500)]
    make().fit(loader(), batches=1, event_handlers=handlers)
    # The gradient update is at -2000, the metrics are at -1000.
    assert order == [
        ("first", False, False),
        ("between", True, False),
        ("plain", True, True),
        ("late", True, True),
    ]


def test_several_contexts():
    one, two = make(), make(ctx=TWO)
    for e in (one, two):
        e.fit(loader(), epochs=2)
    np.testing.assert_allclose(
        two.net.weight.data(TWO[1]).asnumpy(), one.net.weight.data().asnumpy(), rtol=1e-5
    )
    assert two.train_metrics[0].get() == one.train_metrics[0].get()


def test_a_batch_processor():
    class Doubled(est.BatchProcessor):
        seen = 0

        def fit_batch(self, estimator, train_batch, batch_axis=0):
            self.seen += 1
            return super().fit_batch(estimator, train_batch, batch_axis)

    processor = Doubled()
    e = make(batch_processor=processor)
    e.fit(loader(), epochs=1)
    assert processor.seen == 4
    data, label, pred, loss = processor.evaluate_batch(e, next(iter(loader())))
    assert (data[0].shape, label[0].shape, pred[0].shape, loss[0].shape) == ((5, 4), (5,), (5, 2), (5,))


# --- validation ---


def test_evaluate():
    recorder = Recorder()
    e = make()
    assert e.evaluate(loader(10), event_handlers=[recorder]) is None
    assert recorder.log == ["epoch_begin", *["batch_begin", "batch_end"] * 2, "epoch_end"]
    assert e.val_metrics[0].get()[0] == "validation accuracy" and e.val_metrics[0].num_inst == 10
    np.testing.assert_allclose(e.net.weight.data().asnumpy(), 0.1)


def test_a_network_and_a_loss_for_validation():
    ones = nn.Lambda(lambda x: nd.one_hot(nd.ones((5,)), 2))
    scaled = gluon.loss.SoftmaxCrossEntropyLoss(weight=10)
    e = make(val_net=ones, val_loss=scaled, val_metrics=[mx.metric.Accuracy(), mx.metric.Loss()])
    e.evaluate(loader())
    assert e.val_metrics[1].get()[1] > 3
    labels = np.concatenate([y.asnumpy() for _, y in loader()])
    assert e.val_metrics[0].get()[1] == pytest.approx(labels.mean())


def test_validation_handler_periods():
    calls = []

    def evaluate(val_data, batch_axis, event_handlers):
        calls.append((val_data, batch_axis, event_handlers))

    handler = est.ValidationHandler("data", evaluate, epoch_period=2, batch_period=3, event_handlers="h")
    make().fit(loader(), epochs=3, event_handlers=[handler])
    # 12 batches: 4 times by batches, once by epochs.
    assert calls == [("data", 0, "h")] * 5
    e = make()
    e.fit(loader(), loader(10), epochs=2)
    assert e.val_metrics[0].num_inst == 10 and e.train_metrics[0].num_inst == 20


# --- metrics ---


def test_default_metrics_and_names():
    e = make(train_metrics=None)
    assert [m.name for m in e.train_metrics] == ["training accuracy", "training softmaxcrossentropyloss"]
    assert [m.name for m in e.val_metrics] == ["validation accuracy", "validation softmaxcrossentropyloss"]
    e.fit(loader(), epochs=1)
    assert 0 < e.train_metrics[1].get()[1] < 2
    pair = mx.metric.CompositeEvalMetric([mx.metric.Accuracy(), mx.metric.RMSE()])
    assert [m.name for m in make(train_metrics=pair).train_metrics] == ["training accuracy", "training rmse"]
    assert [m.name for m in make(val_metrics=mx.metric.RMSE()).val_metrics] == ["validation rmse"]


# --- early stopping ---


class Scripted(mx.metric.EvalMetric):
    """A metric whose value at each epoch is given."""

    def __init__(self, name, values):
        self.values = iter(values)
        super().__init__(name)

    def next_epoch(self):
        self.value = next(self.values)

    def update(self, labels, preds):
        pass

    def get(self):
        return self.name, self.value


class Script(est.EpochEnd):
    priority = -10

    def __init__(self, metric):
        self.metric = metric

    def epoch_end(self, estimator, *args, **kwargs):
        self.metric.next_epoch()


@pytest.mark.parametrize(
    ("name", "values", "kwargs", "epochs", "best"),
    [
        ("accuracy", [0.1, 0.5, 0.4, 0.6], {}, 3, 0.5),
        ("accuracy", [0.1, 0.5, 0.4, 0.6, 0.6, 0.6], {"patience": 2}, 6, 0.6),
        ("loss", [3, 2, 2.5, 1], {}, 3, 2),
        ("rmse", [3, 2, 2.5, 1], {"mode": "max"}, 2, 3),
        ("loss", [3, 2, 1.95, 1], {"min_delta": 0.1}, 3, 2),
        ("accuracy", [0.5, 0.55, 0.9], {"min_delta": 0.1}, 2, 0.5),
        ("accuracy", [0.5, 0.9], {"baseline": 0.7}, 1, 0.7),
    ],
)
def test_early_stopping(name, values, kwargs, epochs, best):
    metric = Scripted(name, values)
    metric.value = values[0]
    handler = est.EarlyStoppingHandler(metric, **kwargs)
    recorder = Recorder()
    make().fit(loader(5), epochs=9, event_handlers=[Script(metric), handler, recorder])
    assert recorder.log.count("epoch_end") == epochs
    assert (handler.stop_training, handler.stopped_epoch, handler.best) == (True, epochs - 1, best)


# --- logging ---


def test_what_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="Estimator")
    make().fit(loader(), loader(), epochs=1)
    text = "\n".join(caplog.messages)
    assert "Training begin: using optimizer SGD with current learning rate 0.1000" in text
    assert "Train for 1 epochs." in text and "[Epoch 0] Begin, current learning rate: 0.1000" in text
    assert "Validation Begin" in text and "[Validation] Finished in" in text
    assert caplog.messages[-2].startswith("[Epoch 0] Finished in") and "training accuracy: 0." in text
    assert "Train finished using total 0s with 1 epochs. training accuracy: 0." in caplog.messages[-1]


def test_a_line_every_few_batches(caplog):
    caplog.set_level(logging.INFO, logger="Estimator")
    e = make()
    e.fit(loader(), epochs=1, event_handlers=[est.LoggingHandler(2, metrics=e.train_metrics)])
    lines = [line for line in caplog.messages if "[Batch" in line]
    assert [line.split(" time/interval")[0] for line in lines] == [
        "[Epoch 0][Batch 0][Samples 5]",
        "[Epoch 0][Batch 2][Samples 15]",
    ]
    assert all("training accuracy: " in line for line in lines)


# --- checkpoints ---


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.endswith("-symbol.json"))


def test_checkpoints_of_epochs(tmp_path):
    e = make(optimizer="adam")
    handler = est.CheckpointHandler(str(tmp_path / "new"), model_prefix="m", max_checkpoints=2)
    e.fit(loader(), epochs=3, event_handlers=[handler])
    assert names(tmp_path / "new") == [
        f"m-epoch{i}batch{n}.{kind}" for i, n in ((1, 8), (2, 12)) for kind in ("params", "states")
    ]
    net = nn.Dense(2, in_units=4)
    net.load_parameters(str(tmp_path / "new" / "m-epoch2batch12.params"))
    np.testing.assert_array_equal(net.weight.data().asnumpy(), e.net.weight.data().asnumpy())


def test_checkpoints_of_batches(tmp_path):
    handler = est.CheckpointHandler(str(tmp_path), "m", epoch_period=None, batch_period=3)
    make().fit(loader(), batches=7, event_handlers=[handler])
    assert names(tmp_path) == [
        f"m-epoch{i}batch{n}.{kind}" for i, n in ((0, 2), (1, 5)) for kind in ("params", "states")
    ]


def test_the_best_checkpoint(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="Estimator")
    metric = Scripted("loss", [3.0, 2.0, 2.5])
    metric.value = 3.0
    handler = est.CheckpointHandler(str(tmp_path), "m", monitor=metric, save_best=True, verbose=1)
    e = make()
    weights = []

    class Keep(est.EpochEnd):
        def epoch_end(self, estimator, *args, **kwargs):
            weights.append(estimator.net.weight.data().asnumpy())

    e.fit(loader(), epochs=3, event_handlers=[Script(metric), Keep(), handler])
    assert handler.best == 2.0
    net = nn.Dense(2, in_units=4)
    net.load_parameters(str(tmp_path / "m-best.params"))
    np.testing.assert_array_equal(net.weight.data().asnumpy(), weights[1])
    assert os.path.exists(tmp_path / "m-best.states")
    text = "\n".join(caplog.messages)
    assert "[Epoch 1] CheckpointHandler: loss improved from 3.00000 to 2.00000" in text
    assert "[Epoch 2] CheckpointHandler: loss did not improve from 2.00000" in text


@pytest.mark.parametrize("unit", ["epochs", "batches"])
def test_going_on_from_a_checkpoint(tmp_path, unit):
    """Interrupted and resumed training ends where training in one go ends, Adam's states included."""
    periods = {"epoch_period": 1} if unit == "epochs" else {"epoch_period": None, "batch_period": 2}

    def run(total, folder, resume=False):
        e = make(optimizer="adam")
        handler = est.CheckpointHandler(str(folder), "m", resume_from_checkpoint=resume, **periods)
        recorder = Recorder()
        e.fit(loader(), event_handlers=[handler, recorder], **{unit: total})
        return e.net.weight.data().asnumpy(), recorder, handler

    whole, _, _ = run(4, tmp_path / "whole")
    run(2, tmp_path / "parts")
    parts, recorder, handler = run(4, tmp_path / "parts", resume=True)
    steps = 8 if unit == "epochs" else 2
    assert recorder.log.count("batch_end") == steps
    if unit == "epochs":
        np.testing.assert_allclose(parts, whole, rtol=1e-6)
        assert handler.saved_checkpoints == ["m-epoch2batch12", "m-epoch3batch16"]
    else:
        assert handler.saved_checkpoints == ["m-epoch1batch3"]
    with pytest.raises(ValueError, match=f"maximum number of {unit} 2 reached"):
        run(2, tmp_path / "parts", resume=True)


def test_resuming_without_a_checkpoint_starts_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="Estimator")
    handler = est.CheckpointHandler(str(tmp_path), resume_from_checkpoint=True)
    make().fit(loader(), epochs=1, event_handlers=[handler])
    assert "No checkpoint found, training from scratch for 1 epochs" in "\n".join(caplog.messages)
    both = est.CheckpointHandler(str(tmp_path), resume_from_checkpoint=True, batch_period=2)
    with pytest.raises(AssertionError, match="same type of period"):
        make().fit(loader(), epochs=3, event_handlers=[both])


def test_the_architecture_is_saved(tmp_path):
    e = make()
    e.fit(loader(), epochs=1, event_handlers=[est.CheckpointHandler(str(tmp_path), "m")])
    symbol = mx.sym.load(str(tmp_path / "m-symbol.json"))
    x = nd.ones((3, 4))
    args = {name: param.data() for name, param in e.net.collect_params().items()}
    (output,) = symbol.bind(mx.cpu(), args={"data": x, **args}).forward()
    np.testing.assert_allclose(output.asnumpy(), e.net(x).asnumpy(), rtol=1e-6)


def test_a_block_without_architecture_says_so(tmp_path, caplog):
    class Wrapped(gluon.Block):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(2, in_units=4)

        def forward(self, x):
            return self.dense(x)

    caplog.set_level(logging.INFO, logger="Estimator")
    make(Wrapped()).fit(loader(), epochs=1, event_handlers=[est.CheckpointHandler(str(tmp_path), "m")])
    assert "Wrapped is not a HybridBlock" in "\n".join(caplog.messages)
    assert sorted(os.listdir(tmp_path)) == ["m-epoch0batch4.params", "m-epoch0batch4.states"]


# --- construction and refusals ---


def test_defaults():
    with pytest.warns(UserWarning, match="default SGD optimizer"):
        e = est.Estimator(nn.Dense(2), gluon.loss.SoftmaxCrossEntropyLoss(), initializer=mx.init.One())
    assert e.trainer.learning_rate == 0.001 and e.context == [mx.cpu()]
    assert e.net(nd.ones((1, 3))).asnumpy().tolist() == [[3, 3]]
    with pytest.warns(UserWarning, match="initialized already"):
        make(initializer=mx.init.One())


LOSS = gluon.loss.L2Loss()
REFUSED = [
    (lambda: est.Estimator(nn.Dense(1), 3), "loss must be a Loss"),
    (lambda: est.Estimator(nn.Dense(1), LOSS, train_metrics=[3]), "metrics must be a Metric"),
    (lambda: est.Estimator(nn.Dense(1), LOSS, train_metrics="acc"), "metrics must be a Metric"),
    (lambda: est.Estimator(nn.Dense(1), LOSS, trainer=3), "Trainer must be a Gluon Trainer"),
    (lambda: est.Estimator(nn.Dense(1), LOSS, context=3), "context must be a Context"),
    (lambda: est.Estimator(nn.Dense(1), LOSS, context=[mx.cpu(), 3]), "context must be a Context"),
    (lambda: make(batch_processor=3), "must contain fit_batch"),
    (lambda: make().fit([1, 2], epochs=1), "Gluon DataLoader"),
    (lambda: make().evaluate([1]), "Gluon DataLoader"),
    (lambda: make().fit(loader()), "one and only one of"),
    (lambda: make().fit(loader(), epochs=1, batches=1), "one and only one of"),
    (lambda: make().fit(loader(), epochs=0), "positive integer"),
    (lambda: make().fit(loader(), epochs=1, event_handlers=[3]), "handlers must be an EventHandler"),
    (
        lambda: make().fit(
            loader(), epochs=1, event_handlers=[est.LoggingHandler(metrics=[mx.metric.RMSE()])]
        ),
        "outside of the known",
    ),
    (lambda: est.LoggingHandler(log_interval="batch"), "log_interval must be"),
    (lambda: est.LoggingHandler(log_interval=0), "log_interval must be"),
    (lambda: est.EarlyStoppingHandler(3), "as monitor"),
    (lambda: est.EarlyStoppingHandler(mx.metric.Accuracy(), mode="zz"), "'min', 'max' or 'auto'"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
@pytest.mark.filterwarnings("ignore:No trainer specified")
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_best_needs_a_metric(tmp_path):
    with pytest.raises(ValueError, match="save best model"):
        est.CheckpointHandler(str(tmp_path), save_best=True)


# --- the oracle ---

TRAINING = """
from importlib import import_module
est = import_module(mx.__name__ + '.gluon.contrib.estimator')
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Dense(5, activation='tanh', in_units=4), gluon.nn.Dense(2, in_units=5))
net.initialize()
for p in net.collect_params().values():
    n = int(np.prod(p.shape))
    p.set_data(nd.array(np.cos(np.arange(n) * 1.3).reshape(p.shape) * 0.4))
data = gluon.data.DataLoader(gluon.data.ArrayDataset(np_x, np_y), batch_size=8)
trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.05})
e = est.Estimator(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer=trainer, context=mx.cpu())
e.logger.handlers.clear()
e.logger.propagate = False
e.fit(data, data, epochs=3)
out_metrics = [m.get()[1] for m in e.train_metrics + e.val_metrics]
out_metrics = np.array(out_metrics, dtype='float32')
out_params = [p.data() for p in net.collect_params().values()]
"""


def test_training_as_mxnet(oracle):
    rng = np.random.RandomState(3)
    x = rng.randn(32, 4).astype("float32")
    oracle.check(TRAINING, x=x, y=(x[:, 0] > 0).astype("float32"), rtol=1e-3, atol=1e-4)
