//! Fills with random numbers of the usual distributions, from Philox streams.
//!
//! Parameters are slices: one value serves the whole output, `m` values serve `m` equal runs of it (the form that
//! samples per element of parameter arrays). Uniform and normal f32 numbers come vectorised from groups of the
//! stream; the others draw per element from a sub-stream whose counter holds the element's index and the number of
//! the draw, so that rejection in one element moves no other. Discrete results are rounded into the output type.
//! The generator is in [`crate::philox`]. Parameters outside their domain give not-a-number.

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::philox::{GROUP, SIDE, Stream, fill_unit_f64, for_groups, unit_f32, unit_f64};
use crate::real::{Float, Real, Shared, ln_f32, sin_cos_turns};
use mxrs_base::{DType, Elem};
use std::f64::consts::TAU;

/// Draws of one element: block `k` has the counter (index, draw number).
struct Draws {
    stream: Stream,
    index: u64,
    k: u64,
}

impl Draws {
    /// The index takes 44 bits of the counter and the number of the draw 20.
    fn new(stream: Stream, index: usize) -> Draws {
        Draws { stream, index: index as u64 & 0xfff_ffff_ffff, k: 0 }
    }
    fn words(&mut self) -> [u32; 4] {
        let words = self.stream.block(self.index | (self.k & 0xf_ffff) << 44);
        self.k += 1;
        words
    }
    /// Two uniform numbers in (0, 1).
    fn pair(&mut self) -> (f64, f64) {
        let w = self.words();
        let open = |lo, hi| unit_f64(lo, hi) + 0.5 / 9_007_199_254_740_992.0;
        (open(w[0], w[1]), open(w[2], w[3]))
    }
    fn normal(&mut self) -> f64 {
        let (u, v) = self.pair();
        (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
    }
    /// A unit-scale gamma variate (Marsaglia and Tsang 2000), at most 256 attempts of acceptance above 0.95.
    fn gamma(&mut self, alpha: f64) -> f64 {
        if alpha.is_nan() || alpha <= 0.0 {
            return f64::NAN;
        }
        // Shapes below 1 are raised by one and corrected by a power of a uniform number.
        let boost = if alpha < 1.0 { self.pair().0.powf(1.0 / alpha) } else { 1.0 };
        let d = if alpha < 1.0 { alpha + 1.0 } else { alpha } - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        for _ in 0..256 {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = self.pair().0;
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * boost;
            }
        }
        d * boost
    }
    fn exponential(&mut self) -> f64 {
        -self.pair().0.ln()
    }
    fn poisson(&mut self, lam: f64) -> f64 {
        if lam.is_nan() || lam < 0.0 {
            return f64::NAN;
        }
        if lam < 12.0 {
            // The distribution function is walked upwards; 200 terms reach far beyond 53 bits.
            let u = self.pair().0;
            let (mut p, mut k) = ((-lam).exp(), 0.0);
            let mut below = p;
            while u > below && k < 200.0 {
                k += 1.0;
                p *= lam / k;
                below += p;
            }
            return k;
        }
        // Transformed rejection (Hörmann 1993, PTRS).
        let b = 0.931 + 2.53 * lam.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inv_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let vr = 0.9277 - 3.6224 / (b - 2.0);
        for _ in 0..256 {
            let (u, v) = self.pair();
            let u = u - 0.5;
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + lam + 0.43).floor();
            if us >= 0.07 && v <= vr {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            if (v * inv_alpha / (a / (us * us) + b)).ln() <= k * lam.ln() - lam - ln_factorial(k) {
                return k;
            }
        }
        lam.floor()
    }
}

/// ln k! by Stirling's series, exact products below 10.
fn ln_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u64).map(|i| i as f64).product::<f64>().ln();
    }
    let r = 1.0 / k;
    (k + 0.5) * k.ln() - k + 0.5 * TAU.ln() + r * (1.0 / 12.0 - r * r * (1.0 / 360.0 - r * r / 1260.0))
}

/// The parameter that serves element `i` of `n`.
#[inline(always)]
fn at(p: &[f64], i: usize, n: usize) -> f64 {
    if p.len() == 1 { p[0] } else { p[i / (n / p.len()).max(1)] }
}

