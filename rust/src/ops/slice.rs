//! Parts of arrays: slices, crops and splits, and assignment to a part.
//!
//! One rule ([`Cut`]) turns begin, end and step into a view by Python's slicing rule. Taking a part gathers through
//! the view; assignment and the gradient of taking scatter through it. Picking by index arrays is `index`'s.

mod split;

use super::registry::Registry;
use super::shape::movement::{Movement, optional};
use super::{Build, GradArgs, Grads, Param, Sig, Spec, Value, draw, empty, flag, float, int, ints};
use mxrs_base::{AttrValue, Result, Shape};
use mxrs_kernels::copy::View;
use smallvec::SmallVec;

pub fn register(r: &mut Registry) {
    slices(r);
    along_one_axis(r);
    alike(r);
    crop(r);
    assignments(r);
    split::register(r);
}

/// For each axis: first index, step and count.
struct Cut(SmallVec<[(usize, isize, usize); 6]>);

impl Cut {
    /// By Python's rule: ends are clamped to the array, `None` is an end of it; an absent `step` is 1 everywhere.
    fn new(
        shape: &[usize],
        begin: &[Option<i64>],
        end: &[Option<i64>],
        step: &[Option<i64>],
    ) -> Result<Cut, String> {
        if begin.len() > shape.len() || begin.len() != end.len() {
            return Err(format!(
                "begin has {} entries and end {}; equally many are expected, at most {} (one per axis)",
                begin.len(),
                end.len(),
                shape.len()
            ));
        }
        if !step.is_empty() && step.len() != begin.len() {
            return Err(format!(
                "step has {} entries and begin {}; equally many are expected",
                step.len(),
                begin.len()
            ));
        }
        let mut cut = Cut(SmallVec::new());
        for (axis, &size) in shape.iter().enumerate() {
            let at = |list: &[Option<i64>]| list.get(axis).copied().flatten();
            let by = at(step).unwrap_or(1);
            if by == 0 {
                return Err(format!("step is 0 for axis {axis}; any other whole number is allowed"));
            }
            let n = size as i64;
            // A negative step runs from n - 1 down to 0 and ends before -1.
            let (low, high) = if by > 0 { (0, n) } else { (-1, n - 1) };
            let place = |v: i64| if v < 0 { (v + n).max(low) } else { v.min(high) };
            let first = at(begin).map_or(if by > 0 { low } else { high }, place);
            let last = at(end).map_or(if by > 0 { high } else { low }, place);
            let span = if by > 0 { last - first } else { first - last };
            let count = if span > 0 { (span - 1) / by.abs() + 1 } else { 0 };
            // The step of a single element has no meaning, and may be too large to compute with.
            cut.0.push(match count {
                0 => (0, 1, 0),
                1 => (first as usize, 1, 1),
                _ => (first as usize, by as isize, count as usize),
            });
        }
        Ok(cut)
    }

    fn shape(&self) -> Shape {
        self.0.iter().map(|(_, _, count)| *count).collect()
    }

    fn view(&self, shape: &[usize]) -> View {
        let whole = View::of(shape);
        self.0.iter().enumerate().fold(whole, |v, (axis, &(first, step, n))| v.slice(axis, first, step, n))
    }
}

const CUT: [&str; 3] = ["begin", "end", "step"];

/// The parameters that a [`Cut`] is read from.
fn cut_params() -> [Param; 3] {
    [
        ints(
            "begin",
            "first index per axis; None is the end where the step starts, negatives count from the end",
        ),
        ints("end", "index after the last per axis; None takes all"),
        ints("step", "distance per axis, negative to go backwards; 1 if absent").or(empty()),
    ]
}

fn cut_of(attrs: &super::Attrs, shape: &[usize]) -> Result<Cut, String> {
    let [begin, end, step] = CUT.map(|name| attrs.opt_ints(name));
    Cut::new(shape, begin, end, step)
}

fn cut(s: &Sig, shape: &[usize]) -> Result<Cut> {
    cut_of(s.attrs, shape).map_err(|text| s.fail(text))
}

/// The cut of a running call, which its shape rule has accepted.
fn cut_again(c: &Movement, shape: &[usize]) -> Result<Cut> {
    cut_of(c.attrs, shape).map_err(|text| c.fail(text))
}

