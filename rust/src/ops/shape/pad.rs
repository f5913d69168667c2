//! Padding of planes and volumes.

use super::super::registry::Registry;
use super::super::{Build, Ctx, GpuCtx, GradArgs, Grads, Sig, choice, draw, float, ints};
use super::movement::{checked, constant, optional};
use crate::shaders::each::{Each, Read};
use mxrs_base::{AttrValue, Result, Shape, dispatch};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::pad::{Fill, pad, pad_grad};
use mxrs_kernels::parts::{units, units_mut};

const MODES: &[&str] = &["constant", "edge", "reflect"];

pub fn register(r: &mut Registry) {
    r.op("Pad", "Elements added around the planes (4 axes) or volumes (5 axes) of data.")
        .input("data", "values (N, C, H, W) or (N, C, D, H, W)")
        .params([
            choice(
                "mode",
                MODES,
                "what is added: constant_value, the nearest element, or the mirrored elements",
            ),
            ints("pad_width", "elements before and after, per axis; those of the first two axes are 0")
                .at_least(0.0),
            float("constant_value", "the number that mode constant adds").or(0.0),
        ])
        .alias(&["pad"])
        .method(&["pad"])
        .infer(|s| {
            let pads = widths(s, s.shape(0))?;
            let dims = s.shape(0).iter().zip(&pads);
            s.shaped(checked(dims.map(|(d, (a, b))| d.checked_add(*a)?.checked_add(*b)))?)
        })
        .kernel(|c| {
            dispatch_unit!(c.dtype(0).size(), U => {
                let fill = fill(c, constant::<U>(c.dtype(0), c.attrs.float("constant_value")));
                pad(units::<U>(c.x_bytes(0)), c.shape(0), &pairs(c), fill, units_mut::<U>(c.y_bytes(0)));
            });
            Ok(())
        })
        .gpu(pad_on_gpu)
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[1, 2, 3, 3])], &with_mode("constant"))
        .sample(&[draw(&[1, 2, 3, 3])], &with_mode("edge"))
        .sample(&[draw(&[1, 2, 3, 3])], &with_mode("reflect"));
    r.op("_backward_pad", "Sums the elements that padding showed more than once: the gradient of Pad.")
        .input("data", "the gradient of the padded array")
        .params([
            choice("mode", MODES, "what was added"),
            ints("pad_width", "elements before and after, per axis").at_least(0.0),
            float("constant_value", "not looked at").or(0.0),
        ])
        .infer(|s| {
            s.expect_ndim(0, 1..=Shape::MAX_NDIM)?;
            let pads = pairs_of(&s.attrs.ints("pad_width"));
            let dims = s.shape(0).iter().zip(&pads).map(|(d, (a, b))| d.checked_sub(*a)?.checked_sub(*b));
            match (pads.len() == s.shape(0).ndim(), dims.collect::<Option<Vec<usize>>>()) {
                (true, Some(dims)) => s.shaped(Shape::new(&dims)),
                _ => Err(s.fail("data is smaller than pad_width")),
            }
        })
        .kernel(|c| {
            dispatch!(c.dtype(0), T => {
                let out = c.y::<T>(0);
                out.fill(T::default());
                pad_grad(c.x::<T>(0), c.out_shape(0), &pairs(c), fill(c, T::default()), out);
            });
            Ok(())
        })
        .gpu(pad_grad_on_gpu)
        .cost(|s, _| 3.0 * s.shape(0).size() as f64)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            // Padding by zero, the nearest or the mirrored elements is linear; the constant defaults to zero.
            let attrs = ["mode", "pad_width"].map(|name| (name, g.attrs.get(name).clone()));
            let grad = b.op1("Pad", &[head], &attrs)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[1, 2, 6, 4])], &with_mode("reflect"));
}

fn with_mode(mode: &'static str) -> [(&'static str, AttrValue); 2] {
    [("mode", mode.into()), ("pad_width", [0, 0, 0, 0, 2, 1, 0, 1].into())]
}

fn pairs_of(widths: &[i64]) -> Vec<(usize, usize)> {
    widths.chunks(2).map(|w| (w[0] as usize, w.get(1).map_or(0, |v| *v as usize))).collect()
}

fn pairs(c: &Ctx) -> Vec<(usize, usize)> {
    pairs_of(&c.attrs.ints("pad_width"))
}

fn fill<V>(c: &Ctx, value: V) -> Fill<V> {
    match c.attrs.str("mode") {
        "constant" => Fill::Constant(value),
        "edge" => Fill::Edge,
        _ => Fill::Reflect,
    }
}

/// The checked widths per axis for data of this shape.
fn widths(s: &Sig, shape: &Shape) -> Result<Vec<(usize, usize)>> {
    s.expect_ndim(0, 4..=5)?;
    let widths = s.attrs.ints("pad_width");
    if widths.len() != 2 * shape.ndim() {
        let expected = 2 * shape.ndim();
        return Err(s.fail(format!("pad_width has {} entries; {expected} are expected", widths.len())));
    }
    if widths[..4].iter().any(|w| *w != 0) {
        return Err(s.fail("pad_width must be 0 for the first two axes"));
    }
    let pads = pairs_of(&widths);
    let mode = s.attrs.str("mode");
    for (axis, (&(before, after), &size)) in pads.iter().zip(shape.iter()).enumerate() {
        let wide = before.max(after);
        if (mode == "reflect" && wide > 0 && wide >= size) || (mode == "edge" && wide > 0 && size == 0) {
            return Err(
                s.fail(format!("mode {mode} cannot add {wide} elements to axis {axis} of size {size}"))
            );
        }
    }
    Ok(pads)
}

