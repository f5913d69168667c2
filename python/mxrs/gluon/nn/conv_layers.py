"""Convolution and transposed convolution in one to three dimensions, and reflection padding. Pooling is in
`pool_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..hybrid import HybridBlock
from .activations import Activation
from .pool_layers import (
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalAvgPool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    Size,
    _Pooling,
    as_tuple,
    check_layout,
)

__all__ = [
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "ReflectionPad2D",
    "_Conv",
    "_Pooling",
]


class _Conv(HybridBlock):
    """What all convolutions share; `op_name` is 'Convolution' or 'Deconvolution'.

    The weight has the layout of the data with the batch axis taken by the output channels (for
    Deconvolution by the input channels) and the channel axis by the other channels, divided by `groups`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sequence[int],
        strides: Size,
        padding: Size,
        dilation: Size,
        groups: int,
        layout: str,
        in_channels: int = 0,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        op_name: str = "Convolution",
        adj: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kind = type(self).__name__
        ndim = len(kernel_size)
        if groups < 1:
            raise ValueError(f"{kind}: groups must be at least 1, got {groups}")
        if in_channels % groups or channels % groups:
            raise ValueError(
                f"{kind}: in_channels {in_channels} and channels {channels} do not divide into {groups} "
                "groups"
            )
        self._channels = channels
        self._in_channels = in_channels
        self._op_name = op_name
        self._kwargs: dict[str, Any] = {
            "kernel": tuple(kernel_size),
            "stride": as_tuple(kind, "strides", strides, ndim),
            "dilate": as_tuple(kind, "dilation", dilation, ndim),
            "pad": as_tuple(kind, "padding", padding, ndim),
            "num_filter": channels,
            "num_group": groups,
            "no_bias": not use_bias,
            "layout": layout,
        }
        if adj is not None:
            self._kwargs["adj"] = tuple(adj)
            self.outpad = tuple(adj)
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=self._weight_shape(in_channels),
                init=weight_initializer,
                allow_deferred_init=True,
            )
            self.bias = (
                self.params.get("bias", shape=(channels,), init=bias_initializer, allow_deferred_init=True)
                if use_bias
                else None
            )
            self.act = None if activation is None else Activation(activation, prefix=f"{activation}_")

    def _alias(self) -> str:
        return "conv"

    def _weight_shape(self, in_channels: int) -> tuple[int, ...]:
        groups = self._kwargs["num_group"]
        if self._op_name == "Convolution":
            first, other = self._channels, in_channels // groups
        else:
            first, other = in_channels, self._channels // groups
        kernel = list(self._kwargs["kernel"])
        kernel.insert(self._kwargs["layout"].index("C") - 1, other)
        return (first, *kernel)

    def _param_shapes(self, x: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        layout = self._kwargs["layout"]
        if x.ndim != len(layout):
            raise ValueError(
                f"{type(self).__name__} '{self.name}': the input must have {len(layout)} axes ({layout}), "
                f"but its shape is {x.shape}"
            )
        in_channels = x.shape[layout.index("C")]
        groups = self._kwargs["num_group"]
        if in_channels % groups:
            raise ValueError(
                f"{type(self).__name__} '{self.name}': {in_channels} input channels do not divide into "
                f"{groups} groups"
            )
        return {"weight": self._weight_shape(in_channels)}

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:  # type: ignore[override]
        op = getattr(F, self._op_name)
        if bias is None:
            out = op(x, weight, name="fwd", **self._kwargs)
        else:
            out = op(x, weight, bias, name="fwd", **self._kwargs)
        return out if self.act is None else self.act(out)

    def __repr__(self) -> str:
        kw = self._kwargs
        ndim = len(kw["kernel"])
        shape = self.weight.shape or (0, 0)
        # The two sizes stand as in the weight, which is what MXNet prints for every layout.
        sizes = (
            f"{shape[1] or None} -> {shape[0]}"
            if self._op_name == "Convolution"
            else f"{shape[1]} -> {shape[0]}"
        )
        parts = [sizes, f"kernel_size={kw['kernel']}", f"stride={kw['stride']}"]
        if kw["pad"] != (0,) * ndim:
            parts.append(f"padding={kw['pad']}")
        if kw["dilate"] != (1,) * ndim:
            parts.append(f"dilation={kw['dilate']}")
        if kw["num_group"] != 1:
            parts.append(f"groups={kw['num_group']}")
        if self.bias is None:
            parts.append("bias=False")
        if self.act is not None:
            parts.append(str(self.act))
        return f"{type(self).__name__}({', '.join(parts)})"


class Conv1D(_Conv):
    """Convolution of (batch, channels, width) data (a cross-correlation, as in all of these frameworks).

    An output size is `floor((in + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`.
    `layout` is "NCW"; the other arguments are sizes, one for all axes or one each, and those of `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        layout: str = "NCW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCW",))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 1),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            **kwargs,
        )


class Conv2D(_Conv):
    """Convolution of (batch, channels, height, width) data (a cross-correlation, as in all of these
    frameworks).

    An output size is `floor((in + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`. `layout` is
    "NCHW" or "NHWC"; the other arguments are sizes, one for all axes or one each, and those of `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: Size = (0, 0),
        dilation: Size = (1, 1),
        groups: int = 1,
        layout: str = "NCHW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCHW", "NHWC"))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 2),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            **kwargs,
        )


class Conv3D(_Conv):
    """Convolution of (batch, channels, depth, height, width) data (a cross-correlation, as in all of these
    frameworks).

    An output size is `floor((in + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`. `layout` is
    "NCDHW" or "NDHWC"; the other arguments are sizes, one for all axes or one each, and those of `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = (1, 1, 1),
        padding: Size = (0, 0, 0),
        dilation: Size = (1, 1, 1),
        groups: int = 1,
        layout: str = "NCDHW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCDHW", "NDHWC"))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 3),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            **kwargs,
        )


