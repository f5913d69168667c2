//! Movement by index arrays: take, Embedding, pick, gather, scatter, choice by a condition, flat indices.
//!
//! Index arrays may have any element type; fractions are cut toward zero. What becomes of an index outside its axis
//! is said by each operator: to the nearest end, modulo the size, or an error; nothing is ever read or written
//! outside. Gradients are hidden operators that add into zeros, and are differentiated by the forward ones in turn.

mod choose;
mod mask;
mod place;

use super::registry::Registry;
use super::{Ctx, GpuCtx, GradArgs, Grads, Param, Sig, Specs, choice, draw, dtype, flag, int, ints};
use crate::shaders::index::{self as gpu, Meet, Places};
use mxrs_base::{AttrValue, DType, Result, Shape, dispatch, f16};
use mxrs_kernels::copy::{Add, Unit};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::index::{self, Mode};
use mxrs_kernels::parts;

pub fn register(r: &mut Registry) {
    take(r);
    embedding(r);
    pick(r);
    gather(r);
    scatter(r);
    choose::register(r);
    mask::register(r);
    place::register(r);
}

// ---- elements without their type ---------------------------------------------------------------------------------

/// Input `i` as elements of so many bytes, for kernels that only move them.
pub(super) fn units<'a, U: Unit>(c: &Ctx<'a>, i: usize) -> &'a [U] {
    assert_eq!(c.dtype(i).size(), size_of::<U>(), "{}: input {i} read in another width", c.op.name);
    parts::units(c.x_bytes(i))
}

/// Output `i` likewise; ask once per output and run.
#[allow(clippy::mut_from_ref)]
pub(super) fn units_mut<'a, U: Unit>(c: &Ctx<'a>, i: usize) -> &'a mut [U] {
    assert_eq!(c.out_dtype(i).size(), size_of::<U>(), "{}: output {i} written in another width", c.op.name);
    parts::units_mut(c.y_bytes(i))
}

/// The bits of `value` as an element of this type.
pub(super) fn bits(dtype: DType, value: f64) -> u64 {
    use mxrs_base::Elem;
    match dtype {
        DType::F32 => (value as f32).to_bits() as u64,
        DType::F64 => value.to_bits(),
        DType::F16 => f16::from_f64(value).to_bits() as u64,
        DType::U8 => u8::from_f64(value) as u64,
        DType::I8 => i8::from_f64(value) as u8 as u64,
        DType::I32 => i32::from_f64(value) as u32 as u64,
        DType::I64 => i64::from_f64(value) as u64,
        DType::Bool => u64::from(value != 0.0),
    }
}

// ---- what several operators do -----------------------------------------------------------------------------------

/// Copies rows of input 0, shape (outer, size, inner), into the output.
fn move_rows(c: &Ctx, at: &[usize], (outer, size, inner): (usize, usize, usize)) {
    dispatch_unit!(c.dtype(0).size(), U => {
        index::take::<U>(units(c, 0), at, outer, size, inner, units_mut(c, 0))
    });
}

/// Adds rows of input 0 into an output of zeros, shape (outer, size, inner).
fn add_rows(c: &Ctx, at: &[usize], (outer, size, inner): (usize, usize, usize)) -> Result<()> {
    dispatch!(c.dtype(0), T => add_rows_of(c.x::<T>(0), at, (outer, size, inner), c.y::<T>(0)))
}

fn add_rows_of<T: Add>(
    grad: &[T],
    at: &[usize],
    (outer, size, inner): (usize, usize, usize),
    out: &mut [T],
) -> Result<()>
where
    T::Acc: Add,
{
    out.fill(T::default());
    if T::DTYPE != DType::F16 {
        index::take_grad(grad, at, outer, size, inner, out);
        return Ok(());
    }
    // Many small terms would vanish in a narrow sum.
    let (from, to) = (at.len() * inner, size * inner);
    if from == 0 || to == 0 {
        return Ok(());
    }
    for (grad, out) in grad.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
        index::take_grad_wide(grad, at, size, inner, out)?;
    }
    Ok(())
}

fn mode(attrs: &super::Attrs) -> Mode {
    match attrs.str("mode") {
        "wrap" => Mode::Wrap,
        "raise" => Mode::Raise,
        _ => Mode::Clip,
    }
}

