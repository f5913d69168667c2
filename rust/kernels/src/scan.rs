//! Positions of extremes along an axis, and running sums.
//!
//! Other reductions are in [`crate::reduce`]; sorting and top-k belong to the sort kernels.

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::Shared;
use crate::reduce::{Fold, Max, Min, Plan, fold};
use mxrs_base::{Elem, f16};
use mxrs_simd::vectorize;
use std::ops::Range;

const TILE: usize = 128;

/// An element type with an order for [`argmax`] and [`argmin`] and an addition for [`cumsum`].
pub trait Scan: Elem {
    /// Extremes over all of `x`; not-a-number wins.
    #[doc(hidden)]
    fn extreme(x: &[Self], max: bool) -> Self;
    /// The sum; integers wrap.
    #[doc(hidden)]
    fn plus(self, other: Self) -> Self;
    /// Whether this value takes the place of `best`; the first not-a-number stays.
    #[doc(hidden)]
    fn beats(self, best: Self, max: bool) -> bool;
}

fn extreme_of<T: Elem, F: Fold<T>>(x: &[T], turn: fn(F::W) -> T) -> T {
    let mut out = [T::default()];
    let plan = Plan::new(&[x.len()], |_| true);
    fold::<T, T, F>(&plan, x, &mut out, &move |w, o| o[0] = turn(w[0]));
    out[0]
}

macro_rules! scan {
    ($t:ty, |$a:ident, $b:ident| $plus:expr, $turn:expr) => {
        impl Scan for $t {
            fn extreme(x: &[$t], max: bool) -> $t {
                if max { extreme_of::<$t, Max>(x, $turn) } else { extreme_of::<$t, Min>(x, $turn) }
            }
            #[inline(always)]
            fn plus(self, $b: $t) -> $t {
                let $a = self;
                $plus
            }
            #[inline(always)]
            fn beats(self, best: $t, max: bool) -> bool {
                let better = if max { self > best } else { self < best };
                // Only floats can be not-a-number; for others this is the plain comparison.
                better | (Elem::is_nan(self) & !Elem::is_nan(best))
            }
        }
    };
}
scan!(f32, |a, b| a + b, |v| v);
scan!(f64, |a, b| a + b, |v| v);
scan!(f16, |a, b| f16::from_f32(a.to_f32() + b.to_f32()), f16::from_f32);
scan!(u8, |a, b| a.wrapping_add(b), |v| v);
scan!(i8, |a, b| a.wrapping_add(b), |v| v);
scan!(i32, |a, b| a.wrapping_add(b), |v| v);
scan!(i64, |a, b| a.wrapping_add(b), |v| v);

impl Scan for bool {
    fn extreme(x: &[bool], max: bool) -> bool {
        if max { x.contains(&true) } else { !x.contains(&false) }
    }
    #[inline(always)]
    fn plus(self, other: bool) -> bool {
        self | other
    }
    #[inline(always)]
    fn beats(self, best: bool, max: bool) -> bool {
        if max { self & !best } else { !self & best }
    }
}

fn position<T: Scan>(row: &[T], max: bool) -> usize {
    if row.len() <= 32 {
        let mut at = 0;
        for (i, x) in row.iter().enumerate() {
            if x.beats(row[at], max) {
                at = i;
            }
        }
        return at;
    }
    let best = T::extreme(row, max);
    let nan = best.is_nan();
    vectorize(
        #[inline(always)]
        || {
            const STEP: usize = 64;
            for (c, piece) in row.chunks(STEP).enumerate() {
                let hit = piece.iter().fold(false, |h, x| h | if nan { x.is_nan() } else { *x == best });
                if hit {
                    let is = |x: &T| if nan { x.is_nan() } else { *x == best };
                    return c * STEP + piece.iter().position(is).unwrap_or(0);
                }
            }
            0
        },
    )
}

/// Positions along the middle axis of the largest (`max`) or smallest elements of `x`, shape
/// (outer, extent, inner); `out` has shape (outer, inner). Of equal elements the first; the first
/// not-a-number wins. The extent is 1 or more where there are outputs.
pub fn arg_extreme<T: Scan, O: Elem>(
    max: bool,
    x: &[T],
    (outer, extent, inner): (usize, usize, usize),
    out: &mut [O],
) {
    assert!(x.len() == outer * extent * inner && out.len() == outer * inner);
    assert!(extent > 0 || out.is_empty(), "the position of an extreme among no elements");
    let shared = Shared::new(out);
    let tiles = inner.div_ceil(TILE);
    let grain = (1 << 14) / (extent * inner.min(TILE)).max(1) + 1;
    if inner == 1 {
        return mxrs_lanes::for_each(outer, grain, |range: Range<usize>| {
            for o in range {
                let at = position(&x[o * extent..(o + 1) * extent], max);
                // SAFETY: every lane has its own rows.
                unsafe { shared.set(o, O::from_i64(at as i64)) }
            }
        });
    }
    mxrs_lanes::for_each(outer * tiles, grain, |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for unit in range {
                    let (o, from) = (unit / tiles, unit % tiles * TILE);
                    let n = (inner - from).min(TILE);
                    let row = |r: usize| &x[(o * extent + r) * inner + from..][..n];
                    let mut best = [T::default(); TILE];
                    let mut at = [0u32; TILE];
                    best[..n].copy_from_slice(row(0));
                    for r in 1..extent {
                        let row = row(r);
                        for j in 0..n {
                            let better = row[j].beats(best[j], max);
                            best[j] = if better { row[j] } else { best[j] };
                            at[j] = if better { r as u32 } else { at[j] };
                        }
                    }
                    // SAFETY: every unit has its own outputs.
                    let out = unsafe { shared.part(o * inner + from..o * inner + from + n) };
                    out.iter_mut().zip(&at).for_each(|(o, a)| *o = O::from_i64(*a as i64));
                }
            },
        )
    });
}

