"""The child of `child.CallServer`: calls operators as told, one JSON line per call, and says how each ended.

A request is {"op", "inputs": [array...], "attrs": {...}, "out": array | {"alias": i} | null}. An array is
{"shape", "dtype", "fill"} where fill is a number, "nan", "inf", "-inf", "ramp" (0, 1, 2, ... cut to the type),
a list of such that is repeated, or {"low", "high", "integer"}: values spread over low..high. An input may also be {"raw": value}: passed as it is. In attrs, {"tuple":
[...]} is a tuple and {"float": "nan"} a float.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def _array(mx: Any, np: Any, spec: dict[str, Any]) -> Any:
    if "raw" in spec:
        return spec["raw"]
    shape = tuple(spec["shape"])
    size = int(np.prod(shape, dtype=object)) if shape else 1
    fill = spec.get("fill", "ramp")
    with np.errstate(all="ignore"):
        if fill == "ramp":
            values = np.arange(size) % 7
        elif isinstance(fill, dict):
            # Multiples of the golden ratio, which fill the range evenly and never repeat.
            values = fill["low"] + (fill["high"] - fill["low"]) * (np.arange(size) * 0.6180339887 % 1)
            values = np.floor(values) if fill["integer"] else values
        else:
            pattern = [float(v) for v in (fill if isinstance(fill, list) else [fill])]
            values = np.resize(np.array(pattern), size)
        return mx.nd.array(values.astype(spec["dtype"]).reshape(shape), dtype=spec["dtype"])


def _attr(value: Any) -> Any:
    if isinstance(value, dict):
        if "float" in value:
            return float(value["float"])
        return tuple(_attr(v) for v in value["tuple"])
    if isinstance(value, list):
        return [_attr(v) for v in value]
    return value


def _call(mx: Any, np: Any, request: dict[str, Any]) -> None:
    try:
        inputs = [_array(mx, np, spec) for spec in request["inputs"]]
    except Exception as error:
        # The array itself is refused (33 dimensions); its error says so and cannot name the operator.
        raise type(error)(f"{request['op']} is not reached: {error}") from None
    attrs = {name: _attr(value) for name, value in request["attrs"].items()}
    out = request.get("out")
    if out is not None:
        attrs["out"] = inputs[out["alias"]] if "alias" in out else _array(mx, np, out)
    result = mx._core.ops[request["op"]](*inputs, **attrs)
    for array in result if isinstance(result, (list, tuple)) else [result]:
        array.asnumpy()
    mx.nd.waitall()


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(kind: str, error: BaseException | None = None) -> None:
        text = "" if error is None else str(error)[:2000]
        name = "" if error is None else type(error).__name__
        bases = [] if error is None else [c.__name__ for c in type(error).__mro__]
        answers.write(json.dumps({"kind": kind, "error": name, "text": text, "bases": bases}) + "\n")
        answers.flush()

    import numpy as np

    import mxrs as mx

    answer("ready")
    for line in sys.stdin:
        try:
            _call(mx, np, json.loads(line))
            answer("ok")
        except Exception as error:
            answer("raised", error)
        except BaseException as error:  # a panic that crossed the border derives from BaseException alone
            answer("panicked", error)


if __name__ == "__main__":
    _main()
