//! Fuses formulas behind kernels: what is done to a kernel's result element by element (a normalization at inference, an
//! activation, a residual sum) is done part by part while the part is in the cache.
//!
//! The kernel moves to where the formula stood, so that all else the formula reads is there.

use super::{mutated, uses};
use crate::graph::program::{Instr, Program, Then, ValueId, Work};
use std::sync::Arc;

pub fn run(program: &mut Program) {
    let mutated = mutated(program);
    let uses = uses(program);
    let mut producer: Vec<Option<usize>> = vec![None; program.specs.len()];
    let mut keep = vec![true; program.instrs.len()];
    for n in 0..program.instrs.len() {
        if let Some(p) = kernel_of(program, n, &uses, &mutated, &producer) {
            program.instrs[n] = joined(&program.instrs[p], &program.instrs[n]);
            keep[p] = false;
        }
        program.instrs[n].outs.iter().for_each(|v| producer[*v as usize] = Some(n));
    }
    super::retain(program, &keep);
}

/// The kernel behind which call `n` can be done: the last of those whose result nobody else reads.
fn kernel_of(
    program: &Program,
    n: usize,
    uses: &[u32],
    mutated: &[bool],
    producer: &[Option<usize>],
) -> Option<usize> {
    let instr = &program.instrs[n];
    let (formula, _) = instr.formula()?;
    let out = &program.specs[instr.outs[0] as usize];
    let fits = |(i, v): (usize, &ValueId)| {
        let p = producer[*v as usize]?;
        let kernel = &program.instrs[p];
        let finishes = matches!(&kernel.work, Work::Op { op, .. } if op.finishes) && kernel.then.is_none();
        let once =
            uses[*v as usize] == 1 && formula.uses(i) && instr.ins.iter().filter(|w| *w == v).count() == 1;
        let same_phase = (p < program.forward) == (n < program.forward);
        let steady = kernel.ins.iter().all(|w| !mutated[*w as usize]);
        (finishes && once && same_phase && steady && program.specs[*v as usize] == *out).then_some(p)
    };
    instr.ins.iter().enumerate().filter_map(fits).max()
}

/// The kernel with the formula behind it.
fn joined(kernel: &Instr, instr: &Instr) -> Instr {
    let (formula, params) = match instr.formula() {
        Some((formula, params)) => (formula.clone(), params),
        None => unreachable!("only formulas are fused"),
    };
    let result = kernel.outs[0];
    let at = instr.ins.iter().position(|v| *v == result).unwrap_or(0);
    let others = instr.ins.iter().copied().filter(|v| *v != result);
    Instr {
        work: kernel.work.clone(),
        ins: kernel.ins.iter().copied().chain(others).collect(),
        outs: instr.outs.clone(),
        node: kernel.node,
        then: Some(Arc::new(Then { formula, params, at })),
    }
}
