//! Moments and distribution functions of large fixed-seed samples; bounds are about five standard errors.

use super::*;

const N: usize = 100_000;
const S: Stream = Stream { seed: 20_261_121, offset: 5 };

fn moments(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

fn expect(name: &str, x: &[f64], mean: f64, var: f64) {
    let (m, v) = moments(x);
    let se = (var / x.len() as f64).sqrt();
    assert!((m - mean).abs() < 5.0 * se, "{name}: mean {m}, expected {mean}");
    assert!((v / var - 1.0).abs() < 0.06, "{name}: variance {v}, expected {var}");
}

fn sample(f: impl Fn(&mut [f64])) -> Vec<f64> {
    let mut out = vec![0.0; N];
    f(&mut out);
    out
}

/// The largest distance between the sample's distribution function and `cdf`.
fn kolmogorov(mut x: Vec<f64>, cdf: impl Fn(f64) -> f64) {
    x.sort_by(f64::total_cmp);
    let n = x.len() as f64;
    let d = x
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let c = cdf(*v);
            (c - i as f64 / n).abs().max((c - (i + 1) as f64 / n).abs())
        })
        .fold(0.0, f64::max);
    assert!(d < 2.0 / n.sqrt(), "distance {d}");
}

/// The normal distribution function by numeric integration of the density from 0.
fn normal_cdf(x: f64) -> f64 {
    let steps = 200;
    let h = x / steps as f64;
    let density = |t: f64| (-0.5 * t * t).exp();
    let inner: f64 = (1..steps).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + (density(0.0) + density(x) + inner) * h / 3.0 / TAU.sqrt()
}

#[test]
fn continuous_distributions() {
    let wide = |x: &[f32]| x.iter().map(|v| *v as f64).collect::<Vec<_>>();
    let mut x = vec![0f32; N];
    uniform(S, &[-1.0], &[3.0], &mut x);
    expect("uniform", &wide(&x), 1.0, 16.0 / 12.0);
    kolmogorov(wide(&x), |v| (v + 1.0) / 4.0);
    normal(S, &[2.0], &[0.5], &mut x);
    expect("normal", &wide(&x), 2.0, 0.25);
    kolmogorov(wide(&x), |v| normal_cdf((v - 2.0) / 0.5));
    let (even, odd): (Vec<f64>, Vec<f64>) =
        wide(&x).chunks_exact(64).map(|g| (g[3] - 2.0, g[19] - 2.0)).unzip();
    let cov = even.iter().zip(&odd).map(|(a, b)| a * b).sum::<f64>() / even.len() as f64;
    assert!(cov.abs() < 0.25 * 5.0 / (even.len() as f64).sqrt(), "cosine and sine are correlated: {cov}");
    kolmogorov(sample(|o| normal(S, &[0.0], &[1.0], o)), normal_cdf);
    kolmogorov(sample(|o| exponential(S, &[4.0], o)), |v| 1.0 - (-4.0 * v).exp());
    kolmogorov(sample(|o| gamma(S, &[1.0], &[2.0], o)), |v| 1.0 - (-v / 2.0).exp());
    kolmogorov(sample(|o| gamma(S, &[2.0], &[1.0], o)), |v| 1.0 - (-v).exp() * (1.0 + v));
    for (a, b) in [(0.3, 2.0), (3.0, 2.0), (50.0, 0.1)] {
        expect("gamma", &sample(|o| gamma(S, &[a], &[b], o)), a * b, a * b * b);
    }
    let mut one = [0f32];
    gamma(S, &[-1.0], &[1.0], &mut one);
    assert!(one[0].is_nan());
}

