//! Normalization of each sample by itself: LayerNorm, InstanceNorm, GroupNorm, L2Normalization.

use super::norm_gradient;
use crate::ops::registry::Registry;
use crate::ops::{Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, OpBuilder, Sig, Spec, Specs, Value, Values};
use crate::ops::{choice, draw, flag, float, int, one};
use crate::shaders::norm as shaders;
use mxrs_base::{Elem, Result, Shape, dispatch_float};
use mxrs_kernels::norm_rows::{self as kernels, Affine, Center};
use mxrs_kernels::real::{Float, Real};
use smallvec::smallvec;

pub fn register(r: &mut Registry) {
    layer_norm(r);
    layer_norm_backward(r);
    grouped(r);
    grouped_backward(r);
    l2(r);
    l2_backward(r);
}

fn affine_inputs<'a>(op: &'a mut OpBuilder, what: &'static str) -> &'a mut OpBuilder {
    op.input("data", "values").input("gamma", what).input("beta", what)
}

fn visible(a: &Attrs) -> usize {
    if a.has("output_mean_var") && a.bool("output_mean_var") { 3 } else { 1 }
}

/// gamma and beta have `n` elements of data's type.
fn check_affine(s: &Sig, n: usize) -> Result<()> {
    s.expect_float(0)?;
    s.one_dtype()?;
    let shape = Shape::new(&[n]);
    s.expect_shape(1, &shape)?;
    s.expect_shape(2, &shape)
}

fn fill(shapes: &mut [Option<Shape>], n: usize) {
    for shape in &mut shapes[1..] {
        shape.get_or_insert_with(|| Shape::new(&[n]));
    }
}

/// A row form of the arrays: `len` elements a row and who owns gamma.
#[derive(Clone, Copy)]
struct Rows {
    len: usize,
    affine: Affine,
}

/// Parameters, and statistics between the passes, in the computing type.
fn normalize<T: Float>(c: &Ctx, rows: Rows, x: &[T], out: &mut [T]) {
    let (mut g, mut b) = (Vec::new(), Vec::new());
    let (gamma, beta) = (T::view(c.x(1), &mut g), T::view(c.x(2), &mut b));
    let (mut m, mut s) = (Vec::new(), Vec::new());
    let eps = c.attrs.float("eps");
    let n = c.out_shape(1).size();
    T::write(c.y(1), &mut m, |mean| {
        T::write(c.y(2), &mut s, |std| {
            if rows.len > 0 {
                kernels::rows_normalize(
                    x,
                    rows.len,
                    eps,
                    Center::Mean,
                    rows.affine,
                    gamma,
                    beta,
                    out,
                    mean,
                    std,
                );
            } else {
                mean[..n].fill(T::R::ZERO);
                std[..n].fill(T::R::ZERO);
            }
        });
    });
}

/// Inputs: head, data, gamma, mean, std; outputs: the gradients of data, gamma and beta.
fn gradient<T: Float>(c: &Ctx, rows: Rows, head: &[T], x: &[T], dx: &mut [T]) {
    let mut buffers: [Vec<T::R>; 5] = Default::default();
    let [g, m, s, dg, db] = &mut buffers;
    let (gamma, mean, std) = (T::view(c.x(2), g), T::view(c.x(3), m), T::view(c.x(4), s));
    T::write(c.y(1), dg, |dgamma| {
        T::write(c.y(2), db, |dbeta| {
            if rows.len > 0 && !x.is_empty() {
                let (center, affine) = (Center::Mean, rows.affine);
                kernels::rows_grad(x, head, rows.len, center, affine, gamma, mean, std, dx, dgamma, dbeta);
            } else {
                dgamma.fill(T::R::ZERO);
                dbeta.fill(T::R::ZERO);
            }
        });
    });
}

fn rows_on_gpu(c: &GpuCtx, around: (usize, usize, usize), affine: shaders::Affine) -> Result<()> {
    let (ins, outs) = ([c.x(0), c.x(1), c.x(2)], [c.y(0), c.y(1), c.y(2)]);
    shaders::launch_rows(c.device, around, affine, c.attrs.float("eps"), ins, outs, c.op.name)
}

fn gradient_on_gpu(c: &GpuCtx, around: (usize, usize, usize), affine: shaders::Affine) -> Result<()> {
    let ins = [c.x(0), c.x(1), c.x(2), c.x(3), c.x(4)];
    shaders::launch_rows_grad(c.device, around, affine, ins, [c.y(0), c.y(1), c.y(2)], c.op.name)
}

