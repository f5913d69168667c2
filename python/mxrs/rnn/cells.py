"""The base of all symbolic cells, and the plain, LSTM and GRU cells.

A cell is called once per step with a symbol and a list of states, and gives the step's output and the next
states; `unroll` does so for a whole sequence. Names of parameters, states and outputs are MXNet's, so that its
checkpoints fit. Cells made of other cells are in `containers`.

The weights of a cell's gates lie stacked in one matrix: for LSTM in the order input, forget, cell, output, for
GRU reset, update, new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import initializer
from .. import ndarray as nd
from .. import symbol as sym

__all__ = ["BaseRNNCell", "GRUCell", "LSTMCell", "RNNCell", "RNNParams", "as_sequence"]

Weights = dict[str, Any]


class RNNParams:
    """The parameter variables of one or several cells, by name; cells that share one share weights."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._params: dict[str, Any] = {}

    def get(self, name: str, **kwargs: Any) -> Any:
        """The variable with this name behind the prefix, made with `kwargs` when it is first asked for."""
        full = self._prefix + name
        if full not in self._params:
            self._params[full] = sym.Variable(full, **kwargs)
        return self._params[full]


class BaseRNNCell:
    """What all cells have in common.

    Parameters
    ----------
    prefix : str
        Stands before the names of parameters and outputs.
    params : RNNParams, optional
        The parameters of another cell, to share them.
    """

    def __init__(self, prefix: str = "", params: RNNParams | None = None) -> None:
        self._own_params = params is None
        self._prefix = prefix
        self._params = RNNParams(prefix) if params is None else params
        self._modified = False
        self.reset()

    def reset(self) -> None:
        """Count steps and states anew, as for a new graph."""
        self._init_counter = -1
        self._counter = -1
        for cell in getattr(self, "_cells", ()):
            cell.reset()

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step: its output, a symbol (batch, hidden), and the next states.

        `states` has the form of `begin_state()`, or are those of the step before.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define a step")

    @property
    def params(self) -> RNNParams:
        """The parameters. Once asked for they may be shared, and the cell is known not to own them."""
        self._own_params = False
        return self._params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Shape and layout of each state; the batch is 0, unknown."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_info")

    @property
    def state_shape(self) -> list[tuple[int, ...]]:
        """The shapes of the states."""
        return [info["shape"] for info in self.state_info]

    @property
    def _gate_names(self) -> Sequence[str]:
        """What the names of each gate's weights have between 'i2h' and '_weight', in the order of stacking."""
        return ()

    def _check_not_modified(self) -> None:
        if self._modified:
            raise AssertionError(
                "After applying modifier cells (e.g. DropoutCell) the base cell cannot be called directly. Call "
                "the modifier cell instead."
            )

    def begin_state(self, func: Callable[..., Any] = sym.zeros, **kwargs: Any) -> list[Any]:
        """The states before the first step, made by `func` (`sym.zeros`, `sym.Variable`, ...) with `kwargs`."""
        self._check_not_modified()
        states = []
        for info in self.state_info:
            self._init_counter += 1
            name = f"{self._prefix}begin_state_{self._init_counter}"
            states.append(func(name=name, **{**info, **kwargs}))
        return states

    def _step_name(self) -> str:
        self._counter += 1
        return f"{self._prefix}t{self._counter}_"

    # --- weights of each gate apart, as checkpoints hold them ---

    def unpack_weights(self, args: Weights) -> Weights:
        """`args`, in which the stacked weights of this cell are replaced by those of each gate."""
        args = dict(args)
        if not self._gate_names:
            return args
        hidden: int = self._num_hidden  # type: ignore[attr-defined]  # every cell with gates has it
        for group in ("i2h", "h2h"):
            weight = args.pop(f"{self._prefix}{group}_weight")
            bias = args.pop(f"{self._prefix}{group}_bias")
            for j, gate in enumerate(self._gate_names):
                rows = slice(j * hidden, (j + 1) * hidden)
                args[f"{self._prefix}{group}{gate}_weight"] = weight[rows].copy()
                args[f"{self._prefix}{group}{gate}_bias"] = bias[rows].copy()
        return args

    def pack_weights(self, args: Weights) -> Weights:
        """`args`, in which the weights of each gate of this cell are stacked again."""
        args = dict(args)
        if not self._gate_names:
            return args
        for group in ("i2h", "h2h"):
            names = [f"{self._prefix}{group}{gate}" for gate in self._gate_names]
            for kind in ("weight", "bias"):
                parts = [args.pop(f"{name}_{kind}") for name in names]
                args[f"{self._prefix}{group}_{kind}"] = nd.concat(*parts, dim=0)
        return args

    # --- sequences ---

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """The outputs of `length` steps and the states after them.

        Parameters
        ----------
        length : int
        inputs : Symbol or list of Symbol
            A sequence in one symbol, or its steps.
        begin_state : list of Symbol, optional
            By default `self.begin_state()`.
        layout : str
            Where time stands in a sequence in one symbol: 'NTC' or 'TNC'.
        merge_outputs : bool, optional
            The outputs in one symbol, or as a list of steps; by default as they come.

        Raises AssertionError for inputs of another number of steps.
        """
        self.reset()
        steps, _ = as_sequence(length, inputs, layout, False)
        states: Any = self.begin_state() if begin_state is None else begin_state
        outputs = []
        for step in steps:
            output, states = self(step, states)
            outputs.append(output)
        merged, _ = as_sequence(length, outputs, layout, merge_outputs)
        return merged, states

    def _activation(self, inputs: Any, activation: Any, **kwargs: Any) -> Any:
        if isinstance(activation, str):
            return sym.Activation(inputs, act_type=activation, **kwargs)
        return activation(inputs, **kwargs)


