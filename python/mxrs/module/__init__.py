"""`mx.mod`: networks that are trained and used through one interface.

`Module` binds one network on one or several devices; `BucketingModule` one network per key, with shared
parameters; `SequentialModule` puts modules in a row; `PythonModule` and `PythonLossModule` are computed in
Python. `BaseModule` holds what they share: `fit`, `score`, `predict`.
"""

from .base_module import BaseModule
from .bucketing_module import BucketingModule
from .module import Module
from .python_module import PythonLossModule, PythonModule
from .sequential_module import SequentialModule

__all__ = [
    "BaseModule",
    "BucketingModule",
    "Module",
    "PythonLossModule",
    "PythonModule",
    "SequentialModule",
]
