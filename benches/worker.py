"""Measures one case of one library in this process: `worker.py LIBRARY CASE THREADS [memory]` prints a line of JSON.

The case is a callable that does the work once and has finished it when it returns (or, for `issue`, has asked
for it). It is warmed up, then timed in batches of at least 20 ms until 0.5 s have passed; the answer is the
median batch, per call. With `memory` it is done twice, and the answer is how far the process grew beyond what it
needed after the import and a first tiny call.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

BATCH_SECONDS = 0.02
TOTAL_SECONDS = 0.5


def seconds_per_call(
    work: Callable[[int], None], settle: Callable[[], None], one_by_one: bool = False
) -> float:
    """`work(n)` does the case n times; `settle` waits for everything outstanding, outside the clock.

    `one_by_one` settles after each call: a library that is far ahead of its workers makes the caller wait.
    """

    def batch(n: int) -> float:
        started = time.perf_counter()
        work(n)
        spent = time.perf_counter() - started
        settle()
        return spent

    n = 1
    batch(1)  # caches, lazy set-up, first allocations
    while not one_by_one and batch(n) < BATCH_SECONDS:
        n *= 2
    times: list[float] = []
    until = time.perf_counter() + TOTAL_SECONDS
    while time.perf_counter() < until or len(times) < 5:
        times.append(batch(n) / n)
    return statistics.median(times)


def highest_memory() -> int:
    """Bytes of physical memory at this process's fullest moment."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which on Linux begins at what the parent had when it forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bytes_of_two(library: str, case: str) -> int:
    """Bytes that making the case and running it twice adds to the process."""
    mx = importlib.import_module(library)
    mx.nd.zeros((4,)).asnumpy()
    before = highest_memory()
    work, settle = importlib.import_module("case_graph").memory_cases(mx)[case]()
    work(2)
    settle()
    return highest_memory() - before


def main() -> None:
    """Runs the case named on the command line."""
    library, case, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if sys.argv[4:] == ["memory"]:
        print(json.dumps({"bytes": bytes_of_two(library, case)}))
        return
    module = "case_mx" if library in ("mxrs", "mxnet") else f"case_{library}"
    cases = importlib.import_module(module).cases(library, threads)
    if case not in cases:
        print(json.dumps({"seconds": None}))
        return
    work, settle = cases[case]()
    print(json.dumps({"seconds": seconds_per_call(work, settle, case == "issue")}))


if __name__ == "__main__":
    main()
