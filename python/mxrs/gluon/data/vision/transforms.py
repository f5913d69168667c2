"""Transforms that prepare pictures for a network: conversion, crops, flips, colours.

They are Gluon blocks, so they nest with `Compose` and with layers. Pictures come as NDArrays (height, width,
channels), mostly of uint8 in 0 ... 255; `ToTensor` makes (channels, height, width) of float32 in 0 ... 1 of
them. Random transforms draw from the generator that `mx.random.seed` sets, random crops from Python's `random`. The
transforms of colours are in `_colors`, the arithmetic they all share in `_pixels`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from .... import ndarray as nd
from ...block import Block, HybridBlock
from ...nn import HybridSequential, Sequential
from . import _pixels
from ._colors import (
    RandomBrightness,
    RandomColorJitter,
    RandomContrast,
    RandomGray,
    RandomHue,
    RandomLighting,
    RandomSaturation,
    probability,
)

__all__ = [
    "Cast",
    "CenterCrop",
    "Compose",
    "CropResize",
    "HybridCompose",
    "HybridRandomApply",
    "Normalize",
    "RandomApply",
    "RandomBrightness",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomFlipLeftRight",
    "RandomFlipTopBottom",
    "RandomGray",
    "RandomHue",
    "RandomLighting",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "Rotate",
    "ToTensor",
]


class Compose(Sequential):
    """Applies transforms one after the other; neighbours that are HybridBlocks are joined in one
    HybridSequential.

    Parameters
    ----------
    transforms : list of Block or of plain functions
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        super().__init__()
        run: list[HybridBlock] = []
        for transform in transforms:
            if isinstance(transform, HybridBlock):
                run.append(transform)
                continue
            self._add_run(run)
            run = []
            self.add(transform if isinstance(transform, Block) else _Function(transform))
        self._add_run(run)

    def _add_run(self, run: list[HybridBlock]) -> None:
        if len(run) == 1:
            self.add(run[0])
        elif run:
            joined = HybridSequential()
            joined.add(*run)
            self.add(joined)


class HybridCompose(HybridSequential):
    """Applies HybridBlocks one after the other. Raises ValueError for a transform that is none."""

    def __init__(self, transforms: Sequence[HybridBlock]) -> None:
        super().__init__()
        for transform in transforms:
            if not isinstance(transform, HybridBlock):
                raise ValueError(f"HybridCompose: {transform!r} is not a HybridBlock; use Compose")
            self.add(transform)


class _Function(Block):
    """A plain function as a transform."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"Compose: a transform must be callable, got {function!r}")
        self._function = function

    def forward(self, x: Any, *args: Any) -> Any:
        return self._function(x, *args)


class RandomApply(Sequential):
    """Applies a transform (or the transforms of a list) with probability `p`, else passes its input on."""

    def __init__(self, transforms: Any, p: float = 0.5) -> None:
        super().__init__()
        self.transforms = Compose(transforms) if isinstance(transforms, list | tuple) else transforms
        self.p = probability("RandomApply", "p", p)

    def forward(self, x: Any) -> Any:
        return self.transforms(x) if random.random() < self.p else x


class HybridRandomApply(RandomApply):
    """`RandomApply` for a HybridBlock. The choice is made anew at each call, outside of the traced graph."""

    def __init__(self, transforms: HybridBlock, p: float = 0.5) -> None:
        if not isinstance(transforms, HybridBlock):
            raise ValueError(f"HybridRandomApply: {transforms!r} is not a HybridBlock; use RandomApply")
        super().__init__(transforms, p)


class Cast(HybridBlock):
    """Converts to another dtype."""

    def __init__(self, dtype: Any = "float32") -> None:
        super().__init__()
        self._dtype = dtype

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.cast(x, self._dtype)


class ToTensor(HybridBlock):
    """(height, width, channels) in 0 ... 255 to (channels, height, width) of float32 in 0 ... 1; batches too."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("ToTensor", x)
        return F.image.to_tensor(x)


