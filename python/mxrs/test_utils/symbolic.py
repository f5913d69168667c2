"""Checks of symbols: values and gradients against expected ones, gradients against finite differences, one
context against another.

Everything goes through `Symbol.bind` and `simple_bind`. `location` is a list of arrays in the order of
`list_arguments()` or a dict by name, of NumPy arrays or NDArrays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import autograd
from .. import ndarray as nd
from ..context import Context
from ..ndarray import NDArray
from .compare import (
    assert_almost_equal,
    default_atols,
    default_numeric_eps,
    default_rtols,
    get_tolerance,
    get_tols,
)
from .samples import default_context

__all__ = [
    "check_consistency",
    "check_gluon_hybridize_consistency",
    "check_numeric_gradient",
    "check_speed",
    "check_symbolic_backward",
    "check_symbolic_forward",
    "numeric_grad",
    "same_symbol_structure",
    "simple_forward",
]

Arrays = dict[str, NDArray]


# ---- arguments ---------------------------------------------------------------------------------------------


def _as_ndarray(value: Any, ctx: Context, dtype: Any) -> NDArray:
    if isinstance(value, NDArray):
        return value.copyto(ctx)
    return nd.array(value, ctx=ctx, dtype=dtype if dtype is not None else np.asarray(value).dtype)


def _named(values: Any, names: Sequence[str], what: str, ctx: Context, dtype: Any) -> Arrays:
    """`values`, a dict or a list in the order of `names`, as a dict of NDArrays."""
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise ValueError(f"{what}: the symbol has {sorted(names)}, given are values for {sorted(values)}")
        return {name: _as_ndarray(values[name], ctx, dtype) for name in names}
    if len(values) != len(names):
        raise ValueError(f"{what}: the symbol has {list(names)}, given are {len(values)} values")
    return {name: _as_ndarray(value, ctx, dtype) for name, value in zip(names, values)}


def _aux(sym: Any, aux_states: Any, ctx: Context, dtype: Any) -> Arrays | None:
    names = sym.list_auxiliary_states()
    if aux_states is None:
        return None
    if isinstance(aux_states, Mapping):
        missing = [name for name in names if name not in aux_states]
        if missing or len(aux_states) > len(names):
            raise ValueError(f"aux_states: the symbol has {names}, given are {sorted(aux_states)}")
    return _named(aux_states, names, "aux_states", ctx, dtype)


def _requests(grad_req: Any, names: Sequence[str]) -> dict[str, str]:
    if isinstance(grad_req, str):
        return dict.fromkeys(names, grad_req)
    if isinstance(grad_req, Mapping):
        return {name: grad_req.get(name, "null") for name in names}
    return dict(zip(names, grad_req))


def _expected(values: Any, names: Sequence[str]) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else dict(zip(names, values))


# ---- running -----------------------------------------------------------------------------------------------


def simple_forward(sym: Any, ctx: Context | None = None, is_train: bool = False, **inputs: Any) -> Any:
    """The outputs of `sym` for inputs given by name, as NumPy arrays: a list, or the array of a single output."""
    ctx = ctx or default_context()
    args = {name: _as_ndarray(value, ctx, np.float32 if not hasattr(value, "dtype") else None)
            for name, value in inputs.items()}  # fmt: skip
    executor = sym.bind(ctx, args=args)
    executor.forward(is_train=is_train)
    outputs = [out.asnumpy() for out in executor.outputs]
    return outputs[0] if len(outputs) == 1 else outputs


def check_symbolic_forward(
    sym: Any,
    location: Any,
    expected: Any,
    rtol: Any = None,
    atol: Any = None,
    aux_states: Any = None,
    ctx: Context | None = None,
    equal_nan: bool = False,
    dtype: Any = np.float32,
) -> list[NDArray]:
    """Compare the outputs for `location` with `expected`, a list or a dict by output name; return the outputs."""
    ctx = ctx or default_context()
    args = _named(location, sym.list_arguments(), "location", ctx, dtype)
    executor = sym.bind(ctx, args=args, aux_states=_aux(sym, aux_states, ctx, dtype), grad_req="null")
    executor.forward(is_train=False)
    names = sym.list_outputs()
    wanted = _expected(expected, names)
    for name, output in zip(names, executor.outputs):
        if name in wanted:
            assert_almost_equal(
                wanted[name], output, rtol, atol, (f"EXPECTED_{name}", f"FORWARD_{name}"), equal_nan
            )
    return executor.outputs


def _backward(
    sym: Any, args: Arrays, aux: Arrays | None, requests: dict[str, str], heads: Any, ctx: Context
) -> tuple[Any, dict[str, np.ndarray]]:
    """Forward and backward; the executor, and what backward added to or put into each gradient."""
    start = {
        name: nd.array(np.random.normal(size=args[name].shape), ctx=ctx, dtype=args[name].dtype)
        for name, request in requests.items()
    }
    before = {name: array.asnumpy().astype("float64") for name, array in start.items()}
    grads = {name: start[name] for name, request in requests.items() if request != "null"}
    executor = sym.bind(ctx, args=args, args_grad=grads, grad_req=requests, aux_states=aux)
    executor.forward(is_train=True)
    executor.backward(heads(executor.outputs))
    written = {}
    for name, array in start.items():
        after = array.asnumpy().astype("float64")
        written[name] = after if requests[name] == "write" else after - before[name]
    return executor, written


def check_symbolic_backward(
    sym: Any,
    location: Any,
    out_grads: Any,
    expected: Any,
    rtol: Any = None,
    atol: Any = None,
    aux_states: Any = None,
    grad_req: Any = "write",
    ctx: Context | None = None,
    grad_stypes: Any = None,
    equal_nan: bool = False,
    dtype: Any = np.float32,
) -> Arrays:
    """Compare the gradients for `location` and the head gradients `out_grads` with `expected`.

    `expected` is a list in the order of the arguments or a dict of some of them; for a gradient request 'add'
    it is what is added, and an argument with 'null' must be left alone. Returns the gradients.
    """
    if grad_stypes:
        raise NotImplementedError("check_symbolic_backward: sparse gradients are not built yet in mxrs")
    ctx = ctx or default_context()
    names = sym.list_arguments()
    args = _named(location, names, "location", ctx, dtype)
    requests = _requests(grad_req, names)

    def heads(outputs: list[NDArray]) -> list[NDArray] | None:
        if out_grads is None:
            return None
        order = sym.list_outputs()
        given = [out_grads[n] for n in order] if isinstance(out_grads, Mapping) else list(out_grads)
        return [_as_ndarray(value, ctx, dtype) for value in given]

    executor, written = _backward(sym, args, _aux(sym, aux_states, ctx, dtype), requests, heads, ctx)
    tolerances = get_tols(np.empty(0, dtype), np.empty(0, dtype), rtol, atol)
    for name, wanted in _expected(expected, names).items():
        target = np.zeros(args[name].shape) if requests[name] == "null" else wanted
        labels = (f"EXPECTED_{name}", f"BACKWARD_{name}")
        assert_almost_equal(target, written[name], *tolerances, labels, equal_nan)
    return executor.grad_dict


# ---- finite differences ------------------------------------------------------------------------------------


def numeric_grad(
    executor: Any,
    location: Mapping[str, Any],
    aux_states: Mapping[str, Any] | None = None,
    eps: float = 1e-4,
    use_forward_train: bool = True,
    dtype: Any = np.float32,
) -> dict[str, np.ndarray]:
    """Gradients, by central differences of step `eps`, of the sum of the executor's outputs.

    One entry per array of `location`. The executor is left at `location`.
    """
    executor.forward(is_train=use_forward_train)
    ones = [np.ones(out.shape) for out in executor.outputs]
    return _differences(executor, location, list(location), ones, aux_states, eps, use_forward_train, dtype)


def _differences(
    executor: Any,
    location: Mapping[str, Any],
    names: Sequence[str],
    heads: Sequence[np.ndarray],
    aux_states: Mapping[str, Any] | None,
    eps: float,
    train: bool,
    dtype: Any,
) -> dict[str, np.ndarray]:
    base = {
        name: (value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)).astype(dtype)
        for name, value in location.items()
    }
    aux = {
        name: value if isinstance(value, NDArray) else nd.array(value)
        for name, value in (aux_states or {}).items()
    }

    def value_at(name: str, point: np.ndarray) -> float:
        executor.arg_dict[name][:] = point
        for key, state in aux.items():
            # A forward in training mode moves the statistics; each starts from the same.
            state.copyto(executor.aux_dict[key])
        executor.forward(is_train=train)
        return sum(
            float(np.vdot(head, out.asnumpy().astype("float64")))
            for head, out in zip(heads, executor.outputs)
        )

    for name, point in base.items():
        executor.arg_dict[name][:] = point
    result = {}
    for name in names:
        gradient = np.zeros(base[name].shape, dtype=dtype)
        for index in np.ndindex(base[name].shape):
            moved = base[name].copy()
            moved[index] += eps / 2
            above = value_at(name, moved)
            moved[index] -= eps
            gradient[index] = (above - value_at(name, moved)) / eps
        executor.arg_dict[name][:] = base[name]
        result[name] = gradient
    return result


def check_numeric_gradient(
    sym: Any,
    location: Any,
    aux_states: Any = None,
    numeric_eps: float | None = None,
    rtol: Any = None,
    atol: Any = None,
    grad_nodes: Any = None,
    use_forward_train: bool = True,
    ctx: Context | None = None,
    grad_stype_dict: Any = None,
    dtype: Any = np.float32,
) -> None:
    """Compare the gradients of `sym` with central differences, under random head gradients.

    `grad_nodes` names the arguments to look at (all by default), or gives a gradient request by name. The step
    is `numeric_eps`, by default that of `default_numeric_eps` for `dtype`.
    """
    if dtype not in (np.float16, np.float32, np.float64):
        raise AssertionError(
            f"check_numeric_gradient: dtype must be float16, float32 or float64, got {dtype}"
        )
    if grad_stype_dict:
        raise NotImplementedError("check_numeric_gradient: sparse gradients are not built yet in mxrs")
    ctx = ctx or default_context()
    names = sym.list_arguments()
    args = _named(location, names, "location", ctx, dtype)
    aux = _aux(sym, aux_states, ctx, dtype)
    if grad_nodes is None:
        requests = dict.fromkeys(names, "write")
    elif isinstance(grad_nodes, Mapping):
        requests = dict(grad_nodes)
    else:
        requests = dict.fromkeys(grad_nodes, "write")
    eps = get_tolerance(np.empty(0, dtype), numeric_eps, default_numeric_eps())
    heads: list[np.ndarray] = []

    def draw(outputs: list[NDArray]) -> list[NDArray]:
        # Away from zero, so that no output goes unseen.
        heads.extend(np.asarray(np.random.uniform(0.5, 1.5, size=out.shape), dtype) for out in outputs)
        return [nd.array(head, ctx=ctx, dtype=dtype) for head in heads]

    saved = {name: array.asnumpy() for name, array in (aux or {}).items()}
    executor, written = _backward(sym, args, aux, {n: requests.get(n, "null") for n in names}, draw, ctx)
    start = {name: args[name].asnumpy() for name in names}
    numeric = _differences(executor, start, list(requests), heads, saved, eps, use_forward_train, dtype)
    tolerances = (
        get_tolerance(np.empty(0, dtype), rtol, default_rtols()),
        get_tolerance(np.empty(0, dtype), atol, default_atols()),
    )
    for name, request in requests.items():
        if request not in ("write", "add", "null"):
            raise ValueError(f"check_numeric_gradient: unknown gradient request {request!r} for {name}")
        wanted = np.zeros_like(numeric[name]) if request == "null" else numeric[name]
        assert_almost_equal(wanted, written[name], *tolerances, (f"NUMERICAL_{name}", f"BACKWARD_{name}"))


# ---- one against another -----------------------------------------------------------------------------------


def check_consistency(
    sym: Any,
    ctx_list: Sequence[Mapping[str, Any]],
    scale: float = 1.0,
    grad_req: Any = "write",
    arg_params: Mapping[str, Any] | None = None,
    aux_params: Mapping[str, Any] | None = None,
    rtol: Any = None,
    atol: Any = None,
    raise_on_err: bool = True,
    ground_truth: Mapping[str, Any] | None = None,
    equal_nan: bool = False,
    use_uniform: bool = False,
    rand_type: Any = np.float64,
) -> dict[str, NDArray]:
    """Compare outputs and gradients of a symbol over contexts and dtypes, from the same random arguments.

    Each entry of `ctx_list` is what `simple_bind` takes: 'ctx', shapes by name, and optionally 'type_dict'.
    `sym` may be a list with a symbol per entry. The entry of the finest dtype is the truth unless
    `ground_truth` is given; arguments are normal of width `scale`, or uniform in [-scale, scale), except those in
    `arg_params`. Returns the truth; raises AssertionError, or prints without `raise_on_err`, where one differs.
    """
    if len(ctx_list) < 2 and ground_truth is None:
        raise AssertionError("check_consistency: at least two entries in ctx_list are needed to compare")
    symbols = list(sym) if isinstance(sym, list | tuple) else [sym] * len(ctx_list)
    executors = [s.simple_bind(grad_req=grad_req, **dict(entry)) for s, entry in zip(symbols, ctx_list)]
    values: dict[str, np.ndarray] = {}
    for name, array in executors[0].arg_dict.items():
        if arg_params and name in arg_params:
            values[name] = _host(arg_params[name])
        elif use_uniform:
            values[name] = np.asarray(np.random.uniform(-scale, scale, size=array.shape)).astype(rand_type)
        else:
            values[name] = np.asarray(np.random.normal(size=array.shape, scale=scale)).astype(rand_type)
    states = {name: _host((aux_params or {}).get(name, 0)) for name in executors[0].aux_dict}
    finest = max(range(len(executors)), key=lambda i: np.dtype(executors[i].outputs[0].dtype).itemsize)
    backward = grad_req != "null"
    results = [_run(exe, values, states, backward) for exe in executors]
    truth = dict(ground_truth) if ground_truth is not None else results[finest]
    for i, result in enumerate(results):
        if i == finest and ground_truth is None:
            continue
        for name, array in result.items():
            if name not in truth:
                continue
            try:
                assert_almost_equal(array, truth[name], rtol, atol, (f"{name}[{i}]", "truth"), equal_nan)
            except AssertionError as error:
                if raise_on_err:
                    raise
                print(f"check_consistency: {name} of entry {i} differs: {error}")
    return {name: value if isinstance(value, NDArray) else nd.array(value) for name, value in truth.items()}


def _host(value: Any) -> np.ndarray:
    return value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)


def _run(
    executor: Any, values: dict[str, np.ndarray], states: dict[str, np.ndarray], backward: bool
) -> dict[str, np.ndarray]:
    """Outputs and gradients of one executor, heads being ones."""
    for name, value in values.items():
        # Rounding to the coarser dtype is part of what is compared.
        executor.arg_dict[name][:] = value.astype(executor.arg_dict[name].dtype)
    for name, value in states.items():
        executor.aux_dict[name][:] = value
    executor.forward(is_train=backward)
    result = {name: out.asnumpy() for name, out in executor.output_dict.items()}
    if backward:
        executor.backward([nd.ones(out.shape, ctx=out.context, dtype=out.dtype) for out in executor.outputs])
        result.update({n: g.asnumpy() for n, g in executor.grad_dict.items() if g is not None})
    return result


def check_speed(
    sym: Any,
    location: Mapping[str, Any] | None = None,
    ctx: Context | None = None,
    N: int = 20,
    grad_req: Any = None,
    typ: str = "whole",
    **kwargs: Any,
) -> float:
    """Seconds per run of `sym`, over `N` runs after a first: 'whole' with backward, 'forward' without.

    `location` gives values by name; without it, `kwargs` give shapes for `simple_bind` and values are normal.
    """
    if typ not in ("whole", "forward"):
        raise ValueError(f"check_speed: typ can only be 'whole' or 'forward', got {typ!r}")
    ctx = ctx or default_context()
    request = grad_req or ("write" if typ == "whole" else "null")
    shapes = kwargs if location is None else {name: _host(value).shape for name, value in location.items()}
    executor = sym.simple_bind(ctx, grad_req=request, **shapes)
    for name, array in executor.arg_dict.items():
        given = (location or {}).get(name)
        array[:] = np.random.normal(size=array.shape) if given is None else given

    def once() -> None:
        executor.forward(is_train=typ == "whole")
        if typ == "whole":
            executor.backward(executor.outputs)

    once()
    nd.waitall()
    start = time.perf_counter()
    for _ in range(N):
        once()
    nd.waitall()
    return (time.perf_counter() - start) / N


def same_symbol_structure(sym1: Any, sym2: Any) -> bool:
    """Whether two symbols are the same operators connected in the same way, whatever their names."""

    def shape_of(sym: Any) -> list[Any]:
        graph = json.loads(sym.tojson())
        return [(node["op"], [entry[:2] for entry in node["inputs"]]) for node in graph["nodes"]]

    return shape_of(sym1) == shape_of(sym2)


def check_gluon_hybridize_consistency(
    net_builder: Callable[[], Any],
    data_l: Sequence[NDArray],
    numpy_func: Callable[..., Any] | None = None,
    test_grad: bool = True,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> None:
    """Compare a block's outputs and gradients without and with `hybridize()`, and with `numpy_func`'s outputs.

    `net_builder` makes a fresh block at each call; the second one gets the parameters of the first.
    """
    first: dict[str, Any] = {}
    for hybridized in (False, True):
        net = net_builder()
        net.initialize()
        inputs = [array.copy() for array in data_l]
        for array in inputs:
            array.attach_grad()
        if hybridized:
            net(*inputs)
            for param, value in zip(net.collect_params().values(), first["params"]):
                param.set_data(value)
            net.hybridize()
        with autograd.record(train_mode=False):
            output = net(*inputs)
        found: dict[str, Any] = {"outputs": [output]}
        if test_grad:
            output.backward()
            params = [p for p in net.collect_params().values() if p.grad_req != "null"]
            found["grads"] = [array.grad for array in inputs] + [p.grad() for p in params]
        if not hybridized:
            first = found
            first["params"] = [p.data().copy() for p in net.collect_params().values()]
            if numpy_func is not None:
                assert_almost_equal(output, numpy_func(*[a.asnumpy() for a in data_l]), rtol, atol)
            continue
        for kind in found:
            for index, (eager, traced) in enumerate(zip(first[kind], found[kind])):
                names = (f"{kind}[{index}] eager", f"{kind}[{index}] hybridized")
                assert_almost_equal(eager, traced, rtol, atol, names)
