//! Matrices taken apart on GPUs. float64 is refused by name, as everywhere there.

use super::super::GpuCtx;
use super::stack;
use crate::shaders::copy::{launch_cast, launch_copy, launch_fill};
use crate::shaders::each::{Each, Read};
use crate::shaders::map::launch_map;
use crate::shaders::solve::{Stack, Triangle, launch_cholesky, launch_factors, launch_solve};
use mxrs_base::Result;
use mxrs_formula::Formula;
use std::sync::LazyLock;

/// Each element of the result from its matrix, row and column: `text` is WGSL that returns it.
fn by_place(
    c: &GpuCtx,
    name: &'static str,
    n: usize,
    text: &'static str,
    numbers: &[(&'static str, usize)],
) -> Result<()> {
    let mut each = Each::new(name, c.y(0)).input("x", c.x(0), Read::Value).size("side", n)?;
    for (name, value) in numbers {
        each = each.size(*name, *value)?;
    }
    let body = || {
        format!(
            "fn at(matrix: u32, row: u32, col: u32) -> VALUE {{ return x((matrix * p.side + row) * p.side + col); }}
fn element(e: u32) -> VALUE {{\n    {text}\n}}\n"
        )
    };
    each.launch(c.device, c.out_shape(0).size(), body, c.op.name)
}

pub(super) fn triangle(c: &GpuCtx) -> Result<()> {
    let ((_, n, _), lower) = (stack(c.shape(0)), c.attrs.bool("lower"));
    by_place(
        c,
        "triangle",
        n,
        "let row = e / p.side % p.side;
    let col = e % p.side;
    if (row == col || (col < row) == (p.lower == 1u)) { return x(e); }
    return VALUE(0);",
        &[("lower", usize::from(lower))],
    )
}

pub(super) fn mirror(c: &GpuCtx, fold: bool) -> Result<()> {
    let (_, n, _) = stack(c.shape(0));
    let (name, text) = match fold {
        false => (
            "mirror",
            "let row = e / p.side % p.side;
    let col = e % p.side;
    return at(e / p.side / p.side, max(row, col), min(row, col));",
        ),
        true => (
            "fold",
            "let row = e / p.side % p.side;
    let col = e % p.side;
    if (row < col) { return VALUE(0); }
    if (row == col) { return x(e); }
    return x(e) + at(e / p.side / p.side, col, row);",
        ),
    };
    by_place(c, name, n, text, &[])
}

static SCALED: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["alpha"], |a| a.x(0) * a.param("alpha")));

pub(super) fn triangular_solve(c: &GpuCtx) -> Result<()> {
    let (batch, n, _) = stack(c.shape(0));
    let (_, rows, cols) = stack(c.shape(1));
    let (turned, right, lower) =
        (c.attrs.bool("transpose"), c.attrs.bool("rightside"), c.attrs.bool("lower"));
    let (from, to) = (c.x(1).strided(&[1]), c.y(0).strided(&[1]));
    let alpha = [c.attrs.float("alpha")];
    launch_map(c.device, &SCALED, &alpha, &[batch * rows * cols], &[from], to, c.op.name)?;
    // X op(A) = B is the transposed system, whose unknowns lie along rows.
    let (a, y) = (Stack::dense(c.x(0), n, n), Stack::dense(c.y(0), rows, cols));
    let a = if turned == right { a } else { a.transposed() };
    let (y, count) = if right { (y.transposed(), rows) } else { (y, cols) };
    let triangle = Triangle { lower: (lower != turned) != right, unit: false };
    launch_solve(c.device, (a, triangle), y, (batch, n, count), c.op.name)
}

/// What has no Cholesky factor becomes not-a-number, where the host raises an error.
pub(super) fn cholesky(c: &GpuCtx) -> Result<()> {
    let (batch, n, _) = stack(c.shape(0));
    let name = c.op.name;
    launch_cast(c.device, batch * n * n, c.x(0), c.y(0), name)?;
    launch_cholesky(c.device, c.y(0), batch, n, name)?;
    let above = Each::new("clear above", c.y(0)).input("x", c.y(0), Read::Value).size("side", n)?;
    let body = || {
        "fn element(e: u32) -> VALUE {
    if (e % p.side > e / p.side % p.side) { return VALUE(0); }
    return x(e);
}\n"
        .into()
    };
    above.launch(c.device, batch * n * n, body, name)
}

