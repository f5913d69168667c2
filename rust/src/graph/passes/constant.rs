//! Calls that depend on nothing are done now: their results are kept with the plan, and the other passes see values that
//! are simply there.

use crate::array::Array;
use crate::device::Context;
use crate::graph::program::{Program, ValueId};
use crate::ops::{RngPos, View};
use mxrs_base::Result;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Larger results are cheaper to compute than to keep. Bytes.
const LARGEST: usize = 1 << 20;

pub fn run(program: &mut Program) {
    let mut known: HashMap<ValueId, Array> = HashMap::new();
    let mut keep = vec![true; program.instrs.len()];
    for (n, instr) in program.instrs.iter().enumerate() {
        let bytes: usize =
            instr.outs.iter().map(|v| program.specs[*v as usize].bytes().unwrap_or(LARGEST)).sum();
        let constant = instr.ins.iter().all(|v| known.contains_key(v));
        if !constant || instr.is_random() || instr.mutated().next().is_some() || bytes >= LARGEST {
            continue;
        }
        // A call that fails is left to fail, with its node's name, when the plan runs.
        let Ok(made) = evaluated(program, n, &known) else { continue };
        known.extend(instr.outs.iter().copied().zip(made));
        keep[n] = false;
    }
    if known.is_empty() {
        return;
    }
    super::retain(program, &keep);
    let mut used = vec![false; program.specs.len()];
    program.instrs.iter().flat_map(|i| &i.ins).chain(&program.outputs).for_each(|v| used[*v as usize] = true);
    let mut consts: Vec<(ValueId, Array)> = known.into_iter().filter(|(v, _)| used[*v as usize]).collect();
    consts.sort_by_key(|(v, _)| *v);
    program.consts.extend(consts);
}

/// The results of call `n`, whose inputs are all known.
fn evaluated(program: &Program, n: usize, known: &HashMap<ValueId, Array>) -> Result<Vec<Array>> {
    let instr = &program.instrs[n];
    let mut made = Vec::new();
    for v in &instr.outs {
        made.push(Array::empty(program.specs[*v as usize].clone(), Context::CPU)?);
    }
    let ins: SmallVec<[View; 4]> = instr
        .ins
        .iter()
        .filter_map(|v| known.get(v).map(|a| View { ptr: a.ptr(), spec: &program.specs[*v as usize] }))
        .collect();
    {
        let outs: SmallVec<[View; 2]> = made.iter().map(|a| View { ptr: a.ptr(), spec: a.spec() }).collect();
        instr.run(&ins, &outs, program.train, RngPos::default())?;
    }
    Ok(made)
}
