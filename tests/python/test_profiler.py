"""The profiler: its states, the program's own events, statistics and the trace file.

Most tests stand in for the core's hooks with a list of events, to know every number.
"""

import itertools
import json
import threading
import time

import pytest

import mxrs as mx
from mxrs import _core, nd, profiler


class Core:
    """The core's three hooks; `ran(...)` is an operator that ran."""

    def __init__(self):
        self.calls = []
        self.events = []

    def profiler_start(self):
        self.calls.append("start")

    def profiler_stop(self):
        self.calls.append("stop")

    def profiler_take(self):
        taken, self.events = self.events, []
        return taken

    def ran(self, name, begin, end, category="operator", size=0, thread=7):
        self.events.append((name, category, thread, float(begin), float(end), size))


@pytest.fixture
def core(monkeypatch, tmp_path):
    fake = Core()
    for name in ("profiler_start", "profiler_stop", "profiler_take"):
        monkeypatch.setattr(_core, name, getattr(fake, name), raising=False)
    monkeypatch.setattr(profiler, "_recorder", profiler._Recorder())
    profiler.set_config(filename=str(tmp_path / "profile.json"))
    return fake


def trace(tmp_path, name="profile.json"):
    with open(tmp_path / name) as file:
        return [event for event in json.load(file)["traceEvents"] if event["ph"] != "M"]


# --- operators ---


def test_statistics_of_operators(core):
    profiler.set_state("run")
    core.ran("dot", 0, 3000, size=2048)
    core.ran("dot", 4000, 5000, size=4096)
    core.ran("add", 5000, 5500)
    profiler.set_state("stop")
    found = json.loads(profiler.dumps(format="json"))
    assert found["Time"]["operator"]["dot"] == {"Count": 2, "Total": 4.0, "Min": 1.0, "Max": 3.0, "Avg": 2.0}
    assert found["Memory"]["operator"] == {"dot": {"Count": 2, "Total": 6, "Min": 2, "Max": 4, "Avg": 3}}
    assert found["Unit"] == {"Time": "ms", "Memory": "KB"}
    assert core.calls == ["start", "stop"]


@pytest.mark.parametrize(
    ("sort_by", "first"),
    [("total", "long"), ("avg", "long"), ("count", "often"), ("min", "long"), ("max", "long")],
)
def test_the_table_is_sorted(core, sort_by, first):
    profiler.start()
    for _ in range(3):
        core.ran("often", 0, 10)
    core.ran("long", 0, 5000)
    names = [
        line.split()[0]
        for line in profiler.dumps(sort_by=sort_by).splitlines()
        if line.startswith(("often", "long"))
    ]
    assert names[0] == first and len(names) == 2
    up = profiler.dumps(sort_by=sort_by, ascending=True)
    assert (up.index("often") < up.index("long")) == (first == "long")


def test_reset_starts_new_statistics(core):
    profiler.set_state("run")
    core.ran("dot", 0, 1)
    assert "dot" in profiler.dumps(reset=True)
    assert "dot" not in profiler.dumps()
    core.ran("add", 0, 1)
    assert "add" in profiler.dumps()


def test_the_trace_file(core, tmp_path):
    before = time.perf_counter() * 1e6
    profiler.set_state("run")
    core.ran("dot", 10, 25, size=64)
    profiler.set_state("stop")
    profiler.dump()
    (event,) = trace(tmp_path)
    assert (event["name"], event["cat"], event["ph"], event["tid"]) == ("dot", "operator", "X", 7)
    assert event["dur"] == pytest.approx(15, abs=0.01) and event["args"] == {"bytes": 64}
    assert before + 10 <= event["ts"] <= time.perf_counter() * 1e6
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    # A second dump still has everything, a new run only its own.
    profiler.dump()
    assert len(trace(tmp_path)) == 1
    profiler.set_state("run")
    core.ran("add", 0, 1)
    profiler.dump()
    assert [event["name"] for event in trace(tmp_path)] == ["add"]


def test_continuous_dump_writes_at_the_stop(core, tmp_path):
    profiler.set_config(aggregate_stats=True, filename=tmp_path / "other.json")
    for name in ("dot", "add"):
        profiler.set_state("run")
        core.ran(name, 0, 1)
        profiler.set_state("stop")
    assert [event["name"] for event in trace(tmp_path, "other.json")] == ["dot", "add"]
    profiler.set_config(continuous_dump=False, filename=tmp_path / "third.json")
    profiler.start()
    profiler.stop()
    assert not (tmp_path / "third.json").exists()