/// The shape of a gradient, which the hidden operators are told.
fn shape_param() -> Param {
    ints("shape", "extents of the result")
}

fn name(e: mxrs_base::Error, c: &Ctx) -> mxrs_base::Error {
    e.within(c.op.name.trim_start_matches("_backward_"))
}

/// The gradient of input 0 by the hidden operator `name` of (head, index), with the attributes named and the shape.
fn by_index(
    b: &mut dyn super::Build,
    g: &GradArgs,
    name: &str,
    index: usize,
    pass: &[&'static str],
) -> Result<Grads> {
    let (Some(head), true) = (g.heads[0], g.need[0]) else { return Ok(g.none()) };
    let mut attrs: Vec<(&str, AttrValue)> = pass.iter().map(|n| (*n, g.attrs.get(n).clone())).collect();
    attrs.push(("shape", b.shape(g.ins[0]).into()));
    let grad = b.op1(name, &[head, g.ins[index]], &attrs)?;
    g.first(grad)
}

/// The gradient of a hidden adder: `name` of (head, index), shaped as the array it added.
fn back_to(b: &mut dyn super::Build, g: &GradArgs, name: &str, attrs: &[(&str, AttrValue)]) -> Result<Grads> {
    let (Some(head), true) = (g.heads[0], g.need[0]) else { return Ok(g.none()) };
    let grad = b.op1(name, &[head, g.ins[1]], attrs)?;
    let shape = b.shape(g.ins[0]).clone();
    let grad = b.reshape(grad, &shape)?;
    g.first(grad)
}

// ---- on GPUs -----------------------------------------------------------------------------------------------------

/// What the index array of a call names along an axis of `data`.
fn places_on_gpu(c: &GpuCtx, data: &Shape, axis: i64) -> Result<(Places<'static>, (usize, usize, usize))> {
    let sizes = data.around(data.axis(axis)?);
    match mode(c.attrs) {
        Mode::Clip => Ok((Places::Clip(sizes.1), sizes)),
        Mode::Wrap => Ok((Places::Wrap(sizes.1), sizes)),
        _ => Err(c.fail(
            "mode = 'raise' would have to wait for the device and is not supported on a GPU; allowed are clip, wrap",
        )),
    }
}

/// Coordinates in the leading axes of `data` that index array `i` names, and a slice's size.
fn coordinates<'a>(c: &GpuCtx<'a>, i: usize, data: &'a Shape) -> (Places<'a>, usize) {
    let (leading, rest) = data.split_at(c.shape(i)[0]);
    (Places::Coordinates(leading), rest.iter().product())
}

/// How many places the coordinates of index array `i` name.
fn positions(c: &GpuCtx, i: usize) -> usize {
    c.shape(i)[1..].iter().product()
}

/// Slices of input `x` at the places that input `at` names.
fn take_on_gpu(c: &GpuCtx, places: Places, (at, x): (usize, usize), sizes: (usize, usize)) -> Result<()> {
    let n = if let Places::Coordinates(_) = places { positions(c, at) } else { c.shape(at).size() };
    gpu::launch_take(c.device, places, n, c.x(at), c.x(x), sizes, c.y(0), c.op.name)
}

/// Slices of input `x` put at the `n` places that input `at` names.
fn put_on_gpu(
    c: &GpuCtx,
    how: (Places, Meet),
    (at, n): (usize, usize),
    x: usize,
    sizes: (usize, usize),
) -> Result<()> {
    let old = (how.1 == Meet::Replace).then(|| c.y(0));
    gpu::launch_put(c.device, how, (c.x(at), n), c.x(x), old, sizes, c.y(0), c.op.name)
}

// ---- take --------------------------------------------------------------------------------------------------------

fn taken(data: &Shape, axis: usize, indices: &Shape) -> Shape {
    let dims: Vec<usize> =
        data[..axis].iter().chain(&indices[..]).chain(&data[axis + 1..]).copied().collect();
    Shape::new(&dims)
}

/// Sizes around the axis, and the places along it that the index array (input 1) names.
fn places(c: &Ctx, data: &Shape, axis: i64, mode: Mode) -> Result<(Vec<usize>, (usize, usize, usize))> {
    let axis = data.axis(axis)?;
    let at = index::resolve(&c.indices(1), axis, data[axis], mode).map_err(|e| name(e, c))?;
    Ok((at, data.around(axis)))
}

