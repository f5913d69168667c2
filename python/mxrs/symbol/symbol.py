"""`Symbol`: a handle to outputs of a graph, with everything that can be asked of one.

The graph itself lives in the core (`SymbolBase`); here are the conveniences of Python. Methods that are operators
come from the core's records.
"""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, NoReturn

from .. import _core
from .._files import write_whole
from ..attribute import AttrScope
from ..base import MXNetError, NotImplementedForSymbol
from ..context import Context, current_context
from ..ndarray._dtypes import flag_of
from ._lookup import function, op

__all__ = ["Group", "Symbol", "Variable", "fromjson", "load", "load_json", "var"]

#: The numbers of storage types in files.
_STORAGE = {"undefined": -1, "default": 0, "row_sparse": 1, "csr": 2}


def _binary(symbol: str, scalar: str, reversed_scalar: str | None = None) -> Callable[[Any, Any], Any]:
    """A method for a sign, by the operators for a symbol and for a number on the other side.

    `reversed_scalar`: the method is the reflected one, so the number stands on the left.
    """
    with_number = reversed_scalar or scalar

    def method(self: Symbol, other: Any) -> Symbol:
        if isinstance(other, _core.SymbolBase):
            pair = (other, self) if reversed_scalar else (self, other)
            return op(symbol)(*pair)
        if isinstance(other, Number):
            return op(with_number)(self, scalar=other)
        raise TypeError(f"type {type(other)} not supported: a Symbol or a number is expected beside a Symbol")

    return method


