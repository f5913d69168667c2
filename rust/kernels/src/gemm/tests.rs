//! Products against the three plain loops.

use super::micro::{AllKernels, DOT_ROWS, Dots, Tile};
use super::*;

/// Small whole numbers: products and sums of them are exact in every type.
fn numbers(n: usize, seed: usize) -> Vec<i64> {
    (0..n).map(|i| ((i * 7919 + seed * 104729) % 13) as i64 % 7 - 3).collect()
}

fn cast<T: Elem>(x: &[i64]) -> Vec<T> {
    x.iter().map(|v| T::from_i64(*v)).collect()
}

fn check<T: Gemm>(p: &Product, alpha: i64, beta: i64, seed: usize) {
    let rows = |r: usize, step: usize| r * step;
    let a = numbers(rows(if p.transa { p.k } else { p.m }, p.lda), seed);
    let b = numbers(rows(if p.transb { p.n } else { p.k }, p.ldb), seed + 1);
    let c = numbers(rows(p.m, p.ldc), seed + 2);
    let mut expected = c.clone();
    for i in 0..p.m {
        for j in 0..p.n {
            let at = |q: usize| {
                let x = if p.transa { a[q * p.lda + i] } else { a[i * p.lda + q] };
                let y = if p.transb { b[j * p.ldb + q] } else { b[q * p.ldb + j] };
                x * y
            };
            let sum: i64 = (0..p.k).map(at).sum();
            expected[i * p.ldc + j] = alpha * sum + beta * c[i * p.ldc + j];
        }
    }
    let mut got = cast::<T>(&c);
    if beta == 0 && T::DTYPE.is_float() {
        // C must not be read at all.
        (0..p.m).for_each(|i| got[i * p.ldc..i * p.ldc + p.n].fill(T::from_f64(f64::NAN)));
    }
    gemm(p, T::from_i64(alpha), &cast::<T>(&a), &cast::<T>(&b), T::from_i64(beta), &mut got);
    assert_eq!(got, cast::<T>(&expected), "{p:?} in {}", T::DTYPE);
}

fn check_all<T: Gemm>(sizes: &[(usize, usize, usize)]) {
    for &(m, n, k) in sizes {
        for (transa, transb) in [(false, false), (false, true), (true, false), (true, true)] {
            let dense = Product::dense(transa, transb, m, n, k);
            check::<T>(&dense, 1, 0, m + n);
            let gaps = Product { lda: dense.lda + 3, ldb: dense.ldb + 5, ldc: dense.ldc + 2, ..dense };
            check::<T>(&gaps, 2, -1, m * n + k);
        }
    }
}

const SIZES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (0, 3, 2),
    (3, 0, 2),
    (2, 3, 0),
    (9, 9, 0),
    (1, 70, 9),
    (8, 33, 65),
    (70, 1, 40),
    (65, 7, 100),
    (9, 9, 9),
    (14, 32, 17),
    (15, 33, 31),
    (29, 65, 5),
    (64, 64, 64),
    (37, 100, 20),
    (100, 35, 19),
];

#[test]
fn every_type() {
    check_all::<f32>(&SIZES);
    check_all::<f64>(&SIZES);
    check_all::<i32>(&SIZES);
    check_all::<i64>(&SIZES);
    // Sums of the narrow types stay small enough to be exact, or wrap alike.
    check_all::<f16>(&SIZES[..12]);
    check_all::<i8>(&SIZES[..12]);
    check_all::<u8>(&SIZES[..12]);
}

#[test]
fn several_blocks_in_every_direction() {
    mxrs_lanes::set_count(3);
    check_all::<f32>(&[(130, 410, 900), (4200, 20, 12), (20, 4300, 12)]);
    check_all::<f64>(&[(130, 210, 400)]);
    // Thin, with enough work for several lanes.
    check_all::<f32>(&[(3, 3000, 300), (3000, 5, 300), (1, 1000, 1000)]);
}

