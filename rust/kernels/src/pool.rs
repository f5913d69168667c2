//! Pooling over one to three spatial dimensions and its gradient: max, average, sum and p-norm.
//!
//! Both layouts are one: `outer` images (batch times channels, or the batch alone) of places that hold `inner` numbers side by
//! side (1, or the channels). With channels side by side the output is computed tap by tap along them; with channels
//! first, [`rows`] and [`planes`] work along the rows.

mod planes;
mod rows;

use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, with_buffer};
use crate::gemm::widen;
use crate::planes::{Planes, Windows};
use mxrs_base::{Elem, Error, Result, f16};
use std::ops::Range;

/// How an output extent follows from the input's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Convention {
    /// Whole windows only: rounded down.
    Valid,
    /// The last window may be cut off: rounded up.
    Full,
    /// As many as strides fit: `ceil(padded / stride)`.
    Same,
}

/// What a window becomes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolKind {
    /// The largest number; not-a-number is never larger. A window without numbers gives the type's lowest.
    Max,
    /// The sum over the number of places, those of the border counted or not. A window without places gives 0.
    Avg {
        include_pad: bool,
    },
    Sum,
    /// The p-th root of the sum of p-th powers (signed for odd p), p 1 to 3.
    Lp(u8),
}

/// A pooling's sizes; dimensions beyond the actual one to three stand in front with extent 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct PoolGeom {
    pub outer: usize,
    pub inner: usize,
    pub in_dims: [usize; 3],
    pub out_dims: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub pad: [usize; 3],
}

/// The output's extents: one for each of `in_dims`.
///
/// Refuses zero kernels and strides, pads not smaller than the kernel, and kernels larger than the padded input.
pub fn pool_out_dims(
    in_dims: &[usize],
    kernel: &[usize],
    stride: &[usize],
    pad: &[usize],
    convention: Convention,
) -> Result<Vec<usize>> {
    let n = in_dims.len();
    if !(1..=3).contains(&n) || [kernel, stride, pad].iter().any(|v| v.len() != n) {
        return Err(Error::op(format!(
            "kernel {kernel:?}, stride {stride:?} and pad {pad:?} need one number for each of the {n} spatial dimensions (1 to 3)"
        )));
    }
    let one = |i: usize| {
        let (extent, kernel, stride, pad) = (in_dims[i], kernel[i], stride[i], pad[i]);
        if kernel == 0 || stride == 0 {
            return Err(Error::op(format!("kernel {kernel} with stride {stride}: both must be 1 or more")));
        }
        if pad >= kernel {
            return Err(Error::op(format!(
                "pad {pad} is not smaller than kernel {kernel}; at most {} is allowed",
                kernel - 1
            )));
        }
        let padded = pad.checked_mul(2).and_then(|p| p.checked_add(extent));
        let padded = padded.ok_or_else(|| Error::op(format!("pad {pad} exceeds the address space")))?;
        if kernel > padded {
            return Err(Error::op(format!(
                "kernel size ({kernel}) exceeds input ({extent} padded to {padded})"
            )));
        }
        Ok(match convention {
            Convention::Valid => (padded - kernel) / stride + 1,
            Convention::Full => (padded - kernel).div_ceil(stride) + 1,
            Convention::Same => padded.div_ceil(stride),
        })
    };
    (0..n).map(one).collect()
}

impl PoolGeom {
    /// Pooling with windows of `kernel`; errors as [`pool_out_dims`], and for sizes beyond memory.
    pub fn new(
        (outer, inner): (usize, usize),
        in_dims: &[usize],
        (kernel, stride, pad): (&[usize], &[usize], &[usize]),
        convention: Convention,
    ) -> Result<PoolGeom> {
        let out_dims = pool_out_dims(in_dims, kernel, stride, pad, convention)?;
        let three = |dims: &[usize], fill: usize| {
            let mut all = [fill; 3];
            all[3 - dims.len()..].copy_from_slice(dims);
            all
        };
        let (in_dims, out_dims) = (three(in_dims, 1), three(&out_dims, 1));
        for dims in [in_dims, out_dims] {
            let sizes = [outer, inner, dims[0], dims[1], dims[2]];
            let size = sizes.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
            if size.is_none_or(|n| n > 1 << 58) {
                return Err(Error::memory(format!("pooling of {sizes:?} elements exceeds memory")));
            }
        }
        let (kernel, stride, pad) = (three(kernel, 1), three(stride, 1), three(pad, 0));
        Ok(PoolGeom { outer, inner, in_dims, out_dims, kernel, stride, pad })
    }

