"""Rules that scale each element by its own history: Adam and its relatives, AdaGrad, AdaDelta, RMSProp, Ftrl,
FTML, LAMB.

Formulas use w weight, g gradient, r ``rescale_grad``, clip ``clip_gradient``, l learning rate, wd decay (the
last two with their multipliers) and t the number of updates of this parameter, from 1. The arithmetic of one
step is one fused operator wherever the registry has it; the others are written with in-place array operators.
"""

from __future__ import annotations

import math
from typing import Any

from .. import ndarray as nd
from ..ndarray import NDArray
from .optimizer import Index, Optimizer, as_lists, register, zeros_like_weight

__all__ = ["FTML", "LAMB", "AdaDelta", "AdaGrad", "Adam", "Adamax", "Ftrl", "Nadam", "RMSProp"]

_LAMB_AGGREGATION = 45


@register
class Adam(Optimizer):
    """Kingma and Ba, "Adam: a method for stochastic optimization" (2015).

    ``G = clip(r * g + wd * w); m = beta1 * m + (1 - beta1) * G; v = beta2 * v + (1 - beta2) * G^2;
    w = w - l * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)``

    Parameters
    ----------
    lazy_update : bool
        With row_sparse gradients, touch only the rows that the gradient has.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def create_state(self, index: Index, weight: NDArray) -> Any:
        stype = weight.stype if self.lazy_update else "default"
        return zeros_like_weight(weight, stype=stype), zeros_like_weight(weight, stype=stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        t = self._index_update_count[index]
        correction = math.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)
        mean, var = state
        nd.adam_update(
            weight,
            grad,
            mean,
            var,
            out=weight,
            lr=self._get_lr(index) * correction,
            wd=self._get_wd(index),
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            lazy_update=self.lazy_update,
            **self._fused_arguments(),
        )


@register
class AdaGrad(Optimizer):
    """Duchi, Hazan and Singer, "Adaptive subgradient methods" (2011).

    ``G = clip(r * g); h = h + G^2; w = w - l * (G / sqrt(h + eps) + wd * w)``
    """

    def __init__(self, eps: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = eps

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight, stype=weight.stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        lr = self._get_lr(index)
        wd = self._get_wd(index)
        if grad.stype == "row_sparse":
            nd.sparse.adagrad_update(
                weight,
                grad,
                state,
                out=weight,
                lr=lr,
                wd=wd,
                epsilon=self.float_stable_eps,
                **self._fused_arguments(),
            )
            return
        grad = self._prepared(grad)
        state += grad * grad
        grad /= (state + self.float_stable_eps).sqrt()
        if wd:
            grad += wd * weight
        grad *= -lr
        weight += grad


@register
class AdaDelta(Optimizer):
    """Zeiler, "ADADELTA: an adaptive learning rate method" (2012). The learning rate is not used.

    ``G = clip(r * g); a = rho * a + (1 - rho) * G^2; d = sqrt(D + epsilon) / sqrt(a + epsilon) * G;
    D = rho * D + (1 - rho) * d^2; w = w - d - wd * w``
    """

    def __init__(self, rho: float = 0.90, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rho = rho
        self.epsilon = epsilon

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight), zeros_like_weight(weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        wd = self._get_wd(index)
        grad = self._prepared(grad)
        grad_square, delta_square = state
        grad_square *= self.rho
        grad_square += (1.0 - self.rho) * grad * grad
        delta = (delta_square + self.epsilon).sqrt()
        delta /= (grad_square + self.epsilon).sqrt()
        delta *= grad
        delta_square *= self.rho
        delta_square += (1.0 - self.rho) * delta * delta
        if wd:
            delta += wd * weight
        weight -= delta


@register
class RMSProp(Optimizer):
    """Divides by a running root mean square of the gradient.

    Plain (Tieleman and Hinton, 2012): ``G = clip(r * g + wd * w); n = gamma1 * n + (1 - gamma1) * G^2;
    w = w - l * G / sqrt(n + epsilon)``. Centered (Graves, 2013, with momentum gamma2):
    ``q = gamma1 * q + (1 - gamma1) * G; d = gamma2 * d - l * G / sqrt(n - q^2 + epsilon); w = w + d``.

    Parameters
    ----------
    centered : bool
        Choose the second form.
    clip_weights : float, optional
        Bound on the absolute value of each weight after the step.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.gamma1 = gamma1
        self.gamma2 = gamma2
        self.centered = centered
        self.epsilon = epsilon
        self.clip_weights = clip_weights

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return tuple(zeros_like_weight(weight, stype=weight.stype) for _ in range(3 if self.centered else 1))

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        kwargs = self._fused_arguments()
        kwargs["lr"] = self._get_lr(index)
        kwargs["wd"] = self._get_wd(index)
        kwargs["gamma1"] = self.gamma1
        kwargs["epsilon"] = self.epsilon
        if self.clip_weights:
            kwargs["clip_weights"] = self.clip_weights
        if self.centered:
            square, mean, delta = state
            nd.rmspropalex_update(weight, grad, square, mean, delta, out=weight, gamma2=self.gamma2, **kwargs)
        else:
            nd.rmsprop_update(weight, grad, state[0], out=weight, **kwargs)


