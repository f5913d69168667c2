//! Softmax, its logarithm and its negative along any axis, their gradients, and the fused cross-entropy cores
//! (SoftmaxOutput, softmax_cross_entropy).
//!
//! Arrays have shape (outer, extent, inner) and the softmax runs along the middle. A row is read into cache once;
//! its maximum, exponentials and sum are computed there. Other losses are formulas over elements.
//!
//! length: the losses are the softmax with another last step, and share its row helpers.

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::{Float, Real, Shared};
use mxrs_simd::vectorize;
use std::ops::Range;

/// Which function of the row is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Softmax,
    LogSoftmax,
    /// Softmax of the negated input.
    Softmin,
}

/// Sizes before, along and after the softmax axis.
pub type Around = (usize, usize, usize);

const LANES: usize = 16;
const TILE: usize = 64;
/// Rows of a tile that are summed before they join the sum of those before: rounding grows with either count, not with their product.
const SEGMENT: usize = 256;

#[inline(always)]
fn lanes<R: Real>(x: &[R], start: R, step: impl Fn(R, R) -> R) -> R {
    let mut acc = [start; LANES];
    let mut pieces = x.chunks_exact(LANES);
    for piece in &mut pieces {
        for (a, v) in acc.iter_mut().zip(piece) {
            *a = step(*a, *v);
        }
    }
    for (a, v) in acc.iter_mut().zip(pieces.remainder()) {
        *a = step(*a, *v);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            acc[i] = step(acc[i], acc[i + half]);
        }
        half /= 2;
    }
    acc[0]
}

/// The sum of `f` over pairs, in many accumulators.
#[inline(always)]
fn sum2<R: Real>(x: &[R], y: &[R], f: impl Fn(R, R) -> R) -> R {
    let mut acc = [R::ZERO; LANES];
    let n = x.len().min(y.len());
    let whole = n - n % LANES;
    let (x, y) = (&x[..n], &y[..n]);
    for (a, b) in x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES)) {
        for i in 0..LANES {
            acc[i] = acc[i] + f(a[i], b[i]);
        }
    }
    for i in 0..n - whole {
        acc[i] = acc[i] + f(x[whole + i], y[whole + i]);
    }
    lanes(&acc, R::ZERO, |a, b| a + b)
}

/// One row; `scale` is the inverse temperature, negated for softmin.
#[inline(always)]
fn row<R: Real>(log: bool, scale: R, x: &[R], out: &mut [R]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = *v * scale;
    }
    let max = lanes(out, R::NEG_INF, R::max_nan);
    if log {
        let total = sum_exp(out, max);
        // The logarithm is taken once a row, in double precision.
        let shift = R::of(total.wide().ln());
        for o in out.iter_mut() {
            *o = (*o - max) - shift;
        }
        return;
    }
    for o in out.iter_mut() {
        *o = (*o - max).exp_();
    }
    let inverse = R::ONE / lanes(out, R::ZERO, |a, v| a + v);
    for o in out.iter_mut() {
        *o = *o * inverse;
    }
}

#[inline(always)]
fn sum_exp<R: Real>(x: &[R], max: R) -> R {
    sum2(x, x, |v, _| (v - max).exp_())
}

/// A tile of `n` neighbouring columns, `stride` apart along the axis.
#[inline(always)]
fn tile<R: Real>(log: bool, scale: R, x: &[R], out: &mut [R], extent: usize, n: usize) {
    let mut max = [R::NEG_INF; TILE];
    for (row, orow) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        for j in 0..n {
            orow[j] = row[j] * scale;
            max[j] = max[j].max_nan(orow[j]);
        }
    }
    let mut sum = [R::ZERO; TILE];
    for rows in out[..extent * n].chunks_mut(SEGMENT * n) {
        let mut part = [R::ZERO; TILE];
        for row in rows.chunks_exact_mut(n) {
            for j in 0..n {
                let shifted = row[j] - max[j];
                let e = shifted.exp_();
                part[j] = part[j] + e;
                row[j] = if log { shifted } else { e };
            }
        }
        (0..n).for_each(|j| sum[j] = sum[j] + part[j]);
    }
    for s in &mut sum[..n] {
        *s = if log { R::of(s.wide().ln()) } else { R::ONE / *s };
    }
    for row in out[..extent * n].chunks_exact_mut(n) {
        for j in 0..n {
            row[j] = if log { row[j] - sum[j] } else { row[j] * sum[j] };
        }
    }
}

