"""`mx.sym.contrib`: the operators `_contrib_X` as X, and functions made of several.

Control flow (`foreach`, `while_loop`, `cond`) is not built in graphs yet; on arrays it is, in `mx.nd.contrib`.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ._lookup import attribute, names, op
from .creation import full
from .random import uniform
from .symbol import Symbol


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"mx.sym.contrib.{what}: control flow in graphs is not built yet; mx.nd.contrib.{what} works on arrays"
    )


def foreach(body: Any, data: Any, init_states: Any, name: str = "foreach") -> NoReturn:
    """Not built yet."""
    _refuse("foreach")


def while_loop(
    cond: Any, func: Any, loop_vars: Any, max_iterations: int | None = None, name: str = "while_loop"
) -> NoReturn:
    """Not built yet."""
    _refuse("while_loop")


def cond(pred: Any, then_func: Any, else_func: Any, name: str = "cond") -> NoReturn:
    """Not built yet."""
    _refuse("cond")


def rand_zipfian(true_classes: Symbol, num_sampled: int, range_max: int) -> tuple[Symbol, Symbol, Symbol]:
    """Draws classes from an approximate Zipfian (log-uniform) distribution; see `mx.nd.contrib.rand_zipfian`.

    Returns
    -------
    (samples, expected_true, expected_sampled)
    """
    span = math.log(range_max + 1)
    draws = uniform(0, span, shape=(num_sampled,), dtype="float64")
    samples = (op("exp")(draws) - 1).astype("int64") % range_max

    def expected(classes: Symbol) -> Symbol:
        values = classes.astype("float64")
        return op("log")((values + 2.0) / (values + 1.0)) / span * num_sampled

    return samples, expected(true_classes), expected(samples)


def _scale(rescale_grad: Any) -> Symbol:
    return rescale_grad if isinstance(rescale_grad, Symbol) else full((1,), float(rescale_grad))


def adamw_update(
    weight: Symbol,
    grad: Symbol,
    mean: Symbol,
    var: Symbol,
    rescale_grad: Any,
    lr: float,
    eta: float,
    **options: Any,
) -> Symbol:
    """A step of AdamW; see the operator `_adamw_update`. `rescale_grad` is a number or a symbol of one element."""
    return op("_adamw_update")(weight, grad, mean, var, _scale(rescale_grad), lr=lr, eta=eta, **options)


def mp_adamw_update(
    weight: Symbol,
    grad: Symbol,
    mean: Symbol,
    var: Symbol,
    weight32: Symbol,
    rescale_grad: Any,
    lr: float,
    eta: float,
    **options: Any,
) -> Symbol:
    """As `adamw_update` with float32 master weights; see the operator `_mp_adamw_update`."""
    factor = _scale(rescale_grad)
    return op("_mp_adamw_update")(weight, grad, mean, var, weight32, factor, lr=lr, eta=eta, **options)


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, f"_contrib_{name}")


def __dir__() -> list[str]:
    own = {"adamw_update", "cond", "foreach", "mp_adamw_update", "rand_zipfian", "while_loop"}
    return sorted({*own, *names("_contrib_")})
