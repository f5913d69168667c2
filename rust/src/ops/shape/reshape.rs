//! The same elements in the same order under another shape.

use super::super::registry::Registry;
use super::super::{Build, GradArgs, Grads, Sig, Specs, draw, empty, flag, int, ints};
use super::movement::checked;
use mxrs_base::{DType, Result, Shape};

pub fn register(r: &mut Registry) {
    reshape(r);
    r.op(
        "reshape_like",
        "lhs in the shape of rhs; with ranges, its axes lhs_begin..lhs_end become rhs's axes.",
    )
    .views()
    .input("lhs", "values of any shape")
    .input("rhs", "an array whose shape is taken; its values are not looked at")
    .params([
        int("lhs_begin", "first axis of lhs to replace, 0 if None; negative ones count from the end")
            .or_none(),
        int("lhs_end", "the axis of lhs after the last to replace, all if None").or_none(),
        int("rhs_begin", "first axis of rhs to take, 0 if None").or_none(),
        int("rhs_end", "the axis of rhs after the last to take, all if None").or_none(),
    ])
    .alias(&["_npx_reshape_like"])
    .method(&["reshape_like"])
    .infer(like)
    .moves(|c| c.copy_through())
    .keeps(&[], &[])
    .grad(back)
    .sample(&[draw(&[2, 6]), draw(&[3, 4])], &[])
    .sample(&[draw(&[6, 2]), draw(&[2, 3, 5])], &[("lhs_end", 1i64.into()), ("rhs_end", 2i64.into())]);
    r.op("Flatten", "All axes but the first as one: (d0, d1 * d2 * ...).")
        .views()
        .input("data", "values with at least one axis")
        .alias(&["flatten", "_npx_batch_flatten"])
        .method(&["flatten"])
        .infer(|s| {
            s.expect_ndim(0, 1..=Shape::MAX_NDIM)?;
            let (_, rows, width) = s.shape(0).around(0);
            s.shaped(Shape::from([rows, width]))
        })
        .moves(|c| c.copy_through())
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[2, 3, 2])], &[])
        .sample(&[draw(&[3])], &[]);
    r.op("expand_dims", "A new axis of size 1 before `axis`.")
        .views()
        .input("data", "values of any shape")
        .param(int("axis", "where the new axis stands in the result, -ndim - 1 to ndim"))
        .alias(&["_npi_expand_dims"])
        .method(&["expand_dims"])
        .infer(|s| {
            let (axis, n) = (s.attrs.int("axis"), s.shape(0).ndim() as i64);
            if axis < -n - 1 || axis > n {
                return Err(s.fail(format!("axis = {axis} is out of range; {} to {n} are allowed", -n - 1)));
            }
            let mut shape = s.shape(0).clone();
            shape.insert(if axis < 0 { axis + n + 1 } else { axis } as usize, 1);
            shape.checked_size()?;
            s.shaped(shape)
        })
        .moves(|c| c.copy_through())
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[2, 3])], &[("axis", 1i64.into())])
        .sample(&[draw(&[2, 3])], &[("axis", (-1i64).into())]);
    r.op("squeeze", "Without axes of size 1: all of them, or those named, each of which must have size 1.")
        .views()
        .input("data", "values of any shape")
        .param(ints("axis", "the axes to remove, all of size 1 if None").or_none())
        .method(&["squeeze"])
        .infer(squeezed)
        .moves(|c| c.copy_through())
        .keeps(&[], &[])
        .grad(back)
        .sample(&[draw(&[1, 3, 1, 2])], &[])
        .sample(&[draw(&[1, 3, 1])], &[("axis", (-1i64).into())]);
    facts(r);
}

/// The gradient in the input's shape.
fn back(b: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let Some(head) = g.heads[0] else { return Ok(g.none()) };
    let shape = b.shape(g.ins[0]).clone();
    let grad = b.reshape(head, &shape)?;
    g.first(grad)
}

