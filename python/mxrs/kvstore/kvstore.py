"""`KVStore`: arrays by key, summed over the devices of this process.

Each key holds one array. A push sums what it is given and either replaces the array or hands both to an
updater; a pull copies the array out. Arithmetic is that of `mxrs.ndarray`, so it is queued in the engine and
ordered there by what it reads and writes; priorities are accepted and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .. import ndarray as nd
from .. import optimizer as opt
from .._files import write_whole
from ..base import MXNetError
from ..context import Context
from ..ndarray import NDArray
from .base import KVStoreBase

__all__ = ["KVStore"]

Key = int | str


class KVStore(KVStoreBase):
    """A store within this process. Made by `mx.kv.create`.

    Arguments:
        handle: the name of its kind, 'local' or 'device' for instance. Where the name contains 'local' and
            not 'device', values live and are summed on cpu(0); otherwise where they come from.

    Keys are integers or strings, of one kind in a store. Wherever a method takes a key and a value, it also
    takes lists of both; the value of a key is an array or a list of arrays, one per device.
    """

    def __init__(self, handle: str = "local") -> None:
        self._type = handle
        self._home = _home_of(handle)
        self._values: dict[Key, NDArray] = {}
        self._updater: Callable[..., Any] | None = None

    # ---- properties ---------------------------------------------------------------------------------------

    @property
    def type(self) -> str:
        """The name the store was made by."""
        return self._type

    @property
    def rank(self) -> int:
        """The number of this worker: 0, there is one."""
        return 0

    @property
    def num_workers(self) -> int:
        """How many workers share the store: 1."""
        return 1

    def is_capable(self, capability: str) -> bool:
        """True for 'optimizer': updates can be made inside the store. ValueError for other words."""
        if str(capability).lower() == self.OPTIMIZER:
            return True
        raise ValueError(f"Unknown capability: {capability}; '{self.OPTIMIZER}' is the one known")

    # ---- values -------------------------------------------------------------------------------------------

    def init(self, key: Any, value: Any) -> None:
        """Give each key its first value, which is copied. Once per key, before anything else.

        Raises MXNetError for a key that has a value already.
        """
        pairs = self._pairs("init", key, value)
        for name, arrays in pairs:
            if name in self._values or len(arrays) > 1:
                raise MXNetError(
                    f"KVStore.init: duplicate init of key {name!r}; every key is initialized once, with one array"
                )
        for name, (array,) in pairs:
            self._values[name] = array.copyto(self._home or array.context)

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Sum the arrays of each key, over devices, and store the sum or hand it to the updater.

        Without an updater the sum replaces the stored array; with one, `updater(key, sum, stored)` is called
        for each key in ascending order and changes `stored` in place. Raises MXNetError for a key that was not
        initialized, or arrays whose shape is not that of the stored one; nothing is stored then.
        """
        self._merge(self._known("push", key, value))

    def pull(self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copy the stored array of each key into every array of `out`, cast to its dtype."""
        if out is None:
            raise AssertionError("KVStore.pull: out is needed, an array or a list of arrays per key")
        self._copy_out(self._known("pull", key, out))

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """A push of `value` followed by a pull into `out`, or into `value` itself where `out` is None."""
        pushed = self._known("pushpull", key, value)
        pulled = pushed if out is None else self._known("pushpull", key, out)
        self._merge(pushed)
        self._copy_out(pulled)

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """`init` followed by a pull into `out`."""
        self.init(key, value)
        self.pull(key, out=out, priority=priority)

    def row_sparse_pull(self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None) -> NoReturn:
        """Copy chosen rows: needs sparse arrays, not built yet (NotImplementedError)."""
        raise NotImplementedError("KVStore.row_sparse_pull: sparse arrays are not built yet in mxrs")

    # ---- updates ------------------------------------------------------------------------------------------

    def set_optimizer(self, optimizer: opt.Optimizer) -> None:
        """Update the stored arrays with `optimizer` at each push, from fresh states.

        The object itself is used, so changing its learning rate takes effect here.
        """
        if not isinstance(optimizer, opt.Optimizer):
            raise TypeError(f"KVStore.set_optimizer: an Optimizer is needed, got {type(optimizer).__name__}")
        self._updater = opt.get_updater(optimizer)

    def set_updater(self, updater: Callable[[Any, NDArray, NDArray], Any] | None) -> None:
        """Call `updater(key, pushed, stored)` at each push; None stores what is pushed.

        A function gets string keys as bytes, as MXNet 1.9.1 passes them; an `Updater` of `mxrs.optimizer` gets
        them as strings. An exception of the updater leaves the push.
        """
        if updater is not None and not callable(updater):
            raise TypeError(f"KVStore.set_updater: a callable is needed, got {type(updater).__name__}")
        self._updater = updater

    _set_updater = set_updater

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the states of the optimizer (with `dump_optimizer` also itself) to a file, in one step.

        Raises AssertionError if there is no optimizer in this store.
        """
        write_whole(fname, self._states_updater("save").get_states(dump_optimizer))

    def load_optimizer_states(self, fname: str) -> None:
        """Read what `save_optimizer_states` wrote, here or in MXNet 1.9.1."""
        self._states_updater("load").read_states(fname)

    def set_gradient_compression(self, compression_params: Any) -> NoReturn:
        """Not built yet (NotImplementedError)."""
        raise NotImplementedError(
            f"KVStore.set_gradient_compression: gradient compression is not built yet in mxrs, asked for was "
            f"{compression_params!r}"
        )

    def barrier(self) -> None:
        """Wait for the other workers, of which there are none, and for all that is queued here."""
        nd.waitall()

    _barrier = barrier

    def _send_command_to_servers(self, head: int, body: str) -> NoReturn:
        raise NotImplementedError(f"KVStore: a '{self._type}' store has no servers to send commands to")

    # ---- inside -------------------------------------------------------------------------------------------

    def _states_updater(self, verb: str) -> opt.Updater:
        if not isinstance(self._updater, opt.Updater):
            raise AssertionError(
                f"Cannot {verb} states: the store has no optimizer, call set_optimizer first"
            )
        return self._updater

    def _pairs(self, call: str, key: Any, value: Any) -> list[tuple[Key, list[NDArray]]]:
        """The arrays of each key, keys in ascending order; a key given twice has the arrays of both."""
        if isinstance(key, list | tuple):
            values = list(value) if isinstance(value, list | tuple) else [value]
            if len(key) != len(values):
                raise AssertionError(
                    f"KVStore.{call}: {len(key)} keys and {len(values)} values were given; there must be one "
                    "value (an array or a list of arrays) per key"
                )
            keys = list(key)
        else:
            keys, values = [key], [value]
        grouped: dict[Key, list[NDArray]] = {}
        for name, part in zip(keys, values):
            grouped.setdefault(self._key(name), []).extend(_arrays(call, name, part))
        kinds = {type(name) for name in grouped}
        if len(kinds) > 1:
            raise AssertionError(f"KVStore.{call}: inconsistent types of keys; use integers or strings")
        if self._values and kinds and type(next(iter(self._values))) not in kinds:
            raise MXNetError(
                f"KVStore.{call}: mixed key types are not allowed; this store's keys are "
                f"{type(next(iter(self._values))).__name__}, given {keys[0]!r}"
            )
        return sorted(grouped.items())

    @staticmethod
    def _key(key: Any) -> Key:
        if isinstance(key, str):
            return key
        try:
            return key.__index__()
        except AttributeError:
            raise AssertionError(
                f"unexpected type for keys: {type(key)}; integers and strings are allowed"
            ) from None

    def _known(self, call: str, key: Any, value: Any) -> list[tuple[Key, list[NDArray]]]:
        """`_pairs` whose keys have values, and arrays their shapes."""
        pairs = self._pairs(call, key, value)
        for name, arrays in pairs:
            stored = self._values.get(name)
            if stored is None:
                raise MXNetError(f"KVStore.{call}: key {name!r} has not been initialized; call init first")
            for array in arrays:
                if array.shape != stored.shape:
                    raise MXNetError(
                        f"KVStore.{call}: key {name!r} holds shape {stored.shape}, given an array of shape "
                        f"{array.shape}"
                    )
        return pairs

    def _merge(self, pairs: Sequence[tuple[Key, list[NDArray]]]) -> None:
        updates: list[tuple[Key, NDArray, NDArray]] = []
        for name, arrays in pairs:
            stored = self._values[name]
            home = self._home or arrays[0].context
            if stored.context != home:
                stored = self._values[name] = stored.as_in_context(home)
            moved = [array.as_in_context(home) for array in arrays]
            total = moved[0] if len(moved) == 1 else nd.add_n(*moved)
            if self._updater is None:
                total.copyto(stored)
            else:
                updates.append((name, total, stored))
        if not updates or self._updater is None:
            return
        if isinstance(self._updater, opt.Updater):
            # All at once, so that optimizers that update several parameters in one operation can.
            self._updater([n for n, _, _ in updates], [t for _, t, _ in updates], [w for _, _, w in updates])
            return
        for name, total, stored in updates:
            self._updater(name.encode() if isinstance(name, str) else name, total, stored)

    def _copy_out(self, pairs: Iterable[tuple[Key, list[NDArray]]]) -> None:
        for name, arrays in pairs:
            for array in arrays:
                self._values[name].copyto(array)


def _home_of(name: str) -> Context | None:
    """Where the values of a store of this name live: cpu(0), or None for the device they come from."""
    return Context("cpu", 0) if "local" in name and "device" not in name else None


def _arrays(call: str, key: Any, value: Any) -> list[NDArray]:
    arrays = list(value) if isinstance(value, list | tuple) else [value]
    for array in arrays:
        if not isinstance(array, NDArray):
            raise TypeError(
                f"KVStore.{call}: the value of key {key!r} must be an NDArray or a list of them, got "
                f"{type(array).__name__}"
            )
    if not arrays:
        raise ValueError(f"KVStore.{call}: the value of key {key!r} is an empty list")
    return arrays
