//! Shapes and types of a graph, from what is known of some of its values to all others, in both directions.
//!
//! Operators have one rule: outputs from complete inputs (and [`complete`](crate::ops::OpDef::complete): weights from
//! data). Everything else follows from it. A dimension that is not known is *probed*: the rule is asked twice, with two
//! numbers in its place; what the answers share does not depend on it, and where an answer moves with the question,
//! a known output tells the unknown input. So no operator needs a second rule for partial or backward inference.
//!
//! length: one solver, whose steps share its state.

use super::program::Program;
use super::symbol::{Call, Node, NodeKey, NodeRef, Symbol};
use crate::ops::{Build, Spec, Value};
use mxrs_base::{DType, Error, Result, Shape};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// Dimensions, of which 0 is one that is not known.
pub type Dims = SmallVec<[usize; 4]>;

/// What is known of variables, by name.
#[derive(Default)]
pub struct Known {
    pub shapes: HashMap<String, Dims>,
    pub dtypes: HashMap<String, DType>,
}

/// What follows: for every argument, output and auxiliary state in the order of the symbol's lists.
pub struct Inferred {
    pub arg_shapes: Vec<Option<Dims>>,
    pub out_shapes: Vec<Option<Dims>>,
    pub aux_shapes: Vec<Option<Dims>>,
    pub arg_types: Vec<Option<DType>>,
    pub out_types: Vec<Option<DType>>,
    pub aux_types: Vec<Option<DType>>,
    /// All shapes are known.
    pub complete: bool,
    /// Outputs of calls without inputs whose own attributes leave dimensions open.
    pub sources: HashMap<NodeKey, Shape>,
}

/// Two numbers that stand for an unknown dimension. Both have many divisors, so that splits and groups divide them.
const PROBES: [usize; 2] = [720, 1440];

/// Sweeps over the graph; a few are plenty.
const MAX_SWEEPS: usize = 64;

#[derive(Clone, Default, PartialEq)]
struct Part {
    dims: Option<Dims>,
    dtype: Option<DType>,
}

impl Part {
    fn is_complete(&self) -> bool {
        self.dims.as_ref().is_some_and(|d| !d.contains(&0))
    }
    fn shape(&self) -> Option<Shape> {
        self.dims.as_ref().filter(|d| !d.contains(&0)).map(|d| Shape::new(d))
    }
}

struct Solver {
    order: Vec<NodeRef>,
    index: HashMap<*const Node, usize>,
    values: Vec<SmallVec<[Part; 1]>>,
    /// Nodes whose inputs and outputs are all known.
    done: Vec<bool>,
    changed: bool,
    /// How often something was learned about each node's outputs, and the sum over a node's neighbours when it was last
    /// visited: one that would find nothing new is passed over.
    learned: Vec<u32>,
    visited: Vec<Option<u32>>,
    /// Calls whose types are looked for without shapes.
    types_only: bool,
}

/// Infers shapes and types. What is inconsistent is an error; what stays open is `None` (or has a 0).
pub fn infer(symbol: &Symbol, known: &Known, types_only: bool) -> Result<Inferred> {
    let order = symbol.order();
    let index: HashMap<*const Node, usize> =
        order.iter().enumerate().map(|(i, n)| (Arc::as_ptr(n), i)).collect();
    let mut values = Vec::with_capacity(order.len());
    for node in &order {
        let mut parts: SmallVec<[Part; 1]> = smallvec::smallvec![Part::default(); node.outputs()];
        if node.is_variable() {
            parts[0] = Part { dims: declared_dims(node, known)?, dtype: declared_type(node, known)? };
        }
        values.push(parts);
    }
    let done = vec![false; order.len()];
    let (learned, visited) = (vec![0; order.len()], vec![None; order.len()]);
    let mut solver = Solver { order, index, values, done, changed: true, learned, visited, types_only };
    solver.solve()?;
    Ok(solver.report(symbol))
}

