//! SequenceMask, SequenceLast and SequenceReverse: arrays of time steps of which each sequence uses the first few.
//!
//! Arrays are (time, batch, ...), or (batch, time, ...) where `axis` is 1. Lengths may have any element type; without
//! them every sequence uses all steps. Gradients are these operators again, or the hidden adjoint of the last step.

use super::index::{bits, units, units_mut};
use super::registry::Registry;
use super::{Attrs, Build, Ctx, GpuCtx, OpBuilder, Sig, Specs, Value, draw, flag, float, int, ints};
use crate::shaders::each::{Each, Read};
use mxrs_base::{AttrValue, Result, Shape};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::seq::{self, Steps};
use smallvec::SmallVec;

pub fn register(r: &mut Registry) {
    mask(r);
    last(r);
    reverse(r);
}

fn has_lengths(attrs: &Attrs) -> usize {
    1 + usize::from(attrs.bool("use_sequence_length"))
}

/// What the three share. `axes` is the greatest time axis.
fn sequence<'a>(r: &'a mut Registry, name: &'static str, doc: &'static str, axes: f64) -> &'a mut OpBuilder {
    r.op(name, doc)
        .input("data", "(time, batch, ...), or (batch, time, ...) where `axis` is 1")
        .input("sequence_length", "steps used of each sequence: (batch,)")
        .input_count(has_lengths)
        .param(flag("use_sequence_length", "whether lengths are given; else all steps count").or(false))
        .param(int("axis", "the axis of time").or(0).at_least(0.0).at_most(axes))
}

fn steps(shape: &Shape, axis: i64) -> Steps {
    let (batch, time) = if axis == 1 { (shape[0], shape[1]) } else { (shape[1], shape[0]) };
    Steps { time, batch, inner: shape[2..].iter().product(), time_second: axis == 1 }
}

/// Checks the data's and the lengths' shapes; `shape` is that of the array of steps.
fn check(s: &Sig, shape: &Shape) -> Result<Steps> {
    if shape.ndim() < 2 {
        return Err(s.fail("data has two dimensions or more: time and batch"));
    }
    let steps = steps(shape, s.attrs.int("axis"));
    if s.ins.len() > 1 {
        s.expect_shape(1, &Shape::new(&[steps.batch]))?;
    }
    Ok(steps)
}

/// The lengths (input 1), or all steps for every sequence.
fn lengths(c: &Ctx, steps: Steps) -> Vec<i64> {
    if c.ins.len() > 1 { c.indices(1) } else { vec![steps.time as i64; steps.batch] }
}

/// A gradient of the first input by `name` of (head, lengths), with the call's attributes of these names.
fn again(
    b: &mut dyn Build,
    g: &super::GradArgs,
    name: &str,
    extra: Option<(&'static str, AttrValue)>,
) -> Result<super::Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let mut ins: SmallVec<[Value; 2]> = SmallVec::new();
    ins.push(head);
    ins.extend(g.ins.get(1).copied());
    let mut attrs: Vec<(&str, AttrValue)> =
        ["use_sequence_length", "axis"].map(|n| (n, g.attrs.get(n).clone())).into();
    attrs.extend(extra);
    let grad = b.op1(name, &ins, &attrs)?;
    g.first(grad)
}

// On GPUs an element is found by its time and sequence. Lengths that the host refuses go to the nearest one allowed: an
// error would have to wait for the device.

const MASK: &str = "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    if (i32(time(row)) >= length(sequence(row))) { return p.value; }
    return x(e);
}\n";
const LAST: &str = "fn element(e: u32) -> VALUE {
    let b = e / p.inner;
    return x(row_of(u32(clamp(length(b), 1, i32(p.time))) - 1u, b) * p.inner + e % p.inner);
}\n";
const LAST_GRAD: &str = "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let b = sequence(row);
    if (time(row) + 1u == u32(clamp(length(b), 1, i32(p.time)))) { return x(b * p.inner + e % p.inner); }
    return VALUE(0);
}\n";
const REVERSE: &str = "fn element(e: u32) -> VALUE {
    let row = e / p.inner;
    let b = sequence(row);
    let used = u32(clamp(length(b), 0, i32(p.time)));
    if (time(row) >= used) { return x(e); }
    return x(row_of(used - 1u - time(row), b) * p.inner + e % p.inner);
}\n";

/// Launches a body that sees `time(row)` and `sequence(row)` of a row of elements, `row_of(time, sequence)`, and
/// `length(sequence)`.
fn by_step<'a>(c: &GpuCtx<'a>, each: Each<'a>, steps: Steps, n: usize, body: &str) -> Result<()> {
    let with_lengths = c.ins.len() > 1;
    let mut each = each.variant(u64::from(with_lengths) << 1 | u64::from(steps.time_second));
    each = each.input("x", c.x(0), Read::Value);
    if with_lengths {
        each = each.input("length", c.x(1), Read::Index);
    }
    let each = each.size("time", steps.time)?.size("batch", steps.batch)?.size("inner", steps.inner)?;
    let text = || {
        let [time, sequence, row] = match steps.time_second {
            true => ["row % p.time", "row / p.time", "sequence * p.time + time"],
            false => ["row / p.batch", "row % p.batch", "time * p.batch + sequence"],
        };
        let all = match with_lengths {
            true => "",
            false => "fn length(sequence: u32) -> i32 { return i32(p.time); }\n",
        };
        format!(
            "fn time(row: u32) -> u32 {{ return {time}; }}
fn sequence(row: u32) -> u32 {{ return {sequence}; }}
fn row_of(time: u32, sequence: u32) -> u32 {{ return {row}; }}
{all}{body}"
        )
    };
    each.launch(c.device, n, text, c.op.name)
}