fn cut_attrs(g: &GradArgs) -> Vec<(&'static str, AttrValue)> {
    CUT.map(|name| (name, g.attrs.get(name).clone())).to_vec()
}

/// The gradient of taking the elements from `begin` to `end` of every axis: the head among zeros.
fn among_zeros(b: &mut dyn Build, g: &GradArgs, range: impl Fn(usize) -> (usize, usize)) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let shape = b.shape(g.ins[0]).clone();
    let begin = optional((0..shape.ndim()).map(|d| Some(range(d).0 as i64)));
    let end = optional((0..shape.ndim()).map(|d| Some(range(d).1 as i64)));
    let attrs = [("begin", begin), ("end", end), ("shape", (&shape).into())];
    let grad = b.op1("_backward_slice", &[head], &attrs)?;
    g.first(grad)
}

fn slices(r: &mut Registry) {
    r.op(
        "slice",
        "The elements from `begin` to `end`, `step` apart, along the first axes; Python's rule per axis.",
    )
    .input("data", "values of any shape")
    .params(cut_params())
    .alias(&["crop", "_sparse_slice", "_npi_slice", "_npx_slice"])
    .method(&["slice"])
    .infer(|s| s.shaped(cut(s, s.shape(0))?.shape()))
    .moves(|c| c.gather(&cut_again(c, c.shape(0))?.view(c.shape(0))))
    .cost(written)
    .keeps(&[], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let mut attrs = cut_attrs(g);
        attrs.push(("shape", b.shape(g.ins[0]).into()));
        let grad = b.op1("_backward_slice", &[head], &attrs)?;
        g.first(grad)
    })
    .sample(&[draw(&[3, 4])], &[("begin", [1, 0].into()), ("end", [3, 2].into())])
    .sample(
        &[draw(&[3, 4])],
        &[("begin", [2, 3].into()), ("end", [-4, 0].into()), ("step", [-1, -2].into())],
    );
    r.op("_backward_slice", "Zeros of `shape` with data in the place of a slice: the gradient of slicing.")
        .input("data", "the gradient of the slice")
        .params(cut_params())
        .param(ints("shape", "extents of the result"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            s.expect_shape(0, &cut(s, &shape)?.shape())?;
            s.shaped(shape)
        })
        .moves(|c| c.place(&cut_again(c, c.out_shape(0))?.view(c.out_shape(0))))
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("slice", &[head], &cut_attrs(g))?;
            g.first(grad)
        })
        .hidden()
        .sample(
            &[draw(&[2, 2])],
            &[
                ("begin", [1, 3].into()),
                ("end", [3, 0].into()),
                ("step", [1, -2].into()),
                ("shape", [3, 4].into()),
            ],
        );
}

fn along_one_axis(r: &mut Registry) {
    r.op(
        "slice_axis",
        "The elements from `begin` to `end` along one axis; the range must lie inside and not be empty.",
    )
    .input("data", "values of any shape")
    .param(int("axis", "the axis; negative ones count from the end"))
    .param(int("begin", "first index; negative ones count from the end"))
    .param({
        let mut end = int("end", "index after the last, None for all");
        end.nullable = true;
        end
    })
    .method(&["slice_axis"])
    .infer(|s| {
        let (axis, first, last) = axis_range(s)?;
        let mut shape = s.shape(0).clone();
        shape.set(axis, last - first);
        s.shaped(shape)
    })
    .moves(|c| {
        let (axis, first, last) = axis_range(&c.sig())?;
        c.gather(&View::of(c.shape(0)).slice(axis, first, 1, last - first))
    })
    .cost(written)
    .keeps(&[], &[])
    .grad(|b, g| {
        let spec = b.spec(g.ins[0]).clone();
        let (axis, first, last) = axis_range(&Sig { op: g.op, attrs: g.attrs, ins: &[&spec] })?;
        among_zeros(b, g, |d| if d == axis { (first, last) } else { (0, spec.shape[d]) })
    })
    .sample(&[draw(&[3, 4])], &[("axis", 1i64.into()), ("begin", (-3i64).into()), ("end", AttrValue::None)]);
}

/// A part costs what it writes.
fn written(_: &Sig, outs: &[Spec]) -> f64 {
    outs.iter().map(|o| o.shape.size() as f64).sum()
}