fn declared_dims(node: &Node, known: &Known) -> Result<Option<Dims>> {
    if let Some(dims) = known.shapes.get(&*node.name) {
        return Ok(Some(dims.clone()));
    }
    let Some(text) = node.texts.lock().get("__shape__").cloned() else { return Ok(None) };
    let inside = text.trim().trim_matches(|c| "()[]".contains(c));
    let dims: Option<Dims> = inside
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        // Unknown dimensions are written 0, or -1 under NumPy's shapes.
        .map(|s| s.trim_end_matches('L').parse::<i64>().ok().map(|v| v.max(0) as usize))
        .collect();
    let dims = dims.ok_or_else(|| {
        Error::value(format!("variable {}: its attribute __shape__ = {text} is not a shape", node.name))
    })?;
    Ok((!dims.is_empty()).then_some(dims))
}

fn declared_type(node: &Node, known: &Known) -> Result<Option<DType>> {
    if let Some(dtype) = known.dtypes.get(&*node.name) {
        return Ok(Some(*dtype));
    }
    let Some(text) = node.texts.lock().get("__dtype__").cloned() else { return Ok(None) };
    let found = match text.parse::<i64>() {
        Ok(-1) => return Ok(None),
        Ok(flag) => DType::from_flag(flag),
        Err(_) => DType::from_name(&text),
    };
    found.map(Some).map_err(|e| e.within(&format!("variable {}: attribute __dtype__", node.name)))
}

/// Takes over what `new` knows; whether anything was new. `None` where they contradict each other.
fn merge(part: &mut Option<Dims>, new: &[usize]) -> Option<bool> {
    let Some(old) = part else {
        *part = Some(new.into());
        return Some(true);
    };
    if old.len() != new.len() {
        return None;
    }
    let mut changed = false;
    for (o, n) in old.iter_mut().zip(new) {
        match (*o, *n) {
            (a, b) if a == b => {}
            (_, 0) => {}
            (0, n) => {
                *o = n;
                changed = true;
            }
            _ => return None,
        }
    }
    Some(changed)
}

impl Solver {
    fn solve(&mut self) -> Result<()> {
        for _ in 0..MAX_SWEEPS {
            self.changed = false;
            for n in 0..self.order.len() {
                self.visit(n)?;
            }
            for n in (0..self.order.len()).rev() {
                self.visit(n)?;
            }
            if !self.changed && !self.assume_type() {
                break;
            }
        }
        Ok(())
    }

    /// Gives the first variable of unknown type the default; whether there was one.
    fn assume_type(&mut self) -> bool {
        if self.types_only {
            return false;
        }
        let open = |n: &usize| self.order[*n].is_variable() && self.values[*n][0].dtype.is_none();
        let Some(n) = (0..self.order.len()).find(open) else { return false };
        self.learn_type(n, 0, DType::F32);
        true
    }

    fn input(&self, n: usize, i: usize) -> &Part {
        let entry = &self.order[n].inputs[i];
        &self.values[self.index[&Arc::as_ptr(&entry.node)]][entry.index as usize]
    }

    fn inputs(&self, n: usize) -> SmallVec<[Part; 4]> {
        (0..self.order[n].inputs.len()).map(|i| self.input(n, i).clone()).collect()
    }

    fn learn_input(&mut self, n: usize, i: usize, dims: &[usize]) -> Result<()> {
        let entry = &self.order[n].inputs[i];
        let at = self.index[&Arc::as_ptr(&entry.node)];
        let old = &mut self.values[at][entry.index as usize].dims;
        match merge(old, dims) {
            Some(changed) => {
                self.note(at, changed);
                Ok(())
            }
            None => {
                let old = old.clone().unwrap_or_default();
                let name = entry.node.name.clone();
                let what = self.order[n].call.as_ref().map_or(String::new(), |c| c.op.input_name(i));
                Err(Error::op(format!(
                    "node {}: its input {what} ({name}) has shape {}, and {} is expected",
                    self.order[n].name,
                    text(&old),
                    text(dims)
                )))
            }
        }
    }

