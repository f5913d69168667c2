"""`Placed`: a graph whose parts live on different devices, as `group2ctx` asks for.

The graph is cut where a value changes the device. Each part is an executor of its own on one device; between them values are
copied forwards and gradients backwards. An `Executor` uses it in place of the core's executor where a GPU is among the
devices; contexts of the host share memory and threads and need no cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, autograd
from . import ndarray as nd
from .context import Context
from .ndarray import NDArray

__all__ = ["Placed"]

#: An output of a node: the node's number and which of its outputs.
Entry = tuple[int, int]
_GPU = Context.devstr2type["gpu"]


class _Source(NamedTuple):
    """A variable of the whole graph: its array, where its gradient goes, and how."""

    array: NDArray
    grad: NDArray | None
    req: str


class _Part:
    """The nodes of one device between two copies."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.nodes: list[int] = []
        self.inputs: list[Entry] = []
        self.outputs: list[Entry] = []
        self.handle: Any = None
        #: What is copied in before every forward pass, from where to where; and states that are copied back.
        self.copied: list[tuple[NDArray, NDArray]] = []
        self.returned: list[tuple[NDArray, NDArray]] = []
        #: Gradients of inputs that this part computes.
        self.grads: dict[Entry, NDArray] = {}

    def symbol(self, nodes: Sequence[Mapping[str, Any]]) -> tuple[Any, dict[str, Entry]]:
        """The part as a graph, and which entry each of its variables stands for."""
        from .symbol import load_json

        made: list[dict[str, Any]] = []
        at: dict[Entry, Entry] = {}
        entries: dict[str, Entry] = {}
        for entry in self.inputs:
            node = nodes[entry[0]]
            name = f"{node['name']}[{entry[0]}.{entry[1]}]"
            entries[name] = entry
            at[entry] = (len(made), 0)
            # The hints of a variable (its shape, say) stay; an operator's parameters do not become a variable's.
            attrs = node.get("attrs", {}) if node["op"] == "null" else {}
            made.append({"op": "null", "name": name, "attrs": attrs, "inputs": []})
        for number in self.nodes:
            place = len(made)
            inputs = []
            for source, index, *rest in nodes[number]["inputs"]:
                node_at, output = at.get((source, index)) or (at[source, -1][0], index)
                inputs.append([node_at, output, *rest])
            at[number, -1] = (place, 0)
            made.append({**nodes[number], "inputs": inputs})
        graph = {
            "nodes": made,
            "arg_nodes": [i for i, node in enumerate(made) if node["op"] == "null"],
            "heads": [[at[number, -1][0], index, 0] for number, index in self.outputs],
        }
        return load_json(json.dumps(graph)), entries


