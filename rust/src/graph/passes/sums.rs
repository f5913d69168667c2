//! Long sums of gradients are taken as their parts come. A weight that is used in every step of a recurrent network gets
//! a gradient from each; adding all up at the end keeps every one of them until then, adding a few at a time keeps
//! a few. The order of the additions, and so the result, stays the same.

use crate::graph::program::{Instr, Program, Work};
use crate::ops::Attrs;
use mxrs_base::DType;
use smallvec::{SmallVec, smallvec};

/// Parts that are added at once: one pass over the sum for so many passes over parts.
const AT_ONCE: usize = 4;
/// Smaller parts may wait. Bytes.
const LARGE: usize = 4096;

pub fn run(program: &mut Program) {
    let mut made = vec![0; program.specs.len()];
    for (n, instr) in program.instrs.iter().enumerate() {
        instr.outs.iter().for_each(|v| made[*v as usize] = n);
    }
    let mut after: Vec<SmallVec<[Instr; 1]>> = vec![SmallVec::new(); program.instrs.len()];
    for n in program.forward..program.instrs.len() {
        if is_long_sum(&program.instrs[n], program) {
            split(program, n, &made, &mut after);
        }
    }
    if after.iter().all(SmallVec::is_empty) {
        return;
    }
    let instrs = std::mem::take(&mut program.instrs);
    program.instrs =
        instrs.into_iter().zip(after).flat_map(|(i, more)| std::iter::once(i).chain(more)).collect();
}

fn is_long_sum(instr: &Instr, program: &Program) -> bool {
    let spec = &program.specs[instr.outs[0] as usize];
    let exact = matches!(spec.dtype, DType::F32 | DType::F64);
    instr.name() == "add_n" && instr.ins.len() > AT_ONCE && exact && spec.bytes().is_ok_and(|b| b >= LARGE)
}

/// Takes the sum of call `n` in several; all but the last stand behind the calls that make their parts.
fn split(program: &mut Program, n: usize, made: &[usize], after: &mut [SmallVec<[Instr; 1]>]) {
    let instr = program.instrs[n].clone();
    let Work::Op { op, .. } = &instr.work else { return };
    let spec = program.specs[instr.outs[0] as usize].clone();
    let mut ins: SmallVec<[u32; 4]> = SmallVec::new();
    let mut place = program.forward;
    let call = |ins: SmallVec<[u32; 4]>, outs| {
        let count = ("num_args", (ins.len() as i64).into());
        let given = op.param_index(count.0).map(|_| count);
        let attrs = Attrs::new(op, given.as_slice()).ok()?;
        Some(Instr { work: Work::Op { op, attrs }, ins, outs, node: instr.node, then: None })
    };
    for (i, part) in instr.ins.iter().enumerate() {
        ins.push(*part);
        place = place.max(made[*part as usize]);
        if ins.len() == AT_ONCE && i + 1 < instr.ins.len() && place < n {
            let sum = program.value(spec.clone());
            let Some(partial) = call(std::mem::take(&mut ins), smallvec![sum]) else { return };
            after[place].push(partial);
            ins.push(sum);
        }
    }
    if let Some(last) = call(ins, instr.outs.clone()) {
        program.instrs[n] = last;
    }
}
