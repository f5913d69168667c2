//! Every operator with a sample, as a graph of one node, against the same call on arrays: outputs, states, gradients.
//! Then graphs in which fusion, views, shared memory and sums of gradients matter.

use super::CachedOp;
use crate::array::{Array, Mode, invoke, seed};
use crate::device::Context;
use crate::graph::{Call, Entry, Node, NodeRef, Symbol};
use crate::ops::{Attrs, Gradient, OpRef, Sample, Spec, registry};
use crate::tape::{self, Options};
use mxrs_base::{AttrValue, DType, Elem, Shape, dispatch};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The seed is the process's.
static RANDOM: Mutex<()> = Mutex::new(());

fn drawn(sample: &Sample, which: u64) -> Vec<Array> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(which + 1);
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut arrays = Vec::new();
    for input in &sample.inputs {
        let size: usize = input.shape.iter().product();
        let values: Vec<f64> = (0..size)
            .map(|_| {
                let v = input.low + (input.high - input.low) * next();
                if input.integer { v.floor() } else { v }
            })
            .collect();
        dispatch!(input.dtype, T => {
            let values: Vec<T> = values.iter().map(|v| T::from_f64(*v)).collect();
            arrays.push(Array::from_slice(&values, Shape::new(&input.shape), Context::CPU).unwrap());
        });
    }
    arrays
}

fn copies(arrays: &[Array]) -> Vec<Array> {
    arrays.iter().map(copy).collect()
}

fn copy(a: &Array) -> Array {
    dispatch!(a.dtype(), T => Array::from_slice(&a.to_vec::<T>().unwrap(), a.shape().clone(), a.context()).unwrap())
}

fn values(a: &Array) -> Vec<f64> {
    dispatch!(a.dtype(), T => a.to_vec::<T>().unwrap().iter().map(|v| v.to_f64()).collect())
}

fn assert_close(what: &str, a: &Array, b: &Array) {
    assert_eq!(a.spec(), b.spec(), "{what}");
    for (i, (x, y)) in values(a).iter().zip(values(b)).enumerate() {
        let same =
            x == &y || x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-5 * (1.0 + x.abs().max(y.abs()));
        assert!(same, "{what}: element {i} is {x} and {y}");
    }
}

fn variable(name: &str) -> Entry {
    Entry { node: Node::variable(name, BTreeMap::new()), index: 0 }
}

fn node(name: &str, op: OpRef, attrs: Attrs, inputs: Vec<Entry>) -> NodeRef {
    Arc::new(Node { name: name.into(), call: Some(Call { op, attrs }), inputs, texts: Default::default() })
}

fn call(name: &str, attrs: &[(&str, AttrValue)], inputs: &[Entry]) -> Entry {
    let op = registry::expect(name);
    Entry { node: node(name, op, Attrs::new(op, attrs).unwrap(), inputs.to_vec()), index: 0 }
}

fn mark(arrays: &mut [Array], skip: &[usize]) -> Vec<Option<Array>> {
    let mut grads = Vec::new();
    for (i, a) in arrays.iter_mut().enumerate() {
        if !a.dtype().is_float() || skip.contains(&i) {
            grads.push(None);
            continue;
        }
        let grad = Array::empty(a.spec().clone(), Context::CPU).unwrap();
        tape::mark(a, grad.clone(), crate::array::GradReq::Write);
        grads.push(Some(grad));
    }
    grads
}

fn backward(outputs: &[Array]) -> bool {
    let heads: Vec<Array> =
        outputs.iter().filter(|a| a.link.is_some() && a.dtype().is_float()).cloned().collect();
    if heads.is_empty() {
        return false;
    }
    let grads: Vec<Option<Array>> = heads
        .iter()
        .map(|h| {
            let n = h.size();
            let values: Vec<f64> = (0..n).map(|i| 0.5 + (i % 7) as f64 * 0.25).collect();
            dispatch!(h.dtype(), T => {
                let values: Vec<T> = values.iter().map(|v| T::from_f64(*v)).collect();
                Some(Array::from_slice(&values, h.shape().clone(), Context::CPU).unwrap())
            })
        })
        .collect();
    tape::backward(&heads, &grads, Options { retain: false, create_graph: false, train: true }).unwrap();
    true
}

