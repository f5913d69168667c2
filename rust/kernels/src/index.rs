//! Movement by index arrays: take, Embedding, pick, gather_nd, scatter_nd, one_hot, where, masks and their gradients.
//!
//! Index arrays have any element type; each index is brought inside its axis once, by [`Mode`] or with an error that
//! names index, axis and size, so that no kernel reads or writes outside. Gradients add repeated indices in index
//! order whatever the number of lanes: lanes share the columns or the rows of the destination, never an element.
//! Shapes and attributes are checked by the operators.

use crate::copy::{Add, GRAIN, Unit, for_each_part, for_each_row, narrow, widen};
use mxrs_base::{Elem, Error, Result};
use std::collections::TryReserveError;

/// What becomes of an index outside its axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To the nearest end.
    Clip,
    /// Modulo the size; -1 is the last.
    Wrap,
    /// An error; negative indices are outside.
    Raise,
    /// An error beyond -size..size; negative indices count from the end, as in `gather_nd`.
    RaiseNegative,
}

fn outside(index: i64, axis: usize, size: usize) -> Error {
    Error::index(format!("index {index} is out of bounds for axis {axis} with size {size}"))
}

fn no_memory(e: TryReserveError) -> Error {
    Error::memory(format!("not enough memory for an index table: {e}"))
}

/// `indices` as places along an axis of `size` elements. Fractions are cut toward zero; NaN counts as the smallest
/// integer. An axis of size 0 refuses every index.
pub fn resolve<I: Elem>(indices: &[I], axis: usize, size: usize, mode: Mode) -> Result<Vec<usize>> {
    let mut out = Vec::new();
    out.try_reserve_exact(indices.len()).map_err(no_memory)?;
    if size == 0 {
        return match indices.first() {
            Some(i) => Err(outside(i.to_i64(), axis, size)),
            None => Ok(out),
        };
    }
    let n = size as i64;
    match mode {
        Mode::Clip => out.extend(indices.iter().map(|i| i.to_i64().clamp(0, n - 1) as usize)),
        Mode::Wrap => out.extend(indices.iter().map(|i| i.to_i64().rem_euclid(n) as usize)),
        Mode::Raise | Mode::RaiseNegative => {
            let low = if mode == Mode::Raise { 0 } else { -n };
            for i in indices {
                let i = i.to_i64();
                if i < low || i >= n {
                    return Err(outside(i, axis, size));
                }
                out.push(if i < 0 { i + n } else { i } as usize);
            }
        }
    }
    Ok(out)
}

/// `take`, `Embedding` (outer = 1, `Mode::Clip`): data (outer, size, inner), `at` resolved indices, out
/// (outer, at.len(), inner).
pub fn take<U: Unit>(data: &[U], at: &[usize], outer: usize, size: usize, inner: usize, out: &mut [U]) {
    assert_eq!(data.len(), outer * size * inner, "take: the data's size");
    assert_eq!(out.len(), outer * at.len() * inner, "take: the output's size");
    let n = at.len();
    if inner == 1 {
        return for_each_row(out, n, n, |o, line| {
            let row = &data[o * size..(o + 1) * size];
            line.iter_mut().zip(at).for_each(|(v, &i)| *v = row[i]);
        });
    }
    for_each_row(out, inner, inner, |row, line| {
        let first = (row / n * size + at[row % n]) * inner;
        line.copy_from_slice(&data[first..first + inner]);
    });
}

/// Gradient of [`take`]: adds grad (outer, at.len(), inner) into the rows `at` of out (outer, size, inner).
pub fn take_grad<T: Add>(grad: &[T], at: &[usize], outer: usize, size: usize, inner: usize, out: &mut [T]) {
    let n = at.len();
    assert_eq!(grad.len(), outer * n * inner, "take gradient: the gradient's size");
    assert_eq!(out.len(), outer * size * inner, "take gradient: the output's size");
    if grad.is_empty() {
        return;
    }
    assert!(at.iter().all(|&i| i < size), "take gradient: unresolved index");
    if outer >= mxrs_lanes::count() {
        return for_each_row(out, size * inner, n * inner, |o, block| {
            let grad = &grad[o * n * inner..][..n * inner];
            add_rows(grad, at, inner, block, 0);
        });
    }
    for o in 0..outer {
        let (grad, block) =
            (&grad[o * n * inner..][..n * inner], &mut out[o * size * inner..][..size * inner]);
        // Each lane owns a span of destination rows and looks only for indices that fall into it.
        let lanes = mxrs_lanes::count().min(n * inner / GRAIN).max(1);
        let rows = size.div_ceil(lanes);
        for_each_row_span(block, rows, inner, |first, span| add_rows(grad, at, inner, span, first));
    }
}

