"""The base of all optimizers: registry, learning rates and decays per parameter, update counts, float16
master copies.

A rule subclasses :class:`Optimizer`, makes its state in ``create_state`` and applies one step in ``update``.
What keeps the states of many parameters, and what writes them to a file, is :mod:`mxrs.optimizer.updater`;
the rules stand in ``sgd``, ``adaptive`` and ``contrib``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .. import ndarray as nd
from ..base import did_you_mean, refuse_keywords
from ..ndarray import NDArray

__all__ = ["Optimizer", "create", "register"]

OptimizerType = TypeVar("OptimizerType", bound="type[Optimizer]")
Index = Any  # an int or str, or a list or tuple of them where several parameters are updated in one call

_DEFAULT_LEARNING_RATE = 0.01


class Optimizer:
    """Base class of the optimizers.

    Parameters
    ----------
    rescale_grad : float
        Factor on every gradient before it is used, usually one over the batch size.
    param_idx2name : dict of int to str, optional
        Names of the parameters by index. With it, parameters whose name ends neither in ``_weight`` nor in
        ``_gamma`` are not decayed, and multipliers may be given by name.
    wd : float
        Weight decay.
    clip_gradient : float, optional
        Bound on the absolute value of each rescaled gradient element. None or 0 clips nothing.
    learning_rate : float, optional
        0.01 without a scheduler; with one it overwrites the scheduler's ``base_lr`` where given.
    lr_scheduler : callable, optional
        Called with ``num_update``, returns the learning rate.
    sym : Symbol, optional
        Its variables' ``__lr_mult__`` and ``__wd_mult__`` attributes become multipliers.
    begin_num_update : int
        What the update counts start from.
    multi_precision : bool
        Keep a float32 master copy of float16 weights and update that.
    param_dict : dict of int to gluon.Parameter, optional
        Parameters whose ``lr_mult`` and ``wd_mult`` are read at every update.

    Raises
    ------
    AssertionError
        Where `param_idx2name` is not a dict.
    TypeError
        For an argument that the optimizer does not have.
    """

    opt_registry: dict[str, type[Optimizer]] = {}

    def __init__(
        self,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[int, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[int], float] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        **unknown: Any,
    ) -> None:
        refuse_keywords(type(self), unknown)
        self.rescale_grad = rescale_grad
        self.lr_scheduler = lr_scheduler
        if lr_scheduler is None and learning_rate is None:
            learning_rate = _DEFAULT_LEARNING_RATE
        elif lr_scheduler is not None and learning_rate is not None:
            _overwrite_base_lr(lr_scheduler, learning_rate)
        self.lr = learning_rate
        self.wd = wd
        self.lr_mult: dict[Any, float] = {}
        self.wd_mult: dict[Any, float] = {}
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        # One table per device: replicas of a parameter share the index but count for themselves.
        self._all_index_update_counts: dict[int, dict[Any, int]] = {0: {}}
        self._index_update_count = self._all_index_update_counts[0]
        self.clip_gradient = clip_gradient
        self.multi_precision = multi_precision
        self.aggregate_num = 0
        if param_idx2name is None:
            param_idx2name = {}
        if not isinstance(param_idx2name, dict):
            raise AssertionError(
                "param_idx2name should be a dict of param indexes to names, "
                f"given {type(param_idx2name).__name__}"
            )
        self.idx2name = param_idx2name.copy()
        self.sym_info = (sym.attr_dict(), sym.list_arguments()) if sym is not None else ()
        self.param_dict = param_dict if param_dict else {}
        self.allow_np_array = False
        self.set_lr_mult({})
        self.set_wd_mult({})

    # -- registry -----------------------------------------------------------------------------------

    @staticmethod
    def register(klass: OptimizerType) -> OptimizerType:
        """Make `klass` known to :func:`create` under its lower-case class name; usable as a decorator.

        A second class of the same name replaces the first, with a warning.
        """
        if not isinstance(klass, type):
            raise AssertionError(f"register expects a class, given {klass!r}")
        name = klass.__name__.lower()
        known = Optimizer.opt_registry.get(name)
        if known is not None:
            warnings.warn(
                f"WARNING: New optimizer {klass.__module__}.{klass.__name__} is overriding "
                f"existing optimizer {known.__module__}.{known.__name__}",
                stacklevel=2,
            )
        Optimizer.opt_registry[name] = klass
        return klass

    @staticmethod
    def create_optimizer(name: str, **kwargs: Any) -> Optimizer:
        """Instance of the optimizer registered as `name` (in any case), built with `kwargs`.

        Raises
        ------
        ValueError
            For a name that is not registered.
        """
        if not isinstance(name, str):
            raise TypeError(f"create expects the name of an optimizer, given {type(name).__name__}")
        klass = Optimizer.opt_registry.get(name.lower())
        if klass is None:
            hint = did_you_mean(name.lower(), Optimizer.opt_registry)
            raise ValueError(f"Cannot find optimizer {name}{hint}")
        return klass(**kwargs)

    # -- what a rule defines ------------------------------------------------------------------------

    def create_state(self, index: Index, weight: NDArray) -> Any:
        """State of one parameter: None, an NDArray, or a nested tuple of them."""
        return None

    def update(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step of the rule: change `weight` and `state` in place from `grad`."""
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def create_state_multi_precision(self, index: Index, weight: NDArray) -> Any:
        """State of one parameter, with a float32 copy before it for a float16 `weight` under
        `multi_precision`.
        """
        if weight.dtype == np.float16:
            if self.multi_precision:
                master = weight.astype(np.float32)
                return master, self.create_state(index, master)
            self._warn_float16("of the optimizer")
        return self.create_state(index, weight)

    def update_multi_precision(self, index: Index, weight: NDArray, grad: NDArray, state: Any) -> None:
        """One step on the float32 copy that :meth:`create_state_multi_precision` made, then written to
        `weight`.
        """
        if self.multi_precision and weight.dtype == np.float16:
            master, inner_state = state
            self.update(index, master, grad.astype(np.float32), inner_state)
            nd.cast(master, dtype="float16", out=weight)
        else:
            self.update(index, weight, grad, state)

    # -- learning rates and decays ------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The rate in force: the scheduler's at the present ``num_update``, else ``lr``."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler(self.num_update)
        if self.lr is None:
            raise ValueError(f"{type(self).__name__} has neither a learning rate nor an lr_scheduler")
        return self.lr

    def set_learning_rate(self, lr: float) -> None:
        """Set the rate. Raises UserWarning where a scheduler decides it."""
        if self.lr_scheduler is not None:
            raise UserWarning(
                "LRScheduler of the optimizer has already been defined. Note that set_learning_rate can "
                "mutate the value of the learning rate of the optimizer only when the LRScheduler of the "
                "optimizer is undefined."
            )
        if not hasattr(lr, "__float__"):
            raise TypeError(f"set_learning_rate: a number is expected, given {lr!r}")
        self.lr = lr

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Removed long ago: raises DeprecationWarning. Use :meth:`set_lr_mult`."""
        raise DeprecationWarning("set_lr_scale is deprecated, use set_lr_mult")

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Multipliers on the learning rate, by index or name; they replace earlier ones except those of
        `sym`.
        """
        self.lr_mult = self._symbol_multipliers("__lr_mult__")
        self.lr_mult.update(args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Multipliers on the weight decay, by index or name.

        Parameters with a known name that ends neither in ``_weight`` nor in ``_gamma`` get 0 unless given
        here or by `sym`.
        """
        self.wd_mult = self._undecayed(("_weight", "_gamma"))
        self.wd_mult.update(self._symbol_multipliers("__wd_mult__"))
        self.wd_mult.update(args_wd_mult)

    def _undecayed(self, decayed_suffixes: tuple[str, ...]) -> dict[Any, float]:
        return {name: 0.0 for name in self.idx2name.values() if not name.endswith(decayed_suffixes)}

    def _symbol_multipliers(self, attribute: str) -> dict[Any, float]:
        if not self.sym_info:
            return {}
        attributes, arguments = self.sym_info
        return {
            name: float(attributes[name][attribute])
            for name in arguments
            if attribute in attributes.get(name, ())
        }

    def _get_lrs(self, indices: Sequence[Any]) -> list[float]:
        """Learning rate of each parameter, multipliers included."""
        base = self.learning_rate
        return [base * self._multiplier(index, "lr_mult", self.lr_mult) for index in indices]

    def _get_lr(self, index: Any) -> float:
        return self._get_lrs((index,))[0]

    def _get_wds(self, indices: Sequence[Any]) -> list[float]:
        """Weight decay of each parameter, multipliers included."""
        return [self.wd * self._multiplier(index, "wd_mult", self.wd_mult) for index in indices]

    def _get_wd(self, index: Any) -> float:
        return self._get_wds((index,))[0]

    def _multiplier(self, index: Any, attribute: str, table: dict[Any, float]) -> float:
        if index in self.param_dict:
            return getattr(self.param_dict[index], attribute)
        if index in table:
            return table[index]
        if table and index in self.idx2name:
            return table.get(self.idx2name[index], 1.0)
        return 1.0

    # -- update counts ------------------------------------------------------------------------------

    def _set_current_context(self, device_id: int) -> None:
        """Choose the table of update counts of this device for the updates that follow."""
        counts = self._all_index_update_counts.get(device_id)
        if counts is None:
            counts = self._all_index_update_counts[device_id] = {}
        self._index_update_count = counts

    def _update_count(self, index: Index) -> None:
        """Count one more update of each index; ``num_update`` is the largest count seen."""
        counts = self._index_update_count
        for one in index if isinstance(index, (list, tuple)) else (index,):
            count = counts.get(one, self.begin_num_update) + 1
            counts[one] = count
            if count > self.num_update:
                self.num_update = count

    # -- help for the rules -------------------------------------------------------------------------

    def _fused_arguments(self) -> dict[str, float]:
        """Keyword arguments of all fused update operators; a missing clip_gradient clips nothing."""
        if self.clip_gradient:
            return {"rescale_grad": self.rescale_grad, "clip_gradient": self.clip_gradient}
        return {"rescale_grad": self.rescale_grad}

    def _prepared(self, grad: NDArray) -> NDArray:
        """The gradient rescaled, then clipped, in a new array."""
        grad = grad * self.rescale_grad
        return self._clipped(grad)

    def _prepared_with_decay(self, grad: NDArray, weight: NDArray, wd: float) -> NDArray:
        """The gradient rescaled, decay added, then clipped, in a new array."""
        grad = grad * self.rescale_grad
        if wd:
            grad += wd * weight
        return self._clipped(grad)

    def _clipped(self, grad: NDArray) -> NDArray:
        if self.clip_gradient is not None:
            nd.clip(grad, -self.clip_gradient, self.clip_gradient, out=grad)
        return grad

    def _warn_float16(self, of_what: str) -> None:
        warnings.warn(
            "Accumulating with float16 in optimizer can lead to poor accuracy or slow convergence. "
            f"Consider using multi_precision=True option {of_what}",
            stacklevel=3,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Parameters hold the very arrays that are trained: they are saved elsewhere.
        state = self.__dict__.copy()
        state.pop("param_dict", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.param_dict = {}


register = Optimizer.register
create = Optimizer.create_optimizer


def zeros_like_weight(weight: NDArray, stype: str = "default") -> NDArray:
    """Zeros of the weight's shape and dtype on its device, dense unless `stype` says otherwise."""
    if stype == "default":
        return nd.zeros(weight.shape, ctx=weight.context, dtype=weight.dtype)
    return nd.sparse.zeros(stype, weight.shape, ctx=weight.context, dtype=weight.dtype)


def as_lists(index: Index, *columns: Any) -> Iterable[tuple[Any, ...]]:
    """Rows (index, weight, grad, state, ...) whether one parameter or lists of several were given."""
    if isinstance(index, (list, tuple)):
        return zip(index, *columns)
    return ((index, *columns),)


def aggregation_from_environment() -> int:
    """How many parameters an updater hands over at once: MXNET_OPTIMIZER_AGGREGATION_SIZE, or 4."""
    text = os.getenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "4")
    try:
        return max(1, min(50, int(text)))
    except ValueError:
        raise ValueError(f"MXNET_OPTIMIZER_AGGREGATION_SIZE must be an integer, given {text!r}") from None


def _overwrite_base_lr(scheduler: Any, learning_rate: float) -> None:
    if getattr(scheduler, "base_lr", learning_rate) != learning_rate:
        warnings.warn(
            f"learning_rate {learning_rate} of the optimizer replaces base_lr {scheduler.base_lr} of its "
            "lr_scheduler",
            stacklevel=4,
        )
    scheduler.base_lr = learning_rate
