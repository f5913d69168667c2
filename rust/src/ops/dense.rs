//! The dense layer.

use super::linalg::{fill, product, product_cost, wanted};
use super::registry::Registry;
use super::{Attrs, Build, Ctx, GradArgs, Grads, Sig, Specs, draw, flag, int};
use crate::shaders::epilogue::Bias;
use crate::shaders::matmul::{self, launch_matmul};
use mxrs_base::{Result, Shape};
use mxrs_kernels::gemm::{Product, gemm_then};

pub fn register(r: &mut Registry) {
    r.op("FullyConnected", "data times the transposed weight, plus bias: a dense layer.")
        .input("data", "(batch, ...); with `flatten` everything behind the first axis is one vector")
        .input("weight", "(num_hidden, length of a vector)")
        .input("bias", "(num_hidden,), not there with `no_bias`")
        .param(int("num_hidden", "numbers per result").at_least(1.0))
        .param(flag("no_bias", "leave the bias out").or(false))
        .param(flag("flatten", "join all axes but the first; else the layer acts on the last axis").or(true))
        .alias(&["_npx_fully_connected", "_sparse_FullyConnected"])
        .input_count(|a| if a.bool("no_bias") { 2 } else { 3 })
        .complete(|a, shapes| {
            let hidden = a.size("num_hidden");
            if let Some(data) = shapes.first().cloned().flatten() {
                let (_, length) = vectors(a, &data);
                fill(shapes, 1, || Shape::new(&[hidden, length]));
            }
            fill(shapes, 2, || Shape::new(&[hidden]));
            Ok(())
        })
        .infer(fully_connected_infer)
        .kernel(fully_connected_kernel)
        .gpu(|c| {
            let ((count, length), hidden) = (vectors(c.attrs, c.shape(0)), c.attrs.size("num_hidden"));
            let bias = if c.ins.len() > 2 { Bias::Cols(c.x(2)) } else { Bias::None };
            let p = matmul::Product::dense(false, true, count, hidden, length, 1);
            launch_matmul(c.device, &p, c.x(0), c.x(1), c.y(0), &c.epilogue(bias), c.op.name)
        })
        .finishes()
        .cost(|s, outs| {
            let (_, length) = vectors(s.attrs, s.shape(0));
            product_cost(
                outs[0].shape.size() / s.attrs.size("num_hidden").max(1),
                s.attrs.size("num_hidden"),
                length,
            )
        })
        .keeps(&[0, 1], &[])
        .grad(fully_connected_grad)
        .sample(&[draw(&[2, 3]), draw(&[4, 3]), draw(&[4])], &[("num_hidden", 4i64.into())])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[3, 2])],
            &[("num_hidden", 3i64.into()), ("no_bias", true.into()), ("flatten", false.into())],
        );
}

/// How many vectors the data of a dense layer holds, and their length.
fn vectors(attrs: &Attrs, data: &Shape) -> (usize, usize) {
    let split = if attrs.bool("flatten") { 1 } else { data.ndim().saturating_sub(1) };
    let split = split.min(data.ndim());
    (data[..split].iter().product(), data[split..].iter().product())
}

fn fully_connected_infer(s: &Sig) -> Result<Specs> {
    s.one_dtype()?;
    s.expect_float(0)?;
    s.expect_ndim(0, 1..=Shape::MAX_NDIM)?;
    let hidden = s.attrs.size("num_hidden");
    let (_, length) = vectors(s.attrs, s.shape(0));
    s.expect_shape(1, &Shape::new(&[hidden, length]))?;
    if s.ins.len() > 2 {
        s.expect_shape(2, &Shape::new(&[hidden]))?;
    }
    let mut shape = if s.attrs.bool("flatten") { Shape::new(&s.shape(0)[..1]) } else { s.shape(0).clone() };
    if s.attrs.bool("flatten") {
        shape.push(hidden);
    } else {
        let last = shape.ndim() - 1;
        shape.set(last, hidden);
    }
    s.shaped(shape)
}

fn fully_connected_kernel(c: &Ctx) -> Result<()> {
    let (count, length) = vectors(c.attrs, c.shape(0));
    let hidden = c.attrs.size("num_hidden");
    let product = Product::dense(false, true, count, hidden, length);
    mxrs_base::dispatch_float!(c.dtype(0), T => {
        let (x, w, y) = (c.x::<T>(0), c.x::<T>(1), c.y::<T>(0));
        let one = <T as mxrs_base::Elem>::from_f64(1.0);
        if c.ins.len() > 2 {
            let bias = c.x::<T>(2);
            y.chunks_exact_mut(hidden).for_each(|row| row.copy_from_slice(bias));
        }
        let beta = if c.ins.len() > 2 { one } else { T::default() };
        let finish = c.finish();
        gemm_then(&product, one, x, w, beta, y, &|rows, cols| {
            rows.map(|row| row * hidden).for_each(|row| finish(row + cols.start..row + cols.end));
        });
        Ok(())
    }, else c.bad_dtype(c.dtype(0)))
}

fn fully_connected_grad(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let shape = b.shape(g.ins[0]).clone();
    let (count, length) = vectors(g.attrs, &shape);
    let hidden = g.attrs.size("num_hidden");
    let head = b.reshape(head, &Shape::new(&[count, hidden]))?;
    let mut grads = g.none();
    grads[0] = wanted(g, 0, || {
        let dx = product(b, "dot", (head, false), (g.ins[1], false))?;
        b.reshape(dx, &shape)
    })?;
    grads[1] = wanted(g, 1, || {
        let data = b.reshape(g.ins[0], &Shape::new(&[count, length]))?;
        product(b, "dot", (head, true), (data, false))
    })?;
    if g.ins.len() > 2 {
        grads[2] = wanted(g, 2, || b.sum_to(head, &Shape::new(&[hidden])))?;
    }
    Ok(grads)
}