@register
class Ftrl(Optimizer):
    """Follow the regularized leader (McMahan et al., "Ad click prediction", 2013).

    ``G = clip(r * g); z = z + G - (sqrt(n + G^2) - sqrt(n)) * w / l; n = n + G^2;
    w = (sign(z) * lamda1 - z) / ((beta + sqrt(n)) / l + wd) where |z| > lamda1, else 0``
    """

    def __init__(
        self, lamda1: float = 0.01, learning_rate: float = 0.1, beta: float = 1, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.lamda1 = lamda1
        self.beta = beta

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight, stype=weight.stype), zeros_like_weight(weight, stype=weight.stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        z, n = state
        nd.ftrl_update(
            weight,
            grad,
            z,
            n,
            out=weight,
            lr=self._get_lr(index),
            wd=self._get_wd(index),
            lamda1=self.lamda1,
            beta=self.beta,
            **self._fused_arguments(),
        )


@register
class FTML(Optimizer):
    """Follow the moving leader (Zheng and Kwok, 2017).

    ``G = clip(r * g + wd * w); v = beta2 * v + (1 - beta2) * G^2;
    d' = (1 - beta1^t) / l * (sqrt(v / (1 - beta2^t)) + epsilon);
    z = beta1 * z + (1 - beta1) * G - (d' - beta1 * d) * w; d = d'; w = -z / d``
    """

    def __init__(
        self, beta1: float = 0.6, beta2: float = 0.999, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight), zeros_like_weight(weight), zeros_like_weight(weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        d, v, z = state
        kwargs = {"rescale_grad": self.rescale_grad}
        if self.clip_gradient:
            kwargs["clip_grad"] = self.clip_gradient  # this operator's own spelling
        nd.ftml_update(
            weight,
            grad,
            d,
            v,
            z,
            out=weight,
            lr=self._get_lr(index),
            wd=self._get_wd(index),
            t=self._index_update_count[index],
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            **kwargs,
        )


@register
class Adamax(Optimizer):
    """Adam with the infinity norm (Kingma and Ba, 2015, section 7).

    ``G = clip(r * g + wd * w); m = beta1 * m + (1 - beta1) * G; u = max(beta2 * u, |G|); w = w - l / (1 -
    beta1^t) * m / u``. Without an epsilon: an element whose gradient is 0 from the start gets nan.
    """

    def __init__(
        self, learning_rate: float = 0.002, beta1: float = 0.9, beta2: float = 0.999, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight), zeros_like_weight(weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        lr = self._get_lr(index) / (1.0 - self.beta1 ** self._index_update_count[index])
        grad = self._prepared_with_decay(grad, weight, self._get_wd(index))
        mean, bound = state
        mean *= self.beta1
        mean += (1.0 - self.beta1) * grad
        bound *= self.beta2
        bound[:] = nd.maximum(bound, grad.abs())
        weight -= lr * mean / bound


@register
class Nadam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016).

    ``G = clip(r * g + wd * w); mt = beta1 * (1 - 0.5 * 0.96^(t * schedule_decay)); P = P * mt; w = w - l *
    ((1 - mt) * G / (1 - P) + mt1 * m / (1 - P * mt1)) / (sqrt(v / (1 - beta2^t)) + epsilon)`` with mt1 the mt
    of the next update. The product P is one for all parameters, as programs trained with MXNet expect.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        schedule_decay: float = 0.004,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.schedule_decay = schedule_decay
        self.m_schedule = 1.0

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight), zeros_like_weight(weight)

    def _momentum_at(self, t: int) -> float:
        return self.beta1 * (1.0 - 0.5 * 0.96 ** (t * self.schedule_decay))

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        lr = self._get_lr(index)
        t = self._index_update_count[index]
        grad = self._prepared_with_decay(grad, weight, self._get_wd(index))
        momentum, next_momentum = self._momentum_at(t), self._momentum_at(t + 1)
        self.m_schedule *= momentum
        next_schedule = self.m_schedule * next_momentum
        mean, var = state
        mean *= self.beta1
        mean += (1.0 - self.beta1) * grad
        var *= self.beta2
        var += (1.0 - self.beta2) * grad * grad
        root = (var / (1.0 - self.beta2**t)).sqrt()
        root += self.epsilon
        grad *= lr * (1.0 - momentum) / (1.0 - self.m_schedule)
        grad += (lr * next_momentum / (1.0 - next_schedule)) * mean
        grad /= root
        weight -= grad


@register
class LAMB(Optimizer):
    """Layer-wise adaptive moments (You et al., "Large batch optimization for deep learning", 2020).

    ``G = clip(r * g); m, v moments of G; u = m' / (sqrt(v') + epsilon) + wd * w`` with m', v' bias corrected;
    ``w = w - l * |w| / |u| * u``, the ratio 1 where a norm is 0.

    Parameters
    ----------
    lower_bound, upper_bound : float, optional
        Bounds on |w| in the ratio.
    bias_correction : bool
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.bias_correction = bias_correction
        self.aggregate_num = _LAMB_AGGREGATION

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight, stype=weight.stype), zeros_like_weight(weight, stype=weight.stype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        for row in as_lists(index, weight, grad, state):
            self._step(*row)

    def update_multi_precision(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        for row in as_lists(index, weight, grad, state):
            super().update_multi_precision(*row)

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        mean, var = state
        phase1: dict[str, Any] = {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "bias_correction": self.bias_correction,
            "t": self._index_update_count[index],
            "wd": self._get_wd(index),
            **self._fused_arguments(),
        }
        phase2: dict[str, float] = {"lr": self._get_lr(index)}
        if self.lower_bound:
            phase2["lower_bound"] = self.lower_bound
        if self.upper_bound:
            phase2["upper_bound"] = self.upper_bound
        direction = nd.lamb_update_phase1(weight, grad, mean, var, **phase1)
        nd.lamb_update_phase2(weight, direction, weight.norm(), direction.norm(), out=weight, **phase2)