/// Compares a graph with the same calls on arrays; `eager` makes the latter.
fn compare(
    what: &str,
    symbol: Symbol,
    names: &[String],
    arrays: &[Array],
    skip: &[usize],
    differentiable: bool,
    eager: impl Fn(&[Array]) -> Vec<Array>,
) {
    for train in [false, true] {
        let (mut a, mut b) = (copies(arrays), copies(arrays));
        let (ga, gb) = match train && differentiable {
            true => (mark(&mut a, skip), mark(&mut b, skip)),
            false => (Vec::new(), Vec::new()),
        };
        let _mode = Mode::set(train, train);
        seed(7, None);
        let wanted = eager(&a);
        seed(7, None);
        let op = CachedOp::new(symbol.clone(), names, Default::default()).unwrap();
        let found = op.call(&b, Context::CPU).unwrap();
        for (i, (x, y)) in wanted.iter().zip(&found).enumerate() {
            assert_close(&format!("{what} train={train} output {i}"), x, y);
        }
        if !ga.is_empty() && backward(&wanted) {
            assert!(backward(&found), "{what}: the graph's outputs are recorded");
            for (i, (x, y)) in ga.iter().zip(&gb).enumerate() {
                if let (Some(x), Some(y)) = (x, y) {
                    assert_close(&format!("{what} gradient {i}"), x, y);
                }
            }
        }
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            assert_close(&format!("{what} train={train} state {i}"), x, y);
        }
    }
}

#[test]
fn every_operator_is_the_same_as_a_graph() {
    let _random = RANDOM.lock();
    let (mut tried, mut failures) = (0, Vec::new());
    for op in registry::all() {
        // A graph has no data when it is planned.
        if op.name.contains("boolean_mask") {
            continue;
        }
        for (s, sample) in op.samples.iter().enumerate() {
            let what = format!("{} sample {s}", op.name);
            let mut attrs = sample.attrs.clone();
            if let Some(count) = op.variadic
                && op.param_index(count).is_some()
                && !attrs.iter().any(|(n, _)| *n == count)
            {
                attrs.push((count, AttrValue::Int(sample.inputs.len() as i64)));
            }
            let attrs = Attrs::new(op, &attrs).unwrap();
            if op.count(&attrs) == 0 {
                continue; // Without outputs there is nothing to ask a graph for.
            }
            let arrays = drawn(sample, s as u64);
            let names: Vec<String> = (0..arrays.len()).map(|i| format!("x{i}")).collect();
            let inputs: Vec<Entry> = names.iter().map(|n| variable(n)).collect();
            let symbol = Symbol::of(node("n", op, attrs.clone(), inputs));
            let differentiable = !op.hidden && !matches!(op.gradient, Gradient::Refused);
            let visible = op.count(&attrs);
            let states: Vec<usize> = (0..arrays.len()).filter(|i| op.is_state(*i)).collect();
            let run = || {
                compare(&what, symbol, &names, &arrays, &states, differentiable, |arrays| {
                    let refs: Vec<&Array> = arrays.iter().collect();
                    invoke(op, &attrs, &refs, None, None).unwrap().into_iter().take(visible).collect()
                })
            };
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failures.push(format!("{what}: {text}"));
            }
            tried += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tried > 300, "only {tried} samples were tried");
}

fn floats(shape: &[usize], from: f64) -> Array {
    let n: usize = shape.iter().product();
    let v: Vec<f32> = (0..n).map(|i| (from + 0.37 * i as f64).sin() as f32).collect();
    Array::from_slice(&v, Shape::new(shape), Context::CPU).unwrap()
}

