//! Elements shown more than once: broadcasting, tiling, repeating. Their gradients sum what was repeated.

use super::super::registry::Registry;
use super::super::{Build, GradArgs, Grads, Sig, Specs, Value, draw, empty, int, ints};
use super::movement::{Movement, checked};
use mxrs_base::{Result, Shape};
use mxrs_kernels::copy::View;

pub fn register(r: &mut Registry) {
    broadcasts(r);
    r.op("tile", "The whole array side by side `reps` times along each axis.")
        .input("data", "values of any shape")
        .param(
            ints("reps", "how often along each axis, the last ones meant if there are fewer").at_least(0.0),
        )
        .alias(&["_npi_tile"])
        .method(&["tile"])
        .infer(|s| {
            let (dims, reps) = tiles(s.shape(0), &s.attrs.ints("reps"));
            s.shaped(checked(dims.iter().zip(&reps).map(|(d, r)| d.checked_mul(*r)))?)
        })
        .moves(|c| {
            let (dims, reps) = tiles(c.shape(0), &c.attrs.ints("reps"));
            c.gather(&View::of(&dims).tile(&reps))
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let (dims, reps) = tiles(b.shape(g.ins[0]), &g.attrs.ints("reps"));
            let parts = dims.iter().zip(&reps).map(|(&d, &r)| (r, d)).collect::<Vec<_>>();
            let split = parts.iter().flat_map(|&(r, d)| if r == 1 { vec![d] } else { vec![r, d] });
            let summed = parts.iter().flat_map(|&(r, d)| if r == 1 { vec![d] } else { vec![1, d] });
            let grad = fold(b, g, head, split.collect(), summed.collect())?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[("reps", [2, 1, 3].into())])
        .sample(&[draw(&[2, 3])], &[("reps", 2i64.into())]);
    r.op("repeat", "Each element `repeats` times in a row, along `axis` or of the flattened array.")
        .input("data", "values of any shape")
        .param(int("repeats", "how often").at_least(0.0))
        .param(int("axis", "along which axis; None flattens first").or_none())
        .alias(&["_np_repeat"])
        .method(&["repeat"])
        .infer(|s| {
            let (shape, axis) = repeated(s)?;
            let grown = shape[axis].checked_mul(s.attrs.size("repeats"));
            s.shaped(checked((0..shape.ndim()).map(|d| if d == axis { grown } else { Some(shape[d]) }))?)
        })
        .moves(|c| {
            let (shape, axis) = repeated(&c.sig())?;
            c.gather(&View::of(&shape).repeat(axis, c.attrs.size("repeats")))
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let (shape, axis) = repeated(&Sig { op: g.op, attrs: g.attrs, ins: &[b.spec(g.ins[0])] })?;
            let (mut split, mut summed) = (shape.clone(), shape);
            split.insert(axis + 1, g.attrs.size("repeats"));
            summed.insert(axis + 1, 1);
            let grad = fold(b, g, head, split, summed)?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[("repeats", 2i64.into())])
        .sample(&[draw(&[2, 3])], &[("repeats", 3i64.into()), ("axis", 0i64.into())]);
}

/// The gradient of a repetition: the head as `split`, summed to `summed`, in the input's shape.
fn fold(b: &mut dyn Build, g: &GradArgs, head: Value, split: Shape, summed: Shape) -> Result<Value> {
    let shape = b.shape(g.ins[0]).clone();
    let head = b.reshape(head, &split)?;
    let sum = b.sum_to(head, &summed)?;
    b.reshape(sum, &shape)
}

/// The extents and repetitions of `tile`, one pair per axis of the result.
fn tiles(shape: &[usize], reps: &[i64]) -> (Vec<usize>, Vec<usize>) {
    let n = shape.len().max(reps.len());
    let dims = std::iter::repeat_n(1, n - shape.len()).chain(shape.iter().copied()).collect();
    let reps = std::iter::repeat_n(1, n - reps.len()).chain(reps.iter().map(|r| *r as usize)).collect();
    (dims, reps)
}

/// The shape that `repeat` works on, and its axis.
fn repeated(s: &Sig) -> Result<(Shape, usize)> {
    match s.attrs.opt_int("axis") {
        None => Ok((Shape::from([s.shape(0).size()]), 0)),
        Some(axis) => Ok((s.shape(0).clone(), s.axis(0, axis)?)),
    }
}

fn broadcasts(r: &mut Registry) {
    r.op("broadcast_to", "The elements repeated to fill `shape`, along axes where data has size 1.")
        .input("data", "values of any shape")
        .param(ints("shape", "extents of the result; 0 keeps the extent of data").or(empty()).at_least(0.0))
        .method(&["broadcast_to"])
        .infer(|s| {
            let (from, mut to) = (s.shape(0), s.attrs.ints("shape"));
            let lead = to.len().checked_sub(from.ndim());
            let lead = lead.ok_or_else(|| s.fail("argument shape has fewer axes than data"))?;
            for (d, extent) in from.iter().enumerate() {
                if to[lead + d] == 0 {
                    to[lead + d] = *extent as i64;
                }
            }
            let to = Shape::from_i64(&to)?;
            fits(s, to)
        })
        .moves(spread)
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[2, 1, 3])], &[("shape", [0, 4, 3].into())]);
    r.op("broadcast_axis", "The elements repeated along axes of size 1.")
        .input("data", "values of any shape")
        .param(ints("axis", "the axes, each of size 1").or(empty()))
        .param(ints("size", "the extent of each of them in the result").or(empty()).at_least(0.0))
        .alias(&["broadcast_axes"])
        .method(&["broadcast_axes"])
        .infer(|s| {
            let (axes, sizes) = (s.attrs.ints("axis"), s.attrs.ints("size"));
            if axes.len() != sizes.len() {
                return Err(s.fail(format!("axis names {} axes and size {}", axes.len(), sizes.len())));
            }
            s.shape(0).axes(&axes).map_err(|e| s.fail(e.message()))?;
            let mut to = s.shape(0).clone();
            for (axis, size) in axes.iter().zip(&sizes) {
                let axis = s.axis(0, *axis)?;
                if to[axis] != 1 {
                    return Err(s.fail(format!("axis {axis} has size {}; size 1 is expected", to[axis])));
                }
                to.set(axis, *size as usize);
            }
            to.checked_size()?;
            s.shaped(to)
        })
        .moves(spread)
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[1, 2, 1])], &[("axis", [0, 2].into()), ("size", [2, 3].into())]);
    r.op("broadcast_like", "lhs repeated to the shape of rhs, or along lhs_axes to the extents of rhs_axes.")
        .input("lhs", "values of any shape")
        .input("rhs", "an array whose shape is taken; its values are not looked at")
        .param(ints("lhs_axes", "axes of lhs to broadcast; all if None").or_none())
        .param(ints("rhs_axes", "for each of them, the axis of rhs with its new extent").or_none())
        .method(&["broadcast_like"])
        .infer(like)
        .moves(spread)
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[1, 3]), draw(&[2, 3])], &[])
        .sample(&[draw(&[1, 3]), draw(&[2, 4])], &[("lhs_axes", 0i64.into()), ("rhs_axes", 1i64.into())]);
}

