//! Edits of rows and elements, and flat indices: index_copy, fill_element_0index, ravel, unravel.

use super::super::registry::Registry;
use super::super::{Ctx, GpuCtx, Sig, draw, ints};
use super::{Meet, Places, back_to, gpu, name, put_on_gpu, units, units_mut};
use crate::shaders::copy::launch_fill;
use crate::shaders::each::{Each, Read};
use crate::shaders::elem::Span;
use mxrs_base::{DType, Result, Shape, dispatch};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::index::{self, Mode};

pub fn register(r: &mut Registry) {
    index_copy(r);
    fill_element(r);
    flat(r);
}

/// Rows of array `data` that the vector of input `i` names; those outside are an error.
fn rows(c: &Ctx, i: usize, data: &Shape) -> Result<(Vec<usize>, usize)> {
    let at = index::resolve(&c.indices(i), 0, data[0], Mode::Raise).map_err(|e| name(e, c))?;
    Ok((at, data[1..].iter().product()))
}

fn index_copy(r: &mut Registry) {
    r.op(
        "_contrib_index_copy",
        "old_tensor with rows replaced by those of new_tensor; the last of equal indices stays.",
    )
    .input("old_tensor", "the array to change")
    .input("index_vector", "a row number for each row of new_tensor")
    .input("new_tensor", "the rows")
    .infer(|s| {
        s.expect_ndim(1, 1..=1)?;
        if s.shape(0).ndim() == 0 {
            return Err(s.fail("old_tensor has one dimension or more"));
        }
        let mut rows = s.shape(0).clone();
        rows.set(0, s.shape(1)[0]);
        s.expect_shape(2, &rows)?;
        if s.dtype(0) != s.dtype(2) {
            return Err(s.fail("old_tensor and new_tensor must be of one type"));
        }
        s.same(0)
    })
    .updates(&[(0, 0)])
    .kernel(|c| {
        let (at, inner) = rows(c, 1, c.shape(0))?;
        dispatch_unit!(c.dtype(0).size(), U => {
            index::scatter_rows::<U>(units(c, 2), &at, inner, units_mut(c, 0))
        });
        Ok(())
    })
    .gpu(|c| {
        let inner = c.shape(0)[1..].iter().product();
        let places = Places::Clip(c.shape(0)[0]);
        put_on_gpu(c, (places, Meet::Replace), (1, c.shape(1).size()), 2, (1, inner))
    })
    .keeps(&[1], &[])
    .grad(|b, g| {
        let mut grads = g.none();
        let Some(head) = g.heads[0] else { return Ok(grads) };
        if g.need[0] {
            grads[0] = Some(b.op1("_backward_index_copy", &[head, g.ins[1]], &[])?);
        }
        if g.need[2] {
            grads[2] = Some(b.op1("take", &[head, g.ins[1]], &[])?);
        }
        Ok(grads)
    })
    .sample(&[draw(&[4, 3]), draw(&[1]).indices(4), draw(&[1, 3])], &[]);
    r.op("_backward_index_copy", "The head gradient with the replaced rows set to 0.")
        .input("head", "the gradient of the changed array")
        .input("index_vector", "the replaced rows")
        .infer(|s| {
            s.expect_ndim(0, 1..=usize::MAX)?;
            s.same(0)
        })
        .updates(&[(0, 0)])
        .kernel(|c| {
            let (at, inner) = rows(c, 1, c.shape(0))?;
            dispatch_unit!(c.dtype(0).size(), U => index::zero_rows::<U>(&at, inner, units_mut(c, 0)));
            Ok(())
        })
        .gpu(|c| {
            let (n, inner): (usize, usize) = (c.shape(1).size(), c.shape(0)[1..].iter().product());
            let zeros = c.device.alloc((c.dtype(0).size() * n * inner).max(1) as u64)?;
            let zeros = Span::new(&zeros, c.dtype(0));
            launch_fill(c.device, &[n * inner], 0.0, zeros.strided(&[1]), c.op.name)?;
            let how = (Places::Clip(c.shape(0)[0]), Meet::Replace);
            let old = Some(c.y(0));
            gpu::launch_put(c.device, how, (c.x(1), n), zeros, old, (1, inner), c.y(0), c.op.name)
        })
        .keeps(&[1], &[])
        .grad(|b, g| back_to(b, g, "_backward_index_copy", &[]))
        .hidden()
        .sample(&[draw(&[4, 3]), draw(&[1]).indices(4)], &[]);
}

fn fill_element(r: &mut Registry) {
    r.op("fill_element_0index", "lhs with one element of each row replaced: lhs[i, rhs[i]] becomes mhs[i].")
        .input("lhs", "a matrix")
        .input("mhs", "a value for each row")
        .input("rhs", "a column for each row")
        .infer(|s| {
            s.expect_ndim(0, 2..=2)?;
            let vector = Shape::new(&s.shape(0)[..1]);
            s.expect_shape(1, &vector)?;
            s.expect_shape(2, &vector)?;
            if s.dtype(0) != s.dtype(1) {
                return Err(s.fail("lhs and mhs must be of one type"));
            }
            s.same(0)
        })
        .updates(&[(0, 0)])
        .kernel(|c| {
            let width = c.shape(0)[1];
            let mut at = index::resolve(&c.indices(2), 1, width, Mode::Raise).map_err(|e| name(e, c))?;
            at.iter_mut().enumerate().for_each(|(row, i)| *i += row * width);
            dispatch_unit!(c.dtype(0).size(), U => {
                index::scatter_rows::<U>(units(c, 1), &at, 1, units_mut(c, 0))
            });
            Ok(())
        })
        .gpu(|c| {
            let (n, width) = (c.shape(0).size(), c.shape(0)[1]);
            let each = Each::new("fill element", c.y(0))
                .input("old", c.y(0), Read::Value)
                .input("put", c.x(1), Read::Value)
                .input("at", c.x(2), Read::Index)
                .size("width", width)?;
            let body = || {
                "fn element(e: u32) -> VALUE {
    let row = e / p.width;
    if (u32(clamp(at(row), 0, i32(p.width) - 1)) == e % p.width) { return put(row); }
    return old(e);
}\n"
                .into()
            };
            each.launch(c.device, n, body, c.op.name)
        })
        .sample(&[draw(&[3, 4]), draw(&[3]), draw(&[3]).indices(4)], &[]);
}

