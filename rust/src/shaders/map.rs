//! Elementwise kernels: a formula over inputs with any strides, to an output with any strides.
//!
//! Where everything lies one after the other (or is a single element), four neighbours go through at once as vectors.
//! Otherwise an invocation finds its place by dividing; dimensions are merged first, strides of 0 and 1 are part of the
//! text, all others are parameters. Outputs of one byte are written a word at a time where they lie one after the
//! other, and byte by byte with atomics where they do not.

use crate::shaders::elem::{self, Num, Place};
use crate::shaders::share::{self, Owners};
use mxrs_base::{DType, Error, Result};
use mxrs_formula::Formula;
use mxrs_gpu::{Buffer, Device, Key, Params, Shader, Slot, linear_groups};
use smallvec::SmallVec;
use std::fmt::Write;

/// Invocations of a workgroup.
const GROUP: usize = 256;

/// Which of the three texts a launch needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Inputs are laid out as the output or single elements; vectors of four.
    Flat,
    /// Any strides; this many neighbours along the innermost dimension per invocation.
    Strided(u32),
    /// Packed output, one after the other: a word per invocation.
    Words,
    /// Packed output in other orders: atomics on words.
    Scattered,
}

/// How a stride appears in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Zero,
    One,
    Param,
}

/// What the text of a map kernel depends on, beside the formula.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    pub form: Form,
    pub num: Num,
    pub ndim: usize,
    pub out: DType,
    pub ins: SmallVec<[DType; 4]>,
    /// For each operand (the inputs, then the output) its steps, outermost first.
    pub steps: SmallVec<[Step; 16]>,
    /// For each operand, the one under whose name its buffer is bound: its own number as a rule.
    pub owners: Owners,
}

impl Variant {
    fn name(&self, k: usize) -> String {
        if k < self.ins.len() { format!("x{k}") } else { "y".to_string() }
    }
    /// The buffer of operand `k`.
    fn buffer(&self, k: usize) -> String {
        self.name(self.owners[k] as usize)
    }
    /// The WGSL type of the elements that operand `k` is bound with.
    fn element(&self, k: usize) -> String {
        let dtype = if k < self.ins.len() { self.ins[k] } else { self.out };
        let element = elem::element(dtype);
        match self.form {
            Form::Flat if self.steps[k] == Step::One => format!("vec4<{element}>"),
            Form::Scattered if k == self.ins.len() => "atomic<u32>".to_string(),
            _ => element.to_string(),
        }
    }
    fn operands(&self) -> usize {
        self.ins.len() + 1
    }
}

/// Extents and strides after merging.
struct Geometry {
    dims: SmallVec<[usize; 6]>,
    /// `strides[operand][dim]`.
    strides: SmallVec<[SmallVec<[isize; 6]>; 5]>,
}

impl Geometry {
    /// Drops extents of one and merges neighbours that every operand walks through as one.
    fn of(dims: &[usize], operands: &[&[isize]]) -> Geometry {
        let mut merged: SmallVec<[usize; 6]> = SmallVec::new();
        let mut strides: SmallVec<[SmallVec<[isize; 6]>; 5]> =
            operands.iter().map(|_| SmallVec::new()).collect();
        for d in (0..dims.len()).rev().filter(|d| dims[*d] != 1) {
            let fits = merged.last().is_some_and(|extent| {
                operands.iter().zip(&strides).all(|(o, s)| o[d] == s[s.len() - 1] * *extent as isize)
            });
            if let (true, Some(last)) = (fits, merged.last_mut()) {
                *last *= dims[d];
            } else {
                merged.push(dims[d]);
                operands.iter().zip(&mut strides).for_each(|(o, s)| s.push(o[d]));
            }
        }
        if merged.is_empty() {
            merged.push(1);
            strides.iter_mut().for_each(|s| s.push(1));
        }
        merged.reverse();
        strides.iter_mut().for_each(|s| s.reverse());
        Geometry { dims: merged, strides }
    }

