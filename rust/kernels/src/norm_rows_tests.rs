//! Row norms against their definitions, gradients against numeric slopes.

use super::*;
use mxrs_base::f16;

fn values(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| (((i + seed) * 7919 + 13) % 101) as f64 / 40.0 - 1.2).collect()
}

/// Checks `grad` as the slope of sum(head * f(x)) at every element.
fn check_slope(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], head: &[f64], grad: &[f64]) {
    let total = |x: &[f64]| f(x).iter().zip(head).map(|(a, b)| a * b).sum::<f64>();
    for i in 0..x.len() {
        let (mut up, mut down) = (x.to_vec(), x.to_vec());
        up[i] += 1e-5;
        down[i] -= 1e-5;
        let slope = (total(&up) - total(&down)) / 2e-5;
        assert!((slope - grad[i]).abs() < 1e-7 * (1.0 + slope.abs()), "element {i}: {slope} {}", grad[i]);
    }
}

fn forward<T: Float>(x: &[T], rows: usize, center: Center, affine: Affine, g: &[T::R], b: &[T::R]) -> Vec<T> {
    let (mut y, mut m) = (x.to_vec(), vec![T::R::ZERO; rows]);
    let mut s = m.clone();
    rows_normalize(x, x.len() / rows.max(1), 1e-3, center, affine, g, b, &mut y, &mut m, &mut s);
    y
}

#[test]
fn rows_match_the_definition_in_every_type() {
    fn run<T: Float>(tolerance: f64) {
        for (rows, len) in [(1, 1), (3, 5), (4, 33), (2, 5000), (130, 17)] {
            for center in [Center::Mean, Center::Zero] {
                for affine in [Affine::PerElement, Affine::PerRow(rows.min(2))] {
                    let x: Vec<T> = values(rows * len, 0).iter().map(|v| T::from_f64(*v)).collect();
                    let width = if affine == Affine::PerElement { len } else { rows.min(2) };
                    let g: Vec<T::R> = values(width, 3).iter().map(|v| T::R::of(*v)).collect();
                    let b: Vec<T::R> = values(width, 7).iter().map(|v| T::R::of(*v)).collect();
                    let y = forward(&x, rows, center, affine, &g, &b);
                    for r in 0..rows {
                        let row: Vec<f64> = x[r * len..][..len].iter().map(|v| v.to_f64()).collect();
                        let mean =
                            if center == Center::Mean { row.iter().sum::<f64>() / len as f64 } else { 0.0 };
                        let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len as f64;
                        for i in 0..len {
                            let k = if affine == Affine::PerElement { i } else { r % rows.min(2) };
                            let want = (row[i] - mean) / (var + 1e-3).sqrt() * g[k].wide() + b[k].wide();
                            let got = y[r * len + i].to_f64();
                            assert!((got - want).abs() < tolerance, "{rows}x{len} {center:?}: {got} {want}");
                        }
                    }
                }
            }
        }
    }
    run::<f64>(1e-12);
    run::<f32>(3e-6);
    run::<f16>(5e-3);
    let (mut m, mut s, mut y) = ([0f32], [0f32], [0f32; 3]);
    rows_normalize(
        &[1f32, 2., 3.],
        3,
        1e-5,
        Center::Mean,
        Affine::PerElement,
        &[1.; 3],
        &[0.; 3],
        &mut y,
        &mut m,
        &mut s,
    );
    assert!((y[2] - 1.2247356).abs() < 1e-6 && m[0] == 2.0 && (s[0] - 0.81650275).abs() < 1e-6);
}

