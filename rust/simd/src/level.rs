//! Which vector instructions the processor has, and running a loop compiled for them.

use std::sync::atomic::{AtomicU8, Ordering};

/// A set of vector instructions, as a type: tells generic code whether fused multiply-add is one instruction.
pub trait Level: Copy + 'static {
    /// Whether `a * b + c` with one rounding is a single instruction here (elsewhere it is a slow library call).
    const FMA: bool;

    /// `a * b + c`, fused where that is fast.
    #[inline(always)]
    fn fma32(a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `a * b + c`, fused where that is fast.
    #[inline(always)]
    fn fma64(a: f64, b: f64, c: f64) -> f64 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

/// The target's baseline: SSE2 on x86-64, NEON (with fused multiply-add) on aarch64.
#[derive(Clone, Copy)]
pub struct Baseline;
impl Level for Baseline {
    const FMA: bool = cfg!(target_arch = "aarch64");
}

/// AVX2 and FMA, or AVX-512: all x86-64 above the baseline.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Fused;
#[cfg(target_arch = "x86_64")]
impl Level for Fused {
    const FMA: bool = true;
}

/// What the processor was found to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Found {
    Baseline = 1,
    Avx2 = 2,
    Avx512 = 3,
}

static FOUND: AtomicU8 = AtomicU8::new(0);

/// The level of this machine; one relaxed load after the first call.
#[inline(always)]
pub(crate) fn found() -> Found {
    match FOUND.load(Ordering::Relaxed) {
        3 => Found::Avx512,
        2 => Found::Avx2,
        1 => Found::Baseline,
        _ => detect(),
    }
}

#[cold]
fn detect() -> Found {
    let found = probe();
    FOUND.store(found as u8, Ordering::Relaxed);
    found
}

#[cfg(target_arch = "x86_64")]
fn probe() -> Found {
    macro_rules! all {
        ($($name:tt),*) => { $(std::arch::is_x86_feature_detected!($name))&&* };
    }
    // A way to test the lower levels on a machine that has the higher ones.
    let limit = std::env::var("MXRS_SIMD").unwrap_or_default();
    let avx2 = limit != "baseline" && all!("avx2", "fma", "f16c", "bmi1", "bmi2", "lzcnt", "popcnt");
    let avx512 = avx2 && limit != "avx2" && all!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd");
    match (avx512, avx2) {
        (true, _) => Found::Avx512,
        (_, true) => Found::Avx2,
        _ => Found::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn probe() -> Found {
    Found::Baseline
}

/// Work to be compiled for every level. Put `#[inline(always)]` on `run` and on what it calls.
pub trait Kernel {
    type Output;
    fn run<L: Level>(self) -> Self::Output;
}

/// Runs `kernel` compiled for the best vector instructions of this machine.
#[inline(always)]
pub fn vectorize_kernel<K: Kernel>(kernel: K) -> K::Output {
    match found() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `found` reports a level only after detecting every feature that its function enables.
        Found::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Found::Avx2 => unsafe { run_avx2(kernel) },
        _ => kernel.run::<Baseline>(),
    }
}

/// Runs `body` compiled for the best vector instructions of this machine.
///
/// Only what is inlined here is compiled for those instructions: write `#[inline(always)] ||`, as on every function it
/// calls, and do not let the loop pass through a function that is not inlined (one that lends a buffer, say). Loops over
/// slices of any length vectorise; loops of constant length over local arrays often do not. Where a loop wants to know
/// about fused multiply-add, use [`vectorize_kernel`].
#[inline(always)]
pub fn vectorize<R>(body: impl FnOnce() -> R) -> R {
    struct Closure<F>(F);
    impl<R, F: FnOnce() -> R> Kernel for Closure<F> {
        type Output = R;
        #[inline(always)]
        fn run<L: Level>(self) -> R {
            (self.0)()
        }
    }
    vectorize_kernel(Closure(body))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Fused>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Fused>()
}
