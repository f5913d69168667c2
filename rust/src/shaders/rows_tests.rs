//! Softmax, normalization and pooling against the kernels of the CPU, over sizes that take one lane, many, and segments.

use crate::shaders::channels::launch_channels_grad;
use crate::shaders::elem::Span;
use crate::shaders::norm::Moving;
use crate::shaders::rows::{Around, Rows};
use crate::shaders::testing::*;
use crate::shaders::{norm, pool, softmax};
use mxrs_base::DType;
use mxrs_gpu::{Buffer, Device};
use mxrs_kernels::norm as cpu_norm;
use mxrs_kernels::pool::{Convention, PoolGeom, PoolKind, pool_forward, pool_grad};
use mxrs_kernels::softmax::{self as cpu_softmax, Kind};

const SIZES: [Around; 6] = [(3, 5, 1), (2, 70, 33), (1, 3000, 1), (70, 3, 1), (2, 3, 40000), (3000, 5, 1)];
/// Rows that workgroups share.
const LONG: [Around; 2] = [(2, 40_000, 1), (1, 20_000, 3)];

fn room(d: &Device, n: usize) -> Buffer {
    upload(d, &vec![0f32; n])
}

fn span(buffer: &Buffer) -> Span<'_> {
    Span::new(buffer, DType::F32)
}

fn len((outer, n, inner): Around) -> usize {
    outer * n * inner
}

#[test]
fn softmax_and_its_gradient() {
    on_devices(|d| {
        for around in SIZES.into_iter().chain(LONG) {
            for kind in [Kind::Softmax, Kind::LogSoftmax, Kind::Softmin] {
                let (x, head) = (numbers(len(around), 1), numbers(len(around), 2));
                let (mut y, mut dx) = (vec![0f32; x.len()], vec![0f32; x.len()]);
                cpu_softmax::softmax(kind, &x, around, 1.5, None, &mut y);
                cpu_softmax::softmax_grad(kind, &y, &head, around, 1.5, None, &mut dx);
                let (xs, ys) = (upload(d, &x), room(d, x.len()));
                softmax::launch_softmax(d, kind, around, 1.5, span(&xs), None, span(&ys), "y").unwrap();
                assert_close(&download(d, &ys), &y, 1e-5, &format!("{kind:?} {around:?}"));
                let (ys, heads, dxs) = (upload(d, &y), upload(d, &head), room(d, x.len()));
                let pair = (span(&ys), span(&heads));
                softmax::launch_softmax_grad(d, kind, around, 1.5, pair, None, span(&dxs), "dx").unwrap();
                assert_close(&download(d, &dxs), &dx, 1e-5, &format!("gradient of {kind:?} {around:?}"));
            }
        }
    });
}

#[test]
fn moments_where_the_mean_is_large() {
    on_devices(|d| {
        for around in SIZES {
            let x: Vec<f32> = numbers(len(around), 3).iter().map(|v| v + 500.0).collect();
            let (mut mean, mut var) = (vec![0f32; around.1], vec![0f32; around.1]);
            cpu_norm::batch_moments(&x, around, &mut mean, &mut var);
            let (xs, means, stds) = (upload(d, &x), room(d, around.1), room(d, around.1));
            let (how, outs) = ((norm::Deviation::Plain, 0.0), [span(&means), span(&stds)]);
            norm::launch_moments(d, &Rows::across(around), span(&xs), how, outs, "moments").unwrap();
            assert_close(&download(d, &means), &mean, 1e-6, &format!("mean {around:?}"));
            let std: Vec<f32> = var.iter().map(|v| v.sqrt()).collect();
            assert_close(&download(d, &stds), &std, 1e-4, &format!("deviation {around:?}"));
        }
    });
}

