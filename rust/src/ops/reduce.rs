//! Reductions over axes: sums, products, extremes, norms, their positions, and running sums.
//!
//! `axis` absent or empty means every axis, and a result without axes has shape (1,), as MXNet has it. Gradients are
//! formulas of (head, data, result) broadcast over the reduced axes, so that they can be differentiated in turn.
//! Statistics of whole lists of arrays (finite checks, sums of squares, histograms) are in [`statistics`].

mod statistics;

use super::registry::Registry;
use super::{
    Build, Ctx, GpuCtx, GradArgs, Grads, OpBuilder, Shapes, Sig, Spec, Specs, Value, draw, dtype, flag, int,
    ints,
};
use crate::shaders::extreme::launch_position;
use crate::shaders::reduce as shaders;
use crate::shaders::scan::launch_scan;
use mxrs_base::{AttrValue, DType, Dims, Elem, Error, Result, Shape, dispatch};
use mxrs_formula::{Args, E};
use mxrs_kernels::reduce::{self, Reduction};
use mxrs_kernels::scan;
use smallvec::SmallVec;

pub fn register(r: &mut Registry) {
    sums(r);
    gradients(r);
    products(r);
    extremes(r);
    norm(r);
    positions(r);
    running_sums(r);
    moments(r);
    statistics::register(r);
}

// ---- axes and shapes ---------------------------------------------------------------------------------------------

/// The reduced axes, in order.
fn axes_of(attrs: &super::Attrs, shape: &Shape) -> Result<Dims> {
    let given = attrs.ints("axis");
    if given.is_empty() {
        return Ok((0..shape.ndim()).collect());
    }
    let axes = shape.axes(&given)?;
    if attrs.has("exclude") && attrs.bool("exclude") {
        return Ok((0..shape.ndim()).filter(|i| !axes.contains(i)).collect());
    }
    Ok(axes)
}

/// `shape` with 1 at every reduced axis: what broadcasts back.
fn kept(shape: &Shape, axes: &[usize]) -> Shape {
    let mut out = shape.clone();
    axes.iter().for_each(|&i| out.set(i, 1));
    out
}

