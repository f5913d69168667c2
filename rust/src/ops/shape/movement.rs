//! Between operators and the movement kernels: moves of whole arrays through a view.

use super::super::Ctx;
use mxrs_base::{AttrValue, DType, Elem, Error, Result, Shape, dispatch};
use mxrs_kernels::copy::{self, Unit, View};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::parts::{bytes_of, units, units_mut};

/// `value` in `dtype`, as a unit; `U` has the size of `dtype`.
pub fn constant<U: Unit>(dtype: DType, value: f64) -> U {
    dispatch!(dtype, T => units::<U>(bytes_of(&[<T as Elem>::from_f64(value)]))[0])
}

/// Output 0 = the elements of input 0 that `view` names.
pub fn gather(c: &Ctx, view: &View) -> Result<()> {
    gather_into(c, view, 0)
}

/// Output `o` = the elements of input 0 that `view` names.
pub fn gather_into(c: &Ctx, view: &View, o: usize) -> Result<()> {
    dispatch_unit!(c.dtype(0).size(), U => {
        copy::gather(units::<U>(c.x_bytes(0)), view, units_mut::<U>(c.y_bytes(o)));
    });
    Ok(())
}

/// Output 0 = the elements of input 0 as they lie.
pub fn copy_through(c: &Ctx) -> Result<()> {
    gather(c, &View::of(&[c.shape(0).size()]))
}

/// Output 0 = zeros, with the elements of input 0 in the places that `view` names.
pub fn place(c: &Ctx, view: &View) -> Result<()> {
    dispatch_unit!(c.dtype(0).size(), U => {
        let out = units_mut::<U>(c.y_bytes(0));
        copy::fill(out, U::default());
        copy::scatter(units::<U>(c.x_bytes(0)), out, view);
    });
    Ok(())
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
