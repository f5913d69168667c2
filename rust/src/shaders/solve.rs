//! Triangular systems, Cholesky's and Gauss' factorisations of stacks of matrices, in float32.
//!
//! All go by blocks of 32 columns: a kernel takes a block, and products ([`launch_matmul`]) take its effect on what
//! follows, so that nearly all arithmetic is in products. A pivot that is 0 or, for Cholesky, not positive cannot raise
//! an error on a device: what depends on it becomes not-a-number.

use crate::shaders::each::{Each, Read};
use crate::shaders::elem::{self, Span};
use crate::shaders::epilogue::Epilogue;
use crate::shaders::matmul::{Product, launch_matmul};
use crate::shaders::rows::BITS;
use mxrs_base::{DType, Error, Result};
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};

/// Columns of a block.
const BLOCK: usize = 32;

/// A stack of matrices in memory: where the first begins, and the steps from row to row, from column to column and from
/// matrix to matrix.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    pub span: Span<'a>,
    pub steps: [usize; 3],
}

impl<'a> Stack<'a> {
    /// Matrices of these rows and columns without gaps.
    pub fn dense(span: Span<'a>, rows: usize, cols: usize) -> Stack<'a> {
        Stack { span, steps: [cols, 1, rows * cols] }
    }
    pub fn transposed(self) -> Stack<'a> {
        let [row, col, batch] = self.steps;
        Stack { steps: [col, row, batch], ..self }
    }
    /// The part from this row and column on.
    fn from(self, row: usize, col: usize) -> Stack<'a> {
        let offset = self.span.offset + row * self.steps[0] + col * self.steps[1];
        Stack { span: Span { offset, ..self.span }, ..self }
    }
}

fn expect_f32(span: Span, label: &str) -> Result<()> {
    match span.dtype {
        DType::F32 => Ok(()),
        other => Err(Error::typ(format!("{label}: {other} is not supported on a GPU; allowed is float32"))),
    }
}

/// `c -= a b`, with a (m x k) and b (k x n).
fn subtract(
    device: &Device,
    batch: usize,
    (m, n, k): (usize, usize, usize),
    (a, b): (Stack, Stack),
    c: Stack,
    label: &'static str,
) -> Result<()> {
    let product = Product { m, n, k, batch, a: a.steps, b: b.steps, c: c.steps };
    let epilogue = Epilogue { alpha: -1.0, beta: 1.0, ..Epilogue::NONE };
    launch_matmul(device, &product, a.span, b.span, c.span, &epilogue, label)
}

/// Which triangle a system has, and whether its diagonal is taken to be 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Triangle {
    pub lower: bool,
    pub unit: bool,
}

/// Solves `A X = Y` for X (n x count), which takes the place of Y, `batch` times; A is triangular.
///
/// # Errors
/// For elements other than float32.
pub fn launch_solve(
    device: &Device,
    (a, triangle): (Stack, Triangle),
    y: Stack,
    (batch, n, count): (usize, usize, usize),
    label: &'static str,
) -> Result<()> {
    expect_f32(a.span, label)?;
    let blocks = n.div_ceil(BLOCK);
    for b in 0..blocks {
        let first = BLOCK * if triangle.lower { b } else { blocks - 1 - b };
        let end = (first + BLOCK).min(n);
        solve_block(
            device,
            (a.from(first, first), triangle),
            y.from(first, 0),
            (batch, end - first, count),
            label,
        )?;
        let (rest, to) = if triangle.lower { (end, n) } else { (0, first) };
        let sizes = (to - rest, count, end - first);
        subtract(device, batch, sizes, (a.from(rest, first), y.from(first, 0)), y.from(rest, 0), label)?;
    }
    Ok(())
}

/// The same for a block: an invocation has a column of X.
fn solve_block(
    device: &Device,
    (a, triangle): (Stack, Triangle),
    y: Stack,
    (batch, n, count): (usize, usize, usize),
    label: &'static str,
) -> Result<()> {
    if batch * n * count == 0 {
        return Ok(());
    }
    let pipeline = device.pipeline(&Key::new("solve block"), || {
        let mut shader = Shader::new("solve block", BITS.to_string() + SOLVE)
            .slot(Slot::read("a", "f32"))
            .slot(Slot::write("y", "f32"));
        for name in ["columns", "n", "count", "forward", "unit"] {
            shader = shader.param(name, "u32");
        }
        for side in ["a", "y"] {
            for what in ["o", "row", "col", "batch"] {
                shader = shader.param(format!("{what}_{side}"), "u32");
            }
        }
        Ok(shader)
    })?;
    let mut params = Params::new().size(batch * count)?.size(n)?.size(count)?;
    params = params.u32(u32::from(triangle.lower)).u32(u32::from(triangle.unit));
    for stack in [a, y] {
        params = params.size(stack.span.offset)?;
        for step in stack.steps {
            params = params.size(step)?;
        }
    }
    let groups = linear_groups((batch * count).div_ceil(64) as u64)?;
    device.dispatch(&pipeline, &[a.span.buffer, y.span.buffer], params, groups, label)
}

