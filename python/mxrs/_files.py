"""Files that appear under their names only when they are complete.

Everything that mxrs saves goes through here, so that a crash, a full disk or Ctrl-C costs the new file and never the
one of the run before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

__all__ = ["replacing", "write_whole"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its place when everything was written to disk, and vanishes if not.

    A link stays a link: what it points to is replaced. A pipe or a device is written to directly. Raises OSError as
    `open` does.
    """
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            yield stream
        return
    import tempfile  # slow to import, and only needed here

    folder = os.path.dirname(path) or "."
    try:
        number, part = tempfile.mkstemp(prefix=f".{os.path.basename(path)[:64]}.", suffix=".tmp", dir=folder)
    except OSError as error:
        # The user knows the name of the file, not that of its draft.
        raise type(error)(error.errno, error.strerror, path) from None
    try:
        with os.fdopen(number, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(OSError):
            os.chmod(part, _mode(path))
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    with contextlib.suppress(OSError, AttributeError):
        # The rename itself reaches the disk with the folder; Windows has no such call.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` in one step; see :func:`replacing`."""
    with replacing(path) as stream:
        stream.write(data)


def _mode(path: str) -> int:
    """The permissions of the file that is replaced, or those that a new file gets."""
    try:
        return os.stat(path).st_mode & 0o7777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
