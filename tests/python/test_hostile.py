"""Bad input never kills the process: every class of hostile call, tried on every registered operator in a
child process.

A call may succeed or raise one of the exceptions below; it may not end the process, panic, hang, or refuse
without saying what it refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from child import CallServer, run_child
from hostile import bad_calls, good_calls

# The classes a caller can be expected to catch.
ALLOWED = {
    "MXNetError",
    "ValueError",
    "TypeError",
    "IndexError",
    "KeyError",
    "AttributeError",
    "OverflowError",
    "MemoryError",
    "NotImplementedError",
    "ZeroDivisionError",
}
# A refusal comes at once; legal calls on tiny arrays do too. Loaded machines are slow, a thousandfold loop is
# slower.
SLOWEST = 10.0


def _operators() -> list[dict[str, Any]]:
    try:
        from mxrs import _core
    except ImportError:
        return []
    return sorted(_core.list_ops(), key=lambda op: op["name"])


OPERATORS = _operators()


@pytest.fixture(scope="module")
def server() -> Iterator[CallServer]:
    """One child for many calls."""
    server = CallServer(seconds=2 * SLOWEST)
    yield server
    server.close()


def test_there_are_operators_with_samples() -> None:
    pytest.importorskip("mxrs", reason="mxrs is not built")
    assert len(OPERATORS) > 100
    without = [op["name"] for op in OPERATORS if not op["samples"]]
    assert not without, f"operators whose record has no sample call: {without}"


@pytest.mark.parametrize("op", OPERATORS, ids=[op["name"] for op in OPERATORS])
@pytest.mark.slow
def test_bad_input(op: dict[str, Any], server: CallServer, cover: Callable[[str, str], None]) -> None:
    for request in good_calls(op):
        outcome = server.call(request)
        assert outcome.kind == "ok", f"the sample itself fails: {request}: {outcome}"
    words = {op["name"], op["name"].lstrip("_"), *op["aliases"]}
    bad = []
    for name, request in bad_calls(op):
        outcome = server.call(request)
        if outcome.kind not in {"ok", "raised"}:
            bad.append(f"{name}: {outcome.kind} {outcome.error} {outcome.text}\n    {request}")
        elif outcome.kind == "raised":
            if not ALLOWED & set(outcome.bases):
                bad.append(f"{name}: raised {outcome.error}: {outcome.text}")
            elif (
                "raw" not in str(request["inputs"])
                and "Memory" not in outcome.error
                and not any(w in outcome.text for w in words)
            ):
                bad.append(f"{name}: the error does not name the operator: {outcome.error}: {outcome.text}")
        if outcome.seconds > SLOWEST:
            bad.append(f"{name}: took {outcome.seconds:.1f} s")
        if len(bad) >= 20:
            bad.append("...")
            break
    assert not bad, f"{op['name']}:\n" + "\n".join(bad)
    cover("hostile", op["name"])


# ---- the tools of this test --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_child_reports_each_kind_of_end() -> None:
    assert run_child("print('x')").stdout == "x\n"
    assert run_child("raise SystemExit(3)").returncode == 3
    killed = run_child("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.signal == "SIGKILL" and killed.died and "SIGKILL" in killed.explain()
    late = run_child("import time; print('before', flush=True); time.sleep(60)", seconds=1.0)
    assert late.timed_out and late.died and late.stdout == "before\n" and late.seconds < 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is known to hold on Linux only")
@pytest.mark.host
def test_child_has_a_memory_limit() -> None:
    assert "MemoryError" in run_child("x = bytearray(1 << 36)", limit_memory=True).stderr


def test_cases_cover_every_class() -> None:
    op = {
        "name": "repeat",
        "aliases": [],
        "inputs": ["data"],
        "params": [
            {"name": "repeats", "type": "int", "default": None, "required": True},
            {"name": "axis", "type": "int or None"},
        ],
        "samples": [
            {
                "inputs": [{"shape": [2, 3], "dtype": "float32", "low": -1.0, "high": 1.0, "integer": False}],
                "attrs": {"repeats": 2},
            }
        ],
    }
    names = [name for name, _ in bad_calls(op)]
    for part in (
        "repeats=-2147483648",
        "axis={'tuple': [2]}",
        "of shape [0, 3]",
        "filled with nan",
        "out is input 0",
        "no inputs",
    ):
        assert any(part in name for name in names), part
    assert len(names) == len(set(names)) and len(names) > 100
    assert next(good_calls(op))["attrs"] == {"repeats": 2}
