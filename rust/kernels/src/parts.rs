//! Memory seen in other ways, without `unsafe` where it is used: elements as bytes, bytes as units of so many bytes,
//! and one slice as parts that the lanes write beside each other.

use crate::copy::Unit;
use crate::real::Shared;
use mxrs_base::{DType, Elem};
use std::any::TypeId;

/// Bytes as units of `U`'s size.
///
/// # Panics
/// If the bytes are not whole, aligned units; arrays are, for units of their element's size.
pub fn units<U: Unit>(bytes: &[u8]) -> &[U] {
    // SAFETY: the units are unsigned integers, of which every bit pattern is one.
    let (head, body, tail) = unsafe { bytes.align_to::<U>() };
    assert!(head.is_empty() && tail.is_empty(), "bytes are whole, aligned units");
    body
}

/// As [`units`], to write.
pub fn units_mut<U: Unit>(bytes: &mut [u8]) -> &mut [U] {
    // SAFETY: as in `units`, and what is written are bytes again.
    let (head, body, tail) = unsafe { bytes.align_to_mut::<U>() };
    assert!(head.is_empty() && tail.is_empty(), "bytes are whole, aligned units");
    body
}

/// The bytes of elements.
pub fn bytes_of<T: Elem>(values: &[T]) -> &[u8] {
    // SAFETY: element types have no padding; the bytes live as long as the values.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of numbers, to write.
///
/// # Panics
/// On `bool`, since not every byte is one.
pub fn bytes_of_mut<T: Elem>(values: &mut [T]) -> &mut [u8] {
    assert_ne!(T::DTYPE, DType::Bool, "not every byte is a bool");
    // SAFETY: as in `bytes_of`; every bit pattern is a number of the type, and the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// `values` as elements of `O`, where that is the type they have: what generic code asks before it converts.
pub fn same_type<T: Elem, O: Elem>(values: &[T]) -> Option<&[O]> {
    // SAFETY: the two types are one.
    (TypeId::of::<T>() == TypeId::of::<O>())
        .then(|| unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
}

/// Calls `body(i, part)` on the parts `out[i * length..(i + 1) * length]` (the last may be shorter), on the lanes;
/// `grain` parts at least are one lane's.
pub fn each_part<T: Send>(out: &mut [T], length: usize, grain: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let (n, length) = (out.len(), length.max(1));
    let shared = Shared::new(out);
    mxrs_lanes::for_each(n.div_ceil(length), grain, |range| {
        for i in range {
            // SAFETY: the parts do not overlap, and each index is given to one lane.
            body(i, unsafe { shared.part(i * length..n.min((i + 1) * length)) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_the_bits() {
        let x = [1.5f32, -0.0];
        assert_eq!(units::<u32>(bytes_of(&x)), [1.5f32.to_bits(), 1 << 31]);
        let mut y = [0.0f64; 2];
        units_mut::<u64>(bytes_of_mut(&mut y))[1] = 2.5f64.to_bits();
        assert_eq!(y, [0.0, 2.5]);
        assert!(units::<u64>(&[]).is_empty());
    }

    #[test]
    #[should_panic(expected = "whole, aligned units")]
    fn broken_units_are_refused() {
        units::<u32>(bytes_of(&[1u8, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn only_the_same_type_is_the_same() {
        assert_eq!(same_type::<f32, f32>(&[1.0]), Some(&[1.0f32][..]));
        assert_eq!(same_type::<i8, u8>(&[1]), None);
    }

    #[test]
    fn parts_cover_everything_once() {
        let mut out = vec![0usize; 1003];
        each_part(&mut out, 10, 3, |i, part| part.iter_mut().for_each(|v| *v += i + 1));
        assert!(out.iter().enumerate().all(|(i, v)| *v == i / 10 + 1));
        each_part(&mut out[..0], 0, 0, |_, _: &mut [usize]| panic!("there is no part"));
    }
}
