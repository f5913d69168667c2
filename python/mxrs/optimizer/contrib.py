"""Rules outside the core set: GroupAdaGrad (one rate per row) and AdamW (decoupled decay)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ndarray as nd
from ..ndarray import NDArray
from .optimizer import Index, Optimizer, register, zeros_like_weight

__all__ = ["AdamW", "GroupAdaGrad"]


@register
class GroupAdaGrad(Optimizer):
    """AdaGrad with one accumulator per row (Perkins et al., "Grafting", 2003, group form).

    ``G = clip(r * g); h = h + mean(G^2 over the row); w = w - l * G / sqrt(h + eps)``. Weights must be
    two-dimensional; there is no weight decay.
    """

    def __init__(self, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.float_stable_eps = eps

    def create_state(self, index: Index, weight: NDArray) -> Any:
        if len(weight.shape) != 2:
            raise AssertionError(f"GroupAdaGrad needs a two-dimensional weight, given shape {weight.shape}")
        rows = (weight.shape[0], 1)
        if weight.stype == "default":
            return nd.zeros(rows, ctx=weight.context, dtype=weight.dtype)
        return nd.sparse.zeros(weight.stype, rows, ctx=weight.context, dtype=weight.dtype)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._update_count(index)
        if self._get_wd(index) != 0:
            raise AssertionError("GroupAdaGrad does not support weight decay: set wd=0")
        lr = self._get_lr(index)
        if grad.stype == "row_sparse":
            nd.contrib.group_adagrad_update(
                weight,
                grad,
                state,
                out=weight,
                lr=lr,
                epsilon=self.float_stable_eps,
                **self._fused_arguments(),
            )
            return
        grad = self._prepared(grad)
        state += (grad * grad).mean(axis=1, keepdims=True)
        weight -= lr * grad / (state + self.float_stable_eps).sqrt()


@register
class AdamW(Optimizer):
    """Adam with decoupled decay (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

    ``G = clip(r * g); m, v moments of G; w = w - l * (c * m / (sqrt(v) + epsilon) + wd * w)`` with ``c =
    sqrt(1 - beta2^t) / (1 - beta1^t)``, or 1 without `correct_bias`. A step whose gradient scale is not
    finite is skipped.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        correct_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.correct_bias = correct_bias

    def create_state(self, index: Index, weight: NDArray) -> Any:
        return zeros_like_weight(weight), zeros_like_weight(weight)

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        self._step(index, weight, grad, state, None)

    def update_multi_precision(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        if self.multi_precision and weight.dtype == np.float16:
            master, moments = state
            self._step(index, weight, grad, moments, master)
        else:
            self._step(index, weight, grad, state, None)

    def _step(self, index: Any, weight: NDArray, grad: NDArray, state: Any, master: NDArray | None) -> None:
        self._update_count(index)
        correction = 1.0
        if self.correct_bias:
            t = self._index_update_count[index]
            correction = math.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)
        mean, var = state
        kwargs: dict[str, float] = {
            "lr": correction,
            "eta": self._get_lr(index),
            "wd": self._get_wd(index),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
        }
        if self.clip_gradient:
            kwargs["clip_gradient"] = self.clip_gradient
        if master is None:
            nd.contrib.adamw_update(weight, grad, mean, var, self.rescale_grad, out=weight, **kwargs)
        else:
            nd.contrib.mp_adamw_update(
                weight, grad, mean, var, master, self.rescale_grad, out=weight, **kwargs
            )
