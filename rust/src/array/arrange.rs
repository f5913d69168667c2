//! Which kernels a window of held-back calls becomes.

use super::deferred::{Call, Id, Value};
use mxrs_formula::{Formula, Merged};
use smallvec::SmallVec;
use std::sync::Arc;

/// Numbers that one kernel may carry.
const MAX_PARAMS: usize = 64;

/// The kernels of a window, in program order.
pub(super) struct Plan {
    pub steps: Vec<Step>,
}

/// One kernel.
pub(super) struct Step {
    pub formula: Arc<Formula>,
    pub ins: SmallVec<[Id; 8]>,
    pub out: Id,
    /// The calls whose parameters it takes, in order.
    pub params: SmallVec<[u32; 4]>,
    pub label: &'static str,
}

impl Plan {
    /// How often each value is read or written.
    pub fn reads(&self, values: usize) -> Vec<u32> {
        let mut reads = vec![0; values];
        for step in &self.steps {
            step.ins.iter().chain([&step.out]).for_each(|id| reads[*id as usize] += 1);
        }
        reads
    }
}

/// The kernels that compute the `wanted` values. A call whose result only one other call reads is computed inside that
/// one, as long as that reads at most `most` arrays; with 0, every call is its own.
pub(super) fn arrange(calls: &[Call], values: &[Value], wanted: &[bool], most: usize) -> Plan {
    let mut needed = wanted.to_vec();
    let mut keep = vec![false; calls.len()];
    for (n, call) in calls.iter().enumerate().rev() {
        if needed[call.out as usize] {
            keep[n] = true;
            call.ins.iter().for_each(|id| needed[*id as usize] = true);
        }
    }
    let mut readers: Vec<u32> = wanted.iter().map(|w| if *w { 2 } else { 0 }).collect();
    for (call, _) in calls.iter().zip(&keep).filter(|(_, keep)| **keep) {
        for (i, id) in call.ins.iter().enumerate() {
            readers[*id as usize] += !call.ins[..i].contains(id) as u32;
        }
    }
    let mut made: Vec<Option<usize>> = vec![None; values.len()];
    let mut steps: Vec<Option<Step>> = Vec::new();
    for (n, call) in calls.iter().enumerate().filter(|(n, _)| keep[*n]) {
        let step = merge(n, call, values, &made, &mut readers, &mut steps, most);
        made[call.out as usize] = Some(steps.len());
        steps.push(Some(step));
    }
    Plan { steps: steps.into_iter().flatten().collect() }
}

/// The call with the steps that only it reads taken in.
fn merge(
    n: usize,
    call: &Call,
    values: &[Value],
    made: &[Option<usize>],
    readers: &mut [u32],
    steps: &mut [Option<Step>],
    most: usize,
) -> Step {
    let value = |id: Id| &values[id as usize];
    let of = |ins: &[Id], out: Id| value(ins.first().copied().unwrap_or(out)).dtype();
    let dtype = of(&call.ins, call.out);
    let mut merged = Merged::new(call.formula(), &call.ins);
    let mut params: SmallVec<[u32; 4]> = SmallVec::from_slice(&[n as u32]);
    let mut label = call.op.name;
    let mut at = 0;
    while most > 0 && at < merged.ins().len() {
        let id = merged.ins()[at];
        let alone = readers[id as usize] == 1 && value(id).shape == value(call.out).shape;
        let found = made[id as usize].filter(|_| alone && value(id).dtype() == dtype);
        let taken = found.and_then(|s| {
            let step = steps[s].as_ref()?;
            let both: SmallVec<[Id; 4]> =
                merged.ins().iter().filter(|v| step.ins.contains(v)).copied().collect();
            let fits = of(&step.ins, step.out) == dtype
                && merged.formula().params().len() + step.formula.params().len() <= MAX_PARAMS
                && merged.absorb(at, &step.formula, &step.ins, most.max(call.ins.len()));
            fits.then(|| both.iter().for_each(|v| readers[*v as usize] -= 1))?;
            steps[s].take()
        });
        match taken {
            Some(step) => {
                params.extend(step.params);
                label = "fused";
                // A value that stands before may now be read here alone.
                at = 0;
            }
            None => at += 1,
        }
    }
    let (formula, ins) = merged.into_parts();
    Step { formula: Arc::new(formula), ins, out: call.out, params, label }
}