fn take(r: &mut Registry) {
    let modes: &[&str] = &["clip", "raise", "wrap"];
    r.op("take", "Slices along an axis, chosen by an index array: its shape stands where the axis was.")
        .input("a", "the array to take from")
        .input("indices", "places along the axis, of any shape; on a GPU of any type but int64 and float64")
        .param(int("axis", "the axis").or(0))
        .param(
            choice(
                "mode",
                modes,
                "indices outside go to the nearest end (clip), wrap around, or raise (not on a GPU, which would have to \
                 be waited for)",
            )
            .or("clip"),
        )
        .alias(&["_npi_take"])
        .method(&["take"])
        .infer(|s| s.shaped(taken(s.shape(0), s.axis(0, s.attrs.int("axis"))?, s.shape(1))))
        .kernel(|c| {
            let (at, sizes) = places(c, c.shape(0), c.attrs.int("axis"), mode(c.attrs))?;
            move_rows(c, &at, sizes);
            Ok(())
        })
        .gpu(|c| {
            let (places, (outer, _, inner)) = places_on_gpu(c, c.shape(0), c.attrs.int("axis"))?;
            take_on_gpu(c, places, (1, 0), (outer, inner))
        })
        .keeps(&[1], &[])
        .grad(|b, g| by_index(b, g, "_backward_take", 1, &["axis", "mode"]))
        .sample(&[draw(&[4, 3]), draw(&[2, 2]).indices(4)], &[])
        .sample(&[draw(&[2, 3]), draw(&[4]).indices(3)], &[("axis", 1.into()), ("mode", "wrap".into())]);
    r.op("_backward_take", "Slices added into zeros at the places that an index array names.")
        .input("head", "the gradient of the slices")
        .input("indices", "places along the axis")
        .param(int("axis", "the axis").or(0))
        .param(choice("mode", modes, "what becomes of indices outside").or("clip"))
        .param(shape_param())
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            let axis = shape.axis(s.attrs.int("axis")).map_err(|e| s.fail(e.message()))?;
            s.expect_shape(0, &taken(&shape, axis, s.shape(1)))?;
            s.shaped(shape)
        })
        .kernel(|c| {
            let (at, sizes) = places(c, c.out_shape(0), c.attrs.int("axis"), mode(c.attrs))?;
            add_rows(c, &at, sizes)
        })
        .gpu(|c| {
            let (places, (outer, _, inner)) = places_on_gpu(c, c.out_shape(0), c.attrs.int("axis"))?;
            put_on_gpu(c, (places, Meet::Sum), (1, c.shape(1).size()), 0, (outer, inner))
        })
        .keeps(&[1], &[])
        .grad(|b, g| {
            let attrs = ["axis", "mode"].map(|n| (n, g.attrs.get(n).clone()));
            back_to(b, g, "take", &attrs)
        })
        .hidden()
        .sample(&[draw(&[2, 4]), draw(&[4]).indices(3)], &[("axis", 1.into()), ("shape", [2, 3].into())]);
}

