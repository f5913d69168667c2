//! Between operators and the movement kernels: moves of whole arrays through a view, on the host and on GPUs.

use super::super::{Attrs, Ctx, GpuCtx, OpRef, Sig, Spec};
use crate::shaders::copy::{launch_copy, launch_fill};
use crate::shaders::{Place, Span};
use mxrs_base::{AttrValue, DType, Elem, Error, Result, Shape, dispatch};
use mxrs_kernels::copy::{self, Unit, View};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::parts::{bytes_of, units, units_mut};
use smallvec::SmallVec;

/// `value` in `dtype`, as a unit; `U` has the size of `dtype`.
pub fn constant<U: Unit>(dtype: DType, value: f64) -> U {
    dispatch!(dtype, T => units::<U>(bytes_of(&[<T as Elem>::from_f64(value)]))[0])
}

/// One run of a body that only moves elements: the same text on the host and on a GPU.
pub struct Movement<'a> {
    pub op: OpRef,
    pub attrs: &'a Attrs,
    /// Of the inputs and of the outputs.
    pub ins: Specs<'a>,
    pub outs: Specs<'a>,
    on: On<'a>,
}

type Specs<'a> = SmallVec<[&'a Spec; 2]>;

enum On<'a> {
    Host(&'a Ctx<'a>),
    Gpu(&'a GpuCtx<'a>),
}

impl<'a> Movement<'a> {
    pub fn host(c: &'a Ctx<'a>) -> Movement<'a> {
        let (ins, outs) = (c.ins.iter().map(|v| v.spec).collect(), c.outs.iter().map(|v| v.spec).collect());
        Movement { op: c.op, attrs: c.attrs, ins, outs, on: On::Host(c) }
    }

    pub fn gpu(c: &'a GpuCtx<'a>) -> Movement<'a> {
        let (ins, outs) = (c.ins.iter().map(|v| v.spec).collect(), c.outs.iter().map(|v| v.spec).collect());
        Movement { op: c.op, attrs: c.attrs, ins, outs, on: On::Gpu(c) }
    }

    pub fn shape(&self, i: usize) -> &'a Shape {
        &self.ins[i].shape
    }
    pub fn out_shape(&self, i: usize) -> &'a Shape {
        &self.outs[i].shape
    }
    /// What the shape rule saw.
    pub fn sig(&self) -> Sig<'_> {
        Sig { op: self.op, attrs: self.attrs, ins: &self.ins }
    }
    /// An error of this run.
    pub fn fail(&self, text: impl std::fmt::Display) -> Error {
        self.sig().fail(text)
    }

    /// Output 0 = the elements of input 0 that `view` names.
    pub fn gather(&self, view: &View) -> Result<()> {
        self.gather_into(view, 0)
    }

    /// Output `o` = the elements of input 0 that `view` names.
    pub fn gather_into(&self, view: &View, o: usize) -> Result<()> {
        match self.on {
            On::Host(c) => dispatch_unit!(c.dtype(0).size(), U => {
                copy::gather(units::<U>(c.x_bytes(0)), view, units_mut::<U>(c.y_bytes(o)));
            }),
            On::Gpu(c) => {
                let rows = View::of(&view.dims);
                launch_copy(c.device, &view.dims, through(c.x(0), view), through(c.y(o), &rows), c.op.name)?;
            }
        }
        Ok(())
    }

    /// Output 0 = the elements of input 0 as they lie.
    pub fn copy_through(&self) -> Result<()> {
        self.gather(&View::of(&[self.shape(0).size()]))
    }

    /// The elements of input `i`, or its only one everywhere, go to the places of output 0 that `view` names.
    pub fn put(&self, i: usize, view: &View) -> Result<()> {
        match self.on {
            On::Host(c) => dispatch_unit!(c.dtype(0).size(), U => {
                copy::scatter(units::<U>(c.x_bytes(i)), units_mut::<U>(c.y_bytes(0)), view);
            }),
            On::Gpu(c) => {
                let mut rows = View::of(&view.dims);
                if self.shape(i).size() == 1 {
                    rows.strides.iter_mut().for_each(|s| *s = 0);
                }
                launch_copy(c.device, &view.dims, through(c.x(i), &rows), through(c.y(0), view), c.op.name)?;
            }
        }
        Ok(())
    }

    /// One number goes to the places of output 0 that `view` names.
    pub fn put_number(&self, value: f64, view: &View) -> Result<()> {
        match self.on {
            On::Host(c) => dispatch_unit!(c.dtype(0).size(), U => {
                let value = constant::<U>(c.dtype(0), value);
                copy::scatter(&[value], units_mut::<U>(c.y_bytes(0)), view);
            }),
            On::Gpu(c) => launch_fill(c.device, &view.dims, value, through(c.y(0), view), c.op.name)?,
        }
        Ok(())
    }

    /// Output 0 = zeros, with the elements of input 0 in the places that `view` names.
    pub fn place(&self, view: &View) -> Result<()> {
        match self.on {
            On::Host(c) => dispatch_unit!(c.dtype(0).size(), U => {
                let out = units_mut::<U>(c.y_bytes(0));
                copy::fill(out, U::default());
                copy::scatter(units::<U>(c.x_bytes(0)), out, view);
            }),
            On::Gpu(c) => {
                let (all, rows) = (View::of(&[c.out_shape(0).size()]), View::of(&view.dims));
                launch_fill(c.device, &all.dims, 0.0, through(c.y(0), &all), c.op.name)?;
                launch_copy(c.device, &view.dims, through(c.x(0), &rows), through(c.y(0), view), c.op.name)?;
            }
        }
        Ok(())
    }
}

/// The elements of a span in the order of a view.
fn through<'a>(span: Span<'a>, view: &'a View) -> Place<'a> {
    // A view's first element lies inside its source.
    let offset = span.offset + view.offset.unsigned_abs();
    Place { buffer: span.buffer, dtype: span.dtype, offset, strides: &view.strides }
}

/// A tuple with `None` entries as an attribute.
pub fn optional(values: impl IntoIterator<Item = Option<i64>>) -> AttrValue {
    AttrValue::Ints(values.into_iter().collect())
}

/// A shape of these extents, or an error where it is too large for any memory.
pub fn checked(dims: impl IntoIterator<Item = Option<usize>>) -> Result<Shape> {
    let shape: Option<Shape> = dims.into_iter().collect::<Option<Vec<usize>>>().map(|d| Shape::new(&d));
    let shape = shape.ok_or_else(|| Error::memory("the result has more elements than memory can address"))?;
    shape.checked_size()?;
    Ok(shape)
}
