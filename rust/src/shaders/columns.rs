//! The windows of a convolution as columns, and their sum back into the image: one to three axes.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use mxrs_base::Result;
use mxrs_gpu::Device;

/// One axis of the image and of its windows.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilate: usize,
    pub pad: usize,
    /// How many windows there are.
    pub count: usize,
}

const ALONE: Axis = Axis { size: 1, kernel: 1, stride: 1, dilate: 1, pad: 0, count: 1 };

fn each<'a>(name: &'static str, x: Span<'a>, y: Span<'a>, axes: &[Axis; 3]) -> Result<Each<'a>> {
    let mut each = Each::new(name, y).input("x", x, Read::Value);
    for (d, a) in axes.iter().enumerate() {
        let numbers = [a.size, a.kernel, a.stride, a.dilate, a.pad, a.count];
        for (name, value) in ["size", "kernel", "stride", "dilate", "pad", "count"].into_iter().zip(numbers) {
            each = each.size(format!("{name}{d}"), value)?;
        }
    }
    Ok(each)
}

/// Three axes, those in front of fewer being single places.
fn three(axes: &[Axis]) -> [Axis; 3] {
    let mut all = [ALONE; 3];
    all[3 - axes.len()..].copy_from_slice(axes);
    all
}

fn sizes(axes: &[Axis; 3]) -> [usize; 3] {
    let product = |f: fn(&Axis) -> usize| axes.iter().map(f).product();
    [product(|a| a.size), product(|a| a.kernel), product(|a| a.count)]
}

/// `y` (planes, taps, windows) of `x` (planes, size); zeros around the image.
pub fn launch_columns(
    device: &Device,
    planes: usize,
    axes: &[Axis],
    (x, y): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let axes = three(axes);
    let [_, taps, windows] = sizes(&axes);
    let body = || {
        "fn element(e: u32) -> VALUE {
    let windows = p.count0 * p.count1 * p.count2;
    let taps = p.kernel0 * p.kernel1 * p.kernel2;
    let w = e % windows;
    let t = e / windows % taps;
    // Before the image a place wraps and is too large.
    let i = w / p.count2 / p.count1 * p.stride0 + t / p.kernel2 / p.kernel1 * p.dilate0 - p.pad0;
    let j = w / p.count2 % p.count1 * p.stride1 + t / p.kernel2 % p.kernel1 * p.dilate1 - p.pad1;
    let k = w % p.count2 * p.stride2 + t % p.kernel2 * p.dilate2 - p.pad2;
    if (i >= p.size0 || j >= p.size1 || k >= p.size2) { return VALUE(0); }
    return x(((e / windows / taps * p.size0 + i) * p.size1 + j) * p.size2 + k);
}\n"
        .into()
    };
    each("columns", x, y, &axes)?.launch(device, planes * taps * windows, body, label)
}

/// `y` (planes, size) of columns `x` (planes, taps, windows): for each element a sum over the taps that reach it.
pub fn launch_image(
    device: &Device,
    planes: usize,
    axes: &[Axis],
    (x, y): (Span, Span),
    label: &'static str,
) -> Result<()> {
    let axes = three(axes);
    let [size, _, _] = sizes(&axes);
    let body = || {
        let mut text = String::new();
        for d in 0..3 {
            // The window whose tap `t` is place `i`; too large where there is none.
            text += &format!(
                "fn window{d}(i: u32, t: u32) -> u32 {{
    let place = i + p.pad{d};
    let back = t * p.dilate{d};
    if (back > place || (place - back) % p.stride{d} != 0u) {{ return 0xffffffffu; }}
    return (place - back) / p.stride{d};
}}\n"
            );
        }
        text + "fn element(e: u32) -> VALUE {
    let windows = p.count0 * p.count1 * p.count2;
    let taps = p.kernel0 * p.kernel1 * p.kernel2;
    let base = e / p.size2 / p.size1 / p.size0 * taps;
    var sum = VALUE(0);
    for (var a = 0u; a < p.kernel0; a++) {
        let i = window0(e / p.size2 / p.size1 % p.size0, a);
        if (i >= p.count0) { continue; }
        for (var b = 0u; b < p.kernel1; b++) {
            let j = window1(e / p.size2 % p.size1, b);
            if (j >= p.count1) { continue; }
            for (var c = 0u; c < p.kernel2; c++) {
                let k = window2(e % p.size2, c);
                if (k >= p.count2) { continue; }
                let tap = (a * p.kernel1 + b) * p.kernel2 + c;
                sum += x((base + tap) * windows + (i * p.count1 + j) * p.count2 + k);
            }
        }
    }
    return sum;
}\n"
    };
    each("image of columns", x, y, &axes)?.launch(device, planes * size, body, label)
}
