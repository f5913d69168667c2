//! Recomputation instead of storage: results of the forward phase that only the backward phase still needs are computed
//! again there, so their memory is free in between.
//!
//! The attribute `force_mirroring` of a node asks for it (or forbids it, when it is false); `MXNET_BACKWARD_DO_MIRROR=1`
//! asks for the plan of least memory among those that compute only cheap results again: activations, normalizations
//! and poolings are cheap, products and convolutions are not. A budget (see `budget.rs`) asks for whatever it takes.
//! Calls that draw random numbers or write states are never made twice.

use super::budget::{CHEAP, Search};
use super::flow::Flow;
use crate::graph::program::{Instr, Program};
use std::collections::HashMap;
use std::sync::Arc;

/// What stands behind the name of a node that is computed again, in messages and pictures.
const AGAIN: &str = " (again)";

pub fn run(program: &mut Program) {
    let everywhere = std::env::var("MXNET_BACKWARD_DO_MIRROR").is_ok_and(|v| v == "1");
    if program.forward == program.instrs.len() || !(everywhere || program.mirrored.contains(&Some(true))) {
        return;
    }
    let chosen = match everywhere {
        true => Search::new(program, None).smallest(CHEAP).0,
        false => program.mirrored.iter().map(|m| *m == Some(true)).collect(),
    };
    again(program, &chosen);
}

/// Rewrites the backward phase so that it makes the `chosen` nodes' results again.
fn again(program: &mut Program, chosen: &[bool]) {
    let sequence = Flow::of(program).sequence(chosen);
    for original in &sequence.repeats {
        let spec = program.specs[*original as usize].clone();
        program.value(spec);
    }
    let mut names: HashMap<u32, u32> = HashMap::new();
    let mut instrs = Vec::with_capacity(sequence.items.len());
    for item in &sequence.items {
        let instr = &program.instrs[item.call as usize];
        let node = match item.again {
            true => *names.entry(instr.node).or_insert_with(|| {
                let name: Arc<str> = format!("{}{AGAIN}", program.names[instr.node as usize]).into();
                let node = program.names.len() as u32;
                program.names.push(name);
                program.repeats.insert(node, instr.node);
                node
            }),
            false => instr.node,
        };
        let (ins, outs) = (sequence.ins(item).into(), sequence.outs(item).into());
        instrs.push(Instr { ins, outs, node, ..instr.clone() });
    }
    program.instrs = instrs;
}
