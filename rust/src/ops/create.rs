//! Arrays from numbers: ranges, identity matrices, and positions in an array of given shape.
//!
//! Constants (`_zeros`, `_ones`, `_full`) are `basic`'s, random arrays `random`'s.

use super::registry::Registry;
use super::{Ctx, GpuCtx, Param, Sig, Specs, draw, dtype, empty, flag, float, int, ints, string};
use crate::shaders::copy::launch_fill;
use crate::shaders::each::Each;
use mxrs_base::{DType, Error, Result, Shape, dispatch};
use mxrs_kernels::copy;

pub fn register(r: &mut Registry) {
    ranges(r);
    positions(r);
    r.op("_eye", "A matrix with ones on a diagonal and zeros elsewhere.")
        .params([
            int("N", "the number of rows").at_least(0.0),
            int("M", "the number of columns; N if it is 0 or less").or(0i64),
            int("k", "which diagonal: 0 the main one, above it if positive").or(0i64),
        ])
        .params(place())
        .infer(|s| {
            let (rows, cols) = (s.attrs.int("N"), s.attrs.int("M"));
            let shape = Shape::from_i64(&[rows, if cols > 0 { cols } else { rows }])?;
            s.one(shape, s.attrs.dtype("dtype"))
        })
        .kernel(|c| {
            let (shape, k) = (c.out_shape(0), c.attrs.int("k") as isize);
            dispatch!(c.out_dtype(0), T => copy::eye(c.y::<T>(0), shape[0], shape[1], k));
            Ok(())
        })
        .gpu(|c| {
            let body = "fn element(e: u32) -> VALUE {
    let apart = i32(e % p.cols) - i32(e / p.cols);
    return select(VALUE(0), VALUE(1), apart == bitcast<i32>(p.k));
}\n";
            // A diagonal beyond 2^31 is outside every matrix that fits.
            let k = c.attrs.int("k").clamp(i32::MIN as i64, i32::MAX as i64) as i32 as u32;
            let each = Each::new("eye", c.y(0)).size("cols", c.out_shape(0)[1])?.size("k", k as usize)?;
            each.launch(c.device, c.out_shape(0).size(), || body.into(), c.op.name)
        })
        .zero_grad()
        .sample(&[], &[("N", 3i64.into()), ("M", 4i64.into()), ("k", 1i64.into())]);
    r.op("_zeros_without_dtype", "Zeros; the element type is a number, float32 if it is -1.")
        .params([
            ints("shape", "extents of the result").or(empty()),
            string("ctx", "where the result lives, such as cpu(0)").or(""),
            int("dtype", "the type's number in files, or -1").or(-1i64).at_least(-1.0).at_most(127.0),
        ])
        .infer(|s| {
            let dtype = match s.attrs.int("dtype") {
                -1 => DType::F32,
                number => DType::from_flag(number).map_err(|e| s.fail(e.message()))?,
            };
            s.one(s.attrs.shape("shape")?, dtype)
        })
        .kernel(|c| {
            copy::fill(c.y_bytes(0), 0u8);
            Ok(())
        })
        .gpu(|c| launch_fill(c.device, &[c.out_shape(0).size()], 0.0, c.y(0).strided(&[1]), c.op.name))
        .zero_grad()
        .sample(&[], &[("shape", [2, 3].into())]);
}

/// Where a created array lives, and its element type.
fn place() -> [Param; 2] {
    [
        string("ctx", "where the result lives, such as cpu(0)").or(""),
        dtype("dtype", "the element type of the result").or(DType::F32),
    ]
}

