"""The array class.

`NDArray` adds to the core's C type what is pleasanter in Python: indexing, printing, copies between contexts,
views of other shapes, gradients, and the protocols of NumPy, DLPack and pickle. The signs (`+`, `==`, ...),
`shape`, `dtype`, `asnumpy` and one method per operator (`x.exp()`, `x.sum(axis=1)`) are the C type's own.
Functions that make arrays live in `creation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import _core
from ..base import MXNetError, MXNetMemoryError
from ..context import Context
from . import dlpack, indexing
from ._devices import context_of, device_of
from ._dtypes import _DTYPE_MX_TO_NP, _DTYPE_NP_TO_MX, NAMES, flag_of
from ._lookup import op
from .interop import array_ufunc, from_values, shared_view
from .shapes import reshaped, whole

__all__ = ["_DTYPE_MX_TO_NP", "_DTYPE_NP_TO_MX", "NDArray"]

_GRAD_REQ_MAP = {"null": 0, "write": 1, "add": 3}


def _rebuild(values: np.ndarray, device: tuple[int, int]) -> Any:
    """What pickle calls: an array of the values on the context they came from, or on the CPU if that is not
    here.
    """
    values = np.asarray(values, order="C")
    flag = flag_of(values.dtype)
    try:
        return from_values(values, flag, device)
    except MXNetMemoryError:
        raise
    except (MXNetError, ValueError):
        return from_values(values, flag, (1, 0))


class NDArray(_core.NDArrayBase):
    """A dense array of one element type on one context.

    Arrays are made by `mx.nd.array`, `zeros`, `ones` and their kin, and by operators. A call returns before
    its result is computed; `asnumpy`, `asscalar`, `wait_to_read` and printing wait for it.
    """

    __slots__ = ()
    __array_priority__ = 1000.0

    # Functions used as methods as they are: a call of x[i] costs no frame more than it must.
    __getitem__ = indexing.get_item
    __setitem__ = indexing.set_item
    __array_ufunc__ = array_ufunc

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """The device that the array lives on."""
        return context_of(self._device)

    ctx = context

    @property
    def stype(self) -> str:
        """The storage type: always 'default' (dense)."""
        return "default"

    @property
    def handle(self) -> NDArray:
        """The array itself: there is no other handle."""
        return self

    @property
    def writable(self) -> bool:
        """Always true."""
        return True

    @property
    def T(self) -> NDArray:
        """The array with its dimensions in reverse order (a copy)."""
        return op("transpose")(self)

    def __repr__(self) -> str:
        extents = "x".join(map(str, self.shape))
        return f"\n{self.asnumpy()}\n<{type(self).__name__} {extents} @{self.context}>"

    def __iter__(self) -> Iterator[NDArray]:
        for i in range(len(self)):
            yield self[i]

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).asnumpy().any())

    # -- one element as a Python number ----------------------------------------------------------------------

    def asscalar(self) -> Any:
        """The only element as a NumPy scalar; waits for it.

        Raises
        ------
        ValueError
            If there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError("The current array is not a scalar")
        return self.asnumpy().reshape(-1)[0]

    def item(self) -> Any:
        """The only element as a Python number; waits for it."""
        return self.asscalar().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.asnumpy().tolist()

    def __bool__(self) -> bool:
        if self.size == 0:
            return False
        if self.size != 1:
            raise ValueError("The truth value of an NDArray with multiple elements is ambiguous.")
        return bool(self.asscalar())

    def _only(self, what: str) -> Any:
        if self.size != 1:
            raise TypeError(
                f"only an array of one element can be converted to {what}; the shape is {self.shape}"
            )
        return self.asscalar()

    def __float__(self) -> float:
        return float(self._only("a float"))

    def __int__(self) -> int:
        return int(self._only("an int"))

    def __index__(self) -> int:
        if not np.issubdtype(self.dtype, np.integer):
            # Python also asks here when it tries `array * 'text'`.
            raise TypeError(
                "only integer arrays of one element can be an index, or say how often text or a list is repeated; "
                f"the dtype is {NAMES[self._type_flag]}"
            )
        return int(self._only("an index"))

    # -- copies ----------------------------------------------------------------------------------------------

    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The elements in another type.

        Parameters
        ----------
        dtype : str or type
            The element type.
        copy : bool
            False: the array itself where the type is the same.
        """
        flag = flag_of(np.float32 if dtype is None else dtype)
        if not copy and flag == self._type_flag:
            return self
        return op("Cast")(self, dtype=NAMES[flag])

    def copy(self) -> NDArray:
        """A copy on the same context."""
        return op("_copy")(self)

    def copyto(self, other: NDArray | Context) -> Any:
        """Copies the values into an array of the same shape, or makes a copy on a context.

        Returns
        -------
        NDArray
            The target; False if it is this very array.

        Raises
        ------
        TypeError
            If `other` is neither.
        MXNetError
            If the shapes differ.
        """
        if isinstance(other, NDArray):
            if other is self or _core.same_memory(self, other):
                warnings.warn("You are attempting to copy an array to itself", RuntimeWarning, stacklevel=2)
                return False
            if other.shape != self.shape:
                raise MXNetError(
                    f"copyto: an array of shape {self.shape} does not fit a target of shape {other.shape}"
                )
            indexing.store(other, self)
            return other
        if isinstance(other, Context):
            return _core.copy_to_context(self, (other.device_typeid, other.device_id))
        raise TypeError(
            f"copyto does not support type {type(other)}; an NDArray or a Context such as mx.cpu() is allowed"
        )

    def as_in_context(self, context: Context) -> NDArray:
        """The array itself if it lives on `context`, else a copy there."""
        device = device_of(context)
        if device is None or device == self._device:
            return self
        return _core.copy_to_context(self, device)

    as_in_ctx = as_in_context

    def __copy__(self) -> NDArray:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> NDArray:
        return _core.detach(self).copy()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (self.asnumpy(), self._device)

    # -- other shapes ----------------------------------------------------------------------------------------

    def reshape(self, *shape: Any, **kwargs: Any) -> NDArray:
        """The elements in another shape, as a view of the same memory.

        Parameters
        ----------
        shape : tuple of int, or ints
            Extents and the codes 0, -1, -2, -3, -4; see `mxrs.ndarray.shapes.reshaped`.
        reverse : bool
            Match the codes from the right.

        Raises
        ------
        ValueError
            If the shape does not fit the number of elements.
        """
        reverse = False
        if kwargs:
            reverse = bool(kwargs.pop("reverse", False))
            if "shape" in kwargs:
                shape = (kwargs.pop("shape"),)
            if kwargs:
                unknown = ", ".join(sorted(kwargs))
                raise TypeError(
                    f"Got unknown keywords in reshape: {unknown}. Accepted keyword arguments are 'shape' and "
                    "'reverse'."
                )
        if not shape:
            raise AssertionError("Shape must be provided.")
        if len(shape) == 1 and not hasattr(shape[0], "__index__"):
            shape = tuple(shape[0])
        codes = tuple(code if type(code) is int else whole(code) for code in shape)
        return _core.window(self, 0, reshaped(self.shape, codes, reverse))

    def expand_dims(self, axis: int, inplace: bool = False) -> NDArray:
        """A new dimension of 1 at `axis`; with `inplace` a view of the same memory."""
        if not inplace:
            return op("expand_dims")(self, axis=axis)
        ndim = self.ndim
        if not -ndim - 1 <= axis <= ndim:
            raise MXNetError(f"expand_dims: axis {axis} is out of bounds for an array of {ndim} dimensions")
        shape = list(self.shape)
        shape.insert(axis + ndim + 1 if axis < 0 else axis, 1)
        return _core.window(self, 0, shape)

    def squeeze(self, axis: int | tuple[int, ...] | None = None, inplace: bool = False) -> NDArray:
        """Without dimensions of 1 (all, or those at `axis`); with `inplace` a view of the same memory."""
        if not inplace:
            return op("squeeze")(self) if axis is None else op("squeeze")(self, axis=axis)
        shape = self.shape
        if axis is None:
            axes = [i for i, extent in enumerate(shape) if extent == 1]
        else:
            axes = [indexing.checked_index(int(a), 0, len(shape)) for a in np.atleast_1d(axis)]
        if any(shape[a] != 1 for a in axes):
            raise ValueError(f"squeeze: axis {axis} of shape {shape} is not of extent 1")
        return _core.window(self, 0, tuple(e for i, e in enumerate(shape) if i not in axes) or (1,))

    def flatten(self, inplace: bool = False) -> NDArray:
        """Two dimensions: the first one, and all others merged; with `inplace` a view of the same memory."""
        return self.reshape((0, -1)) if inplace and self.ndim > 1 else op("Flatten")(self)

    def broadcast_to(self, shape: Any) -> NDArray:
        """The array repeated to `shape`, which may have more dimensions; 0 keeps an extent.

        Raises
        ------
        ValueError
            If the shape cannot be broadcast to.
        """
        target = (int(shape),) if hasattr(shape, "__index__") else tuple(int(s) for s in shape)
        own = (1,) * (len(target) - self.ndim) + self.shape
        if len(own) == len(target):
            target = tuple(a if b == 0 else b for a, b in zip(own, target))
        if len(own) != len(target) or any(a not in (1, b) for a, b in zip(own, target)):
            raise ValueError(
                "operands could not be broadcast together with remapped shapes[original->remapped]: "
                f"{self.shape} and requested shape {target}"
            )
        source = self if own == self.shape else _core.window(self, 0, own)
        return op("broadcast_to")(source, shape=target)

    def broadcast_like(self, other: NDArray, **kwargs: Any) -> NDArray:
        """The array repeated to the shape of `other`; see the operator broadcast_like for the keywords."""
        return op("broadcast_like")(self, other, **kwargs) if kwargs else self.broadcast_to(other.shape)

    def split_v2(self, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False) -> Any:
        """See `mx.nd.split_v2`."""
        from .creation import split_v2

        return split_v2(self, indices_or_sections, axis, squeeze_axis)

    def slice_assign(self, rhs: NDArray, begin: Any, end: Any, step: Any) -> NDArray:
        """Writes `rhs` into the block `begin:end:step` of this array, which is returned."""
        return op("_slice_assign")(self, rhs, begin=begin, end=end, step=step, out=self)

    def slice_assign_scalar(self, value: float, begin: Any, end: Any, step: Any) -> NDArray:
        """Writes a number into the block `begin:end:step` of this array, which is returned."""
        return op("_slice_assign_scalar")(self, scalar=value, begin=begin, end=end, step=step, out=self)

    # -- gradients -------------------------------------------------------------------------------------------

    def attach_grad(self, grad_req: str = "write", stype: str | None = None) -> None:
        """Makes the array a variable: `backward` puts its gradient into `grad`, a new array of zeros.

        Parameters
        ----------
        grad_req : {'write', 'add', 'null'}
            Whether a gradient replaces the one before or is added to it, or is not computed.
        stype : str, optional
            Storage of the gradient; only 'default'.
        """
        if stype not in (None, "default"):
            raise NotImplementedError(f"attach_grad: gradients of storage type '{stype}' are not built yet")
        if not isinstance(grad_req, str):
            raise TypeError(f"attach_grad: grad_req is 'write', 'add' or 'null', given {grad_req!r}")
        grad = op("zeros_like")(_core.detach(self))
        _core.mark_variable(self, grad, grad_req)

    @property
    def grad(self) -> NDArray | None:
        """The gradient of a variable, or None."""
        return _core.grad_of(self)

    def detach(self) -> NDArray:
        """The same memory; no gradient flows through it."""
        return _core.detach(self)

    def backward(
        self, out_grad: NDArray | None = None, retain_graph: bool = False, train_mode: bool = True
    ) -> None:
        """Computes the gradients of this array by every variable it was computed from.

        Parameters
        ----------
        out_grad : NDArray, optional
            The head gradient, of this array's shape; ones if not given.
        retain_graph : bool
            Keep what was recorded for another `backward`.
        train_mode : bool
            Whether layers behave as in training.
        """
        if out_grad is not None and not isinstance(out_grad, NDArray):
            raise TypeError(
                f"backward: out_grad is an NDArray of shape {self.shape}, given {type(out_grad).__name__}"
            )
        _core.backward([self], [out_grad], retain_graph, train_mode)

    # -- storage types and the NumPy interface ---------------------------------------------------------------

    def tostype(self, stype: str) -> NDArray:
        """The array itself for 'default'; other storage types are not built yet."""
        if stype == "default":
            return self
        raise NotImplementedError(
            f"tostype: storage type '{stype}' is not built yet; sparse arrays are missing"
        )

    def asscipy(self) -> Any:
        """SciPy's matrices are sparse, and sparse arrays are not built yet."""
        raise NotImplementedError("asscipy: sparse arrays are not built yet")

    def as_nd_ndarray(self) -> NDArray:
        """The array itself."""
        return self

    def as_np_ndarray(self) -> Any:
        """Not built yet: the NumPy interface (mx.np) is missing."""
        raise NotImplementedError("as_np_ndarray: the NumPy interface (mx.np) is not built yet")

    # -- protocols -------------------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            view = shared_view(self)
            if dtype is not None and np.dtype(dtype) != view.dtype:
                raise ValueError(
                    f"an array of {view.dtype} cannot be seen as {np.dtype(dtype)} without a copy"
                )
            return view
        values = self.asnumpy()
        return values if dtype is None else values.astype(dtype, copy=False)

    def to_dlpack_for_read(self) -> Any:
        """A DLPack capsule that shares the memory; waits for the values."""
        return dlpack.export(self)

    def to_dlpack_for_write(self) -> Any:
        """A DLPack capsule that shares the memory; waits for everything, so that nobody reads it any more."""
        _core.waitall()
        return dlpack.export(self)

    def __dlpack__(self, **options: Any) -> Any:
        return dlpack.exported(self, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.device(self)


_core.set_result_class(NDArray)


def __getattr__(name: str) -> Any:
    # MXNet keeps the functions that make and combine arrays in this module too.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _function

    return _function(name, __name__)
