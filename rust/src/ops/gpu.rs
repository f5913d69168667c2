//! What an operator's body on a GPU sees: the device, and where inputs and outputs lie on it.
//!
//! Formulas run everywhere by themselves, and so do operators that only see elements under another shape. Every other kernel states
//! its GPU body in its record (`.gpu`), mostly a line that launches a shader; one that has none yet says so by name.

use super::attrs::Attrs;
use super::def::{Body, OpRef};
use super::infer::Spec;
use super::kernel::{RngPos, broadcast_strides};
use crate::device::{Buffer, Device};
use crate::shaders::epilogue::{Bias, Epilogue, Finish, Other};
use crate::shaders::{Place, Span, copy, map};
use mxrs_base::{DType, Error, Result, Shape};
use mxrs_formula::Formula;
use smallvec::SmallVec;
use std::cell::Cell;

/// The memory of one value on a device.
#[derive(Clone, Copy)]
pub struct GpuView<'a> {
    pub buffer: &'a Buffer,
    /// Where it begins, in elements.
    pub offset: usize,
    pub spec: &'a Spec,
}

impl<'a> GpuView<'a> {
    pub fn span(&self) -> Span<'a> {
        Span { buffer: self.buffer, dtype: self.spec.dtype, offset: self.offset }
    }
}

/// One run of a GPU body.
pub struct GpuCtx<'a> {
    pub op: OpRef,
    pub attrs: &'a Attrs,
    pub ins: &'a [GpuView<'a>],
    pub outs: &'a [GpuView<'a>],
    pub train: bool,
    pub rng: RngPos,
    pub device: &'a Device,
    /// What was fused behind the kernel.
    pub then: Option<&'a GpuThen<'a>>,
}

/// A formula that was fused behind a kernel. The kernel's launch takes it along ([`GpuCtx::epilogue`]), or it follows as
/// a dispatch of its own.
pub struct GpuThen<'a> {
    formula: &'a Formula,
    params: &'a [f64],
    /// The formula's inputs, the kernel's result among them.
    views: &'a [GpuView<'a>],
    /// Which one is the result.
    at: usize,
    /// The others, where a launch finds their elements.
    others: Option<&'a [Other<'a>]>,
    taken: Cell<bool>,
}

impl<'a> GpuThen<'a> {
    /// A formula of the result, which is its input `at`, and of other `views`, as [`GpuThen::others`] found them.
    pub fn new(
        formula: &'a Formula,
        params: &'a [f64],
        at: usize,
        views: &'a [GpuView<'a>],
        others: Option<&'a [Other<'a>]>,
    ) -> GpuThen<'a> {
        GpuThen { formula, params, views, at, others, taken: Cell::new(false) }
    }

    /// Where `more` repeats over the result; `None` where a launch cannot tell for one of them.
    pub fn others<'v>(more: &[GpuView<'v>], result: &GpuView) -> Option<SmallVec<[Other<'v>; 3]>> {
        more.iter().map(|v| Other::over(v.span(), &v.spec.shape, &result.spec.shape)).collect()
    }
}

/// Slots that a product binds before its epilogue's: two operands and the result.
const PRODUCT_SLOTS: usize = 3;

impl<'a> GpuCtx<'a> {
    /// What the launch of a product, output 0, does to its sums: the bias, and what was fused behind, if the device binds
    /// as many buffers.
    pub fn epilogue(&self, bias: Bias<'a>) -> Epilogue<'a> {
        let slots = PRODUCT_SLOTS + usize::from(!matches!(bias, Bias::None));
        Epilogue { bias, finish: self.finish(slots, |_| true), ..Epilogue::NONE }
    }
    /// What was fused behind the kernel, for a launch that binds `slots` buffers of its own, finds the elements of all
    /// others for which `finds` says so, and does it to each element of output 0. Who gets it has to do it.
    pub fn finish(&self, slots: usize, finds: impl Fn(&Other) -> bool) -> Option<Finish<'a>> {
        let then = self.then?;
        let others = then.others?;
        if slots + others.len() > self.device.limits().storage_buffers as usize || !others.iter().all(finds) {
            return None;
        }
        then.taken.set(true);
        Some(Finish { formula: then.formula, params: then.params, at: then.at, others })
    }
    pub fn shape(&self, i: usize) -> &'a Shape {
        &self.ins[i].spec.shape
    }
    pub fn dtype(&self, i: usize) -> DType {
        self.ins[i].spec.dtype
    }
    pub fn out_shape(&self, i: usize) -> &'a Shape {
        &self.outs[i].spec.shape
    }
    /// Where input `i` lies.
    pub fn x(&self, i: usize) -> Span<'a> {
        self.ins[i].span()
    }
    /// Where output `i` lies.
    pub fn y(&self, i: usize) -> Span<'a> {
        self.outs[i].span()
    }
    /// The elements of input `i` where they lie, with the strides of its rows.
    pub fn rows(&self, i: usize) -> SmallVec<[isize; 4]> {
        broadcast_strides(self.shape(i), self.shape(i)).into_iter().map(|s| s as isize).collect()
    }
    /// An error of this run.
    pub fn fail(&self, text: impl std::fmt::Display) -> Error {
        let shapes: Vec<String> =
            self.ins.iter().map(|v| format!("{} {}", v.spec.dtype, v.spec.shape)).collect();
        Error::op(format!("{}: {text} (given {})", self.op.name, shapes.join(", ")))
    }
}

