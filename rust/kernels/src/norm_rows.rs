//! Norms along rows: LayerNorm, InstanceNorm, GroupNorm and RMS as one row form, L2Normalization, and LRN.
//!
//! A row is read into cache once for its statistics and again, from cache, for its result. Statistics are in the
//! computing type (f32 for f16 data). Norms over channels of a batch are in [`crate::norm`].

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::norm::{Moments, add_moments, pair_sum};
use crate::real::{Float, Real, Shared};
use mxrs_simd::vectorize;
use std::ops::Range;

/// How gamma and beta belong to a matrix of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affine {
    /// One value per element of a row (LayerNorm, RMS).
    PerElement,
    /// One value per row, repeating after this many rows (InstanceNorm: channels; GroupNorm: groups).
    PerRow(usize),
}

/// What is taken out of a row before it is scaled to unit size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Center {
    Mean,
    /// Nothing: the scale is the root of the mean square (RMS norm; its mean output is 0).
    Zero,
}

fn grain(len: usize) -> usize {
    (1 << 13) / len.max(1) + 1
}

fn check_affine<R>(affine: Affine, len: usize, gamma: &[R]) {
    let want = match affine {
        Affine::PerElement => len,
        Affine::PerRow(n) => n,
    };
    assert_eq!(gamma.len(), want, "gamma has another size than the rows ask for");
}

/// (x - mean) / std * gamma + beta for each row of `x`, shape (rows, len); std = sqrt(variance + eps).
///
/// `mean` and `std` (shape (rows,)) are written: they are the operators' second and third outputs, and the
/// gradient needs them.
#[allow(clippy::too_many_arguments)]
pub fn rows_normalize<T: Float>(
    x: &[T],
    len: usize,
    eps: f64,
    center: Center,
    affine: Affine,
    gamma: &[T::R],
    beta: &[T::R],
    out: &mut [T],
    mean: &mut [T::R],
    std: &mut [T::R],
) {
    let rows = mean.len();
    assert!(x.len() == rows * len && out.len() == x.len() && std.len() == rows);
    check_affine(affine, len, gamma);
    check_affine(affine, len, beta);
    if x.is_empty() {
        return;
    }
    let (out, means, stds) = (Shared::new(out), Shared::new(mean), Shared::new(std));
    mxrs_lanes::for_each(rows, grain(len), |range: Range<usize>| {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        vectorize(
            #[inline(always)]
            || {
                for r in range {
                    let x = T::view(&x[r * len..(r + 1) * len], &mut a);
                    let (mean, square) = match center {
                        Center::Mean => {
                            let m = add_moments(Moments::default(), x);
                            (m.mean, m.m2)
                        }
                        Center::Zero => (0.0, pair_sum(len, |i| (x[i] * x[i], T::R::ZERO)).0),
                    };
                    let std = (square / len as f64 + eps).sqrt();
                    let (m, s) = (T::R::of(mean), T::R::of(1.0 / std));
                    // SAFETY: every row belongs to one lane.
                    let out = unsafe {
                        means.set(r, m);
                        stds.set(r, T::R::of(std));
                        out.part(r * len..(r + 1) * len)
                    };
                    T::write(
                        out,
                        &mut b,
                        #[inline(always)]
                        |out| match affine {
                            Affine::PerElement => {
                                let (g, b) = (&gamma[..out.len()], &beta[..out.len()]);
                                for (i, o) in out.iter_mut().enumerate() {
                                    *o = (x[i] - m) * s * g[i] + b[i];
                                }
                            }
                            Affine::PerRow(n) => {
                                let (g, b) = (gamma[r % n] * s, beta[r % n]);
                                for (o, x) in out.iter_mut().zip(x) {
                                    *o = (*x - m) * g + b;
                                }
                            }
                        },
                    );
                }
            },
        )
    });
}

/// Rows whose parameter gradients are summed in one piece; depends on sizes alone.
const PIECES: usize = 64;

