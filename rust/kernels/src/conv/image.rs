//! One image of a convolution seen through its window: the padded copy, and the panels that products read from it.
//!
//! With the border in memory no tap needs a bounds test, and with columns sorted by their remainder modulo the stride a row
//! of output columns is a row in memory for any stride. Filling a panel whose lines are places is then a series of copies of
//! constant length that may run past their end: what they spill is overwritten by the copy after them. A panel whose
//! lines are taps is the same rows transposed.

use super::geom::ConvGeom;
use crate::gemm::micro::Real;
use crate::gemm::pack::Source;
use std::ops::Range;

/// How the padded copy of a group's channels lies in memory.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Columns are sorted by remainder modulo this.
    phases: usize,
    phase_len: usize,
    row_len: usize,
    rows: usize,
    pub channel_len: usize,
    dims: [usize; 3],
    pad: [usize; 3],
}

/// Readable elements behind a padded copy, for copies and vector loads that run past a row's end.
pub const SLACK: usize = 64;

impl Layout {
    /// Columns of equal remainder modulo the stride lie side by side.
    pub fn new(g: &ConvGeom) -> Layout {
        let phases = g.stride[2];
        let phase_len = (g.in_dims[2] + 2 * g.pad[2]).div_ceil(phases);
        let (row_len, rows) = (phases * phase_len, g.in_dims[1] + 2 * g.pad[1]);
        let channel_len = (g.in_dims[0] + 2 * g.pad[0]) * rows * row_len;
        Layout { phases, phase_len, row_len, rows, channel_len, dims: g.in_dims, pad: g.pad }
    }

    /// Whether the image itself already lies like this.
    pub fn is_plain(&self) -> bool {
        self.phases == 1 && self.pad == [0; 3]
    }

    /// The place of padded column `w` of padded row `(d, h)` in its channel.
    fn at(&self, d: usize, h: usize, w: usize) -> usize {
        (d * self.rows + h) * self.row_len + w % self.phases * self.phase_len + w / self.phases
    }

    /// Fills the padded copy of one channel.
    pub fn fill<T: Real>(&self, channel: &[T], padded: &mut [T]) {
        padded[..self.channel_len].fill(T::ZERO);
        let [depth, height, width] = self.dims;
        for d in 0..depth {
            for h in 0..height {
                let from = &channel[(d * height + h) * width..][..width];
                let row = self.at(d + self.pad[0], h + self.pad[1], 0);
                let to = &mut padded[row..row + self.row_len];
                if self.phases == 1 {
                    to[self.pad[2]..self.pad[2] + width].copy_from_slice(from);
                } else {
                    for phase in 0..self.phases {
                        let first = (phase + self.phases - self.pad[2] % self.phases) % self.phases;
                        let at = phase * self.phase_len + (self.pad[2] + first) / self.phases;
                        let columns = from.iter().skip(first).step_by(self.phases);
                        to[at..].iter_mut().zip(columns).for_each(|(t, f)| *t = *f);
                    }
                }
            }
        }
    }

    /// Where each tap of each of `channels` channels begins.
    pub fn taps(&self, g: &ConvGeom, channels: usize) -> Vec<usize> {
        let mut taps = Vec::with_capacity(channels * g.taps());
        for c in 0..channels {
            for d in 0..g.kernel[0] {
                for h in 0..g.kernel[1] {
                    for w in 0..g.kernel[2] {
                        let place = self.at(d * g.dilate[0], h * g.dilate[1], w * g.dilate[2]);
                        taps.push(c * self.channel_len + place);
                    }
                }
            }
        }
        taps
    }

    /// Where the window of the first output column of output row `(d, h)` begins.
    pub fn row_base(&self, g: &ConvGeom, row: usize) -> usize {
        let (d, h) = (row / g.out_dims[1], row % g.out_dims[1]);
        self.at(d * g.stride[0], h * g.stride[1], 0)
    }
}

/// Columns of the forward product: lines are output places of one image, the depth runs over taps.
pub struct Patches<'a, T> {
    pub g: &'a ConvGeom,
    pub layout: Layout,
    pub taps: &'a [usize],
    pub image: &'a [T],
    /// Elements from an image to the next, where lines run on through several.
    pub image_step: usize,
}

/// Neighbouring output places of one row.
struct Run {
    line: usize,
    len: usize,
    base: usize,
}

