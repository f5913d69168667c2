//! Choice by a condition, and indices written as ones among zeros: where, one_hot.

use super::super::registry::Registry;
use super::super::{Ctx, GpuCtx, Sig, draw, dtype, flag, float, int};
use super::{back_to, bits, units, units_mut};
use crate::shaders::index::{launch_choose, launch_one_hot};
use mxrs_base::{DType, Elem, Result, f16};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::index::{self, Side};

pub fn register(r: &mut Registry) {
    one_hot(r);
    condition(r);
}

fn encode(c: &Ctx, depth: usize, on: f64, off: f64) {
    let dtype = c.out_dtype(0);
    let (on, off) = (bits(dtype, on), bits(dtype, off));
    dispatch_unit!(dtype.size(), U => {
        index::one_hot::<i64, U>(&c.indices(0), depth, on as U, off as U, units_mut(c, 0))
    });
}

fn encode_on_gpu(c: &GpuCtx, depth: usize, values: (f64, f64)) -> Result<()> {
    launch_one_hot(c.device, c.shape(0).size(), depth, c.x(0), values, c.y(0), c.op.name)
}

fn one_hot(r: &mut Registry) {
    r.op(
        "one_hot",
        "`on_value` at the place that each index names, `off_value` elsewhere, along a new last axis.",
    )
    .input("indices", "places below `depth`; those outside give `off_value` everywhere")
    .param(int("depth", "the length of the new axis").at_least(0.0))
    .param(float("on_value", "the value at the index").or(1.0))
    .param(float("off_value", "the value elsewhere").or(0.0))
    .param(dtype("dtype", "the type of the result").or(DType::F32))
    .alias(&["_npx_one_hot"])
    .method(&["one_hot"])
    .infer(|s| {
        let mut shape = s.shape(0).clone();
        shape.push(s.attrs.size("depth"));
        s.one(shape, s.attrs.dtype("dtype"))
    })
    .kernel(|c| {
        encode(c, c.attrs.size("depth"), c.attrs.float("on_value"), c.attrs.float("off_value"));
        Ok(())
    })
    .gpu(|c| encode_on_gpu(c, c.attrs.size("depth"), (c.attrs.float("on_value"), c.attrs.float("off_value"))))
    .zero_grad()
    .sample(&[draw(&[2, 3]).indices(4)], &[("depth", 4.into())])
    .sample(
        &[draw(&[3]).indices(4)],
        &[("depth", 2.into()), ("on_value", 2.into()), ("off_value", (-1).into())],
    );
    r.op("_onehot_encode", "One row for each index of lhs, in the shape of rhs: 1 at the index, else 0.")
        .input("lhs", "a vector of indices")
        .input("rhs", "a matrix whose shape and type the result has")
        .infer(|s| {
            s.expect_ndim(0, 1..=1)?;
            s.expect_ndim(1, 2..=2)?;
            if s.shape(0)[0] != s.shape(1)[0] {
                return Err(s.fail("lhs has one index for each row of rhs"));
            }
            s.same(1)
        })
        .kernel(|c| {
            encode(c, c.out_shape(0)[1], 1.0, 0.0);
            Ok(())
        })
        .gpu(|c| encode_on_gpu(c, c.out_shape(0)[1], (1.0, 0.0)))
        .sample(&[draw(&[2]).indices(3), draw(&[2, 3])], &[]);
}

/// Writes x (an input, or zeros) where the condition (input `cond`) is not 0, else y.
fn select(c: &Ctx, cond: usize, x: Option<usize>, y: Option<usize>) {
    fn by<C: Elem>(c: &Ctx, cond: &[C], x: Option<usize>, y: Option<usize>) {
        dispatch_unit!(c.out_dtype(0).size(), U => {
            let side = |i: Option<usize>| i.map_or(Side::Scalar(U::default()), |i| Side::Array(units(c, i)));
            index::choose::<C, U>(cond, side(x), side(y), units_mut(c, 0))
        });
    }
    // A whole number is 0 when its bits are: signs and bool need no code of their own.
    match c.dtype(cond) {
        DType::F32 => by::<f32>(c, c.x(cond), x, y),
        DType::F64 => by::<f64>(c, c.x(cond), x, y),
        DType::F16 => by::<f16>(c, c.x(cond), x, y),
        DType::I64 => by::<i64>(c, c.x(cond), x, y),
        DType::I32 => by::<i32>(c, c.x(cond), x, y),
        DType::U8 | DType::I8 | DType::Bool => by::<u8>(c, c.x_bytes(cond), x, y),
    }
}