class Normalize(HybridBlock):
    """`(x - mean) / std` per channel of (channels, height, width), batches too. The dtype stays.

    Parameters
    ----------
    mean, std : a number for all channels, or one number per channel

    Raises ValueError when there are neither 1 nor 3 channels, or `mean` or `std` does not fit them.
    """

    def __init__(self, mean: Any = 0.0, std: Any = 1.0) -> None:
        super().__init__()
        self._mean, self._std = (np.atleast_1d(np.asarray(v, dtype=np.float32)).ravel() for v in (mean, std))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        if _pixels.is_eager(x):
            return self._eager(x)
        count = max(len(self._mean), len(self._std))
        mean, std = (np.broadcast_to(v, (count,)).tolist() for v in (self._mean, self._std))
        if count == 1:
            return (x - mean[0]) / std[0]
        planes = (F.slice_axis(x, axis=-3, begin=i, end=i + 1) for i in range(count))
        return F.concat(*[(plane - m) / s for plane, m, s in zip(planes, mean, std, strict=True)], dim=-3)

    def _eager(self, x: Any) -> Any:
        if len(x.shape) not in (3, 4):
            raise ValueError(
                f"Normalize: input must have shape (channels, height, width) or a batch axis before it, got {x.shape}"
            )
        channels = x.shape[-3]
        if channels not in (1, 3):
            raise ValueError(f"Normalize: input must have 1 or 3 channels, but its shape is {x.shape}")
        for name, value in (("mean", self._mean), ("std", self._std)):
            if len(value) not in (1, channels):
                raise ValueError(
                    f"Normalize: {name} must have 1 or {channels} elements, got {value.tolist()}"
                )
        wide = x if np.dtype(x.dtype).kind == "f" else x.astype("float32")
        if len(self._mean) == len(self._std) == 1:
            result = (wide - float(self._mean[0])) / float(self._std[0])
        else:
            mean, std = (
                nd.array(v.reshape(-1, 1, 1), ctx=x.context, dtype=wide.dtype)
                for v in (self._mean, self._std)
            )
            if len(x.shape) == 4:
                mean, std = mean.expand_dims(0), std.expand_dims(0)
            result = nd.broadcast_div(nd.broadcast_sub(wide, mean), std)
        return result if wide is x else result.astype(x.dtype)


class Resize(HybridBlock):
    """Changes the size of a picture or of a batch of pictures.

    Parameters
    ----------
    size : (width, height), or one number: the side of a square, or with `keep_ratio` the shorter edge
    keep_ratio : keep the proportions, when `size` is one number
    interpolation : 0 nearest, 1 bilinear
    """

    def __init__(self, size: Any, keep_ratio: bool = False, interpolation: int = 1) -> None:
        super().__init__()
        self._keep = keep_ratio and isinstance(size, int | np.integer)
        self._size = _pixels.as_size("Resize", size)
        _pixels.check_interpolation("Resize", interpolation)
        self._interpolation = interpolation

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("Resize", x)
        width, height = self._size
        if self._keep and _pixels.is_eager(x):
            old_height, old_width = x.shape[-3], x.shape[-2]
            if old_width < old_height:
                height = width * old_height // old_width
            else:
                width = height * old_width // old_height
        return _pixels.resize(F, x, width, height, self._interpolation)


class CropResize(HybridBlock):
    """Cuts out a fixed rectangle and, when `size` is given, resizes it.

    Parameters
    ----------
    x, y : left and top edge in pixels
    width, height : size of the rectangle
    size : (width, height) or one number, the size afterwards
    interpolation : 0 nearest, 1 bilinear (also for None)

    Raises ValueError when the rectangle does not lie inside the picture.
    """

    def __init__(
        self, x: int, y: int, width: int, height: int, size: Any = None, interpolation: int | None = None
    ) -> None:
        super().__init__()
        if x < 0 or y < 0 or width <= 0 or height <= 0:
            raise ValueError(
                f"CropResize: x and y must be at least 0 and the size positive, got {(x, y, width, height)}"
            )
        self._box = (x, y, width, height)
        self._size = None if size is None else _pixels.as_size("CropResize", size)
        self._interpolation = _pixels.BILINEAR if interpolation is None else interpolation
        _pixels.check_interpolation("CropResize", self._interpolation)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("CropResize", x)
        left, top, width, height = self._box
        if _pixels.is_eager(x) and (left + width > x.shape[-2] or top + height > x.shape[-3]):
            raise ValueError(
                f"CropResize: columns {left} to {left + width} and rows {top} to {top + height} "
                f"do not lie inside the picture of shape {x.shape}"
            )
        part = _pixels.crop(F, x, left, top, width, height)
        return part if self._size is None else _pixels.resize(F, part, *self._size, self._interpolation)


