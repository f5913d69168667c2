//! What the element types offer to the instruction table: the functions its rows are written in.

use crate::level::Level;
use crate::{math32, math64, special};

/// The float side of an instruction row. Every function is `#[inline(always)]` and vectorises unless it says not.
pub(crate) trait Float:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const HALF: Self;
    fn of(v: f64) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn exp<L: Level>(self) -> Self;
    fn expm1<L: Level>(self) -> Self;
    fn log<L: Level>(self) -> Self;
    fn log2<L: Level>(self) -> Self;
    fn log10<L: Level>(self) -> Self;
    fn log1p<L: Level>(self) -> Self;
    fn cbrt<L: Level>(self) -> Self;
    fn sin<L: Level>(self) -> Self;
    fn cos<L: Level>(self) -> Self;
    fn tan<L: Level>(self) -> Self;
    fn asin<L: Level>(self) -> Self;
    fn acos<L: Level>(self) -> Self;
    fn atan<L: Level>(self) -> Self;
    fn sinh<L: Level>(self) -> Self;
    fn cosh<L: Level>(self) -> Self;
    fn tanh<L: Level>(self) -> Self;
    fn asinh<L: Level>(self) -> Self;
    fn acosh<L: Level>(self) -> Self;
    fn atanh<L: Level>(self) -> Self;
    fn sigmoid<L: Level>(self) -> Self;
    fn softplus<L: Level>(self) -> Self;
    fn erf<L: Level>(self) -> Self;
    fn erfinv<L: Level>(self) -> Self;
    fn gamma(self) -> Self;
    fn lgamma(self) -> Self;
    fn digamma(self) -> Self;
    fn pow<L: Level>(self, e: Self) -> Self;
    fn hypot<L: Level>(self, b: Self) -> Self;
    fn atan2<L: Level>(self, b: Self) -> Self;
    fn ldexp<L: Level>(self, b: Self) -> Self;

    #[inline(always)]
    fn flag(on: bool) -> Self {
        if on { Self::ONE } else { Self::ZERO }
    }
    #[inline(always)]
    fn on(self) -> bool {
        self != Self::ZERO
    }
    /// -1, 0 or 1; not-a-number stays.
    #[inline(always)]
    fn sign(self) -> Self {
        if self > Self::ZERO {
            Self::ONE
        } else if self < Self::ZERO {
            -Self::ONE
        } else if self == Self::ZERO {
            Self::ZERO
        } else {
            self
        }
    }
    /// The larger; not-a-number where either is.
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        #[allow(clippy::eq_op)] // the test for not-a-number
        if self > b || self != self { self } else { b }
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        #[allow(clippy::eq_op)]
        if self < b || self != self { self } else { b }
    }
    /// Halves away from zero.
    #[inline(always)]
    fn round_away(self) -> Self {
        let t = self.abs().floor();
        let t = t + Self::flag(self.abs() - t >= Self::HALF);
        t.copysign(self)
    }
    /// To the nearest, halves to the lower integer.
    #[inline(always)]
    fn round_low(self) -> Self {
        let f = self.floor();
        if self - f > Self::HALF { self.ceil() } else { f }
    }
    /// The remainder with the sign of the divisor; zero where the divisor is zero.
    fn floor_mod(self, b: Self) -> Self;
}

macro_rules! float_basics {
    ($t:ident) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const HALF: Self = 0.5;
        #[inline(always)]
        fn of(v: f64) -> Self {
            v as $t
        }
        #[inline(always)]
        fn abs(self) -> Self {
            $t::abs(self)
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            $t::sqrt(self)
        }
        #[inline(always)]
        fn floor(self) -> Self {
            $t::floor(self)
        }
        #[inline(always)]
        fn ceil(self) -> Self {
            $t::ceil(self)
        }
        #[inline(always)]
        fn trunc(self) -> Self {
            $t::trunc(self)
        }
        #[inline(always)]
        fn copysign(self, sign: Self) -> Self {
            $t::copysign(self, sign)
        }
    };
}

/// Forwards methods to functions of a module that take the level as their generic parameter.
macro_rules! forward {
    ($m:ident: $($f:ident),*) => {
        $(#[inline(always)]
        fn $f<L: Level>(self) -> Self {
            $m::$f::<L>(self)
        })*
    };
}

