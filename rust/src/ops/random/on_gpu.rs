//! Fills with random numbers on GPUs: the distributions that need no rejection, from the same streams as on the host.

use super::super::GpuCtx;
use super::{Distribution, Kind};
use crate::shaders::map::launch_map;
use crate::shaders::random::{Draw, launch_random};
use mxrs_base::{DType, Error, Result};
use mxrs_formula::Formula;
use std::sync::LazyLock;

impl Distribution {
    /// What a GPU draws, where it has the distribution.
    pub(super) fn draw(&self, a: f64, b: f64) -> Option<Draw> {
        match self.kind {
            Kind::Uniform => Some(Draw::Uniform { low: a, high: b }),
            Kind::Normal => Some(Draw::Normal { loc: a, scale: b }),
            _ => None,
        }
    }
}

/// The same numbers of the same stream on a GPU.
fn launch(c: &GpuCtx, draw: Option<Draw>) -> Result<()> {
    let draw = draw.ok_or_else(|| c.fail("this distribution has no GPU kernel"))?;
    let n = c.out_shape(0).size();
    launch_random(c.device, draw, (c.rng.seed, c.rng.offset), n, c.y(0), c.op.name)
}

/// A fill by numbers.
pub(super) fn run(c: &GpuCtx, d: &Distribution) -> Result<()> {
    launch(c, d.draw(c.attrs.number(d.numbers[0].name), c.attrs.number(d.numbers[1].name)))
}

/// A number of the standard distribution (the last input), moved by arrays of parameters.
static MOVED: LazyLock<[Formula; 2]> = LazyLock::new(|| {
    let uniform = Formula::build(3, &[], |a| a.x(0) + a.x(2) * (a.x(1) - a.x(0)));
    [uniform, Formula::build(3, &[], |a| a.x(0) + a.x(2) * a.x(1))]
});

/// Numbers on [0, 1), or around 0, then a run of them for each entry of the parameters.
pub(super) fn sample(c: &GpuCtx, d: &Distribution) -> Result<()> {
    launch(c, d.draw(0.0, 1.0))?;
    let (n, m) = (c.out_shape(0).size(), c.shape(0).size());
    let run = n / m.max(1);
    let (entry, own) = ([1, 0], [run as isize, 1]);
    let y = c.y(0).strided(&own);
    let ins = [c.x(0).strided(&entry), c.x(1).strided(&entry), y];
    let formula = &MOVED[usize::from(matches!(d.kind, Kind::Normal))];
    launch_map(c.device, formula, &[], &[m, run], &ins, y, c.op.name)
}

/// Whole numbers.
pub(super) fn randint(c: &GpuCtx) -> Result<()> {
    let (low, high) = (c.attrs.int("low"), c.attrs.int("high"));
    let (first, range) = (i32::try_from(low), u32::try_from(high.saturating_sub(low)));
    match (c.outs[0].spec.dtype, first, range) {
        (DType::I32, Ok(low), Ok(range)) => launch(c, Some(Draw::Whole { low, range })),
        _ => Err(Error::typ(format!(
            "{}: {} from {low} to {high} is not supported on a GPU; allowed are int32 and 2^32 - 1 numbers",
            c.op.name, c.outs[0].spec.dtype
        ))),
    }
}
