//! Normalization of the channels of a batch: a map with numbers per channel, its gradient, and the moving statistics.

use crate::shaders::elem::Span;
use crate::shaders::epilogue::{Finish, Other};
use crate::shaders::map::launch_map;
use crate::shaders::norm::{Deviation, Moving, Of, Sums, sums};
use crate::shaders::rows::{AXIS, Around, Rows, place, whole};
use mxrs_base::{DType, Error, Result};
use mxrs_formula::{Formula, Part};
use mxrs_gpu::Device;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static INVERSE: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(1, &["eps"], |a| 1.0 / (a.x(0) + a.param("eps")).sqrt()));
/// data, mean, 1 / deviation, beta, gamma.
static CHANNEL: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(4, &[], |a| (a.x(0) - a.x(1)) * a.x(2) + a.x(3)));
static SCALED_CHANNEL: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(5, &[], |a| (a.x(0) - a.x(1)) * (a.x(2) * a.x(4)) + a.x(3)));

/// 1 / sqrt(variance + eps).
pub fn launch_inverse(
    device: &Device,
    n: usize,
    var: Span,
    eps: f64,
    y: Span,
    label: &'static str,
) -> Result<()> {
    launch_map(device, &INVERSE, &[eps], &[n], &[var.strided(&[1])], y.strided(&[1]), label)
}

/// Buffers that [`launch_channels`] binds, before those of what follows.
pub const CHANNEL_SLOTS: usize = 6;

/// Whether [`launch_channels`] finds the elements of an array.
pub fn finds_along(around: Around, other: &Other) -> bool {
    other.steps(&[around.0, around.1, around.2]).is_some()
}

/// (x - mean) * rstd * gamma + beta, these one number for each index of the middle axis; without `gamma` it is 1.
/// `finish` is applied to the result.
pub fn launch_channels(
    device: &Device,
    around: Around,
    [x, mean, rstd, beta]: [Span; 4],
    gamma: Option<Span>,
    finish: Option<Finish>,
    y: Span,
    label: &'static str,
) -> Result<()> {
    let (all, dims) = (whole(around), [around.0, around.1, around.2]);
    let base: &'static Formula = if gamma.is_some() { &SCALED_CHANNEL } else { &CHANNEL };
    let others = finish.map_or(&[][..], |f| f.others);
    let steps: Option<SmallVec<[_; 3]>> = others.iter().map(|o| o.steps(&dims)).collect();
    let Some(steps) = steps else {
        return Err(Error::op(format!("{label}: internal error: a fused input does not follow the axes")));
    };
    let mut ins: SmallVec<[_; 6]> = smallvec![place(x, &all)];
    ins.extend([mean, rstd, beta].iter().chain(&gamma).map(|s| place(*s, &AXIS)));
    let Some(finish) = finish else {
        return launch_map(device, base, &[], &dims, &ins, place(y, &all), label);
    };
    ins.extend(others.iter().zip(&steps).map(|(o, steps)| o.span.strided(steps)));
    launch_map(device, &behind(base, &finish), finish.params, &dims, &ins, place(y, &all), label)
}

/// `finish` of what `base`, which has no parameters, computes: base's inputs, then the others. Made once.
fn behind(base: &'static Formula, finish: &Finish) -> Arc<Formula> {
    type Known = HashMap<(u64, u64, usize), Arc<Formula>>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let compose = || {
        let inputs: SmallVec<[usize; 6]> = (0..base.arity()).collect();
        let mut parts: Vec<Part> = (0..finish.others.len()).map(|k| Part::Input(base.arity() + k)).collect();
        parts.insert(finish.at, Part::Formula(base, &inputs));
        Arc::new(finish.formula.compose(base.arity() + finish.others.len(), &parts))
    };
    let key = (base.fingerprint(), finish.formula.fingerprint(), finish.at);
    KNOWN.lock().entry(key).or_insert_with(compose).clone()
}

