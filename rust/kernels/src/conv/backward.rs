//! The gradients of a convolution: with respect to data, weight and bias. Every sum has a fixed order.

use super::forward::padded_image;
use super::geom::ConvGeom;
use super::image::{Layout, SLACK, Taps};
use crate::gemm::blocked::{Cut, Output, depth_block, multiply_panels, pack_all};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, Strided, with_buffer};

/// Elements of the column matrix computed at a time; they stay in the second-level cache.
const COLUMN_ELEMENTS: usize = 1 << 17;

/// Output places whose product is computed at a time.
const PLACES: usize = 192;

/// Lines of a task of the weight gradient.
const TASK_TAPS: usize = 512;

/// Channels whose weights are turned together.
const TURNED_CHANNELS: usize = 16;

/// Partial weight gradients kept side by side: at most so many, and at most so many elements, for each is written and
/// read once more.
const MAX_PARTIALS: usize = 16;
const MAX_PARTIAL_ELEMENTS: usize = 3 << 19;

/// The data gradient of `dy` (the output's gradient), written to `dx` or added to it.
pub fn data_grad<T: Real>(g: &ConvGeom, dy: &[T], w: &[T], accumulate: bool, dx: &mut [T]) {
    // With stride 1 it is a convolution of dy, unless its border makes that much larger than the product by columns.
    let reach = [0, 1, 2].map(|i| (g.kernel[i] - 1) * g.dilate[i]);
    let padded_enough = (0..3).all(|i| g.pad[i] <= reach[i]);
    if g.stride == [1; 3] && padded_enough && 4 * g.in_plane() <= 5 * g.out_plane() {
        let flipped = ConvGeom {
            channels: g.filters,
            filters: g.channels,
            in_dims: g.out_dims,
            out_dims: g.in_dims,
            pad: [0, 1, 2].map(|i| reach[i] - g.pad[i]),
            ..*g
        };
        with_buffer(w.len(), |turned: &mut [T]| {
            flip_weight(g, w, turned);
            super::forward_real(&flipped, dy, turned, None, accumulate, dx, super::UNHEARD);
        });
    } else {
        by_columns(g, dy, w, accumulate, dx);
    }
}

/// The weight with filters and channels exchanged within each group and every kernel axis reversed.
fn flip_weight<T: Real>(g: &ConvGeom, w: &[T], turned: &mut [T]) {
    let (channels, filters, taps) = (g.group_channels(), g.group_filters(), g.taps());
    let out = Shared::of(turned);
    // A few channels at a time: what is read and what is written then stay in cache together.
    let blocks = channels.div_ceil(TURNED_CHANNELS);
    let grain = (1usize << 14).div_ceil((filters * taps * TURNED_CHANNELS).max(1));
    mxrs_lanes::for_each(g.groups * blocks, grain, |tasks| {
        for task in tasks {
            let (group, first) = (task / blocks, task % blocks * TURNED_CHANNELS);
            let start = group * filters * channels * taps;
            for f in 0..filters {
                for c in first..channels.min(first + TURNED_CHANNELS) {
                    let from = &w[start + (f * channels + c) * taps..][..taps];
                    let to = start + (c * filters + f) * taps;
                    // SAFETY: the turned weight of this channel and filter is this task's alone.
                    let to = unsafe { out.slice(to..to + taps) };
                    to.iter_mut().zip(from.iter().rev()).for_each(|(t, f)| *t = *f);
                }
            }
        }
    });
}