fn reduced(shape: &Shape, axes: &[usize], keepdims: bool) -> Shape {
    if keepdims {
        return kept(shape, axes);
    }
    let dims: Dims = (0..shape.ndim()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    Shape::new(if dims.is_empty() { &[1] } else { &dims })
}

fn infer(s: &Sig) -> Result<Specs> {
    let axes = axes_of(s.attrs, s.shape(0)).map_err(|e| s.fail(e.message()))?;
    s.shaped(reduced(s.shape(0), &axes, s.attrs.bool("keepdims")))
}

/// As [`infer`], where nothing to choose from is an error.
fn infer_nonempty(s: &Sig) -> Result<Specs> {
    let out = infer(s)?;
    if s.shape(0).size() == 0 && out[0].shape.size() > 0 {
        return Err(s.fail("there is no extreme among no elements"));
    }
    Ok(out)
}

/// Reading is all there is to it: a third of a nanosecond for each element.
fn cost(s: &Sig, _: &[Spec]) -> f64 {
    300.0 + s.shape(0).size() as f64 * 0.3
}

/// The one place that reduces: input 0, cast to the output's type where that is another one.
fn fold(c: &Ctx, op: Reduction) -> Result<()> {
    let shape = c.shape(0);
    let axes = axes_of(c.attrs, shape)?;
    dispatch!(c.out_dtype(0), T => {
        let wide: Vec<T>;
        let x: &[T] = if c.dtype(0) == T::DTYPE {
            c.x(0)
        } else {
            wide = cast_input(c, 0)?;
            &wide
        };
        reduce::reduce(op, x, shape, &axes, c.y::<T>(0));
    });
    Ok(())
}

/// As [`fold`].
fn fold_on_gpu(c: &GpuCtx, op: Reduction) -> Result<()> {
    let axes = axes_of(c.attrs, c.shape(0))?;
    let strides = c.rows(0);
    shaders::launch_reduce(c.device, op, c.shape(0), &axes, c.x(0).strided(&strides), c.y(0), c.op.name)
}

/// As [`arg_extreme`].
fn arg_on_gpu(c: &GpuCtx, max: bool, axis: Option<i64>) -> Result<()> {
    launch_position(c.device, max, around(c.shape(0), axis)?, c.x(0), c.y(0), c.op.name)
}

/// Which norm `norm` is.
fn norm_of(attrs: &super::Attrs) -> Reduction {
    if attrs.int("ord") == 1 { Reduction::NormL1 } else { Reduction::NormL2 }
}

/// A copy of input `i` in another type.
pub(super) fn cast_input<T: Elem>(c: &Ctx, i: usize) -> Result<Vec<T>> {
    let n = c.shape(i).size();
    let mut out: Vec<T> = Vec::new();
    out.try_reserve_exact(n).map_err(|e| Error::memory(format!("{}: no room for a cast: {e}", c.op.name)))?;
    out.resize(n, T::default());
    dispatch!(c.dtype(i), F => mxrs_simd::cast(c.x::<F>(i), &mut out));
    Ok(out)
}

// ---- records -----------------------------------------------------------------------------------------------------

/// What all reductions over `axis`, `keepdims` and `exclude` share.
fn reduction<'a>(
    r: &'a mut Registry,
    name: &'static str,
    doc: &'static str,
    op: Reduction,
) -> &'a mut OpBuilder {
    r.op(name, doc)
        .input("data", "values of any shape")
        .param(ints("axis", "the axes to reduce; none means all").or_none())
        .param(flag("keepdims", "whether reduced axes stay, with extent 1").or(false))
        .param(flag("exclude", "whether to reduce every axis but those named").or(false))
        .infer(infer)
        .cost(cost)
        .kernel(move |c| fold(c, op))
        .gpu(move |c| fold_on_gpu(c, op))
        .sample(&[draw(&[2, 3, 4]).within(0.5, 1.5)], &[])
        .sample(&[draw(&[2, 3, 4]).within(0.5, 1.5)], &[("axis", [1].into()), ("keepdims", true.into())])
        .sample(&[draw(&[2, 3, 4]).within(0.5, 1.5)], &[("axis", [-1, 0].into())])
        .sample(&[draw(&[2, 3, 4]).within(0.5, 1.5)], &[("axis", [1].into()), ("exclude", true.into())])
}

/// The head gradient with the reduced axes back, as 1.
fn head_kept(b: &mut dyn Build, g: &GradArgs, v: Value) -> Result<Value> {
    let shape = b.shape(g.ins[0]);
    let back = kept(shape, &axes_of(g.attrs, shape)?);
    b.reshape(v, &back)
}

/// The gradient that the hidden formula `name` gives from (head, data) and, where `with_result`, the result.
fn by_formula(b: &mut dyn Build, g: &GradArgs, name: &str, with_result: bool) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let mut inputs: SmallVec<[Value; 3]> = SmallVec::new();
    inputs.push(head_kept(b, g, head)?);
    inputs.push(g.ins[0]);
    if with_result {
        inputs.push(head_kept(b, g, g.outs[0])?);
    }
    let grad = b.op1(name, &inputs, &[])?;
    let to = b.dtype(g.ins[0]);
    let grad = b.cast(grad, to)?;
    g.first(grad)
}

/// The gradient of a sum, times `factor`.
fn spread(b: &mut dyn Build, g: &GradArgs, factor: f64) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let head = b.scale(head, factor)?;
    let head = head_kept(b, g, head)?;
    let shape = b.shape(g.ins[0]).clone();
    let grad = b.broadcast_to(head, &shape)?;
    g.first(grad)
}

fn sums(r: &mut Registry) {
    reduction(r, "sum", "Sum over axes; whole numbers sum in their own type and wrap.", Reduction::Sum)
        .alias(&["_sparse_sum", "sum_axis"])
        .method(&["sum"])
        .keeps(&[], &[])
        .grad(|b, g| spread(b, g, 1.0));
    reduction(
        r,
        "mean",
        "Mean over axes; of whole numbers, the quotient of their sum toward zero.",
        Reduction::Mean,
    )
    .alias(&["_sparse_mean"])
    .method(&["mean"])
    .keeps(&[], &[])
    .grad(|b, g| {
        let (from, to) = (b.shape(g.ins[0]).size(), b.shape(g.outs[0]).size());
        spread(b, g, to as f64 / from.max(1) as f64)
    });
    reduction(r, "nansum", "Sum over axes with not-a-number taken as 0.", Reduction::NanSum)
        .method(&["nansum"])
        .keeps(&[0], &[])
        .grad(|b, g| by_formula(b, g, "_backward_nansum", false));
    reduction(r, "_square_sum", "Sum of squares over axes.", Reduction::SumSq)
        .keeps(&[0], &[])
        .grad(|b, g| by_formula(b, g, "_backward_square_sum", false));
}

