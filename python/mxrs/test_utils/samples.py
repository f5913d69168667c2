"""Random shapes and arrays, the context of tests, and matrices with known properties. NumPy's global
generator draws, so `np.random.seed` repeats a test.
"""

from __future__ import annotations

import os
import platform
import random as _random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, TypeVar

import numpy as np

from .. import _core
from .. import ndarray as nd
from ..context import Context, current_context, num_gpus
from ..ndarray import NDArray

__all__ = [
    "assign_each",
    "assign_each2",
    "create_2d_tensor",
    "create_sparse_array",
    "create_sparse_array_zd",
    "create_vector",
    "default_context",
    "default_dtype",
    "discard_stderr",
    "environment",
    "get_identity_mat",
    "get_identity_mat_batch",
    "has_tvm_ops",
    "is_aarch64_run",
    "is_cd_run",
    "is_op_runnable",
    "list_gpus",
    "new_matrix_with_real_eigvals_2d",
    "new_matrix_with_real_eigvals_nd",
    "new_orthonormal_matrix_2d",
    "new_sym_matrix_with_real_eigvals_2d",
    "new_sym_matrix_with_real_eigvals_nd",
    "rand_coord_2d",
    "rand_ndarray",
    "rand_shape_2d",
    "rand_shape_3d",
    "rand_shape_nd",
    "rand_sparse_ndarray",
    "random_arrays",
    "random_sample",
    "random_uniform_arrays",
    "retry",
    "set_default_context",
    "shuffle_csr_column_indices",
]

F = TypeVar("F", bound=Callable[..., Any])


# ---- where tests run ---------------------------------------------------------------------------------------


def default_context() -> Context:
    """The context that tests run on: the thread's default."""
    return current_context()


def set_default_context(ctx: Context) -> None:
    """Make `ctx` the thread's default context, until it is set again."""
    _core.set_current_context(ctx.device_typeid, ctx.device_id)


def default_dtype() -> type[np.floating[Any]]:
    """The dtype of tests: float32."""
    return np.float32


def list_gpus() -> range:
    """The numbers of the GPUs there are."""
    return range(num_gpus())


def is_cd_run() -> bool:
    """Whether a delivery pipeline runs the tests, as the environment variable CD_JOB says."""
    return os.environ.get("CD_JOB", "0") == "1"


def is_aarch64_run() -> bool:
    """Whether the processor is an arm64 one."""
    return platform.machine() in ("aarch64", "arm64")


def has_tvm_ops() -> bool:
    """Whether operators compiled by TVM are there: never."""
    return False


def is_op_runnable() -> bool:
    """Whether the default context can run the operators that TVM would compile elsewhere: always."""
    return True


# ---- shapes and arrays -------------------------------------------------------------------------------------


def rand_shape_nd(num_dim: int, dim: int = 10, allow_zero_size: bool = False) -> tuple[int, ...]:
    """A shape of `num_dim` axes, each of 1 (or 0, with `allow_zero_size`) to `dim`."""
    low = 0 if allow_zero_size else 1
    return tuple(int(n) for n in np.random.randint(low, dim + 1, size=num_dim))


def rand_shape_2d(dim0: int = 10, dim1: int = 10, allow_zero_size: bool = False) -> tuple[int, int]:
    """A shape of two axes of at most `dim0` and `dim1`."""
    low = 0 if allow_zero_size else 1
    return tuple(int(np.random.randint(low, n + 1)) for n in (dim0, dim1))  # type: ignore[return-value]


def rand_shape_3d(
    dim0: int = 10, dim1: int = 10, dim2: int = 10, allow_zero_size: bool = False
) -> tuple[int, int, int]:
    """A shape of three axes of at most `dim0`, `dim1` and `dim2`."""
    low = 0 if allow_zero_size else 1
    return tuple(int(np.random.randint(low, n + 1)) for n in (dim0, dim1, dim2))  # type: ignore[return-value]


def rand_coord_2d(x_low: int, x_high: int, y_low: int, y_high: int) -> tuple[int, int]:
    """A point (x, y) with `x_low <= x < x_high` and `y_low <= y < y_high`."""
    return int(np.random.randint(x_low, x_high)), int(np.random.randint(y_low, y_high))


