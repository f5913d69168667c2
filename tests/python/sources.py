"""Reads source text for the tests that guard the shape of the house: Rust without comments and strings,
imports, sizes.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_CHAR = re.compile(r"'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]{1,8}\}|.)|[^\\'])'", re.S)
_RAW = re.compile(r"\b(?:b|c)?r(#*)\"")


def strip_rust(text: str) -> str:
    """Rust source with comments and the insides of strings and characters blanked; every line keeps its
    number.
    """
    out: list[str] = []
    i = 0

    def blank(to: int) -> None:
        nonlocal i
        out.append(re.sub(r"[^\n]", " ", text[i:to]))
        i = to

    while i < len(text):
        c = text[i]
        if text.startswith("//", i):
            end = text.find("\n", i)
            blank(len(text) if end < 0 else end)
        elif text.startswith("/*", i):
            blank(_block_comment_end(text, i))
        elif (
            c in "rbc"
            and (i == 0 or not (text[i - 1].isalnum() or text[i - 1] == "_"))
            and (raw := _RAW.match(text, i))
        ):
            end = text.find('"' + raw.group(1), raw.end())
            blank(len(text) if end < 0 else end + 1 + len(raw.group(1)))
        elif c == '"':
            blank(_string_end(text, i))
        elif c == "'" and (char := _CHAR.match(text, i)):
            blank(char.end())
        else:
            out.append(c)
            i += 1
    return "".join(out)


def _block_comment_end(text: str, start: int) -> int:
    depth, i = 0, start
    while i < len(text):
        if text.startswith("/*", i):
            depth, i = depth + 1, i + 2
        elif text.startswith("*/", i):
            depth, i = depth - 1, i + 2
            if depth == 0:
                return i
        else:
            i += 1
    return i


def _string_end(text: str, start: int) -> int:
    i = start + 1
    while i < len(text) and text[i] != '"':
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def matching_brace(stripped: str, opening: int) -> int:
    """The position of the brace that closes the one at `opening` (the end of the text where none does)."""
    depth = 0
    for brace in re.finditer(r"[{}]", stripped[opening:]):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return opening + brace.start()
    return len(stripped)


@dataclass(frozen=True)
class Function:
    """A function's name, the line it starts on, and how many lines it has."""

    name: str
    line: int
    length: int


def rust_functions(stripped: str) -> list[Function]:
    """Every function with a body."""
    found = []
    for match in re.finditer(r"\bfn\s+([A-Za-z_]\w*)", stripped):
        opening = _body_opening(stripped, match.end())
        if opening is None:
            continue
        line = stripped.count("\n", 0, match.start()) + 1
        last = stripped.count("\n", 0, matching_brace(stripped, opening)) + 1
        found.append(Function(match.group(1), line, last - line + 1))
    return found


def _body_opening(stripped: str, start: int) -> int | None:
    # A signature holds brackets and, in array lengths, semicolons: only those outside all brackets end it.
    depth = 0
    for i in range(start, len(stripped)):
        c = stripped[i]
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0 and c == "{":
            return i
        elif depth == 0 and c in ";}":
            return None
    return None


def python_functions(tree: ast.AST) -> list[Function]:
    """Every function; its docstring is not counted, since documentation is not length."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append(Function(node.name, node.lineno, length))
    return found


@dataclass(frozen=True)
class Use:
    """A name below the crate's root that a file mentions, and where."""

    name: str
    line: int


def rust_uses(stripped: str, module: tuple[str, ...]) -> list[Use]:
    """The rooms (`crate::X`, or `super::` far enough to leave the room) and crates (`mxrs_X`) a file
    mentions.

    `module` is the path of the file's module below the crate's root.
    """
    spans = _inline_modules(stripped)
    found = []

    def add(start: int, names: list[str]) -> None:
        found.extend(Use(name, stripped.count("\n", 0, start) + 1) for name in names)

    for match in re.finditer(r"(?<![\w:])crate\s*::\s*", stripped):
        # `$crate` in a macro is the crate the macro stands in, which is the same room.
        if match.start() and stripped[match.start() - 1] == "$":
            continue
        add(match.start(), _heads(stripped, match.end()))
    for match in re.finditer(r"(?<![\w:])(?:self\s*::\s*)?((?:super\s*::\s*)+)", stripped):
        depth = len(module) + sum(a < match.start() < b for a, b in spans)
        if match.group(1).count("super") == depth:
            add(match.start(), _heads(stripped, match.end()))
    for match in re.finditer(r"(?<!\w)mxrs_([a-z]\w*)\b(?=\s*(?:::|;|\s+as\b|,|\}))", stripped):
        add(match.start(), [f"mxrs_{match.group(1)}"])
    return found


def _inline_modules(stripped: str) -> list[tuple[int, int]]:
    opens = re.finditer(r"\bmod\s+\w+\s*\{", stripped)
    return [(m.end() - 1, matching_brace(stripped, m.end() - 1)) for m in opens]


def _heads(stripped: str, position: int) -> list[str]:
    """First names of a path, or of each path inside a group `{a::b, c}`."""
    if stripped[position : position + 1] != "{":
        name = re.match(r"(?:r#)?([A-Za-z_]\w*)", stripped[position:])
        return [name.group(1)] if name else []
    inside = stripped[position + 1 : matching_brace(stripped, position)]
    heads, depth, item = [], 0, ""
    for c in inside + ",":
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            name = re.match(r"\s*([A-Za-z_]\w*)", item)
            if name:
                heads.append(name.group(1))
            item = ""
        else:
            item += c
    return heads


def python_uses(tree: ast.AST, module: tuple[str, ...], is_package: bool, package: str = "mxrs") -> list[Use]:
    """Modules of `package` that a file imports, at its top or inside functions, as names below the package's
    root.

    `from . import a, b` at the root counts as importing a and b. What stands under `if TYPE_CHECKING:` is not
    counted.
    """
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                typing_only.update(ast.walk(statement))
    found = []
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
            found += [Use(n[1], node.lineno) for n in names if n[0] == package and len(n) > 1]
        elif isinstance(node, ast.ImportFrom):
            base = _from_base(node, module, is_package, package)
            if base:
                found.append(Use(base[0], node.lineno))
            elif base is not None:
                found += [Use(a.name, node.lineno) for a in node.names]
    return found


def _from_base(
    node: ast.ImportFrom, module: tuple[str, ...], is_package: bool, package: str
) -> tuple[str, ...] | None:
    """The module after `from`, below the package's root; None where it lies outside the package."""
    tail = tuple(node.module.split(".")) if node.module else ()
    if node.level == 0:
        return tail[1:] if tail[:1] == (package,) else None
    above = node.level - 1 if is_package else node.level
    return module[: len(module) - above] + tail
