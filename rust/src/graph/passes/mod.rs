//! Passes over programs, in the order in which they run. Each keeps every output and gradient as it was.

mod budget;
mod constant;
mod cse;
mod dead;
mod epilogue;
mod flow;
mod fuse;
mod identity;
mod late;
mod recompute;
mod result;
mod sums;

use super::program::{Program, ValueId};
pub use budget::Search;

/// A pass: its name, for pictures and switches, and what it does.
pub type Pass = (&'static str, fn(&mut Program));

/// What a forward phase goes through before its gradient is added.
pub const ORDER: &[Pass] = &[("late", late::run)];

/// What every program goes through then: what is computed.
pub const REDUCE: &[Pass] = &[
    ("dead", dead::run),
    ("constant", constant::run),
    ("identity", identity::run),
    ("cse", cse::run),
    ("result", result::run),
    ("sums", sums::run),
];

/// And at last: in which calls, and when. What the search for a memory budget chooses stands between the two.
pub const ARRANGE: &[Pass] =
    &[("recompute", recompute::run), ("fuse", fuse::run), ("epilogue", epilogue::run), ("dead", dead::run)];

/// Runs passes, without those that `MXRS_PASSES_OFF` names (for finding out which one is to blame).
pub fn run(passes: &[Pass], program: &mut Program) {
    let off = std::env::var("MXRS_PASSES_OFF").unwrap_or_default();
    for (name, pass) in passes {
        if !off.split(',').any(|o| o == *name) {
            pass(program);
        }
    }
}

/// Which values some call writes in place: what reads them must keep its place.
fn mutated(program: &Program) -> Vec<bool> {
    let mut out = vec![false; program.specs.len()];
    for instr in &program.instrs {
        instr.mutated().for_each(|v| out[v as usize] = true);
    }
    out
}

/// How many calls read a value; outputs count as read by many.
fn uses(program: &Program) -> Vec<u32> {
    let mut uses = vec![0; program.specs.len()];
    for instr in &program.instrs {
        for (i, v) in instr.ins.iter().enumerate() {
            if !instr.ins[..i].contains(v) {
                uses[*v as usize] += 1;
            }
        }
    }
    program.outputs.iter().for_each(|v| uses[*v as usize] += 2);
    uses
}

/// Keeps the calls that `keep` says, and the count of forward calls right.
fn retain(program: &mut Program, keep: &[bool]) {
    program.forward = keep[..program.forward].iter().filter(|k| **k).count();
    let mut keep = keep.iter();
    program.instrs.retain(|_| *keep.next().unwrap_or(&true));
}

/// Gives every use of a value another one.
fn rename(program: &mut Program, to: &[ValueId]) {
    for instr in &mut program.instrs {
        instr.ins.iter_mut().for_each(|v| *v = to[*v as usize]);
    }
    program.outputs.iter_mut().for_each(|v| *v = to[*v as usize]);
}
