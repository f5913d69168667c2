"""Helpers of gluon that are useful on their own: splitting batches, clipping gradients, fetching files.

`split_data`, `split_and_load`, `clip_global_norm`, `check_sha1`, `download` are the public part.
`HookHandle` is what the hook registration of `Block` returns, `shape_is_known` and `indent` serve the other
modules of this package. Data loading belongs to `gluon.data`, reductions over contexts to `Trainer`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sys
import uuid
import warnings
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from .. import ndarray
from ..context import Context
from ..ndarray import NDArray

__all__ = [
    "HookHandle",
    "check_sha1",
    "clip_global_norm",
    "download",
    "replace_file",
    "shape_is_known",
    "split_and_load",
    "split_data",
]


_CHUNK = 1 << 16


def split_data(data: NDArray, num_slice: int, batch_axis: int = 0, even_split: bool = True) -> list[NDArray]:
    """Cut `data` into `num_slice` pieces along `batch_axis`.

    With `even_split=False` the first `size % num_slice` pieces get one element more than the rest. Returns
    a list of `num_slice` arrays, which for fewer elements than slices ends in empty ones.

    Raises ValueError if `num_slice` is below 1, if `batch_axis` is not an axis of `data`, or if
    `even_split` is asked for and the size is not a multiple of `num_slice`.
    """
    if num_slice < 1:
        raise ValueError(f"split_data: num_slice must be at least 1, got {num_slice}")
    if not -data.ndim <= batch_axis < data.ndim:
        raise ValueError(
            f"split_data: batch_axis {batch_axis} is not an axis of data with shape {data.shape}"
        )
    size = data.shape[batch_axis]
    step, extra = divmod(size, num_slice)
    if even_split and extra:
        raise ValueError(
            f"data with shape {data.shape} cannot be evenly split into {num_slice} slices along axis "
            f"{batch_axis}. Use a batch size that's multiple of {num_slice} or set even_split=False to "
            "allow uneven partitioning of data."
        )
    pieces = []
    begin = 0
    for i in range(num_slice):
        end = begin + step + (1 if i < extra else 0)
        if batch_axis == 0:
            pieces.append(data[begin:end])
        else:
            pieces.append(ndarray.slice_axis(data, axis=batch_axis, begin=begin, end=end))
        begin = end
    return pieces


def split_and_load(
    data: Any, ctx_list: Sequence[Context], batch_axis: int = 0, even_split: bool = True
) -> list[NDArray]:
    """Cut `data` along `batch_axis` into one piece per context of `ctx_list` and copy each piece to its
    context.

    `data` is an NDArray or anything `nd.array` accepts. One context gets the whole array. Raises what
    `split_data` raises.
    """
    if isinstance(ctx_list, Context):
        ctx_list = [ctx_list]
    if not isinstance(ctx_list, list | tuple):
        raise TypeError(f"split_and_load: ctx_list is a list of contexts, given {ctx_list!r}")
    if len(ctx_list) == 0:
        raise ValueError("split_and_load: ctx_list is empty, at least one context is needed")
    if not isinstance(data, NDArray):
        data = ndarray.array(data, ctx=ctx_list[0])
    if len(ctx_list) == 1:
        return [data.as_in_context(ctx_list[0])]
    pieces = split_data(data, len(ctx_list), batch_axis, even_split)
    return [piece.as_in_context(ctx) for piece, ctx in zip(pieces, ctx_list, strict=True)]


def clip_global_norm(arrays: Sequence[NDArray], max_norm: float, check_isfinite: bool = True) -> Any:
    """Scale `arrays` in place so that the 2-norm of all their elements together is at most `max_norm`.

    The factor is `max_norm / (norm + 1e-8)` and is applied only where it is below 1. Returns the norm
    before clipping: a float if `check_isfinite` (which waits for the arrays and warns if the norm is not
    finite), otherwise an NDArray of shape (1,), without waiting.

    Raises AssertionError if `arrays` is empty.
    """
    if not isinstance(arrays, list | tuple):
        raise TypeError(f"clip_global_norm: arrays is a list of NDArrays, given {type(arrays).__name__}")
    if not hasattr(max_norm, "__float__"):
        raise TypeError(f"clip_global_norm: max_norm is a number, given {max_norm!r}")
    if len(arrays) == 0:
        raise AssertionError("clip_global_norm: arrays is empty, there is nothing to take the norm of")
    home = arrays[0].context
    squares = [
        ndarray.sum(ndarray.square(a.astype("float32", copy=False))).as_in_context(home) for a in arrays
    ]
    total = ndarray.sqrt(ndarray.add_n(*squares))
    result: Any = total
    if check_isfinite:
        result = total.asscalar()
        if not math.isfinite(result):
            warnings.warn(
                UserWarning("nan or inf is detected. Clipping results will be undefined."), stacklevel=2
            )
    scale = ndarray.minimum(max_norm / (total + 1e-8), 1.0)
    for array in arrays:
        array *= scale.as_in_context(array.context).astype(array.dtype, copy=False)
    return result


def shape_is_known(shape: Sequence[int] | None) -> bool:
    """Whether every dimension of `shape` is set: 0 stands for an unknown one, None and () for an unknown
    shape.
    """
    if not shape:
        return False
    for dim in shape:
        if dim == 0:
            return False
        if dim < 0:
            raise AssertionError(f"shape dimension size cannot be less than 0, while received {dim}")
    return True


def indent(text: str, spaces: int) -> str:
    """`text` with every line but the first moved right by `spaces`: the form in which a child stands in a
    repr.
    """
    first, *rest = text.split("\n")
    return "\n".join([first] + [" " * spaces + line for line in rest])


def brief_list(names: Sequence[str], limit: int = 7) -> str:
    """The quoted `names`, the middle left out where there are more than `limit`, for error messages."""
    names = list(names)
    if len(names) > limit:
        half = limit // 2
        return f"{brief_list(names[:half], limit)}, ..., {brief_list(names[-half:], limit)}"
    return ", ".join(f"'{name}'" for name in names)


class HookHandle:
    """What `register_forward_hook` returns: `detach()` takes the hook off again, so does leaving a `with`
    block.
    """

    def __init__(self) -> None:
        self._hooks: Any = None
        self._id: int | None = None

    def attach(self, hooks_dict: MutableMapping[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        """Put `hook` into `hooks_dict`; a handle holds one hook."""
        if self._hooks is not None:
            raise AssertionError("The same handle cannot be attached twice.")
        self._id = id(self)
        hooks_dict[self._id] = hook
        self._hooks = weakref.ref(hooks_dict)

    def detach(self) -> None:
        """Remove the hook. Doing so twice, or after its block is gone, is no error."""
        hooks = self._hooks() if self._hooks is not None else None
        if hooks is not None and self._id in hooks:
            del hooks[self._id]

    def __getstate__(self) -> tuple[Any, int | None]:
        return (self._hooks() if self._hooks is not None else None, self._id)

    def __setstate__(self, state: tuple[Any, int | None]) -> None:
        hooks, self._id = state
        self._hooks = None if hooks is None else weakref.ref(hooks)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, ptype: Any, value: Any, trace: Any) -> None:
        self.detach()


def check_sha1(filename: str, sha1_hash: str) -> bool:
    """Whether the file has the SHA-1 digest `sha1_hash` (hexadecimal; a leading part of it is enough, as
    users abbreviate).
    """
    digest = hashlib.sha1(usedforsecurity=False)
    with open(filename, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    wanted = sha1_hash.lower()
    return found[: len(wanted)] == wanted if len(wanted) >= 8 else found == wanted


def replace_file(src: str, dst: str) -> None:
    """Move `src` over `dst` in one step; on failure `src` is removed and OSError raised."""
    try:
        os.replace(src, dst)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(src)
        raise


def download(
    url: str,
    path: str | None = None,
    overwrite: bool = False,
    sha1_hash: str | None = None,
    retries: int = 5,
    verify_ssl: bool = True,
) -> str:
    """Fetch `url` into a file and return the file's path.

    `path` is a file name, or a folder in which the last part of the URL becomes the name. An existing file
    is kept unless `overwrite` or its SHA-1 differs from `sha1_hash`. The transfer goes to a temporary file
    beside the target, which replaces the target only when it is whole and right, so that an interrupted run
    leaves no half file. Up to `retries` more attempts are made; `verify_ssl=False` accepts any certificate.

    Raises AssertionError for an URL without a file name or negative `retries`; ConnectionError, with the
    target's path, when nothing could be fetched; OSError when the content has the wrong digest.
    """
    if retries < 0:
        raise AssertionError(f"Number of retries should be at least 0, currently it's {retries}")
    target = _target_of(url, path)
    if not overwrite and os.path.exists(target) and (not sha1_hash or check_sha1(target, sha1_hash)):
        return target
    if not verify_ssl:
        warnings.warn(
            "Unverified HTTPS request is being made (verify_ssl=False). Adding certificate verification is "
            "strongly advised.",
            stacklevel=2,
        )
    folder = os.path.dirname(os.path.abspath(os.path.expanduser(target)))
    os.makedirs(folder, exist_ok=True)
    print(f"Downloading {target} from {url}...")
    for left in range(retries, -1, -1):
        part = f"{target}.{uuid.uuid4().hex}"
        try:
            _transfer(url, part, verify_ssl)
            if sha1_hash and not check_sha1(part, sha1_hash):
                raise OSError(
                    f"File {target} is downloaded but its SHA-1 differs from {sha1_hash}: the repository "
                    "may be outdated or the transfer damaged. Fetch the file by other means, or retry."
                )
            replace_file(part, target)
            return target
        except Exception as error:
            if os.path.exists(part):
                os.remove(part)
            if left == 0:
                if isinstance(error, OSError) and not _is_network_error(error):
                    raise
                raise ConnectionError(
                    f"download: cannot fetch {url} ({error}). Where no network is available, put the file at "
                    f"{os.path.abspath(target)} by other means and call again."
                ) from error
            print(f"download failed due to {error!r}, retrying, {left} attempt{'s' if left > 1 else ''} left")
    raise AssertionError("unreachable: the loop returns or raises")


def _target_of(url: str, path: str | None) -> str:
    if not isinstance(url, str):
        raise TypeError(f"download: url is text, given {url!r}")
    name = url.split("?")[0].split("#")[0].split("/")[-1]
    if path is not None:
        path = os.path.expanduser(path)
        if not os.path.isdir(path):
            return path
    if not name:
        raise AssertionError(
            "Can't construct file-name from this URL. Please set the `path` option manually."
        )
    return name if path is None else os.path.join(path, name)


def _is_network_error(error: OSError) -> bool:
    import urllib.error

    return isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError)


def _transfer(url: str, part: str, verify_ssl: bool) -> None:
    """Copy the URL's bytes to the file `part`, showing how much has come where the output is a terminal."""
    import ssl
    import urllib.request

    tls = ssl.create_default_context()
    if not verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=60, context=tls) as reply, open(part, "wb") as file:
        total = int(reply.headers.get("Content-Length") or 0)
        got = 0
        shown = -1
        while chunk := reply.read(_CHUNK):
            file.write(chunk)
            got += len(chunk)
            percent = got * 100 // total if total else got >> 20
            if percent != shown and sys.stderr.isatty():
                shown = percent
                text = f"{percent} % of {total >> 10} kB" if total else f"{got >> 20} MB"
                print(f"\r{text}", end="", file=sys.stderr, flush=True)
        if shown >= 0:
            print(file=sys.stderr)
        if total and got != total:
            raise ConnectionError(f"{url}: {got} of {total} bytes came before the connection ended")


def _get_repo_url() -> str:
    """Base URL of the public file store, ending in a slash, or what MXNET_GLUON_REPO says."""
    default = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/"
    url = os.environ.get("MXNET_GLUON_REPO", default)
    return url if url.endswith("/") else url + "/"


def _get_repo_file_url(namespace: str, filename: str) -> str:
    """URL of `filename` in the folder `namespace` of the file store."""
    return f"{_get_repo_url()}{namespace}/{filename}"