fn ranges(r: &mut Registry) {
    r.op("_arange", "Numbers from start up to, not including, stop, step apart, each `repeat` times.")
        .params([
            float("start", "the first number; the end, beginning at 0, where stop is None"),
            float("stop", "where the numbers end").or_none(),
            float("step", "their distance, not 0").or(1.0),
            int("repeat", "how often each number stands in a row").or(1i64).at_least(1.0),
            flag("infer_range", "count by the result's shape; refused unless stop is given").or(false),
        ])
        .params(place())
        .infer(|s| {
            let (_, _, count) = range(s)?;
            let size = count.checked_mul(s.attrs.size("repeat"));
            let size = size.ok_or_else(|| s.fail("the result has more elements than memory can address"))?;
            let shape = Shape::from([size]);
            shape.checked_size()?;
            s.one(shape, s.attrs.dtype("dtype"))
        })
        .kernel(|c| {
            let (start, step, _) = range(&Sig { op: c.op, attrs: c.attrs, ins: &[] })?;
            rising(c, start, step);
            Ok(())
        })
        .gpu(|c| {
            let (start, step, _) = range(&Sig { op: c.op, attrs: c.attrs, ins: &[] })?;
            rising_on_gpu(c, start, step, c.attrs.size("repeat"), None)
        })
        .zero_grad()
        .sample(&[], &[("start", 0.5.into()), ("stop", 3.0.into()), ("step", 0.5.into())])
        .sample(&[], &[("start", 3.0.into()), ("repeat", 2i64.into())]);
    r.op("_linspace", "`num` numbers in equal distances from start to stop.")
        .params([
            float("start", "the first number"),
            float("stop", "the last number, or the one after it"),
            int("num", "how many").at_least(0.0),
            flag("endpoint", "stop is the last number").or(true),
        ])
        .params(place())
        .alias(&["_npi_linspace"])
        .infer(|s| {
            let (start, stop) = (s.attrs.float("start"), s.attrs.float("stop"));
            if !start.is_finite() || !stop.is_finite() {
                return Err(s.fail(format!("start = {start} and stop = {stop} must be finite")));
            }
            s.one(Shape::from_i64(&[s.attrs.int("num")])?, s.attrs.dtype("dtype"))
        })
        .kernel(|c| {
            let (start, stop) = (c.attrs.float("start"), c.attrs.float("stop"));
            let n = c.out_shape(0).size();
            let gaps = if c.attrs.bool("endpoint") { n.saturating_sub(1) } else { n };
            let step = (stop - start) / gaps.max(1) as f64;
            dispatch!(c.out_dtype(0), T => {
                let out = c.y::<T>(0);
                copy::arange(out, start, step, 1);
                // The end is met exactly, whatever the sum of the steps rounds to.
                if let (true, [_, .., last]) = (c.attrs.bool("endpoint"), out) {
                    *last = mxrs_base::Elem::from_f64(stop);
                }
            });
            Ok(())
        })
        .gpu(|c| {
            let (start, stop) = (c.attrs.float("start"), c.attrs.float("stop"));
            let (n, endpoint) = (c.out_shape(0).size(), c.attrs.bool("endpoint"));
            let gaps = if endpoint { n.saturating_sub(1) } else { n };
            rising_on_gpu(
                c,
                start,
                (stop - start) / gaps.max(1) as f64,
                1,
                (endpoint && n > 1).then_some(stop),
            )
        })
        .zero_grad()
        .sample(&[], &[("start", 0.0.into()), ("stop", 1.0.into()), ("num", 5i64.into())]);
}

/// Writes rising numbers; those of whole-number types begin and advance by whole numbers.
fn rising(c: &Ctx, start: f64, step: f64) {
    let whole = !c.out_dtype(0).is_float();
    let (start, step) = if whole { (start.trunc(), step.trunc()) } else { (start, step) };
    let repeat = c.attrs.size("repeat");
    dispatch!(c.out_dtype(0), T => copy::arange(c.y::<T>(0), start, step, repeat));
}

/// Rising numbers on a GPU; `last` is met exactly. Whole-number types begin and advance by whole numbers, but for a
/// range that is divided evenly.
fn rising_on_gpu(c: &GpuCtx, start: f64, step: f64, repeat: usize, last: Option<f64>) -> Result<()> {
    let dtype = c.outs[0].spec.dtype;
    let n = c.out_shape(0).size();
    if c.op.name == "_linspace" && !dtype.is_float() {
        return Err(Error::typ(format!(
            "{}: {dtype} is not supported on a GPU; allowed are floats",
            c.op.name
        )));
    }
    let body = "fn element(e: u32) -> VALUE {
    if (p.exact == 1u && e + 1u == p.n) { return p.last; }
    return p.start + VALUE(e / p.repeat) * p.step;
}\n";
    let each =
        Each::new("rising", c.y(0)).size("repeat", repeat)?.size("exact", usize::from(last.is_some()))?;
    let each = each.value("start", start).value("step", step).value("last", last.unwrap_or(0.0));
    each.launch(c.device, n, || body.into(), c.op.name)
}