/// Rows of a sample's groups, one after the other, for a GPU.
fn groups_on_gpu(shape: &Shape, groups: usize) -> ((usize, usize, usize), shaders::Affine) {
    ((shape[0] * groups, rows_of(shape, groups).len, 1), shaders::Affine::PerRow(groups))
}

fn layer_norm(r: &mut Registry) {
    let op = r.op(
        "LayerNorm",
        "Data shifted and scaled to mean 0 and variance 1 along `axis` (Ba and others, 2016).",
    );
    affine_inputs(op, "one number for each index of `axis`")
        .params([
            int("axis", "the axis of the statistics").or(-1i64),
            float("eps", "added to the variance").or(1e-5f32 as f64).at_least(0.0),
            flag("output_mean_var", "also gives the mean and sqrt(variance + eps)").or(false),
        ])
        .alias(&["_npx_layer_norm"])
        .visible(visible)
        .file_outputs(|_| 3)
        .output_names(&["output", "mean", "std"])
        .infer(|s| {
            let axis = s.axis(0, s.attrs.int("axis"))?;
            check_affine(s, s.shape(0)[axis])?;
            let mut rows = s.shape(0).clone();
            rows.set(axis, 1);
            let statistic = Spec::new(rows, s.dtype(0));
            Ok(smallvec![s.ins[0].clone(), statistic.clone(), statistic])
        })
        .complete(|a, shapes| {
            if let Some(data) = shapes[0].clone() {
                fill(shapes, data[data.axis(a.int("axis"))?]);
            }
            Ok(())
        })
        .kernel(|c| {
            let around = axis_around(c, 0)?;
            dispatch_float!(c.dtype(0), T => {
                let (x, out) = (c.x::<T>(0), c.y::<T>(0));
                let rows = Rows { len: around.1, affine: Affine::PerElement };
                if around.2 == 1 {
                    normalize(c, rows, x, out);
                } else {
                    let mut result = vec![T::default(); x.len()];
                    normalize(c, rows, &last(x, around), &mut result);
                    back(&result, around, out);
                }
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = c.shape(0).around(c.shape(0).axis(c.attrs.int("axis"))?);
            rows_on_gpu(c, around, shaders::Affine::PerElement)
        })
        .keeps(&[0, 1], &[1, 2])
        .grad(|b, g| norm_rule(b, g, "_backward_LayerNorm", &["axis", "eps"]))
        .cost(|s, _| s.shape(0).size() as f64)
        .sample(&[draw(&[2, 3]), draw(&[3]), draw(&[3])], &[])
        .sample(&[draw(&[2, 3, 2]), draw(&[3]), draw(&[3])], &[("axis", 1i64.into())]);
}

fn axis_around(c: &Ctx, i: usize) -> Result<(usize, usize, usize)> {
    Ok(c.shape(i).around(c.shape(i).axis(c.attrs.int("axis"))?))
}

/// `x` with its middle axis moved to the end.
fn last<T: Float>(x: &[T], around: (usize, usize, usize)) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    kernels::swap_axis(x, around, &mut out);
    out
}

/// The inverse of [`last`].
fn back<T: Float>(x: &[T], (outer, n, inner): (usize, usize, usize), out: &mut [T]) {
    kernels::swap_axis(x, (outer, inner, n), out);
}

fn norm_rule(b: &mut dyn Build, g: &GradArgs, name: &str, attrs: &[&'static str]) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let inputs = [head, g.ins[0], g.ins[1], g.outs[1], g.outs[2]];
    let attrs: Vec<_> = attrs.iter().map(|name| (*name, g.attrs.get(name).clone())).collect();
    let grads = b.op(name, &inputs, &attrs)?;
    Ok(grads.iter().map(|v| Some(*v)).collect())
}

fn backward_inputs(op: &mut OpBuilder) -> &mut OpBuilder {
    op.input("head", "the gradient of the output")
        .input("data", "the input")
        .input("gamma", "the scale")
        .input("mean", "the mean that was used")
        .input("std", "sqrt(variance + eps) that was used")
        .hidden()
}

/// The rule of the backward operators: `rows` statistics, gradients like data and gamma.
fn backward_infer(s: &Sig, gamma: usize, rows: usize) -> Result<Specs> {
    s.expect_float(0)?;
    s.one_dtype()?;
    s.expect_shape(0, s.shape(1))?;
    s.expect_shape(2, &Shape::new(&[gamma]))?;
    if s.shape(3).size() != rows || s.shape(4).size() != rows {
        return Err(s.fail(format!("mean and std must have {rows} elements")));
    }
    Ok(smallvec![s.ins[1].clone(), s.ins[2].clone(), s.ins[2].clone()])
}

fn layer_norm_backward(r: &mut Registry) {
    let op = r.op("_backward_LayerNorm", "Gradients of LayerNorm.");
    backward_inputs(op)
        .params([
            int("axis", "the axis of the statistics").or(-1i64),
            float("eps", "added to the variance").or(1e-5),
        ])
        .infer(|s| {
            let axis = s.axis(1, s.attrs.int("axis"))?;
            let (outer, n, inner) = s.shape(1).around(axis);
            backward_infer(s, n, outer * inner)
        })
        .kernel(|c| {
            let around = axis_around(c, 1)?;
            dispatch_float!(c.dtype(0), T => {
                let (head, x, dx) = (c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
                let rows = Rows { len: around.1, affine: Affine::PerElement };
                if around.2 == 1 {
                    gradient(c, rows, head, x, dx);
                } else {
                    let mut result = vec![T::default(); x.len()];
                    gradient(c, rows, &last(head, around), &last(x, around), &mut result);
                    back(&result, around, dx);
                }
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = c.shape(1).around(c.shape(1).axis(c.attrs.int("axis"))?);
            gradient_on_gpu(c, around, shaders::Affine::PerElement)
        })
        .equivalent(|b, a, v| {
            let shape = b.shape(v[1]).clone();
            let axis = shape.axis(a.int("axis"))?;
            let mut along = Shape::new(&vec![1; shape.ndim()]);
            along.set(axis, shape[axis]);
            let gamma = b.reshape(v[2], &along)?;
            let parts = norm_gradient(b, v[0], v[1], Some(gamma), &[axis as i64], a.float("eps"), None)?;
            finish(b, parts.data, [parts.gamma, v[0]], &along)
        })
        .sample(&[draw(&[2, 3]), draw(&[2, 3]), draw(&[3]), draw(&[2]), draw(&[2]).within(0.5, 1.0)], &[])
        .cost(|s, _| s.shape(0).size() as f64 * 1.5);
}

/// The gradients of data, gamma and beta, the last two from what is to be summed to `along`.
fn finish(b: &mut dyn Build, data: Value, sums: [Value; 2], along: &Shape) -> Result<Values> {
    let flat = Shape::new(&[along.size()]);
    let mut out: Values = smallvec![data];
    for full in sums {
        let sum = b.sum_to(full, along)?;
        out.push(b.reshape(sum, &flat)?);
    }
    Ok(out)
}

/// InstanceNorm and GroupNorm: a sample's channels in groups, each of which is a row.
fn grouped(r: &mut Registry) {
    let op = r.op("InstanceNorm", "Each channel of each sample shifted and scaled to mean 0 and variance 1.");
    affine_inputs(op, "one number per channel (axis 1)")
        .param(float("eps", "added to the variance").or(1e-3f32 as f64).at_least(0.0))
        .visible(|_| 1)
        .file_outputs(|_| 3)
        .output_names(&["output"])
        .infer(|s| {
            s.expect_ndim(0, 3..=usize::MAX)?;
            grouped_infer(s, s.shape(0)[1])
        })
        .complete(|_, shapes| {
            if let Some(channels) = shapes[0].as_ref().and_then(|s| s.get(1).copied()) {
                fill(shapes, channels);
            }
            Ok(())
        })
        .kernel(|c| grouped_forward(c, c.shape(0)[1]))
        .gpu(|c| {
            let (around, affine) = groups_on_gpu(c.shape(0), c.shape(0)[1]);
            rows_on_gpu(c, around, affine)
        })
        .keeps(&[0, 1], &[1, 2])
        .grad(|b, g| norm_rule(b, g, "_backward_GroupNorm", &["eps"]))
        .cost(|s, _| s.shape(0).size() as f64)
        .sample(&[draw(&[2, 3, 4]), draw(&[3]), draw(&[3])], &[]);
    let op = r.op(
        "GroupNorm",
        "Groups of a sample's channels shifted and scaled to mean 0 and variance 1 (Wu, He, 2018).",
    );
    affine_inputs(op, "one number per group")
        .params([
            int("num_groups", "how many groups the channels (axis 1) are cut into").or(1i64).at_least(1.0),
            float("eps", "added to the variance").or(1e-5f32 as f64).at_least(0.0),
            flag("output_mean_var", "also gives the mean and sqrt(variance + eps)").or(false),
        ])
        .visible(visible)
        .file_outputs(|_| 3)
        .output_names(&["output", "mean", "std"])
        .infer(|s| {
            s.expect_ndim(0, 3..=usize::MAX)?;
            let groups = s.attrs.size("num_groups");
            if s.shape(0)[1] % groups != 0 {
                return Err(
                    s.fail(format!("num_groups = {groups} does not divide {} channels", s.shape(0)[1]))
                );
            }
            grouped_infer(s, groups)
        })
        .complete(|a, shapes| {
            if shapes[0].is_some() {
                fill(shapes, a.size("num_groups"));
            }
            Ok(())
        })
        .kernel(|c| grouped_forward(c, c.attrs.size("num_groups")))
        .gpu(|c| {
            let (around, affine) = groups_on_gpu(c.shape(0), c.attrs.size("num_groups"));
            rows_on_gpu(c, around, affine)
        })
        .keeps(&[0, 1], &[1, 2])
        .grad(|b, g| norm_rule(b, g, "_backward_GroupNorm", &["eps"]))
        .cost(|s, _| s.shape(0).size() as f64)
        .sample(&[draw(&[2, 4, 3]), draw(&[2]), draw(&[2])], &[("num_groups", 2i64.into())]);
}

fn grouped_infer(s: &Sig, groups: usize) -> Result<Specs> {
    check_affine(s, groups)?;
    let statistic = Spec::new(Shape::new(&[s.shape(0)[0], groups]), s.dtype(0));
    Ok(smallvec![s.ins[0].clone(), statistic.clone(), statistic])
}

fn rows_of(shape: &Shape, groups: usize) -> Rows {
    Rows { len: shape[1..].iter().product::<usize>() / groups.max(1), affine: Affine::PerRow(groups) }
}

fn grouped_forward(c: &Ctx, groups: usize) -> Result<()> {
    let rows = rows_of(c.shape(0), groups);
    dispatch_float!(c.dtype(0), T => {
        normalize(c, rows, c.x::<T>(0), c.y::<T>(0));
        Ok(())
    }, else c.bad_dtype(c.dtype(0)))
}

/// The number of groups is that of gamma's elements.
fn grouped_backward(r: &mut Registry) {
    let op = r.op("_backward_GroupNorm", "Gradients of GroupNorm and InstanceNorm.");
    backward_inputs(op)
        .param(float("eps", "added to the variance").or(1e-5))
        .infer(|s| {
            s.expect_ndim(1, 3..=usize::MAX)?;
            let groups = s.shape(2).size();
            if groups == 0 || s.shape(1)[1] % groups != 0 {
                return Err(s.fail("gamma must divide the channels"));
            }
            backward_infer(s, groups, s.shape(1)[0] * groups)
        })
        .kernel(|c| {
            let rows = rows_of(c.shape(1), c.shape(2).size());
            dispatch_float!(c.dtype(0), T => {
                gradient(c, rows, c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let (around, affine) = groups_on_gpu(c.shape(1), c.shape(2).size());
            gradient_on_gpu(c, around, affine)
        })
        .equivalent(|b, a, v| {
            let (shape, groups) = (b.shape(v[1]).clone(), b.shape(v[2]).size());
            let matrix = Shape::new(&[shape[0], groups, rows_of(&shape, groups).len]);
            let along = Shape::new(&[1, groups, 1]);
            let (head, x) = (b.reshape(v[0], &matrix)?, b.reshape(v[1], &matrix)?);
            let gamma = b.reshape(v[2], &along)?;
            let parts = norm_gradient(b, head, x, Some(gamma), &[2], a.float("eps"), None)?;
            let data = b.reshape(parts.data, &shape)?;
            finish(b, data, [parts.gamma, head], &along)
        })
        .sample(
            &[draw(&[2, 4, 3]), draw(&[2, 4, 3]), draw(&[2]), draw(&[2, 2]), draw(&[2, 2]).within(0.5, 1.0)],
            &[],
        )
        .cost(|s, _| s.shape(0).size() as f64 * 1.5);
}

const L2_MODES: &[&str] = &["channel", "instance", "spatial"];

fn l2_around(mode: &str, x: &Shape) -> (usize, usize, usize) {
    match mode {
        "channel" => x.around(1),
        "spatial" => (x[0] * x[1], x[2..].iter().product(), 1),
        _ => (x.first().copied().unwrap_or(1), x.iter().skip(1).product(), 1),
    }
}

fn l2_infer(s: &Sig) -> Result<(usize, usize, usize)> {
    s.expect_float(0)?;
    let mode = s.attrs.str("mode");
    s.expect_ndim(0, if mode == "instance" { 1 } else { 3 }..=usize::MAX)?;
    Ok(l2_around(mode, s.shape(0)))
}

fn l2(r: &mut Registry) {
    r.op("L2Normalization", "Data divided by sqrt(sum of squares + eps), the sum over what `mode` says.")
        .input("data", "values, shape (batch, ...)")
        .params([
            float("eps", "added to the sum of squares").or(1e-10f32 as f64).at_least(0.0),
            choice("mode", L2_MODES, "the sum is over a sample, its channels, or each channel's positions")
                .or("instance"),
        ])
        .visible(|_| 1)
        .file_outputs(|_| 2)
        .output_names(&["output"])
        .infer(|s| {
            let (outer, _, inner) = l2_infer(s)?;
            let norm = Spec::new(Shape::new(&[outer * inner]), super::wide(s.dtype(0)));
            Ok(smallvec![s.ins[0].clone(), norm])
        })
        .kernel(|c| {
            let around = l2_around(c.attrs.str("mode"), c.shape(0));
            dispatch_float!(c.dtype(0), T => {
                normalize_l2::<T>(c, around);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = l2_around(c.attrs.str("mode"), c.shape(0));
            let outs = [c.y(0), c.y(1)];
            shaders::launch_unit(c.device, around, c.attrs.float("eps"), c.x(0), outs, c.op.name)
        })
        .keeps(&[0], &[0, 1])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let attrs = ["mode", "eps"].map(|name| (name, g.attrs.get(name).clone()));
            let grad = b.op1("_backward_L2Normalization", &[head, g.ins[0], g.outs[0], g.outs[1]], &attrs)?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[])
        .sample(&[draw(&[2, 3, 2])], &[("mode", "channel".into())])
        .sample(&[draw(&[2, 3, 2])], &[("mode", "spatial".into())]);
}

fn l2_backward(r: &mut Registry) {
    r.op("_backward_L2Normalization", "The gradient of L2Normalization.")
        .input("head", "the gradient of the output")
        .input("data", "the input")
        .input("out", "the output")
        .input("norm", "the divisors")
        .params([choice("mode", L2_MODES, "what was summed"), float("eps", "added to the sum").or(1e-10)])
        .hidden()
        .infer(|s| {
            let (outer, _, inner) = l2_infer(s)?;
            let norm = Spec::new(Shape::new(&[outer * inner]), super::wide(s.dtype(0)));
            if s.ins[1] != s.ins[0] || s.ins[2] != s.ins[0] || *s.ins[3] != norm {
                return Err(s.fail("the inputs do not belong together"));
            }
            s.same(0)
        })
        .kernel(|c| {
            let around = l2_around(c.attrs.str("mode"), c.shape(0));
            dispatch_float!(c.dtype(0), T => {
                gradient_l2::<T>(c, around);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(|c| {
            let around = l2_around(c.attrs.str("mode"), c.shape(0));
            let ins = [c.x(2), c.x(3), c.x(0)];
            shaders::launch_unit_grad(c.device, around, ins, c.y(0), c.op.name)
        })
        .equivalent(|b, a, v| {
            let shape = b.shape(v[1]).clone();
            let (outer, n, inner) = l2_around(a.str("mode"), &shape);
            let cube = Shape::new(&[outer, n, inner]);
            let (head, x) = (b.reshape(v[0], &cube)?, b.reshape(v[1], &cube)?);
            let square = b.unary("square", x)?;
            let total = b.sum(square, &[1], true)?;
            let total = b.shift(total, a.float("eps"))?;
            let inverse = b.unary("rsqrt", total)?;
            let y = b.mul(x, inverse)?;
            let product = b.mul(y, head)?;
            let along = b.sum(product, &[1], true)?;
            let along = b.mul(y, along)?;
            let across = b.sub(head, along)?;
            let grad = b.mul(across, inverse)?;
            Ok(one(b.reshape(grad, &shape)?))
        })
        .sample(
            &[draw(&[2, 3]), draw(&[2, 3]), draw(&[2, 3]), draw(&[2]).within(0.5, 1.0)],
            &[("mode", "instance".into())],
        );
}

fn normalize_l2<T: Float<R: Elem>>(c: &Ctx, around: (usize, usize, usize)) {
    kernels::l2_normalize(c.x::<T>(0), around, c.attrs.float("eps"), c.y::<T>(0), c.y::<T::R>(1));
}

fn gradient_l2<T: Float<R: Elem>>(c: &Ctx, around: (usize, usize, usize)) {
    kernels::l2_grad(c.x::<T>(2), c.x::<T::R>(3), c.x::<T>(0), around, c.y::<T>(0));
}
