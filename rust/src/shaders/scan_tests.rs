//! Running sums against the kernels of the CPU: rows walked, in one chunk, and in chunks of chunks.

use crate::shaders::elem::Span;
use crate::shaders::scan::launch_scan;
use crate::shaders::testing::*;
use mxrs_base::DType;
use mxrs_kernels::scan::cumsum;

#[test]
fn running_sums() {
    on_devices(|d| {
        for around in [(3, 7, 2), (50, 40, 60), (3, 700, 2), (2, 3000, 1), (1, 1_500_000, 1), (2, 1025, 3)] {
            let n = around.0 * around.1 * around.2;
            let whole: Vec<i32> = numbers(n, 1).iter().map(|v| (v * 1e9) as i32).collect();
            let floats = numbers(n, 2);
            for reverse in [false, true] {
                let what = format!("{around:?}, reverse {reverse}");
                let (mut want, mut sums) = (vec![0i32; n], vec![0f64; n]);
                cumsum(&whole, around, reverse, &mut want);
                let (x, y) = (upload(d, &whole), upload(d, &whole));
                let (x, y) = (Span::new(&x, DType::I32), Span::new(&y, DType::I32));
                launch_scan(d, x, around, reverse, y, "sums").unwrap();
                assert!(download::<i32>(d, y.buffer) == want, "{what}");

                let wide: Vec<f64> = floats.iter().map(|v| *v as f64).collect();
                cumsum(&wide, around, reverse, &mut sums);
                let sums: Vec<f32> = sums.iter().map(|v| *v as f32).collect();
                // In place.
                let x = upload(d, &floats);
                let span = Span::new(&x, DType::F32);
                launch_scan(d, span, around, reverse, span, "sums").unwrap();
                assert_close(&download(d, &x), &sums, 2e-6, &what);
            }
        }
    });
}
