//! The forward product: weight times patches, image by image, the weight packed once for all.

use super::geom::ConvGeom;
use super::image::{Layout, Patches, SLACK};
use super::{Done, in_parts};
use crate::gemm::blocked::{Cut, Output, depth_block, multiply_panels, pack_all};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, Strided, with_buffer};
use std::ops::Range;

/// Output places whose patches are packed at a time, at most.
const PLACES: usize = 192;

/// Output places of an image below which several images are computed together: panels filled by a few places of each
/// would be half empty, and the weight would be read again for every image.
const FEW_PLACES: usize = 400;

/// The most panels of places computed together then.
const MAX_PANELS: usize = 8;

/// `y = conv(x, w) + bias` (`y` is overwritten, or added to); `done` is told of finished parts of `y`.
pub fn forward<T: Real>(
    g: &ConvGeom,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    y: &mut [T],
    done: Done,
) {
    let kernels = T::kernels();
    let (depth, places, len) = (g.depth(), g.out_plane(), y.len());
    let step = depth_block::<T>(depth);
    let layout = Layout::new(g);
    let taps = layout.taps(g, g.group_channels());
    // Copies of panel width may run past the image only inside a padded copy.
    let padded_len = if layout.is_plain() { 0 } else { g.group_channels() * layout.channel_len + SLACK };
    let out = Shared::of(y);
    with_buffer(w.len(), |packed: &mut [T]| {
        pack_weight(g, w, step, Cut::rows(g.group_filters(), kernels), packed);
        let packed = &*packed;
        if places < FEW_PLACES && g.batch > 1 {
            together(g, x, packed, bias, accumulate, out);
            // Images of few places are small, and so are the rows that `together` delivers.
            return in_parts(len, done);
        }
        let of = Parts { g, layout, taps: &taps, packed, step, bias, accumulate, out, done };
        let (images, lanes) = (g.batch * g.groups, mxrs_lanes::count());
        if images >= 2 * lanes || lanes == 1 {
            let block = places.div_ceil(places.div_ceil(PLACES)).next_multiple_of(kernels.nr);
            mxrs_lanes::for_each(images, 1, |range| {
                with_buffer(padded_len, |padded: &mut [T]| {
                    for i in range {
                        let (n, group, image) = image_of(g, x, i);
                        let image = padded_image(g, &layout, image, padded, false);
                        of.compute(n, group, image, 0..places.div_ceil(block), block);
                    }
                });
            });
        } else {
            let most = places.div_ceil(3 * lanes).clamp(kernels.nr, PLACES);
            let block = places.div_ceil(places.div_ceil(most)).next_multiple_of(kernels.nr);
            with_buffer(padded_len, |padded: &mut [T]| {
                for i in 0..images {
                    let (n, group, image) = image_of(g, x, i);
                    let image = padded_image(g, &layout, image, padded, true);
                    mxrs_lanes::for_each(places.div_ceil(block), 1, |blocks| {
                        of.compute(n, group, image, blocks, block);
                    });
                }
            });
        }
    });
}

/// A forward product, to be computed part by part.
struct Parts<'a, T> {
    g: &'a ConvGeom,
    layout: Layout,
    taps: &'a [usize],
    /// The weight in panels, `step` of depth at a time.
    packed: &'a [T],
    step: usize,
    bias: Option<&'a [T]>,
    accumulate: bool,
    out: Shared<T>,
    done: Done<'a>,
}

impl<T: Real> Parts<'_, T> {
    /// Some output places of one group of image `n`: the `blocks` of `block` places each.
    fn compute(&self, n: usize, group: usize, image: &[T], blocks: Range<usize>, block: usize) {
        let Parts { g, layout, taps, packed, step, bias, accumulate, out, done } = *self;
        let kernels = T::kernels();
        let (depth, filters, places) = (g.depth(), g.group_filters(), g.out_plane());
        let a_cut = Cut::rows(filters, kernels);
        with_buffer(Cut::cols(block, kernels).packed_len(step), |b_packed: &mut [T]| {
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
                        let source = Patches { g, layout, taps, image, image_step: 0 };
                        pack_all(&source, first, b_cut, steps.clone(), false, b_packed);
                    }
                    let a = &packed[group * filters * depth + filters * p..][..filters * steps.len()];
                    // SAFETY: the start of these places; the product writes `filters` rows of `count`.
                    let c = Shared::from_ptr(unsafe { out.ptr().add(start) });
                    let beta = if p == 0 { begun } else { T::ONE };
                    let target = Output { c, c_step: places, alpha: T::ONE, beta };
                    // SAFETY: as above; no other task has these places.
                    unsafe { multiply_panels(kernels, steps.len(), (a, a_cut), (b_packed, b_cut), target) };
                }
                (0..filters).map(|f| start + f * places).for_each(|row| done(row..row + count));
            }
        });
    }
}

