"""The base of Gluon's recurrent cells: steps, states, and unrolling over a sequence.

A sequence is one array (or Symbol) with an axis of time, or a list of steps (batch, channels). The functions at
the end turn one into the other, mask what lies behind a sequence's end, and reverse sequences. The steps
themselves are in `cells` and `containers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import ndarray
from ...ndarray import NDArray
from .._block import Block
from ..hybrid import HybridBlock

__all__ = [
    "HybridRecurrentCell",
    "RecurrentCell",
    "as_sequence",
    "default_states",
    "is_one",
    "mask_sequence",
    "reverse_steps",
]


class RecurrentCell(Block):
    """Base of all cells.

    A cell is called with the input of one step (batch, channels) and a list of states; it gives the step's output
    and the next states. A subclass gives `state_info` and the step.

    Arguments:
        prefix, params: as of `Block`.
    """

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self._modified = False
        self.reset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def reset(self) -> None:
        """Forget what the last sequence left in the cell, before it takes another."""
        self._init_counter = -1
        self._counter = -1
        for cell in self._children.values():
            cell.reset()  # type: ignore[attr-defined]  # children of cells are cells

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_info()")

    def begin_state(
        self, batch_size: int = 0, func: Callable[..., Any] = ndarray.zeros, **kwargs: Any
    ) -> list[Any]:
        """The states before the first step, made by `func` (`nd.zeros`, `sym.Variable`, ...).

        `func` is called with name, shape and layout of each state and with `kwargs` (`ctx`, `dtype`, ...). Raises
        AssertionError where a modifier cell was put on this one: that one has to be asked.
        """
        self._check_not_modified()
        states = []
        for info in self.state_info(batch_size):
            self._init_counter += 1
            name = f"{self._prefix}begin_state_{self._init_counter}"
            states.append(func(name=name, **{**info, **kwargs}))
        return states

    def _check_not_modified(self) -> None:
        if self._modified:
            raise AssertionError(
                "After applying modifier cells (e.g. ZoneoutCell) the base cell cannot be called directly. Call "
                "the modifier cell instead."
            )

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Sequence[Any] | None = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
        valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:
        """Run the cell over a sequence; gives the outputs and the states after it.

        Arguments:
            length: number of steps.
            inputs: a sequence in one array, or a list of steps.
            begin_state: the first states; zeros by default.
            layout: where time stands in a sequence in one array: 'NTC' or 'TNC'.
            merge_outputs: outputs in one array, or as a list of steps; by default a list, and with
                `valid_length` one array.
            valid_length: (batch,) numbers of steps that each sequence really has. Outputs behind them are zero,
                and the states are those after the last valid step.

        Raises AssertionError for inputs of another number of steps.
        """
        self.reset()
        F, steps, axis, batch_size = as_sequence(length, inputs, layout, False)
        states: Any = default_states(self, F, begin_state, steps, batch_size)
        outputs: Any = []
        all_states = []
        for step in steps:
            output, states = self(step, states)
            outputs.append(output)
            all_states.append(states)
        if valid_length is None:
            return as_sequence(length, outputs, layout, merge_outputs)[1], states
        states = [
            F.SequenceLast(
                F.stack(*each, axis=0), sequence_length=valid_length, use_sequence_length=True, axis=0
            )
            for each in zip(*all_states, strict=True)
        ]
        return mask_sequence(F, outputs, length, valid_length, axis, merge_outputs), states

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:  # type: ignore[override]  # a step
        """One step."""
        self._counter += 1
        return super().forward(inputs, states)


class HybridRecurrentCell(RecurrentCell, HybridBlock):
    """Base of cells whose step is a `hybrid_forward(F, inputs, states, ...)`."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The step; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define hybrid_forward()")


# ---- sequences ---------------------------------------------------------------------------------------------


def is_one(sequence: Any) -> bool:
    """Whether a sequence is in one array or Symbol, not in a list of steps."""
    return not isinstance(sequence, list | tuple)


def _namespace(value: Any) -> Any:
    if isinstance(value, NDArray):
        return ndarray
    # Only programs with Symbols need the module.
    from ... import symbol

    if not isinstance(value, symbol.Symbol):
        raise TypeError(f"a step of a sequence must be an NDArray or a Symbol, got {type(value).__name__}")
    return symbol


def as_sequence(
    length: int | None, inputs: Any, layout: str, merge: bool | None
) -> tuple[Any, Any, int, int]:
    """A sequence in one array (`merge`), in a list (`merge=False`) or as it is (None); with the namespace of
    its operators, the axis of time, and the batch size (0 where it is not known).
    """
    axis = layout.find("T")
    if axis < 0:
        raise AssertionError(f"layout must hold T, the axis of time, got {layout!r}")
    if is_one(inputs):
        F = _namespace(inputs)
        batch_size = 0
        if F is ndarray:
            batch_size = inputs.shape[layout.find("N")]
            if length is None:
                length = inputs.shape[axis]
            if length != inputs.shape[axis]:
                raise AssertionError(
                    f"unroll: inputs of shape {inputs.shape} have {inputs.shape[axis]} steps in layout {layout}, "
                    f"not length={length}"
                )
        elif len(inputs.list_outputs()) != 1:
            raise AssertionError(
                "unroll doesn't allow grouped symbol as input. Please convert to list with list(inputs) first or "
                "let unroll handle splitting."
            )
        if merge is False:
            inputs = _steps(F, inputs, length, axis)
        return F, inputs, axis, batch_size
    if not inputs or (length is not None and len(inputs) != length):
        raise AssertionError(f"unroll: {len(inputs)} inputs were given for length={length}")
    F = _namespace(inputs[0])
    batch_size = inputs[0].shape[0] if F is ndarray else 0
    if merge:
        inputs = F.stack(*inputs, axis=axis)
    return F, inputs, axis, batch_size


def _steps(F: Any, sequence: Any, length: int | None, axis: int) -> list[Any]:
    steps = F.split(sequence, axis=axis, num_outputs=length, squeeze_axis=1)
    return [steps] if isinstance(steps, NDArray) else list(steps)


def default_states(
    cell: RecurrentCell, F: Any, begin_state: Sequence[Any] | None, inputs: Any, batch_size: int
) -> Sequence[Any]:
    """The states given, or zeros on the device and in the floating dtype of the inputs."""
    if begin_state is not None:
        return begin_state
    if F is not ndarray:
        return cell.begin_state(func=F.zeros, batch_size=batch_size)
    first = inputs if is_one(inputs) else inputs[0]
    more = {"dtype": first.dtype} if np.dtype(first.dtype).kind == "f" else {}
    return cell.begin_state(func=F.zeros, batch_size=batch_size, ctx=first.context, **more)


def mask_sequence(
    F: Any, sequence: Any, length: int, valid_length: Any, axis: int, merge: bool | None
) -> Any:
    """The sequence with zeros behind each end; in one array unless `merge` is False."""
    if not is_one(sequence):
        sequence = F.stack(*sequence, axis=axis)
    masked = F.SequenceMask(sequence, sequence_length=valid_length, use_sequence_length=True, axis=axis)
    return _steps(F, masked, length, axis) if merge is False else masked


def reverse_steps(F: Any, steps: list[Any], valid_length: Any) -> list[Any]:
    """The steps from the end of each sequence to its beginning; what lies behind the ends stays there."""
    if valid_length is None:
        return steps[::-1]
    backwards = F.SequenceReverse(
        F.stack(*steps, axis=0), sequence_length=valid_length, use_sequence_length=True
    )
    return _steps(F, backwards, len(steps), 0)