/// Calls `body(first_row, span)` for spans of `rows` rows of `width` elements (the last may be shorter).
fn for_each_row_span<T: Send>(
    out: &mut [T],
    rows: usize,
    width: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    if rows * width >= out.len() {
        return body(0, out);
    }
    for_each_part(out, rows * width, |first, part| body(first / width, part));
}

/// Adds the rows of `grad` whose index falls into `out`, which begins at row `first`, in index order.
fn add_rows<T: Add>(grad: &[T], at: &[usize], inner: usize, out: &mut [T], first: usize) {
    let rows = out.len() / inner;
    for (row, &i) in grad.chunks_exact(inner).zip(at) {
        if i >= first && i - first < rows {
            let target = &mut out[(i - first) * inner..][..inner];
            target.iter_mut().zip(row).for_each(|(t, v)| *t = t.plus(*v));
        }
    }
}

/// `pick`: data (outer, size, inner), one resolved index per (outer, inner), out (outer, inner).
/// `batch_take` is the case inner = 1.
pub fn pick<U: Unit>(data: &[U], at: &[usize], outer: usize, size: usize, inner: usize, out: &mut [U]) {
    assert_eq!(data.len(), outer * size * inner, "pick: the data's size");
    assert!(at.len() == outer * inner && out.len() == at.len(), "pick: the index's or output's size");
    for_each_part(out, GRAIN, |first, part| {
        for (k, v) in part.iter_mut().enumerate() {
            let j = first + k;
            *v = data[(j / inner * size + at[j]) * inner + j % inner];
        }
    });
}

/// Gradient of [`pick`]: adds grad (outer, inner) into out (outer, size, inner).
pub fn pick_grad<T: Add>(grad: &[T], at: &[usize], outer: usize, size: usize, inner: usize, out: &mut [T]) {
    assert_eq!(out.len(), outer * size * inner, "pick gradient: the output's size");
    assert!(at.len() == outer * inner && grad.len() == at.len(), "pick gradient: the gradient's size");
    for_each_row(out, size * inner, inner, |o, block| {
        for j in 0..inner {
            let place = &mut block[at[o * inner + j] * inner + j];
            *place = place.plus(grad[o * inner + j]);
        }
    });
}

/// Offsets, in slices, that the (coords, n) index array of `gather_nd` names in an array whose leading axes are
/// `dims` (one per coordinate). Negative indices count from the end; others outside give an error.
pub fn flatten_nd<I: Elem>(indices: &[I], dims: &[usize]) -> Result<Vec<usize>> {
    let n = indices.len().checked_div(dims.len()).unwrap_or(0);
    assert_eq!(indices.len(), n * dims.len(), "gather_nd: the index array has one row per coordinate");
    let mut out = Vec::new();
    out.try_reserve_exact(n).map_err(no_memory)?;
    out.resize(n, 0);
    for (axis, (&size, row)) in dims.iter().zip(indices.chunks_exact(n.max(1))).enumerate() {
        for (place, i) in out.iter_mut().zip(row) {
            let (index, size_i) = (i.to_i64(), size as i64);
            if index < -size_i || index >= size_i {
                return Err(outside(index, axis, size));
            }
            *place = *place * size + if index < 0 { index + size_i } else { index } as usize;
        }
    }
    Ok(out)
}

/// `scatter_nd`: writes the slices of `src` (at.len(), inner) to slices `at` of `out`; the last of equal indices stays.
/// With offsets of [`flatten_nd`]; `index_copy` with those of [`resolve`].
pub fn scatter_rows<U: Unit>(src: &[U], at: &[usize], inner: usize, out: &mut [U]) {
    assert_eq!(src.len(), at.len() * inner, "scatter: the source's size");
    if inner == 0 {
        return;
    }
    for (row, &i) in src.chunks_exact(inner).zip(at) {
        out[i * inner..(i + 1) * inner].copy_from_slice(row);
    }
}