    /// One window over everything.
    pub fn global(outer: usize, inner: usize, in_dims: &[usize]) -> Result<PoolGeom> {
        let n = in_dims.len();
        PoolGeom::new((outer, inner), in_dims, (in_dims, &vec![1; n], &vec![0; n]), Convention::Valid)
    }

    pub fn data_len(&self) -> usize {
        self.outer * self.in_image()
    }
    pub fn out_len(&self) -> usize {
        self.outer * self.out_image()
    }
    fn windows(&self) -> Windows {
        let PoolGeom { in_dims, out_dims, kernel, stride, pad, .. } = *self;
        Windows { in_dims, out_dims, kernel, stride, dilate: [1; 3], pad }
    }
    fn in_image(&self) -> usize {
        self.in_dims.iter().product::<usize>() * self.inner
    }
    fn out_image(&self) -> usize {
        self.out_dims.iter().product::<usize>() * self.inner
    }

    /// The data indices along `axis` in the window of output `o`.
    #[inline(always)]
    fn window(&self, axis: usize, o: usize) -> Range<usize> {
        let start = o * self.stride[axis];
        let end = (start + self.kernel[axis]).saturating_sub(self.pad[axis]).min(self.in_dims[axis]);
        start.saturating_sub(self.pad[axis]).min(end)..end
    }

    /// The places along `axis` that count for the divisor of output `o`.
    fn counted(&self, axis: usize, o: usize, include_pad: bool) -> usize {
        if !include_pad {
            return self.window(axis, o).len();
        }
        let start = o * self.stride[axis];
        (start + self.kernel[axis]).min(self.in_dims[axis] + 2 * self.pad[axis]).saturating_sub(start)
    }

    /// The output columns whose tap `k` lies in the data, and the data column of the first.
    #[inline(always)]
    fn columns(&self, k: usize) -> (Range<usize>, usize) {
        let (pad, stride) = (self.pad[2], self.stride[2]);
        let first = pad.saturating_sub(k).div_ceil(stride);
        let end = (self.in_dims[2] + pad).saturating_sub(k).div_ceil(stride).min(self.out_dims[2]);
        if first >= end { (0..0, 0) } else { (first..end, first * stride + k - pad) }
    }

    /// Calls `visit(data row start, columns, first data column)` for every tap of output row `(d, h)`, in scan order.
    #[inline(always)]
    fn each_tap(&self, d: usize, h: usize, mut visit: impl FnMut(usize, Range<usize>, usize)) {
        for in_d in self.window(0, d) {
            for in_h in self.window(1, h) {
                let row = (in_d * self.in_dims[1] + in_h) * self.in_dims[2] * self.inner;
                for k in 0..self.kernel[2] {
                    let (columns, first) = self.columns(k);
                    visit(row, columns, first);
                }
            }
        }
    }
}

/// What the sums of an output row are multiplied with, column by column; kept while rows count as many places.
struct Scales<T> {
    rows: usize,
    columns: Vec<T>,
}

impl<T: Real> Scales<T> {
    fn new() -> Scales<T> {
        Scales { rows: 0, columns: Vec::new() }
    }

    /// The scales of output row `(d, h)`.
    #[inline(always)]
    fn at(&mut self, g: &PoolGeom, kind: PoolKind, (d, h): (usize, usize)) -> &[T] {
        let rows = match kind {
            PoolKind::Avg { include_pad } => g.counted(0, d, include_pad) * g.counted(1, h, include_pad),
            _ => 0,
        };
        if rows != self.rows || self.columns.is_empty() {
            self.make(g, kind, rows);
        }
        &self.columns
    }

    #[cold]
    fn make(&mut self, g: &PoolGeom, kind: PoolKind, rows: usize) {
        self.rows = rows;
        self.columns.clear();
        self.columns.extend((0..g.out_dims[2]).map(|w| match kind {
            PoolKind::Avg { include_pad } => match rows * g.counted(2, w, include_pad) {
                0 => T::ZERO,
                count => T::from_f64(1.0 / count as f64),
            },
            _ => T::ONE,
        }));
    }
}