class Placed:
    """What the core's executor is to an `Executor`, for a graph on several devices.

    Takes what that takes, but `place` in place of contexts: where the nodes of a ctx_group (or of none) are.
    """

    def __init__(
        self,
        symbol: Any,
        args: Sequence[NDArray],
        grads: Sequence[NDArray | None],
        reqs: Sequence[str],
        aux: Sequence[NDArray],
        place: Callable[[str | None], Context],
        own: int,
        memory_budget: str | None,
    ) -> None:
        graph = json.loads(symbol.tojson(remove_amp_cast=False))
        self._nodes: list[dict[str, Any]] = graph["nodes"]
        self._heads = [self._computed((head[0], head[1])) for head in graph["heads"]]
        self._own = own
        self._budget = memory_budget
        self._sources = self._variables(symbol, args, grads, reqs, aux)
        self._parts = self._cut(place)
        self._values: dict[Entry, NDArray] = {}
        wanted = self._differentiated()
        for part in self._parts:
            self._bind(part, wanted)

    @staticmethod
    def suits(contexts: Sequence[Context]) -> bool:
        """Whether arrays on these contexts need it."""
        return len(set(contexts)) > 1 and any(c.device_typeid == _GPU for c in contexts)

    # --- cutting the graph ---

    def _computed(self, head: Entry) -> Entry:
        """An output of the graph as that of an operator: a variable is copied by one."""
        node = self._nodes[head[0]]
        if node["op"] != "null":
            return head
        attrs = {k: v for k, v in node.get("attrs", {}).items() if k == "__ctx_group__"}
        copy = {"op": "_copy", "name": f"{node['name']}_out", "attrs": attrs, "inputs": [[head[0], 0, 0]]}
        self._nodes.append(copy)
        return len(self._nodes) - 1, 0

    def _variables(
        self,
        symbol: Any,
        args: Sequence[NDArray],
        grads: Sequence[NDArray | None],
        reqs: Sequence[str],
        aux: Sequence[NDArray],
    ) -> dict[int, _Source]:
        states = set(symbol.list_auxiliary_states())
        given = iter([_Source(*source) for source in zip(args, grads, reqs, strict=True)])
        held = iter([_Source(array, None, "aux") for array in aux])
        variables = [i for i, node in enumerate(self._nodes) if node["op"] == "null"]
        return {i: next(held if self._nodes[i]["name"] in states else given) for i in variables}

    def _cut(self, place: Callable[[str | None], Context]) -> list[_Part]:
        """Parts in the order in which they run.

        A node stands behind as many copies as its inputs force it to; nodes of one device behind equally many copies are a part.
        Nothing that a part needs can then come from a later one.
        """
        stage: dict[int, int] = {}
        where: dict[int, Context] = {}
        parts: dict[tuple[int, Context], _Part] = {}
        for number, node in enumerate(self._nodes):
            if node["op"] == "null":
                continue
            ctx = where[number] = place(node.get("attrs", {}).get("__ctx_group__"))
            before = [source for source, *_ in node["inputs"] if source in stage]
            stage[number] = max((stage[s] + (where[s] != ctx) for s in before), default=0)
            part = parts.setdefault((stage[number], ctx), _Part(ctx))
            part.nodes.append(number)
        ordered = [parts[key] for key in sorted(parts, key=lambda k: k[0])]
        home = {number: part for part in ordered for number in part.nodes}
        for part in ordered:
            for number in part.nodes:
                for source, index, *_ in self._nodes[number]["inputs"]:
                    entry = (source, index)
                    if home.get(source) is part:
                        continue
                    if entry not in part.inputs:
                        part.inputs.append(entry)
                    if source in home and entry not in home[source].outputs:
                        home[source].outputs.append(entry)
        # What is only watched comes last: it is not differentiated.
        for entry in self._heads:
            if entry not in home[entry[0]].outputs:
                home[entry[0]].outputs.append(entry)
        return [part for part in ordered if part.outputs]

    def _differentiated(self) -> set[int]:
        """The nodes whose values depend on something that gets a gradient."""
        wanted = {i for i, s in self._sources.items() if s.grad is not None and s.req not in ("null", "aux")}
        for number, node in enumerate(self._nodes):
            if any(source in wanted for source, *_ in node["inputs"]):
                wanted.add(number)
        return wanted

    # --- binding ---

    def _bind(self, part: _Part, wanted: set[int]) -> None:
        symbol, entries = part.symbol(self._nodes)
        arrays: dict[str, NDArray] = {}
        for name, entry in entries.items():
            origin = self._sources[entry[0]].array if entry[0] in self._sources else self._values[entry]
            arrays[name] = origin
            if origin.context != part.ctx:
                arrays[name] = nd.empty(origin.shape, ctx=part.ctx, dtype=origin.dtype)
                part.copied.append((origin, arrays[name]))
        names, states = symbol.list_arguments(), symbol.list_auxiliary_states()
        part.returned = [
            (arrays[name], self._sources[entries[name][0]].array)
            for name in states
            if arrays[name] is not self._sources[entries[name][0]].array
        ]
        for name in names:
            entry, array = entries[name], arrays[name]
            if entry[0] in wanted and np.dtype(array.dtype).kind == "f":
                direct = self._sources[entry[0]].grad if self._direct(part, entry) else None
                part.grads[entry] = (
                    nd.zeros(array.shape, array.context, array.dtype) if direct is None else direct
                )
        grads = [part.grads.get(entries[name]) for name in names]
        judged = [i for i, entry in enumerate(part.outputs) if self._is_judged(part, entry)]
        part.handle = _core.ExecutorBase(
            symbol,
            [arrays[name] for name in names],
            grads,
            [
                "null" if grad is None else self._req(part, entries[n])
                for n, grad in zip(names, grads, strict=True)
            ],
            [arrays[name] for name in states],
            [(part.ctx.device_typeid, part.ctx.device_id)] * len(part.outputs),
            len(judged),
            self._budget,
        )
        self._values.update(zip(part.outputs, part.handle._outputs(), strict=True))

    def _is_judged(self, part: _Part, entry: Entry) -> bool:
        """Whether a gradient can come to an output: from another part, or from outside."""
        return entry in self._heads[: self._own] or any(entry in other.inputs for other in self._parts)

    def _direct(self, part: _Part, entry: Entry) -> bool:
        """Whether a part writes the gradient of a variable where it belongs: it is the only one, on the same device."""
        source = self._sources.get(entry[0])
        if source is None or source.grad is None or source.grad.context != part.ctx:
            return False
        return sum(entry in other.inputs for other in self._parts) == 1

    def _req(self, part: _Part, entry: Entry) -> str:
        return self._sources[entry[0]].req if self._direct(part, entry) else "write"

    # --- what an Executor calls ---

    def _outputs(self) -> list[NDArray]:
        return [self._values[entry] for entry in self._heads]

    @autograd.pause()
    def _forward(self, train: bool) -> None:
        for part in self._parts:
            for origin, copy in part.copied:
                origin.copyto(copy)
            part.handle._forward(train)
            if train:
                for copy, origin in part.returned:
                    copy.copyto(origin)

    @autograd.pause()
    def _backward(self, heads: Sequence[NDArray | None]) -> None:
        arrived: dict[Entry, list[NDArray]] = {}
        for entry, head in zip(self._heads[: self._own], heads, strict=False):
            if head is not None:
                arrived.setdefault(entry, []).append(head)
        totals: dict[int, list[NDArray]] = {}
        for part in reversed(self._parts):
            judged = [entry for entry in part.outputs if self._is_judged(part, entry)]
            part.handle._backward([_sum(arrived.get(entry, []), part.ctx) for entry in judged])
            for entry, grad in part.grads.items():
                if entry[0] not in self._sources:
                    arrived.setdefault(entry, []).append(grad)
                elif not self._direct(part, entry):
                    totals.setdefault(entry[0], []).append(grad)
        for number, parts in totals.items():
            _, target, req = self._sources[number]
            if target is None:
                continue
            total = _sum(parts, target.context)
            if req == "add":
                target += total
            elif total is not None:
                total.copyto(target)

    def _describe(self) -> str:
        return "\n".join(f"on {part.ctx}:\n{part.handle._describe()}" for part in self._parts)

    def _working_memory(self) -> int:
        return sum(part.handle._working_memory() for part in self._parts)


def _sum(arrays: Sequence[NDArray], ctx: Context) -> NDArray | None:
    """The sum of gradients on a context, None of none."""
    moved = [array.as_in_context(ctx) for array in arrays]
    return None if not moved else moved[0] if len(moved) == 1 else nd.add_n(*moved)
