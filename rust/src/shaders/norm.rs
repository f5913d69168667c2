//! Normalization: the statistics of rows in one pass, and the two sums that their gradients need. What is done with
//! them, element by element, are maps of formulas over axes that broadcast: of rows here, of channels in `channels`.
//!
//! A lane shifts its elements by the first of them before it squares, and lanes and segments are joined as (count,
//! mean, squares about the mean): nothing is lost where the mean is large (Chan and others, 1979).

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::map::launch_map;
use crate::shaders::reduce::{Reduction, launch_reduce};
use crate::shaders::rows::{Around, GROUP, Rows, Steps, outside, place, whole};
use mxrs_base::{DType, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device, Key, Shader, Slot};
use smallvec::{SmallVec, smallvec};
use std::sync::LazyLock;

/// How the deviation of rows is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deviation {
    /// 1 / sqrt(variance + eps).
    Inverse,
    /// sqrt(variance + eps).
    Plain,
}

/// To which the mean and deviation that a gradient's sums look at belong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Rows,
    Elements,
}

#[derive(Clone, Copy)]
pub(super) enum Sums<'a> {
    /// Mean and deviation of each row.
    Moments { x: Span<'a>, deviation: Deviation, eps: f64 },
    /// The sums of head, times gamma of the element where there is one, and of that times the normalized data.
    Slopes { x: Span<'a>, head: Span<'a>, mean: Span<'a>, scale: Span<'a>, deviation: Deviation, of: Of },
    ScaledSlopes {
        x: Span<'a>,
        head: Span<'a>,
        mean: Span<'a>,
        scale: Span<'a>,
        deviation: Deviation,
        gamma: Span<'a>,
    },
    /// The join of what segments gave.
    Parts { parts: Span<'a>, finish: Option<(Deviation, f64)> },
}

/// Statistics that a batch moves, in float32: moving = moving * momentum + batch * (1 - momentum).
#[derive(Clone, Copy)]
pub struct Moving<'a> {
    /// Of the batch: mean and 1 / deviation.
    pub mean: Span<'a>,
    pub rstd: Span<'a>,
    pub moving_mean: Span<'a>,
    pub moving_var: Span<'a>,
    pub momentum: f64,
    /// What was added to the variance before the root was taken.
    pub eps: f64,
}

/// A shader's input: its name and where it lies.
type Inputs<'a> = SmallVec<[(&'static str, Span<'a>); 5]>;

