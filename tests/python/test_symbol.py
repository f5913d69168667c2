"""Symbols: names, attributes, inference and files, byte for byte those of MXNet 1.9.1; and what MXNet does not say
well.

length: one table of networks, which every check goes through.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxrs as mx
from mxrs import _core, sym
from mxrs.base import MXNetError, NotImplementedForSymbol
from oracle import Oracle
from oracle_server import execute

#: What is asked of every network; `net` and `shapes` are the program's.
ASKED = """
import warnings
warnings.simplefilter("ignore")
with mx.name.NameManager():
    x = sym.Variable("data")
    shapes = {"data": (2, 3, 8, 8)}
%s
out_json = net.tojson()
out_lists = [net.list_arguments(), net.list_outputs(), net.list_auxiliary_states(), net.list_inputs()]
out_attrs = sorted((k, sorted(v.items())) for k, v in net.attr_dict().items())
out_own = sorted(net.list_attr().items())
out_internals = net.get_internals().list_outputs()
out_name = net.name
children = net.get_children()
out_children = children.list_outputs() if children is not None else None
known = {k: v for k, v in shapes.items() if k in net.list_arguments()}
out_shapes = net.infer_shape(**known)
out_partial = net.infer_shape_partial(**known)
types = net.infer_type(**{k: "float32" for k in known})
out_types = [part and [np.dtype(t).name for t in part] for part in types]
out_again = sym.load_json(out_json).tojson() == out_json
out_debug = net.debug_str() if out_lists[2] == [] else ""
"""

NETWORKS = {
    "mlp": """
        h = sym.Activation(sym.FullyConnected(x, num_hidden=16, name="fc1"), act_type="relu")
        net = sym.SoftmaxOutput(sym.FullyConnected(h, num_hidden=4), name="softmax")
    """,
    "lenet": """
        c = sym.Convolution(data=x, kernel=(3, 3), num_filter=4)
        p = sym.Pooling(sym.Activation(c, "tanh"), pool_type="max", kernel=(2, 2), stride=(2, 2))
        f = sym.FullyConnected(sym.flatten(p), num_hidden=10, no_bias=True)
        net = sym.SoftmaxOutput(data=f, name="softmax", normalization="batch")
    """,
    "residual": """
        def unit(data, filters, name):
            b = sym.BatchNorm(data, fix_gamma=False, eps=2e-5, momentum=0.9, name=name + "_bn")
            a = sym.Activation(b, act_type="relu", name=name + "_relu")
            return sym.Convolution(a, num_filter=filters, kernel=(3, 3), pad=(1, 1), no_bias=True, name=name + "_conv")
        body = unit(x, 4, "a")
        body = unit(body, 4, "b") + body
        net = sym.mean(sym.Pooling(body, global_pool=True, kernel=(7, 7), pool_type="avg"), axis=(2, 3))
    """,
    "arithmetic": """
        a, b = sym.Variable("a", shape=(2, 3)), sym.Variable("b")
        shapes = {"a": (2, 3)}
        net = ((a + b) * 2 - b / 3.5 + 1e-7) ** 2 % (a ** b) - (1 - a) * (2 / b) + (2 ** a) - (-b)
        net = (net > 1) + (net >= b) * (net == a) - (net != 3) + (net < b) + (net <= 0.5) + abs(net)
    """,
    "choices": """
        a = sym.Variable("a", shape=(2, 3))
        b = sym.Variable("b", shape=(2, 3))
        shapes = {}
        net = sym.maximum(a, b) + sym.minimum(2, a) + sym.pow(a, 2.0) + sym.pow(2, b) + sym.hypot(a, b)
    """,
    "branches": """
        parts = sym.SliceChannel(x, num_outputs=3, axis=1, name="cut")
        joined = sym.concat(*[parts[i] * (i + 1) for i in range(3)], dim=1)
        net = sym.Group([joined, parts, sym.BlockGrad(sym.sum(joined)), x])
    """,
    "scopes": """
        with mx.AttrScope(ctx_group="dev1", __lr_mult__="3"):
            f = sym.FullyConnected(sym.flatten(x), num_hidden=4, lr_mult=2, attr={"__mood__": "high"})
            w = sym.Variable("w", lr_mult=0.5, wd_mult=0, init=mx.init.Xavier(), dtype="float32", attr={"own": "1"})
        with mx.AttrScope(force_mirroring="1", mirror_stage="2"):
            with mx.name.Prefix("deep_"):
                net = sym.FullyConnected(f, weight=w, num_hidden=2, name="last", attr={"wd_mult": "3"})
    """,
    "initializers": """
        p = sym.LeakyReLU(x, act_type="prelu")
        given = sym.Variable("given")
        b = sym.BatchNorm(p, moving_var=given, gamma=sym.Variable("g", init="ones"))
        net = sym.UpSampling(b, scale=2, sample_type="bilinear", num_filter=3)
    """,
    "norms": """
        n = sym.LayerNorm(sym.InstanceNorm(sym.LRN(x, nsize=3)))
        n = sym.L2Normalization(sym.GroupNorm(n, num_groups=1), mode="channel")
        net = sym.Dropout(sym.Deconvolution(n, kernel=(2, 2), num_filter=2, stride=(2, 2)), p=0.25)
    """,
    "many": """
        vs = [sym.Variable("v%d" % i, shape=(2,)) for i in range(13)]
        shapes = {}
        net = sym.Group([sym.add_n(*vs), sym.add_n(*vs[:10]), *vs])
    """,
    "creation": """
        shapes = {}
        net = sym.Group([
            sym.zeros((2, 3)), sym.ones(4, name="unit"), sym.full((2,), 3.5, dtype="int32"),
            sym.arange(2, 8, 2, name="q"), sym.arange(5), sym.linspace(0, 1, 5), sym.eye(3, 4, 1),
        ])
    """,
    "random": """
        shapes = {}
        net = sym.Group([
            sym.random.uniform(0, 1, shape=(2,)), sym.random.normal(1, 2, shape=(3,), dtype="float64"),
            sym.random.exponential(2, shape=(1,)), sym.random.gamma(2, 3, shape=(1,)), sym.random.randn(2, 3),
            sym.random.poisson(4, shape=(2,)), sym.random.randint(0, 5, shape=(2,), name="whole"),
        ])
    """,
    "methods": """
        y = x.reshape((0, -1)).expand_dims(1).squeeze().astype("float32").transpose((1, 0))
        y = y.slice_axis(axis=0, begin=0, end=4).flip(axis=1).sum(axis=1, keepdims=True).clip(-1, 1)
        y = y.broadcast_to((4, 2)).softmax(axis=1).exp().log().diag()
        net = sym.Group([y, x.flatten().argmax(axis=1), x.split(num_outputs=3, axis=1)[1], x.split_v2(3, axis=1)[0]])
    """,
    "submodules": """
        m = sym.flatten(x)
        g = sym.linalg.gemm2(m, m, transpose_b=True)
        net = sym.Group([
            g, sym.linalg_gemm2(m, m, transpose_b=True), sym.contrib.arange_like(g, axis=0),
            sym.op.relu(g), sym._internal._plus_scalar(g, scalar=1), sym.sparse.dot(g, g),
        ])
    """,
    "shared statistics": """
        v = sym.Variable("v")
        b1 = sym.BatchNorm(x, moving_var=v, name="b1")
        net = sym.BatchNorm(b1, moving_var=v, name="b2")
    """,
    "embedding": """
        shapes = {"data": (2, 5)}
        e = sym.Embedding(x, input_dim=20, output_dim=6, name="embed")
        s = sym.SliceChannel(e, num_outputs=5, axis=1, squeeze_axis=True)
        h = sym.zeros((2, 6))
        for i in range(5):
            h = sym.tanh(sym.FullyConnected(s[i], num_hidden=6, name="i2h") + h)
        net = sym.LinearRegressionOutput(sym.sum(h, axis=1), name="lro")
    """,
    "numpy arguments": """
        net = sym.Pooling(x, kernel=(np.int64(2), 2), stride=(2, 2), pool_type="avg")
        net = sym.clip(sym.sum(net, axis=np.int64(1)), a_min=np.float32(0.1), a_max=1) * np.float32(2.5)
    """,
}


def _program(network: str) -> str:
    return ASKED % textwrap.indent(textwrap.dedent(NETWORKS[network]), "    ")


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_those_of_mxnet(oracle: Oracle, network: str) -> None:
    ours = execute(mx, _program(network), {})
    theirs = oracle.run(_program(network))
    assert ours["out_json"] == theirs["out_json"]
    for name in sorted(theirs):
        assert ours[name] == theirs[name], name


#: Makes one node of an operator and says everything about it; `cases` are (attributes, number of inputs).
NODE = """
def find(name):
    for prefix, module in (("_contrib_", sym.contrib), ("_linalg_", sym.linalg), ("_image_", sym.image)):
        if name.startswith(prefix):
            return getattr(module, name[len(prefix):])
    return getattr(sym._internal if name[0] == "_" else sym, name)

