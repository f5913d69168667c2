//! Common subexpressions: of two calls of one operator on the same values, one is enough.

use super::mutated;
use crate::graph::program::{Program, ValueId, Work};
use crate::ops::Attrs;
use smallvec::SmallVec;
use std::collections::HashMap;

/// A call: its operator and attributes, and the values it reads.
type Key = (Attrs, SmallVec<[ValueId; 4]>);

// Operators' records are compared and hashed by address, whatever they fill in later.
#[allow(clippy::mutable_key_type)]
pub fn run(program: &mut Program) {
    let mutated = mutated(program);
    let mut seen: HashMap<Key, SmallVec<[ValueId; 2]>> = HashMap::new();
    let mut to: Vec<ValueId> = (0..program.specs.len() as ValueId).collect();
    let mut keep = vec![true; program.instrs.len()];
    for (n, instr) in program.instrs.iter().enumerate() {
        let Work::Op { op, attrs } = &instr.work else { continue };
        let ins: SmallVec<[ValueId; 4]> = instr.ins.iter().map(|v| to[*v as usize]).collect();
        if op.random || !op.mutates.is_empty() || ins.iter().any(|v| mutated[*v as usize]) {
            continue;
        }
        match seen.get(&(attrs.clone(), ins.clone())) {
            Some(outs) => {
                instr.outs.iter().zip(outs).for_each(|(v, other)| to[*v as usize] = *other);
                keep[n] = false;
            }
            None => {
                seen.insert((attrs.clone(), ins), instr.outs.clone());
            }
        }
    }
    super::rename(program, &to);
    super::retain(program, &keep);
}
