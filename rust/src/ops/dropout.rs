//! Dropout (Srivastava and others, 2014), scaled while training so that inference is the identity.

use super::gpu::run_formula_gpu;
use super::registry::Registry;
use super::{Ctx, GpuCtx, Param, choice, draw, empty, flag, float, ints};
use crate::shaders::copy::{launch_cast, launch_copy};
use crate::shaders::elem::Span;
use crate::shaders::random::{Draw, launch_random};
use mxrs_base::{Result, dispatch_float};
use mxrs_formula::Formula;
use mxrs_kernels::philox::Stream;
use mxrs_kernels::real::Float;
use mxrs_kernels::sample;
use smallvec::{SmallVec, smallvec};
use std::sync::LazyLock;

pub fn register(r: &mut Registry) {
    r.op(
        "Dropout",
        "While training, zeroes each element with probability `p` and scales the others by 1 / (1 - p).",
    )
    .keeps_shape()
    .input("data", "values of any shape")
    .params([
        float("p", "the probability of zero").or(0.5).at_least(0.0).at_most(1.0),
        choice("mode", &["always", "training"], "when elements are dropped").or("training"),
        ints("axes", "axes along which all elements share one decision").or(empty()),
        unused_flag(),
    ])
    .alias(&["_npx_dropout"])
    .random()
    .trains()
    .visible(|_| 1)
    .file_outputs(|_| 2)
    .output_names(&["output"])
    .infer(|s| {
        s.expect_float(0)?;
        s.shape(0).axes(&s.attrs.ints("axes")).map_err(|e| s.fail(e.message()))?;
        let mut specs = s.same(0)?;
        specs.push(s.ins[0].clone());
        Ok(specs)
    })
    .kernel(|c| {
        dispatch_float!(c.dtype(0), T => body(c, c.x::<T>(0), c.y::<T>(0), c.y::<T>(1)),
                else c.bad_dtype(c.dtype(0)))
    })
    .gpu(body_on_gpu)
    .inference(|_, a, ins| {
        let active = a.str("mode") == "always" && a.float("p") > 0.0;
        Ok(if active { None } else { Some(smallvec![ins[0]]) })
    })
    .keeps(&[], &[1])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let active = (g.train || g.attrs.str("mode") == "always") && g.attrs.float("p") > 0.0;
        let grad = if active { b.mul(head, g.outs[1])? } else { head };
        g.first(grad)
    })
    .cost(|s, _| s.shape(0).size() as f64 * 1.5)
    .sample(&[draw(&[2, 3])], &[])
    .sample(&[draw(&[2, 3])], &[("axes", [1].into()), ("p", 0.25.into())]);
}

fn unused_flag() -> Param {
    let mut param = flag("cudnn_off", "has no meaning here").or_none();
    param.default = Some(false.into());
    param
}

/// The mask (second output) is written only where elements are dropped.
fn body<T: Float>(c: &Ctx, x: &[T], y: &mut [T], mask: &mut [T]) -> Result<()> {
    let p = c.attrs.float("p");
    if p == 0.0 || !(c.train || c.attrs.str("mode") == "always") {
        y.copy_from_slice(x);
        return Ok(());
    }
    let stream = Stream::new(c.rng.seed, c.rng.offset);
    let axes = c.shape(0).axes(&c.attrs.ints("axes"))?;
    if axes.is_empty() {
        sample::dropout_mask(stream, p, mask);
    } else {
        sample::dropout_mask_shared(stream, p, c.shape(0), &axes, mask);
    }
    sample::apply_mask(x, mask, y);
    Ok(())
}

static MASKED: LazyLock<Formula> = LazyLock::new(|| Formula::build(2, &[], |a| a.x(0) * a.x(1)));

/// The same on a GPU, with the same stream.
fn body_on_gpu(c: &GpuCtx) -> Result<()> {
    let (p, n, name) = (c.attrs.float("p"), c.shape(0).size(), c.op.name);
    if p == 0.0 || !(c.train || c.attrs.str("mode") == "always") {
        return launch_cast(c.device, n, c.x(0), c.y(0), name);
    }
    let (draw, stream) = (Draw::Mask { p }, (c.rng.seed, c.rng.offset));
    let dims = c.shape(0);
    let axes = dims.axes(&c.attrs.ints("axes"))?;
    if axes.is_empty() {
        launch_random(c.device, draw, stream, n, c.y(1), name)?;
    } else {
        // One number for each place of the other axes, repeated along these.
        let mut strides: SmallVec<[isize; 8]> = smallvec![0; dims.ndim()];
        let mut small = 1;
        for d in (0..dims.ndim()).rev().filter(|d| !axes.contains(d)) {
            strides[d] = small as isize;
            small *= dims[d];
        }
        let dtype = c.dtype(0);
        let mask = c.device.alloc((small * dtype.size()).max(4) as u64)?;
        let mask = Span::new(&mask, dtype);
        launch_random(c.device, draw, stream, small, mask, name)?;
        launch_copy(c.device, dims, mask.strided(&strides), c.y(1).strided(&c.rows(0)), name)?;
    }
    run_formula_gpu(c.device, &MASKED, &[], &[c.ins[0], c.outs[1]], &c.outs[0], name)
}