def one(attrs, count):
    made = find(name)(*[sym.Variable("v%d" % i) for i in range(count)], name="n", **attrs)
    return [made.tojson(), made.list_outputs(), made.list_arguments(), made.list_auxiliary_states(),
            sorted((k, sorted(v.items())) for k, v in made.attr_dict().items()), made.get_internals().list_outputs()]

out_nodes = []
for attrs, count in cases:
    try:
        out_nodes.append(one(attrs, count))
    except Exception as error:
        out_nodes.append(None)
"""

RECORDS = {
    r["name"]: r for r in _core.list_ops() if not r["hidden"] and not r["name"].startswith("_backward")
}


def _cases(record: dict[str, Any]) -> list[list[Any]]:
    """The attributes of an operator's samples, and of the first one with every flag and choice turned."""
    counter = record["variadic"]
    found: list[list[Any]] = []

    def add(attrs: dict[str, Any], count: int) -> None:
        if [attrs, count] not in found:
            found.append([attrs, count])

    for sample in record["samples"]:
        attrs = {k: v for k, v in sample["attrs"].items() if k != counter}
        count = len(sample["inputs"]) if counter else 0
        add(attrs, count)
    if found:
        attrs, count = found[0]
        for param in record["params"]:
            if param["name"] == counter:
                continue
            for value in [True, False] if param["type"].startswith("bool") else param.get("choices", []):
                add({**attrs, param["name"]: value}, count)
    return found


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_nodes_of_every_operator(oracle: Oracle, cover: Any, name: str) -> None:
    """Names of inputs and outputs, auxiliary states, attributes and file of one node."""
    cases = _cases(RECORDS[name])
    theirs = oracle.run(NODE, name=name, cases=cases)["out_nodes"]
    ours = execute(mx, NODE, {"name": name, "cases": cases})["out_nodes"]
    compared = 0
    for case, mine, other in zip(cases, ours, theirs):
        # What MXNet refuses (operators that never make variables, hidden parameters) has no answer to compare.
        if other is not None:
            assert mine is not None, case
            for a, b in zip(mine, other):
                assert a == b, case
            compared += 1
    if compared:
        cover("symbol nodes", name)


