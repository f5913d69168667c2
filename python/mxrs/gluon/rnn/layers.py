"""Recurrent layers: one or several layers of cells over a whole sequence, in one RNN operator.

Each layer and direction has parameters of its own, named `l0_i2h_weight`, `r0_h2h_bias`, ...; the operator takes
them as one vector, first all matrices and then all biases. Cells that compute step by step are in `cells`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import ndarray
from ...ndarray import NDArray
from ..hybrid import HybridBlock
from .cells import GRUCell, LSTMCell, RNNCell
from .containers import BidirectionalCell, DropoutCell, HybridSequentialRNNCell

__all__ = ["GRU", "LSTM", "RNN"]

_GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}


class _RNNLayer(HybridBlock):
    """What the three kinds of layers have in common; for the arguments see `LSTM`."""

    def __init__(
        self,
        hidden_size: int,
        num_layers: int,
        layout: str,
        dropout: float,
        bidirectional: bool,
        input_size: int,
        i2h_weight_initializer: Any,
        h2h_weight_initializer: Any,
        i2h_bias_initializer: Any,
        h2h_bias_initializer: Any,
        mode: str,
        projection_size: int | None = None,
        h2r_weight_initializer: Any = None,
        lstm_state_clip_min: float | None = None,
        lstm_state_clip_max: float | None = None,
        lstm_state_clip_nan: bool | None = None,
        dtype: Any = "float32",
        use_sequence_length: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if layout not in ("TNC", "NTC"):
            raise AssertionError(f"Invalid layout {layout}; must be one of ['TNC' or 'NTC']")
        self._hidden_size = hidden_size
        self._projection_size = projection_size
        self._num_layers = num_layers
        self._mode = mode
        self._layout = layout
        self._dropout = dropout
        self._dir = 2 if bidirectional else 1
        self._input_size = input_size
        self._dtype = dtype
        self._use_sequence_length = use_sequence_length
        self._clip = {
            name: value
            for name, value in (
                ("lstm_state_clip_min", lstm_state_clip_min),
                ("lstm_state_clip_max", lstm_state_clip_max),
                ("lstm_state_clip_nan", lstm_state_clip_nan),
            )
            if value is not None
        }
        rows = _GATES[mode] * hidden_size
        out_size = projection_size or hidden_size
        width = input_size
        for layer in range(num_layers):
            for direction in ("l", "r")[: self._dir]:
                own = [
                    ("i2h_weight", (rows, width), i2h_weight_initializer),
                    ("h2h_weight", (rows, out_size), h2h_weight_initializer),
                    ("i2h_bias", (rows,), i2h_bias_initializer),
                    ("h2h_bias", (rows,), h2h_bias_initializer),
                ]
                if projection_size:
                    own.append(("h2r_weight", (projection_size, hidden_size), h2r_weight_initializer))
                for name, shape, init in own:
                    full = f"{direction}{layer}_{name}"
                    param = self.params.get(
                        full, shape=shape, init=init, allow_deferred_init=True, dtype=dtype
                    )
                    setattr(self, full, param)
            width = out_size * self._dir

    def __repr__(self) -> str:
        shape = self.l0_i2h_weight.shape  # type: ignore[attr-defined]  # set by name in __init__
        parts = [f"{shape[1] or None} -> {shape[0] // _GATES[self._mode]}", self._layout]
        if self._num_layers != 1:
            parts.append(f"num_layers={self._num_layers}")
        if self._dropout != 0:
            parts.append(f"dropout={self._dropout}")
        if self._dir == 2:
            parts.append("bidirectional")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Any]:
        # The names that files have: those of the cells that `_unfuse` makes.
        if prefix:
            prefix += "."
        found = {}
        for name, param in self._reg_params.items():
            place, kind = name.split("_", 1)
            cell = f"{place[0]}_cell." if self._dir == 2 else ""
            found[f"{prefix}_unfused.{place[1:]}.{cell}{kind}"] = param
        return found

    def _unfuse(self) -> HybridSequentialRNNCell:
        """Cells that compute the same and share the parameters."""
        if self._projection_size or self._clip:
            raise NotImplementedError("_unfuse: no cell of gluon.rnn has projections or clips its state")
        stack = HybridSequentialRNNCell(prefix=self.prefix, params=self.params)
        width = self._input_size
        with stack.name_scope():
            for layer in range(self._num_layers):
                cells = [self._plain_cell(f"{d}{layer}_", width) for d in ("l", "r")[: self._dir]]
                stack.add(BidirectionalCell(*cells) if self._dir == 2 else cells[0])
                if self._dropout > 0 and layer != self._num_layers - 1:
                    stack.add(DropoutCell(self._dropout))
                width = self._hidden_size * self._dir
        return stack

    def _plain_cell(self, prefix: str, width: int) -> Any:
        if self._mode == "lstm":
            return LSTMCell(self._hidden_size, input_size=width, prefix=prefix)
        if self._mode == "gru":
            return GRUCell(self._hidden_size, input_size=width, prefix=prefix)
        activation = self._mode.removeprefix("rnn_")
        return RNNCell(self._hidden_size, activation, input_size=width, prefix=prefix)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape, layout and dtype of each state: (num_layers * directions, batch_size, hidden_size)."""
        size = self._projection_size or self._hidden_size
        shape = (self._num_layers * self._dir, batch_size, size)
        return [{"shape": shape, "__layout__": "LNC", "dtype": self._dtype}]

    def begin_state(
        self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any
    ) -> list[Any]:
        """The states before the first step, made by `func` with `kwargs`."""
        return [
            func(name=f"{self.prefix}h0_{i}", **{**info, **kwargs})
            for i, info in enumerate(self.state_info(batch_size))
        ]

    def cast(self, dtype: Any) -> None:
        """Change the dtype of the parameters and of the states made from now on."""
        super().cast(dtype)
        self._dtype = dtype

    def _param_shapes(self, inputs: Any, *states: Any) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        rows = _GATES[self._mode] * self._hidden_size
        return {f"{d}0_i2h_weight": (rows, inputs.shape[2]) for d in ("l", "r")[: self._dir]}

    def __call__(self, inputs: Any, states: Any = None, sequence_length: Any = None) -> Any:
        """Outputs (with their axes as the layout says) and, where `states` were given, the states after them.

        `states` are those of `begin_state`. `sequence_length` (batch,) tells where each sequence ends, if the
        layer was made with `use_sequence_length=True`.
        """
        skip_states = states is None
        if skip_states:
            if isinstance(inputs, NDArray):
                batch_size = inputs.shape[self._layout.find("N")]
                states = self.begin_state(batch_size, ctx=inputs.context, dtype=inputs.dtype)
            else:
                from ... import symbol  # only programs with Symbols need it

                states = self.begin_state(0, func=symbol.zeros)
        elif not isinstance(states, list | tuple):
            states = [states]
        if self._use_sequence_length:
            outputs, states = super().__call__(inputs, states, sequence_length)
        else:
            outputs, states = super().__call__(inputs, states)
        return outputs if skip_states else (outputs, states)

    def hybrid_forward(  # type: ignore[override]
        self, F: Any, inputs: Any, states: Any, sequence_length: Any = None, **kwargs: Any
    ) -> Any:
        """Outputs and states."""
        operator = getattr(F, "RNN", None)
        if operator is None:
            raise NotImplementedError(
                f"gluon.rnn.{type(self).__name__} needs the operator RNN, which is not built yet in mxrs; "
                f"{type(self).__name__}Cell with unroll works without it"
            )
        if F is ndarray:
            batch_size = inputs.shape[self._layout.find("N")]
            for state, info in zip(states, self.state_info(batch_size), strict=True):
                if state.shape != info["shape"]:
                    raise ValueError(
                        f"Invalid recurrent state shape. Expecting {info['shape']}, got {state.shape}."
                    )
        if self._layout == "NTC":
            inputs = F.swapaxes(inputs, dim1=0, dim2=1)
        ends = [sequence_length] if self._use_sequence_length else []
        rnn = operator(
            inputs,
            self._vector(F, kwargs),
            *states,
            *ends,
            use_sequence_length=self._use_sequence_length,
            state_size=self._hidden_size,
            projection_size=self._projection_size,
            num_layers=self._num_layers,
            bidirectional=self._dir == 2,
            p=self._dropout,
            state_outputs=True,
            mode=self._mode,
            **self._clip,
        )
        outputs = rnn[0]
        if self._layout == "NTC":
            outputs = F.swapaxes(outputs, dim1=0, dim2=1)
        return outputs, [rnn[1 + i] for i in range(len(states))]

    def _vector(self, F: Any, params: dict[str, Any]) -> Any:
        """The parameters as the operator takes them."""
        groups = ["i2h", "h2h", "h2r"] if self._projection_size else ["i2h", "h2h"]
        names = [
            f"{direction}{layer}_{group}_{kind}"
            for kind in ("weight", "bias")
            for layer in range(self._num_layers)
            for direction in ("l", "r")[: self._dir]
            for group in groups
            if (group, kind) != ("h2r", "bias")
        ]
        return F.concat(*[F.reshape(params[name], shape=(-1,)) for name in names], dim=0)


