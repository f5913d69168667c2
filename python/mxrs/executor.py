"""`Executor`: a Symbol bound to arrays, made by `Symbol.bind` and `Symbol.simple_bind`.

The graph is planned once (see `docs/architecture.md`); `forward` and `backward` each hand one operation to the engine
and return. Arguments, gradients, auxiliary states and outputs are the same NDArrays for the executor's whole life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from . import ndarray as nd
from ._placed import Placed
from .base import MXNetError, check_budget
from .context import Context
from .ndarray import NDArray

__all__ = ["Executor"]

_REQS = ("null", "write", "add", "inplace")


def _ordered(what: str, names: Sequence[str], given: Any, missing_ok: bool) -> list[NDArray | None]:
    """The arrays of `given`, a list or a dict, in the order of `names`.

    Raises ValueError for a missing or surplus entry, TypeError for what is no NDArray.
    """
    if isinstance(given, Mapping):
        arrays = [given.get(name) for name in names]
        for name, array in zip(names, arrays, strict=True):
            if array is None and not missing_ok:
                raise ValueError(f"key '{name}' is missing in '{what}'")
    elif isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ValueError(
                f"Length of {what} does not match the number of arguments: {len(given)} given, {len(names)} needed"
            )
        arrays = list(given)
    else:
        raise TypeError(f"{what} must be a list or a dict of NDArrays, not {type(given).__name__}")
    for name, array in zip(names, arrays, strict=True):
        if array is not None and not isinstance(array, NDArray):
            raise TypeError(f"{what}: '{name}' must be an NDArray, not {type(array).__name__}")
    return arrays


def _requests(names: Sequence[str], grad_req: Any) -> list[str]:
    """`grad_req` (one word, a list, or a dict that leaves out what needs no gradient) for every argument."""
    if isinstance(grad_req, str):
        reqs = [grad_req] * len(names)
    elif isinstance(grad_req, list | tuple):
        if len(grad_req) != len(names):
            raise ValueError(f"grad_req has {len(grad_req)} entries for {len(names)} arguments")
        reqs = list(grad_req)
    elif isinstance(grad_req, Mapping):
        reqs = [grad_req.get(name, "null") for name in names]
    else:
        raise TypeError(f"grad_req must be a str, a list or a dict, not {type(grad_req).__name__}")
    for name, req in zip(names, reqs, strict=True):
        if req not in _REQS:
            raise ValueError(f"grad_req of '{name}' is {req!r}; 'write', 'add' and 'null' are allowed")
    return reqs


def _groups(group2ctx: Any) -> dict[str, Context]:
    """`group2ctx` checked: a dict from the names of ctx_groups to one Context each."""
    if not group2ctx:
        return {}
    if not isinstance(group2ctx, Mapping):
        raise TypeError(
            "group2ctx must be a dict that gives each ctx_group one Context, as in {'dev1': mx.cpu(0)}, not "
            f"{type(group2ctx).__name__}; to run copies of the network on several contexts use Module(context=[...])"
        )
    for group, ctx in group2ctx.items():
        if not isinstance(ctx, Context):
            raise TypeError(
                f"group2ctx['{group}'] must be one Context, not {type(ctx).__name__}: a group of layers lives in one "
                "place; to run copies of the network on several contexts use Module(context=[...])"
            )
    return dict(group2ctx)


class _Placement:
    """Where the arrays of a symbol live: on the bound context, or where their ctx_group was sent."""

    def __init__(self, symbol: Any, ctx: Context, group2ctx: Any) -> None:
        self._ctx = ctx
        self._groups = _groups(group2ctx)
        self._attrs = symbol.attr_dict() if self._groups else {}
        self._symbol = symbol

    def of(self, name: str) -> Context:
        return self.of_group(self._attrs.get(name, {}).get("ctx_group"))

    def of_group(self, group: str | None) -> Context:
        return self._groups.get(group, self._ctx) if group else self._ctx

    def outputs(self) -> list[Context]:
        count = len(self._symbol.list_outputs())
        if not self._groups:
            return [self._ctx] * count
        return [self.of(self._symbol[i].name) for i in range(count)]


def _context(ctx: Any) -> Context:
    if not isinstance(ctx, Context):
        raise TypeError(f"ctx must be a Context such as mx.cpu(), not {type(ctx).__name__}")
    return ctx


class Executor:
    """A bound Symbol. Not made directly: see `Symbol.bind` and `Symbol.simple_bind`.

    Attributes
    ----------
    arg_arrays, grad_arrays, aux_arrays : list of NDArray
        Arguments, their gradients (None where none is computed) and auxiliary states, in the order of
        `Symbol.list_arguments()` and `Symbol.list_auxiliary_states()`.
    outputs : list of NDArray
        The results of the last `forward`.
    """

    def __init__(
        self,
        symbol: Any,
        placement: _Placement,
        ctx: Context,
        args: list[NDArray],
        grads: list[NDArray | None],
        reqs: list[str],
        aux: list[NDArray],
        group2ctx: Any = None,
        memory_budget: int | str | None = None,
    ) -> None:
        self._symbol = symbol
        self._memory_budget = check_budget(memory_budget)
        self._ctx = ctx
        self._group2ctx = group2ctx
        self._placement = placement
        self._grad_req = reqs
        self.arg_arrays = args
        self.grad_arrays: list[NDArray | None] = [
            g if r != "null" else None for g, r in zip(grads, reqs, strict=True)
        ]
        self.aux_arrays = aux
        self._monitor: Callable[[bytes, NDArray], None] | None = None
        self._monitor_all = False
        self._watched: Any = None
        self._build(symbol, len(symbol.list_outputs()))

    def _build(self, symbol: Any, own: int) -> None:
        contexts = [(c.device_typeid, c.device_id) for c in self._placement.outputs()]
        self._own = own
        held = [a for a in (*self.arg_arrays, *self.grad_arrays, *self.aux_arrays) if a is not None]
        if Placed.suits([self._ctx, *self._placement.outputs(), *(a.context for a in held)]):
            self._handle: Any = self._placed(symbol, own)
        else:
            self._handle = _core.ExecutorBase(
                symbol,
                self.arg_arrays,
                self.grad_arrays,
                self._grad_req,
                self.aux_arrays,
                contexts,
                own,
                self._memory_budget,
            )
        self._outputs = self._handle._outputs()

    def _placed(self, symbol: Any, own: int) -> Placed:
        """The graph in parts on several devices; MXNetError where nobody asked for several."""
        if not self._group2ctx:
            names = self._symbol.list_arguments()
            named = [*zip(names, self.arg_arrays, strict=True)]
            named += [
                (f"gradient of {n}", g) for n, g in zip(names, self.grad_arrays, strict=True) if g is not None
            ]
            named += zip(self._symbol.list_auxiliary_states(), self.aux_arrays, strict=True)
            name, array = next((name, array) for name, array in named if array.context != self._ctx)
            raise MXNetError(
                f"bind: '{name}' is on {array.context}, the executor on {self._ctx}; move it with as_in_context, or place "
                "parts of the graph by group2ctx"
            )
        return Placed(
            symbol,
            self.arg_arrays,
            self.grad_arrays,
            self._grad_req,
            self.aux_arrays,
            self._placement.of_group,
            own,
            self._memory_budget,
        )

    # --- making one ---

    @staticmethod
    def _bind(
        symbol: Any,
        ctx: Any,
        args: Any,
        args_grad: Any = None,
        grad_req: Any = "write",
        aux_states: Any = None,
        group2ctx: Any = None,
        shared_exec: Executor | None = None,
        memory_budget: int | str | None = None,
    ) -> Executor:
        """What `Symbol.bind` does."""
        ctx = _context(ctx)
        names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
        arrays = _ordered("args", names, args, missing_ok=False)
        grads = _ordered("args_grad", names, args_grad or {}, missing_ok=True)
        aux = _ordered("aux_states", aux_names, aux_states or {}, missing_ok=False)
        reqs = _requests(names, grad_req)
        placement = _Placement(symbol, ctx, group2ctx)
        # Shapes and types that contradict the graph are told here, with the argument's name.
        given = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
        symbol._infer_shape({n: a.shape for n, a in given.items()}, {n: a.dtype for n, a in given.items()})
        return Executor(
            symbol,
            placement,
            ctx,
            arrays,  # type: ignore[arg-type]
            grads,
            reqs,
            aux,  # type: ignore[arg-type]
            group2ctx,
            memory_budget,
        )

    @staticmethod
    def _simple_bind(
        symbol: Any,
        ctx: Any,
        grad_req: Any = "write",
        type_dict: Mapping[str, Any] | None = None,
        stype_dict: Mapping[str, str] | None = None,
        group2ctx: Any = None,
        shared_arg_names: Sequence[str] | None = None,
        shared_exec: Executor | None = None,
        shared_buffer: dict[str, NDArray] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        memory_budget: int | str | None = None,
    ) -> Executor:
        """What `Symbol.simple_bind` does: infers shapes and types, and makes the arrays."""
        ctx = _context(ctx)
        for name, stype in (stype_dict or {}).items():
            if stype not in (None, "default"):
                raise NotImplementedError(f"simple_bind: storage type '{stype}' of '{name}' is not built yet")
        names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
        reqs = _requests(names, grad_req)
        shapes = {k: tuple(v) for k, v in (shapes or {}).items()}
        given_types = {k: v for k, v in (type_dict or {}).items() if v is not None}
        arg_shapes, _, aux_shapes, complete = symbol._infer_shape(shapes, given_types)
        if not complete:
            open_ = [f"{n}: {s or None}" for n, s in zip(names, arg_shapes, strict=True) if not s or 0 in s]
            raise RuntimeError(
                "simple_bind error. The shapes of these arguments do not follow from what was given "
                f"({shapes}); give them too: {', '.join(open_)}"
            )
        types, aux_types = types_of(symbol, type_dict)
        placement = _Placement(symbol, ctx, group2ctx)
        maker = _Maker(placement, shared_exec, shared_arg_names, shared_buffer)
        args = [maker.arg(n, s, t) for n, s, t in zip(names, arg_shapes, types, strict=True)]
        grads = [
            maker.grad(n, s, t) if r != "null" else None
            for n, s, t, r in zip(names, arg_shapes, types, reqs, strict=True)
        ]
        aux = [maker.aux(n, s, t) for n, s, t in zip(aux_names, aux_shapes, aux_types, strict=True)]
        return Executor(symbol, placement, ctx, args, grads, reqs, aux, group2ctx, memory_budget)

    # --- running ---

    def forward(self, is_train: bool = False, **kwargs: Any) -> list[NDArray]:
        """Computes and returns the outputs.

        Parameters
        ----------
        is_train : bool
            Whether layers behave as in training, and gradients may be asked for.
        **kwargs
            New values for arguments, by name, copied into `arg_dict`.

        Raises
        ------
        TypeError
            No argument has that name.
        ValueError
            A value has another shape than its argument.
        """
        if kwargs:
            arguments = self.arg_dict
            for name, value in kwargs.items():
                target = arguments.get(name)
                if target is None:
                    raise TypeError(f"Unknown argument {name}; there are {', '.join(arguments)}")
                if not isinstance(value, NDArray | np.ndarray):
                    raise ValueError(
                        f"Argument {name} must be an NDArray or a numpy array, not {type(value).__name__}"
                    )
                if target.shape != value.shape:
                    raise ValueError(
                        f"Shape not match! Argument {name}, need: {target.shape}, received: {value.shape}"
                    )
                target[:] = value
        self._handle._forward(bool(is_train))
        if self._monitor is not None:
            self._report(self._monitor)
        return self.outputs

    def backward(self, out_grads: Any = None, is_train: bool = True) -> None:
        """Computes the gradients of the last forward pass into `grad_arrays`.

        Parameters
        ----------
        out_grads : NDArray, list or dict of NDArray, optional
            Gradients of the outputs. Outputs of losses need none.

        Raises
        ------
        MXNetError
            An output that is no loss has no gradient, or `forward` was not called.
        """
        if out_grads is None:
            heads: list[NDArray | None] = []
        elif isinstance(out_grads, NDArray):
            heads = [out_grads]
        elif isinstance(out_grads, Mapping):
            heads = [out_grads.get(name) for name in self._symbol.list_outputs()]
        elif isinstance(out_grads, list | tuple):
            heads = list(out_grads)
        else:
            heads = [out_grads]
        for head in heads:
            if head is not None and not isinstance(head, NDArray):
                raise TypeError(f"out_grads must be NDArrays, not {type(head).__name__}")
        # As in MXNet, head gradients may come from anywhere.
        placed = [
            head if head is None or head.context == output.context else head.as_in_context(output.context)
            for head, output in zip(heads, self.outputs, strict=False)
        ]
        self._handle._backward([*placed, *heads[len(placed) :]])

    @property
    def outputs(self) -> list[NDArray]:
        return list(self._outputs[: self._own])

    # --- looking at it ---

    @property
    def arg_dict(self) -> dict[str, NDArray]:
        """Arguments by name."""
        return self._by_name("arguments", self._symbol.list_arguments(), self.arg_arrays)

    @property
    def grad_dict(self) -> dict[str, NDArray | None]:
        """Gradients by the name of their argument."""
        return self._by_name("arguments", self._symbol.list_arguments(), self.grad_arrays)

    @property
    def aux_dict(self) -> dict[str, NDArray]:
        """Auxiliary states by name."""
        return self._by_name("auxiliary states", self._symbol.list_auxiliary_states(), self.aux_arrays)

    @property
    def output_dict(self) -> dict[str, NDArray]:
        """Outputs by name."""
        return self._by_name("outputs", self._symbol.list_outputs(), self.outputs)

    @staticmethod
    def _by_name(what: str, names: list[str], arrays: Sequence[Any]) -> dict[str, Any]:
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise ValueError(f"Duplicate names among the {what}: {', '.join(twice)}")
        return dict(zip(names, arrays, strict=True))

    def __getitem__(self, name: str) -> NDArray:
        """An argument, auxiliary state or output by name: `executor['A'][:] = x`."""
        if not isinstance(name, str):
            raise TypeError(f"an Executor is indexed by name, not by {type(name).__name__}")
        for found in (self.arg_dict, self.aux_dict, self.output_dict):
            if name in found:
                return found[name]
        known = [
            *self._symbol.list_arguments(),
            *self._symbol.list_auxiliary_states(),
            *self._symbol.list_outputs(),
        ]
        raise KeyError(f"no argument, state or output is named '{name}'; there are {', '.join(known)}")

    def debug_str(self) -> str:
        """The plan: one line per step, with places in memory."""
        return self._handle._describe()

    def _working_memory(self) -> int:
        """Bytes that the plan needs beside the arrays that can be seen."""
        return self._handle._working_memory()

    # --- changing it ---

    def copy_params_from(
        self,
        arg_params: Mapping[str, NDArray],
        aux_params: Mapping[str, NDArray] | None = None,
        allow_extra_params: bool = False,
    ) -> None:
        """Copies values into arguments and auxiliary states of the same names.

        Raises
        ------
        ValueError
            A name is not there, and `allow_extra_params` is not set; or a shape differs.
        """
        for what, targets, values in (
            ("arguments", self.arg_dict, arg_params),
            ("auxiliary states", self.aux_dict, aux_params or {}),
        ):
            if not isinstance(values, Mapping):
                raise TypeError(
                    f"copy_params_from: a dict of NDArrays is expected, given {type(values).__name__}"
                )
            for name, value in values.items():
                target = targets.get(name)
                if target is None:
                    if allow_extra_params:
                        continue
                    raise ValueError(f'Find name "{name}" that is not in the {what}')
                if target.shape != value.shape:
                    raise ValueError(
                        f"'{name}' has shape {target.shape}; a value of shape {value.shape} was given"
                    )
                value.astype(target.dtype, copy=False).copyto(target)

    def reshape(
        self, partial_shaping: bool = False, allow_up_sizing: bool = False, **kwargs: Any
    ) -> Executor:
        """An executor for other input shapes that shares its arrays with this one.

        Parameters
        ----------
        partial_shaping : bool
            Arguments that are not named may change shape too.
        allow_up_sizing : bool
            Arrays may be made anew where this executor's are too small.

        Raises
        ------
        MXNetError
            A shape changes that must not, or an array is too small.
        """
        known = {k: tuple(v) for k, v in kwargs.items()}
        arg_shapes, _, aux_shapes = self._symbol.infer_shape(**known)
        if arg_shapes is None:
            raise MXNetError(f"reshape: the shapes of all arguments do not follow from {known}")
        names, aux_names = self._symbol.list_arguments(), self._symbol.list_auxiliary_states()

        def fit(name: str, array: NDArray, shape: tuple[int, ...]) -> NDArray:
            if array.shape == shape:
                return array
            if not (partial_shaping or name in known):
                raise MXNetError(
                    f"reshape: '{name}' would change from {array.shape} to {shape}; name its shape, or set "
                    "partial_shaping=True"
                )
            count = int(np.prod(shape))
            if count <= array.size:
                return array.reshape((-1,))[0:count].reshape(shape)
            if not allow_up_sizing:
                raise MXNetError(
                    f"reshape: '{name}' would grow from {array.shape} to {shape}; start with the larger shape, or set "
                    "allow_up_sizing=True"
                )
            return nd.zeros(shape, ctx=array.context, dtype=array.dtype)

        args = [fit(n, a, s) for n, a, s in zip(names, self.arg_arrays, arg_shapes, strict=True)]
        grads = [
            None if g is None else fit(n, g, s)
            for n, g, s in zip(names, self.grad_arrays, arg_shapes, strict=True)
        ]
        aux = [fit(n, a, s) for n, a, s in zip(aux_names, self.aux_arrays, aux_shapes, strict=True)]
        return Executor(
            self._symbol,
            self._placement,
            self._ctx,
            args,
            grads,
            self._grad_req,
            aux,
            self._group2ctx,
            self._memory_budget,
        )

    # --- watching it ---

    def set_monitor_callback(
        self, callback: Callable[[bytes, NDArray], None], monitor_all: bool = False
    ) -> None:
        """Calls `callback(name, array)` for the output of every node after each `forward`.

        Names arrive as bytes, as in MXNet. With `monitor_all`, inputs are reported too. The mean and deviation that a
        normalization computes are reported as outputs of it. A watched graph runs node by node, without fusion,
        because every value must exist.
        """
        self._monitor = callback
        self._monitor_all = bool(monitor_all)
        if self._watched is not None or callback is None:
            return
        from .symbol._watch import Watched

        self._watched = Watched(self._symbol)
        self._build(self._watched.symbol, self._watched.own)

    def _report(self, callback: Callable[[bytes, NDArray], None]) -> None:
        self._watched.report(
            self._outputs[self._own :],
            lambda name, _, value: callback(name.encode(), value),
            inputs=self._monitor_all,
        )


def types_of(symbol: Any, type_dict: Mapping[str, Any] | None) -> tuple[list[Any], list[Any]]:
    """Types of arguments and auxiliary states; float32 where `type_dict` (types by name) does not decide."""
    given = {k: v for k, v in (type_dict or {}).items() if v is not None}
    arg_types, _, aux_types = symbol.infer_type_partial(**given)
    return [t or np.float32 for t in arg_types], [t or np.float32 for t in aux_types]


class _Maker:
    """Makes the arrays of `simple_bind`, or takes them from what is shared."""

    def __init__(
        self,
        placement: _Placement,
        shared: Executor | None,
        shared_names: Sequence[str] | None,
        buffer: dict[str, NDArray] | None,
    ) -> None:
        self._placement = placement
        self._args = shared.arg_dict if shared else {}
        self._grads = shared.grad_dict if shared else {}
        self._aux = shared.aux_dict if shared else {}
        self._names = None if shared_names is None else set(shared_names)
        self._buffer = buffer

    def arg(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        if self._names is None or name in self._names:
            return self._like(self._args.get(name), name, shape, dtype)
        if self._buffer is None:
            return self._new(name, shape, dtype)
        # Inputs of executors that run in turn live in one buffer, as large as the largest needs.
        held = self._buffer.get(name)
        count = int(np.prod(shape))
        if held is not None and held.size >= count and held.dtype == dtype:
            return held if held.shape == shape else held.reshape((-1,))[0:count].reshape(shape)
        self._buffer[name] = self._new(name, shape, dtype)
        return self._buffer[name]

    def grad(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        shared = self._names is None or name in self._names
        return self._like(self._grads.get(name) if shared else None, name, shape, dtype)

    def aux(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        return self._like(self._aux.get(name), name, shape, dtype)

    def _like(self, found: NDArray | None, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        if found is not None and found.shape == shape and found.dtype == dtype:
            return found
        return self._new(name, shape, dtype)

    def _new(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        return nd.zeros(shape, ctx=self._placement.of(name), dtype=dtype)