/// The same graph called node by node.
fn eagerly(symbol: &Symbol, names: &[String], arrays: &[Array]) -> Vec<Array> {
    let mut values: std::collections::HashMap<usize, Vec<Array>> = Default::default();
    for node in symbol.order() {
        let made = match &node.call {
            None => vec![arrays[names.iter().position(|n| **n == *node.name).unwrap()].clone()],
            Some(c) => {
                let ins: Vec<Array> =
                    node.inputs.iter().map(|e| values[&e.node.key()][e.index as usize].clone()).collect();
                let refs: Vec<&Array> = ins.iter().collect();
                invoke(c.op, &c.attrs, &refs, None, None).unwrap().into_vec()
            }
        };
        values.insert(node.key(), made);
    }
    symbol.heads.iter().map(|e| values[&e.node.key()][e.index as usize].clone()).collect()
}

fn check_graph(what: &str, heads: Vec<Entry>, arrays: &[(&str, Array)]) {
    let symbol = Symbol { heads };
    let names: Vec<String> = arrays.iter().map(|(n, _)| n.to_string()).collect();
    let arrays: Vec<Array> = arrays.iter().map(|(_, a)| a.clone()).collect();
    compare(what, symbol.clone(), &names, &arrays, &[], true, |a| eagerly(&symbol, &names, a));
}

#[test]
fn chains_fuse_and_values_used_twice_stay() {
    let _random = RANDOM.lock();
    let (x, y) = (variable("x"), variable("y"));
    let mut v = x.clone();
    for i in 0..20 {
        v = match i % 4 {
            0 => call("_plus_scalar", &[("scalar", 0.25.into())], &[v]),
            1 => call("tanh", &[], &[v]),
            2 => call("broadcast_mul", &[], &[v, y.clone()]),
            _ => call("elemwise_add", &[], &[v.clone(), v]),
        };
    }
    let twice = call("exp", &[], std::slice::from_ref(&v));
    let a = call("sigmoid", &[], std::slice::from_ref(&twice));
    let b = call("elemwise_mul", &[], &[twice, a.clone()]);
    check_graph("chain", vec![b, a, v], &[("x", floats(&[5, 7], 0.1)), ("y", floats(&[1, 7], 0.7))]);
}

#[test]
fn outputs_may_be_inputs_views_and_each_other() {
    let _random = RANDOM.lock();
    let x = variable("x");
    let flat = call("Flatten", &[], std::slice::from_ref(&x));
    let again = call(
        "Reshape",
        &[("shape", AttrValue::Ints([Some(3), Some(-1)].into()))],
        std::slice::from_ref(&flat),
    );
    let sum = call("sum", &[], std::slice::from_ref(&again));
    let relu = call("relu", &[], std::slice::from_ref(&flat));
    let heads = vec![x, flat.clone(), again, flat, sum, relu.clone(), relu];
    check_graph("outputs", heads, &[("x", floats(&[2, 3, 4], 0.3))]);
}

#[test]
fn a_network_of_layers_is_the_same_as_a_graph() {
    let _random = RANDOM.lock();
    let v = |n: &str| variable(n);
    let kernel = || AttrValue::Ints([Some(3), Some(3)].into());
    let conv =
        call("Convolution", &[("kernel", kernel()), ("num_filter", 4i64.into())], &[v("x"), v("w"), v("b")]);
    let act = call("Activation", &[("act_type", AttrValue::Str("relu".into()))], std::slice::from_ref(&conv));
    let two = AttrValue::Ints([Some(2), Some(2)].into());
    let pool = call(
        "Pooling",
        &[("kernel", two.clone()), ("stride", two), ("pool_type", AttrValue::Str("max".into()))],
        &[act],
    );
    let dense = call("FullyConnected", &[("num_hidden", 5i64.into())], &[pool, v("fw"), v("fb")]);
    let soft = call("log_softmax", &[], std::slice::from_ref(&dense));
    let loss = call("mean", &[], &[soft]);
    let arrays = [
        ("x", floats(&[2, 3, 8, 8], 0.1)),
        ("w", floats(&[4, 3, 3, 3], 0.2)),
        ("b", floats(&[4], 0.3)),
        ("fw", floats(&[5, 36], 0.4)),
        ("fb", floats(&[5], 0.5)),
    ];
    check_graph("layers", vec![loss, dense, conv], &arrays);
}