/// Transposed weight times `dy` gives columns, which are added where their taps lie.
fn by_columns<T: Real>(g: &ConvGeom, dy: &[T], w: &[T], accumulate: bool, dx: &mut [T]) {
    let kernels = T::kernels();
    let (filters, channels, taps) = (g.group_filters(), g.group_channels(), g.taps());
    let (places, depth) = (g.out_plane(), g.depth());
    let step = depth_block::<T>(filters);
    // Channels per task: enough rows for the kernel, a column matrix that stays in cache, tasks for all lanes.
    let mut block = (COLUMN_ELEMENTS / (taps * places)).clamp(1, channels);
    while g.batch * g.groups * channels.div_ceil(block) < 2 * mxrs_lanes::count() && block > 8 {
        block = block.div_ceil(2);
    }
    let blocks = channels.div_ceil(block);
    let cut = |i: usize| Cut::rows(block.min(channels - i * block) * taps, kernels);
    // Block `i` of a group begins at its first row, for it has `filters` steps of each row.
    with_buffer(w.len(), |packed: &mut [T]| {
        for i in 0..g.groups * blocks {
            let (group, i) = (i / blocks, i % blocks);
            let weight = &w[group * filters * depth..(group + 1) * filters * depth];
            let source = Strided { data: weight, line_step: 1, depth_step: depth };
            for p in (0..filters).step_by(step) {
                let steps = p..filters.min(p + step);
                let start = group * filters * depth + i * block * taps * filters + cut(i).lines * p;
                pack_all(&source, i * block * taps, cut(i), steps, true, &mut packed[start..]);
            }
        }
        let packed = &*packed;
        let out = Shared::of(dx);
        mxrs_lanes::for_each(g.batch * g.groups * blocks, 1, |tasks| {
            let cols = places.div_ceil(places.div_ceil(PLACES)).next_multiple_of(kernels.nr);
            let b_len = Cut::cols(cols, kernels).packed_len(step);
            with_buffer(b_len + block * taps * places, |buffer: &mut [T]| {
                let (b_packed, columns) = buffer.split_at_mut(b_len);
                for task in tasks {
                    let (n, group, i) = (task / blocks / g.groups, task / blocks % g.groups, task % blocks);
                    let a_cut = cut(i);
                    let dy = &dy[(n * g.filters + group * filters) * places..][..filters * places];
                    let source = Strided { data: dy, line_step: 1, depth_step: places };
                    for first in (0..places).step_by(cols) {
                        let b_cut = Cut::cols(cols.min(places - first), kernels);
                        for p in (0..filters).step_by(step) {
                            let steps = p..filters.min(p + step);
                            pack_all(&source, first, b_cut, steps.clone(), false, b_packed);
                            let start =
                                group * filters * depth + i * block * taps * filters + a_cut.lines * p;
                            let a = &packed[start..start + a_cut.lines * steps.len()];
                            let c = Shared::of(&mut columns[first..]);
                            let beta = if p == 0 { T::ZERO } else { T::ONE };
                            let target = Output { c, c_step: places, alpha: T::ONE, beta };
                            // SAFETY: `columns` has a row of `places` for each line; these are places from `first` on.
                            unsafe {
                                multiply_panels(kernels, steps.len(), (a, a_cut), (b_packed, b_cut), target);
                            }
                        }
                    }
                    let first = (n * g.channels + group * channels + i * block) * g.in_plane();
                    let len = a_cut.lines / taps * g.in_plane();
                    // SAFETY: these channels of this image are this task's alone.
                    let target = unsafe { out.slice(first..first + len) };
                    if !accumulate {
                        target.fill(T::ZERO);
                    }
                    mxrs_simd::vectorize(
                        #[inline(always)]
                        || add_columns(g, columns, target),
                    );
                }
            });
        });
    });
}

