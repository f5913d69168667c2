"""`Block`: a model or a part of one, made of parameters and child blocks.

Assigning a block or a parameter to an attribute registers it. From that follow names, collecting and
initializing parameters, saving and loading, casting, hooks and printing. Blocks whose computation is
written against `F` and can become a graph are in `hybrid`; names in `_scope`; the table of `summary` in
`_summary`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import ndarray
from .._files import write_whole
from ..base import refuse_keywords
from ..context import Context
from ._scope import BlockScope as _BlockScope
from .parameter import Parameter
from .parameter_dict import ParameterDict, load_named
from .utils import HookHandle, brief_list, indent

__all__ = ["Block"]


class Block:
    """Base of all layers and models.

    A subclass creates its children and parameters in `__init__` (after `super().__init__`) and computes in
    `forward`.

    Arguments:
        prefix: goes before the names of parameters and, inside `name_scope`, of children; by default the
            class name in lower case with a number.
        params: the parameters of another block, to be shared with it.
    """

    # Set by __init__; declared here so that `__setattr__` and type checkers know them.
    _children: OrderedDict[str, Block]
    _reg_params: dict[str, Parameter]

    def __init__(
        self, prefix: str | None = None, params: ParameterDict | None = None, **unknown: Any
    ) -> None:
        refuse_keywords(type(self), unknown)
        self._empty_prefix = prefix == ""
        self._prefix, self._params = _BlockScope.create(prefix, params, self._alias())
        self._name = self._prefix[:-1] if self._prefix.endswith("_") else self._prefix
        self._scope = _BlockScope(self._prefix, self._params, not self._empty_prefix)
        self._children = OrderedDict()
        self._reg_params = {}
        self._forward_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._forward_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    def __repr__(self) -> str:
        rows = [
            f"  ({key}): {indent(repr(b), 2)}" for key, b in self.__dict__.items() if isinstance(b, Block)
        ]
        return "{}(\n{}\n)".format(type(self).__name__, "\n".join(rows))

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        existing = fields.get(name)
        if isinstance(existing, Parameter | Block) and not isinstance(value, type(existing)):
            raise TypeError(
                f"Changing attribute type for {name} from {type(existing)} to {type(value)} is not allowed."
            )
        if isinstance(value, Block | Parameter) and "_children" not in fields:
            raise AttributeError(
                f"'{type(self).__name__}' object has no attribute '_children': call super().__init__() "
                f"before assigning '{name}'"
            )
        if isinstance(value, Block):
            self.register_child(value, name)
        elif isinstance(value, Parameter):
            if self._reg_params.get(name, value) is not value:
                raise AssertionError(
                    f"Overriding Parameter attribute {name} is not allowed. If you want to share parameters "
                    "between blocks, please set 'params' at Block construction instead."
                )
            self._reg_params[name] = value
        object.__setattr__(self, name, value)

    # --- names ---

    def _alias(self) -> str:
        """The kind that automatic names start with."""
        return type(self).__name__.lower()

    @property
    def prefix(self) -> str:
        """What the names of this block's parameters start with."""
        return self._prefix

    @property
    def name(self) -> str:
        """The prefix without its closing underscore."""
        return self._name

    def name_scope(self) -> _BlockScope:
        """A scope for `with`: blocks and symbols created inside have names that start with this block's
        prefix.
        """
        return self._scope

    # --- parameters ---

    @property
    def params(self) -> ParameterDict:
        """This block's own parameters, without those of its children (for those see `collect_params`)."""
        return self._params

    def collect_params(self, select: str | None = None) -> ParameterDict:
        """The parameters of this block and all blocks below it, or those whose name matches the pattern
        `select`.
        """
        self._warn_of_hidden_children()
        found = ParameterDict(self._params.prefix)
        pattern = re.compile(select) if select else None
        for name, param in self._params.items():
            if pattern is None or pattern.match(name):
                found.update({name: param})
        for child in self._children.values():
            found.update(child.collect_params(select))
        return found

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Parameter]:
        """Parameters by structural name: the attribute path from this block, as in 'features.0.weight'."""
        if prefix:
            prefix += "."
        found = {prefix + name: param for name, param in self._reg_params.items()}
        for name, child in self._children.items():
            found.update(child._collect_params_with_prefix(prefix + name))
        return found

    def _warn_of_hidden_children(self) -> None:
        """Warn of blocks in plain lists and dicts: they run but are neither initialized nor saved."""
        for name, value in self.__dict__.items():
            if not isinstance(value, list | tuple | dict) or not value:
                continue
            if name.startswith("__") or name in ("_children", "_reg_params", "_flags"):
                continue
            found = {id(block) for block in _blocks_in(value)}
            if found and not found <= {id(child) for child in self._children.values()}:
                warnings.warn(
                    f'"{type(self).__name__}.{name}" is an unregistered container with Blocks. Note that '
                    "Blocks inside the list, tuple or dict will not be registered automatically. Make sure "
                    "to register them using register_child() or switching to "
                    "nn.Sequential/nn.HybridSequential instead. ",
                    stacklevel=3,
                )

    def initialize(
        self,
        init: Any = None,
        ctx: Context | Sequence[Context] | None = None,
        verbose: bool = False,
        force_reinit: bool = False,
    ) -> None:
        """Initialize all parameters on `ctx` (default: the current context) by `init` (default: `Uniform()`).

        Parameters with an initializer of their own keep to it; initialized ones are left alone unless
        `force_reinit`.
        """
        self.collect_params().initialize(init, ctx, verbose, force_reinit)

    def cast(self, dtype: Any) -> None:
        """Change the dtype of all parameters."""
        for child in self._children.values():
            child.cast(dtype)
        for param in self._params.values():
            param.cast(dtype)

    # --- files ---

    def save_parameters(self, filename: str, deduplicate: bool = False) -> None:
        """Write all values to a file by structural name.

        A parameter that occurs at several places is written at each, or once, at its last, if `deduplicate`.
        """
        params = self._collect_params_with_prefix()
        if deduplicate:
            last = {id(param): name for name, param in params.items()}
            params = {name: params[name] for name in last.values()}
        ndarray.save(filename, {name: param._reduce() for name, param in params.items()})

    def load_parameters(
        self,
        filename: str,
        ctx: Context | Sequence[Context] | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:
        """Read values from a file of `save_parameters`, or one of `ParameterDict.save` with this block's
        prefix stripped.

        A parameter not initialized before is created on `ctx` (default: the CPU). `allow_missing`,
        `ignore_extra`, `cast_dtype` and `dtype_source` are those of `ParameterDict.load`. Raises
        AssertionError if a value is missing or does not fit its parameter, ValueError if one has no
        parameter.
        """
        loaded = load_named(filename)
        params = self._collect_params_with_prefix()
        if not loaded and not params:
            return
        if loaded and not any("." in name for name in loaded):
            # Full names hold no dot: the file is one of ParameterDict.save or of a checkpoint.
            self.collect_params().load_dict(
                loaded, ctx, allow_missing, ignore_extra, self.prefix, filename, cast_dtype, dtype_source
            )
            return
        if not allow_missing:
            present = {id(params[name]) for name in loaded if name in params}
            for name, param in params.items():
                if id(param) not in present:
                    raise AssertionError(
                        f"Parameter '{name}' is missing in file '{filename}', which contains parameters: "
                        f"{brief_list(list(loaded))}. Set allow_missing=True to ignore missing parameters."
                    )
        for name, value in loaded.items():
            param_or_none = params.get(name)
            if param_or_none is not None:
                param_or_none._load_init(value, ctx, cast_dtype=cast_dtype, dtype_source=dtype_source)
            elif not ignore_extra:
                raise ValueError(
                    f"Parameter '{name}' loaded from file '{filename}' is not present in ParameterDict, "
                    f"which contains parameters {brief_list(list(params))}. Set ignore_extra=True to "
                    "ignore. "
                )

    def save_params(self, filename: str) -> None:
        """Deprecated: `collect_params().save(filename, strip_prefix=prefix)`. Use `save_parameters`."""
        warnings.warn("save_params is deprecated. Please use save_parameters.", stacklevel=2)
        self.collect_params().save(filename, strip_prefix=self.prefix)

    def load_params(
        self,
        filename: str,
        ctx: Context | Sequence[Context] | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
    ) -> None:
        """Deprecated name of `load_parameters`."""
        warnings.warn("load_params is deprecated. Please use load_parameters.", stacklevel=2)
        self.load_parameters(filename, ctx, allow_missing, ignore_extra)

    def save(self, prefix: str) -> None:
        """Write `<prefix>-model.params` (the values) and `<prefix>-model.json` (names of the blocks, which
        are hybridized).
        """
        numbers: dict[str, int] = {}
        root = self._describe(numbers)
        write_whole(f"{prefix}-model.json", json.dumps({f"{self._alias()}0": root}).encode())
        self.save_parameters(f"{prefix}-model.params")

    def load(self, prefix: str) -> None:
        """Read what `save` wrote into a block of the same structure; ValueError if the structure differs."""
        path = f"{prefix}-model.json"
        with open(path, encoding="utf-8") as file:
            (root,) = json.load(file).values()
        self._restore(root, path)
        self.load_parameters(f"{prefix}-model.params")

    def _describe(self, numbers: dict[str, int]) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "orig_name": self.name,
            "hybridized": bool(getattr(self, "_active", False)),
            "children": {child.name: key for key, child in self._children.items()},
        }
        for child in self._children.values():
            kind = child._alias()
            number = numbers[kind] = numbers.get(kind, 0) + 1
            entry[f"{kind}{number}"] = child._describe(numbers)
        return entry

    def _restore(self, entry: dict[str, Any], path: str) -> None:
        keys = list(entry.get("children", {}).values())
        below = [value for key, value in entry.items() if key not in ("orig_name", "hybridized", "children")]
        if keys != list(self._children) or len(below) != len(keys):
            raise ValueError(
                f"{path}: block '{entry.get('orig_name')}' has the children {keys}, but '{self.name}' has "
                f"{list(self._children)}"
            )
        if entry.get("hybridized") and hasattr(self, "_active"):
            self._active = True
        for child, child_entry in zip(self._children.values(), below, strict=True):
            child._restore(child_entry, path)

    # --- structure ---

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make `block` a child, under `name` or the next number. Attributes do so by themselves."""
        if not isinstance(block, Block):
            raise TypeError(
                f"{type(self).__name__}: a child must be a Block, got {block!r} of type {type(block)}"
            )
        self._children[str(len(self._children)) if name is None else name] = block

    def apply(self, fn: Callable[[Block], Any]) -> Block:
        """Call `fn` on every block below this one, children before parents, and then on this. Returns this
        block.
        """
        for child in self._children.values():
            child.apply(fn)
        fn(self)
        return self

    def hybridize(self, active: bool = True, **kwargs: Any) -> None:
        """Hand the wish to hybridize on to the children; a plain Block itself always runs as written."""
        for child in self._children.values():
            child.hybridize(active, **kwargs)

    # --- running ---

    def register_forward_pre_hook(self, hook: Callable[[Block, tuple[Any, ...]], Any]) -> HookHandle:
        """Call `hook(block, inputs)` before every forward pass; what it returns is ignored."""
        handle = HookHandle()
        handle.attach(self._forward_pre_hooks, hook)
        return handle

    def register_forward_hook(self, hook: Callable[[Block, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call `hook(block, inputs, outputs)` after every forward pass; what it returns is ignored."""
        handle = HookHandle()
        handle.attach(self._forward_hooks, hook)
        return handle

    def register_op_hook(self, callback: Callable[..., Any], monitor_all: bool = False) -> None:
        """Call `callback(node, operator, array)` for every operator run below this block."""
        for child in self._children.values():
            child.register_op_hook(callback, monitor_all)

    def __call__(self, *args: Any) -> Any:
        if self._forward_pre_hooks:
            for hook in list(self._forward_pre_hooks.values()):
                hook(self, args)
        out = self.forward(*args)
        if self._forward_hooks:
            for hook in list(self._forward_hooks.values()):
                hook(self, args, out)
        return out

    def forward(self, *args: Any) -> Any:
        """The computation; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def summary(self, *inputs: Any) -> None:
        """Run `inputs` through the block and print a table: each layer's output shape and number of
        parameters.

        The block must be initialized and not hybridized (AssertionError).
        """
        from ._summary import print_summary

        print_summary(self, inputs)


def _blocks_in(value: Iterable[Any]) -> Iterable[Block]:
    """The blocks in nested lists, tuples and dicts."""
    if isinstance(value, Block):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _blocks_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _blocks_in(item)
