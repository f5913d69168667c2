"""`ParameterDict`: the parameters of a block by full name, and doing one thing to all of them.

Names start with the dictionary's prefix. `get` makes a parameter or finds it, here or in the dictionary it
is shared with. Saving and loading by full names is here, by structural names (`features.0.weight`) in
`block`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any

import numpy as np

from .. import initializer, ndarray
from ..context import Context
from .parameter import Constant, Parameter, _as_shape
from .utils import brief_list, indent

__all__ = ["ParameterDict"]

_SAME_PREFIX = "Please make sure source and target networks have the same prefix."


class ParameterDict:
    """An ordered mapping from full names to `Parameter`s.

    `prefix` goes before the names given to `get`; `shared` is another dictionary in which `get` looks
    before it creates.
    """

    def __init__(self, prefix: str = "", shared: ParameterDict | None = None) -> None:
        self._prefix = prefix
        self._params: OrderedDict[str, Parameter] = OrderedDict()
        self._shared = shared

    def __repr__(self) -> str:
        lines = "\n".join(indent(f"  {p!r}", 2) for p in self.values())
        head = f"{self._prefix} " if self._prefix else ""
        return f"{head}(\n{lines}\n)"

    def __getitem__(self, key: str) -> Parameter:
        return self._params[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __bool__(self) -> bool:
        # A dictionary without parameters was true before it had a length; `if params:` must go on to mean
        # "given".
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._params

    def keys(self) -> KeysView[str]:
        """The full names, in order of creation."""
        return self._params.keys()

    def values(self) -> ValuesView[Parameter]:
        """The parameters, in order of creation."""
        return self._params.values()

    def items(self) -> ItemsView[str, Parameter]:
        """Pairs of full name and parameter."""
        return self._params.items()

    @property
    def prefix(self) -> str:
        """What `get` puts before names."""
        return self._prefix

    def _get_impl(self, name: str) -> Parameter | None:
        found = self._params.get(name)
        if found is None and self._shared is not None:
            found = self._shared._get_impl(name)
            if found is not None:
                self._params[name] = found
        return found

    def get(self, name: str, **kwargs: Any) -> Parameter:
        """The parameter `prefix + name`, made with `kwargs` (the arguments of `Parameter`) if it does not
        exist.

        An existing one must agree with `kwargs`: attributes it left open are filled in, unknown dimensions
        of the two shapes complete each other, anything else raises AssertionError.
        """
        name = self._prefix + name
        param = self._get_impl(name)
        if param is None:
            param = Parameter(name, **kwargs)
            self._params[name] = param
            return param
        for attribute, wanted in kwargs.items():
            stored = getattr(param, attribute, None)
            if stored is None:
                setattr(param, attribute, wanted)
            elif not _agrees(param, attribute, wanted, stored):
                raise AssertionError(
                    f"Cannot retrieve Parameter '{name}' because desired attribute does not match with "
                    f"stored for attribute '{attribute}': desired '{wanted}' vs stored '{stored}'."
                )
        return param

    def get_constant(self, name: str, value: Any = None) -> Constant:
        """The constant `prefix + name`, made from `value` if it does not exist.

        Raises KeyError if it neither exists nor a value is given, AssertionError if what exists is no
        constant or has another value.
        """
        name = self._prefix + name
        param = self._get_impl(name)
        if param is None:
            if value is None:
                raise KeyError(
                    f"No constant named '{name}'. Please specify value if you want to create a new constant."
                )
            param = Constant(name, value)
            self._params[name] = param
            return param
        if not isinstance(param, Constant):
            raise AssertionError(f"Parameter '{name}' already exists but it is not a constant.")
        if value is not None:
            given = value.asnumpy() if isinstance(value, ndarray.NDArray) else np.asarray(value)
            if given.shape != param.value.shape or not (given == param.value.asnumpy()).all():
                raise AssertionError(
                    f"Constant '{name}' already exists but its value doesn't match new value"
                )
        return param

    def update(self, other: ParameterDict | Mapping[str, Parameter]) -> None:
        """Take in the parameters of `other`; AssertionError if another parameter has one of the names."""
        mine = self._params
        for name, param in other.items():
            if mine.setdefault(name, param) is not param:
                raise AssertionError(
                    "Cannot update self with other because they have different Parameters with the same name "
                    f"'{name}'"
                )

    # --- to all of them ---

    def initialize(
        self,
        init: Any = None,
        ctx: Context | Sequence[Context] | None = None,
        verbose: bool = False,
        force_reinit: bool = False,
    ) -> None:
        """`Parameter.initialize` for each, with `init` (default: `Uniform()`) where it has no initializer
        of its own.
        """
        init = (
            initializer.Uniform()
            if init is None
            else initializer.create(init)
            if isinstance(init, str)
            else init
        )
        if verbose:
            init.set_verbosity(verbose=verbose)
        for param in self.values():
            param.initialize(None, ctx, init, force_reinit=force_reinit)

    def zero_grad(self) -> None:
        """Fill all gradients with zeros."""
        for param in self.values():
            param.zero_grad()

    def reset_ctx(self, ctx: Context | Sequence[Context]) -> None:
        """Move every parameter to `ctx`."""
        for param in self.values():
            param.reset_ctx(ctx)

    def list_ctx(self) -> list[Context]:
        """Every context that one of the parameters is on, each once."""
        found: dict[Context, None] = {}
        for param in self.values():
            found.update(dict.fromkeys(param.list_ctx()))
        return list(found)

    def setattr(self, name: str, value: Any) -> None:
        """Set the attribute `name` of every parameter, as in `net.collect_params().setattr('grad_req',
        'null')`.
        """
        for param in self.values():
            setattr(param, name, value)

    # --- files ---

    def save(self, filename: str, strip_prefix: str = "") -> None:
        """Write all values to a file, by full name less `strip_prefix`.

        Raises ValueError if a name does not start with `strip_prefix`.
        """
        arrays = {}
        for param in self.values():
            if not param.name.startswith(strip_prefix):
                raise ValueError(
                    f"Prefix '{strip_prefix}' is to be striped before saving, but Parameter's name "
                    f"'{param.name}' does not start with '{strip_prefix}'. this may be due to your Block "
                    "shares parameters from other Blocks or you forgot to use 'with name_scope()' when "
                    "creating child blocks."
                )
            arrays[param.name[len(strip_prefix) :]] = param._reduce()
        ndarray.save(filename, arrays)

    def load(
        self,
        filename: str,
        ctx: Context | Sequence[Context] | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        restore_prefix: str = "",
        cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:
        """Read values from a file written by `save` (or a checkpoint with 'arg:' and 'aux:' names).

        `restore_prefix` goes before the names of the file. `allow_missing`: parameters without a value in
        the file are left; `ignore_extra`: values without a parameter are passed over. `cast_dtype` allows
        another dtype, and `dtype_source` says whose stays, the 'current' one or the 'saved'. Raises
        AssertionError where file and parameters do not fit.
        """
        if restore_prefix:
            for name in self.keys():
                if not name.startswith(restore_prefix):
                    raise AssertionError(
                        f"restore_prefix is '{restore_prefix}' but Parameters name '{name}' does not start "
                        f"with '{restore_prefix}'."
                    )
        loaded = load_named(filename)
        self.load_dict(
            loaded, ctx, allow_missing, ignore_extra, restore_prefix, filename, cast_dtype, dtype_source
        )

    def load_dict(
        self,
        param_dict: Mapping[str, Any],
        ctx: Context | Sequence[Context] | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        restore_prefix: str = "",
        filename: str | None = None,
        cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:
        """As `load`, from a dictionary of arrays; `filename` is only for messages."""
        source = f"file: {filename}" if filename else "param_dict"
        loaded = {restore_prefix + _bare(name): value for name, value in param_dict.items()}
        skip = len(restore_prefix)
        if not allow_missing:
            for name in self.keys():
                if name not in loaded:
                    raise AssertionError(
                        f"Parameter '{name[skip:]}' is missing in {source}, which contains parameters: "
                        f"{brief_list(list(loaded))}. {_SAME_PREFIX}"
                    )
        for name, value in loaded.items():
            if name in self._params:
                self._params[name]._load_init(value, ctx, cast_dtype=cast_dtype, dtype_source=dtype_source)
            elif not ignore_extra:
                raise AssertionError(
                    f"Parameter '{name[skip:]}' loaded from {source} is not present in ParameterDict, "
                    f"choices are: {brief_list(list(self.keys()))}. Set ignore_extra to True to ignore. "
                    f"{_SAME_PREFIX}"
                )


def load_named(filename: str) -> dict[str, Any]:
    """The arrays of a parameter file by name; ValueError if it holds arrays without names."""
    loaded = ndarray.load(filename)
    if isinstance(loaded, dict):
        return loaded
    if len(loaded) == 0:
        return {}
    raise ValueError(
        f"{filename} holds a list of {len(loaded)} arrays without names, not the parameters of a block"
    )


def _bare(name: str) -> str:
    return name[4:] if name.startswith(("arg:", "aux:")) else name


def _agrees(param: Parameter, attribute: str, wanted: Any, stored: Any) -> bool:
    """Whether `get` may hand out `param` for the `wanted` attribute; completes the shape where it can."""
    if wanted is None:
        return True
    if attribute == "shape":
        new = _as_shape(wanted)
        if len(new) != len(stored) or any(a and b and a != b for a, b in zip(new, stored, strict=True)):
            return False
        param._shape = tuple(a or b for a, b in zip(new, stored, strict=True))
        return True
    if attribute == "dtype":
        return np.dtype(wanted) == np.dtype(stored)
    return bool(wanted == stored)