fn back(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let widths = g.attrs.ints("pad_width");
    let grad = if g.attrs.str("mode") == "constant" {
        let shape = b.shape(g.ins[0]).to_i64();
        let begin = optional(widths.iter().step_by(2).map(|w| Some(*w)));
        let end = optional(widths.iter().step_by(2).zip(&shape).map(|(w, d)| Some(w + d)));
        b.op1("slice", &[head], &[("begin", begin), ("end", end)])?
    } else {
        let attrs = ["mode", "pad_width"].map(|name| (name, g.attrs.get(name).clone()));
        b.op1("_backward_pad", &[head], &attrs)?
    };
    g.first(grad)
}

// ---- on GPUs -----------------------------------------------------------------------------------------------------

/// The launch's sizes per axis: of the array, before and after it, and of the padded array.
fn axes<'a>(c: &GpuCtx, mut each: Each<'a>, dims: &Shape, pads: &[(usize, usize)]) -> Result<Each<'a>> {
    let mode = MODES.iter().position(|m| *m == c.attrs.str("mode")).unwrap_or(0);
    each = each.variant((mode as u64) << 4 | dims.ndim() as u64);
    for (d, (size, (before, after))) in dims.iter().zip(pads).enumerate() {
        each = each.size(format!("size{d}"), *size)?.size(format!("before{d}"), *before)?;
        each = each.size(format!("all{d}"), size + before + after)?;
    }
    Ok(each)
}

fn pad_on_gpu(c: &GpuCtx) -> Result<()> {
    let each = Each::new("pad", c.y(0)).input("x", c.x(0), Read::Value);
    let each = each.value("value", c.attrs.float("constant_value"));
    let pads = pairs_of(&c.attrs.ints("pad_width"));
    let each = axes(c, each, c.shape(0), &pads)?;
    let ndim = c.shape(0).ndim();
    let shown = match c.attrs.str("mode") {
        "constant" => "if (at < 0 || at >= i32(size)) { return -1; }\n    return at;",
        "edge" => "return clamp(at, 0, i32(size) - 1);",
        _ => "let last = i32(size) - 1;\n    return last - abs(last - abs(at));",
    };
    let body = || {
        let mut text = format!(
            "fn shown(at: i32, size: u32) -> i32 {{\n    {shown}\n}}
fn element(e: u32) -> VALUE {{
    var rest = e;
    var at = 0u;
    var step = 1u;
    var i = 0;\n"
        );
        for d in (0..ndim).rev() {
            text += &format!(
                "    i = shown(i32(rest % p.all{d}) - i32(p.before{d}), p.size{d});
    if (i < 0) {{ return p.value; }}
    at += u32(i) * step;
    step = step * p.size{d};
    rest = rest / p.all{d};\n"
            );
        }
        text + "    return x(at);\n}\n"
    };
    each.launch(c.device, c.out_shape(0).size(), body, c.op.name)
}

/// An element adds the places that showed it: along each axis itself and a run beside an edge, or two mirror images.
fn pad_grad_on_gpu(c: &GpuCtx) -> Result<()> {
    let dims = c.out_shape(0);
    let each = Each::new("pad grad", c.y(0)).input("x", c.x(0), Read::Value);
    let each = axes(c, each, dims, &pairs_of(&c.attrs.ints("pad_width")))?;
    let ndim = dims.ndim();
    let body = || match c.attrs.str("mode") {
        "constant" => grad_text(ndim, ITSELF),
        "edge" => grad_text(ndim, RUN),
        _ => grad_text(ndim, MIRRORED),
    };
    each.launch(c.device, dims.size(), body, c.op.name)
}

/// `place(k, ...)`: the k-th of `count(...)` places that may show element `i` of an axis, negative where it does not.
const ITSELF: &str = "fn count(i: i32, before: i32, size: i32, all: i32) -> i32 { return 1; }
fn place(k: i32, i: i32, before: i32, size: i32, all: i32) -> i32 { return before + i; }
";
const RUN: &str = "fn count(i: i32, before: i32, size: i32, all: i32) -> i32 {
    return 1 + select(0, before, i == 0) + select(0, all - before - size, i == size - 1);
}
fn place(k: i32, i: i32, before: i32, size: i32, all: i32) -> i32 { return select(before + i, 0, i == 0) + k; }
";
const MIRRORED: &str = "fn count(i: i32, before: i32, size: i32, all: i32) -> i32 { return 3; }
fn place(k: i32, i: i32, before: i32, size: i32, all: i32) -> i32 {
    let at = before + select(select(2 * (size - 1) - i, -i, k == 1), i, k == 0);
    if (at >= all || (k == 1 && i == 0) || (k == 2 && i == size - 1)) { return -1; }
    return at;
}
";

fn grad_text(ndim: usize, places: &str) -> String {
    let mut text = format!(
        "{places}fn element(e: u32) -> VALUE {{
    var rest = e;
    var sum = VALUE(0);\n"
    );
    for d in (0..ndim).rev() {
        text += &format!("    let i{d} = i32(rest % p.size{d});\n    rest = rest / p.size{d};\n");
    }
    let mut at = "0u".to_string();
    for d in 0..ndim {
        let args = format!("i{d}, i32(p.before{d}), i32(p.size{d}), i32(p.all{d})");
        at = format!("({at}) * p.all{d} + u32(j{d})");
        text += &format!(
            "    for (var k{d} = 0; k{d} < count({args}); k{d}++) {{
    let j{d} = place(k{d}, {args});
    if (j{d} < 0) {{ continue; }}\n"
        );
    }
    text += &format!("    sum = sum + x({at});\n");
    text += &"    }\n".repeat(ndim);
    text + "    return sum;\n}\n"
}
