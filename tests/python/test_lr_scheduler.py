"""Learning-rate schedules against their formulas and against MXNet 1.9.1."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mxrs as mx

SCHEDULES = [
    "FactorScheduler(3, 0.5, base_lr=0.4)",
    "FactorScheduler(2, 0.3, stop_factor_lr=0.02, base_lr=0.4, warmup_steps=3, warmup_begin_lr=0.1)",
    "MultiFactorScheduler([2, 5, 11], 0.2, base_lr=0.4)",
    "PolyScheduler(12, base_lr=0.4, pwr=1.5, final_lr=0.03)",
    "CosineScheduler(9, base_lr=0.4, final_lr=0.02, warmup_steps=4, warmup_begin_lr=0.1)",
    "CosineScheduler(9, base_lr=0.4, warmup_steps=4, warmup_begin_lr=0.1, warmup_mode='constant')",
]


def test_factor_halves_after_every_step() -> None:
    schedule = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1)
    assert [schedule(i) for i in range(10)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
    assert schedule(0) == 0.0625, "a schedule does not go back"


def test_cosine_and_poly_follow_their_formulas() -> None:
    cosine = mx.lr_scheduler.CosineScheduler(max_update=6, base_lr=1)
    poly = mx.lr_scheduler.PolyScheduler(max_update=6, base_lr=1, pwr=2)
    for i in range(7):
        assert cosine(i) == pytest.approx((1 + math.cos(math.pi * i / 6)) / 2)
        assert poly(i) == pytest.approx((1 - i / 6) ** 2)


def test_warmup_rises_linearly() -> None:
    schedule = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1, warmup_steps=4)
    assert [schedule(i) for i in range(4)] == [0, 0.25, 0.5, 0.75]


def test_warmup_as_long_as_the_schedule_ends_at_final_lr() -> None:
    schedule = mx.lr_scheduler.CosineScheduler(5, base_lr=1, final_lr=0.1, warmup_steps=5)
    assert schedule(5) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda s: s.FactorScheduler(0), ValueError),
        (lambda s: s.FactorScheduler(1, 2.0), ValueError),
        (lambda s: s.MultiFactorScheduler([4, 2]), ValueError),
        (lambda s: s.MultiFactorScheduler([]), AssertionError),
        (lambda s: s.PolyScheduler(0), ValueError),
        (lambda s: s.LRScheduler(warmup_steps=-1), ValueError),
        (lambda s: s.LRScheduler(warmup_begin_lr=2), ValueError),
        (lambda s: s.LRScheduler(warmup_mode="x"), ValueError),
        (lambda s: s.LRScheduler()(1), NotImplementedError),
    ],
)
def test_bad_arguments_are_refused(make, error) -> None:
    with pytest.raises(error):
        make(mx.lr_scheduler)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_same_as_mxnet(oracle, schedule: str) -> None:
    wanted = oracle.run(f"s = mx.lr_scheduler.{schedule}\nout_lr = np.array([s(i) for i in range(20)])")[
        "out_lr"
    ]
    ours = eval(f"mx.lr_scheduler.{schedule}")
    np.testing.assert_allclose([ours(i) for i in range(20)], wanted, rtol=1e-12)
