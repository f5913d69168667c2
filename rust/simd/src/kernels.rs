//! The loops of every instruction for every element type, as function pointers chosen once per call.
//!
//! Only this room instantiates them. Pointers are untyped so that callers stay small; the safe typed functions at
//! the end are for everyone who has slices.

use crate::cast::cast_kernel;
use crate::instr::{Binary, Unary, binary_ops, match_binary, match_unary, unary_ops};
#[cfg(target_arch = "x86_64")]
use crate::level::Found;
use crate::level::{Baseline, Level, found};
use half::f16;
use mxrs_base::{DType, Elem, dispatch};
use std::mem::MaybeUninit;

/// `(x, out, n)`: out[i] = f(x[i]). `out` must not overlap `x`.
pub type UnaryFn = unsafe fn(*const u8, *mut u8, usize);
/// `(a, b, out, n)`: out[i] = f(a[i], b[i]). `out` must not overlap the inputs.
pub type BinaryFn = unsafe fn(*const u8, *const u8, *mut u8, usize);
/// `(cond, a, b, scalars, out, n)`; bit k of `scalars` says that operand k is one element for all.
pub type SelectFn = unsafe fn(*const u8, *const u8, *const u8, u8, *mut u8, usize);

/// Which operands of a binary loop are one element for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Form {
    Vectors = 0,
    LeftScalar = 1,
    RightScalar = 2,
}

pub(crate) trait UnOp<T> {
    /// Whether a scalar remainder costs more than padding it to a full vector.
    const HEAVY: bool;
    fn f<L: Level>(x: T) -> T;
    /// Recomputes the elements that `f`, having no branches, gets wrong.
    #[inline(always)]
    fn repair(_x: &[T], _out: &mut [T]) {}
}

pub(crate) trait BinOp<T> {
    fn f<L: Level>(a: T, b: T) -> T;
}

/// Elements in the padded remainder of a heavy loop: a whole number of vectors at every level.
const PAD: usize = 16;
/// Elements of a tile on the stack.
const TILE: usize = 256;

#[inline(always)]
unsafe fn unary_loop<O: UnOp<T>, T: Copy, L: Level>(x: *const T, out: *mut T, n: usize) {
    // SAFETY: the caller's pointers are valid for n elements and disjoint.
    let map = |x: *const T, out: *mut T, n: usize| unsafe {
        let x = std::slice::from_raw_parts(x, n);
        let out = std::slice::from_raw_parts_mut(out, n);
        for (o, x) in out.iter_mut().zip(x) {
            *o = O::f::<L>(*x);
        }
        O::repair(x, out);
    };
    if !O::HEAVY {
        return map(x, out, n);
    }
    // The remainder runs through the same copy of the loop, padded with its first element.
    let (main, rest) = (n - n % PAD, n % PAD);
    let mut buffer = [MaybeUninit::<T>::uninit(); PAD];
    let mut result = [MaybeUninit::<T>::uninit(); PAD];
    let (mut from, mut to, mut len) = (x, out, main);
    loop {
        map(from, to, len & !(PAD - 1));
        if rest == 0 {
            return;
        }
        if to == result.as_mut_ptr().cast() {
            break;
        }
        // SAFETY: main < n, so there is a first element of the remainder, and rest elements of it.
        unsafe {
            let tail = x.add(main);
            for (i, slot) in buffer.iter_mut().enumerate() {
                slot.write(*tail.add(if i < rest { i } else { 0 }));
            }
        }
        (from, to, len) = (buffer.as_ptr().cast(), result.as_mut_ptr().cast(), PAD);
    }
    // SAFETY: result was filled by the last round.
    unsafe {
        for (i, slot) in result.iter().enumerate().take(rest) {
            *out.add(main + i) = slot.assume_init();
        }
    }
}

