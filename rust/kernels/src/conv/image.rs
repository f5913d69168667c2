//! One image of a convolution seen through its window: the padded copy, and the panels that products read from it.
//!
//! With the border in memory no tap needs a bounds test, and with columns sorted by their remainder modulo the stride a row
//! of output columns is a row in memory for any stride. Filling a panel is then a series of copies of constant length that
//! may run past their end: what they spill is overwritten by the copy after them.

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
    /// With `sorted`, columns of equal remainder modulo the stride lie side by side.
    pub fn new(g: &ConvGeom, sorted: bool) -> Layout {
        let phases = if sorted { g.stride[2] } else { 1 };
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

    /// From one output column to the next.
    fn column_step(&self, g: &ConvGeom) -> usize {
        if self.phases == 1 { g.stride[2] } else { 1 }
    }
}

/// Columns of the forward product: lines are output places of one image, the depth runs over taps.
pub struct Patches<'a, T> {
    pub g: &'a ConvGeom,
    pub layout: Layout,
    pub taps: &'a [usize],
    pub image: &'a [T],
}

/// Neighbouring output places of one row.
struct Run {
    line: usize,
    len: usize,
    base: usize,
}

impl<T: Real> Source<T> for Patches<'_, T> {
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]) {
        let columns = self.g.out_dims[2];
        let mut runs = smallvec::SmallVec::<[Run; 32]>::new();
        let mut line = lines.start;
        while line < lines.end {
            let (row, column) = (line / columns, line % columns);
            let len = (columns - column).min(lines.end - line);
            runs.push(Run {
                line: line - lines.start,
                len,
                base: self.layout.row_base(self.g, row) + column,
            });
            line += len;
        }
        let taps = &self.taps[depth];
        mxrs_simd::vectorize(#[inline(always)] || match width {
            32 => copy_runs::<T, 32>(self.image, taps, &runs, panel),
            16 => copy_runs::<T, 16>(self.image, taps, &runs, panel),
            8 => copy_runs::<T, 8>(self.image, taps, &runs, panel),
            _ => copy_runs_exactly(self.image, taps, &runs, width, panel),
        });
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

/// Columns of the weight gradient's product: lines are taps, the depth runs over output places of one image. The layout is unsorted.
pub struct Taps<'a, T> {
    pub g: &'a ConvGeom,
    pub layout: Layout,
    pub taps: &'a [usize],
    pub image: &'a [T],
}

impl<T: Real> Source<T> for Taps<'_, T> {
    fn pack(&self, lines: Range<usize>, width: usize, depth: Range<usize>, panel: &mut [T]) {
        // Taps of one kernel row lie side by side.
        let mut runs = smallvec::SmallVec::<[Run; 32]>::new();
        for (line, tap) in self.taps[lines].iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.base + run.len == *tap => run.len += 1,
                _ => runs.push(Run { line, len: 1, base: *tap }),
            }
        }
        let longest = runs.iter().map(|r| r.len).max().unwrap_or(0);
        mxrs_simd::vectorize(#[inline(always)] || match longest {
            0..=1 => self.gather::<1>(depth, width, &runs, panel),
            2..=4 => self.gather::<4>(depth, width, &runs, panel),
            5..=8 => self.gather::<8>(depth, width, &runs, panel),
            _ => self.gather::<16>(depth, width, &runs, panel),
        });
    }
}

impl<T: Real> Taps<'_, T> {
    /// Copies runs `N` elements at a time.
    #[inline(always)]
    fn gather<const N: usize>(&self, depth: Range<usize>, width: usize, runs: &[Run], panel: &mut [T]) {
        let (columns, step) = (self.g.out_dims[2], self.layout.column_step(self.g));
        let (mut row, mut column) = (depth.start / columns, depth.start % columns);
        let mut base = self.layout.row_base(self.g, row) + column * step;
        for p in 0..depth.len() {
            for run in runs {
                let mut done = 0;
                while done < run.len {
                    let (from, to) = (base + run.base + done, p * width + run.line + done);
                    match (self.image.get(from..from + N), panel.get_mut(to..to + N)) {
                        (Some(from), Some(to)) => to.copy_from_slice(from),
                        _ => {
                            let len = N.min(run.len - done);
                            panel[to..to + len].copy_from_slice(&self.image[from..from + len]);
                        }
                    }
                    done += N;
                }
            }
            column += 1;
            base += step;
            if column == columns {
                column = 0;
                row += 1;
                if p + 1 < depth.len() {
                    base = self.layout.row_base(self.g, row);
                }
            }
        }
    }
}
