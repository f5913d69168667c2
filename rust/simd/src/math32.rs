//! Vector math in single precision, written so that loops over it vectorise; errors are at most about 3 units in the
//! last place.
//!
//! The functions that models spend their time in (exp, log, tanh, sigmoid, softplus, erf) are native. The others go
//! through double precision with short series: half the vector width, and no care about rounding.

// Every function takes the instruction level, so that the table can call them alike; some have no use for it.
#![allow(clippy::extra_unused_type_parameters)]

use crate::level::Level;
use crate::math64::{MAGIC, exp_of, expm1_of, log_of, log1p_of, poly};
use std::f64::consts::{FRAC_PI_2, LN_2, LOG2_E, LOG10_E, PI};

/// Adding and subtracting it rounds to an integer, which then stands in the low bits.
const MAGIC32: f32 = 12582912.0;
/// ln 2 in two parts; the first has few enough bits that a multiple by an exponent is exact.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn power_of_two(magic_sum: f32) -> f32 {
    f32::from_bits(magic_sum.to_bits().wrapping_add(127) << 23)
}

/// (k, e^r - 1) with x = k ln 2 + r; the integer k as a magic sum.
#[inline(always)]
fn reduced_exp<L: Level>(x: f32) -> (f32, f32) {
    let k = L::fma32(x, std::f32::consts::LOG2_E, MAGIC32);
    let kf = k - MAGIC32;
    let r = L::fma32(kf, -LN2_LO, L::fma32(kf, -LN2_HI, x));
    let p = poly!(L::fma32, r, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0);
    (k, L::fma32(p * r, r, r))
}

/// e^x.
#[inline(always)]
pub fn exp<L: Level>(x: f32) -> f32 {
    let (k, p) = reduced_exp::<L>(clamp(x, -105.0, 89.0));
    // Two factors: 2^128 and 2^-151 are no floats.
    let half = (k - MAGIC32) * 0.5 + MAGIC32;
    let other = (k - MAGIC32) - (half - MAGIC32) + MAGIC32;
    (p + 1.0) * power_of_two(half) * power_of_two(other)
}

