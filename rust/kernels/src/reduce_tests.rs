//! Reductions against a plain loop over coordinates.

use super::*;

fn noise(n: usize) -> Vec<f64> {
    let mut s = 12345u64;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 40) as f64 / (1u64 << 24) as f64 - 0.5) * 4.0
        })
        .collect()
}

/// The elements that fall into each output, by coordinates.
fn groups(dims: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    let kept: Vec<usize> = (0..dims.len()).filter(|i| !axes.contains(i)).collect();
    let outputs: usize = kept.iter().map(|i| dims[*i]).product();
    let mut out = vec![Vec::new(); outputs];
    for at in 0..dims.iter().product() {
        let mut coords = vec![0; dims.len()];
        let mut rest = at;
        for (c, d) in coords.iter_mut().zip(dims).rev() {
            *c = rest % d;
            rest /= d;
        }
        out[kept.iter().fold(0, |o, i| o * dims[*i] + coords[*i])].push(at);
    }
    out
}

fn plain(op: Reduction, v: &[f64]) -> f64 {
    use Reduction::*;
    let real = || v.iter().copied().filter(|x| !x.is_nan());
    let pick = |f: fn(f64, f64) -> bool, start: f64| {
        v.iter().fold(start, |a, x| {
            if a.is_nan() || x.is_nan() {
                f64::NAN
            } else if f(*x, a) {
                *x
            } else {
                a
            }
        })
    };
    match op {
        Sum => v.iter().sum(),
        Mean => v.iter().sum::<f64>() / v.len() as f64,
        Prod => v.iter().product(),
        NanSum => real().sum(),
        NanProd => real().product(),
        Max => pick(|x, a| x > a, f64::NEG_INFINITY),
        Min => pick(|x, a| x < a, f64::INFINITY),
        NormL1 => v.iter().map(|x| x.abs()).sum(),
        NormL2 => v.iter().map(|x| x * x).sum::<f64>().sqrt(),
        SumSq => v.iter().map(|x| x * x).sum(),
        Any => v.iter().any(|x| *x != 0.0) as u8 as f64,
        All => v.iter().all(|x| *x != 0.0) as u8 as f64,
    }
}

const OPS: [Reduction; 12] = [
    Reduction::Sum,
    Reduction::Mean,
    Reduction::Prod,
    Reduction::NanSum,
    Reduction::NanProd,
    Reduction::Max,
    Reduction::Min,
    Reduction::NormL1,
    Reduction::NormL2,
    Reduction::SumSq,
    Reduction::Any,
    Reduction::All,
];

fn check<T: Reduce>(dims: &[usize], axes: &[usize], values: &[f64], tolerance: f64) {
    let x: Vec<T> = values.iter().map(|v| T::from_f64(*v)).collect();
    let groups = groups(dims, axes);
    for op in OPS {
        let mut out = vec![T::default(); groups.len()];
        reduce(op, &x, dims, axes, &mut out);
        for (o, g) in out.iter().zip(&groups) {
            let v: Vec<f64> = g.iter().map(|i| x[*i].to_f64()).collect();
            let (got, want) = (o.to_f64(), T::from_f64(plain(op, &v)).to_f64());
            let scale =
                v.iter().map(|x| x.abs()).filter(|x| !x.is_nan()).sum::<f64>().max(want.abs()).max(1e-30);
            assert!(
                got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance * scale,
                "{op:?} {dims:?} over {axes:?}: {got}, expected {want}"
            );
        }
    }
}

const CASES: [(&[usize], &[usize]); 22] = [
    (&[], &[]),
    (&[1], &[0]),
    (&[5], &[0]),
    (&[5], &[]),
    (&[33], &[0]),
    (&[10007], &[0]),
    (&[2, 3], &[1]),
    (&[2, 3], &[0]),
    (&[2, 3], &[0, 1]),
    (&[70, 65], &[1]),
    (&[70, 65], &[0]),
    (&[301, 3], &[0]),
    (&[3, 301], &[1]),
    (&[3, 1, 4, 1, 5], &[1, 3]),
    (&[4, 5, 6], &[0, 2]),
    (&[4, 5, 6], &[1]),
    (&[2, 3, 4, 5], &[0, 2]),
    (&[2, 3, 4, 5], &[1, 3]),
    (&[7, 600], &[0]),
    (&[0, 3], &[1]),
    (&[40, 3, 50, 11], &[0, 2]),
    (&[17, 9, 130], &[0, 2]),
];

#[test]
fn floats_match_a_plain_loop() {
    for (dims, axes) in CASES {
        let n = dims.iter().product();
        let mut v = noise(n);
        check::<f64>(dims, axes, &v, 1e-13);
        check::<f32>(dims, axes, &v, 1e-6);
        check::<f16>(dims, axes, &v, 2e-3);
        v.iter_mut().step_by(7).for_each(|x| *x = f64::NAN);
        check::<f32>(dims, axes, &v, 1e-6);
        check::<f64>(dims, axes, &v, 1e-13);
    }
}

