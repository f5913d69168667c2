//! Every instruction against plain references (the standard library and `libm` in double precision), for every type.
//!
//! length: `reference` is one table with a line per instruction.

use mxrs_base::{DType, Elem, f16};
use mxrs_simd::{Binary, Unary};

/// What the instruction means, in double precision.
fn reference(op: Unary, x: f64) -> f64 {
    use Unary::*;
    let flag = |b: bool| b as u8 as f64;
    match op {
        Neg => -x,
        Abs => x.abs(),
        Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x.abs()
            }
        }
        Exp => x.exp(),
        Log => x.ln(),
        Log2 => x.log2(),
        Log10 => x.log10(),
        Log1p => x.ln_1p(),
        Expm1 => x.exp_m1(),
        Sqrt => x.sqrt(),
        Rsqrt => 1.0 / x.sqrt(),
        Cbrt => x.cbrt(),
        Rcbrt => 1.0 / x.cbrt(),
        Square => x * x,
        Recip => 1.0 / x,
        Sin => x.sin(),
        Cos => x.cos(),
        Tan => x.tan(),
        Asin => x.asin(),
        Acos => x.acos(),
        Atan => x.atan(),
        Sinh => x.sinh(),
        Cosh => x.cosh(),
        Tanh => x.tanh(),
        Asinh => libm::asinh(x),
        Acosh => {
            if x < 1.0 {
                f64::NAN
            } else {
                libm::acosh(x)
            }
        }
        Atanh => libm::atanh(x),
        Sigmoid => {
            if x < 0.0 {
                x.exp() / (1.0 + x.exp())
            } else {
                1.0 / (1.0 + (-x).exp())
            }
        }
        Softplus => {
            if x > 0.0 {
                x + (-x).exp().ln_1p()
            } else {
                x.exp().ln_1p()
            }
        }
        Relu => {
            if x <= 0.0 {
                0.0
            } else {
                x
            }
        }
        Erf => libm::erf(x),
        Erfinv => erfinv_by_bisection(x),
        Gamma => libm::tgamma(x),
        LogGamma => libm::lgamma(x),
        Digamma => digamma_by_difference(x),
        Floor => x.floor(),
        Ceil => x.ceil(),
        Round => x.round(),
        Rint => {
            if x - x.floor() > 0.5 {
                x.ceil()
            } else {
                x.floor()
            }
        }
        Trunc => x.trunc(),
        LogicalNot => flag(x == 0.0),
        IsNan => flag(x.is_nan()),
        IsInf => flag(x.is_infinite()),
        IsFinite => flag(x.is_finite()),
        Degrees => x.to_degrees(),
        Radians => x.to_radians(),
    }
}

fn erfinv_by_bisection(x: f64) -> f64 {
    if x.abs() >= 1.0 || x.is_nan() {
        return if x.abs() == 1.0 { x * f64::INFINITY } else { f64::NAN };
    }
    if x == 0.0 {
        return x;
    }
    let (mut low, mut high) = (0.0, 6.5);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        // erfc near 1: erf itself has no digits left there.
        let below =
            if x.abs() < 0.5 { libm::erf(middle) < x.abs() } else { libm::erfc(middle) > 1.0 - x.abs() };
        if below { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).copysign(x)
}

fn digamma_by_difference(x: f64) -> f64 {
    if x <= 0.0 && x == x.floor() || x == f64::NEG_INFINITY {
        return f64::NAN;
    }
    if !x.is_finite() || x.abs() > 1e6 {
        let far_left = x.is_finite() && x < 0.0;
        assert!(!far_left, "the reference does not reach {x}");
        return if x < 0.0 { f64::NAN } else { x.ln() - 0.5 / x };
    }
    // Twenty thousand terms of the defining series with its tail: independent of the recurrence under test.
    // Smallest terms first: near a pole the first one swamps the rest.
    let n = 20000.0;
    let t = x + n;
    let tail = t.ln() - 0.5 / t - 1.0 / (12.0 * t * t);
    (0..20000).rev().fold(tail, |sum, k| sum - 1.0 / (x + k as f64))
}

