"""Less memory for training, paid for with computing: plans of what is kept for the gradients and what is not.

A training step keeps results of the forward phase until the gradients need them. A plan says which of them are thrown
away and computed again instead; the search for one follows Chen et al., "Training deep nets with sublinear memory
cost" (2016), and prefers to free many bytes for little work. Results, random draws and statistics stay what they are.

`search_plan` writes its choice into the symbol, as the attribute ``force_mirroring`` of nodes, so that `bind`,
`Module` and files keep it. Where the plan need not be seen, a budget can be given directly:
``net.hybridize(memory_budget='60%')``, ``symbol.simple_bind(..., memory_budget=300_000_000)``, or the environment
variable ``MXRS_MEMORY_BUDGET`` for everything that is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _core
from .base import check_budget
from .executor import _requests, types_of

if TYPE_CHECKING:
    from .symbol import Symbol

__all__ = ["get_cost", "search_plan"]


def search_plan(
    symbol: Symbol,
    budget: int | str | None = None,
    ntrial: int | None = None,
    type_dict: Mapping[str, Any] | None = None,
    grad_req: Any = "write",
    **shapes: Sequence[int],
) -> Symbol:
    """A copy of `symbol` that trains within a budget of working memory.

    Parameters
    ----------
    symbol : Symbol
        The network with its loss. Nodes whose attribute ``force_mirroring`` is false are kept, those where it is true
        are computed again in any case.
    budget : int or str, optional
        Bytes of working memory (what `get_cost` measures), or a share of what the symbol needs as it is ('60%'). Without
        one, the smallest plan that is found is taken.
    ntrial : int, optional
        How many sizes of segments are tried for each bound on the cost of what is computed again; 24 by default.
    type_dict : dict of str to dtype, optional
        Element types of arguments by name.
    grad_req : str, list or dict
        Which arguments get gradients, as in `simple_bind`.
    **shapes
        Shapes of arguments by name, at least those from which the others follow.

    Returns
    -------
    Symbol
        The same graph; nodes that the plan computes again carry ``force_mirroring='True'``.

    Raises
    ------
    ValueError
        No plan within the budget was found (the message says the smallest that was), or the shapes do not decide
        those of all arguments.
    """
    if ntrial is not None and (not isinstance(ntrial, int) or ntrial < 1):
        raise ValueError(f"search_plan: ntrial is {ntrial!r}; a number from 1 is allowed")
    wanted = check_budget("smallest" if budget is None else budget, "budget")
    again, _ = _search(symbol, wanted, ntrial, type_dict, grad_req, shapes)
    chosen = set(again)
    graph = json.loads(symbol.tojson())
    calls = [node for node in graph["nodes"] if node["op"] != "null"]
    for place, node in enumerate(calls):
        if place in chosen:
            node.setdefault("attrs", {})["__force_mirroring__"] = "True"
    from .symbol import load_json

    return load_json(json.dumps(graph))


def get_cost(
    symbol: Symbol,
    type_dict: Mapping[str, Any] | None = None,
    grad_req: Any = "write",
    **shapes: Sequence[int],
) -> float:
    """Megabytes (2**20 bytes) of working memory that training `symbol` needs beside its arguments, their gradients,
    states and outputs. Parameters as in `search_plan`.
    """
    _, memory = _search(symbol, "100%", None, type_dict, grad_req, shapes)
    return memory / (1 << 20)


def _search(
    symbol: Symbol,
    budget: str | None,
    ntrial: int | None,
    type_dict: Mapping[str, Any] | None,
    grad_req: Any,
    shapes: Mapping[str, Sequence[int]],
) -> tuple[list[int], int]:
    """The plan's nodes (their places among the calls of the graph) and its bytes."""
    names = symbol.list_arguments()
    given = {name: tuple(shape) for name, shape in shapes.items()}
    given_types = {k: v for k, v in (type_dict or {}).items() if v is not None}
    arg_shapes, _, aux_shapes, complete = symbol._infer_shape(given, given_types)
    if not complete:
        open_ = [f"{n}: {s or None}" for n, s in zip(names, arg_shapes, strict=True) if not s or 0 in s]
        raise ValueError(
            f"memonger: the shapes of these arguments do not follow from what was given ({given}); give them too: "
            f"{', '.join(open_)}"
        )
    types, aux_types = types_of(symbol, type_dict)
    every_shape = [list(shape) for shape in (*arg_shapes, *aux_shapes)]
    found: tuple[list[int], int] = _core.search_plan(
        symbol, every_shape, [*types, *aux_types], _requests(names, grad_req), budget, ntrial
    )
    return found
