"""The LSTM with a projection, and dropout that keeps its draw over a whole sequence."""

from __future__ import annotations

import math
from typing import Any

from ...rnn.cells import _DenseCell
from ...rnn.containers import BidirectionalCell, ModifierCell
from ...rnn.recurrent_cell import HybridRecurrentCell

__all__ = ["LSTMPCell", "VariationalDropoutCell"]


class LSTMPCell(_DenseCell):
    """Long short-term memory with a projected output (Sak et al. 2014).

    As `LSTMCell`, with `r' = R h'`, which is the output and what the gates see of the step before. The states are
    r (batch_size, projection_size) and c (batch_size, hidden_size).

    Arguments:
        hidden_size: size of the memory c.
        projection_size: size of the output.
        h2r_weight_initializer: initializer of R (projection_size, hidden_size).
        input_size and the others: as of `LSTMCell`.
    """

    _gates = 4

    def __init__(
        self,
        hidden_size: int,
        projection_size: int,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        h2r_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        prefix: str | None = None,
        params: Any = None,
    ) -> None:
        self._projection_size = projection_size
        self._h2r_initializer = h2r_weight_initializer
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            state_size=projection_size,
        )

    def _add_weights(self) -> None:
        self.h2r_weight = self.params.get(
            "h2r_weight",
            shape=(self._projection_size, self._hidden_size),
            init=self._h2r_initializer,
            allow_deferred_init=True,
        )

    def _alias(self) -> str:
        return "lstmp"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The projected output and the memory."""
        sizes = (self._projection_size, self._hidden_size)
        return [{"shape": (batch_size, size), "__layout__": "NC"} for size in sizes]

    def _param_shapes(self, inputs: Any, states: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        return {"i2h_weight": (4 * self._hidden_size, math.prod(inputs.shape[1:]))}

    def hybrid_forward(  # type: ignore[override]
        self,
        F: Any,
        inputs: Any,
        states: Any,
        i2h_weight: Any,
        h2h_weight: Any,
        h2r_weight: Any,
        i2h_bias: Any,
        h2h_bias: Any,
    ) -> Any:
        """One step."""
        name, i2h, h2h = self._dense(F, inputs, states, (i2h_weight, h2h_weight, i2h_bias, h2h_bias))
        slices = F.SliceChannel(i2h + h2h, num_outputs=4, name=f"{name}slice")
        in_gate = F.Activation(slices[0], act_type="sigmoid", name=f"{name}i")
        forget_gate = F.Activation(slices[1], act_type="sigmoid", name=f"{name}f")
        in_transform = F.Activation(slices[2], act_type="tanh", name=f"{name}c")
        out_gate = F.Activation(slices[3], act_type="sigmoid", name=f"{name}o")
        next_c = F.elemwise_add(forget_gate * states[1], in_gate * in_transform, name=f"{name}state")
        hidden = F.elemwise_mul(out_gate, F.Activation(next_c, act_type="tanh"), name=f"{name}hidden")
        next_r = F.FullyConnected(
            hidden, h2r_weight, num_hidden=self._projection_size, no_bias=True, name=f"{name}out"
        )
        return next_r, [next_r, next_c]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} -> {self._projection_size})"


class VariationalDropoutCell(ModifierCell):
    """Dropout around a cell with one draw for all steps of a sequence (Gal and Ghahramani 2016).

    The draws are of the inputs, the first state and the outputs. They are kept until `reset`, which `unroll` calls;
    programs that step by hand call it before every sequence.

    Arguments:
        base_cell: the cell.
        drop_inputs, drop_states, drop_outputs: probabilities; 0 drops nothing.

    Raises AssertionError for states of cells that cannot be stepped.
    """

    def __init__(
        self,
        base_cell: HybridRecurrentCell,
        drop_inputs: float = 0.0,
        drop_states: float = 0.0,
        drop_outputs: float = 0.0,
    ) -> None:
        cells = (base_cell, *base_cell._children.values())
        if drop_states and any(isinstance(cell, BidirectionalCell) for cell in cells):
            raise AssertionError(
                "BidirectionalCell doesn't support variational state dropout. Please add VariationalDropoutCell to "
                "the cells underneath instead."
            )
        super().__init__(base_cell)
        self.drop_inputs = drop_inputs
        self.drop_states = drop_states
        self.drop_outputs = drop_outputs
        self._forget()

    def _alias(self) -> str:
        return "vardrop"

    def _forget(self) -> None:
        self.drop_inputs_mask: Any = None
        self.drop_states_mask: Any = None
        self.drop_outputs_mask: Any = None

    def reset(self) -> None:
        """Also forget the draws."""
        super().reset()
        self._forget()

    def _dropped(self, F: Any, what: str, value: Any) -> Any:
        rate = getattr(self, f"drop_{what}")
        if not rate:
            return value
        mask = getattr(self, f"drop_{what}_mask")
        # Tracing leaves Symbols here, which arrays cannot be multiplied with.
        if not isinstance(mask, type(value)):
            mask = F.Dropout(F.ones_like(value), p=rate)
            setattr(self, f"drop_{what}_mask", mask)
        return value * mask

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> tuple[Any, list[Any]]:  # type: ignore[override]
        """One step."""
        if states:
            states = [self._dropped(F, "states", states[0]), *states[1:]]
        output, new = self.base_cell(self._dropped(F, "inputs", inputs), states)
        return self._dropped(F, "outputs", output), new

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p_out = {self.drop_outputs}, p_state = {self.drop_states})"