/// The gradient of [`rows_normalize`]: `dx`, and `dgamma`, `dbeta` summed over rows.
#[allow(clippy::too_many_arguments)]
pub fn rows_grad<T: Float>(
    x: &[T],
    dy: &[T],
    len: usize,
    center: Center,
    affine: Affine,
    gamma: &[T::R],
    mean: &[T::R],
    std: &[T::R],
    dx: &mut [T],
    dgamma: &mut [T::R],
    dbeta: &mut [T::R],
) {
    let rows = mean.len();
    assert!(x.len() == rows * len && dy.len() == x.len() && dx.len() == x.len() && std.len() == rows);
    check_affine(affine, len, gamma);
    assert!(dgamma.len() == gamma.len() && dbeta.len() == gamma.len());
    let pieces = rows.div_ceil(16).clamp(1, PIECES);
    let width = gamma.len();
    // Sums for gamma, then for beta, of each piece.
    let mut parts = vec![0.0f64; pieces * 2 * width];
    let (parts_out, out) = (Shared::new(&mut parts), Shared::new(dx));
    mxrs_lanes::for_each(pieces, 1, |range: Range<usize>| {
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        let mut near = vec![T::R::ZERO; if affine == Affine::PerElement { 2 * len } else { 0 }];
        vectorize(
            #[inline(always)]
            || {
                for piece in range {
                    // SAFETY: every piece has its own sums.
                    let sums = unsafe { parts_out.part(piece * 2 * width..(piece + 1) * 2 * width) };
                    let (first, last) = (rows * piece / pieces, rows * (piece + 1) / pieces);
                    for r in first..last {
                        let x = T::view(&x[r * len..(r + 1) * len], &mut a);
                        let dy = T::view(&dy[r * len..(r + 1) * len], &mut b);
                        let (m, inv) = (mean[r], T::R::ONE / std[r]);
                        let per_row = if let Affine::PerRow(n) = affine { Some(r % n) } else { None };
                        let (s, q) = head_sums(x, dy, m, inv, per_row.is_none().then_some(gamma));
                        match per_row {
                            Some(g) => {
                                sums[g] += q;
                                sums[width + g] += s;
                            }
                            None => {
                                let (near_g, near_b) = near.split_at_mut(len);
                                for i in 0..len {
                                    near_g[i] = near_g[i] + dy[i] * ((x[i] - m) * inv);
                                    near_b[i] = near_b[i] + dy[i];
                                }
                                // Emptied often, so that f32 sums stay short.
                                if (r - first) % 64 == 63 || r + 1 == last {
                                    empty(&mut near, sums);
                                }
                            }
                        }
                        let n = len as f64;
                        let s = T::R::of(if center == Center::Mean { s / n } else { 0.0 });
                        let q = T::R::of(q / n);
                        // SAFETY: every row belongs to one lane.
                        let dx = unsafe { out.part(r * len..(r + 1) * len) };
                        let whole = per_row.map(|g| gamma[g]);
                        T::write(
                            dx,
                            &mut c,
                            #[inline(always)]
                            |dx| slopes(dx, x, dy, [m, inv, s, q], whole, gamma),
                        );
                    }
                }
            },
        )
    });
    for i in 0..width {
        let sum = |from: usize| (0..pieces).map(|p| parts[p * 2 * width + from + i]).sum::<f64>();
        dgamma[i] = T::R::of(sum(0));
        dbeta[i] = T::R::of(sum(width));
    }
}

/// The sums of a row's head gradient, scaled by `gamma` where it differs along the row, and of its product with the
/// normalized row.
#[inline(always)]
fn head_sums<R: Real>(x: &[R], dy: &[R], m: R, inv: R, gamma: Option<&[R]>) -> (f64, f64) {
    match gamma {
        None => pair_sum(x.len(), |i| (dy[i], dy[i] * ((x[i] - m) * inv))),
        Some(gamma) => pair_sum(x.len(), |i| {
            let d = dy[i] * gamma[i];
            (d, d * ((x[i] - m) * inv))
        }),
    }
}

/// Moves what was summed in `near` to `sums`.
#[inline(always)]
fn empty<R: Real>(near: &mut [R], sums: &mut [f64]) {
    for (w, v) in sums.iter_mut().zip(near.iter_mut()) {
        *w += v.wide();
        *v = R::ZERO;
    }
}

