//! Pooling over windows of one to three dimensions and its gradient.
//!
//! An invocation goes over the window of one result; the gradient is gathered, an invocation per element of the data
//! over the windows that hold it, so nothing is added by two at once. The gradient of a maximum asks where each window's
//! maximum is, which one launch writes down before another gathers. Window, stride and border are part of the text, so
//! that divisions by them are cheap; extents are parameters.

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::reduce::{Reduction, launch_reduce};
use mxrs_base::{DType, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use mxrs_kernels::pool::{PoolGeom, PoolKind};
use smallvec::{SmallVec, smallvec};
use std::fmt::Write;

const GROUP: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// What a window becomes.
    Forward,
    /// The place in the image of a window's first largest number; 0xffffffff where there is none.
    Where,
    /// The number of another array in that place, or 0.
    Pick,
    /// The gradient, from that of the result; of maxima with the places that `Where` wrote, of norms with the data and
    /// the result.
    Gather,
}

/// The windows of `x` become `y`.
///
/// # Errors
/// For element types that GPUs do not have, and sizes that 32 bits do not count.
pub fn launch_pool(
    device: &Device,
    g: &PoolGeom,
    kind: PoolKind,
    x: Span,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let whole = g.kernel == g.in_dims && g.out_dims == [1; 3] && g.pad == [0; 3];
    let reduction = match kind {
        // An average that divides by what lies inside is the same: nothing lies outside.
        PoolKind::Avg { .. } => Some(Reduction::Mean),
        PoolKind::Sum => Some(Reduction::Sum),
        _ => None,
    };
    if let (true, Some(reduction)) = (whole, reduction) {
        let taps = g.in_dims.iter().product::<usize>();
        let (dims, inner) = ([g.outer, taps, g.inner], g.inner as isize);
        let steps = [taps as isize * inner, inner, 1];
        return launch_reduce(device, reduction, &dims, &[1], x.strided(&steps), y, label);
    }
    launch(device, Pass::Forward, g, kind, &[("x", x)], ("y", y), label)
}

/// The gradient `dx` of [`launch_pool`] by `x`, from that of its result.
pub fn launch_pool_grad(
    device: &Device,
    g: &PoolGeom,
    kind: PoolKind,
    x: Span,
    dy: Span,
    dx: Span,
    label: &'static str,
) -> Result<()> {
    let between = || device.alloc(4 * g.out_len().max(1) as u64);
    match kind {
        PoolKind::Max => {
            let places = between()?;
            let places = Span::new(&places, DType::I32);
            launch(device, Pass::Where, g, kind, &[("x", x)], ("y", places), label)?;
            launch(device, Pass::Gather, g, kind, &[("dy", dy), ("places", places)], ("dx", dx), label)
        }
        PoolKind::Lp(2..) => {
            let norms = between()?;
            let norms = Span::new(&norms, DType::F32);
            launch(device, Pass::Forward, g, kind, &[("x", x)], ("y", norms), label)?;
            let ins = [("dy", dy), ("x", x), ("norms", norms)];
            launch(device, Pass::Gather, g, kind, &ins, ("dx", dx), label)
        }
        _ => launch(device, Pass::Gather, g, kind, &[("dy", dy)], ("dx", dx), label),
    }
}

/// For each window the element of `head` in the place of the first largest of `x`, 0 where there is none.
pub fn launch_pool_pick(
    device: &Device,
    g: &PoolGeom,
    head: Span,
    x: Span,
    y: Span,
    label: &'static str,
) -> Result<()> {
    launch(device, Pass::Pick, g, PoolKind::Max, &[("x", x), ("head", head)], ("y", y), label)
}

/// The extents that parameters give, in the order of [`names`].
const EXTENTS: [&str; 7] = ["inner", "in_z", "in_y", "in_x", "out_z", "out_y", "out_x"];

