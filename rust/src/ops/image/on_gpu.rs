//! Operators on images on GPUs: strides, and for resizing the host's weights.

use super::super::GpuCtx;
use super::{extents, of_channel, taps};
use crate::shaders::copy::{launch_cast, launch_copy, launch_fill};
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::map::launch_map;
use mxrs_base::{DType, Result, Shape};
use mxrs_formula::Formula;
use mxrs_kernels::parts::bytes_of;
use std::sync::LazyLock;

static SHARE: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["most"], |a| a.x(0) / a.param("most")));
static NORMAL: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["mean", "std"], |a| (a.x(0) - a.param("mean")) / a.param("std")));

/// Input 0 in float32, where it holds whole numbers: what becomes of them is a fraction.
fn floating<'a>(c: &GpuCtx<'a>, room: &'a mut Option<mxrs_gpu::Buffer>) -> Result<Span<'a>> {
    if c.dtype(0).is_float() {
        return Ok(c.x(0));
    }
    let n = c.shape(0).size();
    let buffer: &'a mxrs_gpu::Buffer = room.insert(c.device.alloc(4 * n.max(1) as u64)?);
    let wide = Span::new(buffer, DType::F32);
    launch_cast(c.device, n, c.x(0), wide, c.op.name)?;
    Ok(wide)
}

/// `n` matrices (rows, columns) transposed and divided by 255.
pub(super) fn turn(c: &GpuCtx, n: usize, rows: usize, columns: usize) -> Result<()> {
    let mut room = None;
    let x = floating(c, &mut room)?;
    let size = (rows * columns) as isize;
    let (from, to) = ([size, 1, columns as isize], [size, rows as isize, 1]);
    let dims = [n, columns, rows];
    launch_map(c.device, &SHARE, &[255.0], &dims, &[x.strided(&from)], c.y(0).strided(&to), c.op.name)
}

pub(super) fn normalize(c: &GpuCtx) -> Result<()> {
    let (n, channels, h, w) = extents(c.shape(0));
    let (means, stds) = (c.attrs.floats("mean"), c.attrs.floats("std"));
    let mut room = None;
    let x = floating(c, &mut room)?;
    let strides = [(channels * h * w) as isize, 1];
    for channel in 0..channels {
        let plane = |span: Span<'_>| span.offset + channel * h * w;
        let (from, to) = (Span { offset: plane(x), ..x }, Span { offset: plane(c.y(0)), ..c.y(0) });
        let numbers = [of_channel(means, channel), of_channel(stds, channel)];
        let ins = [from.strided(&strides)];
        launch_map(c.device, &NORMAL, &numbers, &[n, h * w], &ins, to.strided(&strides), c.op.name)?;
    }
    Ok(())
}

/// Columns in reverse order, or rows.
pub(super) fn flip(c: &GpuCtx, across: bool) -> Result<()> {
    let (_, h, w, channels) = extents(c.shape(0));
    let (outer, count, unit) = if across { (h, w, channels) } else { (1, h, w * channels) };
    if outer * count * unit == 0 {
        return Ok(());
    }
    let (block, step) = ((count * unit) as isize, unit as isize);
    let mut x = c.x(0);
    x.offset += (count - 1) * unit;
    let (from, to) = ([block, -step, 1], [block, step, 1]);
    launch_copy(c.device, &[outer, count, unit], x.strided(&from), c.y(0).strided(&to), c.op.name)
}

/// The window of an image, or, `back`, zeros around it.
pub(super) fn window(c: &GpuCtx, image: &Shape, back: bool) -> Result<()> {
    let (n, h, w, channels) = extents(image);
    let get = |name| c.attrs.size(name);
    let (height, line) = (get("height"), get("width") * channels);
    let whole = [(h * w * channels) as isize, (w * channels) as isize, 1];
    let part = [(height * line) as isize, line as isize, 1];
    let first = (get("y") * w + get("x")) * channels;
    let (mut x, mut y) = (c.x(0), c.y(0));
    let (from, to) = if back { (part, whole) } else { (whole, part) };
    if back {
        launch_fill(c.device, &[n * h * w * channels], 0.0, y.strided(&[1]), c.op.name)?;
        y.offset += first;
    } else {
        x.offset += first;
    }
    launch_copy(c.device, &[n, height, line], x.strided(&from), y.strided(&to), c.op.name)
}

pub(super) fn resize(c: &GpuCtx) -> Result<()> {
    let ((_, h, w, channels), (_, height, width, _)) = (extents(c.shape(0)), extents(c.out_shape(0)));
    let nearest = c.attrs.int("interp") == 0;
    // Rows, then columns: two places each, and the share of the second.
    let all: Vec<_> = taps(h, height, nearest).into_iter().chain(taps(w, width, nearest)).collect();
    let places: Vec<i32> = all.iter().flat_map(|t| [t.0 as i32, t.1 as i32]).collect();
    let shares: Vec<f32> = all.iter().map(|t| t.2 as f32).collect();
    let (at, of) =
        (c.device.alloc(8 * all.len().max(1) as u64)?, c.device.alloc(4 * all.len().max(1) as u64)?);
    c.device.write(&at, 0, bytes_of(&places), c.op.name)?;
    c.device.write(&of, 0, bytes_of(&shares), c.op.name)?;
    let each = Each::new("image resize", c.y(0)).input("x", c.x(0), Read::Value).input(
        "places",
        Span::new(&at, DType::I32),
        Read::Index,
    );
    // The shares are read for what they are where all else is whole numbers.
    let each = each.input("shares", Span::new(&of, DType::I32), Read::Index);
    let each = each.size("h", h)?.size("w", w)?.size("to_h", height)?.size("to_w", width)?;
    let round = if c.dtype(0).is_float() { "v" } else { "select(ceil(v - 0.5), floor(v + 0.5), v >= 0.0)" };
    let body = || {
        format!(
            "fn element(e: u32) -> VALUE {{
    let channel = e % p.channels;
    let j = p.to_h + e / p.channels % p.to_w;
    let i = e / p.channels / p.to_w % p.to_h;
    let base = e / p.channels / p.to_w / p.to_h * p.h;
    let top = (base + u32(places(2u * i))) * p.w;
    let bottom = (base + u32(places(2u * i + 1u))) * p.w;
    let left = u32(places(2u * j));
    let right = u32(places(2u * j + 1u));
    let across = bitcast<f32>(shares(j));
    let a = f32(x((top + left) * p.channels + channel));
    let b = f32(x((bottom + left) * p.channels + channel));
    let upper = a + (f32(x((top + right) * p.channels + channel)) - a) * across;
    let lower = b + (f32(x((bottom + right) * p.channels + channel)) - b) * across;
    let v = upper + (lower - upper) * bitcast<f32>(shares(i));
    return VALUE({round});
}}\n"
        )
    };
    each.size("channels", channels)?.launch(c.device, c.out_shape(0).size(), body, c.op.name)
}