#[test]
fn row_gradients_are_slopes() {
    for (rows, len) in [(1, 2), (3, 5), (70, 3), (2, 20)] {
        for center in [Center::Mean, Center::Zero] {
            for affine in [Affine::PerElement, Affine::PerRow(rows.min(2))] {
                let width = if affine == Affine::PerElement { len } else { rows.min(2) };
                let (x, dy) = (values(rows * len, 0), values(rows * len, 40));
                let (g, b) = (values(width, 3), values(width, 9));
                let (mut m, mut s, mut y, mut dx) = (vec![0.0; rows], vec![0.0; rows], x.clone(), x.clone());
                let (mut dg, mut db) = (g.clone(), b.clone());
                rows_normalize(&x, len, 1e-3, center, affine, &g, &b, &mut y, &mut m, &mut s);
                rows_grad(&x, &dy, len, center, affine, &g, &m, &s, &mut dx, &mut dg, &mut db);
                check_slope(|x| forward(x, rows, center, affine, &g, &b), &x, &dy, &dx);
                check_slope(|g| forward(&x, rows, center, affine, g, &b), &g, &dy, &dg);
                check_slope(|b| forward(&x, rows, center, affine, &g, b), &b, &dy, &db);
            }
        }
    }
}

#[test]
fn l2_normalization_and_its_gradient() {
    for around @ (outer, n, inner) in [(1, 2, 1), (2, 35, 1), (2, 3, 5), (1, 2, 70)] {
        let (x, dy) = (values(outer * n * inner, 1), values(outer * n * inner, 50));
        let run = |x: &[f64]| {
            let (mut y, mut norm) = (x.to_vec(), vec![0.0; outer * inner]);
            l2_normalize(x, around, 1e-10, &mut y, &mut norm);
            (y, norm)
        };
        let (y, norm) = run(&x);
        for (i, v) in y.iter().enumerate() {
            let at = |r: usize| x[(i / (n * inner) * n + r) * inner + i % inner];
            let want = x[i] / ((0..n).map(|r| at(r) * at(r)).sum::<f64>() + 1e-10).sqrt();
            assert!((v - want).abs() < 1e-14);
        }
        let mut dx = x.clone();
        l2_grad(&y, &norm, &dy, around, &mut dx);
        check_slope(|x| run(x).0, &x, &dy, &dx);
    }
    let (mut y, mut norm) = ([0f32; 2], [0f32]);
    l2_normalize(&[1e-5f32, 0.0], (1, 2, 1), 1e-10, &mut y, &mut norm);
    assert!((y[0] - 0.70710677).abs() < 1e-6);
}

#[test]
fn lrn_and_its_gradient() {
    let how = Lrn { alpha: 1.0, beta: 1.0, knorm: 1.0, nsize: 4 };
    let x: Vec<f32> = (0..5).map(|i| i as f32).collect();
    let (mut y, mut scale) = ([0f32; 5], [0f32; 5]);
    lrn(&x, (1, 5, 1), &how, &mut y, &mut scale);
    let want = [0.0, 0.44444445, 0.44444445, 0.36363637, 0.55172414];
    assert!(y.iter().zip(want).all(|(y, w)| (y - w).abs() < 1e-6), "{y:?}");
    let how = Lrn { alpha: 0.7, beta: 0.75, knorm: 2.0, nsize: 3 };
    for around @ (outer, c, inner) in [(1, 1, 1), (2, 5, 3), (1, 4, 70)] {
        let (x, dy) = (values(outer * c * inner, 2), values(outer * c * inner, 60));
        let run = |x: &[f64]| {
            let (mut y, mut scale) = (x.to_vec(), x.to_vec());
            lrn(x, around, &how, &mut y, &mut scale);
            (y, scale)
        };
        let (y, scale) = run(&x);
        let mut dx = x.clone();
        lrn_grad(&x, &y, &scale, &dy, around, &how, &mut dx);
        check_slope(|x| run(x).0, &x, &dy, &dx);
    }
}

#[test]
fn swapping_axes_twice_is_the_identity() {
    let x = values(2 * 19 * 35, 0);
    let (mut t, mut back) = (x.clone(), x.clone());
    swap_axis(&x, (2, 19, 35), &mut t);
    assert_eq!(t[19 * 3 + 4], x[35 * 4 + 3]);
    swap_axis(&t, (2, 35, 19), &mut back);
    assert_eq!(x, back);
}
