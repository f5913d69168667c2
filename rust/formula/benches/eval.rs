//! The hot path of the project: formulas over tiny arrays, and at memory speed over large ones.

use divan::{Bencher, counter::ItemsCount};
use mxrs_base::DType;
use mxrs_formula::{Args, E, Formula, Operand};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [10, 4096, 1 << 20];

fn run(bencher: Bencher, n: usize, params: &'static [f64], names: &[&'static str], f: impl Fn(&Args) -> E) {
    let f = Formula::build(2, names, f);
    let x: Vec<f32> = (0..n).map(|i| (i % 100) as f32 * 0.05 - 2.0).collect();
    let y = x.clone();
    let mut out = vec![0.0f32; n];
    let ins = [&x, &y].map(|v| Operand { ptr: v.as_ptr().cast(), strides: &[1] });
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        // SAFETY: n elements each.
        unsafe {
            divan::black_box(&f).eval(DType::F32, params, &[n], &ins, out.as_mut_ptr().cast(), DType::F32)
        }
    });
}

#[divan::bench(args = SIZES)]
fn add(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0) + a.x(1));
}

#[divan::bench(args = SIZES)]
fn add_scalar(bencher: Bencher, n: usize) {
    run(bencher, n, &[1.5], &["s"], |a| a.x(0) + a.param("s"));
}

#[divan::bench(args = SIZES)]
fn exp(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0).exp());
}

#[divan::bench(args = SIZES)]
fn tanh(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0).tanh());
}

#[divan::bench(args = SIZES)]
fn erf(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0).erf());
}

#[divan::bench(args = SIZES)]
fn sin(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0).sin());
}

#[divan::bench(args = SIZES)]
fn pow(bencher: Bencher, n: usize) {
    run(bencher, n, &[], &[], |a| a.x(0).pow(a.x(1)));
}

#[divan::bench(args = SIZES)]
fn swish_chain(bencher: Bencher, n: usize) {
    run(bencher, n, &[1.5], &["beta"], |a| a.x(0) * (a.x(0) * a.param("beta")).sigmoid() + a.x(1));
}

/// A hundred calls of ten elements: one call is shorter than the timer's step.
#[divan::bench]
fn hundred_tiny_adds(bencher: Bencher) {
    let f = Formula::build(2, &[], |a| a.x(0) + a.x(1));
    let (x, mut out) = ([1.0f32; 10], [0.0f32; 10]);
    let ins = [Operand { ptr: x.as_ptr().cast(), strides: &[1] }; 2];
    bencher.counter(ItemsCount::new(100usize)).bench_local(|| {
        for _ in 0..100 {
            let (f, ins) = divan::black_box((&f, &ins));
            // SAFETY: ten elements each.
            unsafe { f.eval(DType::F32, &[], &[10], ins, out.as_mut_ptr().cast(), DType::F32) };
            divan::black_box(&mut out);
        }
    });
}

/// A bias added to rows.
#[divan::bench(args = [3, 256])]
fn add_rows(bencher: Bencher, width: usize) {
    let f = Formula::build(2, &[], |a| a.x(0) + a.x(1));
    let rows = 65536 / width;
    let (x, b) = (vec![1.0f32; rows * width], vec![2.0f32; width]);
    let mut out = vec![0.0f32; rows * width];
    let ins = [
        Operand { ptr: x.as_ptr().cast(), strides: &[width, 1] },
        Operand { ptr: b.as_ptr().cast(), strides: &[0, 1] },
    ];
    bencher.counter(ItemsCount::new(rows * width)).bench_local(|| {
        // SAFETY: arrays were made for these extents and strides.
        unsafe { f.eval(DType::F32, &[], &[rows, width], &ins, out.as_mut_ptr().cast(), DType::F32) }
    });
}