fn axis_range(s: &Sig) -> Result<(usize, usize, usize)> {
    let axis = s.axis(0, s.attrs.int("axis"))?;
    let n = s.shape(0)[axis] as i64;
    let (begin, end) = (s.attrs.int("begin"), s.attrs.opt_int("end"));
    let place = |v: i64| if v < 0 { v + n } else { v };
    let (first, last) = (place(begin), end.map_or(n, place));
    if first < 0 || last > n || first >= last {
        let end = end.map_or("None".to_string(), |v| v.to_string());
        return Err(s.fail(format!(
            "begin = {begin}, end = {end} is not a range of axis {axis}, which has size {n}; the range must lie inside \
             and not be empty"
        )));
    }
    Ok((axis, first as usize, last as usize))
}

fn alike(r: &mut Registry) {
    r.op(
        "slice_like",
        "The leading part of data that has the extents of shape_like, along all axes or those named.",
    )
    .input("data", "values of any shape")
    .input("shape_like", "an array whose extents are taken; its values are not looked at")
    .param(ints("axes", "the axes to cut; all if absent").or(empty()))
    .method(&["slice_like"])
    .infer(|s| {
        let (shape, like, axes) = (s.shape(0), s.shape(1), s.attrs.ints("axes"));
        if axes.is_empty() && shape.ndim() != like.ndim() {
            return Err(s.fail("data and shape_like must have the same number of axes, or axes be given"));
        }
        let all: SmallVec<[i64; 4]> = (0..shape.ndim() as i64).collect();
        let mut out = shape.clone();
        for axis in if axes.is_empty() { &all } else { &axes } {
            let axis = s.axis(0, *axis)?;
            match like.get(axis) {
                Some(n) if *n <= shape[axis] => out.set(axis, *n),
                Some(n) => return Err(s.fail(format!("axis {axis} has size {}, less than {n}", shape[axis]))),
                None => return Err(s.fail(format!("shape_like has no axis {axis}"))),
            }
        }
        s.shaped(out)
    })
    .moves(|c| c.gather(&lead(c.shape(0), c.out_shape(0))))
    .cost(written)
    .keeps(&[], &[])
    .grad(|b, g| {
        let out = b.shape(g.outs[0]).clone();
        among_zeros(b, g, |d| (0, out[d]))
    })
    .sample(&[draw(&[3, 4]), draw(&[2, 3])], &[])
    .sample(&[draw(&[3, 4]), draw(&[2, 3, 5])], &[("axes", (-1i64).into())]);
}

/// The first elements along every axis.
fn lead(shape: &[usize], part: &[usize]) -> View {
    part.iter().enumerate().fold(View::of(shape), |v, (axis, n)| v.slice(axis, 0, 1, *n))
}

fn crop(r: &mut Registry) {
    r.op("Crop", "A window of the planes of data: of size `h_w`, or of the planes of a second array.")
        .variadic("arg", "data (N, C, H, W), and an array (_, _, h, w) whose extents are taken", "num_args")
        .params([
            ints("offset", "row and column where the window begins").or([0, 0]).at_least(0.0),
            ints("h_w", "height and width of the window where there is no second array")
                .or([0, 0])
                .at_least(0.0),
            flag("center_crop", "put the window in the middle").or(false),
        ])
        .infer(|s| {
            let [_, _, height, width] = window(s)?;
            let d = s.shape(0);
            s.shaped(Shape::from([d[0], d[1], height, width]))
        })
        .moves(|c| {
            let [top, left, height, width] = window(&c.sig())?;
            c.gather(&View::of(c.shape(0)).slice(2, top, 1, height).slice(3, left, 1, width))
        })
        .cost(written)
        .keeps(&[], &[])
        .grad(|b, g| {
            let specs: SmallVec<[Spec; 2]> = g.ins.iter().map(|v| b.spec(*v).clone()).collect();
            let ins: SmallVec<[&Spec; 2]> = specs.iter().collect();
            let [top, left, height, width] = window(&Sig { op: g.op, attrs: g.attrs, ins: &ins })?;
            among_zeros(b, g, |d| match d {
                2 => (top, top + height),
                3 => (left, left + width),
                _ => (0, specs[0].shape[d]),
            })
        })
        .sample(&[draw(&[1, 2, 4, 5])], &[("offset", [1, 2].into()), ("h_w", [2, 3].into())])
        .sample(&[draw(&[1, 2, 4, 4]), draw(&[1, 1, 2, 3])], &[("center_crop", true.into())]);
}