    fn is_contiguous(&self, operand: usize) -> bool {
        let mut expected = 1;
        self.dims.iter().zip(&self.strides[operand]).rev().all(|(&dim, &stride)| {
            let fits = stride == expected;
            expected *= dim as isize;
            fits
        })
    }

    fn is_single(&self, operand: usize) -> bool {
        self.strides[operand].iter().all(|s| *s == 0)
    }
}

/// Computes `formula` for every index of `dims` and stores it where `out` says.
///
/// Inputs are converted to what the kernel calculates in: int32 where neither input nor output is floating, float32
/// otherwise. An input that lies exactly as the output may be the output's memory.
///
/// # Errors
/// Where a type or an instruction is not one of GPUs, or an array has more than 2^32 elements.
pub fn launch_map(
    device: &Device,
    formula: &Formula,
    params: &[f64],
    dims: &[usize],
    ins: &[Place],
    out: Place,
    label: &'static str,
) -> Result<()> {
    let n = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= u32::MAX as usize);
    let n = n.ok_or_else(|| Error::op(format!("{label}: {dims:?} is more than a GPU kernel can count")))?;
    if n == 0 {
        return Ok(());
    }
    if ins.len() != formula.arity() || params.len() != formula.params().len() {
        return Err(Error::op(format!("{label}: the formula takes {} inputs", formula.arity())));
    }
    let used: SmallVec<[usize; 4]> = (0..ins.len()).filter(|i| formula.uses(*i)).collect();
    let mut places: SmallVec<[&Place; 5]> = used.iter().map(|i| &ins[*i]).collect();
    places.push(&out);
    for place in &places {
        elem::check_dtype(place.dtype, label)?;
    }
    let strides: SmallVec<[&[isize]; 5]> = places.iter().map(|p| p.strides).collect();
    let geometry = Geometry::of(dims, &strides);
    let mut variant = variant_of(&geometry, &places, n);
    if places.len() > device.limits().storage_buffers as usize {
        let elements: SmallVec<[String; 8]> = (0..places.len()).map(|k| variant.element(k)).collect();
        variant.owners = share::shared(&places, &elements);
        if share::bindings(&variant.owners) > device.limits().storage_buffers as usize {
            let operands = (&used[..], &variant.owners, &elements[..]);
            return share::launch_gathered(device, formula, params, dims, ins, out, operands, label);
        }
    }
    let key = key_of(formula, &variant);
    let pipeline = device.pipeline(&key, || shader(formula, &used, &variant, label))?;

    let mut values = Params::new().size(n)?;
    let step = if variant.form == Form::Flat && is_vector(&geometry, &places) { 4 } else { 1 };
    for (k, place) in places.iter().enumerate() {
        let single = variant.form == Form::Flat && geometry.is_single(k) && k + 1 < places.len();
        values = values.size(place.offset / if single { 1 } else { step })?;
    }
    if variant.form != Form::Flat {
        for d in 1..geometry.dims.len() {
            values = values.size(geometry.dims[d])?;
        }
        for (s, step) in geometry.strides.iter().flatten().zip(&variant.steps) {
            if *step == Step::Param {
                values.push(stride_word(*s, label)?);
            }
        }
    }
    for v in params {
        match variant.num {
            Num::F32 => values.push((*v as f32).to_bits()),
            Num::I32 => values.push(*v as i64 as i32 as u32),
        }
    }
    let work = match variant.form {
        Form::Flat => n.div_ceil(4),
        Form::Strided(per) => n / per as usize,
        Form::Words => (out.offset % 4 + n).div_ceil(4),
        Form::Scattered => n,
    };
    let own = |k: &usize| variant.owners[*k] as usize == *k;
    let buffers: SmallVec<[&Buffer; 8]> = (0..places.len()).filter(own).map(|k| places[k].buffer).collect();
    device.dispatch(&pipeline, &buffers, values, linear_groups(work.div_ceil(GROUP) as u64)?, label)
}

