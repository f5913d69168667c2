//! Movement of elements: every operator that only rearranges, repeats or joins arrays.
//!
//! A movement is described by a [`View`]: for each output index, where in the source its element lies. `transpose`,
//! `slice`, `flip`, `broadcast_to`, `tile`, `repeat`, `diag`, nearest up-sampling and the depth/space operators are
//! views; [`gather`] carries one out, [`scatter`] writes through it (slice assignment), and [`accumulate`] is its
//! adjoint, the gradient of all of them. Concatenation, padding and the generators (`arange`, `eye`, ...) stand
//! beside it. Kernels that only move are generic over [`Unit`], an element's size, so that they exist four times and
//! not once per dtype. Checks of attributes and shapes in the user's words are the operators' business.

mod fill;

pub use fill::{arange, concat, eye, fill, sum};

use mxrs_base::{Elem, f16};
use mxrs_lanes::for_each;
use smallvec::SmallVec;
use std::ops::Range;

/// Elements one lane should have before another is worth waking.
pub(crate) const GRAIN: usize = 32 * 1024;

/// Side of the square tiles in which transpositions run: a tile of rows and a tile of columns stay in L1.
const TILE: usize = 16;

/// An element as so many bytes; what movement kernels are generic over.
pub trait Unit: Copy + Send + Sync + Default + PartialEq + std::fmt::Debug + 'static {}
impl Unit for u8 {}
impl Unit for u16 {}
impl Unit for u32 {}
impl Unit for u64 {}

/// Runs `$body` with `$U` standing for the [`Unit`] of `$size` bytes (1, 2, 4; anything else is 8).
#[macro_export]
macro_rules! dispatch_unit {
    ($size:expr, $U:ident => $body:expr) => {
        match $size {
            1 => {
                type $U = u8;
                $body
            }
            2 => {
                type $U = u16;
                $body
            }
            4 => {
                type $U = u32;
                $body
            }
            _ => {
                type $U = u64;
                $body
            }
        }
    };
}

/// Elements that can be summed: floats as themselves (float16 rounds after each sum), integers wrapping, bool by or.
pub trait Add: Elem {
    fn plus(self, other: Self) -> Self;
}
macro_rules! add {
    ($($t:ty: $f:expr),*) => { $(impl Add for $t {
        #[inline(always)]
        fn plus(self, other: Self) -> Self { $f(self, other) }
    })* };
}
add!(f32: |a, b| a + b, f64: |a, b| a + b, f16: |a: f16, b: f16| f16::from_f32(a.to_f32() + b.to_f32()),
    u8: u8::wrapping_add, i8: i8::wrapping_add, i32: i32::wrapping_add, i64: i64::wrapping_add, bool: |a, b| a | b);

/// A pointer that lanes may share; each writes its own part.
pub(crate) struct Shared<T>(*mut T);
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: the kernels hand disjoint parts to the lanes; the slice outlives the fork-join.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}
impl<T> Shared<T> {
    pub(crate) fn new(s: &mut [T]) -> Shared<T> {
        Shared(s.as_mut_ptr())
    }
    #[inline(always)]
    pub(crate) fn at(self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
    #[inline(always)]
    fn by(self, offset: isize) -> *mut T {
        self.0.wrapping_offset(offset)
    }
    /// # Safety
    /// `range` lies inside the slice, and no other live reference touches it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Calls `body(first, part)` on parts of `out` that lanes own, at least `grain` long each.
pub(crate) fn for_each_part<T: Send>(out: &mut [T], grain: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let n = out.len();
    if n <= grain {
        return if n > 0 {
            body(0, out)
        };
    }
    let shared = Shared::new(out);
    for_each(n, grain, |r| {
        // SAFETY: the ranges of one fork-join are disjoint and inside 0..n.
        body(r.start, unsafe { shared.slice(r.clone()) });
    });
}

/// Calls `body(row, out_row)` for the rows of `out`, `width` elements each, in parallel by `cost` per row.
pub(crate) fn for_each_row<T: Send>(
    out: &mut [T],
    width: usize,
    cost: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    if width == 0 || out.is_empty() {
        return;
    }
    let rows = out.len() / width;
    let shared = Shared::new(out);
    for_each(rows, (GRAIN / cost.max(1)).max(1), |range| {
        for row in range {
            // SAFETY: rows are disjoint and `rows * width <= out.len()`.
            body(row, unsafe { shared.slice(row * width..(row + 1) * width) });
        }
    });
}

type Strides = SmallVec<[isize; 8]>;
type Sizes = SmallVec<[usize; 8]>;

/// Where the elements of an output lie in a source: `offset + sum(index[d] * strides[d])`, strides in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub offset: isize,
    pub dims: Sizes,
    pub strides: Strides,
}

impl View {
    /// The source as it lies, row-major.
    pub fn of(dims: &[usize]) -> View {
        let mut view = View { offset: 0, dims: Sizes::from_slice(dims), strides: Strides::new() };
        view.strides.resize(dims.len(), 1);
        for d in (1..dims.len()).rev() {
            view.strides[d - 1] = view.strides[d] * dims[d] as isize;
        }
        view
    }