const SOLVE: &str = "fn unknown(i: u32) -> u32 { return select(p.n - 1u - i, i, p.forward == 1u); }
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 64u + local;
    if (t >= p.columns) { return; }
    let a0 = p.o_a + t / p.count * p.batch_a;
    let y0 = p.o_y + t / p.count * p.batch_y + t % p.count * p.col_y;
    for (var i = 0u; i < p.n; i++) {
        let row = unknown(i);
        var v = y[y0 + row * p.row_y];
        for (var k = 0u; k < i; k++) {
            let col = unknown(k);
            v = v - a[a0 + row * p.row_a + col * p.col_a] * y[y0 + col * p.row_y];
        }
        if (p.unit == 0u) {
            let pivot = a[a0 + row * (p.row_a + p.col_a)];
            if (pivot == 0.0) { v = mx_nan(); } else { v = v / pivot; }
        }
        y[y0 + row * p.row_y] = v;
    }
}
";

// ---- Cholesky ----------------------------------------------------------------------------------------------------

/// Replaces the lower triangle of each symmetric `a` (n x n, dense), which alone is read, by L with L L^T = A; what is
/// above the diagonal becomes undefined.
pub fn launch_cholesky(device: &Device, a: Span, batch: usize, n: usize, label: &'static str) -> Result<()> {
    expect_f32(a, label)?;
    let whole = Stack::dense(a, n, n);
    let pipeline = device.pipeline(&Key::new("cholesky block"), || {
        let mut shader =
            Shader::new("cholesky block", BITS.to_string() + CHOLESKY).slot(Slot::write("a", "f32"));
        for name in ["batch", "n", "size", "o_a"] {
            shader = shader.param(name, "u32");
        }
        Ok(shader)
    })?;
    for first in (0..n).step_by(BLOCK) {
        let end = (first + BLOCK).min(n);
        let corner = whole.from(first, first);
        let params = Params::new().size(batch)?.size(n)?.size(end - first)?.size(corner.span.offset)?;
        device.dispatch(&pipeline, &[a.buffer], params, linear_groups(batch as u64)?, label)?;
        // The rows below: X with X L^T = A, whose columns are the unknowns.
        let (below, rest) = (whole.from(end, first), n - end);
        let triangle = Triangle { lower: true, unit: false };
        solve_block(device, (corner, triangle), below.transposed(), (batch, end - first, rest), label)?;
        let sizes = (rest, rest, end - first);
        subtract(device, batch, sizes, (below, below.transposed()), whole.from(end, end), label)?;
    }
    Ok(())
}

/// One workgroup per matrix; the block is in its memory.
const CHOLESKY: &str = "var<workgroup> part: array<f32, 1024>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let matrix = mx_group(group);
    let base = p.o_a + min(matrix, p.batch - 1u) * p.n * p.n;
    for (var e = local; e < 1024u; e += 256u) {
        let i = e / 32u;
        let j = e % 32u;
        part[e] = 0.0;
        if (i < p.size && j <= i) { part[e] = a[base + i * p.n + j]; }
    }
    workgroupBarrier();
    for (var c = 0u; c < p.size; c++) {
        let pivot = part[c * 33u];
        var root = mx_nan();
        if (pivot > 0.0) { root = sqrt(pivot); }
        workgroupBarrier();
        if (local < 32u && local >= c) {
            let v = part[local * 32u + c];
            part[local * 32u + c] = select(v / root, root, local == c);
        }
        workgroupBarrier();
        for (var e = local; e < 1024u; e += 256u) {
            let i = e / 32u;
            let j = e % 32u;
            if (j > c && i >= j) { part[e] = part[e] - part[i * 32u + c] * part[j * 32u + c]; }
        }
        workgroupBarrier();
    }
    if (matrix >= p.batch) { return; }
    for (var e = local; e < 1024u; e += 256u) {
        let i = e / 32u;
        let j = e % 32u;
        if (i < p.size && j <= i) { a[base + i * p.n + j] = part[e]; }
    }
}
";

