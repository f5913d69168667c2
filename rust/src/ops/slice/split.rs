//! One array as several along an axis.

use super::super::registry::Registry;
use super::super::shape::movement::Movement;
use super::super::{Attrs, Build, GradArgs, Grads, Sig, Spec, Specs, Value, draw, flag, int, ints};
use mxrs_base::Result;
use mxrs_kernels::copy::View;
use smallvec::SmallVec;

/// More outputs than any program asks for.
const MOST: f64 = 65536.0;

/// First index of each part, and the axis' size at the end.
type Bounds = SmallVec<[usize; 8]>;

pub fn register(r: &mut Registry) {
    r.op(
        "SliceChannel",
        "Equal parts of data along an axis; with squeeze_axis, parts of size 1 lose that axis.",
    )
    .input("data", "values whose size along the axis is a multiple of num_outputs")
    .param(int("num_outputs", "the number of parts").at_least(1.0).at_most(MOST))
    .param(int("axis", "the axis; negative ones count from the end").or(1i64))
    .param(flag("squeeze_axis", "remove the axis, along which the parts must have size 1").or(false))
    .alias(&["split"])
    .method(&["split"])
    .visible(|attrs| attrs.size("num_outputs"))
    .infer(|s| parts(s, equal(s.attrs, s.shape(0)[s.axis(0, s.attrs.int("axis"))?])))
    .moves(|c| gather_parts(c, equal(c.attrs, c.shape(0)[c.shape(0).axis(c.attrs.int("axis"))?])))
    .keeps(&[], &[])
    .grad(back)
    .sample(&[draw(&[2, 4])], &[("num_outputs", 2i64.into())])
    .sample(
        &[draw(&[3, 2])],
        &[("num_outputs", 3i64.into()), ("axis", 0i64.into()), ("squeeze_axis", true.into())],
    );
    r.op(
        "_split_v2",
        "Parts of data along an axis, beginning at `indices`, or `sections` nearly equal ones.",
    )
    .input("data", "values of any shape")
    .params([
        ints("indices", "where the parts begin, rising from 0").at_least(0.0),
        int("axis", "the axis; negative ones count from the end").or(1i64),
        flag("squeeze_axis", "remove the axis, along which the parts must have size 1").or(false),
        int(
            "sections",
            "the number of parts, the first ones longer by one where it does not divide; 0 for indices",
        )
        .or(0i64)
        .at_least(0.0)
        .at_most(MOST),
    ])
    .alias(&["_npi_split"])
    .visible(|attrs| match attrs.size("sections") {
        0 => attrs.opt_ints("indices").len(),
        sections => sections,
    })
    .infer(|s| parts(s, at_indices(s.attrs, s.shape(0)[s.axis(0, s.attrs.int("axis"))?])))
    .moves(|c| gather_parts(c, at_indices(c.attrs, c.shape(0)[c.shape(0).axis(c.attrs.int("axis"))?])))
    .keeps(&[], &[])
    .grad(back)
    .sample(&[draw(&[2, 5])], &[("indices", [0, 2].into())])
    .sample(&[draw(&[5, 2])], &[("indices", [0].into()), ("axis", 0i64.into()), ("sections", 2i64.into())]);
}

fn equal(attrs: &Attrs, size: usize) -> Result<Bounds, String> {
    let n = attrs.size("num_outputs");
    if !size.is_multiple_of(n) {
        return Err(format!("the axis has size {size}, which num_outputs = {n} does not divide"));
    }
    Ok((0..=n).map(|i| i * (size / n)).collect())
}

fn at_indices(attrs: &Attrs, size: usize) -> Result<Bounds, String> {
    let sections = attrs.size("sections");
    if let Some(each) = size.checked_div(sections) {
        let more = size % sections;
        return Ok((0..=sections).map(|i| i * each + i.min(more)).collect());
    }
    let mut bounds: Bounds = attrs.ints("indices").iter().map(|v| *v as usize).collect();
    if bounds.first() != Some(&0) {
        return Err("indices must begin with 0, the start of the first part".into());
    }
    bounds.push(size);
    match bounds.windows(2).find(|w| w[0] > w[1]) {
        Some(w) => Err(format!(
            "indices must rise and not pass the axis' size {size}; {} comes before {}",
            w[0], w[1]
        )),
        None => Ok(bounds),
    }
}

fn parts(s: &Sig, bounds: Result<Bounds, String>) -> Result<Specs> {
    let bounds = bounds.map_err(|text| s.fail(text))?;
    let axis = s.axis(0, s.attrs.int("axis"))?;
    let squeeze = s.attrs.bool("squeeze_axis");
    bounds
        .windows(2)
        .map(|w| {
            let mut shape = s.shape(0).clone();
            match (squeeze, w[1] - w[0]) {
                (true, 1) if shape.ndim() > 1 => _ = shape.remove(axis),
                (true, n) if n != 1 => {
                    return Err(
                        s.fail(format!("squeeze_axis needs parts of size 1 along axis {axis}; one has {n}"))
                    );
                }
                (_, n) => shape.set(axis, n),
            }
            Ok(Spec::new(shape, s.dtype(0)))
        })
        .collect()
}

fn gather_parts(c: &Movement, bounds: Result<Bounds, String>) -> Result<()> {
    let bounds = bounds.map_err(|text| c.fail(text))?;
    let axis = c.shape(0).axis(c.attrs.int("axis"))?;
    for (o, w) in bounds.windows(2).enumerate() {
        c.gather_into(&View::of(c.shape(0)).slice(axis, w[0], 1, w[1] - w[0]), o)?;
    }
    Ok(())
}

/// The heads put together again.
fn back(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    if g.heads.iter().all(Option::is_none) {
        return Ok(g.none());
    }
    let mut heads: SmallVec<[Value; 8]> = SmallVec::new();
    for (head, out) in g.heads.iter().zip(g.outs) {
        let spec = b.spec(*out).clone();
        heads.push(match head {
            Some(head) => *head,
            None => b.zeros(&spec.shape, spec.dtype)?,
        });
    }
    let rank = b.shape(g.ins[0]).ndim();
    let axis = b.shape(g.ins[0]).axis(g.attrs.int("axis"))?;
    // Squeezed parts lost the axis, unless it was their only one.
    let (op, name) = if b.shape(heads[0]).ndim() < rank { ("stack", "axis") } else { ("Concat", "dim") };
    let grad = b.op1(op, &heads, &[(name, axis.into())])?;
    g.first(grad)
}