fn grain(per_unit: usize) -> usize {
    (1 << 13) / per_unit.max(1) + 1
}

/// Softmax of `x` along the middle axis, with the input divided by `temperature` first.
///
/// `lengths`, of shape (outer, inner), restricts each row to its first elements; the rest becomes 0.
pub fn softmax<T: Float>(
    kind: Kind,
    x: &[T],
    around: Around,
    temperature: f64,
    lengths: Option<&[i64]>,
    out: &mut [T],
) {
    let (outer, extent, inner) = around;
    assert!(x.len() == outer * extent * inner && out.len() == x.len());
    assert!(lengths.is_none_or(|l| l.len() == outer * inner));
    if x.is_empty() {
        return;
    }
    let log = kind == Kind::LogSoftmax;
    let scale = <T::R as Real>::of(if kind == Kind::Softmin { -1.0 } else { 1.0 } / temperature);
    let shared = Shared::new(out);
    if inner == 1 {
        return mxrs_lanes::for_each(outer, grain(extent), |range: Range<usize>| {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            vectorize(
                #[inline(always)]
                || {
                    for o in range {
                        let at = o * extent;
                        let n = lengths.map_or(extent, |l| l[o].clamp(0, extent as i64) as usize);
                        // SAFETY: every lane has its own rows.
                        let (out, rest) = unsafe { shared.part(at..at + extent) }.split_at_mut(n);
                        let x = T::view(&x[at..at + n], &mut a);
                        T::write(
                            out,
                            &mut b,
                            #[inline(always)]
                            |out| row(log, scale, x, out),
                        );
                        rest.fill(T::default());
                    }
                },
            )
        });
    }
    let tiles = inner.div_ceil(TILE);
    mxrs_lanes::for_each(outer * tiles, grain(extent * inner.min(TILE)), |range: Range<usize>| {
        let mut xs = vec![T::R::ZERO; extent * TILE];
        let mut ys = xs.clone();
        vectorize(
            #[inline(always)]
            || {
                for unit in range {
                    let (o, from) = (unit / tiles, unit % tiles * TILE);
                    let n = (inner - from).min(TILE);
                    let at = |r: usize| (o * extent + r) * inner + from;
                    for r in 0..extent {
                        let masked = |j: usize| lengths.is_some_and(|l| r as i64 >= l[o * inner + from + j]);
                        for (j, v) in x[at(r)..at(r) + n].iter().enumerate() {
                            // A masked element is as if it were -inf before scaling, whatever the sign of the scale.
                            xs[r * n + j] =
                                if lengths.is_some() && masked(j) { T::R::NEG_INF / scale } else { v.up() };
                        }
                    }
                    tile(log, scale, &xs[..extent * n], &mut ys[..extent * n], extent, n);
                    for r in 0..extent {
                        // SAFETY: every unit has its own columns.
                        let out = unsafe { shared.part(at(r)..at(r) + n) };
                        for (j, v) in out.iter_mut().enumerate() {
                            let masked = lengths.is_some_and(|l| r as i64 >= l[o * inner + from + j]);
                            *v = if masked { T::default() } else { T::down(ys[r * n + j]) };
                        }
                    }
                }
            },
        )
    });
}

