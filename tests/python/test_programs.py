"""Whole programs of the kind MXNet users write, from arrays to trained parameters."""

import pathlib
import random
import re
import sys

import numpy as np
import pytest

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import digits_data
import linear_regression
import train_digits


@pytest.fixture(autouse=True)
def seeds():
    mx.random.seed(7)
    np.random.seed(7)
    random.seed(7)


def assert_found_the_line(w, b, history):
    np.testing.assert_allclose(w.asnumpy().ravel(), [2, -3.4], atol=0.02)
    np.testing.assert_allclose(b.asnumpy(), [4.2], atol=0.02)
    assert history == sorted(history, reverse=True)
    # What is left is the noise: half of 0.01 squared.
    assert history[-1] < 2e-4 < history[0]


# --- 1 and 2: linear regression -----------------------------------------------------------------------------


def test_linear_regression_by_hand(capsys):
    assert_found_the_line(*linear_regression.fit_by_hand(*linear_regression.make_points()))
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)


def test_linear_regression_with_gluon(capsys):
    assert_found_the_line(*linear_regression.fit_with_gluon(*linear_regression.make_points()))
    assert len(re.findall(r"loss \d+\.\d{6}", capsys.readouterr().out)) == 3


def test_generator_visits_each_point_once():
    features = nd.arange(24).reshape((12, 2))
    rows = np.concatenate([x.asnumpy() for x, _ in linear_regression.batches(features, nd.arange(12))])
    targets = np.concatenate([y.asnumpy() for _, y in linear_regression.batches(features, nd.arange(12))])
    np.testing.assert_array_equal(np.sort(rows, axis=0), features.asnumpy())
    np.testing.assert_array_equal(np.sort(targets), np.arange(12))


def test_the_parts_a_gluon_regression_looks_at():
    net = nn.Sequential()
    net.add(nn.Dense(1))
    net.initialize(mx.init.Normal(0.01))
    x, y = nd.random.normal(shape=(8, 2)), nd.ones((8,))
    loss_of = gluon.loss.L2Loss()
    with autograd.record():
        loss = loss_of(net(x), y)
    loss.backward()
    weight, bias = net[0].weight, net[0].bias
    assert weight.data().shape == (1, 2) and bias.data().asnumpy().tolist() == [0]
    assert 0 < np.abs(weight.data().asnumpy()).max() < 0.1
    residual = net(x).asnumpy().ravel() - 1
    np.testing.assert_allclose(weight.grad().asnumpy().ravel(), residual @ x.asnumpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias.grad().asnumpy(), [residual.sum()], rtol=1e-4)
    assert "%.4f" % loss.mean().asnumpy() == "%.4f" % (residual**2 / 2).mean()


# --- 3: a CNN that is never told its input sizes ------------------------------------------------------------


