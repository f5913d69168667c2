"""Parameters: named arrays of a model, their gradients, and the initialization that waits for a shape.

A `Parameter` holds one copy of its value per context. Its shape may contain 0 for a dimension that only the
first batch tells; until then it is *deferred*: `initialize` notes what to do and `_finish_deferred_init`
does it once the shape is complete. `_Deferred` stands for such a parameter in a call of an operator that
can tell the missing shape from its other inputs. The dictionary of parameters is in `parameter_dict`,
blocks are in `block`.
"""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import autograd, initializer, ndarray
from ..base import MXNetError
from ..context import Context, cpu, current_context
from ..ndarray import NDArray
from .utils import shape_is_known

if TYPE_CHECKING:
    from .parameter_dict import ParameterDict as ParameterDict

__all__ = ["Constant", "DeferredInitializationError", "Parameter", "ParameterDict", "tensor_types"]


#: The types that a block accepts as a tensor.
tensor_types = (NDArray,)

_STORAGE_TYPES = ("default", "row_sparse", "csr")

# Threads that train copies of one net make its first call together; only one of them may draw the values.
_INIT_LOCK = threading.RLock()


class DeferredInitializationError(MXNetError):
    """The value of a parameter was asked for while its initialization still waits for a shape."""


def same_context(a: Context, b: Context) -> bool:
    """Whether both name the same device; one place for it, since a loop over parameters runs it per call."""
    return a is b or a == b


def _as_context_list(ctx: Context | Sequence[Context] | None) -> list[Context]:
    if ctx is None:
        return [current_context()]
    contexts = [ctx] if isinstance(ctx, Context) else list(ctx)
    for one in contexts:
        if not isinstance(one, Context):
            raise TypeError(f"ctx takes a Context such as mx.cpu(), or a list of them; {ctx!r} was given")
    return contexts


def _as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """`shape` as a tuple of Python ints, whatever integers (NumPy's too) it was given in."""
    if isinstance(shape, int | np.integer):
        return (int(shape),)
    try:
        return tuple(operator.index(dim) for dim in shape)
    except TypeError:
        raise TypeError(f"the shape of a Parameter holds whole numbers; {shape!r} was given") from None


def _check_stype(name: str, argument: str, stype: str) -> str:
    if stype not in _STORAGE_TYPES:
        raise AssertionError(
            f"{argument} for Parameter '{name}' must be one of 'default', 'row_sparse', or 'csr', but got "
            f"'{stype}'"
        )
    if stype != "default":
        raise NotImplementedError(
            f"Parameter '{name}': {argument}='{stype}' needs mxrs.ndarray.sparse, not built yet; only "
            "'default' works"
        )
    return stype


