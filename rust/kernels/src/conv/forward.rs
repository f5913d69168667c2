//! The forward product: weight times patches, image by image, the weight packed once for all.

use super::geom::ConvGeom;
use super::image::{Layout, Patches, SLACK};
use crate::gemm::blocked::{Cut, Output, depth_block, multiply_panels, pack_all};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, Strided, with_buffer};
use std::ops::Range;

/// Output places whose patches are packed at a time, at most.
const PLACES: usize = 192;

/// `y = conv(x, w) + bias` (`y` is overwritten, or added to).
pub fn forward<T: Real>(g: &ConvGeom, x: &[T], w: &[T], bias: Option<&[T]>, accumulate: bool, y: &mut [T]) {
    let kernels = T::kernels();
    let (depth, filters, places) = (g.depth(), g.group_filters(), g.out_plane());
    let step = depth_block::<T>(depth);
    let a_cut = Cut::rows(filters, kernels);
    let layout = Layout::new(g, true);
    let taps = layout.taps(g, g.group_channels());
    // Copies of panel width may run past the image only inside a padded copy.
    let padded_len = if layout.is_plain() { 0 } else { g.group_channels() * layout.channel_len + SLACK };
    let out = Shared::of(y);
    with_buffer(w.len(), |packed: &mut [T]| {
        pack_weight(g, w, step, a_cut, packed);
        // One image of one group, some of its output places.
        let part = |n: usize, group: usize, image: &[T], blocks: Range<usize>, block: usize| {
            let cols = Cut::cols(block, kernels);
            with_buffer(cols.packed_len(step), |b_packed: &mut [T]| {
                for first in blocks.map(|i| i * block) {
                    let count = block.min(places - first);
                    let start = (n * g.filters + group * filters) * places + first;
                    let begun = if accumulate || bias.is_some() { T::ONE } else { T::ZERO };
                    if let Some(bias) = bias {
                        let bias = &bias[group * filters..][..filters];
                        // SAFETY: these places of this image's filters are this call's alone.
                        unsafe { begin_with(bias, accumulate, out, start, places, count) };
                    }
                    let b_cut = Cut::cols(count, kernels);
                    for p in (0..depth).step_by(step) {
                        let steps = p..depth.min(p + step);
                        if g.is_pointwise() {
                            let source = Strided { data: image, line_step: 1, depth_step: places };
                            pack_all(&source, first, b_cut, steps.clone(), false, b_packed);
                        } else {
                            let source = Patches { g, layout, taps: &taps, image };
                            pack_all(&source, first, b_cut, steps.clone(), false, b_packed);
                        }
                        let a = &packed[group * filters * depth + filters * p..][..filters * steps.len()];
                        // SAFETY: the start of these places; the product writes `filters` rows of `count`.
                        let c = Shared::from_ptr(unsafe { out.ptr().add(start) });
                        let beta = if p == 0 { begun } else { T::ONE };
                        let target = Output { c, c_step: places, alpha: T::ONE, beta };
                        // SAFETY: as above; no other task has these places.
                        unsafe {
                            multiply_panels(kernels, steps.len(), (a, a_cut), (b_packed, b_cut), target);
                        }
                    }
                }
            });
        };
        let image_of = |i: usize| {
            let (n, group, channels) = (i / g.groups, i % g.groups, g.group_channels());
            let image = &x[(n * g.channels + group * channels) * g.in_plane()..][..channels * g.in_plane()];
            (n, group, image)
        };
        let (images, lanes) = (g.batch * g.groups, mxrs_lanes::count());
        if images >= 2 * lanes || lanes == 1 {
            let block = places.div_ceil(places.div_ceil(PLACES)).next_multiple_of(kernels.nr);
            mxrs_lanes::for_each(images, 1, |range| {
                with_buffer(padded_len, |padded: &mut [T]| {
                    for i in range {
                        let (n, group, image) = image_of(i);
                        let image = padded_image(g, &layout, image, padded, false);
                        part(n, group, image, 0..places.div_ceil(block), block);
                    }
                });
            });
        } else {
            let most = places.div_ceil(3 * lanes).clamp(kernels.nr, PLACES);
            let block = places.div_ceil(places.div_ceil(most)).next_multiple_of(kernels.nr);
            with_buffer(padded_len, |padded: &mut [T]| {
                for i in 0..images {
                    let (n, group, image) = image_of(i);
                    let image = padded_image(g, &layout, image, padded, true);
                    mxrs_lanes::for_each(places.div_ceil(block), 1, |blocks| {
                        part(n, group, image, blocks, block);
                    });
                }
            });
        }
    });
}

/// Puts each filter's bias on `count` places of its row, or adds it; rows begin `step` apart, the first at `start`.
///
/// # Safety
/// These places lie inside the output, and no other task has them.
unsafe fn begin_with<T: Real>(
    bias: &[T],
    accumulate: bool,
    out: Shared<T>,
    start: usize,
    step: usize,
    count: usize,
) {
    for (f, b) in bias.iter().enumerate() {
        // SAFETY: the caller's promise.
        let row = unsafe { out.slice(start + f * step..start + f * step + count) };
        row.iter_mut().for_each(|v| *v = if accumulate { *v + *b } else { *b });
    }
}

/// The weight of every group in panels, block of depth after block.
fn pack_weight<T: Real>(g: &ConvGeom, w: &[T], step: usize, cut: Cut, packed: &mut [T]) {
    let (depth, filters) = (g.depth(), g.group_filters());
    for group in 0..g.groups {
        let rows = &w[group * filters * depth..(group + 1) * filters * depth];
        let source = Strided { data: rows, line_step: depth, depth_step: 1 };
        for p in (0..depth).step_by(step) {
            let steps = p..depth.min(p + step);
            let start = group * filters * depth + filters * p;
            pack_all(&source, 0, cut, steps, true, &mut packed[start..]);
        }
    }
}

/// The channels of `image` as `layout` has them: the image itself where it can be, else the copy made in `padded`.
pub fn padded_image<'a, T: Real>(
    g: &ConvGeom,
    layout: &Layout,
    image: &'a [T],
    padded: &'a mut [T],
    parallel: bool,
) -> &'a [T] {
    if padded.is_empty() {
        return image;
    }
    let channels = image.len() / g.in_plane().max(1);
    padded[channels * layout.channel_len..].fill(T::ZERO);
    let out = Shared::of(padded);
    let fill = |range: Range<usize>| {
        for c in range {
            // SAFETY: each channel's copy is filled by one call.
            let to = unsafe { out.slice(c * layout.channel_len..(c + 1) * layout.channel_len) };
            layout.fill(&image[c * g.in_plane()..(c + 1) * g.in_plane()], to);
        }
    };
    let grain = if parallel { (1usize << 15).div_ceil(layout.channel_len.max(1)) } else { usize::MAX };
    mxrs_lanes::for_each(channels, grain, fill);
    padded
}
