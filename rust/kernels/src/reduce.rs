//! Reductions of contiguous arrays over any set of axes.
//!
//! Neighbouring axes of one kind are merged first; what remains is a walk over rows (the innermost axis is
//! reduced) or over columns (it is kept). Both sum in blocks with many accumulators and combine the blocks in
//! a wider type. The partition into blocks depends on the sizes alone, so the result is the same for every
//! number of lanes. Positions of extremes and running sums are in [`crate::scan`].
//!
//! Integers reduce in their own type and wrap; bool sums are "any". The caller computes output shapes and
//! refuses empty maxima.

// Loops over several slices at once: one index says it better than nested zips, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::real::Shared;
use crate::reduce_ops::{Abs, All, Any, Count, NanProd, NanSum, Prod, Square};
pub(crate) use crate::reduce_ops::{Fold, Max, Min, Sum};
use mxrs_base::{Elem, f16};
use mxrs_simd::vectorize;
use smallvec::SmallVec;
use std::ops::Range;

/// What a reduction computes from the elements that fall into one output element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    Sum,
    /// The sum divided by the count, in the element type (integers truncate).
    Mean,
    Prod,
    /// Not-a-number counts as 0.
    NanSum,
    /// Not-a-number counts as 1.
    NanProd,
    /// Not-a-number wins.
    Max,
    Min,
    NormL1,
    NormL2,
    SumSq,
    Any,
    All,
}

const LANES: usize = 32;
/// Elements that one accumulator set takes in before it is added to the wide one.
const BLOCK: usize = 1024;
const TILE: usize = 256;
/// Elements of one unit where a reduction to few outputs is split.
const SPAN: usize = 1 << 16;

type Axis = (usize, usize);

/// A reduction after merging: (length, stride) of the outer axes of both kinds, and the two innermost loops.
#[doc(hidden)]
pub struct Plan {
    kept: SmallVec<[Axis; 4]>,
    reduced: SmallVec<[Axis; 4]>,
    /// Whether the innermost axis is kept.
    columns: bool,
    /// The innermost reduced run: elements of a row, or rows of a tile of columns.
    run: usize,
    /// Columns (1 where rows are reduced).
    width: usize,
    total: usize,
    outputs: usize,
    pub(crate) count: usize,
}

impl Plan {
    pub(crate) fn new(dims: &[usize], is_reduced: impl Fn(usize) -> bool) -> Plan {
        let mut merged: SmallVec<[(usize, bool); 8]> = SmallVec::new();
        let (mut total, mut count) = (1, 1);
        for (i, &d) in dims.iter().enumerate() {
            let r = is_reduced(i);
            total *= d;
            if r {
                count *= d;
            }
            if d == 1 {
                continue;
            }
            match merged.last_mut() {
                Some((len, kind)) if *kind == r => *len *= d,
                _ => merged.push((d, r)),
            }
        }
        let outputs = dims.iter().enumerate().filter(|(i, _)| !is_reduced(*i)).map(|(_, d)| *d).product();
        let mut plan = Plan {
            kept: SmallVec::new(),
            reduced: SmallVec::new(),
            columns: false,
            run: 1,
            width: 1,
            total,
            outputs,
            count,
        };
        let mut stride = 1;
        match merged.pop() {
            None => {}
            Some((len, true)) => {
                plan.run = len;
                stride = len;
            }
            Some((len, false)) => {
                plan.columns = true;
                plan.width = len;
                stride = len;
                if let Some((rows, _)) = merged.pop() {
                    plan.run = rows;
                    stride *= rows;
                }
            }
        }
        while let Some((len, reduced)) = merged.pop() {
            if reduced { &mut plan.reduced } else { &mut plan.kept }.push((len, stride));
            stride *= len;
        }
        plan
    }

