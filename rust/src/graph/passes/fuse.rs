//! Fuses chains of formulas: a formula whose result only one other formula reads is computed inside that one, so its
//! values stay in registers and the first cache instead of going through memory.

use super::{mutated, uses};
use crate::graph::program::{Instr, Program, ValueId, Work};
use mxrs_formula::Merged;
use smallvec::SmallVec;
use std::sync::Arc;

/// Arrays that one fused formula may read: each is a stream that the memory system follows.
const MAX_INPUTS: usize = 12;
/// Numbers that one fused formula may carry.
const MAX_PARAMS: usize = 64;

pub fn run(program: &mut Program) {
    let mutated = mutated(program);
    let mut uses = uses(program);
    let mut producer: Vec<Option<usize>> = vec![None; program.specs.len()];
    let mut keep = vec![true; program.instrs.len()];
    for n in 0..program.instrs.len() {
        if let Some((merged, absorbed)) = absorb(program, n, &mut uses, &mutated, &producer) {
            program.instrs[n] = merged;
            absorbed.iter().for_each(|p| keep[*p] = false);
        }
        program.instrs[n].outs.iter().for_each(|v| producer[*v as usize] = Some(n));
    }
    super::retain(program, &keep);
}

/// The call with the formulas it reads taken in, and which calls those were; `None` where there is nothing to take.
fn absorb(
    program: &Program,
    n: usize,
    uses: &mut [u32],
    mutated: &[bool],
    producer: &[Option<usize>],
) -> Option<(Instr, Vec<usize>)> {
    let instr = &program.instrs[n];
    let (formula, mut params) = instr.formula()?;
    let out = &program.specs[instr.outs[0] as usize];
    let dtype = instr.ins.first().map_or(out.dtype, |v| program.specs[*v as usize].dtype);
    let takes = |v: ValueId, uses: &[u32]| -> Option<usize> {
        let p = producer[v as usize]?;
        let from = &program.instrs[p];
        let spec = &program.specs[v as usize];
        let (inner, _) = from.formula()?;
        let same_phase = (p < program.forward) == (n < program.forward);
        let source = from.ins.first().map_or(spec.dtype, |v| program.specs[*v as usize].dtype);
        let fits = uses[v as usize] == 1 && same_phase && spec.shape == out.shape;
        let types = spec.dtype == dtype && source == dtype;
        let steady = from.ins.iter().all(|v| !mutated[*v as usize]) && inner.arity() == from.ins.len();
        (fits && types && steady).then_some(p)
    };
    let mut merged = Merged::new(formula, &instr.ins);
    let mut absorbed = Vec::new();
    let mut at = 0;
    while at < merged.ins().len() {
        let found = takes(merged.ins()[at], uses).map(|p| (p, &program.instrs[p]));
        let taken = found.and_then(|(p, from)| {
            let (inner, more) = from.formula()?;
            // What both read, one reads from now on.
            let both: SmallVec<[ValueId; 4]> =
                merged.ins().iter().filter(|v| from.ins.contains(v)).copied().collect();
            let fits =
                params.len() + more.len() <= MAX_PARAMS && merged.absorb(at, inner, &from.ins, MAX_INPUTS);
            fits.then(|| {
                params.extend(more);
                both.iter().for_each(|v| uses[*v as usize] -= 1);
                p
            })
        });
        match taken {
            Some(p) => {
                absorbed.push(p);
                // A value that stands before may now be read here alone.
                at = 0;
            }
            None => at += 1,
        }
    }
    if absorbed.is_empty() {
        return None;
    }
    let (formula, ins) = merged.into_parts();
    let work = Work::Fused { formula: Arc::new(formula), params };
    let instr = Instr {
        work,
        ins: ins.into_iter().collect(),
        outs: instr.outs.clone(),
        node: instr.node,
        then: None,
    };
    Some((instr, absorbed))
}
