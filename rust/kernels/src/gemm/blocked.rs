//! The blocked product: cuts C into parts for the lanes, packs panels of both operands and runs the tiles.

use super::Done;
use super::micro::{Kernels, Real, Tile};
use super::pack::{Shared, Source, with_buffer};
use std::ops::Range;

/// Bytes of one line of a panel: bounds the depth of a block so that panels stay in the first cache levels.
const DEPTH_BYTES: usize = 1536;

/// Rows and columns whose panels are packed at a time.
const MAX_ROWS: usize = 2048;
const MAX_COLS: usize = 2048;

/// Columns whose packed panels stay in the second-level cache.
const TASK_COLS: usize = 192;

/// Multiply-adds below which a second lane costs more than it brings.
pub const MIN_PARALLEL_WORK: usize = 1 << 17;

/// How one operand is cut: `count` panels of `width` lines, the last with fewer.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub lines: usize,
    pub width: usize,
}

impl Cut {
    /// Rows in equal panels of at most `kernels.mr`: 20 rows are 10 + 10, not 14 + 6.
    pub fn rows<T>(rows: usize, kernels: &Kernels<T>) -> Cut {
        let width = rows.div_ceil(rows.div_ceil(kernels.mr).max(1)).max(1);
        Cut { lines: rows, width }
    }

    pub fn cols<T>(cols: usize, kernels: &Kernels<T>) -> Cut {
        Cut { lines: cols, width: kernels.nr }
    }

    pub fn count(&self) -> usize {
        self.lines.div_ceil(self.width)
    }

    /// Elements of all panels at `depth` steps.
    pub fn packed_len(&self, depth: usize) -> usize {
        self.count() * self.width * depth
    }

    /// The lines of panel `i`.
    pub fn panel(&self, i: usize) -> Range<usize> {
        i * self.width..self.lines.min((i + 1) * self.width)
    }
}

/// `total` steps in equal blocks of at most what the caches like; the same on every machine, so sums repeat.
pub fn depth_block<T>(total: usize) -> usize {
    let most = DEPTH_BYTES / size_of::<T>();
    total.div_ceil(total.div_ceil(most).max(1)).max(1)
}

/// Packs all panels of `cut`, whose line 0 is line `first` of the source; `tight` as A's are: a short last panel
/// is as wide as it has lines, where B's are always filled up.
pub fn pack_all<T: Real>(
    source: &impl Source<T>,
    first: usize,
    cut: Cut,
    depth: Range<usize>,
    tight: bool,
    packed: &mut [T],
) {
    for i in 0..cut.count() {
        let lines = cut.panel(i);
        let start = i * cut.width * depth.len();
        let width = if tight { lines.len() } else { cut.width };
        let panel = &mut packed[start..start + width * depth.len()];
        source.pack(first + lines.start..first + lines.end, width, depth.clone(), panel);
    }
}

/// A block of C and the scalars of its update.
#[derive(Clone, Copy)]
pub struct Output<T> {
    pub c: Shared<T>,
    pub c_step: usize,
    pub alpha: T,
    pub beta: T,
}

/// Multiplies the panels of A by those of B into C, whose first element belongs to the first line of both.
///
/// # Safety
/// C has the lines of both cuts, used by nobody else.
pub unsafe fn multiply_panels<T: Real>(
    kernels: &Kernels<T>,
    depth: usize,
    (a, a_cut): (&[T], Cut),
    (b, b_cut): (&[T], Cut),
    out: Output<T>,
) {
    assert!(a.len() >= a_cut.lines * depth && b.len() >= b_cut.packed_len(depth));
    // A group of B's panels stays in the second-level cache while A's pass by.
    for group in (0..b_cut.count()).step_by((TASK_COLS / b_cut.width).max(1)) {
        let b_panels = group..b_cut.count().min(group + (TASK_COLS / b_cut.width).max(1));
        for i in 0..a_cut.count() {
            let rows = a_cut.panel(i);
            for j in b_panels.clone() {
                let cols = b_cut.panel(j);
                // SAFETY: the panels lie within the slices (checked above), the tile within C.
                unsafe {
                    (kernels.tile)(&Tile {
                        rows: rows.len(),
                        cols: cols.len(),
                        depth,
                        a: a.as_ptr().add(i * a_cut.width * depth),
                        b: b.as_ptr().add(j * b_cut.width * depth),
                        b_step: b_cut.width,
                        c: out.c.ptr().add(rows.start * out.c_step + cols.start),
                        c_step: out.c_step,
                        alpha: out.alpha,
                        beta: out.beta,
                    });
                }
            }
        }
    }
}

