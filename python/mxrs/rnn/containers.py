"""Cells made of other cells: stacks, both directions, and modifiers (dropout, zoneout, residual)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import symbol as sym
from ..base import numeric_types
from .cells import BaseRNNCell, RNNParams, Weights, as_sequence
from .fused import FusedRNNCell

__all__ = [
    "BidirectionalCell",
    "DropoutCell",
    "ModifierCell",
    "ResidualCell",
    "SequentialRNNCell",
    "ZoneoutCell",
]


class _CellList(BaseRNNCell):
    """Cells whose states follow one another."""

    def __init__(self, prefix: str, params: RNNParams | None, cells: Sequence[BaseRNNCell] = ()) -> None:
        super().__init__(prefix=prefix, params=params)
        self._override_cell_params = params is not None
        self._cells: list[BaseRNNCell] = []
        for cell in cells:
            self._adopt(cell)

    def _adopt(self, cell: BaseRNNCell) -> None:
        if self._override_cell_params:
            if not cell._own_params:
                raise AssertionError(
                    f"{type(self).__name__}: either the container or its cells may be given params, not both"
                )
            cell.params._params.update(self._params._params)
        self._params._params.update(cell.params._params)
        self._cells.append(cell)

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """The states of all cells."""
        return [info for cell in self._cells for info in cell.state_info]

    def begin_state(self, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # MXNet's signature
        """The states of all cells before the first step."""
        self._check_not_modified()
        return [state for cell in self._cells for state in cell.begin_state(**kwargs)]

    def unpack_weights(self, args: Weights) -> Weights:
        """`args` with the weights of each gate of all cells apart."""
        for cell in self._cells:
            args = cell.unpack_weights(args)
        return args

    def pack_weights(self, args: Weights) -> Weights:
        """`args` with the weights of all cells stacked again."""
        for cell in self._cells:
            args = cell.pack_weights(args)
        return args


class SequentialRNNCell(_CellList):
    """Cells one on another: each takes the outputs of the one before."""

    def __init__(self, params: RNNParams | None = None) -> None:
        super().__init__("", params)

    def add(self, cell: BaseRNNCell) -> None:
        """Put a cell on top."""
        self._adopt(cell)

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step of all cells."""
        self._counter += 1
        next_states: list[Any] = []
        at = 0
        for cell in self._cells:
            if isinstance(cell, BidirectionalCell):
                raise AssertionError("SequentialRNNCell: a BidirectionalCell cannot be stepped; use unroll")
            count = len(cell.state_info)
            inputs, new = cell(inputs, states[at : at + count])
            next_states += new
            at += count
        return inputs, next_states

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """See `BaseRNNCell.unroll`; each cell is unrolled before the next."""
        self.reset()
        states = self.begin_state() if begin_state is None else begin_state
        next_states: list[Any] = []
        at = 0
        for i, cell in enumerate(self._cells):
            count = len(cell.state_info)
            last = i == len(self._cells) - 1
            inputs, new = cell.unroll(
                length, inputs, states[at : at + count], layout, merge_outputs if last else None
            )
            next_states += new
            at += count
        return inputs, next_states


