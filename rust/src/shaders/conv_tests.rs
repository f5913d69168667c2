//! Convolutions and their gradients against those of the CPU.

use crate::shaders::conv::{Channels, launch_conv, launch_conv_data, launch_conv_weight};
use crate::shaders::elem::Span;
use crate::shaders::epilogue::{Bias, Epilogue, Finish, Other};
use crate::shaders::testing::*;
use mxrs_base::DType;
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device, Profile};
use mxrs_kernels::conv::{self, ConvGeom, Window};

/// (images, (channels, filters, groups), extents, kernel, stride, dilate, pad)
type Case = (
    usize,
    (usize, usize, usize),
    &'static [usize],
    &'static [usize],
    &'static [usize],
    &'static [usize],
    &'static [usize],
);

const CASES: [Case; 11] = [
    (2, (3, 8, 1), &[9, 11], &[3, 3], &[1, 1], &[1, 1], &[1, 1]),
    (1, (4, 6, 2), &[8, 7], &[3, 2], &[2, 1], &[1, 2], &[0, 1]),
    (2, (5, 7, 1), &[6, 6], &[1, 1], &[1, 1], &[1, 1], &[0, 0]),
    (3, (6, 6, 6), &[10, 9], &[3, 3], &[2, 2], &[1, 1], &[1, 1]),
    (2, (4, 8, 4), &[7, 7], &[5, 3], &[1, 2], &[1, 1], &[2, 1]),
    (1, (3, 16, 1), &[30, 28], &[7, 7], &[2, 2], &[1, 1], &[3, 3]),
    (2, (3, 5, 1), &[20], &[4], &[3], &[2], &[2]),
    (1, (2, 5, 1), &[5, 6, 7], &[3, 2, 3], &[2, 1, 1], &[1, 1, 2], &[1, 0, 2]),
    (4, (64, 40, 1), &[16, 16], &[3, 3], &[1, 1], &[1, 1], &[1, 1]),
    (1, (20, 70, 1), &[5, 5], &[3, 3], &[2, 2], &[1, 1], &[1, 1]),
    (1, (40, 20, 2), &[12, 12], &[3, 3], &[1, 1], &[2, 2], &[2, 2]),
];

fn geometry(case: &Case) -> ConvGeom {
    let (batch, sizes, extents, kernel, stride, dilate, pad) = *case;
    ConvGeom::new(batch, sizes, extents, Window { kernel, stride, dilate, pad }).unwrap()
}

fn span(buffer: &Buffer) -> Span<'_> {
    Span::new(buffer, DType::F32)
}

/// Every case on a device with all it has, the first few on the others.
fn each_case(test: impl Fn(&Device, &ConvGeom, &[f32], &[f32], &[f32], &str)) {
    let run = |d: &Device, cases: &[Case]| {
        for case in cases {
            let g = geometry(case);
            let (x, w, dy) = (numbers(g.data_len(), 1), numbers(g.weight_len(), 2), numbers(g.out_len(), 3));
            test(d, &g, &x, &w, &dy, &format!("{case:?}"));
        }
    };
    on_profiles(&[Profile::Full], |d| run(d, &CASES));
    on_profiles(&[Profile::WebGpu, Profile::Metal], |d| run(d, &CASES[..4]));
}

#[test]
fn forward_agrees_with_the_cpu() {
    each_case(|d, g, x, w, _, what| {
        let bias = numbers(g.filters, 4);
        let mut want = vec![0.0; g.out_len()];
        conv::conv_forward(g, x, w, Some(&bias), false, &mut want, conv::UNHEARD);
        want.iter_mut().for_each(|v| *v = v.max(0.0));
        let (bx, bw, bb, by) =
            (upload(d, x), upload(d, w), upload(d, &bias), upload(d, &vec![9.0f32; want.len()]));
        let relu = Formula::build(1, &[], |a| a.x(0).relu());
        let epilogue =
            Epilogue { bias: Bias::Rows(span(&bb)), finish: Some(Finish::of(&relu, &[])), ..Epilogue::NONE };
        launch_conv(d, (g, Channels::First), span(&bx), span(&bw), span(&by), &epilogue, "Convolution")
            .unwrap();
        assert_close(&download::<f32>(d, &by), &want, 3e-6, what);
    });
}

