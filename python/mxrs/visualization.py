"""Pictures and tables of symbols: `plot_network` draws a graph, `print_summary` prints its layers.

Both read the symbol's JSON and the shapes that inference finds; neither binds or runs anything. Drawing needs
the optional package graphviz (and, to render to a file, the program of that name).
"""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .symbol import Symbol

__all__ = ["plot_network", "print_summary"]

Shape = tuple[int, ...]

#: Inputs of an operator, by position, that hold trained parameters.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "Convolution": (1, 2),
    "Convolution_v1": (1, 2),
    "Deconvolution": (1, 2),
    "_contrib_DeformableConvolution": (2, 3),
    "FullyConnected": (1, 2),
    "Embedding": (1,),
    "BatchNorm": (1, 2),
    "BatchNorm_v1": (1, 2),
    "_contrib_SyncBatchNorm": (1, 2),
    "LayerNorm": (1, 2),
    "GroupNorm": (1, 2),
    "InstanceNorm": (1, 2),
    "LeakyReLU": (1,),
    "RNN": (1,),
}
#: Inputs that hold running statistics.
_STATISTICS = {"BatchNorm": (3, 4), "BatchNorm_v1": (3, 4), "_contrib_SyncBatchNorm": (3, 4)}
#: Endings by which parameters of other operators are known.
_PARAMETER_ENDINGS = (
    "_weight", "_bias", "_gamma", "_beta", "_moving_mean", "_moving_var", "_running_mean", "_running_var",
)  # fmt: skip

#: Fill colour by kind of node.
_COLOURS = {
    "input": "#e8eef7",
    "parameter": "#f4f4f4",
    "weights": "#f7b267",
    "norm": "#c9b6e4",
    "activation": "#f9e79f",
    "pooling": "#8ecae6",
    "shape": "#d5dbdb",
    "arithmetic": "#b7e4c7",
    "recurrent": "#f4978e",
    "output": "#e07a7a",
    "other": "#fdfdfd",
}
_KINDS = {
    "weights": ("Convolution", "Deconvolution", "FullyConnected", "Embedding", "dot", "batch_dot", "linalg_gemm"),
    "norm": ("BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm", "L2Normalization", "LRN", "SyncBatchNorm"),
    "activation": (
        "Activation", "LeakyReLU", "relu", "sigmoid", "tanh", "softsign", "softmax", "log_softmax",
        "SoftmaxActivation", "Dropout", "clip", "hard_sigmoid", "erf",
    ),
    "pooling": ("Pooling", "UpSampling", "AdaptiveAvgPooling2D", "BilinearResize2D", "ROIPooling"),
    "shape": (
        "Flatten", "Reshape", "reshape", "Concat", "SliceChannel", "slice", "transpose", "expand_dims", "squeeze",
        "Pad", "Crop", "stack", "SwapAxis", "Cast", "broadcast_like", "slice_like", "take", "tile", "repeat",
    ),
    "recurrent": ("RNN", "foreach", "while_loop", "cond"),
    "output": ("SoftmaxOutput", "RegressionOutput", "MakeLoss", "make_loss", "SVMOutput", "CTCLoss", "smooth_l1"),
    "arithmetic": ("elemwise", "broadcast", "_plus", "_minus", "_mul", "_div", "_r", "add_n", "sqrt", "square",
                   "exp", "log", "sum", "mean", "max", "min", "abs", "negative", "_power"),
}  # fmt: skip


# ---- reading a symbol --------------------------------------------------------------------------------------


@dataclass
class _Node:
    """One node of the JSON, with what inference says of its outputs."""

    name: str
    op: str
    attrs: dict[str, str]
    inputs: list[tuple[int, int]]
    shapes: list[Shape | None] = field(default_factory=list)
    dtypes: list[Any] = field(default_factory=list)

    @property
    def is_variable(self) -> bool:
        return self.op == "null"

    def output(self, index: int, values: list[Any]) -> Any:
        return values[index] if index < len(values) else None


