//! Convolutions of one to three spatial dimensions and their gradients; deconvolutions are the data gradient.
//!
//! All three are products whose one side is read through the window (implicit: patches are never written to memory):
//!
//! | | rows i | columns j | summed k | one product per group of |
//! | --- | --- | --- | --- | --- |
//! | forward | filters | images x output places | channels x taps | channels and filters |
//! | data gradient | channels | images x input places | filters x taps | likewise |
//! | weight gradient | filters | channels x taps | images x output places | likewise |
//!
//! With channels last, (channel, tap) and (filter, tap) are counted with the tap outside, so that neighbours of a sum are
//! neighbours in memory there as well.
//!
//! Groups of one channel (depthwise) have products of one row; these go an invocation, or for the weight a workgroup,
//! per result. The window's extents and strides are part of the text, so that divisions by them are cheap.

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::epilogue::Epilogue;
use crate::shaders::matmul::{head, sum_parts};
use crate::shaders::tile::{self, Cut, PARAMS, Sides, TILES};
use mxrs_base::{DType, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use mxrs_kernels::conv::ConvGeom;
use smallvec::SmallVec;

/// Where channels stand among the axes of data, weight and result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channels {
    First,
    Last,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    Forward,
    Data,
    Weight,
}

/// How a product is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Tiled(usize),
    /// An invocation per result.
    Dot,
    /// A workgroup per result.
    Sum,
}

/// `y = conv(x, w)`, then the epilogue; a bias is one number per filter ([`crate::shaders::epilogue::Bias::Rows`]).
///
/// # Errors
/// For elements other than float32 and float16, and sizes that 32 bits do not count.
pub fn launch_conv(
    device: &Device,
    (g, channels): (&ConvGeom, Channels),
    x: Span,
    w: Span,
    y: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    let sizes = (g.group_filters(), g.batch * g.out_plane(), g.depth());
    launch(device, Pass::Forward, (g, channels), sizes, w, x, y, epilogue, label)
}

/// The gradient of the data, `dx`, from that of the output; also a deconvolution, whose bias is one per channel of `g`.
pub fn launch_conv_data(
    device: &Device,
    (g, channels): (&ConvGeom, Channels),
    dy: Span,
    w: Span,
    dx: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    let sizes = (g.group_channels(), g.batch * g.in_plane(), g.group_filters() * g.taps());
    launch(device, Pass::Data, (g, channels), sizes, w, dy, dx, epilogue, label)
}

/// The gradient of the weight, `dw`; `beta` times what it holds is added (0 leaves it unread).
pub fn launch_conv_weight(
    device: &Device,
    (g, channels): (&ConvGeom, Channels),
    x: Span,
    dy: Span,
    dw: Span,
    beta: f32,
    label: &'static str,
) -> Result<()> {
    let sizes = (g.group_filters(), g.depth(), g.batch * g.out_plane());
    launch(device, Pass::Weight, (g, channels), sizes, dy, x, dw, &Epilogue { beta, ..Epilogue::NONE }, label)
}

#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
fn launch(
    device: &Device,
    pass: Pass,
    (g, channels): (&ConvGeom, Channels),
    (m, n, k): (usize, usize, usize),
    a: Span,
    b: Span,
    c: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    epilogue.check([a, b, c], label)?;
    if m * n * g.groups == 0 {
        return Ok(());
    }
    let narrow = m <= 4 && (pass != Pass::Weight || n <= 64);
    let (how, splits) = match narrow {
        true => (if pass == Pass::Weight { How::Sum } else { How::Dot }, 1),
        false => {
            let cut = Cut::of(m, n, k, g.groups, pass == Pass::Weight && epilogue.is_linear());
            (How::Tiled(cut.tile), cut.splits)
        }
    };
    let job = Job { pass, g, channels, sizes: (m, n, k), how, splits };
    if splits == 1 {
        return job.launch(device, a, b, c, epilogue, label);
    }
    let total = g.groups * m * n;
    let parts = device.alloc(4 * (splits * total) as u64)?;
    let between = Span::new(&parts, DType::F32);
    job.launch(device, a, b, between, &Epilogue { beta: 0.0, ..*epilogue }, label)?;
    sum_parts(device, splits, total, between, c, epilogue.beta, label)
}

struct Job<'a> {
    pass: Pass,
    g: &'a ConvGeom,
    channels: Channels,
    sizes: (usize, usize, usize),
    how: How,
    splits: usize,
}

