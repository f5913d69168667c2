//! Movement by index arrays, random fills and optimizer updates against the kernels of the CPU.

use crate::shaders::elem::Span;
use crate::shaders::index::launch_take;
use crate::shaders::index::{
    Meet, Places, launch_choose, launch_one_hot, launch_pick, launch_pick_grad, launch_put,
};
use crate::shaders::random::{Draw, launch_random};
use crate::shaders::testing::*;
use crate::shaders::update::{self, Arrays, Rates, Step, launch_update};
use mxrs_base::{DType, Elem, f16};
use mxrs_gpu::Device;
use mxrs_kernels::index as cpu;
use mxrs_kernels::philox::Stream;
use mxrs_kernels::{sample, update as rules};
use smallvec::smallvec;

/// Runs `launch` into `n` elements between two that must stay as they are.
fn into<O: Elem>(d: &Device, n: usize, launch: impl FnOnce(Span)) -> Vec<O> {
    let y = upload(d, &vec![O::default(); n + 2]);
    launch(Span { buffer: &y, dtype: O::DTYPE, offset: 1 });
    let got = download::<O>(d, &y);
    assert!(got[0] == O::default() && got[n + 1] == O::default(), "written outside");
    got[1..=n].to_vec()
}

/// Indices from -2 to `size` + 1, many of them equal.
fn indices(n: usize, size: usize) -> Vec<f32> {
    numbers(n, 5).iter().map(|v| ((v + 2.0) / 4.0 * (size + 4) as f32).floor() - 2.0).collect()
}

fn adds_up(
    d: &Device,
    places: Places,
    (outer, n, inner): (usize, usize, usize),
    at: &[f32],
    found: &[usize],
) {
    let size = places.count();
    let (head, x) = (numbers(outer * n * inner, 1), numbers(outer * size * inner, 2));
    let (at, head_b, x_b) = (upload(d, at), upload(d, &head), upload(d, &x));
    let (at, head_s, x_s) = (span::<f32>(&at), span::<f32>(&head_b), span::<f32>(&x_b));

    let got = into::<f32>(d, outer * n * inner, |y| {
        launch_take(d, places, n, at, x_s, (outer, inner), y, "take").unwrap()
    });
    let mut want = vec![0.0; outer * n * inner];
    cpu::take::<u32>(words(&x), found, outer, size, inner, words_mut(&mut want));
    assert_eq!(got, want, "take {places:?}");

    let put = |meet, old| {
        into::<f32>(d, outer * size * inner, |y| {
            launch_put(d, (places, meet), (at, n), head_s, old, (outer, inner), y, "put").unwrap()
        })
    };
    let mut want = vec![0.0; outer * size * inner];
    cpu::take_grad(&head, found, outer, size, inner, &mut want);
    // The same order of the same additions.
    assert_eq!(put(Meet::Sum, None), want, "sum {places:?}");
    if outer == 1 {
        let mut want = vec![0.0; size * inner];
        cpu::scatter_rows::<u32>(words(&head), found, inner, words_mut(&mut want));
        assert_eq!(put(Meet::Last, None), want, "last {places:?}");
        let mut want = x.clone();
        cpu::scatter_rows::<u32>(words(&head), found, inner, words_mut(&mut want));
        assert_eq!(put(Meet::Replace, Some(x_s)), want, "replace {places:?}");
    }
}

fn span<T: Elem>(buffer: &mxrs_gpu::Buffer) -> Span<'_> {
    Span::new(buffer, T::DTYPE)
}
fn words(v: &[f32]) -> &[u32] {
    mxrs_kernels::parts::units(mxrs_kernels::parts::bytes_of(v))
}
fn words_mut(v: &mut [f32]) -> &mut [u32] {
    mxrs_kernels::parts::units_mut(mxrs_kernels::parts::bytes_of_mut(v))
}

#[test]
fn slices_are_taken_and_put() {
    on_devices(|d| {
        for (outer, size, inner, n) in
            [(1, 7, 5, 3), (1, 40, 3, 1000), (3, 11, 1, 70), (2, 5, 4, 1), (1, 3, 2, 4097)]
        {
            let at = indices(n, size);
            let found = cpu::resolve(&at, 0, size, cpu::Mode::Clip).unwrap();
            adds_up(d, Places::Clip(size), (outer, n, inner), &at, &found);
            let found = cpu::resolve(&at, 0, size, cpu::Mode::Wrap).unwrap();
            adds_up(d, Places::Wrap(size), (outer, n, inner), &at, &found);
        }
        let at: Vec<f32> = indices(2 * 90, 3).iter().map(|v| v.clamp(-3.0, 2.0)).collect();
        let found = cpu::flatten_nd(&at, &[4, 3]).unwrap();
        adds_up(d, Places::Coordinates(&[4, 3]), (1, 90, 5), &at, &found);
    });
}

