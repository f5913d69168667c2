//! boolean_mask, the one operator here whose output shape depends on elements.

use super::super::registry::Registry;
use super::super::{GpuCtx, draw, int, one};
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::scan::launch_scan;
use mxrs_base::{AttrValue, DType, Error, Result, Shape, dispatch};
use mxrs_kernels::index;

/// How many rows there are is known when the mask is: the composition waits for their number, and what remains has a
/// shape that follows from its attributes.
pub fn register(r: &mut Registry) {
    r.op("_contrib_boolean_mask", "The rows of data whose mask is not 0; calling it waits for the mask.")
        .input("data", "an array of one dimension or more")
        .input("index", "the mask, one element for each row")
        .param(int("axis", "only 0: the mask is about rows").or(0).at_least(0.0).at_most(0.0))
        .alias(&["_npi_boolean_mask"])
        .infer(|s| Err(s.fail("the shape of the result depends on the mask's elements")))
        .compose(|b, _, ins| {
            let (data, mask) = (b.shape(ins[0]), b.shape(ins[1]));
            if mask.ndim() != 1 || data.first() != mask.first() {
                return Err(Error::op(format!(
                    "_contrib_boolean_mask: index has shape {mask}; one element for each row of data {data} is expected"
                )));
            }
            let mask_size = mask.size();
            let zero = [("scalar", AttrValue::from(0.0))];
            let held = b.op1("_not_equal_scalar", &[ins[1]], &zero)?;
            // Counted in a wide type: a uint8 mask would wrap.
            let wide = wide(mask_size);
            let held = b.cast(held, wide)?;
            let count = b.sum(held, &[], false)?;
            let count = b.read(count)?[0];
            let rows = b.op1("_held_places", &[ins[1]], &[("count", count.into())])?;
            Ok(one(b.op1("take", &[ins[0], rows], &[])?))
        })
        .sample(&[draw(&[4, 3]), draw(&[4]).indices(2)], &[])
        .sample(&[draw(&[3]), draw(&[3]).within(1.0, 2.0)], &[]);
    r.op("_held_places", "Where a mask is not 0, as int32, or int64 for a mask that needs it.")
        .input("mask", "a vector")
        .param(int("count", "how many elements are not 0").at_least(0.0))
        .infer(|s| {
            let count = s.attrs.size("count");
            if count > s.shape(0).size() {
                return Err(
                    s.fail(format!("count = {count} is not valid; at most the mask's size is allowed"))
                );
            }
            s.one(Shape::new(&[count]), wide(s.shape(0).size()))
        })
        .kernel(|c| {
            let places = dispatch!(c.dtype(0), T => index::mask_places(c.x::<T>(0)));
            if places.len() != c.out_shape(0).size() {
                return Err(c.fail(format!("{} elements are not 0; count says otherwise", places.len())));
            }
            match c.out_dtype(0) {
                DType::I32 => c.y::<i32>(0).iter_mut().zip(places).for_each(|(o, i)| *o = i as i32),
                _ => c.y::<i64>(0).iter_mut().zip(places).for_each(|(o, i)| *o = i as i64),
            }
            Ok(())
        })
        .gpu(held_on_gpu)
        .zero_grad()
        .hidden()
        .sample(&[draw(&[3]).within(1.0, 2.0)], &[("count", 3i64.into())]);
}

/// The type that counts a mask's elements.
fn wide(size: usize) -> DType {
    if i32::try_from(size).is_ok() { DType::I32 } else { DType::I64 }
}

/// The k-th place is the first before which, itself included, k + 1 elements are held.
fn held_on_gpu(c: &GpuCtx) -> Result<()> {
    let (n, name) = (c.shape(0).size(), c.op.name);
    let sums = c.device.alloc(4 * n.max(1) as u64)?;
    let sums = Span::new(&sums, DType::I32);
    let each = Each::new("held", sums).input("mask", c.x(0), Read::Truth);
    let body = || "fn element(e: u32) -> VALUE { return select(0, 1, mask(e)); }\n".into();
    each.launch(c.device, n, body, name)?;
    launch_scan(c.device, sums, (1, n, 1), false, sums, name)?;
    let each = Each::new("held places", c.y(0)).input("sums", sums, Read::Index).size("count", n)?;
    let body = || {
        "fn element(e: u32) -> VALUE {
    var low = 0u;
    var high = p.count;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (sums(middle) <= i32(e)) { low = middle + 1u; } else { high = middle; }
    }
    return VALUE(low);
}\n"
        .into()
    };
    each.launch(c.device, c.out_shape(0).size(), body, name)
}