/// The names of the sizes that the texts use, in order, after those of every product.
const SIZES: [&str; 17] = [
    "o_a",
    "o_b",
    "o_c",
    "groups",
    "channels",
    "filters",
    "in_z",
    "in_y",
    "in_x",
    "out_z",
    "out_y",
    "out_x",
    "pad_z",
    "pad_y",
    "pad_x",
    "dilate_zy",
    "dilate_x",
];

impl Job<'_> {
    fn launch(
        &self,
        device: &Device,
        a: Span,
        b: Span,
        c: Span,
        epilogue: &Epilogue,
        label: &'static str,
    ) -> Result<()> {
        let g = self.g;
        let (how, depth) = match self.how {
            How::Tiled(t) => (t as u64, TILES[t].depth),
            How::Dot => (14, 1),
            How::Sum => (15, 1),
        };
        let types = (a.dtype as u64) << 4 | (b.dtype as u64) << 8 | (c.dtype as u64) << 12;
        let mut key = epilogue
            .key(Key::new("conv").with(self.pass as u64 | types | how << 16 | (self.channels as u64) << 20));
        for extent in g.kernel.into_iter().chain(g.stride) {
            key = key.with(extent as u64);
        }
        let pipeline = device.pipeline(&key, || Ok(self.shader(a.dtype, b.dtype, c.dtype, epilogue)))?;
        let mut buffers: SmallVec<[&Buffer; 6]> = SmallVec::from_slice(&[a.buffer, b.buffer, c.buffer]);
        buffers.extend(epilogue.buffers());
        let (m, n, _) = self.sizes;
        let blocks = match self.how {
            How::Tiled(t) => TILES[t].blocks(m, n),
            How::Dot => (m * n).div_ceil(64),
            How::Sum => m * n,
        };
        let [gx, gy, _] = linear_groups(blocks as u64)?;
        let most = device.limits().groups_per_axis as usize / self.splits;
        for first in (0..g.groups).step_by(most) {
            let mut params = head(self.sizes, self.splits, depth, first)?;
            for size in self.values(a, b, c) {
                params = params.size(size)?;
            }
            let params: Params = epilogue.values(params)?;
            let grid = [gx, gy, ((g.groups - first).min(most) * self.splits) as u32];
            device.dispatch(&pipeline, &buffers, params, grid, label)?;
        }
        Ok(())
    }

    /// What [`SIZES`] names.
    fn values(&self, a: Span, b: Span, c: Span) -> Vec<usize> {
        let g = self.g;
        let mut values = vec![a.offset, b.offset, c.offset, g.groups, g.channels, g.filters];
        values.extend(g.in_dims.into_iter().chain(g.out_dims).chain(g.pad));
        // Two steps in one word: a window beyond 2^16 has no other element inside any image.
        values.push(g.dilate[0].min(0xffff) << 16 | g.dilate[1].min(0xffff));
        values.push(g.dilate[2]);
        values
    }

    fn shader(&self, a: DType, b: DType, c: DType, epilogue: &Epilogue) -> Shader {
        let mut shader = Shader::new(format!("conv {:?}", self.pass).to_lowercase(), "")
            .slot(Slot::read("a", elem::element(a)))
            .slot(Slot::read("b", elem::element(b)))
            .slot(Slot::write("c", elem::element(c)));
        for name in PARAMS.into_iter().chain(SIZES) {
            shader = shader.param(name, "u32");
        }
        let shader = epilogue.declare(shader);
        let (a_text, b_text, c_at) = match self.pass {
            Pass::Forward => (FORWARD_A, FORWARD_B, FORWARD_C),
            Pass::Data => (DATA_A, DATA_B, DATA_C),
            Pass::Weight => (WEIGHT_A, WEIGHT_B, WEIGHT_C),
        };
        let constants: String = ["z", "y", "x"]
            .iter()
            .enumerate()
            .map(|(d, axis)| {
                let (kernel, stride) = (self.g.kernel[d], self.g.stride[d]);
                format!("const kernel_{axis} = {kernel}u;\nconst stride_{axis} = {stride}u;\n")
            })
            .collect();
        let fill = |text: &str, dtype: DType, name: &str| {
            text.replace("LOAD(at)", &elem::load(dtype, Num::F32, name, "at"))
        };
        let (layout, a_along_k, b_along_k) = match self.channels {
            Channels::First => (FIRST, true, self.pass == Pass::Weight),
            Channels::Last => (LAST, self.pass == Pass::Forward, self.pass != Pass::Weight),
        };
        let sides = Sides {
            a: constants + COMMON + layout + &fill(a_text, a, "a"),
            a_along_k,
            b: fill(b_text, b, "b"),
            b_along_k,
            store: epilogue.store(c, c_at, "batch * p.m + i"),
        };
        let body = match self.how {
            How::Tiled(t) => tile::body(TILES[t], &sides),
            How::Dot => tile::dot_body(&sides),
            How::Sum => tile::sum_body(&sides),
        };
        Shader { body: body.into(), ..shader }.trusted()
    }
}