    fn learn_output(&mut self, n: usize, o: usize, dims: &[usize]) -> Result<()> {
        while self.values[n].len() <= o {
            self.values[n].push(Part::default());
        }
        let old = &mut self.values[n][o].dims;
        match merge(old, dims) {
            Some(changed) => {
                self.note(n, changed);
                Ok(())
            }
            None => Err(Error::op(format!(
                "node {}: its output {o} has shape {}, and {} is expected by what uses it",
                self.order[n].name,
                text(dims),
                text(&old.clone().unwrap_or_default())
            ))),
        }
    }

    fn learn_type(&mut self, n: usize, o: usize, dtype: DType) {
        while self.values[n].len() <= o {
            self.values[n].push(Part::default());
        }
        let old = &mut self.values[n][o].dtype;
        if old.is_none() {
            *old = Some(dtype);
            self.note(n, true);
        }
    }

    fn note(&mut self, n: usize, changed: bool) {
        self.changed |= changed;
        self.learned[n] += u32::from(changed);
    }

    fn visit(&mut self, n: usize) -> Result<()> {
        if self.done[n] {
            return Ok(());
        }
        let node = self.order[n].clone();
        let around = node.inputs.iter().map(|e| self.learned[self.index[&Arc::as_ptr(&e.node)]]);
        let sum = around.sum::<u32>() + self.learned[n];
        if self.visited[n].replace(sum) == Some(sum) {
            return Ok(());
        }
        let Some(call) = &node.call else {
            self.done[n] = self.values[n][0].is_complete() && self.values[n][0].dtype.is_some();
            return Ok(());
        };
        if self.types_only {
            return self.visit_types(n, call);
        }
        self.guess_types(n);
        if call.op.keeps_shape {
            self.unify(n)?;
        }
        let ins = self.inputs(n);
        let shapes: Vec<Option<Shape>> = ins.iter().map(Part::shape).collect();
        if let Some(complete) = &call.op.complete
            && shapes.first().is_some_and(Option::is_some)
            && shapes.iter().any(Option::is_none)
        {
            let mut filled = shapes;
            complete(&call.attrs, &mut filled).map_err(|e| e.within(&format!("node {}", node.name)))?;
            for (i, shape) in filled.iter().enumerate() {
                if let Some(shape) = shape {
                    self.learn_input(n, i, shape)?;
                }
            }
        }
        let ins = self.inputs(n);
        if ins.iter().all(Part::is_complete) {
            if ins.iter().all(|p| p.dtype.is_some()) {
                return self.forward(n, call, &ins);
            }
            return Ok(());
        }
        if ins.iter().any(|p| p.dims.is_some()) {
            self.probe(n, call, &ins)?;
        }
        Ok(())
    }

    /// The operator's own rule.
    fn forward(&mut self, n: usize, call: &Call, ins: &[Part]) -> Result<()> {
        let specs: SmallVec<[Spec; 4]> =
            ins.iter().filter_map(|p| Some(Spec::new(p.shape()?, p.dtype?))).collect();
        let outs = rule(call, specs).map_err(|e| e.within(&format!("node {}", self.order[n].name)))?;
        let mut open = false;
        for (o, spec) in outs.iter().enumerate() {
            // Attributes of a call without inputs may leave dimensions open.
            open |= ins.is_empty() && spec.shape.contains(&0);
            self.learn_output(n, o, &spec.shape)?;
            self.learn_type(n, o, spec.dtype);
        }
        self.done[n] = !open || self.values[n].iter().all(Part::is_complete);
        Ok(())
    }

    /// Variables of unknown type beside values of known type have that type.
    fn guess_types(&mut self, n: usize) {
        let node = self.order[n].clone();
        let Some(dtype) = (0..node.inputs.len()).find_map(|i| self.input(n, i).dtype) else { return };
        let alike = node.call.as_ref().is_some_and(|c| c.op.keeps_shape || c.op.promotes);
        if !dtype.is_float() && !alike {
            return; // Indices say nothing about what they pick from.
        }
        for (i, entry) in node.inputs.iter().enumerate() {
            // Half-precision data has states and scales in single precision.
            let states = node.mutates(i) || node.call.as_ref().is_some_and(|c| c.op.name == "BatchNorm");
            let dtype = if states && dtype == DType::F16 { DType::F32 } else { dtype };
            let at = self.index[&Arc::as_ptr(&entry.node)];
            if entry.node.is_variable() {
                self.learn_type(at, 0, dtype);
            }
        }
    }

