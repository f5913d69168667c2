"""The house keeps its floors: who may import whom, how long a file may be, where `unsafe` may stand.

The floors of Rust are read from where they are declared, from the ground up: the crates from `members` of the
workspace in Cargo.toml, the rooms that stand on them from `rust/src/lib.rs` (`pub mod NAME;`). The floors of
Python stand in a table below.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sources import (
    ROOT,
    matching_brace,
    python_functions,
    python_uses,
    rust_functions,
    rust_uses,
    strip_rust,
)

pytestmark = pytest.mark.host

RUST = ROOT / "rust"
PYTHON = ROOT / "python" / "mxrs"

# The ground floors are crates, so cargo guards them too; the rooms of the main crate stand on all of them.
# The workspace lists them from the ground up.
CRATES = [
    Path(member).name
    for member in tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    if member != "."
]

MAY_BE_UNSAFE = {"simd", "formula", "kernels", "memory", "device", "py", "engine", "lanes", "gpu"}
# The two files of other rooms in which granted memory becomes slices; everything else there goes through them.
UNSAFE_FILES = {"rust/src/ops/kernel.rs", "rust/src/array/handle.rs", "rust/src/shaders/map_tests.rs"}

# Python's floors from the ground up; rooms of one floor may know each other.
PYTHON_FLOORS: list[set[str]] = [
    {"_core", "_version", "libinfo"},
    {"_files", "base", "error", "log", "name", "attribute", "registry", "context", "device", "runtime"},
    {"util"},
    {"ndarray", "nd", "random", "autograd", "engine", "dlpack", "profiler", "storage"},
    {"symbol", "sym", "executor", "_placed", "cached_op", "memonger"},
    {"numpy", "np", "numpy_extension", "npx"},
    {"initializer", "init", "lr_scheduler", "metric", "recordio", "kvstore", "kv", "operator", "optimizer"},
    {"io", "image", "img", "callback", "monitor", "mon", "predictor", "visualization", "viz"},
    {"gluon"},
    {"executor_manager", "model", "module", "mod", "rnn"},
    {"contrib", "amp"},
    {"test_utils", "horovod"},
    {"_alias", "compat", "install", "cli", "launch", "run", "__main__"},
]

LONGEST_FILE = 600
LONGEST_FUNCTION = 80
# A line in the first thirty that holds this word gives the reason why a file or its functions are longer.
REASON = re.compile(r"\blength:\s*\S")


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for p in folder.rglob(f"*{suffix}") if "target" not in p.relative_to(folder).parts)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rooms_of(lib: str) -> list[str]:
    """The rooms in the order in which a lib.rs declares them."""
    return re.findall(r"^\s*pub(?:\([^)]*\))?\s+mod\s+(\w+)\s*;", strip_rust(lib), re.M)


RUST_FLOORS = CRATES + rooms_of((RUST / "src" / "lib.rs").read_text())


def rust_room(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """A file's room and its module path below the crate's root; None for a lib.rs and for what is no part of
    a crate.
    """
    parts = path.relative_to(RUST).with_suffix("").parts
    if parts[0] == "src":
        module = parts[1:]
        if module == ("lib",):
            return None
        room = module[0]
    elif parts[0] in CRATES:
        room = parts[0]
        module = parts[2:] if parts[1] == "src" else ("test",)
    else:
        raise AssertionError(
            f"{_name(path)}: not a member of the workspace in Cargo.toml, whose members are {CRATES}"
        )
    if module[-1:] == ("mod",):
        module = module[:-1]
    return room, () if module == ("lib",) else module


def rust_violations(text: str, room: str, module: tuple[str, ...]) -> list[tuple[int, str]]:
    """Lines on which a file of `room` goes up a stair."""
    found = []
    for use in rust_uses(strip_rust(text), module):
        if use.name.startswith("mxrs_"):
            other = use.name.removeprefix("mxrs_")
            if other not in CRATES:
                continue
        elif room in CRATES:
            continue  # `crate::` inside a crate of its own is the room itself
        else:
            other = use.name
        if other in RUST_FLOORS and RUST_FLOORS.index(other) > RUST_FLOORS.index(room):
            found.append((use.line, other))
    return found


def test_rust_rooms_import_only_from_below() -> None:
    bad = []
    for path in _files(RUST, ".rs"):
        place = rust_room(path)
        if place is None:
            continue
        room, module = place
        assert room in RUST_FLOORS, f"{_name(path)}: room {room!r} is not declared in rust/src/lib.rs"
        bad += [
            f"{_name(path)}:{n}: {room} uses {other}, a floor above"
            for n, other in rust_violations(path.read_text(), room, module)
        ]
    assert not bad, "\n" + "\n".join(bad)


def test_crates_depend_only_on_crates_below() -> None:
    for room in CRATES:
        manifest = tomllib.loads((RUST / room / "Cargo.toml").read_text())
        for section in ("dependencies", "dev-dependencies", "build-dependencies"):
            for dependency in manifest.get(section, {}):
                # The one user of wgpu is the floor that is made for it.
                above = {"mxrs", "pyo3"} if room == "gpu" else {"mxrs", "pyo3", "wgpu"}
                assert dependency not in above, f"{room}: may not depend on {dependency}"
                other = dependency.removeprefix("mxrs-")
                if dependency.startswith("mxrs-"):
                    assert CRATES.index(other) < CRATES.index(room), (
                        f"{room} depends on {other}, a floor above"
                    )


def test_only_the_border_knows_python() -> None:
    bad = []
    for path in _files(RUST, ".rs"):
        place = rust_room(path)
        if place and place[0] != "py" and re.search(r"\b(?:pyo3|numpy)\s*::", strip_rust(path.read_text())):
            bad.append(_name(path))
    assert not bad, f"PyO3 is used outside py/: {bad}"


def _python_files() -> Iterator[tuple[Path, tuple[str, ...], bool]]:
    for path in _files(PYTHON, ".py"):
        module = path.relative_to(PYTHON).with_suffix("").parts
        is_package = module[-1] == "__init__"
        yield path, module[:-1] if is_package else module, is_package


def test_python_rooms_import_only_from_below() -> None:
    floor = {room: i for i, rooms in enumerate(PYTHON_FLOORS) for room in rooms}
    bad = []
    for path, module, is_package in _python_files():
        if not module:
            continue  # the package itself gathers all rooms
        room = module[0]
        assert room in floor, f"{_name(path)}: give the room {room!r} a floor in PYTHON_FLOORS"
        for use in python_uses(ast.parse(path.read_text()), module, is_package):
            other = use.name
            if floor.get(other, -1) > floor[room]:
                bad.append(f"{_name(path)}:{use.line}: {room} imports {other}, a floor above")
    assert not bad, "\n" + "\n".join(bad)


# ---- sizes -------------------------------------------------------------------------------------------------


def _has_reason(text: str) -> bool:
    return any(REASON.search(line) for line in text.splitlines()[:30])


def _sized_files() -> list[Path]:
    folders = [RUST, ROOT / "python", ROOT / "tests", ROOT / "benches", ROOT / "tools", ROOT / "examples"]
    return [p for f in folders if f.exists() for suffix in (".rs", ".py") for p in _files(f, suffix)]


def test_files_and_functions_are_short_or_say_why() -> None:
    bad = []
    for path in _sized_files():
        text = path.read_text()
        if _has_reason(text):
            continue
        lines = text.count("\n") + 1
        if lines > LONGEST_FILE:
            bad.append(f"{_name(path)}: {lines} lines, {LONGEST_FILE} allowed")
        functions = (
            rust_functions(strip_rust(text)) if path.suffix == ".rs" else python_functions(ast.parse(text))
        )
        bad += [
            f"{_name(path)}:{f.line}: {f.name} has {f.length} lines, {LONGEST_FUNCTION} allowed"
            for f in functions
            if f.length > LONGEST_FUNCTION
        ]
    assert not bad, "shorten, or give a reason at the head of the file (`length: ...`):\n" + "\n".join(bad)


# ---- unsafe ------------------------------------------------------------------------------------------------


def unsafe_without_reason(text: str) -> list[int]:
    """Lines of unsafe blocks and impls with no SAFETY comment on the line or within the three lines above."""
    lines = text.splitlines()
    stripped = strip_rust(text)
    found = []
    for match in re.finditer(r"\bunsafe\s*(?:\{|impl\b)", stripped):
        n = stripped.count("\n", 0, match.start())
        if not any("SAFETY" in line for line in lines[max(0, n - 3) : n + 1]):
            found.append(n + 1)
    return found


def test_unsafe_stays_in_its_rooms_and_gives_reasons() -> None:
    bad = []
    for path in _files(RUST, ".rs"):
        place = rust_room(path)
        room = place[0] if place else "lib.rs"
        text = path.read_text()
        if path.name == "lib.rs" and path.parent.parent.name in CRATES:
            room = path.parent.parent.name
        allowed = room in MAY_BE_UNSAFE or _name(path) in UNSAFE_FILES
        if not allowed and re.search(r"\bunsafe\b", strip_rust(text)):
            bad.append(f"{_name(path)}: `unsafe` is not allowed in {room}")
        bad += [f"{_name(path)}:{n}: unsafe without a SAFETY comment" for n in unsafe_without_reason(text)]
    assert not bad, "\n" + "\n".join(bad)


# ---- paths -------------------------------------------------------------------------------------------------

# Spelt in pieces, or this file would be the first to break the rule.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:" + "|".join(["home", "root", "Users", "work", "tmp"]) + r")/[\w.-]"
)


def test_no_tracked_file_names_a_path_of_some_machine() -> None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are tracked is not known")
    bad = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        for n, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                bad.append(f"{name}:{n}: {line.strip()[:100]}")
    assert not bad, "\n" + "\n".join(bad)


# ---- the readers themselves --------------------------------------------------------------------------------

SAMPLE = r"""
//! Not code: use crate::py::X; unsafe { }
use crate::{base::DType, py, tape::{walk, step}};
use super::array::Array;
use mxrs_kernels::gemm;
/* nested /* crate::graph */ still */
fn first<'a>(x: &'a [u8; 3], c: char) -> &'a str {
    let quote = '"'; let brace = '{'; let text = "crate::exec { \" "; let raw = r#"fn no() { "quoted" "#;
    unsafe { call() }
}
trait T { fn declared(&self) -> [u8; 2]; fn given(&self) { let _ = 1; } }
mod tests {
    use super::helper;
    use super::super::graph;
    // SAFETY: nothing is shared
    unsafe impl Send for X {}
}
"""


def test_the_reader_of_rust_sees_code_and_nothing_else() -> None:
    stripped = strip_rust(SAMPLE)
    assert stripped.count("\n") == SAMPLE.count("\n")
    assert {u.name for u in rust_uses(stripped, ("ops",))} == {
        "base",
        "py",
        "tape",
        "array",
        "mxrs_kernels",
        "graph",
    }
    # One module deeper, `super::array` stays in the room, and so does tests' `super::super`.
    assert {u.name for u in rust_uses(stripped, ("ops", "unary"))} == {"base", "py", "tape", "mxrs_kernels"}
    assert [(f.name, f.length) for f in rust_functions(stripped)] == [("first", 4), ("given", 1)]
    assert unsafe_without_reason(SAMPLE) == [9]
    assert matching_brace("{a{b}c}d", 0) == 6


def test_a_stair_that_goes_up_is_found() -> None:
    assert rooms_of("// pub mod no;\npub mod a;\n#[cfg(x)]\npub mod b;\nmod c;\npub(crate) mod d;") == [
        "a",
        "b",
        "d",
    ]
    first, last = RUST_FLOORS[len(CRATES)], RUST_FLOORS[-1]
    assert rust_violations(f"use crate::{last}::X;", first, (first,)) == [(1, last)]
    assert rust_violations(f"use crate::{first}::X;", last, (last,)) == []
    assert rust_violations("use mxrs_kernels::X;", "base", ()) == [(1, "kernels")]


def test_the_reader_of_python_resolves_relative_imports() -> None:
    tree = ast.parse(
        "import mxrs.io\nfrom .. import nd\nfrom ..symbol import Symbol\nfrom .nn import Dense\n"
        "from mxrs.metric import F1\nimport numpy\nif TYPE_CHECKING:\n    from ..module import Module\n"
        "def f():\n    from ..image import x\n"
    )
    assert {u.name for u in python_uses(tree, ("gluon", "block"), False)} == {
        "io",
        "nd",
        "symbol",
        "gluon",
        "metric",
        "image",
    }
    assert {
        u.name for u in python_uses(ast.parse("from . import a\nfrom .. import b"), ("gluon",), True)
    } == {"gluon", "b"}
    assert python_functions(ast.parse('def f():\n    """a\n    b\n    """\n    return 1\n'))[0].length == 2


def test_a_machine_path_is_found() -> None:
    assert MACHINE_PATH.search("see /" + "home/ann/x")
    assert MACHINE_PATH.search("'/" + "tmp/x'")
    assert not MACHINE_PATH.search("target/tmp/x and $HOME/work/x")
