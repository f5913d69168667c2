"""`Watched`: a graph that gives every value it computes, for monitors and hooks.

Executors and hybridized blocks build it in place of their graph while somebody watches, and hand its outputs to
`report`. Which of them the watcher asked for, and when, is theirs to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import _core
from .symbol import Group, load_json

__all__ = ["Watched"]

#: What each operator's inputs are called.
_INPUT_NAMES: dict[str, list[str]] = {}
#: Operators that give their statistics too when asked by this parameter; MXNet shows them to monitors.
_STATISTICS = "output_mean_var"
_HAVE_STATISTICS: set[str] = set()


class Watched:
    """The graph of `symbol` with every value as an output, behind the outputs that it had.

    Attributes
    ----------
    symbol : Symbol
        The graph to run: the outputs of the one given, then every value.
    own : int
        How many outputs come first.

    Values inside the operators are not seen, except the statistics of the normalizations: neither the mask of a
    Dropout nor what the backward pass computes.
    """

    def __init__(self, symbol: Any) -> None:
        graph = json.loads(symbol.tojson(remove_amp_cast=False))
        _read_operators()
        for node in graph["nodes"]:
            if node["op"] in _HAVE_STATISTICS:
                node.setdefault("attrs", {})[_STATISTICS] = "True"
        plain = load_json(json.dumps(graph))
        internals = plain.get_internals()
        self.own = len(graph["heads"])
        self.symbol = Group([*(plain[i] for i in range(self.own)), *internals])
        self._nodes: list[dict[str, Any]] = graph["nodes"]
        self._names: list[str] = internals.list_outputs()
        heads = json.loads(internals.tojson(remove_amp_cast=False))["heads"]
        self._places = {(head[0], head[1]): i for i, head in enumerate(heads)}
        self._visible = set(symbol.get_internals().list_outputs())

    def report(
        self,
        values: Sequence[Any],
        tell: Callable[[str, str, Any], None],
        inputs: bool,
        hidden: bool = True,
    ) -> None:
        """Calls `tell(name, operator, value)` for the outputs of every operator.

        Parameters
        ----------
        values : sequence of NDArray
            The outputs of :attr:`symbol` behind the first :attr:`own`.
        tell : callable
            What is to be told.
        inputs : bool
            Tell the inputs of every operator before its outputs, under the operator's names for them. A variable is
            told under its own name before that.
        hidden : bool
            Tell outputs that the graph itself does not show, as the mean and variance of a BatchNorm.
        """
        outputs: dict[int, list[int]] = {}
        for (node, _), place in self._places.items():
            outputs.setdefault(node, []).append(place)
        for i, node in enumerate(self._nodes):
            kind = node["op"]
            if kind == "null":
                continue
            if inputs:
                self._tell_inputs(node, values, tell)
            for place in outputs.get(i, []):
                if hidden or self._names[place] in self._visible:
                    tell(self._names[place], kind, values[place])

    def _tell_inputs(
        self, node: Mapping[str, Any], values: Sequence[Any], tell: Callable[[str, str, Any], None]
    ) -> None:
        labels = _INPUT_NAMES.get(node["op"]) or [f"arg{i}" for i in range(len(node["inputs"]))]
        for label, (source, index, *_) in zip(labels, node["inputs"], strict=False):
            place = self._places.get((source, index))
            if place is None:
                continue
            origin = self._nodes[source]
            if origin["op"] == "null":
                tell(origin["name"], node["op"], values[place])
            tell(f"{node['name']}_{label}", node["op"], values[place])


def _read_operators() -> None:
    if _INPUT_NAMES:
        return
    for record in _core.list_ops():
        names = [name for name, _ in record["inputs"]]
        for spelling in (record["name"], *record["aliases"]):
            _INPUT_NAMES[spelling] = [] if record["variadic"] else names
            if any(param["name"] == _STATISTICS for param in record["params"]):
                _HAVE_STATISTICS.add(spelling)
