//! sort, argsort and topk along an axis, and the gradient they share.
//!
//! Elements become integers whose order is theirs, packed with their index, so that one unstable integer sort is a
//! stable sort by value. Ties keep the order of their indices in both directions (MXNet does so for short rows and
//! leaves it open for long ones). NaN counts as greater than every number, -0 equals 0.

use crate::copy::{GRAIN, Shared};
use mxrs_base::{DType, Elem};
use mxrs_lanes::for_each;
use smallvec::SmallVec;

/// The three sizes around the sorted axis: data is (outer, size, inner).
#[derive(Clone, Copy, Debug)]
pub struct Around {
    pub outer: usize,
    pub size: usize,
    pub inner: usize,
}

/// What is wanted of [`topk`]; `None` is not computed.
#[derive(Debug)]
pub struct Wanted<'a, T, I> {
    /// (outer, k, inner): the elements in order.
    pub values: Option<&'a mut [T]>,
    /// (outer, k, inner): their places along the axis, cast to the index type.
    pub indices: Option<&'a mut [I]>,
    /// (outer, size, inner): 1 at the chosen elements, else 0.
    pub mask: Option<&'a mut [T]>,
}

/// An integer that orders as the element does; NaN last.
#[inline(always)]
fn rank<T: Elem>(v: T) -> u64 {
    match T::DTYPE {
        DType::F32 | DType::F16 => {
            let v = v.to_f64() as f32;
            if v.is_nan() {
                return u32::MAX as u64;
            }
            // Adding 0 makes -0 into 0. A negative float's bits order backwards, so they are all flipped.
            let bits = (v + 0.0).to_bits();
            (if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }) as u64
        }
        DType::F64 => {
            let v = v.to_f64();
            if v.is_nan() {
                return u64::MAX;
            }
            let bits = (v + 0.0).to_bits();
            if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
        }
        DType::I64 => (v.to_i64() as u64) ^ (1 << 63),
        _ => (v.to_i64() + (1 << 31)) as u64,
    }
}

/// A rank and an index as one integer.
trait Packed: Copy + Ord + Default {
    fn pack(rank: u64, index: usize) -> Self;
    fn index(self) -> usize;
}
impl Packed for u64 {
    #[inline(always)]
    fn pack(rank: u64, index: usize) -> u64 {
        rank << 32 | index as u64
    }
    #[inline(always)]
    fn index(self) -> usize {
        self as u32 as usize
    }
}
impl Packed for u128 {
    #[inline(always)]
    fn pack(rank: u64, index: usize) -> u128 {
        (rank as u128) << 64 | index as u128
    }
    #[inline(always)]
    fn index(self) -> usize {
        self as u64 as usize
    }
}

/// The first `k` elements along the axis in ascending or descending order; `sort` and `argsort` are `k = size`.
///
/// Panics where `k` exceeds the size or an output has another size than stated.
pub fn topk<T: Elem, I: Elem>(data: &[T], around: Around, k: usize, ascending: bool, wanted: Wanted<T, I>) {
    if T::DTYPE.size() <= 4 && around.size <= u32::MAX as usize {
        run::<T, I, u64>(data, around, k, ascending, wanted)
    } else {
        run::<T, I, u128>(data, around, k, ascending, wanted)
    }
}

fn run<T: Elem, I: Elem, P: Packed>(data: &[T], a: Around, k: usize, ascending: bool, wanted: Wanted<T, I>) {
    let Around { outer, size, inner } = a;
    assert_eq!(data.len(), outer * size * inner, "topk: the data's size");
    assert!(k <= size, "topk: k = {k} exceeds the axis of size {size}");
    let Wanted { values, indices, mask } = wanted;
    let n = outer * k * inner;
    assert!(values.as_ref().is_none_or(|v| v.len() == n), "topk: the size of the values");
    assert!(indices.as_ref().is_none_or(|v| v.len() == n), "topk: the size of the indices");
    assert!(mask.as_ref().is_none_or(|v| v.len() == data.len()), "topk: the size of the mask");
    let (values, indices) = (values.map(Shared::new), indices.map(Shared::new));
    let mask = mask.map(|m| {
        m.fill(T::default());
        Shared::new(m)
    });
    let flip = if ascending {
        0
    } else if T::DTYPE.size() <= 4 {
        u32::MAX as u64
    } else {
        u64::MAX
    };
    // Sorting costs some ten times what moving does.
    for_each(outer * inner, (GRAIN / 10 / size.max(1)).max(1), |rows| {
        let mut keys: SmallVec<[P; 64]> = SmallVec::from_elem(P::default(), size);
        for row in rows {
            let (o, i) = (row / inner, row % inner);
            let base = o * size * inner + i;
            for (j, key) in keys.iter_mut().enumerate() {
                *key = P::pack(rank(data[base + j * inner]) ^ flip, j);
            }
            if k < size && k > 0 {
                keys.select_nth_unstable(k - 1);
            }
            keys[..k].sort_unstable();
            for (j, key) in keys[..k].iter().enumerate() {
                let (index, place) = (key.index(), (o * k + j) * inner + i);
                // SAFETY: `place < n` and `index < size`, the outputs' sizes were checked, and a row owns its places.
                unsafe {
                    if let Some(values) = values {
                        *values.at(place) = data[base + index * inner];
                    }
                    if let Some(indices) = indices {
                        *indices.at(place) = I::from_i64(index as i64);
                    }
                    if let Some(mask) = mask {
                        *mask.at(base + index * inner) = T::from_i64(1);
                    }
                }
            }
        }
    });
}