/// One output of shape `to`, if the input broadcasts to it.
fn fits(s: &Sig, to: Shape) -> Result<Specs> {
    match s.shape(0).broadcast(&to) {
        Some(full) if full == to => s.shaped(to),
        _ => Err(s.fail(format!("shape {} cannot be broadcast to {to}", s.shape(0)))),
    }
}

fn like(s: &Sig) -> Result<Specs> {
    let (from, rhs) = (s.shape(0), s.shape(1));
    match (s.attrs.is_none("lhs_axes"), s.attrs.is_none("rhs_axes")) {
        (true, true) if from.ndim() == rhs.ndim() => fits(s, rhs.clone()),
        (true, true) => {
            Err(s.fail("lhs and rhs must have the same number of axes, or lhs_axes and rhs_axes given"))
        }
        (false, false) => {
            let (left, right) = (s.attrs.ints("lhs_axes"), s.attrs.ints("rhs_axes"));
            if left.is_empty() || left.len() != right.len() {
                return Err(s.fail(format!(
                    "lhs_axes names {} axes and rhs_axes {}; equally many are expected, at least one",
                    left.len(),
                    right.len()
                )));
            }
            let mut to = from.clone();
            for (a, b) in left.iter().zip(&right) {
                to.set(s.axis(0, *a)?, rhs[s.axis(1, *b)?]);
            }
            to.checked_size()?;
            fits(s, to)
        }
        _ => Err(s.fail("lhs_axes and rhs_axes must be given together")),
    }
}

fn spread(c: &Movement) -> Result<()> {
    c.gather(&View::of(c.shape(0)).broadcast_to(c.out_shape(0)))
}

fn back(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let shape = b.shape(g.ins[0]).clone();
    let grad = b.sum_to(head, &shape)?;
    g.first(grad)
}