/// Convolution, normalization, activation and sum at inference, all behind the kernel; `wide` is the data's shape.
fn residual_unit(wide: &[usize], more: &[(&str, AttrValue)]) {
    let (last, filters) = (more.iter().any(|m| m.0 == "layout"), 4usize);
    let channels = wide[if last { 3 } else { 1 }];
    let groups = more.iter().find(|m| m.0 == "num_group").map_or(1, |_| channels);
    let weight = if last { [filters, 3, 3, channels] } else { [filters, channels / groups, 3, 3] };
    let pair = || AttrValue::Ints([Some(3), Some(3)].into());
    let pad = AttrValue::Ints([Some(1), Some(1)].into());
    let mut attrs = vec![("kernel", pair()), ("num_filter", (filters as i64).into()), ("pad", pad)];
    attrs.extend(more.iter().cloned());
    let conv = call("Convolution", &attrs, &[variable("x"), variable("w"), variable("b")]);
    let stats = ["gamma", "beta", "mean", "var"].map(variable);
    let normal = call(
        "BatchNorm",
        &[("fix_gamma", false.into()), ("axis", if last { 3i64 } else { 1i64 }.into())],
        &[vec![conv], stats.to_vec()].concat(),
    );
    let sum = call("elemwise_add", &[], &[normal, variable("r")]);
    let relu = call("Activation", &[("act_type", AttrValue::Str("relu".into()))], &[sum]);
    let pooled = call(
        "mean",
        &[("axis", if last { [1i64, 2] } else { [2, 3] }[..].into())],
        std::slice::from_ref(&relu),
    );
    let dense =
        call("FullyConnected", &[("num_hidden", 5i64.into())], &[pooled, variable("fw"), variable("fb")]);
    let dense = call("tanh", &[], &[dense]);
    let mut result = wide.to_vec();
    result[if last { 3 } else { 1 }] = filters;
    let arrays = [
        ("x", floats(wide, 0.1)),
        ("w", floats(&weight, 0.2)),
        ("b", floats(&[filters], 0.3)),
        ("gamma", floats(&[filters], 1.1)),
        ("beta", floats(&[filters], 0.2)),
        ("mean", floats(&[filters], 0.4)),
        ("var", floats(&[filters], 1.7)),
        ("r", floats(&result, 0.6)),
        ("fw", floats(&[5, filters], 0.4)),
        ("fb", floats(&[5], 0.5)),
    ];
    let symbol = Symbol { heads: vec![dense, relu] };
    let names: Vec<String> = arrays.iter().map(|(n, _)| n.to_string()).collect();
    let values: Vec<Array> = arrays.iter().map(|(_, a)| a.clone()).collect();
    // The statistics are states and have no gradient.
    compare("unit", symbol.clone(), &names, &values, &[5, 6], true, |a| eagerly(&symbol, &names, a));
    let (args, aux) = symbol.inputs();
    let spec = |n: &NodeRef| values[names.iter().position(|m| **m == *n.name).unwrap()].spec().clone();
    let specs = args.iter().chain(&aux).map(spec).collect();
    let request =
        super::Request { specs, train: false, grads: Vec::new(), heads: 2, budget: Default::default() };
    let plan = super::Plan::new(&symbol, &request).unwrap();
    let behind: Vec<&str> =
        plan.program.instrs.iter().filter(|i| i.then.is_some()).map(|i| i.name()).collect();
    assert_eq!(behind, ["Convolution", "FullyConnected"], "{}", super::describe(&plan));
    assert!(!plan.program.instrs.iter().any(|i| i.name() == "BatchNorm"), "{}", super::describe(&plan));
}