    /// One shape for every input and output.
    fn unify(&mut self, n: usize) -> Result<()> {
        let mut common: Option<Dims> = None;
        let ins = self.inputs(n);
        for (i, part) in ins.iter().enumerate() {
            if let Some(dims) = &part.dims
                && merge(&mut common, dims).is_none()
            {
                // The message names the second of the two.
                return self.learn_input(n, i, &common.unwrap_or_default());
            }
        }
        for (o, part) in self.values[n].clone().iter().enumerate() {
            if let Some(dims) = &part.dims
                && merge(&mut common, dims).is_none()
            {
                return self.learn_output(n, o, &common.unwrap_or_default());
            }
        }
        let Some(common) = common else { return Ok(()) };
        for i in 0..ins.len() {
            self.learn_input(n, i, &common)?;
        }
        for o in 0..self.order[n].outputs() {
            self.learn_output(n, o, &common)?;
        }
        Ok(())
    }

    /// Learns from what the rule answers with numbers in the place of unknown dimensions.
    fn probe(&mut self, n: usize, call: &Call, ins: &[Part]) -> Result<()> {
        let Some(first) = ask(call, ins, &|_, _| PROBES[0]) else { return self.only_fit(n, call, ins) };
        let Some(second) = ask(call, ins, &|_, _| PROBES[1]) else { return Ok(()) };
        for (i, (a, b)) in first.ins.iter().zip(&second.ins).enumerate() {
            if let (Some(a), Some(b)) = (a, b)
                && let Some(dims) = shared(a, b)
            {
                self.learn_input(n, i, &dims)?;
            }
        }
        for (o, (a, b)) in first.outs.iter().zip(&second.outs).enumerate() {
            if let Some(dims) = shared(a, b) {
                self.learn_output(n, o, &dims)?;
            }
        }
        let wanted: Vec<Option<Dims>> = self.values[n].iter().map(|p| p.dims.clone()).collect();
        if wanted.iter().flatten().any(|d| d.iter().any(|v| *v != 0)) {
            self.solve_backward(n, call, ins, &first, &wanted)?;
        }
        Ok(())
    }

    /// An open dimension is that of another input where the rule accepts this number, and neither an arbitrary one
    /// nor 1 in its place.
    fn only_fit(&mut self, n: usize, call: &Call, ins: &[Part]) -> Result<()> {
        for (i, part) in ins.iter().enumerate().filter(|(_, p)| !p.is_complete()) {
            // What is computed is told by what computes it.
            if !self.order[n].inputs[i].node.inputs.is_empty() {
                continue;
            }
            for model in ins.iter().filter_map(|p| p.dims.clone().filter(|d| !d.contains(&0))) {
                let mut whole = part.dims.clone();
                if merge(&mut whole, &model).is_none() {
                    continue;
                }
                let accepts = |shape: &Dims| {
                    let mut trial = ins.to_vec();
                    trial[i].dims = Some(shape.clone());
                    ask(call, &trial, &|_, d| model.get(d).copied().unwrap_or(PROBES[0])).is_some()
                };
                let with = |d: usize, v: usize| {
                    let mut dims = model.clone();
                    dims[d] = v;
                    dims
                };
                let fits = |d: usize| ![PROBES[0], 1].iter().any(|v| *v != model[d] && accepts(&with(d, *v)));
                let known = |d: usize| part.dims.as_ref().is_some_and(|p| p[d] != 0);
                if accepts(&model) && (0..model.len()).all(|d| known(d) || fits(d)) {
                    return self.learn_input(n, i, &model);
                }
            }
        }
        Ok(())
    }