/// `index_copy`'s gradient for the old tensor is the head gradient with the rows `at` zeroed.
pub fn zero_rows<U: Unit>(at: &[usize], inner: usize, out: &mut [U]) {
    at.iter().for_each(|&i| out[i * inner..(i + 1) * inner].fill(U::default()));
}

/// `one_hot`: out (indices.len(), depth) is `off`, and `on` at each index inside 0..depth; the others stay `off`.
pub fn one_hot<I: Elem, U: Unit>(indices: &[I], depth: usize, on: U, off: U, out: &mut [U]) {
    assert_eq!(out.len(), indices.len() * depth, "one_hot: the output's size");
    for_each_row(out, depth, depth, |row, line| {
        line.fill(off);
        if let Some(v) = usize::try_from(indices[row].to_i64()).ok().and_then(|i| line.get_mut(i)) {
            *v = on;
        }
    });
}

/// One side of [`choose`]: an array, or one element for all.
#[derive(Clone, Copy)]
pub enum Side<'a, U> {
    Array(&'a [U]),
    Scalar(U),
}

impl<U: Unit> Side<'_, U> {
    #[inline(always)]
    fn at(&self, i: usize) -> U {
        match self {
            Side::Array(a) => a[i],
            Side::Scalar(v) => *v,
        }
    }
    fn check(&self, n: usize) {
        if let Side::Array(a) = self {
            assert_eq!(a.len(), n, "where: a side's size is not the output's");
        }
    }
}

/// `where`: `x` where the condition is not 0 (NaN is not 0), else `y`. The condition has one element per output
/// element, or one per row of out (cond.len(), inner).
pub fn choose<C: Elem, U: Unit>(cond: &[C], x: Side<U>, y: Side<U>, out: &mut [U]) {
    let n = out.len();
    x.check(n);
    y.check(n);
    if n == 0 {
        return;
    }
    assert!(
        !cond.is_empty() && n.is_multiple_of(cond.len()),
        "where: the condition's size does not divide the output's"
    );
    let (inner, zero) = (n / cond.len(), C::default());
    if inner > 1 {
        return for_each_row(out, inner, inner, |row, line| {
            let side = if cond[row] != zero { &x } else { &y };
            match side {
                Side::Array(a) => line.copy_from_slice(&a[row * inner..(row + 1) * inner]),
                Side::Scalar(v) => line.fill(*v),
            }
        });
    }
    for_each_part(out, GRAIN, |first, part| {
        let cond = &cond[first..first + part.len()];
        match (x, y) {
            (Side::Array(x), Side::Array(y)) => {
                let (x, y) = (&x[first..first + part.len()], &y[first..first + part.len()]);
                for (((v, c), x), y) in part.iter_mut().zip(cond).zip(x).zip(y) {
                    *v = if *c != zero { *x } else { *y };
                }
            }
            _ => {
                for (k, (v, c)) in part.iter_mut().zip(cond).enumerate() {
                    *v = if *c != zero { x.at(first + k) } else { y.at(first + k) };
                }
            }
        }
    });
}

/// The places where `mask` is not 0, for `boolean_mask`: its value is [`take`] of them, its gradient [`take_grad`].
pub fn mask_places<M: Elem>(mask: &[M]) -> Vec<usize> {
    let zero = M::default();
    mask.iter().enumerate().filter(|(_, m)| **m != zero).map(|(i, _)| i).collect()
}

/// `ravel_multi_index`: indices (dims.len(), n) to flat indices (n), without bounds, as MXNet has it (the first size
/// does not matter).
pub fn ravel<T: Elem>(indices: &[T], dims: &[i64], out: &mut [T]) {
    let n = out.len();
    assert_eq!(indices.len(), n * dims.len(), "ravel: the index array has one row per axis");
    for (j, v) in out.iter_mut().enumerate() {
        let flat = dims
            .iter()
            .enumerate()
            .fold(0i64, |flat, (d, s)| flat.wrapping_mul(*s).wrapping_add(indices[d * n + j].to_i64()));
        *v = T::from_i64(flat);
    }
}