def as_sequence(length: int, inputs: Any, layout: str, merge: bool | None) -> tuple[Any, int]:
    """A sequence in one symbol (`merge`), in a list of steps (`merge=False`) or as it is (None), and its axis of
    time.
    """
    axis = layout.find("T")
    if axis < 0:
        raise ValueError(f"layout must hold T, the axis of time, got {layout!r}")
    if isinstance(inputs, sym.Symbol):
        if merge is not False:
            return inputs, axis
        if len(inputs.list_outputs()) != 1:
            raise AssertionError(
                "unroll doesn't allow grouped symbol as input. Please convert to list with list(inputs) first or "
                "let unroll handle splitting."
            )
        return list(sym.split(inputs, axis=axis, num_outputs=length, squeeze_axis=1)), axis
    inputs = list(inputs)
    if length is not None and len(inputs) != length:
        raise AssertionError(f"unroll: {len(inputs)} inputs were given for length={length}")
    if merge:
        return sym.concat(*[sym.expand_dims(step, axis=axis) for step in inputs], dim=axis), axis
    return inputs, axis


class _DenseCell(BaseRNNCell):
    """A cell with one dense layer for the input and one for the first state."""

    def __init__(
        self, num_hidden: int, prefix: str, params: RNNParams | None, i2h_bias: dict[str, Any] | None = None
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._num_hidden = num_hidden
        self._iW = self.params.get("i2h_weight")
        self._iB = self.params.get("i2h_bias", **(i2h_bias or {}))
        self._hW = self.params.get("h2h_weight")
        self._hB = self.params.get("h2h_bias")
        # What was given belongs to another cell; what was made here is ours until somebody asks for it.
        self._own_params = params is None

    def _dense(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        size = self._num_hidden * len(self._gate_names)
        i2h = sym.FullyConnected(inputs, self._iW, self._iB, num_hidden=size, name=f"{name}i2h")
        h2h = sym.FullyConnected(state, self._hW, self._hB, num_hidden=size, name=f"{name}h2h")
        return i2h, h2h


class RNNCell(_DenseCell):
    """The plain cell: `h' = activation(W x + b + U h + c)` (Elman 1990).

    `activation` is the name of one, or a function of a symbol that takes `name`.
    """

    def __init__(
        self, num_hidden: int, activation: Any = "tanh", prefix: str = "rnn_", params: RNNParams | None = None
    ) -> None:
        super().__init__(num_hidden, prefix, params)
        self._activation_kind = activation

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """One state (0, num_hidden)."""
        return [{"shape": (0, self._num_hidden), "__layout__": "NC"}]

    @property
    def _gate_names(self) -> Sequence[str]:
        return ("",)

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._dense(inputs, states[0], name)
        output = self._activation(i2h + h2h, self._activation_kind, name=f"{name}out")
        return output, [output]


class LSTMCell(_DenseCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate).

    `i, f, o = sigmoid(...)`, `g = tanh(...)` of the dense layers; `c' = f c + i g`, `h' = o tanh(c')`. The states
    are h and c. `forget_bias` is added to the initial bias of the forget gate (Jozefowicz et al. 2015).
    """

    def __init__(
        self,
        num_hidden: int,
        prefix: str = "lstm_",
        params: RNNParams | None = None,
        forget_bias: float = 1.0,
    ) -> None:
        bias = initializer.LSTMBias(forget_bias=forget_bias)
        super().__init__(num_hidden, prefix, params, {"init": bias})

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Two states (0, num_hidden)."""
        return [{"shape": (0, self._num_hidden), "__layout__": "NC"} for _ in range(2)]

    @property
    def _gate_names(self) -> Sequence[str]:
        return ["_i", "_f", "_c", "_o"]

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._dense(inputs, states[0], name)
        slices = sym.SliceChannel(i2h + h2h, num_outputs=4, name=f"{name}slice")
        return lstm_step(name, slices, states[1], "tanh", self._activation)


def lstm_step(
    name: str, slices: Any, cell: Any, activation: Any, activate: Callable[..., Any]
) -> tuple[Any, list[Any]]:
    """Output and states of an LSTM step from its four gates before their activations."""
    in_gate = sym.Activation(slices[0], act_type="sigmoid", name=f"{name}i")
    forget_gate = sym.Activation(slices[1], act_type="sigmoid", name=f"{name}f")
    in_transform = activate(slices[2], activation, name=f"{name}c")
    out_gate = sym.Activation(slices[3], act_type="sigmoid", name=f"{name}o")
    next_c = sym.elemwise_add(forget_gate * cell, in_gate * in_transform, name=f"{name}state")
    next_h = sym.elemwise_mul(out_gate, activate(next_c, activation), name=f"{name}out")
    return next_h, [next_h, next_c]


class GRUCell(_DenseCell):
    """Gated recurrent unit, in the form that has the reset gate behind the dense layer of the state.

    `r, z = sigmoid(...)`, `n = tanh(W x + b + r (U h + c))`, `h' = (1 - z) n + z h` (Cho et al. 2014; cuDNN).
    """

    def __init__(self, num_hidden: int, prefix: str = "gru_", params: RNNParams | None = None) -> None:
        super().__init__(num_hidden, prefix, params)

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """One state (0, num_hidden)."""
        return [{"shape": (0, self._num_hidden), "__layout__": "NC"}]

    @property
    def _gate_names(self) -> Sequence[str]:
        return ["_r", "_z", "_o"]

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._dense(inputs, states[0], f"{name}_")
        return gru_step(name, i2h, h2h, states[0], "tanh", self._activation)


def gru_step(
    name: str, i2h: Any, h2h: Any, state: Any, activation: Any, activate: Callable[..., Any], **split: Any
) -> tuple[Any, list[Any]]:
    """Output and state of a GRU step from the dense layers of its input and its state."""
    i2h_r, i2h_z, i2h_n = sym.SliceChannel(i2h, num_outputs=3, name=f"{name}_i2h_slice", **split)
    h2h_r, h2h_z, h2h_n = sym.SliceChannel(h2h, num_outputs=3, name=f"{name}_h2h_slice", **split)
    reset_gate = sym.Activation(i2h_r + h2h_r, act_type="sigmoid", name=f"{name}_r_act")
    update_gate = sym.Activation(i2h_z + h2h_z, act_type="sigmoid", name=f"{name}_z_act")
    new = activate(i2h_n + reset_gate * h2h_n, activation, name=f"{name}_h_act")
    next_h = sym.elemwise_add((1.0 - update_gate) * new, update_gate * state, name=f"{name}out")
    return next_h, [next_h]