    /// Finds unknown input dimensions from known output dimensions.
    fn solve_backward(
        &mut self,
        n: usize,
        call: &Call,
        ins: &[Part],
        base: &Answer,
        wanted: &[Option<Dims>],
    ) -> Result<()> {
        let mut found: SmallVec<[(usize, usize, usize); 4]> = SmallVec::new();
        for (i, part) in ins.iter().enumerate() {
            let Some(dims) = &part.dims else { continue };
            for d in (0..dims.len()).filter(|d| dims[*d] == 0) {
                let alone = ask(call, ins, &|j, e| PROBES[usize::from((j, e) == (i, d))]);
                // Inputs that must agree along an axis only move together.
                let moved = alone.or_else(|| ask(call, ins, &|_, e| PROBES[usize::from(e == d)]));
                if let Some(v) = moved.and_then(|moved| preimage(base, &moved, wanted)) {
                    found.push((i, d, v));
                }
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let value =
            |i: usize, d: usize| found.iter().find(|f| (f.0, f.1) == (i, d)).map_or(PROBES[0], |f| f.2);
        let Some(check) = ask(call, ins, &value) else { return Ok(()) };
        let agrees = |o: usize, dims: &Dims| {
            check.outs.get(o).is_some_and(|got| {
                let open = got.iter().zip(&base.outs[o]).map(|(g, b)| g == b && PROBES.contains(b));
                got.len() == dims.len()
                    && got.iter().zip(dims).zip(open).all(|((g, w), open)| *w == 0 || g == w || open)
            })
        };
        if !wanted.iter().enumerate().all(|(o, w)| w.as_ref().is_none_or(|w| agrees(o, w))) {
            return Ok(());
        }
        for (i, d, v) in found {
            let mut dims = ins[i].dims.clone().unwrap_or_default();
            dims[d] = v;
            self.learn_input(n, i, &dims)?;
        }
        Ok(())
    }

    /// Types alone: the rule is asked with made-up shapes.
    fn visit_types(&mut self, n: usize, call: &Call) -> Result<()> {
        self.guess_types(n);
        if let Some(out) = self.values[n][0].dtype
            && call.op.keeps_shape
        {
            let node = self.order[n].clone();
            for entry in node.inputs.iter().filter(|e| e.node.is_variable()) {
                let at = self.index[&Arc::as_ptr(&entry.node)];
                self.learn_type(at, 0, out);
            }
        }
        let ins = self.inputs(n);
        if ins.iter().any(|p| p.dtype.is_none()) {
            return Ok(());
        }
        for rank in [2usize, 4, 3, 1, 5] {
            let parts: SmallVec<[Part; 4]> = ins
                .iter()
                .enumerate()
                .map(|(i, p)| {
                    let dims = match (&p.dims, i > 0 && call.op.complete.is_some()) {
                        (Some(dims), _) => Some(dims.clone()),
                        (None, true) => None,
                        (None, false) => Some(SmallVec::from_elem(0, rank)),
                    };
                    Part { dims, dtype: p.dtype }
                })
                .collect();
            if let Some(answer) = ask(call, &parts, &|_, _| PROBES[0]) {
                for (o, dtype) in answer.types.iter().enumerate() {
                    self.learn_type(n, o, *dtype);
                }
                self.done[n] = true;
                return Ok(());
            }
        }
        // No made-up shape fits (a split that must come out even): as most operators do, keep the type.
        if let Some(dtype) = ins.first().and_then(|p| p.dtype) {
            (0..self.order[n].outputs()).for_each(|o| self.learn_type(n, o, dtype));
        }
        Ok(())
    }

    fn report(&self, symbol: &Symbol) -> Inferred {
        let (args, aux) = symbol.inputs();
        let of = |node: &NodeRef, i: usize| self.values[self.index[&Arc::as_ptr(node)]][i].clone();
        let args: Vec<Part> = args.iter().map(|n| of(n, 0)).collect();
        let aux: Vec<Part> = aux.iter().map(|n| of(n, 0)).collect();
        let outs: Vec<Part> = symbol.heads.iter().map(|e| of(&e.node, e.index as usize)).collect();
        let complete = args.iter().chain(&aux).chain(&outs).all(Part::is_complete);
        let mut sources = HashMap::new();
        for (node, parts) in self.order.iter().zip(&self.values) {
            if node.inputs.is_empty()
                && !node.is_variable()
                && let Some(shape) = parts[0].shape()
            {
                sources.insert(node.key(), shape);
            }
        }
        let dims = |parts: &[Part]| parts.iter().map(|p| p.dims.clone()).collect();
        let types = |parts: &[Part]| parts.iter().map(|p| p.dtype).collect();
        Inferred {
            arg_shapes: dims(&args),
            out_shapes: dims(&outs),
            aux_shapes: dims(&aux),
            arg_types: types(&args),
            out_types: types(&outs),
            aux_types: types(&aux),
            complete,
            sources,
        }
    }
}

/// What the rule said.
struct Answer {
    ins: Vec<Option<Dims>>,
    outs: Vec<Dims>,
    types: Vec<DType>,
}

/// Asks the operator's rule with `fill(input, dimension)` in the place of unknown dimensions; `None` if it refuses.
fn ask(call: &Call, ins: &[Part], fill: &dyn Fn(usize, usize) -> usize) -> Option<Answer> {
    let mut shapes: Vec<Option<Shape>> = ins
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let dims = p.dims.as_ref()?;
            let full: Dims =
                dims.iter().enumerate().map(|(d, v)| if *v == 0 { fill(i, d) } else { *v }).collect();
            Some(Shape::new(&full))
        })
        .collect();
    if shapes.iter().any(Option::is_none) {
        shapes.first()?.as_ref()?;
        call.op.complete.as_ref()?(&call.attrs, &mut shapes).ok()?;
    }
    let specs: Option<SmallVec<[Spec; 4]>> = shapes
        .iter()
        .zip(ins)
        .map(|(s, p)| Some(Spec::new(s.clone()?, p.dtype.unwrap_or(DType::F32))))
        .collect();
    let outs = rule(call, specs?).ok()?;
    Some(Answer {
        ins: shapes.into_iter().map(|s| s.map(|s| Dims::from(&s[..]))).collect(),
        outs: outs.iter().map(|s| Dims::from(&s.shape[..])).collect(),
        types: outs.iter().map(|s| s.dtype).collect(),
    })
}

