"""Reads text files of numbers, block by block: which files a path means, lines with their places, and numbers
of many lines at once.

Formats are left to `_rows`. Text becomes numbers by Python's own conversion mapped over all tokens of a
block; a block that fails is looked at again line by line, only to name the line in the error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..base import MXNetError

__all__ = ["Block", "blocks_of", "files_of", "numbers"]

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, without their ends; `offset` is where the first one starts."""

    path: str
    offset: int
    lines: list[bytes]

    def error(self, owner: str, line: int, what: str) -> MXNetError:
        """An error that names the file and the line, which is number `line` of this block."""
        with open(self.path, "rb") as file:
            before = file.read(self.offset).count(b"\n")
        shown = self.lines[line].strip()
        text = shown[:60].decode("utf-8", "replace") + ("..." if len(shown) > 60 else "")
        return MXNetError(f"{owner}: {self.path}, line {before + line + 1}: {what}; the line is {text!r}")


def files_of(owner: str, argument: str, uri: str) -> list[str]:
    """The files that `uri` means: a file, all files of a folder in the order of their names, several of these
    joined by ';', or a folder and a regular expression for names in it.

    Raises MXNetError where there is none.
    """
    found: list[str] = []
    for part in str(uri).split(";"):
        path = os.path.expanduser(part.strip().removeprefix("file://"))
        if os.path.isfile(path):
            found.append(path)
        elif os.path.isdir(path):
            names = sorted(os.listdir(path))
            found += [f for f in (os.path.join(path, n) for n in names) if os.path.isfile(f)]
        else:
            found += _matching(path)
    if not found:
        raise MXNetError(f"{owner}: {argument}={uri!r}: no such file")
    return found


def _matching(path: str) -> list[str]:
    folder, name = os.path.split(path)
    try:
        pattern = re.compile(name)
        names = sorted(os.listdir(folder or "."))
    except (re.error, OSError):
        return []
    return [os.path.join(folder, n) for n in names if pattern.fullmatch(n)]


def blocks_of(files: list[str], part: int = 0, parts: int = 1) -> Iterator[Block]:
    """The lines of the files, one block after another.

    With `parts` > 1 only those of one part: the bytes of all files are cut into equal parts, and a line
    belongs to the part in which the byte before it lies (the first line to the first part).
    """
    sizes = [os.path.getsize(path) for path in files]
    step = -(-sum(sizes) // parts)
    start, stop = part * step, (part + 1) * step
    base = 0
    for path, size in zip(files, sizes, strict=True):
        if base < stop and start < base + size:
            yield from _blocks_of_file(path, start - base, stop - base)
        base += size


def _blocks_of_file(path: str, start: int, stop: int) -> Iterator[Block]:
    with open(path, "rb") as file:
        if start > 0:
            file.seek(start)
            file.readline()
        while True:
            offset = file.tell()
            # A line that starts at `stop` itself is still ours: the next part skips the line it begins in.
            if offset > stop:
                return
            content = file.read(min(_BLOCK_BYTES, stop + 1 - offset))
            if not content:
                return
            if not content.endswith(b"\n"):
                content += file.readline()
            # Splitting at line feeds only, so that lines are counted as an editor does; a carriage return
            # before one is white space.
            lines = content.split(b"\n")
            if not lines[-1]:
                lines.pop()
            yield Block(path, offset, lines)


def numbers(
    owner: str, block: Block, rows: list[bytes], places: list[int], joint: bytes, dtype: np.dtype
) -> np.ndarray:
    """All numbers of the rows, one after another, where `joint` stands between two.

    `places` holds each row's line in the block. Raises MXNetError, with the line, for a token that is no number.
    """
    text = joint.join(rows)
    tokens = text.split(joint)
    convert = _as_int if dtype.kind == "i" else float
    try:
        if b"_" in text:
            raise ValueError  # Python's numbers may hold underscores, those of files may not
        return np.fromiter(map(convert, tokens), dtype=dtype, count=len(tokens))
    except (ValueError, OverflowError):
        pass
    for row, place in zip(rows, places, strict=True):
        for token in row.split(joint):
            if not _is_number(token, convert, dtype):
                shown = token.strip().decode("utf-8", "replace")
                raise block.error(owner, place, f"{shown!r} is not a number of type {dtype}")
    raise MXNetError(f"{owner}: {block.path}: cannot be read as numbers of type {dtype}")


def _as_int(token: bytes) -> int:
    try:
        return int(token)
    except ValueError:
        return int(float(token))


def _is_number(token: bytes, convert: Callable[[bytes], float], dtype: np.dtype) -> bool:
    try:
        np.array(convert(token), dtype=dtype)
    except (ValueError, OverflowError):
        return False
    return b"_" not in token