/// The formulas of gradients: (head, data) or (head, data, result), broadcast to one another.
fn gradients(r: &mut Registry) {
    type Row = (&'static str, usize, fn(&Args) -> E);
    const ROWS: &[Row] = &[
        ("_backward_nansum", 2, |a| a.x(1).eq(a.x(1)).select(a.x(0), a.c(0.0))),
        ("_backward_square_sum", 2, |a| a.x(0) * a.x(1) * 2.0),
        ("_backward_norm_l1", 2, |a| a.x(0) * a.x(1).sign()),
        ("_backward_norm_l2", 3, |a| a.x(0) * (a.x(1) / a.x(2))),
        ("_backward_prod", 3, |a| a.x(0) * a.x(2) / a.x(1)),
        ("_backward_nanprod", 3, |a| a.x(1).eq(a.x(1)).select(a.x(0) * a.x(2) / a.x(1), a.c(0.0))),
        ("_backward_extreme", 3, |a| a.x(1).eq(a.x(2)).select(a.x(0), a.c(0.0))),
    ];
    for &(name, inputs, formula) in ROWS {
        let op = r.op(name, "Gradient of a reduction.").input("head", "gradient of the result");
        op.input("data", "the reduced array");
        let mut samples = vec![draw(&[2, 1]), draw(&[2, 3]).within(0.5, 1.5)];
        if inputs == 3 {
            op.input("result", "the reduction");
            samples.push(draw(&[2, 1]).within(2.0, 3.0));
        }
        op.formula(Shapes::Broadcast, formula).hidden().sample(&samples, &[]);
    }
}

fn products(r: &mut Registry) {
    // As in MXNet the gradient divides by the element, so it is not a number where an element is 0.
    reduction(r, "prod", "Product over axes.", Reduction::Prod)
        .method(&["prod"])
        .keeps(&[0], &[0])
        .grad(|b, g| by_formula(b, g, "_backward_prod", true));
    reduction(r, "nanprod", "Product over axes with not-a-number taken as 1.", Reduction::NanProd)
        .method(&["nanprod"])
        .keeps(&[0], &[0])
        .grad(|b, g| by_formula(b, g, "_backward_nanprod", true));
}

fn extremes(r: &mut Registry) {
    reduction(
        r,
        "max",
        "Largest element over axes; not-a-number wins. All that are largest share its gradient whole.",
        Reduction::Max,
    )
    .alias(&["max_axis"])
    .method(&["max"])
    .infer(infer_nonempty)
    .keeps(&[0], &[0])
    .grad(|b, g| by_formula(b, g, "_backward_extreme", true));
    reduction(
        r,
        "min",
        "Smallest element over axes; not-a-number wins. All that are smallest share its gradient whole.",
        Reduction::Min,
    )
    .alias(&["min_axis"])
    .method(&["min"])
    .infer(infer_nonempty)
    .keeps(&[0], &[0])
    .grad(|b, g| by_formula(b, g, "_backward_extreme", true));
}

fn norm(r: &mut Registry) {
    r.op(
        "norm",
        "Norm of the vectors along axes: the sum of magnitudes (`ord` 1) or the Euclidean length (`ord` 2).",
    )
    .input("data", "values of any shape")
    .param(int("ord", "1 or 2").or(2).at_least(1.0).at_most(2.0))
    .param(ints("axis", "the axes to reduce; none means all").or_none())
    .param(
        dtype("out_dtype", "the type of the result, in which it is also summed; the input's by default")
            .or_none(),
    )
    .param(flag("keepdims", "whether reduced axes stay, with extent 1").or(false))
    .alias(&["_sparse_norm"])
    .method(&["norm"])
    .infer(|s| {
        let mut out = infer(s)?;
        out[0].dtype = s.attrs.opt_dtype("out_dtype").unwrap_or(s.dtype(0));
        Ok(out)
    })
    .cost(cost)
    .kernel(|c| fold(c, norm_of(c.attrs)))
    .gpu(|c| fold_on_gpu(c, norm_of(c.attrs)))
    .keeps(&[0], &[0])
    .grad(|b, g| match g.attrs.int("ord") {
        1 => by_formula(b, g, "_backward_norm_l1", false),
        _ => by_formula(b, g, "_backward_norm_l2", true),
    })
    .sample(&[draw(&[2, 3]).within(0.5, 1.5)], &[])
    .sample(&[draw(&[2, 3]).within(0.5, 1.5)], &[("ord", 1.into()), ("axis", [1].into())])
    .sample(&[draw(&[2, 3, 2]).within(0.5, 1.5)], &[("axis", [0, 2].into()), ("keepdims", true.into())]);
}

// ---- positions ---------------------------------------------------------------------------------------------------

/// (outer, extent, inner) around `axis`, or of the flat array.
pub(super) fn around(shape: &Shape, axis: Option<i64>) -> Result<(usize, usize, usize)> {
    match axis {
        Some(axis) => Ok(shape.around(shape.axis(axis)?)),
        None => Ok((1, shape.size(), 1)),
    }
}

fn arg_extreme(c: &Ctx, max: bool, axis: Option<i64>) -> Result<()> {
    let sizes = around(c.shape(0), axis)?;
    match c.dtype(0) {
        DType::Bool => c.bad_dtype(DType::Bool),
        dtype => {
            dispatch!(dtype, T => scan::arg_extreme(max, c.x::<T>(0), sizes, c.y::<T>(0)));
            Ok(())
        }
    }
}

fn infer_position(s: &Sig, axis: Option<i64>, keepdims: bool) -> Result<Specs> {
    if s.dtype(0) == DType::Bool {
        return Err(s.fail("bool is not supported; cast to another type first"));
    }
    let shape = s.shape(0);
    let axes: Dims = match axis {
        Some(axis) => [s.axis(0, axis)?].into_iter().collect(),
        None => (0..shape.ndim()).collect(),
    };
    let out = reduced(shape, &axes, keepdims);
    if shape.size() == 0 && out.size() > 0 {
        return Err(s.fail("there is no extreme among no elements"));
    }
    s.shaped(out)
}

fn positions(r: &mut Registry) {
    const ROWS: &[(&str, bool, &str)] = &[
        (
            "argmax",
            true,
            "Position of the largest element along an axis, in the input's type; the first of equals.",
        ),
        (
            "argmin",
            false,
            "Position of the smallest element along an axis, in the input's type; the first of equals.",
        ),
    ];
    for &(name, max, doc) in ROWS {
        r.op(name, doc)
            .input("data", "values of any shape")
            .param(int("axis", "the axis to search; none searches the flat array").or_none())
            .param(flag("keepdims", "whether the axis stays, with extent 1").or(false))
            .method(&[name])
            .infer(|s| infer_position(s, s.attrs.opt_int("axis"), s.attrs.bool("keepdims")))
            .kernel(move |c| arg_extreme(c, max, c.attrs.opt_int("axis")))
            .gpu(move |c| arg_on_gpu(c, max, c.attrs.opt_int("axis")))
            .zero_grad()
            .sample(&[draw(&[2, 3])], &[])
            .sample(&[draw(&[2, 3, 4])], &[("axis", 1.into()), ("keepdims", true.into())]);
    }
    r.op("argmax_channel", "Position of the largest element along axis 1; the first of equals.")
        .input("data", "an array of two dimensions or more")
        .method(&["argmax_channel"])
        .infer(|s| infer_position(s, Some(1), false))
        .kernel(|c| arg_extreme(c, true, Some(1)))
        .gpu(|c| arg_on_gpu(c, true, Some(1)))
        .sample(&[draw(&[2, 3])], &[]);
}

// ---- running sums ------------------------------------------------------------------------------------------------

fn running_sums(r: &mut Registry) {
    r.op("_running_sum", "Running sums along an axis, from its end where `reverse`.")
        .input("data", "values of any shape")
        .param(int("axis", "the axis to sum along"))
        .param(flag("reverse", "whether to begin at the end").or(false))
        .infer(|s| {
            s.axis(0, s.attrs.int("axis"))?;
            s.same(0)
        })
        .kernel(|c| {
            let sizes = around(c.shape(0), c.attrs.opt_int("axis"))?;
            let reverse = c.attrs.bool("reverse");
            match c.dtype(0) {
                DType::Bool => c.bad_dtype(DType::Bool),
                dtype => {
                    dispatch!(dtype, T => scan::cumsum(c.x::<T>(0), sizes, reverse, c.y::<T>(0)));
                    Ok(())
                }
            }
        })
        .gpu(|c| {
            let sizes = around(c.shape(0), c.attrs.opt_int("axis"))?;
            launch_scan(c.device, c.x(0), sizes, c.attrs.bool("reverse"), c.y(0), c.op.name)
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let turned: AttrValue = (!g.attrs.bool("reverse")).into();
            let axis = g.attrs.get("axis").clone();
            let grad = b.op1("_running_sum", &[head], &[("axis", axis), ("reverse", turned)])?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 3])], &[("axis", 1.into())])
        .sample(&[draw(&[2, 3])], &[("axis", 0.into()), ("reverse", true.into())]);
    r.op("_np_cumsum", "Running sums along an axis, or of the flat array.")
        .input("a", "values of any shape")
        .param(int("axis", "the axis to sum along; none flattens the array first").or_none())
        .param(dtype("dtype", "the type to sum in; the input's by default").or_none())
        .alias(&["cumsum"])
        .infer(|s| {
            let to = s.attrs.opt_dtype("dtype").unwrap_or(s.dtype(0));
            match s.attrs.opt_int("axis") {
                Some(axis) => {
                    s.axis(0, axis)?;
                    s.one(s.shape(0).clone(), to)
                }
                None => s.one(Shape::new(&[s.shape(0).size()]), to),
            }
        })
        .compose(|b, attrs, ins| {
            let mut x = b.cast(ins[0], attrs.opt_dtype("dtype").unwrap_or(b.dtype(ins[0])))?;
            let axis = match attrs.opt_int("axis") {
                Some(axis) => b.shape(x).axis(axis).map_err(|e| e.within("cumsum"))?,
                None => {
                    let flat = Shape::new(&[b.shape(x).size()]);
                    x = b.reshape(x, &flat)?;
                    0
                }
            };
            Ok(super::one(b.op1("_running_sum", &[x], &[("axis", axis.into())])?))
        })
        .sample(&[draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3])], &[("axis", (-1).into()), ("dtype", DType::F64.into())]);
}