/// A residual sum, a number per filter, one per image and a single one, all behind the convolution.
#[test]
fn other_arrays_join_behind() {
    each_case(|d, g, x, w, _, what| {
        let mut want = vec![0.0; g.out_len()];
        conv::conv_forward(g, x, w, None, false, &mut want, conv::UNHEARD);
        let more = [numbers(want.len(), 5), numbers(g.filters, 6), numbers(g.batch, 7), numbers(1, 8)];
        let plane = g.out_plane();
        for (e, v) in want.iter_mut().enumerate() {
            let [same, filter, image, one] = &more;
            let filter = filter[e / plane % g.filters];
            *v = (same[e] - *v * filter + image[e / plane / g.filters] * 2.0 + one[0]).max(0.0);
        }
        let formula = Formula::build(5, &["scale"], |a| {
            (a.x(0) - a.x(1) * a.x(2) + a.x(3) * a.param("scale") + a.x(4)).relu()
        });
        let (bx, bw, by) = (upload(d, x), upload(d, w), upload(d, &vec![9.0f32; want.len()]));
        let held: Vec<Buffer> = more.iter().map(|v| upload(d, v)).collect();
        let dims = [g.batch, g.filters, plane];
        let shapes: [&[usize]; 4] = [&dims, &[g.filters, 1], &[g.batch, 1, 1], &[1]];
        let others: Vec<Other> =
            held.iter().zip(shapes).map(|(b, shape)| Other::over(span(b), shape, &dims).unwrap()).collect();
        let finish = Finish { formula: &formula, params: &[2.0], at: 1, others: &others };
        let epilogue = Epilogue { finish: Some(finish), ..Epilogue::NONE };
        launch_conv(d, (g, Channels::First), span(&bx), span(&bw), span(&by), &epilogue, "Convolution")
            .unwrap();
        assert_close(&download::<f32>(d, &by), &want, 1e-5, what);
    });
}

#[test]
fn repeated_arrays_are_found() {
    on_profiles(&[Profile::Full], |d| {
        let buffer = upload(d, &[0.0f32; 120]);
        let over = |shape: &[usize], dims: &[usize]| {
            Other::over(span(&buffer), shape, dims).map(|o| (o.every, o.count, o.steps(dims)))
        };
        let found = |every, count, steps: &[isize]| Some((every, count, Some(steps.into())));
        assert_eq!(over(&[3, 1, 1], &[2, 3, 4, 5]), found(20, 3, &[0, 1, 0, 0]));
        assert_eq!(over(&[2, 3, 4, 5], &[2, 3, 4, 5]), found(1, 120, &[60, 20, 5, 1]));
        assert_eq!(over(&[4, 1], &[2, 3, 4, 5]), found(5, 4, &[0, 0, 1, 0]));
        assert_eq!(over(&[3, 4, 1], &[2, 3, 4, 5]), found(5, 12, &[0, 4, 1, 0]));
        assert_eq!(over(&[1], &[2, 3]), found(1, 1, &[0, 0]));
        assert_eq!(over(&[2, 1, 4], &[2, 3, 4]), None);
        // Axes taken together: the places of (channel, row) over (image, channel and row, column).
        let other = Other::over(span(&buffer), &[3, 4, 1], &[2, 3, 4, 5]).unwrap();
        assert_eq!(other.steps(&[2, 12, 5]).unwrap()[..], [0, 1, 0]);
        assert_eq!(other.steps(&[24, 5]), None);
    });
}

#[test]
fn data_gradient_agrees_with_the_cpu() {
    each_case(|d, g, _, w, dy, what| {
        let mut want = vec![0.5; g.data_len()];
        conv::conv_data_grad(g, dy, w, true, &mut want);
        let (by, bw, bx) = (upload(d, dy), upload(d, w), upload(d, &vec![0.5f32; want.len()]));
        let epilogue = Epilogue { beta: 1.0, ..Epilogue::NONE };
        launch_conv_data(d, (g, Channels::First), span(&by), span(&bw), span(&bx), &epilogue, "Convolution")
            .unwrap();
        assert_close(&download::<f32>(d, &bx), &want, 3e-6, what);
    });
}