/// Image and group of the `i`-th pair of them, and their part of the input.
fn image_of<'a, T: Real>(g: &ConvGeom, x: &'a [T], i: usize) -> (usize, usize, &'a [T]) {
    let (n, group, channels) = (i / g.groups, i % g.groups, g.group_channels());
    (n, group, &x[(n * g.channels + group * channels) * g.in_plane()..][..channels * g.in_plane()])
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

/// How many panels a task takes, of `panels` for each of `groups`: so that the lanes end together.
fn panels_of_task(panels: usize, groups: usize) -> usize {
    let lanes = mxrs_lanes::count();
    let fewest = panels.div_ceil(MAX_PANELS);
    let sizes = (fewest..=fewest + 2 * lanes).map(|tasks| panels.div_ceil(tasks).max(1));
    // The time of the last lane, in panels; among equals the larger tasks.
    sizes.min_by_key(|size| (groups * panels.div_ceil(*size)).div_ceil(lanes) * size).unwrap_or(1)
}

/// The forward product with the places of all images as its columns, for images of few places.
fn together<T: Real>(
    g: &ConvGeom,
    x: &[T],
    packed: &[T],
    bias: Option<&[T]>,
    accumulate: bool,
    out: Shared<T>,
) {
    let kernels = T::kernels();
    let (depth, filters, places) = (g.depth(), g.group_filters(), g.out_plane());
    let step = depth_block::<T>(depth);
    let a_cut = Cut::rows(filters, kernels);
    let layout = Layout::new(g);
    let taps = layout.taps(g, g.group_channels());
    let total = g.batch * places;
    let block = panels_of_task(total.div_ceil(kernels.nr), g.groups) * kernels.nr;
    let blocks = total.div_ceil(block);
    // Images a block can touch, each with its copy where the border is not in memory.
    let most = (block - 1).div_ceil(places) + 1;
    let copy_len = g.group_channels() * layout.channel_len;
    let padded_len = if layout.is_plain() { 0 } else { most * copy_len + SLACK };
    let b_len = Cut::cols(block, kernels).packed_len(step);
    mxrs_lanes::for_each(g.groups * blocks, 1, |tasks| {
        with_buffer(padded_len, |padded: &mut [T]| {
            with_buffer(b_len + filters * block, |buffer: &mut [T]| {
                let (b_packed, sums) = buffer.split_at_mut(b_len);
                for task in tasks {
                    let (group, first) = (task / blocks, task % blocks * block);
                    let count = block.min(total - first);
                    let images = first / places..(first + count).div_ceil(places);
                    let group_len = g.group_channels() * g.in_plane();
                    let start = |n: usize| n * g.channels * g.in_plane() + group * group_len;
                    let (image, image_step) = if padded_len == 0 {
                        (&x[start(images.start)..start(images.end - 1) + group_len], start(1) - start(0))
                    } else {
                        for (i, n) in images.clone().enumerate() {
                            let copy = &mut padded[i * copy_len..(i + 1) * copy_len + SLACK];
                            padded_image(g, &layout, &x[start(n)..start(n) + group_len], copy, false);
                        }
                        (&*padded, copy_len)
                    };
                    let source = Patches { g, layout, taps: &taps, image, image_step };
                    let b_cut = Cut::cols(count, kernels);
                    for p in (0..depth).step_by(step) {
                        let steps = p..depth.min(p + step);
                        pack_all(
                            &source,
                            first - images.start * places,
                            b_cut,
                            steps.clone(),
                            false,
                            b_packed,
                        );
                        let a = &packed[group * filters * depth + filters * p..][..filters * steps.len()];
                        let beta = if p == 0 { T::ZERO } else { T::ONE };
                        let target = Output { c: Shared::of(sums), c_step: block, alpha: T::ONE, beta };
                        // SAFETY: `sums` has a row of `block` places for each filter.
                        unsafe {
                            multiply_panels(kernels, steps.len(), (a, a_cut), (b_packed, b_cut), target);
                        }
                    }
                    for n in images {
                        let from = first.max(n * places);
                        let to = (first + count).min((n + 1) * places);
                        for f in 0..filters {
                            let filter = group * filters + f;
                            let at = (n * g.filters + filter) * places + from - n * places;
                            // SAFETY: these places of this image's filter are this task's alone.
                            let y = unsafe { out.slice(at..at + to - from) };
                            let sums = &sums[f * block + from - first..][..to - from];
                            deliver(sums, bias.map(|b| b[filter]), accumulate, y);
                        }
                    }
                }
            });
        });
    });
}

/// `y = sums + bias`, or added to `y`.
fn deliver<T: Real>(sums: &[T], bias: Option<T>, accumulate: bool, y: &mut [T]) {
    mxrs_simd::vectorize(
        #[inline(always)]
        || match (bias, accumulate) {
            (None, false) => y.copy_from_slice(sums),
            (Some(b), false) => y.iter_mut().zip(sums).for_each(|(y, s)| *y = *s + b),
            (None, true) => y.iter_mut().zip(sums).for_each(|(y, s)| *y += *s),
            (Some(b), true) => y.iter_mut().zip(sums).for_each(|(y, s)| *y += *s + b),
        },
    );
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
