//! Reductions over any axes: sums, products, extremes, norms, and where extremes stand.
//!
//! A workgroup of 256 invocations serves some outputs with some lanes each. A lane takes every so-many-th element into
//! four running values, lanes are joined as a tree, and a long reduction is cut into segments whose results are reduced
//! once more: no running value takes in more than a few hundred elements, so rounding grows with the logarithm of the
//! count, not with the count. Which invocations are neighbours follows the memory: the lanes of an output where rows
//! are reduced, the outputs where columns are.

use crate::shaders::copy::launch_cast;
use crate::shaders::elem::{self, Num, Place, Span};
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Device, Key, Params, Shader, Slot};
pub use mxrs_kernels::reduce::Reduction;
use smallvec::SmallVec;
use std::fmt::Write;

/// What is computed from the elements that fall into one output element: a reduction as the CPU's, or where an extreme stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    Of(Reduction),
    /// The position of the largest among the reduced elements: of equal ones the first, not-a-number wins.
    ArgMax,
    ArgMin,
}

impl From<Reduction> for Fold {
    fn from(op: Reduction) -> Fold {
        Fold::Of(op)
    }
}

impl Fold {
    fn is_arg(self) -> bool {
        !matches!(self, Fold::Of(_))
    }

    /// A number of its own, for keys.
    fn code(self) -> u64 {
        match self {
            Fold::Of(op) => 2 + op as u64,
            Fold::ArgMax => 0,
            Fold::ArgMin => 1,
        }
    }

    /// The same over booleans, for which sums and maxima are "any", products and minima "all".
    fn of_bools(self) -> Fold {
        use Reduction::*;
        match self {
            Fold::Of(Prod | NanProd | Min | All) => Fold::Of(All),
            Fold::Of(_) => Fold::Of(Any),
            position => position,
        }
    }

    /// What joins the results of segments.
    fn of_parts(self) -> Fold {
        use Reduction::*;
        match self {
            Fold::Of(Mean | NanSum | NormL1 | NormL2 | SumSq | Sum) => Fold::Of(Sum),
            Fold::Of(NanProd | Prod) => Fold::Of(Prod),
            other => other,
        }
    }

    /// (initial value, new running value of `a` and element `v`, join of `a` and `b`) in WGSL.
    fn texts(self, num: Num) -> (&'static str, &'static str, &'static str) {
        use Reduction::*;
        let float = num == Num::F32;
        let Fold::Of(op) = self else {
            // A running value is (value, position); a position beyond all others means none.
            return ("Best(zero(), 0xffffffffu)", "better(a, Best(v, r))", "better(a, b)");
        };
        match op {
            Sum | Mean => ("0", "a + v", "a + b"),
            NanSum if float => ("0", "select(a + v, a, mx_is_nan(v))", "a + b"),
            NanSum => ("0", "a + v", "a + b"),
            NormL1 => ("0", "a + abs(v)", "a + b"),
            NormL2 | SumSq => ("0", "a + v * v", "a + b"),
            Prod => ("1", "a * v", "a * b"),
            NanProd if float => ("1", "select(a * v, a, mx_is_nan(v))", "a * b"),
            NanProd => ("1", "a * v", "a * b"),
            Max if float => (
                "mx_infinity(0x80000000u)",
                "select(a, v, v > a || mx_is_nan(v))",
                "select(a, b, b > a || mx_is_nan(b))",
            ),
            Min if float => (
                "mx_infinity(0u)",
                "select(a, v, v < a || mx_is_nan(v))",
                "select(a, b, b < a || mx_is_nan(b))",
            ),
            Max => ("bitcast<i32>(0x80000000u)", "max(a, v)", "max(a, b)"),
            Min => ("0x7fffffff", "min(a, v)", "min(a, b)"),
            Any => ("0", "select(a, one(), v != zero())", "max(a, b)"),
            All => ("1", "select(a, zero(), v == zero())", "min(a, b)"),
        }
    }
}

/// A dimension of a walk: extent and step in elements.
type Axis = (usize, isize);

/// Kept and reduced dimensions, neighbours merged, outermost first.
struct Walk {
    kept: SmallVec<[Axis; 4]>,
    reduced: SmallVec<[Axis; 4]>,
    outputs: usize,
    count: usize,
}