/// head, 1 / deviation, data, mean, dbeta, dgamma, gamma.
fn slope(a: &mxrs_formula::Args) -> mxrs_formula::E {
    let normal = (a.x(2) - a.x(3)) * a.x(1);
    (a.x(0) - (a.x(4) + normal * a.x(5)) * a.param("share")) * a.x(1)
}
static SLOPE: LazyLock<Formula> = LazyLock::new(|| Formula::build(6, &["share"], slope));
static SCALED_SLOPE: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(7, &["share"], |a| slope(a) * a.x(6)));
static FIXED_SLOPE: LazyLock<Formula> = LazyLock::new(|| Formula::build(2, &[], |a| a.x(0) * a.x(1)));
static SCALED_FIXED_SLOPE: LazyLock<Formula> =
    LazyLock::new(|| Formula::build(3, &[], |a| a.x(0) * a.x(1) * a.x(2)));

/// The gradients `[dx, dgamma, dbeta]` of [`launch_channels`], whose mean and rstd came from `x` unless `fixed`. On the
/// way the channels' moving statistics change, if there are any.
#[allow(clippy::too_many_arguments)] // a launch is what its caller has checked, passed on
pub fn launch_channels_grad(
    device: &Device,
    around: Around,
    [x, head, mean, rstd]: [Span; 4],
    gamma: Option<Span>,
    fixed: bool,
    moving: Option<Moving>,
    [dx, dgamma, dbeta]: [Span; 3],
    label: &'static str,
) -> Result<()> {
    check_moving(moving.as_ref(), label)?;
    let rows = Rows::across(around);
    let what = Sums::Slopes { x, head, mean, scale: rstd, deviation: Deviation::Inverse, of: Of::Rows };
    sums(device, &rows, what, [dbeta, dgamma], moving, label)?;
    let (all, dims) = (whole(around), [around.0, around.1, around.2]);
    let mut ins: SmallVec<[_; 7]> = smallvec![place(head, &all), place(rstd, &AXIS)];
    let share = [1.0 / rows.extent().max(1) as f64];
    let (formula, params): (_, &[f64]) = match (fixed, gamma) {
        (true, None) => (&FIXED_SLOPE, &[]),
        (true, Some(_)) => (&SCALED_FIXED_SLOPE, &[]),
        (false, None) => (&SLOPE, &share),
        (false, Some(_)) => (&SCALED_SLOPE, &share),
    };
    if !fixed {
        ins.push(place(x, &all));
        ins.extend([mean, dbeta, dgamma].map(|s| place(s, &AXIS)));
    }
    ins.extend(gamma.map(|s| place(s, &AXIS)));
    launch_map(device, formula, params, &dims, &ins, place(dx, &all), label)
}

/// Moves statistics alone: one number for each of `n` channels.
pub fn launch_moving(device: &Device, n: usize, moving: &Moving, label: &'static str) -> Result<()> {
    check_moving(Some(moving), label)?;
    let m = *moving;
    let [keep, take] = [m.momentum, 1.0 - m.momentum];
    let line: &[isize] = &[1];
    for (formula, params, of, batch) in [
        (&MOVE_MEAN, &[keep, take][..], m.moving_mean, m.mean),
        (&MOVE_VAR, &[keep, take, m.eps][..], m.moving_var, m.rstd),
    ] {
        launch_map(
            device,
            formula,
            params,
            &[n],
            &[of.strided(line), batch.strided(line)],
            of.strided(line),
            label,
        )?;
    }
    Ok(())
}

static MOVE_MEAN: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(2, &["keep", "take"], |a| a.x(0) * a.param("keep") + a.x(1) * a.param("take"))
});
static MOVE_VAR: LazyLock<Formula> = LazyLock::new(|| {
    Formula::build(2, &["keep", "take", "eps"], |a| {
        let var = ((a.x(1) * a.x(1)).recip() - a.param("eps")).max(0.0);
        a.x(0) * a.param("keep") + var * a.param("take")
    })
});

fn check_moving(moving: Option<&Moving>, label: &str) -> Result<()> {
    let Some(m) = moving else { return Ok(()) };
    match [m.mean, m.rstd, m.moving_mean, m.moving_var].iter().find(|s| s.dtype != DType::F32) {
        Some(s) => Err(Error::typ(format!("{label}: statistics are float32 on a GPU, given {}", s.dtype))),
        None => Ok(()),
    }
}
