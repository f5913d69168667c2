//! Scalar special functions in double precision: the gamma family, the inverse error function, and what has no
//! cheap vector form. They are library calls or series with branches; loops over them do not vectorise.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

pub(crate) fn erf(x: f64) -> f64 {
    libm::erf(x)
}

/// The gamma function; not-a-number at the negative integers.
pub(crate) fn gamma(x: f64) -> f64 {
    libm::tgamma(x)
}

/// log |gamma(x)|.
pub(crate) fn lgamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// The logarithmic derivative of gamma: recurrence up to 10, then the asymptotic series (Abramowitz & Stegun 6.3.18);
/// reflection (6.3.7) on the left. Not-a-number at 0 and the negative integers.
pub(crate) fn digamma(x: f64) -> f64 {
    if x.is_nan() || x == f64::NEG_INFINITY {
        return f64::NAN;
    }
    if x <= 0.0 {
        if x == x.floor() {
            return f64::NAN;
        }
        // tan has the period pi: reducing first keeps the product exact for large |x|.
        let fraction = x - x.round();
        return digamma(1.0 - x) - PI / (PI * fraction).tan();
    }
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let z = 1.0 / (x * x);
    let series = z
        * (1.0 / 12.0
            - z * (1.0 / 120.0
                - z * (1.0 / 252.0
                    - z * (1.0 / 240.0 - z * (1.0 / 132.0 - z * (691.0 / 32760.0 - z * (1.0 / 12.0)))))));
    sum + x.ln() - 0.5 / x - series
}

/// The inverse of erf: a start from the leading behaviour at the ends, then Halley steps on erf or erfc.
pub(crate) fn erfinv(x: f64) -> f64 {
    let a = x.abs();
    if a >= 1.0 || a.is_nan() {
        return if a == 1.0 { f64::INFINITY.copysign(x) } else { f64::NAN };
    }
    if a == 0.0 {
        return x;
    }
    // Winitzki's closed form (2008), right to 2e-3, starts it.
    let l = (-a * a).ln_1p();
    let t = 2.0 / (PI * 0.147) + 0.5 * l;
    let mut y = ((t * t - l / 0.147).sqrt() - t).sqrt();
    // Small arguments lose the start to cancellation; there the first term of the series is right.
    if a < 1e-3 {
        y = a / FRAC_2_SQRT_PI;
    }
    for _ in 0..3 {
        let error = if a < 0.5 { libm::erf(y) - a } else { (1.0 - a) - libm::erfc(y) };
        let step = error / (FRAC_2_SQRT_PI * (-y * y).exp());
        y -= step / (1.0 + y * step);
    }
    y.copysign(x)
}

/// a * 2^b for any b.
pub(crate) fn ldexp(a: f64, b: f64) -> f64 {
    // Two factors, so that neither under- nor overflows before the product does.
    let half = (b * 0.5).floor().clamp(-1100.0, 1100.0);
    a * half.exp2() * (b - half).exp2()
}

/// The remainder with the sign of the divisor; zero where the divisor is zero.
pub(crate) fn floor_mod(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return 0.0;
    }
    let r = a % b;
    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
}