/// The gradient of [`softmax`] by its input from the output `y` and the head gradient `dy`.
#[allow(clippy::too_many_arguments)]
pub fn softmax_grad<T: Float>(
    kind: Kind,
    y: &[T],
    dy: &[T],
    around: Around,
    temperature: f64,
    lengths: Option<&[i64]>,
    dx: &mut [T],
) {
    let (outer, extent, inner) = around;
    let size = outer * extent * inner;
    assert!(y.len() == size && dy.len() == size && dx.len() == size);
    assert!(lengths.is_none_or(|l| l.len() == outer * inner));
    if size == 0 {
        return;
    }
    let log = kind == Kind::LogSoftmax;
    let scale = <T::R as Real>::of(if kind == Kind::Softmin { -1.0 } else { 1.0 } / temperature);
    let shared = Shared::new(dx);
    if inner == 1 {
        return mxrs_lanes::for_each(outer, grain(extent), |range: Range<usize>| {
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            vectorize(
                #[inline(always)]
                || {
                    for o in range {
                        let at = o * extent;
                        let n = lengths.map_or(extent, |l| l[o].clamp(0, extent as i64) as usize);
                        // SAFETY: every lane has its own rows.
                        let (dx, rest) = unsafe { shared.part(at..at + extent) }.split_at_mut(n);
                        let y = T::view(&y[at..at + n], &mut a);
                        let dy = T::view(&dy[at..at + n], &mut b);
                        T::write(
                            dx,
                            &mut c,
                            #[inline(always)]
                            |dx| grad_row(log, scale, y, dy, dx),
                        );
                        rest.fill(T::default());
                    }
                },
            )
        });
    }
    let tiles = inner.div_ceil(TILE);
    mxrs_lanes::for_each(outer * tiles, grain(extent * inner.min(TILE)), |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for unit in range {
                    let (o, from) = (unit / tiles, unit % tiles * TILE);
                    let n = (inner - from).min(TILE);
                    let at = |r: usize| (o * extent + r) * inner + from;
                    let inside =
                        |r: usize, j: usize| lengths.is_none_or(|l| (r as i64) < l[o * inner + from + j]);
                    let mut sum = [T::R::ZERO; TILE];
                    for first in (0..extent).step_by(SEGMENT) {
                        let mut part = [T::R::ZERO; TILE];
                        for r in first..extent.min(first + SEGMENT) {
                            let (y, dy) = (&y[at(r)..at(r) + n], &dy[at(r)..at(r) + n]);
                            for j in 0..n {
                                let t = if log { dy[j].up() } else { dy[j].up() * y[j].up() };
                                part[j] = part[j] + if inside(r, j) { t } else { T::R::ZERO };
                            }
                        }
                        (0..n).for_each(|j| sum[j] = sum[j] + part[j]);
                    }
                    for r in 0..extent {
                        let (y, dy) = (&y[at(r)..at(r) + n], &dy[at(r)..at(r) + n]);
                        // SAFETY: every unit has its own columns.
                        let dx = unsafe { shared.part(at(r)..at(r) + n) };
                        for j in 0..n {
                            let (y, dy) = (y[j].up(), dy[j].up());
                            let g = if log { dy - y.exp_() * sum[j] } else { y * (dy - sum[j]) } * scale;
                            dx[j] = if inside(r, j) { T::down(g) } else { T::default() };
                        }
                    }
                }
            },
        )
    });
}

#[inline(always)]
fn grad_row<R: Real>(log: bool, scale: R, y: &[R], dy: &[R], dx: &mut [R]) {
    let n = dx.len();
    let (y, dy) = (&y[..n], &dy[..n]);
    if log {
        let sum = lanes(dy, R::ZERO, |a, v| a + v);
        for i in 0..n {
            dx[i] = (dy[i] - y[i].exp_() * sum) * scale;
        }
    } else {
        let sum = sum2(y, dy, |a, b| a * b);
        for i in 0..n {
            dx[i] = y[i] * (dy[i] - sum) * scale;
        }
    }
}

/// By what SoftmaxOutput divides its gradient besides the positions per sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalization {
    Null,
    Batch,
    /// The number of labels that are not the ignored one (at least 1).
    Valid,
}

/// Attributes of SoftmaxOutput's gradient.
#[derive(Clone, Copy, Debug)]
pub struct OutputGrad {
    pub grad_scale: f64,
    /// The label whose rows get no gradient where `use_ignore` holds.
    pub ignore_label: f64,
    pub use_ignore: bool,
    /// Classes stand on the middle axis of several positions: the gradient is divided by the positions per
    /// sample as well (not with `Valid`), and smoothing does not apply.
    pub multi_output: bool,
    pub normalization: Normalization,
    /// How much probability the label gives away to the other classes.
    pub smooth_alpha: f64,
}

