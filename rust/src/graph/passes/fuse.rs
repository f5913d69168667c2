//! Fuses chains of formulas: a formula whose result only one other formula reads is computed inside that one, so its
//! values stay in registers and the first cache instead of going through memory.

use super::{mutated, uses};
use crate::graph::program::{Instr, Program, Work};
use mxrs_formula::{Merged, Most};
use smallvec::SmallVec;
use std::sync::Arc;

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
) -> Option<(Instr, SmallVec<[usize; 4]>)> {
    let instr = &program.instrs[n];
    let (formula, mut params) = instr.formula()?;
    let out = &program.specs[instr.outs[0] as usize];
    let dtype = instr.ins.first().map_or(out.dtype, |v| program.specs[*v as usize].dtype);
    let mut merged = Merged::new(formula, &instr.ins);
    let absorbed = merged.absorb_all(uses, Most::default(), |v| {
        let p = producer[v as usize]?;
        let from = &program.instrs[p];
        let spec = &program.specs[v as usize];
        let (inner, _) = from.formula()?;
        let source = from.ins.first().map_or(spec.dtype, |v| program.specs[*v as usize].dtype);
        let same_phase = (p < program.forward) == (n < program.forward);
        let types = spec.shape == out.shape && spec.dtype == dtype && source == dtype;
        let steady = from.ins.iter().all(|v| !mutated[*v as usize]) && inner.arity() == from.ins.len();
        (same_phase && types && steady).then_some((p, inner, &from.ins[..]))
    });
    if absorbed.is_empty() {
        return None;
    }
    for p in &absorbed {
        params.extend(program.instrs[*p].formula()?.1);
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
