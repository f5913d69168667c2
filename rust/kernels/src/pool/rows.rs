//! Pooling of channels-first data, a row of the output at a time, in vectors along the row.
//!
//! Sums and maxima are taken over the rows of a window first and then over its columns; gradients go the other way. The rows in
//! between lie in buffers with a border, so that no column needs a bounds test. Strides of 1 and 2 run in vectors,
//! larger ones gather. Data with channels last needs none of this and stays with the parent module.

use super::{PoolGeom, PoolKind};
use crate::gemm::micro::Real;
use crate::gemm::pack::with_buffer;
use std::ops::Range;

/// Windows wider than this are reduced one by one.
const MAX_KERNEL: usize = 8;

/// Largest windows whose greatest place is found by comparing tap numbers.
const MAX_TAPS: usize = 64;

/// Elements behind a buffer's last row that whole vectors may touch.
const SLACK: usize = 64;

/// Whether [`sum_grad`] takes this geometry.
pub fn has_sum_grad(g: &PoolGeom) -> bool {
    g.inner == 1 && g.kernel[2] <= MAX_KERNEL
}

/// Whether [`max_grad`] takes this geometry.
pub fn has_max_grad(g: &PoolGeom) -> bool {
    g.inner == 1 && g.kernel[2] <= MAX_KERNEL && g.kernel.iter().product::<usize>() <= MAX_TAPS
}

/// The number of columns computed together: no wider than the row needs.
macro_rules! by_width {
    ($columns:expr, $run:ident::<$T:ident>($($arg:expr),*)) => {
        match $columns {
            0..=4 => $run::<$T, 4>($($arg),*),
            5..=8 => $run::<$T, 8>($($arg),*),
            _ => $run::<$T, 16>($($arg),*),
        }
    };
}

/// `to[i] = f(to[i], from[i])`, in vectors down to short rests.
#[inline(always)]
fn zip_rows<T: Real>(to: &mut [T], from: &[T], f: impl Fn(T, T) -> T + Copy) {
    #[inline(always)]
    fn whole<'a, T: Real, const N: usize>(
        to: &'a mut [T],
        from: &'a [T],
        f: impl Fn(T, T) -> T,
    ) -> (&'a mut [T], &'a [T]) {
        let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut::<N>(), from.as_chunks::<N>());
        for (to, from) in to.iter_mut().zip(from) {
            for i in 0..N {
                to[i] = f(to[i], from[i]);
            }
        }
        (to_rest, from_rest)
    }
    let len = to.len().min(from.len());
    let (to, from) = whole::<T, 16>(&mut to[..len], &from[..len], f);
    let (to, from) = whole::<T, 8>(to, from, f);
    let (to, from) = whole::<T, 4>(to, from, f);
    to.iter_mut().zip(from).for_each(|(t, v)| *t = f(*t, *v));
}

/// The sizes of buffered rows: columns with their border, and room for the last vector.
struct Row {
    /// Data columns some window sees.
    seen: usize,
    pad: usize,
    len: usize,
}

impl Row {
    fn new(g: &PoolGeom) -> Row {
        let reach = (g.out_dims[2] - 1) * g.stride[2] + g.kernel[2];
        let seen = g.in_dims[2].min(reach.saturating_sub(g.pad[2]));
        // A vector of outputs may begin at the last one.
        let len = reach.max(g.in_dims[2] + g.pad[2]) + 17 * g.stride[2] + SLACK;
        Row { seen, pad: g.pad[2], len }
    }
}

/// Rows of the data in the window of output row `(d, h)`, in scan order.
#[inline(always)]
fn window_rows(g: &PoolGeom, d: usize, h: usize) -> impl Iterator<Item = usize> {
    let (hs, height) = (g.window(1, h), g.in_dims[1]);
    g.window(0, d).flat_map(move |in_d| hs.clone().map(move |in_h| in_d * height + in_h))
}

/// One image: `y[o] = f(... f(start, map(x))) over the window`, times the scale of its place for averages.
#[inline(always)]
pub fn forward<T: Real>(
    g: &PoolGeom,
    kind: PoolKind,
    start: T,
    (image, y): (&[T], &mut [T]),
    map: impl Fn(T) -> T + Copy,
    f: impl Fn(T, T) -> T + Copy,
) {
    let (row, columns) = (Row::new(g), g.out_dims[2]);
    let width = g.in_dims[2];
    with_buffer(row.len, |buffer: &mut [T]| {
        buffer.fill(start);
        let (mut count, mut scales) = (0, Vec::new());
        for (i, y) in y.chunks_exact_mut(columns).enumerate() {
            let at = (i / g.out_dims[1], i % g.out_dims[1]);
            let sums = &mut buffer[row.pad..row.pad + row.seen];
            sums.fill(start);
            for r in window_rows(g, at.0, at.1) {
                zip_rows(sums, &image[r * width..r * width + row.seen], |o, v| f(o, map(v)));
            }
            if g.kernel[2] > MAX_KERNEL {
                for (w, y) in y.iter_mut().enumerate() {
                    let window = &buffer[w * g.stride[2]..w * g.stride[2] + g.kernel[2]];
                    let mut parts = [start; 16];
                    for chunk in window.chunks(16) {
                        zip_rows(&mut parts, chunk, f);
                    }
                    *y = parts.into_iter().fold(start, f);
                }
            } else {
                by_width!(columns, across::<T>(g, start, buffer, y, f));
            }
            if matches!(kind, PoolKind::Avg { .. }) {
                g.update_scales(kind, at, &mut count, &mut scales);
                zip_rows(y, &scales, |v, scale| v * scale);
            }
        }
    });
}

