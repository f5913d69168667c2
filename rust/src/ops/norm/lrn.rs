//! Local response normalization: each element scaled by its neighbours among the channels.

use super::wide;
use crate::ops::registry::Registry;
use crate::ops::{Attrs, Build, Ctx, GpuCtx, Param, Spec, Value, Values, draw, float, int, one};
use crate::shaders::{Span, map::launch_map, pool::launch_pool};
use mxrs_base::{DType, Elem, Result, Shape, dispatch_float};
use mxrs_formula::Formula;
use mxrs_kernels::norm_rows::{self as kernels, Lrn};
use mxrs_kernels::pool::{Convention, PoolGeom, PoolKind};
use mxrs_kernels::real::Float;
use smallvec::smallvec;
use std::sync::LazyLock;

fn lrn_params() -> [Param; 4] {
    [
        float("alpha", "multiplies the mean square").or(1e-4f32 as f64),
        float("beta", "the power").or(0.75),
        float("knorm", "added to it").or(2.0),
        int("nsize", "channels of the window").at_least(1.0).at_most(1e9),
    ]
}

fn lrn_of(c: &Ctx) -> Lrn {
    let a = c.attrs;
    let (alpha, beta, knorm) = (a.float("alpha"), a.float("beta"), a.float("knorm"));
    Lrn { alpha, beta, knorm, nsize: a.size("nsize") }
}

pub fn register(r: &mut Registry) {
    r.op(
        "LRN",
        "data * (knorm + alpha * mean square of neighbouring channels)^-beta (Krizhevsky and others, 2012).",
    )
    .keeps_shape()
    .input("data", "values, shape (batch, channels, height, width)")
    .params(lrn_params())
    .visible(|_| 1)
    .file_outputs(|_| 2)
    .output_names(&["output"])
    .infer(|s| {
        s.expect_float(0)?;
        s.expect_ndim(0, 4..=4)?;
        let scale = Spec::new(s.shape(0).clone(), wide(s.dtype(0)));
        Ok(smallvec![s.ins[0].clone(), scale])
    })
    .kernel(|c| {
        dispatch_float!(c.dtype(0), T => {
                lrn_forward::<T>(c);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
    })
    .gpu(forward_on_gpu)
    .keeps(&[0], &[0, 1])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let attrs = ["alpha", "beta", "knorm", "nsize"].map(|name| (name, g.attrs.get(name).clone()));
        let grad = b.op1("_backward_LRN", &[head, g.ins[0], g.outs[0], g.outs[1]], &attrs)?;
        g.first(grad)
    })
    .cost(|s, _| s.shape(0).size() as f64 * 8.0)
    .sample(&[draw(&[2, 4, 1, 2])], &[("nsize", 3i64.into()), ("alpha", 0.5.into())]);
    r.op("_backward_LRN", "The gradient of LRN.")
        .input("head", "the gradient of the output")
        .input("data", "the input")
        .input("out", "the output")
        .input("scale", "the base of the power")
        .params(lrn_params())
        .hidden()
        .infer(|s| {
            s.expect_float(0)?;
            s.expect_ndim(0, 4..=4)?;
            let scale = Spec::new(s.shape(0).clone(), wide(s.dtype(0)));
            if s.ins[1] != s.ins[0] || s.ins[2] != s.ins[0] || *s.ins[3] != scale {
                return Err(s.fail("the inputs do not belong together"));
            }
            s.same(0)
        })
        .kernel(|c| {
            dispatch_float!(c.dtype(0), T => {
                lrn_backward::<T>(c);
                Ok(())
            }, else c.bad_dtype(c.dtype(0)))
        })
        .gpu(backward_on_gpu)
        .equivalent(lrn_gradient)
        .cost(|s, _| s.shape(0).size() as f64 * 8.0)
        .sample(
            &[
                draw(&[2, 4, 1, 2]),
                draw(&[2, 4, 1, 2]),
                draw(&[2, 4, 1, 2]),
                draw(&[2, 4, 1, 2]).within(1.0, 2.0),
            ],
            &[("nsize", 3i64.into())],
        );
}

/// With s the base of the power: head s^-beta - 2 alpha beta / nsize data (sum of head data s^(-beta - 1) over the
/// window).
fn lrn_gradient(b: &mut dyn Build, a: &Attrs, v: &[Value]) -> Result<Values> {
    let (head, x) = (v[0], v[1]);
    let (factor, beta) = (a.float("alpha") / a.int("nsize") as f64, a.float("beta"));
    if b.shape(x).size() == 0 {
        return Ok(one(b.zeros_like(x)?));
    }
    let square = b.unary("square", x)?;
    let total = window_sum(b, square, a.size("nsize"))?;
    let scaled = b.scale(total, factor)?;
    let base = b.shift(scaled, a.float("knorm"))?;
    let power = b.op1("_power_scalar", &[base], &[("scalar", (-beta).into())])?;
    let direct = b.mul(head, power)?;
    let share = b.mul(direct, x)?;
    let share = b.div(share, base)?;
    let around = window_sum(b, share, a.size("nsize"))?;
    let around = b.mul(x, around)?;
    let around = b.scale(around, 2.0 * factor * beta)?;
    Ok(one(b.sub(direct, around)?))
}