fn inputs() -> Vec<f64> {
    let mut xs =
        vec![0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.0, 8.0, 27.0, 1000.0, 1e-40, 3e-45];
    xs.extend([
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        88.0,
        89.5,
        -88.0,
        -103.0,
        -110.0,
        3e38,
        1e30,
        1e9,
        -1e9,
    ]);
    let mut state = 12345u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for _ in 0..3000 {
        xs.push(next() * 2.0 - 1.0);
        xs.push((next() * 2.0 - 1.0) * 10.0);
        xs.push((next() * 2.0 - 1.0) * 100.0);
        let size = (next() * 60.0 - 30.0).exp2();
        xs.push(if next() < 0.5 { size } else { -size });
    }
    xs.push(0.999999);
    xs
}

/// All inputs, but for digamma: its reference is slow and does not reach far to the left.
fn digamma_range<T: Copy>(op: Unary, xs: &[T], value: impl Fn(&T) -> f64) -> Vec<T> {
    if op != Unary::Digamma {
        return xs.to_vec();
    }
    let reached = |x: &&T| value(x) > -1e3 || !value(x).is_finite();
    xs[..300].iter().filter(reached).copied().collect()
}

fn close(got: f64, want: f64, relative: f64, absolute: f64) -> bool {
    got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= relative * want.abs() + absolute
}

#[test]
fn unary_f32() {
    let xs: Vec<f32> = inputs().iter().map(|x| *x as f32).collect();
    for &op in Unary::ALL {
        let kept: Vec<f32> = digamma_range(op, &xs, |x| *x as f64);
        let xs: &[f32] = &kept;
        let mut out = vec![0.0; xs.len()];
        mxrs_simd::unary(op, xs, &mut out);
        for (x, y) in xs.iter().zip(&out) {
            let want = reference(op, *x as f64);
            // Near their zeros the gamma family is only as good as its argument.
            let absolute = if matches!(op, Unary::LogGamma | Unary::Digamma) { 1e-6 } else { 1.5e-45 };
            let fits = close(*y as f64, want as f32 as f64, 4e-7, absolute);
            assert!(fits, "{}({x:e}) = {y:e}, not {want:e}", op.name());
        }
    }
}

#[test]
fn unary_f64() {
    let xs = inputs();
    for &op in Unary::ALL {
        let kept: Vec<f64> = digamma_range(op, &xs, |x| *x);
        let xs: &[f64] = &kept;
        let mut out = vec![0.0; xs.len()];
        mxrs_simd::unary(op, xs, &mut out);
        for (x, y) in xs.iter().zip(&out) {
            let want = reference(op, *x);
            let relative = if matches!(op, Unary::Erfinv) { 1e-13 } else { 2e-15 };
            let absolute = if matches!(op, Unary::LogGamma | Unary::Digamma) { 1e-9 } else { 5e-324 };
            assert!(close(*y, want, relative, absolute), "{}({x:e}) = {y:e}, not {want:e}", op.name());
        }
    }
}

#[test]
fn unary_others() {
    fn check<T: Elem>(xs: &[T]) {
        for &op in Unary::ALL {
            if op == Unary::Digamma {
                continue;
            }
            let mut out = vec![T::default(); xs.len()];
            mxrs_simd::unary(op, xs, &mut out);
            let mut in_place = xs.to_vec();
            mxrs_simd::unary_in_place(op, &mut in_place);
            assert!(out.iter().zip(&in_place).all(|(a, b)| a == b || a.is_nan() && b.is_nan()), "{op:?}");
            for (x, y) in xs.iter().zip(&out) {
                if op == Unary::Recip && !T::DTYPE.is_float() && x.to_f64() == 0.0 {
                    assert!(y.to_f64() == 0.0 || T::DTYPE == DType::Bool);
                    continue;
                }
                let value = reference(op, x.to_f64());
                if !T::DTYPE.is_float() && value.abs() > 1e12 && value.is_finite() {
                    continue; // the wrapped low bits of a rounded value mean nothing
                }
                let exact = T::from_f64(value);
                let unit = if T::DTYPE == DType::F16 { 1e-3 * exact.to_f64().abs() + 6e-8 } else { 0.0 };
                // A value at an integer up to rounding may truncate either way: the reference rounds differently.
                let near = [1.0 - 1e-14, 1.0 + 1e-14].iter().any(|d| *y == T::from_f64(value * d));
                let same = y == &exact || y.is_nan() && exact.is_nan() || near;
                let wrapped = matches!(op, Unary::Square) && !T::DTYPE.is_float();
                let fits = same || wrapped || (y.to_f64() - exact.to_f64()).abs() <= unit;
                assert!(fits, "{} {}({x:?}) = {y:?}, not {exact:?}", T::DTYPE, op.name());
            }
        }
    }
    check::<f16>(&[0.0, -0.0, 0.25, -0.75, 1.0, 2.5, -2.5, 9.0, -9.0, 0.1].map(f16::from_f64));
    check::<u8>(&(0..=255).collect::<Vec<_>>());
    check::<i8>(&(-128..=127).collect::<Vec<_>>());
    check::<i32>(&[0, 1, -1, 2, -7, 100, 12345, -12345, i32::MAX, i32::MIN]);
    check::<i64>(&[0, 1, -1, 2, -7, 100, 12345, -12345]);
    check::<bool>(&[false, true, true]);
}