// ---- Gauss -------------------------------------------------------------------------------------------------------

/// P A = L U by partial pivoting: L (its diagonal of ones is not kept) and U in one array, and the row that was
/// exchanged with each row in turn.
pub struct Factors {
    matrices: Buffer,
    pivots: Buffer,
    batch: usize,
    n: usize,
}

/// Factorises each matrix of `x` (n x n, dense).
pub fn launch_factors(
    device: &Device,
    x: Span,
    batch: usize,
    n: usize,
    label: &'static str,
) -> Result<Factors> {
    expect_f32(x, label)?;
    let matrices = device.alloc(4 * (batch * n * n).max(1) as u64)?;
    let pivots = device.alloc(4 * (batch * n).max(1) as u64)?;
    let factors = Factors { matrices, pivots, batch, n };
    if batch == 0 {
        return Ok(factors);
    }
    let a = Span::new(&factors.matrices, DType::F32);
    super::copy::launch_cast(device, batch * n * n, x, a, label)?;
    let whole = Stack::dense(a, n, n);
    let pipeline = device.pipeline(&Key::new("factor panel"), || {
        let shader = Shader::new("factor panel", PANEL).slot(Slot::write("a", "f32"));
        let mut shader = shader.slot(Slot::write("pivots", "u32"));
        for name in ["batch", "n", "first", "end"] {
            shader = shader.param(name, "u32");
        }
        Ok(shader)
    })?;
    for first in (0..n).step_by(BLOCK) {
        let end = (first + BLOCK).min(n);
        let params = Params::new().size(batch)?.size(n)?.size(first)?.size(end)?;
        let buffers = [&factors.matrices, &factors.pivots];
        device.dispatch(&pipeline, &buffers, params, linear_groups(batch as u64)?, label)?;
        factors.exchange(device, a, n, (first, end), true, label)?;
        let (right, triangle) = (whole.from(first, end), Triangle { lower: true, unit: true });
        let rest = n - end;
        solve_block(device, (whole.from(first, first), triangle), right, (batch, end - first, rest), label)?;
        let sizes = (rest, rest, end - first);
        subtract(device, batch, sizes, (whole.from(end, first), right), whole.from(end, end), label)?;
    }
    Ok(factors)
}