impl<T: Real> Source<T> for Patches<'_, T> {
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]) {
        let (columns, rows) = (self.g.out_dims[2], self.g.out_dims[0] * self.g.out_dims[1]);
        let mut runs = smallvec::SmallVec::<[Run; 32]>::new();
        let mut line = lines.start;
        while line < lines.end {
            let (row, column) = (line / columns, line % columns);
            let len = (columns - column).min(lines.end - line);
            let image = row / rows * self.image_step;
            runs.push(Run {
                line: line - lines.start,
                len,
                base: image + self.layout.row_base(self.g, row % rows) + column,
            });
            line += len;
        }
        let taps = &self.taps[depth];
        mxrs_simd::vectorize(
            #[inline(always)]
            || match width {
                32 => copy_runs::<T, 32>(self.image, taps, &runs, panel),
                16 => copy_runs::<T, 16>(self.image, taps, &runs, panel),
                8 => copy_runs::<T, 8>(self.image, taps, &runs, panel),
                _ => copy_runs_exactly(self.image, taps, &runs, width, panel),
            },
        );
        if let Some(last) = runs.last() {
            // What a copy left beside the last line would be harmless, but must not be a slow denormal or a stale NaN.
            let used = last.line + last.len;
            if used < width {
                panel.chunks_exact_mut(width).for_each(|row| row[used..].fill(T::ZERO));
            }
        }
    }
}

/// Copies in whole panel widths where source and panel have room, exactly elsewhere.
#[inline(always)]
fn copy_runs<T: Real, const W: usize>(image: &[T], taps: &[usize], runs: &[Run], panel: &mut [T]) {
    for (p, tap) in taps.iter().enumerate() {
        for run in runs {
            let (from, to) = (tap + run.base, p * W + run.line);
            let half = run.len <= W / 2;
            match (image.get(from..from + W), panel.get_mut(to..to + W)) {
                (Some(from), Some(to)) if half => to[..W / 2].copy_from_slice(&from[..W / 2]),
                (Some(from), Some(to)) => to.copy_from_slice(from),
                _ => panel[to..to + run.len].copy_from_slice(&image[from..from + run.len]),
            }
        }
    }
}

#[inline(always)]
fn copy_runs_exactly<T: Real>(image: &[T], taps: &[usize], runs: &[Run], width: usize, panel: &mut [T]) {
    for (row, tap) in panel.chunks_exact_mut(width).zip(taps) {
        for run in runs {
            let from = tap + run.base;
            row[run.line..run.line + run.len].copy_from_slice(&image[from..from + run.len]);
        }
    }
}

/// Columns of the weight gradient's product: lines are taps, the depth runs over output places of one image.
pub struct Taps<'a, T> {
    pub g: &'a ConvGeom,
    pub layout: Layout,
    pub taps: &'a [usize],
    pub image: &'a [T],
}

impl<T: Real> Source<T> for Taps<'_, T> {
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]) {
        let (columns, taps) = (self.g.out_dims[2], &self.taps[lines]);
        mxrs_simd::vectorize(
            #[inline(always)]
            || {
                let mut place = depth.start;
                while place < depth.end {
                    let (row, column) = (place / columns, place % columns);
                    let len = (columns - column).min(depth.end - place);
                    let base = self.layout.row_base(self.g, row) + column;
                    let from = (place - depth.start) * width;
                    transpose(self.image, taps, base, width, &mut panel[from..from + len * width]);
                    place += len;
                }
            },
        );
    }
}

/// Sets `panel[p * width + l]` to `image[base + taps[l] + p]`: squares of 8 taps by 8 places go through registers.
#[inline(always)]
fn transpose<T: Real>(image: &[T], taps: &[usize], base: usize, width: usize, panel: &mut [T]) {
    const N: usize = 8;
    let len = panel.len() / width;
    for (first, taps) in (0..).step_by(N).zip(taps.chunks(N)) {
        // The lines beyond the last tap repeat it: what a product makes of them is dropped.
        let from: [usize; N] = std::array::from_fn(|i| base + taps[i.min(taps.len() - 1)]);
        let furthest = from.iter().fold(0, |a, b| a.max(*b));
        for p in (0..len).step_by(N) {
            let places = N.min(len - p);
            if first + N > width || furthest + p + N > image.len() {
                for q in p..p + places {
                    for (i, from) in from.iter().enumerate().take(taps.len()) {
                        panel[q * width + first + i] = image[from + q];
                    }
                }
                continue;
            }
            let mut square = [[T::ZERO; N]; N];
            for (row, from) in square.iter_mut().zip(&from) {
                row.copy_from_slice(&image[from + p..from + p + N]);
            }
            let columns: [[T; N]; N] = std::array::from_fn(|q| std::array::from_fn(|i| square[i][q]));
            let to = &mut panel[p * width + first..];
            if places == N {
                for (q, column) in columns.iter().enumerate() {
                    to[q * width..q * width + N].copy_from_slice(column);
                }
            } else {
                for (q, column) in columns.iter().enumerate().take(places) {
                    to[q * width..q * width + N].copy_from_slice(column);
                }
            }
        }
    }
}
