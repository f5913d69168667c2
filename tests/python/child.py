"""Runs Python in a child process, so that a test can say how it ended.

`run_child` runs one snippet; `CallServer` keeps a child that answers many calls of operators, names the call
that killed it, and starts a fresh one. The child has a limit on its address space: a request beyond it must
become an exception there too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Under an emulator the children must be started under it too.
PYTHON = os.environ.get("MXRS_TEST_PYTHON", sys.executable)
# Address space of a child, in bytes: roomy for threads' stacks, small against what hostile shapes ask for.
MEMORY = 6 << 30


@dataclass(frozen=True)
class ChildResult:
    """How a child ended: its exit code, or the name of the signal that ended it."""

    returncode: int | None
    signal: str | None
    stdout: str
    stderr: str
    timed_out: bool
    seconds: float

    @property
    def died(self) -> bool:
        """Whether it was ended by a signal or its time, or aborted."""
        return self.signal is not None or self.timed_out

    def explain(self) -> str:
        """One text with everything, for an assertion's message."""
        how = "ran out of time" if self.timed_out else self.signal or f"exit code {self.returncode}"
        return (
            f"child: {how} after {self.seconds:.1f} s\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _how(code: int) -> tuple[int | None, str | None]:
    if code < 0:
        return None, signal.Signals(-code).name
    return code, None


def run_child(
    code: str,
    *,
    seconds: float = 60.0,
    arguments: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limit_memory: bool = False,
) -> ChildResult:
    """Runs `python -c code arguments...` and reports its end. After `seconds` the child and its children are
    killed.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [PYTHON, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})},
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_limit_memory if limit_memory else None,
    )
    timed_out = False
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        out, err = process.communicate()
    code_, name = _how(process.returncode)
    return ChildResult(code_, name, out, err, timed_out, time.monotonic() - started)


@dataclass(frozen=True)
class Outcome:
    """What became of one call: 'ok', 'raised', 'panicked', 'died' or 'hung'; the exception's class and text;
    seconds.
    """

    kind: str
    error: str = ""
    text: str = ""
    bases: tuple[str, ...] = ()
    seconds: float = 0.0


class CallServer:
    """A child that imports mxrs once and answers calls described in JSON (see `call_worker.py`)."""

    def __init__(self, seconds: float = 20.0) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._pending = b""

    def call(self, request: dict[str, Any]) -> Outcome:
        """Makes one call; a child that dies of it is replaced at the next."""
        started = time.monotonic()
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, self._seconds)
        except (EOFError, BrokenPipeError):
            code, name = _how(process.wait())
            text = self._tail()
            self.close()
            return Outcome("died", name or f"exit code {code}", text, (), time.monotonic() - started)
        except TimeoutError:
            self.close()
            return Outcome("hung", "", f"no answer in {self._seconds:g} s", (), time.monotonic() - started)
        answer = json.loads(line)
        spent = time.monotonic() - started
        return Outcome(answer["kind"], answer["error"], answer["text"], tuple(answer["bases"]), spent)

    def close(self) -> None:
        """Ends the child."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.seek(0)
        self._log.truncate()
        self._pending = b""
        self._process = subprocess.Popen(
            [PYTHON, str(HERE / "call_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            preexec_fn=_limit_memory,
        )
        if json.loads(self._line(self._process, 120.0))["kind"] != "ready":
            raise RuntimeError(f"the child does not start: {self._tail()}")
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                raise EOFError
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _tail(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").strip().splitlines()[:12])