def _array_only(name: str, alias: str | None = None) -> Callable[..., Any]:
    """A method that only arrays have."""

    def method(self: Symbol, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedForSymbol(method, alias, self, *args)

    method.__name__ = name
    return method


class Symbol(_core.SymbolBase):
    """One or more outputs of a graph of operators.

    Symbols are made by :func:`var`, by the functions of `mx.sym`, and by arithmetic on other symbols.
    """

    __slots__ = ()
    # NumPy's numbers leave arithmetic with symbols to the symbols.
    __array_ufunc__ = None

    # ---- arithmetic -------------------------------------------------------------------------------------------

    __add__ = _binary("_Plus", "_PlusScalar")
    __radd__ = __add__
    __sub__ = _binary("_Minus", "_MinusScalar")
    __rsub__ = _binary("_Minus", "_MinusScalar", "_RMinusScalar")
    __mul__ = _binary("_Mul", "_MulScalar")
    __rmul__ = __mul__
    __truediv__ = _binary("_Div", "_DivScalar")
    __rtruediv__ = _binary("_Div", "_DivScalar", "_RDivScalar")
    __mod__ = _binary("_Mod", "_ModScalar")
    __rmod__ = _binary("_Mod", "_ModScalar", "_RModScalar")
    __pow__ = _binary("_Power", "_PowerScalar")
    __rpow__ = _binary("_Power", "_PowerScalar", "_rpower_scalar")
    __eq__ = _binary("_equal", "_equal_scalar")
    __ne__ = _binary("_not_equal", "_not_equal_scalar")
    __gt__ = _binary("_greater", "_greater_scalar")
    __ge__ = _binary("_greater_equal", "_greater_equal_scalar")
    __lt__ = _binary("_lesser", "_lesser_scalar")
    __le__ = _binary("_lesser_equal", "_lesser_equal_scalar")
    __hash__ = object.__hash__
    __div__, __rdiv__ = __truediv__, __rtruediv__

    def __neg__(self) -> Symbol:
        return op("_MulScalar")(self, scalar=-1.0)

    def __abs__(self) -> Symbol:
        return op("abs")(self)

    __iadd__ = _array_only("__iadd__", "+=")
    __isub__ = _array_only("__isub__", "-=")
    __imul__ = _array_only("__imul__", "*=")
    __itruediv__ = _array_only("__itruediv__", "/=")
    __idiv__ = __itruediv__
    __bool__ = _array_only("__bool__", "bool")
    __nonzero__ = __bool__

    # ---- parts and copies -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        name = self.name
        if name is None:
            return f"<{type(self).__name__} group [{', '.join(str(head.name) for head in self)}]>"
        return f"<{type(self).__name__} {name}>"

    def __iter__(self) -> Iterator[Symbol]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Symbol:
        """The output of this number or name, or a group of a slice of the outputs."""
        if isinstance(index, str):
            return self._find(index)
        if isinstance(index, slice):
            return Group([self[i] for i in range(*index.indices(len(self)))])
        if not hasattr(index, "__index__"):
            raise TypeError("Symbol only support integer index to fetch i-th output")
        return self._pick(index.__index__())

    def __copy__(self) -> Symbol:
        return self._copy()

    def __deepcopy__(self, memo: Any) -> Symbol:
        return self._copy()

    def __getstate__(self) -> dict[str, str]:
        return {"handle": self.tojson(remove_amp_cast=False)}

    def __setstate__(self, state: Mapping[str, str]) -> None:
        self._assign(load_json(state["handle"]))

    def __reduce__(self) -> tuple[Any, ...]:
        return load_json, (self.tojson(remove_amp_cast=False),)

    def __call__(self, *args: Symbol, name: str | None = None, **kwargs: Symbol) -> Symbol:
        """The graph with variables replaced by symbols: in the order of the arguments, or by name.

        Parameters
        ----------
        name : str, optional
            The new name of the first output's node.
        """
        if args and kwargs:
            raise TypeError("compose takes Symbols by position or by keyword, not both")
        if args:
            names = self.list_arguments()
            if len(args) > len(names):
                raise TypeError(f"{len(args)} Symbols are given; there are {len(names)} arguments: {names}")
            kwargs = dict(zip(names, args))
        for key, value in kwargs.items():
            if not isinstance(value, _core.SymbolBase):
                raise TypeError(f"compose: {key} must be a Symbol, not {type(value).__name__}")
        return self._compose(name, kwargs)

    # ---- attributes -------------------------------------------------------------------------------------------

    def attr(self, key: str) -> str | None:
        """The attribute of this name, of the node itself; None where it has none. ``name`` is the node's name."""
        return self.name if key == "name" else super().attr(key)

    def list_attr(self, recursive: bool = False) -> dict[str, str]:
        """The attributes of the node itself. Those of all nodes are in :meth:`attr_dict`."""
        if recursive:
            raise DeprecationWarning("list_attr with recursive=True was replaced by attr_dict")
        return self._texts()

    def _set_attr(self, **kwargs: str) -> None:
        """Sets attributes of the node. A parameter of the operator applies to this handle and to graphs made of it
        from now on.
        """
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise ValueError(f"attribute {key}: Set Attr only accepts string values, not {value!r}")
            self._set_text(key, value)

    # ---- inference --------------------------------------------------------------------------------------------

    def infer_shape(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Shapes of arguments, outputs and auxiliary states, from those of some arguments.

        Parameters
        ----------
        args : tuple of int or None
            Shapes of the arguments in order; None where unknown.
        kwargs : tuple of int
            Shapes by name. A dimension 0 is unknown.

        Returns
        -------
        (arg_shapes, out_shapes, aux_shapes)
            Lists of tuples; None three times, with a warning, where the given shapes do not decide all.

        Raises
        ------
        MXNetError
            Where shapes contradict each other.
        """
        *lists, complete = self._infer_shape(self._given_shapes(args, kwargs), None)
        if complete:
            return tuple(lists)  # type: ignore[return-value]
        names = self.list_arguments()
        open_ = [
            f"{name}: {shape or None}" for name, shape in zip(names, lists[0]) if not shape or 0 in shape
        ]
        warnings.warn(
            "infer_shape: the given shapes do not decide those of these arguments (0 is an unknown dimension); "
            f"give them too:\n\t{chr(10).join(open_) or 'none; an output stays open'}".replace("\n", "\n\t"),
            stacklevel=2,
        )
        return None, None, None

    def infer_shape_partial(self, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """As :meth:`infer_shape`, with what stays unknown left open: () for a shape, 0 for a dimension."""
        arg_shapes, out_shapes, aux_shapes, _ = self._infer_shape(self._given_shapes(args, kwargs), None)
        return arg_shapes, out_shapes, aux_shapes

    def infer_type(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Element types of arguments, outputs and auxiliary states, from those of some arguments.

        Types are given by position or by name. Three times None, with a warning, where they do not decide all.
        """
        lists = self._infer_type(self._given("type", args, kwargs))
        if all(kind is not None for kinds in lists for kind in kinds):
            return lists
        open_ = [name for name, kind in zip(self.list_arguments(), lists[0]) if kind is None]
        warnings.warn(
            f"infer_type: the given types do not decide those of {', '.join(open_) or 'all outputs'}; give them too",
            stacklevel=2,
        )
        return None, None, None

    def infer_type_partial(self, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """As :meth:`infer_type`, with None for what stays unknown."""
        return self._infer_type(self._given("type", args, kwargs))

    def _given(self, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of inference by name; what is None is left out."""
        if args and kwargs:
            raise ValueError(f"{what}s are given by position or by keyword, not both")
        if args:
            names = self.list_arguments()
            if len(args) > len(names):
                raise ValueError(f"{len(args)} {what}s are given; there are {len(names)} arguments: {names}")
            return {name: value for name, value in zip(names, args) if value is not None}
        return dict(kwargs) if what == "shape" else {k: v for k, v in kwargs.items() if v is not None}

    def _given_shapes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shapes = self._given("shape", args, kwargs)
        for name, shape in shapes.items():
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"Arguments need to be shapes (tuple), but '{name}' is {type(shape)}.")
            try:
                shapes[name] = tuple(operator.index(extent) for extent in shape)
            except TypeError:
                raise TypeError(
                    f"infer_shape: the shape of '{name}' holds whole numbers, given {shape}"
                ) from None
        return shapes

    # ---- files ------------------------------------------------------------------------------------------------

    def tojson(self, remove_amp_cast: bool = True) -> str:
        """The graph as the JSON text of MXNet's symbol files.

        `remove_amp_cast` leaves out the casts of automatic mixed precision.
        """
        return self._json(remove_amp_cast)

    def save(self, fname: str | os.PathLike[str], remove_amp_cast: bool = True) -> None:
        """Writes :meth:`tojson` to a file, which appears under its name only when it is complete."""
        if not isinstance(fname, (str, os.PathLike)):
            raise TypeError(f"save: fname need to be string, not {type(fname).__name__}")
        text = self.tojson(remove_amp_cast)
        try:
            write_whole(os.path.expanduser(fname), text.encode())
        except OSError as error:
            raise MXNetError(f"save: {fname} cannot be written: {error.strerror}") from None

    # ---- running ----------------------------------------------------------------------------------------------

    def bind(
        self,
        ctx: Context,
        args: Any,
        args_grad: Any = None,
        grad_req: Any = "write",
        aux_states: Any = None,
        group2ctx: Any = None,
        shared_exec: Any = None,
        *,
        memory_budget: int | str | None = None,
    ) -> Any:
        """An executor of the graph on given arrays.

        Parameters
        ----------
        ctx : Context
            Where it runs.
        args, args_grad, aux_states : list or dict of NDArray
            Arguments, where their gradients go (missing ones are not computed), and auxiliary states.
        grad_req : str, or list or dict of str
            'write', 'add' or 'null'.
        group2ctx : dict of str to Context, optional
            Where the nodes of each `ctx_group` run.
        shared_exec : Executor, optional
            An executor whose memory may be used again.
        memory_budget : int or str, optional
            How much working memory training may need: bytes, a share of what it needs without a budget ('60%'), or
            'smallest'. Results that do not fit are computed again for the gradients; see `mxrs.memonger`.

        Raises
        ------
        ValueError
            An argument does not fit the graph, or the budget is too small; the message says the smallest that is not.
        """
        from ..executor import Executor

        return Executor._bind(
            self, ctx, args, args_grad, grad_req, aux_states, group2ctx, shared_exec, memory_budget
        )

    def simple_bind(
        self,
        ctx: Context,
        grad_req: Any = "write",
        type_dict: Any = None,
        stype_dict: Any = None,
        group2ctx: Any = None,
        shared_arg_names: Any = None,
        shared_exec: Any = None,
        shared_buffer: Any = None,
        memory_budget: int | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """An executor of the graph on new arrays of the shapes given by name; see :meth:`bind`.

        `type_dict` gives element types by name; arguments in `shared_arg_names` are those of `shared_exec`, and
        `shared_buffer` is a dict of arrays to use where they are large enough.
        """
        from ..executor import Executor

        return Executor._simple_bind(
            self,
            ctx,
            grad_req,
            type_dict,
            stype_dict,
            group2ctx,
            shared_arg_names,
            shared_exec,
            shared_buffer,
            kwargs,
            memory_budget,
        )

    def eval(self, ctx: Context | None = None, **kwargs: Any) -> list[Any]:
        """The outputs for arrays given by name, a list."""
        states = {name: kwargs.pop(name) for name in self.list_auxiliary_states() if name in kwargs}
        executor = self.bind(current_context() if ctx is None else ctx, kwargs, aux_states=states or None)
        outputs: list[Any] = executor.forward()
        return outputs

    def gradient(self, wrt: Sequence[str]) -> NoReturn:
        """Not available, as in MXNet: bind the symbol and call `backward` of the executor."""
        raise MXNetError(
            "Symbol.gradient is not implemented; bind the symbol and call the executor's backward"
        )

    def get_backend_symbol(self, backend: str) -> Symbol:
        """The symbol itself: the passes that MXNet keeps in backends run in every `bind`."""
        return self

    def optimize_for(
        self,
        backend: str,
        args: Any = None,
        aux: Any = None,
        ctx: Context | None = None,
        shape_dict: Any = None,
        type_dict: Any = None,
        stype_dict: Any = None,
        skip_infer: bool = False,
        **kwargs: Any,
    ) -> Symbol:
        """The symbol itself: the passes that MXNet keeps in backends run in every `bind`."""
        return self

    # ---- operators with more to say than their records --------------------------------------------------------

    def astype(self, dtype: Any, **kwargs: Any) -> Symbol:
        """The values as another element type."""
        kwargs.pop("copy", None)
        return _cast(self, dtype=dtype, **kwargs)

    def reshape(self, *shape: Any, **kwargs: Any) -> Symbol:
        """The elements in another shape: one tuple or several numbers; see the operator `Reshape`."""
        if shape:
            kwargs["shape"] = shape[0] if len(shape) == 1 else shape
        return _reshape(self, **kwargs)

    def flatten(self, inplace: bool = False, **kwargs: Any) -> Symbol:
        """All axes but the first as one. `inplace` has no meaning in a graph."""
        return _flatten(self, **kwargs)

    def expand_dims(self, axis: int, inplace: bool = False, **kwargs: Any) -> Symbol:
        """A new axis of extent 1 at place `axis`. `inplace` has no meaning in a graph."""
        return _expand_dims(self, axis=axis, **kwargs)

    def squeeze(self, axis: Any = None, inplace: bool = False, **kwargs: Any) -> Symbol:
        """Axes of extent 1 (those of `axis`, or all) left out. `inplace` has no meaning in a graph."""
        return _squeeze(self, axis=axis, **kwargs)

    def diag(self, k: int = 0, **kwargs: Any) -> Symbol:
        """The k-th diagonal, or a matrix with this diagonal."""
        return _diag(self, k=k, **kwargs)

    def split_v2(self, *args: Any, **kwargs: Any) -> Symbol:
        """Parts along an axis; see `mx.sym.split_v2`."""
        from .creation import split_v2

        return split_v2(self, *args, **kwargs)

    def as_nd_ndarray(self) -> Symbol:
        """The symbol itself."""
        return self

    def as_np_ndarray(self) -> NoReturn:
        """Not built yet."""
        raise NotImplementedError("as_np_ndarray: mx.np is not built yet in mxrs")


def _named(name: str, operator: str) -> Callable[..., Symbol]:
    """The method `name` that is an operator; its function is made by the first call."""

    def method(self: Symbol, *args: Any, **kwargs: Any) -> Symbol:
        made = function(operator, name)
        assert made is not None
        return made(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"Symbol.{name}"
    method.__doc__ = f"`mx.sym.{operator}` of this symbol."
    return method


_cast, _reshape, _flatten = _named("cast", "Cast"), _named("reshape", "Reshape"), _named("flatten", "Flatten")
_expand_dims, _squeeze = _named("expand_dims", "expand_dims"), _named("squeeze", "squeeze")
_diag = _named("diag", "diag")

for _name, _operator in _core.symbol_methods():
    if _name not in Symbol.__dict__:
        setattr(Symbol, _name, _named(_name, _operator))
for _name in ("as_in_context", "asnumpy", "asscalar", "backward", "copy", "detach", "wait_to_read"):
    setattr(Symbol, _name, _array_only(_name))

_core.set_symbol_class(Symbol)


def var(
    name: str,
    attr: Mapping[str, str] | None = None,
    shape: Any = None,
    lr_mult: Any = None,
    wd_mult: Any = None,
    dtype: Any = None,
    init: Any = None,
    stype: str | None = None,
    **kwargs: Any,
) -> Symbol:
    """A variable: a place of a graph that is filled when it is bound.

    Parameters
    ----------
    name : str
    attr : dict of str to str, optional
        Attributes, with those of the `AttrScope` in force under them.
    shape : tuple of int, optional
        0 is an unknown dimension.
    lr_mult, wd_mult : float, optional
        What its learning rate and weight decay are multiplied by.
    dtype : optional
        Its element type.
    init : Initializer or str, optional
        What initializes it.
    stype : str, optional
        Its storage type.
    kwargs
        Further attributes, named `__like_this__`.
    """
    if not isinstance(name, str):
        raise TypeError(f"Expect a string for variable `name`, not {type(name).__name__}")
    texts = dict(AttrScope.current.get(dict(attr) if attr else None) or {})
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"variable {name}: Set Attr only accepts string values; {key} is {value!r}")
    if shape is not None:
        if isinstance(shape, str):
            raise TypeError(f"variable {name}: shape is a tuple of whole numbers, given {shape!r}")
        shape = tuple(int(e) for e in shape) if isinstance(shape, (tuple, list)) else shape
        texts["__shape__"] = str(shape)
    if lr_mult is not None:
        texts["__lr_mult__"] = str(lr_mult)
    if wd_mult is not None:
        texts["__wd_mult__"] = str(wd_mult)
    if dtype is not None:
        texts["__dtype__"] = str(flag_of(dtype))
    if init is not None:
        texts["__init__"] = init if isinstance(init, str) else init.dumps()
    if stype is not None:
        if stype not in _STORAGE:
            raise ValueError(f"variable {name}: stype {stype!r} is not one of {', '.join(_STORAGE)}")
        texts["__storage_type__"] = str(_STORAGE[stype])
    for key, value in kwargs.items():
        if not (key.startswith("__") and key.endswith("__")):
            raise ValueError(
                f"Attribute name={key} is not supported. Additional attributes must start and end with double "
                "underscores, e.g, __yourattr__"
            )
        texts[key] = str(value)
    made: Symbol = _core.symbol_variable(name, texts)
    return made


Variable = var


def Group(symbols: Sequence[Symbol], create_fn: Any = None) -> Symbol:
    """The outputs of several symbols as one symbol. `create_fn` has no meaning here."""
    if isinstance(symbols, _core.SymbolBase):
        return symbols  # type: ignore[return-value]
    parts = list(symbols) if isinstance(symbols, Iterable) else []
    if not parts or not all(isinstance(s, _core.SymbolBase) for s in parts):
        raise TypeError(f"Group: Expected a list of symbols as input, given {symbols!r}")
    group: Symbol = _core.symbol_group(parts)
    return group


def load(fname: str | os.PathLike[str]) -> Symbol:
    """The symbol in a file written by :meth:`Symbol.save`, or by any version of MXNet from 0.8 on.

    Raises
    ------
    MXNetError
        If the file cannot be read, or is damaged; the message says where.
    """
    if not isinstance(fname, (str, os.PathLike)):
        raise TypeError(f"load: fname need to be string, not {type(fname).__name__}")
    try:
        with open(os.path.expanduser(fname), "rb") as stream:
            text = stream.read().decode("utf-8")
    except OSError as error:
        raise MXNetError(f"load: {fname} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise MXNetError(f"{fname}: this is not a symbol file: byte {error.start} is not text") from None
    try:
        return load_json(text)
    except MXNetError as error:
        raise type(error)(f"{fname}: {error}") from None


def load_json(json_str: str) -> Symbol:
    """The symbol that a JSON text describes; the text of a file for :func:`load`."""
    if not isinstance(json_str, str):
        raise TypeError(f"load_json: a string is expected, not {type(json_str).__name__}")
    made: Symbol = _core.symbol_from_json(json_str)
    return made


fromjson = load_json
