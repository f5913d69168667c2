//! Slopes that ask only for the sign of a function's input ask its result instead, where that has the same sign: behind
//! a rectifier the result is needed by the next layer's gradient anyway, so the input need not live until then, and
//! the forward phase may write the result over it.

use super::mutated;
use crate::graph::program::{Program, ValueId};

pub fn run(program: &mut Program) {
    let mut to: Vec<Option<ValueId>> = vec![None; program.specs.len()];
    let mutated = mutated(program);
    let mut given = vec![false; program.specs.len()];
    program.inputs.iter().chain(&program.outputs).for_each(|v| given[*v as usize] = true);
    for instr in &program.instrs[..program.forward] {
        let Some((formula, params)) = instr.formula() else { continue };
        let (&[x], &[y]) = (&instr.ins[..], &instr.outs[..]) else { continue };
        // What the user can write to, or has anyway, is left as it is.
        let own = [x, y].iter().all(|v| !given[*v as usize] && !mutated[*v as usize]);
        if own && program.specs[x as usize] == program.specs[y as usize] && formula.keeps_sign(&params) {
            to[x as usize] = Some(y);
        }
    }
    // One reader in the backward phase that needs the value itself keeps it alive, and nothing is gained.
    let back = &program.instrs[program.forward..];
    for instr in back {
        for (i, v) in instr.ins.iter().enumerate() {
            if to[*v as usize].is_some()
                && !instr.formula().is_some_and(|(f, _)| f.reads_only_sign(i) || !f.uses(i))
            {
                to[*v as usize] = None;
            }
        }
    }
    for instr in &mut program.instrs[program.forward..] {
        for v in &mut instr.ins {
            *v = to[*v as usize].unwrap_or(*v);
        }
    }
}