/// Combines every tap's numbers into the output row: `out[o, c] = f(out[o, c], image[place seen, c])`.
#[inline(always)]
fn combine<T: Real>(g: &PoolGeom, (d, h): (usize, usize), image: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    let (inner, step) = (g.inner, g.stride[2] * g.inner);
    g.each_tap(d, h, |row, columns, first| {
        let out = &mut out[columns.start * inner..columns.end * inner];
        let from = image.get(row + first * inner..).unwrap_or_default();
        for (out, from) in out.chunks_exact_mut(inner).zip(from.chunks(step)) {
            out.iter_mut().zip(from).for_each(|(o, v)| *o = f(*o, *v));
        }
    });
}

/// An element type with pooling: f32, f64 and f16.
pub trait Pool: Elem {
    /// See [`pool_forward`].
    fn forward(g: &PoolGeom, kind: PoolKind, x: &[Self], y: &mut [Self]);
    /// See [`pool_grad`].
    fn grad(
        g: &PoolGeom,
        kind: PoolKind,
        x: &[Self],
        y: &[Self],
        dy: &[Self],
        accumulate: bool,
        dx: &mut [Self],
    );
}

/// Pools `x` (`outer x in_dims x inner`) into `y` (`outer x out_dims x inner`).
///
/// Panics where a length differs from the geometry or p of [`PoolKind::Lp`] is not 1 to 3: callers have checked.
pub fn pool_forward<T: Pool>(g: &PoolGeom, kind: PoolKind, x: &[T], y: &mut [T]) {
    check(g, kind, x.len(), y.len());
    if !y.is_empty() {
        T::forward(g, kind, x, y);
    }
}

/// The gradient: `dx` from the data `x`, the result `y` (read for [`PoolKind::Lp`] only, else it may be empty) and its
/// gradient `dy`; added to `dx` with `accumulate`. The first of equal largest numbers receives max's gradient.
pub fn pool_grad<T: Pool>(
    g: &PoolGeom,
    kind: PoolKind,
    (x, y, dy): (&[T], &[T], &[T]),
    accumulate: bool,
    dx: &mut [T],
) {
    check(g, kind, x.len(), dy.len());
    check(g, kind, dx.len(), if matches!(kind, PoolKind::Lp(_)) { y.len() } else { dy.len() });
    if !dx.is_empty() {
        T::grad(g, kind, x, y, dy, accumulate, dx);
    }
}

fn check(g: &PoolGeom, kind: PoolKind, x: usize, y: usize) {
    assert!(x == g.data_len() && y == g.out_len(), "pooling: {x} and {y} elements do not fit {g:?}");
    assert!(!matches!(kind, PoolKind::Lp(p) if !(1..=3).contains(&p)), "pooling: p is 1 to 3, not {kind:?}");
}

/// Images per chunk of a lane.
fn grain(g: &PoolGeom) -> usize {
    let work = g.out_image() * g.kernel.iter().product::<usize>();
    (1usize << 14).div_ceil(work.max(1))
}

fn forward_real<T: Real>(g: &PoolGeom, kind: PoolKind, lowest: T, x: &[T], y: &mut [T]) {
    let out = Shared::of(y);
    let buffer_len = if g.inner == 1 { rows::forward_buffer(g) } else { 0 };
    mxrs_lanes::for_each(g.outer, grain(g), |images| {
        with_buffer(buffer_len, |buffer: &mut [T]| {
            let mut scales = Scales::new();
            // The loop is inside: what is compiled for the vector instructions must hold everything it calls.
            mxrs_simd::vectorize(
                #[inline(always)]
                || {
                    let x = &x[images.start * g.in_image()..images.end * g.in_image()];
                    // SAFETY: the output of these images is one call's alone.
                    let y = unsafe { out.slice(images.start * g.out_image()..images.end * g.out_image()) };
                    forward_images(g, kind, lowest, (x, y), (buffer, &mut scales));
                },
            );
        });
    });
}

#[inline(always)]
fn forward_images<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    lowest: T,
    (x, y): (&[T], &mut [T]),
    work: (&mut [T], &mut Scales<T>),
) {
    let (zero, add) = (T::ZERO, |o, v| o + v);
    match kind {
        PoolKind::Max => pool_images(g, kind, lowest, (x, y), work, |v| v, |o, v| if v > o { v } else { o }),
        PoolKind::Lp(2) => {
            pool_images(g, kind, zero, (x, y), work, |v| v * v, add);
            y.iter_mut().for_each(|v| *v = T::from_f64(v.to_f64().sqrt()));
        }
        PoolKind::Lp(3) => {
            pool_images(g, kind, zero, (x, y), work, |v| v * v * v, add);
            y.iter_mut().for_each(|v| *v = T::from_f64(v.to_f64().cbrt()));
        }
        _ => pool_images(g, kind, zero, (x, y), work, |v| v, add),
    }
}