/// Adds each row of `columns` (one per channel and tap, `out_plane` long) to the data places its tap saw.
#[inline(always)]
fn add_columns<T: Real>(g: &ConvGeom, columns: &[T], data: &mut [T]) {
    let [_, kernel_h, kernel_w] = g.kernel;
    let seen = [0, 1, 2].map(|axis| move |tap: usize| seen_range(g, axis, tap));
    let (plane, taps) = (g.out_plane(), g.taps());
    for (c, channel) in data.chunks_exact_mut(g.in_plane()).enumerate() {
        for tap in 0..taps {
            let column = &columns[(c * taps + tap) * plane..][..plane];
            let at = [tap / (kernel_h * kernel_w), tap / kernel_w % kernel_h, tap % kernel_w];
            let (ws, w0) = seen[2](at[2]);
            if ws.is_empty() {
                continue;
            }
            let (ds, d0) = seen[0](at[0]);
            for (d, in_d) in ds.zip((d0..).step_by(g.stride[0])) {
                let (hs, h0) = seen[1](at[1]);
                for (h, in_h) in hs.zip((h0..).step_by(g.stride[1])) {
                    let row = (d * g.out_dims[1] + h) * g.out_dims[2];
                    let from = &column[row + ws.start..row + ws.end];
                    let to = &mut channel[(in_d * g.in_dims[1] + in_h) * g.in_dims[2] + w0..];
                    match g.stride[2] {
                        1 => to.iter_mut().zip(from).for_each(|(t, f)| *t += *f),
                        step => to.iter_mut().step_by(step).zip(from).for_each(|(t, f)| *t += *f),
                    }
                }
            }
        }
    }
}

/// The output indices along `axis` whose `tap` lies inside the data, and the data index of the first.
#[inline(always)]
pub fn seen_range(g: &ConvGeom, axis: usize, tap: usize) -> (std::ops::Range<usize>, usize) {
    let (offset, pad, stride) = (tap * g.dilate[axis], g.pad[axis], g.stride[axis]);
    // Output o sees data o * stride + offset - pad.
    let first = pad.saturating_sub(offset).div_ceil(stride);
    let end = (g.in_dims[axis] + pad).saturating_sub(offset).div_ceil(stride).min(g.out_dims[axis]);
    if first >= end { (0..0, 0) } else { (first..end, first * stride + offset - pad) }
}

/// The weight gradient, written to `dw` or added to it.
pub fn weight_grad<T: Real>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    let len = g.weight_len();
    // The number of partial sums depends on sizes only, so that the order of additions does too.
    let partials = (MAX_PARTIAL_ELEMENTS / len.max(1)).clamp(1, MAX_PARTIALS).min(g.batch.max(1));
    if partials == 1 {
        return partial_weight_grads(g, x, dy, partials, accumulate, dw);
    }
    with_buffer(partials * len, |sums: &mut [T]| {
        partial_weight_grads(g, x, dy, partials, false, sums);
        let sums = &*sums;
        let out = Shared::of(dw);
        mxrs_lanes::for_each(len, 1 << 14, |range| {
            // SAFETY: the range is this call's alone.
            let out = unsafe { out.slice(range.clone()) };
            for (i, partial) in sums.chunks_exact(len).enumerate() {
                let partial = &partial[range.clone()];
                if i == 0 && !accumulate {
                    out.copy_from_slice(partial);
                    continue;
                }
                mxrs_simd::vectorize(
                    #[inline(always)]
                    || out.iter_mut().zip(partial).for_each(|(o, p)| *o += *p),
                );
            }
        });
    });
}