/// The gradient of one row from its mean, 1 / deviation, and the means of its scaled heads plain and times the
/// normalized row; gamma is one number of the `whole` row, or one per element.
#[inline(always)]
fn slopes<R: Real>(dx: &mut [R], x: &[R], dy: &[R], [m, inv, s, q]: [R; 4], whole: Option<R>, gamma: &[R]) {
    if let Some(gamma) = whole {
        let scale = inv * gamma;
        for i in 0..dx.len() {
            dx[i] = (dy[i] - s - (x[i] - m) * inv * q) * scale;
        }
    } else {
        for i in 0..dx.len() {
            dx[i] = (dy[i] * gamma[i] - s - (x[i] - m) * inv * q) * inv;
        }
    }
}

/// Moves the middle axis of `x`, shape (outer, n, inner), to the end: LayerNorm over another axis runs on the result,
/// and `swap_axis` with `n` and `inner` exchanged brings it back.
pub fn swap_axis<T: Float>(x: &[T], (outer, n, inner): (usize, usize, usize), out: &mut [T]) {
    assert!(x.len() == outer * n * inner && out.len() == x.len());
    for o in 0..outer {
        let (x, out) = (&x[o * n * inner..][..n * inner], &mut out[o * n * inner..][..n * inner]);
        // Squares of 16 keep both sides in cache.
        for r0 in (0..n).step_by(16) {
            for j0 in (0..inner).step_by(16) {
                for j in j0..inner.min(j0 + 16) {
                    for r in r0..n.min(r0 + 16) {
                        out[j * n + r] = x[r * inner + j];
                    }
                }
            }
        }
    }
}

const TILE: usize = 64;

/// Calls `f(output index of the first column, offset of the first element, columns)` for runs of columns.
fn for_columns((outer, n, inner): (usize, usize, usize), f: impl Fn(usize, usize, usize) + Sync) {
    let tiles = inner.div_ceil(TILE);
    mxrs_lanes::for_each(outer * tiles, grain(n * inner.min(TILE)), |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for unit in range {
                    let (o, from) = (unit / tiles, unit % tiles * TILE);
                    f(o * inner + from, o * n * inner + from, (inner - from).min(TILE));
                }
            },
        )
    });
}

/// x / sqrt(sum of squares along the middle axis + eps); `norm`, shape (outer, inner), takes the divisors.
///
/// Instance mode: (batch, rest, 1); channel mode: (batch, channels, spatial); spatial mode:
/// (batch * channels, spatial, 1).
pub fn l2_normalize<T: Float>(
    x: &[T],
    around: (usize, usize, usize),
    eps: f64,
    out: &mut [T],
    norm: &mut [T::R],
) {
    let (outer, n, inner) = around;
    assert!(x.len() == outer * n * inner && out.len() == x.len() && norm.len() == outer * inner);
    let (out, norms) = (Shared::new(out), Shared::new(norm));
    for_columns(around, |to, at, cols| {
        // SAFETY (all in this closure): every run of columns belongs to one lane.
        let norm = unsafe { norms.part(to..to + cols) };
        if inner == 1 {
            let x = &x[at..at + n];
            let (sum, _) = pair_sum(n, |i| (x[i].up() * x[i].up(), T::R::ZERO));
            norm[0] = T::R::of((sum + eps).sqrt());
            let inverse = T::R::ONE / norm[0];
            // SAFETY: as above.
            let out = unsafe { out.part(at..at + n) };
            out.iter_mut().zip(x).for_each(|(o, x)| *o = T::down(x.up() * inverse));
            return;
        }
        let mut sum = [T::R::ZERO; TILE];
        for r in 0..n {
            for (s, x) in sum.iter_mut().zip(&x[at + r * inner..][..cols]) {
                *s = *s + x.up() * x.up();
            }
        }
        for j in 0..cols {
            norm[j] = (sum[j] + T::R::of(eps)).sqrt_();
            sum[j] = T::R::ONE / norm[j];
        }
        for r in 0..n {
            // SAFETY: as above.
            let out = unsafe { out.part(at + r * inner..at + r * inner + cols) };
            for ((o, x), s) in out.iter_mut().zip(&x[at + r * inner..]).zip(&sum) {
                *o = T::down(x.up() * *s);
            }
        }
    });
}