#[test]
fn rounding_does_not_depend_on_the_lanes() {
    let (m, n, k) = (150, 170, 1000);
    let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.3).cos()).collect();
    let run = |lanes| {
        mxrs_lanes::set_count(lanes);
        let mut c = vec![0f32; m * n];
        gemm(&Product::dense(false, false, m, n, k), 1.0, &a, &b, 0.0, &mut c);
        c
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn batches() {
    for (batch, m, n, k) in [(0, 2, 2, 2), (1, 5, 6, 7), (13, 10, 12, 9), (3, 70, 80, 60)] {
        let (a, b) = (cast::<f64>(&numbers(batch * m * k, 1)), cast::<f64>(&numbers(k * n, 2)));
        let p = Product::dense(false, false, m, n, k);
        let mut together = vec![0.0; batch * m * n];
        batch_gemm(batch, &p, 1.0, (&a, &b), 0.0, &mut together, (m * k, 0, m * n));
        let mut single = vec![0.0; batch * m * n];
        for i in 0..batch {
            gemm(&p, 1.0, &a[i * m * k..], &b, 0.0, &mut single[i * m * n..(i + 1) * m * n]);
        }
        assert_eq!(together, single);
    }
}

#[test]
#[should_panic(expected = "gemm: b of 4 x 5 (row step 5) does not fit 19 elements")]
fn short_slices_are_refused() {
    gemm(&Product::dense(false, false, 3, 5, 4), 1.0, &[0f32; 12], &[0.0; 19], 0.0, &mut [0.0; 15]);
}

#[test]
fn bias() {
    let mut c: Vec<f32> = vec![1.0; 12];
    add_to_columns(&mut c, &[0.0, 1.0, 2.0, 3.0]);
    assert_eq!(c, [1.0, 2.0, 3.0, 4.0].repeat(3));
    let mut c: Vec<f64> = vec![0.0; 12];
    add_to_rows(&mut c, &[1.0, 2.0], 3);
    assert_eq!(c, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0].repeat(2));
    add_to_columns::<f32>(&mut [], &[]);
}

/// Every instruction set of this machine, not only the best.
fn check_tables<T: AllKernels>() {
    let depth = 37;
    for kernels in T::all_kernels() {
        let nr = kernels.nr;
        let b: Vec<T> = cast(&numbers(depth * nr, 5));
        for rows in 1..=kernels.mr {
            let a: Vec<T> = cast(&numbers(depth * rows, 6));
            for cols in [1, nr / 2, nr / 2 + 1, nr - 1, nr] {
                let mut c = vec![T::from_i64(1); rows * nr];
                let tile = Tile {
                    rows,
                    cols,
                    depth,
                    a: a.as_ptr(),
                    b: b.as_ptr(),
                    b_step: nr,
                    c: c.as_mut_ptr(),
                    c_step: nr,
                    alpha: T::from_i64(2),
                    beta: T::from_i64(3),
                };
                // SAFETY: the panels and C are as long as the tile says.
                unsafe { (kernels.tile)(&tile) };
                for i in 0..rows {
                    for j in 0..nr {
                        let sum: f64 =
                            (0..depth).map(|p| a[p * rows + i].to_f64() * b[p * nr + j].to_f64()).sum();
                        let expected = if j < cols { 2.0 * sum + 3.0 } else { 1.0 };
                        assert_eq!(c[i * nr + j].to_f64(), expected, "tile {rows} x {cols} of width {nr}");
                    }
                }
            }
        }
        for (rows, depth) in [(1, 0), (1, 37), (2, 64), (3, 33), (5, 130), (8, 100)] {
            let x: Vec<T> = cast(&numbers(rows * depth, 7));
            let y: Vec<T> = cast(&numbers(depth, 8));
            // SAFETY: `x` has `rows` rows of `depth`, `y` is `depth` long.
            let got: [T; DOT_ROWS] =
                unsafe { (kernels.dots)(&Dots { rows, depth, x: x.as_ptr(), x_step: depth, y: y.as_ptr() }) };
            for r in 0..rows {
                let sum: f64 = (0..depth).map(|p| x[r * depth + p].to_f64() * y[p].to_f64()).sum();
                assert_eq!(got[r].to_f64(), sum);
            }
        }
    }
}

#[test]
fn every_instruction_set() {
    check_tables::<f32>();
    check_tables::<f64>();
}