/// Partial sum `i` becomes that of the images of the `i`-th part of the batch, or has it added.
fn partial_weight_grads<T: Real>(
    g: &ConvGeom,
    x: &[T],
    dy: &[T],
    partials: usize,
    accumulate: bool,
    sums: &mut [T],
) {
    if g.batch == 0 {
        if !accumulate {
            sums.fill(T::ZERO);
        }
        return;
    }
    let kernels = T::kernels();
    let (filters, depth, places, taps_per) = (g.group_filters(), g.depth(), g.out_plane(), g.taps());
    let layout = Layout::new(g);
    let taps = layout.taps(g, g.group_channels());
    let blocks = depth.div_ceil(TASK_TAPS);
    let block = depth.div_ceil(blocks.max(1)).next_multiple_of(kernels.nr);
    let blocks = depth.div_ceil(block);
    let step = depth_block::<T>(places);
    let a_cut = Cut::rows(filters, kernels);
    let out = Shared::of(sums);
    mxrs_lanes::for_each(partials * g.groups * blocks, 1, |tasks| {
        for task in tasks {
            let (part, group, i) = (task / blocks / g.groups, task / blocks % g.groups, task % blocks);
            let images = part * g.batch / partials..(part + 1) * g.batch / partials;
            let lines = i * block..depth.min((i + 1) * block);
            let b_cut = Cut::cols(lines.len(), kernels);
            // Only the channels these taps belong to are copied.
            let channels = lines.start / taps_per..lines.end.div_ceil(taps_per);
            let copied = channels.len() * layout.channel_len + SLACK;
            let padded_len = if layout.is_plain() { 0 } else { copied };
            let first_line = lines.start - channels.start * taps_per;
            with_buffer(padded_len, |padded: &mut [T]| {
                with_buffer((filters + b_cut.packed_len(1)) * step, |buffer: &mut [T]| {
                    let (a_packed, b_packed) = buffer.split_at_mut(filters * step);
                    for n in images.clone() {
                        let first = n * g.channels + group * g.group_channels() + channels.start;
                        let image = &x[first * g.in_plane()..][..channels.len() * g.in_plane()];
                        let image = padded_image(g, &layout, image, padded, false);
                        let dy = &dy[(n * g.filters + group * filters) * places..][..filters * places];
                        for p in (0..places).step_by(step) {
                            let steps = p..places.min(p + step);
                            let source = Strided { data: dy, line_step: places, depth_step: 1 };
                            pack_all(&source, 0, a_cut, steps.clone(), true, a_packed);
                            if g.is_pointwise() {
                                let source = Strided { data: image, line_step: places, depth_step: 1 };
                                pack_all(&source, first_line, b_cut, steps.clone(), false, b_packed);
                            } else {
                                let source = Taps { g, layout, taps: &taps, image };
                                pack_all(&source, first_line, b_cut, steps.clone(), false, b_packed);
                            }
                            let start = part * g.weight_len() + group * filters * depth + lines.start;
                            // SAFETY: the product writes `filters` rows at these lines of this partial sum.
                            let c = Shared::from_ptr(unsafe { out.ptr().add(start) });
                            let fresh = n == images.start && p == 0 && !accumulate;
                            let beta = if fresh { T::ZERO } else { T::ONE };
                            let target = Output { c, c_step: depth, alpha: T::ONE, beta };
                            // SAFETY: as above; no other task has these lines of this part and group.
                            unsafe {
                                let (a, b) = ((&*a_packed, a_cut), (&*b_packed, b_cut));
                                multiply_panels(kernels, steps.len(), a, b, target);
                            }
                        }
                    }
                });
            });
        }
    });
}

/// The bias gradient: `dy` (`batch x filters x plane`) summed over batch and places, into `db` (`filters`) or added to it.
pub fn bias_grad<T: Real>(filters: usize, plane: usize, dy: &[T], accumulate: bool, db: &mut [T]) {
    let out = Shared::of(db);
    let image = filters * plane;
    let grain = (1usize << 14).div_ceil((dy.len() / filters.max(1)).max(1));
    mxrs_lanes::for_each(filters, grain, |range| {
        for f in range {
            let rows = dy.chunks_exact(image.max(1)).map(|image| &image[f * plane..(f + 1) * plane]);
            let sum: f64 = rows
                .map(|row| {
                    mxrs_simd::vectorize(
                        #[inline(always)]
                        || sum_row(row),
                    )
                })
                .sum();
            // SAFETY: one filter, one call.
            let db = unsafe { &mut out.slice(f..f + 1)[0] };
            *db = if accumulate { T::from_f64(db.to_f64() + sum) } else { T::from_f64(sum) };
        }
    });
}

/// The sum of one row in sixteen interleaved parts.
#[inline(always)]
fn sum_row<T: Real>(row: &[T]) -> f64 {
    let (whole, rest) = row.as_chunks::<16>();
    let mut parts = [T::ZERO; 16];
    for chunk in whole {
        for (part, v) in parts.iter_mut().zip(chunk) {
            *part += *v;
        }
    }
    parts.iter().chain(rest).map(|v| v.to_f64()).sum()
}
