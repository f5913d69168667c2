"""Learning-rate schedules: functions from the number of updates done so far to a learning rate.

An optimizer calls its scheduler with ``num_update`` (1 at the first update) and uses what comes back.
Schedulers keep their current rate in ``base_lr`` and move forward only: asking for an earlier update later
does not go back. What is done with the rate, multipliers of single parameters included, is the optimizer's
matter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from math import cos, pi
from numbers import Integral

__all__ = ["CosineScheduler", "FactorScheduler", "LRScheduler", "MultiFactorScheduler", "PolyScheduler"]

_WARMUP_MODES = ("linear", "constant")


class LRScheduler:
    """Base of all schedules; knows the warm-up and leaves ``__call__`` to the subclass.

    Parameters
    ----------
    base_lr : float
        Rate before the schedule changes it. An optimizer created with both a scheduler and ``learning_rate``
        overwrites it.
    warmup_steps : int
        Number of updates during which the warm-up rate is used instead of the schedule.
    warmup_begin_lr : float
        Rate at update 0; must not exceed `base_lr`.
    warmup_mode : {'linear', 'constant'}
        Rise linearly from `warmup_begin_lr` to `base_lr`, or stay at `warmup_begin_lr`.

    Raises
    ------
    ValueError
        For a negative `warmup_steps`, a `warmup_begin_lr` above `base_lr`, or another `warmup_mode`.
    """

    def __init__(
        self,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        _require_int("warmup_steps", warmup_steps)
        if warmup_begin_lr > base_lr:
            raise ValueError(f"warmup_begin_lr must not exceed base_lr, given {warmup_begin_lr} > {base_lr}")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, given {warmup_steps}")
        _check_warmup_mode(warmup_mode)
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.warmup_final_lr = base_lr
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_mode = warmup_mode

    def get_warmup_lr(self, num_update: int) -> float:
        """Rate of the warm-up at `num_update`, which must be below ``warmup_steps`` (AssertionError
        otherwise).
        """
        if num_update >= self.warmup_steps:
            raise AssertionError(
                f"get_warmup_lr: num_update {num_update} is not below warmup_steps {self.warmup_steps}"
            )
        if self.warmup_mode == "linear":
            rise = (
                (self.warmup_final_lr - self.warmup_begin_lr) * float(num_update) / float(self.warmup_steps)
            )
            return self.warmup_begin_lr + rise
        _check_warmup_mode(self.warmup_mode)
        return self.warmup_begin_lr

    def __call__(self, num_update: int) -> float:
        """Learning rate for the update numbered `num_update`, counted from 1."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(num_update)")


class FactorScheduler(LRScheduler):
    """Multiplies the rate by `factor` after every `step` updates, never below `stop_factor_lr`.

    Raises
    ------
    ValueError
        For `step` below 1 or `factor` above 1.
    """

    def __init__(
        self,
        step: int,
        factor: float = 1,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if step < 1:
            raise ValueError(f"step must be 1 or more, given {step}")
        _check_factor(factor)
        self.step = step
        self.factor = factor
        self.stop_factor_lr = stop_factor_lr
        self.count = 0

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        while num_update > self.count + self.step:
            self.count += self.step
            self.base_lr *= self.factor
            if self.base_lr < self.stop_factor_lr:
                self.base_lr = self.stop_factor_lr
                logging.info("update %d: learning rate %.5e, its floor", num_update, self.base_lr)
            else:
                logging.info("update %d: learning rate %.5e", num_update, self.base_lr)
        return self.base_lr


class MultiFactorScheduler(LRScheduler):
    """Multiplies the rate by `factor` once the update numbers in the list `step` have been passed.

    Raises
    ------
    ValueError
        Where the list does not increase strictly, starts below 1, or `factor` is above 1.
    AssertionError
        Where `step` is not a list or is empty.
    """

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not isinstance(step, list) or not step:
            raise AssertionError(f"step must be a list of at least one update number, given {step!r}")
        for previous, current in pairwise(step):
            if current <= previous:
                raise ValueError(f"Schedule step must be an increasing integer list, given {step}")
        if step[0] < 1:
            raise ValueError(f"every entry of step must be 1 or more, given {step}")
        _check_factor(factor)
        self.step = step
        self.cur_step_ind = 0
        self.factor = factor
        self.count = 0

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        while self.cur_step_ind < len(self.step) and num_update > self.step[self.cur_step_ind]:
            self.count = self.step[self.cur_step_ind]
            self.cur_step_ind += 1
            self.base_lr *= self.factor
            logging.info("update %d: learning rate %.5e", num_update, self.base_lr)
        return self.base_lr


class _AnnealingScheduler(LRScheduler):
    """What the schedules that end at `final_lr` after `max_update` updates have in common."""

    def __init__(
        self,
        max_update: int,
        base_lr: float,
        final_lr: float,
        warmup_steps: int,
        warmup_begin_lr: float,
        warmup_mode: str,
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        _require_int("max_update", max_update)
        if max_update < 1:
            raise ValueError(f"maximum number of updates must be strictly positive, given {max_update}")
        self.base_lr_orig = self.base_lr
        self.max_update = max_update
        self.final_lr = final_lr
        self.max_steps = self.max_update - self.warmup_steps

    def _remaining(self, progress: float) -> float:
        """Part of the way from `final_lr` up to the first rate that is left at `progress` in [0, 1]."""
        raise NotImplementedError

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        if num_update <= self.max_update:
            # A warm-up as long as the whole schedule leaves nothing to anneal over: it is at its end.
            progress = float(num_update - self.warmup_steps) / self.max_steps if self.max_steps else 1.0
            span = self.base_lr_orig - self.final_lr
            self.base_lr = self.final_lr + span * self._remaining(progress)
        return self.base_lr


class PolyScheduler(_AnnealingScheduler):
    """Polynomial decay: ``final_lr + (base_lr - final_lr) * (1 - progress) ** pwr``.

    `progress` runs from 0 at the end of the warm-up to 1 at `max_update`; the rate stays there afterwards.

    Raises
    ------
    ValueError
        For `max_update` below 1.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.power = pwr

    def _remaining(self, progress: float) -> float:
        return pow(1 - progress, self.power)


class CosineScheduler(_AnnealingScheduler):
    """Half a cosine wave: ``final_lr + (base_lr - final_lr) * (1 + cos(pi * progress)) / 2``.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), without the
    restarts.

    Raises
    ------
    ValueError
        For `max_update` below 1.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)

    def _remaining(self, progress: float) -> float:
        return (1 + cos(pi * progress)) / 2


def _require_int(name: str, value: object) -> None:
    if not isinstance(value, Integral):
        raise AssertionError(f"{name} must be an int, given {value!r}")


def _check_factor(factor: float) -> None:
    if factor > 1.0:
        raise ValueError(f"Factor must be no more than 1 to make lr reduce, given {factor}")


def _check_warmup_mode(mode: str) -> None:
    if mode not in _WARMUP_MODES:
        raise ValueError(f"Supports only linear and constant modes of warmup, given {mode!r}")