/// A singular matrix gives numbers that are none, where the host raises an error.
pub(super) fn inverse(c: &GpuCtx) -> Result<()> {
    let (batch, n, _) = stack(c.shape(0));
    let name = c.op.name;
    let factors = launch_factors(c.device, c.x(0), batch, n, name)?;
    launch_fill(c.device, &[batch * n * n], 0.0, c.y(0).strided(&[1]), name)?;
    let diagonal = [(n * n) as isize, n as isize + 1];
    launch_fill(c.device, &[batch, n], 1.0, c.y(0).strided(&diagonal), name)?;
    factors.solve(c.device, c.y(0), n, name)
}

pub(super) fn determinants(c: &GpuCtx, split: bool) -> Result<()> {
    let (batch, n, _) = stack(c.shape(0));
    let factors = launch_factors(c.device, c.x(0), batch, n, c.op.name)?;
    if !split {
        return factors.determinants(c.device, c.y(0), c.op.name);
    }
    factors.signs(c.device, c.y(0), c.op.name)?;
    factors.logs(c.device, c.y(1), c.op.name)
}

// ---- diagonals and triangles as vectors --------------------------------------------------------------------------

/// Where a packed triangle's numbers stand: element `number` is at row `i`, column `j` of a lower triangle.
const PACKED: &str = "let offset = p.offset;
    let length = p.length;
    let number = e % length;
    var i = u32((sqrt(8.0 * f32(number) + 1.0) - 1.0) * 0.5);
    // A root that was rounded is one off at most.
    if (i * (i + 1u) / 2u > number) { i = i - 1u; }
    if ((i + 1u) * (i + 2u) / 2u <= number) { i = i + 1u; }
    let j = number - i * (i + 1u) / 2u;
    if (p.lower == 1u) { return at(e / length, i + offset, j); }
    return at(e / length, j, i + offset);";

const UNPACKED: &str = "var i = e / p.side % p.side;
    var j = e % p.side;
    if (p.lower == 0u) {
        let row = i;
        i = j;
        j = row;
    }
    if (i < p.offset || j > i - p.offset) { return VALUE(0); }
    i = i - p.offset;
    return x(e / p.side / p.side * p.length + i * (i + 1u) / 2u + j);";

/// The distance of the diagonal from the main one, and whether it is below; a packed vector holds the side beyond it.
fn diagonal(c: &GpuCtx) -> (usize, bool, bool) {
    let (offset, packed) = (c.attrs.int("offset"), c.attrs.has("lower"));
    let lower = offset < 0 || (offset == 0 && packed && c.attrs.bool("lower"));
    (offset.unsigned_abs() as usize, lower, packed)
}

pub(super) fn extract(c: &GpuCtx) -> Result<()> {
    let (batch, n, _) = stack(c.shape(0));
    let (offset, lower, packed) = diagonal(c);
    let length = c.out_shape(0).last().copied().unwrap_or(0);
    if packed {
        let numbers = [("offset", offset), ("lower", usize::from(lower)), ("length", length)];
        return by_place(c, "packed triangle", n, PACKED, &numbers);
    }
    let mut x = c.x(0);
    x.offset += if lower { offset * n } else { offset };
    let (from, to) = ([(n * n) as isize, n as isize + 1], [length as isize, 1]);
    launch_copy(c.device, &[batch, length], x.strided(&from), c.y(0).strided(&to), c.op.name)
}

pub(super) fn make(c: &GpuCtx) -> Result<()> {
    let (batch, n, _) = stack(c.out_shape(0));
    let (offset, lower, packed) = diagonal(c);
    let length = c.shape(0).last().copied().unwrap_or(0);
    if packed {
        let numbers = [("offset", offset), ("lower", usize::from(lower)), ("length", length)];
        return by_place(c, "unpacked triangle", n, UNPACKED, &numbers);
    }
    launch_fill(c.device, &[batch * n * n], 0.0, c.y(0).strided(&[1]), c.op.name)?;
    let mut y = c.y(0);
    y.offset += if lower { offset * n } else { offset };
    let (from, to) = ([length as isize, 1], [(n * n) as isize, n as isize + 1]);
    launch_copy(c.device, &[batch, length], c.x(0).strided(&from), y.strided(&to), c.op.name)
}