class _Graph:
    """The nodes of a symbol, and which of them hold parameters."""

    def __init__(self, symbol: Symbol, shape: Any, dtype: Any) -> None:
        graph = json.loads(symbol.tojson())
        self.nodes = [
            _Node(
                node["name"],
                node["op"],
                node.get("attrs") or node.get("attr") or node.get("param") or {},
                [(entry[0], entry[1]) for entry in node["inputs"]],
            )
            for node in graph["nodes"]
        ]
        self._infer(symbol, shape, dtype)
        self.parameters = set(self._inputs_at(_PARAMETERS))
        self.statistics = set(self._inputs_at(_STATISTICS))

    def _infer(self, symbol: Symbol, shape: Any, dtype: Any) -> None:
        internals = symbol.get_internals()
        shapes = types = None
        if shape is not None:
            shapes = internals.infer_shape(**shape)[1]
            if shapes is None:
                raise ValueError(
                    "Input shape is incomplete: the shapes of all outputs cannot be told from shape="
                    f"{dict(shape)}; the arguments are {symbol.list_arguments()}"
                )
        if dtype is not None:
            types = internals.infer_type(**dtype)[1]
        if shapes is None and types is None:
            return
        for owner, position in zip(self._owners(internals), range(len(internals.list_outputs()))):
            if shapes is not None:
                self.nodes[owner].shapes.append(tuple(shapes[position]) or None)
            if types is not None:
                self.nodes[owner].dtypes.append(types[position])

    def _owners(self, internals: Symbol) -> Iterator[int]:
        """The node of each output of `internals`, which lists them node by node, in the order of the JSON."""
        current = 0
        first = True
        for output in internals:
            if not first and (self.nodes[current].is_variable or output.name != self.nodes[current].name):
                current += 1
            first = False
            while self.nodes[current].name != output.name:
                current += 1
            yield current

    def _inputs_at(self, positions: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
        for node in self.nodes:
            for position in positions.get(node.op, ()):
                if position < len(node.inputs) and self.nodes[node.inputs[position][0]].is_variable:
                    yield node.inputs[position][0]

    def is_hidden(self, index: int) -> bool:
        """Whether a node holds parameters or statistics rather than data."""
        if index in self.parameters or index in self.statistics:
            return True
        node = self.nodes[index]
        return node.is_variable and node.name.endswith(_PARAMETER_ENDINGS)

    def count(self, node: _Node) -> int:
        """How many trained numbers an operator has; what neither shapes nor attributes tell
        counts nothing.
        """
        total = 0
        for position in _PARAMETERS.get(node.op, ()):
            if position >= len(node.inputs):
                continue
            source, output = node.inputs[position]
            if self.nodes[source].is_variable:
                shape = self.nodes[source].output(output, self.nodes[source].shapes)
                total += math.prod(shape or _shape_by_attributes(node, position) or (0,))
        return total


def _shape_by_attributes(node: _Node, position: int) -> Shape | None:
    """The shape of a parameter where the operator's attributes alone tell it: biases, and embeddings."""
    keys: tuple[str, ...] = ()
    if node.op == "Embedding":
        keys = ("input_dim", "output_dim")
    elif node.op in ("Convolution", "Convolution_v1", "Deconvolution") and position == 2:
        keys = ("num_filter",)
    elif node.op == "FullyConnected" and position == 2:
        keys = ("num_hidden",)
    return tuple(int(node.attrs[key]) for key in keys) if keys else None


def _tail(shape: Shape | None) -> str:
    """A shape without its first axis, the batch: '3x8x8'; nothing where an axis is unknown."""
    if not shape or any(n <= 0 for n in shape[1:]):
        return ""
    return "x".join(str(n) for n in shape[1:])


def _check_symbol(symbol: Any, call: str) -> None:
    if not isinstance(symbol, Symbol):
        raise TypeError(f"{call}: symbol must be a Symbol, got {type(symbol).__name__}")


def _check_mapping(value: Any, call: str, argument: str) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(
            f"{call}: {argument} must be a dict by name, such as {{'data': ...}}, got {type(value).__name__}"
        )


# ---- the table ---------------------------------------------------------------------------------------------


def print_summary(
    symbol: Symbol,
    shape: Mapping[str, Shape] | None = None,
    line_length: int = 120,
    positions: Sequence[float] = (0.44, 0.64, 0.74, 1.0),
) -> None:
    """Print a table of the layers: name and operator, output shape without the batch, parameters, inputs.

    Parameters
    ----------
    symbol : Symbol
    shape : dict of tuple, optional
        Shapes of the inputs. Without it shapes are left out, and parameters count as far as they are known.
    line_length : int
        Width of the table.
    positions : sequence of float
        Where each of the four columns ends, in characters, or as parts of `line_length`.

    Raises TypeError for a wrong kind of argument, ValueError if `shape` does not determine all shapes.
    """
    _check_symbol(symbol, "print_summary")
    _check_mapping(shape, "print_summary", "shape")
    ends = [int(line_length * p) if positions[-1] <= 1 else int(p) for p in positions]
    graph = _Graph(symbol, shape, None)
    lines = ["_" * line_length]
    lines += _row(["Layer (type)", "Output Shape", "Param #", "Previous Layer"], ends)
    lines.append("=" * line_length)
    given = set(shape or ())
    total = 0
    rows = []
    for index, node in enumerate(graph.nodes):
        label = node.is_variable and node.name.endswith("label") and node.name not in given
        if graph.is_hidden(index) or label:
            continue
        count = graph.count(node)
        total += count
        sources = [graph.nodes[i].name for i, _ in node.inputs if not graph.is_hidden(i)]
        sources = [name for name in sources if not name.endswith("label") or name in given]
        text = ", ".join(filter(None, map(_tail, node.shapes))) if shape is not None else ""
        rows.append(
            _row([f"{node.name}({node.op})", text, str(count), sources[0] if sources else ""], ends)
            + [line for name in sources[1:] for line in _row(["", "", "", name], ends)]
        )
    for row in rows[:-1]:
        lines += [*row, "_" * line_length]
    lines += rows[-1] if rows else []
    lines += ["=" * line_length, f"Total params: {total}", "_" * line_length]
    print("\n".join(lines))


def _row(cells: Sequence[str], ends: Sequence[int]) -> list[str]:
    """One line of the table; a cell too long for its column is cut."""
    line = ""
    for cell, end in zip(cells, ends):
        line = (line + cell)[: max(end - 1, 0)].ljust(end)
    return [line]


# ---- the picture -------------------------------------------------------------------------------------------


def plot_network(
    symbol: Symbol,
    title: str = "plot",
    save_format: str = "pdf",
    shape: Mapping[str, Shape] | None = None,
    dtype: Mapping[str, Any] | None = None,
    node_attrs: Mapping[str, str] | None = None,
    hide_weights: bool = True,
) -> Any:
    """A `graphviz.Digraph` of the symbol, data at the bottom.

    Operators are coloured by kind and say their main settings; those whose names share a beginning
    ('stage1_unit2_...') stand in a frame of that name. With `shape`, edges say what flows along them, without
    the batch axis, and with `dtype` also its type.

    Parameters
    ----------
    symbol : Symbol
    title : str
        Name of the graph, and of the file that `render()` writes.
    save_format : str
        Format of that file: 'pdf', 'png', 'svg', ...
    shape, dtype : dict, optional
        Shapes and dtypes of inputs by name.
    node_attrs : dict of str, optional
        Graphviz attributes for all nodes, instead of ours: ``{"shape": "oval", "fixedsize": "false"}``.
    hide_weights : bool
        Leave out parameters and running statistics.

    Raises ImportError without the package graphviz, TypeError for a wrong kind of argument, ValueError if
    `shape` does not determine all shapes.
    """
    try:
        from graphviz import Digraph
    except ImportError as error:
        raise ImportError(
            "plot_network needs the Python package graphviz (pip install graphviz) and, to render files, the program "
            "of the same name"
        ) from error
    _check_symbol(symbol, "plot_network")
    _check_mapping(shape, "plot_network", "shape")
    _check_mapping(dtype, "plot_network", "dtype")
    _check_mapping(node_attrs, "plot_network", "node_attrs")
    graph = _Graph(symbol, shape, dtype)
    looks = {"shape": "box", "style": "rounded,filled", "fontname": "Helvetica", "fontsize": "11",
             "color": "#555555", "height": "0.4", "margin": "0.15,0.06"}  # fmt: skip
    looks.update(node_attrs or {})
    dot = Digraph(
        name=title,
        format=save_format,
        graph_attr={"rankdir": "BT", "fontname": "Helvetica", "fontsize": "11"},
        node_attr=looks,
        edge_attr={"fontname": "Helvetica", "fontsize": "9", "color": "#555555"},
    )
    shown = [i for i in range(len(graph.nodes)) if not (hide_weights and graph.is_hidden(i))]
    keys = _keys(graph)
    paths = _frames(graph, shown)
    _draw(dot, graph, keys, paths, shown, (), node_attrs or {})
    visible = set(shown)
    for index in shown:
        for source, output in graph.nodes[index].inputs:
            if source in visible:
                dot.edge(keys[source], keys[index], label=_flow(graph.nodes[source], output))
    return dot


def _keys(graph: _Graph) -> list[str]:
    """A name in the picture for each node: its own, unless another node has it or graphviz would split it."""
    names = [node.name for node in graph.nodes]
    return [
        name if name and ":" not in name and names.count(name) == 1 else f"{name.replace(':', '.')}#{i}"
        for i, name in enumerate(names)
    ]


def _flow(node: _Node, output: int) -> str:
    text = _tail(node.output(output, node.shapes))
    dtype = node.output(output, node.dtypes)
    return text if dtype is None else f"{text}({np.dtype(dtype).name})"


def _kind(graph: _Graph, index: int) -> str:
    node = graph.nodes[index]
    if node.is_variable:
        return "parameter" if graph.is_hidden(index) else "input"
    op = node.op.removeprefix("_contrib_")
    for exact in (True, False):
        for kind, words in _KINDS.items():
            for word in words:
                if (
                    op == word
                    if exact
                    else op.startswith(word) or (op.endswith("RegressionOutput") and kind == "output")
                ):
                    return kind
    return "other"


def _label(graph: _Graph, index: int, frame: str) -> str:
    """What a node says: operators what they are and how they are set, all their name as far as `frame` does not
    say it.
    """
    node = graph.nodes[index]
    if node.is_variable:
        return node.name
    lines = [node.op.removeprefix("_contrib_")]
    detail = _detail(node)
    if detail:
        lines.append(detail)
    name = node.name.removeprefix(f"{frame}_").removesuffix("_fwd")
    if not name.startswith("_"):
        lines.append(name)
    return "\n".join(lines)


def _tuple_text(text: str) -> str:
    """'(3, 3)' as '3x3'."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return "x".join(str(n) for n in value) if isinstance(value, tuple | list) else str(value)


def _detail(node: _Node) -> str:
    """The settings of a layer that tell it from its like."""
    get = node.attrs.get
    if node.op in ("Convolution", "Deconvolution", "Convolution_v1"):
        stride = _tuple_text(get("stride") or "1") or "1"
        groups = get("num_group", "1")
        text = f"{_tuple_text(get('kernel', '?'))} / {stride}, {get('num_filter', '?')}"
        return text if groups == "1" else f"{text}, {groups} groups"
    if node.op == "Pooling":
        kind = get("pool_type", "max")
        if get("global_pool", "False") in ("True", "1", "true"):
            return f"{kind}, global"
        return f"{kind}, {_tuple_text(get('kernel', '?'))} / {_tuple_text(get('stride') or '1') or '1'}"
    for op, keys in (
        ("FullyConnected", ("num_hidden",)),
        ("Activation", ("act_type",)),
        ("LeakyReLU", ("act_type",)),
        ("Dropout", ("p",)),
        ("Embedding", ("input_dim", "output_dim")),
        ("RNN", ("mode", "state_size", "num_layers")),
        ("Reshape", ("shape",)),
        ("transpose", ("axes",)),
        ("Concat", ("dim",)),
    ):
        if node.op == op:
            return ", ".join(_tuple_text(node.attrs[key]) for key in keys if key in node.attrs)
    return node.attrs.get("scalar", "")


def _frames(graph: _Graph, shown: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The frames around each node, outermost first, by the parts of its name that '_' separates.

    A part makes a frame if at least two operators, but not all, share it and no longer beginning has the same
    members. Operators with automatic names stand with their inputs, variables with their first consumer.
    """
    paths: dict[int, tuple[str, ...]] = {}
    operators = [i for i in shown if not graph.nodes[i].is_variable]
    for index in operators:
        name = graph.nodes[index].name
        if name.startswith("_"):
            inputs = [paths[i] for i, _ in graph.nodes[index].inputs if paths.get(i)]
            paths[index] = _common(inputs)
        else:
            parts = name.removesuffix("_fwd").split("_")[:-1]
            # 'stage1__plus0': an automatic name inside stage1.
            paths[index] = tuple(itertools.takewhile(bool, parts))
    members: dict[tuple[str, ...], int] = {}
    for path in paths.values():
        for depth in range(1, len(path) + 1):
            members[path[:depth]] = members.get(path[:depth], 0) + 1
    longer = {(prefix[:-1], count) for prefix, count in members.items()}
    kept = {
        prefix
        for prefix, count in members.items()
        if 2 <= count < len(operators) and (prefix, count) not in longer
    }
    frames = {
        index: tuple("_".join(path[:d]) for d in range(1, len(path) + 1) if path[:d] in kept)
        for index, path in paths.items()
    }
    for index in operators:
        for source, _ in graph.nodes[index].inputs:
            if graph.is_hidden(source):
                frames.setdefault(source, frames[index])
    return frames


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    if not paths:
        return ()
    first, last = min(paths), max(paths)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return first[:depth]


def _draw(
    dot: Any,
    graph: _Graph,
    keys: Sequence[str],
    frames: Mapping[int, tuple[str, ...]],
    members: Sequence[int],
    path: tuple[str, ...],
    attrs: Mapping[str, str],
) -> None:
    """Nodes of the frame `path` into `dot`, then the frames inside it."""
    inner: dict[str, list[int]] = {}
    for index in members:
        deeper = frames.get(index, ())[len(path) :]
        if deeper:
            inner.setdefault(deeper[0], []).append(index)
            continue
        kind = _kind(graph, index)
        looks = {"fillcolor": _COLOURS[kind], "tooltip": f"{graph.nodes[index].name} ({kind})"}
        if graph.nodes[index].is_variable:
            looks["shape"] = "oval"
        looks.update(attrs)
        dot.node(keys[index], label=_label(graph, index, path[-1] if path else ""), **looks)
    for name, part in inner.items():
        with dot.subgraph(name=f"cluster_{name}") as frame:
            frame.attr(label=name, style="rounded", color="#999999", fontcolor="#555555")
            _draw(frame, graph, keys, frames, part, (*path, name), attrs)
