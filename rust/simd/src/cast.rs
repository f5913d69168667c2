//! Casts between all pairs of element types, by [`Elem`]'s rules.

use crate::kernels::leveled;
#[cfg(target_arch = "x86_64")]
use crate::level::Found;
use crate::level::{Baseline, found};
use half::f16;
use half::slice::HalfFloatSliceExt;
use mxrs_base::{DType, Elem, dispatch};

/// `(src, dst, n)`: dst[i] = the cast of src[i]. The two must not overlap.
pub type CastFn = unsafe fn(*const u8, *mut u8, usize);

#[inline(always)]
unsafe fn cast_loop<S: Elem, D: Elem>(src: *const S, dst: *mut D, n: usize) {
    // SAFETY: the caller's pointers are valid for n elements and disjoint.
    let (src, dst) = unsafe { (std::slice::from_raw_parts(src, n), std::slice::from_raw_parts_mut(dst, n)) };
    // Between integers no float may stand in the middle: 64-bit values would be rounded.
    if S::DTYPE.is_float() || D::DTYPE.is_float() || D::DTYPE == DType::Bool {
        for (d, s) in dst.iter_mut().zip(src) {
            *d = D::from_f64(s.to_f64());
        }
    } else {
        for (d, s) in dst.iter_mut().zip(src) {
            *d = D::from_i64(s.to_i64());
        }
    }
}

leveled!(choose_cast -> CastFn, cast_avx512, cast_avx2, cast_base, [S: Elem, D: Elem] [S, D],
    (src: *const u8, dst: *mut u8, n: usize),
    L => { let _: Option<L> = None; cast_loop::<S, D>(src.cast(), dst.cast(), n) });

unsafe fn half_to_f32(src: *const u8, dst: *mut u8, n: usize) {
    // SAFETY: the contract of `CastFn`. `half` uses the processor's conversion where there is one.
    unsafe {
        let src = std::slice::from_raw_parts(src.cast::<f16>(), n);
        src.convert_to_f32_slice(std::slice::from_raw_parts_mut(dst.cast(), n));
    }
}

unsafe fn f32_to_half(src: *const u8, dst: *mut u8, n: usize) {
    // SAFETY: the contract of `CastFn`.
    unsafe {
        let dst = std::slice::from_raw_parts_mut(dst.cast::<f16>(), n);
        dst.convert_from_f32_slice(std::slice::from_raw_parts(src.cast(), n));
    }
}

macro_rules! copy_bytes {
    ($name:ident, $size:literal) => {
        unsafe fn $name(src: *const u8, dst: *mut u8, n: usize) {
            // SAFETY: the contract of `CastFn`.
            unsafe { std::ptr::copy_nonoverlapping(src, dst, n * $size) }
        }
    };
}
copy_bytes!(copy1, 1);
copy_bytes!(copy2, 2);
copy_bytes!(copy4, 4);
copy_bytes!(copy8, 8);

/// The loop that casts `from` to `to`.
pub fn cast_kernel(from: DType, to: DType) -> CastFn {
    match (from, to) {
        (f, t) if f == t => match f.size() {
            1 => copy1,
            2 => copy2,
            4 => copy4,
            _ => copy8,
        },
        (DType::F16, DType::F32) => half_to_f32,
        (DType::F32, DType::F16) => f32_to_half,
        _ => dispatch!(from, S => dispatch!(to, D => choose_cast::<S, D>())),
    }
}

/// dst[i] = src[i] cast.
///
/// # Panics
/// If the lengths differ.
pub fn cast<S: Elem, D: Elem>(src: &[S], dst: &mut [D]) {
    assert_eq!(src.len(), dst.len(), "a cast's source and destination differ in length");
    // SAFETY: equal lengths; a mutable slice overlaps nothing.
    unsafe { cast_kernel(S::DTYPE, D::DTYPE)(src.as_ptr().cast(), dst.as_mut_ptr().cast(), src.len()) }
}

/// Casts `n` elements from `src` of type `from` to `dst` of type `to`.
///
/// # Safety
/// Both pointers are valid for `n` elements of their type, aligned for it, and the ranges do not overlap.
pub unsafe fn cast_dyn(src: *const u8, from: DType, dst: *mut u8, to: DType, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { cast_kernel(from, to)(src, dst, n) }
}

/// Casts the elements in `src` into `dst`, both given as bytes.
///
/// # Panics
/// If the two do not hold the same number of whole elements, or are not aligned for them.
pub fn cast_bytes(src: &[u8], from: DType, dst: &mut [u8], to: DType) {
    let n = src.len() / from.size();
    assert!(
        src.len() == n * from.size() && dst.len() == n * to.size(),
        "a cast keeps the number of elements"
    );
    let aligned = |p: *const u8, d: DType| (p as usize).is_multiple_of(d.size());
    assert!(aligned(src.as_ptr(), from) && aligned(dst.as_ptr(), to), "elements are aligned");
    // SAFETY: both hold `n` aligned elements, as just checked, and a unique borrow does not overlap another.
    unsafe { cast_dyn(src.as_ptr(), from, dst.as_mut_ptr(), to, n) }
}