fn moments(r: &mut Registry) {
    r.op("moments", "Mean and variance (the mean squared distance from the mean) over axes.")
        .input("data", "values of any shape")
        .param(ints("axes", "the axes to reduce; none means all").or_none())
        .param(flag("keepdims", "whether reduced axes stay, with extent 1").or(false))
        .visible(|_| 2)
        .infer(|s| {
            let given = s.attrs.ints("axes");
            let axes = s.shape(0).axes(&given).map_err(|e| s.fail(e.message()))?;
            let axes = if axes.is_empty() { (0..s.shape(0).ndim()).collect() } else { axes };
            let spec = Spec::new(reduced(s.shape(0), &axes, s.attrs.bool("keepdims")), s.dtype(0));
            Ok([spec.clone(), spec].into_iter().collect())
        })
        .compose(|b, attrs, ins| {
            let axes: AttrValue = attrs.get("axes").clone();
            let over = |keep: bool| [("axis", axes.clone()), ("keepdims", AttrValue::from(keep))];
            let centre = b.op1("mean", &[ins[0]], &over(true)).map_err(|e| e.within("moments"))?;
            let apart = b.sub(ins[0], centre)?;
            let square = b.unary("square", apart)?;
            let keep = attrs.bool("keepdims");
            let variance = b.op1("mean", &[square], &over(keep))?;
            let shape = b.shape(variance).clone();
            let mean = b.reshape(centre, &shape)?;
            Ok([mean, variance].into_iter().collect())
        })
        .sample(&[draw(&[2, 3, 4])], &[("axes", [0, 2].into())])
        .sample(&[draw(&[2, 3])], &[("axes", [1].into()), ("keepdims", true.into())]);
}
