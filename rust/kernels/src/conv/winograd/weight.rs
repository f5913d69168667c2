//! The weight gradient: for every point the product of the transformed output gradients and data, summed over tiles.
//!
//! Blocks of tiles come one after the other; within a block the lanes first share the channels, then the points, so that every sum
//! has the same order whatever their number.

use super::tiles::{Tiling, transform_rows};
use super::transform::{self, POINTS, SQUARE, TILE, WIDTH};
use crate::conv::geom::ConvGeom;
use crate::gemm::blocked::{Cut, Output, multiply_panels};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, Source, Strided, with_buffer};
use std::ops::Range;

/// As [`crate::conv::backward::weight_grad`].
pub fn weight_grad<T: Real>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    let (tiling, kernels) = (Tiling::new(g), T::kernels());
    let (a_cut, b_cut) = (Cut::rows(g.filters, kernels), Cut::cols(g.channels, kernels));
    let tiles = tiling.block * tiling.across;
    let (a_len, b_len) = (SQUARE * g.filters * tiles, SQUARE * b_cut.packed_len(tiles));
    let out_len = SQUARE * g.filters * g.channels;
    with_buffer(a_len + b_len + out_len, |buffer: &mut [T]| {
        let (a, rest) = buffer.split_at_mut(a_len);
        let (b, sums) = rest.split_at_mut(b_len);
        for block in 0..tiling.blocks() {
            let rows = tiling.block(block);
            let steps = rows.len() * tiling.across;
            pack(&PackOf { g, tiling, rows, x, dy, cuts: (a_cut, b_cut) }, a, b);
            let (a, b, out) = (&*a, &*b, Shared::of(sums));
            let beta = if block == 0 { T::ZERO } else { T::ONE };
            mxrs_lanes::for_each(SQUARE, 1, |points| {
                for point in points {
                    let a = &a[point * g.filters * steps..][..g.filters * steps];
                    let b = &b[point * b_cut.packed_len(steps)..][..b_cut.packed_len(steps)];
                    // SAFETY: the sums of this point are this task's alone.
                    unsafe {
                        let c = Shared::from_ptr(out.ptr().add(point * g.filters * g.channels));
                        let target = Output { c, c_step: g.channels, alpha: T::ONE, beta };
                        multiply_panels(kernels, steps, (a, a_cut), (b, b_cut), target);
                    }
                }
            });
        }
        deliver(g, sums, accumulate, dw);
    });
}

/// The block whose panels are packed.
struct PackOf<'a, T> {
    g: &'a ConvGeom,
    tiling: Tiling,
    rows: Range<usize>,
    x: &'a [T],
    dy: &'a [T],
    /// Of the filters and of the channels.
    cuts: (Cut, Cut),
}

/// Panels of every point: of the output gradients in `a`, of the data in `b`.
fn pack<T: Real>(of: &PackOf<T>, a: &mut [T], b: &mut [T]) {
    let PackOf { g, tiling, cuts: (a_cut, b_cut), .. } = of;
    let steps = of.rows.len() * tiling.across;
    let (a, b) = (Shared::of(a), Shared::of(b));
    mxrs_lanes::for_each(a_cut.count() + b_cut.count(), 1, |panels| {
        for panel in panels {
            let (cut, panel, filters) = match panel.checked_sub(a_cut.count()) {
                None => (a_cut, panel, true),
                Some(panel) => (b_cut, panel, false),
            };
            let (lines, line) = (cut.panel(panel), tiling.line());
            // Filters' panels are as wide as they have lines, channels' always full.
            let width = if filters { lines.len() } else { cut.width };
            let per_point = if filters { g.filters * steps } else { cut.packed_len(steps) };
            let work = tiling.scratch() + SQUARE * line;
            with_buffer(work + SQUARE * lines.len() * line, |buffer: &mut [T]| {
                let (work, rows) = buffer.split_at_mut(work);
                tiling.clear(work);
                for (i, index) in lines.clone().enumerate() {
                    mxrs_simd::vectorize(
                        #[inline(always)]
                        || {
                            of.transform(
                                filters,
                                index,
                                work,
                                #[inline(always)]
                                |point, first, made| {
                                    let at = (point * lines.len() + i) * line + first;
                                    rows[at..at + WIDTH].copy_from_slice(made);
                                },
                            );
                        },
                    );
                }
                for point in 0..SQUARE {
                    let data = &rows[point * lines.len() * line..][..lines.len() * line];
                    let at = point * per_point + cut.width * panel * steps;
                    let to = if filters { &a } else { &b };
                    // SAFETY: this panel of the point is this task's alone.
                    let to = unsafe { to.slice(at..at + width * steps) };
                    let source = Strided { data, line_step: line, depth_step: 1 };
                    source.pack(0..lines.len(), width, 0..steps, to);
                }
            });
        }
    });
}

