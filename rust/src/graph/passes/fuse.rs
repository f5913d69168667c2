//! Fuses chains of formulas: a formula whose result only one other formula reads is computed inside that one, so its
//! values stay in registers and the first cache instead of going through memory.

use super::{mutated, uses};
use crate::graph::program::{Instr, Program, ValueId, Work};
use mxrs_formula::{Formula, Part};
use smallvec::SmallVec;
use std::sync::Arc;

/// Arrays that one fused formula may read: each is a stream that the memory system follows.
const MAX_INPUTS: usize = 12;
/// Numbers that one fused formula may carry.
const MAX_PARAMS: usize = 64;

pub fn run(program: &mut Program) {
    let mutated = mutated(program);
    let uses = uses(program);
    let mut producer: Vec<Option<usize>> = vec![None; program.specs.len()];
    let mut keep = vec![true; program.instrs.len()];
    for n in 0..program.instrs.len() {
        if let Some((merged, absorbed)) = absorb(program, n, &uses, &mutated, &producer) {
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
    uses: &[u32],
    mutated: &[bool],
    producer: &[Option<usize>],
) -> Option<(Instr, Vec<usize>)> {
    let instr = &program.instrs[n];
    let (formula, mut params) = instr.formula()?;
    let out = &program.specs[instr.outs[0] as usize];
    // Inputs once each, and only those that the formula reads.
    let mut ins: SmallVec<[ValueId; 8]> = SmallVec::new();
    let mut parts: Vec<Part> = Vec::new();
    for (i, v) in instr.ins.iter().enumerate() {
        let at = match ins.iter().position(|w| w == v) {
            Some(at) => at,
            None if formula.uses(i) => {
                ins.push(*v);
                ins.len() - 1
            }
            None => 0,
        };
        parts.push(Part::Input(at));
    }
    if ins.is_empty() {
        return None;
    }
    let dtype = instr.ins.first().map_or(out.dtype, |v| program.specs[*v as usize].dtype);
    let takes = |v: ValueId| -> Option<usize> {
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
    let mut absorbed = Vec::new();
    let mut base = if ins.len() == instr.ins.len()
        && parts.iter().enumerate().all(|(i, p)| matches!(p, Part::Input(j) if *j == i))
    {
        formula.clone()
    } else {
        formula.compose(ins.len(), &parts)
    };
    let mut at = 0;
    while at < ins.len() {
        let taken = takes(ins[at]).and_then(|p| {
            let from = &program.instrs[p];
            let (inner, more) = from.formula()?;
            take(&base, &ins, at, from, inner, params.len() + more.len()).map(|made| (p, made, more))
        });
        match taken {
            Some((p, (formula, inputs), more)) => {
                absorbed.push(p);
                base = formula;
                ins = inputs;
                params.extend(more);
            }
            None => at += 1,
        }
    }
    if absorbed.is_empty() {
        return None;
    }
    let work = Work::Fused { formula: Arc::new(base), params };
    Some((
        Instr {
            work,
            ins: ins.into_iter().collect(),
            outs: instr.outs.clone(),
            node: instr.node,
            then: None,
        },
        absorbed,
    ))
}

/// `base` with its input `at` computed by `inner` of the call `from`; `None` where that would read too much.
fn take(
    base: &Formula,
    ins: &[ValueId],
    at: usize,
    from: &Instr,
    inner: &Formula,
    params: usize,
) -> Option<(Formula, SmallVec<[ValueId; 8]>)> {
    let mut all: SmallVec<[ValueId; 8]> =
        ins.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, v)| *v).collect();
    let mut places: SmallVec<[usize; 8]> = SmallVec::new();
    for v in &from.ins {
        places.push(match all.iter().position(|w| w == v) {
            Some(place) => place,
            None => {
                all.push(*v);
                all.len() - 1
            }
        });
    }
    if all.len() > MAX_INPUTS || params > MAX_PARAMS {
        return None;
    }
    let parts: Vec<Part> = (0..ins.len())
        .map(|i| match i.cmp(&at) {
            std::cmp::Ordering::Less => Part::Input(i),
            std::cmp::Ordering::Equal => Part::Formula(inner, &places),
            std::cmp::Ordering::Greater => Part::Input(i - 1),
        })
        .collect();
    Some((base.compose(all.len(), &parts), all))
}
