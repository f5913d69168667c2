"""`mx.nd.contrib`: the operators `_contrib_X` as X, control flow, and tests of elements.

Control flow on arrays is Python's own: the loops below call their bodies once per step, and autograd records
what they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import _core
from ..base import MXNetError
from ._devices import context_of
from ._lookup import absent, op, with_prefix
from .creation import array
from .ndarray import NDArray

globals().update(with_prefix("_contrib_"))

Tree = Any
"""An NDArray, or lists and tuples of them, nested."""


def _flat(tree: Tree, what: str) -> tuple[list[NDArray], Callable[[list[NDArray]], Tree]]:
    """The arrays of a tree in order, and what makes the tree of as many arrays again."""
    if isinstance(tree, NDArray):
        return [tree], lambda arrays: arrays.pop(0)
    if tree is None:
        return [], lambda _: []
    if not isinstance(tree, (list, tuple)):
        raise TypeError(
            f"{what}: an NDArray or a list of them is expected, a {type(tree).__name__} was given"
        )
    parts = [_flat(item, what) for item in tree]
    return [a for arrays, _ in parts for a in arrays], lambda arrays: [build(arrays) for _, build in parts]


def foreach(
    body: Callable[[Tree, Tree], tuple[Tree, Tree]], data: Tree, init_states: Tree
) -> tuple[Tree, Tree]:
    """Runs `body(slice, states) -> (output, states)` over the first axis of `data`.

    Parameters
    ----------
    body : callable
        Gets the i-th slice of (each array of) `data` and the states of the step before.
    data : NDArray or list of NDArray
        What to go through; all arrays have the same first extent.
    init_states : NDArray or list of NDArray
        The states before the first step.

    Returns
    -------
    (outputs, states)
        The outputs of all steps, stacked along a new first axis, and the states after the last step.
    """
    arrays, build = _flat(data, "foreach: data")
    _flat(init_states, "foreach: init_states")
    if not arrays:
        raise ValueError("foreach: data has no array to go through")
    steps = arrays[0].shape[0]
    for a in arrays:
        if a.shape[0] != steps:
            raise ValueError(f"foreach: the first extents of data differ: {[a.shape[0] for a in arrays]}")
    states, collected, rebuild = init_states, [], None
    for i in range(steps):
        outputs, states = body(build([a[i] for a in arrays]), states)
        flat, rebuild = _flat(outputs, "foreach: the output of body")
        collected.append(flat)
    if rebuild is None:
        return [], states
    return rebuild([op("stack")(*column, axis=0) for column in zip(*collected)]), states


def while_loop(
    cond: Callable[..., Any],
    func: Callable[..., tuple[Tree, Tree]],
    loop_vars: Tree,
    max_iterations: int | None = None,
) -> tuple[Tree, Tree]:
    """Runs `func(*loop_vars) -> (step output, new loop_vars)` while `cond(*loop_vars)` is true.

    Parameters
    ----------
    cond, func : callable
        The condition, a number or an array of one element, and the step.
    loop_vars : NDArray or list of NDArray
        What both get.
    max_iterations : int
        The most steps, and the first extent of the outputs.

    Returns
    -------
    (outputs, loop_vars)
        The step outputs stacked along a new first axis of extent `max_iterations` (the rows of steps that did
        not run are zeros), and the variables after the last step. Without a step there are no outputs.
    """
    if max_iterations is None:
        raise ValueError("max_iterations should be specified")
    limit = int(max_iterations)
    single = isinstance(loop_vars, NDArray)
    variables = [loop_vars] if single else list(loop_vars)
    if not variables:
        raise ValueError("while_loop: loop_vars has no array")
    rows: list[list[NDArray]] = []
    rebuild = None
    while len(rows) < limit and bool(_truth(cond(*variables), "while_loop: cond")):
        outputs, new = func(*variables)
        new = [new] if isinstance(new, NDArray) else list(new if new is not None else [])
        if len(new) != len(variables):
            raise ValueError(f"while_loop: func gave {len(new)} loop_vars; there are {len(variables)}")
        variables = new
        flat, rebuild = _flat(outputs, "while_loop: the output of func")
        if rows and [a.shape for a in flat] != [a.shape for a in rows[0]]:
            raise ValueError("while_loop: the shapes of the step outputs changed")
        rows.append(flat)
    final = variables[0] if single else variables
    if rebuild is None:
        return [], final
    stacked = []
    for column in zip(*rows):
        parts = list(column)
        if len(parts) < limit:
            parts += [op("zeros_like")(_core.detach(parts[0]))] * (limit - len(parts))
        stacked.append(op("stack")(*parts, axis=0))
    return rebuild(stacked), final


def _truth(value: Any, what: str) -> Any:
    if isinstance(value, NDArray):
        if value.size != 1:
            raise ValueError(f"{what}: one element is expected; the shape is {value.shape}")
        return value.asscalar()
    return value


def cond(pred: Any, then_func: Callable[[], Tree], else_func: Callable[[], Tree]) -> Tree:
    """`then_func()` if `pred`, a number or an array of one element, is true, else `else_func()`."""
    return then_func() if bool(_truth(pred, "cond: pred")) else else_func()


def isinf(data: NDArray) -> NDArray:
    """1 where an element is positive or negative infinity, else 0, in the type of `data`."""
    return op("abs")(data) == math.inf


def isnan(data: NDArray) -> NDArray:
    """1 where an element is not a number, else 0, in the type of `data`."""
    return op("broadcast_not_equal")(data, data)


def isfinite(data: NDArray) -> NDArray:
    """1 where an element is neither infinite nor not a number, else 0, in the type of `data`."""
    return (data == data) * (op("abs")(data) != math.inf)


def rand_zipfian(
    true_classes: NDArray, num_sampled: int, range_max: int, ctx: Any = None
) -> tuple[NDArray, NDArray, NDArray]:
    """Draws classes from an approximate Zipfian (log-uniform) distribution, as sampled softmax needs.

    Class c in [0, range_max) has the probability log((c + 2) / (c + 1)) / log(range_max + 1).

    Parameters
    ----------
    true_classes : NDArray
        Classes whose expected counts are wanted too.
    num_sampled : int
        How many classes to draw.
    range_max : int
        The number of classes.
    ctx : Context, optional
        Where the results live.

    Returns
    -------
    (samples, expected_true, expected_sampled)
        The drawn classes (int64), and how often each true and each drawn class is expected among
        `num_sampled`.
    """
    from . import random

    span = math.log(range_max + 1)
    where = ctx if ctx is not None else context_of(_core.current_context())
    draws = random.uniform(0, span, shape=(num_sampled,), dtype="float64", ctx=where)
    # The largest draw may round up to range_max itself; it wraps to the first class.
    samples = (op("exp")(draws) - 1).astype("int64") % range_max

    def expected(classes: NDArray) -> NDArray:
        values = classes.astype("float64")
        return op("log")((values + 2.0) / (values + 1.0)) / span * num_sampled

    return (
        samples,
        expected(true_classes.as_in_context(where)).astype("float32"),
        expected(samples).astype("float32"),
    )


def _scale(rescale_grad: Any, like: NDArray) -> NDArray:
    """The factor of the gradients as the array of one element that the AdamW operators take."""
    if isinstance(rescale_grad, NDArray):
        return rescale_grad.as_in_context(like.context)
    return array([float(rescale_grad)], ctx=like.context)


def adamw_update(
    weight: NDArray,
    grad: NDArray,
    mean: NDArray,
    var: NDArray,
    rescale_grad: Any,
    lr: float,
    eta: float,
    **options: Any,
) -> NDArray:
    """A step of AdamW; see the operator `_adamw_update`.

    `rescale_grad` is a number or an array of one element.
    """
    factor = _scale(rescale_grad, weight)
    return op("_adamw_update")(weight, grad, mean, var, factor, lr=lr, eta=eta, **options)


def mp_adamw_update(
    weight: NDArray,
    grad: NDArray,
    mean: NDArray,
    var: NDArray,
    weight32: NDArray,
    rescale_grad: Any,
    lr: float,
    eta: float,
    **options: Any,
) -> NDArray:
    """As `adamw_update` with float32 master weights; see the operator `_mp_adamw_update`."""
    factor = _scale(rescale_grad, weight)
    return op("_mp_adamw_update")(weight, grad, mean, var, weight32, factor, lr=lr, eta=eta, **options)


def _interleaved(*lists: list[NDArray]) -> list[NDArray]:
    """The first of each list, the second of each, ...: the order of the operators on many weights."""
    lengths = {len(items) for items in lists}
    if len(lengths) != 1:
        raise MXNetError(f"lists of equal length are expected, {sorted(lengths)} were given")
    return [item for group in zip(*lists) for item in group]


def multi_adamw_update(
    weights: list[NDArray],
    grads: list[NDArray],
    mean: list[NDArray],
    var: list[NDArray],
    rescale_grad: Any,
    lrs: Any,
    wds: Any,
    etas: Any,
    out: Any = None,
    name: str | None = None,
    size: int = 0,
    **options: Any,
) -> Any:
    """A step of AdamW on many weights; see the operator `_multi_adamw_update`."""
    data = [*_interleaved(weights, grads, mean, var), _scale(rescale_grad, weights[0])]
    count = size or len(weights)
    return op("_multi_adamw_update")(
        *data, lrs=lrs, wds=wds, etas=etas, out=out, num_weights=count, **options
    )


def multi_mp_adamw_update(
    weights: list[NDArray],
    grads: list[NDArray],
    mean: list[NDArray],
    var: list[NDArray],
    weights32: list[NDArray],
    rescale_grad: Any,
    lrs: Any,
    wds: Any,
    etas: Any,
    out: Any = None,
    name: str | None = None,
    size: int = 0,
    **options: Any,
) -> Any:
    """As `multi_adamw_update` with float32 master weights; see the operator `_multi_mp_adamw_update`."""
    data = [*_interleaved(weights, grads, mean, var, weights32), _scale(rescale_grad, weights[0])]
    count = size or len(weights)
    return op("_multi_mp_adamw_update")(
        *data, lrs=lrs, wds=wds, etas=etas, out=out, num_weights=count, **options
    )


def multi_lamb_update(
    weights: list[NDArray],
    grads: list[NDArray],
    mean: list[NDArray],
    var: list[NDArray],
    step_count: Any,
    lrs: Any,
    wds: Any,
    out: Any = None,
    num_tensors: int = 0,
    **options: Any,
) -> Any:
    """A step of LAMB on many weights; see the operator `_multi_lamb_update`."""
    data = _interleaved(weights, grads, mean, var)
    options.update(
        step_count=step_count, learning_rates=lrs, wds=wds, num_tensors=num_tensors or len(weights)
    )
    return op("_multi_lamb_update")(*data, out=out, **options)


def multi_mp_lamb_update(
    weights: list[NDArray],
    grads: list[NDArray],
    mean: list[NDArray],
    var: list[NDArray],
    weights32: list[NDArray],
    step_count: Any,
    lrs: Any,
    wds: Any,
    out: Any = None,
    num_tensors: int = 0,
    **options: Any,
) -> Any:
    """As `multi_lamb_update` with float32 master weights; see the operator `_multi_mp_lamb_update`."""
    data = _interleaved(weights, grads, mean, var, weights32)
    options.update(
        step_count=step_count, learning_rates=lrs, wds=wds, num_tensors=num_tensors or len(weights)
    )
    return op("_multi_mp_lamb_update")(*data, out=out, **options)


def __getattr__(name: str) -> Any:
    raise absent(__name__, name, f"_contrib_{name}")