/// Numbers taken apart, and the two planes. `batch` is the group.
const COMMON: &str = "
fn in_plane() -> u32 { return p.in_z * p.in_y * p.in_x; }
fn out_plane() -> u32 { return p.out_z * p.out_y * p.out_x; }
fn group_channels() -> u32 { return p.channels / p.groups; }
fn group_filters() -> u32 { return p.filters / p.groups; }
fn taps() -> u32 { return kernel_z * kernel_y * kernel_x; }
fn dilated(tap: vec3<u32>) -> vec3<i32> {
    return vec3<i32>(tap * vec3<u32>(p.dilate_zy >> 16u, p.dilate_zy & 0xffffu, p.dilate_x));
}
fn tap_place(tap: u32) -> vec3<u32> {
    return vec3<u32>(tap / (kernel_y * kernel_x), tap / kernel_x % kernel_y, tap % kernel_x);
}
fn out_place(q: u32) -> vec3<u32> {
    return vec3<u32>(q / (p.out_y * p.out_x), q / p.out_x % p.out_y, q % p.out_x);
}
fn in_place(q: u32) -> vec3<u32> {
    return vec3<u32>(q / (p.in_y * p.in_x), q / p.in_x % p.in_y, q % p.in_x);
}
fn pads() -> vec3<i32> { return vec3<i32>(i32(p.pad_z), i32(p.pad_y), i32(p.pad_x)); }
const strides = vec3<u32>(stride_z, stride_y, stride_x);
";

/// Distances from a channel, and from a place, to the next one in data and in results; a number of `count` channels (or
/// filters) with taps taken apart, and put together as the weight of `count` channels per filter has it.
const FIRST: &str = "
fn in_channel() -> u32 { return in_plane(); }
fn out_channel() -> u32 { return out_plane(); }
fn in_next() -> u32 { return 1u; }
fn out_next() -> u32 { return 1u; }
fn channel_of(k: u32, count: u32) -> u32 { return k / taps(); }
fn tap_of(k: u32, count: u32) -> u32 { return k % taps(); }
fn weight_at(channel: u32, tap: u32, count: u32) -> u32 { return channel * taps() + tap; }
";
const LAST: &str = "
fn in_channel() -> u32 { return 1u; }
fn out_channel() -> u32 { return 1u; }
fn in_next() -> u32 { return p.channels; }
fn out_next() -> u32 { return p.filters; }
fn channel_of(k: u32, count: u32) -> u32 { return k % count; }
fn tap_of(k: u32, count: u32) -> u32 { return k / count; }
fn weight_at(channel: u32, tap: u32, count: u32) -> u32 { return tap * count + channel; }
";

/// a is the weight: filter i of the group, k = (channel, tap) as it lies.
const FORWARD_A: &str = "
struct Row { at: u32, inside: bool }
struct AStep { at: u32 }
fn a_row(i: u32) -> Row { return Row(p.o_a + (batch * p.m + i) * p.k, i < p.m); }
fn a_step(k: u32) -> AStep { return AStep(k); }
fn a_at(row: Row, step: AStep) -> f32 {
    if (!row.inside) { return 0.0; }
    let at = row.at + step.at;
    return LOAD(at);
}
";

/// b is the data: j = (image, output place), k = (channel, tap).
const FORWARD_B: &str = "
struct Col { at: u32, place: vec3<i32>, inside: bool }
struct BStep { at: u32, place: vec3<i32> }
fn b_col(j: u32) -> Col {
    let image = j / out_plane() * p.channels * in_plane();
    let place = vec3<i32>(out_place(j % out_plane()) * strides) - pads();
    return Col(p.o_b + image + batch * group_channels() * in_channel(), place, j < p.n);
}
fn b_step(k: u32) -> BStep {
    let count = group_channels();
    return BStep(channel_of(k, count) * in_channel(), dilated(tap_place(tap_of(k, count))));
}
fn b_at(col: Col, step: BStep) -> f32 {
    // Before the image the number wraps and is too large.
    let q = vec3<u32>(col.place + step.place);
    if (!col.inside || q.x >= p.in_z || q.y >= p.in_y || q.z >= p.in_x) { return 0.0; }
    let at = col.at + step.at + ((q.x * p.in_y + q.y) * p.in_x + q.z) * in_next();
    return LOAD(at);
}
";

