//! Where the extremes of long rows stand: segments first, then the best of them.
//!
//! [`launch_reduce`] gives a row to one workgroup where positions are asked for. Here a row is cut; of equal segments
//! the first has the first position.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::{Num, Span};
use crate::shaders::reduce::{Fold, Reduction, launch_reduce};
use crate::shaders::rows::{Around, whole};
use mxrs_base::{DType, Result};
use mxrs_gpu::Device;

/// Elements of a segment.
const SEGMENT: usize = 4096;

fn behind(span: Span, by: usize) -> Span {
    Span { offset: span.offset + by, ..span }
}

/// `y` (outer, inner): where the largest (`max`) or smallest elements of `x` (outer, n, inner) stand along the middle.
///
/// # Errors
/// As [`launch_reduce`].
pub fn launch_position(
    device: &Device,
    max: bool,
    around: Around,
    x: Span,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let (outer, n, inner) = around;
    let op = if max { Fold::ArgMax } else { Fold::ArgMin };
    let is_long = n >= 8 * SEGMENT && outer * inner < 64 && outer <= 4;
    if !is_long {
        return launch_reduce(device, op, &[outer, n, inner], &[1], x.strided(&whole(around)), y, label);
    }
    let segments = n.div_ceil(SEGMENT);
    let dtype = if Num::among([x.dtype]) == Num::F32 { DType::F32 } else { DType::I32 };
    let room = || device.alloc(4 * (segments * inner) as u64);
    let (values, places, best) = (room()?, room()?, device.alloc(4 * inner as u64)?);
    let (values, places) = (Span::new(&values, dtype), Span::new(&places, DType::I32));
    let best = Span::new(&best, DType::I32);
    let extreme = if max { Reduction::Max } else { Reduction::Min };
    for row in 0..outer {
        let x = behind(x, row * n * inner);
        // Whole segments, then what is left.
        for (first, count, len) in
            [(0, n / SEGMENT, SEGMENT), (n / SEGMENT, segments - n / SEGMENT, n % SEGMENT)]
        {
            let (dims, from) = ([count, len, inner], behind(x, first * SEGMENT * inner));
            let steps = whole((count, len, inner));
            let (value, place) = (behind(values, first * inner), behind(places, first * inner));
            launch_reduce(device, extreme, &dims, &[1], from.strided(&steps), value, label)?;
            launch_reduce(device, op, &dims, &[1], from.strided(&steps), place, label)?;
        }
        let steps = [inner as isize, 1];
        launch_reduce(device, op, &[segments, inner], &[0], values.strided(&steps), best, label)?;
        let each = Each::new("position", behind(y, row * inner)).input("best", best, Read::Index);
        let each =
            each.input("places", places, Read::Index).size("inner", inner)?.size("segment", SEGMENT)?;
        let body = || {
            "fn element(e: u32) -> VALUE {
    let at = u32(best(e));
    return VALUE(at * p.segment + u32(places(at * p.inner + e)));
}\n"
            .into()
        };
        each.launch(device, inner, body, label)?;
    }
    Ok(())
}
