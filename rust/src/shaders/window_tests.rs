//! Images of other sizes and windows as columns: a map on some images, and every transpose by its map.

use crate::shaders::columns::{Axis, launch_columns, launch_image};
use crate::shaders::elem::Span;
use crate::shaders::resample::{Taps, launch_resample, launch_resample_grad};
use crate::shaders::testing::*;
use mxrs_base::{DType, Result};
use mxrs_gpu::Device;

/// Runs a map from `n` to `m` numbers.
fn apply(d: &Device, x: &[f32], m: usize, run: impl Fn(Span, Span) -> Result<()>) -> Vec<f32> {
    let (x, y) = (upload(d, x), upload(d, &vec![9f32; m]));
    run(Span::new(&x, DType::F32), Span::new(&y, DType::F32)).unwrap();
    download(d, &y)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
}

/// (A x, y) is (x, A^T y).
fn assert_transposed(a: (&[f32], &[f32]), b: (&[f32], &[f32]), what: &str) {
    let (left, right) = (dot(a.0, a.1), dot(b.0, b.1));
    assert!((left - right).abs() <= 1e-5 * (left.abs() + 1.0), "{what}: {left} and {right}");
}

#[test]
fn resampling_and_its_transpose() {
    on_devices(|d| {
        for (from, to) in
            [((5, 4), (2, 3)), ((7, 6), (1, 9)), ((3, 4), (8, 5)), ((1, 5), (4, 1)), ((40, 33), (17, 70))]
        {
            for taps in [Taps::Average, Taps::Corners, Taps::Centers] {
                let (n, m) = (3 * from.0 * from.1, 3 * to.0 * to.1);
                let (x, head) = (numbers(n, 1), numbers(m, 2));
                let y = apply(d, &x, m, |x, y| launch_resample(d, taps, 3, (from, to), (x, y), "y"));
                let dx =
                    apply(d, &head, n, |h, dx| launch_resample_grad(d, taps, 3, (from, to), (h, dx), "dx"));
                assert_transposed((&y, &head), (&x, &dx), &format!("{taps:?} {from:?} to {to:?}"));
                // Weights sum to 1: a constant stays.
                let ones =
                    apply(d, &vec![1f32; n], m, |x, y| launch_resample(d, taps, 3, (from, to), (x, y), "y"));
                assert_close(&ones, &vec![1f32; m], 1e-6, &format!("{taps:?} {from:?} to {to:?}"));
            }
        }
        // By hand: a line of four for one of two and of seven.
        let line = |taps, to| {
            apply(d, &[1.0, 2.0, 4.0, 8.0], to, |x, y| {
                launch_resample(d, taps, 1, ((1, 4), (1, to)), (x, y), "y")
            })
        };
        assert_eq!(line(Taps::Average, 2), [1.5, 6.0]);
        assert_eq!(line(Taps::Corners, 7), [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]);
        assert_eq!(line(Taps::Centers, 2), [1.5, 6.0]);
    });
}

#[test]
fn columns_and_their_image() {
    let axis = |size, kernel, stride, dilate, pad| {
        let count = (size + 2 * pad - (kernel - 1) * dilate - 1) / stride + 1;
        Axis { size, kernel, stride, dilate, pad, count }
    };
    on_devices(|d| {
        for axes in [
            vec![axis(9, 3, 2, 1, 1)],
            vec![axis(7, 3, 1, 2, 2), axis(6, 2, 3, 1, 0)],
            vec![axis(4, 2, 1, 1, 1), axis(5, 3, 2, 1, 1), axis(6, 2, 2, 3, 2)],
        ] {
            let of = |f: fn(&Axis) -> usize| axes.iter().map(f).product::<usize>();
            let (n, m) = (2 * of(|a| a.size), 2 * of(|a| a.kernel) * of(|a| a.count));
            let (x, head) = (numbers(n, 1), numbers(m, 2));
            let y = apply(d, &x, m, |x, y| launch_columns(d, 2, &axes, (x, y), "columns"));
            let dx = apply(d, &head, n, |h, dx| launch_image(d, 2, &axes, (h, dx), "image"));
            assert_transposed((&y, &head), (&x, &dx), &format!("{axes:?}"));
        }
        let columns = apply(d, &[1.0, 2.0, 3.0], 4, |x, y| {
            launch_columns(d, 1, &[axis(3, 2, 2, 1, 1)], (x, y), "columns")
        });
        assert_eq!(columns, [0.0, 2.0, 1.0, 3.0]);
    });
}
