"""``python -m mxrs run script.py [args]``, ``python -m mxrs info`` and ``python -m mxrs devices``."""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import sys
from collections.abc import Callable
from typing import Any


def _run(script: str, args: list[str]) -> None:
    """Runs an MXNet program with mxrs in mxnet's place."""
    import mxrs

    if not os.path.exists(script):
        sys.exit(f"python -m mxrs run: there is no file {script}")
    mxrs.install_as_mxnet()
    sys.argv = [script, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


def _info() -> None:
    """Says what this installation is."""
    import numpy

    import mxrs
    from mxrs import _core

    print(f"mxrs {mxrs.__mxrs_version__} (speaks MXNet {mxrs.__version__})")
    print(f"python {platform.python_version()}, numpy {numpy.__version__}, {platform.platform()}")
    print(f"threads per operation: {_core.lane_count()}")
    print(f"operators: {sum(not op['hidden'] for op in _core.list_ops())}")


def _devices() -> None:
    """Says which GPUs there are, what they can do, and how fast they are; without any, what they would need."""
    from mxrs import _core

    print(_core.gpu_search())
    found = _core.gpu_list()
    if not found:
        print("no GPU can be used; everything runs on the CPU" + _NEEDED.get(sys.platform, ""))
    for i, gpu in enumerate(found):
        memory = f"{gpu['memory'] / 2**30:.1f} GiB" if gpu["memory"] else "memory not told"
        print(f"\ngpu({i}): {gpu['name']} ({gpu['kind']}, {gpu['backend']}, {memory})")
        print(f"  driver: {gpu['driver']}")
        print(f"  features: {', '.join(gpu['features']) or 'none'}")
        print("  limits: " + ", ".join(f"{name} {value}" for name, value in gpu["limits"].items()))
        bandwidth, rate = _measured(i)
        print(f"  measured: {bandwidth:.1f} GB/s of memory, {rate:.1f} GFLOP/s in a float32 product")


#: What a system must have for its GPUs to be found.
_NEEDED = {
    "linux": (
        "\nLinux needs a Vulkan driver and the loader libvulkan.so.1: NVIDIA's driver brings its own, Mesa has those of AMD and "
        "Intel (Debian: mesa-vulkan-drivers libvulkan1). In a container the device must be passed in (--gpus all, --device /dev/dri)."
    ),
    "win32": "\nWindows needs a graphics driver with DirectX 12 or Vulkan.",
    "darwin": "\nmacOS needs a processor or card with Metal.",
}


def _measured(i: int) -> tuple[float, float]:
    """Bytes moved per second by an addition (in 1e9), and operations per second of a matrix product (in 1e9)."""
    import time

    from mxrs import gpu, nd

    def seconds(work: Callable[[], Any]) -> float:
        work().wait_to_read()
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            work().wait_to_read()
            best = min(best, time.perf_counter() - started)
        return best

    n, side = 1 << 22, 512
    x, a = nd.ones((n,), ctx=gpu(i)), nd.ones((side, side), ctx=gpu(i))
    return 12 * n / seconds(lambda: x + x) / 1e9, 2 * side**3 / seconds(lambda: nd.dot(a, a)) / 1e9


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mxrs", description="Runs MXNet programs on mxrs.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a script that imports mxnet")
    run.add_argument("script")
    run.add_argument("args", nargs=argparse.REMAINDER)
    commands.add_parser("info", help="version, threads, operators")
    commands.add_parser("devices", help="GPUs: adapters, drivers, limits, memory, measured rates")
    asked = parser.parse_args(argv)
    if asked.command == "run":
        _run(asked.script, asked.args)
    elif asked.command == "devices":
        _devices()
    else:
        _info()


if __name__ == "__main__":
    main()
