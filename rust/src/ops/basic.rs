//! What every other family and the core lean on: casting, constants, windows, and undoing a broadcast.

use super::registry::Registry;
use super::{GpuCtx, OpBuilder, Sig, Spec, Specs, draw, dtype, empty, float, int, ints, string};
use crate::shaders::copy::{launch_cast, launch_fill};
use crate::shaders::reduce::{Reduction, launch_reduce};
use mxrs_base::{DType, Result, dispatch};
use mxrs_kernels::copy::View;

pub fn register(r: &mut Registry) {
    cast(r);
    constants(r);
    window(r);
    window_back(r);
    view_shape(r);
    sum_to(r);
}

fn cast(r: &mut Registry) {
    let op =
        r.op("Cast", "The elements in another type: toward zero, wrapping into the width of whole numbers.");
    cast_body(op)
        .alias(&["cast", "_npi_cast", "_npx_cast"])
        .infer(|s| s.one(s.shape(0).clone(), s.attrs.dtype("dtype")));
    let op = r.op(
        "amp_cast",
        "The cast of automatic mixed precision: floats in another type, whole numbers as they are.",
    );
    cast_body(op).infer(|s| {
        let to = if s.dtype(0).is_float() { s.attrs.dtype("dtype") } else { s.dtype(0) };
        s.one(s.shape(0).clone(), to)
    });
}

fn cast_body(op: &mut OpBuilder) -> &mut OpBuilder {
    op.keeps_shape()
        .input("data", "values of any shape")
        .param(dtype("dtype", "the element type of the result"))
        .kernel(|c| {
            mxrs_simd::cast_bytes(c.x_bytes(0), c.dtype(0), c.y_bytes(0), c.out_dtype(0));
            Ok(())
        })
        .gpu(|c| launch_cast(c.device, c.shape(0).size(), c.x(0), c.y(0), c.op.name))
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let to = b.spec(g.ins[0]).dtype;
            let grad = b.cast(head, to)?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[("dtype", DType::F64.into())])
}

fn constants(r: &mut Registry) {
    constant(r, "_zeros", "Zeros.", 0.0, &["_npi_zeros"]);
    constant(r, "_ones", "Ones.", 1.0, &["_npi_ones"]);
    r.op("_full", "One number everywhere.")
        .params([
            ints("shape", "extents of the result").or(empty()),
            string("ctx", "where the result lives, such as cpu(0)").or(""),
            dtype("dtype", "the element type of the result").or(DType::F32),
            float("value", "the number"),
        ])
        .alias(&["_npi_full"])
        .infer(created)
        .kernel(|c| {
            let value = c.attrs.float("value");
            fill(c, value)
        })
        .gpu(|c| fill_on_gpu(c, c.attrs.float("value")))
        .zero_grad()
        .sample(&[], &[("shape", [2, 3].into()), ("value", 2.5.into())]);
    r.op("_empty", "An array whose content is not defined.")
        .params([
            ints("shape", "extents of the result").or(empty()),
            string("ctx", "where the result lives, such as cpu(0)").or(""),
            dtype("dtype", "the element type of the result").or(DType::F32),
        ])
        .infer(created)
        .kernel(|_| Ok(()))
        .gpu(|_| Ok(()))
        .zero_grad()
        .hidden()
        .sample(&[], &[("shape", [2, 3].into())]);
}

fn window(r: &mut Registry) {
    r.op("_window", "The elements from `skip` on, in row-major order, as an array of `shape`.")
        .input("data", "values of any shape")
        .param(int("skip", "elements before the window").or(0).at_least(0.0))
        .param(ints("shape", "extents of the window"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            let end = shape.checked_size()?.checked_add(s.attrs.size("skip"));
            if end.is_none_or(|end| end > s.shape(0).size()) {
                return Err(
                    s.fail(format!("a window of {shape} at {} leaves the array", s.attrs.int("skip")))
                );
            }
            s.shaped(shape)
        })
        .moves(|c| {
            c.gather(&View::of(&[c.shape(0).size()]).slice(0, c.attrs.size("skip"), 1, c.out_shape(0).size()))
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let shape = b.spec(g.ins[0]).shape.clone();
            let skip = g.attrs.get("skip").clone();
            let grad = if shape.size() == b.spec(head).shape.size() {
                b.reshape(head, &shape)?
            } else {
                b.op1("_window_back", &[head], &[("skip", skip), ("shape", (&shape).into())])?
            };
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[4, 3])], &[("skip", 3i64.into()), ("shape", [2, 3].into())]);
}

