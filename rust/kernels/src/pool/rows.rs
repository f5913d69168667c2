//! Pooling of channels-first data and the gradient of sums: rows of a window first, then its columns.
//!
//! Everything runs over whole rows, or over many rows at once: the rows in between lie in a buffer with their border, each as
//! long as the others, so that one tap of all outputs is one loop without bounds tests. The gradient of the maximum needs
//! the places and has a room of its own ([`super::planes`]); data with channels last stays with the parent module.

use super::{PoolGeom, PoolKind, Scales};
use crate::gemm::micro::Real;
use std::ops::Range;

/// Elements of buffered rows that are worked on together: they stay in the first-level cache.
const BLOCK: usize = 4096;

/// Windows wider than this are reduced one by one where there are fewer outputs than [`FEW`].
const WIDE: usize = 8;
const FEW: usize = 16;

/// The sizes of buffered rows.
#[derive(Clone, Copy)]
struct Row {
    /// Outputs of a row; those beyond the image are computed like the others and thrown away.
    outs: usize,
    /// Data columns of a row, with the border: `outs` strides.
    columns: usize,
}

impl Row {
    #[inline(always)]
    fn new(g: &PoolGeom) -> Row {
        let outs = crate::planes::buffered(&g.windows(), 2);
        Row { outs, columns: outs * g.stride[2] }
    }
}

/// `to[i] = f(to[i], from[i])`.
#[inline(always)]
fn zip_rows<T: Real>(to: &mut [T], from: &[T], f: impl Fn(T, T) -> T + Copy) {
    for (t, v) in to.iter_mut().zip(from) {
        *t = f(*t, *v);
    }
}

/// Rows of the data in the window of output row `(d, h)`, in scan order.
#[inline(always)]
fn window_rows(g: &PoolGeom, d: usize, h: usize) -> impl Iterator<Item = usize> {
    let (hs, height) = (g.window(1, h), g.in_dims[1]);
    g.window(0, d).flat_map(move |in_d| hs.clone().map(move |in_h| in_d * height + in_h))
}

/// Output rows of [`forward`] that are computed together.
fn block_rows(g: &PoolGeom) -> usize {
    (BLOCK / Row::new(g).columns).max(1)
}

/// Elements of the buffer [`forward`] works in.
pub fn forward_buffer(g: &PoolGeom) -> usize {
    let row = Row::new(g);
    block_rows(g) * (row.columns + row.outs) + g.kernel[2] + g.stride[2]
}

/// Images one after the other: `y[o] = f(... f(start, map(x))) over the window`, times the scale of its place for averages.
#[inline(always)]
pub fn forward<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    start: T,
    (x, y): (&[T], &mut [T]),
    (buffer, scales): (&mut [T], &mut Scales<T>),
    map: impl Fn(T) -> T + Copy,
    f: impl Fn(T, T) -> T + Copy,
) {
    let (row, columns, width, pad) = (Row::new(g), g.out_dims[2], g.in_dims[2], g.pad[2]);
    let per_image = g.out_dims[0] * g.out_dims[1];
    let block = block_rows(g);
    let (down, across) = buffer.split_at_mut(block * row.columns + g.kernel[2] + g.stride[2]);
    down.fill(start);
    for (i, y) in y.chunks_mut(block * columns).enumerate() {
        let first = i * block;
        let rows = y.len() / columns;
        for (r, to) in down.chunks_exact_mut(row.columns).enumerate().take(rows) {
            let (n, at) = ((first + r) / per_image, (first + r) % per_image);
            let image = &x[n * g.in_image()..];
            let to = &mut to[pad..pad + width];
            let mut fresh = true;
            for from in window_rows(g, at / g.out_dims[1], at % g.out_dims[1]) {
                let from = &image[from * width..(from + 1) * width];
                if fresh {
                    zip_rows(to, from, |_, v| f(start, map(v)));
                    fresh = false;
                } else {
                    zip_rows(to, from, |o, v| f(o, map(v)));
                }
            }
            if fresh {
                to.fill(start);
            }
        }
        if g.kernel[2] > WIDE && columns < FEW {
            for (y, from) in y.chunks_exact_mut(columns).zip(down.chunks_exact(row.columns)) {
                for (w, y) in y.iter_mut().enumerate() {
                    let window = &from[w * g.stride[2]..w * g.stride[2] + g.kernel[2]];
                    let mut parts = [start; 16];
                    for chunk in window.chunks(16) {
                        zip_rows(&mut parts, chunk, f);
                    }
                    *y = parts.into_iter().fold(start, f);
                }
            }
        } else if row.outs == columns {
            reduce_columns(g, down, y, f);
        } else {
            let across = &mut across[..rows * row.outs];
            reduce_columns(g, down, across, f);
            for (y, from) in y.chunks_exact_mut(columns).zip(across.chunks_exact(row.outs)) {
                y.copy_from_slice(&from[..columns]);
            }
        }
        if matches!(kind, PoolKind::Avg { .. }) {
            for (r, y) in y.chunks_exact_mut(columns).enumerate() {
                let at = (first + r) % per_image;
                let scales = scales.at(g, kind, (at / g.out_dims[1], at % g.out_dims[1]));
                zip_rows(y, scales, |v, scale| v * scale);
            }
        }
    }
}

