"""Arithmetic on pictures that several transforms share: check, crop, resize, grey values, hue.

Pictures are (height, width, channels) or batches (n, height, width, channels), as NDArrays. Everything is
written
with public operators, so it runs on any device and, where no shape is needed, on Symbols. Random choices and
the
classes users see are in `transforms`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import ndarray as nd

# Weights of red, green and blue in the brightness of a colour (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)

NEAREST, BILINEAR = 0, 1


def is_eager(x: Any) -> bool:
    return isinstance(x, nd.NDArray)


def check_picture(owner: str, x: Any, batch: bool = True) -> None:
    """Raises ValueError unless an NDArray `x` is a picture or, with `batch`, a batch of pictures."""
    if not is_eager(x):
        return
    ndim = len(x.shape)
    if ndim == 3 or (batch and ndim == 4):
        return
    also = ", or (N, height, width, channels)" if batch else ""
    raise ValueError(f"{owner}: the picture must have shape (height, width, channels){also}, got {x.shape}")


def as_size(owner: str, size: Any) -> tuple[int, int]:
    """`size` as (width, height): a number stands for a square."""
    pair = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(pair) != 2 or any(int(s) != s or s <= 0 for s in pair):
        raise ValueError(f"{owner}: size must be a positive integer or (width, height), got {size!r}")
    return int(pair[0]), int(pair[1])


def check_interpolation(owner: str, interpolation: int) -> None:
    if interpolation not in (NEAREST, BILINEAR):
        raise NotImplementedError(
            f"{owner}: interpolation {interpolation} is not built yet; 0 (nearest) and 1 (bilinear) are"
        )


def crop(F: Any, x: Any, left: int, top: int, width: int, height: int) -> Any:
    """Columns `left ... left + width - 1` and rows `top ... top + height - 1`."""
    return F.image.crop(x, x=left, y=top, width=width, height=height)


def resize(F: Any, x: Any, width: int, height: int, interpolation: int) -> Any:
    """A picture, or batch of pictures, of the new width and height and the old dtype.

    Bilinear interpolation without smoothing, as OpenCV's: a small target picks few source pixels. uint8 results
    are rounded and may differ from OpenCV's fixed-point arithmetic by one.
    """
    if is_eager(x) and x.shape[-3:-1] == (height, width):
        return x
    return F.image.resize(x, size=(width, height), interp=interpolation)


def to_dtype_of(F: Any, values: Any, x: Any, rounded: bool = False) -> Any:
    """float32 `values` in the dtype of picture `x`; for uint8 they are clipped to 0 ... 255 first."""
    if not is_eager(x) or x.dtype == np.float32:
        return values
    if np.dtype(x.dtype) == np.uint8:
        values = F.clip(F.round(values) if rounded else values, 0, 255)
    return values.astype(x.dtype)


def grey(F: Any, x: Any) -> Any:
    """Brightness of a picture with three channels, shape (height, width, 1); one channel is its own
    brightness.
    """
    if is_eager(x) and x.shape[-1] == 1:
        return x
    red, green, blue = (F.slice_axis(x, axis=-1, begin=i, end=i + 1) for i in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def blend(F: Any, x: Any, other: Any, alpha: Any) -> Any:
    """`alpha * x + (1 - alpha) * other`, where alpha has shape (1, 1, 1) and other broadcasts to x."""
    return F.broadcast_add(F.broadcast_mul(x, alpha), F.broadcast_mul(other, 1 - alpha))


def rotate_hue(F: Any, x: Any, turns: Any) -> Any:
    """Moves the hue of every pixel by `turns` of the colour circle (shape (1, 1, 1)); lightness and
    saturation stay.

    In the HLS model hue alone moves when the largest and the smallest of the three channels keep their
    values, so
    the new channels are these two mixed by the hue's piecewise linear profile (A. R. Smith, "Color gamut
    transform pairs", SIGGRAPH 1978). A picture with one channel has no hue and stays as it is.
    """
    if is_eager(x) and x.shape[-1] == 1:
        return x
    red, green, blue = (F.slice_axis(x, axis=-1, begin=i, end=i + 1) for i in range(3))
    top, bottom = F.max(x, axis=-1, keepdims=True), F.min(x, axis=-1, keepdims=True)
    spread = top - bottom
    divisor = F.where(spread > 0, spread, F.ones_like(spread))
    # The hue in sixths of the circle, from the channel that is largest.
    from_red, from_green, from_blue = (
        (green - blue) / divisor,
        (blue - red) / divisor + 2,
        (red - green) / divisor + 4,
    )
    hue = F.where(top == red, from_red, F.where(top == green, from_green, from_blue))
    # Twelve added: the hue starts at -1 and the modulus is wanted of a positive number.
    hue = F.broadcast_add(hue + 12, turns * 6) % 6
    profiles = (F.abs(hue - 3) - 1, 2 - F.abs(hue - 2), 2 - F.abs(hue - 4))
    return F.concat(*[bottom + spread * F.clip(profile, 0, 1) for profile in profiles], dim=-1)