class Parameter:
    """A named array of a block, with its gradient.

    Arguments:
        name: full name, as it appears in saved files.
        grad_req: what `backward` does with the gradient: 'write' it, 'add' to it, or 'null' (none is kept).
        shape: an int or a tuple; 0 is a dimension not known yet, None a shape not known at all.
        dtype: a NumPy dtype or its name.
        lr_mult, wd_mult: factors on the optimizer's learning rate and weight decay.
        init: an initializer or its name; None leaves the choice to `initialize`.
        allow_deferred_init: whether `initialize` may wait for an unknown shape.
        differentiable: False makes grad_req 'null' for good (running statistics).
        stype, grad_stype: storage type; only 'default' is built, the sparse ones raise NotImplementedError.
    """

    def __init__(
        self,
        name: str,
        grad_req: str = "write",
        shape: int | Sequence[int] | None = None,
        dtype: Any = np.float32,
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
        init: Any = None,
        allow_deferred_init: bool = False,
        differentiable: bool = True,
        stype: str = "default",
        grad_stype: str = "default",
    ) -> None:
        self.name = name
        self._var: Any = None
        self._data: list[NDArray] | None = None
        self._grad: list[NDArray] | None = None
        self._ctx_list: list[Context] | None = None
        self._trainer: Any = None
        self._deferred_init: tuple[Any, ...] = ()
        self._differentiable = differentiable
        self._allow_deferred_init = allow_deferred_init
        self._grad_req = "null"
        self._shape = None if shape is None else _as_shape(shape)
        self._dtype = dtype
        self.lr_mult = lr_mult
        self.wd_mult = wd_mult
        self.init = init
        self._stype = _check_stype(name, "stype", stype)
        self._grad_stype = _check_stype(name, "grad_stype", grad_stype)
        self.grad_req = grad_req

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name} (shape={self.shape}, dtype={self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        # A trainer holds every other parameter too; it has no place in a copy of one.
        return {**self.__dict__, "_var": None, "_trainer": None, "_grad": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._data is not None:
            self._grad = self._make_grad(self._data)

    # --- what it is ---

    @property
    def grad_req(self) -> str:
        """'write', 'add' or 'null'; setting it allocates or drops an initialized parameter's gradient."""
        return self._grad_req

    @grad_req.setter
    def grad_req(self, req: str) -> None:
        if req not in ("write", "add", "null"):
            raise AssertionError(f"grad_req must be one of 'write', 'add', or 'null', but got '{req}'")
        if not self._differentiable:
            req = "null"
        if req == self._grad_req:
            return
        self._grad_req = req
        if self._data is None:
            return
        if req == "null":
            self._grad = None
            self._data = [array.detach() for array in self._data]
        else:
            self._grad = self._make_grad(self._data)

    @property
    def dtype(self) -> Any:
        """The dtype as it was given; setting it casts."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        self.cast(dtype)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape, with 0 for what is not known yet. It can be set to one that agrees in every known
        dimension.
        """
        return self._shape

    @shape.setter
    def shape(self, new_shape: int | Sequence[int]) -> None:
        shape = _as_shape(new_shape)
        old = self._shape
        if old is not None:
            fits = len(old) == len(shape) and all(a in (0, b) for a, b in zip(old, shape, strict=True))
            if not fits:
                raise AssertionError(f"Expected shape {shape} is incompatible with given shape {old}.")
        self._shape = shape

    # --- initialization ---

    def initialize(
        self,
        init: Any = None,
        ctx: Context | Sequence[Context] | None = None,
        default_init: Any = None,
        force_reinit: bool = False,
    ) -> None:
        """Give the parameter a value on every context of `ctx` (default: the current one).

        The initializer is `init`, else the parameter's own, else `default_init`, else `Uniform()`. Where
        the shape is not known and waiting is allowed, this happens at the first forward pass. An
        initialized parameter is left alone, with a warning, unless `force_reinit`. Raises ValueError for an
        unknown shape that may not wait.
        """
        if self._data is not None and not force_reinit:
            warnings.warn(
                f"Parameter '{self.name}' is already initialized, ignoring. Set force_reinit=True to "
                "re-initialize.",
                stacklevel=2,
            )
            return
        known = shape_is_known(self._shape)
        if not known and not self._allow_deferred_init:
            raise ValueError(
                f"Cannot initialize Parameter '{self.name}' because it has invalid shape: {self._shape}."
            )
        if default_init is None:
            default_init = initializer.Uniform()
        if init is None:
            init = default_init if self.init is None else self.init
        self._data = self._grad = self._ctx_list = None
        self._deferred_init = (init, _as_context_list(ctx), default_init, None)
        if known:
            self._finish_deferred_init()

    def _finish_deferred_init(self) -> None:
        """Do what `initialize` noted, now that the shape is complete; nothing to do is no error."""
        with _INIT_LOCK:
            if not self._deferred_init:
                return
            init, ctx, default_init, data = self._deferred_init
            if not shape_is_known(self._shape):
                raise ValueError(
                    f"Cannot initialize Parameter '{self.name}' because it has invalid shape: {self._shape}. "
                    "Please specify in_units, in_channels, etc for `Block`s."
                )
            with autograd.pause():
                if data is None:
                    # On the host first, as the random streams of devices differ and every copy must be equal.
                    data = ndarray.zeros(self._shape, dtype=self._dtype, ctx=cpu())
                    desc = initializer.InitDesc(self.name, {"__init__": init})
                    initializer.create(default_init)(desc, data)
                self._init_impl(data, ctx)
            self._deferred_init = ()

    def _init_impl(self, data: NDArray, ctx: Sequence[Context]) -> None:
        contexts = list(ctx)
        arrays = [data.copyto(c) for c in contexts]
        self._grad = self._make_grad(arrays)
        # The arrays come last: who sees them without holding the lock finds everything else in place.
        self._ctx_list = contexts
        self._data = arrays

    def _make_grad(self, arrays: list[NDArray]) -> list[NDArray] | None:
        """Gradients of zeros, attached to `arrays`; None where none are kept."""
        if self._grad_req == "null":
            return None
        grads = [ndarray.zeros(a.shape, dtype=a.dtype, ctx=a.context) for a in arrays]
        autograd.mark_variables(arrays, grads, self._grad_req)
        return grads

    def _load_init(
        self,
        data: NDArray,
        ctx: Context | Sequence[Context] | None,
        cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:
        """Take a value read from a file, initializing the parameter if it was not.

        Raises AssertionError where shape, dtype (unless `cast_dtype`) or contexts do not agree.
        """
        where = f"Failed loading Parameter '{self.name}' from saved params:"
        if dtype_source not in ("current", "saved"):
            raise AssertionError(f"dtype_source must be 'current' or 'saved', got '{dtype_source}'")
        if self._shape is not None:
            fits = len(self._shape) == len(data.shape) and all(
                a in (0, b) for a, b in zip(self._shape, data.shape, strict=True)
            )
            if not fits:
                raise AssertionError(
                    f"{where} shape incompatible expected {self._shape} vs saved {tuple(data.shape)}"
                )
        self._shape = tuple(data.shape)
        if self._dtype is not None and np.dtype(self._dtype) != np.dtype(data.dtype):
            if not cast_dtype:
                raise AssertionError(
                    f"{where} dtype incompatible expected {self._dtype} vs saved {data.dtype}. "
                    "Set cast_dtype=True to cast the dtype of saved params."
                )
            if dtype_source == "current":
                data = data.astype(self._dtype)
            else:
                self.cast(data.dtype)
        contexts = None if ctx is None else _as_context_list(ctx)
        present = (
            self._ctx_list
            if self._data is not None
            else self._deferred_init[1]
            if self._deferred_init
            else None
        )
        if contexts is not None and present is not None and set(contexts) != set(present):
            raise AssertionError(
                f"Failed to load Parameter '{self.name}' on {contexts} because it was previous initialized "
                f"on {present}."
            )
        if self._data is None:
            with autograd.pause():
                self._init_impl(data, present or contexts or [cpu()])
        else:
            self.set_data(data)
        self._deferred_init = ()

    def set_data(self, data: Any) -> None:
        """Write `data` (an array of a fitting shape) into every context's copy.

        A deferred parameter takes it as its value to come. Raises AssertionError if the shape does not fit
        or the parameter was never initialized.
        """
        if not hasattr(data, "shape"):
            raise TypeError(
                f"Parameter '{self.name}': set_data takes an array of shape {self.shape}, given {type(data).__name__}"
            )
        self.shape = data.shape
        if self._data is None:
            if not self._deferred_init:
                raise AssertionError(f"Parameter '{self.name}' has not been initialized")
            value = data if isinstance(data, NDArray) else ndarray.array(data, dtype=self._dtype)
            self._deferred_init = (*self._deferred_init[:3], value)
            return
        for array in self._data:
            array[:] = data

    def reset_ctx(self, ctx: Context | Sequence[Context] | None) -> None:
        """Move to other contexts; several copies become their mean. Gradients start at zero there."""
        contexts = _as_context_list(ctx)
        if self._data is not None:
            data = self._reduce()
            with autograd.pause():
                self._init_impl(data, contexts)
        elif self._deferred_init:
            init, _, default_init, data = self._deferred_init
            self._deferred_init = (init, contexts, default_init, data)
        else:
            raise ValueError(
                f"Cannot reset context for Parameter '{self.name}' because it has not been initialized."
            )

    def cast(self, dtype: Any) -> None:
        """Change the dtype of value and gradient; a value not there yet is created in it."""
        self._dtype = dtype
        if self._data is None:
            return
        with autograd.pause():
            self._data = [array.astype(dtype) for array in self._data]
            if self._grad is not None:
                self._grad = [array.astype(dtype) for array in self._grad]
                autograd.mark_variables(self._data, self._grad, self._grad_req)

    # --- values ---

    def _check_and_get(self, arrays: list[NDArray] | None, ctx: Any) -> Any:
        """The array of `arrays` on `ctx`; all of them for `list`; the only or the current context's one for
        None.
        """
        if arrays is not None:
            if ctx is list:
                return arrays
            if ctx is None:
                if len(arrays) == 1:
                    return arrays[0]
                ctx = current_context()
            for present, array in zip(self._ctx_list or (), arrays, strict=True):
                if same_context(present, ctx):
                    return array
            raise RuntimeError(
                f"Parameter '{self.name}' was not initialized on context {ctx}. "
                f"It was only initialized on {self._ctx_list}."
            )
        if self._deferred_init:
            raise DeferredInitializationError(
                f"Parameter '{self.name}' has not been initialized yet because initialization was deferred. "
                "Actual initialization happens during the first forward pass. Please pass one batch of "
                "data through the network before accessing Parameters. You can also avoid deferred "
                "initialization by specifying in_units, num_features, etc., for network layers."
            )
        raise RuntimeError(
            f"Parameter '{self.name}' has not been initialized. Note that you should initialize parameters "
            "and create Trainer with Block.collect_params() instead of Block.params because the later does "
            "not include Parameters of nested child Blocks"
        )

    def data(self, ctx: Context | None = None) -> NDArray:
        """The value on `ctx` (default: the only one, or the current context's).

        Raises RuntimeError if it was never initialized or not on `ctx`, DeferredInitializationError if it
        still waits.
        """
        return self._check_and_get(self._data, ctx)

    def list_data(self) -> list[NDArray]:
        """The values on all contexts, in the order of `list_ctx`."""
        return self._check_and_get(self._data, list)

    def _check_has_grad(self) -> None:
        if self._data is not None and self._grad is None:
            raise RuntimeError(
                f"Cannot get gradient array for Parameter '{self.name}' because grad_req='{self._grad_req}'"
            )

    def grad(self, ctx: Context | None = None) -> NDArray:
        """The gradient on `ctx`; RuntimeError where there is none."""
        self._check_has_grad()
        return self._check_and_get(self._grad, ctx)

    def list_grad(self) -> list[NDArray]:
        """The gradients on all contexts, in the order of `list_ctx`."""
        self._check_has_grad()
        return self._check_and_get(self._grad, list)

    def list_ctx(self) -> list[Context]:
        """The contexts it lives on, or will once initialized."""
        if self._data is not None:
            return list(self._ctx_list or ())
        if self._deferred_init:
            return list(self._deferred_init[1])
        raise RuntimeError(f"Parameter '{self.name}' has not been initialized")

    def zero_grad(self) -> None:
        """Fill the gradients with zeros; without gradients there is nothing to do."""
        for array in self._grad or ():
            array[:] = 0

    def row_sparse_data(self, row_id: NDArray) -> NDArray:
        """Rows of a row_sparse parameter; none exists here, so RuntimeError names what to call."""
        raise RuntimeError(
            f"Cannot return a copy of Parameter {self.name} via row_sparse_data() because its storage type "
            f"is {self._stype}. Please use data() instead."
        )

    def list_row_sparse_data(self, row_id: NDArray) -> list[NDArray]:
        """As `row_sparse_data`, for all contexts."""
        raise RuntimeError(
            f"Cannot return copies of Parameter '{self.name}' on all contexts via list_row_sparse_data() "
            f"because its storage type is {self._stype}. Please use list_data() instead."
        )

    def _reduce(self) -> NDArray:
        """The value on the host: a copy of the only one, or the mean over contexts (their running
        statistics differ).
        """
        arrays = self.list_data()
        host = cpu()
        if len(arrays) == 1:
            return arrays[0].copyto(host)
        return ndarray.add_n(*[a.copyto(host) for a in arrays]) / len(arrays)

    def var(self) -> Any:
        """The symbolic variable of this parameter (needs `mxrs.symbol`)."""
        if self._var is None:
            try:
                from .. import symbol
            except ImportError:
                raise NotImplementedError(
                    f"Parameter '{self.name}': var() needs mxrs.symbol, not built yet"
                ) from None
            self._var = symbol.var(
                self.name,
                shape=self._shape,
                dtype=self._dtype,
                lr_mult=self.lr_mult,
                wd_mult=self.wd_mult,
                init=self.init,
                stype=self._stype,
            )
        return self._var

    def _set_trainer(self, trainer: Any) -> None:
        self._trainer = trainer


class Constant(Parameter):
    """A parameter that no training changes: its gradient is never kept.

    `value` is an array or anything `nd.array` accepts; shape and dtype are its own.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.value = value if isinstance(value, NDArray) else ndarray.array(value)
        super().__init__(
            name,
            grad_req="null",
            shape=self.value.shape,
            dtype=self.value.dtype,
            init=initializer.Constant(self.value),
        )

    @property
    def grad_req(self) -> str:
        """Always 'null'; another value is ignored with a warning."""
        return "null"

    @grad_req.setter
    def grad_req(self, req: str) -> None:
        if req != "null":
            warnings.warn(
                f'Constant parameter "{self.name}" does not support grad_req other than "null", and new '
                f'value "{req}" is ignored.',
                stacklevel=2,
            )


class _Deferred:
    """Stands for a deferred parameter in a block's first call, until an operator tells the shape.

    An operator that meets an object with a method `_mxrs_deferred_` works out the shape of that input from
    its other inputs and attributes, calls the method with it and goes on with the array it returns.
    """

    __slots__ = ("_ctx", "_param")

    def __init__(self, param: Parameter, ctx: Context) -> None:
        self._param = param
        self._ctx = ctx

    def __repr__(self) -> str:
        return f"<deferred {self._param!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        param = self._param
        raise AttributeError(
            f"Parameter '{param.name}' has shape {param.shape}, which its first use must complete; "
            f"'.{name}' cannot be taken before. Give the whole shape where the parameter is created, or use "
            "it in an operator first."
        )

    def _mxrs_deferred_(self, shape: Sequence[int]) -> NDArray:
        """Complete the shape, initialize, and return the value on the block's context.

        Raises ValueError if `shape` contradicts a known dimension or leaves one open.
        """
        param = self._param
        if not shape_is_known(shape):
            raise ValueError(
                f"Parameter '{param.name}': shape {tuple(shape)} told by its first use is not complete"
            )
        try:
            param.shape = shape
        except AssertionError:
            raise ValueError(
                f"Parameter '{param.name}' has shape {param.shape}, but its use needs {tuple(shape)}"
            ) from None
        param._finish_deferred_init()
        return param.data(self._ctx)


def __getattr__(name: str) -> Any:
    # ParameterDict lives in a module of its own, which imports this one.
    if name == "ParameterDict":
        from .parameter_dict import ParameterDict

        return ParameterDict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
