//! topk, sort and argsort along an axis.
//!
//! The values of `topk` and `sort` carry their places, exact, in a hidden last output, which the gradient puts them
//! back to. Equal elements keep the order of their places; not-a-number sorts as the greatest.

use super::index::{units, units_mut};
use super::reduce::around;
use super::registry::Registry;
use super::{
    Attrs, Build, Ctx, GpuCtx, GradArgs, Grads, Param, Sig, Spec, Specs, choice, draw, dtype, flag, int, ints,
};
use crate::shaders::sort as gpu;
use mxrs_base::{AttrValue, DType, Error, Result, Shape, dispatch};
use mxrs_kernels::dispatch_unit;
use mxrs_kernels::sort::{self, Around, Wanted};

pub fn register(r: &mut Registry) {
    topk(r);
    sorts(r);
    places(r);
}

/// How many elements are chosen along an axis of `size`: all where `k` is below 1.
fn chosen(attrs: &Attrs, size: usize) -> Result<usize> {
    match if attrs.has("k") { attrs.int("k") } else { 0 } {
        ..=0 => Ok(size),
        k if k as usize <= size => Ok(k as usize),
        k => Err(Error::value(format!(
            "k = {k} is not valid; at most {size}, the size of the axis, is allowed"
        ))),
    }
}

/// `shape` with `k` elements along the axis; a flat array's is (k).
fn ordered(shape: &Shape, axis: Option<i64>, k: usize) -> Result<Shape> {
    let Some(axis) = axis else { return Ok(Shape::new(&[k])) };
    let mut out = shape.clone();
    out.set(shape.axis(axis)?, k);
    Ok(out)
}

/// The shape of the chosen elements.
fn infer_shape(s: &Sig) -> Result<Shape> {
    if s.dtype(0) == DType::Bool {
        return Err(s.fail("bool is not supported; cast to another type first"));
    }
    let axis = s.attrs.opt_int("axis");
    around(s.shape(0), axis)
        .and_then(|(_, size, _)| ordered(s.shape(0), axis, chosen(s.attrs, size)?))
        .map_err(|e| s.fail(e.message()))
}

/// Some 20 nanoseconds for each element.
fn cost(s: &Sig, _: &[Spec]) -> f64 {
    s.shape(0).size() as f64 * 20.0
}

/// Where the results go: outputs by number. `places` are int64, `indices` of any type.
#[derive(Default)]
struct Outputs {
    values: Option<usize>,
    indices: Option<usize>,
    places: Option<usize>,
    mask: Option<usize>,
}

/// The results of `topk`.
fn wanted(attrs: &Attrs) -> Outputs {
    match attrs.str("ret_typ") {
        "value" => Outputs { values: Some(0), places: Some(1), ..Outputs::default() },
        "both" => Outputs { values: Some(0), indices: Some(1), places: Some(2), mask: None },
        "mask" => Outputs { mask: Some(0), ..Outputs::default() },
        _ => Outputs { indices: Some(0), ..Outputs::default() },
    }
}

/// The results of `sort` and of `argsort`.
const VALUES: Outputs = Outputs { values: Some(0), indices: None, places: Some(1), mask: None };
const INDICES: Outputs = Outputs { values: None, indices: Some(0), places: None, mask: None };

/// The one place that sorts on the host.
fn order(c: &Ctx, ascending: bool, to: Outputs) -> Result<()> {
    let (outer, size, inner) = around(c.shape(0), c.attrs.opt_int("axis"))?;
    let k = chosen(c.attrs, size)?;
    let mut scratch: Vec<i64> = Vec::new();
    let mut places: Option<&mut [i64]> = match (to.places, to.indices) {
        (Some(i), _) => Some(c.y(i)),
        (None, Some(_)) => {
            let n = outer * k * inner;
            let full = |e| Error::memory(format!("{}: no room for the places: {e}", c.op.name));
            scratch.try_reserve_exact(n).map_err(full)?;
            scratch.resize(n, 0);
            Some(&mut scratch)
        }
        (None, None) => None,
    };
    let sizes = Around { outer, size, inner };
    dispatch!(c.dtype(0), T => {
        let (values, mask) = (to.values.map(|i| c.y::<T>(i)), to.mask.map(|i| c.y::<T>(i)));
        sort::topk::<T, i64>(c.x(0), sizes, k, ascending, Wanted { values, indices: places.as_deref_mut(), mask });
    });
    if let (Some(places), Some(i)) = (places, to.indices) {
        dispatch!(c.out_dtype(i), T => mxrs_simd::cast::<i64, T>(places, c.y(i)));
    }
    Ok(())
}

