//! Convolutions and gradients against the definition, with numbers that make every sum exact.

use super::*;

fn numbers<T: Elem>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::from_i64(((i * 7919 + seed * 104729) % 13) as i64 % 7 - 3)).collect()
}

/// Calls `visit(data index, weight index, output index)` for every product in the convolution's definition.
fn each_product(g: &ConvGeom, mut visit: impl FnMut(usize, usize, usize)) {
    let (channels, filters) = (g.group_channels(), g.group_filters());
    let dims = |d: [usize; 3]| {
        (0..d[0]).flat_map(move |a| (0..d[1]).flat_map(move |b| (0..d[2]).map(move |c| [a, b, c])))
    };
    let at = |i: [usize; 3], d: [usize; 3]| (i[0] * d[1] + i[1]) * d[2] + i[2];
    for n in 0..g.batch {
        for f in 0..g.filters {
            for c in 0..channels {
                for o in dims(g.out_dims) {
                    for k in dims(g.kernel) {
                        let place: Vec<_> = (0..3)
                            .map(|i| (o[i] * g.stride[i] + k[i] * g.dilate[i]).wrapping_sub(g.pad[i]))
                            .collect();
                        if (0..3).any(|i| place[i] >= g.in_dims[i]) {
                            continue;
                        }
                        let channel = n * g.channels + f / filters * channels + c;
                        visit(
                            channel * g.in_plane() + at([place[0], place[1], place[2]], g.in_dims),
                            (f * channels + c) * g.taps() + at(k, g.kernel),
                            (n * g.filters + f) * g.out_plane() + at(o, g.out_dims),
                        );
                    }
                }
            }
        }
    }
}

fn check<T: Conv>(g: &ConvGeom) {
    let (x, w, dy) =
        (numbers::<T>(g.data_len(), 1), numbers::<T>(g.weight_len(), 2), numbers::<T>(g.out_len(), 3));
    let bias = numbers::<T>(g.filters, 4);
    let float = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let (fx, fw, fdy, fb) = (float(&x), float(&w), float(&dy), float(&bias));
    let mut y = vec![0.0; g.out_len()];
    let (mut dx, mut dw) = (vec![0.0; g.data_len()], vec![0.0; g.weight_len()]);
    each_product(g, |i, k, o| {
        y[o] += fx[i] * fw[k];
        dx[i] += fdy[o] * fw[k];
        dw[k] += fdy[o] * fx[i];
    });
    let mut db = vec![0.0; g.filters];
    for (i, v) in fdy.iter().enumerate() {
        db[i / g.out_plane() % g.filters] += v;
    }
    let with_bias: Vec<f64> =
        y.iter().enumerate().map(|(i, v)| v + fb[i / g.out_plane() % g.filters]).collect();
    // Once written over not-a-number, once added to ones.
    let run = |expected: &[f64], what: &str, compute: &dyn Fn(bool, &mut [T])| {
        let mut got = vec![T::from_f64(f64::NAN); expected.len()];
        compute(false, &mut got);
        assert_eq!(float(&got), expected, "{what}: {g:?} {}", T::DTYPE);
        got.fill(T::from_i64(1));
        compute(true, &mut got);
        let more: Vec<f64> = expected.iter().map(|v| v + 1.0).collect();
        assert_eq!(float(&got), more, "{what} added: {g:?} {}", T::DTYPE);
    };
    run(&y, "forward", &|add, y| conv_forward(g, &x, &w, None, add, y, UNHEARD));
    run(&with_bias, "forward with bias", &|add, y| conv_forward(g, &x, &w, Some(&bias), add, y, UNHEARD));
    run(&dx, "data gradient", &|add, dx| conv_data_grad(g, &dy, &w, add, dx));
    run(&dw, "weight gradient", &|add, dw| conv_weight_grad(g, &x, &dy, add, dw));
    run(&db, "bias gradient", &|add, db| conv_bias_grad(g, &dy, add, db));
}

fn geom(
    batch: usize,
    channels: (usize, usize, usize),
    dims: &[usize],
    (kernel, stride, dilate, pad): (&[usize], &[usize], &[usize], &[usize]),
) -> ConvGeom {
    ConvGeom::new(batch, channels, dims, Window { kernel, stride, dilate, pad }).expect("a valid geometry")
}

