"""What `hybridize` makes of a block: a Symbol, traced once, and a cached operator that plans it per signature."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _core, autograd
from .. import ndarray as nd
from ..base import MXNetError
from ..ndarray import NDArray
from .parameter import Parameter, same_context

if TYPE_CHECKING:
    from .hybrid import HybridBlock

__all__ = ["Graph"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _user_line(error: BaseException) -> str | None:
    """The innermost line of the traceback that is not this package's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_PACKAGE)]
    if not frames:
        return None
    frame = frames[-1]
    return f"{frame.filename}:{frame.lineno}: {frame.line}"


class Graph:
    """A block's graph, called with the block's arguments."""

    def __init__(
        self,
        block: HybridBlock,
        symbol: Any,
        data_names: Sequence[str],
        in_format: Any,
        out_format: Any,
    ) -> None:
        self.symbol = symbol
        self.data_names = list(data_names)
        self._in_format = in_format
        self._out_format = out_format
        self._block_name = f"{type(block).__name__} '{block.name}'"
        params = {p.name: p for p in block.collect_params().values()}
        place = {name: i for i, name in enumerate(self.data_names)}
        self._data: list[int] = []
        self._params: list[Parameter] = []
        order: list[str] = []
        for name in symbol.list_inputs():
            if name in place:
                self._data.append(place[name])
                order.append(name)
        for name in symbol.list_inputs():
            if name in place:
                continue
            if name not in params:
                raise MXNetError(
                    f"{self._block_name}: its graph has the variable {name}, which is no parameter of it"
                )
            self._params.append(params[name])
            order.append(name)
        self._order = order
        self._budget = block._memory_budget
        self._op = _core.CachedOpBase(symbol, order, self._budget)
        self._watched: tuple[Any, Any] | None = None
        self._ready = False
        self._single = out_format == 0

    @staticmethod
    def trace(block: HybridBlock, args: tuple[Any, ...]) -> Graph:
        """The graph of `block` for arguments nested like `args`.

        Raises
        ------
        Exception
            Whatever the block's `hybrid_forward` raises on Symbols, with a note that names the line.
        """
        from .. import symbol
        from .hybrid import _flatten, _regroup

        flat, in_format = _flatten(list(args))
        given = [i for i, value in enumerate(flat) if value is not None]
        names = ["data"] if len(given) == 1 else [f"data{i}" for i in range(len(given))]
        variables: list[Any] = [None] * len(flat)
        for i, name in zip(given, names, strict=True):
            variables[i] = symbol.var(name)
        nested, _ = _regroup(variables, in_format)
        try:
            out = block._forward_symbol(*nested)
        except Exception as error:
            line = _user_line(error)
            error.add_note(
                f"{type(block).__name__} '{block.name}' was hybridized, and its hybrid_forward could not be traced"
                + (f"; this line prevents it: {line}" if line else "")
                + "\nOperators of F work on Symbols; values, shapes and Python control flow on them do not."
            )
            raise
        outputs, out_format = _flatten(out, "output")
        whole = outputs[0] if len(outputs) == 1 else symbol.Group(outputs)
        return Graph(block, whole, names, in_format, out_format)

    def __call__(self, args: tuple[Any, ...], hooks: Sequence[tuple[Callable[..., Any], bool]] = ()) -> Any:
        from .hybrid import _flatten, _regroup

        if len(args) == 1 and isinstance(args[0], NDArray):
            flat: list[Any] = [args[0]]
            fmt: Any = [0]
        else:
            flat, fmt = _flatten(list(args))
        if fmt != self._in_format:
            raise ValueError(
                f"{self._block_name}: the arguments are nested as {fmt}; the graph was traced for {self._in_format}. "
                "Call hybridize() again to trace it anew"
            )
        data = [value for value in flat if value is not None]
        ctx = data[0].context
        if not self._ready:
            self.finish_deferred(data)
        inputs = [data[i] for i in self._data]
        for param in self._params:
            arrays, contexts = param._data, param._ctx_list
            if arrays is not None and contexts is not None and same_context(contexts[0], ctx):
                inputs.append(arrays[0])
            else:
                inputs.append(param.data(ctx))
        if hooks:
            return _regroup(self._call_watched(inputs, hooks), self._out_format)[0]
        outputs = self._op._call(inputs)
        if self._single:
            return outputs[0]
        return _regroup(outputs, self._out_format)[0]

    def finish_deferred(self, data: Sequence[NDArray]) -> None:
        """Initializes parameters that waited for the shapes of their inputs."""
        waiting = [p for p in self._params if p._data is None and p._deferred_init]
        for param in self._params:
            if param._data is None and not param._deferred_init:
                # Raises the error that says to initialize.
                param.data(data[0].context)
        if waiting:
            self.infer_shapes(data)
            for param in waiting:
                param._finish_deferred_init()
        self._ready = True

    def infer_shapes(self, data: Sequence[NDArray]) -> None:
        """Completes the parameters' shapes from those of the inputs."""
        used = [(self.data_names[i], data[i]) for i in self._data]
        shapes_given = {name: list(value.shape) for name, value in used}
        types_given = {name: value.dtype for name, value in used}
        arg_shapes, _, aux_shapes, _ = self.symbol._infer_shape(shapes_given, types_given)
        shapes = dict(zip(self.symbol.list_arguments(), arg_shapes, strict=True))
        shapes.update(zip(self.symbol.list_auxiliary_states(), aux_shapes, strict=True))
        for param in self._params:
            shape = shapes.get(param.name)
            if shape and (param.shape is None or 0 in param.shape):
                param.shape = shape

    def export(self, path: str, epoch: int, remove_amp_cast: bool) -> tuple[str, str]:
        """Writes graph and parameters; returns the two file names."""
        symbol_file = f"{path}-symbol.json"
        params_file = f"{path}-{epoch:04d}.params"
        self.symbol.save(symbol_file, remove_amp_cast=remove_amp_cast)
        aux = set(self.symbol.list_auxiliary_states())
        values = {("aux:" if p.name in aux else "arg:") + p.name: p._reduce() for p in self._params}
        nd.save(params_file, values)
        return symbol_file, params_file

    def _call_watched(
        self, inputs: list[NDArray], hooks: Sequence[tuple[Callable[..., Any], bool]]
    ) -> list[NDArray]:
        if self._watched is None:
            from ..symbol._watch import Watched

            watched = Watched(self.symbol)
            self._watched = _core.CachedOpBase(watched.symbol, self._order), watched
        op, watched = self._watched
        results = op._call(inputs)
        variables, recording = set(self._order), autograd.is_recording()
        with autograd.pause():
            for callback, monitor_all in hooks:

                def tell(
                    name: str, kind: str, value: NDArray, callback: Callable[..., Any] = callback
                ) -> None:
                    if name not in variables:
                        callback(name.encode(), kind.encode(), value.detach())

                watched.report(results[watched.own :], tell, inputs=monitor_all, hidden=recording)
        return results[: watched.own]