def _file(nodes: list[dict[str, Any]], version: int | None = None, **more: Any) -> str:
    attrs = {} if version is None else {"attrs": {"mxnet_version": ["int", version]}}
    variables = [i for i, n in enumerate(nodes) if n.get("op") == "null"]
    return json.dumps(
        {"nodes": nodes, "arg_nodes": variables, "heads": [[len(nodes) - 1, 0]], **attrs, **more}
    )


def _v(name: str, **attrs: Any) -> dict[str, Any]:
    return {"op": "null", "name": name, "inputs": [], **attrs}


THREE = [[0, 0], [1, 0], [2, 0]]
DENSE = [_v("data"), _v("w"), _v("b")]
OLD_FILES = {
    "param and attr": _file(
        [
            *DENSE,
            {
                "op": "FullyConnected",
                "name": "f",
                "param": {"num_hidden": "3"},
                "attr": {"ctx_group": "d", "lr_mult": "2"},
                "inputs": THREE,
                "backward_source_id": -1,
            },
        ]
    ),
    "attributes of inputs": _file(
        [
            *DENSE,
            {
                "op": "FullyConnected",
                "name": "f",
                "attr": {"num_hidden": "3", "weight_lr_mult": "2", "bias_wd_mult": "0", "lr_mult": "5"},
                "inputs": THREE,
            },
        ]
    ),
    "attributes of inputs, 0.9": _file(
        [
            *DENSE,
            {
                "op": "FullyConnected",
                "name": "f",
                "attrs": {"num_hidden": "3", "weight_lr_mult": "2"},
                "inputs": THREE,
            },
        ],
        900,
    ),
    "no statistics": _file(
        [
            *DENSE,
            {"op": "BatchNorm", "name": "bn", "param": {"eps": "0.1"}, "inputs": THREE},
        ]
    ),
    "no label": _file([_v("data"), {"op": "SoftmaxOutput", "name": "sm", "param": {}, "inputs": [[0, 0]]}]),
    "first name of SoftmaxOutput": _file(
        [_v("data"), {"op": "Softmax", "name": "sm", "param": {"grad_scale": "1"}, "inputs": [[0, 0]]}]
    ),
    "variable": _file([_v("data", attr={"lr_mult": "2", "foo": "1", "__bar__": "2"})]),
    "variable, 1.9.0": _file([_v("data", attrs={"lr_mult": "2"})], 10900),
    "variable, 1.9.1": _file([_v("data", attrs={"lr_mult": "2", "weight_lr_mult": "1"})], 10901),
    "argmax, 0.9.4": _file(
        [_v("data"), {"op": "argmax", "name": "a", "attrs": {"axis": "-1"}, "inputs": [[0, 0]]}], 904
    ),
    "argmax, 0.9.5": _file(
        [_v("data"), {"op": "argmax", "name": "a", "attrs": {"axis": "-1"}, "inputs": [[0, 0]]}], 905
    ),
    "old names": _file(
        [
            _v("data"),
            {"op": "_PlusScalar", "name": "p", "param": {"scalar": "3"}, "inputs": [[0, 0]]},
            {"op": "_Plus", "name": "f", "param": {}, "inputs": [[0, 0], [1, 0]]},
        ]
    ),
    "mirroring": _file(
        [
            _v("data"),
            {
                "op": "_MulScalar",
                "name": "p",
                "attrs": {"scalar": "3", "force_mirroring": "1", "mirror_stage": "3"},
                "inputs": [[0, 0]],
            },
        ],
        800,
    ),
}


