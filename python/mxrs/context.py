"""Contexts: which device an array lives on.

``cpu(0)`` and ``cpu(1)`` are distinct contexts over the same memory, as MXNet programs expect that try data
parallelism without GPUs. ``gpu(i)`` is the i-th adapter of real hardware.
"""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar

from . import _core

__all__ = [
    "Context",
    "cpu",
    "cpu_memory_info",
    "cpu_pinned",
    "current_context",
    "gpu",
    "gpu_counts",
    "gpu_memory_info",
    "num_gpus",
]


class Context:
    """A device: ``Context('cpu', 0)``, ``Context('gpu', 1)`` or ``Context(another)``.

    As a context manager it is the thread's default for arrays made inside:

    >>> import mxrs as mx
    >>> with mx.cpu(1):
    ...     x = mx.nd.ones((2,))
    >>> x.context
    cpu(1)
    """

    devtype2str: ClassVar[dict[int, str]] = {1: "cpu", 2: "gpu", 3: "cpu_pinned", 5: "cpu_shared"}
    devstr2type: ClassVar[dict[str, int]] = {"cpu": 1, "gpu": 2, "cpu_pinned": 3, "cpu_shared": 5}

    __slots__ = ("_previous", "device_id", "device_typeid")

    device_typeid: int
    device_id: int

    def __init__(self, device_type: str | Context, device_id: int = 0) -> None:
        if isinstance(device_type, Context):
            self.device_typeid, self.device_id = device_type.device_typeid, device_type.device_id
        else:
            known = Context.devstr2type.get(device_type)
            if known is None:
                allowed = ", ".join(Context.devstr2type)
                raise ValueError(f"Context: device_type '{device_type}' is not valid; {allowed} are allowed")
            try:
                self.device_typeid, self.device_id = known, int(device_id)
            except (TypeError, ValueError):
                raise TypeError(f"Context: device_id must be a whole number, given {device_id!r}") from None
        self._previous: list[tuple[int, int]] = []

    @property
    def device_type(self) -> str:
        """The kind of device: 'cpu', 'gpu', 'cpu_pinned' or 'cpu_shared'."""
        return Context.devtype2str[self.device_typeid]

    def __hash__(self) -> int:
        return hash((self.device_typeid, self.device_id))

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Context)
            and self.device_typeid == other.device_typeid
            and self.device_id == other.device_id
        )

    def __str__(self) -> str:
        return f"{self.device_type}({self.device_id})"

    __repr__ = __str__

    def __reduce__(self) -> tuple[type[Context], tuple[str, int]]:
        return (Context, (self.device_type, self.device_id))

    def __enter__(self) -> Context:
        self._previous.append(_core.set_current_context(self.device_typeid, self.device_id))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_current_context(*self._previous.pop())

    def empty_cache(self) -> None:
        """Gives memory that this device's pool keeps for reuse back to the system."""
        _core.memory_trim((self.device_typeid, self.device_id))

    @classmethod
    def default_ctx(cls) -> Context:
        """The thread's default context."""
        return current_context()


_KNOWN: dict[tuple[int, int], Context] = {}


def _of(device: tuple[int, int]) -> Context:
    """The context of a (device type, device id) pair, one object per pair."""
    known = _KNOWN.get(device)
    if known is None:
        known = _KNOWN[device] = Context(Context.devtype2str[device[0]], device[1])
    return known


def cpu(device_id: int = 0) -> Context:
    """The CPU. All ids share the host's memory and threads."""
    return Context("cpu", device_id)


def cpu_pinned(device_id: int = 0) -> Context:
    """Host memory from which copies to a GPU are fast."""
    return Context("cpu_pinned", device_id)


def gpu(device_id: int = 0) -> Context:
    """The GPU of this number; see :func:`num_gpus`."""
    return Context("gpu", device_id)


def num_gpus() -> int:
    """How many GPUs there are.

    Software in the disguise of a GPU (Mesa's lavapipe) counts only with ``MXRS_ALLOW_SOFTWARE_GPU=1``.
    """
    return _core.num_gpus()


def gpu_memory_info(device_id: int = 0) -> tuple[int, int]:
    """(free, total) bytes of a GPU's memory.

    Raises
    ------
    MXNetError
        There is no such GPU, or its driver does not tell how much memory it has.
    """
    memory = _core.gpu_memory(device_id)
    if memory["total"] is None:
        raise _core.MXNetError(f"gpu_memory_info: the driver of gpu({device_id}) does not tell its memory")
    return max(0, memory["total"] - memory["used"]), memory["total"]


def gpu_counts(ctx: Context | None = None, reset: bool = False) -> dict[str, int]:
    """What was sent to a GPU since it was first used, or since the last call with `reset`; also `mx.profiler.gpu_counts`.

    The counts, by name: `dispatches` of kernels, compute `passes`, `submits` (batches handed to the device),
    `bytes_written` to, `bytes_read` from and `bytes_copied` on the device, `bytes_touched` (the sizes of the arrays that
    operators on the device read and wrote), `pipelines` and `layouts` compiled, `bind_groups` made, `buffers` and
    `staging_buffers` created rather than reused, and `waits` for the device. A step that was done before should create
    nothing. What the device's worker has yet to encode is not in `dispatches`, `passes` and `submits`: `nd.waitall()`
    first makes them exact. `ctx` is the current context where that is a GPU, else `gpu(0)`.

    Raises
    ------
    MXNetError
        There is no such GPU.
    """
    ctx = current_context() if ctx is None else ctx
    return dict(_core.gpu_counts(ctx.device_id if ctx.device_type == "gpu" else 0, reset))


def cpu_memory_info() -> dict[str, int]:
    """Bytes of the host pool: 'used' by arrays, 'cached' for reuse, and the 'peak' of 'used'."""
    return _core.memory_stats()


def current_context() -> Context:
    """The thread's default context: cpu(0), or that of the innermost ``with``."""
    return _of(_core.current_context())