impl<'a> Sums<'a> {
    fn inputs(&self) -> Inputs<'a> {
        match *self {
            Sums::Moments { x, .. } => smallvec![("x", x)],
            Sums::Slopes { x, head, mean, scale, .. } => {
                smallvec![("x", x), ("head", head), ("mean", mean), ("scale", scale)]
            }
            Sums::ScaledSlopes { x, head, mean, scale, gamma, .. } => {
                smallvec![("x", x), ("head", head), ("mean", mean), ("scale", scale), ("gamma", gamma)]
            }
            Sums::Parts { parts, .. } => smallvec![("parts", parts)],
        }
    }
    fn finish(&self) -> Option<(Deviation, f64)> {
        match *self {
            Sums::Moments { deviation, eps, .. } => Some((deviation, eps)),
            Sums::Parts { finish, .. } => finish,
            _ => None,
        }
    }
    fn word(&self) -> u64 {
        let (kind, deviation, of) = match *self {
            Sums::Moments { deviation, .. } => (0, Some(deviation), Of::Rows),
            Sums::Slopes { deviation, of, .. } => (1, Some(deviation), of),
            Sums::ScaledSlopes { deviation, .. } => (2, Some(deviation), Of::Rows),
            Sums::Parts { finish, .. } => (3, finish.map(|f| f.0), Of::Rows),
        };
        let deviation = deviation.map_or(2, |d| d as u64);
        self.inputs()
            .iter()
            .fold(kind | deviation << 2 | (of as u64) << 4, |w, (_, s)| w << 4 | s.dtype as u64)
    }

    /// (statements before the loop, in the loop, after it): `acc` takes in the element of number `i` at `at`.
    fn texts(&self) -> (String, String, &'static str) {
        let types: SmallVec<[DType; 5]> = self.inputs().iter().map(|(_, s)| s.dtype).collect();
        let load = |k: usize, name: &str, at: &str| {
            elem::load(types[k], Num::F32, name, &format!("(p.o_{name} + {at})"))
        };
        let (of, deviation) = match *self {
            Sums::Moments { .. } => {
                let text = format!(
                    "        let v = {};
        if (acc.x == 0.0) {{ first = v; }}
        let d = v - first;
        acc += vec3<f32>(1.0, d, d * d);
",
                    load(0, "x", "at")
                );
                let after = "    if (acc.x > 0.0) {
        let d = acc.y / acc.x;
        acc = vec3<f32>(acc.x, first + d, max(acc.z - acc.y * d, 0.0));
    }
";
                return ("    var first = 0.0;\n".into(), text, after);
            }
            Sums::Parts { .. } => {
                let text = "        let k = p.o_parts + 3u * at;
        acc = join(acc, vec3<f32>(parts[k], parts[k + 1u], parts[k + 2u]));
";
                return (String::new(), text.into(), "");
            }
            Sums::Slopes { of, deviation, .. } => (of, deviation),
            Sums::ScaledSlopes { deviation, .. } => (Of::Rows, deviation),
        };
        let number = if of == Of::Rows { "row" } else { "i" };
        let scale = load(3, "scale", number);
        let scale = if deviation == Deviation::Plain { format!("1.0 / {scale}") } else { scale };
        let stats = format!("let m = {};\n        let r = {scale};\n", load(2, "mean", number));
        let gamma = if types.len() > 4 { format!(" * {}", load(4, "gamma", "i")) } else { String::new() };
        let text = format!(
            "        let h = {}{gamma};
        acc += vec3<f32>(0.0, h, h * ((({}) - m) * r));
",
            load(1, "head", "at"),
            load(0, "x", "at")
        );
        match of {
            // A row that is not there has no statistics; nothing is read for it.
            Of::Rows => (
                format!(
                    "    var m = 0.0;\n    var r = 0.0;\n    if (live) {{\n        {}    }}\n",
                    stats.replace("let ", "")
                ),
                text,
                "",
            ),
            Of::Elements => (String::new(), format!("        {stats}{text}"), ""),
        }
    }

    fn joins_moments(&self) -> bool {
        self.finish().is_some()
    }
}

const JOIN_MOMENTS: &str = "fn join(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let n = a.x + b.x;
    let d = b.y - a.y;
    let share = b.x / max(n, 1.0);
    return vec3<f32>(n, a.y + d * share, a.z + b.z + d * d * a.x * share);
}
";
const JOIN_SUMS: &str = "fn join(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> { return a + b; }\n";

/// Elements that a lane takes in before its segment ends.
const SEGMENT: usize = 256;

/// Both results of every row, in one stage or, where a lane would take in too much, two. The last one also changes
/// statistics that move, one for each row.
pub(super) fn sums(
    device: &Device,
    rows: &Rows,
    what: Sums,
    outs: [Span; 2],
    moving: Option<Moving>,
    label: &'static str,
) -> Result<()> {
    for span in what.inputs().iter().map(|(_, s)| s).chain(&outs) {
        elem::check_dtype(span.dtype, label)?;
    }
    if rows.count() == 0 {
        return Ok(());
    }
    // Enough workgroups to fill a device, no more segments than a second stage joins at once.
    let groups = rows.count().div_ceil(GROUP / rows.lanes());
    let most = 4096usize.div_ceil(groups);
    let segments = rows.extent().div_ceil(rows.lanes() * SEGMENT).clamp(1, most.max(1));
    if segments == 1 {
        return stage(device, rows, &what, 1, Out::Results(outs, moving), label);
    }
    let parts = device.alloc(12 * (segments * rows.count()) as u64)?;
    let parts = Span::new(&parts, DType::F32);
    stage(device, rows, &what, segments, Out::Parts(parts), label)?;
    let rest = Rows::across((segments, rows.count(), 1));
    stage(device, &rest, &Sums::Parts { parts, finish: what.finish() }, 1, Out::Results(outs, moving), label)
}

