"""The plain, LSTM and GRU cells of Gluon.

The weights of a cell's gates lie stacked in one matrix: for LSTM in the order input, forget, cell, output, for
GRU reset, update, new.
"""

from __future__ import annotations

import math
from typing import Any

from .recurrent_cell import HybridRecurrentCell

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]

_OPERATORS = ("tanh", "relu", "sigmoid", "softsign")


class _DenseCell(HybridRecurrentCell):
    """A cell with one dense layer for the input and one for the first state."""

    _gates = 1

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Any,
        h2h_weight_initializer: Any,
        i2h_bias_initializer: Any,
        h2h_bias_initializer: Any,
        input_size: int,
        prefix: str | None,
        params: Any,
        state_size: int | None = None,
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._hidden_size = hidden_size
        self._input_size = input_size
        rows = self._gates * hidden_size

        def get(name: str, shape: tuple[int, ...], init: Any) -> Any:
            return self.params.get(name, shape=shape, init=init, allow_deferred_init=True)

        self.i2h_weight = get("i2h_weight", (rows, input_size), i2h_weight_initializer)
        self.h2h_weight = get(
            "h2h_weight", (rows, hidden_size if state_size is None else state_size), h2h_weight_initializer
        )
        self._add_weights()
        self.i2h_bias = get("i2h_bias", (rows,), i2h_bias_initializer)
        self.h2h_bias = get("h2h_bias", (rows,), h2h_bias_initializer)

    def _add_weights(self) -> None:
        """What a cell has beside the two layers; it stands between their weights and biases, as in MXNet."""

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """One state (batch_size, hidden_size)."""
        return [{"shape": (batch_size, self._hidden_size), "__layout__": "NC"}]

    def _param_shapes(self, inputs: Any, states: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        return {"i2h_weight": (self._gates * self._hidden_size, math.prod(inputs.shape[1:]))}

    def _dense(
        self, F: Any, inputs: Any, states: Any, weights: tuple[Any, Any, Any, Any]
    ) -> tuple[str, Any, Any]:
        """The prefix of the step's names, and the two dense layers; `weights` as hybrid_forward has them."""
        if len(states) != len(self.state_info()):
            raise ValueError(
                f"{type(self).__name__} '{self.name}': {len(self.state_info())} states are needed, got {len(states)}"
            )
        i2h_weight, h2h_weight, i2h_bias, h2h_bias = weights
        name = f"t{self._counter}_"
        rows = self._gates * self._hidden_size
        i2h = F.FullyConnected(inputs, i2h_weight, i2h_bias, num_hidden=rows, name=f"{name}i2h")
        h2h = F.FullyConnected(states[0], h2h_weight, h2h_bias, num_hidden=rows, name=f"{name}h2h")
        return name, i2h, h2h

    def _activate(self, F: Any, inputs: Any, activation: Any, **kwargs: Any) -> Any:
        if not isinstance(activation, str):
            return activation(inputs, **kwargs)
        if activation in _OPERATORS:
            return getattr(F, activation)(inputs, **kwargs)
        return F.Activation(inputs, act_type=activation, **kwargs)

    def __repr__(self) -> str:
        shape = self.i2h_weight.shape
        return f"{type(self).__name__}({shape[1] or None} -> {shape[0]})"


class RNNCell(_DenseCell):
    """The plain cell: `h' = activation(W x + b + U h + c)` (Elman 1990).

    Arguments:
        hidden_size: size of output and state.
        activation: name of an activation, or a block or function.
        i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer: initializers
            of W (hidden_size, input_size), U (hidden_size, hidden_size), b and c, or their names.
        input_size: size of the input; 0 lets the first batch tell.
        prefix, params: as of `Block`.
    """

    def __init__(
        self,
        hidden_size: int,
        activation: Any = "tanh",
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        prefix: str | None = None,
        params: Any = None,
    ) -> None:
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
        )
        self._activation = activation

    def _alias(self) -> str:
        return "rnn"

    def hybrid_forward(  # type: ignore[override]
        self, F: Any, inputs: Any, states: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any, h2h_bias: Any
    ) -> Any:
        """One step."""
        name, i2h, h2h = self._dense(F, inputs, states, (i2h_weight, h2h_weight, i2h_bias, h2h_bias))
        plus = F.elemwise_add(i2h, h2h, name=f"{name}plus0")
        output = self._activate(F, plus, self._activation, name=f"{name}out")
        return output, [output]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self._activation})"


