//! CTC against the kernel of the CPU: samples and labels of many lengths, and labels that nothing aligns with.

use crate::shaders::ctc::{Batch, Ctc, launch_ctc, launch_ctc_grad};
use crate::shaders::elem::Span;
use crate::shaders::testing::*;
use mxrs_base::DType;
use mxrs_kernels::loss::{ctc_loss, scale_samples};

#[test]
fn loss_and_gradient() {
    on_devices(|d| {
        for (steps, batch, classes, width, blank_first) in
            [(5, 3, 4, 2, true), (60, 4, 12, 20, false), (9, 2, 5, 7, true), (200, 2, 30, 150, false)]
        {
            let how = Ctc { steps, batch, classes, label_width: width, blank_first };
            let x = numbers(steps * batch * classes, 1);
            let first = i32::from(blank_first);
            let symbol = |v: &f32| first + (v.abs() * 1000.0) as i32 % (classes as i32 - 1);
            let mut labels: Vec<i32> = numbers(batch * width, 2).iter().map(symbol).collect();
            // The second sample's label ends early, by padding.
            labels[width + width / 2..2 * width].fill(if blank_first { 0 } else { -1 });
            let lengths: Vec<i64> = (0..batch as i64).map(|i| (steps as i64 - i).max(0)).collect();
            let (mut loss, mut grad) = (vec![0f32; batch], vec![0f32; x.len()]);
            ctc_loss(&how, &x, &labels, Some(&lengths), None, &mut loss, Some(&mut grad));
            let head = numbers(batch, 3);
            scale_samples(&how, &head, &mut grad);

            let lengths: Vec<i32> = lengths.iter().map(|v| *v as i32).collect();
            let (xs, ls, ns, heads) =
                (upload(d, &x), upload(d, &labels), upload(d, &lengths), upload(d, &head));
            let (losses, grads) = (upload(d, &vec![9f32; batch]), upload(d, &vec![9f32; x.len()]));
            let of = Batch {
                data: Span::new(&xs, DType::F32),
                labels: Span::new(&ls, DType::I32),
                data_lengths: Some(Span::new(&ns, DType::I32)),
                label_lengths: None,
            };
            launch_ctc(d, &how, of, Span::new(&losses, DType::F32), "ctc").unwrap();
            let (head, to) = (Span::new(&heads, DType::F32), Span::new(&grads, DType::F32));
            launch_ctc_grad(d, &how, of, (head, to), "gradient").unwrap();
            assert_close(&download(d, &losses), &loss, 1e-5, &format!("loss {how:?}"));
            assert_close(&download(d, &grads), &grad, 2e-4, &format!("gradient {how:?}"));
        }
    });
}
