"""Measures kernels on a GPU, mxrs beside PyTorch on the same card, and prints a Markdown table of achieved rates.

    python benches/gpu_bench.py [--torch PYTHON] [--rounds 5] [--cases gemm,softmax] [--quick] [--json FILE]

Each library has one process; they take turns case by case and round by round, so that a card that grows warm
does so for both. A cell is the median over the rounds. PyTorch computes float32 in float32 (TF32 is off); its
interpreter is `--torch`, MXRS_TORCH_PYTHON, .torch's, or this one, whichever is found first, and where it has no
CUDA the column says so. `--quick` takes sizes that a software adapter (MXRS_ALLOW_SOFTWARE_GPU=1) does in a
minute: for trying the command, not for numbers. `--cases` takes beginnings of names.

GB/s count the bytes that must be read and written, GFLOP/s the products' operations, kcall/s calls from Python.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_cases import cases

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("gpu_cases.py")
#: Seconds that one measurement may take: compiling and tuning included.
PATIENCE = 180.0


class Worker:
    """The process of one library; started again where it ended."""

    def __init__(self, library: str, python: str) -> None:
        self.library, self.python = library, python
        self.process: subprocess.Popen[str] | None = None
        self.name = ""
        #: Why there is none.
        self.missing = ""

    def start(self) -> None:
        """Begins, and learns what the library found."""
        self.process = subprocess.Popen(
            [self.python, str(WORKER), self.library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = self._read()
        self.name, self.missing = said.get("name", ""), said.get("error", "")

    def ask(self, case: str, quick: bool) -> dict[str, Any]:
        """One measurement, or an error in words."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        if self.missing or self.process is None or self.process.stdin is None:
            return {"error": self.missing}
        try:
            self.process.stdin.write(json.dumps({"case": case, "quick": quick}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "its process ended"}
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            self.process.wait()
            return {"error": "its process ended" if ready else f"nothing within {PATIENCE:.0f} s"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Lets the process go."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def torch_python(given: str | None) -> str:
    """The interpreter that has PyTorch, as far as one can tell without starting it."""
    for python in (given, os.environ.get("MXRS_TORCH_PYTHON"), str(ROOT / ".torch" / "bin" / "python")):
        if python and os.access(python, os.X_OK):
            return python
    return sys.executable


def rate(unit: str, work: float, seconds: float) -> float:
    """Work per second in the unit: thousands of calls, or 1e9 of bytes and operations."""
    return work / seconds / (1e3 if unit == "kcall/s" else 1e9)


def table(results: dict[str, dict[str, list[float]]], errors: dict[str, dict[str, str]]) -> str:
    """A line per case: the libraries' rates, and mxrs's as a share of PyTorch's."""
    known = cases()
    lines = ["| kernel | unit | mxrs | PyTorch | share |", "| --- | --- | ---: | ---: | ---: |"]
    for name, found in results.items():
        medians = {library: statistics.median(values) for library, values in found.items() if values}
        cells = [
            f"{medians[lib]:,.1f}" if lib in medians else errors[name].get(lib, "")
            for lib in ("mxrs", "torch")
        ]
        both = len(medians) == 2
        share = f"{100 * medians['mxrs'] / medians['torch']:.0f} %" if both else ""
        lines.append(f"| {known[name].title} | {known[name].unit} | {cells[0]} | {cells[1]} | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--torch", help="the interpreter that has PyTorch with CUDA")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", help="beginnings of names, such as gemm,conv; all by default")
    parser.add_argument("--quick", action="store_true", help="sizes for a software adapter")
    parser.add_argument("--json", type=Path, help="also write every measurement here")
    options = parser.parse_args()
    known = cases()
    wanted = tuple(options.cases.split(",")) if options.cases else ("",)
    chosen = [name for name in known if name.startswith(wanted)]
    if not chosen:
        parser.error(f"no such case; there are {', '.join(known)}")
    workers = [Worker("mxrs", sys.executable), Worker("torch", torch_python(options.torch))]
    for worker in workers:
        worker.start()
    results: dict[str, dict[str, list[float]]] = {name: {w.library: [] for w in workers} for name in chosen}
    errors: dict[str, dict[str, str]] = {name: {} for name in chosen}
    for turn in range(options.rounds):
        for name in chosen:
            for worker in workers[:: 1 if turn % 2 == 0 else -1]:
                if worker.missing or worker.library in errors[name]:
                    continue
                answer = worker.ask(name, options.quick)
                if "error" in answer:
                    errors[name][worker.library] = "failed"
                    print(f"{worker.library}: {name}: {answer['error'][:400]}", file=sys.stderr)
                else:
                    speed = rate(known[name].unit, answer["work"], answer["seconds"])
                    results[name][worker.library].append(speed)
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    for worker in workers:
        print(f"{worker.library}: {worker.name or 'left out: ' + worker.missing}")
        worker.end()
    sizes = "quick sizes, " if options.quick else ""
    print(f"{sizes}medians of {options.rounds} rounds, TF32 off\n")
    print(table(results, errors))
    if options.json:
        names = {worker.library: worker.name for worker in workers}
        options.json.write_text(json.dumps({"devices": names, "rates": results, "errors": errors}, indent=1))


if __name__ == "__main__":
    main()
