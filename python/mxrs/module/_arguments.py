"""What is given to a module, brought into one form and checked: names, contexts, shapes, initial values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .. import initializer as initializers
from ..context import Context
from ..io import DataDesc
from ..symbol import Symbol

__all__ = ["contexts_in", "initializer_in", "names_in", "symbol_in"]


def _as_list(obj: Any) -> list[Any]:
    """`obj` as a list: itself where it is a list or tuple, otherwise its only element."""
    return list(obj) if isinstance(obj, list | tuple) else [obj]


def _refuse_sparse(sparse_row_id_fn: Any) -> None:
    if sparse_row_id_fn is not None:
        raise NotImplementedError("sparse_row_id_fn: sparse parameters are not built yet in mxrs")


def _check_input_names(symbol: Any, names: Sequence[str], typename: str, throw: bool) -> None:
    """Check that the network has arguments of these names.

    Where it does not: ValueError, or a warning without `throw`, naming the inputs that were perhaps meant.
    """
    arguments = symbol.list_arguments()
    for name in names:
        if name in arguments:
            continue
        endings = ("_weight", "_bias", "_gamma", "_beta")
        candidates = "\n\t".join(arg for arg in arguments if not arg.endswith(endings))
        message = (
            f"You created Module with Module(..., {typename}={list(names)}) but input with name '{name}' is not "
            f"found in symbol.list_arguments(). Did you mean one of:\n\t{candidates}"
        )
        if throw:
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)


def names_in(names: Any) -> list[str]:
    """The names in an argument for them: None, one, or a list of them."""
    return [names] if isinstance(names, str) else list(names or ())


def _check_names_match(names: Sequence[str], shapes: Sequence[DataDesc], kind: str, throw: bool) -> None:
    if sorted(names) == sorted(desc.name for desc in shapes):
        return
    message = f"Data provided by {kind}_shapes don't match names specified by {kind}_names ({shapes} vs. {list(names)})"
    if throw:
        raise ValueError(message)
    warnings.warn(message, stacklevel=4)


def _descriptions(what: str, shapes: Any) -> list[DataDesc]:
    try:
        found = [desc if isinstance(desc, DataDesc) else DataDesc(*desc) for desc in shapes]
        for desc in found:
            if isinstance(desc.shape, str) or not all(hasattr(extent, "__index__") for extent in desc.shape):
                raise TypeError(f"the shape of {desc.name!r} is {desc.shape!r}")
    except TypeError as error:
        raise TypeError(
            f"bind: {what} is a list of pairs (name, shape), given {shapes!r} ({error})"
        ) from None
    return found


def _parse_data_desc(
    data_names: Sequence[str], label_names: Sequence[str], data_shapes: Any, label_shapes: Any
) -> tuple[list[DataDesc], list[DataDesc] | None]:
    """Shapes of data and labels as descriptions, checked against the names.

    Raises ValueError where the names of the data differ; those of labels are only warned of.
    """
    data = _descriptions("data_shapes", data_shapes)
    _check_names_match(data_names, data, "data", True)
    if label_shapes is None or len(label_shapes) == 0:
        _check_names_match(label_names, [], "label", False)
        return data, None
    labels = _descriptions("label_shapes", label_shapes)
    _check_names_match(label_names, labels, "label", False)
    return data, labels


def symbol_in(symbol: Any) -> Symbol:
    """The network itself, if it is one."""
    if not isinstance(symbol, Symbol):
        raise TypeError(f"Module: symbol must be a Symbol, given {type(symbol).__name__}")
    return symbol


def contexts_in(context: Any) -> list[Context]:
    """The contexts in an argument for them: one, or a list."""
    contexts = _as_list(context)
    for each in contexts:
        if not isinstance(each, Context):
            raise TypeError(
                f"Module: context takes a Context such as mx.cpu(), or a list of them; given {context!r}"
            )
    return contexts


def initializer_in(initializer: Any, arg_params: Any, aux_params: Any) -> Any:
    """The initializer, which may be given by its name.

    Raises TypeError where it cannot be called, and where the values given beside it are no dicts.
    """
    for what, given in (("arg_params", arg_params), ("aux_params", aux_params)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"Module.init_params: {what} is a dict of NDArrays, given {type(given).__name__}")
    if isinstance(initializer, str):
        return initializers.create(initializer)
    if initializer is not None and not callable(initializer):
        raise TypeError(
            f"Module.init_params: initializer is an Initializer or its name, given {initializer!r}"
        )
    return initializer