def random_arrays(*shapes: Sequence[int]) -> Any:
    """Standard normal NumPy float32 arrays: a list, or the array itself for one shape; a float for shape ()."""
    arrays = [
        np.random.randn(*shape).astype(default_dtype()) if len(shape) else np.float32(np.random.randn())
        for shape in shapes
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def random_uniform_arrays(*shapes: Sequence[int], **kwargs: Any) -> list[np.ndarray]:
    """Uniform NumPy arrays in [`low`, `high`), 0 and 1 by default, of `dtype`, a list even for one shape."""
    low, high = kwargs.pop("low", 0.0), kwargs.pop("high", 1.0)
    dtype = kwargs.pop("dtype", default_dtype())
    if kwargs:
        raise TypeError(
            f"random_uniform_arrays: unknown argument {next(iter(kwargs))!r}; low, high, dtype are known"
        )
    return [np.random.uniform(low, high, size=tuple(shape)).astype(dtype) for shape in shapes]


def random_sample(population: Sequence[Any], k: int) -> list[Any]:
    """`k` different members of `population`, in its order."""
    chosen = sorted(_random.sample(range(len(population)), k))
    return [population[i] for i in chosen]


def rand_ndarray(
    shape: Sequence[int],
    stype: str = "default",
    density: float | None = None,
    dtype: Any = None,
    modifier_func: Callable[..., Any] | None = None,
    shuffle_csr_indices: bool = False,
    distribution: str | None = None,
    ctx: Context | None = None,
) -> NDArray:
    """A standard normal NDArray of `shape`, rounded to `dtype`.

    Other storage types than 'default' are not built yet (NotImplementedError); `density`, `distribution` and
    the rest of the arguments concern only those.
    """
    if stype != "default":
        return rand_sparse_ndarray(tuple(shape), stype)
    return nd.array(np.random.normal(size=tuple(shape)), dtype=dtype or default_dtype(), ctx=ctx)


def _no_sparse(what: str, stype: Any = "csr") -> NoReturn:
    if stype not in ("csr", "row_sparse"):
        raise AssertionError(f"{what}: unknown storage type {stype!r}; default, csr and row_sparse are known")
    raise NotImplementedError(f"{what}: sparse arrays are not built yet in mxrs")


def rand_sparse_ndarray(shape: Any, stype: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Not built yet (NotImplementedError)."""
    _no_sparse("rand_sparse_ndarray", stype)


def create_sparse_array(shape: Any, stype: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Not built yet (NotImplementedError)."""
    _no_sparse("create_sparse_array", stype)


def create_sparse_array_zd(shape: Any, stype: str, density: float, *args: Any, **kwargs: Any) -> NoReturn:
    """Not built yet (NotImplementedError)."""
    _no_sparse("create_sparse_array_zd", stype)


def shuffle_csr_column_indices(csr: Any) -> NoReturn:
    """Not built yet (NotImplementedError)."""
    _no_sparse("shuffle_csr_column_indices")


def assign_each(the_input: np.ndarray, function: Callable[[Any], Any] | None) -> np.ndarray:
    """A copy of `the_input` with `function` applied to each element."""
    return np.array(the_input) if function is None else np.vectorize(function)(the_input)


def assign_each2(
    input1: np.ndarray, input2: np.ndarray, function: Callable[[Any, Any], Any] | None
) -> np.ndarray:
    """`function` of each pair of elements of two arrays of one shape."""
    return np.array(input1) if function is None else np.vectorize(function)(input1, input2)


def create_2d_tensor(rows: int, columns: int, dtype: Any = np.int64) -> NDArray:
    """A matrix whose row i is filled with i."""
    return nd.broadcast_to(nd.arange(rows, dtype=dtype).reshape((rows, 1)), shape=(rows, columns))


def create_vector(size: int, dtype: Any = np.int64) -> NDArray:
    """The vector 0, 1, ..., size - 1."""
    return nd.arange(size, dtype=dtype)


def get_identity_mat(size: int) -> NDArray:
    """The identity matrix of this size."""
    return nd.eye(size)


def get_identity_mat_batch(size: int) -> NDArray:
    """Two identity matrices, of shape (2, size, size)."""
    return nd.stack(nd.eye(size), nd.eye(size))


# ---- matrices with known properties ------------------------------------------------------------------------


def new_orthonormal_matrix_2d(n: int) -> np.ndarray:
    """A random (n, n) matrix with orthonormal columns."""
    q, r = np.linalg.qr(np.random.randn(n, n))
    return q * np.sign(np.diag(r))


def new_sym_matrix_with_real_eigvals_2d(n: int) -> np.ndarray:
    """A random symmetric (n, n) matrix: `Q diag(w) Q^T` with w in [-10, 10)."""
    q = new_orthonormal_matrix_2d(n)
    return (q * np.random.uniform(-10.0, 10.0, n)) @ q.T


def new_matrix_with_real_eigvals_2d(n: int) -> np.ndarray:
    """A random (n, n) matrix whose eigenvalues are real: `Q T Q^T` with T upper triangular."""
    q = new_orthonormal_matrix_2d(n)
    return q @ np.triu(np.random.uniform(-4.0, 4.0, (n, n))) @ q.T


def _stack(make: Callable[[int], np.ndarray], shape: Sequence[int]) -> np.ndarray:
    count = int(np.prod(shape[:-2]))
    return np.stack([make(shape[-1]) for _ in range(count)]).reshape(tuple(shape))


def new_sym_matrix_with_real_eigvals_nd(shape: Sequence[int]) -> np.ndarray:
    """`new_sym_matrix_with_real_eigvals_2d` for each of a stack of shape (..., n, n)."""
    return _stack(new_sym_matrix_with_real_eigvals_2d, shape)


def new_matrix_with_real_eigvals_nd(shape: Sequence[int]) -> np.ndarray:
    """`new_matrix_with_real_eigvals_2d` for each of a stack of shape (..., n, n)."""
    return _stack(new_matrix_with_real_eigvals_2d, shape)


# ---- running tests -----------------------------------------------------------------------------------------


def retry(n: int) -> Callable[[F], F]:
    """Decorator for a test of chance: up to `n` runs, AssertionError counts as a failed one."""
    if n < 1:
        raise AssertionError(f"retry: n must be at least 1, got {n}")

    def decorate(test: F) -> F:
        @wraps(test)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            for left in range(n - 1, -1, -1):
                try:
                    return test(*args, **kwargs)
                except AssertionError:
                    if left == 0:
                        raise
            return None

        return repeated  # type: ignore[return-value]

    return decorate


@contextmanager
def environment(*args: Any) -> Iterator[None]:
    """Scope in which environment variables have other values: a name and a value, or a dict of them.

    The value None removes a variable. AssertionError for other arguments.
    """
    if len(args) == 1 and isinstance(args[0], dict):
        wanted = args[0]
    elif len(args) == 2:
        wanted = {args[0]: args[1]}
    else:
        raise AssertionError(f"environment: a dict, or a name and a value, is needed, got {args!r}")
    before = {name: os.environ.get(name) for name in wanted}
    try:
        _set_environment(wanted)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)


@contextmanager
def discard_stderr() -> Iterator[None]:
    """Scope in which what goes to standard error, from Python or below it, is dropped."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
