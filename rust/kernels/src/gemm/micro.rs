//! The micro-kernels: a register tile of C from packed panels, and dot products for thin matrices, compiled for each
//! instruction set and chosen once at run time.

use super::vector::*;
use mxrs_base::Elem;
use mxrs_simd::Level;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::sync::OnceLock;

/// A floating type with micro-kernels: f32 and f64.
pub trait Real: Elem + Add<Output = Self> + Sub<Output = Self> + AddAssign + Mul<Output = Self> {
    const ZERO: Self;
    const ONE: Self;
    /// `a * b + c`, fused where the level has it as one instruction.
    fn fma<L: Level>(a: Self, b: Self, c: Self) -> Self;
    /// The kernels for this machine.
    fn kernels() -> &'static Kernels<Self>;
}

/// One tile's work: `c[i, j] = alpha * sum_p a[p, i] * b[p, j] + beta * c[i, j]` for `i < rows`, `j < cols`.
pub struct Tile<T> {
    /// Rows of the tile, 1 to [`Kernels::mr`]; also the width of the packed panel `a`.
    pub rows: usize,
    /// Columns of the tile that are stored, 1 to [`Kernels::nr`].
    pub cols: usize,
    pub depth: usize,
    /// `depth` steps of `rows` elements.
    pub a: *const T,
    /// `depth` steps, `b_step` elements apart, of which [`Kernels::nr`] are read (half where `cols` is at most half).
    pub b: *const T,
    pub b_step: usize,
    pub c: *mut T,
    /// Elements from a row of `c` to the next.
    pub c_step: usize,
    pub alpha: T,
    /// With 0, `c` is not read.
    pub beta: T,
}

/// Dot products of one vector with up to [`DOT_ROWS`] others: `out[r] = sum_p x[r * x_step + p] * y[p]`.
pub struct Dots<T> {
    pub rows: usize,
    pub depth: usize,
    pub x: *const T,
    pub x_step: usize,
    pub y: *const T,
}

/// The most rows one [`Dots`] takes.
pub const DOT_ROWS: usize = 8;

/// The micro-kernels of one type and instruction set.
pub struct Kernels<T> {
    /// The highest tile.
    pub mr: usize,
    /// The width of every panel of B.
    pub nr: usize,
    /// # Safety
    /// The pointers must reach as far as [`Tile`] says.
    pub tile: unsafe fn(&Tile<T>),
    /// # Safety
    /// The pointers must reach as far as [`Dots`] says.
    pub dots: unsafe fn(&Dots<T>) -> [T; DOT_ROWS],
}

/// # Safety
/// As [`Kernels::tile`], with `t.rows == MR` and `t.cols <= NV * LANES`; the instruction set of `S`.
#[inline(always)]
unsafe fn tile<T: Real, S: Vector<T>, const MR: usize, const NV: usize>(t: &Tile<T>) {
    // SAFETY: reads stay within `depth` steps of the panels, stores within `rows` x `cols` of `c`.
    unsafe {
        let mut acc = [[S::splat(T::ZERO); NV]; MR];
        let (mut a, mut b) = (t.a, t.b);
        if t.beta != T::ZERO || t.depth > 64 {
            // The rows of C lie far apart: they are fetched while the sums are made.
            for i in 0..MR {
                let row = t.c.wrapping_add(i * t.c_step);
                prefetch(row);
                prefetch(row.wrapping_add(NV * S::LANES - 1));
            }
        }
        for _ in 0..t.depth {
            let mut bv = [S::splat(T::ZERO); NV];
            for (j, v) in bv.iter_mut().enumerate() {
                *v = S::load(b.add(j * S::LANES));
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let av = S::splat(*a.add(i));
                for j in 0..NV {
                    row[j] = S::fma(av, bv[j], row[j]);
                }
            }
            a = a.add(MR);
            b = b.add(t.b_step);
        }
        let full = t.cols == NV * S::LANES;
        for (i, row) in acc.iter().enumerate() {
            let c = t.c.add(i * t.c_step);
            if full {
                store_row::<T, S, NV>(c, row, t.alpha, t.beta);
            } else {
                // The row goes through a full one beside C: nothing outside C is touched.
                let mut edge = [T::ZERO; 64];
                if t.beta != T::ZERO {
                    std::ptr::copy_nonoverlapping(c, edge.as_mut_ptr(), t.cols);
                }
                store_row::<T, S, NV>(edge.as_mut_ptr(), row, t.alpha, t.beta);
                std::ptr::copy_nonoverlapping(edge.as_ptr(), c, t.cols);
            }
        }
    }
}

