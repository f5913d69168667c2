//! Matrix products: batches, any strides, and an [`Epilogue`] on the result's way into memory.
//!
//! Sums are in float32 whatever the elements are; float16 results are rounded once.

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::epilogue::Epilogue;
use crate::shaders::map::launch_map;
use crate::shaders::reduce::{Reduction, launch_reduce};
use crate::shaders::tile::{self, Cut, PARAMS, Sides, TILES};
use mxrs_base::{DType, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use smallvec::SmallVec;
use std::sync::LazyLock;

/// The sizes of `c (m x n) = alpha * a (m x k) * b (k x n) + beta * c`, `batch` times. Steps are in elements; a batch
/// step of 0 repeats an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    /// Steps of a along m, along k, and from one of the batch to the next.
    pub a: [usize; 3],
    /// Steps of b along k, along n, and from one of the batch to the next.
    pub b: [usize; 3],
    /// Steps of c along m, along n, and from one of the batch to the next.
    pub c: [usize; 3],
}

impl Product {
    /// Matrices without gaps; `trans_a` says that a is stored as k rows of m, `trans_b` that b is n rows of k.
    pub fn dense(trans_a: bool, trans_b: bool, m: usize, n: usize, k: usize, batch: usize) -> Product {
        let a = if trans_a { [1, m, m * k] } else { [k, 1, m * k] };
        let b = if trans_b { [1, k, k * n] } else { [n, 1, k * n] };
        Product { m, n, k, batch, a, b, c: [n, 1, m * n] }
    }
}

/// `c = alpha * a b + beta * c + bias`, through the formula if there is one.
///
/// # Errors
/// For elements other than float32 and float16, and sizes that 32 bits do not count.
pub fn launch_matmul(
    device: &Device,
    p: &Product,
    a: Span,
    b: Span,
    c: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    epilogue.check([a, b, c], label)?;
    if p.m == 0 || p.n == 0 || p.batch == 0 {
        return Ok(());
    }
    if is_thin(p) {
        return launch_cut(device, p, None, a, b, c, epilogue, label);
    }
    let dense = p.c == [p.n, 1, p.m * p.n];
    let cut = Cut::of(p.m, p.n, p.k, p.batch, dense && epilogue.is_linear());
    if cut.splits == 1 {
        return launch_cut(device, p, Some(cut), a, b, c, epilogue, label);
    }
    let total = p.batch * p.m * p.n;
    let parts = device.alloc(4 * (cut.splits * total) as u64)?;
    let between = Span::new(&parts, DType::F32);
    launch_cut(device, p, Some(cut), a, b, between, &Epilogue { beta: 0.0, ..*epilogue }, label)?;
    sum_parts(device, cut.splits, total, between, c, epilogue.beta, label)
}

/// Whether neighbours of a, and of b, follow the sum.
fn along_k(p: &Product) -> (bool, bool) {
    (p.a[1] <= p.a[0], p.b[0] < p.b[1])
}

/// Whether a workgroup for each result does better than tiles, which would be mostly empty and few: rows or columns of
/// a vector or a few, whose sums are long and read as they lie.
fn is_thin(p: &Product) -> bool {
    let enough = p.m * p.n * p.batch >= 64 || p.k <= 4096;
    p.m.min(p.n) <= 4 && p.k >= 128 && along_k(p) == (true, true) && enough
}

static ADDED: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(2, &["beta"], |a| a.x(0) + a.x(1) * a.param("beta")));

/// `c = sum of parts + beta * c`, all dense.
pub(crate) fn sum_parts(
    device: &Device,
    splits: usize,
    total: usize,
    parts: Span,
    c: Span,
    beta: f32,
    label: &'static str,
) -> Result<()> {
    let (dims, strides) = ([splits, total], [total as isize, 1]);
    if beta == 0.0 {
        return launch_reduce(device, Reduction::Sum, &dims, &[0], parts.strided(&strides), c, label);
    }
    let sums = device.alloc(4 * total as u64)?;
    let sum = Span::new(&sums, DType::F32);
    launch_reduce(device, Reduction::Sum, &dims, &[0], parts.strided(&strides), sum, label)?;
    let (one, place) = ([1], c.strided(&[1]));
    launch_map(device, &ADDED, &[beta as f64], &[total], &[sum.strided(&one), place], place, label)
}

