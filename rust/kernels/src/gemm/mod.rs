//! Matrix products: general, thin and batched, row-major, in every numeric type.
//!
//! f32 and f64 run on packed panels and register tiles ([`micro`], [`blocked`]); f16 is converted to f32, multiplied
//! and rounded once; integers are exact in their own type, wrapping. The panels can come from any [`Source`], which is how a
//! convolution multiplies patches that are never written to memory. What a product means for an operator (axes,
//! flattening, which gradient is which product) is for the operators.

pub(crate) mod blocked;
mod integer;
pub(crate) mod micro;
pub(crate) mod pack;
#[cfg(test)]
mod tests;
mod thin;
mod vector;

pub use micro::Real;

use blocked::Output;
use mxrs_base::{Elem, f16};
use pack::{Shared, Strided};
use std::ops::Range;

/// What is called, from any lane, with the rows and columns of each part of a result as soon as it is final and its maker
/// is done with it.
pub type Done<'a> = &'a (dyn Fn(Range<usize>, Range<usize>) + Sync);

/// A type with matrix products.
pub trait Gemm: Elem {
    /// See [`gemm_then`].
    fn gemm(p: &Product, alpha: Self, a: &[Self], b: &[Self], beta: Self, c: &mut [Self], done: Done);
}

/// The sizes of `c (m x n) = op(a) (m x k) * op(b) (k x n)`, all row-major.
///
/// With `transa`, `a` is stored as k rows of m, `lda` apart; with `transb`, `b` as n rows of k, `ldb` apart.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub transa: bool,
    pub transb: bool,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub lda: usize,
    pub ldb: usize,
    pub ldc: usize,
}

impl Product {
    /// The product of matrices without gaps between their rows.
    pub fn dense(transa: bool, transb: bool, m: usize, n: usize, k: usize) -> Product {
        let (lda, ldb) = (if transa { m } else { k }, if transb { k } else { n });
        Product { transa, transb, m, n, k, lda, ldb, ldc: n }
    }

    /// Checks that the slices hold the matrices.
    fn check<T>(&self, a: &[T], b: &[T], c: &[T]) {
        let fits = |name: &str, rows: usize, cols: usize, step: usize, len: usize| {
            assert!(rows <= 1 || step >= cols, "gemm: {name} has rows of {cols} elements, {step} apart");
            let needed = rows.checked_sub(1).map_or(Some(0), |r| r.checked_mul(step)?.checked_add(cols));
            assert!(
                cols == 0 || needed.is_some_and(|n| n <= len),
                "gemm: {name} of {rows} x {cols} (row step {step}) does not fit {len} elements"
            );
        };
        let (a_rows, a_cols) = if self.transa { (self.k, self.m) } else { (self.m, self.k) };
        let (b_rows, b_cols) = if self.transb { (self.n, self.k) } else { (self.k, self.n) };
        fits("a", a_rows, a_cols, self.lda, a.len());
        fits("b", b_rows, b_cols, self.ldb, b.len());
        fits("c", self.m, self.n, self.ldc, c.len());
    }

    fn a<'a, T>(&self, data: &'a [T]) -> Strided<'a, T> {
        let (line_step, depth_step) = if self.transa { (1, self.lda) } else { (self.lda, 1) };
        Strided { data, line_step, depth_step }
    }

    fn b<'a, T>(&self, data: &'a [T]) -> Strided<'a, T> {
        let (line_step, depth_step) = if self.transb { (self.ldb, 1) } else { (1, self.ldb) };
        Strided { data, line_step, depth_step }
    }
}

/// `c = alpha * op(a) op(b) + beta * c`, sizes and storage as in [`Product`]; with `beta` 0, `c` is not read.
///
/// Panics where a slice is too short for its matrix: callers have checked shapes.
pub fn gemm<T: Gemm>(product: &Product, alpha: T, a: &[T], b: &[T], beta: T, c: &mut [T]) {
    gemm_then(product, alpha, a, b, beta, c, &|_, _| {});
}

/// As [`gemm`], and `done` is told of the finished parts of `c`, each once.
pub fn gemm_then<T: Gemm>(product: &Product, alpha: T, a: &[T], b: &[T], beta: T, c: &mut [T], done: Done) {
    product.check(a, b, c);
    T::gemm(product, alpha, a, b, beta, c, done);
}

/// Tells `done` of a result that is final as a whole, in parts for the lanes.
fn in_parts(p: &Product, done: Done) {
    mxrs_lanes::for_each(p.m, (1usize << 14).div_ceil(p.n.max(1)), |rows| done(rows, 0..p.n));
}