/// `y[w] = f over k of row[w * stride + k]`, `W` columns at a time.
#[inline(always)]
fn across<T: Real, const W: usize>(
    g: &PoolGeom,
    start: T,
    row: &[T],
    y: &mut [T],
    f: impl Fn(T, T) -> T + Copy,
) {
    let (stride, kernel) = (g.stride[2], g.kernel[2]);
    for (i, y) in y.chunks_mut(W).enumerate() {
        let from = &row[i * W * stride..];
        let mut best = [start; W];
        match stride {
            1 => {
                for k in 0..kernel {
                    let seen = &from[k..k + W];
                    for j in 0..W {
                        best[j] = f(best[j], seen[j]);
                    }
                }
            }
            2 => {
                for k in 0..kernel / 2 {
                    let seen = &from[2 * k..2 * k + 2 * W];
                    for j in 0..W {
                        best[j] = f(best[j], f(seen[2 * j], seen[2 * j + 1]));
                    }
                }
                if kernel % 2 == 1 {
                    let seen = &from[kernel - 1..kernel - 1 + 2 * W];
                    for j in 0..W {
                        best[j] = f(best[j], seen[2 * j]);
                    }
                }
            }
            _ => {
                for (j, best) in best.iter_mut().enumerate().take(y.len()) {
                    let window = &from[j * stride..j * stride + kernel];
                    *best = window.iter().fold(*best, |o, v| f(o, *v));
                }
            }
        }
        match y.as_mut_array::<W>() {
            Some(y) => *y = best,
            None => y.copy_from_slice(&best[..y.len()]),
        }
    }
}

/// Spreads each output's gradient, scaled, over its window; `dx` is overwritten, or added to.
#[inline(always)]
pub fn sum_grad<T: Real>(g: &PoolGeom, kind: PoolKind, dy: &[T], accumulate: bool, dx: &mut [T]) {
    let (row, columns, width) = (Row::new(g), g.out_dims[2], g.in_dims[2]);
    let rows = g.out_dims[0] * g.out_dims[1];
    let lead = g.kernel[2] + SLACK;
    // Output rows spread over their columns, and the one at work between borders of zeros.
    with_buffer(rows * row.len + 2 * lead + columns, |buffer: &mut [T]| {
        let (spread, scaled) = buffer.split_at_mut(rows * row.len);
        scaled.fill(T::ZERO);
        let (mut count, mut scales) = (0, Vec::new());
        for (i, dy) in dy.chunks_exact(columns).enumerate() {
            g.update_scales(kind, (i / g.out_dims[1], i % g.out_dims[1]), &mut count, &mut scales);
            scaled[lead..lead + columns].copy_from_slice(dy);
            zip_rows(&mut scaled[lead..lead + columns], &scales, |v, scale| v * scale);
            let to = &mut spread[i * row.len..(i + 1) * row.len];
            by_width!(columns, spread_row::<T>(g, scaled, lead, to, row.pad + row.seen));
        }
        for (r, dx) in dx.chunks_exact_mut(width).enumerate() {
            let (ds, hs) = (g.seeing(0, r / g.in_dims[1]), g.seeing(1, r % g.in_dims[1]));
            let mut fresh = !accumulate;
            for d in ds {
                for h in hs.clone() {
                    let from = &spread[(d * g.out_dims[1] + h) * row.len + row.pad..][..row.seen];
                    if fresh {
                        dx[..row.seen].copy_from_slice(from);
                        dx[row.seen..].fill(T::ZERO);
                        fresh = false;
                    } else {
                        zip_rows(&mut dx[..row.seen], from, |t, v| t + v);
                    }
                }
            }
            if fresh {
                dx.fill(T::ZERO);
            }
        }
    });
}

/// `to[c] = sum of scaled[lead + w] over the w whose window holds column c`, for the first `len` columns at least.
#[inline(always)]
fn spread_row<T: Real, const W: usize>(g: &PoolGeom, scaled: &[T], lead: usize, to: &mut [T], len: usize) {
    let (stride, kernel) = (g.stride[2], g.kernel[2]);
    if stride > 2 {
        to.fill(T::ZERO);
        for (w, v) in scaled[lead..lead + g.out_dims[2]].iter().enumerate() {
            to[w * stride..w * stride + kernel].iter_mut().for_each(|t| *t += *v);
        }
        return;
    }
    // Columns of one remainder modulo the stride; beyond the outputs `scaled` has zeros.
    for first in (0..len.div_ceil(stride)).step_by(W) {
        let mut sums = [[T::ZERO; W]; 2];
        for k in 0..kernel {
            let at = (lead + first).wrapping_sub(k / stride).min(scaled.len() - W);
            let sum = &mut sums[k % stride];
            let seen = &scaled[at..at + W];
            for j in 0..W {
                sum[j] += seen[j];
            }
        }
        let to = &mut to[first * stride..(first + W) * stride];
        if stride == 1 {
            to.copy_from_slice(&sums[0]);
        } else {
            for j in 0..W {
                to[2 * j] = sums[0][j];
                to[2 * j + 1] = sums[1][j];
            }
        }
    }
}

