//! Pooling against the definition, and against values observed in MXNet 1.9.1.

use super::*;

fn run(
    kind: PoolKind,
    x: &[f32],
    window: (usize, usize, usize),
    convention: Convention,
) -> (Vec<f32>, Vec<f32>) {
    let (kernel, stride, pad) = window;
    let g = PoolGeom::new((1, 1), &[x.len()], (&[kernel], &[stride], &[pad]), convention).expect("valid");
    let mut y = vec![f32::NAN; g.out_len()];
    pool_forward(&g, kind, x, &mut y);
    let dy: Vec<f32> = (1..=y.len()).map(|v| v as f32).collect();
    let mut dx = vec![f32::NAN; x.len()];
    pool_grad(&g, kind, (x, &y, &dy), false, &mut dx);
    (y, dx)
}

fn close(got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    assert!(
        got.iter().zip(wanted).all(|(g, w)| (g - w).abs() <= 1e-5 * w.abs().max(1.0)),
        "{got:?} {wanted:?}"
    );
}

#[test]
fn observed_values() {
    use Convention::{Full, Valid};
    let (kept, no_pad) = (PoolKind::Avg { include_pad: true }, PoolKind::Avg { include_pad: false });
    assert_eq!(
        run(PoolKind::Max, &[1.0; 5], (3, 1, 0), Valid),
        (vec![1.0; 3], vec![1.0, 2.0, 3.0, 0.0, 0.0])
    );
    let nan = [1.0, f32::NAN, 2.0, 0.0];
    assert_eq!(run(PoolKind::Max, &nan, (2, 1, 0), Valid), (vec![1.0, 2.0, 2.0], vec![1.0, 0.0, 5.0, 0.0]));
    let low = [f32::NEG_INFINITY; 3];
    assert_eq!(run(PoolKind::Max, &low, (2, 1, 0), Valid), (vec![f32::MIN; 2], vec![0.0; 3]));
    let six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let (y, dx) = run(kept, &six, (3, 2, 1), Full);
    close(&y, &[1.0, 3.0, 5.0, 3.0]);
    close(&dx, &[0.33333334, 1.0, 0.6666667, 1.6666667, 1.0, 3.0]);
    let (y, dx) = run(no_pad, &six, (3, 2, 1), Full);
    close(&y, &[1.5, 3.0, 5.0, 6.0]);
    close(&dx, &[0.5, 1.1666667, 0.6666667, 1.6666667, 1.0, 5.0]);
    let (y, dx) = run(PoolKind::Lp(2), &six, (3, 2, 1), Full);
    close(&y, &[2.236068, 5.3851647, 8.774964, 6.0]);
    close(&dx, &[0.4472136, 1.6372085, 1.1141721, 2.8530898, 1.7094086, 6.0512905]);
    // The last window lies beyond the data.
    let five = &six[..5];
    assert_eq!(
        run(PoolKind::Max, five, (2, 3, 1), Full),
        (vec![1.0, 4.0, f32::MIN], vec![1.0, 0.0, 0.0, 2.0, 0.0])
    );
    assert_eq!(run(kept, five, (2, 3, 1), Full), (vec![0.5, 3.5, 0.0], vec![0.5, 0.0, 1.0, 1.0, 0.0]));
    let signed = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0];
    let (y, dx) = run(PoolKind::Lp(3), &signed, (2, 1, 0), Valid);
    close(&y, &[-3.2710664, -2.0800838, -1.0, 1.0, 2.0800838, 3.2710664]);
    close(&dx, &[0.84113127, 2.2227993, 3.4622407, 0.0, 5.155602, 6.865425, 5.0467873]);
    assert_eq!(
        run(PoolKind::Lp(1), &[-3.0, -2.0, 4.0], (2, 1, 0), Valid),
        (vec![-5.0, 2.0], vec![1.0, 3.0, 2.0])
    );
    assert_eq!(run(PoolKind::Lp(2), &[0.0; 3], (2, 1, 0), Valid), (vec![0.0; 2], vec![0.0; 3]));
}