/// `out[i] = f over k of from[i * stride + k]`.
#[inline(always)]
fn reduce_columns<T: Real>(g: &PoolGeom, from: &[T], out: &mut [T], f: impl Fn(T, T) -> T + Copy) {
    #[inline(always)]
    fn taps<T: Real, const S: usize>(from: &[T], kernel: usize, out: &mut [T], f: impl Fn(T, T) -> T + Copy) {
        let mut k = 1;
        if S == 2 && kernel > 1 {
            out.iter_mut().zip(from.as_chunks::<S>().0).for_each(|(o, v)| *o = f(v[0], v[S - 1]));
            k = 2;
        } else {
            out.iter_mut().zip(from.as_chunks::<S>().0).for_each(|(o, v)| *o = v[0]);
        }
        while k < kernel {
            out.iter_mut().zip(from[k..].as_chunks::<S>().0).for_each(|(o, v)| *o = f(*o, v[0]));
            k += 1;
        }
    }
    match g.stride[2] {
        1 => taps::<T, 1>(from, g.kernel[2], out, f),
        2 => taps::<T, 2>(from, g.kernel[2], out, f),
        stride => {
            for (i, o) in out.iter_mut().enumerate() {
                let window = &from[i * stride..i * stride + g.kernel[2]];
                *o = window[1..].iter().fold(window[0], |o, v| f(o, *v));
            }
        }
    }
}

/// Images whose gradients [`sum_grad`] computes together.
fn group(g: &PoolGeom) -> usize {
    (BLOCK / (g.out_dims[0] * g.out_dims[1] * Row::new(g).columns)).max(1)
}

/// Zeros before the rows of gradients.
fn lead(g: &PoolGeom) -> usize {
    g.kernel[2]
}

/// Elements of the buffer [`sum_grad`] works in.
pub fn sum_grad_buffer(g: &PoolGeom) -> usize {
    let (row, rows) = (Row::new(g), group(g) * g.out_dims[0] * g.out_dims[1]);
    lead(g) + rows * (row.outs + 2 * row.columns)
}