#[derive(Clone, Copy)]
enum Out<'a> {
    Results([Span<'a>; 2], Option<Moving<'a>>),
    Parts(Span<'a>),
}

fn stage(
    device: &Device,
    rows: &Rows,
    what: &Sums,
    segments: usize,
    out: Out,
    label: &'static str,
) -> Result<()> {
    let mut inputs = what.inputs();
    let mut outs: SmallVec<[(&'static str, Span); 4]> = match out {
        Out::Results([a, b], _) => smallvec![("first_out", a), ("second_out", b)],
        Out::Parts(s) => smallvec![("parts_out", s)],
    };
    let moving = if let Out::Results(_, moving) = out { moving } else { None };
    if let Some(m) = moving {
        if matches!(what, Sums::Parts { .. }) {
            inputs.extend([("mean", m.mean), ("scale", m.rstd)]);
        }
        outs.extend([("moving_mean", m.moving_mean), ("moving_var", m.moving_var)]);
    }
    let types = outs.iter().fold(1, |w, (_, s)| w << 4 | s.dtype as u64);
    let joins = u64::from(what.joins_moments());
    let key = Key::new("row_sums").with(what.word()).with(types << 1 | joins).with(rows.key());
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new("row_sums", "");
        for (name, s) in &inputs {
            shader = shader.slot(Slot::read(*name, elem::element(s.dtype)));
        }
        for (name, s) in &outs {
            shader = shader.slot(Slot::write(*name, elem::element(s.dtype)));
        }
        shader = rows.declare(shader).param("segment", "u32").param("eps", "f32").param("keep", "f32");
        for (name, _) in inputs.iter().chain(&outs) {
            shader = shader.param(format!("o_{name}"), "u32");
        }
        shader.body = stage_text(rows, what, &out).into();
        Ok(shader.trusted())
    })?;
    let eps = moving.map(|m| m.eps).or(what.finish().map(|f| f.1)).unwrap_or(0.0);
    let keep = moving.map_or(0.0, |m| m.momentum);
    let mut params = rows.params()?.size(rows.extent().div_ceil(segments))?.f32(eps as f32).f32(keep as f32);
    let mut buffers: SmallVec<[&Buffer; 8]> = smallvec![];
    for (_, span) in inputs.iter().chain(&outs) {
        params = params.size(span.offset)?;
        buffers.push(span.buffer);
    }
    let [x, y, _] = rows.grid()?;
    device.dispatch(&pipeline, &buffers, params, [x, y, segments as u32], label)
}

/// Moves the statistics of a row; the arrays are float32.
const MOVE: &str = "        let rstd = scale[p.o_scale + row];
        let var_at = p.o_moving_var + row;
        let batch_var = max(1.0 / (rstd * rstd) - p.eps, 0.0);
        moving_var[var_at] = moving_var[var_at] * p.keep + batch_var * (1.0 - p.keep);
        let mean_at = p.o_moving_mean + row;
        moving_mean[mean_at] = moving_mean[mean_at] * p.keep + mean[p.o_mean + row] * (1.0 - p.keep);
";

fn stage_text(rows: &Rows, what: &Sums, out: &Out) -> String {
    let (before, step, after) = what.texts();
    let store = |name: &str, dtype: DType, value: &str| {
        format!("        {name}[p.o_{name} + row] = {};\n", elem::pack(dtype, Num::F32, value))
    };
    let results = match (out, what.finish()) {
        (Out::Parts(_), _) => "        let k = p.o_parts_out + 3u * (group.z * p.rows + row);
        parts_out[k] = acc.x;
        parts_out[k + 1u] = acc.y;
        parts_out[k + 2u] = acc.z;
"
        .to_string(),
        (Out::Results([a, b], _), None) => {
            store("first_out", a.dtype, "acc.y") + &store("second_out", b.dtype, "acc.z")
        }
        (Out::Results([a, b], _), Some((deviation, _))) => {
            let root = "sqrt(acc.z / max(acc.x, 1.0) + p.eps)";
            let value = match deviation {
                Deviation::Plain => root.to_string(),
                Deviation::Inverse => format!("(1.0 / {root})"),
            };
            store("first_out", a.dtype, "acc.y") + &store("second_out", b.dtype, &value)
        }
    };
    let move_on = if matches!(out, Out::Results(_, Some(_))) { MOVE } else { "" };
    let text = format!(
        "{join}{joins}{main}    var acc = vec3<f32>(0.0);
{before}    if (live) {{
    let start = min(group.z * p.segment, p.len);
    let stop = min(start + p.segment, p.len);
    for (var i = start + lane; i < stop; i += lanes) {{
        let at = base + element_at(i);
{step}    }}
    }}
{after}    acc = join_all(acc, local, lane);
    if (live && lane == 0u) {{
{results}{move_on}    }}
}}
",
        join = if what.joins_moments() { JOIN_MOMENTS } else { JOIN_SUMS },
        joins = rows.text(&[("join_all", "vec3<f32>", "join(a, b)")]),
        main = rows.main(),
    );
    // Bases are offsets from the inputs' own.
    elem::helpers_for(&text) + &text
}

