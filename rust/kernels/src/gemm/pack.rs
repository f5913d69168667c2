//! Panels: where packed operands come from, and the thread's buffers they lie in.
//!
//! An operand of a product is a set of *lines* (rows of A, columns of B) that share a *depth* (the summed index). A panel
//! holds a few lines side by side, one depth step after the other, as the micro-kernels read them. A [`Source`] fills
//! panels from whatever holds the numbers: a strided matrix here, an image seen through a convolution's window elsewhere.

use super::micro::Real;
use std::cell::RefCell;
use std::ops::Range;

/// Something that can fill panels.
pub trait Source<T>: Sync {
    /// Sets `panel[(p - depth.start) * width + l]` to step `p` of line `lines.start + l`, and to zero where `l` is beyond `lines`.
    ///
    /// `panel` is `depth.len() * width` long and `lines.len() <= width`.
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]);
}

/// A matrix in memory: step `p` of line `l` is `data[l * line_step + p * depth_step]`.
#[derive(Clone, Copy)]
pub struct Strided<'a, T> {
    pub data: &'a [T],
    pub line_step: usize,
    pub depth_step: usize,
}

impl<'a, T: Real> Strided<'a, T> {
    /// The same numbers from line `first` on.
    pub fn starting_at(self, first: usize) -> Strided<'a, T> {
        Strided { data: &self.data[(first * self.line_step).min(self.data.len())..], ..self }
    }
}

impl<T: Real> Source<T> for Strided<'_, T> {
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]) {
        if lines.len() < width {
            panel.fill(T::ZERO);
        }
        if lines.is_empty() || depth.is_empty() {
            return;
        }
        let data = &self.data[lines.start * self.line_step + depth.start * self.depth_step..];
        if self.line_step == 1 {
            copy_rows(data, self.depth_step, lines.len(), width, panel);
        } else if self.depth_step == 1 {
            let (count, steps) = (lines.len(), depth.len());
            mxrs_simd::vectorize(
                #[inline(always)]
                || transpose(data, self.line_step, count, steps, width, panel),
            );
        } else {
            for (p, row) in panel.chunks_exact_mut(width).enumerate() {
                for l in 0..lines.len() {
                    row[l] = data[l * self.line_step + p * self.depth_step];
                }
            }
        }
    }
}

/// Lines lie side by side: every step is a copy.
fn copy_rows<T: Real>(data: &[T], step: usize, lines: usize, width: usize, panel: &mut [T]) {
    #[inline(always)]
    fn fixed<T: Real, const W: usize>(data: &[T], step: usize, panel: &mut [T]) {
        // Copies of a constant length are moves of registers, not calls.
        for (p, row) in panel.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            row.copy_from_slice(&data[p * step..p * step + W]);
        }
    }
    match (lines == width, width) {
        (true, 32) => mxrs_simd::vectorize(
            #[inline(always)]
            || fixed::<T, 32>(data, step, panel),
        ),
        (true, 16) => mxrs_simd::vectorize(
            #[inline(always)]
            || fixed::<T, 16>(data, step, panel),
        ),
        (true, 8) => mxrs_simd::vectorize(
            #[inline(always)]
            || fixed::<T, 8>(data, step, panel),
        ),
        _ => {
            for (p, row) in panel.chunks_exact_mut(width).enumerate() {
                row[..lines].copy_from_slice(&data[p * step..p * step + lines]);
            }
        }
    }
}

/// Steps lie side by side: squares of 8 lines by 8 steps go through registers.
#[inline(always)]
fn transpose<T: Real>(data: &[T], step: usize, lines: usize, depth: usize, width: usize, panel: &mut [T]) {
    const N: usize = 8;
    let (whole_lines, whole_depth) = (lines / N * N, depth / N * N);
    for l in (0..whole_lines).step_by(N) {
        for p in (0..whole_depth).step_by(N) {
            let mut square = [[T::ZERO; N]; N];
            for (i, row) in square.iter_mut().enumerate() {
                let at = (l + i) * step + p;
                row.copy_from_slice(&data[at..at + N]);
            }
            // Iterating over the square instead would hide the transposition from the compiler.
            #[allow(clippy::needless_range_loop)]
            for q in 0..N {
                let column: [T; N] = std::array::from_fn(|i| square[i][q]);
                let at = (p + q) * width + l;
                panel[at..at + N].copy_from_slice(&column);
            }
        }
        for p in whole_depth..depth {
            for i in l..l + N {
                panel[p * width + i] = data[i * step + p];
            }
        }
    }
    for l in whole_lines..lines {
        let line = &data[l * step..l * step + depth];
        for (p, x) in line.iter().enumerate() {
            panel[p * width + l] = *x;
        }
    }
}

/// A cache line; read and written only through the slices made of it.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    /// Buffers not in use, the most recently used last.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are given back to the system after use.
const KEPT_BYTES: usize = 64 << 20;

/// Calls `body` with a buffer of the thread, 64-byte aligned, holding arbitrary numbers from earlier uses.
///
/// Calls may nest: each level has its own buffer.
pub fn with_buffer<T: Real, R>(len: usize, body: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = len.checked_mul(size_of::<T>()).map(|bytes| bytes.div_ceil(64));
    let lines = lines.unwrap_or_else(|| panic!("a buffer of {len} elements exceeds the address space"));
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < lines {
        // The old content is not wanted: no copy of it.
        buffer = Vec::new();
        if buffer.try_reserve_exact(lines).is_err() {
            // An error with a message, which the operator's caller sees; not the end of the process.
            std::panic::panic_any(mxrs_base::Error::memory(format!(
                "a workspace of {lines} times 64 bytes cannot be had"
            )));
        }
        buffer.resize(lines, Line([0; 64]));
    }
    // SAFETY: the buffer is initialised bytes, aligned to 64, at least `len` elements long; any bits are a valid float.
    let slice = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<T>(), len) };
    let result = body(slice);
    if buffer.len() * 64 <= KEPT_BYTES {
        FREE.with_borrow_mut(|free| free.push(buffer));
    }
    result
}

/// A pointer that lanes share; each writes where no other does.
pub struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        *self
    }
}
impl<T> Copy for Shared<T> {}

// SAFETY: who dereferences it answers for exclusive places, at each `unsafe` that does.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn of(slice: &mut [T]) -> Shared<T> {
        Shared(slice.as_mut_ptr())
    }

    pub fn from_ptr(pointer: *mut T) -> Shared<T> {
        Shared(pointer)
    }

    // Closures that call this capture the whole value, which is Sync, and not the bare pointer.
    pub fn ptr(&self) -> *mut T {
        self.0
    }

    /// The elements `range`.
    ///
    /// # Safety
    /// The range lies in the slice this was made of, which outlives the result, and nobody else uses the range meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice<'a>(&self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: by the contract above.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}