/// The operator's rule for outputs, as a call of it would apply it: a composition is asked by composing.
fn rule(call: &Call, specs: SmallVec<[Spec; 4]>) -> Result<SmallVec<[Spec; 2]>> {
    let mut program = Program::default();
    let ins: SmallVec<[Value; 4]> = specs.into_iter().map(|s| Value(program.value(s))).collect();
    let outs = program.call(call.op, call.attrs.clone(), &ins)?;
    Ok(outs.iter().map(|v| program.spec(*v).clone()).collect())
}

/// The dimensions that both have; 0 where they differ. `None` where even their number differs.
fn shared(a: &Dims, b: &Dims) -> Option<Dims> {
    (a.len() == b.len()).then(|| a.iter().zip(b).map(|(x, y)| if x == y { *x } else { 0 }).collect())
}

/// The input dimension for which an output dimension that grew from `base` to `moved` is the wanted one: outputs are
/// straight lines in the inputs they depend on.
fn preimage(base: &Answer, moved: &Answer, wanted: &[Option<Dims>]) -> Option<usize> {
    let step = (PROBES[1] - PROBES[0]) as i64;
    for (o, want) in wanted.iter().enumerate() {
        let (Some(want), Some(a), Some(b)) = (want, base.outs.get(o), moved.outs.get(o)) else { continue };
        if want.len() != a.len() || a.len() != b.len() {
            continue;
        }
        for ((a, b), want) in a.iter().zip(b).zip(want).filter(|(_, w)| **w != 0) {
            let rise = *b as i64 - *a as i64;
            if rise <= 0 {
                continue;
            }
            // want = a + (v - probe) * rise / step
            let distance = (*want as i64 - *a as i64).checked_mul(step)?;
            if distance % rise == 0 {
                let v = PROBES[0] as i64 + distance / rise;
                return usize::try_from(v).ok().filter(|v| *v > 0);
            }
        }
    }
    None
}

fn text(dims: &[usize]) -> String {
    Shape::new(dims).to_string()
}
