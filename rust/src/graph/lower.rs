//! From a symbol and the specs of its variables to a program, with gradients where they are wanted.

use super::program::{Program, ValueId};
use super::symbol::{Node, NodeKey, Symbol};
use crate::ops::{Attrs, Build, Spec, Value};
use mxrs_base::{AttrValue, Error, Result, Shape};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// What the program is for.
pub struct Wanted {
    pub train: bool,
    /// For each argument, whether its gradient is computed; empty for none.
    pub grads: Vec<bool>,
    /// How many of the outputs are differentiated; further ones are only looked at.
    pub heads: usize,
}

/// A program and where the symbol's parts are in it.
#[derive(Clone)]
pub struct Lowered {
    pub program: Program,
    /// Arguments, then auxiliary states, in the symbol's order: the program's first inputs.
    pub variables: Vec<ValueId>,
    /// The symbol's outputs, in the order of its heads.
    pub outputs: Vec<ValueId>,
    /// Gradients of the outputs: the program's further inputs, where gradients are wanted.
    pub heads: Vec<ValueId>,
    /// Gradients of the arguments. `None` where not wanted, or where the outputs do not depend on it.
    pub grads: Vec<Option<ValueId>>,
    /// Node outputs by name, for monitors: `(name, value)`.
    pub named: Vec<(String, ValueId)>,
}

/// Lowers `symbol`. `specs` are those of the arguments and then of the auxiliary states; `sources` are the shapes of
/// calls without inputs whose attributes leave dimensions open.
pub fn lower(
    symbol: &Symbol,
    specs: &[Spec],
    sources: &HashMap<NodeKey, Shape>,
    wanted: &Wanted,
) -> Result<Lowered> {
    let (args, aux) = symbol.inputs();
    let frozen = !wanted.train && !wanted.grads.contains(&true);
    let mut program = Program { train: wanted.train, frozen, ..Program::default() };
    let mut values: HashMap<*const Node, SmallVec<[Value; 2]>> = HashMap::new();
    let mut variables = Vec::new();
    for (node, spec) in args.iter().chain(&aux).zip(specs) {
        let value = program.input(spec.clone());
        variables.push(value);
        values.insert(Arc::as_ptr(node), smallvec::smallvec![Value(value)]);
    }
    let mut named = Vec::new();
    for node in symbol.order() {
        let key = Arc::as_ptr(&node);
        if values.contains_key(&key) {
            continue;
        }
        let Some(call) = &node.call else {
            return Err(Error::value(format!("variable {} has no value", node.name)));
        };
        let ins: SmallVec<[Value; 4]> = node
            .inputs
            .iter()
            .map(|e| {
                values.get(&Arc::as_ptr(&e.node)).and_then(|v| v.get(e.index as usize)).copied().ok_or_else(
                    || Error::op(format!("node {}: {} has no output {}", node.name, e.node.name, e.index)),
                )
            })
            .collect::<Result<_>>()?;
        program.current = program.names.len() as u32;
        program.names.push(node.name.clone());
        let asked = node.text("force_mirroring");
        program.mirrored.push(asked.map(|v| matches!(&*v, "1" | "True" | "true")));
        let attrs = resolved(&call.attrs, sources.get(&node.key()))?;
        let outs =
            program.call(call.op, attrs, &ins).map_err(|e| e.within(&format!("node {}", node.name)))?;
        let count = node.outputs();
        for (i, v) in outs.iter().enumerate().take(count) {
            named.push((node.output_name(i as u32), v.0));
        }
        values.insert(key, outs);
    }
    let mut outputs = Vec::new();
    for head in &symbol.heads {
        let value = values.get(&Arc::as_ptr(&head.node)).and_then(|v| v.get(head.index as usize));
        let value = value
            .ok_or_else(|| Error::op(format!("node {} has no output {}", head.node.name, head.index)))?;
        outputs.push(value.0);
    }
    super::passes::run(super::passes::ORDER, &mut program);
    program.forward = program.instrs.len();
    let mut heads = Vec::new();
    let mut grads = vec![None; args.len()];
    if wanted.grads.iter().any(|w| *w) {
        for output in outputs.iter().take(wanted.heads) {
            let spec = program.specs[*output as usize].clone();
            heads.push(program.input(spec));
        }
        let targets: Vec<ValueId> =
            variables.iter().zip(&wanted.grads).filter(|(_, w)| **w).map(|(v, _)| *v).collect();
        let given: Vec<Option<ValueId>> = heads.iter().map(|h| Some(*h)).collect();
        let mut found = program.differentiate(&outputs, &given, &targets)?.into_iter();
        for (grad, want) in grads.iter_mut().zip(&wanted.grads) {
            if *want {
                *grad = found.next().flatten();
            }
        }
    }
    Ok(Lowered { program, variables, outputs, heads, grads, named })
}

/// The attributes with the open dimensions of a source's shape filled in.
fn resolved(attrs: &Attrs, shape: Option<&Shape>) -> Result<Attrs> {
    let Some(shape) = shape else { return Ok(attrs.clone()) };
    let op = attrs.op();
    let Some(place) = op.param_index("shape") else { return Ok(attrs.clone()) };
    let mut values: SmallVec<[AttrValue; 4]> = attrs.values().into();
    if !matches!(&values[place], AttrValue::Ints(v) if v.contains(&Some(0))) {
        return Ok(attrs.clone());
    }
    values[place] = shape.into();
    Ok(Attrs::from_values(op, values))
}