impl Float for f32 {
    float_basics!(f32);
    forward!(math32: exp, expm1, log, log2, log10, log1p, cbrt, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh);
    forward!(math32: asinh, acosh, atanh, sigmoid, softplus, erf, erfinv);
    #[inline(always)]
    fn gamma(self) -> Self {
        special::gamma(self as f64) as f32
    }
    #[inline(always)]
    fn lgamma(self) -> Self {
        special::lgamma(self as f64) as f32
    }
    #[inline(always)]
    fn digamma(self) -> Self {
        special::digamma(self as f64) as f32
    }
    #[inline(always)]
    fn pow<L: Level>(self, e: Self) -> Self {
        math32::pow::<L>(self, e)
    }
    #[inline(always)]
    fn hypot<L: Level>(self, b: Self) -> Self {
        math32::hypot(self, b)
    }
    #[inline(always)]
    fn atan2<L: Level>(self, b: Self) -> Self {
        math32::atan2::<L>(self, b)
    }
    #[inline(always)]
    fn ldexp<L: Level>(self, b: Self) -> Self {
        math32::ldexp::<L>(self, b)
    }
    #[inline(always)]
    fn floor_mod(self, b: Self) -> Self {
        // In double precision the quotient's floor is right wherever the remainder means anything.
        let (x, d) = (self as f64, b as f64);
        let q = f64::floor(x / d);
        // With an infinite divisor the quotient is 0 or -1, and the product must not become 0 * inf.
        let r = if q == 0.0 { x } else { x - q * d };
        if b == 0.0 { 0.0 } else { r as f32 }
    }
}

impl Float for f64 {
    float_basics!(f64);
    forward!(math64: exp, expm1, log, log2, log10, log1p, cbrt, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh);
    forward!(math64: asinh, acosh, atanh, sigmoid, softplus);
    #[inline(always)]
    fn erf<L: Level>(self) -> Self {
        special::erf(self)
    }
    #[inline(always)]
    fn erfinv<L: Level>(self) -> Self {
        special::erfinv(self)
    }
    #[inline(always)]
    fn gamma(self) -> Self {
        special::gamma(self)
    }
    #[inline(always)]
    fn lgamma(self) -> Self {
        special::lgamma(self)
    }
    #[inline(always)]
    fn digamma(self) -> Self {
        special::digamma(self)
    }
    #[inline(always)]
    fn pow<L: Level>(self, e: Self) -> Self {
        self.powf(e)
    }
    #[inline(always)]
    fn hypot<L: Level>(self, b: Self) -> Self {
        f64::hypot(self, b)
    }
    #[inline(always)]
    fn atan2<L: Level>(self, b: Self) -> Self {
        f64::atan2(self, b)
    }
    #[inline(always)]
    fn ldexp<L: Level>(self, b: Self) -> Self {
        special::ldexp(self, b)
    }
    #[inline(always)]
    fn floor_mod(self, b: Self) -> Self {
        special::floor_mod(self, b)
    }
}

/// The integer side of an instruction row: exact, wrapping, never a trap.
pub(crate) trait Int: Copy + Ord {
    const ZERO: Self;
    const ONE: Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// Toward zero; by zero gives zero.
    fn div(self, b: Self) -> Self;
    fn floor_mod(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn sign(self) -> Self;
    #[inline(always)]
    fn flag(on: bool) -> Self {
        if on { Self::ONE } else { Self::ZERO }
    }
    #[inline(always)]
    fn on(self) -> bool {
        self != Self::ZERO
    }
}

macro_rules! int {
    ($($t:ident)*) => { $(impl Int for $t {
        const ZERO: Self = 0;
        const ONE: Self = 1;
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            self.wrapping_add(b)
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            self.wrapping_sub(b)
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            self.wrapping_mul(b)
        }
        #[inline(always)]
        fn div(self, b: Self) -> Self {
            if b == 0 { 0 } else { self.wrapping_div(b) }
        }
        #[inline(always)]
        fn neg(self) -> Self {
            self.wrapping_neg()
        }
        #[inline(always)]
        fn abs(self) -> Self {
            #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)] // u8 shares the body
            if self < 0 { self.wrapping_neg() } else { self }
        }
        #[inline(always)]
        fn sign(self) -> Self {
            #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
            if self < 0 { (0 as $t).wrapping_sub(1) } else { (self != 0) as $t }
        }
        #[inline(always)]
        fn floor_mod(self, b: Self) -> Self {
            if b == 0 {
                return 0;
            }
            let r = self.wrapping_rem(b);
            #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
            if r != 0 && (r < 0) != (b < 0) { r.wrapping_add(b) } else { r }
        }
    })* };
}
int!(u8 i8 i32 i64);