/// First number, distance and count of `_arange`, before repetition.
fn range(s: &Sig) -> Result<(f64, f64, usize)> {
    let (first, step) = (s.attrs.float("start"), s.attrs.float("step"));
    let (start, stop) = match s.attrs.opt_float("stop") {
        Some(stop) => (first, stop),
        None if s.attrs.bool("infer_range") => {
            return Err(
                s.fail("infer_range without stop is not supported: the end cannot be known here; give stop")
            );
        }
        None => (0.0, first),
    };
    let rises = step > 0.0;
    let count = ((stop - start) / step).ceil();
    if !(start.is_finite() && stop.is_finite() && step.is_finite()) || step == 0.0 || count < 1.0 {
        let toward = if rises { "above" } else { "below" };
        return Err(s.fail(format!(
            "start = {start}, stop = {stop}, step = {step} is no range; finite numbers are expected, step not 0 and \
             stop {toward} start"
        )));
    }
    // 2^53 elements are more than memory holds, and counts up to there are exact.
    if count > (1u64 << 53) as f64 {
        return Err(s.fail(format!("a range of {count} numbers is too long")));
    }
    Ok((start, step, count as usize))
}

fn positions(r: &mut Registry) {
    r.op(
        "_contrib_arange_like",
        "Rising numbers in the shape of data, or as many as data is long along `axis`.",
    )
    .input("data", "an array whose shape and type are taken; its values are not looked at")
    .params([
        float("start", "the first number").or(0.0),
        float("step", "their distance").or(1.0),
        int("repeat", "how often each number stands in a row").or(1i64).at_least(1.0),
        string("ctx", "not looked at: the result lives where data does").or(""),
        int("axis", "the axis to count; all of data if None").or_none(),
    ])
    .alias(&["_npx_arange_like"])
    .infer(|s| match s.attrs.opt_int("axis") {
        None => s.same(0),
        Some(axis) => s.shaped(Shape::from([s.shape(0)[s.axis(0, axis)?]])),
    })
    .kernel(|c| {
        rising(c, c.attrs.float("start"), c.attrs.float("step"));
        Ok(())
    })
    .gpu(|c| rising_on_gpu(c, c.attrs.float("start"), c.attrs.float("step"), c.attrs.size("repeat"), None))
    .cost(|_, outs| outs[0].shape.size() as f64)
    .zero_grad()
    .sample(&[draw(&[2, 3])], &[("start", 1.0.into()), ("step", 0.5.into())])
    .sample(&[draw(&[2, 3])], &[("axis", (-1i64).into())]);
    r.op(
        "_contrib_index_array",
        "For each element of data its index: int64 (..., number of axes asked for).",
    )
    .input("data", "an array whose shape is taken; its values are not looked at")
    .param(ints("axes", "the axes whose index is wanted; all if None").or_none())
    .infer(index_shape)
    .kernel(|c| {
        let shape = c.shape(0);
        let (axes, strides) = (asked(c.attrs, shape)?, shape.strides());
        let picks: Vec<(usize, usize)> =
            axes.iter().map(|a| (strides[*a].max(1), shape[*a].max(1))).collect();
        if !picks.is_empty() {
            for (i, index) in c.y::<i64>(0).chunks_mut(picks.len()).enumerate() {
                for (value, (stride, size)) in index.iter_mut().zip(&picks) {
                    *value = (i / stride % size) as i64;
                }
            }
        }
        Ok(())
    })
    .cost(|_, outs| 5.0 * outs[0].shape.size() as f64)
    .zero_grad()
    .sample(&[draw(&[2, 3])], &[])
    .sample(&[draw(&[2, 3, 2])], &[("axes", [2, 0].into())]);
}

fn index_shape(s: &Sig) -> Result<Specs> {
    let mut shape = s.shape(0).clone();
    let axes = asked(s.attrs, &shape).map_err(|e| s.fail(e.message()))?;
    shape.push(axes.len());
    shape.checked_size()?;
    s.one(shape, DType::I64)
}

fn asked(attrs: &super::Attrs, shape: &Shape) -> Result<Vec<usize>> {
    if attrs.is_none("axes") {
        return Ok((0..shape.ndim()).collect());
    }
    attrs.ints("axes").iter().map(|a| shape.axis(*a)).collect()
}
