//! Integer products: exact in the element's own type, wrapping where it overflows.

use super::blocked::MIN_PARALLEL_WORK;
use super::pack::Shared;
use super::{Done, Gemm, Product, in_parts};

macro_rules! integer_gemm {
    ($($T:ty),*) => {$(
        impl Gemm for $T {
            fn gemm(p: &Product, alpha: $T, a: &[$T], b: &[$T], beta: $T, c: &mut [$T], done: Done) {
                let out = Shared::of(c);
                let grain = MIN_PARALLEL_WORK.div_ceil((p.n * p.k).max(1));
                mxrs_lanes::for_each(p.m, grain, |rows| {
                    for i in rows {
                        // SAFETY: the row lies within C, as checked, and is this range's alone.
                        let row = unsafe { out.slice(i * p.ldc..i * p.ldc + p.n) };
                        row.iter_mut().for_each(|x| *x = if beta == 0 { 0 } else { x.wrapping_mul(beta) });
                        for q in 0..p.k {
                            let x = alpha.wrapping_mul(if p.transa { a[q * p.lda + i] } else { a[i * p.lda + q] });
                            if p.transb {
                                for (j, c) in row.iter_mut().enumerate() {
                                    *c = c.wrapping_add(x.wrapping_mul(b[j * p.ldb + q]));
                                }
                            } else {
                                for (c, y) in row.iter_mut().zip(&b[q * p.ldb..q * p.ldb + p.n]) {
                                    *c = c.wrapping_add(x.wrapping_mul(*y));
                                }
                            }
                        }
                    }
                });
                in_parts(p, done);
            }
        }
    )*};
}
integer_gemm!(i8, u8, i32, i64);