fn geometries() -> Vec<ConvGeom> {
    vec![
        geom(1, (1, 1, 1), &[1], (&[1], &[1], &[1], &[0])),
        geom(2, (3, 4, 1), &[11], (&[3], &[1], &[1], &[1])),
        geom(2, (4, 6, 2), &[19], (&[4], &[3], &[2], &[3])),
        geom(5, (1, 20, 1), &[12, 13], (&[5, 5], &[1, 1], &[1, 1], &[0, 0])),
        geom(2, (3, 7, 1), &[15, 14], (&[3, 3], &[1, 1], &[1, 1], &[1, 1])),
        geom(1, (3, 17, 1), &[23, 26], (&[7, 7], &[2, 2], &[1, 1], &[3, 3])),
        geom(3, (4, 8, 2), &[9, 10], (&[2, 3], &[2, 1], &[2, 3], &[1, 2])),
        geom(2, (16, 9, 1), &[6, 7], (&[1, 1], &[1, 1], &[1, 1], &[0, 0])),
        geom(2, (6, 9, 3), &[8, 8], (&[1, 1], &[2, 2], &[1, 1], &[0, 0])),
        geom(9, (5, 5, 5), &[10, 9], (&[3, 3], &[1, 1], &[1, 1], &[1, 1])),
        geom(2, (3, 6, 3), &[40, 45], (&[3, 3], &[2, 2], &[1, 1], &[1, 1])),
        geom(2, (4, 4, 4), &[12, 12], (&[3, 2], &[1, 3], &[2, 2], &[2, 0])),
        geom(2, (2, 3, 1), &[5, 6, 7], (&[3, 2, 3], &[1, 2, 2], &[1, 1, 2], &[1, 0, 2])),
        geom(1, (2, 2, 2), &[4, 5, 6], (&[2, 2, 2], &[1, 1, 1], &[1, 1, 1], &[1, 1, 1])),
        // A pad wider than the kernel, a border seen by whole windows.
        geom(1, (2, 2, 1), &[5, 5], (&[2, 2], &[1, 1], &[1, 1], &[3, 3])),
        // Kernel rows longer than one copy.
        geom(1, (2, 3, 1), &[20, 40], (&[2, 19], &[1, 1], &[1, 1], &[0, 9])),
        // An empty batch.
        geom(0, (2, 3, 1), &[5, 5], (&[3, 3], &[1, 1], &[1, 1], &[0, 0])),
    ]
}

#[test]
fn every_geometry() {
    for lanes in [1, 3] {
        mxrs_lanes::set_count(lanes);
        for g in geometries() {
            check::<f32>(&g);
            check::<f64>(&g);
        }
    }
    for g in &geometries()[..6] {
        check::<f16>(g);
    }
}

#[test]
fn several_blocks() {
    mxrs_lanes::set_count(2);
    // More depth than a block, more taps than a task of the weight gradient, more places than a block.
    check::<f32>(&geom(3, (70, 40, 1), &[10, 9], (&[3, 3], &[1, 1], &[1, 1], &[1, 1])));
    check::<f32>(&geom(2, (3, 5, 1), &[40, 41], (&[3, 3], &[1, 1], &[1, 1], &[0, 0])));
    check::<f32>(&geom(2, (64, 500, 1), &[5, 4], (&[2, 2], &[2, 2], &[1, 1], &[1, 0])));
    check::<f64>(&geom(20, (8, 9, 1), &[7, 8], (&[3, 3], &[1, 1], &[1, 1], &[0, 0])));
    // Blocks of places that begin and end inside images; without a border the images are read where they lie.
    check::<f32>(&geom(9, (6, 20, 2), &[9, 9], (&[3, 3], &[2, 2], &[1, 1], &[1, 1])));
    check::<f32>(&geom(40, (6, 20, 2), &[5, 4], (&[1, 1], &[1, 1], &[1, 1], &[0, 0])));
    // More outputs of a channel than a stretch.
    check::<f32>(&geom(1, (2, 4, 2), &[70, 71], (&[3, 3], &[1, 1], &[1, 1], &[1, 1])));
}

