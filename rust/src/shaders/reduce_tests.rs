//! Reductions against those of the CPU.

use crate::shaders::elem::Span;
use crate::shaders::extreme::launch_position;
use crate::shaders::reduce::{Fold, Reduction, launch_reduce};
use crate::shaders::testing::*;
use mxrs_base::{DType, Elem, f16};
use mxrs_gpu::Device;
use mxrs_kernels::copy::View;
use mxrs_kernels::reduce as cpu;

const OPS: [Reduction; 12] = [
    Reduction::Sum,
    Reduction::Mean,
    Reduction::Prod,
    Reduction::NanSum,
    Reduction::NanProd,
    Reduction::Max,
    Reduction::Min,
    Reduction::NormL1,
    Reduction::NormL2,
    Reduction::SumSq,
    Reduction::Any,
    Reduction::All,
];

fn kept(dims: &[usize], axes: &[usize]) -> usize {
    dims.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d).product()
}

fn run<T: Elem, O: Elem>(d: &Device, op: impl Into<Fold>, x: &[T], dims: &[usize], axes: &[usize]) -> Vec<O> {
    let n = kept(dims, axes);
    let (x, y) = (upload(d, x), upload(d, &vec![O::default(); n + 2]));
    let view = View::of(dims);
    let y_span = Span { buffer: &y, dtype: O::DTYPE, offset: 1 };
    let place = Span::new(&x, T::DTYPE).strided(&view.strides);
    launch_reduce(d, op, dims, axes, place, y_span, "reduce").unwrap();
    let got = download::<O>(d, &y);
    assert!(got[0] == O::default() && got[n + 1] == O::default(), "written outside");
    got[1..=n].to_vec()
}

fn agree<T: Elem + cpu::Reduce>(d: &Device, x: &[T], dims: &[usize], axes: &[usize], tolerance: f32) {
    for op in OPS {
        let mut want = vec![T::default(); kept(dims, axes)];
        cpu::reduce(op, x, dims, axes, &mut want);
        let got = run::<T, T>(d, op, x, dims, axes);
        let floats = |v: &[T]| v.iter().map(|v| v.to_f64() as f32).collect::<Vec<_>>();
        // Every factor of a product rounds it once more, whatever the order.
        let factors = (x.len() / want.len().max(1)) as f32;
        let product = matches!(op, Reduction::Prod | Reduction::NanProd) && tolerance > 0.0;
        let tolerance = if product { tolerance.max(4e-7 * factors.sqrt()) } else { tolerance };
        let what = format!("{op:?} of {} {dims:?} over {axes:?}", T::DTYPE);
        assert_close(&floats(&got), &floats(&want), tolerance, &what);
    }
}

const CASES: [(&[usize], &[usize]); 14] = [
    (&[5], &[0]),
    (&[1000], &[0]),
    (&[70_001], &[0]),
    (&[33, 47], &[1]),
    (&[33, 47], &[0]),
    (&[3, 5000], &[1]),
    (&[3000, 3], &[0]),
    (&[700, 65], &[0]),
    (&[4, 5, 6], &[1]),
    (&[4, 5, 6], &[0, 2]),
    (&[2, 3, 4, 5], &[0, 2]),
    (&[2, 3, 4, 5], &[1, 3]),
    (&[6, 1, 8], &[1]),
    (&[300, 2, 40], &[0, 2]),
];

#[test]
fn reductions_agree_with_the_cpu() {
    on_devices(|d| {
        for (seed, (dims, axes)) in CASES.iter().enumerate() {
            let n: usize = dims.iter().product();
            let mut x = numbers(n, seed as u32);
            // Products of thousands of numbers stay in range near one.
            x.iter_mut().for_each(|v| *v = v.signum() * (1.0 + *v * 1e-3));
            x[n / 2] = 0.25;
            agree(d, &x, dims, axes, 3e-6);
            if seed < 10 {
                let whole: Vec<i32> = (0..n).map(|i| (i as i32 * 7919) % 41 - 20).collect();
                agree(d, &whole, dims, axes, 0.0);
            }
        }
        let bytes: Vec<u8> = (0..60).map(|i| (i * 11) as u8).collect();
        agree(d, &bytes, &[12, 5], &[1], 0.0);
        let flags: Vec<bool> = (0..60).map(|i| i % 7 == 0).collect();
        agree(d, &flags, &[12, 5], &[1], 0.0);
        if d.features().f16 {
            let half: Vec<f16> = numbers(300, 9).into_iter().map(f16::from_f32).collect();
            agree(d, &half, &[30, 10], &[0], 2e-3);
        }
    });
}