/// The gradient of SoftmaxOutput by its data: (p - onehot(label)) times the scales of `how`.
///
/// `p` has shape (outer, classes, inner); `label` holds class numbers, shape (outer, inner). A label outside
/// 0..classes subtracts nothing.
pub fn softmax_output_grad<T: Float, L: mxrs_base::Elem>(
    p: &[T],
    label: &[L],
    around: Around,
    how: &OutputGrad,
    dx: &mut [T],
) {
    let (outer, classes, inner) = around;
    let size = outer * classes * inner;
    assert!(p.len() == size && dx.len() == size && label.len() == outer * inner);
    let ignored = |l: L| l.to_f64() == how.ignore_label;
    let scale = match how.normalization {
        Normalization::Valid => {
            let counts_all = !how.multi_output && !how.use_ignore;
            let valid = label.iter().filter(|l| counts_all || !ignored(**l)).count();
            how.grad_scale / valid.max(1) as f64
        }
        other => {
            let batch = if other == Normalization::Batch { outer.max(1) } else { 1 };
            let positions = if how.multi_output { inner.max(1) } else { 1 };
            how.grad_scale / (batch * positions) as f64
        }
    };
    let alpha = if how.multi_output { 0.0 } else { how.smooth_alpha };
    let spread = if classes > 1 { alpha / (classes - 1) as f64 } else { 0.0 };
    let of = <T::R as Real>::of;
    let (scale, hit, miss) = (of(scale), of(1.0 - alpha), of(spread));
    let shared = Shared::new(dx);
    mxrs_lanes::for_each(outer, grain(classes * inner), |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for o in range {
                    let at = o * classes * inner;
                    // SAFETY: every lane has its own samples.
                    let dx = unsafe { shared.part(at..at + classes * inner) };
                    for (g, p) in dx.iter_mut().zip(&p[at..]) {
                        *g = T::down((p.up() - miss) * scale);
                    }
                    for j in 0..inner {
                        let l = label[o * inner + j];
                        if how.use_ignore && ignored(l) {
                            (0..classes).for_each(|c| dx[c * inner + j] = T::default());
                            continue;
                        }
                        let class = l.to_i64();
                        if (0..classes as i64).contains(&class) {
                            let i = class as usize * inner + j;
                            dx[i] = T::down((p[at + i].up() - hit) * scale);
                        }
                    }
                }
            },
        )
    });
}

/// The sum over rows of -ln(softmax(x)[label]), `x` of shape (rows, classes). The probability is kept above 1e-8.
///
/// Labels outside 0..classes are the caller's to refuse; here they panic.
pub fn softmax_cross_entropy<T: Float, L: mxrs_base::Elem>(x: &[T], label: &[L], classes: usize) -> f64 {
    assert_eq!(x.len(), label.len() * classes);
    let mut losses = vec![0.0f64; label.len()];
    let shared = Shared::new(&mut losses);
    mxrs_lanes::for_each(label.len(), grain(classes), |range: Range<usize>| {
        let mut buf = Vec::new();
        vectorize(
            #[inline(always)]
            || {
                for r in range {
                    let x = T::view(&x[r * classes..(r + 1) * classes], &mut buf);
                    let max = lanes(x, T::R::NEG_INF, <T::R as Real>::max_nan);
                    let total = sum_exp(x, max).wide().ln();
                    let class = label[r].to_i64() as usize;
                    let loss = total + max.wide() - x[class].wide();
                    let bound = -(1e-8f64).ln();
                    // SAFETY: every lane has its own rows. A comparison that lets not-a-number through.
                    unsafe { shared.set(r, if loss > bound { bound } else { loss }) }
                }
            },
        )
    });
    losses.iter().sum()
}