impl Walk {
    fn of(dims: &[usize], strides: &[isize], is_reduced: impl Fn(usize) -> bool) -> Walk {
        let mut walk = Walk { kept: SmallVec::new(), reduced: SmallVec::new(), outputs: 1, count: 1 };
        for d in 0..dims.len() {
            let (list, total) = match is_reduced(d) {
                true => (&mut walk.reduced, &mut walk.count),
                false => (&mut walk.kept, &mut walk.outputs),
            };
            *total *= dims[d];
            if dims[d] == 1 {
                continue;
            }
            match list.last_mut() {
                // The dimension before walks over whole runs of this one.
                Some((extent, step)) if *step == strides[d] * dims[d] as isize => {
                    (*extent, *step) = (*extent * dims[d], strides[d]);
                }
                _ => list.push((dims[d], strides[d])),
            }
        }
        for list in [&mut walk.kept, &mut walk.reduced] {
            if list.is_empty() {
                list.push((1, 0));
            }
        }
        walk
    }

    /// Whether neighbours in memory are reduced together.
    fn rows(&self) -> bool {
        let step = |axes: &[Axis]| axes.last().map_or(0, |a| if a.0 == 1 { isize::MAX } else { a.1.abs() });
        step(&self.reduced) <= step(&self.kept) || self.outputs == 1
    }

    /// Invocations that share an output: a power of two up to 256.
    fn lanes(&self) -> usize {
        let wanted = if self.rows() { self.count / 4 } else { self.count / 16 };
        // Columns keep at least a row of 32 neighbours together.
        wanted.max(1).next_power_of_two().min(if self.rows() || self.outputs < 32 { 256 } else { 8 })
    }
}

const GROUP: usize = 256;
/// Elements that a lane takes in before its segment ends.
const SEGMENT: usize = 256;

/// Reduces `x` of extents `dims` over the dimensions for which `axes` lists; `y` holds the kept dimensions in order.
///
/// The kernel calculates in float32 for floating input and in int32 for all other types, wrapping. Positions are
/// written in `y`'s type.
///
/// # Errors
/// Where a type is not one of GPUs or an array has more than 2^32 elements.
pub fn launch_reduce(
    device: &Device,
    op: impl Into<Fold>,
    dims: &[usize],
    axes: &[usize],
    x: Place,
    y: Span,
    label: &'static str,
) -> Result<()> {
    elem::check_dtype(x.dtype, label)?;
    elem::check_dtype(y.dtype, label)?;
    let walk = Walk::of(dims, x.strides, |d| axes.contains(&d));
    if walk.outputs == 0 {
        return Ok(());
    }
    if [walk.outputs, walk.count].iter().any(|n| *n > u32::MAX as usize) {
        return Err(Error::op(format!("{label}: {dims:?} is more than a GPU kernel can count")));
    }
    let op = op.into();
    let op = if x.dtype == DType::Bool { op.of_bools() } else { op };
    if elem::is_packed(y.dtype) {
        // Outputs share words: whole numbers first, then packed.
        let whole = device.alloc(4 * walk.outputs as u64)?;
        let between = Span::new(&whole, if x.dtype.is_float() { DType::F32 } else { DType::I32 });
        reduce(device, op, &walk, x, between, label)?;
        return launch_cast(device, walk.outputs, between, y, label);
    }
    reduce(device, op, &walk, x, y, label)
}

/// One stage, or two where a lane would take in too much.
fn reduce(device: &Device, op: Fold, walk: &Walk, x: Place, y: Span, label: &'static str) -> Result<()> {
    let num = Num::among([x.dtype]);
    let lanes = walk.lanes();
    let segments = if op.is_arg() { 1 } else { walk.count.div_ceil(lanes * SEGMENT).clamp(1, 4096) };
    let finish = match op {
        Fold::Of(Reduction::Mean) => Finish::Divide,
        Fold::Of(Reduction::NormL2) => Finish::Root,
        _ => Finish::Nothing,
    };
    if segments == 1 {
        let stage = Stage { op, num, lanes, finish, walk, segments, count: walk.count, of: x.dtype };
        return stage.launch(device, x, y, label);
    }
    // The results of segments, one row of outputs for each.
    let partial = device.alloc(4 * (segments * walk.outputs) as u64)?;
    let dtype = if num == Num::F32 { DType::F32 } else { DType::I32 };
    let between = Span::new(&partial, dtype);
    let first =
        Stage { op, num, lanes, finish: Finish::Nothing, walk, segments, count: walk.count, of: x.dtype };
    first.launch(device, x, between, label)?;
    let dims = [segments, walk.outputs];
    let strides = [walk.outputs as isize, 1];
    let rest = Walk::of(&dims, &strides, |d| d == 0);
    let lanes = rest.lanes();
    let last = Stage {
        op: op.of_parts(),
        num,
        lanes,
        finish,
        walk: &rest,
        segments: 1,
        count: walk.count,
        of: x.dtype,
    };
    last.launch(device, between.strided(&strides), y, label)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Nothing,
    /// By the count.
    Divide,
    Root,
}

