"""mxrs in mxnet's place: `python -m mxrs run`, `install_as_mxnet`; and what `python -m mxrs info` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from child import run_child

PROGRAM = """\
import sys
import warnings

warnings.simplefilter("error")

import mxnet as mx
import mxnet.gluon.data.vision.transforms as named
import mxnet.ndarray
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

import helper

assert mxnet.ndarray is nd is mx.nd and named is transforms and gluon.nn is nn
assert helper.mx is mx
x = nd.array([[1.0, 2.0]])
x.attach_grad()
with autograd.record():
    y = (x * x).sum()
y.backward()
print(__name__, sys.argv[1:], x.grad.asnumpy().tolist(), mx.__name__)
sys.exit(int(sys.argv[1]))
"""


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxrs", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


def test_a_program_runs_with_its_arguments(tmp_path: Path) -> None:
    """Its folder is on the path, its arguments, name and exit status are its own."""
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM)
    (folder / "helper.py").write_text("import mxnet as mx\n")
    run = command("run", str(folder / "main.py"), "3", "--epochs", "10", "-h", cwd=tmp_path)
    assert run.stdout == "__main__ ['3', '--epochs', '10', '-h'] [[2.0, 4.0]] mxrs\n", run.stderr
    assert run.returncode == 3
    run = command("run", "main.py", "0", cwd=folder)
    assert (run.returncode, run.stdout) == (0, "__main__ ['0'] [[2.0, 4.0]] mxrs\n"), run.stderr


def test_an_error_of_the_program_is_shown_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import mxnet as mx\n\nmx.nd.no_such_operator()\n")
    run = command("run", str(tmp_path / "main.py"))
    assert run.returncode == 1
    assert 'main.py", line 3' in run.stderr and "no_such_operator" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "script"),
        (["run", "no/such/file.py"], "no/such/file.py"),
        (["walk"], "walk"),
        ([], "command"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], words: str) -> None:
    run = command(*arguments)
    assert run.returncode != 0
    assert words in run.stderr and "Traceback" not in run.stderr


def test_info() -> None:
    import mxrs

    run = command("info")
    assert run.returncode == 0, run.stderr
    assert f"mxrs {mxrs.__mxrs_version__} (speaks MXNet {mxrs.__version__})" in run.stdout
    public = sum(not op["hidden"] for op in mxrs._core.list_ops())
    assert f"operators: {public}\n" in run.stdout


def test_install_as_mxnet() -> None:
    """Twice is once; modules keep their own specs, by which they import what they need later."""
    code = """
import warnings
warnings.simplefilter("error")
import mxrs
mxrs.install_as_mxnet()
mxrs.install_as_mxnet()
import sys
assert sum(type(f).__module__ == "mxrs._alias" for f in sys.meta_path) == 1
import mxnet, mxnet.nd, mxnet.gluon.nn, mxnet.optimizer
assert mxnet is mxrs and mxnet.nd is mxrs.ndarray and mxnet.gluon.nn is mxrs.gluon.nn
import mxnet.init
assert mxnet.init is mxrs.initializer
assert mxrs.ndarray.__spec__.name == "mxrs.ndarray" and mxrs.optimizer.__spec__.name == "mxrs.optimizer"
import numpy as np
assert mxrs.nd.from_numpy(np.ones(2, "float32"), zero_copy=False).sum().asscalar() == 2
try:
    import mxnet.no_such_module
except ModuleNotFoundError as error:
    print(error)
import pickle
print(type(pickle.loads(pickle.dumps(mxnet.gluon.loss.L2Loss()))).__module__)
"""
    run = run_child(code)
    assert run.returncode == 0, run.stderr
    missing, module = run.stdout.splitlines()
    assert "mxnet.no_such_module" in missing
    assert module == "mxrs.gluon.loss"


def test_install_as_mxnet_comes_before_mxnet(tmp_path: Path) -> None:
    (tmp_path / "mxnet.py").write_text("")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import mxnet, mxrs
mxrs.install_as_mxnet()
"""
    run = run_child(code)
    assert run.returncode == 1
    assert "RuntimeError: mxnet was imported before" in run.stderr
