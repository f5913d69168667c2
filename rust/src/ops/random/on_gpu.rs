//! Random numbers on GPUs, from the same streams as on the host.

use super::super::GpuCtx;
use super::{Distribution, Kind};
use crate::shaders::draws::{Law, Source, launch_draws};
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use crate::shaders::index::{Places, launch_take};
use crate::shaders::map::launch_map;
use crate::shaders::random::{Draw, launch_random};
use crate::shaders::scan::launch_scan;
use mxrs_base::{DType, Error, Result, Shape};
use mxrs_formula::Formula;
use mxrs_kernels::philox::Stream;
use mxrs_kernels::{parts, sample};
use std::sync::LazyLock;

impl Distribution {
    /// What a GPU draws, where the distribution needs no more than a word or two of the stream.
    fn draw(&self, a: f64, b: f64) -> Option<Draw> {
        match self.kind {
            Kind::Uniform => Some(Draw::Uniform { low: a, high: b }),
            Kind::Normal => Some(Draw::Normal { loc: a, scale: b }),
            _ => None,
        }
    }
    fn law(&self) -> Law {
        match self.kind {
            Kind::Exponential => Law::Exponential,
            Kind::Poisson => Law::Poisson,
            Kind::NegativeBinomial => Law::NegativeBinomial,
            Kind::GeneralizedNegativeBinomial => Law::GeneralizedNegativeBinomial,
            // The others have a `draw`.
            Kind::Uniform | Kind::Normal | Kind::Gamma => Law::Gamma,
        }
    }
}

fn stream(c: &GpuCtx) -> (u64, u64) {
    (c.rng.seed, c.rng.offset)
}

/// The same numbers of the same stream on a GPU.
fn launch(c: &GpuCtx, draw: Draw) -> Result<()> {
    launch_random(c.device, draw, stream(c), c.out_shape(0).size(), c.y(0), c.op.name)
}

/// A fill by numbers.
pub(super) fn run(c: &GpuCtx, d: &Distribution) -> Result<()> {
    let number = |i: usize| d.numbers.get(i).map_or(0.0, |n| c.attrs.number(n.name));
    if let Some(draw) = d.draw(number(0), number(1)) {
        return launch(c, draw);
    }
    let params = [Source::Number(number(0)), Source::Number(number(1))];
    launch_draws(c.device, (d.law(), params), stream(c), c.out_shape(0).size(), c.y(0), c.op.name)
}

/// A number of the standard distribution (the last input), moved by arrays of parameters.
static MOVED: LazyLock<[Formula; 2]> = LazyLock::new(|| {
    let uniform = Formula::build(3, &[], |a| a.x(0) + a.x(2) * (a.x(1) - a.x(0)));
    [uniform, Formula::build(3, &[], |a| a.x(0) + a.x(2) * a.x(1))]
});

/// A run of numbers for each entry of the parameters.
pub(super) fn sample(c: &GpuCtx, d: &Distribution) -> Result<()> {
    let (n, m) = (c.out_shape(0).size(), c.shape(0).size());
    let run = n / m.max(1);
    let Some(draw) = d.draw(0.0, 1.0) else {
        let of =
            |i: usize| if i < c.ins.len() { Source::Runs(c.x(i), run.max(1)) } else { Source::Number(0.0) };
        return launch_draws(c.device, (d.law(), [of(0), of(1)]), stream(c), n, c.y(0), c.op.name);
    };
    // Numbers on [0, 1), or around 0, then moved.
    launch(c, draw)?;
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
        (DType::I32, Ok(low), Ok(range)) => launch(c, Draw::Whole { low, range }),
        _ => Err(Error::typ(format!(
            "{}: {} from {low} to {high} is not supported on a GPU; allowed are int32 and 2^32 - 1 numbers",
            c.op.name, c.outs[0].spec.dtype
        ))),
    }
}

// ---- classes -----------------------------------------------------------------------------------------------------

