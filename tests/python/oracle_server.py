"""The half of the oracle that runs beside MXNet 1.9.1, and the wire both halves speak.

Started as `PYTHON oracle_server.py` under the oracle's interpreter; answers requests from its standard input
until that closes. The client is `oracle.py`, which imports the wire and `execute` from here: the same program
text then runs on either library. Nothing here imports MXNet (or mxrs) at the top.

A message is two lengths (unsigned 64-bit, little endian), a JSON text, and an `.npz` archive. Arrays stand in
the JSON as `{"array": i}`, tuples as `{"tuple": [...]}`, dictionaries as `{"dict": [[key, value], ...]}`; no
pickle travels.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

_LENGTHS = struct.Struct("<QQ")


# ---- the wire ----------------------------------------------------------------------------------------------


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be sent")
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_encode(v, arrays) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent: {value!r}")


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if isinstance(value, dict):
        if "array" in value:
            return arrays[f"a{value['array']}"]
        if "tuple" in value:
            return tuple(_decode(v, arrays) for v in value["tuple"])
        return {_decode(k, arrays): _decode(v, arrays) for k, v in value["dict"]}
    return value


def pack(value: Any) -> bytes:
    """The bytes of one message."""
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(value, arrays)).encode()
    body = b""
    if arrays:
        buffer = io.BytesIO()
        np.savez(buffer, **{f"a{i}": a for i, a in enumerate(arrays)})
        body = buffer.getvalue()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def unpack(read: Callable[[int], bytes]) -> Any:
    """The next message; `read(n)` returns exactly n bytes or raises EOFError."""
    text_length, body_length = _LENGTHS.unpack(read(_LENGTHS.size))
    tree = json.loads(read(text_length).decode())
    arrays: dict[str, np.ndarray] = {}
    if body_length:
        with np.load(io.BytesIO(read(body_length)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    return _decode(tree, arrays)


# ---- what both libraries are asked -------------------------------------------------------------------------


def to_device(mx: Any, value: Any) -> Any:
    """NumPy arrays inside `value` as NDArrays of the same dtype."""
    if isinstance(value, np.ndarray):
        return mx.nd.array(value, dtype=value.dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(mx, v) for v in value)
    if isinstance(value, dict):
        return {k: to_device(mx, v) for k, v in value.items()}
    return value


def execute(mx: Any, code: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Runs the program `code` on the library `mx`; returns its variables named `out_*`, arrays as NumPy.

    Bound for the program: mx, nd, autograd, gluon, sym, np; each array as an NDArray under its name and as a
    NumPy array under `np_<name>`; lists of arrays likewise; other values as they are. All random states are
    seeded with 0 first.
    """
    random.seed(0)
    np.random.seed(0)
    mx.random.seed(0)
    names: dict[str, Any] = {"mx": mx, "np": np, "__name__": "program"}
    for short, name in (("nd", "nd"), ("autograd", "autograd"), ("gluon", "gluon"), ("sym", "sym")):
        if hasattr(mx, name):
            names[short] = getattr(mx, name)
    for name, value in arrays.items():
        names[name] = to_device(mx, value)
        names[f"np_{name}"] = value
    exec(compile(code, "<program>", "exec"), names)
    found = {name: _to_host(value) for name, value in names.items() if name.startswith("out_")}
    mx.nd.waitall()
    return found


def _to_host(value: Any) -> Any:
    if hasattr(value, "asnumpy"):
        return value.asnumpy()
    if isinstance(value, (list, tuple)):
        return type(value)(_to_host(v) for v in value)
    if isinstance(value, dict):
        return {k: _to_host(v) for k, v in value.items()}
    return value


def resolve_op(mx: Any, name: str) -> Callable[..., Any]:
    """The function of operator `name`: a dotted public spelling (`contrib.box_nms`) or a registry name
    (`_plus_scalar`).
    """
    nd = mx.nd
    spellings = [name]
    for prefix in ("contrib", "linalg", "image", "sparse", "random"):
        if name.startswith(f"_{prefix}_"):
            spellings.append(f"{prefix}.{name[len(prefix) + 2 :]}")
    spellings += [f"_internal.{name}", f"op.{name}"]
    for spelling in spellings:
        found = nd
        for part in spelling.split("."):
            found = getattr(found, part, None)
        if callable(found):
            return found
    raise AttributeError(f"no operator {name!r}")


def call_op(
    mx: Any,
    name: str,
    inputs: list[np.ndarray],
    attrs: dict[str, Any],
    train: bool,
    grad_of: list[int] | None,
    head_grads: list[np.ndarray | None] | None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs of one operator, and gradients of the inputs numbered in `grad_of`; head gradients of ones by
    default.
    """
    mx.random.seed(0)
    arrays = [to_device(mx, a) for a in inputs]
    op = resolve_op(mx, name)
    for i in grad_of or ():
        arrays[i].attach_grad()
    if grad_of is None:
        mode = mx.autograd.train_mode() if train else mx.autograd.predict_mode()
        with mode:
            outputs = op(*arrays, **attrs)
    else:
        with mx.autograd.record(train_mode=train):
            outputs = op(*arrays, **attrs)
    heads = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if grad_of is not None:
        given = None
        if head_grads is not None:
            given = [mx.nd.ones_like(h) if g is None else to_device(mx, g) for h, g in zip(heads, head_grads)]
        mx.autograd.backward(heads, given, train_mode=train)
    return [h.asnumpy() for h in heads], [arrays[i].grad.asnumpy() for i in grad_of or ()]


# ---- the server --------------------------------------------------------------------------------------------


def _answer(mx: Any, request: dict[str, Any]) -> Any:
    kind = request["kind"]
    if kind == "run":
        return execute(mx, request["code"], request["arrays"])
    if kind == "op":
        return call_op(
            mx,
            request["name"],
            request["inputs"],
            request["attrs"],
            request["train"],
            request["grad_of"],
            request["head_grads"],
        )
    if kind == "version":
        return {"mxnet": mx.__version__, "numpy": np.__version__}
    raise ValueError(f"unknown request {kind!r}")


def _serve() -> None:
    # Libraries print; the answers get a descriptor of their own and what is printed goes to the log.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb")
    warnings.simplefilter("ignore")
    import mxnet as mx

    def read(n: int) -> bytes:
        data = requests.read(n)
        if len(data) < n:
            raise EOFError
        return data

    while True:
        try:
            request = unpack(read)
        except EOFError:
            return
        try:
            reply = pack({"value": _answer(mx, request)})
        except Exception as error:  # the answer is the error
            text = traceback.format_exc(limit=-4)
            reply = pack({"error": type(error).__name__, "text": str(error), "traceback": text})
        answers.write(reply)
        answers.flush()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder holds tests; their names must not hide modules
    _serve()