fn embedding(r: &mut Registry) {
    r.op(
        "Embedding",
        "Rows of a weight, chosen by an array of indices; those outside go to the nearest end.",
    )
    .input("data", "row numbers, of any shape")
    .input("weight", "one row per index: (input_dim, output_dim)")
    .param(int("input_dim", "the number of rows").at_least(1.0))
    .param(int("output_dim", "the length of a row").at_least(1.0))
    .param(
        dtype("dtype", "the type a weight is created in; the result has that of the weight").or(DType::F32),
    )
    .param(flag("sparse_grad", "only False: gradients of the weight are dense").or(false))
    .alias(&["_npx_embedding", "_sparse_Embedding"])
    .complete(|attrs, shapes| {
        shapes[1].get_or_insert(Shape::new(&[attrs.size("input_dim"), attrs.size("output_dim")]));
        Ok(())
    })
    .infer(|s| {
        if s.attrs.bool("sparse_grad") {
            return Err(s.fail("sparse_grad = True is not supported; gradients of the weight are dense"));
        }
        s.expect_shape(1, &Shape::new(&[s.attrs.size("input_dim"), s.attrs.size("output_dim")]))?;
        let mut shape = s.shape(0).clone();
        shape.push(s.attrs.size("output_dim"));
        s.one(shape, s.dtype(1))
    })
    .kernel(|c| {
        let (rows, inner) = (c.shape(1)[0], c.shape(1)[1]);
        let at = index::resolve(&c.indices(0), 0, rows, Mode::Clip).map_err(|e| name(e, c))?;
        dispatch_unit!(c.dtype(1).size(), U => {
            index::take::<U>(units(c, 1), &at, 1, rows, inner, units_mut(c, 0))
        });
        Ok(())
    })
    .gpu(|c| take_on_gpu(c, Places::Clip(c.shape(1)[0]), (0, 1), (1, c.shape(1)[1])))
    .keeps(&[0], &[])
    .grad(|b, g| {
        let mut grads = g.none();
        if let (Some(head), true) = (g.heads[0], g.need[1]) {
            let attrs = [("shape", AttrValue::from(b.shape(g.ins[1])))];
            grads[1] = Some(b.op1("_backward_take", &[head, g.ins[0]], &attrs)?);
        }
        Ok(grads)
    })
    .sample(&[draw(&[2, 3]).indices(4), draw(&[4, 2])], &[("input_dim", 4.into()), ("output_dim", 2.into())]);
}

// ---- pick --------------------------------------------------------------------------------------------------------

/// The axis of `pick` in an array of this shape, and the index's shape without it and with it.
fn picked(s: &Sig, data: &Shape) -> Result<(usize, Shape, Shape)> {
    let Some(axis) = s.attrs.opt_int("axis") else {
        return Err(s.fail("axis = None is not supported; name an axis"));
    };
    let axis = data.axis(axis).map_err(|e| s.fail(e.message()))?;
    let (mut without, mut with) = (data.clone(), data.clone());
    without.remove(axis);
    with.set(axis, 1);
    Ok((axis, without, with))
}

fn infer_pick(s: &Sig) -> Result<Specs> {
    let (_, without, with) = picked(s, s.shape(0))?;
    let index = s.shape(1);
    // One element out of a vector: MXNet's index has shape (1,), as it has no arrays without axes.
    if *index != without && *index != with {
        return Err(s.fail(format!("index has shape {index}; {without} or {with} is expected")));
    }
    if s.attrs.bool("keepdims") {
        return s.shaped(with);
    }
    s.shaped(if without.ndim() == 0 { Shape::new(&[1]) } else { without })
}

fn pick(r: &mut Registry) {
    let modes: &[&str] = &["clip", "wrap"];
    let axis = || Param { nullable: true, ..int("axis", "the axis to pick along").or(-1) };
    r.op("pick", "One element along an axis for every position of the others, chosen by an index array.")
        .input("data", "the array to pick from")
        .input("index", "places along the axis; shaped as the data without the axis, or with 1 there")
        .param(axis())
        .param(flag("keepdims", "whether the axis stays, with extent 1").or(false))
        .param(
            choice("mode", modes, "indices outside go to the nearest end (clip) or wrap around").or("clip"),
        )
        .alias(&["_npx_pick", "choose_element_0index"])
        .method(&["pick"])
        .infer(infer_pick)
        .kernel(|c| {
            let (at, (outer, size, inner)) = places(c, c.shape(0), c.attrs.int("axis"), mode(c.attrs))?;
            dispatch_unit!(c.dtype(0).size(), U => {
                index::pick::<U>(units(c, 0), &at, outer, size, inner, units_mut(c, 0))
            });
            Ok(())
        })
        .gpu(|c| {
            let (places, sizes) = places_on_gpu(c, c.shape(0), c.attrs.int("axis"))?;
            gpu::launch_pick(c.device, places, c.x(1), c.x(0), sizes, c.y(0), c.op.name)
        })
        .keeps(&[1], &[])
        .grad(|b, g| by_index(b, g, "_backward_pick", 1, &["axis", "mode"]))
        .sample(&[draw(&[3, 4]), draw(&[3]).indices(4)], &[])
        .sample(
            &[draw(&[2, 3, 2]), draw(&[2, 2]).indices(3)],
            &[("axis", 1.into()), ("keepdims", true.into())],
        );
    r.op("_backward_pick", "Elements put into zeros at the places that an index array names.")
        .input("head", "the gradient of the picked elements")
        .input("index", "places along the axis")
        .param(axis())
        .param(choice("mode", modes, "what becomes of indices outside").or("clip"))
        .param(shape_param())
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            let (_, without, _) = picked(s, &shape)?;
            if s.shape(0).size() != without.size() || s.shape(1).size() != without.size() {
                return Err(s.fail(format!("head and index have one element for each of {without}")));
            }
            s.shaped(shape)
        })
        .kernel(|c| {
            let (at, (outer, size, inner)) = places(c, c.out_shape(0), c.attrs.int("axis"), mode(c.attrs))?;
            c.y_bytes(0).fill(0);
            dispatch!(c.dtype(0), T => {
                index::pick_grad::<T>(c.x(0), &at, outer, size, inner, c.y(0))
            });
            Ok(())
        })
        .gpu(|c| {
            let (places, sizes) = places_on_gpu(c, c.out_shape(0), c.attrs.int("axis"))?;
            gpu::launch_pick_grad(c.device, places, c.x(1), c.x(0), sizes, c.y(0), c.op.name)
        })
        .keeps(&[1], &[])
        .grad(|b, g| {
            let attrs = ["axis", "mode"].map(|n| (n, g.attrs.get(n).clone()));
            back_to(b, g, "pick", &attrs)
        })
        .hidden()
        .sample(&[draw(&[3]), draw(&[3]).indices(4)], &[("shape", [3, 4].into())]);
    batch_take(r);
}

