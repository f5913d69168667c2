"""`SymbolBlock`: a block made of a Symbol, as a file or `mx.sym` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ndarray as nd
from .._core import SymbolBase
from ..base import MXNetError
from ..context import Context, cpu
from ._graph import Graph
from .hybrid import HybridBlock, _flatten
from .parameter import Parameter

__all__ = ["SymbolBlock"]


class SymbolBlock(HybridBlock):
    """A block that computes `outputs` from `inputs`; all other variables of the graph are its parameters.

    Parameters
    ----------
    outputs : Symbol or list of Symbol
        What the block computes.
    inputs : Symbol or list of Symbol
        The variables that calls give, in order.
    params : ParameterDict, optional
        Parameters to share, by name.

    Raises
    ------
    ValueError
        An input is no variable of the graph.
    """

    def __init__(self, outputs: Any, inputs: Any, params: Any = None) -> None:
        super().__init__(prefix=None, params=None)
        # Names of variables are whole names already.
        self._prefix = ""
        self._params = type(self._params)("", params)
        from .. import symbol

        if isinstance(inputs, SymbolBase):
            inputs = [inputs]
        flat_out, out_format = _flatten(
            outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs, "output"
        )
        whole = flat_out[0] if len(flat_out) == 1 else symbol.Group(flat_out)
        self._symbol = whole
        names = []
        known = set(whole.list_inputs())
        for item in inputs:
            if len(item.list_outputs()) != 1 or item.list_arguments() != item.list_outputs():
                raise ValueError(f"SymbolBlock: its inputs are variables; {item!r} is computed")
            if item.name not in known:
                raise ValueError(f"SymbolBlock: {item.name} is not a variable of the graph")
            names.append(item.name)
        self._input_names = names
        self._out_format = out_format
        self._make_parameters(whole, set(names))
        self._active = True

    def _make_parameters(self, whole: Any, inputs: set[str]) -> None:
        arg_shapes, _, aux_shapes = whole.infer_shape_partial()
        arg_types, _, aux_types = whole.infer_type_partial()
        aux = whole.list_auxiliary_states()
        names = [*whole.list_arguments(), *aux]
        shapes = [*arg_shapes, *aux_shapes]
        types = [*(arg_types or [None] * len(arg_shapes)), *(aux_types or [None] * len(aux))]
        states = set(aux)
        for name, shape, dtype in zip(names, shapes, types, strict=True):
            if name in inputs:
                continue
            self.params.get(
                name,
                shape=shape or None,
                dtype=dtype or np.float32,
                grad_req="null" if name in states else "write",
                allow_deferred_init=True,
            )
        for name, param in self.params.items():
            if isinstance(param, Parameter):
                self._reg_params[name] = param

    @staticmethod
    def imports(
        symbol_file: str,
        input_names: str | Sequence[str],
        param_file: str | None = None,
        ctx: Context | Sequence[Context] | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
    ) -> SymbolBlock:
        """A block from the files that `export` or `Module.save_checkpoint` write.

        Raises
        ------
        MXNetError
            A file is damaged, or names an operator that is not there.
        AssertionError
            A parameter is missing from the file or not in the graph, and that is not allowed.
        """
        from .. import symbol

        whole = symbol.load(symbol_file)
        names = [input_names] if isinstance(input_names, str) else list(input_names)
        block = SymbolBlock(whole, [symbol.var(name) for name in names])
        if param_file is not None:
            block.collect_params().load(
                param_file,
                ctx=ctx if ctx is not None else cpu(),
                allow_missing=allow_missing,
                ignore_extra=ignore_extra,
                cast_dtype=True,
                dtype_source="saved",
            )
        return block

    def __repr__(self) -> str:
        inputs, outputs = len(self._input_names), len(self._symbol.list_outputs())
        return f"{type(self).__name__}(\n{self._symbol!r} : {inputs} -> {outputs}\n)"

    def _forward_symbol(self, *args: Any) -> Any:
        flat, _ = _flatten(list(args))
        return self._symbol(**dict(zip(self._input_names, flat, strict=True)))

    def forward(self, x: Any, *args: Any) -> Any:
        """Runs the graph on arrays, or gives the Symbol of the graph on Symbols."""
        flat, fmt = _flatten([x, *args])
        if len(flat) != len(self._input_names):
            raise MXNetError(
                f"SymbolBlock: {len(self._input_names)} inputs ({', '.join(self._input_names)}) are expected, "
                f"{len(flat)} were given"
            )
        if any(isinstance(value, SymbolBase) for value in flat):
            return self._forward_symbol(x, *args)
        if not all(isinstance(value, nd.NDArray) for value in flat):
            raise self._no_array(x, args)
        if self._graph is None:
            self._graph = Graph(self, self._symbol, self._input_names, fmt, self._out_format)
        return self._graph((x, *args), self._op_hooks)

    def cast(self, dtype: Any) -> None:
        """Casts the parameters; statistics of half-precision normalization stay in single precision."""
        self._clear_cached_op()
        super().cast(dtype)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Not used: the graph is given."""
        raise NotImplementedError("SymbolBlock runs the graph it was made of")
