"""What this build can do, under the names that MXNet uses.

A name is enabled where a program that asks for it finds here what it wants: LAPACK where the linear algebra
operators are there, although no LAPACK library is. Names of libraries that programs call directly are enabled only if
the library is part of the build.
"""

from __future__ import annotations

import functools
import platform
import sys
from collections import OrderedDict
from typing import NamedTuple

from . import _core
from .context import num_gpus

__all__ = ["Feature", "Features", "feature_list"]

#: MXNet's names, in its order.
_NAMES = (
    "CUDA", "CUDNN", "NCCL", "CUDA_RTC", "TENSORRT", "CPU_SSE", "CPU_SSE2", "CPU_SSE3", "CPU_SSE4_1", "CPU_SSE4_2",
    "CPU_SSE4A", "CPU_AVX", "CPU_AVX2", "OPENMP", "SSE", "F16C", "JEMALLOC", "BLAS_OPEN", "BLAS_ATLAS", "BLAS_MKL",
    "BLAS_APPLE", "LAPACK", "MKLDNN", "OPENCV", "CAFFE", "PROFILER", "DIST_KVSTORE", "CXX14", "INT64_TENSOR_SIZE",
    "SIGNAL_HANDLER", "DEBUG", "TVM_OP",
)  # fmt: skip


class Feature(NamedTuple):
    """A name and whether it is enabled."""

    name: str
    enabled: bool

    def __repr__(self) -> str:
        return f"{'✔' if self.enabled else '✖'} {self.name}"


def _processor_flags() -> set[str]:
    """What the processor can do, in Linux's words; on other systems only what every x86-64 one can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return set()
    flags = {"sse", "sse2"}
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
                for line in file:
                    if line.startswith("flags"):
                        return flags | set(line.split(":", 1)[1].split())
        except OSError:
            pass
    return flags


@functools.cache
def _enabled() -> dict[str, bool]:
    flags = _processor_flags()
    # Kernels are compiled for several levels and the processor's is taken at run time.
    processor = {
        "CPU_SSE": "sse", "CPU_SSE2": "sse2", "CPU_SSE3": "pni", "CPU_SSE4_1": "sse4_1", "CPU_SSE4_2": "sse4_2",
        "CPU_SSE4A": "sse4a", "CPU_AVX": "avx", "CPU_AVX2": "avx2", "SSE": "sse", "F16C": "f16c",
    }  # fmt: skip
    enabled = dict.fromkeys(_NAMES, False)
    enabled.update({name: flag in flags for name, flag in processor.items()})
    operators = {operator["name"] for operator in _core.list_ops()}
    enabled["LAPACK"] = any(name in operators for name in ("_linalg_potrf", "linalg_potrf"))
    enabled["PROFILER"] = hasattr(_core, "profiler_start")
    # Sizes and indices are 64 bits wide everywhere.
    enabled["INT64_TENSOR_SIZE"] = sys.maxsize > 2**32
    enabled["GPU"] = num_gpus() > 0
    return enabled


def feature_list() -> list[Feature]:
    """All names: MXNet's, and GPU, whether a GPU can be used here by any means."""
    return [Feature(name, enabled) for name, enabled in _enabled().items()]


class Features(OrderedDict[str, Feature]):
    """`feature_list` by name. One object per process."""

    instance: Features | None = None

    def __new__(cls) -> Features:
        if cls.instance is None:
            cls.instance = super().__new__(cls)
            super(Features, cls.instance).__init__()
            cls.instance.update((feature.name, feature) for feature in feature_list())
        return cls.instance

    def __init__(self) -> None:
        # Filled in __new__, once.
        pass

    def __repr__(self) -> str:
        return str(list(self.values()))

    def is_enabled(self, feature_name: str) -> bool:
        """Whether a name, in any case of letters, is enabled. RuntimeError for one that does not exist."""
        feature = self.get(str(feature_name).upper())
        if feature is None:
            raise RuntimeError(f"Feature '{feature_name}' is unknown, known features are: {list(self)}")
        return feature.enabled