#[test]
fn elements_are_picked_and_chosen() {
    on_devices(|d| {
        let (outer, size, inner) = (5, 7, 3);
        let at = indices(outer * inner, size);
        let (x, head) = (numbers(outer * size * inner, 1), numbers(outer * inner, 2));
        let found = cpu::resolve(&at, 0, size, cpu::Mode::Clip).unwrap();
        let (at_b, x_b, head_b) = (upload(d, &at), upload(d, &x), upload(d, &head));
        let (at_s, x_s, head_s) = (span::<f32>(&at_b), span::<f32>(&x_b), span::<f32>(&head_b));
        let (places, sizes) = (Places::Clip(size), (outer, size, inner));
        let got =
            into::<f32>(d, outer * inner, |y| launch_pick(d, places, at_s, x_s, sizes, y, "pick").unwrap());
        let mut want = vec![0.0; outer * inner];
        cpu::pick::<u32>(words(&x), &found, outer, size, inner, words_mut(&mut want));
        assert_eq!(got, want);
        let got =
            into::<f32>(d, x.len(), |y| launch_pick_grad(d, places, at_s, head_s, sizes, y, "grad").unwrap());
        let mut want = vec![0.0; x.len()];
        cpu::pick_grad::<f32>(&head, &found, outer, size, inner, &mut want);
        assert_eq!(got, want);
        let got = into::<u8>(d, at.len() * 4, |y| {
            launch_one_hot(d, at.len(), 4, at_s, (2.0, 1.0), y, "hot").unwrap()
        });
        let mut want = vec![0u8; at.len() * 4];
        let whole: Vec<i64> = at.iter().map(|v| *v as i64).collect();
        cpu::one_hot::<i64, u8>(&whole, 4, 2, 1, &mut want);
        assert_eq!(got, want);
        let n = outer * inner;
        let got =
            into::<f32>(d, n, |y| launch_choose(d, (at_s, 1), Some(head_s), None, (y, n), "choose").unwrap());
        let want: Vec<f32> = at.iter().zip(&head).map(|(c, h)| if *c != 0.0 { *h } else { 0.0 }).collect();
        assert_eq!(got, want);
    });
}

#[test]
fn streams_are_the_hosts() {
    on_devices(|d| {
        let stream = Stream::new(0x1234_5678_9abc_def0, 0x7_0000_0003);
        for n in [1, 63, 1000, 4099] {
            let fill = |draw| {
                into::<f32>(d, n, |y| {
                    launch_random(d, draw, (stream.seed, stream.offset), n, y, "random").unwrap()
                })
            };
            let mut want = vec![0f32; n];
            sample::uniform(stream, &[-1.0], &[3.0], &mut want);
            assert_close(&fill(Draw::Uniform { low: -1.0, high: 3.0 }), &want, 1e-6, "uniform");
            sample::normal(stream, &[0.5], &[2.0], &mut want);
            assert_close(&fill(Draw::Normal { loc: 0.5, scale: 2.0 }), &want, 2e-6, "normal");
            for p in [0.25, 0.5, 1e-12, 1.0] {
                sample::dropout_mask(stream, p, &mut want);
                assert_close(&fill(Draw::Mask { p }), &want, 0.0, "mask");
            }
            let mut want = vec![0i32; n];
            for (low, high) in [(0i64, 5i64), (-7, 1000), (i32::MIN as i64, i32::MAX as i64)] {
                sample::randint(stream, low, high, &mut want);
                let draw = Draw::Whole { low: low as i32, range: (high - low) as u32 };
                let got = into::<i32>(d, n, |y| {
                    launch_random(d, draw, (stream.seed, stream.offset), n, y, "whole").unwrap()
                });
                assert_eq!(got, want);
            }
        }
    });
}

const RATES: Rates = Rates { lr: 0.1, wd: 0.01, rescale: 0.5, clip: 0.3 };
const COMMON: rules::Common = rules::Common { lr: 0.1, wd: 0.01, rescale: 0.5, clip: 0.3 };

