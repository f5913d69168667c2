//! Batch normalization: statistics per channel, the normalizing pass and its gradient.
//!
//! Arrays have shape (outer, channels, inner). Parameters and statistics are in the computing type (f32 for f16
//! data). Statistics are merged from blocks (Chan, Golub, LeVeque 1983) in f64, so that neither a large mean nor
//! the number of lanes shows in the result. Updating moving averages is the operator's; norms along rows are in
//! [`crate::norm_rows`].

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::{Float, Real, Shared};
use mxrs_simd::vectorize;
use std::ops::Range;

const LANES: usize = 16;
const BLOCK: usize = 4096;
const TILE: usize = 128;

/// Count, mean and sum of squared deviations of a set of numbers.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Moments {
    pub n: f64,
    pub mean: f64,
    pub m2: f64,
}

impl Moments {
    #[inline(always)]
    pub fn merge(self, o: Moments) -> Moments {
        if self.n == 0.0 {
            return o;
        }
        let n = self.n + o.n;
        let d = o.mean - self.mean;
        Moments { n, mean: self.mean + d * (o.n / n), m2: self.m2 + o.m2 + d * d * (self.n * o.n / n) }
    }
}

/// The sums of `f(i)` and `g(i)` over `0..n`, in many accumulators.
#[inline(always)]
pub(crate) fn pair_sum<R: Real>(n: usize, f: impl Fn(usize) -> (R, R)) -> (f64, f64) {
    let (mut total_a, mut total_b) = (0.0, 0.0);
    let mut start = 0;
    while start < n {
        let stop = n.min(start + BLOCK);
        let (mut a, mut b) = ([R::ZERO; LANES], [R::ZERO; LANES]);
        while start + LANES <= stop {
            for l in 0..LANES {
                let (u, v) = f(start + l);
                a[l] = a[l] + u;
                b[l] = b[l] + v;
            }
            start += LANES;
        }
        for l in 0..stop - start {
            let (u, v) = f(start + l);
            a[l] = a[l] + u;
            b[l] = b[l] + v;
        }
        start = stop;
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                a[i] = a[i] + a[i + half];
                b[i] = b[i] + b[i + half];
            }
            half /= 2;
        }
        total_a += a[0].wide();
        total_b += b[0].wide();
    }
    (total_a, total_b)
}

/// Adds the moments of `x` to `to`; deviations are taken from the mean known so far.
#[inline(always)]
pub(crate) fn add_moments<R: Real>(mut to: Moments, x: &[R]) -> Moments {
    for block in x.chunks(BLOCK) {
        let n = block.len() as f64;
        let shift = if to.n == 0.0 {
            let (sum, _) = pair_sum(block.len(), |i| (block[i], R::ZERO));
            R::of(sum / n)
        } else {
            R::of(to.mean)
        };
        let (s, q) = pair_sum(block.len(), |i| {
            let d = block[i] - shift;
            (d, d * d)
        });
        to = to.merge(Moments { n, mean: shift.wide() + s / n, m2: (q - s * s / n).max_nan(0.0) });
    }
    to
}

/// Sizes before, along and after the channel axis.
pub type Around = (usize, usize, usize);

/// How the samples of few channels are cut, so that several lanes have work; depends on sizes alone.
fn cuts(outer: usize, channels: usize) -> usize {
    if channels >= 16 { 1 } else { outer.min(16) }
}

fn cut(n: usize, i: usize, pieces: usize) -> Range<usize> {
    n * i / pieces..n * (i + 1) / pieces
}

/// Mean and biased variance per channel of `x`, shape (outer, channels, inner).
pub fn batch_moments<T: Float>(x: &[T], around: Around, mean: &mut [T::R], var: &mut [T::R]) {
    let (outer, channels, inner) = around;
    assert!(x.len() == outer * channels * inner && mean.len() == channels && var.len() == channels);
    let pieces = if inner == 1 { outer.div_ceil(512).clamp(1, 64) } else { cuts(outer, channels).max(1) };
    let mut parts = vec![Moments::default(); pieces * channels];
    let shared = Shared::new(&mut parts);
    if inner == 1 {
        let tiles = channels.div_ceil(TILE);
        mxrs_lanes::for_each(pieces * tiles, 1, |range: Range<usize>| {
            vectorize(
                #[inline(always)]
                || {
                    for unit in range {
                        let (piece, from) = (unit / tiles, unit % tiles * TILE);
                        let n = (channels - from).min(TILE);
                        // SAFETY: every unit has its own partial results.
                        let out =
                            unsafe { shared.part(piece * channels + from..piece * channels + from + n) };
                        columns_moments(x, channels, from, cut(outer, piece, pieces), out);
                    }
                },
            )
        });
    } else {
        mxrs_lanes::for_each(pieces * channels, 1, |range: Range<usize>| {
            let mut buf = Vec::new();
            vectorize(
                #[inline(always)]
                || {
                    for unit in range {
                        let (piece, c) = (unit / channels, unit % channels);
                        let mut m = Moments::default();
                        for o in cut(outer, piece, pieces) {
                            let at = (o * channels + c) * inner;
                            m = add_moments(m, T::view(&x[at..at + inner], &mut buf));
                        }
                        // SAFETY: every unit has its own partial result.
                        unsafe { shared.set(unit, m) }
                    }
                },
            )
        });
    }
    for c in 0..channels {
        let m = (0..pieces).fold(Moments::default(), |m, p| {
            let part = parts[p * channels + c];
            if part.n == 0.0 { m } else { m.merge(part) }
        });
        mean[c] = T::R::of(m.mean);
        var[c] = T::R::of(if m.n == 0.0 { 0.0 } else { m.m2 / m.n });
    }
}