    /// The offset of combination `i` of axes given innermost first.
    #[inline(always)]
    fn offset(axes: &[Axis], mut i: usize) -> usize {
        let mut at = 0;
        for &(len, stride) in axes {
            at += i % len * stride;
            i /= len;
        }
        at
    }

    fn combos(axes: &[Axis]) -> usize {
        axes.iter().map(|a| a.0).product()
    }
}

/// Sum of one row into a wide value.
#[inline(always)]
fn fold_row<T: Copy, F: Fold<T>>(mut w: F::W, row: &[T]) -> F::W {
    if row.len() < LANES {
        let a = row.iter().fold(F::A0, |a, x| F::step(a, *x));
        return F::widen(w, a);
    }
    for block in row.chunks(BLOCK) {
        let mut acc = [F::A0; LANES];
        let mut pieces = block.chunks_exact(LANES);
        for piece in &mut pieces {
            for (a, x) in acc.iter_mut().zip(piece) {
                *a = F::step(*a, *x);
            }
        }
        for (a, x) in acc.iter_mut().zip(pieces.remainder()) {
            *a = F::step(*a, *x);
        }
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                acc[i] = F::join(acc[i], acc[i + half]);
            }
            half /= 2;
        }
        w = F::widen(w, acc[0]);
    }
    w
}

/// Adds `rows` rows of `w.len()` columns, `stride` apart from the start of `x`, to the columns' values.
#[inline(always)]
fn fold_tile<T: Copy, F: Fold<T>>(w: &mut [F::W], x: &[T], rows: usize, stride: usize) {
    let n = w.len();
    let mut acc = [F::A0; TILE];
    let acc = &mut acc[..n];
    let mut r = 0;
    while r < rows {
        acc.fill(F::A0);
        let stop = rows.min(r + 64);
        while r + 4 <= stop {
            let at = |i: usize| &x[(r + i) * stride..][..n];
            let (x0, x1, x2, x3) = (at(0), at(1), at(2), at(3));
            for j in 0..n {
                acc[j] = F::step(F::step(F::step(F::step(acc[j], x0[j]), x1[j]), x2[j]), x3[j]);
            }
            r += 4;
        }
        while r < stop {
            let row = &x[r * stride..][..n];
            for (a, v) in acc.iter_mut().zip(row) {
                *a = F::step(*a, *v);
            }
            r += 1;
        }
        for (w, a) in w.iter_mut().zip(&*acc) {
            *w = F::widen(*w, *a);
        }
    }
}

/// As [`fold_tile`] for a whole contiguous matrix of few columns: several rows side by side fill the vectors.
#[inline(always)]
fn fold_narrow<T: Copy, F: Fold<T>>(w: &mut [F::W], x: &[T], rows: usize) {
    let n = w.len();
    let side = 64 / n;
    if rows < 4 * side || side < 2 {
        return fold_tile::<T, F>(w, x, rows, n);
    }
    let (groups, wide) = (rows / side, side * n);
    let mut tile = [F::W0; 64];
    fold_tile::<T, F>(&mut tile[..wide], x, groups, wide);
    for s in 0..side {
        for j in 0..n {
            w[j] = F::merge(w[j], tile[s * n + j]);
        }
    }
    fold_tile::<T, F>(w, &x[groups * wide..], rows - groups * side, n);
}

/// Turns accumulated values into outputs, a run of them at a time.
type Finish<'a, W, O> = dyn Fn(&[W], &mut [O]) + Sync + 'a;

struct Job<'a, T, O, W> {
    plan: &'a Plan,
    x: &'a [T],
    out: Shared<'a, O>,
    finish: &'a Finish<'a, W, O>,
}

