//! Normalization layers: statistics per channel of a batch (BatchNorm) here, statistics of each sample in
//! `rows`.
//!
//! As in MXNet the moving statistics change in the backward pass: a forward pass alone, even while training, leaves
//! them, and so does one below which nothing asks for a gradient.

mod lrn;
mod rows;

use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, OpBuilder, Param, Sig, Spec, Specs, Value, Values, draw,
    flag, float,
};
use super::{int, string};
use crate::shaders::{channels, copy, norm as shaders, norm::Moving, rows::Rows};
use mxrs_base::{AttrValue, DType, Elem, Error, Result, Shape, dispatch_float};
use mxrs_kernels::conv::in_parts;
use mxrs_kernels::norm as kernels;
use mxrs_kernels::real::{Float, Real};
use smallvec::smallvec;

pub fn register(r: &mut Registry) {
    batch_norm(r);
    batch_norm_backward(r);
    batch_norm_update(r);
    variants(r);
    rows::register(r);
    lrn::register(r);
}

/// The type of parameters and statistics that go with data of this type.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

fn inputs(op: &mut OpBuilder) -> &mut OpBuilder {
    op.output_names(&["output", "mean", "var"])
        .init(3, r#"["zero", {}]"#)
        .init(4, r#"["one", {}]"#)
        .input("data", "values, with channels on `axis`")
        .input("gamma", "scale per channel; not looked at with fix_gamma")
        .input("beta", "shift per channel")
        .input("moving_mean", "mean per channel for inference; changed by the backward pass while training")
        .input(
            "moving_var",
            "variance per channel for inference; changed by the backward pass while training",
        )
}

fn common(eps: f64) -> [Param; 5] {
    [
        float("eps", "added to the variance").or(eps).at_least(0.0),
        float("momentum", "what is kept of the moving statistics in an update").or(0.899_999_976_158_142_1),
        flag("fix_gamma", "gamma acts as 1 and gets no gradient").or(true),
        flag("use_global_stats", "the moving statistics are used while training, too").or(false),
        flag("output_mean_var", "also gives the mean and 1 / sqrt(variance + eps)").or(false),
    ]
}

fn rest() -> [Param; 4] {
    [
        int("axis", "the axis of channels").or(1i64),
        flag("cudnn_off", "has no meaning here").or(false),
        float("min_calib_range", "has no meaning here").or_none(),
        float("max_calib_range", "has no meaning here").or_none(),
    ]
}

fn visible(a: &Attrs) -> usize {
    if a.bool("output_mean_var") { 3 } else { 1 }
}

fn complete(a: &Attrs, shapes: &mut [Option<Shape>]) -> Result<()> {
    let Some(Some(data)) = shapes.first() else { return Ok(()) };
    let axis = data.axis(if a.has("axis") { a.int("axis") } else { 1 })?;
    let channels = Shape::new(&[data[axis]]);
    for shape in &mut shapes[1..] {
        shape.get_or_insert_with(|| channels.clone());
    }
    Ok(())
}

fn samples(op: &mut OpBuilder, more: &[(&'static str, AttrValue)]) {
    let ins = [draw(&[2, 3, 2]), draw(&[3]), draw(&[3]), draw(&[3]), draw(&[3]).within(0.5, 1.5)];
    let mut attrs = more.to_vec();
    op.sample(&ins, &attrs);
    attrs.push(("fix_gamma", false.into()));
    op.sample(&ins, &attrs);
}

fn batch_norm(r: &mut Registry) {
    let op = r.op(
        "BatchNorm",
        "Each channel shifted and scaled to mean 0 and variance 1 (Ioffe and Szegedy, 2015).",
    );
    inputs(op)
        .params(common(1e-3f32 as f64))
        .params(rest())
        .alias(&["_npx_batch_norm"])
        .trains()
        .visible(visible)
        .file_outputs(|_| 3)
        .infer(infer)
        .complete(complete)
        .kernel(|c| {
            dispatch_float!(c.dtype(0), T => {
                forward::<T>(c);
                in_parts(c.out_shape(0).size(), &c.finish());
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .finishes()
        .gpu(forward_on_gpu)
        .states(&[3, 4])
        .inference(by_moving_statistics)
        .keeps(&[0, 1, 3, 4], &[1, 2])
        .grad(rule)
        .cost(|s, _| s.shape(0).size() as f64);
    samples(op, &[]);
}

fn axis_of(s: &Sig) -> Result<usize> {
    s.axis(0, if s.attrs.has("axis") { s.attrs.int("axis") } else { 1 })
}

fn infer(s: &Sig) -> Result<Specs> {
    let dtype = wide(s.expect_float(0)?);
    let axis = axis_of(s)?;
    let channels = Shape::new(&[s.shape(0)[axis]]);
    for i in 1..5 {
        s.expect_shape(i, &channels)?;
        if s.dtype(i) != dtype {
            let name = s.op.input_name(i);
            return Err(s.fail(format!(
                "{name} is {}; with {} data {dtype} is allowed",
                s.dtype(i),
                s.dtype(0)
            )));
        }
    }
    let statistic = Spec::new(channels, dtype);
    Ok(smallvec![s.ins[0].clone(), statistic.clone(), statistic])
}

fn around(c: &Ctx, i: usize) -> (usize, usize, usize) {
    // The shape rule checked the axis.
    c.shape(i).around(c.shape(i).axis(c.attrs.int("axis")).unwrap_or(0))
}

fn forward<T: Float<R: Elem>>(c: &Ctx) {
    let (around, eps) = (around(c, 0), c.attrs.float("eps"));
    let (mean, rstd) = (c.y::<T::R>(1), c.y::<T::R>(2));
    if c.train && !c.attrs.bool("use_global_stats") {
        let mut var = vec![T::R::ZERO; mean.len()];
        kernels::batch_moments(c.x::<T>(0), around, mean, &mut var);
        kernels::inverse_std(&var, eps, rstd);
    } else {
        mean.copy_from_slice(c.x(3));
        kernels::inverse_std(c.x::<T::R>(4), eps, rstd);
    }
    let gamma = (!c.attrs.bool("fix_gamma")).then(|| c.x::<T::R>(1));
    kernels::batch_normalize(c.x::<T>(0), around, mean, rstd, gamma, Some(c.x::<T::R>(2)), c.y::<T>(0));
}

fn forward_on_gpu(c: &GpuCtx) -> Result<()> {
    let around = c.shape(0).around(c.shape(0).axis(c.attrs.int("axis"))?);
    let (eps, name, n) = (c.attrs.float("eps"), c.op.name, around.1);
    let (mean, rstd) = (c.y(1), c.y(2));
    if c.train && !c.attrs.bool("use_global_stats") {
        let how = (shaders::Deviation::Inverse, eps);
        shaders::launch_moments(c.device, &Rows::across(around), c.x(0), how, [mean, rstd], name)?;
    } else {
        copy::launch_cast(c.device, n, c.x(3), mean, name)?;
        channels::launch_inverse(c.device, n, c.x(4), eps, rstd, name)?;
    }
    let gamma = (!c.attrs.bool("fix_gamma")).then(|| c.x(1));
    let finish = c.finish(channels::CHANNEL_SLOTS, |other| channels::finds_along(around, other));
    channels::launch_channels(c.device, around, [c.x(0), mean, rstd, c.x(2)], gamma, finish, c.y(0), name)
}

/// With fixed statistics the layer is a formula of data and numbers per channel.
fn by_moving_statistics(b: &mut dyn Build, a: &Attrs, v: &[Value]) -> Result<Option<Values>> {
    if b.dtype(v[0]) == DType::F16 {
        return Ok(None);
    }
    let shape = b.shape(v[0]);
    let axis = shape.axis(a.int("axis"))?;
    let mut along = Shape::new(&vec![1; shape.ndim()]);
    along.set(axis, shape[axis]);
    let var = b.shift(v[4], a.float("eps"))?;
    let rstd = b.unary("rsqrt", var)?;
    let scale = if a.bool("fix_gamma") { rstd } else { b.mul(rstd, v[1])? };
    let (mean, scale, beta) = (b.reshape(v[3], &along)?, b.reshape(scale, &along)?, b.reshape(v[2], &along)?);
    let centered = b.sub(v[0], mean)?;
    let scaled = b.mul(centered, scale)?;
    Ok(Some(smallvec![b.add(scaled, beta)?, v[3], rstd]))
}

/// The statistics stand in outputs 1 and 2; the moving ones are handed on to be updated.
fn rule(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let fixed = !g.train || g.attrs.bool("use_global_stats");
    let mut attrs = vec![("fixed_stats", fixed.into())];
    attrs.extend(["axis", "eps", "momentum", "fix_gamma"].map(|name| (name, g.attrs.get(name).clone())));
    let inputs = [head, g.ins[0], g.ins[1], g.outs[1], g.outs[2], g.ins[3], g.ins[4]];
    let grads = b.op("_backward_BatchNorm", &inputs, &attrs)?;
    let gamma = (!g.attrs.bool("fix_gamma")).then_some(grads[1]);
    Ok(smallvec![Some(grads[0]), gamma, Some(grads[2]), None, None])
}

fn batch_norm_backward(r: &mut Registry) {
    r.op(
        "_backward_BatchNorm",
        "Gradients of BatchNorm; while training it also updates the moving statistics.",
    )
    .input("head", "the gradient of the output")
    .input("data", "the input")
    .input("gamma", "scale per channel")
    .input("mean", "the mean that was used")
    .input("rstd", "1 / sqrt(variance + eps) that was used")
    .input("moving_mean", "the moving mean")
    .input("moving_var", "the moving variance")
    .mutates(&[5, 6])
    .params([
        int("axis", "the axis of channels").or(1i64),
        float("eps", "added to the variance").or(1e-3),
        float("momentum", "what is kept in an update").or(0.9),
        flag("fix_gamma", "gamma acts as 1").or(true),
        flag("fixed_stats", "mean and rstd were constants").or(false),
    ])
    .hidden()
    .infer(|s| {
        s.expect_float(0)?;
        if s.ins[0] != s.ins[1] {
            return Err(s.fail("head must be like data"));
        }
        let channels =
            Spec::new(Shape::new(&[s.shape(1)[s.axis(1, s.attrs.int("axis"))?]]), wide(s.dtype(1)));
        if s.ins[2..].iter().any(|i| **i != channels) {
            return Err(s.fail(format!("statistics must be {} of shape {}", channels.dtype, channels.shape)));
        }
        Ok(smallvec![s.ins[1].clone(), channels.clone(), channels])
    })
    .kernel(|c| {
        dispatch_float!(c.dtype(0), T => {
                backward::<T>(c);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
    })
    .gpu(backward_on_gpu)
    .equivalent(backward_equivalent)
    .cost(|s, _| s.shape(0).size() as f64 * 1.5)
    .sample(
        &[draw(&[2, 3, 2]), draw(&[2, 3, 2]), draw(&[3]), draw(&[3]), draw(&[3]), draw(&[3]), draw(&[3])],
        &[("fixed_stats", true.into()), ("fix_gamma", false.into())],
    );
}

fn backward<T: Float<R: Elem>>(c: &Ctx) {
    let fixed = c.attrs.bool("fixed_stats");
    let (mean, rstd) = (c.x::<T::R>(3), c.x::<T::R>(4));
    let gamma = (!c.attrs.bool("fix_gamma")).then(|| c.x::<T::R>(2));
    let (dx, dgamma, dbeta) = (c.y::<T>(0), c.y::<T::R>(1), c.y::<T::R>(2));
    let (x, head) = (c.x::<T>(1), c.x::<T>(0));
    kernels::batch_grad(x, head, around(c, 1), mean, rstd, gamma, fixed, Some(dx), dgamma, dbeta);
    if !fixed && !x.is_empty() {
        update(mean, rstd, c.attrs, c.state::<T::R>(5), c.state::<T::R>(6));
    }
}

fn backward_on_gpu(c: &GpuCtx) -> Result<()> {
    let around = c.shape(1).around(c.shape(1).axis(c.attrs.int("axis"))?);
    let fixed = c.attrs.bool("fixed_stats");
    let gamma = (!c.attrs.bool("fix_gamma")).then(|| c.x(2));
    let ins = [c.x(1), c.x(0), c.x(3), c.x(4)];
    let outs = [c.y(0), c.y(1), c.y(2)];
    let moving = (!fixed && c.shape(1).size() > 0).then(|| moving_on_gpu(c, 3));
    channels::launch_channels_grad(c.device, around, ins, gamma, fixed, moving, outs, c.op.name)
}

/// Inputs from `first` on: the batch's mean and 1 / deviation, and the moving statistics.
fn moving_on_gpu<'a>(c: &GpuCtx<'a>, first: usize) -> Moving<'a> {
    let [mean, rstd, moving_mean, moving_var] = [0, 1, 2, 3].map(|i| c.x(first + i));
    let (momentum, eps) = (c.attrs.float("momentum"), c.attrs.float("eps"));
    Moving { mean, rstd, moving_mean, moving_var, momentum, eps }
}

/// moving = moving * momentum + batch * (1 - momentum), with the batch's variance not corrected for its size.
fn update<R: Real>(mean: &[R], rstd: &[R], a: &Attrs, moving_mean: &mut [R], moving_var: &mut [R]) {
    let (keep, eps) = (a.float("momentum"), a.float("eps"));
    for i in 0..mean.len() {
        let r = rstd[i].wide();
        let var = (1.0 / (r * r) - eps).max(0.0);
        moving_mean[i] = R::of(moving_mean[i].wide() * keep + mean[i].wide() * (1.0 - keep));
        moving_var[i] = R::of(moving_var[i].wide() * keep + var * (1.0 - keep));
    }
}

fn batch_norm_update(r: &mut Registry) {
    r.op("_batch_norm_update", "Updates moving statistics; gives the mean.")
        .input("mean", "the batch's mean")
        .input("rstd", "the batch's 1 / sqrt(variance + eps)")
        .input("moving_mean", "the moving mean")
        .input("moving_var", "the moving variance")
        .mutates(&[2, 3])
        .params([
            float("eps", "added to the variance").or(1e-3),
            float("momentum", "what is kept in an update").or(0.9),
        ])
        .hidden()
        .infer(|s| {
            s.elementwise()?;
            s.expect_float(0)?;
            s.same(0)
        })
        .kernel(|c| match c.dtype(0) {
            DType::F32 => update_states::<f32>(c),
            DType::F64 => update_states::<f64>(c),
            other => c.bad_dtype(other),
        })
        .gpu(|c| {
            copy::launch_cast(c.device, c.shape(0).size(), c.x(0), c.y(0), c.op.name)?;
            channels::launch_moving(c.device, c.shape(0).size(), &moving_on_gpu(c, 0), c.op.name)
        })
        .zero_grad()
        .sample(&[draw(&[3]), draw(&[3]).within(0.5, 2.0), draw(&[3]), draw(&[3]).within(0.5, 2.0)], &[]);
}

fn update_states<R: Real + Elem>(c: &Ctx) -> Result<()> {
    c.y::<R>(0).copy_from_slice(c.x(0));
    update(c.x::<R>(0), c.x::<R>(1), c.attrs, c.state::<R>(2), c.state::<R>(3));
    Ok(())
}

fn backward_equivalent(b: &mut dyn Build, a: &Attrs, v: &[Value]) -> Result<Values> {
    let (head, x) = (v[0], v[1]);
    let shape = b.shape(x).clone();
    let axis = shape.axis(a.int("axis"))?;
    let mut channels = Shape::new(&vec![1; shape.ndim()]);
    channels.set(axis, shape[axis]);
    let axes: Vec<i64> = (0..shape.ndim()).filter(|i| *i != axis).map(|i| i as i64).collect();
    let fixed = a.bool("fixed_stats");
    if !fixed {
        let rates = ["eps", "momentum"].map(|name| (name, a.get(name).clone()));
        b.op("_batch_norm_update", &[v[3], v[4], v[5], v[6]], &rates)?;
    }
    let spread = |b: &mut dyn Build, v: Value| {
        let v = b.reshape(v, &channels)?;
        let to = b.dtype(x);
        b.cast(v, to)
    };
    let gamma = if a.bool("fix_gamma") { None } else { Some(spread(b, v[2])?) };
    let stats = if fixed { Some((spread(b, v[3])?, spread(b, v[4])?)) } else { None };
    let parts = norm_gradient(b, head, x, gamma, &axes, a.float("eps"), stats)?;
    let (flat, dtype) = (Shape::new(&[shape[axis]]), wide(b.dtype(x)));
    let mut out: Values = smallvec![parts.data];
    for full in [parts.gamma, head] {
        let sum = b.sum_to(full, &channels)?;
        let sum = b.reshape(sum, &flat)?;
        out.push(b.cast(sum, dtype)?);
    }
    Ok(out)
}

/// What [`norm_gradient`] gives; the shapes are those of the data.
struct NormGradient {
    data: Value,
    /// head * normalized data, whose sums are the gradient of gamma.
    gamma: Value,
}

/// The gradient of (x - mean) / sqrt(variance + eps) * gamma out of differentiable operators, with the mean and
/// variance over `axes`; or with constants `(mean, 1 / std)`.
fn norm_gradient(
    b: &mut dyn Build,
    head: Value,
    x: Value,
    gamma: Option<Value>,
    axes: &[i64],
    eps: f64,
    stats: Option<(Value, Value)>,
) -> Result<NormGradient> {
    let count: usize = axes.iter().map(|i| b.shape(x)[*i as usize]).product();
    let share = 1.0 / count.max(1) as f64;
    let average = |b: &mut dyn Build, v: Value| {
        let sum = b.sum(v, axes, true)?;
        b.scale(sum, share)
    };
    let (centred, rstd) = match stats {
        Some((mean, rstd)) => (b.sub(x, mean)?, rstd),
        None => {
            let mean = average(b, x)?;
            let centred = b.sub(x, mean)?;
            let square = b.unary("square", centred)?;
            let var = average(b, square)?;
            let var = b.shift(var, eps)?;
            (centred, b.unary("rsqrt", var)?)
        }
    };
    let normal = b.mul(centred, rstd)?;
    let slope = match gamma {
        Some(gamma) => b.mul(head, gamma)?,
        None => head,
    };
    let data = if stats.is_some() {
        b.mul(slope, rstd)?
    } else {
        let level = average(b, slope)?;
        let product = b.mul(slope, normal)?;
        let tilt = average(b, product)?;
        let along = b.mul(normal, tilt)?;
        let rest = b.sub(slope, level)?;
        let rest = b.sub(rest, along)?;
        b.mul(rest, rstd)?
    };
    Ok(NormGradient { data, gamma: b.mul(head, normal)? })
}

/// Layers that are BatchNorm and something more.
fn variants(r: &mut Registry) {
    let op = r.op("_contrib_BatchNormWithReLU", "max(BatchNorm(data), 0).");
    inputs(op)
        .params(common(1e-3f32 as f64))
        .params(rest())
        .visible(visible)
        .file_outputs(|_| 4)
        .states(&[3, 4])
        .infer(infer)
        .complete(complete)
        .compose(|b, a, v| {
            let mut outs = batch(b, a, v, a.get("axis").clone())?;
            outs[0] = b.unary("relu", outs[0])?;
            Ok(outs)
        });
    samples(op, &[]);
    let op = r.op("_contrib_SyncBatchNorm", "BatchNorm; on one device there is nothing to synchronize.");
    inputs(op)
        .params(common(1e-3f32 as f64))
        .params([
            int("ndev", "how many devices share the statistics; 1 is supported").or(1i64).at_least(1.0),
            string("key", "the name of the layer among those that synchronize"),
        ])
        .visible(visible)
        .file_outputs(|_| 3)
        .states(&[3, 4])
        .infer(|s| {
            one_device(s.attrs)?;
            infer(s)
        })
        .complete(complete)
        .compose(|b, a, v| {
            one_device(a)?;
            let mut outs = batch(b, a, v, 1i64.into())?;
            if a.bool("output_mean_var") {
                // This layer gives the variance where BatchNorm gives 1 / sqrt(variance + eps).
                let square = b.unary("square", outs[2])?;
                let total = b.unary("reciprocal", square)?;
                outs[2] = b.shift(total, -a.float("eps"))?;
            }
            Ok(outs)
        });
    samples(op, &[("key", "bn".into())]);
    let op = r.op("BatchNorm_v1", "The older name of BatchNorm with channels on axis 1.");
    inputs(op)
        .params(common(1e-3f32 as f64))
        .visible(visible)
        .file_outputs(|_| 3)
        .states(&[3, 4])
        .infer(infer)
        .complete(complete)
        .compose(|b, a, v| batch(b, a, v, 1i64.into()));
    samples(op, &[]);
}

fn one_device(a: &Attrs) -> Result<()> {
    match a.int("ndev") {
        1 => Ok(()),
        n => Err(Error::not_implemented(format!(
            "_contrib_SyncBatchNorm: argument ndev = {n}; 1 is supported"
        ))),
    }
}

fn batch(b: &mut dyn Build, a: &Attrs, v: &[Value], axis: AttrValue) -> Result<Values> {
    let mut attrs = vec![("axis", axis)];
    let same = ["eps", "momentum", "fix_gamma", "use_global_stats", "output_mean_var"];
    attrs.extend(same.map(|name| (name, a.get(name).clone())));
    b.op("BatchNorm", v, &attrs)
}
