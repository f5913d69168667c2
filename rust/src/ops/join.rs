//! Several arrays as one: side by side, on a new axis, or summed.

use super::registry::Registry;
use super::{Build, Ctx, GpuCtx, GradArgs, Grads, Sig, Specs, draw, int};
use crate::shaders::{copy::launch_copy, map::launch_map};
use mxrs_base::{AttrValue, Result, Shape, dispatch};
use mxrs_formula::Formula;
use mxrs_kernels::copy;
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::parts::{units, units_mut};
use smallvec::SmallVec;
use std::sync::LazyLock;

pub fn register(r: &mut Registry) {
    concat(
        r,
        "Concat",
        "The arrays one after another along an axis; their other extents are equal.",
        &["concat", "_sparse_concat"],
    );
    concat(
        r,
        "_rnn_param_concat",
        "The weights and biases of a recurrent network one after another.",
        &["_npi_rnn_param_concat"],
    );
    r.op("stack", "The arrays, all of one shape, side by side along a new axis.")
        .variadic("data", "arrays of one shape", "num_args")
        .param(int("axis", "where the new axis stands in the result, -ndim - 1 to ndim").or(0i64))
        .infer(|s| {
            some(s)?;
            s.elementwise()?;
            let axis = stack_axis(s.attrs.int("axis"), s.shape(0)).map_err(|text| s.fail(text))?;
            let mut shape = s.shape(0).clone();
            shape.insert(axis, s.ins.len());
            shape.checked_size()?;
            s.shaped(shape)
        })
        .kernel(|c| {
            let axis = stack_axis(c.attrs.int("axis"), c.shape(0)).map_err(|text| c.fail(text))?;
            side_by_side(c, c.shape(0)[..axis].iter().product())
        })
        .gpu(|c| {
            let axis = stack_axis(c.attrs.int("axis"), c.shape(0)).map_err(|text| c.fail(text))?;
            side_by_side_on_gpu(c, c.shape(0)[..axis].iter().product())
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let axis = b.shape(g.outs[0]).axis(g.attrs.int("axis"))?;
            parts(b, g, axis)
        })
        .sample(&[draw(&[2, 3]), draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3]), draw(&[2, 3]), draw(&[2, 3])], &[("axis", (-1i64).into())]);
    r.op("add_n", "The sum of arrays of one shape, in one pass over all of them.")
        .keeps_shape()
        .variadic("args", "arrays of one shape", "num_args")
        .alias(&["ElementWiseSum", "_sparse_add_n", "_sparse_ElementWiseSum"])
        .infer(|s| {
            some(s)?;
            s.elementwise()
        })
        .kernel(|c| {
            dispatch!(c.dtype(0), T => {
                let ins: SmallVec<[&[T]; 8]> = (0..c.ins.len()).map(|i| c.x::<T>(i)).collect();
                copy::sum(&ins, c.y::<T>(0));
            });
            Ok(())
        })
        .gpu(sum_on_gpu)
        .cost(|s, _| 0.3 * (s.ins.len() * s.shape(0).size()) as f64)
        .keeps(&[], &[])
        .grad(|_, g| Ok(g.need.iter().map(|need| g.heads[0].filter(|_| *need)).collect()))
        .sample(&[draw(&[2, 3]), draw(&[2, 3]), draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3])], &[]);
}

fn some(s: &Sig) -> Result<()> {
    if s.ins.is_empty() {
        return Err(s.fail("no array was given; one or more are expected"));
    }
    Ok(())
}

