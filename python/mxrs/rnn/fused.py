"""`FusedRNNCell`: a whole stack of cells in one RNN operator, and its unfused twin.

All weights lie in one vector: for each layer and direction the matrices of the input and of the state, gate by
gate; behind them all biases in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import initializer
from .. import ndarray as nd
from .. import symbol as sym
from .cells import BaseRNNCell, GRUCell, LSTMCell, RNNCell, RNNParams, Weights, as_sequence

if TYPE_CHECKING:
    from .containers import SequentialRNNCell

__all__ = ["FusedRNNCell"]

_GATES = {
    "rnn_relu": [""],
    "rnn_tanh": [""],
    "lstm": ["_i", "_f", "_c", "_o"],
    "gru": ["_r", "_z", "_o"],
}


class FusedRNNCell(BaseRNNCell):
    """Layers of one kind of cell, in one or both directions, that can only be unrolled.

    Parameters
    ----------
    num_hidden : int
    num_layers : int
    mode : 'rnn_relu', 'rnn_tanh', 'lstm' or 'gru'
    bidirectional : bool
    dropout : float
        Between layers.
    get_next_state : bool
        Whether `unroll` gives the states after the last step.
    forget_bias : float
        Added to the initial bias of forget gates.
    prefix : str
        By default the mode and '_'.
    params : RNNParams, optional

    Raises ValueError for an unknown mode. `unroll` needs the operator RNN, and raises NotImplementedError where
    it is not built; `unfuse()` gives equal cells that need only basic operators.
    """

    def __init__(
        self,
        num_hidden: int,
        num_layers: int = 1,
        mode: str = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        get_next_state: bool = False,
        forget_bias: float = 1.0,
        prefix: str | None = None,
        params: RNNParams | None = None,
    ) -> None:
        if mode not in _GATES:
            raise ValueError(f"FusedRNNCell: mode must be one of {', '.join(_GATES)}, got {mode!r}")
        super().__init__(prefix=f"{mode}_" if prefix is None else prefix, params=params)
        self._num_hidden = num_hidden
        self._num_layers = num_layers
        self._mode = mode
        self._bidirectional = bidirectional
        self._dropout = dropout
        self._get_next_state = get_next_state
        self._forget_bias = forget_bias
        self._directions = ["l", "r"] if bidirectional else ["l"]
        init = initializer.FusedRNN(None, num_hidden, num_layers, mode, bidirectional, forget_bias)
        self._parameter = self._params.get("parameters", init=init)

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """One state, for LSTM two, (layers * directions, 0, num_hidden)."""
        shape = (len(self._directions) * self._num_layers, 0, self._num_hidden)
        return [{"shape": shape, "__layout__": "LNC"} for _ in range(1 + (self._mode == "lstm"))]

    @property
    def _gate_names(self) -> Sequence[str]:
        return _GATES[self._mode]

    # --- the vector of weights ---

    def _places(self, num_input: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the matrices and biases in the order in which the vector holds them."""
        hidden = self._num_hidden
        for kind in ("weight", "bias"):
            for layer in range(self._num_layers):
                width = num_input if layer == 0 else hidden * len(self._directions)
                for direction in self._directions:
                    for group, columns in (("i2h", width), ("h2h", hidden)):
                        for gate in self._gate_names:
                            name = f"{self._prefix}{direction}{layer}_{group}{gate}_{kind}"
                            yield name, ((hidden, columns) if kind == "weight" else (hidden,))

    def _num_input(self, size: int) -> int:
        """The input width for a vector of this size; ValueError where none fits."""
        per_row = self._num_hidden * len(self._gate_names) * len(self._directions)
        above = self._num_hidden * len(self._directions) + self._num_hidden + 2
        width = size // per_row - (self._num_layers - 1) * above - self._num_hidden - 2
        if width < 1 or size % per_row:
            raise ValueError(
                f"FusedRNNCell: {self._prefix}parameters has {size} elements, which fits no width of the input "
                f"for num_hidden={self._num_hidden}, num_layers={self._num_layers}, mode={self._mode!r}, "
                f"bidirectional={self._bidirectional}"
            )
        return width

    def unpack_weights(self, args: Weights) -> Weights:
        """`args`, in which the vector is replaced by the weights of each layer, direction and gate."""
        args = dict(args)
        vector = args.pop(f"{self._prefix}parameters")
        at = 0
        for name, shape in self._places(self._num_input(vector.size)):
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            args[name] = vector[at : at + count].reshape(shape).copy()
            at += count
        return args

    def pack_weights(self, args: Weights) -> Weights:
        """`args`, in which the weights are put into the vector again."""
        args = dict(args)
        first = args[f"{self._prefix}l0_i2h{self._gate_names[0]}_weight"]
        parts = []
        for name, shape in self._places(first.shape[1]):
            part = args.pop(name)
            if part.shape != shape:
                raise ValueError(f"FusedRNNCell: {name} must have shape {shape}, got {part.shape}")
            parts.append(part.reshape((-1,)))
        args[f"{self._prefix}parameters"] = nd.concat(*parts, dim=0)
        return args

    # --- graphs ---

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Raises NotImplementedError."""
        raise NotImplementedError("FusedRNNCell cannot be stepped. Please use unroll")

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """See `BaseRNNCell.unroll`. The operator takes sequences with time first; others are transposed."""
        operator: Callable[..., Any] | None = getattr(sym, "RNN", None)
        if operator is None:
            raise NotImplementedError(
                "FusedRNNCell.unroll needs the operator RNN, which is not built yet in mxrs; FusedRNNCell.unfuse() "
                "gives cells that work without it"
            )
        self.reset()
        sequence, axis = as_sequence(length, inputs, layout, True)
        if axis == 1:
            warnings.warn(
                "NTC layout detected. Consider using TNC for FusedRNNCell for faster speed", stacklevel=2
            )
            sequence = sym.swapaxes(sequence, dim1=0, dim2=1)
        elif axis != 0:
            raise ValueError(f"FusedRNNCell: layout must be NTC or TNC, got {layout!r}")
        states = self.begin_state() if begin_state is None else begin_state
        named = dict(zip(("state", "state_cell"), states, strict=False))
        rnn = operator(
            data=sequence,
            parameters=self._parameter,
            state_size=self._num_hidden,
            num_layers=self._num_layers,
            bidirectional=self._bidirectional,
            p=self._dropout,
            state_outputs=self._get_next_state,
            mode=self._mode,
            name=f"{self._prefix}rnn",
            **named,
        )
        outputs: Any = rnn
        next_states: list[Any] = []
        if self._get_next_state:
            outputs = rnn[0]
            next_states = [rnn[1 + i] for i in range(len(states))]
            for state in next_states:
                state._set_attr(__layout__="LNC")
        if axis == 1:
            outputs = sym.swapaxes(outputs, dim1=0, dim2=1)
        outputs, _ = as_sequence(length, outputs, layout, merge_outputs)
        return outputs, next_states

    def unfuse(self) -> SequentialRNNCell:
        """Equal layers of plain cells, to which `unpack_weights` and then their `pack_weights` bring the weights."""
        from .containers import BidirectionalCell, DropoutCell, SequentialRNNCell

        stack = SequentialRNNCell()
        for layer in range(self._num_layers):
            cells = [self._plain_cell(f"{self._prefix}{direction}{layer}_") for direction in self._directions]
            if self._bidirectional:
                stack.add(BidirectionalCell(cells[0], cells[1], output_prefix=f"{self._prefix}bi_l{layer}_"))
            else:
                stack.add(cells[0])
            if self._dropout > 0 and layer != self._num_layers - 1:
                stack.add(DropoutCell(self._dropout, prefix=f"{self._prefix}_dropout{layer}_"))
        return stack

    def _plain_cell(self, prefix: str) -> BaseRNNCell:
        if self._mode == "lstm":
            return LSTMCell(self._num_hidden, prefix=prefix, forget_bias=self._forget_bias)
        if self._mode == "gru":
            return GRUCell(self._num_hidden, prefix=prefix)
        return RNNCell(self._num_hidden, activation=self._mode.removeprefix("rnn_"), prefix=prefix)