fn batch_take(r: &mut Registry) {
    r.op("batch_take", "One element of each row of a matrix; indices outside go to the nearest end.")
        .input("a", "a matrix")
        .input("indices", "a column for each row")
        .infer(|s| {
            s.expect_ndim(0, 2..=2)?;
            if s.shape(1).size() != s.shape(0)[0] {
                return Err(s.fail(format!("{} indices are expected, one for each row", s.shape(0)[0])));
            }
            s.shaped(s.shape(1).clone())
        })
        .kernel(|c| {
            let (at, (outer, size, inner)) = places(c, c.shape(0), 1, Mode::Clip)?;
            dispatch_unit!(c.dtype(0).size(), U => {
                index::pick::<U>(units(c, 0), &at, outer, size, inner, units_mut(c, 0))
            });
            Ok(())
        })
        .gpu(|c| {
            let sizes = c.shape(0).around(1);
            gpu::launch_pick(c.device, Places::Clip(sizes.1), c.x(1), c.x(0), sizes, c.y(0), c.op.name)
        })
        .sample(&[draw(&[3, 4]), draw(&[3]).indices(4)], &[]);
}

// ---- several coordinates -----------------------------------------------------------------------------------------

/// The shape of the gathered slices: (K, rest of the index's shape) names places in the first K axes of `data`.
fn gathered(s: &Sig, data: &Shape, indices: &Shape) -> Result<Shape> {
    let Some((&k, rest)) = indices.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(s.fail("indices have two dimensions or more: coordinates, then positions"));
    };
    if k == 0 || k > data.ndim() {
        return Err(s.fail(format!(
            "indices give {k} coordinates; 1 to {} are allowed, one for each leading axis",
            data.ndim()
        )));
    }
    Ok(Shape::new(&[rest, &data[k..]].concat()))
}

/// Offsets in slices that the index array (input `i`) names in `data`, their number in all, and a slice's size.
fn offsets(c: &Ctx, i: usize, data: &Shape) -> Result<(Vec<usize>, usize, usize)> {
    let k = c.shape(i)[0];
    let at = index::flatten_nd(&c.indices(i), &data[..k]).map_err(|e| name(e, c))?;
    Ok((at, data[..k].iter().product(), data[k..].iter().product()))
}

