"""Initializers: what fills a parameter before training (``mx.init``).

An initializer is called with a description of the parameter and the array to fill. The description's
``__init__`` attribute, where set, names the initializer to use; otherwise the end of the parameter's name
decides: biases, betas and minima become 0, gammas and maxima 1, and weights are what the initializer's class
is about. Random numbers are drawn with :mod:`mxrs.ndarray.random` straight into the array, so
``mx.random.seed`` governs them.
"""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from . import ndarray as nd
from .base import did_you_mean
from .ndarray import NDArray, load

__all__ = [
    "Bilinear", "Constant", "FusedRNN", "InitDesc", "Initializer", "LSTMBias", "Load", "MSRAPrelu", "Mixed",
    "Normal", "One", "Orthogonal", "Uniform", "Xavier", "Zero", "alias", "create", "register",
]  # fmt: skip

InitializerType = TypeVar("InitializerType", bound="type[Initializer]")


class InitDesc(str):
    """Name of a parameter with what is known about it.

    Parameters
    ----------
    name : str
    attrs : dict of str to str, optional
        Attributes of the variable; ``__init__`` holds the initializer to use (a name, JSON text or an
        instance).
    global_init : Initializer, optional
        The initializer that the whole model was given.
    """

    attrs: Mapping[str, Any]
    global_init: Initializer | None

    def __new__(
        cls, name: str, attrs: Mapping[str, Any] | None = None, global_init: Initializer | None = None
    ) -> InitDesc:
        desc = super().__new__(cls, name)
        desc.attrs = attrs or {}
        desc.global_init = global_init
        return desc


