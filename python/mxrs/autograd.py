"""Recording computations and differentiating them.

Inside :func:`record` every operator call on an array that depends on a variable (see ``NDArray.attach_grad``) is kept;
:func:`backward` walks the calls backward and :func:`grad` gives gradients as arrays, which with ``create_graph=True``
are recorded in turn, to any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .ndarray import NDArray

__all__ = [
    "Function",
    "backward",
    "get_symbol",
    "grad",
    "is_recording",
    "is_training",
    "mark_variables",
    "pause",
    "predict_mode",
    "record",
    "set_recording",
    "set_training",
    "train_mode",
]

is_recording = _core.is_recording
is_training = _core.is_training


def set_recording(is_recording: bool) -> bool:
    """Sets whether calls are recorded and returns the setting before."""
    return _core.set_recording(bool(is_recording))


def set_training(train_mode: bool) -> bool:
    """Sets whether layers behave as in training and returns the setting before."""
    return _core.set_training(bool(train_mode))


class _Scope:
    """Sets the modes that are not None, and puts back what was."""

    __slots__ = ("_before", "_record", "_train")

    def __init__(self, record: bool | None, train: bool | None) -> None:
        self._record, self._train = record, train
        self._before: list[tuple[bool | None, bool | None]] = []

    def __enter__(self) -> None:
        record = None if self._record is None else _core.set_recording(self._record)
        train = None if self._train is None else _core.set_training(self._train)
        self._before.append((record, train))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        record, train = self._before.pop()
        if record is not None:
            _core.set_recording(record)
        if train is not None:
            _core.set_training(train)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _Scope(self._record, self._train):
                return function(*args, **kwargs)

        return wrapped


def record(train_mode: bool = True) -> _Scope:
    """Scope in which calls are recorded; layers train unless `train_mode` is False."""
    return _Scope(True, bool(train_mode))


def pause(train_mode: bool = False) -> _Scope:
    """Scope in which calls are not recorded."""
    return _Scope(False, bool(train_mode))


def train_mode() -> _Scope:
    """Scope in which layers behave as in training, recorded or not."""
    return _Scope(None, True)


def predict_mode() -> _Scope:
    """Scope in which layers behave as in inference, recorded or not."""
    return _Scope(None, False)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def mark_variables(
    variables: NDArray | Sequence[NDArray],
    gradients: NDArray | Sequence[NDArray],
    grad_reqs: str | Sequence[str] = "write",
) -> None:
    """Makes arrays variables whose gradients go into the given arrays.

    Parameters
    ----------
    variables, gradients : NDArray or list of NDArray
        Each gradient has its variable's shape.
    grad_reqs : {'write', 'add', 'null'} or list of them
    """
    xs, gs = _list(variables), _list(gradients)
    reqs = [grad_reqs] * len(xs) if isinstance(grad_reqs, str) else list(grad_reqs)
    if not len(xs) == len(gs) == len(reqs):
        raise ValueError(
            f"mark_variables: {len(xs)} variables, {len(gs)} gradients and {len(reqs)} grad_reqs"
        )
    for array in (*xs, *gs):
        if not isinstance(array, _core.NDArrayBase):
            raise TypeError(
                f"mark_variables: variables and gradients are NDArrays, given {type(array).__name__}"
            )
    for x, g, req in zip(xs, gs, reqs, strict=True):
        _core.mark_variable(x, g, req)


def _heads(call: str, heads: Any, head_grads: Any) -> tuple[list[NDArray], list[NDArray | None]]:
    outputs = _list(heads)
    for head in outputs:
        if not isinstance(head, _core.NDArrayBase):
            raise TypeError(f"{call}: heads are NDArrays, given {type(head).__name__}")
    if head_grads is None:
        return outputs, [None] * len(outputs)
    grads = _list(head_grads)
    if len(grads) != len(outputs):
        raise ValueError(f"{call}: heads and head_grads differ in number: {len(outputs)} and {len(grads)}")
    for one in grads:
        if one is not None and not isinstance(one, _core.NDArrayBase):
            raise TypeError(f"{call}: head_grads are NDArrays or None, given {type(one).__name__}")
    return outputs, grads


def backward(
    heads: NDArray | Sequence[NDArray],
    head_grads: NDArray | Sequence[NDArray | None] | None = None,
    retain_graph: bool = False,
    train_mode: bool = True,
) -> None:
    """Puts the gradients of the heads' sum into every variable that they depend on.

    Parameters
    ----------
    heads : NDArray or list of NDArray
        Results computed inside :func:`record`.
    head_grads : NDArray or list of NDArray or None
        Weights of the heads' elements, of the heads' shapes; ones by default.
    retain_graph : bool
        Keep the graph for another backward.
    train_mode : bool
        Whether layers' gradients are those of training.

    Raises
    ------
    MXNetError
        A head was not recorded, its graph was freed, or a head gradient has the wrong shape.
    """
    outputs, grads = _heads("backward", heads, head_grads)
    _core.backward(outputs, grads, retain_graph, train_mode)


def grad(
    heads: NDArray | Sequence[NDArray],
    variables: NDArray | Sequence[NDArray],
    head_grads: NDArray | Sequence[NDArray | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    train_mode: bool = True,
) -> list[NDArray]:
    """The gradients of the heads' sum with respect to `variables`; their ``.grad`` is left alone.

    Parameters
    ----------
    heads, head_grads, train_mode
        As in :func:`backward`.
    variables : NDArray or list of NDArray
    retain_graph : bool, optional
        Keep the graph; by default as `create_graph`.
    create_graph : bool
        Record the gradients, so that they can be differentiated again.

    Returns
    -------
    list of NDArray
        One per variable, also where there is only one.
    """
    outputs, grads = _heads("grad", heads, head_grads)
    retain = create_graph if retain_graph is None else retain_graph
    return _core.grad(outputs, grads, _list(variables), retain, create_graph, train_mode)


def get_symbol(x: NDArray) -> Any:
    """The recorded computation of `x` as a Symbol: not built yet."""
    raise NotImplementedError("autograd.get_symbol is not built yet")


class Function:
    """A computation with a gradient of its own.

    Subclasses define ``forward(self, *inputs)`` and ``backward(self, *head_grads)`` on arrays; ``save_for_backward``
    keeps arrays as ``self.saved_tensors``.

    >>> import mxrs as mx
    >>> class Cube(mx.autograd.Function):
    ...     def forward(self, x):
    ...         self.save_for_backward(x)
    ...         return x**3
    ...
    ...     def backward(self, dy):
    ...         (x,) = self.saved_tensors
    ...         return 3 * x**2 * dy
    """

    def __init__(self) -> None:
        self._used = False
        self.saved_tensors: tuple[NDArray, ...] = ()

    def save_for_backward(self, *args: NDArray) -> None:
        """Keeps arrays for :meth:`backward`."""
        self.saved_tensors = args

    def __call__(self, *inputs: NDArray) -> Any:
        if self._used:
            raise RuntimeError("an autograd.Function is called once; make a new one for each call")
        self._used = True
        with pause(train_mode=is_training()):
            results = self.forward(*inputs)
        if not is_recording():
            return results
        single = not isinstance(results, (list, tuple))
        # Outputs get handles of their own: an input that is passed through must not become its own result.
        outputs = [_core.detach(r) for r in ([results] if single else results)]

        def rule(*grads: NDArray) -> Any:
            with pause(train_mode=is_training()):
                return self.backward(*grads)

        _core.record_custom(list(inputs), outputs, rule)
        return outputs[0] if single else (tuple(outputs) if isinstance(results, tuple) else outputs)

    def forward(self, *inputs: NDArray) -> Any:
        """Computes the outputs from the inputs; not recorded."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined")

    def backward(self, *output_grads: NDArray) -> Any:
        """The gradient of each input from those of the outputs."""
        raise NotImplementedError(f"{type(self).__name__}.backward is not defined")
