//! Reductions, softmax, normalization and random numbers at sizes of real networks.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mxrs_kernels::{norm, norm_rows, philox::Stream, reduce, sample, softmax};

fn main() {
    divan::main();
}

fn data(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect()
}

#[divan::bench(args = [10, 1000, 1_000_000])]
fn sum_all(b: Bencher, n: usize) {
    let (x, mut out) = (data(n), [0f32]);
    b.counter(ItemsCount::new(n))
        .bench_local(|| reduce::reduce(reduce::Reduction::Sum, black_box(&x), &[n], &[0], &mut out));
}

#[divan::bench(args = [(5, 2), (1000, 1000), (100_000, 10), (10, 100_000)])]
fn sum_to_columns(b: Bencher, (rows, cols): (usize, usize)) {
    let (x, mut out) = (data(rows * cols), vec![0f32; cols]);
    b.counter(ItemsCount::new(rows * cols))
        .bench_local(|| reduce::sum_to(black_box(&x), &[rows, cols], &[cols], &mut out));
}

#[divan::bench(args = [(1, 10, 1), (128, 1000, 1), (32, 21, 1024)])]
fn softmax_forward(b: Bencher, around: (usize, usize, usize)) {
    let x = data(around.0 * around.1 * around.2);
    let mut out = x.clone();
    b.counter(ItemsCount::new(x.len()))
        .bench_local(|| softmax::softmax(softmax::Kind::Softmax, black_box(&x), around, 1.0, None, &mut out));
}

#[divan::bench(args = [(32, 64, 3136), (25_088, 256, 1), (32, 512, 49)])]
fn batch_norm_train(b: Bencher, around: (usize, usize, usize)) {
    let x = data(around.0 * around.1 * around.2);
    let mut out = x.clone();
    let (mut mean, mut var, mut rstd) = (vec![0f32; around.1], vec![0f32; around.1], vec![0f32; around.1]);
    b.counter(ItemsCount::new(x.len())).bench_local(|| {
        norm::batch_moments(black_box(&x), around, &mut mean, &mut var);
        norm::inverse_std(&var, 1e-5, &mut rstd);
        norm::batch_normalize(&x, around, &mean, &rstd, None, None, &mut out);
    });
}

#[divan::bench(args = [(4096, 768)])]
fn layer_norm(b: Bencher, (rows, len): (usize, usize)) {
    let x = data(rows * len);
    let (mut out, g, beta) = (x.clone(), vec![1f32; len], vec![0f32; len]);
    let (mut m, mut s) = (vec![0f32; rows], vec![0f32; rows]);
    let (center, affine) = (norm_rows::Center::Mean, norm_rows::Affine::PerElement);
    b.counter(ItemsCount::new(x.len())).bench_local(|| {
        norm_rows::rows_normalize(
            black_box(&x),
            len,
            1e-5,
            center,
            affine,
            &g,
            &beta,
            &mut out,
            &mut m,
            &mut s,
        )
    });
}

#[divan::bench(args = [100, 1_000_000])]
fn normal(b: Bencher, n: usize) {
    let mut out = vec![0f32; n];
    b.counter(ItemsCount::new(n))
        .bench_local(|| sample::normal(Stream::new(1, 2), &[0.0], &[1.0], black_box(&mut out)));
}

#[divan::bench(args = [100, 1_000_000])]
fn uniform(b: Bencher, n: usize) {
    let mut out = vec![0f32; n];
    b.counter(ItemsCount::new(n))
        .bench_local(|| sample::uniform(Stream::new(1, 2), &[0.0], &[1.0], black_box(&mut out)));
}
