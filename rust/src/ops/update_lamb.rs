//! LAMB's two phases (You et al., "Large batch optimization for deep learning", 2020) as operators of one weight.
//!
//! Phase 1 gives the direction and updates the moments; the program takes the norms; phase 2 makes the step. The form
//! for many weights, which does all of it in one call, is in `update_multi`.

use super::registry::Registry;
use super::update::{
    MEAN, VAR, apart, check, clip, common, decays, expect_dtype, first, first_number, limit, lr, moments,
    op_inputs, rescale, step_count,
};
use super::{Ctx, GpuCtx, Sig, Specs, draw, flag, float};
use crate::shaders::copy::launch_cast;
use crate::shaders::elem::Span;
use crate::shaders::map::launch_map;
use crate::shaders::update as steps;
use mxrs_base::{DType, Result, dispatch_float, f16};
use mxrs_formula::Formula;
use mxrs_kernels::update::{self, Arrays, Common, Moments};
use smallvec::smallvec;
use std::sync::LazyLock;

pub fn register(r: &mut Registry) {
    phase1(r);
    phase2(r);
}

fn phase1(r: &mut Registry) {
    for master in [false, true] {
        let (name, doc) = match master {
            false => (
                "lamb_update_phase1",
                "LAMB's direction (You et al. 2020): m' / (sqrt(v') + epsilon) + wd w, with moments of \
                 clip(rescale_grad g), bias corrected where asked for.",
            ),
            true => (
                "mp_lamb_update_phase1",
                "lamb_update_phase1 by a float32 master copy; the result is float32.",
            ),
        };
        let op = r.op(name, doc).input("weight", "the weight").input("grad", "its gradient");
        op.input(MEAN.0, MEAN.1).input(VAR.0, VAR.1).mutates(&[2, 3]);
        if master {
            op.input("weight32", "the weight in float32");
        }
        op.params(decays(0.9, 1e-6))
            .params([
                step_count(),
                flag("bias_correction", "correct the moments for their start at 0").or(true),
            ])
            .params([float("wd", "weight decay"), rescale(), clip()])
            .infer(move |s| {
                check(s, 0, 2, master)?;
                s.one(s.shape(0).clone(), if master { DType::F32 } else { s.dtype(0) })
            })
            .kernel(move |c| lamb_direction(c, master))
            .gpu(move |c| direction_on_gpu(c, master));
        let mut inputs = vec![draw(&[2, 3]); 2];
        inputs.extend(vec![draw(&[2, 3]).within(0.5, 1.0); op_inputs(master) - 2]);
        op.sample(&inputs, &[("t", 2i64.into()), ("wd", 0.1.into())]);
    }
}

fn phase2(r: &mut Registry) {
    for master in [false, true] {
        let (name, doc) = match master {
            false => (
                "lamb_update_phase2",
                "LAMB's step: w - lr r1 / r2 g, with r1 (the norm of the weight) kept within the bounds, and factor 1 \
                 where a norm is 0.",
            ),
            true => (
                "mp_lamb_update_phase2",
                "lamb_update_phase2 of a float32 master copy; the weight is its rounding.",
            ),
        };
        let op = r.op(name, doc).input("weight", "the weight, which becomes output 0").updates(&[(0, 0)]);
        op.input("g", "the direction of phase 1")
            .input("r1", "the norm of the weight, one number")
            .input("r2", "the norm of the direction, one number")
            .mutates(if master { &[4] } else { &[] })
            .params([
                lr(),
                float("lower_bound", "least norm of the weight; negative is none").or(-1.0),
                float("upper_bound", "largest norm of the weight; negative is none").or(-1.0),
            ])
            .infer(move |s| lamb_step_shapes(s, master))
            .kernel(move |c| lamb_step(c, master))
            .gpu(move |c| step_on_gpu(c, master));
        let mut inputs =
            vec![draw(&[2, 3]), draw(&[2, 3]), draw(&[1]).within(0.5, 1.0), draw(&[1]).within(0.5, 1.0)];
        if master {
            op.input("weight32", "the weight in float32, updated in place");
            inputs.push(draw(&[2, 3]));
        }
        op.sample(&inputs, &[("lr", 0.1.into())]);
    }
}

fn lamb_direction(c: &Ctx, master: bool) -> Result<()> {
    apart(c, first)?;
    let correct = c.attrs.bool("bias_correction");
    let (p, decays) = (common(c.attrs), moments(c.attrs));
    let t = correct.then(|| c.attrs.int("t") as i32);
    if master {
        let direction = c.y::<f32>(0);
        direction.copy_from_slice(c.x::<f32>(4));
        return with_f32_grad(c, 1, |grad| {
            let states = [c.state::<f32>(2), c.state(3)];
            update::lamb_phase1(Arrays { weight: direction, grad, states, master: None }, &p, &decays, t);
        });
    }
    let dtype = c.dtype(0);
    dispatch_float!(dtype, S => {
        let direction = c.y::<S>(0);
        direction.copy_from_slice(c.x::<S>(0));
        let (grad, states) = (c.x::<S>(1), [c.state::<S>(2), c.state(3)]);
        update::lamb_phase1(Arrays { weight: direction, grad, states, master: None }, &p, &decays, t);
    }, else return c.bad_dtype(dtype));
    Ok(())
}

/// Calls `f` with the gradient at input `i` in float32, which for float16 is a copy.
pub(super) fn with_f32_grad(c: &Ctx, i: usize, f: impl FnOnce(&[f32])) -> Result<()> {
    match c.dtype(i) {
        DType::F32 => f(c.x::<f32>(i)),
        DType::F16 => {
            let half = c.x::<f16>(i);
            let mut wide = vec![0f32; half.len()];
            mxrs_simd::cast(half, &mut wide);
            f(&wide);
        }
        dtype => return c.bad_dtype(dtype),
    }
    Ok(())
}

