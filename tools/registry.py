"""Reads the operator registry of the installed mxrs, for the generators beside this file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def operators() -> list[dict[str, Any]]:
    """Every operator's record, sorted by name."""
    from mxrs import _core

    return sorted(_core.list_ops(), key=lambda op: op["name"])


def input_names(op: dict[str, Any]) -> list[str]:
    """Names of an operator's tensor inputs."""
    return [name for name, _ in op["inputs"]]


def write_or_check(files: dict[Path, str]) -> None:
    """Writes generated files, or with `--check` on the command line exits with 1 where one on disk is stale."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is stale")
    check = parser.parse_args().check
    stale = {path: text for path, text in files.items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        name = path.relative_to(ROOT).as_posix()
        if check:
            print(f"{name} is stale: run `make stubs docs`", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {name}")
    if check and stale:
        raise SystemExit(1)
