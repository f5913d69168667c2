"""Measures mxrs against MXNet 1.9.1, PyTorch and NumPy, side by side in one run, and prints a Markdown table.

Every measurement runs in a process of its own (`worker.py`), under the interpreter its library lives in, so
that no two libraries ever share threads. The libraries take turns within each round, so that a noisy minute
hits all of them. A cell is the median over the rounds; a ratio below 1 means that mxrs is faster. A library
that is absent, or has no such case, leaves its cell empty.

    python benches/bench.py [--rounds N] [--cases add10,lenet] [--json FILE]
    python benches/bench.py --memory [--cases resnet50] [--json FILE]

With --memory, the table is of peak memory beyond what the import takes: of mxrs as it comes, with cheap results computed
again (MXNET_BACKWARD_DO_MIRROR=1), with a budget (MXRS_MEMORY_BUDGET), and of MXNet; ratios are to MXNet's.

Run by `make bench`; MXRS_ORACLE_PYTHON and MXRS_TORCH_PYTHON name interpreters other than those in .oracle
and .torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cases import CASES, MEMORY_CASES

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("worker.py")
LIBRARIES = ["mxrs", "mxnet", "torch", "numpy"]
#: Columns of the memory table: the library and what is said in the environment.
MEMORY_WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "mxrs": ("mxrs", {}),
    "mxrs, mirror": ("mxrs", {"MXNET_BACKWARD_DO_MIRROR": "1"}),
    "mxrs, budget 60%": ("mxrs", {"MXRS_MEMORY_BUDGET": "60%"}),
    "mxrs, budget 30%": ("mxrs", {"MXRS_MEMORY_BUDGET": "30%"}),
    "mxnet": ("mxnet", {}),
}


def interpreters() -> dict[str, str]:
    """The interpreter of each library that can be found."""
    found = {"mxrs": sys.executable, "numpy": sys.executable}
    for library, variable, folder in (
        ("mxnet", "MXRS_ORACLE_PYTHON", ".oracle"),
        ("torch", "MXRS_TORCH_PYTHON", ".torch"),
    ):
        python = os.environ.get(variable) or str(ROOT / folder / "bin" / "python")
        if os.access(python, os.X_OK):
            found[library] = python
    return found


def measure(python: str, library: str, case: str, threads: int) -> float | None:
    """Seconds per call of one case in a fresh process; None where the library has no such case."""
    if case == "import":
        return _import_time(python, library, _environment(threads))
    seconds: float | None = _answer(python, _environment(threads), library, case, str(threads))["seconds"]
    return seconds


def _environment(threads: int, more: dict[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore", **(more or {})}


def _answer(python: str, environment: dict[str, str], library: str, case: str, *words: str) -> dict[str, Any]:
    """What a worker says."""
    run = subprocess.run(
        [python, str(WORKER), library, case, *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"{library}: {case}: {run.stderr.strip()[-800:]}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def memory_table(chosen: list[str], pythons: dict[str, str], threads: int) -> tuple[str, dict[str, Any]]:
    """Megabytes per case and way, with the share of MXNet's; and the bytes."""
    ways = {name: way for name, way in MEMORY_WAYS.items() if way[0] in pythons}
    lines = ["| case | " + " | ".join(ways) + " |", "| --- |" + " ---: |" * len(ways)]
    results: dict[str, Any] = {}
    for case in chosen:
        found = results[case] = {}
        for name, (library, said) in ways.items():
            words = (library, case, str(threads), "memory")
            found[name] = _answer(pythons[library], _environment(threads, said), *words)["bytes"]
        base = found.get("mxnet")
        share = {
            name: f" ({value / base:.2f})" if base and name != "mxnet" else ""
            for name, value in found.items()
        }
        cells = [f"{value / 2**20:.0f} MB{share[name]}" for name, value in found.items()]
        lines.append("| " + " | ".join([MEMORY_CASES[case], *cells]) + " |")
    return "\n".join(lines), results


def _import_time(python: str, library: str, environment: dict[str, str]) -> float:
    """From the start of the interpreter to its end, less what an empty program takes."""

    def run(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([python, "-c", program], check=True, env=environment, capture_output=True)
        return time.perf_counter() - started

    empty = min(run("pass") for _ in range(3))
    return run(f"import {library}") - empty


def _text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(results: dict[str, dict[str, list[float]]], libraries: list[str]) -> str:
    """Medians per library, and mxrs's time divided by that of each other."""
    others = [name for name in libraries if name != "mxrs"]
    head = ["case", *libraries, *(f"mxrs / {name}" for name in others)]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for case, times in results.items():
        medians = {name: statistics.median(values) for name, values in times.items() if values}
        row = [CASES.get(case, case), *(_text(medians.get(name)) for name in libraries)]
        for name in others:
            both = "mxrs" in medians and name in medians
            row.append(f"{medians['mxrs'] / medians[name]:.2f}" if both else "")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measurements per cell (default 5)")
    parser.add_argument("--cases", help=f"which of {', '.join(CASES)}; all by default")
    parser.add_argument("--memory", action="store_true", help=f"peak memory of {', '.join(MEMORY_CASES)}")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="which of these")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="per library")
    parser.add_argument("--json", type=Path, help="also write every measurement here")
    options = parser.parse_args()
    known = MEMORY_CASES if options.memory else CASES
    chosen = options.cases.split(",") if options.cases else list(known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")

    pythons = interpreters()
    machine = f"{platform.system()} {platform.machine()}"
    if options.memory:
        text, memory = memory_table(chosen, pythons, options.threads)
        print(f"{machine}, {options.threads} threads, two steps, beyond what the import takes\n\n{text}")
        if options.json:
            options.json.write_text(json.dumps(memory, indent=1))
        return
    libraries = [name for name in options.libraries.split(",") if name in pythons]
    missing = [name for name in options.libraries.split(",") if name not in pythons]
    results: dict[str, dict[str, list[float]]] = {case: {name: [] for name in libraries} for case in chosen}
    for turn in range(options.rounds):
        for case in chosen:
            # Who goes first changes, so that nobody always finds the caches of another.
            for name in libraries[turn % len(libraries) :] + libraries[: turn % len(libraries)]:
                seconds = measure(pythons[name], name, case, options.threads)
                if seconds is not None:
                    results[case][name].append(seconds)
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)

    print(f"{machine}, {options.threads} threads, medians of {options.rounds} rounds\n")
    print(table(results, libraries))
    for name in missing:
        print(f"\n{name} was not found and is left out.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