/// `batch` products of one shape; matrix `i` of an operand begins at `i * step` of its (a, b, c) `steps`.
///
/// A step of 0 repeats an input for the whole batch (not `c`). Many products run side by side, few share the lanes.
pub fn batch_gemm<T: Gemm>(
    batch: usize,
    product: &Product,
    alpha: T,
    (a, b): (&[T], &[T]),
    beta: T,
    c: &mut [T],
    steps: (usize, usize, usize),
) {
    if batch == 0 || product.m == 0 || product.n == 0 {
        return;
    }
    let p = *product;
    let c_len = (p.m - 1) * p.ldc + p.n;
    assert!(batch == 1 || steps.2 >= c_len, "batch_gemm: results of {c_len} elements lie {} apart", steps.2);
    let last = (batch - 1).checked_mul(steps.2).and_then(|start| start.checked_add(c_len));
    assert!(last.is_some_and(|end| end <= c.len()), "batch_gemm: c is too short for {batch} results");
    let out = Shared::of(c);
    let one = |i: usize| {
        // SAFETY: result `i` lies within `c`, checked above, and is written by this call alone.
        let c = unsafe { out.slice(i * steps.2..i * steps.2 + c_len) };
        gemm(&p, alpha, &a[i * steps.0..], &b[i * steps.1..], beta, c);
    };
    let work = p.m.saturating_mul(p.n).saturating_mul(p.k).max(1);
    if batch < 2 * mxrs_lanes::count() && work >= blocked::MIN_PARALLEL_WORK {
        (0..batch).for_each(one);
    } else {
        let grain = blocked::MIN_PARALLEL_WORK.div_ceil(work);
        mxrs_lanes::for_each(batch, grain, |range| range.for_each(one));
    }
}

fn gemm_real<T: Real>(p: &Product, alpha: T, a: &[T], b: &[T], beta: T, c: &mut [T], done: Done) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    if p.k == 0 {
        for row in c.chunks_mut(p.ldc.max(1)).take(p.m) {
            for x in &mut row[..p.n] {
                *x = if beta == T::ZERO { T::ZERO } else { beta * *x };
            }
        }
        return in_parts(p, done);
    }
    let (a, b) = (p.a(a), p.b(b));
    let c = Shared::of(c);
    // SAFETY: `check` has found C long enough, and it is borrowed mutably.
    unsafe {
        if p.m <= thin::THIN {
            let out = thin::Placed { c, row_step: p.ldc, col_step: 1, alpha, beta };
            thin::multiply((p.m, p.n, p.k), a, b, out);
        } else if p.n <= thin::THIN {
            // The transposed product has few rows.
            let out = thin::Placed { c, row_step: 1, col_step: p.ldc, alpha, beta };
            thin::multiply((p.n, p.m, p.k), b, a, out);
        } else {
            let out = Output { c, c_step: p.ldc, alpha, beta };
            return blocked::multiply((p.m, p.n, p.k), &a, &b, out, done);
        }
    }
    in_parts(p, done);
}

macro_rules! real_gemm {
    ($($T:ty),*) => {$(
        impl Gemm for $T {
            fn gemm(p: &Product, alpha: $T, a: &[$T], b: &[$T], beta: $T, c: &mut [$T], done: Done) {
                gemm_real(p, alpha, a, b, beta, c, done);
            }
        }
    )*};
}
real_gemm!(f32, f64);

impl Gemm for f16 {
    fn gemm(p: &Product, alpha: f16, a: &[f16], b: &[f16], beta: f16, c: &mut [f16], done: Done) {
        if p.m == 0 || p.n == 0 {
            return;
        }
        let (a, b) = (widen(a), widen(b));
        let mut wide = vec![0f32; p.m * p.n];
        gemm_real(&Product { ldc: p.n, ..*p }, alpha.to_f32(), &a, &b, 0.0, &mut wide, &|_, _| {});
        let beta = beta.to_f32();
        for (row, sums) in c.chunks_mut(p.ldc.max(1)).zip(wide.chunks_exact(p.n)) {
            for (x, sum) in row.iter_mut().zip(sums) {
                *x = f16::from_f32(if beta == 0.0 { *sum } else { beta * x.to_f32() + sum });
            }
        }
        in_parts(p, done);
    }
}

/// The numbers in single precision.
pub(crate) fn widen(x: &[f16]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    mxrs_simd::cast(x, &mut out);
    out
}

/// Adds `bias[j]` to column `j` of every row of `c` (`rows x bias.len()`), in parallel.
pub fn add_to_columns<T: Elem + std::ops::Add<Output = T>>(c: &mut [T], bias: &[T]) {
    let n = bias.len();
    if n == 0 {
        return;
    }
    let out = Shared::of(c);
    mxrs_lanes::for_each(c.len() / n, (1usize << 14).div_ceil(n), |rows| {
        // SAFETY: these rows are within `c` and this range's alone.
        let block = unsafe { out.slice(rows.start * n..rows.end * n) };
        mxrs_simd::vectorize(
            #[inline(always)]
            || {
                for row in block.chunks_exact_mut(n) {
                    for (x, b) in row.iter_mut().zip(bias) {
                        *x = *x + *b;
                    }
                }
            },
        );
    });
}

/// Adds `bias[i]` to the whole row `i` of every matrix of `c` (each `bias.len() x row_len`), in parallel.
pub fn add_to_rows<T: Elem + std::ops::Add<Output = T>>(c: &mut [T], bias: &[T], row_len: usize) {
    if bias.is_empty() || row_len == 0 {
        return;
    }
    let out = Shared::of(c);
    mxrs_lanes::for_each(c.len() / row_len, (1usize << 14).div_ceil(row_len), |rows| {
        for row in rows {
            let b = bias[row % bias.len()];
            // SAFETY: the row is within `c` and this range's alone.
            let block = unsafe { out.slice(row * row_len..(row + 1) * row_len) };
            mxrs_simd::vectorize(
                #[inline(always)]
                || block.iter_mut().for_each(|x| *x = *x + b),
            );
        }
    });
}