class Initializer:
    """Base class of the initializers.

    Subclasses define ``_init_weight(name, arr)``, which fills `arr` in place. Keyword arguments given to this
    constructor are what :meth:`dumps` writes.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs
        self._verbose = False
        self._print_func: Callable[[NDArray], str] | None = None

    def set_verbosity(
        self, verbose: bool = False, print_func: Callable[[NDArray], str] | None = None
    ) -> Initializer:
        """Log every initialization with `print_func` of the array, by default its root mean square."""
        self._verbose = verbose
        self._print_func = _root_mean_square if print_func is None else print_func
        return self

    def dumps(self) -> str:
        """JSON text ``[name, arguments]``; :func:`create` makes the same initializer from it."""
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __eq__(self, other: object) -> bool:
        """Equal where class and arguments are."""
        if not isinstance(other, Initializer):
            return NotImplemented
        return type(self) is type(other) and self._kwargs == other._kwargs

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, desc: str, arr: NDArray) -> None:
        """Fill `arr` for the parameter that `desc` describes.

        Raises
        ------
        ValueError
            Where neither an attribute nor the end of the name says what to do.
        """
        if not isinstance(desc, InitDesc):
            self._legacy_init(desc, arr)
            return
        if desc.global_init is None:
            desc.global_init = self
        chosen = desc.attrs.get("__init__", "")
        if chosen:
            initializer = create(chosen)
            initializer._init_weight(desc, arr)
            self._verbose_print(desc, str(chosen), arr)
            return
        for suffix, method in _SUFFIX_RULES:
            if desc.endswith(suffix):
                getattr(self, method)(desc, arr)
                self._verbose_print(desc, suffix, arr)
                return
        self._init_default(desc, arr)

    def _legacy_init(self, name: str, arr: NDArray) -> None:
        """The rules for a plain str instead of an :class:`InitDesc`, as old programs call it."""
        warnings.warn(
            "Calling initializer with init(str, NDArray) has been deprecated. "
            "Please use init(mx.init.InitDesc(...), NDArray) instead.",
            DeprecationWarning,
            stacklevel=3,
        )
        if not isinstance(name, str):
            raise TypeError(f"name must be string, given {type(name).__name__}")
        if not isinstance(arr, NDArray):
            raise TypeError(f"arr must be NDArray, given {type(arr).__name__}")
        for start, end, method in _LEGACY_RULES:
            if name.startswith(start) and name.endswith(end):
                getattr(self, method)(name, arr)
                return
        self._init_default(name, arr)

    def _verbose_print(self, desc: str, init: str, arr: NDArray) -> None:
        if self._verbose and self._print_func is not None:
            logging.info("Initialized %s as %s: %s", desc, init, self._print_func(arr))

    def _init_weight(self, name: str, arr: NDArray) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _init_weight")

    def _init_default(self, name: str, arr: NDArray) -> None:
        raise ValueError(
            f"Unknown initialization pattern for {name}. Default initialization is now limited to "
            '"weight", "bias", "gamma" (1.0), and "beta" (0.0). '
            "Please use mx.sym.Variable(init=mx.init.*) to set initialization pattern"
        )

    def _init_zero(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_one(self, _: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_bias(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_gamma(self, _: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_beta(self, _: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_quantized_weight(self, _: str, arr: NDArray) -> None:
        draws = nd.random.randint(-127, 127, shape=arr.shape, dtype="int32", ctx=arr.context)
        arr[:] = draws.astype(arr.dtype)

    def _init_loc_bias(self, name: str, arr: NDArray) -> None:
        """Affine parameters of the identity, for the localisation network of a spatial transformer."""
        if arr.shape[0] != 6:
            raise AssertionError(f"{name} must have 6 elements, given shape {arr.shape}")
        arr[:] = np.array([1.0, 0, 0, 0, 1.0, 0])

    def _init_bilinear(self, name: str, arr: NDArray) -> None:
        """Kernel of bilinear upsampling in each (row, column) plane of a four-dimensional weight."""
        if len(arr.shape) != 4:
            raise ValueError(f"bilinear initialization of {name} needs a 4D weight, given shape {arr.shape}")
        rows, columns = arr.shape[2:]
        factor = math.ceil(columns / 2.0)
        center = (2 * factor - 1 - factor % 2) / (2.0 * factor)
        along = [1 - np.abs(np.arange(size) / factor - center) for size in (rows, columns)]
        arr[:] = np.broadcast_to(np.outer(*along), arr.shape).astype(np.float32)


# (end of the name, method); the first that fits is taken.
_SUFFIX_RULES = (
    ("weight", "_init_weight"), ("bias", "_init_bias"), ("gamma", "_init_gamma"), ("beta", "_init_beta"),
    ("min", "_init_zero"), ("max", "_init_one"), ("weight_quantize", "_init_quantized_weight"),
    ("bias_quantize", "_init_zero"),
)  # fmt: skip

# (start of the name, end of the name, method) for plain names.
_LEGACY_RULES = (
    ("upsampling", "", "_init_bilinear"),
    ("stn_loc", "weight", "_init_zero"),
    ("stn_loc", "bias", "_init_loc_bias"),
    ("", "bias", "_init_bias"),
    ("", "gamma", "_init_gamma"),
    ("", "beta", "_init_beta"),
    ("", "weight", "_init_weight"),
    ("", "moving_mean", "_init_zero"), ("", "moving_var", "_init_one"), ("", "moving_inv_var", "_init_zero"),
    ("", "moving_avg", "_init_zero"),
    ("", "min", "_init_zero"), ("", "max", "_init_one"),
)  # fmt: skip


def _root_mean_square(arr: NDArray) -> str:
    return str((arr.norm() / math.sqrt(arr.size)).asscalar())


# -- registry ---------------------------------------------------------------------------------------

_REGISTRY: dict[str, type[Initializer]] = {}


def _register_as(klass: InitializerType, name: str) -> InitializerType:
    if not (isinstance(klass, type) and issubclass(klass, Initializer)):
        raise TypeError(f"register expects a subclass of Initializer, given {klass!r}")
    name = name.lower()
    known = _REGISTRY.get(name)
    if known is not None:
        warnings.warn(
            f"New initializer {klass.__module__}.{klass.__name__} registered with name {name} is overriding "
            f"existing initializer {known.__module__}.{known.__name__}",
            stacklevel=3,
        )
    _REGISTRY[name] = klass
    return klass


def register(klass: InitializerType) -> InitializerType:
    """Make `klass` known to :func:`create` under its lower-case class name; usable as a decorator."""
    return _register_as(klass, getattr(klass, "__name__", ""))


def alias(*aliases: str) -> Callable[[InitializerType], InitializerType]:
    """Decorator that makes a class known under further names."""

    def decorate(klass: InitializerType) -> InitializerType:
        for name in aliases:
            _register_as(klass, name)
        return klass

    return decorate


def create(*args: Any, **kwargs: Any) -> Any:
    """Initializer from a name, from JSON text of :meth:`Initializer.dumps`, or an instance, returned as it
    is.

    It is the first positional argument or ``initializer``; a dict holds the name under that key.

    Raises
    ------
    AssertionError
        For an unknown name, or arguments beside an instance.
    """
    name, args = (args[0], args[1:]) if args else (kwargs.pop("initializer", None), ())
    if isinstance(name, (Initializer, Load, Mixed)):
        if args or kwargs:
            raise AssertionError("initializer is already an instance. Additional arguments are invalid")
        return name
    if isinstance(name, dict):
        return create(**name)
    if not isinstance(name, str):
        raise AssertionError(f"initializer must be of string type, given {type(name).__name__}")
    if name.startswith(("[", "{")):
        if args or kwargs:
            raise AssertionError(
                "initializer is JSON text with its arguments. Additional arguments are invalid"
            )
        decoded = json.loads(name)
        if isinstance(decoded, dict):
            return create(**decoded)
        if len(decoded) != 2:
            raise ValueError(f"initializer: expected JSON text [name, arguments], given {name}")
        name, kwargs = decoded
        return create(name, **kwargs)
    klass = _REGISTRY.get(name.lower())
    if klass is None:
        hint = did_you_mean(name.lower(), _REGISTRY)
        raise AssertionError(
            f"{name} is not registered. Please register with initializer.register first{hint}"
        )
    return klass(*args, **kwargs)


# -- initializers that choose -----------------------------------------------------------------------


class Load:
    """Takes arrays from a file of parameters, or from a dict, by name.

    Parameters
    ----------
    param : str or dict of str to NDArray
        A file that ``nd.save`` wrote, or its contents; ``arg:`` and ``aux:`` before names are dropped.
    default_init : Initializer, optional
        For names that `param` lacks; without it they are an AssertionError, as are arrays of another shape.
    verbose : bool
        Log where each parameter came from.
    """

    def __init__(
        self,
        param: str | Mapping[str, NDArray],
        default_init: Callable[[str, NDArray], None] | None = None,
        verbose: bool = False,
    ) -> None:
        loaded = load(param) if isinstance(param, str) else param
        if not isinstance(loaded, Mapping):
            raise AssertionError(f"Load needs arrays with names, given {type(loaded).__name__}")
        self.param = {
            name[4:] if name.startswith(("arg:", "aux:")) else name: arr for name, arr in loaded.items()
        }
        self.default_init = default_init
        self.verbose = verbose

    def __call__(self, name: str, arr: NDArray) -> None:
        """Fill `arr` with the array of that name."""
        source = self.param.get(name)
        if source is not None:
            if arr.shape != source.shape:
                raise AssertionError(
                    f"Parameter {name} cannot be initialized from loading. "
                    f"Shape mismatch, target {arr.shape} vs loaded {source.shape}"
                )
            arr[:] = source
            origin = "loading"
        else:
            if self.default_init is None:
                raise AssertionError(
                    f"Cannot Initialize {name}. "
                    "Not found in loaded param and no default Initializer is provided."
                )
            self.default_init(name, arr)
            origin = "default"
        if self.verbose:
            logging.info("Initialized %s by %s", name, origin)


class Mixed:
    """Chooses an initializer by the first regular expression that matches the start of the name.

    Raises
    ------
    AssertionError
        Where `patterns` and `initializers` differ in number.
    ValueError
        When called with a name that no pattern matches.
    """

    def __init__(
        self, patterns: Iterable[str], initializers: Iterable[Callable[[str, NDArray], None]]
    ) -> None:
        patterns, initializers = list(patterns), list(initializers)
        if len(patterns) != len(initializers):
            raise AssertionError(
                f"Mixed: {len(patterns)} patterns for {len(initializers)} initializers; there must be as many"
            )
        self.map = [(re.compile(pattern), init) for pattern, init in zip(patterns, initializers)]

    def __call__(self, name: str, arr: NDArray) -> None:
        """Fill `arr` with the initializer chosen for `name`."""
        for pattern, init in self.map:
            if pattern.match(name):
                init(name, arr)
                return
        raise ValueError(
            f"Parameter name {name} did not match any pattern. "
            'Consider adding a ".*" pattern at the end with a default Initializer.'
        )


# -- initializers that fill -------------------------------------------------------------------------


@alias("zeros")
@register
class Zero(Initializer):
    """Zeros."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 0


