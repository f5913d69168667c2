"""The layers of `gluon.contrib.nn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .... import ndarray
from ..._block import Block
from ...hybrid import HybridBlock
from ...nn.containers import HybridSequential, Sequential
from ...nn.norm_layers import _BatchNorm

__all__ = [
    "Concurrent",
    "HybridConcurrent",
    "Identity",
    "PixelShuffle1D",
    "PixelShuffle2D",
    "PixelShuffle3D",
    "SparseEmbedding",
    "SyncBatchNorm",
]


class Concurrent(Sequential):
    """Gives the same input to every child and concatenates their outputs along `axis`."""

    def __init__(self, axis: int = -1, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self.axis = axis

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        """The children's outputs on `x`, concatenated."""
        return ndarray.concat(*[block(x) for block in self._children.values()], dim=self.axis)


class HybridConcurrent(HybridSequential):
    """As `Concurrent`, of HybridBlocks."""

    def __init__(self, axis: int = -1, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self.axis = axis

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        """The children's outputs on `x`, concatenated."""
        return F.concat(*[block(x) for block in self._children.values()], dim=self.axis)


class Identity(HybridBlock):
    """Returns its input: the branch of a `HybridConcurrent` that passes it on."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return x


class SparseEmbedding(Block):
    """An embedding with row_sparse weight and gradient (needs `mxrs.ndarray.sparse`, not built yet)."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        raise NotImplementedError("gluon.contrib.nn.SparseEmbedding needs mxrs.ndarray.sparse, not built yet")


class SyncBatchNorm(_BatchNorm):
    """Batch normalization whose statistics are taken over all devices of a data-parallel run; the channel
    axis is 1.

    With `num_devices` None or 1 it equals `BatchNorm`. More devices need the synchronizing operator, not
    built yet (NotImplementedError).
    """

    def __init__(
        self,
        in_channels: int = 0,
        num_devices: int | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        if num_devices is not None and num_devices > 1:
            raise NotImplementedError(
                f"SyncBatchNorm: num_devices={num_devices} needs the operator contrib.SyncBatchNorm, not "
                "built yet"
            )
        super().__init__(
            axis=1,
            momentum=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            use_global_stats=use_global_stats,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            running_mean_initializer=running_mean_initializer,
            running_variance_initializer=running_variance_initializer,
            in_channels=in_channels,
            **kwargs,
        )

    def _settings(self) -> str:
        settings = {key: value for key, value in self._kwargs.items() if key != "axis"}
        settings.update(ndev=1, key=self.prefix)
        return ", ".join(f"{key}={value!r}" for key, value in settings.items())


def _factors(kind: str, factor: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    factors = (int(factor),) * ndim if not isinstance(factor, Sequence) else tuple(int(f) for f in factor)
    if len(factors) != ndim or any(f < 1 for f in factors):
        raise ValueError(f"{kind}: factor must be a positive int or {ndim} of them, got {factor}")
    return factors


class PixelShuffle1D(HybridBlock):
    """(N, f*C, W) to (N, C, f*W): channels become places (Shi et al. 2016, arXiv:1609.05158)."""

    def __init__(self, factor: int | Sequence[int]) -> None:
        super().__init__()
        (self._factor,) = _factors("PixelShuffle1D", factor, 1)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        x = F.reshape(x, (0, -4, -1, self._factor, 0))
        x = F.transpose(x, (0, 1, 3, 2))
        return F.reshape(x, (0, 0, -3))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._factor})"


class PixelShuffle2D(HybridBlock):
    """(N, f1*f2*C, H, W) to (N, C, f1*H, f2*W), as `PixelShuffle1D` in two dimensions."""

    def __init__(self, factor: int | Sequence[int]) -> None:
        super().__init__()
        self._factors = _factors("PixelShuffle2D", factor, 2)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        f1, f2 = self._factors
        x = F.reshape(x, (0, -4, -1, f1 * f2, 0, 0))
        x = F.reshape(x, (0, 0, -4, f1, f2, 0, 0))
        x = F.transpose(x, (0, 1, 4, 2, 5, 3))
        return F.reshape(x, (0, 0, -3, -3))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._factors})"


class PixelShuffle3D(HybridBlock):
    """(N, f1*f2*f3*C, D, H, W) to (N, C, f1*D, f2*H, f3*W), as `PixelShuffle2D` in three dimensions."""

    def __init__(self, factor: int | Sequence[int]) -> None:
        super().__init__()
        self._factors = _factors("PixelShuffle3D", factor, 3)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        f1, f2, f3 = self._factors
        # One factor at a time, the innermost first, so that no array has more than six axes.
        x = F.transpose(F.reshape(x, (0, -4, -1, f3, 0, 0, 0)), (0, 1, 3, 4, 5, 2))
        x = F.reshape(x, (0, 0, 0, 0, -3))
        x = F.transpose(F.reshape(x, (0, -4, -1, f2, 0, 0, 0)), (0, 1, 3, 4, 2, 5))
        x = F.reshape(x, (0, 0, 0, -3, 0))
        x = F.transpose(F.reshape(x, (0, -4, -1, f1, 0, 0, 0)), (0, 1, 3, 2, 4, 5))
        return F.reshape(x, (0, 0, -3, 0, 0))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._factors})"