class CenterCrop(Block):
    """Cuts `size` (width, height) out of the middle; a picture too small for it is cut in proportion and
    enlarged.
    """

    def __init__(self, size: Any, interpolation: int = 1) -> None:
        super().__init__()
        self._size = _pixels.as_size("CenterCrop", size)
        _pixels.check_interpolation("CenterCrop", interpolation)
        self._interpolation = interpolation

    def forward(self, x: Any) -> Any:
        _pixels.check_picture("CenterCrop", x)
        width, height = _fit_inside(self._size, x)
        left, top = (x.shape[-2] - width) // 2, (x.shape[-3] - height) // 2
        part = _pixels.crop(nd, x, left, top, width, height)
        return _pixels.resize(nd, part, *self._size, self._interpolation)


class RandomCrop(Block):
    """Cuts `size` (width, height) out at a random place, after adding `pad` pixels of `pad_value` on each
    side.

    A picture too small for it is cut in proportion and enlarged.
    """

    def __init__(
        self, size: Any, pad: int | None = None, interpolation: int = 1, pad_value: float = 0
    ) -> None:
        super().__init__()
        self._size = _pixels.as_size("RandomCrop", size)
        _pixels.check_interpolation("RandomCrop", interpolation)
        if pad is not None and pad < 0:
            raise ValueError(f"RandomCrop: pad must not be negative, got {pad}")
        self._pad, self._pad_value, self._interpolation = pad or 0, pad_value, interpolation

    def forward(self, x: Any) -> Any:
        _pixels.check_picture("RandomCrop", x)
        if self._pad:
            shape = list(x.shape)
            for axis in (-3, -2):
                shape[axis] = self._pad
                edge = nd.full(tuple(shape), self._pad_value, ctx=x.context, dtype=x.dtype)
                x = nd.concat(edge, x, edge, dim=len(shape) + axis)
                shape = list(x.shape)
        width, height = _fit_inside(self._size, x)
        left, top = random.randint(0, x.shape[-2] - width), random.randint(0, x.shape[-3] - height)
        part = _pixels.crop(nd, x, left, top, width, height)
        return _pixels.resize(nd, part, *self._size, self._interpolation)