/// Asks for the cache line at `p`, which need not be memory of ours.
#[inline(always)]
fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// # Safety
/// `c` holds `NV * LANES` elements; the instruction set of `S`.
#[inline(always)]
unsafe fn store_row<T: Real, S: Vector<T>, const NV: usize>(c: *mut T, row: &[S::V; NV], alpha: T, beta: T) {
    // SAFETY: by the contract above.
    unsafe {
        let (alpha, betas) = (S::splat(alpha), S::splat(beta));
        for (j, v) in row.iter().enumerate() {
            let c = c.add(j * S::LANES);
            let v = S::mul(alpha, *v);
            S::store(c, if beta == T::ZERO { v } else { S::fma(betas, S::load(c), v) });
        }
    }
}

/// # Safety
/// As [`Kernels::dots`], with `d.rows == R`; the instruction set of `S`.
#[inline(always)]
unsafe fn dots<T: Real, S: Vector<T>, const R: usize>(d: &Dots<T>) -> [T; DOT_ROWS] {
    // SAFETY: reads stay within `depth` elements of every row.
    unsafe {
        // Two accumulators per row, four for few rows, hide the latency of the additions.
        let unroll = if R <= 2 { 4 } else { 2 };
        let mut acc = [[S::splat(T::ZERO); 4]; R];
        let step = unroll * S::LANES;
        let whole = d.depth / step * step;
        let mut p = 0;
        while p < whole {
            for u in 0..unroll {
                let at = p + u * S::LANES;
                let y = S::load(d.y.add(at));
                for (r, acc) in acc.iter_mut().enumerate() {
                    acc[u] = S::fma(S::load(d.x.add(r * d.x_step + at)), y, acc[u]);
                }
            }
            p += step;
        }
        let mut out = [T::ZERO; DOT_ROWS];
        for (r, acc) in acc.iter().enumerate() {
            let sum = S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3]));
            let mut lanes = [T::ZERO; 16];
            S::store(lanes.as_mut_ptr(), sum);
            let mut total = T::ZERO;
            for lane in &lanes[..S::LANES] {
                total += *lane;
            }
            for p in whole..d.depth {
                total += *d.x.add(r * d.x_step + p) * *d.y.add(p);
            }
            out[r] = total;
        }
        out
    }
}

