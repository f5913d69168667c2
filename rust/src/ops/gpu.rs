//! What an operator's body on a GPU sees: the device, and where inputs and outputs lie on it.
//!
//! Formulas run everywhere by themselves, and so do operators that only see elements under another shape. Every other kernel states
//! its GPU body in its record (`.gpu`), mostly a line that launches a shader; one that has none yet says so by name.

use super::attrs::Attrs;
use super::def::{Body, OpRef};
use super::infer::Spec;
use super::kernel::{RngPos, broadcast_strides};
use crate::device::{Buffer, Device};
use crate::shaders::{Place, Span, copy, map};
use mxrs_base::{DType, Error, Result, Shape};
use mxrs_formula::Formula;
use smallvec::SmallVec;

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
}

impl<'a> GpuCtx<'a> {
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

/// Sends the commands of a formula's or a kernel's body to its device.
pub fn run_gpu(ctx: &GpuCtx) -> Result<()> {
    let name = ctx.op.name;
    match &ctx.op.body {
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
    let strides = |shape: &Shape| -> SmallVec<[isize; 4]> {
        broadcast_strides(shape, dims).into_iter().map(|s| s as isize).collect()
    };
    let of_inputs: SmallVec<[SmallVec<[isize; 4]>; 4]> =
        views.iter().map(|v| strides(&v.spec.shape)).collect();
    let own = strides(dims);
    let ins: SmallVec<[Place; 4]> = views.iter().zip(&of_inputs).map(|(v, s)| v.span().strided(s)).collect();
    map::launch_map(device, formula, params, dims, &ins, out.span().strided(&own), label)
}
