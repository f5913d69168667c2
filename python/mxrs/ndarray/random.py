"""`mx.nd.random`: samplers.

Parameters that are numbers go to the `_random_*` operators, which draw `shape` numbers from one distribution;
arrays go to the `_sample_*` operators, which draw `shape` numbers from one distribution per element.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..base import MXNetTypeError, did_you_mean
from ..context import current_context
from ._devices import call_on
from ._dtypes import NAMES, flag_of
from ._lookup import OPS, absent, op
from .ndarray import NDArray
from .shapes import whole

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


def _given(value: Any) -> Any:
    """A parameter's value; None for MXNet's mark of a parameter that was not given."""
    return None if type(value).__name__ == "_NullType" else value


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if hasattr(shape, "__index__") else tuple(map(whole, shape))


def _draw(
    scalar: str, sample: str | None, parameters: dict[str, Any], names: tuple[str, ...], **where: Any
) -> NDArray:
    """Calls one of the two operators of a distribution.

    Parameters
    ----------
    scalar, sample : str
        Operators for numbers and for arrays; no `sample`: numbers only.
    parameters : dict
        The distribution's parameters, by the names of `scalar`.
    names : tuple of str
        Their names in `sample`.
    where : dict
        shape, dtype, ctx and out of the call, and whatever else was given by name.
    """
    # Attributes of graph nodes (`__layout__`) mean nothing here; MXNet ignores them too.
    where = {key: value for key, value in where.items() if not key.startswith("__")}
    unknown = set(where) - {"shape", "dtype", "ctx", "out", "name"}
    if unknown:
        name = min(unknown)
        allowed = [*parameters, "shape", "dtype", "ctx", "out"]
        raise MXNetTypeError(
            f"{scalar}: no argument is named {name!r}{did_you_mean(name, allowed)} (there are {', '.join(allowed)})"
        )
    shape, dtype, out = _given(where["shape"]), _given(where["dtype"]), where["out"]
    extra: dict[str, Any] = {} if out is None else {"out": out}
    if dtype not in (None, "None"):
        extra["dtype"] = NAMES[flag_of(dtype)]
    elif out is not None:
        extra["dtype"] = NAMES[out._type_flag]
    values = list(parameters.values())
    if any(isinstance(v, NDArray) for v in values):
        kinds = [type(v) for v in values]
        if not all(isinstance(v, NDArray) for v in values):
            other = next(k for k in kinds if k is not kinds[0])
            raise AssertionError(
                f"Distribution parameters must all have the same type, but got both {kinds[0]} and {other}."
            )
        if sample is None:
            raise ValueError(f"{scalar}: parameters are numbers; NDArrays were given")
        if shape is not None:
            extra["shape"] = _shape(shape)
        return op(sample)(**dict(zip(names, values)), **extra)
    for value in values:
        if not isinstance(value, (int, float, np.generic)):
            raise ValueError(
                f"Distribution parameters must be either NDArray or numbers, but got {type(value)}."
            )
    if shape is None:
        shape = (1,) if out is None else out.shape
    ctx = where["ctx"]
    if ctx is None:
        ctx = current_context() if out is None else out.context
    return call_on(ctx, op(scalar), **parameters, shape=_shape(shape), **extra)


def uniform(
    low: Any = 0,
    high: Any = 1,
    shape: Any = None,
    dtype: Any = None,
    ctx: Any = None,
    out: Any = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers from the uniform distribution over [low, high).

    Parameters
    ----------
    low, high : float or NDArray
        The bounds.
    shape : int or tuple of int, optional
        How many numbers, per element of the parameters if they are arrays.
    dtype : str, optional
        float16, float32 (the default) or float64.
    ctx : Context, optional
        Where the result lives; not used with arrays.
    out : NDArray, optional
        Where to put the result.
    """
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    return _draw("_random_uniform", "_sample_uniform", {"low": low, "high": high}, ("low", "high"), **where)