/// The same on a GPU.
fn order_on_gpu(c: &GpuCtx, ascending: bool, to: Outputs) -> Result<()> {
    let sizes = around(c.shape(0), c.attrs.opt_int("axis"))?;
    let k = chosen(c.attrs, sizes.1)?;
    let name = c.op.name;
    let sorted = gpu::launch_sort(c.device, c.x(0), sizes, k, ascending, name)?;
    if let Some(i) = to.values {
        sorted.values(c.device, c.x(0), c.y(i), name)?;
    }
    if let Some(i) = to.indices {
        sorted.indices(c.device, c.y(i), name)?;
    }
    if let Some(i) = to.places {
        sorted.places(c.device, c.y(i), name)?;
    }
    match to.mask {
        Some(i) => sorted.mask(c.device, c.x(0), c.y(i), name),
        None => Ok(()),
    }
}

/// The gradient of values by the places, which are output `places`.
fn put_back(b: &mut dyn Build, g: &GradArgs, places: usize) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let attrs = [("axis", g.attrs.get("axis").clone()), ("shape", b.shape(g.ins[0]).into())];
    let grad = b.op1("_backward_topk", &[head, g.outs[places]], &attrs)?;
    g.first(grad)
}

fn axis() -> Param {
    Param { nullable: true, ..int("axis", "the axis; none orders the flat array").or(-1) }
}

fn topk(r: &mut Registry) {
    r.op(
        "topk",
        "The k largest (or smallest) elements along an axis, in order: values, places, both, or a mask.",
    )
    .input("data", "values of any shape")
    .param(axis())
    .param(int("k", "how many; all below 1").or(1))
    .param(choice("ret_typ", &["both", "indices", "mask", "value"], "what to give").or("indices"))
    .param(flag("is_ascend", "whether the smallest are wanted").or(false))
    .param(dtype("dtype", "the type of indices").or(DType::F32))
    .alias(&["_npx_topk"])
    .method(&["topk"])
    .infer(|s| -> Result<Specs> {
        let shape = infer_shape(s)?;
        let values = Spec::new(shape.clone(), s.dtype(0));
        let indices = Spec::new(shape.clone(), s.attrs.dtype("dtype"));
        let places = Spec::new(shape, DType::I64);
        Ok(match s.attrs.str("ret_typ") {
            "value" => [values, places].into_iter().collect(),
            "both" => [values, indices, places].into_iter().collect(),
            "mask" => return s.same(0),
            _ => [indices].into_iter().collect(),
        })
    })
    .visible(|attrs| if attrs.str("ret_typ") == "both" { 2 } else { 1 })
    .file_outputs(|attrs| if matches!(attrs.str("ret_typ"), "both" | "value") { 2 } else { 1 })
    .cost(cost)
    .kernel(|c| order(c, c.attrs.bool("is_ascend"), wanted(c.attrs)))
    .gpu(|c| order_on_gpu(c, c.attrs.bool("is_ascend"), wanted(c.attrs)))
    .keeps(&[], &[1, 2])
    .grad(|b, g| match g.attrs.str("ret_typ") {
        "value" => put_back(b, g, 1),
        "both" => put_back(b, g, 2),
        _ => Ok(g.none()),
    })
    .sample(&[draw(&[2, 5])], &[("k", 2.into()), ("ret_typ", "value".into())])
    .sample(&[draw(&[4, 3])], &[("k", 2.into()), ("axis", 0.into()), ("ret_typ", "both".into())])
    .sample(&[draw(&[4, 3])], &[("k", 3.into()), ("axis", AttrValue::None), ("is_ascend", true.into())]);
}

fn sorts(r: &mut Registry) {
    r.op("sort", "The elements along an axis in order.")
        .input("data", "values of any shape")
        .param(axis())
        .param(flag("is_ascend", "whether the smallest come first").or(true))
        .alias(&["_npi_sort"])
        .method(&["sort"])
        .infer(|s| {
            let shape = infer_shape(s)?;
            let places = Spec::new(shape.clone(), DType::I64);
            Ok([Spec::new(shape, s.dtype(0)), places].into_iter().collect())
        })
        .visible(|_| 1)
        .file_outputs(|_| 2)
        .cost(cost)
        .kernel(|c| order(c, c.attrs.bool("is_ascend"), VALUES))
        .gpu(|c| order_on_gpu(c, c.attrs.bool("is_ascend"), VALUES))
        .keeps(&[], &[1])
        .grad(|b, g| put_back(b, g, 1))
        .sample(&[draw(&[2, 5])], &[])
        .sample(&[draw(&[4, 3])], &[("axis", 0.into()), ("is_ascend", false.into())]);
    r.op("argsort", "The places of the elements along an axis in their order.")
        .input("data", "values of any shape")
        .param(axis())
        .param(flag("is_ascend", "whether the smallest come first").or(true))
        .param(dtype("dtype", "the type of the places").or(DType::F32))
        .alias(&["_npi_argsort"])
        .method(&["argsort"])
        .infer(|s| s.one(infer_shape(s)?, s.attrs.dtype("dtype")))
        .cost(cost)
        .kernel(|c| order(c, c.attrs.bool("is_ascend"), INDICES))
        .gpu(|c| order_on_gpu(c, c.attrs.bool("is_ascend"), INDICES))
        .zero_grad()
        .sample(&[draw(&[2, 5])], &[])
        .sample(&[draw(&[4, 3])], &[("axis", 0.into()), ("is_ascend", false.into())]);
}

