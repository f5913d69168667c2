//! Operators that give the same elements another arrangement: reshaping, permuting, repeating, padding, columns.
//!
//! Every one of them is a [`View`](mxrs_kernels::copy::View) of its input (or two for padding), so the kernels here
//! only say which; the gradients are other operators of this family, slices, or [`Build::sum_to`](super::Build).
//! Selecting parts of an array is `slice`, putting arrays together is `join`.

mod axes;
mod columns;
pub(super) mod movement;
mod pad;
mod repeat;
mod reshape;

use super::registry::Registry;

pub fn register(r: &mut Registry) {
    reshape::register(r);
    axes::register(r);
    repeat::register(r);
    pad::register(r);
    columns::register(r);
}