fn select_on_gpu(c: &GpuCtx, cond: usize, x: Option<usize>, y: Option<usize>) -> Result<()> {
    let n = c.out_shape(0).size();
    let inner = n / c.shape(cond).size().max(1);
    let side = |i: Option<usize>| i.map(|i| c.x(i));
    launch_choose(c.device, (c.x(cond), inner), side(x), side(y), (c.y(0), n), c.op.name)
}

/// The condition has the shape of the value, or one element for each of its rows.
fn expect_condition(s: &Sig, cond: usize, value: usize) -> Result<()> {
    let (cond, value) = (s.shape(cond), s.shape(value));
    let by_row = cond.ndim() == 1 && value.first() == cond.first();
    if cond == value || by_row {
        return Ok(());
    }
    Err(s.fail(format!(
        "condition has shape {cond}; {value}, or one element for each of its rows, is expected"
    )))
}

fn condition(r: &mut Registry) {
    r.op("where", "Elements of x where the condition is not 0, else of y.")
        .input("condition", "shaped as x, or a vector with one element for each row of x")
        .input("x", "values where the condition holds")
        .input("y", "values elsewhere, shaped as x")
        .alias(&["_sparse_where"])
        .infer(|s| {
            s.expect_shape(2, s.shape(1))?;
            if s.dtype(1) != s.dtype(2) {
                return Err(s.fail("x and y must be of one type"));
            }
            expect_condition(s, 0, 1)?;
            s.same(1)
        })
        .kernel(|c| {
            select(c, 0, Some(1), Some(2));
            Ok(())
        })
        .gpu(|c| select_on_gpu(c, 0, Some(1), Some(2)))
        .keeps(&[0], &[])
        .grad(|b, g| {
            let mut grads = g.none();
            let Some(head) = g.heads[0] else { return Ok(grads) };
            for (i, holds) in [(1, true), (2, false)] {
                if g.need[i] {
                    grads[i] =
                        Some(b.op1("_backward_where", &[head, g.ins[0]], &[("holds", holds.into())])?);
                }
            }
            Ok(grads)
        })
        .sample(&[draw(&[2, 3]).indices(2), draw(&[2, 3]), draw(&[2, 3])], &[])
        .sample(&[draw(&[3]).indices(2), draw(&[3, 2]), draw(&[3, 2])], &[]);
    r.op(
        "_backward_where",
        "The values where the condition holds (or, with `holds` false, does not), else 0.",
    )
    .input("head", "the gradient of the choice")
    .input("condition", "shaped as the head, or one element for each of its rows")
    .param(flag("holds", "which side").or(true))
    .infer(|s| {
        expect_condition(s, 1, 0)?;
        s.same(0)
    })
    .kernel(|c| {
        match c.attrs.bool("holds") {
            true => select(c, 1, Some(0), None),
            false => select(c, 1, None, Some(0)),
        }
        Ok(())
    })
    .gpu(|c| match c.attrs.bool("holds") {
        true => select_on_gpu(c, 1, Some(0), None),
        false => select_on_gpu(c, 1, None, Some(0)),
    })
    .keeps(&[1], &[])
    .grad(|b, g| back_to(b, g, "_backward_where", &[("holds", g.attrs.get("holds").clone())]))
    .hidden()
    .sample(&[draw(&[2, 3]), draw(&[2, 3]).indices(2)], &[("holds", false.into())]);
}
