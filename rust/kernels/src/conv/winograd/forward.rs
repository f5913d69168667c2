//! Outputs: block after block of tiles, the transformed weight shared by all.

use super::tiles::{Tiling, transform_rows};
use super::transform::{self, POINTS, SQUARE, TILE, WIDTH};
use crate::conv::Done;
use crate::conv::geom::ConvGeom;
use crate::gemm::blocked::{Cut, Output, depth_block, multiply_panels};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, with_buffer};
use std::ops::Range;

/// Panels of filters whose products are computed and transformed back at a time; they stay in the second-level cache.
const PANELS: usize = 4;

/// As [`crate::conv::forward::forward`].
pub fn forward<T: Real>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
    done: Done,
) {
    let (tiling, kernels) = (Tiling::new(g), T::kernels());
    let a_cut = Cut::rows(g.filters, kernels);
    let out = Shared::of(y);
    with_buffer(SQUARE * g.filters * g.channels, |weight: &mut [T]| {
        pack_weight(g, w, a_cut, weight);
        let weight = &*weight;
        mxrs_lanes::for_each(tiling.blocks(), 1, |blocks| {
            let line = tiling.line();
            let b_len = SQUARE * Cut::cols(line, kernels).packed_len(g.channels);
            let sums_len = SQUARE * PANELS * a_cut.width * line;
            let work = tiling.scratch() + SQUARE * line;
            with_buffer(b_len + sums_len + work, |buffer: &mut [T]| {
                let (points, rest) = buffer.split_at_mut(b_len);
                let (sums, work) = rest.split_at_mut(sums_len);
                let (work, lines) = work.split_at_mut(tiling.scratch());
                tiling.clear(work);
                for block in blocks {
                    let rows = tiling.block(block);
                    let b_cut = Cut::cols(rows.len() * tiling.across, kernels);
                    mxrs_simd::vectorize(
                        #[inline(always)]
                        || pack_data(g, &tiling, rows.clone(), x, b_cut, points, (&mut *work, &mut *lines)),
                    );
                    for first in (0..g.filters).step_by(PANELS * a_cut.width) {
                        let count = (PANELS * a_cut.width).min(g.filters - first);
                        multiply(g, weight, a_cut, first..first + count, (points, b_cut), sums, line);
                        let finish = Finish { g, tiling, rows: rows.clone(), bias, accumulate, out, done };
                        finish.filters(first..first + count, sums, lines);
                    }
                }
            });
        });
    });
}

/// The weight of every point in panels: point after point, block of depth after block.
fn pack_weight<T: Real>(g: &ConvGeom, w: &[T], cut: Cut, packed: &mut [T]) {
    let (channels, filters) = (g.channels, g.filters);
    let step = depth_block::<T>(channels);
    let out = Shared::of(packed);
    let grain = (1usize << 10).div_ceil(channels);
    mxrs_lanes::for_each(cut.count(), grain, |panels| {
        for panel in panels {
            let lines = cut.panel(panel);
            let count = lines.len();
            mxrs_simd::vectorize(
                #[inline(always)]
                || {
                    for c in 0..channels {
                        let mut taps = [[T::ZERO; WIDTH]; 9];
                        for (e, f) in lines.clone().enumerate() {
                            let from = &w[(f * channels + c) * 9..][..9];
                            (0..9).for_each(|t| taps[t][e] = from[t]);
                        }
                        let block = c / step * step;
                        let steps = step.min(channels - block);
                        let at = filters * block + lines.start * steps + (c - block) * count;
                        square(
                            &taps,
                            #[inline(always)]
                            |point: usize, made: &[T; WIDTH]| {
                                let start = point * filters * channels + at;
                                // SAFETY: this panel's places of the point are this task's alone.
                                let to = unsafe { out.slice(start..start + count) };
                                to.copy_from_slice(&made[..count]);
                            },
                        );
                    }
                },
            );
        }
    });
}

/// The 36 points of `WIDTH` squares of 9 weights.
#[inline(always)]
fn square<T: Real>(taps: &[[T; WIDTH]; 9], mut sink: impl FnMut(usize, &[T; WIDTH])) {
    let mut along = [[[T::ZERO; WIDTH]; POINTS]; 3];
    for (i, along) in along.iter_mut().enumerate() {
        *along = transform::columns([&taps[3 * i], &taps[3 * i + 1], &taps[3 * i + 2]], transform::weight);
    }
    let column = |k: usize| std::array::from_fn(|i| &along[i][k]);
    for k in 0..POINTS {
        let made = transform::columns::<T, 3, POINTS>(column(k), transform::weight);
        made.iter().enumerate().for_each(|(r, made)| sink(r * POINTS + k, made));
    }
}

/// The tiles of `rows` as panels of every point: point after point, block of depth after block.
#[inline(always)]
fn pack_data<T: Real>(
    g: &ConvGeom,
    tiling: &Tiling,
    rows: Range<usize>,
    x: &[T],
    cut: Cut,
    points: &mut [T],
    (scratch, gathered): (&mut [T], &mut [T]),
) {
    let (dims, pad) = ([g.in_dims[1], g.in_dims[2]], [g.pad[1], g.pad[2]]);
    let step = depth_block::<T>(g.channels);
    let (width, panels) = (cut.width, cut.count());
    for c in 0..g.channels {
        let channel = |n: usize| &x[(n * g.channels + c) * g.in_plane()..][..g.in_plane()];
        tiling.gather(rows.clone(), (dims, pad), channel, transform::data, scratch, gathered);
        let block = c / step * step;
        let steps = step.min(g.channels - block);
        let start = |point: usize, panel: usize| {
            panels * width * (point * g.channels + block) + (panel * steps + c - block) * width
        };
        transform_rows(
            gathered,
            tiling.line(),
            cut.lines,
            transform::data,
            #[inline(always)]
            |point: usize, first: usize, made: &[T; WIDTH]| {
                // Copies of a constant length are moves of registers, not calls.
                match width {
                    WIDTH => points[start(point, first / WIDTH)..][..WIDTH].copy_from_slice(made),
                    16 => {
                        for (i, part) in made.as_chunks::<16>().0.iter().enumerate() {
                            if first / 16 + i < panels {
                                points[start(point, first / 16 + i)..][..16].copy_from_slice(part);
                            }
                        }
                    }
                    _ => {
                        for (i, part) in made.chunks(width).enumerate() {
                            if first / width + i < panels {
                                points[start(point, first / width + i)..][..part.len()].copy_from_slice(part);
                            }
                        }
                    }
                }
            },
        );
    }
}