/// The natural logarithm.
#[inline(always)]
pub fn log<L: Level>(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 33554432.0 } else { x };
    // The exponent k such that x = 2^k m with m in [sqrt(1/2), sqrt(2)).
    const ROOT_HALF: u32 = 0x3f3504f3;
    let t = scaled.to_bits().wrapping_add(0x3f800000 - ROOT_HALF);
    let m = f32::from_bits((t & 0x007fffff) + ROOT_HALF);
    let k = (t >> 23) as i32 as f32 - 127.0;
    let k = if small { k - 25.0 } else { k };
    let f = m - 1.0;
    let s = f / (m + 1.0);
    let z = s * s;
    // log m = 2 artanh s = 2s + s R, and 2s = f - s f.
    let r = poly!(L::fma32, z, 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0) * z;
    let low = L::fma32(k, LN2_LO, -(s * (f - r)));
    let value = L::fma32(k, LN2_HI, f + low);
    let value = if x < f32::INFINITY { value } else { x };
    let value = if x > 0.0 { value } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { value }
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<L: Level>(x: f32) -> f32 {
    let (k, p) = reduced_exp::<L>(clamp(2.0 * x.abs(), 0.0, 20.0));
    let s = power_of_two(k);
    // e^2|x| - 1 without cancellation.
    let e = L::fma32(p, s, s - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// 1 / (1 + e^-x), without overflow on either side.
#[inline(always)]
pub fn sigmoid<L: Level>(x: f32) -> f32 {
    let e = exp::<L>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// log(1 + e^x).
#[inline(always)]
pub fn softplus<L: Level>(x: f32) -> f32 {
    let e = exp::<L>(-x.abs());
    // log(1 + e) = 2 artanh(e / (2 + e)), whose argument is at most 1/3.
    let s = e / (e + 2.0);
    let z = s * s;
    let p =
        poly!(L::fma32, z, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0);
    (if x < 0.0 { 0.0 } else { x }) + 2.0 * L::fma32(s * z, p, s)
}

/// The error function: its series below 1; above, 1 - e^(-x^2) t P(t) with t = 1 / (1 + x/2), where P is a least-squares
/// fit made for this file (error of erf below 1e-11 before rounding).
#[inline(always)]
pub fn erf<L: Level>(x: f32) -> f32 {
    const C: f32 = std::f32::consts::FRAC_2_SQRT_PI;
    let z = x * x;
    let near = x * poly!(
        L::fma32,
        z,
        C,
        -C / 3.0,
        C / 10.0,
        -C / 42.0,
        C / 216.0,
        -C / 1320.0,
        C / 9360.0,
        -C / 75600.0,
        C / 685440.0,
        -C / 6894720.0
    );
    let a = clamp(x.abs(), 0.0, 4.1);
    let t = 1.0 / L::fma32(0.5, a, 1.0);
    let p = poly!(
        L::fma32,
        t,
        0.283_005_55,
        0.269_739_56,
        0.318_530_5,
        -0.052_747_186,
        0.510_528_3,
        -0.440_983_4,
        0.111_969_02
    );
    let far = (1.0 - exp::<L>(-a * a) * t * p).copysign(x);
    if x.abs() < 1.0 { near } else { far }
}

/// Functions that go through double precision.
macro_rules! through_f64 {
    ($($(#[$doc:meta])* $name:ident |$x:ident| $body:expr;)*) => {
        $($(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<L: Level>(x: f32) -> f32 {
            let $x = x as f64;
            ($body) as f32
        })*
    };
}

through_f64! {
    expm1 |x| expm1_of::<L, true>(x);
    log2 |x| log_of::<L, true>(x) * LOG2_E;
    log10 |x| log_of::<L, true>(x) * LOG10_E;
    log1p |x| log1p_of::<L, true>(x);
    cbrt |x| (exp_of::<L, true>(log_of::<L, true>(x.abs()) * (1.0 / 3.0))).copysign(x);
    sin |x| {
        let (quadrant, s, c) = sin_cos::<L>(x);
        let value = if quadrant & 1 == 0 { s } else { c };
        // The sign of a zero is the argument's.
        let value = if quadrant & 2 == 0 { value } else { -value };
        if x == 0.0 { x } else { value }
    };
    cos |x| {
        let (quadrant, s, c) = sin_cos::<L>(x);
        let value = if quadrant & 1 == 0 { c } else { s };
        if quadrant.wrapping_add(1) & 2 == 0 { value } else { -value }
    };
    tan |x| {
        let (quadrant, s, c) = sin_cos::<L>(x);
        let value = if quadrant & 1 == 0 { s / c } else { -c / s };
        if x == 0.0 { x } else { value }
    };
    atan |x| {
        let a = x.abs();
        let t = atan_unit::<L>(if a > 1.0 { 1.0 / a } else { a });
        (if a > 1.0 { FRAC_PI_2 - t } else { t }).copysign(x)
    };
    asin |x| {
        let a = x.abs();
        // The angle of (sqrt(1 - a^2), a).
        let b = ((1.0 - a) * (1.0 + a)).sqrt();
        let t = atan_unit::<L>(if a > b { b / a } else { a / b });
        (if a > b { FRAC_PI_2 - t } else { t }).copysign(x)
    };
    acos |x| {
        // Twice the angle of (sqrt(1 + x), sqrt(1 - x)).
        let (a, b) = ((1.0 - x).sqrt(), (1.0 + x).sqrt());
        let t = atan_unit::<L>(if a > b { b / a } else { a / b });
        2.0 * (if a > b { FRAC_PI_2 - t } else { t })
    };
    sinh |x| {
        let a = x.abs();
        let e = expm1_of::<L, true>(if a > 200.0 { 200.0 } else { a });
        (0.5 * (e + e / (e + 1.0))).copysign(x)
    };
    cosh |x| {
        let a = x.abs();
        let e = exp_of::<L, true>(if a > 200.0 { 200.0 } else { a });
        0.5 * (e + 1.0 / e)
    };
    asinh |x| {
        let a = x.abs();
        let value = log1p_of::<L, true>(a + a * a / (1.0 + (a * a + 1.0).sqrt()));
        (if a < f64::INFINITY { value } else { a }).copysign(x)
    };
    acosh |x| {
        let t = x - 1.0;
        let value = log1p_of::<L, true>(t + (t * (t + 2.0)).sqrt());
        if t >= 0.0 { value } else { f64::NAN }
    };
    atanh |x| {
        let a = x.abs();
        (0.5 * log1p_of::<L, true>(2.0 * a / (1.0 - a))).copysign(x)
    };
    erfinv |x| crate::special::erfinv(x);
}

/// Beyond this the reduction of sines loses accuracy; loops repair such elements afterwards ([`repair_sines`]).
const SINE_LIMIT: f32 = 1e8;

/// (quadrant, sine, cosine) of the argument reduced to |r| <= pi/4.
#[inline(always)]
fn sin_cos<L: Level>(x: f64) -> (u64, f64, f64) {
    // pi/2 in two parts; the first has 33 bits, so that multiples up to 2^26 are all but exact.
    const HI: f64 = f64::from_bits(0x3ff921fb54400000);
    const LO: f64 = f64::from_bits(0x3dd0b4611a626331);
    let k = L::fma64(x, 1.0 / FRAC_PI_2, MAGIC);
    let kf = k - MAGIC;
    let r = L::fma64(kf, -LO, L::fma64(kf, -HI, x));
    let z = r * r;
    let s = poly!(L::fma64, z, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362880.0);
    let c = poly!(L::fma64, z, 1.0, -1.0 / 2.0, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40320.0, -1.0 / 3628800.0);
    (k.to_bits(), L::fma64(s * z, r, r), c)
}

/// Recomputes, by the standard library, the elements whose reduction was inaccurate.
#[inline(always)]
pub(crate) fn repair_sines(x: &[f32], out: &mut [f32], f: fn(f32) -> f32) {
    // A count, not `any`: it vectorises.
    let large: u32 = x.iter().map(|x| (x.abs() > SINE_LIMIT) as u32).sum();
    if large > 0 {
        for (o, x) in out.iter_mut().zip(x) {
            if x.abs() > SINE_LIMIT {
                *o = f(*x);
            }
        }
    }
}

/// arctan for 0 <= x <= 1, by pi/4 - arctan((1-x)/(1+x)) above tan(pi/8).
#[inline(always)]
fn atan_unit<L: Level>(x: f64) -> f64 {
    let upper = x > 0.4142135623730951;
    let t = if upper { (x - 1.0) / (x + 1.0) } else { x };
    let z = t * t;
    let p = poly!(
        L::fma64,
        z,
        1.0,
        -1.0 / 3.0,
        1.0 / 5.0,
        -1.0 / 7.0,
        1.0 / 9.0,
        -1.0 / 11.0,
        1.0 / 13.0,
        -1.0 / 15.0,
        1.0 / 17.0,
        -1.0 / 19.0,
        1.0 / 21.0
    );
    (if upper { PI / 4.0 } else { 0.0 }) + t * p
}

/// x^y with the special cases of C's `powf`.
#[inline(always)]
pub(crate) fn pow<L: Level>(x: f32, y: f32) -> f32 {
    let (a, e) = ((x as f64).abs(), y as f64);
    let value = exp_of::<L, true>(e * log_of::<L, true>(a));
    // 1 to any power, and anything to the power 0, is 1 even where the other is not a number.
    let value = if a == 1.0 && !y.is_nan() { 1.0 } else { value };
    let integer = e.floor() == e;
    let half = e * 0.5;
    let odd = integer && half.floor() != half;
    let negative = x.is_sign_negative();
    let value = if negative && odd { -value } else { value };
    let value = if x < 0.0 && !integer && a < f64::INFINITY { f64::NAN } else { value };
    let value = if y == 0.0 || x == 1.0 { 1.0 } else { value };
    value as f32
}

#[inline(always)]
pub(crate) fn hypot(x: f32, y: f32) -> f32 {
    let (a, b) = (x as f64, y as f64);
    let value = (a * a + b * b).sqrt();
    let infinite = x.abs() == f32::INFINITY || y.abs() == f32::INFINITY;
    if infinite { f32::INFINITY } else { value as f32 }
}

/// The angle of the point (x, y).
#[inline(always)]
pub(crate) fn atan2<L: Level>(y: f32, x: f32) -> f32 {
    let (a, b) = ((y as f64).abs(), (x as f64).abs());
    let steep = a > b;
    let ratio = if steep { b / a } else { a / b };
    // 0/0 is the angle 0, inf/inf that of the diagonal.
    let ratio = if a == b { (a != 0.0) as u8 as f64 } else { ratio };
    let t = atan_unit::<L>(ratio);
    let t = if steep { FRAC_PI_2 - t } else { t };
    let t = if x.is_sign_negative() { PI - t } else { t };
    let value = t.copysign(y as f64) as f32;
    if x.is_nan() || y.is_nan() { f32::NAN } else { value }
}

/// x * 2^y.
#[inline(always)]
pub(crate) fn ldexp<L: Level>(x: f32, y: f32) -> f32 {
    (x as f64 * exp_of::<L, true>(y as f64 * LN_2)) as f32
}