@alias("ones")
@register
class One(Initializer):
    """Ones."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 1


@register
class Constant(Initializer):
    """A number, or an array or list that broadcasts to the parameter's shape."""

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)
        self.value = value

    def _init_weight(self, name: str, arr: NDArray) -> None:
        value = self.value
        arr[:] = np.asarray(value) if isinstance(value, (list, tuple)) else value

    def dumps(self) -> str:
        """As in the base class; an array is written as nested lists."""
        value = self._kwargs["value"]
        if isinstance(value, NDArray):
            value = value.asnumpy()
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        return json.dumps([type(self).__name__.lower(), {"value": value}])

    def __eq__(self, other: object) -> bool:
        """Equal where the values are; arrays compare by their elements."""
        if not isinstance(other, Initializer):
            return NotImplemented
        return type(self) is type(other) and self.dumps() == other.dumps()


@register
class Uniform(Initializer):
    """Uniform in [-scale, scale)."""

    def __init__(self, scale: float = 0.07) -> None:
        super().__init__(scale=scale)
        self.scale = scale

    def _init_weight(self, name: str, arr: NDArray) -> None:
        nd.random.uniform(-self.scale, self.scale, out=arr)


@register
class Normal(Initializer):
    """Normal with mean 0 and standard deviation `sigma`."""

    def __init__(self, sigma: float = 0.01) -> None:
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name: str, arr: NDArray) -> None:
        nd.random.normal(0, self.sigma, out=arr)