struct Stage<'a> {
    op: Fold,
    num: Num,
    lanes: usize,
    finish: Finish,
    walk: &'a Walk,
    segments: usize,
    /// What a mean divides by.
    count: usize,
    /// The type of the elements, in which a sum wraps before it is divided.
    of: DType,
}

impl Stage<'_> {
    fn launch(&self, device: &Device, x: Place, y: Span, label: &'static str) -> Result<()> {
        let walk = self.walk;
        let head = self.op.code()
            | (self.num as u64) << 8
            | (self.lanes as u64) << 12
            | (walk.rows() as u64) << 24
            | (self.finish as u64) << 26
            | (self.of as u64) << 28
            | (x.dtype as u64) << 32
            | (y.dtype as u64) << 36
            | (walk.kept.len() as u64) << 40
            | (walk.reduced.len() as u64) << 44;
        let key = Key::new("reduce").with(head);
        let pipeline = device.pipeline(&key, || Ok(self.shader(x.dtype, y.dtype)))?;
        let per_segment = walk.count.div_ceil(self.segments);
        let mut params = Params::new()
            .size(walk.outputs)?
            .size(walk.count)?
            .size(per_segment)?
            .f32(self.count as f32)
            .u32(self.count as u32)
            .size(x.offset)?
            .size(y.offset)?;
        for axes in [&walk.kept, &walk.reduced] {
            for (i, (extent, step)) in axes.iter().enumerate() {
                if i > 0 {
                    params = params.size(*extent)?;
                }
                let step = i32::try_from(*step)
                    .map_err(|_| Error::op(format!("{label}: a stride of {step} is too large for a GPU")))?;
                params = params.i32(step);
            }
        }
        let groups = walk.outputs.div_ceil(GROUP / self.lanes);
        // Outputs may fold into a second axis; segments have the third.
        let [gx, gy, _] = mxrs_gpu::linear_groups(groups as u64)?;
        let grid = [gx, gy, self.segments as u32];
        device.dispatch(&pipeline, &[x.buffer, y.buffer], params, grid, label)
    }

    fn shader(&self, from: DType, to: DType) -> Shader {
        let mut shader = Shader::new(format!("reduce {:?}", self.op), "")
            .slot(Slot::read("x", elem::element(from)))
            .slot(Slot::write("y", elem::element(to)));
        let names = ["outputs", "count", "segment"].map(|n| (n, "u32"));
        let more = [("divisor", "f32"), ("whole_divisor", "u32"), ("o_x", "u32"), ("o_y", "u32")];
        for (name, kind) in names.into_iter().chain(more) {
            shader = shader.param(name, kind);
        }
        for (prefix, axes) in [("k", &self.walk.kept), ("r", &self.walk.reduced)] {
            for i in 0..axes.len() {
                if i > 0 {
                    shader = shader.param(format!("{prefix}_extent{i}"), "u32");
                }
                shader = shader.param(format!("{prefix}_step{i}"), "i32");
            }
        }
        shader.body = self.body(from, to).into();
        shader
    }

    fn body(&self, from: DType, to: DType) -> String {
        let num = self.num.wgsl();
        let arg = self.op.is_arg();
        let running = if arg { "Best" } else { num };
        let (start, step, join) = self.op.texts(self.num);
        let start = if arg || start.contains('(') { start.to_string() } else { format!("{num}({start})") };
        let (lanes, outs) = (self.lanes, GROUP / self.lanes);
        // Neighbouring invocations: lanes of an output, or outputs.
        let (out, lane, stride) = if self.walk.rows() {
            (format!("local / {lanes}u"), format!("local % {lanes}u"), 1)
        } else {
            (format!("local % {outs}u"), format!("local / {outs}u"), outs)
        };
        let mut text =
            format!("fn zero() -> {num} {{ return {num}(0); }}\nfn one() -> {num} {{ return {num}(1); }}\n");
        text += BITS;
        if arg {
            text += &self.better();
        }
        let _ = write!(
            text,
            "fn step(a: {running}, v: {num}, r: u32) -> {running} {{ return {step}; }}
fn join(a: {running}, b: {running}) -> {running} {{ return {join}; }}
{}{}var<workgroup> shared_part: array<{running}, {GROUP}>;
@compute @workgroup_size({GROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let o = mx_group(group) * {outs}u + {out};
    let lane = {lane};
    var a0: {running} = {start};
    var a1: {running} = a0;
    var a2: {running} = a0;
    var a3: {running} = a0;
    if (o < p.outputs) {{
        let base = p.o_x + kept(o);
        let first = group.z * p.segment;
        let end = min(first + p.segment, p.count);
        var r = first + lane;
        // Stops early enough that r never wraps.
        while (r < end && end - r > {three}u) {{
            a0 = step(a0, {v0}, r);
            a1 = step(a1, {v1}, r + {lanes}u);
            a2 = step(a2, {v2}, r + {two}u);
            a3 = step(a3, {v3}, r + {three}u);
            r = r + {four}u;
        }}
        while (r < end) {{
            a0 = step(a0, {v0}, r);
            r = r + {lanes}u;
        }}
    }}
    a0 = join(join(a0, a1), join(a2, a3));
",
            offset("kept", "k", self.walk.kept.len()),
            offset("reduced", "r", self.walk.reduced.len()),
            two = 2 * lanes,
            three = 3 * lanes,
            four = 4 * lanes,
            v0 = value(from, self.num, "r"),
            v1 = value(from, self.num, &format!("r + {lanes}u")),
            v2 = value(from, self.num, &format!("r + {}u", 2 * lanes)),
            v3 = value(from, self.num, &format!("r + {}u", 3 * lanes)),
        );
        text += &self.tree(stride);
        text += &self.result(to);
        elem::helpers_for(&text) + &text
    }

    /// Statements that join the lanes of an output, `stride` invocations apart.
    fn tree(&self, stride: usize) -> String {
        if self.lanes == 1 {
            return String::new();
        }
        let mut text = "    shared_part[local] = a0;\n    workgroupBarrier();\n".to_string();
        let mut half = self.lanes / 2;
        while half > 0 {
            let _ = writeln!(
                text,
                "    if (lane < {half}u) {{ shared_part[local] = join(shared_part[local], \
                 shared_part[local + {}u]); }}\n    workgroupBarrier();",
                half * stride
            );
            half /= 2;
        }
        text + "    a0 = shared_part[local];\n"
    }

    /// Statements that finish the running value and store it.
    fn result(&self, to: DType) -> String {
        let wrapped = match self.of {
            _ if self.finish != Finish::Divide => "",
            DType::U8 => "    a0 = a0 & 0xff;\n",
            DType::I8 => "    a0 = (a0 << 24u) >> 24u;\n",
            _ => "",
        };
        let (result, num) = match self.finish {
            _ if self.op.is_arg() => ("i32(a0.at)", Num::I32),
            Finish::Nothing => ("a0", self.num),
            Finish::Divide if self.num == Num::F32 => ("a0 / p.divisor", self.num),
            Finish::Divide => ("a0 / max(i32(p.whole_divisor), 1)", self.num),
            Finish::Root if self.num == Num::F32 => ("sqrt(a0)", self.num),
            Finish::Root => ("i32(sqrt(f32(a0)))", self.num),
        };
        let value = elem::pack(to, num, &format!("({result})"));
        format!(
            "{wrapped}    if (lane == 0u && o < p.outputs) {{ y[p.o_y + group.z * p.outputs + o] = {value}; }}\n}}\n"
        )
    }

    fn better(&self) -> String {
        let (num, sign) = (self.num.wgsl(), if self.op == Fold::ArgMax { ">" } else { "<" });
        let (a_nan, b_nan) = match self.num {
            Num::F32 => ("mx_is_nan(a.v)", "mx_is_nan(b.v)"),
            Num::I32 => ("false", "false"),
        };
        format!(
            "struct Best {{ v: {num}, at: u32 }}
fn better(a: Best, b: Best) -> Best {{
    if (b.at == 0xffffffffu) {{ return a; }}
    if (a.at == 0xffffffffu) {{ return b; }}
    let a_nan = {a_nan};
    let b_nan = {b_nan};
    if (a_nan != b_nan) {{ if (a_nan) {{ return a; }} return b; }}
    if (a_nan || a.v == b.v) {{ if (a.at < b.at) {{ return a; }} return b; }}
    if (b.v {sign} a.v) {{ return b; }}
    return a;
}}
"
        )
    }
}

/// By bits: a shader may assume that neither occurs.
const BITS: &str = "fn mx_is_nan(v: f32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u; }
fn mx_infinity(sign: u32) -> f32 { var bits = 0x7f800000u | sign; return bitcast<f32>(bits); }
";

/// The element of reduced place `r`.
fn value(from: DType, num: Num, r: &str) -> String {
    elem::load(from, num, "x", &format!("base + reduced({r})"))
}

/// A function from a number to the offset of that combination of axes.
fn offset(name: &str, prefix: &str, axes: usize) -> String {
    let mut text = format!("fn {name}(number: u32) -> u32 {{\n    var rest = number;\n    var at = 0u;\n");
    for i in (1..axes).rev() {
        let _ = writeln!(
            text,
            "    at += (rest % p.{prefix}_extent{i}) * bitcast<u32>(p.{prefix}_step{i});\n    rest = rest / p.{prefix}_extent{i};"
        );
    }
    let _ = writeln!(text, "    return at + rest * bitcast<u32>(p.{prefix}_step0);\n}}");
    text
}
