//! Against the definition, within what rounding allows.

use super::*;
use crate::conv::{UNHEARD, Window};
use crate::gemm::micro::Real;

fn numbers<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        T::from_f64((state >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
    };
    (0..n).map(|_| next()).collect()
}

fn geom(batch: usize, channels: usize, filters: usize, dims: [usize; 2], pad: [usize; 2]) -> ConvGeom {
    let window = Window { kernel: &[3, 3], stride: &[1, 1], dilate: &[1, 1], pad: &pad };
    ConvGeom::new(batch, (channels, filters, 1), &dims, window).expect("a valid geometry")
}

/// Output, data gradient and weight gradient by the definition, in double precision.
fn definition<T: Real>(g: &ConvGeom, x: &[T], w: &[T], dy: &[T]) -> (Vec<f64>, Vec<f64>) {
    let ([_, h, wd], [_, oh, ow]) = (g.in_dims, g.out_dims);
    let (mut y, mut dw) = (vec![0.0; g.out_len()], vec![0.0; g.weight_len()]);
    for n in 0..g.batch {
        for f in 0..g.filters {
            for c in 0..g.channels {
                for (r, q) in (0..oh).flat_map(|r| (0..ow).map(move |q| (r, q))) {
                    let o = ((n * g.filters + f) * oh + r) * ow + q;
                    for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
                        let (a, b) = ((r + i).wrapping_sub(g.pad[1]), (q + j).wrapping_sub(g.pad[2]));
                        if a < h && b < wd {
                            let (at, k) = (
                                ((n * g.channels + c) * h + a) * wd + b,
                                (f * g.channels + c) * 9 + i * 3 + j,
                            );
                            y[o] += x[at].to_f64() * w[k].to_f64();
                            dw[k] += x[at].to_f64() * dy[o].to_f64();
                        }
                    }
                }
            }
        }
    }
    (y, dw)
}

fn close<T: Real>(what: &str, g: &ConvGeom, got: &[T], wanted: &[f64], more: f64, tolerance: f64) {
    let scale = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.iter().zip(wanted).enumerate() {
        let error = (a.to_f64() - b - more).abs() / scale;
        assert!(error < tolerance, "{what} {g:?} {}: element {i} is {a:?}, not {b} + {more}", T::DTYPE);
    }
}

fn check<T: Real>(g: &ConvGeom, tolerance: f64) {
    let (x, w) = (numbers::<T>(g.data_len(), 1), numbers::<T>(g.weight_len(), 2));
    let (dy, bias) = (numbers::<T>(g.out_len(), 3), numbers::<T>(g.filters, 4));
    let (mut wanted, dw) = definition(g, &x, &w, &dy);
    let mut y = vec![T::from_f64(f64::NAN); g.out_len()];
    forward(g, &x, &w, None, false, &mut y, UNHEARD);
    close("forward", g, &y, &wanted, 0.0, tolerance);
    for (i, v) in wanted.iter_mut().enumerate() {
        *v += bias[i / g.out_plane() % g.filters].to_f64();
    }
    let parts = std::sync::Mutex::new(vec![0; g.out_len()]);
    y.fill(T::ONE);
    forward(g, &x, &w, Some(&bias), true, &mut y, &|part| {
        parts.lock().expect("no panic")[part].iter_mut().for_each(|n| *n += 1);
    });
    close("forward added", g, &y, &wanted, 1.0, tolerance);
    assert!(parts.into_inner().expect("no panic").iter().all(|n| *n == 1), "each output is finished once");
    let mut got = vec![T::from_f64(f64::NAN); g.weight_len()];
    weight_grad(g, &x, &dy, false, &mut got);
    close("weight gradient", g, &got, &dw, 0.0, tolerance);
    got.fill(T::ONE);
    weight_grad(g, &x, &dy, true, &mut got);
    close("weight gradient added", g, &got, &dw, 1.0, tolerance);
}

#[test]
fn equals_the_definition() {
    for lanes in [1, 3] {
        mxrs_lanes::set_count(lanes);
        for g in [
            geom(1, 1, 1, [3, 3], [0, 0]),
            geom(2, 3, 5, [4, 4], [1, 1]),
            geom(3, 2, 17, [9, 14], [1, 1]),
            geom(2, 33, 4, [7, 30], [2, 0]),
            geom(5, 4, 15, [16, 16], [0, 2]),
            geom(1, 2, 3, [70, 67], [1, 1]),
            // More than one block of depth, of filters and of tiles.
            geom(9, 400, 70, [6, 9], [1, 1]),
        ] {
            check::<f32>(&g, 2e-5);
            check::<f64>(&g, 1e-13);
        }
    }
}

#[test]
fn sums_do_not_depend_on_the_lanes() {
    let g = geom(4, 40, 36, [20, 20], [1, 1]);
    let (x, w) = (numbers::<f32>(g.data_len(), 1), numbers::<f32>(g.weight_len(), 2));
    let dy = numbers::<f32>(g.out_len(), 3);
    let run = |lanes: usize| {
        mxrs_lanes::set_count(lanes);
        let (mut y, mut dw) = (vec![0f32; g.out_len()], vec![0f32; g.weight_len()]);
        forward(&g, &x, &w, None, false, &mut y, UNHEARD);
        weight_grad(&g, &x, &dy, false, &mut dw);
        (y, dw)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn takes_what_it_is_good_at() {
    assert!(takes(&geom(8, 64, 64, [56, 56], [1, 1])));
    assert!(!takes(&geom(8, 3, 64, [56, 56], [1, 1])), "few channels");
    assert!(!takes(&geom(1, 512, 512, [7, 7], [1, 1])), "few tiles");
}
