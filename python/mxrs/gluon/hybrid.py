"""`HybridBlock`: a block written against `F`, so that the same text runs on arrays and becomes a graph.

A call on arrays runs with `F = mxrs.ndarray`, operator by operator; a call on Symbols with `F = mxrs.symbol` gives
Symbols; after `hybridize` a call on arrays runs the graph (`_graph`). The other matter of this module is the first
call of a block whose parameters wait for a shape: layers of `nn` tell the shapes by `_param_shapes`, in any other
block the operators tell them through `_Deferred` placeholders, and a graph infers them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import autograd, ndarray
from .._core import SymbolBase
from ..base import MXNetError, check_budget, did_you_mean
from ..context import Context, current_context
from ..ndarray import NDArray
from ._block import Block
from .parameter import _Deferred, same_context

if TYPE_CHECKING:
    from ._graph import Graph

__all__ = ["HybridBlock"]


def _flatten(args: Any, inout_str: str = "input") -> tuple[list[Any], Any]:
    """A flat list of the arrays in nested lists, and the format from which `_regroup` nests them again.

    The format is nested like `args`: 0 is an array, a greater number a Symbol of so many outputs, -1 is None.
    """
    if isinstance(args, NDArray):
        return [args], 0
    if isinstance(args, SymbolBase):
        count = len(args.list_outputs())
        return [args], count if count > 1 else 0
    if args is None:
        return [None], -1
    if not isinstance(args, list | tuple):
        raise ValueError(
            f"When hybridized, the input of HybridBlock {inout_str} must be (nested) list of Symbol or "
            f"NDArray, but got {args} of type {type(args)}"
        )
    flat: list[Any] = []
    formats: list[Any] = []
    for item in args:
        part, fmt = _flatten(item, inout_str)
        flat.extend(part)
        formats.append(fmt)
    return flat, formats


def _regroup(args: list[Any], fmt: Any) -> tuple[Any, list[Any]]:
    """Nest the flat list `args` by the format of `_flatten`; returns the result and what is left over."""
    if isinstance(fmt, int):
        if fmt > 0:
            return args[:fmt], args[fmt:]
        return (None if fmt == -1 else args[0]), args[1:]
    nested = []
    for part in fmt:
        item, args = _regroup(args, part)
        nested.append(item)
    return nested, args


def _first_array(values: Sequence[Any]) -> NDArray | None:
    for value in values:
        if isinstance(value, NDArray):
            return value
        if isinstance(value, list | tuple):
            found = _first_array(value)
            if found is not None:
                return found
    return None


def _has_symbol(values: Sequence[Any]) -> bool:
    return any(
        isinstance(value, SymbolBase) or (isinstance(value, list | tuple) and _has_symbol(value))
        for value in values
    )


class HybridBlock(Block):
    """A block whose `hybrid_forward(F, x, ..., **params)` computes with the operators of `F`.

    The block's own parameters arrive as keyword arguments under their attribute names. Children must be
    HybridBlocks too.
    """

    def __init__(self, prefix: str | None = None, params: Any = None, **unknown: Any) -> None:
        super().__init__(prefix=prefix, params=params, **unknown)
        self._active = False
        self._flags: list[tuple[str, Any]] = []
        self._backend: str | None = None
        self._backend_opts: dict[str, Any] = {}
        self._graph: Graph | None = None
        self._memory_budget: str | None = None
        self._op_hooks: list[tuple[Callable[..., Any], bool]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graph": None}

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make `block` a child; ValueError if it is no HybridBlock."""
        if not isinstance(block, HybridBlock):
            raise ValueError(
                f"Children of HybridBlock must also be HybridBlock, but {block!s} has type {type(block)}. "
                "If you are using Sequential, please try HybridSequential instead."
            )
        super().register_child(block, name)
        self._clear_cached_op()

    def hybridize(
        self,
        active: bool = True,
        backend: str | None = None,
        clear: bool = True,
        static_alloc: bool = False,
        static_shape: bool = False,
        inline_limit: int = 2,
        forward_bulk_size: int | None = None,
        backward_bulk_size: int | None = None,
        memory_budget: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Make calls on arrays run as a planned graph, traced on the next call.

        The graph is planned anew for every signature (shapes, dtypes, training or not) and always with static
        memory, so `static_alloc`, `static_shape`, `inline_limit` and the bulk sizes are accepted and change nothing.

        Parameters
        ----------
        memory_budget : int or str, optional
            How much working memory a training step of this graph may need: bytes, a share of what it needs without a
            budget ('60%'), or 'smallest'. Results that do not fit are computed again for the gradients (see
            `mxrs.memonger`). It is the budget of the block's whole graph: blocks inside it have none of their own.

        Raises
        ------
        ValueError
            `memory_budget` is none of these. One that is too small is refused by the first recorded call.
        """
        self._memory_budget = check_budget(memory_budget)
        if kwargs and backend is None:
            # MXNet keeps them for a backend and says nothing; without one they are misspelt.
            known = [
                "static_alloc",
                "static_shape",
                "inline_limit",
                "forward_bulk_size",
                "backward_bulk_size",
                "memory_budget",
            ]
            name = next(iter(kwargs))
            warnings.warn(f"hybridize: no option is named {name!r}{did_you_mean(name, known)}", stacklevel=2)
        self._backend = backend
        self._backend_opts = kwargs
        self._active = active
        self._flags = [
            ("static_alloc", static_alloc),
            ("static_shape", static_shape),
            ("inline_limit", inline_limit),
        ]
        for name, size in (
            ("forward_bulk_size", forward_bulk_size),
            ("backward_bulk_size", backward_bulk_size),
        ):
            if size is not None:
                self._flags.append((name, size))
        if clear:
            self._clear_cached_op()
        if active and (self._forward_hooks or self._forward_pre_hooks):
            warnings.warn(
                f'"{self!r}" is being hybridized while still having forward hook/pre-hook. If it is a child '
                "of HybridBlock, the hooks will not take effect.",
                stacklevel=2,
            )
        super().hybridize(
            active,
            static_alloc=static_alloc,
            static_shape=static_shape,
            inline_limit=inline_limit,
            forward_bulk_size=forward_bulk_size,
            backward_bulk_size=backward_bulk_size,
        )

    def _clear_cached_op(self) -> None:
        """Drop what was traced for this block."""
        self._graph = None

    # --- running ---

    def forward(self, x: Any, *args: Any) -> Any:
        """Run `hybrid_forward` on the context of the first array, with this block's parameters from there."""
        first = x if isinstance(x, NDArray) else _first_array((x, *args))
        if first is None:
            if _has_symbol((x, *args)):
                return self._forward_symbol(x, *args)
            raise self._no_array(x, args)
        if self._active:
            return self._run_graph((x, *args))
        ctx = first.context
        params: dict[str, Any] = {}
        for name, param in self._reg_params.items():
            arrays = param._data
            if arrays is None:
                params = self._deferred_params(ctx, (x, *args))
                break
            present = param._ctx_list[0]  # type: ignore[index]  # set before _data is
            if present is ctx or present == ctx:
                # Parameters share this object, so the next comparison is one of identity.
                ctx = present
                params[name] = arrays[0]
            else:
                params[name] = param.data(ctx)
        try:
            if same_context(ctx, current_context()):
                return self.hybrid_forward(ndarray, x, *args, **params)
            with ctx:
                return self.hybrid_forward(ndarray, x, *args, **params)
        except TypeError:
            self._check_inputs((x, *args), params)
            raise

    def _forward_symbol(self, *args: Any) -> Any:
        """The block as a graph: its parameters are variables, and its operators are named after it."""
        from .. import symbol

        params = {name: param.var() for name, param in self._reg_params.items()}
        with self.name_scope():
            return self.hybrid_forward(symbol, *args, **params)

    def _run_graph(self, args: tuple[Any, ...]) -> Any:
        graph = self._graph
        if graph is None:
            from ._graph import Graph

            graph = self._graph = Graph.trace(self, args)
        return graph(args, self._op_hooks)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass has its own. `F` is `mxrs.ndarray`, or `mxrs.symbol` when a graph is
        made.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define hybrid_forward()")

    def _no_array(self, x: Any, args: tuple[Any, ...]) -> Exception:
        kinds = ", ".join(type(value).__name__ for value in (x, *args))
        return ValueError(
            "In HybridBlock, there must be one NDArray or one Symbol in the input. Please check the type "
            f"of the args: {type(self).__name__} '{self.name}' was given {kinds} (mx.nd.array makes an NDArray)"
        )

    def _check_inputs(self, inputs: tuple[Any, ...], params: dict[str, Any]) -> None:
        """Raises TypeError where `hybrid_forward` does not take as many inputs as were given."""
        import inspect

        signature = inspect.signature(self.hybrid_forward)
        try:
            signature.bind(ndarray, *inputs, **params)
        except TypeError:
            wanted = [name for name in list(signature.parameters)[1:] if name not in params]
            raise TypeError(
                f"{type(self).__name__} '{self.name}': {len(inputs)} inputs were given; hybrid_forward takes "
                f"{', '.join(wanted) or 'none'}"
            ) from None

    # --- shapes that the first batch tells ---

    def _param_shapes(self, *inputs: Any) -> dict[str, tuple[int, ...]]:
        """Whole shapes of own parameters (by attribute) for these inputs; layers that can know them
        override this.
        """
        return {}

    def _known_param_shapes(self, inputs: tuple[Any, ...]) -> dict[str, tuple[int, ...]]:
        # The rule belongs to the hybrid_forward of the same class. A subclass with another computation is
        # asked by running it, as its parameters may meet other shapes.
        for cls in type(self).__mro__:
            if "_param_shapes" in cls.__dict__:
                return self._param_shapes(*inputs)
            if "hybrid_forward" in cls.__dict__:
                return {}
        return {}

    def _complete_shapes(self, inputs: tuple[Any, ...]) -> None:
        for name, shape in self._known_param_shapes(inputs).items():
            param = self._reg_params.get(name)
            if param is None or param._data is not None:
                continue
            try:
                param.shape = shape
            except AssertionError:
                raise ValueError(
                    f"{type(self).__name__} '{self.name}': the input needs Parameter '{param.name}' to have "
                    f"shape {shape}, but it was given as {param.shape}"
                ) from None

    def _deferred_params(self, ctx: Context, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """The parameters for the first call: values where the shape can be told, placeholders elsewhere."""
        for param in self._reg_params.values():
            if param._data is None and not param._deferred_init:
                # Raises before a shape is set, so that another batch can still tell it. Where another
                # thread has just initialized the parameter, nothing happens.
                param.data(ctx)
        self._complete_shapes(inputs)
        params: dict[str, Any] = {}
        for name, param in self._reg_params.items():
            if param._data is None and param._deferred_init:
                if param.shape and 0 not in param.shape:
                    param._finish_deferred_init()
                else:
                    params[name] = _Deferred(param, ctx)
                    continue
            params[name] = param.data(ctx)
        return params

    def infer_shape(self, *args: Any) -> None:
        """Complete the shapes of all parameters from inputs like `args`.

        A layer that knows its rule only sets shapes. Any other block is run once on `args`, without
        recording and in prediction mode, so it must be initialized (its deferred parameters then are too).
        """
        self._complete_shapes(args)
        own_known = all(p.shape and 0 not in p.shape for p in self._reg_params.values())
        if own_known and not self._children:
            return
        with autograd.pause(train_mode=False):
            self.forward(*args)

    def infer_type(self, *args: Any) -> None:
        """Give parameters without a dtype that of the first input.

        Raises MXNetError if a parameter has another floating dtype than the input, as its operator would.
        """
        first = _first_array(args)
        if first is None:
            raise self._no_array(args[0] if args else None, args[1:])
        wanted = np.dtype(first.dtype)
        for param in self.collect_params().values():
            if param.dtype is None:
                param.cast(wanted)
            elif wanted.kind == "f" and np.dtype(param.dtype).kind == "f" and np.dtype(param.dtype) != wanted:
                raise MXNetError(
                    f"{type(self).__name__} '{self.name}': the input has dtype {wanted}, but Parameter "
                    f"'{param.name}' has {np.dtype(param.dtype)}; cast the block or the input"
                )

    # --- graphs ---

    def export(self, path: str, epoch: int = 0, remove_amp_cast: bool = True) -> tuple[str, str]:
        """Writes the traced graph and its parameters to `path-symbol.json` and `path-0000.params`.

        The files load in `SymbolBlock.imports`, `mx.mod.Module.load`, and MXNet.

        Returns
        -------
        tuple of str
            The two file names.

        Raises
        ------
        RuntimeError
            The block was not hybridized and called before.
        """
        if self._graph is None:
            raise RuntimeError(
                "Please first call block.hybridize() and then run forward with this block at least once "
                "before calling export."
            )
        return self._graph.export(path, epoch, remove_amp_cast)

    def optimize_for(
        self, x: Any, *args: Any, backend: str | None = None, clear: bool = True, **kwargs: Any
    ) -> None:
        """Hybridizes the block and prepares its plan for inputs like these.

        Every graph is optimised by mxrs itself, so `backend` changes nothing and is only remembered.
        """
        self.hybridize(True, backend=backend, clear=clear, **kwargs)
        self(x, *args)

    def register_op_hook(self, callback: Callable[..., Any], monitor_all: bool = False) -> None:
        """Calls `callback(name, operator, array)` with the output of every node of the hybridized graph after each call.

        `name` and `operator` are bytes, as in MXNet. With `monitor_all`, the inputs are given too. A watched graph runs without fusion, because every value must exist.
        """
        self._op_hooks.append((callback, monitor_all))
        for child in self._children.values():
            if isinstance(child, HybridBlock) and not self._active:
                child.register_op_hook(callback, monitor_all)
