//! Recomputation instead of storage: cheap results of the forward phase that only the backward phase still needs are
//! computed again there, so their memory is free in between.
//!
//! What is cheap follows from the operators' cost estimates: activations, normalizations and poolings are, products and
//! convolutions are not. `MXNET_BACKWARD_DO_MIRROR=1` asks for it everywhere, the attribute `force_mirroring` of a node
//! for that node, whatever it costs.

use crate::graph::program::{Instr, Program, ValueId, Work};
use crate::ops::{Sig, Spec, estimate};
use smallvec::SmallVec;
use std::collections::HashSet;

/// Nanoseconds per element of a result up to which it is computed again: a few passes over memory.
const CHEAP: f64 = 6.0;

pub fn run(program: &mut Program) {
    let everywhere = std::env::var("MXNET_BACKWARD_DO_MIRROR").is_ok_and(|v| v == "1");
    if program.forward == program.instrs.len() || !(everywhere || program.mirrored.contains(&true)) {
        return;
    }
    let mut producer: Vec<Option<usize>> = vec![None; program.specs.len()];
    for (n, instr) in program.instrs[..program.forward].iter().enumerate() {
        let asked = program.mirrored.get(instr.node as usize).copied().unwrap_or(false);
        let steady = !instr.is_random() && instr.mutated().next().is_none();
        if steady && (asked || everywhere && is_cheap(instr, program)) {
            instr.outs.iter().for_each(|v| producer[*v as usize] = Some(n));
        }
    }
    // Outputs are kept for the user anyway.
    program.outputs.iter().for_each(|v| producer[*v as usize] = None);
    let back = program.instrs.split_off(program.forward);
    let written = program.instrs.iter().flat_map(Instr::mutated).collect();
    let mut again = Again { producer, copy: vec![None; program.specs.len()], written };
    for mut instr in back {
        for place in 0..instr.ins.len() {
            instr.ins[place] = again.value(program, instr.ins[place]);
        }
        again.written.extend(instr.mutated());
        program.instrs.push(instr);
    }
}

struct Again {
    /// The call that makes a value, where it may be made again.
    producer: Vec<Option<usize>>,
    /// The value made again.
    copy: Vec<Option<ValueId>>,
    /// States that were written since: what reads them cannot be made again.
    written: HashSet<ValueId>,
}

impl Again {
    /// The value to read in the backward phase in the place of `v`, with the calls that make it.
    fn value(&mut self, program: &mut Program, v: ValueId) -> ValueId {
        let mut stack = vec![v];
        while let Some(&top) = stack.last() {
            let known = self.of(top).is_some();
            let Some(n) = self.producer.get(top as usize).copied().flatten().filter(|_| !known) else {
                stack.pop();
                continue;
            };
            if program.instrs[n].ins.iter().any(|w| self.written.contains(w)) {
                self.producer[top as usize] = None;
                continue;
            }
            let open: Vec<ValueId> = program.instrs[n]
                .ins
                .iter()
                .copied()
                .filter(|w| {
                    self.producer.get(*w as usize).is_some_and(Option::is_some) && self.of(*w).is_none()
                })
                .collect();
            if !open.is_empty() {
                stack.extend(open);
                continue;
            }
            let instr = program.instrs[n].clone();
            let ins = instr.ins.iter().map(|w| self.of(*w).unwrap_or(*w)).collect();
            let outs: SmallVec<[ValueId; 2]> = instr
                .outs
                .iter()
                .map(|w| {
                    let spec = program.specs[*w as usize].clone();
                    let copy = program.value(spec);
                    self.copy[*w as usize] = Some(copy);
                    copy
                })
                .collect();
            program.instrs.push(Instr { ins, outs, ..instr });
            stack.pop();
        }
        self.of(v).unwrap_or(v)
    }

    fn of(&self, v: ValueId) -> Option<ValueId> {
        self.copy.get(v as usize).copied().flatten()
    }
}

fn is_cheap(instr: &Instr, program: &Program) -> bool {
    let spec = |v: &ValueId| program.specs[*v as usize].clone();
    let outs: SmallVec<[Spec; 1]> = instr.outs.iter().map(spec).collect();
    let elements: usize = outs.iter().map(|s| s.shape.size()).sum();
    let cost = match &instr.work {
        Work::Fused { formula, .. } => elements as f64 * formula.cost(),
        Work::Op { op, attrs } => {
            let ins: SmallVec<[Spec; 4]> = instr.ins.iter().map(spec).collect();
            let refs: SmallVec<[&Spec; 4]> = ins.iter().collect();
            estimate(&Sig { op, attrs, ins: &refs }, &outs)
        }
    };
    cost <= CHEAP * elements as f64
}