    /// The number of elements seen.
    pub fn size(&self) -> usize {
        self.dims.iter().product()
    }

    /// Axis `d` of the result is axis `axes[d]` of `self`; `axes` is a permutation.
    pub fn transpose(&self, axes: &[usize]) -> View {
        View {
            offset: self.offset,
            dims: axes.iter().map(|&a| self.dims[a]).collect(),
            strides: axes.iter().map(|&a| self.strides[a]).collect(),
        }
    }

    /// `count` elements of `axis` from `begin` on, `step` apart (any sign). Clamping to the axis is the caller's.
    pub fn slice(mut self, axis: usize, begin: usize, step: isize, count: usize) -> View {
        if count > 0 {
            self.offset += begin as isize * self.strides[axis];
        }
        self.dims[axis] = count;
        self.strides[axis] *= step;
        self
    }

    /// The elements of `axis` in reverse order.
    pub fn flip(self, axis: usize) -> View {
        let n = self.dims[axis];
        self.slice(axis, n.saturating_sub(1), -1, n)
    }

    /// `axis` (of size 1) repeated `count` times.
    pub fn broadcast(mut self, axis: usize, count: usize) -> View {
        self.dims[axis] = count;
        self.strides[axis] = 0;
        self
    }

    /// A new axis of size `count` before `axis`, along which the elements repeat.
    pub fn insert(mut self, axis: usize, count: usize) -> View {
        self.dims.insert(axis, count);
        self.strides.insert(axis, 0);
        self
    }

    /// To `dims` by NumPy's broadcasting rule, which must hold; axes are added in front.
    pub fn broadcast_to(mut self, dims: &[usize]) -> View {
        while self.dims.len() < dims.len() {
            self = self.insert(0, 1);
        }
        for (axis, &count) in dims.iter().enumerate() {
            if self.dims[axis] != count {
                self = self.broadcast(axis, count);
            }
        }
        self
    }

    /// `tile`: the array `reps[d]` times along axis d; the view has shape (reps[0], dims[0], reps[1], ...), which lies
    /// in memory as the tiled array. `reps` has one entry per axis.
    pub fn tile(mut self, reps: &[usize]) -> View {
        for axis in (0..self.dims.len()).rev() {
            self = self.insert(axis, reps[axis]);
        }
        self
    }

    /// `repeat`: each element of `axis` `count` times in a row; the view has an extra axis after `axis`.
    pub fn repeat(self, axis: usize, count: usize) -> View {
        self.insert(axis + 1, count)
    }

    /// Nearest up-sampling of the last two axes by `scale`: (..., H, scale, W, scale).
    pub fn upsample(self, scale: usize) -> View {
        let n = self.dims.len();
        self.repeat(n - 1, scale).repeat(n - 2, scale)
    }

    /// The `k`-th diagonal of the matrices spanned by `axis1` and `axis2`, as a last axis in their stead.
    pub fn diagonal(mut self, axis1: usize, axis2: usize, k: isize) -> View {
        let (rows, cols) = (self.dims[axis1] as isize, self.dims[axis2] as isize);
        let (row, col) = ((-k).max(0), k.max(0));
        let count = (rows - row).min(cols - col).max(0) as usize;
        let (s1, s2) = (self.strides[axis1], self.strides[axis2]);
        if count > 0 {
            self.offset += row * s1 + col * s2;
        }
        for axis in [axis1.max(axis2), axis1.min(axis2)] {
            self.dims.remove(axis);
            self.strides.remove(axis);
        }
        self.dims.push(count);
        self.strides.push(s1 + s2);
        self
    }

    /// `depth_to_space` of (N, C, H, W): the view is (N, C/b², H, b, W, b); C is divisible by b².
    pub fn depth_to_space(dims: [usize; 4], block: usize) -> View {
        let [n, c, h, w] = dims;
        View::of(&[n, block, block, c / (block * block), h, w]).transpose(&[0, 3, 4, 1, 5, 2])
    }

