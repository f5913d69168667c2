"""`mx.sym.random`: samplers.

Parameters that are numbers go to the `_random_*` operators, which draw `shape` numbers from one distribution; symbols
go to the `_sample_*` operators, which draw `shape` numbers from one distribution per element.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

from ._lookup import attribute, names, op
from .symbol import Symbol

__all__ = [
    "exponential",
    "gamma",
    "generalized_negative_binomial",
    "multinomial",
    "negative_binomial",
    "normal",
    "poisson",
    "randint",
    "randn",
    "shuffle",
    "uniform",
]


def _options(shape: Any, dtype: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What was given of the arguments that all samplers have."""
    given = {"shape": shape, "dtype": dtype}
    marks = (value for value in given.values() if type(value).__name__ == "_NullType")
    absent = [None, *marks]
    return {**{k: v for k, v in given.items() if not any(v is mark for mark in absent)}, **kwargs}


def _draw(scalar: str, sample: str | None, parameters: dict[str, Any], options: dict[str, Any]) -> Symbol:
    """Calls one of the two operators of a distribution; without `sample`, numbers only."""
    values = list(parameters.values())
    kinds = [type(v) for v in values]
    if any(isinstance(v, Symbol) for v in values):
        if not all(isinstance(v, Symbol) for v in values):
            other = next(k for k in kinds if k is not kinds[0])
            raise AssertionError(
                f"Distribution parameters must all have the same type, but got both {kinds[0]} and {other}."
            )
        if sample is None:
            raise ValueError(f"{scalar}: parameters are numbers; Symbols were given")
        return op(sample)(*values, **options)
    for value in values:
        if not isinstance(value, Number):
            raise ValueError(
                f"Distribution parameters must be either Symbol or numbers, but got {type(value)}."
            )
    return op(scalar)(**parameters, **options)


def uniform(low: Any = 0, high: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers from the uniform distribution over [low, high)."""
    return _draw(
        "_random_uniform", "_sample_uniform", {"low": low, "high": high}, _options(shape, dtype, kwargs)
    )


def normal(loc: Any = 0, scale: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers from the normal distribution of mean `loc` and standard deviation `scale`."""
    return _draw(
        "_random_normal", "_sample_normal", {"loc": loc, "scale": scale}, _options(shape, dtype, kwargs)
    )


def randn(*shape: int, **kwargs: Any) -> Symbol:
    """Normal numbers of this shape, with `loc`, `scale` and `dtype` by name."""
    loc, scale, dtype = kwargs.pop("loc", 0), kwargs.pop("scale", 1), kwargs.pop("dtype", None)
    return normal(loc, scale, tuple(shape), dtype, **kwargs)


def poisson(lam: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers from the Poisson distribution of mean `lam`."""
    return _draw("_random_poisson", "_sample_poisson", {"lam": lam}, _options(shape, dtype, kwargs))


def exponential(scale: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers from the exponential distribution of mean `scale`."""
    if not isinstance(scale, (Symbol, Number)):
        raise ValueError(f"Distribution parameters must be either Symbol or numbers, but got {type(scale)}.")
    rate: Any = 1.0 / scale  # type: ignore[operator]
    return _draw("_random_exponential", "_sample_exponential", {"lam": rate}, _options(shape, dtype, kwargs))


def gamma(alpha: Any = 1, beta: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers from the gamma distribution of shape `alpha` and scale `beta`."""
    return _draw(
        "_random_gamma", "_sample_gamma", {"alpha": alpha, "beta": beta}, _options(shape, dtype, kwargs)
    )


def negative_binomial(k: Any = 1, p: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """How many failures come before the k-th success of probability p."""
    name = "negative_binomial"
    return _draw(f"_random_{name}", f"_sample_{name}", {"k": k, "p": p}, _options(shape, dtype, kwargs))


def generalized_negative_binomial(
    mu: Any = 1, alpha: Any = 1, shape: Any = None, dtype: Any = None, **kwargs: Any
) -> Symbol:
    """Numbers from the negative binomial distribution of mean `mu` and dispersion `alpha`."""
    name = "generalized_negative_binomial"
    parameters = {"mu": mu, "alpha": alpha}
    return _draw(f"_random_{name}", f"_sample_{name}", parameters, _options(shape, dtype, kwargs))


def multinomial(
    data: Symbol, shape: Any = None, get_prob: bool = True, dtype: Any = "int32", **kwargs: Any
) -> Symbol:
    """Draws of indices by the probabilities in the last axis of `data`; with `get_prob`, a second output has the
    logarithms of their probabilities.
    """
    return op("_sample_multinomial")(data, get_prob=get_prob, **_options(shape, dtype, kwargs))


def randint(low: int, high: int, shape: Any = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Whole numbers from [low, high)."""
    return _draw("_random_randint", None, {"low": low, "high": high}, _options(shape, dtype, kwargs))


def shuffle(data: Symbol, **kwargs: Any) -> Symbol:
    """`data` with its first axis in random order."""
    return op("_shuffle")(data, **kwargs)


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, f"_random_{name}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in names("_random_") if name.endswith("_like"))})