fn check(p: &[f64], n: usize) {
    assert!(
        !p.is_empty() && n.is_multiple_of(p.len()),
        "{} parameters cannot serve {n} elements evenly",
        p.len()
    );
}

fn each<T: Elem>(stream: Stream, out: &mut [T], f: impl Fn(usize, &mut Draws) -> f64 + Sync) {
    let shared = Shared::new(out);
    mxrs_lanes::for_each(shared.len(), 512, |range| {
        for i in range {
            let v = f(i, &mut Draws::new(stream, i));
            // SAFETY: every index belongs to one lane.
            unsafe { shared.set(i, T::from_f64(v)) }
        }
    });
}

/// Uniform on [low, high). f64 has 53 random bits, the other types 24.
pub fn uniform<T: Float>(stream: Stream, low: &[f64], high: &[f64], out: &mut [T]) {
    let n = out.len();
    if n == 0 {
        return;
    }
    check(low, n);
    check(high, n);
    if T::DTYPE == DType::F64 {
        let mut u = vec![0.0; n];
        fill_unit_f64(stream, &mut u);
        for (i, (o, u)) in out.iter_mut().zip(&u).enumerate() {
            let (a, b) = (at(low, i, n), at(high, i, n));
            *o = T::from_f64(a + u * (b - a));
        }
        return;
    }
    let one = low.len() == 1 && high.len() == 1;
    for_groups(stream, out, |words, from, out| {
        let (a, d) = (low[0] as f32, (high[0] - low[0]) as f32);
        for (j, (o, w)) in out.iter_mut().zip(words.as_flattened()).enumerate() {
            let (a, d) = if one {
                (a, d)
            } else {
                let a = at(low, from + j, n);
                (a as f32, (at(high, from + j, n) - a) as f32)
            };
            *o = T::down(T::R::of((a + unit_f32(*w) * d) as f64));
        }
    });
}

/// Normal with mean `loc` and standard deviation `scale`, by Box and Muller's transform.
///
/// Of a group's four words, 0 and 1 make the elements of rows 0 (cosine) and 1 (sine), 2 and 3 those of rows 2 and 3.
pub fn normal<T: Float>(stream: Stream, loc: &[f64], scale: &[f64], out: &mut [T]) {
    let n = out.len();
    if n == 0 {
        return;
    }
    check(loc, n);
    check(scale, n);
    if T::DTYPE == DType::F64 {
        return each(stream, out, |i, d| at(loc, i, n) + at(scale, i, n) * d.normal());
    }
    let one = loc.len() == 1 && scale.len() == 1;
    for_groups(stream, out, |words, from, out| {
        let mut z = [0f32; GROUP];
        for pair in 0..2 {
            let (radius, angle) = (&words[2 * pair], &words[2 * pair + 1]);
            for l in 0..SIDE {
                // In (0, 1]: the smallest is 2^-33, so that tails reach 6.7.
                let u = ((radius[l] >> 1) as i32 as f32 + 0.25) * (1.0 / 2_147_483_648.0);
                // Rounding may lift ln 1 above 0 by nothing, but -0 must not reach the root.
                let r = (-2.0 * ln_f32(u)).max(0.0).sqrt();
                let (s, c) = sin_cos_turns(unit_f32(angle[l]));
                z[2 * pair * SIDE + l] = r * c;
                z[(2 * pair + 1) * SIDE + l] = r * s;
            }
        }
        if one {
            let (m, s) = (loc[0] as f32, scale[0] as f32);
            out.iter_mut().zip(&z).for_each(|(o, z)| *o = T::down(T::R::of((m + s * z) as f64)));
        } else {
            for (j, (o, z)) in out.iter_mut().zip(&z).enumerate() {
                *o = T::from_f64(at(loc, from + j, n) + at(scale, from + j, n) * *z as f64);
            }
        }
    });
}

/// Gamma with shape `alpha` and scale `beta` (mean alpha * beta).
pub fn gamma<T: Float>(stream: Stream, alpha: &[f64], beta: &[f64], out: &mut [T]) {
    let n = out.len();
    if n > 0 {
        check(alpha, n);
        check(beta, n);
        each(stream, out, |i, d| d.gamma(at(alpha, i, n)) * at(beta, i, n));
    }
}