#[test]
fn layers_at_inference_are_done_behind_the_kernels() {
    let _random = RANDOM.lock();
    residual_unit(&[2, 3, 25, 24], &[]);
    // Images of few places are computed together.
    residual_unit(&[3, 3, 5, 4], &[]);
    residual_unit(&[2, 4, 9, 7], &[("num_group", 4i64.into())]);
    residual_unit(&[2, 6, 5, 3], &[("layout", AttrValue::Str("NHWC".into()))]);
}

#[test]
fn a_graph_can_be_differentiated_twice() {
    let _random = RANDOM.lock();
    let (x, w) = (variable("x"), variable("w"));
    let y = call("tanh", &[], &[call("broadcast_mul", &[], &[x, w])]);
    let op = CachedOp::new(Symbol { heads: vec![y] }, &["x".into(), "w".into()], Default::default()).unwrap();
    let second = |graph: bool| {
        let mut arrays = [floats(&[3], 0.2), floats(&[3], 0.9)];
        let grads = mark(&mut arrays, &[]);
        let _mode = Mode::set(true, true);
        let y = match graph {
            true => op.call(&arrays, Context::CPU).unwrap().swap_remove(0),
            false => {
                let mul = registry::expect("broadcast_mul");
                let tanh = registry::expect("tanh");
                let p = invoke(mul, &Attrs::new(mul, &[]).unwrap(), &[&arrays[0], &arrays[1]], None, None)
                    .unwrap();
                invoke(tanh, &Attrs::new(tanh, &[]).unwrap(), &[&p[0]], None, None).unwrap().swap_remove(0)
            }
        };
        let options = Options { retain: true, create_graph: true, train: true };
        let g = tape::grad(&[y], &[None], std::slice::from_ref(&arrays[0]), options).unwrap();
        assert!(backward(&g));
        grads.into_iter().map(|g| values(&g.unwrap())).collect::<Vec<_>>()
    };
    let (a, b) = (second(false), second(true));
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// The plan of a graph, for training where `grads` says which arguments are differentiated.
fn planned(heads: Vec<Entry>, arrays: &[(&str, Array)], grads: &[u8]) -> super::Plan {
    // Each call of `variable` makes one; the graph has one per name.
    let by: std::collections::HashMap<String, Entry> =
        arrays.iter().map(|(n, _)| (n.to_string(), variable(n))).collect();
    let symbol = Symbol { heads }.substitute(&by);
    let (args, _) = symbol.inputs();
    let spec = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.spec().clone()).unwrap();
    let specs = args.iter().map(|n| spec(&n.name)).collect();
    let heads = symbol.heads.len();
    let train = !grads.is_empty();
    let request = super::Request { specs, train, grads: grads.into(), heads, budget: Default::default() };
    super::Plan::new(&symbol, &request).unwrap()
}

#[test]
fn what_changes_nothing_is_left_out() {
    let _random = RANDOM.lock();
    let x = variable("x");
    let axes = |a: &[i64]| AttrValue::Ints(a.iter().map(|i| Some(*i)).collect());
    let shape = |a: &[i64]| ("shape", axes(a));
    let turned = call("transpose", &[("axes", axes(&[2, 0, 1]))], std::slice::from_ref(&x));
    let back = call("transpose", &[("axes", axes(&[1, 2, 0]))], std::slice::from_ref(&turned));
    let once = call("transpose", &[("axes", axes(&[2, 0, 1]))], &[turned]);
    let scaled = call("_mul_scalar", &[("scalar", 1.0.into())], &[back]);
    let copied = call("_copy", &[], &[call("_div_scalar", &[("scalar", 1.0.into())], &[scaled])]);
    let flat = call("Reshape", &[shape(&[6, 4])], &[copied]);
    let same = call("Reshape", &[shape(&[2, 3, 4])], &[flat]);
    let wide = call("broadcast_to", &[shape(&[2, 3, 4])], &[same]);
    let sum = call("sum", &[], &[call("exp", &[], &[wide])]);
    let given = [("x", floats(&[2, 3, 4], 0.2))];
    check_graph("identities", vec![sum.clone(), once.clone()], &given);
    // A view of a view is not the same view of its source.
    let first = |v: &Entry| call("expand_dims", &[("axis", 0i64.into())], std::slice::from_ref(v));
    let (one, two) = (first(&x), first(&first(&x)));
    check_graph("views", [one, two].map(|v| call("exp", &[], &[v])).into(), &given);
    // exp, sum, and one transposition.
    let plan = planned(vec![sum, once], &given, &[]);
    assert_eq!(plan.steps.len(), 3, "{}", super::describe(&plan));
    // The sign of zero is told apart.
    let zero = call("_plus_scalar", &[("scalar", 0.0.into())], &[x]);
    assert_eq!(planned(vec![call("sum", &[], &[zero])], &given, &[]).steps.len(), 2);
}

