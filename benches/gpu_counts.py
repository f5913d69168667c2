"""Counts what a training step sends to a GPU: dispatches, submissions, bytes, and what was created for it.

    python benches/gpu_counts.py [--batch 2] [--size 32] [--steps 3] [--list] [--json FILE]

The step is ResNet-18's (forward, loss, backward, momentum), three ways, each in a process of its own: as calls,
as a plan without fusion (MXRS_PASSES_OFF), and as a plan. Counts are per step, after a warm-up, so that they say
the same on every device: arithmetic plays no part. `--list` adds what the plan's dispatches are for. Host times
are of the thread that calls and of the thread that encodes.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import case_graph

#: Column: what is said in the environment, and whether the network is hybridized.
WAYS: dict[str, tuple[dict[str, str], bool]] = {
    "eager": ({}, False),
    "plan, unfused": ({"MXRS_PASSES_OFF": "fuse,epilogue"}, True),
    "plan": ({}, True),
}
ROWS = {
    "dispatches": "dispatches",
    "submits": "submissions",
    "passes": "compute passes",
    "bytes_written": "bytes from the host",
    "bytes_read": "bytes to the host",
    "bytes_copied": "bytes copied on the device",
    "bytes_touched": "bytes of the arrays that operators read and write",
    "pipelines": "pipelines made",
    "layouts": "layouts made",
    "bind_groups": "bind groups made",
    "buffers": "buffers made",
    "staging_buffers": "staging buffers made",
    "waits": "waits",
}


def measure(batch: int, size: int, steps: int, hybridize: bool) -> dict[str, float]:
    """Counts per step of this process, and host microseconds per dispatch."""
    import numpy as np

    import mxrs as mx

    ctx = mx.gpu(0)
    data = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype("float32")
    with ctx:
        net = case_graph.residual_network(mx, 18)
        label = mx.nd.array(np.arange(batch) % 1000, ctx=ctx)
        work, settle = case_graph.training(mx, net, mx.nd.array(data, ctx=ctx), label, hybridize)
        work(2)
    settle()
    before = mx.profiler.gpu_counts(ctx)
    encoder = thread_seconds("mxrs-gpu")
    began = time.thread_time()
    work(steps)
    spent = time.thread_time() - began
    counts = mx.profiler.gpu_counts(ctx)
    encoded = thread_seconds("mxrs-gpu") - encoder
    found = {name: (counts[name] - before[name]) / steps for name in counts}
    found["us of the caller per dispatch"] = spent * 1e6 / steps / found["dispatches"]
    found["us of the encoder per dispatch"] = encoded * 1e6 / steps / found["dispatches"]
    return found


def thread_seconds(name: str) -> float:
    """Processor seconds of this process's threads of this name; 0 where the system does not tell."""
    total = 0.0
    for task in Path("/proc/self/task").glob("*"):
        fields = (task / "stat").read_text().rsplit(")", 1)
        if fields[0].endswith(f"({name}"):
            user, system = fields[1].split()[11:13]
            total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def listing(options: argparse.Namespace) -> str:
    """Which operators the plan's dispatches of one step are for."""
    run = child(options, "plan", {"MXRS_DEBUG": "gpu"})
    lines = [line for line in run.stderr.splitlines() if line.startswith("gpu ")]
    last = [i for i, line in enumerate(lines) if " by " in line][
        -round(json.loads(run.stdout)["dispatches"]) :
    ]
    kinds = collections.Counter(re.sub(r"gpu \d+: (.*?) \[.*", r"\1", lines[i]) for i in last)
    return "\n".join(f"{n:6}  {kind}" for kind, n in kinds.most_common())


def child(options: argparse.Namespace, way: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A measuring process and what it said."""
    said, hybridize = WAYS[way]
    words = [str(options.batch), str(options.size), str(options.steps), str(int(hybridize))]
    run = subprocess.run(
        [sys.executable, __file__, "--measure", *words],
        env={**os.environ, "MXRS_ALLOW_SOFTWARE_GPU": "1", **said, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"{way}: {run.stderr.strip()[-800:]}")
    return run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=32, help="rows and columns of an image")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="also what the plan's dispatches are for")
    parser.add_argument("--json", type=Path, help="also write the counts here")
    parser.add_argument("--measure", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        batch, size, steps, hybridize = options.measure
        print(json.dumps(measure(batch, size, steps, bool(hybridize))))
        return
    found: dict[str, dict[str, Any]] = {way: json.loads(child(options, way, {}).stdout) for way in WAYS}
    print(f"ResNet-18 training step, batch {options.batch}, {options.size} x {options.size}, per step\n")
    print("| | " + " | ".join(found) + " |\n| --- |" + " ---: |" * len(found))
    for name in found["plan"]:
        cells = [f"{counts[name]:,.1f}".removesuffix(".0") for counts in found.values()]
        print(f"| {ROWS.get(name, name)} | " + " | ".join(cells) + " |")
    if options.list:
        print("\nDispatches of the plan's step:\n" + listing(options))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