@register
class Orthogonal(Initializer):
    """A matrix with orthogonal rows (or columns, where there are more rows than columns), times `scale`.

    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks" (2014). The matrix is the parameter with all axes but the first made one.

    Parameters
    ----------
    scale : float
    rand_type : {'uniform', 'normal'}
        Distribution of the random matrix whose singular vectors are used.
    """

    def __init__(self, scale: float = 1.414, rand_type: str = "uniform") -> None:
        super().__init__(scale=scale, rand_type=rand_type)
        self.scale = scale
        self.rand_type = rand_type

    def _init_weight(self, name: str, arr: NDArray) -> None:
        if not arr.shape:
            raise ValueError(f"Orthogonal initializer cannot be applied to scalar {name}")
        shape = (arr.shape[0], math.prod(arr.shape[1:]))
        if self.rand_type == "uniform":
            seed = nd.random.uniform(-1.0, 1.0, shape=shape)
        elif self.rand_type == "normal":
            seed = nd.random.normal(0.0, 1.0, shape=shape)
        else:
            raise ValueError(f"Orthogonal: rand_type must be 'uniform' or 'normal', given {self.rand_type!r}")
        left, _, right = np.linalg.svd(seed.asnumpy(), full_matrices=False)
        basis = left if left.shape == shape else right
        arr[:] = (self.scale * basis).reshape(arr.shape).astype(np.float32)