class RNN(_RNNLayer):
    """Layers of plain cells (see `RNNCell`) with `activation` 'relu' or 'tanh'; other arguments as of `LSTM`."""

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        activation: str = "relu",
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        if activation not in ("relu", "tanh"):
            raise ValueError(f"gluon.rnn.RNN: activation must be 'relu' or 'tanh', got {activation!r}")
        super().__init__(
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            f"rnn_{activation}",
            dtype=dtype,
            **kwargs,
        )


class LSTM(_RNNLayer):
    """Layers of long short-term memory (see `LSTMCell`).

    Arguments:
        hidden_size: size of each layer's states.
        num_layers: layers on one another.
        layout: of inputs and outputs, 'TNC' or 'NTC'.
        dropout: probability, between layers.
        bidirectional: a second set of cells takes the sequence from its end; outputs are twice as wide.
        input_size: size of the input; 0 lets the first batch tell.
        i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer: initializers,
            or their names.
        projection_size: outputs and hidden states are projected to this size (Sak et al. 2014).
        h2r_weight_initializer: of the projection.
        state_clip_min, state_clip_max, state_clip_nan: bounds for the cell state; whether nan is clipped too.
        dtype: of parameters and states.
        use_sequence_length: calls give the length of each sequence.
        prefix, params: as of `Block`.

    Raises NotImplementedError when called while the operator RNN is not built.
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        input_size: int = 0,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        projection_size: int | None = None,
        h2r_weight_initializer: Any = None,
        state_clip_min: float | None = None,
        state_clip_max: float | None = None,
        state_clip_nan: bool = False,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            "lstm",
            projection_size,
            h2r_weight_initializer,
            state_clip_min,
            state_clip_max,
            state_clip_nan or None,
            dtype,
            **kwargs,
        )

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Hidden state (num_layers * directions, batch_size, hidden_size or projection_size) and cell state."""
        cell = (self._num_layers * self._dir, batch_size, self._hidden_size)
        return [
            *super().state_info(batch_size),
            {"shape": cell, "__layout__": "LNC", "dtype": self._dtype},
        ]


class GRU(_RNNLayer):
    """Layers of gated recurrent units (see `GRUCell`); arguments as of `LSTM`."""

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        input_size: int = 0,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            "gru",
            dtype=dtype,
            **kwargs,
        )