@pytest.mark.parametrize("kind", OLD_FILES)
def test_older_files_are_upgraded_as_mxnet_does(oracle: Oracle, kind: str) -> None:
    program = (
        "s = sym.load_json(text)\nout_nodes = s.tojson()\nout_lists = [s.list_arguments(), s.list_outputs()]"
    )
    theirs = oracle.run(program, text=OLD_FILES[kind])
    ours = execute(mx, program, {"text": OLD_FILES[kind]})
    nodes, others = (json.loads(r["out_nodes"])["nodes"] for r in (ours, theirs))
    for node in [*nodes, *others]:
        # Versions of entries, which nothing depends on, MXNet leaves at 0 in states that it adds while loading.
        node["inputs"] = [entry[:2] for entry in node["inputs"]]
    assert nodes == others
    assert ours["out_lists"] == theirs["out_lists"]


RELU = {"op": "relu", "name": "r", "inputs": [[0, 0]]}
DAMAGED = {
    "empty": ("", "line 1"),
    "cut off": (_file([_v("a"), RELU])[:60], "line 1 column"),
    "no object": ("[1]", "object"),
    "no nodes": ('{"heads": []}', "nodes"),
    "no heads": ('{"nodes": []}', "heads"),
    "nothing in it": ('{"nodes": [], "heads": [], "arg_nodes": []}', "no outputs"),
    "nameless": (_file([{"op": "null", "inputs": []}]), "node 0"),
    "a node ahead": (_file([_v("a"), {**RELU, "inputs": [[3, 0]]}]), r"node 1 \(r\), input 0.*node 3"),
    "a loop": (_file([_v("a"), {**RELU, "inputs": [[1, 0]]}]), r"node 1 \(r\), input 0"),
    "a negative node": (_file([_v("a"), {**RELU, "inputs": [[-1, 0]]}]), "input 0"),
    "an output too many": (_file([_v("a"), {**RELU, "inputs": [[0, 4]]}]), "output 4 of a"),
    "a head too many": (_file([_v("a"), RELU], heads=[[7, 0]]), "head 0.*node 7"),
    "an input too many": (_file([_v("a"), {**RELU, "inputs": [[0, 0], [0, 0]]}]), "relu: 2 inputs"),
    "a number as attribute": (_file([_v("a", attrs={"x": 1})]), "attribute x is not a text"),
    "a bad value": (
        _file(
            [
                _v("a"),
                {"op": "FullyConnected", "name": "f", "attrs": {"num_hidden": "zz"}, "inputs": [[0, 0]]},
            ]
        ),
        r"node 1 \(f\).*num_hidden.*zz",
    ),
    "a missing value": (
        _file([_v("a"), {"op": "FullyConnected", "name": "f", "attrs": {}, "inputs": [[0, 0]]}]),
        "num_hidden.*required",
    ),
    "an unknown attribute": (
        _file(
            [_v("a"), {"op": "FullyConnected", "name": "f", "attrs": {"num_hiden": "1"}, "inputs": [[0, 0]]}]
        ),
        "num_hiden.*did you mean num_hidden",
    ),
    "an unknown operator": (
        _file([_v("a"), {**RELU, "op": "Convolutoin"}]),
        "no operator is named Convolutoin; close: .*Convolution",
    ),
    "an absurd count": (
        _file(
            [_v("a"), {"op": "Concat", "name": "c", "attrs": {"num_args": "999999999"}, "inputs": [[0, 0]]}]
        ),
        "num_args = 999999999",
    ),
    "deep nesting": ("[" * 100000, "line 1"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_with_the_place(tmp_path: Path, kind: str) -> None:
    text, said = DAMAGED[kind]
    with pytest.raises(MXNetError, match=f"(?s){said}"):
        sym.load_json(text)
    path = tmp_path / "net-symbol.json"
    path.write_text(text)
    with pytest.raises(MXNetError, match=f"(?s)net-symbol.json.*{said}"):
        sym.load(str(path))


def test_files_go_both_ways(oracle: Oracle, tmp_path: Path) -> None:
    with mx.name.NameManager():
        data = sym.Variable("data")
        net = sym.SoftmaxOutput(sym.FullyConnected(sym.BatchNorm(data), num_hidden=3), name="softmax")
    path = tmp_path / "a-symbol.json"
    net.save(str(path))
    program = """
        s = mx.sym.load(path)
        s.save(path + ".theirs")
        out_names = [s.list_arguments(), s.list_outputs(), s.list_auxiliary_states()]
    """
    names = oracle.run(textwrap.dedent(program), path=str(path))["out_names"]
    assert names == [net.list_arguments(), net.list_outputs(), net.list_auxiliary_states()]
    theirs = Path(f"{path}.theirs").read_text()
    assert theirs == path.read_text()
    assert sym.load(f"{path}.theirs").tojson() == theirs


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    sym.var("first").save(path)
    before = path.read_text()
    missing = tmp_path / "no" / "such" / "folder.json"
    with pytest.raises(MXNetError, match="folder.json"):
        sym.var("x").save(str(missing))
    sym.var("second").save(path)
    assert path.read_text() == before.replace("first", "second")
    assert os.listdir(tmp_path) == ["net.json"]
    with pytest.raises(TypeError, match="fname"):
        sym.var("x").save(3)  # type: ignore[arg-type]
    with pytest.raises(MXNetError, match="nowhere.json"):
        sym.load(str(tmp_path / "nowhere.json"))


def test_casts_of_mixed_precision_are_left_out_of_files() -> None:
    x = sym.var("x")
    net = sym.amp_cast(x, dtype="float16") * 2
    assert '"op": "amp_cast"' not in net.tojson()
    assert '"op": "amp_cast"' in net.tojson(remove_amp_cast=False)
    assert sym.load_json(net.tojson()).list_arguments() == ["x"]


# ---- parts and composition ------------------------------------------------------------------------------------


def _dense(name: str = "f") -> Any:
    return sym.FullyConnected(sym.var("x"), num_hidden=1, name=name)


def test_indexing_by_number_name_and_slice() -> None:
    group = sym.Group([sym.var("a") * 2, _dense(), sym.Group([sym.var("b"), sym.var("c")])])
    assert [s.name for s in group][1:] == ["f", "b", "c"] and len(group) == 4
    assert group["f_output"].name == "f" and group[np.int64(2)].name == "b"
    assert group[1:3].list_outputs() == ["f_output", "b"]
    assert group.get_internals()["f_weight"].list_arguments() == ["f_weight"]
    assert repr(group[1]) == "<Symbol f>" and repr(group[2:]) == "<Symbol group [b, c]>"
    with pytest.raises(ValueError, match='no output is named "f_outptu"; close: f_output'):
        group["f_outptu"]
    with pytest.raises(ValueError, match="several outputs"):
        sym.Group([sym.var("a"), sym.var("a")])["a"]
    for index in (4, -1):
        with pytest.raises(IndexError, match="output"):
            group[index]
    with pytest.raises(TypeError):
        group[1.5]


def test_composition() -> None:
    net = _dense()
    y = sym.var("y") * 2
    assert net(x=y, name="g").list_arguments() == ["y", "f_weight", "f_bias"]
    assert net(x=y, name="g").name == "g" and net.name == "f"
    assert net(y).list_arguments() == ["y", "f_weight", "f_bias"]
    with pytest.raises(MXNetError, match="zz"):
        net(zz=y)
    with pytest.raises(TypeError, match="Symbol"):
        net(x=1)
    with pytest.raises(MXNetError, match="2 outputs"):
        sym.relu(sym.SliceChannel(sym.var("x"), num_outputs=2))


def test_copies_are_independent() -> None:
    net = _dense()
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.tojson() == net.tojson() and other is not net
        other._set_attr(ctx_group="far")
        assert net.attr("ctx_group") is None and other.attr("__ctx_group__") == "far"


def test_the_name_is_an_attribute() -> None:
    assert _dense().attr("name") == _dense().name and sym.var("x").attr("name") == "x"
    assert _dense().attr("nothing") is None and "name" not in _dense().list_attr()


def test_setting_attributes() -> None:
    net = _dense()
    net._set_attr(num_hidden="5", lr_mult="2")
    assert net.infer_shape(x=(2, 3))[1] == [(2, 5)]
    assert net.list_attr() == {"__lr_mult__": "2", "lr_mult": "2", "num_hidden": "5"}
    with pytest.raises(MXNetError, match="nun_hidden.*num_hidden"):
        net._set_attr(nun_hidden="5")
    with pytest.raises(ValueError, match="string"):
        net._set_attr(lr_mult=3)
    with pytest.raises(MXNetError, match="changes the number"):
        net._set_attr(no_bias="True")
    with pytest.raises(MXNetError, match="group"):
        sym.Group([net, sym.var("a")])._set_attr(a="1")


# ---- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: sym.FullyConnected(x, num_hiden=2), "num_hiden.*did you mean num_hidden"),
        (lambda x: sym.FullyConnected(x), "num_hidden.*required"),
        (lambda x: sym.FullyConnected(x, num_hidden="a"), "num_hidden"),
        (lambda x: sym.FullyConnected(1, num_hidden=2), "data must be a Symbol; a int"),
        (lambda x: sym.FullyConnected(mx.nd.ones((1, 2)), num_hidden=2), "data must be a Symbol; a NDArray"),
        (lambda x: sym.FullyConnected(x, x, x, num_hidden=1, no_bias=True), "3 inputs"),
        (lambda x: sym.FullyConnected(x, num_hidden=1, weight_lr_mult=2), "weight_lr_mult"),
        (lambda x: sym.Activation(x, act_type="foo"), "relu, sigmoid"),
        (lambda x: sym.relu(x, data=x), "twice"),
        (lambda x: x + mx.nd.ones(1), "not supported"),
        (lambda x: x + None, "not supported"),
        (lambda x: "a" + x, "not supported"),
        (lambda x: sym.maximum("a", x), "not supported"),
        (lambda x: sym.Group([]), "list of symbols"),
        (lambda x: sym.Group([1]), "list of symbols"),
        (lambda x: sym.var(3), "name"),
        (lambda x: sym.var("v", foo="1"), "foo"),
        (lambda x: sym.var("v", stype="zz"), "stype"),
        (lambda x: sym.var("v", attr={"a": 1}), "string"),
        (lambda x: sym.relu(x, attr={"__a__": 1}), "string"),
        (lambda x: sym.load_json(3), "string"),
        (lambda x: sym.nonexistent, "nonexistent"),
        (lambda x: sym.Convolutoin, "Convolution"),
        (lambda x: sym.linalg.gem2, "gem2"),
        (lambda x: sym.contrib.foreach(None, x, x), "foreach"),
        (lambda x: sym.histogram(x), "range"),
        (lambda x: sym.split_v2(x, "a"), "indices_or_sections"),
        (lambda x: x.infer_shape(y=(1,)), "y"),
        (lambda x: x.infer_shape(x=3), "shapes"),
        (lambda x: x.infer_shape((1,), x=(1,)), "position or by keyword"),
        (lambda x: x.infer_shape((1,), (2,)), "2 shapes"),
        (lambda x: x.infer_type(zz="float32"), "zz"),
        (lambda x: x.gradient(["x"]), "gradient"),
        (lambda x: bool(x), "__bool__"),
        (lambda x: x.asnumpy(), "asnumpy"),
        (lambda x: x.wait_to_read(), "wait_to_read"),
        (lambda x: x.as_in_context(mx.cpu()), "as_in_context"),
        (lambda x: x.list_attr(recursive=True), "attr_dict"),
    ],
)
def test_refusals_say_what_is_wrong(call: Any, said: str) -> None:
    with pytest.raises(Exception, match=f"(?s){said}"):
        call(sym.var("x"))