/// Spreads the gradients of sums over their windows, image after image; `dx` is overwritten, or added to.
#[inline(always)]
pub fn sum_grad<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    dy: &[T],
    (buffer, scales): (&mut [T], &mut Scales<T>),
    accumulate: bool,
    dx: &mut [T],
) {
    let (row, columns, width) = (Row::new(g), g.out_dims[2], g.in_dims[2]);
    let per_image = g.out_dims[0] * g.out_dims[1];
    let rows = group(g) * per_image;
    let (scaled, rest) = buffer.split_at_mut(lead(g) + rows * row.outs);
    let (spread, phases) = rest.split_at_mut(rows * row.columns);
    scaled.fill(T::ZERO);
    let groups = dy.chunks(rows * columns).zip(dx.chunks_mut(group(g) * g.in_image()));
    for (dy, dx) in groups {
        let rows = dy.len() / columns;
        for (r, dy) in dy.chunks_exact(columns).enumerate() {
            let to = &mut scaled[lead(g) + r * row.outs..][..columns];
            if matches!(kind, PoolKind::Avg { .. }) {
                let at = r % per_image;
                let scales = scales.at(g, kind, (at / g.out_dims[1], at % g.out_dims[1]));
                to.iter_mut().zip(dy).zip(scales).for_each(|((t, v), scale)| *t = *v * *scale);
            } else {
                to.copy_from_slice(dy);
            }
        }
        spread_columns(g, &scaled[..lead(g) + rows * row.outs], phases, &mut spread[..rows * row.columns]);
        for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
            let (n, r) = (i / (g.in_dims[0] * g.in_dims[1]), i % (g.in_dims[0] * g.in_dims[1]));
            let (ds, hs) = (g.seeing(0, r / g.in_dims[1]), g.seeing(1, r % g.in_dims[1]));
            let mut fresh = !accumulate;
            for d in ds {
                for h in hs.clone() {
                    let at = n * per_image + d * g.out_dims[1] + h;
                    let from = &spread[at * row.columns + g.pad[2]..][..width];
                    if fresh {
                        zip_rows(dx, from, |_, v| v);
                        fresh = false;
                    } else {
                        zip_rows(dx, from, |t, v| t + v);
                    }
                }
            }
            if fresh {
                dx.fill(T::ZERO);
            }
        }
    }
}

/// `to[c] = sum of scaled[lead + w] over the w whose window holds column c`, for all rows at once: behind the outputs of each
/// row stand as many zeros as a window reaches back.
#[inline(always)]
fn spread_columns<T: Real>(g: &PoolGeom, scaled: &[T], phases: &mut [T], to: &mut [T]) {
    let (stride, kernel, lead, row) = (g.stride[2], g.kernel[2], lead(g), Row::new(g));
    if stride > 2 || kernel > WIDE && g.out_dims[2] < FEW {
        to.fill(T::ZERO);
        for (to, from) in to.chunks_exact_mut(row.columns).zip(scaled[lead..].chunks_exact(row.outs)) {
            for (w, v) in from[..g.out_dims[2]].iter().enumerate() {
                to[w * stride..w * stride + kernel].iter_mut().for_each(|t| *t += *v);
            }
        }
        return;
    }
    // Columns of one remainder modulo the stride.
    let taps = |phase: usize, to: &mut [T]| {
        let mut k = phase;
        if k >= kernel {
            to.fill(T::ZERO);
        }
        while k < kernel {
            let from = &scaled[lead - k / stride..];
            if k == phase {
                zip_rows(to, from, |_, v| v);
            } else {
                zip_rows(to, from, |t, v| t + v);
            }
            k += stride;
        }
    };
    if stride == 1 {
        return taps(0, to);
    }
    let (even, odd) = phases[..to.len()].split_at_mut(to.len() / 2);
    taps(0, even);
    taps(1, odd);
    for ((to, a), b) in to.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
        *to = [*a, *b];
    }
}

impl PoolGeom {
    /// The outputs along `axis` whose window holds data index `i`.
    #[inline(always)]
    fn seeing(&self, axis: usize, i: usize) -> Range<usize> {
        let (kernel, stride, place) = (self.kernel[axis], self.stride[axis], i + self.pad[axis]);
        let first = (place + 1).saturating_sub(kernel).div_ceil(stride);
        first..(place / stride + 1).min(self.out_dims[axis]).max(first)
    }
}
