//! Factorisations by what they promise: products of the factors are the matrices, solutions fulfil their systems.

use crate::shaders::elem::Span;
use crate::shaders::solve::{Stack, Triangle, launch_cholesky, launch_factors, launch_solve};
use crate::shaders::testing::*;
use mxrs_base::DType;
use mxrs_gpu::{Buffer, Device};

fn span(buffer: &Buffer) -> Span<'_> {
    Span::new(buffer, DType::F32)
}

/// Product of (n x n) and (n x m) matrices, `batch` times, of what `a` and `b` give for (matrix, row, column).
fn product(
    (batch, n, m): (usize, usize, usize),
    a: impl Fn(usize, usize, usize) -> f32,
    b: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(batch * n * m);
    for at in 0..batch * n * m {
        let (k, i, j) = (at / m / n, at / m % n, at % m);
        out.push((0..n).map(|l| a(k, i, l) as f64 * b(k, l, j) as f64).sum::<f64>() as f32);
    }
    out
}

/// Matrices with a heavy diagonal, whose rows are then turned by one place so that pivots are needed.
fn matrices(batch: usize, n: usize, turn: usize) -> Vec<f32> {
    let mut x = numbers(batch * n * n, 3);
    x.iter_mut().for_each(|v| *v /= (n as f32).sqrt());
    for (k, i) in (0..batch).flat_map(|k| (0..n).map(move |i| (k, i))) {
        x[(k * n + i) * n + (i + turn) % n] += 3.0;
    }
    x
}

const SIZES: [(usize, usize); 4] = [(3, 1), (2, 32), (2, 71), (1, 130)];

#[test]
fn cholesky_and_triangular_systems() {
    on_devices(|d| {
        for (batch, n) in SIZES {
            let x = matrices(batch, n, 0);
            let at = |k: usize, i: usize, j: usize| x[(k * n + i) * n + j];
            let a = product((batch, n, n), at, |k, i, j| at(k, j, i));
            let l = upload(d, &a);
            launch_cholesky(d, span(&l), batch, n, "cholesky").unwrap();
            let l: Vec<f32> = download(d, &l);
            let low = |k: usize, i: usize, j: usize| if j <= i { l[(k * n + i) * n + j] } else { 0.0 };
            let back = product((batch, n, n), low, |k, i, j| low(k, j, i));
            assert_close(&back, &a, 1e-5, &format!("L L^T of {n}"));

            let y = numbers(batch * n * 5, 4);
            for (lower, turned) in [(true, false), (false, true)] {
                let (a, to) = (upload(d, &l), upload(d, &y));
                let stack = Stack::dense(span(&a), n, n);
                let stack = if turned { stack.transposed() } else { stack };
                let triangle = Triangle { lower, unit: false };
                launch_solve(d, (stack, triangle), Stack::dense(span(&to), n, 5), (batch, n, 5), "solve")
                    .unwrap();
                let x: Vec<f32> = download(d, &to);
                let of = |k, i, j| if turned { low(k, j, i) } else { low(k, i, j) };
                let back = product((batch, n, 5), of, |k, i, j| x[(k * n + i) * 5 + j]);
                assert_close(&back, &y, 1e-5, &format!("a system of {n}, lower {lower}"));
            }
        }
    });
}

fn one(d: &Device, run: impl Fn(Span), n: usize) -> Vec<f32> {
    let y = upload(d, &vec![0f32; n]);
    run(span(&y));
    download(d, &y)
}

#[test]
fn elimination_with_pivots() {
    on_devices(|d| {
        for (batch, n) in SIZES {
            let a = matrices(batch, n, 1);
            let x = upload(d, &a);
            let factors = launch_factors(d, span(&x), batch, n, "factors").unwrap();
            let y = numbers(batch * n * 4, 5);
            let to = upload(d, &y);
            factors.solve(d, span(&to), 4, "solve").unwrap();
            let x: Vec<f32> = download(d, &to);
            let of = |k: usize, i: usize, j: usize| a[(k * n + i) * n + j];
            let back = product((batch, n, 4), of, |k, i, j| x[(k * n + i) * 4 + j]);
            assert_close(&back, &y, 1e-5, &format!("a system of {n}"));

            let whole = one(d, |y| factors.determinants(d, y, "determinants").unwrap(), batch);
            let signs = one(d, |y| factors.signs(d, y, "signs").unwrap(), batch);
            let logs = one(d, |y| factors.logs(d, y, "logarithms").unwrap(), batch);
            for ((whole, sign), log) in whole.iter().zip(&signs).zip(&logs) {
                assert!(sign.abs() == 1.0 && log.is_finite());
                let close = (whole - sign * log.exp()).abs() <= 1e-4 * whole.abs();
                assert!(close || !whole.is_finite() || *whole == 0.0, "{whole} is not {sign} e^{log}");
            }
        }
        let singular = upload(d, &[1f32, 2.0, 2.0, 4.0, 0.0, 1.0, 1.0, 0.0]);
        let factors = launch_factors(d, span(&singular), 2, 2, "factors").unwrap();
        assert_eq!(one(d, |y| factors.determinants(d, y, "determinants").unwrap(), 2), [0.0, -1.0]);
        assert_eq!(one(d, |y| factors.logs(d, y, "logarithms").unwrap(), 2), [f32::NEG_INFINITY, 0.0]);
    });
}
