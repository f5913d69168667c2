//! The flow of values: a light picture of a program in which plans of recomputation are tried out quickly. It says in
//! which order calls run when chosen nodes are computed again in the backward phase, how much memory that needs, and
//! what it costs. Ranges of real memory are `exec`'s: its block is a little larger where free ranges do not fit.

use crate::graph::program::{Instr, Program, ValueId};
use crate::ops::Spec;
use smallvec::SmallVec;
use std::ops::Range;

const NONE: u32 = u32::MAX;
/// Values start at multiples of a cache line.
const ALIGN: usize = 64;

/// A program's calls, without what they compute.
pub struct Flow {
    calls: Vec<Call>,
    values: Vec<ValueId>,
    forward: usize,
    /// Bytes of a value in the working memory: none for inputs, constants, outputs and gradients, which have arrays of their own.
    bytes: Vec<usize>,
    /// The forward call that makes a value which may be made again.
    producer: Vec<u32>,
    /// Values that must be there at the end.
    wanted: Vec<bool>,
}

struct Call {
    ins: Range<u32>,
    outs: Range<u32>,
    mutated: SmallVec<[ValueId; 2]>,
    node: u32,
    /// Estimated nanoseconds.
    cost: f64,
    /// Gives the same when it is called again.
    steady: bool,
    /// Gives its input under another shape.
    view: bool,
    /// May write over an input that is not read again.
    over: bool,
}

/// One call of a sequence: `outs` are new values where it is made again.
pub struct Item {
    pub call: u32,
    pub again: bool,
    ins: Range<u32>,
    outs: Range<u32>,
}

/// The calls in the order in which they run.
pub struct Sequence {
    pub items: Vec<Item>,
    values: Vec<ValueId>,
    /// For each value beyond the program's own: which one it repeats.
    pub repeats: Vec<ValueId>,
}

impl Sequence {
    pub fn ins(&self, item: &Item) -> &[ValueId] {
        &self.values[item.ins.start as usize..item.ins.end as usize]
    }
    pub fn outs(&self, item: &Item) -> &[ValueId] {
        &self.values[item.outs.start as usize..item.outs.end as usize]
    }
    fn store(&mut self, values: impl IntoIterator<Item = ValueId>) -> Range<u32> {
        let start = self.values.len() as u32;
        self.values.extend(values);
        start..self.values.len() as u32
    }
}

/// What a plan comes to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// Bytes at the fullest moment.
    pub peak: usize,
    /// Estimated nanoseconds of what is computed again.
    pub cost: f64,
}

impl Score {
    /// Whether this is less memory, or as much for less work.
    pub fn is_below(&self, other: &Score) -> bool {
        self.peak < other.peak || self.peak == other.peak && self.cost < other.cost
    }
}