fn no_bool(s: &Sig) -> Result<()> {
    if s.dtype(0) == DType::Bool {
        return Err(s.fail("bool cannot hold indices"));
    }
    Ok(())
}

/// The axes an index array is about; at least one.
fn sizes(s: &Sig) -> Result<usize> {
    match s.attrs.ints("shape").len() {
        0 => Err(s.fail("shape has one axis or more")),
        n => Ok(n),
    }
}

/// The shape, for a kernel that counts in 32 bits.
fn extents(c: &GpuCtx) -> Result<Vec<usize>> {
    let size = |d: &i64| {
        i32::try_from(*d)
            .ok()
            .and_then(|d| usize::try_from(d).ok())
            .ok_or_else(|| c.fail(format!("an axis of size {d} is more than a GPU kernel can count")))
    };
    c.attrs.ints("shape").iter().map(size).collect()
}

fn flat(r: &mut Registry) {
    r.op(
        "_ravel_multi_index",
        "Coordinates, one column each, to row-major positions in an array of `shape`.",
    )
    .input("data", "(axes, n): coordinates, not checked against the shape")
    .param(ints("shape", "extents of the array; the first does not matter").or_none())
    .alias(&["ravel_multi_index"])
    .infer(|s| {
        no_bool(s)?;
        s.expect_ndim(0, 2..=2)?;
        if s.shape(0)[0] != sizes(s)? {
            return Err(s.fail(format!("data has one row for each of the {} axes of shape", sizes(s)?)));
        }
        s.shaped(Shape::new(&s.shape(0)[1..]))
    })
    .kernel(|c| {
        let dims = c.attrs.ints("shape");
        dispatch!(c.dtype(0), T => index::ravel::<T>(c.x(0), &dims, c.y(0)));
        Ok(())
    })
    .gpu(ravel_on_gpu)
    .zero_grad()
    .sample(&[draw(&[2, 3]).indices(3)], &[("shape", [3, 4].into())]);
    r.op(
        "_unravel_index",
        "Row-major positions in an array of `shape` to coordinates, one row for each axis.",
    )
    .input("data", "positions, of any shape; what exceeds the array goes to the first axis")
    .param(ints("shape", "extents of the array; the first does not matter").or_none())
    .alias(&["unravel_index"])
    .infer(|s| {
        no_bool(s)?;
        let mut shape = s.shape(0).clone();
        shape.insert(0, sizes(s)?);
        s.shaped(shape)
    })
    .kernel(|c| {
        let dims = c.attrs.ints("shape");
        dispatch!(c.dtype(0), T => index::unravel::<T>(c.x(0), &dims, c.y(0)))
    })
    .gpu(unravel_on_gpu)
    .zero_grad()
    .sample(&[draw(&[4]).indices(12)], &[("shape", [3, 4].into())]);
}

/// Counted in 32 bits, wrapping.
fn ravel_on_gpu(c: &GpuCtx) -> Result<()> {
    let dims = extents(c)?;
    let mut each = Each::new("ravel", c.y(0)).variant(dims.len() as u64).input("at", c.x(0), Read::Index);
    each = each.size("count", c.out_shape(0).size())?;
    for (d, size) in dims.iter().enumerate() {
        each = each.size(format!("size{d}"), *size)?;
    }
    let body = || {
        let step = |d| format!("    flat = flat * i32(p.size{d}) + at({d}u * p.count + e);\n");
        let steps: String = (0..dims.len()).map(step).collect();
        format!("fn element(e: u32) -> VALUE {{\n    var flat = 0;\n{steps}    return VALUE(flat);\n}}\n")
    };
    each.launch(c.device, c.out_shape(0).size(), body, c.op.name)
}

/// Each axis divides by what is behind it.
fn unravel_on_gpu(c: &GpuCtx) -> Result<()> {
    let dims = extents(c)?;
    if let Some(axis) = dims.iter().skip(1).position(|d| *d == 0) {
        return Err(c.fail(format!("axis {} of shape {dims:?} has size 0", axis + 1)));
    }
    let mut each = Each::new("unravel", c.y(0)).input("at", c.x(0), Read::Index);
    each = each.variant(dims.len() as u64).size("count", c.shape(0).size())?;
    for (d, size) in dims.iter().enumerate() {
        each = each.size(format!("size{d}"), *size)?;
    }
    let body = || {
        let step = |d| {
            format!(
                "    if (axis == {d}u) {{ return VALUE(rest % i32(p.size{d})); }}\n    rest = rest / i32(p.size{d});\n"
            )
        };
        let steps: String = (1..dims.len()).rev().map(step).collect();
        format!(
            "fn element(e: u32) -> VALUE {{
    let axis = e / p.count;
    var rest = at(e % p.count);
{steps}    return VALUE(rest);\n}}\n"
        )
    };
    each.launch(c.device, c.out_shape(0).size(), body, c.op.name)
}