    /// `space_to_depth` of (N, C, H, W): the view is (N, b, b, C, H/b, W/b); H and W are divisible by b.
    pub fn space_to_depth(dims: [usize; 4], block: usize) -> View {
        let [n, c, h, w] = dims;
        View::of(&[n, c, h / block, block, w / block, block]).transpose(&[0, 3, 5, 1, 2, 4])
    }

    /// Panics unless every index falls inside a source of `len` elements. Empty views touch nothing.
    fn check(&self, len: usize) {
        assert_eq!(self.dims.len(), self.strides.len(), "a view needs one stride per axis");
        if self.dims.contains(&0) {
            return;
        }
        let (mut low, mut high) = (self.offset as i128, self.offset as i128);
        for (&d, &s) in self.dims.iter().zip(&self.strides) {
            let reach = (d as i128 - 1) * s as i128;
            if reach < 0 { low += reach } else { high += reach }
        }
        assert!(low >= 0 && high < len as i128, "view {self:?} leaves its array of {len} elements");
    }

    /// Whether no two indices share an element, by the sufficient test that sorted strides nest.
    fn is_injective(&self) -> bool {
        let mut axes: SmallVec<[(usize, usize); 8]> = self
            .dims
            .iter()
            .zip(&self.strides)
            .map(|(&d, &s)| (s.unsigned_abs(), d))
            .filter(|a| a.1 > 1)
            .collect();
        axes.sort_unstable();
        let mut reach = 0;
        axes.iter().all(|&(stride, dim)| {
            let free = stride > reach;
            reach += stride * (dim - 1);
            free
        })
    }
}

/// Two-sided walk after collapsing: axes by falling destination stride, the last is the inner loop.
struct Walk {
    dims: Sizes,
    from: Strides,
    to: Strides,
}

impl Walk {
    fn new(dims: &[usize], from: &[isize], to: &[isize]) -> Walk {
        let mut w = Walk { dims: Sizes::new(), from: Strides::new(), to: Strides::new() };
        for ((&d, &f), &t) in dims.iter().zip(from).zip(to) {
            if d == 1 {
                continue;
            }
            let mut at = w.dims.len();
            while at > 0 && w.to[at - 1].unsigned_abs() < t.unsigned_abs() {
                at -= 1;
            }
            // Merges with the axis outside it where both sides run on without a seam.
            if at == w.dims.len() && at > 0 {
                let n = d as isize;
                if w.to[at - 1] == t * n && w.from[at - 1] == f * n {
                    w.dims[at - 1] *= d;
                    w.from[at - 1] = f;
                    w.to[at - 1] = t;
                    continue;
                }
            }
            w.dims.insert(at, d);
            w.from.insert(at, f);
            w.to.insert(at, t);
        }
        if w.dims.is_empty() {
            w.dims.push(1);
            w.from.push(1);
            w.to.push(1);
        }
        w
    }

    /// Offsets `(from, to)` of the `index`-th row over the axes `0..axes`.
    fn seek(&self, axes: usize, mut index: usize) -> (isize, isize, Sizes) {
        let mut at = Sizes::from_elem(0, axes);
        let (mut f, mut t) = (0, 0);
        for d in (0..axes).rev() {
            at[d] = index % self.dims[d];
            index /= self.dims[d];
            f += at[d] as isize * self.from[d];
            t += at[d] as isize * self.to[d];
        }
        (f, t, at)
    }

    /// Calls `body` with the offsets of rows `range` over the axes `0..axes`.
    #[inline(always)]
    fn rows(&self, axes: usize, range: Range<usize>, mut body: impl FnMut(isize, isize)) {
        let (mut f, mut t, mut at) = self.seek(axes, range.start);
        for _ in range {
            body(f, t);
            for d in (0..axes).rev() {
                at[d] += 1;
                f += self.from[d];
                t += self.to[d];
                if at[d] < self.dims[d] {
                    break;
                }
                at[d] = 0;
                f -= self.from[d] * self.dims[d] as isize;
                t -= self.to[d] * self.dims[d] as isize;
            }
        }
    }

