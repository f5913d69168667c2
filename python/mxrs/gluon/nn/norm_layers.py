"""Normalization layers: batch, instance, layer and group norm.

They differ in the axes over which mean and variance are taken. All have a scale `gamma` and a shift `beta`;
`center=False` or `scale=False` freezes one of them at its initial value. A size of 0 is told by the first
batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..hybrid import HybridBlock
from ..parameter import Parameter

__all__ = ["BatchNorm", "BatchNormReLU", "GroupNorm", "InstanceNorm", "LayerNorm"]


class _Norm(HybridBlock):
    """The two parameters that every normalization has."""

    def _affine(self, name: str, size: int, init: Any, learn: bool, differentiable: bool = True) -> Parameter:
        return self.params.get(
            name,
            grad_req="write" if learn else "null",
            shape=(size,),
            init=init,
            allow_deferred_init=True,
            differentiable=differentiable,
        )

    def _settings(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self._kwargs.items())

    _kwargs: dict[str, Any]


class _BatchNorm(_Norm):
    """Batch normalization with running statistics; the public classes choose the operator's extras."""

    def __init__(
        self,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        fuse_relu: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._kwargs = {
            "axis": axis,
            "eps": epsilon,
            "momentum": momentum,
            "fix_gamma": not scale,
            "use_global_stats": use_global_stats,
        }
        self._axis = axis
        self.fuse_relu = fuse_relu
        if in_channels != 0:
            self.in_channels = in_channels
        with self.name_scope():
            self.gamma = self._affine("gamma", in_channels, gamma_initializer, scale, scale)
            self.beta = self._affine("beta", in_channels, beta_initializer, center, center)
            self.running_mean = self._affine(
                "running_mean", in_channels, running_mean_initializer, False, False
            )
            self.running_var = self._affine(
                "running_var", in_channels, running_variance_initializer, False, False
            )

    def cast(self, dtype: Any) -> None:
        """Change the dtype of the parameters; for float16 they stay float32, as statistics lose too much in
        it.
        """
        super().cast("float32" if np.dtype(dtype).name == "float16" else dtype)

    def _param_shapes(self, x: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        if not -len(x.shape) <= self._axis < len(x.shape):
            raise ValueError(
                f"{type(self).__name__} '{self.name}': axis {self._axis} is not an axis of the input, whose shape is "
                f"{x.shape}"
            )
        shape = (x.shape[self._axis],)
        return {"gamma": shape, "beta": shape, "running_mean": shape, "running_var": shape}

    def hybrid_forward(  # type: ignore[override]
        self,
        F: Any,
        x: Any,
        gamma: Any,
        beta: Any,
        running_mean: Any,
        running_var: Any,
    ) -> Any:
        op = F.contrib.BatchNormWithReLU if self.fuse_relu else F.BatchNorm
        return op(x, gamma, beta, running_mean, running_var, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._settings()}, in_channels={(self.gamma.shape or (0,))[0] or None})"
        )


class BatchNorm(_BatchNorm):
    """Normalize each channel over the batch and all other axes (Ioffe and Szegedy 2015, arXiv:1502.03167).

    In training `(x - mean) / sqrt(var + epsilon) * gamma + beta` with the batch's mean and (biased)
    variance, and the running statistics become `momentum * running + (1 - momentum) * batch` when the
    gradient is taken; otherwise, or with `use_global_stats`, the running statistics are used. All four
    parameters have the shape (channels,).

    Arguments:
        axis: the channel axis.
        momentum, epsilon, use_global_stats: see above.
        center, scale: whether beta and gamma are learnt.
        *_initializer: initializers or their names.
        in_channels: number of channels; 0 lets the first batch tell.
    """

    def __init__(
        self,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis=axis,
            momentum=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            use_global_stats=use_global_stats,
            fuse_relu=False,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            running_mean_initializer=running_mean_initializer,
            running_variance_initializer=running_variance_initializer,
            in_channels=in_channels,
            **kwargs,
        )


class BatchNormReLU(_BatchNorm):
    """`BatchNorm` followed by relu. The arguments are those of `BatchNorm`."""

    def __init__(
        self,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis=axis,
            momentum=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            use_global_stats=use_global_stats,
            fuse_relu=True,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            running_mean_initializer=running_mean_initializer,
            running_variance_initializer=running_variance_initializer,
            in_channels=in_channels,
            **kwargs,
        )


class InstanceNorm(_Norm):
    """Normalize each channel of each sample over its other axes (Ulyanov et al. 2016, arXiv:1607.08022).

    `axis` is the channel axis; gamma (frozen unless `scale`) and beta have shape (channels,).
    """

    def __init__(
        self,
        axis: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._kwargs = {"eps": epsilon, "axis": axis, "center": center, "scale": scale}
        self._axis = axis
        self._epsilon = epsilon
        with self.name_scope():
            self.gamma = self._affine("gamma", in_channels, gamma_initializer, scale)
            self.beta = self._affine("beta", in_channels, beta_initializer, center)

    def _param_shapes(self, x: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        shape = (x.shape[self._axis],)
        return {"gamma": shape, "beta": shape}

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:  # type: ignore[override]
        if self._axis == 1:
            return F.InstanceNorm(x, gamma, beta, name="fwd", eps=self._epsilon)
        moved = x.swapaxes(1, self._axis)
        return F.InstanceNorm(moved, gamma, beta, name="fwd", eps=self._epsilon).swapaxes(1, self._axis)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()}, in_channels={(self.gamma.shape or (0,))[0]})"


class LayerNorm(_Norm):
    """Normalize each sample over one axis, the last by default (Ba et al. 2016, arXiv:1607.06450).

    gamma and beta have the size of that axis.
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        prefix: str | None = None,
        params: Any = None,
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._kwargs = {"eps": epsilon, "axis": axis, "center": center, "scale": scale}
        self._axis = axis
        self._epsilon = epsilon
        self._center = center
        self._scale = scale
        with self.name_scope():
            self.gamma = self._affine("gamma", in_channels, gamma_initializer, scale)
            self.beta = self._affine("beta", in_channels, beta_initializer, center)

    def _param_shapes(self, data: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        shape = (data.shape[self._axis],)
        return {"gamma": shape, "beta": shape}

    def hybrid_forward(self, F: Any, data: Any, gamma: Any, beta: Any) -> Any:  # type: ignore[override]
        return F.LayerNorm(data, gamma=gamma, beta=beta, axis=self._axis, eps=self._epsilon)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()}, in_channels={(self.gamma.shape or (0,))[0]})"


class GroupNorm(_Norm):
    """Normalize each sample over groups of channels (axis 1) and all later axes (Wu and He 2018,
    arXiv:1803.08494).

    As in MXNet 1.x, gamma and beta hold one value per group: their shape is (num_groups,).
    """

    def __init__(
        self,
        num_groups: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        prefix: str | None = None,
        params: Any = None,
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._kwargs = {"eps": epsilon, "num_groups": num_groups, "center": center, "scale": scale}
        self._num_groups = num_groups
        self._epsilon = epsilon
        self._center = center
        self._scale = scale
        with self.name_scope():
            self.gamma = self._affine("gamma", num_groups, gamma_initializer, scale)
            self.beta = self._affine("beta", num_groups, beta_initializer, center)

    def hybrid_forward(self, F: Any, data: Any, gamma: Any, beta: Any) -> Any:  # type: ignore[override]
        return F.GroupNorm(data, gamma=gamma, beta=beta, num_groups=self._num_groups, eps=self._epsilon)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()})"