/// The images' windows combined by `f` from `start` on, and scaled for averages.
#[inline(always)]
fn pool_images<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    start: T,
    (x, y): (&[T], &mut [T]),
    (buffer, scales): (&mut [T], &mut Scales<T>),
    map: impl Fn(T) -> T + Copy,
    f: impl Fn(T, T) -> T + Copy,
) {
    if g.inner == 1 {
        return rows::forward(g, kind, start, (x, y), (buffer, scales), map, f);
    }
    let per_image = g.out_dims[0] * g.out_dims[1];
    for (i, y) in y.chunks_exact_mut(g.out_dims[2] * g.inner).enumerate() {
        let image = &x[i / per_image * g.in_image()..][..g.in_image()];
        let at = (i % per_image / g.out_dims[1], i % g.out_dims[1]);
        y.fill(start);
        combine(g, at, image, y, |o, v| f(o, map(v)));
        if matches!(kind, PoolKind::Avg { .. }) {
            for (y, scale) in y.chunks_exact_mut(g.inner).zip(scales.at(g, kind, at)) {
                y.iter_mut().for_each(|v| *v = *v * *scale);
            }
        }
    }
}

/// How a gradient is computed.
enum Way {
    Planes(Box<Planes>),
    Rows,
    /// Tap by tap or place by place.
    Places,
}

fn grad_real<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    lowest: T,
    (x, y, dy): (&[T], &[T], &[T]),
    accumulate: bool,
    dx: &mut [T],
) {
    let (way, buffer_len) = match kind {
        PoolKind::Max if planes::has_max_grad(g) => {
            let (planes, buffer_len) = planes::max_grad_planes(g);
            (Way::Planes(Box::new(planes)), buffer_len)
        }
        PoolKind::Max | PoolKind::Lp(2..) => (Way::Places, 0),
        _ if g.inner == 1 => (Way::Rows, rows::sum_grad_buffer(g)),
        _ => (Way::Places, 0),
    };
    let out = Shared::of(dx);
    let within = |images: &Range<usize>, len: usize| images.start * len..images.end * len;
    mxrs_lanes::for_each(g.outer, grain(g), |images| {
        let (ins, outs) = (within(&images, g.in_image()), within(&images, g.out_image()));
        // SAFETY: the data gradient of these images is one call's alone.
        let dx = unsafe { out.slice(ins.clone()) };
        let (x, dy) = (&x[ins], &dy[outs.clone()]);
        with_buffer(buffer_len, |buffer: &mut [T]| {
            let mut scales = Scales::new();
            match &way {
                Way::Planes(planes) => mxrs_simd::vectorize(
                    #[inline(always)]
                    || planes::max_grad(g, lowest, (x, dy), (planes, buffer), accumulate, dx),
                ),
                Way::Rows => mxrs_simd::vectorize(
                    #[inline(always)]
                    || rows::sum_grad(g, kind, dy, (buffer, &mut scales), accumulate, dx),
                ),
                Way::Places => {
                    if !accumulate {
                        dx.fill(T::ZERO);
                    }
                    let images = x.chunks_exact(g.in_image()).zip(dx.chunks_exact_mut(g.in_image()));
                    for (i, ((x, dx), dy)) in images.zip(dy.chunks_exact(g.out_image())).enumerate() {
                        let y = || &y[outs.start + i * g.out_image()..][..g.out_image()];
                        match kind {
                            PoolKind::Max => max_grad(g, lowest, x, dy, dx),
                            PoolKind::Lp(p @ 2..) => lp_grad(g, p, x, (y(), dy), dx),
                            _ => sum_grad(g, kind, dy, &mut scales, dx),
                        }
                    }
                }
            }
        });
    });
}