/// Elimination within the columns from `first` to `end`, one workgroup per matrix. Of equal pivots the first is taken.
const PANEL: &str = "var<workgroup> sizes: array<f32, 256>;
var<workgroup> rows: array<u32, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let matrix = mx_group(group);
    let live = matrix < p.batch;
    let base = min(matrix, p.batch - 1u) * p.n * p.n;
    for (var c = p.first; c < p.end; c++) {
        var best = -1.0;
        var at = c;
        for (var r = c + local; r < p.n; r += 256u) {
            let size = abs(a[base + r * p.n + c]);
            if (size > best) {
                best = size;
                at = r;
            }
        }
        sizes[local] = best;
        rows[local] = at;
        workgroupBarrier();
        for (var half = 128u; half > 0u; half = half / 2u) {
            if (local < half) {
                let other = sizes[local + half];
                let row = rows[local + half];
                if (other > sizes[local] || (other == sizes[local] && row < rows[local])) {
                    sizes[local] = other;
                    rows[local] = row;
                }
            }
            workgroupBarrier();
        }
        let chosen = rows[0];
        if (live && local == 0u) { pivots[matrix * p.n + c] = chosen; }
        if (live && chosen != c && local < p.end - p.first) {
            let j = p.first + local;
            let v = a[base + c * p.n + j];
            a[base + c * p.n + j] = a[base + chosen * p.n + j];
            a[base + chosen * p.n + j] = v;
        }
        storageBarrier();
        workgroupBarrier();
        let pivot = a[base + c * p.n + c];
        if (live) {
            for (var r = c + 1u + local; r < p.n; r += 256u) {
                // Under a pivot of 0 all are 0.
                var factor = a[base + r * p.n + c];
                if (pivot != 0.0) { factor = factor / pivot; }
                a[base + r * p.n + c] = factor;
                for (var j = c + 1u; j < p.end; j++) {
                    a[base + r * p.n + j] = a[base + r * p.n + j] - factor * a[base + c * p.n + j];
                }
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
}
";

/// An invocation has a column.
const EXCHANGE: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 256u + local;
    let matrix = t / p.width;
    let j = t % p.width;
    if (matrix >= p.batch || (p.others == 1u && j >= p.first && j < p.end)) { return; }
    let base = p.o_y + matrix * p.n * p.width + j;
    for (var c = p.first; c < p.end; c++) {
        let row = pivots[matrix * p.n + c];
        let v = y[base + c * p.width];
        y[base + c * p.width] = y[base + row * p.width];
        y[base + row * p.width] = v;
    }
}
";

/// The determinant as `turn * mantissa * 2^exponent`, which neither overflows nor vanishes on the way.
const DETERMINANT: &str =
    "fn two(e: i32) -> f32 { return bitcast<f32>(u32(clamp(e, -126, 127) + 127) << 23u); }
fn element(e: u32) -> VALUE {
    var turn = 1.0;
    var mantissa = 1.0;
    var exponent = 0;
    var lost = false;
    for (var i = 0u; i < p.side; i++) {
        let bits = bitcast<u32>(lu((e * p.side + i) * p.side + i));
        let power = i32((bits >> 23u) & 0xffu);
        if ((bits >> 31u == 1u) != (pivots(e * p.side + i) != i32(i))) { turn = -turn; }
        if (power == 0) { turn = 0.0; }
        if (power == 255) { lost = true; }
        mantissa = mantissa * bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
        exponent += power - 127;
        if (mantissa >= 2.0) {
            mantissa = mantissa * 0.5;
            exponent += 1;
        }
    }
    if (lost) { return mx_nan(); }
";

impl Factors {
    /// Exchanges rows of each matrix of `y` (n x width, dense) as those of the columns from `first` to `end` were;
    /// `others` leaves those columns alone.
    fn exchange(
        &self,
        device: &Device,
        y: Span,
        width: usize,
        (first, end): (usize, usize),
        others: bool,
        label: &'static str,
    ) -> Result<()> {
        let pipeline = device.pipeline(&Key::new("exchange rows"), || {
            let shader = Shader::new("exchange rows", EXCHANGE).slot(Slot::read("pivots", "u32"));
            let mut shader = shader.slot(Slot::write("y", elem::element(DType::F32)));
            for name in ["batch", "n", "width", "first", "end", "others", "o_y"] {
                shader = shader.param(name, "u32");
            }
            Ok(shader)
        })?;
        let params = Params::new().size(self.batch)?.size(self.n)?.size(width)?.size(first)?.size(end)?;
        let params = params.u32(u32::from(others)).size(y.offset)?;
        let groups = linear_groups((self.batch * width).div_ceil(256) as u64)?;
        device.dispatch(&pipeline, &[&self.pivots, y.buffer], params, groups, label)
    }

    /// Solves A X = Y for X (n x count, dense), which takes the place of Y.
    pub fn solve(&self, device: &Device, y: Span, count: usize, label: &'static str) -> Result<()> {
        let (a, n) = (Stack::dense(Span::new(&self.matrices, DType::F32), self.n, self.n), self.n);
        self.exchange(device, y, count, (0, n), false, label)?;
        for triangle in [Triangle { lower: true, unit: true }, Triangle { lower: false, unit: false }] {
            launch_solve(device, (a, triangle), Stack::dense(y, n, count), (self.batch, n, count), label)?;
        }
        Ok(())
    }

    fn each_determinant(
        &self,
        device: &Device,
        name: &'static str,
        tail: &str,
        y: Span,
        label: &'static str,
    ) -> Result<()> {
        let each = Each::new(name, y)
            .input("lu", Span::new(&self.matrices, DType::F32), Read::Value)
            .input("pivots", Span::new(&self.pivots, DType::I32), Read::Index)
            .size("side", self.n)?;
        each.launch(device, self.batch, || BITS.to_string() + DETERMINANT + tail + "}\n", label)
    }

    pub fn determinants(&self, device: &Device, y: Span, label: &'static str) -> Result<()> {
        let tail = "    return turn * mantissa * two(exponent / 2) * two(exponent - exponent / 2);\n";
        self.each_determinant(device, "determinant", tail, y, label)
    }

    /// -1, 0 or 1.
    pub fn signs(&self, device: &Device, y: Span, label: &'static str) -> Result<()> {
        self.each_determinant(device, "determinant sign", "    return turn;\n", y, label)
    }

    /// Logarithms of absolute values.
    pub fn logs(&self, device: &Device, y: Span, label: &'static str) -> Result<()> {
        let tail = "    if (turn == 0.0) { return mx_infinity(0x80000000u); }
    return log(mantissa) + f32(exponent) * 0.6931472;\n";
        self.each_determinant(device, "determinant logarithm", tail, y, label)
    }
}