fn reshape(r: &mut Registry) {
    r.op(
        "Reshape",
        "The elements in another shape. In `shape`, 0 copies an extent of the input, -1 is inferred, -2 copies all \
         that remain, -3 is the product of two, and -4 splits one into the two values that follow it.",
    )
    .views()
    .input("data", "values of any shape")
    .params([
        ints("shape", "extents of the result and the codes 0 to -4").or(empty()),
        flag("reverse", "match the codes from the last axis on").or(false),
        ints("target_shape", "old form of `shape`: one extent may be 0 and is inferred").or(empty()).at_least(0.0),
        flag("keep_highest", "with target_shape, keep the first extent of the input").or(false),
    ])
    .alias(&["reshape"])
    .infer(|s| {
        let (codes, target) = (s.attrs.ints("shape"), s.attrs.ints("target_shape"));
        let dims = if !codes.is_empty() {
            resolve(&codes, s.shape(0), s.attrs.bool("reverse"))
        } else if !target.is_empty() {
            old_form(&target, s.shape(0), s.attrs.bool("keep_highest"))
        } else {
            Err("argument shape is required and must not be empty".to_string())
        };
        let shape = checked(dims.map_err(|text| s.fail(text))?.into_iter().map(Some))?;
        if shape.size() != s.shape(0).size() {
            return Err(s.fail(format!(
                "shape {shape} has {} elements; data has {}",
                shape.size(),
                s.shape(0).size()
            )));
        }
        s.shaped(shape)
    })
    .moves(|c| c.copy_through())
    .keeps(&[], &[])
    .grad(back)
    .sample(&[draw(&[2, 3, 4])], &[("shape", [-1, 0].into()), ("reverse", true.into())])
    .sample(&[draw(&[2, 6])], &[("shape", [0, -4, 2, -1].into())])
    .sample(&[draw(&[2, 3, 4])], &[("shape", [-3, -2].into())]);
}

/// Extents from the codes of `Reshape`, or what is wrong with them.
fn resolve(codes: &[i64], dims: &[usize], reverse: bool) -> Result<Vec<usize>, String> {
    if reverse {
        let codes: Vec<i64> = codes.iter().rev().copied().collect();
        let dims: Vec<usize> = dims.iter().rev().copied().collect();
        let mut out = resolve(&codes, &dims, false)?;
        out.reverse();
        return Ok(out);
    }
    let mut out: Vec<i64> = Vec::new();
    let mut at = 0; // the axis of the input that the next code looks at
    let mut rest = codes.iter();
    let lack = |code: i64| format!("code {code} in shape finds no axis left; data has {} axes", dims.len());
    while let Some(&code) = rest.next() {
        match code {
            0 => {
                out.push(*dims.get(at).ok_or_else(|| lack(0))? as i64);
                at += 1;
            }
            -2 => {
                out.extend(dims.iter().skip(at).map(|d| *d as i64));
                at = at.max(dims.len());
            }
            -3 => {
                let (Some(a), Some(b)) = (dims.get(at), dims.get(at + 1)) else { return Err(lack(-3)) };
                out.push((a * b) as i64);
                at += 2;
            }
            -4 => {
                let (Some(&a), Some(&b)) = (rest.next(), rest.next()) else {
                    return Err("code -4 in shape is not followed by two values".into());
                };
                out.extend(split(*dims.get(at).ok_or_else(|| lack(-4))?, a, b)?);
                at += 1;
            }
            -1 | 1.. => {
                out.push(code);
                at += 1;
            }
            _ => return Err(format!("shape has {code}; extents and the codes 0 to -4 are allowed")),
        }
    }
    inferred(&out, dims)
}

/// The two extents that code -4 splits `dim` into.
fn split(dim: usize, a: i64, b: i64) -> Result<[i64; 2], String> {
    let d = dim as i64;
    let pair = match (a, b) {
        (-1, 1..) => [d / b, b],
        (1.., -1) => [a, d / a],
        (1.., 1..) => [a, b],
        _ => {
            return Err(format!(
                "the values {a}, {b} after code -4 must be positive, at most one of them -1"
            ));
        }
    };
    match pair[0].checked_mul(pair[1]) == Some(d) {
        true => Ok(pair),
        false => Err(format!("code -4 cannot split an axis of {d} into {a}, {b}")),
    }
}

