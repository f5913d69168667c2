//! Convolutions (forward, and all gradients with it) and pooling, of sizes known from LeNet, ResNet and MobileNet.

use mxrs_kernels::conv::*;
use mxrs_kernels::pool::*;

fn main() {
    divan::main();
}

/// Batch, channels, extent, filters, kernel, stride, pad, groups.
type Sizes = (usize, usize, usize, usize, usize, usize, usize, usize);

const SIZES: [Sizes; 10] = [
    (128, 1, 28, 20, 5, 1, 0, 1),
    (128, 20, 12, 50, 5, 1, 0, 1),
    (8, 64, 56, 64, 3, 1, 1, 1),
    (8, 128, 28, 128, 3, 1, 1, 1),
    (8, 256, 14, 256, 3, 1, 1, 1),
    (8, 512, 7, 512, 3, 1, 1, 1),
    (8, 64, 56, 128, 3, 2, 1, 1),
    (8, 256, 14, 512, 1, 1, 0, 1),
    (8, 32, 56, 32, 3, 1, 1, 32),
    (8, 3, 224, 64, 7, 2, 3, 1),
];

fn geom((batch, c, extent, f, k, s, p, groups): Sizes) -> ConvGeom {
    let window = Window { kernel: &[k, k], stride: &[s, s], dilate: &[1, 1], pad: &[p, p] };
    ConvGeom::new(batch, (c, f, groups), &[extent, extent], window).expect("valid sizes")
}

fn data(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect()
}

#[divan::bench(args = SIZES)]
fn forward(bencher: divan::Bencher, sizes: Sizes) {
    let g = geom(sizes);
    let (x, w, mut y) = (data(g.data_len()), data(g.weight_len()), vec![0f32; g.out_len()]);
    let bias = data(g.filters);
    bencher.bench_local(|| conv_forward(&g, &x, &w, Some(&bias), false, &mut y, UNHEARD));
}

#[divan::bench(args = SIZES)]
fn data_gradient(bencher: divan::Bencher, sizes: Sizes) {
    let g = geom(sizes);
    let (dy, w, mut dx) = (data(g.out_len()), data(g.weight_len()), vec![0f32; g.data_len()]);
    bencher.bench_local(|| conv_data_grad(&g, &dy, &w, false, &mut dx));
}

#[divan::bench(args = SIZES)]
fn weight_gradient(bencher: divan::Bencher, sizes: Sizes) {
    let g = geom(sizes);
    let (x, dy, mut dw) = (data(g.data_len()), data(g.out_len()), vec![0f32; g.weight_len()]);
    bencher.bench_local(|| conv_weight_grad(&g, &x, &dy, false, &mut dw));
}

#[divan::bench(args = [PoolKind::Max, PoolKind::Avg { include_pad: true }])]
fn pool(bencher: divan::Bencher, kind: PoolKind) {
    let window: (&[usize], &[usize], &[usize]) = (&[3, 3], &[2, 2], &[1, 1]);
    let g = PoolGeom::new((32 * 64, 1), &[56, 56], window, Convention::Valid).expect("valid sizes");
    let (x, mut y) = (data(g.data_len()), vec![0f32; g.out_len()]);
    bencher.bench_local(|| pool_forward(&g, kind, &x, &mut y));
}