/// Sums and maxima by definition, both layouts.
fn check<T: Pool>(outer: usize, inner: usize, dims: &[usize], window: (&[usize], &[usize], &[usize])) {
    for convention in [Convention::Valid, Convention::Full] {
        let g = PoolGeom::new((outer, inner), dims, window, convention).expect("valid");
        let number = |i: usize, seed: usize| T::from_i64(((i * 7919 + seed) % 11) as i64 - 5);
        let x: Vec<T> = (0..g.data_len()).map(|i| number(i, 1)).collect();
        let dy: Vec<T> = (0..g.out_len()).map(|i| number(i, 2)).collect();
        for kind in [PoolKind::Max, PoolKind::Sum] {
            let mut expected = vec![if kind == PoolKind::Sum { 0.0 } else { f64::NEG_INFINITY }; g.out_len()];
            let mut slope = vec![1.0; g.data_len()];
            for (o, sum) in expected.iter_mut().enumerate() {
                let (n, c) = (o / g.out_image(), o % inner);
                let place = o % g.out_image() / inner;
                let [_, oh, ow] = g.out_dims;
                let at = [place / (oh * ow), place / ow % oh, place % ow];
                let mut best = None;
                for k in 0..g.kernel.iter().product() {
                    let [_, kh, kw] = g.kernel;
                    let tap = [k / (kh * kw), k / kw % kh, k % kw];
                    let seen: Vec<_> =
                        (0..3).map(|i| (at[i] * g.stride[i] + tap[i]).wrapping_sub(g.pad[i])).collect();
                    if (0..3).any(|i| seen[i] >= g.in_dims[i]) {
                        continue;
                    }
                    let i = ((n * g.in_dims[0] + seen[0]) * g.in_dims[1] + seen[1]) * g.in_dims[2] + seen[2];
                    let i = i * inner + c;
                    if kind == PoolKind::Sum {
                        *sum += x[i].to_f64();
                        slope[i] += dy[o].to_f64();
                    } else if x[i].to_f64() > *sum {
                        (*sum, best) = (x[i].to_f64(), Some(i));
                    }
                }
                if let Some(i) = best {
                    slope[i] += dy[o].to_f64();
                }
            }
            let mut y = vec![T::from_i64(9); g.out_len()];
            pool_forward(&g, kind, &x, &mut y);
            assert_eq!(y.iter().map(|v| v.to_f64()).collect::<Vec<_>>(), expected, "{kind:?} {g:?}");
            let mut dx = vec![T::from_i64(1); g.data_len()];
            pool_grad(&g, kind, (&x, &[], &dy), true, &mut dx);
            assert_eq!(dx.iter().map(|v| v.to_f64()).collect::<Vec<_>>(), slope, "{kind:?} {g:?}");
        }
    }
}

fn check_all<T: Pool>() {
    for (outer, inner) in [(1, 1), (6, 1), (2, 3), (0, 1)] {
        check::<T>(outer, inner, &[7], (&[3], &[2], &[1]));
        check::<T>(outer, inner, &[17, 40], (&[3, 3], &[2, 2], &[1, 1]));
        check::<T>(outer, inner, &[5, 6], (&[2, 3], &[1, 1], &[0, 2]));
        check::<T>(outer, inner, &[4, 5, 6], (&[2, 2, 3], &[2, 1, 2], &[1, 0, 1]));
        check::<T>(outer, inner, &[1, 1], (&[1, 1], &[1, 1], &[0, 0]));
        // Strides beyond those with loops of their own, also beyond the kernel; windows wider than most.
        check::<T>(outer, inner, &[13, 17], (&[3, 4], &[3, 3], &[1, 2]));
        check::<T>(outer, inner, &[8, 9], (&[2, 1], &[3, 4], &[0, 0]));
        check::<T>(outer, inner, &[3, 41], (&[2, 12], &[1, 1], &[0, 5]));
        check::<T>(outer, inner, &[2, 30], (&[1, 20], &[1, 5], &[0, 0]));
    }
    // Several groups of images, the last a short one; rows enough for several blocks.
    check::<T>(150, 1, &[8, 6], (&[2, 2], &[2, 2], &[0, 0]));
    check::<T>(1, 1, &[90, 121], (&[3, 3], &[1, 1], &[1, 1]));
}

#[test]
fn by_definition() {
    mxrs_lanes::set_count(2);
    check_all::<f32>();
    check_all::<f64>();
    check_all::<f16>();
}

#[test]
fn sizes_and_refusals() {
    let out = |c| pool_out_dims(&[5], &[2], &[2], &[0], c).expect("valid");
    assert_eq!((out(Convention::Valid), out(Convention::Full)), (vec![2], vec![3]));
    assert_eq!(out(Convention::Same), vec![3]);
    assert_eq!(PoolGeom::global(2, 1, &[4, 3]).expect("valid").out_dims, [1, 1, 1]);
    let refused = |kernel: &[usize], stride: &[usize], pad: &[usize]| {
        let e = pool_out_dims(&[2], kernel, stride, pad, Convention::Valid).expect_err("refused");
        e.message().to_owned()
    };
    assert!(refused(&[3], &[1], &[0]).contains("kernel size (3) exceeds input (2 padded to 2)"));
    assert!(refused(&[2], &[1], &[2]).contains("pad 2 is not smaller than kernel 2"));
    assert!(refused(&[0], &[1], &[0]).contains("both must be 1 or more"));
    assert!(refused(&[1], &[0], &[0]).contains("both must be 1 or more"));
    assert!(refused(&[1, 1], &[1], &[0]).contains("spatial dimensions"));
}