#[test]
fn weight_gradient_agrees_with_the_cpu() {
    each_case(|d, g, x, _, dy, what| {
        for beta in [0.0, 1.0] {
            let mut want = vec![0.25; g.weight_len()];
            conv::conv_weight_grad(g, x, dy, beta != 0.0, &mut want);
            let (bx, by, bw) = (upload(d, x), upload(d, dy), upload(d, &vec![0.25f32; want.len()]));
            launch_conv_weight(d, (g, Channels::First), span(&bx), span(&by), span(&bw), beta, "Convolution")
                .unwrap();
            assert_close(&download::<f32>(d, &bw), &want, 1e-5, what);
        }
    });
}

#[test]
fn a_deconvolution_has_a_bias_too() {
    on_devices(|d| {
        for groups in [1, 2] {
            let window = Window { kernel: &[3, 3], stride: &[2, 2], dilate: &[1, 1], pad: &[1, 1] };
            let g = ConvGeom::deconvolution(2, (6, 4, groups), &[5, 4], window, &[1, 0]).unwrap();
            let (x, w, bias) = (numbers(g.out_len(), 1), numbers(g.weight_len(), 2), numbers(g.channels, 3));
            let mut want = vec![0.0; g.data_len()];
            conv::deconv_forward(&g, &x, &w, Some(&bias), false, &mut want);
            let (bx, bw, bb, by) =
                (upload(d, &x), upload(d, &w), upload(d, &bias), upload(d, &vec![0.0f32; want.len()]));
            let epilogue = Epilogue { bias: Bias::Rows(span(&bb)), ..Epilogue::NONE };
            launch_conv_data(
                d,
                (&g, Channels::First),
                span(&bx),
                span(&bw),
                span(&by),
                &epilogue,
                "Deconvolution",
            )
            .unwrap();
            assert_close(&download::<f32>(d, &by), &want, 3e-6, "deconvolution");
        }
    });
}

/// An array of (images, channels, places) with channels last.
fn turned(x: &[f32], channels: usize, places: usize) -> Vec<f32> {
    let at = |e: usize| (e / channels / places * channels + e % channels) * places + e / channels % places;
    (0..x.len()).map(|e| x[at(e)]).collect()
}

#[test]
fn channels_may_stand_last() {
    each_case(|d, g, x, w, dy, what| {
        let (mut y, mut dx) = (vec![0.0; g.out_len()], vec![0.0; g.data_len()]);
        let mut dw = vec![0.0; g.weight_len()];
        conv::conv_forward(g, x, w, None, false, &mut y, conv::UNHEARD);
        conv::conv_data_grad(g, dy, w, false, &mut dx);
        conv::conv_weight_grad(g, x, dy, false, &mut dw);
        let data = |v: &[f32]| turned(v, g.channels, g.in_plane());
        let result = |v: &[f32]| turned(v, g.filters, g.out_plane());
        let weight = |v: &[f32]| turned(v, g.group_channels(), g.taps());
        let (bx, bw, bd) = (upload(d, &data(x)), upload(d, &weight(w)), upload(d, &result(dy)));
        let (by, bdx) = (upload(d, &vec![9.0f32; y.len()]), upload(d, &vec![9.0f32; dx.len()]));
        let bdw = upload(d, &vec![9.0f32; dw.len()]);
        let (at, none) = ((g, Channels::Last), &Epilogue::NONE);
        launch_conv(d, at, span(&bx), span(&bw), span(&by), none, "Convolution").unwrap();
        launch_conv_data(d, at, span(&bd), span(&bw), span(&bdx), none, "data").unwrap();
        launch_conv_weight(d, at, span(&bx), span(&bd), span(&bdw), 0.0, "weight").unwrap();
        assert_close(&download::<f32>(d, &by), &result(&y), 3e-6, what);
        assert_close(&download::<f32>(d, &bdx), &data(&dx), 3e-6, what);
        assert_close(&download::<f32>(d, &bdw), &weight(&dw), 1e-5, what);
    });
}