fn binary_reference(op: Binary, a: f64, b: f64) -> f64 {
    use Binary::*;
    let flag = |b: bool| b as u8 as f64;
    match op {
        Add => a + b,
        Sub => a - b,
        Mul => a * b,
        Div => a / b,
        Mod => {
            let r = libm::fmod(a, b);
            if b == 0.0 {
                0.0
            } else if r != 0.0 && (r < 0.0) != (b < 0.0) {
                r + b
            } else {
                r
            }
        }
        Pow => a.powf(b),
        Max => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.max(b)
            }
        }
        Min => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.min(b)
            }
        }
        Hypot => a.hypot(b),
        Arctan2 => a.atan2(b),
        Eq => flag(a == b),
        Ne => flag(a != b),
        Gt => flag(a > b),
        Ge => flag(a >= b),
        Lt => flag(a < b),
        Le => flag(a <= b),
        And => flag(a != 0.0 && b != 0.0),
        Or => flag(a != 0.0 || b != 0.0),
        Xor => flag((a != 0.0) != (b != 0.0)),
        Ldexp => a * b.exp2(),
        Copysign => a.copysign(b),
    }
}

fn pairs() -> (Vec<f64>, Vec<f64>) {
    let special =
        [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 0.5, -2.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 7.25];
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for a in special {
        pairs.extend(special.map(|b| (a, b)));
    }
    let xs: Vec<f64> =
        inputs().into_iter().filter(|x| x.abs() < 50.0 && (*x == 0.0 || x.abs() > 1e-3)).collect();
    pairs.extend(xs.iter().copied().zip(xs.iter().rev().copied()));
    pairs.into_iter().unzip()
}

#[test]
fn binary_floats() {
    fn check<T: Elem>(relative: f64) {
        let (a, b) = pairs();
        let a: Vec<T> = a.into_iter().map(T::from_f64).collect();
        let b: Vec<T> = b.into_iter().map(T::from_f64).collect();
        for &op in Binary::ALL {
            let mut out = vec![T::default(); a.len()];
            mxrs_simd::binary(op, &a, &b, &mut out);
            for i in 0..a.len() {
                let (x, y) = (a[i].to_f64(), b[i].to_f64());
                let want = T::from_f64(binary_reference(op, x, y)).to_f64();
                // fmod rounds an exact remainder; ours in float32 may round the sum with the divisor.
                let absolute = if op == Binary::Mod {
                    relative * y.abs()
                } else {
                    6e-8 * (relative > 1e-4) as u8 as f64
                };
                let infinite_mod = op == Binary::Mod && (!x.is_finite() || !y.is_finite());
                let fits = infinite_mod || close(out[i].to_f64(), want, relative, absolute.min(1e300));
                assert!(fits, "{} {x:e} {} {y:e} = {:?}, not {want:e}", T::DTYPE, op.name(), out[i]);
            }
            let (mut left, mut right) = (out.clone(), out.clone());
            for k in [3, 7, 150] {
                mxrs_simd::binary_left_scalar(op, a[k], &b, &mut left);
                mxrs_simd::binary_right_scalar(op, &a, b[k], &mut right);
                let mut full = out.clone();
                mxrs_simd::binary(op, &vec![a[k]; a.len()], &b, &mut full);
                let same =
                    |p: &[T], q: &[T]| p.iter().zip(q).all(|(p, q)| p == q || p.is_nan() && q.is_nan());
                assert!(same(&left, &full), "{op:?} with a scalar left");
                mxrs_simd::binary(op, &a, &vec![b[k]; a.len()], &mut full);
                assert!(same(&right, &full), "{op:?} with a scalar right");
            }
            let mut in_place = a.clone();
            mxrs_simd::binary_in_place(op, &mut in_place, &b);
            assert!(in_place.iter().zip(&out).all(|(p, q)| p == q || p.is_nan() && q.is_nan()));
        }
    }
    check::<f32>(4e-7);
    check::<f64>(1e-14);
    check::<f16>(2e-3);
}