fn stride_word(stride: isize, label: &str) -> Result<u32> {
    // Two's complement: the shader's sums wrap to the same place.
    i32::try_from(stride)
        .map(|s| s as u32)
        .map_err(|_| Error::op(format!("{label}: a stride of {stride} is more than a GPU kernel can count")))
}

/// Whether whole vectors can be read and written: offsets fall on their boundaries.
fn is_vector(geometry: &Geometry, places: &[&Place]) -> bool {
    let out = places.len() - 1;
    let aligned = |(k, p): (usize, &&Place)| (k < out && geometry.is_single(k)) || p.offset.is_multiple_of(4);
    places.iter().enumerate().all(aligned)
}

fn variant_of(geometry: &Geometry, places: &[&Place], n: usize) -> Variant {
    let out = places.len() - 1;
    let plain = |k: usize| geometry.is_contiguous(k) && !elem::is_packed(places[k].dtype);
    let single = |k: usize| n > 1 && geometry.is_single(k);
    let inner = geometry.dims[geometry.dims.len() - 1];
    let form = if elem::is_packed(places[out].dtype) {
        if geometry.is_contiguous(out) { Form::Words } else { Form::Scattered }
    } else if plain(out) && (0..out).all(|k| plain(k) || single(k)) && is_vector(geometry, places) {
        Form::Flat
    } else {
        Form::Strided(if inner.is_multiple_of(4) { 4 } else { 1 })
    };
    let step = |s: &isize| match s {
        0 => Step::Zero,
        1 => Step::One,
        _ => Step::Param,
    };
    let steps = match form {
        // A flat text asks only which inputs are single elements.
        Form::Flat => (0..=out).map(|k| if single(k) { Step::Zero } else { Step::One }).collect(),
        _ => geometry.strides.iter().flatten().map(step).collect(),
    };
    Variant {
        form,
        num: Num::among(places.iter().map(|p| p.dtype)),
        ndim: if form == Form::Flat { 1 } else { geometry.dims.len() },
        out: places[out].dtype,
        ins: places[..out].iter().map(|p| p.dtype).collect(),
        steps,
        owners: (0..=out as u8).collect(),
    }
}

fn key_of(formula: &Formula, v: &Variant) -> Key {
    let form = match v.form {
        Form::Flat => 0,
        Form::Strided(per) => 1 + per as u64,
        Form::Words => 10,
        Form::Scattered => 11,
    };
    let head = form | (v.ndim as u64) << 8 | (v.num as u64) << 16 | (v.out as u64) << 20;
    let mut key = Key::new("map").with(formula.fingerprint()).with(head);
    for dtypes in v.ins.chunks(16) {
        key = key.with(dtypes.iter().fold(1, |word, d| word << 3 | *d as u64));
    }
    for steps in v.steps.chunks(31) {
        key = key.with(steps.iter().fold(1, |word, s| word << 2 | *s as u64));
    }
    if share::bindings(&v.owners) < v.operands() {
        for owners in v.owners.chunks(7) {
            key = key.with(owners.iter().fold(1, |word, o| word << 8 | *o as u64));
        }
    }
    key
}

