//! Products with one to eight rows or columns: memory-bound, so the large operand is read once where it lies.

use super::blocked::MIN_PARALLEL_WORK;
use super::micro::{DOT_ROWS, Dots, Real};
use super::pack::{Shared, Source, Strided, with_buffer};

/// The most rows (or columns) that count as thin.
pub const THIN: usize = DOT_ROWS;

/// Where the product goes: element (i, j) at `c[i * row_step + j * col_step]`.
#[derive(Clone, Copy)]
pub struct Placed<T> {
    pub c: Shared<T>,
    pub row_step: usize,
    pub col_step: usize,
    pub alpha: T,
    pub beta: T,
}

/// `c = alpha * a b + beta * c` for `m <= THIN` lines of `a` and any number of lines of `b`. One step of `b` must be 1.
///
/// # Safety
/// C holds the `m` x `n` places, used by nobody else.
pub unsafe fn multiply<T: Real>(
    (m, n, depth): (usize, usize, usize),
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    out: Placed<T>,
) {
    debug_assert!(m <= THIN && (b.line_step == 1 || b.depth_step == 1));
    // SAFETY: by the contract above.
    unsafe {
        if b.depth_step == 1 { by_dots((m, n, depth), a, b, out) } else { by_rows((m, n, depth), a, b, out) }
    }
}

/// Lines of `b` are contiguous: a dot product for every place of C.
///
/// # Safety
/// As [`multiply`].
unsafe fn by_dots<T: Real>(
    (m, n, depth): (usize, usize, usize),
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    out: Placed<T>,
) {
    let kernels = T::kernels();
    let run = |x: &[T], x_step: usize| {
        let grain = MIN_PARALLEL_WORK.div_ceil(depth.max(1) * m).max(1);
        mxrs_lanes::for_each(n, grain, |lines| {
            for j in lines {
                let y = b.data[j * b.line_step..j * b.line_step + depth].as_ptr();
                // SAFETY: `x` has `m` rows of `depth`, `y` is `depth` long; place (i, j) is this line's alone.
                unsafe {
                    let sums = (kernels.dots)(&Dots { rows: m, depth, x: x.as_ptr(), x_step, y });
                    for (i, sum) in sums.into_iter().take(m).enumerate() {
                        let c = out.c.ptr().add(i * out.row_step + j * out.col_step);
                        let sum = out.alpha * sum;
                        *c = if out.beta == T::ZERO { sum } else { out.beta * *c + sum };
                    }
                }
            }
        });
    };
    if a.depth_step == 1 {
        run(a.data, a.line_step);
    } else {
        // A row-major copy of the thin operand: a panel of one line is that line.
        with_buffer(m * depth, |rows: &mut [T]| {
            for i in 0..m {
                a.pack(i..i + 1, 1, 0..depth, &mut rows[i * depth..(i + 1) * depth]);
            }
            run(rows, depth);
        });
    }
}

/// Steps of `b` are rows in memory: rows of C grow by multiples of them, a cache-sized stretch of columns at a time.
///
/// # Safety
/// As [`multiply`].
unsafe fn by_rows<T: Real>(
    (m, n, depth): (usize, usize, usize),
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    out: Placed<T>,
) {
    const STRETCH: usize = 512;
    let grain = MIN_PARALLEL_WORK.div_ceil(depth.max(1) * m * STRETCH).max(1);
    mxrs_lanes::for_each(n.div_ceil(STRETCH), grain, |stretches| {
        for j in stretches.map(|stretch| stretch * STRETCH) {
            let cols = STRETCH.min(n - j);
            with_buffer(m * cols, |sums: &mut [T]| {
                sums.fill(T::ZERO);
                mxrs_simd::vectorize_kernel(AddRows { a, b: b.starting_at(j), m, cols, depth, sums });
                for i in 0..m {
                    for (q, sum) in sums[i * cols..(i + 1) * cols].iter().enumerate() {
                        // SAFETY: the place is in C and in this stretch.
                        unsafe {
                            let c = out.c.ptr().add(i * out.row_step + (j + q) * out.col_step);
                            let sum = out.alpha * *sum;
                            *c = if out.beta == T::ZERO { sum } else { out.beta * *c + sum };
                        }
                    }
                }
            });
        }
    });
}

/// `sums[i, j] += sum_p a[i, p] * b[p, j]`, four rows of `b` at a time.
struct AddRows<'a, T> {
    a: Strided<'a, T>,
    b: Strided<'a, T>,
    m: usize,
    cols: usize,
    depth: usize,
    sums: &'a mut [T],
}

impl<T: Real> mxrs_simd::Kernel for AddRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: mxrs_simd::Level>(self) {
        let AddRows { a, b, m, cols, depth, sums } = self;
        let row = |p: usize| &b.data[p * b.depth_step..p * b.depth_step + cols];
        let factor = |i: usize, p: usize| a.data[i * a.line_step + p * a.depth_step];
        let whole = depth / 4 * 4;
        for p in (0..whole).step_by(4) {
            let (b0, b1, b2, b3) = (row(p), row(p + 1), row(p + 2), row(p + 3));
            for (i, sums) in sums.chunks_exact_mut(cols).enumerate().take(m) {
                let [a0, a1, a2, a3] = std::array::from_fn(|q| factor(i, p + q));
                for (j, sum) in sums.iter_mut().enumerate() {
                    let low = T::fma::<L>(a0, b0[j], T::fma::<L>(a1, b1[j], *sum));
                    *sum = T::fma::<L>(a2, b2[j], T::fma::<L>(a3, b3[j], low));
                }
            }
        }
        for p in whole..depth {
            for (i, sums) in sums.chunks_exact_mut(cols).enumerate().take(m) {
                let x = factor(i, p);
                for (sum, y) in sums.iter_mut().zip(row(p)) {
                    *sum = T::fma::<L>(x, *y, *sum);
                }
            }
        }
    }
}
