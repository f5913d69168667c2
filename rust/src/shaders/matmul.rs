//! Matrix products: batches, any strides, scale, bias and a formula over the result.
//!
//! Sums are in float32 whatever the elements are; float16 results are rounded once.

use crate::shaders::elem::{self, Num, Span};
use crate::shaders::map::launch_map;
use crate::shaders::reduce::{Reduction, launch_reduce};
use crate::shaders::tile::{self, Cut, PARAMS, Sides, TILES};
use mxrs_base::{DType, Error, Result};
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

/// What happens to a sum on its way into c.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    pub alpha: f32,
    /// 0 leaves c unread.
    pub beta: f32,
    pub bias: Bias<'a>,
    /// Applied last, with its parameters.
    pub formula: Option<(&'a Formula, &'a [f64])>,
}

/// A number added to each sum.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    None,
    /// One per row of c.
    Rows(Span<'a>),
    /// One per column of c.
    Cols(Span<'a>),
}

impl Epilogue<'_> {
    pub const NONE: Epilogue<'static> = Epilogue { alpha: 1.0, beta: 0.0, bias: Bias::None, formula: None };

    /// Whether results of parts of the sum may be added up before it.
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.bias, Bias::None) && self.formula.is_none()
    }

    pub(crate) fn bias(&self) -> Option<Span<'_>> {
        match self.bias {
            Bias::None => None,
            Bias::Rows(span) | Bias::Cols(span) => Some(span),
        }
    }

    /// What the text depends on, for keys.
    pub(crate) fn word(&self) -> u64 {
        let bias = match self.bias {
            Bias::None => 0,
            Bias::Rows(s) => 1 | (s.dtype as u64) << 2,
            Bias::Cols(s) => 2 | (s.dtype as u64) << 2,
        };
        bias << 1 | (self.beta != 0.0) as u64
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.formula.map_or(0, |(f, _)| f.fingerprint())
    }

    pub(crate) fn declare(&self, mut shader: Shader) -> Shader {
        if let Some(bias) = self.bias() {
            shader = shader.slot(Slot::read("bias", elem::element(bias.dtype))).param("o_bias", "u32");
        }
        shader = shader.param("alpha", "f32").param("beta", "f32");
        for q in 0..self.formula.map_or(0, |(f, _)| f.params().len()) {
            shader = shader.param(format!("q{q}"), "f32");
        }
        shader
    }

    pub(crate) fn values(&self, mut params: Params) -> Result<Params> {
        if let Some(bias) = self.bias() {
            params = params.size(bias.offset)?;
        }
        params = params.f32(self.alpha).f32(self.beta);
        for v in self.formula.map_or(&[][..], |(_, values)| values) {
            params = params.f32(*v as f32);
        }
        Ok(params)
    }

    /// `fn store`, given the WGSL of `fn c_at(i, j)` and of the place of a row's bias.
    pub(crate) fn store(&self, dtype: DType, c_at: &str, row: &str) -> String {
        let mut text = c_at.to_string();
        if let Some((f, _)) = self.formula {
            let names: Vec<String> = (0..f.params().len()).map(|q| format!("p.q{q}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text += &f.wgsl_helpers();
            text += &format!("fn finish(v: f32) -> f32 {{\n{}return result;\n}}\n", f.wgsl(&["v"], &names));
        }
        text += "fn store(i: u32, j: u32, v: f32) {\n    if (i >= p.m || j >= p.n) { return; }\n";
        text += "    let at = c_at(i, j);\n    var r = p.alpha * v;\n";
        if self.beta != 0.0 {
            text += &format!("    r += p.beta * {};\n", elem::load(dtype, Num::F32, "c", "at"));
        }
        match self.bias {
            Bias::None => {}
            Bias::Rows(s) => {
                text += &format!(
                    "    r += {};\n",
                    elem::load(s.dtype, Num::F32, "bias", &format!("p.o_bias + {row}"))
                )
            }
            Bias::Cols(s) => {
                text += &format!("    r += {};\n", elem::load(s.dtype, Num::F32, "bias", "p.o_bias + j"))
            }
        }
        if self.formula.is_some() {
            text += "    r = finish(r);\n";
        }
        text + &format!("    c[at] = {};\n}}\n", elem::pack(dtype, Num::F32, "r"))
    }
}

/// `c = alpha * a b + beta * c + bias`, through the formula if there is one.
///
/// # Errors
/// For elements other than float32 and float16, a formula of more than one input, and sizes that 32 bits do not count.
pub fn launch_matmul(
    device: &Device,
    p: &Product,
    a: Span,
    b: Span,
    c: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    for dtype in [a.dtype, b.dtype, c.dtype] {
        check_float(dtype, label)?;
    }
    if let Some((f, values)) = epilogue.formula
        && (f.arity() != 1 || f.params().len() != values.len())
    {
        return Err(Error::op(format!("{label}: a product is finished by a formula of one input")));
    }
    if p.m == 0 || p.n == 0 || p.batch == 0 {
        return Ok(());
    }
    let dense = p.c == [p.n, 1, p.m * p.n];
    let cut = Cut::of(p.m, p.n, p.k, p.batch, dense && epilogue.is_linear());
    if cut.splits == 1 {
        return launch_cut(device, p, cut, a, b, c, epilogue, label);
    }
    let total = p.batch * p.m * p.n;
    let parts = device.alloc(4 * (cut.splits * total) as u64)?;
    let between = Span::new(&parts, DType::F32);
    launch_cut(device, p, cut, a, b, between, &Epilogue { beta: 0.0, ..*epilogue }, label)?;
    sum_parts(device, cut.splits, total, between, c, epilogue.beta, label)
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

pub(crate) fn check_float(dtype: DType, label: &str) -> Result<()> {
    match dtype {
        DType::F32 | DType::F16 => Ok(()),
        _ => Err(Error::typ(format!(
            "{label}: a product of {dtype} is not supported on a GPU; allowed are float32 and float16"
        ))),
    }
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
    cut: Cut,
    a: Span,
    b: Span,
    c: Span,
    epilogue: &Epilogue,
    label: &'static str,
) -> Result<()> {
    let tile = TILES[cut.tile];
    let (a_along_k, b_along_k) = (p.a[1] <= p.a[0], p.b[0] < p.b[1]);
    let head_word = cut.tile as u64
        | (a_along_k as u64) << 8
        | (b_along_k as u64) << 9
        | (a.dtype as u64) << 10
        | (b.dtype as u64) << 14
        | (c.dtype as u64) << 18
        | epilogue.word() << 24;
    let key = Key::new("matmul").with(head_word).with(epilogue.fingerprint());
    let pipeline = device.pipeline(&key, || {
        let mut shader = Shader::new(format!("matmul {}x{}", tile.rows, tile.cols), "")
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
        Ok(Shader { body: tile::body(tile, &sides).into(), ..shader }.trusted())
    })?;
    let mut buffers: SmallVec<[&Buffer; 4]> = SmallVec::from_slice(&[a.buffer, b.buffer, c.buffer]);
    buffers.extend(epilogue.bias().map(|s| s.buffer));
    let [gx, gy, _] = linear_groups(tile.blocks(p.m, p.n) as u64)?;
    let most = device.limits().groups_per_axis as usize / cut.splits;
    for first in (0..p.batch).step_by(most) {
        let mut params = head((p.m, p.n, p.k), cut.splits, tile.depth, first)?;
        // b's second line index is its column: steps are (k, n), a's are (m, k).
        let steps = [(a.offset, p.a[0], p.a[1], p.a[2]), (b.offset, p.b[1], p.b[0], p.b[2])];
        for (offset, line, depth, batch) in steps.into_iter().chain([(c.offset, p.c[0], p.c[1], p.c[2])]) {
            params = params.size(offset)?.size(line)?.size(depth)?.size(batch)?;
        }
        params = epilogue.values(params.size(p.batch * p.m * p.n)?)?;
        let grid = [gx, gy, ((p.batch - first).min(most) * cut.splits) as u32];
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