#[test]
fn what_depends_on_nothing_is_done_when_the_plan_is_made() {
    let _random = RANDOM.lock();
    let ones = call("_ones", &[("shape", AttrValue::Ints([Some(2), Some(3)].into()))], &[]);
    let twos = call("exp", &[], &[call("_mul_scalar", &[("scalar", 2.0.into())], &[ones])]);
    let sum = call("elemwise_add", &[], &[variable("x"), twos.clone()]);
    let given = [("x", floats(&[2, 3], 0.2))];
    check_graph("constants", vec![sum.clone(), twos.clone()], &given);
    let plan = planned(vec![sum, twos], &given, &[]);
    assert_eq!((plan.steps.len(), plan.consts.len()), (2, 1), "{}", super::describe(&plan));
}

#[test]
fn the_parts_of_a_gradient_do_not_wait_for_each_other() {
    let _random = RANDOM.lock();
    let mut v = variable("x");
    for _ in 0..24 {
        v = call("tanh", &[], &[call("dot", &[], &[v, variable("w")])]);
    }
    let loss = call("sum", &[], &[v]);
    let given = [("x", floats(&[2, 64], 0.1)), ("w", floats(&[64, 64], 0.2))];
    let part = 64 * 64 * 4;
    let plan = planned(vec![loss.clone()], &given, &[0, 1]);
    assert!(plan.arena < 8 * part, "{} bytes, a part is {part}", plan.arena);
    let by = given.iter().map(|(n, _)| (n.to_string(), variable(n))).collect();
    check_graph("parts", Symbol { heads: vec![loss] }.substitute(&by).heads, &given);
}

#[test]
fn rectifiers_keep_their_result_alone() {
    let _random = RANDOM.lock();
    let mut v = variable("x");
    for _ in 0..8 {
        v = call(
            "Activation",
            &[("act_type", AttrValue::Str("relu".into()))],
            &[call("dot", &[], &[v, variable("w")])],
        );
    }
    let given = [("x", floats(&[512, 16], 0.1)), ("w", floats(&[16, 16], 0.2))];
    let plan = planned(vec![call("sum", &[], &[v])], &given, &[0, 1]);
    let result = 512 * 16 * 4;
    assert!(plan.arena < 11 * result, "{} bytes, a result is {result}", plan.arena);
}

#[test]
fn memory_is_shared_between_values_that_live_apart() {
    let mut v = variable("x");
    for _ in 0..50 {
        v = call("dot", &[], &[v, variable("w")]);
    }
    let (x, w) = (floats(&[64, 64], 0.1), floats(&[64, 64], 0.2));
    let specs: Vec<Spec> = vec![x.spec().clone(), w.spec().clone()];
    // Each call makes a variable of the name; the graph must be given one array for it.
    let symbol = Symbol { heads: vec![v] };
    let by: std::collections::HashMap<String, Entry> =
        [("w".to_string(), variable("w"))].into_iter().collect();
    let symbol = symbol.substitute(&by);
    let request =
        super::Request { specs, train: false, grads: Vec::new(), heads: 1, budget: Default::default() };
    let plan = super::Plan::new(&symbol, &request).unwrap();
    assert!(plan.arena <= 2 * 64 * 64 * 4, "{} bytes", plan.arena);
    assert_eq!(plan.steps.len(), 50);
    assert_eq!(DType::F32.size(), 4);
}