/// Exponential with rate `lam` (mean 1 / lam).
pub fn exponential<T: Float>(stream: Stream, lam: &[f64], out: &mut [T]) {
    let n = out.len();
    if n > 0 {
        check(lam, n);
        each(stream, out, |i, d| d.exponential() / at(lam, i, n));
    }
}

/// Poisson with mean `lam`.
pub fn poisson<T: Elem>(stream: Stream, lam: &[f64], out: &mut [T]) {
    let n = out.len();
    if n > 0 {
        check(lam, n);
        each(stream, out, |i, d| d.poisson(at(lam, i, n)));
    }
}

/// Failures before the `k`-th success at success probability `p` (mean k (1-p) / p; `k` may be fractional).
pub fn negative_binomial<T: Elem>(stream: Stream, k: &[f64], p: &[f64], out: &mut [T]) {
    let n = out.len();
    if n > 0 {
        check(k, n);
        check(p, n);
        each(stream, out, |i, d| {
            let p = at(p, i, n);
            if p == 1.0 {
                return 0.0;
            }
            let lam = d.gamma(at(k, i, n)) * (1.0 - p) / p;
            d.poisson(lam)
        });
    }
}

/// Negative binomial by mean `mu` and dispersion `alpha` (variance mu + alpha mu^2); alpha = 0 is Poisson.
pub fn generalized_negative_binomial<T: Elem>(stream: Stream, mu: &[f64], alpha: &[f64], out: &mut [T]) {
    let n = out.len();
    if n > 0 {
        check(mu, n);
        check(alpha, n);
        each(stream, out, |i, d| {
            let (mu, alpha) = (at(mu, i, n), at(alpha, i, n));
            let lam = if alpha == 0.0 { mu } else { d.gamma(1.0 / alpha) * alpha * mu };
            d.poisson(lam)
        });
    }
}

/// Integers in low..high; `low < high`. The bias is below (high - low) / 2^64.
pub fn randint<T: Elem>(stream: Stream, low: i64, high: i64, out: &mut [T]) {
    assert!(low < high, "randint: the range {low}..{high} is empty");
    let range = (high as i128 - low as i128) as u128;
    let shared = Shared::new(out);
    mxrs_lanes::for_each(shared.len(), 4096, |span| {
        for i in span {
            // SAFETY: every index belongs to one lane.
            unsafe { shared.set(i, T::from_i64((low as i128 + below(stream, i, range)) as i64)) }
        }
    });
}

/// A number below `range` from 64 bits: words of one half of block `i / 2`.
#[inline(always)]
fn below(stream: Stream, i: usize, range: u128) -> i128 {
    let w = stream.block(i as u64 / 2);
    let half = i % 2 * 2;
    let bits = (w[half + 1] as u64) << 32 | w[half] as u64;
    ((bits as u128 * range) >> 64) as i128
}

/// 1 with probability `p`, else 0.
pub fn bernoulli<T: Elem>(stream: Stream, p: &[f64], out: &mut [T]) {
    let n = out.len();
    if n == 0 {
        return;
    }
    check(p, n);
    for_groups(stream, out, |words, from, out| {
        for (j, (o, w)) in out.iter_mut().zip(words.as_flattened()).enumerate() {
            *o = T::from_i64((*w as f64 * (1.0 / 4_294_967_296.0) < at(p, from + j, n)) as i64);
        }
    });
}

/// A dropout mask: 1 / (1 - p) with probability 1 - p, else 0. At p = 1 everything is not-a-number (0 times
/// infinity), as MXNet has it.
pub fn dropout_mask<T: Float>(stream: Stream, p: f64, out: &mut [T]) {
    let keep = 1.0 - p;
    let scale = T::R::of(1.0 / keep);
    // Compared with 32-bit words; keep = 1 keeps all of them.
    let bound = (keep * 4_294_967_296.0).round();
    let (all, bound) = (bound >= 4_294_967_296.0, bound as u32);
    let (hit, miss) = (T::down(scale), T::down(T::R::ZERO * scale));
    for_groups(stream, out, |words, _, out| {
        for (o, w) in out.iter_mut().zip(words.as_flattened()) {
            *o = if all | (*w < bound) { hit } else { miss };
        }
    });
}