/// Moments of neighbouring columns over `rows`.
#[inline(always)]
fn columns_moments<T: Float>(x: &[T], width: usize, from: usize, rows: Range<usize>, out: &mut [Moments]) {
    let n = out.len();
    let mut start = rows.start;
    while start < rows.end {
        let stop = rows.end.min(start + 64);
        let (mut s, mut q, mut shift) = ([T::R::ZERO; TILE], [T::R::ZERO; TILE], [T::R::ZERO; TILE]);
        for j in 0..n {
            shift[j] = if out[j].n == 0.0 { x[start * width + from + j].up() } else { T::R::of(out[j].mean) };
        }
        for r in start..stop {
            let row = &x[r * width + from..][..n];
            for j in 0..n {
                let d = row[j].up() - shift[j];
                s[j] = s[j] + d;
                q[j] = q[j] + d * d;
            }
        }
        let count = (stop - start) as f64;
        for j in 0..n {
            let (s, q) = (s[j].wide(), q[j].wide());
            let m2 = (q - s * s / count).max_nan(0.0);
            out[j] = out[j].merge(Moments { n: count, mean: shift[j].wide() + s / count, m2 });
        }
        start = stop;
    }
}

/// 1 / sqrt(var + eps), element by element.
pub fn inverse_std<R: Real>(var: &[R], eps: f64, out: &mut [R]) {
    for (o, v) in out.iter_mut().zip(var) {
        *o = R::of(1.0 / (v.wide() + eps).sqrt());
    }
}

/// Calls `f(channel or 0, from, out)` on pieces of `out` that belong to one channel (`inner` > 1), or on whole rows
/// of channels (`inner` = 1).
fn for_pieces<T: Float>(out: &mut [T], around: Around, f: impl Fn(usize, usize, &mut [T]) + Sync) {
    let (outer, channels, inner) = around;
    let shared = Shared::new(out);
    let (units, size) = if inner == 1 { (outer, channels) } else { (outer * channels, inner) };
    mxrs_lanes::for_each(units, (1 << 14) / size.max(1) + 1, |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for u in range {
                    // SAFETY: every unit has its own part.
                    f(if inner == 1 { 0 } else { u % channels }, u * size, unsafe {
                        shared.part(u * size..(u + 1) * size)
                    });
                }
            },
        )
    });
}

/// (x - mean) * rstd * gamma + beta per channel; without `gamma` (`beta`) it is 1 (0).
pub fn batch_normalize<T: Float>(
    x: &[T],
    around: Around,
    mean: &[T::R],
    rstd: &[T::R],
    gamma: Option<&[T::R]>,
    beta: Option<&[T::R]>,
    out: &mut [T],
) {
    let (outer, channels, inner) = around;
    assert!(x.len() == outer * channels * inner && out.len() == x.len());
    assert!(mean.len() == channels && rstd.len() == channels);
    let scale: Vec<T::R> = (0..channels).map(|c| rstd[c] * gamma.map_or(T::R::ONE, |g| g[c])).collect();
    let shift: Vec<T::R> = (0..channels).map(|c| beta.map_or(T::R::ZERO, |b| b[c])).collect();
    for_pieces(out, around, |c, at, out| {
        #[inline(always)]
        fn run<T: Float>(x: &[T], out: &mut [T], f: impl Fn(usize, T::R) -> T::R) {
            for (i, (o, x)) in out.iter_mut().zip(x).enumerate() {
                *o = T::down(f(i, x.up()));
            }
        }
        let x = &x[at..at + out.len()];
        if inner == 1 {
            let (m, s, b) = (&mean[..x.len()], &scale[..x.len()], &shift[..x.len()]);
            run(x, out, |i, x| (x - m[i]) * s[i] + b[i]);
        } else {
            let (m, s, b) = (mean[c], scale[c], shift[c]);
            run(x, out, |_, x| (x - m) * s + b);
        }
    });
}

