"""The stub and the operator page, generated from the registry, say what the installed operators are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sources import ROOT

pytestmark = pytest.mark.host


@pytest.mark.parametrize("generator", ["gen_stubs.py", "gen_docs.py"])
def test_generated_file_is_fresh(generator: str) -> None:
    pytest.importorskip("mxrs._core", reason="mxrs is not built")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / generator), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