/// `c = alpha * a b + beta * c` for `m` lines of `a` and `n` lines of `b` over `depth`; C row-major, `c_step` per row.
/// `done` is told of finished parts of C.
///
/// C is cut into a few large parts and each lane packs what its part needs: panels packed by one core and read by another
/// cost more in traffic between their caches than packing some of them twice.
///
/// # Safety
/// C has `m` rows of `n` elements, used by nobody else.
pub unsafe fn multiply<T: Real>(
    (m, n, depth): (usize, usize, usize),
    a: &impl Source<T>,
    b: &impl Source<T>,
    out: Output<T>,
    done: Done,
) {
    let kernels = T::kernels();
    let work = m.saturating_mul(n).saturating_mul(depth);
    let lanes = mxrs_lanes::count();
    if lanes == 1 || work < MIN_PARALLEL_WORK {
        // SAFETY: by the contract above.
        return unsafe { multiply_part((0..m, 0..n), depth, a, b, out, done) };
    }
    // Two parts per lane, so that a late lane is made up for; one where the parts would be small.
    let wanted = if work / (2 * lanes) >= 8 * MIN_PARALLEL_WORK { 2 * lanes } else { lanes };
    let (mut tall, mut wide) = (m, n);
    while m.div_ceil(tall) * n.div_ceil(wide) < wanted && (tall > kernels.mr || wide > kernels.nr) {
        if wide >= tall && wide > kernels.nr || tall <= kernels.mr {
            wide = wide.div_ceil(2).next_multiple_of(kernels.nr);
        } else {
            tall = tall.div_ceil(2);
        }
    }
    let across = n.div_ceil(wide);
    mxrs_lanes::for_each(m.div_ceil(tall) * across, 1, |parts| {
        for part in parts {
            let (row, col) = (part / across * tall, part % across * wide);
            let part = (row..m.min(row + tall), col..n.min(col + wide));
            // SAFETY: parts are disjoint and within C.
            unsafe { multiply_part(part, depth, a, b, out, done) };
        }
    });
}

/// One part of C on this thread.
///
/// # Safety
/// `rows` and `cols` lie in C, used by nobody else.
unsafe fn multiply_part<T: Real>(
    (rows, cols): (Range<usize>, Range<usize>),
    depth: usize,
    a: &impl Source<T>,
    b: &impl Source<T>,
    out: Output<T>,
    done: Done,
) {
    let kernels = T::kernels();
    let step = depth_block::<T>(depth);
    let row_block = equal_blocks(rows.len(), MAX_ROWS).next_multiple_of(Cut::rows(rows.len(), kernels).width);
    let col_block = equal_blocks(cols.len(), MAX_COLS).next_multiple_of(kernels.nr);
    let (a_len, b_len) = ((row_block + kernels.mr) * step, (col_block + kernels.nr) * step);
    with_buffer(a_len + b_len, |buffer| {
        let (a_packed, b_packed) = buffer.split_at_mut(a_len);
        for col in cols.clone().step_by(col_block) {
            let b_cut = Cut::cols(col_block.min(cols.end - col), kernels);
            for p in (0..depth).step_by(step) {
                let steps = p..depth.min(p + step);
                pack_all(b, col, b_cut, steps.clone(), false, b_packed);
                for row in rows.clone().step_by(row_block) {
                    let a_cut = Cut::rows(row_block.min(rows.end - row), kernels);
                    pack_all(a, row, a_cut, steps.clone(), true, a_packed);
                    // SAFETY: rows and columns of this block are within C.
                    let c = Shared::from_ptr(unsafe { out.c.ptr().add(row * out.c_step + col) });
                    let out = Output { c, beta: if p == 0 { out.beta } else { T::ONE }, ..out };
                    // SAFETY: the panels are packed above; the block is this call's alone.
                    unsafe {
                        multiply_panels(kernels, steps.len(), (a_packed, a_cut), (b_packed, b_cut), out);
                    }
                    if steps.end == depth {
                        done(row..row + a_cut.lines, col..col + b_cut.lines);
                    }
                }
            }
        }
    });
}

/// `total` in equal blocks of at most `most`.
pub fn equal_blocks(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most).max(1)).max(1)
}