#[test]
fn integers_wrap_in_their_own_type() {
    for (dims, axes) in CASES {
        let v: Vec<f64> = noise(dims.iter().product()).iter().map(|x| (x * 60.0).round()).collect();
        let groups = groups(dims, axes);
        macro_rules! check {
            ($t:ty) => {
                let x: Vec<$t> = v.iter().map(|v| <$t>::from_f64(*v)).collect();
                let run = |op| {
                    let mut out = vec![<$t>::default(); groups.len()];
                    reduce(op, &x, dims, axes, &mut out);
                    out
                };
                let (sum, prod, mean) = (run(Reduction::Sum), run(Reduction::Prod), run(Reduction::Mean));
                let (max, min) = (run(Reduction::Max), run(Reduction::Min));
                for (o, g) in groups.iter().enumerate() {
                    let it = || g.iter().map(|i| x[*i]);
                    let want = it().fold(0, |a: $t, b| a.wrapping_add(b));
                    assert_eq!(sum[o], want);
                    assert_eq!(prod[o], it().fold(1, |a: $t, b| a.wrapping_mul(b)));
                    if !g.is_empty() {
                        assert_eq!(mean[o], (want as i64 / g.len() as i64) as $t);
                        assert_eq!((max[o], min[o]), (it().max().unwrap(), it().min().unwrap()));
                    }
                }
            };
        }
        check!(u8);
        check!(i8);
        check!(i32);
        check!(i64);
    }
    let mut out = [0u8];
    reduce(Reduction::Sum, &[200u8, 200], &[2], &[0], &mut out);
    assert_eq!(out, [144]);
    reduce(Reduction::Mean, &[200u8, 200], &[2], &[0], &mut out);
    assert_eq!(out, [72]);
}

#[test]
fn large_and_split_sums_are_accurate() {
    let n = 3_000_001;
    let ones = vec![1f32; n];
    let mut out = [0f32];
    reduce(Reduction::Sum, &ones, &[n], &[0], &mut out);
    assert_eq!(out[0], n as f32);
    reduce(Reduction::Mean, &vec![0.1f32; n], &[n], &[0], &mut out);
    assert!((out[0] - 0.1).abs() < 3e-8);
    for (dims, axes) in
        [(&[1_000_000usize, 3][..], &[0usize][..]), (&[700, 2, 900], &[0, 2]), (&[2, 600_000], &[1])]
    {
        let mut out =
            vec![0f32; dims.iter().product::<usize>() / axes.iter().map(|a| dims[*a]).product::<usize>()];
        let x: Vec<f32> = (0..dims.iter().product()).map(|i| (i % 13) as f32).collect();
        reduce(Reduction::Sum, &x, dims, axes, &mut out);
        for (o, g) in out.iter().zip(groups(dims, axes)) {
            assert_eq!(*o, g.iter().map(|i| x[*i] as f64).sum::<f64>() as f32);
        }
    }
    let mut out = [0f32];
    reduce(Reduction::NormL2, &[1e30f32, 1e30], &[2], &[0], &mut out);
    assert!((out[0] / 1.414_213_6e30 - 1.0).abs() < 1e-6);
}

#[test]
fn sums_to_broadcast_shapes() {
    let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let to = |out_dims: &[usize]| {
        let mut out = vec![0f32; out_dims.iter().product()];
        sum_to(&x, &[2, 3, 4], out_dims, &mut out);
        out
    };
    assert_eq!(to(&[]), [276.0]);
    assert_eq!(to(&[1]), [276.0]);
    assert_eq!(to(&[4]), [60.0, 66.0, 72.0, 78.0]);
    assert_eq!(to(&[3, 1]), [60.0, 92.0, 124.0]);
    assert_eq!(to(&[2, 1, 1]), [66.0, 210.0]);
    assert_eq!(to(&[2, 3, 4]), x);
}

#[test]
fn bools_and_counts() {
    let x = [true, false, true, false, false, false];
    let mut out = [false; 2];
    reduce(Reduction::Sum, &x, &[2, 3], &[1], &mut out);
    assert_eq!(out, [true, false]);
    reduce(Reduction::Min, &x, &[2, 3], &[1], &mut out);
    assert_eq!(out, [false, false]);
    let mut n = [0i64; 2];
    count_nonzero(&x, &[2, 3], &[1], &mut n);
    assert_eq!(n, [2, 0]);
    let big: Vec<bool> = (0..200_003).map(|i| i % 3 == 0).collect();
    let mut n = [0i64];
    count_nonzero(&big, &[200_003], &[0], &mut n);
    assert_eq!(n, [66_668]);
}

#[test]
fn empty_reductions_give_the_neutral_element() {
    let mut out = [9f32; 3];
    reduce(Reduction::Sum, &[], &[0, 3], &[0], &mut out);
    assert_eq!(out, [0.0; 3]);
    reduce(Reduction::Prod, &[], &[0, 3], &[0], &mut out);
    assert_eq!(out, [1.0; 3]);
    reduce(Reduction::Mean, &[], &[0, 3], &[0], &mut out);
    assert!(out.iter().all(|v| v.is_nan()));
}