impl<T: Elem, O: Send, W: Copy + Send + Sync + 'static> Job<'_, T, O, W> {
    /// Outputs `range` of the rows form.
    #[inline(always)]
    fn rows<F: Fold<T, W = W>>(&self, range: Range<usize>) {
        let (p, mut start) = (self.plan, range.start);
        let combos = Plan::combos(&p.reduced);
        while start < range.end {
            let n = (range.end - start).min(64);
            let mut w = [F::W0; 64];
            for (i, w) in w[..n].iter_mut().enumerate() {
                let base = Plan::offset(&p.kept, start + i);
                for c in 0..combos {
                    let at = base + Plan::offset(&p.reduced, c);
                    *w = fold_row::<T, F>(*w, &self.x[at..at + p.run]);
                }
            }
            // SAFETY: ranges of outputs given to lanes are disjoint.
            (self.finish)(&w[..n], unsafe { self.out.part(start..start + n) });
            start += n;
        }
    }

    /// The rows `rows` of the combinations `combos` for one tile of columns.
    #[inline(always)]
    fn tile<F: Fold<T, W = W>>(&self, w: &mut [W], base: usize, combos: Range<usize>, rows: Range<usize>) {
        let p = self.plan;
        for c in combos {
            let at = base + Plan::offset(&p.reduced, c) + rows.start * p.width;
            if w.len() == p.width && p.width <= 32 {
                fold_narrow::<T, F>(w, &self.x[at..at + rows.len() * p.width], rows.len());
            } else {
                fold_tile::<T, F>(w, &self.x[at..], rows.len(), p.width);
            }
        }
    }

    /// Units (a kept combination and a tile of columns) of the columns form.
    #[inline(always)]
    fn columns<F: Fold<T, W = W>>(&self, range: Range<usize>) {
        let p = self.plan;
        let tiles = p.width.div_ceil(TILE);
        for unit in range {
            let (k, from) = (unit / tiles, unit % tiles * TILE);
            let n = (p.width - from).min(TILE);
            let mut w = [F::W0; TILE];
            let base = Plan::offset(&p.kept, k) + from;
            self.tile::<F>(&mut w[..n], base, 0..Plan::combos(&p.reduced), 0..p.run);
            // SAFETY: every unit has its own outputs.
            let out = unsafe { self.out.part(k * p.width + from..k * p.width + from + n) };
            (self.finish)(&w[..n], out);
        }
    }

    /// Few outputs, much data: each unit is cut into pieces whose partial results are merged in order.
    fn pieces<F: Fold<T, W = W>>(&self, units: usize, tiles: usize, work: usize) {
        let p = self.plan;
        let combos = Plan::combos(&p.reduced);
        let pieces = work.div_ceil(SPAN).min(1024).min(combos.max(p.run));
        let tile = p.width.min(TILE);
        let mut partial = vec![F::W0; units * pieces * tile];
        let shared = Shared::new(&mut partial);
        let cut = |n: usize, i: usize| (n * i / pieces)..(n * (i + 1) / pieces);
        mxrs_lanes::for_each(units * pieces, 1, |range| {
            vectorize(|| {
                for job in range {
                    let (unit, piece) = (job / pieces, job % pieces);
                    let (cs, rs) = if combos >= pieces {
                        (cut(combos, piece), 0..p.run)
                    } else {
                        (0..combos, cut(p.run, piece))
                    };
                    let from = unit % tiles * TILE;
                    let n = (p.width - from).min(TILE);
                    let base = Plan::offset(&p.kept, unit / tiles) + from;
                    // SAFETY: every piece has its own partial results.
                    let w = unsafe { shared.part(job * tile..job * tile + n) };
                    if p.columns {
                        self.tile::<F>(w, base, cs, rs);
                    } else {
                        for c in cs {
                            let at = base + Plan::offset(&p.reduced, c);
                            w[0] = fold_row::<T, F>(w[0], &self.x[at + rs.start..at + rs.end]);
                        }
                    }
                }
            })
        });
        for unit in 0..units {
            let from = unit % tiles * TILE;
            let n = (p.width - from).min(TILE);
            let mut w = [F::W0; TILE];
            for part in partial[unit * pieces * tile..(unit + 1) * pieces * tile].chunks(tile) {
                for (w, v) in w.iter_mut().zip(&part[..n]) {
                    *w = F::merge(*w, *v);
                }
            }
            let at = unit / tiles * p.width + from;
            // SAFETY: one thread writes the outputs one after the other.
            (self.finish)(&w[..n], unsafe { self.out.part(at..at + n) });
        }
    }
}