@register
class Xavier(Initializer):
    """Scales the random numbers by the number of inputs and outputs of the layer (Glorot and Bengio, 2010).

    With ``scale = sqrt(magnitude / factor)``: uniform in [-scale, scale), or normal with that standard
    deviation. Of a weight (outputs, inputs, spatial...), the counts are multiplied by the spatial size.

    Parameters
    ----------
    rnd_type : {'uniform', 'gaussian'}
    factor_type : {'avg', 'in', 'out'}
    magnitude : float

    Raises
    ------
    ValueError
        For a weight of fewer than two axes, or another `rnd_type` or `factor_type`.
    """

    def __init__(self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3) -> None:
        super().__init__(rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude)
        self.rnd_type = rnd_type
        self.factor_type = factor_type
        self.magnitude = float(magnitude)

    def _init_weight(self, name: str, arr: NDArray) -> None:
        shape = arr.shape
        if len(shape) < 2:
            raise ValueError(
                f"Xavier initializer cannot be applied to vector {name}. "
                f"It requires at least 2D, given {shape}."
            )
        spatial = math.prod(shape[2:])
        fan_in, fan_out = shape[1] * spatial, shape[0] * spatial
        factors = {"avg": (fan_in + fan_out) / 2.0, "in": fan_in, "out": fan_out}
        if self.factor_type not in factors:
            raise ValueError(
                f"Incorrect factor type: must be 'avg', 'in' or 'out', given {self.factor_type!r}"
            )
        if arr.size == 0:
            return
        scale = math.sqrt(self.magnitude / factors[self.factor_type])
        if self.rnd_type == "uniform":
            nd.random.uniform(-scale, scale, out=arr)
        elif self.rnd_type == "gaussian":
            nd.random.normal(0, scale, out=arr)
        else:
            raise ValueError(f"Unknown random type: must be 'uniform' or 'gaussian', given {self.rnd_type!r}")


@register
class MSRAPrelu(Xavier):
    """Xavier with normal numbers and magnitude ``2 / (1 + slope^2)``, for layers before a (P)ReLU (He et al.,
    2015).

    Parameters
    ----------
    factor_type : {'avg', 'in', 'out'}
    slope : float
        Initial slope of the PReLU below zero.
    """

    def __init__(self, factor_type: str = "avg", slope: float = 0.25) -> None:
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._kwargs = {"factor_type": factor_type, "slope": slope}


@register
class Bilinear(Initializer):
    """Kernel of bilinear upsampling, for transposed convolutions; four-dimensional weights only."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        self._init_bilinear(name, arr)


@register
class LSTMBias(Initializer):
    """Zeros except for the forget gate, the second quarter, which becomes `forget_bias`."""

    def __init__(self, forget_bias: float = 1.0) -> None:
        super().__init__(forget_bias=forget_bias)
        self.forget_bias = forget_bias

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 0.0
        hidden = arr.shape[0] // 4
        arr[hidden : 2 * hidden] = self.forget_bias


@register
class FusedRNN(Initializer):
    """Applies `init` to every weight inside the one parameter vector of a fused RNN.

    It can be created, compared and written, but not applied yet: that takes the layout of the RNN operator's
    parameters, and raises NotImplementedError until that operator is there.
    """

    def __init__(
        self,
        init: Initializer | str | None,
        num_hidden: int,
        num_layers: int,
        mode: str,
        bidirectional: bool = False,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(
            init=create(init).dumps() if init is not None else None,
            num_hidden=num_hidden,
            num_layers=num_layers,
            mode=mode,
            bidirectional=bidirectional,
            forget_bias=forget_bias,
        )

    def _init_weight(self, name: str, arr: NDArray) -> None:
        raise NotImplementedError(f"FusedRNN initializer of {name}: the RNN operator is not built yet")