impl<T: Real> PackOf<'_, T> {
    /// The points of one filter's output gradients or one channel's data.
    #[inline(always)]
    fn transform(
        &self,
        filters: bool,
        index: usize,
        work: &mut [T],
        sink: impl FnMut(usize, usize, &[T; WIDTH]),
    ) {
        let PackOf { g, tiling, rows, x, dy, .. } = self;
        let (scratch, gathered) = work.split_at_mut(tiling.scratch());
        let (line, tiles) = (tiling.line(), rows.len() * tiling.across);
        if filters {
            let channel = |n: usize| &dy[(n * g.filters + index) * g.out_plane()..][..g.out_plane()];
            let (dims, map) = ([g.out_dims[1], g.out_dims[2]], transform::output_gradient);
            tiling.gather::<T, TILE>(rows.clone(), (dims, [0; 2]), channel, map, scratch, gathered);
            transform_rows::<T, TILE>(gathered, line, tiles, map, sink);
        } else {
            let channel = |n: usize| &x[(n * g.channels + index) * g.in_plane()..][..g.in_plane()];
            let (dims, map) = ([g.in_dims[1], g.in_dims[2]], transform::data);
            let pad = [g.pad[1], g.pad[2]];
            tiling.gather::<T, POINTS>(rows.clone(), (dims, pad), channel, map, scratch, gathered);
            transform_rows::<T, POINTS>(gathered, line, tiles, map, sink);
        }
    }
}

/// The weight's gradient out of the sums of all points.
fn deliver<T: Real>(g: &ConvGeom, sums: &[T], accumulate: bool, dw: &mut [T]) {
    let (channels, point_len) = (g.channels, g.filters * g.channels);
    let out = Shared::of(dw);
    mxrs_lanes::for_each(g.filters, (1usize << 10).div_ceil(channels), |filters| {
        for f in filters {
            // SAFETY: the weight of this filter is this task's alone.
            let dw = unsafe { out.slice(f * channels * 9..(f + 1) * channels * 9) };
            mxrs_simd::vectorize(
                #[inline(always)]
                || {
                    for first in (0..channels).step_by(WIDTH) {
                        let count = WIDTH.min(channels - first);
                        let mut seen = [[T::ZERO; WIDTH]; SQUARE];
                        for (point, seen) in seen.iter_mut().enumerate() {
                            let from = &sums[point * point_len + f * channels + first..];
                            match from.first_chunk::<WIDTH>() {
                                Some(whole) => *seen = *whole,
                                None => seen[..count].copy_from_slice(&from[..count]),
                            }
                        }
                        let mut down = [[[T::ZERO; WIDTH]; 3]; POINTS];
                        for (k, down) in down.iter_mut().enumerate() {
                            let rows = std::array::from_fn(|r| &seen[r * POINTS + k]);
                            *down = transform::columns(rows, transform::weight_gradient);
                        }
                        let mut taps = [[T::ZERO; WIDTH]; 9];
                        for i in 0..3 {
                            let rows = std::array::from_fn(|k| &down[k][i]);
                            let made = transform::columns(rows, transform::weight_gradient);
                            taps[3 * i..3 * i + 3].copy_from_slice(&made);
                        }
                        // Weights of one channel lie together: what was computed side by side is turned.
                        let to = dw[first * 9..(first + count) * 9].as_chunks_mut::<9>().0;
                        for (e, to) in to.iter_mut().enumerate() {
                            for (to, tap) in to.iter_mut().zip(&taps) {
                                *to = if accumulate { *to + tap[e] } else { tap[e] };
                            }
                        }
                    }
                },
            );
        }
    });
}