fn lamb_step_shapes(s: &Sig, master: bool) -> Result<Specs> {
    let dtype = s.expect_float(0)?;
    if master && dtype == DType::F64 {
        return Err(s.fail("a float64 weight has no master copy; float16 and float32 are allowed"));
    }
    s.expect_shape(1, s.shape(0))?;
    expect_dtype(s, 1, if master { DType::F32 } else { dtype })?;
    for i in [2, 3] {
        s.expect_float(i)?;
        if s.shape(i).size() != 1 {
            return Err(s.fail(format!(
                "{} has shape {}; one number is expected",
                s.op.input_name(i),
                s.shape(i)
            )));
        }
    }
    if master {
        s.expect_shape(4, s.shape(0))?;
        expect_dtype(s, 4, DType::F32)?;
    }
    s.same(0)
}

fn lamb_step(c: &Ctx, master: bool) -> Result<()> {
    apart(c, first)?;
    let (a, lr) = (c.attrs, c.attrs.float("lr"));
    let (r1, r2) = (first_number(c, 2)?, first_number(c, 3)?);
    let ratio = update::lamb_ratio(r1, r2, a.float("lower_bound"), a.float("upper_bound"));
    if master {
        let weight32 = c.state::<f32>(4);
        update::lamb_phase2(
            Arrays { weight: &mut *weight32, grad: c.x::<f32>(1), states: [], master: None },
            lr,
            ratio,
        );
        return round_into(c, 0, weight32);
    }
    let dtype = c.dtype(0);
    dispatch_float!(dtype, S => update::lamb_phase2(
        Arrays { weight: c.y::<S>(0), grad: c.x::<S>(1), states: [], master: None }, lr, ratio,
    ), else return c.bad_dtype(dtype));
    Ok(())
}

/// Writes `x` into output `out`, which is float32 or float16.
pub(super) fn round_into(c: &Ctx, out: usize, x: &[f32]) -> Result<()> {
    match c.out_dtype(out) {
        DType::F32 => c.y::<f32>(out).copy_from_slice(x),
        DType::F16 => mxrs_simd::cast(x, c.y::<f16>(out)),
        dtype => return c.bad_dtype(dtype),
    }
    Ok(())
}

fn direction_on_gpu(c: &GpuCtx, master: bool) -> Result<()> {
    let t = c.attrs.bool("bias_correction").then(|| c.attrs.int("t") as i32);
    let arrays = [c.x(if master { 4 } else { 0 }), c.x(1), c.x(2), c.x(3), c.y(0)];
    launch_direction(c, c.out_shape(0).size(), (&common(c.attrs), &moments(c.attrs), t), arrays)
}

/// Phase 1 of a weight of `n` elements in step `t`, where the moments are corrected: (weight, gradient, mean, variance,
/// direction).
pub(super) fn launch_direction(
    c: &GpuCtx,
    n: usize,
    (p, m, t): (&Common, &Moments, Option<i32>),
    [weight, grad, mean, var, direction]: [Span; 5],
) -> Result<()> {
    launch_cast(c.device, n, weight, direction, c.op.name)?;
    let unbias = |beta: f64| t.map_or(1.0, |t| 1.0 - beta.powi(t));
    let numbers = [m.beta1, m.beta2, m.epsilon, unbias(m.beta1), unbias(m.beta2)];
    let rates = steps::Rates { lr: p.lr, wd: p.wd, rescale: p.rescale, clip: limit(p.clip) };
    let arrays = steps::Arrays {
        n,
        weight: direction,
        grad,
        states: smallvec![mean, var],
        master: None,
        rates: smallvec![],
    };
    steps::launch_update(c.device, &steps::LAMB, rates, &numbers, &arrays, c.op.name)
}

/// The new weight of (weight, direction, norm of the weight, norm of the direction).
static STEP: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(4, &["lr", "lower", "upper"], |a| {
        let zero = || a.c(0.0);
        let (lower, upper) = (a.param("lower"), a.param("upper"));
        let norm = lower.gt(zero()).select(a.x(2).max(lower), a.x(2));
        let norm = upper.gt(zero()).select(norm.min(upper), norm);
        let both = norm.ne(zero()).and(a.x(3).ne(zero()));
        let ratio = both.select(norm / a.x(3), a.c(1.0));
        a.x(0) - a.param("lr") * ratio * a.x(1)
    })
});

fn step_on_gpu(c: &GpuCtx, master: bool) -> Result<()> {
    let n = c.out_shape(0).size();
    let weight = if master { c.x(4) } else { c.y(0) };
    launch_step(
        c,
        n,
        ["lr", "lower_bound", "upper_bound"].map(|name| c.attrs.float(name)),
        [weight, c.x(1), c.x(2), c.x(3)],
    )?;
    match master {
        true => launch_cast(c.device, n, c.x(4), c.y(0), c.op.name),
        false => Ok(()),
    }
}

/// Phase 2 of a weight of `n` elements, by learning rate and bounds: (weight, direction, their norms).
pub(super) fn launch_step(
    c: &GpuCtx,
    n: usize,
    numbers: [f64; 3],
    [weight, direction, norm, other]: [Span; 4],
) -> Result<()> {
    let (along, one) = ([1], [0]);
    let to = weight.strided(&along);
    let ins = [to, direction.strided(&along), norm.strided(&one), other.strided(&one)];
    launch_map(c.device, &STEP, &numbers, &[n], &ins, to, c.op.name)
}