/// The gradient of batch normalization.
///
/// `dgamma` and `dbeta` (per channel) are written; `dx` where asked for. With `fixed_stats` the mean and variance
/// were constants (inference, global statistics), else they came from `x`.
#[allow(clippy::too_many_arguments)]
pub fn batch_grad<T: Float>(
    x: &[T],
    dy: &[T],
    around: Around,
    mean: &[T::R],
    rstd: &[T::R],
    gamma: Option<&[T::R]>,
    fixed_stats: bool,
    dx: Option<&mut [T]>,
    dgamma: &mut [T::R],
    dbeta: &mut [T::R],
) {
    let (outer, channels, inner) = around;
    let size = outer * channels * inner;
    assert!(x.len() == size && dy.len() == size && mean.len() == channels && rstd.len() == channels);
    let sums = grad_sums(x, dy, around, mean);
    let count = (outer * inner) as f64;
    let (mut k1, mut k2, mut k3) =
        (vec![T::R::ZERO; channels], vec![T::R::ZERO; channels], vec![T::R::ZERO; channels]);
    for c in 0..channels {
        let (sum, sum_x) = sums[c];
        let r = rstd[c].wide();
        dbeta[c] = T::R::of(sum);
        dgamma[c] = T::R::of(sum_x * r);
        let scale = r * gamma.map_or(1.0, |g| g[c].wide());
        k1[c] = T::R::of(scale);
        if !fixed_stats {
            k2[c] = T::R::of(-scale * r * r * sum_x / count);
            k3[c] = T::R::of(-scale * sum / count);
        }
    }
    let Some(dx) = dx else { return };
    assert_eq!(dx.len(), size);
    for_pieces(dx, around, |c, at, dx| {
        let n = dx.len();
        let (x, dy) = (&x[at..at + n], &dy[at..at + n]);
        if inner == 1 {
            let (m, k1, k2, k3) = (&mean[..n], &k1[..n], &k2[..n], &k3[..n]);
            for i in 0..n {
                dx[i] = T::down(k1[i] * dy[i].up() + (k2[i] * (x[i].up() - m[i]) + k3[i]));
            }
        } else {
            let (m, k1, k2, k3) = (mean[c], k1[c], k2[c], k3[c]);
            for i in 0..n {
                dx[i] = T::down(k1 * dy[i].up() + (k2 * (x[i].up() - m) + k3));
            }
        }
    });
}