#[test]
fn gradients_of_channels() {
    on_devices(|d| {
        // A channel of one element has no gradient: only rounding would be compared.
        for around in SIZES.into_iter().filter(|(outer, _, inner)| outer * inner > 1) {
            let (n, channels) = (len(around), around.1);
            let (x, head, gamma) = (numbers(n, 4), numbers(n, 5), numbers(channels, 6));
            let (mut mean, mut var) = (vec![0f32; channels], vec![0f32; channels]);
            cpu_norm::batch_moments(&x, around, &mut mean, &mut var);
            let mut rstd = vec![0f32; channels];
            cpu_norm::inverse_std(&var, 1e-3, &mut rstd);
            let of = [&x, &head, &mean, &rstd].map(|v| upload(d, v));
            for fixed in [false, true] {
                let mut want = [vec![0f32; n], vec![0f32; channels], vec![0f32; channels]];
                let [dx, dgamma, dbeta] = &mut want;
                let given = Some(&gamma[..]);
                cpu_norm::batch_grad(&x, &head, around, &mean, &rstd, given, fixed, Some(dx), dgamma, dbeta);
                let (gammas, outs) = (upload(d, &gamma), [n, channels, channels].map(|n| room(d, n)));
                let [a, b, c, e] = &of;
                let ins = [span(a), span(b), span(c), span(e)];
                let to = [span(&outs[0]), span(&outs[1]), span(&outs[2])];
                let gammas = Some(span(&gammas));
                // The statistics that move, where the batch has its own.
                let old = numbers(channels, 7);
                let (m, v) = (upload(d, &old), upload(d, &old));
                let [moving_mean, moving_var] = [span(&m), span(&v)];
                let [mean_of, rstd_of] = [ins[2], ins[3]];
                let (momentum, eps) = (0.75, 1e-3);
                let moving = Moving { mean: mean_of, rstd: rstd_of, moving_mean, moving_var, momentum, eps };
                let moving = (!fixed).then_some(moving);
                launch_channels_grad(d, around, ins, gammas, fixed, moving, to, "gradient").unwrap();
                for (buffer, batch) in [(&m, &mean), (&v, &var)] {
                    let moved = |(a, b): (&f32, &f32)| if fixed { *a } else { 0.75 * a + 0.25 * b };
                    let want: Vec<f32> = old.iter().zip(batch).map(moved).collect();
                    assert_close(&download(d, buffer), &want, 1e-4, &format!("moved, {around:?}"));
                }
                for (got, want) in outs.iter().zip(&want) {
                    assert_close(&download(d, got), want, 2e-4, &format!("{around:?}, fixed {fixed}"));
                }
            }
        }
    });
}

#[test]
fn pooling_and_its_gradient() {
    let geometry = |convention, pad| {
        PoolGeom::new((6, 1), &[9, 8], (&[3, 2], &[2, 3], &[pad, pad]), convention).expect("it fits")
    };
    on_devices(|d| {
        for g in
            [geometry(Convention::Valid, 1), geometry(Convention::Full, 0), geometry(Convention::Same, 1)]
        {
            for kind in [PoolKind::Max, PoolKind::Avg { include_pad: true }, PoolKind::Sum, PoolKind::Lp(2)] {
                let x: Vec<f32> = numbers(g.data_len(), 7).iter().map(|v| v.abs() + 0.1).collect();
                let head = numbers(g.out_len(), 8);
                let (mut y, mut dx) = (vec![0f32; head.len()], vec![0f32; x.len()]);
                pool_forward(&g, kind, &x, &mut y);
                pool_grad(&g, kind, (&x, &y, &head), false, &mut dx);
                let (xs, heads) = (upload(d, &x), upload(d, &head));
                let (ys, dxs) = (room(d, y.len()), room(d, x.len()));
                pool::launch_pool(d, &g, kind, span(&xs), span(&ys), "pool").unwrap();
                pool::launch_pool_grad(d, &g, kind, span(&xs), span(&heads), span(&dxs), "gradient").unwrap();
                assert_close(&download(d, &ys), &y, 1e-6, &format!("{kind:?} {g:?}"));
                assert_close(&download(d, &dxs), &dx, 1e-5, &format!("gradient of {kind:?} {g:?}"));
            }
        }
    });
}
