//! Types of 64 bits on a device: moved as they are, cast to others, read as indices.

use super::copy::{launch_cast, launch_copy};
use super::elem::{Place, Span};
use super::index::{Places, launch_take};
use super::testing::{download, on_devices, upload};
use mxrs_base::{DType, Elem, f16};
use mxrs_gpu::Device;

fn cast<S: Elem, D: Elem + std::fmt::Debug>(d: &Device, values: &[S]) {
    let mut want = vec![D::default(); values.len()];
    mxrs_simd::cast(values, &mut want);
    let (x, y) = (upload(d, values), upload(d, &vec![D::default(); values.len()]));
    launch_cast(d, values.len(), Span::new(&x, S::DTYPE), Span::new(&y, D::DTYPE), "cast").unwrap();
    assert_eq!(download::<D>(d, &y), want, "{} to {}", S::DTYPE, D::DTYPE);
}

#[test]
fn casts_from_64_bits_agree_with_the_cpu() {
    let mut doubles =
        vec![0.0, -0.0, 0.5, -0.5, 1.0, 2.75, -2.75, 255.9, 16777217.0, 16777219.0, -16777217.0];
    doubles.extend([
        0.1,
        -0.3,
        1.0 / 3.0,
        1e10,
        -1e10,
        3.4e38,
        3.5e38,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]);
    doubles.extend([
        1.0 + 2f64.powi(-24),
        1.0 + 3.0 * 2f64.powi(-24),
        2147483520.0,
        -2147483648.0,
        123456789.0,
    ]);
    // Exactly between two floats, just above, and what becomes the next power of two.
    doubles.extend([
        1.0 + 2f64.powi(-24) + 2f64.powi(-52),
        2.0 - 2f64.powi(-25),
        1e-37,
        1.1754943508222875e-38,
    ]);
    let longs = [0i64, 1, -1, 127, -128, 300, -300, 16777217, i32::MAX as i64, i32::MIN as i64];
    let far = [1 << 33, -(1 << 33), (1 << 40) + 5, i64::MAX, i64::MIN, u32::MAX as i64, -5_000_000_000];
    on_devices(|d| {
        cast::<f64, f32>(d, &doubles);
        let small: Vec<f64> = doubles.iter().copied().filter(|v| v.abs() < 2e9).collect();
        cast::<f64, i32>(d, &small);
        cast::<f64, bool>(d, &small);
        cast::<f64, f64>(d, &doubles);
        cast::<i64, f32>(d, &longs);
        for values in [&longs[..], &far[..]] {
            cast::<i64, i32>(d, values);
            cast::<i64, u8>(d, values);
            cast::<i64, i8>(d, values);
            cast::<i64, bool>(d, values);
            cast::<i64, i64>(d, values);
        }
        if d.features().f16 {
            cast::<i64, f16>(d, &longs[..6]);
        }
    });
}

#[test]
fn what_is_not_a_number_stays_so() {
    on_devices(|d| {
        let (x, y) = (upload(d, &[f64::NAN, 1.0]), upload(d, &[0f32; 2]));
        launch_cast(d, 2, Span::new(&x, DType::F64), Span::new(&y, DType::F32), "cast").unwrap();
        let got = download::<f32>(d, &y);
        assert!(got[0].is_nan() && got[1] == 1.0);
    });
}

#[test]
fn wide_elements_move_under_strides() {
    let x: Vec<i64> = (0..12).map(|i| (i << 35) - i).collect();
    on_devices(|d| {
        let (from, to) = (upload(d, &x), upload(d, &[7i64; 14]));
        // The transpose of (3, 4) behind one element.
        let source = Place { buffer: &from, dtype: DType::I64, offset: 0, strides: &[1, 4] };
        let target = Place { buffer: &to, dtype: DType::I64, offset: 1, strides: &[3, 1] };
        launch_copy(d, &[4, 3], source, target, "move").unwrap();
        let moved: Vec<i64> = (0..12).map(|i| x[i / 3 + 4 * (i % 3)]).collect();
        assert_eq!(download::<i64>(d, &to), [&[7][..], &moved, &[7]].concat());
    });
}

#[test]
fn wide_indices_name_places() {
    let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
    on_devices(|d| {
        let from = upload(d, &x);
        let take = |at: &mxrs_gpu::Buffer, dtype| {
            let to = upload(d, &[0f32; 4]);
            let (from, at) = (Span::new(&from, DType::F32), Span::new(at, dtype));
            launch_take(d, Places::Clip(6), 4, at, from, (1, 1), Span::new(&to, DType::F32), "take").unwrap();
            download::<f32>(d, &to)
        };
        assert_eq!(take(&upload(d, &[5i64, 0, 1 << 40, -(1 << 40)]), DType::I64), [5.0, 0.0, 5.0, 0.0]);
        assert_eq!(take(&upload(d, &[4.9f64, 1.0, 1e300, -1e300]), DType::F64), [4.0, 1.0, 5.0, 0.0]);
    });
}
