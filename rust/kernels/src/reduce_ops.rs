//! The running operations of reductions, for every element type.
//!
//! How they are walked over an array is in [`crate::reduce`].

use crate::real::f16_up;
use mxrs_base::{Elem, f16};

/// A running reduction: `A` accumulates inside a block, `W` over blocks.
pub(crate) trait Fold<T: Copy>: 'static {
    type A: Copy;
    type W: Copy + Send + Sync + 'static;
    const A0: Self::A;
    const W0: Self::W;
    fn step(a: Self::A, x: T) -> Self::A;
    fn join(a: Self::A, b: Self::A) -> Self::A;
    fn widen(w: Self::W, a: Self::A) -> Self::W;
    fn merge(w: Self::W, v: Self::W) -> Self::W;
}

macro_rules! fold_op {
    ($name:ident, $t:ty, $a:ty, $w:ty, $a0:expr, $w0:expr, |$s:ident, $x:ident| $step:expr,
     |$j:ident, $k:ident| $join:expr, |$u:ident, $v:ident| $merge:expr) => {
        impl Fold<$t> for $name {
            type A = $a;
            type W = $w;
            const A0: $a = $a0;
            const W0: $w = $w0;
            #[inline(always)]
            fn step($s: $a, $x: $t) -> $a {
                $step
            }
            #[inline(always)]
            fn join($j: $a, $k: $a) -> $a {
                $join
            }
            #[inline(always)]
            fn widen($u: $w, a: $a) -> $w {
                let $v = a as $w;
                $merge
            }
            #[inline(always)]
            fn merge($u: $w, $v: $w) -> $w {
                $merge
            }
        }
    };
}

pub(crate) struct Sum;
pub(crate) struct NanSum;
pub(crate) struct Abs;
pub(crate) struct Square;
pub(crate) struct Prod;
pub(crate) struct NanProd;
pub(crate) struct Max;
pub(crate) struct Min;
pub(crate) struct Any;
pub(crate) struct All;
pub(crate) struct Count;

macro_rules! float_folds {
    ($t:ty, $a:ty, |$v:ident| $up:expr) => {
        fold_op!(Sum, $t, $a, f64, 0.0, 0.0, |s, $v| s + $up, |a, b| a + b, |a, b| a + b);
        fold_op!(
            NanSum,
            $t,
            $a,
            f64,
            0.0,
            0.0,
            |s, $v| {
                let v = $up;
                if v.is_nan() { s } else { s + v }
            },
            |a, b| a + b,
            |a, b| a + b
        );
        fold_op!(Abs, $t, $a, f64, 0.0, 0.0, |s, $v| s + ($up).abs(), |a, b| a + b, |a, b| a + b);
        // Squares of large f32 leave its range: they are summed in f64 from the start.
        fold_op!(
            Square,
            $t,
            f64,
            f64,
            0.0,
            0.0,
            |s, $v| {
                let v = $up as f64;
                s + v * v
            },
            |a, b| a + b,
            |a, b| a + b
        );
        fold_op!(Prod, $t, f64, f64, 1.0, 1.0, |s, $v| s * $up as f64, |a, b| a * b, |a, b| a * b);
        fold_op!(
            NanProd,
            $t,
            f64,
            f64,
            1.0,
            1.0,
            |s, $v| {
                let v = $up as f64;
                if v.is_nan() { s } else { s * v }
            },
            |a, b| a * b,
            |a, b| a * b
        );
        fold_op!(
            Max,
            $t,
            $a,
            $a,
            <$a>::NEG_INFINITY,
            <$a>::NEG_INFINITY,
            |s, $v| {
                let v = $up;
                if v > s || v.is_nan() { v } else { s }
            },
            |a, b| if b > a || b.is_nan() { b } else { a },
            |a, b| if b > a || b.is_nan() { b } else { a }
        );
        fold_op!(
            Min,
            $t,
            $a,
            $a,
            <$a>::INFINITY,
            <$a>::INFINITY,
            |s, $v| {
                let v = $up;
                if v < s || v.is_nan() { v } else { s }
            },
            |a, b| if b < a || b.is_nan() { b } else { a },
            |a, b| if b < a || b.is_nan() { b } else { a }
        );
    };
}
float_folds!(f32, f32, |v| v);
float_folds!(f64, f64, |v| v);
float_folds!(f16, f32, |v| f16_up(v));

macro_rules! int_folds {
    ($t:ty) => {
        fold_op!(Sum, $t, $t, $t, 0, 0, |s, v| s.wrapping_add(v), |a, b| a.wrapping_add(b), |a, b| a
            .wrapping_add(b));
        fold_op!(Abs, $t, $t, $t, 0, 0, |s, v| s.wrapping_add(abs(v)), |a, b| a.wrapping_add(b), |a, b| a
            .wrapping_add(b));
        fold_op!(
            Square,
            $t,
            f64,
            f64,
            0.0,
            0.0,
            |s, v| {
                let v = v as f64;
                s + v * v
            },
            |a, b| a + b,
            |a, b| a + b
        );
        fold_op!(Prod, $t, $t, $t, 1, 1, |s, v| s.wrapping_mul(v), |a, b| a.wrapping_mul(b), |a, b| a
            .wrapping_mul(b));
        fold_op!(Max, $t, $t, $t, <$t>::MIN, <$t>::MIN, |s, v| s.max(v), |a, b| a.max(b), |a, b| a.max(b));
        fold_op!(Min, $t, $t, $t, <$t>::MAX, <$t>::MAX, |s, v| s.min(v), |a, b| a.min(b), |a, b| a.min(b));
    };
}
/// The magnitude, wrapping at the minimum; `u8` is its own.
#[inline(always)]
fn abs<T: Elem + std::ops::Sub<Output = T>>(v: T) -> T {
    if v < T::default() { T::from_i64(v.to_i64().wrapping_neg()) } else { v }
}
int_folds!(u8);
int_folds!(i8);
int_folds!(i32);
int_folds!(i64);

impl<T: Elem> Fold<T> for Any {
    type A = bool;
    type W = bool;
    const A0: bool = false;
    const W0: bool = false;
    #[inline(always)]
    fn step(a: bool, x: T) -> bool {
        a | (x != T::default())
    }
    #[inline(always)]
    fn join(a: bool, b: bool) -> bool {
        a | b
    }
    #[inline(always)]
    fn widen(w: bool, a: bool) -> bool {
        w | a
    }
    #[inline(always)]
    fn merge(w: bool, v: bool) -> bool {
        w | v
    }
}

impl<T: Elem> Fold<T> for All {
    type A = bool;
    type W = bool;
    const A0: bool = true;
    const W0: bool = true;
    #[inline(always)]
    fn step(a: bool, x: T) -> bool {
        a & (x != T::default())
    }
    #[inline(always)]
    fn join(a: bool, b: bool) -> bool {
        a & b
    }
    #[inline(always)]
    fn widen(w: bool, a: bool) -> bool {
        w & a
    }
    #[inline(always)]
    fn merge(w: bool, v: bool) -> bool {
        w & v
    }
}

impl<T: Elem> Fold<T> for Count {
    type A = u32;
    type W = i64;
    const A0: u32 = 0;
    const W0: i64 = 0;
    #[inline(always)]
    fn step(a: u32, x: T) -> u32 {
        a + (x != T::default()) as u32
    }
    #[inline(always)]
    fn join(a: u32, b: u32) -> u32 {
        a + b
    }
    #[inline(always)]
    fn widen(w: i64, a: u32) -> i64 {
        w + a as i64
    }
    #[inline(always)]
    fn merge(w: i64, v: i64) -> i64 {
        w + v
    }
}