/// One step with `K` states on both.
fn both<const K: usize>(
    d: &Device,
    step: &'static Step,
    values: &[f64],
    host: impl Fn(rules::Arrays<f32, f32, K>),
) {
    const N: usize = 700;
    let (mut w, g) = (numbers(N, 1), numbers(N, 2));
    // Mean squares come first and are larger than squared means.
    let mut states: [Vec<f32>; K] = std::array::from_fn(|k| {
        numbers(N, 3 + k as u32).iter().map(|v| v.abs() * 0.1 + 1.0 - 0.6 * k as f32).collect()
    });
    let (w_b, g_b) = (upload(d, &w), upload(d, &g));
    let state_bs: Vec<_> = states.iter().map(|s| upload(d, s)).collect();
    let arrays = Arrays {
        n: N,
        weight: span::<f32>(&w_b),
        grad: span::<f32>(&g_b),
        states: state_bs.iter().map(span::<f32>).collect(),
        master: None,
        rates: smallvec![],
    };
    launch_update(d, step, RATES, values, &arrays, step.name).unwrap();
    host(rules::Arrays {
        weight: &mut w,
        grad: &g,
        states: states.each_mut().map(|s| &mut s[..]),
        master: None,
    });
    assert_close(&download::<f32>(d, &w_b), &w, 2e-6, step.name);
    for (s, b) in states.iter().zip(&state_bs) {
        assert_close(&download::<f32>(d, b), s, 2e-6, step.name);
    }
    // A state that is the gradient too.
    if K > 0 {
        let shared = Arrays { states: smallvec![span::<f32>(&g_b); K], ..arrays };
        assert!(launch_update(d, step, RATES, values, &shared, step.name).is_err());
    }
}

#[test]
fn updates_are_the_hosts() {
    on_devices(|d| {
        let m = rules::Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let c = rules::Centered { gamma1: 0.95, gamma2: 0.9, epsilon: 1e-8, clip_weights: 0.5 };
        both::<0>(d, &update::SGD, &[], |a| rules::sgd(a, &COMMON));
        both::<0>(d, &update::SIGNSGD, &[], |a| rules::signsgd(a, &COMMON));
        both::<1>(d, &update::SGD_MOM, &[0.9], |a| rules::sgd_mom(a, &COMMON, 0.9));
        both::<1>(d, &update::NAG_MOM, &[0.9], |a| rules::nag_mom(a, &COMMON, 0.9));
        both::<1>(d, &update::SIGNUM, &[0.9, 0.1], |a| rules::signum(a, &COMMON, 0.9, 0.1));
        both::<1>(d, &update::ADAGRAD, &[1e-7], |a| rules::adagrad(a, &COMMON, 1e-7));
        both::<1>(d, &update::RMSPROP, &[0.95, 1e-8, 0.5], |a| rules::rmsprop(a, &COMMON, 0.95, 1e-8, 0.5));
        both::<2>(d, &update::ADAM, &[0.9, 0.999, 1e-8], |a| rules::adam(a, &COMMON, &m));
        both::<2>(d, &update::ADAMW, &[0.9, 0.999, 1e-8, 0.7], |a| rules::adamw(a, &COMMON, &m, 0.7));
        both::<2>(d, &update::FTRL, &[0.01, 1.0], |a| rules::ftrl(a, &COMMON, 0.01, 1.0));
        both::<3>(d, &update::RMSPROP_ALEX, &[0.95, 0.9, 1e-8, 0.5], |a| rules::rmspropalex(a, &COMMON, &c));
        let (scale, unbias) = ((1.0 - 0.9f64.powi(3)) / 0.1, 1.0 - 0.999f64.powi(3));
        both::<3>(d, &update::FTML, &[0.9, 0.999, 1e-8, scale, unbias], |a| rules::ftml(a, &COMMON, &m, 3));
    });
}

#[test]
fn a_master_copy_is_rounded_into_the_weight() {
    on_devices(|d| {
        if !d.features().f16 {
            return;
        }
        let (master, g) = (numbers(100, 1), numbers(100, 2));
        let half = |v: &[f32]| v.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>();
        let (w, grad, m) = (upload(d, &half(&master)), upload(d, &half(&g)), upload(d, &master));
        let arrays = Arrays {
            n: 100,
            weight: Span::new(&w, DType::F16),
            grad: Span::new(&grad, DType::F16),
            states: smallvec![],
            master: Some(span::<f32>(&m)),
            rates: smallvec![],
        };
        launch_update(d, &update::SGD, RATES, &[], &arrays, "mp_sgd").unwrap();
        let mut want = master.clone();
        let g: Vec<f32> = half(&g).iter().map(|v| v.to_f32()).collect();
        rules::sgd(rules::Arrays { weight: &mut want, grad: &g, states: [], master: None }, &COMMON);
        assert_close(&download::<f32>(d, &m), &want, 2e-6, "master");
        let rounded: Vec<f32> = download::<f16>(d, &w).iter().map(|v| v.to_f32()).collect();
        assert_close(&rounded, &want, 1e-3, "weight");
    });
}
