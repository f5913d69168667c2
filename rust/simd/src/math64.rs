//! Vector math in double precision, written so that loops over it vectorise.
//!
//! The reductions are the classical ones (multiples of ln 2, the artanh series); polynomials are the functions' own
//! series, long enough for the type. `SHORT` cuts them for callers that round to float32 (error below 3e-10).
//! Functions that would need more than that for full accuracy in double precision call the standard library.

// Every function takes the instruction level, so that the table can call them alike; some have no use for it.
#![allow(clippy::extra_unused_type_parameters)]

use crate::level::Level;

/// Adding and subtracting it rounds to an integer, which then stands in the low bits.
pub(crate) const MAGIC: f64 = 6755399441055744.0;
/// ln 2 in two parts; the first has few enough bits that a multiple by an exponent is exact.
const LN2_HI: f64 = f64::from_bits(0x3fe62e42fee00000);
const LN2_LO: f64 = f64::from_bits(0x3dea39ef35793c76);

/// c0 + x * (c1 + x * (...)).
macro_rules! poly {
    ($fma:path, $x:expr, $c:expr) => { $c };
    ($fma:path, $x:expr, $c:expr, $($rest:expr),+) => { $fma(poly!($fma, $x, $($rest),+), $x, $c) };
}
pub(crate) use poly;

/// `x` inside `low..=high`; not-a-number stays.
#[inline(always)]
fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 2^k for an integer k in the low bits of a magic sum.
#[inline(always)]
fn power_of_two(magic_sum: f64) -> f64 {
    f64::from_bits(magic_sum.to_bits().wrapping_add(1023) << 52)
}

/// (k, (e^r - 1) / r, r) with x = k ln 2 + r, |r| <= ln 2 / 2; the integer k as a magic sum.
#[inline(always)]
fn reduced_exp<L: Level, const SHORT: bool>(x: f64) -> (f64, f64, f64) {
    let k = L::fma64(x, std::f64::consts::LOG2_E, MAGIC);
    let kf = k - MAGIC;
    let r = L::fma64(kf, -LN2_LO, L::fma64(kf, -LN2_HI, x));
    let p = if SHORT {
        poly!(
            L::fma64,
            r,
            1.0,
            1.0 / 2.0,
            1.0 / 6.0,
            1.0 / 24.0,
            1.0 / 120.0,
            1.0 / 720.0,
            1.0 / 5040.0,
            1.0 / 40320.0
        )
    } else {
        poly!(
            L::fma64,
            r,
            1.0,
            1.0 / 2.0,
            1.0 / 6.0,
            1.0 / 24.0,
            1.0 / 120.0,
            1.0 / 720.0,
            1.0 / 5040.0,
            1.0 / 40320.0,
            1.0 / 362880.0,
            1.0 / 3628800.0,
            1.0 / 39916800.0,
            1.0 / 479001600.0,
            1.0 / 6227020800.0
        )
    };
    (k, p, r)
}

#[inline(always)]
pub(crate) fn exp_of<L: Level, const SHORT: bool>(x: f64) -> f64 {
    let (k, p, r) = reduced_exp::<L, SHORT>(clamp(x, -746.0, 710.0));
    let e = L::fma64(p, r, 1.0);
    // Two factors: 2^1024 and 2^-1075 are no doubles.
    let half = (k - MAGIC) * 0.5 + MAGIC;
    let other = (k - MAGIC) - (half - MAGIC) + MAGIC;
    e * power_of_two(half) * power_of_two(other)
}

#[inline(always)]
pub(crate) fn expm1_of<L: Level, const SHORT: bool>(x: f64) -> f64 {
    let (k, p, r) = reduced_exp::<L, SHORT>(clamp(x, -50.0, 710.0));
    let half = (k - MAGIC) * 0.5 + MAGIC;
    let other = (k - MAGIC) - (half - MAGIC) + MAGIC;
    let (s, t) = (power_of_two(half), power_of_two(other));
    // 2^k (e^r - 1) + (2^k - 1): nothing cancels where k = 0, and little elsewhere.
    let value = L::fma64(p * r * s, t, s * t - 1.0);
    let value = if x > 709.782712893384 { f64::INFINITY } else { value };
    // The sign of zero, and arguments so small that the sum would lose them.
    if x.abs() < 1e-300 { x } else { value }
}

