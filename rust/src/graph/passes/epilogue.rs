//! Fuses formulas behind kernels: what is done to a kernel's result element by element (a normalization at inference, an
//! activation, a residual sum) is done part by part while the part is in the cache.
//!
//! The kernel moves to where the formula stood, so that all else the formula reads is there.

use super::{mutated, uses};
use crate::graph::program::{Instr, Program, Then, ValueId, Work};
use mxrs_formula::{Formula, Part};
use smallvec::SmallVec;
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

/// The kernel behind which call `n` can be done: the last of those whose result nobody else reads. Moving it up to `n`
/// must change nothing: what it reads is not written in between, what it writes beside its result not read.
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
        let once = uses[*v as usize] == 1 && formula.uses(i);
        let same_phase = (p < program.forward) == (n < program.forward);
        let fits =
            finishes && once && same_phase && kernel.outs[0] == *v && program.specs[*v as usize] == *out;
        (fits && may_move(program, p, n, mutated)).then_some(p)
    };
    instr.ins.iter().enumerate().filter_map(fits).max()
}

/// The formula with each input once, and only those that it reads.
fn tidy(formula: &Formula, given: &[ValueId]) -> (Formula, SmallVec<[ValueId; 4]>) {
    let mut ins: SmallVec<[ValueId; 4]> = SmallVec::new();
    for (i, v) in given.iter().enumerate() {
        if formula.uses(i) && !ins.contains(v) {
            ins.push(*v);
        }
    }
    if ins[..] == *given {
        return (formula.clone(), ins);
    }
    // What is not read may stand anywhere.
    let place = |v: &ValueId| Part::Input(ins.iter().position(|w| w == v).unwrap_or(0));
    let parts: Vec<Part> = given.iter().map(place).collect();
    (formula.compose(ins.len(), &parts), ins)
}

/// Whether call `p` can be made where call `n` stands.
fn may_move(program: &Program, p: usize, n: usize, mutated: &[bool]) -> bool {
    let kernel = &program.instrs[p];
    let further = &kernel.outs[1..];
    let between = &program.instrs[p + 1..n];
    let steady = |v: &ValueId| !mutated[*v as usize] || !between.iter().any(|c| c.mutated().any(|w| w == *v));
    let unread = |c: &Instr| !c.ins.iter().any(|v| further.contains(v));
    kernel.ins.iter().all(steady)
        && (further.is_empty() || between.iter().chain([&program.instrs[n]]).all(unread))
}

/// The kernel with the formula behind it.
fn joined(kernel: &Instr, instr: &Instr) -> Instr {
    let Some((formula, params)) = instr.formula() else { unreachable!("only formulas are fused") };
    let (formula, ins) = tidy(formula, &instr.ins);
    let result = kernel.outs[0];
    let at = ins.iter().position(|v| *v == result).unwrap_or(0);
    let others = ins.iter().copied().filter(|v| *v != result);
    Instr {
        work: kernel.work.clone(),
        ins: kernel.ins.iter().copied().chain(others).collect(),
        outs: instr.outs.iter().chain(&kernel.outs[1..]).copied().collect(),
        node: kernel.node,
        then: Some(Arc::new(Then { formula, params, at })),
    }
}