/// A class of each draw: where the running sums of its row pass a share of their total. Classes of probability 0 are
/// passed over, whatever the sums' rounding.
const CLASS: &str = "fn element(e: u32) -> VALUE {
    let row = e / p.draws * p.classes;
    let w = philox(e);
    let total = sums(row + p.classes - 1u);
    let limit = (f32(w.y) * (1.0 / 4294967296.0) + f32(w.x >> 11u) * (1.0 / 9007199254740992.0)) * total;
    var low = 0u;
    var high = p.classes - 1u;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (sums(row + middle) <= limit) { low = middle + 1u; } else { high = middle; }
    }
    while (low > 0u && !(prob(row + low) > 0.0)) { low = low - 1u; }
    while (low + 1u < p.classes && !(prob(row + low) > 0.0)) { low = low + 1u; }
    return VALUE(low);
}
";

/// The logarithm of the share of a class drawn.
const LOG_SHARE: &str = "fn element(e: u32) -> VALUE {
    let row = e / p.draws * p.classes;
    return log(prob(row + u32(clamp(drawn(e), 0, i32(p.classes) - 1))) / sums(row + p.classes - 1u));
}
";

/// Probabilities that are negative or not finite, which the host refuses, make no error here.
pub(super) fn multinomial(c: &GpuCtx) -> Result<()> {
    let classes = c.shape(0).last().copied().unwrap_or(1);
    let rows = c.shape(0).size() / classes;
    let n = c.out_shape(0).size();
    if n == 0 {
        return Ok(());
    }
    let draws = n / rows;
    let sums = c.device.alloc(4 * (rows * classes) as u64)?;
    let sums = Span::new(&sums, DType::F32);
    launch_scan(c.device, c.x(0), (rows, classes, 1), false, sums, c.op.name)?;
    let with = |name, y| -> Result<Each> {
        let each = Each::new(name, y).input("prob", c.x(0), Read::Value).input("sums", sums, Read::Value);
        each.size("classes", classes)?.size("draws", draws)
    };
    let mut each = with("multinomial", c.y(0))?;
    let (seed, offset) = stream(c);
    for (name, word) in
        [("seed0", seed), ("seed1", seed >> 32), ("offset0", offset), ("offset1", offset >> 32)]
    {
        each = each.size(name, word as u32 as usize)?;
    }
    let body = || include_str!("../../shaders/philox.wgsl").to_string() + CLASS;
    each.launch(c.device, n, body, c.op.name)?;
    if !c.attrs.bool("get_prob") {
        return Ok(());
    }
    let each = with("multinomial share", c.y(1))?.input("drawn", c.y(0), Read::Index);
    each.launch(c.device, n, || LOG_SHARE.into(), c.op.name)
}

/// Each probability's share of the head: a sum over the draws of its row, in their order.
pub(super) fn multinomial_back(c: &GpuCtx) -> Result<()> {
    let classes = c.shape(1).last().copied().unwrap_or(1).max(1);
    let draws = c.shape(0).size() / (c.shape(1).size() / classes).max(1);
    let each = Each::new("multinomial grad", c.y(0))
        .input("head", c.x(0), Read::Value)
        .input("prob", c.x(1), Read::Value)
        .input("drawn", c.x(2), Read::Index);
    let body = || {
        "fn element(e: u32) -> VALUE {
    let first = e / p.classes * p.draws;
    var sum = 0.0;
    for (var j = first; j < first + p.draws; j++) {
        if (drawn(j) == i32(e % p.classes)) { sum += head(j) / prob(e); }
    }
    return sum;
}\n"
        .into()
    };
    let each = each.size("classes", classes)?.size("draws", draws)?;
    each.launch(c.device, c.shape(1).size(), body, c.op.name)
}

// ---- order -------------------------------------------------------------------------------------------------------

/// Which row goes where is a matter of the stream alone, and each place follows from the ones before: the host says it,
/// and the device moves the rows.
pub(super) fn shuffle(c: &GpuCtx) -> Result<()> {
    let (shape, (seed, offset)): (&Shape, _) = (c.shape(0), stream(c));
    let rows = shape[0];
    if shape.size() == 0 {
        return Ok(());
    }
    let order: Vec<i32> =
        sample::permutation(Stream::new(seed, offset), rows).iter().map(|i| *i as i32).collect();
    let at = c.device.alloc(4 * rows as u64)?;
    c.device.write(&at, 0, parts::bytes_of(&order), c.op.name)?;
    let (at, inner) = (Span::new(&at, DType::I32), shape.size() / rows);
    launch_take(c.device, Places::Clip(rows), rows, at, c.x(0), (1, inner), c.y(0), c.op.name)
}