fn gather(r: &mut Registry) {
    r.op("gather_nd", "Slices at the places that index coordinates name; negative ones count from the end.")
        .input("data", "the array to gather from")
        .input("indices", "(K, ...): the coordinates along the first K axes of the data")
        .alias(&["_npi_gather_nd", "_npx_gather_nd"])
        .infer(|s| s.shaped(gathered(s, s.shape(0), s.shape(1))?))
        .kernel(|c| {
            let (at, size, inner) = offsets(c, 1, c.shape(0))?;
            move_rows(c, &at, (1, size, inner));
            Ok(())
        })
        .gpu(|c| {
            let (places, inner) = coordinates(c, 1, c.shape(0));
            take_on_gpu(c, places, (1, 0), (1, inner))
        })
        .keeps(&[1], &[])
        .grad(|b, g| by_index(b, g, "_backward_gather_nd", 1, &[]))
        .sample(&[draw(&[3, 4]), draw(&[2, 5]).indices(3)], &[])
        .sample(&[draw(&[3, 4]), draw(&[1, 2, 2]).indices(3)], &[]);
    r.op("_backward_gather_nd", "Slices added into zeros at the places that index coordinates name.")
        .input("data", "the slices")
        .input("indices", "(K, ...): the coordinates along the first K axes of the result")
        .param(shape_param())
        .infer(infer_scatter)
        .kernel(|c| {
            let (at, size, inner) = offsets(c, 1, c.out_shape(0))?;
            add_rows(c, &at, (1, size, inner))
        })
        .gpu(|c| {
            let (places, inner) = coordinates(c, 1, c.out_shape(0));
            put_on_gpu(c, (places, Meet::Sum), (1, positions(c, 1)), 0, (1, inner))
        })
        .keeps(&[1], &[])
        .grad(|b, g| back_to(b, g, "gather_nd", &[]))
        .sample(&[draw(&[5]), draw(&[2, 5]).indices(3)], &[("shape", [3, 4].into())]);
}

fn infer_scatter(s: &Sig) -> Result<Specs> {
    let shape = s.attrs.shape("shape")?;
    shape.checked_size()?;
    s.expect_shape(0, &gathered(s, &shape, s.shape(1))?)?;
    s.shaped(shape)
}

fn scatter(r: &mut Registry) {
    r.op(
        "scatter_nd",
        "Zeros with slices put at the places that index coordinates name; the last of equals stays.",
    )
    .input("data", "the slices")
    .input("indices", "(K, ...): the coordinates along the first K axes of the result")
    .param(shape_param())
    .infer(infer_scatter)
    .kernel(|c| {
        let (at, _, inner) = offsets(c, 1, c.out_shape(0))?;
        c.y_bytes(0).fill(0);
        dispatch_unit!(c.dtype(0).size(), U => {
            index::scatter_rows::<U>(units(c, 0), &at, inner, units_mut(c, 0))
        });
        Ok(())
    })
    .gpu(|c| {
        let (places, inner) = coordinates(c, 1, c.out_shape(0));
        put_on_gpu(c, (places, Meet::Last), (1, positions(c, 1)), 0, (1, inner))
    })
    .keeps(&[1], &[])
    .grad(|b, g| back_to(b, g, "gather_nd", &[]))
    .sample(&[draw(&[1, 3]), draw(&[1, 1]).indices(4)], &[("shape", [4, 3].into())]);
    r.op(
        "_scatter_set_nd",
        "lhs with the slices at the places that index coordinates name replaced by those of rhs.",
    )
    .input("lhs", "the array to change")
    .input("rhs", "the slices")
    .input("indices", "(K, ...): the coordinates along the first K axes of lhs")
    .param(shape_param())
    .alias(&["_npi_scatter_set_nd"])
    .infer(|s| {
        s.expect_shape(0, &s.attrs.shape("shape")?)?;
        s.expect_shape(1, &gathered(s, s.shape(0), s.shape(2))?)?;
        if s.dtype(1) != s.dtype(0) {
            return Err(s.fail("lhs and rhs must be of one type"));
        }
        s.same(0)
    })
    .updates(&[(0, 0)])
    .kernel(|c| {
        let (at, _, inner) = offsets(c, 2, c.shape(0))?;
        dispatch_unit!(c.dtype(0).size(), U => {
            index::scatter_rows::<U>(units(c, 1), &at, inner, units_mut(c, 0))
        });
        Ok(())
    })
    .gpu(|c| {
        let (places, inner) = coordinates(c, 2, c.shape(0));
        put_on_gpu(c, (places, Meet::Replace), (2, positions(c, 2)), 1, (1, inner))
    })
    .sample(&[draw(&[4, 3]), draw(&[2, 3]), draw(&[1, 2]).indices(4)], &[("shape", [4, 3].into())]);
}
