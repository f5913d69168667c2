"""Files of hybridized blocks: names as MXNet writes them, exchanged both ways, imported again."""

import inspect
import json
import os
import pathlib
import textwrap

import numpy as np
import pytest

import hybrid_cases
import mxrs as mx
from hybrid_cases import LAYERS, NETWORKS, assert_close, leaves, lenet, rand, resnet, step, twins
from mxrs import gluon, nd
from mxrs.base import MXNetError
from mxrs.gluon import nn
from oracle import assert_same
from oracle_server import execute

# The same classes, as a program that either library runs.
SOURCES = "nn = gluon.nn\n" + "\n".join(
    textwrap.dedent(inspect.getsource(getattr(hybrid_cases, name)))
    for name in (
        *("Residual", "resnet", "lenet", "Scales", "Shapes", "Nested", "Own", "Tied", "Picks", "Reuse"),
        *("lambdas", "concurrent", "leaves", "fill"),
    )
)


def written(path):
    """Operator, name and attributes of every node in a symbol file, and what it is connected to."""
    graph = json.loads(pathlib.Path(path).read_text())
    nodes = [(n["op"], n["name"], n.get("attrs", {}), n["inputs"]) for n in graph["nodes"]]
    for _, name, attrs, _ in nodes:
        if name.endswith("_table"):
            # MXNet writes where the constant lay in its memory.
            attrs.pop("__init__")
    return nodes, graph["heads"], graph["arg_nodes"], graph["node_row_ptr"], graph["attrs"]


EXPORT = (
    SOURCES
    + """
with mx.name.NameManager():
    net = MAKE()
    net.initialize()
    net.hybridize()
    net(*inputs)
    fill(net)
    out_y = net(*inputs)
    net.export(path, epoch=3)
"""
)


@pytest.mark.parametrize("name", NETWORKS)
def test_files_are_exchanged_with_mxnet(oracle, tmp_path, name):
    make, inputs = NETWORKS[name]
    arrays = [i.asnumpy() if isinstance(i, nd.NDArray) else [j.asnumpy() for j in leaves(i)] for i in inputs]
    if name == "nested":
        arrays = [arrays[0], [arrays[1][0], arrays[1][1:]]]
    code = EXPORT.replace("MAKE", make.__name__)
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    ours = execute(mx, code, {"inputs": arrays, "path": here})["out_y"]
    theirs = oracle.run(code, inputs=arrays, path=there)["out_y"]
    assert_same(ours, theirs, "outputs", 1e-4, 1e-5)
    for mine, other in zip(written(here + "-symbol.json"), written(there + "-symbol.json")):
        assert mine == other
    # A file without parameters reads as an empty list.
    mine, other = (dict(nd.load(where + "-0003.params") or {}) for where in (here, there))
    assert sorted(mine) == sorted(other)
    for key, value in mine.items():
        assert_same(value.asnumpy(), other[key].asnumpy(), key)
    count = len(leaves(inputs))
    names = ["data"] if count == 1 else [f"data{i}" for i in range(count)]
    load = """
block = gluon.SymbolBlock.imports(path + "-symbol.json", names, path + "-0003.params")
out_y = block(*flat)
"""
    given = [x.asnumpy() for x in leaves(inputs)]
    crossed = [
        execute(mx, load, {"path": there, "names": names, "flat": given})["out_y"],
        oracle.run(load, path=here, names=names, flat=given)["out_y"],
        execute(mx, load, {"path": here, "names": names, "flat": given})["out_y"],
    ]
    expected = [o for o in _leaves_of(theirs)]
    for found in crossed:
        assert_same(_leaves_of(found), expected, "outputs of the file", 1e-4, 1e-5)


def _leaves_of(results):
    if isinstance(results, np.ndarray):
        return [results]
    return [leaf for item in results for leaf in _leaves_of(item)]


def test_layers_are_named_as_in_mxnet(oracle):
    code = """
import json
nn = gluon.nn
out_graphs = []
for text, shape in layers:
    with mx.name.NameManager():
        net = eval(text)
        graph = json.loads(net(mx.sym.var("data")).tojson())
    out_graphs.append([text, [[n["op"], n["name"], sorted(n.get("attrs", {}).items()), n["inputs"]] for n in graph["nodes"]]])
"""
    # An empty container hands its input on; our shuffle of three axes takes other steps.
    layers = [[t, list(s)] for t, s in LAYERS if t != "nn.HybridSequential()" and "PixelShuffle3D" not in t]
    theirs = oracle.run(code, layers=layers)["out_graphs"]
    ours = execute(mx, code, {"layers": layers})["out_graphs"]
    different = [(a, b) for a, b in zip(ours, theirs) if a != b]
    assert not different, "\n\n".join(f"here  {a}\nMXNet {b}" for a, b in different)


def test_losses_are_named_as_in_mxnet(oracle):
    oracle.check("""
import json
out_graphs = []
for name in ("L2Loss", "L1Loss", "SigmoidBinaryCrossEntropyLoss", "SoftmaxCrossEntropyLoss", "KLDivLoss", "HuberLoss",
             "HingeLoss", "SquaredHingeLoss", "LogisticLoss", "PoissonNLLLoss"):
    with mx.name.NameManager():
        loss = getattr(gluon.loss, name)()
        graph = json.loads(loss(mx.sym.var("p"), mx.sym.var("y")).tojson())
    out_graphs.append([name, [[n["op"], n["name"], sorted(n.get("attrs", {}).items()), n["inputs"]] for n in graph["nodes"]]])
""")