/// Per channel: the sums of dy and of dy * (x - mean).
fn grad_sums<T: Float>(x: &[T], dy: &[T], around: Around, mean: &[T::R]) -> Vec<(f64, f64)> {
    let (outer, channels, inner) = around;
    let pieces = if inner == 1 { outer.div_ceil(512).clamp(1, 64) } else { cuts(outer, channels).max(1) };
    let mut parts = vec![(0.0f64, 0.0f64); pieces * channels];
    let shared = Shared::new(&mut parts);
    if inner == 1 {
        let tiles = channels.div_ceil(TILE);
        mxrs_lanes::for_each(pieces * tiles, 1, |range: Range<usize>| {
            vectorize(
                #[inline(always)]
                || {
                    for unit in range {
                        let (piece, from) = (unit / tiles, unit % tiles * TILE);
                        let n = (channels - from).min(TILE);
                        // SAFETY: every unit has its own partial results.
                        let out =
                            unsafe { shared.part(piece * channels + from..piece * channels + from + n) };
                        let mean = &mean[from..from + n];
                        let rows = cut(outer, piece, pieces);
                        let mut start = rows.start;
                        while start < rows.end {
                            let stop = rows.end.min(start + 64);
                            let (mut s, mut q) = ([T::R::ZERO; TILE], [T::R::ZERO; TILE]);
                            for r in start..stop {
                                let at = r * channels + from;
                                let (x, dy) = (&x[at..at + n], &dy[at..at + n]);
                                for j in 0..n {
                                    let d = dy[j].up();
                                    s[j] = s[j] + d;
                                    q[j] = q[j] + d * (x[j].up() - mean[j]);
                                }
                            }
                            for j in 0..n {
                                out[j] = (out[j].0 + s[j].wide(), out[j].1 + q[j].wide());
                            }
                            start = stop;
                        }
                    }
                },
            )
        });
    } else {
        mxrs_lanes::for_each(pieces * channels, 1, |range: Range<usize>| {
            vectorize(
                #[inline(always)]
                || {
                    for unit in range {
                        let (piece, c) = (unit / channels, unit % channels);
                        let (mut sum, mean) = ((0.0, 0.0), mean[c]);
                        for o in cut(outer, piece, pieces) {
                            let at = (o * channels + c) * inner;
                            let (x, dy) = (&x[at..at + inner], &dy[at..at + inner]);
                            let (a, b) = pair_sum(inner, |i| {
                                let d = dy[i].up();
                                (d, d * (x[i].up() - mean))
                            });
                            sum = (sum.0 + a, sum.1 + b);
                        }
                        // SAFETY: every unit has its own partial result.
                        unsafe { shared.set(unit, sum) }
                    }
                },
            )
        });
    }
    let add = |c: usize| {
        (0..pieces).map(|p| parts[p * channels + c]).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    (0..channels).map(add).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxrs_base::f16;

    fn values(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| (((i + seed) * 7919 + 13) % 101) as f64 / 40.0 - 1.0).collect()
    }

    fn check<T: Float>(tolerance: f64, offset: f64) {
        for around @ (outer, c, inner) in
            [(2, 1, 1), (700, 3, 1), (3, 130, 1), (2, 3, 4), (4, 20, 49), (1, 2, 5000), (20, 2, 300)]
        {
            let n = outer * c * inner;
            let x: Vec<T> = values(n, 0).iter().map(|v| T::from_f64(v + offset)).collect();
            let dy: Vec<T> = values(n, 5).iter().map(|v| T::from_f64(*v)).collect();
            let gamma: Vec<T::R> = values(c, 9).iter().map(|v| T::R::of(v + 2.0)).collect();
            let beta: Vec<T::R> = values(c, 3).iter().map(|v| T::R::of(*v)).collect();
            let zero = vec![T::R::ZERO; c];
            let (mut mean, mut var, mut rstd, mut dg, mut db) =
                (zero.clone(), zero.clone(), zero.clone(), zero.clone(), zero.clone());
            let (mut y, mut dx, mut dx_fixed) = (x.clone(), x.clone(), x.clone());
            batch_moments(&x, around, &mut mean, &mut var);
            inverse_std(&var, 1e-3, &mut rstd);
            batch_normalize(&x, around, &mean, &rstd, Some(&gamma), Some(&beta), &mut y);
            batch_grad(
                &x,
                &dy,
                around,
                &mean,
                &rstd,
                Some(&gamma),
                true,
                Some(&mut dx_fixed),
                &mut dg,
                &mut db,
            );
            batch_grad(&x, &dy, around, &mean, &rstd, Some(&gamma), false, Some(&mut dx), &mut dg, &mut db);
            for k in 0..c {
                let at: Vec<usize> =
                    (0..outer).flat_map(|o| (0..inner).map(move |i| (o * c + k) * inner + i)).collect();
                let xs: Vec<f64> = at.iter().map(|i| x[*i].to_f64()).collect();
                let ds: Vec<f64> = at.iter().map(|i| dy[*i].to_f64()).collect();
                let m = xs.iter().sum::<f64>() / xs.len() as f64;
                let v = xs.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / xs.len() as f64;
                let r = 1.0 / (v + 1e-3).sqrt();
                let close = |a: f64, b: f64, s: f64| {
                    assert!(
                        (a - b).abs() <= tolerance * (1.0 + s + b.abs()),
                        "{around:?} channel {k}: {a} {b}"
                    )
                };
                close(mean[k].wide(), m, 0.0);
                close(var[k].wide(), v, 0.0);
                let sum: f64 = ds.iter().sum();
                let sum_x: f64 = ds.iter().zip(&xs).map(|(d, x)| d * (x - m) * r).sum();
                close(db[k].wide(), sum, xs.len() as f64);
                close(dg[k].wide(), sum_x, xs.len() as f64);
                let (g, b, n) = (gamma[k].wide(), beta[k].wide(), xs.len() as f64);
                for (j, i) in at.iter().enumerate() {
                    let hat = (xs[j] - m) * r;
                    close(y[*i].to_f64(), hat * g + b, 3.0);
                    close(dx[*i].to_f64(), g * r * (ds[j] - sum / n - hat * sum_x / n), 10.0);
                    close(dx_fixed[*i].to_f64(), g * r * ds[j], 10.0);
                }
            }
        }
    }

    #[test]
    fn batch_norm_and_gradient_match_their_definitions() {
        check::<f64>(1e-12, 0.0);
        check::<f32>(2e-6, 0.0);
        check::<f16>(2e-3, 0.0);
        check::<f64>(1e-10, 1e3);
    }

    #[test]
    fn a_large_mean_does_not_spoil_the_variance() {
        let x: Vec<f32> = (0..10_000).map(|i| 10_000.0 + (i % 2) as f32).collect();
        for around in [(1, 1, 10_000), (10_000, 1, 1), (100, 1, 100), (5000, 2, 1)] {
            let (mut mean, mut var) = ([0f32; 2], [0f32; 2]);
            let c = around.1;
            batch_moments(&x, around, &mut mean[..c], &mut var[..c]);
            let want = if c == 2 { 0.0 } else { 0.25 };
            assert!((var[0] - want).abs() < 1e-5, "{around:?}: {var:?}");
        }
    }
}