/// The first seven parameters of a product (see [`PARAMS`]) for a grid that begins at batch `first`.
pub(crate) fn head(p: (usize, usize, usize), splits: usize, depth: usize, first: usize) -> Result<Params> {
    // Parts begin where slices do.
    let part = p.2.div_ceil(splits).next_multiple_of(depth).max(1);
    Params::new().size(p.0)?.size(p.1)?.size(p.2)?.size(splits)?.size(part)?.size(first)
}

#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
fn launch_cut(
    device: &Device,
    p: &Product,
    cut: Option<Cut>,
    a: Span,
    b: Span,
    c: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    let (a_along_k, b_along_k) = along_k(p);
    let tile = cut.map(|cut| TILES[cut.tile]);
    let (splits, depth) = (cut.map_or(1, |cut| cut.splits), tile.map_or(1, |tile| tile.depth));
    let head_word = cut.map_or(0xff, |cut| cut.tile as u64)
        | (a_along_k as u64) << 8
        | (b_along_k as u64) << 9
        | (a.dtype as u64) << 10
        | (b.dtype as u64) << 14
        | (c.dtype as u64) << 18;
    let key = epilogue.key(Key::new("matmul").with(head_word));
    let pipeline = device.pipeline(&key, || {
        let name = tile.map_or("matmul thin".into(), |t| format!("matmul {}x{}", t.rows, t.cols));
        let mut shader = Shader::new(name, "")
            .slot(Slot::read("a", elem::element(a.dtype)))
            .slot(Slot::read("b", elem::element(b.dtype)))
            .slot(Slot::write("c", elem::element(c.dtype)));
        for name in PARAMS {
            shader = shader.param(name, "u32");
        }
        for side in ["a", "b", "c"] {
            for what in ["o", "s0", "s1", "batch"] {
                shader = shader.param(format!("{what}_{side}"), "u32");
            }
        }
        let shader = epilogue.declare(shader.param("split_c", "u32"));
        let sides = Sides {
            a: side("a", "Row", "a_row", "AStep", a.dtype, "m"),
            a_along_k,
            b: side("b", "Col", "b_col", "BStep", b.dtype, "n"),
            b_along_k,
            store: epilogue.store(
                c.dtype,
                "fn c_at(i: u32, j: u32) -> u32 {
    return p.o_c + batch * p.batch_c + split * p.split_c + i * p.s0_c + j * p.s1_c;
}\n",
                "i",
            ),
        };
        let body = tile.map_or_else(|| tile::sum_body(&sides), |tile| tile::body(tile, &sides));
        Ok(Shader { body: body.into(), ..shader }.trusted())
    })?;
    let mut buffers: SmallVec<[&Buffer; 6]> = SmallVec::from_slice(&[a.buffer, b.buffer, c.buffer]);
    buffers.extend(epilogue.buffers());
    let blocks = tile.map_or(p.m * p.n, |tile| tile.blocks(p.m, p.n));
    let [gx, gy, _] = linear_groups(blocks as u64)?;
    let most = device.limits().groups_per_axis as usize / splits;
    for first in (0..p.batch).step_by(most) {
        let mut params = head((p.m, p.n, p.k), splits, depth, first)?;
        // b's second line index is its column: steps are (k, n), a's are (m, k).
        let steps = [(a.offset, p.a[0], p.a[1], p.a[2]), (b.offset, p.b[1], p.b[0], p.b[2])];
        for (offset, line, depth, batch) in steps.into_iter().chain([(c.offset, p.c[0], p.c[1], p.c[2])]) {
            params = params.size(offset)?.size(line)?.size(depth)?.size(batch)?;
        }
        params = epilogue.values(params.size(p.batch * p.m * p.n)?)?;
        let grid = [gx, gy, ((p.batch - first).min(most) * splits) as u32];
        device.dispatch(&pipeline, &buffers, params, grid, label)?;
    }
    Ok(())
}

/// A matrix with steps along its lines (`s0`) and along k (`s1`).
fn side(name: &str, line: &str, line_fn: &str, step: &str, dtype: DType, extent: &str) -> String {
    let value = elem::load(dtype, Num::F32, name, "line.at + step.at");
    format!(
        "struct {line} {{ at: u32, inside: bool }}
struct {step} {{ at: u32 }}
fn {line_fn}(i: u32) -> {line} {{ return {line}(p.o_{name} + batch * p.batch_{name} + i * p.s0_{name}, i < p.{extent}); }}
fn {name}_step(k: u32) -> {step} {{ return {step}(k * p.s1_{name}); }}
fn {name}_at(line: {line}, step: {step}) -> f32 {{
    if (!line.inside) {{ return 0.0; }}
    return {value};
}}
"
    )
}