fn window_back(r: &mut Registry) {
    r.op("_window_back", "Zeros of `shape` with the elements put from `skip` on: the gradient of a window.")
        .input("data", "the gradient of the window")
        .param(int("skip", "elements before the window").or(0).at_least(0.0))
        .param(ints("shape", "extents of the result"))
        .infer(|s| s.shaped(s.attrs.shape("shape")?))
        .moves(|c| {
            let (skip, count, all) = (c.attrs.size("skip"), c.shape(0).size(), c.out_shape(0).size());
            if skip.checked_add(count).is_none_or(|end| end > all) {
                return Err(c.fail("the window leaves the result"));
            }
            c.place(&View::of(&[all]).slice(0, skip, 1, count))
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let shape = b.spec(g.ins[0]).shape.clone();
            let skip = g.attrs.get("skip").clone();
            let grad = b.op1("_window", &[head], &[("skip", skip), ("shape", (&shape).into())])?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 3])], &[("skip", 3i64.into()), ("shape", [4, 3].into())]);
}

fn view_shape(r: &mut Registry) {
    r.op("_view_shape", "The same elements in another shape of the same size.")
        .views()
        .input("data", "values of any shape")
        .param(ints("shape", "extents of the result"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            if shape.checked_size()? != s.shape(0).size() {
                return Err(s.fail(format!("the elements do not fill shape {shape}")));
            }
            s.shaped(shape)
        })
        .kernel(|c| {
            c.y_bytes(0).copy_from_slice(c.x_bytes(0));
            Ok(())
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let shape = b.spec(g.ins[0]).shape.clone();
            let grad = b.reshape(head, &shape)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[4, 3])], &[("shape", [2, 6].into())]);
}

fn sum_to(r: &mut Registry) {
    r.op("_sum_to", "Sums the axes that broadcasting from `shape` repeated: the gradient of a broadcast.")
        .input("data", "values of the broadcast shape")
        .param(ints("shape", "the shape before the broadcast"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            match shape.broadcast(s.shape(0)) {
                Some(full) if full == *s.shape(0) => s.shaped(shape),
                _ => Err(s.fail(format!("shape {shape} does not broadcast to the input's"))),
            }
        })
        .kernel(|c| {
            let (from, to) = (c.shape(0), c.out_shape(0));
            dispatch!(c.dtype(0), T => mxrs_kernels::reduce::sum_to(c.x::<T>(0), from, to, c.y::<T>(0)));
            Ok(())
        })
        .gpu(|c| {
            let (from, to) = (c.shape(0), c.out_shape(0));
            let lead = from.ndim() - to.ndim();
            let summed = |d: &usize| *d < lead || to[*d - lead] == 1 && from[*d] != 1;
            let axes: Vec<usize> = (0..from.ndim()).filter(summed).collect();
            let strides = c.rows(0);
            launch_reduce(c.device, Reduction::Sum, from, &axes, c.x(0).strided(&strides), c.y(0), c.op.name)
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let shape = b.spec(g.ins[0]).shape.clone();
            let grad = b.broadcast_to(head, &shape)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 3, 4])], &[("shape", [3, 1].into())]);
}

fn constant(
    r: &mut super::Registry,
    name: &'static str,
    doc: &'static str,
    value: f64,
    alias: &[&'static str],
) {
    r.op(name, doc)
        .params([
            ints("shape", "extents of the result").or(empty()),
            string("ctx", "where the result lives, such as cpu(0)").or(""),
            dtype("dtype", "the element type of the result").or(DType::F32),
        ])
        .alias(alias)
        .infer(created)
        .kernel(move |c| fill(c, value))
        .gpu(move |c| fill_on_gpu(c, value))
        .zero_grad()
        .sample(&[], &[("shape", [2, 3].into())]);
}

/// The rule of operators that make an array from `shape` and `dtype`.
fn created(s: &Sig) -> Result<Specs> {
    let spec = Spec::new(s.attrs.shape("shape")?, s.attrs.dtype("dtype"));
    Ok(smallvec::smallvec![spec])
}

fn fill_on_gpu(c: &GpuCtx, value: f64) -> Result<()> {
    launch_fill(c.device, &[c.out_shape(0).size()], value, c.y(0).strided(&[1]), c.op.name)
}

fn fill(c: &super::Ctx, value: f64) -> Result<()> {
    if value.to_bits() == 0 {
        c.y_bytes(0).fill(0);
    } else {
        dispatch!(c.out_dtype(0), T => c.y::<T>(0).fill(<T as mxrs_base::Elem>::from_f64(value)));
    }
    Ok(())
}
