"""The table of `Block.summary`: output shapes and parameter counts, gathered by forward hooks in one run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .. import ndarray

if TYPE_CHECKING:
    from ._block import Block
    from .parameter import Parameter
    from .utils import HookHandle

__all__ = ["print_summary"]

_WIDTH = 80


def _row(layer: str, shape: object, count: object) -> str:
    return f"{layer:>20}  {shape!s:>42} {count!s:>15}"


def _shapes(value: Any) -> Any:
    if isinstance(value, ndarray.NDArray):
        return tuple(value.shape)
    if isinstance(value, list | tuple):
        return [_shapes(item) for item in value]
    return value


def _shape_text(value: Any) -> str:
    """One array's shape, or the shapes of several with commas between them."""
    shapes = _shapes(value)
    return ", ".join(str(item) for item in shapes) if isinstance(shapes, list) else str(shapes)


def _size(param: Parameter) -> int:
    return math.prod(param.shape or (0,))


class _Table:
    """Rows in the order in which layers finish, and the parameters counted on the way."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.total = self.trainable = self.shared = 0
        self._seen: set[int] = set()

    def add(self, block: Block, inputs: tuple[Any, ...], outputs: Any) -> None:
        count = 0
        for param in block._reg_params.values():
            size = _size(param)
            count += size
            if param.grad_req != "null":
                self.trainable += size
            if id(param) in self._seen:
                self.shared += size
            self._seen.add(id(param))
        self.total += count
        self.rows.append(_row(f"{type(block).__name__}-{len(self.rows) + 1}", _shape_text(outputs), count))


def print_summary(block: Block, inputs: tuple[Any, ...]) -> None:
    """Run `inputs` through `block` and print the table."""
    from .nn.containers import HybridSequential, Sequential

    table = _Table()
    handles: list[HookHandle] = []
    watched: set[int] = set()

    def watch(part: Block) -> None:
        if getattr(part, "_active", False):
            raise AssertionError(f'"{part.name}" must not be hybridized to print summary.')
        # A container only strings its children together: its row would repeat the last one's. A block at
        # two places is visited twice, and one hook sees both of its calls.
        container = isinstance(part, Sequential | HybridSequential) and part._children
        if not container and id(part) not in watched:
            watched.add(id(part))
            handles.append(part.register_forward_hook(table.add))

    try:
        block.apply(watch)
        block(*inputs)
    finally:
        for handle in handles:
            handle.detach()
    shown = inputs[0] if len(inputs) == 1 else list(inputs)
    lines = [
        "-" * _WIDTH,
        _row("Layer (type)", "Output Shape", "Param #"),
        "=" * _WIDTH,
        _row("Input", _shape_text(shown), 0),
        *table.rows,
        "=" * _WIDTH,
        "Parameters in forward computation graph, duplicate included",
        f"   Total params: {table.total}",
        f"   Trainable params: {table.trainable}",
        f"   Non-trainable params: {table.total - table.trainable}",
        f"Shared params in forward computation graph: {table.shared}",
        f"Unique parameters in model: {table.total - table.shared}",
        "-" * _WIDTH,
    ]
    print("\n".join(lines))