def test_in_place_arithmetic_is_for_arrays() -> None:
    x = sym.var("x")
    for statement in ("x += 1", "x -= 1", "x *= 2", "x /= 2"):
        with pytest.raises(NotImplementedForSymbol):
            exec(statement, {"x": x})
    assert isinstance(hash(x), int)


# ---- inference ------------------------------------------------------------------------------------------------


def test_what_stays_open_is_named() -> None:
    net = _dense()
    with pytest.warns(UserWarning, match="f_weight"):
        assert net.infer_shape() == (None, None, None)
    with pytest.warns(UserWarning, match="f_weight"):
        assert net.infer_type() == (None, None, None)
    assert net.infer_shape_partial() == ([(), (), ()], [()], [])
    assert net.infer_type_partial() == ([None, None, None], [None], [])
    assert net.infer_shape((2, 5)) == ([(2, 5), (1, 5), (1,)], [(2, 1)], [])
    assert net.infer_type("float16")[0] == [np.float16] * 3


def test_deep_graphs_need_no_stack() -> None:
    program = """
        import threading, mxrs as mx
        def work():
            net = x = mx.sym.var("x")
            for _ in range(10000):
                net = net + 1
            text = net.tojson()
            again = mx.sym.load_json(text)
            assert again.tojson() == text and len(again.get_internals()) == 10001
            assert again.infer_shape(x=(2, 3))[1] == [(2, 3)]
            assert again(x=mx.sym.var("y") * 2).list_arguments() == ["y"]
            again.attr_dict(), again.debug_str(), again.__copy__()
            print("done")
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout == "done\n", result.stderr


def test_every_public_name_can_be_had() -> None:
    for module in (sym, sym.op, sym._internal, sym.linalg, sym.image, sym.random, sym.contrib):
        for name in dir(module):
            assert getattr(module, name) is not None
    assert set(sym.__all__) <= set(dir(sym))
    assert sym.Convolution.__doc__ and "Symbol" in sym.Convolution.__doc__


def test_methods_are_there() -> None:
    own = {
        "abs",
        "reshape",
        "sum",
        "split",
        "split_v2",
        "astype",
        "transpose",
        "pick",
        "one_hot",
        "zeros_like",
        "topk",
    }
    assert own <= set(dir(sym.Symbol))
    x = sym.var("x")
    with mx.name.NameManager():
        assert [x.sum().name, x.sum(name="s").name, x.reshape(-1, 2).name, x.astype("int32").name] == [
            "sum0",
            "s",
            "reshape0",
            "cast0",
        ]


def test_inputs_that_attributes_choose(oracle: Oracle) -> None:
    program = """
        d, l, n = sym.var("d"), sym.var("l"), sym.var("n")
        net = sym.CTCLoss(d, l, label_lengths=n, use_label_lengths=True, name="ctc")
        out_names = [net.list_arguments(), sym.CTCLoss(d, l, use_label_lengths=True, name="c").list_arguments()]
        out_loss = nd.CTCLoss(data, label, label_lengths=lengths, use_label_lengths=True)
    """
    data = np.linspace(-1, 1, 24, dtype="float32").reshape(4, 2, 3)
    label, lengths = np.array([[1, 2], [1, 0]], "float32"), np.array([2, 1], "float32")
    oracle.check(textwrap.dedent(program), data=data, label=label, lengths=lengths)
    with pytest.raises(MXNetError, match="no input data_lengths; there are data, label, label_lengths"):
        sym.CTCLoss(sym.var("d"), sym.var("l"), data_lengths=sym.var("n"), use_label_lengths=True)