/// Running sums of `x` along the middle axis of (outer, extent, inner), from the end where `reverse` (which is
/// the gradient of the forward direction). Integers wrap.
pub fn cumsum<T: Scan>(x: &[T], (outer, extent, inner): (usize, usize, usize), reverse: bool, out: &mut [T]) {
    assert!(x.len() == outer * extent * inner && out.len() == x.len());
    if x.is_empty() {
        return;
    }
    let shared = Shared::new(out);
    let size = extent * inner;
    mxrs_lanes::for_each(outer, (1 << 14) / size + 1, |range: Range<usize>| {
        vectorize(
            #[inline(always)]
            || {
                for o in range {
                    let x = &x[o * size..(o + 1) * size];
                    // SAFETY: every lane has its own outer indices.
                    let out = unsafe { shared.part(o * size..(o + 1) * size) };
                    let first = if reverse { extent - 1 } else { 0 };
                    out[first * inner..(first + 1) * inner]
                        .copy_from_slice(&x[first * inner..(first + 1) * inner]);
                    for k in 1..extent {
                        let (r, before) = if reverse { (extent - 1 - k, extent - k) } else { (k, k - 1) };
                        if inner == 1 {
                            out[r] = out[before].plus(x[r]);
                            continue;
                        }
                        let (low, high) = out.split_at_mut(r.max(before) * inner);
                        let (row, from) = if reverse {
                            (&mut low[r * inner..], &high[..inner])
                        } else {
                            (&mut high[..inner], &low[before * inner..])
                        };
                        for ((o, a), b) in row.iter_mut().zip(from).zip(&x[r * inner..]) {
                            *o = a.plus(*b);
                        }
                    }
                }
            },
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_first_and_nan_wins() {
        let nan = f32::NAN;
        for (x, max, min) in [
            (vec![1.0, 3.0, 3.0], 1, 0),
            (vec![2.0, 0.0, 2.0, 0.0], 0, 1),
            (vec![1.0, nan, 0.0, nan], 1, 1),
            (vec![f32::NEG_INFINITY; 3], 0, 0),
        ] {
            for pad in [0usize, 100] {
                // Padding in front with neutral values makes the long-row path see the same answers.
                let mut row = vec![x[0]; 0];
                row.extend(&x);
                row.extend(std::iter::repeat_n(x[0], pad));
                let mut out = [0i64];
                arg_extreme(true, &row, (1, row.len(), 1), &mut out);
                assert_eq!(out[0], max);
                arg_extreme(false, &row, (1, row.len(), 1), &mut out);
                assert_eq!(out[0], min);
            }
        }
    }

    #[test]
    fn positions_along_any_axis() {
        for (outer, n, inner) in [(1, 1, 1), (3, 7, 5), (2, 40, 1), (2, 33, 131), (4, 2, 1), (0, 3, 2)] {
            let x: Vec<i32> = (0..outer * n * inner).map(|i| (i * 7919 % 23) as i32 - 11).collect();
            let mut got = vec![0f32; outer * inner];
            for max in [true, false] {
                arg_extreme(max, &x, (outer, n, inner), &mut got);
                for o in 0..outer {
                    for j in 0..inner {
                        let at = |r: usize| {
                            if max { x[(o * n + r) * inner + j] } else { -x[(o * n + r) * inner + j] }
                        };
                        let want = (0..n).fold(0, |b, r| if at(r) > at(b) { r } else { b });
                        assert_eq!(got[o * inner + j], want as f32);
                    }
                }
            }
        }
    }

    #[test]
    fn running_sums() {
        let mut out = [0u8; 3];
        cumsum(&[100u8, 100, 100], (1, 3, 1), false, &mut out);
        assert_eq!(out, [100, 200, 44]);
        for (outer, n, inner) in [(1, 1, 1), (2, 5, 1), (3, 4, 7), (0, 2, 2), (2, 0, 3)] {
            let x: Vec<i64> = (0..outer * n * inner).map(|i| (i * i % 17) as i64).collect();
            for reverse in [false, true] {
                let mut got = vec![0; x.len()];
                cumsum(&x, (outer, n, inner), reverse, &mut got);
                for o in 0..outer {
                    for r in 0..n {
                        for j in 0..inner {
                            let rows = if reverse { r..n } else { 0..r + 1 };
                            let want: i64 = rows.map(|q| x[(o * n + q) * inner + j]).sum();
                            assert_eq!(got[(o * n + r) * inner + j], want);
                        }
                    }
                }
            }
        }
    }
}
