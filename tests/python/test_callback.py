"""Callbacks and the monitor: what they log, when, and that the log's spelling is MXNet's."""

import logging
import re

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd

# What a program logs, with speeds blanked and numbers rounded.
LOGGING = r"""
import logging, re
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        text = re.sub(r"Speed: \S+", "Speed: X", record.getMessage())
        lines.append(re.sub(r"\d+\.\d+", lambda number: "%.3g" % float(number[0]), text))
root = logging.getLogger()
level, keep = root.level, Keep()
root.setLevel(logging.INFO)
root.addHandler(keep)
"""
DONE = "\nroot.removeHandler(keep)\nroot.setLevel(level)\nout_lines = lines\n"


@pytest.fixture
def lines(caplog):
    """The texts logged so far."""
    caplog.set_level(logging.INFO)
    return lambda: [re.sub(r"Speed: \S+", "Speed: X", record.getMessage()) for record in caplog.records]


def param(nbatch, metric=None, epoch=0, scope=None):
    return mx.model.BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=metric, locals=scope)


def half_right():
    metric = mx.metric.Accuracy()
    metric.update([nd.array([1, 0])], [nd.array([[0.1, 0.9], [0.2, 0.8]])])
    return metric


@pytest.mark.parametrize("frequent", [1, 2, 3])
@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("metric", ["mx.metric.create(['acc', 'ce'])", "mx.metric.Accuracy()", "None"])
def test_speedometer_logs_as_mxnet(oracle, frequent, auto_reset, metric):
    oracle.check(
        LOGGING
        + f"""
meter = mx.callback.Speedometer(10, {frequent}, auto_reset={auto_reset})
metric = {metric}
for epoch in range(2):
    for nbatch in range(7):
        if metric is not None and nbatch != 3:
            metric.update([nd.array([1, 0])], [nd.array([[0.1, 0.9], [0.2 + 0.1 * nbatch, 0.8 - 0.1 * nbatch]])])
        meter(mx.model.BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=metric, locals=None))
"""
        + DONE
    )


def test_the_other_callbacks_log_as_mxnet(oracle):
    oracle.check(
        LOGGING
        + """
metric = mx.metric.Accuracy()
metric.update([nd.array([1, 0])], [nd.array([[0.1, 0.9], [0.2, 0.8]])])
bar, validation = mx.callback.ProgressBar(7, 20), mx.callback.LogValidationMetricsCallback()
watch = mx.callback.log_train_metric(3)
for nbatch in range(9):
    param = mx.model.BatchEndParam(epoch=2, nbatch=nbatch, eval_metric=metric, locals=None)
    bar(param), watch(param)
validation(param)
mx.callback.log_train_metric(2, auto_reset=True)(param)
validation(param)
validation(mx.model.BatchEndParam(1, 1, None, None))
"""
        + DONE
    )


def test_speedometer_starts_its_clock_with_the_epoch(monkeypatch, lines):
    now = [100.0]
    monkeypatch.setattr("mxrs.callback.time.time", lambda: now[0])
    meter = mx.callback.Speedometer(10, 2)
    for epoch in range(2):
        for nbatch in range(5):
            meter(param(nbatch, half_right(), epoch))
            now[0] += 0.5
        now[0] += 1000  # evaluation between epochs is not counted
    texts = [text.split("\t") for text in lines()]
    assert [t[0] for t in texts] == [f"Epoch[{e}] Batch [{b}]" for e in (0, 1) for b in ("0-2", "2-4")]


def test_speed_is_samples_per_second(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr("mxrs.callback.time.time", lambda: now[0])
    meter = mx.callback.Speedometer(batch_size=8, frequent=4)
    for nbatch in range(5):
        meter(param(nbatch))
        now[0] += 0.25
    assert caplog.messages == ["Iter[0] Batch [4]\tSpeed: 32.00 samples/sec"]


def test_speedometer_appends_the_loss(lines):
    class Loss:
        values = [("loss", 0.25)]

        def get_name_value(self):
            return self.values

        def reset_local(self):
            self.values = [("loss", float("nan"))]

    scope = {"loss_metric": Loss()}
    meter = mx.callback.Speedometer(10, 1)
    for nbatch in range(3):
        meter(param(nbatch, half_right(), scope=scope))
    assert lines()[0] == "Epoch[0] Batch [0-1]\tSpeed: X samples/sec\taccuracy=0.500000\tloss=0.250000"
    assert lines()[1].endswith("loss=nan")


def test_a_bar_needs_a_total():
    with pytest.raises(ValueError, match=r"ProgressBar: total .* given 0"):
        mx.callback.ProgressBar(0)


def test_checkpoints_come_every_period(tmp_path):
    network = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="f")
    weights = {"f_weight": nd.ones((2, 3)), "f_bias": nd.zeros((2,))}
    save = mx.callback.do_checkpoint(str(tmp_path / "net"), period=2)
    for epoch in range(5):
        save(epoch, network, weights, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net-0002.params",
        "net-0004.params",
        "net-symbol.json",
    ]
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(tmp_path / "net"), 4)
    assert symbol.list_arguments() == network.list_arguments()
    assert sorted(arg_params) == sorted(weights) and aux_params == {}
    np.testing.assert_array_equal(arg_params["f_weight"].asnumpy(), np.ones((2, 3)))