/// `unravel_index`: flat indices (n) to (dims.len(), n). Division is toward zero, and what exceeds the shape stays in
/// the first axis, as MXNet has it. A size of 0 is refused.
pub fn unravel<T: Elem>(flat: &[T], dims: &[i64], out: &mut [T]) -> Result<()> {
    let n = flat.len();
    assert_eq!(out.len(), n * dims.len(), "unravel: the output has one row per axis");
    if let Some(axis) = dims.iter().skip(1).position(|d| *d == 0) {
        return Err(Error::value(format!("unravel_index: axis {} of shape {dims:?} has size 0", axis + 1)));
    }
    for (j, v) in flat.iter().enumerate() {
        let mut rest = v.to_i64();
        for d in (1..dims.len()).rev() {
            out[d * n + j] = T::from_i64(rest.wrapping_rem(dims[d]));
            rest = rest.wrapping_div(dims[d]);
        }
        if !dims.is_empty() {
            out[j] = T::from_i64(rest);
        }
    }
    Ok(())
}

/// Adds with accumulation in the wider type: used where many indices meet in one element of a narrow float.
///
/// As [`take_grad`] with outer = 1, for float16 gradients of embeddings.
pub fn take_grad_wide<T: Add>(
    grad: &[T],
    at: &[usize],
    size: usize,
    inner: usize,
    out: &mut [T],
) -> Result<()>
where
    T::Acc: Add,
{
    assert_eq!(out.len(), size * inner, "take gradient: the output's size");
    let mut acc: Vec<T::Acc> = Vec::new();
    let mut wide: Vec<T::Acc> = Vec::new();
    acc.try_reserve_exact(out.len()).map_err(no_memory)?;
    wide.try_reserve_exact(grad.len()).map_err(no_memory)?;
    acc.extend(out.iter().map(|v| widen::<T>(*v)));
    wide.extend(grad.iter().map(|v| widen::<T>(*v)));
    take_grad(&wide, at, 1, size, inner, &mut acc);
    out.iter_mut().zip(acc).for_each(|(o, a)| *o = narrow::<T>(a));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxrs_base::f16;

    #[test]
    fn indices_are_brought_inside() {
        let odd = [f32::NAN, f32::INFINITY, -1.9, 1.9, 1e9, -7.0];
        assert_eq!(resolve(&odd, 0, 3, Mode::Clip).unwrap(), [0, 0, 0, 1, 2, 0]);
        assert_eq!(resolve(&[-1.0f32, 3.0, -7.0, 7.0, -0.5], 0, 3, Mode::Wrap).unwrap(), [2, 0, 2, 1, 0]);
        let e = resolve(&[0i32, 3], 1, 3, Mode::Raise).unwrap_err();
        assert_eq!(e.message(), "index 3 is out of bounds for axis 1 with size 3");
        assert!(resolve(&[-1i64], 0, 3, Mode::Raise).is_err());
        assert_eq!(resolve(&[-1i64, 2], 0, 3, Mode::RaiseNegative).unwrap(), [2, 2]);
        assert!(resolve(&[-4i8], 0, 3, Mode::RaiseNegative).is_err());
        assert!(resolve(&[0u8], 0, 0, Mode::Clip).is_err());
        assert!(resolve::<u8>(&[], 0, 0, Mode::Clip).unwrap().is_empty());
    }

    #[test]
    fn take_and_its_gradient() {
        for (outer, size, inner, n) in [
            (1, 5, 3, 7),
            (2, 4, 1, 6),
            (3, 1, 2, 4),
            (1, 3, 0, 2),
            (2, 3, 2, 0),
            (1, 300, 70, 3000),
            (9, 20, 5, 30),
        ] {
            let data: Vec<u32> = (0..(outer * size * inner) as u32).collect();
            let at: Vec<usize> = (0..n).map(|i| i * 7 % size).collect();
            let mut out = vec![0; outer * n * inner];
            take(&data, &at, outer, size, inner, &mut out);
            let grad: Vec<i64> = out.iter().map(|v| *v as i64 + 1).collect();
            let mut got = vec![5i64; data.len()];
            let mut want = got.clone();
            take_grad(&grad, &at, outer, size, inner, &mut got);
            for o in 0..outer {
                for (j, i) in at.iter().enumerate() {
                    for k in 0..inner {
                        assert_eq!(out[(o * n + j) * inner + k], data[(o * size + i) * inner + k]);
                        want[(o * size + i) * inner + k] += grad[(o * n + j) * inner + k];
                    }
                }
            }
            assert_eq!(got, want);
        }
        let mut sum = [f16::from_f32(0.0); 1];
        take_grad_wide(&vec![f16::from_f32(1.0); 3000], &vec![0; 3000], 1, 1, &mut sum).unwrap();
        assert_eq!(sum[0].to_f32(), 3000.0);
    }

    #[test]
    fn pick_and_its_gradient() {
        let data: Vec<u32> = (0..24).collect();
        let at = [2, 0, 1, 1, 2, 0, 0, 1];
        let mut out = [0; 8];
        pick(&data, &at, 2, 3, 4, &mut out);
        assert_eq!(out, [8, 1, 6, 7, 20, 13, 14, 19]);
        let mut grad = [0f32; 24];
        pick_grad(&[1.0; 8], &at, 2, 3, 4, &mut grad);
        assert!((0..24).all(|i| (grad[i] == 1.0) == out.contains(&(i as u32))));
    }

    #[test]
    fn nd_indices() {
        assert_eq!(flatten_nd(&[0f32, 1.7, 1.0, -1.0], &[2, 3]).unwrap(), [1, 5]);
        assert_eq!(
            flatten_nd(&[3i32], &[3]).unwrap_err().message(),
            "index 3 is out of bounds for axis 0 with size 3"
        );
        assert!(flatten_nd(&[0i64, -4], &[2, 3]).is_err());
        assert!(flatten_nd::<i64>(&[], &[2, 3]).unwrap().is_empty());
        let mut out = [0u16; 6];
        scatter_rows(&[1, 2, 3, 4, 5, 6], &[2, 2, 0], 2, &mut out);
        assert_eq!(out, [5, 6, 0, 0, 3, 4]);
        zero_rows(&[2], 2, &mut out);
        assert_eq!(out, [5, 6, 0, 0, 0, 0]);
    }

    #[test]
    fn one_hot_leaves_outside_off() {
        let mut out = [0u32; 12];
        one_hot(&[0f32, 2.0, 5.0, -1.0], 3, 2, 1, &mut out);
        assert_eq!(out, [2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]);
        one_hot::<f32, u8>(&[1.0], 0, 1, 0, &mut []);
    }

    #[test]
    fn choose_by_element_row_and_scalar() {
        let (x, y) = ([1u32, 2, 3, 4], [5u32, 6, 7, 8]);
        let mut out = [0; 4];
        choose(&[1.0f32, 0.0, f32::NAN, -0.0], Side::Array(&x), Side::Array(&y), &mut out);
        assert_eq!(out, [1, 6, 3, 8]);
        choose(&[0u8, 1], Side::Array(&x), Side::Scalar(9), &mut out);
        assert_eq!(out, [9, 9, 3, 4]);
        choose(&[0u8, 1, 1, 0], Side::Scalar(0), Side::Array(&y), &mut out);
        assert_eq!(out, [5, 0, 0, 8]);
    }

    #[test]
    fn masks_and_flat_indices() {
        assert_eq!(mask_places(&[0.5f32, -1.0, f32::NAN, 0.0]), [0, 1, 2]);
        let mut flat = [0f32; 2];
        ravel(&[1.0, 2.0, 1.0, 3.0], &[-1, 4], &mut flat);
        assert_eq!(flat, [5.0, 11.0]);
        let mut at = [0f32; 6];
        unravel(&[100f32, -1.0, 7.0], &[3, 4], &mut at).unwrap();
        assert_eq!(at, [25.0, 0.0, 1.0, 0.0, -1.0, 3.0]);
        assert!(unravel(&[1i64], &[3, 0], &mut [0, 0]).is_err());
    }
}
