"""Rules of the stochastic-gradient family: SGD, NAG, Signum, SGLD, DCASGD, LARS, LBSGD.

Formulas use w weight, g gradient, r ``rescale_grad``, clip ``clip_gradient``, l learning rate and wd decay,
the last two with their multipliers. The arithmetic of one step is one fused operator wherever the registry
has it.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..ndarray import NDArray
from ..ndarray.random import normal
from .optimizer import Index, Optimizer, aggregation_from_environment, as_lists, register, zeros_like_weight

__all__ = ["DCASGD", "LARS", "LBSGD", "NAG", "SGD", "SGLD", "Signum", "Test", "ccSGD"]


class _MomentumOptimizer(Optimizer):
    """What SGD, NAG and LARS share: an optional momentum, and a float32 copy *after* it in the state."""

    momentum: float

    def _momentum_state(self, weight: NDArray) -> NDArray | None:
        if self.momentum == 0.0:
            return None
        return zeros_like_weight(weight)

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return self._momentum_state(weight)

    def create_state_multi_precision(self, index: Index, weight: NDArray) -> Any:
        if weight.dtype == np.float16:
            if self.multi_precision:
                master = weight.astype(np.float32)
                return self.create_state(index, master), master
            self._warn_float16(f"of the {type(self).__name__} optimizer")
        return self.create_state(index, weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        for row in as_lists(index, weight, grad, state):
            self._step(*row, multi_precision=False)

    def update_multi_precision(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        for one, w, g, s in as_lists(index, weight, grad, state):
            self._step(one, w, g, s, multi_precision=self.multi_precision and w.dtype == np.float16)

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any, *, multi_precision: bool) -> None:
        raise NotImplementedError


@register
class SGD(_MomentumOptimizer):
    """Stochastic gradient descent with momentum and weight decay.

    ``m = momentum * m - l * (clip(r * g) + wd * w); w = w + m``

    Parameters
    ----------
    momentum : float
    lazy_update : bool
        With row_sparse gradients, touch only the rows that the gradient has.
    """

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.lazy_update = lazy_update
        self.aggregate_num = aggregation_from_environment()

    def create_state(self, index: Index, weight: NDArray) -> Any:
        if self.momentum == 0.0:
            return None
        return zeros_like_weight(weight, stype=weight.stype if self.lazy_update else "default")

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        together = isinstance(index, (list, tuple)) and len(index) > 1
        plain = together and not self.multi_precision and weight[0].context.device_type == "gpu"
        if plain and all(array.stype == "default" for array in (*weight, *grad)):
            self._step_together(index, weight, grad, state)
        else:
            super().update_multi_precision(index, weight, grad, state)

    def _step_together(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """One call for all: on a GPU one dispatch, where there would be one for each weight."""
        self._update_count(index)
        kwargs: dict[str, Any] = dict(self._fused_arguments())
        kwargs.update(lrs=self._get_lrs(index), wds=self._get_wds(index), num_weights=len(index))
        if self.momentum:
            rows = zip(weight, grad, state)
            nd.multi_sgd_mom_update(
                *itertools.chain(*rows), out=list(weight), momentum=self.momentum, **kwargs
            )
        else:
            nd.multi_sgd_update(*itertools.chain(*zip(weight, grad)), out=list(weight), **kwargs)

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any, *, multi_precision: bool) -> None:
        self._update_count(index)
        kwargs = self._fused_arguments()
        kwargs["lr"] = self._get_lr(index)
        kwargs["wd"] = self._get_wd(index)
        kwargs["lazy_update"] = self.lazy_update
        if self.momentum:
            kwargs["momentum"] = self.momentum
        if multi_precision:
            momentum, master = state
            if momentum is None:
                nd.mp_sgd_update(weight, grad, master, out=weight, **kwargs)
            else:
                nd.mp_sgd_mom_update(weight, grad, momentum, master, out=weight, **kwargs)
        elif state is None:
            kwargs.pop("momentum", None)
            nd.sgd_update(weight, grad, out=weight, **kwargs)
        else:
            nd.sgd_mom_update(weight, grad, state, out=weight, **kwargs)


@register
class ccSGD(SGD):
    """SGD under the name that very old programs use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