/// Mean and deviation of every row of `x`.
pub fn launch_moments(
    device: &Device,
    rows: &Rows,
    x: Span,
    (deviation, eps): (Deviation, f64),
    outs: [Span; 2],
    label: &'static str,
) -> Result<()> {
    sums(device, rows, Sums::Moments { x, deviation, eps }, outs, None, label)
}

// ---- rows of their own -------------------------------------------------------------------------------------------

/// How gamma and beta belong to (before, along, after).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affine {
    /// One number for each index of the axis.
    PerElement,
    /// One number for each row, the same ones again after so many rows; nothing is behind the axis.
    PerRow(usize),
}

/// data, mean, deviation, gamma, beta.
static NORMAL: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(5, &[], |a| (a.x(0) - a.x(1)) / a.x(2) * a.x(3) + a.x(4)));

/// An array (before, along, after) as (samples, groups, along, after), where groups own gamma, or one group.
struct Parts {
    dims: [usize; 4],
    all: [isize; 4],
    rows: [isize; 4],
    affine: [isize; 4],
}

impl Parts {
    fn of(around: Around, affine: Affine) -> Parts {
        let (outer, n, inner) = around;
        let groups = if let Affine::PerRow(groups) = affine { groups.max(1) } else { 1 };
        let per_element = affine == Affine::PerElement;
        let spread = |[before, along, after]: Steps| [before * groups as isize, before, along, after];
        Parts {
            dims: [outer / groups, groups, n, inner],
            all: spread(whole(around)),
            rows: spread(outside(around)),
            affine: if per_element { [0, 0, 1, 0] } else { [0, 1, 0, 0] },
        }
    }
}

/// (x - mean) / deviation * gamma + beta for every row along the middle axis; `mean` and `std` are written first.
pub fn launch_rows(
    device: &Device,
    around: Around,
    affine: Affine,
    eps: f64,
    [x, gamma, beta]: [Span; 3],
    [y, mean, std]: [Span; 3],
    label: &'static str,
) -> Result<()> {
    launch_moments(device, &Rows::along(around), x, (Deviation::Plain, eps), [mean, std], label)?;
    let at = Parts::of(around, affine);
    let ins = [
        x.strided(&at.all),
        mean.strided(&at.rows),
        std.strided(&at.rows),
        gamma.strided(&at.affine),
        beta.strided(&at.affine),
    ];
    launch_map(device, &NORMAL, &[], &at.dims, &ins, y.strided(&at.all), label)
}

/// head, data, mean, deviation, gamma, and the sums of gamma * head plain and times the normalized data.
static ROW_SLOPE: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(7, &["share"], |a| {
        let normal = (a.x(1) - a.x(2)) / a.x(3);
        (a.x(0) * a.x(4) - (a.x(5) + normal * a.x(6)) * a.param("share")) / a.x(3)
    })
});
static PRODUCT: LazyLock<Formula> = LazyLock::new(|| Formula::build(2, &[], |a| a.x(0) * a.x(1)));