/// Reduces `x` by `plan`; `finish` turns accumulated values into outputs, a run of them at a time.
pub(crate) fn fold<T: Elem, O: Send, F: Fold<T>>(
    plan: &Plan,
    x: &[T],
    out: &mut [O],
    finish: &Finish<'_, F::W, O>,
) {
    assert_eq!(x.len(), plan.total, "the input has another size than its dimensions say");
    assert_eq!(out.len(), plan.outputs, "the output has another size than the kept dimensions say");
    if out.is_empty() {
        return;
    }
    if x.is_empty() {
        out.chunks_mut(TILE).for_each(|o| finish(&[F::W0; TILE][..o.len()], o));
        return;
    }
    let job = Job { plan, x, out: Shared::new(out), finish };
    let tiles = plan.width.div_ceil(TILE);
    let units = Plan::combos(&plan.kept) * tiles;
    if plan.total <= 64 {
        // Not worth choosing instructions.
        return if plan.columns { job.columns::<F>(0..units) } else { job.rows::<F>(0..units) };
    }
    let work = plan.total / units;
    if units < 16 && work > 2 * SPAN {
        return job.pieces::<F>(units, tiles, work);
    }
    mxrs_lanes::for_each(units, (SPAN / 4 / work).max(1), |range| {
        vectorize(|| if plan.columns { job.columns::<F>(range) } else { job.rows::<F>(range) })
    });
}

/// An element type that reduces. Call [`reduce`] and [`sum_to`] instead of these methods.
pub trait Reduce: Elem {
    #[doc(hidden)]
    fn reduce_by(plan: &Plan, op: Reduction, x: &[Self], out: &mut [Self]);
}

#[inline(always)]
fn each<W: Copy, O>(w: &[W], out: &mut [O], f: impl Fn(W) -> O) {
    out.iter_mut().zip(w).for_each(|(o, w)| *o = f(*w));
}

macro_rules! reduce_float {
    ($t:ty) => {
        impl Reduce for $t {
            fn reduce_by(plan: &Plan, op: Reduction, x: &[$t], out: &mut [$t]) {
                use Reduction::*;
                let n = plan.count as f64;
                let plain = |w: &[f64], o: &mut [$t]| each(w, o, |v| <$t>::from_f64(v));
                match op {
                    Sum => fold::<_, _, self::Sum>(plan, x, out, &plain),
                    Mean => {
                        fold::<_, _, self::Sum>(plan, x, out, &|w, o| each(w, o, |v| <$t>::from_f64(v / n)))
                    }
                    NanSum => fold::<_, _, self::NanSum>(plan, x, out, &plain),
                    Prod => fold::<_, _, self::Prod>(plan, x, out, &plain),
                    NanProd => fold::<_, _, self::NanProd>(plan, x, out, &plain),
                    NormL1 => fold::<_, _, Abs>(plan, x, out, &plain),
                    SumSq => fold::<_, _, Square>(plan, x, out, &plain),
                    NormL2 => {
                        fold::<_, _, Square>(plan, x, out, &|w, o| each(w, o, |v| <$t>::from_f64(v.sqrt())))
                    }
                    Max => fold::<_, _, self::Max>(plan, x, out, &|w, o| {
                        each(w, o, |v| <$t>::from_f64(v as f64))
                    }),
                    Min => fold::<_, _, self::Min>(plan, x, out, &|w, o| {
                        each(w, o, |v| <$t>::from_f64(v as f64))
                    }),
                    Any => fold::<_, _, self::Any>(plan, x, out, &|w, o| {
                        each(w, o, |v| <$t>::from_i64(v as i64))
                    }),
                    All => fold::<_, _, self::All>(plan, x, out, &|w, o| {
                        each(w, o, |v| <$t>::from_i64(v as i64))
                    }),
                }
            }
        }
    };
}
reduce_float!(f32);
reduce_float!(f64);
reduce_float!(f16);