/// The products of every point for some filters: `sums` gets rows of `line`, one for each point and filter.
fn multiply<T: Real>(
    g: &ConvGeom,
    weight: &[T],
    a_cut: Cut,
    filters: Range<usize>,
    (points, b_cut): (&[T], Cut),
    sums: &mut [T],
    line: usize,
) {
    let kernels = T::kernels();
    let step = depth_block::<T>(g.channels);
    let a_cut = Cut { lines: filters.len(), ..a_cut };
    for point in 0..SQUARE {
        for p in (0..g.channels).step_by(step) {
            let steps = step.min(g.channels - p);
            let start = point * g.filters * g.channels + g.filters * p + filters.start * steps;
            let a = &weight[start..][..filters.len() * steps];
            let b = &points[b_cut.packed_len(1) * (point * g.channels + p)..][..b_cut.packed_len(steps)];
            let c = Shared::of(&mut sums[point * filters.len() * line..][..filters.len() * line]);
            let beta = if p == 0 { T::ZERO } else { T::ONE };
            // SAFETY: `sums` has a row of `line` places for each filter of the point.
            unsafe {
                multiply_panels(
                    kernels,
                    steps,
                    (a, a_cut),
                    (b, b_cut),
                    Output { c, c_step: line, alpha: T::ONE, beta },
                );
            }
        }
    }
}

/// Brings the sums of a block back to outputs.
struct Finish<'a, T> {
    g: &'a ConvGeom,
    tiling: Tiling,
    rows: Range<usize>,
    bias: Option<&'a [T]>,
    accumulate: bool,
    out: Shared<T>,
    done: Done<'a>,
}

impl<T: Real> Finish<'_, T> {
    /// `sums` are those of `filters`; `work` holds four lines of outputs.
    fn filters(&self, filters: Range<usize>, sums: &[T], work: &mut [T]) {
        let line = self.tiling.line();
        for (i, f) in filters.clone().enumerate() {
            mxrs_simd::vectorize(
                #[inline(always)]
                || {
                    self.lines(|point| &sums[(point * filters.len() + i) * line..][..line], work);
                    self.deliver(f, work);
                },
            );
            for (n, rows, _) in self.tiling.images(self.rows.clone()) {
                let [_, height, width] = self.g.out_dims;
                let start = (n * self.g.filters + f) * height * width;
                let places = rows.start * TILE * width..height.min(rows.end * TILE) * width;
                (self.done)(start + places.start..start + places.end);
            }
        }
    }

    /// The outputs of one filter: `work` gets a line for each row of a tile, four places for each tile.
    #[inline(always)]
    fn lines<'s>(&self, sums: impl Fn(usize) -> &'s [T], work: &mut [T])
    where
        T: 's,
    {
        let line = self.tiling.line();
        let tiles = self.rows.len() * self.tiling.across;
        for first in (0..tiles).step_by(WIDTH) {
            let at = |point: usize| {
                let tiles = sums(point)[first..].first_chunk::<WIDTH>();
                tiles.unwrap_or_else(|| unreachable!("lines hold whole groups of tiles"))
            };
            // Along the rows of points, then across.
            let mut down = [[[T::ZERO; WIDTH]; TILE]; POINTS];
            for (k, down) in down.iter_mut().enumerate() {
                *down = transform::columns(std::array::from_fn(|r| at(r * POINTS + k)), transform::output);
            }
            for i in 0..TILE {
                let made = transform::columns(std::array::from_fn(|k| &down[k][i]), transform::output);
                let to = &mut work[(i * line + first) * TILE..][..WIDTH * TILE];
                for (e, to) in to.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                    *to = [made[0][e], made[1][e], made[2][e], made[3][e]];
                }
            }
        }
    }

    /// Puts the lines of one filter where they belong.
    #[inline(always)]
    fn deliver(&self, f: usize, lines: &[T]) {
        let [_, height, width] = self.g.out_dims;
        let Tiling { across, .. } = self.tiling;
        let bias = self.bias.map_or(T::ZERO, |b| b[f]);
        for (n, rows, first) in self.tiling.images(self.rows.clone()) {
            for (m, row) in rows.enumerate() {
                for i in 0..TILE.min(height - row * TILE) {
                    let from = &lines[(i * self.tiling.line() + first + m * across) * TILE..][..width];
                    let at = ((n * self.g.filters + f) * height + row * TILE + i) * width;
                    // SAFETY: these rows of this image's filter are this block's alone.
                    let y = unsafe { self.out.slice(at..at + width) };
                    match self.accumulate {
                        true => y.iter_mut().zip(from).for_each(|(y, v)| *y += *v + bias),
                        false => y.iter_mut().zip(from).for_each(|(y, v)| *y = *v + bias),
                    }
                }
            }
        }
    }
}
