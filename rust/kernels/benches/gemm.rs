//! Matrix products, beside the `gemm` crate on its own threads.

use divan::counter::ItemsCount;
use mxrs_kernels::gemm::{Product, gemm};

fn main() {
    divan::main();
}

/// Rows, columns, depth; the last columns say whether b is stored transposed.
const SIZES: [(usize, usize, usize, bool); 7] = [
    (1024, 1024, 1024, false),
    (1024, 1024, 1024, true),
    (256, 256, 256, false),
    (64, 64, 64, false),
    (128, 500, 800, true),
    (1, 4096, 1024, true),
    (1, 4096, 1024, false),
];

fn data(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect()
}

#[divan::bench(args = SIZES)]
fn ours(bencher: divan::Bencher, (m, n, k, transb): (usize, usize, usize, bool)) {
    let (a, b, mut c) = (data(m * k), data(k * n), vec![0f32; m * n]);
    let product = Product::dense(false, transb, m, n, k);
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| gemm(&product, 1.0, &a, &b, 0.0, &mut c));
}

#[divan::bench(args = SIZES)]
fn gemm_crate(bencher: divan::Bencher, (m, n, k, transb): (usize, usize, usize, bool)) {
    let (a, b, mut c) = (data(m * k), data(k * n), vec![0f32; m * n]);
    let (b_col, b_row) = if transb { (k as isize, 1) } else { (1, n as isize) };
    let threads = ::gemm::Parallelism::Rayon(mxrs_lanes::count());
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| {
        // SAFETY: pointers and strides describe the three matrices above.
        unsafe {
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            let (k_step, n_step) = (k as isize, n as isize);
            ::gemm::gemm(
                m, n, k, c, 1, n_step, false, a, 1, k_step, b, b_col, b_row, 0.0, 1.0, false, false, false,
                threads,
            );
        }
    });
}
