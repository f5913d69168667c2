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
    """Names of an operator's tensor inputs; a record may give them plain or as dictionaries."""
    return [i if isinstance(i, str) else i["name"] for i in op["inputs"]]


def write_or_check(path: Path, text: str) -> None:
    """Writes a generated file, or with `--check` on the command line exits with 1 where the file on disk is
    stale.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the file is stale")
    name = path.relative_to(ROOT).as_posix()
    fresh = path.exists() and path.read_text() == text
    if parser.parse_args().check:
        if not fresh:
            print(f"{name} is stale: run `make stubs docs`", file=sys.stderr)
            raise SystemExit(1)
    elif not fresh:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {name}")