fn concat(r: &mut Registry, name: &'static str, doc: &'static str, alias: &[&'static str]) {
    r.op(name, doc)
        .variadic("arg", "arrays whose extents differ at most along the axis", "num_args")
        .param(int("dim", "the axis along which they are joined; negative ones count from the end").or(1i64))
        .alias(alias)
        .infer(joined)
        .kernel(|c| {
            let axis = c.shape(0).axis(c.attrs.int("dim"))?;
            side_by_side(c, c.shape(0)[..axis].iter().product())
        })
        .gpu(|c| {
            let axis = c.shape(0).axis(c.attrs.int("dim"))?;
            side_by_side_on_gpu(c, c.shape(0)[..axis].iter().product())
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let axis = b.shape(g.outs[0]).axis(g.attrs.int("dim"))?;
            parts(b, g, axis)
        })
        .sample(&[draw(&[2, 3]), draw(&[2, 1]), draw(&[2, 2])], &[])
        .sample(&[draw(&[2, 3]), draw(&[1, 3])], &[("dim", (-2i64).into())]);
}

fn joined(s: &Sig) -> Result<Specs> {
    some(s)?;
    s.one_dtype()?;
    let mut shape = s.shape(0).clone();
    let axis = s.axis(0, s.attrs.int("dim"))?;
    for i in 1..s.ins.len() {
        let other = s.shape(i);
        let equal =
            other.ndim() == shape.ndim() && (0..shape.ndim()).all(|d| d == axis || other[d] == shape[d]);
        if !equal {
            return Err(s.fail(format!(
                "{} has shape {other} and {} has {}; they may differ along axis {axis} only",
                s.op.input_name(i),
                s.op.input_name(0),
                s.shape(0)
            )));
        }
        shape.set(axis, shape[axis].saturating_add(other[axis]));
    }
    shape.checked_size()?;
    s.shaped(shape)
}

/// `axis` of the result of stacking arrays of this shape.
fn stack_axis(axis: i64, shape: &Shape) -> Result<usize, String> {
    let n = shape.ndim() as i64;
    if axis < -n - 1 || axis > n {
        return Err(format!("axis = {axis} is out of range; {} to {n} are allowed", -n - 1));
    }
    Ok(if axis < 0 { axis + n + 1 } else { axis } as usize)
}

/// The inputs, each (outer, its width), as one (outer, sum of the widths).
fn side_by_side(c: &Ctx, outer: usize) -> Result<()> {
    dispatch_unit!(c.dtype(0).size(), U => {
        let ins: SmallVec<[&[U]; 16]> = (0..c.ins.len()).map(|i| units::<U>(c.x_bytes(i))).collect();
        copy::concat(&ins, outer, units_mut::<U>(c.y_bytes(0)));
    });
    Ok(())
}

/// Each input goes where it stands in the rows of the output.
fn side_by_side_on_gpu(c: &GpuCtx, outer: usize) -> Result<()> {
    let total = c.out_shape(0).size() / outer.max(1);
    let mut start = 0;
    for i in 0..c.ins.len() {
        let width = c.shape(i).size() / outer.max(1);
        let mut target = c.y(0);
        target.offset += start;
        let (own, joined) = ([width as isize, 1], [total as isize, 1]);
        let (source, target) = (c.x(i).strided(&own), target.strided(&joined));
        launch_copy(c.device, &[outer, width], source, target, c.op.name)?;
        start += width;
    }
    Ok(())
}

/// Sums of one array to four.
static SUMS: LazyLock<[Formula; 4]> = LazyLock::new(|| {
    [1, 2, 3, 4].map(|n| Formula::build(n, &[], |a| (1..n).fold(a.x(0), |sum, i| sum + a.x(i))))
});

/// Four arrays at first, then the sum so far and three more: a kernel binds only so many.
fn sum_on_gpu(c: &GpuCtx) -> Result<()> {
    let n = [c.out_shape(0).size()];
    let y = c.y(0).strided(&[1]);
    let mut next = 0;
    while next < c.ins.len() {
        let more = (c.ins.len() - next).min(if next == 0 { 4 } else { 3 });
        let so_far = (next > 0).then_some(y);
        let ins: SmallVec<[_; 4]> =
            so_far.into_iter().chain((next..next + more).map(|i| c.x(i).strided(&[1]))).collect();
        launch_map(c.device, &SUMS[ins.len() - 1], &[], &n, &ins, y, c.op.name)?;
        next += more;
    }
    Ok(())
}

/// The gradients of joined arrays: the parts of the head along `axis` of the output.
fn parts(b: &mut dyn Build, g: &GradArgs, axis: usize) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let rank = b.shape(head).ndim();
    let width = |b: &dyn Build, i: usize| {
        let shape = &b.spec(g.ins[i]).shape;
        if shape.ndim() < rank { 1 } else { shape[axis] }
    };
    let starts: Vec<usize> =
        (0..g.ins.len()).scan(0, |at, i| Some(std::mem::replace(at, *at + width(b, i)))).collect();
    let mut grads = g.none();
    let wanted = g.need.iter().filter(|need| **need).count();
    let pieces: Vec<_> = if wanted > 1 {
        let indices: Vec<i64> = starts.iter().map(|v| *v as i64).collect();
        let pieces = b.op("_split_v2", &[head], &[("indices", indices[..].into()), ("axis", axis.into())])?;
        pieces.into_iter().map(Some).collect()
    } else {
        // One part: cut out of the head alone.
        let whole =
            |last: Option<i64>| AttrValue::Ints((0..=axis).map(|d| last.filter(|_| d == axis)).collect());
        let mut pieces = vec![None; g.ins.len()];
        for i in (0..g.ins.len()).filter(|i| g.need[*i]) {
            let (first, last) = (starts[i] as i64, (starts[i] + width(b, i)) as i64);
            let attrs = [("begin", whole(Some(first))), ("end", whole(Some(last)))];
            pieces[i] = Some(b.op1("slice", &[head], &attrs)?);
        }
        pieces
    };
    for (i, piece) in pieces.into_iter().enumerate().filter(|(i, _)| g.need[*i]) {
        let shape = b.shape(g.ins[i]).clone();
        grads[i] = piece.map(|piece| b.reshape(piece, &shape)).transpose()?;
    }
    Ok(grads)
}