const FORWARD_C: &str = "
fn c_at(i: u32, j: u32) -> u32 {
    let plane = out_plane();
    let image = j / plane * p.filters * plane;
    return p.o_c + image + (batch * p.m + i) * out_channel() + j % plane * out_next();
}
";

/// a is the weight: channel i of the group, k = (filter, tap).
const DATA_A: &str = "
struct Row { at: u32, inside: bool }
struct AStep { at: u32 }
fn a_row(i: u32) -> Row {
    return Row(p.o_a + batch * group_filters() * p.m * taps() + weight_at(i, 0u, p.m), i < p.m);
}
fn a_step(k: u32) -> AStep {
    let count = group_filters();
    return AStep(channel_of(k, count) * p.m * taps() + weight_at(0u, tap_of(k, count), p.m));
}
fn a_at(row: Row, step: AStep) -> f32 {
    if (!row.inside) { return 0.0; }
    let at = row.at + step.at;
    return LOAD(at);
}
";

/// b is the gradient of the output: j = (image, input place), k = (filter, tap).
const DATA_B: &str = "
struct Col { at: u32, place: vec3<i32>, inside: bool }
struct BStep { at: u32, place: vec3<i32> }
fn b_col(j: u32) -> Col {
    let image = j / in_plane() * p.filters * out_plane();
    let place = vec3<i32>(in_place(j % in_plane())) + pads();
    return Col(p.o_b + image + batch * group_filters() * out_channel(), place, j < p.n);
}
fn b_step(k: u32) -> BStep {
    let count = group_filters();
    return BStep(channel_of(k, count) * out_channel(), dilated(tap_place(tap_of(k, count))));
}
fn b_at(col: Col, step: BStep) -> f32 {
    let v = col.place - step.place;
    if (!col.inside || v.x < 0 || v.y < 0 || v.z < 0) { return 0.0; }
    let u = vec3<u32>(v);
    let q = u / strides;
    if (any(q * strides != u) || q.x >= p.out_z || q.y >= p.out_y || q.z >= p.out_x) { return 0.0; }
    let at = col.at + step.at + ((q.x * p.out_y + q.y) * p.out_x + q.z) * out_next();
    return LOAD(at);
}
";

const DATA_C: &str = "
fn c_at(i: u32, j: u32) -> u32 {
    let plane = in_plane();
    let image = j / plane * p.channels * plane;
    return p.o_c + image + (batch * p.m + i) * in_channel() + j % plane * in_next();
}
";

/// a is the gradient of the output: filter i of the group, k = (image, output place).
const WEIGHT_A: &str = "
struct Row { at: u32, inside: bool }
struct AStep { at: u32 }
fn a_row(i: u32) -> Row { return Row(p.o_a + (batch * p.m + i) * out_channel(), i < p.m); }
fn a_step(k: u32) -> AStep {
    let plane = out_plane();
    return AStep(k / plane * p.filters * plane + k % plane * out_next());
}
fn a_at(row: Row, step: AStep) -> f32 {
    if (!row.inside) { return 0.0; }
    let at = row.at + step.at;
    return LOAD(at);
}
";

/// b is the data: j = (channel, tap) as in the weight, k = (image, output place).
const WEIGHT_B: &str = "
struct Col { at: u32, place: vec3<i32>, inside: bool }
struct BStep { at: u32, place: vec3<i32> }
fn b_col(j: u32) -> Col {
    let count = group_channels();
    let channel = batch * count + channel_of(j, count);
    return Col(p.o_b + channel * in_channel(), dilated(tap_place(tap_of(j, count))) - pads(), j < p.n);
}
fn b_step(k: u32) -> BStep {
    let plane = out_plane();
    return BStep(k / plane * p.channels * in_plane(), vec3<i32>(out_place(k % plane) * strides));
}
fn b_at(col: Col, step: BStep) -> f32 {
    let q = vec3<u32>(col.place + step.place);
    if (!col.inside || q.x >= p.in_z || q.y >= p.in_y || q.z >= p.in_x) { return 0.0; }
    let at = col.at + step.at + ((q.x * p.in_y + q.y) * p.in_x + q.z) * in_next();
    return LOAD(at);
}
";

const WEIGHT_C: &str = "
fn c_at(i: u32, j: u32) -> u32 {
    return p.o_c + ((split * p.groups + batch) * p.m + i) * p.n + j;
}
";