def small_cnn():
    net = nn.Sequential()
    net.add(
        nn.Conv2D(channels=6, kernel_size=5, activation="relu"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Conv2D(channels=16, kernel_size=3, activation="relu"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Flatten(),
        nn.Dense(32, activation="relu"),
        nn.Dense(2),
    )
    return net


def stripes(count):
    """Pictures (count, 1, 20, 20) of noisy stripes, label 1 where they run across."""
    labels = np.random.randint(0, 2, count)
    phase, wave = np.random.uniform(0, 6, (count, 1, 1, 1)), np.arange(20) * 1.3
    down, across = np.sin(wave[None, None, None] + phase), np.sin(wave[None, None, :, None] + phase)
    pictures = np.where(labels[:, None, None, None] == 1, across, down)
    pictures = pictures + np.random.normal(0, 0.3, (count, 1, 20, 20))
    return nd.array(pictures), nd.array(labels)


def test_cnn_finds_its_sizes_and_learns():
    net = small_cnn()
    net.initialize(mx.init.Xavier())
    assert net[0].weight.shape == (6, 0, 5, 5) and net[5].weight.shape == (32, 0)
    with pytest.raises(gluon.parameter.DeferredInitializationError):
        net[5].weight.data()
    pictures, labels = stripes(256)
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(pictures, labels), 32, shuffle=True)
    losses = []
    for _ in range(4):
        for x, y in loader:
            with autograd.record():
                loss = loss_of(net(x), y)
            loss.backward()
            trainer.step(len(y))
            losses.append(float(loss.mean().asscalar()))
    assert net[0].weight.shape == (6, 1, 5, 5) and net[2].weight.shape == (16, 6, 3, 3)
    assert net[5].weight.shape == (32, 16 * 3 * 3)
    assert np.mean(losses[-8:]) < 0.2 * losses[0]
    unseen, truth = stripes(64)
    assert (net(unseen).asnumpy().argmax(axis=1) == truth.asnumpy()).mean() > 0.95


def test_cnn_survives_saving_and_loading(tmp_path):
    first, second = small_cnn(), small_cnn()
    first.initialize(mx.init.Xavier())
    pictures, _ = stripes(4)
    expected = first(pictures).asnumpy()
    first.save_parameters(str(tmp_path / "cnn.params"))
    second.load_parameters(str(tmp_path / "cnn.params"))
    np.testing.assert_array_equal(second(pictures).asnumpy(), expected)


def test_cnn_refuses_another_size_afterwards():
    net = small_cnn()
    net.initialize()
    net(nd.ones((2, 1, 20, 20)))
    with pytest.raises(mx.base.MXNetError):
        net(nd.ones((2, 1, 28, 28))).asnumpy()


# --- 4: lazy evaluation -------------------------------------------------------------------------------------


def test_results_are_as_if_computed_at_once():
    a, b = nd.ones((300, 300)), nd.full((300, 300), 4)
    c = (a + b) / 10.0
    d = b + 1
    b[:] = 100  # A later write must wait for the readers queued before it.
    a += 1
    assert c.asnumpy().min() == c.asnumpy().max() == np.float32(0.5)
    assert d.asnumpy().min() == d.asnumpy().max() == 5
    assert a.asnumpy().max() == 2 and b.asnumpy().min() == 100


def test_waiting_functions_return_finished_arrays():
    x = nd.ones((64, 64))
    for _ in range(50):
        x = nd.dot(x, nd.full((64, 64), 1 / 64))
    x.wait_to_read()
    np.testing.assert_allclose(x.asnumpy(), 1, rtol=1e-5)
    y = x * 2
    nd.waitall()
    assert y[0, 0].asscalar() == pytest.approx(2)


def test_a_chain_through_one_array_keeps_its_order():
    x, log = nd.zeros((100, 100)), []
    for step in range(1, 60):
        x = x * 0.5 if step % 3 == 0 else x + step
        log.append(x.sum() if step % 7 else x[1, 2])
    value, expected = 0.0, []
    for step in range(1, 60):
        value = value * 0.5 if step % 3 == 0 else value + step
        expected.append(value * 10000 if step % 7 else value)
    np.testing.assert_allclose([entry.asscalar() for entry in log], expected, rtol=1e-5)


# --- the program behind `make train` ------------------------------------------------------------------------


def test_shifted_pictures_keep_their_content():
    batch = nd.random.uniform(shape=(3, 1, 28, 28))
    source = np.pad(batch.asnumpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    windows = [source[:, :, t : t + 28, s : s + 28] for t in range(5) for s in range(5)]
    generator, seen = np.random.RandomState(0), set()
    for _ in range(60):
        moved = train_digits.shifted(batch, generator, mirror=False).asnumpy()
        matches = [i for i, window in enumerate(windows) if np.array_equal(window, moved)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 15


def test_learning_rate_rises_and_falls():
    rates = [train_digits.learning_rate(1.0, step, 100) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10) and max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.03


@pytest.mark.parametrize("hybridize", ["--hybridize", "--no-hybridize"])
def test_training_program_on_a_few_digits(monkeypatch, tmp_path, capsys, hybridize):
    images = np.zeros((240, 28, 28), dtype=np.uint8)
    labels = np.arange(240).astype(np.int32) % 10
    for image, label in zip(images, labels, strict=True):
        image[3 : 5 + 2 * label, 5:23] = 255  # The height tells, and survives the shifts.
    monkeypatch.setattr(
        digits_data, "load", lambda name: digits_data.Split(images, labels, images[:60], labels[:60])
    )
    out = tmp_path / "digits.params"
    right = train_digits.main(["--epochs", "6", "--batch-size", "16", "--out", str(out), hybridize])
    printed = capsys.readouterr().out
    line = r"loss [\d.]+  training accuracy [\d.]+ %  validation accuracy [\d.]+ %  [\d,]+ samples/s"
    assert len(re.findall(line, printed)) == 6
    assert str(out) in printed and right > 0.4
    again = train_digits.build_network(hybridize=False)
    again.load_parameters(str(out))
    scores = again(nd.array(train_digits.as_planes(images[:60]))).asnumpy()
    assert (scores.argmax(axis=1) == labels[:60]).mean() == pytest.approx(right)


def test_own_progress_bar(capsys):
    assert list(train_digits.own_bar([1, 2, 3], "epoch")) == [1, 2, 3]
    drawn = capsys.readouterr().err
    assert "3/3" in drawn and "#" * 30 in drawn


def test_training_program_without_data(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="dataset-fashion-mnist"):
        train_digits.main(["--data", "fashion"])