class LSTMCell(_DenseCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate).

    `i, f, o = sigmoid(...)`, `g = tanh(...)` of the dense layers; `c' = f c + i g`, `h' = o tanh(c')`. The states
    are h and c.

    Arguments:
        activation: in the place of tanh.
        recurrent_activation: in the place of sigmoid.
        hidden_size and the others: as of `RNNCell`; matrices have 4 * hidden_size rows.
    """

    _gates = 4

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        prefix: str | None = None,
        params: Any = None,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
    ) -> None:
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
        )
        self._activation = activation
        self._recurrent_activation = recurrent_activation

    def _alias(self) -> str:
        return "lstm"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Two states (batch_size, hidden_size)."""
        return super().state_info(batch_size) * 2

    def hybrid_forward(  # type: ignore[override]
        self, F: Any, inputs: Any, states: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any, h2h_bias: Any
    ) -> Any:
        """One step."""
        name, i2h, h2h = self._dense(F, inputs, states, (i2h_weight, h2h_weight, i2h_bias, h2h_bias))
        gates = F.elemwise_add(i2h, h2h, name=f"{name}plus0")
        slices = F.SliceChannel(gates, num_outputs=4, name=f"{name}slice")
        in_gate = self._activate(F, slices[0], self._recurrent_activation, name=f"{name}i")
        forget_gate = self._activate(F, slices[1], self._recurrent_activation, name=f"{name}f")
        in_transform = self._activate(F, slices[2], self._activation, name=f"{name}c")
        out_gate = self._activate(F, slices[3], self._recurrent_activation, name=f"{name}o")
        next_c = F.elemwise_add(
            F.elemwise_mul(forget_gate, states[1], name=f"{name}mul0"),
            F.elemwise_mul(in_gate, in_transform, name=f"{name}mul1"),
            name=f"{name}state",
        )
        if isinstance(self._activation, str):
            squashed = F.Activation(next_c, act_type=self._activation, name=f"{name}activation0")
        else:
            squashed = self._activate(F, next_c, self._activation)
        next_h = F.elemwise_mul(out_gate, squashed, name=f"{name}out")
        return next_h, [next_h, next_c]


class GRUCell(_DenseCell):
    """Gated recurrent unit, in the form that has the reset gate behind the dense layer of the state.

    `r, z = sigmoid(...)`, `n = tanh(W x + b + r (U h + c))`, `h' = (1 - z) n + z h` (Cho et al. 2014; cuDNN).

    Arguments: as of `RNNCell`; matrices have 3 * hidden_size rows.
    """

    _gates = 3

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        prefix: str | None = None,
        params: Any = None,
    ) -> None:
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
        )

    def _alias(self) -> str:
        return "gru"

    def hybrid_forward(  # type: ignore[override]
        self, F: Any, inputs: Any, states: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any, h2h_bias: Any
    ) -> Any:
        """One step."""
        name, i2h, h2h = self._dense(F, inputs, states, (i2h_weight, h2h_weight, i2h_bias, h2h_bias))
        i2h_r, i2h_z, i2h_n = F.SliceChannel(i2h, num_outputs=3, name=f"{name}i2h_slice")
        h2h_r, h2h_z, h2h_n = F.SliceChannel(h2h, num_outputs=3, name=f"{name}h2h_slice")
        reset_gate = F.Activation(
            F.elemwise_add(i2h_r, h2h_r, name=f"{name}plus0"), act_type="sigmoid", name=f"{name}r_act"
        )
        update_gate = F.Activation(
            F.elemwise_add(i2h_z, h2h_z, name=f"{name}plus1"), act_type="sigmoid", name=f"{name}z_act"
        )
        shown = F.elemwise_mul(reset_gate, h2h_n, name=f"{name}mul0")
        new = F.Activation(
            F.elemwise_add(i2h_n, shown, name=f"{name}plus2"), act_type="tanh", name=f"{name}h_act"
        )
        ones = F.ones_like(update_gate, name=f"{name}ones_like0")
        keep_new = F.elemwise_sub(ones, update_gate, name=f"{name}minus0")
        next_h = F.elemwise_add(
            F.elemwise_mul(keep_new, new, name=f"{name}mul1"),
            F.elemwise_mul(update_gate, states[0], name=f"{name}mul20"),
            name=f"{name}out",
        )
        return next_h, [next_h]
