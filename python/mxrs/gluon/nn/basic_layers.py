"""Dense, Dropout, Embedding, Flatten and the blocks made from a function.

Sequential blocks are in `containers`, normalization in `norm_layers`; both can be imported from here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ... import ndarray
from .._block import Block
from ..hybrid import HybridBlock
from .activations import Activation
from .containers import HybridSequential, Sequential
from .norm_layers import BatchNorm, BatchNormReLU, GroupNorm, InstanceNorm, LayerNorm, _BatchNorm

__all__ = [
    "BatchNorm",
    "BatchNormReLU",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "HybridLambda",
    "HybridSequential",
    "InstanceNorm",
    "Lambda",
    "LayerNorm",
    "Sequential",
    "_BatchNorm",
]


class Dense(HybridBlock):
    """`activation(x @ weight.T + bias)`: a fully connected layer.

    Input (batch, ...) gives output (batch, units), all further axes taken together; with `flatten=False`
    input (..., in) gives (..., units). weight has shape (units, in_units), bias (units,).

    Arguments:
        units: size of the output.
        activation: name of an `Activation`, or None for none.
        use_bias: whether there is a bias.
        flatten: see above.
        dtype: dtype of the parameters.
        weight_initializer, bias_initializer: initializers or their names.
        in_units: size of the input; 0 lets the first batch tell.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        flatten: bool = True,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_units: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._flatten = flatten
        self._units = units
        self._in_units = in_units
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=(units, in_units),
                init=weight_initializer,
                dtype=dtype,
                allow_deferred_init=True,
            )
            self.bias = (
                self.params.get(
                    "bias", shape=(units,), init=bias_initializer, dtype=dtype, allow_deferred_init=True
                )
                if use_bias
                else None
            )
            self.act = None if activation is None else Activation(activation, prefix=f"{activation}_")

    def _param_shapes(self, x: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        return {"weight": (self._units, math.prod(x.shape[1:]) if self._flatten else x.shape[-1])}

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:  # type: ignore[override]
        out = F.FullyConnected(
            x,
            weight,
            bias,
            no_bias=bias is None,
            num_hidden=self._units,
            flatten=self._flatten,
            name="fwd",
        )
        return out if self.act is None else self.act(out)

    def __repr__(self) -> str:
        shape = self.weight.shape or (None, None)
        kind = "linear" if self.act is None else self.act
        return f"{type(self).__name__}({shape[1] or None} -> {shape[0]}, {kind})"


class Dropout(HybridBlock):
    """In training, zero each element with probability `rate` and divide the rest by `1 - rate`; otherwise
    the identity.

    Elements that differ only along `axes` share one draw (Srivastava et al. 2014, JMLR 15).
    """

    def __init__(self, rate: float, axes: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(rate, str) or not hasattr(rate, "__float__"):
            raise TypeError(f"Dropout: rate is a number from 0 to 1, given {rate!r}")
        self._rate = rate
        self._axes = axes

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        if self._rate > 0:
            return F.Dropout(x, p=self._rate, axes=self._axes, name="fwd")
        return F.identity(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p = {self._rate}, axes={self._axes})"


class Embedding(HybridBlock):
    """Rows of a learnt table: input of any shape holding indices gives output of that shape plus
    (output_dim,).

    weight has shape (input_dim, output_dim). `sparse_grad=True` needs sparse arrays, which are not built
    (NotImplementedError).
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        sparse_grad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._kwargs = {
            "input_dim": input_dim,
            "output_dim": output_dim,
            "dtype": dtype,
            "sparse_grad": sparse_grad,
        }
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=(input_dim, output_dim),
                init=weight_initializer,
                dtype=dtype,
                allow_deferred_init=True,
                grad_stype="row_sparse" if sparse_grad else "default",
            )

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:  # type: ignore[override]
        return F.Embedding(x, weight, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        return "{}({input_dim} -> {output_dim}, {dtype})".format(type(self).__name__, **self._kwargs)


class Flatten(HybridBlock):
    """All axes after the first made one: (batch, ...) to (batch, product)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.Flatten(x)

    def __repr__(self) -> str:
        return type(self).__name__


class Lambda(Block):
    """A block that calls a function of arrays, or the operator of `mx.nd` with that name."""

    def __init__(self, function: str | Callable[..., Any], prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if isinstance(function, str):
            if not hasattr(ndarray, function):
                raise AssertionError(f"Function name {function} is not found in ndarray.")
            self._func_impl = getattr(ndarray, function)
        elif callable(function):
            self._func_impl = function
        else:
            raise ValueError(f"Unrecognized function in lambda: {function} of type {type(function)}")
        self._func_name = function if isinstance(function, str) else _name_of(function)

    def forward(self, *args: Any) -> Any:
        return self._func_impl(*args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._func_name})"


class HybridLambda(HybridBlock):
    """A hybrid block that calls `function(F, x, ...)`, or the operator of `F` with that name."""

    def __init__(self, function: str | Callable[..., Any], prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self._func: Callable[..., Any]
        if isinstance(function, str):
            if not hasattr(ndarray, function):
                raise AssertionError(f"Function name {function} is not found in symbol/ndarray.")
            self._func_name = function
            self._func = _OperatorOf(function)
        elif callable(function):
            self._func_name = _name_of(function)
            self._func = function
        else:
            raise ValueError(f"Unrecognized function in lambda: {function} of type {type(function)}")

    def hybrid_forward(self, F: Any, x: Any, *args: Any) -> Any:  # type: ignore[override]
        return self._func(F, x, *args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._func_name})"


class _OperatorOf:
    """Calls the operator `name` of `F`; a class and not a closure, so that the block can be pickled."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, F: Any, *args: Any) -> Any:
        return getattr(F, self._name)(*args)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