/// Gradient of the values of [`topk`] and `sort`: writes grad (outer, k, inner) to the places `indices` of out
/// (outer, size, inner), zero elsewhere. Indices of a row are distinct; one outside panics.
pub fn topk_grad<T: Elem>(grad: &[T], indices: &[i64], around: Around, k: usize, out: &mut [T]) {
    let Around { outer, size, inner } = around;
    assert_eq!(out.len(), outer * size * inner, "topk gradient: the output's size");
    assert!(
        grad.len() == outer * k * inner && indices.len() == grad.len(),
        "topk gradient: the gradient's size"
    );
    crate::copy::for_each_row(out, size * inner, size * inner, |o, block| {
        block.fill(T::default());
        for at in 0..k * inner {
            let source = o * k * inner + at;
            block[indices[source] as usize * inner + at % inner] = grad[source];
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxrs_base::f16;

    fn check<T: Elem>(around: Around, k: usize, ascending: bool) {
        let Around { outer, size, inner } = around;
        let data: Vec<T> = (0..outer * size * inner).map(|i| T::from_i64((i * 7919 % 23) as i64)).collect();
        let n = outer * k * inner;
        let (mut values, mut indices, mut mask) =
            (vec![T::default(); n], vec![0i64; n], vec![T::from_i64(5); data.len()]);
        let wanted = Wanted { values: Some(&mut values), indices: Some(&mut indices), mask: Some(&mut mask) };
        topk(&data, around, k, ascending, wanted);
        let mut marks = vec![T::default(); data.len()];
        for o in 0..outer {
            for i in 0..inner {
                let at = |j: usize| data[(o * size + j) * inner + i].to_i64();
                let mut order: Vec<usize> = (0..size).collect();
                order.sort_by_key(|&j| if ascending { at(j) } else { -at(j) });
                for (j, &want) in order[..k].iter().enumerate() {
                    let place = (o * k + j) * inner + i;
                    assert_eq!(indices[place], want as i64);
                    assert_eq!(values[place].to_i64(), at(want));
                    marks[(o * size + want) * inner + i] = T::from_i64(1);
                }
            }
        }
        assert_eq!(mask, marks);
        let mut grad = vec![T::from_i64(9); data.len()];
        topk_grad(&vec![T::from_i64(1); n], &indices, around, k, &mut grad);
        assert_eq!(grad, marks);
    }

    #[test]
    fn every_type_against_a_stable_sort() {
        for ascending in [true, false] {
            for (outer, size, inner, k) in
                [(1, 1, 1, 1), (3, 17, 1, 5), (2, 100, 3, 100), (2, 70, 1, 0), (0, 3, 2, 1), (1, 3000, 2, 40)]
            {
                let around = Around { outer, size, inner };
                check::<f32>(around, k, ascending);
                check::<f64>(around, k, ascending);
                check::<f16>(around, k, ascending);
                check::<u8>(around, k, ascending);
                check::<i8>(around, k, ascending);
                check::<i32>(around, k, ascending);
                check::<i64>(around, k, ascending);
            }
        }
    }

    fn argsort<T: Elem>(data: &[T], ascending: bool) -> Vec<i32> {
        let mut out = vec![0; data.len()];
        let wanted = Wanted { values: None, indices: Some(&mut out), mask: None };
        topk(data, Around { outer: 1, size: data.len(), inner: 1 }, data.len(), ascending, wanted);
        out
    }

    #[test]
    fn ties_nan_zeros_and_extremes() {
        assert_eq!(argsort(&[1f32, 1.0, 1.0, 0.0, 0.0, 2.0, 2.0], true), [3, 4, 0, 1, 2, 5, 6]);
        assert_eq!(argsort(&[1f32, 1.0, 1.0, 0.0, 0.0, 2.0, 2.0], false), [5, 6, 0, 1, 2, 3, 4]);
        assert_eq!(argsort(&[0f32, -0.0, 0.0, -0.0], true), [0, 1, 2, 3]);
        let odd = [f64::NAN, 3.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN];
        assert_eq!(argsort(&odd, true), [4, 2, 1, 3, 0, 5]);
        assert_eq!(argsort(&odd, false), [0, 5, 3, 1, 2, 4]);
        assert_eq!(argsort(&odd.map(|v| v as f32), true), [4, 2, 1, 3, 0, 5]);
        assert_eq!(argsort(&[i64::MAX, i64::MIN, 0, -1], true), [1, 3, 2, 0]);
        assert_eq!(argsort(&[i32::MAX, i32::MIN, 0, -1], false), [0, 2, 3, 1]);
        assert!(argsort::<f32>(&[], true).is_empty());
    }
}