def test_module_checkpoint_calls_the_module():
    calls = []

    class Saved:
        def save_checkpoint(self, *args):
            calls.append(args)

    save = mx.callback.module_checkpoint(Saved(), "p", period=3, save_optimizer_states=True)
    for epoch in range(7):
        save(epoch)
    assert calls == [("p", 3, True), ("p", 6, True)]


# ---- the monitor ---------------------------------------------------------------------------------------------

NETWORK = """
x = mx.sym.Variable("data")
x = mx.sym.Activation(mx.sym.FullyConnected(x, num_hidden=4, name="fc1"), act_type="relu", name="relu1")
net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")
module = mx.mod.Module(net)
module.bind([("data", (4, 5))], [("softmax_label", (4,))])
module.init_params(mx.init.One())
module.init_optimizer()
batch = mx.io.DataBatch([nd.ones((4, 5))], [nd.zeros((4,))])
"""
# Forward only: which gradients the engine keeps between operators is not part of the promise.
WATCH = """
module.install_monitor(monitor)
out_found = []
for _ in range(3):
    monitor.tic()
    module.forward(batch, is_train=False)
    found = monitor.toc()
    out_found.append([(step, name, text.count("\\t")) for step, name, text in found])
    out_values = [[float(v) for v in text.split()] for _, _, text in found]
"""


@pytest.mark.parametrize(
    "arguments",
    ["1", "2", "1, pattern='.*weight'", "1, sort=True", "1, stat_func=lambda x: [x.min(), x.max()]"],
)
def test_monitor_sees_what_mxnets_sees(oracle, arguments):
    found = oracle.check(NETWORK + f"monitor = mx.mon.Monitor({arguments})" + WATCH)["out_found"]
    assert any(found)


def test_monitor_prints_as_mxnet(oracle):
    oracle.check(
        NETWORK
        + LOGGING
        + """
monitor = mx.mon.Monitor(1, pattern="fc.*")
module.install_monitor(monitor)
monitor.tic()
module.forward(batch, is_train=False)
monitor.toc_print()
"""
        + DONE
    )


def test_monitor_in_fit(caplog):
    caplog.set_level(logging.INFO)
    data = mx.io.NDArrayIter(np.ones((8, 3), np.float32), np.zeros(8, np.float32), 2)
    network = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="f"), name="softmax"
    )
    monitor = mx.mon.Monitor(2, pattern="f_weight|f_output", sort=True)
    mx.mod.Module(network).fit(data, num_epoch=1, monitor=monitor)
    seen = [m.split()[1:3] for m in caplog.messages if m.startswith("Batch:")]
    assert seen == [["1", "f_output"], ["1", "f_weight"], ["3", "f_output"], ["3", "f_weight"]]


def test_monitor_on_an_executor():
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    executor = (a * b).simple_bind(mx.cpu(), a=(2,), b=(2,))
    executor.arg_dict["a"][:] = 3
    executor.arg_dict["b"][:] = 2
    monitor = mx.mon.Monitor(1, stat_func=nd.max)
    monitor.install(executor)
    monitor.tic()
    executor.forward()
    values = {name: float(text) for _, name, text in monitor.toc()}
    assert values.pop("a") == 3 and values.pop("b") == 2 and list(values.values()) == [6]
    assert monitor.toc() == []  # not begun


def test_monitor_refuses_by_name():
    with pytest.raises(ValueError, match="interval"):
        mx.mon.Monitor(0)
    with pytest.raises(TypeError, match="install_monitor"):
        mx.mon.Monitor(1).install(object())
    monitor = mx.mon.Monitor(1, stat_func=lambda x: 1.0)
    executor = (mx.sym.Variable("a") * 2).simple_bind(mx.cpu(), a=(2,))
    monitor.install(executor)
    monitor.tic()
    executor.forward()
    with pytest.raises(AssertionError, match="stat_func must give an NDArray"):
        monitor.toc()
