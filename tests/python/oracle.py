"""Asks MXNet 1.9.1, which lives in an interpreter of its own, for the right answer.

`Oracle` starts `oracle_server.py` there and speaks to it over pipes. What MXNet refuses arrives as
`OracleError` with the class and text of its exception; where MXNet dies, the call raises `OracleCrashed` and
the next call starts a fresh server. Tests get one through the fixture `oracle` of conftest.py.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from oracle_server import execute, pack, unpack

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("oracle_server.py")

# Importing MXNet takes seconds; one call of a test does not.
START_SECONDS = 120.0
CALL_SECONDS = 60.0


class OracleError(Exception):
    """MXNet refused: `name` is the class of its exception, `text` what it said."""

    def __init__(self, name: str, text: str, trace: str = "") -> None:
        super().__init__(f"{name}: {text}\n{trace}" if trace else f"{name}: {text}")
        self.name = name
        self.text = text


class OracleCrashed(Exception):
    """MXNet's process died (or hung and was ended) while answering."""


def interpreter() -> tuple[str | None, str]:
    """The oracle's interpreter, or None and a sentence saying why there is none."""
    named = os.environ.get("MXRS_ORACLE_PYTHON")
    if named:
        if os.access(named, os.X_OK):
            return named, ""
        return None, f"MXRS_ORACLE_PYTHON names {named}, which cannot be run"
    python = ROOT / ".oracle" / "bin" / "python"
    if (ROOT / ".oracle" / "ready").exists() and os.access(python, os.X_OK):
        return str(python), ""
    missing = ROOT / ".oracle" / "missing"
    if missing.exists():
        return None, f"no oracle: {missing.read_text().strip()}"
    return None, "no oracle: `make oracle` sets it up"


class Oracle:
    """A running MXNet 1.9.1. Not for several threads at once."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self.compared: set[str] = set()

    # ---- questions -----------------------------------------------------------------------------------------

    def run(self, code: str, *, seconds: float = CALL_SECONDS, **arrays: Any) -> dict[str, Any]:
        """Runs a program in MXNet and returns every variable whose name starts with `out_`, arrays as NumPy.

        See `oracle_server.execute` for what is bound: `x=np.ones(3)` gives the program an NDArray `x` and a
        NumPy array `np_x`.
        """
        return self._ask({"kind": "run", "code": code, "arrays": arrays}, seconds)

    def op(
        self,
        name: str,
        inputs: list[np.ndarray],
        attrs: dict[str, Any] | None = None,
        *,
        train: bool = False,
        grad_of: list[int] | None = None,
        head_grads: list[np.ndarray | None] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs of one operator, and gradients of the inputs numbered in `grad_of` (no recording where it
        is None).
        """
        request = {
            "kind": "op",
            "name": name,
            "inputs": list(inputs),
            "attrs": dict(attrs or {}),
            "train": train,
            "grad_of": grad_of,
            "head_grads": head_grads,
        }
        outputs, grads = self._ask(request, seconds)
        self.compared.add(name)
        return outputs, grads

    def check(
        self,
        code: str,
        *,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        only: Iterable[str] | None = None,
        seconds: float = CALL_SECONDS,
        **arrays: Any,
    ) -> dict[str, Any]:
        """Runs the same program in MXNet and in mxrs and asserts that every `out_*` agrees; returns ours.

        Values that are not arrays must be equal; arrays must agree in shape, in dtype, and within the
        tolerances.
        """
        import mxrs

        theirs = self.run(code, seconds=seconds, **arrays)
        ours = execute(mxrs, code, arrays)
        names = list(only) if only is not None else sorted(theirs)
        assert names, "the program sets no variable named out_*: nothing was compared"
        assert set(names) <= set(ours), f"missing here: {sorted(set(names) - set(ours))}"
        for name in names:
            assert_same(ours[name], theirs[name], name, rtol, atol)
        return ours

    def version(self) -> dict[str, str]:
        """Versions of MXNet and of NumPy over there."""
        return self._ask({"kind": "version"}, CALL_SECONDS)

    # ---- the process ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the server."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MXNET_", "MXRS_", "PYTHON"))}
        environment["OMP_NUM_THREADS"] = str(min(os.cpu_count() or 1, 4))
        # Threads that wait for work by spinning keep it from being done where other programs run too.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        self._log.seek(0)
        self._log.truncate()
        process = subprocess.Popen(
            [self._python, "-W", "ignore", "-u", str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            bufsize=0,
        )
        self._process = process
        self._exchange(process, {"kind": "version"}, START_SECONDS)
        return process

    def _ask(self, request: dict[str, Any], seconds: float) -> Any:
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            process = self._start()
        reply = self._exchange(process, request, seconds)
        if "error" in reply:
            raise OracleError(reply["error"], reply["text"], reply["traceback"])
        return reply["value"]

    def _exchange(self, process: subprocess.Popen[bytes], request: dict[str, Any], seconds: float) -> Any:
        assert process.stdin is not None and process.stdout is not None
        message = pack(
            request
        )  # before anything is written: a value that cannot be sent leaves the wire clean
        deadline = time.monotonic() + seconds
        try:
            view = memoryview(message)
            while view:
                view = view[os.write(process.stdin.fileno(), view) :]
            return unpack(_reader(process.stdout.fileno(), deadline))
        except TimeoutError:
            self.close()
            raise OracleCrashed(f"MXNet gave no answer in {seconds:g} s and was ended") from None
        except (EOFError, BrokenPipeError):
            code = process.wait()
            self.close()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise OracleCrashed(f"MXNet died with {how}{self._log_tail()}") from None
        except BaseException:
            # An interrupted exchange (Ctrl-C, a test's time limit) leaves half a message behind: never reuse
            # it.
            self.close()
            raise

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return "\n" + "\n".join(lines[-8:]) if lines else ""


def _reader(descriptor: int, deadline: float) -> Callable[[int], bytes]:
    def read(n: int) -> bytes:
        parts: list[bytes] = []
        while n:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            part = os.read(descriptor, min(n, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    return read


def assert_same(ours: Any, theirs: Any, where: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Asserts that two results agree: shape, dtype and values of arrays, everything else equal."""
    if isinstance(theirs, np.ndarray):
        assert isinstance(ours, np.ndarray), f"{where}: an array over there, {type(ours).__name__} here"
        assert ours.shape == theirs.shape, f"{where}: shape {ours.shape} here, {theirs.shape} in MXNet"
        assert ours.dtype == theirs.dtype, f"{where}: dtype {ours.dtype} here, {theirs.dtype} in MXNet"
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=where)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), f"{where}: {len(ours)} items here, {len(theirs)} in MXNet"
        for i, (a, b) in enumerate(zip(ours, theirs)):
            assert_same(a, b, f"{where}[{i}]", rtol, atol)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), f"{where}: keys {list(ours)} here, {list(theirs)} in MXNet"
        for key, value in theirs.items():
            assert_same(ours[key], value, f"{where}[{key!r}]", rtol, atol)
    elif isinstance(theirs, float):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=where)
    else:
        assert ours == theirs, f"{where}: {ours!r} here, {theirs!r} in MXNet"