/// The gradients `[dx, dgamma, dbeta]` of [`launch_rows`].
pub fn launch_rows_grad(
    device: &Device,
    around: Around,
    affine: Affine,
    [head, x, gamma, mean, std]: [Span; 5],
    [dx, dgamma, dbeta]: [Span; 3],
    label: &'static str,
) -> Result<()> {
    let (rows, deviation) = (Rows::along(around), Deviation::Plain);
    let bytes = 4 * rows.count().max(1) as u64;
    let (s, q) = (device.alloc(bytes)?, device.alloc(bytes)?);
    let (s, q) = (Span::new(&s, DType::F32), Span::new(&q, DType::F32));
    let at = Parts::of(around, affine);
    match affine {
        Affine::PerElement => {
            let what = Sums::ScaledSlopes { x, head, mean, scale: std, deviation, gamma };
            sums(device, &rows, what, [s, q], None, label)?;
            let what = Sums::Slopes { x, head, mean, scale: std, deviation, of: Of::Elements };
            sums(device, &Rows::across(around), what, [dbeta, dgamma], None, label)?;
        }
        Affine::PerRow(groups) => {
            let what = Sums::Slopes { x, head, mean, scale: std, deviation, of: Of::Rows };
            sums(device, &rows, what, [s, q], None, label)?;
            let (dims, steps) = ([rows.count() / groups.max(1), groups], [groups as isize, 1]);
            for (of_rows, of_groups) in [(s, dbeta), (q, dgamma)] {
                let part = of_rows.strided(&steps);
                launch_reduce(device, Reduction::Sum, &dims, &[0], part, of_groups, label)?;
                let part_gamma = gamma.strided(&[0, 1]);
                launch_map(device, &PRODUCT, &[], &dims, &[part, part_gamma], part, label)?;
            }
        }
    }
    let ins = [
        head.strided(&at.all),
        x.strided(&at.all),
        mean.strided(&at.rows),
        std.strided(&at.rows),
        gamma.strided(&at.affine),
        s.strided(&at.rows),
        q.strided(&at.rows),
    ];
    let share = [1.0 / rows.extent().max(1) as f64];
    launch_map(device, &ROW_SLOPE, &share, &at.dims, &ins, dx.strided(&at.all), label)
}

// ---- vectors of length 1 -----------------------------------------------------------------------------------------

static ROOT: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["eps"], |a| (a.x(0) + a.param("eps")).sqrt()));
static SHARE: LazyLock<Formula> = LazyLock::new(|| Formula::build(2, &[], |a| a.x(0) / a.x(1)));
/// head, result, the sum of their product, norm.
static UNIT_SLOPE: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(4, &[], |a| (a.x(0) - a.x(1) * a.x(2)) / a.x(3)));

/// x / norm with norm = sqrt(sum of squares along the middle axis + eps); `outs` are the result and the norms.
pub fn launch_unit(
    device: &Device,
    around: Around,
    eps: f64,
    x: Span,
    [y, norm]: [Span; 2],
    label: &'static str,
) -> Result<()> {
    let (dims, all, rows) = ([around.0, around.1, around.2], whole(around), outside(around));
    launch_reduce(device, Reduction::SumSq, &dims, &[1], place(x, &all), norm, label)?;
    let (count, line) = (around.0 * around.2, norm.strided(&[1]));
    launch_map(device, &ROOT, &[eps], &[count], &[line], line, label)?;
    launch_map(device, &SHARE, &[], &dims, &[place(x, &all), place(norm, &rows)], place(y, &all), label)
}

/// The gradient of [`launch_unit`] from its results: (head - y * sum(y * head)) / norm.
pub fn launch_unit_grad(
    device: &Device,
    around: Around,
    [y, norm, head]: [Span; 3],
    dx: Span,
    label: &'static str,
) -> Result<()> {
    let (dims, all, rows) = ([around.0, around.1, around.2], whole(around), outside(around));
    let (y, head, dx) = (place(y, &all), place(head, &all), place(dx, &all));
    let room = |n: usize| device.alloc(4 * n.max(1) as u64);
    let (products, totals) = (room(dims.iter().product())?, room(around.0 * around.2)?);
    let (products, totals) = (Span::new(&products, DType::F32), Span::new(&totals, DType::F32));
    launch_map(device, &PRODUCT, &[], &dims, &[y, head], place(products, &all), label)?;
    launch_reduce(device, Reduction::Sum, &dims, &[1], place(products, &all), totals, label)?;
    let ins = [head, y, place(totals, &rows), place(norm, &rows)];
    launch_map(device, &UNIT_SLOPE, &[], &dims, &ins, dx, label)
}
