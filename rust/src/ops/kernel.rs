//! What a kernel body sees: typed slices of its inputs and outputs, attributes, and the call's random position.

use super::attrs::Attrs;
use super::def::{Body, OpRef};
use super::infer::{Sig, Spec};
use mxrs_base::{DType, Elem, Error, Result, Shape};
use mxrs_formula::{Formula, Operand, Prepared};
use smallvec::SmallVec;
use std::ops::Range;

/// The memory of one value.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub ptr: *mut u8,
    pub spec: &'a Spec,
}

/// The place of a call in the random stream: element `i` of the call is a function of `(seed, offset, i)`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RngPos {
    pub seed: u64,
    pub offset: u64,
}

/// One run of a kernel.
pub struct Ctx<'a> {
    pub op: OpRef,
    pub attrs: &'a Attrs,
    pub ins: &'a [View<'a>],
    pub outs: &'a [View<'a>],
    pub train: bool,
    pub rng: RngPos,
    /// What was fused behind the kernel.
    pub then: Option<&'a Prepared>,
}

impl<'a> Ctx<'a> {
    /// What a kernel whose record says `finishes` calls with each part of output 0 as soon as the part is computed and
    /// nobody else uses it, once for every element.
    pub fn finish(&self) -> impl Fn(Range<usize>) + Sync + use<'a> {
        let then = self.then;
        move |part| {
            if let Some(then) = then {
                // SAFETY: the formula was prepared for this output; the kernel gives parts that are its own.
                unsafe { then.range(part) }
            }
        }
    }
    #[inline]
    pub fn shape(&self, i: usize) -> &'a Shape {
        &self.ins[i].spec.shape
    }
    #[inline]
    pub fn out_shape(&self, i: usize) -> &'a Shape {
        &self.outs[i].spec.shape
    }
    #[inline]
    pub fn dtype(&self, i: usize) -> DType {
        self.ins[i].spec.dtype
    }
    #[inline]
    pub fn out_dtype(&self, i: usize) -> DType {
        self.outs[i].spec.dtype
    }

    /// Input `i`.
    #[inline]
    pub fn x<T: Elem>(&self, i: usize) -> &'a [T] {
        slice(&self.ins[i])
    }
    /// Output `i`. Its content is undefined until written (or, for `updates`, a copy of its input). Ask once per
    /// output and run: two calls for one output would give two slices of the same memory.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn y<T: Elem>(&self, i: usize) -> &'a mut [T] {
        slice_mut(&self.outs[i])
    }
    /// Input `i` of those that the record declares in `mutates`.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn state<T: Elem>(&self, i: usize) -> &'a mut [T] {
        assert!(self.op.mutates.contains(&i), "{} does not declare that it mutates input {i}", self.op.name);
        slice_mut(&self.ins[i])
    }
    /// The bytes of input `i`, for kernels that only move elements.
    pub fn x_bytes(&self, i: usize) -> &'a [u8] {
        let v = &self.ins[i];
        // SAFETY: as in `slice`.
        unsafe { std::slice::from_raw_parts(v.ptr, v.spec.shape.size() * v.spec.dtype.size()) }
    }
    /// The bytes of output `i`.
    #[allow(clippy::mut_from_ref)]
    pub fn y_bytes(&self, i: usize) -> &'a mut [u8] {
        let v = &self.outs[i];
        // SAFETY: as in `slice_mut`.
        unsafe { std::slice::from_raw_parts_mut(v.ptr, v.spec.shape.size() * v.spec.dtype.size()) }
    }

    /// An error of this run.
    pub fn fail(&self, text: impl std::fmt::Display) -> Error {
        let shapes: Vec<String> =
            self.ins.iter().map(|v| format!("{} {}", v.spec.dtype, v.spec.shape)).collect();
        Error::op(format!("{}: {text} (given {})", self.op.name, shapes.join(", ")))
    }

    /// Input `i` as whole numbers, whatever its type (index arrays are floats in most MXNet programs).
    pub fn indices(&self, i: usize) -> Vec<i64> {
        mxrs_base::dispatch!(self.dtype(i), T => self.x::<T>(i).iter().map(|v| v.to_i64()).collect())
    }

    /// An error that this operator does not take this element type.
    pub fn bad_dtype<T>(&self, dtype: DType) -> Result<T> {
        Err(self.fail(format!("element type {dtype} is not supported")))
    }
}

fn slice<'a, T: Elem>(v: &View<'a>) -> &'a [T] {
    assert_eq!(v.spec.dtype, T::DTYPE, "a kernel read an input as another element type");
    // SAFETY: the engine granted the chunk for reading; its memory holds the spec's size, aligned for every element.
    unsafe { std::slice::from_raw_parts(v.ptr.cast(), v.spec.shape.size()) }
}