@register
class NAG(_MomentumOptimizer):
    """Nesterov's accelerated gradient, in the form where the stored momentum uses the updated weight.

    ``q = momentum * m; w' = w - q + (1 + momentum) * (q - l * (clip(r * g) + wd * w));
    m = q - l * (clip(r * g) + wd * w')``
    """

    def __init__(self, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any, *, multi_precision: bool) -> None:
        self._update_count(index)
        kwargs = self._fused_arguments()
        kwargs["lr"] = self._get_lr(index)
        kwargs["wd"] = self._get_wd(index)
        if multi_precision:
            momentum, master = state
            if momentum is None:
                nd.mp_sgd_update(weight, grad, master, out=weight, **kwargs)
            else:
                nd.mp_nag_mom_update(
                    weight, grad, momentum, master, out=weight, momentum=self.momentum, **kwargs
                )
        elif state is None:
            nd.sgd_update(weight, grad, out=weight, **kwargs)
        else:
            nd.nag_mom_update(weight, grad, state, out=weight, momentum=self.momentum, **kwargs)


@register
class Signum(Optimizer):
    """Steps along the sign of the momentum (Bernstein et al., "signSGD", 2018).

    ``m = momentum * m - (1 - momentum) * (clip(r * g) + wd * w); w = (1 - l * wd_lh) * w + l * sign(m)``;
    without momentum ``w = (1 - l * wd) * w - l * sign(g)``.

    Parameters
    ----------
    wd_lh : float
        Decay applied to the weight itself (Loshchilov and Hutter); only with momentum.
    """

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.9, wd_lh: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = momentum
        self.wd_lh = wd_lh

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return None if self.momentum == 0.0 else zeros_like_weight(weight, stype=weight.stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        kwargs = self._fused_arguments()
        kwargs["lr"] = self._get_lr(index)
        kwargs["wd"] = self._get_wd(index)
        if state is None:
            nd.signsgd_update(weight, grad, out=weight, **kwargs)
            return
        if self.wd_lh:
            kwargs["wd_lh"] = self.wd_lh
        nd.signum_update(weight, grad, state, out=weight, momentum=self.momentum, **kwargs)


@register
class SGLD(Optimizer):
    """Stochastic gradient Langevin dynamics (Welling and Teh, 2011): half a step of SGD plus noise.

    ``w = w - l / 2 * (clip(r * g) + wd * w) + normal(0, sqrt(l))``
    """

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        lr = self._get_lr(index)
        wd = self._get_wd(index)
        step = self._prepared(grad)
        if wd:
            step += wd * weight
        step *= -lr / 2
        step += normal(0, math.sqrt(lr), shape=weight.shape, dtype=weight.dtype, ctx=weight.context)
        weight += step


@register
class DCASGD(Optimizer):
    """SGD that compensates for stale gradients (Zheng et al., "Delay compensated asynchronous SGD", 2016).

    ``m = momentum * m - l * (G + wd * w + lamda * G^2 * (w - previous w)), G = clip(r * g); w = w + m``
    """

    def __init__(self, momentum: float = 0.0, lamda: float = 0.04, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.weight_previous: dict[Any, NDArray] = {}
        self.lamda = lamda

    def create_state(self, index: Index, weight: NDArray) -> Any:
        momentum = None if self.momentum == 0.0 else zeros_like_weight(weight)
        return momentum, weight.copy()

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        lr = self._get_lr(index)
        wd = self._get_wd(index)
        grad = self._prepared(grad)
        momentum, previous = state
        step = grad * grad
        step *= self.lamda
        step *= weight - previous
        step += grad
        if wd:
            step += wd * weight
        step *= -lr
        if momentum is not None:
            momentum *= self.momentum
            momentum += step
            step = momentum
        previous[:] = weight
        weight += step


@register
class LARS(_MomentumOptimizer):
    """SGD whose rate is scaled layer by layer (You et al., "Large batch training of convolutional networks",
    2017).

    ``k = eta * |w| / (|r * g| + wd * |w| + eps)``, 1 where a norm is 0 and for names ending in gamma, beta or
    bias; then SGD with rate ``l * k``. The norms stay on the device: a step does not wait for them.

    Parameters
    ----------
    eta : float
        Trust coefficient.
    eps : float
    momentum_correction : bool
        Scale the momentum by new rate / old rate in the update after the rate changed.
    """

    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        eta: float = 0.001,
        eps: float = 0,
        momentum_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.momentum_correction = momentum_correction
        self.lazy_update = lazy_update
        self.aggregate_num = aggregation_from_environment()
        self.eta = eta
        self.eps = eps
        self.skip = 0
        self.last_lr: float | None = None
        self.cur_lr: float | None = None

    def set_wd_mult(self, args_wd_mult: Any) -> None:
        """As in the base class, but of the known names only those ending in ``_weight`` are decayed."""
        self.wd_mult = self._undecayed(("_weight",))
        self.wd_mult.update(self._symbol_multipliers("__wd_mult__"))
        self.wd_mult.update(args_wd_mult)

    def _get_lrs(self, indices: Any) -> list[float]:
        if self.cur_lr is not None:
            self.last_lr = self.cur_lr
        rate = self.cur_lr = self.learning_rate
        if self.last_lr is None:
            self.last_lr = rate
        return [rate * self._multiplier(index, "lr_mult", self.lr_mult) for index in indices]

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._steps(index, weight, grad, state, allow_multi_precision=False)

    def update_multi_precision(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._steps(index, weight, grad, state, allow_multi_precision=self.multi_precision)

    def _steps(
        self, index: Index, weight: Any, grad: Any, state: Any, *, allow_multi_precision: bool
    ) -> None:
        indices = index if isinstance(index, (list, tuple)) else (index,)
        self._update_count(indices)
        # One question for all: the momentum correction compares with the rate of the previous call.
        rates = self._get_lrs(indices)
        decays = self._get_wds(indices)
        kwargs = self._fused_arguments()
        for (one, w, g, s), lr, wd in zip(as_lists(index, weight, grad, state), rates, decays):
            self._scaled_step(one, w, g, s, lr, wd, kwargs, allow_multi_precision and w.dtype == np.float16)

    def _scaled_step(
        self,
        index: Any,
        weight: NDArray,
        grad: NDArray,
        state: Any,
        lr: float,
        wd: float,
        kwargs: dict[str, float],
        multi_precision: bool,
    ) -> None:
        momentum, master = state if multi_precision else (state, None)
        lrs = nd.array([lr], ctx=weight.context, dtype="float32")
        wds = nd.array([wd], ctx=weight.context, dtype="float32")
        name = str(self.idx2name.get(index, index))
        if not name.endswith(("gamma", "beta", "bias")):
            squares = nd.multi_sum_sq(weight, grad, num_arrays=2)
            lrs = nd.multi_lars(
                lrs,
                squares.slice_axis(axis=0, begin=0, end=1),
                squares.slice_axis(axis=0, begin=1, end=2),
                wds,
                eta=self.eta,
                eps=self.eps,
                rescale_grad=self.rescale_grad,
            )
        if momentum is None:
            if master is None:
                nd.preloaded_multi_sgd_update(weight, grad, lrs, wds, out=weight, num_weights=1, **kwargs)
            else:
                nd.preloaded_multi_mp_sgd_update(
                    weight, grad, master, lrs, wds, out=weight, num_weights=1, **kwargs
                )
            return
        factor = self.momentum
        if self.momentum_correction and self.last_lr:
            assert self.cur_lr is not None
            factor = self.momentum * (self.cur_lr / self.last_lr)
        if master is None:
            nd.preloaded_multi_sgd_mom_update(
                weight, grad, momentum, lrs, wds, out=weight, num_weights=1, momentum=factor, **kwargs
            )
        else:
            nd.preloaded_multi_mp_sgd_mom_update(
                weight, grad, momentum, master, lrs, wds, out=weight, num_weights=1, momentum=factor, **kwargs
            )


@register
class LBSGD(Optimizer):
    """SGD for large batches: sums `batch_scale` gradients into one step and raises the rate in a warm-up.

    Parameters
    ----------
    momentum : float
    warmup_strategy : {'linear', 'power2', 'sqrt', 'lars'}
        How the factor on the rate grows from 1 to `batch_scale`; 'lars' instead takes ``sqrt(|w|^2 / (|g|^2 +
        wd * |w|^2))``, kept within 0.01 and 100, of each parameter.
    warmup_epochs, updates_per_epoch, begin_epoch : int
        The warm-up lasts ``warmup_epochs * updates_per_epoch`` updates, counted from `begin_epoch`.
    batch_scale : int
        Number of gradients per step.
    num_epochs : int
        Kept for reference; the rule does not use it.
    """

    def __init__(
        self,
        momentum: float = 0.0,
        multi_precision: bool = False,
        warmup_strategy: str = "linear",
        warmup_epochs: int = 5,
        batch_scale: int = 1,
        updates_per_epoch: int = 32,
        begin_epoch: int = 0,
        num_epochs: int = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(multi_precision=multi_precision, **kwargs)
        if batch_scale < 1:
            raise ValueError(f"LBSGD: batch_scale must be 1 or more, given {batch_scale}")
        self.momentum = momentum
        self.warmup_strategy = warmup_strategy
        self.warmup_epochs = warmup_epochs
        self.batch_scale = batch_scale
        self.updates_per_epoch = updates_per_epoch
        self.init_updates = begin_epoch * updates_per_epoch
        self.num_epochs = num_epochs
        self.lbmult: float = 1
        self.cumgrads: dict[Any, dict[str, Any]] = {}
        self.adaptive = warmup_strategy == "lars"
        self.admult: float = 1

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return None if self.momentum == 0.0 else zeros_like_weight(weight, stype=weight.stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        # The rate is asked for before the count rises: schedules lag one update behind other rules.
        lr = self._get_lr(index)
        wd = self._get_wd(index)
        self._update_count(index)
        gathered = self._accumulated(index, grad)
        if gathered is None:
            return
        grad = gathered
        scale = self._trust_ratio(weight, grad, wd) if self.adaptive else self._warmup_factor(index)
        kwargs = self._fused_arguments()
        if state is None:
            nd.sgd_update(weight, grad, out=weight, lr=lr * scale, wd=wd, **kwargs)
        else:
            nd.sgd_mom_update(
                weight, grad, state, out=weight, lr=lr * scale, wd=wd, momentum=self.momentum, **kwargs
            )

    def _accumulated(self, index: Any, grad: NDArray) -> NDArray | None:
        """The mean gradient where this call completes a large batch, else None."""
        sums = self.cumgrads.setdefault(index, {"cum_grad": 0, "num_cums": self.init_updates})
        sums["num_cums"] += 1
        total = grad + sums["cum_grad"]
        if sums["num_cums"] % self.batch_scale:
            sums["cum_grad"] = total
            return None
        sums["cum_grad"] = 0
        return total / self.batch_scale

    def _warmup_factor(self, index: Any) -> float:
        done = self.cumgrads[index]["num_cums"]
        length = self.warmup_epochs * self.updates_per_epoch
        if done >= length:
            return float(self.batch_scale)
        if length <= 1:
            return 1.0
        part = done / length
        growth = {"linear": part, "power2": part * part, "sqrt": math.sqrt(part)}.get(
            self.warmup_strategy, 0.0
        )
        return 1.0 + (self.batch_scale - 1) * growth

    @staticmethod
    def _trust_ratio(weight: NDArray, grad: NDArray, wd: float) -> float:
        weight_square = float((weight * weight).sum().asscalar())
        grad_square = float((grad * grad).sum().asscalar())
        ratio = math.sqrt(weight_square / (grad_square + wd * weight_square + 1e-18))
        return min(max(ratio, 0.01), 100.0)


@register
class Test(Optimizer):
    """``w = w + r * g``, the state a copy of w: for tests of what drives an optimizer."""

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        weight[:] = weight + grad * self.rescale_grad
        state[:] = weight