/// As [`dropout_mask`] for an array of shape `dims` whose `axes` share one decision.
pub fn dropout_mask_shared<T: Float>(stream: Stream, p: f64, dims: &[usize], axes: &[usize], out: &mut [T]) {
    assert_eq!(out.len(), dims.iter().product::<usize>());
    let small: usize = (0..dims.len()).filter(|i| !axes.contains(i)).map(|i| dims[i]).product();
    let mut mask = vec![T::default(); small];
    dropout_mask(stream, p, &mut mask);
    for (i, o) in out.iter_mut().enumerate() {
        let (mut rest, mut from, mut stride) = (i, 0, 1);
        for (axis, d) in dims.iter().enumerate().rev() {
            if !axes.contains(&axis) {
                from += rest % d * stride;
                stride *= d;
            }
            rest /= d;
        }
        *o = mask[from];
    }
}

/// `x * mask`, element by element.
pub fn apply_mask<T: Float>(x: &[T], mask: &[T], out: &mut [T]) {
    const PIECE: usize = 1 << 15;
    assert!(x.len() == mask.len() && x.len() == out.len());
    let shared = Shared::new(out);
    mxrs_lanes::for_each(x.len().div_ceil(PIECE), 1, |range| {
        for i in range {
            let part = i * PIECE..x.len().min((i + 1) * PIECE);
            // SAFETY: every piece belongs to one lane.
            let out = unsafe { shared.part(part.clone()) };
            mxrs_simd::binary(mxrs_simd::Binary::Mul, &x[part.clone()], &mask[part], out);
        }
    });
}

/// `draws` class numbers per row of probabilities (shape (rows, classes)), and where asked for the logarithm of
/// the probability drawn; outputs have shape (rows, draws). Rows need not sum to 1. Classes of probability 0 are
/// never drawn where another has more.
pub fn multinomial<T: Float, O: Elem>(
    stream: Stream,
    prob: &[T],
    classes: usize,
    draws: usize,
    out: &mut [O],
    log_prob: Option<&mut [T]>,
) {
    assert!(classes > 0, "multinomial: there are no classes");
    let rows = prob.len() / classes;
    assert!(prob.len() == rows * classes && out.len() == rows * draws);
    let shared = Shared::new(out);
    let logs = log_prob.map(Shared::new);
    assert!(logs.as_ref().is_none_or(|l| l.len() == rows * draws));
    mxrs_lanes::for_each(rows, 4096 / (classes + draws) + 1, |range| {
        let mut bounds = vec![0.0f64; classes];
        for r in range {
            let prob = &prob[r * classes..(r + 1) * classes];
            let mut total = 0.0;
            for (b, p) in bounds.iter_mut().zip(prob) {
                total += p.to_f64().max(0.0);
                *b = total;
            }
            for j in r * draws..(r + 1) * draws {
                let w = stream.block(j as u64);
                let u = unit_f64(w[0], w[1]) * total;
                let last = bounds.partition_point(|b| *b < total).min(classes - 1);
                let class = bounds.partition_point(|b| *b <= u).min(last);
                // SAFETY: every row belongs to one lane.
                unsafe {
                    shared.set(j, O::from_i64(class as i64));
                    if let Some(logs) = &logs {
                        logs.set(j, T::from_f64((prob[class].to_f64() / total).ln()));
                    }
                }
            }
        }
    });
}

/// A random permutation of 0..n (Fisher and Yates), the same for the same stream.
pub fn permutation(stream: Stream, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(stream, i, i as u128 + 1) as usize);
    }
    order
}

/// `x` (shape (rows, inner)) with its rows in the order of [`permutation`].
pub fn shuffle<T: Elem>(stream: Stream, x: &[T], rows: usize, out: &mut [T]) {
    assert_eq!(x.len(), out.len());
    if out.is_empty() {
        return;
    }
    let inner = x.len() / rows;
    assert_eq!(x.len(), rows * inner);
    for (o, from) in out.chunks_exact_mut(inner).zip(permutation(stream, rows)) {
        o.copy_from_slice(&x[from * inner..(from + 1) * inner]);
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