fn launch(
    device: &Device,
    pass: Pass,
    g: &PoolGeom,
    kind: PoolKind,
    ins: &[(&'static str, Span)],
    out: (&'static str, Span),
    label: &'static str,
) -> Result<()> {
    let operands: SmallVec<[(&'static str, Span); 4]> = ins.iter().copied().chain([out]).collect();
    for (_, span) in &operands {
        elem::check_dtype(span.dtype, label)?;
    }
    let n = if pass == Pass::Gather { g.data_len() } else { g.out_len() };
    if n == 0 {
        return Ok(());
    }
    let of = match kind {
        PoolKind::Max => 0,
        PoolKind::Sum => 1,
        PoolKind::Avg { include_pad } => 2 + u64::from(include_pad),
        PoolKind::Lp(p) => 4 + p as u64,
    };
    let head = operands.iter().fold(pass as u64 | of << 4, |word, (_, s)| word << 4 | s.dtype as u64);
    let windows = [g.kernel, g.stride, g.pad];
    let key = windows.iter().flatten().fold(Key::new("pool").with(head), |key, v| key.with(*v as u64));
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new("pool", "");
        for (name, s) in ins {
            shader = shader.slot(Slot::read(*name, elem::element(s.dtype)));
        }
        shader = shader.slot(Slot::write(out.0, elem::element(out.1.dtype))).param("n", "u32");
        for name in EXTENTS {
            shader = shader.param(name, "u32");
        }
        for (name, _) in &operands {
            shader = shader.param(format!("o_{name}"), "u32");
        }
        shader.body = text(pass, g, kind, &operands).into();
        Ok(shader.trusted())
    })?;
    let mut params = Params::new().size(n)?.size(g.inner)?;
    for extent in g.in_dims.iter().chain(&g.out_dims) {
        params = params.size(*extent)?;
    }
    let mut buffers: SmallVec<[&Buffer; 4]> = smallvec![];
    for (_, span) in &operands {
        params = params.size(span.offset)?;
        buffers.push(span.buffer);
    }
    device.dispatch(&pipeline, &buffers, params, linear_groups(n.div_ceil(GROUP) as u64)?, label)
}

/// Places of the data in a window are `first(axis)..end(axis)`, and those that an average counts.
const WINDOW: &str = "
fn places_in() -> u32 { return p.in_z * p.in_y * p.in_x; }
fn places_out() -> u32 { return p.out_z * p.out_y * p.out_x; }
fn begin(o: vec3<u32>) -> vec3<u32> { let at = o * stride; return max(at, pad) - pad; }
fn end(o: vec3<u32>) -> vec3<u32> {
    let at = o * stride + window;
    return min(max(at, pad) - pad, vec3<u32>(p.in_z, p.in_y, p.in_x));
}
fn out_at(o: vec3<u32>) -> u32 { return (o.x * p.out_y + o.y) * p.out_x + o.z; }
fn in_at(i: vec3<u32>) -> u32 { return (i.x * p.in_y + i.y) * p.in_x + i.z; }
fn counted_inside(o: vec3<u32>) -> f32 {
    let size = max(end(o), begin(o)) - begin(o);
    return f32(size.x * size.y * size.z);
}
fn counted_with_border(o: vec3<u32>) -> f32 {
    let at = o * stride;
    let most = vec3<u32>(p.in_z, p.in_y, p.in_x) + 2u * pad;
    let size = max(min(at + window, most), at) - at;
    return f32(size.x * size.y * size.z);
}
fn split(at: u32, y: u32, x: u32) -> vec3<u32> { return vec3<u32>(at / (y * x), at / x % y, at % x); }
";

fn text(pass: Pass, g: &PoolGeom, kind: PoolKind, operands: &[(&'static str, Span)]) -> String {
    let mut text = String::new();
    for (name, [z, y, x]) in [("window", g.kernel), ("stride", g.stride), ("pad", g.pad)] {
        let _ = writeln!(text, "const {name} = vec3<u32>({z}u, {y}u, {x}u);");
    }
    text += WINDOW;
    text += "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let n = mx_group(group) * 256u + local;
    if (n >= p.n) { return; }
    let c = n % p.inner;
";
    let load = |name: &str, at: &str| {
        let dtype = operands.iter().find(|(n, _)| *n == name).map_or(DType::F32, |(_, s)| s.dtype);
        elem::load(dtype, Num::F32, name, &format!("(p.o_{name} + {at})"))
    };
    text += &match pass {
        Pass::Gather => gather(kind, load),
        _ => over_window(pass, kind, load, operands.last().map_or(DType::F32, |(_, s)| s.dtype)),
    };
    let (name, out) = operands.last().map_or(("y", DType::F32), |(name, s)| (*name, s.dtype));
    let (num, value) = if pass == Pass::Where { (Num::I32, "i32(place)") } else { (Num::F32, "result") };
    let _ = writeln!(text, "    {name}[p.o_{name} + n] = {};\n}}", elem::pack(out, num, value));
    elem::helpers_for(&text) + &text
}

fn counted(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Avg { include_pad: true } => "counted_with_border(o)",
        _ => "counted_inside(o)",
    }
}

/// Statements that leave the `result` of the window of number `n`, or its `place`.
fn over_window(pass: Pass, kind: PoolKind, load: impl Fn(&str, &str) -> String, out: DType) -> String {
    let lowest = if out == DType::F16 { "-65504.0" } else { "-3.4028234663852886e38" };
    let (start, step) = match (pass, kind) {
        (Pass::Pick | Pass::Where, _) | (_, PoolKind::Max) => {
            (lowest, "if (v > result) { result = v; place = in_at(vec3<u32>(kz, ky, kx)); }")
        }
        (_, PoolKind::Lp(2)) => ("0.0", "result += v * v;"),
        (_, PoolKind::Lp(3)) => ("0.0", "result += v * v * v;"),
        _ => ("0.0", "result += v;"),
    };
    let last = match (pass, kind) {
        (Pass::Pick, _) => format!(
            "    result = 0.0;
    if (place != 0xffffffffu) {{ result = {}; }}
",
            load("head", "(base + place * p.inner)")
        ),
        (Pass::Where, _) => String::new(),
        (_, PoolKind::Avg { .. }) => format!("    result = result / max({}, 1.0);\n", counted(kind)),
        (_, PoolKind::Lp(2)) => "    result = sqrt(result);\n".into(),
        (_, PoolKind::Lp(3)) => {
            "    if (result != 0.0) { result = sign(result) * pow(abs(result), 0.3333333333333333); }\n"
                .into()
        }
        _ => String::new(),
    };
    format!(
        "    let number = n / p.inner;
    let o = split(number % places_out(), p.out_y, p.out_x);
    let base = number / places_out() * places_in() * p.inner + c;
    let first = begin(o);
    let last = end(o);
    var result = {start};
    var place = 0xffffffffu;
    for (var kz = first.x; kz < last.x; kz++) {{
        for (var ky = first.y; ky < last.y; ky++) {{
            for (var kx = first.z; kx < last.z; kx++) {{
                let v = {v};
                {step}
            }}
        }}
    }}
{last}",
        v = load("x", "base + in_at(vec3<u32>(kz, ky, kx)) * p.inner"),
    )
}

/// Statements that leave in `result` what the windows that hold element `n` give it.
fn gather(kind: PoolKind, load: impl Fn(&str, &str) -> String) -> String {
    let dy = load("dy", "at");
    let (before, step) = match kind {
        PoolKind::Max => (
            String::new(),
            format!("if (u32(places[p.o_places + at]) == number % places_in()) {{ result += {dy}; }}"),
        ),
        PoolKind::Lp(power @ 2..) => {
            let slope = if power == 2 { "ratio" } else { "ratio * ratio" };
            let norm = load("norms", "at");
            (
                format!("    let v = {};\n", load("x", "n")),
                format!(
                    "let norm = {norm};\n                if (norm != 0.0) {{ let ratio = v / norm; result += {dy} * {slope}; }}"
                ),
            )
        }
        PoolKind::Avg { .. } => (
            String::new(),
            format!(
                "let o = vec3<u32>(kz, ky, kx);\n                result += {dy} / max({}, 1.0);",
                counted(kind)
            ),
        ),
        _ => (String::new(), format!("result += {dy};")),
    };
    format!(
        "    let number = n / p.inner;
    let i = split(number % places_in(), p.in_y, p.in_x) + pad;
    let base = number / places_in() * places_out() * p.inner + c;
    // A window that begins at o * stride holds i where o * stride <= i < o * stride + window.
    let first = (max(i + 1u, window) - window + stride - 1u) / stride;
    let last = min(i / stride + 1u, vec3<u32>(p.out_z, p.out_y, p.out_x));
    var result = 0.0;
{before}    for (var kz = first.x; kz < last.x; kz++) {{
        for (var ky = first.y; ky < last.y; ky++) {{
            for (var kx = first.z; kx < last.z; kx++) {{
                let at = base + out_at(vec3<u32>(kz, ky, kx)) * p.inner;
                {step}
            }}
        }}
    }}
"
    )
}