def test_switches(core):
    profiler.set_config(profile_memory=False)
    profiler.set_state("run")
    core.ran("alloc", 0, 1, category="memory")
    core.ran("dot", 0, 1)
    assert "alloc" not in profiler.dumps() and "dot" in profiler.dumps()
    profiler.set_config(profile_all=True)
    core.ran("alloc", 0, 1, category="memory")
    assert "alloc" in profiler.dumps()


def test_states(core):
    profiler.pause()
    assert core.calls == []
    profiler.set_state("run")
    profiler.set_state("run")
    profiler.pause()
    profiler.pause()
    profiler.resume()
    profiler.set_state("stop")
    profiler.set_state("stop")
    assert core.calls == ["start", "stop", "start", "stop"]
    profiler.start()
    profiler.pause()
    profiler.stop()
    assert core.calls[4:] == ["start", "stop"]


def test_a_full_trace_says_what_it_left_out(core, tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "_TRACE_LIMIT", 3)
    profiler.set_state("run")
    for _ in range(5):
        core.ran("dot", 0, 1)
    profiler.dump()
    assert len(trace(tmp_path)) == 3
    with open(tmp_path / "profile.json") as file:
        assert json.load(file)["otherData"] == {"events left out": 2}
    assert json.loads(profiler.dumps(format="json"))["Time"]["operator"]["dot"]["Count"] == 5


# --- the program's own events ---


def test_tasks_frames_and_events(core, tmp_path):
    domain = profiler.Domain("training")
    profiler.set_state("run")
    timed = [domain.new_task("batch"), domain.new_frame("epoch"), profiler.Event("load")]
    for one in timed:
        one.start()
        time.sleep(0.002)
        one.stop()
        one.stop()
    profiler.dump()
    events = {event["name"]: event for event in trace(tmp_path)}
    assert {name: event["cat"] for name, event in events.items()} == {
        "batch": "training",
        "epoch": "training",
        "load": "event",
    }
    assert all(event["dur"] >= 2000 and event["tid"] == threading.get_ident() for event in events.values())
    assert [str(one) for one in (domain, *timed)] == ["training", "batch", "epoch", "load"]


def test_counters_and_markers(core, tmp_path):
    domain = profiler.Domain("d")
    profiler.set_state("run")
    counter = domain.new_counter("seen", 5)
    counter.increment(3)
    counter -= 1
    counter += 4
    counter.decrement()
    assert isinstance(counter, profiler.Counter) and str(counter) == "seen"
    marker = domain.new_marker("here")
    marker.mark()
    marker.mark("thread")
    profiler.dump()
    events = trace(tmp_path)
    assert [event["args"]["seen"] for event in events if event["ph"] == "C"] == [5, 8, 7, 11, 10]
    assert [event["s"] for event in events if event["ph"] == "i"] == ["p", "t"]
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    assert json.loads(profiler.dumps(format="json"))["Counter"]["d"]["seen"]["Max"] == 11


def test_nothing_is_recorded_while_paused_or_stopped(core, tmp_path):
    def work(name):
        task = profiler.Domain("d").new_task(name)
        task.start()
        task.stop()
        profiler.Domain("d").new_marker(name).mark()

    work("before")
    profiler.set_state("run")
    profiler.pause()
    work("paused")
    profiler.resume()
    work("seen")
    profiler.set_state("stop")
    work("after")
    profiler.dump()
    assert {event["name"] for event in trace(tmp_path)} == {"seen"}


def test_scopes_nest(core, tmp_path):
    profiler.set_state("run")
    with profiler.scope("epoch"), profiler.scope("batch:") as name:
        assert name == "epoch:batch:"
    with profiler.scope("alone"):
        pass
    profiler.dump()
    assert [event["name"] for event in trace(tmp_path)] == ["epoch:batch:", "epoch:", "alone:"]


# --- refusals and old names ---