#[test]
fn integers_are_exact_and_never_trap() {
    let a = [i32::MIN, i32::MIN, 7, -7, 7, -7, 5, i32::MAX, 0];
    let b = [-1, 0, 2, 2, -2, -2, 0, 2, 3];
    let run = |op| {
        let mut out = [0; 9];
        mxrs_simd::binary(op, &a, &b, &mut out);
        out
    };
    assert_eq!(run(Binary::Div), [i32::MIN, 0, 3, -3, -3, 3, 0, i32::MAX / 2, 0]);
    assert_eq!(run(Binary::Mod), [0, 0, 1, 1, -1, -1, 0, 1, 0]);
    assert_eq!(run(Binary::Mul)[7], i32::MAX.wrapping_mul(2));
    assert_eq!(run(Binary::Max), [-1, 0, 7, 2, 7, -2, 5, i32::MAX, 3]);
    assert_eq!(run(Binary::Gt), [0, 0, 1, 0, 1, 0, 1, 1, 0]);
    let big = [i64::MAX - 1, -(1 << 60) - 1];
    let mut out = [0i64; 2];
    mxrs_simd::binary(Binary::Add, &big, &[1, 0], &mut out);
    assert_eq!(out, [i64::MAX, -(1 << 60) - 1]);
    let mut bools = [false; 4];
    mxrs_simd::binary(Binary::Add, &[true, true, false, false], &[true, false, true, false], &mut bools);
    assert_eq!(bools, [true, true, true, false]);
}

#[test]
fn lengths() {
    for n in [0usize, 1, 2, 7, 15, 16, 17, 31, 33, 100, 255, 256, 257, 1000] {
        let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.01 - 1.0).collect();
        let mut out = vec![0.0; n];
        mxrs_simd::unary(Unary::Exp, &x, &mut out);
        assert!(out.iter().zip(&x).all(|(y, x)| (y - x.exp()).abs() <= 4e-7 * y));
        let mut picked = vec![0.0; n];
        let cond: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
        mxrs_simd::select(&cond, &x, &out, &mut picked);
        assert!((0..n).all(|i| picked[i] == if i % 3 != 0 { x[i] } else { out[i] }));
    }
}

#[test]
fn casts() {
    fn pair<S: Elem, D: Elem>() {
        let src: Vec<S> = (0..83)
            .map(|i| S::from_f64([0.0, 1.0, -1.5, 3.75, 200.0, 1e10, f64::NAN, -0.3][i % 8]))
            .collect();
        let mut dst = vec![D::default(); src.len()];
        mxrs_simd::cast(&src, &mut dst);
        for (s, d) in src.iter().zip(&dst) {
            let exact_ints = !S::DTYPE.is_float() && !D::DTYPE.is_float() && D::DTYPE != DType::Bool;
            let want = if exact_ints { D::from_i64(s.to_i64()) } else { D::from_f64(s.to_f64()) };
            assert!(*d == want || d.is_nan() && want.is_nan(), "{} {s:?} to {}: {d:?}", S::DTYPE, D::DTYPE);
        }
    }
    for s in DType::ALL {
        for d in DType::ALL {
            mxrs_base::dispatch!(s, S => mxrs_base::dispatch!(d, D => pair::<S, D>()));
        }
    }
}