fn mask(r: &mut Registry) {
    sequence(r, "SequenceMask", "The steps beyond each sequence's length set to `value`.", 1.0)
        .param(float("value", "what unused steps are set to").or(0.0))
        .alias(&["_npx_sequence_mask"])
        .infer(|s| {
            check(s, s.shape(0))?;
            s.same(0)
        })
        .updates(&[(0, 0)])
        .kernel(|c| {
            if c.ins.len() > 1 && c.shape(0).size() > 0 {
                let (steps, value) = (steps(c.shape(0), c.attrs.int("axis")), c.attrs.float("value"));
                let value = bits(c.dtype(0), value);
                dispatch_unit!(c.dtype(0).size(), U => {
                    seq::mask::<U, i64>(units_mut(c, 0), &c.indices(1), steps, value as U)
                });
            }
            Ok(())
        })
        .gpu(|c| {
            let steps = steps(c.shape(0), c.attrs.int("axis"));
            let each = Each::new("sequence mask", c.y(0)).value("value", c.attrs.float("value"));
            by_step(c, each, steps, c.out_shape(0).size(), MASK)
        })
        .keeps(&[1], &[])
        .grad(|b, g| again(b, g, "SequenceMask", None))
        .sample(&[draw(&[3, 2])], &[])
        .sample(&[draw(&[3, 2, 2]), draw(&[2]).indices(4)], &[("use_sequence_length", true.into())])
        .sample(
            &[draw(&[2, 3]), draw(&[2]).indices(4)],
            &[("use_sequence_length", true.into()), ("axis", 1.into()), ("value", 2.into())],
        );
}

fn without_time(shape: &Shape, axis: i64) -> Shape {
    let mut out = shape.clone();
    out.remove(usize::from(axis == 1));
    out
}

fn last(r: &mut Registry) {
    sequence(r, "SequenceLast", "The last used step of each sequence.", 1.0)
        .infer(|s| {
            let steps = check(s, s.shape(0))?;
            if steps.time == 0 {
                return Err(s.fail("there is no last step among none"));
            }
            s.shaped(without_time(s.shape(0), s.attrs.int("axis")))
        })
        .kernel(|c| {
            let steps = steps(c.shape(0), c.attrs.int("axis"));
            dispatch_unit!(c.dtype(0).size(), U => {
                seq::last::<U, i64>(units(c, 0), &lengths(c, steps), steps, units_mut(c, 0))
            })
            .map_err(|e| e.within("SequenceLast"))
        })
        .gpu(|c| {
            let steps = steps(c.shape(0), c.attrs.int("axis"));
            by_step(c, Each::new("sequence last", c.y(0)), steps, c.out_shape(0).size(), LAST)
        })
        .keeps(&[1], &[])
        .grad(|b, g| {
            let shape = AttrValue::from(b.shape(g.ins[0]));
            again(b, g, "_backward_sequence_last", Some(("shape", shape)))
        })
        .sample(&[draw(&[3, 2])], &[])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[2]).within(1.0, 3.9)],
            &[("use_sequence_length", true.into()), ("axis", 1.into())],
        );
    sequence(
        r,
        "_backward_sequence_last",
        "Steps put at the last used place of each sequence, among zeros.",
        1.0,
    )
    .param(ints("shape", "extents of the array of steps"))
    .infer(|s| {
        let shape = s.attrs.shape("shape")?;
        check(s, &shape)?;
        s.expect_shape(0, &without_time(&shape, s.attrs.int("axis")))?;
        s.shaped(shape)
    })
    .kernel(|c| {
        let steps = steps(c.out_shape(0), c.attrs.int("axis"));
        dispatch_unit!(c.dtype(0).size(), U => {
            seq::last_grad::<U, i64>(units(c, 0), &lengths(c, steps), steps, units_mut(c, 0))
        })
        .map_err(|e| e.within("SequenceLast"))
    })
    .gpu(|c| {
        let steps = steps(c.out_shape(0), c.attrs.int("axis"));
        by_step(c, Each::new("sequence last grad", c.y(0)), steps, c.out_shape(0).size(), LAST_GRAD)
    })
    .keeps(&[1], &[])
    .grad(|b, g| again(b, g, "SequenceLast", None))
    .hidden()
    .sample(&[draw(&[2])], &[("shape", [3, 2].into())])
    .sample(
        &[draw(&[2]), draw(&[2]).within(1.0, 3.9)],
        &[("use_sequence_length", true.into()), ("shape", [3, 2].into())],
    );
}

fn reverse(r: &mut Registry) {
    sequence(
        r,
        "SequenceReverse",
        "The used steps of each sequence in reverse order, the others as they are.",
        0.0,
    )
    .infer(|s| -> Result<Specs> {
        check(s, s.shape(0))?;
        s.same(0)
    })
    .kernel(|c| {
        let steps = steps(c.shape(0), 0);
        dispatch_unit!(c.dtype(0).size(), U => {
            seq::reverse::<U, i64>(units(c, 0), &lengths(c, steps), steps, units_mut(c, 0))
        })
        .map_err(|e| e.within("SequenceReverse"))
    })
    .gpu(|c| {
        let steps = steps(c.shape(0), 0);
        by_step(c, Each::new("sequence reverse", c.y(0)), steps, c.out_shape(0).size(), REVERSE)
    })
    .keeps(&[1], &[])
    .grad(|b, g| again(b, g, "SequenceReverse", None))
    .sample(&[draw(&[3, 2])], &[])
    .sample(&[draw(&[3, 2, 2]), draw(&[2]).indices(4)], &[("use_sequence_length", true.into())]);
}
