//! Which kernels a window of held-back calls becomes.

use super::deferred::{Call, Id, Value};
use mxrs_formula::{Formula, Merged, Most};
use smallvec::SmallVec;
use std::sync::Arc;

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
/// one, as long as that is no more than `most`; without, every call is its own.
pub(super) fn arrange(calls: &[Call], values: &[Value], wanted: &[bool], most: Option<Most>) -> Plan {
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
        let step = merge((n, call), values, &made, &mut readers, &mut steps, most);
        made[call.out as usize] = Some(steps.len());
        steps.push(Some(step));
    }
    Plan { steps: steps.into_iter().flatten().collect() }
}

/// The call with the steps that only it reads taken in.
fn merge(
    (n, call): (usize, &Call),
    values: &[Value],
    made: &[Option<usize>],
    readers: &mut [u32],
    steps: &mut [Option<Step>],
    most: Option<Most>,
) -> Step {
    let value = |id: Id| &values[id as usize];
    let of = |ins: &[Id], out: Id| value(ins.first().copied().unwrap_or(out)).dtype();
    let dtype = of(&call.ins, call.out);
    let mut merged = Merged::new(call.formula(), &call.ins);
    let mut params: SmallVec<[u32; 4]> = SmallVec::from_slice(&[n as u32]);
    let taken = most.map(|most| {
        merged.absorb_all(readers, most, |id| {
            let maker = made[id as usize]?;
            let step = steps[maker].as_ref()?;
            let fits = value(id).shape == value(call.out).shape && value(id).dtype() == dtype;
            // What it reads must still be there: no step that remains wrote over it, and the result goes elsewhere, or the same
            // element to the same place.
            let there = |id: &Id| {
                let over = |(k, step): (usize, &Option<Step>)| {
                    let written = step.as_ref().filter(|_| k != maker).map(|step| step.out);
                    written.is_some_and(|out| value(out).root == value(*id).root && out > *id)
                };
                let own = value(call.out);
                !steps.iter().enumerate().any(over)
                    && (own.root != value(*id).root || own.place == value(*id).place)
            };
            let fits = fits && step.ins.iter().all(there);
            (fits && of(&step.ins, step.out) == dtype).then_some((maker, &*step.formula, &step.ins[..]))
        })
    });
    let taken = taken.unwrap_or_default();
    let label = if taken.is_empty() { call.op.name } else { "fused" };
    taken.iter().filter_map(|maker| steps[*maker].take()).for_each(|step| params.extend(step.params));
    let (formula, ins) = merged.into_parts();
    Step { formula: Arc::new(formula), ins, out: call.out, params, label }
}

#[cfg(test)]
mod tests {
    use super::super::deferred::Window;
    use super::super::handle::Array;
    use super::*;
    use crate::device::Context;
    use crate::ops::{Attrs, Spec, registry};
    use mxrs_base::{DType, Shape};

    fn array(shape: &[usize]) -> Array {
        Array::empty(Spec::new(Shape::new(shape), DType::F32), Context::CPU).unwrap()
    }

    /// Calls `name`; the result is new, or written over `out`.
    fn call(window: &mut Window, name: &str, ins: &[&Array], out: Option<&Array>) -> Array {
        let op = registry::expect(name);
        let out = out.map_or_else(|| array(ins[0].shape()), Array::clone);
        window.push(op, &Attrs::new(op, &[]).unwrap(), ins, &out);
        out
    }

    /// The kernels as "result = formula of the values", and whether each value is wanted.
    fn kernels(window: &Window, fuse: bool) -> Vec<String> {
        let plan = arrange(&window.calls, &window.values, &window.wanted(), fuse.then(Most::default));
        let text = |step: &Step| format!("{} = {} of {:?}", step.out, step.formula.text(), step.ins);
        plan.steps.iter().map(text).collect()
    }

    #[test]
    fn a_chain_is_one_kernel_and_the_unwanted_is_none() {
        let mut w = Window::default();
        let x = array(&[4]);
        let y = call(&mut w, "exp", &[&x], None);
        let z = call(&mut w, "sin", &[&y], None);
        let dropped = call(&mut w, "cos", &[&y], None);
        drop((y, dropped));
        assert_eq!(kernels(&w, false), ["1 = exp(x0) of [0]", "2 = sin(x0) of [1]"]);
        assert_eq!(kernels(&w, true), ["2 = sin(exp(x0)) of [0]"]);
        drop(z);
        assert!(kernels(&w, true).is_empty());
    }

    #[test]
    fn what_was_written_over_is_not_read_late() {
        let mut w = Window::default();
        let (x, other) = (array(&[4]), array(&[4]));
        let before = call(&mut w, "exp", &[&x], None);
        call(&mut w, "sin", &[&x], Some(&x));
        let sum = call(&mut w, "elemwise_add", &[&before, &other], None);
        drop(before);
        // exp(x) cannot wait until the sum: x is another one by then.
        assert_eq!(kernels(&w, true), ["1 = exp(x0) of [0]", "2 = sin(x0) of [0]", "4 = x0 + x1 of [1, 3]"]);
        drop(sum);
    }

    #[test]
    fn the_last_write_may_read_what_it_replaces() {
        let mut w = Window::default();
        let x = array(&[4]);
        let step = call(&mut w, "exp", &[&x], None);
        let next = call(&mut w, "elemwise_sub", &[&x, &step], None);
        call(&mut w, "_copyto", &[&next], Some(&x));
        drop((step, next));
        assert_eq!(kernels(&w, true), ["3 = x0 - exp(x0) of [0]"]);
    }

    #[test]
    fn other_shapes_are_not_computed_inside() {
        let mut w = Window::default();
        let (row, x) = (array(&[1, 4]), array(&[2, 4]));
        let y = call(&mut w, "exp", &[&row], None);
        let sum = call(&mut w, "broadcast_add", &[&x, &y], None);
        drop(y);
        assert_eq!(kernels(&w, true), ["1 = exp(x0) of [0]", "3 = x0 + x1 of [2, 1]"]);
        drop(sum);
    }
}