/// Gives each window's gradient to its first largest number.
fn max_grad<T: Real>(g: &PoolGeom, lowest: T, image: &[T], dy: &[T], dx: &mut [T]) {
    let [_, height, width] = g.in_dims;
    for (i, dy) in dy.chunks_exact(g.inner).enumerate() {
        let (d, h, w) =
            (i / (g.out_dims[2] * g.out_dims[1]), i / g.out_dims[2] % g.out_dims[1], i % g.out_dims[2]);
        let (ds, hs, ws) = (g.window(0, d), g.window(1, h), g.window(2, w));
        for (c, dy) in dy.iter().enumerate() {
            let (mut best, mut place) = (lowest, None);
            for in_d in ds.clone() {
                for in_h in hs.clone() {
                    let row = (in_d * height + in_h) * width;
                    for in_w in ws.clone() {
                        let at = (row + in_w) * g.inner + c;
                        if image[at] > best {
                            (best, place) = (image[at], Some(at));
                        }
                    }
                }
            }
            if let Some(at) = place {
                dx[at] += *dy;
            }
        }
    }
}

/// Spreads each output's gradient, scaled, over its window.
fn sum_grad<T: Real>(g: &PoolGeom, kind: PoolKind, dy: &[T], scales: &mut Scales<T>, dx: &mut [T]) {
    let (inner, step) = (g.inner, g.stride[2] * g.inner);
    let mut scaled = vec![T::ZERO; g.out_dims[2] * inner];
    for (i, dy) in dy.chunks_exact(g.out_dims[2] * inner).enumerate() {
        let (d, h) = (i / g.out_dims[1], i % g.out_dims[1]);
        let scales = scales.at(g, kind, (d, h));
        for ((to, from), scale) in scaled.chunks_exact_mut(inner).zip(dy.chunks_exact(inner)).zip(scales) {
            to.iter_mut().zip(from).for_each(|(t, f)| *t = *f * *scale);
        }
        g.each_tap(d, h, |row, columns, first| {
            let from = &scaled[columns.start * inner..columns.end * inner];
            let to = dx.get_mut(row + first * inner..).unwrap_or_default();
            for (to, from) in to.chunks_mut(step).zip(from.chunks_exact(inner)) {
                to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
            }
        });
    }
}

/// The p-norm's slope: `dy * (x / y)^(p - 1)`, and 0 where the norm is 0.
fn lp_grad<T: Real>(g: &PoolGeom, p: u8, image: &[T], (y, dy): (&[T], &[T]), dx: &mut [T]) {
    let [_, height, width] = g.in_dims;
    for (i, (y, dy)) in y.chunks_exact(g.inner).zip(dy.chunks_exact(g.inner)).enumerate() {
        let (d, h, w) =
            (i / (g.out_dims[2] * g.out_dims[1]), i / g.out_dims[2] % g.out_dims[1], i % g.out_dims[2]);
        for in_d in g.window(0, d) {
            for in_h in g.window(1, h) {
                for in_w in g.window(2, w) {
                    let start = ((in_d * height + in_h) * width + in_w) * g.inner;
                    for (c, (y, dy)) in y.iter().zip(dy).enumerate() {
                        if *y != T::ZERO {
                            let ratio = T::from_f64(image[start + c].to_f64() / y.to_f64());
                            dx[start + c] += *dy * if p == 2 { ratio } else { ratio * ratio };
                        }
                    }
                }
            }
        }
    }
}

macro_rules! pool_real {
    ($($T:ident),*) => {$(
        impl Pool for $T {
            fn forward(g: &PoolGeom, kind: PoolKind, x: &[$T], y: &mut [$T]) {
                forward_real(g, kind, $T::MIN, x, y);
            }
            fn grad(g: &PoolGeom, kind: PoolKind, x: &[$T], y: &[$T], dy: &[$T], accumulate: bool, dx: &mut [$T]) {
                grad_real(g, kind, $T::MIN, (x, y, dy), accumulate, dx);
            }
        }
    )*};
}
pool_real!(f32, f64);

impl Pool for f16 {
    fn forward(g: &PoolGeom, kind: PoolKind, x: &[f16], y: &mut [f16]) {
        let mut wide = vec![0f32; y.len()];
        forward_real(g, kind, f16::MIN.to_f32(), &widen(x), &mut wide);
        mxrs_simd::cast(&wide, y);
    }
    fn grad(
        g: &PoolGeom,
        kind: PoolKind,
        x: &[f16],
        y: &[f16],
        dy: &[f16],
        accumulate: bool,
        dx: &mut [f16],
    ) {
        let mut wide = widen(dx);
        grad_real(g, kind, f16::MIN.to_f32(), (&widen(x), &widen(y), &widen(dy)), accumulate, &mut wide);
        mxrs_simd::cast(&wide, dx);
    }
}

#[cfg(test)]
mod tests;