/// The sum over the window of channels around each: a pooling of the channels as rows of an image.
fn window_sum(b: &mut dyn Build, x: Value, nsize: usize) -> Result<Value> {
    let shape = b.shape(x).clone();
    let half = (nsize.saturating_sub(1) / 2).min(shape[1]) as i64;
    let image = b.reshape(x, &Shape::new(&[shape[0], 1, shape[1], shape[2] * shape[3]]))?;
    let sum = b.op1(
        "Pooling",
        &[image],
        &[("kernel", [2 * half + 1, 1].into()), ("pad", [half, 0].into()), ("pool_type", "sum".into())],
    )?;
    b.reshape(sum, &shape)
}

fn lrn_forward<T: Float<R: Elem>>(c: &Ctx) {
    kernels::lrn(c.x::<T>(0), c.shape(0).around(1), &lrn_of(c), c.y::<T>(0), c.y::<T::R>(1));
}

fn lrn_backward<T: Float<R: Elem>>(c: &Ctx) {
    let (x, y, scale, head) = (c.x::<T>(1), c.x::<T>(2), c.x::<T::R>(3), c.x::<T>(0));
    kernels::lrn_grad(x, y, scale, head, c.shape(0).around(1), &lrn_of(c), c.y::<T>(0));
}

/// data, head, base of the power: what the gradient sums over the window.
static SHARE: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(3, &["beta"], |a| a.x(0) * a.x(1) * a.x(2).pow(-a.param("beta")) / a.x(2))
});
static SQUARE: LazyLock<Formula> = LazyLock::new(|| Formula::build(1, &[], |a| a.x(0).square()));
static BASE: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(1, &["factor", "knorm"], |a| a.x(0) * a.param("factor") + a.param("knorm"))
});
static SCALED: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(2, &["beta"], |a| a.x(0) * a.x(1).pow(-a.param("beta"))));
/// head, base of the power, data, sum over the window.
static SLOPE: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(4, &["beta", "twice"], |a| {
        a.x(0) * a.x(1).pow(-a.param("beta")) - a.x(2) * a.x(3) * a.param("twice")
    })
});

/// The channels as places of a picture with the positions side by side: a window over them is a pooling.
fn windows(shape: &Shape, nsize: usize) -> Result<PoolGeom> {
    let (batch, channels, plane) = shape.around(1);
    let half = (nsize.saturating_sub(1) / 2).min(channels);
    PoolGeom::new((batch, plane), &[channels], (&[2 * half + 1], &[1], &[half]), Convention::Valid)
}

/// A formula over arrays that lie alike.
fn alike(c: &GpuCtx, formula: &Formula, params: &[f64], ins: &[Span], out: Span) -> Result<()> {
    let ins: Vec<_> = ins.iter().map(|s| s.strided(&[1])).collect();
    launch_map(c.device, formula, params, &[c.shape(0).size()], &ins, out.strided(&[1]), c.op.name)
}

fn forward_on_gpu(c: &GpuCtx) -> Result<()> {
    let (a, n) = (c.attrs, c.shape(0).size());
    let (nsize, beta) = (a.size("nsize"), a.float("beta"));
    if n == 0 {
        return Ok(());
    }
    let squares = c.device.alloc(4 * n as u64)?;
    let (squares, base) = (Span::new(&squares, DType::F32), c.y(1));
    alike(c, &SQUARE, &[], &[c.x(0)], squares)?;
    launch_pool(c.device, &windows(c.shape(0), nsize)?, PoolKind::Sum, squares, base, c.op.name)?;
    alike(c, &BASE, &[a.float("alpha") / nsize as f64, a.float("knorm")], &[base], base)?;
    alike(c, &SCALED, &[beta], &[c.x(0), base], c.y(0))
}

fn backward_on_gpu(c: &GpuCtx) -> Result<()> {
    let (a, n) = (c.attrs, c.shape(0).size());
    let (nsize, beta) = (a.size("nsize"), a.float("beta"));
    if n == 0 {
        return Ok(());
    }
    let (shares, sums) = (c.device.alloc(4 * n as u64)?, c.device.alloc(4 * n as u64)?);
    let (shares, sums) = (Span::new(&shares, DType::F32), Span::new(&sums, DType::F32));
    let (head, x, base) = (c.x(0), c.x(1), c.x(3));
    alike(c, &SHARE, &[beta], &[x, head, base], shares)?;
    launch_pool(c.device, &windows(c.shape(0), nsize)?, PoolKind::Sum, shares, sums, c.op.name)?;
    let twice = 2.0 * a.float("alpha") / nsize as f64 * beta;
    alike(c, &SLOPE, &[beta, twice], &[head, base, x, sums], c.y(0))
}