#[test]
fn deconvolution_is_the_data_gradient() {
    let window = Window { kernel: &[3, 3], stride: &[2, 2], dilate: &[1, 1], pad: &[1, 1] };
    let g = ConvGeom::deconvolution(2, (4, 6, 2), &[5, 4], window, &[1, 0]).expect("valid");
    assert_eq!(g.in_dims, [1, 10, 7]);
    assert_eq!((g.channels, g.filters, g.out_dims), (6, 4, [1, 5, 4]));
    let same = geom(2, (6, 4, 2), &[10, 7], (&[3, 3], &[2, 2], &[1, 1], &[1, 1]));
    assert_eq!(same, g);
    let x = numbers::<f32>(g.out_len(), 1);
    let (w, bias) = (numbers::<f32>(g.weight_len(), 2), numbers::<f32>(6, 3));
    let (mut y, mut expected) = (vec![0f32; g.data_len()], vec![0f32; g.data_len()]);
    deconv_forward(&g, &x, &w, Some(&bias), false, &mut y);
    each_product(&g, |i, k, o| expected[i] += x[o] * w[k]);
    for (i, v) in expected.iter_mut().enumerate() {
        *v += bias[i / 70 % 6];
    }
    assert_eq!(y, expected);
    let mut dx = vec![0f32; g.out_len()];
    deconv_data_grad(&g, &y, &w, false, &mut dx);
    let (mut dw, mut dw_expected) = (vec![0f32; g.weight_len()], vec![0f32; g.weight_len()]);
    deconv_weight_grad(&g, &x, &y, false, &mut dw);
    let mut dx_expected = vec![0f32; g.out_len()];
    each_product(&g, |i, k, o| {
        dx_expected[o] += y[i] * w[k];
        dw_expected[k] += x[o] * y[i];
    });
    assert_eq!((dx, dw), (dx_expected, dw_expected));
    let mut db = [0f32; 6];
    deconv_bias_grad(&g, &y, false, &mut db);
    assert_eq!(db[1], y[70..140].iter().chain(&y[490..560]).sum::<f32>());
}

#[test]
fn bad_geometries_are_refused() {
    let new = |c, dims: &[usize], kernel: &[usize], stride: &[usize], pad: &[usize]| {
        let window = Window { kernel, stride, dilate: &[1, 1], pad };
        ConvGeom::new(1, c, dims, window).expect_err("refused").message().to_owned()
    };
    let ok = (4, 4, 1);
    assert!(new(ok, &[5, 5], &[3, 3], &[0, 1], &[0, 0]).contains("stride [0, 1] contains 0"));
    assert!(new(ok, &[5, 5], &[3, 0], &[1, 1], &[0, 0]).contains("kernel [3, 0] contains 0"));
    assert!(
        new(ok, &[2, 5], &[3, 3], &[1, 1], &[0, 0]).contains("reaches 3 elements; the padded input has 2")
    );
    assert!(new((4, 6, 4), &[5, 5], &[3, 3], &[1, 1], &[0, 0]).contains("num_group 4 does not divide"));
    assert!(new((4, 6, 0), &[5, 5], &[3, 3], &[1, 1], &[0, 0]).contains("num_group 0"));
    assert!(new((4, 0, 1), &[5, 5], &[3, 3], &[1, 1], &[0, 0]).contains("num_filter is 0"));
    assert!(new(ok, &[5, 5], &[3], &[1, 1], &[0, 0]).contains("has 1 numbers"));
    assert!(new(ok, &[1; 4], &[1; 4], &[1; 4], &[0; 4]).contains("(1 to 3)"));
    assert!(new(ok, &[5, 5], &[3, 3], &[1, 1], &[usize::MAX, 0]).contains("address space"));
    assert!(new(ok, &[5, 5], &[3, 3], &[1, 1], &[1 << 40, 1 << 40]).contains("more elements than memory"));
    let window = Window { kernel: &[3], stride: &[2], dilate: &[1], pad: &[0] };
    let refused = ConvGeom::deconvolution(1, (1, 1, 1), &[3], window, &[2]).expect_err("refused");
    assert!(refused.message().contains("adj 2 must be smaller than stride 2"));
    let window = Window { pad: &[4], ..window };
    assert!(ConvGeom::deconvolution(1, (1, 1, 1), &[3], window, &[0]).is_err());
}

#[test]
fn rounding_does_not_depend_on_the_lanes() {
    let g = geom(5, (6, 10, 1), &[12, 12], (&[3, 3], &[1, 1], &[1, 1], &[1, 1]));
    let wave = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
    let (x, w, dy) = (wave(g.data_len(), 0.7), wave(g.weight_len(), 0.3), wave(g.out_len(), 0.1));
    let run = |lanes| {
        mxrs_lanes::set_count(lanes);
        let (mut y, mut dx) = (vec![0f32; g.out_len()], vec![0f32; g.data_len()]);
        let mut dw = vec![0f32; g.weight_len()];
        conv_forward(&g, &x, &w, None, false, &mut y, UNHEARD);
        conv_data_grad(&g, &dy, &w, false, &mut dx);
        conv_weight_grad(&g, &x, &dy, false, &mut dw);
        (y, dx, dw)
    };
    assert!(run(1) == run(4));
}