#[inline(always)]
unsafe fn binary_loop<O: BinOp<T>, T: Copy, L: Level, const FORM: u8>(
    a: *const T,
    b: *const T,
    out: *mut T,
    n: usize,
) {
    // SAFETY: the caller's pointers are valid for n elements (scalar operands for one), out disjoint from them.
    unsafe {
        let out = std::slice::from_raw_parts_mut(out, n);
        match FORM {
            0 => {
                let (a, b) = (std::slice::from_raw_parts(a, n), std::slice::from_raw_parts(b, n));
                for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                    *o = O::f::<L>(*a, *b);
                }
            }
            1 => {
                let a = *a;
                for (o, b) in out.iter_mut().zip(std::slice::from_raw_parts(b, n)) {
                    *o = O::f::<L>(a, *b);
                }
            }
            _ => {
                let b = *b;
                for (o, a) in out.iter_mut().zip(std::slice::from_raw_parts(a, n)) {
                    *o = O::f::<L>(*a, b);
                }
            }
        }
    }
}

/// Defines a loop for every level and a function that chooses between them.
macro_rules! leveled {
    ($choose:ident -> $ty:ty, $avx512:ident, $avx2:ident, $base:ident, [$($g:tt)*] [$($u:tt)*],
     ($($p:ident: $pt:ty),*), $L:ident => $body:expr) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt"
        )]
        unsafe fn $avx512<$($g)*>($($p: $pt),*) {
            type $L = crate::level::Fused;
            // SAFETY: the contract of the function type.
            unsafe { $body }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn $avx2<$($g)*>($($p: $pt),*) {
            type $L = crate::level::Fused;
            // SAFETY: the contract of the function type.
            unsafe { $body }
        }
        unsafe fn $base<$($g)*>($($p: $pt),*) {
            type $L = Baseline;
            // SAFETY: the contract of the function type.
            unsafe { $body }
        }
        #[inline(always)]
        fn $choose<$($g)*>() -> $ty {
            match found() {
                #[cfg(target_arch = "x86_64")]
                Found::Avx512 => $avx512::<$($u)*>,
                #[cfg(target_arch = "x86_64")]
                Found::Avx2 => $avx2::<$($u)*>,
                _ => $base::<$($u)*>,
            }
        }
    };
}
pub(crate) use leveled;

leveled!(choose_unary -> UnaryFn, unary_avx512, unary_avx2, unary_base, [O: UnOp<T>, T: Copy] [O, T],
    (x: *const u8, out: *mut u8, n: usize), L => unary_loop::<O, T, L>(x.cast(), out.cast(), n));
leveled!(choose_vectors -> BinaryFn, vv_avx512, vv_avx2, vv_base, [O: BinOp<T>, T: Copy] [O, T],
    (a: *const u8, b: *const u8, out: *mut u8, n: usize),
    L => binary_loop::<O, T, L, 0>(a.cast(), b.cast(), out.cast(), n));
leveled!(choose_left -> BinaryFn, sv_avx512, sv_avx2, sv_base, [O: BinOp<T>, T: Copy] [O, T],
    (a: *const u8, b: *const u8, out: *mut u8, n: usize),
    L => binary_loop::<O, T, L, 1>(a.cast(), b.cast(), out.cast(), n));
leveled!(choose_right -> BinaryFn, vs_avx512, vs_avx2, vs_base, [O: BinOp<T>, T: Copy] [O, T],
    (a: *const u8, b: *const u8, out: *mut u8, n: usize),
    L => binary_loop::<O, T, L, 2>(a.cast(), b.cast(), out.cast(), n));

fn choose_binary<O: BinOp<T>, T: Copy>(form: Form) -> BinaryFn {
    match form {
        Form::Vectors => choose_vectors::<O, T>(),
        Form::LeftScalar => choose_left::<O, T>(),
        Form::RightScalar => choose_right::<O, T>(),
    }
}

/// A tile of any element type: 8 bytes an element, aligned for all.
type Tile = [MaybeUninit<u64>; TILE];

fn tile() -> Tile {
    [MaybeUninit::uninit(); TILE]
}