#[allow(clippy::mut_from_ref)]
fn slice_mut<'a, T: Elem>(v: &View<'a>) -> &'a mut [T] {
    assert_eq!(v.spec.dtype, T::DTYPE, "a kernel wrote an output as another element type");
    // SAFETY: the engine granted the chunk for writing to this run alone; size and alignment as above.
    unsafe { std::slice::from_raw_parts_mut(v.ptr.cast(), v.spec.shape.size()) }
}

/// Estimated nanoseconds of one call on one core.
pub fn estimate(sig: &Sig, outs: &[Spec]) -> f64 {
    match (&sig.op.cost, &sig.op.body) {
        (Some(cost), _) => cost(sig, outs),
        (None, Body::Formula { formula, .. }) => outs[0].shape.size() as f64 * formula.cost(),
        _ => sig.ins.iter().copied().chain(outs).map(|s| s.shape.size()).sum::<usize>() as f64,
    }
}

/// Runs the body of a formula or kernel operator.
pub fn run(ctx: &Ctx) -> Result<()> {
    match &ctx.op.body {
        Body::Formula { formula, .. } => {
            let params: SmallVec<[f64; 4]> =
                formula.params().iter().map(|name| ctx.attrs.number(name)).collect();
            run_formula(formula, &params, ctx.ins, &ctx.outs[0]);
            Ok(())
        }
        Body::Kernel(kernel) => {
            // Operators over many weights declare a pair for each that there may be.
            for &(o, i) in ctx.op.updates.iter().take_while(|(o, _)| *o < ctx.outs.len()) {
                if ctx.outs[o].ptr != ctx.ins[i].ptr {
                    ctx.y_bytes(o).copy_from_slice(ctx.x_bytes(i));
                }
            }
            kernel(ctx)
        }
        Body::Compose(_) => Err(Error::op(format!("{} is a composition and has no kernel", ctx.op.name))),
    }
}

/// Runs a kernel with a formula fused behind it: of the kernel's result, which is `views[at]`, and other arrays.
pub fn run_then(ctx: &Ctx, formula: &Formula, params: &[f64], views: &[View]) -> Result<()> {
    let out = &ctx.outs[0];
    let dims = &out.spec.shape;
    if dims.contains(&0) {
        return run(ctx);
    }
    let strides: SmallVec<[SmallVec<[usize; 4]>; 4]> =
        views.iter().map(|v| broadcast_strides(&v.spec.shape, dims)).collect();
    let ins: SmallVec<[Operand; 4]> =
        views.iter().zip(&strides).map(|(v, strides)| Operand { ptr: v.ptr.cast_const(), strides }).collect();
    let dtype = out.spec.dtype;
    // SAFETY: the strides were made for these extents; the engine granted inputs and output.
    let then = unsafe { formula.prepare(dtype, params, dims, &ins, out.ptr, dtype) };
    run(&Ctx { then: Some(&then), ..*ctx })
}

/// Evaluates a formula over arrays that broadcast to the output's shape.
pub fn run_formula(formula: &Formula, params: &[f64], views: &[View], out: &View) {
    let dims = &out.spec.shape;
    if dims.contains(&0) {
        return;
    }
    let dtype = views.first().map_or(out.spec.dtype, |v| v.spec.dtype);
    if views.iter().all(|v| v.spec.shape == *dims) {
        // The commonest case: nothing is broadcast, so the arrays are lines of equal length.
        let ins: SmallVec<[Operand; 4]> =
            views.iter().map(|v| Operand { ptr: v.ptr.cast_const(), strides: &[1] }).collect();
        // SAFETY: every input and the output hold `size` elements; the engine granted them.
        unsafe { formula.eval(dtype, params, &[dims.size()], &ins, out.ptr, out.spec.dtype) };
        return;
    }
    let strides: SmallVec<[SmallVec<[usize; 4]>; 4]> =
        views.iter().map(|v| broadcast_strides(&v.spec.shape, dims)).collect();
    let ins: SmallVec<[Operand; 4]> =
        views.iter().zip(&strides).map(|(v, strides)| Operand { ptr: v.ptr.cast_const(), strides }).collect();
    // SAFETY: the strides were made for these extents; the engine granted inputs and output.
    unsafe { formula.eval(dtype, params, dims, &ins, out.ptr, out.spec.dtype) }
}

/// Strides with which `shape` is read over the extents `dims`: 0 where it repeats.
pub(super) fn broadcast_strides(shape: &Shape, dims: &Shape) -> SmallVec<[usize; 4]> {
    let mut strides: SmallVec<[usize; 4]> = SmallVec::from_elem(0, dims.ndim());
    let lead = dims.ndim() - shape.ndim();
    let mut step = 1usize;
    for i in (0..shape.ndim()).rev() {
        if shape[i] != 1 {
            strides[lead + i] = step;
        }
        step *= shape[i];
    }
    strides
}
