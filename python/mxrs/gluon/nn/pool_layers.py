"""Pooling in one to three dimensions: the maximum or mean of windows, or of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..hybrid import HybridBlock

__all__ = [
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
]

#: One int for every axis, or one for each.
Size: TypeAlias = int | Sequence[int]


def as_tuple(kind: str, argument: str, value: Size, ndim: int) -> tuple[int, ...]:
    """`value` for each of `ndim` axes; AssertionError where there are more or fewer."""
    sizes = tuple(value) if isinstance(value, Sequence) else (int(value),) * ndim
    if len(sizes) != ndim:
        raise AssertionError(f"{kind}: {argument} must be a number or a list of {ndim} ints, got {value}")
    return sizes


def check_layout(kind: str, layout: str, allowed: Sequence[str]) -> None:
    """AssertionError where `layout` is not one of those the layer can compute."""
    if layout not in allowed:
        raise AssertionError(f"{kind}: layout must be {' or '.join(map(repr, allowed))}, got {layout!r}")


class _Pooling(HybridBlock):
    """What all pooling layers share; `strides=None` means the window's size: windows do not overlap."""

    def __init__(
        self,
        pool_size: Sequence[int],
        strides: Size | None,
        padding: Size,
        ceil_mode: bool,
        global_pool: bool,
        pool_type: str,
        layout: str,
        count_include_pad: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kind = type(self).__name__
        ndim = len(pool_size)
        self._kwargs: dict[str, Any] = {
            "kernel": tuple(pool_size),
            "stride": as_tuple(kind, "strides", pool_size if strides is None else strides, ndim),
            "pad": as_tuple(kind, "padding", padding, ndim),
            "global_pool": global_pool,
            "pool_type": pool_type,
            "layout": layout,
            "pooling_convention": "full" if ceil_mode else "valid",
        }
        if count_include_pad is not None:
            self._kwargs["count_include_pad"] = count_include_pad

    def _alias(self) -> str:
        return "pool"

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.Pooling(x, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        kw = self._kwargs
        return (
            f"{type(self).__name__}(size={kw['kernel']}, stride={kw['stride']}, padding={kw['pad']}, "
            f"ceil_mode={kw['pooling_convention'] == 'full'}, global_pool={kw['global_pool']}, "
            f"pool_type={kw['pool_type']}, layout={kw['layout']})"
        )


class MaxPool1D(_Pooling):
    """The maximum of each window of (batch, channels, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    """

    def __init__(
        self,
        pool_size: Size = 2,
        strides: Size | None = None,
        padding: Size = 0,
        layout: str = "NCW",
        ceil_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCW", "NWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 1),
            strides,
            padding,
            ceil_mode,
            False,
            "max",
            layout,
            **kwargs,
        )


class MaxPool2D(_Pooling):
    """The maximum of each window of (batch, channels, height, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    """

    def __init__(
        self,
        pool_size: Size = (2, 2),
        strides: Size | None = None,
        padding: Size = 0,
        layout: str = "NCHW",
        ceil_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCHW", "NHWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 2),
            strides,
            padding,
            ceil_mode,
            False,
            "max",
            layout,
            **kwargs,
        )


class MaxPool3D(_Pooling):
    """The maximum of each window of (batch, channels, depth, height, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    """

    def __init__(
        self,
        pool_size: Size = (2, 2, 2),
        strides: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        layout: str = "NCDHW",
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCDHW", "NDHWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 3),
            strides,
            padding,
            ceil_mode,
            False,
            "max",
            layout,
            **kwargs,
        )


class AvgPool1D(_Pooling):
    """The mean of each window of (batch, channels, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    `count_include_pad` counts padding as zeros in the mean.
    """

    def __init__(
        self,
        pool_size: Size = 2,
        strides: Size | None = None,
        padding: Size = 0,
        layout: str = "NCW",
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCW", "NWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 1),
            strides,
            padding,
            ceil_mode,
            False,
            "avg",
            layout,
            count_include_pad,
            **kwargs,
        )


class AvgPool2D(_Pooling):
    """The mean of each window of (batch, channels, height, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    `count_include_pad` counts padding as zeros in the mean.
    """

    def __init__(
        self,
        pool_size: Size = (2, 2),
        strides: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        layout: str = "NCHW",
        count_include_pad: bool = True,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCHW", "NHWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 2),
            strides,
            padding,
            ceil_mode,
            False,
            "avg",
            layout,
            count_include_pad,
            **kwargs,
        )


class AvgPool3D(_Pooling):
    """The mean of each window of (batch, channels, depth, height, width) data.

    An output size is `floor((in + 2 * padding - pool_size) / stride) + 1`, with `ceil_mode` rounded up.
    `count_include_pad` counts padding as zeros in the mean.
    """

    def __init__(
        self,
        pool_size: Size = (2, 2, 2),
        strides: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        layout: str = "NCDHW",
        count_include_pad: bool = True,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCDHW", "NDHWC"))
        super().__init__(
            as_tuple(kind, "pool_size", pool_size, 3),
            strides,
            padding,
            ceil_mode,
            False,
            "avg",
            layout,
            count_include_pad,
            **kwargs,
        )


class GlobalMaxPool1D(_Pooling):
    """The maximum of each channel of (batch, channels, width) data, leaving size 1 on the others."""

    def __init__(self, layout: str = "NCW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCW", "NWC"))
        super().__init__((1,), None, 0, True, True, "max", layout, **kwargs)


class GlobalMaxPool2D(_Pooling):
    """The maximum of each channel of (batch, channels, height, width) data; the output's other axes have
    size 1.
    """

    def __init__(self, layout: str = "NCHW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCHW", "NHWC"))
        super().__init__((1, 1), None, 0, True, True, "max", layout, **kwargs)


class GlobalMaxPool3D(_Pooling):
    """The maximum of each channel of (batch, channels, depth, height, width) data; the output's other axes
    have size 1.
    """

    def __init__(self, layout: str = "NCDHW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCDHW", "NDHWC"))
        super().__init__((1, 1, 1), None, 0, True, True, "max", layout, **kwargs)


class GlobalAvgPool1D(_Pooling):
    """The mean of each channel of (batch, channels, width) data, leaving size 1 on the others."""

    def __init__(self, layout: str = "NCW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCW", "NWC"))
        super().__init__((1,), None, 0, True, True, "avg", layout, **kwargs)


class GlobalAvgPool2D(_Pooling):
    """The mean of each channel of (batch, channels, height, width) data, leaving size 1 on the others."""

    def __init__(self, layout: str = "NCHW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCHW", "NHWC"))
        super().__init__((1, 1), None, 0, True, True, "avg", layout, **kwargs)


class GlobalAvgPool3D(_Pooling):
    """The mean of each channel of (batch, channels, depth, height, width) data; the output's other axes
    have size 1.
    """

    def __init__(self, layout: str = "NCDHW", **kwargs: Any) -> None:
        check_layout(type(self).__name__, layout, ("NCDHW", "NDHWC"))
        super().__init__((1, 1, 1), None, 0, True, True, "avg", layout, **kwargs)