    /// The axis that should be tiled with the last one: the source runs along it, and not along the last.
    fn tiled_axis(&self) -> Option<usize> {
        let last = self.dims.len() - 1;
        if self.from[last].unsigned_abs() <= 1 || self.dims[last] < 2 {
            return None;
        }
        (0..last).find(|&d| self.from[d] == 1 && self.dims[d] > 1)
    }
}

/// `to[..n * t] = from[..n * f]`, one inner row.
///
/// # Safety
/// All `n` places of both sides are valid, and the two do not overlap.
#[inline(always)]
unsafe fn copy_row<U: Unit>(from: *const U, f: isize, to: *mut U, t: isize, n: usize) {
    // SAFETY: the caller's promise covers every access below.
    unsafe {
        match (f, t) {
            (1, 1) if n >= 16 => std::ptr::copy_nonoverlapping(from, to, n),
            (0, 1) => std::slice::from_raw_parts_mut(to, n).fill(*from),
            (1, 1) => (0..n).for_each(|i| *to.add(i) = *from.add(i)),
            (_, 1) => (0..n as isize).for_each(|i| *to.offset(i) = *from.offset(i * f)),
            _ => (0..n as isize).for_each(|i| *to.offset(i * t) = *from.offset(i * f)),
        }
    }
}

/// Transposes a block: `to[i * t + j] = from[i + j * f]` for i < m, j < n, tile by tile.
///
/// # Safety
/// All places are valid, and the two sides do not overlap.
#[inline(always)]
unsafe fn transpose_block<U: Unit>(from: *const U, f: isize, to: *mut U, t: isize, m: usize, n: usize) {
    // SAFETY: the caller's promise covers every access below; `i + di < m` and `j + dj < n` throughout.
    unsafe {
        for j in (0..n).step_by(TILE) {
            let src = from.offset(j as isize * f);
            let dst = to.add(j);
            if m == TILE && n - j >= TILE {
                // Through a local tile: full lines are read and written once, whatever the strides' alignment.
                let mut tile = [[U::default(); TILE]; TILE];
                for (dj, row) in tile.iter_mut().enumerate() {
                    std::ptr::copy_nonoverlapping(src.offset(dj as isize * f), row.as_mut_ptr(), TILE);
                }
                // Iterating over the tile instead would hide the transposition from the compiler.
                #[allow(clippy::needless_range_loop)]
                for di in 0..TILE {
                    let line: [U; TILE] = std::array::from_fn(|dj| tile[dj][di]);
                    std::ptr::copy_nonoverlapping(line.as_ptr(), dst.offset(di as isize * t), TILE);
                }
            } else {
                for di in 0..m {
                    let (s, d) = (src.add(di), dst.offset(di as isize * t));
                    (0..(n - j).min(TILE)).for_each(|dj| *d.add(dj) = *s.offset(dj as isize * f));
                }
            }
        }
    }
}

/// # Safety
/// Every place the walk reaches from the two offsets is inside its array, and no destination is reached twice.
unsafe fn run<U: Unit>(w: &Walk, from: *const U, to: *mut U) {
    let last = w.dims.len() - 1;
    let n = w.dims[last];
    let (f, t) = (w.from[last], w.to[last]);
    let total: usize = w.dims.iter().product();
    let (from, to) = (Shared(from.cast_mut()), Shared(to));
    if let (Some(axis), 1) = (w.tiled_axis(), t) {
        // Axes but the two of the tile, then strips of TILE rows: the unit of work.
        let m = w.dims[axis];
        let mut outer = Walk { dims: w.dims.clone(), from: w.from.clone(), to: w.to.clone() };
        for d in [last, axis] {
            outer.dims.remove(d);
            outer.from.remove(d);
            outer.to.remove(d);
        }
        let strips = m.div_ceil(TILE);
        outer.dims.push(strips);
        outer.from.push(TILE as isize);
        outer.to.push(TILE as isize * w.to[axis]);
        let axes = outer.dims.len();
        for_each(total / n / m * strips, (GRAIN / (TILE * n)).max(1), |range| {
            let mut strip = range.start % strips;
            outer.rows(axes, range, |a, b| {
                let height = TILE.min(m - strip * TILE);
                strip = if strip + 1 == strips { 0 } else { strip + 1 };
                // SAFETY: the strip's rows and columns are indices of the walk.
                unsafe {
                    transpose_block(from.by(a), f, to.by(b), w.to[axis], height, n);
                }
            });
        });
    } else if last == 0 {
        for_each(n, GRAIN, |r| {
            let (a, b) = (r.start as isize * f, r.start as isize * t);
            // SAFETY: `r` lies in 0..n.
            unsafe { copy_row(from.by(a), f, to.by(b), t, r.len()) }
        });
    } else {
        for_each(total / n, (GRAIN / n).max(1), |range| {
            w.rows(last, range, |a, b| {
                // SAFETY: (a, b) are the offsets of a row of the walk.
                unsafe { copy_row(from.by(a), f, to.by(b), t, n) }
            });
        });
    }
}

/// `dst` (row-major, `view.size()` elements) = the elements of `src` that `view` names.
///
/// Panics where the view leaves `src` or `dst` has another size.
pub fn gather<U: Unit>(src: &[U], view: &View, dst: &mut [U]) {
    view.check(src.len());
    assert_eq!(dst.len(), view.size(), "gather: the destination's size is not the view's");
    if !dst.is_empty() {
        let to = View::of(&view.dims);
        let walk = Walk::new(&view.dims, &view.strides, &to.strides);
        // SAFETY: `check` covers the source; the destination is row-major over the same dims.
        unsafe { run(&walk, src.as_ptr().offset(view.offset), dst.as_mut_ptr()) }
    }
}

/// Writes `src` (row-major over `view.dims`, or one element for all) into the places of `dst` that `view` names.
///
/// Panics where the view leaves `dst`, names a place twice, or `src` has another size.
pub fn scatter<U: Unit>(src: &[U], dst: &mut [U], view: &View) {
    view.check(dst.len());
    if view.size() == 0 {
        return;
    }
    let from = if src.len() == 1 {
        View::of(&[1]).broadcast_to(&view.dims)
    } else {
        assert_eq!(src.len(), view.size(), "scatter: the source's size is not the view's");
        View::of(&view.dims)
    };
    assert!(view.is_injective(), "scatter through {view:?} would write a place twice");
    let walk = Walk::new(&view.dims, &from.strides, &view.strides);
    // SAFETY: `check` covers the destination, injectivity the lanes; the source is row-major or one element.
    unsafe { run(&walk, src.as_ptr(), dst.as_mut_ptr().offset(view.offset)) }
}

/// Adds `src` (row-major over `view.dims`) into the places of `dst` that `view` names: the adjoint of [`gather`].
///
/// Axes of stride 0 are summed in the accumulation type before they are added, in a fixed order.
pub fn accumulate<T: Add>(src: &[T], dst: &mut [T], view: &View)
where
    T::Acc: Add,
{
    const CHUNK: usize = 128;
    view.check(dst.len());
    assert_eq!(src.len(), view.size(), "accumulate: the source's size is not the view's");
    if src.is_empty() {
        return;
    }
    let from = View::of(&view.dims);
    let pick = |kept: bool| {
        let keep = |d: &usize| (view.strides[*d] != 0) == kept;
        let axes: SmallVec<[usize; 8]> = (0..view.dims.len()).filter(keep).collect();
        let part = from.transpose(&axes);
        let to: Strides = axes.iter().map(|&a| view.strides[a]).collect();
        Walk::new(&part.dims, &part.strides, &to)
    };
    let (kept, summed) = (pick(true), pick(false));
    let last = kept.dims.len() - 1;
    let (n, f, t) = (kept.dims[last], kept.from[last], kept.to[last]);
    let rows: usize = kept.dims[..last].iter().product();
    let sums: usize = summed.dims.iter().product();
    let chunks = n.div_ceil(CHUNK);
    let out = Shared::new(dst);
    let body = |range: Range<usize>| {
        for item in range {
            let (a, b, _) = kept.seek(last, item / chunks);
            let first = item % chunks * CHUNK;
            let len = CHUNK.min(n - first);
            let mut acc = [T::Acc::default(); CHUNK];
            summed.rows(summed.dims.len(), 0..sums, |s, _| {
                let base = a + s + first as isize * f;
                for (i, acc) in acc[..len].iter_mut().enumerate() {
                    *acc = acc.plus(widen::<T>(src[(base + i as isize * f) as usize]));
                }
            });
            for (i, acc) in acc[..len].iter().enumerate() {
                let place = view.offset + b + (first + i) as isize * t;
                // SAFETY: `check` covers every place of the view; lanes own distinct places where there are several.
                unsafe {
                    let place = out.at(place as usize);
                    *place = narrow::<T>(widen::<T>(*place).plus(*acc));
                }
            }
        }
    };
    let injective = View { offset: 0, dims: kept.dims.clone(), strides: kept.to.clone() }.is_injective();
    if injective {
        for_each(rows * chunks, (GRAIN / (CHUNK.min(n) * sums)).max(1), body);
    } else {
        body(0..rows * chunks);
    }
}

#[inline(always)]
pub(crate) fn widen<T: Elem>(v: T) -> T::Acc {
    if T::DTYPE.is_float() { T::Acc::from_f64(v.to_f64()) } else { T::Acc::from_i64(v.to_i64()) }
}
#[inline(always)]
pub(crate) fn narrow<T: Elem>(v: T::Acc) -> T {
    if T::DTYPE.is_float() { T::from_f64(v.to_f64()) } else { T::from_i64(v.to_i64()) }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