class Conv1DTranspose(_Conv):
    """Transposed convolution of (batch, channels, width) data: the gradient of `Conv1D` with respect to its
    input.

    An output size is `(in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`.
    `layout` is "NCW"; the other arguments are sizes, one for all axes or one each, and those of `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        layout: str = "NCW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCW",))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 1),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            op_name="Deconvolution",
            adj=as_tuple(kind, "output_padding", output_padding, 1),
            **kwargs,
        )


class Conv2DTranspose(_Conv):
    """Transposed convolution of (batch, channels, height, width) data: the gradient of `Conv2D` with
    respect to its input.

    An output size is `(in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`.
    `layout` is "NCHW" or "NHWC"; the other arguments are sizes, one for all axes or one each, and those of
    `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = (1, 1),
        padding: Size = (0, 0),
        output_padding: Size = (0, 0),
        dilation: Size = (1, 1),
        groups: int = 1,
        layout: str = "NCHW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCHW", "NHWC"))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 2),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            op_name="Deconvolution",
            adj=as_tuple(kind, "output_padding", output_padding, 2),
            **kwargs,
        )


class Conv3DTranspose(_Conv):
    """Transposed convolution of (batch, channels, depth, height, width) data: the gradient of `Conv3D` with
    respect to its input.

    An output size is `(in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`.
    `layout` is "NCDHW" or "NDHWC"; the other arguments are sizes, one for all axes or one each, and those
    of `Dense`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size,
        strides: Size = (1, 1, 1),
        padding: Size = (0, 0, 0),
        output_padding: Size = (0, 0, 0),
        dilation: Size = (1, 1, 1),
        groups: int = 1,
        layout: str = "NCDHW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        check_layout(kind, layout, ("NCDHW", "NDHWC"))
        super().__init__(
            channels,
            as_tuple(kind, "kernel_size", kernel_size, 3),
            strides,
            padding,
            dilation,
            groups,
            layout,
            in_channels,
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            op_name="Deconvolution",
            adj=as_tuple(kind, "output_padding", output_padding, 3),
            **kwargs,
        )


class ReflectionPad2D(HybridBlock):
    """Pad height and width of NCHW data by mirroring at the border, whose pixels are not repeated.

    `padding` is one width for all four sides, or eight: two for each of N, C (0 there), H and W.
    """

    def __init__(self, padding: int | Sequence[int] = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._padding = (0, 0, 0, 0, *(padding,) * 4) if isinstance(padding, int) else tuple(padding)
        if len(self._padding) != 8:
            raise ValueError(f"ReflectionPad2D: padding must be an int or 8 ints, got {padding}")

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.pad(x, mode="reflect", pad_width=self._padding)