macro_rules! reduce_int {
    ($($t:ty)*) => {$(
        impl Reduce for $t {
            fn reduce_by(plan: &Plan, op: Reduction, x: &[$t], out: &mut [$t]) {
                use Reduction::*;
                let n = plan.count as i64;
                let plain = |w: &[$t], o: &mut [$t]| o.copy_from_slice(w);
                match op {
                    Sum | NanSum => fold::<_, _, self::Sum>(plan, x, out, &plain),
                    // The mean over nothing is 0: integers have nothing better.
                    Mean => fold::<_, _, self::Sum>(plan, x, out, &|w, o| {
                        each(w, o, |v| <$t>::from_i64((v as i64).checked_div(n).unwrap_or(0)))
                    }),
                    Prod | NanProd => fold::<_, _, self::Prod>(plan, x, out, &plain),
                    NormL1 => fold::<_, _, Abs>(plan, x, out, &plain),
                    SumSq => fold::<_, _, Square>(plan, x, out, &|w, o| each(w, o, <$t>::from_f64)),
                    NormL2 => fold::<_, _, Square>(plan, x, out, &|w, o| each(w, o, |v| <$t>::from_f64(v.sqrt()))),
                    Max => fold::<_, _, self::Max>(plan, x, out, &plain),
                    Min => fold::<_, _, self::Min>(plan, x, out, &plain),
                    Any => fold::<_, _, self::Any>(plan, x, out, &|w, o| each(w, o, |v| v as $t)),
                    All => fold::<_, _, self::All>(plan, x, out, &|w, o| each(w, o, |v| v as $t)),
                }
            }
        }
    )*};
}
reduce_int!(u8 i8 i32 i64);

impl Reduce for bool {
    fn reduce_by(plan: &Plan, op: Reduction, x: &[bool], out: &mut [bool]) {
        use Reduction::*;
        match op {
            Prod | NanProd | Min | All => fold::<_, _, self::All>(plan, x, out, &|w, o| o.copy_from_slice(w)),
            _ => fold::<_, _, self::Any>(plan, x, out, &|w, o| o.copy_from_slice(w)),
        }
    }
}

/// Reduces `x` of shape `dims` over `axes`; `out` has the kept dimensions in order.
pub fn reduce<T: Reduce>(op: Reduction, x: &[T], dims: &[usize], axes: &[usize], out: &mut [T]) {
    T::reduce_by(&Plan::new(dims, |i| axes.contains(&i)), op, x, out);
}

/// The number of elements different from 0 (of bool arrays: the sum) over `axes`; `out` has the kept dimensions.
pub fn count_nonzero<T: Elem>(x: &[T], dims: &[usize], axes: &[usize], out: &mut [i64]) {
    let plan = Plan::new(dims, |i| axes.contains(&i));
    fold::<_, _, Count>(&plan, x, out, &|w, o| o.copy_from_slice(w));
}

/// Sums `x` of shape `dims` to the shape `out_dims` that broadcasts to it: dimensions that `out_dims` lacks in
/// front, and those where it has 1, are summed.
pub fn sum_to<T: Reduce>(x: &[T], dims: &[usize], out_dims: &[usize], out: &mut [T]) {
    let lead = dims.len().checked_sub(out_dims.len()).expect("sum_to: the output has more dimensions");
    debug_assert!(out_dims.iter().zip(&dims[lead..]).all(|(o, d)| o == d || *o == 1));
    let plan = Plan::new(dims, |i| i < lead || out_dims[i - lead] == 1);
    T::reduce_by(&plan, Reduction::Sum, x, out);
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
