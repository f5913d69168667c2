"""`Predictor`: runs a deployed network, a symbol file and a parameter file, without anything that trains."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import ndarray as nd
from .base import MXNetError
from .context import Context, current_context
from .ndarray import NDArray

__all__ = ["Predictor"]


class Predictor:
    """A network ready to answer.

    Parameters
    ----------
    symbol : str, os.PathLike or Symbol
        The network: the path of a `-symbol.json` file, its text, or a Symbol.
    params : str, os.PathLike, bytes or dict
        The weights: the path of a `.params` file, its bytes, or arrays by name (`arg:` and `aux:` before the names are
        understood).
    input_shapes : dict of str to tuple
        The shape of every input, by name.
    ctx : Context, optional
        Where it runs; the current context by default.

    Raises
    ------
    MXNetError
        A weight is missing or has another shape than the network needs.

    Examples
    --------
    >>> net = Predictor(
    ...     "digits-symbol.json", "digits-0000.params", {"data": (1, 1, 28, 28)}
    ... )  # doctest: +SKIP
    >>> net(data=picture)[0].argmax()  # doctest: +SKIP
    """

    def __init__(
        self,
        symbol: Any,
        params: Any,
        input_shapes: Mapping[str, Sequence[int]],
        ctx: Context | None = None,
    ) -> None:
        from . import symbol as sym

        if isinstance(symbol, sym.Symbol):
            self._symbol = symbol
        elif isinstance(symbol, str) and symbol.lstrip().startswith("{"):
            self._symbol = sym.load_json(symbol)
        else:
            self._symbol = sym.load(os.fspath(symbol))
        self._ctx = ctx or current_context()
        self._params = self._load(params)
        self._bind({name: tuple(shape) for name, shape in input_shapes.items()})

    @staticmethod
    def _load(params: Any) -> dict[str, NDArray]:
        if isinstance(params, bytes | bytearray):
            params = nd.load_frombuffer(bytes(params))
        elif not isinstance(params, Mapping):
            params = nd.load(os.fspath(params))
        if not isinstance(params, Mapping):
            raise MXNetError("Predictor: the parameters have no names; save them as a dictionary")
        return {name.removeprefix("arg:").removeprefix("aux:"): value for name, value in params.items()}

    def _bind(self, shapes: dict[str, tuple[int, ...]]) -> None:
        names = self._symbol.list_arguments()
        for name in shapes:
            if name not in names:
                raise MXNetError(f"Predictor: the network has no input {name}; there are {', '.join(names)}")
        types = {name: value.dtype for name, value in self._params.items() if name in names}
        given: dict[str, Any] = dict(shapes)
        bound = self._symbol.simple_bind(self._ctx, grad_req="null", type_dict=types, **given)
        # Labels of loss layers are not inputs of a deployed network, and what they hold does not matter.
        missing = [
            name
            for name in (*names, *self._symbol.list_auxiliary_states())
            if name not in self._params and name not in shapes and not name.endswith("label")
        ]
        if missing:
            raise MXNetError(f"Predictor: there are no values for {', '.join(missing)}")
        known = {**bound.arg_dict, **bound.aux_dict}
        for name, value in self._params.items():
            if name not in known:
                continue
            if known[name].shape != value.shape:
                raise MXNetError(
                    f"Predictor: {name} has shape {value.shape}; the network needs {known[name].shape}"
                )
            value.astype(known[name].dtype, copy=False).copyto(known[name])
        self._bound = bound
        self._inputs = shapes

    def forward(self, **inputs: Any) -> list[NDArray]:
        """Computes and returns the outputs for these inputs (NDArrays or NumPy arrays, by name).

        Raises
        ------
        TypeError, ValueError
            An input is not known, or has another shape than the predictor was made or reshaped for.
        """
        for name in inputs:
            if name not in self._inputs:
                raise TypeError(f"Predictor: no input is named {name}; there are {', '.join(self._inputs)}")
        arrays = {n: v if isinstance(v, NDArray) else np.asarray(v) for n, v in inputs.items()}
        return self._bound.forward(is_train=False, **arrays)

    def __call__(self, **inputs: Any) -> list[np.ndarray]:
        """The outputs for these inputs as NumPy arrays."""
        return [output.asnumpy() for output in self.forward(**inputs)]

    def get_output(self, index: int) -> NDArray:
        """Output `index` of the last `forward`."""
        return self._bound.outputs[index]

    def reshape(self, input_shapes: Mapping[str, Sequence[int]]) -> None:
        """Prepares for inputs of other shapes."""
        self._bind({**self._inputs, **{name: tuple(shape) for name, shape in input_shapes.items()}})