def normal(
    loc: Any = 0,
    scale: Any = 1,
    shape: Any = None,
    dtype: Any = None,
    ctx: Any = None,
    out: Any = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers from the normal distribution of mean `loc` and standard deviation `scale`; else as `uniform`."""
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    return _draw("_random_normal", "_sample_normal", {"loc": loc, "scale": scale}, ("mu", "sigma"), **where)


def randn(*shape: int, **kwargs: Any) -> NDArray:
    """Numbers of the given extents from the normal distribution of mean `loc` (0) and standard deviation
    `scale` (1).
    """
    loc, scale = kwargs.pop("loc", 0), kwargs.pop("scale", 1)
    return normal(loc, scale, shape or None, **kwargs)


def poisson(
    lam: Any = 1, shape: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any
) -> NDArray:
    """Numbers from the Poisson distribution of rate `lam`, as floats; else as `uniform`."""
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    return _draw("_random_poisson", "_sample_poisson", {"lam": lam}, ("lam",), **where)


def exponential(
    scale: Any = 1, shape: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any
) -> NDArray:
    """Numbers from the exponential distribution of mean `scale`; else as `uniform`."""
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    if not isinstance(scale, (NDArray, int, float, np.generic)):
        raise ValueError(f"Distribution parameters must be either NDArray or numbers, but got {type(scale)}.")
    return _draw(
        "_random_exponential",
        "_sample_exponential",
        {"lam": 1.0 / (scale if isinstance(scale, NDArray) else float(scale))},
        ("lam",),
        **where,
    )


def gamma(
    alpha: Any = 1,
    beta: Any = 1,
    shape: Any = None,
    dtype: Any = None,
    ctx: Any = None,
    out: Any = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers from the gamma distribution of shape `alpha` and scale `beta`; else as `uniform`."""
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    return _draw("_random_gamma", "_sample_gamma", {"alpha": alpha, "beta": beta}, ("alpha", "beta"), **where)


def negative_binomial(
    k: Any = 1,
    p: Any = 1,
    shape: Any = None,
    dtype: Any = None,
    ctx: Any = None,
    out: Any = None,
    **kwargs: Any,
) -> NDArray:
    """Failures before the `k`-th success in trials that succeed with probability `p`, as floats; else as
    `uniform`.
    """
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    names = ("k", "p")
    return _draw("_random_negative_binomial", "_sample_negative_binomial", {"k": k, "p": p}, names, **where)


def generalized_negative_binomial(
    mu: Any = 1,
    alpha: Any = 1,
    shape: Any = None,
    dtype: Any = None,
    ctx: Any = None,
    out: Any = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers from the negative binomial distribution of mean `mu` and dispersion `alpha`; else as `uniform`."""
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    names = ("mu", "alpha")
    operators = ("_random_generalized_negative_binomial", "_sample_generalized_negative_binomial")
    return _draw(*operators, {"mu": mu, "alpha": alpha}, names, **where)


def randint(
    low: Any, high: Any, shape: Any = None, dtype: Any = None, ctx: Any = None, out: Any = None, **kwargs: Any
) -> NDArray:
    """Whole numbers from `low` to below `high`, int32 (the default) or int64; else as `uniform`, for numbers
    only.
    """
    where = {"shape": shape, "dtype": dtype, "ctx": ctx, "out": out, **kwargs}
    return _draw("_random_randint", None, {"low": low, "high": high}, (), **where)


def multinomial(
    data: NDArray,
    shape: Any = None,
    get_prob: bool = False,
    out: Any = None,
    dtype: Any = "int32",
    **kwargs: Any,
) -> Any:
    """Indices drawn with the probabilities in the last dimension of `data`.

    Parameters
    ----------
    data : NDArray
        Shape (k,) or (..., k): one distribution, or many.
    shape : int or tuple of int, optional
        How many indices of each.
    get_prob : bool
        Also give the logarithm of each index's probability, through which gradients flow.
    dtype : str
        The element type of the indices.

    Returns
    -------
    NDArray, or [NDArray, NDArray]
        Shape (...) + `shape`.
    """
    extra: dict[str, Any] = kwargs if out is None else {**kwargs, "out": out}
    if _given(shape) is not None:
        extra["shape"] = _shape(shape)
    return op("_sample_multinomial")(data, get_prob=get_prob, dtype=NAMES[flag_of(dtype)], **extra)


def shuffle(data: NDArray, **kwargs: Any) -> NDArray:
    """The array with its first dimension in random order."""
    return op("_shuffle")(data, **kwargs)


@functools.cache
def _operators() -> dict[str, Any]:
    """`uniform_like` and its kin: numbers of the shape of an array."""
    return {
        n.removeprefix("_random_"): f
        for n, f in OPS.items()
        if n.startswith("_random_") and n.endswith("_like")
    }


def __getattr__(name: str) -> Any:
    try:
        return _operators()[name]
    except KeyError:
        raise absent(__name__, name, f"_random_{name}") from None


def __dir__() -> list[str]:
    return sorted([*__all__, *_operators()])
