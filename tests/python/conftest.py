"""What all tests share: the oracle, the list of operators compared, and the skips said in one sentence."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from oracle import Oracle, interpreter

# Else Mesa's Vulkan looks for a display and says that there is none.
os.environ.setdefault("NODEVICE_SELECT", "1")

# Operators that some test covered, by the kind of test; gathered from all worker processes for the summary.
_COVERED: dict[str, set[str]] = {}


def _cover(kind: str, names: set[str] | list[str]) -> None:
    _COVERED.setdefault(kind, set()).update(names)


@pytest.fixture(scope="session")
def _oracle_process() -> Iterator[Oracle]:
    python, why = interpreter()
    if python is None:
        pytest.skip(why)
    oracle = Oracle(python)
    yield oracle
    _cover("oracle", oracle.compared)
    oracle.close()


@pytest.fixture
def oracle(_oracle_process: Oracle) -> Oracle:
    """MXNet 1.9.1 in another process: `oracle.run`, `oracle.op`, `oracle.check`. Restarts by itself after a
    crash.
    """
    return _oracle_process


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    """The context of a GPU, which is Mesa's software Vulkan where there is nothing better; skips where there is none at all."""
    import mxrs as mx

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXRS_ALLOW_SOFTWARE_GPU", "1")
        if mx.num_gpus() == 0:
            pytest.skip(f"no GPU: {mx._core.gpu_search()}")
        yield mx.gpu(0)


@pytest.fixture
def gpus(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The contexts of two GPUs, each a device of its own; one software adapter counts twice for that."""
    import mxrs as mx

    monkeypatch.setenv("MXRS_ALLOW_SOFTWARE_GPU", "2")
    if mx.num_gpus() < 2:
        pytest.skip(f"no two GPUs: {mx._core.gpu_search()}")
    return [gpu, mx.gpu(1)]


@pytest.fixture
def cover() -> Callable[[str, str], None]:
    """`cover(kind, operator)` notes that a test of this kind (oracle, derived, ...) covered it."""
    return lambda kind, operator: _cover(kind, [operator])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks the oracle carries its marker."""
    for item in items:
        if "oracle" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.oracle)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands what it covered to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["covered"] = {kind: sorted(names) for kind, names in _COVERED.items()}


class _Gatherer:
    """Receives from pytest-xdist's workers; a plugin of its own because the hook exists only with xdist."""

    def pytest_testnodedown(self, node: object, error: object) -> None:
        for kind, names in getattr(node, "workeroutput", {}).get("covered", {}).items():
            _cover(kind, names)


def pytest_configure(config: pytest.Config) -> None:
    """Joins xdist where it is installed."""
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_Gatherer())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names every operator that was covered, and says plainly when there was no oracle."""
    python, why = interpreter()
    if python is None:
        terminalreporter.write_line(f"Nothing was compared with MXNet 1.9.1. {why}")
    for kind in sorted(_COVERED):
        names = sorted(_COVERED[kind])
        if names:
            terminalreporter.section(f"{kind}: {len(names)} operators covered")
            terminalreporter.write_line(textwrap.fill(" ".join(names), 118, break_on_hyphens=False))
