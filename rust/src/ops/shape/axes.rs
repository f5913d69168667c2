//! Permutations and reversals of axes, the exchange of depth and space, and diagonals.

use super::super::registry::Registry;
use super::super::{Build, GradArgs, Grads, Sig, draw, empty, int, ints};
use super::movement::Movement;
use mxrs_base::{AttrValue, Result, Shape};
use mxrs_kernels::copy::View;

pub fn register(r: &mut Registry) {
    r.op("transpose", "The axes in another order; without `axes`, in reverse order.")
        .input("data", "values of any shape")
        .param(ints("axes", "for each axis of the result, the axis of data").or(empty()))
        .method(&["transpose"])
        .infer(|s| {
            let axes = permutation(s)?;
            s.shaped(axes.iter().map(|a| s.shape(0)[*a]).collect())
        })
        .moves(|c| {
            let axes = permutation(&c.sig())?;
            c.gather(&View::of(c.shape(0)).transpose(&axes))
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let axes = permutation(&Sig { op: g.op, attrs: g.attrs, ins: &[b.spec(g.ins[0])] })?;
            let mut inverse = vec![0i64; axes.len()];
            axes.iter().enumerate().for_each(|(to, from)| inverse[*from] = to as i64);
            let grad = b.transpose(head, &inverse)?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3, 4])], &[])
        .sample(&[draw(&[2, 3, 4])], &[("axes", [1, 2, 0].into())]);
    r.op("SwapAxis", "Two axes exchanged.")
        .input("data", "values of any shape")
        .param(int("dim1", "one axis; negative ones count from the end").or(0i64))
        .param(int("dim2", "the other axis").or(0i64))
        .alias(&["swapaxes", "_npi_swapaxes"])
        .method(&["swapaxes"])
        .infer(|s| {
            let axes = swapped(s)?;
            s.shaped(axes.iter().map(|a| s.shape(0)[*a]).collect())
        })
        .moves(|c| {
            let axes = swapped(&c.sig())?;
            c.gather(&View::of(c.shape(0)).transpose(&axes))
        })
        .keeps(&[], &[])
        .grad(itself)
        .sample(&[draw(&[2, 3, 4])], &[("dim1", 0i64.into()), ("dim2", (-1i64).into())]);
    r.op("reverse", "The order of the elements reversed along axes.")
        .keeps_shape()
        .input("data", "values of any shape")
        .param(ints("axis", "the axes along which to reverse; negative ones count from the end"))
        .alias(&["flip"])
        .method(&["flip"])
        .infer(|s| {
            s.shape(0).axes(&s.attrs.ints("axis")).map_err(|e| s.fail(e.message()))?;
            s.same(0)
        })
        .moves(|c| {
            let axes = c.shape(0).axes(&c.attrs.ints("axis"))?;
            c.gather(&axes.iter().fold(View::of(c.shape(0)), |view, axis| view.flip(*axis)))
        })
        .keeps(&[], &[])
        .grad(itself)
        .sample(&[draw(&[2, 3])], &[("axis", 1i64.into())])
        .sample(&[draw(&[2, 3, 2])], &[("axis", [0, 2].into())]);
    blocks(r);
    diagonals(r);
}

/// A running call as the shape rules see it.
/// The axes of `transpose` as a permutation.
fn permutation(s: &Sig) -> Result<Vec<usize>> {
    let (shape, axes) = (s.shape(0), s.attrs.ints("axes"));
    if axes.is_empty() {
        return Ok((0..shape.ndim()).rev().collect());
    }
    // `axes` of the shape refuses what is out of range or given twice.
    let distinct = shape.axes(&axes).map_err(|e| s.fail(e.message()))?;
    if distinct.len() != shape.ndim() {
        return Err(s.fail(format!("axes names {} axes; all {} are expected", distinct.len(), shape.ndim())));
    }
    axes.iter().map(|a| shape.axis(*a)).collect()
}

fn swapped(s: &Sig) -> Result<Vec<usize>> {
    let (a, b) = (s.axis(0, s.attrs.int("dim1"))?, s.axis(0, s.attrs.int("dim2"))?);
    let mut axes: Vec<usize> = (0..s.shape(0).ndim()).collect();
    axes.swap(a, b);
    Ok(axes)
}

/// The gradient of an operator that is its own inverse.
fn itself(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let grad = b.call(g.op, g.attrs.clone(), &[head])?[0];
    g.first(grad)
}

