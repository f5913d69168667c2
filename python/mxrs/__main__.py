"""``python -m mxrs run script.py [args]`` and ``python -m mxrs info``."""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import sys


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


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mxrs", description="Runs MXNet programs on mxrs.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a script that imports mxnet")
    run.add_argument("script")
    run.add_argument("args", nargs=argparse.REMAINDER)
    commands.add_parser("info", help="version, threads, operators")
    asked = parser.parse_args(argv)
    if asked.command == "run":
        _run(asked.script, asked.args)
    else:
        _info()


if __name__ == "__main__":
    main()