class RandomResizedCrop(Block):
    """Cuts out a rectangle of random area and proportions and resizes it to `size` (the crop of GoogLeNet).

    Parameters
    ----------
    size : (width, height) or one number
    scale : bounds of the rectangle's area, as fractions of the picture's
    ratio : bounds of its width divided by its height
    interpolation : 0 nearest, 1 bilinear

    Where ten draws find no rectangle that fits, the middle is taken, as in `CenterCrop`.
    """

    def __init__(
        self,
        size: Any,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: int = 1,
    ) -> None:
        super().__init__()
        self._size = _pixels.as_size("RandomResizedCrop", size)
        self._scale = (scale, 1.0) if isinstance(scale, int | float) else tuple(scale)
        self._ratio = tuple(ratio)
        for name, bounds in (("scale", self._scale), ("ratio", self._ratio)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(
                    f"RandomResizedCrop: {name} must be (low, high) with 0 < low <= high, got {bounds}"
                )
        _pixels.check_interpolation("RandomResizedCrop", interpolation)
        self._interpolation = interpolation

    def _draw(self, old_width: int, old_height: int) -> tuple[int, int] | None:
        for _ in range(10):
            area = random.uniform(*self._scale) * old_width * old_height
            # Uniform in the logarithm, so that 3:4 is as likely as 4:3.
            ratio = math.exp(random.uniform(math.log(self._ratio[0]), math.log(self._ratio[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= old_width and 0 < height <= old_height:
                return width, height
        return None

    def forward(self, x: Any) -> Any:
        _pixels.check_picture("RandomResizedCrop", x)
        old_height, old_width = x.shape[-3], x.shape[-2]
        drawn = self._draw(old_width, old_height)
        if drawn is None:
            width, height = _fit_inside(self._size, x)
            left, top = (old_width - width) // 2, (old_height - height) // 2
        else:
            width, height = drawn
            left, top = random.randint(0, old_width - width), random.randint(0, old_height - height)
        part = _pixels.crop(nd, x, left, top, width, height)
        return _pixels.resize(nd, part, *self._size, self._interpolation)


def _fit_inside(size: tuple[int, int], x: Any) -> tuple[int, int]:
    """The largest (width, height) of `size`'s proportions that fits into picture `x`, at most `size` itself."""
    (width, height), old_height, old_width = size, x.shape[-3], x.shape[-2]
    if old_height < height:
        width, height = width * old_height // height, old_height
    if old_width < width:
        width, height = old_width, height * old_width // width
    return max(width, 1), max(height, 1)


class _RandomFlip(HybridBlock):
    """Mirrors a picture along one axis with probability `p`."""

    _axis = 0

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self._p = probability(type(self).__name__, "p", p)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture(type(self).__name__, x, batch=False)
        if _pixels.is_eager(x):
            return F.flip(x, axis=self._axis) if F.random.uniform(shape=(1,)).asscalar() < self._p else x
        # A graph is traced once and run often, so there the choice has to be an operator.
        chosen = F.random.uniform(shape=(1, 1, 1)) < self._p
        return F.where(F.broadcast_like(F.cast(chosen, "float32"), x), F.flip(x, axis=self._axis), x)


class RandomFlipLeftRight(_RandomFlip):
    """Mirrors left and right with probability `p`."""

    _axis = 1


class RandomFlipTopBottom(_RandomFlip):
    """Mirrors top and bottom with probability `p`."""

    _axis = 0


def _rotate(owner: str, x: Any, degrees: float, zoom_in: bool, zoom_out: bool) -> Any:
    """Rotates (channels, height, width), or a batch of these, counterclockwise about the middle.

    What comes from outside the picture is 0. With `zoom_in` the result is enlarged until nothing does, with
    `zoom_out` it is shrunk until the whole picture can be seen.
    """
    if zoom_in and zoom_out:
        raise ValueError("`zoom_in` and `zoom_out` cannot be both True")
    if x.dtype != np.float32:
        raise TypeError(
            f"{owner}: This transformation only supports float32. Consider calling it after ToTensor"
        )
    if len(x.shape) not in (3, 4):
        raise ValueError(
            f"{owner}: input must be (channels, height, width) or a batch of these, got {x.shape}"
        )
    sampler = getattr(nd, "BilinearSampler", None)
    if sampler is None:
        raise NotImplementedError(
            f"{owner} needs the operator BilinearSampler, which this version does not have yet"
        )
    batch = x if len(x.shape) == 4 else x.expand_dims(0)
    height, width = batch.shape[-2:]
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    scale = 1.0
    if zoom_in or zoom_out:
        # How far the corners reach, compared with the sides they may reach to.
        wide, high = abs(width * cos) + abs(height * sin), abs(height * cos) + abs(width * sin)
        scale = min(width / wide, height / high) if zoom_in else max(wide / width, high / height)
    # The grid holds source positions in -1 ... 1, hence the half sides on both ends.
    half_w, half_h = max((width - 1) / 2, 0.5), max((height - 1) / 2, 0.5)
    columns, rows = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    source = np.stack(
        [(cos * columns - sin * rows) * scale / half_w, (sin * columns + cos * rows) * scale / half_h]
    )
    grid = nd.array(np.broadcast_to(source, (batch.shape[0], *source.shape)), ctx=x.context, dtype=np.float32)
    rotated = sampler(batch, grid)
    return rotated if len(x.shape) == 4 else rotated[0]


class Rotate(Block):
    """Rotates (channels, height, width) of float32, or a batch, counterclockwise.

    Parameters
    ----------
    rotation_degrees : angle in degrees
    zoom_in : enlarge the result until it has no empty corners
    zoom_out : shrink the result until the whole picture is in it

    Raises TypeError for other dtypes, ValueError when both zooms are asked for.
    """

    def __init__(self, rotation_degrees: float, zoom_in: bool = False, zoom_out: bool = False) -> None:
        super().__init__()
        self._arguments = (rotation_degrees, zoom_in, zoom_out)

    def forward(self, x: Any) -> Any:
        return _rotate("Rotate", x, *self._arguments)


class RandomRotation(Block):
    """Rotates by an angle drawn uniformly from `angle_limits` (degrees), with probability
    `rotate_with_proba`.

    The zooms and errors are those of `Rotate`.
    """

    def __init__(
        self,
        angle_limits: tuple[float, float],
        zoom_in: bool = False,
        zoom_out: bool = False,
        rotate_with_proba: float = 1.0,
    ) -> None:
        super().__init__()
        low, high = angle_limits
        if low >= high:
            raise ValueError(f"`angle_limits` must be an ordered tuple, got {angle_limits}")
        self._limits = (low, high)
        self._zooms = (zoom_in, zoom_out)
        if not 0 <= rotate_with_proba <= 1:
            raise ValueError(
                f"Probability of rotating the image should be between 0 and 1, got {rotate_with_proba}"
            )
        self._p = rotate_with_proba

    def forward(self, x: Any) -> Any:
        if random.random() >= self._p:
            return x
        return _rotate("RandomRotation", x, random.uniform(*self._limits), *self._zooms)
