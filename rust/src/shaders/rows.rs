//! What kernels that go over rows share: where the elements of a row lie, how many lanes go over it, and how lanes join.
//!
//! A "row" is any set of elements that belong together: those along an axis (softmax, LayerNorm), or all of a channel
//! (BatchNorm). A workgroup serves some rows with some lanes each; which invocations are neighbours follows the memory.

use crate::shaders::elem::{Place, Span};
use mxrs_base::Result;
use mxrs_gpu::{Params, Shader, linear_groups};
use std::fmt::Write;

/// Invocations of a workgroup.
pub const GROUP: usize = 256;

/// Sizes before, along and after an axis.
pub type Around = (usize, usize, usize);

/// Index i is at `i / cut * far + i % cut * near`; `i * far` where `cut` is 1.
#[derive(Clone, Copy, Debug)]
struct Walk {
    count: usize,
    cut: usize,
    far: usize,
    near: usize,
}

impl Walk {
    fn of(count: usize, cut: usize, far: usize, near: usize) -> Walk {
        match cut {
            0 | 1 => Walk { count, cut: 1, far, near: 0 },
            _ if cut >= count => Walk { count, cut: 1, far: near, near: 0 },
            _ => Walk { count, cut, far, near },
        }
    }
    fn innermost(&self) -> usize {
        match (self.count, self.cut) {
            (1, _) => usize::MAX,
            (_, 1) => self.far,
            _ => self.near,
        }
    }
    fn text(&self, name: &str, prefix: &str) -> String {
        let at = match self.cut {
            1 => format!("i * p.{prefix}_far"),
            _ => format!("i / p.{prefix}_cut * p.{prefix}_far + i % p.{prefix}_cut * p.{prefix}_near"),
        };
        format!("fn {name}(i: u32) -> u32 {{ return {at}; }}\n")
    }
}

/// Rows, and the elements of each.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    rows: Walk,
    elements: Walk,
}

impl Rows {
    /// A row for every index before and after the axis, along it.
    pub fn along((outer, n, inner): Around) -> Rows {
        Rows { rows: Walk::of(outer * inner, inner, n * inner, 1), elements: Walk::of(n, 1, inner, 0) }
    }
    /// A row for every index of the axis: all elements that have it.
    pub fn across((outer, n, inner): Around) -> Rows {
        Rows { rows: Walk::of(n, 1, inner, 0), elements: Walk::of(outer * inner, inner, n * inner, 1) }
    }
    pub fn count(&self) -> usize {
        self.rows.count
    }
    /// Elements of a row.
    pub fn extent(&self) -> usize {
        self.elements.count
    }
    /// Whether neighbours in memory belong to one row.
    fn is_dense(&self) -> bool {
        self.elements.innermost() <= self.rows.innermost() || self.rows.count == 1
    }
    /// Invocations that share a row: a power of two up to 256.
    pub fn lanes(&self) -> usize {
        let wanted = if self.is_dense() { self.extent() / 4 } else { self.extent() / 16 };
        // Columns keep at least 32 neighbours together.
        let most = if self.is_dense() || self.rows.count < 32 { GROUP } else { 8 };
        wanted.max(1).next_power_of_two().min(most)
    }
    /// All that the text depends on.
    pub fn key(&self) -> u64 {
        let bits = [self.is_dense(), self.rows.cut == 1, self.elements.cut == 1];
        bits.iter().fold(self.lanes() as u64, |word, bit| word << 1 | u64::from(*bit))
    }

    pub fn declare(&self, mut shader: Shader) -> Shader {
        for name in ["rows", "row_cut", "row_far", "row_near", "len", "at_cut", "at_far", "at_near"] {
            shader = shader.param(name, "u32");
        }
        shader
    }
    /// The values of what [`Rows::declare`] declares.
    pub fn params(&self) -> Result<Params> {
        let mut params = Params::new();
        for walk in [&self.rows, &self.elements] {
            params = params.size(walk.count)?.size(walk.cut)?.size(walk.far)?.size(walk.near)?;
        }
        Ok(params)
    }
    /// Workgroups for all rows.
    pub fn grid(&self) -> Result<[u32; 3]> {
        linear_groups(self.rows.count.div_ceil(GROUP / self.lanes()) as u64)
    }

    /// WGSL: the constant `lanes`, `row_at(row)`, `element_at(i)`, and for each of `joins`, `(name, type, expression of a
    /// and b)`, a function `name(value, local, lane)` that gives every lane of a row the joined value.
    pub fn text(&self, joins: &[(&str, &str, &str)]) -> String {
        let lanes = self.lanes();
        let stride = if self.is_dense() { 1 } else { GROUP / lanes };
        let mut text = format!("const lanes = {lanes}u;\n");
        text += &self.rows.text("row_at", "row");
        text += &self.elements.text("element_at", "at");
        for (name, kind, join) in joins {
            if lanes == 1 {
                let _ =
                    writeln!(text, "fn {name}(v: {kind}, local: u32, lane: u32) -> {kind} {{ return v; }}");
                continue;
            }
            let _ = writeln!(
                text,
                "var<workgroup> part_{name}: array<{kind}, {GROUP}>;
fn {name}(v: {kind}, local: u32, lane: u32) -> {kind} {{
    part_{name}[local] = v;
    workgroupBarrier();"
            );
            let mut half = lanes / 2;
            while half > 0 {
                let _ = writeln!(
                    text,
                    "    if (lane < {half}u) {{
        let a = part_{name}[local];
        let b = part_{name}[local + {}u];
        part_{name}[local] = {join};
    }}
    workgroupBarrier();",
                    half * stride
                );
                half /= 2;
            }
            let _ = writeln!(
                text,
                "    let all = part_{name}[local - lane * {stride}u];\n    workgroupBarrier();\n    return all;\n}}"
            );
        }
        text
    }

    /// The head of `main`: `row`, `lane`, whether the row is there (`live`), and where it begins (`base`).
    pub fn main(&self) -> String {
        let (lanes, rows) = (self.lanes(), GROUP / self.lanes());
        let (row, lane) = match self.is_dense() {
            true => (format!("local / {lanes}u"), format!("local % {lanes}u")),
            false => (format!("local % {rows}u"), format!("local / {rows}u")),
        };
        format!(
            "@compute @workgroup_size({GROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    let row = mx_group(group) * {rows}u + {row};
    let lane = {lane};
    let live = row < p.rows;
    let base = row_at(row);
"
        )
    }
}

/// By bits: a shader may assume that neither occurs.
pub const BITS: &str =
    "fn mx_is_nan(v: f32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u; }
fn mx_infinity(sign: u32) -> f32 { var bits = 0x7f800000u | sign; return bitcast<f32>(bits); }
fn mx_nan() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }
";

/// Steps of an operand of a map over (before, along, after).
pub type Steps = [isize; 3];

/// Every element of an array of these sizes.
pub fn whole((_, n, inner): Around) -> Steps {
    [(n * inner) as isize, inner as isize, 1]
}
/// One number for each index of the axis.
pub const AXIS: Steps = [0, 1, 0];
/// One number for each index before and after the axis.
pub fn outside((_, _, inner): Around) -> Steps {
    [inner as isize, 0, 1]
}

/// An operand of a map.
pub fn place<'a>(span: Span<'a>, steps: &'a Steps) -> Place<'a> {
    span.strided(steps)
}