/// Gives each window's gradient to its first largest number; `dx` is overwritten, or added to.
#[inline(always)]
pub fn max_grad<T: Real>(g: &PoolGeom, lowest: T, image: &[T], dy: &[T], accumulate: bool, dx: &mut [T]) {
    let (stride, pad, width) = (g.stride[2], g.pad[2], g.in_dims[2]);
    let rows = g.in_dims[0] * g.in_dims[1];
    // Rows with their columns sorted by remainder modulo the stride: a tap of neighbouring outputs is contiguous.
    let phase_len = (width + pad).div_ceil(stride).max(g.out_dims[2] + g.kernel[2] / stride) + 16;
    let row_len = stride * phase_len;
    with_buffer(2 * rows * row_len, |buffer: &mut [T]| {
        let (sorted, grads) = buffer.split_at_mut(rows * row_len);
        sorted.fill(lowest);
        grads.fill(T::ZERO);
        for (from, to) in image.chunks_exact(width).zip(sorted.chunks_exact_mut(row_len)) {
            for phase in 0..stride.min(width) {
                let (first, at) = first_of_phase(phase, pad, stride, phase_len);
                let from = from.get(first..).unwrap_or_default();
                match stride {
                    1 => to[at..at + from.len()].copy_from_slice(from),
                    2 => {
                        let (pairs, rest) = from.as_chunks::<2>();
                        let to = &mut to[at..at + pairs.len() + rest.len()];
                        to.iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[0]);
                        to[pairs.len()..].copy_from_slice(rest);
                    }
                    _ => to[at..].iter_mut().zip(from.iter().step_by(stride)).for_each(|(t, v)| *t = *v),
                }
            }
        }
        by_width!(g.out_dims[2], give_to_largest::<T>(g, lowest, (sorted, phase_len), dy, grads));
        for (from, to) in grads.chunks_exact(row_len).zip(dx.chunks_exact_mut(width)) {
            for phase in 0..stride.min(width) {
                let (first, at) = first_of_phase(phase, pad, stride, phase_len);
                let to = to.get_mut(first..).unwrap_or_default();
                let places = to.chunks_mut(stride).zip(&from[at..]);
                if accumulate {
                    places.for_each(|(t, v)| t[0] += *v);
                } else {
                    places.for_each(|(t, v)| t[0] = *v);
                }
            }
        }
    });
}

/// The first data column of the `phase`-th remainder (counted from the first column), and its place in a sorted row.
#[inline(always)]
fn first_of_phase(phase: usize, pad: usize, stride: usize, phase_len: usize) -> (usize, usize) {
    let column = phase + pad;
    (phase, column % stride * phase_len + column / stride)
}

/// Finds the tap of each output's first largest number, then adds the gradient there.
#[inline(always)]
fn give_to_largest<T: Real, const W: usize>(
    g: &PoolGeom,
    lowest: T,
    (sorted, phase_len): (&[T], usize),
    dy: &[T],
    grads: &mut [T],
) {
    let (stride, columns) = (g.stride[2], g.out_dims[2]);
    let row_len = stride * phase_len;
    // Where each tap of the output row's first column lies, with its number: floats, to be compared like the data.
    let mut taps = smallvec::SmallVec::<[(usize, T); MAX_TAPS]>::new();
    for (i, dy) in dy.chunks_exact(columns).enumerate() {
        taps.clear();
        for row in window_rows(g, i / g.out_dims[1], i % g.out_dims[1]) {
            for k in 0..g.kernel[2] {
                let number = T::from_i64(taps.len() as i64 + 1);
                taps.push((row * row_len + k % stride * phase_len + k / stride, number));
            }
        }
        for (first, dy) in (0..).step_by(W).zip(dy.chunks(W)) {
            let (mut best, mut place, mut given) = ([lowest; W], [T::ZERO; W], [T::ZERO; W]);
            given[..dy.len()].copy_from_slice(dy);
            for (at, number) in &taps {
                let seen = &sorted[at + first..at + first + W];
                for j in 0..W {
                    let larger = seen[j] > best[j];
                    best[j] = if larger { seen[j] } else { best[j] };
                    place[j] = if larger { *number } else { place[j] };
                }
            }
            for (at, number) in &taps {
                let to = &mut grads[at + first..at + first + W];
                for j in 0..W {
                    to[j] += if place[j] == *number { given[j] } else { T::ZERO };
                }
            }
        }
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