// ---- by places ---------------------------------------------------------------------------------------------------

/// The shapes of an array and of places along its axis fit; gives (outer, size, inner) and their number.
fn fit(data: &Shape, places: &Shape, axis: Option<i64>) -> Result<((usize, usize, usize), usize)> {
    let sizes = around(data, axis)?;
    let (_, k, _) = around(places, axis)?;
    if *places == ordered(data, axis, k)? {
        return Ok((sizes, k));
    }
    Err(Error::value(format!("places of shape {places} do not fit an array of shape {data}")))
}

fn places(r: &mut Registry) {
    let axis = || Param { nullable: true, ..int("axis", "the axis; none means the flat array") };
    r.op("_backward_topk", "Elements put into zeros, each at its place along an axis.")
        .input("head", "the elements")
        .input("places", "distinct places along the axis (int64)")
        .param(axis())
        .param(ints("shape", "extents of the result"))
        .infer(|s| {
            let shape = s.attrs.shape("shape")?;
            let fits = s.dtype(1) == DType::I64 && s.shape(0) == s.shape(1);
            if !fits {
                return Err(s.fail("places are int64, one for each element"));
            }
            fit(&shape, s.shape(1), s.attrs.opt_int("axis")).map_err(|e| s.fail(e.message()))?;
            s.shaped(shape)
        })
        .kernel(|c| {
            let ((outer, size, inner), k) = fit(c.out_shape(0), c.shape(1), c.attrs.opt_int("axis"))?;
            let places = checked(c, size)?;
            let around = Around { outer, size, inner };
            dispatch!(c.dtype(0), T => sort::topk_grad::<T>(c.x(0), places, around, k, c.y(0)));
            Ok(())
        })
        .gpu(|c| {
            let (sizes, k) = fit(c.out_shape(0), c.shape(1), c.attrs.opt_int("axis"))?;
            gpu::launch_put_back(c.device, (c.x(0), c.x(1)), sizes, k, c.y(0), c.op.name)
        })
        .keeps(&[1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.op1("_at_places", &[head, g.ins[1]], &[("axis", g.attrs.get("axis").clone())])?;
            g.first(grad)
        })
        .hidden()
        .sample(
            &[draw(&[2, 1]), draw(&[2, 1]).indices(3).of(DType::I64)],
            &[("axis", 1i64.into()), ("shape", [2, 3].into())],
        );
    r.op("_at_places", "The elements at places along an axis.")
        .input("data", "values of any shape")
        .input("places", "distinct places along the axis (int64)")
        .param(axis())
        .infer(|s| {
            if s.dtype(1) != DType::I64 {
                return Err(s.fail("places are int64"));
            }
            fit(s.shape(0), s.shape(1), s.attrs.opt_int("axis")).map_err(|e| s.fail(e.message()))?;
            s.shaped(s.shape(1).clone())
        })
        .kernel(|c| {
            let ((outer, size, inner), k) = fit(c.shape(0), c.shape(1), c.attrs.opt_int("axis"))?;
            let places = checked(c, size)?;
            dispatch_unit!(c.dtype(0).size(), U => {
                gather::<U>(units(c, 0), places, (outer, size, inner), k, units_mut(c, 0))
            });
            Ok(())
        })
        .gpu(|c| {
            let (sizes, k) = fit(c.shape(0), c.shape(1), c.attrs.opt_int("axis"))?;
            gpu::launch_at_places(c.device, (c.x(0), c.x(1)), sizes, k, c.y(0), c.op.name)
        })
        .keeps(&[1], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let attrs = [("axis", g.attrs.get("axis").clone()), ("shape", b.shape(g.ins[0]).into())];
            let grad = b.op1("_backward_topk", &[head, g.ins[1]], &attrs)?;
            g.first(grad)
        })
        .hidden()
        .sample(&[draw(&[2, 3]), draw(&[2, 1]).indices(3).of(DType::I64)], &[("axis", 1i64.into())]);
}

/// Input 1, whose places are all inside the axis.
fn checked<'a>(c: &Ctx<'a>, size: usize) -> Result<&'a [i64]> {
    let places: &[i64] = c.x(1);
    match places.iter().find(|i| **i < 0 || **i >= size as i64) {
        None => Ok(places),
        Some(i) => Err(c.fail(format!("place {i} is outside an axis of size {size}"))),
    }
}

fn gather<U: Copy>(
    data: &[U],
    places: &[i64],
    (outer, size, inner): (usize, usize, usize),
    k: usize,
    out: &mut [U],
) {
    for o in 0..outer {
        for at in 0..k * inner {
            let to = o * k * inner + at;
            out[to] = data[(o * size + places[to] as usize) * inner + at % inner];
        }
    }
}
