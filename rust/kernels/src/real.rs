//! The scalar floor of the reduction, softmax, normalization and sampling kernels: which type a float
//! dtype computes in, branch-free elementary functions that the compiler can vectorise, and the shared
//! output handle by which lanes write disjoint parts of one slice.
//!
//! Whole-array elementwise math belongs to the vector crate; what stands here is inlined into loops.

use half::f16;
use half::slice::HalfFloatSliceExt;
use mxrs_base::Elem;
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Neg, Range, Sub};

/// A type that kernels compute in: `f32` or `f64`.
pub trait Real:
    Elem + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INF: Self;
    fn of(v: f64) -> Self;
    fn wide(self) -> f64;
    /// e to the power `self`, within 2 units in the last place; not-a-number stays.
    fn exp_(self) -> Self;
    fn sqrt_(self) -> Self;
    fn powf_(self, e: Self) -> Self;
    /// The larger of two; not-a-number on either side wins.
    #[inline(always)]
    fn max_nan(self, other: Self) -> Self {
        if other > self || other.is_nan() { other } else { self }
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INF: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(v: f64) -> f32 {
        v as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn exp_(self) -> f32 {
        exp_f32(self)
    }
    #[inline(always)]
    fn sqrt_(self) -> f32 {
        self.sqrt()
    }
    #[inline(always)]
    fn powf_(self, e: f32) -> f32 {
        self.powf(e)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INF: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(v: f64) -> f64 {
        v
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp_(self) -> f64 {
        exp_f64(self)
    }
    #[inline(always)]
    fn sqrt_(self) -> f64 {
        self.sqrt()
    }
    #[inline(always)]
    fn powf_(self, e: f64) -> f64 {
        self.powf(e)
    }
}

/// A float dtype and how its rows reach the type they are computed in (`f16` through `f32`, others as they are).
pub trait Float: Elem {
    type R: Real;
    /// `x` in the computing type; `buf` is used only where a conversion is needed.
    fn view<'a>(x: &'a [Self], buf: &'a mut Vec<Self::R>) -> &'a [Self::R];
    /// Has `f` write `out.len()` values of the computing type, which then stand in `out`.
    fn write<X>(out: &mut [Self], buf: &mut Vec<Self::R>, f: impl FnOnce(&mut [Self::R]) -> X) -> X;
    fn up(self) -> Self::R;
    fn down(v: Self::R) -> Self;
}

macro_rules! float_as_is {
    ($t:ty) => {
        impl Float for $t {
            type R = $t;
            #[inline(always)]
            fn view<'a>(x: &'a [$t], _: &'a mut Vec<$t>) -> &'a [$t] {
                x
            }
            #[inline(always)]
            fn write<X>(out: &mut [$t], _: &mut Vec<$t>, f: impl FnOnce(&mut [$t]) -> X) -> X {
                f(out)
            }
            #[inline(always)]
            fn up(self) -> $t {
                self
            }
            #[inline(always)]
            fn down(v: $t) -> $t {
                v
            }
        }
    };
}
float_as_is!(f32);
float_as_is!(f64);

impl Float for f16 {
    type R = f32;
    #[inline(always)]
    fn view<'a>(x: &'a [f16], buf: &'a mut Vec<f32>) -> &'a [f32] {
        buf.resize(x.len(), 0.0);
        x.convert_to_f32_slice(buf);
        buf
    }
    #[inline(always)]
    fn write<X>(out: &mut [f16], buf: &mut Vec<f32>, f: impl FnOnce(&mut [f32]) -> X) -> X {
        buf.clear();
        buf.resize(out.len(), 0.0);
        let result = f(buf);
        out.convert_from_f32_slice(buf);
        result
    }
    #[inline(always)]
    fn up(self) -> f32 {
        f16_up(self)
    }
    #[inline(always)]
    fn down(v: f32) -> f16 {
        f16::from_f32(v)
    }
}

/// Half to single precision by integer operations alone, so that loops over it vectorise on every target.
#[inline(always)]
pub(crate) fn f16_up(h: f16) -> f32 {
    let bits = h.to_bits() as u32;
    // The exponent moves from bias 15 to bias 127 by an exact multiplication, which also mends subnormals.
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

/// e^x: reduction by ln 2 and the Taylor polynomial on |r| <= 0.35 (truncation below 1e-8 relative).
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    const MAGIC: f32 = 12582912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let k = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    // Two factors, since one alone cannot reach the subnormals nor 2^128.
    let half = k >> 1;
    let a = f32::from_bits(((half + 127) as u32) << 23);
    let b = f32::from_bits(((k - half + 127) as u32) << 23);
    p * a * b
}

/// e^x in double precision, as [`exp_f32`] with a longer polynomial.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    const MAGIC: f64 = 6755399441055744.0; // 1.5 * 2^52
    let clamped = x.clamp(-746.0, 710.0);
    let shifted = clamped * std::f64::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (clamped - n * 6.931_471_803_691_238e-1) - n * 1.908_214_929_270_587_7e-10;
    let mut p = 1.0 / 6227020800.0;
    for c in [
        1.0 / 479001600.0,
        1.0 / 39916800.0,
        1.0 / 3628800.0,
        1.0 / 362880.0,
        1.0 / 40320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    let k = (shifted.to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64);
    let half = k >> 1;
    let a = f64::from_bits(((half + 1023) as u64) << 52);
    let b = f64::from_bits(((k - half + 1023) as u64) << 52);
    p * a * b
}

/// Natural logarithm of a positive normal number, within 2 units in the last place.
#[inline(always)]
pub(crate) fn ln_f32(x: f32) -> f32 {
    // Mantissa in [sqrt(1/2), sqrt(2)): the offset is the bit pattern of sqrt(1/2).
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (bits as i32) >> 23;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = z * (0.666_666_7 + z * (0.4 + z * (0.285_714_3 + z * 0.222_222_2)));
    let e = e as f32;
    // ln m = 2s + s*series, and 2s = (m-1) - s*(m-1) keeps the leading part exact.
    let f = m - 1.0;
    e * 0.693_359_4 + (f - s * (f - series) + e * -2.121_944_4e-4)
}

/// `(sin, cos)` of `turns` full turns, for `turns` in [0, 1].
#[inline(always)]
pub(crate) fn sin_cos_turns(turns: f32) -> (f32, f32) {
    const MAGIC: f32 = 12582912.0;
    let t = turns * 4.0;
    let shifted = t + MAGIC;
    let q = shifted.to_bits();
    let x = (t - (shifted - MAGIC)) * std::f32::consts::FRAC_PI_2;
    let z = x * x;
    let s = x + x * z * (-0.166_666_67 + z * (8.333_333e-3 + z * (-1.984_127e-4 + z * 2.755_732e-6)));
    let c = 1.0 + z * (-0.5 + z * (4.166_666_8e-2 + z * (-1.388_888_9e-3 + z * 2.480_158_7e-5)));
    let swap = q & 1 != 0;
    let (sin, cos) = if swap { (c, s) } else { (s, c) };
    let sin = f32::from_bits(sin.to_bits() ^ ((q & 2) << 30));
    let cos = f32::from_bits(cos.to_bits() ^ ((q.wrapping_add(1) & 2) << 30));
    (sin, cos)
}

/// A mutable slice that lanes write in disjoint parts.
pub(crate) struct Shared<'a, T>(*mut T, usize, PhantomData<&'a mut [T]>);

// SAFETY: the pointer comes from an exclusive borrow; `part` demands that parts taken at once are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(s: &'a mut [T]) -> Self {
        Shared(s.as_mut_ptr(), s.len(), PhantomData)
    }

    pub(crate) fn len(&self) -> usize {
        self.1
    }

    /// The elements of `range`; panics where it leaves the slice.
    ///
    /// # Safety
    /// No two live parts may overlap.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.1);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.end - range.start) }
    }

    /// Writes one element; panics where it leaves the slice.
    ///
    /// # Safety
    /// No other lane may touch element `i` at the same time.
    #[inline(always)]
    pub(crate) unsafe fn set(&self, i: usize, v: T) {
        assert!(i < self.1);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { *self.0.add(i) = v }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_match_libm() {
        for i in -20000..20000 {
            let x = i as f32 * 0.0043;
            let (got, want) = (exp_f32(x) as f64, (x as f64).exp());
            assert!(((got - want) / want).abs() < 3e-7, "exp({x}) = {got}, {want}");
            let (got, want) = (exp_f64(x as f64 * 8.0), (x as f64 * 8.0).exp());
            assert!(((got - want) / want).abs() < 1e-15, "exp({x}*8) = {got}, {want}");
            let y = (i + 20001) as f32 * 1.7e-3;
            let (got, want) = (ln_f32(y) as f64, (y as f64).ln());
            assert!((got - want).abs() <= 2.5e-7 * want.abs().max(0.4), "ln({y}) = {got}, {want}");
            let t = (i + 20000) as f32 / 40000.0;
            let (s, c) = sin_cos_turns(t);
            let (ws, wc) = (t as f64 * std::f64::consts::TAU).sin_cos();
            assert!((s as f64 - ws).abs() < 3e-7 && (c as f64 - wc).abs() < 3e-7, "{t}: {s} {c} {ws} {wc}");
        }
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan() && exp_f64(f64::NAN).is_nan());
        assert_eq!(exp_f64(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp_f64(f64::INFINITY), f64::INFINITY);
        assert_eq!(exp_f32(0.0), 1.0);
    }

    #[test]
    fn every_half_converts_exactly() {
        for bits in 0..=u16::MAX {
            let h = f16::from_bits(bits);
            let (got, want) = (f16_up(h), h.to_f32());
            assert!(got == want || (got.is_nan() && want.is_nan()), "{bits:04x}: {got} {want}");
        }
    }
}