/// Top, left, height and width of the window of `Crop`.
fn window(s: &Sig) -> Result<[usize; 4]> {
    if !(1..=2).contains(&s.ins.len()) {
        return Err(s.fail("one array or two are expected"));
    }
    (0..s.ins.len()).try_for_each(|i| s.expect_ndim(i, 4..=4))?;
    let (size, offset) = (s.attrs.ints("h_w"), s.attrs.ints("offset"));
    if size.len() != 2 || offset.len() != 2 {
        return Err(s.fail("offset and h_w have two entries each"));
    }
    let mut out = [0; 4];
    for d in 0..2 {
        let whole = s.shape(0)[d + 2];
        let part = if s.ins.len() == 2 { s.shape(1)[d + 2] } else { size[d] as usize };
        if part < 1 || part > whole {
            let what = ["height", "width"][d];
            return Err(
                s.fail(format!("the window's {what} {part} is not possible; 1 to {whole} is allowed"))
            );
        }
        let begin = if s.attrs.bool("center_crop") { (whole - part) / 2 } else { offset[d] as usize };
        if begin > whole - part {
            return Err(
                s.fail(format!("offset[{d}] = {begin} is too large; at most {} is allowed", whole - part))
            );
        }
        (out[d], out[d + 2]) = (begin, part);
    }
    Ok(out)
}

fn assignments(r: &mut Registry) {
    r.op("_slice_assign", "lhs with rhs in the place of a slice; in place where the output is lhs itself.")
        .input("lhs", "values of any shape")
        .input("rhs", "values of the slice's shape, or one value for all of it")
        .params(cut_params())
        .alias(&["_crop_assign", "_npi_slice_assign"])
        .method(&["slice_assign"])
        .updates(&[(0, 0)])
        .infer(|s| {
            s.one_dtype()?;
            let part = cut(s, s.shape(0))?.shape();
            if s.shape(1).size() != 1 || s.shape(1).ndim() > part.ndim() {
                s.expect_shape(1, &part)?;
            }
            s.same(0)
        })
        .moves(|c| c.put(1, &cut_again(c, c.shape(0))?.view(c.shape(0))))
        // A pass over rhs, and a copy of lhs that is mostly spared.
        .cost(|s, _| s.shape(1).size() as f64 + 0.1 * s.shape(0).size() as f64)
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let mut grads = g.none();
            if g.need[0] {
                grads[0] = Some(without(b, g, head)?);
            }
            if g.need[1] {
                let shape = b.shape(g.ins[1]).clone();
                let part = b.op1("slice", &[head], &cut_attrs(g))?;
                grads[1] = Some(b.sum_to(part, &shape)?);
            }
            Ok(grads)
        })
        .sample(&[draw(&[3, 4]), draw(&[2, 2])], &[("begin", [1, 0].into()), ("end", [3, 2].into())]);
    r.op(
        "_slice_assign_scalar",
        "data with one number in the place of a slice; in place where the output is data.",
    )
    .input("data", "values of any shape")
    .param(float("scalar", "the number").or(0.0))
    .params(cut_params())
    .alias(&["_crop_assign_scalar", "_npi_slice_assign_scalar"])
    .method(&["slice_assign_scalar"])
    .updates(&[(0, 0)])
    .infer(|s| {
        cut(s, s.shape(0))?;
        s.same(0)
    })
    .moves(|c| c.put_number(c.attrs.float("scalar"), &cut_again(c, c.shape(0))?.view(c.shape(0))))
    .cost(|s, _| {
        let part = cut(s, s.shape(0)).map_or(0, |cut| cut.shape().size());
        part as f64 + 0.1 * s.shape(0).size() as f64
    })
    .keeps(&[], &[])
    .grad(|b, g| {
        let Some(head) = g.heads[0] else { return Ok(g.none()) };
        let grad = without(b, g, head)?;
        g.first(grad)
    })
    .sample(&[draw(&[3, 4])], &[("scalar", 2.0.into()), ("begin", [1, 0].into()), ("end", [3, 2].into())]);
}

/// The head with zeros where the call assigned.
fn without(b: &mut dyn Build, g: &GradArgs, head: Value) -> Result<Value> {
    b.op1("_slice_assign_scalar", &[head], &cut_attrs(g))
}