/// `depth_to_space` and `space_to_depth`, each the other's inverse and gradient.
fn blocks(r: &mut Registry) {
    fn back(name: &'static str) -> impl Fn(&mut dyn Build, &GradArgs) -> Result<Grads> + Send + Sync {
        move |b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1(name, &[head], &[("block_size", g.attrs.get("block_size").clone())])?;
            g.first(grad)
        }
    }
    fn dims(c: &Movement) -> [usize; 4] {
        let d = c.shape(0);
        [d[0], d[1], d[2], d[3]]
    }
    let size = || int("block_size", "side of the square blocks").at_least(1.0).at_most(32768.0);
    r.op(
        "depth_to_space",
        "(N, C, H, W) to (N, C / b^2, H b, W b): channels become the b x b blocks of the plane.",
    )
    .input("data", "values (N, C, H, W), C a multiple of b^2")
    .param(size())
    .method(&["depth_to_space"])
    .infer(|s| {
        s.expect_ndim(0, 4..=4)?;
        let (d, b) = (s.shape(0), s.attrs.size("block_size"));
        if d[1] % (b * b) != 0 {
            return Err(s.fail(format!("axis 1 has size {}; a multiple of {} is expected", d[1], b * b)));
        }
        let dims = [Some(d[0]), Some(d[1] / (b * b)), d[2].checked_mul(b), d[3].checked_mul(b)];
        s.shaped(super::movement::checked(dims)?)
    })
    .moves(|c| c.gather(&View::depth_to_space(dims(c), c.attrs.size("block_size"))))
    .keeps(&[], &[])
    .grad(back("space_to_depth"))
    .sample(&[draw(&[1, 8, 2, 3])], &[("block_size", 2i64.into())]);
    r.op(
        "space_to_depth",
        "(N, C, H, W) to (N, C b^2, H / b, W / b): b x b blocks of the plane become channels.",
    )
    .input("data", "values (N, C, H, W), H and W multiples of b")
    .param(size())
    .method(&["space_to_depth"])
    .infer(|s| {
        s.expect_ndim(0, 4..=4)?;
        let (d, b) = (s.shape(0), s.attrs.size("block_size"));
        if d[2] % b != 0 || d[3] % b != 0 {
            return Err(s.fail(format!("axes 2 and 3 must have sizes that are multiples of {b}")));
        }
        let dims = [Some(d[0]), d[1].checked_mul(b * b), Some(d[2] / b), Some(d[3] / b)];
        s.shaped(super::movement::checked(dims)?)
    })
    .moves(|c| c.gather(&View::space_to_depth(dims(c), c.attrs.size("block_size"))))
    .keeps(&[], &[])
    .grad(back("depth_to_space"))
    .sample(&[draw(&[1, 2, 4, 2])], &[("block_size", 2i64.into())]);
}

fn diagonals(r: &mut Registry) {
    r.op(
        "diag",
        "The diagonal of the matrices that two axes span, or the matrix with a vector as its diagonal.",
    )
    .input("data", "a vector, or values with at least two axes")
    .param(int("k", "which diagonal: 0 the main one, above it if positive").or(0i64))
    .param(int("axis1", "the rows' axis").or(0i64))
    .param(int("axis2", "the columns' axis").or(1i64))
    .method(&["diag"])
    .infer(|s| s.shaped(diag_shape(s)?))
    .moves(|c| {
        let k = c.attrs.int("k") as isize;
        match c.shape(0).ndim() {
            1 => c.place(&View::of(c.out_shape(0)).diagonal(0, 1, k)),
            _ => c.gather(&diagonal(c, c.shape(0))?),
        }
    })
    .keeps(&[], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let shape = b.shape(g.ins[0]).clone();
        let k = g.attrs.get("k").clone();
        let grad = if shape.ndim() == 1 {
            b.op1("diag", &[head], &[("k", k)])?
        } else {
            let mut attrs = axes_of(g);
            attrs.push(("shape", (&shape).into()));
            b.op1("_backward_diag", &[head], &attrs)?
        };
        g.first(grad)
    })
    .sample(&[draw(&[3, 4])], &[("k", 1i64.into())])
    .sample(&[draw(&[3])], &[("k", (-1i64).into())])
    .sample(&[draw(&[2, 3, 4])], &[("axis1", 2i64.into()), ("axis2", 0i64.into())]);
    r.op("_backward_diag", "Zeros of `shape` with data on a diagonal: the gradient of taking it.")
        .input("data", "the gradient of the diagonal")
        .param(int("k", "which diagonal").or(0i64))
        .param(int("axis1", "the rows' axis").or(0i64))
        .param(int("axis2", "the columns' axis").or(1i64))
        .param(ints("shape", "extents of the result"))
        .infer(|s| s.shaped(s.attrs.shape("shape")?))
        .moves(|c| {
            let view = diagonal(c, c.out_shape(0))?;
            if view.size() != c.shape(0).size() {
                return Err(c.fail("data does not fill the diagonal"));
            }
            c.place(&view)
        })
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("diag", &[head], &axes_of(g))?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 2])], &[("shape", [3, 2, 2].into()), ("axis2", 2i64.into())]);
}

fn axes_of(g: &GradArgs) -> Vec<(&'static str, AttrValue)> {
    ["k", "axis1", "axis2"].map(|name| (name, g.attrs.get(name).clone())).to_vec()
}

/// The diagonal of an array of this shape under the call's attributes.
fn diagonal(c: &Movement, shape: &Shape) -> Result<View> {
    let (a, b) = (shape.axis(c.attrs.int("axis1"))?, shape.axis(c.attrs.int("axis2"))?);
    if a == b {
        return Err(c.fail("axis1 and axis2 are the same axis"));
    }
    Ok(View::of(shape).diagonal(a, b, c.attrs.int("k") as isize))
}

fn diag_shape(s: &Sig) -> Result<Shape> {
    s.expect_ndim(0, 1..=Shape::MAX_NDIM)?;
    let (shape, k) = (s.shape(0), s.attrs.int("k"));
    let by = k.unsigned_abs() as usize;
    if shape.ndim() == 1 {
        let side = shape[0].checked_add(by);
        return super::movement::checked([side, side]);
    }
    let (a, b) = (s.axis(0, s.attrs.int("axis1"))?, s.axis(0, s.attrs.int("axis2"))?);
    if a == b {
        return Err(s.fail("axis1 and axis2 are the same axis; two different ones are expected"));
    }
    let (rows, cols) = (shape[a], shape[b]);
    let count = if k < 0 { rows.saturating_sub(by).min(cols) } else { cols.saturating_sub(by).min(rows) };
    if count == 0 && rows > 0 && cols > 0 {
        return Err(s.fail(format!("the diagonal k = {k} does not exist in matrices of {rows} x {cols}")));
    }
    let rest = (0..shape.ndim()).filter(|d| *d != a && *d != b).map(|d| shape[d]);
    Ok(rest.chain([count]).collect())
}