def test_an_imported_block_trains_on(tmp_path):
    x = rand(4, 2, 7, 7)
    plain, hybrid = twins(resnet, x)
    names = hybrid.export(str(tmp_path / "net"))
    assert [os.path.basename(n) for n in names] == ["net-symbol.json", "net-0000.params"]
    block = gluon.SymbolBlock.imports(*names[:1], ["data"], names[1])
    for _ in range(3):
        for net in (plain, block):
            trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05})
            (outs, grads) = step(net, [x])
            trainer.step(4)
            if net is plain:
                expected = outs, grads
        assert_close(outs, expected[0], 2e-5, "output")
        assert_close(grads, expected[1], 2e-5, "gradient")
    mine = {k.split("_", 1)[1]: v.data().asnumpy() for k, v in block.collect_params().items()}
    for key, param in plain.collect_params().items():
        np.testing.assert_allclose(mine[key.split("_", 1)[1]], param.data().asnumpy(), rtol=1e-4, atol=1e-5)
    assert repr(block) == f"SymbolBlock(\n{block._symbol!r} : 1 -> 1\n)"
    # Exported again, it is the same file.
    block.export(str(tmp_path / "again"))
    assert written(tmp_path / "again-symbol.json") == written(tmp_path / "net-symbol.json")


def test_imported_blocks_are_parts_of_others(tmp_path):
    x = rand(2, 1, 8, 8)
    _, hybrid = twins(lenet, x)
    files = hybrid.export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(files[0], "data", files[1])
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, v: v * 2), block, nn.Dense(2))
    net[2].initialize()
    imperative = net(x).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(x).asnumpy(), imperative, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(block(x * 2).asnumpy(), hybrid(x * 2).asnumpy(), rtol=1e-5, atol=1e-6)


def test_features_of_an_inner_layer():
    _, net = twins(lenet, rand(2, 1, 8, 8))
    x = mx.sym.var("data")
    internals = net(x).get_internals()
    inner = [n for n in internals.list_outputs() if "dense0" in n and n.endswith("fwd_output")][0]
    block = gluon.SymbolBlock([internals[inner], net(x)], [x], params=net.collect_params())
    feature, whole = block(rand(2, 1, 8, 8))
    np.testing.assert_allclose(whole.asnumpy(), net(rand(2, 1, 8, 8)).asnumpy(), rtol=1e-5, atol=1e-6)
    assert feature.shape == (2, 6)
    assert block.collect_params()[net[4].weight.name] is net[4].weight


def test_double_precision_in_files(tmp_path):
    x = rand(2, 1, 8, 8, dtype="float64")
    _, net = twins(lenet, x, dtype="float64")
    files = net.export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(files[0], "data", files[1])
    out = block(x)
    assert out.dtype == np.float64
    np.testing.assert_allclose(out.asnumpy(), net(x).asnumpy(), rtol=1e-10)


def test_wrong_files_are_refused(tmp_path):
    x = rand(2, 1, 8, 8)
    _, net = twins(lenet, x)
    graph, params = net.export(str(tmp_path / "net"))
    with pytest.raises(ValueError, match="wrong"):
        gluon.SymbolBlock.imports(graph, ["wrong"], params)
    text = pathlib.Path(graph).read_text()
    pathlib.Path(graph).write_text(text[: len(text) // 2])
    with pytest.raises(MXNetError, match="net-symbol.json"):
        gluon.SymbolBlock.imports(graph, ["data"], params)
    pathlib.Path(graph).write_text(text)
    values = nd.load(params)
    missing = sorted(k for k in values if k.endswith("dense0_weight"))[0]
    nd.save(params, {k: v for k, v in values.items() if k != missing})
    with pytest.raises(AssertionError, match=missing.split(":")[1]):
        gluon.SymbolBlock.imports(graph, ["data"], params)
    block = gluon.SymbolBlock.imports(graph, ["data"], params, allow_missing=True)
    with pytest.raises(RuntimeError, match="has not been initialized"):
        block(x)
    nd.save(params, {**values, "arg:more": nd.ones((2,))})
    with pytest.raises(AssertionError, match="more"):
        gluon.SymbolBlock.imports(graph, ["data"], params)
    block = gluon.SymbolBlock.imports(graph, ["data"], params, ignore_extra=True)
    np.testing.assert_allclose(block(x).asnumpy(), net(x).asnumpy(), rtol=1e-5, atol=1e-6)


def test_a_failed_export_leaves_the_former_files(tmp_path, monkeypatch):
    x = rand(2, 1, 8, 8)
    _, net = twins(lenet, x)
    graph, params = net.export(str(tmp_path / "net"))
    before = pathlib.Path(graph).read_bytes(), pathlib.Path(params).read_bytes()
    with pytest.raises(MXNetError):
        net.export(str(tmp_path / "no" / "folder"))
    assert (pathlib.Path(graph).read_bytes(), pathlib.Path(params).read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net-0000.params", "net-symbol.json"]
