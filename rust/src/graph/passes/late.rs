//! Calls whose results take more memory than they set free wait until a result is read. A symbol's order puts the input
//! products of all steps of an unrolled recurrent network before the first step; here each comes to its step. It
//! runs before the gradient is added, whose calls follow the order of these in reverse.
//!
//! Calls that draw random numbers, write states or read states stay in their order.

use super::mutated;
use crate::graph::program::Program;

pub fn run(program: &mut Program) {
    let count = program.instrs.len();
    let mutated = mutated(program);
    let mut producer = vec![usize::MAX; program.specs.len()];
    let mut last = vec![usize::MAX; program.specs.len()];
    for (n, instr) in program.instrs.iter().enumerate() {
        instr.ins.iter().for_each(|v| last[*v as usize] = n);
        instr.outs.iter().for_each(|v| producer[*v as usize] = n);
    }
    let bytes = |v: &u32| program.specs[*v as usize].bytes().unwrap_or(usize::MAX / 1024);
    let waits = |n: usize| {
        let instr = &program.instrs[n];
        let steady = !instr.is_random() && instr.mutated().next().is_none();
        let read = instr.outs.iter().any(|v| last[*v as usize] != usize::MAX);
        if !steady || !read || instr.ins.iter().any(|v| mutated[*v as usize]) {
            return false;
        }
        let dies = |i: usize, v: u32| {
            last[v as usize] == n && producer[v as usize] != usize::MAX && !instr.ins[..i].contains(&v)
        };
        let freed: usize =
            instr.ins.iter().enumerate().filter(|(i, v)| dies(*i, **v)).map(|(_, v)| bytes(v)).sum();
        // Clearly more: small outputs beside one as large as the input are no reason.
        instr.outs.iter().map(bytes).sum::<usize>() > freed + freed / 4
    };
    let waiting: Vec<bool> = (0..count).map(waits).collect();
    let mut done = vec![false; count];
    let mut order = Vec::with_capacity(count);
    let mut open = Vec::new();
    for n in (0..count).filter(|n| !waiting[*n]).chain(0..count) {
        open.push(n);
        while let Some(&top) = open.last() {
            let before = open.len();
            if !done[top] {
                let makers = program.instrs[top].ins.iter().rev().map(|v| producer[*v as usize]);
                open.extend(makers.filter(|p| *p != usize::MAX && waiting[*p] && !done[*p]));
            }
            if open.len() == before {
                open.pop();
                if !std::mem::replace(&mut done[top], true) {
                    order.push(top);
                }
            }
        }
    }
    program.instrs = order.into_iter().map(|n| program.instrs[n].clone()).collect();
}
