"""Sharing memory with other libraries through DLPack capsules, without a copy.

The structures follow the DLPack specification (https://dmlc.github.io/dlpack), version 0.8: `DLManagedTensor`
in a capsule named "dltensor", which its consumer renames "used_dltensor".
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .. import _core
from ._dtypes import _DTYPE_NP_TO_MX, NP_DTYPES
from .interop import from_values, memory_view

_NAME, _USED = b"dltensor", b"used_dltensor"
_KIND_TO_CODE = {"i": 0, "u": 1, "f": 2, "b": 6}
_CODE_TO_KIND = {code: kind for kind, code in _KIND_TO_CODE.items()}
#: Device types whose memory the host can read: CPU, pinned and managed.
_HOST_DEVICES = (1, 3, 13)


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("number", ctypes.c_int)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
# The destructor gets a capsule that is being destroyed, which must not become a Python object again: its
# address serves.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))

#: What consumers hold, by the address of its structure: the structure and everything it points to.
_exported: dict[int, tuple[Any, ...]] = {}


@_Deleter
def _delete(address: int) -> None:
    _exported.pop(address, None)


@_Destructor
def _destroy(capsule: int) -> None:
    # Nobody took the tensor: it is still ours to free.
    if _is_valid(capsule, _NAME):
        _exported.pop(_pointer(capsule, _NAME), None)


def device(array: Any) -> tuple[int, int]:
    """DLPack's device type and id of an array."""
    kind, number = array._device
    return (2, number) if kind == 2 else (1, 0)


def export(array: Any) -> Any:
    """A capsule over the memory of an array, whose values are waited for."""
    if array._device[0] == 2:
        raise BufferError("DLPack of arrays on a GPU is not built yet")
    array.wait_to_read()
    shape, dtype = array.shape, NP_DTYPES[array._type_flag]
    extents = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = (ctypes.c_int64 * max(len(shape), 1))()
    stride = 1
    for i in reversed(range(len(shape))):
        steps[i] = stride
        stride *= max(shape[i], 1)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data = _core.address(array) if array.size else None
    tensor.device = _Device(1, 0)
    tensor.ndim = len(shape)
    tensor.dtype = _DataType(_KIND_TO_CODE[dtype.kind], dtype.itemsize * 8, 1)
    tensor.shape = ctypes.cast(extents, ctypes.POINTER(ctypes.c_int64))
    tensor.strides = ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64))
    tensor.byte_offset = 0
    managed.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, extents, steps, _core.detach(array))
    return _new(address, _NAME, _destroy)


def exported(
    array: Any,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """The body of `NDArray.__dlpack__`, as the array API standard describes it."""
    if dl_device is not None and tuple(dl_device) != device(array):
        raise BufferError(f"the array is on device {device(array)}; {tuple(dl_device)} was asked for")
    if stream is not None:
        raise BufferError(f"stream = {stream!r}: the CPU has no streams; None is allowed")
    return export(array.copy() if copy else array)


class _Borrowed:
    """Keeps a tensor of another library alive, and tells that library when it is not needed any more."""

    def __init__(self, address: int):
        self.address = address

    def __del__(self) -> None:
        deleter = _Managed.from_address(self.address).deleter
        if deleter:
            _Deleter(deleter)(self.address)


def from_dlpack(dlpack: Any) -> Any:
    """An NDArray over the memory of a DLPack capsule, or of an object with `__dlpack__`.

    Memory that is not row-major is copied.

    Raises
    ------
    TypeError
        If it is neither, or its element type is not one that arrays have.
    ValueError
        If the capsule was consumed before, or its memory is not the host's.
    """
    capsule = dlpack.__dlpack__() if hasattr(dlpack, "__dlpack__") else dlpack
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"from_dlpack: a DLPack capsule is expected, a {type(dlpack).__name__} was given")
    if not _is_valid(id(capsule), _NAME):
        raise ValueError("from_dlpack: the capsule is not a DLPack tensor, or was consumed before")
    address = _pointer(id(capsule), _NAME)
    tensor = _Managed.from_address(address).tensor
    if tensor.device.kind not in _HOST_DEVICES:
        raise ValueError(
            f"from_dlpack: device type {tensor.device.kind} is not one whose memory the host can read"
        )
    kind, bits = _CODE_TO_KIND.get(tensor.dtype.code), tensor.dtype.bits
    try:
        dtype = np.dtype(f"{kind}{bits // 8}") if kind and tensor.dtype.lanes == 1 and bits % 8 == 0 else None
    except TypeError:
        dtype = None
    flag = _DTYPE_NP_TO_MX.get(dtype.type) if dtype is not None else None
    if dtype is None or flag is None:
        raise TypeError(
            f"from_dlpack: element type (code {tensor.dtype.code}, {bits} bits, {tensor.dtype.lanes} lanes) is "
            f"not supported; arrays hold {', '.join(d.name for d in NP_DTYPES)}"
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = (
        tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim)) if tensor.strides else None
    )
    data = (tensor.data or 0) + tensor.byte_offset
    _rename(capsule, _USED)
    owner = _Borrowed(address)
    view = memory_view(data, shape, dtype, owner, strides)
    if view.size and view.flags["C_CONTIGUOUS"] and data % dtype.itemsize == 0:
        return _core.from_memory(data, flag, shape, owner, (1, 0))
    return from_values(np.array(view, order="C"), flag, (1, 0))


def to_dlpack_for_read(data: Any) -> Any:
    """A DLPack capsule that shares the memory of an NDArray."""
    return data.to_dlpack_for_read()


def to_dlpack_for_write(data: Any) -> Any:
    """A DLPack capsule that shares the memory of an NDArray, for a consumer that writes."""
    return data.to_dlpack_for_write()