/// Whether the operator runs on a GPU.
pub fn has_gpu_body(op: OpRef) -> bool {
    match &op.body {
        Body::Formula { .. } | Body::Compose(_) => true,
        Body::Kernel(_) => op.gpu.is_some() || op.views,
    }
}

/// Sends the commands of a formula's or a kernel's body to its device, and of what was fused behind it.
pub fn run_gpu(ctx: &GpuCtx) -> Result<()> {
    run_body(ctx)?;
    if matches!(ctx.op.body, Body::Kernel(_)) {
        let joined = ctx.then.filter(|t| t.taken.get()).and_then(|t| t.others).unwrap_or_default();
        let more: usize = joined.iter().map(|o| o.span.dtype.size() * o.count).sum();
        ctx.device.touched((bytes(ctx.ins) + bytes(ctx.outs) + more) as u64);
    }
    match ctx.then {
        Some(t) if !t.taken.get() => {
            run_formula_gpu(ctx.device, t.formula, t.params, t.views, &ctx.outs[0], ctx.op.name)
        }
        _ => Ok(()),
    }
}

fn run_body(ctx: &GpuCtx) -> Result<()> {
    let name = ctx.op.name;
    match &ctx.op.body {
        // Types that GPUs do not compute in can still be moved.
        Body::Formula { .. } if (ctx.op.views || name == "_copyto") && ctx.dtype(0).size() == 8 => {
            copy::launch_cast(ctx.device, ctx.shape(0).size(), ctx.x(0), ctx.y(0), name)
        }
        Body::Formula { formula, .. } => {
            let params: SmallVec<[f64; 4]> = formula.params().iter().map(|p| ctx.attrs.number(p)).collect();
            run_formula_gpu(ctx.device, formula, &params, ctx.ins, &ctx.outs[0], name)
        }
        Body::Kernel(_) => {
            for &(o, i) in ctx.op.updates.iter().take_while(|(o, _)| *o < ctx.outs.len()) {
                let (from, to) = (ctx.x(i), ctx.y(o));
                if !from.buffer.same_memory(to.buffer) || from.offset != to.offset {
                    copy::launch_cast(ctx.device, ctx.shape(i).size(), from, to, name)?;
                }
            }
            match &ctx.op.gpu {
                Some(body) => body(ctx),
                None if ctx.op.views => {
                    copy::launch_cast(ctx.device, ctx.shape(0).size(), ctx.x(0), ctx.y(0), name)
                }
                None => Err(Error::not_implemented(format!(
                    "operator {name} has no GPU kernel yet; move its inputs with as_in_context(mx.cpu())"
                ))),
            }
        }
        Body::Compose(_) => Err(Error::op(format!("{name} is a composition and has no kernel"))),
    }
}

/// Bytes of arrays.
fn bytes(views: &[GpuView]) -> usize {
    views.iter().map(|v| v.spec.shape.size() * v.spec.dtype.size()).sum()
}

/// Evaluates a formula over arrays that broadcast to the output's shape.
pub fn run_formula_gpu(
    device: &Device,
    formula: &Formula,
    params: &[f64],
    views: &[GpuView],
    out: &GpuView,
    label: &'static str,
) -> Result<()> {
    let dims = &out.spec.shape;
    device.touched((bytes(views) + bytes(std::slice::from_ref(out))) as u64);
    let strides = |shape: &Shape| -> SmallVec<[isize; 4]> {
        broadcast_strides(shape, dims).into_iter().map(|s| s as isize).collect()
    };
    let of_inputs: SmallVec<[SmallVec<[isize; 4]>; 4]> =
        views.iter().map(|v| strides(&v.spec.shape)).collect();
    let own = strides(dims);
    let ins: SmallVec<[Place; 4]> = views.iter().zip(&of_inputs).map(|(v, s)| v.span().strided(s)).collect();
    map::launch_map(device, formula, params, dims, &ins, out.span().strided(&own), label)
}