class BidirectionalCell(_CellList):
    """Two cells, of which the second takes the sequence from its end; their outputs side by side.

    It can only be unrolled (`__call__` raises NotImplementedError). The states after the last step are a list
    for each cell.
    """

    def __init__(
        self,
        l_cell: BaseRNNCell,
        r_cell: BaseRNNCell,
        params: RNNParams | None = None,
        output_prefix: str = "bi_",
    ) -> None:
        super().__init__("", params, [l_cell, r_cell])
        self._output_prefix = output_prefix

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Raises NotImplementedError."""
        raise NotImplementedError("Bidirectional cannot be stepped. Please use unroll")

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """See `BaseRNNCell.unroll`."""
        self.reset()
        steps, axis = as_sequence(length, inputs, layout, False)
        states = self.begin_state() if begin_state is None else begin_state
        l_cell, r_cell = self._cells
        count = len(l_cell.state_info)
        l_out, l_states = l_cell.unroll(length, steps, states[:count], layout, merge_outputs)
        r_out, r_states = r_cell.unroll(length, steps[::-1], states[count:], layout, merge_outputs)
        if merge_outputs is None:
            merge_outputs = isinstance(l_out, sym.Symbol) and isinstance(r_out, sym.Symbol)
            if not merge_outputs:
                l_out, _ = as_sequence(length, l_out, layout, False)
                r_out, _ = as_sequence(length, r_out, layout, False)
        outputs: Any
        if merge_outputs:
            r_out = sym.reverse(r_out, axis=axis)
            outputs = sym.Concat(l_out, r_out, dim=2, name=f"{self._output_prefix}out")
        else:
            outputs = [
                sym.Concat(left, right, dim=1, name=f"{self._output_prefix}t{i}")
                for i, (left, right) in enumerate(zip(l_out, r_out[::-1], strict=True))
            ]
        return outputs, [l_states, r_states]


class DropoutCell(BaseRNNCell):
    """Dropout on the outputs of the cell below, with probability `dropout`; it has no state."""

    def __init__(self, dropout: float, prefix: str = "dropout_", params: RNNParams | None = None) -> None:
        super().__init__(prefix, params)
        if not isinstance(dropout, numeric_types):
            raise AssertionError(f"dropout probability must be a number, got {dropout!r}")
        self.dropout = dropout

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """No states."""
        return []

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        if self.dropout > 0:
            inputs = sym.Dropout(data=inputs, p=self.dropout)
        return inputs, list(states)

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """See `BaseRNNCell.unroll`; a sequence in one symbol is dropped at once."""
        self.reset()
        sequence, _ = as_sequence(length, inputs, layout, merge_outputs)
        if isinstance(sequence, sym.Symbol):
            return self(sequence, [])
        return [self(step, [])[0] for step in sequence], []


class ModifierCell(BaseRNNCell):
    """Base of cells that change what another cell does; it uses the other's parameters.

    The base cell must not be called any more.
    """

    def __init__(self, base_cell: BaseRNNCell) -> None:
        super().__init__()
        base_cell._modified = True
        self.base_cell = base_cell

    @property
    def params(self) -> RNNParams:
        """The parameters of the base cell."""
        self._own_params = False
        return self.base_cell.params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """The states of the base cell."""
        return self.base_cell.state_info

    def begin_state(self, init_sym: Callable[..., Any] = sym.zeros, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # MXNet's signature
        """The states of the base cell, made by `init_sym` (or `func`)."""
        self._check_not_modified()
        make = kwargs.pop("func", init_sym)
        self.base_cell._modified = False
        try:
            return self.base_cell.begin_state(func=make, **kwargs)
        finally:
            self.base_cell._modified = True

    def unpack_weights(self, args: Weights) -> Weights:
        """See `BaseRNNCell.unpack_weights`."""
        return self.base_cell.unpack_weights(args)

    def pack_weights(self, args: Weights) -> Weights:
        """See `BaseRNNCell.pack_weights`."""
        return self.base_cell.pack_weights(args)

    def reset(self) -> None:
        """Count anew, in the base cell too."""
        super().reset()
        if hasattr(self, "base_cell"):
            self.base_cell.reset()


class ZoneoutCell(ModifierCell):
    """Keeps elements of the outputs and states of the step before with the given probabilities (Krueger et al.
    2016).

    Raises AssertionError for cells that cannot be stepped.
    """

    def __init__(
        self, base_cell: BaseRNNCell, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0
    ) -> None:
        if isinstance(base_cell, FusedRNNCell):
            raise AssertionError("FusedRNNCell doesn't support zoneout. Please unfuse first.")
        if any(
            isinstance(cell, BidirectionalCell) for cell in [base_cell, *getattr(base_cell, "_cells", ())]
        ):
            raise AssertionError(
                "BidirectionalCell doesn't support zoneout since it doesn't support step. Please add ZoneoutCell "
                "to the cells underneath instead."
            )
        super().__init__(base_cell)
        self.zoneout_outputs = zoneout_outputs
        self.zoneout_states = zoneout_states
        self.prev_output: Any = None

    def reset(self) -> None:
        """Count anew and forget the last output."""
        super().reset()
        self.prev_output = None

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        output, new = self.base_cell(inputs, states)
        if self.zoneout_outputs:
            before = self.prev_output if self.prev_output is not None else sym.zeros((0, 0))
            output = sym.where(_mask(self.zoneout_outputs, output), output, before)
        if self.zoneout_states:
            new = [sym.where(_mask(self.zoneout_states, a), a, b) for a, b in zip(new, states, strict=True)]
        self.prev_output = output
        return output, new


def _mask(p: float, like: Any) -> Any:
    # Dropout of ones: zero, with probability p, where the element of the step before is kept.
    return sym.Dropout(sym.ones_like(like), p=p)


class ResidualCell(ModifierCell):
    """Adds the input of each step to the output of the base cell (Wu et al. 2016); both have one shape."""

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        output, new = self.base_cell(inputs, states)
        return _plus_residual(output, inputs), new

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """See `BaseRNNCell.unroll`."""
        self.reset()
        self.base_cell._modified = False
        try:
            outputs, states = self.base_cell.unroll(length, inputs, begin_state, layout, merge_outputs)
        finally:
            self.base_cell._modified = True
        if merge_outputs is None:
            merge_outputs = isinstance(outputs, sym.Symbol)
        sequence, _ = as_sequence(length, inputs, layout, merge_outputs)
        if merge_outputs:
            return _plus_residual(outputs, sequence), states
        return [_plus_residual(a, b) for a, b in zip(outputs, sequence, strict=True)], states


def _plus_residual(output: Any, inputs: Any) -> Any:
    return sym.elemwise_add(output, inputs, name=f"{output.name}_plus_residual")
