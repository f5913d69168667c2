"""Trains a small convolutional network on real handwritten digits (or clothing) and saves it.

    python examples/train_digits.py [--data digits|fashion] [--epochs 10] [--ctx cpu|gpu] ...

Each epoch prints loss, training accuracy, validation accuracy and samples per second.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import digits_data
import numpy as np

import mxrs as mx
from mxrs import autograd, gluon, nd
from mxrs.gluon import nn

SHIFT = 2  # Pixels by which a picture may move in training.


def build_network(hybridize: bool) -> Any:
    """Two pairs of convolutions with pooling between, then two dense layers. Input sizes are found when
    called.
    """
    net = nn.HybridSequential()
    with net.name_scope():
        for channels in (24, 48):
            net.add(
                nn.Conv2D(channels, kernel_size=3, padding=1, use_bias=False),
                nn.BatchNorm(),
                nn.Activation("relu"),
                nn.MaxPool2D(2),
            )
        net.add(
            nn.Conv2D(96, kernel_size=3, padding=1, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.MaxPool2D(2),
            nn.Flatten(),
            nn.Dense(128, activation="relu"),
            nn.Dropout(0.4),
            nn.Dense(digits_data.CLASSES),
        )
    if hybridize:
        net.hybridize()
    return net


def as_planes(images: np.ndarray) -> np.ndarray:
    """uint8 pictures (n, 28, 28) as float32 (n, 1, 28, 28) with about zero mean and unit variance."""
    return (images[:, np.newaxis].astype(np.float32) / 255.0 - 0.2) / 0.33


def shifted(batch: Any, generator: np.random.RandomState, mirror: bool) -> Any:
    """The batch (n, 1, 28, 28) moved by up to SHIFT pixels each way, and mirrored half of the time with
    `mirror`.

    One shift for the whole batch: two slices then do the work, and the next epoch brings another shift.
    """
    side = batch.shape[2]
    edge = (0, 0, 0, 0, SHIFT, SHIFT, SHIFT, SHIFT)
    wide = nd.pad(batch, mode="edge", pad_width=edge)
    top, left = (int(v) for v in generator.randint(0, 2 * SHIFT + 1, 2))
    moved = wide[:, :, top : top + side, left : left + side]
    return nd.flip(moved, axis=3) if mirror and generator.rand() < 0.5 else moved


def accuracy(net: Any, loader: Any, ctx: Any) -> float:
    """The share of a loader's pictures that the network names rightly."""
    metric = mx.metric.Accuracy()
    for images, labels in loader:
        metric.update([labels.as_in_context(ctx)], [net(images.as_in_context(ctx))])
    return float(metric.get()[1])


def progress(loader: Any, title: str) -> Iterator[Any]:
    """Iterates over the batches with a progress bar, where there is a terminal to draw it on."""
    if not sys.stderr.isatty():
        yield from loader
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from own_bar(loader, title)
    else:
        yield from tqdm(loader, desc=title, leave=False)


def own_bar(loader: Any, title: str, width: int = 30) -> Iterator[Any]:
    """A progress bar of one line, for terminals without tqdm."""
    total = len(loader)
    for done, batch in enumerate(loader, 1):
        yield batch
        filled = width * done // total
        print(
            f"\r{title} [{'#' * filled}{'.' * (width - filled)}] {done}/{total}",
            end="",
            file=sys.stderr,
            flush=True,
        )
    print("\r" + " " * (len(title) + width + 24) + "\r", end="", file=sys.stderr, flush=True)


def learning_rate(base: float, step: int, steps: int) -> float:
    """Rises over the first tenth of the training and then falls along a half cosine to nearly nothing."""
    warm = max(1, steps // 10)
    if step < warm:
        return base * (step + 1) / warm
    return base * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def train_epoch(net: Any, trainer: Any, loader: Any, ctx: Any, args: Any, epoch: int) -> tuple[float, float]:
    """One pass over the data; returns the mean loss and the accuracy on the (moved) pictures."""
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    metric, losses, seen = mx.metric.Accuracy(), [], 0
    generator = np.random.RandomState(args.seed * 1000 + epoch)
    steps = len(loader)
    for step, (images, labels) in enumerate(progress(loader, f"epoch {epoch + 1}/{args.epochs}")):
        images, labels = images.as_in_context(ctx), labels.as_in_context(ctx)
        images = shifted(images, generator, mirror=args.data == "fashion")
        trainer.set_learning_rate(learning_rate(args.lr, epoch * steps + step, args.epochs * steps))
        with autograd.record():
            scores = net(images)
            loss = loss_of(scores, labels)
        loss.backward()
        trainer.step(len(labels))
        # Summed on the device: reading each value here would wait for each step.
        losses.append(loss.sum())
        metric.update([labels], [scores])
        seen += len(labels)
    return float(nd.add_n(*losses).asscalar()) / seen, float(metric.get()[1])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small convolutional network on real pictures.")
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--epochs", type=int, default=None, help="10 for digits, 6 for fashion")
    parser.add_argument("--batch-size", type=int, default=None, help="64 for digits, 128 for fashion")
    parser.add_argument("--lr", type=float, default=0.003, help="highest learning rate of Adam")
    parser.add_argument("--ctx", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--hybridize", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=None, help="file for the parameters, <data>.params by default")
    args = parser.parse_args(arguments)
    small = args.data == "digits"
    args.epochs = (10 if small else 6) if args.epochs is None else args.epochs
    args.batch_size = (64 if small else 128) if args.batch_size is None else args.batch_size
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    args.out = args.out or f"{args.data}.params"
    return args


def main(arguments: list[str] | None = None) -> float:
    """Runs the training and returns the last validation accuracy."""
    args = parse(arguments)
    try:
        data = digits_data.load(args.data)
    except FileNotFoundError as missing:
        raise SystemExit(str(missing)) from None
    np.random.seed(args.seed)
    mx.random.seed(args.seed)
    ctx = mx.gpu(0) if args.ctx == "gpu" else mx.cpu()
    try:
        nd.zeros((1,), ctx=ctx)
    except mx.MXNetError as error:
        raise SystemExit(f"{error}\n`python -m mxrs devices` says more") from None
    train = gluon.data.DataLoader(
        gluon.data.ArrayDataset(as_planes(data.train_images), data.train_labels),
        args.batch_size,
        shuffle=True,
    )
    valid = gluon.data.DataLoader(
        gluon.data.ArrayDataset(as_planes(data.valid_images), data.valid_labels), 500
    )
    net = build_network(args.hybridize)
    net.initialize(mx.init.Xavier(), ctx=ctx)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": args.lr, "wd": 1e-4})
    print(
        f"{args.data}: {len(data.train_labels)} pictures to train on, {len(data.valid_labels)} held out, on {ctx}"
    )
    right = 0.0
    for epoch in range(args.epochs):
        started = time.perf_counter()
        loss, known = train_epoch(net, trainer, train, ctx, args, epoch)
        speed = len(data.train_labels) / (time.perf_counter() - started)
        right = accuracy(net, valid, ctx)
        print(
            f"epoch {epoch + 1:2d}/{args.epochs}  loss {loss:.4f}  training accuracy {100 * known:.2f} %  "
            f"validation accuracy {100 * right:.2f} %  {speed:,.0f} samples/s",
            flush=True,
        )
    net.save_parameters(args.out)
    print(f"saved the parameters to {args.out}")
    return right


if __name__ == "__main__":
    main()
