"""Makes bad calls out of good ones: for an operator's record, every class of hostile input, as requests for
`call_worker.py`.

A case is a sample call of the operator with one thing made wrong. What a case should do is not known here
(some are legal); the rule is only that the process lives, answers soon, and speaks clearly when it refuses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

NAN = {"float": "nan"}
INF = {"float": "inf"}

_NUMBERS: list[Any] = [0, -1, 1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 10**30, 1e30, -1e30, 0.5, NAN, INF]
_WRONG_KINDS: list[Any] = [None, "", "no such value", [], {"tuple": []}, True]
_TUPLES: list[list[Any]] = [
    [],
    [0],
    [0, 0],
    [-1],
    [-1, -1],
    [1],
    [2, 3],
    [-5, 2],
    [2**31 - 1, 2**31 - 1],
    [-(2**31), 1],
    [2**31, 2],
    [2**62, 4],
    [2**63 - 1, 2],
    [1] * 33,
    [2**40],
    [1.5, 2],
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
]
_SHAPES: list[list[int]] = [
    [],
    [0],
    [1],
    [2],
    [0, 3],
    [3, 0],
    [1, 1],
    [2, 3, 4],
    [1, 0, 4, 4],
    [1] * 8,
    [1] * 32,
    [1] * 33,
]
_DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool"]
_FILLS: list[Any] = [
    0,
    -1,
    "nan",
    "inf",
    "-inf",
    1e30,
    -1e30,
    1e-42,
    0.5,
    1e9,
    -(2.0**31),
    2.0**31,
    [-1, "nan", 3, 1e9],
]


def _is_tuple(kind: str) -> bool:
    kind = kind.lower()
    return any(word in kind for word in ("shape", "tuple", "ints", "list"))


def _is_number(kind: str) -> bool:
    kind = kind.lower()
    return any(word in kind for word in ("int", "float", "double", "long", "real", "scalar", "number"))


def _request(op: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        {
            "shape": list(i["shape"]),
            "dtype": i["dtype"],
            "fill": {k: i[k] for k in ("low", "high", "integer")},
        }
        for i in sample["inputs"]
    ]
    return {"op": op["name"], "inputs": inputs, "attrs": _plain(sample["attrs"])}


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON keeps them: tuples would turn into lists."""
    return {k: {"tuple": list(v)} if isinstance(v, tuple) else v for k, v in attrs.items()}


def good_calls(op: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The operator's sample calls themselves: each must succeed, or what follows means nothing."""
    for sample in op["samples"]:
        yield _request(op, sample)


def bad_calls(op: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every hostile call for an operator, with a name for each."""
    seen = set()
    for n, sample in enumerate(op["samples"][:2]):
        base = _request(op, sample)
        for name, request in _variations(op, base):
            full = f"sample {n}, {name}"
            if full not in seen:  # -rank is -1 for a vector, and the like
                seen.add(full)
                yield full, request


def _variations(op: dict[str, Any], base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _wrong_attributes(op, base)
    for i, spec in enumerate(base["inputs"]):
        yield from _wrong_input(base, i, spec)
    yield from _wrong_count(base)
    yield from _wrong_out(base)


def _wrong_attributes(op: dict[str, Any], base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    rank = len(base["inputs"][0]["shape"]) if base["inputs"] else 0
    for param in op["params"]:
        name, kind = param["name"], str(param["type"])
        values: list[Any] = list(_WRONG_KINDS)
        if _is_tuple(kind) or name in {"axis", "axes", "shape"}:
            values += [{"tuple": t} for t in _TUPLES]
            values += [
                {"tuple": [rank]},
                {"tuple": [-rank - 1]},
                {"tuple": [0] * (rank + 1)},
                {"tuple": [NAN]},
            ]
        if _is_number(kind) or _is_tuple(kind):
            values += [*_NUMBERS, rank, -rank - 1, -rank]
        for value in values:
            yield f"{name}={value!r}", _with(base, attrs={**base["attrs"], name: value})
    yield "an attribute that does not exist", _with(base, attrs={**base["attrs"], "no_such_attribute": 1})
    for name in base["attrs"]:
        yield f"without {name}", _with(base, attrs={k: v for k, v in base["attrs"].items() if k != name})


def _wrong_input(base: dict[str, Any], i: int, spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    shape = spec["shape"]
    shapes = [s for s in _SHAPES if s != shape] + [[*shape, 2], shape[1:]]
    shapes += [[*shape[:axis], 0, *shape[axis + 1 :]] for axis in range(len(shape))]
    shapes += [[*shape[:axis], shape[axis] + 1, *shape[axis + 1 :]] for axis in range(len(shape))]
    for other in shapes:
        yield f"input {i} of shape {other}", _with_input(base, i, {**spec, "shape": other})
    for dtype in _DTYPES:
        if dtype != spec["dtype"]:
            yield f"input {i} of {dtype}", _with_input(base, i, {**spec, "dtype": dtype})
            yield f"input {i} of {dtype}, all -1", _with_input(base, i, {**spec, "dtype": dtype, "fill": -1})
    for fill in _FILLS:
        yield f"input {i} filled with {fill}", _with_input(base, i, {**spec, "fill": fill})
    for raw in (None, "text", 1.5, [], {}):
        yield f"input {i} is {raw!r}", _with_input(base, i, {"raw": raw})
    # Integer division: every type, divisor and dividend at their worst.
    for dtype in ("int8", "int32", "int64"):
        inputs = [
            {**s, "dtype": dtype, "fill": 0 if j == i else -(2.0**31)} for j, s in enumerate(base["inputs"])
        ]
        yield f"all {dtype}, input {i} zero", _with(base, inputs=inputs)
        inputs = [
            {**s, "dtype": dtype, "fill": -1 if j == i else -(2.0**63)} for j, s in enumerate(base["inputs"])
        ]
        yield f"all {dtype}, input {i} -1, others least", _with(base, inputs=inputs)


def _wrong_count(base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    inputs = base["inputs"]
    extra = inputs[0] if inputs else {"shape": [2], "dtype": "float32"}
    yield "no inputs", _with(base, inputs=[])
    if inputs:
        yield "one input too few", _with(base, inputs=inputs[:-1])
        yield "every input empty", _with(base, inputs=[{**s, "shape": [0] * len(s["shape"])} for s in inputs])
        yield "every input a scalar", _with(base, inputs=[{**s, "shape": []} for s in inputs])
    yield "one input too many", _with(base, inputs=[*inputs, extra])
    yield "fifty inputs", _with(base, inputs=[extra] * 50)


def _wrong_out(base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shape in ([], [0], [1], [3, 1, 2], [10_000]):
        yield f"out of shape {shape}", _with(base, out={"shape": shape, "dtype": "float32", "fill": 0})
    shape = base["inputs"][0]["shape"] if base["inputs"] else [2]
    for dtype in ("uint8", "float64", "int32"):
        yield f"out of {dtype}", _with(base, out={"shape": shape, "dtype": dtype, "fill": 0})
    for i in range(len(base["inputs"])):
        yield f"out is input {i}", _with(base, out={"alias": i})


def _with(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return copy.deepcopy({**base, **changes})


def _with_input(base: dict[str, Any], i: int, spec: dict[str, Any]) -> dict[str, Any]:
    return _with(base, inputs=[spec if j == i else s for j, s in enumerate(base["inputs"])])