/// The gradient of [`l2_normalize`] from its outputs: (dy - y * sum(y * dy)) / norm.
pub fn l2_grad<T: Float>(y: &[T], norm: &[T::R], dy: &[T], around: (usize, usize, usize), dx: &mut [T]) {
    let (outer, n, inner) = around;
    assert!(y.len() == outer * n * inner && dy.len() == y.len() && dx.len() == y.len());
    assert_eq!(norm.len(), outer * inner);
    let out = Shared::new(dx);
    for_columns(around, |to, at, cols| {
        let mut sum = [T::R::ZERO; TILE];
        for r in 0..n {
            let i = at + r * inner;
            for ((s, y), d) in sum.iter_mut().zip(&y[i..i + cols]).zip(&dy[i..]) {
                *s = *s + y.up() * d.up();
            }
        }
        for r in 0..n {
            let i = at + r * inner;
            // SAFETY: every run of columns belongs to one lane.
            let dx = unsafe { out.part(i..i + cols) };
            for (j, o) in dx.iter_mut().enumerate() {
                *o = T::down((dy[i + j].up() - y[i + j].up() * sum[j]) / norm[to + j]);
            }
        }
    });
}

/// Attributes of LRN.
#[derive(Clone, Copy, Debug)]
pub struct Lrn {
    pub alpha: f64,
    pub beta: f64,
    pub knorm: f64,
    /// Channels of the window: `(nsize - 1) / 2` on both sides of the middle.
    pub nsize: usize,
}

impl Lrn {
    fn window(&self, channels: usize, c: usize) -> Range<usize> {
        let half = self.nsize.saturating_sub(1) / 2;
        c.saturating_sub(half)..channels.min(c + half + 1)
    }
}

/// Local response normalization across channels: x * (knorm + alpha / nsize * sum of squares in the window)^-beta.
///
/// Arrays have shape (batch, channels, inner); `scale` (that of `x`) takes the base of the power, for the gradient.
pub fn lrn<T: Float>(x: &[T], around: (usize, usize, usize), how: &Lrn, out: &mut [T], scale: &mut [T::R]) {
    let (outer, channels, inner) = around;
    assert!(x.len() == outer * channels * inner && out.len() == x.len() && scale.len() == x.len());
    let (factor, knorm) = (T::R::of(how.alpha / how.nsize.max(1) as f64), T::R::of(how.knorm));
    let power = T::R::of(-how.beta);
    let (out, scales) = (Shared::new(out), Shared::new(scale));
    for_columns(around, |_, at, cols| {
        for c in 0..channels {
            let mut sum = [T::R::ZERO; TILE];
            for k in how.window(channels, c) {
                for (s, x) in sum.iter_mut().zip(&x[at + k * inner..][..cols]) {
                    *s = *s + x.up() * x.up();
                }
            }
            let i = at + c * inner;
            // SAFETY: every run of columns belongs to one lane.
            let (out, scale) = unsafe { (out.part(i..i + cols), scales.part(i..i + cols)) };
            for j in 0..cols {
                scale[j] = knorm + factor * sum[j];
                out[j] = T::down(x[i + j].up() * scale[j].powf_(power));
            }
        }
    });
}

/// The gradient of [`lrn`] from its input, output `y` and `scale`.
pub fn lrn_grad<T: Float>(
    x: &[T],
    y: &[T],
    scale: &[T::R],
    dy: &[T],
    around: (usize, usize, usize),
    how: &Lrn,
    dx: &mut [T],
) {
    let (outer, channels, inner) = around;
    let size = outer * channels * inner;
    assert!(
        x.len() == size && y.len() == size && scale.len() == size && dy.len() == size && dx.len() == size
    );
    let factor = T::R::of(2.0 * how.alpha * how.beta / how.nsize.max(1) as f64);
    let power = T::R::of(-how.beta);
    let out = Shared::new(dx);
    for_columns(around, |_, at, cols| {
        for c in 0..channels {
            let mut sum = [T::R::ZERO; TILE];
            for k in how.window(channels, c) {
                let i = at + k * inner;
                for j in 0..cols {
                    sum[j] = sum[j] + dy[i + j].up() * y[i + j].up() / scale[i + j];
                }
            }
            let i = at + c * inner;
            // SAFETY: every run of columns belongs to one lane.
            let dx = unsafe { out.part(i..i + cols) };
            for (j, o) in dx.iter_mut().enumerate() {
                let direct = dy[i + j].up() * scale[i + j].powf_(power);
                *o = T::down(direct - factor * x[i + j].up() * sum[j]);
            }
        }
    });
}

#[cfg(test)]
#[path = "norm_rows_tests.rs"]
mod tests;
