"""plot_network and print_summary: what they show of a symbol, and the oracle's parameter counts."""

import re
import sys

import numpy as np
import pytest

import mxrs as mx

SHAPES = {"data": (2, 3, 8, 8)}


def network():
    """Two stages of convolution and normalization with a shortcut, pooling and a dense layer."""
    sym = mx.sym
    net = sym.Variable("data")
    for stage in ("stage1", "stage2"):
        conv = sym.Convolution(net, num_filter=4, kernel=(3, 3), pad=(1, 1), name=f"{stage}_conv")
        norm = sym.BatchNorm(conv, name=f"{stage}_bn")
        act = sym.Activation(norm, act_type="relu", name=f"{stage}_relu")
        net = act if stage == "stage1" else act + net
    net = sym.Pooling(net, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool")
    net = sym.FullyConnected(sym.Flatten(net, name="flat"), num_hidden=10, no_bias=True, name="fc")
    return sym.SoftmaxOutput(net, name="softmax")


def summary(capsys, *args, **kwargs):
    """Rows of the printed table by layer, and the total."""
    mx.viz.print_summary(*args, **kwargs)
    text = capsys.readouterr().out
    rows = {}
    for line in text.splitlines():
        found = re.match(r"(\S+)\((\w+)\)\s+(.*)", line)
        if found:
            rows[found[1]] = (found[2], *found[3].split())
    return rows, int(re.search(r"Total params: (\d+)", text)[1]), text


# --- print_summary ---


def test_the_table_has_shapes_parameters_and_inputs(capsys):
    rows, total, text = summary(capsys, network(), shape=SHAPES)
    assert rows["data"] == ("null", "3x8x8", "0")
    assert rows["stage1_conv"] == ("Convolution", "4x8x8", "112", "data")
    assert rows["stage1_bn"] == ("BatchNorm", "4x8x8", "8", "stage1_conv")
    assert rows["stage2_conv"] == ("Convolution", "4x8x8", "148", "stage1_relu")
    assert rows["pool"][:3] == ("Pooling", "4x4x4", "0") and rows["flat"] == ("Flatten", "64", "0", "pool")
    assert rows["fc"] == ("FullyConnected", "10", "640", "flat")
    assert total == 112 + 8 + 148 + 8 + 640
    assert "softmax_label" not in text and "_weight" not in text
    # The sum has two inputs, the second on a line of its own.
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if "(elemwise_add)" in line)
    assert "stage2_relu" in lines[at] and lines[at + 1].strip() == "stage1_relu"


def test_without_shapes_known_parameters_are_counted(capsys):
    rows, total, _ = summary(capsys, network())
    assert rows["stage1_conv"] == ("Convolution", "4", "data") and total == 8


def test_widths(capsys):
    _, _, text = summary(capsys, network(), line_length=60, positions=[20, 36, 46, 60])
    assert {len(line) for line in text.splitlines() if line[0] in "_="} == {60}
    assert all(len(line) <= 60 for line in text.splitlines())


@pytest.mark.parametrize(
    ("make", "shape", "total"),
    [
        (lambda d: mx.sym.Deconvolution(d, kernel=(2, 2), num_filter=5, no_bias=False), (1, 3, 4, 4), 65),
        (lambda d: mx.sym.LayerNorm(d), (2, 6), 12),
        (lambda d: mx.sym.LeakyReLU(d, act_type="prelu"), (2, 6), 6),
        (lambda d: mx.sym.Embedding(d, input_dim=7, output_dim=3), (2,), 21),
        (lambda d: mx.sym.FullyConnected(d, num_hidden=2), (2, 3, 4), 26),
        (lambda d: mx.sym.Convolution(d, mx.sym.Variable("w"), kernel=(1,), num_filter=2), (1, 3, 5), 8),
        (lambda d: mx.sym.exp(d) + 1, (2, 3), 0),
    ],
)
def test_parameters_of_layers(capsys, make, shape, total):
    assert summary(capsys, make(mx.sym.Variable("data")), shape={"data": shape})[1] == total


def test_several_outputs_and_groups(capsys):
    left, right = mx.sym.split(mx.sym.Variable("data"), num_outputs=2, axis=1, name="halves")
    net = mx.sym.Group([left, right * 2])
    rows, _, _ = summary(capsys, net, shape={"data": (2, 6)})
    assert rows["halves"] == ("SliceChannel", "3,", "3", "0", "data")