/// Puts the extent in place of -1.
fn inferred(out: &[i64], dims: &[usize]) -> Result<Vec<usize>, String> {
    let total: usize = dims.iter().product();
    let known = out.iter().filter(|v| **v != -1).try_fold(1usize, |n, v| n.checked_mul(*v as usize));
    let missing = match (out.iter().filter(|v| **v == -1).count(), known) {
        (0, _) => 0,
        (1, Some(known)) if known > 0 && total.is_multiple_of(known) => total / known,
        (1, _) => {
            return Err(format!("the extent -1 of shape cannot be inferred: {total} elements do not fit"));
        }
        _ => return Err("shape has -1 more than once; one extent can be inferred".into()),
    };
    Ok(out.iter().map(|&v| if v == -1 { missing } else { v as usize }).collect())
}

/// Extents from `target_shape` and `keep_highest`.
fn old_form(target: &[i64], dims: &[usize], keep_highest: bool) -> Result<Vec<usize>, String> {
    let mut out: Vec<i64> = target.iter().map(|&v| if v == 0 { -1 } else { v }).collect();
    if keep_highest {
        out[0] = *dims.first().ok_or("keep_highest needs data with an axis")? as i64;
    }
    inferred(&out, dims)
}

fn like(s: &Sig) -> Result<Specs> {
    let range = |i: usize, begin: &str, end: &str| -> Result<(usize, usize)> {
        let n = s.shape(i).ndim() as i64;
        let place = |v: i64| if v < 0 { v + n } else { v };
        let (first, last) =
            (place(s.attrs.opt_int(begin).unwrap_or(0)), place(s.attrs.opt_int(end).unwrap_or(n)));
        if first < 0 || last > n || first > last {
            return Err(s.fail(format!("{begin} = {first}, {end} = {last} is not a range of the {n} axes")));
        }
        Ok((first as usize, last as usize))
    };
    let (lhs, rhs) = (range(0, "lhs_begin", "lhs_end")?, range(1, "rhs_begin", "rhs_end")?);
    let (a, b) = (s.shape(0), s.shape(1));
    let dims = a[..lhs.0].iter().chain(&b[rhs.0..rhs.1]).chain(&a[lhs.1..]);
    let shape = checked(dims.map(|d| Some(*d)))?;
    if shape.size() != a.size() {
        return Err(s.fail(format!("lhs does not fill shape {shape}")));
    }
    s.shaped(shape)
}

fn squeezed(s: &Sig) -> Result<Specs> {
    let shape = s.shape(0);
    let mut kept: Vec<usize> = if s.attrs.is_none("axis") {
        shape.iter().copied().filter(|d| *d != 1).collect()
    } else {
        let axes = shape.axes(&s.attrs.ints("axis")).map_err(|e| s.fail(e.message()))?;
        if let Some(axis) = axes.iter().find(|a| shape[**a] != 1) {
            return Err(s.fail(format!("axis {axis} has size {}; only size 1 can be removed", shape[*axis])));
        }
        (0..shape.ndim()).filter(|a| !axes.contains(a)).map(|a| shape[a]).collect()
    };
    // Arrays have at least one axis, unless they came without one.
    if kept.is_empty() && shape.ndim() > 0 {
        kept.push(1);
    }
    s.shaped(Shape::new(&kept))
}

/// What is known of an array before its elements are.
fn facts(r: &mut Registry) {
    r.op("shape_array", "The shape of data as an int64 array (ndim,).")
        .input("data", "values of any shape")
        .alias(&["_npx_shape_array"])
        .method(&["shape_array"])
        .infer(|s| s.one(Shape::from([s.shape(0).ndim()]), DType::I64))
        .kernel(|c| {
            c.y::<i64>(0).iter_mut().zip(c.shape(0).iter()).for_each(|(y, d)| *y = *d as i64);
            Ok(())
        })
        .zero_grad()
        .cost(|_, _| 10.0)
        .sample(&[draw(&[2, 3])], &[]);
    r.op("size_array", "The number of elements of data as an int64 array (1,).")
        .input("data", "values of any shape")
        .method(&["size_array"])
        .infer(|s| s.one(Shape::from([1]), DType::I64))
        .kernel(|c| {
            c.y::<i64>(0)[0] = c.shape(0).size() as i64;
            Ok(())
        })
        .zero_grad()
        .cost(|_, _| 10.0)
        .sample(&[draw(&[2, 3])], &[]);
}