/// The shader of a variant: `used` are the formula's inputs that appear, one for each of the variant's.
pub fn shader(formula: &Formula, used: &[usize], v: &Variant, label: &str) -> Result<Shader> {
    let mut shader = Shader::new(format!("map {}", shortened(formula)), "");
    for k in (0..v.ins.len()).filter(|k| v.owners[*k] as usize == *k) {
        shader = shader.slot(Slot::read(v.name(k), v.element(k)));
    }
    shader = shader.slot(Slot::write("y", v.element(v.ins.len())));
    shader = shader.param("n", "u32");
    for k in 0..v.operands() {
        shader = shader.param(format!("o_{}", v.name(k)), "u32");
    }
    if v.form != Form::Flat {
        for d in 1..v.ndim {
            shader = shader.param(format!("d{d}"), "u32");
        }
        for (at, _) in v.steps.iter().enumerate().filter(|(_, s)| **s == Step::Param) {
            shader = shader.param(format!("s_{}_{}", v.name(at / v.ndim), at % v.ndim), "u32");
        }
    }
    for q in 0..formula.params().len() {
        shader = shader.param(format!("q{q}"), v.num.wgsl());
    }
    let main = match v.form {
        Form::Flat => flat(v),
        Form::Strided(per) => strided(v, per),
        Form::Words => words(v),
        Form::Scattered => scattered(v),
    };
    let text = function(formula, used, v, label)? + &main;
    shader.body = (elem::helpers_for(&text) + &text).into();
    // Offsets, extents and strides describe arrays inside their buffers, which the caller vouches for; a text that
    // trusts them is still only as good as they are, so bounds stay checked where places come from division.
    shader.trusted = v.form == Form::Flat;
    Ok(shader)
}

/// `fn f(x0, ...) -> ...`, the formula of one element.
fn function(formula: &Formula, used: &[usize], v: &Variant, label: &str) -> Result<String> {
    let num = v.num.wgsl();
    let names: Vec<String> = (0..formula.arity())
        .map(|i| used.iter().position(|u| *u == i).map_or("unused".into(), |k| format!("v{k}")))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let params: Vec<String> = (0..formula.params().len()).map(|q| format!("p.q{q}")).collect();
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    let (helpers, body) = match v.num {
        Num::F32 => (formula.wgsl_helpers(), formula.wgsl(&names, &params)),
        Num::I32 => {
            let body = formula.wgsl_int(&names, &params).map_err(|op| {
                Error::typ(format!(
                    "{label}: '{op}' of whole numbers is not supported on a GPU; cast to float32"
                ))
            })?;
            (Formula::WGSL_INT_HELPERS.to_string(), body)
        }
    };
    let args: Vec<String> = (0..v.ins.len()).map(|k| format!("v{k}: {num}")).collect();
    let body = body.replace('\n', "\n    ");
    Ok(format!(
        "{helpers}fn f({}) -> {num} {{\n    {}\n    return result;\n}}\n",
        args.join(", "),
        body.trim_end()
    ))
}

const HEAD: &str = "@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = mx_group(group) * 256u + local;\n";

fn flat(v: &Variant) -> String {
    let mut text = HEAD.to_string();
    text += "    let e = t * 4u;\n    if (e >= p.n) { return; }\n";
    let mut args: [Vec<String>; 4] = Default::default();
    for (k, dtype) in v.ins.iter().enumerate() {
        if v.steps[k] == Step::Zero {
            let value = elem::load(*dtype, v.num, &v.buffer(k), &format!("p.o_x{k}"));
            let _ = writeln!(text, "    let a{k} = {value};");
        } else {
            let _ = writeln!(text, "    let a{k} = {}[p.o_x{k} + t];", v.buffer(k));
        }
        for (c, args) in args.iter_mut().enumerate() {
            let component = ["x", "y", "z", "w"][c];
            args.push(match v.steps[k] {
                Step::Zero => format!("a{k}"),
                _ => elem::convert(*dtype, v.num, &format!("a{k}.{component}")),
            });
        }
    }
    for (c, args) in args.iter().enumerate() {
        let value = elem::pack(v.out, v.num, &format!("f({})", args.join(", ")));
        let _ = writeln!(text, "    let r{c} = {value};");
    }
    let vector = format!("vec4<{}>(r0, r1, r2, r3)", elem::element(v.out));
    let _ = writeln!(text, "    let at = p.o_y + t;\n    if (e + 4u <= p.n) {{ y[at] = {vector}; return; }}");
    text += "    y[at].x = r0;\n    if (e + 1u < p.n) { y[at].y = r1; }\n    if (e + 2u < p.n) { y[at].z = r2; }\n}\n";
    text
}