/// Runs type `from` through the kernel of a wider type, tile by tile.
unsafe fn unary_through(kernel: UnaryFn, from: DType, wide: DType, x: *const u8, out: *mut u8, n: usize) {
    let (widen, narrow) = (cast_kernel(from, wide), cast_kernel(wide, from));
    let (mut a, mut b) = (tile(), tile());
    let (a, b) = (a.as_mut_ptr().cast::<u8>(), b.as_mut_ptr().cast::<u8>());
    let mut i = 0;
    while i < n {
        let len = TILE.min(n - i);
        // SAFETY: the caller's pointers are valid for n elements; tiles hold TILE elements of any type.
        unsafe {
            widen(x.add(i * from.size()), a, len);
            kernel(a, b, len);
            narrow(b, out.add(i * from.size()), len);
        }
        i += len;
    }
}

#[allow(clippy::too_many_arguments)] // mirrors the kernel's own arguments
unsafe fn binary_through(
    kernel: BinaryFn,
    form: Form,
    from: DType,
    wide: DType,
    a: *const u8,
    b: *const u8,
    out: *mut u8,
    n: usize,
) {
    let (widen, narrow) = (cast_kernel(from, wide), cast_kernel(wide, from));
    let (mut ta, mut tb, mut to) = (tile(), tile(), tile());
    let (ta, tb, to) =
        (ta.as_mut_ptr().cast::<u8>(), tb.as_mut_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
    let size = from.size();
    let mut i = 0;
    while i < n {
        let len = TILE.min(n - i);
        // SAFETY: as in `unary_through`; a scalar operand is one element.
        unsafe {
            match form {
                Form::LeftScalar => widen(a, ta, 1),
                _ => widen(a.add(i * size), ta, len),
            }
            match form {
                Form::RightScalar => widen(b, tb, 1),
                _ => widen(b.add(i * size), tb, len),
            }
            kernel(ta, tb, to, len);
            narrow(to, out.add(i * size), len);
        }
        i += len;
    }
}

unsafe fn unary_via<O: UnOp<W>, T: Elem, W: Elem>(x: *const u8, out: *mut u8, n: usize) {
    // SAFETY: the contract of the function type.
    unsafe { unary_through(choose_unary::<O, W>(), T::DTYPE, W::DTYPE, x, out, n) }
}

unsafe fn binary_via<O: BinOp<W>, T: Elem, W: Elem, const FORM: u8>(
    a: *const u8,
    b: *const u8,
    out: *mut u8,
    n: usize,
) {
    let form = [Form::Vectors, Form::LeftScalar, Form::RightScalar][FORM as usize];
    // SAFETY: the contract of the function type.
    unsafe { binary_through(choose_binary::<O, W>(form), form, T::DTYPE, W::DTYPE, a, b, out, n) }
}

fn choose_binary_via<O: BinOp<W>, T: Elem, W: Elem>(form: Form) -> BinaryFn {
    match form {
        Form::Vectors => binary_via::<O, T, W, 0>,
        Form::LeftScalar => binary_via::<O, T, W, 1>,
        Form::RightScalar => binary_via::<O, T, W, 2>,
    }
}

/// The loop of `op` over `dtype`. Bool counts as 0 and 1 and its results become `!= 0`.
pub fn unary_kernel(op: Unary, dtype: DType) -> UnaryFn {
    macro_rules! ints {
        ($t:ident) => {{
            macro_rules! row {
                ($name:ident exact) => {
                    choose_unary::<unary_ops::$name, $t>()
                };
                ($name:ident through_f64) => {
                    unary_via::<unary_ops::$name, $t, f64>
                };
            }
            match_unary!(op, row)
        }};
    }
    macro_rules! float {
        ($t:ident) => {{
            macro_rules! row {
                ($name:ident $k:ident) => {
                    choose_unary::<unary_ops::$name, $t>()
                };
            }
            match_unary!(op, row)
        }};
    }
    macro_rules! via {
        ($t:ident, $w:ident) => {{
            macro_rules! row {
                ($name:ident $k:ident) => {
                    unary_via::<unary_ops::$name, $t, $w>
                };
            }
            match_unary!(op, row)
        }};
    }
    match dtype {
        DType::F32 => float!(f32),
        DType::F64 => float!(f64),
        DType::F16 => via!(f16, f32),
        DType::U8 => ints!(u8),
        DType::I8 => ints!(i8),
        DType::I32 => ints!(i32),
        DType::I64 => ints!(i64),
        DType::Bool => via!(bool, f64),
    }
}

/// The loop of `op` over `dtype`, with one operand a single element where `form` says so.
pub fn binary_kernel(op: Binary, dtype: DType, form: Form) -> BinaryFn {
    macro_rules! ints {
        ($t:ident) => {{
            macro_rules! row {
                ($name:ident exact) => {
                    choose_binary::<binary_ops::$name, $t>(form)
                };
                ($name:ident through_f64) => {
                    choose_binary_via::<binary_ops::$name, $t, f64>(form)
                };
            }
            match_binary!(op, row)
        }};
    }
    macro_rules! float {
        ($t:ident) => {{
            macro_rules! row {
                ($name:ident $k:ident) => {
                    choose_binary::<binary_ops::$name, $t>(form)
                };
            }
            match_binary!(op, row)
        }};
    }
    macro_rules! via {
        ($t:ident, $w:ident) => {{
            macro_rules! row {
                ($name:ident $k:ident) => {
                    choose_binary_via::<binary_ops::$name, $t, $w>(form)
                };
            }
            match_binary!(op, row)
        }};
    }
    match dtype {
        DType::F32 => float!(f32),
        DType::F64 => float!(f64),
        DType::F16 => via!(f16, f32),
        DType::U8 => ints!(u8),
        DType::I8 => ints!(i8),
        DType::I32 => ints!(i32),
        DType::I64 => ints!(i64),
        DType::Bool => via!(bool, f64),
    }
}

/// Both values are read before one is taken: choosing between their places would be a branch for each element.
#[inline(always)]
unsafe fn select_loop<T: Elem>(cond: *const T, a: *const T, b: *const T, scalars: u8, out: *mut T, n: usize) {
    // SAFETY: the caller's pointers are valid for n elements (one where `scalars` says), out disjoint.
    unsafe {
        let out = std::slice::from_raw_parts_mut(out, n);
        let on = |c: T| c != T::default();
        if scalars & 1 != 0 {
            let (source, scalar) = if on(*cond) { (a, scalars & 2) } else { (b, scalars & 4) };
            if scalar != 0 {
                out.fill(*source);
            } else {
                out.copy_from_slice(std::slice::from_raw_parts(source, n));
            }
            return;
        }
        let cond = std::slice::from_raw_parts(cond, n);
        match scalars >> 1 {
            0 => {
                let (a, b) = (std::slice::from_raw_parts(a, n), std::slice::from_raw_parts(b, n));
                for (((o, c), a), b) in out.iter_mut().zip(cond).zip(a).zip(b) {
                    let (a, b) = (*a, *b);
                    *o = if on(*c) { a } else { b };
                }
            }
            1 => {
                let a = *a;
                for ((o, c), b) in out.iter_mut().zip(cond).zip(std::slice::from_raw_parts(b, n)) {
                    let b = *b;
                    *o = if on(*c) { a } else { b };
                }
            }
            2 => {
                let b = *b;
                for ((o, c), a) in out.iter_mut().zip(cond).zip(std::slice::from_raw_parts(a, n)) {
                    let a = *a;
                    *o = if on(*c) { a } else { b };
                }
            }
            _ => {
                let (a, b) = (*a, *b);
                for (o, c) in out.iter_mut().zip(cond) {
                    *o = if on(*c) { a } else { b };
                }
            }
        }
    }
}

leveled!(choose_select -> SelectFn, select_avx512, select_avx2, select_base, [T: Elem] [T],
    (c: *const u8, a: *const u8, b: *const u8, scalars: u8, out: *mut u8, n: usize),
    L => { let _: Option<L> = None; select_loop::<T>(c.cast(), a.cast(), b.cast(), scalars, out.cast(), n) });

/// The loop of `cond != 0 ? a : b`, all of `dtype`.
pub fn select_kernel(dtype: DType) -> SelectFn {
    dispatch!(dtype, T => choose_select::<T>())
}

#[track_caller]
fn same_length(given: usize, expected: usize) {
    assert_eq!(given, expected, "operands of a vector loop differ in length");
}

/// out[i] = op(x[i]).
///
/// # Panics
/// If the lengths differ, as all functions here.
pub fn unary<T: Elem>(op: Unary, x: &[T], out: &mut [T]) {
    same_length(x.len(), out.len());
    // SAFETY: equal lengths; a mutable slice overlaps nothing.
    unsafe { unary_kernel(op, T::DTYPE)(x.as_ptr().cast(), out.as_mut_ptr().cast(), out.len()) }
}

/// x[i] = op(x[i]).
pub fn unary_in_place<T: Elem>(op: Unary, x: &mut [T]) {
    let kernel = unary_kernel(op, T::DTYPE);
    let mut tile = tile();
    for chunk in x.chunks_mut(TILE) {
        // SAFETY: the tile holds TILE elements of any type and the kernel fills chunk.len() of them.
        unsafe {
            kernel(chunk.as_ptr().cast(), tile.as_mut_ptr().cast(), chunk.len());
            std::ptr::copy_nonoverlapping(tile.as_ptr().cast(), chunk.as_mut_ptr(), chunk.len());
        }
    }
}

/// out[i] = op(a[i], b[i]).
pub fn binary<T: Elem>(op: Binary, a: &[T], b: &[T], out: &mut [T]) {
    same_length(a.len(), out.len());
    same_length(b.len(), out.len());
    let kernel = binary_kernel(op, T::DTYPE, Form::Vectors);
    // SAFETY: equal lengths; a mutable slice overlaps nothing.
    unsafe { kernel(a.as_ptr().cast(), b.as_ptr().cast(), out.as_mut_ptr().cast(), out.len()) }
}

/// out[i] = op(a, b[i]).
pub fn binary_left_scalar<T: Elem>(op: Binary, a: T, b: &[T], out: &mut [T]) {
    same_length(b.len(), out.len());
    let kernel = binary_kernel(op, T::DTYPE, Form::LeftScalar);
    // SAFETY: as in `binary`; the left operand is one element.
    unsafe { kernel((&raw const a).cast(), b.as_ptr().cast(), out.as_mut_ptr().cast(), out.len()) }
}

/// out[i] = op(a[i], b).
pub fn binary_right_scalar<T: Elem>(op: Binary, a: &[T], b: T, out: &mut [T]) {
    same_length(a.len(), out.len());
    let kernel = binary_kernel(op, T::DTYPE, Form::RightScalar);
    // SAFETY: as in `binary`; the right operand is one element.
    unsafe { kernel(a.as_ptr().cast(), (&raw const b).cast(), out.as_mut_ptr().cast(), out.len()) }
}

/// a[i] = op(a[i], b[i]).
pub fn binary_in_place<T: Elem>(op: Binary, a: &mut [T], b: &[T]) {
    same_length(a.len(), b.len());
    let kernel = binary_kernel(op, T::DTYPE, Form::Vectors);
    let mut tile = tile();
    for (a, b) in a.chunks_mut(TILE).zip(b.chunks(TILE)) {
        // SAFETY: the tile holds TILE elements of any type and the kernel fills a.len() of them.
        unsafe {
            kernel(a.as_ptr().cast(), b.as_ptr().cast(), tile.as_mut_ptr().cast(), a.len());
            std::ptr::copy_nonoverlapping(tile.as_ptr().cast(), a.as_mut_ptr(), a.len());
        }
    }
}

/// out[i] = a[i] where cond[i] is not zero, else b[i].
pub fn select<T: Elem>(cond: &[T], a: &[T], b: &[T], out: &mut [T]) {
    same_length(cond.len(), out.len());
    same_length(a.len(), out.len());
    same_length(b.len(), out.len());
    let kernel = select_kernel(T::DTYPE);
    // SAFETY: equal lengths; a mutable slice overlaps nothing.
    unsafe {
        kernel(
            cond.as_ptr().cast(),
            a.as_ptr().cast(),
            b.as_ptr().cast(),
            0,
            out.as_mut_ptr().cast(),
            out.len(),
        )
    }
}
