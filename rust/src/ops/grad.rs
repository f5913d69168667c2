//! The gradient of a recorded call: its rule, or what follows from its formula.

use super::attrs::Attrs;
use super::build::{Build, GradArgs, Grads, Value};
use super::def::{Body, Gradient};
use mxrs_base::{Error, Result};
use smallvec::SmallVec;

/// The gradients of the call's inputs, given those of its outputs.
pub fn gradients(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    match (&g.op.gradient, &g.op.body) {
        (Gradient::Rule(rule), _) => {
            let grads = rule(b, g)?;
            debug_assert_eq!(grads.len(), g.ins.len(), "{} gives a gradient per input", g.op.name);
            Ok(grads)
        }
        (Gradient::Zero, _) => Ok(g.none()),
        (Gradient::Derived, Body::Formula { .. }) => of_formula(b, g),
        (Gradient::Derived, _) | (Gradient::Refused, _) => {
            Err(Error::op(format!("operator {} has no gradient", g.op.name)))
        }
    }
}

fn of_formula(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let mut grads = g.none();
    let Some(head) = g.heads[0] else { return Ok(grads) };
    for (i, derivative) in g.op.derivatives().iter().enumerate() {
        let (Some(derivative), true) = (derivative, g.need[i]) else { continue };
        let Body::Formula { formula, .. } = &derivative.body else { continue };
        let full = if formula.is_input(0) {
            head
        } else {
            // Inputs that the derivative does not look at are not kept; the head stands in their place.
            let n = g.ins.len();
            let inputs: SmallVec<[Value; 6]> = (0..n + 2)
                .map(|j| match j {
                    _ if j == 0 || !formula.uses(j) => head,
                    _ if j == n + 1 => g.outs[0],
                    _ => g.ins[j - 1],
                })
                .collect();
            let values = derivative.params.iter().map(|p| g.attrs.get(p.name).clone()).collect();
            b.call(derivative, Attrs::from_values(derivative, values), &inputs)?[0]
        };
        let shape = b.spec(g.ins[i]).shape.clone();
        grads[i] = Some(b.sum_to(full, &shape)?);
    }
    Ok(grads)
}