/// The table of one instruction set: `$nv` registers wide, as high as the list of heights goes.
macro_rules! table {
    ($(#[$feature:meta])* $name:ident, $T:ty, $S:ty, $nv:literal, $half:literal, $mr:literal, [$($rows:literal)*]) => {
        mod $name {
            use super::*;
            /// # Safety
            /// As `Kernels::tile`, on a processor with the features below.
            $(#[$feature])*
            unsafe fn run_tile(t: &Tile<$T>) {
                const HALF: usize = $half * <$S as Vector<$T>>::LANES;
                // SAFETY: the arm has the tile's height and a width that holds its columns.
                unsafe {
                    match (t.rows, t.cols <= HALF) {
                        $(($rows, false) => tile::<$T, $S, $rows, $nv>(t),)*
                        $(($rows, true) => tile::<$T, $S, $rows, $half>(t),)*
                        (rows, _) => unreachable!("a tile of {rows} rows"),
                    }
                }
            }
            /// # Safety
            /// As `Kernels::dots`, on a processor with the features below.
            $(#[$feature])*
            unsafe fn run_dots(d: &Dots<$T>) -> [$T; DOT_ROWS] {
                // SAFETY: the arm has the number of rows.
                unsafe {
                    match d.rows {
                        1 => dots::<$T, $S, 1>(d),
                        2 => dots::<$T, $S, 2>(d),
                        3 => dots::<$T, $S, 3>(d),
                        4 => dots::<$T, $S, 4>(d),
                        5 => dots::<$T, $S, 5>(d),
                        6 => dots::<$T, $S, 6>(d),
                        7 => dots::<$T, $S, 7>(d),
                        8 => dots::<$T, $S, 8>(d),
                        rows => unreachable!("{rows} rows of dot products"),
                    }
                }
            }
            pub static KERNELS: Kernels<$T> =
                Kernels { mr: $mr, nr: $nv * <$S as Vector<$T>>::LANES, tile: run_tile, dots: run_dots };
        }
    };
}

#[cfg(target_arch = "x86_64")]
table!(#[target_feature(enable = "avx512f")] avx512_f32, f32, Avx512F32, 2, 1, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
#[cfg(target_arch = "x86_64")]
table!(#[target_feature(enable = "avx512f")] avx512_f64, f64, Avx512F64, 2, 1, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
#[cfg(target_arch = "x86_64")]
table!(#[target_feature(enable = "avx2,fma")] avx2_f32, f32, Avx2F32, 2, 1, 6, [1 2 3 4 5 6]);
#[cfg(target_arch = "x86_64")]
table!(#[target_feature(enable = "avx2,fma")] avx2_f64, f64, Avx2F64, 2, 1, 6, [1 2 3 4 5 6]);
#[cfg(target_arch = "aarch64")]
table!(neon_f32, f32, NeonF32, 4, 2, 6, [1 2 3 4 5 6]);
#[cfg(target_arch = "aarch64")]
table!(neon_f64, f64, NeonF64, 4, 2, 6, [1 2 3 4 5 6]);
table!(plain_f32, f32, Plain, 2, 1, 4, [1 2 3 4]);
table!(plain_f64, f64, Plain, 2, 1, 4, [1 2 3 4]);

macro_rules! real {
    ($T:ty, $fma:ident, $avx512:ident, $avx2:ident, $neon:ident, $plain:ident) => {
        impl Real for $T {
            const ZERO: $T = 0.0;
            const ONE: $T = 1.0;
            #[inline(always)]
            fn fma<L: Level>(a: $T, b: $T, c: $T) -> $T {
                L::$fma(a, b, c)
            }
            #[inline]
            fn kernels() -> &'static Kernels<$T> {
                static CHOSEN: OnceLock<&'static Kernels<$T>> = OnceLock::new();
                CHOSEN.get_or_init(|| *Self::all_kernels().first().unwrap_or(&&$plain::KERNELS))
            }
        }
        impl AllKernels for $T {
            fn all_kernels() -> Vec<&'static Kernels<$T>> {
                // The same variable limits the vector loops of `mxrs_simd`.
                let limit = std::env::var("MXRS_SIMD").unwrap_or_default();
                let mut all: Vec<&'static Kernels<$T>> = Vec::new();
                if limit != "baseline" {
                    #[cfg(target_arch = "x86_64")]
                    {
                        if limit != "avx2" && is_x86_feature_detected!("avx512f") {
                            all.push(&$avx512::KERNELS);
                        }
                        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                            all.push(&$avx2::KERNELS);
                        }
                    }
                    #[cfg(target_arch = "aarch64")]
                    all.push(&$neon::KERNELS);
                }
                all.push(&$plain::KERNELS);
                all
            }
        }
    };
}

/// Every table this machine can run, best first.
pub(crate) trait AllKernels: Real {
    fn all_kernels() -> Vec<&'static Kernels<Self>>;
}

real!(f32, fma32, avx512_f32, avx2_f32, neon_f32, plain_f32);
real!(f64, fma64, avx512_f64, avx2_f64, neon_f64, plain_f64);
