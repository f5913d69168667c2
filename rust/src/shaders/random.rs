//! Random numbers of the host's streams: Philox4x32-10 (Salmon and others 2011), counter by counter.
//!
//! Block `16 g + l` of a stream gives elements `64 g + 16 w + l` for its words `w`, as on the host
//! (`mxrs_kernels::philox`), so a fill is the same on every device, up to rounding. An invocation computes a block and
//! writes its elements; neighbours write neighbours. What is drawn when is `random`'s and `dropout`'s business.

use crate::shaders::copy::launch_cast;
use crate::shaders::elem::{self, Num, Span};
use mxrs_base::{DType, Result};
use mxrs_gpu::{Device, Key, Params, Shader, Slot, linear_groups};

/// What is made of the words.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Draw {
    /// Uniform on [low, high).
    Uniform { low: f64, high: f64 },
    /// Normal, by Box and Muller's transform.
    Normal { loc: f64, scale: f64 },
    /// 1 / (1 - p) with probability 1 - p, else 0; not-a-number at p = 1.
    Mask { p: f64 },
    /// Whole numbers from `low` on, below `low + range`; 64 bits decide each.
    Whole { low: i32, range: u32 },
}

impl Draw {
    /// (number, words of parameters)
    fn words(self) -> (u64, [u32; 4]) {
        let bits = |v: f64| (v as f32).to_bits();
        match self {
            Draw::Uniform { low, high } => (0, [bits(low), bits(high - low), 0, 0]),
            Draw::Normal { loc, scale } => (1, [bits(loc), bits(scale), 0, 0]),
            Draw::Mask { p } => {
                let keep = 1.0 - p;
                let bound = (keep * 4_294_967_296.0).round();
                let (all, scale) = (bound >= 4_294_967_296.0, (1.0 / keep) as f32);
                (2, [scale.to_bits(), (0.0 * scale).to_bits(), bound as u32, all as u32])
            }
            Draw::Whole { low, range } => (3, [0, 0, low as u32, range]),
        }
    }
    fn text(self) -> &'static str {
        match self {
            Draw::Uniform { .. } => UNIFORM,
            Draw::Normal { .. } => NORMAL,
            Draw::Mask { .. } => MASK,
            Draw::Whole { .. } => WHOLE,
        }
    }
}

/// Fills `y` with `n` elements of the stream (seed, offset).
///
/// # Errors
/// Where the type is not one of GPUs or there are more than 2^32 elements.
pub fn launch_random(
    device: &Device,
    draw: Draw,
    (seed, offset): (u64, u64),
    n: usize,
    y: Span,
    label: &'static str,
) -> Result<()> {
    elem::check_dtype(y.dtype, label)?;
    if n == 0 {
        return Ok(());
    }
    if elem::is_packed(y.dtype) {
        let whole = device.alloc(4 * n as u64)?;
        let between = Span::new(&whole, DType::F32);
        launch_random(device, draw, (seed, offset), n, between, label)?;
        return launch_cast(device, n, between, y, label);
    }
    let (kind, words) = draw.words();
    let pairs = matches!(draw, Draw::Whole { .. });
    let pipeline = device.pipeline(&Key::new("random").with(kind << 8 | y.dtype as u64), || {
        let shader =
            Shader::new(format!("random {}", ["uniform", "normal", "mask", "whole"][kind as usize]), "");
        let mut shader = shader.slot(Slot::write("y", elem::element(y.dtype)));
        for name in ["n", "o_y", "seed0", "seed1", "offset0", "offset1"] {
            shader = shader.param(name, "u32");
        }
        for (name, kind) in [("a", "f32"), ("b", "f32"), ("c", "u32"), ("d", "u32")] {
            shader = shader.param(name, kind);
        }
        let num = if pairs { Num::I32 } else { Num::F32 };
        let store = format!(
            "fn store(e: u32, v: {}) {{\n    if (e < p.n) {{ y[p.o_y + e] = {}; }}\n}}\n",
            num.wgsl(),
            elem::pack(y.dtype, num, "v")
        );
        let text = include_str!("philox.wgsl").to_string()
            + &store
            + draw.text()
            + if pairs { PAIRS } else { FOURS };
        shader.body = (elem::helpers_for(&text) + &text).into();
        Ok(shader)
    })?;
    let mut params = Params::new().size(n)?.size(y.offset)?;
    for word in [seed, seed >> 32, offset, offset >> 32] {
        params.push(word as u32);
    }
    words.iter().for_each(|word| params.push(*word));
    // Groups of 64 elements are computed whole.
    let blocks = if pairs { n.div_ceil(2) } else { n.div_ceil(64) * 16 };
    device.dispatch(&pipeline, &[y.buffer], params, linear_groups(blocks.div_ceil(256) as u64)?, label)
}

const FOURS: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 256u + local;
    let first = t / 16u * 64u + t % 16u;
    if (first >= p.n) { return; }
    let v = values(philox(t));
    store(first, v.x);
    store(first + 16u, v.y);
    store(first + 32u, v.z);
    store(first + 48u, v.w);
}
";

const PAIRS: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 256u + local;
    if (t >= (p.n + 1u) / 2u) { return; }
    let w = philox(t);
    store(2u * t, below(w.x, w.y));
    store(2u * t + 1u, below(w.z, w.w));
}
";

const UNIFORM: &str = "fn values(w: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unit(w.x), unit(w.y), unit(w.z), unit(w.w)) * p.b + p.a;
}
";

const MASK: &str = "fn values(w: vec4<u32>) -> vec4<f32> {
    return select(vec4<f32>(p.b), vec4<f32>(p.a), (w < vec4<u32>(p.c)) | vec4<bool>(p.d == 1u));
}
";

const WHOLE: &str = "fn below(low: u32, high: u32) -> i32 {
    let part = high * p.d;
    let sum = part + high_product(low, p.d);
    return bitcast<i32>(p.c + high_product(high, p.d) + select(0u, 1u, sum < part));
}
";

const NORMAL: &str = concat!(
    include_str!("real.wgsl"),
    "fn pair(radius: u32, angle: u32) -> vec2<f32> {
    let u = (f32(radius >> 1u) + 0.25) * (1.0 / 2147483648.0);
    return sqrt(max(-2.0 * logarithm(u), 0.0)) * turned(unit(angle));
}
fn values(w: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(pair(w.x, w.y), pair(w.z, w.w)) * p.b + p.a;
}
"
);
