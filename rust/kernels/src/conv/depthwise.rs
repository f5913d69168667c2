//! Convolutions whose groups have one channel each: no product to speak of, so taps are applied to rows directly.

use super::forward::padded_image;
use super::geom::ConvGeom;
use super::image::{Layout, SLACK};
use crate::gemm::micro::Real;
use crate::gemm::pack::{Shared, with_buffer};
use mxrs_simd::{Kernel, Level};

/// Output columns computed at a time, in registers.
const WIDTH: usize = 32;

/// Whether this room computes the convolution.
pub fn is_depthwise(g: &ConvGeom) -> bool {
    g.group_channels() == 1 && g.groups > 1
}

/// As [`super::forward::forward`].
pub fn forward<T: Real>(g: &ConvGeom, x: &[T], w: &[T], bias: Option<&[T]>, accumulate: bool, y: &mut [T]) {
    let layout = Layout::new(g, true);
    let taps = layout.taps(g, 1);
    let (per_channel, places) = (g.group_filters(), g.out_plane());
    let out = Shared::of(y);
    let work = (places * taps.len() * per_channel).max(1);
    mxrs_lanes::for_each(g.batch * g.channels, (1usize << 15).div_ceil(work), |planes| {
        with_buffer(layout.channel_len + SLACK, |padded: &mut [T]| {
            for plane in planes {
                let image = &x[plane * g.in_plane()..(plane + 1) * g.in_plane()];
                let image = padded_image(g, &layout, image, padded, false);
                for f in 0..per_channel {
                    let filter = plane % g.channels * per_channel + f;
                    let start = (plane * per_channel + f) * places;
                    mxrs_simd::vectorize_kernel(ApplyTaps {
                        g,
                        layout: &layout,
                        taps: &taps,
                        weight: &w[filter * taps.len()..(filter + 1) * taps.len()],
                        bias: bias.map_or(T::ZERO, |b| b[filter]),
                        accumulate,
                        image,
                        // SAFETY: the output plane of this channel and filter is this call's alone.
                        out: unsafe { out.slice(start..start + places) },
                    });
                }
            }
        });
    });
}

/// One output plane from one channel.
struct ApplyTaps<'a, T> {
    g: &'a ConvGeom,
    layout: &'a Layout,
    taps: &'a [usize],
    weight: &'a [T],
    bias: T,
    accumulate: bool,
    image: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for ApplyTaps<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Level>(self) {
        for (row, out) in self.out.chunks_exact_mut(self.g.out_dims[2]).enumerate() {
            let base = self.layout.row_base(self.g, row);
            for (i, out) in out.chunks_mut(WIDTH).enumerate() {
                let mut sums = [self.bias; WIDTH];
                for (tap, w) in self.taps.iter().zip(self.weight) {
                    let at = base + tap + i * WIDTH;
                    // The slack behind the copy makes the last row's columns readable to the full width.
                    let seen = &self.image[at..at + WIDTH];
                    for (sum, v) in sums.iter_mut().zip(seen) {
                        *sum = T::fma::<L>(*w, *v, *sum);
                    }
                }
                if self.accumulate {
                    out.iter_mut().zip(sums).for_each(|(o, s)| *o += s);
                } else {
                    out.copy_from_slice(&sums[..out.len()]);
                }
            }
        }
    }
}

/// As [`super::backward::weight_grad`].
pub fn weight_grad<T: Real>(g: &ConvGeom, x: &[T], dy: &[T], accumulate: bool, dw: &mut [T]) {
    let layout = Layout::new(g, true);
    let taps = layout.taps(g, 1);
    let (per_channel, places) = (g.group_filters(), g.out_plane());
    let out = Shared::of(dw);
    // A channel's filters share its padded copies; the batch is summed in order.
    mxrs_lanes::for_each(g.channels, 1, |channels| {
        with_buffer(layout.channel_len + SLACK, |padded: &mut [T]| {
            for c in channels {
                let weights = c * per_channel * taps.len()..(c + 1) * per_channel * taps.len();
                // SAFETY: the weights of one channel belong to one call.
                let dw = unsafe { out.slice(weights) };
                if !accumulate {
                    dw.fill(T::ZERO);
                }
                for n in 0..g.batch {
                    let image = &x[(n * g.channels + c) * g.in_plane()..][..g.in_plane()];
                    let image = padded_image(g, &layout, image, padded, false);
                    for (f, dw) in dw.chunks_exact_mut(taps.len()).enumerate() {
                        let dy = &dy[(n * g.filters + c * per_channel + f) * places..][..places];
                        mxrs_simd::vectorize_kernel(CorrelateTaps {
                            g,
                            layout: &layout,
                            taps: &taps,
                            image,
                            dy,
                            dw,
                        });
                    }
                }
            }
        });
    });
}

/// Adds one plane's products of `dy` and the elements each tap saw.
struct CorrelateTaps<'a, T> {
    g: &'a ConvGeom,
    layout: &'a Layout,
    taps: &'a [usize],
    image: &'a [T],
    dy: &'a [T],
    dw: &'a mut [T],
}

impl<T: Real> Kernel for CorrelateTaps<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Level>(self) {
        for (tap, dw) in self.taps.iter().zip(self.dw) {
            let mut sums = [T::ZERO; 16];
            let mut rest = T::ZERO;
            for (row, dy) in self.dy.chunks_exact(self.g.out_dims[2]).enumerate() {
                let at = self.layout.row_base(self.g, row) + tap;
                let seen = &self.image[at..at + dy.len()];
                let ((dy, dy_rest), (seen, seen_rest)) = (dy.as_chunks::<16>(), seen.as_chunks::<16>());
                for (dy, seen) in dy.iter().zip(seen) {
                    for i in 0..16 {
                        sums[i] = T::fma::<L>(dy[i], seen[i], sums[i]);
                    }
                }
                for (dy, seen) in dy_rest.iter().zip(seen_rest) {
                    rest = T::fma::<L>(*dy, *seen, rest);
                }
            }
            *dw += T::from_f64(sums.iter().map(|v| v.to_f64()).sum::<f64>() + rest.to_f64());
        }
    }
}
