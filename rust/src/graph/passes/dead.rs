//! Drops calls whose results nobody uses. Calls that write states stay.

use crate::graph::program::Program;

pub fn run(program: &mut Program) {
    let mut needed = vec![false; program.specs.len()];
    program.outputs.iter().for_each(|v| needed[*v as usize] = true);
    let mut keep = vec![false; program.instrs.len()];
    for (n, instr) in program.instrs.iter().enumerate().rev() {
        if instr.outs.iter().any(|v| needed[*v as usize]) || instr.mutated().next().is_some() {
            keep[n] = true;
            instr.ins.iter().for_each(|v| needed[*v as usize] = true);
        }
    }
    super::retain(program, &keep);
}