COUNTS = """
data = mx.sym.Variable('data')
net = mx.sym.Convolution(data, num_filter=6, kernel=(3, 3), num_group=3, name='c1')
net = mx.sym.BatchNorm(net, name='b1')
net = mx.sym.Convolution(net, num_filter=4, kernel=(1, 1), stride=(2, 2), no_bias=True, name='c2')
net = mx.sym.FullyConnected(mx.sym.Flatten(net), num_hidden=5, name='f1')
net = mx.sym.FullyConnected(net, num_hidden=2, no_bias=True, name='f2')
import io, contextlib
out_totals = []
for shape in ({'data': (2, 3, 9, 9)}, None):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        mx.viz.print_summary(net, shape=shape)
    out_totals.append([line for line in text.getvalue().splitlines() if 'Total' in line])
"""


def test_counts_as_mxnet(oracle):
    oracle.check(COUNTS)


# --- plot_network ---


@pytest.fixture
def dot_source():
    pytest.importorskip("graphviz", reason="drawing needs the optional package graphviz")

    def source(*args, **kwargs):
        return mx.viz.plot_network(*args, **kwargs).source

    return source


def edges(source):
    return {(a.strip('"'), b.strip('"')): rest for a, b, rest in re.findall(r"(\S+) -> (\S+)(.*)", source)}


def test_the_picture(dot_source):
    source = dot_source(network(), title="net", shape=SHAPES)
    found = edges(source)
    assert source.startswith("digraph net {")
    assert "3x8x8" in found["data", "stage1_conv"] and "4x4x4" in found["pool", "flat"]
    assert ("softmax_label", "softmax") in found and not any("weight" in end for e in found for end in e)
    colour = dict(re.findall(r"(\S+) \[label=[^\[]*?fillcolor=\"(#\w+)\"", source))
    assert colour["stage1_conv"] == colour["fc"] != colour["stage1_bn"] != colour["stage1_relu"]
    assert "3x3 / 1, 4" in source and "max, 2x2 / 2x2" in source and "relu" in source


def test_blocks_are_framed(dot_source):
    source = dot_source(network())
    assert re.findall(r"subgraph cluster_(\w+)", source) == ["stage1", "stage2"]
    stage2 = source.split("subgraph cluster_stage2")[1].split("}")[0]
    assert all(name in stage2 for name in ("stage2_conv", "stage2_bn", "stage2_relu"))
    assert "pool" not in stage2


def test_weights_and_attributes(dot_source):
    source = dot_source(network(), hide_weights=False, node_attrs={"shape": "hexagon", "fixedsize": "false"})
    assert ("stage1_conv_weight", "stage1_conv") in edges(source)
    assert ("stage2_bn_moving_var", "stage2_bn") in edges(source)
    assert "hexagon" in source and "oval" not in source and "fixedsize=false" in source


def test_dtypes_on_edges(dot_source):
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    source = dot_source(net, shape={"data": (2, 3)}, dtype={"data": np.float16})
    assert "3(float16)" in edges(source)["data", "fc"]


def test_outputs_of_one_node_have_their_own_shapes(dot_source):
    left, right = mx.sym.split(mx.sym.Variable("data"), num_outputs=2, axis=1, name="halves")
    net = mx.sym.Concat(left, mx.sym.exp(right, name="e"), dim=1, name="cat")
    source = dot_source(net, shape={"data": (2, 6)})
    assert "label=6" in edges(source)["data", "halves"] and "label=3" in edges(source)["halves", "e"]


def test_equal_names_stay_apart(dot_source):
    net = mx.sym.Variable("a") + mx.sym.Variable("a")
    assert len(edges(dot_source(net))) == 2
    assert mx.viz.plot_network(net, save_format="svg").format == "svg"


def test_without_graphviz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match="pip install graphviz"):
        mx.viz.plot_network(network())


@pytest.mark.parametrize("call", ["plot_network", "print_summary"])
def test_bad_arguments_are_named(call):
    if call == "plot_network":
        pytest.importorskip("graphviz", reason="drawing needs the optional package graphviz")
    draw = getattr(mx.viz, call)
    with pytest.raises(TypeError, match="must be a Symbol, got int"):
        draw(3)
    with pytest.raises(TypeError, match="shape must be a dict"):
        draw(network(), shape=[(1, 3, 8, 8)])
    with pytest.raises(ValueError, match="Input shape is incomplete"):
        draw(mx.sym.Variable("a") + mx.sym.Variable("b") * mx.sym.Variable("c"), shape={})
    with pytest.raises(mx.MXNetError, match="nope"):
        draw(network(), shape={"nope": (1, 2)})