def test_bad_arguments_are_named(core):
    for call, error, words in (
        (lambda: profiler.set_config(foo=1), mx.MXNetError, "unknown option 'foo'; known are filename"),
        (lambda: profiler.set_state("zzz"), KeyError, "'run' or 'stop'"),
        (lambda: profiler.set_state("run", "nobody"), KeyError, "'worker' or 'server'"),
        (lambda: profiler.pause("server"), NotImplementedError, "servers"),
        (lambda: profiler.dumps(format="zz"), AssertionError, "format: zz"),
        (lambda: profiler.dumps(sort_by="zz"), AssertionError, "sort_by: zz"),
        (lambda: profiler.Domain("d").new_marker("m").mark("zz"), mx.MXNetError, "scope must be one of"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert core.calls == []


def test_old_names(core, tmp_path):
    with pytest.warns(DeprecationWarning, match="set_config"):
        profiler.profiler_set_config(mode="all", filename=str(tmp_path / "old.json"))
    with pytest.warns(DeprecationWarning, match="set_state"):
        profiler.profiler_set_state("run")
    core.ran("dot", 0, 1)
    with pytest.warns(DeprecationWarning, match="use dump"):
        profiler.dump_profile()
    assert len(trace(tmp_path, "old.json")) == 1
    with pytest.warns(DeprecationWarning), pytest.raises(mx.MXNetError, match="mode must be one of"):
        profiler.profiler_set_config(mode="zz")


def test_a_core_without_a_profiler_is_named(core, monkeypatch):
    monkeypatch.delattr(_core, "profiler_take")
    with pytest.raises(NotImplementedError, match="profiler_take"):
        profiler.set_state("run")
    assert profiler.dumps().startswith("Profile Statistics")


# --- the core itself ---


@pytest.mark.skipif(not hasattr(_core, "profiler_take"), reason="this build's core has no profiler")
def test_operators_of_the_core(monkeypatch, tmp_path):
    monkeypatch.setattr(profiler, "_recorder", profiler._Recorder())
    profiler.set_config(filename=str(tmp_path / "profile.json"))
    a = nd.ones((200, 200))
    begin = time.perf_counter() * 1e6
    profiler.set_state("run")
    for _ in range(3):
        (nd.dot(a, a) + 1).wait_to_read()
    profiler.pause()
    nd.sin(a).wait_to_read()
    profiler.resume()
    nd.cos(a).wait_to_read()
    profiler.set_state("stop")
    end = time.perf_counter() * 1e6
    nd.tan(a).wait_to_read()
    profiler.dump()
    events = trace(tmp_path)
    names = [event["name"] for event in events]
    assert names.count("dot") == 3 and "cos" in names and "sin" not in names and "tan" not in names
    assert all(begin <= event["ts"] <= event["ts"] + event["dur"] <= end for event in events)
    assert "dot" in profiler.dumps()


# --- GPUs ---


def test_a_gpu_has_a_row_of_its_own(gpu, tmp_path):
    """Dispatches with the device's times, inside the time in which the host asked and waited for them."""
    x = nd.ones((64, 64), ctx=gpu)
    nd.dot(x, x).wait_to_read()
    profiler.set_config(filename=str(tmp_path / "profile.json"))
    profiler.start()
    try:
        began = time.perf_counter() * 1e6
        for _ in range(3):
            y = nd.dot(x, x)
        y.asnumpy()
        ended = time.perf_counter() * 1e6
        found = json.loads(profiler.dumps(format="json"))["Time"]["gpu"]
    finally:
        profiler.stop()
    profiler.dump()
    (name,) = found
    assert name.startswith("dot: matmul") and found[name]["Count"] == 3 and found[name]["Min"] > 0
    with open(tmp_path / "profile.json") as file:
        events = json.load(file)["traceEvents"]
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [e for e in events if e.get("cat") == "gpu"]
    assert len(spans) == 3 and {rows[e["tid"]] for e in spans} == {"gpu(0)"}
    # The two clocks agree to within the time that reading them takes.
    slack = 2e3
    assert all(began - slack <= e["ts"] and e["ts"] + e["dur"] <= ended + slack for e in spans)
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1 for a, b in itertools.pairwise(spans))
    # Stopped, it times no more.
    nd.dot(x, x).wait_to_read()
    assert json.loads(profiler.dumps(reset=True, format="json"))["Time"]["gpu"][name]["Count"] == 3
