"""Gluon's cells made of other cells: stacks, both directions, and modifiers (dropout, zoneout, residual)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ... import ndarray
from ...base import numeric_types
from ..utils import indent
from .recurrent_cell import (
    HybridRecurrentCell,
    RecurrentCell,
    as_sequence,
    default_states,
    is_one,
    mask_sequence,
    reverse_steps,
)

__all__ = [
    "BidirectionalCell",
    "DropoutCell",
    "HybridSequentialRNNCell",
    "ModifierCell",
    "ResidualCell",
    "SequentialRNNCell",
    "ZoneoutCell",
]


class _CellStack(RecurrentCell):
    """What the two stacks have in common: cells by position, whose states follow one another."""

    def add(self, cell: RecurrentCell) -> None:
        """Put a cell on top."""
        self.register_child(cell)

    def __repr__(self) -> str:
        rows = [f"({key}): {indent(repr(cell), 2)}" for key, cell in self._children.items()]
        return "{}(\n{}\n)".format(type(self).__name__, "\n".join(rows))

    def __getitem__(self, i: int) -> Any:
        """The cell at a position."""
        return list(self._children.values())[i]

    def __len__(self) -> int:
        return len(self._children)

    def _cells(self) -> list[Any]:
        return list(self._children.values())

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The states of all cells."""
        return [info for cell in self._cells() for info in cell.state_info(batch_size)]

    def begin_state(self, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # MXNet's signature
        """The states of all cells before the first step; arguments by name, as of `RecurrentCell.begin_state`."""
        self._check_not_modified()
        return [state for cell in self._cells() for state in cell.begin_state(**kwargs)]

    def _step(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        next_states: list[Any] = []
        at = 0
        for cell in self._cells():
            if isinstance(cell, BidirectionalCell):
                raise AssertionError(
                    f"{type(self).__name__}: a BidirectionalCell cannot be stepped; use unroll"
                )
            count = len(cell.state_info())
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
        valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:
        """See `RecurrentCell.unroll`; each cell is unrolled before the next."""
        self.reset()
        F, inputs, _, batch_size = as_sequence(length, inputs, layout, None)
        states = default_states(self, F, begin_state, inputs, batch_size)
        next_states: list[Any] = []
        cells = self._cells()
        at = 0
        for i, cell in enumerate(cells):
            count = len(cell.state_info())
            inputs, new = cell.unroll(
                length,
                inputs,
                begin_state=states[at : at + count],
                layout=layout,
                merge_outputs=merge_outputs if i == len(cells) - 1 else None,
                valid_length=valid_length,
            )
            next_states += new
            at += count
        return inputs, next_states


class SequentialRNNCell(_CellStack):
    """Cells of any kind one on another: each takes the outputs of the one before."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step of all cells."""
        self._counter += 1
        return self._step(inputs, states)

    def hybrid_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises NotImplementedError: this stack is no HybridBlock."""
        raise NotImplementedError("SequentialRNNCell is called, or unrolled; it has no hybrid_forward")


class HybridSequentialRNNCell(_CellStack, HybridRecurrentCell):
    """Hybrid cells one on another: each takes the outputs of the one before."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)

    def hybrid_forward(self, F: Any, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:  # type: ignore[override]
        """One step of all cells."""
        return self._step(inputs, states)


class DropoutCell(HybridRecurrentCell):
    """Dropout on the outputs of the cell below, with probability `rate`; it has no state.

    Elements that differ only along `axes` share one draw.
    """

    def __init__(
        self, rate: float, axes: Sequence[int] = (), prefix: str | None = None, params: Any = None
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        if not isinstance(rate, numeric_types):
            raise AssertionError(f"rate must be a number, got {rate!r}")
        self._rate = rate
        self._axes = axes

    def _alias(self) -> str:
        return "dropout"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """No states."""
        return []

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> tuple[Any, Any]:  # type: ignore[override]
        """One step."""
        if self._rate > 0:
            inputs = F.Dropout(inputs, p=self._rate, axes=self._axes, name=f"t{self._counter}_fwd")
        return inputs, states

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
        valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:
        """See `RecurrentCell.unroll`; a sequence in one array is dropped at once, and nothing needs masking."""
        self.reset()
        _, sequence, _, _ = as_sequence(length, inputs, layout, merge_outputs)
        if is_one(sequence):
            return self(sequence, [])
        return [self(step, [])[0] for step in sequence], []

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rate={self._rate}, axes={self._axes})"


class ModifierCell(HybridRecurrentCell):
    """Base of cells that change what another cell does; it uses the other's parameters and states.

    The base cell's `begin_state` must not be called any more.
    """

    def __init__(self, base_cell: HybridRecurrentCell) -> None:
        if base_cell._modified:
            raise AssertionError(
                f"Cell {base_cell.name} is already modified. One cell cannot be modified twice"
            )
        base_cell._modified = True
        super().__init__(prefix=base_cell.prefix + self._alias(), params=None)
        self.base_cell = base_cell

    @property
    def params(self) -> Any:
        """The parameters of the base cell."""
        return self.base_cell.params

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The states of the base cell."""
        return self.base_cell.state_info(batch_size)

    def begin_state(self, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # MXNet's signature
        """The states of the base cell before the first step."""
        self._check_not_modified()
        self.base_cell._modified = False
        try:
            return self.base_cell.begin_state(func=func, **kwargs)
        finally:
            self.base_cell._modified = True

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:  # type: ignore[override]
        """The step; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define hybrid_forward()")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_cell!r})"


class ZoneoutCell(ModifierCell):
    """In training, keeps elements of the outputs and states of the step before with the given probabilities
    (Krueger et al. 2016).

    Raises AssertionError for cells that cannot be stepped.
    """

    def __init__(
        self, base_cell: HybridRecurrentCell, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0
    ) -> None:
        if any(isinstance(cell, BidirectionalCell) for cell in (base_cell, *base_cell._children.values())):
            raise AssertionError(
                "BidirectionalCell doesn't support zoneout since it doesn't support step. Please add ZoneoutCell "
                "to the cells underneath instead."
            )
        super().__init__(base_cell)
        self.zoneout_outputs = zoneout_outputs
        self.zoneout_states = zoneout_states
        self._prev_output: Any = None

    def _alias(self) -> str:
        return "zoneout"

    def reset(self) -> None:
        """Also forget the last output."""
        super().reset()
        self._prev_output = None

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> tuple[Any, list[Any]]:  # type: ignore[override]
        """One step."""
        output, new = self.base_cell(inputs, states)

        def mask(p: float, like: Any) -> Any:
            # Dropout of ones: zero, with probability p, where the element of the step before is kept.
            return F.Dropout(F.ones_like(like), p=p)

        if self.zoneout_outputs:
            keep = mask(self.zoneout_outputs, output)
            # Tracing leaves Symbols here, which are no outputs of the sequence that arrays come from.
            known = isinstance(self._prev_output, type(output))
            before = self._prev_output if known else F.zeros_like(output)
            output = F.where(keep, output, before)
        if self.zoneout_states:
            new = [
                F.where(mask(self.zoneout_states, after), after, before)
                for after, before in zip(new, states, strict=True)
            ]
        self._prev_output = output
        return output, new

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(p_out={self.zoneout_outputs}, p_state={self.zoneout_states}, "
            f"{self.base_cell!r})"
        )


class ResidualCell(ModifierCell):
    """Adds the input of each step to the output of the base cell (Wu et al. 2016); both have one shape."""

    def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> tuple[Any, list[Any]]:  # type: ignore[override]
        """One step."""
        output, new = self.base_cell(inputs, states)
        return F.elemwise_add(output, inputs, name=f"t{self._counter}_fwd"), new

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
        valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:
        """See `RecurrentCell.unroll`."""
        self.reset()
        self.base_cell._modified = False
        try:
            outputs, states = self.base_cell.unroll(
                length,
                inputs,
                begin_state=begin_state,
                layout=layout,
                merge_outputs=merge_outputs,
                valid_length=valid_length,
            )
        finally:
            self.base_cell._modified = True
        merge = is_one(outputs) if merge_outputs is None else merge_outputs
        F, sequence, axis, _ = as_sequence(length, inputs, layout, merge)
        if valid_length is not None:
            sequence = mask_sequence(F, sequence, length, valid_length, axis, merge)
        if merge:
            return F.elemwise_add(outputs, sequence), states
        return [F.elemwise_add(a, b) for a, b in zip(outputs, sequence, strict=True)], states


class BidirectionalCell(HybridRecurrentCell):
    """Two cells, of which the second takes the sequence from its end; their outputs side by side.

    It can only be unrolled (`__call__` raises NotImplementedError).
    """

    def __init__(
        self, l_cell: HybridRecurrentCell, r_cell: HybridRecurrentCell, output_prefix: str = "bi_"
    ) -> None:
        super().__init__(prefix="", params=None)
        self.register_child(l_cell, "l_cell")
        self.register_child(r_cell, "r_cell")
        self._output_prefix = output_prefix

    def __call__(self, inputs: Any, states: Any) -> Any:
        """Raises NotImplementedError."""
        raise NotImplementedError("Bidirectional cannot be stepped. Please use unroll")

    def __repr__(self) -> str:
        l_cell, r_cell = self._children.values()
        return f"{type(self).__name__}(forward={l_cell!r}, backward={r_cell!r})"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """The states of both cells."""
        cells: Any = self._children.values()
        return [info for cell in cells for info in cell.state_info(batch_size)]

    def begin_state(self, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # MXNet's signature
        """The states of both cells before the first step; arguments by name."""
        self._check_not_modified()
        cells: Any = self._children.values()
        return [state for cell in cells for state in cell.begin_state(**kwargs)]

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
        valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:
        """See `RecurrentCell.unroll`; with `valid_length` each sequence is reversed by itself."""
        self.reset()
        F, steps, _, batch_size = as_sequence(length, inputs, layout, False)
        states = default_states(self, F, begin_state, steps, batch_size)
        l_cell, r_cell = (cell for cell in self._children.values() if isinstance(cell, RecurrentCell))
        count = len(l_cell.state_info())
        # Steps of both directions have to be matched one by one, so the cells give lists.
        l_out, l_states = l_cell.unroll(length, steps, states[:count], layout, False, valid_length)
        r_out, r_states = r_cell.unroll(
            length, reverse_steps(F, steps, valid_length), states[count:], layout, False, valid_length
        )
        r_out = reverse_steps(F, r_out, valid_length)
        merge = valid_length is not None if merge_outputs is None else merge_outputs
        outputs: Any
        if merge:
            both = (as_sequence(length, out, layout, True)[1] for out in (l_out, r_out))
            outputs = F.concat(*both, dim=2, name=f"{self._output_prefix}out")
        else:
            outputs = [
                F.concat(left, right, dim=1, name=f"{self._output_prefix}t{i}")
                for i, (left, right) in enumerate(zip(l_out, r_out, strict=True))
            ]
        return outputs, [*l_states, *r_states]