impl Flow {
    pub fn of(program: &Program) -> Flow {
        let mut values = Vec::new();
        let mut store = |list: &[ValueId]| {
            let start = values.len() as u32;
            values.extend_from_slice(list);
            start..values.len() as u32
        };
        let call = |instr: &Instr| Call {
            ins: store(&instr.ins),
            outs: store(&instr.outs),
            mutated: instr.mutated().collect(),
            node: instr.node,
            cost: if instr.is_view() { 0.0 } else { instr.cost(&program.specs) },
            steady: !instr.is_random() && instr.mutated().next().is_none(),
            view: instr.is_view() && instr.outs.len() == 1,
            over: instr.formula().is_some(),
        };
        let calls: Vec<Call> = program.instrs.iter().map(call).collect();
        let mut wanted = vec![false; program.specs.len()];
        program.outputs.iter().for_each(|v| wanted[*v as usize] = true);
        let size = |s: &Spec| s.bytes().unwrap_or(usize::MAX / 4).max(1).next_multiple_of(ALIGN);
        let mut bytes: Vec<usize> = program.specs.iter().map(size).collect();
        let consts = program.consts.iter().map(|(v, _)| v);
        program.inputs.iter().chain(consts).chain(&program.outputs).for_each(|v| bytes[*v as usize] = 0);
        let mut producer = vec![NONE; program.specs.len()];
        for (n, instr) in
            program.instrs[..program.forward].iter().enumerate().filter(|(n, _)| calls[*n].steady)
        {
            // Outputs are kept for the user anyway.
            instr
                .outs
                .iter()
                .filter(|v| !wanted[**v as usize])
                .for_each(|v| producer[*v as usize] = n as u32);
        }
        Flow { calls, values, forward: program.forward, bytes, producer, wanted }
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    fn ins(&self, call: &Call) -> &[ValueId] {
        &self.values[call.ins.start as usize..call.ins.end as usize]
    }
    fn outs(&self, call: &Call) -> &[ValueId] {
        &self.values[call.outs.start as usize..call.outs.end as usize]
    }

    /// For every node: the bytes of the results that its calls could give up, and the nanoseconds to make them again.
    /// Views cost nothing and hold nothing.
    pub fn nodes(&self, count: usize) -> Vec<(usize, f64)> {
        let mut nodes = vec![(0, 0.0); count];
        for call in self.calls[..self.forward].iter().filter(|c| c.steady && !c.view) {
            let (bytes, cost) = &mut nodes[call.node as usize];
            *bytes += self.outs(call).iter().map(|v| self.bytes[*v as usize]).sum::<usize>();
            *cost += call.cost;
        }
        nodes
    }

    /// Nodes whose calls only give views.
    pub fn views(&self, count: usize) -> Vec<bool> {
        let mut views = vec![true; count];
        self.calls[..self.forward].iter().for_each(|c| views[c.node as usize] &= c.view);
        views
    }

    /// The order of the calls when those of the `chosen` nodes are made again where the backward phase needs them.
    pub fn sequence(&self, chosen: &[bool]) -> Sequence {
        let mut out =
            Sequence { items: Vec::with_capacity(self.calls.len()), values: Vec::new(), repeats: Vec::new() };
        let mut written = vec![false; self.bytes.len()];
        let mut copy = vec![NONE; self.bytes.len()];
        let mut open = Vec::new();
        for (n, call) in self.calls.iter().enumerate() {
            if n >= self.forward {
                for v in self.ins(call) {
                    self.make_again(*v, chosen, &written, &mut copy, &mut open, &mut out);
                }
            }
            let read = |v: &ValueId| if copy[*v as usize] == NONE { *v } else { copy[*v as usize] };
            let ins = out.store(self.ins(call).iter().map(read));
            let outs = out.store(self.outs(call).iter().copied());
            out.items.push(Item { call: n as u32, again: false, ins, outs });
            call.mutated.iter().for_each(|v| written[*v as usize] = true);
        }
        out
    }

    /// Adds the calls that make `v` again, those it depends on first.
    fn make_again(
        &self,
        v: ValueId,
        chosen: &[bool],
        written: &[bool],
        copy: &mut [u32],
        open: &mut Vec<ValueId>,
        out: &mut Sequence,
    ) {
        // Not where it was made again before, may not be, or depends on a state that was written since.
        let todo = |w: ValueId, copy: &[u32]| -> Option<&Call> {
            let n = self.producer[w as usize];
            let call = self.calls.get(n as usize).filter(|_| copy[w as usize] == NONE)?;
            let can = chosen[call.node as usize] && !self.ins(call).iter().any(|x| written[*x as usize]);
            can.then_some(call)
        };
        open.push(v);
        while let Some(&top) = open.last() {
            let Some(call) = todo(top, copy) else {
                open.pop();
                continue;
            };
            let before = open.len();
            open.extend(self.ins(call).iter().copied().filter(|w| todo(*w, copy).is_some()));
            if open.len() > before {
                continue;
            }
            open.pop();
            let read = |v: &ValueId| if copy[*v as usize] == NONE { *v } else { copy[*v as usize] };
            let ins = out.store(self.ins(call).iter().map(read));
            let first = (self.bytes.len() + out.repeats.len()) as u32;
            out.repeats.extend(self.outs(call));
            let outs = out.store((0..call.outs.len() as u32).map(|i| first + i));
            for (i, w) in self.outs(call).iter().enumerate() {
                copy[*w as usize] = first + i as u32;
            }
            out.items.push(Item { call: self.producer[top as usize], again: true, ins, outs });
        }
    }

    /// What the plan that makes the `chosen` nodes again comes to.
    pub fn score(&self, chosen: &[bool]) -> Score {
        let sequence = self.sequence(chosen);
        let own = self.bytes.len();
        let total = own + sequence.repeats.len();
        let origin =
            |v: ValueId| if (v as usize) < own { v } else { sequence.repeats[v as usize - own] } as usize;
        let bytes = |v: ValueId| self.bytes[origin(v)];
        // What nobody reads is not computed.
        let mut needed = vec![false; total];
        needed[..own].copy_from_slice(&self.wanted);
        let mut alive = vec![false; sequence.items.len()];
        for (i, item) in sequence.items.iter().enumerate().rev() {
            let call = &self.calls[item.call as usize];
            if !call.mutated.is_empty() || sequence.outs(item).iter().any(|v| needed[*v as usize]) {
                alive[i] = true;
                sequence.ins(item).iter().for_each(|v| needed[*v as usize] = true);
            }
        }
        // Views share what they look at; memory is held to the last reader.
        let mut root: Vec<u32> = (0..total as u32).collect();
        let mut last = vec![0; total];
        for (i, item) in sequence.items.iter().enumerate().filter(|(i, _)| alive[*i]) {
            let (ins, outs) = (sequence.ins(item), sequence.outs(item));
            if self.calls[item.call as usize].view && !self.wanted[origin(outs[0])] {
                root[outs[0] as usize] = root[ins[0] as usize];
            }
            ins.iter().for_each(|v| last[root[*v as usize] as usize] = i);
        }
        let mut held = vec![false; total];
        let (mut live, mut score) = (0usize, Score { peak: 0, cost: 0.0 });
        for (i, item) in sequence.items.iter().enumerate().filter(|(i, _)| alive[*i]) {
            let (ins, outs) = (sequence.ins(item), sequence.outs(item));
            let call = &self.calls[item.call as usize];
            score.cost += if item.again { call.cost } else { 0.0 };
            if root[outs.first().copied().unwrap_or(0) as usize] != outs.first().copied().unwrap_or(0) {
                // A view lets go of what it looks at only when its own readers are done.
                continue;
            }
            let takes = |r: u32| held[r as usize] && last[r as usize] == i && bytes(r) == bytes(outs[0]);
            let over = match call.over && outs.len() == 1 {
                true => ins.iter().map(|v| root[*v as usize]).find(|r| takes(*r)),
                false => None,
            };
            match over {
                Some(r) => {
                    held[r as usize] = false;
                    held[outs[0] as usize] = true;
                }
                None => outs.iter().filter(|v| bytes(**v) > 0).for_each(|v| {
                    held[*v as usize] = true;
                    live += bytes(*v);
                }),
            }
            score.peak = score.peak.max(live);
            for v in ins.iter().map(|v| root[*v as usize]).chain(outs.iter().copied()) {
                if held[v as usize] && last[v as usize] <= i {
                    held[v as usize] = false;
                    live -= bytes(v);
                }
            }
        }
        score
    }

    /// Places between forward calls, and what it takes to begin again there.
    pub fn cuts(&self, chosen: &[bool]) -> Vec<usize> {
        let mut change = vec![0isize; self.forward + 1];
        for (n, end, v) in self.crossings() {
            let call = &self.calls[n as usize];
            if chosen[call.node as usize] {
                // The value is needed at every place behind its call up to its last reader.
                change[n as usize + 1] += self.bytes[v as usize] as isize;
                change[end as usize + 1] -= self.bytes[v as usize] as isize;
            }
        }
        let mut sum = 0;
        change
            .iter()
            .map(|c| {
                sum += c;
                sum as usize
            })
            .collect()
    }

    /// The nodes whose results are needed behind place `at` of the forward phase and made before it.
    pub fn crossing(&self, places: &[usize], count: usize) -> Vec<bool> {
        let mut out = vec![false; count];
        for (n, end, _) in self.crossings() {
            // The first place behind the call.
            let next = places.partition_point(|p| *p <= n as usize);
            if places.get(next).is_some_and(|p| *p <= end as usize) {
                out[self.calls[n as usize].node as usize] = true;
            }
        }
        out
    }

    /// Values of the forward phase: the call that makes one, the last forward call that reads it (or a view of it), and
    /// the value.
    fn crossings(&self) -> Vec<(u32, u32, ValueId)> {
        let mut made = vec![NONE; self.bytes.len()];
        let mut root: Vec<u32> = (0..self.bytes.len() as u32).collect();
        let mut last = vec![0; self.bytes.len()];
        for (n, call) in self.calls[..self.forward].iter().enumerate() {
            self.ins(call).iter().for_each(|v| last[root[*v as usize] as usize] = n as u32);
            match call.view {
                true => root[self.outs(call)[0] as usize] = root[self.ins(call)[0] as usize],
                false => self.outs(call).iter().for_each(|v| made[*v as usize] = n as u32),
            }
        }
        let values = (0..self.bytes.len()).filter(|v| made[*v] != NONE && last[*v] > made[*v]);
        values.map(|v| (made[v], last[v], v as u32)).collect()
    }

    /// Bytes of the results of every forward call that the chosen nodes would give up, with the call's node.
    pub fn sizes(&self, chosen: &[bool]) -> Vec<usize> {
        let size = |c: &Call| -> usize {
            let counts = chosen[c.node as usize] && c.steady && !c.view;
            if counts { self.outs(c).iter().map(|v| self.bytes[*v as usize]).sum() } else { 0 }
        };
        self.calls[..self.forward].iter().map(size).collect()
    }
}
