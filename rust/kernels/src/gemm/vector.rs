//! The registers the micro-kernels are written against: one small trait, implemented for each instruction set.
//!
//! This is the one place of the kernels with raw intrinsics. A scalar implementation serves processors without
//! any of them (and tests the rest on every machine).

/// A vector register of elements `T`.
///
/// # Safety
/// Every function needs the instruction set the implementing type stands for; `load` and `store` need
/// `LANES` elements at the pointer, of any alignment.
pub unsafe trait Vector<T>: Copy {
    type V: Copy;
    const LANES: usize;
    unsafe fn splat(x: T) -> Self::V;
    unsafe fn load(p: *const T) -> Self::V;
    unsafe fn store(p: *mut T, v: Self::V);
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

macro_rules! vector {
    ($name:ident, $doc:literal, $T:ty, $V:ty, $lanes:literal, $splat:expr, $load:expr, $store:expr, $mul:expr, $add:expr,
     $fma:expr) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $name;
        // SAFETY: each function is the instruction its name says; the callers hold the trait's contract.
        #[allow(clippy::redundant_closure_call)]
        unsafe impl Vector<$T> for $name {
            type V = $V;
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(x: $T) -> $V {
                // SAFETY: by the trait's contract.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $T) -> $V {
                // SAFETY: by the trait's contract.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $T, v: $V) {
                // SAFETY: by the trait's contract.
                unsafe { $store(p, v) }
            }
            #[inline(always)]
            unsafe fn mul(a: $V, b: $V) -> $V {
                // SAFETY: by the trait's contract.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: $V, b: $V) -> $V {
                // SAFETY: by the trait's contract.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: $V, b: $V, c: $V) -> $V {
                // SAFETY: by the trait's contract.
                unsafe { $fma(a, b, c) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;
    vector!(
        Avx512F32,
        "16 floats; needs AVX-512F.",
        f32,
        __m512,
        16,
        |x| _mm512_set1_ps(x),
        |p| _mm512_loadu_ps(p),
        |p, v| _mm512_storeu_ps(p, v),
        |a, b| _mm512_mul_ps(a, b),
        |a, b| _mm512_add_ps(a, b),
        |a, b, c| _mm512_fmadd_ps(a, b, c)
    );
    vector!(
        Avx512F64,
        "8 doubles; needs AVX-512F.",
        f64,
        __m512d,
        8,
        |x| _mm512_set1_pd(x),
        |p| _mm512_loadu_pd(p),
        |p, v| _mm512_storeu_pd(p, v),
        |a, b| _mm512_mul_pd(a, b),
        |a, b| _mm512_add_pd(a, b),
        |a, b, c| _mm512_fmadd_pd(a, b, c)
    );
    vector!(
        Avx2F32,
        "8 floats; needs AVX2 and FMA.",
        f32,
        __m256,
        8,
        |x| _mm256_set1_ps(x),
        |p| _mm256_loadu_ps(p),
        |p, v| _mm256_storeu_ps(p, v),
        |a, b| _mm256_mul_ps(a, b),
        |a, b| _mm256_add_ps(a, b),
        |a, b, c| _mm256_fmadd_ps(a, b, c)
    );
    vector!(
        Avx2F64,
        "4 doubles; needs AVX2 and FMA.",
        f64,
        __m256d,
        4,
        |x| _mm256_set1_pd(x),
        |p| _mm256_loadu_pd(p),
        |p, v| _mm256_storeu_pd(p, v),
        |a, b| _mm256_mul_pd(a, b),
        |a, b| _mm256_add_pd(a, b),
        |a, b, c| _mm256_fmadd_pd(a, b, c)
    );
}

#[cfg(target_arch = "aarch64")]
pub use arm::*;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Vector;
    use std::arch::aarch64::*;
    vector!(
        NeonF32,
        "4 floats; NEON is aarch64's baseline.",
        f32,
        float32x4_t,
        4,
        |x| vdupq_n_f32(x),
        |p| vld1q_f32(p),
        |p, v| vst1q_f32(p, v),
        |a, b| vmulq_f32(a, b),
        |a, b| vaddq_f32(a, b),
        |a, b, c| vfmaq_f32(c, a, b)
    );
    vector!(
        NeonF64,
        "2 doubles; NEON is aarch64's baseline.",
        f64,
        float64x2_t,
        2,
        |x| vdupq_n_f64(x),
        |p| vld1q_f64(p),
        |p, v| vst1q_f64(p, v),
        |a, b| vmulq_f64(a, b),
        |a, b| vaddq_f64(a, b),
        |a, b, c| vfmaq_f64(c, a, b)
    );
}

/// Four elements in an array, for the compiler to vectorise as far as the baseline goes.
#[derive(Clone, Copy)]
pub struct Plain;

// SAFETY: plain code that needs no instruction set; the pointers are as the trait's contract has them.
unsafe impl<T: Copy + std::ops::Add<Output = T> + std::ops::Mul<Output = T>> Vector<T> for Plain {
    type V = [T; 4];
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: T) -> [T; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> [T; 4] {
        // SAFETY: by the trait's contract.
        unsafe { p.cast::<[T; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut T, v: [T; 4]) {
        // SAFETY: by the trait's contract.
        unsafe { p.cast::<[T; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn mul(a: [T; 4], b: [T; 4]) -> [T; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn add(a: [T; 4], b: [T; 4]) -> [T; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [T; 4], b: [T; 4], c: [T; 4]) -> [T; 4] {
        // Not `mul_add`: without the instruction that is a library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
}
