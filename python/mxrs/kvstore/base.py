"""What a store is, the registry of stores, and `create`.

A store sums gradients over devices (and, for stores that others provide, over machines). `KVStoreBase` is the
contract that `gluon.Trainer` relies on; a class registered with `KVStoreBase.register` can be made by name.
The store of this process is in `mxrs.kvstore.kvstore`.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, TypeAlias

__all__ = ["LOCAL_STORES", "KVStoreBase", "create", "find"]

#: Names of stores within this process. They differ in where the sum is made: on the CPU for those with
#: 'local' in their name, on the device of the first value for the others.
LOCAL_STORES = (
    "local",
    "device",
    "nccl",
    "local_update_cpu",
    "local_allreduce_cpu",
    "local_allreduce_device",
)


# `type` alone means the property of that name inside the class.
_Class: TypeAlias = type[Any]


class KVStoreBase:
    """What a store offers to a trainer. Subclasses define everything they can do; the rest raises."""

    #: The capability of running the optimizer inside the store.
    OPTIMIZER: ClassVar[str] = "optimizer"
    #: Registered classes by lower-case name.
    kv_registry: ClassVar[dict[str, _Class]] = {}

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Give `value` of the first machine to every array of `out`, on all machines."""
        raise self._absent("broadcast")

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Write the sum of `value` over devices and machines into `out`, or into `value` itself."""
        raise self._absent("pushpull")

    def set_optimizer(self, optimizer: Any) -> None:
        """Run `optimizer` inside the store from now on."""
        raise self._absent("set_optimizer")

    def is_capable(self, capability: str) -> bool:
        """Whether the store can do what `capability` names; 'optimizer' is the one known."""
        raise self._absent("is_capable")

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Write the optimizer's states to a file."""
        raise self._absent("save_optimizer_states")

    def load_optimizer_states(self, fname: str) -> None:
        """Read the optimizer's states from a file."""
        raise self._absent("load_optimizer_states")

    @property
    def type(self) -> str:
        """The name of the kind of store."""
        raise self._absent("type")

    @property
    def rank(self) -> int:
        """The number of this worker among `num_workers`."""
        raise self._absent("rank")

    @property
    def num_workers(self) -> int:
        """How many workers share the store."""
        raise self._absent("num_workers")

    def _absent(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not define {what}")

    @staticmethod
    def register(klass: _Class) -> _Class:
        """Make `klass` available to `create` under its lower-case name. Usable as a decorator.

        Raises AssertionError if `klass` is not a class; warns where it takes another class's name.
        """
        if not isinstance(klass, type):
            raise AssertionError(f"KVStoreBase.register: a class is needed, got {klass!r}")
        name = klass.__name__.lower()
        known = KVStoreBase.kv_registry.get(name)
        if known is not None and known is not klass:
            warnings.warn(
                f"KVStoreBase.register: {klass.__module__}.{klass.__name__} takes the name '{name}' from "
                f"{known.__module__}.{known.__name__}",
                stacklevel=2,
            )
        KVStoreBase.kv_registry[name] = klass
        return klass


def find(name: Any) -> _Class:
    """The class of the store of this name; raises what `create` does."""
    if not isinstance(name, str):
        raise TypeError(f"kvstore.create: name must be a string, got {type(name).__name__}")
    wanted = name.lower()
    if wanted in KVStoreBase.kv_registry:
        return KVStoreBase.kv_registry[wanted]
    if wanted.startswith("dist") or wanted == "p3":
        raise NotImplementedError(
            f"kvstore.create: '{name}' spans machines and is not built yet in mxrs; 'local' and 'device' serve "
            "the devices of one machine"
        )
    if wanted not in LOCAL_STORES:
        known = ", ".join([*LOCAL_STORES, *KVStoreBase.kv_registry])
        raise ValueError(f"kvstore.create: unknown kvstore '{name}'; known are {known}")
    from .kvstore import KVStore

    return KVStore


def create(name: str = "local") -> Any:
    """A store by name: 'local', 'device', another of `LOCAL_STORES`, or a registered class's name.

    'local' keeps and sums values on the CPU, 'device' (of which 'nccl' is another name here) where the values
    are. Raises TypeError if `name` is not a string, NotImplementedError for the 'dist' stores, which span
    machines and are not built, and ValueError for a name that no store has.
    """
    found = find(name)
    return found() if name.lower() in KVStoreBase.kv_registry else found(name.lower())