#[test]
fn discrete_distributions() {
    for lam in [0.0, 0.5, 3.0, 11.9, 12.1, 80.0, 1e4] {
        let x = sample(|o| poisson(S, &[lam], o));
        if lam == 0.0 {
            assert!(x.iter().all(|v| *v == 0.0));
            continue;
        }
        expect("poisson", &x, lam, lam);
        assert!(x.iter().all(|v| *v >= 0.0 && v.fract() == 0.0));
        if lam > 100.0 {
            continue;
        }
        // Frequencies of every value against the probability.
        let mut p = (-lam).exp();
        for k in 0..(3.0 * lam + 10.0) as usize {
            let seen = x.iter().filter(|v| **v == k as f64).count() as f64 / N as f64;
            assert!((seen - p).abs() < 5.0 * (p / N as f64).sqrt() + 1e-4, "poisson({lam}) {k}: {seen} {p}");
            p *= lam / (k + 1) as f64;
        }
    }
    expect("nb", &sample(|o| negative_binomial(S, &[3.0], &[0.25], o)), 9.0, 36.0);
    expect("gnb", &sample(|o| generalized_negative_binomial(S, &[3.0], &[0.25], o)), 3.0, 5.25);
    expect("gnb0", &sample(|o| generalized_negative_binomial(S, &[3.0], &[0.0], o)), 3.0, 3.0);
    expect("bernoulli", &sample(|o| bernoulli(S, &[0.3], o)), 0.3, 0.21);
    let mut r = vec![0i32; N];
    randint(S, -5, 5, &mut r);
    for v in -5..5 {
        let seen = r.iter().filter(|x| **x == v).count() as f64;
        assert!((seen - N as f64 / 10.0).abs() < 500.0);
    }
    assert!(r.iter().all(|v| (-5..5).contains(v)));
    let mut r = vec![0i64; 100];
    randint(S, i64::MIN, i64::MAX, &mut r);
    assert!(r.iter().any(|v| *v < 0) && r.iter().any(|v| *v > 0));
}

#[test]
fn parameters_serve_equal_runs() {
    let mut x = vec![0f32; 2000];
    uniform(S, &[0.0, 10.0], &[1.0, 11.0], &mut x);
    assert!(
        x[..1000].iter().all(|v| (0.0..1.0).contains(v))
            && x[1000..].iter().all(|v| (10.0..11.0).contains(v))
    );
    normal(S, &[0.0, 100.0], &[1.0, 1.0], &mut x);
    assert!(x[..1000].iter().all(|v| v.abs() < 8.0) && x[1000..].iter().all(|v| (v - 100.0).abs() < 8.0));
    poisson(S, &[0.0, 1000.0], &mut x);
    assert!(x[..1000].iter().all(|v| *v == 0.0) && x[1000..].iter().all(|v| *v > 700.0));
    let mut none: [f32; 0] = [];
    uniform(S, &[0.0], &[1.0], &mut none);
}

#[test]
fn masks_and_choices() {
    let mut mask = vec![0f32; N];
    dropout_mask(S, 0.25, &mut mask);
    let kept = mask.iter().filter(|v| **v != 0.0).count() as f64 / N as f64;
    assert!((kept - 0.75).abs() < 0.008 && mask.iter().all(|v| *v == 0.0 || *v == 1.0 / 0.75));
    dropout_mask(S, 0.0, &mut mask);
    assert!(mask.iter().all(|v| *v == 1.0));
    dropout_mask(S, 1.0, &mut mask);
    assert!(mask.iter().all(|v| v.is_nan()));
    let mut shared = vec![0f32; 60];
    dropout_mask_shared(S, 0.5, &[4, 5, 3], &[1], &mut shared);
    for i in 0..60 {
        assert_eq!(shared[i], shared[i / 15 * 15 + i % 3]);
    }
    assert!(shared.contains(&0.0) && shared.contains(&2.0));
    let (mut classes, mut logs) = (vec![0i32; 2 * N], vec![0f32; 2 * N]);
    multinomial(S, &[0f32, 0.25, 0.75, 0.0, 1.0, 0.0, 0.0, 0.0], 4, N, &mut classes, Some(&mut logs));
    let ones = classes[..N].iter().filter(|c| **c == 1).count() as f64 / N as f64;
    assert!((ones - 0.25).abs() < 0.008 && classes[..N].iter().all(|c| *c == 1 || *c == 2));
    assert!(classes[N..].iter().all(|c| *c == 0) && logs[N..].iter().all(|l| *l == 0.0));
    assert!(
        classes.iter().zip(&logs).take(N).all(|(c, l)| (l.exp() - 0.25 * (2 * c - 1) as f32).abs() < 1e-6)
    );
}

#[test]
fn permutations_are_uniform() {
    let mut p = permutation(S, 1000);
    p.sort_unstable();
    assert!(p.iter().enumerate().all(|(i, v)| i == *v));
    assert_eq!(permutation(S, 0), []);
    let mut seen = [0usize; 6];
    for k in 0..6000 {
        let p = permutation(Stream::new(7, k), 3);
        seen[p[0] * 2 + (p[1] > p[2]) as usize] += 1;
    }
    assert!(seen.iter().all(|c| (850..1150).contains(c)), "{seen:?}");
    let mut out = [0; 6];
    shuffle(S, &[1, 1, 2, 2, 3, 3], 3, &mut out);
    assert!(out.chunks(2).all(|r| r[0] == r[1]));
}
