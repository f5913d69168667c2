"""Blocks that run their children one after another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from .._block import Block
from ..hybrid import HybridBlock
from ..utils import indent

__all__ = ["HybridSequential", "Sequential"]


class _Stack(Block):
    """What the two sequential blocks have in common: children by position."""

    def add(self, *blocks: Block) -> None:
        """Append blocks at the end."""
        for block in blocks:
            self.register_child(block)

    def __repr__(self) -> str:
        rows = [f"  ({key}): {indent(repr(block), 2)}" for key, block in self._children.items()]
        return "{}(\n{}\n)".format(type(self).__name__, "\n".join(rows))

    def __getitem__(self, key: int | slice) -> Any:
        """The child at a position, or for a slice a block of the same type that holds these children."""
        children = list(self._children.values())[key]
        if not isinstance(children, list):
            return children
        part = type(self)(prefix=self._prefix)
        with part.name_scope():
            part.add(*children)
        return part

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._children.values()))


class Sequential(_Stack):
    """Runs blocks of any kind one after another, each on the output of the one before."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)

    def forward(self, x: Any, *args: Any) -> Any:
        """Feed `x` through the children; extra arguments go to the first."""
        for block in self._children.values():
            x = block(x, *args)
            args = ()
        return x

    def hybridize(self, active: bool = True, **kwargs: Any) -> None:
        """Hand the wish on to the children, with a warning where a HybridSequential would do better."""
        if self._children and all(isinstance(child, HybridBlock) for child in self._children.values()):
            warnings.warn(
                f"All children of this Sequential layer '{self.prefix}' are HybridBlocks. Consider using "
                "HybridSequential for the best performance.",
                stacklevel=2,
            )
        super().hybridize(active, **kwargs)


class HybridSequential(_Stack, HybridBlock):
    """Runs HybridBlocks one after another, each on the output of the one before."""

    def __init__(self, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)

    def hybrid_forward(self, F: Any, x: Any, *args: Any) -> Any:  # type: ignore[override]
        """Feed `x` through the children; extra arguments go to the first."""
        for block in self._children.values():
            x = block(x, *args)
            args = ()
        return x