/// The gradient of [`softmax_cross_entropy`]: (softmax(x) - onehot(label)) * `head`.
pub fn softmax_cross_entropy_grad<T: Float, L: mxrs_base::Elem>(
    x: &[T],
    label: &[L],
    classes: usize,
    head: f64,
    dx: &mut [T],
) {
    softmax(Kind::Softmax, x, (label.len(), classes, 1), 1.0, None, dx);
    let head = <T::R as Real>::of(head);
    let shared = Shared::new(dx);
    mxrs_lanes::for_each(label.len(), grain(classes), |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for r in range {
                    // SAFETY: every lane has its own rows.
                    let dx = unsafe { shared.part(r * classes..(r + 1) * classes) };
                    let class = label[r].to_i64() as usize;
                    dx[class] = T::down(dx[class].up() - T::R::ONE);
                    dx.iter_mut().for_each(|v| *v = T::down(v.up() * head));
                }
            },
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxrs_base::f16;

    fn values(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 / 17.0 - 3.0).collect()
    }

    /// Softmax by its definition over the elements of one row.
    fn plain(kind: Kind, x: &[f64], t: f64) -> Vec<f64> {
        let sign = if kind == Kind::Softmin { -1.0 } else { 1.0 };
        let e: Vec<f64> = x.iter().map(|v| (sign * v / t).exp()).collect();
        let s: f64 = e.iter().sum();
        e.iter().map(|v| if kind == Kind::LogSoftmax { (v / s).ln() } else { v / s }).collect()
    }

    const SHAPES: [Around; 9] = [
        (1, 1, 1),
        (3, 5, 1),
        (2, 33, 1),
        (2, 100, 1),
        (2, 3, 4),
        (1, 7, 65),
        (2, 4, 130),
        (0, 3, 1),
        (2, 3, 0),
    ];

    fn check<T: Float>(tolerance: f64) {
        for around @ (outer, n, inner) in SHAPES {
            let v = values(outer * n * inner);
            let x: Vec<T> = v.iter().map(|v| T::from_f64(*v)).collect();
            let lengths: Vec<i64> = (0..outer * inner).map(|i| (i % (n + 2)) as i64).collect();
            for kind in [Kind::Softmax, Kind::LogSoftmax, Kind::Softmin] {
                for (t, lengths) in [(1.0, None), (2.5, None), (1.0, Some(&lengths[..]))] {
                    let mut y = vec![T::default(); x.len()];
                    softmax(kind, &x, around, t, lengths, &mut y);
                    let dy: Vec<T> = values(x.len()).iter().map(|v| T::from_f64(v * 0.3)).rev().collect();
                    let mut dx = y.clone();
                    softmax_grad(kind, &y, &dy, around, t, lengths, &mut dx);
                    for o in 0..outer {
                        for j in 0..inner {
                            let at = |r: usize| (o * n + r) * inner + j;
                            let m = lengths.map_or(n, |l| (l[o * inner + j] as usize).min(n));
                            let row: Vec<f64> = (0..m).map(|r| x[at(r)].to_f64()).collect();
                            let want = plain(kind, &row, t);
                            let p = plain(if kind == Kind::Softmin { kind } else { Kind::Softmax }, &row, t);
                            let head: Vec<f64> = (0..m).map(|r| dy[at(r)].to_f64()).collect();
                            let s: f64 = head
                                .iter()
                                .zip(&p)
                                .map(|(h, p)| if kind == Kind::LogSoftmax { *h } else { h * p })
                                .sum();
                            let sign = if kind == Kind::Softmin { -1.0 } else { 1.0 };
                            for r in 0..n {
                                let (y, g) = (y[at(r)].to_f64(), dx[at(r)].to_f64());
                                if r >= m {
                                    assert_eq!((y, g), (0.0, 0.0));
                                    continue;
                                }
                                let wg = match kind {
                                    Kind::LogSoftmax => head[r] - p[r] * s,
                                    _ => sign * p[r] * (head[r] - s),
                                } / t;
                                let bound = tolerance * (1.0 + want[r].abs());
                                assert!((y - want[r]).abs() < bound, "{kind:?} {around:?}: {y} {}", want[r]);
                                let bound = tolerance * (2.0 + s.abs());
                                assert!((g - wg).abs() < bound, "grad {kind:?} {around:?}: {g} {wg}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn softmaxes_and_gradients_match_their_definitions() {
        check::<f64>(1e-13);
        check::<f32>(2e-6);
        check::<f16>(4e-3);
    }

    #[test]
    fn infinities_behave_as_observed() {
        let inf = f32::INFINITY;
        let mut y = [9f32; 2];
        softmax(Kind::Softmax, &[1.0, -inf], (1, 2, 1), 1.0, None, &mut y);
        assert_eq!(y, [1.0, 0.0]);
        softmax(Kind::Softmax, &[-inf, -inf], (1, 2, 1), 1.0, None, &mut y);
        assert!(y[0].is_nan() && y[1].is_nan());
        softmax(Kind::LogSoftmax, &[1.0, -inf], (1, 2, 1), 1.0, None, &mut y);
        assert_eq!(y, [0.0, -inf]);
        softmax(Kind::Softmax, &[1000.0, -1000.0], (1, 2, 1), 1.0, None, &mut y);
        assert_eq!(y, [1.0, 0.0]);
    }

    const PLAIN: OutputGrad = OutputGrad {
        grad_scale: 1.0,
        ignore_label: -1.0,
        use_ignore: false,
        multi_output: false,
        normalization: Normalization::Null,
        smooth_alpha: 0.0,
    };

    fn close(got: &[f32], want: &[f32]) {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
    }

    #[test]
    fn output_gradients_as_observed() {
        let mut p = [0f32; 6];
        softmax(Kind::Softmax, &[1., 2., 3., 1., 1., 1.], (2, 3, 1), 1.0, None, &mut p);
        let run = |how: OutputGrad| {
            let mut g = [0f32; 6];
            softmax_output_grad(&p, &[2f32, 0.0], (2, 3, 1), &how, &mut g);
            g
        };
        close(&run(PLAIN), &[0.0900306, 0.244728, -0.334759, -0.666667, 0.333333, 0.333333]);
        close(
            &run(OutputGrad { normalization: Normalization::Batch, ..PLAIN }),
            &[0.0450153, 0.122364, -0.16738, -0.333333, 0.166667, 0.166667],
        );
        close(
            &run(OutputGrad { smooth_alpha: 0.3, ..PLAIN }),
            &[-0.0599694, 0.0947285, -0.034759, -0.366667, 0.183333, 0.183333],
        );
        let ignore = OutputGrad { use_ignore: true, ignore_label: 0.0, ..PLAIN };
        close(&run(ignore)[3..], &[0.0; 3]);
        let mut g = [0f32; 6];
        let multi =
            OutputGrad { multi_output: true, use_ignore: true, normalization: Normalization::Valid, ..PLAIN };
        softmax_output_grad(&[0.5f32; 6], &[0f32, -1., 1.], (1, 2, 3), &multi, &mut g);
        close(&g, &[-0.25, 0., 0.25, 0.25, 0., -0.25]);
        let multi = OutputGrad { multi_output: true, ..PLAIN };
        softmax_output_grad(&[0.5f32; 6], &[0f32, 1., 1.], (1, 2, 3), &multi, &mut g);
        close(&g, &[-0.166667, 0.166667, 0.166667, 0.166667, -0.166667, -0.166667]);
        let mut g = [0f32; 2];
        softmax_output_grad(&[0.5f32; 2], &[5f32], (1, 2, 1), &PLAIN, &mut g);
        close(&g, &[0.5, 0.5]);
    }

    #[test]
    fn cross_entropy_as_observed() {
        let loss = softmax_cross_entropy(&[0f32, 0., 0., 0.], &[0f32, 1.], 2);
        assert!((loss - 1.38629).abs() < 1e-5);
        let loss = softmax_cross_entropy(&[0f32, 200., 0., 0.], &[0f32, 1.], 2);
        assert!((loss - 19.113829).abs() < 1e-5);
        let mut g = [0f32; 4];
        softmax_cross_entropy_grad(&[1f32, 2., 3., 4.], &[0f32, 1.], 2, 1.0, &mut g);
        close(&g, &[-0.731059, 0.731059, 0.268941, -0.268941]);
    }
}