#[test]
fn special_values_reduce_as_on_the_cpu() {
    on_devices(|d| {
        let nan = f32::NAN;
        let x = [1.0, nan, -2.0, 3.0, 0.0, f32::INFINITY, -1.0, f32::NEG_INFINITY, 4.0, 5.0, 6.0, nan];
        agree(d, &x, &[4, 3], &[1], 1e-6);
        agree(d, &x, &[4, 3], &[0], 1e-6);
        // Nothing to reduce: the neutral element.
        assert_eq!(run::<f32, f32>(d, Reduction::Sum, &[], &[2, 0], &[1]), [0.0, 0.0]);
        assert_eq!(run::<f32, f32>(d, Reduction::Prod, &[], &[2, 0], &[1]), [1.0, 1.0]);
        assert_eq!(run::<f32, f32>(d, Reduction::Sum, &[], &[0, 3], &[1]), [0.0; 0]);
    });
}

#[test]
fn long_sums_keep_their_digits() {
    on_devices(|d| {
        let n = 3_000_000;
        let x: Vec<f32> = (0..n).map(|i| 1.0 + (i % 7) as f32 * 0.125).collect();
        let want: f64 = x.iter().map(|v| *v as f64).sum();
        let got = run::<f32, f32>(d, Reduction::Sum, &x, &[n], &[0])[0] as f64;
        assert!((got / want - 1.0).abs() < 2e-7, "{got} {want}");
        let got = run::<f32, f32>(d, Reduction::Mean, &x, &[n / 3, 3], &[0]);
        assert!(got.iter().all(|v| (*v as f64 / (want / n as f64) - 1.0).abs() < 1e-5), "{got:?}");
    });
}

#[test]
fn positions_of_extremes_agree_with_the_cpu() {
    on_devices(|d| {
        for ((outer, extent, inner), seed) in
            [((1, 1000, 1), 1), ((7, 33, 1), 2), ((3, 40, 50), 3), ((2, 3, 5), 4)]
        {
            let n = outer * extent * inner;
            let mut x: Vec<f32> = numbers(n, seed).iter().map(|v| (v * 4.0).round()).collect();
            x[n / 3] = f32::NAN;
            for (max, op) in [(true, Fold::ArgMax), (false, Fold::ArgMin)] {
                let mut want = vec![0.0f32; outer * inner];
                mxrs_kernels::scan::arg_extreme(max, &x, (outer, extent, inner), &mut want);
                let got = run::<f32, f32>(d, op, &x, &[outer, extent, inner], &[1]);
                assert_eq!(got, want, "{op:?} {outer} {extent} {inner}");
                let whole: Vec<i32> = x.iter().map(|v| v.to_i64() as i32).collect();
                let mut want = vec![0i32; outer * inner];
                mxrs_kernels::scan::arg_extreme(max, &whole, (outer, extent, inner), &mut want);
                assert_eq!(run::<i32, i32>(d, op, &whole, &[outer, extent, inner], &[1]), want);
            }
        }
    });
}

#[test]
fn positions_in_long_rows_agree_with_the_cpu() {
    on_devices(|d| {
        for around in [(1, 70_000, 1), (3, 40_960, 2), (2, 33_000, 3)] {
            let n = around.0 * around.1 * around.2;
            // Few values, so that many are equal; not-a-number in the last row alone.
            let mut x: Vec<f32> = numbers(n, 6).iter().map(|v| (v * 4.0).round()).collect();
            for nan in [false, true] {
                if nan {
                    x[n - 5] = f32::NAN;
                    x[n - 1] = f32::NAN;
                }
                for max in [true, false] {
                    let mut want = vec![0i32; around.0 * around.2];
                    let mut positions = vec![0f32; want.len()];
                    mxrs_kernels::scan::arg_extreme(max, &x, around, &mut positions);
                    want.iter_mut().zip(&positions).for_each(|(w, p)| *w = *p as i32);
                    let (of, y) = (upload(d, &x), upload(d, &vec![9i32; want.len()]));
                    let (of, to) = (Span::new(&of, DType::F32), Span::new(&y, DType::I32));
                    launch_position(d, max, around, of, to, "position").unwrap();
                    assert_eq!(download::<i32>(d, &y), want, "{around:?}, max {max}, nan {nan}");
                }
            }
        }
    });
}

#[test]
fn strided_input_is_reduced_in_place() {
    on_devices(|d| {
        let x = numbers(6 * 50 * 4, 5);
        let buffer = upload(d, &x);
        // Columns 10..40 of the middle axis, the last two axes swapped.
        let view = View::of(&[6, 50, 4]).slice(1, 10, 1, 30).transpose(&[0, 2, 1]);
        let place = crate::shaders::Place {
            buffer: &buffer,
            dtype: DType::F32,
            offset: view.offset as usize,
            strides: &view.strides,
        };
        let y = upload(d, &[0.0f32; 24]);
        launch_reduce(d, Reduction::Sum, &view.dims, &[2], place, Span::new(&y, DType::F32), "sum").unwrap();
        let want: Vec<f32> =
            (0..24).map(|o| (10..40).map(|r| x[(o / 4 * 50 + r) * 4 + o % 4]).sum::<f32>()).collect();
        assert_close(&download::<f32>(d, &y), &want, 1e-5, "sum of a view");
    });
}
