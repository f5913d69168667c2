"""Random changes of a picture's colours; users find them in `transforms`."""

from __future__ import annotations

import random
from typing import Any

from ...block import HybridBlock
from . import _pixels

__all__ = [
    "RandomBrightness",
    "RandomColorJitter",
    "RandomContrast",
    "RandomGray",
    "RandomHue",
    "RandomLighting",
    "RandomSaturation",
    "probability",
]


def probability(owner: str, name: str, value: float) -> float:
    """`value`, if it is one; ValueError otherwise."""
    if not 0 <= value <= 1:
        raise ValueError(f"{owner}: {name} must be between 0 and 1, got {value}")
    return value


class _RandomColor(HybridBlock):
    """Changes colours by a random factor, drawn uniformly from `[max(0, 1 - strength), 1 + strength]`."""

    _rounded = False  # uint8 results are truncated, as MXNet does, except for the hue.

    def __init__(self, strength: float) -> None:
        super().__init__()
        name = type(self).__name__
        if strength < 0:
            raise ValueError(
                f"{name}: {name.removeprefix('Random').lower()} must not be negative, got {strength}"
            )
        self._bounds = (max(0.0, 1.0 - strength), 1.0 + strength)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture(type(self).__name__, x, batch=False)
        factor = F.random.uniform(*self._bounds, shape=(1, 1, 1))
        return _pixels.to_dtype_of(F, self._change(F, F.cast(x, "float32"), factor), x, self._rounded)

    def _change(self, F: Any, x: Any, factor: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement _change")


class RandomBrightness(_RandomColor):
    """Multiplies all values by a factor from `[max(0, 1 - brightness), 1 + brightness]`."""

    def __init__(self, brightness: float) -> None:
        super().__init__(brightness)

    def _change(self, F: Any, x: Any, factor: Any) -> Any:
        return F.broadcast_mul(x, factor)


class RandomContrast(_RandomColor):
    """Moves all values towards, or away from, the mean brightness of the picture."""

    def __init__(self, contrast: float) -> None:
        super().__init__(contrast)

    def _change(self, F: Any, x: Any, factor: Any) -> Any:
        return _pixels.blend(F, x, F.mean(_pixels.grey(F, x), keepdims=True), factor)


class RandomSaturation(_RandomColor):
    """Moves each pixel towards, or away from, the grey of its own brightness.

    MXNet 1.9.1 takes 0.114 times the last channel for that grey, which shifts the colours; here it is the
    brightness.
    """

    def __init__(self, saturation: float) -> None:
        super().__init__(saturation)

    def _change(self, F: Any, x: Any, factor: Any) -> Any:
        return _pixels.blend(F, x, _pixels.grey(F, x), factor)


class RandomHue(_RandomColor):
    """Turns the hue by a factor from `[max(0, 1 - hue), 1 + hue]`, in turns of the colour circle: 1 changes
    nothing.
    """

    _rounded = True

    def __init__(self, hue: float) -> None:
        super().__init__(hue)

    def _change(self, F: Any, x: Any, factor: Any) -> Any:
        return _pixels.rotate_hue(F, x, factor)


class RandomColorJitter(HybridBlock):
    """RandomBrightness, RandomContrast, RandomSaturation and RandomHue, in random order; those with 0 are
    left out.
    """

    def __init__(
        self, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0
    ) -> None:
        super().__init__()
        self._parts = []
        kinds = (RandomBrightness, RandomContrast, RandomSaturation, RandomHue)
        for kind, strength in zip(kinds, (brightness, contrast, saturation, hue), strict=True):
            part = kind(strength)
            if strength > 0:
                self._parts.append(part)
                self.register_child(part)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("RandomColorJitter", x, batch=False)
        parts = list(self._parts)
        if _pixels.is_eager(x):
            random.shuffle(
                parts
            )  # In a traced graph the order would freeze anyway, so it stays the written one.
        for part in parts:
            x = part(x)
        return x


class RandomLighting(HybridBlock):
    """Adds noise along the principal colours of natural pictures, with standard deviation `alpha` (AlexNet's
    noise).

    Values and method: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep
    convolutional
    neural networks", 2012, section 4.1, for channels red, green, blue in 0 ... 255.
    """

    _EIGENVALUES = (55.46, 4.794, 1.148)
    # Row: red, green, blue. Column: one principal direction.
    _EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self._alpha = abs(alpha)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("RandomLighting", x, batch=False)
        if _pixels.is_eager(x) and x.shape[-1] == 1:
            return x
        # Scaled afterwards, since the sampler refuses a deviation of 0.
        scales = [self._alpha * value for value in self._EIGENVALUES]
        draws = [F.random.normal(0, 1, shape=(1, 1, 1)) * scale for scale in scales]
        shifts = []
        for row in self._EIGENVECTORS:
            first, second, third = (draw * weight for draw, weight in zip(draws, row, strict=True))
            shifts.append(first + second + third)
        moved = F.broadcast_add(F.cast(x, "float32"), F.concat(*shifts, dim=-1))
        return _pixels.to_dtype_of(F, moved, x)


class RandomGray(HybridBlock):
    """Replaces all channels by the brightness of the pixel, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self._p = probability("RandomGray", "p", p)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        _pixels.check_picture("RandomGray", x, batch=False)
        if _pixels.is_eager(x):
            if x.shape[-1] == 1 or F.random.uniform(shape=(1,)).asscalar() >= self._p:
                return x
            grey = _pixels.grey(F, F.cast(x, "float32"))
            return _pixels.to_dtype_of(F, F.broadcast_like(grey, x), x)
        grey = F.broadcast_like(_pixels.grey(F, F.cast(x, "float32")), x)
        chosen = F.broadcast_like(F.cast(F.random.uniform(shape=(1, 1, 1)) < self._p, "float32"), x)
        return F.where(chosen, grey, F.cast(x, "float32"))