/// Statements that take the element number in `e` apart and bind `at_NAME` for each operand of `operands`.
fn places(v: &Variant, operands: std::ops::RangeInclusive<usize>, indent: &str) -> String {
    let mut text = String::new();
    if v.ndim > 1 {
        let _ = writeln!(text, "{indent}var rest = e;");
    }
    for d in (1..v.ndim).rev() {
        let _ = writeln!(text, "{indent}let i{d} = rest % p.d{d};\n{indent}rest = rest / p.d{d};");
    }
    let outer = if v.ndim > 1 { "rest" } else { "e" };
    for k in operands {
        let name = v.name(k);
        let mut sum = format!("p.o_{name}");
        for d in 0..v.ndim {
            let index = if d == 0 { outer.to_string() } else { format!("i{d}") };
            match v.steps[k * v.ndim + d] {
                Step::Zero => {}
                Step::One => sum += &format!(" + {index}"),
                Step::Param => sum += &format!(" + {index} * p.s_{name}_{d}"),
            }
        }
        let _ = writeln!(text, "{indent}let at_{name} = {sum};");
    }
    text
}

/// The formula's value, packed, of the elements at `at_x0 + more`...; `more` is empty for the elements themselves.
fn value_at(v: &Variant, place: impl Fn(usize) -> String) -> String {
    let args: Vec<String> =
        v.ins.iter().enumerate().map(|(k, d)| elem::load(*d, v.num, &v.buffer(k), &place(k))).collect();
    elem::pack(v.out, v.num, &format!("f({})", args.join(", ")))
}

fn strided(v: &Variant, per: u32) -> String {
    let mut text = HEAD.to_string();
    let _ = writeln!(text, "    let e = t * {per}u;\n    if (e >= p.n) {{ return; }}");
    text += &places(v, 0..=v.ins.len(), "    ");
    for j in 0..per {
        // Neighbours along the innermost dimension: its extent is a multiple of `per`.
        let place = |k: usize| {
            let name = v.name(k);
            match (j, v.steps[k * v.ndim + v.ndim - 1]) {
                (0, _) | (_, Step::Zero) => format!("at_{name}"),
                (_, Step::One) => format!("at_{name} + {j}u"),
                (_, Step::Param) => format!("at_{name} + {j}u * p.s_{name}_{}", v.ndim - 1),
            }
        };
        let _ = writeln!(text, "    y[{}] = {};", place(v.ins.len()), value_at(v, place));
    }
    text + "}\n"
}

fn words(v: &Variant) -> String {
    let mut text = HEAD.to_string();
    text += "    let first = t * 4u;
    if (first >= p.n + (p.o_y & 3u)) { return; }
    var word = 0u;
    var mask = 0u;
    for (var k = 0u; k < 4u; k++) {
        // Before the first element the number wraps and is too large.
        let e = first + k - (p.o_y & 3u);
        if (e < p.n) {\n";
    if !v.ins.is_empty() {
        text += &places(v, 0..=v.ins.len() - 1, "            ");
    }
    let value = value_at(v, |k| format!("at_x{k}"));
    let _ = writeln!(text, "            word |= {value} << (k * 8u);");
    text += "            mask |= 0xffu << (k * 8u);
        }
    }
    let at = (p.o_y >> 2u) + t;
    if (mask != 0xffffffffu) { word |= y[at] & ~mask; }
    y[at] = word;
}\n";
    text
}

fn scattered(v: &Variant) -> String {
    let mut text = HEAD.to_string();
    text += "    let e = t;\n    if (e >= p.n) { return; }\n";
    text += &places(v, 0..=v.ins.len(), "    ");
    let value = value_at(v, |k| format!("at_x{k}"));
    let _ = writeln!(
        text,
        "    let shift = (at_y & 3u) * 8u;
    atomicAnd(&y[at_y >> 2u], ~(0xffu << shift));
    atomicOr(&y[at_y >> 2u], {value} << shift);"
    );
    text + "}\n"
}

/// A formula's text, cut where a name would be unwieldy.
fn shortened(formula: &Formula) -> String {
    let text = formula.text();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