/// log x for positive finite x, subnormal or not, as the sum of two parts.
#[inline(always)]
fn log_parts<L: Level, const SHORT: bool>(x: f64) -> (f64, f64) {
    let small = x < f64::MIN_POSITIVE;
    let scaled = if small { x * 18014398509481984.0 } else { x };
    // The exponent k such that x = 2^k m with m in [sqrt(1/2), sqrt(2)).
    const ROOT_HALF: u64 = 0x3fe6a09e667f3bcd;
    let t = scaled.to_bits().wrapping_add(0x3ff0000000000000 - ROOT_HALF);
    let m = f64::from_bits((t & 0x000fffffffffffff) + ROOT_HALF);
    let k = f64::from_bits((t >> 52) | 0x4330000000000000) - (4503599627370496.0 + 1023.0);
    let k = if small { k - 54.0 } else { k };
    let f = m - 1.0;
    let s = f / (m + 1.0);
    let z = s * s;
    // log m = 2 artanh s = 2s + s R, and 2s = f - s f.
    let r = if SHORT {
        poly!(L::fma64, z, 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0) * z
    } else {
        poly!(
            L::fma64,
            z,
            2.0 / 3.0,
            2.0 / 5.0,
            2.0 / 7.0,
            2.0 / 9.0,
            2.0 / 11.0,
            2.0 / 13.0,
            2.0 / 15.0,
            2.0 / 17.0,
            2.0 / 19.0,
            2.0 / 21.0
        ) * z
    };
    let low = L::fma64(k, LN2_LO, -(s * (f - r)));
    (L::fma64(k, LN2_HI, f), low)
}

#[inline(always)]
pub(crate) fn log_of<L: Level, const SHORT: bool>(x: f64) -> f64 {
    let (high, low) = log_parts::<L, SHORT>(x);
    let value = high + low;
    let value = if x < f64::INFINITY { value } else { x };
    let value = if x > 0.0 { value } else { f64::NAN };
    if x == 0.0 { f64::NEG_INFINITY } else { value }
}

#[inline(always)]
pub(crate) fn log1p_of<L: Level, const SHORT: bool>(x: f64) -> f64 {
    let u = 1.0 + x;
    // What 1 + x lost, to first order.
    let value = log_of::<L, SHORT>(u) + (x - (u - 1.0)) / u;
    let value = if x.abs() < f64::INFINITY && x != -1.0 { value } else { log_of::<L, SHORT>(u) };
    if x.abs() < 1e-300 { x } else { value }
}

#[inline(always)]
pub fn exp<L: Level>(x: f64) -> f64 {
    exp_of::<L, false>(x)
}

#[inline(always)]
pub fn expm1<L: Level>(x: f64) -> f64 {
    expm1_of::<L, false>(x)
}

#[inline(always)]
pub fn log<L: Level>(x: f64) -> f64 {
    log_of::<L, false>(x)
}

#[inline(always)]
pub fn log1p<L: Level>(x: f64) -> f64 {
    log1p_of::<L, false>(x)
}

#[inline(always)]
pub fn tanh<L: Level>(x: f64) -> f64 {
    let a = clamp(2.0 * x.abs(), 0.0, 50.0);
    let e = expm1_of::<L, false>(a);
    (e / (e + 2.0)).copysign(x)
}

/// 1 / (1 + e^-x), without overflow on either side.
#[inline(always)]
pub fn sigmoid<L: Level>(x: f64) -> f64 {
    let e = exp_of::<L, false>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// log(1 + e^x).
#[inline(always)]
pub(crate) fn softplus<L: Level>(x: f64) -> f64 {
    let tail = log1p_of::<L, false>(exp_of::<L, false>(-x.abs()));
    (if x < 0.0 { 0.0 } else { x }) + tail
}

macro_rules! library {
    ($($name:ident $f:ident),*) => {
        $(#[inline(always)]
        pub(crate) fn $name<L: Level>(x: f64) -> f64 {
            x.$f()
        })*
    };
}
library!(log2 log2, log10 log10, cbrt cbrt, sin sin, cos cos, tan tan, asin asin, acos acos, atan atan);
library!(sinh sinh, cosh cosh, asinh asinh, acosh acosh);

#[inline(always)]
pub(crate) fn atanh<L: Level>(x: f64) -> f64 {
    // The library's is accurate on the right side only.
    x.abs().atanh().copysign(x)
}
